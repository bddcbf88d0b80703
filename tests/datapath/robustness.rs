//! Whatever comes, from the TUN, from the network, or from a peer that holds the keys: nothing panics, and every packet
//! is either passed on or counted.

use std::sync::Arc;
use std::thread;

use ipsecd::datapath::{Datapath, DropReason, Ecn, InboundBatch, OutboundBatch, Received};
use ipsecd::ipsec::{Encap, OutboundSa, SadUpdate};
use ipsecd::wire::ip::NextHeader;
use proptest::prelude::*;

use crate::support::*;

/// Bytes that look like packets, more or less.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    let header = (any::<bool>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..120));
    let valid = header.prop_map(|(v6, protocol, payload)| ip(v6, protocol, &payload));
    // Extension headers, fragments and options: valid packets with a few bytes changed.
    let likely = prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 51, 58, 59, 60, 132, 135]);
    let chains = (any::<bool>(), likely.clone(), proptest::collection::vec(likely, 0..120));
    let chains = chains.prop_map(|(v6, protocol, payload)| ip(v6, protocol, &payload));
    let mutated = (chains, proptest::collection::vec((0_usize..60, any::<u8>()), 0..6));
    let mutated = mutated.prop_map(|(mut packet, changes)| {
        for (at, byte) in changes {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        packet
    });
    prop_oneof![1 => bytes, 2 => valid, 4 => mutated]
}

fn ecn() -> impl Strategy<Value = Ecn> {
    prop::sample::select(vec![Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce])
}

fn total(drops: &[(DropReason, u64)]) -> u64 {
    drops.iter().map(|(_, count)| count).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn anything_from_the_tun_is_passed_or_counted(packets in proptest::collection::vec(packet(), 1..8)) {
        let (mut a, mut b) = pair(gcm());
        // Long packets are rare here; a small path makes up for it.
        a.datapath = a.datapath.with_path_mtu("192.0.2.2".parse().unwrap(), Some(160));
        let count = packets.iter().filter(|packet| !packet.is_empty()).count() as u64;
        let sealed = payloads(&a.send(&packets).sealed);
        let policies = a.datapath.stats().policies;
        let dropped = total(&a.dropped());
        prop_assert_eq!(policies[0].outbound_packets, sealed.len() as u64);
        prop_assert!(sealed.len() as u64 + dropped >= count);
        // And what passed here is taken there.
        let expected = sealed.len();
        let out = b.receive(path(2, 1, Encap::Udp, false), Ecn::NotEct, &sealed);
        prop_assert_eq!(out.deliver.len(), expected);
    }

    #[test]
    fn anything_from_a_peer_is_delivered_or_counted(
        packets in proptest::collection::vec((packet(), prop::sample::select(vec![4_u8, 41, 41, 4, 59, 17])), 1..8),
        outer in ecn(),
    ) {
        let (_, mut b) = pair(gcm());
        let sa = OutboundSa::new(params(gcm(), true, 0).0).unwrap();
        let sealed: Vec<_> = packets
            .iter()
            .map(|(packet, next_header)| {
                let mut buf = buf(packet);
                let _ = sa.seal(&mut buf, NextHeader(*next_header)).unwrap();
                buf.to_vec()
            })
            .collect();
        let delivered = b.receive(path(2, 1, Encap::Udp, false), outer, &sealed).deliver.len();
        let stats = b.datapath.stats();
        prop_assert_eq!(delivered as u64 + total(&stats.drops), packets.len() as u64);
        prop_assert_eq!(stats.policies[0].inbound_packets, delivered as u64);
        prop_assert_eq!(total(&stats.inbound[0].drops), total(&stats.drops));
    }

    #[test]
    fn anything_from_the_network_is_counted(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..100), 1..8),
        known_spi: bool, udp: bool,
    ) {
        for suite in [gcm(), suites()[8]] {
            let (_, mut b) = pair(suite);
            let spi = params(suite, true, 0).1.spi;
            let packets: Vec<_> = packets
                .iter()
                .map(|packet| if known_spi { [&spi.to_be_bytes()[..], packet].concat() } else { packet.clone() })
                .collect();
            let encap = if udp { Encap::Udp } else { Encap::Plain };
            let out = b.receive(path(2, 1, encap, false), Ecn::NotEct, &packets);
            prop_assert!(out.deliver.is_empty());
            let ike = out.ike.len() as u64;
            let stats = b.datapath.stats();
            prop_assert_eq!(ike + stats.keepalives + total(&stats.drops), packets.len() as u64);
        }
    }
}

#[test]
fn workers_share_an_sa_without_loss_or_duplicate() {
    const WORKERS: usize = 4;
    const BATCHES: usize = 50;
    const BATCH: usize = 20;
    let (a, b) = pair_with(gcm(), |params| params.replay_window = 8192);
    let now = a.now;
    let (sender, receiver): (Arc<Datapath>, Arc<Datapath>) = (a.datapath.into(), b.datapath.into());
    let sealed: Vec<Vec<u8>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut out = OutboundBatch::new(MAX_LEN);
                    let mut sealed = Vec::new();
                    for _ in 0..BATCHES {
                        let mut packets: Vec<_> =
                            (0..BATCH).map(|_| buf(&udp(false, 100))).collect();
                        sender.outbound_batch(now, &mut packets, &mut out);
                        sealed.extend(payloads(&out.sealed));
                    }
                    sealed
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(sealed.len(), WORKERS * BATCHES * BATCH);
    let mut numbers: Vec<_> = sealed.iter().map(|packet| packet[4..8].to_vec()).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), sealed.len(), "no sequence number twice");

    // Every worker gets every packet: each is delivered once.
    let delivered: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut out = InboundBatch::new(MAX_LEN);
                    let mut delivered = 0;
                    for batch in sealed.chunks(BATCH) {
                        let mut received: Vec<_> = batch
                            .iter()
                            .map(|packet| Received {
                                path: path(2, 1, Encap::Udp, false),
                                traffic_class: 0,
                                buf: buf(packet),
                                segment_len: None,
                            })
                            .collect();
                        receiver.inbound_batch(now, &mut received, &mut out);
                        delivered += out.deliver.len();
                    }
                    delivered
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(delivered, sealed.len());
}

#[test]
fn a_snapshot_in_use_goes_on_working_after_an_update() {
    let (mut a, mut b) = pair(gcm());
    let old = b.datapath.clone();
    b.apply(SadUpdate::RemoveInbound(params(gcm(), true, 0).1.spi));
    let packet = udp(false, 100);
    let sealed = a.seal(&packet);
    assert_eq!(b.open(&sealed), None);
    let mut received = [Received {
        path: path(2, 1, Encap::Udp, false),
        traffic_class: 0,
        buf: buf(&sealed),
        segment_len: None,
    }];
    old.inbound_batch(b.now, &mut received, &mut b.inbound);
    assert_eq!(b.inbound.deliver[0], packet);
}
