//! [`Expectation`]: what ought to be in a capture, packet for packet.

use core::fmt;

use super::file::{CaptureError, CaptureReader};
use super::link;
use crate::wire::ip::IpPacket;

/// The packets that are expected, one after another.
pub struct Expectation<'a> {
    packets: CaptureReader<'a>,
    index: usize,
}

/// The first difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Index of the packet among those that are expected, from 0.
    pub index: usize,
    /// What was expected there, and what came; one of them may be at its end.
    pub expected: Option<Vec<u8>>,
    /// See `expected`.
    pub got: Option<Vec<u8>>,
}

impl<'a> Expectation<'a> {
    /// What the packets of a capture, in whatever link layer, are expected to be.
    #[must_use]
    pub const fn new(packets: CaptureReader<'a>) -> Self {
        Self { packets, index: 0 }
    }

    /// How many have come so far, as expected.
    #[must_use]
    pub const fn matched(&self) -> usize {
        self.index
    }

    /// The next packet that came.
    ///
    /// # Errors
    /// The expectation cannot be read.
    pub fn next_is(&mut self, packet: &[u8]) -> Result<Option<Difference>, CaptureError> {
        let expected = self.take()?;
        if expected.as_deref() == Some(packet) {
            self.index += 1;
            return Ok(None);
        }
        Ok(Some(Difference { index: self.index, expected, got: Some(packet.to_vec()) }))
    }

    /// No more packet came.
    ///
    /// # Errors
    /// The expectation cannot be read.
    pub fn ends(&mut self) -> Result<Option<Difference>, CaptureError> {
        let expected = self.take()?;
        Ok(expected.map(|packet| Difference {
            index: self.index,
            expected: Some(packet),
            got: None,
        }))
    }

    fn take(&mut self) -> Result<Option<Vec<u8>>, CaptureError> {
        let Some(frame) = self.packets.next_frame()? else { return Ok(None) };
        let packet = link::ip_packet(frame.link, &frame.data).unwrap_or(&frame.data);
        // What follows the packet is the link's padding.
        let len = IpPacket::new_checked(packet).map_or(packet.len(), |ip| ip.total_len());
        Ok(Some(packet[..len].to_vec()))
    }
}

/// Which packet, in what they differ, and the bytes around that.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = self.index;
        match (&self.expected, &self.got) {
            (Some(expected), Some(got)) => {
                let same = expected.iter().zip(got).take_while(|(a, b)| a == b).count();
                let (a, b) = (expected.len(), got.len());
                writeln!(f, "inner packet {index} differs from byte {same} on:")?;
                let from = same.saturating_sub(8) / 16 * 16;
                dump(f, "expected", expected, from)?;
                writeln!(f, " ({a} bytes)")?;
                dump(f, "got", got, from)?;
                write!(f, " ({b} bytes)")
            }
            (Some(expected), None) => {
                write!(f, "inner packet {index} is missing: ")?;
                f.write_str(&super::open::describe(expected))
            }
            (None, Some(got)) => {
                write!(f, "inner packet {index} is one too many: ")?;
                f.write_str(&super::open::describe(got))
            }
            (None, None) => f.write_str("no difference"),
        }
    }
}

/// Up to 32 bytes from `from` on.
fn dump(f: &mut fmt::Formatter<'_>, name: &str, bytes: &[u8], from: usize) -> fmt::Result {
    write!(f, "  {name:<8}  {from:04x} ")?;
    for byte in bytes.iter().skip(from).take(32) {
        write!(f, " {byte:02x}")?;
    }
    Ok(())
}
