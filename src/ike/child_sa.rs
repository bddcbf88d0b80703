//! [`ChildSa`]: a CHILD_SA as IKE knows it, and what its life means for the SAD.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use super::event::ChildStatus;
use super::keymat::ChildKeys;
use super::policy::Policy;
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

/// Whether it is one of several for the same packets (RFC 9611).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// It is alone.
    None,
    /// It is the first, which takes whatever no other does; both sides are willing to have others beside it.
    First,
    /// It is beside the first, that of this number.
    One(u16),
}

impl Resource {
    /// What the first CHILD_SA of a policy is to be.
    pub(super) const fn of_first(policy: &ChildPolicy) -> Self {
        if policy.per_resource == 0 { Self::None } else { Self::First }
    }

    /// The number, if it has one.
    pub(super) const fn number(self) -> Option<u16> {
        match self {
            Self::One(number) => Some(number),
            Self::None | Self::First => None,
        }
    }
}

/// A CHILD_SA.
#[derive(Debug)]
pub(super) struct ChildSa {
    pub(super) policy: Policy,
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
    pub(super) resource: Resource,
    /// Whether no others are to be made beside it: the peer did not want them.
    pub(super) no_more_beside: bool,
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
    pub(super) policy: Policy,
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
    pub(super) resource: Resource,
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
            resource,
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
                resource: resource.number(),
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
            resource,
            no_more_beside: false,
            unconfirmed: None,
            outbound_installed: false,
        };
        (child, inbound, outbound)
    }

    /// Whether another could stand in for it: one for the same packets by the same policy, and not meant to be beside it.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.resource.number().is_none() && other.resource.number().is_none() && self.covers(other)
    }

    /// Whether another is the same in all but its keys (RFC 9611 §3).
    pub(super) fn is_alike(
        &self,
        suite: Suite,
        mode: Mode,
        ts_local: &[TrafficSelector],
        ts_peer: &[TrafficSelector],
    ) -> bool {
        (self.suite, self.mode) == (suite, mode)
            && *self.ts_local == *ts_local
            && *self.ts_peer == *ts_peer
    }

    /// Whether packets of another can go by this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
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
            resource: self.resource.number(),
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
