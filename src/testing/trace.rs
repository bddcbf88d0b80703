//! [`Trace`]: what happened, and a hash of it.

use core::fmt;
use core::time::Duration;

use crate::wire::Reader;
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::ExchangeType;

/// What happened in a run, line by line, and a hash that is equal for equal runs.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hash: Fnv,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Keeps the lines from here on, for whoever looks into a failure.
    pub fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// Adds a line.
    pub fn line(&mut self, at: Duration, what: fmt::Arguments<'_>) {
        let text = format!("{:>12.6} {what}", at.as_secs_f64());
        self.hash.write(text.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push(text);
        }
    }

    /// Adds bytes to the hash alone.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hash.write(bytes);
    }

    /// The hash of everything up to here.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash.0
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.lines {
            Some(lines) => lines.iter().try_for_each(|line| writeln!(f, "{line}")),
            None => writeln!(f, "trace {:016x}, lines not kept", self.hash()),
        }
    }
}

/// FNV-1a: the same on every machine and in every release, which the standard library's hasher does not promise.
#[derive(Clone, Copy, Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The IKE header as anyone on the way can read it (RFC 7296 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageInfo {
    /// Initiator's SPI.
    pub spi_i: u64,
    /// Responder's SPI.
    pub spi_r: u64,
    /// Exchange Type.
    pub exchange: ExchangeType,
    /// Whether the original initiator of the IKE SA sent it.
    pub from_initiator: bool,
    /// Whether it is a response.
    pub response: bool,
    /// Message ID.
    pub message_id: u32,
}

impl MessageInfo {
    /// `None` if there is no whole header.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Option<Self> {
        let header = Header::parse(&mut Reader::new("IKE header", datagram)).ok()?;
        Some(Self {
            spi_i: header.spi_i.0,
            spi_r: header.spi_r.0,
            exchange: header.exchange,
            from_initiator: header.flags.initiator,
            response: header.flags.response,
            message_id: header.message_id,
        })
    }
}

impl fmt::Display for MessageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.response { "response" } else { "request" };
        write!(
            f,
            "{} {kind} {} of {:016x}/{:016x}",
            self.exchange, self.message_id, self.spi_i, self.spi_r
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_runs_have_equal_hashes() {
        let run = |last: u32| {
            let mut trace = Trace::default();
            trace.line(Duration::from_millis(1), format_args!("first"));
            trace.line(Duration::from_millis(2), format_args!("{last}"));
            trace.hash()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn lines_are_kept_on_demand_only() {
        let mut trace = Trace::default();
        trace.line(Duration::ZERO, format_args!("unseen"));
        trace.keep_lines();
        trace.line(Duration::ZERO, format_args!("seen"));
        let text = trace.to_string();
        assert!(text.contains("seen") && !text.contains("unseen"), "{text}");
    }

    #[test]
    fn header_is_read_and_a_short_one_refused() {
        let mut datagram = vec![0; 28];
        datagram[7] = 1;
        datagram[15] = 2;
        datagram[18] = 37;
        datagram[19] = 0x28;
        datagram[23] = 9;
        let info = MessageInfo::of(&datagram).unwrap();
        assert_eq!((info.spi_i, info.spi_r, info.message_id), (1, 2, 9));
        assert!(info.response && info.from_initiator);
        assert_eq!(
            info.to_string(),
            "INFORMATIONAL response 9 of 0000000000000001/0000000000000002"
        );
        assert_eq!(MessageInfo::of(&datagram[..27]), None);
    }
}
