//! CREATE_CHILD_SA as responder (RFC 7296 §1.3.1, §1.3.3): what is asked for is checked, made, and answered.

use super::*;

impl IkeSa {
    pub(in crate::ike) fn handle_create_child_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        let is_ike = parts.sa.is_some_and(|sa| {
            sa.proposals.first().is_some_and(|proposal| proposal.protocol == ProtocolId::IKE)
        });
        let answer = if is_ike {
            self.answer_rekey_ike(ctx, &parts)
        } else {
            self.answer_create_child(ctx, &parts)
        };
        let payloads = answer.unwrap_or_else(|refusal| {
            debug!(peer = %self.peer_name(), notify = %refusal.notify, "CREATE_CHILD_SA refused");
            vec![refusal.payload()]
        });
        self.respond(ctx, header.exchange, header.message_id, &payloads);
    }

    fn answer_create_child(
        &mut self,
        ctx: &mut Ctx<'_>,
        parts: &Parts<'_>,
    ) -> Result<Vec<Payload>, Refusal> {
        // RFC 7296 §2.25.2: not while the IKE SA itself is being replaced or closed.
        if !matches!(self.state, State::Established)
            || matches!(self.active, Some(Active::Ike(_) | Active::DeleteIke))
        {
            return Err(Refusal::new(NotifyType::TEMPORARY_FAILURE));
        }
        let rekeyed = match parts.notify(NotifyType::REKEY_SA) {
            None => None,
            Some(rekey) => Some(self.rekeyed_child(rekey)?),
        };
        self.forget_lingering(ctx);
        if self.children.len() >= limits::MAX_CHILD_SAS {
            return Err(Refusal::new(NotifyType::NO_ADDITIONAL_SAS));
        }
        if parts.ke.is_some_and(|ke| !self.may_work(ctx.now, ke.group)) {
            return Err(Refusal::new(NotifyType::TEMPORARY_FAILURE));
        }
        // RFC 7296 §2.19: any request for a CHILD_SA may ask for an address, until there is one.
        let configured = match rekeyed {
            None => self.answer_configuration(ctx, parts.cp).map_err(Refusal::new)?,
            Some(_) => None,
        };
        let nonce_r = ctx.random_bytes(limits::NONCE_LEN);
        let nonce_i = parts.nonce.map(|nonce| nonce.data.as_slice()).unwrap_or_default();
        let nonces = Nonces { i: nonce_i, r: &nonce_r };
        let agreed = match self.agree_child(ctx, parts, rekeyed, &nonces) {
            Ok(agreed) => agreed,
            Err(refusal) => {
                let is_failure = !matches!(
                    refusal.notify,
                    NotifyType::INVALID_KE_PAYLOAD | NotifyType::TS_MAX_QUEUE
                );
                if rekeyed.is_none() && is_failure {
                    self.announce_child_failed(ctx, parts, refusal.notify);
                }
                return Err(refusal);
            }
        };
        if rekeyed.is_some() {
            // Whoever begins once more has given up what it began before.
            self.drop_pending_of(ctx, rekeyed);
        }
        let lowest_nonce = agreed.lowest_nonce();
        if !agreed.chosen.addke.is_none() {
            let mut payloads = agreed.payloads.clone();
            payloads.insert(1, Payload::Nonce(Nonce { data: nonce_r }));
            payloads.splice(0..0, configured);
            if let Some(old) = rekeyed {
                self.note_peer_rekeyed(old, None, lowest_nonce);
            }
            let (addke, what) = (agreed.chosen.addke, What::Child(Box::new(agreed)));
            payloads.push(self.note_pending(ctx, addke, what));
            return Ok(payloads);
        }
        let answered = self
            .make_child(ctx, agreed, &[])
            .ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?;
        let spi = answered.child.spi_inbound;
        let mut payloads = self.install_answered(ctx, answered, Occasion::create(rekeyed));
        payloads.insert(1, Payload::Nonce(Nonce { data: nonce_r }));
        payloads.splice(0..0, configured);
        if let Some(old) = rekeyed {
            self.note_peer_rekeyed(old, Some(spi), lowest_nonce);
        }
        Ok(payloads)
    }

    /// Responder of IKE_AUTH: its CHILD_SA, or why there is none.
    pub(in crate::ike::exchange) fn answer_child(
        &self,
        ctx: &mut Ctx<'_>,
        parts: &Parts<'_>,
        nonces: &Nonces<'_>,
    ) -> Result<Answered, Refusal> {
        let agreed = self.agree_child(ctx, parts, None, nonces)?;
        self.make_child(ctx, agreed, &[]).ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))
    }

    /// Responder: agrees to the peer's offer, or says why not. `replaces` names the CHILD_SA that it rekeys.
    fn agree_child(
        &self,
        ctx: &mut Ctx<'_>,
        parts: &Parts<'_>,
        replaces: Option<Spi>,
        nonces: &Nonces<'_>,
    ) -> Result<AgreedChild, Refusal> {
        let peer = self.peer.clone().ok_or(Refusal::new(NotifyType::NO_ADDITIONAL_SAS))?;
        let old =
            replaces.and_then(|spi| self.children.iter().find(|child| child.spi_inbound == spi));
        // CREATE_CHILD_SA has a nonce of its own, IKE_AUTH has not.
        let is_auth = parts.auth.is_some() && parts.nonce.is_none();
        let only = old.or_else(|| self.first_asked_for(parts));
        let mut found = self.find_policy(&peer, parts, only, !is_auth).map_err(Refusal::new)?;
        let resource = self.resource_asked(&mut found, parts, replaces)?;
        let Found { policy, chosen, mode, ts_local, ts_peer } = found;
        let mut key = None;
        let mut shared = None;
        if let Some(group) = chosen.ke {
            let theirs = parts
                .ke
                .filter(|ke| ke.group == group)
                .ok_or_else(|| Refusal::invalid_ke(group))?;
            let ours = dh::respond(group, &theirs.data, ctx.rng)
                .ok_or(Refusal::new(NotifyType::NO_PROPOSAL_CHOSEN))?
                .map_err(|_| Refusal::new(NotifyType::INVALID_SYNTAX))?;
            shared = Some(ours.shared);
            key = Some(Ke { group, data: ours.public });
        }
        let spi_outbound = spi_of(&chosen.peer_spi)
            .filter(|spi| self.is_fresh_at_peer(chosen.suite.protocol(), *spi))
            .ok_or(Refusal::new(NotifyType::INVALID_SYNTAX))?;
        let spi_inbound = ctx.fresh_spi(self.id, resource);
        let mut payloads = vec![Payload::Sa(proposal::answer_child(&chosen, spi_inbound))];
        if mode == Mode::Transport {
            payloads.push(notify(NotifyType::USE_TRANSPORT_MODE, &[]));
        }
        if resource != Resource::None && replaces.is_none() {
            payloads.push(notify(NotifyType::SA_RESOURCE_INFO, &[]));
        }
        payloads.extend(key.map(Payload::Ke));
        payloads.push(Payload::TsI(Ts { selectors: ts_peer.clone() }));
        payloads.push(Payload::TsR(Ts { selectors: ts_local.clone() }));
        Ok(AgreedChild {
            replaces,
            spi_inbound,
            spi_outbound,
            policy,
            chosen,
            mode,
            ts_local,
            ts_peer,
            origin: self.origin(replaces, false, nonces),
            resource,
            shared,
            nonce_i: nonces.i.to_vec(),
            nonce_r: nonces.r.to_vec(),
            payloads,
        })
    }

    /// Makes the CHILD_SA, `additional` being the shared secrets of the key exchanges that followed.
    pub(in crate::ike::exchange) fn make_child(
        &self,
        ctx: &mut Ctx<'_>,
        agreed: AgreedChild,
        additional: &[Secret],
    ) -> Option<Answered> {
        let AgreedChild { spi_inbound, spi_outbound, policy, chosen, mode, .. } = agreed;
        let (nonce_i, nonce_r) = (&agreed.nonce_i, &agreed.nonce_r);
        let keys = self.session.as_ref().and_then(|session| {
            let (prf, sk_d) = (session.suite.prf, &session.sk_d);
            let shared = agreed.shared.as_ref();
            child_keys(prf, sk_d, chosen.suite, shared, additional, nonce_i, nonce_r)
        });
        let (Some(peer), Some(keys)) = (self.peer.clone(), keys) else {
            ctx.spis.remove(&spi_inbound);
            return None;
        };
        let jitter = ctx.random_u32();
        let made = Agreed {
            policy,
            spi_inbound,
            spi_outbound,
            suite: chosen.suite,
            mode,
            ts_local: agreed.ts_local,
            ts_peer: agreed.ts_peer,
            path: self.esp_path(),
            initiator: false,
            origin: agreed.origin,
            resource: agreed.resource,
            keys,
        };
        let (child, inbound, outbound) = ChildSa::new(&peer, made, ctx.now, jitter);
        Some(Answered { child, inbound, outbound, payloads: agreed.payloads })
    }

    /// Installs what [`Self::answer_child`] agreed to. One that replaces another is not sent on until the peer has it (RFC 7296 §2.8).
    pub(in crate::ike::exchange) fn install_answered(
        &mut self,
        ctx: &mut Ctx<'_>,
        answered: Answered,
        occasion: Occasion,
    ) -> Vec<Payload> {
        let Answered { mut child, inbound, outbound, payloads } = answered;
        ctx.sad(SadUpdate::AddInbound(inbound));
        let serves = |other: &ChildSa| other.state == ChildState::Installed && other.covers(&child);
        let has_like = self.children.iter().any(serves)
            || ctx
                .others
                .beside(self)
                .into_iter()
                .any(|other| other.is_established() && other.children.iter().any(serves));
        let outbound = if occasion == Occasion::Rekey || has_like {
            Some(outbound)
        } else {
            // There is no older SA that packets could take in the meantime: what is sent at once may be lost, what is
            // not sent is lost for certain.
            ctx.sad(SadUpdate::AddOutbound(outbound));
            child.outbound_installed = true;
            None
        };
        // Nothing waits for a peer to have the CHILD_SA of IKE_AUTH, and one that has not repeats its request: to ask as well would
        // make up a third of the messages of a set-up.
        let is_asked = occasion != Occasion::IkeAuth || outbound.is_some();
        if occasion == Occasion::Rekey || !is_asked {
            self.announce_child(ctx, &child, occasion == Occasion::Rekey);
        }
        if is_asked {
            let wait = match occasion {
                Occasion::IkeAuth | Occasion::New => limits::CONFIRM_AFTER,
                Occasion::Rekey => limits::CONFIRM_REKEYED_AFTER,
            };
            let (ask_at, announce) = (Some(ctx.now + wait), occasion != Occasion::Rekey);
            child.unconfirmed = Some(Unconfirmed { ask_at, outbound, announce });
        }
        self.children.push(child);
        payloads
    }
}
