//! Peers coming and going: loading, trying to bring them up, trying again, taking them down.

use super::*;
use crate::config::Keying;
use crate::daemon::peers::is_established;
use crate::ipsec::pad::StartPolicy;
use crate::ipsec::{Flow, PolicyId};

/// An SA that is used is told of this often: each time wakes the driver, beside the packets that are under way.
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// And so often in the time after which a silent peer is asked (`dpd`), lest one that sends is.
const ALIVES_A_DELAY: u32 = 3;

impl Driver {
    /// Makes a peer known, or takes a changed configuration for one that is: everything in the host's network first,
    /// so that no packet for it leaves in clear from here on. Returns whether it is new. The SPD is the caller's to
    /// [publish](Self::publish_policies), once for all peers. `keeps`: SAs with manual keys that are to be as they are stay;
    /// otherwise they are installed anew, where the way to the peer begins by now.
    pub(super) async fn take_peer(
        &mut self,
        mut config: Config,
        keeps: bool,
    ) -> Result<bool, DaemonError> {
        let name = Arc::clone(config.name());
        let mut before = self.peers.remove(&name);
        Entry::number(&mut config, before.as_ref(), &mut self.next_policy);
        let mut kept = false;
        if let Some(before) = &mut before {
            match (before.config.manual(), config.manual()) {
                (Some(old), Some(new)) if keeps && old.is_like(new) => kept = true,
                _ => {
                    // Their keys have one counter each, which those of the new configuration may need.
                    self.inherit_windows(before, &mut config);
                    self.remove_manual(before);
                }
            }
        }
        let attached = self.network.attach(&config, &self.workers).await;
        let routes = attached.inspect_err(|_| {
            // A peer that was there before and cannot be set up any more is gone.
            if let Some(before) = &mut before {
                self.remove_manual(before);
            }
            if before.as_ref().is_some_and(|before| before.config.ike().is_some()) {
                let gone = Command::RemovePeer { peer: Arc::clone(&name) };
                let _unknown = self.endpoint.handle_command(clock::now(), gone);
            }
        })?;
        if self.options.log_from_config
            && let Some(level) = &config.log_level
        {
            log::change(level)?;
        }
        let by_hand = before.as_ref().is_some_and(|before| before.by_hand);
        if by_hand {
            raise(&mut config);
        }
        let mut entry = Entry::new(config);
        entry.by_hand = by_hand;
        entry.routes = routes;
        entry.failures = before.as_ref().map_or(0, |before| before.failures);
        let was_ike = before.as_ref().is_some_and(|before| before.config.ike().is_some());
        let command = match entry.config.shared_ike() {
            Some(peer) => Some(Command::AddPeer(Arc::clone(peer))),
            None => was_ike.then(|| Command::RemovePeer { peer: Arc::clone(&name) }),
        };
        if let Some(before) = before.as_mut().filter(|_| kept) {
            entry.installed = before.installed.take();
        }
        let wants_up = entry.wants_up() && entry.installed.is_none();
        self.peers.insert(Arc::clone(&name), entry);
        self.had_peer = true;
        self.agenda.note(&name);
        if let Some(command) = command {
            self.command(command);
        }
        tracing::info!(peer = %name, "peer loaded");
        if wants_up {
            self.begin_attempt(&name);
        }
        Ok(before.is_none())
    }

    /// Shows the workers the TUNs, the SPD and the options that the peers make.
    pub(super) fn publish_policies(&mut self) {
        self.network.publish(&self.workers);
        let spd = spd::of(self.peers.values());
        self.shared.names.store(Arc::new(Names::of(self.peers.values())));
        let clamp_mss = self.peers.values().all(|entry| entry.config.interface.clamp_mss);
        let delays = self.peers.values().filter_map(|entry| entry.config.ike()?.ike.dpd_delay);
        let alive_interval = delays
            .min()
            .map_or(ALIVE_INTERVAL, |shortest| (shortest / ALIVES_A_DELAY).min(ALIVE_INTERVAL));
        let options = DatapathOptions { clamp_mss, alive_interval, ..DatapathOptions::default() };
        let datapath = self.shared.datapath.load().with_spd(spd).with_options(options);
        self.shared.datapath.store(Arc::new(datapath));
    }

    /// Begins to bring a peer up: its address comes first.
    pub(super) fn begin_attempt(&mut self, name: &Arc<str>) {
        let Some(entry) = self.peers.get_mut(name) else { return };
        if entry.resolving || entry.removal.is_some() {
            return;
        }
        entry.retry_at = None;
        entry.resolving = true;
        entry.phase = UpPhase::Resolve;
        entry.tries = 0;
        let address = entry.config.address().clone();
        let peer = Arc::clone(name);
        let internal = self.internal.clone();
        tokio::spawn(async move {
            let found = resolve::addresses(&address).await;
            let _ended = internal.send(Internal::Resolved { peer, found }).await;
        });
    }

    /// The address is known, or not: IKE begins, or SAs with manual keys are installed.
    pub(super) async fn addresses_found(
        &mut self,
        name: &Arc<str>,
        found: io::Result<Vec<IpAddr>>,
    ) {
        let now = clock::now();
        self.agenda.note(name);
        let Some(entry) = self.peers.get_mut(name) else { return };
        entry.resolving = false;
        if entry.removal.is_some() {
            return;
        }
        let remote = match found {
            Ok(found) => entry.choose_address(&found).ok_or_else(|| {
                advice::of_resolve(
                    entry.config.address(),
                    &"no address of the IP version of [local] address",
                )
            }),
            Err(error) => Err(advice::of_resolve(entry.config.address(), &error)),
        };
        let config = &entry.config;
        let path = remote.and_then(|remote| {
            let local = config.local_addr();
            let (local, _) = host::route_to(local, remote).map_err(|error| match local {
                Some(local) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    advice::of_foreign_address(name, local)
                }
                Some(_) | None => advice::of_no_route(name, remote, &error),
            })?;
            if local == remote {
                return Err(advice::of_own_address(name, remote));
            }
            Ok(Path {
                local: SocketAddr::new(local, IKE_PORT),
                remote: SocketAddr::new(remote, IKE_PORT),
                encap: Encap::Plain,
            })
        });
        let is_ike = config.ike().is_some();
        match path {
            Ok(path) => {
                let detail = format!("{} -> {}", path.local.ip(), path.remote.ip());
                self.show(name, UpPhase::Resolve, &detail);
                if is_ike {
                    let acquire = self.peers.get_mut(name).and_then(|entry| entry.acquire.take());
                    let unnamed = self.peers.get(name).is_some_and(Entry::is_unnamed);
                    let peer = Arc::clone(name);
                    self.command(match acquire {
                        Some((policy, flow)) => Command::Acquire { policy, flow, path },
                        None if unnamed => Command::InitiateUnnamed { peer, path },
                        None => Command::Initiate { peer, path },
                    });
                } else {
                    self.install_manual(name, path.local.ip(), path.remote.ip()).await;
                }
            }
            Err(failure) => {
                tracing::warn!(peer = %name, %failure, "attempt failed");
                entry.failed(now, failure, &mut OsRandom);
                self.abandon(name, None);
            }
        }
    }

    /// Somebody waits for a peer that does not answer: whether its host, or a router, says why. IKE's own sockets, which serve all
    /// peers, do not hear of that.
    pub(super) fn look_into_silence(&self, peer: &Arc<str>) {
        let remote = self.peers.get(peer).and_then(|entry| entry.addresses.last());
        let Some(remote) = remote.filter(|_| self.ups.iter().any(|up| up.waits_for(peer))) else {
            return;
        };
        let local = self.peers.get(peer).and_then(|entry| entry.config.local_addr());
        let unspecified: IpAddr = if remote.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        // With many that are silent it is said of the first ones.
        let Ok(place) = Arc::clone(&self.probes).try_acquire_owned() else { return };
        let (peer, internal) = (Arc::clone(peer), self.internal.clone());
        tokio::task::spawn_blocking(move || {
            let _place = place;
            // RFC 3948 §2.3: one byte of this kind means nothing; to IKE it is too short for a message.
            let (local, port) = (local.unwrap_or(unspecified), SocketAddr::new(remote, IKE_PORT));
            if let Ok(Some(kind)) = probe::refusal(local, port, &[0xff], ICMP_WAIT) {
                let _ended = internal.blocking_send(Internal::Heard { peer, remote, kind });
            }
        });
    }

    /// A packet asks for an SA.
    pub(super) fn acquire(&mut self, policy: PolicyId, flow: Flow) {
        let names = self.shared.names.load();
        let peer = names.get(policy).and_then(|(peer, _)| self.peers.get(peer));
        let Some(entry) = peer.filter(|entry| entry.on_traffic(policy)) else { return };
        let name = Arc::clone(entry.name());
        drop(names);
        let sas = self.sas_of(&name);
        if sas.iter().any(is_established) {
            // Under the IKE SA there is, unless it is being made already.
            let notice = Notice::Acquire { policy, flow };
            self.endpoint.handle_notice(clock::now(), notice);
        } else if !entry.is_busy(&sas) {
            tracing::info!(peer = %name, src = %flow.src, dst = %flow.dst, "traffic asks for an SA");
            if let Some(entry) = self.peers.get_mut(&name) {
                entry.acquire = Some((policy, flow));
            }
            self.begin_attempt(&name);
        }
    }

    /// No SA came of it: packets that wait for those of a peer (or for one of them) are dropped.
    pub(super) fn abandon(&self, name: &Arc<str>, only: Option<&str>) {
        let Some(entry) = self.peers.get(name) else { return };
        let now = clock::now();
        let mut failed = (**self.shared.failed.load()).clone();
        for policy in entry.config.policies() {
            if only.is_none_or(|only| **policy.name == *only) {
                failed.insert(policy.id, now);
            }
        }
        self.shared.failed.store(Arc::new(failed));
        self.workers.wake();
    }

    /// Addresses or routes have changed: what may move goes to where the way to its peer begins by now (RFC 4555).
    pub(super) fn look_at_addresses(&mut self, now: Instant) {
        for sa in self.endpoint.status(now).into_iter().filter(|sa| sa.mobike) {
            let config = self.peers.get(&sa.peer).map(|entry| &entry.config);
            if config.is_none_or(|config| config.local_addr().is_some()) {
                continue;
            }
            match udp::route_to(sa.path.remote.ip()) {
                Ok((local, _)) if local != sa.path.local.ip() => {
                    self.command(Command::Move { spi_i: sa.spi_i, spi_r: sa.spi_r, local });
                }
                Ok(_) => {}
                // There may be a way again.
                Err(error) => tracing::debug!(peer = %sa.peer, %error, "no way to the peer"),
            }
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        if let Err(error) = self.endpoint.handle_command(clock::now(), command) {
            tracing::warn!(%error, "command not taken");
        }
    }

    /// Begins to take a peer down: DELETE is sent.
    pub(super) fn begin_removal(&mut self, name: &Arc<str>) {
        let now = clock::now();
        let Some(entry) = self.peers.get_mut(name) else { return };
        if entry.removal.is_none() {
            entry.removal = Some(now + GOODBYE);
            entry.retry_at = None;
            self.news = true;
            self.agenda.note(name);
            if entry.config.ike().is_some() {
                self.command(Command::RemovePeer { peer: Arc::clone(name) });
            }
        }
    }

    /// The SAs of these peers are gone, or nobody answered: takes away all the rest. What looks at every peer that there is, is done
    /// once for all that leave together.
    pub(super) async fn finish_removals(&mut self, names: &[Arc<str>]) {
        let mut policies = BTreeSet::new();
        for name in names {
            let Some(mut entry) = self.peers.remove(name) else { continue };
            self.remove_manual(&mut entry);
            self.network.detach(name, &self.workers).await;
            policies.extend(entry.config.policies().iter().map(|policy| policy.id));
            tracing::info!(peer = %name, "peer removed");
        }
        let mut datapath: Datapath = (**self.shared.datapath.load()).clone();
        let removals = removals(&datapath, &policies);
        for removal in &removals {
            datapath = self.apply(datapath, removal);
        }
        self.shared.datapath.store(Arc::new(datapath));
        self.publish_policies();
        let mut failed = (**self.shared.failed.load()).clone();
        failed.retain(|policy, _| !policies.contains(policy));
        self.shared.failed.store(Arc::new(failed));
    }

    /// Peers that are to be tried again, and peers that leave, of those of which there is news.
    pub(super) async fn look_at_peers(&mut self, now: Instant) {
        let names = self.agenda.take(now, self.peers.keys());
        let mut gone = Vec::new();
        let mut due = Vec::new();
        for name in &names {
            let sas = self.telling_sas_of(name);
            let Some(entry) = self.peers.get_mut(name) else { continue };
            if let Some(deadline) = entry.removal {
                if sas.is_empty() || deadline <= now {
                    gone.push(Arc::clone(name));
                }
            } else if entry.is_up(&sas) {
                entry.succeeded();
            } else if entry.retry_at.is_some_and(|at| at <= now) {
                due.push(Arc::clone(name));
            } else if entry.wants_up() && sas.is_empty() && !entry.is_busy(&sas) {
                // Whatever ended it.
                entry.plan(now, &mut OsRandom);
            }
        }
        for name in due {
            self.begin_attempt(&name);
        }
        if !gone.is_empty() {
            self.finish_removals(&gone).await;
        }
        for name in &names {
            let due = self.peers.get(name).map(|entry| [entry.retry_at, entry.removal]);
            self.agenda.set(name, due.into_iter().flatten().flatten().min());
        }
    }
}

/// How long an ICMP error is waited for: a router asks for three seconds who has an address before it says that nobody does.
const ICMP_WAIT: Duration = Duration::from_secs(4);

/// Has CHILD_SAs that wait for the operator's hand begin as those of the start do; whether there are any.
pub(super) fn raise(config: &mut Config) -> bool {
    let Keying::Ike(peer) = &mut config.keying else { return false };
    let any = peer.children.iter().any(|child| child.start == StartPolicy::ByHand);
    if any {
        for child in &mut Arc::make_mut(peer).children {
            if child.start == StartPolicy::ByHand {
                child.start = StartPolicy::Now;
            }
        }
    }
    any
}

/// What takes the SAs of these policies out of the SAD.
fn removals(datapath: &Datapath, policies: &BTreeSet<PolicyId>) -> Vec<SadUpdate> {
    let sad = datapath.sad();
    let inbound = sad.all_inbound().map(|entry| entry.sa.params());
    let outbound = sad.all_outbound().map(|entry| entry.sa.params());
    let inbound = inbound.filter(|sa| policies.contains(&sa.policy));
    let outbound = outbound.filter(|sa| policies.contains(&sa.policy));
    let inbound = inbound.map(|sa| SadUpdate::RemoveInbound(sa.spi));
    let outbound = outbound.map(|sa| SadUpdate::RemoveOutbound {
        policy: sa.policy,
        spi: sa.spi,
        other_spi: sa.other_spi,
    });
    inbound.chain(outbound).collect()
}
