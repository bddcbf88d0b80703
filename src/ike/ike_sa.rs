//! [`IkeSa`]: one IKE SA, from the first message to the last retransmission that it answers.
//!
//! Holds what all exchanges share: its state, sending, the end; [receiving](receive) and [tasks] have files of their own. What an exchange
//! says and means is in `exchange`.

mod receive;
mod tasks;

use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info};

use super::child_sa::{ChildSa, ChildState, Resource, Unconfirmed};
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
    /// See [`super::EndpointConfig`].
    pub(super) workers: u16,
    /// Whose turn it is among them.
    pub(super) next_worker: &'a mut u16,
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

    /// An inbound SPI that no CHILD_SA of ours has, noted as that of `owner`: random, but for that it belongs to the worker which sends
    /// by the SA (RFC 9611), or else to the one whose turn it is.
    pub(super) fn fresh_spi(&mut self, owner: SaId, resource: Resource) -> Spi {
        let of = self.workers.max(1);
        let turn = resource.number().unwrap_or_else(|| {
            let next = self.next_worker.wrapping_add(1) % of;
            core::mem::replace(self.next_worker, next)
        });
        let (of, turn) = (u32::from(of), u32::from(turn));
        loop {
            let random = self.random_u32();
            let of_that_worker = (random - random % of).checked_add(turn % of);
            if let Some(spi) = of_that_worker.and_then(Spi::new)
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
    /// Tells that a packet which came on the CHILD_SA with this inbound SPI, and began so, was not one for it.
    Complain(Spi, Vec<u8>),
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
    /// A silent peer is not asked before then.
    pub(super) liveness_from: Option<Instant>,
    pub(super) keepalive_at: Option<Instant>,
    pub(super) last_hint: Option<Instant>,
    /// When TEMPORARY_FAILURE came for the first and the last time without anything else in between.
    pub(super) put_off: Option<(Instant, Instant)>,
    /// Initiator: whether IKE_AUTH says whom we want.
    pub(super) names_peer: bool,
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
