//! IKE_AUTH in several rounds: EAP for the initiator, a certificate for the responder (RFC 7296 §2.16).

use core::net::IpAddr;
use std::sync::Arc;

use ipsecd::crypto::Secret;
use ipsecd::crypto::pem;
use ipsecd::crypto::sign::PrivateKey;
use ipsecd::crypto::x509::{Certificate, Trust};
use ipsecd::ike::{CertFault, CloseReason, EapFault};
use ipsecd::ipsec::pad::{
    AddressPool, AddressRequest, Auth, Authority, Credential, EapClient, EapMethod, EapServer,
    EapUser, LocalAuth, Peer, PeerAuth, StartPolicy, Wish,
};
use ipsecd::testing::Stage;
use ipsecd::wire::ike::eap::{Eap, EapCode};
use ipsecd::wire::ike::numbers::{ExchangeType, NotifyType};
use ipsecd::wire::ike::payload::{Payload, Vendor};

use crate::support::*;

pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn der(name: &str) -> Vec<u8> {
    pem::blocks(&file(name)).next().unwrap().der.unwrap().expose().to_vec()
}

fn credential(name: &str) -> Credential {
    let certificate = Certificate::parse(&der(&format!("{name}.pem"))).unwrap();
    let key = PrivateKey::from_pem(&file(&format!("{name}.key")), None).unwrap();
    Credential::new(vec![certificate], Arc::new(key)).unwrap()
}

fn authority(ca: &str) -> Arc<Authority> {
    let trust = Trust::new(&[der(&format!("{ca}.pem"))]).unwrap();
    Arc::new(Authority { trust, keys: Vec::new(), allow_sha_1: false })
}

/// A by EAP with these methods, B by its certificate.
pub(crate) fn sites(client: &[EapMethod], server: &[EapMethod]) -> (Peer, Peer) {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.auth = Auth {
        local: LocalAuth::Eap(Arc::new(EapClient {
            identity: "joe".to_owned(),
            methods: client.to_vec(),
            password: Some(Secret::copy_of(b"pass")),
            credential: Some(credential("a-p256")),
        })),
        peer: PeerAuth::Signature(authority("ca-p256")),
    };
    b.auth = Auth {
        local: LocalAuth::Signature(Arc::new([credential("b-p256")])),
        peer: PeerAuth::Eap(Arc::new(EapServer {
            methods: server.to_vec(),
            users: vec![EapUser { name: "joe".to_owned(), password: Secret::copy_of(b"pass") }],
            authority: Some(authority("ca-p256")),
        })),
    };
    (a, b)
}

pub(crate) const MSCHAPV2: [EapMethod; 1] = [EapMethod::MsChapV2];
const TLS: [EapMethod; 1] = [EapMethod::Tls];

fn attempt(a: Peer, b: Peer) -> Pair {
    let mut pair = pair_of(a, b);
    pair.initiate(A);
    settle(&mut pair);
    pair
}

#[test]
fn each_method_ends_with_one_ike_sa_and_its_child() {
    for methods in [&MSCHAPV2, &TLS] {
        let (a, b) = sites(methods, methods);
        let pair = attempt(a, b);
        assert_ok(&pair, pair.check_established(1));
        let status = pair.status(B);
        let user = status[0].eap_identity.as_ref().map(ToString::to_string);
        let expected = if *methods == TLS { "a.example.net" } else { "joe" };
        assert_eq!(user.as_deref(), Some(expected));
        let status = pair.status(A);
        assert_eq!(status[0].eap_identity, None);
    }
}

#[test]
fn whom_eap_has_authenticated_is_known_after_a_rekey() {
    let (a, b) = sites(&MSCHAPV2, &MSCHAPV2);
    let mut pair = attempt(a, b);
    pair.rekey_ike(A).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    let status = pair.status(B);
    assert_eq!(status[0].eap_identity.as_ref().map(ToString::to_string).as_deref(), Some("joe"));
}

#[test]
fn an_address_is_given_to_whom_eap_has_authenticated() {
    let (mut a, mut b) = sites(&MSCHAPV2, &MSCHAPV2);
    let (first, last) = ([10, 3, 0, 1].into(), [10, 3, 0, 9].into());
    let everything = peers::range([0; 4].into(), [255; 4].into());
    let addresses = vec![Wish::V4(None)];
    a.request = Some(AddressRequest { addresses, dns: true, domains: None });
    a.children[0].ts_local = vec![everything];
    let ranges = vec![(IpAddr::V4(first), IpAddr::V4(last))];
    b.pool = Some(AddressPool { ranges, dns: Vec::new(), domains: Vec::new() });
    b.children[0].ts_peer = vec![peers::range(first, last)];
    b.children[0].start = StartPolicy::Respond;
    let pair = attempt(a, b);
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(pair.status(B)[0].leased, [IpAddr::V4(first)]);
    assert_eq!(only_child(&pair, A).ts_local[0].start_addr, IpAddr::V4(first));
}

/// Why each side says that it came to nothing.
#[track_caller]
fn reasons(a: Peer, b: Peer) -> (CloseReason, CloseReason) {
    let pair = attempt(a, b);
    assert_ok(&pair, pair.check_gone());
    let one = |side| match pair.closed(side).as_slice() {
        [reason] => reason.clone(),
        other => panic!("{other:?}\n{}", pair.trace),
    };
    (one(A), one(B))
}

fn client_of(peer: &mut Peer) -> &mut EapClient {
    let LocalAuth::Eap(client) = &mut peer.auth.local else { panic!("EAP") };
    Arc::get_mut(client).unwrap()
}

#[test]
fn a_wrong_password_is_told_to_both_operators() {
    let (mut a, b) = sites(&MSCHAPV2, &MSCHAPV2);
    client_of(&mut a).password = Some(Secret::copy_of(b"guess"));
    let (ours, theirs) = reasons(a, b);
    assert_eq!(ours, CloseReason::Eap(EapFault::Refused));
    assert_eq!(theirs.to_string(), "EAP failed: joe is not known, or has another password");
}

#[test]
fn no_common_method_is_told_to_both_operators() {
    let (a, b) = sites(&MSCHAPV2, &TLS);
    let expected = (EapFault::Refused, EapFault::Method);
    assert_eq!(reasons(a, b), (CloseReason::Eap(expected.0), CloseReason::Eap(expected.1)));
}

#[test]
fn a_certificate_of_an_unknown_ca_is_refused_inside_eap() {
    let (mut a, b) = sites(&TLS, &TLS);
    client_of(&mut a).credential = Some(credential("a-ed25519"));
    let (ours, theirs) = reasons(a, b);
    let said = theirs.to_string();
    assert!(said.starts_with("EAP failed: TLS: the certificate is not accepted: no CA"), "{said}");
    assert!(matches!(ours, CloseReason::Eap(_)), "{ours:?}");
}

// RFC 7296 §2.16: the responder proves who it is before the initiator says anything of itself but IDi.
#[test]
fn nothing_of_eap_is_said_to_a_responder_that_is_not_the_one() {
    let (a, mut b) = sites(&MSCHAPV2, &MSCHAPV2);
    b.auth.local = LocalAuth::Signature(Arc::new([credential("b-ed25519")]));
    let pair = attempt(a, b);
    let [CloseReason::CertificateOfPeer(CertFault::Certificate(_))] = pair.closed(A).as_slice()
    else {
        panic!("{:?}", pair.closed(A))
    };
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn who_is_not_to_use_eap_is_refused_when_auth_is_missing() {
    let (a, _) = sites(&MSCHAPV2, &MSCHAPV2);
    let (ours, theirs) = reasons(a, peers::site_b());
    assert_eq!(ours, CloseReason::AuthenticationRefused);
    assert_eq!(theirs, CloseReason::Eap(EapFault::Unwanted));
}

#[test]
fn who_is_to_use_eap_and_sends_auth_is_refused() {
    let (_, b) = sites(&MSCHAPV2, &MSCHAPV2);
    let (ours, theirs) = reasons(peers::site_a(), b);
    assert_eq!(ours, CloseReason::AuthenticationRefused);
    assert!(matches!(theirs, CloseReason::MethodOfPeer { expected: "EAP", .. }), "{theirs:?}");
}

#[test]
fn each_message_lost_once_changes_nothing() {
    for (methods, least) in [(&MSCHAPV2, 12), (&TLS, 12)] {
        let fresh = || {
            let (a, b) = sites(methods, methods);
            pair_of(a, b)
        };
        crate::lost::lose_each(least, fresh, |pair| pair.initiate(A), 1);
    }
}

/// A puppet as initiator before the responder B, IKE_SA_INIT done; its first request without AUTH, and the answer to it.
fn serving() -> (Stage, Vec<Payload>) {
    let (_, b) = sites(&MSCHAPV2, &MSCHAPV2);
    let mut stage = Stage::responder_with(7, b);
    let mut payloads = stage.puppet.init_payloads();
    // Longer than the answer: no more than came goes to an address that is not validated.
    payloads.push(Payload::Vendor(Vendor { data: vec![7; 128] }));
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request);
    stage.puppet.read_init_response(&response[0]).unwrap();
    let payloads: Vec<_> = stage
        .puppet
        .auth_payloads()
        .unwrap()
        .into_iter()
        .filter(|payload| !matches!(payload, Payload::Auth(_)))
        .collect();
    let answer = exchange(&mut stage, &payloads);
    (stage, answer)
}

fn exchange(stage: &mut Stage, payloads: &[Payload]) -> Vec<Payload> {
    let request = stage.puppet.request(ExchangeType::IKE_AUTH, payloads).unwrap();
    let sent = stage.give(&request);
    sent.first().and_then(|sent| stage.puppet.open(sent)).unwrap_or_default()
}

fn has(payloads: &[Payload], wanted: NotifyType) -> bool {
    payloads.iter().any(|p| matches!(p, Payload::Notify(n) if n.notify_type == wanted))
}

#[test]
fn the_first_answer_has_idr_cert_auth_and_eap_and_no_child() {
    let (stage, answer) = serving();
    let kinds: Vec<_> = answer.iter().map(|payload| payload.payload_type().to_string()).collect();
    assert_eq!(kinds, ["ID_R", "CERT", "AUTH", "EAP"]);
    assert!(stage.sad.is_empty());
    // A half-open IKE SA has no peer yet, and goes when its time is over.
    assert!(stage.events.is_empty(), "{:?}", stage.events);
}

#[test]
fn an_ike_sa_that_stops_in_the_middle_of_eap_is_forgotten() {
    let (mut stage, _) = serving();
    let _ = stage.pass_time(core::time::Duration::from_secs(120));
    assert_eq!(stage.ike_sas(), 0);
    assert!(stage.violations.is_empty(), "{:?}", stage.violations);
}

#[test]
fn rounds_that_lack_what_they_need_end_the_ike_sa() {
    for payloads in [
        Vec::new(),
        // AUTH in the place of EAP: by a key that is known, were there one.
        vec![Payload::Auth(serving().0.puppet.auth().unwrap())],
    ] {
        let (mut stage, _) = serving();
        let answer = exchange(&mut stage, &payloads);
        assert!(has(&answer, NotifyType::INVALID_SYNTAX), "{answer:?}");
        assert!(stage.sad.is_empty());
    }
    // Success is the server's word.
    let (mut stage, _) = serving();
    let success = Eap { code: EapCode::SUCCESS, identifier: 0, data: Vec::new() };
    let answer = exchange(&mut stage, &[Payload::Eap(success)]);
    assert!(
        matches!(answer.as_slice(), [Payload::Eap(eap)] if eap.code == EapCode::FAILURE),
        "{answer:?}"
    );
    assert!(stage.sad.is_empty());
}

#[test]
fn no_request_but_ike_auth_is_answered_before_the_end_of_eap() {
    let (mut stage, _) = serving();
    let request = stage.puppet.request(ExchangeType::INFORMATIONAL, &[]).unwrap();
    assert!(stage.give(&request).is_empty());
}

#[test]
fn eap_without_an_end_is_ended() {
    let (mut stage, mut answer) = serving();
    for round in 0..200 {
        let Some(Payload::Eap(request)) = answer.iter().find(|p| matches!(p, Payload::Eap(_)))
        else {
            panic!("{answer:?}")
        };
        if request.code == EapCode::FAILURE {
            assert!(round > 0);
            assert!(stage.sad.is_empty());
            return;
        }
        let data = request.data.clone();
        let response = Eap { code: EapCode::RESPONSE, identifier: request.identifier, data };
        answer = exchange(&mut stage, &[Payload::Eap(response)]);
    }
    panic!("it went on and on");
}
