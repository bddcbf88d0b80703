//! CRLs and OCSP responses of the configured peers, read again when their files change.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::Driver;
use crate::config::Keying;
use crate::daemon::secrets::FsSecrets;
use crate::ike::Command;

/// What tells one state of a file from another: inode, size and time of the last change. `None`: it is not there.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What was there when the files of each peer were read last.
pub(super) type Stamps = BTreeMap<Arc<str>, Vec<Stamp>>;

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

impl Driver {
    /// Reads what has changed. What cannot be used is told once, and what was there before stays.
    pub(super) fn reread_revocation(&mut self) {
        let secrets = FsSecrets::new(self.options.credentials.clone());
        self.revocation.retain(|name, _| self.peers.contains_key(name));
        let mut changed = Vec::new();
        for (name, entry) in &mut self.peers {
            let stamps: Vec<_> = entry.config.revocation.all().map(stamp).collect();
            if stamps.is_empty() || self.revocation.get(name) == Some(&stamps) {
                continue;
            }
            self.revocation.insert(Arc::clone(name), stamps);
            match entry.config.with_revocation_read_again(&secrets) {
                Ok(Some(peer)) => {
                    let peer = Arc::new(peer);
                    entry.config.keying = Keying::Ike(Arc::clone(&peer));
                    changed.push(peer);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(peer = %name, %error, "what is revoked stays as it was");
                }
            }
        }
        for peer in changed {
            tracing::info!(peer = %peer.name, "CRLs and OCSP responses read again");
            self.command(Command::AddPeer(peer));
        }
    }
}
