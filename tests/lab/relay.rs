//! A bad link: a UDP relay on the router that loses, doubles, delays and reorders what passes between one gateway
//! and the other, by a seed, and can change its ports as a NAT does that has forgotten.
#![expect(clippy::disallowed_methods, reason = "packets are delayed in real time")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::topology::{Lab, Side};

/// How bad the link is; in percent of the packets, each way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) seed: u64,
    pub(crate) loss: u32,
    pub(crate) duplication: u32,
    /// Delayed by [`Faults::delay`] once more, so that later ones overtake.
    pub(crate) reordering: u32,
    pub(crate) delay: Duration,
}

/// A running relay between `near` and `far`. `near` sends to `far`'s address and notices nothing; `far` sees the
/// router's address, as behind a NAT. Only one at a time: it sets the router's packet filter.
pub(crate) struct Relay {
    flags: Arc<Flags>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Flags {
    end: AtomicBool,
    rebind: AtomicBool,
    hole: AtomicBool,
}

impl Relay {
    #[track_caller]
    pub(crate) fn start(lab: &Lab, near: &Side, far: &Side, faults: Faults) -> Self {
        let (listen, to) = (near.router(false), far.outside(false));
        lab.nft(&format!(
            "table ip nat {{ chain pre {{ type nat hook prerouting priority -100
               iifname {} ip daddr {to} udp dport {{ 500, 4500 }} redirect
               }}
             }}",
            near.wire()
        ));
        let flags = Arc::new(Flags::default());
        let bind = move |ip: IpAddr, port| {
            let socket = UdpSocket::bind((ip, port)).expect("the port is free");
            socket.set_nonblocking(true).expect("a socket");
            socket
        };
        let netns = lab.router.name().to_owned();
        let pairs = PORTS.map(|port| {
            let front = lab.router.enter(|| bind(listen, port));
            Pair { front, back: lab.router.enter(|| bind(ANY, 0)), client: None, port }
        });
        // Sockets made later have to be made in there too: the thread stays inside.
        let seen = Arc::clone(&flags);
        let enter = super::netns::entrance(&netns);
        let thread = thread::spawn(move || {
            enter();
            let rng = ChaCha8Rng::seed_from_u64(faults.seed);
            Loop { pairs, to, faults, rng, queue: BTreeMap::new(), number: 0 }.run(&seen, bind);
        });
        Self { flags, thread: Some(thread) }
    }

    /// New ports towards the far side, as after a NAT has forgotten.
    pub(crate) fn rebind(&self) {
        self.flags.rebind.store(true, Ordering::SeqCst);
    }

    /// Nothing passes, or all again.
    pub(crate) fn hole(&self, open: bool) {
        self.flags.hole.store(open, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.flags.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the relay failed");
        }
    }
}

const PORTS: [u16; 2] = [500, 4500];
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// One port's sockets.
struct Pair {
    front: UdpSocket,
    back: UdpSocket,
    client: Option<SocketAddr>,
    port: u16,
}

struct Loop {
    pairs: [Pair; 2],
    to: IpAddr,
    faults: Faults,
    rng: ChaCha8Rng,
    /// By when it is due, then by number: which pair, whether towards the far side, what.
    queue: BTreeMap<(Instant, u64), (usize, bool, Vec<u8>)>,
    number: u64,
}

impl Loop {
    fn run(mut self, flags: &Flags, bind: impl Fn(IpAddr, u16) -> UdpSocket) {
        while !flags.end.load(Ordering::SeqCst) {
            if flags.rebind.swap(false, Ordering::SeqCst) {
                self.pairs.iter_mut().for_each(|pair| pair.back = bind(ANY, 0));
            }
            let now = Instant::now();
            let due = self.queue.keys().next().map(|(due, _)| due.saturating_duration_since(now));
            let wait = due.unwrap_or(IDLE).min(IDLE).as_millis();
            let sockets = self.pairs.iter().flat_map(|pair| [&pair.front, &pair.back]);
            let mut fds: Vec<PollFd<'_>> =
                sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
            let wait = PollTimeout::try_from(wait).expect("at most 20 ms");
            poll(&mut fds, wait).expect("sockets can be polled");
            let hole = flags.hole.load(Ordering::SeqCst);
            for at in 0..self.pairs.len() {
                self.receive(at, true, hole);
                self.receive(at, false, hole);
            }
            self.send(Instant::now());
        }
    }

    /// Takes what has come to a socket, and decides what becomes of it.
    fn receive(&mut self, at: usize, outward: bool, hole: bool) {
        let mut buffer = [0; 65_536];
        loop {
            let pair = &mut self.pairs[at];
            let socket = if outward { &pair.front } else { &pair.back };
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { return };
            if outward {
                pair.client = Some(from);
            }
            if hole || self.happens(self.faults.loss) {
                continue;
            }
            let copies = if self.happens(self.faults.duplication) { 2 } else { 1 };
            for _ in 0..copies {
                let late = if self.happens(self.faults.reordering) { 2 } else { 1 };
                let due = Instant::now() + self.faults.delay * late;
                self.number += 1;
                self.queue.insert((due, self.number), (at, outward, buffer[..len].to_vec()));
            }
        }
    }

    fn send(&mut self, now: Instant) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let (at, outward, packet) = entry.remove();
            let pair = &self.pairs[at];
            // Nobody may be listening: that too is what a link does.
            let _sent = match (outward, pair.client) {
                (true, _) => pair.back.send_to(&packet, (self.to, pair.port)),
                (false, Some(client)) => pair.front.send_to(&packet, client),
                (false, None) => continue,
            };
        }
    }

    fn happens(&mut self, percent: u32) -> bool {
        self.rng.next_u32() % 100 < percent
    }
}

/// How long the loop sleeps at most.
const IDLE: Duration = Duration::from_millis(20);
