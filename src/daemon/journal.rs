//! The log in the journal's own form: a line that says everything, and a field for each value.
//!
//! What systemd calls the journal's native protocol, a datagram an entry. In `MESSAGE` stands what the other forms have in a
//! line, so that whoever reads `journalctl` without options misses nothing; `F_PEER`, `F_SPI_I` and so on are for filters.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// The longest value that is written whole: a dozen of them go into one datagram.
const MAX_VALUE: usize = 16 << 10;

/// Writes what is logged to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// To the one that listens at `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // An empty entry, which the journal takes and forgets.
        socket.send_to(&[], path)?;
        Ok(Self { socket, path: path.to_owned() })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut values = Values::default();
        attrs.record(&mut values);
        if let Some(span) = ctx.span(id) {
            span.extensions_mut().insert(values);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(values) = span.extensions_mut().get_mut::<Values>()
        {
            record.record(values);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut values = Values::default();
        event.record(&mut values);
        for span in ctx.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Values>() {
                values.inherit(outer);
            }
        }
        // Nobody is left to tell that the journal takes nothing.
        let _lost = self.socket.send_to(&entry(event.metadata(), &values), &self.path);
    }
}

/// What an event or a span says.
#[derive(Debug, Default)]
struct Values {
    message: String,
    named: Vec<(&'static str, String)>,
}

impl Values {
    /// Adds what is said around it, and not by itself.
    fn inherit(&mut self, outer: &Self) {
        for (name, value) in &outer.named {
            if self.named.iter().all(|(own, _)| own != name) {
                self.named.push((name, value.clone()));
            }
        }
    }

    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.named.retain(|(name, _)| *name != field.name());
            self.named.push((field.name(), value));
        }
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

fn entry(meta: &Metadata<'_>, values: &Values) -> Vec<u8> {
    // syslog's levels; `notice` is what `journalctl` shows in bold.
    let priority = match *meta.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "5",
        Level::DEBUG => "6",
        _ => "7",
    };
    let mut message = values.message.clone();
    for (name, value) in &values.named {
        // Writing to a string succeeds.
        let _written = write!(message, " {name}={value}");
    }
    let mut out = Vec::with_capacity(512);
    put(&mut out, "PRIORITY", priority);
    put(&mut out, "SYSLOG_IDENTIFIER", "ipsecd");
    put(&mut out, "MESSAGE", message.trim_start());
    put(&mut out, "TARGET", meta.target());
    if let (Some(file), Some(line)) = (meta.file(), meta.line()) {
        put(&mut out, "CODE_FILE", file);
        put(&mut out, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &values.named {
        let mut field = String::from("F_");
        field.extend(name.chars().map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' => c.to_ascii_uppercase(),
            _ => '_',
        }));
        put(&mut out, &field, value);
    }
    out
}

/// A field whose value may be anything, a line feed too: name, length, value.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.as_bytes();
    let value = value.get(..MAX_VALUE).unwrap_or(value);
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What the journal would read.
    fn fields(mut bytes: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|&byte| byte == b'\n').unwrap();
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let (len, rest) = bytes[end + 1..].split_at(8);
            let len = usize::try_from(u64::from_le_bytes(len.try_into().unwrap())).unwrap();
            let value = String::from_utf8(rest[..len].to_vec()).unwrap();
            assert_eq!(rest[len], b'\n');
            assert!(fields.insert(name, value).is_none());
            bytes = &rest[len + 1..];
        }
        fields
    }

    fn logged(log: impl FnOnce()) -> BTreeMap<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, log);
        let mut buffer = vec![0; 1 << 20];
        assert_eq!(listener.recv(&mut buffer).unwrap(), 0);
        let len = listener.recv(&mut buffer).unwrap();
        fields(&buffer[..len])
    }

    #[test]
    fn entry_has_a_field_for_each_value_and_a_message_with_all_of_them() {
        let fields = logged(|| {
            let span = tracing::info_span!("ike_sa", peer = "outer", spi_i = "0102");
            span.in_scope(|| tracing::warn!(peer = "site-b", count = 3, text = "a\nb", "gone"));
        });
        let expected = [
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "ipsecd"),
            ("MESSAGE", "gone peer=site-b count=3 text=a\nb spi_i=0102"),
            ("F_PEER", "site-b"),
            ("F_COUNT", "3"),
            ("F_TEXT", "a\nb"),
            ("F_SPI_I", "0102"),
        ];
        for (name, value) in expected {
            assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(fields["CODE_FILE"].ends_with("journal.rs"));
    }

    #[test]
    fn long_value_is_cut_and_arrives() {
        let fields = logged(|| tracing::info!(text = "x".repeat(MAX_VALUE + 1), "long"));
        assert_eq!(fields["F_TEXT"].len(), MAX_VALUE);
    }

    #[test]
    fn where_nobody_listens_there_is_no_journal() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Journal::open(&dir.path().join("socket")).is_err());
    }
}
