//! Encrypted Fragment payload, SKF (RFC 7383 §2.5). Opening and joining fragments is not done here.

use super::numbers::PayloadType;
use crate::wire::{Malformed, ParseError, Reader};

/// Encrypted Fragment payload (RFC 7383 §2.5), the last of its message.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |        Fragment Number        |        Total Fragments        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                     Initialization Vector                     |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                      Encrypted content                        ~
/// +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |               |             Padding (0-255 octets)            |
/// +-+-+-+-+-+-+-+-+                               +-+-+-+-+-+-+-+-+
/// |                                               |  Pad Length   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                    Integrity Checksum Data                    ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skf {
    /// Type of the first payload of the whole message; only the first fragment says it, the others
    /// have [`PayloadType::NONE`].
    pub first: PayloadType,
    /// Fragment Number, 1 to `total`.
    pub number: u16,
    /// Total Fragments.
    pub total: u16,
    /// IV, ciphertext, ICV: only the suite says where one ends.
    pub body: Vec<u8>,
}

impl Skf {
    /// Reads the body of the payload; `first` stands in its generic header.
    ///
    /// # Errors
    /// When it is too short, or Fragment Number is zero or more than Total Fragments.
    pub fn parse(first: PayloadType, body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let before = body.clone();
        let number = body.u16()?;
        let total = body.u16()?;
        if number == 0 || number > total {
            return Err(before.error(Malformed::BadValue(number.into())));
        }
        Ok(Self { first, number, total, body: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.total.to_be_bytes());
        out.extend_from_slice(&self.body);
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;

    six_tests!(
        Payload::Skf(Skf { first: PayloadType::NONE, number: 2, total: 3, body: vec![9] }),
        [0, 2, 0, 3, 9],
        least = 4,
        reserved = [],
    );

    #[test]
    fn fragment_numbers_run_from_one_to_the_total() {
        for (number, total) in [(0, 0), (0, 1), (2, 1), (1, 0)] {
            let error = testkit::parse(PayloadType::SKF, &[0, number, 0, total]);
            assert_eq!(
                error.expect_err("no such fragment").why,
                Malformed::BadValue(number.into())
            );
        }
        assert!(testkit::parse(PayloadType::SKF, &[0, 1, 0, 1]).is_ok());
    }
}
