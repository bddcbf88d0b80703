//! What the inbound worker has opened goes to the TUNs: packets that follow each other in a flow in one piece, where the
//! TUN takes it.

use core::net::IpAddr;
use core::sync::atomic::Ordering;
use std::io::{self, IoSlice};
use std::sync::Arc;

use smallvec::SmallVec;

use super::worker::{Lost, TunPort};
use crate::datapath::Delivered;
use crate::datapath::coalesce::{Coalescer, Joined};
use crate::io::tun::TunDevice;
use crate::ipsec::{TrafficSelector, Worker};
use crate::wire::vnet::{Offloads, VnetHeader};

/// Writes packets to the TUNs that they are for.
pub(super) fn deliver(
    lost: &Lost,
    tuns: &[Arc<TunPort>],
    worker: Worker,
    packets: &Delivered,
    coalescer: &mut Coalescer,
) {
    if let (1, Some(packet)) = (packets.len(), packets.first()) {
        // There is nothing to join it with.
        return match tun_for(tuns, packet) {
            Some(tun) => write(lost, &**tun.way_in(worker), &alone(packet)),
            None => count_lost(lost, 1),
        };
    }
    let offloads = tuns.iter().map(|tun| tun.way_in(worker).offloads()).reduce(Offloads::and);
    coalescer.arrange(packets.iter(), offloads.unwrap_or_default());
    for joined in coalescer.joined() {
        // All of a flow have the same source.
        match tun_for(tuns, &packets[joined.first()]) {
            Some(tun) => write_joined(lost, &**tun.way_in(worker), packets, &joined),
            None => count_lost(lost, joined.parts().count()),
        }
    }
}

fn write_joined(lost: &Lost, tun: &dyn TunDevice, packets: &Delivered, joined: &Joined<'_>) {
    if !joined.is_joined() {
        return write(lost, tun, &alone(&packets[joined.first()]));
    }
    let vnet = joined.vnet.emit();
    let mut parts = SmallVec::<[IoSlice<'_>; 64]>::new();
    parts.extend([IoSlice::new(&vnet), IoSlice::new(joined.header)]);
    parts.extend(joined.parts().map(|(at, skip)| IoSlice::new(&packets[at][skip..])));
    let Err(error) = tun.send(&parts) else { return };
    if !matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) {
        return failed(lost, tun, parts.len() - 2, &error);
    }
    for (nth, (at, _)) in joined.parts().enumerate() {
        match tun.send(&alone(&packets[at])) {
            Ok(()) if nth == 0 => {
                tracing::info!(%error, tun = tun.name(), "packets are written one by one");
                tun.refuses_offloads();
            }
            Ok(()) => {}
            Err(error) => failed(lost, tun, 1, &error),
        }
    }
}

/// A packet that is neither joined with others nor lacks anything, behind its virtio header.
pub(super) fn alone(packet: &[u8]) -> [IoSlice<'_>; 2] {
    [IoSlice::new(&[0; VnetHeader::LEN]), IoSlice::new(packet)]
}

/// Writes one packet, before which stands its virtio header.
pub(super) fn write(lost: &Lost, tun: &dyn TunDevice, parts: &[IoSlice<'_>]) {
    if let Err(error) = tun.send(parts) {
        failed(lost, tun, 1, &error);
    }
}

fn failed(lost: &Lost, tun: &dyn TunDevice, packets: usize, error: &io::Error) {
    count_lost(lost, packets);
    tracing::trace!(%error, tun = tun.name(), packets, "not taken");
}

fn count_lost(lost: &Lost, packets: usize) {
    lost.tun.fetch_add(packets as u64, Ordering::Relaxed);
}

/// The TUN that a packet comes out of: the only one, or the one for its source address.
pub(super) fn tun_for<'a>(tuns: &'a [Arc<TunPort>], packet: &[u8]) -> Option<&'a Arc<TunPort>> {
    if let [only] = tuns {
        return Some(only);
    }
    let source = source_of(packet)?;
    let covers = |ts: &TrafficSelector| ts.start_addr <= source && source <= ts.end_addr;
    tuns.iter().find(|tun| {
        tun.peers.iter().any(|ts| ts.start_addr.is_ipv4() == source.is_ipv4() && covers(ts))
    })
}

/// The source address of an IP packet.
fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?.into()),
        6 => Some(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicBool;
    use std::io::PipeReader;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::sync::Mutex;

    use super::*;
    use crate::ipsec::PacketBuf;
    use crate::wire::ip::{Ipv4Packet, Ipv4Repr, NextHeader};
    use crate::wire::udp::UdpPacket;

    struct Nothing(&'static str, PipeReader);

    impl AsFd for Nothing {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.1.as_fd()
        }
    }

    impl TunDevice for Nothing {
        fn name(&self) -> &str {
            self.0
        }
        fn offloads(&self) -> Offloads {
            Offloads::default()
        }
        fn refuses_offloads(&self) {}
        fn recv(&self, _: &mut [PacketBuf], _: &mut Vec<VnetHeader>) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn send(&self, _: &[IoSlice<'_>]) -> io::Result<()> {
            Ok(())
        }
    }

    /// A TUN that takes packets one by one alone, whatever it was thought to take.
    struct OneByOne {
        pipe: PipeReader,
        refused: AtomicBool,
        taken: Mutex<Vec<Vec<u8>>>,
        error: i32,
    }

    impl AsFd for OneByOne {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.pipe.as_fd()
        }
    }

    impl TunDevice for OneByOne {
        fn name(&self) -> &str {
            "one"
        }
        fn offloads(&self) -> Offloads {
            let refused = self.refused.load(Ordering::Relaxed);
            Offloads { tcp: !refused, udp: !refused }
        }
        fn refuses_offloads(&self) {
            self.refused.store(true, Ordering::Relaxed);
        }
        fn recv(&self, _: &mut [PacketBuf], _: &mut Vec<VnetHeader>) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
            let alone = VnetHeader::default().emit();
            if parts.len() > 2 || *parts[0] != alone {
                return Err(io::Error::from_raw_os_error(self.error));
            }
            self.taken.lock().unwrap().push(parts[1].to_vec());
            Ok(())
        }
    }

    #[test]
    fn where_a_run_is_refused_packets_are_written_one_by_one() {
        for error in [libc::EIO, libc::EINVAL] {
            let device = Arc::new(OneByOne {
                pipe: io::pipe().unwrap().0,
                refused: AtomicBool::new(false),
                taken: Mutex::default(),
                error,
            });
            let queue = Arc::<OneByOne>::clone(&device) as Arc<dyn TunDevice>;
            let port = TunPort { queues: [queue].into(), peers: vec![] };
            let tuns = [Arc::new(port)];
            let packets: Vec<_> = (0..3_u8).map(datagram).collect();
            let lost = Lost::default();
            let mut coalescer = Coalescer::new();
            let mut delivered = Delivered::default();
            for packet in &packets {
                delivered.exchange(&mut PacketBuf::copy_of(packet));
            }
            for again in 1..=2 {
                deliver(&lost, &tuns, Worker::ALONE, &delivered, &mut coalescer);
                assert_eq!(*device.taken.lock().unwrap(), vec![&packets[..]; again].concat());
                assert!(device.refused.load(Ordering::Relaxed), "it is not asked again");
            }
            assert_eq!(lost.tun.load(Ordering::Relaxed), 0);
        }
    }

    /// UDP in IPv4, the `nth` of a flow, that may be joined with its neighbours.
    fn datagram(nth: u8) -> Vec<u8> {
        let (src, dst) = ([10, 2, 0, 1], [10, 1, 0, 1]);
        let header = Ipv4Repr {
            src_addr: src.into(),
            dst_addr: dst.into(),
            protocol: NextHeader::UDP,
            tos: 0,
            ident: nth.into(),
            dont_fragment: true,
            ttl: 64,
            payload_len: 108,
        };
        let mut packet = vec![nth; 128];
        packet[..20].copy_from_slice(&header.emit());
        Ipv4Packet::new_checked(&mut packet[..]).unwrap().fill_checksum();
        packet[20..28].copy_from_slice(&[0x30, 0x39, 0x27, 0x0f, 0, 108, 0, 0]);
        let (src, dst) = (IpAddr::from(src), IpAddr::from(dst));
        UdpPacket::new_checked(&mut packet[20..]).unwrap().fill_checksum(src, dst);
        packet
    }

    fn tun(name: &'static str, start: &str, end: &str) -> Arc<TunPort> {
        let ts = TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: 0xffff,
            start_addr: start.parse().unwrap(),
            end_addr: end.parse().unwrap(),
        };
        let queue: Arc<dyn TunDevice> = Arc::new(Nothing(name, io::pipe().unwrap().0));
        Arc::new(TunPort { queues: [queue].into(), peers: vec![ts] })
    }

    fn v4_packet(source: [u8; 4]) -> [u8; 20] {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&source);
        packet
    }

    #[test]
    fn packet_comes_out_of_the_tun_of_its_source() {
        let tuns = [
            tun("a", "10.2.0.0", "10.2.255.255"),
            tun("six", "fd02::", "fd02::ffff"),
            tun("b", "10.3.0.0", "10.3.255.255"),
        ];
        let name = |packet: &[u8]| tun_for(&tuns, packet).map(|tun| tun.device().name().to_owned());
        assert_eq!(name(&v4_packet([10, 3, 0, 1])).as_deref(), Some("b"));
        assert_eq!(name(&v4_packet([10, 2, 255, 255])).as_deref(), Some("a"));
        assert_eq!(name(&v4_packet([10, 4, 0, 1])), None);
        assert_eq!(name(&[0x45]), None);
        assert_eq!(name(&[]), None);
        let mut six = [0u8; 40];
        six[0] = 0x60;
        six[8..24].copy_from_slice(&"fd02::5".parse::<core::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(name(&six).as_deref(), Some("six"));
    }

    #[test]
    fn only_tun_takes_every_packet() {
        let tuns = [tun("a", "10.2.0.0", "10.2.255.255")];
        assert!(tun_for(&tuns, &v4_packet([192, 0, 2, 1])).is_some());
    }
}
