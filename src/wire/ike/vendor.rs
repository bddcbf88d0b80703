//! Vendor ID payload (RFC 7296 §3.12).

use crate::wire::{ParseError, Reader};

/// Vendor ID payload (RFC 7296 §3.12).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                        Vendor ID (VID)                        ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vendor {
    /// Vendor ID.
    pub data: Vec<u8>,
}

impl Vendor {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// None: every body is a Vendor ID. The signature is that of all payloads.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { data: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Payload;
    use super::super::testkit::six_tests;
    use super::*;

    six_tests!(
        Payload::Vendor(Vendor { data: b"ipsecd".to_vec() }),
        *b"ipsecd",
        least = 0,
        reserved = [],
    );
}
