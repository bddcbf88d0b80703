//! [`Table`]: values by a key, found in constant time; a copy shares what does not change.
//!
//! A snapshot of the SAD is made by copying it, for each update. So that an update costs the same with one SA and with
//! ten thousand, values lie in the leaves of a tree: a copy has the same ones, and only what lies on the way to the one that
//! changes is copied itself.

use core::net::IpAddr;
use std::sync::Arc;

/// Branches of a node. There are four nodes on the way to a value: an update copies so many pointers of each, all of which
/// count elsewhere in memory who holds them, and with 20,000 values some five of these. Those of the last node count where
/// nothing has been for long, one after the other, so that a wider node makes updates slower than another level does lookups.
const WIDTH: usize = 8;
/// Leaves that there can be.
const SHARDS: usize = WIDTH * WIDTH * WIDTH * WIDTH;

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
    root: Node<Node<Node<Leaf<K, T>>>>,
}

/// Shared by copies until something below it changes. It stays when nothing is left there.
type Node<T> = Arc<[Option<T>; WIDTH]>;

/// The lowest of them.
type Leaf<K, T> = Node<Shard<K, T>>;

/// In the order of the keys, and all in one place: what is looked up in a table of thousands is seldom in the cache.
type Shard<K, T> = Arc<[(K, T)]>;

/// Where a shard is: which branch to take at each node.
type Way = [usize; 4];

impl<K: Key, T> Table<K, T> {
    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&T> {
        let shard = self.shard(way_to(key))?;
        let at = position(shard, key).ok()?;
        shard.get(at).map(|(_, value)| value)
    }

    /// In no order, but the same in every run that inserted the same.
    pub(super) fn unordered(&self) -> impl Iterator<Item = &T> {
        self.shards().flat_map(|shard| shard.iter().map(|(_, value)| value))
    }

    /// In the order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let all = self.shards().flat_map(|shard| shard.iter().map(|(key, value)| (*key, value)));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter()
    }

    fn shards(&self) -> impl Iterator<Item = &Shard<K, T>> {
        let branches = self.root.iter().flatten().flat_map(|node| node.iter().flatten());
        let branches = branches.flat_map(|node| node.iter().flatten());
        branches.flat_map(|node| node.iter().flatten())
    }

    #[inline]
    fn shard(&self, [first, second, third, fourth]: Way) -> Option<&Shard<K, T>> {
        self.root[first].as_ref()?[second].as_ref()?[third].as_ref()?[fourth].as_ref()
    }
}

impl<K: Key, T: Clone> Table<K, T> {
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let at = position(self.shard(way_to(key))?, key).ok()?;
        let shard = self.place_mut(way_to(key)).as_mut()?;
        Arc::make_mut(shard).get_mut(at).map(|(_, value)| value)
    }

    /// Replaces what has the same key.
    pub(super) fn insert(&mut self, key: K, value: T) {
        let place = self.place_mut(way_to(key));
        let shard: &[_] = place.as_deref().unwrap_or_default();
        let (before, after) = match position(shard, key) {
            Ok(at) => (&shard[..at], &shard[at + 1..]),
            Err(at) => shard.split_at(at),
        };
        let mut with = Vec::with_capacity(shard.len() + 1);
        with.extend_from_slice(before);
        with.push((key, value));
        with.extend_from_slice(after);
        *place = Some(with.into());
    }

    pub(super) fn remove(&mut self, key: K) {
        let way = way_to(key);
        let Some(shard) = self.shard(way) else { return };
        let Ok(at) = position(shard, key) else { return };
        let without = [&shard[..at], &shard[at + 1..]].concat();
        *self.place_mut(way) = (!without.is_empty()).then(|| without.into());
    }

    /// Changes the values that are to be changed, and copies nothing where there are none.
    pub(super) fn update(&mut self, is_meant: impl Fn(&T) -> bool, mut change: impl FnMut(&mut T)) {
        for number in 0..SHARDS {
            let way = way_of(number);
            let is_there = |shard: &Shard<K, T>| shard.iter().any(|(_, value)| is_meant(value));
            if self.shard(way).is_some_and(is_there)
                && let Some(shard) = self.place_mut(way)
            {
                let values = Arc::make_mut(shard).iter_mut().map(|(_, value)| value);
                values.filter(|value| is_meant(value)).for_each(&mut change);
            }
        }
    }

    fn place_mut(&mut self, [first, second, third, fourth]: Way) -> &mut Option<Shard<K, T>> {
        let node = Arc::make_mut(&mut self.root)[first].get_or_insert_default();
        let node = Arc::make_mut(node)[second].get_or_insert_default();
        let node = Arc::make_mut(node)[third].get_or_insert_default();
        &mut Arc::make_mut(node)[fourth]
    }
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

/// Where a key is in a shard, or would be.
#[inline]
fn position<K: Key, T>(shard: &[(K, T)], key: K) -> Result<usize, usize> {
    // Of a few, looking at one does not wait for what the one before it was.
    const FEW: usize = 8;
    if shard.len() > FEW {
        return shard.binary_search_by_key(&key, |(key, _)| *key);
    }
    let at = shard.iter().position(|(other, _)| *other >= key).unwrap_or(shard.len());
    if shard.get(at).is_some_and(|(other, _)| *other == key) { Ok(at) } else { Err(at) }
}

/// Which branch to take at each node: the high bits of a multiplication by 2^64 divided by the golden ratio (Knuth, TAOCP
/// 6.4).
#[inline]
fn way_to<K: Key>(key: K) -> Way {
    let [b0, b1, ..] = key.mix().wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    way_of(usize::from(u16::from_be_bytes([b0, b1]) >> 4))
}

#[inline]
const fn way_of(number: usize) -> Way {
    let (first, second) = (number / WIDTH / WIDTH / WIDTH, number / WIDTH / WIDTH);
    [first, second % WIDTH, number / WIDTH % WIDTH, number % WIDTH]
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
        let shared = |table: &Table<u32, u32>| {
            let is_same = |shard: &&Arc<_>| copy.shards().any(|other| Arc::ptr_eq(shard, other));
            table.shards().filter(is_same).count()
        };
        assert!(shared(&table) >= copy.shards().count() - 2);
        let mut same = copy.clone();
        same.update(|_| false, |value| *value = 0);
        assert!(Arc::ptr_eq(&same.root, &copy.root));
    }

    #[test]
    fn keys_that_follow_each_other_are_spread() {
        let mut table = Table::default();
        for key in 0..10_000_u32 {
            table.insert(key, ());
        }
        let longest = table.shards().map(|shard| shard.len()).max();
        assert!(longest.unwrap() < 12, "{longest:?} of 2.4 a leaf on average");
        let addresses = (0..=u8::MAX).map(|host| IpAddr::from([10, 9, 8, host]));
        let places: std::collections::BTreeSet<_> = addresses.map(way_to).collect();
        assert!(places.len() > 128, "{}", places.len());
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind_that_grows() {
        let mut table = Table::default();
        for key in 0..1000_u32 {
            table.insert(key, ());
        }
        for key in 0..1000_u32 {
            table.remove(key);
        }
        assert_eq!(table.shards().count(), 0);
        assert_eq!(table.iter().count(), 0);
    }
}
