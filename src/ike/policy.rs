//! [`Policy`]: a policy for CHILD_SAs together with the peer that it is of, so that ten thousand CHILD_SAs are no ten thousand
//! copies of it.

use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

use crate::ipsec::pad::{ChildPolicy, Peer};

/// See the module.
#[derive(Clone)]
pub(super) struct Policy {
    peer: Arc<Peer>,
    /// Where it is among the peer's. Nothing changes a peer that is shared.
    at: usize,
}

impl Policy {
    /// The peer's policy of this number, if there is one.
    pub(super) fn at(peer: &Arc<Peer>, at: usize) -> Option<Self> {
        (at < peer.children.len()).then(|| Self { peer: Arc::clone(peer), at })
    }

    /// That of this name.
    pub(super) fn named(peer: &Arc<Peer>, name: &str) -> Option<Self> {
        Self::at(peer, peer.children.iter().position(|policy| *policy.name == *name)?)
    }
}

impl Deref for Policy {
    type Target = ChildPolicy;

    fn deref(&self) -> &ChildPolicy {
        &self.peer.children[self.at]
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
