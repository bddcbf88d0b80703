//! [`Outbounds`]: the outbound SAs, found by policy and packet at a price that does not depend on how many there are, and with
//! each policy what it has carried.
//!
//! SAs of one peer for the same packets are a group: one after the other, as a rekey makes them, or beside each other
//! (RFC 9611). Nearly every policy has one group, which is found with the policy. A policy may as well have as many as it has
//! peers, each with selectors that the peer has narrowed: those lie by the smallest prefix that the peer's selectors lie in, and
//! the policy knows the lengths of those prefixes.

use core::net::IpAddr;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::table::{Key, Table};
use super::{OutboundEntry, Traffic};
use crate::ipsec::selector::{Sole, common_prefix, matches_pair};
use crate::ipsec::{Flow, PolicyId, SaParams, Spi, TrafficSelector, Worker};

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbounds {
    /// Every one that ever had an SA.
    policies: Table<u32, Policy>,
    /// Of policies that have several; the newest first.
    groups: Table<Place, Groups>,
    /// Where each SA of these groups is.
    places: Table<Name, Place>,
    /// Grows with every SA.
    age: u64,
}

/// What there is of a policy.
#[derive(Clone, Debug)]
struct Policy {
    traffic: Arc<Traffic>,
    sas: Sas,
}

/// The outbound SAs of a policy.
#[derive(Clone, Debug, Default)]
enum Sas {
    #[default]
    None,
    /// For the same packets.
    One(Group),
    /// In `groups`: which lengths of prefixes there are SAs at, and how many. So it stays until there is none.
    ByPrefix(SmallVec<[(u8, usize); 1]>),
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

type Groups = SmallVec<[Group; 1]>;

/// SAs of one peer with the same selectors.
#[derive(Clone, Debug)]
struct Group {
    /// That of the newest.
    age: u64,
    sole: Option<Sole>,
    /// The newest first. Never empty.
    entries: SmallVec<[OutboundEntry; 1]>,
    /// Each resource, and where in `entries` its newest SA is (RFC 9611); empty where there is none.
    spread: Vec<(u16, usize)>,
}

impl Outbounds {
    /// The SA for a packet: of the newest group that takes it, the newest SA, or that of a resource.
    pub(super) fn find(
        &self,
        policy: PolicyId,
        flow: &Flow,
        worker: Worker,
    ) -> Option<&OutboundEntry> {
        match &self.policies.get(policy.0)?.sas {
            Sas::None => None,
            Sas::One(group) => group.takes(flow).then_some(group)?.choose(flow, worker),
            Sas::ByPrefix(lengths) => {
                let groups = lengths.iter().filter_map(|(len, _)| {
                    let place = Place::at(policy, *len, flow.dst)?;
                    self.groups.get(place)?.iter().find(|group| group.takes(flow))
                });
                groups.max_by_key(|group| group.age)?.choose(flow, worker)
            }
        }
    }

    pub(super) fn has(&self, policy: PolicyId) -> bool {
        self.policies.get(policy.0).is_some_and(|policy| !matches!(policy.sas, Sas::None))
    }

    pub(super) fn get(&self, policy: PolicyId, spi: Spi, other_spi: Spi) -> Option<&OutboundEntry> {
        let groups = match &self.policies.get(policy.0)?.sas {
            Sas::None => &[],
            Sas::One(group) => core::slice::from_ref(group),
            Sas::ByPrefix(_) => {
                let place = self.places.get(Name(policy, spi, other_spi))?;
                self.groups.get(*place)?.as_slice()
            }
        };
        let mut entries = groups.iter().flat_map(|group| &group.entries);
        entries.find(|entry| entry.is(spi, other_spi))
    }

    /// What a policy has carried; from here on it is there.
    pub(super) fn traffic_of(&mut self, policy: PolicyId) -> Arc<Traffic> {
        if let Some(policy) = self.policies.get(policy.0) {
            return Arc::clone(&policy.traffic);
        }
        let traffic = Arc::<Traffic>::default();
        let known = Policy { traffic: Arc::clone(&traffic), sas: Sas::None };
        self.policies.insert(policy.0, known);
        traffic
    }

    /// What each has carried.
    pub(super) fn traffic(&self) -> impl Iterator<Item = (PolicyId, &Traffic)> {
        self.policies.iter().map(|(id, policy)| (PolicyId(id), &*policy.traffic))
    }

    pub(super) fn insert(&mut self, entry: OutboundEntry) {
        self.age += 1;
        let (id, age) = (entry.sa.params().policy, self.age);
        if self.policies.get(id.0).is_none() {
            let traffic = Arc::clone(&entry.traffic);
            self.policies.insert(id.0, Policy { traffic, sas: Sas::None });
        }
        let Some(Policy { sas, .. }) = self.policies.get_mut(id.0) else { return };
        let (one, mut lengths) = match core::mem::take(sas) {
            Sas::None => {
                *sas = Sas::One(Group::new(age, entry));
                return;
            }
            Sas::One(mut group) if group.is_of(entry.sa.params()) => {
                group.add(age, entry);
                *sas = Sas::One(group);
                return;
            }
            Sas::One(group) => (Some(group), SmallVec::new()),
            Sas::ByPrefix(lengths) => (None, lengths),
        };
        if let Some(group) = one {
            for older in group.entries.into_iter().rev() {
                self.insert_by_prefix(group.age, older, &mut lengths);
            }
        }
        self.insert_by_prefix(age, entry, &mut lengths);
        if let Some(policy) = self.policies.get_mut(id.0) {
            policy.sas = Sas::ByPrefix(lengths);
        }
    }

    fn insert_by_prefix(
        &mut self,
        age: u64,
        entry: OutboundEntry,
        lengths: &mut SmallVec<[(u8, usize); 1]>,
    ) {
        let params = entry.sa.params();
        let place = Place::of(params);
        self.places.insert(Name(params.policy, params.spi, params.other_spi), place);
        match lengths.iter_mut().find(|(len, _)| *len == place.len) {
            Some((_, count)) => *count += 1,
            None => lengths.push((place.len, 1)),
        }
        let Some(groups) = self.groups.get_mut(place) else {
            return self.groups.insert(place, smallvec![Group::new(age, entry)]);
        };
        let group = match groups.iter().position(|group| group.is_of(entry.sa.params())) {
            Some(at) => {
                let mut group = groups.remove(at);
                group.add(age, entry);
                group
            }
            None => Group::new(age, entry),
        };
        groups.insert(0, group);
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(
        &mut self,
        policy: PolicyId,
        spi: Spi,
        other_spi: Spi,
    ) -> Option<OutboundEntry> {
        self.get(policy, spi, other_spi)?;
        let place = self.places.get(Name(policy, spi, other_spi)).copied();
        let sas = &mut self.policies.get_mut(policy.0)?.sas;
        match (&mut *sas, place) {
            (Sas::One(group), _) => {
                let removed = group.remove(spi, other_spi);
                if group.entries.is_empty() {
                    *sas = Sas::None;
                }
                removed
            }
            (Sas::ByPrefix(lengths), Some(place)) => {
                for (_, count) in lengths.iter_mut().filter(|(len, _)| *len == place.len) {
                    *count -= 1;
                }
                lengths.retain(|(_, count)| *count > 0);
                if lengths.is_empty() {
                    *sas = Sas::None;
                }
                self.places.remove(Name(policy, spi, other_spi));
                let groups = self.groups.get_mut(place)?;
                let removed = groups.iter_mut().find_map(|group| group.remove(spi, other_spi));
                groups.retain(|group| !group.entries.is_empty());
                if groups.is_empty() {
                    self.groups.remove(place);
                }
                removed
            }
            (Sas::None, _) | (Sas::ByPrefix(_), None) => None,
        }
    }

    /// Changes one, if it is there.
    pub(super) fn change(
        &mut self,
        policy: PolicyId,
        spi: Spi,
        other_spi: Spi,
        change: impl FnOnce(&mut OutboundEntry),
    ) {
        if self.get(policy, spi, other_spi).is_none() {
            return;
        }
        let entry = match self.places.get(Name(policy, spi, other_spi)).copied() {
            None => match self.policies.get_mut(policy.0).map(|policy| &mut policy.sas) {
                Some(Sas::One(group)) => group.entry_mut(spi, other_spi),
                Some(Sas::ByPrefix(_) | Sas::None) | None => None,
            },
            Some(place) => {
                let mut groups = self.groups.get_mut(place).into_iter().flatten();
                groups.find_map(|group| group.entry_mut(spi, other_spi))
            }
        };
        entry.map(change);
    }

    /// Changes those that are meant.
    pub(super) fn change_all(
        &mut self,
        is_meant: impl Fn(&OutboundEntry) -> bool,
        mut change: impl FnMut(&mut OutboundEntry),
    ) {
        let has = |group: &Group| group.entries.iter().any(&is_meant);
        let is_one = |policy: &Policy| matches!(&policy.sas, Sas::One(group) if has(group));
        self.policies.update(is_one, |policy| {
            if let Sas::One(group) = &mut policy.sas {
                group.entries.iter_mut().for_each(&mut change);
            }
        });
        self.groups.update(
            |groups| groups.iter().any(has),
            |groups| {
                groups.iter_mut().flat_map(|group| &mut group.entries).for_each(&mut change);
            },
        );
    }

    /// In no order, but the same in every run that inserted the same.
    pub(super) fn unordered(&self) -> impl Iterator<Item = &OutboundEntry> {
        let one = self.policies.unordered().filter_map(Policy::one);
        one.chain(self.groups.unordered().flatten()).flat_map(|group| &group.entries)
    }

    /// By policy; of those for the same packets the newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OutboundEntry> {
        let one = self.policies.iter().filter_map(|(id, policy)| Some((id, policy.one()?)));
        let by_prefix = self.groups.iter();
        let by_prefix = by_prefix
            .flat_map(|(place, groups)| groups.iter().map(move |group| (place.policy, group)));
        let mut all: Vec<_> = one.chain(by_prefix).collect();
        all.sort_by_key(|(policy, _)| *policy);
        all.into_iter().flat_map(|(_, group)| &group.entries)
    }
}

impl Policy {
    const fn one(&self) -> Option<&Group> {
        match &self.sas {
            Sas::One(group) => Some(group),
            Sas::ByPrefix(_) | Sas::None => None,
        }
    }
}

impl OutboundEntry {
    fn is(&self, spi: Spi, other_spi: Spi) -> bool {
        let params = self.sa.params();
        (params.spi, params.other_spi) == (spi, other_spi)
    }
}

impl Group {
    fn new(age: u64, entry: OutboundEntry) -> Self {
        let params = entry.sa.params();
        let sole = Sole::of(&params.ts_local, &params.ts_peer);
        let mut group = Self { age, sole, entries: smallvec![entry], spread: Vec::new() };
        group.compute_spread();
        group
    }

    fn add(&mut self, age: u64, entry: OutboundEntry) {
        self.age = age;
        self.entries.insert(0, entry);
        self.compute_spread();
    }

    fn remove(&mut self, spi: Spi, other_spi: Spi) -> Option<OutboundEntry> {
        let at = self.entries.iter().position(|entry| entry.is(spi, other_spi))?;
        let removed = self.entries.remove(at);
        self.compute_spread();
        Some(removed)
    }

    fn entry_mut(&mut self, spi: Spi, other_spi: Spi) -> Option<&mut OutboundEntry> {
        self.entries.iter_mut().find(|entry| entry.is(spi, other_spi))
    }

    fn is_of(&self, params: &SaParams) -> bool {
        self.entries.first().is_some_and(|entry| {
            let ours = entry.sa.params();
            ours.peer == params.peer
                && ours.ts_local == params.ts_local
                && ours.ts_peer == params.ts_peer
        })
    }

    fn takes(&self, flow: &Flow) -> bool {
        if let Some(sole) = &self.sole {
            return sole.matches(flow);
        }
        self.entries.first().is_some_and(|entry| {
            let params = entry.sa.params();
            matches_pair(&params.ts_local, &params.ts_peer, flow)
        })
    }

    /// RFC 9611 §3: the SAs of resources share the packets: each worker has its own, and if it has several, each flow stays on one,
    /// which keeps its packets in order. A worker without any takes those of others. Where there are none, the newest takes all (RFC 7296
    /// §2.8: a rekeyed SA is used as soon as it is there).
    fn choose(&self, flow: &Flow, worker: Worker) -> Option<&OutboundEntry> {
        if self.spread.is_empty() {
            return self.entries.first();
        }
        let own = || self.spread.iter().filter(|(number, _)| worker.has_resource(*number));
        let at = match own().count() {
            0 => self.spread.get(spread(flow, self.spread.len())),
            count => own().nth(spread(flow, count)),
        };
        self.entries.get(at?.1)
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
        self.spread = newest;
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
    use std::collections::BTreeSet;

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
        sad.outbound_for(POLICY, flow, Worker::ALONE).map(|entry| entry.sa.params().spi)
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
    fn each_worker_has_sas_of_its_own_where_there_are_enough() {
        let subnet = [peers::subnet(2)];
        let mut sad = with(&Sad::new(1500), sa(0, None, &subnet));
        let taken_by = |sad: &Sad, worker: Worker| -> BTreeSet<Spi> {
            let flows = (0..500).map(|port| flow(at_b(port % 50), 1000 + port));
            let taken = |flow| sad.outbound_for(POLICY, &flow, worker).unwrap().sa.params().spi;
            flows.map(taken).collect()
        };
        let spis = |numbers: &[u32]| numbers.iter().map(|&number| spi(2 * number)).collect();
        for worker in Worker::all(2) {
            assert_eq!(taken_by(&sad, worker), spis(&[0]), "one SA is for all");
        }
        for number in 1..=5_u16 {
            sad = with(&sad, sa(number.into(), Some(number - 1), &subnet));
        }
        let by = |of: u16| Worker::all(of).map(|worker| taken_by(&sad, worker)).collect::<Vec<_>>();
        assert_eq!(by(2), [spis(&[1, 3, 5]), spis(&[2, 4])]);
        assert_eq!(by(5), [1, 2, 3, 4, 5].map(|number| spis(&[number])));
        assert!(by(8)[5..].iter().all(|taken| *taken == spis(&[1, 2, 3, 4, 5])), "none is theirs");
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
    fn policies_with_few_sas_gain_and_lose_them() {
        let prefix = |len| TrafficSelector::from_prefix(at_b(0x0101).into(), len).unwrap();
        let mut sad = Sad::new(1500);
        let mut model: Vec<SaParams> = Vec::new();
        // Rekeyed twice, narrowed, back to one, to none, and again.
        let steps = [(0, 16), (1, 16), (2, 16), (3, 24), (1, 0), (4, 24), (2, 0), (0, 0), (3, 0)];
        for (number, len) in steps.into_iter().chain([(4, 0), (5, 16), (6, 16), (5, 0), (6, 0)]) {
            for policy in 0..3 {
                let it = sa(100 * policy + number, None, &[prefix(len)]);
                let it = SaParams { policy: PolicyId(policy), ..it };
                if len > 0 {
                    sad = with(&sad, it.clone());
                    model.insert(0, it);
                } else {
                    sad = without(&without(&sad, &it), &it);
                    model.retain(|other| other.spi != it.spi);
                }
            }
            for mtu in [1400, 1500] {
                sad = sad.with_path_mtu(peers::ADDR_B, Some(mtu));
                assert!(sad.all_outbound().all(|entry| entry.path_mtu == mtu));
            }
            for policy in (0..3).map(PolicyId) {
                let ours = || model.iter().filter(|sa| sa.policy == policy);
                assert_eq!(sad.has_outbound(policy), ours().next().is_some());
                for to in [at_b(0x0102), at_b(0x0201), Ipv4Addr::new(10, 3, 0, 1)] {
                    let flow = flow(to, 5);
                    let takes = |sa: &&SaParams| matches_pair(&sa.ts_local, &sa.ts_peer, &flow);
                    let found = sad.outbound_for(policy, &flow, Worker::ALONE);
                    let found = found.map(|entry| entry.sa.params().spi);
                    assert_eq!(found, ours().find(takes).map(|sa| sa.spi), "{number} {flow:?}");
                }
                for params in ours() {
                    let found = sad.outbound(policy, params.spi, params.other_spi).unwrap();
                    assert_eq!(found.sa.params().ts_peer, params.ts_peer);
                }
            }
            let all: Vec<_> = sad.all_outbound().map(|entry| entry.sa.params().policy).collect();
            assert!(all.len() == model.len() && all.is_sorted(), "{all:?}");
        }
        assert!(model.is_empty() && sad.outbound.places.iter().next().is_none());
        assert_eq!(sad.traffic().count(), 3, "what they have carried is not forgotten");
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
        let sas = &outbounds.policies.get(POLICY.0).unwrap().sas;
        assert!(matches!(sas, Sas::ByPrefix(lengths) if lengths[..] == [(32, 10_000)]));
        let most = outbounds.groups.iter().map(|(_, groups)| groups.len()).max();
        assert_eq!(most, Some(1), "so many are looked at for a packet");
        let found = outbounds.find(POLICY, &flow(at_b(777), 1), Worker::ALONE).unwrap();
        assert_eq!(found.sa.params().spi, spi(2 * 777));
        assert!(outbounds.find(POLICY, &flow(at_b(10_001), 1), Worker::ALONE).is_none());
        assert!(outbounds.find(PolicyId(2), &flow(at_b(777), 1), Worker::ALONE).is_none());
    }
}
