//! Offloads change no packet: what one LAN sends, in one piece or one by one, the other gets to the last bit of every header,
//! whatever the daemons leave to the kernel.
//!
//! The LANs are TUNs of the test. Into one it writes packets as a host's kernel would hand them over, and from the other it
//! reads what the gateway's kernel makes of what ipsecd delivers.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};

use ipsecd::datapath::segment::Segments;
use ipsecd::io::tun::{Offload, OffloadTun, TunDevice};
use ipsecd::ipsec::PacketBuf;
use ipsecd::wire::vnet::{Gso, VnetHeader};
use nix::poll::{PollFd, PollFlags, poll};

use self::host::Host;
use crate::lab::{Ipsecd, Lab, Peer};

mod host;
mod lan;

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

/// Addresses, protocol and, of TCP and UDP, ports: of those that have them where they most often are.
fn flow_of(packet: &[u8]) -> FlowKey {
    let (protocol, addresses, transport, is_plain) = if packet[0] >> 4 == 4 {
        let is_fragment = packet[6] & 0x3f != 0 || packet[7] != 0;
        (packet[9], 12..20, 20, packet[0] == 0x45 && !is_fragment)
    } else {
        (packet[6], 8..40, 40, true)
    };
    let mut key = packet[addresses].to_vec();
    key.push(protocol);
    if matches!(protocol, 6 | 17) && is_plain {
        key.extend(&packet[transport..transport + 4]);
    }
    key
}
