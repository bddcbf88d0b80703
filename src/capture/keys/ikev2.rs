//! Wireshark's table of IKE SAs (`ikev2_decryption_table`): a row is
//! `SPI_I,SPI_R,SK_EI,SK_ER,"ENCRYPTION",SK_AI,SK_AR,"INTEGRITY"`, with bytes in hex.
//!
//! What Wireshark has no name for is written with IANA's name, and hidden from it.

use super::{HIDDEN, IkeKey, bare_name, encr_of, hex, uat, unhex};
use crate::capture::lenient::{AUTH_HMAC_MD5_128, AUTH_HMAC_SHA1_160};
use crate::crypto::{Encr, Secret};
use crate::ipsec::suite::{AddKe, IkeSuite};
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{EncrId, IntegId, KeId, PrfId};

/// Wireshark's names of encryption algorithms; with each key length, but for that, where it can be another.
const ENCR: &[(EncrId, u16, &str)] = &[
    (EncrId::ENCR_3DES, 0, "3DES [RFC2451]"),
    (EncrId::ENCR_NULL, 0, "NULL [RFC2410]"),
    (EncrId::ENCR_AES_CBC, 128, "AES-CBC-128 [RFC3602]"),
    (EncrId::ENCR_AES_CBC, 192, "AES-CBC-192 [RFC3602]"),
    (EncrId::ENCR_AES_CBC, 256, "AES-CBC-256 [RFC3602]"),
    (EncrId::ENCR_AES_CTR, 128, "AES-CTR-128 [RFC5930]"),
    (EncrId::ENCR_AES_CTR, 192, "AES-CTR-192 [RFC5930]"),
    (EncrId::ENCR_AES_CTR, 256, "AES-CTR-256 [RFC5930]"),
    (EncrId::ENCR_AES_GCM_16, 128, "AES-GCM-128 with 16 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_GCM_16, 192, "AES-GCM-192 with 16 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_GCM_16, 256, "AES-GCM-256 with 16 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_GCM_8, 128, "AES-GCM-128 with 8 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_GCM_8, 192, "AES-GCM-192 with 8 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_GCM_8, 256, "AES-GCM-256 with 8 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_GCM_12, 128, "AES-GCM-128 with 12 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_GCM_12, 192, "AES-GCM-192 with 12 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_GCM_12, 256, "AES-GCM-256 with 12 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_16, 128, "AES-CCM-128 with 16 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_16, 192, "AES-CCM-192 with 16 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_16, 256, "AES-CCM-256 with 16 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_8, 128, "AES-CCM-128 with 8 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_8, 192, "AES-CCM-192 with 8 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_8, 256, "AES-CCM-256 with 8 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_12, 128, "AES-CCM-128 with 12 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_12, 192, "AES-CCM-192 with 12 octet ICV [RFC5282]"),
    (EncrId::ENCR_AES_CCM_12, 256, "AES-CCM-256 with 12 octet ICV [RFC5282]"),
];

/// Wireshark's names of integrity algorithms.
const INTEG: &[(IntegId, &str)] = &[
    (IntegId::NONE, "NONE [RFC4306]"),
    (IntegId::AUTH_HMAC_MD5_96, "HMAC_MD5_96 [RFC2403]"),
    (AUTH_HMAC_MD5_128, "HMAC_MD5_128 [RFC4595]"),
    (IntegId::AUTH_HMAC_SHA1_96, "HMAC_SHA1_96 [RFC2404]"),
    (AUTH_HMAC_SHA1_160, "HMAC_SHA1_160 [RFC4595]"),
    (IntegId::AUTH_HMAC_SHA2_256_96, "HMAC_SHA2_256_96 [draft-ietf-ipsec-ciph-sha-256-00]"),
    (IntegId::AUTH_HMAC_SHA2_256_128, "HMAC_SHA2_256_128 [RFC4868]"),
    (IntegId::AUTH_HMAC_SHA2_384_192, "HMAC_SHA2_384_192 [RFC4868]"),
    (IntegId::AUTH_HMAC_SHA2_512_256, "HMAC_SHA2_512_256 [RFC4868]"),
];

/// Whether it looks like a row of this table: it begins with an SPI.
pub(super) fn is_row(row: &str) -> bool {
    row.split_once(',').is_some_and(|(first, _)| {
        let first = first.trim();
        first.len() == 16 && first.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Reads a row: the keys of both ends. The error says at which character of it.
pub(super) fn read(origin: &str, row: &str) -> Result<[IkeKey; 2], (usize, String)> {
    let fields = uat::fields(row)?;
    if fields.len() != 8 {
        return Err((row.len(), format!("{} fields; an IKE SA has 8", fields.len())));
    }
    let text = |field: usize| fields[field].text.trim();
    let bytes = |field: usize| unhex(text(field)).map_err(|(at, why)| (fields[field].at + at, why));
    let spi = |field: usize| match <[u8; 8]>::try_from(bytes(field)?) {
        Ok(spi) => Ok(IkeSpi(u64::from_be_bytes(spi))),
        Err(_) => Err((fields[field].at, "an SPI of IKE has 16 hex digits".to_owned())),
    };
    let (spi_i, spi_r) = (spi(0)?, spi(1)?);
    let secret = |field: usize| bytes(field).map(Secret::new);
    let (sk_ei, sk_er, sk_ai, sk_ar) = (secret(2)?, secret(3)?, secret(5)?, secret(6)?);
    let suite = suite(text(4), sk_ei.len(), text(7))
        .map_err(|(field, message)| (fields[field].at, message))?;
    if sk_ei.len() != sk_er.len() || sk_ai.len() != sk_ar.len() {
        let field = if sk_ei.len() == sk_er.len() { 6 } else { 3 };
        return Err((fields[field].at, "not as long as the initiator's key".to_owned()));
    }
    let key = |initiator, sk_e, sk_a| IkeKey {
        origin: origin.to_owned(),
        spi_i,
        spi_r,
        initiator,
        suite: suite.clone(),
        sk_e,
        sk_a,
        unchecked: false,
    };
    Ok([key(true, sk_ei, sk_ai), key(false, sk_er, sk_ar)])
}

/// The outer error: in which field something is that is no algorithm. The inner one: an algorithm that is not ours.
fn suite(
    encryption: &str,
    key_len: usize,
    integrity: &str,
) -> Result<Result<IkeSuite, String>, (usize, String)> {
    let (encr_name, integ_name) = (bare_name(encryption), bare_name(integrity));
    let wireshark = ENCR.iter().find(|(.., name)| bare_name(name) == encr_name);
    let encr = match wireshark {
        Some(&(id, bits, _)) => {
            let encr = encr_of(id, key_len).map_err(|message| (2, message))?;
            if encr.key_bits.unwrap_or(0) != bits {
                return Err((2, format!("a key of {key_len} bytes does not go with {encryption}")));
            }
            encr
        }
        None => {
            let iana =
                EncrId::KNOWN.iter().find(|id| id.to_string().to_ascii_lowercase() == encr_name);
            let Some(&id) = iana else {
                return Err((4, format!("{encryption:?} is no encryption algorithm")));
            };
            encr_of(id, key_len).map_err(|message| (2, message))?
        }
    };
    let known = INTEG.iter().find(|(_, name)| bare_name(name) == integ_name).map(|&(id, _)| id);
    let iana =
        || IntegId::KNOWN.iter().find(|id| id.to_string().to_ascii_lowercase() == integ_name);
    let Some(integ) = known.or_else(|| iana().copied()) else {
        return Err((7, format!("{integrity:?} is no integrity algorithm")));
    };
    Ok(Ok(of_ids(encr, integ)))
}

/// A suite of which only what protects messages is known.
pub(super) const fn of_ids(encr: Encr, integ: IntegId) -> IkeSuite {
    IkeSuite { encr, integ, prf: PrfId(0), ke: KeId::NONE, addke: AddKe::NONE }
}

/// The keys of an IKE SA, in the order of a row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Encryption.
    pub encr: Encr,
    /// Integrity.
    pub integ: IntegId,
    /// SK_ei.
    pub sk_ei: &'a Secret,
    /// SK_er.
    pub sk_er: &'a Secret,
    /// SK_ai.
    pub sk_ai: &'a Secret,
    /// SK_ar.
    pub sk_ar: &'a Secret,
}

/// The row of an IKE SA.
#[must_use]
pub fn write(sa: &Row<'_>) -> String {
    let known = |(id, bits, _): &&(EncrId, u16, &str)| {
        *id == sa.encr.id && *bits == sa.encr.key_bits.unwrap_or(0)
    };
    let encr = ENCR.iter().find(known).map(|(.., name)| (*name).to_owned());
    let integ = INTEG.iter().find(|(id, _)| *id == sa.integ).map(|(_, name)| (*name).to_owned());
    let hidden = if encr.is_none() || integ.is_none() { HIDDEN } else { "" };
    let encr = uat::quote(&encr.unwrap_or_else(|| sa.encr.id.to_string()));
    let integ = uat::quote(&integ.unwrap_or_else(|| sa.integ.to_string()));
    let [ei, er, ai, ar] = [sa.sk_ei, sa.sk_er, sa.sk_ai, sa.sk_ar].map(|key| hex(key.expose()));
    format!("{hidden}{},{},{ei},{er},{encr},{ai},{ar},{integ}", sa.spi_i, sa.spi_r)
}
