//! What RFC 4301 and RFC 4303 want to be auditable, as the datapath meets it: [`Audits`] of a batch. Who writes it down, and how
//! often, is for the daemon to say.

use crate::ipsec::{DropReason, Path, Protocol};

/// A packet that was dropped for a reason that is auditable, or several alike that followed each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Why.
    pub reason: DropReason,
    /// ESP or AH.
    pub protocol: Protocol,
    /// From where to where it came, or was to go.
    pub path: Path,
    /// Its SPI, which may be none that there is.
    pub spi: u32,
    /// Its sequence number, of the last of several: the 32 bits that are in the packet.
    pub sequence: u32,
    /// How many.
    pub count: u64,
}

/// What of a batch is auditable. Not longer than the batch has packets.
#[derive(Debug)]
pub struct Audits {
    list: Vec<Audited>,
    /// SPI and sequence number of the packet at hand.
    head: (Protocol, u32, u32),
}

impl Default for Audits {
    fn default() -> Self {
        Self { list: Vec::new(), head: (Protocol::Esp, 0, 0) }
    }
}

impl Audits {
    /// What there is, in order; nothing after that.
    pub fn drain(&mut self) -> impl Iterator<Item = Audited> + '_ {
        self.list.drain(..)
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The packet at hand: `header` begins with that of its protocol.
    pub(super) fn at(&mut self, protocol: Protocol, header: &[u8]) {
        let number = |at: usize| {
            let bytes = header.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
        };
        // RFC 4303 §2, RFC 4302 §2.
        let at = match protocol {
            Protocol::Esp => 0,
            Protocol::Ah => 4,
        };
        self.head = (protocol, number(at), number(at + 4));
    }

    /// The packet at hand was dropped.
    pub(super) fn dropped(&mut self, reason: DropReason, path: &Path) {
        if !reason.is_auditable() {
            return;
        }
        let (protocol, spi, sequence) = self.head;
        self.push(Audited { reason, protocol, path: *path, spi, sequence, count: 1 });
    }

    /// Notes it, with the one before if they are alike.
    pub(super) fn push(&mut self, audited: Audited) {
        let alike = |last: &&mut Audited| {
            (last.reason, last.protocol, last.path, last.spi)
                == (audited.reason, audited.protocol, audited.path, audited.spi)
        };
        match self.list.last_mut().filter(alike) {
            Some(last) => {
                last.count += audited.count;
                last.sequence = audited.sequence;
            }
            None => self.list.push(audited),
        }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }
}
