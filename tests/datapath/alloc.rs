//! Nothing is allocated for a packet, once the batches have seen their load.

use ipsecd::datapath::{Datapath, InboundBatch, OutboundBatch, PacketBuf, Received};
use ipsecd::ipsec::{Encap, Place, Spi, ah};
use ipsecd::testing::gateways::{Kind, carry_into};
use ipsecd::wire::ip::NextHeader;

use crate::ah_flips;
use crate::counting::asked;
use crate::kinds::*;
use crate::support::*;

/// What a worker does with its batches, again and again.
struct Worker {
    sender: Datapath,
    receiver: Datapath,
    now: std::time::Instant,
    packets: Vec<Vec<u8>>,
    from_tun: Vec<PacketBuf>,
    sealed: OutboundBatch,
    from_socket: Vec<Received>,
    opened: InboundBatch,
}

impl Worker {
    fn round(&mut self) -> (usize, usize, usize) {
        for (buf, packet) in self.from_tun.iter_mut().zip(&self.packets) {
            assert!(buf.fill_from(packet));
        }
        self.sender.outbound_batch(self.now, &mut self.from_tun, &mut self.sealed);
        for (received, sealed) in self.from_socket.iter_mut().zip(&self.sealed.sealed) {
            carry_into(sealed, received);
        }
        self.receiver.inbound_batch(self.now, &mut self.from_socket, &mut self.opened);
        (self.sealed.sealed.len(), self.sealed.replies.len(), self.opened.deliver.len())
    }
}

/// Ten rounds of the packets from one to the other, after two to fill the pools: what each round is to be.
fn nothing_is_allocated(
    a: Gateway,
    b: Gateway,
    packets: Vec<Vec<u8>>,
    expected: (usize, usize, usize),
    what: &str,
) {
    let receive = |_| Received {
        path: path(2, 1, Encap::Udp, false),
        traffic_class: 0,
        buf: PacketBuf::new(MAX_LEN),
        segment_len: None,
    };
    let mut worker = Worker {
        sender: a.datapath,
        receiver: b.datapath,
        now: a.now,
        from_tun: packets.iter().map(|_| PacketBuf::new(MAX_LEN)).collect(),
        sealed: OutboundBatch::new(MAX_LEN),
        from_socket: (0..40).map(receive).collect(),
        opened: InboundBatch::new(MAX_LEN),
        packets,
    };
    assert_eq!(worker.round(), expected, "{what}");
    assert_eq!(worker.round(), expected, "{what}");
    let before = asked();
    for _ in 0..10 {
        assert_eq!(worker.round(), expected, "{what}");
    }
    assert_eq!(asked() - before, 0, "{what}: allocations in ten rounds");
}

#[test]
fn nothing_is_allocated_for_a_packet() {
    for suite in suites() {
        let (a, b) = pair(suite);
        // Whole packets, one that is fragmented, one that is answered, one that no policy matches.
        let mut packets: Vec<_> = (0..20).map(|i| udp(i % 2 == 0, 100 + 50 * i)).collect();
        packets.push(without_df(udp(false, 4000)));
        packets.push(udp(false, 4000));
        packets.push(ip_between("10.9.0.1", "10.2.0.1", 99, &[]));
        nothing_is_allocated(a, b, packets, (23, 1, 23), &suite.to_string());
    }
}

#[test]
fn nothing_is_allocated_for_a_packet_of_any_kind_of_sa() {
    for kind in Kind::all() {
        let (a, b) = pair_of_with(kind, |params| params.tfc = 300);
        let mut packets: Vec<_> =
            (0..20).map(|i| udp_packet(kind, i % 2 == 0, 50 + 50 * i)).collect();
        packets.push(packet(kind, false, 99, &[7; 4000]));
        packets.push(ip_between("10.9.0.1", "10.2.0.1", 99, &[]));
        nothing_is_allocated(a, b, packets, (20, 1, 20), &format!("{kind:?}"));
    }
}

#[test]
fn nothing_is_allocated_for_what_is_fragmented_after_it_was_protected() {
    for kind in raw_transport() {
        let (a, b) = pair_of(kind);
        // Nobody puts them together here, so nothing is opened.
        if kind.v6 {
            // The longest that is fragmented without telling.
            let narrow = a.datapath.with_path_mtu(kind.hosts()[1], Some(1280));
            let packets = vec![udp_packet(kind, true, 1280 - 48); 5];
            let a = Gateway::of(narrow, a.now);
            nothing_is_allocated(a, b, packets, (10, 0, 0), &format!("{kind:?}"));
        } else {
            let packets = vec![without_df(udp_packet(kind, false, 4000)); 5];
            nothing_is_allocated(a, b, packets, (15, 0, 0), &format!("{kind:?}"));
        }
    }
}

#[test]
fn nothing_is_allocated_for_ah_in_a_packet() {
    for (id, algorithm) in ah_flips::algorithms() {
        for shape in ah_flips::shapes() {
            let place = Place::for_insertion(&shape.plain).unwrap();
            let mut packet = buf(&shape.plain);
            let before = asked();
            algorithm.seal(&mut packet, place, Spi::new(300).unwrap(), 1, true).unwrap();
            (shape.travel)(&mut packet);
            let place = Place::of(&packet, NextHeader::AH).unwrap();
            assert!(algorithm.open(&packet, place, 1, true).is_ok());
            ah::strip(&mut packet, place).unwrap();
            assert_eq!(asked() - before, 0, "{} {id}", shape.name);
        }
    }
}

#[test]
fn the_counter_counts() {
    let before = asked();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert_eq!(asked() - before, 1);
}
