//! ICMPv6 "packet too big" about packets that leave through raw sockets (RFC 8201).
//!
//! Linux takes it into its route exceptions for a UDP socket in any case, as it does for IPv4; but for a raw socket of
//! IPv6 only if that asks for errors or is connected. So one socket for each protocol asks, and does nothing else: its
//! error queue is never read. It is small, and the kernel has acted on what it drops once the queue is full.

use std::io;
use std::os::fd::AsFd;

use socket2::Type;

use super::sys;
use super::udp::{Fragment, Socket};

/// While it is there, [`PathMtus`](super::udp::PathMtus) learn of too-big for ESP and AH over IPv6.
#[derive(Debug)]
pub struct TooBig {
    _asking: [Socket; 2],
}

impl TooBig {
    /// Begins to hear.
    ///
    /// # Errors
    /// Those of the socket calls: `PermissionDenied` without CAP_NET_RAW.
    pub fn hear() -> io::Result<Self> {
        let ask = |protocol| -> io::Result<Socket> {
            let socket = Socket::new(true, Type::RAW, protocol, Fragment::Never)?;
            socket.receive_nothing()?;
            // The least that the kernel gives, a few errors.
            sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 0)?;
            sys::set_option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
            Ok(socket)
        };
        Ok(Self { _asking: [ask(libc::IPPROTO_ESP)?, ask(libc::IPPROTO_AH)?] })
    }
}
