//! The whole way of a packet through the datapath, from inner packet to what a socket sends and back, beside the bare AEAD
//! of the same library on as many bytes: `cargo bench --bench path`.
//!
//! With `--count BATCHES [BYTES]` it does so many of them, of packets so long, and measures nothing.
//!
//! In batches of 32, over 256 buffers in turn, bare and whole by turns so that whatever else the machine does hits both
//! alike. Both have buffers of the same size, into which what is to be sealed, or opened, was just copied, as the kernel does
//! it. Reading and writing, which are the kernel's, are not in it.

#[path = "common/bare.rs"]
mod bare;
mod common;
#[path = "common/tunnels.rs"]
mod tunnels;

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bare::{Bare, BareBuffers};
use common::{Samples, figure, now, time, udp_packet};
use ipsecd::datapath::{Datapath, InboundBatch, Options, OutboundBatch, PacketBuf, Received};
use ipsecd::ipsec::esp::EspLayout;
use ipsecd::ipsec::suite::Protocol;
use ipsecd::ipsec::{Encap, EspSuite, Mode, Path, SaParams, Suite};
use ipsecd::testing::gateways::{Kind, Protection, carry_into};
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId};
use ipsecd::wire::ip::{Ipv4Packet, Ipv4Repr, NextHeader};
use ipsecd::wire::tcp::TcpPacket;
use ipsecd::wire::vnet::{Gso, PartialChecksum, VnetHeader};
use ring::aead::{AES_256_GCM, CHACHA20_POLY1305};
use tunnels::Gateways;

/// Bytes of the inner packet.
const SIZES: [usize; 3] = [64, 576, 1400];
const BATCH: usize = 32;
const BUFFERS: usize = 256;
/// How often each batch is measured.
const ROUNDS: usize = 400;
const MAX_LEN: usize = 65_535;
const MANY: u32 = 10_000;

fn main() {
    let mut arguments = std::env::args();
    if arguments.any(|argument| argument == "--count") {
        let mut number = || arguments.next().and_then(|number| number.parse().ok());
        let batches = number().expect("--count takes a number of batches");
        return count(batches, number().unwrap_or(SIZES[0]));
    }
    let gcm = ipsecd::ipsec::suite::Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(256) };
    let chacha = ipsecd::ipsec::suite::Encr { id: EncrId::ENCR_CHACHA20_POLY1305, key_bits: None };
    for (name, encr, algorithm) in
        [("AES-256-GCM", gcm, &AES_256_GCM), ("ChaCha20", chacha, &CHACHA20_POLY1305)]
    {
        let suite = EspSuite { encr, integ: IntegId::NONE, esn: EsnId::NO_ESN };
        let bare = Bare::new(algorithm);
        for size in SIZES {
            measure(name, suite, &bare, size, Whole::new(suite));
        }
        if name == "AES-256-GCM" {
            for size in SIZES {
                let esn = EspSuite { esn: EsnId::ESN, ..suite };
                measure("AES-256-GCM and ESN", esn, &bare, size, Whole::new(esn));
            }
            let many = Gateways::new(MANY);
            for size in SIZES {
                let whole = Whole::of_tunnel(&many, 4711);
                measure("AES-256-GCM among 10,000 SAs", suite, &bare, size, whole);
            }
            measure_run(suite, &bare);
        }
    }
}

/// Does the same each time, for a tool that counts instructions (`benches/instructions.sh`).
fn count(batches: usize, size: usize) {
    let encr = ipsecd::ipsec::suite::Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(256) };
    let suite = EspSuite { encr, integ: IntegId::NONE, esn: EsnId::NO_ESN };
    let mut whole = Whole::new(suite);
    let packet = udp_packet(whole.inner, [12_345, 9999], size);
    for round in 0..batches {
        let _taken = whole.round(round % (BUFFERS / BATCH), &packet);
    }
}

/// Two gateways, and packets from one to the other.
struct Whole {
    /// Between which addresses packets are.
    inner: [Ipv4Addr; 2],
    now: Instant,
    sender: Datapath,
    receiver: Datapath,
    from_tun: Vec<PacketBuf>,
    sealed: OutboundBatch,
    from_socket: Vec<Received>,
    opened: InboundBatch,
}

impl Whole {
    fn new(suite: EspSuite) -> Self {
        let kind = Kind {
            protection: Protection::Gcm,
            mode: Mode::Tunnel,
            v6: false,
            esn: false,
            udp: true,
        };
        let now = now();
        let change = |params: &mut SaParams| {
            let len = suite.encr.keymat_len().expect("an algorithm of ours");
            params.encr_key = ipsecd::crypto::Secret::new(vec![7; len]);
            params.suite = Suite::from(suite);
            params.replay_window = 1024;
        };
        assert_eq!(Suite::from(suite).protocol(), Protocol::Esp);
        let [sender, receiver] = kind.datapaths(&Options::default(), now, change);
        let path = Path {
            local: "192.0.2.2:4500".parse().expect("an address"),
            remote: "192.0.2.1:4500".parse().expect("an address"),
            encap: Encap::Udp,
        };
        Self::between([[10, 1, 0, 1].into(), [10, 2, 0, 1].into()], sender, receiver, path)
    }

    /// One of many tunnels.
    fn of_tunnel(gateways: &Gateways, number: u32) -> Self {
        let [from, to] = tunnels::hosts(number);
        let Gateways { sender, receiver, .. } = gateways.clone();
        Self::between([from, to], sender, receiver, tunnels::path(number, false))
    }

    fn between(inner: [Ipv4Addr; 2], sender: Datapath, receiver: Datapath, path: Path) -> Self {
        let received = |_| Received {
            path,
            traffic_class: 0,
            buf: PacketBuf::new(MAX_LEN),
            segment_len: None,
        };
        Self {
            inner,
            now: now(),
            sender,
            receiver,
            from_tun: (0..BUFFERS).map(|_| PacketBuf::new(MAX_LEN)).collect(),
            sealed: OutboundBatch::new(MAX_LEN),
            from_socket: (0..BUFFERS).map(received).collect(),
            opened: InboundBatch::new(MAX_LEN),
        }
    }

    fn round(&mut self, batch: usize, packet: &[u8]) -> (Duration, Duration) {
        let from_tun = &mut self.from_tun[batch * BATCH..][..BATCH];
        for buf in from_tun.iter_mut() {
            assert!(buf.fill_from(packet));
        }
        let headers = [VnetHeader::default(); BATCH];
        let (sender, sealed, now) = (&self.sender, &mut self.sealed, self.now);
        let sealing = time(|| sender.outbound_batch_with(now, from_tun, &headers, sealed));
        assert_eq!(self.sealed.sealed.len(), BATCH);
        let from_socket = &mut self.from_socket[batch * BATCH..][..BATCH];
        for (received, sealed) in from_socket.iter_mut().zip(&self.sealed.sealed) {
            carry_into(sealed, received);
        }
        let (receiver, opened) = (&self.receiver, &mut self.opened);
        let opening = time(|| receiver.inbound_batch(now, from_socket, opened));
        assert_eq!(self.opened.deliver.len(), BATCH);
        (sealing, opening)
    }

    /// What the host hands over in one piece, and what comes in one piece.
    fn run(&mut self, packet: &[u8], vnet: VnetHeader) -> (Duration, Duration, usize) {
        let from_tun = &mut self.from_tun[..1];
        assert!(from_tun[0].fill_from(packet));
        let (sender, sealed, now) = (&self.sender, &mut self.sealed, self.now);
        let sealing = time(|| sender.outbound_batch_with(now, from_tun, &[vnet], sealed));
        let runs = self.sealed.sealed.len();
        for (received, sealed) in self.from_socket.iter_mut().zip(&self.sealed.sealed) {
            carry_into(sealed, received);
        }
        let (receiver, opened) = (&self.receiver, &mut self.opened);
        let from_socket = &mut self.from_socket[..runs];
        let opening = time(|| receiver.inbound_batch(now, from_socket, opened));
        (sealing, opening, self.opened.deliver.len())
    }
}

fn measure(name: &str, suite: EspSuite, bare: &Bare, size: usize, mut whole: Whole) {
    let layout = EspLayout::of(suite).expect("a suite of ours");
    let encrypted = (size + 2).next_multiple_of(layout.align.into());
    let packet = udp_packet(whole.inner, [12_345, 9999], size);
    let mut bare_buffers = BareBuffers::new(encrypted, BUFFERS, MAX_LEN);
    let [mut bare_seal, mut bare_open, mut seal, mut open] = [(); 4].map(|()| Samples::default());
    for round in 0..ROUNDS {
        for batch in 0..BUFFERS / BATCH {
            let (sealing, opening) = bare_buffers.round(bare, batch, BATCH);
            let (whole_sealing, whole_opening) = whole.round(batch, &packet);
            // The first rounds fill the pools.
            if round > 10 {
                bare_seal.push(sealing, BATCH);
                bare_open.push(opening, BATCH);
                seal.push(whole_sealing, BATCH);
                open.push(whole_opening, BATCH);
            }
        }
    }
    tell(name, &size.to_string(), "out", &mut bare_seal, &mut seal);
    tell(name, &size.to_string(), "in", &mut bare_open, &mut open);
}

fn tell(name: &str, size: &str, way: &str, bare: &mut Samples, whole: &mut Samples) {
    let (bare, whole) = (bare.median(), whole.median());
    figure(&format!("{name}, {size} bytes, {way}: bare AEAD"), bare, "ns");
    figure(&format!("{name}, {size} bytes, {way}: whole path"), whole, "ns");
    figure(&format!("{name}, {size} bytes, {way}: beside the AEAD"), whole - bare, "ns");
}

/// One piece of TCP that is cut into packets of 1400 bytes: what is beside the AEAD has the copy and the checksums of TCP
/// in it.
fn measure_run(suite: EspSuite, bare: &Bare) {
    const MSS: usize = 1360;
    const COUNT: usize = 32;
    let layout = EspLayout::of(suite).expect("a suite of ours");
    let encrypted = (MSS + 40 + 2).next_multiple_of(layout.align.into());
    let len = 40 + MSS * COUNT;
    let header = Ipv4Repr {
        src_addr: [10, 1, 0, 1].into(),
        dst_addr: [10, 2, 0, 1].into(),
        protocol: NextHeader::TCP,
        tos: 0,
        ident: 0,
        dont_fragment: true,
        ttl: 64,
        payload_len: u16::try_from(len - 20).expect("at most 65535"),
    };
    let mut packet = vec![7; len];
    packet[..20].copy_from_slice(&header.emit());
    Ipv4Packet::new_checked(&mut packet[..]).expect("a packet").fill_checksum();
    packet[20..40].fill(0);
    packet[32] = 5 << 4;
    packet[33] = 0x10;
    let source = [10, 1, 0, 1].into();
    let to = [10, 2, 0, 1].into();
    TcpPacket::new_checked(&mut packet[20..])
        .expect("a segment")
        .fill_checksum(core::net::IpAddr::V4(source), core::net::IpAddr::V4(to));
    let vnet = VnetHeader {
        checksum: Some(PartialChecksum { start: 20, offset: 16 }),
        gso: Gso::TcpV4,
        ecn: false,
        header_len: 40,
        segment_len: u16::try_from(MSS).expect("short"),
    };
    assert!(NonZeroU16::new(vnet.segment_len).is_some());
    let mut bare_buffers = BareBuffers::new(encrypted, BUFFERS, MAX_LEN);
    let mut whole = Whole::new(suite);
    let [mut bare_seal, mut bare_open, mut seal, mut open] = [(); 4].map(|()| Samples::default());
    for round in 0..ROUNDS * 4 {
        let (sealing, opening) = bare_buffers.round(bare, round % (BUFFERS / BATCH), BATCH);
        let (whole_sealing, whole_opening, packets) = whole.run(&packet, vnet);
        assert_eq!(packets, COUNT);
        if round > 10 {
            bare_seal.push(sealing, BATCH);
            bare_open.push(opening, BATCH);
            seal.push(whole_sealing, COUNT);
            open.push(whole_opening, COUNT);
        }
    }
    tell("AES-256-GCM", "run of 1400", "out", &mut bare_seal, &mut seal);
    tell("AES-256-GCM", "run of 1400", "in", &mut bare_open, &mut open);
}
