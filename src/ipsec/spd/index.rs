//! [`Index`]: which entries of the SPD can match a destination.

use core::net::IpAddr;
use core::ops::Range;

use super::SpdEntry;

/// An entry that lies over more intervals than this is in none of them: it stands in a list that is looked through.
const WIDE: usize = 64;

/// By the bounds of all selectors of the peers' sides, the addresses fall into intervals: each has the entries that lie
/// over it, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
}

#[derive(Clone, Debug)]
struct Intervals<A> {
    /// Where each begins; the first begins at the lowest address that anything lies over.
    starts: Vec<A>,
    /// What each has.
    over: Vec<Over>,
    entries: Vec<u32>,
    /// Entries that lie over many of them, in order.
    wide: Vec<u32>,
}

/// The entries over an interval.
#[derive(Clone, Debug)]
enum Over {
    /// One, as nearly always.
    One([u32; 1]),
    /// These of `entries`.
    Several(Range<u32>),
}

impl Index {
    pub(super) fn of(entries: &[SpdEntry]) -> Self {
        let ranges = |of: fn(IpAddr, IpAddr) -> Option<(u128, u128)>| {
            let mut found = Vec::new();
            for (number, entry) in entries.iter().enumerate() {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                for ts in entry.ts_peer.iter() {
                    found.extend(of(ts.start_addr, ts.end_addr).map(|range| (number, range)));
                }
            }
            found
        };
        let v4 = ranges(|start, end| match (start, end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => {
                Some((start.to_bits().into(), end.to_bits().into()))
            }
            _ => None,
        });
        let v6 = ranges(|start, end| match (start, end) {
            (IpAddr::V6(start), IpAddr::V6(end)) => Some((start.to_bits(), end.to_bits())),
            _ => None,
        });
        Self { v4: Intervals::of(&v4), v6: Intervals::of(&v6) }
    }

    /// Numbers of the entries that can match, in order; some of them may not.
    #[inline]
    pub(super) fn may_match(&self, dst: IpAddr) -> impl Iterator<Item = usize> {
        let (narrow, wide) = match dst {
            IpAddr::V4(dst) => self.v4.at(dst.to_bits()),
            IpAddr::V6(dst) => self.v6.at(dst.to_bits()),
        };
        let (mut narrow, mut wide) = (narrow.iter().peekable(), wide.iter().peekable());
        core::iter::from_fn(move || {
            let next = match (narrow.peek(), wide.peek()) {
                (Some(one), Some(other)) if other < one => wide.next(),
                (None, _) => wide.next(),
                _ => narrow.next(),
            };
            next.and_then(|&number| usize::try_from(number).ok())
        })
    }
}

impl<A: Copy + Ord + TryFrom<u128>> Intervals<A> {
    /// Of entries and what they lie over, both bounds included, in the order of the entries.
    fn of(ranges: &[(u32, (u128, u128))]) -> Self {
        let ranges = ranges.iter().filter(|(_, (start, end))| start <= end);
        let mut bounds: Vec<u128> = ranges
            .clone()
            .flat_map(|&(_, (start, end))| [Some(start), end.checked_add(1)])
            .flatten()
            .collect();
        bounds.sort_unstable();
        bounds.dedup();
        let place = |bound: u128| bounds.partition_point(|&start| start < bound);
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); bounds.len()];
        let mut wide = Vec::new();
        let add = |list: &mut Vec<u32>, number| {
            // An entry may have selectors that overlap.
            if list.last() != Some(&number) {
                list.push(number);
            }
        };
        for &(number, (start, end)) in ranges {
            let over = place(start)..end.checked_add(1).map_or(bounds.len(), place);
            if over.len() > WIDE {
                add(&mut wide, number);
            } else {
                lists[over].iter_mut().for_each(|list| add(list, number));
            }
        }
        let mut entries = Vec::new();
        let mut taken = Vec::with_capacity(lists.len());
        for list in lists {
            if let [one] = list[..] {
                taken.push(Over::One([one]));
                continue;
            }
            let from = entries.len();
            entries.extend(list);
            let position = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            taken.push(Over::Several(position(from)..position(entries.len())));
        }
        // What begins beyond the last address of this version of IP begins nowhere.
        let starts: Vec<A> = bounds.iter().map_while(|&start| A::try_from(start).ok()).collect();
        taken.truncate(starts.len());
        Self { starts, over: taken, entries, wide }
    }

    /// Those over an address, and those over many.
    #[inline]
    fn at(&self, addr: A) -> (&[u32], &[u32]) {
        let at = self.starts.partition_point(|&start| start <= addr).checked_sub(1);
        let narrow = match at.and_then(|at| self.over.get(at)) {
            Some(Over::One(one)) => one,
            Some(Over::Several(range)) => {
                let position = |at| usize::try_from(at).unwrap_or(0);
                let range = position(range.start)..position(range.end);
                self.entries.get(range).unwrap_or_default()
            }
            None => &[],
        };
        (narrow, &self.wide)
    }
}

impl<A> Default for Intervals<A> {
    fn default() -> Self {
        Self { starts: vec![], over: vec![], entries: vec![], wide: vec![] }
    }
}
