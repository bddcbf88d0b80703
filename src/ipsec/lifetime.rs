//! [`Usage`]: bytes and packets counted against the limits of an SA (RFC 4301 §4.4.2.1). Time is IKE's.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{DropReason, Lifetime};

/// What an SA has carried, and what it may. Shared by workers.
#[derive(Debug)]
pub struct Usage {
    limits: Lifetime,
    unlimited: bool,
    bytes: AtomicU64,
    packets: AtomicU64,
    soft_told: AtomicBool,
    hard_told: AtomicBool,
}

/// What several packets carried that is not counted yet.
#[derive(Debug, Default)]
pub struct Tally {
    bytes: u64,
    packets: u64,
}

impl Tally {
    /// Counts a packet of `len` bytes, for an SA that [has no limit](Usage::is_unlimited).
    #[inline]
    pub(super) fn count(&mut self, len: usize) {
        self.bytes = self.bytes.saturating_add(len as u64);
        self.packets += 1;
    }
}

/// A limit was reached; each is reported once in the life of an SA.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// None, or one that was reported before.
    None,
    /// Time to replace the SA.
    Soft,
    /// The SA has ended.
    Hard,
}

impl Usage {
    /// Nothing carried yet.
    #[must_use]
    pub const fn new(limits: Lifetime) -> Self {
        let Lifetime { soft_bytes, hard_bytes, soft_packets, hard_packets, .. } = limits;
        let unlimited = matches!(
            (soft_bytes, hard_bytes, soft_packets, hard_packets),
            (None, None, None, None)
        );
        Self {
            limits,
            unlimited,
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            soft_told: AtomicBool::new(false),
            hard_told: AtomicBool::new(false),
        }
    }

    /// Bytes of IP packets before encapsulation.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Packets.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Whether a packet of `len` bytes may still pass. Workers that ask at the same time may both hear yes, so that the
    /// limit is overstepped by as many packets as there are workers.
    #[must_use]
    #[inline]
    pub fn permits(&self, len: usize) -> bool {
        self.permits_all(1, len)
    }

    /// As [`permits`](Self::permits), of `packets` packets with `len` bytes in all.
    #[must_use]
    pub fn permits_all(&self, packets: u64, len: usize) -> bool {
        let over = |limit: Option<u64>, used: u64, more: u64| {
            limit.is_some_and(|limit| used.saturating_add(more) > limit)
        };
        !over(self.limits.hard_bytes, self.bytes(), len as u64)
            && !over(self.limits.hard_packets, self.packets(), packets)
    }

    /// Counts a packet of `len` bytes; tells if that reached the soft limit.
    pub fn count(&self, len: usize) -> Limit {
        self.count_all(1, len)
    }

    /// As [`count`](Self::count), of `packets` packets with `len` bytes in all.
    pub fn count_all(&self, packets: u64, len: usize) -> Limit {
        let bytes = self.bytes.fetch_add(len as u64, Ordering::Relaxed).saturating_add(len as u64);
        let packets = self.packets.fetch_add(packets, Ordering::Relaxed).saturating_add(packets);
        let reached = |limit: Option<u64>, used: u64| limit.is_some_and(|limit| used >= limit);
        if reached(self.limits.soft_bytes, bytes) || reached(self.limits.soft_packets, packets) {
            self.reached_soft()
        } else {
            Limit::None
        }
    }

    /// As [`count`](Self::count), into `tally`, where there is no limit that it could reach.
    #[inline]
    pub fn count_into(&self, tally: &mut Tally, len: usize) -> Limit {
        if !self.is_unlimited() {
            return self.count(len);
        }
        tally.count(len);
        Limit::None
    }

    /// As [`count_into`](Self::count_into), if the packet may still pass.
    ///
    /// # Errors
    /// [`DropReason::LifetimeEnded`].
    #[inline]
    pub fn permit_into(&self, tally: &mut Tally, len: usize) -> Result<Limit, DropReason> {
        if !self.is_unlimited() && !self.permits(len) {
            return Err(DropReason::LifetimeEnded);
        }
        Ok(self.count_into(tally, len))
    }

    /// Counts what was tallied.
    pub fn add(&self, tally: &Tally) {
        if tally.packets > 0 {
            self.packets.fetch_add(tally.packets, Ordering::Relaxed);
        }
        if tally.bytes > 0 {
            self.bytes.fetch_add(tally.bytes, Ordering::Relaxed);
        }
    }

    /// Whether there is no limit of bytes or packets.
    #[must_use]
    #[inline]
    pub const fn is_unlimited(&self) -> bool {
        self.unlimited
    }

    /// The SA should be replaced, for whatever reason: [`Limit::Soft`] the first time.
    #[cold]
    pub fn reached_soft(&self) -> Limit {
        // A load first: a line that every packet writes would travel between the processors.
        if self.soft_told.load(Ordering::Relaxed) || self.soft_told.swap(true, Ordering::Relaxed) {
            Limit::None
        } else {
            Limit::Soft
        }
    }

    /// The SA has ended, for whatever reason: [`Limit::Hard`] the first time.
    pub fn reached_hard(&self) -> Limit {
        if self.hard_told.load(Ordering::Relaxed) || self.hard_told.swap(true, Ordering::Relaxed) {
            Limit::None
        } else {
            Limit::Hard
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_limits_are_told_once() {
        for limits in [
            Lifetime { soft_bytes: Some(1000), ..Lifetime::default() },
            Lifetime { soft_packets: Some(10), ..Lifetime::default() },
        ] {
            let usage = Usage::new(limits);
            let told: Vec<_> = (0..20).map(|_| usage.count(100)).collect();
            assert_eq!(told.iter().position(|&limit| limit == Limit::Soft), Some(9));
            assert_eq!(told.iter().filter(|&&limit| limit != Limit::None).count(), 1);
        }
    }

    #[test]
    fn without_limits_packets_are_counted_when_the_tally_is_added() {
        let usage = Usage::new(Lifetime::default());
        let mut tally = Tally::default();
        for _ in 0..3 {
            assert_eq!(usage.permit_into(&mut tally, 100), Ok(Limit::None));
        }
        assert_eq!((usage.bytes(), usage.packets()), (0, 0));
        usage.add(&tally);
        assert_eq!((usage.bytes(), usage.packets()), (300, 3));
        let mut tally = Tally::default();
        assert_eq!(usage.count_into(&mut tally, 50), Limit::None);
        usage.add(&tally);
        assert_eq!((usage.bytes(), usage.packets()), (350, 4));
    }

    #[test]
    fn with_limits_no_packet_waits_to_be_counted() {
        let limits =
            Lifetime { soft_packets: Some(2), hard_packets: Some(3), ..Lifetime::default() };
        let usage = Usage::new(limits);
        let mut tally = Tally::default();
        let told: Vec<_> = (0..4).map(|_| usage.permit_into(&mut tally, 100)).collect();
        let ended = Err(DropReason::LifetimeEnded);
        assert_eq!(told, [Ok(Limit::None), Ok(Limit::Soft), Ok(Limit::None), ended]);
        usage.add(&tally);
        assert_eq!((usage.bytes(), usage.packets()), (300, 3));
    }

    #[test]
    fn several_packets_are_counted_together() {
        let usage = Usage::new(Lifetime { soft_packets: Some(3), ..Lifetime::default() });
        let told = [2, 2, 1].map(|packets| usage.count_all(packets, 100));
        assert_eq!(told, [Limit::None, Limit::Soft, Limit::None]);
        assert_eq!((usage.bytes(), usage.packets()), (300, 5));
    }

    #[test]
    fn hard_limits_are_not_overstepped() {
        let usage = Usage::new(Lifetime { hard_bytes: Some(250), ..Lifetime::default() });
        assert!(usage.permits(250));
        assert!(!usage.permits(251));
        assert_eq!(usage.count(200), Limit::None);
        assert!(usage.permits(50));
        assert!(!usage.permits(51));
        assert_eq!(usage.reached_hard(), Limit::Hard);
        assert_eq!(usage.reached_hard(), Limit::None);

        let usage = Usage::new(Lifetime { hard_packets: Some(1), ..Lifetime::default() });
        assert!(usage.permits(1));
        assert_eq!(usage.count(1), Limit::None);
        assert!(!usage.permits(1));
    }

    #[test]
    fn without_limits_nothing_ends() {
        let usage = Usage::new(Lifetime::default());
        assert_eq!(usage.count(usize::MAX), Limit::None);
        assert!(usage.permits(usize::MAX));
        assert_eq!((usage.bytes(), usage.packets()), (usize::MAX as u64, 1));
    }
}
