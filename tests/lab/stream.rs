//! A steady stream of numbered UDP packets between the LANs, every one of which is accounted for.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::topology::Side;
use super::wait;

/// Bytes in a packet, UDP header not counted.
const SIZE: usize = 200;

/// A running stream.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Vec<u8>>,
    receive: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
}

/// What became of the packets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) sent: u64,
    /// Numbers that never arrived.
    pub(crate) lost: Vec<u64>,
    /// Numbers that arrived more than once.
    pub(crate) duplicated: Vec<u64>,
}

impl Stream {
    /// Begins: `rate` packets a second from one LAN host to the other.
    #[track_caller]
    pub(crate) fn start(from: &Side, to: &Side, rate: u32) -> Self {
        let socket = |side: &Side| {
            let address = side.host(1, false);
            side.lan.enter(|| UdpSocket::bind((address, 0))).expect("a socket")
        };
        let (source, sink) = (socket(from), socket(to));
        // No packet is to be lost at the far end of the test itself.
        setsockopt(&sink, sockopt::RcvBufForce, &(8 << 20)).expect("root may");
        sink.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        source.connect(sink.local_addr().expect("an address")).expect("a route");
        let [stop, receive] = [false, true].map(|value| Arc::new(AtomicBool::new(value)));
        let [sent, received] = [0, 0].map(|value| Arc::new(AtomicU64::new(value)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&sent));
        let sender = thread::spawn(move || {
            let mut packet = [0; SIZE];
            wait::steady(rate, |number| {
                packet[..8].copy_from_slice(&number.to_be_bytes());
                source.send(&packet).expect("the LAN host has a route");
                counter.store(number + 1, Ordering::SeqCst);
                !stopped.load(Ordering::SeqCst)
            });
        });
        let (go_on, counter) = (Arc::clone(&receive), Arc::clone(&received));
        let receiver = thread::spawn(move || {
            let (mut seen, mut packet): (Vec<u8>, _) = (Vec::new(), [0; SIZE]);
            while go_on.load(Ordering::SeqCst) {
                let Ok(SIZE) = sink.recv(&mut packet) else { continue };
                let number = packet.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                let at = usize::try_from(number).expect("a number of ours");
                if seen.len() <= at {
                    seen.resize(at + 1, 0);
                }
                seen[at] = seen[at].saturating_add(1);
                counter.fetch_add(1, Ordering::SeqCst);
            }
            seen
        });
        Self { stop, sent, sender, receiver, receive, received }
    }

    /// How many have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// How many have been sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Ends it, and counts, when all has arrived or nothing more does.
    #[track_caller]
    pub(crate) fn stop(self) -> Account {
        self.stop.store(true, Ordering::SeqCst);
        self.sender.join().expect("the sender ends");
        let sent = self.sent.load(Ordering::SeqCst);
        // Missing ones get two seconds; then they count as lost.
        wait::within(Duration::from_secs(2), || {
            (self.received.load(Ordering::SeqCst) >= sent).then_some(())
        });
        self.receive.store(false, Ordering::SeqCst);
        let mut seen = self.receiver.join().expect("the receiver ends");
        seen.resize(usize::try_from(sent).expect("a number of ours"), 0);
        let with = |test: fn(u8) -> bool| {
            (0..).zip(&seen).filter(|(_, times)| test(**times)).map(|(number, _)| number).collect()
        };
        Account { sent, lost: with(|times| times == 0), duplicated: with(|times| times > 1) }
    }
}
