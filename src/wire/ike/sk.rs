//! Encrypted payload, SK (RFC 7296 §3.14). Opening and sealing it is not done here.

use super::numbers::PayloadType;
use crate::wire::{ParseError, Reader};

/// Encrypted payload (RFC 7296 §3.14), the last of its message.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                     Initialization Vector                     |
/// |         (length is block size for encryption algorithm)       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                    Encrypted IKE Payloads                     ~
/// +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |               |             Padding (0-255 octets)            |
/// +-+-+-+-+-+-+-+-+                               +-+-+-+-+-+-+-+-+
/// |                                               |  Pad Length   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                    Integrity Checksum Data                    ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sk {
    /// Type of the first payload inside; in place of Next Payload.
    pub first: PayloadType,
    /// IV, ciphertext, ICV: only the suite says where one ends.
    pub body: Vec<u8>,
}

impl Sk {
    /// Reads the body of the payload; `first` stands in its generic header.
    ///
    /// # Errors
    /// None: the form is known only with the keys. The signature is that of all payloads.
    pub fn parse(first: PayloadType, body: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { first, body: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;
    use crate::wire::ike::message::parse_chain;

    six_tests!(
        Payload::Sk(Sk { first: PayloadType::NONE, body: vec![1, 2, 3] }),
        [1, 2, 3],
        least = 0,
        reserved = [],
    );

    #[test]
    fn first_stands_in_the_next_payload_field() {
        let bytes = testkit::emit(&Payload::Sk(Sk { first: PayloadType::AUTH, body: vec![] }));
        assert_eq!(bytes, [PayloadType::AUTH.0, 0, 0, 4]);
        assert!(parse_chain(PayloadType::SK, &bytes).is_err());
    }
}
