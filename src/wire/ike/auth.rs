//! Authentication payload (RFC 7296 §3.8).

use super::numbers::AuthMethod;
use crate::wire::{ParseError, Reader};

/// Authentication payload (RFC 7296 §3.8).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Auth Method   |                RESERVED                       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                      Authentication Data                      ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Auth Method.
    pub method: AuthMethod,
    /// Authentication Data.
    pub data: Vec<u8>,
}

impl Auth {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When it is shorter than its fixed part.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let method = AuthMethod(body.u8()?);
        let _reserved = body.take(3)?;
        Ok(Self { method, data: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method.0, 0, 0, 0]);
        out.extend_from_slice(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Payload;
    use super::super::testkit::six_tests;
    use super::*;

    six_tests!(
        Payload::Auth(Auth { method: AuthMethod::SHARED_KEY_MIC, data: vec![1, 2, 3, 4] }),
        [2, 0, 0, 0, 1, 2, 3, 4],
        least = 4,
        reserved = [1, 2, 3],
    );
}
