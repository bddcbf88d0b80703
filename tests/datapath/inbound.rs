//! From the socket to the TUN.

use std::net::SocketAddr;

use ipsecd::datapath::{DropReason, Ecn};
use ipsecd::ipsec::{Encap, Notice, OutboundSa, Path, SadUpdate, Spi};
use ipsecd::wire::ip::NextHeader;

use crate::support::*;

/// The usual path at B.
fn from_a() -> Path {
    path(2, 1, Encap::Udp, false)
}

/// Seals what no datapath would send: any payload under any next header, with A's keys.
fn forge(payloads: &[(&[u8], NextHeader)]) -> Vec<Vec<u8>> {
    let sa = OutboundSa::new(params(gcm(), true, 0).0).unwrap();
    payloads
        .iter()
        .map(|&(payload, next_header)| {
            let mut buf = buf(payload);
            let _ = sa.seal(&mut buf, next_header).unwrap();
            buf.to_vec()
        })
        .collect()
}

#[test]
fn port_4500_carries_ike_esp_and_keepalives() {
    let (mut a, mut b) = pair(gcm());
    let packet = udp(false, 100);
    let sealed = a.seal(&packet);
    let ike = [&[0, 0, 0, 0][..], b"IKE"].concat();
    let out =
        b.receive(from_a(), Ecn::NotEct, &[ike.clone(), vec![0xff], sealed, vec![1, 2], vec![]]);
    assert_eq!(out.ike.len(), 1);
    assert_eq!((&*out.ike[0].buf, out.ike[0].path), (&b"IKE"[..], from_a()));
    assert_eq!(out.deliver.len(), 1);
    assert_eq!(out.deliver[0], packet);
    assert_eq!(b.datapath.stats().keepalives, 1);
    assert_eq!(b.dropped(), [(DropReason::NattMalformed, 1)]);

    // Protocol 50 knows no marker: a SPI of zero is wrong there.
    let raw = [&ike[..], &[0xff]].map(|payload| ip_between("192.0.2.1", "192.0.2.2", 50, payload));
    let out = b.receive(path(2, 1, Encap::Plain, false), Ecn::NotEct, &raw);
    assert_eq!((out.ike.len(), out.deliver.len()), (0, 0));
    assert_eq!(b.dropped(), [(DropReason::EspMalformed, 2), (DropReason::NattMalformed, 1)]);
}

#[test]
fn esp_in_udp_and_without_both_pass() {
    let (mut a, mut b) = pair(gcm());
    let packet = udp(false, 100);
    for encap in [Encap::Udp, Encap::Plain] {
        let mut sealed = a.seal(&packet);
        if encap == Encap::Plain {
            sealed = ip_between("192.0.2.1", "192.0.2.2", 50, &sealed);
        }
        let out = b.receive(path(2, 1, encap, false), Ecn::NotEct, &[sealed]);
        assert_eq!(out.deliver[0], packet);
        assert_eq!(count(&out.notices, |n| matches!(n, Notice::PeerMoved { .. })), 0);
    }
}

#[test]
fn a_replayed_packet_is_dropped_and_changes_nothing() {
    let (mut a, mut b) = pair(gcm());
    let packets = vec![udp(false, 100); 70];
    let sealed = payloads(&a.send(&packets).sealed);
    assert_eq!(b.receive(from_a(), Ecn::NotEct, &sealed[1..69]).deliver.len(), 68);
    let out = b.receive(
        from_a(),
        Ecn::NotEct,
        &[sealed[68].clone(), sealed[0].clone(), sealed[69].clone()],
    );
    assert_eq!(out.deliver.len(), 1);
    assert_eq!(b.dropped(), [(DropReason::ReplayOld, 1), (DropReason::ReplayDuplicate, 1)]);
    let stats = b.datapath.stats();
    assert_eq!(stats.inbound[0].drops, b.dropped());
    assert_eq!((stats.inbound[0].packets, stats.inbound[0].bytes), (69, 6900));
}

#[test]
fn a_forged_packet_moves_nothing() {
    for suite in suites() {
        let (mut a, mut b) = pair(suite);
        let packet = udp(false, 100);
        let first = a.seal(&packet);
        let genuine = a.seal(&packet);
        assert!(b.open(&first).is_some());
        let before = b.datapath.stats().inbound[0].sequence;
        // Each byte after the SPI, the ICV's and the sequence number's among them.
        for at in 4..genuine.len() {
            let mut forged = genuine.clone();
            forged[at] ^= 0x40;
            let out = b.receive(path(2, 7, Encap::Udp, false), Ecn::NotEct, &[forged]);
            assert!(out.deliver.is_empty(), "{suite}: byte {at}");
            assert!(out.notices.is_empty(), "{suite}: byte {at}");
        }
        assert_eq!(b.datapath.stats().inbound[0].sequence, before, "{suite}");
        assert_eq!(b.open(&genuine), Some(packet), "{suite}: the window has not moved");
    }
}

#[test]
fn unknown_spis_are_reported_at_a_limited_rate() {
    let (mut a, mut b) = pair(gcm());
    let mut sealed = a.seal(&udp(false, 100));
    sealed[2] = 0x77;
    let spi = Spi::new(u32::from_be_bytes(sealed[..4].try_into().unwrap())).unwrap();
    let reported = |notices: &[Notice]| {
        notices
            .iter()
            .all(|n| matches!(n, Notice::NoSa { spi: s, .. } if *s == spi))
            .then_some(notices.len())
    };
    let many = vec![sealed.clone(); 100];
    assert_eq!(reported(&b.receive(from_a(), Ecn::NotEct, &many).notices), Some(1));
    b.pass(500);
    assert_eq!(reported(&b.receive(from_a(), Ecn::NotEct, &many).notices), Some(0));
    b.pass(500);
    assert_eq!(reported(&b.receive(from_a(), Ecn::NotEct, &many).notices), Some(1));
    // From many senders, all forged perhaps.
    let mut total = 0;
    for last in 3..=250 {
        let out = b.receive(path(2, last, Encap::Udp, false), Ecn::NotEct, &many[..1]);
        total += reported(&out.notices).unwrap();
    }
    assert_eq!(total, 9, "ten in a second");
    assert_eq!(b.dropped(), [(DropReason::NoInboundSa, 300 + 248)]);
}

#[test]
fn inner_packets_must_match_the_selectors_of_their_sa() {
    let (_, mut b) = pair(gcm());
    let outside = [
        ip_between("10.3.0.1", "10.2.0.1", 99, &[]),
        ip_between("10.1.0.1", "10.3.0.1", 99, &[]),
        ip_between("10.2.0.1", "10.1.0.1", 99, &[]),
        ip_between("127.0.0.1", "10.2.0.1", 99, &[]),
    ];
    let six: Vec<_> = outside.iter().chain(&outside[..2]).collect();
    let six: Vec<_> = six.iter().map(|packet| (packet.as_slice(), NextHeader::IPV4)).collect();
    let forged = forge(&six);
    // RFC 4301 §5.2: what the peer is to be told of, which is the first, and no other for a while.
    let mut told = |forged: &[Vec<u8>]| {
        let out = b.receive(from_a(), Ecn::NotEct, forged);
        assert!(out.deliver.is_empty());
        let told = out.notices.iter().filter_map(|notice| match notice {
            Notice::Mismatch { spi, start } => Some((*spi, start.clone())),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        b.pass(5000);
        told
    };
    let spi = params(gcm(), true, 0).0.spi;
    assert_eq!(told(&forged[..4]), [(spi, outside[0].clone())]);
    assert_eq!(told(&forged[4..5]), []);
    assert_eq!(told(&forged[5..]), [(spi, outside[1].clone())]);
    assert_eq!(b.dropped(), [(DropReason::InboundSelectorMismatch, 6)]);
}

#[test]
fn what_is_inside_must_be_what_the_next_header_says() {
    let (_, mut b) = pair(gcm());
    let (v4, v6) = (udp(false, 100), udp(true, 100));
    let forged = forge(&[
        (&v4, NextHeader::IPV6),
        (&v6, NextHeader::IPV4),
        (&v4[..99], NextHeader::IPV4),
        (&v4[..10], NextHeader::IPV4),
        (&[], NextHeader::IPV4),
        (&v4, NextHeader::UDP),
        (&v4, NextHeader(0)),
        (&[], NextHeader::NONE),
        (&[1, 2, 3], NextHeader::NONE),
    ]);
    let out = b.receive(from_a(), Ecn::NotEct, &forged);
    assert!(out.deliver.is_empty());
    assert_eq!(
        b.dropped(),
        [(DropReason::Dummy, 2), (DropReason::BadNextHeader, 2), (DropReason::InboundMalformed, 5)]
    );
    let stats = b.datapath.stats();
    assert_eq!(stats.inbound[0].drops, b.dropped());
    assert_eq!(stats.policies[0].inbound_packets, 0);
    assert!(DropReason::Dummy.is_quiet());
}

#[test]
fn padding_after_the_inner_packet_is_taken_away() {
    for (v6, next_header) in [(false, NextHeader::IPV4), (true, NextHeader::IPV6)] {
        let (_, mut b) = pair(gcm());
        let packet = udp(v6, 100);
        let padded = [&packet[..], &[0; 500]].concat();
        assert_eq!(b.open(&forge(&[(&padded, next_header)])[0]), Some(packet));
    }
}

#[test]
fn congestion_on_the_way_reaches_the_inner_packet() {
    for v6 in [false, true] {
        for (inner, outer, delivered) in [
            (0, Ecn::NotEct, Some(0)),
            (0, Ecn::Ect0, Some(0)),
            (0, Ecn::Ce, None),
            (1, Ecn::Ect0, Some(1)),
            (1, Ecn::Ce, Some(3)),
            (2, Ecn::NotEct, Some(2)),
            (2, Ecn::Ect1, Some(1)),
            (2, Ecn::Ce, Some(3)),
            (3, Ecn::NotEct, Some(3)),
        ] {
            let (mut a, mut b) = pair(gcm());
            let packet = with_traffic_class(udp(v6, 100), 0xb8 | inner);
            let sealed = a.seal(&packet);
            let out = b.receive(from_a(), outer, &[sealed]);
            let got = out.deliver.first().map(<[u8]>::to_vec);
            let expected = delivered.map(|ecn| with_traffic_class(packet, 0xb8 | ecn));
            assert_eq!(got, expected, "IPv6 {v6}, inner {inner}, outer {outer:?}");
            let dropped =
                if delivered.is_none() { vec![(DropReason::EcnCongestion, 1)] } else { vec![] };
            assert_eq!(b.dropped(), dropped);
        }
    }
}

#[test]
fn the_peer_is_known_to_live_at_most_once_an_interval() {
    let (mut a, mut b) = pair(gcm());
    let spi = params(gcm(), true, 0).1.spi;
    let alive =
        |notices: &[Notice]| count(notices, |n| matches!(n, Notice::Alive { spi: s } if *s == spi));
    let mut told = Vec::new();
    for _ in 0..6 {
        let sealed = payloads(&a.send(&vec![udp(false, 100); 3]).sealed);
        told.push(alive(&b.receive(from_a(), Ecn::NotEct, &sealed).notices));
        b.pass(400);
    }
    assert_eq!(told, [1, 0, 0, 1, 0, 0]);
}

#[test]
fn a_dummy_packet_shows_that_the_peer_lives() {
    let (_, mut b) = pair(gcm());
    let out = b.receive(from_a(), Ecn::NotEct, &forge(&[(&[], NextHeader::NONE)]));
    assert_eq!(count(&out.notices, |n| matches!(n, Notice::Alive { .. })), 1);
}

#[test]
fn a_peer_that_moved_is_reported_by_its_newest_packet_alone() {
    let (mut a, mut b) = pair(gcm());
    let sealed = payloads(&a.send(&vec![udp(false, 100); 5]).sealed);
    let spi = params(gcm(), true, 0).1.spi;
    let moved = |notices: &[Notice]| -> Vec<SocketAddr> {
        notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::PeerMoved { spi: s, path } => {
                    assert_eq!(*s, spi);
                    Some(path.remote)
                }
                _ => None,
            })
            .collect()
    };
    let elsewhere = path(2, 9, Encap::Udp, false);
    assert_eq!(moved(&b.receive(from_a(), Ecn::NotEct, &sealed[1..2]).notices), []);
    // Overtaken by one that came from the known address; and a replay of that.
    let old = b.receive(elsewhere, Ecn::NotEct, &[sealed[0].clone(), sealed[1].clone()]);
    assert_eq!((moved(&old.notices), old.deliver.len()), (vec![], 1));
    assert_eq!(
        moved(&b.receive(elsewhere, Ecn::NotEct, &sealed[2..4]).notices),
        [elsewhere.remote]
    );
    b.apply(SadUpdate::MovePath { spi, path: elsewhere });
    b.pass(1000);
    assert_eq!(moved(&b.receive(elsewhere, Ecn::NotEct, &sealed[4..]).notices), []);
    // Another port is another place, if the packet is in UDP.
    let sealed = payloads(&a.send(&vec![udp(false, 100); 2]).sealed);
    let mut port = elsewhere;
    port.remote.set_port(7777);
    let plain = Path { encap: Encap::Plain, ..port };
    let raw = ip_between("192.0.2.9", "192.0.2.2", 50, &sealed[0]);
    assert_eq!(moved(&b.receive(plain, Ecn::NotEct, &[raw]).notices), []);
    assert_eq!(moved(&b.receive(port, Ecn::NotEct, &sealed[1..]).notices), [port.remote]);
}

#[test]
fn without_a_replay_window_no_address_is_followed() {
    let (mut a, mut b) = pair_with(gcm(), |params| params.replay_window = 0);
    let sealed = a.seal(&udp(false, 100));
    let out = b.receive(path(2, 9, Encap::Udp, false), Ecn::NotEct, &[sealed.clone(), sealed]);
    assert_eq!(out.deliver.len(), 2, "nothing is a replay");
    assert_eq!(count(&out.notices, |n| matches!(n, Notice::PeerMoved { .. })), 0);
}

#[test]
fn a_batch_delivers_in_order_what_is_good_among_what_is_not() {
    let (mut a, mut b) = pair(gcm());
    let packets: Vec<_> = (100..120).map(|len| udp(false, len)).collect();
    let mut sealed = payloads(&a.send(&packets).sealed);
    for at in (0..20).step_by(3) {
        sealed[at].truncate(11);
    }
    let out = b.receive(from_a(), Ecn::NotEct, &sealed);
    let lengths: Vec<_> = out.deliver.iter().map(|buf| buf.len()).collect();
    let expected: Vec<_> = (0..20).filter(|at| at % 3 != 0).map(|at| 100 + at).collect();
    assert_eq!(lengths, expected);
    assert_eq!(b.dropped(), [(DropReason::EspMalformed, 7)]);
}
