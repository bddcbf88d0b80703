//! [`ChildSa`]: a CHILD_SA as IKE knows it, and what its life means for the SAD.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::event::ChildStatus;
use super::keymat::ChildKeys;
use crate::crypto::Secret;
use crate::ipsec::pad::{ChildPolicy, Peer};
use crate::ipsec::suite::Suite;
use crate::ipsec::{Mode, Path, SaParams, SadUpdate, Spi, TrafficSelector};

/// Where a CHILD_SA is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildState {
    /// In use.
    Installed,
    /// Another took its place; its DELETE, by us or by the peer, is still to come.
    Replaced,
    /// We sent DELETE for it.
    Deleting,
    /// Deleted; packets under way are still taken until then.
    Lingering(Instant),
}

/// A CHILD_SA.
#[derive(Debug)]
pub(super) struct ChildSa {
    pub(super) policy: Arc<ChildPolicy>,
    pub(super) spi_inbound: Spi,
    pub(super) spi_outbound: Spi,
    pub(super) suite: Suite,
    pub(super) mode: Mode,
    pub(super) ts_local: Arc<[TrafficSelector]>,
    pub(super) ts_peer: Arc<[TrafficSelector]>,
    pub(super) path: Path,
    pub(super) created: Instant,
    pub(super) rekey_at: Option<Instant>,
    pub(super) expire_at: Option<Instant>,
    pub(super) state: ChildState,
    /// Who made it, or the first of those that it replaces one after the other.
    pub(super) origin: Origin,
    /// Responder: until the peer is known to have it.
    pub(super) unconfirmed: Option<Unconfirmed>,
    pub(super) outbound_installed: bool,
}

/// Which exchange a CHILD_SA comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Whether the exchange was ours.
    pub(super) ours: bool,
    /// The lower of its two nonces.
    pub(super) lowest_nonce: Vec<u8>,
}

/// A CHILD_SA that the peer may not have yet (RFC 7296 §2.8).
#[derive(Debug)]
pub(super) struct Unconfirmed {
    /// When the peer is asked; `None` once it has been.
    pub(super) ask_at: Option<Instant>,
    /// The outbound half of one that replaces another, kept back: the other serves until then.
    pub(super) outbound: Option<Box<SaParams>>,
    /// Whether the daemon is told of the CHILD_SA only then.
    pub(super) announce: bool,
}

/// What one side of an exchange knows when a CHILD_SA is agreed.
pub(super) struct Agreed {
    pub(super) policy: Arc<ChildPolicy>,
    pub(super) spi_inbound: Spi,
    pub(super) spi_outbound: Spi,
    pub(super) suite: Suite,
    pub(super) mode: Mode,
    pub(super) ts_local: Vec<TrafficSelector>,
    pub(super) ts_peer: Vec<TrafficSelector>,
    pub(super) path: Path,
    /// Whether we initiated the exchange, which decides whose keys are whose.
    pub(super) initiator: bool,
    pub(super) origin: Origin,
    pub(super) keys: ChildKeys,
}

impl ChildSa {
    /// The CHILD_SA and its two halves for the SAD. `jitter` is a random number that spreads rekeys.
    pub(super) fn new(
        peer: &Peer,
        agreed: Agreed,
        now: Instant,
        jitter: u32,
    ) -> (Self, Box<SaParams>, Box<SaParams>) {
        let Agreed {
            policy,
            spi_inbound,
            spi_outbound,
            suite,
            mode,
            ts_local,
            ts_peer,
            path,
            initiator,
            origin,
            keys,
        } = agreed;
        let ts_local: Arc<[TrafficSelector]> = ts_local.into();
        let ts_peer: Arc<[TrafficSelector]> = ts_peer.into();
        let params = |spi, other_spi, encr_key: Secret, integ_key: Secret| {
            Box::new(SaParams {
                spi,
                other_spi,
                policy: policy.policy,
                peer: Arc::clone(&peer.name),
                path,
                mode,
                suite,
                encr_key,
                integ_key,
                ts_local: Arc::clone(&ts_local),
                ts_peer: Arc::clone(&ts_peer),
                replay_window: policy.replay_window,
                lifetime: policy.lifetime,
                df: policy.df,
                dscp: policy.dscp,
                sequence: 0,
                tfc: 0,
                ah_align: 4,
                around: None,
            })
        };
        let ((out_e, out_i), (in_e, in_i)) = if initiator {
            ((keys.encr_i, keys.integ_i), (keys.encr_r, keys.integ_r))
        } else {
            ((keys.encr_r, keys.integ_r), (keys.encr_i, keys.integ_i))
        };
        let inbound = params(spi_inbound, spi_outbound, in_e, in_i);
        let outbound = params(spi_outbound, spi_inbound, out_e, out_i);
        let child = Self {
            rekey_at: policy.lifetime.soft_time.map(|soft| now + earlier(soft, jitter)),
            expire_at: policy.lifetime.hard_time.map(|hard| now + hard),
            policy,
            spi_inbound,
            spi_outbound,
            suite,
            mode,
            ts_local,
            ts_peer,
            path,
            created: now,
            state: ChildState::Installed,
            origin,
            unconfirmed: None,
            outbound_installed: false,
        };
        (child, inbound, outbound)
    }

    /// Whether another is for the same packets by the same policy.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.policy.name == other.policy.name
            && self.suite.protocol() == other.suite.protocol()
            && self.ts_local == other.ts_local
            && self.ts_peer == other.ts_peer
    }

    pub(super) fn remove_outbound(&mut self) -> Option<SadUpdate> {
        self.unconfirmed = None;
        core::mem::take(&mut self.outbound_installed).then_some(SadUpdate::RemoveOutbound {
            policy: self.policy.policy,
            spi: self.spi_outbound,
            other_spi: self.spi_inbound,
        })
    }

    pub(super) fn status(&self, now: Instant, rekeying: bool) -> ChildStatus {
        ChildStatus {
            name: Arc::clone(&self.policy.name),
            state: match self.state {
                ChildState::Installed if rekeying => "REKEYING",
                ChildState::Installed => "INSTALLED",
                ChildState::Replaced | ChildState::Deleting | ChildState::Lingering(_) => {
                    "DELETING"
                }
            },
            spi_inbound: self.spi_inbound,
            spi_outbound: self.spi_outbound,
            suite: self.suite,
            mode: self.mode,
            ts_local: Arc::clone(&self.ts_local),
            ts_peer: Arc::clone(&self.ts_peer),
            path: self.path,
            established: now.saturating_duration_since(self.created),
            rekey_in: self.rekey_at.map(|at| at.saturating_duration_since(now)),
        }
    }
}

/// `time`, less up to a tenth of it at random, so that both ends and many SAs do not rekey at once.
pub(super) fn earlier(time: Duration, jitter: u32) -> Duration {
    let tenth = time / 10;
    time - tenth.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_takes_a_tenth_at_most() {
        let hour = Duration::from_secs(3600);
        assert_eq!(earlier(hour, 0), hour);
        assert_eq!(earlier(hour, u32::MAX), Duration::from_secs(3240));
    }
}
