//! Key Exchange payload (RFC 7296 §3.4).

use super::numbers::KeId;
use crate::wire::{ParseError, Reader};

/// Key Exchange payload (RFC 7296 §3.4).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Diffie-Hellman Group Num    |           RESERVED            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                       Key Exchange Data                       ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ke {
    /// Key exchange method.
    pub group: KeId,
    /// Public value. Its length is judged by who knows the method.
    pub data: Vec<u8>,
}

impl Ke {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When it is shorter than its fixed part.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let group = KeId(body.u16()?);
        let _reserved = body.u16()?;
        Ok(Self { group, data: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group.0.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Payload;
    use super::super::testkit::six_tests;
    use super::*;

    six_tests!(
        Payload::Ke(Ke { group: KeId::CURVE25519, data: vec![1, 2, 3] }),
        [0, 31, 0, 0, 1, 2, 3],
        least = 4,
        reserved = [2, 3],
    );
}
