//! IKE messages from port 500, on their way to the driver.

use std::io::{self, IoSliceMut};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::sync::mpsc;

use super::sockets::{IKE_PORT, Sockets, path_of};
use crate::io::sys::{BATCH, Received};
use crate::io::udp::Socket;
use crate::ipsec::{Encap, Path};

/// Longest IKE message; a longer one is none (see `ike`).
const MAX_MESSAGE: usize = 16_384;
/// Messages that wait for the driver.
pub(super) const QUEUE: usize = 256;

/// Receives IKE messages and hands them on; the queue's bound holds the socket back.
pub(super) async fn receive_ike(
    sockets: Arc<Sockets>,
    v6: bool,
    queue: mpsc::Sender<(Path, Vec<u8>)>,
) {
    let Some(family) = (if v6 { sockets.v6.as_ref() } else { Some(&sockets.v4) }) else { return };
    let socket = match family.ike.watched() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "port 500 cannot be watched");
            return;
        }
    };
    let mut buffers = vec![vec![0; MAX_MESSAGE]; BATCH];
    let mut received = Vec::new();
    loop {
        let result = socket
            .async_io(Interest::READABLE, || receive(&family.ike, &mut buffers, &mut received))
            .await;
        if let Err(error) = result {
            tracing::debug!(%error, "receiving on port 500");
            continue;
        }
        for (datagram, buffer) in received.iter().zip(&buffers) {
            let path = path_of(datagram, IKE_PORT, Encap::Plain);
            let Some(message) = buffer.get(..datagram.len).filter(|_| !datagram.truncated) else {
                continue;
            };
            if queue.send((path, message.to_vec())).await.is_err() {
                return;
            }
        }
    }
}

fn receive(
    socket: &Socket,
    buffers: &mut [Vec<u8>],
    received: &mut Vec<Received>,
) -> io::Result<()> {
    let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
    socket.recv(&mut slices, received)
}
