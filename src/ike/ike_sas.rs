//! [`IkeSas`]: every IKE SA by its number, and those of a peer or of an identity without looking at all.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::ike_sa::{IkeSa, SaId, State};
use crate::ipsec::pad::{Identity, PeerAddress};

/// Every IKE SA. One that changes is taken out while it does, so that peer and identity of those within stay what they were.
#[derive(Default)]
pub(super) struct IkeSas {
    all: BTreeMap<SaId, Box<IkeSa>>,
    by_peer: BTreeSet<(Arc<str>, SaId)>,
    /// Of those, the ones that we have begun and that are not established.
    attempts: BTreeSet<(Arc<str>, SaId)>,
    /// And those that are.
    established: BTreeSet<(Arc<str>, SaId)>,
    by_identity: BTreeSet<(u64, SaId)>,
}

impl IkeSas {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn contains_key(&self, id: &SaId) -> bool {
        self.all.contains_key(id)
    }

    pub(super) fn get(&self, id: &SaId) -> Option<&IkeSa> {
        self.all.get(id).map(|sa| &**sa)
    }

    pub(super) fn get_mut(&mut self, id: &SaId) -> Option<&mut IkeSa> {
        self.all.get_mut(id).map(|sa| &mut **sa)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &IkeSa> {
        self.all.values().map(|sa| &**sa)
    }

    pub(super) fn insert(&mut self, id: SaId, sa: impl Into<Box<IkeSa>>) {
        let sa = sa.into();
        if let Some(peer) = &sa.peer {
            self.by_peer.insert((Arc::clone(&peer.name), id));
            if is_attempt(&sa) {
                self.attempts.insert((Arc::clone(&peer.name), id));
            }
            if sa.is_established() {
                self.established.insert((Arc::clone(&peer.name), id));
            }
        }
        if let Some(identity) = &sa.peer_identity {
            self.by_identity.insert((hash(identity), id));
        }
        self.all.insert(id, sa);
    }

    pub(super) fn remove(&mut self, id: &SaId) -> Option<Box<IkeSa>> {
        let sa = self.all.remove(id)?;
        if let Some(peer) = &sa.peer {
            let key = (Arc::clone(&peer.name), *id);
            self.by_peer.remove(&key);
            self.attempts.remove(&key);
            self.established.remove(&key);
        }
        if let Some(identity) = &sa.peer_identity {
            self.by_identity.remove(&(hash(identity), *id));
        }
        Some(sa)
    }

    /// Those of a peer, by number.
    pub(super) fn of_peer<'a>(
        &'a self,
        name: &Arc<str>,
    ) -> impl Iterator<Item = &'a IkeSa> + use<'a> {
        let range = (Arc::clone(name), SaId::MIN)..=(Arc::clone(name), SaId::MAX);
        self.by_peer.range(range).filter_map(|(_, id)| self.get(id))
    }

    /// Those of a peer that proved to be this, by number; if `None`, of all that have not proved to be anybody.
    pub(super) fn with_identity(&self, identity: Option<&Identity>) -> Vec<&IkeSa> {
        match identity {
            Some(identity) => {
                let hash = hash(identity);
                let found = self.by_identity.range((hash, SaId::MIN)..=(hash, SaId::MAX));
                let found = found.filter_map(|(_, id)| self.get(id));
                found.filter(|sa| sa.peer_identity.as_ref() == Some(identity)).collect()
            }
            None => self.values().filter(|sa| sa.peer_identity.is_none()).collect(),
        }
    }

    /// Those of the same peer as `sa`, by number. Where anybody may come by a name there may be ten thousand of it: then those that
    /// proved to be the same alone.
    pub(super) fn beside(&self, sa: &IkeSa) -> Vec<&IkeSa> {
        let Some(peer) = &sa.peer else { return Vec::new() };
        if peer.address != PeerAddress::Any {
            return self.of_peer(&peer.name).collect();
        }
        let Some(identity) = &sa.peer_identity else { return Vec::new() };
        let is_of_peer =
            |other: &&IkeSa| other.peer.as_ref().is_some_and(|of| of.name == peer.name);
        self.with_identity(Some(identity)).into_iter().filter(is_of_peer).collect()
    }

    /// Whether one with a peer is established, or one of ours that is still wanted is on its way to be. However many end at once,
    /// each asks this.
    pub(super) fn goes_on_with(&self, name: &Arc<str>) -> bool {
        let range = (Arc::clone(name), SaId::MIN)..=(Arc::clone(name), SaId::MAX);
        let is_wanted = |sa: &IkeSa| !matches!(&sa.state, State::AuthSent(sent) if sent.unwanted);
        self.established.range(range).next().is_some() || self.attempts_with(name).any(is_wanted)
    }

    /// Those of a peer that we have begun and that are not established, by number.
    pub(super) fn attempts_with<'a>(
        &'a self,
        name: &Arc<str>,
    ) -> impl Iterator<Item = &'a IkeSa> + use<'a> {
        let range = (Arc::clone(name), SaId::MIN)..=(Arc::clone(name), SaId::MAX);
        self.attempts.range(range).filter_map(|(_, id)| self.get(id))
    }
}

fn is_attempt(sa: &IkeSa) -> bool {
    matches!(sa.state, State::InitSent(_) | State::IntermediateSent(_) | State::AuthSent(_))
}

/// Whoever makes identities collide has authenticated each of them, and makes but its own set-up slower.
fn hash(identity: &Identity) -> u64 {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    hasher.finish()
}
