//! Independent readers of what was on the wire: tshark for IKE and ESP, Scapy for ESP once more.
//!
//! The keys come out of charon's log, so one of the two ends has to be a [`Charon`](super::Charon).

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::charon;
use super::process;

/// The keys of every SA that a charon has logged.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// In the order in which they were made.
    pub(crate) ike: Vec<IkeKeys>,
    pub(crate) esp: Vec<EspKeys>,
}

/// One IKE SA's, in hex. `integ` stays empty with an AEAD.
#[derive(Clone, Debug, Default)]
pub(crate) struct IkeKeys {
    encr: [String; 2],
    integ: [String; 2],
}

/// One direction's of a CHILD_SA, in hex.
#[derive(Clone, Debug)]
pub(crate) struct EspKeys {
    spi: String,
    encr: String,
    integ: String,
}

impl Keys {
    /// Reads them from a log with `ike = 4` and `chd = 4`.
    #[track_caller]
    pub(crate) fn from_log(log: &str) -> Self {
        let lines: Vec<&str> = log.lines().collect();
        let (mut keys, mut ike) = (Self::default(), IkeKeys::default());
        let (mut encr, mut integ) = (<[String; 2]>::default(), <[String; 2]>::default());
        let (mut initiator, mut inbound) = (true, String::new());
        for (at, line) in lines.iter().enumerate() {
            let dump = || charon::dump(&lines[at + 1..]);
            let has = |words: &str| line.contains(words);
            if has("[ENC]") && (has("IKE_AUTH") || has("CREATE_CHILD_SA")) {
                initiator = has("generating") == has("request");
            } else if has("Sk_ai secret =>") {
                ike.integ[0] = dump();
            } else if has("Sk_ar secret =>") {
                ike.integ[1] = dump();
            } else if has("Sk_ei secret =>") {
                ike.encr[0] = dump();
            } else if has("Sk_er secret =>") {
                ike.encr[1] = dump();
                keys.ike.push(std::mem::take(&mut ike));
            } else if has("encryption initiator key =>") {
                encr[0] = dump();
            } else if has("encryption responder key =>") {
                encr[1] = dump();
            } else if has("integrity initiator key =>") {
                integ[0] = dump();
            } else if has("integrity responder key =>") {
                integ[1] = dump();
            } else if let Some((_, rest)) = line.split_once("SPI 0x") {
                let spi = rest.split(',').next().unwrap_or_default().to_owned();
                if inbound.is_empty() {
                    inbound = spi;
                    continue;
                }
                // The initiator's key protects what the initiator sends.
                let [to_us, to_them] = if initiator { [1, 0] } else { [0, 1] };
                for (spi, way) in [(std::mem::take(&mut inbound), to_us), (spi, to_them)] {
                    let (encr, integ) = (encr[way].clone(), integ[way].clone());
                    keys.esp.push(EspKeys { spi, encr, integ });
                }
                integ = Default::default();
            }
        }
        assert!(!keys.ike.is_empty() && !keys.esp.is_empty(), "no keys in charon's log");
        keys
    }

    /// Every key as bytes.
    pub(crate) fn secrets(&self) -> Vec<Vec<u8>> {
        let ike = self.ike.iter().flat_map(|sa| sa.encr.iter().chain(&sa.integ));
        let esp = self.esp.iter().flat_map(|sa| [&sa.encr, &sa.integ]);
        ike.chain(esp).filter(|hex| !hex.is_empty()).map(|hex| unhex(hex)).collect()
    }
}

/// What a reader found in a capture.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// IKE messages.
    pub(crate) ike: usize,
    /// IKE messages with an SK payload that was opened, its ICV right.
    pub(crate) ike_opened: usize,
    /// ESP packets that were opened, their ICV right, an IP packet within.
    pub(crate) esp_opened: usize,
    /// What was wrong, a line each.
    pub(crate) faults: Vec<String>,
}

/// Reads a capture with tshark. IKE SAs are matched to keys in the order in which they appear.
#[track_caller]
pub(crate) fn tshark(pcap: &Path, keys: &Keys) -> Found {
    let mut pairs: Vec<String> = Vec::new();
    let spis = ["-Y", "isakmp.rspi != 0:0:0:0:0:0:0:0", "-T", "fields", "-E", "separator=,"];
    let seen = process::run(tshark_command(pcap).args(spis).args([
        "-e",
        "isakmp.ispi",
        "-e",
        "isakmp.rspi",
    ]));
    for pair in seen.lines().map(str::to_owned) {
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    assert_eq!(pairs.len(), keys.ike.len(), "IKE SAs on the wire, and with keys: {pairs:?}");
    let mut command = tshark_command(pcap);
    command.args(["-o", "esp.enable_encryption_decode:TRUE"]);
    command.args(["-o", "esp.enable_authentication_check:TRUE"]);
    for (pair, IkeKeys { encr, integ }) in pairs.iter().zip(&keys.ike) {
        let [ei, er] = encr;
        let [ai, ar] = integ.each_ref().map(|key| if key.is_empty() { "\"\"" } else { key });
        let (cipher, mac) = if integ[0].is_empty() {
            let bits = ei.len() * 4 - 32;
            (format!("AES-GCM-{bits} with 16 octet ICV [RFC5282]"), "NONE [RFC4306]")
        } else {
            (format!("AES-CBC-{} [RFC3602]", ei.len() * 4), ike_mac(ai.len()))
        };
        let row = format!("{pair},{ei},{er},\"{cipher}\",{ai},{ar},\"{mac}\"");
        command.arg("-o").arg(format!("uat:ikev2_decryption_table:{row}"));
    }
    for EspKeys { spi, encr, integ } in &keys.esp {
        let (cipher, mac) = if integ.is_empty() {
            ("AES-GCM with 16 octet ICV [RFC4106]", "NULL")
        } else {
            ("AES-CBC [RFC3602]", esp_mac(integ.len()))
        };
        let integ = if integ.is_empty() { String::new() } else { format!("0x{integ}") };
        for family in ["IPv4", "IPv6"] {
            let row = format!(
                "\"{family}\",\"*\",\"*\",\"0x{spi}\",\"{cipher}\",\"0x{encr}\",\"{mac}\",\"{integ}\""
            );
            command.arg("-o").arg(format!("uat:esp_sa:{row}"));
        }
    }
    read(command)
}

/// Reads a capture with tshark, whose configuration directory is `profile`: with the tables of keys that are there.
#[track_caller]
pub(crate) fn tshark_with_profile(pcap: &Path, profile: &Path) -> Found {
    let mut command = tshark_command(pcap);
    command.env("WIRESHARK_CONFIG_DIR", profile);
    command.args(["-o", "esp.enable_encryption_decode:TRUE"]);
    command.args(["-o", "esp.enable_authentication_check:TRUE"]);
    read(command)
}

/// Runs tshark and counts.
#[track_caller]
fn read(mut command: Command) -> Found {
    command.args(["-Y", "isakmp || esp", "-T", "fields", "-E", "occurrence=a"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let mut found = Found::default();
    for line in process::run(&mut command).lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [frame, exchange, opened, bad, spi, good, next, malformed, severity, expert] =
            columns[..]
        else {
            panic!("tshark printed: {line}");
        };
        let mut fault = |what: &str| found.faults.push(format!("packet {frame}: {what} {expert}"));
        if !exchange.is_empty() {
            found.ike += 1;
            match (exchange == IKE_SA_INIT, opened.is_empty(), bad.is_empty()) {
                (true, _, _) => (),
                (false, false, true) => found.ike_opened += 1,
                (false, ..) => fault("an IKE message that does not open:"),
            }
        }
        if !spi.is_empty() {
            // 4 and 41: IPv4 and IPv6 within.
            if good == "1" && (next.ends_with("0x04") || next.ends_with("0x29")) {
                found.esp_opened += 1;
            } else {
                fault(&format!("an ESP packet that does not open: spi {spi} {good} {next}"));
            }
        }
        let error = severity.split(',').any(|level| level.parse().unwrap_or(0) >= EXPERT_ERROR);
        if !malformed.is_empty() || error {
            fault("malformed:");
        }
    }
    found
}

/// Reads the ESP packets of a capture with Scapy.
#[track_caller]
pub(crate) fn scapy(dir: &Path, pcap: &Path, keys: &Keys) -> Found {
    let mut table = String::new();
    for EspKeys { spi, encr, integ } in &keys.esp {
        writeln!(table, "{spi} {encr} {}", if integ.is_empty() { "-" } else { integ })
            .expect("a string takes it");
    }
    let (script, file) = (dir.join("read_esp.py"), dir.join("esp.keys"));
    fs::write(&script, include_str!("read_esp.py")).expect("file is written");
    fs::write(&file, table).expect("file is written");
    let printed = process::run(Command::new("/usr/bin/python3").arg(script).arg(pcap).arg(file));
    let mut found = Found::default();
    for line in printed.lines() {
        match line.strip_prefix("opened ") {
            Some(number) => found.esp_opened = number.parse().expect("a number"),
            None => found.faults.push(line.to_owned()),
        }
    }
    found
}

/// The columns that are asked for.
const FIELDS: [&str; 10] = [
    "frame.number",
    "isakmp.exchangetype",
    "isakmp.enc.decrypted",
    "isakmp.ikev2.integrity_checksum",
    "esp.spi",
    "esp.icv_good",
    "esp.protocol",
    "_ws.malformed",
    "_ws.expert.severity",
    "_ws.expert.message",
];

/// The exchange that is in clear, in tshark's words.
const IKE_SA_INIT: &str = "34";

/// PI_ERROR, the least severity that counts.
const EXPERT_ERROR: u32 = 0x0080_0000;

fn tshark_command(pcap: &Path) -> Command {
    let mut command = Command::new("tshark");
    // A directory without a profile: nothing of the user's own preferences.
    command.env("WIRESHARK_CONFIG_DIR", pcap.with_extension("profile"));
    command.arg("-n").arg("-r").arg(pcap);
    command
}

/// The IKE integrity algorithm by the length of its key in hex digits.
fn ike_mac(digits: usize) -> &'static str {
    match digits {
        64 => "HMAC_SHA2_256_128 [RFC4868]",
        96 => "HMAC_SHA2_384_192 [RFC4868]",
        _ => "HMAC_SHA2_512_256 [RFC4868]",
    }
}

/// The ESP integrity algorithm by the length of its key in hex digits.
fn esp_mac(digits: usize) -> &'static str {
    match digits {
        64 => "HMAC-SHA-256-128 [RFC4868]",
        96 => "HMAC-SHA-384-192 [RFC4868]",
        _ => "HMAC-SHA-512-256 [RFC4868]",
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len() / 2).map(|at| digit(at * 2)).collect()
}
