//! [`Outbounds`]: the outbound SAs, found by policy and packet at a price that does not depend on how many there are.
//!
//! A policy may have as many SAs as it has peers, each with selectors that the peer has narrowed; they lie by the smallest prefix
//! that the peer's selectors lie in, and a policy knows the lengths of those prefixes. SAs of one peer for the same packets are a
//! group: one after the other, as a rekey makes them, or beside each other (RFC 9611).

use core::net::IpAddr;

use super::OutboundEntry;
use super::table::{Key, Table};
use crate::ipsec::selector::{common_prefix, matches_pair};
use crate::ipsec::{Flow, PolicyId, SaParams, Spi, TrafficSelector};

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbounds {
    /// The newest first.
    groups: Table<Place, Vec<Group>>,
    /// Which lengths of prefixes each policy has SAs at, and how many.
    lengths: Table<u32, Vec<(u8, usize)>>,
    /// Where each SA is.
    places: Table<Name, Place>,
    /// Grows with every SA.
    age: u64,
}

/// What names an outbound SA: its policy, the peer's SPI and ours of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name(PolicyId, Spi, Spi);

/// A policy, and the prefix that the selectors of the peer's side lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    policy: u32,
    len: u8,
    addr: IpAddr,
}

/// The length of no prefix: that of selectors of both versions of IP.
const BOTH: u8 = u8::MAX;

/// SAs of one peer with the same selectors.
#[derive(Clone, Debug)]
struct Group {
    /// That of the newest.
    age: u64,
    /// The newest first. Never empty.
    entries: Vec<OutboundEntry>,
    /// Where in `entries` the newest SA of each resource is (RFC 9611); empty where there is none.
    spread: Vec<usize>,
}

impl Outbounds {
    /// The SA for a packet: of the newest group that takes it, the newest SA, or that of a resource.
    pub(super) fn find(&self, policy: PolicyId, flow: &Flow) -> Option<&OutboundEntry> {
        let lengths = self.lengths.get(policy.0)?;
        let groups = lengths.iter().filter_map(|(len, _)| {
            let place = Place::at(policy, *len, flow.dst)?;
            self.groups.get(place)?.iter().find(|group| group.takes(flow))
        });
        groups.max_by_key(|group| group.age)?.choose(flow)
    }

    pub(super) fn has(&self, policy: PolicyId) -> bool {
        self.lengths.get(policy.0).is_some()
    }

    pub(super) fn get(&self, policy: PolicyId, spi: Spi, other_spi: Spi) -> Option<&OutboundEntry> {
        let place = self.places.get(Name(policy, spi, other_spi))?;
        let mut entries = self.groups.get(*place)?.iter().flat_map(|group| &group.entries);
        entries.find(|entry| entry.is(spi, other_spi))
    }

    pub(super) fn insert(&mut self, entry: OutboundEntry) {
        let params = entry.sa.params();
        let place = Place::of(params);
        self.places.insert(Name(params.policy, params.spi, params.other_spi), place);
        let mut lengths = self.lengths.get(place.policy).cloned().unwrap_or_default();
        match lengths.iter_mut().find(|(len, _)| *len == place.len) {
            Some((_, count)) => *count += 1,
            None => lengths.push((place.len, 1)),
        }
        self.lengths.insert(place.policy, lengths);
        self.age += 1;
        let age = self.age;
        if self.groups.get(place).is_none() {
            self.groups.insert(place, Vec::new());
        }
        let Some(groups) = self.groups.get_mut(place) else { return };
        let mut group = match groups.iter().position(|group| group.is_of(entry.sa.params())) {
            Some(at) => groups.remove(at),
            None => Group { age, entries: Vec::new(), spread: Vec::new() },
        };
        group.age = age;
        group.entries.insert(0, entry);
        group.compute_spread();
        groups.insert(0, group);
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(
        &mut self,
        policy: PolicyId,
        spi: Spi,
        other_spi: Spi,
    ) -> Option<OutboundEntry> {
        let name = Name(policy, spi, other_spi);
        let place = *self.places.get(name)?;
        self.places.remove(name);
        if let Some(lengths) = self.lengths.get_mut(place.policy) {
            for (_, count) in lengths.iter_mut().filter(|(len, _)| *len == place.len) {
                *count -= 1;
            }
            lengths.retain(|(_, count)| *count > 0);
            if lengths.is_empty() {
                self.lengths.remove(place.policy);
            }
        }
        let groups = self.groups.get_mut(place)?;
        let mut removed = None;
        for group in groups.iter_mut() {
            if let Some(at) = group.entries.iter().position(|entry| entry.is(spi, other_spi)) {
                removed = Some(group.entries.remove(at));
                group.compute_spread();
            }
        }
        groups.retain(|group| !group.entries.is_empty());
        if groups.is_empty() {
            self.groups.remove(place);
        }
        removed
    }

    /// Changes one, if it is there.
    pub(super) fn change(
        &mut self,
        policy: PolicyId,
        spi: Spi,
        other_spi: Spi,
        change: impl FnOnce(&mut OutboundEntry),
    ) {
        let Some(place) = self.places.get(Name(policy, spi, other_spi)).copied() else { return };
        let groups = self.groups.get_mut(place).into_iter().flatten();
        let mut entries = groups.flat_map(|group| &mut group.entries);
        if let Some(entry) = entries.find(|entry| entry.is(spi, other_spi)) {
            change(entry);
        }
    }

    /// Changes those that are meant.
    pub(super) fn change_all(
        &mut self,
        is_meant: impl Fn(&OutboundEntry) -> bool,
        mut change: impl FnMut(&mut OutboundEntry),
    ) {
        let entries =
            |groups: &Vec<Group>| groups.iter().flat_map(|group| &group.entries).any(&is_meant);
        self.groups.update(entries, |groups| {
            groups.iter_mut().flat_map(|group| &mut group.entries).for_each(&mut change);
        });
    }

    /// In no order, but the same in every run that inserted the same.
    pub(super) fn unordered(&self) -> impl Iterator<Item = &OutboundEntry> {
        self.groups.unordered().flatten().flat_map(|group| &group.entries)
    }

    /// By policy; of those for the same packets the newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OutboundEntry> {
        self.groups.iter().flat_map(|(_, groups)| groups).flat_map(|group| &group.entries)
    }
}

impl OutboundEntry {
    fn is(&self, spi: Spi, other_spi: Spi) -> bool {
        let params = self.sa.params();
        (params.spi, params.other_spi) == (spi, other_spi)
    }
}

impl Group {
    fn is_of(&self, params: &SaParams) -> bool {
        self.entries.first().is_some_and(|entry| {
            let ours = entry.sa.params();
            ours.peer == params.peer
                && ours.ts_local == params.ts_local
                && ours.ts_peer == params.ts_peer
        })
    }

    fn takes(&self, flow: &Flow) -> bool {
        self.entries.first().is_some_and(|entry| {
            let params = entry.sa.params();
            matches_pair(&params.ts_local, &params.ts_peer, flow)
        })
    }

    /// RFC 9611 §3: the SAs of resources share the packets; each flow stays on one, which keeps its packets in order. Where there
    /// are none, the newest takes all (RFC 7296 §2.8: a rekeyed SA is used as soon as it is there).
    fn choose(&self, flow: &Flow) -> Option<&OutboundEntry> {
        let at =
            if self.spread.is_empty() { 0 } else { self.spread[spread(flow, self.spread.len())] };
        self.entries.get(at)
    }

    fn compute_spread(&mut self) {
        let mut newest: Vec<(u16, usize)> = Vec::new();
        for (at, entry) in self.entries.iter().enumerate() {
            if let Some(resource) = entry.sa.params().resource
                && newest.iter().all(|(other, _)| *other != resource)
            {
                newest.push((resource, at));
            }
        }
        newest.sort_unstable();
        self.spread = newest.into_iter().map(|(_, at)| at).collect();
    }
}

impl Place {
    fn of(params: &SaParams) -> Self {
        let (len, addr) = common_prefix(&params.ts_peer).unwrap_or((BOTH, IpAddr::from([0; 4])));
        Self { policy: params.policy.0, len, addr }
    }

    /// Where SAs for an address are that lie by prefixes of this length.
    fn at(policy: PolicyId, len: u8, addr: IpAddr) -> Option<Self> {
        let policy = policy.0;
        if len == BOTH {
            return Some(Self { policy, len, addr: IpAddr::from([0; 4]) });
        }
        TrafficSelector::from_prefix(addr, len).map(|ts| Self { policy, len, addr: ts.start_addr })
    }
}

/// Which of `count` a flow goes to: always the same one. It need not be hard to foresee, since who sends the packets may put them all
/// into one flow as well.
fn spread(flow: &Flow, count: usize) -> usize {
    let (src, dst) = flow.ports.unwrap_or_default();
    let rest = u64::from(src) << 24 | u64::from(dst) << 8 | u64::from(flow.protocol);
    let mut mixed = 0_u64;
    for part in [flow.src.mix(), flow.dst.mix(), rest] {
        mixed = (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 32;
    }
    // The high half of a product with `count` is below it.
    let product = u128::from(mixed) * count as u128;
    usize::try_from(product >> u64::BITS).unwrap_or(0)
}

impl Key for Name {
    fn mix(self) -> u64 {
        u64::from(self.0.0)
            ^ u64::from(self.1.get()) << 32
            ^ u64::from(self.2.get()).rotate_left(16)
    }
}

impl Key for Place {
    fn mix(self) -> u64 {
        self.addr.mix().wrapping_mul(31) ^ u64::from(self.policy) << 8 ^ u64::from(self.len)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;
    use crate::ipsec::sad::Sad;
    use crate::ipsec::{SadUpdate, Spi};
    use crate::testing::peers;

    const POLICY: PolicyId = PolicyId(1);

    fn spi(value: u32) -> Spi {
        Spi::new(0x1000 + value).unwrap()
    }

    fn sa(number: u32, resource: Option<u16>, ts_peer: &[TrafficSelector]) -> SaParams {
        let (spi, other_spi) = (spi(2 * number), spi(2 * number + 1));
        SaParams { spi, other_spi, resource, ts_peer: ts_peer.into(), ..peers::sa_params() }
    }

    fn with(sad: &Sad, params: SaParams) -> Sad {
        sad.apply(&SadUpdate::AddOutbound(Box::new(params))).unwrap()
    }

    fn without(sad: &Sad, params: &SaParams) -> Sad {
        let (policy, spi, other_spi) = (params.policy, params.spi, params.other_spi);
        sad.apply(&SadUpdate::RemoveOutbound { policy, spi, other_spi }).unwrap()
    }

    fn flow(to: Ipv4Addr, port: u16) -> Flow {
        let src = Ipv4Addr::new(10, 1, 0, 1).into();
        Flow { src, dst: to.into(), protocol: 6, ports: Some((port, 443)) }
    }

    fn at_b(last: u16) -> Ipv4Addr {
        let [third, fourth] = last.to_be_bytes();
        Ipv4Addr::new(10, 2, third, fourth)
    }

    /// The SPI that a flow is sent with.
    fn taken(sad: &Sad, flow: &Flow) -> Option<Spi> {
        sad.outbound_for(POLICY, flow).map(|entry| entry.sa.params().spi)
    }

    #[test]
    fn flows_are_spread_over_the_resources_and_each_stays_with_its_own() {
        let subnet = [peers::subnet(2)];
        let mut sad = with(&Sad::new(1500), sa(0, None, &subnet));
        assert_eq!(taken(&sad, &flow(at_b(1), 1000)), Some(spi(0)), "the first alone takes all");
        for number in 1..=4_u16 {
            sad = with(&sad, sa(number.into(), Some(number - 1), &subnet));
        }
        let flows: Vec<_> = (0..4000).map(|port| flow(at_b(port % 50), 1000 + port)).collect();
        let before: Vec<_> = flows.iter().map(|flow| taken(&sad, flow)).collect();
        for number in 1..=4_u32 {
            let share = before.iter().filter(|taken| **taken == Some(spi(2 * number))).count();
            assert!((800..1200).contains(&share), "{share} of 4000 flows have resource {number}");
        }
        // One of them is rekeyed: its flows go over, and no other moves.
        sad = with(&sad, sa(9, Some(2), &subnet));
        let over = |old: &Option<Spi>| if *old == Some(spi(6)) { Some(spi(18)) } else { *old };
        for old in [false, true] {
            if old {
                sad = without(&sad, &sa(3, Some(2), &subnet));
            }
            for (flow, before) in flows.iter().zip(&before) {
                assert_eq!(taken(&sad, flow), over(before));
            }
        }
        // The first is rekeyed: nothing moves.
        sad = without(&with(&sad, sa(10, None, &subnet)), &sa(0, None, &subnet));
        assert!(flows.iter().zip(&before).all(|(flow, before)| taken(&sad, flow) == over(before)));
        // Of none left, the first has all.
        for (number, resource) in [(1, 0), (2, 1), (9, 2), (4, 3)] {
            sad = without(&sad, &sa(number, Some(resource), &subnet));
        }
        assert!(flows.iter().all(|flow| taken(&sad, flow) == Some(spi(20))));
    }

    #[test]
    fn paths_to_whom_no_sa_leads_are_forgotten() {
        let one = sa(0, None, &[peers::subnet(2)]);
        let mut sad = with(&Sad::new(1500), one.clone());
        for last in 0..=255 {
            sad = sad.with_path_mtu([198, 51, 100, last].into(), Some(1400));
        }
        sad = sad.with_path_mtu(peers::ADDR_B, Some(1300));
        let mtu = |sad: &Sad| sad.outbound(POLICY, one.spi, one.other_spi).unwrap().path_mtu;
        let cleared = sad.without_idle_paths();
        assert_eq!((sad.paths.known.iter().count(), cleared.paths.known.iter().count()), (257, 1));
        assert_eq!(mtu(&cleared), 1300);
        assert_eq!(without(&cleared, &one).without_idle_paths().paths.known.iter().count(), 0);
    }

    #[test]
    fn what_is_found_is_the_newest_that_takes_the_packet() {
        let prefix =
            |len: u8, last: u16| TrafficSelector::from_prefix(at_b(last).into(), len).unwrap();
        let six = TrafficSelector::from_prefix("fd02::".parse().unwrap(), 64).unwrap();
        let mut sad = Sad::new(1500);
        let mut model: Vec<SaParams> = Vec::new();
        for number in 0..400_u32 {
            let at = u16::try_from(number * 7919 % 65_521).unwrap();
            let selectors = match number % 5 {
                0 => vec![prefix(32, at)],
                1 => vec![prefix(24, at)],
                2 => vec![prefix(16, 0), six],
                3 => vec![prefix(32, at), prefix(30, at.wrapping_add(64))],
                _ => vec![six],
            };
            let params = sa(number, None, &selectors);
            sad = with(&sad, params.clone());
            model.insert(0, params);
            if number % 3 == 2 {
                let removed = model.remove(model.len() / 2);
                sad = without(&sad, &removed);
            }
        }
        let mut destinations: Vec<IpAddr> =
            (0..2000_u16).map(|n| at_b(n.wrapping_mul(33)).into()).collect();
        destinations.extend(model.iter().flat_map(|sa| sa.ts_peer.iter().map(|ts| ts.end_addr)));
        for dst in destinations {
            let mut flow = flow(at_b(0), 5);
            flow.dst = dst;
            if dst.is_ipv6() {
                flow.src = "fd01::1".parse().unwrap();
            }
            let newest = model.iter().find(|sa| matches_pair(&sa.ts_local, &sa.ts_peer, &flow));
            assert_eq!(taken(&sad, &flow), newest.map(|sa| sa.spi), "{flow:?}");
        }
        let all: Vec<_> = sad.all_outbound().map(|entry| entry.sa.params().spi).collect();
        assert_eq!(all.len(), model.len());
        for params in &model {
            let found = sad.outbound(POLICY, params.spi, params.other_spi).unwrap();
            assert_eq!(found.sa.params().ts_peer, params.ts_peer);
            sad = without(&sad, params);
        }
        assert!(!sad.has_outbound(POLICY) && sad.all_outbound().next().is_none());
        assert!(sad.outbound.places.iter().next().is_none(), "nothing is left of them");
    }

    #[test]
    fn ten_thousand_peers_of_one_policy_are_not_looked_through() {
        let mut outbounds = Outbounds::default();
        for number in 0..10_000_u16 {
            let host = TrafficSelector::from_addr(at_b(number).into());
            let params = sa(number.into(), None, &[host]);
            let sad = with(&Sad::new(1500), params);
            let entry = sad.all_outbound().next().unwrap().clone();
            outbounds.insert(entry);
        }
        assert_eq!(*outbounds.lengths.get(POLICY.0).unwrap(), [(32, 10_000)]);
        let most = outbounds.groups.iter().map(|(_, groups)| groups.len()).max();
        assert_eq!(most, Some(1), "so many are looked at for a packet");
        let found = outbounds.find(POLICY, &flow(at_b(777), 1)).unwrap();
        assert_eq!(found.sa.params().spi, spi(2 * 777));
        assert!(outbounds.find(POLICY, &flow(at_b(10_001), 1)).is_none());
        assert!(outbounds.find(PolicyId(2), &flow(at_b(777), 1)).is_none());
    }
}
