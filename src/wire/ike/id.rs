//! Identification payloads, IDi and IDr (RFC 7296 §3.5).

use super::numbers::IdType;
use crate::wire::{Malformed, ParseError, Reader};

/// Identification payload (RFC 7296 §3.5).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   ID Type     |                 RESERVED                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                   Identification Data                         ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug)]
pub struct Id {
    /// ID Type.
    pub id_type: IdType,
    /// Identification Data.
    pub data: Vec<u8>,
    /// RESERVED as it came. It is ignored, and sent as zero, but AUTH covers it (RFC 7296 §2.15).
    pub reserved: [u8; 3],
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        (self.id_type, &self.data) == (other.id_type, &other.data)
    }
}

impl Eq for Id {}

impl Id {
    /// A payload of this type and data.
    #[must_use]
    pub const fn new(id_type: IdType, data: Vec<u8>) -> Self {
        Self { id_type, data, reserved: [0; 3] }
    }

    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When it is shorter than its fixed part, or an address type has not the length of an address.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let id_type = IdType(body.u8()?);
        let reserved = body.take_array()?;
        let len = body.remaining();
        let good = match id_type {
            IdType::ID_IPV4_ADDR => len == 4,
            IdType::ID_IPV6_ADDR => len == 16,
            _ => true,
        };
        if !good {
            return Err(body.error(Malformed::BadLength(len)));
        }
        Ok(Self { id_type, data: body.rest().to_vec(), reserved })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.id_type.0, 0, 0, 0]);
        out.extend_from_slice(&self.data);
    }

    /// The body of the payload as it came: what RFC 7296 §2.15 calls `RestOfInitIDPayload`, an input of AUTH.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len().saturating_add(4));
        out.push(self.id_type.0);
        out.extend_from_slice(&self.reserved);
        out.extend_from_slice(&self.data);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::PayloadType;
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;

    six_tests!(
        Payload::IdI(Id::new(IdType::ID_FQDN, b"a.example".to_vec())),
        *b"\x02\0\0\0a.example",
        least = 4,
        reserved = [1, 2, 3],
    );

    #[test]
    fn responder_identity_has_its_own_type() {
        let id = Id::new(IdType::ID_NULL, vec![]);
        assert_eq!(testkit::parse(PayloadType::ID_R, &[13, 0, 0, 0]), Ok(Payload::IdR(id)));
    }

    #[test]
    fn addresses_have_the_length_of_addresses() {
        for (id_type, len) in [(1_u8, 4), (5, 16)] {
            for wrong in [0, len - 1, len + 1] {
                let mut body = vec![id_type, 0, 0, 0];
                body.resize(4 + wrong, 1);
                let error = testkit::parse(PayloadType::ID_I, &body).expect_err("wrong length");
                assert_eq!(error.why, Malformed::BadLength(wrong));
            }
            let mut body = vec![id_type, 0, 0, 0];
            body.resize(4 + len, 1);
            assert!(testkit::parse(PayloadType::ID_I, &body).is_ok());
        }
    }

    #[test]
    fn body_is_what_auth_is_computed_over() {
        let id = Id::new(IdType::ID_KEY_ID, vec![9]);
        assert_eq!(id.body(), [11, 0, 0, 0, 9]);
    }
}
