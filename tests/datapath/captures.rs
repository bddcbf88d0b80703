//! What the Linux kernel sent, opened by us: it must be what the kernel opened, packet for packet.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path as FilePath;

use ipsecd::crypto::Secret;
use ipsecd::datapath::{DropReason, Options, Received};
use ipsecd::ipsec::suite::Encr;
use ipsecd::ipsec::{
    AhSuite, DfPolicy, DscpPolicy, Encap, EspSuite, InboundSa, Lifetime, Mode, OutboundSa, Path,
    Place, SaParams, SadUpdate, Spd, Spi, Suite,
};
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId};
use ipsecd::wire::ip::NextHeader;
use serde_json::Value;

use crate::support::{Gateway, POLICY, buf, checksum, prefix};

pub(crate) const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/captures/kernel");

/// The one case whose integrity algorithm is none of an RFC: HMAC-SHA2-256 cut to 96 bits.
const TRUNCATED: &str = "esp-tun4-aes128-sha256_96";

struct Case {
    name: String,
    json: Value,
    /// The packets of `wire`, from their IP header on.
    wire: Vec<Vec<u8>>,
    plain: Vec<Vec<u8>>,
}

/// A packet, with what the kernel said of it.
struct Packet<'a> {
    whole: Vec<u8>,
    verdict: &'a str,
    layers: &'a [Value],
    plain: Option<&'a [u8]>,
}

fn cases() -> Vec<Case> {
    let mut names: Vec<_> = fs::read_dir(DIR)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".json").map(str::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 79, "the captures are there: {}", names.len());
    names.into_iter().map(read).collect()
}

fn read(name: String) -> Case {
    let file = |suffix: &str| FilePath::new(DIR).join(format!("{name}.{suffix}"));
    let json = serde_json::from_slice(&fs::read(file("json")).unwrap()).unwrap();
    let frames = pcap(&fs::read(file("wire.pcap")).unwrap());
    // The header says how long the packet is; a short frame is filled up.
    let wire = frames.iter().map(|frame| frame[14..14 + total_len(&frame[14..])].to_vec());
    let wire = wire.collect();
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

fn u16_at(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn total_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { u16_at(packet, 2).into() } else { 40 + usize::from(u16_at(packet, 4)) }
}

/// What the kernel makes of fragments before a socket sees them. They may come in any order.
pub(crate) fn reassembled(fragments: &[&Vec<u8>]) -> Vec<u8> {
    let [first, _, ..] = fragments else { return fragments[0].clone() };
    let v6 = first[0] >> 4 == 6;
    if v6 {
        assert_eq!(first[6], 44, "nothing before the Fragment header in these captures");
    }
    let mut parts: Vec<_> = fragments
        .iter()
        .map(|packet| {
            if v6 {
                (usize::from(u16_at(packet, 42) & !7), &packet[48..])
            } else {
                let offset = usize::from(u16_at(packet, 6) & 0x1fff) * 8;
                (offset, &packet[usize::from(packet[0] & 15) * 4..])
            }
        })
        .collect();
    parts.sort();
    let mut data: Vec<u8> = Vec::new();
    for (offset, part) in parts {
        assert_eq!(offset, data.len());
        data.extend(part);
    }
    let mut packet = first[..if v6 { 40 } else { usize::from(first[0] & 15) * 4 }].to_vec();
    let header_len = packet.len();
    packet.extend(data);
    if v6 {
        packet[6] = first[40];
        let len = u16::try_from(packet.len() - 40).unwrap().to_be_bytes();
        packet[4..6].copy_from_slice(&len);
    } else {
        let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
        packet[2..4].copy_from_slice(&len);
        packet[6..8].fill(0);
        packet[10..12].fill(0);
        let sum = checksum(&[&packet[..header_len]]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
    }
    packet
}

/// What a socket of ours makes of a packet.
fn received(packet: &[u8]) -> Received {
    let (src, dst, class, header): (IpAddr, IpAddr, _, _) = if packet[0] >> 4 == 4 {
        let [src, dst] = [12, 16].map(|at| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        let header = usize::from(packet[0] & 15) * 4;
        (Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into(), packet[1], header)
    } else {
        let [src, dst] = [8, 24].map(|at| <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        let class = packet[0] << 4 | packet[1] >> 4;
        (Ipv6Addr::from(src).into(), Ipv6Addr::from(dst).into(), class, 40)
    };
    let in_udp = Place::of(packet, NextHeader::UDP).is_some();
    let (ports, encap, payload) = if in_udp {
        let ports = (u16_at(packet, header), u16_at(packet, header + 2));
        (ports, Encap::Udp, &packet[header + 8..])
    } else {
        ((0, 0), Encap::Plain, packet)
    };
    let path =
        Path { local: SocketAddr::new(dst, ports.1), remote: SocketAddr::new(src, ports.0), encap };
    Received {
        path,
        traffic_class: if in_udp { class } else { 0 },
        buf: buf(payload),
        segment_len: None,
    }
}

pub(crate) fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn integ_of(auth: &Value) -> IntegId {
    match (auth["linux"].as_str().unwrap(), auth["icv_bits"].as_u64().unwrap()) {
        ("hmac(sha1)", 96) => IntegId::AUTH_HMAC_SHA1_96,
        ("hmac(sha256)", 96) => IntegId::AUTH_HMAC_SHA2_256_96,
        ("hmac(sha256)", 128) => IntegId::AUTH_HMAC_SHA2_256_128,
        ("hmac(sha384)", 192) => IntegId::AUTH_HMAC_SHA2_384_192,
        ("hmac(sha512)", 256) => IntegId::AUTH_HMAC_SHA2_512_256,
        ("xcbc(aes)", 96) => IntegId::AUTH_AES_XCBC_96,
        ("cmac(aes)", 96) => IntegId::AUTH_AES_CMAC_96,
        other => panic!("{other:?}"),
    }
}

/// Suite, encryption key and integrity key.
fn suite_of(sa: &Value) -> (Suite, Vec<u8>, Vec<u8>) {
    let esn = if sa["esn"].as_bool().unwrap() { EsnId::ESN } else { EsnId::NO_ESN };
    let bits = |key: &[u8]| Some(u16::try_from(key.len() * 8).unwrap());
    let auth = &sa["auth"];
    if sa["proto"] == "ah" {
        let suite = AhSuite { integ: integ_of(auth), esn };
        return (suite.into(), Vec::new(), hex(&auth["key"]));
    }
    let (encr, encr_key, integ, integ_key) = if sa["aead"].is_object() {
        let aead = &sa["aead"];
        let id = match (aead["linux"].as_str().unwrap(), aead["icv_bits"].as_u64().unwrap()) {
            ("rfc4106(gcm(aes))", 64) => EncrId::ENCR_AES_GCM_8,
            ("rfc4106(gcm(aes))", 96) => EncrId::ENCR_AES_GCM_12,
            ("rfc4106(gcm(aes))", 128) => EncrId::ENCR_AES_GCM_16,
            ("rfc4309(ccm(aes))", 64) => EncrId::ENCR_AES_CCM_8,
            ("rfc4309(ccm(aes))", 128) => EncrId::ENCR_AES_CCM_16,
            ("rfc4543(gcm(aes))", 128) => EncrId::ENCR_NULL_AUTH_AES_GMAC,
            ("rfc7539esp(chacha20,poly1305)", 128) => EncrId::ENCR_CHACHA20_POLY1305,
            other => panic!("{other:?}"),
        };
        let key = hex(&aead["key"]);
        let key_bits = if id == EncrId::ENCR_CHACHA20_POLY1305 { None } else { bits(&key) };
        let key = [key, hex(&aead["salt"])].concat();
        (Encr { id, key_bits }, key, IntegId::NONE, Vec::new())
    } else {
        let enc = &sa["enc"];
        let (id, key) = match enc["linux"].as_str().unwrap() {
            "cbc(aes)" => (EncrId::ENCR_AES_CBC, hex(&enc["key"])),
            "rfc3686(ctr(aes))" => (EncrId::ENCR_AES_CTR, hex(&enc["key"])),
            "ecb(cipher_null)" => (EncrId::ENCR_NULL, Vec::new()),
            other => panic!("{other}"),
        };
        let key_bits = if id == EncrId::ENCR_NULL { None } else { bits(&key) };
        let salt = if enc["salt"].is_string() { hex(&enc["salt"]) } else { Vec::new() };
        (Encr { id, key_bits }, [key, salt].concat(), integ_of(auth), hex(&auth["key"]))
    };
    (EspSuite { encr, integ, esn }.into(), encr_key, integ_key)
}

/// One end of an SA: `inbound` at its receiver.
pub(crate) fn params(sa: &Value, path: Path, inbound: bool) -> SaParams {
    let (suite, encr_key, integ_key) = suite_of(sa);
    let spi = u32::from_str_radix(&sa["spi"].as_str().unwrap()[2..], 16).unwrap();
    let [src, dst] = ["src", "dst"].map(|side| prefix(sa["selector"][side].as_str().unwrap()));
    SaParams {
        spi: Spi::new(spi).unwrap(),
        other_spi: Spi::new(spi).unwrap(),
        policy: POLICY,
        peer: "kernel".into(),
        path,
        mode: if sa["mode"] == "tunnel" { Mode::Tunnel } else { Mode::Transport },
        suite,
        encr_key: Secret::new(encr_key),
        integ_key: Secret::new(integ_key),
        ts_local: [if inbound { dst } else { src }].into(),
        ts_peer: [if inbound { src } else { dst }].into(),
        replay_window: u32::try_from(sa["replay_window"].as_u64().unwrap()).unwrap(),
        lifetime: Lifetime::default(),
        df: DfPolicy::Copy,
        dscp: DscpPolicy::Copy,
        sequence: sa["initial_oseq"].as_u64().unwrap(),
        tfc: 0,
        ah_align: sa["align"].as_u64().map_or(4, |align| u8::try_from(align).unwrap()),
        resource: None,
        around: None,
    }
}

impl Case {
    fn sas(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.json["sas"].as_array().unwrap().iter().map(|sa| (sa["name"].as_str().unwrap(), sa))
    }

    /// One end of each SA; that of a bundle is one.
    fn params(&self, inbound: bool) -> Vec<(&str, SaParams)> {
        let path = received(&self.wire[0]).path;
        let whole = |name: &str| !name.ends_with("-outer");
        let sas = self.sas().filter(|(name, _)| whole(name)).map(|(name, sa)| {
            let around = self.sas().find(|(other, _)| *other == format!("{name}-outer"));
            let around = around.map(|(_, sa)| Box::new(params(sa, path, inbound)));
            (name, SaParams { around, ..params(sa, path, inbound) })
        });
        sas.collect()
    }

    fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        let number = |value: &Value| value.as_u64().map(|at| usize::try_from(at).unwrap());
        self.json["packets"].as_array().unwrap().iter().map(move |packet| {
            let fragments = packet["wire"].as_array().unwrap().iter();
            let fragments: Vec<_> = fragments.map(|at| &self.wire[number(at).unwrap()]).collect();
            Packet {
                whole: reassembled(&fragments),
                verdict: packet["verdict"].as_str().unwrap(),
                layers: packet["layers"].as_array().map_or(&[], Vec::as_slice),
                plain: number(&packet["plain"]).map(|at| &*self.plain[at]),
            }
        })
    }

    /// In UDP the IP header of a packet in transport mode is gone, and we make another.
    fn has_own_header(&self) -> bool {
        self.name.starts_with("espudp-trn")
    }
}

/// Without what a made header has of its own: identification, DF, TTL, checksum.
fn without_identity(packet: &[u8]) -> Vec<u8> {
    assert_eq!(checksum(&[&packet[..20]]), 0);
    let mut packet = packet.to_vec();
    for range in [4..8, 8..9, 10..12] {
        packet[range].fill(0);
    }
    packet
}

#[test]
fn the_datapath_delivers_what_the_kernel_delivered() {
    let mut delivered = 0;
    for case in cases() {
        let mut gateway =
            Gateway::new(Spd::default(), Options { clamp_mss: false, ..Options::default() });
        for (_, params) in case.params(true) {
            gateway.apply(SadUpdate::AddInbound(Box::new(params)));
        }
        let mut drops = BTreeMap::new();
        for Packet { whole, verdict, plain, .. } in case.packets() {
            let mut received = [received(&whole)];
            gateway.datapath.inbound_batch(gateway.now, &mut received, &mut gateway.inbound);
            let out = &gateway.inbound;
            let got = out.deliver.first();
            if case.has_own_header() {
                let comparable = |packet: Option<&[u8]>| packet.map(without_identity);
                assert_eq!(comparable(got), comparable(plain), "{}: {verdict}", case.name);
            } else {
                assert_eq!(got, plain, "{}: {verdict}", case.name);
            }
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
        let keepalives = case.packets().filter(|packet| packet.verdict == "keepalive").count();
        assert_eq!(gateway.datapath.stats().keepalives, keepalives as u64, "{}", case.name);
    }
    assert!(delivered > 2000, "{delivered}");
}

#[test]
fn an_icv_cut_to_96_bits_is_refused_where_an_rfc_has_128() {
    let case = read(TRUNCATED.to_owned());
    let mut gateway = Gateway::new(Spd::default(), Options::default());
    for (_, mut params) in case.params(true) {
        let Suite::Esp(suite) = &mut params.suite else { panic!("ESP") };
        assert_eq!(suite.integ, IntegId::AUTH_HMAC_SHA2_256_96);
        suite.integ = IntegId::AUTH_HMAC_SHA2_256_128;
        gateway.apply(SadUpdate::AddInbound(Box::new(params)));
    }
    let mut received: Vec<_> = case.wire.iter().map(|packet| received(packet)).collect();
    gateway.datapath.inbound_batch(gateway.now, &mut received, &mut gateway.inbound);
    assert!(gateway.inbound.deliver.is_empty());
    // With four bytes more for the ICV, the rest is no whole number of cipher blocks.
    assert_eq!(gateway.dropped(), [(DropReason::EspMalformed, case.wire.len() as u64)]);
}

#[test]
fn an_sa_seals_to_the_length_and_number_that_the_kernel_sealed_to() {
    let mut sealed = 0;
    for case in cases() {
        let outbound: BTreeMap<_, _> = case
            .params(false)
            .into_iter()
            .map(|(name, params)| (name, OutboundSa::new(params).unwrap()))
            .collect();
        for Packet { whole, verdict, layers, plain } in case.packets() {
            // Where it had arrived in order, without padding for traffic flow confidentiality. A bundle's ESP is the
            // second layer; in UDP the packet is not there whole.
            let (Some(plain), [layer]) = (plain, layers) else { continue };
            let sa = &outbound[layer["sa"].as_str().unwrap()];
            let in_order = verdict == "ok" && layer["seq"] == sa.sequence() + 1;
            if !in_order || layer["tfc_pad"].as_u64().is_some_and(|pad| pad > 0) {
                continue;
            }
            let protocol = if layer["ah_len"].is_u64() { NextHeader::AH } else { NextHeader::ESP };
            let next_header =
                NextHeader(u8::try_from(layer["next_header"].as_u64().unwrap()).unwrap());
            let Some(place) = Place::of(&whole, protocol) else { continue };
            let mut packet = buf(plain);
            if sa.params().mode == Mode::Transport {
                // Linux puts final destination options before the header: there, too, it has to stand.
                let place = Place { at: place.at, ..place };
                let _ = sa.seal_at(&mut packet, place).unwrap();
            } else if protocol == NextHeader::ESP {
                let _ = sa.seal(&mut packet, next_header).unwrap();
                let outer = whole.len() - place.at;
                assert_eq!(packet.len(), outer, "{}", case.name);
                assert_eq!(packet[..8], whole[place.at..][..8], "{}", case.name);
                sealed += 1;
                continue;
            } else {
                let mut with_outer = whole[..place.at].to_vec();
                with_outer.extend(plain);
                packet = buf(&with_outer);
                place.mend(&mut packet, next_header).unwrap();
                let _ = sa.seal_at(&mut packet, place).unwrap();
            }
            assert_eq!(packet.len(), whole.len(), "{}", case.name);
            let header = if protocol == NextHeader::AH { 12 } else { 8 };
            assert_eq!(packet[place.at..][..header], whole[place.at..][..header], "{}", case.name);
            sealed += 1;
        }
    }
    assert!(sealed > 1700, "{sealed}");
}

#[test]
fn an_sa_refuses_what_was_changed_and_takes_what_was_sent() {
    for case in cases() {
        let inbound: BTreeMap<_, _> = case
            .params(true)
            .into_iter()
            .map(|(name, params)| (name, InboundSa::new(params).unwrap()))
            .collect();
        for Packet { whole, verdict, layers, .. } in case.packets() {
            let ([layer], "ok") = (layers, verdict) else { continue };
            let sa = &inbound[layer["sa"].as_str().unwrap()];
            let mut changed = received(&whole);
            let last = changed.buf.len() - 1;
            changed.buf[last] ^= 1;
            let open = |mut received: Received| {
                let packet = &mut received.buf;
                if received.path.encap == Encap::Udp {
                    return sa.open(packet);
                }
                let protocol =
                    if layer["ah_len"].is_u64() { NextHeader::AH } else { NextHeader::ESP };
                let place = Place::of(packet, protocol).unwrap();
                if protocol == NextHeader::ESP && sa.params().mode == Mode::Tunnel {
                    packet.trim_front(place.at);
                    return sa.open(packet);
                }
                sa.open_at(packet, place)
            };
            let before = sa.sequence();
            assert_eq!(open(changed), Err(DropReason::IcvMismatch), "{}", case.name);
            assert_eq!(sa.sequence(), before, "{}", case.name);
            let opened = open(received(&whole)).unwrap();
            assert_eq!(opened.next_header.0, layer["next_header"], "{}", case.name);
            assert!(sa.sequence() >= layer["seq"].as_u64().unwrap());
        }
    }
}
