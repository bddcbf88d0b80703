//! Properties of every IKE payload, for generated values.
//!
//! Each strategy gives a payload together with its canonical bytes, which it writes itself, without the
//! library: parsing must give the one, emitting the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipsecd::wire::ike::header::{Flags, Header, IkeSpi};
use ipsecd::wire::ike::message::{Message, emit_chain, parse_chain};
use ipsecd::wire::ike::numbers::*;
use ipsecd::wire::ike::payload::*;
use ipsecd::wire::{Malformed, Reader};
use proptest::collection::vec;
use proptest::prelude::*;

/// A payload and the canonical bytes of its body.
type Sample = (Payload, Vec<u8>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_payload_is_parsed_and_emitted(sample in payload()) {
        let (payload, body) = sample;
        let first = payload.payload_type();
        let mut chain = Vec::new();
        prop_assert_eq!(emit_chain(std::slice::from_ref(&payload), &mut chain), first);
        prop_assert_eq!(&chain[4..], &body);
        prop_assert_eq!(usize::from(u16::from_be_bytes([chain[2], chain[3]])), body.len() + 4);
        prop_assert_eq!(parse_chain(first, &chain), Ok(vec![payload]));
    }

    #[test]
    fn a_message_is_parsed_and_emitted(message in message()) {
        let bytes = message.emit();
        let length = u32::try_from(bytes.len()).expect("short");
        let next_payload = message.payloads.first().map_or(PayloadType::NONE, Payload::payload_type);
        let header = Header { length, next_payload, ..message.header };
        let expected = Message { header, ..message };
        let parsed = Message::parse(&bytes);
        prop_assert_eq!(parsed.as_ref(), Ok(&expected));
        prop_assert_eq!(expected.emit(), bytes);
    }

    #[test]
    fn no_prefix_of_a_message_is_a_message(message in message(), cut in any::<prop::sample::Index>()) {
        let mut bytes = message.emit();
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(Message::parse(&bytes).is_err());
        // Not even when the Length field agrees.
        let length = u32::try_from(bytes.len()).expect("short");
        if let Some(field) = bytes.get_mut(24..28) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        prop_assert!(Message::parse(&bytes).is_err());
    }

    #[test]
    fn no_payload_takes_a_longer_body_in_silence(sample in payload(), extra in 1..9_usize) {
        let (payload, mut body) = sample;
        body.resize(body.len() + extra, 0);
        // Either an error, or the bytes are part of the value.
        if let Ok(parsed) = parse_chain(payload.payload_type(), &with_header(&body)) {
            prop_assert_ne!(&parsed, &[payload]);
        }
    }

    #[test]
    fn header_bits_without_meaning_are_ignored(
        message in message(),
        undefined in any::<u8>(),
    ) {
        let mut bytes = message.emit();
        let parsed = Message::parse(&bytes);
        bytes[19] |= undefined & 0xc7;
        prop_assert_eq!(Message::parse(&bytes), parsed);
    }

    #[test]
    fn the_header_says_how_long_the_datagram_is(message in message(), wrong in any::<u32>()) {
        let mut bytes = message.emit();
        prop_assume!(usize::try_from(wrong).ok() != Some(bytes.len()));
        bytes[24..28].copy_from_slice(&wrong.to_be_bytes());
        let error = Message::parse(&bytes).expect_err("a wrong length");
        prop_assert!(matches!(error.why, Malformed::BadLength(_)));
    }

    #[test]
    fn every_header_is_parsed_and_emitted(bytes in any::<[u8; 28]>()) {
        let header = Header::parse(&mut Reader::new("IKE header", &bytes)).expect("28 bytes");
        let mut out = Vec::new();
        header.emit(&mut out);
        let mut canonical = bytes;
        canonical[19] &= 0x38;
        prop_assert_eq!(out, canonical);
    }
}

fn with_header(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 4).expect("short");
    [&[0, 0], &length.to_be_bytes()[..], body].concat()
}

fn message() -> impl Strategy<Value = Message> {
    let header = (any::<u64>(), any::<u64>(), any::<u8>(), any::<[bool; 2]>(), any::<u32>());
    let last = prop::option::of(prop_oneof![sk(), skf()]);
    (header, vec(payload(), 0..6), last).prop_map(|(header, payloads, last)| {
        let (spi_i, spi_r, exchange, [initiator, response], message_id) = header;
        let flags = Flags::new(initiator, response);
        let exchange = ExchangeType(exchange);
        let header = Header::new(IkeSpi(spi_i), IkeSpi(spi_r), exchange, flags, message_id);
        let mut payloads: Vec<_> = payloads.into_iter().map(|(payload, _)| payload).collect();
        payloads.extend(last);
        Message { header, payloads }
    })
}

/// Any payload but SK and SKF.
fn payload() -> impl Strategy<Value = Sample> {
    prop_oneof![
        4 => sa(),
        1 => ke(),
        2 => id(),
        1 => cert(),
        1 => auth(),
        1 => nonce(),
        2 => notify(),
        2 => delete(),
        1 => vendor(),
        3 => ts(),
        2 => cp(),
        2 => eap(),
        1 => unknown(),
    ]
}

fn bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), len)
}

fn sa() -> impl Strategy<Value = Sample> {
    let alone = (1..=u8::MAX, proposal(1)).prop_map(|(number, proposal)| (number, vec![proposal]));
    let several = vec(proposal(12), 2..6).prop_map(|proposals| (1, proposals));
    prop_oneof![alone, several].prop_map(|(first, mut proposals)| {
        let mut body = Vec::new();
        let last = proposals.len() - 1;
        for (i, proposal) in proposals.iter_mut().enumerate() {
            proposal.number = first + u8::try_from(i).expect("few");
            body.extend(proposal_bytes(proposal, i == last));
        }
        (Payload::Sa(Sa { proposals }), body)
    })
}

fn proposal(most: usize) -> impl Strategy<Value = Proposal> {
    let transform = (any::<u8>(), any::<u16>(), any::<Option<u16>>());
    (any::<u8>(), bytes(0..10), vec(transform, 1..=most)).prop_map(|(protocol, spi, transforms)| {
        let transforms = transforms.into_iter().map(|(transform_type, id, key_length)| Transform {
            transform_type: TransformType(transform_type),
            id,
            key_length,
            unknown_attribute: false,
        });
        let protocol = ProtocolId(protocol);
        Proposal { number: 0, protocol, spi, transforms: transforms.collect() }
    })
}

fn proposal_bytes(proposal: &Proposal, last: bool) -> Vec<u8> {
    let mut transforms = Vec::new();
    for (i, transform) in proposal.transforms.iter().enumerate() {
        let more = if i + 1 < proposal.transforms.len() { 3 } else { 0 };
        let [high, low] = transform.id.to_be_bytes();
        let length = if transform.key_length.is_some() { 12 } else { 8 };
        transforms.extend([more, 0, 0, length, transform.transform_type.0, 0, high, low]);
        if let Some(bits) = transform.key_length {
            transforms.extend([0x80, 14]);
            transforms.extend(bits.to_be_bytes());
        }
    }
    let length = 8 + proposal.spi.len() + transforms.len();
    let mut bytes = vec![if last { 0 } else { 2 }, 0];
    bytes.extend(u16::try_from(length).expect("short").to_be_bytes());
    bytes.extend([proposal.number, proposal.protocol.0]);
    bytes.push(u8::try_from(proposal.spi.len()).expect("short"));
    bytes.push(u8::try_from(proposal.transforms.len()).expect("few"));
    bytes.extend(&proposal.spi);
    bytes.extend(transforms);
    bytes
}

fn ke() -> impl Strategy<Value = Sample> {
    (any::<u16>(), bytes(0..300)).prop_map(|(group, data)| {
        let body = [&group.to_be_bytes()[..], &[0, 0], &data].concat();
        (Payload::Ke(Ke { group: KeId(group), data }), body)
    })
}

fn id() -> impl Strategy<Value = Sample> {
    let data = prop_oneof![
        (Just(1), bytes(4)),
        (Just(5), bytes(16)),
        (any::<u8>().prop_filter("not an address", |t| ![1, 5].contains(t)), bytes(0..40)),
    ];
    (any::<bool>(), data).prop_map(|(initiator, (id_type, data))| {
        let body = [&[id_type, 0, 0, 0][..], &data].concat();
        let id = Id::new(IdType(id_type), data);
        (if initiator { Payload::IdI(id) } else { Payload::IdR(id) }, body)
    })
}

fn cert() -> impl Strategy<Value = Sample> {
    (any::<bool>(), any::<u8>(), bytes(0..100)).prop_map(|(request, encoding, data)| {
        let body = [&[encoding][..], &data].concat();
        let encoding = CertEncoding(encoding);
        if request {
            (Payload::CertReq(CertReq { encoding, authority: data }), body)
        } else {
            (Payload::Cert(Cert { encoding, data }), body)
        }
    })
}

fn auth() -> impl Strategy<Value = Sample> {
    (any::<u8>(), bytes(0..100)).prop_map(|(method, data)| {
        let body = [&[method, 0, 0, 0][..], &data].concat();
        (Payload::Auth(Auth { method: AuthMethod(method), data }), body)
    })
}

fn nonce() -> impl Strategy<Value = Sample> {
    bytes(16..=256).prop_map(|data| (Payload::Nonce(Nonce { data: data.clone() }), data))
}

fn notify() -> impl Strategy<Value = Sample> {
    let sa = prop_oneof![Just((0, vec![])), (any::<u8>(), bytes(1..9))];
    (sa, any::<u16>(), bytes(0..60)).prop_map(|((protocol, spi), notify_type, data)| {
        let spi_size = u8::try_from(spi.len()).expect("short");
        let head = [&[protocol, spi_size][..], &notify_type.to_be_bytes()].concat();
        let body = [&head[..], &spi, &data].concat();
        let (protocol, notify_type) = (ProtocolId(protocol), NotifyType(notify_type));
        (Payload::Notify(Notify { protocol, spi, notify_type, data }), body)
    })
}

fn delete() -> impl Strategy<Value = Sample> {
    let spis = prop_oneof![
        Just((1, 0, vec![])),
        (2..=3_u8, vec(bytes(4), 0..20)).prop_map(|(protocol, spis)| (protocol, 4, spis)),
        (4..=u8::MAX, 1..9_usize, 1..5_usize)
            .prop_flat_map(|(protocol, size, count)| {
                (Just(protocol), Just(size), vec(bytes(size), count))
            })
            .prop_map(|(protocol, size, spis)| (
                protocol,
                u8::try_from(size).expect("short"),
                spis
            )),
    ];
    spis.prop_map(|(protocol, size, spis)| {
        let count = u16::try_from(spis.len()).expect("few").to_be_bytes();
        let body = [&[protocol, size][..], &count, &spis.concat()].concat();
        (Payload::Delete(Delete { protocol: ProtocolId(protocol), spis }), body)
    })
}

fn vendor() -> impl Strategy<Value = Sample> {
    bytes(0..60).prop_map(|data| (Payload::Vendor(Vendor { data: data.clone() }), data))
}

fn ts() -> impl Strategy<Value = Sample> {
    (any::<bool>(), vec(selector(), 1..20)).prop_map(|(initiator, selectors)| {
        let mut body = vec![u8::try_from(selectors.len()).expect("few"), 0, 0, 0];
        for selector in &selectors {
            let (ts_type, length) = if selector.start_addr.is_ipv4() { (7, 16) } else { (8, 40) };
            body.extend([ts_type, selector.protocol, 0, length]);
            body.extend(selector.start_port.to_be_bytes());
            body.extend(selector.end_port.to_be_bytes());
            for addr in [selector.start_addr, selector.end_addr] {
                match addr {
                    IpAddr::V4(addr) => body.extend(addr.octets()),
                    IpAddr::V6(addr) => body.extend(addr.octets()),
                }
            }
        }
        let ts = Ts { selectors };
        (if initiator { Payload::TsI(ts) } else { Payload::TsR(ts) }, body)
    })
}

fn selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b))),
        Just((0xffff, 0)),
    ];
    let addrs = prop_oneof![
        (any::<u32>(), any::<u32>()).prop_map(|(a, b)| {
            (Ipv4Addr::from(a.min(b)).into(), Ipv4Addr::from(a.max(b)).into())
        }),
        (any::<u128>(), any::<u128>()).prop_map(|(a, b)| {
            (Ipv6Addr::from(a.min(b)).into(), Ipv6Addr::from(a.max(b)).into())
        }),
    ];
    (any::<u8>(), ports, addrs).prop_map(|(protocol, (start_port, end_port), addrs)| {
        let (start_addr, end_addr): (IpAddr, IpAddr) = addrs;
        TrafficSelector { protocol, start_port, end_port, start_addr, end_addr }
    })
}

fn cp() -> impl Strategy<Value = Sample> {
    (any::<u8>(), vec((0..0x8000_u16, bytes(0..20)), 0..10)).prop_map(|(cfg_type, attributes)| {
        let mut body = vec![cfg_type, 0, 0, 0];
        for (attribute_type, value) in &attributes {
            body.extend(attribute_type.to_be_bytes());
            body.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
            body.extend(value);
        }
        let attributes = attributes.into_iter().map(|(attribute_type, value)| CfgAttribute {
            attribute_type: CfgAttributeType(attribute_type),
            value,
        });
        (Payload::Cp(Cp { cfg_type: CfgType(cfg_type), attributes: attributes.collect() }), body)
    })
}

fn eap() -> impl Strategy<Value = Sample> {
    let data = prop_oneof![(1..=2_u8, bytes(1..60)), (3..=4_u8, bytes(0)), (5_u8.., bytes(0..60))];
    (any::<u8>(), data).prop_map(|(identifier, (code, data))| {
        let length = u16::try_from(data.len() + 4).expect("short").to_be_bytes();
        let body = [&[code, identifier][..], &length, &data].concat();
        (Payload::Eap(Eap { code: EapCode(code), identifier, data }), body)
    })
}

fn unknown() -> impl Strategy<Value = Sample> {
    let number = any::<u8>().prop_filter("no type that is understood", |&number| {
        let understood = PayloadType::KNOWN.contains(&PayloadType(number));
        !understood || number == PayloadType::PS.0
    });
    (number, bytes(0..60), any::<bool>()).prop_map(|(number, body, critical)| {
        let payload_type = PayloadType(number);
        (Payload::Unknown { payload_type, critical, body: body.clone() }, body)
    })
}

fn sk() -> BoxedStrategy<Payload> {
    (any::<u8>(), bytes(0..100))
        .prop_map(|(first, body)| Payload::Sk(Sk { first: PayloadType(first), body }))
        .boxed()
}

fn skf() -> BoxedStrategy<Payload> {
    (any::<u8>(), 1..=u16::MAX, 0..=u16::MAX, bytes(0..100))
        .prop_map(|(first, number, more, body)| {
            let total = number.saturating_add(more);
            Payload::Skf(Skf { first: PayloadType(first), number, total, body })
        })
        .boxed()
}
