//! What the unit tests of all payloads share: one payload read and written on its own, and the tests
//! that every format must pass.

use super::header::{Flags, Header, IkeSpi};
use super::message::{Message, emit_chain};
use super::numbers::{ExchangeType, PayloadType};
use super::payload::Payload;
use crate::wire::ParseError;

/// Reads `body` as the only payload of a message.
pub(super) fn parse(payload_type: PayloadType, body: &[u8]) -> Result<Payload, ParseError> {
    let mut bytes = vec![0, 0];
    let length = u16::try_from(body.len() + 4).expect("test bodies are short");
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    let mut payloads = parse_whole(payload_type, &bytes)?;
    assert_eq!(payloads.len(), 1);
    Ok(payloads.remove(0))
}

/// Reads `chain` as the payloads of a message.
pub(super) fn parse_whole(first: PayloadType, chain: &[u8]) -> Result<Vec<Payload>, ParseError> {
    let flags = Flags::new(true, false);
    let exchange = ExchangeType::IKE_AUTH;
    let mut header = Header::new(IkeSpi(1), IkeSpi(2), exchange, flags, 1);
    header.next_payload = first;
    header.length = u32::try_from(Header::LEN + chain.len()).expect("test bodies are short");
    let mut bytes = Vec::new();
    header.emit(&mut bytes);
    bytes.extend_from_slice(chain);
    Ok(Message::parse(&bytes)?.payloads)
}

/// The payload's generic header and body.
pub(super) fn emit(payload: &Payload) -> Vec<u8> {
    let mut out = Vec::new();
    assert_eq!(emit_chain(std::slice::from_ref(payload), &mut out), payload.payload_type());
    out
}

/// Six tests of a payload whose body is `$body`: `least` is the length below which no body is valid,
/// `reserved` the indexes of its RESERVED bytes.
macro_rules! six_tests {
    ($payload:expr, $body:expr, least = $least:expr, reserved = $reserved:expr $(,)?) => {
        #[test]
        fn parse_reads_every_field() {
            let payload: $crate::wire::ike::payload::Payload = $payload;
            let body: &[u8] = &$body;
            let parsed = $crate::wire::ike::testkit::parse(payload.payload_type(), body);
            assert_eq!(parsed, Ok(payload));
        }

        #[test]
        fn emit_writes_every_field() {
            let body: &[u8] = &$body;
            assert_eq!(&$crate::wire::ike::testkit::emit(&$payload)[4..], body);
        }

        #[test]
        fn parse_of_what_was_emitted_is_equal() {
            let payload: $crate::wire::ike::payload::Payload = $payload;
            let bytes = $crate::wire::ike::testkit::emit(&payload);
            let parsed = $crate::wire::ike::testkit::parse_whole(payload.payload_type(), &bytes);
            assert_eq!(parsed, Ok(vec![payload]));
        }

        #[test]
        fn the_shortest_valid_body_has_the_length_of_the_fixed_part() {
            let payload: $crate::wire::ike::payload::Payload = $payload;
            let body: &[u8] = &$body;
            for len in 0..=$least {
                let parsed =
                    $crate::wire::ike::testkit::parse(payload.payload_type(), &body[..len]);
                assert_eq!(parsed.is_ok(), len == $least, "{len} bytes: {parsed:?}");
            }
        }

        #[test]
        fn the_length_field_covers_header_and_body() {
            let body: &[u8] = &$body;
            let bytes = $crate::wire::ike::testkit::emit(&$payload);
            assert_eq!(bytes.len(), 4 + body.len());
            let length = u16::from_be_bytes([bytes[2], bytes[3]]);
            assert_eq!(usize::from(length), bytes.len());
        }

        #[test]
        fn reserved_bytes_are_ignored_on_receipt() {
            let payload: $crate::wire::ike::payload::Payload = $payload;
            let mut body = $body.to_vec();
            let reserved: &[usize] = &$reserved;
            for &index in reserved {
                assert_eq!(body[index], 0, "sent as zero");
                body[index] = 0xff;
            }
            let parsed = $crate::wire::ike::testkit::parse(payload.payload_type(), &body);
            assert_eq!(parsed, Ok(payload));
        }
    };
}
pub(super) use six_tests;
