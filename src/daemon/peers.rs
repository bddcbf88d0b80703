//! What the driver knows of each peer beyond its SAs: where it stands on its way up, and when to try again.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::advice;
use super::backoff::Backoff;
use crate::config::Config;
use crate::control::protocol::{Failure, PeerState, UpPhase};
use crate::crypto::SecureRandom;
use crate::ike::{CloseReason, Phase, SaStatus};
use crate::ipsec::PolicyId;
use crate::ipsec::pad::{ChildPolicy, PeerAddress, StartPolicy};

/// A peer.
#[derive(Debug)]
pub struct Entry {
    /// Its configuration, with policy ids given.
    pub config: Config,
    /// Prefixes that are routed to it.
    pub routes: Vec<IpNet>,
    /// The step it stands at.
    pub phase: UpPhase,
    /// How often the request of that step was sent without an answer.
    pub tries: u32,
    /// Why the last attempt failed.
    pub last_error: Option<Failure>,
    /// When the next attempt begins.
    pub retry_at: Option<Instant>,
    /// A look-up of its address is under way.
    pub resolving: bool,
    /// Attempts so far: the peer's addresses are taken in turn.
    pub attempts: usize,
    /// Set once it is being taken down: when to stop waiting for the answer to DELETE.
    pub removal: Option<Instant>,
    backoff: Backoff,
}

impl Entry {
    /// Nothing has begun.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            routes: Vec::new(),
            phase: UpPhase::Resolve,
            tries: 0,
            last_error: None,
            retry_at: None,
            resolving: false,
            attempts: 0,
            removal: None,
            backoff: Backoff::default(),
        }
    }

    /// Whether we keep it up of ourselves.
    #[must_use]
    pub fn wants_up(&self) -> bool {
        self.removal.is_none()
            && self.config.peer.address != PeerAddress::Any
            && self.config.peer.children.iter().any(|child| child.start == StartPolicy::Now)
    }

    /// Whether the first packet may bring it up.
    #[must_use]
    pub fn on_traffic(&self, policy: PolicyId) -> bool {
        let mut children = self.config.peer.children.iter();
        self.removal.is_none()
            && self.config.peer.address != PeerAddress::Any
            && children.any(|child| child.policy == policy && child.start != StartPolicy::Respond)
    }

    /// Whether an attempt is under way or planned.
    #[must_use]
    pub fn is_busy(&self, sas: &[SaStatus]) -> bool {
        self.resolving || self.retry_at.is_some() || sas.iter().any(|sa| sa.state == "CONNECTING")
    }

    /// Whether every CHILD_SA that we bring up of ourselves is there; with none such, any of them.
    #[must_use]
    pub fn is_up(&self, sas: &[SaStatus]) -> bool {
        let installed = |child: &ChildPolicy| {
            sas.iter().flat_map(|sa| &sa.children).any(|sa| {
                sa.name == child.name && (sa.state == "INSTALLED" || sa.state == "REKEYING")
            })
        };
        let children = &self.config.peer.children;
        let mut wanted = children.iter().filter(|child| child.start == StartPolicy::Now).peekable();
        if wanted.peek().is_some() { wanted.all(installed) } else { children.iter().any(installed) }
    }

    /// The whole of its state.
    #[must_use]
    pub fn state(&self, sas: &[SaStatus]) -> PeerState {
        if self.removal.is_some() {
            PeerState::Deleting
        } else if self.is_up(sas) {
            PeerState::Up
        } else if self.retry_at.is_some() {
            PeerState::Retrying
        } else if self.is_busy(sas) || (self.wants_up() && !sas.is_empty()) {
            PeerState::Connecting
        } else {
            PeerState::Waiting
        }
    }

    /// A step began or was repeated: what to show of it, if it is news.
    pub fn advance(&mut self, phase: Phase) -> Option<String> {
        let enter = |entry: &mut Self, phase, detail: &str| {
            entry.phase = phase;
            entry.tries = 1;
            Some(detail.to_owned())
        };
        match phase {
            Phase::IkeSaInit => enter(self, UpPhase::IkeSaInit, "asking"),
            Phase::Cookie => enter(self, UpPhase::IkeSaInit, "again, with the peer's cookie"),
            Phase::InvalidKe => enter(self, UpPhase::IkeSaInit, "again, with the peer's group"),
            Phase::IkeAuth => enter(self, UpPhase::IkeAuth, "asking"),
            Phase::Authenticated => enter(self, UpPhase::IkeAuth, "the peer is authenticated"),
            Phase::CreateChildSa => enter(self, UpPhase::ChildSa, "asking"),
            Phase::Retransmit { tries } => {
                self.tries = tries;
                Some(format!("no answer yet, sent {tries} times"))
            }
        }
    }

    /// An attempt failed: plans the next, if it is to be kept up.
    pub fn failed(&mut self, now: Instant, failure: Failure, rng: &mut dyn SecureRandom) {
        self.last_error = Some(failure);
        if self.wants_up() {
            self.retry_at = Some(now + self.backoff.next(rng));
        }
    }

    /// It is up.
    pub fn succeeded(&mut self) {
        self.backoff.reset();
        self.last_error = None;
        self.retry_at = None;
        self.tries = 0;
    }

    /// Why the time ran out.
    #[must_use]
    pub fn timeout(&self, waited: Duration) -> Failure {
        let last = self.last_error.as_ref();
        advice::of_timeout(&self.config.peer, self.phase, self.tries, waited, last)
    }

    /// The address for this attempt out of those found, of the version that our own address has.
    #[must_use]
    pub fn choose_address(&self, found: &[IpAddr]) -> Option<IpAddr> {
        let local = self.config.peer.local_addr;
        let fits = |addr: &&IpAddr| local.is_none_or(|local| local.is_ipv4() == addr.is_ipv4());
        let usable: Vec<_> = found.iter().filter(fits).collect();
        usable.get(self.attempts % usable.len().max(1)).map(|addr| **addr)
    }

    /// Gives each child an SPD entry: the one that a child of the same name had before, or the next.
    pub fn number(config: &mut Config, before: Option<&Self>, next: &mut u32) {
        for child in &mut config.peer.children {
            let old = before.and_then(|entry| {
                entry.config.peer.children.iter().find(|old| old.name == child.name)
            });
            child.policy = old.map_or_else(
                || {
                    *next += 1;
                    PolicyId(*next)
                },
                |old| old.policy,
            );
        }
    }

    /// The peer's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.config.peer.name
    }
}

/// The failure behind a [`CloseReason`], and whether waiting on is in vain.
#[must_use]
pub fn judge(entry: &Entry, reason: &CloseReason) -> (Failure, bool) {
    (advice::of_close(&entry.config.peer, reason), advice::is_fatal(reason))
}
