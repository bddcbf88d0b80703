//! Delete payload (RFC 7296 §3.11).

use super::numbers::ProtocolId;
use super::{len8, len16};
use crate::wire::{Malformed, ParseError, Reader};

/// SPIs accepted in one Delete payload; with more CHILD_SAs, a peer sends several.
pub const MAX_SPIS: usize = 4096;

/// Delete payload (RFC 7296 §3.11).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Protocol ID   |   SPI Size    |          Num of SPIs          |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~               Security Parameter Index(es) (SPI)              ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Protocol of the SAs.
    pub protocol: ProtocolId,
    /// SPIs as the sender expects them in inbound packets, all of one length: 4 bytes for ESP and AH.
    /// None for IKE, where the header names the SA.
    pub spis: Vec<Vec<u8>>,
}

impl Delete {
    /// The deletion of the IKE SA itself.
    #[must_use]
    pub const fn ike() -> Self {
        Self { protocol: ProtocolId::IKE, spis: Vec::new() }
    }

    /// The deletion of ESP SAs, by SPIs inbound at the sender.
    #[must_use]
    pub fn esp(spis: impl IntoIterator<Item = [u8; 4]>) -> Self {
        Self::of(ProtocolId::ESP, spis)
    }

    /// The deletion of ESP or AH SAs, by SPIs inbound at the sender.
    #[must_use]
    pub fn of(protocol: ProtocolId, spis: impl IntoIterator<Item = [u8; 4]>) -> Self {
        Self { protocol, spis: spis.into_iter().map(Vec::from).collect() }
    }

    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When the SPIs do not fill the body, or their size is not the protocol's.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let protocol = ProtocolId(body.u8()?);
        let before_size = body.clone();
        let spi_size = usize::from(body.u8()?);
        let count = usize::from(body.u16()?);
        // RFC 7296 §3.11: zero for IKE, four for AH and ESP.
        let good = match protocol {
            ProtocolId::IKE => spi_size == 0,
            ProtocolId::AH | ProtocolId::ESP => spi_size == 4,
            _ => true,
        };
        if !good {
            return Err(before_size.error(Malformed::BadLength(spi_size)));
        }
        // Without SPIs there is nothing to count; whatever the peer says is no reason to keep the SA.
        let count = if spi_size == 0 { 0 } else { count };
        if count > MAX_SPIS {
            return Err(body.error(Malformed::TooMany(MAX_SPIS)));
        }
        let spis =
            (0..count).map(|_| Ok(body.take(spi_size)?.to_vec())).collect::<Result<_, _>>()?;
        Ok(Self { protocol, spis })
    }

    /// Appends the body of the payload. SPIs of another length than the first are left out.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let spi_size = match (self.protocol, self.spis.first()) {
            (ProtocolId::IKE, _) => 0,
            (ProtocolId::AH | ProtocolId::ESP, _) => 4,
            (_, first) => first.map_or(0, Vec::len),
        };
        let spis = || self.spis.iter().filter(|spi| spi_size > 0 && spi.len() == spi_size);
        out.extend_from_slice(&[self.protocol.0, len8(spi_size)]);
        out.extend_from_slice(&len16(spis().count()));
        for spi in spis() {
            out.extend_from_slice(spi);
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
        Payload::Delete(Delete::esp([[1, 2, 3, 4], [5, 6, 7, 8]])),
        [3, 4, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8],
        least = 12,
        reserved = [],
    );

    #[test]
    fn the_ike_sa_is_deleted_without_spis() {
        assert_eq!(
            testkit::parse(PayloadType::DELETE, &[1, 0, 0, 0]),
            Ok(Payload::Delete(Delete::ike()))
        );
        assert_eq!(&testkit::emit(&Payload::Delete(Delete::ike()))[4..], [1, 0, 0, 0]);
    }

    #[test]
    fn a_count_of_nothing_is_ignored() {
        assert_eq!(
            testkit::parse(PayloadType::DELETE, &[1, 0, 0xff, 0xff]),
            Ok(Payload::Delete(Delete::ike()))
        );
    }

    #[test]
    fn spi_size_must_be_the_protocols() {
        for body in [&[1, 8, 0, 0][..], &[3, 8, 0, 0], &[2, 0, 0, 0]] {
            let error = testkit::parse(PayloadType::DELETE, body).expect_err("wrong size");
            assert_eq!(error.why, Malformed::BadLength(body[1].into()));
        }
    }

    #[test]
    fn spis_fill_the_body() {
        let error = testkit::parse(PayloadType::DELETE, &[3, 4, 0, 1, 1, 2, 3, 4, 5]);
        assert_eq!(error.expect_err("a byte left").why, Malformed::Trailing(1));
    }

    #[test]
    fn the_number_of_spis_is_bounded() {
        let mut body = vec![3, 4];
        body.extend_from_slice(&len16(MAX_SPIS + 1));
        body.resize(4 + 4 * (MAX_SPIS + 1), 0);
        let error = testkit::parse(PayloadType::DELETE, &body).expect_err("too many");
        assert_eq!(error.why, Malformed::TooMany(MAX_SPIS));
    }
}
