//! `[[policy]]`: what is bypassed goes in clear and nothing else does, what is discarded does not pass in either direction; and
//! when the policy is gone, so is what it did.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::lab::netns::Netns;
use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Need, Peer, process, traffic, wait};

/// In the hole.
const HOLE: u16 = 7;
/// Beside it.
const REST: u16 = 9;

/// The router knows the networks behind the gateways: what is not protected gets there, too. It counts what of site A passes in
/// clear to each port.
#[track_caller]
fn open_router(lab: &Lab) {
    for (side, device) in [(&lab.a, lab.a.wire()), (&lab.b, lab.b.wire())] {
        for (net, v6) in [(1, false), (2, false), (1, true)] {
            let (family, via) = (if v6 { "-6" } else { "-4" }, side.outside(v6));
            let subnet = side.subnet(net, v6);
            lab.router.ip(&format!("{family} route add {subnet} via {via} dev {device}"));
        }
    }
    lab.nft(&format!(
        "table inet watch {{
           counter hole {{ }}
           counter rest {{ }}
           counter streams {{ }}
           counter pings {{ }}
           chain pre {{ type filter hook prerouting priority -300;
             iifname != {:?} return
             udp dport {HOLE} counter name hole
             udp dport {REST} counter name rest
             meta l4proto tcp counter name streams
             icmp type echo-request counter name pings
             icmpv6 type echo-request counter name pings
           }}
         }}",
        lab.a.wire()
    ));
}

/// How many packets have passed the router in clear.
#[track_caller]
fn in_clear(lab: &Lab, what: &str) -> u64 {
    let mut list = lab.router.command("nft");
    let text = process::run(list.args(["-j", "list", "counter", "inet", "watch", what]));
    let listed: Value = serde_json::from_str(&text).expect("nft speaks JSON");
    let mut entries = listed["nftables"].as_array().into_iter().flatten();
    let count = entries.find_map(|entry| entry["counter"]["packets"].as_u64());
    count.unwrap_or_else(|| panic!("no counter in {text}"))
}

/// Where datagrams from one host to a port of the other arrive.
struct Line<'a> {
    from: &'a Netns,
    source: SocketAddr,
    target: SocketAddr,
    receiver: UdpSocket,
}

impl<'a> Line<'a> {
    #[track_caller]
    fn new(from: &'a Netns, source: (IpAddr, u16), to: &Netns, target: (IpAddr, u16)) -> Self {
        let receiver = to.enter(|| UdpSocket::bind(target)).expect("a receiver");
        receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        Self { from, source: source.into(), target: target.into(), receiver }
    }

    fn send(&self) {
        self.from.enter(|| {
            let socket = UdpSocket::bind(self.source).expect("a sender");
            // What is refused does not arrive.
            let _refused = socket.send_to(b"a datagram", self.target);
        });
    }

    /// Sends until one arrives.
    #[track_caller]
    fn arrives(&self) {
        wait::until(&format!("a datagram at {}", self.target), wait::PATIENCE, || {
            self.send();
            self.receiver.recv(&mut [0; 64]).ok()
        });
    }

    /// Sends some, and once what is sent after them on `other` is there, none of them is.
    #[track_caller]
    fn is_dropped(&self, other: &Line<'_>) {
        // What arrived before is none of these.
        while self.receiver.recv(&mut [0; 64]).is_ok() {}
        (0..20).for_each(|_| self.send());
        other.arrives();
        assert!(self.receiver.recv(&mut [0; 64]).is_err(), "it arrived at {}", self.target);
    }
}

fn policies(side: &Side, text: &str) -> PathBuf {
    let dir = side.dir.join("ipsecd");
    fs::create_dir_all(&dir).expect("directory is made");
    let file = dir.join("holes.conf");
    fs::write(&file, text).expect("file is written");
    file
}

#[track_caller]
fn run(daemon: &Ipsecd<'_>, args: &[&str]) -> String {
    process::run(&mut daemon.command(args))
}

#[track_caller]
fn explain(daemon: &Ipsecd<'_>, packet: &str) -> Value {
    let text = run(daemon, &["explain", "--json", packet]);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in: {text}"))
}

fn words(file: &Path) -> &str {
    file.to_str().expect("UTF-8")
}

#[test]
fn a_hole_in_a_tunnel_goes_in_clear_and_the_rest_protected_also_over_a_kill_and_a_reload() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    let before = lab.a.gw.network_state();
    open_router(&lab);
    let (here, there) = (lab.a.subnet(1, false), lab.b.subnet(1, false));
    let hole = format!(
        "[[policy]]\nname = \"echo\"\naction = \"bypass\"\nlocal = [\"{here}\"]\nremote = [\"{there}[udp/{HOLE}]\"]\n"
    );
    let file = policies(&lab.a, &hole);
    let a = Ipsecd::start_with_peer(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    let b = Ipsecd::start_with_peer(&lab.b, &Peer::new(&lab.b, &lab.a, false));
    a.up_within(wait::PATIENCE);
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    let line = |port| Line::new(&lab.a.lan, (source, 5000), &lab.b.lan, (target, port));
    let (in_hole, beside) = (line(HOLE), line(REST));
    in_hole.arrives();
    beside.arrives();
    assert!(in_clear(&lab, "hole") > 0);
    traffic::ping(&lab.a.lan, source, target);

    // It is shown, and told of.
    let status = a.status();
    assert_eq!(status["policies"][0]["name"], "echo", "{status:#}");
    assert_eq!(status["policies"][0]["action"], "BYPASS");
    assert_eq!(status["peers"].as_array().map(Vec::len), Some(1), "it is no peer");
    let told = explain(&a, &format!("{source}:5000 > {target}:{HOLE}/udp"));
    assert_eq!(
        (&told["verdict"], &told["policy"]["name"]),
        (&"bypass".into(), &"holes/echo".into())
    );
    assert_eq!(explain(&a, &format!("{source}:5000 > {target}:{REST}/udp"))["verdict"], "protect");

    // Killed: the hole is one still, and nothing else is.
    a.kill();
    (0..50).for_each(|_| beside.send());
    in_hole.arrives();
    assert_eq!([in_clear(&lab, "rest"), in_clear(&lab, "pings")], [0, 0], "it was protected");
    let a = Ipsecd::start_with_peer(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    a.up_within(wait::PATIENCE);
    beside.arrives();

    // The policy goes: what was in clear is protected again.
    fs::remove_file(&file).expect("it is there");
    let said = run(&a, &["reload"]);
    assert!(said.contains("holes"), "{said}");
    let clear = in_clear(&lab, "hole");
    while in_hole.receiver.recv(&mut [0; 64]).is_ok() {}
    in_hole.arrives();
    assert_eq!(in_clear(&lab, "hole"), clear, "the hole is closed");
    assert_eq!(explain(&a, &format!("{source}:5000 > {target}:{HOLE}/udp"))["verdict"], "protect");

    // And by hand.
    fs::write(&file, &hole).expect("file is written");
    run(&a, &["up", words(&file)]);
    in_hole.arrives();
    assert!(in_clear(&lab, "hole") > clear);
    run(&a, &["down", "holes"]);
    assert!(a.status()["policies"].is_null());
    assert_eq!([in_clear(&lab, "rest"), in_clear(&lab, "pings")], [0, 0], "it was protected");
    assert!(a.stop().success() && b.stop().success());
    assert_eq!(lab.a.gw.network_state(), before, "something was left");
}

#[test]
fn what_is_discarded_passes_in_neither_direction_in_clear_or_protected() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    open_router(&lab);
    let a = Ipsecd::start_with_peer(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    let b = Ipsecd::start_with_peer(&lab.b, &Peer::new(&lab.b, &lab.a, false));
    a.up_within(wait::PATIENCE);
    // Network 1 is behind the tunnel, network 2 is routed in clear.
    let at = |side: &Side, net| side.host(net, false);
    let to_b = |net, port| {
        Line::new(&lab.a.lan, (at(&lab.a, net), 5000), &lab.b.lan, (at(&lab.b, net), port))
    };
    let to_a = |net, port| {
        Line::new(&lab.b.lan, (at(&lab.b, net), port), &lab.a.lan, (at(&lab.a, net), 5000 + port))
    };
    for net in [1, 2] {
        for port in [HOLE, REST] {
            to_b(net, port).arrives();
            to_a(net, port).arrives();
        }
    }
    let far =
        [1, 2].map(|net| format!("{:?}", format!("{}[udp/{HOLE}]", lab.b.subnet(net, false))));
    let text = format!("[[policy]]\naction = \"discard\"\nremote = [{}]\n", far.join(", "));
    let file = policies(&lab.a, &text);
    run(&a, &["reload", words(&file)]);
    for net in [1, 2] {
        to_b(net, HOLE).is_dropped(&to_b(net, REST));
        to_a(net, HOLE).is_dropped(&to_a(net, REST));
    }
    let drops = a.status()["drops"].clone();
    assert!(drops["policy-discard"].as_u64() >= Some(20), "what came on an SA: {drops}");
    let (here, there) = (at(&lab.a, 2), at(&lab.b, 2));
    let told = explain(&a, &format!("{here}:5000 > {there}:{HOLE}/udp"));
    assert_eq!((&told["verdict"], &told["reason"]), (&"drop".into(), &"policy-discard".into()));
    // For this host's own packets it holds as well.
    let own = lab.a.gw.enter(|| {
        let source = IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED);
        UdpSocket::bind((source, 0)).and_then(|socket| socket.send_to(b"own", (there, HOLE)))
    });
    assert!(own.is_err(), "it was sent");
    run(&a, &["down", "holes"]);
    for net in [1, 2] {
        to_b(net, HOLE).arrives();
        to_a(net, HOLE).arrives();
    }
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn what_no_tunnel_takes_goes_in_clear_where_a_last_policy_says_so() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    open_router(&lab);
    for v6 in [false, true] {
        let icmp = if v6 { "icmpv6" } else { "icmp" };
        let [a, b] = [(&lab.a, &lab.b), (&lab.b, &lab.a)].map(|(side, far)| {
            let (here, there) = (side.subnet(1, v6), far.subnet(1, v6));
            let mut peer = Peer::new(side, far, v6);
            (peer.local_subnets, peer.subnets) = (vec![here.clone()], vec![there.clone()]);
            peer.esp = format!(
                "[[child]]\nname = \"ping\"\nlocal = [\"{here}[{icmp}]\"]\npeer = [\"{there}[{icmp}]\"]\n"
            );
            policies(
                side,
                &format!("[[policy]]\naction = \"bypass\"\norder = \"last\"\nlocal = [\"{here}\"]\nremote = [\"{there}\"]\n"),
            );
            Ipsecd::start_with_peer(side, &peer)
        });
        a.up_within(wait::PATIENCE);
        let (source, target) = (lab.a.host(1, v6), lab.b.host(1, v6));
        traffic::ping(&lab.a.lan, source, target);
        assert_eq!(in_clear(&lab, "pings"), 0, "that is protected");
        let before = in_clear(&lab, "streams");
        // What comes in one piece is cut, with right checksums, and in order.
        traffic::transfer(&lab.a.lan, source, &lab.b.lan, target, 1_000_000);
        assert!(in_clear(&lab, "streams") > before + 100);
        assert!(a.stop().success() && b.stop().success());
    }
}
