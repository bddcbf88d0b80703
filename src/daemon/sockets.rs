//! Every socket of the daemon: which one a message leaves through, and which path it came on.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io::{self, IoSlice};

use thiserror::Error;

use crate::datapath;
use crate::ike::Transmit;
use crate::io::raw;
use crate::io::sys::{Received, ToSend};
use crate::io::too_big::TooBig;
use crate::io::tun::Offload;
use crate::io::udp::{Fragment, Pair, Socket};
use crate::ipsec::{Encap, Path, Worker};
pub use crate::wire::ike::header::PORT as IKE_PORT;
pub use crate::wire::natt::{NON_ESP_MARKER, PORT as NATT_PORT};

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
    /// IP protocol 51, one a worker; receive only.
    pub ah: Vec<Socket>,
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
    /// Opens them all for so many workers, those of port 4500 with offloads if there are and `offload` wants them.
    ///
    /// # Errors
    /// If another IKE daemon has the ports, or without the privilege. IPv6 may be missing.
    pub fn open(offload: Offload, workers: u16) -> Result<Self, SocketError> {
        let v4 = Family::open(false, offload, workers)?;
        let v6 = match Family::open(true, offload, workers) {
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

    /// Datagrams that the kernel had for us and dropped, most often because the buffer of a socket was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        [Some(&self.v4), self.v6.as_ref()].into_iter().flatten().map(Family::dropped).sum()
    }

    /// Sends IKE messages where their paths say. One that cannot be sent is as good as lost on the way: IKE sends it again.
    pub fn send_ike(&self, messages: &[Transmit]) {
        let room = |it: &Transmit| (it.path.remote.is_ipv4(), it.path.encap);
        for group in messages.chunk_by(|one, next| room(one) == room(next)) {
            let Some(Path { remote, encap, .. }) = group.first().map(|it| it.path) else {
                continue;
            };
            let Some(family) = self.family(remote.ip()) else { continue };
            let socket = match encap {
                // Without DF: a long IKE_AUTH must come through.
                Encap::Udp => family.natt.choose(Fragment::Allowed, Worker::ALONE),
                Encap::Plain => &family.ike,
            };
            let parts: Vec<_> = group
                .iter()
                .map(|it| [IoSlice::new(marker_of(it)), IoSlice::new(&it.payload)])
                .collect();
            let all: Vec<_> = group
                .iter()
                .zip(&parts)
                .map(|(it, parts)| ToSend {
                    // An empty piece is work for the system call, too.
                    parts: &parts[usize::from(parts[0].is_empty())..],
                    segment_len: None,
                    to: it.path.remote,
                    local: Some(it.path.local.ip()),
                    tos: 0,
                })
                .collect();
            send_all(socket, &all);
        }
    }
}

/// RFC 3948 §2.2, §2.3: on port 4500 the marker keeps the receiver from taking an IKE message for ESP; a keepalive has none.
fn marker_of(transmit: &Transmit) -> &'static [u8] {
    if transmit.path.encap == Encap::Udp && !transmit.keepalive { &NON_ESP_MARKER } else { &[] }
}

fn send_all(socket: &Socket, mut messages: &[ToSend<'_>]) {
    while let Some(first) = messages.first() {
        let taken = socket.send(messages).unwrap_or_else(|error| {
            tracing::debug!(%error, remote = %first.to, "IKE message not sent");
            1
        });
        messages = messages.get(taken.max(1)..).unwrap_or_default();
    }
}

impl Family {
    /// Of those that receive: what the others are there for is to send, and they let everything fall.
    fn dropped(&self) -> u64 {
        let Self { ike, natt, esp, ah, .. } = self;
        let receive =
            [ike, natt.ike()].into_iter().chain(natt.mains()).chain(esp.mains()).chain(ah);
        receive.map(|socket| u64::from(socket.dropped())).sum()
    }

    fn open(v6: bool, offload: Offload, workers: u16) -> Result<Self, SocketError> {
        let named = |what| move |cause| SocketError { what, cause };
        let (ike, natt, raw) = if v6 {
            ("UDP port 500 (IPv6)", "UDP port 4500 (IPv6)", "the raw sockets (IPv6)")
        } else {
            ("UDP port 500", "UDP port 4500", "the raw sockets")
        };
        Ok(Self {
            ike: Socket::udp(IKE_PORT, v6).map_err(named(ike))?,
            natt: Pair::udp(NATT_PORT, v6, offload == Offload::Auto, workers)
                .map_err(named(natt))?,
            esp: raw::esp(v6, workers).map_err(named(raw))?,
            ah: raw::ah(v6, workers).map_err(named(raw))?,
            whole: raw::whole(v6).map_err(named(raw))?,
        })
    }
}

/// Says of a datagram that lies in its buffer what came with it. `port` as for [`path_of`].
pub fn describe(datagram: &mut datapath::Received, received: &Received, port: u16, encap: Encap) {
    datagram.buf.set_len(received.len);
    datagram.path = path_of(received, port, encap);
    datagram.traffic_class = received.tos;
    datagram.segment_len = received.segment_len;
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
        " (run it as root; for a container, --cap-add NET_RAW and --cap-add NET_BIND_SERVICE)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marker_goes_before_ike_messages_on_port_4500_and_not_before_a_keepalive() {
        let local = "192.0.2.1:4500".parse().expect("an address");
        let remote = "198.51.100.1:4500".parse().expect("an address");
        let of = |encap, keepalive| {
            let path = Path { local, remote, encap };
            marker_of(&Transmit { path, payload: vec![7, 8], keepalive })
        };
        assert_eq!(of(Encap::Udp, false), [0; 4]);
        assert_eq!(of(Encap::Udp, true), [0; 0]);
        assert_eq!(of(Encap::Plain, false), [0; 0]);
    }
}
