//! What the exchange tests share.

use core::time::Duration;

use ipsecd::ike::{ChildStatus, SaStatus};
use ipsecd::ipsec::pad::Peer;
pub(crate) use ipsecd::testing::{A, B, LinkConfig, Pair, Side, Violation, peers};
pub(crate) use ipsecd::wire::ike::numbers::ExchangeType;

pub(crate) const IKE_SA_INIT: ExchangeType = ExchangeType::IKE_SA_INIT;
pub(crate) const IKE_INTERMEDIATE: ExchangeType = ExchangeType::IKE_INTERMEDIATE;
pub(crate) const IKE_AUTH: ExchangeType = ExchangeType::IKE_AUTH;
pub(crate) const CREATE_CHILD_SA: ExchangeType = ExchangeType::CREATE_CHILD_SA;
pub(crate) const IKE_FOLLOWUP_KE: ExchangeType = ExchangeType::IKE_FOLLOWUP_KE;
pub(crate) const INFORMATIONAL: ExchangeType = ExchangeType::INFORMATIONAL;
pub(crate) const REQUEST: bool = false;
pub(crate) const RESPONSE: bool = true;

/// Longer than any timer of these configurations that is part of an exchange.
pub(crate) const QUIET: Duration = Duration::from_secs(150);

/// Fails the test with the trace if a check failed.
#[track_caller]
pub(crate) fn assert_ok(pair: &Pair, result: Result<(), Violation>) {
    if let Err(violation) = result {
        panic!("{violation}\n{}", pair.trace);
    }
}

/// Fails the test with the trace unless it holds.
#[track_caller]
pub(crate) fn assert_that(pair: &Pair, holds: bool, what: &str) {
    assert!(holds, "{what}\n{}", pair.trace);
}

/// Two such peers, nothing begun.
pub(crate) fn pair_of(a: Peer, b: Peer) -> Pair {
    let mut pair = Pair::with(1, LinkConfig::PERFECT, a, b);
    pair.trace.keep_lines();
    pair
}

/// Two such peers, with A as initiator of an established IKE SA with its CHILD_SAs.
#[track_caller]
pub(crate) fn established_of(seed: u64, a: Peer, b: Peer) -> Pair {
    let children = a.children.len();
    let mut pair = Pair::with(seed, LinkConfig::PERFECT, a, b);
    pair.trace.keep_lines();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(children));
    assert_that(&pair, pair.is_quiet(), "nothing more is to be in flight");
    pair
}

/// The two default peers with an established IKE SA and CHILD_SA.
#[track_caller]
pub(crate) fn established() -> Pair {
    established_of(1, peers::site_a(), peers::site_b())
}

/// Lets everything come to rest.
#[track_caller]
pub(crate) fn settle(pair: &mut Pair) {
    let settled = pair.settle(QUIET);
    assert_that(pair, settled, "it does not come to rest");
}

/// The only IKE SA of a side.
#[track_caller]
pub(crate) fn only_sa(pair: &Pair, side: Side) -> SaStatus {
    let mut status = pair.status(side);
    assert_that(
        pair,
        status.len() == 1,
        &format!("{side} is to have one IKE SA, it has {status:?}"),
    );
    status.remove(0)
}

/// The only CHILD_SA of a side.
#[track_caller]
pub(crate) fn only_child(pair: &Pair, side: Side) -> ChildStatus {
    let mut children = only_sa(pair, side).children;
    assert_that(pair, children.len() == 1, &format!("{side} is to have one CHILD_SA"));
    children.remove(0)
}

/// A number from the environment, for runs that a person wants longer or repeated.
#[expect(clippy::disallowed_methods, reason = "a test may be told how long to run")]
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
