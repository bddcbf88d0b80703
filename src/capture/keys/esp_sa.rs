//! Wireshark's table of ESP SAs (`esp_sa`): a row is
//! `"IPv4","SRC","DST","SPI","ENCRYPTION","0xKEY","AUTHENTICATION","0xKEY"`, and with newer versions
//! `,"32-bit","0"`: the length of sequence numbers and the high half to begin with.
//!
//! What Wireshark has no name for (CCM, GMAC, XCBC, CMAC, AH) is written with IANA's name, and hidden from it: one name that
//! it does not know, and it reads nothing of the table. Further fields alone cost an older one no more than that row.

use super::{
    AddrPattern, Algorithms, HIDDEN, Integrity, SaKey, SpiPattern, Start, bare_name, encr_of, hex,
    uat, unhex,
};
use crate::crypto::Secret;
use crate::ipsec::SaParams;
use crate::ipsec::suite::{Protocol, Suite};
use crate::wire::ike::numbers::{EncrId, IntegId};

/// Wireshark's names of encryption algorithms that it and we know; and whether every version in use has them.
const ENCR: &[(EncrId, &str, bool)] = &[
    (EncrId::ENCR_NULL, "NULL", true),
    (EncrId::ENCR_DES, "DES-CBC [RFC2405]", true),
    (EncrId::ENCR_3DES, "TripleDES-CBC [RFC2451]", true),
    (EncrId::ENCR_AES_CBC, "AES-CBC [RFC3602]", true),
    (EncrId::ENCR_AES_CTR, "AES-CTR [RFC3686]", true),
    (EncrId::ENCR_AES_GCM_8, "AES-GCM with 8 octet ICV [RFC4106]", true),
    (EncrId::ENCR_AES_GCM_12, "AES-GCM with 12 octet ICV [RFC4106]", true),
    (EncrId::ENCR_AES_GCM_16, "AES-GCM with 16 octet ICV [RFC4106]", true),
    (EncrId::ENCR_AES_GCM_16_IIV, "AES-GCM with IIV and 16 octet ICV [RFC4106 & RFC8750]", false),
    (EncrId::ENCR_CHACHA20_POLY1305, "ChaCha20 with Poly1305 [RFC7634]", false),
    (
        EncrId::ENCR_CHACHA20_POLY1305_IIV,
        "ChaCha20 with Poly1305 and IIV [RFC7634 & RFC8750]",
        false,
    ),
];

/// Wireshark's names of integrity algorithms that it and we know.
const INTEG: &[(Integrity, &str)] = &[
    (Integrity::Full(IntegId::AUTH_HMAC_SHA1_96), "HMAC-SHA-1-96 [RFC2404]"),
    (
        Integrity::Full(IntegId::AUTH_HMAC_SHA2_256_96),
        "HMAC-SHA-256-96 [draft-ietf-ipsec-ciph-sha-256-00]",
    ),
    (Integrity::Full(IntegId::AUTH_HMAC_SHA2_256_128), "HMAC-SHA-256-128 [RFC4868]"),
    (Integrity::Full(IntegId::AUTH_HMAC_SHA2_384_192), "HMAC-SHA-384-192 [RFC4868]"),
    (Integrity::Full(IntegId::AUTH_HMAC_SHA2_512_256), "HMAC-SHA-512-256 [RFC4868]"),
    (Integrity::Unchecked(8), "ANY 64 bit authentication [no checking]"),
    (Integrity::Unchecked(12), "ANY 96 bit authentication [no checking]"),
    (Integrity::Unchecked(16), "ANY 128 bit authentication [no checking]"),
    (Integrity::Unchecked(24), "ANY 192 bit authentication [no checking]"),
    (Integrity::Unchecked(32), "ANY 256 bit authentication [no checking]"),
];

/// What Wireshark has and we have not.
const FOREIGN_ENCR: [&str; 3] = ["cast5-cbc", "blowfish-cbc", "twofish-cbc"];

/// Reads a row. The error says at which character of it.
pub(super) fn read(origin: &str, row: &str) -> Result<SaKey, (usize, String)> {
    let fields = uat::fields(row)?;
    let fail = |field: usize, message: String| {
        (fields.get(field).map_or(row.len(), |field| field.at), message)
    };
    if !(8..=10).contains(&fields.len()) {
        return Err(fail(usize::MAX, format!("{} fields; an SA has 8 or 10", fields.len())));
    }
    let text = |field: usize| fields.get(field).map_or("", |field| field.text.trim());
    let (proto, version) = match text(0).strip_prefix("AH/") {
        Some(version) => (Protocol::Ah, version),
        None => (Protocol::Esp, text(0)),
    };
    let addr = |field: usize| {
        let pattern = match version.to_ascii_lowercase().as_str() {
            "ipv4" => AddrPattern::parse(text(field), false),
            "ipv6" => AddrPattern::parse(text(field), true),
            "any" if text(field) == "*" => Some(AddrPattern::Any),
            "any" => AddrPattern::parse(text(field), text(field).contains(':')),
            _ => return Err(fail(0, format!("{version:?} is none of IPv4, IPv6, Any"))),
        };
        let wrong = || format!("{:?} is no {version} address, prefix or *", text(field));
        pattern.ok_or_else(|| fail(field, wrong()))
    };
    let (src, dst) = (addr(1)?, addr(2)?);
    let Some(spi) = SpiPattern::parse(text(3)) else {
        return Err(fail(3, format!("{:?} is no SPI, such as 0x12345678, and not *", text(3))));
    };
    let encr_key = key(text(5)).map_err(|(at, why)| (fields[5].at + 1 + at, why))?;
    let integ_key = key(text(7)).map_err(|(at, why)| (fields[7].at + 1 + at, why))?;
    let algorithms = match algorithms(proto, text(4), encr_key.len(), text(6)) {
        Ok(algorithms) => algorithms,
        Err((field, message)) => return Err(fail(field, message)),
    };
    let esn = match text(8) {
        "" | "32-bit" => false,
        "64-bit" => true,
        _ => return Err(fail(8, "neither 32-bit nor 64-bit".to_owned())),
    };
    let upper = text(9);
    let digits = upper.strip_prefix("0x").unwrap_or(upper);
    let high = match (u32::from_str_radix(digits, 16), upper) {
        (Ok(high), _) => high,
        (Err(_), "") => 0,
        (Err(_), _) => return Err(fail(9, "not 32 bits in hex".to_owned())),
    };
    Ok(SaKey {
        origin: origin.to_owned(),
        protocol: proto,
        src,
        dst,
        spi,
        algorithms,
        encr_key,
        integ_key,
        esn,
        start: Start::Within(high),
        replay_window: None,
        mode: None,
        selectors: None,
    })
}

/// The outer error: in which field something is that is no algorithm. The inner one: an algorithm that is not ours.
fn algorithms(
    proto: Protocol,
    encryption: &str,
    encr_key_len: usize,
    authentication: &str,
) -> Result<Result<Algorithms, String>, (usize, String)> {
    let (encryption, auth) = (bare_name(encryption), bare_name(authentication));
    let by_name = INTEG.iter().find(|(_, name)| bare_name(name) == auth).map(|&(integ, _)| integ);
    let by_iana = || {
        let known = IntegId::KNOWN.iter().find(|id| id.to_string().to_ascii_lowercase() == auth);
        known.map(
            |&id| if id == IntegId::NONE { Integrity::Unchecked(0) } else { Integrity::Full(id) },
        )
    };
    let integrity = match auth.as_str() {
        "null" | "" => Integrity::Unchecked(0),
        // No library of ours has them: what they protect can still be read.
        "hmac-md5-96" | "mac-ripemd-160-96" => Integrity::Unchecked(12),
        _ => match by_name.or_else(by_iana) {
            Some(integrity) => integrity,
            None => return Err((6, format!("{authentication:?} is no authentication algorithm"))),
        },
    };
    if proto == Protocol::Ah {
        return Ok(match integrity {
            Integrity::Unchecked(_) => Err(format!("AH without a key ({authentication})")),
            Integrity::Aead | Integrity::Full(_) => Ok(Algorithms { encr: None, integrity }),
        });
    }
    if FOREIGN_ENCR.contains(&encryption.as_str()) {
        return Ok(Err(encryption));
    }
    let id = match (encryption.as_str(), integrity) {
        // Before it told the lengths apart.
        ("aes-gcm", Integrity::Unchecked(8)) => Some(EncrId::ENCR_AES_GCM_8),
        ("aes-gcm", Integrity::Unchecked(12)) => Some(EncrId::ENCR_AES_GCM_12),
        ("aes-gcm", _) => Some(EncrId::ENCR_AES_GCM_16),
        (name, _) => {
            let ours = ENCR.iter().find(|(_, known, _)| bare_name(known) == name);
            let iana =
                || EncrId::KNOWN.iter().find(|id| id.to_string().to_ascii_lowercase() == name);
            ours.map(|&(id, ..)| id).or_else(|| iana().copied())
        }
    };
    let Some(id) = id else {
        return Err((4, format!("{encryption:?} is no encryption algorithm")));
    };
    // Wireshark ignores whatever key stands there.
    let key_len = if id == EncrId::ENCR_NULL { 0 } else { encr_key_len };
    let encr = encr_of(id, key_len).map_err(|message| (5, message))?;
    let integrity = if id.is_aead() { Integrity::Aead } else { integrity };
    Ok(Ok(Algorithms { encr: Some(encr), integrity }))
}

/// `0x…` are hex digits (an odd number lacks a zero in front), anything else is text.
fn key(text: &str) -> Result<Secret, (usize, String)> {
    let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) else {
        return Ok(Secret::copy_of(text.as_bytes()));
    };
    let even = if digits.len() % 2 == 0 { digits.to_owned() } else { format!("0{digits}") };
    let at = |place: usize| place + 2 - (even.len() - digits.len());
    unhex(&even).map(Secret::new).map_err(|(place, why)| (at(place), why))
}

/// The row of an SA; `None` if its algorithms have no name.
#[must_use]
pub fn write(sa: &SaKey) -> Option<String> {
    let algorithms = sa.algorithms.as_ref().ok()?;
    let mut hidden = sa.protocol == Protocol::Ah;
    let encryption = match algorithms.encr {
        None => "NULL".to_owned(),
        Some(encr) => match ENCR.iter().find(|(id, ..)| *id == encr.id) {
            Some((_, name, everywhere)) => {
                hidden |= !everywhere;
                (*name).to_owned()
            }
            None => {
                hidden = true;
                encr.id.to_string()
            }
        },
    };
    let authentication = match algorithms.integrity {
        Integrity::Aead | Integrity::Unchecked(0) => "NULL".to_owned(),
        integrity @ (Integrity::Full(_) | Integrity::Unchecked(_)) => {
            match INTEG.iter().find(|(known, _)| *known == integrity) {
                Some((_, name)) => (*name).to_owned(),
                None => {
                    hidden = true;
                    match integrity {
                        Integrity::Full(id) => id.to_string(),
                        Integrity::Aead | Integrity::Unchecked(_) => return None,
                    }
                }
            }
        }
    };
    let is_v6 = [sa.src, sa.dst].iter().any(|side| matches!(side, AddrPattern::V6 { .. }));
    let is_any = [sa.src, sa.dst].contains(&AddrPattern::Any);
    let version = if is_v6 {
        "IPv6"
    } else if is_any {
        "Any"
    } else {
        "IPv4"
    };
    let proto = if sa.protocol == Protocol::Ah { "AH/" } else { "" };
    let key = |key: &Secret| {
        if key.is_empty() { String::new() } else { format!("0x{}", hex(key.expose())) }
    };
    let mut fields = vec![
        format!("{proto}{version}"),
        sa.src.to_string(),
        sa.dst.to_string(),
        sa.spi.to_string(),
        encryption,
        key(&sa.encr_key),
        authentication,
        key(&sa.integ_key),
    ];
    if sa.esn {
        fields.extend(["64-bit".to_owned(), format!("{:x}", sa.start.high())]);
    }
    let row = fields.iter().map(|field| uat::quote(field)).collect::<Vec<_>>().join(",");
    Some(if hidden { format!("{HIDDEN}{row}") } else { row })
}

impl SaKey {
    /// The keys of an SA that is about to be installed: to be written. By its SPI alone, since a NAT or a move changes
    /// what addresses its packets have.
    #[must_use]
    pub fn of_sa(params: &SaParams) -> Self {
        let any = AddrPattern::any_of(params.path.remote.is_ipv6());
        Self {
            origin: params.peer.to_string(),
            protocol: params.suite.protocol(),
            src: any,
            dst: any,
            spi: SpiPattern::exactly(params.spi.get()),
            algorithms: Ok(of_suite(params.suite)),
            encr_key: params.encr_key.clone(),
            integ_key: params.integ_key.clone(),
            esn: params.suite.esn(),
            start: Start::After(params.sequence),
            replay_window: Some(params.replay_window),
            mode: Some(params.mode),
            selectors: None,
        }
    }
}

fn of_suite(suite: Suite) -> Algorithms {
    let (encr, integ) = match suite {
        Suite::Ah(suite) => (None, suite.integ),
        Suite::Esp(suite) => (Some(suite.encr), suite.integ),
    };
    let integrity = if integ == IntegId::NONE { Integrity::Aead } else { Integrity::Full(integ) };
    Algorithms { encr, integrity }
}
