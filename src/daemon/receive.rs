//! IKE messages, a batch at a time. The driver takes them from the sockets itself: what it has no time for waits there, in a buffer
//! that the kernel bounds, and neither a flood nor a set-up costs a change of tasks.
//!
//! Of port 4500 it has a socket of its own (`io::udp`). What comes there goes the way of all that comes there, through the datapath, which
//! takes the marker away and tells those who listen.
//!
//! While strangers are asked for COOKIEs by the many, a socket is not watched but looked at every [`GATHER`]: to be woken for a
//! few messages at a time would take a good part of what they cost.

use core::future;
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::unix::AsyncFd;

use super::sockets::{IKE_PORT, NATT_PORT, Sockets, describe, path_of};
use super::worker::Shared;
use crate::datapath::{self, InboundBatch};
use crate::io::clock;
use crate::io::sys::{BATCH, Received};
use crate::io::udp::Socket;
use crate::ipsec::{Encap, Path};

/// Longest IKE message; a longer one is none (see `ike`).
const MAX_MESSAGE: usize = 16_384;
/// Of these, which may be of many datagrams each, so many are taken at once.
const RUNS: usize = 16;
/// Longest datagram, or run of them.
const MAX_DATAGRAM: usize = 65_535;
/// What a peer may have to wait for an answer in a flood, at most. Of 100,000 messages a second the socket's buffer holds more than
/// comes in ten times as long.
const GATHER: Duration = Duration::from_millis(4);
/// So many COOKIEs within [`GATHER`] are a flood.
const FLOOD: u64 = 8;

/// Receives the IKE messages of one port and version of IP.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    port: Port,
    v6: bool,
    /// Whoever wakes us when there is something. `None`: it is looked at by the clock, or the host has none.
    watched: Option<AsyncFd<OwnedFd>>,
    pace: Pace,
    received: Vec<Received>,
}

/// A port, and room for what comes to it. What no message needed is never touched, and takes no memory.
enum Port {
    /// 500: room for a batch, in one piece.
    Ike(Vec<u8>),
    /// 4500, where the kernel may have joined several datagrams.
    Natt { datagrams: Vec<datapath::Received>, batch: Box<InboundBatch> },
}

impl Receiver {
    /// Of port 500.
    ///
    /// # Errors
    /// If the socket cannot be watched.
    pub(super) fn ike(shared: &Arc<Shared>, v6: bool) -> io::Result<Self> {
        Self::new(shared, Port::Ike(vec![0; MAX_MESSAGE * BATCH]), v6)
    }

    /// Of port 4500.
    ///
    /// # Errors
    /// As there.
    pub(super) fn natt(shared: &Arc<Shared>, v6: bool) -> io::Result<Self> {
        let datagrams = (0..RUNS).map(|_| datapath::Received::new(MAX_DATAGRAM)).collect();
        let batch = Box::new(InboundBatch::new(MAX_DATAGRAM));
        Self::new(shared, Port::Natt { datagrams, batch }, v6)
    }

    fn new(shared: &Arc<Shared>, port: Port, v6: bool) -> io::Result<Self> {
        let mut new = Self {
            shared: Arc::clone(shared),
            port,
            v6,
            watched: None,
            pace: Pace::new(clock::now()),
            received: Vec::new(),
        };
        new.watch()?;
        Ok(new)
    }

    fn watch(&mut self) -> io::Result<()> {
        if self.watched.is_none() {
            let socket = self.port.socket(&self.shared.sockets, self.v6);
            self.watched = socket.map(Socket::watched).transpose()?;
        }
        Ok(())
    }

    /// Waits for messages and takes what is there, at most [`BATCH`] datagrams: see [`Self::messages`]. Whoever drops the future has
    /// taken nothing. Without a socket it waits for ever.
    pub(super) async fn receive(&mut self) {
        self.received.clear();
        if let Some(at) = self.pace.next_look {
            tokio::time::sleep_until(at.into()).await;
        } else if let Err(error) = self.watch() {
            tracing::debug!(%error, "a port is not watched, but looked at from time to time");
            tokio::time::sleep(GATHER).await;
        }
        let Self { shared, port, v6, watched, received, .. } = self;
        let Some(socket) = port.socket(&shared.sockets, *v6) else {
            return future::pending().await;
        };
        let mut ready = match watched {
            Some(watched) => match watched.readable().await {
                Ok(ready) => Some(ready),
                Err(error) => {
                    tracing::debug!(%error, "waiting on a port");
                    return;
                }
            },
            None => None,
        };
        let mut slices: Vec<_> = match port {
            Port::Ike(buffers) => {
                buffers.chunks_exact_mut(MAX_MESSAGE).map(IoSliceMut::new).collect()
            }
            Port::Natt { datagrams, .. } => {
                datagrams.iter_mut().map(|it| IoSliceMut::new(it.buf.space_mut())).collect()
            }
        };
        let (room, result) = (slices.len(), socket.recv(&mut slices, received));
        drop(slices);
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::WouldBlock
        {
            tracing::debug!(%error, "receiving on a port");
        }
        // Of fewer it is known that they were all: the next call need not ask to find out.
        let is_empty = match &result {
            Ok(()) => received.len() < room,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if let Some(ready) = ready.as_mut().filter(|_| is_empty) {
            ready.clear_ready();
        }
    }

    /// What the last [`Self::receive`] took. To be called once.
    pub(super) fn messages(&mut self) -> impl Iterator<Item = (Path, &[u8])> {
        let (plain, unwrapped) = match &mut self.port {
            Port::Ike(buffers) => (buffers.chunks_exact(MAX_MESSAGE), &[][..]),
            Port::Natt { datagrams, batch } => {
                for (datagram, received) in datagrams.iter_mut().zip(&self.received) {
                    describe(datagram, received, NATT_PORT, Encap::Udp);
                }
                let count = self.received.len();
                let datapath = self.shared.datapath.load();
                datapath.inbound_batch(clock::now(), &mut datagrams[..count], batch);
                self.shared.audit(&datapath, &mut batch.audits);
                // Nothing else is brought here; it is counted all the same.
                self.shared.lost.tun.fetch_add(batch.deliver.len() as u64, Ordering::Relaxed);
                ([].chunks_exact(MAX_MESSAGE), &batch.ike[..])
            }
        };
        let plain = self.received.iter().zip(plain).filter_map(|(datagram, buffer)| {
            let message = buffer.get(..datagram.len).filter(|_| !datagram.truncated)?;
            Some((path_of(datagram, IKE_PORT, Encap::Plain), message))
        });
        plain.chain(unwrapped.iter().map(|datagram| (datagram.path, &datagram.buf[..])))
    }

    /// For so many of the last messages a COOKIE was asked: decides how the next are waited for.
    pub(super) fn pace(&mut self, now: Instant, cookies: u64) {
        self.pace.note(now, cookies, self.received.len() == self.port.room());
        if self.pace.next_look.is_some() {
            // Not only unheard: every message would still wake us.
            self.watched = None;
        }
    }
}

impl Port {
    /// How many are taken at once.
    const fn room(&self) -> usize {
        match self {
            Self::Ike(_) => BATCH,
            Self::Natt { datagrams, .. } => datagrams.len(),
        }
    }

    fn socket<'a>(&self, sockets: &'a Sockets, v6: bool) -> Option<&'a Socket> {
        let family = if v6 { sockets.v6.as_ref() } else { Some(&sockets.v4) }?;
        Some(match self {
            Self::Ike(_) => &family.ike,
            Self::Natt { .. } => family.natt.ike(),
        })
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
