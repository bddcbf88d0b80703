//! [`OutboundSa`]: one outbound SA, which gives each packet its sequence number and seals it (RFC 4303 §3.3, RFC 4302
//! §3.3).
//!
//! Owns the counter and the order of the steps. What ESP and AH do to the packet is in `esp` and `ah`; the outer IP header
//! of tunnel mode is the datapath's.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::esp::{Common, Sealing};
use super::lifetime::{Limit, Tally, Usage};
use super::protection::Protection;
use super::turn::Order;
use super::{DropCounters, DropReason, PacketBuf, Place, SaParams};
use crate::wire::ip::NextHeader;

/// An outbound SA, with the AH SA around it if there is one: shared by workers and by the snapshots of the SAD.
#[derive(Debug)]
pub struct OutboundSa {
    params: SaParams,
    /// Of `params`.
    esn: bool,
    /// A replacement must be there before the numbers run out (RFC 4303 §3.3.3): after this one, the last sixteenth begins.
    soft_sequence: u64,
    protection: Protection,
    around: Option<Arc<Self>>,
    /// The last sequence number given.
    sequence: AtomicU64,
    /// No number above it is given until more are permitted.
    permitted: AtomicU64,
    usage: Usage,
    order: Order,
    /// Packets that were dropped under this SA.
    pub drops: DropCounters,
}

impl OutboundSa {
    /// `None` if the suite, or a key of that length, is not one that we have. The keys of `params` are wiped once they
    /// are in the transform.
    #[must_use]
    pub fn new(mut params: SaParams) -> Option<Self> {
        let around = match params.around.take() {
            Some(around) => Some(Arc::new(Self::new(*around)?)),
            None => None,
        };
        let protection = Protection::take(&mut params)?;
        let usage = Usage::new(params.lifetime);
        let sequence = AtomicU64::new(params.sequence);
        let permitted = AtomicU64::new(u64::MAX);
        let drops = DropCounters::new();
        let esn = params.suite.esn();
        let last = last_sequence(esn);
        let soft_sequence = last - last / 16;
        Some(Self {
            params,
            esn,
            soft_sequence,
            protection,
            around,
            sequence,
            permitted,
            usage,
            order: Order::default(),
            drops,
        })
    }

    /// What it was made from, without keys, and without the SA around it.
    #[must_use]
    #[inline]
    pub const fn params(&self) -> &SaParams {
        &self.params
    }

    /// The AH SA that is applied after this one.
    #[must_use]
    pub const fn around(&self) -> Option<&Arc<Self>> {
        self.around.as_ref()
    }

    /// What it has carried.
    #[must_use]
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Which of several workers sends under it: of a bundle, this SA stands for the one around it.
    pub(super) const fn order(&self) -> &Order {
        &self.order
    }

    /// The last sequence number given.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Relaxed).min(self.last_sequence())
    }

    /// No sequence number above `last` is given from here on, until more are permitted: for whoever has to know, before
    /// a number is used, that it will not be used again.
    pub fn permit_up_to(&self, last: u64) {
        self.permitted.store(last, Ordering::Relaxed);
    }

    /// No sequence number is given any more. Returns the last one.
    pub fn end(&self) -> u64 {
        self.sequence.swap(NO_MORE, Ordering::Relaxed).min(self.last_sequence())
    }

    /// Makes an ESP packet of its payload, which in tunnel mode is the inner packet. Tells if that reached the soft limit
    /// of the SA.
    ///
    /// # Errors
    /// [`DropReason::LifetimeEnded`], [`DropReason::SequenceExhausted`] and [`DropReason::NoRoom`]; then the packet is
    /// as it was. [`DropReason::OutboundMalformed`] under an AH SA, for which there is no payload without IP header.
    pub fn seal(
        &self,
        packet: &mut PacketBuf,
        next_header: NextHeader,
    ) -> Result<Limit, DropReason> {
        self.sealer(1).seal(packet, next_header)
    }

    /// For packets that are sealed one after the other, about as many as are `expected`: their sequence numbers are taken
    /// together, and what they carry is counted at the end, where the SA has no limit that it could reach.
    #[must_use]
    pub fn sealer(&self, expected: usize) -> Sealer<'_> {
        let common = self.protection.common(self.params.spi, self.esn);
        Sealer { sa: self, common, expected, given: 0, last: 0, tally: Tally::default() }
    }

    /// Has the cache fetch what sealing a packet reads and counts, all at once: it lies in several places, which among thousands
    /// of SAs are not there. Nothing but time depends on it.
    #[inline]
    pub fn fetch(&self) {
        core::hint::black_box((self.sequence.load(Ordering::Relaxed), self.usage.packets()));
        if let Some(common) = self.protection.common(self.params.spi, self.esn) {
            common.fetch();
        }
    }

    /// Makes an ESP packet that means nothing, of a payload of `len` bytes (RFC 4303 §2.6). What the buffer held is
    /// gone. For tunnel mode; nothing sends such packets by itself.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn seal_dummy(&self, packet: &mut PacketBuf, len: usize) -> Result<Limit, DropReason> {
        let space = packet.space_mut().get_mut(..len).ok_or(DropReason::NoRoom)?;
        space.fill(0);
        packet.set_len(len);
        self.seal(packet, NextHeader::NONE)
    }

    /// Protects a whole IP packet whose IPsec header is to stand at `place`, and mends its IP header: transport mode, and
    /// AH in tunnel mode, whose outer header is there already. Tells if that reached the soft limit of the SA.
    ///
    /// # Errors
    /// As [`seal`](Self::seal), and [`DropReason::OutboundMalformed`] or [`DropReason::TooBig`] if it cannot be
    /// protected. What the buffer then holds is unspecified.
    pub fn seal_at(&self, packet: &mut PacketBuf, place: Place) -> Result<Limit, DropReason> {
        match &self.protection {
            Protection::Esp(_) => {
                let next_header =
                    packet.get(place.next_header_at).ok_or(DropReason::OutboundMalformed)?;
                let next_header = NextHeader(*next_header);
                let limit = self.sealer(1).seal_behind(packet, place.at, next_header)?;
                place.mend(packet, NextHeader::ESP).ok_or(DropReason::TooBig)?;
                Ok(limit)
            }
            Protection::Ah(ah) => {
                let len = packet.len();
                if packet.headroom() < ah.header_len(self.params.path.remote.is_ipv6()) {
                    return Err(DropReason::NoRoom);
                }
                let sequence = self.next_sequence(len)?;
                ah.seal(packet, place, self.params.spi, sequence, self.esn)?;
                Ok(self.count(sequence, 1, len))
            }
        }
    }

    /// What sealing does to a payload of `len` bytes; `None` under AH.
    #[must_use]
    #[inline]
    pub fn sealing(&self, len: usize, next_header: NextHeader) -> Option<Sealing> {
        match &self.protection {
            Protection::Esp(esp) => Some(esp.sealing(len, next_header)),
            Protection::Ah(_) => None,
        }
    }

    /// Sequence numbers for `packets` packets of `len` bytes in all, counted at once. `None` if they are not all to be
    /// had: then nothing has changed that matters, and what can still be sealed, can be sealed singly.
    #[must_use]
    pub fn reserve(&self, packets: usize, len: usize) -> Option<Reserved> {
        let count = packets as u64;
        let last = self.permitted.load(Ordering::Relaxed).min(self.last_sequence());
        let end = self.sequence.load(Ordering::Relaxed).checked_add(count)?;
        if count == 0 || end > last || !self.usage.permits_all(count, len) {
            return None;
        }
        let before = self.sequence.fetch_add(count, Ordering::Relaxed);
        let end = before.checked_add(count).filter(|&end| end <= last)?;
        let limit = self.count(end, count, len);
        Some(Reserved { next: before + 1, end, limit })
    }

    /// Makes an ESP packet of `packet`, which is as long as `sealing` says, with the payload in its place, and uses up
    /// one of the `reserved` numbers, which are this SA's.
    ///
    /// # Panics
    /// If no number is left, or `packet` has another length.
    #[inline]
    pub fn seal_reserved(&self, reserved: &mut Reserved, packet: &mut [u8], sealing: Sealing) {
        let Protection::Esp(esp) = &self.protection else { return };
        assert!(reserved.next <= reserved.end, "no sequence number is given twice");
        assert_eq!(packet.len(), sealing.len(), "the packet is as long as was said");
        esp.seal_whole(packet, sealing, self.params.spi, reserved.next, self.esn);
        reserved.next += 1;
    }

    /// RFC 4303 §3.3.3, RFC 4302 §3.3.2: the first packet has 1, and no number is given twice. For a packet of `len`
    /// bytes, which the limits of the SA must permit.
    fn next_sequence(&self, len: usize) -> Result<u64, DropReason> {
        // First, so that those that are refused use no number up.
        let last = self.may_seal(len)?;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if sequence > last { Err(DropReason::SequenceExhausted) } else { Ok(sequence) }
    }

    /// Whether it would seal a packet of `len` bytes at this moment: its limits and its sequence numbers permit one more.
    /// The last number that may be given.
    ///
    /// # Errors
    /// [`DropReason::LifetimeEnded`] and [`DropReason::SequenceExhausted`].
    #[inline]
    pub fn may_seal(&self, len: usize) -> Result<u64, DropReason> {
        if !self.usage.permits(len) {
            return Err(DropReason::LifetimeEnded);
        }
        let last = self.permitted.load(Ordering::Relaxed).min(self.last_sequence());
        if self.sequence.load(Ordering::Relaxed) >= last {
            return Err(DropReason::SequenceExhausted);
        }
        Ok(last)
    }

    /// Counts packets of `len` bytes in all, the last of which has this number.
    fn count(&self, sequence: u64, packets: u64, len: usize) -> Limit {
        match self.usage.count_all(packets, len) {
            Limit::None => self.judge(sequence),
            limit @ (Limit::Soft | Limit::Hard) => limit,
        }
    }

    #[inline]
    fn judge(&self, sequence: u64) -> Limit {
        if sequence > self.soft_sequence { self.usage.reached_soft() } else { Limit::None }
    }

    /// The last sequence number that there is.
    #[must_use]
    #[inline]
    pub fn last_sequence(&self) -> u64 {
        last_sequence(self.esn)
    }
}

/// Packets of one SA that are sealed one after the other: [`OutboundSa::sealer`].
#[derive(Debug)]
pub struct Sealer<'a> {
    sa: &'a OutboundSa,
    common: Option<Common<'a>>,
    /// How many packets are still to come, as far as that is known.
    expected: usize,
    /// Of the numbers that were taken together, the last that a packet got, and the last of all.
    given: u64,
    last: u64,
    tally: Tally,
}

impl Sealer<'_> {
    /// As [`OutboundSa::seal`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn seal(
        &mut self,
        packet: &mut PacketBuf,
        next_header: NextHeader,
    ) -> Result<Limit, DropReason> {
        let Some(common) = self.common else { return self.seal_behind(packet, 0, next_header) };
        let len = packet.len();
        let (front, back) = Common::around(len);
        let Some(whole) = packet.grow(front, back) else { return Err(DropReason::NoRoom) };
        match self.number(len) {
            Ok(sequence) => {
                common.seal(whole, len, next_header, sequence);
                Ok(self.count(len, sequence))
            }
            Err(reason) => {
                packet.trim_front(front);
                packet.truncate(len);
                Err(reason)
            }
        }
    }

    /// Makes an ESP packet of what follows the first `at` bytes.
    #[inline(never)]
    fn seal_behind(
        &mut self,
        packet: &mut PacketBuf,
        at: usize,
        next_header: NextHeader,
    ) -> Result<Limit, DropReason> {
        let (sa, len) = (self.sa, packet.len());
        let (Protection::Esp(esp), Some(payload_len)) = (&sa.protection, len.checked_sub(at))
        else {
            return Err(DropReason::OutboundMalformed);
        };
        let sealing = esp.sealing(payload_len, next_header);
        let Some(whole) = sealing.grow(packet) else { return Err(DropReason::NoRoom) };
        let sequence = match self.number(len) {
            Ok(sequence) => sequence,
            Err(reason) => {
                sealing.shrink(packet);
                return Err(reason);
            }
        };
        if at > 0 {
            sealing.move_before(whole, at);
        }
        esp.seal_whole(&mut whole[at..], sealing, sa.params.spi, sequence, sa.esn);
        Ok(self.count(len, sequence))
    }

    /// The number of the next packet, which has `len` bytes.
    #[inline]
    fn number(&mut self, len: usize) -> Result<u64, DropReason> {
        if self.given == self.last {
            return self.take(len);
        }
        self.given += 1;
        Ok(self.given)
    }

    /// Counts a packet of `len` bytes that got the number `sequence`.
    #[inline]
    fn count(&mut self, len: usize, sequence: u64) -> Limit {
        match self.sa.usage.count_into(&mut self.tally, len) {
            Limit::None => self.sa.judge(sequence),
            limit @ (Limit::Soft | Limit::Hard) => limit,
        }
    }

    /// One number for a packet of `len` bytes, and with it those of the packets that are expected, if there are so many:
    /// a packet that a limit refuses must use none up.
    #[inline(never)]
    fn take(&mut self, len: usize) -> Result<u64, DropReason> {
        let (sa, count) = (self.sa, core::mem::take(&mut self.expected) as u64);
        let last = sa.permitted.load(Ordering::Relaxed).min(sa.last_sequence());
        let there = sa.sequence.load(Ordering::Relaxed).checked_add(count);
        if count < 2 || !sa.usage.is_unlimited() || there.is_none_or(|there| there > last) {
            return sa.next_sequence(len);
        }
        let before = sa.sequence.fetch_add(count, Ordering::Relaxed);
        if before >= last {
            return Err(DropReason::SequenceExhausted);
        }
        self.given = before + 1;
        self.last = before.saturating_add(count).min(last);
        Ok(self.given)
    }
}

impl Drop for Sealer<'_> {
    fn drop(&mut self) {
        self.sa.usage.add(&self.tally);
        if self.given < self.last {
            // Those that no packet got are given back. If others were taken meanwhile, they are left out, and to the peer
            // it looks as if packets had been lost.
            let (given, last) = (self.given, self.last);
            let _others = self.sa.sequence.compare_exchange(
                last,
                given,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }
}

/// Sequence numbers of an SA that nobody else gets.
#[derive(Debug)]
pub struct Reserved {
    next: u64,
    end: u64,
    limit: Limit,
}

impl Reserved {
    /// Whether it reached the soft limit of the SA.
    pub const fn limit(&self) -> Limit {
        self.limit
    }
}

fn last_sequence(esn: bool) -> u64 {
    if esn { NO_MORE } else { u32::MAX.into() }
}

/// The last sequence number of all: so far below the end that no number of refused packets brings the counter round.
const NO_MORE: u64 = u64::MAX - (1 << 48);
