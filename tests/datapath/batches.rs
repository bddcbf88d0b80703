//! What a batch becomes is what its packets become one by one: what is remembered from packet to packet of a batch (the flow,
//! its SA, sequence numbers taken together) changes nothing.

use ipsecd::datapath::{DropReason, Ecn, Form, Received};
use ipsecd::ipsec::{Encap, EspSuite, Notice, OutboundSa};
use ipsecd::wire::ike::numbers::EsnId;
use ipsecd::wire::ip::NextHeader;
use proptest::prelude::*;

use crate::support::*;

/// Packets of few flows, most of them plain; and then fragments, options, SYNs, long ones, some with a byte changed or cut.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let protocol = prop::sample::select(vec![17_u8, 17, 17, 6, 6, 1, 58, 47, 44, 0]);
    let payload =
        (0..3_u8, 0..3_u8, 8..60_usize, any::<u8>()).prop_map(|(port, flags, len, byte)| {
            let mut payload = vec![byte; len.max(8)];
            payload[..8].copy_from_slice(&[3, port, 7, 0xd0, 0, 0, 0, 0]);
            if let Some(header) = payload.get_mut(12..20) {
                // A SYN with an MSS, if there is room for one.
                header.copy_from_slice(&[
                    6 << 4,
                    [0x10, 0x02, 0x12][usize::from(flags)],
                    1,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]);
            }
            if let Some(option) = payload.get_mut(20..24) {
                option.copy_from_slice(&[2, 4, 0xff, 0xff]);
            }
            payload
        });
    let plain = (any::<bool>(), protocol, payload, any::<u8>()).prop_map(
        |(v6, protocol, payload, class)| with_traffic_class(ip(v6, protocol, &payload), class),
    );
    let long = (any::<bool>(), 100..260_usize).prop_map(|(v6, len)| udp(v6, len));
    let changed = (plain.clone(), 0..60_usize, any::<u8>()).prop_map(|(mut packet, at, byte)| {
        if let Some(place) = packet.get_mut(at) {
            *place = byte;
        }
        packet
    });
    let cut = (plain.clone(), 0..60_usize).prop_map(|(mut packet, len)| {
        packet.truncate(len);
        packet
    });
    let padded = (plain.clone(), 1..9_usize).prop_map(|(mut packet, more)| {
        packet.extend(vec![0; more]);
        packet
    });
    prop_oneof![6 => plain, 1 => long, 2 => changed, 1 => cut, 1 => padded]
}

fn ecn() -> impl Strategy<Value = Ecn> {
    prop::sample::select(vec![Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce])
}

/// A gateway through whose path little fits.
fn sender(tfc: u16) -> Gateway {
    let (mut a, _) = pair_with(gcm(), |params| params.tfc = tfc);
    a.datapath = a.datapath.with_path_mtu("192.0.2.2".parse().unwrap(), Some(200));
    a
}

type Sent = (Vec<(Vec<u8>, Form)>, Vec<Vec<u8>>);

fn send(gateway: &mut Gateway, packets: &[Vec<u8>]) -> Sent {
    let out = gateway.send(packets);
    let sealed = out.sealed.iter().map(|sealed| (sealed.buf.to_vec(), sealed.form)).collect();
    (sealed, out.replies.iter().map(|reply| reply.to_vec()).collect())
}

/// Counters of everything: drops by reason; packets, bytes and sequence number of each SA; both ways of the policy.
type Counted = (Vec<(DropReason, u64)>, Vec<[u64; 3]>, [u64; 4]);

fn counted(gateway: &Gateway) -> Counted {
    let stats = gateway.datapath.stats();
    let sas = stats.outbound.iter().chain(&stats.inbound);
    let sas = sas.map(|sa| [sa.packets, sa.bytes, sa.sequence]).collect();
    let policy = &stats.policies[0];
    let policy = [
        policy.inbound_packets,
        policy.inbound_bytes,
        policy.outbound_packets,
        policy.outbound_bytes,
    ];
    (stats.drops, sas, policy)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_batch_is_sealed_as_its_packets_are_alone(
        packets in proptest::collection::vec(packet(), 1..24),
        tfc in prop::sample::select(vec![0_u16, 0, 0, 120]),
    ) {
        let packets: Vec<_> = packets.into_iter().filter(|packet| !packet.is_empty()).collect();
        let (mut together, mut alone) = (sender(tfc), sender(tfc));
        let batch = send(&mut together, &packets);
        let mut single = Sent::default();
        for packet in &packets {
            let (sealed, replies) = send(&mut alone, core::slice::from_ref(packet));
            single.0.extend(sealed);
            single.1.extend(replies);
        }
        prop_assert_eq!(batch, single, "and so every sequence number is the same");
        prop_assert_eq!(counted(&together), counted(&alone));
    }

    #[test]
    fn a_batch_is_opened_as_its_packets_are_alone(
        packets in proptest::collection::vec((packet(), prop::sample::select(vec![4_u8, 4, 41, 59])), 1..24),
        again in any::<prop::sample::Index>(),
        outer in ecn(),
        short in 1..40_usize,
        esn in any::<bool>(),
    ) {
        let suite = EspSuite { esn: if esn { EsnId::ESN } else { EsnId::NO_ESN }, ..gcm() };
        let sa = OutboundSa::new(params(suite, true, 0).0).unwrap();
        let mut sealed: Vec<_> = packets
            .iter()
            .map(|(packet, next_header)| {
                let mut buf = buf(packet);
                // Most often what it is.
                let next_header = match packet.first() {
                    Some(first) if *next_header != 59 && first >> 4 == 6 => 41,
                    _ => *next_header,
                };
                let _limit = sa.seal(&mut buf, NextHeader(next_header)).unwrap();
                buf.to_vec()
            })
            .collect();
        // A replay, a forgery, and what is too short, before one that is genuine.
        let twice = sealed[again.index(sealed.len())].clone();
        let mut forged = twice.clone();
        *forged.last_mut().unwrap() ^= 1;
        let cut = twice[..short.min(twice.len())].to_vec();
        let last = sealed.len() - 1;
        sealed.splice(last..last, [twice, forged, cut]);
        let ((_, mut together), (_, mut alone)) = (pair(suite), pair(suite));
        let path = path(2, 1, Encap::Udp, false);
        let batch: Vec<_> =
            together.receive(path, outer, &sealed).deliver.iter().map(<[u8]>::to_vec).collect();
        let mut single = Vec::new();
        for packet in &sealed {
            let out = alone.receive(path, outer, core::slice::from_ref(packet));
            single.extend(out.deliver.iter().map(<[u8]>::to_vec));
        }
        prop_assert_eq!(batch, single);
        prop_assert_eq!(counted(&together), counted(&alone));
    }
}

#[test]
fn numbers_that_were_taken_together_and_not_used_are_not_lost() {
    let (mut a, mut b) = pair(gcm());
    // What no policy takes uses no number up, though numbers were taken for the whole batch.
    let nowhere = ip_between("10.1.0.1", "192.0.2.77", 17, &[0; 8]);
    let batch = [vec![udp(false, 100); 3], vec![nowhere; 5]].concat();
    for round in 1..=3_u8 {
        let sealed = payloads(&a.send(&batch).sealed);
        let last = sealed.last().map(|packet| packet[4..8].to_vec());
        assert_eq!(last, Some(vec![0, 0, 0, 3 * round]));
        assert_eq!(a.datapath.stats().outbound[0].sequence, u64::from(3 * round));
        assert_eq!(b.receive(path(2, 1, Encap::Udp, false), Ecn::NotEct, &sealed).deliver.len(), 3);
    }
}

#[test]
fn a_peer_that_moves_within_a_batch_is_reported() {
    let (mut a, mut b) = pair(gcm());
    let sealed = payloads(&a.send(&vec![udp(false, 100); 8]).sealed);
    let elsewhere = path(2, 9, Encap::Udp, false);
    let mut received: Vec<_> = sealed
        .iter()
        .enumerate()
        .map(|(at, packet)| Received {
            path: if at < 5 { path(2, 1, Encap::Udp, false) } else { elsewhere },
            traffic_class: 0,
            buf: buf(packet),
            segment_len: None,
        })
        .collect();
    b.datapath.inbound_batch(b.now, &mut received, &mut b.inbound);
    assert_eq!(b.inbound.deliver.len(), 8);
    let notices = &b.inbound.notices;
    let moved = notices
        .iter()
        .filter(|notice| matches!(notice, Notice::PeerMoved { path, .. } if *path == elsewhere));
    let alive = notices.iter().filter(|notice| matches!(notice, Notice::Alive { .. }));
    assert_eq!((moved.count(), alive.count(), notices.len()), (1, 1, 2), "{notices:?}");
}
