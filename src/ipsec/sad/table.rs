//! [`Table`]: values by a 32-bit number, found in constant time and walked in order.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

/// Sorted values, and where each is.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    entries: Vec<(u32, T)>,
    index: HashMap<u32, usize, BuildHasherDefault<Multiply>>,
}

impl<T> Table<T> {
    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.index.get(&key).map(|&at| &self.entries[at].1)
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        self.index.get(&key).map(|&at| &mut self.entries[at].1)
    }

    /// Replaces what has the same key.
    pub(super) fn insert(&mut self, key: u32, value: T) {
        match self.entries.binary_search_by_key(&key, |&(key, _)| key) {
            Ok(at) => self.entries[at].1 = value,
            Err(at) => {
                self.entries.insert(at, (key, value));
                self.reindex();
            }
        }
    }

    pub(super) fn remove(&mut self, key: u32) {
        if let Ok(at) = self.entries.binary_search_by_key(&key, |&(key, _)| key) {
            self.entries.remove(at);
            self.reindex();
        }
    }

    /// In the order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// In the order of the keys.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// A snapshot is made by copying it whole; this costs no more.
    fn reindex(&mut self) {
        self.index.clear();
        self.index.extend(self.entries.iter().enumerate().map(|(at, &(key, _))| (key, at)));
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), index: HashMap::default() }
    }
}

/// A multiplication: the keys, SPIs and policy numbers, are chosen by us, so nobody can make them collide.
#[derive(Default)]
pub(super) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u32(byte.into()));
    }

    fn write_u32(&mut self, value: u32) {
        // 2^64 divided by the golden ratio (Knuth, TAOCP 6.4); the table looks at both ends of the result.
        let product = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
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
        assert_eq!(table.iter().copied().collect::<Vec<_>>(), [1, 5, 300, 0xffff_ffff]);
        table.remove(5);
        table.remove(6);
        table.insert(300, 301);
        assert_eq!([table.get(1), table.get(5), table.get(300)], [Some(&1), None, Some(&301)]);
        table.iter_mut().for_each(|value| *value = 0);
        assert_eq!(table.get(0xffff_ffff), Some(&0));
    }
}
