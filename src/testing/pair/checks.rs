//! What holds of a [`Pair`] when all is well.

use super::*;

impl Pair {
    /// Whether both have the same one IKE SA with `children` CHILD_SAs under it, with SADs that mirror each other and
    /// hold nothing else.
    ///
    /// # Errors
    ///
    /// Says what is not so.
    pub fn check_established(&self, children: usize) -> Result<(), Violation> {
        self.check_rules()?;
        let (ours, theirs) = (self.ike_sas(A), self.ike_sas(B));
        if ours.len() != 1 || ours != theirs {
            return Err(Violation(format!("IKE SAs of A: {ours:x?}, of B: {theirs:x?}")));
        }
        for side in [A, B] {
            let status = self.status(side);
            let [sa] = status.as_slice() else {
                return Err(Violation(format!(
                    "{side} has other IKE SAs than the one: {status:?}"
                )));
            };
            if sa.state != "ESTABLISHED" {
                return Err(Violation(format!("{side} is {}", sa.state)));
            }
            let sad = &self.node(side).sad;
            let counts = [sa.children.len(), sad.all_inbound().count(), sad.all_outbound().count()];
            if counts != [children; 3] {
                return Err(Violation(format!(
                    "{side} has {counts:?} CHILD_SAs, inbound and outbound SAs, not {children}"
                )));
            }
            // Nothing is offered any more, so that those in use are all that are taken.
            let taken = self.node(side).endpoint.spis_taken();
            if taken != children {
                return Err(Violation(format!("{side} has {taken} SPIs taken, not {children}")));
            }
            for child in &sa.children {
                let known = sad.inbound(child.spi_inbound).map(|inbound| inbound.other_spi);
                if known != Some(child.spi_outbound) {
                    return Err(Violation(format!(
                        "{side}'s CHILD_SA {child:?} is not in its SAD"
                    )));
                }
            }
        }
        self.node(A).sad.check_mirror(&self.node(B).sad)
    }

    /// Whether neither has an IKE SA or anything in its SAD.
    ///
    /// # Errors
    ///
    /// Says what is left.
    pub fn check_gone(&self) -> Result<(), Violation> {
        self.check_rules()?;
        for side in [A, B] {
            let status = self.status(side);
            if !status.is_empty() {
                return Err(Violation(format!("{side} has {status:?}")));
            }
            if !self.node(side).sad.is_empty() {
                return Err(Violation(format!("{side} has left something in its SAD")));
            }
            let taken = self.node(side).endpoint.spis_taken();
            if taken != 0 {
                return Err(Violation(format!("{side} has left {taken} SPIs taken")));
            }
        }
        Ok(())
    }

    /// Whether no endpoint broke a rule of the harness.
    ///
    /// # Errors
    ///
    /// The first that was broken.
    pub fn check_rules(&self) -> Result<(), Violation> {
        self.violations.first().map_or(Ok(()), |violation| Err(violation.clone()))
    }

    /// Whether every virtual packet met its SA.
    ///
    /// # Errors
    ///
    /// Names those that did not.
    pub fn check_no_packet_missed(&self) -> Result<(), Violation> {
        if self.missed.is_empty() {
            return Ok(());
        }
        Err(Violation(format!("packets without an SA to meet them: {:?}", self.missed)))
    }
}
