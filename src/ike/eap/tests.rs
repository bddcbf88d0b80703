use core::time::Duration;
use std::sync::Arc;

use super::*;
use crate::crypto::Secret;
use crate::crypto::pem;
use crate::crypto::random::testing::Fixed;
use crate::crypto::sign::PrivateKey;
use crate::crypto::x509::{Certificate, Trust};
use crate::ike::limits;
use crate::ipsec::pad::{Authority, Credential, EapClient, EapServer, EapUser};
use crate::wire::ike::eap::{Eap, EapCode};

/// 2026-11-01.
const NOW: Duration = Duration::from_secs(1_793_491_200);

fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn der(name: &str) -> Vec<u8> {
    let block = pem::blocks(&file(&format!("{name}.pem"))).next().expect("a block");
    block.der.expect("base64").expose().to_vec()
}

fn credential(names: &[&str]) -> Credential {
    let chain = names.iter().map(|name| Certificate::parse(&der(name)).expect("a certificate"));
    let key = PrivateKey::from_pem(&file(&format!("{}.key", names[0])), None).expect("a key");
    Credential::new(chain.collect(), Arc::new(key)).expect("they belong together")
}

fn authority(cas: &[&str]) -> Arc<Authority> {
    let cas: Vec<_> = cas.iter().map(|name| der(name)).collect();
    let trust = Trust::new(&cas).expect("CAs");
    Arc::new(Authority { trust, keys: Vec::new(), allow_sha_1: false })
}

fn fqdn(name: &str) -> Identity {
    Identity::Fqdn(name.to_owned())
}

fn rng() -> Fixed {
    Fixed::new(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])
}

/// A client with everything, a.example.net by certificate.
fn setup(methods: &[EapMethod]) -> EapClient {
    EapClient {
        identity: "joe".to_owned(),
        methods: methods.to_vec(),
        password: Some(Secret::copy_of(b"pass")),
        credential: Some(credential(&["a-p256"])),
    }
}

fn serving(methods: &[EapMethod]) -> EapServer {
    let user = |name: &str, password: &[u8]| EapUser {
        name: name.to_owned(),
        password: Secret::copy_of(password),
    };
    EapServer {
        methods: methods.to_vec(),
        users: vec![user("ann", b"other"), user("joe", b"pass")],
        authority: Some(authority(&["ca-p256"])),
    }
}

/// What came of it: the MSKs and the user, or what each side found wrong.
type Outcome = Result<(Secret, Secret, UserName), (Option<EapFault>, Option<EapFault>)>;

struct Run {
    client: Client,
    server: Server,
    request: Eap,
    rounds: usize,
}

impl Run {
    fn new(client: EapClient, server: EapServer) -> Self {
        Self::between(client, server, &["b-p256"], "b.example.net")
    }

    fn between(client: EapClient, server: EapServer, ours: &[&str], wanted: &str) -> Self {
        let authority = Some(authority(&["ca-p256"]));
        let client = Client::new(Arc::new(client), authority, fqdn(wanted), NOW);
        let credential = Some(credential(ours));
        let claimed = fqdn("a.example.net");
        let (server, request) =
            Server::begin(Arc::new(server), credential, claimed, true, NOW, &mut rng());
        Self { client, server, request, rounds: 0 }
    }

    fn finish(mut self) -> (Outcome, usize) {
        let mut rng = rng();
        let (mut msk_of_server, mut user, mut fault_of_server) = (None, None, None);
        loop {
            self.rounds += 1;
            assert!(self.rounds < 100, "it goes on and on");
            let response = match self.client.handle(&self.request, &mut rng) {
                Ok(ClientStep::Respond(response)) => response,
                Ok(ClientStep::Succeeded(msk)) => {
                    let msk_of_server = msk_of_server.expect("the server has one");
                    return (Ok((msk, msk_of_server, user.expect("a user"))), self.rounds);
                }
                Err(fault) => return (Err((Some(fault), fault_of_server)), self.rounds),
            };
            // What is sent can be read.
            let mut bytes = Vec::new();
            response.emit(&mut bytes);
            assert_eq!(
                Eap::parse(&mut crate::wire::Reader::new("EAP", &bytes)),
                Ok(response.clone())
            );
            self.request = match self.server.handle(&response, &mut rng) {
                ServerStep::Request(request) => request,
                ServerStep::Succeeded { success, msk, user: found } => {
                    (msk_of_server, user) = (Some(msk), Some(found));
                    success
                }
                ServerStep::Failed(failure, fault) => {
                    fault_of_server = Some(fault);
                    failure
                }
            };
        }
    }
}

fn run(client: EapClient, server: EapServer) -> Outcome {
    Run::new(client, server).finish().0
}

const BOTH: [EapMethod; 2] = [EapMethod::MsChapV2, EapMethod::Tls];

#[test]
fn both_methods_give_both_sides_the_same_msk() {
    for methods in [&BOTH[..1], &BOTH[1..], &BOTH] {
        let (client, server, user) = run(setup(methods), serving(methods)).expect("success");
        assert_eq!(client, server);
        assert_eq!(client.len(), 64);
        let expected = if methods[0] == EapMethod::Tls { "a.example.net" } else { "joe" };
        assert_eq!(user.to_string(), expected);
    }
}

#[test]
fn a_method_that_is_not_ours_is_declined_for_one_that_is() {
    let (_, _, user) = run(setup(&BOTH[1..]), serving(&BOTH)).expect("success");
    assert_eq!(user.to_string(), "a.example.net");
    let (_, _, user) =
        run(setup(&BOTH[..1]), serving(&[EapMethod::Tls, EapMethod::MsChapV2])).expect("success");
    assert_eq!(user.to_string(), "joe");
    assert_eq!(
        run(setup(&BOTH[..1]), serving(&BOTH[1..])),
        Err((Some(EapFault::Refused), Some(EapFault::Method)))
    );
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same_from_outside() {
    let mut wrong = setup(&BOTH[..1]);
    wrong.password = Some(Secret::copy_of(b"passe"));
    let (first, rounds) = Run::new(wrong, serving(&BOTH[..1])).finish();
    let mut nobody = setup(&BOTH[..1]);
    nobody.identity = "jim".to_owned();
    let (second, same_rounds) = Run::new(nobody, serving(&BOTH[..1])).finish();
    assert_eq!(rounds, same_rounds);
    let known = |name: &str| EapFault::Password(UserName(name.as_bytes().to_vec()));
    assert_eq!(first, Err((Some(EapFault::Refused), Some(known("joe")))));
    assert_eq!(second, Err((Some(EapFault::Refused), Some(known("jim")))));
    // Not even the password that stands for nobody.
    let empty = EapClient {
        identity: "jim".to_owned(),
        password: Some(Secret::empty()),
        ..setup(&BOTH[..1])
    };
    assert!(run(empty, serving(&BOTH[..1])).is_err());
}

#[test]
fn tls_works_with_every_kind_of_key_and_a_chain_in_fragments() {
    for ours in [
        &["a-p256"][..],
        &["a-p384"],
        &["a-p521"],
        &["a-ed25519"],
        &["a-rsa2048"],
        &["a-low", "ca-low", "ca-middle"],
    ] {
        let mut client = setup(&BOTH[1..]);
        client.credential = Some(credential(ours));
        let mut server = serving(&BOTH[1..]);
        let cas = ["ca-p256", "ca-p384", "ca-p521", "ca-ed25519", "ca-rsa2048"];
        server.authority = Some(authority(&cas));
        let (a, b, _) = run(client, server).unwrap_or_else(|faults| panic!("{ours:?}: {faults:?}"));
        assert_eq!(a, b);
    }
}

#[test]
fn tls_refuses_whom_the_ca_does_not_vouch_for_on_either_side() {
    for (name, cas) in [
        ("a-p256", &["ca-ed25519"][..]),
        ("a-expired", &["ca-p256"]),
        ("a-impostor", &["ca-p256"]),
        ("a-eku-code", &["ca-p256"]),
    ] {
        let mut client = setup(&BOTH[1..]);
        client.credential = Some(credential(&[name]));
        let mut server = serving(&BOTH[1..]);
        server.authority = Some(authority(cas));
        let Err((Some(_), Some(EapFault::Tls(TlsError::Certificate(_))))) = run(client, server)
        else {
            panic!("{name}")
        };
    }
    let server =
        Run::between(setup(&BOTH[1..]), serving(&BOTH[1..]), &["b-ed25519"], "b.example.net");
    let Err((Some(EapFault::Tls(TlsError::Certificate(_))), Some(_))) = server.finish().0 else {
        panic!("another CA's server")
    };
}

#[test]
fn tls_refuses_a_certificate_of_another_name_on_either_side() {
    let mut client = setup(&BOTH[1..]);
    // b.example.net's, and a.example.net is who it says to be.
    client.credential = Some(credential(&["b-p256"]));
    let (_, fault) = run(client, serving(&BOTH[1..])).expect_err("refused");
    assert_eq!(fault, Some(EapFault::Name(fqdn("a.example.net"))));
    let other = Run::between(setup(&BOTH[1..]), serving(&BOTH[1..]), &["b-p256"], "c.example.net");
    let (fault, _) = other.finish().0.expect_err("refused");
    assert_eq!(fault, Some(EapFault::Name(fqdn("c.example.net"))));
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|two| u8::from_str_radix(core::str::from_utf8(two).expect("hex"), 16).expect("hex"))
        .collect()
}

fn eap(text: &str) -> Eap {
    Eap::parse(&mut crate::wire::Reader::new("EAP", &hex(text))).expect("an EAP message")
}

// Recorded of strongSwan 5.9.8: vectors/captures/ike/ike-eap-mschapv2.
#[test]
fn a_recorded_server_is_answered_as_its_client_did() {
    let setup = EapClient {
        identity: "alice".to_owned(),
        methods: vec![EapMethod::MsChapV2],
        password: Some(Secret::copy_of(b"lab-eap-password")),
        credential: None,
    };
    let mut client = Client::new(Arc::new(setup), None, fqdn("b.lab.example"), NOW);
    let mut rng = Fixed::new(&hex("31a44ab02faaa0032994984c33515e75d9")[1..]);
    for (request, response) in [
        ("0100000501", "0200000a01616c696365"),
        (
            "01a700241a01a7001f108bc828922d1b2693e86796cbd5b9e9047374726f6e675377616e",
            "02a700401a02a7003b31a44ab02faaa0032994984c33515e75d9000000000000000083c31742e65d1ad04f\
             cc5c2486272a6d25ed9a07b5056c6600616c696365",
        ),
        (
            "01a800491a03a70044533d3143454634383031413646374532384344453244423441423234374235333233\
             3346423331443532204d3d57656c636f6d65327374726f6e675377616e00",
            "02a800061a03",
        ),
    ] {
        let answer = client.handle(&eap(request), &mut rng);
        let Ok(ClientStep::Respond(answer)) = answer else { panic!("an answer") };
        assert_eq!(answer, eap(&response.replace(' ', "")));
    }
    let Ok(ClientStep::Succeeded(msk)) = client.handle(&eap("03a80004"), &mut rng) else {
        panic!("success")
    };
    let mut expected = hex("cc739e966fef738adfcfbed113399a51a920fd720972fdf49876c8cf3bec785c");
    expected.extend([0; 32]);
    assert_eq!(msk, Secret::new(expected));
}

#[test]
fn success_before_the_end_and_a_false_server_are_refused() {
    for methods in [&BOTH[..1], &BOTH[1..]] {
        let mut run = Run::new(setup(methods), serving(methods));
        let mut rng = rng();
        // At every step before the last.
        for _ in 0..2 {
            let success = Eap { code: EapCode::SUCCESS, identifier: 0, data: Vec::new() };
            assert!(matches!(
                run.client.handle(&success, &mut rng),
                Err(EapFault::Malformed("success before the method was over"))
            ));
            let Ok(ClientStep::Respond(response)) = run.client.handle(&run.request, &mut rng)
            else {
                panic!("a response")
            };
            let ServerStep::Request(request) = run.server.handle(&response, &mut rng) else {
                panic!("a request")
            };
            run.request = request;
        }
    }
    // Another password at the server, which says all the same that ours is right.
    let mut run = Run::new(setup(&BOTH[..1]), serving(&BOTH[..1]));
    let mut rng = rng();
    for _ in 0..2 {
        let Ok(ClientStep::Respond(response)) = run.client.handle(&run.request, &mut rng) else {
            panic!("a response")
        };
        let ServerStep::Request(request) = run.server.handle(&response, &mut rng) else {
            panic!("a request")
        };
        run.request = request;
    }
    let at = run.request.data.iter().position(|byte| *byte == b'=').expect("S=");
    run.request.data[at + 1] ^= 1;
    assert!(matches!(run.client.handle(&run.request, &mut rng), Err(EapFault::ServerProof)));
}

#[test]
fn rounds_and_bytes_are_bounded() {
    let mut client = Run::new(setup(&BOTH), serving(&BOTH)).client;
    let notification = Eap { code: EapCode::REQUEST, identifier: 1, data: b"\x02hello".to_vec() };
    for _ in 0..limits::MAX_EAP_ROUNDS {
        assert!(client.handle(&notification, &mut rng()).is_ok());
    }
    assert!(matches!(client.handle(&notification, &mut rng()), Err(EapFault::TooMany)));

    let mut run = Run::new(setup(&BOTH[1..]), serving(&BOTH[1..]));
    let mut random = rng();
    let Ok(ClientStep::Respond(identity)) = run.client.handle(&run.request, &mut random) else {
        panic!("a response")
    };
    let ServerStep::Request(start) = run.server.handle(&identity, &mut random) else {
        panic!("a request")
    };
    // A length that nobody needs, and fragments without an end.
    let mut identifier = start.identifier;
    let mut fragment = |server: &mut Server, data: Vec<u8>| {
        let response = Eap { code: EapCode::RESPONSE, identifier, data };
        identifier = identifier.wrapping_add(1);
        server.handle(&response, &mut rng())
    };
    let mut sent = 0;
    loop {
        let data = [&[13, 0x40][..], &[0x16; 8000]].concat();
        sent += 8000;
        match fragment(&mut run.server, data) {
            ServerStep::Request(_) => assert!(sent <= limits::MAX_EAP_TLS),
            ServerStep::Failed(_, fault) => {
                assert_eq!(fault, EapFault::TooMany);
                break;
            }
            ServerStep::Succeeded { .. } => panic!("success"),
        }
    }
    let mut long = Run::new(setup(&BOTH[1..]), serving(&BOTH[1..]));
    let Ok(ClientStep::Respond(identity)) = long.client.handle(&long.request, &mut random) else {
        panic!("a response")
    };
    let ServerStep::Request(start) = long.server.handle(&identity, &mut random) else {
        panic!("a request")
    };
    let data = vec![13, 0xc0, 0x7f, 0, 0, 0, 1];
    let response = Eap { code: EapCode::RESPONSE, identifier: start.identifier, data };
    assert!(matches!(
        long.server.handle(&response, &mut random),
        ServerStep::Failed(_, EapFault::TooMany)
    ));
}

/// Every message of a run, cut and flipped at every place, at both sides: an error or an answer, and never success.
#[test]
fn spoiled_messages_end_in_an_error() {
    for methods in [&BOTH[..1], &BOTH[1..]] {
        for step in 0..4 {
            for place in 0..80 {
                for cut in [false, true] {
                    spoil(methods, step, place, cut);
                }
            }
        }
    }
}

fn spoil(methods: &[EapMethod], step: usize, place: usize, cut: bool) {
    let mut run = Run::new(setup(methods), serving(methods));
    let mut rng = rng();
    let spoiled = |message: &Eap| {
        let mut message = message.clone();
        if cut {
            message.data.truncate(place);
        } else if let Some(byte) = message.data.get_mut(place) {
            *byte ^= 0x55;
        }
        message
    };
    for at in 0..step {
        let Ok(ClientStep::Respond(response)) = run.client.handle(&run.request, &mut rng) else {
            return;
        };
        let response = if at + 1 == step { spoiled(&response) } else { response };
        match run.server.handle(&response, &mut rng) {
            ServerStep::Request(request) => run.request = request,
            ServerStep::Failed(..) | ServerStep::Succeeded { .. } => return,
        }
    }
    let _ = run.client.handle(&spoiled(&run.request), &mut rng);
}

#[test]
fn names_of_peers_are_shown_without_control_characters() {
    let name = UserName::new(b"joe\x1b[2J\xff").expect("short");
    assert_eq!(name.to_string(), "joe\\u{1b}[2J\u{fffd}");
    assert_eq!(UserName::new(&[b'a'; UserName::MAX + 1]), None);
}
