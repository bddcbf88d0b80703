//! [`Service`]: which security services an SA gives (RFC 4301 §3.1, §4.1; RFC 4302 §1, RFC 4303 §1).

use super::{Mode, SaParams, Suite};
use crate::wire::ike::numbers::{EncrId, IntegId};

/// A service, in the order of RFC 4301 §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Only what the selectors allow passes.
    AccessControl,
    /// A packet that was changed is detected.
    ConnectionlessIntegrity,
    /// A packet is from who it claims to be from.
    DataOriginAuthentication,
    /// A packet that was received before is detected and rejected: a form of partial sequence integrity.
    ReplayProtection,
    /// What is in a packet cannot be read.
    Confidentiality,
    /// Who talks to whom, how much and when, is hidden to some degree.
    TrafficFlowConfidentiality,
}

/// Whether a service is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Which.
    pub service: Service,
    /// Whether.
    pub given: bool,
    /// By what, or why not.
    pub why: String,
}

impl Service {
    /// Its name in RFC 4301 §3.1.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccessControl => "access control",
            Self::ConnectionlessIntegrity => "connectionless integrity",
            Self::DataOriginAuthentication => "data origin authentication",
            Self::ReplayProtection => "replay protection",
            Self::Confidentiality => "confidentiality",
            Self::TrafficFlowConfidentiality => "limited traffic flow confidentiality",
        }
    }
}

/// Every service, given by an SA, and by the AH around it, or not. `inbound`: whose window it is.
#[must_use]
pub fn of(params: &SaParams, around: Option<&SaParams>, inbound: bool) -> Vec<Given> {
    let given = |service, given, why| Given { service, given, why };
    // RFC 8221 §6: there is no SA without integrity.
    let integrity = match params.suite {
        Suite::Ah(suite) => suite.integ.to_string(),
        Suite::Esp(suite) if suite.integ != IntegId::NONE => suite.integ.to_string(),
        // RFC 7296 §3.3: a combined-mode cipher has no integrity algorithm beside it.
        Suite::Esp(suite) => suite.encr.to_string(),
    };
    let integrity = match (params.suite, around) {
        (Suite::Ah(_), _) => format!("{integrity}, over the IP header before it too"),
        (Suite::Esp(_), Some(around)) => {
            format!("{integrity}, and {} over the IP header too", around.suite)
        }
        (Suite::Esp(_), None) => format!("{integrity}, not over the IP header before it"),
    };
    let encryption = match params.suite {
        Suite::Ah(_) => Err("AH does not encrypt"),
        // RFC 2410, RFC 4543: these authenticate and do not encrypt.
        Suite::Esp(suite)
            if matches!(suite.encr.id, EncrId::ENCR_NULL | EncrId::ENCR_NULL_AUTH_AES_GMAC) =>
        {
            Err("the suite has no encryption")
        }
        Suite::Esp(suite) => Ok(suite.encr.to_string()),
    };
    let bits = if params.suite.esn() { 64 } else { 32 };
    let replay = match (inbound, params.replay_window) {
        (true, 0) => (false, "replay-window is 0".to_owned()),
        (true, window) => (true, format!("a window of {window} packets, {bits} bit numbers")),
        // RFC 4303 §1: solely at the discretion of the receiver.
        (false, _) => (true, format!("{bits} bit numbers, which the peer checks if it likes")),
    };
    // RFC 4303 §1: effective only where the ultimate addresses are concealed, as in tunnel mode.
    let flow = match (&encryption, params.mode, params.tfc) {
        (Err(why), _, _) => (false, (*why).to_owned()),
        (Ok(_), Mode::Transport, _) => {
            (false, "transport mode shows the ultimate addresses".to_owned())
        }
        (Ok(_), Mode::Tunnel, 0) => {
            (true, "inner addresses are hidden, lengths are not".to_owned())
        }
        (Ok(_), Mode::Tunnel, len) => {
            (true, format!("inner addresses are hidden, packets are padded to {len} bytes"))
        }
    };
    let confidential = encryption.is_ok();
    vec![
        given(Service::AccessControl, true, "by the selectors of the SA".to_owned()),
        given(Service::ConnectionlessIntegrity, true, integrity.clone()),
        given(Service::DataOriginAuthentication, true, integrity),
        given(Service::ReplayProtection, replay.0, replay.1),
        given(Service::Confidentiality, confidential, encryption.unwrap_or_else(str::to_owned)),
        given(Service::TrafficFlowConfidentiality, flow.0, flow.1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gateways::{Kind, Protection};

    /// The services that an SA does not give, of each kind.
    fn missing(protection: Protection, mode: Mode, change: impl Fn(&mut SaParams)) -> Vec<Service> {
        let kind = Kind { protection, mode, v6: false, esn: false, udp: false };
        let mut params = kind.params(true, false);
        change(&mut params);
        let around = params.around.take();
        let given = of(&params, around.as_deref(), true);
        assert_eq!(given.len(), 6);
        assert!(given.is_sorted_by_key(|it| it.service), "the order of RFC 4301 §3.1");
        given.into_iter().filter(|it| !it.given).map(|it| it.service).collect()
    }

    #[test]
    fn what_an_sa_gives_depends_on_protocol_mode_and_options() {
        use Service::{Confidentiality, ReplayProtection, TrafficFlowConfidentiality};
        let unchanged = |_: &mut SaParams| {};
        let of = |protection, mode| missing(protection, mode, unchanged);
        assert_eq!(of(Protection::Gcm, Mode::Tunnel), []);
        assert_eq!(of(Protection::Cbc, Mode::Transport), [TrafficFlowConfidentiality]);
        assert_eq!(of(Protection::Bundle, Mode::Transport), [TrafficFlowConfidentiality]);
        for mode in [Mode::Tunnel, Mode::Transport] {
            let want = [Confidentiality, TrafficFlowConfidentiality];
            assert_eq!(of(Protection::Ah, mode), want);
            let gmac = missing(Protection::Gcm, mode, |params| {
                if let Suite::Esp(suite) = &mut params.suite {
                    suite.encr.id = EncrId::ENCR_NULL_AUTH_AES_GMAC;
                }
            });
            assert_eq!(gmac, want);
        }
        let unchecked = missing(Protection::Gcm, Mode::Tunnel, |params| params.replay_window = 0);
        assert_eq!(unchecked, [ReplayProtection]);
    }
}
