//! A UDP socket to one peer that hears of ICMP errors, and an ICMP echo: for who looks at a path.

use core::ffi::c_int;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::sys;
use super::udp::{MARK, mtu_of};
use crate::wire::checksum;

/// What may become of a datagram that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Df {
    /// It may be fragmented.
    Clear,
    /// DF is set, whatever the kernel believes the path's MTU to be (`PMTUDISC_PROBE`).
    Probe,
}

/// A connected UDP socket.
#[derive(Debug)]
pub struct Probe {
    socket: Socket,
    remote: SocketAddr,
}

impl Probe {
    /// From `local`, of which the port may be 0, to `remote`.
    ///
    /// # Errors
    /// Those of the socket calls: `AddrInUse` if the port is taken, `PermissionDenied` below 1024 without the capability.
    pub fn connect(local: SocketAddr, remote: SocketAddr, df: Df) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        // See `host::route_to`.
        let _unmarked = socket.set_mark(MARK);
        let fd = socket.as_fd();
        if remote.is_ipv6() {
            let how = match df {
                Df::Clear => libc::IPV6_PMTUDISC_DONT,
                Df::Probe => libc::IPV6_PMTUDISC_PROBE,
            };
            sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, how)?;
        } else {
            let how = match df {
                Df::Clear => libc::IP_PMTUDISC_DONT,
                Df::Probe => libc::IP_PMTUDISC_PROBE,
            };
            sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, how)?;
        }
        socket.bind(&local.into())?;
        socket.connect(&remote.into())?;
        Ok(Self { socket, remote })
    }

    /// Our address and port.
    ///
    /// # Errors
    /// Those of getsockname(2).
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// The other end.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The MTU that the kernel knows of the path, in bytes.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn mtu(&self) -> io::Result<u16> {
        mtu_of(&self.socket, self.remote.ip())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// Those of send(2): also an ICMP error about an earlier one, and `PermissionDenied` from our own packet filter.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send(datagram).map(drop)
    }

    /// A datagram that is there; `None` for none.
    ///
    /// # Errors
    /// An ICMP error: `ConnectionRefused` is a closed port.
    pub fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = [MaybeUninit::uninit(); 1];
        // How long it is, without taking it out.
        let peeked = self.socket.recv_with_flags(&mut buffer, libc::MSG_PEEK | libc::MSG_TRUNC);
        let len = match peeked {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut datagram = vec![0; len];
        let got = io::Read::read(&mut &self.socket, &mut datagram)?;
        datagram.truncate(got);
        Ok(Some(datagram))
    }
}

/// Waits until one of them has something, at most so long.
///
/// # Errors
/// Those of poll(2).
pub fn wait(probes: &[&Probe], limit: Duration) -> io::Result<()> {
    let mut fds: Vec<_> =
        probes.iter().map(|probe| PollFd::new(probe.socket.as_fd(), PollFlags::POLLIN)).collect();
    // At least a millisecond, so that nobody spins towards a deadline.
    let limit = limit.clamp(Duration::from_millis(1), Duration::from_secs(60));
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    match poll(&mut fds, limit) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What comes back, in time, of a datagram to a port: the kind of the ICMP error, or of the refusal to send it. `None`: nothing.
///
/// # Errors
/// Those of the socket calls.
pub fn refusal(
    local: IpAddr,
    remote: SocketAddr,
    datagram: &[u8],
    limit: Duration,
) -> io::Result<Option<io::ErrorKind>> {
    let probe = Probe::connect(SocketAddr::new(local, 0), remote, Df::Clear)?;
    // Without this a host that is not reached would not be told of: it might be a moment later.
    let fd = probe.socket.as_fd();
    if remote.is_ipv6() {
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    } else {
        sys::set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    }
    if let Err(error) = probe.send(datagram) {
        return Ok(Some(error.kind()));
    }
    wait(&[&probe], limit)?;
    Ok(probe.receive().err().map(|error| error.kind()))
}

/// Whether an ICMP echo is answered in time.
///
/// # Errors
/// Those of the socket calls: without CAP_NET_RAW, and a group that may ping, `PermissionDenied`.
pub fn echo(remote: IpAddr, limit: Duration) -> io::Result<bool> {
    let (domain, protocol, request, reply): (_, c_int, u8, u8) = match remote {
        IpAddr::V4(_) => (Domain::IPV4, libc::IPPROTO_ICMP, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, libc::IPPROTO_ICMPV6, 128, 129),
    };
    // A datagram socket of ICMP: the kernel makes identifier and checksum, and gives us our own replies alone.
    let datagram = Socket::new(domain, Type::DGRAM, Some(Protocol::from(protocol)));
    let (socket, is_raw) = match datagram {
        Ok(socket) => (socket, false),
        Err(_) => (Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?, true),
    };
    let _unmarked = socket.set_mark(MARK);
    socket.connect(&SocketAddr::new(remote, 0).into())?;
    socket.set_read_timeout(Some(limit))?;
    let mut message = [request, 0, 0, 0, 0x43, 0x01, 0, 1];
    if is_raw && remote.is_ipv4() {
        let sum = checksum::finish(checksum::data(&message));
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    if socket.send(&message).is_err() {
        return Ok(false);
    }
    // A raw socket hears of others' messages, too.
    for _ in 0..16 {
        let mut buffer = [0; 256];
        let Ok(len) = io::Read::read(&mut &socket, &mut buffer) else { return Ok(false) };
        let skipped =
            if is_raw && remote.is_ipv4() { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
        if buffer[..len].get(skipped) == Some(&reply) {
            return Ok(true);
        }
    }
    Ok(false)
}
