//! UDP sockets of IKE and of ESP in UDP (ports 500 and 4500), and what they share with raw ones: [`Socket`].
//!
//! DF is an option of a socket, not of a datagram, so where ESP leaves there are two sockets, a [`Pair`]: one that
//! sets DF, and one whose datagrams the kernel or a router may fragment. Of raw ones only the first receives; of several workers each
//! has a first one of its own, which receives what is for that worker (`io::steer`). Of port 4500 the second receives what is
//! IKE, so that IKE has a buffer of its own, which no flood of ESP fills: a peer whose liveness checks were lost in it would take us for
//! dead.
//!
//! The path MTU is the kernel's: it takes ICMP "fragmentation needed" and "packet too big" for packets of these sockets
//! into its route exceptions (bounded, aged after `net.ipv4.route.mtu_expires`), and then refuses a datagram that is too
//! big with `EMSGSIZE`; [`PathMtus`] reads it. So no error queue is needed, and no ICMP error for one peer disturbs
//! the sending to another.

use core::ffi::c_int;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::steer;
use super::sys::{self, Received, ToSend};
use crate::ipsec::Worker;

/// The mark of every packet that we send outside; the policy routing rule keeps such packets out of the TUN.
pub const MARK: u32 = 0x4301;

/// Receive and send buffer of a socket, in bytes: 4 MiB hold some 20 ms at 1 Gbit/s.
const BUFFER: usize = 4 << 20;

/// What may become of a packet that does not fit the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// DF is set; the send fails with `EMSGSIZE`.
    Never,
    /// It is fragmented, by us or (IPv4) by a router.
    Allowed,
}

/// A socket for datagrams, of UDP or raw, of one IP version.
#[derive(Debug)]
pub struct Socket {
    inner: socket2::Socket,
    v6: bool,
    /// Whether it takes several datagrams in one piece.
    segments: AtomicBool,
}

/// The two sockets of a port or protocol, see the module.
#[derive(Debug)]
pub struct Pair {
    /// Sets DF; receives, of UDP what is not IKE. One a worker, the first worker's first.
    pub(super) main: Vec<Socket>,
    /// Its datagrams may be fragmented; receives IKE of UDP, and nothing else.
    pub(super) fragmenting: Socket,
}

impl Socket {
    /// A socket that is marked, tells the local address and TOS of what it receives, and does not block.
    pub(super) fn new(
        v6: bool,
        kind: Type,
        protocol: c_int,
        fragment: Fragment,
    ) -> io::Result<Self> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let inner = socket2::Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
        inner.set_nonblocking(true)?;
        inner.set_mark(MARK)?;
        // Beyond the system's limit for others; without the capability the limit holds.
        if setsockopt(&inner, sockopt::RcvBufForce, &BUFFER).is_err() {
            inner.set_recv_buffer_size(BUFFER)?;
        }
        if setsockopt(&inner, sockopt::SndBufForce, &BUFFER).is_err() {
            inner.set_send_buffer_size(BUFFER)?;
        }
        let fd = inner.as_fd();
        if v6 {
            // A raw socket of IPv6 never has IPv4, and refuses the option.
            if kind == Type::DGRAM {
                inner.set_only_v6(true)?;
            }
            sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
            let discover = match fragment {
                Fragment::Never => libc::IPV6_PMTUDISC_DO,
                Fragment::Allowed => libc::IPV6_PMTUDISC_DONT,
            };
            sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, discover)?;
        } else {
            sys::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            sys::set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
            let discover = match fragment {
                Fragment::Never => libc::IP_PMTUDISC_DO,
                Fragment::Allowed => libc::IP_PMTUDISC_DONT,
            };
            sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover)?;
        }
        Ok(Self { inner, v6, segments: AtomicBool::new(false) })
    }

    /// A UDP socket of a port on every address, for IKE alone: fragmentation is allowed.
    ///
    /// # Errors
    /// Those of the socket calls: `AddrInUse` if another IKE daemon has the port, `Unsupported` or similar without
    /// this version of IP.
    pub fn udp(port: u16, v6: bool) -> io::Result<Self> {
        let socket = Self::new(v6, Type::DGRAM, libc::IPPROTO_UDP, Fragment::Allowed)?;
        // Nobody asks for the TOS of an IKE message, and to tell it takes time that a flood has none of.
        let (level, option) = if v6 {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)
        } else {
            (libc::IPPROTO_IP, libc::IP_RECVTOS)
        };
        sys::set_option(socket.as_fd(), level, option, 0)?;
        socket.inner.bind(&any(v6, port))?;
        Ok(socket)
    }

    /// Whether it is of IPv6.
    #[must_use]
    pub const fn is_v6(&self) -> bool {
        self.v6
    }

    /// Receives what is there, without waiting: [`sys::recv_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn recv(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut Vec<Received>,
    ) -> io::Result<()> {
        sys::recv_batch(self.as_fd(), buffers, received)
    }

    /// Whether a message may be several datagrams ([`ToSend::segment_len`]).
    #[must_use]
    pub fn takes_segments(&self) -> bool {
        self.segments.load(Ordering::Relaxed)
    }

    /// It has refused what it was thought to take; it is not asked again.
    pub fn refuses_segments(&self) {
        self.segments.store(false, Ordering::Relaxed);
    }

    /// Has UDP take and give several datagrams in one piece, where the kernel can do that.
    fn use_segments(&self) {
        let fd = self.as_fd();
        let can_send = sys::get_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        self.segments.store(can_send, Ordering::Relaxed);
        if let Err(error) = sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1) {
            tracing::debug!(%error, "no UDP_GRO");
        }
    }

    /// Receive and send buffer as the kernel gave them, in bytes.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn buffers(&self) -> io::Result<(usize, usize)> {
        Ok((self.inner.recv_buffer_size()?, self.inner.send_buffer_size()?))
    }

    /// Datagrams that the kernel had for it and dropped: [`sys::dropped`]. 0 where the kernel does not tell.
    #[must_use]
    pub fn dropped(&self) -> u32 {
        sys::dropped(self.as_fd()).unwrap_or(0)
    }

    /// Sends without waiting: [`sys::send_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, messages: &[ToSend<'_>]) -> io::Result<usize> {
        sys::send_batch(self.as_fd(), messages)
    }

    /// The same socket for tokio to wait on until there is something to receive, within its runtime. Not until there is room to send:
    /// whatever has left would wake us.
    ///
    /// # Errors
    /// Those of dup(2) and epoll(7).
    #[expect(deprecated, reason = "sound for an OwnedFd, and what takes its place is unsafe")]
    pub fn watched(&self) -> io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::with_interest(self.inner.try_clone()?.into(), Interest::READABLE)
    }

    /// Drops whatever would be received.
    pub(super) fn receive_nothing(&self) -> io::Result<()> {
        self.attach(&steer::TAKE_NOTHING)
    }

    /// Receives what the program says.
    pub(super) fn attach(&self, filter: &[SockFilter]) -> io::Result<()> {
        self.inner.attach_filter(filter)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Pair {
    /// The sockets of a UDP port on every address, for so many workers. `offload`: several datagrams may come and go in one piece.
    ///
    /// # Errors
    /// As [`Socket::udp`].
    pub fn udp(port: u16, v6: bool, offload: bool, workers: u16) -> io::Result<Self> {
        let new = |fragment| {
            let socket = Socket::new(v6, Type::DGRAM, libc::IPPROTO_UDP, fragment)?;
            socket.inner.set_reuse_port(true)?;
            Ok::<_, io::Error>(socket)
        };
        // All have the port. A program names which of them receives; they are numbered as they are bound.
        let mut main = vec![new(Fragment::Never)?];
        main[0].inner.bind(&any(v6, port))?;
        let port = main[0].inner.local_addr()?.as_socket().map_or(port, |addr| addr.port());
        steer_datagrams(&main[0], 1, workers)?;
        for _ in 1..workers {
            let socket = new(Fragment::Never)?;
            socket.inner.bind(&any(v6, port))?;
            main.push(socket);
        }
        let fragmenting = new(Fragment::Allowed)?;
        fragmenting.inner.bind(&any(v6, port))?;
        if workers > 1
            && let Err(error) = steer_datagrams(&main[0], workers, workers)
        {
            tracing::info!(%error, port, "one worker receives for all");
        }
        if offload {
            // Before the kernel joins what comes from a link it asks a socket whether it may, and finds that one by the hash of the flow,
            // without the program: were it not all of them, many peers would come packet by packet.
            main.iter().for_each(Socket::use_segments);
            fragmenting.use_segments();
        }
        Ok(Self { main, fragmenting })
    }

    /// The one for a packet that a worker sends.
    #[must_use]
    pub fn choose(&self, fragment: Fragment, worker: Worker) -> &Socket {
        match fragment {
            Fragment::Never => self.main(worker),
            Fragment::Allowed => &self.fragmenting,
        }
    }

    /// Those that receive for workers.
    pub fn mains(&self) -> impl Iterator<Item = &Socket> {
        self.main.iter()
    }

    /// The one that receives IKE, of UDP.
    #[must_use]
    pub const fn ike(&self) -> &Socket {
        &self.fragmenting
    }

    /// The one that receives for a worker.
    #[must_use]
    pub fn main(&self, worker: Worker) -> &Socket {
        self.main.get(usize::from(worker.index())).unwrap_or(&self.main[0])
    }
}

fn steer_datagrams(first: &Socket, workers: u16, ike: u16) -> io::Result<()> {
    let mut instructions = steer::datagrams(workers, ike);
    let len = u16::try_from(instructions.len()).unwrap_or(u16::MAX);
    let program = libc::sock_fprog { len, filter: instructions.as_mut_ptr() };
    Ok(setsockopt(&first.inner, sockopt::AttachReusePortCbpf, &program)?)
}

/// The address that a packet of ours to `remote` gets, and the path MTU as the kernel knows it.
///
/// # Errors
/// Those of connect(2): `NetworkUnreachable` without a route.
pub fn route_to(remote: IpAddr) -> io::Result<(IpAddr, u16)> {
    let socket = connected(None, remote)?;
    let local = socket.local_addr()?.as_socket().map(|addr| addr.ip());
    let local = local.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((local, mtu_of(&socket, remote)?))
}

/// Reads path MTUs as the kernel knows them. For each of our addresses a socket is kept: to make one takes most of the time.
#[derive(Debug, Default)]
pub struct PathMtus {
    /// The one that was made last stands last.
    kept: Vec<(IpAddr, socket2::Socket)>,
}

impl PathMtus {
    /// Sockets that are kept.
    const MOST: usize = 8;

    /// The path MTU from `local` to `remote`, in bytes.
    ///
    /// # Errors
    /// Those of bind(2) and connect(2).
    pub fn read(&mut self, local: IpAddr, remote: IpAddr) -> io::Result<u16> {
        // One that chose its address itself would go on with it.
        if local.is_unspecified() {
            return mtu_of(&connected(None, remote)?, remote);
        }
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == local) {
            let (_, socket) = &self.kept[at];
            let read = socket.connect(&there(remote).into()).and_then(|()| mtu_of(socket, remote));
            if read.is_err() {
                // Its address may have gone, and be another interface's when it comes again.
                self.kept.remove(at);
            }
            return read;
        }
        let socket = connected(Some(local), remote)?;
        let mtu = mtu_of(&socket, remote)?;
        // It has a port.
        socket.attach_filter(&steer::TAKE_NOTHING)?;
        if self.kept.len() == Self::MOST {
            self.kept.remove(0);
        }
        self.kept.push((local, socket));
        Ok(mtu)
    }
}

/// Any port will do.
const fn there(remote: IpAddr) -> SocketAddr {
    SocketAddr::new(remote, 4500)
}

fn connected(local: Option<IpAddr>, remote: IpAddr) -> io::Result<socket2::Socket> {
    let remote = there(remote);
    let socket = socket2::Socket::new(Domain::for_address(remote), Type::DGRAM, None)?;
    socket.set_mark(MARK)?;
    if let Some(local) = local.filter(|local| !local.is_unspecified()) {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    socket.connect(&remote.into())?;
    Ok(socket)
}

pub(super) fn mtu_of(socket: &socket2::Socket, remote: IpAddr) -> io::Result<u16> {
    let mtu = if remote.is_ipv6() {
        sys::get_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_MTU)?
    } else {
        sys::get_option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_MTU)?
    };
    // Loopback has 65536; no IP packet is longer than 65535.
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

fn any(v6: bool, port: u16) -> SockAddr {
    let addr: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(addr, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_datagram_comes_to_the_socket_of_its_worker() {
        const WORKERS: u16 = 3;
        for v6 in [false, true] {
            let Ok(pair) = Pair::udp(0, v6, true, WORKERS) else {
                return; // SO_MARK needs CAP_NET_ADMIN.
            };
            let addr = pair.main[0].inner.local_addr().unwrap().as_socket().unwrap();
            let host: IpAddr =
                if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            let sender = std::net::UdpSocket::bind((host, 0)).unwrap();
            // `None`: to the socket of IKE.
            let send = |datagram: &[u8], to: Option<u16>| {
                // Loopback delivers before the call returns.
                sender.send_to(datagram, (host, addr.port())).unwrap();
                let expected = |is_there: bool| Vec::from_iter(is_there.then(|| datagram.to_vec()));
                for worker in Worker::all(WORKERS) {
                    let expected = expected(to == Some(worker.index()));
                    assert_eq!(received(pair.main(worker)), expected, "{datagram:x?} {worker:?}");
                }
                assert_eq!(received(pair.ike()), expected(to.is_none()), "{datagram:x?}");
            };
            for spi in [256_u32, 257, 258, 0xffff_ffff, 0x8000_0001, 0x1234_5678] {
                let datagram = [&spi.to_be_bytes()[..], b"sequence and more"].concat();
                send(&datagram, Some(u16::try_from(spi % u32::from(WORKERS)).unwrap()));
            }
            send(&[0, 0, 0, 0, 1, 2], None);
            // A keepalive, and what is nothing.
            for datagram in [&[0xff][..], &[], &[0, 0, 1]] {
                send(datagram, Some(0));
            }
        }
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        let Ok((local, mtu)) = route_to(Ipv4Addr::LOCALHOST.into()) else {
            return; // SO_MARK needs CAP_NET_ADMIN.
        };
        assert_eq!(local, Ipv4Addr::LOCALHOST);
        assert!(mtu >= 1280);
        let mut mtus = PathMtus::default();
        let mut read = |remote: [u8; 4]| mtus.read(local, remote.into());
        assert_eq!(read([127, 0, 0, 1]).unwrap(), mtu);
        assert_eq!(read([127, 0, 0, 2]).unwrap(), mtu, "from the socket that is kept");
        assert!(read([255, 255, 255, 255]).is_err(), "a broadcast needs a permission");
        assert_eq!(read([127, 0, 0, 3]).unwrap(), mtu, "after one that failed");
        assert_eq!(mtus.kept.len(), 1);
    }

    /// What a socket has for us, each datagram by itself.
    fn received(socket: &Socket) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2048];
        let mut all = Vec::new();
        let mut received = Vec::new();
        while socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut received).is_ok() {
            let whole = &buffer[..received[0].len];
            match received[0].segment_len {
                Some(len) => all.extend(whole.chunks(len.get().into()).map(<[u8]>::to_vec)),
                None => all.push(whole.to_vec()),
            }
        }
        all
    }

    #[test]
    fn ike_of_port_4500_comes_through_a_flood_of_esp() {
        for v6 in [false, true] {
            let Ok(pair) = Pair::udp(0, v6, false, 1) else {
                return; // SO_MARK needs CAP_NET_ADMIN.
            };
            let host: IpAddr =
                if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            let esp_socket = pair.main(Worker::ALONE);
            let there = esp_socket.inner.local_addr().unwrap().as_socket().unwrap().port();
            let sender = std::net::UdpSocket::bind((host, 0)).unwrap();
            sender.connect((host, there)).unwrap();
            let (ike, esp) = ([0, 0, 0, 0, 1, 2, 3], [0, 0, 1, 0, 1, 2, 3]);
            for datagram in [&ike[..], &esp, &[0xff], &[0, 0, 0]] {
                sender.send(datagram).unwrap();
            }
            assert_eq!(received(pair.ike()), [ike]);
            assert_eq!(received(esp_socket), [&esp[..], &[0xff], &[0, 0, 0]]);

            let mut flood = [1; 1400];
            flood[3] = 0;
            let sent = (0..1_000_000).take_while(|_| {
                sender.send(&flood).unwrap();
                esp_socket.dropped() < 100
            });
            assert!(sent.count() < 1_000_000, "its buffer has an end");
            sender.send(&ike).unwrap();
            assert_eq!(received(pair.ike()), [ike]);
            assert_eq!(pair.ike().dropped(), 0);
        }
    }
}
