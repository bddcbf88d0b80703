//! Notify payload (RFC 7296 §3.10).

use super::len8;
use super::numbers::{NotifyType, ProtocolId};
use crate::wire::{ParseError, Reader};

/// Notify payload (RFC 7296 §3.10).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Protocol ID  |   SPI Size    |      Notify Message Type      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                Security Parameter Index (SPI)                 ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                       Notification Data                       ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Protocol of the SA that `spi` names; [`ProtocolId::NONE`] without an SPI.
    pub protocol: ProtocolId,
    /// SPI of the SA that this is about; empty where none is. At most 255 bytes.
    pub spi: Vec<u8>,
    /// Notify Message Type.
    pub notify_type: NotifyType,
    /// Notification Data.
    pub data: Vec<u8>,
}

impl Notify {
    /// A notification that names no SA.
    #[must_use]
    pub fn new(notify_type: NotifyType, data: impl Into<Vec<u8>>) -> Self {
        Self { protocol: ProtocolId::NONE, spi: Vec::new(), notify_type, data: data.into() }
    }

    /// A notification about one CHILD_SA, as REKEY_SA and CHILD_SA_NOT_FOUND are.
    #[must_use]
    pub fn for_sa(protocol: ProtocolId, spi: impl Into<Vec<u8>>, notify_type: NotifyType) -> Self {
        Self { protocol, spi: spi.into(), notify_type, data: Vec::new() }
    }

    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When it is shorter than its fixed part and SPI.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let protocol = ProtocolId(body.u8()?);
        let spi_size = usize::from(body.u8()?);
        let notify_type = NotifyType(body.u16()?);
        let spi = body.take(spi_size)?.to_vec();
        // RFC 7296 §3.10: with an empty SPI field, the protocol MUST be ignored on receipt.
        let protocol = if spi.is_empty() { ProtocolId::NONE } else { protocol };
        Ok(Self { protocol, spi, notify_type, data: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        // RFC 7296 §3.10: if the SPI field is empty, the protocol MUST be sent as zero.
        let protocol = if self.spi.is_empty() { ProtocolId::NONE } else { self.protocol };
        out.extend_from_slice(&[protocol.0, len8(self.spi.len())]);
        out.extend_from_slice(&self.notify_type.0.to_be_bytes());
        out.extend_from_slice(&self.spi);
        out.extend_from_slice(&self.data);
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::PayloadType;
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;

    six_tests!(
        Payload::Notify(Notify {
            protocol: ProtocolId::ESP,
            spi: vec![1, 2, 3, 4],
            notify_type: NotifyType::REKEY_SA,
            data: vec![9, 9],
        }),
        [3, 4, 0x40, 0x09, 1, 2, 3, 4, 9, 9],
        least = 8,
        reserved = [],
    );

    #[test]
    fn protocol_is_ignored_and_sent_as_zero_without_an_spi() {
        let cookie = Payload::Notify(Notify::new(NotifyType::COOKIE, [7]));
        let parsed = testkit::parse(PayloadType::NOTIFY, &[1, 0, 0x40, 0x06, 7]);
        assert_eq!(parsed, Ok(cookie));
        let odd = Notify {
            protocol: ProtocolId::IKE,
            spi: vec![],
            notify_type: NotifyType::COOKIE,
            data: vec![7],
        };
        assert_eq!(&testkit::emit(&Payload::Notify(odd))[4..], [0, 0, 0x40, 0x06, 7]);
    }

    #[test]
    fn for_sa_names_the_sa_and_has_no_data() {
        let notify = Notify::for_sa(ProtocolId::ESP, [1, 2, 3, 4], NotifyType::CHILD_SA_NOT_FOUND);
        assert_eq!(&testkit::emit(&Payload::Notify(notify))[4..], [3, 4, 0, 44, 1, 2, 3, 4]);
    }
}
