//! Raw sockets of IP protocols 50 and 51: ESP and AH without UDP (RFC 4303 §2, RFC 4302 §2), and whole packets.
//!
//! What is received is a whole packet, from its IP header on, since AH covers that and transport mode gives it back. An
//! IPv4 raw socket hands it up. An IPv6 one does not: [`Chain`] puts together again what it tells of the headers. Packets
//! that came in fragments are whole when a raw socket sees them.

use core::ffi::c_int;
use core::net::IpAddr;
use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;

use socket2::Type;

use super::steer;
use super::sys::{self, Received};
use super::udp::{Fragment, Pair, Socket};
use crate::ipsec::{PacketBuf, Worker};
use crate::wire::ip::{Ipv6Packet, Ipv6Repr, NextHeader};

/// The sockets for ESP on every address, to which the kernel adds the IP header, for so many workers.
///
/// # Errors
/// Those of the socket calls: `PermissionDenied` without CAP_NET_RAW.
pub fn esp(v6: bool, workers: u16) -> io::Result<Pair> {
    let main = receivers(v6, libc::IPPROTO_ESP, SPI_IN_ESP, workers)?;
    let fragmenting = Socket::new(v6, Type::RAW, libc::IPPROTO_ESP, Fragment::Allowed)?;
    // Every raw socket of the protocol would get a copy.
    fragmenting.receive_nothing()?;
    Ok(Pair { main, fragmenting })
}

/// The sockets that receive AH on every address, one a worker. They are not for sending: AH covers the IP header.
///
/// # Errors
/// As [`esp`].
pub fn ah(v6: bool, workers: u16) -> io::Result<Vec<Socket>> {
    receivers(v6, libc::IPPROTO_AH, SPI_IN_AH, workers)
}

/// The socket through which whole packets leave, with the IP header that they have. It receives nothing. A packet that is
/// longer than the path takes fails with `EMSGSIZE` if it may not be fragmented, or is longer than the link takes.
///
/// # Errors
/// As [`esp`].
pub fn whole(v6: bool) -> io::Result<Socket> {
    // Of this protocol a socket takes the header from its user, and gets no packets.
    Socket::new(v6, Type::RAW, libc::IPPROTO_RAW, Fragment::Never)
}

/// Where the SPI is behind the IP header (RFC 4303 §2, RFC 4302 §2).
const SPI_IN_ESP: u32 = 0;
const SPI_IN_AH: u32 = 4;

/// One a worker. Each packet comes to every raw socket of its protocol, and a filter of each leaves it the worker's own.
fn receivers(v6: bool, protocol: c_int, spi_at: u32, workers: u16) -> io::Result<Vec<Socket>> {
    Worker::all(workers).map(|worker| receiver(v6, protocol, spi_at, worker)).collect()
}

fn receiver(v6: bool, protocol: c_int, spi_at: u32, worker: Worker) -> io::Result<Socket> {
    let socket = Socket::new(v6, Type::RAW, protocol, Fragment::Never)?;
    if !worker.is_alone() {
        socket.attach(&steer::packets(v6, spi_at, worker))?;
    }
    if v6 {
        for option in [
            libc::IPV6_RECVHOPLIMIT,
            libc::IPV6_FLOWINFO,
            libc::IPV6_RECVHOPOPTS,
            libc::IPV6_RECVDSTOPTS,
            libc::IPV6_RECVRTHDR,
        ] {
            sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, option, 1)?;
        }
    }
    Ok(socket)
}

/// Receives packets as [`Socket::recv`]. Over IPv6 what is received begins behind the IP headers, and `chains`, one for
/// each buffer, have them: [`Chain::put_before`].
///
/// # Errors
/// As there.
pub fn recv(
    socket: &Socket,
    buffers: &mut [IoSliceMut<'_>],
    received: &mut Vec<Received>,
    chains: &mut [Chain],
) -> io::Result<()> {
    if !socket.is_v6() {
        return socket.recv(buffers, received);
    }
    chains.iter_mut().take(buffers.len()).for_each(|chain| *chain = Chain::default());
    sys::recv_batch_with(socket.as_fd(), buffers, received, &mut |index, kind, data| {
        if let Some(chain) = chains.get_mut(index) {
            chain.hear(kind, data);
        }
    })
}

/// The headers of an IPv6 packet, as its socket tells of them.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// The fixed header, without addresses and lengths, and the extension headers in the order on the wire.
    bytes: [u8; Self::MAX_LEN],
    len: usize,
    /// Where the last header is named.
    named_at: usize,
    /// Something did not fit, or is not what it must be.
    broken: bool,
}

impl Default for Chain {
    fn default() -> Self {
        let mut bytes = [0; Self::MAX_LEN];
        bytes[0] = 0x60;
        let named_at = Ipv6Packet::<&[u8]>::NEXT_HEADER_AT;
        Self { bytes, len: Ipv6Repr::LEN, named_at, broken: false }
    }
}

impl Chain {
    /// Headers together longer than this are not taken, as of a packet that nobody sends.
    pub const MAX_LEN: usize = PacketBuf::HEADROOM;

    /// RFC 3542 §6, §8, §9: each header is told whole. Linux tells hop-by-hop options first, and then the others in the
    /// order in which they stand.
    fn hear(&mut self, kind: c_int, data: &[u8]) {
        match kind {
            libc::IPV6_HOPLIMIT => {
                if let Some(&value) = data.first_chunk() {
                    let [hop_limit, ..] = c_int::from_ne_bytes(value).to_le_bytes();
                    self.bytes[7] = hop_limit;
                }
            }
            // Class and label as they stand in the header.
            libc::IPV6_FLOWINFO => {
                if let Some(&[b0, b1, b2, b3]) = data.first_chunk() {
                    self.bytes[..4].copy_from_slice(&[0x60 | b0 & 0x0f, b1, b2, b3]);
                }
            }
            libc::IPV6_HOPOPTS => self.push(NextHeader::HOP_BY_HOP, data),
            libc::IPV6_DSTOPTS => self.push(NextHeader::DESTINATION_OPTIONS, data),
            libc::IPV6_RTHDR => self.push(NextHeader::ROUTING, data),
            _ => {}
        }
    }

    /// Each header is named anew in the one before it: there may have been a Fragment header between them.
    fn push(&mut self, kind: NextHeader, header: &[u8]) {
        let end = self.len + header.len();
        let whole = header.get(1).is_some_and(|&len| (usize::from(len) + 1) * 8 == header.len());
        match self.bytes.get_mut(self.len..end) {
            Some(space) if whole => space.copy_from_slice(header),
            _ => {
                self.broken = true;
                return;
            }
        }
        self.bytes[self.named_at] = kind.0;
        (self.named_at, self.len) = (self.len, end);
    }

    /// Puts the headers before what was received, which is `protocol`. `false`, and the packet is as it was, if that is not
    /// possible.
    #[must_use]
    pub fn put_before(
        mut self,
        packet: &mut PacketBuf,
        received: &Received,
        protocol: NextHeader,
    ) -> bool {
        let (IpAddr::V6(src), Some(IpAddr::V6(dst))) = (received.from.ip(), received.local) else {
            return false;
        };
        let len = self.len - Ipv6Repr::LEN + packet.len();
        let Ok(payload_len) = u16::try_from(len) else { return false };
        if self.broken || received.truncated || !packet.push_front(self.len) {
            return false;
        }
        self.bytes[self.named_at] = protocol.0;
        self.bytes[4..6].copy_from_slice(&payload_len.to_be_bytes());
        self.bytes[8..24].copy_from_slice(&src.octets());
        self.bytes[24..40].copy_from_slice(&dst.octets());
        packet[..self.len].copy_from_slice(&self.bytes[..self.len]);
        true
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::io::IoSlice;

    use nix::poll::{PollFd, PollFlags, poll};

    use super::*;
    use crate::io::sys::ToSend;
    use crate::wire::ip::Ipv4Packet;

    fn received() -> Received {
        Received {
            len: 3,
            from: "[fd01::1]:0".parse().unwrap(),
            local: Some("fd02::2".parse().unwrap()),
            tos: 0,
            segment_len: None,
            truncated: false,
        }
    }

    fn rebuilt(chain: Chain) -> Option<Vec<u8>> {
        let mut packet = PacketBuf::copy_of(&[7, 8, 9]);
        chain.put_before(&mut packet, &received(), NextHeader::AH).then(|| packet.to_vec())
    }

    #[test]
    fn headers_are_as_they_were() {
        let mut chain = Chain::default();
        chain.hear(libc::IPV6_HOPLIMIT, &63_i32.to_ne_bytes());
        chain.hear(libc::IPV6_FLOWINFO, &[0x0b, 0x91, 0x23, 0x45]);
        // As sent: hop-by-hop options, destination options, routing (after which was a Fragment header).
        chain.hear(libc::IPV6_HOPOPTS, &[60, 0, 5, 2, 0, 0, 1, 0]);
        chain.hear(libc::IPV6_DSTOPTS, &[43, 0, 1, 4, 0, 0, 0, 0]);
        chain.hear(libc::IPV6_RTHDR, &[44, 0, 4, 0, 0, 0, 0, 0]);
        let packet = rebuilt(chain).unwrap();
        let ip = Ipv6Packet::new_checked(&packet).unwrap();
        assert_eq!(packet[..8], [0x6b, 0x91, 0x23, 0x45, 0, 27, 0, 63]);
        assert_eq!(
            (ip.src_addr(), ip.dst_addr()),
            ("fd01::1".parse().unwrap(), "fd02::2".parse().unwrap())
        );
        let kinds: Vec<_> = ip.extension_headers().map(|header| header.unwrap().kind).collect();
        assert_eq!(
            kinds,
            [NextHeader::HOP_BY_HOP, NextHeader::DESTINATION_OPTIONS, NextHeader::ROUTING]
        );
        let upper = ip.upper_layer().unwrap();
        assert_eq!((upper.protocol, upper.offset, upper.fragment), (NextHeader::AH, 64, None));
        assert_eq!(packet[64..], [7, 8, 9]);
    }

    #[test]
    fn a_packet_without_extension_headers_has_the_fixed_one() {
        let packet = rebuilt(Chain::default()).unwrap();
        assert_eq!((packet.len(), packet[6], packet[5]), (43, 51, 3));
    }

    #[test]
    fn what_does_not_fit_or_is_cut_is_no_packet() {
        let long = [&[0, 31][..], &[0; 254]].concat();
        let mut chain = Chain::default();
        chain.hear(libc::IPV6_HOPOPTS, &long);
        assert_eq!(rebuilt(chain), None);
        let mut chain = Chain::default();
        chain.hear(libc::IPV6_HOPOPTS, &[60, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(rebuilt(chain), None);
        let cut = Received { truncated: true, ..received() };
        let mut packet = PacketBuf::copy_of(&[7, 8, 9]);
        assert!(!Chain::default().put_before(&mut packet, &cut, NextHeader::AH));
        assert_eq!(&*packet, [7, 8, 9]);
    }

    /// Sends a whole packet over loopback, and gives what the socket of its protocol makes of it. `None` without the
    /// privilege.
    fn crossed(v6: bool, protocol: NextHeader, packet: &[u8]) -> Option<PacketBuf> {
        let receiver = match receiver(v6, protocol.0.into(), SPI_IN_ESP, Worker::ALONE) {
            Ok(receiver) => receiver,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            Err(error) => panic!("{error}"),
        };
        let to: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        let parts = [IoSlice::new(packet)];
        let (to, local) = ((to, 0).into(), Some(to));
        let message = ToSend { parts: &parts, segment_len: None, to, local, tos: 0 };
        assert_eq!(whole(v6).unwrap().send(&[message]).unwrap(), 1);
        let mut buf = PacketBuf::new(2000);
        let mut chains = [Chain::default()];
        let mut received = Vec::new();
        loop {
            let mut fds = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, 5000_u16).unwrap(), 1, "it arrives");
            let mut buffers = [IoSliceMut::new(buf.space_mut())];
            recv(&receiver, &mut buffers, &mut received, &mut chains).unwrap();
            buf.set_len(received[0].len);
            if v6 {
                assert!(chains[0].put_before(&mut buf, &received[0], protocol));
            }
            // Others may send over loopback as well.
            if buf.ends_with(&packet[packet.len() - 8..]) {
                return Some(buf);
            }
        }
    }

    /// Its last eight bytes are no other packet's.
    fn payload() -> [u8; 24] {
        let mut payload = [7; 24];
        payload[16..20].copy_from_slice(&std::process::id().to_be_bytes());
        payload
    }

    #[test]
    fn an_ipv4_packet_arrives_as_it_was_sent() {
        for protocol in [NextHeader::AH, NextHeader::ESP] {
            // Router alert, and an identification and TTL of its own.
            let mut packet = vec![0x46, 0xb8, 0, 48, 0xab, 0xcd, 0x40, 0, 33, protocol.0, 0, 0];
            packet.extend([127, 0, 0, 1, 127, 0, 0, 1, 0x94, 4, 0, 0]);
            packet.extend(payload());
            Ipv4Packet::new_checked(&mut packet).unwrap().fill_checksum();
            if let Some(arrived) = crossed(false, protocol, &packet) {
                assert_eq!(*arrived, packet);
            }
        }
    }

    #[test]
    fn each_packet_comes_to_the_socket_of_its_worker_alone() {
        const WORKERS: u16 = 3;
        for (v6, protocol, at) in
            [false, true].into_iter().flat_map(|v6| [(v6, 50, SPI_IN_ESP), (v6, 51, SPI_IN_AH)])
        {
            let receivers = match receivers(v6, protocol, at, WORKERS) {
                Ok(receivers) => receivers,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
                Err(error) => panic!("{error}"),
            };
            let host: IpAddr =
                if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            let sender = Socket::new(v6, Type::RAW, protocol, Fragment::Never).unwrap();
            sender.receive_nothing().unwrap();
            // Of ours, whatever else there is on loopback.
            let arrived = |socket: &Socket, payload: &[u8]| {
                let (mut space, mut received) = ([0; 128], Vec::new());
                while socket.recv(&mut [IoSliceMut::new(&mut space)], &mut received).is_ok() {
                    if space[..received[0].len].ends_with(payload) {
                        return true;
                    }
                }
                false
            };
            for spi in [256_u32, 257, 258, 0xffff_ffff, 0x8000_0001] {
                let mut payload = vec![9; at as usize];
                payload.extend(spi.to_be_bytes());
                payload.extend(self::payload());
                let parts = [IoSlice::new(&payload)];
                let message = ToSend {
                    parts: &parts,
                    segment_len: None,
                    to: (host, 0).into(),
                    local: Some(host),
                    tos: 0,
                };
                assert_eq!(sender.send(&[message]).unwrap(), 1);
                for (worker, socket) in Worker::all(WORKERS).zip(&receivers) {
                    let is_its_own = worker.has(crate::ipsec::Spi::new(spi).unwrap());
                    assert_eq!(arrived(socket, &payload), is_its_own, "{v6} {spi:x} {worker:?}");
                }
            }
        }
    }

    #[test]
    fn an_ipv6_packet_arrives_as_it_was_sent() {
        for protocol in [NextHeader::AH, NextHeader::ESP] {
            // Class, flow label, hop-by-hop options, destination options twice.
            let mut packet = vec![0x6b, 0x91, 0x23, 0x45, 0, 56, 0, 33];
            packet.extend(Ipv6Addr::LOCALHOST.octets());
            packet.extend(Ipv6Addr::LOCALHOST.octets());
            packet.extend([60, 0, 5, 2, 0, 0, 1, 0]);
            packet.extend([60, 0, 0x1e, 4, 1, 2, 3, 4]);
            packet.extend([protocol.0, 1, 0x3e, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
            packet.extend(payload());
            if let Some(arrived) = crossed(true, protocol, &packet) {
                assert_eq!(*arrived, packet);
            }
        }
    }
}
