//! The bodies of the fuzz targets: what must hold for any bytes whatever.
//!
//! `fuzz/` runs them under libFuzzer, `tests/wire/corpus.rs` replays the seed corpora through them. Each does
//! more than parse: what was parsed is emitted and parsed again, and must be the same. They panic when
//! a property does not hold.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{fuzz_ah, fuzz_datapath, fuzz_endpoint, fuzz_offload};
use crate::wire::esp::{EspHeader, EspPacket, EspTrailer};
use crate::wire::icmp::{self, IcmpPacket};
use crate::wire::ike::header::{Flags, Header, IkeSpi};
use crate::wire::ike::message::{Message, emit_chain, parse_chain};
use crate::wire::ike::numbers::{ExchangeType, PayloadType};
use crate::wire::ike::payload::Payload;
use crate::wire::ip::{IpPacket, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NextHeader};
use crate::wire::tcp::{self, TcpPacket};
use crate::wire::udp::{UdpPacket, UdpRepr};
use crate::wire::{Reader, natt};

/// What a target does with one input.
pub type Body = fn(&[u8]);

/// Every target: its name, which is that of its binary and of its corpus, and its body.
pub const TARGETS: &[(&str, Body)] = &[
    ("ike_message", ike_message),
    ("ike_header", ike_header),
    ("ike_chain", ike_chain),
    ("sa", sa),
    ("ke", ke),
    ("id", id),
    ("cert", cert),
    ("auth", auth),
    ("nonce", nonce),
    ("notify", notify),
    ("delete", delete),
    ("vendor", vendor),
    ("ts", ts),
    ("sk", sk),
    ("skf", skf),
    ("cp", cp),
    ("eap", eap),
    ("ip4", ip4),
    ("ip6", ip6),
    ("udp", udp),
    ("tcp", tcp),
    ("icmp", icmp),
    ("esp", esp),
    ("ah", ah),
    ("place", place),
    ("natt", natt),
    ("inbound_packet", inbound_packet),
    ("outbound_packet", outbound_packet),
    ("segment", segment),
    ("coalesce", coalesce),
    ("endpoint", endpoint),
    ("endpoint_sealed", endpoint_sealed),
];

/// A packet from the network into a datapath.
pub fn inbound_packet(data: &[u8]) {
    let _delivered = fuzz_datapath::inbound_packet(data);
}

/// Packets from the TUN into a datapath.
pub fn outbound_packet(data: &[u8]) {
    let _sealed = fuzz_datapath::outbound_packet(data);
}

/// A packet that is to be cut.
pub fn segment(data: &[u8]) {
    let _segments = fuzz_offload::segment(data);
}

/// Packets that may be joined.
pub fn coalesce(data: &[u8]) {
    let _pieces = fuzz_offload::coalesce(data);
}

/// Datagrams into an endpoint in some state.
pub fn endpoint(data: &[u8]) {
    fuzz_endpoint::endpoint(data);
}

/// Payloads into an endpoint, from a peer that holds the keys.
pub fn endpoint_sealed(data: &[u8]) {
    fuzz_endpoint::endpoint_sealed(data);
}

/// A datagram as an IKE message.
pub fn ike_message(data: &[u8]) {
    let Ok(message) = Message::parse(data) else { return };
    message_round_trip(&message);
}

/// The header alone.
pub fn ike_header(data: &[u8]) {
    let mut reader = Reader::new("IKE header", data);
    let parsed = Header::parse(&mut reader);
    assert_eq!(parsed.is_ok(), data.len() >= Header::LEN);
    let Ok(header) = parsed else { return };
    assert_eq!(reader.remaining(), data.len() - Header::LEN);
    let mut out = Vec::new();
    header.emit(&mut out);
    assert_eq!(out.len(), Header::LEN);
    // Only the flags that mean nothing may differ.
    let mut canonical = data[..Header::LEN].to_vec();
    canonical[19] &= 0x38;
    assert_eq!(out, canonical);
    assert_eq!(Header::parse(&mut Reader::new("IKE header", &out)), Ok(header));
}

/// The payloads inside an SK payload: the first byte is the type of the first.
pub fn ike_chain(data: &[u8]) {
    let Some((&first, chain)) = data.split_first() else { return };
    let Ok(payloads) = parse_chain(PayloadType(first), chain) else { return };
    let Some(canonical) = canonical(&payloads) else { return };
    let mut out = Vec::new();
    let emitted_first = emit_chain(&canonical, &mut out);
    assert_eq!(emitted_first, PayloadType(first));
    assert_eq!(parse_chain(emitted_first, &out), Ok(canonical));
    assert!(out.len() <= chain.len(), "what is emitted is never longer than what was parsed");
}

/// The body of an SA payload.
pub fn sa(data: &[u8]) {
    payload(PayloadType::SA, data);
}

/// The body of a KE payload.
pub fn ke(data: &[u8]) {
    payload(PayloadType::KE, data);
}

/// The body of an IDi or IDr payload.
pub fn id(data: &[u8]) {
    payload(PayloadType::ID_I, data);
    payload(PayloadType::ID_R, data);
}

/// The body of a CERT or CERTREQ payload.
pub fn cert(data: &[u8]) {
    payload(PayloadType::CERT, data);
    payload(PayloadType::CERTREQ, data);
}

/// The body of an AUTH payload.
pub fn auth(data: &[u8]) {
    payload(PayloadType::AUTH, data);
}

/// The body of a Nonce payload.
pub fn nonce(data: &[u8]) {
    payload(PayloadType::NONCE, data);
}

/// The body of a Notify payload.
pub fn notify(data: &[u8]) {
    payload(PayloadType::NOTIFY, data);
}

/// The body of a Delete payload.
pub fn delete(data: &[u8]) {
    payload(PayloadType::DELETE, data);
}

/// The body of a Vendor ID payload, and of one of a type nobody knows.
pub fn vendor(data: &[u8]) {
    payload(PayloadType::VENDOR, data);
    payload(PayloadType(255), data);
}

/// The body of a TSi or TSr payload.
pub fn ts(data: &[u8]) {
    payload(PayloadType::TS_I, data);
    payload(PayloadType::TS_R, data);
}

/// The body of an SK payload.
pub fn sk(data: &[u8]) {
    payload(PayloadType::SK, data);
}

/// The body of an SKF payload.
pub fn skf(data: &[u8]) {
    payload(PayloadType::SKF, data);
}

/// The body of a CP payload.
pub fn cp(data: &[u8]) {
    payload(PayloadType::CP, data);
}

/// The body of an EAP payload.
pub fn eap(data: &[u8]) {
    payload(PayloadType::EAP, data);
}

/// An IPv4 packet, and what is built from one.
pub fn ip4(data: &[u8]) {
    let Ok(packet) = Ipv4Packet::new_checked(data) else { return };
    let header_len = packet.header_len();
    assert_eq!(packet.options().len(), header_len - Ipv4Repr::LEN);
    assert_eq!(packet.payload().len(), packet.as_bytes().len() - header_len);
    assert_eq!(packet.tos(), packet.dscp() << 2 | packet.ecn());
    if let Some(repr) = Ipv4Repr::parse(&packet) {
        let bytes = [&repr.emit()[..], packet.payload()].concat();
        let again = Ipv4Packet::new_checked(&bytes).expect("what we emit is well-formed");
        assert!(again.verify_checksum());
        assert_eq!(Ipv4Repr::parse(&again), Some(repr));
        assert_eq!(again.payload(), packet.payload());
    }

    let mut bytes = data.to_vec();
    let mut changed = Ipv4Packet::new_checked(&mut bytes[..]).expect("a copy");
    changed.fill_checksum();
    assert!(changed.verify_checksum());
    changed.set_tos(packet.tos() ^ 0xff);
    changed.set_ttl(packet.ttl().wrapping_sub(1));
    changed.set_ident(packet.ident().wrapping_add(1));
    changed.set_dont_fragment(!packet.dont_fragment());
    assert!(changed.verify_checksum(), "each setter brings the checksum up to date");
    assert_eq!(changed.fragment_offset(), packet.fragment_offset());

    if let Some(error) = icmp::fragmentation_needed(&packet, Ipv4Addr::LOCALHOST, 1400) {
        let ip = Ipv4Packet::new_checked(&*error).expect("what we emit is well-formed");
        assert!(ip.verify_checksum());
        assert!(error.len() <= icmp::ErrorPacket::MAX_LEN_V4);
        assert_eq!(ip.as_bytes().len(), error.len());
        let message = IcmpPacket::new_checked(ip.payload()).expect("what we emit is well-formed");
        assert!(message.verify_checksum_v4());
        assert_eq!(message.next_hop_mtu_v4(), Some(1400));
        assert!(packet.as_bytes().starts_with(message.payload()));
        assert!(icmp::fragmentation_needed(&ip, Ipv4Addr::BROADCAST, 1400).is_none());
    }
    whole_packet(data);
}

/// An IPv6 packet, and what is built from one.
pub fn ip6(data: &[u8]) {
    let Ok(packet) = Ipv6Packet::new_checked(data) else { return };
    assert_eq!(packet.payload().len(), packet.as_bytes().len() - Ipv6Repr::LEN);
    let repr = Ipv6Repr::parse(&packet);
    assert_eq!(repr.emit(), data[..Ipv6Repr::LEN]);

    let mut bytes = data.to_vec();
    let mut changed = Ipv6Packet::new_checked(&mut bytes[..]).expect("a copy");
    changed.set_dscp(packet.dscp() ^ 0x3f);
    changed.set_ecn(packet.ecn() ^ 0x03);
    changed.set_hop_limit(packet.hop_limit() ^ 0xff);
    assert_eq!(changed.traffic_class(), packet.traffic_class() ^ 0xff);
    assert_eq!(changed.flow_label(), packet.flow_label());
    assert_eq!(changed.payload(), packet.payload());

    if let Ok(upper) = packet.upper_layer() {
        assert!((Ipv6Repr::LEN..=packet.total_len()).contains(&upper.offset));
    }
    if let Some(error) = icmp::packet_too_big(&packet, Ipv6Addr::LOCALHOST, 1400) {
        let ip = Ipv6Packet::new_checked(&*error).expect("what we emit is well-formed");
        assert!(error.len() <= icmp::ErrorPacket::MAX_LEN);
        assert_eq!(ip.as_bytes().len(), error.len());
        let message = IcmpPacket::new_checked(ip.payload()).expect("what we emit is well-formed");
        assert!(message.verify_checksum_v6(ip.src_addr(), ip.dst_addr()));
        assert_eq!(message.mtu_v6(), Some(1400));
        assert!(packet.as_bytes().starts_with(message.payload()));
    }
    whole_packet(data);
}

/// A UDP datagram.
pub fn udp(data: &[u8]) {
    let Ok(packet) = UdpPacket::new_checked(data) else { return };
    let repr = UdpRepr::parse(&packet);
    let bytes = [&repr.emit()[..], packet.payload()].concat();
    let again = UdpPacket::new_checked(&bytes).expect("what we emit is well-formed");
    assert_eq!(UdpRepr::parse(&again), repr);
    assert_eq!(again.payload(), packet.payload());

    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    for addr in [v4, v6] {
        let mut bytes = data.to_vec();
        let mut filled = UdpPacket::new_checked(&mut bytes[..]).expect("a copy");
        filled.fill_checksum(addr, addr);
        assert_ne!(filled.checksum(), 0, "zero would say that there is none");
        assert!(filled.verify_checksum(addr, addr));
    }
    assert!(!packet.verify_checksum(v4, v6));
}

/// A TCP segment.
pub fn tcp(data: &[u8]) {
    let Ok(packet) = TcpPacket::new_checked(data) else { return };
    assert_eq!(packet.header_len() + packet.payload().len(), data.len());
    for option in packet.options() {
        assert!(option.offset + option.data.len() <= packet.header_len());
    }
    // An IP packet has no room for more.
    if data.len() > 65_515 {
        return;
    }
    for addr in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let mut bytes = data.to_vec();
        let mut clamped = TcpPacket::new_checked(&mut bytes[..]).expect("a copy");
        clamped.fill_checksum(addr, addr);
        assert!(clamped.verify_checksum(addr, addr));
        let lowers = packet.syn() && packet.mss().is_some_and(|mss| mss > 1200);
        assert_eq!(clamped.clamp_mss(1200), lowers);
        assert!(clamped.mss() <= packet.mss());
        // The MSS option may overlap nothing else: ports, length and payload are as they were.
        assert!(clamped.verify_checksum(addr, addr), "clamping brings the checksum up to date");
        assert_eq!(clamped.payload(), packet.payload());
        assert_eq!(bytes[..16], data[..16]);
    }
}

/// An ICMP or ICMPv6 message.
pub fn icmp(data: &[u8]) {
    let Ok(packet) = IcmpPacket::new_checked(data) else { return };
    assert_eq!(packet.payload().len(), data.len() - 8);
    let words = [packet.echo_ident().to_be_bytes(), packet.echo_sequence().to_be_bytes()];
    assert_eq!(words.concat(), data[4..8]);
    if packet.next_hop_mtu_v4().is_some() {
        assert_eq!((packet.message_type(), packet.code()), (3, 4));
    }
    assert_eq!(packet.mtu_v6().is_some(), packet.message_type() == icmp::v6::PACKET_TOO_BIG);
    // What an error quotes is the start of a packet, cut anywhere.
    whole_packet(packet.payload());
    let _ = packet.verify_checksum_v4();
    let _ = packet.verify_checksum_v6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
}

/// An ESP packet, and the bytes after its header as if they were decrypted.
pub fn esp(data: &[u8]) {
    let Ok(packet) = EspPacket::new_checked(data) else { return };
    let header = EspHeader::parse(&packet);
    assert_eq!([&header.emit()[..], packet.payload()].concat(), data);
    let plaintext = packet.payload();
    let Ok(trailer) = EspTrailer::parse(plaintext) else { return };
    let payload = &plaintext[..plaintext.len() - trailer.len()];
    let mut bytes = payload.to_vec();
    bytes.resize(plaintext.len(), 0);
    trailer.emit(&mut bytes[payload.len()..]);
    assert_eq!(bytes, plaintext);
    let aligned = EspTrailer::aligning(payload.len(), 16, trailer.next_header);
    assert_eq!((payload.len() + aligned.len()) % 16, 0);
}

/// An IP packet with AH, from somebody without the key; and the same bytes as a bare header.
pub fn ah(data: &[u8]) {
    fuzz_ah::header(data);
    fuzz_ah::packet(data);
}

/// An IP packet into which AH is put, opened and taken out again; the places in it, its options and extension headers.
pub fn place(data: &[u8]) {
    fuzz_ah::place(data);
}

/// A datagram on port 4500.
pub fn natt(data: &[u8]) {
    match natt::classify(data) {
        Ok(natt::Datagram::Keepalive) => assert_eq!(data, natt::KEEPALIVE),
        Ok(natt::Datagram::Ike(message)) => {
            assert_eq!([&natt::NON_ESP_MARKER[..], message].concat(), data);
            ike_message(message);
        }
        Ok(natt::Datagram::Esp(packet)) => {
            assert_eq!(packet, data);
            let packet = EspPacket::new_checked(packet).expect("long enough for its header");
            assert_ne!(packet.spi(), 0, "RFC 3948 §2.1: an SPI is never zero");
        }
        Err(_) => assert!(data.len() < EspHeader::LEN),
    }
}

/// One payload with this body, alone in a message.
fn payload(payload_type: PayloadType, body: &[u8]) {
    let Ok(length) = u16::try_from(body.len() + 4) else { return };
    let flags = Flags::new(true, false);
    let exchange = ExchangeType::INFORMATIONAL;
    let mut header = Header::new(IkeSpi(1), IkeSpi(2), exchange, flags, 0);
    header.next_payload = payload_type;
    header.length = u32::from(length) + 28;
    let mut datagram = Vec::new();
    header.emit(&mut datagram);
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(&length.to_be_bytes());
    datagram.extend_from_slice(body);
    let Ok(message) = Message::parse(&datagram) else { return };
    assert_eq!(message.payloads.len(), 1);
    assert_eq!(message.payloads[0].payload_type(), payload_type);
    message_round_trip(&message);
}

fn message_round_trip(message: &Message) {
    let Some(payloads) = canonical(&message.payloads) else { return };
    let canonical = Message { header: message.header, payloads };
    let bytes = canonical.emit();
    let again = Message::parse(&bytes).expect("what we emit is well-formed");
    assert_eq!(again.payloads, canonical.payloads);
    let length = u32::try_from(bytes.len()).expect("no longer than what was parsed");
    assert!(length <= message.header.length);
    assert_eq!(again.header, Header { length, ..message.header });
    assert_eq!(again.emit(), bytes);
}

/// The payloads without what is deliberately not emitted: the mark of an unknown transform attribute.
/// `None` if there is a TS payload of which no selector was understood: one without selectors has no
/// encoding.
fn canonical(payloads: &[Payload]) -> Option<Vec<Payload>> {
    let mut payloads = payloads.to_vec();
    for payload in &mut payloads {
        if let Payload::Sa(sa) = payload {
            for proposal in &mut sa.proposals {
                for transform in &mut proposal.transforms {
                    transform.unknown_attribute = false;
                }
            }
        }
        if let Payload::TsI(ts) | Payload::TsR(ts) = payload
            && ts.selectors.is_empty()
        {
            return None;
        }
    }
    Some(payloads)
}

/// What the datapath does with any packet that it reads.
fn whole_packet(data: &[u8]) {
    let Ok(packet) = IpPacket::new_checked(data) else { return };
    let upper = packet.upper_layer();
    let mut bytes = data.to_vec();
    let clamped = tcp::clamp_mss(&mut bytes, 1400);
    assert_eq!(clamped, bytes != data);
    if clamped {
        assert_eq!(upper.map(|upper| upper.protocol), Ok(NextHeader::TCP));
    }
    assert!(!tcp::clamp_mss(&mut bytes, 1400), "once is enough");
}
