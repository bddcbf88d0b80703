//! Nonce payload, Ni and Nr (RFC 7296 §3.9).

use crate::wire::{Malformed, ParseError, Reader};

/// Nonce payload (RFC 7296 §3.9).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                            Nonce Data                         ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce {
    /// Nonce Data, [`Self::MIN_LEN`] to [`Self::MAX_LEN`] bytes.
    pub data: Vec<u8>,
}

impl Nonce {
    /// Bytes that a nonce has at least.
    pub const MIN_LEN: usize = 16;
    /// Bytes that a nonce has at most.
    pub const MAX_LEN: usize = 256;

    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When the nonce is not 16 to 256 bytes long.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let len = body.remaining();
        // RFC 7296 §3.9: MUST be between 16 and 256 octets, inclusive.
        if !(Self::MIN_LEN..=Self::MAX_LEN).contains(&len) {
            return Err(body.error(Malformed::BadLength(len)));
        }
        Ok(Self { data: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::PayloadType;
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;

    six_tests!(Payload::Nonce(Nonce { data: vec![5; 16] }), [5; 16], least = 16, reserved = [],);

    #[test]
    fn the_longest_nonce_has_256_bytes() {
        assert!(testkit::parse(PayloadType::NONCE, &[1; 256]).is_ok());
        let error = testkit::parse(PayloadType::NONCE, &[1; 257]).expect_err("too long");
        assert_eq!(error.why, Malformed::BadLength(257));
    }
}
