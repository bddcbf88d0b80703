//! NAT detection (RFC 7296 §2.23).

use core::net::{IpAddr, SocketAddr};

use crate::crypto::sha::sha1;
use crate::ipsec::Path;
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::NotifyType;
use crate::wire::ike::payload::{Notify, Payload};

/// Port of IKE and ESP where a NAT is on the way.
pub(super) const PORT_NATT: u16 = 4500;

/// `SHA-1(SPIs | IP | port)`.
fn hash(spi_i: IkeSpi, spi_r: IkeSpi, address: SocketAddr) -> [u8; 20] {
    let spi_i = spi_i.0.to_be_bytes();
    let spi_r = spi_r.0.to_be_bytes();
    let port = address.port().to_be_bytes();
    match address.ip() {
        IpAddr::V4(ip) => sha1(&[&spi_i, &spi_r, &ip.octets(), &port]),
        IpAddr::V6(ip) => sha1(&[&spi_i, &spi_r, &ip.octets(), &port]),
    }
}

/// The two notifies of a message that goes along `path`. `pretend` makes the peer see a NAT in front of us, so that ESP goes into UDP.
pub(super) fn notifies(spi_i: IkeSpi, spi_r: IkeSpi, path: Path, pretend: bool) -> [Payload; 2] {
    let mut source = hash(spi_i, spi_r, path.local);
    if pretend {
        source = hash(spi_i, spi_r, SocketAddr::new(path.local.ip(), 0));
    }
    [
        Payload::Notify(Notify::new(NotifyType::NAT_DETECTION_SOURCE_IP, source)),
        Payload::Notify(Notify::new(
            NotifyType::NAT_DETECTION_DESTINATION_IP,
            hash(spi_i, spi_r, path.remote),
        )),
    ]
}

/// Where a NAT is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Nat {
    /// In front of us.
    pub(super) local: bool,
    /// In front of the peer.
    pub(super) peer: bool,
    /// The peer does NAT detection at all.
    pub(super) supported: bool,
}

/// What the notifies of a message that came along `path` say. A peer may send several source hashes, one an address of its own.
pub(super) fn detect<'a>(
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    path: Path,
    notifies: impl Iterator<Item = &'a Notify>,
) -> Nat {
    let ours = hash(spi_i, spi_r, path.local);
    let theirs = hash(spi_i, spi_r, path.remote);
    let (mut source, mut source_matches) = (false, false);
    let (mut destination, mut destination_matches) = (false, false);
    for notify in notifies {
        match notify.notify_type {
            NotifyType::NAT_DETECTION_SOURCE_IP => {
                source = true;
                source_matches |= notify.data == theirs;
            }
            NotifyType::NAT_DETECTION_DESTINATION_IP => {
                destination = true;
                destination_matches |= notify.data == ours;
            }
            _ => {}
        }
    }
    let supported = source && destination;
    Nat { local: supported && !destination_matches, peer: supported && !source_matches, supported }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipsec::Encap;

    fn path(local: &str, remote: &str) -> Path {
        Path { local: local.parse().unwrap(), remote: remote.parse().unwrap(), encap: Encap::Plain }
    }

    fn seen(sent: Path, received: Path, pretend: bool) -> Nat {
        let (i, r) = (IkeSpi(1), IkeSpi(2));
        let payloads = notifies(i, r, sent, pretend);
        let notifies = payloads.iter().filter_map(|payload| {
            if let Payload::Notify(notify) = payload { Some(notify) } else { None }
        });
        detect(i, r, received, notifies)
    }

    #[test]
    fn untouched_addresses_show_no_nat() {
        let nat =
            seen(path("10.0.0.1:500", "10.0.0.2:500"), path("10.0.0.2:500", "10.0.0.1:500"), false);
        assert_eq!(nat, Nat { local: false, peer: false, supported: true });
    }

    #[test]
    fn changed_source_is_a_nat_in_front_of_the_peer() {
        let nat = seen(
            path("10.0.0.1:500", "10.0.0.2:500"),
            path("10.0.0.2:500", "192.0.2.9:4501"),
            false,
        );
        assert_eq!(nat, Nat { local: false, peer: true, supported: true });
    }

    #[test]
    fn changed_destination_is_a_nat_in_front_of_us() {
        let nat = seen(
            path("[fd00::1]:500", "[fd00::2]:500"),
            path("[fd00::3]:500", "[fd00::1]:500"),
            false,
        );
        assert_eq!(nat, Nat { local: true, peer: false, supported: true });
    }

    #[test]
    fn pretended_nat_stands_in_front_of_the_peer() {
        let nat =
            seen(path("10.0.0.1:500", "10.0.0.2:500"), path("10.0.0.2:500", "10.0.0.1:500"), true);
        assert_eq!(nat, Nat { local: false, peer: true, supported: true });
    }

    #[test]
    fn peer_without_notifies_does_not_support_it() {
        let nat =
            detect(IkeSpi(1), IkeSpi(2), path("10.0.0.1:500", "10.0.0.2:500"), [].into_iter());
        assert_eq!(nat, Nat::default());
    }
}
