//! `children { … }` of a connection.

use super::super::Import;
use super::super::draft::{Child, Draft, Item, Table};
use super::super::policy::Shunt;
use super::super::proposal::{Dialect, translate};
use super::super::selector::{narrowed, subnet};
use super::parse::{Section, Setting};
use super::{duration, left, list, off};
use crate::config::ProposalOf;

/// Settings without counterpart, and why; those without a reason say nothing that would be missed.
const CHILD: &[(&str, &str)] = &[
    ("copy_ecn", ""),
    ("hostaccess", ""),
    ("hw_offload", ""),
    ("if_id_in", "there are no XFRM interfaces: routes lead into a TUN, [interface] name"),
    ("if_id_out", "there are no XFRM interfaces: routes lead into a TUN, [interface] name"),
    ("inactivity", "a CHILD_SA without traffic stays"),
    ("interface", "policies are not bound to an interface"),
    ("ipcomp", "ipsecd does not compress"),
    ("mark_in", "policies look at no marks"),
    ("mark_in_sa", "policies look at no marks"),
    ("mark_out", "policies look at no marks"),
    ("policies", "policies are always there"),
    ("policies_fwd_out", ""),
    ("priority", "of policies that overlap the one with fewer addresses is taken"),
    ("rand_bytes", "nothing is taken off at random"),
    ("rand_packets", "nothing is taken off at random"),
    ("rand_time", "a tenth at most is taken off at random"),
    ("reqid", ""),
    ("set_mark_in", "packets get no marks"),
    ("set_mark_out", "packets get no marks"),
    ("tfc_padding", "padding against traffic analysis is for manual keys alone"),
    ("updown", "no script is run: routes are set by ipsecd, and firewall rules are yours"),
];

/// A child without IPsec, `mode = pass` or `drop`: takes it over. `false` for any other.
pub(super) fn shunt(from: &mut Section, of: &str, import: &mut Import) -> bool {
    let is_shunt = |it: &Setting| matches!(it.value.as_str(), "pass" | "drop");
    let (settings, _) = from.rest();
    let mode = settings.iter().find(|it| it.key == "mode").filter(|it| is_shunt(it)).cloned();
    let Some(mode) = mode else { return false };
    let what = format!("child `{}` of `{of}`", from.name);
    let mut side = |key| from.take(key).map(|it| list(&it)).unwrap_or_default();
    let (local, remote) = (side("local_ts"), side("remote_ts"));
    let start = from.take("start_action").map(|it| it.value).unwrap_or_default();
    import.add_shunt(&Shunt {
        name: &from.name,
        what: &what,
        at: &mode.at,
        bypass: mode.value == "pass",
        local,
        remote,
        is_installed: start_word(&start) != "respond",
    });
    let _known = from.take("mode");
    left(from, CHILD, &what, import);
    true
}

pub(super) fn child(mut from: Section, draft: &Draft, import: &mut Import) -> Option<Child> {
    let at = from.at.clone();
    let what = format!("child `{}` of `{}`", from.name, draft.name);
    let mut child = Child { name: from.name.clone(), at: Some(at.clone()), ..Child::default() };
    if let Some(mode) = from.take("mode") {
        match mode.value.as_str() {
            "tunnel" => {}
            "transport" | "transport_proxy" => child.kind.text("mode", "transport"),
            other => {
                import.leave_out(&mode.at, what, format!("ipsecd has no mode `{other}`"));
                return None;
            }
        }
    }
    // AH and ESP in one, or an offer of either: ESP is taken.
    let (esp, ah) = (from.take("esp_proposals"), from.take("ah_proposals"));
    let is_ah = ah.is_some() && esp.is_none();
    if is_ah {
        child.kind.text("protocol", "ah");
    } else if let Some(ah) = &ah {
        import.note(&ah.at, format!("ah_proposals of {what}"), "beside ESP there is no AH");
    }
    let shortened = from.take("sha256_96").is_some_and(|it| it.value == "yes");
    if let Some(setting) = esp.or(ah) {
        let of = if is_ah { ProposalOf::Ah } else { ProposalOf::Esp };
        let text =
            if shortened { setting.value.replace("sha256", "sha256_96") } else { setting.value };
        if let Some(found) = translate(&text, of, Dialect::StrongSwan, &[], &setting.at, import) {
            child.kind.list("proposals", found.list);
            if found.legacy {
                child.esp.plain("allow-legacy", true);
            }
        }
    }
    let start = from.take("start_action");
    child.kind.text("start", start_word(start.as_ref().map_or("none", |it| &it.value)));
    let (local, peer) = (from.take("local_ts"), from.take("remote_ts"));
    child.local = selectors(local.as_ref(), &draft.local, "virtual", &what, import)?;
    child.peer = selectors(peer.as_ref(), &draft.peer, "pool", &what, import)?;
    let without_end = |side: &Table, given: &str, list: &[String]| {
        list.is_empty() && !side.has(given) && !side.has("address")
    };
    if without_end(&draft.local, "virtual", &child.local) {
        import.leave_out(&at, what, "local_ts is whatever address routing chooses: write our subnet, or our address, there first");
        return None;
    }
    limits(&mut child, &mut from, import);
    for (key, name) in [("dpd_action", "dpd-action"), ("close_action", "close-action")] {
        let Some(setting) = from.take(key) else { continue };
        let action = match setting.value.as_str() {
            "start" | "restart" => "restart",
            "trap" | "hold" => "hold",
            _ => "clear",
        };
        child.ike.text(name, action);
    }
    if let Some(window) = from.take("replay_window").and_then(|it| it.value.parse::<u32>().ok()) {
        let window = if window == 0 { 0 } else { window.clamp(32, 8192) };
        child.esp.plain("replay-window", window);
    }
    if from.take("copy_df").is_some_and(|it| it.value == "no") {
        child.esp.text("df", "clear");
    }
    if from.take("copy_dscp").is_some_and(|it| matches!(it.value.as_str(), "no" | "in")) {
        child.esp.plain("dscp", 0);
    }
    left(&from, CHILD, &what, import);
    Some(child)
}

/// `trap|start` is both; the first that needs no packet counts.
pub(super) fn start_word(action: &str) -> &'static str {
    let has = |word: &str| action.split('|').any(|part| part.trim() == word);
    if has("start") {
        "now"
    } else if has("trap") || has("route") {
        "on-traffic"
    } else {
        "respond"
    }
}

fn limits(child: &mut Child, from: &mut Section, import: &mut Import) {
    for (theirs, ours) in [("rekey_time", "rekey-time"), ("life_time", "life-time")] {
        if let Some(seconds) = from.take(theirs).and_then(|it| duration(&it, import)) {
            child.esp.text(ours, off(seconds));
        }
    }
    for (theirs, ours) in [
        ("rekey_bytes", "rekey-bytes"),
        ("life_bytes", "life-bytes"),
        ("rekey_packets", "rekey-packets"),
        ("life_packets", "life-packets"),
    ] {
        let Some(setting) = from.take(theirs) else { continue };
        match amount(&setting) {
            Some(0) => child.esp.text(ours, "off"),
            Some(number) => child.esp.plain(ours, number),
            None => import.note(
                &setting.at,
                format!("{theirs} = {}", setting.value),
                "it is no amount: left out",
            ),
        }
    }
}

/// `500M`, `1G`: strongSwan counts in powers of 1024.
fn amount(setting: &Setting) -> Option<u64> {
    let text = setting.value.trim();
    let (digits, shift) = match text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']) {
        Some(digits) => (
            digits,
            if text.ends_with(['k', 'K']) {
                10
            } else if text.ends_with(['m', 'M']) {
                20
            } else {
                30
            },
        ),
        None => (text, 0),
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Selectors of one side; none where they are the side's own address. `None` if the child was left out.
fn selectors(
    setting: Option<&Setting>,
    side: &Table,
    given: &str,
    what: &str,
    import: &mut Import,
) -> Option<Vec<String>> {
    let Some(setting) = setting else { return Some(Vec::new()) };
    let mut found = Vec::new();
    let leave_out = |text: &str, why: &str, import: &mut Import| {
        import.leave_out(&setting.at, format!("{what}: {} `{text}`", setting.key), why);
        None
    };
    for text in list(setting) {
        let (address, rest) = match text.split_once('[') {
            Some((address, rest)) => (address.trim(), rest.trim_end_matches(']')),
            None => (text.as_str(), ""),
        };
        let Some(narrowed) = narrowed(rest) else {
            return leave_out(&text, "it is narrowed to what ipsecd cannot narrow to", import);
        };
        let address = match address {
            "dynamic" | "%dynamic" if narrowed.is_empty() => continue,
            "dynamic" | "%dynamic" => match side.get("address") {
                Some(Item::Text(address))
                    if !side.has(given) && address.parse::<core::net::IpAddr>().is_ok() =>
                {
                    address.clone()
                }
                _ => {
                    return leave_out(
                        &text,
                        "an address that is not known cannot be narrowed to protocol and ports",
                        import,
                    );
                }
            },
            other => match subnet(other) {
                Some(subnet) => subnet,
                None => return leave_out(&text, "it is no subnet, address or range", import),
            },
        };
        let made = format!("{address}{narrowed}");
        if crate::config::read_selectors(&made).is_err() {
            return leave_out(&text, "ipsecd cannot read it", import);
        }
        if side.has(given) {
            import.note(
                &setting.at,
                format!("{what}: {} `{text}`", setting.key),
                "where addresses are given by the Configuration payload, the selectors are those",
            );
            continue;
        }
        found.push(made);
    }
    Some(found)
}
