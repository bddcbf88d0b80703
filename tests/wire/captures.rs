//! Messages that others made: what strongSwan sent is read as the independent reader of the capture read
//! it, and is emitted again byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ipsecd::wire::ike::header::Header;
use ipsecd::wire::ike::message::{Message, emit_chain, parse_chain};
use ipsecd::wire::ike::numbers::PayloadType;
use ipsecd::wire::ike::payload::Payload;
use ipsecd::wire::ip::{IpPacket, NextHeader};
use ipsecd::wire::udp::UdpPacket;
use ipsecd::wire::{Reader, natt};
use serde_json::Value;

const DIRS: [&str; 2] = ["vectors/captures/ike", "vectors/captures/ike6"];

#[test]
fn recorded_messages_are_read_as_recorded_and_emitted_byte_for_byte() {
    let mut seen = BTreeMap::new();
    let mut messages = 0;
    for case in cases() {
        let datagrams = ike_datagrams(&case.pcap);
        for recorded in array(&case.json["messages"]) {
            // IP fragments: `tests/vectors` puts them together.
            let [wire] = array(&recorded["wire"]) else { continue };
            let wire = wire.as_u64().and_then(|wire| usize::try_from(wire).ok());
            let at = format!("{} packet {wire:?}", case.name);
            let datagram = &datagrams[&wire.expect("an index")];
            let message = Message::parse(datagram).unwrap_or_else(|e| panic!("{at}: {e}"));
            check_header(&at, &message.header, recorded);
            check_payloads(&at, &message.payloads, &recorded["payloads"], &mut seen);
            assert_eq!(&message.emit(), datagram, "{at}");
            messages += 1;
        }
    }
    assert!(messages >= 100, "{messages} messages");
    for payload_type in [PayloadType::SA, PayloadType::KE, PayloadType::SK, PayloadType::SKF] {
        assert!(seen.contains_key(&payload_type.0), "no {payload_type} recorded");
    }
}

#[test]
fn recorded_contents_of_sk_are_read_as_recorded_and_emitted_byte_for_byte() {
    let mut seen = BTreeMap::new();
    for case in cases() {
        for recorded in array(&case.json["messages"]) {
            let Some(chain) = recorded["decrypted"].as_str() else { continue };
            let chain = unhex(chain);
            let first = PayloadType(number(&recorded["decrypted_first_payload"]));
            let at = format!("{} packet {}", case.name, recorded["wire"]);
            let payloads = parse_chain(first, &chain).unwrap_or_else(|e| panic!("{at}: {e}"));
            check_payloads(&at, &payloads, &recorded["payloads_decrypted"], &mut seen);
            let mut out = Vec::new();
            assert_eq!(emit_chain(&payloads, &mut out), first, "{at}");
            assert_eq!(out, chain, "{at}");
        }
    }
    let never_inside = [PayloadType::NONE, PayloadType::VENDOR, PayloadType::SK, PayloadType::SKF];
    let unsent = [PayloadType::PS];
    for payload_type in PayloadType::KNOWN {
        if !never_inside.contains(payload_type) && !unsent.contains(payload_type) {
            assert!(seen.contains_key(&payload_type.0), "no {payload_type} recorded");
        }
    }
}

fn check_header(at: &str, header: &Header, recorded: &Value) {
    assert_eq!(header.spi_i.to_string(), text(&recorded["spi_i"]), "{at}");
    assert_eq!(header.spi_r.to_string(), text(&recorded["spi_r"]), "{at}");
    assert_eq!((header.major, header.minor), (2, 0), "{at}");
    assert_eq!(header.exchange.0, number::<u8>(&recorded["exchange"]), "{at}");
    assert_eq!(Some(header.flags.initiator), recorded["initiator_flag"].as_bool(), "{at}");
    assert_eq!(Some(header.flags.response), recorded["response_flag"].as_bool(), "{at}");
    assert_eq!(header.message_id, number::<u32>(&recorded["message_id"]), "{at}");
}

/// Types, critical bits and bodies; what is inside SA, KE and Notify payloads too.
fn check_payloads(
    at: &str,
    payloads: &[Payload],
    recorded: &Value,
    seen: &mut BTreeMap<u8, usize>,
) {
    let recorded = array(recorded);
    assert_eq!(payloads.len(), recorded.len(), "{at}");
    for (payload, recorded) in payloads.iter().zip(recorded) {
        let payload_type = payload.payload_type();
        assert_eq!(payload_type.0, number::<u8>(&recorded["type"]), "{at}");
        assert_eq!(recorded["critical"].as_bool(), Some(false), "{at}");
        *seen.entry(payload_type.0).or_default() += 1;
        let mut out = Vec::new();
        emit_chain(std::slice::from_ref(payload), &mut out);
        assert_eq!(&out[4..], unhex(text(&recorded["body"])), "{at} {payload}");
        check_fields(&format!("{at} {payload}"), payload, recorded);
    }
}

fn check_fields(at: &str, payload: &Payload, recorded: &Value) {
    match payload {
        Payload::Sa(sa) => {
            let proposals = array(&recorded["proposals"]);
            assert_eq!(sa.proposals.len(), proposals.len(), "{at}");
            for (proposal, recorded) in sa.proposals.iter().zip(proposals) {
                assert_eq!(proposal.number, number::<u8>(&recorded["num"]), "{at}");
                assert_eq!(proposal.protocol.0, number::<u8>(&recorded["protocol"]), "{at}");
                assert_eq!(proposal.spi, unhex(text(&recorded["spi"])), "{at}");
                let transforms = array(&recorded["transforms"]);
                assert_eq!(proposal.transforms.len(), transforms.len(), "{at}");
                for (transform, recorded) in proposal.transforms.iter().zip(transforms) {
                    let transform_type = number::<u8>(&recorded["type"]);
                    assert_eq!(transform.transform_type.0, transform_type, "{at}");
                    assert_eq!(transform.id, number::<u16>(&recorded["id"]), "{at}");
                    let bits =
                        recorded["key_bits"].as_u64().map(|bits| bits.try_into().expect("16 bits"));
                    assert_eq!(transform.key_length, bits, "{at}");
                    assert!(!transform.unknown_attribute, "{at}");
                }
            }
        }
        Payload::Ke(ke) => assert_eq!(ke.group.0, number::<u16>(&recorded["group"]), "{at}"),
        Payload::Notify(notify) => {
            assert_eq!(notify.notify_type.0, number::<u16>(&recorded["notify"]), "{at}");
            assert_eq!(notify.protocol.0, number::<u8>(&recorded["protocol"]), "{at}");
            assert_eq!(notify.spi, unhex(text(&recorded["spi"])), "{at}");
            assert_eq!(notify.data, unhex(text(&recorded["data"])), "{at}");
        }
        Payload::Unknown { .. } => panic!("{at}: a payload that is not understood"),
        Payload::IdI(_)
        | Payload::IdR(_)
        | Payload::Cert(_)
        | Payload::CertReq(_)
        | Payload::Auth(_)
        | Payload::Nonce(_)
        | Payload::Delete(_)
        | Payload::Vendor(_)
        | Payload::TsI(_)
        | Payload::TsR(_)
        | Payload::Sk(_)
        | Payload::Cp(_)
        | Payload::Eap(_)
        | Payload::Skf(_) => {}
    }
}

struct Case {
    name: String,
    json: Value,
    pcap: PathBuf,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dir in DIRS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        for entry in fs::read_dir(dir).expect("the captures are there") {
            let path = entry.expect("a readable directory").path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let json = fs::read_to_string(&path).expect("a readable file");
            cases.push(Case {
                name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
                json: serde_json::from_str(&json).expect("JSON"),
                pcap: path.with_extension("wire.pcap"),
            });
        }
    }
    assert!(cases.len() >= 15, "{} captures", cases.len());
    cases
}

/// The IKE messages of a capture, by packet index.
fn ike_datagrams(pcap: &Path) -> BTreeMap<usize, Vec<u8>> {
    let bytes = fs::read(pcap).expect("a readable capture");
    let mut messages = BTreeMap::new();
    for (index, frame) in frames(&bytes).into_iter().enumerate() {
        let packet = IpPacket::new_checked(&frame[14..]).expect("an IP packet");
        let upper = packet.upper_layer().expect("a protocol");
        if upper.protocol != NextHeader::UDP || upper.fragment.is_some() {
            continue;
        }
        let end = packet.total_len();
        let udp = UdpPacket::new_checked(&frame[14..][upper.offset..end]).expect("UDP");
        let message = if [udp.src_port(), udp.dst_port()].contains(&500) {
            udp.payload()
        } else {
            match natt::classify(udp.payload()).expect("IKE, ESP or a keepalive") {
                natt::Datagram::Ike(message) => message,
                natt::Datagram::Esp(_) | natt::Datagram::Keepalive => continue,
            }
        };
        messages.insert(index, message.to_vec());
    }
    messages
}

/// The frames of a classic pcap file, little-endian.
fn frames(file: &[u8]) -> Vec<&[u8]> {
    let mut reader = Reader::new("pcap", file);
    let header = reader.take(24).expect("a file header");
    assert_eq!(header[..4], [0xd4, 0xc3, 0xb2, 0xa1], "little-endian, microseconds");
    assert_eq!(header[20..], [1, 0, 0, 0], "Ethernet");
    let mut frames = Vec::new();
    while !reader.is_empty() {
        let record: [u8; 16] = reader.take_array().expect("a record header");
        let len = u32::from_le_bytes(record[8..12].try_into().expect("four bytes"));
        frames.push(reader.take(usize::try_from(len).expect("short")).expect("a frame"));
    }
    frames
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("a list, not {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}"))
}

fn number<T: TryFrom<u64>>(value: &Value) -> T {
    let number = value.as_u64().and_then(|number| number.try_into().ok());
    number.unwrap_or_else(|| panic!("a number in range, not {value}"))
}

fn unhex(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0);
    let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(byte).collect()
}
