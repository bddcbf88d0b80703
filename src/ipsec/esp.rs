//! ESP for one packet (RFC 4303): [`OutboundSa::seal`] and [`InboundSa::open`], in place.
//!
//! Owns the ESP header and trailer, the sequence number, the IV and the order of the checks. Knows nothing of what the
//! inner packet is, nor of where the sealed one goes.

mod transform;

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lifetime::{Limit, Usage};
use super::pace::Pace;
use super::replay::{Arrival, ReplayWindow};
use super::{DropCounters, DropReason, PacketBuf, SaParams, Spi, suite::EspSuite};
use crate::crypto::Secret;
use crate::wire::esp::{EspHeader, EspPacket, EspTrailer};
use crate::wire::ip::NextHeader;
use transform::Transform;

/// Where in a packet of a suite what stands, and so how much longer sealing makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspLayout {
    /// Length of the IV.
    pub iv_len: usize,
    /// What payload and trailer together are a multiple of: the block of the cipher, at least 4 (RFC 4303 §2.4).
    pub align: u8,
    /// Length of the ICV.
    pub icv_len: usize,
}

impl EspLayout {
    /// `None` for a suite that the datapath does not have.
    #[must_use]
    pub fn of(suite: EspSuite) -> Option<Self> {
        Transform::layout(suite)
    }

    /// Length of the ESP packet around an inner packet of `inner` bytes.
    #[must_use]
    pub const fn sealed_len(&self, inner: usize) -> usize {
        EspHeader::LEN
            + self.iv_len
            + (inner + EspTrailer::FIXED_LEN).next_multiple_of(self.align as usize)
            + self.icv_len
    }

    /// Length of the longest inner packet in an ESP packet of at most `sealed` bytes; `None` if not even an empty one
    /// fits.
    #[must_use]
    pub const fn max_inner_len(&self, sealed: usize) -> Option<usize> {
        let Some(encrypted) = sealed.checked_sub(EspHeader::LEN + self.iv_len + self.icv_len)
        else {
            return None;
        };
        (encrypted - encrypted % self.align as usize).checked_sub(EspTrailer::FIXED_LEN)
    }
}

/// An outbound ESP SA: shared by workers and by the snapshots of the SAD.
#[derive(Debug)]
pub struct OutboundSa {
    params: SaParams,
    transform: Transform,
    /// The last sequence number given.
    sequence: AtomicU64,
    /// No number above it is given until more are permitted.
    permitted: AtomicU64,
    usage: Usage,
    /// Packets that were dropped under this SA.
    pub drops: DropCounters,
}

impl OutboundSa {
    /// `None` if the suite, or a key of that length, is not one that we have. The keys of `params` are wiped once
    /// they are in the transform.
    #[must_use]
    pub fn new(params: SaParams) -> Option<Self> {
        let (params, transform) = split(params)?;
        let usage = Usage::new(params.lifetime);
        let sequence = AtomicU64::new(params.sequence);
        let permitted = AtomicU64::new(u64::MAX);
        Some(Self { params, transform, sequence, permitted, usage, drops: DropCounters::new() })
    }

    /// What it was made from, without keys.
    #[must_use]
    pub const fn params(&self) -> &SaParams {
        &self.params
    }

    /// What it has carried.
    #[must_use]
    pub const fn usage(&self) -> &Usage {
        &self.usage
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

    /// Makes an ESP packet of the inner one. Tells if that reached the soft limit of the SA.
    ///
    /// # Errors
    /// [`DropReason::LifetimeEnded`], [`DropReason::SequenceExhausted`] and [`DropReason::NoRoom`]; then the packet is
    /// as it was.
    pub fn seal(
        &self,
        packet: &mut PacketBuf,
        next_header: NextHeader,
    ) -> Result<Limit, DropReason> {
        let inner_len = packet.len();
        let layout = self.transform.own_layout();
        let front = EspHeader::LEN + layout.iv_len;
        let trailer = EspTrailer::aligning(inner_len, layout.align, next_header);
        let back = trailer.len() + layout.icv_len;
        if packet.headroom() < front || packet.tailroom() < back {
            return Err(DropReason::NoRoom);
        }
        if !self.usage.permits(inner_len) {
            return Err(DropReason::LifetimeEnded);
        }
        let sequence = self.next_sequence()?;
        if !packet.push_front(front) || !packet.push_back(back) {
            return Err(DropReason::NoRoom);
        }

        let (header, rest) = packet.split_at_mut(EspHeader::LEN);
        let [.., s4, s5, s6, s7] = sequence.to_be_bytes();
        let low = u32::from_be_bytes([s4, s5, s6, s7]);
        let fields = EspHeader { spi: self.params.spi.get(), sequence: low };
        header.copy_from_slice(&fields.emit());
        let (iv, rest) = rest.split_at_mut(layout.iv_len);
        let (data, icv) = rest.split_at_mut(rest.len() - layout.icv_len);
        trailer.emit(&mut data[inner_len..]);
        self.transform.seal(header, self.esn(), sequence, iv, data, icv);

        let limit = self.usage.count(inner_len);
        // A replacement must be there before the numbers run out (RFC 4303 §3.3.3); a sixteenth of them is left.
        let last = self.last_sequence();
        if limit == Limit::None && sequence > last - last / 16 {
            return Ok(self.usage.reached_soft());
        }
        Ok(limit)
    }

    /// RFC 4303 §3.3.3: the first packet has 1, and no number is given twice.
    fn next_sequence(&self) -> Result<u64, DropReason> {
        // A load first: those that are refused use no number up.
        let last = self.permitted.load(Ordering::Relaxed).min(self.last_sequence());
        if self.sequence.load(Ordering::Relaxed) >= last {
            return Err(DropReason::SequenceExhausted);
        }
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if sequence > last { Err(DropReason::SequenceExhausted) } else { Ok(sequence) }
    }

    /// The last sequence number that there is.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        if self.esn() { NO_MORE } else { u32::MAX.into() }
    }

    fn esn(&self) -> bool {
        self.params.suite.esn()
    }
}

/// The last sequence number of all: so far below the end that no number of refused packets brings the counter round.
const NO_MORE: u64 = u64::MAX - (1 << 48);

/// An inbound ESP SA: shared by workers and by the snapshots of the SAD.
#[derive(Debug)]
pub struct InboundSa {
    params: SaParams,
    transform: Transform,
    /// Shared among workers only, and held for a few instructions.
    window: Mutex<ReplayWindow>,
    usage: Usage,
    /// Packets that were dropped under this SA.
    pub drops: DropCounters,
    /// How often it is told that the peer lives.
    pub alive: Pace,
    /// How often it is told that the peer has moved.
    pub moved: Pace,
}

/// What was in an ESP packet that is genuine.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What the packet is now.
    pub next_header: NextHeader,
    /// Where it stands in the sequence.
    pub arrival: Arrival,
    /// Whether it reached the soft limit of the SA.
    pub limit: Limit,
}

impl InboundSa {
    /// `None` if the suite, or a key of that length, is not one that we have. The keys of `params` are wiped once
    /// they are in the transform.
    #[must_use]
    pub fn new(params: SaParams) -> Option<Self> {
        let (params, transform) = split(params)?;
        let window =
            ReplayWindow::starting_at(params.replay_window, params.suite.esn(), params.sequence);
        let window = Mutex::new(window);
        let usage = Usage::new(params.lifetime);
        Some(Self {
            params,
            transform,
            window,
            usage,
            drops: DropCounters::new(),
            alive: Pace::new(),
            moved: Pace::new(),
        })
    }

    /// What it was made from, without keys.
    #[must_use]
    pub const fn params(&self) -> &SaParams {
        &self.params
    }

    /// What it has carried.
    #[must_use]
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }

    /// The highest sequence number received.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.window().top()
    }

    /// Makes the inner packet of an ESP packet, in the order of RFC 4303 §3.4: window, ICV, window again, trailer.
    ///
    /// # Errors
    /// Why it is not to be used. What the buffer then holds is unspecified. Before the ICV is verified nothing of the
    /// SA changes.
    pub fn open(&self, packet: &mut PacketBuf) -> Result<Opened, DropReason> {
        let layout = self.transform.own_layout();
        let front = EspHeader::LEN + layout.iv_len;
        let encrypted = packet
            .len()
            .checked_sub(front + layout.icv_len)
            .filter(|&len| len >= EspTrailer::FIXED_LEN && self.transform.takes(len))
            .ok_or(DropReason::EspMalformed)?;

        let (header, rest) = packet.split_at_mut(EspHeader::LEN);
        let fields = EspPacket::new_checked(&*header).map_err(|_| DropReason::EspMalformed)?;
        let sequence = self.window().check(fields.sequence())?;
        let (iv, rest) = rest.split_at_mut(layout.iv_len);
        let (data, icv) = rest.split_at_mut(encrypted);
        let esn = self.params.suite.esn();
        let proof = self.transform.open(header, esn, sequence, iv, data, icv)?;
        let arrival = self.window().accept(sequence, proof)?;
        self.transform.decrypt(iv, data);

        let trailer = EspTrailer::parse(data).map_err(|_| DropReason::BadPadding)?;
        let inner_len = data.len() - trailer.len();
        packet.trim_front(front);
        packet.truncate(inner_len);
        if !self.usage.permits(inner_len) {
            return Err(DropReason::LifetimeEnded);
        }
        let limit = self.usage.count(inner_len);
        Ok(Opened { next_header: trailer.next_header, arrival, limit })
    }

    fn window(&self) -> MutexGuard<'_, ReplayWindow> {
        // Whoever panicked while holding it left it whole: it changes in the last step of `accept`.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The SPI of an ESP packet; `None` if it is too short to be one, or the SPI is reserved.
#[must_use]
pub fn peek_spi(packet: &[u8]) -> Option<Spi> {
    Spi::new(EspPacket::new_checked(packet).ok()?.spi())
}

/// The keys go into the transform, and no copy of them stays.
fn split(mut params: SaParams) -> Option<(SaParams, Transform)> {
    let transform = Transform::new(params.suite.esp()?, &params.encr_key, &params.integ_key)?;
    params.encr_key = Secret::empty();
    params.integ_key = Secret::empty();
    Some((params, transform))
}

#[cfg(test)]
mod tests;
