//! IKE messages from port 500, a batch at a time. The driver takes them from the socket itself: what it has no time for waits there,
//! in a buffer that the kernel bounds, and a flood costs neither a copy nor a change of tasks.
//!
//! While strangers are asked for COOKIEs by the many, the socket is not watched but looked at every [`GATHER`]: to be woken for a
//! few messages at a time would take a good part of what they cost.

use core::future;
use core::time::Duration;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::unix::AsyncFd;

use super::sockets::{IKE_PORT, Sockets, path_of};
use crate::io::clock;
use crate::io::sys::{BATCH, Received};
use crate::io::udp::Socket;
use crate::ipsec::{Encap, Path};

/// Longest IKE message; a longer one is none (see `ike`).
const MAX_MESSAGE: usize = 16_384;
/// What a peer may have to wait for an answer in a flood, at most. Of 100,000 messages a second the socket's buffer holds more than
/// comes in ten times as long.
const GATHER: Duration = Duration::from_millis(4);
/// So many COOKIEs within [`GATHER`] are a flood.
const FLOOD: u64 = 8;

/// Receives the IKE messages of one version of IP.
pub(super) struct Receiver {
    sockets: Arc<Sockets>,
    v6: bool,
    /// Whoever wakes us when there is something. `None`: it is looked at by the clock, or the host has none.
    watched: Option<AsyncFd<OwnedFd>>,
    pace: Pace,
    /// Room for a batch, in one piece: what no message needed is never touched, and takes no memory.
    buffers: Vec<u8>,
    received: Vec<Received>,
}

impl Receiver {
    /// # Errors
    /// If the socket cannot be watched.
    pub(super) fn new(sockets: &Arc<Sockets>, v6: bool) -> io::Result<Self> {
        let mut new = Self {
            sockets: Arc::clone(sockets),
            v6,
            watched: None,
            pace: Pace::new(clock::now()),
            buffers: vec![0; MAX_MESSAGE * BATCH],
            received: Vec::new(),
        };
        new.watch()?;
        Ok(new)
    }

    fn watch(&mut self) -> io::Result<()> {
        if self.watched.is_none() {
            let socket = socket(&self.sockets, self.v6);
            self.watched = socket.map(Socket::watched).transpose()?;
        }
        Ok(())
    }

    /// Waits for messages and takes what is there, at most [`BATCH`]: see [`Self::messages`]. Whoever drops the future has taken
    /// nothing. Without a socket it waits for ever.
    pub(super) async fn receive(&mut self) {
        self.received.clear();
        if let Some(at) = self.pace.next_look {
            tokio::time::sleep_until(at.into()).await;
        } else if let Err(error) = self.watch() {
            tracing::debug!(%error, "port 500 is not watched, but looked at from time to time");
            tokio::time::sleep(GATHER).await;
        }
        let Self { sockets, v6, watched, buffers, received, .. } = self;
        let Some(socket) = socket(sockets, *v6) else { return future::pending().await };
        let mut take = || {
            let mut slices: Vec<_> =
                buffers.chunks_exact_mut(MAX_MESSAGE).map(IoSliceMut::new).collect();
            socket.recv(&mut slices, received)
        };
        let mut ready = match watched {
            Some(watched) => match watched.readable().await {
                Ok(ready) => Some(ready),
                Err(error) => {
                    tracing::debug!(%error, "waiting on port 500");
                    return;
                }
            },
            None => None,
        };
        let result = take();
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!(%error, "receiving on port 500");
        }
        // Of fewer it is known that they were all: the next call need not ask to find out.
        let is_empty = match &result {
            Ok(()) => received.len() < BATCH,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if let Some(ready) = ready.as_mut().filter(|_| is_empty) {
            ready.clear_ready();
        }
    }

    /// What the last [`Self::receive`] took.
    pub(super) fn messages(&self) -> impl Iterator<Item = (Path, &[u8])> {
        self.received.iter().zip(self.buffers.chunks_exact(MAX_MESSAGE)).filter_map(
            |(datagram, buffer)| {
                let message = buffer.get(..datagram.len).filter(|_| !datagram.truncated)?;
                Some((path_of(datagram, IKE_PORT, Encap::Plain), message))
            },
        )
    }

    /// For so many of the last messages a COOKIE was asked: decides how the next are waited for.
    pub(super) fn pace(&mut self, now: Instant, cookies: u64) {
        self.pace.note(now, cookies, self.received.len() == BATCH);
        if self.pace.next_look.is_some() {
            // Not only unheard: every message would still wake us.
            self.watched = None;
        }
    }
}

/// When messages are looked for, see the module.
struct Pace {
    /// COOKIEs are counted from here on.
    since: Instant,
    cookies: u64,
    /// `None`: the socket is watched.
    next_look: Option<Instant>,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { since: now, cookies: 0, next_look: None }
    }

    /// `more`: there may be more than was taken.
    fn note(&mut self, now: Instant, cookies: u64, more: bool) {
        if self.since + GATHER < now {
            (self.since, self.cookies) = (now, 0);
        }
        self.cookies += cookies;
        self.next_look = (self.cookies >= FLOOD).then(|| {
            self.since = now;
            if more {
                return now;
            }
            self.cookies = 0;
            now + GATHER
        });
    }
}

fn socket(sockets: &Sockets, v6: bool) -> Option<&Socket> {
    let family = if v6 { sockets.v6.as_ref() } else { Some(&sockets.v4) };
    family.map(|family| &family.ike)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_looked_at_by_the_clock_until_it_ends() {
        let start = clock::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(start);
        // Message after message, as they come from many hosts.
        for nth in 1..FLOOD {
            pace.note(at(nth % 4), 1, false);
            assert_eq!(pace.next_look, None, "{nth} are few");
        }
        pace.note(at(4), 1, false);
        assert_eq!(pace.next_look, Some(at(4) + GATHER));
        // All that comes meanwhile is more than is taken at once.
        pace.note(at(8), 64, true);
        assert_eq!(pace.next_look, Some(at(8)));
        pace.note(at(9), 3, false);
        assert_eq!(pace.next_look, Some(at(9) + GATHER));
        pace.note(at(13), FLOOD - 1, false);
        assert_eq!(pace.next_look, None, "it has ended");
    }

    #[test]
    fn cookies_that_are_asked_for_now_and_then_are_no_flood() {
        let start = clock::now();
        let mut pace = Pace::new(start);
        for nth in 0..1000 {
            pace.note(start + nth * GATHER, 3, false);
            assert_eq!(pace.next_look, None);
        }
        pace.note(start + 1000 * GATHER, 0, true);
        assert_eq!(pace.next_look, None, "many messages are none either");
    }
}
