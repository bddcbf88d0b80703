//! The IKE header (RFC 7296 §3.1).

use core::fmt;

use super::numbers::{ExchangeType, PayloadType};
use crate::wire::{ParseError, Reader};

/// The UDP port of IKE (RFC 7296 §2).
pub const PORT: u16 = 500;

/// The SPI of an IKE SA at one of its ends (RFC 7296 §3.1). Zero: not chosen yet.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(pub u64);

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The IKE header (RFC 7296 §3.1).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       IKE SA Initiator's SPI                  |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                       IKE SA Responder's SPI                  |
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                          Message ID                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                            Length                             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// SPI chosen by the original initiator.
    pub spi_i: IkeSpi,
    /// SPI chosen by the original responder; zero in the first message.
    pub spi_r: IkeSpi,
    /// Type of the payload after the header.
    pub next_payload: PayloadType,
    /// Major version; 2 for what this library speaks. Not judged on parsing.
    pub major: u8,
    /// Minor version; sent as 0, and nothing may depend on it.
    pub minor: u8,
    /// Exchange Type.
    pub exchange: ExchangeType,
    /// Flags.
    pub flags: Flags,
    /// Message ID.
    pub message_id: u32,
    /// Length of the message in bytes, this header included.
    pub length: u32,
}

impl Header {
    /// Length of the header in bytes.
    pub const LEN: usize = 28;
    /// Major version of IKEv2.
    pub const MAJOR: u8 = 2;

    /// A header of IKEv2; payload type and length are filled in when the message is emitted.
    #[must_use]
    pub const fn new(
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        exchange: ExchangeType,
        flags: Flags,
        message_id: u32,
    ) -> Self {
        Self {
            spi_i,
            spi_r,
            next_payload: PayloadType::NONE,
            major: Self::MAJOR,
            minor: 0,
            exchange,
            flags,
            message_id,
            length: 0,
        }
    }

    /// Reads the header; what its values mean is not judged.
    ///
    /// # Errors
    /// Only when there are fewer than [`Self::LEN`] bytes.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let spi_i = IkeSpi(reader.u64()?);
        let spi_r = IkeSpi(reader.u64()?);
        let next_payload = PayloadType(reader.u8()?);
        let version = reader.u8()?;
        Ok(Self {
            spi_i,
            spi_r,
            next_payload,
            major: version >> 4,
            minor: version & 0x0f,
            exchange: ExchangeType(reader.u8()?),
            flags: Flags::from_byte(reader.u8()?),
            message_id: reader.u32()?,
            length: reader.u32()?,
        })
    }

    /// Appends the header as it stands. Of the versions, the low 4 bits count.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.spi_i.0.to_be_bytes());
        out.extend_from_slice(&self.spi_r.0.to_be_bytes());
        out.extend_from_slice(&[
            self.next_payload.0,
            (self.major << 4) | (self.minor & 0x0f),
            self.exchange.0,
            self.flags.to_byte(),
        ]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
    }
}

/// The Flags octet of the header, `|X|X|R|V|I|X|X|X|` (RFC 7296 §3.1). X bits are sent as zero and
/// ignored on receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// I: sent by the original initiator of the IKE SA.
    pub initiator: bool,
    /// V: the sender could speak a higher major version. Never set by us, ignored on receipt.
    pub version: bool,
    /// R: a response.
    pub response: bool,
}

impl Flags {
    const INITIATOR: u8 = 0x08;
    const VERSION: u8 = 0x10;
    const RESPONSE: u8 = 0x20;

    /// Flags as IKEv2 sends them.
    #[must_use]
    pub const fn new(initiator: bool, response: bool) -> Self {
        Self { initiator, version: false, response }
    }

    const fn from_byte(byte: u8) -> Self {
        Self {
            initiator: byte & Self::INITIATOR != 0,
            version: byte & Self::VERSION != 0,
            response: byte & Self::RESPONSE != 0,
        }
    }

    const fn to_byte(self) -> u8 {
        (if self.initiator { Self::INITIATOR } else { 0 })
            | (if self.version { Self::VERSION } else { 0 })
            | (if self.response { Self::RESPONSE } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 28] = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 41, 0x20, 37, 0x28, 0, 0, 1, 2, 0,
        0, 0, 28,
    ];

    fn header() -> Header {
        Header {
            spi_i: IkeSpi(0x0102_0304_0506_0708),
            spi_r: IkeSpi(0x090a_0b0c_0d0e_0f10),
            next_payload: PayloadType::NOTIFY,
            major: 2,
            minor: 0,
            exchange: ExchangeType::INFORMATIONAL,
            flags: Flags { initiator: true, version: false, response: true },
            message_id: 0x0102,
            length: 28,
        }
    }

    fn parse(bytes: &[u8]) -> Result<Header, ParseError> {
        Header::parse(&mut Reader::new("IKE header", bytes))
    }

    #[test]
    fn parse_reads_every_field() {
        assert_eq!(parse(&BYTES), Ok(header()));
    }

    #[test]
    fn emit_writes_every_field() {
        let mut out = Vec::new();
        header().emit(&mut out);
        assert_eq!(out, BYTES);
    }

    #[test]
    fn length_of_what_is_emitted_is_len() {
        let mut out = Vec::new();
        header().emit(&mut out);
        assert_eq!(out.len(), Header::LEN);
    }

    #[test]
    fn every_shorter_input_is_rejected() {
        for len in 0..BYTES.len() {
            assert!(parse(&BYTES[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn undefined_flags_are_ignored_and_sent_as_zero() {
        let mut bytes = BYTES;
        bytes[19] |= 0xc7;
        let parsed = parse(&bytes).expect("flags cannot be wrong");
        assert_eq!(parsed, header());
        let mut out = Vec::new();
        parsed.emit(&mut out);
        assert_eq!(out, BYTES);
    }

    #[test]
    fn versions_are_reported_not_judged() {
        let mut bytes = BYTES;
        bytes[17] = 0x35;
        let parsed = parse(&bytes).expect("versions are not judged");
        assert_eq!((parsed.major, parsed.minor), (3, 5));
    }

    #[test]
    fn new_is_version_two_without_payloads() {
        let header = Header::new(
            IkeSpi(1),
            IkeSpi(0),
            ExchangeType::IKE_SA_INIT,
            Flags::new(true, false),
            0,
        );
        assert_eq!((header.major, header.minor, header.next_payload), (2, 0, PayloadType::NONE));
    }
}
