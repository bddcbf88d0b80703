//! Which thread moves packets which way.
//!
//! While there is little to do, one thread serves both directions. What it writes into a TUN is often answered before the
//! write returns (a ping is), and then it finds the answer itself; to wake another thread for that takes tens of microseconds
//! where the processor sleeps too, and more in a virtual machine. When there is much to do, a second thread takes the outbound
//! direction over, and gives it back when it is quiet again.
//!
//! A direction changes hands between two batches, with all that belongs to it, and belongs to one thread at any time: so no
//! packet overtakes another. What comes meanwhile waits in the TUN.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use smallvec::SmallVec;

use crate::io::clock;

/// The first thread is looked at over so long at least.
const BUSY_WINDOW: Duration = Duration::from_millis(2);
/// It gives outbound away if it has worked for more than this part (1/n) of that.
const BUSY_PART: u32 = 2;
/// Both threads are looked at over so long at least.
const QUIET_WINDOW: Duration = Duration::from_millis(10);
/// The second gives outbound back if both together have worked for less than this part (1/n) of that: half of what makes
/// the first give it away, so that it does not go to and fro.
const QUIET_PART: u32 = 4;
/// Descriptors that are served after one wait; others come next.
const EVENTS: usize = 16;

/// A direction: where its packets come from, and what is done with them.
pub trait Direction: Send {
    /// The descriptors that it reads from.
    fn sources(&self) -> SmallVec<[BorrowedFd<'_>; 8]>;

    /// Whether it has to [`renew`](Self::renew) them. Asked when the thread was woken.
    fn is_stale(&self) -> bool {
        false
    }

    /// Takes the newest sources.
    fn renew(&mut self) {}

    /// After so long [`begin`](Self::begin) wants to be called, though there was nothing to read. Asked before each wait.
    fn patience(&mut self) -> Option<Duration> {
        None
    }

    /// Does what is due before anything is read: the thread has been woken, there is something to read, or patience is over.
    fn begin(&mut self, _now: Instant) {}

    /// Moves one batch from a source that can be read, by its place among [`sources`](Self::sources).
    ///
    /// # Errors
    /// What ends the thread.
    fn pass(&mut self, now: Instant, source: usize) -> io::Result<()>;
}

/// Wakes a thread that waits in [`First::run`] or [`Second::run`], from anywhere.
#[derive(Debug)]
pub struct Waker(PipeWriter);

impl Waker {
    /// Has it look whether sources have changed, and whether it is to end.
    pub fn wake(&self) {
        if let Err(error) = (&self.0).write_all(&[0]) {
            tracing::debug!(%error, "a worker has ended before it was woken");
        }
    }

    fn another(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// The thread that always serves inbound, and outbound while there is little to do.
pub struct First<I, O> {
    seat: Seat,
    second: Waker,
    between: Arc<Between<O>>,
    inbound: I,
    outbound: Option<O>,
}

/// The thread that serves outbound while there is much to do.
pub struct Second<O> {
    seat: Seat,
    first: Waker,
    between: Arc<Between<O>>,
}

/// What the two threads share.
struct Between<O> {
    /// The outbound direction on its way from one to the other.
    outbound: Mutex<Option<O>>,
    /// For how long the first has worked while the second had outbound, in nanoseconds.
    first_busy: AtomicU64,
}

/// Two threads, still to be run.
pub struct Threads<I, O> {
    /// The first.
    pub first: First<I, O>,
    /// The second.
    pub second: Second<O>,
    /// What wakes each.
    pub wakers: [Waker; 2],
}

/// Two threads for these directions.
///
/// # Errors
/// Those of pipe(2) and epoll_create(2).
pub fn threads<I: Direction, O: Direction>(inbound: I, outbound: O) -> io::Result<Threads<I, O>> {
    let (seat, first) = Seat::new()?;
    let (second_seat, second) = Seat::new()?;
    let between = Arc::new(Between { outbound: Mutex::new(None), first_busy: AtomicU64::new(0) });
    let wakers = [first.another()?, second.another()?];
    let last = Second { seat: second_seat, first, between: Arc::clone(&between) };
    let first = First { seat, second, between, inbound, outbound: Some(outbound) };
    Ok(Threads { first, second: last, wakers })
}

impl<O> Between<O> {
    fn put(&self, outbound: O) {
        *self.outbound.lock().unwrap_or_else(PoisonError::into_inner) = Some(outbound);
    }

    fn take(&self) -> Option<O> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn first_busy(&self) -> Duration {
        Duration::from_nanos(self.first_busy.load(Ordering::Relaxed))
    }
}

impl<I: Direction, O: Direction> First<I, O> {
    /// Serves until `stop` is set and the thread woken.
    ///
    /// # Errors
    /// Those of epoll(7), and of a direction.
    pub fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        self.seat.watch(INBOUND, &self.inbound)?;
        if let Some(outbound) = &self.outbound {
            self.seat.watch(OUTBOUND, outbound)?;
        }
        let mut meter = Meter::new(clock::now());
        loop {
            let patience = [self.inbound.patience(), self.outbound.as_mut().and_then(O::patience)];
            let ready = self.seat.wait(patience.into_iter().flatten().min())?;
            let woke = clock::now();
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            if ready.woken {
                self.come_to()?;
            }
            self.inbound.begin(woke);
            if let Some(outbound) = &mut self.outbound {
                outbound.begin(woke);
            }
            for event in &self.seat.events[..ready.count] {
                match (unmark(event.data()), &mut self.outbound) {
                    ((INBOUND, source), _) => self.inbound.pass(woke, source)?,
                    ((OUTBOUND, source), Some(outbound)) => outbound.pass(woke, source)?,
                    _ => {}
                }
            }
            let now = clock::now();
            meter.worked(now - woke);
            if self.outbound.is_none() {
                let busy = u64::try_from((now - woke).as_nanos()).unwrap_or(0);
                self.between.first_busy.fetch_add(busy, Ordering::Relaxed);
            }
            if let Some((busy, of)) = meter.over(BUSY_WINDOW, now)
                && busy * BUSY_PART > of
                && let Some(outbound) = self.outbound.take()
            {
                self.seat.forget(&outbound);
                self.between.put(outbound);
                self.second.wake();
            }
        }
    }

    /// Somebody woke us: outbound may be back, or there are other sources.
    fn come_to(&mut self) -> io::Result<()> {
        self.seat.renew(INBOUND, &mut self.inbound)?;
        match &mut self.outbound {
            Some(outbound) => self.seat.renew(OUTBOUND, outbound),
            None => {
                self.outbound = self.seat.take_over(&self.between)?;
                Ok(())
            }
        }
    }
}

impl<O: Direction> Second<O> {
    /// As [`First::run`].
    ///
    /// # Errors
    /// As there.
    pub fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut here: Option<O> = None;
        let mut meter = Meter::new(clock::now());
        let mut first_busy = Duration::ZERO;
        loop {
            let patience = here.as_mut().map(|outbound| {
                outbound.patience().map_or(QUIET_WINDOW, |patience| patience.min(QUIET_WINDOW))
            });
            let ready = self.seat.wait(patience)?;
            let woke = clock::now();
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            match &mut here {
                None => {
                    here = self.seat.take_over(&self.between)?;
                    (meter, first_busy) = (Meter::new(woke), self.between.first_busy());
                }
                Some(outbound) if ready.woken => self.seat.renew(OUTBOUND, outbound)?,
                Some(_) => {}
            }
            let Some(outbound) = &mut here else { continue };
            outbound.begin(woke);
            for event in &self.seat.events[..ready.count] {
                if let (OUTBOUND, source) = unmark(event.data()) {
                    outbound.pass(woke, source)?;
                }
            }
            let now = clock::now();
            meter.worked(now - woke);
            let Some((busy, of)) = meter.over(QUIET_WINDOW, now) else { continue };
            let before = core::mem::replace(&mut first_busy, self.between.first_busy());
            if (busy + first_busy.saturating_sub(before)) * QUIET_PART < of
                && let Some(outbound) = here.take()
            {
                self.seat.forget(&outbound);
                self.between.put(outbound);
                self.first.wake();
            }
        }
    }
}

/// For how long a thread has worked, of how long.
struct Meter {
    since: Instant,
    busy: Duration,
}

impl Meter {
    const fn new(now: Instant) -> Self {
        Self { since: now, busy: Duration::ZERO }
    }

    fn worked(&mut self, time: Duration) {
        self.busy += time;
    }

    /// How long it worked, and of how long, if that is `window` or more; it begins anew then.
    fn over(&mut self, window: Duration, now: Instant) -> Option<(Duration, Duration)> {
        let of = now - self.since;
        if of < window {
            return None;
        }
        let before = core::mem::replace(self, Self::new(now));
        Some((before.busy, of))
    }
}

/// Marks of descriptors: whose they are, above their place.
const INBOUND: u32 = 0;
const OUTBOUND: u32 = 1;
const WAKE: u32 = 2;

/// Where a thread waits.
struct Seat {
    epoll: Epoll,
    wake: PipeReader,
    /// What was found last: the descriptors that can be read.
    events: [EpollEvent; EVENTS],
}

/// What a thread has waited for.
struct Ready {
    woken: bool,
    /// So many of [`Seat::events`].
    count: usize,
}

impl Seat {
    fn new() -> io::Result<(Self, Waker)> {
        let (wake, waker) = io::pipe()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, mark(WAKE, 0)))?;
        Ok((Self { epoll, wake, events: [EpollEvent::empty(); EVENTS] }, Waker(waker)))
    }

    fn watch(&self, side: u32, direction: &impl Direction) -> io::Result<()> {
        for (place, source) in direction.sources().iter().enumerate() {
            self.epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, mark(side, place)))?;
        }
        Ok(())
    }

    fn forget(&self, direction: &impl Direction) {
        for source in direction.sources() {
            if let Err(error) = self.epoll.delete(source) {
                tracing::debug!(%error, "a source was not watched");
            }
        }
    }

    fn renew(&self, side: u32, direction: &mut impl Direction) -> io::Result<()> {
        if direction.is_stale() {
            self.forget(direction);
            direction.renew();
            self.watch(side, direction)?;
        }
        Ok(())
    }

    /// Takes outbound, if it is there to be taken.
    fn take_over<O: Direction>(&self, between: &Between<O>) -> io::Result<Option<O>> {
        let mut outbound = between.take();
        if let Some(outbound) = &mut outbound {
            if outbound.is_stale() {
                outbound.renew();
            }
            self.watch(OUTBOUND, outbound)?;
        }
        Ok(outbound)
    }

    /// Waits until a source can be read, the thread is woken, or `patience` is over.
    fn wait(&mut self, patience: Option<Duration>) -> io::Result<Ready> {
        let timeout = match patience {
            None => EpollTimeout::NONE,
            Some(time) => EpollTimeout::try_from(time).unwrap_or(EpollTimeout::MAX),
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let woken = self.events[..count].iter().any(|event| unmark(event.data()).0 == WAKE);
        if woken {
            let _count = (&self.wake).read(&mut [0; 64])?;
        }
        Ok(Ready { woken, count })
    }
}

const fn mark(side: u32, place: usize) -> u64 {
    (side as u64) << 32 | place as u64
}

const fn unmark(data: u64) -> (u32, usize) {
    ((data >> 32) as u32, (data & 0xffff_ffff) as usize)
}

#[cfg(test)]
mod tests;
