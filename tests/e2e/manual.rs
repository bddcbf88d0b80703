//! Two ipsecd with keys set by hand: every protocol and mode, and sequence numbers that no restart repeats.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::lab::capture::{self, Capture};
use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Need, process, traffic, wait};

/// What crosses the link between A and the router.
const PROTECTED: &str =
    "ip proto 50 or ip6 proto 50 or ip proto 51 or ip6 proto 51 or udp port 4500";

/// One `[[manual]]` of both sides.
#[derive(Clone)]
struct Pair {
    protocol: &'static str,
    mode: &'static str,
    proposal: &'static str,
    /// Bytes of the encryption key and of the integrity key.
    keys: (usize, usize),
    /// Selectors of a side, by its name, if not the default.
    selectors: Option<[Vec<String>; 2]>,
    /// Further lines.
    more: &'static str,
    /// AH around it.
    bundle: bool,
}

impl Pair {
    const CBC: Self = Self {
        protocol: "esp",
        mode: "tunnel",
        proposal: "aes256-sha256",
        keys: (32, 32),
        selectors: None,
        more: "",
        bundle: false,
    };

    fn tunnel(lab: &Lab, v6: bool) -> Option<[Vec<String>; 2]> {
        Some([vec![lab.a.subnet(1, v6)], vec![lab.b.subnet(1, v6)]])
    }

    /// The file of `side`.
    fn write(pairs: &[Self], side: &Side, far: &Side, v6_outside: bool) -> PathBuf {
        Self::write_between(pairs, side, side.outside(v6_outside), far.outside(v6_outside))
    }

    fn write_between(pairs: &[Self], side: &Side, local: IpAddr, peer: IpAddr) -> PathBuf {
        let mut text = format!(
            "name = \"far\"\n[local]\naddress = \"{local}\"\n[peer]\naddress = \"{peer}\"\n"
        );
        for (n, pair) in pairs.iter().enumerate() {
            pair.table(&mut text, side.name == "a", u8::try_from(n).expect("few pairs"));
        }
        let dir = side.dir.join("manual");
        fs::create_dir_all(&dir).expect("directory is made");
        let file = dir.join("far.conf");
        let _none = fs::remove_file(&file);
        let mut options = fs::File::options();
        let mut out =
            options.create_new(true).write(true).mode(0o600).open(&file).expect("file is made");
        std::io::Write::write_all(&mut out, text.as_bytes()).expect("file is written");
        file
    }

    fn table(&self, text: &mut String, is_a: bool, n: u8) {
        let Self { protocol, mode, proposal, keys: (encr, integ), more, .. } = self;
        let key = |what: u8, from_a: bool, len: usize| -> String {
            let byte = what * 16 + n * 2 + u8::from(from_a);
            format!("{byte:02x}").repeat(len)
        };
        let spi =
            |layer: u32, from_a: bool| 0x1000 + u32::from(n) * 0x10 + layer * 2 + u32::from(from_a);
        let mut put = |line: String| writeln!(text, "{line}").expect("a string takes it");
        put(format!("[[manual]]\nname = \"pair-{n}\"\nprotocol = {protocol:?}\nmode = {mode:?}"));
        put(format!("proposal = {proposal:?}\n{more}"));
        if let Some([a, b]) = &self.selectors {
            let (local, peer) = if is_a { (a, b) } else { (b, a) };
            put(format!("local = {local:?}\npeer = {peer:?}"));
        }
        for (way, from_a) in [("in", !is_a), ("out", is_a)] {
            put(format!("spi-{way} = {}", spi(0, from_a)));
            for (name, what, len) in [("key", 1, *encr), ("auth-key", 2, *integ)] {
                if len > 0 {
                    put(format!("{name}-{way} = \"{}\"", key(what, from_a, len)));
                }
            }
        }
        if self.bundle {
            put("[manual.ah]\nproposal = \"sha256\"".to_owned());
            for (way, from_a) in [("in", !is_a), ("out", is_a)] {
                put(format!("spi-{way} = {}", spi(1, from_a)));
                put(format!("auth-key-{way} = \"{}\"", key(3, from_a, 32)));
            }
        }
    }

    fn start<'a>(pairs: &[Self], lab: &'a Lab, v6_outside: bool) -> [Ipsecd<'a>; 2] {
        let [a, b] = [(&lab.a, &lab.b), (&lab.b, &lab.a)].map(|(side, far)| {
            Ipsecd::start_for_file(side, Self::write(pairs, side, far, v6_outside))
        });
        b.must_up();
        a.must_up();
        [a, b]
    }
}

/// The first pair of SAs in the status.
#[track_caller]
fn pair(daemon: &Ipsecd<'_>) -> Value {
    daemon.status()["peers"][0]["manual_sas"][0].clone()
}

/// The last sequence number that a daemon has used.
#[track_caller]
fn used(daemon: &Ipsecd<'_>) -> u64 {
    pair(daemon)["layers"][0]["sequence_outbound"].as_u64().expect("a number")
}

/// Takes A and B down; nothing may be left.
#[track_caller]
fn end(lab: &Lab, daemons: [Ipsecd<'_>; 2], before: &[String; 2]) {
    for daemon in &daemons {
        daemon.down();
    }
    let after = lab.both().map(|side| side.gw.network_state());
    assert_eq!(*before, after, "something was left, or is gone");
    for daemon in daemons {
        assert!(daemon.stop().success());
    }
}

#[test]
fn esp_in_tunnel_mode_carries_traffic_and_leaves_nothing() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    let before = lab.both().map(|side| side.gw.network_state());
    for (v6_outside, v6_inside, proposal, keys, more) in [
        (false, false, "aes256-sha256", (32, 32), ""),
        (true, true, "aes256gcm16-esn", (36, 0), ""),
        (false, true, "aes128-sha512-esn", (16, 64), "encap = \"udp\""),
        (true, false, "aes128gcm16", (20, 0), "encap = \"udp\""),
    ] {
        let selectors = Pair::tunnel(&lab, v6_inside);
        let one = Pair { proposal, keys, selectors, more, ..Pair::CBC };
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let daemons = Pair::start(&[one], &lab, v6_outside);
        traffic::both_ways(&lab, 1, v6_inside);
        let status = pair(&daemons[0]);
        assert_eq!(status["keys"], "manual: no rekey");
        let bytes = status["outbound"]["bytes"].as_u64().unwrap_or_default();
        assert!(bytes > traffic::TRANSFER as u64, "{status:#}");
        assert_eq!(status["drops"], serde_json::json!({}), "{status:#}");
        let wire = wire.stop();
        let count = capture::lines(&lab.router, &wire, PROTECTED).len();
        assert!(count > 10_000, "{count}");
        let clear =
            format!("(ip or ip6) and not ({PROTECTED}) and not icmp6 and not src net fe80::/10");
        assert_eq!(capture::lines(&lab.router, &wire, &clear), [""; 0]);
        end(&lab, daemons, &before);
    }
}

#[test]
fn up_shows_the_steps_and_status_shows_the_numbers() {
    let Some(lab) = Lab::open(&[]) else { return };
    let pairs = [Pair { selectors: Pair::tunnel(&lab, false), ..Pair::CBC }];
    let [a, b] = [(&lab.a, &lab.b), (&lab.b, &lab.a)]
        .map(|(side, far)| Ipsecd::start_for_file(side, Pair::write(&pairs, side, far, false)));
    b.must_up();
    let said = a.must_up();
    let steps = ["far: resolve ", "far: manual SAs ", "no rekey", "far: routes ", "far: up after"];
    let found =
        steps.map(|step| said.find(step).unwrap_or_else(|| panic!("{step} not in\n{said}")));
    assert!(found.is_sorted(), "{said}");
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    let (a_pair, b_pair) = (pair(&a), pair(&b));
    assert_eq!(a_pair["layers"][0]["sequence_outbound"], 10);
    assert_eq!(b_pair["layers"][0]["sequence_inbound"], 10);
    assert_eq!(a_pair["layers"][0]["spi_outbound"], b_pair["layers"][0]["spi_inbound"]);
    let table = process::run(&mut a.command(&["status"]));
    assert!(table.contains("manual: no"), "{table}");
    // The keys are the same byte again and again.
    for text in [said, table, a.status().to_string(), a.log(), b.log()] {
        assert!(!text.contains("11111111") && !text.contains("21212121"), "a key is in {text}");
    }
    let rekey = process::output(&mut a.command(&["rekey", "far"]));
    assert!(process::text(&rekey).contains("far has manual keys"), "{}", process::text(&rekey));
}

#[test]
fn no_restart_uses_a_sequence_number_again() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    let proposal = "aes256gcm16";
    let selectors = Pair::tunnel(&lab, false);
    let pairs = [Pair { proposal, keys: (36, 0), selectors, ..Pair::CBC }];
    let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
    let [mut a, b] = Pair::start(&pairs, &lab, false);
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    // B goes on counting what it received: what A sent twice, it would drop.
    traffic::ping(&lab.a.lan, source, target);
    assert_eq!(used(&a), 10);
    a.down();
    a.must_up();
    traffic::ping(&lab.a.lan, source, target);
    assert_eq!(used(&a), 20, "after a clean end, none is lost");
    // As it is loaded again, too, when what was received stays received.
    let received = |daemon: &Ipsecd<'_>| pair(daemon)["layers"][0]["sequence_inbound"].clone();
    let before = received(&a);
    a.must_up();
    assert_eq!(received(&a), before);
    traffic::ping(&lab.a.lan, source, target);
    assert_eq!(used(&a), 30);
    let mut before = used(&a);
    for _ in 0..2 {
        a.kill();
        a = Ipsecd::start_for_file(&lab.a, lab.a.dir.join("manual/far.conf"));
        a.must_up();
        traffic::answers_within(wait::PATIENCE, &lab.a.lan, source, target);
        let now = used(&a);
        assert!(now > before + 10, "{now} after {before}: the rest of a block is skipped");
        before = now;
    }
    drop(b);
    let wire = wire.stop();
    let from_a = format!("src host {} and ip proto 50", lab.a.outside(false));
    let sent: Vec<u64> = capture::lines(&lab.router, &wire, &from_a)
        .iter()
        .filter_map(|line| {
            let (_, rest) = line.split_once("seq=0x")?;
            u64::from_str_radix(rest.split([')', ',']).next()?, 16).ok()
        })
        .collect();
    assert!(sent.len() >= 32, "{sent:?}");
    assert!(sent.is_sorted_by(|a, b| a < b), "{sent:?}");
}

#[test]
fn without_a_place_for_sequence_numbers_nothing_comes_up() {
    let Some(lab) = Lab::open(&[]) else { return };
    let before = lab.a.gw.network_state();
    let pairs = [Pair { selectors: Pair::tunnel(&lab, false), ..Pair::CBC }];
    let a = Ipsecd::start_for_file(&lab.a, Pair::write(&pairs, &lab.a, &lab.b, false));
    let state = lab.a.dir.join("run/ipsecd-state");
    let said = |what: &str| {
        let output = a.up(5);
        let text = process::text(&output);
        assert!(!output.status.success(), "{what}: {text}");
        assert_eq!(lab.a.gw.network_state(), before, "{what}: something was left");
        text
    };
    // The daemon has made it for its own secret.
    fs::remove_dir_all(&state).expect("directory is removed");
    fs::write(&state, "").expect("file is written");
    let text = said("no directory");
    assert!(text.contains("SA pair-0: cannot keep its sequence numbers in"), "{text}");
    fs::remove_file(&state).expect("file is removed");
    fs::create_dir(&state).expect("directory is made");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).expect("mode is set");
    let text = said("open directory");
    assert!(text.contains("others can write there"), "{text}");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("mode is set");
    a.must_up();
    a.down();
    let files = fs::read_dir(&state).expect("directory is there").flatten();
    let kept =
        files.map(|file| file.path()).find(|file| file.extension().is_some_and(|e| e == "seq"));
    let kept = kept.expect("a counter is kept");
    fs::write(&kept, "12 or so").expect("file is written");
    let text = said("damaged counter");
    assert!(text.contains("is damaged: set new keys on both sides"), "{text}");
    fs::write(&kept, format!("ipsecd sequence numbers 1\n{}\n", u32::MAX))
        .expect("file is written");
    let text = said("used up");
    assert!(text.contains("all sequence numbers under this key are used"), "{text}");
}

/// Ping and TCP between the gateways themselves, both ways.
#[track_caller]
fn between_gateways(lab: &Lab, v6: bool) {
    for (from, to) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        let (source, target) = (from.outside(v6), to.outside(v6));
        traffic::ping(&from.gw, source, target);
        traffic::transfer(&from.gw, source, &to.gw, target, 1_000_000);
    }
}

/// The strictest that a host may be.
fn strict(lab: &Lab) {
    for side in lab.both() {
        side.gw.sh("for d in /proc/sys/net/ipv4/conf/*; do echo 1 > $d/rp_filter; echo 1 > $d/src_valid_mark; done; \
                    echo 1 > /proc/sys/net/ipv4/conf/default/rp_filter");
    }
}

fn transport(protocol: &'static str, proposal: &'static str, keys: (usize, usize)) -> Pair {
    Pair { protocol, proposal, keys, mode: "transport", ..Pair::CBC }
}

#[test]
fn every_protocol_in_transport_mode_carries_what_the_gateways_say_themselves() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    strict(&lab);
    let before = lab.both().map(|side| side.gw.network_state());
    for v6 in [false, true] {
        for one in [
            transport("esp", "aes256-sha256", (32, 32)),
            Pair { more: "encap = \"udp\"", ..transport("esp", "aes256gcm16-esn", (36, 0)) },
            transport("esp", "aes128ctr-aescmac-esn", (20, 16)),
            transport("esp", "chacha20poly1305iiv", (36, 0)),
            transport("ah", "sha256", (0, 32)),
            transport("ah", "aes256gmac-esn", (0, 36)),
            transport("ah", "sha512-esn", (0, 64)),
            Pair { bundle: true, ..transport("esp", "aes128-sha256", (16, 32)) },
        ] {
            let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
            let daemons = Pair::start(std::slice::from_ref(&one), &lab, v6);
            between_gateways(&lab, v6);
            let status = pair(&daemons[0]);
            assert_eq!(status["drops"], serde_json::json!({}), "{status:#}");
            let wire = wire.stop();
            let count = capture::lines(&lab.router, &wire, PROTECTED).len();
            assert!(count > 1_000, "{count}: {}", one.proposal);
            let ends = |side: &Side| format!("host {}", side.outside(v6));
            let clear = format!("{} and {} and not ({PROTECTED})", ends(&lab.a), ends(&lab.b));
            assert_eq!(capture::lines(&lab.router, &wire, &clear), [""; 0], "{}", one.proposal);
            end(&lab, daemons, &before);
        }
    }
}

#[test]
fn ah_in_tunnel_mode_carries_traffic() {
    let Some(lab) = Lab::open(&[]) else { return };
    let before = lab.both().map(|side| side.gw.network_state());
    for v6 in [false, true] {
        let selectors = Pair::tunnel(&lab, v6);
        let one =
            Pair { protocol: "ah", proposal: "sha256", keys: (0, 32), selectors, ..Pair::CBC };
        let daemons = Pair::start(&[one], &lab, v6);
        traffic::both_ways(&lab, 1, v6);
        end(&lab, daemons, &before);
    }
}

#[test]
fn narrow_selectors_leave_other_traffic_of_the_hosts_alone() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    strict(&lab);
    let before = lab.both().map(|side| side.gw.network_state());
    for v6 in [false, true] {
        let [a, b] = lab.both().map(|side| side.outside(v6));
        let selectors = Some([vec![format!("{a}[tcp]")], vec![format!("{b}[tcp/5432]")]]);
        let one = Pair { selectors, ..transport("esp", "aes256-sha256", (32, 32)) };
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let daemons = Pair::start(&[one], &lab, v6);
        service(&lab, a, b, 5433);
        service(&lab, a, b, 5432);
        traffic::ping(&lab.a.gw, a, b);
        let wire = wire.stop();
        let count = |filter: &str| capture::lines(&lab.router, &wire, filter).len();
        let filter = |rest: &str| format!("host {a} and host {b} and {rest}");
        let esp = if v6 { "ip6 proto 50" } else { "ip proto 50" };
        assert!(count(&filter(esp)) > 5);
        assert_eq!(count(&filter("tcp port 5432")), 0, "the service is protected");
        assert!(count(&filter("tcp port 5433")) > 5, "another is as it was");
        let echo = if v6 { "icmp6" } else { "icmp" };
        assert!(count(&filter(echo)) >= 20, "ping is as it was");
        end(&lab, daemons, &before);
    }
}

#[test]
fn neighbours_on_a_link_find_each_other_under_transport_mode() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    let far = lab.b.gw.name();
    lab.a.gw.ip(&format!("link add link0 type veth peer name link0 netns {far}"));
    let ends = |n: u8| ["fd77::", "10.77.0."].map(|net| format!("{net}{n}"));
    for (side, n) in [(&lab.a, 1), (&lab.b, 2)] {
        let [v6, v4] = ends(n);
        side.gw.ip(&format!("addr add {v6}/64 dev link0 nodad"));
        side.gw.ip(&format!("addr add {v4}/24 dev link0"));
        side.gw.ip("link set link0 up");
        side.gw.sh("echo 2 > /proc/sys/net/ipv4/conf/all/rp_filter");
    }
    for version in [0, 1] {
        let [a, b] = [1, 2].map(|n| -> IpAddr {
            ends(n)[version].parse().unwrap_or_else(|error| panic!("{error}"))
        });
        let one = [transport("esp", "aes256-sha256", (32, 32))];
        let start = |side, local, peer| {
            let daemon = Ipsecd::start_for_file(side, Pair::write_between(&one, side, local, peer));
            daemon.must_up();
            daemon
        };
        let wire = Capture::start(&lab.a.gw, "link0", &lab.a.dir.join("link.pcap"));
        let daemons = [start(&lab.a, a, b), start(&lab.b, b, a)];
        for side in lab.both() {
            side.gw.ip("neigh flush dev link0");
        }
        traffic::ping(&lab.a.gw, a, b);
        traffic::transfer(&lab.b.gw, b, &lab.a.gw, a, 100_000);
        let wire = wire.stop();
        // Solicitations and advertisements, or ARP, are on the link, and nothing else in clear.
        let found =
            if version == 0 { "icmp6 and ip6[40] >= 135 and ip6[40] <= 136" } else { "arp" };
        assert!(!capture::lines(&lab.a.gw, &wire, found).is_empty(), "{a}: nobody asked");
        let clear = format!("host {a} and host {b} and not ({PROTECTED}) and not ({found})");
        assert_eq!(capture::lines(&lab.a.gw, &wire, &clear), [""; 0]);
        for daemon in daemons {
            daemon.down();
        }
    }
}

#[test]
fn what_is_forwarded_to_the_peers_address_goes_as_it_did() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    strict(&lab);
    let far = lab.b.outside(false);
    lab.router.ip(&format!("route add {} via {}", lab.a.subnet(1, false), lab.a.outside(false)));
    traffic::ping(&lab.a.lan, lab.a.host(1, false), far);
    let _daemons = Pair::start(&[transport("ah", "sha256", (0, 32))], &lab, false);
    traffic::ping(&lab.a.lan, lab.a.host(1, false), far);
    traffic::ping(&lab.a.gw, lab.a.outside(false), far);
}

/// A short conversation between the gateways on a port.
#[track_caller]
fn service(lab: &Lab, from: IpAddr, to: IpAddr, port: u16) {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    let listener = lab.b.gw.enter(|| TcpListener::bind((to, port))).expect("listener");
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut asked = [0; 4];
        stream.read_exact(&mut asked).expect("a question");
        stream.write_all(&asked).expect("an answer");
    });
    let limit = Duration::from_secs(5);
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(to, port), limit);
    let mut stream = lab
        .a
        .gw
        .enter(connect)
        .unwrap_or_else(|error| panic!("{from} -> {to} port {port}: {error}"));
    stream.set_read_timeout(Some(limit)).expect("a timeout");
    stream.write_all(b"ping").expect("a question");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"ping");
    answering.join().expect("the service ends");
}

#[test]
fn transport_mode_carries_a_tunnel_device_of_the_kernel() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    strict(&lab);
    let [a, b] = lab.both().map(|side| side.outside(false));
    let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
    let one = Pair { bundle: true, ..transport("esp", "aes256-sha256", (32, 32)) };
    let daemons = Pair::start(&[one], &lab, false);
    for (side, far, local, remote) in [(&lab.a, &lab.b, a, b), (&lab.b, &lab.a, b, a)] {
        // Of the kernel's tunnel devices the one that needs no module that is not always there.
        side.gw
            .ip(&format!("link add t0 type vxlan id 7 local {local} remote {remote} dstport 4789"));
        let host = if side.name == "a" { 1 } else { 2 };
        side.gw.ip(&format!("addr add 10.99.0.{host}/24 dev t0"));
        side.gw.ip("link set t0 up mtu 1280");
        side.gw.ip(&format!("route add {} via 10.99.0.{}", far.subnet(1, false), 3 - host));
    }
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    traffic::answers_within(wait::PATIENCE, &lab.a.lan, source, target);
    traffic::both_ways(&lab, 1, false);
    let wire = wire.stop();
    let clear = format!("host {a} and host {b} and not ({PROTECTED})");
    assert_eq!(capture::lines(&lab.router, &wire, &clear), [""; 0]);
    drop(daemons);
}

#[test]
fn transport_mode_carries_gre_and_ip_in_ip() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    strict(&lab);
    for v6 in [false, true] {
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let one = transport("esp", "aes256gcm16", (36, 0));
        let daemons = Pair::start(&[one], &lab, v6);
        // GRE, IPv4 in IP, IPv6 in IP.
        for protocol in [47, 4, 41] {
            raw(&lab.a, &lab.b, v6, protocol);
            raw(&lab.b, &lab.a, v6, protocol);
        }
        let wire = wire.stop();
        let [a, b] = lab.both().map(|side| side.outside(v6));
        let clear = format!("host {a} and host {b} and not ({PROTECTED})");
        assert_eq!(capture::lines(&lab.router, &wire, &clear), [""; 0]);
        assert!(!capture::lines(&lab.router, &wire, PROTECTED).is_empty());
        for daemon in daemons {
            daemon.down();
        }
    }
}

/// One packet of an IP protocol from a gateway to the other.
#[track_caller]
fn raw(from: &Side, to: &Side, v6: bool, protocol: i32) {
    use socket2::{Domain, Protocol, Socket, Type};
    let (source, target) = (from.outside(v6), to.outside(v6));
    let open = |addr: IpAddr| {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
        socket.bind(&std::net::SocketAddr::new(addr, 0).into())?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok::<_, std::io::Error>(socket)
    };
    let receiver = to.gw.enter(|| open(target)).expect("raw socket");
    let sender = from.gw.enter(|| open(source)).expect("raw socket");
    // GRE with IPv4 in it, or the packet itself; for nobody, so that nobody answers.
    let inner = if protocol == 41 {
        let mut inner = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
        inner.extend([0xfd; 32]);
        inner
    } else {
        let mut inner = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 61, 0, 0];
        inner.extend([10, 99, 0, 1, 10, 99, 0, 2]);
        inner
    };
    let mut payload = if protocol == 47 { vec![0, 0, 8, 0] } else { Vec::new() };
    payload.extend(inner);
    let to = std::net::SocketAddr::new(target, 0);
    sender.send_to(&payload, &to.into()).expect("it is sent");
    let mut buffer = [0; 200];
    let len = std::io::Read::read(&mut &receiver, &mut buffer)
        .unwrap_or_else(|error| panic!("protocol {protocol}, {source} -> {target}: {error}"));
    // An IPv4 raw socket hands up the IP header too.
    let start = if v6 { 0 } else { 20 };
    assert_eq!(buffer[start..len], payload, "protocol {protocol}, {source} -> {target}");
}
