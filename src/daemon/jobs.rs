//! Requests of clients that take longer than a moment: what they wait for, and what they will be told.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::peers::is_established;
use crate::control::protocol::{Body, Failure, Progress, UpPhase, UpResult, UpState};
use crate::ike::{ChildStatus, SaStatus};
use crate::ipsec::Spi;
use crate::wire::ike::header::IkeSpi;

/// The client's end.
pub type Reply = mpsc::Sender<Body>;

/// `up`.
#[derive(Debug)]
pub struct Up {
    /// Number of the job.
    pub id: u64,
    /// Who waits.
    pub reply: Reply,
    /// When it began.
    pub began: Instant,
    /// When it ends at the latest.
    pub deadline: Instant,
    /// Whether peers that fail are kept.
    pub keep: bool,
    /// One a file, in order.
    peers: Vec<UpPeer>,
    /// Where in `peers` those of a name are.
    places: BTreeMap<Arc<str>, Vec<usize>>,
}

/// One peer of `up`.
#[derive(Debug)]
pub struct UpPeer {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it was unknown before.
    pub new: bool,
    /// How it ended, once it has.
    pub result: Option<UpResult>,
    /// It failed and is being taken down again; the client hears of it once that is done.
    pub leaving: bool,
}

/// `down`.
#[derive(Debug)]
pub struct Down {
    /// Who waits.
    pub reply: Reply,
    /// Every peer that it takes down.
    pub peers: Vec<Arc<str>>,
}

/// `rekey`.
#[derive(Debug)]
pub struct Rekey {
    /// Who waits.
    pub reply: Reply,
    /// The peer.
    pub peer: Arc<str>,
    /// What is to be replaced.
    pub old: Old,
    /// When it ends at the latest.
    pub deadline: Instant,
}

/// What a `rekey` is to replace, whichever side does it in the end.
#[derive(Debug, PartialEq, Eq)]
pub enum Old {
    /// The IKE SA with these SPIs, if there is one.
    Ike(Option<(IkeSpi, IkeSpi)>),
    /// CHILD_SAs: their policies' names and inbound SPIs.
    Children(Vec<(Arc<str>, Spi)>),
}

impl Old {
    /// What there is: of several IKE SAs the newest.
    #[must_use]
    pub fn of(sas: &[SaStatus], ike: bool) -> Self {
        let newest = sas.iter().filter(|sa| is_established(sa)).min_by_key(|sa| sa.established);
        if ike {
            return Self::Ike(newest.map(|sa| (sa.spi_i, sa.spi_r)));
        }
        let children = newest.into_iter().flat_map(|sa| &sa.children).filter(|sa| is_in_use(sa));
        Self::Children(children.map(|sa| (Arc::clone(&sa.name), sa.spi_inbound)).collect())
    }

    /// Whether there is nothing to replace.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Ike(spis) => spis.is_none(),
            Self::Children(children) => children.is_empty(),
        }
    }

    /// Whether this child, or else the IKE SA, is among it.
    #[must_use]
    pub fn has(&self, child: Option<&str>) -> bool {
        match (self, child) {
            (Self::Ike(_), None) => true,
            (Self::Children(children), Some(child)) => {
                children.iter().any(|(name, _)| **name == *child)
            }
            (Self::Ike(_), Some(_)) | (Self::Children(_), None) => false,
        }
    }

    /// Whether each has given way to another, by what there is now with the peer.
    pub fn are_replaced<'a>(&self, sas: impl Iterator<Item = &'a SaStatus>) -> bool {
        let established: Vec<_> = sas.filter(|sa| is_established(sa)).collect();
        match self {
            Self::Ike(old) => {
                let is_old = |sa: &&SaStatus| Some((sa.spi_i, sa.spi_r)) == *old;
                !established.is_empty() && !established.iter().any(is_old)
            }
            Self::Children(old) => {
                let in_use = || {
                    established.iter().flat_map(|sa| &sa.children).filter(|child| is_in_use(child))
                };
                old.iter().all(|(name, spi)| {
                    in_use().any(|child| child.name == *name)
                        && in_use().all(|child| child.spi_inbound != *spi)
                })
            }
        }
    }
}

fn is_in_use(child: &ChildStatus) -> bool {
    child.state == "INSTALLED" || child.state == "REKEYING"
}

impl Up {
    /// For no peer yet.
    #[must_use]
    pub const fn new(id: u64, reply: Reply, began: Instant, deadline: Instant, keep: bool) -> Self {
        Self { id, reply, began, deadline, keep, peers: Vec::new(), places: BTreeMap::new() }
    }

    /// For one more.
    pub fn add(&mut self, peer: UpPeer) {
        self.places.entry(Arc::clone(&peer.name)).or_default().push(self.peers.len());
        self.peers.push(peer);
    }

    /// The peers, in the order of their files.
    #[must_use]
    pub fn peers(&self) -> &[UpPeer] {
        &self.peers
    }

    /// As [`peers`](Self::peers), to be changed, but for their names.
    pub fn peers_mut(&mut self) -> &mut [UpPeer] {
        &mut self.peers
    }

    /// Changes those of a name that it waits for.
    pub fn change(&mut self, name: &str, mut change: impl FnMut(&mut UpPeer)) {
        for at in self.places.get(name).into_iter().flatten() {
            if let Some(peer) = self.peers.get_mut(*at).filter(|peer| peer.result.is_none()) {
                change(peer);
            }
        }
    }

    /// Whether the client waits for this peer.
    #[must_use]
    pub fn waits_for(&self, peer: &str) -> bool {
        let mut of_name = self.places.get(peer).into_iter().flatten();
        of_name.any(|at| self.peers.get(*at).is_some_and(|it| it.result.is_none()))
    }

    /// Shows a step of `peer`, if the client waits for it. A client that does not read misses steps, and no more.
    pub fn show(&self, peer: &Arc<str>, phase: UpPhase, detail: &str) {
        // One place in the queue is the answer's.
        if self.waits_for(peer) && self.reply.capacity() > 1 {
            let peer = peer.to_string();
            let step = Progress { peer, phase, detail: detail.to_owned() };
            let _missed = self.reply.try_send(Body::Progress(step));
        }
    }

    /// Whether everything is known and nothing still leaves.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.peers.iter().all(|peer| peer.result.is_some() && !peer.leaving)
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self) -> Body {
        Body::Up { peers: self.peers.iter().filter_map(|peer| peer.result.clone()).collect() }
    }

    /// How long it has taken.
    #[must_use]
    pub fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

impl UpPeer {
    /// It ended so.
    pub fn end(&mut self, state: UpState, error: Option<Failure>) {
        self.result = Some(UpResult { peer: self.name.to_string(), state, error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sample::sa;

    fn with(spi: u32, names: &[(&str, u32, &'static str)]) -> SaStatus {
        let mut status = sa("ESTABLISHED", true, Some("lan"));
        status.spi_i = IkeSpi(spi.into());
        let one = status.children.remove(0);
        status.children = names
            .iter()
            .map(|(name, spi, state)| ChildStatus {
                name: (*name).into(),
                spi_inbound: Spi::new(*spi).unwrap(),
                state,
                ..one.clone()
            })
            .collect();
        status
    }

    #[test]
    fn child_sas_are_replaced_when_each_has_a_successor() {
        let before = with(
            1,
            &[("lan", 300, "INSTALLED"), ("lan", 299, "DELETING"), ("dmz", 301, "INSTALLED")],
        );
        let old = Old::of(std::slice::from_ref(&before), false);
        assert_eq!(
            old,
            Old::Children(vec![
                ("lan".into(), Spi::new(300).unwrap()),
                ("dmz".into(), Spi::new(301).unwrap())
            ])
        );
        assert!(old.has(Some("dmz")) && !old.has(Some("web")) && !old.has(None));
        let replaced = |sas: &[SaStatus]| old.are_replaced(sas.iter());
        assert!(!replaced(&[before]));
        // Whoever made the new one, and where both did, whichever stays.
        let half = with(
            1,
            &[("lan", 300, "DELETING"), ("lan", 302, "INSTALLED"), ("dmz", 301, "REKEYING")],
        );
        assert!(!replaced(&[half]));
        assert!(!replaced(&[with(1, &[("lan", 302, "INSTALLED")])]), "dmz is gone, not replaced");
        assert!(replaced(&[with(2, &[("lan", 302, "INSTALLED"), ("dmz", 303, "INSTALLED")])]));
        assert!(!replaced(&[]));
    }

    #[test]
    fn ike_sa_is_replaced_when_another_is_established() {
        let before = with(1, &[]);
        let old = Old::of(std::slice::from_ref(&before), true);
        assert!(old.has(None) && !old.has(Some("lan")) && !old.is_empty());
        let mut leaving = before.clone();
        leaving.state = "DELETING";
        assert!(!old.are_replaced([&before].into_iter()));
        assert!(!old.are_replaced([&leaving].into_iter()));
        assert!(old.are_replaced([&leaving, &with(2, &[])].into_iter()));
        assert!(Old::of(&[leaving], true).is_empty());
    }
}
