//! An iked.conf of OpenIKED.

use super::{Far, Proof, is_ah, is_transport, narrowed, other_start, quoted};
use crate::config::{self, render_child, render_ike};
use crate::ipsec::pad::{ChildPolicy, EncapPolicy, Fragments, StartPolicy};

pub(super) fn write(far: &Far<'_>) -> String {
    let policy = &far.peer.ike;
    let mut out = String::from("# iked.conf of the far end, for OpenIKED 7 and later\n");
    out += if policy.mobike { "set mobike\n" } else { "set nomobike\n" };
    out += if policy.fragmentation.fragments == Fragments::No {
        "set nofragmentation\n"
    } else {
        "set fragmentation\n"
    };
    if let Some(time) = policy.dpd_delay {
        out += &format!("set dpd_check_interval {}\n", time.as_secs().max(1));
    }
    match policy.encap {
        EncapPolicy::Auto => {}
        EncapPolicy::Udp => out += "# ESP always in UDP: start iked with -t\n",
        EncapPolicy::None => {
            out += "# The other end refuses ESP in UDP: no NAT may be between the two.\n"
        }
    }
    if far.peer.ppk.is_some() {
        out += "# The other end has a post-quantum preshared key, which OpenIKED has not: this fails where it is required\n";
    }
    if policy.reauth_time.is_some() || policy.childless {
        out += "# Neither reauthentication nor childless IKE_AUTH can be said here.\n";
    }
    for child in &far.peer.children {
        one(far, child, &mut out);
    }
    out
}

fn one(far: &Far<'_>, child: &ChildPolicy, out: &mut String) {
    let mut lines: Vec<String> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    // It has two ways: to begin, for which it wants an address, and to wait.
    let begins = matches!(other_start(child.start), StartPolicy::Now | StartPolicy::OnTraffic);
    let mode = if begins && far.remote_address().is_some() { "active" } else { "passive" };
    let kind = if is_transport(child) { "transport" } else { "tunnel" };
    let protocol = if is_ah(child) { "ah" } else { "esp" };
    lines.push(format!("ikev2 {} {mode} {kind} {protocol}", quoted(&child.name)));
    let mut protocols: Vec<String> = Vec::new();
    let mut pairs = Vec::new();
    for theirs in &child.ts_peer {
        for ours in &child.ts_local {
            if theirs.start_addr.is_ipv6() != ours.start_addr.is_ipv6() {
                continue;
            }
            let mut side = |ts: &crate::ipsec::TrafficSelector, protocols: &mut Vec<String>| {
                let Some(inside) = narrowed(ts) else { return String::new() };
                let (protocol, port) = inside.split_once('/').unwrap_or((&inside, ""));
                if !protocols.iter().any(|it| it == protocol) {
                    protocols.push(protocol.to_owned());
                }
                if port.contains('-') {
                    notes.push(format!("OpenIKED has no ranges of ports: not {port}"));
                    return String::new();
                }
                if port.is_empty() { String::new() } else { format!(" port {port}") }
            };
            let (from_port, to_port) = (side(theirs, &mut protocols), side(ours, &mut protocols));
            // It has no ranges.
            for (from, from_len) in theirs.prefixes() {
                for (to, to_len) in ours.prefixes() {
                    pairs.push(format!(
                        "from {from}/{from_len}{from_port} to {to}/{to_len}{to_port}"
                    ));
                }
            }
        }
    }
    if let [protocol] = protocols.as_slice() {
        lines.push(format!("proto {protocol}"));
    } else if protocols.len() > 1 {
        notes.push(format!("a policy has one protocol; wanted are {}", protocols.join(", ")));
    }
    if far.peer.pool.is_some() {
        lines.push("request address any".to_owned());
    }
    if far.peer.request.is_some() {
        notes.push("config address NETWORK: the addresses that this end gives".to_owned());
    }
    lines.extend(pairs);
    let local = far.local_address().map_or_else(String::new, |it| format!("local {it} "));
    match far.remote_address() {
        Some(address) => lines.push(format!("{local}peer {address}")),
        None => {
            notes.push(far.unknown().to_owned());
            if begins {
                notes.push("active in place of passive, once peer is an address".to_owned());
            }
            lines.push(format!("{local}peer any"));
        }
    }
    for proposal in &far.peer.ike.proposals {
        let text = render_ike(proposal);
        match words(&text, true) {
            Some(words) => lines.push(format!("ikesa {words}")),
            None => notes.push(format!("OpenIKED has no words for {text}")),
        }
    }
    for proposal in &child.proposals {
        let text = render_child(proposal);
        match words(&text, false) {
            Some(words) => lines.push(format!("childsa {words}")),
            None => notes.push(format!("OpenIKED has no words for {text}")),
        }
    }
    match far.local_id() {
        Some(id) => lines.push(format!("srcid {}", quoted(&config::render_identity(id)))),
        None => notes
            .push("srcid WHO: who this end is; the other takes whoever holds the key".to_owned()),
    }
    lines.push(format!("dstid {}", quoted(&config::render_identity(far.remote_id()))));
    if let Some(time) = far.peer.ike.rekey_time {
        lines.push(format!("ikelifetime {}", time.as_secs().max(1)));
    }
    if let Some(time) = child.lifetime.soft_time {
        let bytes = child.lifetime.soft_bytes.map_or_else(String::new, |it| format!(" bytes {it}"));
        lines.push(format!("lifetime {}{bytes}", time.as_secs().max(1)));
    }
    match (far.local_proof(), far.remote_proof()) {
        (Proof::Psk, Proof::Psk) => match far.psk().filter(|_| far.options.secrets) {
            // Hex is taken as bytes.
            Some(psk) => lines.push(format!("psk 0x{}", hex(psk.expose()))),
            None => {
                notes.push("psk: the line of the other end's psk, in place of KEY".to_owned());
                lines.push("psk \"KEY\"".to_owned());
            }
        },
        (Proof::Certificate | Proof::RawKey, Proof::Certificate | Proof::RawKey) => {
            let file = far.file(far.local_id(), "pem");
            notes.push(format!("{file} as /etc/iked/certs/{}, its key as /etc/iked/private/local.key, the CA of the other end in /etc/iked/ca", file.replace(".pem", ".crt")));
        }
        (Proof::EapMsChapV2, _) | (_, Proof::EapMsChapV2) => {
            notes.push("EAP-MSCHAPv2: users are lines `user NAME PASSWORD`".to_owned());
            lines.push("eap \"mschap-v2\"".to_owned());
        }
        _ => notes.push("OpenIKED cannot prove the two sides in different ways".to_owned()),
    }
    out.push('\n');
    for note in notes {
        *out += &format!("# {note}\n");
    }
    *out += &lines.join(" \\\n\t");
    out.push('\n');
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A proposal in iked.conf's words; `None` if it has none for a part of it.
fn words(text: &str, is_ike: bool) -> Option<String> {
    let has_prf = text.contains("-prf");
    let mut out = Vec::new();
    for word in text.split('-') {
        let made = match word {
            "aes128" | "aes192" | "aes256" => format!("enc {}", word.replace("aes", "aes-")),
            "aes128gcm16" => "enc aes-128-gcm".to_owned(),
            "aes256gcm16" => "enc aes-256-gcm".to_owned(),
            "aes128gcm12" if is_ike => "enc aes-128-gcm-12".to_owned(),
            "aes256gcm12" if is_ike => "enc aes-256-gcm-12".to_owned(),
            "aes128ctr" | "aes192ctr" | "aes256ctr" if !is_ike => {
                format!("enc aes-{}-ctr", &word[3..6])
            }
            "aes128gmac" | "aes192gmac" | "aes256gmac" if !is_ike => {
                format!("enc aes-{}-gmac", &word[3..6])
            }
            "chacha20poly1305" if !is_ike => "enc chacha20-poly1305".to_owned(),
            "null" if !is_ike => "enc null".to_owned(),
            "sha1" => "auth hmac-sha1".to_owned(),
            "sha256" | "sha384" | "sha512" => {
                let hash = word.replace("sha", "sha2-");
                if is_ike && !has_prf {
                    format!("auth hmac-{hash} prf hmac-{hash}")
                } else {
                    format!("auth hmac-{hash}")
                }
            }
            "prfsha256" | "prfsha384" | "prfsha512" => {
                format!("prf hmac-{}", word[3..].replace("sha", "sha2-"))
            }
            "x25519" => "group curve25519".to_owned(),
            "ecp256" | "ecp384" | "ecp521" | "modp2048" | "modp3072" | "modp4096" | "modp6144"
            | "modp8192" => format!("group {word}"),
            "esn" | "noesn" => word.to_owned(),
            _ => return None,
        };
        out.push(made);
    }
    Some(out.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_have_openikeds_words() {
        assert_eq!(
            words("aes256gcm16-prfsha384-x25519", true).as_deref(),
            Some("enc aes-256-gcm prf hmac-sha2-384 group curve25519")
        );
        assert_eq!(
            words("aes256-sha256-modp2048", false).as_deref(),
            Some("enc aes-256 auth hmac-sha2-256 group modp2048")
        );
        assert_eq!(words("aes256gcm16-prfsha384-x25519-ke1_mlkem768", true), None);
    }
}
