//! When to try a peer again: after 1, 2, 4 … 60 s, each a little less at random, so that many peers do not come at once.

use core::time::Duration;

use crate::crypto::SecureRandom;

/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The waits of one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub fn next(&mut self, rng: &mut dyn SecureRandom) -> Duration {
        let whole = LONGEST.min(Duration::from_secs(1 << self.failures.min(6)));
        self.failures = self.failures.saturating_add(1);
        let mut random = [0; 2];
        rng.fill(&mut random);
        // Up to a quarter less.
        whole - whole / 4 * u32::from(u16::from_be_bytes(random)) / u32::from(u16::MAX)
    }

    /// It went well: the next wait is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl SecureRandom for Fixed {
        fn fill(&mut self, buf: &mut [u8]) {
            buf.fill(self.0);
        }
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(&mut Fixed(0)).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next(&mut Fixed(0)).as_secs(), 1);
    }

    #[test]
    fn chance_takes_a_quarter_at_most() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(&mut Fixed(0xff)), Duration::from_millis(750));
    }
}
