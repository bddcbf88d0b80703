//! Two gateways with any kind of SA between them, and packets for them.

use ipsecd::datapath::Options;
use ipsecd::ipsec::{Mode, SaParams};
use ipsecd::testing::VirtualClock;
use ipsecd::testing::gateways::{Kind, Protection};

use crate::support::*;

pub(crate) fn pair_of(kind: Kind) -> (Gateway, Gateway) {
    pair_of_with(kind, |_| {})
}

pub(crate) fn pair_of_with(kind: Kind, change: impl Fn(&mut SaParams)) -> (Gateway, Gateway) {
    let now = VirtualClock::new().now();
    let [a, b] = kind.datapaths(&Options::default(), now, change);
    (Gateway::of(a, now), Gateway::of(b, now))
}

/// Transport mode without UDP: every protection, both versions.
pub(crate) fn raw_transport() -> impl Iterator<Item = Kind> {
    let kinds = Kind::all().into_iter();
    kinds.filter(|kind| kind.mode == Mode::Transport && !kind.udp && !kind.esn)
}

pub(crate) fn transport(protection: Protection, v6: bool) -> Kind {
    Kind { protection, mode: Mode::Transport, v6, esn: false, udp: false }
}

/// A packet from A to B that the SAs take, with this payload of a protocol.
pub(crate) fn packet(kind: Kind, inner_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if kind.mode == Mode::Tunnel {
        return ip(inner_v6, protocol, payload);
    }
    let [a, b] = kind.hosts().map(|host| host.to_string());
    ip_between(&a, &b, protocol, payload)
}

/// A UDP packet with a right checksum, and `len` bytes of data.
pub(crate) fn udp_packet(kind: Kind, inner_v6: bool, len: usize) -> Vec<u8> {
    let udp_len = u16::try_from(8 + len).unwrap().to_be_bytes();
    let mut udp = [&[3, 0xe8, 7, 0xd0], &udp_len[..], &[0, 0]].concat();
    udp.extend((0..len).map(|i| u8::try_from(i % 251).unwrap()));
    let whole = packet(kind, inner_v6, 17, &udp);
    let sum = checksum(&[addresses(&whole), &[0, 17], &udp_len, &udp]);
    udp[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    packet(kind, inner_v6, 17, &udp)
}

/// Source and destination.
pub(crate) fn addresses(packet: &[u8]) -> &[u8] {
    if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] }
}

pub(crate) fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..header]]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet
}

/// What arrives of a packet: in UDP its IP header is another.
pub(crate) fn arrives_as(kind: Kind, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if !kind.udp || kind.mode == Mode::Tunnel || kind.v6 {
        return packet;
    }
    packet[4..6].fill(0);
    packet[6..8].copy_from_slice(&[0x40, 0]);
    with_checksum(packet)
}

/// Seals at A, opens at B.
pub(crate) fn carried(a: &mut Gateway, b: &mut Gateway, packet: &[u8]) -> Vec<Vec<u8>> {
    let out = a.send(&[packet.to_vec()]);
    b.receive_sealed(&out.sealed).deliver.iter().map(<[u8]>::to_vec).collect()
}
