//! [`Turn`]: the right to take sequence numbers of an outbound SA and to send what gets them, where several workers have that SA.
//!
//! A peer's replay window may have no more than 32 packets (RFC 4303 §3.4.3), so packets leave in the order of their numbers:
//! whoever takes one keeps the others out until it is sent. Where there is one worker nobody asks for a turn.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::OutboundSa;

/// So often in a row somebody who has just come is served before who waits: to wake who waits takes longer than a batch does.
const AHEAD: u32 = 4;

/// Whose turn it is under an SA.
#[derive(Debug, Default)]
pub(super) struct Order {
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    waiting: u32,
    /// How often it was taken while somebody waited.
    ahead: u32,
}

impl State {
    fn try_take(&mut self) -> bool {
        if self.taken || self.waiting > 0 && self.ahead >= AHEAD {
            return false;
        }
        if self.waiting > 0 {
            self.ahead += 1;
        }
        self.taken = true;
        true
    }
}

impl Order {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) {
        let mut state = self.state();
        if state.try_take() {
            return;
        }
        state.waiting += 1;
        loop {
            state = self.free.wait(state).unwrap_or_else(PoisonError::into_inner);
            if !state.taken {
                break;
            }
        }
        state.waiting -= 1;
        state.ahead = 0;
        state.taken = true;
    }

    fn give_back(&self) {
        let mut state = self.state();
        state.taken = false;
        if state.waiting > 0 {
            self.free.notify_one();
        }
    }
}

/// See the module. It ends when dropped.
#[derive(Debug)]
pub struct Turn {
    sa: Arc<OutboundSa>,
}

impl Turn {
    /// `None` if another worker has it, or has waited for too long.
    #[must_use]
    pub fn try_take(sa: &Arc<OutboundSa>) -> Option<Self> {
        sa.order().state().try_take().then(|| Self { sa: Arc::clone(sa) })
    }

    /// Waits for it. Whoever has any other turn meanwhile may wait for ever: for one who has this and waits for that.
    #[must_use]
    pub fn take(sa: &Arc<OutboundSa>) -> Self {
        sa.order().take();
        Self { sa: Arc::clone(sa) }
    }

    /// Whether it is under this SA.
    #[must_use]
    pub fn is_under(&self, sa: &Arc<OutboundSa>) -> bool {
        Arc::ptr_eq(&self.sa, sa)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.sa.order().give_back();
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::testing::peers;

    fn sa() -> Arc<OutboundSa> {
        Arc::new(OutboundSa::new(peers::sa_params()).unwrap())
    }

    #[test]
    fn turn_is_one_workers_until_it_is_dropped() {
        let (sa, other) = (sa(), sa());
        let turn = Turn::try_take(&sa).unwrap();
        assert!(turn.is_under(&sa) && !turn.is_under(&other));
        assert!(Turn::try_take(&sa).is_none());
        assert!(Turn::try_take(&other).is_some());
        drop(turn);
        assert!(Turn::try_take(&sa).is_some());
    }

    #[test]
    fn whoever_waits_gets_it() {
        const EACH: u64 = 2000;
        let sa = sa();
        let (within, turns) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let turn = Turn::take(&sa);
                        assert_eq!(within.fetch_add(1, Ordering::Relaxed), 0, "two have it");
                        turns.fetch_add(1, Ordering::Relaxed);
                        within.fetch_sub(1, Ordering::Relaxed);
                        drop(turn);
                    }
                });
            }
        });
        assert_eq!(turns.load(Ordering::Relaxed), 4 * EACH);
    }

    #[test]
    fn who_waits_is_passed_by_a_few_only() {
        let mut state = State { waiting: 1, ..State::default() };
        let mut passed = 0;
        while state.try_take() {
            state.taken = false;
            passed += 1;
        }
        assert_eq!(passed, AHEAD);
        state.waiting = 0;
        assert!(state.try_take(), "nobody waits any more");
    }
}
