//! The door: datagrams that no IKE SA of ours is behind (RFC 7296 §2.4, §2.6, §1.5).
//!
//! Whoever sends them may not be where it says, and costs nothing to send. So an answer is never longer than what it answers
//! until a COOKIE has come back, each prefix of addresses has its own share, and what is looked at before a COOKIE takes
//! neither memory nor a key. Nothing here waits for the end of a flood: the configured addresses have shares of their own,
//! and a half-open IKE SA goes when there is no room, the oldest first.

use core::net::IpAddr;
use std::collections::HashMap;
use std::time::Instant;

use tracing::{debug, trace};

use super::Endpoint;
use crate::crypto::SecureRandom;
use crate::ike::cookie::CookieJar;
use crate::ike::exchange::Parts;
use crate::ike::glance::Glance;
use crate::ike::half_open::{HalfOpen, Prefix};
use crate::ike::ike_sa::{IkeSa, SaId, State};
use crate::ike::puzzle::{self, Puzzle};
use crate::ike::rate::{Bucket, Buckets, Rate, cost_of};
use crate::ike::{limits, qcd, rules};
use crate::ipsec::pad::{Peer, PeerAddress};
use crate::ipsec::{Path, Spi};
use crate::wire::ike::header::{Flags, Header, IkeSpi, PORT};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{ExchangeType, NotifyType, PayloadType, PrfId};
use crate::wire::ike::payload::{Notify, Payload};

/// What the door knows.
#[derive(Default)]
pub(super) struct Door {
    pub(super) half_open: HalfOpen,
    jar: Option<CookieJar>,
    /// The addresses that peers are configured with, and of how many.
    known: HashMap<IpAddr, usize>,
    errors: Share,
    hints: Share,
    strays: Share,
    beginnings: Buckets,
    /// Work with keys for strangers, and for configured addresses and those who solved a puzzle.
    work: [Bucket; 2],
    /// The same for strangers, by wide prefix.
    work_by_network: Buckets,
}

/// What is answered to strangers, and to configured addresses.
#[derive(Default)]
struct Share {
    /// Of strangers, and of configured addresses: no stranger shares a bucket with one of those.
    by_prefix: [Buckets; 2],
    strangers: Bucket,
    known: Bucket,
}

impl Share {
    fn allows(&mut self, now: Instant, from: IpAddr, known: bool, rates: [Rate; 2]) -> bool {
        let [each, all] = rates;
        let [strangers, configured] = &mut self.by_prefix;
        let (by_prefix, bucket) =
            if known { (configured, &mut self.known) } else { (strangers, &mut self.strangers) };
        bucket.level(now, all) > 0
            && by_prefix.take(now, each, Prefix::of(from), 1)
            && bucket.take(now, all, 1)
    }
}

impl Door {
    /// A peer is configured.
    pub(super) fn know(&mut self, peer: &Peer) {
        if let PeerAddress::Ip(addr) = peer.address {
            *self.known.entry(addr).or_default() += 1;
        }
    }

    /// It is no more.
    pub(super) fn forget(&mut self, peer: &Peer) {
        if let PeerAddress::Ip(addr) = peer.address
            && let Some(count) = self.known.get_mut(&addr)
        {
            *count -= 1;
            if *count == 0 {
                self.known.remove(&addr);
            }
        }
    }

    fn knows(&self, addr: IpAddr) -> bool {
        self.known.contains_key(&addr)
    }

    pub(super) fn rotate(&mut self, now: Instant, rng: &mut dyn SecureRandom) {
        if let Some(jar) = self.jar.as_mut() {
            jar.rotate(now, rng);
        }
    }

    /// Whether an error may be told, without protection, to who is not validated.
    fn may_answer(&mut self, now: Instant, from: IpAddr) -> bool {
        let known = self.knows(from);
        self.errors.allows(now, from, known, [limits::ERRORS_PER_PREFIX, limits::ERRORS])
    }
}

impl Endpoint {
    /// RFC 7296 §2.6: a request for a new IKE SA, from who knows whom.
    pub(super) fn handle_init_request(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        datagram: &[u8],
    ) {
        let in_form = header.spi_i.0 != 0
            && header.spi_r.0 == 0
            && header.message_id == 0
            && header.flags.initiator;
        self.stats.init_requests += 1;
        if !in_form || datagram.len() > limits::MAX_INIT_REQUEST {
            self.stats.init_malformed += 1;
            return;
        }
        let from = path.remote.ip();
        if let Some(id) = self.door.half_open.find(&(header.spi_i, path.remote)) {
            // RFC 7296 §2.1: of an IKE SA for which IKE_AUTH has come, it is ignored.
            if let Some(again) = self.sas.get(&id).and_then(|sa| sa.init_response_to(datagram)) {
                self.send(path, again);
            }
            return;
        }
        let glance = Glance::at(datagram);
        let given = glance.and_then(|glance| self.puzzle_given(now, path, header, glance));
        let validated = given.is_some();
        let pressed = self.is_pressed(now, from);
        if pressed && !validated {
            if let Some(glance) = glance {
                self.ask_for_cookie(now, path, header, glance, datagram);
            }
            return;
        }
        let Ok(message) = Message::parse(datagram) else {
            self.stats.init_malformed += 1;
            let syntax = NotifyType::INVALID_SYNTAX;
            self.answer_error(now, path, header, datagram.len(), syntax, &[]);
            return;
        };
        if let Err(violation) =
            rules::check(ExchangeType::IKE_SA_INIT, false, &message.payloads, &[])
        {
            debug!(?violation, remote = %path.remote, "IKE_SA_INIT refused");
            self.stats.init_malformed += 1;
            let (notify, data) = if let rules::Violation::Critical(payload_type) = violation {
                (NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, vec![payload_type.0])
            } else {
                (NotifyType::INVALID_SYNTAX, Vec::new())
            };
            self.answer_error(now, path, header, datagram.len(), notify, &data);
            return;
        }
        let has_solved = is_solved(&message, glance, given);
        let favoured = has_solved || validated && self.door.knows(from);
        if !self.may_begin(now, path, &message, pressed, favoured) {
            self.stats.init_limited += 1;
            // RFC 8019 §7.1.5: who got no puzzle with its COOKIE gets one; who did not solve it is refused.
            if let Some(glance) = glance.filter(|_| given == Some(0) && self.difficulty() > 0) {
                self.ask_for_cookie(now, path, header, glance, datagram);
            }
            return;
        }
        let mut touched = Vec::new();
        let mut ctx = self.context(now, &mut touched);
        match IkeSa::answer_init(&mut ctx, path, &message, datagram) {
            Ok((_, response)) if response.len() > datagram.len() && !validated => {
                if let Some(glance) = glance {
                    self.ask_for_cookie(now, path, header, glance, datagram);
                }
            }
            Ok((sa, response)) => {
                let (id, bytes) = (sa.id, datagram.len() + response.len());
                self.make_room(now, bytes);
                self.door.half_open.insert(id, (header.spi_i, path.remote), bytes);
                self.sas.insert(id, sa);
                self.settle(now, id);
                self.stats.init_accepted += 1;
                self.send(path, response);
            }
            Err(refusal) => {
                self.stats.init_refused += 1;
                if refusal.len() <= datagram.len() && self.door.may_answer(now, from) {
                    self.send(path, refusal);
                }
            }
        }
    }

    /// Whether strangers ask for so much that they have to show where they are first.
    fn is_pressed(&mut self, now: Instant, from: IpAddr) -> bool {
        let [strangers, _] = &mut self.door.work;
        self.door.half_open.len() >= self.config.cookie_threshold
            || self.door.half_open.count_in_prefix_of(from) >= limits::COOKIE_THRESHOLD_PER_PREFIX
            || strangers.level(now, limits::KEY_WORK) < limits::KEY_WORK.burst / 2
    }

    /// Whether the initiator may have an IKE SA begun: room, and a share of the work with keys.
    fn may_begin(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message,
        pressed: bool,
        favoured: bool,
    ) -> bool {
        let from = path.remote.ip();
        let group = Parts::of(&message.payloads).ke.map(|ke| ke.group);
        let cost = group.map_or(0, cost_of).min(limits::KEY_WORK_OF_NETWORK.burst);
        let Door { half_open, beginnings, work: [strangers, known], work_by_network, .. } =
            &mut self.door;
        if self.sas.len() >= limits::MAX_IKE_SAS
            || half_open.count_in_prefix_of(from) >= limits::MAX_HALF_OPEN_PER_PREFIX
        {
            return false;
        }
        let network = limits::KEY_WORK_OF_NETWORK;
        let may = if favoured {
            known.take(now, limits::KEY_WORK, cost)
        } else {
            strangers.level(now, limits::KEY_WORK) >= cost
                && (!pressed
                    || beginnings.take(now, limits::BEGINNINGS_PER_PREFIX, Prefix::of(from), 1))
                && work_by_network.take(now, network, Prefix::wide(from), cost)
                && strangers.take(now, limits::KEY_WORK, cost)
        };
        if may {
            self.stats.key_work += u64::from(cost);
        }
        may
    }

    /// Lets half-open IKE SAs go, the oldest first, until there is room for another.
    fn make_room(&mut self, now: Instant, bytes: usize) {
        while let Some(oldest) = self.door.half_open.to_make_room(bytes) {
            self.stats.half_open_evicted += 1;
            self.evict(now, oldest);
        }
    }

    fn evict(&mut self, now: Instant, id: SaId) {
        self.with(now, id, |sa, ctx| {
            trace!(remote = %sa.path.remote, "half-open IKE_SA makes room for another");
            sa.closed(ctx);
            sa.state = State::Closed(ctx.now);
        });
        // Even if there was none.
        self.door.half_open.remove(id);
    }

    /// How hard a puzzle is to go with a COOKIE, by how many are half-open; 0 for none.
    fn difficulty(&self) -> u8 {
        let [least, most] = limits::PUZZLE_BITS;
        let Some(above) = self.door.half_open.len().checked_sub(limits::PUZZLE_THRESHOLD) else {
            return 0;
        };
        let range = limits::MAX_HALF_OPEN - limits::PUZZLE_THRESHOLD;
        let more = usize::from(most - least) * above / range;
        least.saturating_add(u8::try_from(more).unwrap_or(u8::MAX)).min(most)
    }

    /// If the request brings a COOKIE of ours, the difficulty of the puzzle that went with it.
    fn puzzle_given(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        glance: Glance<'_>,
    ) -> Option<u8> {
        let (jar, cookie) = (self.door.jar.as_mut()?, glance.cookie?);
        jar.rotate(now, &mut *self.rng);
        jar.recognise(cookie, glance.nonce, path.remote, header.spi_i)
    }

    fn ask_for_cookie(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        glance: Glance<'_>,
        datagram: &[u8],
    ) {
        // The function has to be one that the initiator offers, so that here the request is parsed.
        let puzzle =
            Some(self.difficulty()).filter(|difficulty| *difficulty > 0).and_then(|difficulty| {
                let message = Message::parse(datagram).ok()?;
                Some(Puzzle { prf: prf_of(&message)?, difficulty })
            });
        let difficulty = puzzle.map_or(0, |puzzle| puzzle.difficulty);
        let jar = self.door.jar.get_or_insert_with(|| CookieJar::new(now, &mut *self.rng));
        jar.rotate(now, &mut *self.rng);
        let cookie = jar.bake(difficulty, glance.nonce, path.remote, header.spi_i);
        let header = Header::new(
            header.spi_i,
            IkeSpi(0),
            ExchangeType::IKE_SA_INIT,
            Flags::new(false, true),
            0,
        );
        let mut payloads = vec![Payload::Notify(Notify::new(NotifyType::COOKIE, cookie))];
        payloads.extend(puzzle.map(Puzzle::notify));
        let answer = Message { header, payloads }.emit();
        if answer.len() <= datagram.len() {
            self.stats.cookies_sent += 1;
            self.stats.puzzles_sent += u64::from(puzzle.is_some());
            self.send(path, answer);
        }
    }

    /// A message for an IKE SA that we do not have (RFC 7296 §1.5).
    pub(super) fn handle_stranger(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        datagram: &[u8],
    ) {
        if header.flags.response {
            return;
        }
        // Unprotected INVALID_SPI, which must not be answered: a hint for the SA that it names.
        if header.exchange == ExchangeType::INFORMATIONAL
            && header.next_payload == PayloadType::NOTIFY
            && let Ok(message) = Message::parse(datagram)
            && let Some(spi) = message.payloads.iter().find_map(invalid_spi)
        {
            let from = path.remote.ip();
            let known = self.door.knows(from);
            let rates = [limits::STRAYS_PER_PREFIX, limits::STRAYS];
            if self.door.strays.allows(now, from, known, rates) {
                self.hint_of_lost_child(now, path, spi);
            }
            return;
        }
        let unknown = Payload::Notify(Notify::new(NotifyType::INVALID_IKE_SPI, []));
        // A request too short for both has the token alone. It asks whether we live: that is as good an answer.
        let mut answers = Vec::new();
        if let Some(token) = self.token_of_lost(header) {
            answers.push(vec![unknown.clone(), token.clone()]);
            answers.push(vec![token]);
        }
        answers.push(vec![unknown]);
        self.answer_unprotected(now, path, header, datagram.len(), answers);
    }

    /// Our token for the IKE SA that this request is protected by, if that is one that we may have lost (RFC 6290 §3).
    fn token_of_lost(&self, header: &Header) -> Option<Payload> {
        let is_protected = matches!(header.next_payload, PayloadType::SK | PayloadType::SKF);
        // RFC 6290 §9.2: whoever gets the token of an IKE SA that is there can end it at the peer, so the flag that says which SPI is
        // ours must not decide.
        let is_ours = |spi: IkeSpi| spi.0 == 0 || self.sas.contains_key(&spi.0);
        if !is_protected || is_ours(header.spi_i) || is_ours(header.spi_r) {
            return None;
        }
        qcd::token(self.config.qcd_secret.as_ref(), header.spi_i, header.spi_r)
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

    /// Tells an error outside of any IKE SA, if it is not longer than the `received` bytes that it answers.
    pub(super) fn answer_error(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        received: usize,
        notify: NotifyType,
        data: &[u8],
    ) {
        let notify = Payload::Notify(Notify::new(notify, data));
        self.answer_unprotected(now, path, header, received, vec![vec![notify]]);
    }

    /// Answers a message outside of any IKE SA: the first of these answers that is not longer than the `received` bytes before it.
    fn answer_unprotected(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        received: usize,
        answers: Vec<Vec<Payload>>,
    ) {
        if header.flags.response {
            return;
        }
        let header = Header::new(
            header.spi_i,
            header.spi_r,
            header.exchange,
            Flags::new(!header.flags.initiator, true),
            header.message_id,
        );
        let mut answers = answers.into_iter().map(|payloads| Message { header, payloads }.emit());
        if let Some(answer) = answers.find(|answer| answer.len() <= received)
            && self.door.may_answer(now, path.remote.ip())
        {
            self.send(path, answer);
        }
    }

    /// RFC 7296 §1.5: a hint for the sender of a packet of `received` bytes, which may have missed a DELETE or our restart.
    pub(super) fn no_sa(&mut self, now: Instant, spi: Spi, mut path: Path) {
        // Protocols 50 and 51 have no ports.
        for end in [&mut path.local, &mut path.remote] {
            if end.port() == 0 {
                end.set_port(PORT);
            }
        }
        let from = path.remote.ip();
        let known = self.door.knows(from);
        if !self.door.hints.allows(now, from, known, [limits::HINTS_PER_PREFIX, limits::HINTS]) {
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
        self.send(path, Message { header, payloads: vec![notify] }.emit());
    }
}

/// Whether the request has solved the puzzle that it was given.
fn is_solved(message: &Message, glance: Option<Glance<'_>>, given: Option<u8>) -> bool {
    let Some(difficulty) = given.filter(|difficulty| *difficulty > 0) else { return false };
    let Some(Glance { cookie: Some(cookie), solution: Some(solution), .. }) = glance else {
        return false;
    };
    prf_of(message).is_some_and(|prf| Puzzle { prf, difficulty }.is_solved_by(cookie, solution))
}

fn prf_of(message: &Message) -> Option<PrfId> {
    Parts::of(&message.payloads).sa.and_then(puzzle::prf_for)
}

/// The SPI in an INVALID_SPI notify.
fn invalid_spi(payload: &Payload) -> Option<&[u8]> {
    let Payload::Notify(notify) = payload else { return None };
    (notify.notify_type == NotifyType::INVALID_SPI).then_some(&notify.data)
}
