//! The CHILD_SAs of a peer: that of `[local]` and `[peer] subnets`, or each `[[child]]`.

use core::net::IpAddr;
use core::ops::Range;
use std::sync::Arc;

use super::check::{NAME_RULE, fits_name, report_wrong, require};
use super::diagnostic::Report;
use super::policy::{self, Esp, Kind};
use super::raw::{self, List, Raw, Side, Text};
use super::selector::{self, Placed};
use super::{address, value};
use crate::ipsec::pad::{ChildPolicy, EncapPolicy};
use crate::ipsec::suite::Protocol;
use crate::ipsec::{Mode, PolicyId, TrafficSelector};

/// The most selectors of one side. The count in a TS payload is one byte (RFC 7296 §3.13), and each selector of one
/// side meets each of the other in the SPD.
const MAX_SUBNETS: usize = 32;

/// What all CHILD_SAs of a file have in common.
struct File<'r> {
    raw: &'r Raw<'r>,
    /// `[local]` and `[peer] address`.
    addresses: [Option<IpAddr>; 2],
    esp: Option<&'r Esp>,
}

/// Every CHILD_SA; what is wrong goes to the report. `None` only if something did. `any`: the peer may be anywhere.
pub(super) fn children(
    raw: &Raw<'_>,
    name: Option<&Arc<str>>,
    addresses: [Option<IpAddr>; 2],
    esp: Option<&Esp>,
    any: bool,
    report: &mut Report,
) -> Option<Vec<ChildPolicy>> {
    let file = File { raw, addresses, esp };
    let all = &raw.children;
    let alone = all.is_empty();
    let given =
        |section: &str| raw.excused(section, if section == "local" { "virtual" } else { "pool" });
    let missing = |section: &str| {
        raw.excused(section, "subnets") || raw.excused("child", "") || given(section)
    };
    let needs_local = alone && !missing("local") || all.iter().any(|child| child.local.is_none());
    let needs_peer = alone && !missing("peer") || all.iter().any(|child| child.peer.is_none());
    let [local_ip, peer_ip] = addresses;
    // Whatever is written is looked at.
    let local = (needs_local || raw.local.subnets.is_some())
        .then(|| subnets(raw, "local", &raw.local, local_ip, report));
    let peer = (needs_peer || raw.peer.subnets.is_some())
        .then(|| subnets(raw, "peer", &raw.peer, peer_ip, report));
    let (local, peer) = (local.flatten(), peer.flatten());
    if alone {
        if let (Some(local), Some(peer)) = (&local, &peer) {
            across(raw, "subnets", local, peer, report);
        }
        let kind = esp.map(|esp| esp.kind.clone());
        let mode_at = raw.esp.kind.mode.as_ref();
        let child = file.policy(name.cloned(), kind, mode_at, local, peer, report);
        return child.map(|child| vec![child]);
    }
    let mut found: Vec<(ChildPolicy, &raw::Child<'_>)> = Vec::new();
    let mut whole = true;
    for (i, child) in all.iter().enumerate() {
        let kind = esp.and_then(|esp| {
            let legacy = raw.esp.allow_legacy == Some(true);
            policy::kind(&child.kind, "[[child]]", legacy, any, Some(&esp.kind), report)
        });
        let side = |list: &Option<List<'_>>, name, base: &Option<Vec<Placed>>, report: &mut _| {
            match list {
                Some(list) => selectors(&format!("[[child]] {name}"), list, report),
                None => base.clone(),
            }
        };
        let ours = side(&child.local, "local", &local, report);
        let theirs = side(&child.peer, "peer", &peer, report);
        if let (Some(ours), Some(theirs)) = (&ours, &theirs) {
            across(raw, "[[child]]", ours, theirs, report);
        }
        let name = child_name(child, i + 1, report);
        let mode_at = child.kind.mode.as_ref().or(raw.esp.kind.mode.as_ref());
        match file.policy(name, kind, mode_at, ours, theirs, report) {
            Some(policy) => {
                unlike_others(&policy, child, &found, report);
                found.push((policy, child));
            }
            None => whole = false,
        }
    }
    whole.then(|| found.into_iter().map(|(policy, _)| policy).collect())
}

impl File<'_> {
    fn policy(
        &self,
        name: Option<Arc<str>>,
        kind: Option<Kind>,
        mode_at: Option<&Text<'_>>,
        local: Option<Vec<Placed>>,
        peer: Option<Vec<Placed>>,
        report: &mut Report,
    ) -> Option<ChildPolicy> {
        if let (Some(kind), Some(esp), Some(at)) = (&kind, self.esp, &self.raw.esp.encap)
            && kind.protocol == Protocol::Ah
            && esp.encap == EncapPolicy::Udp
        {
            report
                .error(at.span(), "[esp] encap: AH cannot go in UDP (RFC 3948 §1)")
                .help("protocol = \"esp\", or leave `encap` out");
        }
        if kind.as_ref().is_some_and(|kind| kind.mode == Mode::Transport) {
            let mode_at = mode_at.map_or(0..0, Text::span);
            let given = [&self.raw.local.virtual_addresses, &self.raw.peer.pool];
            if let Some(list) = given.into_iter().flatten().next() {
                report
                    .error(list.span.clone(), "transport mode has no place for another address")
                    .related(mode_at.clone(), "transport mode")
                    .help("mode = \"tunnel\", or leave this line out");
                return None;
            }
            let [local_ip, peer_ip] = self.addresses;
            for (section, address, side, placed) in [
                ("local", local_ip, &self.raw.local, &local),
                ("peer", peer_ip, &self.raw.peer, &peer),
            ] {
                transport_side(section, address, side, placed.as_deref(), &mode_at, report);
            }
        }
        let (esp, kind) = (self.esp?, kind?);
        let list = |side: Vec<Placed>| side.into_iter().map(|placed| placed.ts).collect();
        Some(ChildPolicy {
            name: name?,
            policy: PolicyId(0),
            proposals: kind.proposals,
            mode: kind.mode,
            or_tunnel: kind.or_tunnel,
            start: kind.start,
            ts_local: list(local?),
            ts_peer: list(peer?),
            lifetime: esp.lifetime,
            per_resource: esp.per_resource,
            replay_window: esp.replay_window,
            df: esp.df,
            dscp: esp.dscp,
        })
    }
}

fn child_name(child: &raw::Child<'_>, number: usize, report: &mut Report) -> Option<Arc<str>> {
    let Some(name) = &child.name else { return Some(format!("child-{number}").into()) };
    if !fits_name(name.get_ref()) {
        let shown = name.get_ref().escape_debug();
        report
            .error(name.span(), format!("[[child]] name: `{shown}` cannot be a name"))
            .help(NAME_RULE);
        return None;
    }
    Some(Arc::from(*name.get_ref()))
}

/// No two have one name, or are for exactly the same packets.
fn unlike_others(
    policy: &ChildPolicy,
    child: &raw::Child<'_>,
    others: &[(ChildPolicy, &raw::Child<'_>)],
    report: &mut Report,
) {
    for (other, at) in others {
        if other.name == policy.name {
            let span = child.name.as_ref().map_or_else(|| child.span.clone(), Text::span);
            report
                .error(span, format!("[[child]] name: there are two `{}`", policy.name))
                .related(at.span.clone(), "the other")
                .help("each has a name of its own");
        }
        if (&other.ts_local, &other.ts_peer) == (&policy.ts_local, &policy.ts_peer) {
            report
                .error(
                    child.span.clone(),
                    format!(
                        "[[child]] `{}` is for the same packets as `{}`",
                        policy.name, other.name
                    ),
                )
                .related(at.span.clone(), "the other")
                .help(
                    "give them different selectors: local, peer, or a protocol and ports in them",
                );
        }
    }
}

fn subnets(
    raw: &Raw<'_>,
    section: &str,
    side: &Side<'_>,
    address: Option<IpAddr>,
    report: &mut Report,
) -> Option<Vec<Placed>> {
    match address::given(side) {
        Some(None) => {}
        given => return given.flatten(),
    }
    let Some(list) = &side.subnets else {
        // The type of what is there was wrong already, or the whole side was.
        if raw.excused(section, "subnets") {
            return None;
        }
        if let (Some(address), Some(text)) = (address, &side.address) {
            return Some(vec![Placed {
                ts: TrafficSelector::from_addr(address),
                span: text.span(),
            }]);
        }
        if side.address.as_ref().is_none_or(|text| !value::looks_like_address(text.get_ref())) {
            let why = "; it can be left out only where `address` is an address";
            require(raw, section, side.span.as_ref(), "subnets", why, report);
        }
        return None;
    };
    selectors(&format!("[{section}] subnets"), list, report)
}

/// The selectors of a list, no two of which have a packet in common.
fn selectors(key: &str, list: &List<'_>, report: &mut Report) -> Option<Vec<Placed>> {
    let placed = read(key, list, report)?;
    for (i, later) in placed.iter().enumerate() {
        let earlier = placed[..i].iter().find(|earlier| earlier.ts.intersect(&later.ts).is_some());
        if let Some(earlier) = earlier {
            let message = format!("{key}: {} overlaps {}", later.show(), earlier.show());
            report.error(later.span.clone(), message).related(earlier.span.clone(), "overlaps this").help(
                if earlier.ts == later.ts {
                    "leave one of them out"
                } else {
                    "leave the smaller out, it is part of the larger; or write ranges that do not meet"
                },
            );
        }
    }
    // An error is in the report; the other side can be looked at all the same.
    Some(placed)
}

fn read(key: &str, list: &List<'_>, report: &mut Report) -> Option<Vec<Placed>> {
    let mut placed = Vec::new();
    let mut fine = list.whole;
    for item in &list.items {
        match selector::parse(item.get_ref()) {
            Ok(found) => {
                placed.extend(found.into_iter().map(|ts| Placed { ts, span: item.span() }));
            }
            Err(wrong) => {
                fine = false;
                report_wrong(item.span(), key, wrong, report);
            }
        }
    }
    if list.items.is_empty() {
        fine = false;
        report
            .error(list.span.clone(), format!("{key}: the list is empty"))
            .help("name a subnet, or leave the line out where `address` is an address: that host is meant then");
    }
    if placed.len() > MAX_SUBNETS {
        fine = false;
        report
            .error(list.span.clone(), format!("{key}: {} are too many", placed.len()))
            .help(format!("at most {MAX_SUBNETS}: join neighbours to shorter prefixes"));
    }
    fine.then_some(placed)
}

/// Transport mode is between two hosts, whose addresses the packets themselves have.
fn transport_side(
    section: &str,
    address: Option<IpAddr>,
    side: &Side<'_>,
    subnets: Option<&[Placed]>,
    mode_at: &Range<usize>,
    report: &mut Report,
) {
    let Some(address) = address else {
        // What is no address though it looks like one is an error already.
        if side.address.as_ref().is_none_or(|text| !value::looks_like_address(text.get_ref())) {
            let at = side.address.as_ref().map_or_else(|| mode_at.clone(), Text::span);
            report
                .error(at, format!("transport mode needs an address in [{section}]"))
                .help("the packets themselves have it, so that a name, or what routing chooses, cannot stand for it");
        }
        return;
    };
    for placed in subnets.unwrap_or_default() {
        if (placed.ts.start_addr, placed.ts.end_addr) != (address, address) {
            report
                .error(placed.span.clone(), format!("{} of [{section}] in transport mode", placed.show()))
                .related(mode_at.clone(), "transport mode")
                .help(format!("transport mode is between the two hosts alone: \"{address}\", or leave the line out"));
        }
    }
}

/// What one side's subnets have to do with the other's.
fn across(raw: &Raw<'_>, key: &str, local: &[Placed], peer: &[Placed], report: &mut Report) {
    // Of an address that is asked for nothing is known but its version.
    let is_known = raw.local.virtual_addresses.is_none();
    for theirs in peer {
        let ours = local.iter().filter(|_| is_known).find(|ours| {
            // Everything beside something is a default route: the longer prefix wins, as in any routing table.
            ours.shares_addresses_with(theirs) && ours.is_all() == theirs.is_all()
        });
        if let Some(ours) = ours {
            let message = format!(
                "{key} of both sides overlap: {} in [local], {} in [peer]",
                ours.show(),
                theirs.show()
            );
            report
                .error(theirs.span.clone(), message)
                .label("the peer's")
                .related(ours.span.clone(), "ours")
                .help("an address can be on one side only: give each side its own subnets");
        }
    }
    for (side, these, those) in [("local", local, peer), ("peer", peer, local)] {
        for lonely in these {
            let alone = !those.iter().any(|other| other.is_ipv6() == lonely.is_ipv6());
            // `any` is both versions, of which the other side may have one.
            if alone && !lonely.is_all() {
                let version = if lonely.is_ipv6() { 6 } else { 4 };
                let other = if side == "local" { "peer" } else { "local" };
                report
                    .error(
                        lonely.span.clone(),
                        format!(
                            "{}: {} has no IPv{version} subnet opposite",
                            if key == "subnets" {
                                format!("[{side}] subnets")
                            } else {
                                format!("{key} {side}")
                            },
                            lonely.show()
                        ),
                    )
                    .help(format!(
                        "add an IPv{version} subnet to [{other}], or leave this one out"
                    ));
            }
        }
    }
}
