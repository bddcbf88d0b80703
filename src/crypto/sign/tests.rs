use super::*;
use crate::crypto::random::testing::Fixed;
use crate::crypto::{Secret, pem};

const HASHES: [Hash; 3] = [Hash::Sha256, Hash::Sha384, Hash::Sha512];
const ALL: [HashId; 4] = [HashId::SHA2_256, HashId::SHA2_384, HashId::SHA2_512, HashId::IDENTITY];

fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn private(name: &str) -> PrivateKey {
    PrivateKey::from_pem(&file(name), None).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn public(name: &str) -> PublicKey {
    let block = pem::blocks(&file(name)).next().unwrap();
    PublicKey::of_spki(block.der.unwrap().expose()).unwrap()
}

const KEYS: [&str; 5] = ["a-rsa2048", "a-p256", "a-p384", "a-p521", "a-ed25519"];

fn schemes() -> Vec<Scheme> {
    let mut all = vec![Scheme::Ed25519];
    for hash in HASHES {
        all.extend([Scheme::Ecdsa(hash), Scheme::EcdsaConcat(hash)]);
        all.extend([Scheme::RsaPkcs1(hash), Scheme::RsaPss(hash)]);
    }
    all
}

#[test]
fn algorithm_identifiers_are_those_of_the_rfcs() {
    // RFC 7427 Appendix A, RFC 8420 Appendix A.1.
    for (scheme, hex) in [
        (Scheme::RsaPkcs1(Hash::Sha256), "300d06092a864886f70d01010b0500"),
        (Scheme::RsaPkcs1(Hash::Sha384), "300d06092a864886f70d01010c0500"),
        (Scheme::RsaPkcs1(Hash::Sha512), "300d06092a864886f70d01010d0500"),
        (Scheme::Ecdsa(Hash::Sha256), "300a06082a8648ce3d040302"),
        (Scheme::Ecdsa(Hash::Sha384), "300a06082a8648ce3d040303"),
        (Scheme::Ecdsa(Hash::Sha512), "300a06082a8648ce3d040304"),
        (
            Scheme::RsaPss(Hash::Sha256),
            "304606092a864886f70d01010a3039a00f300d06096086480165030402010500a11c301a06092a864886f7\
             0d010108300d06096086480165030402010500a203020120a303020101",
        ),
        (Scheme::Ed25519, "300506032b6570"),
    ] {
        let der = scheme.algorithm_identifier().unwrap();
        let shown: String = der.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(shown, hex, "{scheme}");
        assert_eq!(Scheme::of_algorithm_identifier(&der), Some(scheme));
    }
}

#[test]
fn every_scheme_is_known_again_and_sha_1_is_not() {
    for scheme in schemes() {
        if let Some(der) = scheme.algorithm_identifier() {
            assert_eq!(Scheme::of_algorithm_identifier(&der), Some(scheme));
            assert_eq!(Scheme::of_algorithm_identifier(&der[..der.len() - 1]), None);
        } else {
            assert!(matches!(scheme, Scheme::EcdsaConcat(_)));
        }
    }
    // RFC 7427 §A.1.1, §A.3.1, §A.4.1 and §A.4.2: all are SHA-1.
    let sha_1 = [
        &[0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0][..],
        &[0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1],
        &[0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0a, 0x30, 0],
        &pss(Hash::Sha1, PssForm { hash_null: true, mgf_null: true, trailer: true }),
    ];
    for der in sha_1 {
        assert_eq!(Scheme::of_algorithm_identifier(der), None);
    }
    assert_eq!(Scheme::RsaPkcs1(Hash::Sha1).algorithm_identifier(), None);
}

#[test]
fn pss_parameters_are_read_with_and_without_what_may_be_left_out() {
    // RFC 7427 §A.4.3 has the trailer field, though it has its default.
    let long = pss(Hash::Sha384, PssForm { hash_null: true, mgf_null: true, trailer: true });
    let scheme = Some(Scheme::RsaPss(Hash::Sha384));
    assert_eq!(Scheme::of_algorithm_identifier(&long), scheme);
    let absent = pss(Hash::Sha384, PssForm { hash_null: false, mgf_null: false, trailer: false });
    assert_eq!(Scheme::of_algorithm_identifier(&absent), scheme);
}

#[test]
fn each_key_signs_with_its_schemes_and_no_other() {
    let mut rng = Fixed::new(&[7, 1, 8, 2]);
    for name in KEYS {
        let key = private(&format!("{name}.key"));
        for scheme in schemes() {
            let is_ours = match key.public_key().kind() {
                KeyKind::Rsa { .. } => {
                    matches!(scheme, Scheme::RsaPkcs1(_) | Scheme::RsaPss(_))
                }
                KeyKind::Ed25519 => scheme == Scheme::Ed25519,
                KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
                    matches!(scheme, Scheme::Ecdsa(_) | Scheme::EcdsaConcat(_))
                }
            };
            match key.sign(&mut rng, scheme, b"message") {
                Ok(signature) => {
                    assert!(is_ours, "{name} {scheme}");
                    assert!(key.public_key().verify(scheme, b"message", &signature), "{scheme}");
                    assert!(!key.public_key().verify(scheme, b"massage", &signature), "{scheme}");
                    for other in schemes().into_iter().filter(|other| *other != scheme) {
                        assert!(!key.public_key().verify(other, b"message", &signature));
                    }
                    let other = private(&format!("b-{}.key", &name[2..]));
                    assert!(!other.public_key().verify(scheme, b"message", &signature));
                }
                Err(error) => {
                    assert!(!is_ours, "{name} {scheme}");
                    assert_eq!(error, SignError::Scheme(scheme));
                }
            }
        }
        let sha_1 = Scheme::RsaPkcs1(Hash::Sha1);
        assert_eq!(key.sign(&mut rng, sha_1, b"message"), Err(SignError::Scheme(sha_1)));
    }
}

#[test]
fn hash_goes_with_the_strength_of_the_key_and_with_what_is_announced() {
    use KeyKind::{EcdsaP256, EcdsaP384, EcdsaP521, Ed25519, Rsa};
    for (key, best) in [
        (EcdsaP256, Scheme::Ecdsa(Hash::Sha256)),
        (EcdsaP384, Scheme::Ecdsa(Hash::Sha384)),
        (EcdsaP521, Scheme::Ecdsa(Hash::Sha512)),
        (Ed25519, Scheme::Ed25519),
        (Rsa { bits: 2048 }, Scheme::RsaPss(Hash::Sha256)),
        (Rsa { bits: 4096 }, Scheme::RsaPss(Hash::Sha384)),
        (Rsa { bits: 8192 }, Scheme::RsaPss(Hash::Sha512)),
    ] {
        assert_eq!(Scheme::choose(key, &ALL), Some(best));
        // RFC 7427 §4: a hash that the other side has not sent is not used. SHA-1 never is.
        assert_eq!(Scheme::choose(key, &[]), None);
        assert_eq!(Scheme::choose(key, &[HashId::SHA1]), None);
        for announced in ALL {
            let scheme = Scheme::choose(key, &[HashId::SHA1, announced]);
            assert!(scheme.is_none_or(|scheme| scheme.hash_id() == announced), "{key:?}");
        }
    }
    // RFC 8420 §2: Ed25519 only to who has announced Identity.
    assert_eq!(Scheme::choose(Ed25519, &[HashId::SHA2_512]), None);
}

#[test]
fn private_keys_are_read_in_every_form() {
    let passphrase = Secret::copy_of(b"open sesame");
    for kind in ["p256", "p384", "p521", "rsa2048"] {
        let expected = public(&format!("form-{kind}.pub"));
        for form in ["pkcs8", "traditional", "encrypted"] {
            let text = file(&format!("form-{kind}.{form}.key"));
            let key = PrivateKey::from_pem(&text, Some(&passphrase))
                .unwrap_or_else(|error| panic!("{kind} {form}: {error}"));
            assert_eq!(*key.public_key(), expected, "{kind} {form}");
            assert_eq!(key.public_key().spki(), expected.spki(), "{kind} {form}");
        }
    }
    let scrypt = PrivateKey::from_pem(&file("form-p256.scrypt.key"), Some(&passphrase)).unwrap();
    assert_eq!(*scrypt.public_key(), public("form-p256.pub"));
}

#[test]
fn what_is_no_usable_key_is_refused_with_its_reason() {
    let read = |name: &str, passphrase: Option<&str>| {
        let passphrase = passphrase.map(|text| Secret::copy_of(text.as_bytes()));
        PrivateKey::from_pem(&file(name), passphrase.as_ref()).unwrap_err()
    };
    assert_eq!(read("form-p256.encrypted.key", None), PrivateKeyError::PassphraseMissing);
    assert_eq!(read("form-p256.encrypted.key", Some("wrong")), PrivateKeyError::Passphrase);
    assert_eq!(read("form-rsa2048.old.key", Some("x")), PrivateKeyError::OldEncryption);
    assert_eq!(read("a-p256.pem", None), PrivateKeyError::NoKey);
    let twice = [file("a-p256.key"), file("b-p256.key")].concat();
    assert_eq!(PrivateKey::from_pem(&twice, None).unwrap_err(), PrivateKeyError::Several);
    let cut = b"-----BEGIN PRIVATE KEY-----\nMIH0\n-----END PRIVATE KEY-----\n";
    assert_eq!(PrivateKey::from_pem(cut, None).unwrap_err(), PrivateKeyError::Malformed);
}

#[test]
fn debug_output_has_nothing_of_the_key() {
    let shown = format!("{:?}", private("a-ed25519.key"));
    assert!(shown.contains("[redacted]") && shown.len() < 80, "{shown}");
}

#[test]
fn small_rsa_keys_and_foreign_curves_are_refused() {
    // RSA of 1024 bits: an RSAPublicKey with a modulus of 128 bytes.
    let modulus = [&[0x02, 0x81, 0x81, 0x00, 0x80][..], &[1; 127]].concat();
    let body = [&modulus[..], &[0x02, 0x03, 1, 0, 1]].concat();
    let key = [&[0x30, 0x81, u8::try_from(body.len()).unwrap()][..], &body].concat();
    assert_eq!(PublicKey::of_rsa_key(&key), Err(PublicKeyError::RsaBits(1024)));
    assert_eq!(PublicKey::of_spki(&[0x30, 0]), Err(PublicKeyError::Malformed));
    // The SubjectPublicKeyInfo of X25519 (RFC 8410 §10.1).
    let x25519 =
        [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 3, 0x21, 0][..], &[9; 32]].concat();
    assert_eq!(PublicKey::of_spki(&x25519), Err(PublicKeyError::Kind));
}
