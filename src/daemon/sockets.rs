//! Every socket of the daemon: which one a message leaves through, and which path it came on.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io::{self, IoSlice};

use thiserror::Error;

use crate::io::raw;
use crate::io::sys::{Received, ToSend};
use crate::io::too_big::TooBig;
use crate::io::tun::Offload;
use crate::io::udp::{Fragment, Pair, Socket};
use crate::ipsec::{Encap, Path};

/// The port of IKE (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// The port of IKE and ESP where a NAT may be (RFC 3948).
pub const NATT_PORT: u16 = 4500;
/// What stands before an IKE message on port 4500 (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// A socket could not be opened.
#[derive(Debug, Error)]
#[error("cannot open {what}: {cause}{}", hint(.cause))]
pub struct SocketError {
    what: &'static str,
    cause: io::Error,
}

/// The sockets of one version of IP.
#[derive(Debug)]
pub struct Family {
    /// UDP 500.
    pub ike: Socket,
    /// UDP 4500.
    pub natt: Pair,
    /// IP protocol 50.
    pub esp: Pair,
    /// IP protocol 51; receives only.
    pub ah: Socket,
    /// For packets that are whole; sends only.
    pub whole: Socket,
}

/// Every socket.
#[derive(Debug)]
pub struct Sockets {
    /// IPv4.
    pub v4: Family,
    /// IPv6, if this host has it.
    pub v6: Option<Family>,
    _too_big: Option<TooBig>,
}

impl Sockets {
    /// Opens them all, those of port 4500 with offloads if there are and `offload` wants them.
    ///
    /// # Errors
    /// If another IKE daemon has the ports, or without the privilege. IPv6 may be missing.
    pub fn open(offload: Offload) -> Result<Self, SocketError> {
        let v4 = Family::open(false, offload)?;
        let v6 = match Family::open(true, offload) {
            Ok(family) => Some(family),
            Err(error) if is_missing(&error.cause) => {
                tracing::info!(%error, "going on without IPv6");
                None
            }
            Err(error) => return Err(error),
        };
        let too_big = v6.as_ref().map(|_| TooBig::hear()).transpose();
        let _too_big = too_big
            .map_err(|cause| SocketError { what: "raw sockets for ICMPv6 errors", cause })?;
        Ok(Self { v4, v6, _too_big })
    }

    /// The sockets that reach `remote`.
    #[must_use]
    pub fn family(&self, remote: IpAddr) -> Option<&Family> {
        if remote.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() }
    }

    /// Sends an IKE message where its path says.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send_ike(&self, path: Path, message: &[u8]) -> io::Result<()> {
        let family = self.family(path.remote.ip()).ok_or(io::ErrorKind::Unsupported)?;
        let (to, local) = (path.remote, Some(path.local.ip()));
        // RFC 3948 §2.2: the marker keeps the receiver from taking the message for ESP.
        if path.encap == Encap::Udp {
            let payload = [&NON_ESP_MARKER, message].concat();
            let parts = [IoSlice::new(&payload)];
            let message = ToSend { parts: &parts, segment_len: None, to, local, tos: 0 };
            // Without DF: a long IKE_AUTH must come through.
            family.natt.choose(Fragment::Allowed).send(&[message])?;
        } else {
            let parts = [IoSlice::new(message)];
            let message = ToSend { parts: &parts, segment_len: None, to, local, tos: 0 };
            family.ike.send(&[message])?;
        }
        Ok(())
    }
}

impl Family {
    fn open(v6: bool, offload: Offload) -> Result<Self, SocketError> {
        let named = |what| move |cause| SocketError { what, cause };
        let (ike, natt, raw) = if v6 {
            ("UDP port 500 (IPv6)", "UDP port 4500 (IPv6)", "the raw sockets (IPv6)")
        } else {
            ("UDP port 500", "UDP port 4500", "the raw sockets")
        };
        Ok(Self {
            ike: Socket::udp(IKE_PORT, v6).map_err(named(ike))?,
            natt: Pair::udp(NATT_PORT, v6, offload == Offload::Auto).map_err(named(natt))?,
            esp: raw::esp(v6).map_err(named(raw))?,
            ah: raw::ah(v6).map_err(named(raw))?,
            whole: raw::whole(v6).map_err(named(raw))?,
        })
    }
}

/// The path that a datagram came on. `port` is ours: 500, 4500, or 0 for protocols 50 and 51.
#[must_use]
pub fn path_of(received: &Received, port: u16, encap: Encap) -> Path {
    let unknown: IpAddr = if received.from.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let local = SocketAddr::new(received.local.unwrap_or(unknown), port);
    Path { local, remote: received.from, encap }
}

fn is_missing(cause: &io::Error) -> bool {
    matches!(
        cause.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

fn hint(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::AddrInUse {
        " (another IKE daemon runs here: stop it first)"
    } else if cause.kind() == io::ErrorKind::PermissionDenied {
        " (run it as root)"
    } else {
        ""
    }
}
