//! SAs with manual keys as the driver has them: what of a peer is in the SAD.

use std::time::Instant;

use super::counters::Counted;
use crate::control::protocol::{Code, Failure};
use crate::ipsec::{Path, PolicyId};

/// The SAs of a peer with manual keys, in the SAD.
#[derive(Debug)]
pub struct Installed {
    /// Since when.
    pub since: Instant,
    /// One a pair.
    pub pairs: Vec<Pair>,
}

/// A pair of SAs.
#[derive(Debug)]
pub struct Pair {
    /// Its SPD entry.
    pub policy: PolicyId,
    /// Where it travels.
    pub path: Path,
    /// Every outbound SA of it with its counter.
    pub counted: Vec<Counted>,
}

impl Installed {
    /// Sees to it that every SA has sequence numbers to use. What cannot be done is logged: the SA ends with those it
    /// has.
    pub fn extend(&mut self, peer: &str) {
        for counted in self.pairs.iter_mut().flat_map(|pair| &mut pair.counted) {
            if let Err(error) = counted.extend() {
                tracing::error!(peer, %error, "sequence numbers run out");
            }
        }
    }
}

/// Why the SAs of a peer cannot be installed.
#[must_use]
pub fn refused(peer: &str, sa: &str, cause: &dyn core::fmt::Display) -> Failure {
    Failure { code: Code::System, message: format!("{peer}: SA {sa}: {cause}") }
}
