//! The secrets of tcpdump's `-E`, a line each: `SPI@ADDRESS ALGORITHM:SECRET`, or `ALGORITHM:SECRET` for every SPI, or
//! `ikev2 I|R SPI_I SPI_R INTEGRITY:SECRET ENCRYPTION:SECRET`.
//!
//! Of ESP it knows the encryption key alone: what is read with it is not verified. A name may end in `-hmac96`, which says
//! that 12 bytes of an ICV follow.

use core::net::IpAddr;

use super::{
    AddrPattern, Algorithms, IkeKey, Integrity, KeyRing, SaKey, SpiPattern, Start, encr_of, ikev2,
    unhex,
};
use crate::crypto::Secret;
use crate::crypto::des::DesCbc;
use crate::ipsec::suite::Protocol;
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{EncrId, IntegId};

/// Reads a line, which may have several secrets with commas between them, as the argument of `-E` has. The error says at which
/// character of it.
pub(super) fn read(origin: &str, line: &str, ring: &mut KeyRing) -> Result<(), (usize, String)> {
    // A secret that is text may have a comma as well: then what follows it is no other secret.
    let mut parts = vec![0];
    parts
        .extend(line.match_indices(',').map(|(at, _)| at + 1).filter(|at| is_secret(&line[*at..])));
    parts.push(line.len() + 1);
    for part in parts.windows(2) {
        if let &[from, to] = part {
            let one = line.get(from..to - 1).unwrap_or_default();
            read_one(origin, one, ring).map_err(|(at, why)| (from + at, why))?;
        }
    }
    Ok(())
}

/// Whether a text begins with SPI@ADDRESS, with a cipher that is known, or with `ikev2`.
fn is_secret(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default();
    let is_spi = word.split_once('@').is_some_and(|(spi, addr)| {
        SpiPattern::parse(spi).is_some() && addr.parse::<IpAddr>().is_ok()
    });
    let name = word.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let cipher = name.trim_end_matches("-hmac96").trim_end_matches("-hmac-96");
    let is_cipher = word.contains(':') && (cipher_of(cipher).is_some() || is_foreign(cipher));
    is_spi || is_cipher || word.eq_ignore_ascii_case("ikev2")
}

/// Reads one.
fn read_one(origin: &str, line: &str, ring: &mut KeyRing) -> Result<(), (usize, String)> {
    let words: Vec<(usize, &str)> = line
        .split_whitespace()
        .map(|word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
        .collect();
    match words.as_slice() {
        [(_, first), rest @ ..] if first.eq_ignore_ascii_case("ikev2") => {
            ring.ike.push(ike(origin, line, rest)?);
        }
        [(at, secret)] => {
            ring.sas.push(esp(origin, AddrPattern::Any, SpiPattern::ANY, *at, secret)?)
        }
        [(at, place), (secret_at, secret)] => {
            let Some((spi, addr)) = place.split_once('@') else {
                return Err((*at, NO_LINE.to_owned()));
            };
            let spi = SpiPattern::parse(spi)
                .ok_or_else(|| (*at, format!("{spi:?} is no SPI, such as 0x12345678")))?;
            let addr_at = at + place.len() - addr.len();
            let addr: IpAddr =
                addr.parse().map_err(|_| (addr_at, format!("{addr:?} is no IP address")))?;
            let dst = AddrPattern::exactly(addr);
            ring.sas.push(esp(origin, dst, spi, *secret_at, secret)?);
        }
        _ => return Err((0, NO_LINE.to_owned())),
    }
    Ok(())
}

const NO_LINE: &str =
    "neither a row of esp_sa or ikev2_decryption_table nor SPI@ADDRESS ALGORITHM:SECRET";

fn esp(
    origin: &str,
    dst: AddrPattern,
    spi: SpiPattern,
    at: usize,
    secret: &str,
) -> Result<SaKey, (usize, String)> {
    let (name, key) = algorithm_and_key(at, secret)?;
    let lower = name.to_ascii_lowercase();
    let (cipher, icv_len) = match lower.strip_suffix("-hmac96").or(lower.strip_suffix("-hmac-96")) {
        Some(cipher) => (cipher, 12),
        None => (lower.as_str(), 0),
    };
    let key_at = at + name.len() + 1;
    let (algorithms, encr_key) = match cipher_of(cipher) {
        Some((id, len)) if key.len() >= len => {
            // It reads as much of a longer secret as it needs.
            let key = Secret::copy_of(&key.expose()[..len]);
            let encr = encr_of(id, len).map_err(|message| (key_at, message))?;
            let integrity = Integrity::Unchecked(icv_len);
            (Ok(Algorithms { encr: Some(encr), integrity }), key)
        }
        Some((_, len)) => {
            return Err((key_at, format!("a secret of {} bytes; {cipher} takes {len}", key.len())));
        }
        None if is_foreign(cipher) => (Err(name.to_owned()), key),
        None => return Err((at, format!("{name:?} is no algorithm, such as aes256-cbc-hmac96"))),
    };
    Ok(SaKey {
        origin: origin.to_owned(),
        protocol: Protocol::Esp,
        src: AddrPattern::Any,
        dst,
        spi,
        algorithms,
        encr_key,
        integ_key: Secret::empty(),
        esn: false,
        start: Start::Within(0),
        replay_window: None,
        mode: None,
        selectors: None,
    })
}

/// The names of OpenSSL, which are tcpdump's, of ciphers that we have not.
const FOREIGN: [&str; 11] =
    ["blowfish", "bf", "cast", "rc2", "rc3", "rc4", "rc5", "idea", "camellia", "seed", "aria"];

fn is_foreign(cipher: &str) -> bool {
    FOREIGN.iter().any(|known| cipher.starts_with(known))
}

/// Encryption algorithm, length of its key.
fn cipher_of(name: &str) -> Option<(EncrId, usize)> {
    Some(match name.strip_suffix("-cbc").unwrap_or(name) {
        "none" | "null" => (EncrId::ENCR_NULL, 0),
        "aes128" | "aes-128" => (EncrId::ENCR_AES_CBC, 16),
        "aes192" | "aes-192" => (EncrId::ENCR_AES_CBC, 24),
        "aes256" | "aes-256" => (EncrId::ENCR_AES_CBC, 32),
        "3des" | "des3" | "des-ede3" => (EncrId::ENCR_3DES, DesCbc::TRIPLE_KEY_LEN),
        "des" => (EncrId::ENCR_DES, DesCbc::DES_KEY_LEN),
        _ => return None,
    })
}

fn ike(origin: &str, line: &str, words: &[(usize, &str)]) -> Result<IkeKey, (usize, String)> {
    let [(role_at, role), spi_i, spi_r, integ, encr] = words else {
        let form = "ikev2 I|R 0xSPI_I 0xSPI_R INTEGRITY:SECRET ENCRYPTION:SECRET";
        return Err((line.len(), format!("the form is {form}")));
    };
    let initiator = match *role {
        "I" => true,
        "R" => false,
        _ => return Err((*role_at, "neither I nor R".to_owned())),
    };
    let spi = |(at, text): (usize, &str)| {
        let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 16);
        digits
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(IkeSpi)
            .ok_or_else(|| (at, "an SPI of IKE is 0x and 16 hex digits".to_owned()))
    };
    let (integ_name, sk_a) = algorithm_and_key(integ.0, integ.1)?;
    let (encr_name, sk_e) = algorithm_and_key(encr.0, encr.1)?;
    let suite = match (cipher_of(&encr_name.to_ascii_lowercase()), integ_name) {
        (Some((id, len)), "sha1") if len == sk_e.len() && len > 0 => {
            let encr = encr_of(id, len).map_err(|message| (encr.0, message))?;
            Ok(ikev2::of_ids(encr, IntegId::AUTH_HMAC_SHA1_96))
        }
        (Some((_, len)), "sha1") if len > 0 => {
            return Err((
                encr.0,
                format!("a secret of {} bytes; {encr_name} takes {len}", sk_e.len()),
            ));
        }
        _ => Err(format!("{encr_name}, {integ_name}")),
    };
    Ok(IkeKey {
        origin: origin.to_owned(),
        spi_i: spi(*spi_i)?,
        spi_r: spi(*spi_r)?,
        initiator,
        suite,
        sk_e,
        sk_a,
        unchecked: true,
    })
}

/// `NAME:0xHEX` or `NAME:TEXT`.
fn algorithm_and_key(at: usize, text: &str) -> Result<(&str, Secret), (usize, String)> {
    let Some((name, secret)) = text.split_once(':') else {
        return Err((at, "no ALGORITHM:SECRET".to_owned()));
    };
    let key = match secret.strip_prefix("0x") {
        Some(digits) => {
            let key_at = at + name.len() + 3;
            Secret::new(unhex(digits).map_err(|(place, why)| (key_at + place, why))?)
        }
        None => Secret::copy_of(secret.as_bytes()),
    };
    Ok((name, key))
}
