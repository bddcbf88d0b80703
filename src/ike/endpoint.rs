//! [`Endpoint`]: every IKE SA of this host. Finds the IKE SA that a message is for, guards the door, keeps the timers.

mod door;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::door::Door;
use super::event::{CloseReason, Command, CommandError, Event, SaStatus, TimerKind, Transmit};
use super::ike_sa::{Ctx, IkeSa, SaId, State, Task, Wanted};
use super::ike_sas::IkeSas;
use super::lease::Leases;
use super::limits;
use super::peers::{self, Fate, Peers};
use super::policy::Policy;
use super::stats::Stats;
use crate::crypto::{Secret, SecureRandom};
use crate::ipsec::pad::{ChildPolicy, Peer, StartPolicy};
use crate::ipsec::{Flow, Notice, Path, PolicyId, Spi};
use crate::wire::Reader;
use crate::wire::ike::header::Header;
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{ExchangeType, NotifyType};

/// Limits of an [`Endpoint`] that hold for all peers.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Half-open IKE SAs as responder from which on a COOKIE is asked for (RFC 7296 §2.6).
    pub cookie_threshold: usize,
    /// Whether [`Event::IkeKeys`] tells the keys of every IKE SA: for a key log that the operator asked for.
    pub export_keys: bool,
    /// The last Message ID of an IKE SA, which is rekeyed some time before (RFC 7296 §2.2). Only a test wants another than the
    /// last that 32 bits can hold.
    pub last_message_id: u32,
    /// What our tokens are made with (RFC 6290): 32 random bytes that outlive the process, and that no other endpoint has. Without
    /// it there are none; those of peers are taken all the same.
    pub qcd_secret: Option<Secret>,
    /// How many workers share the datapath, at least one: inbound SPIs are dealt out to them in turn ([`Worker::has`]).
    ///
    /// [`Worker::has`]: crate::ipsec::Worker::has
    pub workers: u16,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            cookie_threshold: limits::COOKIE_THRESHOLD,
            export_keys: false,
            last_message_id: u32::MAX,
            qcd_secret: None,
            workers: 1,
        }
    }
}

/// What an [`Endpoint`] takes from its surroundings.
pub struct Env {
    /// Randomness for keys, nonces, SPIs and jitter.
    pub rng: Box<dyn SecureRandom>,
    /// The date, for certificates alone.
    pub wall_clock: Arc<dyn WallClock>,
}

/// A clock that knows the date.
pub trait WallClock: Send + Sync {
    /// Time since the beginning of 1970, UTC.
    fn since_1970(&self) -> Duration;
}

/// Every IKE SA of this host.
///
/// After any `handle_*`, drain `poll_transmit` and `poll_event` until `None`, then read `poll_timeout`, before the next
/// `handle_*`. Calling `handle_timeout` early is harmless.
pub struct Endpoint {
    config: EndpointConfig,
    rng: Box<dyn SecureRandom>,
    wall_clock: Arc<dyn WallClock>,
    peers: Peers,
    sas: IkeSas,
    /// The deadline of each IKE SA that has one, twice: to find the first, and to find an SA's.
    deadlines: BTreeSet<(Instant, TimerKind, SaId)>,
    deadline_of: BTreeMap<SaId, (Instant, TimerKind)>,
    door: Door,
    /// Fragments that wait: until when and how many bytes, of each IKE SA that has some.
    fragments_of: BTreeMap<SaId, (Instant, usize)>,
    /// The same by time, and the bytes of all.
    fragments_by_time: BTreeSet<(Instant, SaId)>,
    fragment_bytes: usize,
    spis: BTreeMap<Spi, SaId>,
    /// The worker whose turn it is to get the next of them.
    next_worker: u16,
    leases: Leases,
    stats: Stats,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Endpoint {
    /// An endpoint without peers.
    #[must_use]
    pub fn new(config: EndpointConfig, env: Env) -> Self {
        Self {
            config,
            rng: env.rng,
            wall_clock: env.wall_clock,
            peers: Peers::default(),
            sas: IkeSas::default(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            door: Door::default(),
            fragments_of: BTreeMap::new(),
            fragments_by_time: BTreeSet::new(),
            fragment_bytes: 0,
            spis: BTreeMap::new(),
            next_worker: 0,
            leases: Leases::default(),
            stats: Stats::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    // What comes in.

    /// `datagram` is the IKE message, without non-ESP marker.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        if datagram.len() > limits::MAX_MESSAGE {
            return;
        }
        let Ok(header) = Header::parse(&mut Reader::new("IKE header", datagram)) else { return };
        if usize::try_from(header.length) != Ok(datagram.len()) {
            return;
        }
        if header.major > Header::MAJOR {
            let notify = NotifyType::INVALID_MAJOR_VERSION;
            self.answer_error(now, path, &header, datagram.len(), notify, &[]);
            return;
        }
        if header.major < Header::MAJOR {
            return;
        }
        let is_init = header.exchange == ExchangeType::IKE_SA_INIT;
        if is_init && !header.flags.response {
            self.handle_init_request(now, path, &header, datagram);
            return;
        }
        // RFC 7296 §3.1: the flag says whose of the two SPIs is ours.
        let local = if header.flags.initiator { header.spi_r } else { header.spi_i };
        if !self.sas.contains_key(&local.0) {
            self.handle_stranger(now, path, &header, datagram);
            return;
        }
        self.with(now, local.0, |sa, ctx| {
            if is_init {
                if let Ok(message) = Message::parse(datagram) {
                    sa.handle_init_response(ctx, path, &message, datagram);
                }
            } else {
                sa.handle(ctx, path, &header, datagram);
            }
        });
    }

    /// What the datapath noticed.
    pub fn handle_notice(&mut self, now: Instant, notice: Notice) {
        match notice {
            Notice::Acquire { policy, flow } => {
                let _no_policy = self.acquire(now, policy, flow, None);
            }
            Notice::Expire { spi, hard } => self.with_child(now, spi, |sa, ctx| {
                if hard {
                    sa.expire_child(ctx, spi);
                } else {
                    sa.queue(Task::RekeyChild(spi));
                }
                sa.next_task(ctx);
            }),
            Notice::NoSa { spi, path } => self.no_sa(now, spi, path),
            Notice::PeerMoved { spi, path } => self.with_child(now, spi, |sa, ctx| {
                // RFC 7296 §2.23: who is not behind a NAT itself follows one that is.
                if sa.is_established() && sa.nat.peer && !sa.nat.local {
                    let encap = sa.path.encap;
                    sa.move_to(ctx, Path { encap, ..path });
                }
            }),
            Notice::Mismatch { spi, start } => self.with_child(now, spi, |sa, ctx| {
                sa.complain(ctx, spi, start);
            }),
            Notice::Alive { spi } => self.with_child(now, spi, |sa, ctx| {
                sa.last_heard = ctx.now;
                // RFC 7296 §2.8: the peer sends on it, so it may be sent on.
                sa.activate(ctx, |child| child.spi_inbound == spi);
                sa.next_task(ctx);
            }),
        }
    }

    /// A packet asks for an SA by `policy`. Without a path nothing but what is there is used.
    fn acquire(
        &mut self,
        now: Instant,
        policy: PolicyId,
        flow: Flow,
        path: Option<Path>,
    ) -> Result<(), CommandError> {
        let wanted = self.peers.of_policy(policy).and_then(|peer| {
            let child = peer.children.iter().find(|child| child.policy == policy)?;
            Some((Arc::clone(&peer.name), Arc::clone(&child.name)))
        });
        let (peer, child) = wanted.ok_or(CommandError::NoSuchPolicy(policy))?;
        let wanted = Wanted { child, flow };
        if let Some(id) = self.established_with(&peer) {
            self.with(now, id, |sa, ctx| {
                sa.acquire(wanted);
                sa.next_task(ctx);
            });
            return Ok(());
        }
        match path {
            Some(path) => self.begin(now, &peer, path, Some(wanted), true),
            None => Ok(()),
        }
    }

    /// What the operator wants.
    ///
    /// # Errors
    /// [`CommandError`] when it cannot be begun.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), CommandError> {
        match command {
            Command::AddPeer(peer) => {
                self.add_peer(now, peer);
                Ok(())
            }
            Command::RemovePeer { peer } => {
                self.known(&peer)?;
                self.terminate(now, &peer);
                if let Some(peer) = self.peers.remove(&peer) {
                    self.leases.ours.remove(&peer.name);
                    self.door.forget(&peer);
                }
                Ok(())
            }
            Command::Terminate { peer } => {
                self.known(&peer)?;
                self.terminate(now, &peer);
                Ok(())
            }
            Command::TerminateAll => {
                let peers: Vec<_> = self.peers.names().cloned().collect();
                for peer in peers {
                    self.terminate(now, &peer);
                }
                Ok(())
            }
            Command::Acquire { policy, flow, path } => self.acquire(now, policy, flow, Some(path)),
            Command::Initiate { peer, path } => self.initiate(now, &peer, path, true),
            Command::InitiateUnnamed { peer, path } => self.initiate(now, &peer, path, false),
            Command::Forsake { peer } => {
                self.known(&peer)?;
                let ids: Vec<_> = self.sas.of_peer(&peer).map(|sa| sa.id).collect();
                for id in ids {
                    self.with(now, id, IkeSa::forsake);
                }
                Ok(())
            }
            Command::Move { spi_i, spi_r, local } => {
                for id in [spi_i.0, spi_r.0] {
                    self.with(now, id, |sa, ctx| {
                        if (sa.spi_i, sa.spi_r) == (spi_i, spi_r) {
                            sa.relocate(ctx, local);
                        }
                    });
                }
                Ok(())
            }
            Command::RekeyIke { peer } => self.task_for(now, &peer, |_| vec![Task::RekeyIke]),
            Command::RekeyChildren { peer } => self.task_for(now, &peer, |sa| {
                sa.children
                    .iter()
                    .filter(|child| child.state == super::child_sa::ChildState::Installed)
                    .map(|child| Task::RekeyChild(child.spi_inbound))
                    .collect()
            }),
        }
    }

    /// A peer is new, or another than before; then what was made for the old one goes, as far as it may not stay.
    fn add_peer(&mut self, now: Instant, peer: Arc<Peer>) {
        let name = Arc::clone(&peer.name);
        self.door.know(&peer);
        let Some(before) = self.peers.insert(&peer) else { return };
        self.door.forget(&before);
        if !peers::may_keep_ike_sa(&before, &peer) {
            self.terminate(now, &name);
            return;
        }
        let ids: Vec<_> = self.sas.of_peer(&name).map(|sa| sa.id).collect();
        for id in ids {
            self.with(now, id, |sa, ctx| {
                sa.peer = Some(Arc::clone(&peer));
                if before.ike.dpd_delay != peer.ike.dpd_delay {
                    sa.spread_liveness(ctx);
                }
                let mut outdated = Vec::new();
                let mut rekeyed = Vec::new();
                for child in &mut sa.children {
                    let at = match peers::fate(&child.policy, &peer) {
                        Fate::Keep(at) => at,
                        Fate::Rekey(at) => {
                            rekeyed.push(Task::RekeyChild(child.spi_inbound));
                            at
                        }
                        Fate::Delete => {
                            outdated.push(child.spi_inbound);
                            continue;
                        }
                    };
                    if let Some(policy) = Policy::at(&peer, at) {
                        child.policy = policy;
                    }
                }
                if !outdated.is_empty() {
                    sa.queue(Task::DeleteChildren(outdated));
                }
                for task in rekeyed {
                    sa.queue(task);
                }
                sa.next_task(ctx);
            });
        }
    }

    fn known(&self, peer: &Arc<str>) -> Result<Arc<Peer>, CommandError> {
        self.peers.get(peer).cloned().ok_or_else(|| CommandError::NoSuchPeer(Arc::clone(peer)))
    }

    fn initiate(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        path: Path,
        names_peer: bool,
    ) -> Result<(), CommandError> {
        let peer = self.known(name)?;
        if let Some(id) = self.established_with(name) {
            self.with(now, id, |sa, ctx| {
                let is_from_the_start = |child: &&ChildPolicy| child.start == StartPolicy::Now;
                let some = peer.children.iter().any(|child| is_from_the_start(&child));
                // What is begun without any such is begun with the first, as in IKE_AUTH.
                let first = peer.children.first().filter(|_| !some);
                for child in peer.children.iter().filter(is_from_the_start).chain(first) {
                    if !sa.has_child(&child.name) {
                        sa.queue(Task::CreateChild(Arc::clone(&child.name)));
                    }
                }
                sa.next_task(ctx);
            });
            return Ok(());
        }
        self.begin(now, name, path, None, names_peer)
    }

    /// Begins an IKE SA, unless one is being made.
    fn begin(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        path: Path,
        wanted: Option<Wanted>,
        names_peer: bool,
    ) -> Result<(), CommandError> {
        let peer = self.known(name)?;
        let mut connecting = false;
        let mut stale = Vec::new();
        let ids: Vec<_> = self.sas.of_peer(name).map(|sa| sa.id).collect();
        for id in ids {
            let Some(sa) = self.sas.get_mut(&id) else { continue };
            match &mut sa.state {
                State::InitSent(_) | State::IntermediateSent(_) => connecting = true,
                // One of a peer that was removed ends by itself: it has the selectors and keys of that time.
                State::AuthSent(sent)
                    if sa.peer.as_ref().is_some_and(|of_then| Arc::ptr_eq(of_then, &peer)) =>
                {
                    sent.unwanted = false;
                    connecting = true;
                }
                State::AuthSent(_) => stale.push(sa.id),
                State::InitAnswered(_)
                | State::Established
                | State::Replaced
                | State::Deleting
                | State::Closed(_) => {}
            }
        }
        // Should its IKE_AUTH arrive after that of the new one, the responder would take the old one for the newer.
        for id in stale {
            self.with(now, id, |sa, ctx| sa.requests.hush(ctx.now + limits::STALE_AUTH));
        }
        if connecting {
            return Ok(());
        }
        if self.sas.len() >= limits::MAX_IKE_SAS {
            return Err(CommandError::Limit("too many IKE_SAs"));
        }
        let mut touched = Vec::new();
        let mut ctx = self.context(now, &mut touched);
        let mut sa = IkeSa::initiate(&mut ctx, peer, path, wanted)
            .ok_or(CommandError::Limit("no key exchange group of the proposals is supported"))?;
        sa.names_peer = names_peer;
        let id = sa.id;
        self.sas.insert(id, sa);
        self.settle(now, id);
        Ok(())
    }

    fn task_for(
        &mut self,
        now: Instant,
        peer: &Arc<str>,
        tasks: impl FnOnce(&IkeSa) -> Vec<Task>,
    ) -> Result<(), CommandError> {
        self.known(peer)?;
        let id = self
            .established_with(peer)
            .ok_or_else(|| CommandError::NotEstablished(Arc::clone(peer)))?;
        self.with(now, id, |sa, ctx| {
            for task in tasks(sa) {
                sa.queue(task);
            }
            sa.next_task(ctx);
        });
        Ok(())
    }

    fn terminate(&mut self, now: Instant, peer: &Arc<str>) {
        let ids: Vec<_> = self.sas.of_peer(peer).map(|sa| sa.id).collect();
        for id in ids {
            self.with(now, id, |sa, ctx| match &mut sa.state {
                // Not known to the daemon; what it may become is deleted with the one that it may replace.
                State::Established if sa.established.is_none() => {}
                State::Established => sa.terminate(ctx, CloseReason::Operator),
                State::InitSent(_) | State::IntermediateSent(_) => {
                    sa.close(ctx, CloseReason::Operator);
                }
                State::AuthSent(sent) => sent.unwanted = true,
                State::InitAnswered(_) | State::Replaced | State::Deleting | State::Closed(_) => {}
            });
        }
    }

    /// The established IKE SA with a peer; of several, the newest.
    fn established_with(&self, peer: &Arc<str>) -> Option<SaId> {
        self.sas
            .of_peer(peer)
            .filter(|sa| sa.is_established() && sa.established.is_some())
            .max_by_key(|sa| (sa.established, sa.id))
            .map(|sa| sa.id)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.door.rotate(now, &mut *self.rng);
        let due: Vec<SaId> = self
            .deadlines
            .iter()
            .take_while(|(at, _, _)| *at <= now)
            .map(|(_, _, id)| *id)
            .collect();
        for id in due {
            self.with(now, id, |sa, ctx| sa.handle_timeout(ctx));
        }
    }

    // What goes out.

    fn send(&mut self, path: Path, payload: Vec<u8>) {
        self.transmits.push_back(Transmit { path, payload, keepalive: false });
    }

    /// The next datagram to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` wants to be called, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        self.deadlines.first().map(|(at, kind, _)| (*at, *kind))
    }

    /// The IKE SAs of a peer.
    #[must_use]
    pub fn status_of(&self, peer: &Arc<str>, now: Instant) -> Vec<SaStatus> {
        let mut all: Vec<_> = self.sas.of_peer(peer).filter_map(|sa| sa.status(now)).collect();
        all.sort_by_key(|sa| (sa.spi_i, sa.spi_r));
        all
    }

    /// The IKE SAs of a peer, by number: for who does not look at all of them, since a peer may have very many.
    pub fn sas_with(&self, peer: &Arc<str>, now: Instant) -> impl Iterator<Item = SaStatus> {
        self.sas.of_peer(peer).filter_map(move |sa| sa.status(now))
    }

    /// Whether an IKE SA with a peer is there, or an attempt of ours goes on, so that the end of another is no failure.
    #[must_use]
    pub fn goes_on_with(&self, peer: &Arc<str>) -> bool {
        self.sas.goes_on_with(peer)
    }

    /// Every IKE SA, sorted by peer, for status.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<SaStatus> {
        let mut all: Vec<_> = self.sas.values().filter_map(|sa| sa.status(now)).collect();
        all.sort_by(|a, b| (&a.peer, a.spi_i, a.spi_r).cmp(&(&b.peer, b.spi_i, b.spi_r)));
        all
    }

    /// What it has done since it was made.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// How many IKE SAs there are as responder whose initiator is not authenticated.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.door.half_open.len()
    }

    /// How many inbound SPIs are taken: those of CHILD_SAs, and those offered for one.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn spis_taken(&self) -> usize {
        self.spis.len()
    }

    /// How many addresses of our pools are in use, and how many are kept for who had them.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn leases(&self) -> (usize, usize) {
        self.leases.count()
    }

    // Inside.

    fn with_child(&mut self, now: Instant, spi: Spi, f: impl FnOnce(&mut IkeSa, &mut Ctx<'_>)) {
        if let Some(id) = self.spis.get(&spi).copied() {
            self.with(now, id, f);
        }
    }

    /// Lets `f` work on one IKE SA, and puts everything in order afterwards.
    fn with(&mut self, now: Instant, id: SaId, f: impl FnOnce(&mut IkeSa, &mut Ctx<'_>)) {
        let Some(mut sa) = self.sas.remove(&id) else { return };
        let mut touched = vec![id];
        let mut ctx = self.context(now, &mut touched);
        // Every line that is logged about it says so.
        let span = tracing::info_span!(
            "ike_sa",
            peer = sa.peer.as_ref().map(|peer| &*peer.name),
            spi_i = %sa.spi_i,
            spi_r = %sa.spi_r,
        );
        span.in_scope(|| f(&mut sa, &mut ctx));
        self.sas.insert(id, sa);
        for id in touched {
            self.settle(now, id);
        }
    }

    fn context<'a>(&'a mut self, now: Instant, touched: &'a mut Vec<SaId>) -> Ctx<'a> {
        Ctx {
            now,
            rng: &mut *self.rng,
            wall_clock: &*self.wall_clock,
            transmits: &mut self.transmits,
            events: &mut self.events,
            spis: &mut self.spis,
            workers: self.config.workers,
            next_worker: &mut self.next_worker,
            others: &mut self.sas,
            peers: &self.peers,
            leases: &mut self.leases,
            stats: &mut self.stats,
            last_message_id: self.config.last_message_id,
            touched,
            export_keys: self.config.export_keys,
            qcd_secret: self.config.qcd_secret.as_ref(),
        }
    }

    /// Notes what an IKE SA has of fragments that wait. When there is too much of all, the oldest go.
    fn note_fragments(&mut self, id: SaId, fragments: Option<(Instant, usize)>) {
        if let Some((until, bytes)) = self.fragments_of.remove(&id) {
            self.fragments_by_time.remove(&(until, id));
            self.fragment_bytes -= bytes;
        }
        if let Some((until, bytes)) = fragments {
            self.fragments_of.insert(id, (until, bytes));
            self.fragments_by_time.insert((until, id));
            self.fragment_bytes += bytes;
        }
        while self.fragment_bytes > limits::MAX_REASSEMBLY
            && let Some((until, oldest)) = self.fragments_by_time.pop_first()
        {
            let noted = self.fragments_of.remove(&oldest);
            debug_assert!(noted.is_some_and(|(at, _)| at == until), "noted in both or neither");
            self.fragment_bytes -= noted.map_or(0, |(_, bytes)| bytes);
            if let Some(sa) = self.sas.get_mut(&oldest) {
                sa.fragmentation.drop_held();
            }
        }
    }

    /// Notes the deadline of an IKE SA, or drops what is over.
    fn settle(&mut self, now: Instant, id: SaId) {
        let Some(sa) = self.sas.get(&id) else { return };
        if sa.established.is_some() {
            self.door.half_open.authenticated(id);
        }
        let over = matches!(sa.state, State::Closed(until) if until <= now);
        let fragments = sa.fragmentation.deadline().filter(|_| !over);
        let fragments = fragments.map(|until| (until, sa.fragmentation.held()));
        let next = if over { None } else { sa.deadline() };
        if let Some((at, kind)) = self.deadline_of.remove(&id) {
            self.deadlines.remove(&(at, kind, id));
        }
        if let Some((at, kind)) = next {
            self.deadlines.insert((at, kind, id));
            self.deadline_of.insert(id, (at, kind));
        }
        self.note_fragments(id, fragments);
        if over {
            self.sas.remove(&id);
            self.door.half_open.remove(id);
        }
    }
}
