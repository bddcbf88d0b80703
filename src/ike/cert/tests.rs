use std::sync::Arc;

use super::*;
use crate::crypto::Secret;
use crate::crypto::pem;
use crate::crypto::random::testing::Fixed;
use crate::crypto::sign::PrivateKey;
use crate::crypto::x509::Trust;

const OCTETS: &[u8] = b"what both sides sign";

fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn der(name: &str) -> Vec<u8> {
    let block = pem::blocks(&file(&format!("{name}.pem"))).next().expect("a block");
    block.der.expect("base64").expose().to_vec()
}

fn credential(name: &str) -> Credential {
    let leaf = Certificate::parse(&der(name)).expect("a certificate");
    let key = PrivateKey::from_pem(&file(&format!("{name}.key")), None).expect("a key");
    Credential::new(vec![leaf], Arc::new(key)).expect("they belong together")
}

fn terms(ours: bool, theirs: Option<&[HashId]>) -> Terms {
    Terms {
        ours,
        theirs: theirs.map(<[HashId]>::to_vec),
        asked: Asked::default(),
        announces: false,
    }
}

fn sign_as(name: &str, terms: &Terms) -> Result<Auth, &'static str> {
    sign(terms, &terms.asked, &credential(name), &mut Fixed::new(&[7, 1, 8, 2]), OCTETS)
}

fn cert_payload(name: &str) -> Cert {
    Cert { encoding: CertEncoding::X509_SIGNATURE, data: der(name) }
}

fn verify(name: &str, terms: &Terms, auth: &Auth) -> Result<Shown, CertFault> {
    let cert = cert_payload(name);
    let parts = Parts { certs: vec![&cert], ..Parts::default() };
    Shown::verify(terms, &parts, auth, OCTETS, core::iter::empty())
}

fn fault(result: Result<Shown, CertFault>) -> CertFault {
    result.err().expect("it is refused")
}

#[test]
fn method_14_is_used_where_both_have_sent_hashes() {
    for name in ["a-rsa2048", "a-p256", "a-p384", "a-p521", "a-ed25519"] {
        let terms = terms(true, Some(&HASHES));
        let auth = sign_as(name, &terms).expect("it signs");
        assert_eq!(auth.method, AuthMethod::DIGITAL_SIGNATURE);
        assert!(verify(name, &terms, &auth).is_ok(), "{name}");
        let mut cut = auth.clone();
        cut.data.pop();
        assert_eq!(fault(verify(name, &terms, &cut)), CertFault::Signature);
    }
}

#[test]
fn a_hash_that_the_peer_has_not_sent_is_not_used() {
    for (name, theirs, prefix) in [
        ("a-rsa2048", HashId::SHA2_512, Scheme::RsaPss(Hash::Sha512)),
        ("a-p256", HashId::SHA2_384, Scheme::Ecdsa(Hash::Sha384)),
        ("a-ed25519", HashId::IDENTITY, Scheme::Ed25519),
    ] {
        let auth = sign_as(name, &terms(true, Some(&[HashId::SHA1, theirs]))).expect("it signs");
        let identifier = prefix.algorithm_identifier().expect("it has one");
        assert_eq!(usize::from(auth.data[0]), identifier.len());
        assert_eq!(auth.data[1..=identifier.len()], identifier);
        assert!(sign_as(name, &terms(true, Some(&[HashId::SHA1]))).is_err());
        assert!(sign_as(name, &terms(true, Some(&[]))).is_err());
    }
}

#[test]
fn methods_of_before_rfc_7427_are_for_peers_without_it() {
    let old = terms(true, None);
    for (name, method) in [
        ("a-p256", AuthMethod::ECDSA_SHA256_P256),
        ("a-p384", AuthMethod::ECDSA_SHA384_P384),
        ("a-p521", AuthMethod::ECDSA_SHA512_P521),
        ("a-rsa2048", AuthMethod::RSA_DIGITAL_SIGNATURE),
    ] {
        let auth = sign_as(name, &old).expect("it signs");
        assert_eq!(auth.method, method);
        assert!(verify(name, &old, &auth).is_ok(), "{name}");
        // RFC 7427 §3: not where both have sent hashes.
        let refused = fault(verify(name, &terms(true, Some(&HASHES)), &auth));
        assert_eq!(refused, CertFault::Downgrade(method));
    }
    assert!(sign_as("a-ed25519", &old).is_err());
}

#[test]
fn an_auth_payload_without_form_or_with_another_method_is_refused() {
    let terms = terms(true, Some(&HASHES));
    let method = AuthMethod::DIGITAL_SIGNATURE;
    for data in [vec![], vec![3], vec![2, 0x30, 0], vec![255; 20]] {
        let auth = Auth { method, data };
        assert_eq!(fault(verify("a-p256", &terms, &auth)), CertFault::Scheme);
    }
    let old = Terms { theirs: None, ..terms };
    for method in [AuthMethod::DSS_DIGITAL_SIGNATURE, AuthMethod::NULL, AuthMethod(77)] {
        let auth = Auth { method, data: vec![0; 64] };
        assert_eq!(fault(verify("a-p256", &old, &auth)), CertFault::Scheme);
    }
}

#[test]
fn the_first_certificate_is_the_one_whose_key_counts() {
    let terms = terms(true, Some(&HASHES));
    let auth = sign_as("a-p256", &terms).expect("it signs");
    let shown = |certs: &[Cert]| {
        let parts = Parts { certs: certs.iter().collect(), ..Parts::default() };
        Shown::verify(&terms, &parts, &auth, OCTETS, core::iter::empty())
    };
    let (a, b) = (cert_payload("a-p256"), cert_payload("b-p256"));
    assert!(shown(&[a.clone(), b.clone()]).is_ok());
    assert_eq!(fault(shown(&[b, a.clone()])), CertFault::Signature);
    assert_eq!(fault(shown(&[])), CertFault::Missing);
    // Encodings that we do not read are passed over.
    let crl = Cert { encoding: CertEncoding::CRL, data: vec![1] };
    assert!(shown(&[crl.clone(), a.clone()]).is_ok());
    assert_eq!(fault(shown(&[crl])), CertFault::Missing);
    assert_eq!(fault(shown(&vec![a.clone(); limits::MAX_CERTS + 1])), CertFault::TooMany);
    assert!(shown(&vec![a; limits::MAX_CERTS]).is_ok());
}

#[test]
fn sha_1_is_taken_only_if_that_is_allowed() {
    let name = "a-rsa2048";
    let shown = |is_sha_1| Shown {
        leaf: Leaf::Certificate(Box::new(Certificate::parse(&der(name)).expect("a certificate"))),
        others: Vec::new(),
        ocsp: Vec::new(),
        is_sha_1,
    };
    let id = Identity::Fqdn("a.example.net".into());
    // 2026-11-01.
    let now = Duration::from_secs(1_793_491_200);
    for (is_sha_1, allow_sha_1, expected) in
        [(false, false, Ok(())), (true, false, Err(CertFault::Sha1)), (true, true, Ok(()))]
    {
        let trust = Trust::new(&[der("ca-rsa2048")]).expect("a CA");
        let authority = Authority { trust, keys: Vec::new(), allow_sha_1 };
        assert_eq!(shown(is_sha_1).accept(&authority, &id, now), expected);
    }
}

#[test]
fn certreq_names_each_ca_once_and_few_of_them() {
    let authority = |names: &[&str]| {
        let cas: Vec<_> = names.iter().map(|name| der(name)).collect();
        let trust = Trust::new(&cas).expect("CAs");
        PeerAuth::Signature(Arc::new(Authority { trust, keys: Vec::new(), allow_sha_1: false }))
    };
    let one = authority(&["ca-p256", "ca-p384"]);
    let two = authority(&["ca-p384", "ca-ed25519"]);
    let requests = request([&one, &two].into_iter());
    let [Payload::CertReq(request)] = requests.as_slice() else { panic!("a CERTREQ") };
    // RFC 7296 §3.7: SHA-1 of the SubjectPublicKeyInfo, 20 bytes each.
    let hash = |name: &str| {
        Certificate::parse(&der(name)).expect("a certificate").public_key().certreq_hash()
    };
    let hashes = [hash("ca-p256"), hash("ca-p384"), hash("ca-ed25519")];
    assert_eq!(request.authority, hashes.concat());
    assert_eq!(Asked::of(&[request]).cas, hashes);
    let many = authority(&[
        "ca-p256",
        "ca-p384",
        "ca-p521",
        "ca-rsa2048",
        "ca-ed25519",
        "ca-middle",
        "ca-low",
        "ca-short",
        "ca-too-low",
        "ca-narrow",
    ]);
    let requests = super::request([&many].into_iter());
    let [Payload::CertReq(long)] = requests.as_slice() else { panic!("a CERTREQ") };
    assert_eq!(long.authority.len(), 20 * limits::MAX_CERTREQ_CAS);
    let psk = PeerAuth::Psk(Secret::copy_of(b"a key"));
    assert_eq!(super::request([&psk].into_iter()), []);
}

fn raw(name: &str) -> Credential {
    let key = PrivateKey::from_pem(&file(&format!("{name}.key")), None).expect("a key");
    Credential::raw(Arc::new(key))
}

#[test]
fn a_raw_key_is_sent_as_it_is_and_taken_if_it_is_known() {
    let terms = terms(true, Some(&HASHES));
    let id = Identity::Fqdn("whoever".into());
    for name in ["a-rsa2048", "a-p256", "a-p384", "a-p521", "a-ed25519"] {
        let credential = raw(name);
        let auth = sign(&terms, &terms.asked, &credential, &mut Fixed::new(&[7, 1, 8, 2]), OCTETS);
        let auth = auth.expect("it signs");
        let sent = payloads(&credential, &Asked::default());
        let [Payload::Cert(cert)] = sent.as_slice() else { panic!("one CERT") };
        assert_eq!(cert.encoding, CertEncoding::RAW_PUBLIC_KEY);
        let key = credential.signer().public_key().clone();
        assert_eq!(cert.data, key.spki());
        let authority =
            |keys| Authority { trust: Trust::new(&[]).expect("no CA"), keys, allow_sha_1: false };
        let known = authority(vec![raw("b-p256").signer().public_key().clone(), key.clone()]);
        let other = authority(vec![raw("b-p256").signer().public_key().clone()]);
        let accept = |certs: &[&Cert], authority: &Authority| {
            let parts = Parts { certs: certs.to_vec(), ..Parts::default() };
            let keys = authority.keys.iter();
            let shown = Shown::verify(&terms, &parts, &auth, OCTETS, keys)?;
            shown.accept(authority, &id, Duration::ZERO)
        };
        assert_eq!(accept(&[cert], &known), Ok(()), "{name}");
        assert_eq!(accept(&[cert], &other), Err(CertFault::UnknownKey), "{name}");
        // Without a CERT payload, those that are known are tried.
        assert_eq!(accept(&[], &known), Ok(()), "{name}");
        assert_eq!(accept(&[], &other), Err(CertFault::UnknownKey), "{name}");
        assert_eq!(accept(&[], &authority(Vec::new())), Err(CertFault::Missing), "{name}");
        // A certificate around the key that is known is as good.
        assert_eq!(accept(&[&cert_payload(name)], &known), Ok(()), "{name}");
        let broken = Cert { data: vec![0x30, 0], ..(*cert).clone() };
        assert_eq!(accept(&[&broken], &known), Err(PublicKeyError::Malformed.into()), "{name}");
    }
}

// RFC 7670 Appendix A.1.
#[test]
fn the_example_of_rfc_7670_is_read() {
    let hex = "3059301306072a8648ce3d020106082a8648ce3d03010703420004cb28e0999b9c7715fd0a80d8e47a77\
               079716cbbf917dd72e97566ea1c066957c2b57c0235fb7489768d058ff4911c20fdbe71e3699d91339af\
               bb903ee17255dc";
    let digits = hex.as_bytes().chunks_exact(2);
    let spki: Vec<u8> = digits
        .map(|two| u8::from_str_radix(core::str::from_utf8(two).expect("hex"), 16).expect("hex"))
        .collect();
    let key = PublicKey::of_spki(&spki).expect("a key");
    assert_eq!((key.kind(), key.spki()), (KeyKind::EcdsaP256, spki.as_slice()));
}

#[test]
fn of_several_credentials_the_one_goes_out_that_the_peer_can_verify() {
    let root = |name: &str| {
        Certificate::parse(&der(name)).expect("a certificate").public_key().certreq_hash()
    };
    let all = [
        credential("a-p256").with_roots(vec![root("ca-p256")]),
        credential("a-ed25519").with_roots(vec![root("ca-ed25519")]),
        raw("a-p384"),
    ];
    let chosen = |terms: &Terms, asked: &Asked| {
        let chosen = choose(terms, &all, asked).expect("one");
        all.iter().position(|credential| credential == chosen).expect("one of them")
    };
    let modern = terms(true, Some(&HASHES));
    let asked = |cas: &[&str], raw| Asked {
        cas: cas.iter().map(|ca| root(ca)).collect(),
        raw,
        announced: None,
        ocsp: false,
    };
    assert_eq!(chosen(&modern, &asked(&["ca-ed25519"], false)), 1);
    assert_eq!(chosen(&modern, &asked(&["ca-ed25519", "ca-p256"], true)), 0);
    assert_eq!(chosen(&modern, &asked(&["ca-p521"], true)), 2);
    assert_eq!(chosen(&modern, &asked(&["ca-p521"], false)), 0);
    assert_eq!(chosen(&modern, &asked(&[], false)), 0);
    // RFC 7427 §4: only with hashes that the peer has.
    let identity = terms(true, Some(&[HashId::IDENTITY]));
    assert_eq!(chosen(&identity, &asked(&["ca-p256"], true)), 1);
    assert_eq!(chosen(&terms(true, Some(&[])), &asked(&["ca-ed25519"], true)), 0);
    assert!(choose(&modern, &[], &asked(&[], false)).is_none());
}

#[test]
fn raw_keys_are_asked_for_without_a_ca() {
    let authority = |cas: &[Vec<u8>]| {
        let trust = Trust::new(cas).expect("CAs");
        let keys = vec![raw("b-p256").signer().public_key().clone()];
        PeerAuth::Signature(Arc::new(Authority { trust, keys, allow_sha_1: false }))
    };
    let asked = |payloads: Vec<Payload>| -> Vec<(CertEncoding, usize)> {
        let requests = payloads.into_iter().map(|payload| {
            let Payload::CertReq(request) = payload else { panic!("{payload:?}") };
            (request.encoding, request.authority.len())
        });
        requests.collect()
    };
    let raw = (CertEncoding::RAW_PUBLIC_KEY, 0);
    assert_eq!(asked(request([&authority(&[])].into_iter())), [raw]);
    let both = authority(&[der("ca-p256")]);
    let x509 = (CertEncoding::X509_SIGNATURE, 20);
    assert_eq!(asked(request([&both, &both].into_iter())), [x509, raw]);
}

/// What a peer announces: AlgorithmIdentifiers, each with a CA by number.
fn announcing(schemes: &[(Scheme, u8)], cas: &[[u8; 20]]) -> Asked {
    use crate::wire::ike::payload::Notify;
    let of = |(scheme, link): &(Scheme, u8)| {
        let identifier = scheme.algorithm_identifier().expect("it has one");
        let len = u8::try_from(3 + identifier.len()).expect("short");
        [&[len, 14, *link], identifier.as_slice()].concat()
    };
    let data: Vec<u8> = schemes.iter().flat_map(of).collect();
    let notify = Notify::new(NotifyType::SUPPORTED_AUTH_METHODS, data);
    let request = CertReq { encoding: CertEncoding::X509_SIGNATURE, authority: cas.concat() };
    Asked::in_message(&Parts {
        notifies: vec![&notify],
        cert_requests: vec![&request],
        ..Parts::default()
    })
}

fn signs_by(name: &str, terms: &Terms, asked: &Asked) -> (AuthMethod, Scheme) {
    scheme(terms, asked, &credential(name)).expect("it signs")
}

#[test]
fn the_announced_algorithm_is_the_one_that_is_used() {
    let terms = terms(true, Some(&HASHES));
    let by = |name, schemes: &[(Scheme, u8)]| signs_by(name, &terms, &announcing(schemes, &[])).1;
    let pkcs1 = Scheme::RsaPkcs1(Hash::Sha384);
    assert_eq!(by("a-rsa2048", &[(pkcs1, 0)]), pkcs1);
    // Ours goes first where the peer takes several, in whatever order.
    let pss = Scheme::RsaPss(Hash::Sha256);
    assert_eq!(by("a-rsa2048", &[(pkcs1, 0), (pss, 0)]), pss);
    assert_eq!(by("a-p256", &[(Scheme::Ecdsa(Hash::Sha512), 0)]), Scheme::Ecdsa(Hash::Sha512));
    // Nothing fits: as without a list.
    assert_eq!(by("a-p256", &[(pss, 0)]), Scheme::Ecdsa(Hash::Sha256));
}

#[test]
fn no_announcement_brings_back_an_old_method_or_a_hash() {
    let all: Vec<_> = Scheme::verified().map(|scheme| (scheme, 0)).collect();
    let asked = announcing(&all, &[]);
    for name in ["a-rsa2048", "a-p256", "a-p384", "a-p521", "a-ed25519"] {
        let (method, scheme) = signs_by(name, &terms(true, Some(&HASHES)), &asked);
        assert_eq!(method, AuthMethod::DIGITAL_SIGNATURE);
        let without = Scheme::choose(credential(name).signer().public_key().kind(), &HASHES);
        assert_eq!(Some(scheme), without, "the same as without a list of everything");
    }
    // A hash that SIGNATURE_HASH_ALGORITHMS does not have is not used, whatever is announced.
    let only = announcing(&[(Scheme::Ecdsa(Hash::Sha256), 0)], &[]);
    let (_, scheme) = signs_by("a-p256", &terms(true, Some(&[HashId::SHA2_512])), &only);
    assert_eq!(scheme, Scheme::Ecdsa(Hash::Sha512));
}

#[test]
fn a_linked_announcement_is_for_certificates_below_that_ca() {
    let terms = terms(true, Some(&HASHES));
    let sha_512 = Scheme::Ecdsa(Hash::Sha512);
    let ca = [7; 20];
    let below = credential("a-p256").with_roots(vec![ca]);
    let usual = Scheme::Ecdsa(Hash::Sha256);
    for (link, expected) in [(0, sha_512), (1, usual), (2, sha_512), (3, usual), (255, usual)] {
        let asked = announcing(&[(sha_512, link)], &[[9; 20], ca]);
        assert_eq!(
            scheme(&terms, &asked, &below).map(|(_, scheme)| scheme),
            Ok(expected),
            "{link}"
        );
    }
}

#[test]
fn of_several_credentials_the_one_whose_signature_is_announced_is_shown() {
    let terms = terms(true, Some(&HASHES));
    let all = [credential("a-rsa2048"), credential("a-p384"), credential("a-ed25519")];
    for (scheme, expected) in [
        (Scheme::Ed25519, 2),
        (Scheme::Ecdsa(Hash::Sha384), 1),
        (Scheme::RsaPkcs1(Hash::Sha256), 0),
        (Scheme::RsaPss(Hash::Sha512), 0),
    ] {
        let chosen = choose(&terms, &all, &announcing(&[(scheme, 0)], &[]));
        assert_eq!(chosen, Some(&all[expected]), "{scheme}");
        let local = LocalAuth::Signature(all.clone().into());
        assert!(announcing(&[(scheme, 0)], &[]).may_take(&terms, &local));
    }
    let psk = LocalAuth::Psk(Secret::copy_of(b"key"));
    assert!(!announcing(&[(Scheme::Ed25519, 0)], &[]).may_take(&terms, &psk));
}
