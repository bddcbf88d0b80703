//! The bodies of the fuzz targets around AH: what must hold for any packet whatever.

use crate::ipsec::ah::{self, Ah, Align};
use crate::ipsec::{PacketBuf, Place, Spi};
use crate::wire::ah::{AhHeader, AhPacket};
use crate::wire::ike::numbers::IntegId;
use crate::wire::ip::{
    IpPacket, Ipv4Options, Ipv4Packet, Ipv6Options, Ipv6Packet, MAX_EXTENSION_HEADERS, NextHeader,
};

/// A bare header and what follows it.
pub(super) fn header(data: &[u8]) {
    let Ok(packet) = AhPacket::new_checked(data) else { return };
    assert_eq!(packet.header_len() + packet.payload().len(), data.len());
    assert_eq!(packet.icv().len() + AhHeader::FIXED_LEN, packet.header_len());
    let header = AhHeader::parse(&packet);
    assert_eq!(AhHeader::payload_len_for(packet.header_len()), Some(header.payload_len));
    let mut canonical = data[..AhHeader::FIXED_LEN].to_vec();
    canonical[2..4].fill(0);
    assert_eq!(header.emit()[..], canonical);
}

/// A packet from somebody without the key: it never opens. And taking AH out of it is undone by putting it in.
pub(super) fn packet(data: &[u8]) {
    let Some(place) = Place::of(data, NextHeader::AH) else { return };
    let ah = algorithm();
    assert!(ah.open(data, place, 1, false).is_err(), "forged");
    let mut buf = PacketBuf::copy_of(data);
    let Ok(next_header) = ah::strip(&mut buf, place) else {
        assert_eq!(&*buf, data, "what is refused stays as it is");
        return;
    };
    let header = AhPacket::new_checked(&data[place.at..]).expect("it was taken out");
    let header_len = header.header_len();
    assert_eq!(buf.len() + header_len, data.len());
    assert_eq!(next_header, header.next_header());
    assert_eq!(buf[place.at..], data[place.at + header_len..]);
    let ip = IpPacket::new_checked(&*buf).expect("what is left is a packet");
    assert_eq!(ip.total_len(), buf.len());
    seal_and_open(&buf, place);
}

/// A packet as it comes from a host.
pub(super) fn place(data: &[u8]) {
    let Ok(ip) = IpPacket::new_checked(data) else {
        assert_eq!(Place::for_insertion(data), None);
        assert_eq!(Place::of(data, NextHeader::ESP), None);
        return;
    };
    match &ip {
        IpPacket::V4(packet) => {
            let options = Ipv4Options::new(packet.options()).map_while(Result::ok);
            let end = options.fold(0, |end, option| {
                assert_eq!(option.at, end, "without a gap");
                assert_eq!(option.bytes, &packet.options()[end..end + option.bytes.len()]);
                end + option.bytes.len()
            });
            assert!(end <= packet.options().len());
        }
        IpPacket::V6(packet) => {
            let headers = packet.extension_headers().map_while(Result::ok);
            let (mut end, mut count) = (Ipv6Packet::<&[u8]>::HEADER_LEN, 0);
            for header in headers {
                assert_eq!(header.at, end, "without a gap");
                assert_eq!(data[header.named_at], header.kind.0);
                end = header.end();
                count += 1;
                for option in Ipv6Options::new(&data[header.at..end]).map_while(Result::ok) {
                    assert!(option.data_at + option.data.len() <= header.len);
                }
            }
            assert!(end <= packet.total_len() && count <= MAX_EXTENSION_HEADERS);
        }
    }
    for protocol in [NextHeader::ESP, NextHeader::AH] {
        if let Some(place) = Place::of(data, protocol) {
            let first = Place::for_insertion(data).expect("what is found could be put in");
            assert!(first.at <= place.at && place.at <= ip.total_len());
            assert_eq!(data[place.next_header_at], protocol.0);
        }
    }
    if let Some(place) = Place::for_insertion(data) {
        assert!(place.next_header_at < place.at && place.at <= ip.total_len());
        seal_and_open(data, place);
    }
}

/// Seals a packet, opens it as its receiver would, and takes AH out again.
fn seal_and_open(plain: &[u8], place: Place) {
    let mut plain = plain.to_vec();
    if let Ok(mut packet) = Ipv4Packet::new_checked(&mut plain[..]) {
        packet.fill_checksum();
    }
    let (ah, spi) = (algorithm(), Spi::new(0x1234_5678).expect("not reserved"));
    let mut buf = PacketBuf::copy_of(&plain);
    if ah.seal(&mut buf, place, spi, 7, true).is_err() {
        let ip = IpPacket::new_checked(&*buf).map(|ip| ip.total_len());
        assert!(ip.is_ok(), "what is refused is still a packet");
        return;
    }
    let sealed = Place::of(&buf, NextHeader::AH).expect("AH");
    let atomic = place.at - sealed.at;
    assert!(atomic == 0 || atomic == 8, "the header of an atomic fragment is taken out");
    // A route ahead of it changes what the receiver sees: only at its end does it verify.
    let opened = ah.open(&buf, sealed, 7, true);
    assert!(opened.is_ok() || is_routed(&plain), "{:?}", opened.map(|_| ()));
    let last = buf.len() - 1;
    buf[last] ^= 1;
    assert!(ah.open(&buf, sealed, 7, true).is_err(), "changed");
    buf[last] ^= 1;
    ah::strip(&mut buf, sealed).expect("AH");
    assert_eq!(buf.len() + atomic, plain.len());
    if atomic == 0 {
        assert_eq!(&*buf, plain);
    }
}

/// Whether there is a source route or a routing header in a packet.
fn is_routed(packet: &[u8]) -> bool {
    match IpPacket::new_checked(packet) {
        Ok(IpPacket::V4(packet)) => Ipv4Options::new(packet.options())
            .map_while(Result::ok)
            .any(|option| option.kind.is_source_route()),
        Ok(IpPacket::V6(packet)) => packet
            .extension_headers()
            .map_while(Result::ok)
            .any(|header| header.kind == NextHeader::ROUTING),
        Err(_) => false,
    }
}

fn algorithm() -> Ah {
    Ah::new(IntegId::AUTH_HMAC_SHA2_256_128, &[7; 32], Align::Four).expect("an algorithm")
}
