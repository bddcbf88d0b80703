//! The matrix in docs/interop.md: made from the same table that the live tests run through, and compared with it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::matrix::{Cell, FORMS, Form, Mode, Protocol, Transform, Version};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BEGIN: &str = "<!-- matrix: begin -->\n";
const END: &str = "<!-- matrix: end -->\n";
const MAKE: &str = "cargo test --test kernel -- --ignored write_the_matrix";

#[test]
fn interop_notes_have_the_matrix_that_is_tested() {
    let (written, _, _) = document();
    assert!(written == matrix(), "docs/interop.md has another matrix; make it with: {MAKE}");
}

#[test]
#[ignore = "writes docs/interop.md"]
fn write_the_matrix() {
    let (_, before, after) = document();
    fs::write(path(), format!("{before}{BEGIN}{}{END}{after}", matrix())).expect("file is written");
}

#[test]
fn no_cell_is_without_proof() {
    let captures = captures();
    let without: Vec<_> =
        Cell::all().iter().filter(|cell| proofs(cell, &captures).is_empty()).map(label).collect();
    assert!(without.is_empty(), "{}", without.join("\n"));
}

fn path() -> impl AsRef<Path> {
    Path::new(ROOT).join("docs/interop.md")
}

/// The matrix in the document, what is before it, and what is behind.
fn document() -> (String, String, String) {
    let text = fs::read_to_string(path()).expect("file is read");
    let (before, rest) = text.split_once(BEGIN).expect("the matrix begins");
    let (matrix, after) = rest.split_once(END).expect("the matrix ends");
    (matrix.to_owned(), before.to_owned(), after.to_owned())
}

/// How a cell is proved; the letters are links.
fn proofs(cell: &Cell, captures: &Captures) -> String {
    let mut proofs = Vec::new();
    if cell.transform.linux() {
        proofs.push("[K]");
    }
    if captures.contains_key(&label(cell)) {
        proofs.push("[C]");
    }
    if by_scapy(cell) {
        proofs.push("[S]");
    }
    if !cell.transform.linux() {
        proofs.push("[O]");
    }
    proofs.join(" ")
}

/// The tests in which Scapy opens what we seal, and we what it seals. They say what it lacks.
const SCAPY: [(Protocol, &str); 2] = [
    (Protocol::Esp, include_str!("../datapath/esp_scapy.rs")),
    (Protocol::Ah, include_str!("../datapath/ah_scapy.rs")),
];

/// Keyword of a proposal, without the length of a key; what those tests call it; whether with extended numbers, too.
const BY_SCAPY: &[(&str, &str, bool)] = &[
    ("gcm16", "EncrId::ENCR_AES_GCM_16, \"AES-GCM\"", true),
    ("ccm16", "EncrId::ENCR_AES_CCM_16, \"AES-CCM\"", true),
    ("ccm12", "EncrId::ENCR_AES_CCM_12, \"AES-CCM\"", true),
    ("ccm8", "EncrId::ENCR_AES_CCM_8, \"AES-CCM\"", true),
    ("chacha20poly1305", "EncrId::ENCR_CHACHA20_POLY1305, \"CHACHA20-POLY1305\"", true),
    ("", "EncrId::ENCR_AES_CBC, \"AES-CBC\"", false),
    ("ctr", "EncrId::ENCR_AES_CTR, \"AES-CTR\"", false),
    ("null", "EncrId::ENCR_NULL, \"NULL\"", false),
    ("sha1", "IntegId::AUTH_HMAC_SHA1_96, \"HMAC-SHA1-96\"", true),
    ("sha256", "IntegId::AUTH_HMAC_SHA2_256_128, \"SHA2-256-128\"", true),
    ("sha384", "IntegId::AUTH_HMAC_SHA2_384_192, \"SHA2-384-192\"", true),
    ("sha512", "IntegId::AUTH_HMAC_SHA2_512_256, \"SHA2-512-256\"", true),
    ("aescmac", "IntegId::AUTH_AES_CMAC_96, \"AES-CMAC-96\"", true),
];

/// Those tests have every form but UDP.
fn by_scapy(cell: &Cell) -> bool {
    let text = SCAPY.iter().find(|(protocol, _)| *protocol == cell.form.protocol);
    let text = text.map_or("", |(_, text)| *text);
    let keywords = cell.transform.proposal.split('-').map(|keyword| {
        let digits: &[char] = &['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];
        let bare = keyword.strip_prefix("aes").filter(|rest| rest.starts_with(digits));
        bare.map_or(keyword, |rest| &rest[3..])
    });
    let knows = |keyword: &str| {
        let known = BY_SCAPY.iter().find(|(name, ..)| *name == keyword);
        known.is_some_and(|(_, there, esn)| text.contains(there) && (*esn || !cell.esn))
    };
    !cell.form.udp && keywords.into_iter().all(knows)
}

/// What a cell is, without its number.
fn label(cell: &Cell) -> String {
    let esn = if cell.esn { ", ESN" } else { "" };
    format!("{}, {}{esn}", cell.form, cell.transform.proposal)
}

fn matrix() -> String {
    let captures = captures();
    let cells = Cell::all();
    let live = cells.iter().filter(|cell| cell.transform.linux()).count();
    let mut out = format!(
        "{} cells, {live} of them live. Each entry has 32-bit sequence numbers before the dot, extended ones behind it.\n",
        cells.len()
    );
    for (protocol, mode, udp, title) in [
        (Protocol::Esp, Mode::Tunnel, false, "ESP, tunnel mode"),
        (Protocol::Esp, Mode::Tunnel, true, "ESP in UDP, tunnel mode"),
        (Protocol::Esp, Mode::Transport, false, "ESP, transport mode"),
        (Protocol::Esp, Mode::Transport, true, "ESP in UDP, transport mode"),
        (Protocol::Ah, Mode::Tunnel, false, "AH, tunnel mode"),
        (Protocol::Ah, Mode::Transport, false, "AH, transport mode"),
    ] {
        let forms: Vec<_> = FORMS
            .iter()
            .filter(|form| (form.protocol, form.mode, form.udp) == (protocol, mode, udp))
            .collect();
        let _ = write!(out, "\n### {title}\n\n| transform |");
        for form in &forms {
            let _ = match mode {
                Mode::Tunnel => write!(out, " {} in {} |", form.inner, form.outer),
                Mode::Transport => write!(out, " {} |", form.outer),
            };
        }
        let _ = write!(out, "\n| --- |{}\n", " --- |".repeat(forms.len()));
        for transform in Transform::all(protocol) {
            let _ = write!(out, "| `{}` |", transform.proposal);
            for &&form in &forms {
                let of = |esn| {
                    let cell = cells
                        .iter()
                        .find(|c| c.form == form && c.esn == esn && c.transform == transform);
                    proofs(cell.expect("the cell is there"), &captures)
                };
                let _ = write!(out, " {} · {} |", of(false), of(true));
            }
            out += "\n";
        }
    }
    out += "\n### Captures\n\nOf a Linux kernel at both ends, in `vectors/captures/kernel/`; each opens to what the kernel made of it.\n\n\
            | cell | captures |\n| --- | --- |\n";
    for (cell, names) in &captures {
        let _ = writeln!(out, "| {cell} | {} |", names.join(", "));
    }
    out
}

/// Captures by the cell that they show.
type Captures = BTreeMap<String, Vec<String>>;

fn captures() -> Captures {
    let cells: BTreeMap<String, ()> = Cell::all().iter().map(|cell| (label(cell), ())).collect();
    let mut captures = Captures::new();
    let dir = Path::new(ROOT).join("vectors/captures/kernel");
    for entry in fs::read_dir(dir).expect("the captures are there") {
        let path = entry.expect("a directory entry can be read").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let json: Value = serde_json::from_slice(&fs::read(&path).expect("file is read"))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut labels: Vec<_> =
            json["sas"].as_array().into_iter().flatten().map(captured).collect();
        labels.sort();
        labels.dedup();
        for label in labels {
            let Some(label) = label else { continue };
            assert!(cells.contains_key(&label), "{name}: no cell {label}");
            captures.entry(label).or_default().push(name.clone());
        }
    }
    captures.values_mut().for_each(|names| names.sort());
    captures
}

/// The cell of a captured SA; `None` for what the matrix has not (an ICV that no RFC has).
fn captured(sa: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = |text: String| if text.contains(':') { Version::V6 } else { Version::V4 };
    let form = Form {
        protocol: if sa["proto"] == "ah" { Protocol::Ah } else { Protocol::Esp },
        mode: if sa["mode"] == "tunnel" { Mode::Tunnel } else { Mode::Transport },
        outer: version(text(&sa["src"])),
        inner: version(text(&sa["selector"]["src"])),
        udp: sa["encap"].is_object(),
    };
    let integ = |auth: &Value| {
        let (linux, icv) = (text(&auth["linux"]), auth["icv_bits"].as_u64());
        let all = Transform::all(Protocol::Ah);
        let found = all.iter().find(|transform| {
            transform.integ.is_some_and(|integ| {
                integ.linux == Some(&linux) && Some(u64::from(integ.icv)) == icv
            })
        });
        found.map(|transform| transform.proposal.clone())
    };
    let bits = |key: &Value, salt: usize| (text(key).len() / 2 - salt) * 8;
    let (enc, aead) = (&sa["enc"], &sa["aead"]);
    let proposal = if aead.is_object() {
        text(&aead["strongswan"])
    } else if enc.is_object() {
        let cipher = match text(&enc["linux"]).as_str() {
            "cbc(aes)" => format!("aes{}", bits(&enc["key"], 0)),
            "rfc3686(ctr(aes))" => format!("aes{}ctr", bits(&enc["key"], 0)),
            "ecb(cipher_null)" => "null".to_owned(),
            other => panic!("cipher {other}"),
        };
        format!("{cipher}-{}", integ(&sa["auth"])?)
    } else {
        integ(&sa["auth"])?
    };
    let esn = if sa["esn"] == true { ", ESN" } else { "" };
    Some(format!("{form}, {proposal}{esn}"))
}
