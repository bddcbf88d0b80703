//! IKE messages from port 500, a batch at a time. The driver takes them from the socket itself: what it has no time for waits there,
//! in a buffer that the kernel bounds, and a flood costs neither a copy nor a change of tasks.

use core::future;
use std::io::{self, IoSliceMut};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::sockets::{IKE_PORT, Sockets, path_of};
use crate::io::sys::{BATCH, Received};
use crate::ipsec::{Encap, Path};

/// Longest IKE message; a longer one is none (see `ike`).
const MAX_MESSAGE: usize = 16_384;

/// Receives the IKE messages of one version of IP.
pub(super) struct Receiver {
    sockets: Arc<Sockets>,
    v6: bool,
    /// `None`: the host has none.
    watched: Option<UdpSocket>,
    buffers: Vec<Vec<u8>>,
    received: Vec<Received>,
}

impl Receiver {
    /// # Errors
    /// If the socket cannot be watched.
    pub(super) fn new(sockets: &Arc<Sockets>, v6: bool) -> io::Result<Self> {
        let family = if v6 { sockets.v6.as_ref() } else { Some(&sockets.v4) };
        let watched = family.map(|family| family.ike.watched()).transpose()?;
        let sockets = Arc::clone(sockets);
        let buffers = vec![vec![0; MAX_MESSAGE]; BATCH];
        Ok(Self { sockets, v6, watched, buffers, received: Vec::new() })
    }

    /// Waits for messages and takes what is there, at most [`BATCH`]: see [`Self::messages`]. Whoever drops the future has taken
    /// nothing. Without a socket it waits for ever.
    pub(super) async fn receive(&mut self) {
        let Self { sockets, v6, watched, buffers, received } = self;
        received.clear();
        let family = if *v6 { sockets.v6.as_ref() } else { Some(&sockets.v4) };
        let (Some(family), Some(watched)) = (family, watched) else {
            return future::pending().await;
        };
        let take = || {
            let mut slices: Vec<_> =
                buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            family.ike.recv(&mut slices, received)
        };
        if let Err(error) = watched.async_io(Interest::READABLE, take).await {
            tracing::debug!(%error, "receiving on port 500");
        } else if received.len() < BATCH {
            // That was all: the next call need not ask to find out.
            let none = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
            let _none = watched.try_io(Interest::READABLE, none);
        }
    }

    /// What the last [`Self::receive`] took.
    pub(super) fn messages(&self) -> impl Iterator<Item = (Path, &[u8])> {
        self.received.iter().zip(&self.buffers).filter_map(|(datagram, buffer)| {
            let message = buffer.get(..datagram.len).filter(|_| !datagram.truncated)?;
            Some((path_of(datagram, IKE_PORT, Encap::Plain), message))
        })
    }
}
