//! What the driver knows of each peer beyond its SAs: where it stands on its way up, and when to try again.

use core::net::IpAddr;
use core::time::Duration;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::addresses::Addresses;
use super::advice::{self, Asked};
use super::backoff::Backoff;
use super::manual::Installed;
use crate::config::{Config, Keying};
use crate::control::protocol::{Code, Failure, PeerState, UpPhase};
use crate::crypto::SecureRandom;
use crate::ike::{CloseReason, Phase, SaStatus};
use crate::ipsec::pad::{ChildPolicy, LossAction, PeerAddress, StartPolicy};
use crate::ipsec::{Flow, PolicyId};

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
    /// The peer's addresses, which are tried in turn.
    pub addresses: Addresses,
    /// How many attempts failed, and how often its SAs were lost.
    pub failures: u64,
    /// Set once it is being taken down: when to stop waiting for the answer to DELETE.
    pub removal: Option<Instant>,
    /// What its loss has led to, until it is up again; `None`: what [`StartPolicy`] says.
    pub after_loss: Option<LossAction>,
    /// The operator has brought it up by hand: what waits for that is as if it were to be up from the start.
    pub by_hand: bool,
    /// The packet for which the attempt that is being prepared is made.
    pub acquire: Option<(PolicyId, Flow)>,
    /// The SAs of a peer with manual keys, once they are in the SAD.
    pub installed: Option<Installed>,
    /// What the peer's refusal in IKE_AUTH is told as, if the attempt that does not name it says no more.
    refused: Option<Failure>,
    /// What the system said of a datagram to the last address.
    heard: Option<io::ErrorKind>,
    /// Such an attempt was made since it was up.
    asked_unnamed: bool,
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
            addresses: Addresses::default(),
            failures: 0,
            removal: None,
            after_loss: None,
            by_hand: false,
            acquire: None,
            installed: None,
            refused: None,
            heard: None,
            asked_unnamed: false,
            backoff: Backoff::default(),
        }
    }

    /// Whether we keep it up of ourselves.
    #[must_use]
    pub fn wants_up(&self) -> bool {
        self.removal.is_none()
            && *self.config.address() != PeerAddress::Any
            && match &self.config.keying {
                Keying::Ike(peer) => match self.after_loss {
                    Some(LossAction::Clear | LossAction::Hold) => false,
                    Some(LossAction::Restart) => true,
                    None => peer.children.iter().any(|child| child.start == StartPolicy::Now),
                },
                Keying::Manual(_) => true,
                Keying::None { .. } => false,
            }
    }

    /// Whether the first packet may bring it up.
    #[must_use]
    pub fn on_traffic(&self, policy: PolicyId) -> bool {
        let mut children = self.config.ike().into_iter().flat_map(|peer| &peer.children);
        self.removal.is_none()
            && *self.config.address() != PeerAddress::Any
            && children.any(|child| {
                child.policy == policy
                    && match self.after_loss {
                        Some(LossAction::Clear) => false,
                        Some(LossAction::Hold | LossAction::Restart) => true,
                        None => matches!(child.start, StartPolicy::Now | StartPolicy::OnTraffic),
                    }
            })
    }

    /// Whether an attempt of ours is under way or planned. What others begin is no reason not to.
    #[must_use]
    pub fn is_busy(&self, sas: &[SaStatus]) -> bool {
        self.resolving || self.retry_at.is_some() || sas.iter().any(is_attempt)
    }

    /// Whether every CHILD_SA that we bring up of ourselves is there; with none such, any of them.
    #[must_use]
    pub fn is_up(&self, sas: &[SaStatus]) -> bool {
        let installed = |child: &ChildPolicy| {
            sas.iter().flat_map(|sa| &sa.children).any(|sa| {
                sa.name == child.name && (sa.state == "INSTALLED" || sa.state == "REKEYING")
            })
        };
        let peer = match &self.config.keying {
            Keying::Ike(peer) => peer,
            Keying::Manual(_) => return self.installed.is_some(),
            // In force since it was loaded.
            Keying::None { .. } => return true,
        };
        let children = &peer.children;
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
            Phase::IkeIntermediate(method) => {
                let detail = format!("further key exchange, {method}");
                enter(self, UpPhase::IkeSaInit, &detail)
            }
            Phase::IkeIntermediatePpk => {
                enter(self, UpPhase::IkeSaInit, "naming the post-quantum preshared key")
            }
            Phase::IkeAuth => enter(self, UpPhase::IkeAuth, "asking"),
            Phase::Authenticated => {
                // Without its name it is who it is to be: what comes of it now is not that refusal.
                self.refused = None;
                enter(self, UpPhase::IkeAuth, "the peer is authenticated")
            }
            Phase::CreateChildSa => enter(self, UpPhase::ChildSa, "asking"),
            Phase::Retransmit { tries } => {
                // Of the times that it was sent, the first is none of its repetitions.
                self.tries = tries.saturating_add(1);
                Some(format!("no answer yet, sent again ({tries})"))
            }
        }
    }

    /// An attempt failed: plans the next, if it is to be kept up.
    pub fn failed(&mut self, now: Instant, failure: Failure, rng: &mut dyn SecureRandom) {
        let elsewhere = failure.code == Code::Unreachable && self.addresses.is_on_its_way();
        self.last_error = Some(failure);
        self.failures += 1;
        if elsewhere && self.wants_up() {
            self.retry_at = Some(now);
        } else {
            self.plan(now, rng);
        }
    }

    /// The host at this address, a router or our own host says why no answer comes from there.
    pub fn hear(&mut self, remote: IpAddr, kind: io::ErrorKind) {
        if self.addresses.last() == Some(remote) {
            self.heard = Some(kind);
        }
    }

    /// Whether the peer's address has been asked often enough without an answer, and there are others.
    #[must_use]
    pub fn should_ask_elsewhere(&self) -> bool {
        self.phase == UpPhase::IkeSaInit && self.addresses.is_enough(self.tries)
    }

    /// The peer refused us in IKE_AUTH. Whether it is asked once more, now without IDr: if it then proves to be somebody, that is
    /// what is wrong.
    pub fn ask_unnamed(&mut self, now: Instant, failure: &Failure) -> bool {
        let names = self.config.ike().is_some_and(|peer| peer.peer_id.is_some());
        if !names || self.asked_unnamed || !self.wants_up() {
            return false;
        }
        self.asked_unnamed = true;
        self.refused = Some(failure.clone());
        self.addresses.again();
        self.retry_at = Some(now);
        true
    }

    /// Whether the next attempt does not name the peer.
    #[must_use]
    pub const fn is_unnamed(&self) -> bool {
        self.refused.is_some()
    }

    /// What a failure is to be told as: after a refusal, silence is none of its own.
    pub fn told(&mut self, failure: Failure, fatal: bool) -> (Failure, bool) {
        match self.refused.take() {
            Some(refused) if !fatal => (refused, true),
            Some(_) | None => (failure, fatal),
        }
    }

    /// Plans the next attempt, if it is to be kept up.
    pub fn plan(&mut self, now: Instant, rng: &mut dyn SecureRandom) {
        if self.wants_up() {
            self.retry_at = Some(now + self.backoff.next(rng));
        }
    }

    /// Its SAs, or one of them, are gone without our doing.
    pub fn lost(&mut self, reason: &CloseReason) {
        let Some(peer) = self.config.ike() else { return };
        if *reason == CloseReason::DeletedByPeer {
            self.after_loss = peer.ike.close_action;
        }
        // An attempt that met nobody is not the loss of anything.
        if let CloseReason::Unreachable { exchange, .. } = reason
            && !["IKE_SA_INIT", "IKE_INTERMEDIATE", "IKE_AUTH"].contains(exchange)
        {
            self.after_loss = peer.ike.dpd_action;
        }
    }

    /// It is up.
    pub fn succeeded(&mut self) {
        self.after_loss = None;
        self.backoff.reset();
        self.last_error = None;
        self.retry_at = None;
        self.tries = 0;
        self.refused = None;
        self.asked_unnamed = false;
        self.addresses.succeeded();
    }

    /// Why the time ran out.
    #[must_use]
    pub fn timeout(&self, waited: Duration) -> Failure {
        if let Some(refused) = &self.refused {
            return refused.clone();
        }
        let last = self.last_error.as_ref();
        let addresses = self.addresses.asked();
        let asked = Asked { tries: self.tries, addresses, heard: self.heard };
        advice::of_timeout(&self.config, self.phase, asked, waited, last)
    }

    /// The address for this attempt out of those found, of the version that our own address has.
    pub fn choose_address(&mut self, found: &[IpAddr]) -> Option<IpAddr> {
        let local = self.config.local_addr();
        let fits = |addr: &IpAddr| local.is_none_or(|local| local.is_ipv4() == addr.is_ipv4());
        self.heard = None;
        self.addresses.next(found.iter().copied().filter(fits).collect())
    }

    /// Gives each child an SPD entry: the one that a child of the same name had before, or the next.
    pub fn number(config: &mut Config, before: Option<&Self>, next: &mut u32) {
        // SAs of IKE and SAs with manual keys never serve one entry.
        let before = before.filter(|old| old.config.ike().is_some() == config.ike().is_some());
        let before = before.map(|entry| entry.config.policies()).unwrap_or_default();
        config.number(|name| {
            let old = before.iter().find(|old| old.name == name);
            old.map_or_else(
                || {
                    *next += 1;
                    PolicyId(*next)
                },
                |old| old.id,
            )
        });
    }

    /// The peer's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        self.config.name()
    }
}

/// Whether it is an IKE SA that we are about to establish.
fn is_attempt(sa: &SaStatus) -> bool {
    sa.state == "CONNECTING" && sa.initiator
}

/// Whether CHILD_SAs can be made under it.
#[must_use]
pub fn is_established(sa: &SaStatus) -> bool {
    sa.state == "ESTABLISHED" || sa.state == "REKEYING"
}

/// The failure behind a [`CloseReason`], and whether waiting on is in vain; `None` for a peer that has no IKE any more.
#[must_use]
pub fn judge(entry: &Entry, reason: &CloseReason) -> Option<(Failure, bool)> {
    Some((advice::of_close(entry.config.ike()?, reason), advice::is_fatal(reason)))
}

/// The same of the failure of a CHILD_SA.
#[must_use]
pub fn judge_child(entry: &Entry, child: &str, reason: &CloseReason) -> Option<(Failure, bool)> {
    Some((advice::of_child(entry.config.ike()?, child, reason), advice::is_fatal(reason)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sample::{config, ike, sa};
    use crate::io::clock;

    struct Zero;

    impl SecureRandom for Zero {
        fn fill(&mut self, buf: &mut [u8]) {
            buf.fill(0);
        }
    }

    fn failure() -> Failure {
        Failure { code: Code::Peer, message: "no".into() }
    }

    #[test]
    fn state_follows_the_sas() {
        let mut entry = Entry::new(config());
        assert_eq!(entry.state(&[sa("CONNECTING", true, None)]), PeerState::Connecting);
        assert_eq!(entry.state(&[sa("ESTABLISHED", true, None)]), PeerState::Connecting);
        assert_eq!(entry.state(&[sa("ESTABLISHED", true, Some("other"))]), PeerState::Connecting);
        assert_eq!(entry.state(&[sa("ESTABLISHED", false, Some("lan"))]), PeerState::Up);
        entry.failed(clock::now(), failure(), &mut Zero);
        assert_eq!(entry.state(&[]), PeerState::Retrying);
        entry.removal = Some(clock::now());
        assert_eq!(entry.state(&[sa("ESTABLISHED", false, Some("lan"))]), PeerState::Deleting);
    }

    #[test]
    fn peer_that_only_responds_or_is_begun_by_hand_waits_and_is_never_tried() {
        for start in [StartPolicy::Respond, StartPolicy::ByHand] {
            let mut config = config();
            ike(&mut config).children[0].start = start;
            let mut entry = Entry::new(config);
            assert!(!entry.wants_up());
            assert!(!entry.on_traffic(PolicyId(1)));
            assert_eq!(entry.state(&[]), PeerState::Waiting);
            entry.failed(clock::now(), failure(), &mut Zero);
            assert_eq!(entry.retry_at, None);
            assert_eq!(entry.state(&[sa("ESTABLISHED", false, Some("lan"))]), PeerState::Up);
        }
    }

    #[test]
    fn traffic_brings_up_what_waits_for_it_and_nothing_else() {
        let mut config = config();
        ike(&mut config).children[0].start = StartPolicy::OnTraffic;
        let mut entry = Entry::new(config);
        assert!(entry.on_traffic(PolicyId(1)));
        assert!(!entry.on_traffic(PolicyId(2)));
        ike(&mut entry.config).address = PeerAddress::Any;
        assert!(!entry.on_traffic(PolicyId(1)), "nobody knows where it is");
    }

    #[test]
    fn attempts_of_others_do_not_keep_us_from_trying() {
        let entry = Entry::new(config());
        assert!(entry.is_busy(&[sa("CONNECTING", true, None)]));
        assert!(!entry.is_busy(&[sa("CONNECTING", false, None)]));
    }

    #[test]
    fn a_peer_that_refuses_us_is_asked_once_more_without_being_named() {
        let (now, refusal) = (clock::now(), failure());
        let mut entry = Entry::new(config());
        let silence = || Failure { code: Code::Unreachable, message: "silence".into() };
        assert_eq!(entry.told(silence(), false), (silence(), false), "nobody refused us");
        assert!(entry.ask_unnamed(now, &refusal));
        assert!(entry.is_unnamed() && entry.retry_at == Some(now));
        assert_eq!(
            entry.timeout(Duration::from_secs(9)),
            refusal,
            "the time is up before it says more"
        );
        assert_eq!(
            entry.told(silence(), false),
            (refusal.clone(), true),
            "it says nothing any more"
        );
        assert!(!entry.is_unnamed());
        assert!(!entry.ask_unnamed(now, &refusal), "once, until it is up");
        entry.succeeded();
        assert!(entry.ask_unnamed(now, &refusal));
        assert!(entry.advance(Phase::Authenticated).is_some());
        assert_ne!(entry.timeout(Duration::from_secs(9)), refusal, "it is a peer after all");
        entry.succeeded();
        assert!(entry.ask_unnamed(now, &refusal));
        let other = Failure { code: Code::Identity, message: "somebody else".into() };
        assert_eq!(entry.told(other.clone(), true), (other, true), "what it says is what counts");
        ike(&mut entry.config).peer_id = None;
        entry.succeeded();
        assert!(!entry.ask_unnamed(now, &refusal), "nobody was named");
    }

    #[test]
    fn of_several_addresses_the_next_is_tried_at_once() {
        let now = clock::now();
        let mut entry = Entry::new(config());
        let found: Vec<IpAddr> =
            ["2001:db8::1", "192.0.2.2"].map(|addr| addr.parse().unwrap()).into();
        entry.choose_address(&found);
        assert!(entry.advance(Phase::IkeSaInit).is_some());
        assert!(entry.advance(Phase::Retransmit { tries: 2 }).is_some());
        assert!(!entry.should_ask_elsewhere());
        assert!(entry.advance(Phase::Retransmit { tries: 3 }).is_some());
        assert!(entry.should_ask_elsewhere());
        let silence = || Failure { code: Code::Unreachable, message: "silence".into() };
        entry.failed(now, silence(), &mut Zero);
        assert_eq!(entry.retry_at, Some(now));
        entry.choose_address(&found);
        entry.failed(now, silence(), &mut Zero);
        assert!(entry.retry_at > Some(now), "all have been asked");
    }

    #[test]
    fn addresses_are_taken_in_turn_and_of_our_version() {
        let mut entry = Entry::new(config());
        let found: Vec<IpAddr> =
            ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|addr| addr.parse().unwrap()).into();
        let mut chosen = Vec::new();
        for _ in 0..4 {
            chosen.push(entry.choose_address(&found).unwrap());
        }
        assert_eq!(chosen, [found[0], found[1], found[2], found[0]]);
        ike(&mut entry.config).local_addr = Some("2001:db8::9".parse().unwrap());
        assert_eq!(entry.choose_address(&found), Some(found[1]));
        assert_eq!(entry.choose_address(&found[..1]), None);
    }

    #[test]
    fn policy_number_survives_a_reload() {
        let (mut next, mut first) = (4, config());
        Entry::number(&mut first, None, &mut next);
        assert_eq!(first.policies()[0].id, PolicyId(5));
        let before = Entry::new(first);
        let mut second = config();
        let mut more = ike(&mut second).children[0].clone();
        more.name = "dmz".into();
        ike(&mut second).children.insert(0, more);
        Entry::number(&mut second, Some(&before), &mut next);
        let numbers: Vec<_> = second.policies().iter().map(|policy| policy.id.0).collect();
        assert_eq!(numbers, [6, 5]);
    }

    #[test]
    fn timeout_tells_of_the_unanswered_request() {
        let mut entry = Entry::new(config());
        assert!(entry.advance(Phase::IkeSaInit).is_some());
        assert!(entry.advance(Phase::Retransmit { tries: 3 }).is_some());
        let failure = entry.timeout(Duration::from_secs(9));
        assert!(failure.message.contains("IKE_SA_INIT after 4 tries in 9 s"), "{failure}");
    }
}
