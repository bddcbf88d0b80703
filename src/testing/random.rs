//! [`FixedRandom`]: randomness that follows from a seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::crypto::SecureRandom;

/// Randomness that follows from a seed: the same numbers every time, on every machine.
#[derive(Clone)]
pub struct FixedRandom(ChaCha8Rng);

impl FixedRandom {
    /// The stream number `stream` of `seed`; streams of one seed have nothing in common.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `limit`; zero if `limit` is zero. The bias of the remainder does not matter to a test.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next_u64() % limit).unwrap_or(0)
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u8) -> bool {
        self.next_u64() % 100 < u64::from(percent)
    }
}

impl SecureRandom for FixedRandom {
    fn fill(&mut self, buf: &mut [u8]) {
        self.0.fill_bytes(buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sixteen(mut random: FixedRandom) -> [u8; 16] {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        bytes
    }

    #[test]
    fn seed_and_stream_decide_every_byte() {
        assert_eq!(sixteen(FixedRandom::new(1, 0)), sixteen(FixedRandom::new(1, 0)));
        assert_ne!(sixteen(FixedRandom::new(1, 0)), sixteen(FixedRandom::new(2, 0)));
        assert_ne!(sixteen(FixedRandom::new(1, 0)), sixteen(FixedRandom::new(1, 1)));
    }

    #[test]
    fn chance_keeps_its_bounds() {
        let mut random = FixedRandom::new(7, 0);
        assert!((0..1000).all(|_| !random.chance(0) && random.chance(100)));
        assert!((0..1000).all(|_| random.below(3) < 3));
        let hits = (0..10_000).filter(|_| random.chance(20)).count();
        assert!((1_800..2_200).contains(&hits), "{hits} of 10,000 at 20 %");
    }
}
