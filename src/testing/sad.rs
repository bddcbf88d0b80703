//! [`ModelSad`]: what a datapath would hold after a sequence of [`SadUpdate`]s, and whether the sequence made sense.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ipsec::{Path, PolicyId, SaParams, SadUpdate, Spi};

/// The SAD as a datapath would hold it (RFC 4301 §4.4.2).
#[derive(Clone, Debug, Default)]
pub struct ModelSad {
    inbound: BTreeMap<Spi, Arc<SaParams>>,
    /// In the order in which they were added: the last of a policy is the one in use.
    outbound: Vec<Arc<SaParams>>,
}

/// An update that no correct sequence contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl ModelSad {
    /// Applies one update.
    ///
    /// # Errors
    ///
    /// An SA added twice, an outbound SA without its inbound one, something removed or moved that is not there, a key
    /// that is empty or was used before. The update is applied as far as it makes sense.
    pub fn apply(&mut self, update: SadUpdate) -> Result<(), Violation> {
        match update {
            SadUpdate::AddInbound(params) => self.add_inbound(*params),
            SadUpdate::AddOutbound(params) => self.add_outbound(*params),
            SadUpdate::MovePath { spi, path } => self.move_path(spi, path),
            SadUpdate::RemoveInbound(spi) => match self.inbound.remove(&spi) {
                Some(_) => Ok(()),
                None => Err(Violation(format!("RemoveInbound of {spi}, which is not there"))),
            },
            SadUpdate::RemoveOutbound { policy, spi, other_spi } => {
                let before = self.outbound.len();
                self.outbound
                    .retain(|sa| (sa.policy, sa.spi, sa.other_spi) != (policy, spi, other_spi));
                match before - self.outbound.len() {
                    1 => Ok(()),
                    _ => Err(Violation(format!(
                        "RemoveOutbound of {spi} of {policy:?}, which is not there"
                    ))),
                }
            }
        }
    }

    /// The inbound SA of this SPI.
    #[must_use]
    pub fn inbound(&self, spi: Spi) -> Option<&Arc<SaParams>> {
        self.inbound.get(&spi)
    }

    /// Every inbound SA, by SPI.
    pub fn all_inbound(&self) -> impl Iterator<Item = &Arc<SaParams>> {
        self.inbound.values()
    }

    /// Every outbound SA, the oldest first.
    pub fn all_outbound(&self) -> impl Iterator<Item = &Arc<SaParams>> {
        self.outbound.iter()
    }

    /// The SAs through which packets of each policy leave: of each resource (RFC 9611), and of those without, the one added last.
    #[must_use]
    pub fn in_use(&self) -> BTreeMap<(PolicyId, Option<u16>), Arc<SaParams>> {
        self.outbound.iter().map(|sa| ((sa.policy, sa.resource), Arc::clone(sa))).collect()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inbound.is_empty() && self.outbound.is_empty()
    }

    /// Whether every outbound SA of each side is an inbound SA of the other with the same keys, algorithms, selectors
    /// and mode, and every inbound SA has its outbound one.
    ///
    /// # Errors
    ///
    /// Says what is missing or differs.
    pub fn check_mirror(&self, other: &Self) -> Result<(), Violation> {
        self.check_half(other)?;
        other.check_half(self)
    }

    fn check_half(&self, other: &Self) -> Result<(), Violation> {
        for outbound in &self.outbound {
            let Some(inbound) = other.inbound.get(&outbound.spi) else {
                return Err(Violation(format!("outbound SA {} has no inbound SA", outbound.spi)));
            };
            same_sa(outbound, inbound)?;
        }
        for (spi, inbound) in &self.inbound {
            let paired = |sa: &&Arc<SaParams>| sa.spi == inbound.other_spi && sa.other_spi == *spi;
            let Some(outbound) = self.outbound.iter().find(paired) else {
                return Err(Violation(format!("inbound SA {spi} has no outbound one")));
            };
            if outbound.policy != inbound.policy || outbound.suite != inbound.suite {
                return Err(Violation(format!("the two directions of {spi} differ")));
            }
            if have_same_keys(outbound, inbound) {
                return Err(Violation(format!("the two directions of {spi} share a key")));
            }
        }
        Ok(())
    }

    fn add_inbound(&mut self, params: SaParams) -> Result<(), Violation> {
        let spi = params.spi;
        let fresh = self.is_fresh(&params);
        let params = Arc::new(params);
        if self.inbound.insert(spi, params).is_some() {
            return Err(Violation(format!("AddInbound of {spi}, which is there already")));
        }
        fresh
    }

    fn add_outbound(&mut self, params: SaParams) -> Result<(), Violation> {
        let (spi, policy, other) = (params.spi, params.policy, params.other_spi);
        let fresh = self.is_fresh(&params);
        let pair = (policy, spi, other);
        if self.outbound.iter().any(|sa| (sa.policy, sa.spi, sa.other_spi) == pair) {
            return Err(Violation(format!("AddOutbound of {spi}, which is there already")));
        }
        self.outbound.push(Arc::new(params));
        // RFC 7296 §2.8: who sends on an SA must be ready to receive on it.
        if !self.inbound.contains_key(&other) {
            return Err(Violation(format!("AddOutbound of {spi} before AddInbound of {other}")));
        }
        fresh
    }

    fn move_path(&mut self, spi: Spi, path: Path) -> Result<(), Violation> {
        let Some(inbound) = self.inbound.get_mut(&spi) else {
            return Err(Violation(format!("MovePath of {spi}, which is not there")));
        };
        Arc::make_mut(inbound).path = path;
        for outbound in self.outbound.iter_mut().filter(|sa| sa.other_spi == spi) {
            Arc::make_mut(outbound).path = path;
        }
        Ok(())
    }

    fn is_fresh(&self, params: &SaParams) -> Result<(), Violation> {
        let spi = params.spi;
        if params.encr_key.is_empty() && params.integ_key.is_empty() {
            return Err(Violation(format!("SA {spi} has no key")));
        }
        if params.ts_local.is_empty() || params.ts_peer.is_empty() {
            return Err(Violation(format!("SA {spi} has no traffic selectors")));
        }
        let mut known = self.inbound.values().chain(&self.outbound);
        if known.any(|sa| have_same_keys(sa, params)) {
            return Err(Violation(format!("SA {spi} has the key of another")));
        }
        Ok(())
    }
}

/// AH has an integrity key, an AEAD an encryption key, all else both.
fn have_same_keys(a: &SaParams, b: &SaParams) -> bool {
    a.encr_key == b.encr_key && a.integ_key == b.integ_key
}

fn same_sa(outbound: &SaParams, inbound: &SaParams) -> Result<(), Violation> {
    let spi = outbound.spi;
    let differs = [
        ("SPI of the other direction", outbound.other_spi != inbound.other_spi),
        ("encryption key", outbound.encr_key != inbound.encr_key),
        ("integrity key", outbound.integ_key != inbound.integ_key),
        ("suite", outbound.suite != inbound.suite),
        ("mode", outbound.mode != inbound.mode),
        ("selectors", outbound.ts_local != inbound.ts_peer || outbound.ts_peer != inbound.ts_local),
        ("encapsulation", outbound.path.encap != inbound.path.encap),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        None => Ok(()),
        Some((what, _)) => Err(Violation(format!("the two ends of {spi} differ in {what}"))),
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers;
    use super::*;
    use crate::crypto::Secret;

    fn sa(spi: u32, other: u32, key: u8) -> Box<SaParams> {
        let mut params = peers::sa_params();
        params.spi = Spi::new(spi).unwrap();
        params.other_spi = Spi::new(other).unwrap();
        params.encr_key = Secret::new(vec![key; 36]);
        Box::new(params)
    }

    fn mirrored(mut params: Box<SaParams>) -> Box<SaParams> {
        core::mem::swap(&mut params.ts_local, &mut params.ts_peer);
        params
    }

    /// (500, 600): 600 sends with key 1, 500 with key 2.
    fn two_ends() -> (ModelSad, ModelSad) {
        let (mut left, mut right) = (ModelSad::default(), ModelSad::default());
        left.apply(SadUpdate::AddInbound(sa(500, 600, 1))).unwrap();
        left.apply(SadUpdate::AddOutbound(sa(600, 500, 2))).unwrap();
        right.apply(SadUpdate::AddInbound(mirrored(sa(600, 500, 2)))).unwrap();
        right.apply(SadUpdate::AddOutbound(mirrored(sa(500, 600, 1)))).unwrap();
        (left, right)
    }

    #[test]
    fn two_ends_of_a_pair_mirror_each_other() {
        let (left, right) = two_ends();
        left.check_mirror(&right).unwrap();
    }

    #[test]
    fn missing_inbound_sa_is_found() {
        let (left, mut right) = two_ends();
        right.apply(SadUpdate::RemoveInbound(Spi::new(600).unwrap())).unwrap();
        assert!(left.check_mirror(&right).unwrap_err().0.contains("no inbound SA"));
    }

    #[test]
    fn different_keys_are_found() {
        let (left, mut right) = two_ends();
        right.apply(SadUpdate::RemoveInbound(Spi::new(600).unwrap())).unwrap();
        right.apply(SadUpdate::AddInbound(mirrored(sa(600, 500, 9)))).unwrap();
        assert!(left.check_mirror(&right).unwrap_err().0.contains("encryption key"));
    }

    #[test]
    fn removing_twice_is_a_violation() {
        let (mut left, _) = two_ends();
        let policy = peers::sa_params().policy;
        let (inbound, outbound) = (Spi::new(500).unwrap(), Spi::new(600).unwrap());
        left.apply(SadUpdate::RemoveInbound(inbound)).unwrap();
        left.apply(SadUpdate::RemoveInbound(inbound)).unwrap_err();
        let removal = SadUpdate::RemoveOutbound { policy, spi: outbound, other_spi: inbound };
        left.apply(removal.clone()).unwrap();
        left.apply(removal).unwrap_err();
        assert!(left.is_empty());
    }

    #[test]
    fn outbound_before_inbound_is_a_violation() {
        let mut sad = ModelSad::default();
        sad.apply(SadUpdate::AddOutbound(sa(600, 500, 2))).unwrap_err();
    }

    #[test]
    fn reused_key_is_a_violation() {
        let (mut left, _) = two_ends();
        left.apply(SadUpdate::AddInbound(sa(501, 601, 1))).unwrap_err();
    }

    #[test]
    fn last_added_outbound_sa_is_in_use() {
        let (mut left, _) = two_ends();
        let policy = peers::sa_params().policy;
        left.apply(SadUpdate::AddInbound(sa(501, 601, 3))).unwrap();
        left.apply(SadUpdate::AddOutbound(sa(601, 501, 4))).unwrap();
        assert_eq!(left.in_use()[&(policy, None)].spi.get(), 601);
        let [spi, other_spi] = [601, 501].map(|spi| Spi::new(spi).unwrap());
        left.apply(SadUpdate::RemoveOutbound { policy, spi, other_spi }).unwrap();
        assert_eq!(left.in_use()[&(policy, None)].spi.get(), 600);
    }
}
