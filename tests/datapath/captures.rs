//! What the Linux kernel sent, opened by us: it must be what the kernel opened, packet for packet.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path as FilePath;

use ipsecd::crypto::Secret;
use ipsecd::datapath::{DropReason, Ecn, Options};
use ipsecd::ipsec::esp::{InboundSa, OutboundSa};
use ipsecd::ipsec::{
    DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Path, SaParams, SadUpdate, Spd, Spi,
};
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId};
use ipsecd::wire::ip::NextHeader;
use serde_json::Value;

use crate::support::{Gateway, POLICY, buf, prefix, suite};

pub(crate) const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/captures/kernel");

/// What the outer headers said, and what was in them.
struct Wire {
    path: Path,
    ecn: Ecn,
    payload: Vec<u8>,
}

struct Case {
    name: String,
    json: Value,
    wire: Vec<Wire>,
    plain: Vec<Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let mut names: Vec<_> = fs::read_dir(DIR)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".json").map(str::to_owned)
        })
        .filter(|name| name.starts_with("esp"))
        .collect();
    names.sort();
    assert!(names.len() >= 21, "the captures are there");
    names.into_iter().map(read).collect()
}

fn read(name: String) -> Case {
    let file = |suffix: &str| FilePath::new(DIR).join(format!("{name}.{suffix}"));
    let json = serde_json::from_slice(&fs::read(file("json")).unwrap()).unwrap();
    let frames = pcap(&fs::read(file("wire.pcap")).unwrap());
    let wire = frames.iter().map(|frame| outer(&frame[14..])).collect();
    let plain = pcap(&fs::read(file("plain.pcap")).unwrap());
    Case { name, json, wire, plain }
}

/// Classic pcap, little endian: the packets.
pub(crate) fn pcap(file: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
    let mut rest = &file[24..];
    let mut packets = Vec::new();
    while let Some((header, tail)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        packets.push(tail[..len].to_vec());
        rest = &tail[len..];
    }
    packets
}

/// Takes the outer IP header, and a UDP header, away.
fn outer(packet: &[u8]) -> Wire {
    let (src, dst, class, protocol, payload): (IpAddr, IpAddr, _, _, _) = if packet[0] >> 4 == 4 {
        let [src, dst] = [12, 16].map(|at| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        let len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        let payload = &packet[usize::from(packet[0] & 15) * 4..len];
        (Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into(), packet[1], packet[9], payload)
    } else {
        let [src, dst] = [8, 24].map(|at| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        let len = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        let class = packet[0] << 4 | packet[1] >> 4;
        let payload = &packet[40..len];
        (Ipv6Addr::from(src).into(), Ipv6Addr::from(dst).into(), class, packet[6], payload)
    };
    let (ports, encap, payload) = match protocol {
        50 => ((0, 0), Encap::Plain, payload),
        17 => {
            let port = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            ((port(0), port(2)), Encap::Udp, &payload[8..])
        }
        other => panic!("protocol {other}"),
    };
    let path =
        Path { local: SocketAddr::new(dst, ports.1), remote: SocketAddr::new(src, ports.0), encap };
    Wire { path, ecn: Ecn::of(class), payload: payload.to_vec() }
}

pub(crate) fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// One end of an SA: `inbound` at its receiver.
pub(crate) fn params(sa: &Value, path: Path, inbound: bool) -> SaParams {
    let (mut suite, encr_key, integ_key) = if sa["aead"].is_object() {
        let aead = &sa["aead"];
        assert_eq!(aead["linux"], "rfc4106(gcm(aes))");
        let bits = u16::try_from(aead["key_bits"].as_u64().unwrap()).unwrap();
        let key = [hex(&aead["key"]), hex(&aead["salt"])].concat();
        (suite(EncrId::ENCR_AES_GCM_16, bits, IntegId::NONE), key, Vec::new())
    } else {
        let (enc, auth) = (&sa["enc"], &sa["auth"]);
        assert_eq!(enc["linux"], "cbc(aes)");
        let integ = match auth["icv_bits"].as_u64().unwrap() {
            128 => IntegId::AUTH_HMAC_SHA2_256_128,
            192 => IntegId::AUTH_HMAC_SHA2_384_192,
            256 => IntegId::AUTH_HMAC_SHA2_512_256,
            other => panic!("ICV of {other} bits"),
        };
        let key = hex(&enc["key"]);
        let bits = u16::try_from(key.len() * 8).unwrap();
        (suite(EncrId::ENCR_AES_CBC, bits, integ), key, hex(&auth["key"]))
    };
    if sa["esn"].as_bool().unwrap() {
        suite.esn = EsnId::ESN;
    }
    let spi = u32::from_str_radix(&sa["spi"].as_str().unwrap()[2..], 16).unwrap();
    let [src, dst] = ["src", "dst"].map(|side| prefix(sa["selector"][side].as_str().unwrap()));
    SaParams {
        spi: Spi::new(spi).unwrap(),
        other_spi: Spi::new(spi).unwrap(),
        policy: POLICY,
        peer: "kernel".into(),
        path,
        mode: Mode::Tunnel,
        suite: suite.into(),
        encr_key: Secret::new(encr_key),
        integ_key: Secret::new(integ_key),
        ts_local: [if inbound { dst } else { src }].into(),
        ts_peer: [if inbound { src } else { dst }].into(),
        replay_window: u32::try_from(sa["replay_window"].as_u64().unwrap()).unwrap(),
        lifetime: Lifetime::default(),
        df: DfPolicy::Copy,
        dscp: DscpPolicy::Copy,
        sequence: 0,
        tfc: 0,
        ah_align: 4,
        around: None,
    }
}

fn sas(case: &Case) -> impl Iterator<Item = (&str, &Value)> {
    case.json["sas"].as_array().unwrap().iter().map(|sa| (sa["name"].as_str().unwrap(), sa))
}

/// Each packet with what the kernel said: wire, verdict, layer, what it became.
fn packets(case: &Case) -> impl Iterator<Item = (&Wire, &str, &Value, Option<&[u8]>)> {
    case.json["packets"].as_array().unwrap().iter().map(|packet| {
        let [wire] = packet["wire"].as_array().unwrap().as_slice() else { panic!("fragments") };
        let wire = &case.wire[usize::try_from(wire.as_u64().unwrap()).unwrap()];
        let plain = packet["plain"].as_u64().map(|at| &*case.plain[usize::try_from(at).unwrap()]);
        (wire, packet["verdict"].as_str().unwrap(), &packet["layers"][0], plain)
    })
}

#[test]
fn the_datapath_delivers_what_the_kernel_delivered() {
    let mut delivered = 0;
    for case in cases() {
        // An SA that was not there from its beginning is the next test's.
        if sas(&case).any(|(_, sa)| sa["initial_oseq"] != 0) {
            continue;
        }
        let mut gateway =
            Gateway::new(Spd::default(), Options { clamp_mss: false, ..Options::default() });
        let first = case.wire[0].path;
        for (_, sa) in sas(&case) {
            gateway.apply(SadUpdate::AddInbound(Box::new(params(sa, first, true))));
        }
        let mut drops = BTreeMap::new();
        for (wire, verdict, _, plain) in packets(&case) {
            let out = gateway.receive(wire.path, wire.ecn, std::slice::from_ref(&wire.payload));
            let got = out.deliver.first().map(|buf| &**buf);
            assert_eq!(got, plain, "{}: {verdict}", case.name);
            delivered += out.deliver.len();
            assert_eq!(out.ike.len(), usize::from(verdict == "ike"), "{}", case.name);
            match verdict {
                "replay-dup" => *drops.entry(DropReason::ReplayDuplicate).or_default() += 1,
                "replay-old" => *drops.entry(DropReason::ReplayOld).or_default() += 1,
                "ok" | "ike" | "keepalive" => {}
                other => panic!("{}: verdict {other}", case.name),
            }
        }
        assert_eq!(
            gateway.dropped().into_iter().collect::<BTreeMap<_, u64>>(),
            drops,
            "{}",
            case.name
        );
        let keepalives = packets(&case).filter(|&(_, verdict, ..)| verdict == "keepalive").count();
        assert_eq!(gateway.datapath.stats().keepalives, keepalives as u64, "{}", case.name);
    }
    assert!(delivered > 300, "{delivered}");
}

#[test]
fn an_sa_opens_what_the_kernel_opened_and_seals_what_it_sealed() {
    for case in cases() {
        let mut ends = BTreeMap::new();
        for (name, sa) in sas(&case) {
            let start = sa["initial_oseq"].as_u64().unwrap();
            let path = case.wire[0].path;
            let inbound =
                InboundSa::new(SaParams { sequence: start, ..params(sa, path, true) }).unwrap();
            let outbound =
                OutboundSa::new(SaParams { sequence: start, ..params(sa, path, false) }).unwrap();
            ends.insert(name, (inbound, outbound));
        }
        for (wire, verdict, layer, plain) in packets(&case) {
            let Some((inbound, outbound)) = layer["sa"].as_str().map(|name| &ends[name]) else {
                continue;
            };
            let mut packet = buf(&wire.payload);
            let opened = inbound.open(&mut packet);
            match verdict {
                "ok" => {
                    assert_eq!(
                        opened.unwrap().next_header.0,
                        layer["next_header"],
                        "{}",
                        case.name
                    );
                    assert!(inbound.sequence() >= layer["seq"].as_u64().unwrap());
                }
                "replay-dup" => {
                    assert_eq!(opened, Err(DropReason::ReplayDuplicate), "{}", case.name)
                }
                "replay-old" => assert_eq!(opened, Err(DropReason::ReplayOld), "{}", case.name),
                other => panic!("{other}"),
            }
            // Sealing: the same number and the same layout as the kernel's, where it had arrived in order, without
            // padding for traffic flow confidentiality.
            let in_order = verdict == "ok" && layer["seq"] == outbound.sequence() + 1;
            if !in_order || layer["tfc_pad"].as_u64().is_some_and(|pad| pad > 0) || plain.is_none()
            {
                continue;
            }
            let next_header = u8::try_from(layer["next_header"].as_u64().unwrap()).unwrap();
            let _ = outbound.seal(&mut packet, NextHeader(next_header)).unwrap();
            assert_eq!(packet.len(), wire.payload.len(), "{}", case.name);
            assert_eq!(packet[..8], wire.payload[..8], "{}: SPI and sequence number", case.name);
        }
    }
}
