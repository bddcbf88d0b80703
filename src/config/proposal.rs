//! Proposals in strongSwan's keywords: `aes256gcm16-prfsha384-x25519`.
//!
//! Keywords of one kind may stand several times in one proposal: each is acceptable, the first preferred. As with
//! strongSwan, an IKE proposal that names no PRF takes those of its integrity keywords.

mod keywords;
mod render;

use self::keywords::{GMAC, KEYWORDS, LEGACY, Transform, Word, unknown};
use self::render::join;
pub use self::render::{render_child, render_ike};
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

/// What is wrong with a keyword, if it is none of ours.
pub(super) fn keyword_fault(word: &str) -> Option<Wrong> {
    Word::of(word).is_none().then(|| unknown(word))
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

/// Twice the same is once.
fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests;
