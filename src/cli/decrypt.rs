//! `ipsecd decrypt`: reads a capture with keys; thin over [`capture`](crate::capture).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{CliError, complain};
use crate::capture::{
    CaptureError, CaptureReader, Checked, Difference, Expectation, IkeMessage, Inside, KeyRing,
    LinkType, Opener, PcapngWriter, Record, Session, Verdict,
};
use crate::wire::ike::payload::Payload;

/// Arguments of `decrypt`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd decrypt wire.pcap --keys esp_sa --write plain.pcapng
  ipsecd decrypt wire.pcapng --keys case.json --expect plain.pcap
  tcpdump -w - esp | ipsecd decrypt - --keys /run/keys/esp_sa

Exit codes:
  0  the capture was read (and is as expected, and as the JSON says)
  1  it cannot be read, is not as expected, not as the JSON says, or no key matches
  2  wrong usage, or a key file has errors")]
pub struct DecryptArgs {
    /// A capture, pcap or pcapng; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub capture: PathBuf,
    /// Keys: Wireshark's esp_sa or ikev2_decryption_table, tcpdump's secrets, or a capture's JSON; `-` is standard input; may be repeated
    #[arg(long, value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub keys: Vec<PathBuf>,
    /// Write the inner packets, as pcapng, into a file that only its owner can read
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub write: Option<PathBuf>,
    /// Compare the inner packets with these, one by one, up to the first difference
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub expect: Option<PathBuf>,
    /// A replay window of so many packets for every SA, 0 for no check [default: what the key file says, or 1024]
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u32).range(0..=8192))]
    pub replay_window: Option<u32>,
    /// One JSON object a line: each packet, then a summary
    #[arg(long)]
    pub json: bool,
}

/// Runs it.
///
/// # Errors
/// A file cannot be read or written, the capture is not as expected, or no key matches.
pub fn run(args: &DecryptArgs) -> Result<(), CliError> {
    let inputs = [Some(&args.capture), args.expect.as_ref()].into_iter().flatten();
    if inputs.chain(&args.keys).filter(|path| *path == Path::new("-")).count() > 1 {
        complain("`-` is standard input, and can be read only once: give the other as a file");
        return Err(CliError::Config);
    }
    let (keys, sessions) = read_keys(&args.keys)?;
    let mut opener = Opener::new(keys);
    if let Some(size) = args.replay_window {
        opener = opener.with_replay_window(size);
    }
    let mut frames = open_capture(&args.capture)?;
    let mut expectation = match &args.expect {
        Some(path) => Some((path, Expectation::new(open_capture(path)?))),
        None => None,
    };
    let mut written = args.write.as_deref().map(Output::create).transpose()?;
    let mut report = Report {
        json: args.json,
        out: Some(BufWriter::new(io::stdout())),
        counts: BTreeMap::new(),
    };

    // Of a session that is noted in a key file.
    let mut records = Vec::new();
    let mut cut = None;
    let mut unopened = Unopened::default();
    loop {
        let frame = match frames.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                cut = Some(error);
                break;
            }
        };
        let record = opener.frame(&frame);
        report.packet(&record);
        unopened.look(&record);
        if let Some(inner) = &record.inner {
            if let Some(output) = &mut written {
                output.packet(&record, inner)?;
            }
            if let Some((path, expectation)) = &mut expectation {
                let difference =
                    expectation.next_is(inner).map_err(|error| unreadable(path, error))?;
                if let Some(difference) = difference {
                    report.end(&opener);
                    return Err(differs(&difference, Some(&record)));
                }
            }
        }
        if !sessions.is_empty() {
            records.push(record);
        }
    }
    report.end(&opener);
    if let Some(output) = written {
        output.finish()?;
    }
    if let Some(error) = cut {
        return Err(unreadable(&args.capture, error));
    }
    if let Some((path, mut expectation)) = expectation {
        let difference = expectation.ends().map_err(|error| unreadable(path, error))?;
        if let Some(difference) = difference {
            return Err(differs(&difference, None));
        }
        report.as_expected(expectation.matched());
    }
    let findings = opener.findings();
    for finding in &findings {
        complain(format_args!("SPI {} ({}): {}", finding.spi, finding.key, finding.text));
    }
    for (name, session) in &sessions {
        match session.check(&records) {
            Ok(checked) => report.as_noted(name, &checked),
            Err(mismatch) => {
                complain(format_args!("not as {name} has it: {mismatch}"));
                return Err(CliError::Reported);
            }
        }
    }
    if unopened.any_opened {
        return Ok(());
    }
    // Keys that were tried have been told of.
    match (findings.is_empty(), unopened.packets) {
        (true, 0) => return Ok(()),
        (true, _) => complain(&unopened),
        (false, _) => {}
    }
    Err(CliError::Reported)
}

/// What was protected and stayed so.
#[derive(Default)]
struct Unopened {
    packets: u64,
    /// What the first of them have: SPIs, mostly.
    names: BTreeSet<String>,
    /// Whether anything was opened.
    any_opened: bool,
}

impl Unopened {
    /// How many are named.
    const MAX_NAMES: usize = 4;

    fn look(&mut self, record: &Record) {
        match record.is_opened() {
            None => {}
            Some(true) => self.any_opened = true,
            Some(false) => {
                self.packets += 1;
                let name = match (&record.verdict, record.layers.last()) {
                    (Verdict::Ike(message), _) => {
                        format!("IKE {}/{}", message.header.spi_i, message.header.spi_r)
                    }
                    (_, Some(layer)) => format!("{} 0x{:08x}", layer.protocol, layer.spi),
                    (_, None) => return,
                };
                if self.names.len() <= Self::MAX_NAMES {
                    self.names.insert(name);
                }
            }
        }
    }
}

impl core::fmt::Display for Unopened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { packets, names, .. } = self;
        let more = if names.len() > Self::MAX_NAMES { ", ..." } else { "" };
        let names: Vec<_> = names.iter().take(Self::MAX_NAMES).map(String::as_str).collect();
        let plural = if *packets == 1 { "packet" } else { "packets" };
        write!(
            f,
            "no key opens any of the {packets} protected {plural}: {}{more}",
            names.join(", ")
        )
    }
}

/// Reads every key file, and what those with a session say of it, by the file's name; all errors of all files are printed.
fn read_keys(paths: &[PathBuf]) -> Result<(KeyRing, Vec<(String, Session)>), CliError> {
    let mut ring = KeyRing::default();
    let mut sessions = Vec::new();
    let mut good = true;
    for path in paths {
        let name = path.display().to_string();
        let bytes = read_whole(path).map_err(|error| CliError::Io(name.clone(), error))?;
        let read = match core::str::from_utf8(&bytes) {
            Ok(text) => KeyRing::read(&name, text),
            Err(_) => {
                complain(format_args!("{name}: not a text file"));
                good = false;
                continue;
            }
        };
        match (read, core::str::from_utf8(&bytes).map(Session::read)) {
            (Ok(_), Ok(Err(error))) => {
                complain(format_args!("{name}: {error}"));
                good = false;
            }
            (Ok(other), session) => {
                ring.append(other);
                let session = session.ok().and_then(Result::ok).flatten();
                sessions.extend(session.map(|session| (name, session)));
            }
            (Err(errors), _) => {
                good = false;
                errors.iter().for_each(|error| complain(format_args!("{name}:{error}")));
            }
        }
    }
    if !good {
        return Err(CliError::Config);
    }
    if ring.is_empty() {
        let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        complain(format_args!("{}: no key in it", names.join(", ")));
    }
    Ok((ring, sessions))
}

/// A key file, or standard input.
fn read_whole(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    if path != Path::new("-") {
        return std::fs::read(path).map(Zeroizing::new);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    io::stdin().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open_capture(path: &Path) -> Result<CaptureReader<'static>, CliError> {
    let source: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let file = File::open(path);
        Box::new(file.map_err(|error| CliError::Io(path.display().to_string(), error))?)
    };
    CaptureReader::new(source).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: CaptureError) -> CliError {
    match error {
        CaptureError::Io(error) => CliError::Io(path.display().to_string(), error),
        CaptureError::Malformed(why) => {
            complain(format_args!("{} {why}", path.display()));
            CliError::Reported
        }
    }
}

fn differs(difference: &Difference, record: Option<&Record>) -> CliError {
    complain(format_args!("not as expected: {difference}"));
    if let Some(record) = record {
        complain(format_args!("it came in packet {}", record.to_string().trim_start()));
    }
    CliError::Reported
}

/// Where the inner packets go.
struct Output {
    path: PathBuf,
    writer: PcapngWriter<BufWriter<File>>,
}

impl Output {
    fn create(path: &Path) -> Result<Self, CliError> {
        let failed = |error| CliError::Io(path.display().to_string(), error);
        // What was secret on the wire stays so.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let writer = PcapngWriter::new(BufWriter::new(file), LinkType::RAW).map_err(failed)?;
        Ok(Self { path: path.to_owned(), writer })
    }

    fn packet(&mut self, record: &Record, inner: &[u8]) -> Result<(), CliError> {
        let layers: Vec<_> = record.layers.iter().map(ToString::to_string).collect();
        let comment = format!("packet {}, {}", record.index, layers.join(", "));
        self.writer
            .packet(record.time, inner, &comment)
            .map_err(|error| CliError::Io(self.path.display().to_string(), error))
    }

    fn finish(self) -> Result<(), CliError> {
        let path = self.path;
        self.writer.finish().map_err(|error| CliError::Io(path.display().to_string(), error))
    }
}

/// What is printed. `out` is gone once nobody reads it.
struct Report {
    json: bool,
    out: Option<BufWriter<io::Stdout>>,
    counts: BTreeMap<&'static str, u64>,
}

impl Report {
    fn packet(&mut self, record: &Record) {
        *self.counts.entry(record.verdict.name()).or_default() += 1;
        if self.json {
            self.line(json_of(record));
        } else {
            self.line(record);
        }
    }

    fn end(&mut self, opener: &Opener) {
        if self.json {
            let findings: Vec<_> = opener
                .findings()
                .into_iter()
                .map(
                    |finding| json!({"spi": finding.spi, "key": finding.key, "text": finding.text}),
                )
                .collect();
            let counts = &self.counts;
            self.line(json!({"summary": counts, "findings": findings}));
        } else {
            let total: u64 = self.counts.values().sum();
            let each: Vec<_> =
                self.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
            let plural = if total == 1 { "" } else { "s" };
            let colon = if each.is_empty() { "" } else { ": " };
            self.line(format!("{total} packet{plural}{colon}{}", each.join(", ")));
        }
        self.flush();
    }

    fn as_expected(&mut self, packets: usize) {
        if !self.json {
            let plural = if packets == 1 { "" } else { "s" };
            self.line(format!("as expected: {packets} inner packet{plural}"));
            self.flush();
        }
    }

    fn as_noted(&mut self, name: &str, checked: &Checked) {
        if self.json {
            let Checked { messages, opened, not_canonical, ike_sas, child_sas, .. } = checked;
            let Checked { proofs, proofs_without_key, packets, .. } = checked;
            self.line(json!({"as_noted": {
                "file": name,
                "messages": messages,
                "encrypted_payloads": opened,
                "not_canonical": not_canonical,
                "ike_sas": ike_sas,
                "child_sas": child_sas,
                "auth": proofs,
                "auth_without_key": proofs_without_key,
                "packets": packets,
            }}));
        } else {
            self.line(format!("as {name} has it: {checked}"));
        }
        self.flush();
    }

    fn line(&mut self, line: impl core::fmt::Display) {
        if let Some(out) = &mut self.out
            && writeln!(out, "{line}").is_err()
        {
            self.out = None;
        }
    }

    fn flush(&mut self) {
        if let Some(out) = &mut self.out
            && out.flush().is_err()
        {
            self.out = None;
        }
    }
}

fn json_of(record: &Record) -> Value {
    let layers: Vec<_> = record
        .layers
        .iter()
        .map(|layer| {
            json!({
                "protocol": layer.protocol.to_string(),
                "spi": format!("0x{:08x}", layer.spi),
                "sequence": layer.sequence,
                "udp": layer.udp,
                "key": layer.key,
            })
        })
        .collect();
    let mut value = json!({
        "index": record.index,
        "packets": record.frames,
        "time_ns": record.time,
        "verdict": record.verdict.name(),
        "reason": record.verdict.to_string(),
        "layers": layers,
    });
    if let Some((src, dst)) = record.addrs {
        value["src"] = src.to_string().into();
        value["dst"] = dst.to_string().into();
    }
    if let Some(inner) = &record.inner {
        value["inner"] = hex(inner).into();
        value["inner_is"] = crate::capture::open::describe(inner).into();
    }
    if let Verdict::Ike(message) = &record.verdict {
        value["ike"] = json_of_ike(message);
    }
    value
}

fn json_of_ike(message: &IkeMessage) -> Value {
    let names = |payloads: &[Payload]| -> Vec<String> {
        payloads.iter().map(ToString::to_string).collect()
    };
    let IkeMessage { header, payloads, inside, .. } = message;
    let mut value = json!({
        "spi_i": header.spi_i.to_string(),
        "spi_r": header.spi_r.to_string(),
        "exchange": header.exchange.to_string(),
        "initiator": header.flags.initiator,
        "response": header.flags.response,
        "message_id": header.message_id,
        "payloads": names(payloads),
    });
    match inside {
        Inside::Clear => {}
        Inside::Opened(payloads) => value["inside"] = names(payloads).into(),
        Inside::Unverified(payloads) => {
            value["inside"] = names(payloads).into();
            value["sealed"] = "unverified".into();
        }
        Inside::Fragment { number, total } => value["fragment"] = json!([number, total]),
        Inside::NoKey => value["sealed"] = "no-key".into(),
        Inside::BadIcv => value["sealed"] = "bad-icv".into(),
        Inside::Unsupported(_) => value["sealed"] = "unsupported".into(),
        Inside::Malformed(_) => value["sealed"] = "malformed".into(),
        Inside::Nonsense => value["sealed"] = "nonsense".into(),
    }
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
