//! Waiting: for a condition, up to a limit. The only file of the lab that reads the clock or sleeps.
#![expect(
    clippy::disallowed_methods,
    reason = "other processes are watched: by polling, in real time"
)]

use std::thread::sleep;
use std::time::{Duration, Instant};

/// For what comes by itself in no time worth mentioning, on a machine that has other things to do. Where the time is the claim, a test
/// says its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What `probe` gives as soon as it gives something; `None` after `limit`.
pub(crate) fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(POLL);
    }
}

/// As [`within`], and a failed test, naming `what`, after `limit`.
#[track_caller]
pub(crate) fn until<T>(what: &str, limit: Duration, probe: impl FnMut() -> Option<T>) -> T {
    match within(limit, probe) {
        Some(found) => found,
        None => panic!("waited {limit:?} in vain for: {what}"),
    }
}

/// A running clock.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Calls `tick` at a steady `rate` a second, with the call's number, until it gives `false`. After a stall it goes on
/// at that rate and does not catch up.
pub(crate) fn steady(rate: u32, mut tick: impl FnMut(u64) -> bool) {
    let period = Duration::from_secs(1) / rate;
    let (mut due, mut number) = (Instant::now(), 0);
    loop {
        let now = Instant::now();
        match due.checked_duration_since(now) {
            Some(early) => sleep(early),
            // A burst of a few makes up for the coarseness of sleep, no more.
            None if now - due > period * 16 => due = now,
            None => (),
        }
        if !tick(number) {
            return;
        }
        number += 1;
        due += period;
    }
}
