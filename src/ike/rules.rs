//! Which payloads an exchange may and must have: checked before any handler sees them.
//!
//! A payload type that is known and not in the table of its exchange is ignored (RFC 7296 §2.5 has nothing against it); a known one
//! that may come once and comes twice makes the message malformed.

use crate::wire::ike::numbers::{ExchangeType, NotifyType, PayloadType};
use crate::wire::ike::payload::Payload;

/// What is wrong with the payloads of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// A payload with the critical bit, of a type that we do not know (RFC 7296 §2.5).
    Critical(PayloadType),
    /// A payload that must be there is missing.
    Missing(PayloadType),
    /// A payload that may be there once is there again.
    Repeated(PayloadType),
}

struct Rule {
    exchange: ExchangeType,
    response: bool,
    required: &'static [PayloadType],
}

/// Payloads without which a message means nothing. An error notify stands for all of them.
const RULES: &[Rule] = &[
    Rule {
        exchange: ExchangeType::IKE_SA_INIT,
        response: false,
        required: &[PayloadType::SA, PayloadType::KE, PayloadType::NONCE],
    },
    Rule {
        exchange: ExchangeType::IKE_SA_INIT,
        response: true,
        required: &[PayloadType::SA, PayloadType::KE, PayloadType::NONCE],
    },
    // A key exchange, a PPK, or both: `exchange::intermediate::needs`.
    Rule { exchange: ExchangeType::IKE_INTERMEDIATE, response: false, required: &[] },
    Rule { exchange: ExchangeType::IKE_INTERMEDIATE, response: true, required: &[] },
    // What it needs differs from round to round (RFC 7296 §2.16): `exchange::eap::needs`.
    Rule { exchange: ExchangeType::IKE_AUTH, response: false, required: &[] },
    Rule { exchange: ExchangeType::IKE_AUTH, response: true, required: &[] },
    Rule {
        exchange: ExchangeType::CREATE_CHILD_SA,
        response: false,
        required: &[PayloadType::SA, PayloadType::NONCE],
    },
    Rule {
        exchange: ExchangeType::CREATE_CHILD_SA,
        response: true,
        required: &[PayloadType::SA, PayloadType::NONCE],
    },
    Rule { exchange: ExchangeType::IKE_FOLLOWUP_KE, response: false, required: &[PayloadType::KE] },
    Rule { exchange: ExchangeType::IKE_FOLLOWUP_KE, response: true, required: &[PayloadType::KE] },
    Rule { exchange: ExchangeType::INFORMATIONAL, response: false, required: &[] },
    Rule { exchange: ExchangeType::INFORMATIONAL, response: true, required: &[] },
];

/// Payloads of which a message has one at most.
const ONCE: &[PayloadType] = &[
    PayloadType::SA,
    PayloadType::KE,
    PayloadType::ID_I,
    PayloadType::ID_R,
    PayloadType::AUTH,
    PayloadType::NONCE,
    PayloadType::TS_I,
    PayloadType::TS_R,
    PayloadType::EAP,
];

/// Checks the payloads of a message, those of an SK payload taken out of it. `needs` is what it has to have besides what its exchange
/// always has.
pub(super) fn check(
    exchange: ExchangeType,
    response: bool,
    payloads: &[Payload],
    needs: &[PayloadType],
) -> Result<(), Violation> {
    for payload in payloads {
        if let Payload::Unknown { payload_type, critical: true, .. } = payload {
            return Err(Violation::Critical(*payload_type));
        }
    }
    let count = |wanted: PayloadType| {
        payloads.iter().filter(|payload| payload.payload_type() == wanted).count()
    };
    if let Some(repeated) = ONCE.iter().find(|wanted| count(**wanted) > 1) {
        return Err(Violation::Repeated(*repeated));
    }
    let stands_for_all = payloads.iter().any(|payload| {
        matches!(payload, Payload::Notify(notify)
            if response && (notify.notify_type.is_error() || notify.notify_type == NotifyType::COOKIE))
    });
    if stands_for_all {
        return Ok(());
    }
    let required = RULES
        .iter()
        .find(|rule| rule.exchange == exchange && rule.response == response)
        .map_or(&[][..], |rule| rule.required);
    required
        .iter()
        .chain(needs)
        .find(|wanted| count(**wanted) == 0)
        .map_or(Ok(()), |missing| Err(Violation::Missing(*missing)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ike::numbers::KeId;
    use crate::wire::ike::payload::{Ke, Nonce, Notify, Sa};

    fn init() -> Vec<Payload> {
        vec![
            Payload::Sa(Sa { proposals: vec![] }),
            Payload::Ke(Ke { group: KeId::CURVE25519, data: vec![] }),
            Payload::Nonce(Nonce { data: vec![0; 16] }),
        ]
    }

    fn unknown(critical: bool) -> Payload {
        Payload::Unknown { payload_type: PayloadType(200), critical, body: vec![] }
    }

    #[test]
    fn each_required_payload_is_missed() {
        assert_eq!(check(ExchangeType::IKE_SA_INIT, false, &init(), &[]), Ok(()));
        for missing in 0..3 {
            let mut payloads = init();
            let gone = payloads.remove(missing).payload_type();
            assert_eq!(
                check(ExchangeType::IKE_SA_INIT, false, &payloads, &[]),
                Err(Violation::Missing(gone))
            );
        }
    }

    #[test]
    fn error_notify_stands_for_all_in_responses_alone() {
        let error = [Payload::Notify(Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, []))];
        assert_eq!(check(ExchangeType::IKE_SA_INIT, true, &error, &[]), Ok(()));
        assert!(check(ExchangeType::IKE_SA_INIT, false, &error, &[]).is_err());
    }

    #[test]
    fn unknown_payload_matters_only_if_critical() {
        let mut payloads = init();
        payloads.push(unknown(false));
        assert_eq!(check(ExchangeType::IKE_SA_INIT, false, &payloads, &[]), Ok(()));
        payloads.push(unknown(true));
        assert_eq!(
            check(ExchangeType::IKE_SA_INIT, false, &payloads, &[]),
            Err(Violation::Critical(PayloadType(200)))
        );
    }

    #[test]
    fn second_nonce_is_a_violation() {
        let mut payloads = init();
        payloads.push(Payload::Nonce(Nonce { data: vec![1; 16] }));
        assert_eq!(
            check(ExchangeType::IKE_SA_INIT, false, &payloads, &[]),
            Err(Violation::Repeated(PayloadType::NONCE))
        );
    }
}
