//! The host's rules for policies that need no SA: what is bypassed stays out of the TUNs, what is discarded goes nowhere.

use std::sync::Arc;

use super::{Network, warn};
use crate::io::route::RouteError;
use crate::io::rule::{self, Rule};
use crate::ipsec::FixedPolicy;

impl Network {
    /// Every rule of ours but that which leads to the table of routes.
    pub(super) fn host_rules(&self) -> impl Iterator<Item = &Rule> {
        let attached = self.tuns.values().flat_map(|tun| tun.peers.values());
        attached.flat_map(|attached| &attached.rules).chain(&self.fixed_rules)
    }

    /// Sets the policies of a file; none takes them away.
    ///
    /// # Errors
    /// What the kernel says; then the file has none.
    pub(super) async fn set_fixed(
        &mut self,
        file: &Arc<str>,
        policies: Vec<FixedPolicy>,
    ) -> Result<(), RouteError> {
        let changed = if policies.is_empty() {
            self.fixed.remove(file).is_some()
        } else {
            self.fixed.insert(Arc::clone(file), policies.clone()).as_ref() != Some(&policies)
        };
        if !changed {
            return Ok(());
        }
        let result = self.apply_fixed().await;
        if result.is_err() {
            self.fixed.remove(file);
            warn(self.apply_fixed().await);
        }
        result
    }

    /// Makes the rules what the policies of all files say. All that are to be are there before one goes; what is dropped before
    /// and after is dropped all the while.
    async fn apply_fixed(&mut self) -> Result<(), RouteError> {
        let policies = self.fixed.values().flatten();
        let wanted = rule::for_fixed(policies, self.shared.sockets.v6.is_some())?;
        let missing = |rule: &&Rule| !self.host_rules().any(|other| other == *rule);
        let (drops, others): (Vec<_>, Vec<_>) =
            wanted.iter().filter(missing).cloned().partition(Rule::discards);
        for rule in drops.into_iter().chain(others) {
            // Before it is there, so that an error finds what is to be removed.
            self.fixed_rules.push(rule.clone());
            self.netlink.add_host_rule(&rule).await?;
        }
        let before = core::mem::replace(&mut self.fixed_rules, wanted);
        let gone = |rule: &&Rule| !self.host_rules().any(|other| other == *rule);
        let mut gone: Vec<_> = before.iter().filter(gone).collect();
        gone.sort_by_key(|rule| rule.removal_rank());
        for rule in gone {
            warn(self.netlink.remove_host_rule(rule).await);
        }
        Ok(())
    }
}
