//! What the endpoint has to say: SADB changes, messages to send, news of SAs.

use super::*;
use crate::ike::{CloseReason, Phase};
use crate::ipsec::sad::SadError;

impl Driver {
    /// Takes out everything that the endpoint has: events first, since the peer may use an SA as soon as it has our
    /// message.
    pub(super) async fn drain(&mut self, now: Instant) {
        self.drain_events(now).await;
        self.outgoing.extend(core::iter::from_fn(|| self.endpoint.poll_transmit()));
        self.shared.sockets.send_ike(&self.outgoing);
        self.outgoing.clear();
        self.outgoing.shrink_to(HANDLED_AT_ONCE);
    }

    /// Takes out the events alone. What is to be sent waits, in its order.
    pub(super) async fn drain_events(&mut self, now: Instant) {
        let mut datapath = None;
        let mut has_outbound = false;
        let mut configured = BTreeMap::new();
        while let Some(event) = self.endpoint.poll_event() {
            self.news = true;
            if let Some(peer) = peer_of(&event) {
                self.agenda.note(peer);
            }
            if let Event::Configured { peer, configuration } = event {
                configured.insert(peer, configuration);
            } else if let Event::Sad(update) = event {
                has_outbound |= matches!(update, SadUpdate::AddOutbound(_));
                let current: Datapath =
                    datapath.take().unwrap_or_else(|| (**self.shared.datapath.load()).clone());
                let before = self.is_as_fits(&current, &update);
                let next = self.apply(current, &update);
                self.mtus_changed |= !(before && self.is_as_fits(&next, &update));
                datapath = Some(next);
            } else {
                self.hear_event(now, event);
            }
        }
        // Before the packets that may wait for an SA.
        for (peer, configuration) in configured {
            self.network.configure(&peer, configuration).await;
        }
        if let Some(datapath) = datapath {
            self.shared.datapath.store(Arc::new(datapath));
            if has_outbound {
                self.workers.wake_waiting();
            }
            // With very many peers that is put off, so that it does not grow with each.
            if self.mtus_changed && self.next_look <= now {
                self.set_mtus().await;
            }
        }
    }

    /// Whether the MTUs of TUNs and routes are right with the SA that an update is about, as far as a snapshot has it.
    fn is_as_fits(&self, datapath: &Datapath, update: &SadUpdate) -> bool {
        let of = |policy, spi, other_spi| datapath.sad().outbound(policy, spi, other_spi);
        let (entry, stays) = match update {
            SadUpdate::AddInbound(_) | SadUpdate::RemoveInbound(_) => return true,
            SadUpdate::AddOutbound(sa) => (of(sa.policy, sa.spi, sa.other_spi), true),
            SadUpdate::RemoveOutbound { policy, spi, other_spi } => {
                (of(*policy, *spi, *other_spi), false)
            }
            SadUpdate::MovePath { spi, .. } => {
                let inbound = datapath.sad().inbound(*spi).map(|entry| entry.sa.params());
                (inbound.and_then(|sa| of(sa.policy, sa.other_spi, sa.spi)), true)
            }
        };
        entry.is_none_or(|entry| {
            let mtu = u16::try_from(entry.mtu).unwrap_or(u16::MAX);
            self.network.is_as_fits(&entry.sa.params().peer, mtu, stays)
        })
    }

    pub(super) fn apply(&self, datapath: Datapath, update: &SadUpdate) -> Datapath {
        match self.try_apply(datapath.clone(), update) {
            Ok(changed) => changed,
            Err(error) => {
                tracing::error!(%error, ?update, "the SAD refused an update");
                datapath
            }
        }
    }

    pub(super) fn try_apply(
        &self,
        datapath: Datapath,
        update: &SadUpdate,
    ) -> Result<Datapath, SadError> {
        if let Some(keylog) = &self.keylog {
            keylog.sad(update);
        }
        let mut datapath = datapath;
        if let SadUpdate::AddOutbound(sa) = update {
            datapath = self.with_path_mtu(datapath, sa.path);
        }
        if let SadUpdate::MovePath { path, .. } = update {
            datapath = self.with_path_mtu(datapath, *path);
        }
        datapath.apply(update)
    }

    fn with_path_mtu(&self, datapath: Datapath, path: Path) -> Datapath {
        match self.path_mtus.borrow_mut().read(path.local.ip(), path.remote.ip()) {
            Ok(mtu) => datapath.with_path_mtu(path.remote.ip(), Some(usize::from(mtu))),
            Err(error) => {
                tracing::debug!(%error, remote = %path.remote, "path MTU not known");
                datapath
            }
        }
    }

    fn hear_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Progress { peer, phase } => {
                if let Some(entry) = self.peers.get_mut(&peer) {
                    let is_silent = matches!(phase, Phase::Retransmit { tries: 2 })
                        && entry.phase == UpPhase::IkeSaInit;
                    let detail = entry.advance(phase);
                    let phase = entry.phase;
                    let elsewhere = entry.should_ask_elsewhere();
                    if let Some(detail) = detail.filter(|_| !elsewhere) {
                        tracing::debug!(%peer, phase = phase.name(), detail);
                        self.show(&peer, phase, &detail);
                    }
                    if is_silent {
                        self.look_into_silence(&peer);
                    }
                    if elsewhere {
                        self.command(Command::Forsake { peer });
                    }
                }
            }
            Event::AuthenticationFailed { peer, path, spi_i, spi_r, reason } => {
                self.counts.authentication_failures += 1;
                if let Some(audit) = &self.shared.audit {
                    audit.authentication_failed(peer.as_ref(), &path, (spi_i, spi_r), &reason);
                }
            }
            Event::IkeSaEstablished { peer, status, rekeyed_from } => {
                let counts = &mut self.counts;
                let count = if rekeyed_from.is_some() {
                    &mut counts.rekeys
                } else {
                    &mut counts.established
                };
                count[0] += 1;
                tracing::debug!(
                    %peer,
                    role = if status.initiator { "initiator" } else { "responder" },
                    spi_i = %status.spi_i,
                    spi_r = %status.spi_r,
                    local_id = %status.local_id,
                    peer_id = status.peer_id.as_ref().map(tracing::field::display),
                    local = %status.path.local,
                    remote = %status.path.remote,
                    suite = status.suite.as_ref().map(tracing::field::display),
                    rekeyed = rekeyed_from.is_some(),
                    "IKE_SA established"
                );
                let suite = status.suite.map(|suite| suite.to_string()).unwrap_or_default();
                self.show(&peer, UpPhase::IkeAuth, &format!("IKE_SA established, {suite}"));
            }
            Event::IkeSaClosed { peer, reason } => {
                tracing::debug!(%peer, %reason, "IKE_SA closed");
                self.counts.dpd_timeouts += u64::from(reason.is_silence());
                let Some(entry) = self.peers.get_mut(&peer) else { return };
                let Some((failure, fatal)) = judge(entry, &reason) else { return };
                if self.endpoint.goes_on_with(&peer) {
                    return;
                }
                if reason == CloseReason::AuthenticationRefused && entry.ask_unnamed(now, &failure)
                {
                    let detail = "refused; once more without naming the peer, to see why";
                    self.show(&peer, UpPhase::IkeAuth, detail);
                    return;
                }
                let (failure, fatal) = entry.told(failure, fatal);
                entry.lost(&reason);
                entry.failed(now, failure.clone(), &mut OsRandom);
                self.abandon(&peer, None);
                if fatal {
                    self.fail_up(&peer, &failure);
                }
            }
            // Whoever waits for it looks again, as after every event.
            Event::IkeSaDeleted { peer } => tracing::trace!(%peer, "DELETE answered"),
            Event::ChildSaEstablished { peer, child, rekeyed } => {
                let counts = &mut self.counts;
                let count = if rekeyed { &mut counts.rekeys } else { &mut counts.established };
                count[1] += 1;
                tracing::debug!(
                    %peer,
                    child = %child.name,
                    spi_inbound = %child.spi_inbound,
                    spi_outbound = %child.spi_outbound,
                    suite = %child.suite,
                    ts_local = status::selectors(&child.ts_local).join(","),
                    ts_peer = status::selectors(&child.ts_peer).join(","),
                    encap = ?child.path.encap,
                    rekeyed,
                    "CHILD_SA established"
                );
                let detail = format!(
                    "{}: {} === {}, {}, SPIs {} {}",
                    child.name,
                    status::selectors(&child.ts_local).join(" "),
                    status::selectors(&child.ts_peer).join(" "),
                    child.suite,
                    child.spi_inbound,
                    child.spi_outbound,
                );
                self.show(&peer, UpPhase::ChildSa, &detail);
            }
            Event::ChildSaClosed { peer, child, spi, beside, by_peer } => {
                tracing::debug!(%peer, %child, %spi, beside, by_peer, "CHILD_SA closed");
                if beside {
                    return;
                }
                // If it is not replaced, it is asked for again.
                if let Some(entry) = self.peers.get_mut(&peer) {
                    if by_peer {
                        entry.lost(&CloseReason::DeletedByPeer);
                    }
                    entry.plan(now, &mut OsRandom);
                }
            }
            Event::ChildSaFailed { peer, child, reason } => {
                tracing::warn!(%peer, %child, %reason, "CHILD_SA failed");
                let Some(entry) = self.peers.get_mut(&peer) else { return };
                let Some((failure, fatal)) = judge_child(entry, &child, &reason) else { return };
                entry.failed(now, failure.clone(), &mut OsRandom);
                self.abandon(&peer, Some(&child));
                if fatal {
                    self.fail_up(&peer, &failure);
                }
            }
            Event::RekeyRefused { peer, child, reason } => {
                let child = child.as_deref();
                self.counts.rekeys_refused[usize::from(child.is_some())] += 1;
                tracing::warn!(%peer, child, %reason, "rekey refused");
                let Some(entry) = self.peers.get(&peer) else { return };
                let judged = match child {
                    Some(child) => judge_child(entry, child, &reason),
                    None => judge(entry, &reason),
                };
                let Some((failure, _)) = judged else { return };
                self.fail_rekey(&peer, child, &failure);
            }
            Event::IkeKeys { spi_i, spi_r, suite, keys } => {
                if let Some(keylog) = &self.keylog {
                    keylog.ike(spi_i, spi_r, suite, &keys);
                }
            }
            Event::Configured { .. } | Event::Sad(_) => {}
        }
    }

    /// A path to every peer that an SA leads to. What is known of others is forgotten.
    pub(super) fn paths(&self) -> Vec<Path> {
        let datapath = self.shared.datapath.load().without_idle_paths();
        let all = datapath.sad().all_outbound();
        let paths: BTreeMap<_, _> = all.map(|it| (it.path.remote.ip(), it.path)).collect();
        self.shared.datapath.store(Arc::new(datapath));
        paths.into_values().collect()
    }

    /// Reads the MTUs of some paths again, and sets what follows from them.
    pub(super) async fn read_path_mtus(&mut self, paths: &[Path]) {
        let mut datapath: Datapath = (**self.shared.datapath.load()).clone();
        let of = |datapath: &Datapath, path: &Path| datapath.sad().path_mtu(path.remote.ip());
        let mut changed = false;
        for path in paths {
            let before = of(&datapath, path);
            datapath = self.with_path_mtu(datapath, *path);
            changed |= of(&datapath, path) != before;
        }
        if changed {
            self.shared.datapath.store(Arc::new(datapath));
            self.set_mtus().await;
        }
    }

    /// Sets the MTUs of TUNs and routes to what fits.
    pub(super) async fn set_mtus(&mut self) {
        self.mtus_changed = false;
        let mut fits: BTreeMap<Arc<str>, u16> = BTreeMap::new();
        for entry in self.shared.datapath.load().sad().all_outbound() {
            let mtu = u16::try_from(entry.mtu).unwrap_or(u16::MAX);
            let peer = Arc::clone(&entry.sa.params().peer);
            fits.entry(peer).and_modify(|least| *least = mtu.min(*least)).or_insert(mtu);
        }
        self.network.set_mtus(&fits).await;
    }
}

/// Whose event it is.
const fn peer_of(event: &Event) -> Option<&Arc<str>> {
    match event {
        Event::Progress { peer, .. }
        | Event::IkeSaEstablished { peer, .. }
        | Event::IkeSaClosed { peer, .. }
        | Event::Configured { peer, .. }
        | Event::IkeSaDeleted { peer }
        | Event::ChildSaEstablished { peer, .. }
        | Event::ChildSaClosed { peer, .. }
        | Event::ChildSaFailed { peer, .. }
        | Event::RekeyRefused { peer, .. } => Some(peer),
        Event::AuthenticationFailed { peer, .. } => peer.as_ref(),
        Event::Sad(SadUpdate::AddInbound(sa) | SadUpdate::AddOutbound(sa)) => Some(&sa.peer),
        Event::Sad(
            SadUpdate::MovePath { .. }
            | SadUpdate::RemoveInbound(_)
            | SadUpdate::RemoveOutbound { .. },
        )
        | Event::IkeKeys { .. } => None,
    }
}
