//! IKE messages from port 500, on their way to the driver.

use core::time::Duration;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::time::Instant;

use tokio::io::Interest;
use tokio::sync::mpsc;

use super::sockets::{IKE_PORT, Sockets, path_of};
use crate::io::clock;
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
    let mut pace = Pace::new(clock::now());
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
        if let Some(pause) = pace.pause(clock::now(), received.len()) {
            tokio::time::sleep(pause).await;
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

/// Holds a flood together, as network cards hold back their interrupts: waking up for every single message, and answering it
/// by itself, would cost more than what the message is looked at for. Without a flood no message waits.
#[derive(Debug)]
struct Pace {
    since: Instant,
    /// Messages since then.
    count: usize,
    crowded: bool,
}

impl Pace {
    /// How long messages are counted.
    const INTERVAL: Duration = Duration::from_millis(10);
    /// So many in an interval are a flood: 4,000 a second.
    const FLOOD: usize = 40;
    /// What is waited for more to come.
    const PAUSE: Duration = Duration::from_millis(1);

    const fn new(now: Instant) -> Self {
        Self { since: now, count: 0, crowded: false }
    }

    /// So many messages have come; how long to wait before the next are looked for.
    fn pause(&mut self, now: Instant, messages: usize) -> Option<Duration> {
        self.count += messages;
        let passed = now.saturating_duration_since(self.since);
        if passed >= Self::INTERVAL {
            // As many in a longer time are fewer.
            self.crowded = self.count >= Self::FLOOD && passed < Self::INTERVAL * 2;
            (self.since, self.count) = (now, 0);
        }
        // More wait already after a full batch.
        (self.crowded && messages < BATCH).then_some(Self::PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages in batches, one every `every`; how often it was waited after one.
    fn pauses(every: Duration, messages: usize) -> usize {
        let start = clock::now();
        let mut pace = Pace::new(start);
        let times = (1..=1000).map(|n| start + every * n);
        times.filter(|now| pace.pause(*now, messages).is_some()).count()
    }

    #[test]
    fn single_messages_never_wait() {
        assert_eq!(pauses(Duration::from_secs(1), 1), 0);
        assert_eq!(pauses(Duration::from_micros(300), 1), 0);
        assert_eq!(pauses(Duration::from_secs(1), BATCH - 1), 0);
    }

    #[test]
    fn a_flood_is_held_together() {
        assert!(pauses(Duration::from_micros(100), 1) >= 800);
        assert!(pauses(Duration::from_millis(1), 20) >= 800);
    }

    #[test]
    fn a_full_batch_is_followed_at_once() {
        assert_eq!(pauses(Duration::from_millis(1), BATCH), 0);
    }

    #[test]
    fn after_a_flood_nothing_waits() {
        let start = clock::now();
        let mut pace = Pace::new(start);
        for n in 1..=1000 {
            pace.pause(start + Duration::from_micros(100) * n, 1);
        }
        let later = start + Duration::from_secs(1);
        assert_eq!(pace.pause(later, 1), None);
        assert_eq!(pace.pause(later + Duration::from_millis(5), 1), None);
    }
}
