//! EAP payload (RFC 7296 §3.16, RFC 3748 §4).

use core::fmt;

use super::len16;
use crate::wire::{Malformed, ParseError, Reader};

/// EAP payload: one EAP message (RFC 7296 §3.16).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Code      | Identifier    |           Length              |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |     Type      | Type_Data...
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eap {
    /// Code.
    pub code: EapCode,
    /// Identifier; that of the request in a response.
    pub identifier: u8,
    /// Type and Type_Data: at least one byte in a request or response, none in success or failure.
    pub data: Vec<u8>,
}

impl Eap {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When the Length field is not the body's length, or not one that the code has.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let body_len = body.remaining();
        let code = EapCode(body.u8()?);
        let identifier = body.u8()?;
        let length = usize::from(body.u16()?);
        // RFC 7296 §3.16: Length MUST be four less than the Payload Length; Type is there in requests
        // and responses only.
        let good = match code {
            EapCode::REQUEST | EapCode::RESPONSE => length > 4,
            EapCode::SUCCESS | EapCode::FAILURE => length == 4,
            _ => true,
        };
        if length != body_len || !good {
            return Err(body.error(Malformed::BadLength(length)));
        }
        Ok(Self { code, identifier, data: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.code.0, self.identifier]);
        out.extend_from_slice(&len16(self.data.len().saturating_add(4)));
        out.extend_from_slice(&self.data);
    }
}

/// Code of an EAP message (RFC 3748 §4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EapCode(pub u8);

impl EapCode {
    /// A request of the authenticator.
    pub const REQUEST: Self = Self(1);
    /// The peer's response to a request.
    pub const RESPONSE: Self = Self(2);
    /// The peer is authenticated.
    pub const SUCCESS: Self = Self(3);
    /// The peer is not.
    pub const FAILURE: Self = Self(4);
}

impl fmt::Debug for EapCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::REQUEST => f.write_str("Request"),
            Self::RESPONSE => f.write_str("Response"),
            Self::SUCCESS => f.write_str("Success"),
            Self::FAILURE => f.write_str("Failure"),
            Self(code) => write!(f, "EapCode({code})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::PayloadType;
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;

    six_tests!(
        Payload::Eap(Eap { code: EapCode::RESPONSE, identifier: 7, data: b"\x01joe".to_vec() }),
        *b"\x02\x07\0\x08\x01joe",
        least = 8,
        reserved = [],
    );

    fn why(body: &[u8]) -> Malformed {
        testkit::parse(PayloadType::EAP, body).expect_err("malformed").why
    }

    #[test]
    fn success_and_failure_have_no_type() {
        assert!(testkit::parse(PayloadType::EAP, &[3, 1, 0, 4]).is_ok());
        assert_eq!(why(&[3, 1, 0, 5, 0]), Malformed::BadLength(5));
        assert_eq!(why(&[4, 1, 0, 5, 0]), Malformed::BadLength(5));
    }

    #[test]
    fn requests_and_responses_have_a_type() {
        assert_eq!(why(&[1, 1, 0, 4]), Malformed::BadLength(4));
        assert_eq!(why(&[2, 1, 0, 4]), Malformed::BadLength(4));
    }

    #[test]
    fn the_length_field_must_be_that_of_the_body() {
        assert_eq!(why(&[1, 1, 0, 5, 1, 0]), Malformed::BadLength(5));
        assert_eq!(why(&[9, 1, 0, 3]), Malformed::BadLength(3));
    }
}
