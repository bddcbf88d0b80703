//! What a datagram on port 4500 is (RFC 3948 §2), and how the outer header follows from the inner one
//! (RFC 4301 §5.1.2, §8.1).

use crate::ipsec::DfPolicy;
use crate::ipsec::inner::Inner;

/// Four zero bytes where ESP has its SPI (RFC 3948 §2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// What a datagram on port 4500 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Datagram {
    /// An ESP packet.
    Esp,
    /// An IKE message behind this many bytes of marker.
    Ike(usize),
    /// A NAT keepalive.
    Keepalive,
    /// None of these.
    Malformed,
}

/// RFC 3948 §2.
pub(super) fn classify(datagram: &[u8]) -> Datagram {
    match datagram {
        [0xff] => Datagram::Keepalive,
        _ if datagram.starts_with(&NON_ESP_MARKER) => Datagram::Ike(NON_ESP_MARKER.len()),
        // SPI and sequence number at least.
        _ if datagram.len() >= 8 => Datagram::Esp,
        _ => Datagram::Malformed,
    }
}

/// Whether the outer packet must not be fragmented (RFC 4301 §8.1).
pub(super) const fn dont_fragment(inner: &Inner, policy: DfPolicy) -> bool {
    match policy {
        DfPolicy::Clear => false,
        DfPolicy::Copy => inner.dont_fragment,
        DfPolicy::Set => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_4500_carries_three_things() {
        assert_eq!(classify(&[0xff]), Datagram::Keepalive);
        assert_eq!(classify(&[0, 0, 0, 0, 1, 2]), Datagram::Ike(4));
        assert_eq!(classify(&[0, 0, 1, 0, 0, 0, 0, 1]), Datagram::Esp);
        for malformed in [&[][..], &[0], &[0xff, 0xff], &[0, 0, 0], &[1, 2, 3, 4, 5, 6, 7]] {
            assert_eq!(classify(malformed), Datagram::Malformed, "{malformed:?}");
        }
    }
}
