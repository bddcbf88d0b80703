//! Quick crash detection (RFC 6290): a token for each IKE SA, which whoever has lost the IKE SA can make again, from a secret that
//! it has not lost. The other side learns it under protection and, should it come without, knows that the IKE SA is gone.

use super::exchange::{Parts, notify};
use super::ike_sa::IkeSa;
use super::limits;
use crate::crypto::Secret;
use crate::crypto::prf::Prf;
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{NotifyType, PrfId};
use crate::wire::ike::payload::Payload;

/// Bytes of our tokens: the least of RFC 6290 §5, so that an answer with one is no longer than the shortest request.
const TOKEN_LEN: usize = 16;

/// Our token for the IKE SA with these SPIs (RFC 6290 §5.1, with HMAC for the hash). `None` if there is no secret.
pub(super) fn token(secret: Option<&Secret>, spi_i: IkeSpi, spi_r: IkeSpi) -> Option<Payload> {
    let spis = [spi_i.0.to_be_bytes(), spi_r.0.to_be_bytes()];
    let prf = Prf::new(PrfId::PRF_HMAC_SHA2_256)?;
    let whole = prf.compute(secret?.expose(), &[&spis[0], &spis[1]]);
    let token = whole.expose().first_chunk::<TOKEN_LEN>()?;
    Some(notify(NotifyType::QUICK_CRASH_DETECTION, token))
}

impl IkeSa {
    /// Keeps the token that came in a protected message of this IKE SA, if one did.
    pub(super) fn take_token(&mut self, parts: &Parts<'_>) {
        let came = parts.notify(NotifyType::QUICK_CRASH_DETECTION);
        if let Some(came) = came.filter(|came| limits::QCD_TOKEN.contains(&came.data.len())) {
            self.qcd_token = Some(Secret::copy_of(&came.data));
        }
    }

    /// Whether the peer's token is among these payloads of an unprotected message: then it has lost the IKE SA.
    pub(super) fn is_disowned_by(&self, payloads: &[Payload]) -> bool {
        let Some(token) = &self.qcd_token else { return false };
        let parts = Parts::of(payloads);
        let mut tokens = parts
            .notifies
            .iter()
            .filter(|notify| notify.notify_type == NotifyType::QUICK_CRASH_DETECTION)
            .take(limits::MAX_QCD_TOKENS);
        tokens.any(|notify| Secret::copy_of(&notify.data) == *token)
    }
}
