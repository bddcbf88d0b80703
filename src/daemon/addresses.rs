//! The addresses that a peer's name has, and which of them is tried next: one that does not answer is left for the others soon.

use core::net::IpAddr;

/// So often a request is sent to an address of several, in the first round of them. With the waits that are the default these are
/// six seconds, so that four addresses fit into the time of `up`.
const ASKED: u32 = 3;

/// The addresses of one peer.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Of the last look-up.
    usable: Vec<IpAddr>,
    /// Those of this round that have been tried, the last one last.
    asked: Vec<IpAddr>,
    /// The one that led to the peer.
    good: Option<IpAddr>,
    rounds: u32,
}

impl Addresses {
    /// Of those found, the one for the next attempt: each once, in their order, but the one that was good before first.
    pub fn next(&mut self, found: Vec<IpAddr>) -> Option<IpAddr> {
        self.usable = found;
        let at = self.usable.iter().position(|address| Some(*address) == self.good);
        if let Some(before) = at.and_then(|at| self.usable.get_mut(..=at)) {
            before.rotate_right(1);
        }
        if !self.asked.is_empty() && !self.has_other() {
            self.asked.clear();
            self.rounds = self.rounds.saturating_add(1);
        }
        let next = self.usable.iter().find(|address| !self.asked.contains(address)).copied()?;
        self.asked.push(next);
        Some(next)
    }

    /// The address of the last attempt is tried once more.
    pub fn again(&mut self) {
        self.asked.pop();
    }

    /// Whether there are addresses that this round has not come to.
    #[must_use]
    pub fn has_other(&self) -> bool {
        self.usable.iter().any(|address| !self.asked.contains(address))
    }

    /// Whether an attempt at one of them has been made, and others are left.
    #[must_use]
    pub fn is_on_its_way(&self) -> bool {
        !self.asked.is_empty() && self.has_other()
    }

    /// Whether an address to which a request was sent so often has been waited for long enough, since there are others.
    #[must_use]
    pub fn is_enough(&self, tries: u32) -> bool {
        self.usable.len() > 1 && tries > ASKED.saturating_add(self.rounds)
    }

    /// Those of this round that have been tried.
    #[must_use]
    pub fn asked(&self) -> &[IpAddr] {
        &self.asked
    }

    /// That of the last attempt.
    #[must_use]
    pub fn last(&self) -> Option<IpAddr> {
        self.asked.last().copied()
    }

    /// The last one led to the peer.
    pub fn succeeded(&mut self) {
        self.good = self.asked.pop().or(self.good);
        self.asked.clear();
        self.rounds = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_address_is_tried_once_in_a_round_in_whatever_order_they_are_found() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.next(of(&["192.0.2.1", "2001:db8::1"])), Some(of(&["192.0.2.1"])[0]));
        assert!(addresses.has_other());
        // As a resolver that turns them round has it.
        assert_eq!(
            addresses.next(of(&["2001:db8::1", "192.0.2.1"])),
            Some(of(&["2001:db8::1"])[0])
        );
        assert!(!addresses.has_other());
        assert_eq!(addresses.next(of(&["192.0.2.1", "2001:db8::1"])), Some(of(&["192.0.2.1"])[0]));
        assert_eq!(addresses.next(Vec::new()), None);
    }

    #[test]
    fn the_address_that_led_to_the_peer_is_the_first_next_time() {
        let found = of(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        let mut addresses = Addresses::default();
        assert_eq!(addresses.next(found.clone()), Some(found[0]));
        assert_eq!(addresses.next(found.clone()), Some(found[1]));
        addresses.succeeded();
        // Again, since it is looked at often while it is up.
        addresses.succeeded();
        let then: Vec<_> = (0..3).map(|_| addresses.next(found.clone()).unwrap()).collect();
        assert_eq!(then, [found[1], found[0], found[2]]);
    }

    #[test]
    fn one_of_several_is_left_soon_and_the_only_one_is_not() {
        let mut addresses = Addresses::default();
        addresses.next(of(&["192.0.2.1"]));
        assert!(!addresses.is_enough(9));
        addresses.next(of(&["192.0.2.1", "192.0.2.2"]));
        assert!(!addresses.is_enough(3) && addresses.is_enough(4));
        // Both were in vain: perhaps they only need more time.
        addresses.next(of(&["192.0.2.1", "192.0.2.2"]));
        assert!(!addresses.is_enough(4) && addresses.is_enough(5));
    }

    #[test]
    fn an_address_may_be_tried_once_more_before_the_others() {
        let found = of(&["192.0.2.1", "192.0.2.2"]);
        let mut addresses = Addresses::default();
        addresses.next(found.clone());
        addresses.again();
        assert_eq!(addresses.next(found.clone()), Some(found[0]));
        assert_eq!(addresses.asked(), &found[..1]);
    }
}
