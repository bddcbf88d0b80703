//! Captures with keys: `NAME.json` (`ipsec-lab-capture/1`), `NAME.wire.pcap`, `NAME.plain.pcap`.
//!
//! Every packet is opened as `ipsecd decrypt` does it. What was in it must be the next packet of `plain`, byte for byte;
//! verdict, SPI and sequence number must be what the recorder noted, and the contents of IKE messages, too.

use std::fs;
use std::path::{Path, PathBuf};

use ipsecd::capture::{CaptureReader, Expectation, Inside, KeyRing, Opener, Record, Verdict};
use ipsecd::wire::ike::message::emit_chain;
use serde_json::Value;

/// What a case is made of, besides the JSON: endings of its files.
pub(crate) const PARTS: [&str; 2] = [".wire.pcap", ".plain.pcap"];

/// The part of a case with another ending.
pub(crate) fn part(json: &Path, ending: &str) -> PathBuf {
    let name = json.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    json.with_file_name(name + ending)
}

/// Runs the case of a JSON file; tells what was opened.
pub(crate) fn run(json: &Path) -> Result<String, String> {
    let text = fs::read_to_string(json).map_err(|error| error.to_string())?;
    let ring = KeyRing::read("keys", &text).map_err(|errors| format!("{errors:?}"))?;
    let noted: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let [wire, plain] = PARTS.map(|ending| fs::read(part(json, ending)));
    let wire = wire.map_err(|error| format!("wire: {error}"))?;
    let plain = plain.map_err(|error| format!("plain: {error}"))?;
    let records = open(ring, &wire, &plain)?;
    let packets = check_packets(&noted, &records)?;
    let messages = check_messages(&noted, &records)?;
    Ok(format!("{} packets, {packets} opened, {messages} IKE messages opened", records.len()))
}

/// Every packet of `wire`; what was in them is `plain`.
fn open(ring: KeyRing, wire: &[u8], plain: &[u8]) -> Result<Vec<Record>, String> {
    let reader = |file| CaptureReader::new(file).map_err(|error| error.to_string());
    let (mut frames, mut expected) = (reader(wire)?, Expectation::new(reader(plain)?));
    let mut opener = Opener::new(ring);
    let mut records = Vec::new();
    while let Some(frame) = frames.next_frame().map_err(|error| error.to_string())? {
        let record = opener.frame(&frame);
        if let Some(inner) = &record.inner {
            let difference = expected.next_is(inner).map_err(|error| error.to_string())?;
            if let Some(difference) = difference {
                return Err(format!("packet {}: {difference}", record.index));
            }
        }
        records.push(record);
    }
    match expected.ends().map_err(|error| error.to_string())? {
        Some(difference) => Err(difference.to_string()),
        None => Ok(records),
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The record of a packet that came in these frames.
fn record_of<'a>(records: &'a [Record], frames: &Value) -> Result<&'a Record, String> {
    let indexes = array(frames).iter().filter_map(Value::as_u64);
    let last = indexes.max().and_then(|last| usize::try_from(last).ok());
    last.and_then(|last| records.get(last)).ok_or_else(|| format!("no packet {frames}"))
}

/// Verdict and layers of every packet that the recorder noted.
fn check_packets(noted: &Value, records: &[Record]) -> Result<usize, String> {
    let spi_of = |name: &Value| {
        let sa = array(&noted["sas"]).iter().find(|sa| &sa["name"] == name);
        sa.and_then(|sa| sa["spi"].as_str()).unwrap_or("no such SA").to_owned()
    };
    let mut opened = 0;
    for packet in array(&noted["packets"]) {
        let record = record_of(records, &packet["wire"])?;
        let at = format!("packet {}", packet["wire"]);
        let frames: Vec<_> = array(&packet["wire"]).iter().filter_map(Value::as_u64).collect();
        let ours: Vec<_> = record.frames.iter().map(|&frame| frame as u64).collect();
        if ours != frames {
            return Err(format!("{at}: we found it in {ours:?}"));
        }
        let verdict = packet["verdict"].as_str().unwrap_or_default();
        let want = match verdict {
            "replay-dup" => "replayed",
            "replay-old" => "too-old",
            other => other,
        };
        let is_ike = verdict == "ike" && matches!(record.verdict, Verdict::Malformed(_));
        if record.verdict.name() != want && !is_ike {
            return Err(format!("{at}: {verdict}, and we say: {record}"));
        }
        if verdict != "ok" {
            continue;
        }
        opened += 1;
        let layers = array(&packet["layers"]);
        if layers.len() != record.layers.len() {
            return Err(format!("{at}: {} layers, and we say: {record}", layers.len()));
        }
        for (noted, layer) in layers.iter().zip(&record.layers) {
            let spi = format!("0x{:08x}", layer.spi);
            if spi != spi_of(&noted["sa"]) || noted["seq"] != layer.sequence {
                return Err(format!("{at}: {noted}, and we say: {record}"));
            }
        }
    }
    Ok(opened)
}

/// The contents of every IKE message that the recorder opened.
fn check_messages(noted: &Value, records: &[Record]) -> Result<usize, String> {
    let mut opened = 0;
    for message in array(&noted["messages"]) {
        let record = record_of(records, &message["wire"])?;
        let at = format!("IKE message {}", message["wire"]);
        let Verdict::Ike(ours) = &record.verdict else {
            return Err(format!("{at}, and we say: {record}"));
        };
        let is_first = ours.header.message_id == 0 && message["exchange"] == 34;
        match (&ours.inside, message["decrypted"].as_str()) {
            (Inside::Opened(payloads), Some(chain)) => {
                let mut bytes = Vec::new();
                let first = emit_chain(payloads, &mut bytes);
                if hex(&bytes) != chain || message["decrypted_first_payload"] != first.0 {
                    return Err(format!("{at}: other contents: {record}"));
                }
                opened += 1;
            }
            (Inside::Fragment { number, total }, None) => {
                if message["fragment"] != serde_json::json!([number, total]) {
                    return Err(format!("{at}: another fragment: {record}"));
                }
            }
            (Inside::Clear, None) if is_first => {}
            // Nobody could open it: the recorder had no keys either.
            (_, None)
                if message["fragment"].is_null() && message["decrypted_fragment"].is_null() => {}
            // A fragment that was sent again.
            (Inside::Opened(_), None) => {}
            _ => return Err(format!("{at}: the recorder opened it, and we say: {record}")),
        }
    }
    Ok(opened)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
