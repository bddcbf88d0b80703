//! An ipsec.conf of libreswan, with `left` the far end.

use core::time::Duration;
use std::collections::BTreeSet;

use super::{Far, Proof, encoded, is_ah, is_transport, narrowed, other_start, quoted};
use crate::config::{self, render_child, render_ike};
use crate::ipsec::TrafficSelector;
use crate::ipsec::pad::{
    ChildPolicy, EncapPolicy, Fragments, Identity, LossAction, StartPolicy, Unique,
};

pub(super) fn write(far: &Far<'_>) -> String {
    let mut out =
        String::from("# ipsec.conf of the far end, for libreswan 4 and later: left is this end.\n");
    if far.peer.ike.unique != Unique::No {
        out += "# The other end has its own opinion on several IKE SAs of one peer: uniqueids is of config setup.\n";
    }
    let children = &far.peer.children;
    for (number, child) in children.iter().enumerate() {
        let name = if number == 0 {
            far.peer.name.to_string()
        } else {
            format!("{}-{}", far.peer.name, child.name)
        };
        out += &format!("\nconn {name}\n");
        if children.len() > 1 {
            out += &format!("\talso={}-ike\n", far.peer.name);
        } else {
            ike(far, &mut out);
        }
        conn(far, child, &mut out);
    }
    if children.len() > 1 {
        out += &format!("\nconn {}-ike\n", far.peer.name);
        ike(far, &mut out);
    }
    secrets(far, &mut out);
    out
}

fn set(out: &mut String, key: &str, value: &str) {
    *out += &format!("\t{key}={value}\n");
}

fn comment(out: &mut String, text: &str) {
    *out += &format!("\t# {text}\n");
}

fn ike(far: &Far<'_>, out: &mut String) {
    let policy = &far.peer.ike;
    set(out, "ikev2", "insist");
    match far.local_address() {
        Some(address) => set(out, "left", &address),
        None => set(out, "left", "%defaultroute"),
    }
    match far.remote_address() {
        Some(address) => set(out, "right", &address),
        None => {
            comment(out, far.unknown());
            set(out, "right", "%any");
        }
    }
    match far.local_id() {
        Some(id) => set(out, "leftid", &id_of(id)),
        None => comment(out, "leftid=who this end is; the other takes whoever holds the key"),
    }
    set(out, "rightid", &id_of(far.remote_id()));
    proofs(far, out);
    let mut proposals = Vec::new();
    for proposal in &policy.proposals {
        let text = render_ike(proposal);
        match words(&text, true) {
            Some(words) => proposals.push(words),
            None => comment(out, &format!("libreswan has no words for {text}")),
        }
    }
    if !proposals.is_empty() {
        set(out, "ike", &proposals.join(","));
    }
    let rekey = policy.rekey_time.or(policy.reauth_time);
    if let Some(time) = rekey {
        set(out, "ikelifetime", &seconds(time + policy.over_time));
    }
    if policy.reauth_time.is_some() {
        set(out, "reauth", "yes");
    }
    if let Some(time) = policy.dpd_delay {
        set(out, "dpddelay", &seconds(time));
        set(out, "dpdtimeout", &seconds(time * 4));
        let action = match policy.dpd_action {
            Some(LossAction::Clear) => "clear",
            Some(LossAction::Hold) => "hold",
            Some(LossAction::Restart) | None => "restart",
        };
        set(out, "dpdaction", action);
    }
    set(
        out,
        "fragmentation",
        if policy.fragmentation.fragments == Fragments::No { "no" } else { "yes" },
    );
    set(out, "mobike", if policy.mobike { "yes" } else { "no" });
    let encapsulation = match policy.encap {
        EncapPolicy::Auto => "auto",
        EncapPolicy::Udp => "yes",
        EncapPolicy::None => "no",
    };
    set(out, "encapsulation", encapsulation);
    if far.peer.ppk.is_some() {
        comment(out, "The key of ppk stands in ipsec.secrets: : PPKS \"id\" \"key\"");
        set(
            out,
            "ppk",
            if far.peer.ppk.as_ref().is_some_and(|it| it.required) { "insist" } else { "propose" },
        );
    }
    if policy.childless {
        comment(out, "childless IKE_AUTH (RFC 6023): libreswan makes a CHILD_SA with the IKE SA");
    }
    if far.peer.pool.is_some() {
        set(out, "leftmodecfgclient", "yes");
        set(out, "narrowing", "yes");
    }
    if far.peer.request.is_some() {
        comment(out, "rightaddresspool=the addresses that this end gives");
        set(out, "leftmodecfgserver", "yes");
    }
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs().max(1))
}

fn id_of(id: &Identity) -> String {
    match id {
        Identity::Fqdn(name) => format!("@{name}"),
        Identity::KeyId(bytes) => match core::str::from_utf8(bytes) {
            Ok(text) if text.bytes().all(|b| b.is_ascii_graphic() && b != b']') => {
                format!("@[{text}]")
            }
            _ => config::render_identity(id),
        },
        Identity::Dn(_) => quoted(&config::render_identity(id)),
        Identity::Email(_) | Identity::Ipv4(_) | Identity::Ipv6(_) | Identity::Other { .. } => {
            config::render_identity(id)
        }
    }
}

fn proofs(far: &Far<'_>, out: &mut String) {
    let auth = |proof| match proof {
        Proof::Psk => "secret",
        Proof::Certificate | Proof::RawKey => "ecdsa",
        Proof::EapMsChapV2 | Proof::EapTls => "eaponly",
    };
    let (local, remote) = (far.local_proof(), far.remote_proof());
    if (local, remote) == (Proof::Psk, Proof::Psk) {
        set(out, "authby", "secret");
        return;
    }
    if matches!(local, Proof::EapMsChapV2) || matches!(remote, Proof::EapMsChapV2) {
        comment(out, "EAP-MSCHAPv2: libreswan does not have it; this tunnel needs another way");
    }
    comment(out, "ecdsa, or rsasig: as the certificate is");
    set(out, "leftauth", auth(local));
    set(out, "rightauth", auth(remote));
    if matches!(local, Proof::Certificate) {
        let name = far.file(far.local_id(), "pem");
        comment(
            out,
            &format!(
                "{name} and its key in the NSS database: pk12util -i FILE.p12 -d sql:/var/lib/ipsec/nss"
            ),
        );
        set(out, "leftcert", name.trim_end_matches(".pem"));
        set(out, "leftsendcert", "always");
    }
    if matches!(remote, Proof::Certificate) {
        comment(out, "The CA of the other end in there, too: certutil -A -n ca -t CT,, -i ca.pem");
        set(out, "rightca", "%any");
    }
    if matches!(local, Proof::RawKey) || matches!(remote, Proof::RawKey) {
        comment(
            out,
            "Public keys by themselves are named by leftckaid and right(rsa|ecdsa)key there",
        );
    }
}

fn conn(far: &Far<'_>, child: &ChildPolicy, out: &mut String) {
    set(out, "type", if is_transport(child) { "transport" } else { "tunnel" });
    for (side, list, given) in [
        ("left", &child.ts_peer, far.peer.pool.is_some()),
        ("right", &child.ts_local, far.peer.request.is_some()),
    ] {
        if given {
            continue;
        }
        // It has neither ranges nor addresses without a length.
        let nets: Vec<String> = list
            .iter()
            .flat_map(TrafficSelector::prefixes)
            .map(|(address, length)| format!("{address}/{length}"))
            .collect();
        if !is_transport(child) {
            match nets.as_slice() {
                [one] => set(out, &format!("{side}subnet"), one),
                many => {
                    comment(out, "libreswan makes a CHILD_SA of each pair of subnets");
                    set(out, &format!("{side}subnets"), &format!("{{{}}}", many.join(" ")));
                }
            }
        }
        let mut ports: Vec<String> = list.iter().filter_map(narrowed).collect();
        ports.dedup();
        match ports.as_slice() {
            [] => {}
            [one] => set(out, &format!("{side}protoport"), one),
            many => comment(
                out,
                &format!("{side}protoport has one protocol; wanted are {}", many.join(", ")),
            ),
        }
    }
    let mut proposals = Vec::new();
    let (mut pfs, mut esn) = (false, None);
    let group = child.proposals.first().and_then(|first| first.ke.first());
    for proposal in &child.proposals {
        // It takes one group for all proposals, or none at all.
        let mut one = proposal.clone();
        one.ke.truncate(1);
        let text = render_child(&one);
        if one.ke.first() != group {
            comment(out, &format!("libreswan has one group for all proposals of ESP: not {text}"));
            continue;
        }
        if one.ke.len() < proposal.ke.len() {
            comment(out, &format!("of {}, one group", render_child(proposal)));
        }
        pfs |= !proposal.ke.is_empty();
        esn = esn.or(Some(if text.ends_with("esn-noesn") || text.ends_with("noesn-esn") {
            "either"
        } else if text.ends_with("-esn") {
            "yes"
        } else {
            "no"
        }));
        // AH with GMAC it does not have.
        match words(&text, false).filter(|_| !is_ah(child) || !text.contains("gmac")) {
            Some(words) => proposals.push(words),
            None => comment(out, &format!("libreswan has no words for {text}")),
        }
    }
    if is_ah(child) {
        set(out, "phase2", "ah");
    }
    if !proposals.is_empty() {
        set(out, if is_ah(child) { "ah" } else { "esp" }, &proposals.join(","));
    }
    set(out, "pfs", if pfs { "yes" } else { "no" });
    set(out, "esn", esn.unwrap_or("no"));
    if let Some(time) = child.lifetime.hard_time {
        set(out, "salifetime", &seconds(time));
        if let Some(margin) = child.lifetime.soft_time.and_then(|soft| time.checked_sub(soft)) {
            set(out, "rekeymargin", &seconds(margin));
        }
    }
    if let Some(bytes) = child.lifetime.hard_bytes {
        comment(out, &format!("ipsec-max-bytes={bytes}: from libreswan 5 on"));
    }
    set(out, "replay-window", &child.replay_window.to_string());
    let auto = match other_start(child.start) {
        StartPolicy::Now => "start",
        StartPolicy::OnTraffic => "ondemand",
        StartPolicy::ByHand | StartPolicy::Respond => "add",
    };
    if far.remote_address().is_none() && auto != "add" {
        // It loads none that it should begin and cannot.
        comment(out, &format!("auto={auto}, once right is an address"));
        set(out, "auto", "add");
    } else {
        set(out, "auto", auto);
    }
}

fn secrets(far: &Far<'_>, out: &mut String) {
    let Some(psk) = far.psk() else { return };
    let ids: Vec<String> = far.local_id().into_iter().chain([far.remote_id()]).map(id_of).collect();
    *out += "\n# Of this end's ipsec.secrets, without the #:\n";
    let key = if far.options.secrets {
        encoded(psk)
    } else {
        "\"the line of the other end's psk\"".to_owned().into()
    };
    *out += &format!("# {} : PSK {}\n", ids.join(" "), key.as_str());
}

/// A proposal in libreswan's words; `None` if it has none for a part of it.
pub(super) fn words(text: &str, is_ike: bool) -> Option<String> {
    let (mut encr, mut hashes, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let has_prf = text.contains("-prf");
    if is_ike && has_prf {
        // Its integrity is that of the PRF's hash.
        let of = |start: &str| -> BTreeSet<&str> {
            text.split('-')
                .filter_map(|word| word.strip_prefix(start))
                .filter(|it| !it.is_empty())
                .collect()
        };
        let (integrity, prfs) = (of("sha"), of("prfsha"));
        if !integrity.is_empty() && integrity != prfs {
            return None;
        }
    }
    for word in text.split('-') {
        if let Some(group) = group(word) {
            groups.push(group.to_owned());
            continue;
        }
        match word {
            "sha256" | "sha384" | "sha512" if is_ike && has_prf => {}
            "sha1" | "sha256" | "sha384" | "sha512" | "prfsha256" | "prfsha384" | "prfsha512" => {
                let word = word.trim_start_matches("prf");
                hashes.push(if word == "sha1" {
                    "sha1".to_owned()
                } else {
                    word.replace("sha", "sha2_")
                });
            }
            "aesxcbc" | "aescmac" if is_ike => return None,
            "aesxcbc" => hashes.push("aes_xcbc".to_owned()),
            "aescmac" => hashes.push("aes_cmac".to_owned()),
            "chacha20poly1305" => encr.push("chacha20_poly1305".to_owned()),
            "null" | "aes128" | "aes192" | "aes256" => encr.push(word.to_owned()),
            "esn" | "noesn" => {}
            other if is_ike && other.contains("ccm") => return None,
            other => encr.push(encryption(other)?),
        }
    }
    let colon = if groups.is_empty() { "" } else { ";" };
    let both: Vec<String> =
        [encr, hashes].into_iter().filter(|it| !it.is_empty()).map(|it| it.join("+")).collect();
    Some(format!("{}{colon}{}", both.join("-"), groups.join("+")))
}

fn encryption(word: &str) -> Option<String> {
    let rest = word.strip_prefix("aes")?;
    let (bits, mode) = rest.split_at_checked(3)?;
    Some(match mode {
        "gcm16" => format!("aes_gcm{bits}"),
        "gcm12" => format!("aes_gcm_b_{bits}"),
        "gcm8" => format!("aes_gcm_a_{bits}"),
        "ccm16" => format!("aes_ccm_c_{bits}"),
        "ccm12" => format!("aes_ccm_b_{bits}"),
        "ccm8" => format!("aes_ccm_a_{bits}"),
        "ctr" => format!("aes_ctr{bits}"),
        "gmac" => format!("null_auth_aes_gmac_{bits}"),
        _ => return None,
    })
}

fn group(word: &str) -> Option<&'static str> {
    Some(match word {
        "modp2048" => "dh14",
        "modp3072" => "dh15",
        "modp4096" => "dh16",
        "modp6144" => "dh17",
        "modp8192" => "dh18",
        "ecp256" => "dh19",
        "ecp384" => "dh20",
        "ecp521" => "dh21",
        "x25519" => "dh31",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_have_libreswans_words() {
        for (ours, theirs) in [
            ("aes256gcm16-prfsha384-x25519", Some("aes_gcm256-sha2_384;dh31")),
            (
                "aes256-aes128-sha256-prfsha256-ecp256-modp2048",
                Some("aes256+aes128-sha2_256;dh19+dh14"),
            ),
            ("aes256gcm16-prfsha384-x25519-ke1_mlkem768", None),
        ] {
            assert_eq!(words(ours, true).as_deref(), theirs, "{ours}");
        }
        assert_eq!(words("aes256gcm16", false).as_deref(), Some("aes_gcm256"));
        assert_eq!(
            words("aes256-sha256-x25519-esn", false).as_deref(),
            Some("aes256-sha2_256;dh31")
        );
        assert_eq!(words("aes256gcm16iiv", false), None);
        // Integrity and PRF are one word there.
        assert_eq!(words("aes256-sha256-prfsha512-modp2048", true), None);
        assert_eq!(words("aes256-aescmac-prfsha256-modp2048", true), None);
        assert_eq!(words("aes128ccm16-prfsha256-x25519", true), None);
    }
}
