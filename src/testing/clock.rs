//! [`VirtualClock`]: time that passes when told to.

use core::time::Duration;
use std::time::Instant;

/// Time that passes when told to.
///
/// An `Instant` can be had from the system alone, so the clock starts at a real one; nothing depends on which.
#[derive(Clone, Copy, Debug)]
pub struct VirtualClock {
    start: Instant,
    elapsed: Duration,
}

impl VirtualClock {
    /// A clock at zero.
    #[must_use]
    pub fn new() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the origin of virtual time; only differences to it are used"
        )]
        let start = Instant::now();
        Self { start, elapsed: Duration::ZERO }
    }

    /// The time, as an endpoint takes it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    /// Time since the start.
    #[must_use]
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// An endpoint's time as time since the start; zero if it is before.
    #[must_use]
    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    /// Moves on to `elapsed` since the start. Time does not go back: an earlier value leaves the clock as it is.
    pub fn advance_to(&mut self, elapsed: Duration) {
        self.elapsed = self.elapsed.max(elapsed);
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let mut clock = VirtualClock::new();
        let start = clock.now();
        clock.advance_to(Duration::from_secs(2));
        clock.advance_to(Duration::from_secs(1));
        assert_eq!(clock.now() - start, Duration::from_secs(2));
        assert_eq!(clock.since_start(clock.now()), Duration::from_secs(2));
    }
}
