//! [`Spd`]: the Security Policy Database (RFC 4301 §4.4.1): an ordered list of entries, of which the first that matches
//! decides.
//!
//! Owns which traffic is protected under which policy. Whether the policy has an SA is the SAD's.
//!
//! The order is the meaning, and the index only the way to find it: it tells which entries can match a destination, so that
//! one of ten thousand tunnels costs a packet what one of one does.

mod index;

use std::sync::Arc;

use super::selector::matches_pair;
use super::{Flow, PolicyId, TrafficSelector};
use index::Index;

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
    /// How it is called, if that is not by its policy.
    pub name: Option<Arc<str>>,
}

/// The ordered entries, as a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Spd {
    entries: Arc<[SpdEntry]>,
    index: Arc<Index>,
    /// How many stand before those that say PROTECT.
    first: usize,
}

impl Spd {
    /// The first entry comes first.
    #[must_use]
    pub fn new(entries: Vec<SpdEntry>) -> Self {
        let index = Arc::new(Index::of(&entries));
        Self { entries: entries.into(), index, first: 0 }
    }

    pub(super) const fn with_first(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// Whether an entry that stands before all that say PROTECT has a packet dropped that came on an SA (RFC 4301 §5.2): its
    /// selectors are no part of those of any SA (§4.4.1, decorrelation).
    #[must_use]
    #[inline]
    pub fn discards_first(&self, flow: &Flow) -> bool {
        self.first > 0
            && self
                .position_out(flow)
                .is_some_and(|at| at < self.first && self.entries[at].action == Action::Discard)
    }

    /// What is to be done with an outbound packet; `None` if no entry matches, which means DISCARD (RFC 4301 §5.1).
    #[must_use]
    pub fn lookup_out(&self, flow: &Flow) -> Option<Action> {
        self.position_out(flow).map(|at| self.entries[at].action)
    }

    /// Which entry says so, by its place among [`entries`](Self::entries).
    #[must_use]
    pub fn position_out(&self, flow: &Flow) -> Option<usize> {
        self.index.may_match(flow.dst).find(|&at| {
            let entry = &self.entries[at];
            matches_pair(&entry.ts_local, &entry.ts_peer, flow)
        })
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
        SpdEntry { ts_local: list(local), ts_peer: list(peer), action, name: None }
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
    fn the_index_finds_what_looking_through_all_would() {
        // Networks within networks, some over everything, several of one size.
        let mut entries = Vec::new();
        for number in 0..300_u32 {
            let peer = match number % 5 {
                0 => format!("10.{}.0.0/16", number % 7),
                1 => format!("10.{}.{}.0/24 10.{}.0.0/16", number % 7, number % 11, number % 3),
                2 => format!(
                    "10.{}.{}.{}/32 fd02::{number:x}/128",
                    number % 7,
                    number % 11,
                    number % 4
                ),
                3 => "0.0.0.0/0".to_owned(),
                _ => format!("fd02::/{} 255.255.255.255/32", number % 129),
            };
            let local = if number < 290 { "10.1.0.0/24 fd01::/64" } else { "0.0.0.0/0 ::/0" };
            entries.push(entry(local, &peer, Action::Protect(PolicyId(number))));
        }
        let spd = Spd::new(entries);
        let destinations = (0..7 * 11 * 4).map(|n| format!("10.{}.{}.{}", n % 7, n % 11, n % 4));
        let destinations = destinations
            .chain((0..300).map(|n| format!("fd02::{n:x}")))
            .chain(["0.0.0.0", "255.255.255.255", "::", "ffff::"].map(str::to_owned));
        for destination in destinations {
            let v6 = destination.contains(':');
            for source in if v6 { ["fd01::1", "fd09::1"] } else { ["10.1.0.1", "10.9.0.1"] } {
                let flow = flow(source, &destination);
                let all = spd.entries().iter();
                let found = all
                    .clone()
                    .find(|entry| matches_pair(&entry.ts_local, &entry.ts_peer, &flow))
                    .map(|entry| entry.action);
                assert_eq!(spd.lookup_out(&flow), found, "{flow:?}");
            }
        }
    }

    #[test]
    fn what_no_entry_matches_has_no_action() {
        let spd = Spd::new(vec![entry("10.1.0.0/16", "10.2.0.0/16", Action::Bypass)]);
        assert_eq!(spd.lookup_out(&flow("10.2.0.1", "10.1.0.1")), None, "the other direction");
        assert_eq!(Spd::default().lookup_out(&flow("10.1.0.1", "10.2.0.1")), None);
    }
}
