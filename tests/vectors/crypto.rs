//! Runners for `ipsecd::crypto`.

use ipsecd::crypto::aead::Aead;
use ipsecd::crypto::cipher::{Cbc, Ctr};
use ipsecd::crypto::dh::{BadPublicValue, KeyPair, Response, respond};
use ipsecd::crypto::integ::Integ;
use ipsecd::crypto::prf::Prf;
use ipsecd::crypto::{Encr, SecureRandom};
use ipsecd::wire::ike::numbers::{EncrId, IntegId, KeId, PrfId};

use crate::file::{Case, hex};

/// `actual` must be `expected`.
pub(crate) fn same(what: &str, actual: &[u8], expected: &[u8]) -> Result<(), String> {
    if actual == expected {
        Ok(())
    } else {
        Err(format!("{what} is {} and should be {}", hex(actual), hex(expected)))
    }
}

/// The number whose IANA name stands in `field`.
pub(crate) fn named<T: Copy>(
    case: &Case,
    field: &str,
    known: &[T],
    name: impl Fn(T) -> Option<&'static str>,
) -> Result<T, String> {
    let wanted = case.text(field)?;
    known
        .iter()
        .copied()
        .find(|number| name(*number) == Some(wanted))
        .ok_or_else(|| format!("`{field}`: {wanted} is not a name that IANA knows"))
}

/// An encryption key of this many bytes, without salt.
fn encr(id: EncrId, key: &[u8]) -> Encr {
    Encr { id, key_bits: u16::try_from(key.len() * 8).ok() }
}

/// `key`, `data`, and the outputs that there are, whole or truncated to no less than 128 bits.
pub(crate) fn hmac(case: &Case) -> Result<(), String> {
    let (key, data) = (case.hex("key")?, case.hex("data")?);
    let mut outputs = 0;
    for (field, id) in [
        ("hmac_sha256", PrfId::PRF_HMAC_SHA2_256),
        ("hmac_sha384", PrfId::PRF_HMAC_SHA2_384),
        ("hmac_sha512", PrfId::PRF_HMAC_SHA2_512),
    ] {
        let Some(expected) = case.hex_or_none(field)? else { continue };
        let prf = Prf::new(id).ok_or("not implemented")?;
        let middle = data.len() / 2;
        let output = prf.compute(&key, &[&data[..middle], &data[middle..]]);
        let len = if expected.len() == 16 { 16 } else { prf.len() };
        same(field, &output.expose()[..len], &expected)?;
        outputs += 1;
    }
    if outputs == 0 { Err("no output to compare with".to_owned()) } else { Ok(()) }
}

/// `integ`, `key`, `data`, `icv`.
pub(crate) fn integ(case: &Case) -> Result<(), String> {
    let id = named(case, "integ", IntegId::KNOWN, IntegId::name)?;
    let (data, expected) = (case.hex("data")?, case.hex("icv")?);
    let integ = Integ::new(id, &case.hex("key")?).ok_or("algorithm or key length refused")?;
    let mut icv = vec![0; Integ::icv_len(id).ok_or("no ICV length")?];
    integ.sign(&[&data], &mut icv);
    same("icv", &icv, &expected)?;
    if integ.verify(&[&data], &expected) { Ok(()) } else { Err("not verified".to_owned()) }
}

/// `key`, `iv`, `plaintext`, `ciphertext`, both ways.
pub(crate) fn cbc(case: &Case) -> Result<(), String> {
    let (key, iv) = (case.hex("key")?, case.array("iv")?);
    let (plaintext, ciphertext) = (case.hex("plaintext")?, case.hex("ciphertext")?);
    let cbc = Cbc::new(encr(EncrId::ENCR_AES_CBC, &key), &key).ok_or("key length refused")?;
    let mut data = plaintext.clone();
    cbc.encrypt(&iv, &mut data);
    same("ciphertext", &data, &ciphertext)?;
    cbc.decrypt(&iv, &mut data);
    same("plaintext", &data, &plaintext)
}

/// `key`, `nonce`, `iv`, `plaintext`, `ciphertext`, both ways.
pub(crate) fn ctr(case: &Case) -> Result<(), String> {
    let (key, nonce, iv) = (case.hex("key")?, case.hex("nonce")?, case.array("iv")?);
    let (plaintext, ciphertext) = (case.hex("plaintext")?, case.hex("ciphertext")?);
    let ctr = Ctr::new(encr(EncrId::ENCR_AES_CTR, &key), &[key, nonce].concat())
        .ok_or("key length refused")?;
    let mut data = plaintext.clone();
    ctr.apply(&iv, &mut data);
    same("ciphertext", &data, &ciphertext)?;
    ctr.apply(&iv, &mut data);
    same("plaintext", &data, &plaintext)
}

/// A whole ESP packet (RFC 4106), and with RFC 4106 §6 also those with shorter ICVs: `key`, `salt`, `spi`, `seq` (8 bytes with ESN), `iv`, `aad`,
/// `plaintext`, `ciphertext`, `icv`, `packet`.
pub(crate) fn esp_gcm(case: &Case) -> Result<(), String> {
    let (key, salt, iv) = (case.hex("key")?, case.hex("salt")?, case.array::<8>("iv")?);
    let (spi, seq) = (case.array::<4>("spi")?, case.hex("seq")?);
    let (plaintext, ciphertext) = (case.hex("plaintext")?, case.hex("ciphertext")?);
    let (icv, packet) = (case.array::<16>("icv")?, case.hex("packet")?);

    // RFC 4106 §5: SPI and sequence number, the latter whole with ESN.
    let aad = [spi.as_slice(), &seq].concat();
    same("aad", &aad, &case.hex("aad")?)?;
    for (id, icv_len) in
        [(EncrId::ENCR_AES_GCM_16, 16), (EncrId::ENCR_AES_GCM_12, 12), (EncrId::ENCR_AES_GCM_8, 8)]
    {
        let aead =
            Aead::new(encr(id, &key), &[&key[..], &salt].concat()).ok_or("key length refused")?;
        let mut data = plaintext.clone();
        let mut made = vec![0; icv_len];
        aead.seal(&iv, &aad, &mut data, &mut made);
        same("icv", &made, &icv[..icv_len])?;
        same("ciphertext", &data, &ciphertext)?;
        let seq_low = seq.last_chunk::<4>().ok_or("sequence number too short")?;
        let whole = [&spi[..], seq_low, &iv, &data, &icv].concat();
        same("packet", &whole, &packet)?;

        let sealed = packet.get(16..).ok_or("packet too short")?;
        let (data, icv) = sealed.split_last_chunk::<16>().ok_or("packet too short")?;
        let mut data = data.to_vec();
        aead.open(&iv, &aad, &mut data, &icv[..icv_len]).map_err(|error| error.to_string())?;
        same("plaintext", &data, &plaintext)?;
    }
    Ok(())
}

/// `scalar`, `u`, `output`, and how many `iterations` if more than one.
pub(crate) fn x25519(case: &Case) -> Result<(), String> {
    let (mut scalar, mut u) = (case.hex("scalar")?, case.hex("u")?);
    let iterations = if case.get("iterations").is_some() { case.number("iterations")? } else { 1 };
    for _ in 0..iterations {
        let output = pair(KeId::CURVE25519, &scalar)?.agree(&u).map_err(|e| e.to_string())?;
        u = scalar;
        scalar = output.expose().to_vec();
    }
    same("output", &scalar, &case.hex("output")?)
}

/// `group`, `private_i`, `public_i`, `public_r`, `shared`; `private_r` where somebody knows it.
pub(crate) fn dh(case: &Case) -> Result<(), String> {
    let group = named(case, "group", KeId::KNOWN, KeId::name)?;
    let (public_i, public_r) = (case.hex("public_i")?, case.hex("public_r")?);
    let shared = case.hex("shared")?;
    let check = |private: &[u8], ours: &[u8], peers: &[u8]| {
        let pair = pair(group, private)?;
        same("public value", pair.public(), ours)?;
        let agreed = pair.agree(peers).map_err(|error| error.to_string())?;
        same("shared secret", agreed.expose(), &shared)
    };
    check(&case.hex("private_i")?, &public_i, &public_r)?;
    match case.hex_or_none("private_r")? {
        Some(private_r) => check(&private_r, &public_r, &public_i),
        None => Ok(()),
    }
}

/// `group` and its `prime`. A peer's value is refused from p - 1 upwards and not below (RFC 6989
/// §2.1), which tells the prime in use to the last digit.
/// `method`, `ek`; with `d` (of FIPS 203; z does not matter) the key that this is of, with `m` what is encapsulated for it:
/// `ciphertext` and `shared`.
pub(crate) fn kem(case: &Case) -> Result<(), String> {
    let method = named(case, "method", KeId::KNOWN, KeId::name)?;
    let ek = case.hex("ek")?;
    if let Some(d) = case.hex_or_none("d")? {
        let ours = pair(method, &[d, vec![0; 32]].concat())?;
        return same("encapsulation key", ours.public(), &ek);
    }
    let response = encapsulate(method, &ek, &case.hex("m")?)?;
    same("ciphertext", &response.public, &case.hex("ciphertext")?)?;
    same("shared secret", response.shared.expose(), &case.hex("shared")?)
}

/// The responder's half with this randomness.
pub(crate) fn encapsulate(method: KeId, ek: &[u8], m: &[u8]) -> Result<Response, String> {
    let mut bytes = m.iter().copied();
    let response = respond(method, ek, &mut Fixed(&mut bytes))
        .ok_or("method refused")?
        .map_err(|error| error.to_string())?;
    if bytes.next().is_some() { Err("randomness too long".to_owned()) } else { Ok(response) }
}

pub(crate) fn modp_group(case: &Case) -> Result<(), String> {
    let group = named(case, "group", KeId::KNOWN, KeId::name)?;
    let prime = case.hex("prime")?;
    // Any private value will do, of the length that is asked for.
    let pair = KeyPair::generate(group, &mut Fixed(&mut [0xa5].iter().cycle().copied()))
        .ok_or("group refused")?;
    let (last, front) = prime.split_last().ok_or("empty")?;
    let below = |n: u8| -> Result<Vec<u8>, String> {
        let last = last.checked_sub(n).ok_or("the primes end in 0xff")?;
        Ok([front, &[last]].concat())
    };
    if pair.agree(&below(1)?) != Err(BadPublicValue::OutOfRange) {
        return Err("p - 1 is not refused".to_owned());
    }
    pair.agree(&below(2)?).map_err(|error| format!("p - 2: {error}"))?;
    let generator = [vec![0; prime.len() - 1], vec![2]].concat();
    let power = pair.agree(&generator).map_err(|error| error.to_string())?;
    same("power of the generator", power.expose(), pair.public())
}

/// The key pair with this private value: all groups take it from the random source as it is.
pub(crate) fn pair(group: KeId, private: &[u8]) -> Result<KeyPair, String> {
    let mut bytes = private.iter().copied();
    let pair = KeyPair::generate(group, &mut Fixed(&mut bytes)).ok_or("group refused")?;
    if bytes.next().is_some() { Err("private value too long".to_owned()) } else { Ok(pair) }
}

struct Fixed<'a, I>(&'a mut I);

impl<I: Iterator<Item = u8> + Send> SecureRandom for Fixed<'_, I> {
    fn fill(&mut self, buf: &mut [u8]) {
        for byte in buf {
            *byte = self.0.next().expect("as many bytes as a private value has");
        }
    }
}
