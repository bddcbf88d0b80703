//! Addresses that peers have of our pools (RFC 7296 §2.19), and those that peers gave us, to be asked for again.
//!
//! An address belongs to whoever proved an identity, as long as an IKE SA holds it; after that it is kept for that one until
//! somebody else needs it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::limits;
use crate::ipsec::pad::AddressPool;

/// Whose an address is: a hash of the PAD entry and the identities that were proved.
pub(super) type Holder = [u8; 32];

/// Every lease.
#[derive(Default)]
pub(super) struct Leases {
    by_address: BTreeMap<IpAddr, Lease>,
    by_holder: BTreeMap<Holder, BTreeSet<IpAddr>>,
    /// The addresses of `by_address` as runs without a gap, the first of each with its last: what is free begins where one ends.
    runs: BTreeMap<IpAddr, IpAddr>,
    /// Those that no IKE SA holds, the oldest first.
    idle: BTreeSet<(Instant, IpAddr)>,
    /// What each peer, by name, gave us last.
    pub(super) ours: BTreeMap<Arc<str>, Vec<IpAddr>>,
}

struct Lease {
    holder: Holder,
    /// How many IKE SAs hold it.
    users: u32,
    /// Since when none does.
    idle_since: Option<Instant>,
}

/// What somebody wants.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub(super) holder: Holder,
    pub(super) v6: bool,
    /// This one, if it can be had.
    pub(super) wish: Option<IpAddr>,
}

impl Leases {
    /// An address of the pool, from here on held. `may_share` says whether one that the same holder has in use may be given to it
    /// once more. `None`: every address is in use.
    pub(super) fn take(
        &mut self,
        pool: &AddressPool,
        want: Want,
        may_share: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let fits = |address: &IpAddr| address.is_ipv6() == want.v6 && pool.contains(*address);
        let wish = want.wish.filter(fits);
        let mine: Vec<_> =
            self.by_holder.get(&want.holder).into_iter().flatten().copied().collect();
        let is_idle =
            |address: &IpAddr| self.by_address.get(address).is_some_and(|lease| lease.users == 0);
        let again = wish
            .filter(|wish| mine.contains(wish) && (is_idle(wish) || may_share(*wish)))
            .or_else(|| wish.filter(|wish| !self.by_address.contains_key(wish)))
            .or_else(|| mine.iter().copied().filter(fits).find(|address| is_idle(address)));
        let address = again.or_else(|| self.unused(pool, want.v6)).or_else(|| {
            self.idle.iter().map(|(_, address)| *address).find(|address| fits(address))
        })?;
        self.hold(address, want.holder);
        Some(address)
    }

    fn hold(&mut self, address: IpAddr, holder: Holder) {
        if let Some(lease) = self.by_address.get_mut(&address)
            && lease.holder == holder
        {
            lease.users += 1;
            if let Some(since) = lease.idle_since.take() {
                self.idle.remove(&(since, address));
            }
            return;
        }
        self.forget(address);
        self.by_address.insert(address, Lease { holder, users: 1, idle_since: None });
        self.join(address);
        self.by_holder.entry(holder).or_default().insert(address);
    }

    /// An IKE SA holds it no longer.
    pub(super) fn release(&mut self, now: Instant, address: IpAddr) {
        let Some(lease) = self.by_address.get_mut(&address) else { return };
        lease.users = lease.users.saturating_sub(1);
        if lease.users > 0 || lease.idle_since.is_some() {
            return;
        }
        lease.idle_since = Some(now);
        self.idle.insert((now, address));
        if self.idle.len() > limits::MAX_IDLE_LEASES
            && let Some((_, oldest)) = self.idle.first().copied()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, address: IpAddr) {
        let Some(lease) = self.by_address.remove(&address) else { return };
        self.part(address);
        if let Some(since) = lease.idle_since {
            self.idle.remove(&(since, address));
        }
        if let Some(all) = self.by_holder.get_mut(&lease.holder) {
            all.remove(&address);
            if all.is_empty() {
                self.by_holder.remove(&lease.holder);
            }
        }
    }

    /// The first address of a pool that nobody has or had.
    fn unused(&self, pool: &AddressPool, v6: bool) -> Option<IpAddr> {
        let ranges = pool.ranges.iter().filter(|(start, _)| start.is_ipv6() == v6);
        ranges.copied().find_map(|(start, end)| {
            let free = match self.run_of(start) {
                Some((_, last)) => next(last)?,
                None => start,
            };
            (free <= end).then_some(free)
        })
    }

    /// The run that an address is in.
    fn run_of(&self, address: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let (first, last) = self.runs.range(..=address).next_back()?;
        (address <= *last).then_some((*first, *last))
    }

    /// An address is taken: the runs at its sides become one.
    fn join(&mut self, address: IpAddr) {
        let before = previous(address).and_then(|before| self.run_of(before));
        let after = next(address).and_then(|after| self.runs.remove(&after));
        let first = before.map_or(address, |(first, _)| first);
        self.runs.insert(first, after.unwrap_or(address));
    }

    /// An address is free again: what is left of its run at either side.
    fn part(&mut self, address: IpAddr) {
        let Some((first, last)) = self.run_of(address) else { return };
        self.runs.remove(&first);
        if let Some(before) = previous(address).filter(|before| first <= *before) {
            self.runs.insert(first, before);
        }
        if let Some(after) = next(address).filter(|after| *after <= last) {
            self.runs.insert(after, last);
        }
    }

    /// How many addresses are held, and how many are kept for who had them.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn count(&self) -> (usize, usize) {
        (self.by_address.len() - self.idle.len(), self.idle.len())
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().checked_add(1)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().checked_add(1)?).into(),
    })
}

fn previous(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().checked_sub(1)?).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().checked_sub(1)?).into(),
    })
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn pool(ranges: &[(&str, &str)]) -> AddressPool {
        let ranges = ranges.iter().map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())).collect();
        AddressPool { ranges, dns: Vec::new(), domains: Vec::new() }
    }

    fn want(holder: u8, wish: Option<&str>) -> Want {
        let wish: Option<IpAddr> = wish.map(|wish| wish.parse().unwrap());
        Want { holder: [holder; 32], v6: wish.is_some_and(|wish| wish.is_ipv6()), wish }
    }

    fn take(leases: &mut Leases, pool: &AddressPool, want: Want) -> Option<String> {
        leases.take(pool, want, |_| false).map(|address| address.to_string())
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn address_is_kept_for_who_had_it_until_another_needs_it() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let pool = pool(&[("10.0.0.1", "10.0.0.2")]);
        assert_eq!(take(&mut leases, &pool, want(1, None)).as_deref(), Some("10.0.0.1"));
        assert_eq!(take(&mut leases, &pool, want(2, None)).as_deref(), Some("10.0.0.2"));
        assert_eq!(take(&mut leases, &pool, want(3, None)), None, "all are in use");
        leases.release(now, "10.0.0.2".parse().unwrap());
        leases.release(now + Duration::from_secs(1), "10.0.0.1".parse().unwrap());
        assert_eq!(leases.count(), (0, 2));
        assert_eq!(take(&mut leases, &pool, want(1, None)).as_deref(), Some("10.0.0.1"));
        assert_eq!(take(&mut leases, &pool, want(3, None)).as_deref(), Some("10.0.0.2"));
        assert_eq!(take(&mut leases, &pool, want(2, None)), None);
        assert_eq!(leases.count(), (2, 0));
        assert_eq!(leases.by_holder.len(), 2, "nothing is left of who lost its address");
    }

    #[test]
    fn wish_is_granted_if_nobody_has_it_and_it_is_of_the_pool() {
        let mut leases = Leases::default();
        let pool = pool(&[("10.0.0.1", "10.0.0.9"), ("fd00::1", "fd00::2")]);
        assert_eq!(
            take(&mut leases, &pool, want(1, Some("10.0.0.7"))).as_deref(),
            Some("10.0.0.7")
        );
        assert_eq!(
            take(&mut leases, &pool, want(2, Some("10.0.0.7"))).as_deref(),
            Some("10.0.0.1")
        );
        assert_eq!(
            take(&mut leases, &pool, want(3, Some("10.9.9.9"))).as_deref(),
            Some("10.0.0.2")
        );
        assert_eq!(take(&mut leases, &pool, want(3, Some("fd00::2"))).as_deref(), Some("fd00::2"));
    }

    #[test]
    fn one_in_use_is_shared_only_with_its_holder_and_only_where_that_is_allowed() {
        let mut leases = Leases::default();
        let pool = pool(&[("10.0.0.1", "10.0.0.9")]);
        let first = leases.take(&pool, want(1, None), |_| true).unwrap();
        let same = want(1, Some("10.0.0.1"));
        assert_eq!(leases.take(&pool, same, |_| true), Some(first));
        assert_eq!(take(&mut leases, &pool, same).as_deref(), Some("10.0.0.2"), "another device");
        let other = leases.take(&pool, want(2, Some("10.0.0.1")), |_| true).unwrap();
        assert_ne!(other, first);
    }

    #[test]
    fn ranges_are_used_up_to_the_very_last_address() {
        let mut leases = Leases::default();
        let pool = pool(&[("255.255.255.254", "255.255.255.255"), ("10.0.0.1", "10.0.0.1")]);
        let taken: Vec<_> = (0..4).map(|n| take(&mut leases, &pool, want(n, None))).collect();
        let text = |text: &str| Some(text.to_owned());
        let all = [text("255.255.255.254"), text("255.255.255.255"), text("10.0.0.1"), None];
        assert_eq!(taken, all);
    }

    #[test]
    fn first_free_address_is_found_by_runs_which_are_few_however_many_are_taken() {
        let mut leases = Leases::default();
        let pool = pool(&[("10.0.0.0", "10.0.255.255"), ("255.255.255.0", "255.255.255.255")]);
        let mut model = BTreeSet::new();
        let address = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
        let taken = |leases: &mut Leases, number: u32| {
            let mut holder = [0; 32];
            holder[..4].copy_from_slice(&number.to_be_bytes());
            leases.take(&pool, Want { holder, v6: false, wish: None }, |_| false).unwrap()
        };
        for number in 0..10_000 {
            assert_eq!(taken(&mut leases, number), address(number));
            model.insert(address(number));
        }
        assert_eq!(leases.runs.len(), 1);
        // Holes here and there, at the ends and side by side; each is filled by the next that comes, the first first.
        let gone = [0, 1, 2, 4000, 4002, 4001, 9999, 7, 5];
        for number in gone {
            leases.forget(address(number));
            model.remove(&address(number));
        }
        assert_eq!(leases.runs.len(), 4);
        for number in 0..12 {
            let free = (0..).map(address).find(|address| !model.contains(address)).unwrap();
            assert_eq!(taken(&mut leases, 20_000 + number), free);
            model.insert(free);
        }
        assert_eq!(leases.runs.into_iter().collect::<Vec<_>>(), [(address(0), address(10_002))]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn what_is_kept_is_bounded() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let pool = pool(&[("10.0.0.0", "10.255.255.255")]);
        for n in 0..limits::MAX_IDLE_LEASES + 10 {
            let mut holder = [0; 32];
            holder[..8].copy_from_slice(&n.to_be_bytes());
            let want = Want { holder, v6: false, wish: None };
            let address = leases.take(&pool, want, |_| false).unwrap();
            leases.release(now, address);
        }
        assert_eq!(leases.count(), (0, limits::MAX_IDLE_LEASES));
        assert_eq!(leases.by_holder.len(), limits::MAX_IDLE_LEASES);
    }
}
