//! What the benches share: a clock, medians, and the lines `figure NAME VALUE UNIT` that the report reads.

#![allow(dead_code, reason = "not every bench needs all of it")]

use std::time::{Duration, Instant};

/// How long something takes.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn time(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// Now.
#[expect(clippy::disallowed_methods, reason = "what is measured lives in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Durations of the same thing, as often as it was done.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// One that took so long for so many.
    pub(crate) fn push(&mut self, taken: Duration, count: usize) {
        self.0.push(taken.as_secs_f64() * 1e9 / count as f64);
    }

    /// Nanoseconds of each: of the middle one.
    pub(crate) fn median(&mut self) -> f64 {
        assert!(!self.0.is_empty(), "something was measured");
        self.0.sort_by(f64::total_cmp);
        self.0[self.0.len() / 2]
    }
}

/// Tells a figure.
#[expect(clippy::print_stdout, reason = "a benchmark prints what it found")]
pub(crate) fn figure(name: &str, value: f64, unit: &str) {
    println!("figure {name} {value:.3} {unit}");
}
