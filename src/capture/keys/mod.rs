//! Key files: what opens a capture. [`KeyRing::read`] takes each of these, told apart by content:
//!
//! * Wireshark's `esp_sa` and `ikev2_decryption_table` ([`esp_sa`], [`ikev2`]), which are written, too;
//! * the JSON that comes with captures of this project, `ipsec-lab-capture/1`;
//! * the secrets of tcpdump's `-E`.
//!
//! Lines of the tables may be mixed in one file. A line that begins with `#ipsecd` is a row that Wireshark must not see,
//! since it would not know the algorithm.

pub mod esp_sa;
pub mod ikev2;
pub(super) mod json;
mod pattern;
mod tcpdump;
mod uat;

use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;

pub use pattern::{AddrPattern, SpiPattern};

use crate::crypto::des::DesCbc;
use crate::crypto::{Encr, Secret};
use crate::ipsec::suite::{IkeSuite, Protocol};
use crate::ipsec::{Mode, TrafficSelector};
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{EncrId, IntegId};

/// The keys of any number of SAs.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    /// Of ESP and AH SAs.
    pub sas: Vec<SaKey>,
    /// Of IKE SAs.
    pub ike: Vec<IkeKey>,
    /// UDP ports of encapsulated ESP, besides 4500.
    pub ports: BTreeSet<u16>,
}

/// One direction of an ESP or AH SA.
#[derive(Clone, Debug)]
pub struct SaKey {
    /// Where it was read, and its name if it has one.
    pub origin: String,
    /// AH or ESP.
    pub protocol: Protocol,
    /// Source address of its packets.
    pub src: AddrPattern,
    /// Destination address of its packets.
    pub dst: AddrPattern,
    /// Its SPI.
    pub spi: SpiPattern,
    /// What protects it; or what it names that cannot be used here.
    pub algorithms: Result<Algorithms, String>,
    /// Encryption key, salt at its end.
    pub encr_key: Secret,
    /// Integrity key.
    pub integ_key: Secret,
    /// Whether its sequence numbers have 64 bits.
    pub esn: bool,
    /// Where its sequence numbers begin.
    pub start: Start,
    /// Its replay window, where known.
    pub replay_window: Option<u32>,
    /// Tunnel or transport; unknown: by next header.
    pub mode: Option<Mode>,
    /// Of inner packets; unknown: any.
    pub selectors: Option<Selectors>,
}

/// What inner packets of an SA there may be.
#[derive(Clone, Debug)]
pub struct Selectors {
    /// Where from.
    pub src: Arc<[TrafficSelector]>,
    /// Where to.
    pub dst: Arc<[TrafficSelector]>,
}

/// Where the sequence numbers of an SA begin, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After this number.
    After(u64),
    /// Anywhere: a capture may begin when the SA is old. Of extended numbers, this is the high half of the first.
    Within(u32),
}

/// The algorithms of an [`SaKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms {
    /// Encryption; AH has none.
    pub encr: Option<Encr>,
    /// Integrity.
    pub integrity: Integrity,
}

/// How a packet's integrity can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// The encryption algorithm does it.
    Aead,
    /// By this algorithm.
    Full(IntegId),
    /// It cannot: there are so many bytes of an ICV whose key nobody gave.
    Unchecked(usize),
}

/// What one end of an IKE SA protects its messages with.
#[derive(Clone, Debug)]
pub struct IkeKey {
    /// Where it was read.
    pub origin: String,
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Whether these are the keys of the original initiator.
    pub initiator: bool,
    /// Algorithms (PRF and key exchange are not used); or what is named that cannot be used here.
    pub suite: Result<IkeSuite, String>,
    /// SK_e.
    pub sk_e: Secret,
    /// SK_a.
    pub sk_a: Secret,
    /// Whether a message is read, though its ICV is wrong, if it makes sense: tcpdump looks at no ICV.
    pub unchecked: bool,
}

/// Something is wrong in a key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What, and what would be right. Never contains a key.
    pub message: String,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl KeyRing {
    /// Reads a key file. `name` says in verdicts where a key is from.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(name: &str, text: &str) -> Result<Self, Vec<KeyError>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_start().starts_with('{') {
            return json::read(name, text).map_err(|error| vec![error]);
        }
        let mut ring = Self::default();
        let mut errors = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if let Err((column, message)) = ring.line(&format!("{name}:{number}"), line) {
                errors.push(KeyError { line: number, column, message });
            }
        }
        if errors.is_empty() { Ok(ring) } else { Err(errors) }
    }

    /// Adds everything of another ring.
    pub fn append(&mut self, mut other: Self) {
        self.sas.append(&mut other.sas);
        self.ike.append(&mut other.ike);
        self.ports.append(&mut other.ports);
    }

    /// Whether there is no key at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sas.is_empty() && self.ike.is_empty()
    }

    fn line(&mut self, origin: &str, line: &str) -> Result<(), (usize, String)> {
        let mut row = line;
        for prefix in [HIDDEN, "uat:esp_sa:", "uat:ikev2_decryption_table:"] {
            row = row.strip_prefix(prefix).unwrap_or(row);
        }
        let row = row.trim_start();
        let before = line.len() - row.len();
        let row = row.trim_end();
        if row.is_empty() || row.starts_with('#') {
            return Ok(());
        }
        let read = if row.starts_with('"') {
            esp_sa::read(origin, row).map(|sa| self.sas.push(sa))
        } else if ikev2::is_row(row) {
            ikev2::read(origin, row).map(|both| self.ike.extend(both))
        } else {
            tcpdump::read(origin, row, self)
        };
        read.map_err(|(at, message)| {
            let ahead = line.get(..before + at).unwrap_or(line);
            (ahead.chars().count() + 1, message)
        })
    }
}

impl Start {
    /// The high half to begin with.
    pub(super) fn high(self) -> u32 {
        match self {
            Self::After(sequence) => u32::try_from(sequence >> 32).unwrap_or(u32::MAX),
            Self::Within(high) => high,
        }
    }
}

impl SaKey {
    /// Whether a packet that it opens is known to be genuine.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        !matches!(self.algorithms, Ok(Algorithms { integrity: Integrity::Unchecked(_), .. }))
    }
}

/// What precedes a row that is for us alone.
pub const HIDDEN: &str = "#ipsecd ";

/// An encryption algorithm with the length of the key that was given for it, salt included.
fn encr_of(id: EncrId, key_len: usize) -> Result<Encr, String> {
    let salt = match id {
        EncrId::ENCR_NULL | EncrId::ENCR_AES_CBC | EncrId::ENCR_DES | EncrId::ENCR_3DES => 0,
        EncrId::ENCR_AES_CCM_8
        | EncrId::ENCR_AES_CCM_12
        | EncrId::ENCR_AES_CCM_16
        | EncrId::ENCR_AES_CCM_8_IIV => 3,
        _ => 4,
    };
    let fixed = match id {
        EncrId::ENCR_NULL => Some(0),
        EncrId::ENCR_DES => Some(DesCbc::DES_KEY_LEN),
        EncrId::ENCR_3DES => Some(DesCbc::TRIPLE_KEY_LEN),
        EncrId::ENCR_CHACHA20_POLY1305 | EncrId::ENCR_CHACHA20_POLY1305_IIV => Some(32),
        _ => None,
    };
    let wrong = |right: String| format!("a key of {key_len} bytes; {id} takes {right}");
    let Some(len) = key_len.checked_sub(salt) else {
        return Err(wrong(format!("16, 24 or 32, and {salt} of salt")));
    };
    match (fixed, len) {
        (Some(fixed), len) if fixed == len => Ok(Encr { id, key_bits: None }),
        (Some(0), _) => Err(wrong("none".to_owned())),
        (Some(fixed), _) if salt == 0 => Err(wrong(fixed.to_string())),
        (Some(fixed), _) => Err(wrong(format!("{fixed}, and {salt} of salt"))),
        (None, 16 | 24 | 32) => Ok(Encr { id, key_bits: u16::try_from(len * 8).ok() }),
        (None, _) if salt == 0 => Err(wrong("16, 24 or 32".to_owned())),
        (None, _) => Err(wrong(format!("16, 24 or 32, and {salt} of salt"))),
    }
}

/// The lower-case name of an algorithm without what Wireshark appends in brackets: where it is defined.
fn bare_name(text: &str) -> String {
    text.split(" [").next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Bytes of hex digits; the error says at which character.
fn unhex(digits: &str) -> Result<Vec<u8>, (usize, String)> {
    let nibble = |(at, byte): (usize, u8)| match char::from(byte).to_digit(16) {
        Some(value) => Ok(u8::try_from(value).unwrap_or_default()),
        None => Err((at, "not a hex digit".to_owned())),
    };
    if !digits.len().is_multiple_of(2) {
        return Err((digits.len(), "an odd number of hex digits".to_owned()));
    }
    let nibbles = digits.bytes().enumerate().map(nibble).collect::<Result<Vec<_>, _>>()?;
    Ok(nibbles.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Hex digits of bytes.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
        text
    })
}

#[cfg(test)]
mod tests;
