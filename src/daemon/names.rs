//! The names of policies: the datapath knows them by number.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::peers::Entry;
use crate::ipsec::PolicyId;

/// Peer and child policy, by number.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<PolicyId, (Arc<str>, Arc<str>)>);

impl Names {
    /// Of these peers.
    #[must_use]
    pub fn of<'a>(peers: impl Iterator<Item = &'a Entry>) -> Self {
        let mut names = BTreeMap::new();
        for entry in peers {
            for policy in entry.config.policies() {
                names.insert(policy.id, (Arc::clone(entry.name()), Arc::clone(policy.name)));
            }
        }
        Self(names)
    }

    /// The peer, and the name of the policy.
    #[must_use]
    pub fn get(&self, policy: PolicyId) -> Option<(&str, &str)> {
        self.0.get(&policy).map(|(peer, child)| (&**peer, &**child))
    }
}
