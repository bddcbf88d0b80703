//! Files of Project Wycheproof as they are published: JSON with `algorithm`, `schema` and `testGroups`. Fields and flags that are not
//! needed are not looked at, since later versions have more of them.

use ipsecd::crypto::Encr;
use ipsecd::crypto::aead::Aead;
use ipsecd::crypto::cipher::Cbc;
use ipsecd::crypto::gmac::Gmac;
use ipsecd::crypto::integ::Integ;
use ipsecd::crypto::prf::Prf;
use ipsecd::crypto::sign::{Hash, PublicKey, Scheme};
use ipsecd::wire::ike::numbers::{EncrId, IntegId, KeId, PrfId};
use serde_json::Value;

use crate::crypto::{encapsulate, pair};
use crate::file::unhex;

/// How a test of a file went.
pub(crate) struct Outcome {
    /// `tcId`.
    pub(crate) name: String,
    /// What ran did as it is to do; `None`: it has sizes that are not ours.
    pub(crate) ran: Option<Result<(), String>>,
}

/// Why nothing came out.
enum Stop {
    /// A size, a curve or a format that is not ours.
    NotOurs,
    /// It was refused, or is something else.
    Refused(&'static str),
    /// The file is not as the schema has it.
    File(String),
}

type Ran = Result<(), Stop>;

/// Whether a JSON is such a file.
pub(crate) fn is_one(json: &Value) -> bool {
    json["testGroups"].is_array() && json["algorithm"].is_string()
}

/// Runs every test of a file.
pub(crate) fn run(json: &Value) -> Result<Vec<Outcome>, String> {
    let algorithm = json["algorithm"].as_str().unwrap_or_default();
    let runner: fn(&Value, &Value, &str) -> Ran = match algorithm {
        "AES-GCM" | "AES-CCM" | "CHACHA20-POLY1305" => aead,
        "AES-GMAC" => gmac,
        "AES-CMAC" | "HMACSHA1" | "HMACSHA256" | "HMACSHA384" | "HMACSHA512" => mac,
        "AES-CBC-PKCS5" => cbc,
        "XDH" | "ECDH" => agreement,
        "ML-KEM" => ml_kem,
        "ECDSA" | "EDDSA" | "RSASSA-PKCS1-v1_5" | "RSASSA-PSS" => signature,
        other => return Err(format!("no runner for Wycheproof's {other:?}")),
    };
    let mut outcomes = Vec::new();
    for group in json["testGroups"].as_array().into_iter().flatten() {
        for test in group["tests"].as_array().into_iter().flatten() {
            let name = test["tcId"].to_string();
            let ran = match runner(group, test, algorithm) {
                Err(Stop::NotOurs) => None,
                Err(Stop::File(what)) => return Err(format!("test {name}: {what}")),
                Ok(()) => Some(judge(test, Ok(()))),
                Err(Stop::Refused(why)) => Some(judge(test, Err(why))),
            };
            outcomes.push(Outcome { name, ran });
        }
    }
    if outcomes.is_empty() { Err("no test in it".to_owned()) } else { Ok(outcomes) }
}

/// Something other than what stands in the file came out, which is worse than to refuse it.
const WRONG: &str = "another result";

fn judge(test: &Value, ran: Result<(), &'static str>) -> Result<(), String> {
    let wanted = test["result"].as_str().unwrap_or_default();
    let right = match wanted {
        "valid" => ran.is_ok(),
        "invalid" => ran.is_err(),
        "acceptable" => ran != Err(WRONG),
        other => return Err(format!("{other:?} is no result")),
    };
    let comment = test["comment"].as_str().unwrap_or_default();
    if right { Ok(()) } else { Err(format!("{wanted} ({comment}), and {ran:?}")) }
}

fn hex(of: &Value, field: &str) -> Result<Vec<u8>, Stop> {
    let text = of[field].as_str().ok_or_else(|| Stop::File(format!("no {field:?}")))?;
    unhex(text).map_err(|error| Stop::File(format!("{field:?}: {error}")))
}

fn same(actual: &[u8], expected: &[u8]) -> Ran {
    if actual == expected { Ok(()) } else { Err(Stop::Refused(WRONG)) }
}

const fn refused_unless(genuine: bool) -> Ran {
    if genuine { Ok(()) } else { Err(Stop::Refused("refused")) }
}

fn key_bits(key: &[u8]) -> Option<u16> {
    u16::try_from(key.len() * 8).ok()
}

fn aead(_: &Value, test: &Value, algorithm: &str) -> Ran {
    let (key, nonce, tag) = (hex(test, "key")?, hex(test, "iv")?, hex(test, "tag")?);
    let (aad, plain, sealed) = (hex(test, "aad")?, hex(test, "msg")?, hex(test, "ct")?);
    let id = match (algorithm, tag.len()) {
        ("AES-GCM", 16) => EncrId::ENCR_AES_GCM_16,
        ("AES-GCM", 12) => EncrId::ENCR_AES_GCM_12,
        ("AES-GCM", 8) => EncrId::ENCR_AES_GCM_8,
        ("AES-CCM", 16) => EncrId::ENCR_AES_CCM_16,
        ("AES-CCM", 12) => EncrId::ENCR_AES_CCM_12,
        ("AES-CCM", 8) => EncrId::ENCR_AES_CCM_8,
        ("CHACHA20-POLY1305", 16) => EncrId::ENCR_CHACHA20_POLY1305,
        _ => return Err(Stop::NotOurs),
    };
    let fixed = id == EncrId::ENCR_CHACHA20_POLY1305;
    let encr = Encr { id, key_bits: if fixed { None } else { key_bits(&key) } };
    let (salt, iv) = nonce.split_last_chunk().ok_or(Stop::NotOurs)?;
    let aead = Aead::new(encr, &[&key[..], salt].concat()).ok_or(Stop::NotOurs)?;
    let mut data = sealed.clone();
    aead.open(iv, &aad, &mut data, &tag).map_err(|_| Stop::Refused("refused"))?;
    same(&data, &plain)?;
    let mut icv = vec![0; aead.icv_len()];
    aead.seal(iv, &aad, &mut data, &mut icv);
    same(&[data, icv].concat(), &[sealed, tag].concat())
}

fn gmac(_: &Value, test: &Value, _: &str) -> Ran {
    let (key, nonce, tag) = (hex(test, "key")?, hex(test, "iv")?, hex(test, "tag")?);
    if nonce.len() != 12 || tag.len() != 16 {
        return Err(Stop::NotOurs);
    }
    let (salt, iv) = nonce.split_last_chunk().ok_or(Stop::NotOurs)?;
    let gmac = Gmac::new(&[&key[..], salt].concat()).ok_or(Stop::NotOurs)?;
    refused_unless(gmac.verify(iv, &[&hex(test, "msg")?], &tag))
}

/// As an integrity algorithm where key and tag have its lengths; as a PRF where the tag is whole.
fn mac(_: &Value, test: &Value, algorithm: &str) -> Ran {
    let (key, message, tag) = (hex(test, "key")?, hex(test, "msg")?, hex(test, "tag")?);
    let (integ, prf) = match algorithm {
        "AES-CMAC" => (IntegId::AUTH_AES_CMAC_96, None),
        "HMACSHA1" => (IntegId::AUTH_HMAC_SHA1_96, Some(PrfId::PRF_HMAC_SHA1)),
        "HMACSHA256" => (IntegId::AUTH_HMAC_SHA2_256_128, Some(PrfId::PRF_HMAC_SHA2_256)),
        "HMACSHA384" => (IntegId::AUTH_HMAC_SHA2_384_192, Some(PrfId::PRF_HMAC_SHA2_384)),
        _ => (IntegId::AUTH_HMAC_SHA2_512_256, Some(PrfId::PRF_HMAC_SHA2_512)),
    };
    if let Some(prf) = prf.and_then(Prf::new).filter(|prf| prf.len() == tag.len()) {
        return same(prf.compute(&key, &[&message]).expose(), &tag);
    }
    let icv_len = Integ::icv_len(integ).ok_or(Stop::NotOurs)?;
    // Of a longer tag, a change of what is cut off cannot be seen.
    let usable = tag.len() == icv_len || tag.len() > icv_len && test["result"] == "valid";
    let integ = Integ::new(integ, &key).filter(|_| usable).ok_or(Stop::NotOurs)?;
    refused_unless(integ.verify(&[&message], &tag[..icv_len]))
}

/// The padding is PKCS #5's and not ours: what tests only it is nothing for us.
fn cbc(_: &Value, test: &Value, _: &str) -> Ran {
    let (key, iv, sealed) = (hex(test, "key")?, hex(test, "iv")?, hex(test, "ct")?);
    let encr = Encr { id: EncrId::ENCR_AES_CBC, key_bits: key_bits(&key) };
    let cbc = Cbc::new(encr, &key).filter(|_| test["result"] == "valid").ok_or(Stop::NotOurs)?;
    let iv = iv.as_slice().try_into().map_err(|_| Stop::NotOurs)?;
    let mut padded = hex(test, "msg")?;
    let pad = Cbc::BLOCK_LEN - padded.len() % Cbc::BLOCK_LEN;
    padded.resize(padded.len() + pad, u8::try_from(pad).unwrap_or_default());
    let mut data = padded.clone();
    cbc.encrypt(iv, &mut data);
    same(&data, &sealed)?;
    cbc.decrypt(iv, &mut data);
    same(&data, &padded)
}

/// Points as IKE has them: uncompressed, without their first byte (RFC 5903 §7).
fn agreement(group: &Value, test: &Value, _: &str) -> Ran {
    let (method, len) = match group["curve"].as_str().unwrap_or_default() {
        "curve25519" => (KeId::CURVE25519, None),
        "secp256r1" => (KeId::ECP_256, Some(32_usize)),
        "secp384r1" => (KeId::ECP_384, Some(48)),
        "secp521r1" => (KeId::ECP_521, Some(66)),
        _ => return Err(Stop::NotOurs),
    };
    if len.is_some() && group["encoding"] != "ecpoint" {
        return Err(Stop::NotOurs);
    }
    let (public, private) = (hex(test, "public")?, hex(test, "private")?);
    let (public, private) = match (len, public.as_slice()) {
        (None, public) => (public, private),
        (Some(len), [0x04, point @ ..]) => {
            let zeros = private.iter().take_while(|byte| **byte == 0).count();
            let digits = &private[zeros..];
            let missing = len.checked_sub(digits.len()).ok_or(Stop::NotOurs)?;
            (point, [&vec![0; missing][..], digits].concat())
        }
        (Some(_), _) => return Err(Stop::NotOurs),
    };
    let agreed = pair(method, &private).and_then(|pair| {
        let agreed = pair.agree(public);
        agreed.map_err(|error| error.to_string())
    });
    let agreed = agreed.map_err(|_| Stop::Refused("refused"))?;
    same(agreed.expose(), &hex(test, "shared")?)
}

/// Keys from seeds, ciphertexts and encapsulation; expanded decapsulation keys are nothing that we read.
fn ml_kem(group: &Value, test: &Value, _: &str) -> Ran {
    let method = match group["parameterSet"].as_str().unwrap_or_default() {
        "ML-KEM-512" => KeId::ML_KEM_512,
        "ML-KEM-768" => KeId::ML_KEM_768,
        "ML-KEM-1024" => KeId::ML_KEM_1024,
        _ => return Err(Stop::NotOurs),
    };
    let optional = |field: &str| test[field].is_string().then(|| hex(test, field)).transpose();
    let (seed, key, message) = (optional("seed")?, optional("ek")?, optional("m")?);
    let (ciphertext, shared) = (optional("c")?, optional("K")?);
    let refused = |_: String| Stop::Refused("refused");
    if let Some(seed) = seed {
        refused_unless(seed.len() == 64)?;
        let pair = pair(method, &seed).map_err(refused)?;
        if let Some(key) = &key {
            same(pair.public(), key)?;
        }
        let Some(ciphertext) = ciphertext else { return Ok(()) };
        let agreed = pair.agree(&ciphertext).map_err(|error| refused(error.to_string()))?;
        return shared.map_or(Ok(()), |shared| same(agreed.expose(), &shared));
    }
    let (Some(key), Some(message)) = (key, message) else { return Err(Stop::NotOurs) };
    refused_unless(message.len() == 32)?;
    let response = encapsulate(method, &key, &message).map_err(refused)?;
    if let Some(ciphertext) = ciphertext {
        same(&response.public, &ciphertext)?;
    }
    shared.map_or(Ok(()), |shared| same(response.shared.expose(), &shared))
}

fn signature(group: &Value, test: &Value, algorithm: &str) -> Ran {
    let hash = match group["sha"].as_str().unwrap_or_default() {
        "SHA-256" => Some(Hash::Sha256),
        "SHA-384" => Some(Hash::Sha384),
        "SHA-512" => Some(Hash::Sha512),
        _ => None,
    };
    let kind = group["type"].as_str().unwrap_or_default();
    let scheme = match (algorithm, hash) {
        ("EDDSA", _) if group["publicKey"]["curve"] == "edwards25519" => Scheme::Ed25519,
        ("ECDSA", Some(hash)) if kind == "EcdsaVerify" => Scheme::Ecdsa(hash),
        ("ECDSA", Some(hash)) if kind == "EcdsaP1363Verify" => Scheme::EcdsaConcat(hash),
        ("RSASSA-PKCS1-v1_5", Some(hash)) => Scheme::RsaPkcs1(hash),
        // RFC 7427 §A.4: the salt as long as the hash, and one hash for all.
        ("RSASSA-PSS", Some(hash))
            if group["mgfSha"] == group["sha"]
                && group["sLen"].as_u64().map(|bytes| bytes * 8) == sha_bits(group) =>
        {
            Scheme::RsaPss(hash)
        }
        _ => return Err(Stop::NotOurs),
    };
    let spki = hex(group, "publicKeyDer")?;
    let key = PublicKey::of_spki(&spki).map_err(|_| Stop::NotOurs)?;
    refused_unless(key.verify(scheme, &hex(test, "msg")?, &hex(test, "sig")?))
}

/// The number in the name of a hash.
fn sha_bits(group: &Value) -> Option<u64> {
    group["sha"].as_str()?.strip_prefix("SHA-")?.parse().ok()
}
