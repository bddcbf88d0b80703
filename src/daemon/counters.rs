//! Sequence numbers of SAs with manual keys, kept on disk.
//!
//! Under one key no sequence number may be used twice, whatever happens to the daemon or the host: RFC 4303 §3.3.3 has
//! the counter "correctly maintained across local reboots, etc., until the key is replaced", and with an algorithm whose
//! IV is a counter a second use gives plaintext away (RFC 8221 §3, RFC 4106 §10). So numbers are reserved in blocks: what
//! is on disk, flushed, before the first of a block is used is the last of it. After a clean end the file has the last
//! one used; after a crash, the rest of a block is skipped.
//!
//! A file belongs to a key and not to a name, so that renaming an SA, or moving it to another file, starts nothing anew.

use core::ops::Deref;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

use crate::crypto::sha::sha256;
use crate::ipsec::manual::{ManualKeys, counts};
use crate::ipsec::{OutboundSa, Protocol, Suite};

/// Numbers reserved at a time. A crash costs so many at most: a thousandth of those that there are without ESN. It is
/// more than can be sent between two looks at the counter.
const BLOCK: u64 = 1 << 22;

/// What a file begins with.
const HEADER: &str = "ipsecd sequence numbers 1\n";

/// Longest file that is read.
const MAX_LEN: u64 = 64;

/// Why a sequence number could not be reserved. Without one, nothing is sent.
#[derive(Debug, Error)]
pub enum CounterError {
    /// The SA of that key is in use.
    #[error("another ipsecd uses these keys ({} is locked): every SA needs keys of its own", .0.display())]
    Busy(PathBuf),
    /// The file is none of ours.
    #[error("{} is damaged: set new keys on both sides", .0.display())]
    Damaged(PathBuf),
    /// Nothing is left under this key.
    #[error("all sequence numbers under this key are used: set new keys on both sides")]
    Exhausted,
    /// Reading or writing failed.
    #[error("cannot keep its sequence numbers in {}: {cause}; --state-dir names another directory", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
}

/// The directory with the files.
#[derive(Clone, Debug)]
pub struct Counters {
    dir: PathBuf,
}

/// The file of one key, which nobody else has while this lives.
#[derive(Debug)]
pub struct Counter {
    path: PathBuf,
    /// What is on disk: this and every number before it may have been used.
    reserved: u64,
    _lock: Flock<File>,
}

/// An outbound SA with the counter of its key. Dropping it ends the SA.
#[derive(Debug)]
pub struct Counted {
    sa: Layer,
    counter: Counter,
}

/// One SA of a bundle, or the only one.
#[derive(Clone, Debug)]
pub enum Layer {
    /// The AH SA around this one.
    Around(Arc<OutboundSa>),
    /// This one.
    Itself(Arc<OutboundSa>),
}

impl Deref for Layer {
    type Target = OutboundSa;

    fn deref(&self) -> &OutboundSa {
        match self {
            // Only made of one that has it.
            Self::Around(sa) => sa.around().unwrap_or(sa),
            Self::Itself(sa) => sa,
        }
    }
}

impl Layer {
    /// Every SA of a bundle, the inner first.
    #[must_use]
    pub fn all(sa: &Arc<OutboundSa>) -> Vec<Self> {
        let around = sa.around().map(|_| Self::Around(Arc::clone(sa)));
        core::iter::once(Self::Itself(Arc::clone(sa))).chain(around).collect()
    }
}

impl Counters {
    /// In this directory, which is made when the first file is.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The counter of an outbound SA's key.
    ///
    /// # Errors
    /// If somebody else has it, or it cannot be read.
    pub fn claim(&self, suite: Suite, keys: &ManualKeys) -> Result<Counter, CounterError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| CounterError::Io { path, cause }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(failed(&self.dir))?;
        let mode = fs::metadata(&self.dir).map_err(failed(&self.dir))?.mode();
        if mode & 0o022 != 0 {
            // Whoever can put an old file there can have numbers used again.
            let cause =
                io::Error::other(format!("others can write there (mode {:04o})", mode & 0o7777));
            return Err(failed(&self.dir)(cause));
        }
        let path = self.dir.join(file_name(suite, keys));
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::Error::EWOULDBLOCK {
                CounterError::Busy(lock_path.clone())
            } else {
                failed(&lock_path)(errno.into())
            }
        })?;
        let reserved = read(&path)?;
        Ok(Counter { path, reserved, _lock: lock })
    }
}

impl Counter {
    /// The last number that may have been used, whatever happened.
    #[must_use]
    pub const fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Makes it so that numbers up to `last` count as used from here on: on disk when this returns.
    ///
    /// # Errors
    /// If that cannot be written. Then nothing has changed.
    pub fn reserve(&mut self, last: u64) -> Result<(), CounterError> {
        if last == self.reserved {
            return Ok(());
        }
        self.write(last).map_err(|cause| CounterError::Io { path: self.path.clone(), cause })?;
        self.reserved = last;
        Ok(())
    }

    fn write(&self, last: u64) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        writeln!(file, "{HEADER}{last}")?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        // The name is in the directory, and that has to be flushed too.
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        File::open(dir)?.sync_all()
    }
}

impl Counted {
    /// Lets the SA use the first block of numbers, and no others.
    ///
    /// # Errors
    /// [`CounterError::Exhausted`], or if it cannot be written.
    pub fn begin(sa: Layer, counter: Counter) -> Result<Self, CounterError> {
        // Until it is reserved, nothing: whoever has the SA already is kept waiting.
        sa.permit_up_to(sa.sequence());
        let mut counted = Self { sa, counter };
        if counted.sa.sequence() == counted.sa.last_sequence() {
            return Err(CounterError::Exhausted);
        }
        counted.reserve_block()?;
        Ok(counted)
    }

    /// The SA.
    #[must_use]
    pub fn sa(&self) -> &OutboundSa {
        &self.sa
    }

    /// Reserves the next block, if the last is half used.
    ///
    /// # Errors
    /// If it cannot be written. The SA ends with its block then.
    pub fn extend(&mut self) -> Result<(), CounterError> {
        let used = self.sa.sequence();
        if used.saturating_add(BLOCK / 2) <= self.counter.reserved
            || self.counter.reserved == self.sa.last_sequence()
        {
            return Ok(());
        }
        self.reserve_block()
    }

    fn reserve_block(&mut self) -> Result<(), CounterError> {
        let last = self.sa.sequence().saturating_add(BLOCK).min(self.sa.last_sequence());
        self.counter.reserve(last)?;
        self.sa.permit_up_to(last);
        Ok(())
    }
}

/// Ends the SA for good, and gives back what it did not use. If that cannot be written, the rest of the block is lost.
impl Drop for Counted {
    fn drop(&mut self) {
        let used = self.sa.end();
        if let Err(error) = self.counter.reserve(used) {
            tracing::warn!(%error, "unused sequence numbers are lost");
        }
    }
}

/// Where an algorithm counts, its encryption key says all; elsewhere a key may serve several SAs.
fn file_name(suite: Suite, keys: &ManualKeys) -> String {
    let protocol: &[u8] = match suite.protocol() {
        Protocol::Ah => b"AH",
        Protocol::Esp => b"ESP",
    };
    let key = keys.counted_key().expose();
    let digest = if counts(suite) {
        sha256(&[b"ipsecd sequence numbers\0", key])
    } else {
        let integ = keys.integ_key.expose();
        let spi = keys.spi.to_be_bytes();
        sha256(&[b"ipsecd sequence numbers\0", protocol, &spi, &sha256(&[key]), &sha256(&[integ])])
    };
    let hex = digest.iter().take(16).map(|byte| format!("{byte:02x}"));
    format!("{}.seq", hex.collect::<String>())
}

/// Zero without a file.
fn read(path: &Path) -> Result<u64, CounterError> {
    let failed = |cause| CounterError::Io { path: path.to_owned(), cause };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    match file.take(MAX_LEN).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(CounterError::Damaged(path.to_owned()));
        }
        Err(error) => return Err(failed(error)),
    }
    let number = text.strip_prefix(HEADER).and_then(|rest| rest.strip_suffix('\n'));
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| CounterError::Damaged(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::crypto::{Encr, Secret};
    use crate::ipsec::{
        DfPolicy, DropReason, DscpPolicy, Encap, EspSuite, Lifetime, Mode, PacketBuf, PolicyId,
        SaParams, Spi,
    };
    use crate::wire::ike::numbers::{EncrId, EsnId, IntegId};
    use crate::wire::ip::NextHeader;

    fn suite() -> Suite {
        let encr = Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(128) };
        EspSuite { encr, integ: IntegId::NONE, esn: EsnId::NO_ESN }.into()
    }

    fn keys(fill: u8) -> ManualKeys {
        ManualKeys {
            spi: Spi::new(0x1000 + u32::from(fill)).unwrap(),
            encr_key: Secret::new(vec![fill; 20]),
            integ_key: Secret::empty(),
            sequence: 0,
        }
    }

    fn sa(sequence: u64) -> Layer {
        let addr = "192.0.2.1:0".parse().unwrap();
        let keys = keys(1);
        let params = SaParams {
            spi: keys.spi,
            other_spi: keys.spi,
            policy: PolicyId(1),
            peer: "b".into(),
            path: crate::ipsec::Path { local: addr, remote: addr, encap: Encap::Plain },
            mode: Mode::Tunnel,
            suite: suite(),
            encr_key: keys.encr_key,
            integ_key: keys.integ_key,
            ts_local: [].into(),
            ts_peer: [].into(),
            sequence,
            replay_window: 64,
            lifetime: Lifetime::default(),
            df: DfPolicy::Copy,
            dscp: DscpPolicy::Copy,
            tfc: 0,
            ah_align: 4,
            resource: None,
            around: None,
        };
        Layer::Itself(Arc::new(OutboundSa::new(params).unwrap()))
    }

    fn seal(sa: &OutboundSa) -> Result<u32, DropReason> {
        let mut packet = PacketBuf::new(100);
        assert!(packet.fill_from(b"inner packet"));
        let _limit = sa.seal(&mut packet, NextHeader::IPV4)?;
        Ok(u32::from_be_bytes(packet[4..8].try_into().unwrap()))
    }

    fn counters() -> (tempfile::TempDir, Counters) {
        let dir = tempfile::tempdir().unwrap();
        let counters = Counters::new(dir.path().join("state"));
        (dir, counters)
    }

    #[test]
    fn a_number_is_on_disk_before_it_is_used() {
        let (_dir, counters) = counters();
        let counter = counters.claim(suite(), &keys(1)).unwrap();
        assert_eq!(counter.reserved(), 0);
        let path = counter.path.clone();
        let sa = sa(0);
        let mut counted = Counted::begin(sa.clone(), counter).unwrap();
        for expected in 1..=5 {
            assert_eq!(seal(&sa), Ok(expected));
            assert!(read(&path).unwrap() >= u64::from(expected));
        }
        // Near the end of the block, and past it.
        sa.permit_up_to(7);
        counted.counter.reserve(7).unwrap();
        assert_eq!([seal(&sa), seal(&sa)], [Ok(6), Ok(7)]);
        assert_eq!(seal(&sa), Err(DropReason::SequenceExhausted));
        counted.extend().unwrap();
        assert_eq!(read(&path).unwrap(), 7 + BLOCK);
        assert_eq!(seal(&sa), Ok(8), "what was refused used no number");
        drop(counted);
        assert_eq!(read(&path).unwrap(), 8, "the rest is given back");
        assert_eq!(seal(&sa), Err(DropReason::SequenceExhausted), "after its end nothing is sent");
    }

    #[test]
    fn after_a_crash_the_block_counts_as_used() {
        let (_dir, counters) = counters();
        let counter = counters.claim(suite(), &keys(1)).unwrap();
        let counted = Counted::begin(sa(0), counter).unwrap();
        assert_eq!(seal(counted.sa()), Ok(1));
        // A process that is killed drops nothing but its locks.
        let locked = counters.claim(suite(), &keys(1));
        assert!(matches!(locked, Err(CounterError::Busy(_))), "{locked:?}");
        let path = counted.counter.path.clone();
        assert_eq!(read(&path).unwrap(), BLOCK);
    }

    #[test]
    fn numbers_end_and_no_block_reaches_beyond() {
        let (_dir, counters) = counters();
        let last = u64::from(u32::MAX);
        let counter = counters.claim(suite(), &keys(1)).unwrap();
        let counted = Counted::begin(sa(last - 2), counter).unwrap();
        assert_eq!(counted.counter.reserved(), last);
        let (a, b) = (seal(counted.sa()), seal(counted.sa()));
        assert_eq!([a, b], [Ok(u32::MAX - 1), Ok(u32::MAX)]);
        assert_eq!(seal(counted.sa()), Err(DropReason::SequenceExhausted));
        drop(counted);
        let counter = counters.claim(suite(), &keys(1)).unwrap();
        assert_eq!(counter.reserved(), last);
        let ended = Counted::begin(sa(last), counter);
        assert!(matches!(ended, Err(CounterError::Exhausted)), "{ended:?}");
    }

    #[test]
    fn a_counter_belongs_to_its_key_whatever_the_spi() {
        let (_dir, counters) = counters();
        let file = |keys: &ManualKeys| file_name(suite(), keys);
        let mut renamed = keys(1);
        renamed.spi = Spi::new(0x9999).unwrap();
        assert_eq!(file(&keys(1)), file(&renamed));
        assert_ne!(file(&keys(1)), file(&keys(2)));
        counters.claim(suite(), &keys(1)).unwrap().reserve(77).unwrap();
        assert_eq!(counters.claim(suite(), &renamed).unwrap().reserved(), 77);
        assert_eq!(counters.claim(suite(), &keys(2)).unwrap().reserved(), 0);
        let shown = file(&keys(1));
        assert!(!shown.contains("0101"), "no key in {shown}");
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let (_dir, counters) = counters();
        let path = counters.claim(suite(), &keys(1)).unwrap().path.clone();
        for text in
            ["", "12", "ipsecd sequence numbers 1\n", "ipsecd sequence numbers 1\n-1\n", "\u{ff}"]
        {
            fs::write(&path, text).unwrap();
            let found = counters.claim(suite(), &keys(1));
            assert!(matches!(found, Err(CounterError::Damaged(_))), "{text:?}: {found:?}");
        }
        fs::write(&path, [0xff; 8]).unwrap();
        assert!(matches!(counters.claim(suite(), &keys(1)), Err(CounterError::Damaged(_))));
        fs::set_permissions(&counters.dir, fs::Permissions::from_mode(0o770)).unwrap();
        let found = counters.claim(suite(), &keys(1));
        assert!(matches!(found, Err(CounterError::Io { .. })), "{found:?}");
    }
}
