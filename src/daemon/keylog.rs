//! [`KeyLog`]: the keys of every SA in a directory, for those who debug with Wireshark or `ipsecd decrypt`.
//!
//! Off unless the command line asks for it. Whoever reads the directory reads all traffic, so it belongs to the daemon's
//! user alone, and nothing goes there by way of the log. Its files are Wireshark's tables under Wireshark's names, so that
//! it can be Wireshark's own configuration directory.

use core::cell::Cell;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path as FilePath, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::capture::keys::{SaKey, esp_sa, ikev2};
use crate::ike::keymat::IkeKeys;
use crate::ipsec::suite::IkeSuite;
use crate::ipsec::{SaParams, SadUpdate};
use crate::wire::ike::header::IkeSpi;

/// Why there is no key log.
#[derive(Debug, Error)]
pub enum KeyLogError {
    /// The system refused something.
    #[error("key log {path}: {cause}", path = path.display())]
    Io {
        /// The directory, or a file in it.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// Others could read the keys, or put something in their place.
    #[error("key log {path}: {why}", path = path.display())]
    Exposed {
        /// The directory, or a file in it.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: &'static str,
    },
}

/// Two tables that grow.
#[derive(Debug)]
pub struct KeyLog {
    dir: PathBuf,
    esp_sa: Table,
    ikev2: Table,
}

#[derive(Debug)]
struct Table {
    file: File,
    name: &'static str,
    /// Bytes in the file; `None` once nothing more is written.
    len: Cell<Option<u64>>,
}

impl KeyLog {
    /// Wireshark's name of the table of ESP SAs.
    pub const ESP_SA: &'static str = "esp_sa";
    /// Wireshark's name of the table of IKE SAs.
    pub const IKEV2: &'static str = "ikev2_decryption_table";
    /// No table grows beyond this: strangers can begin IKE SAs, each of which is a row.
    pub const MAX_LEN: u64 = 64 << 20;

    /// Opens the tables in `dir`, which is made if it is not there, and appends to those that are.
    ///
    /// # Errors
    /// Others can reach the directory or its files, or they cannot be opened.
    pub fn open(dir: &FilePath) -> Result<Self, KeyLogError> {
        let failed = |cause| KeyLogError::Io { path: dir.to_owned(), cause };
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        // By its descriptor from here on: what is checked is what is used.
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let opened = nix::fcntl::open(dir, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
        let opened = File::from(opened);
        let meta = opened.metadata().map_err(failed)?;
        check(dir, meta.uid(), meta.mode())?;
        let esp_sa = Table::open(dir, &opened, Self::ESP_SA)?;
        let ikev2 = Table::open(dir, &opened, Self::IKEV2)?;
        tracing::warn!(
            dir = %dir.display(),
            "the keys of every SA are written to disk (--keylog): whoever reads them reads all traffic"
        );
        Ok(Self { dir: dir.to_owned(), esp_sa, ikev2 })
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &FilePath {
        &self.dir
    }

    /// A change of the SAD: if an SA is made, its keys.
    pub fn sad(&self, update: &SadUpdate) {
        let (SadUpdate::AddInbound(sa) | SadUpdate::AddOutbound(sa)) = update else { return };
        self.sa(sa);
    }

    fn sa(&self, sa: &SaParams) {
        if let Some(row) = esp_sa::write(&SaKey::of_sa(sa)) {
            self.esp_sa.append(row);
        }
        if let Some(around) = &sa.around {
            self.sa(around);
        }
    }

    /// The keys of an IKE SA.
    pub fn ike(&self, spi_i: IkeSpi, spi_r: IkeSpi, suite: IkeSuite, keys: &IkeKeys) {
        self.ikev2.append(ikev2::write(&ikev2::Row {
            spi_i,
            spi_r,
            encr: suite.encr,
            integ: suite.integ,
            sk_ei: &keys.sk_ei,
            sk_er: &keys.sk_er,
            sk_ai: &keys.sk_ai,
            sk_ar: &keys.sk_ar,
        }));
    }
}

impl Table {
    fn open(dir: &FilePath, opened: &File, name: &'static str) -> Result<Self, KeyLogError> {
        let path = dir.join(name);
        let failed = |cause| KeyLogError::Io { path: path.clone(), cause };
        let flags = OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_CREAT
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = File::from(openat(opened, name, flags, mode).map_err(|e| failed(e.into()))?);
        let meta = file.metadata().map_err(failed)?;
        check(&path, meta.uid(), meta.mode())?;
        if !meta.is_file() {
            return Err(KeyLogError::Exposed { path, why: "not a file" });
        }
        Ok(Self { file, name, len: Cell::new(Some(meta.len())) })
    }

    /// Appends a row, whole or not at all as far as readers can tell. What cannot be written is no reason to end a tunnel.
    fn append(&self, row: String) {
        let Some(len) = self.len.get() else { return };
        let mut row = Zeroizing::new(row);
        row.push('\n');
        let grown = len.saturating_add(row.len() as u64);
        if grown > KeyLog::MAX_LEN {
            self.len.set(None);
            tracing::warn!(table = self.name, "the key log is full; nothing more is written");
            return;
        }
        match (&self.file).write_all(row.as_bytes()) {
            Ok(()) => self.len.set(Some(grown)),
            Err(error) => {
                self.len.set(None);
                tracing::warn!(table = self.name, %error, "the key log cannot be written any more");
            }
        }
    }
}

/// Only the user that runs the daemon may read or write it.
fn check(path: &FilePath, owner: u32, mode: u32) -> Result<(), KeyLogError> {
    let exposed = |why| Err(KeyLogError::Exposed { path: path.to_owned(), why });
    if owner != geteuid().as_raw() {
        return exposed("belongs to another user");
    }
    if mode & 0o077 != 0 {
        return exposed("others have access to it; chmod go= takes that away");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::capture::KeyRing;
    use crate::crypto::{Encr, Secret};
    use crate::ipsec::suite::{AddKe, EspSuite};
    use crate::ipsec::{DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Path, PolicyId, Spi};
    use crate::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PrfId};

    fn mode(path: &FilePath) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn keys() -> IkeKeys {
        let key = |byte, len| Secret::new(vec![byte; len]);
        IkeKeys {
            sk_d: key(1, 32),
            sk_ai: Secret::empty(),
            sk_ar: Secret::empty(),
            sk_ei: key(2, 36),
            sk_er: key(3, 36),
            sk_pi: key(4, 32),
            sk_pr: key(5, 32),
        }
    }

    fn sa_params() -> SaParams {
        let addr = "192.0.2.1:4500".parse().unwrap();
        let esn = EsnId::NO_ESN;
        SaParams {
            spi: Spi::new(0xc000_0001).unwrap(),
            other_spi: Spi::new(0xc000_0002).unwrap(),
            policy: PolicyId(1),
            peer: "site-b".into(),
            path: Path { local: addr, remote: addr, encap: Encap::Udp },
            mode: Mode::Tunnel,
            suite: EspSuite { encr: SUITE.encr, integ: IntegId::NONE, esn }.into(),
            encr_key: Secret::new(vec![7; 36]),
            integ_key: Secret::empty(),
            ts_local: [].into(),
            ts_peer: [].into(),
            sequence: 0,
            replay_window: 64,
            lifetime: Lifetime::default(),
            df: DfPolicy::Copy,
            dscp: DscpPolicy::Copy,
            tfc: 0,
            ah_align: 4,
            resource: None,
            around: None,
        }
    }

    const SUITE: IkeSuite = IkeSuite {
        encr: Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(256) },
        integ: IntegId::NONE,
        prf: PrfId::PRF_HMAC_SHA2_256,
        ke: KeId::CURVE25519,
        addke: AddKe::NONE,
    };

    #[test]
    fn keys_are_appended_for_their_owner_alone_and_read_back() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("keys");
        for _ in 0..2 {
            let log = KeyLog::open(&dir).unwrap();
            log.sad(&SadUpdate::AddInbound(Box::new(sa_params())));
            log.ike(IkeSpi(1), IkeSpi(2), SUITE, &keys());
        }
        assert_eq!(mode(&dir), 0o700);
        let mut ring = KeyRing::default();
        for name in [KeyLog::ESP_SA, KeyLog::IKEV2] {
            assert_eq!(mode(&dir.join(name)), 0o600);
            let text = fs::read_to_string(dir.join(name)).unwrap();
            assert_eq!(text.lines().count(), 2, "{text}");
            ring.append(KeyRing::read(name, &text).unwrap());
        }
        let sa = sa_params();
        assert!(ring.sas[0].spi.matches(sa.spi.get()));
        assert_eq!(ring.sas[0].encr_key, sa.encr_key);
        assert_eq!((&ring.ike[0].sk_e, &ring.ike[1].sk_e), (&keys().sk_ei, &keys().sk_er));
    }

    #[test]
    fn what_others_can_reach_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("keys");
        let refused = |dir: &FilePath| KeyLog::open(dir).unwrap_err().to_string();
        drop(KeyLog::open(&dir).unwrap());
        for bits in [0o750, 0o705, 0o711, 0o770] {
            fs::set_permissions(&dir, Permissions::from_mode(bits)).unwrap();
            assert!(refused(&dir).contains("others have access"), "{bits:o}");
        }
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        let table = dir.join(KeyLog::ESP_SA);
        fs::set_permissions(&table, Permissions::from_mode(0o640)).unwrap();
        assert!(refused(&dir).contains("esp_sa: others have access"));
        fs::remove_file(&table).unwrap();
        symlink(parent.path().join("elsewhere"), &table).unwrap();
        assert!(refused(&dir).contains("esp_sa"));
        assert!(!parent.path().join("elsewhere").exists());
        let link = parent.path().join("link");
        symlink(&dir, &link).unwrap();
        refused(&link);
        fs::write(parent.path().join("file"), "").unwrap();
        refused(&parent.path().join("file"));
        refused(&parent.path().join("missing/keys"));
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("keys");
        drop(KeyLog::open(&dir).unwrap());
        let table = dir.join(KeyLog::IKEV2);
        // A hole: it takes no room.
        File::options().write(true).open(&table).unwrap().set_len(KeyLog::MAX_LEN - 10).unwrap();
        let log = KeyLog::open(&dir).unwrap();
        log.ike(IkeSpi(1), IkeSpi(2), SUITE, &keys());
        assert_eq!(fs::metadata(&table).unwrap().len(), KeyLog::MAX_LEN - 10);
        log.sad(&SadUpdate::AddInbound(Box::new(sa_params())));
        assert!(fs::metadata(dir.join(KeyLog::ESP_SA)).unwrap().len() > 0, "the other goes on");
    }
}
