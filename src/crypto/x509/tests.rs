use super::*;
use crate::crypto::pem;

/// 2026-11-01, when all of `tests/pki` is valid that does not say otherwise.
const NOW: Duration = Duration::from_secs(1_793_491_200);

fn ders(name: &str) -> Vec<Vec<u8>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    pem::blocks(&text).map(|block| block.der.unwrap().expose().to_vec()).collect()
}

fn der(name: &str) -> Vec<u8> {
    ders(name).remove(0)
}

fn cert(name: &str) -> Certificate {
    Certificate::parse(&der(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn trust(cas: &[&str], crls: &[&str]) -> Trust {
    let read = |names: &[&str]| names.iter().map(|name| der(name)).collect::<Vec<_>>();
    Trust::new(&read(cas)).unwrap().with_crls(&read(crls)).unwrap()
}

/// By the CA with a key on P-256.
fn checked(leaf: &str, others: &[&str], crls: &[&str]) -> Result<(), CertError> {
    let others: Vec<_> = others.iter().map(|name| der(name)).collect();
    trust(&["ca-p256.pem"], crls).verify(&cert(leaf), &others, NOW)
}

#[test]
fn every_kind_of_key_issues_and_is_trusted() {
    for kind in ["rsa2048", "p256", "p384", "p521", "ed25519"] {
        let trust = trust(&[&format!("ca-{kind}.pem")], &[]);
        for site in ["a", "b"] {
            assert_eq!(trust.verify(&cert(&format!("{site}-{kind}.pem")), &[], NOW), Ok(()));
        }
    }
    let all = ["ca-rsa2048.pem", "ca-p256.pem", "ca-ed25519.pem"];
    assert_eq!(trust(&all, &[]).verify(&cert("a-ed25519.pem"), &[], NOW), Ok(()));
}

#[test]
fn another_ca_is_not_trusted_even_if_it_has_the_same_name() {
    let error = trust(&["ca-ed25519.pem"], &[]).verify(&cert("a-p256.pem"), &[], NOW);
    assert_eq!(error, Err(CertError::UnknownIssuer("CN=CA p256,O=Example,C=DE".to_owned())));
    assert!(matches!(checked("a-impostor.pem", &[], &[]), Err(CertError::UnknownIssuer(_))));
    let error = checked("a-impostor.pem", &["ca-impostor.pem"], &[]);
    assert!(matches!(error, Err(CertError::UnknownIssuer(_))), "{error:?}");
}

#[test]
fn cas_between_are_needed_in_any_order_and_may_be_many() {
    let unknown = |result| matches!(result, Err(CertError::UnknownIssuer(_)));
    assert_eq!(checked("a-middle.pem", &["ca-middle.pem"], &[]), Ok(()));
    assert!(unknown(checked("a-middle.pem", &[], &[])));
    assert_eq!(checked("a-low.pem", &["ca-middle.pem", "ca-low.pem"], &[]), Ok(()));
    assert_eq!(checked("a-low.pem", &["b-p256.pem", "ca-low.pem", "ca-middle.pem"], &[]), Ok(()));
    assert!(unknown(checked("a-low.pem", &["ca-low.pem"], &[])));
    // A CA below may be the one that is trusted.
    let trust = trust(&["ca-middle.pem"], &[]);
    assert_eq!(trust.verify(&cert("a-middle.pem"), &[], NOW), Ok(()));
}

#[test]
fn path_length_and_name_constraints_hold() {
    let error = checked("a-too-low.pem", &["ca-short.pem", "ca-too-low.pem"], &[]);
    assert!(matches!(error, Err(CertError::Path(_))), "{error:?}");
    assert_eq!(checked("a-narrow.pem", &["ca-narrow.pem"], &[]), Err(CertError::NameConstraints));
}

#[test]
fn a_host_is_no_ca_and_a_ca_is_no_host() {
    assert_eq!(checked("a-is-ca.pem", &[], &[]), Err(CertError::CaCertificate));
    // As if a-p256 had issued it: nothing leads from there.
    let error =
        trust(&["ca-ed25519.pem"], &[]).verify(&cert("a-p256.pem"), &[der("a-p256.pem")], NOW);
    assert!(matches!(error, Err(CertError::UnknownIssuer(_))), "{error:?}");
}

#[test]
fn time_is_an_argument_and_decides() {
    let expired = checked("a-expired.pem", &[], &[]);
    assert_eq!(
        expired.unwrap_err().to_string(),
        "it, or a CA's above it, expired 2026-02-01T00:00:00Z"
    );
    let early = checked("a-future.pem", &[], &[]);
    assert!(matches!(early, Err(CertError::NotYetValid(_))), "{early:?}");
    let trust = trust(&["ca-p256.pem"], &[]);
    let at = |seconds| trust.verify(&cert("a-expired.pem"), &[], Duration::from_secs(seconds));
    // RFC 5280 §4.1.2.5: from notBefore through notAfter.
    assert_eq!(at(1_769_904_000), Ok(()));
    assert!(matches!(at(1_769_904_001), Err(CertError::Expired(_))));
    assert_eq!(at(1_767_225_600), Ok(()));
    assert!(matches!(at(1_767_225_599), Err(CertError::NotYetValid(_))));
}

#[test]
fn key_usage_has_to_allow_signatures_if_it_is_there() {
    assert_eq!(checked("a-ku-sign.pem", &[], &[]), Ok(()));
    assert_eq!(checked("a-ku-repudiation.pem", &[], &[]), Ok(()));
    assert_eq!(checked("a-ku-encipher.pem", &[], &[]), Err(CertError::KeyUsage));
}

#[test]
fn extended_key_usage_has_to_allow_ike_if_it_is_there() {
    use ExtendedKeyUsage::{Any, Authentication, Ipsec};
    let (good, bad) = (Ok(()), Err(CertError::ExtendedKeyUsage));
    for (name, any, authentication, ipsec) in [
        ("a-p256.pem", &good, &good, &good),
        ("a-eku-ike.pem", &good, &good, &good),
        ("a-eku-any.pem", &good, &good, &good),
        ("a-eku-old.pem", &good, &good, &bad),
        ("a-eku-server.pem", &good, &good, &bad),
        ("a-eku-client.pem", &good, &good, &bad),
        ("a-eku-code.pem", &good, &bad, &bad),
    ] {
        for (usage, expected) in [(Any, any), (Authentication, authentication), (Ipsec, ipsec)] {
            let trust = trust(&["ca-p256.pem"], &[]).with_extended_key_usage(usage);
            assert_eq!(trust.verify(&cert(name), &[], NOW), *expected, "{name} {usage:?}");
        }
    }
    assert_eq!(ExtendedKeyUsage::default(), Authentication);
}

#[test]
fn unknown_critical_extension_is_refused() {
    let error = checked("a-critical.pem", &[], &[]);
    assert!(matches!(error, Err(CertError::Malformed(_))), "{error:?}");
}

#[test]
fn revoked_certificates_are_refused_at_every_level() {
    assert_eq!(checked("a-revoked.pem", &[], &[]), Ok(()));
    assert_eq!(checked("a-revoked.pem", &[], &["ca-p256.crl"]), Err(CertError::Revoked));
    assert_eq!(checked("a-p256.pem", &[], &["ca-p256.crl"]), Ok(()));
    // No CRL of the CA in the middle is there, and that is no reason to refuse.
    assert_eq!(checked("a-middle.pem", &["ca-middle.pem"], &["ca-p256.crl"]), Ok(()));
    assert_eq!(
        checked("a-middle.pem", &["ca-middle.pem"], &["ca-p256-middle-revoked.crl"]),
        Err(CertError::Revoked)
    );
}

#[test]
fn a_crl_must_be_current_and_signed_by_the_issuer() {
    let stale = checked("a-p256.pem", &[], &["ca-p256-stale.crl"]);
    assert!(matches!(stale, Err(CertError::CrlExpired(_))), "{stale:?}");
    assert_eq!(checked("a-p256.pem", &[], &["ca-p256-forged.crl"]), Err(CertError::CrlSignature));
    let broken = trust(&["ca-p256.pem"], &[]).with_crls(&[der("ca-p256.crl"), der("a-p256.pem")]);
    assert_eq!(broken.unwrap_err().0, 1);
}

#[test]
fn names_are_those_of_the_subject_alternative_name() {
    assert_eq!(
        cert("a-names.pem").names(),
        [
            SubjectName::Dns("a.example.net".to_owned()),
            SubjectName::Email("admin@example.net".to_owned()),
            SubjectName::Dns("*.example.org".to_owned()),
            SubjectName::Ip("192.0.2.1".parse().unwrap()),
            SubjectName::Ip("2001:db8::1".parse().unwrap()),
        ]
    );
    assert_eq!(cert("a-bare.pem").names(), []);
}

#[test]
fn distinguished_names_are_compared_by_their_text() {
    let attribute = |oid: &[u8], tag: u8, text: &str| {
        let len = |bytes: usize| u8::try_from(bytes).unwrap();
        let value = [&[tag, len(text.len())][..], text.as_bytes()].concat();
        let pair = [&[6, len(oid.len())][..], oid, &value].concat();
        let pair = [&[0x30, len(pair.len())][..], &pair].concat();
        [&[0x31, len(pair.len())][..], &pair].concat()
    };
    let name = |parts: &[Vec<u8>]| {
        let body = parts.concat();
        [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat()
    };
    let (cn, o): (&[u8], &[u8]) = (&[0x55, 4, 3], &[0x55, 4, 10]);
    let utf8 = name(&[attribute(o, 12, "Example"), attribute(cn, 12, "a")]);
    let printable = name(&[attribute(o, 19, "Example"), attribute(cn, 19, "a")]);
    assert!(same_name(&utf8, &utf8) && same_name(&utf8, &printable));
    for other in [
        name(&[attribute(cn, 12, "a"), attribute(o, 12, "Example")]),
        name(&[attribute(o, 12, "Example")]),
        name(&[attribute(o, 12, "Example"), attribute(cn, 12, "b")]),
        name(&[attribute(o, 12, "Example"), attribute(cn, 12, "A")]),
        name(&[attribute(o, 12, "Example"), attribute(cn, 4, "a")]),
        name(&[attribute(cn, 12, "Example"), attribute(cn, 12, "a")]),
        vec![0x30, 0],
        vec![],
    ] {
        assert!(!same_name(&utf8, &other), "{other:02x?}");
    }
}

#[test]
fn garbage_is_an_error_wherever_it_is() {
    let good = der("a-p256.pem");
    let trust = trust(&["ca-p256.pem"], &["ca-p256.crl"]);
    assert_eq!(trust.verify(&cert("a-p256.pem"), &[vec![], vec![0x30]], NOW), Ok(()));
    for at in 0..good.len() {
        for bit in [0x01, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= bit;
            if let Ok(read) = Certificate::parse(&bad) {
                assert!(trust.verify(&read, &[], NOW).is_err(), "bit {bit} of byte {at}");
            }
        }
        assert!(Certificate::parse(&good[..at]).is_err());
    }
    assert_eq!(Certificate::parse(&vec![0x30; MAX_CERTIFICATE + 1]), Err(CertError::TooLong));
}

// OCSP (RFC 6960), and what must be known not to be revoked.

fn ocsp_file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Of `a-ocsp.pem`, or another, with these responses and CRLs.
fn known(
    revocation: Revocation,
    leaf: &str,
    responses: &[&str],
    crls: &[&str],
) -> Result<(), CertError> {
    let responses: Vec<_> = responses.iter().map(|name| ocsp_file(name)).collect();
    let trust = trust(&["ca-ocsp.pem"], crls).with_revocation(revocation);
    trust.verify_with_ocsp(&cert(leaf), &[], &responses, NOW)
}

fn unknown(error: Option<OcspError>) -> Result<(), CertError> {
    Err(CertError::StatusUnknown(OcspNote(error)))
}

#[test]
fn ocsp_says_of_a_certificate_what_its_issuer_or_whom_that_has_designated_has_signed() {
    let of = |name: &str| {
        OcspResponse::parse(&ocsp_file(name))?.status(
            &cert("a-ocsp.pem"),
            &cert("ca-ocsp.pem"),
            NOW,
        )
    };
    for name in ["a-good.ocsp", "a-good-sha256.ocsp", "a-delegated.ocsp", "a-endless.ocsp"] {
        assert_eq!(of(name), Ok(OcspStatus::Good), "{name}");
    }
    assert_eq!(of("a-revoked.ocsp"), Ok(OcspStatus::Revoked));
    for (name, error) in [
        ("a-unknown.ocsp", OcspError::Unknown),
        ("a-old.ocsp", OcspError::Time),
        ("a-future.ocsp", OcspError::Time),
        ("a-endless-old.ocsp", OcspError::Time),
        ("a-stale-signer.ocsp", OcspError::Signature),
        ("a-wrong-usage.ocsp", OcspError::Signature),
        ("a-foreign-signer.ocsp", OcspError::Signature),
        ("a-forged.ocsp", OcspError::Signature),
        ("a-other-ca.ocsp", OcspError::OtherCertificate),
        ("b-good.ocsp", OcspError::OtherCertificate),
        ("error.ocsp", OcspError::Malformed),
        ("a-ocsp.pem", OcspError::Malformed),
    ] {
        assert_eq!(of(name), Err(error), "{name}");
    }
}

#[test]
fn no_flipped_bit_of_an_ocsp_response_makes_it_good() {
    let whole = ocsp_file("a-good.ocsp");
    let (leaf, ca) = (cert("a-ocsp.pem"), cert("ca-ocsp.pem"));
    for at in 0..whole.len() {
        let mut spoiled = whole.clone();
        spoiled[at] ^= 1;
        let found = OcspResponse::parse(&spoiled).and_then(|it| it.status(&leaf, &ca, NOW));
        assert_ne!(found, Ok(OcspStatus::Revoked), "{at}");
        // What is around the part that is signed may say the same in another way.
        let inside = 40..whole.len() - 90;
        assert!(!inside.contains(&at) || found.is_err(), "{at}");
    }
    for len in 0..whole.len() {
        assert!(OcspResponse::parse(&whole[..len]).is_err());
    }
    let long = vec![0x30; ocsp::MAX_OCSP_RESPONSE + 1];
    assert_eq!(OcspResponse::parse(&long).err(), Some(OcspError::Malformed));
}

#[test]
fn strict_wants_to_know_of_each_certificate_that_it_is_not_revoked() {
    let (leaf, strict) = ("a-ocsp.pem", Revocation::Strict);
    assert_eq!(known(strict, leaf, &[], &[]), unknown(None));
    assert_eq!(known(strict, leaf, &["a-good.ocsp"], &[]), Ok(()));
    assert_eq!(known(strict, leaf, &["a-old.ocsp"], &[]), unknown(Some(OcspError::Time)));
    assert_eq!(known(strict, leaf, &["a-old.ocsp", "a-good.ocsp"], &[]), Ok(()));
    assert_eq!(
        known(strict, leaf, &["b-good.ocsp"], &[]),
        unknown(Some(OcspError::OtherCertificate))
    );
    assert_eq!(known(strict, leaf, &[], &["ca-ocsp.crl"]), Ok(()));
    // Of a CA between, an OCSP response for the host says nothing.
    let strict = |crls: &[&str]| {
        trust(&["ca-p256.pem"], crls).with_revocation(Revocation::Strict).verify(
            &cert("a-middle.pem"),
            &[der("ca-middle.pem")],
            NOW,
        )
    };
    assert_eq!(strict(&["ca-p256.crl"]), unknown(None));
}

#[test]
fn ifuri_wants_to_know_it_where_the_certificate_says_who_knows() {
    assert_eq!(known(Revocation::IfUri, "a-ocsp.pem", &[], &[]), Ok(()));
    assert_eq!(known(Revocation::IfUri, "b-ocsp.pem", &[], &[]), unknown(None));
    assert_eq!(known(Revocation::IfUri, "b-ocsp.pem", &["b-good.ocsp"], &[]), Ok(()));
    assert_eq!(known(Revocation::IfUri, "b-ocsp.pem", &[], &["ca-ocsp.crl"]), Ok(()));
}

#[test]
fn what_is_known_to_be_revoked_is_refused_whatever_must_be_known() {
    for revocation in [Revocation::Strict, Revocation::IfUri, Revocation::Relaxed] {
        let found = known(revocation, "a-ocsp.pem", &["a-revoked.ocsp"], &["ca-ocsp.crl"]);
        assert_eq!(found, Err(CertError::Revoked));
    }
    assert_eq!(known(Revocation::Relaxed, "a-ocsp.pem", &["a-forged.ocsp"], &[]), Ok(()));
}
