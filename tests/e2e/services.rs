//! `ipsecd services` of live SAs, beside what RFC 4301 §3.1, §3.2 and §4.1, RFC 4302 §1 and RFC 4303 §1 say that each gives; and beside the
//! wire, on which what is said to be hidden is not to be found, and the rest is.

use std::fs;

use serde_json::Value;

use crate::lab::capture::Capture;
use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Need, Peer, process, wait};

/// In the words and the order of RFC 4301 §3.1.
const SERVICES: [&str; 6] = [
    "access control",
    "connectionless integrity",
    "data origin authentication",
    "replay protection",
    "confidentiality",
    "limited traffic flow confidentiality",
];

/// What is sent, to be looked for.
const SECRET: &[u8; 16] = b"ipsecd-lab-words";

/// Protection in the words of `[esp]`.
struct Case {
    esp: &'static str,
    transport: bool,
    /// RFC 4303 §1: "confidentiality", which NULL (RFC 2410), GMAC (RFC 4543) and AH do not give.
    confidential: bool,
    /// RFC 4302 §1: AH protects the IP header too, ESP does not.
    header: bool,
}

const CASES: [Case; 9] = [
    Case {
        esp: "proposals = [\"aes256gcm16\"]",
        transport: false,
        confidential: true,
        header: false,
    },
    Case {
        esp: "proposals = [\"aes128-sha256\"]",
        transport: true,
        confidential: true,
        header: false,
    },
    Case {
        esp: "proposals = [\"null-sha256\"]",
        transport: false,
        confidential: false,
        header: false,
    },
    Case {
        esp: "proposals = [\"null-sha384\"]",
        transport: true,
        confidential: false,
        header: false,
    },
    Case {
        esp: "proposals = [\"aes256gmac\"]",
        transport: false,
        confidential: false,
        header: false,
    },
    Case {
        esp: "proposals = [\"aes128gmac\"]",
        transport: true,
        confidential: false,
        header: false,
    },
    Case {
        esp: "protocol = \"ah\"\nproposals = [\"sha256\"]",
        transport: false,
        confidential: false,
        header: true,
    },
    Case {
        esp: "protocol = \"ah\"\nproposals = [\"aes256gmac\"]",
        transport: true,
        confidential: false,
        header: true,
    },
    // RFC 4303 §1: replay protection is the receiver's to choose.
    Case {
        esp: "proposals = [\"aes256gcm16\"]\nreplay-window = 0",
        transport: false,
        confidential: true,
        header: false,
    },
];

fn peer(case: &Case, side: &Side, far: &Side) -> Peer {
    let mut peer = Peer::new(side, far, false);
    peer.esp = case.esp.to_owned();
    if case.transport {
        peer.esp += "\nmode = \"transport\"";
        peer.local_address = Some(side.outside(false).to_string());
        peer.local_subnets = vec![side.outside(false).to_string()];
        peer.subnets = vec![far.outside(false).to_string()];
    }
    peer
}

#[track_caller]
fn services(daemon: &Ipsecd<'_>) -> Vec<Value> {
    let text = process::run(&mut daemon.command(&["services", "far", "--json"]));
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    told["sas"].as_array().unwrap_or_else(|| panic!("{told:#}")).clone()
}

/// What an SA should say, in one direction.
fn wanted(case: &Case, direction: &str) -> [bool; 6] {
    // RFC 4303 §3.4.3: the receiver decides; the sender numbers its packets in any case (§2.2).
    let replay = direction == "outbound" || !case.esp.contains("replay-window = 0");
    // RFC 4303 §1: traffic flow confidentiality wants tunnel mode, and encryption.
    let flow = case.confidential && !case.transport;
    // RFC 4301 §4.1: access control by selectors is there in any case; §3.2: so is integrity, which RFC 8221 §6 wants.
    [true, true, true, replay, case.confidential, flow]
}

#[track_caller]
fn says_what_the_standards_say(case: &Case, daemon: &Ipsecd<'_>) {
    let child = daemon.child();
    let sas = services(daemon);
    assert_eq!(sas.len(), 2, "{sas:#?}");
    for (direction, spi) in [("inbound", "spi_inbound"), ("outbound", "spi_outbound")] {
        let sa = sas.iter().find(|sa| sa["direction"] == direction).expect("one each way");
        assert_eq!(
            (&sa["spi"], &sa["suite"], &sa["mode"]),
            (&child[spi], &child["suite"], &child["mode"])
        );
        let told = sa["services"].as_array().expect("a list");
        let names: Vec<_> =
            told.iter().map(|it| it["service"].as_str().unwrap_or_default()).collect();
        assert_eq!(names, SERVICES);
        let given: Vec<_> = told.iter().map(|it| it["given"] == true).collect();
        assert_eq!(given, wanted(case, direction), "{}: {sa:#}", case.esp);
        for it in told {
            assert!(it["why"].as_str().is_some_and(|why| !why.is_empty()), "{it}");
        }
        let integrity = told[1]["why"].as_str().expect("words");
        assert_eq!(
            integrity.contains("over the IP header before it too"),
            case.header,
            "{integrity}"
        );
        assert_eq!(integrity.contains("not over the IP header"), !case.header, "{integrity}");
    }
    // For people, the same.
    let text = process::run(&mut daemon.command(&["services", "far"]));
    let lines = |yes: &str| text.lines().filter(|line| line.starts_with(yes)).count();
    let given: usize = ["inbound", "outbound"]
        .map(|way| wanted(case, way).iter().filter(|it| **it).count())
        .iter()
        .sum();
    assert_eq!((lines("  yes "), lines("  no  ")), (given, 12 - given), "{text}");
}

#[test]
fn each_live_sa_gives_what_the_standards_say() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    for case in &CASES {
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let a = Ipsecd::start(&lab.a, &peer(case, &lab.a, &lab.b));
        let mut there = peer(case, &lab.b, &lab.a);
        there.esp += "\nstart = \"respond\"";
        let b = Ipsecd::start(&lab.b, &there);
        b.must_up();
        a.must_up();
        b.up_within(wait::PATIENCE);
        says_what_the_standards_say(case, &a);
        says_what_the_standards_say(case, &b);
        let (from, source, target) = if case.transport {
            (&lab.a.gw, lab.a.outside(false), lab.b.outside(false))
        } else {
            (&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false))
        };
        let pattern: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut ping = from.command("ping");
        ping.args(["-n", "-c", "3", "-i", "0.05", "-W", "10", "-s", "64", "-p", &pattern, "-I"]);
        process::run(ping.arg(source.to_string()).arg(target.to_string()));
        a.down();
        b.down();
        assert!(a.stop().success() && b.stop().success());
        let bytes = fs::read(wire.stop()).expect("it is there");
        let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|it| it == wanted);
        assert_eq!(has(SECRET), !case.confidential, "{}: what is in a packet", case.esp);
        if !case.transport {
            // The addresses of an inner IP header, one after the other. IKE_AUTH is encrypted, so they stand nowhere else.
            let ends = [source, target].map(|it| match it {
                std::net::IpAddr::V4(it) => it.octets(),
                std::net::IpAddr::V6(_) => panic!("they are IPv4"),
            });
            assert_eq!(
                has(&ends.concat()),
                !wanted(case, "outbound")[5],
                "{}: who talks to whom",
                case.esp
            );
        }
    }
}
