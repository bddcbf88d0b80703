//! [`Table`]: values by a key, found in constant time; a copy shares what does not change.
//!
//! A snapshot of the SAD is made by copying it, for each update. So that an update costs the same with one SA and with
//! ten thousand, values lie in the leaves of a tree: a copy has the same ones, and only what lies on the way to the one that
//! changes is copied itself.

use core::net::IpAddr;
use std::sync::Arc;

/// Branches of a node. There are three nodes on the way to a value: an update copies so many pointers of each, all of which
/// count elsewhere in memory who holds them, and with 20,000 values some five of these.
const WIDTH: usize = 16;
/// Leaves that there can be.
const SHARDS: usize = WIDTH * WIDTH * WIDTH;

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
    root: Node<Node<Leaf<K, T>>>,
}

/// Shared by copies until something below it changes. It stays when nothing is left there.
type Node<T> = Arc<[Option<T>; WIDTH]>;

/// The lowest of them.
type Leaf<K, T> = Node<Arc<Shard<K, T>>>;

/// Keys in order, and as many values: a lookup reads nothing but keys until it has found one.
#[derive(Clone, Debug)]
struct Shard<K, T> {
    keys: Vec<K>,
    values: Vec<T>,
}

impl<K: Key, T> Table<K, T> {
    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&T> {
        let shard = self.shard(way_to(key))?;
        let at = shard.keys.binary_search(&key).ok()?;
        shard.values.get(at)
    }

    /// In no order, but the same in every run that inserted the same.
    pub(super) fn unordered(&self) -> impl Iterator<Item = &T> {
        self.shards().flat_map(|shard| &shard.values)
    }

    /// In the order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let all = self.shards().flat_map(|shard| shard.keys.iter().copied().zip(&shard.values));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter()
    }

    fn shards(&self) -> impl Iterator<Item = &Arc<Shard<K, T>>> {
        let branches = self.root.iter().flatten().flat_map(|node| node.iter().flatten());
        branches.flat_map(|node| node.iter().flatten())
    }

    #[inline]
    fn shard(&self, [first, second, third]: [usize; 3]) -> Option<&Arc<Shard<K, T>>> {
        self.root[first].as_ref()?[second].as_ref()?[third].as_ref()
    }
}

impl<K: Key, T: Clone> Table<K, T> {
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let at = self.shard(way_to(key))?.keys.binary_search(&key).ok()?;
        self.shard_mut(way_to(key)).values.get_mut(at)
    }

    /// Replaces what has the same key.
    pub(super) fn insert(&mut self, key: K, value: T) {
        let shard = self.shard_mut(way_to(key));
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
        let place = self.place_mut(way_to(key));
        if let Some(shard) = place.as_mut().map(Arc::make_mut)
            && let Ok(at) = shard.keys.binary_search(&key)
        {
            shard.keys.remove(at);
            shard.values.remove(at);
        }
        place.take_if(|shard| shard.keys.is_empty());
    }

    /// Changes the values that are to be changed, and copies nothing where there are none.
    pub(super) fn update(&mut self, is_meant: impl Fn(&T) -> bool, mut change: impl FnMut(&mut T)) {
        for number in 0..SHARDS {
            let way = [number / (WIDTH * WIDTH), number / WIDTH % WIDTH, number % WIDTH];
            if self.shard(way).is_some_and(|shard| shard.values.iter().any(&is_meant)) {
                let values = &mut self.shard_mut(way).values;
                values.iter_mut().filter(|value| is_meant(value)).for_each(&mut change);
            }
        }
    }

    fn shard_mut(&mut self, way: [usize; 3]) -> &mut Shard<K, T> {
        Arc::make_mut(self.place_mut(way).get_or_insert_default())
    }

    fn place_mut(&mut self, [first, second, third]: [usize; 3]) -> &mut Option<Arc<Shard<K, T>>> {
        let node = Arc::make_mut(&mut self.root)[first].get_or_insert_default();
        let node = Arc::make_mut(node)[second].get_or_insert_default();
        &mut Arc::make_mut(node)[third]
    }
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<K, T> Default for Shard<K, T> {
    fn default() -> Self {
        Self { keys: Vec::new(), values: Vec::new() }
    }
}

/// Which branch to take at each node: the high bits of a multiplication by 2^64 divided by the golden ratio (Knuth, TAOCP
/// 6.4).
#[inline]
fn way_to<K: Key>(key: K) -> [usize; 3] {
    let product = key.mix().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [b0, b1, ..] = product.to_be_bytes();
    [b0 >> 4, b0 & 15, b1 >> 4].map(usize::from)
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
        let longest = table.shards().map(|shard| shard.keys.len()).max();
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
