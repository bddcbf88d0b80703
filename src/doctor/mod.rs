//! Why a tunnel fails, or soon will: checks over facts that somebody else has gathered, and what to change.
//!
//! Pure: [`Facts`] come in (the daemon's `doctor` gathers them), a [`Report`] comes out. A check is a function from facts to
//! [`Note`]s: each is healthy, not checked, or a [`Finding`] with its cause first and then the fix, in the words of ipsecd
//! and of swanctl.conf. Why IKE failed is said by the sentences of `daemon::advice`, which come with the facts; what is
//! found here beyond them is by experiment.

mod agreement;
mod dialect;
mod facts;
mod firewall;
mod host;
mod identity;
mod path;
mod report;
mod rules;
mod traffic;

pub use facts::{
    Address, Answer, Attempt, AuthSent, Experiments, Facts, Firewall, Host, LastAttempt, Outcome,
    PathMtu, PortHolder, Recorded, Rekeyed, Route,
};
pub use report::{Finding, Kind, Note, Report};
pub use rules::{Ruleset, RulesetError};

/// Every check, in the order in which a tunnel comes to need what it looks at. Findings are sorted by what causes what.
const CHECKS: &[fn(&Facts, &mut Vec<Note>)] = &[
    host::configuration,
    host::tun,
    host::capabilities,
    host::clock,
    host::name,
    host::route,
    host::local_address,
    host::ports,
    host::rp_filter,
    host::forwarding,
    host::subnets,
    host::secret,
    identity::ours,
    identity::cas,
    firewall::check,
    path::ports,
    path::fragments,
    path::mtu,
    agreement::check,
    agreement::rekey,
    traffic::check,
];

/// Checks everything that the facts allow to check.
#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let mut notes = Vec::new();
    for check in CHECKS {
        check(facts, &mut notes);
    }
    Report::new(&facts.config, notes)
}
