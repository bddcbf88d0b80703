//! Captures with keys: `NAME.json` (`ipsec-lab-capture/1`), `NAME.wire.pcap`, `NAME.plain.pcap`.
//!
//! Every packet is opened as `ipsecd decrypt` does it. What was in it must be the next packet of `plain`, byte for byte. All
//! that the recorder noted must be so, as far as [`Session`] can tell: verdicts, IKE messages, keys, AUTH.

use std::fs;
use std::path::{Path, PathBuf};

use ipsecd::capture::{CaptureReader, Checked, Expectation, KeyRing, Opener, Record, Session};
use serde_json::Value;

/// What a case is made of, besides the JSON: endings of its files.
pub(crate) const PARTS: [&str; 2] = [".wire.pcap", ".plain.pcap"];

/// The part of a case with another ending.
pub(crate) fn part(json: &Path, ending: &str) -> PathBuf {
    let name = json.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    json.with_file_name(name + ending)
}

/// Runs the case of a JSON file; tells what was opened. With `strict` every message must be written again as it came, and every AUTH
/// proved; another recorder may have left reserved bits set, or keep a certificate to itself, and the case holds all the same.
pub(crate) fn run(json: &Path, strict: bool) -> Result<String, String> {
    let text = fs::read_to_string(json).map_err(|error| error.to_string())?;
    let checked = check(json, &text)?;
    if strict && (checked.not_canonical > 0 || checked.proofs_without_key > 0) {
        return Err(checked.to_string());
    }
    Ok(checked.to_string())
}

/// A part of a case: beside the JSON under its name, or as the JSON calls it.
fn read_part(json: &Path, text: &str, ending: &str) -> Result<Vec<u8>, String> {
    let by_name = part(json, ending);
    if by_name.exists() {
        return fs::read(&by_name).map_err(|error| format!("{}: {error}", by_name.display()));
    }
    let noted = files_of(text).into_iter().find(|name| name.ends_with(ending));
    let noted = noted.ok_or_else(|| format!("no {}", by_name.display()))?;
    fs::read(json.with_file_name(&noted)).map_err(|error| format!("{noted}: {error}"))
}

/// The names of files that a JSON has in its `files`, without directories.
pub(crate) fn files_of(text: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(text).unwrap_or_default();
    let named = leaves(&json["files"], "");
    let names = named.iter().filter_map(|(_, name)| name.as_str()).map(Path::new);
    names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

/// The capture beside `json` with this text in its place.
fn check(json: &Path, text: &str) -> Result<Checked, String> {
    let ring = KeyRing::read("keys", text).map_err(|errors| format!("{errors:?}"))?;
    let session = Session::read(text)?.ok_or("no JSON of a capture")?;
    let [wire, plain] = PARTS.map(|ending| read_part(json, text, ending));
    let records = open(ring, &wire?, &plain?)?;
    session.check(&records).map_err(|mismatch| mismatch.to_string())
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

/// Whoever changes a digit of what is noted of keys, proofs or messages is found out.
#[test]
fn a_session_that_is_noted_wrongly_is_not_taken_for_right() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/captures");
    for case in ["ike/ike-psk-pfs-rekey-x25519.json", "ike6/mlkem1024-ecp384-ecdsa-frag.json"] {
        let json = home.join(case);
        let text = fs::read_to_string(&json).unwrap();
        check(&json, &text).unwrap();
        let noted: Value = serde_json::from_str(&text).unwrap();
        let mut changed = 0;
        for (place, value) in leaves(&noted, "") {
            let Some(value) = value.as_str().filter(|_| is_computed(&place)) else { continue };
            let Some(last) = value.chars().next_back() else { continue };
            let other = if last == '0' { '1' } else { '0' };
            let mut spoiled = noted.clone();
            let leaf = spoiled.pointer_mut(&place).unwrap();
            *leaf = Value::from(format!("{}{other}", &value[..value.len() - 1]));
            let result = check(&json, &spoiled.to_string());
            assert!(result.is_err(), "{case}: {place} may be anything");
            changed += 1;
        }
        assert!(changed > 30, "{case}: {changed}");
    }
}

fn is_computed(place: &str) -> bool {
    let last = place.rsplit('/').next().unwrap_or_default();
    let keys = ["skeyseed", "keymat", "ni", "nr", "value", "signed_octets", "secret", "decrypted"];
    place.starts_with("/ike_sas") && last.starts_with("sk_") && last != "sk_p"
        || keys.contains(&last)
        || place.contains("/int_auth/")
        || last == "shared_secret"
}

fn leaves<'a>(value: &'a Value, place: &str) -> Vec<(String, &'a Value)> {
    let under = |key: &str, value: &'a Value| leaves(value, &format!("{place}/{key}"));
    if let Some(fields) = value.as_object() {
        return fields.iter().flat_map(|(key, value)| under(key, value)).collect();
    }
    if let Some(items) = value.as_array() {
        return items.iter().enumerate().flat_map(|(n, it)| under(&n.to_string(), it)).collect();
    }
    vec![(place.to_owned(), value)]
}
