//! Floods of IKE_SA_INIT: from addresses that nobody has, and from a /16 that returns every COOKIE. Shown are the price of a packet,
//! the memory, and that a peer from elsewhere gets through. `IPSECD_FLOOD_SECONDS=30` is the flood in full; a release build is
//! what the price is for.
#![expect(
    clippy::disallowed_methods,
    reason = "a flood takes its time; its length is the environment's"
)]

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipsecd::io::sys::ToSend;
use ipsecd::io::udp::Socket;
use ipsecd::testing::Puppet;
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::NotifyType;
use ipsecd::wire::ike::payload::Payload;

use crate::lab::wait::{self, Stopwatch};
use crate::lab::{Ipsecd, Lab, Need, Peer, netns, traffic};

/// IKE_SA_INIT requests a second.
const RATE: u64 = 20_000;
/// Growth of memory that a flood may cause, in bytes.
const MEMORY: u64 = 16 << 20;
/// How long a peer may take to connect meanwhile, in the flood in full; the short one may run where much else does.
const CONNECTS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(10)];
/// What a packet may cost, in microseconds. Of a build that is not optimised it is told alone.
const PRICE: f64 = 10.0;

/// Where it comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Four million addresses, which nobody has.
    Spoofed,
    /// A /16, whose hosts return each COOKIE.
    Echoing,
}

#[derive(Default)]
struct Counts {
    end: AtomicBool,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    /// Bytes that came to addresses that had not returned a COOKIE.
    unvalidated_bytes: AtomicU64,
    cookies: AtomicU64,
    begun: AtomicU64,
    too_long: AtomicU64,
}

struct Flood {
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

impl Flood {
    fn start(lab: &Lab, kind: Kind, target: SocketAddr) -> Self {
        let counts = Arc::new(Counts::default());
        let range = if kind == Kind::Spoofed { "100.64.0.0/10" } else { "100.64.0.0/16" };
        lab.router.ip(&format!("route replace local {range} dev lo"));
        let socket = lab.router.enter(|| Socket::udp(500, false).expect("the port is free"));
        let enter = netns::entrance(lab.router.name());
        let seen = Arc::clone(&counts);
        let thread = thread::spawn(move || {
            enter();
            Source { kind, target, socket, counts: seen, request: request(), number: 0 }.run();
        });
        Self { counts, thread }
    }

    fn stop(self) -> Arc<Counts> {
        self.counts.end.store(true, Ordering::SeqCst);
        self.thread.join().expect("the flood ends");
        self.counts
    }
}

/// What strongSwan would send, more or less.
fn request() -> Vec<u8> {
    let mut puppet = Puppet::initiator(1);
    let payloads = puppet.init_payloads();
    puppet.init_request(payloads)
}

struct Source {
    kind: Kind,
    target: SocketAddr,
    socket: Socket,
    counts: Arc<Counts>,
    request: Vec<u8>,
    number: u64,
}

const SPI: u64 = 0xf100_d000_0000_0000;

impl Source {
    fn run(mut self) {
        let began = Instant::now();
        let mut buffers = vec![vec![0; 4096]; 64];
        while !self.counts.end.load(Ordering::Relaxed) {
            let micros = u64::try_from(began.elapsed().as_micros()).expect("no flood is that long");
            let due = micros * RATE / 1_000_000;
            // A stall is not made up for by more than a burst.
            let behind = due.saturating_sub(self.number).min(256);
            self.number = self.number.max(due - behind);
            let numbers: Vec<u64> = (self.number..self.number + behind).collect();
            self.number += behind;
            let messages: Vec<_> =
                numbers.iter().map(|n| (*n, with_number(&self.request, *n))).collect();
            self.send(&messages);
            self.receive(&mut buffers);
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn address(&self, number: u64) -> Ipv4Addr {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let bits = if self.kind == Kind::Spoofed { 22 } else { 16 };
        let host = u32::try_from(spread & ((1 << bits) - 1)).expect("so few bits");
        Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() | host)
    }

    fn send(&self, messages: &[(u64, Vec<u8>)]) {
        let parts: Vec<_> = messages.iter().map(|(_, payload)| [IoSlice::new(payload)]).collect();
        let all: Vec<_> = messages
            .iter()
            .zip(&parts)
            .map(|((number, _), parts)| ToSend {
                parts,
                segment_len: None,
                to: self.target,
                local: Some(self.address(*number).into()),
                tos: 0,
            })
            .collect();
        let mut rest = &all[..];
        while !rest.is_empty() {
            let Ok(taken) = self.socket.send(rest) else { break };
            for message in &rest[..taken] {
                self.counts.sent.fetch_add(1, Ordering::Relaxed);
                self.counts.sent_bytes.fetch_add(message.parts[0].len() as u64, Ordering::Relaxed);
            }
            rest = &rest[taken..];
        }
    }

    fn receive(&self, buffers: &mut [Vec<u8>]) {
        let mut received = Vec::new();
        for _ in 0..32 {
            let mut slices: Vec<_> =
                buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            if self.socket.recv(&mut slices, &mut received).is_err() {
                return;
            }
            let mut echoes = Vec::new();
            for (datagram, buffer) in received.iter().zip(&*buffers) {
                echoes.extend(self.take(&buffer[..datagram.len]));
            }
            self.send(&echoes);
        }
    }

    /// Counts an answer; gives the request with its COOKIE, if it is that kind of a flood.
    fn take(&self, answer: &[u8]) -> Option<(u64, Vec<u8>)> {
        let message = Message::parse(answer).expect("an answer has form");
        let number = message.header.spi_i.0 - SPI;
        let cookie = message.payloads.iter().find(|payload| {
            matches!(payload, Payload::Notify(notify) if notify.notify_type == NotifyType::COOKIE)
        });
        let count = if cookie.is_some() { &self.counts.cookies } else { &self.counts.begun };
        count.fetch_add(1, Ordering::Relaxed);
        if cookie.is_some() || self.kind == Kind::Spoofed {
            self.counts.unvalidated_bytes.fetch_add(answer.len() as u64, Ordering::Relaxed);
            let too_long = u64::from(answer.len() > self.request.len());
            self.counts.too_long.fetch_add(too_long, Ordering::Relaxed);
        }
        if self.kind == Kind::Spoofed {
            return None;
        }
        let mut again = Message::parse(&self.request).expect("as it was made");
        again.header.spi_i = message.header.spi_i;
        again.payloads.insert(0, cookie?.clone());
        Some((number, again.emit()))
    }
}

fn with_number(request: &[u8], number: u64) -> Vec<u8> {
    let mut request = request.to_vec();
    request[..8].copy_from_slice(&(SPI + number).to_be_bytes());
    request
}

/// User and system time of a process.
fn cpu(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // After the name, which is in parentheses, user and system time are the twelfth and thirteenth.
    let fields = stat.rsplit(')').next().expect("there is a rest").split_whitespace();
    let ticks: u64 =
        fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

fn memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).expect("it has a size");
    kilobytes.parse::<u64>().expect("a number") * 1024
}

#[track_caller]
fn withstands(kind: Kind) {
    let Some(lab) = Lab::open(&[Need::Alone]) else { return };
    let seconds = std::env::var("IPSECD_FLOOD_SECONDS").ok().and_then(|text| text.parse().ok());
    let [full, short] = CONNECTS;
    let patience = if seconds.is_some() { full } else { short };
    let seconds = Duration::from_secs(seconds.unwrap_or(6));
    let (a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    // The peer is not known by its address: nothing tells it from the flood.
    b.address = "any".to_owned();
    b.esp = "start = \"respond\"".to_owned();
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start(&lab.b, &b));
    b.must_up();
    let pid = b.pid();
    // Once beforehand, so that what is needed for any peer is not counted.
    a.must_up();
    a.down();
    let (memory_before, cpu_before) = (memory(pid), cpu(pid));
    let began = Stopwatch::start();
    let flood = Flood::start(&lab, kind, SocketAddr::new(lab.b.outside(false), 500));
    let mut peak = memory_before;
    let connected = wait::within(seconds / 2, || {
        peak = peak.max(memory(pid));
        None::<()>
    });
    assert!(connected.is_none());
    let watch = Stopwatch::start();
    a.must_up();
    let connects = watch.elapsed();
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    wait::within(seconds.saturating_sub(began.elapsed()), || {
        peak = peak.max(memory(pid));
        None::<()>
    });
    let spent = cpu(pid) - cpu_before;
    let counts = flood.stop();
    let lasted = began.elapsed();
    a.down();
    let get = |count: &AtomicU64| count.load(Ordering::SeqCst);
    let (sent, cookies) = (get(&counts.sent), get(&counts.cookies));
    // What a full socket drops is not handled.
    let handled = cookies + get(&counts.begun);
    let price = spent.as_secs_f64() * 1e6 / handled as f64;
    // Half-open IKE SAs last for 30 s, and what is closed stays for another ten.
    let after = wait::within(Duration::from_secs(75), || {
        let now = memory(pid);
        (now < memory_before + MEMORY / 4).then_some(now)
    });
    println!(
        "{sent} requests in {:?} ({} a second), {cookies} COOKIEs, {} begun; {price:.1} µs of CPU a packet; \
         memory {} KiB, at most {} KiB, afterwards {:?} KiB; the peer connects in {connects:?}; \
         {} bytes in, {} to unvalidated addresses",
        lasted,
        sent / lasted.as_secs().max(1),
        get(&counts.begun),
        memory_before >> 10,
        peak >> 10,
        after.map(|bytes| bytes >> 10),
        get(&counts.sent_bytes),
        get(&counts.unvalidated_bytes),
    );
    assert!(sent > seconds.as_secs() * RATE / 4, "the flood is one: {sent}");
    assert!(cookies > sent / 4, "it is answered: {cookies}");
    assert_eq!(get(&counts.too_long), 0, "answers that are longer than the request");
    assert!(get(&counts.unvalidated_bytes) <= get(&counts.sent_bytes));
    assert!(peak < memory_before + MEMORY, "{} KiB more", (peak - memory_before) >> 10);
    assert!(after.is_some(), "memory comes back");
    assert!(connects <= patience, "{connects:?}");
    // With COOKIEs that come back there is work with keys, which has a limit of its own, and there are requests that are not answered.
    if kind == Kind::Spoofed && !cfg!(debug_assertions) {
        assert!(price <= PRICE, "{price} µs a packet");
    }
}

#[test]
#[ignore = "takes both cores from the tests beside it: run it alone, in release, on a quiet machine"]
fn withstands_a_flood_from_addresses_that_nobody_has() {
    withstands(Kind::Spoofed);
}

#[test]
#[ignore = "takes both cores from the tests beside it: run it alone, in release, on a quiet machine"]
fn withstands_a_flood_from_hosts_that_return_every_cookie() {
    withstands(Kind::Echoing);
}
