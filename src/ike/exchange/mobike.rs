//! MOBIKE (RFC 4555): an IKE SA and its CHILD_SAs go on when an address of one of its ends changes.
//!
//! The initiator decides which addresses are used, and says so; the responder follows once it is sure that the initiator is there.
//! Only one address of the peer is used at a time: its others are noted and not tried.

use core::net::{IpAddr, SocketAddr};

use tracing::{debug, info, warn};

use super::{Parts, notify};
use crate::ike::child_sa::{ChildSa, ChildState};
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::{Active, Ctx, IkeSa, Task, Waiting};
use crate::ike::{limits, natd};
use crate::ipsec::pad::{EncapPolicy, Peer};
use crate::ipsec::suite::Protocol;
use crate::ipsec::{Mode, Path};
use crate::wire::ike::numbers::{ExchangeType, NotifyType};
use crate::wire::ike::payload::{Notify, Payload};

/// What an IKE SA has besides if both ends have MOBIKE.
#[derive(Clone, Debug, Default)]
pub(in crate::ike) struct Mobike {
    /// Whether we began the first of the IKE SAs that replaced each other (RFC 4555 §1.3): the initiator decides.
    pub(in crate::ike) initiator: bool,
    /// What of the path the peer, or what of the peer we, do not know yet.
    pub(in crate::ike) open: Option<Question>,
    /// Further addresses of the peer (RFC 4555 §3.4).
    pub(in crate::ike) peer_addresses: Vec<IpAddr>,
    /// What the peer said last of where it sees us: its NAT_DETECTION_DESTINATION_IP.
    seen_as: Option<Vec<u8>>,
}

/// What an INFORMATIONAL request of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Question {
    /// Responder: whether the initiator is where it says (RFC 4555 §3.7).
    Check,
    /// Responder: that our address is another (RFC 4555 §3.6).
    Tell,
    /// Initiator: that the addresses are others (RFC 4555 §3.5).
    Update,
}

/// Such a request, under way.
#[derive(Debug)]
pub(in crate::ike) struct Asked {
    question: Question,
    /// The path that it is about.
    path: Path,
    cookie2: Vec<u8>,
}

/// Octets of our COOKIE2 (RFC 4555 §4.2.5: 8 to 64).
const COOKIE2_LEN: usize = 16;

impl IkeSa {
    // IKE_AUTH.

    /// What goes with the SA payload of IKE_AUTH, in either role.
    pub(super) fn mobike_supported(&self, peer: &Peer) -> Vec<Payload> {
        if !peer.ike.mobike {
            return Vec::new();
        }
        let mut payloads = vec![notify(NotifyType::MOBIKE_SUPPORTED, &[])];
        // RFC 4555 §3.9: in the request, which sets the addresses.
        payloads.extend(self.no_nats_allowed(peer).filter(|_| self.initiator));
        payloads
    }

    /// The peer has said whether it has MOBIKE.
    pub(super) fn agree_on_mobike(&mut self, peer: &Peer, parts: &Parts<'_>) {
        if peer.ike.mobike && parts.notify(NotifyType::MOBIKE_SUPPORTED).is_some() {
            let peer_addresses = additional_addresses(parts);
            let initiator = self.initiator;
            self.mobike = Some(Box::new(Mobike { initiator, peer_addresses, ..Mobike::default() }));
        }
    }

    /// Whether the addresses of a message are those that its sender says to have used (RFC 4555 §3.9).
    pub(super) fn has_unexpected_nat(&self, parts: &Parts<'_>) -> bool {
        let Path { local, remote, .. } = self.heard_on;
        parts
            .notify(NotifyType::NO_NATS_ALLOWED)
            .is_some_and(|notify| notify.data != ends(remote, local))
    }

    /// RFC 4555 §3.9: where NAT traversal is not to be had, nobody may change the addresses.
    fn no_nats_allowed(&self, peer: &Peer) -> Option<Payload> {
        let is_strict = !self.nat.supported || peer.ike.encap == EncapPolicy::None;
        let data = ends(self.path.local, self.path.remote);
        is_strict.then(|| notify(NotifyType::NO_NATS_ALLOWED, &data))
    }

    // Our own move.

    /// Our address is another from here on.
    pub(in crate::ike) fn relocate(&mut self, ctx: &mut Ctx<'_>, local: IpAddr) {
        let fits = local.is_ipv4() == self.path.remote.is_ipv4() && local != self.path.local.ip();
        let Some(mobike) = self.mobike.as_ref().filter(|_| fits && self.is_established()) else {
            return;
        };
        let question = if mobike.initiator { Question::Update } else { Question::Tell };
        let local = SocketAddr::new(local, self.path.local.port());
        self.change_path(ctx, Path { local, ..self.path }, question);
    }

    /// Takes another path, with everything, and has the peer told.
    fn change_path(&mut self, ctx: &mut Ctx<'_>, path: Path, question: Question) {
        if self.children.iter().any(|child| !is_movable(child)) {
            // RFC 4555 §1.2: transport mode has no place for another address.
            debug!(peer = %self.peer_name(), "a CHILD_SA in transport mode cannot be moved");
            return;
        }
        info!(peer = %self.peer_name(), from = %self.path.local, local = %path.local, remote = %path.remote, "the IKE_SA moves");
        self.move_to(ctx, path);
        // RFC 4555 §3.5: what is under way is sent again from there.
        self.requests.hurry(ctx.now);
        self.ask_about_path(question);
        self.next_task(ctx);
    }

    /// Before anything else.
    fn ask_about_path(&mut self, question: Question) {
        if let Some(mobike) = &mut self.mobike {
            mobike.open = Some(question);
        }
        self.tasks.retain(|waiting| !matches!(waiting.task, Task::Path(_)));
        self.tasks.push_front(Waiting { task: Task::Path(question), not_before: None });
    }

    /// A request about the path that the IKE SA which this one replaces has not brought to its end.
    pub(super) fn resume_mobike(&mut self) {
        if let Some(question) = self.mobike.as_ref().and_then(|mobike| mobike.open) {
            self.ask_about_path(question);
        }
    }

    pub(in crate::ike) fn begin_path(&mut self, ctx: &mut Ctx<'_>, question: Question) {
        let Some(peer) = self.peer.clone() else { return };
        let cookie2 = ctx.random_bytes(COOKIE2_LEN);
        let mut payloads = match question {
            Question::Check => Vec::new(),
            Question::Tell => vec![notify(NotifyType::NO_ADDITIONAL_ADDRESSES, &[])],
            Question::Update => vec![notify(NotifyType::UPDATE_SA_ADDRESSES, &[])],
        };
        if question == Question::Update && self.nat.supported {
            payloads.extend(self.nat_detection(self.path));
        }
        if question != Question::Check {
            payloads.extend(self.no_nats_allowed(&peer));
        }
        payloads.push(notify(NotifyType::COOKIE2, &cookie2));
        self.request(ctx, ExchangeType::INFORMATIONAL, &payloads);
        let asked = Asked { question, path: self.path, cookie2 };
        self.active = Some(Active::Path(Box::new(asked)));
    }

    pub(in crate::ike) fn handle_path_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        asked: &Asked,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        let same = |cookie2: &Notify| cookie2.data == asked.cookie2;
        if !parts.notify(NotifyType::COOKIE2).is_some_and(same) {
            // RFC 4555 §3.7: it answers what it has not seen.
            self.terminate(ctx, CloseReason::PeerMisbehaved("it did not return our COOKIE2"));
            return;
        }
        if asked.path != self.path {
            // RFC 4555 §3.5, §3.7: it says nothing of the path that there is by now, and the next request is about that.
            if !self.tasks.iter().any(|waiting| matches!(waiting.task, Task::Path(_))) {
                self.ask_about_path(asked.question);
            }
            return;
        }
        if let Some(error) = parts.error() {
            warn!(peer = %self.peer_name(), notify = %error.notify_type, "the peer does not follow to the new path");
            self.terminate(ctx, CloseReason::PeerNotify(error.notify_type));
            return;
        }
        if let Some(mobike) = &mut self.mobike {
            mobike.open = None;
        }
        match asked.question {
            Question::Check => self.move_to(ctx, self.path),
            Question::Tell => {}
            Question::Update => self.detect_nats(ctx, &parts),
        }
    }

    /// RFC 4555 §3.8: with a question whether the peer lives goes another, where it sees us.
    pub(in crate::ike) fn liveness_payloads(&self) -> Vec<Payload> {
        let asks = self.mobike.as_ref().is_some_and(|mobike| mobike.initiator) && self.nat.local;
        if asks { self.nat_detection(self.path).to_vec() } else { Vec::new() }
    }

    /// The answer: if it sees us elsewhere than before, our NAT has another mapping, and it has to be told.
    pub(in crate::ike) fn compare_mapping(&mut self, ctx: &mut Ctx<'_>, payloads: &[Payload]) {
        let parts = Parts::of(payloads);
        let seen = parts.notify(NotifyType::NAT_DETECTION_DESTINATION_IP).map(|seen| &seen.data);
        let Some(mobike) = self.mobike.as_ref().filter(|mobike| mobike.initiator) else { return };
        if seen.is_some_and(|seen| mobike.seen_as.as_ref() != Some(seen)) && mobike.open.is_none() {
            debug!(peer = %self.peer_name(), "the mapping of a NAT has changed, or is not known yet");
            self.ask_about_path(Question::Update);
            self.next_task(ctx);
        }
    }

    // The peer's requests.

    /// What an INFORMATIONAL request of the peer says of addresses; the answer to that.
    pub(super) fn answer_mobike(&mut self, ctx: &mut Ctx<'_>, parts: &Parts<'_>) -> Vec<Payload> {
        let mut answer = Vec::new();
        // RFC 4555 §3.7: as it came.
        let cookie2 = parts.notify(NotifyType::COOKIE2);
        answer.extend(
            cookie2
                .filter(|cookie2| (8..=64).contains(&cookie2.data.len()))
                .cloned()
                .map(Payload::Notify),
        );
        let (Some(mobike), Some(peer)) = (self.mobike.as_ref(), self.peer.clone()) else {
            return answer;
        };
        let initiator = mobike.initiator;
        let has = |wanted| parts.notify(wanted).is_some();
        let updates = has(NotifyType::UPDATE_SA_ADDRESSES);
        let lists = has(NotifyType::ADDITIONAL_IP4_ADDRESS)
            || has(NotifyType::ADDITIONAL_IP6_ADDRESS)
            || has(NotifyType::NO_ADDITIONAL_ADDRESSES);
        if (updates || lists) && self.has_unexpected_nat(parts) {
            warn!(peer = %peer.name, remote = %self.heard_on.remote, "the peer's addresses were changed on the way");
            answer.push(notify(NotifyType::UNEXPECTED_NAT_DETECTED, &[]));
            return answer;
        }
        let path = self.heard_on;
        let asks = has(NotifyType::NAT_DETECTION_SOURCE_IP)
            || has(NotifyType::NAT_DETECTION_DESTINATION_IP);
        if asks && self.nat.supported {
            answer.extend(self.nat_detection(path));
        }
        if lists {
            let addresses = additional_addresses(parts);
            if let Some(mobike) = &mut self.mobike {
                mobike.peer_addresses = addresses;
            }
        }
        if updates && !initiator {
            if self.accepts_path(&peer, path, parts) {
                self.follow(ctx, path, parts);
            } else {
                answer.push(notify(NotifyType::UNACCEPTABLE_ADDRESSES, &[]));
            }
        } else if lists && initiator && path.remote != self.path.remote {
            // RFC 4555 §3.6: the responder's own address is another.
            let known = self.mobike.as_ref().map(|mobike| mobike.peer_addresses.clone());
            if !known.unwrap_or_default().contains(&self.path.remote.ip()) {
                let remote = Path { remote: path.remote, ..self.path };
                self.change_path(ctx, remote, Question::Update);
            }
        }
        answer
    }

    /// Whether the initiator may be there, by our policy (RFC 4555 §3.5).
    fn accepts_path(&self, peer: &Peer, path: Path, parts: &Parts<'_>) -> bool {
        let nat = natd::detect(self.spi_i, self.spi_r, path, parts.notifies.iter().copied());
        let behind = nat.local || nat.peer;
        let in_udp = behind || peer.ike.encap == EncapPolicy::Udp;
        let ip = path.remote.ip();
        let is_host = !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback());
        is_host
            && !(behind && peer.ike.encap == EncapPolicy::None)
            && self.children.iter().all(|child| {
                is_movable(child) && !(in_udp && child.suite.protocol() == Protocol::Ah)
            })
    }

    /// Responder: the IKE SA follows at once, its CHILD_SAs when it is sure that the initiator is there.
    fn follow(&mut self, ctx: &Ctx<'_>, path: Path, parts: &Parts<'_>) {
        let is_new = self.path != path;
        if is_new {
            info!(peer = %self.peer_name(), from = %self.path.remote, remote = %path.remote, "the peer moves");
        }
        self.path = path;
        self.set_nats(parts);
        self.requests.hurry(ctx.now);
        let esp = self.esp_path();
        let stays =
            |child: &ChildSa| child.path == esp || matches!(child.state, ChildState::Lingering(_));
        if !self.children.iter().all(stays) || is_new {
            self.ask_about_path(Question::Check);
        }
    }

    /// Initiator: what the answer says of NATs on the new path.
    fn detect_nats(&mut self, ctx: &mut Ctx<'_>, parts: &Parts<'_>) {
        self.set_nats(parts);
        let seen = parts.notify(NotifyType::NAT_DETECTION_DESTINATION_IP);
        if let (Some(mobike), Some(seen)) = (&mut self.mobike, seen) {
            mobike.seen_as = Some(seen.data.clone());
        }
        let behind = self.nat.local || self.nat.peer;
        if behind && self.peer.as_ref().is_some_and(|peer| peer.ike.encap == EncapPolicy::None) {
            self.terminate(ctx, CloseReason::NatForbidden);
            return;
        }
        self.move_to(ctx, self.path);
    }

    /// RFC 4555 §3.5: with or without UDP encapsulation, as the message shows to be right.
    fn set_nats(&mut self, parts: &Parts<'_>) {
        let notifies = parts.notifies.iter().copied();
        let nat = natd::detect(self.spi_i, self.spi_r, self.heard_on, notifies);
        if !nat.supported {
            return;
        }
        self.nat = nat;
        let forced = self.peer.as_ref().is_some_and(|peer| peer.ike.encap == EncapPolicy::Udp);
        self.encap = nat.local || nat.peer || forced;
        if !nat.local {
            self.keepalive_at = None;
        }
    }

    fn nat_detection(&self, path: Path) -> [Payload; 2] {
        let pretend = self.peer.as_ref().is_some_and(|peer| peer.ike.encap == EncapPolicy::Udp);
        natd::notifies(self.spi_i, self.spi_r, path, pretend)
    }
}

/// Whether a CHILD_SA can go on elsewhere.
fn is_movable(child: &ChildSa) -> bool {
    child.mode == Mode::Tunnel || matches!(child.state, ChildState::Lingering(_))
}

/// The data of NO_NATS_ALLOWED (RFC 4555 §4.2.6): addresses, then ports, of source and destination.
fn ends(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut data = Vec::new();
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(ip) => data.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => data.extend_from_slice(&ip.octets()),
        }
    }
    for end in [source, destination] {
        data.extend_from_slice(&end.port().to_be_bytes());
    }
    data
}

/// What ADDITIONAL_IP4_ADDRESS and ADDITIONAL_IP6_ADDRESS say; malformed ones are passed over.
fn additional_addresses(parts: &Parts<'_>) -> Vec<IpAddr> {
    let address = |notify: &&Notify| match notify.notify_type {
        NotifyType::ADDITIONAL_IP4_ADDRESS => {
            <[u8; 4]>::try_from(notify.data.as_slice()).ok().map(IpAddr::from)
        }
        NotifyType::ADDITIONAL_IP6_ADDRESS => {
            <[u8; 16]>::try_from(notify.data.as_slice()).ok().map(IpAddr::from)
        }
        _ => None,
    };
    parts.notifies.iter().filter_map(address).take(limits::MAX_PEER_ADDRESSES).collect()
}
