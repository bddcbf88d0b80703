//! What clients ask for.

use super::*;
use crate::control::protocol::Target;
use crate::io::{route, rule};
use crate::ipsec::{Mode, TrafficSelector};

impl Driver {
    pub(super) async fn hear_client(&mut self, incoming: Incoming) {
        let Incoming { ask, reply } = incoming;
        match ask {
            Ask::Up { files, timeout_ms, keep } => {
                self.up(files, Duration::from_millis(timeout_ms), keep, reply).await;
            }
            Ask::Down { target } => self.down(&target, reply),
            Ask::Status { peer } => answer(&reply, self.status(peer.as_deref())),
            Ask::Reload { files, dry_run } => {
                let body = match self.reload(&files, dry_run).await {
                    Ok(told) => Body::Reload(Box::new(told)),
                    Err(failure) => Body::Error(failure),
                };
                answer(&reply, body);
            }
            Ask::Services { peer } => answer(&reply, self.services(peer.as_deref())),
            Ask::Explain(question) => self.explain(question, reply),
            Ask::Capture(wanted) => self.capture(wanted, reply),
            Ask::Trace { filter, count } => self.trace(&filter, count, reply),
            Ask::Rekey { peer, ike } => self.rekey(peer.as_str().into(), ike, reply),
            Ask::Shutdown => {
                self.farewell.push((reply, Body::Done));
                self.end();
            }
        }
    }

    async fn up(&mut self, files: Vec<PathBuf>, timeout: Duration, keep: bool, reply: jobs::Reply) {
        if self.ending {
            answer(&reply, error(Code::Stopped, "the daemon is ending".to_owned()));
            return;
        }
        // Whether or not one comes of it: a daemon that was started for this ends if there is none.
        self.had_peer = true;
        let configs = match self.load_all(&files) {
            Ok(configs) => configs,
            Err(cause) => {
                let farewell = self.options.exit_when_empty && self.peers.is_empty();
                self.reply(farewell, reply, error(Code::Config, cause.to_string()));
                return;
            }
        };
        let now = clock::now();
        self.next_job += 1;
        let id = self.next_job;
        let deadline = now + timeout.min(LONGEST_UP);
        let mut job = jobs::Up::new(id, reply.clone(), now, deadline, keep);
        for mut config in configs {
            let name = Arc::clone(config.name());
            // This is the operator's hand.
            let by_hand = attempts::raise(&mut config);
            let mut peer = jobs::UpPeer { name, new: false, result: None, leaving: false };
            match self.take_peer(config, false).await {
                Ok(new) => {
                    peer.new = new;
                    if let Some(entry) = self.peers.get_mut(&peer.name) {
                        entry.by_hand |= by_hand;
                    }
                }
                Err(cause) => {
                    let failure = Failure { code: Code::System, message: cause.to_string() };
                    peer.end(UpState::Failed, Some(failure));
                }
            }
            job.add(peer);
        }
        // Once for all of them: it looks at every policy that there is.
        self.publish_policies();
        if let Err(error) = self.network.settle().await {
            tracing::warn!(%error, "what an earlier daemon left may still be there");
        }
        self.ups.push(job);
        let internal = self.internal.clone();
        tokio::spawn(async move {
            reply.closed().await;
            let _ended = internal.send(Internal::ClientGone(id)).await;
        });
    }

    /// A client that does not wait any more has changed its mind.
    pub(super) fn client_gone(&mut self, id: u64) {
        let Some(at) = self.ups.iter().position(|job| job.id == id) else { return };
        let job = self.ups.remove(at);
        for peer in job.peers() {
            if peer.result.is_none() && peer.new && !job.keep {
                tracing::info!(peer = %peer.name, "up was interrupted");
                self.begin_removal(&peer.name);
            }
        }
    }

    /// Shows a step to whom it concerns.
    pub(super) fn show(&self, peer: &Arc<str>, phase: UpPhase, detail: &str) {
        for job in &self.ups {
            job.show(peer, phase, detail);
        }
    }

    /// Ends the waiting of every `up` for a peer, with a failure.
    pub(super) fn fail_up(&mut self, name: &Arc<str>, failure: &Failure) {
        let mut leaving = false;
        for job in &mut self.ups {
            let keep = job.keep;
            job.change(name, |peer| {
                peer.end(UpState::Failed, Some(failure.clone()));
                peer.leaving = peer.new && !keep;
                leaving |= peer.leaving;
            });
        }
        if leaving {
            self.begin_removal(name);
        }
    }

    fn down(&mut self, target: &Target, reply: jobs::Reply) {
        let wanted = |entry: &&Entry| match target {
            Target::All => true,
            Target::File(file) => entry.config.file == *file,
            Target::Name(name) => **entry.name() == **name,
        };
        let names: Vec<_> =
            self.peers.values().filter(wanted).map(|entry| Arc::clone(entry.name())).collect();
        if names.is_empty() && *target != Target::All {
            let what = match target {
                Target::All => String::new(),
                Target::File(file) => format!("no peer was loaded from {}", file.display()),
                Target::Name(name) => format!("no peer is named {name}"),
            };
            answer(&reply, error(Code::NotFound, what));
            return;
        }
        for name in &names {
            self.begin_removal(name);
            let failure = Failure {
                code: Code::Stopped,
                message: format!("{name} was taken down while it came up"),
            };
            self.fail_up(name, &failure);
        }
        self.downs.push(jobs::Down { reply, peers: names });
    }

    fn rekey(&mut self, peer: Arc<str>, ike: bool, reply: jobs::Reply) {
        if self.peers.get(&peer).is_some_and(|entry| entry.config.ike().is_none()) {
            let fixed = self.peers.get(&peer).is_some_and(|it| !it.config.fixed().is_empty());
            let text = if fixed {
                format!("{peer} has policies that need no SA")
            } else {
                format!("{peer} has manual keys: set new ones in both sides' files")
            };
            answer(&reply, error(Code::NotEstablished, text));
            return;
        }
        let old = jobs::Old::of(&self.sas_of(&peer), ike);
        let command = if ike {
            Command::RekeyIke { peer: Arc::clone(&peer) }
        } else {
            Command::RekeyChildren { peer: Arc::clone(&peer) }
        };
        let now = clock::now();
        match self.endpoint.handle_command(now, command) {
            Ok(()) if old.is_empty() => {
                let text = format!("{peer} has no established CHILD_SA");
                answer(&reply, error(Code::NotEstablished, text));
            }
            Ok(()) => {
                let deadline = now + REKEY_PATIENCE;
                self.rekeys.push(jobs::Rekey { reply, peer, old, deadline });
            }
            Err(cause) => {
                let code = match cause {
                    CommandError::NoSuchPeer(_) | CommandError::NoSuchPolicy(_) => Code::NotFound,
                    CommandError::NotEstablished(_) => Code::NotEstablished,
                    CommandError::Limit(_) => Code::System,
                };
                answer(&reply, error(code, cause.to_string()));
            }
        }
    }

    /// The peer refused a replacement: of this child, or of the IKE SA.
    pub(super) fn fail_rekey(&mut self, peer: &Arc<str>, child: Option<&str>, failure: &Failure) {
        self.rekeys.retain(|job| {
            let concerned = job.peer == *peer && job.old.has(child);
            if concerned {
                answer(&job.reply, Body::Error(failure.clone()));
            }
            !concerned
        });
    }

    fn status(&self, only: Option<&str>) -> Body {
        let now = clock::now();
        let stats = self.shared.datapath.load().stats();
        let sas = self.sas(now);
        let counters = status::Counters::of(&stats);
        let (mut peers, mut policies) = (Vec::new(), Vec::new());
        for (name, entry) in &self.peers {
            if only.is_none_or(|only| only == &**name) {
                policies.extend(status::policies(entry));
                if !entry.config.fixed().is_empty() {
                    continue;
                }
                let mtu = self.network.mtu(&entry.config.interface.name);
                peers.push(status::of_peer(entry, of_peer(&sas, name), &counters, mtu, now));
            }
        }
        match only {
            Some(name) if peers.is_empty() && policies.is_empty() => {
                error(Code::NotFound, format!("no peer is named {name}"))
            }
            _ => {
                let uptime = now.saturating_duration_since(self.started);
                let mut status = status::of_daemon(peers, uptime, &stats, &self.shared);
                status.policies = policies;
                status.offload = status::of_offload(&self.shared);
                status.workers = self.options.workers;
                status.keylog = self.keylog.as_ref().map(|log| log.dir().to_owned());
                Body::Status(Box::new(status))
            }
        }
    }

    /// Answers whoever has waited long enough, or for what there is now.
    pub(super) fn look_at_jobs(&mut self, now: Instant) {
        self.look_at_ups(now);
        let farewell = self.ending || (self.options.exit_when_empty && self.peers.is_empty());
        for at in (0..self.ups.len()).rev() {
            if self.ups[at].is_over() {
                let job = self.ups.remove(at);
                let body = job.answer();
                self.reply(farewell, job.reply, body);
            }
        }
        for at in (0..self.downs.len()).rev() {
            if !self.downs[at].peers.iter().any(|name| self.peers.contains_key(name)) {
                let job = self.downs.remove(at);
                let peers = job.peers.iter().map(ToString::to_string).collect();
                self.reply(farewell, job.reply, Body::Down { peers });
            }
        }
        let sas: Vec<_> = self.rekeys.iter().map(|job| self.sas_of(&job.peer)).collect();
        let mut sas = sas.iter();
        self.rekeys.retain(|job| {
            if job.old.are_replaced(sas.next().into_iter().flatten()) {
                answer(&job.reply, Body::Done);
            } else if job.deadline <= now {
                let seconds = REKEY_PATIENCE.as_secs();
                let text = format!(
                    "{} has replaced nothing in {seconds} s: it does not answer, or puts us off; see the log",
                    job.peer
                );
                answer(&job.reply, error(Code::Timeout, text));
            } else {
                return !job.reply.is_closed();
            }
            false
        });
    }

    fn look_at_ups(&mut self, now: Instant) {
        let mut failures = Vec::new();
        let mut steps = Vec::new();
        let sas = if self.ups.is_empty() { Vec::new() } else { self.sas(now) };
        for job in &mut self.ups {
            let (id, deadline, waited) = (job.id, job.deadline, job.waited(now));
            for peer in job.peers_mut() {
                if peer.leaving {
                    peer.leaving = self.peers.contains_key(&peer.name);
                }
                if peer.result.is_some() {
                    continue;
                }
                let Some(entry) = self.peers.get(&peer.name) else {
                    let message = format!("{} was taken down while it came up", peer.name);
                    peer.end(UpState::Failed, Some(Failure { code: Code::Stopped, message }));
                    continue;
                };
                let state = if entry.is_up(of_peer(&sas, &peer.name)) {
                    UpState::Up
                } else if !entry.wants_up() && entry.removal.is_none() {
                    UpState::Waiting
                } else if deadline <= now {
                    failures.push((Arc::clone(&peer.name), entry.timeout(waited)));
                    continue;
                } else {
                    continue;
                };
                let mtu = self.network.mtu(&entry.config.interface.name);
                let detail = routes_of(entry, mtu.unwrap_or_default());
                steps.push((id, Arc::clone(&peer.name), detail, state));
            }
        }
        for (id, name, detail, state) in steps {
            for job in self.ups.iter_mut().filter(|job| job.id == id) {
                job.show(&name, UpPhase::Routes, &detail);
                job.change(&name, |peer| peer.end(state, None));
            }
        }
        for (name, failure) in failures {
            self.fail_up(&name, &failure);
        }
    }

    /// Answers at once, or once everything is torn down.
    fn reply(&mut self, farewell: bool, reply: jobs::Reply, body: Body) {
        if farewell {
            self.farewell.push((reply, body));
        } else {
            answer(&reply, body);
        }
    }
}

/// The IKE SAs of a peer, of all of them in the order of their peers.
fn of_peer<'a>(sas: &'a [SaStatus], peer: &str) -> &'a [SaStatus] {
    let from = sas.partition_point(|sa| &*sa.peer < peer);
    let to = sas.partition_point(|sa| &*sa.peer <= peer);
    &sas[from..to]
}

/// What to say of a peer's routes.
fn routes_of(entry: &Entry, mtu: u16) -> String {
    if !entry.config.fixed().is_empty() {
        return entry.config.summary();
    }
    if entry.routes.is_empty() {
        return "none set".to_owned();
    }
    let routes: Vec<_> = entry.routes.iter().map(ToString::to_string).collect();
    let interface = &entry.config.interface.name;
    let mut text = format!("{} via {interface}, mtu {mtu}", routes.join(" "));
    let mut policies = entry.config.policies().into_iter();
    let tunnel = policies.any(|policy| policy.mode == Mode::Tunnel);
    for (v6, switch) in [(false, "net.ipv4.ip_forward"), (true, "net.ipv6.conf.all.forwarding")] {
        let concerned = tunnel && entry.routes.iter().any(|net| net.addr().is_ipv6() == v6);
        if concerned && route::forwards(v6) == Some(false) {
            text.push_str(&format!("; {switch} is 0: only this host itself reaches the peer"));
        }
    }
    let mut policies = entry.config.policies().into_iter();
    let whole = |ts: &TrafficSelector| ts.protocol == 0 && ts.start_addr.is_ipv4();
    let captures = policies.any(|policy| {
        policy.mode == Mode::Transport
            && [policy.ts_local, policy.ts_peer].concat().iter().all(whole)
    });
    if captures && rule::strict_rp_filter() {
        text.push_str(
            "; rp_filter is 1: it drops the ARP of a peer on the same link, and 2 does not",
        );
    }
    text
}

fn error(code: Code, message: String) -> Body {
    Body::Error(Failure { code, message })
}

/// A client that does not read, or has left, gets no answer.
fn answer(reply: &jobs::Reply, body: Body) {
    if let Err(error) = reply.try_send(body) {
        tracing::debug!(%error, "a client did not wait for its answer");
    }
}
