//! What an IKE SA has to do, one exchange after the other (RFC 7296 §2.3: our window is 1).

use super::*;

impl IkeSa {
    /// A packet wants a CHILD_SA.
    pub(in crate::ike) fn acquire(&mut self, wanted: Wanted) {
        self.queue(Task::CreateChild(Arc::clone(&wanted.child)));
        if self.wanted.iter().all(|other| other.child != wanted.child) {
            self.wanted.push(wanted);
        }
    }

    /// The packet that asked for a CHILD_SA by this policy, if one did.
    pub(in crate::ike) fn take_wanted(&mut self, child: &str) -> Option<Flow> {
        let at = self.wanted.iter().position(|wanted| *wanted.child == *child)?;
        Some(self.wanted.remove(at).flow)
    }

    pub(in crate::ike) fn queue(&mut self, task: Task) {
        if self.tasks.len() < limits::MAX_TASKS
            && !self.tasks.iter().any(|waiting| waiting.task == task)
        {
            self.tasks.push_back(Waiting { task, not_before: None });
        }
    }

    /// Tries again after TEMPORARY_FAILURE (RFC 7296 §2.25).
    pub(in crate::ike) fn queue_later(&mut self, ctx: &mut Ctx<'_>, task: Task) {
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
    pub(in crate::ike) fn is_put_off_for_good(&mut self, now: Instant) -> bool {
        let since = match self.put_off {
            Some((since, last)) if now < last + limits::PUT_OFF_GAP => since,
            _ => now,
        };
        self.put_off = Some((since, now));
        since + limits::PUT_OFF_TIME <= now
    }

    /// Whether the peer may have us do this work with keys, of so many microseconds, now.
    pub(in crate::ike) fn may_work(&mut self, now: Instant, group: KeId) -> bool {
        let cost = cost_of(group).min(limits::KEY_WORK_OF_PEER.burst);
        let may = self.key_work.take(now, limits::KEY_WORK_OF_PEER, cost);
        if !may {
            debug!(peer = %self.peer_name(), %group, "the peer asks for too much work with keys");
        }
        may
    }

    /// Begins the next task if none is under way.
    pub(in crate::ike) fn next_task(&mut self, ctx: &mut Ctx<'_>) {
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
                Task::Complain(spi, start) => self.begin_complaint(ctx, spi, start),
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
}
