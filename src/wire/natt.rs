//! What comes to UDP port 4500: IKE, ESP and keepalives side by side (RFC 3948 §2).

use super::esp::EspHeader;
use super::{Malformed, ParseError};

/// UDP port of IKE and UDP-encapsulated ESP once NAT traversal is in use.
pub const PORT: u16 = 4500;

/// What precedes an IKE message on port 4500, where an ESP packet has its SPI (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The data of a NAT-keepalive (RFC 3948 §2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// A datagram's data on port 4500, told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// An ESP packet, from its SPI on.
    Esp(&'a [u8]),
    /// An IKE message, without the marker. Nothing is known about it yet.
    Ike(&'a [u8]),
    /// A NAT-keepalive, to be ignored (RFC 3948 §4).
    Keepalive,
}

/// Tells apart the data of a datagram on port 4500.
///
/// # Errors
/// When it is too short to be any of them.
#[inline]
pub fn classify(data: &[u8]) -> Result<Datagram<'_>, ParseError> {
    match data.first_chunk::<{ EspHeader::LEN }>() {
        Some([spi @ .., _, _, _, _]) if *spi != NON_ESP_MARKER => Ok(Datagram::Esp(data)),
        _ => classify_other(data),
    }
}

fn classify_other(data: &[u8]) -> Result<Datagram<'_>, ParseError> {
    if data == KEEPALIVE {
        return Ok(Datagram::Keepalive);
    }
    if let Some(message) = data.strip_prefix(&NON_ESP_MARKER) {
        return Ok(Datagram::Ike(message));
    }
    if data.len() < EspHeader::LEN {
        let why = Malformed::Truncated { needed: EspHeader::LEN, available: data.len() };
        return Err(ParseError { what: "datagram on port 4500", offset: 0, why });
    }
    Ok(Datagram::Esp(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_ff_is_a_keepalive() {
        assert_eq!(classify(&KEEPALIVE), Ok(Datagram::Keepalive));
        assert!(classify(&[0xfe]).is_err());
        assert!(classify(&[0xff, 0xff]).is_err());
    }

    #[test]
    fn four_zero_bytes_precede_ike() {
        assert_eq!(classify(&[0, 0, 0, 0, 7]), Ok(Datagram::Ike(&[7])));
        assert_eq!(classify(&[0, 0, 0, 0]), Ok(Datagram::Ike(&[])));
    }

    #[test]
    fn anything_else_is_esp() {
        let data = [0, 0, 0, 1, 0, 0, 0, 1];
        assert_eq!(classify(&data), Ok(Datagram::Esp(&data)));
    }

    #[test]
    fn what_is_too_short_for_esp_is_malformed() {
        for data in [&[][..], &[0], &[0, 0, 0], &[1, 2, 3, 4, 5, 6, 7]] {
            assert!(classify(data).is_err(), "{data:?}");
        }
    }
}
