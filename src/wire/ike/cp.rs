//! Configuration payload (RFC 7296 §3.15).

use super::len16;
use super::numbers::{CfgAttributeType, CfgType};
use crate::wire::{Malformed, ParseError, Reader};

/// Attributes accepted in one Configuration payload.
pub const MAX_ATTRIBUTES: usize = 256;

/// Configuration payload (RFC 7296 §3.15).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C| RESERVED    |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   CFG Type    |                    RESERVED                   |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                   Configuration Attributes                    ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cp {
    /// CFG Type.
    pub cfg_type: CfgType,
    /// Configuration Attributes, in order.
    pub attributes: Vec<CfgAttribute>,
}

impl Cp {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When an attribute is cut off, or there are more than [`MAX_ATTRIBUTES`].
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let cfg_type = CfgType(body.u8()?);
        let _reserved = body.take(3)?;
        let mut attributes = Vec::new();
        while !body.is_empty() {
            if attributes.len() == MAX_ATTRIBUTES {
                return Err(body.error(Malformed::TooMany(MAX_ATTRIBUTES)));
            }
            attributes.push(CfgAttribute::parse(body)?);
        }
        Ok(Self { cfg_type, attributes })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.cfg_type.0, 0, 0, 0]);
        for attribute in &self.attributes {
            attribute.emit(out);
        }
    }
}

/// Configuration Attribute (RFC 7296 §3.15.1).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |R|         Attribute Type      |            Length             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                             Value                             ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CfgAttribute {
    /// Attribute Type, 15 bits.
    pub attribute_type: CfgAttributeType,
    /// Value; its length is not judged.
    pub value: Vec<u8>,
}

impl CfgAttribute {
    const TYPE_MASK: u16 = 0x7fff;

    fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let attribute_type = CfgAttributeType(body.u16()? & Self::TYPE_MASK);
        let length = usize::from(body.u16()?);
        Ok(Self { attribute_type, value: body.take(length)?.to_vec() })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.attribute_type.0 & Self::TYPE_MASK).to_be_bytes());
        out.extend_from_slice(&len16(self.value.len()));
        out.extend_from_slice(&self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::PayloadType;
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;

    fn cp() -> Cp {
        Cp {
            cfg_type: CfgType::CFG_REQUEST,
            attributes: vec![
                CfgAttribute {
                    attribute_type: CfgAttributeType::INTERNAL_IP4_ADDRESS,
                    value: vec![10, 0, 0, 1],
                },
                CfgAttribute { attribute_type: CfgAttributeType::INTERNAL_IP4_DNS, value: vec![] },
            ],
        }
    }

    const BODY: [u8; 16] = [1, 0, 0, 0, 0, 1, 0, 4, 10, 0, 0, 1, 0, 3, 0, 0];

    six_tests!(Payload::Cp(cp()), BODY, least = 4, reserved = [1, 2, 3]);

    #[test]
    fn the_reserved_bit_of_an_attribute_is_ignored() {
        let mut body = BODY;
        body[4] = 0x80;
        assert_eq!(testkit::parse(PayloadType::CP, &body), Ok(Payload::Cp(cp())));
    }

    #[test]
    fn a_cut_attribute_is_rejected() {
        for len in [5, 7, 8, 11, 13, 15] {
            assert!(testkit::parse(PayloadType::CP, &BODY[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn the_number_of_attributes_is_bounded() {
        let mut body = vec![1, 0, 0, 0];
        body.resize(4 + 4 * (MAX_ATTRIBUTES + 1), 0);
        let error = testkit::parse(PayloadType::CP, &body).expect_err("too many");
        assert_eq!(error.why, Malformed::TooMany(MAX_ATTRIBUTES));
    }
}
