//! The SPD that the peers' policies make.

use core::net::IpAddr;

use super::peers::Entry;
use crate::ipsec::{Action, Spd, SpdEntry, TrafficSelector};

/// One entry a child policy. Where two overlap, the one for fewer addresses at the peer's side comes first, so that a
/// subnet inside another is not swallowed by it. Before and after them all come those that need no SA, in the order of their files'
/// names, and in a file in the order in which they stand.
pub fn of<'a>(peers: impl Iterator<Item = &'a Entry> + Clone) -> Spd {
    let mut entries: Vec<(u128, SpdEntry)> = Vec::new();
    for policy in peers.clone().flat_map(|entry| entry.config.policies()) {
        let entry = SpdEntry {
            ts_local: policy.ts_local.into(),
            ts_peer: policy.ts_peer.into(),
            action: Action::Protect(policy.id),
            name: None,
        };
        entries.push((policy.ts_peer.iter().map(size).max().unwrap_or(0), entry));
    }
    // Stable: peers come by name, children in their order.
    entries.sort_by_key(|(size, _)| *size);
    let fixed = peers.flat_map(|entry| {
        let all = entry.config.fixed().iter();
        all.map(|policy| (format!("{}/{}", entry.name(), policy.name).into(), policy))
    });
    Spd::with_fixed(fixed, entries.into_iter().map(|(_, entry)| entry).collect())
}

/// How many addresses it has, less one.
fn size(ts: &TrafficSelector) -> u128 {
    match (ts.start_addr, ts.end_addr) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            u128::from(end.to_bits().saturating_sub(start.to_bits()))
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => end.to_bits().saturating_sub(start.to_bits()),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sample::{config, ike, range};
    use crate::ipsec::PolicyId;

    #[test]
    fn smaller_network_comes_before_the_one_around_it() {
        let entry = |policy, start, end| {
            let mut config = config();
            let child = &mut ike(&mut config).children[0];
            child.policy = PolicyId(policy);
            child.ts_peer = vec![range(start, end)];
            Entry::new(config)
        };
        let peers = [
            entry(1, "0.0.0.0", "255.255.255.255"),
            entry(2, "10.2.9.0", "10.2.9.255"),
            entry(3, "10.2.0.0", "10.2.255.255"),
        ];
        let spd = of(peers.iter());
        let order: Vec<_> = spd.entries().iter().map(|entry| entry.action).collect();
        assert_eq!(order, [2, 3, 1].map(|n| Action::Protect(PolicyId(n))));
    }
}
