//! What may stay of a peer's SAs when its configuration changes: [`Command::AddPeer`](super::Command::AddPeer) of a name
//! that is known.

use crate::ipsec::pad::{ChildPolicy, Peer};

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

/// Whether a CHILD_SA made by the policy `old` may stay with the peer as `new` has it.
pub(super) fn may_keep_child_sa(old: &ChildPolicy, new: &Peer) -> bool {
    new.children.iter().any(|new| {
        old.name == new.name
            && old.policy == new.policy
            && old.proposals == new.proposals
            && old.mode == new.mode
            && old.or_tunnel == new.or_tunnel
            && old.ts_local == new.ts_local
            && old.ts_peer == new.ts_peer
            && old.lifetime == new.lifetime
            && old.replay_window == new.replay_window
            && old.df == new.df
            && old.dscp == new.dscp
    })
}
