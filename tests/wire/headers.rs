//! Properties of the datapath's headers, for generated values.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipsecd::wire::ah::{AhHeader, AhPacket};
use ipsecd::wire::checksum;
use ipsecd::wire::esp::{EspHeader, EspPacket, EspTrailer};
use ipsecd::wire::icmp::{IcmpPacket, fragmentation_needed, packet_too_big};
use ipsecd::wire::ip::{
    Fragment, Ipv4Options, Ipv4Packet, Ipv4Repr, Ipv6Options, Ipv6Packet, Ipv6Repr, NextHeader,
    UpperLayer,
};
use ipsecd::wire::natt::{Datagram, classify};
use ipsecd::wire::tcp::TcpPacket;
use ipsecd::wire::udp::{UdpPacket, UdpRepr};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn ipv4_headers_are_parsed_and_emitted(repr in ipv4(), extra in 0..20_usize) {
        let mut bytes = repr.emit().to_vec();
        bytes.resize(bytes.len() + usize::from(repr.payload_len) + extra, 0x55);
        let packet = Ipv4Packet::new_checked(&bytes).expect("well-formed");
        prop_assert_eq!(Ipv4Repr::parse(&packet), Some(repr));
        prop_assert!(packet.verify_checksum());
        prop_assert_eq!(packet.payload().len(), usize::from(repr.payload_len));
    }

    #[test]
    fn ipv6_headers_are_parsed_and_emitted(repr in ipv6(), extra in 0..20_usize) {
        let mut bytes = repr.emit().to_vec();
        bytes.resize(bytes.len() + usize::from(repr.payload_len) + extra, 0x55);
        let packet = Ipv6Packet::new_checked(&bytes).expect("well-formed");
        prop_assert_eq!(Ipv6Repr::parse(&packet), repr);
        prop_assert_eq!(packet.payload().len(), usize::from(repr.payload_len));
    }

    #[test]
    fn extension_headers_lead_to_the_upper_layer(
        headers in vec((prop::sample::select(&[43, 60][..]), 0..4_u8), 0..8),
        fragment in prop::option::of((0..0x2000_u16, any::<bool>(), any::<u32>())),
    ) {
        // Written from the last header to the first, each naming the one after it.
        let mut next = NextHeader::UDP.0;
        let mut payload = vec![0; 8];
        let mut seen = UpperLayer { protocol: NextHeader::UDP, offset: 40, fragment: None };
        let walked = headers.iter().take(7);
        if let Some((offset, more, ident)) = fragment {
            let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
            let head = [&[next, 0, high, low][..], &ident.to_be_bytes()].concat();
            payload.splice(..0, head);
            next = NextHeader::FRAGMENT.0;
            seen.offset += 8;
            let fragment = Fragment { offset: offset << 3, more, ident };
            seen.fragment = (more || offset != 0).then_some(fragment);
        }
        for &(header, units) in walked.rev() {
            let mut head = vec![next, units];
            head.resize(8 + 8 * usize::from(units), 0);
            seen.offset += head.len();
            payload.splice(..0, head);
            next = header;
        }
        let payload_len = u16::try_from(payload.len()).expect("short");
        let repr = Ipv6Repr { next_header: NextHeader(next), payload_len, ..any_ipv6() };
        let bytes = [&repr.emit()[..], &payload].concat();
        let packet = Ipv6Packet::new_checked(&bytes).expect("well-formed");
        prop_assert_eq!(packet.upper_layer(), Ok(seen));
    }

    #[test]
    fn udp_headers_are_parsed_and_emitted(
        src_port: u16, dst_port: u16, payload in vec(any::<u8>(), 0..100), a: u128, b: u128,
    ) {
        let payload_len = u16::try_from(payload.len()).expect("short");
        let repr = UdpRepr { src_port, dst_port, payload_len };
        let mut bytes = [&repr.emit()[..], &payload].concat();
        let mut packet = UdpPacket::new_checked(&mut bytes[..]).expect("well-formed");
        prop_assert_eq!(UdpRepr::parse(&packet), repr);
        let (src, dst) = (Ipv6Addr::from(a).into(), Ipv6Addr::from(b).into());
        packet.fill_checksum(src, dst);
        prop_assert!(packet.verify_checksum(src, dst));
        prop_assert_eq!(packet.payload(), payload);
    }

    #[test]
    fn clamped_segments_have_a_right_checksum(
        mss: u16,
        max: u16,
        nops in 0..4_usize,
        payload in vec(any::<u8>(), 0..40),
        src: u32,
        dst: u32,
    ) {
        let mut bytes = vec![0; 28];
        bytes[12] = 7 << 4;
        bytes[13] = 0x02;
        bytes[20..20 + nops].fill(1);
        bytes[20 + nops..22 + nops].copy_from_slice(&[2, 4]);
        bytes[22 + nops..24 + nops].copy_from_slice(&mss.to_be_bytes());
        bytes.extend(&payload);
        let (src, dst) = (Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into());
        let mut segment = TcpPacket::new_checked(&mut bytes[..]).expect("well-formed");
        segment.fill_checksum(src, dst);
        prop_assert_eq!(segment.mss(), Some(mss));
        prop_assert_eq!(segment.clamp_mss(max), mss > max);
        prop_assert_eq!(segment.mss(), Some(mss.min(max)));
        prop_assert!(segment.verify_checksum(src, dst));
        prop_assert_eq!(segment.payload(), payload);
    }

    #[test]
    fn esp_is_parsed_and_emitted(
        spi: u32, sequence: u32, payload in vec(any::<u8>(), 0..60), next: u8,
        align in prop::sample::select(&[1_u8, 2, 4, 8, 16, 32][..]),
    ) {
        let header = EspHeader { spi, sequence };
        let trailer = EspTrailer::aligning(payload.len(), align, NextHeader(next));
        let mut plaintext = payload.clone();
        plaintext.resize(payload.len() + trailer.len(), 0);
        trailer.emit(&mut plaintext[payload.len()..]);
        prop_assert_eq!(plaintext.len() % usize::from(align.max(4)), 0);
        let bytes = [&header.emit()[..], &plaintext].concat();
        let packet = EspPacket::new_checked(&bytes).expect("long enough");
        prop_assert_eq!(EspHeader::parse(&packet), header);
        prop_assert_eq!(EspTrailer::parse(packet.payload()), Ok(trailer));
        prop_assert_eq!(&packet.payload()[..packet.payload().len() - trailer.len()], payload);
        let expected = if spi == 0 { Datagram::Ike(&bytes[4..]) } else { Datagram::Esp(&bytes) };
        prop_assert_eq!(classify(&bytes), Ok(expected));
    }

    #[test]
    fn ah_is_parsed_and_emitted(
        next: u8, spi: u32, sequence: u32, icv in vec(any::<u32>(), 0..=254), payload in vec(any::<u8>(), 0..60),
    ) {
        let icv: Vec<u8> = icv.iter().flat_map(|word| word.to_be_bytes()).collect();
        let payload_len = AhHeader::payload_len_for(AhHeader::FIXED_LEN + icv.len());
        let payload_len = payload_len.expect("whole words, and not too many");
        let header = AhHeader { next_header: NextHeader(next), payload_len, spi, sequence };
        let bytes = [&header.emit()[..], &icv, &payload].concat();
        let packet = AhPacket::new_checked(&bytes).expect("long enough");
        prop_assert_eq!(AhHeader::parse(&packet), header);
        prop_assert_eq!((packet.icv(), packet.payload()), (&icv[..], &payload[..]));
        prop_assert_eq!(packet.reserved(), 0);
        prop_assert!(AhPacket::new_checked(&bytes[..AhHeader::FIXED_LEN + icv.len() - 1]).is_err());
    }

    #[test]
    fn ipv4_options_are_those_that_were_written(
        options in vec((2..=255_u8, vec(any::<u8>(), 0..6)), 0..6), rest in vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = Vec::new();
        let mut written = Vec::new();
        for (kind, data) in options {
            written.push((bytes.len(), kind, data.len() + 2));
            bytes.push(kind);
            bytes.push(u8::try_from(data.len() + 2).expect("short"));
            bytes.extend(data);
            written.push((bytes.len(), 1, 1));
            bytes.push(1);
        }
        bytes.push(0);
        bytes.extend(rest);
        let read: Vec<_> = Ipv4Options::new(&bytes)
            .map(|option| option.expect("well-formed"))
            .map(|option| (option.at, option.kind.0, option.bytes.len()))
            .collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn ipv6_options_are_those_that_were_written(
        options in vec((1..=255_u8, vec(any::<u8>(), 0..20)), 0..6), pads in 0..8_usize,
    ) {
        let mut bytes = vec![59, 0];
        let mut written = Vec::new();
        for (kind, data) in options {
            bytes.push(kind);
            bytes.push(u8::try_from(data.len()).expect("short"));
            written.push((bytes.len(), kind, data.clone()));
            bytes.extend(data);
        }
        for _ in 0..pads {
            bytes.push(0);
            written.push((bytes.len(), 0, vec![]));
        }
        let read: Vec<_> = Ipv6Options::new(&bytes)
            .map(|option| option.expect("well-formed"))
            .map(|option| (option.data_at, option.kind.0, option.data.to_vec()))
            .collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn icmp_errors_quote_the_start_of_the_packet(len in 8..3000_u16, mtu in 68..=1500_u16) {
        let v4 = Ipv4Repr { payload_len: len, ..any_ipv4() };
        let mut bytes = v4.emit().to_vec();
        bytes.resize(20 + usize::from(len), 0x55);
        let original = Ipv4Packet::new_checked(&bytes).expect("well-formed");
        let error = fragmentation_needed(&original, Ipv4Addr::LOCALHOST, mtu).expect("allowed");
        prop_assert_eq!(error.len(), (bytes.len() + 28).min(576));
        let ip = Ipv4Packet::new_checked(&*error).expect("well-formed");
        let icmp = IcmpPacket::new_checked(ip.payload()).expect("well-formed");
        prop_assert!(ip.verify_checksum() && icmp.verify_checksum_v4());
        prop_assert_eq!(icmp.next_hop_mtu_v4(), Some(mtu));
        prop_assert!(bytes.starts_with(icmp.payload()));

        let v6 = Ipv6Repr { payload_len: len, ..any_ipv6() };
        let mut bytes = v6.emit().to_vec();
        bytes.resize(40 + usize::from(len), 0x55);
        let original = Ipv6Packet::new_checked(&bytes).expect("well-formed");
        let error = packet_too_big(&original, Ipv6Addr::LOCALHOST, mtu.into()).expect("allowed");
        prop_assert_eq!(error.len(), (bytes.len() + 48).min(1280));
        let ip = Ipv6Packet::new_checked(&*error).expect("well-formed");
        let icmp = IcmpPacket::new_checked(ip.payload()).expect("well-formed");
        prop_assert!(icmp.verify_checksum_v6(ip.src_addr(), ip.dst_addr()));
        prop_assert_eq!(icmp.mtu_v6(), Some(mtu.into()));
        prop_assert!(bytes.starts_with(icmp.payload()));
    }

    #[test]
    fn checksum_is_that_of_a_plain_sum(bytes in vec(any::<u8>(), 0..200)) {
        // RFC 1071 §4.1, word by word.
        let mut sum: u32 = 0;
        for word in bytes.chunks(2) {
            sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |&low| low.into());
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        prop_assert_eq!(u32::from(checksum::data(&bytes)), sum);
    }

    #[test]
    fn updating_a_checksum_is_summing_anew(
        mut bytes in vec(any::<u8>(), 2..60),
        at in any::<prop::sample::Index>(),
        new: u16,
    ) {
        // A first word that is not zero: RFC 1624 §3 tells the two zeros apart only then.
        bytes.splice(..0, [0x45, 0]);
        let at = at.index((bytes.len() - 2) / 2) * 2 + 2;
        let before = checksum::finish(checksum::data(&bytes));
        let mut word = [0; 2];
        for (to, from) in word.iter_mut().zip(&bytes[at..]) {
            *to = *from;
        }
        let new = new.to_be_bytes();
        prop_assume!(at + 2 <= bytes.len());
        bytes[at..at + 2].copy_from_slice(&new);
        let after = checksum::finish(checksum::data(&bytes));
        let old = u16::from_be_bytes(word);
        prop_assert_eq!(checksum::update(before, old, u16::from_be_bytes(new)), after);
    }
}

fn ipv4() -> impl Strategy<Value = Ipv4Repr> {
    (any::<[u32; 2]>(), any::<[u8; 3]>(), any::<u16>(), any::<bool>(), 0..500_u16).prop_map(
        |([src, dst], [protocol, tos, ttl], ident, dont_fragment, payload_len)| Ipv4Repr {
            src_addr: src.into(),
            dst_addr: dst.into(),
            protocol: NextHeader(protocol),
            tos,
            ident,
            dont_fragment,
            ttl,
            payload_len,
        },
    )
}

fn ipv6() -> impl Strategy<Value = Ipv6Repr> {
    (any::<[u128; 2]>(), any::<[u8; 3]>(), 0..0x10_0000_u32, 0..500_u16).prop_map(
        |([src, dst], [next_header, traffic_class, hop_limit], flow_label, payload_len)| Ipv6Repr {
            src_addr: src.into(),
            dst_addr: dst.into(),
            next_header: NextHeader(next_header),
            traffic_class,
            flow_label,
            hop_limit,
            payload_len,
        },
    )
}

fn any_ipv4() -> Ipv4Repr {
    Ipv4Repr {
        src_addr: [10, 1, 0, 1].into(),
        dst_addr: [10, 2, 0, 1].into(),
        protocol: NextHeader::UDP,
        tos: 0,
        ident: 0,
        dont_fragment: true,
        ttl: 64,
        payload_len: 0,
    }
}

fn any_ipv6() -> Ipv6Repr {
    Ipv6Repr {
        src_addr: "fd0a::1".parse().expect("an address"),
        dst_addr: "fd0b::1".parse().expect("an address"),
        next_header: NextHeader::UDP,
        traffic_class: 0,
        flow_label: 0,
        hop_limit: 64,
        payload_len: 0,
    }
}
