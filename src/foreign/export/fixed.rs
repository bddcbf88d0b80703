//! Policies that need no SA, seen from the far end: its local side is our remote one.

use core::fmt::Write as _;

use super::Program;
use crate::config::render_selector;
use crate::ipsec::TrafficSelector;
use crate::ipsec::fixed::{Direction, FixedPolicy, Order};

/// The far end's.
///
/// # Errors
/// If that program has none, or none such that it could be told of.
pub(super) fn write(policies: &[FixedPolicy], program: Program) -> Result<String, String> {
    match program {
        Program::Ipsecd => Ok(ipsecd(policies)),
        Program::StrongSwan | Program::StrongSwan6 => Ok(strongswan(policies)),
        Program::Libreswan | Program::OpenIked => Err(
            "policies without IPsec are exported for ipsecd and strongSwan alone: that program has no such words for them"
                .to_owned(),
        ),
    }
}

fn ipsecd(policies: &[FixedPolicy]) -> String {
    let mut out = String::new();
    for policy in policies {
        let action = if policy.bypass { "bypass" } else { "discard" };
        let direction = match policy.direction {
            Direction::Both => Direction::Both,
            Direction::Inbound => Direction::Outbound,
            Direction::Outbound => Direction::Inbound,
        };
        let list = |side: &[TrafficSelector]| {
            let items: Vec<_> =
                side.iter().map(|ts| format!("\"{}\"", render_selector(ts))).collect();
            items.join(", ")
        };
        let (local, remote) = (list(&policy.ts_remote), list(&policy.ts_local));
        let (name, order, direction) = (&policy.name, policy.order.name(), direction.name());
        // A string takes all that is written to it.
        let _done = writeln!(
            out,
            "[[policy]]\nname = \"{name}\"\naction = \"{action}\"\nlocal = [{local}]\nremote = [{remote}]\ndirection = \"{direction}\"\norder = \"{order}\"\n"
        );
    }
    out
}

fn strongswan(policies: &[FixedPolicy]) -> String {
    let mut out = "# swanctl.conf of the far end: policies without IPsec; then: swanctl --load-all\nconnections {\n    policies {\n        children {\n".to_owned();
    for policy in policies {
        let mode = if policy.bypass { "pass" } else { "drop" };
        let list = |side: &[TrafficSelector]| {
            side.iter().map(render_selector).collect::<Vec<_>>().join(", ")
        };
        let (local, remote) = (list(&policy.ts_remote), list(&policy.ts_local));
        let mut comments = Vec::new();
        match (policy.bypass, policy.order) {
            (true, Order::First) | (false, Order::Last) => {}
            (true, Order::Last) => comments.push("stands before every tunnel there, not after"),
            (false, Order::First) => comments.push("stands after every tunnel there, not before"),
        }
        if policy.direction != Direction::Both {
            comments.push("is for both directions there, not for one");
        }
        for comment in comments {
            let _done = writeln!(out, "            # `{}` {comment}", policy.name);
        }
        let _done = writeln!(
            out,
            "            {} {{\n                mode = {mode}\n                local_ts = {local}\n                remote_ts = {remote}\n                start_action = trap\n            }}",
            policy.name
        );
    }
    out.push_str("        }\n    }\n}\n");
    out
}
