//! What a look costs, counted and not timed: what is allocated for it is the same in each run, whatever else the machine does,
//! and by far most of the time goes with it. What that is in time, `terminal` and docs/performance.md have.

use std::time::Duration;

use ipsecd::cli::top::frame;
use ipsecd::cli::top::model::Model;
use ipsecd::cli::top::view::Charset;
use ipsecd::control::protocol::{Body, Reply, to_line};
use ipsecd::testing::VirtualClock;

use crate::counting::asked;
use crate::sample::status;

fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = asked();
    let done = work();
    (done, asked() - before)
}

#[test]
fn a_look_and_a_frame_cost_what_they_did() {
    let start = VirtualClock::new().now();
    let mut costs = Vec::new();
    for tunnels in [20, 1000] {
        let mut model = Model::default();
        let mut cost = [0; 3];
        // The last counts: histories have their size by then.
        for second in 0..4 {
            let line =
                to_line(&Reply::from(Body::Status(Box::new(status(tunnels, second))))).unwrap();
            let (reply, read) = counted(|| serde_json::from_slice::<Reply>(&line).unwrap());
            let Body::Status(status) = reply.reply else { panic!("it is no status") };
            let now = start + Duration::from_secs(second);
            let ((), taken) = counted(|| model.update(now, *status));
            let (_, drawn) = counted(|| frame(&model, 80, 24, Charset::Utf8));
            cost = [read, taken, drawn];
        }
        println!("{tunnels} tunnels: allocations to read, take in, draw: {cost:?}");
        costs.push(cost);
    }
    let [few, many] = costs[..] else { panic!("there are two") };
    // For a tunnel: its texts, and what is remembered of it.
    assert!(many[0] < 1000 * READ, "{many:?}");
    assert!(many[1] < 1000 * TAKE, "{many:?}");
    // Nothing is drawn that is not seen.
    assert!(many[2] < few[2] * 5 / 4, "{few:?}, {many:?}");
    assert!(few[2] < DRAW, "{few:?}");
}

/// Allocations for a tunnel, with a quarter above what there are.
const READ: u64 = 33;
const TAKE: u64 = 15;
/// Allocations for a frame of 80 by 24, likewise.
const DRAW: u64 = 3500;
