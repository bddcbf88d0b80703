//! [`Peers`]: the PAD as the endpoint asks it (RFC 4301 §4.4.3): by name, by policy, by address and by identity, each without
//! looking at all of ten thousand peers. And what may stay of a
//! peer's SAs when its configuration changes ([`Cost`]): [`Command::AddPeer`](super::Command::AddPeer) of a name that is known.

use core::net::IpAddr;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ipsec::pad::{ChildPolicy, Identity, Peer, PeerAddress, PeerAuth};
use crate::ipsec::{Path, PolicyId};

/// Peers of one kind, or found by one thing, by name.
type Named = BTreeMap<Arc<str>, Arc<Peer>>;

/// Every peer.
#[derive(Default)]
pub(super) struct Peers {
    by_name: Named,
    by_policy: BTreeMap<PolicyId, Arc<str>>,
    /// Those that name this address.
    by_addr: HashMap<IpAddr, Named>,
    /// Peers between which IKE_SA_INIT makes no difference.
    alike: Vec<Alike>,
}

/// Peers between which IKE_SA_INIT makes no difference. Never empty.
struct Alike {
    members: Named,
    /// By a form of the identity that is one for all that are the same; `None` takes anybody.
    by_identity: HashMap<Option<Identity>, Named>,
}

impl Peers {
    pub(super) fn get(&self, name: &str) -> Option<&Arc<Peer>> {
        self.by_name.get(name)
    }

    /// In the order of their names.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// Whose policy it is.
    pub(super) fn of_policy(&self, policy: PolicyId) -> Option<&Arc<Peer>> {
        self.by_name.get(self.by_policy.get(&policy)?)
    }

    /// Returns the one that had the name before.
    pub(super) fn insert(&mut self, peer: &Arc<Peer>) -> Option<Arc<Peer>> {
        let before = self.remove(&peer.name);
        let insert = |named: &mut Named| named.insert(Arc::clone(&peer.name), Arc::clone(peer));
        let _new = insert(&mut self.by_name);
        for child in &peer.children {
            self.by_policy.insert(child.policy, Arc::clone(&peer.name));
        }
        if let PeerAddress::Ip(addr) = peer.address {
            let _new = insert(self.by_addr.entry(addr).or_default());
        }
        let alike = match self.alike.iter_mut().position(|alike| alike.is_like(peer)) {
            Some(at) => &mut self.alike[at],
            None => {
                self.alike.push(Alike { members: Named::new(), by_identity: HashMap::new() });
                self.alike.last_mut()?
            }
        };
        let _new = insert(&mut alike.members);
        let _new = insert(alike.by_identity.entry(peer.peer_id.as_ref().map(form)).or_default());
        before
    }

    pub(super) fn remove(&mut self, name: &Arc<str>) -> Option<Arc<Peer>> {
        let peer = self.by_name.remove(name)?;
        for child in &peer.children {
            if self.by_policy.get(&child.policy) == Some(name) {
                self.by_policy.remove(&child.policy);
            }
        }
        if let PeerAddress::Ip(addr) = peer.address
            && let Some(named) = self.by_addr.get_mut(&addr)
        {
            named.remove(name);
            if named.is_empty() {
                self.by_addr.remove(&addr);
            }
        }
        if let Some(alike) = self.alike.iter_mut().find(|alike| alike.is_like(&peer)) {
            alike.members.remove(name);
            let identity = peer.peer_id.as_ref().map(form);
            if let Some(named) = alike.by_identity.get_mut(&identity) {
                named.remove(name);
                if named.is_empty() {
                    alike.by_identity.remove(&identity);
                }
            }
        }
        self.alike.retain(|alike| !alike.members.is_empty());
        Some(peer)
    }

    /// The PAD entries for a peer at this address, those that name it first; of others between which IKE_SA_INIT makes no
    /// difference, one. [`fitting`](Self::fitting) tells the rest.
    pub(super) fn candidates(&self, path: Path) -> Vec<Arc<Peer>> {
        let at_addr = self.by_addr.get(&path.remote.ip()).into_iter().flat_map(Named::values);
        let firsts = self.alike.iter().filter_map(|alike| alike.members.values().next());
        let mut found: Vec<&Arc<Peer>> =
            at_addr.chain(firsts).filter(|peer| is_for(peer, path)).collect();
        found.sort_by_key(|peer| (rank(peer, path), &peer.name));
        found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        found.into_iter().cloned().collect()
    }

    /// Those that are like one of the `accepted` candidates and may have this identity: in the order in which they would
    /// have been candidates.
    pub(super) fn fitting(
        &self,
        accepted: &[Arc<Peer>],
        path: Path,
        who: &Identity,
    ) -> Vec<Arc<Peer>> {
        let keys = [Some(form(who)), None];
        let named = self.accepted(accepted).flat_map(|alike| {
            keys.iter().filter_map(|key| alike.by_identity.get(key)).flat_map(Named::values)
        });
        let mut found: Vec<&Arc<Peer>> = named
            .filter(|peer| peer.peer_id.as_ref().is_none_or(|expected| expected.is_same(who)))
            .collect();
        found.sort_by_key(|peer| (rank(peer, path), &peer.name));
        found.into_iter().cloned().collect()
    }

    /// The only peer that is like one of the `accepted` candidates.
    pub(super) fn only(&self, accepted: &[Arc<Peer>]) -> Option<&Arc<Peer>> {
        let mut members = self.accepted(accepted).flat_map(|alike| alike.members.values());
        members.next().filter(|_| members.next().is_none())
    }

    fn accepted(&self, accepted: &[Arc<Peer>]) -> impl Iterator<Item = &Alike> {
        let is_accepted = |alike: &&Alike| accepted.iter().any(|peer| alike.is_like(peer));
        self.alike.iter().filter(is_accepted)
    }
}

impl Alike {
    fn is_like(&self, peer: &Peer) -> bool {
        self.members.values().next().is_some_and(|first| are_alike(first, peer))
    }
}

/// Whether IKE_SA_INIT, and what follows it before the peer has said who it is, is the same with either. What is asked of a
/// peer there: address, algorithms, encapsulation, fragments, its PPK (RFC 9867), and of one that signs, by which CAs.
fn are_alike(one: &Peer, other: &Peer) -> bool {
    let addresses = |peer: &Peer| match peer.address {
        PeerAddress::Ip(_) => 0,
        PeerAddress::Name(_) => 1,
        PeerAddress::Any => 2,
    };
    let by_key =
        |peer: &Peer| matches!(peer.auth.peer, PeerAuth::Psk(_)) && !peer.auth.has_signature();
    one.local_addr == other.local_addr
        && addresses(one) == addresses(other)
        && one.ike == other.ike
        && one.ppk == other.ppk
        && (by_key(one) && by_key(other) || one.auth == other.auth)
}

fn is_for(peer: &Peer, path: Path) -> bool {
    peer.local_addr.is_none_or(|local| local == path.local.ip())
}

fn rank(peer: &Peer, path: Path) -> u8 {
    match &peer.address {
        PeerAddress::Ip(ip) if *ip == path.remote.ip() => 0,
        // Behind a NAT, the address that is seen is not the one that was written down.
        PeerAddress::Ip(_) => 3,
        PeerAddress::Name(_) => 1,
        PeerAddress::Any => 2,
    }
}

/// A form that is one for all identities that are the same. Names in certificates have none, and are looked through.
fn form(identity: &Identity) -> Identity {
    match identity {
        Identity::Fqdn(name) => Identity::Fqdn(name.to_ascii_lowercase()),
        Identity::Email(name) => Identity::Email(name.to_ascii_lowercase()),
        Identity::Dn(_) => Identity::Dn(Vec::new()),
        Identity::Ipv4(_) | Identity::Ipv6(_) | Identity::KeyId(_) | Identity::Other { .. } => {
            identity.clone()
        }
    }
}

/// Whether an IKE SA made with the peer as `old` has it may stay with it as `new` has it.
pub(super) fn may_keep_ike_sa(old: &Peer, new: &Peer) -> bool {
    // CRLs and OCSP responses are for who comes next.
    old.auth.is_like(&new.auth)
        && old.ppk == new.ppk
        && old.local_addr == new.local_addr
        && old.address == new.address
        && old.local_id == new.local_id
        && old.peer_id == new.peer_id
        && old.ike.proposals == new.ike.proposals
        && old.ike.encap == new.ike.encap
        && old.request == new.request
        && old.pool == new.pool
}

/// What becomes of a CHILD_SA when its peer's configuration changes; the number is that of its policy from then on.
pub(super) enum Fate {
    /// It stays; what differs is for those that replace it.
    Keep(usize),
    /// It is replaced without a gap: what differs is our own affair, and in the SA from its beginning.
    Rekey(usize),
    /// It is deleted: it is none that the peer as it is configured would get.
    Delete,
}

/// What becomes of a CHILD_SA made by the policy `old` with the peer as `new` has it.
pub(super) fn fate(old: &ChildPolicy, new: &Peer) -> Fate {
    let is_successor = |new: &ChildPolicy| {
        old.name == new.name
            && old.policy == new.policy
            && old.proposals == new.proposals
            && old.mode == new.mode
            && old.or_tunnel == new.or_tunnel
            && old.ts_local == new.ts_local
            && old.ts_peer == new.ts_peer
    };
    match new.children.iter().enumerate().find(|(_, new)| is_successor(new)) {
        None => Fate::Delete,
        Some((at, new)) => {
            let same =
                old.replay_window == new.replay_window && old.df == new.df && old.dscp == new.dscp;
            if same { Fate::Keep(at) } else { Fate::Rekey(at) }
        }
    }
}

/// What a change of a peer's configuration costs the SAs there are: [`Command::AddPeer`](super::Command::AddPeer) with `new`
/// where `old` is known. Both have their policies numbered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The IKE SA is deleted, and everything under it.
    pub ike_sa: bool,
    /// CHILD_SAs that are deleted, by the names of their policies.
    pub deleted: Vec<Arc<str>>,
    /// CHILD_SAs that are rekeyed.
    pub rekeyed: Vec<Arc<str>>,
}

impl Cost {
    /// Of this change.
    #[must_use]
    pub fn of(old: &Peer, new: &Peer) -> Self {
        let mut cost = Self { ike_sa: !may_keep_ike_sa(old, new), ..Self::default() };
        if !cost.ike_sa {
            for child in &old.children {
                match fate(child, new) {
                    Fate::Keep(_) => {}
                    Fate::Rekey(_) => cost.rekeyed.push(Arc::clone(&child.name)),
                    Fate::Delete => cost.deleted.push(Arc::clone(&child.name)),
                }
            }
        }
        cost
    }

    /// Whether every SA stays as it is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::ipsec::pad::{Auth, StartPolicy};
    use crate::testing::peers;
    use crate::wire::ike::numbers::KeId;

    fn peer(name: &str, identity: Option<&str>, address: PeerAddress) -> Peer {
        Peer {
            name: name.into(),
            address,
            peer_id: identity.map(|name| Identity::Fqdn(name.to_owned())),
            auth: Auth::psk(Secret::copy_of(name.as_bytes())),
            ..peers::site_b()
        }
    }

    fn ip(last: u8) -> PeerAddress {
        PeerAddress::Ip([192, 0, 2, last].into())
    }

    fn path(last: u8) -> Path {
        peers::path([192, 0, 2, 99].into(), [192, 0, 2, last].into())
    }

    fn names(peers: &[Arc<Peer>]) -> Vec<&str> {
        peers.iter().map(|peer| &*peer.name).collect()
    }

    #[test]
    fn one_of_many_alike_stands_for_all_and_the_identity_tells_which() {
        let mut all = Peers::default();
        for n in 0..100_u8 {
            let id = format!("{n}.example.net");
            let _new = all.insert(&Arc::new(peer(&format!("p{n:02}"), Some(&id), ip(n))));
        }
        let _new = all.insert(&Arc::new(peer("anybody", None, PeerAddress::Any)));
        let candidates = all.candidates(path(42));
        assert_eq!(names(&candidates), ["p42", "anybody", "p00"], "by rank");
        let who = |name: &str| Identity::Fqdn(name.to_owned());
        let fitting = all.fitting(&candidates, path(42), &who("17.EXAMPLE.net"));
        assert_eq!(names(&fitting), ["anybody", "p17"]);
        assert_eq!(
            names(&all.fitting(&candidates[..1], path(42), &who("17.example.net"))),
            ["p17"]
        );
        assert!(all.fitting(&candidates[..1], path(42), &who("other")).is_empty());
        assert!(all.only(&candidates[..1]).is_none());
        assert_eq!(all.only(&candidates[1..2]).map(|peer| &*peer.name), Some("anybody"));
    }

    #[test]
    fn who_differs_in_what_is_asked_at_first_is_a_candidate_by_itself() {
        let mut all = Peers::default();
        let mut other = peer("other", Some("other"), ip(2));
        other.ike.proposals[0].ke = vec![KeId::ECP_256];
        let mut elsewhere = peer("elsewhere", Some("elsewhere"), ip(3));
        elsewhere.local_addr = Some([192, 0, 2, 98].into());
        for peer in [peer("one", Some("one"), ip(1)), other, elsewhere] {
            let _new = all.insert(&Arc::new(peer));
        }
        assert_eq!(names(&all.candidates(path(7))), ["one", "other"]);
    }

    #[test]
    fn what_is_removed_or_replaced_is_found_no_more() {
        let mut all = Peers::default();
        let mut first = peer("a", Some("a"), ip(1));
        first.children[0].policy = PolicyId(5);
        assert!(all.insert(&Arc::new(first.clone())).is_none());
        assert!(all.of_policy(PolicyId(5)).is_some());
        first.children[0].policy = PolicyId(6);
        first.address = ip(2);
        assert!(all.insert(&Arc::new(first)).is_some());
        assert!(all.of_policy(PolicyId(5)).is_none());
        assert_eq!((all.by_addr.len(), all.alike.len()), (1, 1));
        assert!(all.remove(&"a".into()).is_some());
        assert!(all.remove(&"a".into()).is_none());
        assert!(all.candidates(path(2)).is_empty());
        assert!(all.by_addr.is_empty() && all.by_policy.is_empty() && all.alike.is_empty());
    }
    #[test]
    fn change_costs_no_more_than_it_has_to() {
        let old = peers::site_b();
        let cost = |change: &dyn Fn(&mut Peer)| {
            let mut new = old.clone();
            change(&mut new);
            Cost::of(&old, &new)
        };
        let name = &old.children[0].name;
        let rekeyed = Cost { rekeyed: vec![Arc::clone(name)], ..Cost::default() };
        let deleted = Cost { deleted: vec![Arc::clone(name)], ..Cost::default() };
        let ike_sa = Cost { ike_sa: true, ..Cost::default() };
        assert!(cost(&|_| {}).is_nothing());
        assert!(
            cost(&|new| new.ike.dpd_delay = Some(core::time::Duration::from_secs(9))).is_nothing()
        );
        assert!(cost(&|new| new.ike.rekey_time = None).is_nothing());
        assert!(cost(&|new| new.children[0].lifetime.soft_bytes = Some(1)).is_nothing());
        assert!(cost(&|new| new.children[0].start = StartPolicy::Respond).is_nothing());
        assert_eq!(cost(&|new| new.children[0].replay_window = 64), rekeyed);
        assert_eq!(cost(&|new| new.children[0].ts_peer.clear()), deleted);
        assert_eq!(cost(&|new| new.children[0].name = "other".into()), deleted);
        assert_eq!(cost(&|new| new.auth = Auth::psk(Secret::copy_of(b"other"))), ike_sa);
        assert_eq!(cost(&|new| new.address = ip(77)), ike_sa);
        let both = cost(&|new| {
            new.address = ip(77);
            new.children[0].ts_peer.clear();
        });
        assert_eq!(both, ike_sa, "with the IKE SA everything under it goes");
    }
}
