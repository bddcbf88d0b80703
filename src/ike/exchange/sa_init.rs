//! IKE_SA_INIT (RFC 7296 §1.2, §2.6): algorithms, key exchange, NAT detection, before anybody is authenticated.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tracing::debug;

use super::ppk::{self, PpkUse};
use super::reauth::Authentication;
use super::{Parts, auth, notify, wanted_group};
use crate::crypto::dh::{self, KeyPair};
use crate::crypto::secret::wipe_stack;
use crate::ike::announce;
use crate::ike::cert;
use crate::ike::event::{CloseReason, Event, Phase};
use crate::ike::frag::{self, Fragmentation};
use crate::ike::ike_sa::{Ctx, IkeSa, Session, State, Wanted};
use crate::ike::keymat::{IkeKeys, IntAuth};
use crate::ike::limits;
use crate::ike::natd::{self, Nat, PORT_NATT};
use crate::ike::proposal::{self, Made};
use crate::ike::puzzle::{Puzzle, Solver};
use crate::ike::rate::Bucket;
use crate::ike::rules;
use crate::ike::window::{Requests, Responses, Retransmission};
use crate::ipsec::pad::{EncapPolicy, Fragments, Peer};
use crate::ipsec::suite::IkeProposal;
use crate::ipsec::{Encap, Path};
use crate::wire::ike::header::{Flags, Header, IkeSpi};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{ExchangeType, KeId, NotifyType};
use crate::wire::ike::payload::{Ke, Nonce, Payload};

/// What the initiator keeps between request and response.
pub(in crate::ike) struct InitSent {
    key: KeyPair,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    /// The puzzle that is being solved, and when it goes on.
    pub(in crate::ike) puzzle: Option<(Solver, Instant)>,
    /// The solution that goes with the COOKIE.
    solution: Option<Payload>,
    retries: u32,
    groups_tried: Vec<KeId>,
    /// What an unprotected error said (RFC 7296 §2.21.1), and after how many transmissions.
    pub(in crate::ike) hint: Option<CloseReason>,
    pub(in crate::ike) hint_tries: u32,
}

/// Algorithms and keys are agreed: what IKE_AUTH needs of this exchange.
pub(in crate::ike) struct InitDone {
    /// The initiator's IKE_SA_INIT message, as sent last.
    pub(in crate::ike) request: Vec<u8>,
    /// The responder's.
    pub(in crate::ike) response: Vec<u8>,
    pub(in crate::ike) nonce_i: Vec<u8>,
    pub(in crate::ike) nonce_r: Vec<u8>,
    /// The keys, after as many additional key exchanges as have been made.
    pub(in crate::ike) keys: IkeKeys,
    /// The additional key exchanges that are still to be made.
    pub(in crate::ike) additional: VecDeque<KeId>,
    /// What those that have been made add to AUTH.
    pub(in crate::ike) int_auth: IntAuth,
    pub(in crate::ike) terms: cert::Terms,
    /// Responder: the list of SUPPORTED_AUTH_METHODS that goes with the next IKE_INTERMEDIATE.
    pub(in crate::ike) to_announce: Option<Vec<u8>>,
    pub(in crate::ike) ppk: PpkUse,
    /// Initiator: the peer takes an IKE_AUTH without CHILD_SA (RFC 6023).
    pub(in crate::ike) may_be_childless: bool,
}

impl InitDone {
    /// Whether an IKE_INTERMEDIATE may follow: for a key exchange, or for a PPK.
    pub(in crate::ike) fn awaits_intermediate(&self) -> bool {
        !self.additional.is_empty() || matches!(self.ppk, PpkUse::InIntermediate)
    }
}

impl IkeSa {
    fn blank(
        initiator: bool,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        path: Path,
        state: State,
        how: Retransmission,
        ctx: &Ctx<'_>,
    ) -> Self {
        Self {
            id: if initiator { spi_i.0 } else { spi_r.0 },
            peer: None,
            initiator,
            spi_i,
            spi_r,
            path,
            heard_on: path,
            mobike: None,
            nat: Nat::default(),
            encap: false,
            session: None,
            state,
            requests: Requests::up_to(ctx.last_message_id),
            responses: Responses::new(),
            how,
            fragmentation: Fragmentation::default(),
            tasks: VecDeque::new(),
            wanted: Vec::new(),
            active: None,
            children: Vec::new(),
            pending: Vec::new(),
            series_failures: 0,
            created: ctx.now,
            authentication: Authentication::begun(ctx.now),
            reauth: None,
            key_work: Bucket::default(),
            established: None,
            rekey_at: None,
            expire_at: None,
            last_heard: ctx.now,
            liveness_from: None,
            keepalive_at: None,
            last_hint: None,
            put_off: None,
            names_peer: true,
            peer_identity: None,
            eap_identity: None,
            ppk: false,
            qcd_token: None,
            leased: Vec::new(),
            configuration: None,
        }
    }

    /// The IKE SA that replaces this one, its ends and messages numbered anew (RFC 7296 §2.18).
    pub(in crate::ike) fn successor(
        &self,
        ctx: &Ctx<'_>,
        initiator: bool,
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        session: Session,
    ) -> Self {
        let mut sa =
            Self::blank(initiator, spi_i, spi_r, self.path, State::Established, self.how, ctx);
        sa.peer.clone_from(&self.peer);
        sa.peer_identity.clone_from(&self.peer_identity);
        sa.eap_identity.clone_from(&self.eap_identity);
        sa.mobike.clone_from(&self.mobike);
        sa.heard_on = self.heard_on;
        sa.ppk = self.ppk;
        sa.nat = self.nat;
        sa.encap = self.encap;
        sa.fragmentation = self.fragmentation.successor();
        sa.session = Some(session);
        sa.keepalive_at = self.keepalive_at;
        sa.authentication = self.authentication.clone();
        sa.reauth.clone_from(&self.reauth);
        sa.key_work = self.key_work;
        sa
    }

    /// Begins an IKE SA with a peer. `None` if none of its groups is ours.
    pub(in crate::ike) fn initiate(
        ctx: &mut Ctx<'_>,
        peer: Arc<Peer>,
        path: Path,
        wanted: Option<Wanted>,
    ) -> Option<Self> {
        let group = peer
            .ike
            .proposals
            .iter()
            .flat_map(|proposal| &proposal.ke)
            .copied()
            .find(|group| dh::supported(*group))?;
        let key = KeyPair::generate(group, ctx.rng)?;
        let nonce = ctx.random_bytes(limits::NONCE_LEN);
        let spi_i = ctx.fresh_ike_spi();
        let init = InitSent {
            key,
            nonce,
            cookie: None,
            puzzle: None,
            solution: None,
            retries: 0,
            groups_tried: vec![group],
            hint: None,
            hint_tries: 0,
        };
        let how = Retransmission::of(&peer.ike);
        let mut sa =
            Self::blank(true, spi_i, IkeSpi(0), path, State::InitSent(Box::new(init)), how, ctx);
        ctx.events
            .push_back(Event::Progress { peer: Arc::clone(&peer.name), phase: Phase::IkeSaInit });
        sa.peer = Some(peer);
        sa.wanted.extend(wanted);
        sa.send_init(ctx);
        Some(sa)
    }

    /// Sends IKE_SA_INIT, for the first time or with what the responder asked for.
    fn send_init(&mut self, ctx: &mut Ctx<'_>) {
        let (State::InitSent(init), Some(peer)) = (&self.state, &self.peer) else { return };
        let mut payloads = Vec::new();
        // RFC 7296 §2.6: the COOKIE first, all else unchanged.
        payloads.extend(init.cookie.as_ref().map(|cookie| notify(NotifyType::COOKIE, cookie)));
        payloads.extend(init.solution.clone());
        payloads.push(Payload::Sa(proposal::ike_offer(&peer.ike.proposals, None)));
        payloads
            .push(Payload::Ke(Ke { group: init.key.group(), data: init.key.public().to_vec() }));
        payloads.push(Payload::Nonce(Nonce { data: init.nonce.clone() }));
        let pretend = peer.ike.encap == EncapPolicy::Udp;
        payloads.extend(natd::notifies(self.spi_i, IkeSpi(0), self.path, pretend));
        if peer.ike.fragmentation.fragments != Fragments::No {
            payloads.push(frag::supported());
        }
        if peer.auth.has_signature() {
            payloads.push(cert::hash_algorithms());
        }
        if peer.ike.childless {
            // Means nothing to the responder (RFC 6023), but leaves room for its own.
            payloads.push(notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED, &[]));
        }
        // RFC 9370 §2.2.1: whoever offers additional key exchanges must have the exchange that carries them.
        if has_additional(&peer.ike.proposals) || peer.ppk.is_some() {
            payloads.push(notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]));
        }
        if peer.ppk.is_some() {
            payloads.extend(ppk::offer());
        }
        let header = Header::new(
            self.spi_i,
            IkeSpi(0),
            ExchangeType::IKE_SA_INIT,
            Flags::new(true, false),
            0,
        );
        let datagram = Message { header, payloads }.emit();
        self.requests.withdraw();
        self.requests.sent(ctx.now, vec![datagram.clone()], self.how);
        self.transmit(ctx, datagram);
    }

    /// Initiator: the answer. Nothing in it is authenticated, so what makes no sense is ignored and waited past.
    pub(in crate::ike) fn handle_init_response(
        &mut self,
        ctx: &mut Ctx<'_>,
        path: Path,
        message: &Message,
        datagram: &[u8],
    ) {
        if !self.initiator
            || message.header.message_id != 0
            || !message.header.flags.response
            || message.header.flags.initiator
        {
            return;
        }
        if rules::check(ExchangeType::IKE_SA_INIT, true, &message.payloads, &[]).is_err() {
            return;
        }
        let Some(peer) = self.peer.clone() else { return };
        let times_sent = self.requests.times_sent();
        let State::InitSent(init) = &mut self.state else { return };
        // Whatever else comes meanwhile is no answer: there is no request under way.
        if init.puzzle.is_some() {
            return;
        }
        let parts = Parts::of(&message.payloads);

        if parts.sa.is_none() {
            let puzzle = parts.notify(NotifyType::PUZZLE);
            if puzzle.is_some() && parts.notify(NotifyType::COOKIE).is_none() {
                // RFC 8019 §7.1.2: nothing to solve it with, so the message is ignored.
                return;
            }
            if let Some(cookie) = parts.notify(NotifyType::COOKIE) {
                let valid = (1..=limits::MAX_COOKIE).contains(&cookie.data.len());
                if valid
                    && init.retries < limits::MAX_INIT_RETRIES
                    && init.cookie.as_deref() != Some(&cookie.data)
                {
                    init.retries += 1;
                    init.cookie = Some(cookie.data.clone());
                    init.solution = None;
                    init.puzzle = puzzle
                        .and_then(Puzzle::parse)
                        .and_then(|puzzle| Solver::new(puzzle, &cookie.data))
                        .map(|solver| (solver, ctx.now));
                    ctx.events.push_back(Event::Progress {
                        peer: Arc::clone(&peer.name),
                        phase: Phase::Cookie,
                    });
                    if init.puzzle.is_some() {
                        // The request is answered; the next one waits for the solution.
                        self.requests.withdraw();
                    } else {
                        self.send_init(ctx);
                    }
                }
                return;
            }
            if let Some(wanted) = parts.notify(NotifyType::INVALID_KE_PAYLOAD) {
                let offered = wanted_group(wanted)
                    .filter(|group| {
                        peer.ike.proposals.iter().any(|proposal| proposal.ke.contains(group))
                    })
                    .filter(|group| !init.groups_tried.contains(group));
                if let Some(group) = offered
                    && init.retries < limits::MAX_INIT_RETRIES
                    && let Some(key) = KeyPair::generate(group, ctx.rng)
                {
                    init.retries += 1;
                    init.groups_tried.push(group);
                    init.key = key;
                    ctx.events.push_back(Event::Progress {
                        peer: Arc::clone(&peer.name),
                        phase: Phase::InvalidKe,
                    });
                    self.send_init(ctx);
                    return;
                }
            }
            if let Some(error) = parts.error()
                && init.hint.is_none()
            {
                init.hint = Some(match error.notify_type {
                    NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => {
                        CloseReason::NoProposal("IKE_SA")
                    }
                    other => CloseReason::PeerNotify(other),
                });
                init.hint_tries = times_sent;
            }
            return;
        }

        let (Some(sa), Some(ke), Some(nonce)) = (parts.sa, parts.ke, parts.nonce) else { return };
        let spi_r = message.header.spi_r;
        let intermediate = parts.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED).is_some();
        let made = Made::First { intermediate };
        let chosen = proposal::accept_ike(&peer.ike.proposals, sa, made);
        let Some(chosen) = chosen.filter(|chosen| {
            spi_r.0 != 0 && chosen.suite.ke == init.key.group() && ke.group == init.key.group()
        }) else {
            init.hint.get_or_insert(CloseReason::PeerMisbehaved(
                "it chose algorithms that were not offered",
            ));
            init.hint_tries = times_sent;
            return;
        };
        let Ok(shared) = init.key.agree(&ke.data) else {
            init.hint
                .get_or_insert(CloseReason::PeerMisbehaved("it sent a bad key exchange value"));
            init.hint_tries = times_sent;
            return;
        };
        let ppk = peer.ppk.as_ref().map(|ppk| (PpkUse::agreed(&parts), ppk.required));
        if matches!(ppk, Some((PpkUse::None, true))) {
            // RFC 8784 §6: this answer may be a forgery, so another one is waited for.
            init.hint.get_or_insert(CloseReason::Ppk("the peer does without"));
            init.hint_tries = times_sent;
            return;
        }
        let ppk = ppk.map(|(agreed, _)| agreed).unwrap_or_default();
        let nonce_i = init.nonce.clone();
        let Some(keys) =
            IkeKeys::derive(chosen.suite, &nonce_i, &nonce.data, self.spi_i, spi_r, &shared)
        else {
            return;
        };
        let Some(session) = Session::new(chosen.suite, &keys, true) else { return };
        ctx.export(self.spi_i, spi_r, chosen.suite, &keys);

        let policy = peer.ike.fragmentation;
        let agreed = policy.fragments != Fragments::No && frag::is_supported(&parts);
        self.fragmentation = Fragmentation::new(agreed, policy);
        self.nat = natd::detect(self.spi_i, spi_r, path, parts.notifies.iter().copied());
        let pretend = peer.ike.encap == EncapPolicy::Udp;
        let nat = self.nat.local || self.nat.peer;
        if nat && peer.ike.encap == EncapPolicy::None {
            self.close(ctx, CloseReason::NatForbidden);
            return;
        }
        let request = self.requests.datagram().map(<[u8]>::to_vec).unwrap_or_default();
        self.requests.answered(ctx.now);
        self.spi_r = spi_r;
        self.session = Some(session);
        self.encap = nat || pretend;
        // RFC 7296 §2.23: from here on port 4500, at both ends. RFC 4555 §3.3: also where a NAT may come between them later.
        let floats = self.encap || (peer.ike.mobike && self.nat.supported);
        if floats && self.path.encap == Encap::Plain {
            self.path.local.set_port(PORT_NATT);
            self.path.remote.set_port(PORT_NATT);
            self.path.encap = Encap::Udp;
        }
        let done = InitDone {
            request,
            response: datagram.to_vec(),
            nonce_i,
            nonce_r: nonce.data.clone(),
            keys,
            additional: chosen.addke.methods().collect(),
            int_auth: IntAuth::default(),
            terms: cert::Terms::agreed(peer.auth.has_signature(), &parts),
            to_announce: None,
            ppk,
            may_be_childless: parts.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED).is_some(),
        };
        wipe_stack();
        self.after_init(ctx, done);
    }

    /// Initiator: goes on solving the puzzle, a slice at a time, so that nothing else waits for it (RFC 8019 §7.1.2).
    pub(in crate::ike) fn work_on_puzzle(&mut self, ctx: &mut Ctx<'_>) {
        let State::InitSent(init) = &mut self.state else { return };
        let Some((solver, due)) = init.puzzle.as_mut().filter(|(_, due)| *due <= ctx.now) else {
            return;
        };
        *due = ctx.now + limits::PUZZLE_REST;
        let solution = solver.work(limits::PUZZLE_SLICE);
        if solution.is_some() || solver.is_hopeless() {
            // Without a solution the COOKIE alone goes back, and the responder decides.
            init.puzzle = None;
            init.solution = solution;
            self.send_init(ctx);
        }
    }

    /// Responder: a request for a new IKE SA, its COOKIE checked where one is asked for. The answer
    /// goes with it; it may be an error instead.
    pub(in crate::ike) fn answer_init(
        ctx: &mut Ctx<'_>,
        path: Path,
        message: &Message,
        datagram: &[u8],
    ) -> Result<(Self, Vec<u8>), Vec<u8>> {
        let spi_i = message.header.spi_i;
        let refuse = |notify_type, data: &[u8]| {
            let header = Header::new(
                spi_i,
                IkeSpi(0),
                ExchangeType::IKE_SA_INIT,
                Flags::new(false, true),
                0,
            );
            Message { header, payloads: vec![notify(notify_type, data)] }.emit()
        };
        let parts = Parts::of(&message.payloads);
        let (Some(sa), Some(ke), Some(nonce)) = (parts.sa, parts.ke, parts.nonce) else {
            return Err(refuse(NotifyType::INVALID_SYNTAX, &[]));
        };
        let intermediate = parts.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED).is_some();
        let made = Made::First { intermediate };
        let candidates = ctx.peers.candidates(path);
        let mut chosen = None;
        // In the order of `candidates`.
        let mut accepting = Vec::new();
        for peer in candidates {
            if let Some(found) = proposal::choose_ike(&peer.ike.proposals, sa, made, Some(ke.group))
            {
                let suite = chosen.get_or_insert_with(|| found.clone()).suite;
                if suite == found.suite {
                    accepting.push(peer);
                }
            }
        }
        let Some(chosen) = chosen else {
            debug!(remote = %path.remote, "no common proposal for an IKE_SA");
            return Err(refuse(NotifyType::NO_PROPOSAL_CHOSEN, &[]));
        };
        if chosen.suite.ke != ke.group {
            return Err(refuse(NotifyType::INVALID_KE_PAYLOAD, &chosen.suite.ke.0.to_be_bytes()));
        }
        let dh::Response { public, shared } = dh::respond(ke.group, &ke.data, ctx.rng)
            .ok_or_else(|| refuse(NotifyType::NO_PROPOSAL_CHOSEN, &[]))?
            .map_err(|_| refuse(NotifyType::INVALID_SYNTAX, &[]))?;
        let nonce_r = ctx.random_bytes(limits::NONCE_LEN);
        let spi_r = ctx.fresh_ike_spi();
        let (keys, session) =
            IkeKeys::derive(chosen.suite, &nonce.data, &nonce_r, spi_i, spi_r, &shared)
                .and_then(|keys| {
                    Session::new(chosen.suite, &keys, false).map(|session| (keys, session))
                })
                .ok_or_else(|| refuse(NotifyType::NO_PROPOSAL_CHOSEN, &[]))?;
        ctx.export(spi_i, spi_r, chosen.suite, &keys);
        wipe_stack();

        let nat = natd::detect(spi_i, IkeSpi(0), path, parts.notifies.iter().copied());
        let pretend =
            accepting.iter().any(|peer| peer.ike.encap == EncapPolicy::Udp) && nat.supported;
        let mut payloads = vec![
            Payload::Sa(proposal::answer_ike(&chosen, None)),
            Payload::Ke(Ke { group: ke.group, data: public }),
            Payload::Nonce(Nonce { data: nonce_r.clone() }),
        ];
        if nat.supported {
            payloads.extend(natd::notifies(spi_i, spi_r, path, pretend));
        }
        let takes_fragments = |peer: &&Arc<Peer>| peer.ike.fragmentation.fragments != Fragments::No;
        let fragmentation = accepting
            .iter()
            .find(takes_fragments)
            .filter(|_| frag::is_supported(&parts))
            .map(|peer| Fragmentation::new(true, peer.ike.fragmentation))
            .unwrap_or_default();
        if fragmentation.agreed {
            payloads.push(frag::supported());
        }
        let signs = accepting.iter().any(|peer| peer.auth.has_signature());
        if signs {
            payloads.push(cert::hash_algorithms());
        }
        if intermediate {
            payloads.push(notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]));
        }
        let has_ppk = accepting.iter().any(|peer| peer.ppk.is_some());
        let ppk = if has_ppk { PpkUse::agreed(&parts) } else { PpkUse::None };
        payloads.extend(ppk.answer());
        // RFC 7296 §1.2: the responder asks for certificates here, the initiator in IKE_AUTH.
        payloads.extend(cert::request(accepting.iter().map(|peer| &peer.auth.peer)));
        let header =
            Header::new(spi_i, spi_r, ExchangeType::IKE_SA_INIT, Flags::new(false, true), 0);
        let mut message = Message { header, payloads };
        let mut response = message.emit();
        let mut add = |payload: Payload| {
            message.payloads.push(payload);
            let longer = message.emit();
            let fits = longer.len() <= datagram.len();
            if fits {
                response = longer;
            } else {
                message.payloads.pop();
            }
            fits
        };
        // RFC 6023 §3, where there is room: for this alone no initiator is asked for a COOKIE.
        add(notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED, &[]));
        // RFC 9593 §3.1, likewise; in IKE_INTERMEDIATE, if there is one anyway, nobody else sees the list.
        let list = announce::list(accepting.iter().map(|peer| &peer.auth.peer));
        let is_later = !chosen.addke.is_none() || matches!(ppk, PpkUse::InIntermediate);
        let announced = list.filter(|list| {
            let shown: &[u8] = if is_later { &[] } else { list };
            add(announce::payload(shown))
        });

        let Some(how) = accepting.first().map(|peer| Retransmission::of(&peer.ike)) else {
            return Err(refuse(NotifyType::NO_PROPOSAL_CHOSEN, &[]));
        };
        let done = InitDone {
            request: datagram.to_vec(),
            response: response.clone(),
            nonce_i: nonce.data.clone(),
            nonce_r,
            keys,
            additional: chosen.addke.methods().collect(),
            int_auth: IntAuth::default(),
            terms: cert::Terms::agreed(signs, &parts),
            to_announce: announced.filter(|_| is_later),
            ppk,
            may_be_childless: true,
        };
        let awaited = auth::Awaited { init: done, candidates: accepting, serving: None };
        let mut sa = Self::blank(
            false,
            spi_i,
            spi_r,
            path,
            State::InitAnswered(Box::new(awaited)),
            how,
            ctx,
        );
        sa.nat = nat;
        sa.encap = nat.local || nat.peer || pretend;
        sa.session = Some(session);
        sa.fragmentation = fragmentation;
        sa.responses.answered(vec![response.clone()]);
        Ok((sa, response))
    }
}

/// Whether a proposal has any additional key exchange.
fn has_additional(proposals: &[IkeProposal]) -> bool {
    let additional = |method: &KeId| *method != KeId::NONE;
    proposals.iter().flat_map(|proposal| &proposal.addke).flatten().any(additional)
}
