//! The SPD that the peers' policies make.

use core::net::IpAddr;

use super::peers::Entry;
use crate::ipsec::{Action, Spd, SpdEntry, TrafficSelector};

/// One entry a child policy. Where two overlap, the one for fewer addresses at the peer's side comes first, so that a
/// subnet inside another is not swallowed by it.
pub fn of<'a>(peers: impl Iterator<Item = &'a Entry>) -> Spd {
    let mut entries: Vec<(u128, SpdEntry)> = Vec::new();
    for child in peers.flat_map(|entry| &entry.config.peer.children) {
        let entry = SpdEntry {
            ts_local: child.ts_local.clone().into(),
            ts_peer: child.ts_peer.clone().into(),
            action: Action::Protect(child.policy),
        };
        entries.push((child.ts_peer.iter().map(size).max().unwrap_or(0), entry));
    }
    // Stable: peers come by name, children in their order.
    entries.sort_by_key(|(size, _)| *size);
    Spd::new(entries.into_iter().map(|(_, entry)| entry).collect())
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
