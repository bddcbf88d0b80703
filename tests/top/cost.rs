//! What a look costs, counted and not timed: what is allocated for it is the same in each run, whatever else the machine does,
//! and by far most of the time goes with it. What that is in time, `terminal` and docs/performance.md have.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use ipsecd::cli::top::frame;
use ipsecd::cli::top::model::Model;
use ipsecd::cli::top::view::Charset;
use ipsecd::control::protocol::{Body, Reply, to_line};
use ipsecd::testing::VirtualClock;

use crate::sample::status;

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count_one() {
    // At the end of a thread the counter is gone before the last memory is given back.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_one();
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ASKED.get();
    let done = work();
    (done, ASKED.get() - before)
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
