//! Scapy's AH against ours, both ways: what it seals we open, what we seal it opens, and both seal to the same bytes.
//!
//! Scapy 2.5 has neither AES-XCBC nor GMAC for AH, does not foretell where an IPv4 source route ends, takes every IPv6
//! route that it seals for one still ahead, and knows nothing of Fragment headers. It leaves destination options before AH,
//! as Linux does.

#![expect(clippy::print_stdout, reason = "a test that does not run says so")]

use std::io::Write;
use std::process::{Command, Stdio};

use ipsecd::ipsec::ah::{self, Ah, Align};
use ipsecd::ipsec::{Place, Spi};
use ipsecd::wire::ike::numbers::IntegId;
use ipsecd::wire::ip::{Ipv4Packet, NextHeader};
use serde_json::{Value, json};

use crate::support::{buf, ip, ip_between, udp, with_traffic_class};

const SPI: u32 = 0x1234_5678;

/// What is to be protected, with the length of the outer header in tunnel mode.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) plain: Vec<u8>,
    pub(crate) outer_len: Option<usize>,
}

fn shape(name: &'static str, plain: Vec<u8>) -> Shape {
    Shape { name, plain, outer_len: None }
}

fn v4_options(name: &'static str, options: &[u8]) -> Shape {
    let mut plain = udp(false, 60);
    plain.splice(20..20, options.iter().copied());
    plain[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    Ipv4Packet::new_resized(&mut plain[..]).unwrap().fill_checksum();
    shape(name, plain)
}

fn v6_headers(name: &'static str, chain: &[(u8, &[u8])]) -> Shape {
    let mut payload = udp(true, 80).split_off(40);
    let mut next = 17;
    for (kind, header) in chain.iter().rev() {
        payload.splice(..0, [&[next], &header[1..]].concat());
        next = *kind;
    }
    shape(name, with_traffic_class(ip(true, next, &payload), 0xb9))
}

fn tunnel(name: &'static str, v6: bool, inner_v6: bool) -> Shape {
    let protocol = if inner_v6 { 41 } else { 4 };
    let (src, dst) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") };
    let plain = ip_between(src, dst, protocol, &udp(inner_v6, 64));
    Shape { name, plain, outer_len: Some(if v6 { 40 } else { 20 }) }
}

pub(crate) fn shapes() -> Vec<Shape> {
    let options: &[u8] = &[0, 1, 0x3e, 4, 1, 2, 3, 4, 0x1e, 2, 5, 6, 1, 2, 0, 0];
    let route_done = [&[0, 2, 0, 0, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
    let route_ahead = [&[0, 2, 0, 1, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
    vec![
        shape("IPv4", with_traffic_class(udp(false, 61), 0xb9)),
        v4_options("IPv4, router alert and end of list", &[148, 4, 0, 0, 1, 1, 0, 0]),
        v4_options("IPv4, record route", &[1, 7, 11, 8, 10, 3, 0, 1, 0, 0, 0, 0]),
        v4_options("IPv4, time stamp", &[68, 12, 9, 0, 1, 2, 3, 4, 0, 0, 0, 0]),
        shape("IPv6", with_traffic_class(udp(true, 81), 0xb9)),
        v6_headers("IPv6, hop-by-hop options", &[(0, options)]),
        v6_headers("IPv6, hop-by-hop and destination options", &[(0, options), (60, options)]),
        v6_headers(ROUTE_BEHIND, &[(60, options), (43, &route_done)]),
        v6_headers("IPv6, route ahead", &[(43, &route_ahead), (60, options)]),
        tunnel("IPv4 in IPv4", false, false),
        tunnel("IPv6 in IPv4", false, true),
        tunnel("IPv4 in IPv6", true, false),
        tunnel("IPv6 in IPv6", true, true),
    ]
}

/// Scapy opens this rightly, and seals it as if the route were ahead.
const ROUTE_BEHIND: &str = "IPv6, route behind";

const ALGORITHMS: [(IntegId, &str, usize); 5] = [
    (IntegId::AUTH_HMAC_SHA1_96, "HMAC-SHA1-96", 20),
    (IntegId::AUTH_HMAC_SHA2_256_128, "SHA2-256-128", 32),
    (IntegId::AUTH_HMAC_SHA2_384_192, "SHA2-384-192", 48),
    (IntegId::AUTH_HMAC_SHA2_512_256, "SHA2-512-256", 64),
    (IntegId::AUTH_AES_CMAC_96, "AES-CMAC-96", 16),
];

#[test]
fn scapy_opens_what_we_seal_and_seals_what_we_open() {
    if lacks_scapy() {
        return;
    }
    let shapes = shapes();
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for (id, algorithm, key_len) in ALGORITHMS {
        let key: Vec<u8> = (1..).take(key_len).collect();
        let ours = Ah::new(id, &key, Align::Four).unwrap();
        for shape in &shapes {
            for (sequence, esn) in [(7, false), (0x5_ffff_fff0, true)] {
                let name = format!("{} {algorithm} {sequence:#x}", shape.name);
                let place = scapys_place(&shape.plain);
                let mut sealed = buf(&shape.plain);
                ours.seal(&mut sealed, place, Spi::new(SPI).unwrap(), sequence, esn).unwrap();
                let (outer, inner) = shape.plain.split_at(shape.outer_len.unwrap_or(0));
                let case = |op: &str, packet: &[u8]| {
                    json!({
                        "op": op,
                        "protocol": "AH",
                        "algorithm": algorithm,
                        "key": hex(&key),
                        "spi": SPI,
                        "sequence": sequence & 0xffff_ffff,
                        "esn": esn.then_some(sequence >> 32),
                        "packet": hex(packet),
                        "tunnel": shape.outer_len.map(|_| hex(outer)),
                    })
                };
                cases.extend([case("seal", inner), case("open", &arrived(&sealed))]);
                let plain =
                    if shape.outer_len.is_some() { inner.to_vec() } else { arrived(&shape.plain) };
                expected.push((shape.name, name, sealed, plain, ours.clone(), sequence, esn));
            }
        }
    }
    let answers = scapy(&cases);
    assert_eq!(answers.len(), expected.len() * 2);
    let (mut by_scapy, mut by_us) = (0, 0);
    for (answers, (shape, name, sealed, plain, ours, sequence, esn)) in
        answers.chunks(2).zip(expected)
    {
        let [theirs, opened] = answers else { panic!("a pair") };
        assert_eq!(opened["packet"].as_str(), Some(&*hex(&plain)), "{name}: Scapy opens: {opened}");
        by_us += 1;
        if shape == ROUTE_BEHIND {
            continue;
        }
        assert_eq!(
            theirs["packet"].as_str(),
            Some(&*hex(&sealed)),
            "{name}: Scapy seals: {theirs}"
        );
        let theirs = arrived(&unhex(theirs["packet"].as_str().unwrap()));
        let place = Place::of(&theirs, NextHeader::AH).unwrap();
        assert!(ours.open(&theirs, place, sequence, esn).is_ok(), "{name}");
        let mut stripped = buf(&theirs);
        ah::strip(&mut stripped, place).unwrap();
        assert!(stripped.ends_with(&plain), "{name}");
        by_scapy += 1;
    }
    assert_eq!((by_scapy, by_us), (120, 130));
}

#[test]
fn scapy_refuses_what_was_changed() {
    // That it accepts ours says something only if it does look.
    if lacks_scapy() {
        return;
    }
    let ours = Ah::new(IntegId::AUTH_HMAC_SHA2_256_128, &[7; 32], Align::Four).unwrap();
    let plain = udp(false, 60);
    let mut sealed = buf(&plain);
    let place = Place::for_insertion(&plain).unwrap();
    ours.seal(&mut sealed, place, Spi::new(SPI).unwrap(), 7, false).unwrap();
    let last = sealed.len() - 1;
    let cases: Vec<_> = [(last, false), (last, true)]
        .map(|(at, change)| {
            let mut packet = sealed.to_vec();
            packet[at] ^= u8::from(change);
            json!({
                "op": "open", "protocol": "AH", "algorithm": "SHA2-256-128", "key": hex(&[7; 32]), "spi": SPI, "sequence": 7,
                "esn": null, "packet": hex(&packet), "tunnel": null,
            })
        })
        .into();
    let answers = scapy(&cases);
    assert!(answers[0]["packet"].is_string(), "{}", answers[0]);
    let error = answers[1]["error"].as_str().unwrap();
    assert!(error.contains("IPSecIntegrityError"), "{error}");
}

const PYTHON: &str = "/usr/bin/python3";

/// Scapy's place is that of Linux: after destination options, unless they follow a routing header.
pub(crate) fn scapys_place(plain: &[u8]) -> Place {
    if plain[0] >> 4 == 4 || plain[6] == 43 {
        return Place::for_insertion(plain).unwrap();
    }
    let mut place = Place { at: 40, next_header_at: 6 };
    while matches!(plain[place.next_header_at], 0 | 43 | 60) {
        let len = usize::from(plain[place.at + 1]) * 8 + 8;
        place = Place { at: place.at + len, next_header_at: place.at };
    }
    place
}

/// The packet at its final destination: a route ahead has been taken.
fn arrived(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 && packet[6] == 43 && packet[43] == 1 {
        packet[43] = 0;
        let (header, routing) = packet.split_at_mut(40);
        header[24..40].swap_with_slice(&mut routing[8..24]);
    }
    packet
}

/// Says so if there is no Scapy. Where CI runs there must be one.
pub(crate) fn lacks_scapy() -> bool {
    let probe = Command::new(PYTHON).args(["-c", "import scapy.layers.ipsec"]).output();
    let lacks = !probe.is_ok_and(|output| output.status.success());
    if lacks {
        let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!ci, "{PYTHON} has no Scapy");
        println!("SKIP: {PYTHON} has no Scapy (Debian: python3-scapy)");
    }
    lacks
}

pub(crate) fn scapy(cases: &[Value]) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/datapath/scapy_sa.py");
    let mut child = Command::new(PYTHON)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = cases.iter().map(|case| format!("{case}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    crate::captures::hex(&Value::from(text))
}
