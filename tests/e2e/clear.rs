//! What is to be protected never leaves in clear: not before there is an SA, not when the daemon dies, not while another one
//! takes its place.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::lab::netns::{self, Netns};
use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Need, Peer, process, traffic, wait};

/// Packets a second.
const RATE: u32 = 500;
/// The port they go to: nothing else in the lab does.
const DISCARD: u16 = 9;
/// So many are sent in each state.
const ENOUGH: u64 = 200;

/// Somebody who sends whatever happens: from one socket, and each time from a new one.
struct Sender {
    stop: Arc<AtomicBool>,
    tried: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    fn start(host: &Netns, source: IpAddr, target: IpAddr) -> Self {
        let (stop, tried) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&tried));
        let enter = netns::entrance(host.name());
        let thread = thread::spawn(move || {
            enter();
            let connected = || {
                let socket = UdpSocket::bind((source, 0))?;
                socket.connect((target, DISCARD)).map(|()| socket)
            };
            let mut old = None;
            wait::steady(RATE, |_| {
                // What is refused is refused.
                if old.is_none() {
                    old = connected().ok();
                }
                let _refused = old.as_ref().map(|socket| socket.send(b"old"));
                let _refused = connected().and_then(|socket| socket.send(b"new"));
                counter.fetch_add(1, Ordering::SeqCst);
                !stopped.load(Ordering::SeqCst)
            });
        });
        Self { stop, tried, thread: Some(thread) }
    }

    /// Waits until it has sent a good deal more.
    #[track_caller]
    fn go_on(&self) {
        let tried = || self.tried.load(Ordering::SeqCst);
        let before = tried();
        wait::until("packets to be sent", wait::PATIENCE, || {
            (tried() >= before + ENOUGH).then_some(())
        });
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// How many have passed the router as they were sent.
#[track_caller]
fn in_clear(lab: &Lab) -> u64 {
    let text = process::run(lab.router.command("nft").args(["-j", "list", "counters"]));
    let listed: Value = serde_json::from_str(&text).expect("nft speaks JSON");
    let mut entries = listed["nftables"].as_array().into_iter().flatten();
    let count = entries.find_map(|entry| entry["counter"]["packets"].as_u64());
    count.unwrap_or_else(|| panic!("no counter in {text}"))
}

#[track_caller]
fn watch(lab: &Lab) {
    lab.nft(&format!(
        "table inet watch {{
           counter clear {{ }}
           chain pre {{ type filter hook prerouting priority -300;
             udp dport {DISCARD} counter name clear
           }}
         }}"
    ));
}

fn hosts(side: &Side, far: &Side, v6: bool) -> Peer {
    let mut peer = Peer::new(side, far, v6);
    peer.local_address = Some(side.outside(v6).to_string());
    peer.local_subnets = vec![side.outside(v6).to_string()];
    peer.subnets = vec![far.outside(v6).to_string()];
    peer.esp = "mode = \"transport\"".to_owned();
    peer
}

/// `from` is who sends, at site A, to `target`.
#[track_caller]
fn nothing_leaves_in_clear(
    lab: &Lab,
    [a, b]: [&Peer; 2],
    (from, source, target): (&Netns, IpAddr, IpAddr),
) {
    let before = lab.a.gw.network_state();
    watch(lab);
    let daemon = Ipsecd::start_with_peer(&lab.a, a);
    let sender = Sender::start(from, source, target);
    sender.go_on();
    assert_eq!(in_clear(lab), 0, "without an SA");
    let far = Ipsecd::start_with_peer(&lab.b, b);
    daemon.up_within(wait::PATIENCE);
    traffic::answers_within(wait::PATIENCE, from, source, target);
    daemon.rekey(false);
    daemon.rekey(true);
    sender.go_on();
    assert_eq!(in_clear(lab), 0, "with an SA, over rekeys");
    daemon.kill();
    sender.go_on();
    assert!(!traffic::answers(from, source, target), "nobody is there who would protect it");
    assert_eq!(in_clear(lab), 0, "the daemon was killed");
    let daemon = Ipsecd::start_with_peer(&lab.a, a);
    daemon.up_within(wait::PATIENCE);
    traffic::answers_within(wait::PATIENCE, from, source, target);
    assert_eq!(in_clear(lab), 0, "another daemon took over");
    // What nobody asks for any more, nothing stands in the way of.
    let mut down = daemon.command(&["down", "--all"]);
    daemon.kill();
    let said = process::run(&mut down);
    assert!(said.contains("of a killed one removed"), "{said}");
    wait::until("packets in clear", wait::PATIENCE, || (in_clear(lab) > 0).then_some(()));
    assert_eq!(lab.a.gw.network_state(), before, "something was left");
    assert_eq!(process::output(&mut down).status.code(), Some(3), "there is nothing more to do");
    assert!(far.stop().success());
}

#[test]
fn of_a_tunnel_nothing_leaves_in_clear() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    let (a, b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    nothing_leaves_in_clear(&lab, [&a, &b], (&lab.a.lan, source, target));
}

#[test]
fn of_transport_mode_nothing_leaves_in_clear() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    for v6 in [false, true] {
        let (a, b) = (hosts(&lab.a, &lab.b, v6), hosts(&lab.b, &lab.a, v6));
        let (source, target) = (lab.a.outside(v6), lab.b.outside(v6));
        nothing_leaves_in_clear(&lab, [&a, &b], (&lab.a.gw, source, target));
    }
}
