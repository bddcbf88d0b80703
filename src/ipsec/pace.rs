//! How often something may be said: [`Pace`] for one thing, [`PaceTable`] for each of many, [`Budget`] for all together.
//!
//! Lock-free and of fixed size, since what is said is caused by packets, and by forged ones too. Times are milliseconds
//! since a moment that the caller chose.

use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicU64, Ordering};
use std::hash::DefaultHasher;

/// At most once in an interval.
#[derive(Debug, Default)]
pub struct Pace {
    /// One more than the time of the last; 0: never.
    last: AtomicU64,
}

impl Pace {
    /// Nothing said yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: AtomicU64::new(0) }
    }

    /// Whether it may be said now, after which it counts as said. Of several workers one hears yes.
    pub fn due(&self, now: u64, interval: u64) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_add(1) >= last.saturating_add(interval);
        due && self
            .last
            .compare_exchange(last, now.saturating_add(1), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// At most once in an interval for each key, as far as the table reaches: keys that fall on the same slot take turns.
#[derive(Debug)]
pub struct PaceTable {
    /// The upper half tells the key, the lower half the time of the last, modulo 2^32.
    slots: Box<[AtomicU64]>,
}

impl PaceTable {
    const SLOTS: usize = 256;

    /// Nothing said yet.
    #[must_use]
    pub fn new() -> Self {
        Self { slots: (0..Self::SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether it may be said of `key` now, after which it counts as said.
    #[expect(clippy::cast_possible_truncation, reason = "a slot, a tag and a time modulo 2^32")]
    pub fn due(&self, key: impl Hash, now: u64, interval: u32) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        let slot = &self.slots[hash as usize % Self::SLOTS];
        // Never 0, which is an empty slot.
        let tag = hash >> 32 | 1;
        let time = now as u32;
        let entry = slot.load(Ordering::Relaxed);
        let elapsed = time.wrapping_sub(entry as u32);
        if entry >> 32 == tag && elapsed < interval {
            return false;
        }
        let next = tag << 32 | u64::from(time);
        slot.compare_exchange(entry, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Default for PaceTable {
    fn default() -> Self {
        Self::new()
    }
}

/// At most so many in a second.
#[derive(Debug, Default)]
pub struct Budget {
    /// The second, and how many in it.
    spent: AtomicU64,
}

impl Budget {
    /// Nothing spent yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { spent: AtomicU64::new(0) }
    }

    /// Whether one more may be said in this second, after which it counts as said.
    pub fn take(&self, now: u64, per_second: u32) -> bool {
        let second = (now / 1000) << 32;
        let spend = |spent: u64| {
            let spent = if spent & !0xffff_ffff == second { spent } else { second };
            (spent & 0xffff_ffff < per_second.into()).then_some(spent + 1)
        };
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept() {
        let pace = Pace::new();
        let said: Vec<u64> = (0..2500).filter(|&now| pace.due(now, 1000)).collect();
        assert_eq!(said, [0, 1000, 2000]);
        assert!(!pace.due(0, 1000), "an older time changes nothing");
    }

    #[test]
    fn each_key_has_its_own_pace() {
        let table = PaceTable::new();
        assert!(table.due("a", 5, 1000));
        assert!(table.due("b", 5, 1000));
        assert!(!table.due("a", 1004, 1000));
        assert!(table.due("a", 1005, 1000));
    }

    #[test]
    fn a_pace_outlives_the_turn_of_its_clock() {
        let table = PaceTable::new();
        assert!(table.due("a", 0xffff_ff00, 1000));
        assert!(!table.due("a", 0x1_0000_0010, 1000));
        assert!(table.due("a", 0x1_0000_1000, 1000));
    }

    #[test]
    fn a_budget_is_for_a_second() {
        let budget = Budget::new();
        let count = |now| (0..10).filter(|_| budget.take(now, 3)).count();
        assert_eq!([count(0), count(999), count(1000), count(1500), count(5000)], [3, 0, 3, 0, 3]);
    }
}
