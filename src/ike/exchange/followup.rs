//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4): after CREATE_CHILD_SA, one exchange for each additional key exchange that was agreed on there.
//! Until the last is done there is no new SA at either end, only what both remember: [`Series`] the initiator, [`Pending`] the
//! responder.

use std::collections::VecDeque;
use std::time::Instant;

use tracing::debug;

use super::create_child::{AgreedChild, ChildRequest, Occasion, lower};
use super::rekey::{AgreedIke, IkeRequest};
use super::{Parts, notify};
use crate::crypto::Secret;
use crate::crypto::dh::{self, KeyPair};
use crate::ike::child_sa::ChildState;
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::{Active, Ctx, IkeSa, Task};
use crate::ike::limits;
use crate::ike::proposal::{self, Made};
use crate::ipsec::Spi;
use crate::ipsec::suite::AddKe;
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{ExchangeType, KeId, NotifyType};
use crate::wire::ike::payload::{Ke, Payload};

/// What the initiator remembers.
pub(in crate::ike) struct Series {
    /// The answer to CREATE_CHILD_SA.
    pub(super) response: Vec<Payload>,
    /// The shared secrets so far.
    pub(super) secrets: Vec<Secret>,
    key: KeyPair,
    link: Vec<u8>,
    remaining: VecDeque<KeId>,
}

/// What becomes of a series with an answer.
pub(super) enum Step {
    /// It goes on with this request.
    Next([Payload; 2]),
    /// All secrets are there.
    Done,
    /// It came to nothing, for what the peer says, or for what it did.
    Failed(Option<NotifyType>),
}

impl Series {
    /// The series that the answer to CREATE_CHILD_SA asks for. `None` if there is nothing in it to go on with.
    fn begin(ctx: &mut Ctx<'_>, addke: AddKe, response: &[Payload]) -> Option<Self> {
        let link = Parts::of(response).notify(NotifyType::ADDITIONAL_KEY_EXCHANGE)?.data.clone();
        let mut remaining: VecDeque<KeId> = addke.methods().collect();
        let key = KeyPair::generate(remaining.pop_front()?, ctx.rng)?;
        Some(Self { response: response.to_vec(), secrets: Vec::new(), key, link, remaining })
    }

    fn request(&self) -> [Payload; 2] {
        [
            Payload::Ke(Ke { group: self.key.group(), data: self.key.public().to_vec() }),
            notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &self.link),
        ]
    }

    pub(super) fn take(&mut self, ctx: &mut Ctx<'_>, parts: &Parts<'_>) -> Step {
        let Some(ke) = parts.ke.filter(|ke| ke.group == self.key.group()) else {
            return Step::Failed(parts.error().map(|error| error.notify_type));
        };
        let Ok(shared) = self.key.agree(&ke.data) else { return Step::Failed(None) };
        self.secrets.push(shared);
        let Some(method) = self.remaining.pop_front() else { return Step::Done };
        let link = parts.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE);
        let (Some(link), Some(key)) = (link, KeyPair::generate(method, ctx.rng)) else {
            return Step::Failed(None);
        };
        self.link.clone_from(&link.data);
        self.key = key;
        Step::Next(self.request())
    }
}

/// What the responder remembers.
pub(in crate::ike) struct Pending {
    link: [u8; LINK_LEN],
    remaining: VecDeque<KeId>,
    secrets: Vec<Secret>,
    /// When the initiator has forgotten it.
    pub(in crate::ike) until: Instant,
    what: What,
}

/// What is made when all key exchanges are done.
pub(super) enum What {
    Child(Box<AgreedChild>),
    Ike(Box<AgreedIke>),
}

/// Bytes of our links, which mean something to us alone.
const LINK_LEN: usize = 8;

impl IkeSa {
    // Initiator.

    /// An answer to CREATE_CHILD_SA or IKE_FOLLOWUP_KE for a CHILD_SA.
    pub(in crate::ike) fn handle_child_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut request: ChildRequest,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        if let Some(mut series) = request.series.take() {
            match series.take(ctx, &parts) {
                Step::Next(next) => {
                    request.series = Some(series);
                    self.active = Some(Active::Child(Box::new(request)));
                    self.request(ctx, ExchangeType::IKE_FOLLOWUP_KE, &next);
                }
                Step::Done => {
                    self.series_failures = 0;
                    let Series { response, secrets, .. } = *series;
                    self.handle_create_child_response(ctx, request, &response, &secrets);
                }
                Step::Failed(error) => self.child_series_failed(ctx, request, error),
            }
            return;
        }
        let with_ke = request.key.is_some();
        let chosen = parts
            .sa
            .and_then(|sa| proposal::accept_child(&request.offer.proposals, sa, with_ke))
            .filter(|chosen| !chosen.addke.is_none());
        let (Some(chosen), Some(nonce)) = (chosen, parts.nonce) else {
            self.handle_create_child_response(ctx, request, payloads, &[]);
            return;
        };
        if let Some(collision) = &request.collision {
            if *lower(&request.nonce, &nonce.data) < *collision.lowest_nonce {
                // RFC 9370 §2.2.4: ours is the redundant one, and there is nothing to delete: it just stops.
                request.offer.forget(ctx);
                if collision.spi.is_some() {
                    self.survives(request.replaces);
                }
                return;
            }
            if collision.spi.is_none() {
                // The peer stops likewise.
                request.collision = None;
                self.drop_pending_of(ctx, request.replaces);
            }
        }
        let Some(series) = Series::begin(ctx, chosen.addke, payloads) else {
            let error = Some(NotifyType::NO_PROPOSAL_CHOSEN);
            self.child_series_failed(ctx, request, error);
            return;
        };
        let next = series.request();
        request.series = Some(Box::new(series));
        self.active = Some(Active::Child(Box::new(request)));
        self.request(ctx, ExchangeType::IKE_FOLLOWUP_KE, &next);
    }

    /// A series for a CHILD_SA came to nothing.
    fn child_series_failed(
        &mut self,
        ctx: &mut Ctx<'_>,
        request: ChildRequest,
        error: Option<NotifyType>,
    ) {
        let Some(error) = error else {
            // The peer may think that it has made an SA.
            let reason = CloseReason::PeerMisbehaved("it answered another key exchange");
            self.disown(ctx, &request.offer, None, None, reason);
            return;
        };
        request.offer.forget(ctx);
        if self.series_is_lost(ctx, error) {
            return;
        }
        if request.collision.as_ref().is_some_and(|collision| collision.spi.is_some()) {
            self.survives(request.replaces);
            return;
        }
        let wanted = request.replaces.is_none_or(|old| {
            self.child(old).is_some_and(|child| child.state == ChildState::Installed)
        });
        if wanted {
            self.queue_later(ctx, request.task());
        }
    }

    /// RFC 9370 §2.2.4: whose series the peer forgets again and again cannot go on with it.
    fn series_is_lost(&mut self, ctx: &mut Ctx<'_>, error: NotifyType) -> bool {
        debug!(peer = %self.peer_name(), notify = %error, "additional key exchanges refused");
        if error == NotifyType::STATE_NOT_FOUND {
            self.series_failures += 1;
        }
        let lost = self.series_failures > limits::MAX_SERIES_FAILURES;
        if lost {
            self.terminate(ctx, CloseReason::PeerNotify(error));
        }
        lost
    }

    /// An answer to CREATE_CHILD_SA or IKE_FOLLOWUP_KE for an IKE SA.
    pub(in crate::ike) fn handle_ike_answer(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut request: IkeRequest,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        if let Some(mut series) = request.series.take() {
            match series.take(ctx, &parts) {
                Step::Next(next) => {
                    request.series = Some(series);
                    self.active = Some(Active::Ike(Box::new(request)));
                    self.request(ctx, ExchangeType::IKE_FOLLOWUP_KE, &next);
                }
                Step::Done => {
                    self.series_failures = 0;
                    let Series { response, secrets, .. } = *series;
                    self.handle_rekey_ike_response(ctx, request, &response, &secrets);
                }
                Step::Failed(None) => {
                    // The peer may think that it has moved to a new IKE SA.
                    let reason = CloseReason::PeerMisbehaved("it answered another key exchange");
                    self.drop_rival(ctx, &request);
                    self.terminate(ctx, reason);
                }
                Step::Failed(Some(error)) => self.ike_series_failed(ctx, &request, error),
            }
            return;
        }
        let proposals = self.peer.as_ref().map(|peer| peer.ike.proposals.clone());
        let chosen = parts
            .sa
            .zip(proposals)
            .and_then(|(sa, proposals)| proposal::accept_ike(&proposals, sa, Made::Rekeyed))
            .filter(|chosen| !chosen.addke.is_none());
        let (Some(chosen), Some(nonce)) = (chosen, parts.nonce) else {
            self.handle_rekey_ike_response(ctx, request, payloads, &[]);
            return;
        };
        if let Some(collision) = &request.collision {
            if *lower(&request.nonce, &nonce.data) < *collision.lowest_nonce {
                // RFC 9370 §2.2.4, as above.
                if let Some(winner) = collision.id.and_then(|id| ctx.others.remove(&id)) {
                    self.hand_over(ctx, *winner);
                }
                return;
            }
            if collision.id.is_none() {
                request.collision = None;
                self.drop_pending_ike(ctx);
            }
        }
        let Some(series) = Series::begin(ctx, chosen.addke, payloads) else {
            self.ike_series_failed(ctx, &request, NotifyType::NO_PROPOSAL_CHOSEN);
            return;
        };
        let next = series.request();
        request.series = Some(Box::new(series));
        self.active = Some(Active::Ike(Box::new(request)));
        self.request(ctx, ExchangeType::IKE_FOLLOWUP_KE, &next);
    }

    fn ike_series_failed(&mut self, ctx: &mut Ctx<'_>, request: &IkeRequest, error: NotifyType) {
        if let Some(winner) = request.winner(ctx) {
            self.hand_over(ctx, winner);
        } else if !self.series_is_lost(ctx, error) {
            self.queue_later(ctx, Task::RekeyIke);
        }
    }

    // Responder.

    /// Remembers what is made when the additional key exchanges are done; the notify that the initiator takes up.
    pub(super) fn note_pending(&mut self, ctx: &mut Ctx<'_>, addke: AddKe, what: What) -> Payload {
        if self.pending.len() >= limits::MAX_PENDING {
            let oldest = self.pending.remove(0);
            forget(ctx, &oldest);
        }
        let pending = Pending {
            link: fresh_link(ctx),
            remaining: addke.methods().collect(),
            secrets: Vec::new(),
            until: ctx.now + limits::PENDING_TIME,
            what,
        };
        let payload = notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &pending.link);
        self.pending.push(pending);
        payload
    }

    pub(in crate::ike) fn handle_followup_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        let link = parts.notify(NotifyType::ADDITIONAL_KEY_EXCHANGE).map(|link| &link.data[..]);
        let at = self.pending.iter().position(|pending| Some(&pending.link[..]) == link);
        let answer = if let Some(at) = at {
            let pending = self.pending.remove(at);
            self.continue_pending(ctx, pending, &parts)
        } else {
            vec![notify(NotifyType::STATE_NOT_FOUND, &[])]
        };
        self.respond(ctx, header.exchange, header.message_id, &answer);
    }

    fn continue_pending(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut pending: Pending,
        parts: &Parts<'_>,
    ) -> Vec<Payload> {
        if parts.ke.is_some_and(|ke| !self.may_work(ctx.now, ke.group)) {
            forget(ctx, &pending);
            return vec![notify(NotifyType::TEMPORARY_FAILURE, &[])];
        }
        let method = pending.remaining.pop_front();
        let response = parts
            .ke
            .filter(|ke| Some(ke.group) == method)
            .and_then(|ke| dh::respond(ke.group, &ke.data, ctx.rng))
            .and_then(Result::ok);
        let (Some(group), Some(response)) = (method, response) else {
            forget(ctx, &pending);
            return vec![notify(NotifyType::INVALID_SYNTAX, &[])];
        };
        pending.secrets.push(response.shared);
        let mut answer = vec![Payload::Ke(Ke { group, data: response.public })];
        if !pending.remaining.is_empty() {
            pending.link = fresh_link(ctx);
            pending.until = ctx.now + limits::PENDING_TIME;
            answer.push(notify(NotifyType::ADDITIONAL_KEY_EXCHANGE, &pending.link));
            self.pending.push(pending);
            return answer;
        }
        let made = match pending.what {
            What::Child(agreed) => self.make_pending_child(ctx, *agreed, &pending.secrets),
            What::Ike(agreed) => self.make_pending_ike(ctx, *agreed, &pending.secrets),
        };
        if made.is_none() {
            return vec![notify(NotifyType::NO_PROPOSAL_CHOSEN, &[])];
        }
        answer
    }

    fn make_pending_child(
        &mut self,
        ctx: &mut Ctx<'_>,
        agreed: AgreedChild,
        additional: &[Secret],
    ) -> Option<()> {
        // What it replaces may have ended meanwhile; then there is nothing that packets could take until the peer has it.
        let replaces = agreed.replaces.filter(|old| {
            self.child(*old).is_some_and(|child| child.state == ChildState::Installed)
        });
        let lowest_nonce = agreed.lowest_nonce();
        let answered = self.make_child(ctx, agreed, additional)?;
        let spi = answered.child.spi_inbound;
        self.install_answered(ctx, answered, Occasion::create(replaces));
        if let Some(old) = replaces {
            self.note_peer_rekeyed(old, Some(spi), lowest_nonce);
        }
        Some(())
    }

    /// What the peer did not finish is forgotten. It wanted a rekey, so there is to be one.
    pub(in crate::ike) fn expire_pending(&mut self, ctx: &mut Ctx<'_>) {
        while let Some(at) = self.pending.iter().position(|pending| pending.until <= ctx.now) {
            let pending = self.pending.remove(at);
            debug!(peer = %self.peer_name(), "the peer did not go on with its additional key exchanges");
            forget(ctx, &pending);
            match &pending.what {
                What::Child(agreed) => {
                    let old = agreed.replaces.and_then(|old| self.child(old));
                    if let Some(old) = old.filter(|old| old.state == ChildState::Installed) {
                        let task = Task::RekeyChild(old.spi_inbound);
                        self.queue(task);
                    }
                }
                What::Ike(_) => self.queue(Task::RekeyIke),
            }
        }
    }

    /// Forgets all of it: there is nothing to make an SA under any more.
    pub(in crate::ike) fn drop_pending(&mut self, ctx: &mut Ctx<'_>) {
        for pending in core::mem::take(&mut self.pending) {
            forget(ctx, &pending);
        }
    }

    /// Whether the peer is about to replace this CHILD_SA.
    pub(super) fn is_pending(&self, old: Spi) -> bool {
        self.pending.iter().any(|pending| replaces(pending, Some(old)))
    }

    /// The peer's series that replaces `old` does not go on.
    pub(super) fn drop_pending_of(&mut self, ctx: &mut Ctx<'_>, old: Option<Spi>) {
        self.drop_pending_if(ctx, |pending| old.is_some() && replaces(pending, old));
    }

    /// The same of one that replaces the IKE SA.
    pub(super) fn drop_pending_ike(&mut self, ctx: &mut Ctx<'_>) {
        self.drop_pending_if(ctx, |pending| matches!(pending.what, What::Ike(_)));
    }

    fn drop_pending_if(&mut self, ctx: &mut Ctx<'_>, which: impl Fn(&Pending) -> bool) {
        while let Some(at) = self.pending.iter().position(&which) {
            let pending = self.pending.remove(at);
            forget(ctx, &pending);
        }
    }
}

fn replaces(pending: &Pending, old: Option<Spi>) -> bool {
    matches!(&pending.what, What::Child(agreed) if agreed.replaces == old)
}

/// The SPI is free again.
fn forget(ctx: &mut Ctx<'_>, pending: &Pending) {
    if let What::Child(agreed) = &pending.what {
        ctx.spis.remove(&agreed.spi_inbound);
    }
}

fn fresh_link(ctx: &mut Ctx<'_>) -> [u8; LINK_LEN] {
    let mut link = [0; LINK_LEN];
    ctx.rng.fill(&mut link);
    link
}
