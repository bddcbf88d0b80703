//! INFORMATIONAL (RFC 7296 §1.4): deletes, errors, and nothing at all, which asks whether the other side lives.

use tracing::{debug, warn};

use super::{Parts, notify};
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::{Active, Ctx, IkeSa, Task};
use crate::ipsec::Spi;
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{ExchangeType, NotifyType, ProtocolId};
use crate::wire::ike::payload::{Notify, Payload};

impl IkeSa {
    pub(in crate::ike) fn handle_informational_request(
        &mut self,
        ctx: &mut Ctx<'_>,
        header: &Header,
        payloads: &[Payload],
    ) {
        let parts = Parts::of(payloads);
        self.take_token(&parts);
        let deletes_ike = payloads.iter().any(is_delete_of_ike);
        let mut answer = if deletes_ike { Vec::new() } else { self.handle_deletes(ctx, payloads) };
        if !deletes_ike {
            answer.extend(self.answer_mobike(ctx, &parts));
        }
        if parts.cp.is_some() && !deletes_ike {
            // RFC 7296 §1.4: whoever asks is answered.
            match self.answer_configuration(ctx, parts.cp) {
                Ok(reply) => answer.extend(reply),
                Err(refusal) => answer.push(notify(refusal, &[])),
            }
        }
        self.respond(ctx, header.exchange, header.message_id, &answer);
        if parts.notify(NotifyType::AUTHENTICATION_FAILED).is_some() {
            // The initiator could not authenticate us (RFC 7296 §2.21.2).
            self.close(ctx, CloseReason::AuthenticationRefused);
        } else if deletes_ike {
            self.deleted_by_peer(ctx);
        } else if parts.notify(NotifyType::AUTH_LIFETIME).is_some() {
            self.heed_auth_lifetime(ctx, &parts);
        } else if let Some(error) = parts.error() {
            // RFC 7296 §3.10.1: in a request, errors that mean nothing to us are ignored.
            match error.notify_type {
                NotifyType::INVALID_SPI | NotifyType::INVALID_SELECTORS => {
                    warn!(peer = %self.peer_name(), notify = %error.notify_type, "the peer dropped a packet of ours");
                }
                other => debug!(peer = %self.peer_name(), notify = %other, "error notify ignored"),
            }
        }
    }

    /// Tells the peer of a packet that the CHILD_SA with this inbound SPI may not carry, as soon as nothing else is under way
    /// (RFC 7296 §3.10.1). One such waits at a time.
    pub(in crate::ike) fn complain(&mut self, ctx: &mut Ctx<'_>, spi: Spi, start: Vec<u8>) {
        if self.is_established()
            && !self.tasks.iter().any(|waiting| matches!(waiting.task, Task::Complain(..)))
        {
            self.queue(Task::Complain(spi, start));
            self.next_task(ctx);
        }
    }

    pub(in crate::ike) fn begin_complaint(&mut self, ctx: &mut Ctx<'_>, spi: Spi, start: Vec<u8>) {
        let Some(child) = self.child(spi) else { return };
        let id = child.suite.protocol().id();
        let complaint = Notify {
            data: start,
            ..Notify::for_sa(id, spi.to_be_bytes(), NotifyType::INVALID_SELECTORS)
        };
        // The answer says that the peer lives, and nothing else.
        self.active = Some(Active::Liveness(ctx.now));
        self.request(ctx, ExchangeType::INFORMATIONAL, &[Payload::Notify(complaint)]);
    }
}

/// Whether this deletes the IKE SA (RFC 7296 §3.11).
pub(in crate::ike) fn is_delete_of_ike(payload: &Payload) -> bool {
    matches!(payload, Payload::Delete(delete) if delete.protocol == ProtocolId::IKE)
}
