//! Security Association payload: proposals, transforms, attributes (RFC 7296 §3.3).
//!
//! Only the form is checked. Whether a proposal makes sense for its protocol (mandatory transform
//! types, SPI size, known numbers) is for whoever chooses: RFC 7296 §3.3.6 wants an unacceptable
//! proposal skipped, not the message rejected.

use super::numbers::{AttributeType, ProtocolId, TransformType};
use super::{len8, patch_len};
use crate::wire::{Malformed, ParseError, Reader};

/// Proposals accepted in one SA payload. Proposal Num is an octet; offers seen in the field have a
/// dozen at most.
pub const MAX_PROPOSALS: usize = 64;

/// Attributes accepted in one transform; one type is defined.
const MAX_ATTRIBUTES: usize = 16;

/// Security Association payload (RFC 7296 §3.3).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                          <Proposals>                          ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sa {
    /// Proposals, most preferred first; at least one.
    pub proposals: Vec<Proposal>,
}

impl Sa {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When lengths, counts, proposal numbers or the "last" markers contradict each other.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let mut proposals: Vec<Proposal> = Vec::new();
        loop {
            if proposals.len() == MAX_PROPOSALS {
                return Err(body.error(Malformed::TooMany(MAX_PROPOSALS)));
            }
            let before = body.clone().named("proposal");
            let (more, proposal) = Proposal::parse(body)?;
            // RFC 7296 §3.3.1: each number is one more than the one before. The first is 1, except that
            // an accepted proposal comes alone under the number it had in the offer.
            let expected = match proposals.last() {
                Some(previous) => previous.number.checked_add(1),
                None if more => Some(1),
                None => Some(proposal.number.max(1)),
            };
            if expected != Some(proposal.number) {
                return Err(before.error(Malformed::BadValue(proposal.number.into())));
            }
            proposals.push(proposal);
            if !more {
                return Ok(Self { proposals });
            }
        }
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        for (i, proposal) in self.proposals.iter().enumerate() {
            proposal.emit(i.saturating_add(1) < self.proposals.len(), out);
        }
    }
}

/// Proposal substructure (RFC 7296 §3.3.1).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Last Substruc |   RESERVED    |         Proposal Length       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Proposal Num  |  Protocol ID  |    SPI Size   |Num  Transforms|
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ~                        SPI (variable)                         ~
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                        <Transforms>                           ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Proposal Num, from 1.
    pub number: u8,
    /// What is negotiated.
    pub protocol: ProtocolId,
    /// The sender's SPI: empty for the first IKE SA, 8 bytes for IKE otherwise, 4 for ESP and AH. The
    /// length is not judged on parsing.
    pub spi: Vec<u8>,
    /// Transforms: alternatives where they share a type. At least one, at most 255.
    pub transforms: Vec<Transform>,
}

impl Proposal {
    /// Last Substruc of a proposal that others follow.
    const MORE: u8 = 2;

    fn parse(body: &mut Reader<'_>) -> Result<(bool, Self), ParseError> {
        let mut head = body.clone().named("proposal");
        let more = last_substruc(&mut head, Self::MORE)?;
        let _reserved = head.u8()?;
        let length = usize::from(head.u16()?);
        let mut reader = body.sub("proposal", length)?;
        if more == body.is_empty() {
            return Err(reader.error(Malformed::BadValue(if more {
                Self::MORE.into()
            } else {
                0
            })));
        }
        reader.take(4)?;
        let number = reader.u8()?;
        let protocol = ProtocolId(reader.u8()?);
        let spi_size = usize::from(reader.u8()?);
        let count = usize::from(reader.u8()?);
        let spi = reader.take(spi_size)?.to_vec();
        if count == 0 {
            return Err(reader.error(Malformed::BadValue(0)));
        }
        let mut transforms = Vec::new();
        for i in 1..=count {
            let before = reader.clone().named("transform");
            let (more, transform) = Transform::parse(&mut reader)?;
            if more != (i < count) {
                return Err(before.error(Malformed::BadValue(if more {
                    Transform::MORE.into()
                } else {
                    0
                })));
            }
            transforms.push(transform);
        }
        reader.all()?;
        Ok((more, Self { number, protocol, spi, transforms }))
    }

    fn emit(&self, more: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[if more { Self::MORE } else { 0 }, 0, 0, 0]);
        out.extend_from_slice(&[
            self.number,
            self.protocol.0,
            len8(self.spi.len()),
            len8(self.transforms.len()),
        ]);
        out.extend_from_slice(&self.spi);
        for (i, transform) in self.transforms.iter().enumerate() {
            transform.emit(i.saturating_add(1) < self.transforms.len(), out);
        }
        patch_len(out, start);
    }
}

/// Transform substructure (RFC 7296 §3.3.2).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Last Substruc |   RESERVED    |        Transform Length       |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |Transform Type |   RESERVED    |          Transform ID         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                      Transform Attributes                     ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Transform Type.
    pub transform_type: TransformType,
    /// Transform ID, of the registry that belongs to the type.
    pub id: u16,
    /// The Key Length attribute, in bits.
    pub key_length: Option<u16>,
    /// An attribute that is not understood was there: the transform must not be chosen (RFC 7296
    /// §3.3.6). Not emitted: we send no such attribute, and only what was chosen is sent back.
    pub unknown_attribute: bool,
}

impl Transform {
    /// Last Substruc of a transform that others follow.
    const MORE: u8 = 3;

    /// A transform without attributes.
    #[must_use]
    pub const fn new(transform_type: TransformType, id: u16) -> Self {
        Self { transform_type, id, key_length: None, unknown_attribute: false }
    }

    /// A transform with a key length in bits.
    #[must_use]
    pub const fn with_key_length(transform_type: TransformType, id: u16, bits: u16) -> Self {
        Self { transform_type, id, key_length: Some(bits), unknown_attribute: false }
    }

    fn parse(body: &mut Reader<'_>) -> Result<(bool, Self), ParseError> {
        let mut head = body.clone().named("transform");
        let more = last_substruc(&mut head, Self::MORE)?;
        let _reserved = head.u8()?;
        let length = usize::from(head.u16()?);
        let mut reader = body.sub("transform", length)?;
        reader.take(4)?;
        let mut transform = Self::new(TransformType(reader.u8()?), 0);
        let _reserved = reader.u8()?;
        transform.id = reader.u16()?;
        transform.parse_attributes(reader.named("transform attribute"))?;
        Ok((more, transform))
    }

    /// Reads the attributes (RFC 7296 §3.3.5).
    ///
    /// ```text
    ///                      1                   2                   3
    ///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |A|       Attribute Type        |    AF=0  Attribute Length     |
    /// |F|                             |    AF=1  Attribute Value      |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// |                   AF=0  Attribute Value                       |
    /// |                   AF=1  Not Transmitted                       |
    /// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    /// ```
    fn parse_attributes(&mut self, mut reader: Reader<'_>) -> Result<(), ParseError> {
        for _ in 0..MAX_ATTRIBUTES {
            if reader.is_empty() {
                return Ok(());
            }
            let before = reader.clone();
            let format_and_type = reader.u16()?;
            let length_or_value = reader.u16()?;
            if format_and_type & ATTRIBUTE_TV == 0 {
                reader.take(length_or_value.into())?;
            }
            if format_and_type == ATTRIBUTE_TV | AttributeType::KEY_LENGTH.0 {
                // RFC 7296 §3.3: a transform MUST NOT have multiple attributes of the same type.
                if self.key_length.replace(length_or_value).is_some() {
                    return Err(
                        before.error(Malformed::BadValue(AttributeType::KEY_LENGTH.0.into()))
                    );
                }
            } else {
                // A Key Length in TLV format too: RFC 7296 §3.3.5 forbids that form.
                self.unknown_attribute = true;
            }
        }
        if reader.is_empty() {
            Ok(())
        } else {
            Err(reader.error(Malformed::TooMany(MAX_ATTRIBUTES)))
        }
    }

    fn emit(self, more: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[if more { Self::MORE } else { 0 }, 0, 0, 0]);
        out.extend_from_slice(&[self.transform_type.0, 0]);
        out.extend_from_slice(&self.id.to_be_bytes());
        if let Some(bits) = self.key_length {
            let format_and_type = ATTRIBUTE_TV | AttributeType::KEY_LENGTH.0;
            out.extend_from_slice(&format_and_type.to_be_bytes());
            out.extend_from_slice(&bits.to_be_bytes());
        }
        patch_len(out, start);
    }
}

/// The AF bit: the attribute has a 2-byte value in place of a length.
const ATTRIBUTE_TV: u16 = 0x8000;

/// Whether another substructure follows: the field is `more` then, else 0.
fn last_substruc(reader: &mut Reader<'_>, more: u8) -> Result<bool, ParseError> {
    let before = reader.clone();
    match reader.u8()? {
        0 => Ok(false),
        value if value == more => Ok(true),
        value => Err(before.error(Malformed::BadValue(value.into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::{EncrId, EsnId, IntegId, PayloadType};
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;

    /// RFC 7296 §3.3's example, cut to one key length.
    fn sa() -> Sa {
        Sa {
            proposals: vec![
                Proposal {
                    number: 1,
                    protocol: ProtocolId::ESP,
                    spi: vec![0x05, 0x23, 0x57, 0xbb],
                    transforms: vec![
                        Transform::with_key_length(
                            TransformType::ENCR,
                            EncrId::ENCR_AES_CBC.0,
                            256,
                        ),
                        Transform::new(TransformType::INTEG, IntegId::AUTH_HMAC_SHA1_96.0),
                        Transform::new(TransformType::ESN, EsnId::NO_ESN.0),
                    ],
                },
                Proposal {
                    number: 2,
                    protocol: ProtocolId::ESP,
                    spi: vec![0x35, 0xa1, 0xd6, 0xf2],
                    transforms: vec![Transform::new(TransformType::ESN, EsnId::ESN.0)],
                },
            ],
        }
    }

    const BODY: [u8; 60] = [
        2, 0, 0, 40, 1, 3, 4, 3, 0x05, 0x23, 0x57, 0xbb, // proposal 1
        3, 0, 0, 12, 1, 0, 0, 12, 0x80, 14, 1, 0, // ENCR_AES_CBC, 256 bits
        3, 0, 0, 8, 3, 0, 0, 2, // AUTH_HMAC_SHA1_96
        0, 0, 0, 8, 5, 0, 0, 0, // NO_ESN
        0, 0, 0, 20, 2, 3, 4, 1, 0x35, 0xa1, 0xd6, 0xf2, // proposal 2
        0, 0, 0, 8, 5, 0, 0, 1, // ESN
    ];

    six_tests!(
        Payload::Sa(sa()),
        BODY,
        least = BODY.len(),
        reserved = [1, 13, 17, 25, 29, 33, 37, 41, 53, 57],
    );

    fn why(body: &[u8]) -> Malformed {
        testkit::parse(PayloadType::SA, body).expect_err("malformed").why
    }

    fn changed(index: usize, value: u8) -> [u8; 60] {
        let mut body = BODY;
        body[index] = value;
        body
    }

    #[test]
    fn proposal_numbers_start_at_one_and_rise_by_one() {
        assert_eq!(why(&changed(4, 2)), Malformed::BadValue(2));
        assert_eq!(why(&changed(4, 0)), Malformed::BadValue(0));
        assert_eq!(why(&changed(44, 3)), Malformed::BadValue(3));
        assert_eq!(why(&changed(44, 1)), Malformed::BadValue(1));
    }

    #[test]
    fn an_accepted_proposal_keeps_its_number_but_is_never_zero() {
        let parsed = testkit::parse(PayloadType::SA, &BODY[40..]).expect("proposal 2 alone");
        assert_eq!(parsed, Payload::Sa(Sa { proposals: vec![sa().proposals.remove(1)] }));
        let mut zero = BODY[40..].to_vec();
        zero[4] = 0;
        assert_eq!(why(&zero), Malformed::BadValue(0));
    }

    #[test]
    fn last_substruc_must_tell_the_truth() {
        for (index, value) in [(0, 0), (0, 3), (40, 2), (12, 0), (32, 3), (12, 2), (52, 1)] {
            assert_eq!(why(&changed(index, value)), Malformed::BadValue(value.into()), "{index}");
        }
    }

    #[test]
    fn inner_lengths_must_fill_the_outer_ones() {
        // A transform longer than its proposal, a proposal longer than the payload, one too short for
        // its transforms, a transform shorter than its header.
        for (index, value) in [(15, 200), (3, 61), (3, 39), (3, 3), (15, 7), (35, 7)] {
            assert!(testkit::parse(PayloadType::SA, &changed(index, value)).is_err(), "{index}");
        }
    }

    #[test]
    fn num_transforms_must_be_the_number_of_transforms() {
        for value in [0, 1, 2, 4] {
            assert!(testkit::parse(PayloadType::SA, &changed(7, value)).is_err(), "{value}");
        }
    }

    /// One ESP proposal with one ENCR transform that has `attributes`.
    fn with_attributes(attributes: &[u8]) -> Vec<u8> {
        let len = len8(attributes.len());
        let mut body = vec![0, 0, 0, 16 + len, 1, 3, 0, 1, 0, 0, 0, 8 + len, 1, 0, 0, 12];
        body.extend_from_slice(attributes);
        body
    }

    fn transform_with(attributes: &[u8]) -> Transform {
        let parsed = testkit::parse(PayloadType::SA, &with_attributes(attributes));
        let Ok(Payload::Sa(sa)) = parsed else { panic!("{parsed:?}") };
        sa.proposals[0].transforms[0]
    }

    #[test]
    fn unknown_attributes_are_marked_in_both_formats() {
        let tlv = transform_with(&[0, 99, 0, 3, 1, 2, 3, 0x80, 14, 0, 128]);
        assert_eq!((tlv.key_length, tlv.unknown_attribute), (Some(128), true));
        let tv = transform_with(&[0x80, 99, 0, 3]);
        assert_eq!((tv.key_length, tv.unknown_attribute), (None, true));
    }

    #[test]
    fn key_length_in_tlv_format_is_not_understood() {
        let tlv = transform_with(&[0, 14, 0, 2, 1, 0]);
        assert_eq!((tlv.key_length, tlv.unknown_attribute), (None, true));
    }

    #[test]
    fn key_length_twice_is_malformed() {
        assert_eq!(
            why(&with_attributes(&[0x80, 14, 1, 0, 0x80, 14, 1, 0])),
            Malformed::BadValue(14)
        );
    }

    #[test]
    fn an_attribute_longer_than_its_transform_is_malformed() {
        assert_eq!(
            why(&with_attributes(&[0, 99, 0, 4, 1, 2, 3])),
            Malformed::Truncated { needed: 4, available: 3 }
        );
        assert!(testkit::parse(PayloadType::SA, &with_attributes(&[0x80, 14])).is_err());
    }

    #[test]
    fn attributes_and_proposals_are_bounded() {
        let attributes = [0x80, 99, 0, 0].repeat(MAX_ATTRIBUTES + 1);
        assert_eq!(why(&with_attributes(&attributes)), Malformed::TooMany(MAX_ATTRIBUTES));
        transform_with(&attributes[4..]);

        let proposals = (1..).map(|number| Proposal {
            number,
            protocol: ProtocolId::IKE,
            spi: vec![],
            transforms: vec![Transform::new(TransformType::PRF, 5)],
        });
        let mut body = Vec::new();
        Sa { proposals: proposals.take(MAX_PROPOSALS + 1).collect() }.emit(&mut body);
        assert_eq!(why(&body), Malformed::TooMany(MAX_PROPOSALS));
    }
}
