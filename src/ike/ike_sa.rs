//! [`IkeSa`]: one IKE SA, from the first message to the last retransmission that it answers.
//!
//! Holds what all exchanges share: sending, receiving, timers, tasks. What an exchange says and means is in `exchange`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info};

use super::child_sa::{ChildSa, ChildState, Unconfirmed};
use super::endpoint::WallClock;
use super::event::{CloseReason, Event, Phase, SaStatus, TimerKind, Transmit};
use super::exchange::{auth, create_child, informational::is_delete_of_ike, rekey, sa_init};
use super::keymat::IkeKeys;
use super::limits;
use super::natd::Nat;
use super::protect::{OpenError, Protector};
use super::rules::{self, Violation};
use super::window::{Again, Incoming, Requests, Responses, Retransmission};
use crate::crypto::{Secret, SecureRandom};
use crate::ipsec::pad::{Peer, StartPolicy};
use crate::ipsec::suite::IkeSuite;
use crate::ipsec::{Encap, Path, SadUpdate, Spi};
use crate::wire::ike::header::{Flags, Header, IkeSpi};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{ExchangeType, NotifyType};
use crate::wire::ike::payload::{Notify, Payload};

/// An IKE SA's number in this endpoint: the SPI that we chose.
pub(super) type SaId = u64;

/// What handlers take from the endpoint and leave there.
pub(super) struct Ctx<'a> {
    pub(super) now: Instant,
    pub(super) rng: &'a mut dyn SecureRandom,
    pub(super) wall_clock: &'a dyn WallClock,
    pub(super) transmits: &'a mut VecDeque<Transmit>,
    pub(super) events: &'a mut VecDeque<Event>,
    /// Whose CHILD_SA has this inbound SPI.
    pub(super) spis: &'a mut BTreeMap<Spi, SaId>,
    /// Every other IKE SA.
    pub(super) others: &'a mut BTreeMap<SaId, IkeSa>,
    pub(super) peers: &'a BTreeMap<Arc<str>, Arc<Peer>>,
    /// Which of the others changed.
    pub(super) touched: &'a mut Vec<SaId>,
}

impl Ctx<'_> {
    pub(super) fn random_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.rng.fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    pub(super) fn random_bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.rng.fill(&mut bytes);
        bytes
    }

    /// An IKE SPI that no IKE SA of ours has.
    pub(super) fn fresh_ike_spi(&mut self) -> IkeSpi {
        loop {
            let mut bytes = [0; 8];
            self.rng.fill(&mut bytes);
            let spi = u64::from_be_bytes(bytes);
            if spi != 0 && !self.others.contains_key(&spi) {
                return IkeSpi(spi);
            }
        }
    }

    /// An inbound SPI that no CHILD_SA of ours has, noted as that of `owner`.
    pub(super) fn fresh_spi(&mut self, owner: SaId) -> Spi {
        loop {
            if let Some(spi) = Spi::new(self.random_u32())
                && !self.spis.contains_key(&spi)
            {
                self.spis.insert(spi, owner);
                return spi;
            }
        }
    }

    /// Puts another IKE SA where it belongs.
    pub(super) fn put(&mut self, sa: IkeSa) {
        self.touched.push(sa.id);
        self.others.insert(sa.id, sa);
    }

    pub(super) fn sad(&mut self, update: SadUpdate) {
        self.events.push_back(Event::Sad(update));
    }
}

/// The keys of an IKE SA, once there are any.
pub(super) struct Session {
    pub(super) suite: IkeSuite,
    pub(super) sk_d: Secret,
    pub(super) outbound: Protector,
    pub(super) inbound: Protector,
}

impl Session {
    pub(super) fn new(suite: IkeSuite, keys: &IkeKeys, initiator: bool) -> Option<Self> {
        let i = Protector::new(suite, &keys.sk_ei, &keys.sk_ai)?;
        let r = Protector::new(suite, &keys.sk_er, &keys.sk_ar)?;
        let (outbound, inbound) = if initiator { (i, r) } else { (r, i) };
        Some(Self { suite, sk_d: keys.sk_d.clone(), outbound, inbound })
    }
}

/// How far an IKE SA has come. Each state has what exists then and no more.
pub(super) enum State {
    /// Initiator: IKE_SA_INIT sent.
    InitSent(Box<sa_init::InitSent>),
    /// Responder: IKE_SA_INIT answered.
    InitAnswered(Box<auth::Awaited>),
    /// Initiator: IKE_AUTH sent.
    AuthSent(Box<auth::AuthSent>),
    /// Both sides are who they say.
    Established,
    /// Rekeyed as responder; the initiator's DELETE is to come.
    Replaced,
    /// Our DELETE is under way.
    Deleting,
    /// Over; retransmissions are answered until then.
    Closed(Instant),
}

/// Work that begins with a request of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Makes a CHILD_SA by the policy of this name.
    CreateChild(Arc<str>),
    /// Replaces the CHILD_SA with this inbound SPI.
    RekeyChild(Spi),
    /// Replaces the IKE SA.
    RekeyIke,
    /// Deletes these CHILD_SAs, by inbound SPI.
    DeleteChildren(Vec<Spi>),
    /// Deletes the IKE SA.
    DeleteIke,
    /// Asks whether the peer lives.
    Liveness,
}

pub(super) struct Waiting {
    pub(super) task: Task,
    pub(super) not_before: Option<Instant>,
}

/// The task whose request is under way.
pub(super) enum Active {
    Child(Box<create_child::ChildRequest>),
    Ike(Box<rekey::IkeRequest>),
    DeleteChildren(Vec<Spi>),
    DeleteIke,
    /// Since when it is asked.
    Liveness(Instant),
}

pub(super) struct IkeSa {
    pub(super) id: SaId,
    /// Known to the initiator from the start, to the responder once authenticated.
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) initiator: bool,
    pub(super) spi_i: IkeSpi,
    pub(super) spi_r: IkeSpi,
    pub(super) path: Path,
    pub(super) nat: Nat,
    /// Whether ESP goes in UDP.
    pub(super) encap: bool,
    pub(super) session: Option<Session>,
    pub(super) state: State,
    pub(super) requests: Requests,
    pub(super) responses: Responses,
    pub(super) how: Retransmission,
    pub(super) tasks: VecDeque<Waiting>,
    pub(super) active: Option<Active>,
    pub(super) children: Vec<ChildSa>,
    pub(super) created: Instant,
    pub(super) established: Option<Instant>,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expire_at: Option<Instant>,
    pub(super) last_heard: Instant,
    pub(super) keepalive_at: Option<Instant>,
    pub(super) last_hint: Option<Instant>,
    pub(super) peer_identity: Option<crate::ipsec::pad::Identity>,
}

impl IkeSa {
    pub(super) fn peer_name(&self) -> Arc<str> {
        self.peer.as_ref().map_or_else(|| Arc::from("?"), |peer| Arc::clone(&peer.name))
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self.state, State::Established)
    }

    /// The path of ESP, whose encapsulation need not be that of IKE.
    pub(super) fn esp_path(&self) -> Path {
        if !self.encap {
            return Path { encap: Encap::Plain, ..self.path };
        }
        self.path.on_port_4500()
    }

    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.state, State::InitAnswered(_))
    }

    /// Responder: the answer to the IKE_SA_INIT request, if this is it once more.
    pub(super) fn init_response_to(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let State::InitAnswered(awaited) = &self.state else { return None };
        (awaited.init.request == datagram).then(|| awaited.init.response.clone())
    }

    // Sending.

    fn header(&self, exchange: ExchangeType, response: bool, id: u32) -> Header {
        Header::new(self.spi_i, self.spi_r, exchange, Flags::new(self.initiator, response), id)
    }

    pub(super) fn transmit(&mut self, ctx: &mut Ctx<'_>, payload: Vec<u8>) {
        if self.nat.local {
            self.keepalive_at = Some(ctx.now + limits::KEEPALIVE);
        }
        ctx.transmits.push_back(Transmit { path: self.path, payload, keepalive: false });
    }

    /// Sends a protected request, and notes it for retransmission.
    pub(super) fn request(
        &mut self,
        ctx: &mut Ctx<'_>,
        exchange: ExchangeType,
        payloads: &[Payload],
    ) {
        let (Some(id), Some(session)) = (self.requests.next_id(), self.session.as_ref()) else {
            debug!("a request is under way");
            return;
        };
        let datagram = session.outbound.seal(self.header(exchange, false, id), payloads, ctx.rng);
        self.requests.sent(ctx.now, datagram.clone(), self.how);
        self.transmit(ctx, datagram);
    }

    /// Sends a protected response, and keeps it for retransmission.
    pub(super) fn respond(
        &mut self,
        ctx: &mut Ctx<'_>,
        exchange: ExchangeType,
        id: u32,
        payloads: &[Payload],
    ) {
        let Some(session) = self.session.as_ref() else { return };
        let datagram = session.outbound.seal(self.header(exchange, true, id), payloads, ctx.rng);
        self.responses.answered(datagram.clone());
        self.transmit(ctx, datagram);
    }

    // Receiving.

    /// A message with our SPI in it, other than one of IKE_SA_INIT.
    pub(super) fn handle(
        &mut self,
        ctx: &mut Ctx<'_>,
        path: Path,
        header: &Header,
        datagram: &[u8],
    ) {
        // RFC 7296 §3.1: the flag says who is the original initiator, and it is not us who sent this.
        if header.flags.initiator == self.initiator
            || header.spi_i != self.spi_i
            || header.spi_r != self.spi_r
        {
            return;
        }
        let Some(session) = self.session.as_ref() else { return };
        let opened = session.inbound.open(datagram);
        let payloads = match opened {
            Ok(payloads) => payloads,
            Err(OpenError::BadIcv) => return,
            Err(OpenError::NotProtected) => {
                self.hint(ctx, datagram);
                return;
            }
            Err(OpenError::Parse(error)) => {
                // Authenticated, and malformed all the same (RFC 7296 §2.21.2, §2.21.3).
                debug!(%error, "malformed message");
                if !header.flags.response
                    && self.responses.classify(header.message_id) == Incoming::New
                {
                    self.heard(ctx, path);
                    self.refuse_for_good(ctx, header);
                }
                return;
            }
        };
        if header.flags.response {
            if self.requests.awaits(header.message_id) {
                self.heard(ctx, path);
                self.handle_response(ctx, header, &payloads);
            }
        } else {
            match self.responses.classify(header.message_id) {
                Incoming::New => {
                    self.heard(ctx, path);
                    self.handle_request(ctx, header, &payloads);
                }
                Incoming::Again(response) => {
                    // RFC 7296 §2.11: to where the request came from.
                    ctx.transmits.push_back(Transmit { path, payload: response, keepalive: false });
                }
                Incoming::OutOfWindow => {
                    debug!(id = header.message_id, "request outside the window")
                }
            }
        }
        self.next_task(ctx);
    }

    /// An authentic message that is not a repetition has come along `path`.
    fn heard(&mut self, ctx: &mut Ctx<'_>, path: Path) {
        self.last_heard = ctx.now;
        // RFC 7296 §2.23: who is not behind a NAT follows who is. Before ESTABLISHED the initiator may float to 4500.
        let floats = matches!(self.state, State::InitAnswered(_));
        if path != self.path && (floats || (self.nat.peer && !self.nat.local)) {
            self.move_to(ctx, path);
        }
    }

    pub(super) fn move_to(&mut self, ctx: &mut Ctx<'_>, path: Path) {
        self.path = path;
        let path = self.esp_path();
        for child in &mut self.children {
            if child.path != path && !matches!(child.state, ChildState::Lingering(_)) {
                child.path = path;
                ctx.events
                    .push_back(Event::Sad(SadUpdate::MovePath { spi: child.spi_inbound, path }));
            }
        }
    }

    /// An unprotected message that names us. RFC 7296 §2.4, §2.21.4: at most a hint that something may be wrong.
    fn hint(&mut self, ctx: &mut Ctx<'_>, datagram: &[u8]) {
        let Ok(message) = Message::parse(datagram) else { return };
        let says_so = message.payloads.iter().any(|payload| {
            matches!(payload, Payload::Notify(notify)
                if matches!(notify.notify_type, NotifyType::INVALID_IKE_SPI | NotifyType::INVALID_SPI))
        });
        if says_so {
            self.follow_hint(ctx);
        }
    }

    /// Asks the peer, protected, whether it lives; not more often than [`limits::HINT_INTERVAL`].
    pub(super) fn follow_hint(&mut self, ctx: &mut Ctx<'_>) {
        let lately = self.last_hint.is_some_and(|at| ctx.now < at + limits::HINT_INTERVAL);
        if self.is_established() && !lately {
            self.last_hint = Some(ctx.now);
            self.queue(Task::Liveness);
            self.next_task(ctx);
        }
    }

    fn refuse(&mut self, ctx: &mut Ctx<'_>, header: &Header, notify: NotifyType, data: Vec<u8>) {
        let payload = Payload::Notify(Notify::new(notify, data));
        self.respond(ctx, header.exchange, header.message_id, &[payload]);
    }

    /// RFC 7296 §2.21.3: INVALID_SYNTAX ends the IKE SA at both ends, without DELETE.
    fn refuse_for_good(&mut self, ctx: &mut Ctx<'_>, header: &Header) {
        self.refuse(ctx, header, NotifyType::INVALID_SYNTAX, Vec::new());
        self.close(ctx, CloseReason::PeerMisbehaved("it sent a malformed message"));
    }

    fn handle_request(&mut self, ctx: &mut Ctx<'_>, header: &Header, payloads: &[Payload]) {
        match self.state {
            // RFC 7296 §2.25.2: a DELETE that crossed ours is answered as usual. Whatever else would be told that we live.
            State::Closed(_) => {
                if payloads.iter().any(is_delete_of_ike) {
                    self.respond(ctx, header.exchange, header.message_id, &[]);
                }
                return;
            }
            // The peer knows already that this one survives the collision; it asks again, and by then we do, too.
            State::Established if self.is_candidate() && !payloads.iter().any(is_delete_of_ike) => {
                return;
            }
            // It overtook the answer to our IKE_AUTH; it will come again.
            State::AuthSent(_) | State::InitSent(_) => return,
            State::InitAnswered(_) | State::Established | State::Replaced | State::Deleting => {}
        }
        let authenticating = matches!(self.state, State::InitAnswered(_));
        let in_place = match header.exchange {
            ExchangeType::IKE_AUTH => authenticating,
            ExchangeType::CREATE_CHILD_SA | ExchangeType::INFORMATIONAL => !authenticating,
            _ => false,
        };
        if !in_place {
            // No error notify has words for it, and INVALID_SYNTAX would end the IKE SA.
            debug!(exchange = %header.exchange, "exchange out of place");
            return;
        }
        // RFC 7296 §2.3: with a window of one, a new request says that our last answer has arrived.
        self.activate(ctx, |_| true);
        match rules::check(header.exchange, false, payloads) {
            Ok(()) => {}
            Err(Violation::Critical(payload_type)) => {
                let data = vec![payload_type.0];
                self.refuse(ctx, header, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, data);
                return;
            }
            Err(violation) => {
                debug!(?violation, exchange = %header.exchange, "request refused");
                self.refuse_for_good(ctx, header);
                return;
            }
        }
        match header.exchange {
            ExchangeType::IKE_AUTH => self.handle_auth_request(ctx, header, payloads),
            ExchangeType::CREATE_CHILD_SA => {
                self.handle_create_child_request(ctx, header, payloads);
            }
            _ => self.handle_informational_request(ctx, header, payloads),
        }
    }

    fn handle_response(&mut self, ctx: &mut Ctx<'_>, header: &Header, payloads: &[Payload]) {
        if let Err(violation) = rules::check(header.exchange, true, payloads) {
            debug!(?violation, exchange = %header.exchange, "response refused");
            self.close(ctx, CloseReason::PeerMisbehaved("malformed response"));
            return;
        }
        let is_over = payloads.iter().any(|payload| {
            matches!(payload, Payload::Notify(notify)
                if notify.notify_type == NotifyType::INVALID_SYNTAX)
        });
        if is_over && !matches!(self.state, State::AuthSent(_)) {
            // RFC 7296 §2.21.3: the peer has dropped the IKE SA.
            self.close(ctx, CloseReason::PeerNotify(NotifyType::INVALID_SYNTAX));
            return;
        }
        if matches!(self.state, State::AuthSent(_)) {
            if header.exchange == ExchangeType::IKE_AUTH {
                self.requests.answered();
                self.handle_auth_response(ctx, payloads);
            }
            return;
        }
        self.requests.answered();
        if matches!(self.state, State::Deleting) && !matches!(self.active, Some(Active::DeleteIke))
        {
            // The daemon no longer wants what the answer is about. But what it made at the peer is to go, too.
            if let Some(Active::Ike(request)) = self.active.take() {
                self.delete_rekeyed(ctx, *request, payloads);
            }
            self.begin_delete_ike(ctx);
            return;
        }
        match self.active.take() {
            Some(Active::Child(request)) => {
                self.handle_create_child_response(ctx, *request, payloads)
            }
            Some(Active::Ike(request)) => self.handle_rekey_ike_response(ctx, *request, payloads),
            Some(Active::DeleteChildren(spis)) => self.handle_delete_children_response(ctx, &spis),
            Some(Active::DeleteIke) => self.closed(ctx),
            // It answered what was sent after these were agreed on, so it has them.
            Some(Active::Liveness(since)) => self.activate(ctx, |child| {
                let asked = child.unconfirmed.as_ref().is_some_and(|waits| waits.ask_at.is_none());
                asked && child.created <= since
            }),
            None => {}
        }
    }

    // Tasks.

    pub(super) fn queue(&mut self, task: Task) {
        if self.tasks.len() < limits::MAX_TASKS
            && !self.tasks.iter().any(|waiting| waiting.task == task)
        {
            self.tasks.push_back(Waiting { task, not_before: None });
        }
    }

    /// Tries again after TEMPORARY_FAILURE (RFC 7296 §2.25).
    pub(super) fn queue_later(&mut self, ctx: &mut Ctx<'_>, task: Task) {
        if self.tasks.iter().any(|waiting| waiting.task == task) {
            return;
        }
        let spread = limits::RETRY_AFTER.mul_f64(f64::from(ctx.random_u32()) / f64::from(u32::MAX));
        let not_before = Some(ctx.now + limits::RETRY_AFTER + spread);
        self.tasks.push_back(Waiting { task, not_before });
    }

    /// Begins the next task if none is under way.
    pub(super) fn next_task(&mut self, ctx: &mut Ctx<'_>) {
        while matches!(self.state, State::Established | State::Replaced)
            && self.requests.next_id().is_some()
        {
            let due = |waiting: &Waiting| waiting.not_before.is_none_or(|at| at <= ctx.now);
            let Some(at) = self.tasks.iter().position(due) else { return };
            let Some(Waiting { task, .. }) = self.tasks.remove(at) else { return };
            match task {
                Task::CreateChild(name) => self.begin_create_child(ctx, &name),
                Task::RekeyChild(spi) => self.begin_rekey_child(ctx, spi),
                Task::RekeyIke => self.begin_rekey_ike(ctx),
                Task::DeleteChildren(spis) => self.begin_delete_children(ctx, spis),
                Task::DeleteIke => self.terminate(ctx, CloseReason::Replaced),
                Task::Liveness => {
                    self.active = Some(Active::Liveness(ctx.now));
                    self.request(ctx, ExchangeType::INFORMATIONAL, &[]);
                }
            }
        }
    }

    // Timers.

    /// The earliest thing that this IKE SA waits for.
    pub(super) fn deadline(&self) -> Option<(Instant, TimerKind)> {
        let mut all: Vec<(Option<Instant>, TimerKind)> =
            vec![(self.requests.deadline(), TimerKind::Retransmit)];
        match self.state {
            State::Closed(until) => return Some((until, TimerKind::Linger)),
            State::InitAnswered(_) => {
                all.push((Some(self.created + limits::HALF_OPEN_TIME), TimerKind::HalfOpen));
            }
            State::Established => {
                all.push((self.rekey_at, TimerKind::Rekey));
                all.push((self.expire_at, TimerKind::Expire));
                all.push((self.liveness_at(), TimerKind::Liveness));
                all.push((self.keepalive_at, TimerKind::Keepalive));
            }
            State::Replaced => all.push((self.expire_at, TimerKind::Expire)),
            State::InitSent(_) | State::AuthSent(_) | State::Deleting => {}
        }
        if self.requests.is_idle() {
            all.extend(self.tasks.iter().map(|waiting| (waiting.not_before, TimerKind::Retry)));
        }
        for child in &self.children {
            match child.state {
                ChildState::Installed => {
                    all.push((child.rekey_at, TimerKind::Rekey));
                    all.push((child.expire_at, TimerKind::Expire));
                }
                ChildState::Lingering(until) => all.push((Some(until), TimerKind::Linger)),
                ChildState::Replaced | ChildState::Deleting => {}
            }
            let ask_at = child.unconfirmed.as_ref().and_then(|waits| waits.ask_at);
            all.push((ask_at, TimerKind::Liveness));
        }
        all.into_iter().filter_map(|(at, kind)| at.map(|at| (at, kind))).min()
    }

    fn liveness_at(&self) -> Option<Instant> {
        let delay = self.peer.as_ref()?.ike.dpd_delay?;
        // A request under way is a liveness check itself (RFC 7296 §2.4).
        self.requests.is_idle().then(|| self.last_heard + delay)
    }

    pub(super) fn handle_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        match self.requests.again(now, self.how) {
            Again::Wait => {}
            Again::GiveUp(tries) => {
                self.give_up(ctx, tries);
                return;
            }
            Again::Send(datagram, tries) => {
                if self.hint_is_due(tries) {
                    self.give_up(ctx, tries);
                    return;
                }
                let peer = self.peer_name();
                ctx.events.push_back(Event::Progress { peer, phase: Phase::Retransmit { tries } });
                self.transmit(ctx, datagram);
            }
        }
        if matches!(self.state, State::InitAnswered(_))
            && self.created + limits::HALF_OPEN_TIME <= now
        {
            self.state = State::Closed(now);
            return;
        }
        self.tend_children(ctx);
        if self.is_established() {
            if self.expire_at.is_some_and(|at| at <= now) {
                if self.requests.is_idle() {
                    self.terminate(ctx, CloseReason::Lifetime);
                } else {
                    // The peer has not answered all the while that a rekey was due.
                    self.close(ctx, CloseReason::Lifetime);
                }
                return;
            } else if self.rekey_at.is_some_and(|at| at <= now) {
                self.rekey_at = None;
                self.queue(Task::RekeyIke);
            }
            if self.liveness_at().is_some_and(|at| at <= now) {
                self.queue(Task::Liveness);
            }
            if self.keepalive_at.is_some_and(|at| at <= now) {
                self.keepalive_at = Some(now + limits::KEEPALIVE);
                ctx.transmits.push_back(Transmit {
                    path: self.path,
                    payload: vec![0xff],
                    keepalive: true,
                });
            }
        } else if matches!(self.state, State::Replaced)
            && self.expire_at.is_some_and(|at| at <= now)
        {
            self.close(ctx, CloseReason::Replaced);
        }
        self.next_task(ctx);
    }

    fn tend_children(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        let (mut tasks, mut expired) = (Vec::new(), Vec::new());
        for child in &mut self.children {
            if let Some(waits) = &mut child.unconfirmed
                && waits.ask_at.is_some_and(|at| at <= now)
            {
                waits.ask_at = None;
                tasks.push(Task::Liveness);
            }
            match child.state {
                ChildState::Installed => {
                    if child.expire_at.is_some_and(|at| at <= now) {
                        child.expire_at = None;
                        expired.push(child.spi_inbound);
                    } else if child.rekey_at.is_some_and(|at| at <= now) {
                        child.rekey_at = None;
                        tasks.push(Task::RekeyChild(child.spi_inbound));
                    }
                }
                ChildState::Lingering(until) if until <= now => {
                    ctx.events.push_back(Event::Sad(SadUpdate::RemoveInbound(child.spi_inbound)));
                    ctx.spis.remove(&child.spi_inbound);
                }
                ChildState::Lingering(_) | ChildState::Replaced | ChildState::Deleting => {}
            }
        }
        self.children
            .retain(|child| !matches!(child.state, ChildState::Lingering(until) if until <= now));
        for task in tasks {
            self.queue(task);
        }
        for spi in expired {
            self.expire_child(ctx, spi);
        }
    }

    /// A CHILD_SA has reached the end of its life without a replacement. One that is to be up from the start gets a
    /// successor: at once from the original initiator, later from the responder if there is none by then, for both ends
    /// have the same lifetimes.
    pub(super) fn expire_child(&mut self, ctx: &mut Ctx<'_>, spi: Spi) {
        let Some(child) = self.child(spi).filter(|child| child.state == ChildState::Installed)
        else {
            return;
        };
        let wanted = child.policy.start == StartPolicy::Now;
        let name = Arc::clone(&child.policy.name);
        self.queue(Task::DeleteChildren(vec![spi]));
        if !wanted {
            return;
        }
        if self.initiator {
            self.queue(Task::CreateChild(name));
        } else {
            self.queue_later(ctx, Task::CreateChild(name));
        }
    }

    /// Makes room for a CHILD_SA, if need be at the cost of the oldest that are deleted and only wait for stragglers:
    /// however fast the peer rekeys, these are no reason to refuse it.
    pub(super) fn forget_lingering(&mut self, ctx: &mut Ctx<'_>) {
        while self.children.len() >= limits::MAX_CHILD_SAS {
            let lingering = |child: &ChildSa| matches!(child.state, ChildState::Lingering(_));
            // In the order in which they were made, so the oldest comes first.
            let Some(at) = self.children.iter().position(lingering) else { return };
            let child = self.children.remove(at);
            ctx.events.push_back(Event::Sad(SadUpdate::RemoveInbound(child.spi_inbound)));
            ctx.spis.remove(&child.spi_inbound);
        }
    }

    fn give_up(&mut self, ctx: &mut Ctx<'_>, tries: u32) {
        let unwanted = matches!(&self.state, State::AuthSent(sent) if sent.unwanted);
        let reason = if unwanted {
            CloseReason::Operator
        } else if let State::InitSent(init) = &self.state {
            let unreachable = CloseReason::Unreachable { exchange: "IKE_SA_INIT", tries };
            init.hint.clone().unwrap_or(unreachable)
        } else {
            let exchange = if matches!(self.state, State::AuthSent(_)) {
                "IKE_AUTH"
            } else if matches!(self.active, Some(Active::Child(_) | Active::Ike(_))) {
                "CREATE_CHILD_SA"
            } else {
                "INFORMATIONAL"
            };
            CloseReason::Unreachable { exchange, tries }
        };
        self.close(ctx, reason);
    }

    /// Whether it is one that the peer made while we were rekeying, too, and that may not be the one that stays.
    pub(super) fn is_candidate(&self) -> bool {
        self.is_established() && self.established.is_none()
    }

    /// RFC 7296 §2.21.1: an unprotected error may be a forgery, so a real answer is waited for a little longer.
    fn hint_is_due(&self, tries: u32) -> bool {
        matches!(&self.state, State::InitSent(init) if init.hint.is_some() && tries > init.hint_tries)
    }

    // The end.

    /// Tells the daemon, once, that this IKE SA is no more.
    pub(super) fn announce_closed(&self, ctx: &mut Ctx<'_>, reason: CloseReason) {
        let Some(peer) = self.peer.as_ref() else { return };
        if matches!(self.state, State::Deleting | State::Closed(_) | State::Replaced) {
            return;
        }
        info!(peer = %peer.name, spi_i = %self.spi_i, spi_r = %self.spi_r, %reason, "IKE_SA gone");
        ctx.events.push_back(Event::IkeSaClosed { peer: Arc::clone(&peer.name), reason });
    }

    /// Ends without a word to the peer.
    pub(super) fn close(&mut self, ctx: &mut Ctx<'_>, reason: CloseReason) {
        self.announce_closed(ctx, reason);
        self.closed(ctx);
    }

    /// Nothing is left but answers to retransmissions.
    pub(super) fn closed(&mut self, ctx: &mut Ctx<'_>) {
        // What the peer made while we were rekeying, too, has nothing to inherit.
        if let Some(mut orphan) = self.take_collided(ctx) {
            orphan.closed(ctx);
            ctx.put(orphan);
        }
        self.drop_children(ctx);
        self.requests.withdraw();
        self.active = None;
        self.tasks.clear();
        let linger =
            if self.session.is_some() { limits::CLOSED_LINGER } else { core::time::Duration::ZERO };
        self.state = State::Closed(ctx.now + linger);
    }

    /// Takes every CHILD_SA out of the SAD.
    pub(super) fn drop_children(&mut self, ctx: &mut Ctx<'_>) {
        for mut child in core::mem::take(&mut self.children) {
            if let Some(update) = child.remove_outbound() {
                ctx.sad(update);
            }
            ctx.sad(SadUpdate::RemoveInbound(child.spi_inbound));
            ctx.spis.remove(&child.spi_inbound);
        }
    }

    /// The peer is known to have these CHILD_SAs: they are sent on from here on (RFC 7296 §2.8).
    pub(super) fn activate(&mut self, ctx: &mut Ctx<'_>, which: impl Fn(&ChildSa) -> bool) {
        let mut known = Vec::new();
        for child in self
            .children
            .iter_mut()
            .filter(|child| child.state == ChildState::Installed && which(child))
        {
            if let Some(Unconfirmed { outbound, announce, .. }) = child.unconfirmed.take() {
                if let Some(outbound) = outbound {
                    child.outbound_installed = true;
                    ctx.sad(SadUpdate::AddOutbound(outbound));
                }
                if announce {
                    known.push(child.spi_inbound);
                }
            }
        }
        for spi in known {
            if let Some(child) = self.children.iter().find(|child| child.spi_inbound == spi) {
                self.announce_child(ctx, child, false);
            }
        }
    }

    pub(super) fn child(&mut self, spi_inbound: Spi) -> Option<&mut ChildSa> {
        self.children.iter_mut().find(|child| child.spi_inbound == spi_inbound)
    }

    pub(super) fn status(&self, now: Instant) -> Option<SaStatus> {
        // Nobody knows yet whose a half-open IKE SA is: it has no peer.
        let peer = self.peer.as_ref()?;
        let state = match &self.state {
            State::AuthSent(sent) if sent.unwanted => "DELETING",
            State::InitSent(_) | State::InitAnswered(_) | State::AuthSent(_) => "CONNECTING",
            State::Established if matches!(self.active, Some(Active::Ike(_))) => "REKEYING",
            State::Established => "ESTABLISHED",
            State::Replaced | State::Deleting => "DELETING",
            State::Closed(_) => return None,
        };
        let rekeyed = match &self.active {
            Some(Active::Child(request)) => request.replaces(),
            _ => None,
        };
        Some(SaStatus {
            peer: Arc::clone(&peer.name),
            state,
            initiator: self.initiator,
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            local_id: peer.local_id.clone(),
            peer_id: self.peer_identity.clone(),
            path: self.path,
            nat_local: self.nat.local,
            nat_peer: self.nat.peer,
            suite: self.session.as_ref().map(|session| session.suite),
            established: self.established.map(|at| now.saturating_duration_since(at)),
            rekey_in: self.rekey_at.map(|at| at.saturating_duration_since(now)),
            children: self
                .children
                .iter()
                .filter(|child| !matches!(child.state, ChildState::Lingering(_)))
                .map(|child| child.status(now, rekeyed == Some(child.spi_inbound)))
                .collect(),
        })
    }
}
