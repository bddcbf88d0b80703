//! [`Endpoint`]: every IKE SA of this host. Finds the IKE SA that a message is for, guards the door, keeps the timers.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::cookie::CookieJar;
use super::event::{CloseReason, Command, CommandError, Event, SaStatus, TimerKind, Transmit};
use super::ike_sa::{Ctx, IkeSa, SaId, State, Task, Wanted};
use super::limits;
use super::peers;
use super::rules;
use crate::crypto::SecureRandom;
use crate::ipsec::pad::{ChildPolicy, Peer, StartPolicy};
use crate::ipsec::{Flow, Notice, Path, PolicyId, Spi};
use crate::wire::Reader;
use crate::wire::ike::header::{Flags, Header, IkeSpi};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{ExchangeType, NotifyType, PayloadType};
use crate::wire::ike::payload::{Notify, Payload};

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
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            cookie_threshold: limits::COOKIE_THRESHOLD,
            export_keys: false,
            last_message_id: u32::MAX,
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
    peers: BTreeMap<Arc<str>, Arc<Peer>>,
    sas: BTreeMap<SaId, IkeSa>,
    /// The deadline of each IKE SA that has one, twice: to find the first, and to find an SA's.
    deadlines: BTreeSet<(Instant, TimerKind, SaId)>,
    deadline_of: BTreeMap<SaId, (Instant, TimerKind)>,
    /// Half-open IKE SAs as responder: by initiator's SPI and address, for retransmissions of IKE_SA_INIT.
    half_open: BTreeMap<(IkeSpi, SocketAddr), SaId>,
    half_open_of: BTreeMap<SaId, (IkeSpi, SocketAddr)>,
    /// The same of those that IKE_AUTH has come for, while they last.
    begun: BTreeMap<(IkeSpi, SocketAddr), SaId>,
    begun_of: BTreeMap<SaId, (IkeSpi, SocketAddr)>,
    half_open_by_address: BTreeMap<IpAddr, usize>,
    spis: BTreeMap<Spi, SaId>,
    jar: Option<CookieJar>,
    answers: RateLimit,
    hints: RateLimit,
    strays: RateLimit,
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
            peers: BTreeMap::new(),
            sas: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            half_open: BTreeMap::new(),
            half_open_of: BTreeMap::new(),
            begun: BTreeMap::new(),
            begun_of: BTreeMap::new(),
            half_open_by_address: BTreeMap::new(),
            spis: BTreeMap::new(),
            jar: None,
            answers: RateLimit::default(),
            hints: RateLimit::default(),
            strays: RateLimit::default(),
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
            self.answer_unprotected(now, path, &header, NotifyType::INVALID_MAJOR_VERSION, &[]);
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

    /// RFC 7296 §2.6: a request for a new IKE SA, from who knows whom.
    fn handle_init_request(&mut self, now: Instant, path: Path, header: &Header, datagram: &[u8]) {
        let in_form = header.spi_i.0 != 0
            && header.spi_r.0 == 0
            && header.message_id == 0
            && header.flags.initiator;
        if !in_form {
            return;
        }
        if let Some(id) = self.half_open.get(&(header.spi_i, path.remote)) {
            if let Some(again) = self.sas.get(id).and_then(|sa| sa.init_response_to(datagram)) {
                self.transmits.push_back(Transmit { path, payload: again, keepalive: false });
            }
            return;
        }
        // RFC 7296 §2.1: of an IKE SA for which IKE_AUTH has come, it is ignored.
        if self.begun.contains_key(&(header.spi_i, path.remote)) {
            return;
        }
        let Ok(message) = Message::parse(datagram) else {
            self.answer_unprotected(now, path, header, NotifyType::INVALID_SYNTAX, &[]);
            return;
        };
        match rules::check(ExchangeType::IKE_SA_INIT, false, &message.payloads) {
            Ok(()) => {}
            Err(rules::Violation::Critical(payload_type)) => {
                self.answer_unprotected(
                    now,
                    path,
                    header,
                    NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD,
                    &[payload_type.0],
                );
                return;
            }
            Err(violation) => {
                debug!(?violation, remote = %path.remote, "IKE_SA_INIT refused");
                self.answer_unprotected(now, path, header, NotifyType::INVALID_SYNTAX, &[]);
                return;
            }
        }
        let from_there = self.half_open_by_address.get(&path.remote.ip()).copied().unwrap_or(0);
        if self.half_open.len() >= limits::MAX_HALF_OPEN
            || from_there >= limits::MAX_HALF_OPEN_PER_ADDRESS
            || self.sas.len() >= limits::MAX_IKE_SAS
        {
            return;
        }
        if self.half_open.len() >= self.config.cookie_threshold
            && !self.cookie_is_good(now, path, header, &message)
        {
            return;
        }
        let mut touched = Vec::new();
        let mut ctx = self.context(now, &mut touched);
        match IkeSa::answer_init(&mut ctx, path, &message, datagram) {
            Ok(sa) => {
                self.half_open.insert((header.spi_i, path.remote), sa.id);
                self.half_open_of.insert(sa.id, (header.spi_i, path.remote));
                *self.half_open_by_address.entry(path.remote.ip()).or_default() += 1;
                let id = sa.id;
                self.sas.insert(id, sa);
                self.settle(now, id);
            }
            Err(refusal) => {
                if self.answers.allows(now, limits::UNPROTECTED_ANSWERS_PER_SECOND) {
                    self.transmits.push_back(Transmit { path, payload: refusal, keepalive: false });
                }
            }
        }
    }

    /// Whether the request brings a COOKIE of ours; if not, it is asked for one.
    fn cookie_is_good(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        message: &Message,
    ) -> bool {
        let jar = self.jar.get_or_insert_with(|| CookieJar::new(now, &mut *self.rng));
        jar.rotate(now, &mut *self.rng);
        let mut nonce: &[u8] = &[];
        let mut cookie = None;
        for payload in &message.payloads {
            if let Payload::Nonce(found) = payload {
                nonce = &found.data;
            } else if let Payload::Notify(notify) = payload
                && notify.notify_type == NotifyType::COOKIE
            {
                cookie = Some(&notify.data);
            }
        }
        if cookie.is_some_and(|cookie| jar.is_ours(cookie, nonce, path.remote, header.spi_i)) {
            return true;
        }
        let payload = Notify::new(NotifyType::COOKIE, jar.bake(nonce, path.remote, header.spi_i));
        let header = Header::new(
            header.spi_i,
            IkeSpi(0),
            ExchangeType::IKE_SA_INIT,
            Flags::new(false, true),
            0,
        );
        let payload = Message { header, payloads: vec![Payload::Notify(payload)] }.emit();
        self.transmits.push_back(Transmit { path, payload, keepalive: false });
        false
    }

    /// A message for an IKE SA that we do not have (RFC 7296 §1.5).
    fn handle_stranger(&mut self, now: Instant, path: Path, header: &Header, datagram: &[u8]) {
        if header.flags.response {
            return;
        }
        // Unprotected INVALID_SPI, which must not be answered: a hint for the SA that it names.
        if header.exchange == ExchangeType::INFORMATIONAL
            && header.next_payload == PayloadType::NOTIFY
            && let Ok(message) = Message::parse(datagram)
            && let Some(spi) = message.payloads.iter().find_map(invalid_spi)
        {
            if self.strays.allows(now, limits::UNPROTECTED_ANSWERS_PER_SECOND) {
                self.hint_of_lost_child(now, path, spi);
            }
            return;
        }
        self.answer_unprotected(now, path, header, NotifyType::INVALID_IKE_SPI, &[]);
    }

    fn hint_of_lost_child(&mut self, now: Instant, path: Path, spi: &[u8]) {
        let named = self.sas.values().find(|sa| {
            sa.path.remote.ip() == path.remote.ip()
                && sa.children.iter().any(|child| child.spi_outbound.to_be_bytes() == spi)
        });
        if let Some(id) = named.map(|sa| sa.id) {
            self.with(now, id, |sa, ctx| sa.follow_hint(ctx));
        }
    }

    fn answer_unprotected(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        notify: NotifyType,
        data: &[u8],
    ) {
        if header.flags.response
            || !self.answers.allows(now, limits::UNPROTECTED_ANSWERS_PER_SECOND)
        {
            return;
        }
        let header = Header::new(
            header.spi_i,
            header.spi_r,
            header.exchange,
            Flags::new(!header.flags.initiator, true),
            header.message_id,
        );
        let payload =
            Message { header, payloads: vec![Payload::Notify(Notify::new(notify, data))] }.emit();
        self.transmits.push_back(Transmit { path, payload, keepalive: false });
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
        let wanted = self.peers.values().find_map(|peer| {
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
            Some(path) => self.begin(now, &peer, path, Some(wanted)),
            None => Ok(()),
        }
    }

    fn no_sa(&mut self, now: Instant, spi: Spi, path: Path) {
        // RFC 7296 §1.5: a hint for the sender, which may have missed a DELETE or our restart.
        if !self.hints.allows(now, limits::INVALID_SPI_PER_SECOND) {
            return;
        }
        let notify = Payload::Notify(Notify::new(NotifyType::INVALID_SPI, spi.to_be_bytes()));
        let header = Header::new(
            IkeSpi(0),
            IkeSpi(0),
            ExchangeType::INFORMATIONAL,
            Flags::new(true, false),
            0,
        );
        let payload = Message { header, payloads: vec![notify] }.emit();
        self.transmits.push_back(Transmit { path, payload, keepalive: false });
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
                self.peers.remove(&peer);
                Ok(())
            }
            Command::Terminate { peer } => {
                self.known(&peer)?;
                self.terminate(now, &peer);
                Ok(())
            }
            Command::TerminateAll => {
                let peers: Vec<_> = self.peers.keys().cloned().collect();
                for peer in peers {
                    self.terminate(now, &peer);
                }
                Ok(())
            }
            Command::Acquire { policy, flow, path } => self.acquire(now, policy, flow, Some(path)),
            Command::Initiate { peer, path } => self.initiate(now, &peer, path),
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
        let Some(before) = self.peers.insert(Arc::clone(&name), Arc::clone(&peer)) else { return };
        if !peers::may_keep_ike_sa(&before, &peer) {
            self.terminate(now, &name);
            return;
        }
        let ids: Vec<_> =
            self.sas.values().filter(|sa| sa.peer_name() == name).map(|sa| sa.id).collect();
        for id in ids {
            self.with(now, id, |sa, ctx| {
                sa.peer = Some(Arc::clone(&peer));
                let outdated: Vec<_> = sa
                    .children
                    .iter()
                    .filter(|child| !peers::may_keep_child_sa(&child.policy, &peer))
                    .map(|child| child.spi_inbound)
                    .collect();
                if !outdated.is_empty() {
                    sa.queue(Task::DeleteChildren(outdated));
                    sa.next_task(ctx);
                }
            });
        }
    }

    fn known(&self, peer: &Arc<str>) -> Result<Arc<Peer>, CommandError> {
        self.peers.get(peer).cloned().ok_or_else(|| CommandError::NoSuchPeer(Arc::clone(peer)))
    }

    fn initiate(&mut self, now: Instant, name: &Arc<str>, path: Path) -> Result<(), CommandError> {
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
        self.begin(now, name, path, None)
    }

    /// Begins an IKE SA, unless one is being made.
    fn begin(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        path: Path,
        wanted: Option<Wanted>,
    ) -> Result<(), CommandError> {
        let peer = self.known(name)?;
        let mut connecting = false;
        for sa in self.sas.values_mut().filter(|sa| sa.peer_name() == *name) {
            match &mut sa.state {
                State::InitSent(_) | State::IntermediateSent(_) => connecting = true,
                State::AuthSent(sent) => {
                    sent.unwanted = false;
                    connecting = true;
                }
                State::InitAnswered(_)
                | State::Established
                | State::Replaced
                | State::Deleting
                | State::Closed(_) => {}
            }
        }
        if connecting {
            return Ok(());
        }
        if self.sas.len() >= limits::MAX_IKE_SAS {
            return Err(CommandError::Limit("too many IKE_SAs"));
        }
        let mut touched = Vec::new();
        let mut ctx = self.context(now, &mut touched);
        let sa = IkeSa::initiate(&mut ctx, peer, path, wanted)
            .ok_or(CommandError::Limit("no key exchange group of the proposals is supported"))?;
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
        let ids: Vec<_> =
            self.sas.values().filter(|sa| sa.peer_name() == *peer).map(|sa| sa.id).collect();
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
    fn established_with(&self, peer: &str) -> Option<SaId> {
        self.sas
            .values()
            .filter(|sa| {
                sa.is_established() && sa.established.is_some() && *sa.peer_name() == *peer
            })
            .max_by_key(|sa| (sa.established, sa.id))
            .map(|sa| sa.id)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(jar) = self.jar.as_mut() {
            jar.rotate(now, &mut *self.rng);
        }
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

    /// Every IKE SA, sorted by peer, for status.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<SaStatus> {
        let mut all: Vec<_> = self.sas.values().filter_map(|sa| sa.status(now)).collect();
        all.sort_by(|a, b| (&a.peer, a.spi_i, a.spi_r).cmp(&(&b.peer, b.spi_i, b.spi_r)));
        all
    }

    /// How many inbound SPIs are taken: those of CHILD_SAs, and those offered for one.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn spis_taken(&self) -> usize {
        self.spis.len()
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
        f(&mut sa, &mut ctx);
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
            others: &mut self.sas,
            peers: &self.peers,
            last_message_id: self.config.last_message_id,
            touched,
            export_keys: self.config.export_keys,
        }
    }

    fn forget_half_open(&mut self, id: SaId) -> Option<(IkeSpi, SocketAddr)> {
        let key = self.half_open_of.remove(&id)?;
        self.half_open.remove(&key);
        if let Some(count) = self.half_open_by_address.get_mut(&key.1.ip()) {
            *count -= 1;
            if *count == 0 {
                self.half_open_by_address.remove(&key.1.ip());
            }
        }
        Some(key)
    }

    /// Notes the deadline of an IKE SA, or drops what is over.
    fn settle(&mut self, now: Instant, id: SaId) {
        let Some(sa) = self.sas.get(&id) else { return };
        if !sa.is_half_open()
            && let Some(key) = self.forget_half_open(id)
        {
            self.begun.insert(key, id);
            self.begun_of.insert(id, key);
        }
        let Some(sa) = self.sas.get(&id) else { return };
        let over = matches!(sa.state, State::Closed(until) if until <= now);
        let next = if over { None } else { sa.deadline() };
        if let Some((at, kind)) = self.deadline_of.remove(&id) {
            self.deadlines.remove(&(at, kind, id));
        }
        if let Some((at, kind)) = next {
            self.deadlines.insert((at, kind, id));
            self.deadline_of.insert(id, (at, kind));
        }
        if over {
            self.sas.remove(&id);
            self.forget_half_open(id);
            if let Some(key) = self.begun_of.remove(&id) {
                self.begun.remove(&key);
            }
        }
    }
}

/// The SPI in an INVALID_SPI notify.
fn invalid_spi(payload: &Payload) -> Option<&[u8]> {
    let Payload::Notify(notify) = payload else { return None };
    (notify.notify_type == NotifyType::INVALID_SPI).then_some(&notify.data)
}

/// Answers to unprotected messages, so many a second (RFC 7296 §2.4).
#[derive(Default)]
struct RateLimit {
    second: Option<Instant>,
    count: u32,
}

impl RateLimit {
    fn allows(&mut self, now: Instant, per_second: u32) -> bool {
        if self.second.is_none_or(|began| began + Duration::from_secs(1) <= now) {
            self.second = Some(now);
            self.count = 0;
        }
        self.count += 1;
        self.count <= per_second
    }
}
