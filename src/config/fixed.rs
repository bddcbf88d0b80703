//! `[[policy]]`: what needs no SA, in a file without peer.

use core::ops::Range;
use std::sync::Arc;

use super::check::{NAME_RULE, fits_name, report_wrong};
use super::diagnostic::Report;
use super::policy;
use super::raw::{List, Policy, Raw, Text};
use super::selector::{self, Placed};
use crate::ipsec::TrafficSelector;
use crate::ipsec::fixed::{Direction, FixedPolicy, Order, Unroutable, check_routable};

const ACTIONS: &[(&str, bool)] = &[("bypass", true), ("discard", false)];
const DIRECTIONS: &[(&str, Direction)] = &[
    ("both", Direction::Both),
    ("inbound", Direction::Inbound),
    ("outbound", Direction::Outbound),
];
const ORDERS: &[(&str, Order)] = &[("first", Order::First), ("last", Order::Last)];

/// The most selectors of one side: each of one meets each of the other in a rule of the host's routing, and the host asks every
/// rule for every packet.
const MAX_SELECTORS: usize = 8;

/// Every policy of the file; what is wrong goes to the report. `None` only if something did.
pub(super) fn policies(raw: &Raw<'_>, report: &mut Report) -> Option<Vec<FixedPolicy>> {
    without_peer(raw, report);
    let mut found: Vec<(FixedPolicy, &Policy<'_>)> = Vec::new();
    let mut whole = !raw.excused("policy", "");
    for (number, written) in raw.policies.iter().enumerate() {
        match one(raw, written, number + 1, report) {
            Some(policy) => {
                unlike_others(&policy, written, &found, report);
                found.push((policy, written));
            }
            None => whole = false,
        }
    }
    whole.then(|| found.into_iter().map(|(policy, _)| policy).collect())
}

/// Nothing of a peer stands in the same file.
fn without_peer(raw: &Raw<'_>, report: &mut Report) {
    let places = [
        ("[local]", raw.local.span.clone()),
        ("[peer]", raw.peer.span.clone()),
        ("[auth]", raw.auth.span.clone()),
        ("[ike]", raw.ike.span.clone()),
        ("[esp]", raw.esp.span.clone()),
        ("[[child]]", raw.children.first().map(|child| child.span.clone())),
        ("[[manual]]", raw.manual.first().map(|manual| manual.span.clone())),
        ("[interface]", raw.interface.span.clone()),
    ];
    for (table, span) in places {
        let Some(span) = span else { continue };
        let found = report.error(span, format!("{table} in a file with [[policy]]"));
        found.help("policies without SAs have a file of their own, beside those of the peers");
        if let Some(policy) = raw.policies.first() {
            found.related(policy.span.clone(), "the first of them");
        }
    }
}

fn one(
    raw: &Raw<'_>,
    written: &Policy<'_>,
    number: usize,
    report: &mut Report,
) -> Option<FixedPolicy> {
    let name: Option<Arc<str>> = match &written.name {
        None => Some(format!("policy-{number}").into()),
        Some(text) if fits_name(text.get_ref()) => Some(Arc::from(*text.get_ref())),
        Some(text) => {
            let shown = text.get_ref().escape_debug();
            let message = format!("[[policy]] name: `{shown}` cannot be a name");
            report.error(text.span(), message).help(NAME_RULE);
            None
        }
    };
    let bypass = match &written.action {
        Some(text) => policy::choice(text, "[[policy]] action", ACTIONS, report),
        None => {
            if !raw.excused("policy", "action") {
                report
                    .error(written.span.clone(), "`action` is missing in [[policy]]")
                    .help("add action = \"bypass\" or action = \"discard\"");
            }
            None
        }
    };
    let direction = match &written.direction {
        Some(text) => policy::choice(text, "[[policy]] direction", DIRECTIONS, report),
        None => Some(Direction::Both),
    };
    let order = match &written.order {
        Some(text) => policy::choice(text, "[[policy]] order", ORDERS, report),
        None => Some(Order::First),
    };
    let local = side(raw, "local", written.local.as_ref(), report);
    let remote = side(raw, "remote", written.remote.as_ref(), report);
    let policy = FixedPolicy {
        name: name?,
        bypass: bypass?,
        order: order?,
        direction: direction?,
        ts_local: local?,
        ts_remote: remote?,
    };
    sensible(&policy, written, report).then_some(policy)
}

/// The selectors of one side: everything, if nothing is written.
fn side(
    raw: &Raw<'_>,
    name: &str,
    list: Option<&List<'_>>,
    report: &mut Report,
) -> Option<Arc<[TrafficSelector]>> {
    let Some(list) = list else {
        let all = selector::parse("any").ok()?;
        return (!raw.excused("policy", name)).then(|| all.into());
    };
    let key = format!("[[policy]] {name}");
    let mut whole = true;
    let mut placed = Vec::new();
    for item in &list.items {
        match selector::parse(item.get_ref()) {
            Ok(found) => {
                let of = |ts| Placed { ts, span: item.span() };
                placed.extend(found.into_iter().map(of));
            }
            Err(wrong) => {
                whole = false;
                report_wrong(item.span(), &key, wrong, report);
            }
        }
    }
    if list.items.is_empty() {
        whole = false;
        report
            .error(list.span.clone(), format!("{key}: the list is empty"))
            .help("name a subnet, or leave the line out: every address is meant then");
    }
    if placed.len() > MAX_SELECTORS {
        whole = false;
        report
            .error(list.span.clone(), format!("{key}: {} are too many", placed.len()))
            .help(format!("at most {MAX_SELECTORS}: join neighbours to shorter prefixes, or write several policies"));
    }
    for one in &placed {
        let Err(wrong) = check_routable(&one.ts) else { continue };
        whole = false;
        let (why, help) = match wrong {
            Unroutable::Addresses => (
                "is no prefix",
                "the host's routing has to know it too, and takes prefixes alone: \"10.1.0.0/16\"",
            ),
            Unroutable::Ports => (
                "has ports that no rule of the host's routing can have",
                "ports are from 1 to 65534, of TCP, UDP, SCTP or DCCP; for all leave them out: \"10.1.0.0/16[tcp]\", \"10.1.0.0/16[icmp]\"",
            ),
        };
        report.error(one.span.clone(), format!("{key}: {} {why}", one.show())).help(help);
    }
    whole.then(|| placed.into_iter().map(|placed| placed.ts).collect())
}

/// Whether there are packets for it, and others left for the peers.
fn sensible(policy: &FixedPolicy, written: &Policy<'_>, report: &mut Report) -> bool {
    if policy.ways().is_empty() {
        report
            .error(place(written), format!("[[policy]] `{}` matches no packet", policy.name))
            .help("`local` and `remote` need one version of IP, and one protocol, in common");
        return false;
    }
    let all = |side: &[TrafficSelector]| {
        side.iter().any(|ts| Placed { ts: *ts, span: 0..0 }.is_all() && ts.protocol == 0)
    };
    if policy.order == Order::First && all(&policy.ts_local) && all(&policy.ts_remote) {
        let found = report.error(
            place(written),
            format!("[[policy]] `{}` is for everything, and before every tunnel", policy.name),
        );
        found.help("name what it is for by `local` and `remote`, or let it stand after the tunnels: order = \"last\"");
        return false;
    }
    true
}

/// What two of one file must not have in common.
fn unlike_others(
    policy: &FixedPolicy,
    written: &Policy<'_>,
    others: &[(FixedPolicy, &Policy<'_>)],
    report: &mut Report,
) {
    for (other, other_written) in others {
        if other.name == policy.name {
            report
                .error(place(written), format!("[[policy]] name: a second `{}`", policy.name))
                .related(place(other_written), "the first")
                .help("give each its own name");
        }
        if other.order == policy.order && other.covers_all_of(policy) {
            let message = format!(
                "[[policy]] `{}` comes after `{}`, which takes all of its packets",
                policy.name, other.name
            );
            // Without effect it is in either case; wrong where it was to have another.
            let found = if other.bypass == policy.bypass {
                report.warning(place(written), message)
            } else {
                report.error(place(written), message)
            };
            found
                .related(place(other_written), "the first that matches decides")
                .help("put the narrower of the two first, or leave this one out");
        }
    }
}

fn place(written: &Policy<'_>) -> Range<usize> {
    written.name.as_ref().map_or_else(|| written.span.clone(), Text::span)
}
