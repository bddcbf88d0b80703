//! [`Spd`]: the Security Policy Database (RFC 4301 §4.4.1): an ordered list of entries, of which the first that matches
//! decides.
//!
//! Owns which traffic is protected under which policy. Whether the policy has an SA is the SAD's.

use std::sync::Arc;

use super::selector::matches_pair;
use super::{Flow, PolicyId, TrafficSelector};

/// What becomes of matching traffic (RFC 4301 §4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes unprotected.
    Bypass,
    /// It is dropped.
    Discard,
    /// It passes under an SA of this policy.
    Protect(PolicyId),
}

/// One entry: traffic between any of one list and any of the other.
#[derive(Clone, Debug)]
pub struct SpdEntry {
    /// Selectors of our side.
    pub ts_local: Arc<[TrafficSelector]>,
    /// Selectors of the peer's side.
    pub ts_peer: Arc<[TrafficSelector]>,
    /// What becomes of it.
    pub action: Action,
}

/// The ordered entries, as a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Spd {
    entries: Arc<[SpdEntry]>,
}

impl Spd {
    /// The first entry comes first.
    #[must_use]
    pub fn new(entries: Vec<SpdEntry>) -> Self {
        Self { entries: entries.into() }
    }

    /// What is to be done with an outbound packet; `None` if no entry matches, which means DISCARD (RFC 4301 §5.1).
    #[must_use]
    pub fn lookup_out(&self, flow: &Flow) -> Option<Action> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| matches_pair(&entry.ts_local, &entry.ts_peer, flow))?;
        Some(entry.action)
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[SpdEntry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(src: &str, dst: &str) -> Flow {
        Flow {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol: 17,
            ports: Some((1000, 53)),
        }
    }

    fn entry(local: &str, peer: &str, action: Action) -> SpdEntry {
        let list = |text: &str| -> Arc<[TrafficSelector]> {
            text.split(' ')
                .map(|prefix| {
                    let (addr, len) = prefix.split_once('/').unwrap();
                    TrafficSelector::from_prefix(addr.parse().unwrap(), len.parse().unwrap())
                        .unwrap()
                })
                .collect()
        };
        SpdEntry { ts_local: list(local), ts_peer: list(peer), action }
    }

    #[test]
    fn the_first_match_decides() {
        let spd = Spd::new(vec![
            entry("10.1.0.0/16", "10.2.9.0/24", Action::Discard),
            entry("10.1.0.0/16 fd01::/64", "10.2.0.0/16 fd02::/64", Action::Protect(PolicyId(7))),
            entry("0.0.0.0/0", "10.2.0.0/16", Action::Bypass),
        ]);
        let protect = Some(Action::Protect(PolicyId(7)));
        assert_eq!(spd.lookup_out(&flow("10.1.0.1", "10.2.9.1")), Some(Action::Discard));
        assert_eq!(spd.lookup_out(&flow("10.1.0.1", "10.2.8.1")), protect);
        assert_eq!(spd.lookup_out(&flow("fd01::1", "fd02::1")), protect);
        assert_eq!(spd.lookup_out(&flow("10.3.0.1", "10.2.8.1")), Some(Action::Bypass));
    }

    #[test]
    fn what_no_entry_matches_has_no_action() {
        let spd = Spd::new(vec![entry("10.1.0.0/16", "10.2.0.0/16", Action::Bypass)]);
        assert_eq!(spd.lookup_out(&flow("10.2.0.1", "10.1.0.1")), None, "the other direction");
        assert_eq!(Spd::default().lookup_out(&flow("10.1.0.1", "10.2.0.1")), None);
    }
}
