//! Hosts that are kernels: what TCP and UDP of one LAN make of offloads crosses, and on the wire of the other LAN, which has none and is
//! a bad one, each packet is looked at by tshark.

use std::fs::File;
use std::io::{self, BufWriter, IoSlice, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipsecd::io::sys;
use ipsecd::io::tun::{Offload, OffloadTun, TunDevice};
use ipsecd::ipsec::PacketBuf;
use ipsecd::testing::FixedRandom;
use ipsecd::wire::vnet::VnetHeader;
use nix::poll::{PollFd, PollFlags, poll};

use crate::lab::{Ipsecd, Lab, Need, Peer, netns, process, traffic, wait};

/// Bytes of each TCP transfer.
const TRANSFER: usize = 3_000_000;
/// Of UDP in one direction.
const DATAGRAMS: usize = 3_000;
/// Datagrams that are sent in one piece.
const RUN: usize = 40;
/// What the LAN takes: less than the tunnel.
const MTU: usize = 1281;
const HOSTS: [(&str, &str); 2] = [("10.1.1.2", "10.2.1.77"), ("fd01:1::2", "fd02:1::77")];

#[test]
fn no_capture_of_a_lan_has_a_packet_that_is_malformed_or_joined_wrongly() {
    for offload in ["auto", "off"] {
        let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
        let wire = crossed(&lab, offload);
        let seen = Seen::of(&wire);
        assert_eq!(seen.faults, [""; 0], "{offload}");
        assert!(seen.longest <= MTU, "{} bytes, {offload}", seen.longest);
        assert!(seen.packets > 10_000 && seen.marked > 20, "{seen:?}, {offload}");
    }
}

/// Traffic of many kinds, and a capture of the far LAN.
fn crossed(lab: &Lab, offload: &str) -> PathBuf {
    let (mut a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    for (peer, local, remote) in [(&mut a, &lab.a, &lab.b), (&mut b, &lab.b, &lab.a)] {
        peer.local_subnets = [false, true].map(|v6| local.subnet(1, v6)).to_vec();
        peer.subnets = [false, true].map(|v6| remote.subnet(1, v6)).to_vec();
        peer.esp = "encap = \"udp\"".to_owned();
    }
    b.esp += "\nstart = \"respond\"";
    for side in lab.both() {
        side.gw.ip("link set wan0 gso_max_segs 65535");
    }
    let a = Ipsecd::start_with_offload(&lab.a, &a, offload);
    let b = Ipsecd::start_with_offload(&lab.b, &b, offload);
    b.must_up();
    a.must_up();
    let wire = Wire::start(lab, &lab.dir().join("lan.pcap"));
    for (source, target) in HOSTS {
        let [source, target]: [IpAddr; 2] =
            [source, target].map(|host| host.parse().expect("a host"));
        traffic::answers_within(wait::PATIENCE, &lab.a.lan, source, target);
        traffic::transfer(&lab.a.lan, source, &lab.b.lan, target, TRANSFER);
        traffic::transfer(&lab.b.lan, target, &lab.a.lan, source, TRANSFER);
        datagrams(lab, source, target);
    }
    let file = wire.stop();
    assert!(a.stop().success() && b.stop().success());
    file
}

/// Runs of datagrams of many lengths, as QUIC sends them. On the bad wire some are lost; of the others each is as it was sent.
fn datagrams(lab: &Lab, source: IpAddr, target: IpAddr) {
    let bind = |net: &netns::Netns, address| {
        net.enter(|| UdpSocket::bind((address, 0)).expect("a socket"))
    };
    let (from, to) = (bind(&lab.a.lan, source), bind(&lab.b.lan, target));
    sys::set_option(to.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)
        .expect("root may");
    to.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let there: SocketAddr = to.local_addr().expect("an address");
    from.connect(there).expect("a route");
    let mut random = FixedRandom::new(3, 0);
    let mut sent = 0_u32;
    let mut arrived = 0;
    while usize::try_from(sent).expect("few") < DATAGRAMS {
        let len = [8 + random.below(60), 100 + random.below(900), 1200][random.below(3)];
        let count = 1 + random.below(RUN);
        let mut run = Vec::new();
        for _ in 0..count {
            run.extend(datagram(sent, len));
            sent += 1;
        }
        // The last is shorter, but says which it is.
        run.truncate(run.len() - random.below(len - 7));
        sys::set_option(
            from.as_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            i32::try_from(len).expect("short"),
        )
        .expect("UDP_SEGMENT");
        assert_eq!(from.send(&run).expect("sent"), run.len());
        arrived += received(&to, count);
    }
    let lost = usize::try_from(sent).expect("few") - arrived;
    assert!(lost < DATAGRAMS / 10, "{lost} of {sent} datagrams are lost");
}

/// Reads at most so many, until none comes for a while; each is the beginning of what was sent.
fn received(socket: &UdpSocket, most: usize) -> usize {
    let mut buffer = [0; 2000];
    for nth in 0..most {
        // The wire may have lost the last, but the first of the next run tells no more.
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let Ok(len) = socket.recv(&mut buffer) else { return nth };
        let number = buffer.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).expect("longer");
        assert_eq!(buffer[..len], datagram(number, len), "datagram {number}");
    }
    most
}

fn datagram(number: u32, len: usize) -> Vec<u8> {
    let mut random = FixedRandom::new(number.into(), 0);
    let mut datagram = number.to_be_bytes().to_vec();
    datagram.extend(random.next_u64().to_be_bytes().iter().cycle().take(len - 4));
    datagram
}

/// A LAN between the gateway and a host, of two TUNs and this program, which loses, doubles, delays and marks packets.
struct Wire {
    end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    file: PathBuf,
}

impl Wire {
    fn start(lab: &Lab, file: &Path) -> Self {
        let tun = |net: &netns::Netns, name: &str| {
            let tun = net.enter(|| OffloadTun::create(name, Offload::Off)).expect("a TUN");
            net.sh(&format!("echo 1 > /proc/sys/net/ipv6/conf/{name}/addr_gen_mode"));
            net.ip(&format!("link set {name} up mtu {MTU}"));
            tun
        };
        let (gw, lan) = (&lab.b.gw, &lab.b.lan);
        let (near, far) = (tun(gw, "lan9"), tun(lan, "eth9"));
        for (family, host, all) in
            [("-4", "10.2.1.77/32", "0.0.0.0/0"), ("-6", "fd02:1::77/128", "::/0")]
        {
            gw.ip(&format!("{family} route add {host} dev lan9"));
            lan.ip(&format!("{family} addr add {host} dev eth9"));
            lan.ip(&format!("{family} rule add from {host} table 9"));
            lan.ip(&format!("{family} route add {all} dev eth9 table 9"));
        }
        for net in [&lab.a.lan, lan] {
            net.sh("echo 1 > /proc/sys/net/ipv4/tcp_ecn");
        }
        let end = Arc::new(AtomicBool::new(false));
        let (until, to) = (Arc::clone(&end), file.to_owned());
        let thread = thread::spawn(move || carry(&near, &far, &until, &to));
        Self { end, thread, file: file.to_owned() }
    }

    fn stop(self) -> PathBuf {
        self.end.store(true, Ordering::SeqCst);
        self.thread.join().expect("the wire ends");
        self.file
    }
}

fn carry(near: &OffloadTun, far: &OffloadTun, end: &AtomicBool, file: &Path) {
    let mut pcap = BufWriter::new(File::create(file).expect("a file"));
    // LINKTYPE_RAW: IPv4 or IPv6, as its first half byte says.
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101];
    pcap.write_all(&header.map(u32::to_le_bytes).concat()).expect("written");
    let mut random = FixedRandom::new(5, 0);
    let mut buffers: Vec<_> = (0..64).map(|_| PacketBuf::new(65_535)).collect();
    let (mut headers, mut time, mut held) = (Vec::new(), 0_u32, None);
    while !end.load(Ordering::SeqCst) {
        let mut fds = [near, far].map(|tun| PollFd::new(tun.as_fd(), PollFlags::POLLIN));
        poll(&mut fds, 50_u16).expect("poll");
        for (from, to, is_bad) in [(near, far, true), (far, near, false)] {
            match from.recv(&mut buffers, &mut headers) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                other => other.expect("a TUN that is up"),
            }
            for packet in &mut buffers[..headers.len()] {
                time += 1;
                record(&mut pcap, time, packet);
                let chance = random.below(if is_bad { 1000 } else { 1 });
                match chance {
                    // Lost.
                    1..4 => continue,
                    4..8 => put(to, packet),
                    // Overtaken by the next.
                    8..16 if held.is_none() => {
                        held = Some(packet.to_vec());
                        continue;
                    }
                    16..40 => mark(packet),
                    _ => {}
                }
                put(to, packet);
                if let Some(late) = held.take().filter(|_| is_bad) {
                    put(to, &late);
                }
            }
        }
    }
    pcap.flush().expect("written");
}

fn put(tun: &OffloadTun, packet: &[u8]) {
    let vnet = VnetHeader::default().emit();
    // A queue that is full loses packets, as any wire does.
    let _full = tun.send(&[IoSlice::new(&vnet), IoSlice::new(packet)]);
}

/// Congestion experienced, where the transport can hear of it.
fn mark(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 && packet[1] & 0x30 != 0 {
        packet[1] |= 0x30;
    } else if packet[0] >> 4 == 4 && packet[1] & 3 != 0 {
        packet[1] |= 3;
        ipsecd::wire::ip::Ipv4Packet::new_checked(packet).expect("a packet").fill_checksum();
    }
}

fn record(pcap: &mut impl Write, time: u32, packet: &[u8]) {
    let len = u32::try_from(packet.len()).expect("short");
    let header = [time / 1_000_000, time % 1_000_000, len, len];
    pcap.write_all(&header.map(u32::to_le_bytes).concat()).expect("written");
    pcap.write_all(packet).expect("written");
}

/// What tshark says of a capture.
#[derive(Debug, Default)]
struct Seen {
    packets: usize,
    longest: usize,
    /// TCP segments that echo congestion, or tell that they have slowed down for it.
    marked: usize,
    faults: Vec<String>,
}

impl Seen {
    fn of(file: &Path) -> Self {
        let mut tshark = process::tied("tshark");
        tshark.args(["-n", "-r"]).arg(file);
        for layer in ["ip", "tcp", "udp"] {
            tshark.args(["-o", &format!("{layer}.check_checksum:TRUE")]);
        }
        // What is carried is nothing that a dissector knows, whatever it looks like.
        for layer in ["tcp", "udp"] {
            tshark.args(["-d", &format!("{layer}.port==1-65535,data")]);
        }
        tshark.args(["-T", "fields", "-E", "separator=;"]);
        for field in [
            "frame.number",
            "frame.len",
            "tcp.flags",
            "_ws.col.Info",
            "ip.checksum.status",
            "tcp.checksum.status",
            "udp.checksum.status",
            "_ws.malformed",
            "icmp.checksum.status",
            "icmpv6.checksum.status",
        ] {
            tshark.args(["-e", field]);
        }
        let mut seen = Self::default();
        for line in process::run(&mut tshark).lines() {
            let fields: Vec<_> = line.split(';').collect();
            seen.packets += 1;
            seen.longest = seen.longest.max(fields[1].parse().expect("a length"));
            let flags = u32::from_str_radix(fields[2].trim_start_matches("0x"), 16).unwrap_or(0);
            // ECE or CWR without SYN, which only asks for ECN.
            seen.marked += usize::from(flags & 0xc0 != 0 && flags & 2 == 0);
            // 1 is good; 0 is bad, and 2 unverified, as no packet that is whole is. Where Linux sums in software it writes ones for a sum
            // of zero in TCP, too, of which tshark says that they should be zeros, and that nothing else is wrong.
            let is_ones = fields[3].contains("[TCP CHECKSUM 0xFFFF]");
            let is_wrong = |status: &&str| status.split(',').any(|one| one == "0");
            let bad = fields[4..7].iter().chain(&fields[8..10]).any(is_wrong) && !is_ones;
            if bad || !fields[7].is_empty() {
                seen.faults.push(line.to_owned());
            }
        }
        seen
    }
}
