//! [`HalfOpen`]: the IKE SAs that strangers have begun, and what they may take.
//!
//! An IKE SA is here from the answer to IKE_SA_INIT until its initiator is authenticated, or it is gone. Every look-up takes
//! the same time however many there are: keyed hashes, which a stranger cannot aim at.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, HashMap};

use super::ike_sa::SaId;
use super::limits;
use crate::wire::ike::header::IkeSpi;

/// What an IKE_SA_INIT request is known by when it comes again.
pub(super) type Key = (IkeSpi, SocketAddr);

/// Addresses of one owner, as far as can be known: a /24 of IPv4, a /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix(u64);

impl Prefix {
    pub(super) fn of(addr: IpAddr) -> Self {
        Self::of_length(addr, limits::PREFIX_V4, limits::PREFIX_V6)
    }

    /// Addresses of one network: a /16 of IPv4, a /48 of IPv6.
    pub(super) fn wide(addr: IpAddr) -> Self {
        Self::of_length(addr, limits::WIDE_PREFIX_V4, limits::WIDE_PREFIX_V6)
    }

    fn of_length(addr: IpAddr, v4: u32, v6: u32) -> Self {
        match addr.to_canonical() {
            // No prefix of IPv6 that is in use begins with so many zero bits.
            IpAddr::V4(addr) => Self(u64::from(addr.to_bits() >> (32 - v4))),
            IpAddr::V6(addr) => Self(u64::try_from(addr.to_bits() >> (128 - v6)).unwrap_or(0)),
        }
    }
}

struct Entry {
    key: Key,
    /// Its place in the order of arrival.
    number: u64,
    bytes: usize,
    /// Whether it counts, which it no longer does once its initiator is authenticated.
    counts: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct HalfOpen {
    by_key: HashMap<Key, SaId>,
    entries: HashMap<SaId, Entry>,
    by_prefix: HashMap<Prefix, usize>,
    in_order: BTreeMap<u64, SaId>,
    next_number: u64,
    bytes: usize,
}

impl HalfOpen {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.in_order.len()
    }

    /// How many there are from where `addr` is.
    pub(super) fn count_in_prefix_of(&self, addr: IpAddr) -> usize {
        self.by_prefix.get(&Prefix::of(addr)).copied().unwrap_or(0)
    }

    /// The IKE SA that a request has begun, authenticated or not.
    pub(super) fn find(&self, key: &Key) -> Option<SaId> {
        self.by_key.get(key).copied()
    }

    /// The one that has been here for the longest, if there is no room for another that keeps so many bytes.
    pub(super) fn to_make_room(&self, bytes: usize) -> Option<SaId> {
        let full =
            self.len() >= limits::MAX_HALF_OPEN || self.bytes + bytes > limits::MAX_HALF_OPEN_BYTES;
        if full { self.in_order.first_key_value().map(|(_, id)| *id) } else { None }
    }

    /// There is one more, and it keeps so many bytes of messages.
    pub(super) fn insert(&mut self, id: SaId, key: Key, bytes: usize) {
        let number = self.next_number;
        self.next_number += 1;
        self.by_key.insert(key, id);
        self.entries.insert(id, Entry { key, number, bytes, counts: true });
        *self.by_prefix.entry(Prefix::of(key.1.ip())).or_default() += 1;
        self.in_order.insert(number, id);
        self.bytes += bytes;
    }

    /// Its initiator is authenticated. It is found all the same, but is no stranger's any more.
    pub(super) fn authenticated(&mut self, id: SaId) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.counts) else { return };
        entry.counts = false;
        self.in_order.remove(&entry.number);
        self.bytes -= entry.bytes;
        let prefix = Prefix::of(entry.key.1.ip());
        if let Some(count) = self.by_prefix.get_mut(&prefix) {
            *count -= 1;
            if *count == 0 {
                self.by_prefix.remove(&prefix);
            }
        }
        // What a flood has made these grow to is given back.
        if self.in_order.is_empty() {
            self.by_prefix.shrink_to_fit();
        }
    }

    /// It is gone.
    pub(super) fn remove(&mut self, id: SaId) {
        self.authenticated(id);
        let Some(entry) = self.entries.remove(&id) else { return };
        // The same request may have begun another since, if this one was no longer known by it.
        if self.by_key.get(&entry.key) == Some(&id) {
            self.by_key.remove(&entry.key);
        }
        if self.entries.capacity() > 64 && self.entries.len() * 8 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
            self.by_key.shrink_to(self.by_key.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> Key {
        (IkeSpi(u64::from(n)), SocketAddr::from((n.to_be_bytes(), 500)))
    }

    #[test]
    fn prefixes_are_24_and_64_bits_long() {
        let of = |text: &str| Prefix::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("192.0.2.255"));
        assert_ne!(of("192.0.2.1"), of("192.0.3.1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.9"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(of("192.0.2.1"), of("2001:db8::1"));
    }

    #[test]
    fn counts_by_prefix_and_makes_room_at_the_cost_of_the_oldest() {
        let mut table = HalfOpen::default();
        for n in 0..u32::try_from(limits::MAX_HALF_OPEN).unwrap() {
            assert_eq!(table.to_make_room(100), None, "{n}");
            table.insert(u64::from(n) + 1, key(n), 100);
        }
        assert_eq!(table.count_in_prefix_of("0.0.1.7".parse().unwrap()), 256);
        assert_eq!(table.to_make_room(100), Some(1));
        table.authenticated(1);
        assert_eq!(table.find(&key(0)), Some(1), "a repetition is still known");
        assert_eq!(table.to_make_room(100), None);
        table.insert(9999, key(9999), 100);
        assert_eq!(table.to_make_room(100), Some(2));
        for id in (1..=u64::try_from(limits::MAX_HALF_OPEN).unwrap()).chain([9999]) {
            table.remove(id);
        }
        assert_eq!((table.len(), table.bytes), (0, 0));
        assert!(table.by_key.is_empty() && table.entries.is_empty() && table.by_prefix.is_empty());
        assert!(table.entries.capacity() < 512, "{}", table.entries.capacity());
    }

    #[test]
    fn long_messages_fill_it_sooner() {
        let mut table = HalfOpen::default();
        let each = limits::MAX_INIT_REQUEST;
        let mut n = 0;
        while table.to_make_room(each).is_none() {
            table.insert(u64::from(n) + 1, key(n), each);
            n += 1;
        }
        let held = usize::try_from(n).unwrap() * each;
        assert!(held <= limits::MAX_HALF_OPEN_BYTES && n > 100, "{n}");
    }
}
