//! Steps of a packet's way that have no cryptography, each beside the least that anybody could do in its place:
//! `cargo bench --bench steps`.
//!
//! - *classify*: the flow of a packet, and its policy among 1 or 10,000, beside a look into a hash table of as many destinations;
//! - *segment*: 64 KB of TCP cut into packets, beside a copy of the bytes and the sum over them that a checksum needs;
//! - *coalesce*: those packets joined, beside that sum.

mod common;
#[path = "common/tunnels.rs"]
mod tunnels;

use std::collections::HashMap;
use std::hint::black_box;
use std::net::Ipv4Addr;

use common::{Samples, figure, time, udp_packet};
use ipsecd::datapath::coalesce::Coalescer;
use ipsecd::datapath::segment::Segments;
use ipsecd::ipsec::Spd;
use ipsecd::ipsec::inner::Inner;
use ipsecd::testing::HostPacket;
use ipsecd::wire::checksum;
use ipsecd::wire::vnet::Offloads;
use tunnels::{hosts, spd};

const ROUNDS: usize = 2000;
const BATCH: usize = 32;
const MANY: u32 = 10_000;
/// As Linux sends it through an MTU of 1420.
const MSS: usize = 1368;
/// Segments of a piece.
const COUNT: usize = 46;

fn main() {
    for count in [1, MANY] {
        classify(count);
    }
    segment_and_coalesce();
}

/// By turns, so that whatever else the machine does hits both alike.
fn beside(
    name: &str,
    bare_name: &str,
    count: usize,
    mut whole: impl FnMut(),
    mut bare: impl FnMut(),
) {
    let [mut wholes, mut bares] = [(); 2].map(|()| Samples::default());
    for round in 0..ROUNDS {
        let (one, other) = (time(&mut whole), time(&mut bare));
        // The first rounds fill caches.
        if round > 10 {
            wholes.push(one, count);
            bares.push(other, count);
        }
    }
    figure(name, wholes.median(), "ns");
    figure(&format!("{name}: {bare_name}"), bares.median(), "ns");
}

fn classify(count: u32) {
    let spd: Spd = spd(count, true);
    let number = |nth: usize| u32::try_from(nth * 7919).expect("few") % count;
    let packets: Vec<_> =
        (0..BATCH).map(|nth| udp_packet(hosts(number(nth)), [9, 9], 64)).collect();
    let table: HashMap<Ipv4Addr, u32> =
        (0..count).map(|number| (hosts(number)[1], number)).collect();
    let classify = || {
        for packet in &packets {
            let inner = Inner::parse(black_box(packet)).expect("a packet");
            assert!(black_box(spd.lookup_out(&inner.flow)).is_some());
        }
    };
    let look_up = || {
        for packet in &packets {
            let [.., a, b, c, d] = black_box(packet).first_chunk::<20>().expect("a header");
            assert!(black_box(table.get(&Ipv4Addr::new(*a, *b, *c, *d))).is_some());
        }
    };
    let of = if count == 1 { "1 policy" } else { "10,000 policies" };
    beside(&format!("classify, {of}"), "a look into a hash table", BATCH, classify, look_up);
}

fn segment_and_coalesce() {
    let model = HostPacket { payload: vec![7; MSS * COUNT], ..HostPacket::default() };
    let (packet, vnet) = (model.unfinished(), model.vnet(MSS));
    let mut out: Vec<_> =
        model.segments(MSS).iter().map(|segment| segment.packet()).collect::<Vec<_>>();
    let made = out.clone();
    let mut copies = out.clone();
    beside(
        "segment, a packet of 1420 bytes",
        "copy and sum",
        COUNT,
        || {
            let segments = Segments::new(black_box(&packet), &vnet).expect("a piece");
            for (nth, out) in out.iter_mut().enumerate() {
                segments.write(nth, out);
            }
        },
        || {
            for (copy, packet) in copies.iter_mut().zip(black_box(&made)) {
                copy.copy_from_slice(packet);
                let _ = black_box(checksum::data(copy));
            }
        },
    );
    assert_eq!(out, made);
    let all = Offloads { tcp: true, udp: true };
    let mut coalescer = Coalescer::new();
    beside(
        "coalesce, a packet of 1420 bytes",
        "sum",
        COUNT,
        || {
            coalescer.arrange(black_box(&made).iter().map(Vec::as_slice), all);
            assert_eq!(coalescer.joined().count(), 1);
        },
        || {
            for packet in black_box(&made) {
                let _ = black_box(checksum::data(packet));
            }
        },
    );
}
