//! Traffic selector negotiation (RFC 7296 §2.9).

use super::limits::MAX_SELECTORS;
use crate::ipsec::TrafficSelector;

/// The selectors that both sides accept: each of `theirs` met with each of `ours`, in the order of `theirs`, since the first of them may
/// be that of the packet that asked. Empty if there is none.
pub(super) fn narrow(theirs: &[TrafficSelector], ours: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut both: Vec<TrafficSelector> = Vec::new();
    for their in theirs {
        for our in ours {
            if both.len() >= MAX_SELECTORS {
                return both;
            }
            if let Some(selector) = their.intersect(our)
                && !both.iter().any(|other| selector.is_subset(other))
            {
                both.retain(|other| !other.is_subset(&selector));
                both.push(selector);
            }
        }
    }
    both
}

/// Whether every one of `selectors` lies within one of `outer`, and there is one at all.
pub(super) fn within(selectors: &[TrafficSelector], outer: &[TrafficSelector]) -> bool {
    !selectors.is_empty()
        && selectors.iter().all(|selector| outer.iter().any(|other| selector.is_subset(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(prefix: &str) -> TrafficSelector {
        let (addr, len) = prefix.split_once('/').unwrap();
        TrafficSelector::from_prefix(addr.parse().unwrap(), len.parse().unwrap()).unwrap()
    }

    #[test]
    fn wider_offer_is_narrowed_to_our_subnets() {
        let ours = [ts("10.1.0.0/16"), ts("fd00:1::/32")];
        assert_eq!(narrow(&[ts("0.0.0.0/0"), ts("::/0")], &ours), ours);
    }

    #[test]
    fn narrower_offer_is_taken_as_it_is() {
        assert_eq!(narrow(&[ts("10.1.2.0/24")], &[ts("10.1.0.0/16")]), [ts("10.1.2.0/24")]);
    }

    #[test]
    fn what_another_result_covers_is_left_out() {
        let theirs = [ts("10.1.2.3/32"), ts("10.1.0.0/16")];
        assert_eq!(narrow(&theirs, &[ts("10.0.0.0/8")]), [ts("10.1.0.0/16")]);
    }

    #[test]
    fn strangers_have_nothing_in_common() {
        assert!(narrow(&[ts("10.1.0.0/16")], &[ts("10.2.0.0/16")]).is_empty());
        assert!(!within(&[], &[ts("10.2.0.0/16")]));
    }

    #[test]
    fn result_lies_within_both_offers() {
        let theirs = [ts("10.0.0.0/8"), ts("192.168.1.0/24")];
        let ours = [ts("10.3.0.0/16"), ts("192.168.0.0/16")];
        let both = narrow(&theirs, &ours);
        assert!(within(&both, &theirs) && within(&both, &ours));
        assert!(!within(&theirs, &ours));
    }
}
