//! [`InboundSa`]: one inbound SA, which opens packets and refuses those that it has seen (RFC 4303 §3.4, RFC 4302 §3.4).
//!
//! Owns the replay window and the order of the checks. What ESP and AH do to the packet is in `esp` and `ah`.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::esp::{Common, Payload};
use super::lifetime::{Limit, Tally, Usage};
use super::pace::Pace;
use super::protection::Protection;
use super::replay::{Arrival, IcvVerified, ReplayWindow};
use super::selector::{Sole, matches_pair};
use super::{DropCounters, DropReason, Flow, Mode, PacketBuf, Place, SaParams, ah};
use crate::wire::ah::AhPacket;
use crate::wire::ip::NextHeader;

/// An inbound SA: shared by workers and by the snapshots of the SAD.
#[derive(Debug)]
pub struct InboundSa {
    params: SaParams,
    /// Of `params`, as `esn`.
    sole: Option<Sole>,
    esn: bool,
    protection: Protection,
    /// Shared among workers only. One that opens packets while no other does holds it for those of a batch that follow each other.
    window: Mutex<ReplayWindow>,
    /// The top of the window, for who must not wait for it.
    top: AtomicU64,
    /// Workers that open packets without holding the window meanwhile, because there are several at a time.
    beside: AtomicU32,
    usage: Usage,
    /// Packets that were dropped under this SA.
    pub drops: DropCounters,
    /// How often it is told that the peer lives.
    pub alive: Pace,
    /// How often it is told that the peer has moved.
    pub moved: Pace,
    /// How often the peer is told of packets that the SA may not carry.
    pub mismatch: Pace,
}

/// What was in a packet that is genuine.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What ESP or AH protected.
    pub next_header: NextHeader,
    /// Where it stands in the sequence.
    pub arrival: Arrival,
    /// Whether it reached the soft limit of the SA.
    pub limit: Limit,
}

impl InboundSa {
    /// `None` if the suite, or a key of that length, is not one that we have. The keys of `params` are wiped once they
    /// are in the transform. The SA around it is another, and not looked at.
    #[must_use]
    pub fn new(mut params: SaParams) -> Option<Self> {
        params.around = None;
        let protection = Protection::take(&mut params)?;
        let window =
            ReplayWindow::starting_at(params.replay_window, params.suite.esn(), params.sequence);
        let top = AtomicU64::new(window.top());
        let window = Mutex::new(window);
        let usage = Usage::new(params.lifetime);
        Some(Self {
            sole: Sole::of(&params.ts_local, &params.ts_peer),
            esn: params.suite.esn(),
            params,
            protection,
            window,
            top,
            beside: AtomicU32::new(0),
            usage,
            drops: DropCounters::new(),
            alive: Pace::new(),
            moved: Pace::new(),
            mismatch: Pace::new(),
        })
    }

    /// What it was made from, without keys.
    #[must_use]
    #[inline]
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
        self.top.load(Ordering::Relaxed)
    }

    /// RFC 4301 §5.2, step 4: whether it may carry a packet.
    #[must_use]
    pub fn admits(&self, flow: &Flow) -> bool {
        match &self.sole {
            Some(sole) => sole.matches_inbound(flow),
            None => matches_pair(&self.params.ts_peer, &self.params.ts_local, flow),
        }
    }

    /// Has the cache fetch what opening a packet reads and counts, all at once: it lies in several places, which among thousands
    /// of SAs are not there. Nothing but time depends on it.
    #[inline]
    pub fn fetch(&self) {
        core::hint::black_box((self.top.load(Ordering::Relaxed), self.usage.packets()));
        if let Some(common) = self.protection.common(self.params.spi, self.esn) {
            common.fetch();
        }
    }

    /// For packets that are opened one after the other: the window is taken once if nobody else opens packets of this SA, and what
    /// they carry is counted at the end. If others do, too, it is taken for moments only, and never while an ICV is verified.
    #[must_use]
    pub fn opening(&self) -> Opening<'_> {
        let common = self.protection.common(self.params.spi, self.esn);
        let mut opening =
            Opening { sa: self, common, window: Window::Beside, tally: Tally::default() };
        if self.beside.load(Ordering::Relaxed) == 0
            && let Some(window) = self.try_window()
        {
            window.fetch();
            opening.window = Window::Held(window);
        } else {
            self.beside.fetch_add(1, Ordering::Relaxed);
        }
        opening
    }

    fn try_window(&self) -> Option<MutexGuard<'_, ReplayWindow>> {
        match self.window.try_lock() {
            Ok(window) => Some(window),
            // Whoever panicked while holding it left it whole: it changes in the last step of `accept`.
            Err(TryLockError::Poisoned(window)) => Some(window.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Waits for who has it no longer than for a packet: who holds it for a batch looks for us before each.
    fn window(&self) -> MutexGuard<'_, ReplayWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Opening::open`], of one packet.
    ///
    /// # Errors
    /// As there.
    pub fn open(&self, packet: &mut PacketBuf) -> Result<Opened, DropReason> {
        self.opening().open(packet)
    }

    /// As [`Opening::open_at`], of one packet.
    ///
    /// # Errors
    /// As there.
    pub fn open_at(&self, packet: &mut PacketBuf, place: Place) -> Result<Opened, DropReason> {
        self.opening().open_at(packet, place)
    }
}

/// Packets of one SA that are opened one after the other: [`InboundSa::opening`].
#[derive(Debug)]
pub struct Opening<'a> {
    sa: &'a InboundSa,
    common: Option<Common<'a>>,
    window: Window<'a>,
    tally: Tally,
}

/// How the window is asked and moved.
#[derive(Debug)]
enum Window<'a> {
    /// It is ours until another worker comes.
    Held(MutexGuard<'a, ReplayWindow>),
    /// It is taken for moments.
    Beside,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.sa.usage.add(&self.tally);
        if let Window::Beside = self.window {
            self.sa.beside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Opening<'_> {
    /// Makes the payload of an ESP packet, in the order of RFC 4303 §3.4: window, ICV, window again, trailer.
    ///
    /// # Errors
    /// Why it is not to be used. What the buffer then holds is unspecified. Before the ICV is verified nothing of the
    /// SA changes.
    pub fn open(&mut self, packet: &mut PacketBuf) -> Result<Opened, DropReason> {
        let (opened, payload) = self.open_in_place(packet)?;
        packet.trim_front(payload.start);
        packet.truncate(payload.len());
        Ok(opened)
    }

    /// Opens a whole IP packet whose IPsec header stands at `place`. In transport mode it becomes the packet without that
    /// header, its IP header mended; AH in tunnel mode becomes the inner packet. ESP in tunnel mode is for
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(&mut self, packet: &mut PacketBuf, place: Place) -> Result<Opened, DropReason> {
        match &self.sa.protection {
            Protection::Esp(_) => {
                let opened = self.open_behind(packet, place.at)?;
                place.mend(packet, opened.next_header).ok_or(DropReason::EspMalformed)?;
                Ok(opened)
            }
            Protection::Ah(ah) => self.open_ah(ah, packet, place),
        }
    }

    /// Opens the ESP packet that follows the first `at` bytes.
    fn open_behind(&mut self, packet: &mut PacketBuf, at: usize) -> Result<Opened, DropReason> {
        let (_, sealed) = packet.split_at_mut_checked(at).ok_or(DropReason::EspMalformed)?;
        let (payload, arrival) = self.open_parts(sealed)?;
        packet.copy_within(..at, payload.at);
        packet.trim_front(payload.at);
        packet.truncate(at + payload.len);
        self.count(packet.len(), payload.next_header, arrival)
    }

    /// As [`open`](Self::open), and tells where in `packet` the payload is.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn open_in_place(
        &mut self,
        packet: &mut [u8],
    ) -> Result<(Opened, Range<usize>), DropReason> {
        let (payload, arrival) = match self.common {
            Some(common) => self.open_common(common, packet)?,
            None => self.open_parts(packet)?,
        };
        let opened = self.count(payload.len, payload.next_header, arrival)?;
        Ok((opened, payload.at..payload.at + payload.len))
    }

    #[inline]
    fn open_common(
        &mut self,
        common: Common<'_>,
        packet: &mut [u8],
    ) -> Result<(Payload, Arrival), DropReason> {
        let low = Common::sequence(packet).ok_or(DropReason::EspMalformed)?;
        let sequence = self.check(low)?;
        let (proof, decrypted) = common.verify(packet, sequence)?;
        let arrival = self.accept(sequence, proof)?;
        Ok((decrypted.payload()?, arrival))
    }

    #[inline(never)]
    fn open_parts(&mut self, sealed: &mut [u8]) -> Result<(Payload, Arrival), DropReason> {
        let sa = self.sa;
        let Protection::Esp(esp) = &sa.protection else { return Err(DropReason::EspMalformed) };
        let mut parts = esp.parts(sealed)?;
        let sequence = self.check(parts.sequence)?;
        let proof = esp.verify(&mut parts, sa.esn, sequence)?;
        let arrival = self.accept(sequence, proof)?;
        Ok((esp.decrypt(parts)?, arrival))
    }

    fn open_ah(
        &mut self,
        ah: &ah::Ah,
        packet: &mut PacketBuf,
        place: Place,
    ) -> Result<Opened, DropReason> {
        let header = packet.get(place.at..).ok_or(DropReason::AhMalformed)?;
        let header = AhPacket::new_checked(header).map_err(|_| DropReason::AhMalformed)?;
        let (next_header, header_len) = (header.next_header(), header.header_len());
        let sequence = self.check(header.sequence())?;
        let proof = ah.open(packet, place, sequence, self.sa.esn)?;
        let arrival = self.accept(sequence, proof)?;
        match self.sa.params.mode {
            Mode::Transport => {
                let _next_header = ah::strip(packet, place)?;
            }
            Mode::Tunnel => packet.trim_front(place.at + header_len),
        }
        self.count(packet.len(), next_header, arrival)
    }

    #[inline]
    fn count(
        &mut self,
        len: usize,
        next_header: NextHeader,
        arrival: Arrival,
    ) -> Result<Opened, DropReason> {
        let limit = self.sa.usage.permit_into(&mut self.tally, len)?;
        Ok(Opened { next_header, arrival, limit })
    }

    /// Before the ICV: the sequence number of a packet that carries `low`.
    #[inline]
    fn check(&mut self, low: u32) -> Result<u64, DropReason> {
        match &self.window {
            Window::Held(window) if self.sa.beside.load(Ordering::Relaxed) == 0 => {
                window.check(low)
            }
            Window::Held(_) | Window::Beside => self.check_beside(low),
        }
    }

    /// What the top of the window says without its lock may be out of date when the ICV is verified: `accept` judges again (RFC
    /// 4303 §3.4.3), by the whole number, which the ICV covers.
    #[inline(never)]
    fn check_beside(&mut self, low: u32) -> Result<u64, DropReason> {
        let sa = self.sa;
        if let Window::Held(_) = self.window {
            sa.beside.fetch_add(1, Ordering::Relaxed);
            self.window = Window::Beside;
        }
        let size = sa.params.replay_window.min(ReplayWindow::MAX);
        match ReplayWindow::ahead(sa.sequence(), size, sa.esn, low) {
            Some(sequence) => Ok(sequence),
            None => sa.window().check(low),
        }
    }

    /// After the ICV: the window moves.
    #[inline]
    fn accept(&mut self, sequence: u64, proof: IcvVerified) -> Result<Arrival, DropReason> {
        match &mut self.window {
            Window::Held(window) => self.sa.accept(window, sequence, proof),
            Window::Beside => self.accept_beside(sequence, proof),
        }
    }

    #[inline(never)]
    fn accept_beside(&self, sequence: u64, proof: IcvVerified) -> Result<Arrival, DropReason> {
        self.sa.accept(&mut self.sa.window(), sequence, proof)
    }
}

impl InboundSa {
    #[inline]
    fn accept(
        &self,
        window: &mut ReplayWindow,
        sequence: u64,
        proof: IcvVerified,
    ) -> Result<Arrival, DropReason> {
        let arrival = window.accept(sequence, proof)?;
        self.top.store(window.top(), Ordering::Relaxed);
        Ok(arrival)
    }
}

#[cfg(test)]
mod tests;
