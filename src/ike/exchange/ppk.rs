//! Post-quantum preshared keys: named in IKE_AUTH and mixed into SK_d, SK_pi and SK_pr (RFC 8784), or named in the last
//! IKE_INTERMEDIATE and mixed into every key (RFC 9867 §3.1). CREATE_CHILD_SA has none of its own: what RFC 9867 says of that is
//! not done.

use tracing::{debug, warn};

use super::auth::Signed;
use super::sa_init::InitDone;
use super::{Parts, notify};
use crate::ike::event::CloseReason;
use crate::ike::ike_sa::IkeSa;
use crate::ike::keymat::{IkeKeys, PPK_CONFIRMATION_LEN, ppk_confirmation};
use crate::ike::limits;
use crate::ipsec::pad::{Peer, Ppk};
use crate::wire::ike::numbers::NotifyType;
use crate::wire::ike::payload::{Auth, Notify, Payload};

/// What both sides have said of PPKs, and what has come of it.
#[derive(Default)]
pub(in crate::ike) enum PpkUse {
    /// Nothing.
    #[default]
    None,
    /// USE_PPK: the initiator names one in IKE_AUTH.
    InAuth,
    /// USE_PPK_INT: it names one in the last IKE_INTERMEDIATE.
    InIntermediate,
    /// One is in SK_d, SK_pi and SK_pr, which are here beside those without it.
    Mixed(Box<IkeKeys>),
    /// This one is in all keys.
    Through(Box<Ppk>),
}

impl PpkUse {
    /// What comes of these notifies of the other side's IKE_SA_INIT, where we have a PPK.
    ///
    /// RFC 9867 §3.1: of the two ways, the one that protects the IKE SA itself.
    pub(super) fn agreed(parts: &Parts<'_>) -> Self {
        let has = |wanted| parts.notify(wanted).is_some();
        if has(NotifyType::USE_PPK_INT) && has(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED) {
            Self::InIntermediate
        } else if has(NotifyType::USE_PPK) {
            Self::InAuth
        } else {
            Self::None
        }
    }

    /// What the responder says in its turn: one of them, never both (RFC 9867 §3.1).
    pub(super) fn answer(&self) -> Option<Payload> {
        match self {
            Self::InAuth => Some(notify(NotifyType::USE_PPK, &[])),
            Self::InIntermediate => Some(notify(NotifyType::USE_PPK_INT, &[])),
            Self::None | Self::Mixed(_) | Self::Through(_) => None,
        }
    }
}

/// What an initiator with a PPK says in IKE_SA_INIT.
pub(super) fn offer() -> [Payload; 2] {
    [notify(NotifyType::USE_PPK, &[]), notify(NotifyType::USE_PPK_INT, &[])]
}

/// Who a peer says it is, to be verified: the AUTH data, and the octets that they are to be made over.
pub(super) struct Claim<'a> {
    pub(super) signed: Signed<'a>,
    pub(super) data: &'a [u8],
    /// The keys that were used, where a PPK of this peer's is in them.
    pub(super) mixed: Option<Box<IkeKeys>>,
}

impl IkeSa {
    // Initiator.

    /// Mixes in the PPK that this peer has for IKE_AUTH. `None` if there are no keys.
    pub(super) fn mix_ppk(&self, init: &mut InitDone, peer: &Peer) -> Option<()> {
        if let (PpkUse::InAuth, Some(ppk)) = (&init.ppk, &peer.ppk) {
            let prf = self.session.as_ref()?.suite.prf;
            init.ppk = PpkUse::Mixed(Box::new(init.keys.with_ppk(prf, &ppk.key)?));
        }
        Some(())
    }

    /// What names the PPK in IKE_AUTH, beside AUTH; `plain` is what that would be without a PPK, for a responder that has
    /// another (RFC 8784 §3).
    pub(super) fn ppk_notifies(
        &self,
        init: &InitDone,
        peer: &Peer,
        plain: impl FnOnce(&Signed<'_>) -> Result<Vec<u8>, CloseReason>,
    ) -> Result<Vec<Payload>, CloseReason> {
        let (PpkUse::Mixed(_), Some(ppk)) = (&init.ppk, &peer.ppk) else { return Ok(Vec::new()) };
        let mut notifies = vec![notify(NotifyType::PPK_IDENTITY, &wire_id(ppk))];
        if !ppk.required {
            const FAILED: CloseReason = CloseReason::CannotSign("the IKE_SA has no keys");
            let signed = self.signed_by(init, &init.keys, self.initiator).ok_or(FAILED)?;
            notifies.push(notify(NotifyType::NO_PPK_AUTH, &plain(&signed)?));
        }
        Ok(notifies)
    }

    /// The responder's AUTH has come: whether it goes on with the PPK.
    pub(super) fn settle_ppk(
        &self,
        init: &mut InitDone,
        peer: &Peer,
        parts: &Parts<'_>,
    ) -> Result<(), CloseReason> {
        let is_used = parts.notify(NotifyType::PPK_IDENTITY).is_some();
        if matches!(init.ppk, PpkUse::Mixed(_)) && !is_used {
            if peer.ppk.as_ref().is_some_and(|ppk| ppk.required) {
                return Err(CloseReason::Ppk("the peer does not have the one that we name"));
            }
            init.ppk = PpkUse::None;
        }
        Ok(())
    }

    /// What names the PPK in IKE_INTERMEDIATE (RFC 9867 §3.1).
    pub(super) fn ppk_identity_key(&self, init: &InitDone, peer: &Peer) -> Option<Payload> {
        let ppk = peer.ppk.as_ref()?;
        let confirmation = self.confirmation(init, ppk)?;
        let data = [wire_id(ppk).as_slice(), &confirmation].concat();
        Some(notify(NotifyType::PPK_IDENTITY_KEY, &data))
    }

    /// Initiator: the responder's answer to it; the PPK to be mixed in, if it is to be.
    pub(super) fn ppk_of_answer(
        peer: &Peer,
        parts: &Parts<'_>,
    ) -> Result<Option<Box<Ppk>>, CloseReason> {
        let Some(ppk) = &peer.ppk else { return Ok(None) };
        match parts.notify(NotifyType::PPK_IDENTITY) {
            Some(named) if named.data == wire_id(ppk) => Ok(Some(Box::new(ppk.clone()))),
            Some(_) => Err(CloseReason::PeerMisbehaved("it chose a PPK that was not named")),
            None if ppk.required => {
                Err(CloseReason::Ppk("the peer does not have the one that we name"))
            }
            None => Ok(None),
        }
    }

    // Responder.

    /// Which of the PPKs that the initiator names in IKE_INTERMEDIATE one of these peers has, the same key under the same name.
    pub(super) fn ppk_by_key(
        &self,
        init: &InitDone,
        candidates: &[std::sync::Arc<Peer>],
        parts: &Parts<'_>,
    ) -> Option<Box<Ppk>> {
        let named = parts
            .notifies
            .iter()
            .filter(|notify| notify.notify_type == NotifyType::PPK_IDENTITY_KEY)
            .take(limits::MAX_PPKS_NAMED);
        for Notify { data, .. } in named {
            let at = data.len().checked_sub(PPK_CONFIRMATION_LEN);
            let Some((id, confirmation)) = at.and_then(|at| data.split_at_checked(at)) else {
                continue;
            };
            let ppks = candidates.iter().filter_map(|peer| peer.ppk.as_ref());
            let found = ppks.filter(|ppk| wire_id(ppk) == id).take(limits::MAX_AUTH_CANDIDATES);
            for ppk in found {
                // It shows which key is meant and proves nothing: IKE_AUTH does.
                if self.confirmation(init, ppk).is_some_and(|ours| ours == confirmation) {
                    return Some(Box::new(ppk.clone()));
                }
            }
        }
        None
    }

    /// What AUTH is to be if the other side is this peer: with the PPK that it names, or without (RFC 8784 §3, table 1).
    pub(super) fn claim<'a>(
        &self,
        init: &'a InitDone,
        peer: &Peer,
        auth: &'a Auth,
        parts: &Parts<'a>,
    ) -> Result<Claim<'a>, CloseReason> {
        const FAILED: CloseReason = CloseReason::AuthenticationOfPeer;
        let by_initiator = !self.initiator;
        if self.initiator {
            let signed = self.signed(init, by_initiator).ok_or(FAILED)?;
            return Ok(Claim { signed, data: &auth.data, mixed: None });
        }
        let ours = peer.ppk.as_ref();
        let is_required = ours.is_some_and(|ppk| ppk.required);
        let mut data = auth.data.as_slice();
        let mut mixed = None;
        match &init.ppk {
            PpkUse::Through(used) if ours.is_some_and(|ppk| ppk.key == used.key) => {}
            PpkUse::Through(_) => {
                return Err(CloseReason::Ppk("the peer uses one that is not its own"));
            }
            PpkUse::InAuth => {
                let named = parts
                    .notify(NotifyType::PPK_IDENTITY)
                    .ok_or(CloseReason::Ppk("the peer agreed on one and names none"))?;
                let known = ours.filter(|ppk| wire_id(ppk) == named.data);
                let plain = parts.notify(NotifyType::NO_PPK_AUTH);
                match (known, plain) {
                    (Some(ppk), _) => {
                        let prf = self.session.as_ref().ok_or(FAILED)?.suite.prf;
                        let keys = init.keys.with_ppk(prf, &ppk.key).ok_or(FAILED)?;
                        mixed = Some(Box::new(keys));
                    }
                    (None, Some(plain)) if !is_required => data = &plain.data,
                    (None, _) => {
                        return Err(CloseReason::Ppk(
                            "the peer names one that it does not have here",
                        ));
                    }
                }
            }
            PpkUse::None | PpkUse::InIntermediate | PpkUse::Mixed(_) if is_required => {
                return Err(CloseReason::Ppk("the peer does without"));
            }
            PpkUse::None | PpkUse::InIntermediate | PpkUse::Mixed(_) => {}
        }
        let keys = mixed.as_deref().unwrap_or(&init.keys);
        let signed = self.signed_by(init, keys, by_initiator).ok_or(FAILED)?;
        Ok(Claim { signed, data, mixed })
    }

    /// What goes with the responder's AUTH if the PPK is used.
    pub(super) fn ppk_answer(init: &InitDone) -> Option<Payload> {
        matches!(init.ppk, PpkUse::Mixed(_)).then(|| notify(NotifyType::PPK_IDENTITY, &[]))
    }

    // Both.

    /// IKE_AUTH is done: what is made from here on comes from SK_d with the PPK.
    pub(super) fn conclude_ppk(&mut self, init: &InitDone, peer: &Peer) {
        if let (PpkUse::Mixed(keys), Some(session)) = (&init.ppk, &mut self.session) {
            session.sk_d = keys.sk_d.clone();
        }
        self.ppk = matches!(init.ppk, PpkUse::Mixed(_) | PpkUse::Through(_));
        // RFC 8784 §6: that is worth to be known.
        if peer.ppk.is_some() && !self.ppk {
            warn!(peer = %peer.name, "the IKE_SA goes without the PPK that is configured: the peer does not use it");
        } else if self.ppk {
            debug!(peer = %peer.name, "a PPK is in the keys");
        }
    }

    fn confirmation(&self, init: &InitDone, ppk: &Ppk) -> Option<[u8; PPK_CONFIRMATION_LEN]> {
        let prf = self.session.as_ref()?.suite.prf;
        let (nonce_i, nonce_r) = (&init.nonce_i, &init.nonce_r);
        ppk_confirmation(prf, &ppk.key, nonce_i, nonce_r, self.spi_i, self.spi_r)
    }
}

/// What the responder says of the PPK that it has found in IKE_INTERMEDIATE.
pub(super) fn ppk_identity(ppk: &Ppk) -> Payload {
    notify(NotifyType::PPK_IDENTITY, &wire_id(ppk))
}

/// PPK_ID (RFC 8784 §5.1).
fn wire_id(ppk: &Ppk) -> Vec<u8> {
    const PPK_ID_FIXED: u8 = 2;
    [&[PPK_ID_FIXED], ppk.id.as_slice()].concat()
}
