//! What ten thousand tunnels cost beside one: memory, the making of each, and what a packet costs among them:
//! `cargo bench --bench scale`. This is the datapath (SAD and SPD); `ike` measures IKE the same way.

mod common;
#[path = "common/live.rs"]
mod live;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use common::{Samples, figure, now, time};
use ipsecd::crypto::Secret;
use ipsecd::datapath::{Datapath, InboundBatch, Options, OutboundBatch, PacketBuf, Received};
use ipsecd::ipsec::{
    Action, Encap, Path, PolicyId, SaParams, SadUpdate, Spd, SpdEntry, Spi, TrafficSelector,
};
use ipsecd::testing::gateways::carry_into;
use ipsecd::testing::peers;
use ipsecd::wire::ip::{Ipv4Packet, Ipv4Repr, NextHeader};

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

/// Two gateways with so many tunnels between them.
#[derive(Clone)]
struct Gateways {
    count: u32,
    sender: Datapath,
    receiver: Datapath,
}

impl Gateways {
    fn new(count: u32) -> Self {
        Self::grown_to(count).0
    }

    /// Also says how long it took to install a tunnel at first and at last, in µs, each as the update of a snapshot.
    fn grown_to(count: u32) -> (Self, f64, f64) {
        let [spd_a, spd_b] = [true, false].map(|at_a| spd(count, at_a));
        let mut sender = Datapath::new(Options::default(), spd_a, now());
        let mut receiver = Datapath::new(Options::default(), spd_b, now());
        let [mut first, mut last] = [(); 2].map(|()| Samples::default());
        for number in 0..count {
            let taken = time(|| {
                for from_a in [true, false] {
                    receiver = receiver.apply(&update(number, from_a, false)).expect("an SA");
                }
            });
            sender = sender.apply(&update(number, true, true)).expect("an SA");
            if (10..110).contains(&number) {
                first.push(taken, 1);
            }
            if number + 100 >= count {
                last.push(taken, 1);
            }
        }
        let first = if count < 10 { 0.0 } else { first.median() / 1e3 };
        (Self { count, sender, receiver }, first, last.median() / 1e3)
    }
}

fn spd_time(count: u32) -> Duration {
    time(|| drop(std::hint::black_box(spd(count, true))))
}

fn spd(count: u32, at_a: bool) -> Spd {
    let entry = |number| {
        let [a, b] = selectors(number);
        let (ts_local, ts_peer) = if at_a { (a, b) } else { (b, a) };
        SpdEntry { ts_local, ts_peer, action: Action::Protect(PolicyId(number)) }
    };
    Spd::new((0..count).map(entry).collect())
}

fn site(number: u32) -> [u8; 4] {
    (0x0a00_0000 | number << 8).to_be_bytes()
}

/// 172.16.0.0/12 on our side, and a /24 for each tunnel on the other.
fn selectors(number: u32) -> [Arc<[TrafficSelector]>; 2] {
    let prefix =
        |addr: [u8; 4], len| TrafficSelector::from_prefix(addr.into(), len).expect("a prefix");
    [Arc::from([prefix([172, 16, 0, 0], 12)]), Arc::from([prefix(site(number), 24)])]
}

fn path(number: u32, at_a: bool) -> Path {
    let host = |bits: u32| std::net::SocketAddr::new(Ipv4Addr::from_bits(bits).into(), 4500);
    let (a, b) = (host(0xc000_0201), host(0x6440_0000 | number));
    let (local, remote) = if at_a { (a, b) } else { (b, a) };
    Path { local, remote, encap: Encap::Udp }
}

fn update(number: u32, from_a: bool, at_a: bool) -> SadUpdate {
    let [ts_a, ts_b] = selectors(number);
    let (ts_local, ts_peer) = if at_a { (ts_a, ts_b) } else { (ts_b, ts_a) };
    // As IKE chooses them: anything.
    let spi = |from_a| {
        let value = (number * 2 + u32::from(from_a)).wrapping_mul(0x9e37_79b1) | 0x100;
        Spi::new(value).expect("not reserved")
    };
    let params = SaParams {
        spi: spi(from_a),
        other_spi: spi(!from_a),
        policy: PolicyId(number),
        peer: Arc::from(format!("peer-{number}")),
        path: path(number, at_a),
        ts_local,
        ts_peer,
        encr_key: Secret::new(vec![if from_a { 7 } else { 8 }; 36]),
        ..peers::sa_params()
    };
    if from_a == at_a {
        SadUpdate::AddOutbound(Box::new(params))
    } else {
        SadUpdate::AddInbound(Box::new(params))
    }
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

fn packet(number: u32) -> [u8; SIZE] {
    let [a, b, c, _] = site(number);
    let header = Ipv4Repr {
        src_addr: [172, 16, 0, 1].into(),
        dst_addr: [a, b, c, 1].into(),
        protocol: NextHeader::UDP,
        tos: 0,
        ident: 0,
        dont_fragment: true,
        ttl: 64,
        payload_len: 44,
    };
    let mut packet = [0; SIZE];
    packet[..20].copy_from_slice(&header.emit());
    Ipv4Packet::new_checked(&mut packet[..]).expect("a packet").fill_checksum();
    packet[20..28].copy_from_slice(&[0x30, 0x39, 0x27, 0x0f, 0, 44, 0, 0]);
    packet
}
