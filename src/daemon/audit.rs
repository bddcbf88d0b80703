//! Audit events (RFC 4301 §4.4.3, §5.2; RFC 4303 §4; RFC 4302 §4): one JSON object a line, in the form of Suricata's EVE, into a file or a
//! Unix socket. `docs/audit.md` has the fields.
//!
//! An attacker decides how many there are, so what is written is bounded: the first of a kind at once, then one line for all
//! alike every `INTERVAL`, with their number. Nothing is lost but where it came from, once there are too many places.
//! Workers hand over a batch's worth under a lock that nobody holds while writing.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use serde::Serialize;
use thiserror::Error;

use crate::datapath::{Audited, Datapath};
use crate::io::clock;
use crate::ipsec::{DropReason, Encap, Path, Protocol, Spi};
use crate::wire::ike::header::IkeSpi;

/// How long those alike are gathered after the first.
const INTERVAL: Duration = Duration::from_secs(10);
/// Lines of an interval that say where something came from; all the rest of an event is one line.
const MAX_LINES: usize = 64;
/// Kinds that are told apart within an interval.
const MAX_KINDS: usize = 1024;
/// How long a socket may stall.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Appended to a file, which is opened again when it was moved away.
    File(PathBuf),
    /// To who listens on a Unix stream socket; it is connected to again when it was closed.
    Socket(PathBuf),
}

/// A target that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is neither a file nor unix:/PATH")]
pub struct BadTarget(String);

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Socket(path.into())),
            None if !text.is_empty() => Ok(Self::File(text.into())),
            Some(_) | None => Err(BadTarget(text.to_owned())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditEvent {
    /// Somebody did not prove who it is, or a peer did not take our proof.
    AuthenticationFailed,
    /// The integrity check failed.
    BadIcv,
    /// A fragment where there must be none.
    Fragment,
    /// A sequence number that was received before, or is too old to tell.
    Replay,
    /// What was in a packet is not for its SA.
    SelectorViolation,
    /// An SA has no sequence number left to send with.
    SequenceOverflow,
    /// No SA has this SPI.
    UnknownSpi,
}

impl AuditEvent {
    /// Of a packet that was dropped; `None` for a reason that is not auditable.
    #[must_use]
    pub const fn of(reason: DropReason) -> Option<Self> {
        use DropReason as Why;
        Some(if matches!(reason, Why::IcvMismatch) {
            Self::BadIcv
        } else if matches!(reason, Why::AhFragment | Why::TransportFragment) {
            Self::Fragment
        } else if matches!(reason, Why::ReplayDuplicate | Why::ReplayOld) {
            Self::Replay
        } else if matches!(reason, Why::InboundSelectorMismatch) {
            Self::SelectorViolation
        } else if matches!(reason, Why::SequenceExhausted) {
            Self::SequenceOverflow
        } else if matches!(reason, Why::NoInboundSa) {
            Self::UnknownSpi
        } else {
            return None;
        })
    }
}

/// Those alike are one line an interval.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    event: AuditEvent,
    reason: String,
    proto: &'static str,
    from: SocketAddr,
    to: SocketAddr,
    /// Of a packet. Each attempt at an IKE SA has SPIs of its own, which make no other kind.
    spi: Option<u32>,
    peer: Option<Arc<str>>,
}

/// How many of a kind, and when.
#[derive(Clone, Copy, Debug)]
struct Tally {
    count: u64,
    first: SystemTime,
    last: SystemTime,
    /// Of the last.
    sequence: Option<u32>,
    ike_spis: Option<(IkeSpi, IkeSpi)>,
}

/// What is to be written.
#[derive(Debug, Default)]
struct Pending {
    kinds: BTreeMap<Kind, Tally>,
    /// Of kinds for which there was no room.
    more: BTreeMap<AuditEvent, Tally>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    news: Condvar,
}

/// Takes events. Dropped, it writes what is left.
#[derive(Debug)]
pub struct Audit {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Audit {
    /// Opens the target.
    ///
    /// # Errors
    /// The file cannot be opened, or a thread not be started. A socket that nobody listens on is tried again later.
    pub fn start(target: &Target) -> io::Result<Self> {
        let mut out = Out::open(target)?;
        let shared = Arc::new(Shared::default());
        let of_writer = Arc::clone(&shared);
        let body = move || of_writer.write_to(&mut out);
        let writer = std::thread::Builder::new().name("ipsecd-audit".to_owned()).spawn(body)?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Packets of a batch that were dropped.
    pub fn packets(&self, datapath: &Datapath, packets: impl Iterator<Item = Audited>) {
        let now = clock::wall();
        let mut pending = self.shared.lock();
        for packet in packets {
            let Some(event) = AuditEvent::of(packet.reason) else { continue };
            let inbound = event != AuditEvent::SequenceOverflow;
            let peer = Spi::new(packet.spi).and_then(|spi| {
                let sad = datapath.sad();
                let params = if inbound {
                    sad.inbound(spi)?.sa.params()
                } else {
                    // Another peer may have chosen the same SPI.
                    let all = sad.all_outbound().filter(|entry| entry.path == packet.path);
                    all.map(|entry| entry.sa.params()).find(|sa| sa.spi == spi)?
                };
                Some(Arc::clone(&params.peer))
            });
            let Path { local, remote, encap } = packet.path;
            let (from, to) = if inbound { (remote, local) } else { (local, remote) };
            let kind = Kind {
                event,
                reason: packet.reason.text().to_owned(),
                proto: match (packet.protocol, encap) {
                    (Protocol::Ah, _) => "AH",
                    (Protocol::Esp, Encap::Plain) => "ESP",
                    (Protocol::Esp, Encap::Udp) => "UDP",
                },
                from,
                to,
                spi: Some(packet.spi),
                peer,
            };
            let sequence = Some(packet.sequence);
            let tally =
                Tally { count: packet.count, first: now, last: now, sequence, ike_spis: None };
            pending.note(kind, tally);
        }
        drop(pending);
        self.shared.news.notify_one();
    }

    /// Somebody did not prove who it is.
    pub fn authentication_failed(
        &self,
        peer: Option<&Arc<str>>,
        path: &Path,
        spis: (IkeSpi, IkeSpi),
        reason: &dyn fmt::Display,
    ) {
        let kind = Kind {
            event: AuditEvent::AuthenticationFailed,
            reason: reason.to_string(),
            proto: "UDP",
            from: path.remote,
            to: path.local,
            spi: None,
            peer: peer.map(Arc::clone),
        };
        let now = clock::wall();
        let tally = Tally { count: 1, first: now, last: now, sequence: None, ike_spis: Some(spis) };
        self.shared.lock().note(kind, tally);
        self.shared.news.notify_one();
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.news.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of audit events had panicked");
        }
    }
}

impl Pending {
    fn note(&mut self, kind: Kind, tally: Tally) {
        let has_room = self.kinds.len() < MAX_KINDS || self.kinds.contains_key(&kind);
        if has_room {
            self.kinds.entry(kind).and_modify(|before| before.add(tally)).or_insert(tally);
        } else {
            self.more.entry(kind.event).and_modify(|before| before.add(tally)).or_insert(tally);
        }
    }

    fn is_empty(&self) -> bool {
        self.kinds.is_empty() && self.more.is_empty()
    }

    /// The lines for all that there is, at most [`MAX_LINES`] and one an event.
    fn lines(mut self) -> Vec<u8> {
        let mut kinds: Vec<_> = self.kinds.into_iter().collect();
        // Those that there are many of are told one by one.
        kinds.sort_by_key(|(_, tally)| core::cmp::Reverse(tally.count));
        for (kind, tally) in kinds.drain(MAX_LINES.min(kinds.len())..) {
            self.more.entry(kind.event).and_modify(|before| before.add(tally)).or_insert(tally);
        }
        let mut out = Vec::new();
        for (kind, tally) in &kinds {
            line(kind.event, Some(kind), tally, &mut out);
        }
        for (event, tally) in &self.more {
            line(*event, None, tally, &mut out);
        }
        out
    }
}

impl Tally {
    /// Those and these.
    fn add(&mut self, other: Self) {
        let first = self.first.min(other.first);
        *self = Self { count: self.count + other.count, first, ..other };
    }
}

/// One line. Without a kind: of several, from wherever they came.
fn line(event: AuditEvent, kind: Option<&Kind>, tally: &Tally, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Line<'a> {
        timestamp: String,
        event_type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        src_ip: Option<IpAddr>,
        #[serde(skip_serializing_if = "Option::is_none")]
        src_port: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dest_ip: Option<IpAddr>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dest_port: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        proto: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        spi: Option<String>,
        ipsec: Ipsec<'a>,
    }
    #[derive(Serialize)]
    struct Ipsec<'a> {
        event: AuditEvent,
        count: u64,
        first: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        sequence: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    }
    let port = |at: fn(&Kind) -> SocketAddr| {
        kind.filter(|kind| kind.proto == "UDP").map(|kind| at(kind).port())
    };
    let line = Line {
        timestamp: stamp(tally.last),
        event_type: "ipsec",
        src_ip: kind.map(|kind| kind.from.ip()),
        src_port: port(|kind| kind.from),
        dest_ip: kind.map(|kind| kind.to.ip()),
        dest_port: port(|kind| kind.to),
        proto: kind.map(|kind| kind.proto),
        spi: kind.and_then(|kind| spi_of(kind, tally)),
        ipsec: Ipsec {
            event,
            count: tally.count,
            first: stamp(tally.first),
            sequence: tally.sequence.filter(|_| kind.is_some()),
            peer: kind.and_then(|kind| kind.peer.as_deref()),
            reason: kind.map(|kind| &*kind.reason),
        },
    };
    if let Err(error) = serde_json::to_writer(&mut *out, &line) {
        tracing::error!(%error, "an audit event cannot be written");
    }
    out.push(b'\n');
}

/// As `ipsecd status` has it; of an IKE SA both.
fn spi_of(kind: &Kind, tally: &Tally) -> Option<String> {
    let of_packet = kind.spi.map(|spi| format!("{spi:#010x}"));
    of_packet.or_else(|| tally.ike_spis.map(|(spi_i, spi_r)| format!("{spi_i}/{spi_r}")))
}

/// As EVE has it: microseconds, and the zone as a number.
fn stamp(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_micros(at).to_string();
    format!("{}+0000", text.trim_end_matches('Z'))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Counters are whole whatever happened to who held it.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's life: waits for something, writes it, lets an interval pass.
    fn write_to(&self, out: &mut Out) {
        loop {
            let mut pending = self.lock();
            while pending.is_empty() && !pending.ended {
                pending = self.news.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            let taken = core::mem::take(&mut *pending);
            pending.ended = taken.ended;
            drop(pending);
            let ended = taken.ended;
            if !taken.is_empty() {
                out.write(&taken.lines());
            }
            if ended {
                return;
            }
            let end = clock::now() + INTERVAL;
            let mut pending = self.lock();
            while !pending.ended
                && let Some(left) =
                    end.checked_duration_since(clock::now()).filter(|left| !left.is_zero())
            {
                let waited = self.news.wait_timeout(pending, left);
                pending = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// An open target.
#[derive(Debug)]
enum Out {
    File { path: PathBuf, file: File },
    Socket { path: PathBuf, stream: Option<UnixStream>, lost: u64 },
}

impl Out {
    fn open(target: &Target) -> io::Result<Self> {
        Ok(match target {
            Target::File(path) => Self::File { path: path.clone(), file: append(path)? },
            Target::Socket(path) => {
                Self::Socket { path: path.clone(), stream: connect(path), lost: 0 }
            }
        })
    }

    fn write(&mut self, lines: &[u8]) {
        match self {
            Self::File { path, file } => {
                if !is_same(path, file) {
                    match append(path) {
                        Ok(new) => *file = new,
                        Err(error) => {
                            tracing::warn!(%error, path = %path.display(), "the audit file cannot be opened again; the old one is written on");
                        }
                    }
                }
                if let Err(error) = file.write_all(lines) {
                    tracing::error!(%error, path = %path.display(), "audit events are lost");
                }
            }
            Self::Socket { path, stream, lost } => {
                if stream.is_none() {
                    *stream = connect(path);
                }
                let written = stream.as_mut().map(|stream| stream.write_all(lines));
                if matches!(written, Some(Ok(()))) {
                    if *lost > 0 {
                        tracing::warn!(lost, path = %path.display(), "audit events are taken again");
                    }
                    *lost = 0;
                } else {
                    // Half a line would spoil the next.
                    *stream = None;
                    if *lost == 0 {
                        tracing::error!(path = %path.display(), "nobody takes the audit events");
                    }
                    *lost += lines.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
                }
            }
        }
    }
}

fn append(path: &FilePath) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Whether the file at the path is still the one that is open.
fn is_same(path: &FilePath, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}

fn connect(path: &FilePath) -> Option<UnixStream> {
    let stream = UnixStream::connect(path).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn kind(event: AuditEvent, last: u8) -> Kind {
        Kind {
            event,
            reason: "why".to_owned(),
            proto: "ESP",
            from: SocketAddr::from(([192, 0, 2, last], 0)),
            to: SocketAddr::from(([198, 51, 100, 1], 0)),
            spi: Some(0x100),
            peer: None,
        }
    }

    fn tally(count: u64, sequence: u32, at: SystemTime) -> Tally {
        let sequence = Some(sequence);
        Tally { count, first: at, last: at, sequence, ike_spis: None }
    }

    fn lines(pending: Pending) -> Vec<Value> {
        let lines = String::from_utf8(pending.lines()).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn those_alike_are_one_line_with_their_number() {
        let mut pending = Pending::default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000);
        for sequence in 0..1000 {
            pending.note(kind(AuditEvent::BadIcv, 1), tally(1, sequence, at));
        }
        pending.note(kind(AuditEvent::Replay, 1), tally(3, 7, at));
        let found = lines(pending);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["timestamp"], "1970-01-01T00:00:01.500000+0000");
        assert_eq!(found[0]["event_type"], "ipsec");
        assert_eq!(found[0]["src_ip"], "192.0.2.1");
        assert_eq!(found[0]["dest_ip"], "198.51.100.1");
        assert_eq!((&found[0]["proto"], &found[0]["spi"]), (&"ESP".into(), &"0x00000100".into()));
        assert_eq!(found[0]["src_port"], Value::Null, "protocol 50 has no ports");
        assert_eq!(found[0]["ipsec"]["event"], "bad_icv");
        assert_eq!(found[0]["ipsec"]["count"], 1000);
        assert_eq!(found[0]["ipsec"]["sequence"], 999);
        assert_eq!(found[1]["ipsec"]["event"], "replay");
        assert_eq!(found[1]["ipsec"]["count"], 3);
    }

    #[test]
    fn flood_from_everywhere_is_bounded_in_memory_and_lines_and_no_packet_goes_uncounted() {
        let mut pending = Pending::default();
        let at = SystemTime::UNIX_EPOCH;
        for n in 0..100_000_u32 {
            let [_, a, b, c] = n.to_be_bytes();
            let mut kind = kind(AuditEvent::UnknownSpi, 0);
            kind.from = SocketAddr::from(([10, a, b, c], 0));
            pending.note(kind, tally(1, n, at));
        }
        assert!(pending.kinds.len() <= MAX_KINDS);
        let found = lines(pending);
        assert_eq!(found.len(), MAX_LINES + 1);
        let all: u64 = found.iter().map(|line| line["ipsec"]["count"].as_u64().unwrap()).sum();
        assert_eq!(all, 100_000);
        assert_eq!(found.last().unwrap()["src_ip"], Value::Null);
    }

    #[test]
    fn file_that_was_moved_away_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eve.json");
        let mut out = Out::open(&Target::File(path.clone())).unwrap();
        out.write(b"one\n");
        std::fs::rename(&path, dir.path().join("eve.json.1")).unwrap();
        out.write(b"two\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"two\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_left_is_written_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eve.json");
        let audit = Audit::start(&Target::File(path.clone())).unwrap();
        let path_of = Path {
            local: "198.51.100.1:500".parse().unwrap(),
            remote: "192.0.2.1:500".parse().unwrap(),
            encap: Encap::Plain,
        };
        for _ in 0..5 {
            audit.authentication_failed(None, &path_of, (IkeSpi(1), IkeSpi(2)), &"no");
        }
        drop(audit);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<_> = lines.collect();
        let all: u64 = lines.iter().map(|line| line["ipsec"]["count"].as_u64().unwrap()).sum();
        assert_eq!(all, 5);
        assert_eq!(lines[0]["src_port"], 500);
        assert_eq!(lines[0]["spi"], "0000000000000001/0000000000000002");
    }

    #[test]
    fn targets_are_files_or_sockets() {
        assert_eq!("/var/log/a".parse(), Ok(Target::File("/var/log/a".into())));
        assert_eq!("unix:/run/a".parse(), Ok(Target::Socket("/run/a".into())));
        assert!("".parse::<Target>().is_err() && "unix:a".parse::<Target>().is_err());
    }
}
