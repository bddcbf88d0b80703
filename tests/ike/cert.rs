//! IKE_AUTH by certificates: every kind of key, what is refused, and what goes over the wire.

use std::sync::Arc;

use ipsecd::crypto::pem;
use ipsecd::crypto::sign::{PrivateKey, PublicKeyError, Signer};
use ipsecd::crypto::x509::ocsp::OcspError;
use ipsecd::crypto::x509::{CertError, Certificate, OcspNote, Revocation, Trust};
use ipsecd::ike::{CertFault, CloseReason, Command};
use ipsecd::ipsec::pad::{Auth, Authority, Credential, Identity, LocalAuth, Peer, PeerAuth};
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{AuthMethod, KeId, NotifyType, PayloadType, PrfId};
use ipsecd::wire::ike::payload::Payload;

use crate::support::*;

fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn der(name: &str) -> Vec<u8> {
    pem::blocks(&file(name)).next().unwrap().der.unwrap().expose().to_vec()
}

/// The certificate of this name with its key, and the CAs above it.
fn ours(name: &str, above: &[&str]) -> LocalAuth {
    let chain = core::iter::once(&name).chain(above);
    let chain = chain.map(|name| Certificate::parse(&der(&format!("{name}.pem"))).unwrap());
    let key = PrivateKey::from_pem(&file(&format!("{name}.key")), None).unwrap();
    LocalAuth::Signature(Arc::new([Credential::new(chain.collect(), Arc::new(key)).unwrap()]))
}

fn theirs_with(cas: &[&str], crls: &[&str], allow_sha_1: bool) -> PeerAuth {
    let cas: Vec<_> = cas.iter().map(|name| der(&format!("{name}.pem"))).collect();
    let crls: Vec<_> = crls.iter().map(|name| der(&format!("{name}.crl"))).collect();
    let trust = Trust::new(&cas).unwrap().with_crls(&crls).unwrap();
    PeerAuth::Signature(Arc::new(Authority { trust, keys: Vec::new(), allow_sha_1 }))
}

fn theirs(cas: &[&str]) -> PeerAuth {
    theirs_with(cas, &[], false)
}

/// The key of this certificate, without it.
fn raw(name: &str) -> LocalAuth {
    raw_keys(&[name])
}

/// The keys of these certificates, without them.
pub(crate) fn raw_keys(names: &[&str]) -> LocalAuth {
    let keys = names.iter().map(|name| {
        let key = PrivateKey::from_pem(&file(&format!("{name}.key")), None).unwrap();
        Credential::raw(Arc::new(key))
    });
    LocalAuth::Signature(keys.collect())
}

/// Whoever has one of the keys of these certificates.
pub(crate) fn known(names: &[&str]) -> PeerAuth {
    let keys = names.iter().map(|name| {
        let key = PrivateKey::from_pem(&file(&format!("{name}.key")), None).unwrap();
        key.public_key().clone()
    });
    let trust = Trust::new(&[]).unwrap();
    PeerAuth::Signature(Arc::new(Authority { trust, keys: keys.collect(), allow_sha_1: false }))
}

#[test]
fn raw_public_keys_take_the_place_of_certificates() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.auth = Auth { local: raw("a-p256"), peer: known(&["a-p521", "b-p384"]) };
    b.auth = Auth { local: raw("b-p384"), peer: known(&["a-p256"]) };
    succeeds(a.clone(), b.clone());
    let stranger = Peer { auth: Auth { local: raw("a-p521"), ..a.auth.clone() }, ..a.clone() };
    assert_eq!(refused(stranger, b.clone()), CertFault::UnknownKey);
    // A certificate does for a key that is known; a key does not for a certificate.
    let certified =
        Peer { auth: Auth { local: ours("a-p256", &[]), ..a.auth.clone() }, ..a.clone() };
    succeeds(certified, b.clone());
    b.auth.peer = theirs(&["ca-p256"]);
    assert_eq!(refused(a, b), CertFault::UnknownKey);
}

fn psk() -> Auth {
    peers::site_a().auth
}

/// Site A with this certificate against site B with a good one, each by the CA with a key on P-256.
fn sites(a: &str, above: &[&str]) -> (Peer, Peer) {
    let (mut site_a, mut site_b) = (peers::site_a(), peers::site_b());
    site_a.auth = Auth { local: ours(a, above), peer: theirs(&["ca-p256"]) };
    site_b.auth = Auth { local: ours("b-p256", &[]), peer: theirs(&["ca-p256"]) };
    // An offer as long as they are: an answer with CERTREQ that is longer than the request would wait for a COOKIE.
    if let Some(first) = site_a.ike.proposals.first_mut() {
        first.ke.extend([KeId::ECP_256, KeId::ECP_384, KeId::MODP_2048]);
        first.prf.extend([PrfId::PRF_HMAC_SHA2_384, PrfId::PRF_HMAC_SHA2_512]);
    }
    (site_a, site_b)
}

fn attempt(a: Peer, b: Peer) -> Pair {
    let mut pair = pair_of(a, b);
    pair.initiate(A);
    settle(&mut pair);
    pair
}

#[track_caller]
fn succeeds(a: Peer, b: Peer) {
    let pair = attempt(a, b);
    assert_ok(&pair, pair.check_established(1));
}

/// What B says of A's certificate; A is told no more than that it is refused.
#[track_caller]
fn refused(a: Peer, b: Peer) -> CertFault {
    let pair = attempt(a, b);
    assert_eq!(pair.closed(A), [CloseReason::AuthenticationRefused], "{}", pair.trace);
    assert_ok(&pair, pair.check_gone());
    match pair.closed(B).as_slice() {
        [CloseReason::CertificateOfPeer(fault)] => fault.clone(),
        other => panic!("{other:?}\n{}", pair.trace),
    }
}

#[test]
fn every_kind_of_key_proves_both_sides() {
    for kind in ["rsa2048", "p256", "p384", "p521", "ed25519"] {
        let (mut a, mut b) = (peers::site_a(), peers::site_b());
        let ca = format!("ca-{kind}");
        a.auth = Auth { local: ours(&format!("a-{kind}"), &[]), peer: theirs(&[&ca]) };
        b.auth = Auth { local: ours(&format!("b-{kind}"), &[]), peer: theirs(&[&ca]) };
        succeeds(a, b);
    }
}

#[test]
fn sides_may_have_keys_of_different_kinds_and_cas() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.auth = Auth {
        local: ours("a-rsa4096", &[]),
        peer: theirs(&["ca-rsa2048", "ca-p521", "ca-ed25519"]),
    };
    b.auth = Auth { local: ours("b-ed25519", &[]), peer: theirs(&["ca-p256", "ca-p384"]) };
    succeeds(a, b);
}

#[test]
fn one_side_may_have_a_certificate_and_the_other_a_psk() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.auth = Auth { local: ours("a-p256", &[]), peer: psk().peer };
    b.auth = Auth { local: psk().local, peer: theirs(&["ca-p256"]) };
    succeeds(a.clone(), b.clone());
    a.auth = Auth { local: psk().local, peer: theirs(&["ca-p256"]) };
    b.auth = Auth { local: ours("b-p256", &[]), peer: psk().peer };
    succeeds(a, b);
}

#[test]
fn cas_between_are_sent_along() {
    let (a, b) = sites("a-middle", &["ca-middle"]);
    succeeds(a, b);
    let (a, b) = sites("a-low", &["ca-low", "ca-middle"]);
    succeeds(a, b);
    let (a, b) = sites("a-low", &["ca-low"]);
    let fault = refused(a, b);
    assert!(matches!(fault, CertFault::Certificate(CertError::UnknownIssuer(_))), "{fault:?}");
}

#[test]
fn certreq_ends_the_chain_where_the_peer_knows_on() {
    let (mut a, mut b) = sites("a-low", &["ca-low", "ca-middle"]);
    // B trusts the CA in the middle itself, and says so: A need not send it.
    b.auth.peer = theirs(&["ca-middle"]);
    a.auth.peer = theirs(&["ca-p256"]);
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    let sent = pair.expect(A, IKE_AUTH, REQUEST);
    let (low, middle) = (der("ca-low.pem").len(), der("ca-middle.pem").len());
    let alone = der("a-low.pem").len() + low;
    let len = sent.datagram().len();
    assert!((alone..alone + middle).contains(&len), "{len} bytes, {alone} for two certificates");
    pair.deliver(sent);
    pair.pass(B, IKE_AUTH, RESPONSE);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn a_peer_may_be_named_by_its_address_or_its_subject() {
    let address = Identity::Ipv4([192, 0, 2, 1].into());
    let email = Identity::Email("ADMIN@example.net".into());
    let subject =
        |name: &str| Identity::Dn(Certificate::parse(&der(name)).unwrap().subject().to_vec());
    for (id, certificate) in [
        (address, "a-names"),
        (email, "a-names"),
        (Identity::Fqdn("A.EXAMPLE.NET".into()), "a-names"),
        (subject("a-names.pem"), "a-names"),
        (subject("a-bare.pem"), "a-bare"),
    ] {
        let (mut a, mut b) = sites(certificate, &[]);
        a.local_id = id.clone();
        b.peer_id = Some(id);
        succeeds(a, b);
    }
}

#[test]
fn an_identity_that_is_not_in_the_certificate_is_refused() {
    let other = [
        // No wildcards, no common name, no key id, no name of another kind.
        (Identity::Fqdn("x.example.org".into()), "a-names"),
        (Identity::Fqdn("a.example.net".into()), "a-bare"),
        (Identity::Fqdn("b.example.net".into()), "a-p256"),
        (Identity::Email("a.example.net".into()), "a-p256"),
        (Identity::Ipv4([192, 0, 2, 2].into()), "a-names"),
        (Identity::KeyId(b"a.example.net".to_vec()), "a-p256"),
        (Identity::Dn(vec![0x30, 0]), "a-bare"),
    ];
    for (id, certificate) in other {
        let (mut a, mut b) = sites(certificate, &[]);
        a.local_id = id.clone();
        b.peer_id = Some(id.clone());
        assert_eq!(refused(a, b), CertFault::Name(id));
    }
}

#[test]
fn whoever_a_ca_vouches_for_is_let_in_by_its_own_name_if_anybody_may() {
    let (mut a, mut b) = sites("a-p256", &[]);
    b.peer_id = None;
    succeeds(a.clone(), b.clone());
    a.local_id = Identity::Fqdn("c.example.net".into());
    assert_eq!(refused(a, b), CertFault::Name(Identity::Fqdn("c.example.net".into())));
}

#[test]
fn bad_certificates_are_refused_with_their_reason() {
    for (name, expected) in [
        ("a-ku-encipher", "key usage"),
        ("a-eku-code", "extended key usage"),
        ("a-expired", "expired 2026-02-01"),
        ("a-future", "not valid before 2100-01-01"),
        ("a-impostor", "no CA that is trusted"),
        ("a-ed25519", "no CA that is trusted"),
        ("a-critical", "critical extension"),
        ("a-is-ca", "certificate of a CA"),
    ] {
        let (a, b) = sites(name, &[]);
        let fault = refused(a, b).to_string();
        assert!(fault.contains(expected), "{name}: {fault}");
    }
}

#[test]
fn a_revoked_certificate_is_refused() {
    let (a, mut b) = sites("a-revoked", &[]);
    succeeds(a.clone(), b.clone());
    b.auth.peer = theirs_with(&["ca-p256"], &["ca-p256"], false);
    assert_eq!(refused(a, b.clone()), CertFault::Certificate(CertError::Revoked));
    let (a, _) = sites("a-p256", &[]);
    succeeds(a.clone(), b.clone());
    b.auth.peer = theirs_with(&["ca-p256"], &["ca-p256-stale"], false);
    let fault = refused(a, b);
    assert!(matches!(fault, CertFault::Certificate(CertError::CrlExpired(_))), "{fault:?}");
}

#[test]
fn the_initiator_checks_the_responder_as_well() {
    let (mut a, mut b) = sites("a-p256", &[]);
    b.auth.local = ours("b-ed25519", &[]);
    let pair = attempt(a.clone(), b.clone());
    let closed = pair.closed(A);
    let [CloseReason::CertificateOfPeer(CertFault::Certificate(CertError::UnknownIssuer(_)))] =
        closed.as_slice()
    else {
        panic!("{closed:?}")
    };
    // RFC 7296 §2.21.2: the responder, which believes to have an SA, is told.
    assert_ok(&pair, pair.check_gone());
    b.auth.local = ours("b-p256", &[]);
    a.auth.peer = theirs(&["ca-p256"]);
    a.peer_id = None;
    b.local_id = Identity::Fqdn("c.example.net".into());
    let pair = attempt(a, b);
    let name = CertFault::Name(Identity::Fqdn("c.example.net".into()));
    assert_eq!(pair.closed(A), [CloseReason::CertificateOfPeer(name)]);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn a_key_that_is_not_the_certificates_is_no_credential() {
    let leaf = Certificate::parse(&der("a-p256.pem")).unwrap();
    let key = PrivateKey::from_pem(&file("b-p256.key"), None).unwrap();
    assert!(Credential::new(vec![leaf], Arc::new(key)).is_none());
    let key = PrivateKey::from_pem(&file("b-p256.key"), None).unwrap();
    assert!(Credential::new(vec![], Arc::new(key)).is_none());
}

#[test]
fn a_psk_is_not_taken_for_a_certificate_nor_the_other_way_round() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    b.auth = Auth { local: ours("b-p256", &[]), peer: theirs(&["ca-p256"]) };
    let pair = attempt(a.clone(), b.clone());
    let got = AuthMethod::SHARED_KEY_MIC;
    assert_eq!(pair.closed(B), [CloseReason::MethodOfPeer { got, expected: "a certificate" }]);
    assert_ok(&pair, pair.check_gone());
    a.auth = Auth { local: ours("a-p256", &[]), peer: theirs(&["ca-p256"]) };
    b.auth = psk();
    let pair = attempt(a, b);
    // B has not announced RFC 7427, so A signs with the method of RFC 4754.
    let got = AuthMethod::ECDSA_SHA256_P256;
    let expected = "the pre-shared key";
    assert_eq!(pair.closed(B), [CloseReason::MethodOfPeer { got, expected }]);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn ed25519_is_not_used_towards_a_peer_without_rfc_7427() {
    let (mut a, b) = (peers::site_a(), peers::site_b());
    a.auth = Auth { local: ours("a-ed25519", &[]), peer: psk().peer };
    let pair = attempt(a, b);
    let closed = pair.closed(A);
    assert!(matches!(closed.as_slice(), [CloseReason::CannotSign(_)]), "{closed:?}");
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn of_several_peers_the_one_that_is_proved_is_met() {
    let (a, b) = sites("a-p256", &[]);
    let (mut other, mut third) = (b.clone(), b.clone());
    other.name = Arc::from("with-a-psk");
    other.auth = psk();
    third.name = Arc::from("of-another-ca");
    third.auth.peer = theirs(&["ca-ed25519"]);
    let mut pair = pair_of(a, b);
    for peer in [other, third] {
        pair.command(B, Command::AddPeer(Arc::new(peer))).unwrap();
    }
    pair.initiate(A);
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(&*pair.status(B)[0].peer, "a");
}

#[test]
fn answer_that_certreq_makes_longer_than_the_request_waits_for_a_cookie() {
    let (mut a, b) = sites("a-p256", &[]);
    a.ike.proposals = peers::site_a().ike.proposals;
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);
    // IKE_SA_INIT { SA, KE, Ni } -->  <-- { N(COOKIE) }, then with it -->  <-- { SA, KE, Nr, CERTREQ }
    let request = pair.expect(A, IKE_SA_INIT, REQUEST);
    let len = request.datagram().len();
    pair.deliver(request);
    let answer = pair.expect(B, IKE_SA_INIT, RESPONSE);
    assert!(answer.datagram().len() <= len);
    let payloads = Message::parse(answer.datagram()).unwrap().payloads;
    assert!(matches!(&payloads[..], [Payload::Notify(notify)]
        if notify.notify_type == NotifyType::COOKIE));
    pair.deliver(answer);
    let request = pair.expect(A, IKE_SA_INIT, REQUEST);
    pair.deliver(request);
    let answer = pair.expect(B, IKE_SA_INIT, RESPONSE);
    assert!(answer.datagram().len() > len, "or there was no need");
    pair.deliver(answer);
    pair.exchange(A, IKE_AUTH);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn signature_hashes_are_announced_where_signatures_are() {
    let notifies = |a: Peer, b: Peer| {
        let mut pair = pair_of(a, b);
        pair.hold = true;
        pair.initiate(A);
        let request = pair.expect(A, IKE_SA_INIT, REQUEST);
        let first = Message::parse(request.datagram()).unwrap().payloads;
        pair.deliver(request);
        let response = pair.expect(B, IKE_SA_INIT, RESPONSE);
        let response = Message::parse(response.datagram()).unwrap().payloads;
        [first, response]
    };
    let is_hashes = |payload: &Payload| {
        matches!(payload, Payload::Notify(notify)
            if notify.notify_type == NotifyType::SIGNATURE_HASH_ALGORITHMS
                // SHA2-256, SHA2-384, SHA2-512, Identity: no SHA-1.
                && notify.data == [0, 2, 0, 3, 0, 4, 0, 5])
    };
    let (a, b) = sites("a-p256", &[]);
    let [request, response] = notifies(a, b);
    assert!(request.iter().any(is_hashes) && response.iter().any(is_hashes));
    let certreq = |payloads: &[Payload]| {
        payloads.iter().filter(|p| p.payload_type() == PayloadType::CERTREQ).count()
    };
    // RFC 7296 §1.2: the responder asks in IKE_SA_INIT.
    assert_eq!((certreq(&request), certreq(&response)), (0, 1));
    let [request, response] = notifies(peers::site_a(), peers::site_b());
    assert!(!request.iter().any(is_hashes) && !response.iter().any(is_hashes));
    assert_eq!((certreq(&request), certreq(&response)), (0, 0));
}

#[test]
fn keys_of_unknown_kinds_are_an_error_of_their_own() {
    assert_eq!(CertError::from(PublicKeyError::Kind), CertError::Key(PublicKeyError::Kind));
}

/// Site A with a certificate that an OCSP response may go with, site B that wants to know all, and the other way round.
fn sites_with_ocsp(response: Option<&str>, revocation: Revocation) -> (Peer, Peer) {
    let (mut a, mut b) = sites("a-ocsp", &[]);
    let credential = |name: &str, response: Option<&str>| {
        let leaf = Certificate::parse(&der(&format!("{name}.pem"))).unwrap();
        let key = PrivateKey::from_pem(&file(&format!("{name}.key")), None).unwrap();
        let credential = Credential::new(vec![leaf], Arc::new(key)).unwrap();
        LocalAuth::Signature(Arc::new([credential.with_ocsp(response.map(file))]))
    };
    let authority = |revocation| {
        let trust = Trust::new(&[der("ca-ocsp.pem")]).unwrap().with_revocation(revocation);
        PeerAuth::Signature(Arc::new(Authority { trust, keys: Vec::new(), allow_sha_1: false }))
    };
    a.auth = Auth { local: credential("a-ocsp", response), peer: authority(Revocation::Strict) };
    b.auth = Auth { local: credential("b-ocsp", Some("b-good.ocsp")), peer: authority(revocation) };
    (a, b)
}

#[test]
fn an_ocsp_response_that_is_asked_for_goes_with_the_certificate_both_ways() {
    for response in ["a-good.ocsp", "a-delegated.ocsp"] {
        let (a, b) = sites_with_ocsp(Some(response), Revocation::Strict);
        succeeds(a, b);
    }
    let (a, b) = sites_with_ocsp(None, Revocation::Strict);
    assert_eq!(refused(a, b), CertFault::Certificate(CertError::StatusUnknown(OcspNote(None))));
    let (a, b) = sites_with_ocsp(Some("a-old.ocsp"), Revocation::Strict);
    let note = OcspNote(Some(OcspError::Time));
    assert_eq!(refused(a, b), CertFault::Certificate(CertError::StatusUnknown(note)));
    let (a, b) = sites_with_ocsp(Some("a-revoked.ocsp"), Revocation::Strict);
    assert_eq!(refused(a, b), CertFault::Certificate(CertError::Revoked));
    // Who is not asked says nothing.
    let (a, b) = sites_with_ocsp(Some("a-revoked.ocsp"), Revocation::Relaxed);
    succeeds(a, b);
}

#[test]
fn the_initiator_wants_to_know_of_the_responder_too() {
    let (a, mut b) = sites_with_ocsp(Some("a-good.ocsp"), Revocation::Strict);
    let LocalAuth::Signature(credentials) = &b.auth.local else { panic!("a certificate") };
    let without = credentials[0].clone().with_ocsp(None);
    b.auth.local = LocalAuth::Signature(Arc::new([without]));
    let pair = attempt(a, b);
    let unknown = CertFault::Certificate(CertError::StatusUnknown(OcspNote(None)));
    assert_eq!(pair.closed(A), [CloseReason::CertificateOfPeer(unknown)]);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn a_new_crl_leaves_what_is_there_and_refuses_who_comes_next() {
    let (a, b) = sites("a-revoked", &[]);
    let mut pair = attempt(a, b.clone());
    assert_ok(&pair, pair.check_established(1));
    let mut with_crl = b;
    with_crl.auth.peer = theirs_with(&["ca-p256"], &["ca-p256"], false);
    pair.command(B, Command::AddPeer(Arc::new(with_crl))).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    pair.terminate(A).unwrap();
    settle(&mut pair);
    pair.initiate(A);
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    let revoked = CertFault::Certificate(CertError::Revoked);
    assert_eq!(pair.closed(B).last(), Some(&CloseReason::CertificateOfPeer(revoked)));
}
