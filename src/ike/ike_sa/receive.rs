//! What comes for an IKE SA: opened, judged, and handed to the exchange that it belongs to (RFC 7296 §2.1, §2.21).

use super::*;

impl IkeSa {
    /// A message with our SPI in it, other than one of IKE_SA_INIT.
    pub(in crate::ike) fn handle(
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

    pub(in crate::ike) fn move_to(&mut self, ctx: &mut Ctx<'_>, path: Path) {
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
    pub(in crate::ike) fn follow_hint(&mut self, ctx: &mut Ctx<'_>) {
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
}
