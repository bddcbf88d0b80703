//! How much a second: [`Bucket`], and [`Buckets`], one for each prefix of source addresses.

use core::hash::BuildHasher;
use std::hash::RandomState;
use std::time::Instant;

use super::half_open::Prefix;
use super::limits;
use crate::wire::ike::numbers::KeId;

/// So many units a second, and a burst of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) per_second: u32,
    pub(super) burst: u32,
}

/// A token bucket: full at first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// Units taken and not yet come back, in millionths.
    taken: u64,
    at: Option<Instant>,
}

impl Bucket {
    const UNIT: u64 = 1_000_000;

    /// Units that may be taken.
    pub(super) fn level(&mut self, now: Instant, rate: Rate) -> u32 {
        self.flow(now, rate);
        let left = (u64::from(rate.burst) * Self::UNIT).saturating_sub(self.taken);
        u32::try_from(left / Self::UNIT).unwrap_or(u32::MAX)
    }

    /// Takes `units`, if there are so many.
    pub(super) fn take(&mut self, now: Instant, rate: Rate, units: u32) -> bool {
        let enough = self.level(now, rate) >= units;
        if enough {
            self.taken += u64::from(units) * Self::UNIT;
        }
        enough
    }

    fn flow(&mut self, now: Instant, rate: Rate) {
        if let Some(before) = self.at {
            let micros = now.saturating_duration_since(before).as_micros();
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            self.taken = self.taken.saturating_sub(micros.saturating_mul(rate.per_second.into()));
        }
        self.at = Some(now);
    }
}

/// A bucket for each prefix, of which some share one: as many as a flood may come from take no more memory.
#[derive(Default)]
pub(super) struct Buckets {
    /// Empty until the first is needed.
    buckets: Vec<Bucket>,
    /// Keyed, so that nobody can choose whom to share with.
    hasher: RandomState,
}

impl Buckets {
    /// Takes `units` of what the prefix has, if there are so many.
    pub(super) fn take(&mut self, now: Instant, rate: Rate, prefix: Prefix, units: u32) -> bool {
        if self.buckets.is_empty() {
            self.buckets.resize(limits::PREFIX_BUCKETS, Bucket::default());
        }
        let count = u64::try_from(self.buckets.len()).unwrap_or(u64::MAX);
        let at = self.hasher.hash_one(prefix) % count;
        usize::try_from(at)
            .ok()
            .and_then(|at| self.buckets.get_mut(at))
            .is_some_and(|bucket| bucket.take(now, rate, units))
    }
}

/// What it may take to make a key pair, agree, and look at one IKE_AUTH: microseconds of a slow core.
pub(super) fn cost_of(group: KeId) -> u32 {
    match group {
        KeId::MODP_8192 => 250_000,
        KeId::MODP_6144 => 150_000,
        KeId::MODP_4096 => 60_000,
        KeId::MODP_3072 => 30_000,
        KeId::MODP_2048 => 12_000,
        KeId::ECP_384 | KeId::ECP_521 => 2_500,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };

    #[test]
    fn bucket_gives_its_burst_and_then_its_rate() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(start, RATE, 1)).count(), 20);
        let later = start + Duration::from_millis(550);
        assert_eq!(bucket.level(later, RATE), 5);
        assert!(!bucket.take(later, RATE, 6), "all or nothing");
        assert_eq!((0..100).filter(|_| bucket.take(later, RATE, 1)).count(), 5);
        // Asked often, it loses nothing by rounding.
        let taken = (1..=10_000_u64)
            .filter(|ms| bucket.take(later + Duration::from_micros(ms * 100), RATE, 1))
            .count();
        assert_eq!(taken, 10);
        assert_eq!(bucket.level(later + Duration::from_secs(1_000_000_000), RATE), 20);
    }

    #[test]
    fn each_prefix_has_its_own() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut buckets = Buckets::default();
        let mut take = |text: &str| buckets.take(now, RATE, Prefix::of(text.parse().unwrap()), 1);
        assert_eq!((0..100).filter(|n| take(&format!("192.0.2.{n}"))).count(), 20);
        // One of these may share the bucket that is empty.
        let others = (0..100).filter(|n| take(&format!("198.51.{n}.1"))).count();
        assert!(others >= 95, "{others}");
    }
}
