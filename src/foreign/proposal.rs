//! Proposals of other dialects, made into ours.
//!
//! What we do not have is left out, which narrows an offer and never widens it: a proposal that would lose all of its groups
//! or PRFs that way is left out whole.

use super::{At, Import};
use crate::config::{self, DEFAULT_AH, DEFAULT_ESP, DEFAULT_IKE, ProposalOf};

/// In whose words it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Libreswan,
    StrongSwan,
}

/// Proposals in our words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Proposals {
    pub(super) list: Vec<String>,
    /// Whether `allow-legacy` is needed.
    pub(super) legacy: bool,
}

/// Reads a list with commas. `None`: ours may stand as they are by default. `groups`: those of the IKE SA, where a proposal
/// for a CHILD_SA has none of its own and is to have them.
pub(super) fn translate(
    text: &str,
    of: ProposalOf,
    dialect: Dialect,
    groups: &[String],
    at: &At,
    import: &mut Import,
) -> Option<Proposals> {
    let defaults = match of {
        ProposalOf::Ah => DEFAULT_AH,
        ProposalOf::Esp => DEFAULT_ESP,
        ProposalOf::Ike => DEFAULT_IKE,
    };
    let mut found = Proposals::default();
    let mut only_default = true;
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if item == "default" {
            found.list.extend(defaults.iter().map(|text| (*text).to_owned()));
            continue;
        }
        only_default = false;
        let kinds = match dialect {
            Dialect::Libreswan => libreswan(item, of),
            Dialect::StrongSwan => vec![item.split('-').map(strongswan).collect()],
        };
        for mut words in kinds {
            if !words.iter().any(|word| is_group(word)) {
                words.extend(groups.iter().cloned());
            }
            let Some((text, legacy)) = proposal(item, &words, of, at, import) else { continue };
            found.legacy |= legacy;
            if !found.list.contains(&text) {
                found.list.push(text);
            }
        }
    }
    if found.list.is_empty() && !only_default {
        import.note(
            at,
            format!("proposals `{text}`"),
            "none is left: ipsecd's own defaults stand in their place",
        );
    }
    (!only_default && !found.list.is_empty()).then_some(found)
}

/// One proposal without what we do not have, and whether it is legacy.
fn proposal(
    item: &str,
    words: &[String],
    of: ProposalOf,
    at: &At,
    import: &mut Import,
) -> Option<(String, bool)> {
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for word in words {
        match config::keyword_fault(word) {
            None if !kept.contains(word) => kept.push(word.clone()),
            None => {}
            Some(fault) => lost.push((word, fault)),
        }
    }
    for kind in [is_group as fn(&str) -> bool, is_prf] {
        let of_kind = |list: &[String]| list.iter().any(|word| kind(word));
        if of_kind(words) && !of_kind(&kept) {
            let names: Vec<&str> =
                lost.iter().map(|(word, _)| word.as_str()).filter(|word| kind(word)).collect();
            import.note(
                at,
                format!("proposal `{item}`"),
                format!("left out: ipsecd does not have {}", names.join(", ")),
            );
            return None;
        }
    }
    for (word, fault) in &lost {
        import.note(at, format!("`{word}` of the proposal `{item}`"), format!("left out: {fault}"));
    }
    let text = kept.join("-");
    for legacy in [false, true] {
        match config::read_proposal(of, &text, legacy) {
            Ok(()) => return Some((text, legacy)),
            Err(fault) if legacy => {
                import.note(at, format!("proposal `{item}`"), format!("left out: {fault}"));
            }
            Err(_) => {}
        }
    }
    None
}

/// The groups that proposals of ours name.
pub(super) fn groups(proposals: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let words = proposals.iter().flat_map(|text| text.split('-')).filter(|word| is_group(word));
    for word in words {
        if !found.iter().any(|there| there == word) {
            found.push(word.to_owned());
        }
    }
    found
}

fn is_group(word: &str) -> bool {
    ["curve", "dh", "ecp", "modp", "mlkem", "x2", "x4"].iter().any(|name| word.starts_with(name))
}

fn is_prf(word: &str) -> bool {
    word.starts_with("prf")
}

/// A keyword of strongSwan, in the form that we have of those that mean the same.
fn strongswan(word: &str) -> String {
    let word = word.trim().to_ascii_lowercase();
    for (theirs, ours) in [("gcm", "gcm16"), ("ccm", "ccm16")] {
        if word.starts_with("aes") && word.ends_with(theirs) {
            return word.replace(theirs, ours);
        }
    }
    match word.as_str() {
        "aes128-ctr" => "aes128ctr".to_owned(),
        "sha2_256" => "sha256".to_owned(),
        "sha2_384" => "sha384".to_owned(),
        "sha2_512" => "sha512".to_owned(),
        "curve25519" => "x25519".to_owned(),
        _ => word,
    }
}

/// A proposal of libreswan: `aes_gcm256+aes256-sha2_512;dh19+dh14`. AEADs and others come apart.
fn libreswan(item: &str, of: ProposalOf) -> Vec<Vec<String>> {
    let words: Vec<String> = item
        .split(['-', ';', '+'])
        .map(|word| word.trim().to_ascii_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let (mut aead, mut plain, mut hashes, mut groups) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for word in &words {
        let made = libreswan_word(word);
        for made in made {
            if is_group(&made) {
                groups.push(made);
            } else if ["gcm", "ccm", "chacha", "gmac"].iter().any(|name| made.contains(name)) {
                aead.push(made);
            } else if ["sha", "md5", "aesxcbc", "aescmac"].iter().any(|name| made.starts_with(name))
            {
                hashes.push(made);
            } else if made != "null" || plain.is_empty() && aead.is_empty() && of != ProposalOf::Ah
            {
                plain.push(made);
            }
        }
    }
    let or = |list: Vec<String>, default: &[&str]| {
        if list.is_empty() { default.iter().map(|word| (*word).to_owned()).collect() } else { list }
    };
    if of == ProposalOf::Ike {
        groups = or(groups, &["ecp256", "x25519", "modp4096", "modp3072", "modp2048"]);
    }
    let hashes = or(hashes, &["sha512", "sha256"]);
    let mut found = Vec::new();
    if of == ProposalOf::Ah {
        return vec![[hashes, groups].concat()];
    }
    if !aead.is_empty() {
        // Beside an AEAD the hash is the PRF.
        let prfs = hashes.iter().map(|hash| format!("prf{hash}")).collect();
        let prfs: Vec<String> = if of == ProposalOf::Ike { prfs } else { Vec::new() };
        found.push([aead, prfs, groups.clone()].concat());
    }
    if !plain.is_empty() {
        found.push([plain, hashes, groups].concat());
    }
    found
}

fn libreswan_word(word: &str) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    if let Some(rest) = ["aes_gcm", "aes_ccm"].iter().find_map(|name| word.strip_prefix(name)) {
        let mode = if word.starts_with("aes_gcm") { "gcm" } else { "ccm" };
        let rest = rest.trim_start_matches('_');
        let (icv, bits) = match rest.split_at_checked(1) {
            Some(("a", bits)) => ("8", bits),
            Some(("b", bits)) => ("12", bits),
            Some(("c", bits)) => ("16", bits),
            _ => match rest.split_once('_') {
                Some((icv, bits)) => (icv, bits),
                None if ["8", "12", "16"].contains(&rest) => (rest, ""),
                None => ("16", rest),
            },
        };
        let bits = bits.trim_start_matches('_');
        let sizes: &[&str] = if bits.is_empty() { &["256", "128"] } else { &[bits] };
        return sizes.iter().map(|bits| format!("aes{bits}{mode}{icv}")).collect();
    }
    if let Some(bits) = word.strip_prefix("aes_ctr") {
        let bits = bits.trim_start_matches('_');
        return vec![format!("aes{}ctr", if bits.is_empty() { "256" } else { bits })];
    }
    if let Some(bits) = word.strip_prefix("null_auth_aes_gmac") {
        let bits = bits.trim_start_matches('_');
        return vec![format!("aes{}gmac", if bits.is_empty() { "256" } else { bits })];
    }
    let word = word.strip_prefix("hmac_").unwrap_or(word);
    match word {
        "aes" | "aes_cbc" => vec!["aes256".to_owned(), "aes128".to_owned()],
        "chacha20_poly1305" => one("chacha20poly1305"),
        "sha" | "sha1" => one("sha1"),
        "sha2" | "sha256" | "sha2_256" => one("sha256"),
        "sha384" | "sha2_384" => one("sha384"),
        "sha512" | "sha2_512" => one("sha512"),
        "aes_xcbc" | "aes_xcbc_96" => one("aesxcbc"),
        "aes_cmac" | "aes_cmac_96" => one("aescmac"),
        "dh14" => one("modp2048"),
        "dh15" => one("modp3072"),
        "dh16" => one("modp4096"),
        "dh17" => one("modp6144"),
        "dh18" => one("modp8192"),
        "dh19" | "ecp_256" => one("ecp256"),
        "dh20" | "ecp_384" => one("ecp384"),
        "dh21" | "ecp_521" => one("ecp521"),
        "dh31" | "curve25519" => one("x25519"),
        "dh2" => one("modp1024"),
        "dh5" => one("modp1536"),
        other => match other.strip_prefix("aes_cbc_").or_else(|| other.strip_prefix("aes_")) {
            Some(bits @ ("128" | "192" | "256")) => vec![format!("aes{bits}")],
            Some(_) | None => one(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> At {
        At { file: "x".into(), line: 1 }
    }

    fn of(text: &str, of: ProposalOf, dialect: Dialect) -> (Vec<String>, bool, usize) {
        let mut import = Import::default();
        let found = translate(text, of, dialect, &[], &at(), &mut import).unwrap_or_default();
        (found.list, found.legacy, import.notes.len())
    }

    #[test]
    fn strongswans_keywords_are_ours() {
        let ike = |text| of(text, ProposalOf::Ike, Dialect::StrongSwan);
        assert_eq!(
            ike("aes256gcm16-prfsha384-x25519, aes128-sha2_256-modp2048"),
            (
                vec!["aes256gcm16-prfsha384-x25519".into(), "aes128-sha256-modp2048".into()],
                false,
                0
            )
        );
        assert_eq!(ike("default"), (vec![], false, 0));
        assert_eq!(ike("aes256-sha256-modp2048,default").0.len(), 1 + DEFAULT_IKE.len());
        assert_eq!(
            ike("aes256-3des-sha256-modp2048-modp1024"),
            (vec!["aes256-sha256-modp2048".into()], false, 2)
        );
    }

    #[test]
    fn a_proposal_is_left_out_before_it_means_something_else() {
        let esp = |text| of(text, ProposalOf::Esp, Dialect::StrongSwan);
        // Without its group it would be one without PFS.
        assert_eq!(esp("aes256-sha256-modp1024").0, [""; 0]);
        assert_eq!(esp("aes256-sha1"), (vec!["aes256-sha1".into()], true, 0));
        let ike = |text| of(text, ProposalOf::Ike, Dialect::StrongSwan);
        assert_eq!(ike("aes256-sha256-prfsha1-modp2048").0, [""; 0]);
        assert_eq!(ike("3des-md5-modp1024").0, [""; 0]);
    }

    #[test]
    fn libreswans_words_become_ours() {
        let ike = |text| of(text, ProposalOf::Ike, Dialect::Libreswan).0;
        assert_eq!(ike("aes_gcm256-sha2_512;dh19"), ["aes256gcm16-prfsha512-ecp256"]);
        assert_eq!(ike("aes256-sha2;modp2048"), ["aes256-sha256-modp2048"]);
        assert_eq!(
            ike("aes_gcm_c_256+aes256-sha2_512+sha2_256-dh14+dh19"),
            [
                "aes256gcm16-prfsha512-prfsha256-modp2048-ecp256",
                "aes256-sha512-sha256-modp2048-ecp256"
            ]
        );
        let esp = |text| of(text, ProposalOf::Esp, Dialect::Libreswan).0;
        assert_eq!(esp("aes_gcm128-null"), ["aes128gcm16"]);
        assert_eq!(esp("aes-sha2_256"), ["aes256-aes128-sha256"]);
        assert_eq!(esp("chacha20_poly1305"), ["chacha20poly1305"]);
    }

    #[test]
    fn pfs_by_the_group_of_the_ike_sa_is_said_with_each_proposal() {
        let mut import = Import::default();
        let groups = groups(&["aes256-sha256-modp2048-ecp256".to_owned()]);
        let found = translate(
            "aes_gcm256",
            ProposalOf::Esp,
            Dialect::Libreswan,
            &groups,
            &at(),
            &mut import,
        );
        assert_eq!(found.unwrap().list, ["aes256gcm16-modp2048-ecp256"]);
    }
}
