//! Raw sockets of IP protocol 50: ESP without UDP (RFC 4303 §2), with the interface of UDP ones.
//!
//! An IPv4 raw socket hands up the IP header too; [`payload_offset`] says where ESP begins.

use std::io;

use socket2::Type;

use super::udp::{Fragment, Pair, Socket};

/// The sockets for ESP on every address.
///
/// # Errors
/// Those of the socket calls: `PermissionDenied` without CAP_NET_RAW.
pub fn esp(v6: bool) -> io::Result<Pair> {
    let main = Socket::new(v6, Type::RAW, libc::IPPROTO_ESP, Fragment::Never)?;
    let fragmenting = Socket::new(v6, Type::RAW, libc::IPPROTO_ESP, Fragment::Allowed)?;
    // Every raw socket of the protocol would get a copy.
    fragmenting.receive_nothing()?;
    Ok(Pair { main, fragmenting })
}

/// Where the payload of a datagram from a raw socket begins; `None` if it is no whole IPv4 header.
#[must_use]
pub fn payload_offset(v6: bool, datagram: &[u8]) -> Option<usize> {
    if v6 {
        return Some(0);
    }
    let offset = usize::from(datagram.first()? & 0x0f) * 4;
    (offset >= 20 && offset <= datagram.len()).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_header_with_options_is_skipped() {
        let mut datagram = [0u8; 40];
        datagram[0] = 0x45;
        assert_eq!(payload_offset(false, &datagram), Some(20));
        datagram[0] = 0x47;
        assert_eq!(payload_offset(false, &datagram), Some(28));
        assert_eq!(payload_offset(true, &datagram), Some(0));
    }

    #[test]
    fn header_longer_than_the_datagram_is_refused() {
        assert_eq!(payload_offset(false, &[0x4f; 20]), None);
        assert_eq!(payload_offset(false, &[0x41; 20]), None);
        assert_eq!(payload_offset(false, &[]), None);
    }
}
