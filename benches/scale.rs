//! What ten thousand tunnels cost beside one: memory, the making of each, and what a packet costs among them:
//! `cargo bench --bench scale`. This is the datapath (SAD and SPD); `ike` measures IKE the same way.

mod common;
#[path = "common/live.rs"]
mod live;
#[path = "common/tunnels.rs"]
mod tunnels;

use std::time::Duration;

use common::{Samples, figure, now, time, udp_packet};
use ipsecd::datapath::{InboundBatch, OutboundBatch, PacketBuf, Received};
use ipsecd::testing::gateways::carry_into;
use tunnels::{Gateways, hosts, path, spd};

const BATCH: usize = 32;
const ROUNDS: usize = 2000;
const MAX_LEN: usize = 2048;
const MANY: u32 = 10_000;
/// Bytes of the inner packet.
const SIZE: usize = 64;

fn main() {
    let one = Gateways::new(1);
    let before = live::bytes();
    let (many, first, last) = Gateways::grown_to(MANY);
    let memory = live::bytes() - before;
    figure(
        "datapath: memory of a tunnel among 10,000, both SAs",
        memory as f64 / f64::from(MANY) / 1024.0,
        "KiB",
    );
    figure("datapath: installing the first 100 tunnels, each", first, "µs");
    figure("datapath: installing the last 100 of 10,000 tunnels, each", last, "µs");
    let spds = [1, MANY].map(|count| spd_time(count).as_secs_f64() * 1e3);
    figure("datapath: making the SPD of 10,000 tunnels", spds[1], "ms");

    let mut cases = [
        ("1 tunnel", Traffic::new(&one), one, Vec::new()),
        ("1 of 10,000 tunnels", Traffic::new(&many), many.clone(), Vec::new()),
        ("all of 10,000 tunnels in turn", Traffic::new(&many), many, Vec::new()),
    ];
    let mut outcome = Vec::new();
    for (_, _, _, samples) in &mut cases {
        samples.extend([Samples::default(), Samples::default()]);
    }
    for round in 0..ROUNDS {
        for (name, traffic, gateways, samples) in &mut cases {
            let in_turn = name.starts_with("all");
            let tunnel = |nth: usize| {
                let nth = u32::try_from(round * BATCH + nth).expect("few");
                match (in_turn, gateways.count) {
                    // Steps of a prime, so that neighbours are not neighbours in memory either.
                    (true, count) => nth.wrapping_mul(7919) % count,
                    (false, 1) => 0,
                    (false, _) => 4711,
                }
            };
            let (sealing, opening) = traffic.round(gateways, tunnel);
            if round > 20 {
                samples[0].push(sealing, BATCH);
                samples[1].push(opening, BATCH);
            }
        }
    }
    for (name, _, _, samples) in &mut cases {
        let [out, back] = [0, 1].map(|way| samples[way].median());
        figure(&format!("datapath: 64-byte packet, {name}, out"), out, "ns");
        figure(&format!("datapath: 64-byte packet, {name}, in"), back, "ns");
        outcome.push(out + back);
    }
    figure(
        "datapath: 64-byte packet, 1 of 10,000 tunnels beside 1 tunnel",
        outcome[1] / outcome[0],
        "x",
    );
}

fn spd_time(count: u32) -> Duration {
    time(|| drop(std::hint::black_box(spd(count, true))))
}

/// Batches of packets, and their memory.
struct Traffic {
    from_tun: Vec<PacketBuf>,
    sealed: OutboundBatch,
    from_socket: Vec<Received>,
    opened: InboundBatch,
}

impl Traffic {
    fn new(_gateways: &Gateways) -> Self {
        let received = |_| Received {
            path: path(0, false),
            traffic_class: 0,
            buf: PacketBuf::new(MAX_LEN),
            segment_len: None,
        };
        Self {
            from_tun: (0..BATCH).map(|_| PacketBuf::new(MAX_LEN)).collect(),
            sealed: OutboundBatch::new(MAX_LEN),
            from_socket: (0..BATCH).map(received).collect(),
            opened: InboundBatch::new(MAX_LEN),
        }
    }

    fn round(
        &mut self,
        gateways: &Gateways,
        tunnel: impl Fn(usize) -> u32,
    ) -> (Duration, Duration) {
        let Self { from_tun, sealed, from_socket, opened } = self;
        for (nth, buf) in from_tun.iter_mut().enumerate() {
            assert!(buf.fill_from(&packet(tunnel(nth))));
        }
        let now = now();
        let sealing = time(|| gateways.sender.outbound_batch(now, from_tun, sealed));
        assert_eq!(sealed.sealed.len(), BATCH);
        for (received, sealed) in from_socket.iter_mut().zip(&sealed.sealed) {
            carry_into(sealed, received);
        }
        let opening = time(|| gateways.receiver.inbound_batch(now, from_socket, opened));
        assert_eq!(opened.deliver.len(), BATCH);
        (sealing, opening)
    }
}

fn packet(number: u32) -> Vec<u8> {
    udp_packet(hosts(number), [12_345, 9999], SIZE)
}
