//! Reading the configuration again: what is another is applied, what is not stays as it is, to the packet. A file with an
//! error, and nothing at all is applied.

use std::path::PathBuf;

use super::*;
use crate::config::{self, Diagnostics, Keying};
use crate::control::protocol::{ChangeCost, ChangeKind, KeyChange, PeerChange, Reload};
use crate::daemon::load::files_of;
use crate::ike::Cost;

/// What is to be done.
struct Plan {
    /// Peers that no file has any more.
    removed: Vec<Arc<str>>,
    /// Peers that are new, or others than they were.
    taken: Vec<Config>,
    /// Peers that only moved to another file.
    moved: Vec<(Arc<str>, PathBuf)>,
    told: Reload,
    /// The files of the daemon's directory, if it was looked through.
    of_dir: Option<Vec<PathBuf>>,
}

impl Driver {
    /// SIGHUP: what the daemon has is read again, and the log tells what came of it.
    pub(super) async fn reload_by_signal(&mut self) {
        match self.reload(&[], false).await {
            Ok(told) => {
                for peer in &told.peers {
                    let keys: Vec<_> = peer.keys.iter().map(|change| &*change.key).collect();
                    tracing::info!(
                        peer = %peer.peer,
                        change = peer.change.name(),
                        keys = keys.join(","),
                        cost = ?peer.cost,
                        "reloaded"
                    );
                }
                tracing::info!(changed = told.peers.len(), unchanged = told.unchanged, "SIGHUP");
            }
            Err(failure) => tracing::error!(%failure, "SIGHUP: nothing is changed"),
        }
    }

    /// Reads `files`, or everything that there is, again and applies what changed.
    ///
    /// # Errors
    /// What is wrong with any of the files; then nothing was changed.
    pub(super) async fn reload(
        &mut self,
        files: &[PathBuf],
        dry_run: bool,
    ) -> Result<Reload, Failure> {
        if self.ending {
            let message = "the daemon is ending".to_owned();
            return Err(Failure { code: Code::Stopped, message });
        }
        let plan = match self.plan(files) {
            Ok(plan) => plan,
            Err(failure) => {
                self.counts.reloads[1] += u64::from(!dry_run);
                return Err(failure);
            }
        };
        let mut told = Reload { dry_run, ..plan.told };
        if dry_run {
            return Ok(told);
        }
        self.counts.reloads[0] += 1;
        if let Some(of_dir) = plan.of_dir {
            self.options.files = of_dir;
        }
        for name in &plan.removed {
            tracing::info!(peer = %name, "no file has it any more");
            self.begin_removal(name);
            let message = format!("{name} was taken down while it came up");
            self.fail_up(name, &Failure { code: Code::Stopped, message });
        }
        for (name, file) in plan.moved {
            if let Some(entry) = self.peers.get_mut(&name) {
                entry.config.file = file;
            }
        }
        let is_any = !plan.removed.is_empty() || !plan.taken.is_empty();
        for config in plan.taken {
            let name = Arc::clone(config.name());
            if let Err(error) = self.take_peer(config, true).await {
                tracing::error!(peer = %name, %error, "not set up any more");
                let failure = Failure { code: Code::System, message: error.to_string() };
                let of_it = told.peers.iter_mut().find(|change| change.peer == *name);
                if let Some(change) = of_it {
                    change.error = Some(failure);
                }
            }
        }
        if is_any {
            self.publish_policies();
            self.set_mtus().await;
            self.set_log_level();
        }
        self.reread_revocation();
        Ok(told)
    }

    /// What `[log] level` of the files asks for by now.
    fn set_log_level(&self) {
        if !self.options.log_from_config {
            return;
        }
        let peers = self.peers.values().filter(|entry| entry.removal.is_none());
        let mut levels = peers.filter_map(|entry| entry.config.log_level.as_deref());
        let level = levels.next_back();
        if let Err(error) = log::change(level.unwrap_or(log::DEFAULT)) {
            tracing::warn!(%error, "the log level stays");
        }
    }

    /// Reads and compares, and changes nothing.
    fn plan(&self, files: &[PathBuf]) -> Result<Plan, Failure> {
        let wrong = |message: String| Failure { code: Code::Config, message };
        let here: Vec<&Entry> =
            self.peers.values().filter(|entry| entry.removal.is_none()).collect();
        let mut of_dir = None;
        // What is read, and whose peers go unless a file still has them.
        let mut read: BTreeSet<PathBuf> = files.iter().cloned().collect();
        let mut owned = read.clone();
        if files.is_empty() {
            owned = here.iter().map(|entry| entry.config.file.clone()).collect();
            read = owned.clone();
            if let Some(dir) = &self.options.config_dir {
                let found = files_of(dir)
                    .map_err(|error| wrong(format!("cannot read {}: {error}", dir.display())))?;
                // Of those that the directory had, one that is gone is gone on purpose.
                let had: BTreeSet<_> = self.options.files.iter().collect();
                read.retain(|file| !had.contains(file) && file.parent() != Some(dir));
                read.extend(found.iter().cloned());
                of_dir = Some(found);
            }
        }
        let configs = self.read_again(&read, &here, &owned)?;
        Ok(Plan { of_dir, ..self.compare(configs, &here, &owned) })
    }

    /// Reads files, all of them, each checked beside the others and the peers that stay.
    fn read_again(
        &self,
        files: &BTreeSet<PathBuf>,
        here: &[&Entry],
        owned: &BTreeSet<PathBuf>,
    ) -> Result<Vec<Config>, Failure> {
        let secrets = FsSecrets::new(self.options.credentials.clone());
        let mut found = Diagnostics::default();
        let mut configs = Vec::new();
        for file in files {
            match config::load(file, &secrets) {
                Ok(loaded) => {
                    found.append(loaded.warnings);
                    configs.push(loaded.config);
                }
                Err(diagnostics) => found.append(diagnostics),
            }
        }
        let names: BTreeSet<_> = configs.iter().map(Config::name).collect();
        let stays =
            |entry: &&&Entry| !owned.contains(&entry.config.file) && !names.contains(entry.name());
        let others = here.iter().filter(stays).map(|entry| &entry.config);
        let beside: Vec<&Config> = others.chain(&configs).collect();
        found.append(config::conflicts(&beside));
        if found.has_errors() {
            let text = format!("nothing is changed, since there are errors:\n{found}");
            return Err(Failure { code: Code::Config, message: text });
        }
        Ok(configs)
    }

    fn compare(&self, configs: Vec<Config>, here: &[&Entry], owned: &BTreeSet<PathBuf>) -> Plan {
        let mut plan = Plan {
            removed: Vec::new(),
            taken: Vec::new(),
            moved: Vec::new(),
            told: Reload::default(),
            of_dir: None,
        };
        let names: BTreeSet<_> = configs.iter().map(|config| Arc::clone(config.name())).collect();
        for entry in here {
            let is_left = names.contains(entry.name());
            if !is_left && owned.contains(&entry.config.file) {
                plan.removed.push(Arc::clone(entry.name()));
                let cost = match entry.config.keying {
                    Keying::Ike(_) => ChangeCost::IkeSa,
                    Keying::Manual(_) => ChangeCost::ManualSas,
                    Keying::None { .. } => ChangeCost::Nothing,
                };
                plan.told.peers.push(change(&entry.config, ChangeKind::Removed, cost));
            }
        }
        // For comparison alone: the numbers that new policies get are not taken by it.
        let mut next = self.next_policy;
        for mut config in configs {
            let before = self.peers.get(config.name()).filter(|entry| entry.removal.is_none());
            let Some(before) = before else {
                plan.told.peers.push(change(&config, ChangeKind::Added, ChangeCost::Nothing));
                plan.taken.push(config);
                continue;
            };
            Entry::number(&mut config, Some(before), &mut next);
            if before.by_hand {
                attempts::raise(&mut config);
            }
            match difference(&before.config, &config) {
                Some(change) => {
                    plan.told.peers.push(change);
                    plan.taken.push(config);
                }
                None => {
                    plan.told.unchanged += 1;
                    if before.config.file != config.file {
                        plan.moved.push((Arc::clone(config.name()), config.file));
                    }
                }
            }
        }
        plan.told.peers.sort_by(|a, b| a.peer.cmp(&b.peer));
        plan
    }
}

fn change(config: &Config, change: ChangeKind, cost: ChangeCost) -> PeerChange {
    PeerChange {
        peer: config.name().to_string(),
        file: config.file.clone(),
        change,
        keys: Vec::new(),
        cost,
        child_sas: Vec::new(),
        error: None,
    }
}

/// In what a peer is another, and what that costs; `None`: in nothing. Both have their policies numbered.
fn difference(old: &Config, new: &Config) -> Option<PeerChange> {
    let mut told = change(new, ChangeKind::Changed, ChangeCost::Nothing);
    let changes = old.written.changes_to(&new.written).into_iter();
    told.keys = changes.map(|c| KeyChange { key: c.key, old: c.old, new: c.new }).collect();
    let contents = match (old.ike(), new.ike()) {
        (Some(old), Some(new)) => {
            let cost = Cost::of(old, new);
            let concerned = cost.deleted.iter().chain(&cost.rekeyed);
            told.child_sas = concerned.map(ToString::to_string).collect();
            told.cost = if cost.ike_sa {
                ChangeCost::IkeSa
            } else if !cost.deleted.is_empty() {
                ChangeCost::ChildSas
            } else if !cost.rekeyed.is_empty() {
                ChangeCost::Rekey
            } else {
                ChangeCost::Nothing
            };
            // Of CRLs and OCSP responses the daemon takes notice by itself.
            !old.auth.is_like(&new.auth) || old.ppk != new.ppk
        }
        (None, None) => {
            let same = match (old.manual(), new.manual()) {
                (Some(old), Some(new)) => old.is_like(new),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !same {
                told.cost = ChangeCost::ManualSas;
            }
            !same
        }
        (Some(_), None) | (None, Some(_)) => {
            told.cost = ChangeCost::IkeSa;
            false
        }
    };
    if told.keys.is_empty() && contents {
        let text = "contents of a file that it names".to_owned();
        told.keys.push(KeyChange { key: "auth".to_owned(), old: None, new: Some(text) });
    }
    (!told.keys.is_empty()).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::daemon::sample::{config, ike};
    use crate::ipsec::pad::Auth;

    #[test]
    fn same_file_read_again_is_no_difference() {
        assert_eq!(difference(&config(), &config()), None);
    }

    #[test]
    fn key_in_a_file_that_is_another_is_a_difference_and_costs_the_ike_sa() {
        let mut new = config();
        ike(&mut new).auth = Auth::psk(Secret::copy_of(b"other"));
        let told = difference(&config(), &new).unwrap();
        assert_eq!(told.cost, ChangeCost::IkeSa);
        assert_eq!(told.keys[0].key, "auth");
        assert!(!format!("{told:?}").contains("other"), "{told:?}");
    }
}
