//! [`IkeSa`]: one IKE SA, from the first message to the last retransmission that it answers.
//!
//! Holds what all exchanges share: sending, receiving, timers, tasks. What an exchange says and means is in `exchange`.

use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info};

use super::child_sa::{ChildSa, ChildState, Unconfirmed};
use super::configuration::Configuration;
use super::endpoint::WallClock;
use super::event::{CloseReason, Event, SaStatus, Transmit};
use super::exchange::{
    auth, create_child, eap, followup, informational::is_delete_of_ike, intermediate, mobike,
    reauth, rekey, sa_init,
};
use super::frag::{Fragmentation, Whole};
use super::ike_sas::IkeSas;
use super::keymat::IkeKeys;
use super::lease::Leases;
use super::limits;
use super::natd::Nat;
use super::peers::Peers;
use super::protect::{Content, OpenError, Protector};
use super::qcd;
use super::rate::{Bucket, cost_of};
use super::rules::{self, Violation};
use super::stats::Stats;
use super::window::{Incoming, Requests, Responses, Retransmission};
use crate::crypto::{Secret, SecureRandom};
use crate::ipsec::pad::Peer;
use crate::ipsec::suite::IkeSuite;
use crate::ipsec::{Encap, Flow, Path, Protocol, SadUpdate, Spi};
use crate::wire::ParseError;
use crate::wire::ike::header::{Flags, Header, IkeSpi};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{ExchangeType, KeId, NotifyType, PayloadType};
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
    pub(super) others: &'a mut IkeSas,
    pub(super) peers: &'a Peers,
    /// Addresses that peers have of us, and we of them.
    pub(super) leases: &'a mut Leases,
    pub(super) stats: &'a mut Stats,
    /// See [`super::EndpointConfig`].
    pub(super) last_message_id: u32,
    /// Which of the others changed.
    pub(super) touched: &'a mut Vec<SaId>,
    /// See [`EndpointConfig`](super::EndpointConfig).
    pub(super) export_keys: bool,
    /// See [`EndpointConfig`](super::EndpointConfig).
    pub(super) qcd_secret: Option<&'a Secret>,
}

impl Ctx<'_> {
    /// Tells the keys of an IKE SA, if the operator wants to know them.
    pub(super) fn export(&mut self, spi_i: IkeSpi, spi_r: IkeSpi, suite: IkeSuite, keys: &IkeKeys) {
        if self.export_keys {
            let keys = Box::new(keys.clone());
            self.events.push_back(Event::IkeKeys { spi_i, spi_r, suite, keys });
        }
    }

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
    pub(super) fn put(&mut self, sa: impl Into<Box<IkeSa>>) {
        let sa = sa.into();
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
    /// What the peer sealed its last request with, where the keys have changed since (RFC 9370 §2.2.2): it may come again.
    pub(super) previous: Option<Protector>,
}

impl Session {
    pub(super) fn new(suite: IkeSuite, keys: &IkeKeys, initiator: bool) -> Option<Self> {
        let i = Protector::new(suite, &keys.sk_ei, &keys.sk_ai)?;
        let r = Protector::new(suite, &keys.sk_er, &keys.sk_ar)?;
        let (outbound, inbound) = if initiator { (i, r) } else { (r, i) };
        Some(Self { suite, sk_d: keys.sk_d.clone(), outbound, inbound, previous: None })
    }
}

/// How far an IKE SA has come. Each state has what exists then and no more.
pub(super) enum State {
    /// Initiator: IKE_SA_INIT sent.
    InitSent(Box<sa_init::InitSent>),
    /// Initiator: IKE_INTERMEDIATE sent.
    IntermediateSent(Box<intermediate::IntermediateSent>),
    /// Responder: IKE_SA_INIT answered, and perhaps IKE_INTERMEDIATE.
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
    /// Makes another CHILD_SA beside the first of the policy of this name (RFC 9611).
    CreateResource(Arc<str>),
    /// Replaces the CHILD_SA with this inbound SPI.
    RekeyChild(Spi),
    /// Replaces the IKE SA.
    RekeyIke,
    /// Deletes these CHILD_SAs, by inbound SPI.
    DeleteChildren(Vec<Spi>),
    /// Deletes what the peer has made of our offer of this SPI and we cannot use.
    Disown(Protocol, Spi),
    /// Deletes the IKE SA.
    DeleteIke,
    /// Deletes the IKE SAs that this one was made in place of, by authenticating anew.
    Supersede,
    /// Asks whether the peer lives.
    Liveness,
    /// Says, or asks, something about the path (RFC 4555).
    Path(mobike::Question),
    /// Tells our token (RFC 6290 §4.3).
    Token,
}

/// The CHILD_SA that a packet asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Name of its policy.
    pub(super) child: Arc<str>,
    /// The packet.
    pub(super) flow: Flow,
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
    Disown(Spi),
    /// Since when it is asked.
    Liveness(Instant),
    Path(Box<mobike::Asked>),
}

pub(super) struct IkeSa {
    pub(super) id: SaId,
    /// Known to the initiator from the start, to the responder once authenticated.
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) initiator: bool,
    pub(super) spi_i: IkeSpi,
    pub(super) spi_r: IkeSpi,
    pub(super) path: Path,
    /// Where the last authentic message came from that was not a repetition.
    pub(super) heard_on: Path,
    /// If both ends have it.
    pub(super) mobike: Option<Box<mobike::Mobike>>,
    pub(super) nat: Nat,
    /// Whether ESP goes in UDP.
    pub(super) encap: bool,
    pub(super) session: Option<Session>,
    pub(super) state: State,
    pub(super) requests: Requests,
    pub(super) responses: Responses,
    pub(super) how: Retransmission,
    pub(super) fragmentation: Fragmentation,
    pub(super) tasks: VecDeque<Waiting>,
    /// What packets asked for and is not asked of the peer yet: one a policy at most.
    pub(super) wanted: Vec<Wanted>,
    pub(super) active: Option<Active>,
    pub(super) children: Vec<ChildSa>,
    /// What the peer has agreed on with us and goes on with in IKE_FOLLOWUP_KE. While there is any, nothing of ours begins.
    pub(super) pending: Vec<followup::Pending>,
    /// Series of ours that the peer forgot, one after another.
    pub(super) series_failures: u32,
    pub(super) created: Instant,
    pub(super) authentication: reauth::Authentication,
    /// Until what it was made in place of is deleted.
    pub(super) reauth: Option<reauth::Reauth>,
    /// Work with keys that the peer has had us do.
    pub(super) key_work: Bucket,
    pub(super) established: Option<Instant>,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expire_at: Option<Instant>,
    pub(super) last_heard: Instant,
    pub(super) keepalive_at: Option<Instant>,
    pub(super) last_hint: Option<Instant>,
    /// When TEMPORARY_FAILURE came for the first and the last time without anything else in between.
    pub(super) put_off: Option<(Instant, Instant)>,
    pub(super) peer_identity: Option<crate::ipsec::pad::Identity>,
    /// Whom EAP has authenticated, where the peer is not who it says in IDi by anything else.
    pub(super) eap_identity: Option<super::eap::UserName>,
    /// Whether a PPK is in the keys, or in those that they come from.
    pub(super) ppk: bool,
    /// What the peer shows without protection when it has lost this IKE SA (RFC 6290).
    pub(super) qcd_token: Option<Secret>,
    /// Addresses of our pool that the peer has.
    pub(super) leased: Vec<IpAddr>,
    /// What the peer configured us with.
    pub(super) configuration: Option<Arc<Configuration>>,
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

    /// Responder: the answer to the IKE_SA_INIT request, if this is it once more.
    pub(super) fn init_response_to(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let State::InitAnswered(awaited) = &self.state else { return None };
        (awaited.init.request == datagram).then(|| awaited.init.response.clone())
    }

    // Sending.

    pub(super) fn header(&self, exchange: ExchangeType, response: bool, id: u32) -> Header {
        Header::new(self.spi_i, self.spi_r, exchange, Flags::new(self.initiator, response), id)
    }

    pub(super) fn transmit(&mut self, ctx: &mut Ctx<'_>, payload: Vec<u8>) {
        if self.nat.local {
            self.keepalive_at = Some(ctx.now + limits::KEEPALIVE);
        }
        ctx.transmits.push_back(Transmit { path: self.path, payload, keepalive: false });
    }

    pub(super) fn transmit_all(&mut self, ctx: &mut Ctx<'_>, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            self.transmit(ctx, datagram);
        }
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
        let (header, content) = (self.header(exchange, false, id), Content::of(payloads));
        let policy = self.fragment_policy();
        let max_len = self.fragmentation.max_len(policy, self.path, false);
        let datagrams = session.outbound.seal_to_fit(header, &content, max_len, ctx.rng);
        self.fragmentation.sent(policy, header, content);
        self.requests.sent(ctx.now, datagrams.clone(), self.how);
        self.transmit_all(ctx, datagrams);
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
        let max_len = self.fragmentation.max_len(self.fragment_policy(), self.path, true);
        let (header, content) = (self.header(exchange, true, id), Content::of(payloads));
        let datagrams = session.outbound.seal_to_fit(header, &content, max_len, ctx.rng);
        self.responses.answered(datagrams.clone());
        if self.mobike.is_some() && self.heard_on != self.path {
            // RFC 7296 §2.11: to where the request came from, which is no reason to follow (RFC 4555 §3.8).
            send_again(ctx, self.heard_on, datagrams);
            return;
        }
        self.transmit_all(ctx, datagrams);
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
        let part = match session.inbound.open_part(datagram) {
            Ok(part) => part,
            Err(OpenError::BadIcv) => {
                self.repeated_before_new_keys(ctx, path, header, datagram);
                return;
            }
            Err(OpenError::NotProtected) => {
                self.hint(ctx, datagram);
                return;
            }
            Err(OpenError::Parse(error)) => {
                self.handle_malformed(ctx, path, header, error);
                return;
            }
        };
        let fragment = part.fragment;
        let is_expected = if header.flags.response {
            self.requests.awaits(header.message_id)
        } else {
            match self.responses.classify(header.message_id) {
                Incoming::New => true,
                Incoming::Again(response) => {
                    if part.asks_for_the_answer_again() {
                        send_again(ctx, path, response);
                    }
                    false
                }
                Incoming::OutOfWindow => {
                    debug!(id = header.message_id, "request outside the window");
                    false
                }
            }
        };
        if !is_expected {
            self.next_task(ctx);
            return;
        }
        let (content, critical) = if fragment.is_none() {
            (part.content, part.critical)
        } else {
            // RFC 7383 §2.4: not unless both sides said so.
            if !self.fragmentation.agreed {
                return;
            }
            match self.fragmentation.take(ctx.now, header, part, datagram.len()) {
                Some(Whole { content, critical }) => (content, critical),
                None => return,
            }
        };
        let payloads = match content.payloads() {
            Ok(inner) => [critical, inner].concat(),
            Err(error) => {
                self.handle_malformed(ctx, path, header, error);
                return;
            }
        };
        self.heard(ctx, path);
        if header.flags.response {
            self.fragmentation.answered();
            self.handle_response(ctx, header, &content, &payloads);
        } else {
            self.fragmentation.asked(fragment.is_some());
            self.handle_request(ctx, header, &content, &payloads);
        }
        self.next_task(ctx);
    }

    /// Authenticated, and malformed all the same (RFC 7296 §2.21.2, §2.21.3).
    fn handle_malformed(
        &mut self,
        ctx: &mut Ctx<'_>,
        path: Path,
        header: &Header,
        error: ParseError,
    ) {
        debug!(%error, "malformed message");
        if !header.flags.response && self.responses.classify(header.message_id) == Incoming::New {
            self.heard(ctx, path);
            self.refuse_for_good(ctx, header);
        } else if header.flags.response && self.requests.awaits(header.message_id) {
            self.heard(ctx, path);
            self.refuse_response(ctx);
        }
    }

    /// The request that changed the keys may come again, for its answer was lost: it is sealed with those from before.
    fn repeated_before_new_keys(
        &self,
        ctx: &mut Ctx<'_>,
        path: Path,
        header: &Header,
        datagram: &[u8],
    ) {
        let previous = self.session.as_ref().and_then(|session| session.previous.as_ref());
        if let (Some(previous), false) = (previous, header.flags.response)
            && let Incoming::Again(response) = self.responses.classify(header.message_id)
            && let Ok(part) = previous.open_part(datagram)
            && part.asks_for_the_answer_again()
        {
            send_again(ctx, path, response);
        }
    }

    /// An authentic message that is not a repetition has come along `path`.
    fn heard(&mut self, ctx: &mut Ctx<'_>, path: Path) {
        self.last_heard = ctx.now;
        self.heard_on = path;
        if self.mobike.is_some() {
            // RFC 4555 §3.8: not but for UPDATE_SA_ADDRESSES.
            return;
        }
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
        if self.is_disowned_by(&message.payloads)
            && matches!(self.state, State::Established | State::Replaced)
        {
            // RFC 6290 §4.5: silently, and from wherever it comes.
            self.close(ctx, CloseReason::PeerRestarted);
            return;
        }
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

    /// What a message has to have because of where we are: IKE_AUTH and IKE_INTERMEDIATE may have several rounds.
    fn needs(&self, exchange: ExchangeType, payloads: &[Payload]) -> &'static [PayloadType] {
        match exchange {
            ExchangeType::IKE_AUTH => eap::needs(&self.state, payloads),
            ExchangeType::IKE_INTERMEDIATE => intermediate::needs(&self.state),
            _ => &[],
        }
    }

    fn handle_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        content: &Content,
        payloads: &[Payload],
    ) {
        match &self.state {
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
            State::AuthSent(_) | State::IntermediateSent(_) | State::InitSent(_) => return,
            State::InitAnswered(_) | State::Established | State::Replaced | State::Deleting => {}
        }
        // RFC 9242 §3.2: every IKE_INTERMEDIATE before IKE_AUTH, and as many as were agreed on.
        let awaited =
            if let State::InitAnswered(awaited) = &self.state { Some(awaited) } else { None };
        let in_place = match header.exchange {
            ExchangeType::IKE_INTERMEDIATE => {
                awaited.is_some_and(|awaited| awaited.init.awaits_intermediate())
            }
            ExchangeType::IKE_AUTH => {
                awaited.is_some_and(|awaited| awaited.init.additional.is_empty())
            }
            ExchangeType::CREATE_CHILD_SA
            | ExchangeType::IKE_FOLLOWUP_KE
            | ExchangeType::INFORMATIONAL => awaited.is_none(),
            _ => false,
        };
        if !in_place {
            // No error notify has words for it, and INVALID_SYNTAX would end the IKE SA.
            debug!(exchange = %header.exchange, "exchange out of place");
            return;
        }
        // RFC 7296 §2.3: with a window of one, a new request says that our last answer has arrived.
        self.activate(ctx, |_| true);
        let needs = self.needs(header.exchange, payloads);
        match rules::check(header.exchange, false, payloads, needs) {
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
            ExchangeType::IKE_INTERMEDIATE => {
                self.handle_intermediate_request(ctx, header, content, payloads);
            }
            ExchangeType::IKE_AUTH => self.handle_auth_request(ctx, header, payloads),
            ExchangeType::CREATE_CHILD_SA => {
                self.handle_create_child_request(ctx, header, payloads);
            }
            ExchangeType::IKE_FOLLOWUP_KE => self.handle_followup_request(ctx, header, payloads),
            _ => self.handle_informational_request(ctx, header, payloads),
        }
    }

    /// An answer that is malformed cannot be refused, but whoever sent it is told that the IKE SA is over.
    fn refuse_response(&mut self, ctx: &mut Ctx<'_>) {
        let reason = CloseReason::PeerMisbehaved("malformed response");
        match self.state {
            State::AuthSent(_) | State::Established | State::Replaced => {
                self.requests.answered(ctx.now);
                self.abandon_active(ctx, &[]);
                self.terminate(ctx, reason);
            }
            State::InitSent(_)
            | State::IntermediateSent(_)
            | State::InitAnswered(_)
            | State::Deleting
            | State::Closed(_) => {
                self.close(ctx, reason);
            }
        }
    }

    fn handle_response(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        content: &Content,
        payloads: &[Payload],
    ) {
        let needs = self.needs(header.exchange, payloads);
        if let Err(violation) = rules::check(header.exchange, true, payloads, needs) {
            debug!(?violation, exchange = %header.exchange, "response refused");
            self.refuse_response(ctx);
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
                self.requests.answered(ctx.now);
                self.handle_auth_response(ctx, payloads);
            }
            return;
        }
        if matches!(self.state, State::IntermediateSent(_)) {
            if header.exchange == ExchangeType::IKE_INTERMEDIATE {
                self.requests.answered(ctx.now);
                self.handle_intermediate_response(ctx, header, content, payloads);
            }
            return;
        }
        self.requests.answered(ctx.now);
        if matches!(self.state, State::Deleting) && !matches!(self.active, Some(Active::DeleteIke))
        {
            // The daemon no longer wants what the answer is about. But what it made at the peer is to go, too.
            self.abandon_active(ctx, payloads);
            self.begin_delete_ike(ctx);
            return;
        }
        match self.active.take() {
            Some(Active::Child(request)) => self.handle_child_answer(ctx, *request, payloads),
            Some(Active::Ike(request)) => self.handle_ike_answer(ctx, *request, payloads),
            Some(Active::DeleteChildren(spis)) => self.handle_delete_children_response(ctx, &spis),
            Some(Active::DeleteIke) => self.closed(ctx),
            Some(Active::Disown(spi)) => {
                ctx.spis.remove(&spi);
            }
            // It answered what was sent after these were agreed on, so it has them.
            Some(Active::Liveness(since)) => {
                self.activate(ctx, |child| {
                    let asked =
                        child.unconfirmed.as_ref().is_some_and(|waits| waits.ask_at.is_none());
                    asked && child.created <= since
                });
                self.compare_mapping(ctx, payloads);
            }
            Some(Active::Path(asked)) => self.handle_path_answer(ctx, &asked, payloads),
            None => {}
        }
    }

    // Tasks.

    /// A packet wants a CHILD_SA.
    pub(super) fn acquire(&mut self, wanted: Wanted) {
        self.queue(Task::CreateChild(Arc::clone(&wanted.child)));
        if self.wanted.iter().all(|other| other.child != wanted.child) {
            self.wanted.push(wanted);
        }
    }

    /// The packet that asked for a CHILD_SA by this policy, if one did.
    pub(super) fn take_wanted(&mut self, child: &str) -> Option<Flow> {
        let at = self.wanted.iter().position(|wanted| *wanted.child == *child)?;
        Some(self.wanted.remove(at).flow)
    }

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

    /// RFC 7296 §2.2: when Message IDs run out, of either side, the IKE SA is rekeyed; the last one is for its DELETE.
    fn mind_message_ids(&mut self, ctx: &mut Ctx<'_>) {
        if !self.is_established() || self.is_candidate() {
            return;
        }
        if self.requests.at_the_end() {
            if self.requests.is_idle() {
                self.terminate(ctx, CloseReason::Limit("Message IDs of an IKE_SA"));
            }
        } else if (self.requests.runs_out() || self.responses.runs_out(ctx.last_message_id))
            && !matches!(self.active, Some(Active::Ike(_)))
        {
            self.queue(Task::RekeyIke);
        }
    }

    /// RFC 7296 §2.25: who is put off with TEMPORARY_FAILURE for minutes concludes that the two do not know the same any more.
    pub(super) fn is_put_off_for_good(&mut self, now: Instant) -> bool {
        let since = match self.put_off {
            Some((since, last)) if now < last + limits::PUT_OFF_GAP => since,
            _ => now,
        };
        self.put_off = Some((since, now));
        since + limits::PUT_OFF_TIME <= now
    }

    /// Whether the peer may have us do this work with keys, of so many microseconds, now.
    pub(super) fn may_work(&mut self, now: Instant, group: KeId) -> bool {
        let cost = cost_of(group).min(limits::KEY_WORK_OF_PEER.burst);
        let may = self.key_work.take(now, limits::KEY_WORK_OF_PEER, cost);
        if !may {
            debug!(peer = %self.peer_name(), %group, "the peer asks for too much work with keys");
        }
        may
    }

    /// Begins the next task if none is under way.
    pub(super) fn next_task(&mut self, ctx: &mut Ctx<'_>) {
        self.mind_message_ids(ctx);
        while matches!(self.state, State::Established | State::Replaced)
            && self.pending.is_empty()
            && self.requests.next_id().is_some()
        {
            let due = |waiting: &Waiting| waiting.not_before.is_none_or(|at| at <= ctx.now);
            let Some(at) = self.tasks.iter().position(due) else { return };
            let Some(Waiting { task, .. }) = self.tasks.remove(at) else { return };
            match task {
                Task::CreateChild(name) => self.begin_create_child(ctx, &name),
                Task::CreateResource(name) => self.begin_create_resource(ctx, &name),
                Task::RekeyChild(spi) => self.begin_rekey_child(ctx, spi),
                Task::RekeyIke => self.begin_rekey_ike(ctx),
                Task::DeleteChildren(spis) => self.begin_delete_children(ctx, spis),
                Task::Disown(protocol, spi) => self.begin_disown(ctx, protocol, spi),
                // The other one may have ended meanwhile.
                Task::DeleteIke if self.has_twin(ctx) => self.retire(ctx),
                Task::DeleteIke => {}
                Task::Supersede => self.supersede(ctx),
                Task::Token => {
                    // The answer says that the peer lives, and nothing else.
                    let token = qcd::token(ctx.qcd_secret, self.spi_i, self.spi_r);
                    self.active = Some(Active::Liveness(ctx.now));
                    self.request(ctx, ExchangeType::INFORMATIONAL, token.as_slice());
                }
                Task::Liveness => {
                    ctx.stats.liveness_checks += 1;
                    self.active = Some(Active::Liveness(ctx.now));
                    let payloads = self.liveness_payloads();
                    self.request(ctx, ExchangeType::INFORMATIONAL, &payloads);
                }
                Task::Path(question) => self.begin_path(ctx, question),
            }
        }
    }

    // The end.

    /// Tells the daemon, once, that this IKE SA is no more.
    pub(super) fn announce_closed(&self, ctx: &mut Ctx<'_>, reason: CloseReason) {
        let Some(peer) = self.peer.as_ref() else { return };
        if matches!(self.state, State::Deleting | State::Closed(_) | State::Replaced) {
            return;
        }
        info!(peer = %peer.name, spi_i = %self.spi_i, spi_r = %self.spi_r, %reason, "IKE_SA gone");
        if reason.is_authentication() {
            self.announce_failure(ctx, reason.clone());
        }
        ctx.events.push_back(Event::IkeSaClosed { peer: Arc::clone(&peer.name), reason });
    }

    /// Tells the daemon that somebody could not prove who it is.
    pub(super) fn announce_failure(&self, ctx: &mut Ctx<'_>, reason: CloseReason) {
        ctx.events.push_back(Event::AuthenticationFailed {
            peer: self.peer.as_ref().map(|peer| Arc::clone(&peer.name)),
            path: self.path,
            spi_i: self.spi_i,
            spi_r: self.spi_r,
            reason,
        });
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
        if let State::AuthSent(sent) = &self.state {
            sent.forget_offer(ctx);
        }
        self.forget_active(ctx);
        self.forget_tasks(ctx);
        if let (State::Deleting | State::Replaced, Some(peer)) = (&self.state, &self.peer) {
            ctx.events.push_back(Event::IkeSaDeleted { peer: Arc::clone(&peer.name) });
        }
        let linger =
            if self.session.is_some() { limits::CLOSED_LINGER } else { core::time::Duration::ZERO };
        self.state = State::Closed(ctx.now + linger);
    }

    /// The answer has come, and nobody wants what the request was for. What it made at the peer is deleted, where there are keys.
    fn abandon_active(&mut self, ctx: &mut Ctx<'_>, payloads: &[Payload]) {
        if let Some(Active::Ike(request)) = self.active.take_if(|it| matches!(it, Active::Ike(_))) {
            self.delete_rekeyed(ctx, *request, payloads);
        }
        self.forget_active(ctx);
    }

    /// Forgets the request under way, and what it took.
    fn forget_active(&mut self, ctx: &mut Ctx<'_>) {
        match self.active.take() {
            Some(Active::Child(request)) => request.offer.forget(ctx),
            Some(Active::Disown(spi)) => {
                ctx.spis.remove(&spi);
            }
            Some(
                Active::Ike(_)
                | Active::DeleteChildren(_)
                | Active::DeleteIke
                | Active::Liveness(_)
                | Active::Path(_),
            )
            | None => {}
        }
    }

    pub(super) fn forget_tasks(&mut self, ctx: &mut Ctx<'_>) {
        for waiting in self.tasks.drain(..) {
            if let Task::Disown(_, spi) = waiting.task {
                ctx.spis.remove(&spi);
            }
        }
    }

    /// Takes every CHILD_SA out of the SAD.
    pub(super) fn drop_children(&mut self, ctx: &mut Ctx<'_>) {
        self.drop_pending(ctx);
        self.drop_configuration(ctx);
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
        let mut confirmed = false;
        for child in self
            .children
            .iter_mut()
            .filter(|child| child.state == ChildState::Installed && which(child))
        {
            if let Some(Unconfirmed { outbound, announce, .. }) = child.unconfirmed.take() {
                confirmed = true;
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
        if confirmed {
            self.drop_redundant_children();
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
            State::InitSent(_)
            | State::IntermediateSent(_)
            | State::InitAnswered(_)
            | State::AuthSent(_) => "CONNECTING",
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
            eap_identity: self.eap_identity.clone(),
            leased: self.leased.clone(),
            configuration: self.configuration.clone(),
            path: self.path,
            mobike: self.mobike.is_some(),
            nat_local: self.nat.local,
            nat_peer: self.nat.peer,
            suite: self.session.as_ref().map(|session| session.suite),
            ppk: self.ppk,
            established: self.established.map(|at| now.saturating_duration_since(at)),
            rekey_in: self.rekey_at.map(|at| at.saturating_duration_since(now)),
            round_trip: self.requests.round_trip(),
            children: self
                .children
                .iter()
                .filter(|child| !matches!(child.state, ChildState::Lingering(_)))
                .map(|child| child.status(now, rekeyed == Some(child.spi_inbound)))
                .collect(),
        })
    }
}

/// RFC 7296 §2.11: to where the request came from.
fn send_again(ctx: &mut Ctx<'_>, path: Path, response: Vec<Vec<u8>>) {
    for payload in response {
        ctx.transmits.push_back(Transmit { path, payload, keepalive: false });
    }
}
