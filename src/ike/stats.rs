//! [`Stats`]: what an [`Endpoint`](super::Endpoint) has done since it was made, for metrics.

/// Counters of an endpoint. None is ever reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// IKE_SA_INIT requests for a new IKE SA.
    pub init_requests: u64,
    /// Of those, answered with a response that lets the initiator go on.
    pub init_accepted: u64,
    /// Of those, not in the form of one, or not to be parsed.
    pub init_malformed: u64,
    /// Of those, answered with an error: no common proposal, another group, no peer there.
    pub init_refused: u64,
    /// Of those, over a limit (`docs/limits.md`): dropped, or asked to solve a puzzle.
    pub init_limited: u64,
    /// Answers to those that asked for a COOKIE (RFC 7296 §2.6).
    pub cookies_sent: u64,
    /// Of those answers, with a puzzle (RFC 8019).
    pub puzzles_sent: u64,
    /// Half-open IKE SAs that made room for others.
    pub half_open_evicted: u64,
    /// Units of work with keys that IKE_SA_INIT requests took: a key exchange has a price in these by its group.
    pub key_work: u64,
    /// Liveness checks that were sent (RFC 7296 §2.4).
    pub liveness_checks: u64,
}
