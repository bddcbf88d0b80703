//! The keywords, and those of strongSwan that we do not have.

use super::super::keys::nearest;
use super::super::value::Wrong;
use crate::ipsec::suite::{ADDKES, Encr};
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PrfId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transform {
    Encr(Encr),
    Esn(EsnId),
    /// With the PRF that it stands for in IKE, if that is one that we have.
    Integ(IntegId, Option<PrfId>),
    Ke(KeId),
    Prf(PrfId),
}

/// A keyword as it stands in a proposal.
#[derive(Clone, Copy)]
pub(super) enum Word {
    /// `ke1_mlkem768`: the index of the additional key exchange, which counts from 0, and its method or [`KeId::NONE`].
    AddKe(usize, KeId),
    Plain(Transform),
}

impl Word {
    pub(super) fn of(word: &str) -> Option<Self> {
        let plain = |word: &str| {
            let known = KEYWORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
            known.map(|(_, transform)| *transform)
        };
        if let Some(transform) = plain(word) {
            return Some(Self::Plain(transform));
        }
        let (number, method) = word.split_once('_')?;
        let number: usize = number.to_ascii_lowercase().strip_prefix("ke")?.parse().ok()?;
        let index = number.checked_sub(1).filter(|index| *index < ADDKES)?;
        if method.eq_ignore_ascii_case("none") {
            return Some(Self::AddKe(index, KeId::NONE));
        }
        match plain(method)? {
            Transform::Ke(method) => Some(Self::AddKe(index, method)),
            Transform::Encr(_) | Transform::Esn(_) | Transform::Integ(..) | Transform::Prf(_) => {
                None
            }
        }
    }
}

const fn aes(id: EncrId, bits: u16) -> Transform {
    Transform::Encr(Encr { id, key_bits: Some(bits) })
}

const fn fixed(id: EncrId) -> Transform {
    Transform::Encr(Encr { id, key_bits: None })
}

const SHA256: Transform =
    Transform::Integ(IntegId::AUTH_HMAC_SHA2_256_128, Some(PrfId::PRF_HMAC_SHA2_256));
const SHA256_96: Transform =
    Transform::Integ(IntegId::AUTH_HMAC_SHA2_256_96, Some(PrfId::PRF_HMAC_SHA2_256));
const SHA384: Transform =
    Transform::Integ(IntegId::AUTH_HMAC_SHA2_384_192, Some(PrfId::PRF_HMAC_SHA2_384));
const SHA512: Transform =
    Transform::Integ(IntegId::AUTH_HMAC_SHA2_512_256, Some(PrfId::PRF_HMAC_SHA2_512));
const SHA1: Transform = Transform::Integ(IntegId::AUTH_HMAC_SHA1_96, None);

/// Keywords; the first of those that mean the same is the one we write.
pub(super) const KEYWORDS: &[(&str, Transform)] = &[
    ("aes128gcm16", aes(EncrId::ENCR_AES_GCM_16, 128)),
    ("aes128gcm128", aes(EncrId::ENCR_AES_GCM_16, 128)),
    ("aes192gcm16", aes(EncrId::ENCR_AES_GCM_16, 192)),
    ("aes192gcm128", aes(EncrId::ENCR_AES_GCM_16, 192)),
    ("aes256gcm16", aes(EncrId::ENCR_AES_GCM_16, 256)),
    ("aes256gcm128", aes(EncrId::ENCR_AES_GCM_16, 256)),
    ("aes128gcm12", aes(EncrId::ENCR_AES_GCM_12, 128)),
    ("aes128gcm96", aes(EncrId::ENCR_AES_GCM_12, 128)),
    ("aes192gcm12", aes(EncrId::ENCR_AES_GCM_12, 192)),
    ("aes192gcm96", aes(EncrId::ENCR_AES_GCM_12, 192)),
    ("aes256gcm12", aes(EncrId::ENCR_AES_GCM_12, 256)),
    ("aes256gcm96", aes(EncrId::ENCR_AES_GCM_12, 256)),
    ("aes128gcm8", aes(EncrId::ENCR_AES_GCM_8, 128)),
    ("aes128gcm64", aes(EncrId::ENCR_AES_GCM_8, 128)),
    ("aes192gcm8", aes(EncrId::ENCR_AES_GCM_8, 192)),
    ("aes192gcm64", aes(EncrId::ENCR_AES_GCM_8, 192)),
    ("aes256gcm8", aes(EncrId::ENCR_AES_GCM_8, 256)),
    ("aes256gcm64", aes(EncrId::ENCR_AES_GCM_8, 256)),
    ("aes128ccm16", aes(EncrId::ENCR_AES_CCM_16, 128)),
    ("aes128ccm128", aes(EncrId::ENCR_AES_CCM_16, 128)),
    ("aes192ccm16", aes(EncrId::ENCR_AES_CCM_16, 192)),
    ("aes192ccm128", aes(EncrId::ENCR_AES_CCM_16, 192)),
    ("aes256ccm16", aes(EncrId::ENCR_AES_CCM_16, 256)),
    ("aes256ccm128", aes(EncrId::ENCR_AES_CCM_16, 256)),
    ("aes128ccm12", aes(EncrId::ENCR_AES_CCM_12, 128)),
    ("aes128ccm96", aes(EncrId::ENCR_AES_CCM_12, 128)),
    ("aes192ccm12", aes(EncrId::ENCR_AES_CCM_12, 192)),
    ("aes192ccm96", aes(EncrId::ENCR_AES_CCM_12, 192)),
    ("aes256ccm12", aes(EncrId::ENCR_AES_CCM_12, 256)),
    ("aes256ccm96", aes(EncrId::ENCR_AES_CCM_12, 256)),
    ("aes128ccm8", aes(EncrId::ENCR_AES_CCM_8, 128)),
    ("aes128ccm64", aes(EncrId::ENCR_AES_CCM_8, 128)),
    ("aes192ccm8", aes(EncrId::ENCR_AES_CCM_8, 192)),
    ("aes192ccm64", aes(EncrId::ENCR_AES_CCM_8, 192)),
    ("aes256ccm8", aes(EncrId::ENCR_AES_CCM_8, 256)),
    ("aes256ccm64", aes(EncrId::ENCR_AES_CCM_8, 256)),
    ("chacha20poly1305", fixed(EncrId::ENCR_CHACHA20_POLY1305)),
    // strongSwan has no implicit IVs; the names are ours.
    ("aes128gcm16iiv", aes(EncrId::ENCR_AES_GCM_16_IIV, 128)),
    ("aes192gcm16iiv", aes(EncrId::ENCR_AES_GCM_16_IIV, 192)),
    ("aes256gcm16iiv", aes(EncrId::ENCR_AES_GCM_16_IIV, 256)),
    ("aes128ccm8iiv", aes(EncrId::ENCR_AES_CCM_8_IIV, 128)),
    ("aes192ccm8iiv", aes(EncrId::ENCR_AES_CCM_8_IIV, 192)),
    ("aes256ccm8iiv", aes(EncrId::ENCR_AES_CCM_8_IIV, 256)),
    ("chacha20poly1305iiv", fixed(EncrId::ENCR_CHACHA20_POLY1305_IIV)),
    ("aes128gmac", aes(EncrId::ENCR_NULL_AUTH_AES_GMAC, 128)),
    ("aes192gmac", aes(EncrId::ENCR_NULL_AUTH_AES_GMAC, 192)),
    ("aes256gmac", aes(EncrId::ENCR_NULL_AUTH_AES_GMAC, 256)),
    ("aes128", aes(EncrId::ENCR_AES_CBC, 128)),
    ("aes", aes(EncrId::ENCR_AES_CBC, 128)),
    ("aes192", aes(EncrId::ENCR_AES_CBC, 192)),
    ("aes256", aes(EncrId::ENCR_AES_CBC, 256)),
    ("aes128ctr", aes(EncrId::ENCR_AES_CTR, 128)),
    ("aes192ctr", aes(EncrId::ENCR_AES_CTR, 192)),
    ("aes256ctr", aes(EncrId::ENCR_AES_CTR, 256)),
    ("null", fixed(EncrId::ENCR_NULL)),
    ("sha256", SHA256),
    ("sha2_256", SHA256),
    ("sha384", SHA384),
    ("sha2_384", SHA384),
    ("sha512", SHA512),
    ("sha2_512", SHA512),
    ("sha256_96", SHA256_96),
    ("sha2_256_96", SHA256_96),
    ("sha1", SHA1),
    ("sha", SHA1),
    ("aesxcbc", Transform::Integ(IntegId::AUTH_AES_XCBC_96, None)),
    ("aescmac", Transform::Integ(IntegId::AUTH_AES_CMAC_96, None)),
    ("prfsha256", Transform::Prf(PrfId::PRF_HMAC_SHA2_256)),
    ("prfsha384", Transform::Prf(PrfId::PRF_HMAC_SHA2_384)),
    ("prfsha512", Transform::Prf(PrfId::PRF_HMAC_SHA2_512)),
    ("x25519", Transform::Ke(KeId::CURVE25519)),
    ("curve25519", Transform::Ke(KeId::CURVE25519)),
    ("ecp256", Transform::Ke(KeId::ECP_256)),
    ("ecp384", Transform::Ke(KeId::ECP_384)),
    ("ecp521", Transform::Ke(KeId::ECP_521)),
    ("mlkem512", Transform::Ke(KeId::ML_KEM_512)),
    ("mlkem768", Transform::Ke(KeId::ML_KEM_768)),
    ("mlkem1024", Transform::Ke(KeId::ML_KEM_1024)),
    ("modp2048", Transform::Ke(KeId::MODP_2048)),
    ("modp3072", Transform::Ke(KeId::MODP_3072)),
    ("modp4096", Transform::Ke(KeId::MODP_4096)),
    ("modp6144", Transform::Ke(KeId::MODP_6144)),
    ("modp8192", Transform::Ke(KeId::MODP_8192)),
    ("esn", Transform::Esn(EsnId::ESN)),
    ("noesn", Transform::Esn(EsnId::NO_ESN)),
];

/// What GMAC is called in AH and in ESP (RFC 4543 §9).
pub(super) const GMAC: &[(IntegId, Encr)] = &[
    (IntegId::AUTH_AES_128_GMAC, gmac(128)),
    (IntegId::AUTH_AES_192_GMAC, gmac(192)),
    (IntegId::AUTH_AES_256_GMAC, gmac(256)),
];

const fn gmac(bits: u16) -> Encr {
    Encr { id: EncrId::ENCR_NULL_AUTH_AES_GMAC, key_bits: Some(bits) }
}

/// What is refused unless the section says `allow-legacy = true`: why, and what to take instead.
pub(super) const LEGACY: &[(IntegId, &str, &str)] = &[
    // RFC 8221 §6, RFC 8247 §2.3: MUST-, on its way out.
    (IntegId::AUTH_HMAC_SHA1_96, "SHA-1 is on its way out (RFC 8221 §6)", "sha256"),
    // RFC 8221 §6: "a long standing common implementation bug".
    (
        IntegId::AUTH_HMAC_SHA2_256_96,
        "it is SHA-256 cut to 96 bits, which no standard has (RFC 8221 §6)",
        "sha256",
    ),
];

/// strongSwan keywords that we know and do not have, with what to take instead.
pub(super) const FOREIGN: &[(&str, &str)] = &[
    ("3des", "aes256"),
    ("camellia128", "aes128"),
    ("camellia192", "aes192"),
    ("camellia256", "aes256"),
    ("curve448", "x25519"),
    ("md5", "sha256"),
    ("modp1024", "modp2048"),
    ("modp1536", "modp2048"),
    ("prfaescmac", "prfsha256"),
    ("prfaesxcbc", "prfsha256"),
    ("prfmd5", "prfsha256"),
    ("prfsha1", "prfsha256"),
    ("x448", "x25519"),
];

/// What is wrong with a word that is none of them.
pub(super) fn unknown(word: &str) -> Wrong {
    let shown = word.escape_debug();
    let lower = word.trim().to_ascii_lowercase();
    if lower.is_empty() {
        return Wrong::new(
            "a keyword is missing",
            "keywords with one - between: \"aes256gcm16-prfsha384-x25519\"",
        );
    }
    if let Some((_, instead)) = FOREIGN.iter().find(|(name, _)| *name == lower) {
        return Wrong::new(
            format!("`{shown}` is not supported"),
            format!("nearest that is: `{instead}`"),
        );
    }
    let message = format!("unknown keyword `{shown}`");
    if let Some(first) = lower.split([',', '!', ' ', '+', ';']).next()
        && first != lower
        && KEYWORDS.iter().any(|(name, _)| *name == first)
    {
        return Wrong::new(
            message,
            "keywords with - between; further proposals are strings of their own: [\"…\", \"…\"]",
        );
    }
    match nearest(&lower, KEYWORDS.iter().map(|(name, _)| *name)) {
        Some(right) => Wrong::new(message, format!("did you mean `{right}`?")),
        None => Wrong::new(
            message,
            "known are, among others: aes128, aes192, aes256, aes128gcm16, aes256gcm16, chacha20poly1305, sha256, sha384, \
             sha512, prfsha256, prfsha384, prfsha512, x25519, ecp256, ecp384, modp2048, modp3072, modp4096, ke1_mlkem768, esn, noesn",
        ),
    }
}
