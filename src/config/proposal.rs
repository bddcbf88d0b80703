//! Proposals in strongSwan's keywords: `aes256gcm16-prfsha384-x25519`.
//!
//! Keywords of one kind may stand several times in one proposal: each is acceptable, the first preferred. As with
//! strongSwan, an IKE proposal that names no PRF takes those of its integrity keywords.

use core::fmt::Display;

use super::keys::nearest;
use super::value::Wrong;
use crate::ipsec::suite::{ADDKES, AhSuite, ChildProposal, Encr, EspSuite, IkeProposal, Protocol};
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PrfId};

/// The IKE proposals unless the configuration says otherwise: the strongest first, which no quantum computer is known to break, and
/// then, for peers without additional key exchanges, all that strongSwan's own default has in common with us.
pub const DEFAULT_IKE: &[&str] = &[
    "aes256gcm16-aes128gcm16-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256-ke1_mlkem768",
    "aes256gcm16-aes128gcm16-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256-modp4096-modp3072-modp2048",
    "aes256-aes192-aes128-sha384-sha512-sha256-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256-modp4096-modp3072-modp2048",
];

/// The ESP proposals unless the configuration says otherwise.
pub const DEFAULT_ESP: &[&str] = &["aes256gcm16", "aes128gcm16", "aes256-sha256"];

/// The AH proposals unless the configuration says otherwise.
pub const DEFAULT_AH: &[&str] = &["sha256-sha384-sha512"];

/// The most proposals of one list.
pub(super) const MAX_PROPOSALS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transform {
    Encr(Encr),
    Esn(EsnId),
    /// With the PRF that it stands for in IKE, if that is one that we have.
    Integ(IntegId, Option<PrfId>),
    Ke(KeId),
    Prf(PrfId),
}

/// A keyword as it stands in a proposal.
#[derive(Clone, Copy)]
enum Word {
    /// `ke1_mlkem768`: the index of the additional key exchange, which counts from 0, and its method or [`KeId::NONE`].
    AddKe(usize, KeId),
    Plain(Transform),
}

impl Word {
    fn of(word: &str) -> Option<Self> {
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
const KEYWORDS: &[(&str, Transform)] = &[
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
const GMAC: &[(IntegId, Encr)] = &[
    (IntegId::AUTH_AES_128_GMAC, gmac(128)),
    (IntegId::AUTH_AES_192_GMAC, gmac(192)),
    (IntegId::AUTH_AES_256_GMAC, gmac(256)),
];

const fn gmac(bits: u16) -> Encr {
    Encr { id: EncrId::ENCR_NULL_AUTH_AES_GMAC, key_bits: Some(bits) }
}

/// What is refused unless the section says `allow-legacy = true`: why, and what to take instead.
const LEGACY: &[(IntegId, &str, &str)] = &[
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
const FOREIGN: &[(&str, &str)] = &[
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

/// A finding within the text of a proposal, by byte offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The keyword at fault; the whole text if there is no single one.
    pub(super) at: core::ops::Range<usize>,
    pub(super) wrong: Wrong,
}

#[derive(Default)]
struct Parts {
    encr: Vec<Encr>,
    integ: Vec<IntegId>,
    /// PRFs that the integrity keywords would stand for.
    implied: Vec<PrfId>,
    prf: Vec<PrfId>,
    ke: Vec<KeId>,
    addke: [Vec<KeId>; ADDKES],
    /// Where the first keyword of an additional key exchange stands.
    first_addke: Option<(usize, usize)>,
    esn: Vec<EsnId>,
    /// Where the first keyword of a kind stands.
    first_integ: Option<(usize, usize)>,
}

/// Where a proposal stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Esp,
    Ike,
    Manual,
}

/// Reads one IKE proposal, in which `legacy` algorithms are allowed or not.
///
/// # Errors
/// Every fault in it.
pub(super) fn ike(text: &str, legacy: bool) -> Result<IkeProposal, Vec<Fault>> {
    let (parts, mut faults) = parts(text, Section::Ike, legacy);
    let whole = || 0..text.len();
    let aead = check_encr(text, &parts, &mut faults);
    if faults.is_empty() {
        if aead && !parts.integ.is_empty() && !parts.prf.is_empty() {
            faults.push(superfluous_integ(text, &parts));
        }
        if parts.prf.is_empty() && parts.implied.is_empty() {
            let (missing, add) = if aead {
                ("a PRF", "prfsha384")
            } else if parts.integ.is_empty() {
                ("integrity", "sha256")
            } else {
                ("a PRF", "prfsha256")
            };
            faults.push(missing_part(text, whole(), missing, add));
        } else if !aead && parts.integ.is_empty() {
            faults.push(missing_part(text, whole(), "integrity", "sha256"));
        }
        if parts.ke.is_empty() {
            faults.push(missing_part(text, whole(), "a key exchange group", "x25519"));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let prf = if parts.prf.is_empty() { parts.implied } else { parts.prf };
    let integ = if aead { Vec::new() } else { parts.integ };
    Ok(IkeProposal { encr: parts.encr, integ, prf, ke: parts.ke, addke: parts.addke })
}

/// Reads one ESP proposal, in which `legacy` algorithms are allowed or not.
///
/// # Errors
/// Every fault in it.
pub(super) fn esp(text: &str, legacy: bool) -> Result<ChildProposal, Vec<Fault>> {
    esp_of(text, Section::Esp, legacy)
}

fn esp_of(text: &str, section: Section, legacy: bool) -> Result<ChildProposal, Vec<Fault>> {
    let (parts, mut faults) = parts(text, section, legacy);
    let aead = check_encr(text, &parts, &mut faults);
    if faults.is_empty() {
        if aead && !parts.integ.is_empty() {
            faults.push(superfluous_integ(text, &parts));
        }
        // RFC 8221 §6: encryption without integrity is not to be had, nor is ESP without either.
        if !aead && parts.integ.is_empty() {
            faults.push(missing_part(text, 0..text.len(), "integrity", "sha256"));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let Parts { encr, integ, ke, addke, .. } = parts;
    let esn = if parts.esn.is_empty() { vec![EsnId::NO_ESN] } else { parts.esn };
    Ok(ChildProposal { protocol: Protocol::Esp, encr, integ, ke, addke, esn })
}

/// Reads one AH proposal, in which `legacy` algorithms are allowed or not.
///
/// # Errors
/// Every fault in it.
pub(super) fn ah(text: &str, legacy: bool) -> Result<ChildProposal, Vec<Fault>> {
    ah_of(text, Section::Esp, legacy)
}

fn ah_of(text: &str, section: Section, legacy: bool) -> Result<ChildProposal, Vec<Fault>> {
    let (mut parts, faults) = parts(text, section, legacy);
    if !faults.is_empty() {
        return Err(faults);
    }
    // RFC 4543 §5.3: GMAC has numbers of its own in AH, where it is an integrity algorithm.
    for encr in core::mem::take(&mut parts.encr) {
        match GMAC.iter().find(|(_, as_encr)| *as_encr == encr) {
            Some((integ, _)) => push(&mut parts.integ, *integ),
            None => parts.encr.push(encr),
        }
    }
    if !parts.encr.is_empty() {
        let wrong = Wrong::new("AH encrypts nothing", "integrity alone, such as \"sha256\"");
        return Err(vec![Fault { at: 0..text.len(), wrong }]);
    }
    if parts.integ.is_empty() {
        return Err(vec![missing_part_before(text, "integrity", "sha256")]);
    }
    let esn = if parts.esn.is_empty() { vec![EsnId::NO_ESN] } else { parts.esn };
    let Parts { encr, integ, ke, addke, .. } = parts;
    Ok(ChildProposal { protocol: Protocol::Ah, encr, integ, ke, addke, esn })
}

/// Reads the one ESP suite of an SA with manual keys, in which `legacy` algorithms are allowed or not.
///
/// # Errors
/// Every fault in it.
pub(super) fn esp_suite(text: &str, legacy: bool) -> Result<EspSuite, Vec<Fault>> {
    let proposal = esp_of(text, Section::Manual, legacy)?;
    if let Some(fault) = ke_fault(text, &proposal.ke) {
        return Err(vec![fault]);
    }
    let ChildProposal { encr, integ, esn, .. } = proposal;
    match (encr.as_slice(), integ.as_slice(), esn.as_slice()) {
        ([encr], [], [esn]) => Ok(EspSuite { encr: *encr, integ: IntegId::NONE, esn: *esn }),
        ([encr], [integ], [esn]) => Ok(EspSuite { encr: *encr, integ: *integ, esn: *esn }),
        _ => Err(vec![ambiguous(text)]),
    }
}

/// Reads the one AH suite of an SA with manual keys, in which `legacy` algorithms are allowed or not.
///
/// # Errors
/// Every fault in it.
pub(super) fn ah_suite(text: &str, legacy: bool) -> Result<AhSuite, Vec<Fault>> {
    let proposal = ah_of(text, Section::Manual, legacy)?;
    if let Some(fault) = ke_fault(text, &proposal.ke) {
        return Err(vec![fault]);
    }
    match (proposal.integ.as_slice(), proposal.esn.as_slice()) {
        ([integ], [esn]) => Ok(AhSuite { integ: *integ, esn: *esn }),
        _ => Err(vec![ambiguous(text)]),
    }
}

fn ke_fault(text: &str, ke: &[KeId]) -> Option<Fault> {
    let first = ke.first()?;
    let word = KEYWORDS.iter().find(|(_, known)| *known == Transform::Ke(*first))?.0;
    let wrong =
        Wrong::new("manual keys have no key exchange", format!("leave the group out (`{word}`)"));
    Some(Fault { at: 0..text.len(), wrong })
}

fn ambiguous(text: &str) -> Fault {
    let wrong = Wrong::new(
        "manual keys are for one algorithm of each kind, and nobody negotiates which",
        "keep one keyword of each kind: the one that the peer has",
    );
    Fault { at: 0..text.len(), wrong }
}

fn parts(text: &str, section: Section, legacy: bool) -> (Parts, Vec<Fault>) {
    let ike = section == Section::Ike;
    let mut parts = Parts::default();
    let mut faults = Vec::new();
    let mut start = 0;
    for word in text.split('-') {
        let at = start..start + word.len();
        start = at.end + 1;
        let transform = match Word::of(word) {
            Some(Word::Plain(transform)) => transform,
            Some(Word::AddKe(index, method)) => {
                parts.first_addke.get_or_insert((at.start, at.end));
                if let Some(methods) = parts.addke.get_mut(index) {
                    push(methods, method);
                }
                continue;
            }
            None => {
                faults.push(Fault { at, wrong: unknown(word) });
                continue;
            }
        };
        match transform {
            Transform::Encr(encr) if ike && !is_of_ike(encr.id) => {
                let wrong = Wrong::new(
                    format!("`{word}` is for ESP only"),
                    "IKE encrypts with gcm, ccm, chacha20poly1305 or CBC: \"aes256gcm16-prfsha384-x25519\"",
                );
                faults.push(Fault { at, wrong });
            }
            Transform::Encr(encr) => push(&mut parts.encr, encr),
            Transform::Integ(integ, prf) => {
                if let Some(wrong) = refuse_legacy(word, integ, section).filter(|_| !legacy) {
                    faults.push(Fault { at, wrong });
                    continue;
                }
                parts.first_integ.get_or_insert((at.start, at.end));
                push(&mut parts.integ, integ);
                if let Some(prf) = prf {
                    push(&mut parts.implied, prf);
                }
            }
            Transform::Prf(prf) if ike => push(&mut parts.prf, prf),
            Transform::Prf(_) => {
                let wrong = Wrong::new(
                    format!("`{word}` is a PRF, which ESP has not"),
                    format!("PRFs belong in [ike] proposals: leave out `-{word}`"),
                );
                faults.push(Fault { at, wrong });
            }
            Transform::Ke(ke) => push(&mut parts.ke, ke),
            Transform::Esn(esn) if !ike => push(&mut parts.esn, esn),
            Transform::Esn(_) => {
                let wrong = Wrong::new(
                    format!("`{word}` is about ESP's sequence numbers, which IKE has not"),
                    format!("it belongs in [esp] proposals: leave out `-{word}`"),
                );
                faults.push(Fault { at, wrong });
            }
        }
    }
    if faults.is_empty() {
        faults.extend(addke_fault(text, section, &parts));
    }
    (parts, faults)
}

/// RFC 9370 §2.2.1: additional key exchanges come after a first, and none is made twice.
fn addke_fault(text: &str, section: Section, parts: &Parts) -> Option<Fault> {
    let (start, end) = parts.first_addke?;
    let word = text.get(start..end).unwrap_or_default();
    let fault = |message: String, help: String| {
        Some(Fault { at: start..end, wrong: Wrong::new(message, help) })
    };
    if section == Section::Manual {
        return fault("manual keys have no key exchange".to_owned(), format!("leave `{word}` out"));
    }
    if parts.ke.iter().all(|method| *method == KeId::NONE) {
        return fault(
            format!("`{word}` is an additional key exchange, and there is no first"),
            format!("add one before it, for example \"x25519-{word}\""),
        );
    }
    let only = |methods: &[KeId]| match methods {
        [method] if *method != KeId::NONE => Some(*method),
        _ => None,
    };
    let mut seen = Vec::new();
    for method in core::iter::once(&parts.ke).chain(&parts.addke).filter_map(|list| only(list)) {
        if seen.contains(&method) {
            let name = join(core::iter::once(Transform::Ke(method)));
            return fault(
                format!("the key exchange `{name}` would be made twice"),
                "take another method for each: \"x25519-ke1_mlkem768\"".to_owned(),
            );
        }
        seen.push(method);
    }
    None
}

/// RFC 5282, RFC 7634 and RFC 3602. GMAC and NULL encrypt nothing (RFC 4543 §5.1, RFC 8247 §2.1), an IKE message has no
/// sequence number to be its IV (RFC 8750 §7), and CTR (RFC 5930) is not there.
const fn is_of_ike(id: EncrId) -> bool {
    !matches!(
        id,
        EncrId::ENCR_AES_CCM_8_IIV
            | EncrId::ENCR_AES_CTR
            | EncrId::ENCR_AES_GCM_16_IIV
            | EncrId::ENCR_CHACHA20_POLY1305_IIV
            | EncrId::ENCR_NULL
            | EncrId::ENCR_NULL_AUTH_AES_GMAC
    )
}

fn refuse_legacy(word: &str, integ: IntegId, section: Section) -> Option<Wrong> {
    let (_, why, instead) = LEGACY.iter().find(|(id, ..)| *id == integ)?;
    let section = match section {
        Section::Esp => "[esp]",
        Section::Ike => "[ike]",
        Section::Manual => "[[manual]]",
    };
    Some(Wrong::new(
        format!("`{word}` is not safe enough: {why}"),
        format!(
            "take `{instead}`, or, for a peer that has nothing better, say `allow-legacy = true` in {section}"
        ),
    ))
}

/// Whether it is a proposal of AEADs.
fn check_encr(text: &str, parts: &Parts, faults: &mut Vec<Fault>) -> bool {
    let is_aead = |encr: &Encr| encr.id.is_aead();
    let aead = parts.encr.iter().any(is_aead);
    if !faults.is_empty() {
        return aead;
    }
    if parts.encr.is_empty() {
        faults.push(missing_part_before(text, "encryption", "aes256gcm16"));
    } else if aead && !parts.encr.iter().all(is_aead) {
        // RFC 7296 §3.3: a proposal with an AEAD has no integrity transform, one without must have it.
        let of = |want: bool| -> String {
            let words = text.split('-').filter(|word| {
                Word::of(word).is_some_and(|word| match word {
                    Word::Plain(Transform::Encr(encr)) => is_aead(&encr) == want,
                    Word::Plain(Transform::Integ(..)) => !want,
                    Word::Plain(Transform::Esn(_) | Transform::Ke(_) | Transform::Prf(_))
                    | Word::AddKe(..) => true,
                })
            });
            words.collect::<Vec<_>>().join("-")
        };
        let integ = if parts.integ.is_empty() { "-sha256" } else { "" };
        faults.push(Fault {
            at: 0..text.len(),
            wrong: Wrong::new(
                "AEADs (gcm, ccm, gmac, chacha20poly1305) do not mix with other encryption in one proposal",
                format!("make two: \"{}\", \"{}{integ}\"", of(true), of(false)),
            ),
        });
    }
    aead
}

fn superfluous_integ(text: &str, parts: &Parts) -> Fault {
    let (start, end) = parts.first_integ.unwrap_or((0, text.len()));
    let word = text.get(start..end).unwrap_or_default();
    Fault {
        at: start..end,
        wrong: Wrong::new(
            format!("`{word}` beside an AEAD"),
            format!("an AEAD protects integrity by itself: leave out `-{word}`"),
        ),
    }
}

fn missing_part(text: &str, at: core::ops::Range<usize>, missing: &str, add: &str) -> Fault {
    let wrong = Wrong::new(
        format!("the proposal names no {}", missing.trim_start_matches("a ")),
        format!("add {missing}, for example \"{text}-{add}\""),
    );
    Fault { at, wrong }
}

fn missing_part_before(text: &str, missing: &str, add: &str) -> Fault {
    let rest = if text.is_empty() { String::new() } else { format!("-{text}") };
    let wrong = Wrong::new(
        format!("the proposal names no {missing}"),
        format!("begin with {missing}, for example \"{add}{rest}\""),
    );
    Fault { at: 0..text.len(), wrong }
}

fn unknown(word: &str) -> Wrong {
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

/// Twice the same is once.
fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// The proposal in keywords, as `proposals` takes it.
#[must_use]
pub fn render_ike(proposal: &IkeProposal) -> String {
    let encr = proposal.encr.iter().map(|encr| Transform::Encr(*encr));
    let prf = proposal.prf.iter().map(|prf| Transform::Prf(*prf));
    let ke = proposal.ke.iter().map(|ke| Transform::Ke(*ke));
    join(encr.chain(integ(&proposal.integ)).chain(prf).chain(ke)) + &render_addke(&proposal.addke)
}

/// The proposal in keywords, as `proposals` takes it.
#[must_use]
pub fn render_child(proposal: &ChildProposal) -> String {
    let encr = proposal.encr.iter().map(|encr| Transform::Encr(*encr));
    let ke = proposal.ke.iter().map(|ke| Transform::Ke(*ke));
    let esn = proposal.esn.iter().filter(|_| proposal.esn != [EsnId::NO_ESN]);
    let esn = join(esn.map(|esn| Transform::Esn(*esn)));
    let esn = if esn.is_empty() { esn } else { format!("-{esn}") };
    join(encr.chain(integ(&proposal.integ)).chain(ke)) + &render_addke(&proposal.addke) + &esn
}

/// `-ke1_mlkem768-ke1_none`; nothing for none.
fn render_addke(addke: &[Vec<KeId>; ADDKES]) -> String {
    let mut out = String::new();
    for (number, methods) in (1..).zip(addke) {
        for method in methods {
            let name = match *method {
                KeId::NONE => "none".to_owned(),
                method => join(core::iter::once(Transform::Ke(method))),
            };
            out += &format!("-ke{number}_{name}");
        }
    }
    out
}

fn integ(list: &[IntegId]) -> impl Iterator<Item = Transform> {
    list.iter().filter_map(|id| {
        if let Some((_, as_encr)) = GMAC.iter().find(|(gmac, _)| gmac == id) {
            return Some(Transform::Encr(*as_encr));
        }
        KEYWORDS
            .iter()
            .map(|(_, transform)| *transform)
            .find(|transform| matches!(transform, Transform::Integ(i, _) if i == id))
    })
}

fn join(transforms: impl Iterator<Item = Transform>) -> String {
    let word = |transform: Transform| -> Box<dyn Display> {
        match KEYWORDS.iter().find(|(_, known)| *known == transform) {
            Some((name, _)) => Box::new(*name),
            None => Box::new(format!("{transform:?}")),
        }
    };
    transforms.map(|transform| word(transform).to_string()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::integ::Integ;

    fn help_of<T: core::fmt::Debug>(result: Result<T, Vec<Fault>>) -> String {
        let faults = result.unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        format!("{}; {}", faults[0].wrong.message, faults[0].wrong.help)
    }

    #[test]
    fn an_ike_proposal_lists_what_is_acceptable_in_order() {
        let proposal =
            ike("aes256gcm16-aes128gcm128-prfsha384-prfsha256-x25519-ecp384", false).unwrap();
        let gcm = |bits| Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(bits) };
        assert_eq!(
            proposal,
            IkeProposal {
                encr: vec![gcm(256), gcm(128)],
                integ: vec![],
                prf: vec![PrfId::PRF_HMAC_SHA2_384, PrfId::PRF_HMAC_SHA2_256],
                ke: vec![KeId::CURVE25519, KeId::ECP_384],
                addke: Default::default(),
            }
        );
    }

    #[test]
    fn without_a_prf_that_of_the_integrity_keyword_is_taken() {
        let cbc = ike("aes256-sha512-modp2048", false).unwrap();
        assert_eq!(cbc.prf, [PrfId::PRF_HMAC_SHA2_512]);
        assert_eq!(cbc.integ, [IntegId::AUTH_HMAC_SHA2_512_256]);
        let aead = ike("aes256gcm16-sha384-ecp384", false).unwrap();
        assert_eq!(aead.prf, [PrfId::PRF_HMAC_SHA2_384]);
        assert!(aead.integ.is_empty());
        let both = ike("aes128-sha256-prfsha512-x25519", false).unwrap();
        assert_eq!(both.prf, [PrfId::PRF_HMAC_SHA2_512]);
    }

    #[test]
    fn an_esp_proposal_may_have_a_group_and_esn() {
        let plain = esp("aes256gcm16", false).unwrap();
        assert!(plain.ke.is_empty());
        assert_eq!(plain.esn, [EsnId::NO_ESN]);
        let full = esp("aes256-sha256-ecp256-esn-noesn", false).unwrap();
        assert_eq!(full.ke, [KeId::ECP_256]);
        assert_eq!(full.esn, [EsnId::ESN, EsnId::NO_ESN]);
    }

    #[test]
    fn each_fault_is_told_with_what_would_be_right() {
        for (text, expected) in [
            (
                "aes265gcm16-prfsha384-x25519",
                "unknown keyword `aes265gcm16`; did you mean `aes256gcm16`?",
            ),
            (
                "aes256gcm16-prfsha1-x25519",
                "`prfsha1` is not supported; nearest that is: `prfsha256`",
            ),
            (
                "aes256gcm16-x25519",
                "the proposal names no PRF; add a PRF, for example \"aes256gcm16-x25519-prfsha384\"",
            ),
            (
                "aes256gcm16-prfsha384",
                "the proposal names no key exchange group; add a key exchange group, for example \"aes256gcm16-prfsha384-x25519\"",
            ),
            (
                "aes256-prfsha384-x25519",
                "the proposal names no integrity; add integrity, for example \"aes256-prfsha384-x25519-sha256\"",
            ),
            (
                "prfsha384-x25519",
                "the proposal names no encryption; begin with encryption, for example \"aes256gcm16-prfsha384-x25519\"",
            ),
            (
                "aes256gcm16-aes256-sha256-prfsha256-x25519",
                "AEADs (gcm, ccm, gmac, chacha20poly1305) do not mix with other encryption in one proposal; make two: \"aes256gcm16-prfsha256-x25519\", \"aes256-sha256-prfsha256-x25519\"",
            ),
            (
                "aes256gcm16-sha256-prfsha256-x25519",
                "`sha256` beside an AEAD; an AEAD protects integrity by itself: leave out `-sha256`",
            ),
            (
                "aes256gcm16-prfsha256-x25519-esn",
                "`esn` is about ESP's sequence numbers, which IKE has not; it belongs in [esp] proposals: leave out `-esn`",
            ),
        ] {
            assert_eq!(help_of(ike(text, false)), expected);
        }
        assert!(help_of(esp("aes256gcm16-sha256", false)).contains("beside an AEAD"));
        assert!(help_of(esp("aes256gcm16-prfsha256", false)).contains("belong in [ike]"));
        assert!(help_of(esp("aes256", false)).contains("\"aes256-sha256\""));
        assert!(help_of(esp("", false)).contains("a keyword is missing"));
        assert!(help_of(esp("aes256gcm16,aes128gcm16", false)).contains("strings of their own"));
    }

    #[test]
    fn all_faults_of_a_proposal_are_found_and_placed() {
        let faults = ike("aes256gmc16-prfsha348-x25519", false).unwrap_err();
        assert_eq!(faults.iter().map(|f| f.at.clone()).collect::<Vec<_>>(), [0..11, 12..21]);
    }

    #[test]
    fn defaults_and_every_keyword_render_as_they_are_read() {
        for text in DEFAULT_IKE {
            assert_eq!(render_ike(&ike(text, false).unwrap()), *text);
        }
        for text in DEFAULT_ESP {
            assert_eq!(render_child(&esp(text, false).unwrap()), *text);
        }
        assert_eq!(
            render_child(&esp("aes128-sha512-modp4096-esn", false).unwrap()),
            "aes128-sha512-modp4096-esn"
        );
    }

    #[test]
    fn every_keyword_renders_as_itself_or_its_first_name() {
        let mut written = 0;
        for (word, transform) in KEYWORDS {
            let (first, _) = KEYWORDS.iter().find(|(_, known)| known == transform).unwrap();
            let around = |word: &str| match transform {
                Transform::Encr(encr) if encr.id.is_aead() => Some(word.to_owned()),
                Transform::Encr(_) => Some(format!("{word}-sha256")),
                Transform::Integ(..) => Some(format!("aes256-{word}")),
                Transform::Ke(_) => Some(format!("aes256gcm16-{word}")),
                Transform::Esn(_) | Transform::Prf(_) => None,
            };
            let (Some(text), Some(first)) = (around(word), around(first)) else { continue };
            assert_eq!(render_child(&esp(&text, true).unwrap()), first);
            written += 1;
        }
        assert!(written > 60, "{written}");
    }

    #[test]
    fn what_the_parser_takes_the_datapath_has() {
        for (word, transform) in KEYWORDS {
            match *transform {
                Transform::Encr(encr) => assert!(encr.keymat_len().is_some(), "{word}"),
                Transform::Integ(id, _) => assert!(Integ::key_len(id).is_some(), "{word}"),
                Transform::Esn(_) | Transform::Ke(_) | Transform::Prf(_) => {}
            }
        }
    }

    #[test]
    fn legacy_algorithms_must_be_allowed() {
        for (word, section, result) in [
            ("sha1", "[esp]", esp("aes128-sha1", false).map(drop)),
            ("sha", "[esp]", esp("null-sha", false).map(drop)),
            ("sha256_96", "[esp]", esp("aes128ctr-sha256_96", false).map(drop)),
            ("sha1", "[[manual]]", esp_suite("aes128-sha1", false).map(drop)),
            ("sha1", "[[manual]]", ah_suite("sha1", false).map(drop)),
            ("sha1", "[ike]", ike("aes128-sha1-prfsha256-x25519", false).map(drop)),
        ] {
            let help = help_of(result);
            assert!(help.starts_with(&format!("`{word}` is not safe enough: ")), "{help}");
            assert!(help.contains("take `sha256`"), "{help}");
            assert!(help.ends_with(&format!("`allow-legacy = true` in {section}")), "{help}");
        }
        assert_eq!(esp("aes128-sha1", true).unwrap().integ, [IntegId::AUTH_HMAC_SHA1_96]);
        assert_eq!(esp_suite("aes128-sha1", true).unwrap().integ, IntegId::AUTH_HMAC_SHA1_96);
        assert_eq!(ah_suite("sha1", true).unwrap().integ, IntegId::AUTH_HMAC_SHA1_96);
        let ike = ike("aes128-sha1-prfsha256-x25519", true).unwrap();
        assert_eq!(ike.integ, [IntegId::AUTH_HMAC_SHA1_96]);
        // RFC 8221 §6: of XCBC and CMAC nothing bad is said.
        assert!(esp("aes128-aesxcbc", false).is_ok() && esp("aes128-aescmac", false).is_ok());
        // MUST NOT: there is nothing to allow.
        for text in ["3des-sha256", "aes128-md5"] {
            assert!(help_of(esp(text, true)).contains("is not supported"), "{text}");
        }
    }

    #[test]
    fn gmac_is_an_integrity_transform_where_it_stands_for_ah() {
        for (word, integ) in [
            ("aes128gmac", IntegId::AUTH_AES_128_GMAC),
            ("aes192gmac", IntegId::AUTH_AES_192_GMAC),
            ("aes256gmac-esn", IntegId::AUTH_AES_256_GMAC),
        ] {
            assert_eq!(ah_suite(word, false).unwrap().integ, integ);
        }
        let help = help_of(ah_suite("aes256gcm16", false));
        assert!(help.starts_with("AH encrypts nothing"), "{help}");
        let help = help_of(ah_suite("aes256gmac-sha256", false));
        assert!(help.starts_with("manual keys are for one algorithm"), "{help}");
    }

    #[test]
    fn encryption_without_integrity_is_refused_whatever_is_allowed() {
        for text in ["aes128", "aes256ctr", "null", "null-aes192ctr-esn"] {
            for legacy in [false, true] {
                let help = help_of(esp(text, legacy));
                assert!(help.contains(&format!("add integrity, for example \"{text}-sha256\"")));
            }
        }
    }

    #[test]
    fn what_is_for_esp_only_is_refused_in_ike() {
        for word in [
            "null",
            "aes128ctr",
            "aes128gmac",
            "aes256gcm16iiv",
            "chacha20poly1305iiv",
            "aes128ccm8iiv",
        ] {
            let help = help_of(ike(&format!("{word}-sha256-x25519"), true));
            assert!(help.starts_with(&format!("`{word}` is for ESP only; ")), "{help}");
        }
        for word in ["aes128gcm8", "aes192gcm12", "aes256ccm16", "chacha20poly1305"] {
            assert!(ike(&format!("{word}-prfsha256-x25519"), false).is_ok(), "{word}");
        }
    }

    #[test]
    fn integrity_that_has_no_prf_of_ours_wants_one_named() {
        let help = help_of(ike("aes128-aesxcbc-x25519", false));
        assert!(
            help.contains("add a PRF, for example \"aes128-aesxcbc-x25519-prfsha256\""),
            "{help}"
        );
        assert!(ike("aes128-aesxcbc-prfsha256-x25519", false).is_ok());
    }

    #[test]
    fn gmac_is_an_integrity_algorithm_in_ah() {
        assert_eq!(ah_suite("aes256gmac", false).unwrap().integ, IntegId::AUTH_AES_256_GMAC);
        assert!(help_of(ah_suite("aes128gmac-sha256", false)).contains("one algorithm of each"));
        assert!(help_of(ah_suite("aes128gcm16", false)).contains("AH encrypts nothing"));
    }

    #[test]
    fn additional_key_exchanges_are_written_as_strongswan_writes_them() {
        let text = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_none-ke3_ecp384";
        let proposal = ike(text, false).unwrap();
        assert_eq!(proposal.addke[0], [KeId::ML_KEM_768, KeId::NONE]);
        assert!(proposal.addke[1].is_empty());
        assert_eq!(proposal.addke[2], [KeId::ECP_384]);
        assert_eq!(render_ike(&proposal), text);
        let upper = ike("AES256GCM16-PRFSHA384-X25519-KE1_MLKEM768", false).unwrap();
        assert_eq!(upper.addke[0], [KeId::ML_KEM_768]);
        assert_eq!(ike("aes256gcm16-prfsha384-mlkem1024", false).unwrap().ke, [KeId::ML_KEM_1024]);
    }

    #[test]
    fn additional_key_exchanges_that_cannot_be_are_refused() {
        for (text, expected) in [
            ("aes256gcm16-prfsha384-ke1_mlkem768", "and there is no first; add one before it"),
            ("aes256gcm16-prfsha384-x25519-ke1_x25519", "`x25519` would be made twice"),
            ("aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_mlkem768", "`mlkem768` would be"),
            ("aes256gcm16-prfsha384-x25519-ke8_mlkem768", "unknown keyword `ke8_mlkem768`"),
            ("aes256gcm16-prfsha384-x25519-ke0_mlkem768", "unknown keyword `ke0_mlkem768`"),
            ("aes256gcm16-prfsha384-x25519-ke1_aes256", "unknown keyword `ke1_aes256`"),
        ] {
            let help = help_of(ike(text, false));
            assert!(help.contains(expected), "{help}");
        }
        let help = help_of(esp_suite("aes256gcm16-x25519-ke1_mlkem768", false));
        assert!(help.contains("manual keys have no key exchange"), "{help}");
    }

    #[test]
    fn every_keyword_has_an_implementation() {
        for (name, transform) in FOREIGN.iter().map(|(_, name)| {
            (*name, KEYWORDS.iter().find(|(word, _)| word == name).map(|(_, t)| *t))
        }) {
            assert!(transform.is_some(), "{name} is recommended but unknown");
        }
    }
}
