//! [`FixedPolicy`]: an entry of the SPD that needs no SA: BYPASS or DISCARD (RFC 4301 §4.4.1; its SPD-O and SPD-I).

use core::net::IpAddr;
use std::sync::Arc;

use super::selector::{common_prefix, has_port_numbers};
use super::{Action, Spd, SpdEntry, TrafficSelector};

/// Of one side.
type Selectors = Arc<[TrafficSelector]>;

/// An entry of the SPD that needs no SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedPolicy {
    /// Its name, unique within its file.
    pub name: Arc<str>,
    /// Whether what matches is let pass unprotected; otherwise it is dropped.
    pub bypass: bool,
    /// Where it stands.
    pub order: Order,
    /// Which packets it is for.
    pub direction: Direction,
    /// Selectors of our side.
    pub ts_local: Arc<[TrafficSelector]>,
    /// Selectors of the far side.
    pub ts_remote: Arc<[TrafficSelector]>,
}

/// Where a policy stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before every one that says PROTECT.
    First,
    /// After them.
    Last,
}

/// Which packets a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From our side to the far side and from there.
    Both,
    /// From the far side.
    Inbound,
    /// To the far side.
    Outbound,
}

/// From where to where packets go, in the words that the host's routing has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where they come from: the first address of a prefix, and its length.
    pub from: (IpAddr, u8),
    /// Where they go.
    pub to: (IpAddr, u8),
    /// Their protocol; 0 for all.
    pub protocol: u8,
    /// Their source ports, if not all.
    pub from_ports: Option<(u16, u16)>,
    /// Their destination ports, if not all.
    pub to_ports: Option<(u16, u16)>,
}

/// Why routing has no words for a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// It is no prefix.
    Addresses,
    /// Its ports, or types of ICMP, are none that a rule of routing can have.
    Ports,
}

impl Order {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
        }
    }
}

impl Direction {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl FixedPolicy {
    /// The selectors that its packets have: of their source, of their destination.
    fn sides(&self) -> Vec<(&Selectors, &Selectors)> {
        let outbound = (&self.ts_local, &self.ts_remote);
        let inbound = (&self.ts_remote, &self.ts_local);
        match self.direction {
            Direction::Both => vec![outbound, inbound],
            Direction::Inbound => vec![inbound],
            Direction::Outbound => vec![outbound],
        }
    }

    /// Its entries in the SPD, one a direction. `label`: how it is called among those of all files.
    #[must_use]
    pub fn entries(&self, label: &Arc<str>) -> Vec<SpdEntry> {
        let action = if self.bypass { Action::Bypass } else { Action::Discard };
        let entry = |(from, to): (&Arc<[_]>, &Arc<[_]>)| SpdEntry {
            ts_local: Arc::clone(from),
            ts_peer: Arc::clone(to),
            action,
            name: Some(Arc::clone(label)),
        };
        self.sides().into_iter().map(entry).collect()
    }

    /// From where to where its packets go, in both directions if it is for both.
    #[must_use]
    pub fn ways(&self) -> Vec<Way> {
        let mut ways = Vec::new();
        for (from, to) in self.sides() {
            for pair in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
                ways.extend(way(pair.0, pair.1).filter(|way| !ways.contains(way)));
            }
        }
        ways
    }

    /// Whether it has packets with another in common.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let sides = other.sides();
        self.sides().into_iter().any(|(from, to)| {
            let meet = |a: &[TrafficSelector], b: &[TrafficSelector]| {
                a.iter().any(|a| b.iter().any(|b| a.intersect(b).is_some()))
            };
            sides.iter().any(|(other_from, other_to)| meet(from, other_from) && meet(to, other_to))
        })
    }

    /// Whether it takes every packet that we would send from `local` to `remote`.
    #[must_use]
    pub fn covers(&self, local: &TrafficSelector, remote: &TrafficSelector) -> bool {
        let mut sides = self.sides().into_iter();
        sides.any(|(from, to)| contains(from, local) && contains(to, remote))
    }

    /// Whether it takes every packet of another.
    #[must_use]
    pub fn covers_all_of(&self, other: &Self) -> bool {
        let sides = self.sides();
        other.sides().into_iter().all(|(from, to)| {
            let all = |these: &[TrafficSelector], those: &[TrafficSelector]| {
                those.iter().all(|one| contains(these, one))
            };
            sides.iter().any(|(mine_from, mine_to)| all(mine_from, from) && all(mine_to, to))
        })
    }
}

/// Whether routing has words for a selector.
///
/// # Errors
/// If it has none.
pub fn check_routable(ts: &TrafficSelector) -> Result<(), Unroutable> {
    prefix(ts).ok_or(Unroutable::Addresses)?;
    // What the kernel takes for a rule: 1 to 65534.
    let has_ports = has_port_numbers(ts.protocol)
        && (1..u16::MAX).contains(&ts.start_port)
        && (ts.start_port..u16::MAX).contains(&ts.end_port);
    let any = ts.protocol == 0 || ts.is_any_port();
    (any || has_ports).then_some(()).ok_or(Unroutable::Ports)
}

/// Whether one of these has all of another.
fn contains(all: &[TrafficSelector], one: &TrafficSelector) -> bool {
    all.iter().any(|it| it.intersect(one).as_ref() == Some(one))
}

/// `None` if no packet can match both.
fn way(from: &TrafficSelector, to: &TrafficSelector) -> Option<Way> {
    let same_version = from.start_addr.is_ipv4() == to.start_addr.is_ipv4();
    let protocol = if from.protocol == 0 { to.protocol } else { from.protocol };
    if !same_version || ![0, protocol].contains(&to.protocol) {
        return None;
    }
    let ports = |ts: &TrafficSelector| {
        (ts.protocol != 0 && !ts.is_any_port()).then_some((ts.start_port, ts.end_port))
    };
    Some(Way {
        from: prefix(from)?,
        to: prefix(to)?,
        protocol,
        from_ports: ports(from),
        to_ports: ports(to),
    })
}

/// The addresses as a prefix, if they are one.
fn prefix(ts: &TrafficSelector) -> Option<(IpAddr, u8)> {
    let (len, first) = common_prefix(core::slice::from_ref(ts))?;
    let whole = TrafficSelector::from_prefix(first, len)?;
    ((whole.start_addr, whole.end_addr) == (ts.start_addr, ts.end_addr)).then_some((first, len))
}

impl Spd {
    /// Of fixed policies in their order, each with its label, and what says PROTECT between the first and the last of them.
    #[must_use]
    pub fn with_fixed<'a>(
        fixed: impl Iterator<Item = (Arc<str>, &'a FixedPolicy)> + Clone,
        protect: Vec<SpdEntry>,
    ) -> Self {
        let entries = |order| {
            let those = fixed.clone().filter(move |(_, policy)| policy.order == order);
            those.flat_map(|(label, policy)| policy.entries(&label))
        };
        let mut all: Vec<_> = entries(Order::First).collect();
        let first = all.len();
        all.extend(protect);
        all.extend(entries(Order::Last));
        Self::new(all).with_first(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipsec::{Flow, PolicyId};

    fn ts(prefix: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
        let (addr, len) = prefix.split_once('/').unwrap();
        TrafficSelector {
            protocol,
            start_port: ports.0,
            end_port: ports.1,
            ..TrafficSelector::from_prefix(addr.parse().unwrap(), len.parse().unwrap()).unwrap()
        }
    }

    const ANY: (u16, u16) = (0, u16::MAX);

    fn policy(bypass: bool, order: Order, local: &str, remote: TrafficSelector) -> FixedPolicy {
        FixedPolicy {
            name: "p".into(),
            bypass,
            order,
            direction: Direction::Both,
            ts_local: [ts(local, 0, ANY)].into(),
            ts_remote: [remote].into(),
        }
    }

    fn flow(src: &str, dst: &str, ports: (u16, u16)) -> Flow {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        Flow { src, dst, protocol: 6, ports: Some(ports) }
    }

    #[test]
    fn first_stand_before_protect_and_last_after_it() {
        let ssh = policy(true, Order::First, "10.1.0.0/16", ts("10.2.0.0/16", 6, (22, 22)));
        let rest = policy(false, Order::Last, "10.1.0.0/16", ts("10.0.0.0/8", 0, ANY));
        let protect = SpdEntry {
            ts_local: [ts("10.1.0.0/16", 0, ANY)].into(),
            ts_peer: [ts("10.2.0.0/16", 0, ANY)].into(),
            action: Action::Protect(PolicyId(1)),
            name: None,
        };
        let all = [("f/ssh".into(), &ssh), ("f/rest".into(), &rest)];
        let spd = Spd::with_fixed(all.into_iter(), vec![protect]);
        let out = |dst, port| spd.lookup_out(&flow("10.1.0.1", dst, (9000, port)));
        assert_eq!(out("10.2.0.1", 22), Some(Action::Bypass));
        assert_eq!(out("10.2.0.1", 23), Some(Action::Protect(PolicyId(1))));
        assert_eq!(out("10.3.0.1", 23), Some(Action::Discard));
        assert_eq!(out("11.3.0.1", 23), None);
        // What answers has the ports the other way round.
        let back = flow("10.2.0.1", "10.1.0.1", (22, 9000));
        assert_eq!(spd.lookup_out(&back), Some(Action::Bypass));
    }

    #[test]
    fn inbound_packets_of_an_sa_meet_a_first_discard_and_no_other() {
        let first = policy(false, Order::First, "10.1.0.0/16", ts("10.2.9.0/24", 0, ANY));
        let last = policy(false, Order::Last, "10.1.0.0/16", ts("10.2.0.0/16", 0, ANY));
        let all = [("f/1".into(), &first), ("f/2".into(), &last)];
        let spd = Spd::with_fixed(all.into_iter(), vec![]);
        assert!(spd.discards_first(&flow("10.2.9.1", "10.1.0.1", (1, 2))));
        assert!(!spd.discards_first(&flow("10.2.8.1", "10.1.0.1", (1, 2))));
        let outbound = FixedPolicy { direction: Direction::Outbound, ..first };
        let spd = Spd::with_fixed([("f/1".into(), &outbound)].into_iter(), vec![]);
        assert!(!spd.discards_first(&flow("10.2.9.1", "10.1.0.1", (1, 2))));
    }

    #[test]
    fn ways_have_ports_at_their_side_and_go_both_ways() {
        let ssh = policy(true, Order::First, "10.1.0.0/16", ts("10.2.0.0/24", 6, (22, 22)));
        let (ours, theirs) = (("10.1.0.0".parse().unwrap(), 16), ("10.2.0.0".parse().unwrap(), 24));
        let there =
            Way { from: ours, to: theirs, protocol: 6, from_ports: None, to_ports: Some((22, 22)) };
        let back =
            Way { from: theirs, to: ours, protocol: 6, from_ports: Some((22, 22)), to_ports: None };
        assert_eq!(ssh.ways(), [there, back]);
        let only = FixedPolicy { direction: Direction::Inbound, ..ssh.clone() };
        assert_eq!(only.ways(), [back]);
        let mixed = FixedPolicy { ts_local: [ts("fd01::/64", 0, ANY)].into(), ..ssh.clone() };
        assert_eq!(mixed.ways(), [], "two versions of IP");
        let udp = FixedPolicy { ts_local: [ts("10.1.0.0/16", 17, ANY)].into(), ..ssh };
        assert_eq!(udp.ways(), [], "two protocols");
    }

    #[test]
    fn what_routing_has_no_words_for_is_told() {
        let range =
            TrafficSelector { end_addr: "10.2.0.9".parse().unwrap(), ..ts("10.2.0.0/32", 0, ANY) };
        assert_eq!(check_routable(&range), Err(Unroutable::Addresses));
        for fine in [
            ts("10.0.0.0/8", 0, ANY),
            ts("::/0", 58, ANY),
            ts("::/0", 17, (1, 65534)),
            // RFC 4301 §4.4.1.1: ports are undefined where the protocol is ANY.
            ts("10.0.0.0/8", 0, (5, 5)),
        ] {
            assert_eq!(check_routable(&fine), Ok(()), "{fine}");
        }
        for (protocol, ports) in
            [(6, (1024, 65535)), (6, (0, 5)), (1, (0x0800, 0x08ff)), (6, (65535, 0)), (47, (1, 1))]
        {
            let odd = ts("10.0.0.0/8", protocol, ports);
            assert_eq!(check_routable(&odd), Err(Unroutable::Ports), "{odd}");
        }
    }

    #[test]
    fn covers_what_lies_within_both_sides_alone() {
        let all = policy(true, Order::First, "10.0.0.0/8", ts("10.2.0.0/16", 0, ANY));
        let (local, remote) = (ts("10.1.0.0/16", 0, ANY), ts("10.2.0.0/24", 0, ANY));
        assert!(all.covers(&local, &remote));
        assert!(!all.covers(&local, &ts("10.0.0.0/8", 0, ANY)));
        let ssh = policy(true, Order::First, "10.0.0.0/8", ts("10.2.0.0/16", 6, (22, 22)));
        assert!(!ssh.covers(&local, &remote) && ssh.meets(&all));
        let other = policy(true, Order::First, "10.1.0.0/16", ts("10.3.0.0/16", 0, ANY));
        let apart = policy(true, Order::First, "10.1.0.0/16", ts("10.2.0.0/16", 0, ANY));
        assert!(!other.meets(&apart));
        // A packet from one far side to the other is of both.
        let wide = policy(true, Order::First, "10.0.0.0/8", ts("10.3.0.0/16", 0, ANY));
        assert!(wide.meets(&all));
        assert!(all.covers_all_of(&ssh) && !ssh.covers_all_of(&all));
    }
}
