//! INFORMATIONAL (RFC 7296 §1.4): deletes, errors, and nothing at all, which asks whether the other side lives.

use tracing::{debug, warn};

use super::{Parts, notify};
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::{Ctx, IkeSa};
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{NotifyType, ProtocolId};
use crate::wire::ike::payload::Payload;

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
}

/// Whether this deletes the IKE SA (RFC 7296 §3.11).
pub(in crate::ike) fn is_delete_of_ike(payload: &Payload) -> bool {
    matches!(payload, Payload::Delete(delete) if delete.protocol == ProtocolId::IKE)
}
