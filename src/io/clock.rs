//! The clocks, read here and nowhere else.

use std::time::{Instant, SystemTime};

/// The monotonic clock.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, for what an operator reads.
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
