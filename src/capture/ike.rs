//! [`IkeReader`]: reads recorded IKE messages, and opens those whose keys are known; fragments (RFC 7383) are put together.
//!
//! What no gateway accepts (3DES, AES-CTR, an ICV that nobody can check) is opened by [`LenientIke`], and said to be so.

use core::fmt;
use std::collections::BTreeMap;

use super::keys::IkeKey;
use super::lenient::LenientIke;
use crate::ike::protect::{Content, OpenError, Part, Protector};
use crate::wire::Reader;
use crate::wire::ike::header::{Header, IkeSpi};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::PayloadType;
use crate::wire::ike::payload::Payload;

/// A recorded message.
#[derive(Clone, Debug)]
pub struct IkeMessage {
    /// Its header.
    pub header: Header,
    /// The payloads in clear.
    pub payloads: Vec<Payload>,
    /// What became of the encrypted one.
    pub inside: Inside,
    /// The message as it came, without non-ESP marker.
    pub datagram: Vec<u8>,
    /// What is in the encrypted payload of this datagram, if it was opened.
    pub part: Option<Content>,
    /// What is in that of the message, if all of it was opened.
    pub whole: Option<Content>,
}

/// What is in the SK or SKF payload of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// There is none.
    Clear,
    /// It was opened; of a fragmented message, all of it was, with this one.
    Opened(Vec<Payload>),
    /// It was decrypted to payloads, but nothing could prove that it is genuine.
    Unverified(Vec<Payload>),
    /// A fragment that was opened; others are missing yet.
    Fragment {
        /// From 1.
        number: u16,
        /// Of so many.
        total: u16,
    },
    /// No key for this IKE SA.
    NoKey,
    /// The keys that there are do not verify it.
    BadIcv,
    /// Algorithms that are not ours.
    Unsupported(String),
    /// It is genuine, and malformed.
    Malformed(String),
    /// It was decrypted to no payloads, and nobody can check whether the key is the right one.
    Nonsense,
}

/// Keys, and fragments that wait.
#[derive(Debug, Default)]
pub(super) struct IkeReader {
    keys: Vec<Key>,
    fragments: BTreeMap<MessageKey, Fragments>,
    arrivals: u64,
    pub(super) opened: u64,
    pub(super) bad_icv: u64,
    pub(super) nonsense: u64,
}

#[derive(Debug)]
struct Key {
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    initiator: bool,
    readers: Result<Vec<MessageReader>, String>,
}

/// What opens messages, the strictest first.
#[derive(Debug)]
enum MessageReader {
    Real(Protector),
    Lenient(LenientIke),
}

/// Whose message, which, and in how many parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MessageKey {
    spis: (IkeSpi, IkeSpi),
    flags: (bool, bool),
    message_id: u32,
    total: u16,
}

#[derive(Debug, Default)]
struct Fragments {
    arrival: u64,
    first: Option<PayloadType>,
    parts: BTreeMap<u16, Vec<u8>>,
}

impl IkeReader {
    /// Messages whose fragments may wait at a time.
    const MAX_WAITING: usize = 64;
    /// Fragments of a message.
    const MAX_FRAGMENTS: u16 = 255;

    pub(super) fn new(keys: Vec<IkeKey>) -> Self {
        let keys = keys.into_iter().map(|key| Key {
            spi_i: key.spi_i,
            spi_r: key.spi_r,
            initiator: key.initiator,
            readers: MessageReader::of(&key),
        });
        Self { keys: keys.collect(), ..Self::default() }
    }

    /// Reads a message, without non-ESP marker.
    ///
    /// # Errors
    /// It is none, and why.
    pub(super) fn read(&mut self, datagram: &[u8]) -> Result<IkeMessage, String> {
        let header = Header::parse(&mut Reader::new("IKE header", datagram))
            .map_err(|error| error.to_string())?;
        if header.major != 2 {
            let (major, minor) = (header.major, header.minor);
            return Err(format!("version {major}.{minor}, and only version 2 is read"));
        }
        let message = Message::parse(datagram).map_err(|error| error.to_string())?;
        let opened = match message.payloads.last() {
            Some(Payload::Sk(_) | Payload::Skf(_)) => self.open(&header, datagram),
            _ => Inside::Clear.into(),
        };
        let Opened { inside, part, whole } = opened;
        match inside {
            Inside::Opened(_) | Inside::Unverified(_) | Inside::Fragment { .. } => self.opened += 1,
            Inside::BadIcv => self.bad_icv += 1,
            Inside::Nonsense => self.nonsense += 1,
            Inside::Clear | Inside::NoKey | Inside::Unsupported(_) | Inside::Malformed(_) => {}
        }
        let datagram = datagram.to_vec();
        Ok(IkeMessage { header, payloads: message.payloads, inside, datagram, part, whole })
    }

    fn open(&mut self, header: &Header, datagram: &[u8]) -> Opened {
        let keys = self.keys.iter().filter(|key| {
            (key.spi_i, key.spi_r) == (header.spi_i, header.spi_r)
                && key.initiator == header.flags.initiator
        });
        let mut verdict = Inside::NoKey;
        let mut opened = None;
        'keys: for key in keys {
            let readers = match &key.readers {
                Ok(readers) => readers,
                Err(what) => {
                    if verdict == Inside::NoKey {
                        verdict = Inside::Unsupported(what.clone());
                    }
                    continue;
                }
            };
            for reader in readers {
                match reader.open(datagram) {
                    Ok(part) if reader.verifies() || is_plausible(&part) => {
                        opened = Some((part, reader.verifies()));
                        break 'keys;
                    }
                    Err(OpenError::Parse(error)) if reader.verifies() => {
                        return Inside::Malformed(error.to_string()).into();
                    }
                    Err(OpenError::BadIcv | OpenError::NotProtected) => verdict = Inside::BadIcv,
                    // Of a wrong ICV, the first reader has said so.
                    Ok(_) | Err(OpenError::Parse(_)) => {
                        if verdict != Inside::BadIcv {
                            verdict = Inside::Nonsense;
                        }
                    }
                }
            }
        }
        let Some((Part { fragment, content, .. }, verified)) = opened else {
            return verdict.into();
        };
        let (inside, whole) = match fragment {
            None => (chain(&content), Some(content.clone())),
            Some(fragment) => match self.fragment(header, fragment, &content) {
                Ok(whole) => (chain(&whole), Some(whole)),
                Err(inside) => (inside, None),
            },
        };
        let inside = if !verified && let Inside::Opened(payloads) = inside {
            Inside::Unverified(payloads)
        } else {
            inside
        };
        Opened { inside, part: Some(content), whole }
    }

    /// Keeps a fragment. With the last one that was missing, the message.
    fn fragment(
        &mut self,
        header: &Header,
        (number, total): (u16, u16),
        content: &Content,
    ) -> Result<Content, Inside> {
        if total > Self::MAX_FRAGMENTS {
            return Err(Inside::Malformed(format!("{total} fragments")));
        }
        let key = MessageKey {
            spis: (header.spi_i, header.spi_r),
            flags: (header.flags.initiator, header.flags.response),
            message_id: header.message_id,
            total,
        };
        if self.fragments.len() >= Self::MAX_WAITING && !self.fragments.contains_key(&key) {
            let oldest = self.fragments.iter().min_by_key(|(_, waiting)| waiting.arrival);
            if let Some((&oldest, _)) = oldest {
                self.fragments.remove(&oldest);
            }
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        let waiting = self.fragments.entry(key).or_default();
        waiting.arrival = arrival;
        if number == 1 {
            waiting.first = Some(content.first);
        }
        waiting.parts.insert(number, content.plain.to_vec());
        if waiting.parts.len() < usize::from(total) {
            return Err(Inside::Fragment { number, total });
        }
        match self.fragments.remove(&key) {
            Some(Fragments { first: Some(first), parts, .. }) => {
                let parts: Vec<_> = parts.into_values().collect();
                Ok(Content { first, plain: parts.concat().into() })
            }
            _ => Err(Inside::Fragment { number, total }),
        }
    }
}

impl MessageReader {
    /// An error names the algorithms that are not ours.
    fn of(key: &IkeKey) -> Result<Vec<Self>, String> {
        let suite = key.suite.clone()?;
        let (sk_e, sk_a) = (&key.sk_e, &key.sk_a);
        let real = Protector::new(suite, sk_e, sk_a).map(Self::Real);
        let lenient = || {
            let checked = real.is_none() && !key.unchecked;
            LenientIke::new(suite, sk_e.expose(), sk_a.expose(), checked).map(Self::Lenient)
        };
        let lenient = if real.is_none() || key.unchecked { lenient() } else { None };
        let readers: Vec<_> = real.into_iter().chain(lenient).collect();
        if readers.is_empty() {
            Err(format!("{}/{}", suite.encr, suite.integ))
        } else {
            Ok(readers)
        }
    }

    const fn verifies(&self) -> bool {
        match self {
            Self::Real(_) => true,
            Self::Lenient(lenient) => lenient.verifies(),
        }
    }

    fn open(&self, datagram: &[u8]) -> Result<Part, OpenError> {
        match self {
            Self::Real(protector) => protector.open_part(datagram),
            Self::Lenient(lenient) => lenient.open(datagram),
        }
    }
}

/// What nobody can verify makes sense at least. Of a fragment, that shows when all are there.
fn is_plausible(part: &Part) -> bool {
    part.fragment.is_some() || part.content.payloads().is_ok()
}

/// What came of an encrypted payload.
struct Opened {
    inside: Inside,
    part: Option<Content>,
    whole: Option<Content>,
}

impl From<Inside> for Opened {
    fn from(inside: Inside) -> Self {
        Self { inside, part: None, whole: None }
    }
}

fn chain(content: &Content) -> Inside {
    match content.payloads() {
        Ok(payloads) => Inside::Opened(payloads),
        Err(error) => Inside::Malformed(error.to_string()),
    }
}

/// `IKE_AUTH request 1: SK{ID_I AUTH SA TS_I TS_R N(MOBIKE_SUPPORTED)}`.
impl fmt::Display for IkeMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.header.flags.response { "response" } else { "request" };
        write!(f, "{} {kind} {}:", self.header.exchange, self.header.message_id)?;
        for payload in &self.payloads {
            write!(f, " {payload}")?;
        }
        match &self.inside {
            Inside::Clear => Ok(()),
            Inside::Opened(payloads) => {
                let names: Vec<_> = payloads.iter().map(ToString::to_string).collect();
                write!(f, "{{{}}}", names.join(" "))
            }
            Inside::Unverified(payloads) => {
                let names: Vec<_> = payloads.iter().map(ToString::to_string).collect();
                write!(f, "{{{}}}, decrypted, integrity not proved", names.join(" "))
            }
            Inside::Fragment { number, total } => write!(f, " fragment {number} of {total}"),
            Inside::NoKey => f.write_str(", no key for this IKE SA"),
            Inside::BadIcv => f.write_str(", bad ICV"),
            Inside::Unsupported(what) => write!(f, ", algorithm not supported: {what}"),
            Inside::Malformed(why) => write!(f, ", malformed inside: {why}"),
            Inside::Nonsense => f.write_str(", decrypts to nonsense"),
        }
    }
}
