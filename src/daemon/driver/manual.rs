//! SAs with manual keys: into the SAD, and out of it.

use super::*;
use crate::config::Keying;
use crate::daemon::counters::{Counted, Counters, Layer};
use crate::daemon::manual::{Installed, Pair, refused};
use crate::daemon::sockets::NATT_PORT;
use crate::ipsec::manual::{ManualKeys, ManualPeer, ManualSa, counts};
use crate::ipsec::{SaParams, Spi};

/// How often it is seen to that SAs have sequence numbers left.
pub(super) const COUNTER_INTERVAL: Duration = Duration::from_secs(1);

impl Driver {
    /// The addresses are known: installs every SA of a peer, or none.
    pub(super) async fn install_manual(&mut self, name: &Arc<str>, local: IpAddr, remote: IpAddr) {
        let now = clock::now();
        let Some(manual) = self.peers.get(name).and_then(|entry| entry.config.manual()) else {
            return;
        };
        let manual = manual.clone();
        match self.try_install(&manual, local, remote) {
            Ok((datapath, pairs)) => {
                // Now workers may use them: every counter is on disk.
                self.shared.datapath.store(Arc::new(datapath));
                if let Some(entry) = self.peers.get_mut(name) {
                    entry.phase = UpPhase::ManualSas;
                    entry.installed = Some(Installed { since: now, pairs });
                }
                for sa in &manual.sas {
                    self.tell_of(name, sa);
                }
                self.counter_check = self.counter_check.min(now + COUNTER_INTERVAL);
                self.set_mtus().await;
            }
            Err(failure) => {
                tracing::error!(peer = %name, %failure, "manual SAs not installed");
                if let Some(entry) = self.peers.get_mut(name) {
                    entry.failed(now, failure.clone(), &mut OsRandom);
                }
                self.fail_up(name, &failure);
            }
        }
        self.news = true;
        self.agenda.note(name);
    }

    fn try_install(
        &self,
        manual: &ManualPeer,
        local: IpAddr,
        remote: IpAddr,
    ) -> Result<(Datapath, Vec<Pair>), Failure> {
        let counters = Counters::new(self.options.state_dir.clone());
        let mut datapath: Datapath = (**self.shared.datapath.load()).clone();
        let mut pairs = Vec::new();
        for sa in &manual.sas {
            let port = if sa.encap == Encap::Udp { NATT_PORT } else { 0 };
            let path = Path {
                local: SocketAddr::new(local, port),
                remote: SocketAddr::new(remote, port),
                encap: sa.encap,
            };
            let failed = |cause: &dyn core::fmt::Display| refused(&manual.name, &sa.name, cause);
            let mut outbound = sa.outbound_params(&manual.name, path);
            let mut claimed = Vec::new();
            for (suite, _, keys) in sa.layers() {
                let counter = counters.claim(suite, keys).map_err(|error| failed(&error))?;
                claimed.push(counter);
            }
            if let Some(counter) = claimed.first() {
                outbound.sequence = outbound.sequence.max(counter.reserved());
            }
            if let (Some(ah), Some(counter)) = (&mut outbound.around, claimed.get(1)) {
                ah.sequence = ah.sequence.max(counter.reserved());
            }
            let inbound: SaParams = sa.inbound_params(&manual.name, path);
            let (spi, other_spi) = (outbound.spi, outbound.other_spi);
            for update in [
                SadUpdate::AddInbound(Box::new(inbound)),
                SadUpdate::AddOutbound(Box::new(outbound)),
            ] {
                datapath = self.try_apply(datapath, &update).map_err(|error| failed(&error))?;
            }
            let entry = datapath.sad().outbound(sa.policy, spi, other_spi);
            let sas = entry.into_iter().flat_map(|entry| Layer::all(&entry.sa));
            let mut counted = Vec::new();
            for (sa, counter) in sas.zip(claimed) {
                counted.push(Counted::begin(sa, counter).map_err(|error| failed(&error))?);
            }
            pairs.push(Pair { policy: sa.policy, path, counted });
        }
        Ok((datapath, pairs))
    }

    fn tell_of(&self, name: &Arc<str>, sa: &ManualSa) {
        let suites: Vec<_> = sa.layers().map(|(suite, _, _)| suite.to_string()).collect();
        let detail = format!(
            "{}: {} === {}, {}, SPIs {} {}, no rekey",
            sa.name,
            status::selectors(&sa.ts_local).join(" "),
            status::selectors(&sa.ts_peer).join(" "),
            suites.join(" + "),
            sa.inbound.spi,
            sa.outbound.spi,
        );
        tracing::warn!(
            peer = %name,
            sa = %sa.name,
            spi_inbound = %sa.inbound.spi,
            spi_outbound = %sa.outbound.spi,
            suite = suites.join("+"),
            counts = sa.layers().any(|(suite, _, _)| counts(suite)),
            "manual keys: no rekey; never use them on a copy of this host or of its state directory"
        );
        self.show(name, UpPhase::ManualSas, &detail);
    }

    /// Loading a file again does not open an SA to packets that it has received already: where SPI and keys are the
    /// same, its window goes on from where it is.
    pub(super) fn inherit_windows(&self, before: &Entry, config: &mut Config) {
        let (Some(old), Keying::Manual(new)) = (before.config.manual(), &mut config.keying) else {
            return;
        };
        let received = self.shared.datapath.load().stats().inbound;
        let old: Vec<&ManualKeys> = old.layers().map(|(_, inbound, _)| inbound).collect();
        for sa in &mut new.sas {
            let around = sa.around.iter_mut().map(|ah| &mut ah.inbound);
            for keys in core::iter::once(&mut sa.inbound).chain(around) {
                let same = |old: &&&ManualKeys| {
                    old.spi == keys.spi
                        && old.encr_key == keys.encr_key
                        && old.integ_key == keys.integ_key
                };
                let live = received.iter().find(|sa| sa.spi == keys.spi);
                if let (Some(_), Some(live)) = (old.iter().find(same), live) {
                    keys.sequence = keys.sequence.max(live.sequence);
                }
            }
        }
    }

    /// Takes the SAs of a peer with manual keys out of the SAD. Their sequence numbers are on disk then.
    pub(super) fn remove_manual(&self, entry: &mut Entry) {
        let Some(installed) = entry.installed.take() else { return };
        let mut datapath: Datapath = (**self.shared.datapath.load()).clone();
        for sa in entry.config.manual().iter().flat_map(|manual| &manual.sas) {
            for removal in [
                SadUpdate::RemoveOutbound {
                    policy: sa.policy,
                    spi: sa.outbound.spi,
                    other_spi: sa.inbound.spi,
                },
                SadUpdate::RemoveInbound(sa.inbound.spi),
            ] {
                datapath = self.apply(datapath, &removal);
            }
        }
        self.shared.datapath.store(Arc::new(datapath));
        // No worker's snapshot has them any more, or what it seals from here on is refused.
        drop(installed);
    }

    /// Whether an inbound SA with manual keys has this SPI.
    pub(super) fn has_manual(&self, spi: Spi) -> bool {
        let mut installed = self.peers.values().filter(|entry| entry.installed.is_some());
        installed.any(|entry| names(entry, spi).is_some())
    }

    /// An SA reached a limit, and there is nobody to replace it.
    pub(super) fn manual_expires(&mut self, spi: Spi, hard: bool) {
        for entry in self.peers.values_mut() {
            let Some(sa) = names(entry, spi).map(Arc::clone) else { continue };
            let peer = Arc::clone(entry.name());
            if hard {
                // Perhaps more was sent than was reserved.
                if let Some(installed) = &mut entry.installed {
                    installed.extend(&peer);
                }
                tracing::error!(%peer, %sa, "sequence numbers ran out: without new keys on both sides nothing is sent");
            } else {
                tracing::warn!(%peer, %sa, "a sixteenth of the sequence numbers is left: set new keys on both sides");
            }
        }
    }

    /// Sees to it that every SA with manual keys has sequence numbers to use.
    pub(super) fn extend_counters(&mut self, now: Instant) {
        // Who comes meanwhile brings it forward.
        self.counter_check = now + MTU_INTERVAL;
        for (name, entry) in &mut self.peers {
            if let Some(installed) = &mut entry.installed {
                installed.extend(name);
                self.counter_check = now + COUNTER_INTERVAL;
            }
        }
    }
}

/// The pair of SAs with this inbound SPI.
fn names(entry: &Entry, spi: Spi) -> Option<&Arc<str>> {
    let mut sas = entry.config.manual().into_iter().flat_map(|manual| &manual.sas);
    let found = sas.find(|sa| sa.layers().any(|(_, inbound, _)| inbound.spi == spi))?;
    Some(&found.name)
}
