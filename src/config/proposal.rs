//! Proposals in strongSwan's keywords: `aes256gcm16-prfsha384-x25519`.
//!
//! Keywords of one kind may stand several times in one proposal: each is acceptable, the first preferred. As with
//! strongSwan, an IKE proposal that names no PRF takes those of its integrity keywords.

use core::fmt::Display;

use super::keys::nearest;
use super::value::Wrong;
use crate::ipsec::suite::{AhSuite, Encr, EspProposal, EspSuite, IkeProposal};
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PrfId};

/// The IKE proposals unless the configuration says otherwise: the strongest first, and all that strongSwan's own
/// default has in common with us.
pub const DEFAULT_IKE: &[&str] = &[
    "aes256gcm16-aes128gcm16-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256-modp4096-modp3072-modp2048",
    "aes256-aes192-aes128-sha384-sha512-sha256-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256-modp4096-modp3072-modp2048",
];

/// The ESP proposals unless the configuration says otherwise.
pub const DEFAULT_ESP: &[&str] = &["aes256gcm16", "aes128gcm16", "aes256-sha256"];

/// The most proposals of one list.
pub(super) const MAX_PROPOSALS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transform {
    Encr(Encr),
    Esn(EsnId),
    Integ(IntegId, PrfId),
    Ke(KeId),
    Prf(PrfId),
}

const fn aead(bits: u16) -> Transform {
    Transform::Encr(Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(bits) })
}

const fn cbc(bits: u16) -> Transform {
    Transform::Encr(Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(bits) })
}

const SHA256: Transform =
    Transform::Integ(IntegId::AUTH_HMAC_SHA2_256_128, PrfId::PRF_HMAC_SHA2_256);
const SHA384: Transform =
    Transform::Integ(IntegId::AUTH_HMAC_SHA2_384_192, PrfId::PRF_HMAC_SHA2_384);
const SHA512: Transform =
    Transform::Integ(IntegId::AUTH_HMAC_SHA2_512_256, PrfId::PRF_HMAC_SHA2_512);

/// Keywords; the first of those that mean the same is the one we write.
const KEYWORDS: &[(&str, Transform)] = &[
    ("aes128gcm16", aead(128)),
    ("aes128gcm128", aead(128)),
    ("aes256gcm16", aead(256)),
    ("aes256gcm128", aead(256)),
    ("aes128", cbc(128)),
    ("aes", cbc(128)),
    ("aes192", cbc(192)),
    ("aes256", cbc(256)),
    ("sha256", SHA256),
    ("sha2_256", SHA256),
    ("sha384", SHA384),
    ("sha2_384", SHA384),
    ("sha512", SHA512),
    ("sha2_512", SHA512),
    ("prfsha256", Transform::Prf(PrfId::PRF_HMAC_SHA2_256)),
    ("prfsha384", Transform::Prf(PrfId::PRF_HMAC_SHA2_384)),
    ("prfsha512", Transform::Prf(PrfId::PRF_HMAC_SHA2_512)),
    ("x25519", Transform::Ke(KeId::CURVE25519)),
    ("curve25519", Transform::Ke(KeId::CURVE25519)),
    ("ecp256", Transform::Ke(KeId::ECP_256)),
    ("ecp384", Transform::Ke(KeId::ECP_384)),
    ("modp2048", Transform::Ke(KeId::MODP_2048)),
    ("modp3072", Transform::Ke(KeId::MODP_3072)),
    ("modp4096", Transform::Ke(KeId::MODP_4096)),
    ("esn", Transform::Esn(EsnId::ESN)),
    ("noesn", Transform::Esn(EsnId::NO_ESN)),
];

/// strongSwan keywords that we know and do not have, with what to take instead.
const FOREIGN: &[(&str, &str)] = &[
    ("3des", "aes256"),
    ("aes128ccm16", "aes128gcm16"),
    ("aes128ctr", "aes128"),
    ("aes128gcm12", "aes128gcm16"),
    ("aes128gcm8", "aes128gcm16"),
    ("aes192gcm16", "aes256gcm16"),
    ("aes256ccm16", "aes256gcm16"),
    ("aes256ctr", "aes256"),
    ("aes256gcm12", "aes256gcm16"),
    ("aes256gcm8", "aes256gcm16"),
    ("aescmac", "sha256"),
    ("aesxcbc", "sha256"),
    ("chacha20poly1305", "aes256gcm16"),
    ("curve448", "x25519"),
    ("ecp521", "ecp384"),
    ("md5", "sha256"),
    ("modp1024", "modp2048"),
    ("modp1536", "modp2048"),
    ("modp6144", "modp4096"),
    ("modp8192", "modp4096"),
    ("null", "aes256gcm16"),
    ("prfaescmac", "prfsha256"),
    ("prfaesxcbc", "prfsha256"),
    ("prfmd5", "prfsha256"),
    ("prfsha1", "prfsha256"),
    ("sha", "sha256"),
    ("sha1", "sha256"),
    ("sha256_96", "sha256"),
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
    esn: Vec<EsnId>,
    /// Where the first keyword of a kind stands.
    first_integ: Option<(usize, usize)>,
}

/// Reads one IKE proposal.
///
/// # Errors
/// Every fault in it.
pub(super) fn ike(text: &str) -> Result<IkeProposal, Vec<Fault>> {
    let (parts, mut faults) = parts(text, true);
    let whole = || 0..text.len();
    let aead = check_encr(text, &parts, &mut faults);
    if faults.is_empty() {
        if aead && !parts.integ.is_empty() && !parts.prf.is_empty() {
            faults.push(superfluous_integ(text, &parts));
        }
        if parts.prf.is_empty() && parts.implied.is_empty() {
            let (missing, add) =
                if aead { ("a PRF", "prfsha384") } else { ("integrity", "sha256") };
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
    Ok(IkeProposal { encr: parts.encr, integ, prf, ke: parts.ke })
}

/// Reads one ESP proposal.
///
/// # Errors
/// Every fault in it.
pub(super) fn esp(text: &str) -> Result<EspProposal, Vec<Fault>> {
    let (parts, mut faults) = parts(text, false);
    let aead = check_encr(text, &parts, &mut faults);
    if faults.is_empty() {
        if aead && !parts.integ.is_empty() {
            faults.push(superfluous_integ(text, &parts));
        }
        if !aead && parts.integ.is_empty() {
            faults.push(missing_part(text, 0..text.len(), "integrity", "sha256"));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let esn = if parts.esn.is_empty() { vec![EsnId::NO_ESN] } else { parts.esn };
    Ok(EspProposal { encr: parts.encr, integ: parts.integ, ke: parts.ke, esn })
}

/// Reads the one ESP suite of an SA with manual keys.
///
/// # Errors
/// Every fault in it.
pub(super) fn esp_suite(text: &str) -> Result<EspSuite, Vec<Fault>> {
    let proposal = esp(text)?;
    if let Some(fault) = ke_fault(text, &proposal.ke) {
        return Err(vec![fault]);
    }
    let EspProposal { encr, integ, esn, .. } = proposal;
    match (encr.as_slice(), integ.as_slice(), esn.as_slice()) {
        ([encr], [], [esn]) => Ok(EspSuite { encr: *encr, integ: IntegId::NONE, esn: *esn }),
        ([encr], [integ], [esn]) => Ok(EspSuite { encr: *encr, integ: *integ, esn: *esn }),
        _ => Err(vec![ambiguous(text)]),
    }
}

/// Reads the one AH suite of an SA with manual keys.
///
/// # Errors
/// Every fault in it.
pub(super) fn ah_suite(text: &str) -> Result<AhSuite, Vec<Fault>> {
    let (parts, faults) = parts(text, false);
    if !faults.is_empty() {
        return Err(faults);
    }
    if let Some(fault) = ke_fault(text, &parts.ke) {
        return Err(vec![fault]);
    }
    if !parts.encr.is_empty() {
        let wrong = Wrong::new("AH encrypts nothing", "integrity alone, such as \"sha256\"");
        return Err(vec![Fault { at: 0..text.len(), wrong }]);
    }
    match (parts.integ.as_slice(), parts.esn.as_slice()) {
        ([], _) => Err(vec![missing_part_before(text, "integrity", "sha256")]),
        ([integ], []) => Ok(AhSuite { integ: *integ, esn: EsnId::NO_ESN }),
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

fn parts(text: &str, ike: bool) -> (Parts, Vec<Fault>) {
    let mut parts = Parts::default();
    let mut faults = Vec::new();
    let mut start = 0;
    for word in text.split('-') {
        let at = start..start + word.len();
        start = at.end + 1;
        let known = KEYWORDS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
        let Some((_, transform)) = known else {
            faults.push(Fault { at, wrong: unknown(word) });
            continue;
        };
        match *transform {
            Transform::Encr(encr) => push(&mut parts.encr, encr),
            Transform::Integ(integ, prf) => {
                parts.first_integ.get_or_insert((at.start, at.end));
                push(&mut parts.integ, integ);
                push(&mut parts.implied, prf);
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
    (parts, faults)
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
                KEYWORDS.iter().any(|(name, transform)| {
                    let right = match transform {
                        Transform::Encr(encr) => is_aead(encr) == want,
                        Transform::Integ(..) => !want,
                        Transform::Esn(_) | Transform::Ke(_) | Transform::Prf(_) => true,
                    };
                    word.eq_ignore_ascii_case(name) && right
                })
            });
            words.collect::<Vec<_>>().join("-")
        };
        let integ = if parts.integ.is_empty() { "-sha256" } else { "" };
        faults.push(Fault {
            at: 0..text.len(),
            wrong: Wrong::new(
                "AEAD (gcm) and CBC encryption do not mix in one proposal",
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
            format!("gcm protects integrity by itself: leave out `-{word}`"),
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
            "known: aes128, aes192, aes256, aes128gcm16, aes256gcm16, sha256, sha384, sha512, prfsha256, prfsha384, \
             prfsha512, x25519, ecp256, ecp384, modp2048, modp3072, modp4096, esn, noesn",
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
    join(encr.chain(integ(&proposal.integ)).chain(prf).chain(ke))
}

/// The proposal in keywords, as `proposals` takes it.
#[must_use]
pub fn render_esp(proposal: &EspProposal) -> String {
    let encr = proposal.encr.iter().map(|encr| Transform::Encr(*encr));
    let ke = proposal.ke.iter().map(|ke| Transform::Ke(*ke));
    let esn = proposal.esn.iter().filter(|_| proposal.esn != [EsnId::NO_ESN]);
    let esn = esn.map(|esn| Transform::Esn(*esn));
    join(encr.chain(integ(&proposal.integ)).chain(ke).chain(esn))
}

fn integ(list: &[IntegId]) -> impl Iterator<Item = Transform> {
    list.iter().filter_map(|id| {
        [SHA256, SHA384, SHA512]
            .into_iter()
            .find(|t| matches!(t, Transform::Integ(i, _) if i == id))
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

    fn help_of<T: core::fmt::Debug>(result: Result<T, Vec<Fault>>) -> String {
        let faults = result.unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        format!("{}; {}", faults[0].wrong.message, faults[0].wrong.help)
    }

    #[test]
    fn an_ike_proposal_lists_what_is_acceptable_in_order() {
        let proposal = ike("aes256gcm16-aes128gcm128-prfsha384-prfsha256-x25519-ecp384").unwrap();
        let gcm = |bits| Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(bits) };
        assert_eq!(
            proposal,
            IkeProposal {
                encr: vec![gcm(256), gcm(128)],
                integ: vec![],
                prf: vec![PrfId::PRF_HMAC_SHA2_384, PrfId::PRF_HMAC_SHA2_256],
                ke: vec![KeId::CURVE25519, KeId::ECP_384],
            }
        );
    }

    #[test]
    fn without_a_prf_that_of_the_integrity_keyword_is_taken() {
        let cbc = ike("aes256-sha512-modp2048").unwrap();
        assert_eq!(cbc.prf, [PrfId::PRF_HMAC_SHA2_512]);
        assert_eq!(cbc.integ, [IntegId::AUTH_HMAC_SHA2_512_256]);
        let aead = ike("aes256gcm16-sha384-ecp384").unwrap();
        assert_eq!(aead.prf, [PrfId::PRF_HMAC_SHA2_384]);
        assert!(aead.integ.is_empty());
        let both = ike("aes128-sha256-prfsha512-x25519").unwrap();
        assert_eq!(both.prf, [PrfId::PRF_HMAC_SHA2_512]);
    }

    #[test]
    fn an_esp_proposal_may_have_a_group_and_esn() {
        let plain = esp("aes256gcm16").unwrap();
        assert!(plain.ke.is_empty());
        assert_eq!(plain.esn, [EsnId::NO_ESN]);
        let full = esp("aes256-sha256-ecp256-esn-noesn").unwrap();
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
                "AEAD (gcm) and CBC encryption do not mix in one proposal; make two: \"aes256gcm16-prfsha256-x25519\", \"aes256-sha256-prfsha256-x25519\"",
            ),
            (
                "aes256gcm16-sha256-prfsha256-x25519",
                "`sha256` beside an AEAD; gcm protects integrity by itself: leave out `-sha256`",
            ),
            (
                "aes256gcm16-prfsha256-x25519-esn",
                "`esn` is about ESP's sequence numbers, which IKE has not; it belongs in [esp] proposals: leave out `-esn`",
            ),
        ] {
            assert_eq!(help_of(ike(text)), expected);
        }
        assert!(help_of(esp("aes256gcm16-sha256")).contains("beside an AEAD"));
        assert!(help_of(esp("aes256gcm16-prfsha256")).contains("belong in [ike]"));
        assert!(help_of(esp("aes256")).contains("\"aes256-sha256\""));
        assert!(help_of(esp("")).contains("a keyword is missing"));
        assert!(help_of(esp("aes256gcm16,aes128gcm16")).contains("strings of their own"));
    }

    #[test]
    fn all_faults_of_a_proposal_are_found_and_placed() {
        let faults = ike("aes256gmc16-prfsha348-x25519").unwrap_err();
        assert_eq!(faults.iter().map(|f| f.at.clone()).collect::<Vec<_>>(), [0..11, 12..21]);
    }

    #[test]
    fn defaults_and_every_keyword_render_as_they_are_read() {
        for text in DEFAULT_IKE {
            assert_eq!(render_ike(&ike(text).unwrap()), *text);
        }
        for text in DEFAULT_ESP {
            assert_eq!(render_esp(&esp(text).unwrap()), *text);
        }
        assert_eq!(
            render_esp(&esp("aes128-sha512-modp4096-esn").unwrap()),
            "aes128-sha512-modp4096-esn"
        );
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
