//! [`Table`]: values by a key, found in constant time; a copy shares what does not change.
//!
//! A snapshot of the SAD is made by copying it, for each update. So that an update costs the same with one SA and with
//! ten thousand, values lie in shards: a copy has the same shards, and only the one that changes is copied itself.

use core::net::IpAddr;
use std::sync::Arc;

/// Shards of a table: with 20,000 values some ten are copied for an update, beside so many pointers.
const SHARDS: usize = 1024;

/// What values are found by.
pub(super) trait Key: Copy + Ord {
    /// Anything that differs where keys do. Keys are chosen by us, or are the address of an authenticated peer; whoever
    /// brings many into one shard makes updates slower, and lookups hardly.
    fn mix(self) -> u64;
}

impl Key for u32 {
    fn mix(self) -> u64 {
        self.into()
    }
}

impl Key for IpAddr {
    fn mix(self) -> u64 {
        match self {
            Self::V4(addr) => addr.to_bits().into(),
            Self::V6(addr) => {
                let [a, b] = [addr.to_bits() >> 64, addr.to_bits()]
                    .map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
                a.rotate_left(32) ^ b
            }
        }
    }
}

/// Values by key.
#[derive(Clone, Debug)]
pub(super) struct Table<K, T> {
    shards: Arc<[Place<K, T>]>,
}

/// Where a shard is, if there is something in it.
type Place<K, T> = Option<Arc<Shard<K, T>>>;

/// Keys in order, and as many values: a lookup reads nothing but keys until it has found one.
#[derive(Clone, Debug)]
struct Shard<K, T> {
    keys: Vec<K>,
    values: Vec<T>,
}

impl<K: Key, T> Table<K, T> {
    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&T> {
        let shard = self.shards[shard_of(key)].as_deref()?;
        let at = shard.keys.binary_search(&key).ok()?;
        shard.values.get(at)
    }

    /// In no order, but the same in every run that inserted the same.
    pub(super) fn unordered(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flatten().flat_map(|shard| &shard.values)
    }

    /// In the order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let shards = self.shards.iter().flatten();
        let mut all: Vec<_> =
            shards.flat_map(|shard| shard.keys.iter().copied().zip(&shard.values)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter()
    }
}

impl<K: Key, T: Clone> Table<K, T> {
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let at = self.shards[shard_of(key)].as_deref()?.keys.binary_search(&key).ok()?;
        self.shard_mut(key).values.get_mut(at)
    }

    /// Replaces what has the same key.
    pub(super) fn insert(&mut self, key: K, value: T) {
        let shard = self.shard_mut(key);
        match shard.keys.binary_search(&key) {
            Ok(at) => shard.values[at] = value,
            Err(at) => {
                shard.keys.insert(at, key);
                shard.values.insert(at, value);
            }
        }
    }

    pub(super) fn remove(&mut self, key: K) {
        if self.get(key).is_none() {
            return;
        }
        let shard = self.shard_mut(key);
        if let Ok(at) = shard.keys.binary_search(&key) {
            shard.keys.remove(at);
            shard.values.remove(at);
        }
        if shard.keys.is_empty() {
            Arc::make_mut(&mut self.shards)[shard_of(key)] = None;
        }
    }

    /// Changes the values that are to be changed, and copies nothing where there are none.
    pub(super) fn update(&mut self, is_meant: impl Fn(&T) -> bool, mut change: impl FnMut(&mut T)) {
        for at in 0..SHARDS {
            let Some(shard) = &self.shards[at] else { continue };
            if !shard.values.iter().any(&is_meant) {
                continue;
            }
            if let Some(shard) = &mut Arc::make_mut(&mut self.shards)[at] {
                let values = &mut Arc::make_mut(shard).values;
                values.iter_mut().filter(|value| is_meant(value)).for_each(&mut change);
            }
        }
    }

    fn shard_mut(&mut self, key: K) -> &mut Shard<K, T> {
        let shard = &mut Arc::make_mut(&mut self.shards)[shard_of(key)];
        let shard = shard.get_or_insert_with(|| Arc::new(Shard { keys: vec![], values: vec![] }));
        Arc::make_mut(shard)
    }
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| None).collect() }
    }
}

/// The high bits of a multiplication by 2^64 divided by the golden ratio (Knuth, TAOCP 6.4).
#[inline]
fn shard_of<K: Key>(key: K) -> usize {
    let product = key.mix().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(product >> (u64::BITS - SHARDS.ilog2())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_inserted_and_walks_in_order() {
        let mut table = Table::default();
        for key in [5_u32, 0xffff_ffff, 1, 300] {
            table.insert(key, key);
        }
        let keys = |table: &Table<u32, u32>| table.iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&table), [1, 5, 300, 0xffff_ffff]);
        table.remove(5);
        table.remove(6);
        table.insert(300, 301);
        assert_eq!([table.get(1), table.get(5), table.get(300)], [Some(&1), None, Some(&301)]);
        *table.get_mut(1).unwrap() = 7;
        assert_eq!(table.get(1), Some(&7));
        assert!(table.get_mut(5).is_none());
        table.update(|&value| value > 7, |value| *value = 0);
        assert_eq!(
            [table.get(1), table.get(300), table.get(0xffff_ffff)],
            [7, 0, 0].each_ref().map(Some)
        );
        assert_eq!(table.unordered().count(), 3);
    }

    #[test]
    fn a_copy_stays_as_it_was_and_shares_what_did_not_change() {
        let mut table = Table::default();
        for key in 0..5000_u32 {
            table.insert(key, key);
        }
        let copy = table.clone();
        table.insert(7, 1);
        table.remove(8);
        assert_eq!((copy.get(7), copy.get(8)), (Some(&7), Some(&8)));
        assert_eq!((table.get(7), table.get(8)), (Some(&1), None));
        let shared = copy.shards.iter().zip(table.shards.iter()).filter(|pair| match pair {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => true,
        });
        assert!(shared.count() >= SHARDS - 2);
        let mut same = copy.clone();
        same.update(|_| false, |value| *value = 0);
        assert!(Arc::ptr_eq(&same.shards, &copy.shards));
    }

    #[test]
    fn keys_that_follow_each_other_are_spread() {
        let mut table = Table::default();
        for key in 0..10_000_u32 {
            table.insert(key, ());
        }
        let longest = table.shards.iter().flatten().map(|shard| shard.keys.len()).max();
        assert!(longest.unwrap() < 40, "{longest:?} of 10 a shard on average");
        let addresses = (0..=u8::MAX).map(|host| IpAddr::from([10, 9, 8, host]));
        let places: std::collections::BTreeSet<_> = addresses.map(shard_of).collect();
        assert!(places.len() > 128, "{}", places.len());
    }
}
