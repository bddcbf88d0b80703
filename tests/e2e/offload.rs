//! Offloads change no packet: what one LAN sends, in one piece or one by one, the other gets to the last bit of every header,
//! whatever the daemons leave to the kernel.
//!
//! The LANs are TUNs of the test. Into one it writes packets as a host's kernel would hand them over, and from the other it
//! reads what the gateway's kernel makes of what ipsecd delivers.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::IpAddr;

use ipsecd::datapath::segment::Segments;
use ipsecd::io::tun::{Offload, OffloadTun, TunDevice};
use ipsecd::ipsec::PacketBuf;
use ipsecd::testing::{FixedRandom, HostPacket};
use ipsecd::wire::ip::{Ipv4Packet, Ipv4Repr, Ipv6Repr, NextHeader};
use ipsecd::wire::vnet::{Gso, VnetHeader};
use nix::poll::{PollFd, PollFlags, poll};

use crate::lab::{Ipsecd, Lab, Peer};

/// Bytes of IP packets that cross in each test; `IPSECD_OFFLOAD_BYTES` says another number.
const BYTES: u64 = 20_000_000;
/// On the way at a time: less than the queues of the TUNs hold.
const WINDOW_PACKETS: usize = 300;
const WINDOW_BYTES: usize = 1 << 20;
/// Routers on the way: the gateways' kernels.
const HOPS: u8 = 2;

#[test]
fn no_packet_is_changed_with_offloads() {
    cross("auto", Offload::Off, false);
}

#[test]
fn no_packet_is_changed_with_offloads_over_raw_esp() {
    cross("auto", Offload::Off, true);
}

#[test]
fn no_packet_is_changed_that_arrives_in_one_piece() {
    let joined = cross("auto", Offload::Auto, false);
    assert!(joined.is_none_or(|joined| joined > 0), "nothing arrived in one piece");
}

#[test]
fn no_packet_is_changed_without_offloads() {
    cross("off", Offload::Off, false);
}

#[test]
fn no_packet_is_changed_with_a_plain_tun() {
    cross("plain", Offload::Off, false);
}

/// Tells how many pieces with several packets arrived; `None` where there can be no lab.
fn cross(offload: &str, far_end: Offload, raw: bool) -> Option<u64> {
    let lab = Lab::open(&[])?;
    let (mut a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    for (peer, local, remote) in [(&mut a, &lab.a, &lab.b), (&mut b, &lab.b, &lab.a)] {
        peer.local_subnets = [false, true].map(|v6| local.subnet(1, v6)).to_vec();
        peer.subnets = [false, true].map(|v6| remote.subnet(1, v6)).to_vec();
        peer.esp = format!("encap = {:?}", if raw { "auto" } else { "udp" });
    }
    b.esp += "\nstart = \"respond\"";
    for side in lab.both() {
        // Here the link takes datagrams in one piece, too.
        side.gw.ip("link set wan0 gso_max_segs 65535");
    }
    let a = Ipsecd::start_with_offload(&lab.a, &a, offload);
    let b = Ipsecd::start_with_offload(&lab.b, &b, offload);
    b.must_up();
    a.must_up();

    let tun = |side: &crate::lab::topology::Side, offload| {
        let tun = side.gw.enter(|| OffloadTun::create("lan9", offload)).expect("a TUN");
        // Without the neighbour discovery of the kernel.
        side.gw.sh("echo 1 > /proc/sys/net/ipv6/conf/lan9/addr_gen_mode");
        side.gw.ip("link set lan9 up");
        tun
    };
    let (from, to) = (tun(&lab.a, Offload::Auto), tun(&lab.b, far_end));
    lab.b.gw.ip("route add 10.2.1.77/32 dev lan9");
    lab.b.gw.ip("-6 route add fd02:1::77/128 dev lan9");
    let bytes = bytes_to_send();
    let mut run = Run::new(from, to);
    run.until(bytes);
    println!(
        "{} packets, {} bytes, {} pieces arrived with several, daemons {offload}",
        run.arrived, run.bytes, run.joined
    );
    assert_eq!(run.outstanding(), 0);
    let drops = &a.status()["drops"];
    assert!(drops["send-failed"].is_null() && drops["tun-failed"].is_null(), "{drops}");
    assert!(a.stop().success() && b.stop().success());
    Some(run.joined)
}

#[expect(clippy::disallowed_methods, reason = "how long it runs is said outside the test")]
fn bytes_to_send() -> u64 {
    let said = std::env::var("IPSECD_OFFLOAD_BYTES");
    said.map_or(BYTES, |text| text.parse().expect("IPSECD_OFFLOAD_BYTES is a number of bytes"))
}

/// Packets of a flow arrive in their order.
type FlowKey = Vec<u8>;

struct Run {
    from: OffloadTun,
    to: OffloadTun,
    host: Host,
    expected: BTreeMap<FlowKey, VecDeque<Vec<u8>>>,
    waiting_packets: usize,
    waiting_bytes: usize,
    arrived: u64,
    bytes: u64,
    joined: u64,
    buffers: Vec<PacketBuf>,
    headers: Vec<VnetHeader>,
}

impl Run {
    fn new(from: OffloadTun, to: OffloadTun) -> Self {
        Self {
            from,
            to,
            host: Host::new(),
            expected: BTreeMap::new(),
            waiting_packets: 0,
            waiting_bytes: 0,
            arrived: 0,
            bytes: 0,
            joined: 0,
            buffers: (0..64).map(|_| PacketBuf::new(65_535)).collect(),
            headers: Vec::new(),
        }
    }

    fn outstanding(&self) -> usize {
        self.waiting_packets
    }

    fn until(&mut self, bytes: u64) {
        let mut sent = 0;
        while sent < bytes || self.waiting_packets > 0 {
            while sent < bytes
                && self.waiting_packets < WINDOW_PACKETS
                && self.waiting_bytes < WINDOW_BYTES
            {
                sent += self.send();
            }
            self.receive();
        }
    }

    fn send(&mut self) -> u64 {
        let (pieces, expected) = self.host.step();
        for (vnet, packet) in &pieces {
            let header = vnet.emit();
            self.from.send(&[IoSlice::new(&header), IoSlice::new(packet)]).expect("a packet");
        }
        let mut sent = 0;
        for packet in expected {
            sent += packet.len();
            self.waiting_packets += 1;
            self.waiting_bytes += packet.len();
            self.expected.entry(flow_of(&packet)).or_default().push_back(packet);
        }
        sent as u64
    }

    fn receive(&mut self) {
        let mut buffers = core::mem::take(&mut self.buffers);
        match self.to.recv(&mut buffers, &mut self.headers) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&self.to), PollFlags::POLLIN)];
                let ready = poll(&mut fds, 10_000_u16).expect("poll");
                assert_eq!(ready, 1, "{} packets do not arrive", self.waiting_packets);
            }
            Err(error) => panic!("{error}"),
        }
        let headers = core::mem::take(&mut self.headers);
        for (packet, vnet) in buffers.iter_mut().zip(&headers) {
            if vnet.gso == Gso::None {
                if let Some(partial) = vnet.checksum {
                    assert!(ipsecd::datapath::segment::complete(packet, partial));
                }
                self.check(packet);
                continue;
            }
            let segments = Segments::new(packet, vnet).expect("what it says it is");
            self.joined += 1;
            for index in 0..segments.len() {
                let mut segment = vec![0; segments.len_of(index)];
                segments.write(index, &mut segment);
                self.check(&segment);
            }
        }
        (self.buffers, self.headers) = (buffers, headers);
    }

    fn check(&mut self, packet: &[u8]) {
        // What the kernel itself says to its neighbours.
        if packet[0] >> 4 == 6 && packet[24] == 0xff {
            return;
        }
        let expected = self.expected.get_mut(&flow_of(packet)).and_then(VecDeque::pop_front);
        let Some(expected) = expected else { panic!("nobody sent {packet:02x?}") };
        if packet != expected {
            let at = packet.iter().zip(&expected).position(|(got, sent)| got != sent);
            let end = |packet: &[u8]| format!("{:02x?}", &packet[..packet.len().min(80)]);
            panic!(
                "packet {} differs at {at:?}, {} and {} bytes:\n{}\n{}",
                self.arrived,
                packet.len(),
                expected.len(),
                end(packet),
                end(&expected)
            );
        }
        self.arrived += 1;
        self.bytes += packet.len() as u64;
        self.waiting_packets -= 1;
        self.waiting_bytes -= packet.len();
    }
}

/// Addresses, protocol and, of TCP and UDP, ports.
fn flow_of(packet: &[u8]) -> FlowKey {
    let (protocol, addresses, transport) =
        if packet[0] >> 4 == 4 { (packet[9], 12..20, 20) } else { (packet[6], 8..40, 40) };
    let mut key = packet[addresses].to_vec();
    key.push(protocol);
    if matches!(protocol, 6 | 17) {
        key.extend(&packet[transport..transport + 4]);
    }
    key
}

/// Who sends: eight flows of TCP and UDP, IPv4 and IPv6, and pings.
struct Host {
    random: FixedRandom,
    flows: Vec<HostPacket>,
}

/// Packets and their virtio headers, and what is to arrive.
type Step = (Vec<(VnetHeader, Vec<u8>)>, Vec<Vec<u8>>);

impl Host {
    fn new() -> Self {
        let flows = (0..8_u16).map(|nth| {
            let v6 = nth & 1 != 0;
            let addresses =
                if v6 { ["fd01:1::77", "fd02:1::77"] } else { ["10.1.1.77", "10.2.1.77"] };
            HostPacket {
                addresses: addresses.map(|addr| addr.parse().expect("an address")),
                tcp: nth & 2 != 0,
                port: 40_000 + nth,
                dont_fragment: nth & 4 != 0,
                ..HostPacket::new(v6)
            }
        });
        Self { random: FixedRandom::new(1, 0), flows: flows.collect() }
    }

    fn step(&mut self) -> Step {
        if self.random.chance(5) {
            return self.ping();
        }
        let which = self.random.below(self.flows.len());
        // Seldom: what the flow has with each of its packets.
        let byte = self.random.next_u64().to_le_bytes();
        let flow = &mut self.flows[which];
        match byte[0] {
            0..20 => flow.traffic_class ^= byte[1] & 3,
            20..25 => flow.traffic_class = byte[1],
            25..30 => flow.ttl = 10 | byte[1],
            30..35 => flow.flow_label = u32::from(byte[1]) << 8,
            35..50 => flow.window = flow.window.wrapping_add(byte[1].into()),
            50..60 => flow.acknowledgment = flow.acknowledgment.wrapping_add(1000),
            60..65 => flow.options = vec![1; 4 * usize::from(byte[1] % 11)],
            65..68 => flow.ident = flow.ident.wrapping_add(byte[1].into()),
            68..70 => flow.sequence = flow.sequence.wrapping_add(byte[1].into()),
            _ => {}
        }
        if flow.options.len() == 12 {
            flow.options[7] = flow.options[7].wrapping_add(1);
        }
        flow.flags = 0x10;
        if byte[2] < 10 && flow.tcp {
            return self.alone(which, byte[3]);
        }
        self.bulk(which, byte[3])
    }

    /// What is sent in one piece or one by one.
    fn bulk(&mut self, which: usize, flags: u8) -> Step {
        let most = 1400 - self.flows[which].header_len();
        let segment_len = match self.random.below(4) {
            0 => 1 + self.random.below(most.min(200)),
            _ => most - self.random.below(200),
        };
        let count = 1 + self.random.below(60.min(60_000 / segment_len));
        let len = segment_len * count - self.random.below(segment_len);
        let fill = self.random.next_u64().to_le_bytes()[0];
        let flow = &mut self.flows[which];
        flow.payload = (0..len).map(|at| fill.wrapping_add(at.to_le_bytes()[0])).collect();
        if flow.tcp {
            flow.flags |= match flags {
                0..100 => 0x08,
                100..120 => 0x01,
                120..130 => 0x80,
                130..140 => 0x40,
                140..150 => 0xc9,
                _ => 0,
            };
        }
        let packet = flow.clone();
        let mut segments = packet.segments(segment_len);
        let sent = u32::try_from(len).expect("short");
        flow.sequence = flow.sequence.wrapping_add(sent);
        flow.ident = flow.ident.wrapping_add(u16::try_from(segments.len()).expect("few"));
        if self.random.chance(70) && segments.len() > 1 {
            let expected = segments.iter().map(arrived).collect();
            return (vec![(packet.vnet(segment_len), packet.unfinished())], expected);
        }
        if self.random.chance(20) && segments.len() > 2 {
            let at = self.random.below(segments.len() - 1);
            segments.swap(at, at + 1);
        }
        one_by_one(&segments)
    }

    /// What never comes in one piece.
    fn alone(&mut self, which: usize, kind: u8) -> Step {
        let flow = &mut self.flows[which];
        flow.payload.clear();
        let mut packet = flow.clone();
        match kind % 5 {
            0 => {
                packet.flags = 0x02;
                packet.options = vec![2, 4, 2, 24, 4, 2, 1, 1];
            }
            1 => packet.flags = 0x14,
            2 => {
                packet.flags = 0x30;
                packet.urgent = 3;
                packet.payload = vec![kind; 7];
            }
            3 => packet.flags = 0x11,
            _ => {}
        }
        one_by_one(&[packet])
    }

    fn ping(&mut self) -> Step {
        let v6 = self.random.chance(50);
        let len = self.random.below(1300);
        let flow = &self.flows[usize::from(v6)];
        let mut echo = vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0x12, 0x34, 0, 1];
        echo.extend((0..len).map(|at| at.to_le_bytes()[0]));
        let payload_len = u16::try_from(echo.len()).expect("short");
        let ident = self.random.next_u64().to_le_bytes();
        let packet = |ttl| {
            let mut echo = echo.clone();
            let header = match flow.addresses {
                [IpAddr::V4(src_addr), IpAddr::V4(dst_addr)] => Ipv4Repr {
                    src_addr,
                    dst_addr,
                    protocol: NextHeader::ICMP,
                    tos: 0,
                    ident: u16::from_le_bytes([ident[0], ident[1]]),
                    dont_fragment: false,
                    ttl,
                    payload_len,
                }
                .emit()
                .to_vec(),
                [IpAddr::V6(src_addr), IpAddr::V6(dst_addr)] => Ipv6Repr {
                    src_addr,
                    dst_addr,
                    next_header: NextHeader::ICMPV6,
                    traffic_class: 0,
                    flow_label: 5,
                    hop_limit: ttl,
                    payload_len,
                }
                .emit()
                .to_vec(),
                _ => panic!("one version"),
            };
            // The checksum is the far host's to look at, and there is none.
            echo[2..4].copy_from_slice(&ident[2..4]);
            let mut packet = [header, echo].concat();
            if !v6 {
                Ipv4Packet::new_checked(&mut packet[..]).expect("a packet").fill_checksum();
            }
            packet
        };
        (vec![(VnetHeader::default(), packet(64))], vec![packet(64 - HOPS)])
    }
}

fn one_by_one(packets: &[HostPacket]) -> Step {
    let sent = packets.iter().map(|packet| (VnetHeader::default(), packet.packet()));
    (sent.collect(), packets.iter().map(arrived).collect())
}

/// The same packet at the other end.
fn arrived(packet: &HostPacket) -> Vec<u8> {
    HostPacket { ttl: packet.ttl - HOPS, ..packet.clone() }.packet()
}
