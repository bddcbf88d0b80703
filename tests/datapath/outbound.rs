//! From the TUN to the socket.

use ipsecd::datapath::{DropReason, Options, tunnel_mtu};
use ipsecd::ipsec::esp::EspLayout;
use ipsecd::ipsec::sad::SadError;
use ipsecd::ipsec::suite::EspSuite;
use ipsecd::ipsec::{
    Action, DfPolicy, DscpPolicy, Encap, Flow, Lifetime, Notice, PolicyId, SaParams, SadUpdate,
    Spd, SpdEntry,
};

use ipsecd::wire::ike::numbers::EncrId;

use crate::support::*;

fn flow(src: &str, dst: &str, ports: Option<(u16, u16)>) -> Flow {
    Flow { src: src.parse().unwrap(), dst: dst.parse().unwrap(), protocol: 17, ports }
}

#[test]
fn what_goes_in_comes_out_for_every_suite_and_length() {
    for suite in suites() {
        let (mut a, mut b) = pair(suite);
        for v6 in [false, true] {
            for len in (48..48 + 36).chain([576, 1280, 1400]) {
                let packet = udp(v6, len);
                let sealed = a.seal(&packet);
                if suite.encr.id != EncrId::ENCR_NULL
                    && suite.encr.id != EncrId::ENCR_NULL_AUTH_AES_GMAC
                {
                    assert!(!sealed.windows(8).any(|window| window == &packet[..8]), "{suite}");
                }
                assert_eq!(b.open(&sealed), Some(packet), "{suite}, {len} bytes");
            }
        }
        assert_eq!((a.dropped(), b.dropped()), (vec![], vec![]), "{suite}");
    }
}

#[test]
fn the_outer_header_follows_the_inner_one() {
    let cases = [
        // Inner: version, traffic class, DF; policies; outer: class, DF.
        (false, 0xb9, true, DscpPolicy::Copy, DfPolicy::Copy, 0xb9, true),
        (false, 0xb9, false, DscpPolicy::Copy, DfPolicy::Copy, 0xb9, false),
        (false, 0xb9, false, DscpPolicy::Set(10), DfPolicy::Set, 41, true),
        (false, 0x03, true, DscpPolicy::Set(0), DfPolicy::Clear, 0x03, false),
        (true, 0x2e, true, DscpPolicy::Copy, DfPolicy::Copy, 0x2e, true),
        (true, 0x2e, true, DscpPolicy::Set(63), DfPolicy::Clear, 0xfe, false),
    ];
    for (v6, class, inner_df, dscp, df, outer_class, outer_df) in cases {
        let (mut a, _) = pair_with(gcm(), |params| (params.dscp, params.df) = (dscp, df));
        let packet = with_traffic_class(udp(v6, 100), class);
        let packet = if inner_df { packet } else { without_df(packet) };
        let out = a.send(&[packet]);
        assert_eq!(traffic_class(&out.sealed[0]), outer_class);
        assert_eq!(dont_fragment(&out.sealed[0]), outer_df);
        assert_eq!(out.sealed[0].path, path(1, 2, Encap::Udp, false));
    }
}

#[test]
fn what_no_policy_matches_is_dropped() {
    let (mut a, _) = pair(gcm());
    let out = a.send(&[
        ip_between("10.1.0.1", "10.3.0.1", 99, &[]),
        ip_between("10.2.0.1", "10.1.0.1", 99, &[]),
    ]);
    assert!(out.sealed.is_empty() && out.bypass.is_empty() && out.notices.is_empty());
    assert_eq!(a.dropped(), [(DropReason::NoPolicy, 2)]);
}

#[test]
fn bypass_and_discard_do_as_they_say() {
    let entry = |peer, action| SpdEntry {
        ts_local: [prefix("0.0.0.0/0")].into(),
        ts_peer: [prefix(peer)].into(),
        action,
        name: None,
    };
    let spd =
        Spd::new(vec![entry("10.2.9.0/24", Action::Discard), entry("10.2.0.0/16", Action::Bypass)]);
    let mut gateway = Gateway::new(spd, Options::default());
    let passes = ip_between("10.1.0.1", "10.2.0.1", 99, &[1, 2, 3]);
    let out = gateway.send(&[passes.clone(), ip_between("10.1.0.1", "10.2.9.1", 99, &[])]);
    assert_eq!(out.bypass.len(), 1);
    assert_eq!(*out.bypass[0], passes);
    assert_eq!(gateway.dropped(), [(DropReason::PolicyDiscard, 1)]);
    assert_eq!(gateway.datapath.stats().bypassed, 1);
}

#[test]
fn a_policy_without_sa_asks_for_one_once_a_flow_and_second() {
    let mut a = Gateway::new(spd(true), Options::default());
    let packets = [udp(false, 100), udp(false, 200), udp(true, 100)];
    let acquired = |notices: &[Notice]| -> Vec<Flow> {
        notices
            .iter()
            .map(|notice| match notice {
                Notice::Acquire { policy: POLICY, flow } => *flow,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let ports = Some((1000, 2000));
    let both = [flow("10.1.0.1", "10.2.0.1", ports), flow("fd01::1", "fd02::1", ports)];
    let out = a.send(&packets);
    assert_eq!(acquired(&out.notices), both);
    let waiting: Vec<_> =
        out.waiting.iter().map(|waiting| (waiting.policy, &*waiting.buf)).collect();
    assert_eq!(waiting, packets.iter().map(|packet| (POLICY, &packet[..])).collect::<Vec<_>>());
    a.pass(999);
    assert_eq!(acquired(&a.send(&packets).notices), []);
    a.pass(1);
    assert_eq!(acquired(&a.send(&packets).notices), both);
    assert_eq!(a.dropped(), []);
}

#[test]
fn many_flows_without_sa_do_not_flood() {
    let mut a = Gateway::new(spd(true), Options::default());
    let packets: Vec<_> = (0..=255)
        .flat_map(|c| {
            (0..=9).map(move |d| ip_between(&format!("10.1.{c}.{d}"), "10.2.0.1", 99, &[]))
        })
        .collect();
    let asked = a.send(&packets).notices.len();
    assert!((1..=50).contains(&asked), "{asked}");
}

#[test]
fn a_packet_outside_the_narrowed_selectors_takes_another_sa_or_none() {
    let (mut a, mut b) = pair_with(gcm(), |params| narrow(params, "10.2.0.0/24"));
    install(&mut a, &mut b, gcm(), 1, |params| narrow(params, "10.2.1.0/24"));
    let out = a.send(
        &["10.2.0.1", "10.2.1.1", "10.2.2.1"].map(|dst| ip_between("10.1.0.1", dst, 99, &[])),
    );
    let spis: Vec<_> = out.sealed.iter().map(|sealed| sealed.buf[3]).collect();
    assert_eq!(spis, [1, 3], "each by its own SA");
    assert!(out.notices.is_empty(), "asking again would be answered in the same way");
    assert_eq!(a.dropped(), [(DropReason::OutboundSelectorMismatch, 1)]);
}

/// Both ends: B's side has only this prefix.
fn narrow(params: &mut SaParams, side_b: &str) {
    let at_a = &*params.peer == "b";
    let ts = if at_a { &mut params.ts_peer } else { &mut params.ts_local };
    *ts = [prefix(side_b)].into();
}

#[test]
fn the_newest_sa_sends_and_old_ones_go_on_receiving() {
    let (mut a, mut b) = pair(gcm());
    let packet = udp(false, 100);
    let old = a.seal(&packet);
    install(&mut a, &mut b, gcm(), 1, |_| {});
    let new = a.seal(&packet);
    assert_eq!([old[3], new[3]], [1, 3]);
    assert_eq!(b.open(&new), Some(packet.clone()));
    assert_eq!(b.open(&old), Some(packet.clone()), "sent before the rekey, arrived after it");
    let (at_a, at_b) = params(gcm(), true, 0);
    a.apply(SadUpdate::RemoveOutbound { policy: POLICY, spi: at_a.spi, other_spi: at_a.other_spi });
    b.apply(SadUpdate::RemoveInbound(at_b.spi));
    let newer = a.seal(&packet);
    assert_eq!(b.open(&newer), Some(packet));
    assert_eq!(b.open(&old), None);
    assert_eq!(b.dropped(), [(DropReason::NoInboundSa, 1)]);
    // The policy's counters outlive the SA.
    let stats = b.datapath.stats();
    assert_eq!(stats.inbound.len(), 1);
    assert_eq!((stats.policies[0].inbound_packets, stats.policies[0].inbound_bytes), (3, 300));
    assert_eq!(
        (stats.inbound[0].packets, stats.inbound[0].bytes, stats.inbound[0].sequence),
        (2, 200, 2)
    );
}

#[test]
fn removing_the_last_outbound_sa_asks_for_another() {
    let (mut a, _) = pair(gcm());
    let at_a = params(gcm(), true, 0).0;
    let (spi, other_spi) = (at_a.spi, at_a.other_spi);
    a.apply(SadUpdate::RemoveOutbound { policy: POLICY, spi, other_spi });
    assert_eq!(a.send(&[udp(false, 100)]).notices.len(), 1);
}

#[test]
fn updates_that_name_nothing_change_nothing() {
    let (mut a, mut b) = pair(gcm());
    let (spi, other_spi) = (params(gcm(), true, 9).0.spi, params(gcm(), true, 0).0.other_spi);
    for update in [
        SadUpdate::RemoveInbound(spi),
        SadUpdate::RemoveOutbound { policy: POLICY, spi, other_spi },
        SadUpdate::RemoveOutbound { policy: PolicyId(77), spi, other_spi },
        SadUpdate::MovePath { spi, path: path(5, 6, Encap::Plain, true) },
    ] {
        a.apply(update);
    }
    let sealed = a.seal(&udp(false, 100));
    assert!(b.open(&sealed).is_some());
}

#[test]
fn an_sa_that_cannot_be_is_refused() {
    let (a, b) = pair(gcm());
    let (outbound, inbound) = params(gcm(), true, 0);
    let spi = outbound.spi;
    let duplicate = Err(SadError::DuplicateSpi(spi));
    assert_eq!(
        a.datapath.apply(&SadUpdate::AddOutbound(Box::new(outbound.clone()))).map(drop),
        duplicate
    );
    assert_eq!(
        b.datapath.apply(&SadUpdate::AddInbound(Box::new(inbound.clone()))).map(drop),
        duplicate
    );
    let key_len = gcm().encr.keymat_len();
    for wrong in suites().into_iter().filter(|suite| suite.encr.keymat_len() != key_len) {
        let params = SaParams { suite: wrong.into(), ..inbound.clone() };
        let refused = Gateway::new(spd(true), Options::default())
            .datapath
            .apply(&SadUpdate::AddInbound(Box::new(params)));
        assert_eq!(
            refused.map(drop),
            Err(SadError::UnsupportedSuite(spi)),
            "a key of another length: {wrong}"
        );
    }
}

#[test]
fn soft_and_hard_limits_are_told_once_and_the_hard_one_holds() {
    let lifetime = Lifetime { soft_packets: Some(3), hard_packets: Some(5), ..Lifetime::default() };
    let (mut a, mut b) = pair_with(gcm(), |params| params.lifetime = lifetime);
    let inbound_spi = params(gcm(), false, 0).0.spi;
    let out = a.send(&vec![udp(false, 100); 8]);
    assert_eq!(out.sealed.len(), 5);
    let told: Vec<_> = out
        .notices
        .iter()
        .map(|notice| match notice {
            Notice::Expire { spi, hard } if *spi == inbound_spi => *hard,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [false, true]);
    let sealed = payloads(&out.sealed);
    assert_eq!(a.dropped(), [(DropReason::LifetimeEnded, 3)]);

    // The other end counts for itself; the pair is named by its inbound SPI there.
    let out = b.receive(path(2, 1, Encap::Udp, false), ipsecd::datapath::Ecn::NotEct, &sealed);
    assert_eq!(out.deliver.len(), 5);
    let spi = params(gcm(), true, 0).1.spi;
    assert_eq!(
        count(&out.notices, |n| matches!(n, Notice::Expire { spi: s, hard: false } if *s == spi)),
        1
    );
}

#[test]
fn path_moves_with_its_pair() {
    let (mut a, mut b) = pair(gcm());
    let new = path(1, 9, Encap::Plain, true);
    a.apply(SadUpdate::MovePath { spi: params(gcm(), false, 0).1.spi, path: new });
    let packet = udp(false, 100);
    let out = a.send(std::slice::from_ref(&packet));
    assert_eq!(out.sealed[0].path, new);
    let sealed = out.sealed[0].buf.to_vec();
    assert_eq!(b.open(&sealed), Some(packet), "the sequence goes on");
    let mtu = tunnel_mtu(1500, gcm(), Encap::Plain, true);
    assert_eq!(a.datapath.tunnel_mtu(), mtu, "the MTU is that of the new path");
}

#[test]
fn too_big_is_answered_with_what_fits() {
    let (mut a, _) = pair(gcm());
    let mtu = a.datapath.tunnel_mtu().unwrap();
    for v6 in [false, true] {
        let fits = udp(v6, mtu);
        let big = udp(v6, mtu + 1);
        let out = a.send(&[fits, big.clone()]);
        assert_eq!(out.sealed.len(), 1);
        let [reply] = out.replies.as_slice() else { panic!("one reply") };
        if v6 {
            assert_eq!(reply[6], 58);
            assert_eq!(reply[8..24], big[24..40], "from where the packet went");
            assert_eq!(reply[24..40], big[8..24], "to where it came from");
            assert_eq!(reply[40..42], [2, 0]);
            assert_eq!(reply[44..48], u32::try_from(mtu).unwrap().to_be_bytes());
            assert_eq!(reply.len(), 1280);
            assert_eq!(reply[48..], big[..1232]);
            let len = u32::try_from(reply.len() - 40).unwrap().to_be_bytes();
            assert_eq!(checksum(&[&reply[8..40], &len, &[0, 0, 0, 58], &reply[40..]]), 0);
        } else {
            assert_eq!(reply[9], 1);
            assert_eq!(reply[12..16], big[16..20]);
            assert_eq!(reply[16..20], big[12..16]);
            assert_eq!(reply[20..22], [3, 4]);
            assert_eq!(reply[26..28], u16::try_from(mtu).unwrap().to_be_bytes());
            assert_eq!(reply.len(), 576);
            assert_eq!(reply[28..], big[..548]);
            assert_eq!(checksum(&[&reply[..20]]), 0);
            assert_eq!(checksum(&[&reply[20..]]), 0);
        }
    }
    assert_eq!(a.dropped(), [(DropReason::TooBig, 2)]);
    assert_eq!(a.datapath.stats().outbound[0].drops, [(DropReason::TooBig, 2)]);
}

#[test]
fn no_error_is_sent_about_an_error_or_to_nobody() {
    let any = Spd::new(vec![SpdEntry {
        ts_local: [prefix("0.0.0.0/0"), prefix("::/0")].into(),
        ts_peer: [prefix("0.0.0.0/0"), prefix("::/0")].into(),
        action: Action::Protect(POLICY),
        name: None,
    }]);
    let mut a = Gateway::new(any, Options::default());
    let (mut outbound, _) = params(gcm(), true, 0);
    outbound.ts_local = [prefix("0.0.0.0/0"), prefix("::/0")].into();
    outbound.ts_peer = outbound.ts_local.clone();
    a.apply(SadUpdate::AddOutbound(Box::new(outbound)));
    let big = vec![0; 2000];
    let with_type = |kind: u8| [&[kind][..], &big].concat();
    let mut later_fragment = ip(false, 17, &big);
    later_fragment[6..8].copy_from_slice(&[0x40, 100]);
    let silent = [
        ip(false, 1, &with_type(3)),
        ip(false, 1, &with_type(11)),
        ip(true, 58, &with_type(1)),
        ip(true, 58, &with_type(137)),
        later_fragment,
        ip_between("0.0.0.0", "10.2.0.1", 99, &big),
        ip_between("224.0.0.1", "10.2.0.1", 99, &big),
        ip_between("255.255.255.255", "10.2.0.1", 99, &big),
        ip_between("::", "fd02::1", 99, &big),
        ip_between("ff02::1", "fd02::1", 99, &big),
        ip_between("10.1.0.1", "224.0.0.9", 99, &big),
        ip_between("10.1.0.1", "255.255.255.255", 99, &big),
        ip_between("fd01::1", "ff05::9", 99, &big),
    ];
    let out = a.send(&silent);
    assert_eq!((out.sealed.len(), out.replies.len()), (0, 0));
    assert_eq!(a.dropped(), [(DropReason::TooBig, silent.len() as u64)]);
    let answered = [ip(false, 1, &with_type(8)), ip(true, 58, &with_type(128))];
    assert_eq!(a.send(&answered).replies.len(), 2, "an echo request is no error");
}

#[test]
fn errors_are_limited() {
    let (mut a, _) = pair(gcm());
    let replies = a.send(&vec![udp(false, 2000); 3000]).replies.len();
    assert_eq!(replies, 1000);
    a.pass(1000);
    assert_eq!(a.send(&[udp(false, 2000)]).replies.len(), 1);
}

#[test]
fn the_source_of_errors_can_be_set() {
    let options = Options {
        icmp_source_v4: Some("10.1.0.254".parse().unwrap()),
        icmp_source_v6: Some("fd01::fe".parse().unwrap()),
        ..Options::default()
    };
    let (mut a, _) = pair(gcm());
    a.datapath = a.datapath.with_options(options);
    let out = a.send(&[udp(false, 2000), udp(true, 2000)]);
    assert_eq!(out.replies[0][12..16], [10, 1, 0, 254]);
    assert_eq!(out.replies[1][23], 0xfe);
}

#[test]
fn without_df_a_long_packet_is_fragmented_inside() {
    for suite in [gcm(), suites()[6]] {
        let (mut a, mut b) = pair(suite);
        let mtu = a.datapath.tunnel_mtu().unwrap();
        let packet = without_df(udp(false, 4000));
        let out = a.send(std::slice::from_ref(&packet));
        assert_eq!(out.sealed.len(), 3);
        assert!(
            out.sealed.iter().all(|sealed| !dont_fragment(sealed)),
            "as the inner packet has it"
        );
        let mut payload = Vec::<u8>::new();
        for sealed in payloads(&out.sealed) {
            let fragment = b.open(&sealed).unwrap();
            assert!(fragment.len() <= mtu);
            assert_eq!(checksum(&[&fragment[..20]]), 0);
            let field = u16::from_be_bytes([fragment[6], fragment[7]]);
            assert_eq!(usize::from(field & 0x1fff) * 8, payload.len());
            payload.extend(&fragment[20..]);
            assert_eq!(field & 0x2000 != 0, payload.len() < 3980);
        }
        assert_eq!(payload, packet[20..]);
        assert_eq!((a.dropped(), b.dropped()), (vec![], vec![]));
    }
}

#[test]
fn selectors_with_ports_keep_a_long_packet_whole() {
    let mut ports = prefix("10.2.0.0/16");
    (ports.protocol, ports.start_port, ports.end_port) = (17, 2000, 2000);
    let (mut a, mut b) = pair_with(gcm(), |params| {
        let ts = if &*params.peer == "b" { &mut params.ts_peer } else { &mut params.ts_local };
        *ts = [ports].into();
    });
    let packet = without_df(udp(false, 4000));
    let out = a.send(std::slice::from_ref(&packet));
    assert_eq!(out.sealed.len(), 1);
    assert!(!dont_fragment(&out.sealed[0]), "the outer packet is to be fragmented");
    let sealed = out.sealed[0].buf.to_vec();
    assert_eq!(b.open(&sealed), Some(packet));
}

#[test]
fn ipv6_packets_of_1280_bytes_pass_on_any_path() {
    let (mut a, mut b) = pair(gcm());
    a.datapath = a.datapath.with_path_mtu("192.0.2.2".parse().unwrap(), Some(1280));
    assert!(a.datapath.tunnel_mtu().unwrap() < 1280);
    let packet = udp(true, 1280);
    let out = a.send(&[packet.clone(), udp(true, 1281), udp(true, 1200)]);
    assert_eq!(out.sealed.len(), 2);
    assert!(!dont_fragment(&out.sealed[0]), "longer than the path takes: fragmented outside");
    assert!(dont_fragment(&out.sealed[1]));
    assert_eq!(out.replies[0][44..48], 1280_u32.to_be_bytes(), "less is never asked for");
    let sealed = out.sealed[0].buf.to_vec();
    assert_eq!(b.open(&sealed), Some(packet));
}

#[test]
fn a_known_path_mtu_holds_for_its_peer_alone() {
    let (mut a, _) = pair(gcm());
    let mtu = |path_mtu| tunnel_mtu(path_mtu, gcm(), Encap::Udp, false);
    a.datapath = a.datapath.with_path_mtu("192.0.2.77".parse().unwrap(), Some(1000));
    assert_eq!(a.datapath.tunnel_mtu(), mtu(1500));
    a.datapath = a.datapath.with_path_mtu("192.0.2.2".parse().unwrap(), Some(1400));
    assert_eq!(a.datapath.tunnel_mtu(), mtu(1400));
    a.datapath = a.datapath.with_options(Options { path_mtu: 9000, ..Options::default() });
    assert_eq!(a.datapath.tunnel_mtu(), mtu(1400));
    a.datapath = a.datapath.with_path_mtu("192.0.2.2".parse().unwrap(), None);
    assert_eq!(a.datapath.tunnel_mtu(), mtu(9000));
}

/// A SYN with an MSS of 1460.
fn syn(v6: bool) -> Vec<u8> {
    let mut tcp =
        vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0];
    tcp.extend([2, 4, 0x05, 0xb4]);
    ip(v6, 6, &tcp)
}

fn mss(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[packet.len() - 2], packet[packet.len() - 1]])
}

#[test]
fn mss_is_clamped_in_both_directions() {
    for v6 in [false, true] {
        let (mut a, mut b) = pair(gcm());
        let mtu = u16::try_from(a.datapath.tunnel_mtu().unwrap()).unwrap();
        let expected = mtu - if v6 { 60 } else { 40 };
        let sealed = a.seal(&syn(v6));
        assert_eq!(mss(&b.open(&sealed).unwrap()), expected);

        let off = Options { clamp_mss: false, ..Options::default() };
        a.datapath = a.datapath.with_options(off.clone());
        let sealed = a.seal(&syn(v6));
        assert_eq!(mss(&b.open(&sealed).unwrap()), expected, "by the receiver");
        b.datapath = b.datapath.with_options(off);
        let sealed = a.seal(&syn(v6));
        assert_eq!(mss(&b.open(&sealed).unwrap()), 1460, "by nobody");
    }
}

#[test]
fn what_follows_the_packet_in_its_buffer_is_not_sent() {
    let (mut a, mut b) = pair(gcm());
    let packet = udp(false, 100);
    let mut padded = packet.clone();
    padded.extend([0xee; 40]);
    let sealed = a.seal(&padded);
    assert_eq!(b.open(&sealed), Some(packet));
}

#[test]
fn packets_leave_in_the_order_of_their_numbers() {
    let (mut a, _) = pair(gcm());
    let out = a.send(&vec![without_df(udp(false, 3000)); 10]);
    let numbers: Vec<_> = out
        .sealed
        .iter()
        .map(|sealed| u32::from_be_bytes(sealed.buf[4..8].try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
}

#[test]
fn every_packet_of_a_suite_has_another_iv() {
    for suite in suites() {
        let (mut a, _) = pair(suite);
        let out = a.send(&vec![udp(false, 100); 50]);
        let iv_len = EspLayout::of(suite).unwrap().iv_len;
        if iv_len == 0 {
            continue;
        }
        let mut ivs: Vec<_> =
            out.sealed.iter().map(|sealed| sealed.buf[8..8 + iv_len].to_vec()).collect();
        ivs.sort();
        ivs.dedup();
        assert_eq!(ivs.len(), 50, "{suite}");
    }
}

#[test]
fn a_suite_the_datapath_does_not_have_has_no_mtu() {
    let suite =
        EspSuite { encr: ipsecd::ipsec::suite::Encr { key_bits: Some(64), ..gcm().encr }, ..gcm() };
    assert_eq!(tunnel_mtu(1500, suite, Encap::Udp, false), None);
    assert_eq!(tunnel_mtu(40, gcm(), Encap::Udp, false), None, "no room at all");
}
