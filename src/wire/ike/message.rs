//! IKE messages: the header and the chain of payloads after it (RFC 7296 §3.1, §3.2).

use super::header::Header;
use super::numbers::PayloadType;
use super::patch_len;
use super::payload::Payload;
use crate::wire::{Malformed, ParseError, Reader};

/// Payloads accepted in one chain. The longest chains seen in the field (certificate chains, many
/// additional addresses) have a few dozen.
pub const MAX_PAYLOADS: usize = 128;

/// An IKE message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The header. Its `next_payload` and `length` follow from the payloads when emitted.
    pub header: Header,
    /// The payloads in order. An SK or SKF payload, if there is one, is the last.
    pub payloads: Vec<Payload>,
}

impl Message {
    /// Reads one datagram (without the non-ESP marker).
    ///
    /// The major version is not judged: a message of another version may have another form, so look at
    /// [`Header::parse`] before calling a failure of this a syntax error.
    ///
    /// # Errors
    /// When the Length field is not the length of the datagram, a payload is malformed or misplaced, or
    /// bytes are left over.
    pub fn parse(datagram: &[u8]) -> Result<Self, ParseError> {
        let mut reader = Reader::new("IKE header", datagram);
        let header = Header::parse(&mut reader)?;
        if usize::try_from(header.length).ok() != Some(datagram.len()) {
            let said = usize::try_from(header.length).unwrap_or(usize::MAX);
            return Err(reader.error(Malformed::BadLength(said)));
        }
        let payloads = chain(header.next_payload, reader, Place::Message)?;
        Ok(Self { header, payloads })
    }

    /// The message as it goes into a datagram, without the non-ESP marker.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        // Room for what is short, so that a COOKIE takes a single allocation.
        let mut out = Vec::with_capacity(128);
        let next_payload = self.payloads.first().map_or(PayloadType::NONE, Payload::payload_type);
        Header { next_payload, length: 0, ..self.header }.emit(&mut out);
        emit_chain(&self.payloads, &mut out);
        let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
        if let Some(field) = out.get_mut(LENGTH) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        out
    }
}

/// Reads the payloads inside an SK payload, `first` being the SK payload's Next Payload field.
///
/// # Errors
/// When a payload is malformed, bytes are left over, or an SK or SKF payload is among them.
pub fn parse_chain(first: PayloadType, bytes: &[u8]) -> Result<Vec<Payload>, ParseError> {
    chain(first, Reader::new("payload chain", bytes), Place::InsideSk)
}

/// Appends the payloads with their generic headers and returns the type of the first, or
/// [`PayloadType::NONE`] if there is none. Nothing follows an SK or SKF payload (RFC 7296 §3.14).
pub fn emit_chain(payloads: &[Payload], out: &mut Vec<u8>) -> PayloadType {
    let type_at = |i: usize| payloads.get(i).map_or(PayloadType::NONE, Payload::payload_type);
    for (i, payload) in payloads.iter().enumerate() {
        let start = out.len();
        let protected = payload.protected_first();
        let next = protected.unwrap_or_else(|| type_at(i.saturating_add(1)));
        let flags = if payload.is_critical() { CRITICAL } else { 0 };
        out.extend_from_slice(&[next.0, flags, 0, 0]);
        payload.emit_body(out);
        patch_len(out, start);
        if protected.is_some() {
            break;
        }
    }
    type_at(0)
}

/// The Length field of the header.
const LENGTH: core::ops::Range<usize> = 24..28;
/// The critical bit of the generic payload header.
const CRITICAL: u8 = 0x80;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Message,
    InsideSk,
}

/// Reads payloads until one says that none follows.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
fn chain(
    first: PayloadType,
    mut reader: Reader<'_>,
    place: Place,
) -> Result<Vec<Payload>, ParseError> {
    let mut payloads = Vec::new();
    let mut payload_type = first;
    while payload_type != PayloadType::NONE {
        let mut header = reader.clone().named("generic payload header");
        if payloads.len() == MAX_PAYLOADS {
            return Err(header.error(Malformed::TooMany(MAX_PAYLOADS)));
        }
        let protected = matches!(payload_type, PayloadType::SK | PayloadType::SKF);
        // RFC 7296 §3.1: an Encrypted payload MUST NOT contain another.
        if protected && place == Place::InsideSk {
            return Err(header.error(Malformed::BadValue(payload_type.0.into())));
        }
        let next = PayloadType(header.u8()?);
        let critical = header.u8()? & CRITICAL != 0;
        let length = usize::from(header.u16()?);
        let Some(body_len) = length.checked_sub(4) else {
            return Err(header.error(Malformed::BadLength(length)));
        };
        let mut body = header.sub(Payload::what(payload_type), body_len)?;
        reader = header;
        payloads.push(Payload::parse_body(payload_type, critical, next, &mut body)?);
        body.all()?;
        // RFC 7296 §3.2: the Next Payload field of SK names the first payload inside; SK is the last.
        payload_type = if protected { PayloadType::NONE } else { next };
    }
    reader.named("payload chain").all()?;
    Ok(payloads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ike::header::{Flags, IkeSpi};
    use crate::wire::ike::nonce::Nonce;
    use crate::wire::ike::notify::Notify;
    use crate::wire::ike::numbers::{ExchangeType, NotifyType};
    use crate::wire::ike::sk::Sk;
    use crate::wire::ike::vendor::Vendor;

    fn message(payloads: Vec<Payload>) -> Message {
        let flags = Flags::new(true, false);
        let mut header = Header::new(IkeSpi(1), IkeSpi(2), ExchangeType::IKE_SA_INIT, flags, 0);
        header.next_payload = payloads.first().map_or(PayloadType::NONE, Payload::payload_type);
        let mut message = Message { header, payloads };
        message.header.length = u32::try_from(message.emit().len()).expect("small");
        message
    }

    fn nonce() -> Payload {
        Payload::Nonce(Nonce { data: vec![7; 16] })
    }

    #[test]
    fn parse_gives_back_what_was_emitted() {
        let message = message(vec![
            nonce(),
            Payload::Notify(Notify::new(NotifyType::COOKIE, vec![1, 2])),
            Payload::Vendor(Vendor { data: vec![] }),
        ]);
        assert_eq!(Message::parse(&message.emit()), Ok(message));
    }

    #[test]
    fn a_message_without_payloads_is_its_header() {
        let message = message(vec![]);
        assert_eq!(message.emit().len(), Header::LEN);
        assert_eq!(Message::parse(&message.emit()), Ok(message));
    }

    #[test]
    fn every_truncation_is_rejected_even_when_the_length_field_agrees() {
        let bytes = message(vec![nonce(), nonce()]).emit();
        for len in 0..bytes.len() {
            let mut short = bytes[..len].to_vec();
            assert!(Message::parse(&short).is_err(), "{len} bytes, length field wrong");
            if let Some(field) = short.get_mut(24..28) {
                field.copy_from_slice(&u32::try_from(len).expect("small").to_be_bytes());
            }
            assert!(Message::parse(&short).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn length_field_must_be_the_length_of_the_datagram() {
        let mut bytes = message(vec![nonce()]).emit();
        bytes.push(0);
        let error = Message::parse(&bytes).expect_err("a byte too many");
        assert_eq!(error.why, Malformed::BadLength(48));
        bytes[27] += 1;
        let error = Message::parse(&bytes).expect_err("a byte after the last payload");
        assert_eq!(error.why, Malformed::Trailing(1));
    }

    #[test]
    fn a_payload_shorter_than_its_header_is_rejected() {
        let mut bytes = message(vec![nonce()]).emit();
        bytes[31] = 3;
        assert_eq!(Message::parse(&bytes).expect_err("3 < 4").why, Malformed::BadLength(3));
    }

    #[test]
    fn unknown_payloads_keep_type_critical_bit_and_body() {
        let unknown = Payload::Unknown {
            payload_type: PayloadType(200),
            critical: true,
            body: vec![1, 2, 3],
        };
        let message = message(vec![unknown, nonce()]);
        let bytes = message.emit();
        assert_eq!(bytes[29], 0x80);
        assert_eq!(Message::parse(&bytes), Ok(message));
    }

    #[test]
    fn critical_bit_and_reserved_bits_of_known_payloads_are_ignored() {
        let message = message(vec![nonce()]);
        let mut bytes = message.emit();
        bytes[29] = 0xff;
        assert_eq!(Message::parse(&bytes), Ok(message));
    }

    #[test]
    fn nothing_follows_an_encrypted_payload() {
        let sk = Payload::Sk(Sk { first: PayloadType::NONCE, body: vec![9; 20] });
        let good = message(vec![sk.clone()]);
        assert_eq!(Message::parse(&good.emit()), Ok(good.clone()));

        let mut bytes = good.emit();
        bytes.extend_from_slice(&[0, 0, 0, 4]);
        bytes[27] += 4;
        let error = Message::parse(&bytes).expect_err("bytes after SK");
        assert_eq!(error.why, Malformed::Trailing(4));

        assert_eq!(message(vec![sk, nonce()]).emit(), good.emit(), "not emitted either");
    }

    #[test]
    fn an_encrypted_payload_holds_no_other() {
        let mut inner = Vec::new();
        let sk = Payload::Sk(Sk { first: PayloadType::NONE, body: vec![] });
        let first = emit_chain(&[nonce(), sk], &mut inner);
        let error = parse_chain(first, &inner).expect_err("SK in SK");
        assert_eq!(error.why, Malformed::BadValue(46));
    }

    #[test]
    fn the_number_of_payloads_is_bounded() {
        let vendor = Payload::Vendor(Vendor { data: vec![] });
        let most = message(vec![vendor.clone(); MAX_PAYLOADS]);
        assert_eq!(Message::parse(&most.emit()), Ok(most));
        let error = Message::parse(&message(vec![vendor; MAX_PAYLOADS + 1]).emit());
        assert_eq!(error.expect_err("one too many").why, Malformed::TooMany(MAX_PAYLOADS));
    }

    #[test]
    fn empty_chain_has_no_first_payload() {
        let mut out = Vec::new();
        assert_eq!(emit_chain(&[], &mut out), PayloadType::NONE);
        assert!(out.is_empty());
        assert_eq!(parse_chain(PayloadType::NONE, &[]), Ok(vec![]));
        assert!(parse_chain(PayloadType::NONE, &[0]).is_err());
    }
}
