//! The timers of an [`IkeSa`]: what each waits for, and what is done when it is due.

use std::sync::Arc;
use std::time::Instant;

use super::child_sa::{ChildSa, ChildState};
use super::event::{CloseReason, Event, Phase, TimerKind, Transmit};
use super::ike_sa::{Active, Ctx, IkeSa, State, Task};
use super::limits;
use super::window::Again;
use crate::ipsec::pad::StartPolicy;
use crate::ipsec::{SadUpdate, Spi};

impl IkeSa {
    /// The earliest thing that this IKE SA waits for.
    pub(super) fn deadline(&self) -> Option<(Instant, TimerKind)> {
        let mut all: Vec<(Option<Instant>, TimerKind)> = vec![
            (self.requests.deadline(), TimerKind::Retransmit),
            (self.fragmentation.deadline(), TimerKind::Reassembly),
        ];
        match self.state {
            State::Closed(until) => return Some((until, TimerKind::Linger)),
            State::InitAnswered(_) => {
                all.push((Some(self.created + limits::HALF_OPEN_TIME), TimerKind::HalfOpen));
            }
            State::Established => {
                all.push((self.rekey_at, TimerKind::Rekey));
                all.push((self.expire_at, TimerKind::Expire));
                all.push((self.authentication.again_at, TimerKind::Reauthenticate));
                all.push((self.authentication.expire_at, TimerKind::Expire));
                all.push((self.liveness_at(), TimerKind::Liveness));
                all.push((self.keepalive_at, TimerKind::Keepalive));
            }
            State::Replaced => all.push((self.expire_at, TimerKind::Expire)),
            State::InitSent(ref init) => {
                all.push((init.puzzle.as_ref().map(|(_, due)| *due), TimerKind::Puzzle));
            }
            State::IntermediateSent(_) | State::AuthSent(_) | State::Deleting => {}
        }
        all.extend(self.pending.iter().map(|pending| (Some(pending.until), TimerKind::HalfOpen)));
        if self.requests.is_idle() && self.pending.is_empty() {
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
        let idle = self.requests.is_idle() && self.pending.is_empty();
        let at = self.last_heard + delay;
        idle.then(|| self.liveness_from.map_or(at, |from| from.max(at)))
    }

    /// The peer's `dpd_delay` is another, as that of very many may be at once: those that have been silent for long are not asked
    /// in the same moment, but in the course of one delay.
    pub(super) fn spread_liveness(&mut self, ctx: &mut Ctx<'_>) {
        let share = f64::from(ctx.random_u32()) / f64::from(u32::MAX);
        let delay = self.peer.as_ref().and_then(|peer| peer.ike.dpd_delay);
        self.liveness_from = delay.map(|delay| ctx.now + delay.mul_f64(share));
    }

    pub(super) fn handle_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let now = ctx.now;
        self.fragmentation.expire(now);
        match self.requests.again(now, self.how) {
            Again::Wait => {}
            Again::GiveUp(tries) => {
                self.give_up(ctx, tries);
                return;
            }
            Again::Send(datagrams, tries) => {
                if self.hint_is_due(tries) {
                    self.give_up(ctx, tries);
                    return;
                }
                let peer = self.peer_name();
                ctx.events.push_back(Event::Progress { peer, phase: Phase::Retransmit { tries } });
                self.request_again(ctx, datagrams, tries);
            }
        }
        if matches!(self.state, State::InitAnswered(_))
            && self.created + limits::HALF_OPEN_TIME <= now
        {
            self.state = State::Closed(now);
            return;
        }
        self.work_on_puzzle(ctx);
        self.expire_pending(ctx);
        self.tend_children(ctx);
        if self.is_established() {
            let ends = [self.expire_at, self.authentication.expire_at];
            if ends.into_iter().flatten().any(|at| at <= now) {
                if self.requests.is_idle() {
                    self.terminate(ctx, CloseReason::Lifetime);
                } else {
                    // The peer has not answered all the while that a rekey was due.
                    self.close(ctx, CloseReason::Lifetime);
                    self.responses.fall_silent();
                }
                return;
            } else if self.rekey_at.is_some_and(|at| at <= now) {
                self.rekey_at = None;
                self.queue(Task::RekeyIke);
            }
            if self.authentication.again_at.is_some_and(|at| at <= now) {
                self.begin_reauth(ctx);
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
        let wanted = child.policy.start == StartPolicy::Now && child.resource.number().is_none();
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

    /// Ends an attempt that nobody has answered.
    pub(super) fn forsake(&mut self, ctx: &mut Ctx<'_>) {
        if matches!(self.state, State::InitSent(_)) {
            self.give_up(ctx, self.requests.times_sent());
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
            } else if matches!(self.state, State::IntermediateSent(_)) {
                "IKE_INTERMEDIATE"
            } else if matches!(self.active, Some(Active::Child(_) | Active::Ike(_))) {
                "CREATE_CHILD_SA"
            } else {
                "INFORMATIONAL"
            };
            CloseReason::Unreachable { exchange, tries }
        };
        self.close(ctx, reason);
        // The peer may hear us though we do not hear it. It is to find out as soon as we did.
        self.responses.fall_silent();
    }

    /// Whether it is one that the peer made while we were rekeying, too, and that may not be the one that stays.
    pub(super) fn is_candidate(&self) -> bool {
        self.is_established() && self.established.is_none()
    }

    /// RFC 7296 §2.21.1: an unprotected error may be a forgery, so a real answer is waited for a little longer.
    fn hint_is_due(&self, tries: u32) -> bool {
        matches!(&self.state, State::InitSent(init) if init.hint.is_some() && tries > init.hint_tries)
    }
}
