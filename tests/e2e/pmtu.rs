//! A path that becomes narrower while traffic flows.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::lab::netns::Netns;
use crate::lab::topology::Side;
use crate::lab::wait::Stopwatch;
use crate::lab::{Ipsecd, Lab, Peer, process, traffic, wait};

/// What a stall may last.
const STALL: Duration = Duration::from_secs(3);

/// Bytes that must pass before, and again after, the path changes.
const ENOUGH: u64 = 4_000_000;

/// A TCP stream between two hosts that goes on until it is told to end.
struct Transfer {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<u64>,
    /// Bytes, and the longest time in which none came.
    receiver: JoinHandle<(u64, Duration)>,
}

impl Transfer {
    fn start(from: &Netns, source: IpAddr, to: &Netns, target: IpAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let listener = to.enter(|| TcpListener::bind((target, 0))).expect("listener");
        let target = listener.local_addr().expect("an address");
        let counter = Arc::clone(&received);
        let receiver = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let (mut total, mut longest, mut buffer) = (0, Duration::ZERO, vec![0; 65_536]);
            loop {
                let watch = Stopwatch::start();
                let got = stream.read(&mut buffer).expect("the transfer goes on");
                if got == 0 {
                    return (total, longest);
                }
                longest = longest.max(watch.elapsed());
                let mut bytes = buffer.iter().take(got).zip(total..);
                assert!(bytes.all(|(byte, at)| *byte == pattern(at)), "at {total}");
                total += got as u64;
                counter.store(total, Ordering::SeqCst);
            }
        });
        let mut stream = from.enter(|| traffic::connect(source, target)).expect("a connection");
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            let mut sent = 0;
            while !stopped.load(Ordering::SeqCst) {
                let chunk: Vec<u8> = (sent..sent + 16_384).map(pattern).collect();
                stream.write_all(&chunk).unwrap_or_else(|error| panic!("at {sent}: {error}"));
                sent += 16_384;
            }
            stream.shutdown(Shutdown::Write).expect("the stream ends");
            sent
        });
        Self { stop, received, sender, receiver }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Waits until so many bytes have arrived.
    #[track_caller]
    fn until(&self, bytes: u64) {
        wait::until("the transfer to go on", Duration::from_secs(60), || {
            (self.received() >= bytes).then_some(())
        });
    }

    /// Ends it; the longest stall.
    #[track_caller]
    fn end(self) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        let sent = self.sender.join().expect("the sender ends");
        let (received, longest) = self.receiver.join().expect("the receiver ends");
        assert_eq!(received, sent);
        longest
    }
}

/// The byte at a place in the stream.
fn pattern(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 16).to_le_bytes()[0]
}

/// Pings with 9,000 bytes until one is answered, which must be before `limit`.
#[track_caller]
fn answered(from: &Netns, source: IpAddr, target: IpAddr, limit: Duration) {
    wait::until("an answer to a long ping", limit, || {
        let mut ping = from.command("ping");
        ping.args(["-n", "-q", "-c1", "-W1", "-s9000"]);
        ping.args(["-I", &source.to_string(), &target.to_string()]);
        process::output(&mut ping).status.success().then_some(())
    });
}

/// Lets no packet of more than `mtu` bytes from one gateway to the other, in either direction.
fn narrow(lab: &Lab, v6: bool, mtu: u32) {
    for side in lab.both() {
        let (device, via, gw) = (side.wire(), side.router(v6), side.outside(v6));
        let route = if v6 {
            format!("-6 route replace {gw}/128 dev {device} mtu {mtu}")
        } else {
            format!("-4 route replace {gw}/32 dev {device} src {via} mtu {mtu}")
        };
        lab.router.ip(&route);
    }
}

fn recovers(v6_inside: bool, v6_outside: bool, encap: &str) {
    let Some(lab) = Lab::open(&[]) else { return };
    let peer = |local: &Side, remote: &Side| {
        let mut peer = Peer::new(local, remote, v6_outside);
        peer.local_subnets = vec![local.subnet(1, v6_inside)];
        peer.subnets = vec![remote.subnet(1, v6_inside)];
        peer.esp = format!("encap = {encap:?}");
        peer
    };
    let (a, b) = (peer(&lab.a, &lab.b), peer(&lab.b, &lab.a));
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start_with_peer(&lab.b, &b));
    a.must_up();
    b.up_within(wait::PATIENCE);
    let [source, target] = lab.both().map(|side| side.host(1, v6_inside));
    answered(&lab.a.lan, source, target, Duration::from_secs(10));
    let there = Transfer::start(&lab.a.lan, source, &lab.b.lan, target);
    let back = Transfer::start(&lab.b.lan, target, &lab.a.lan, source);
    there.until(ENOUGH);
    back.until(ENOUGH);

    narrow(&lab, v6_outside, 1_280);
    let (there_at, back_at) = (there.received(), back.received());
    answered(&lab.a.lan, source, target, STALL);
    there.until(there_at + ENOUGH);
    back.until(back_at + ENOUGH);
    let stalls = [there.end(), back.end()];
    assert!(stalls.iter().all(|stall| *stall <= STALL), "stalls: {stalls:?}");
    println!("stalls: {stalls:?}");
}

#[test]
fn traffic_goes_on_when_an_ipv4_path_becomes_narrow() {
    recovers(false, false, "none");
}

#[test]
fn traffic_in_udp_goes_on_when_an_ipv4_path_becomes_narrow() {
    recovers(false, false, "udp");
}

#[test]
fn traffic_goes_on_when_an_ipv6_path_becomes_as_narrow_as_it_may() {
    recovers(true, true, "none");
}

#[test]
fn ipv6_goes_on_when_an_ipv4_path_becomes_narrow() {
    recovers(true, false, "none");
}
