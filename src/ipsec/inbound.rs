//! [`InboundSa`]: one inbound SA, which opens packets and refuses those that it has seen (RFC 4303 §3.4, RFC 4302 §3.4).
//!
//! Owns the replay window and the order of the checks. What ESP and AH do to the packet is in `esp` and `ah`.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::esp::{Common, Payload};
use super::lifetime::{Limit, Tally, Usage};
use super::pace::Pace;
use super::protection::Protection;
use super::replay::{Arrival, IcvVerified, ReplayWindow};
use super::{DropCounters, DropReason, Mode, PacketBuf, Place, SaParams, ah};
use crate::wire::ah::AhPacket;
use crate::wire::ip::NextHeader;

/// An inbound SA: shared by workers and by the snapshots of the SAD.
#[derive(Debug)]
pub struct InboundSa {
    params: SaParams,
    /// Of `params`.
    esn: bool,
    protection: Protection,
    /// Shared among workers only, which hold it for the packets of a batch that follow each other.
    window: Mutex<ReplayWindow>,
    /// The top of the window, for who must not wait for it.
    top: AtomicU64,
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
            esn: params.suite.esn(),
            params,
            protection,
            window,
            top,
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

    /// For packets that are opened one after the other: the window is taken once, and what they carry is counted at the end.
    /// Until it is dropped, nobody else opens packets of this SA.
    #[must_use]
    pub fn opening(&self) -> Opening<'_> {
        // Whoever panicked while holding it left it whole: it changes in the last step of `accept`.
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let common = match &self.protection {
            Protection::Esp(esp) => esp.common(self.params.spi, self.esn),
            Protection::Ah(_) => None,
        };
        Opening { sa: self, common, window, tally: Tally::default() }
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
    window: MutexGuard<'a, ReplayWindow>,
    tally: Tally,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.sa.usage.add(&self.tally);
    }
}

impl Opening<'_> {
    /// Makes the payload of an ESP packet, in the order of RFC 4303 §3.4: window, ICV, window again, trailer.
    ///
    /// # Errors
    /// Why it is not to be used. What the buffer then holds is unspecified. Before the ICV is verified nothing of the
    /// SA changes.
    pub fn open(&mut self, packet: &mut PacketBuf) -> Result<Opened, DropReason> {
        self.open_esp(packet, 0)
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
                let opened = self.open_esp(packet, place.at)?;
                place.mend(packet, opened.next_header).ok_or(DropReason::EspMalformed)?;
                Ok(opened)
            }
            Protection::Ah(ah) => self.open_ah(ah, packet, place),
        }
    }

    fn open_esp(&mut self, packet: &mut PacketBuf, at: usize) -> Result<Opened, DropReason> {
        let (_, sealed) = packet.split_at_mut_checked(at).ok_or(DropReason::EspMalformed)?;
        let (payload, arrival) = self.open_parts(sealed)?;
        if at > 0 {
            packet.copy_within(..at, payload.at);
        }
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
        let sequence = self.window.check(low)?;
        let (proof, decrypted) = common.verify(packet, sequence)?;
        let arrival = self.accept(sequence, proof)?;
        Ok((decrypted.payload()?, arrival))
    }

    #[inline(never)]
    fn open_parts(&mut self, sealed: &mut [u8]) -> Result<(Payload, Arrival), DropReason> {
        let sa = self.sa;
        let Protection::Esp(esp) = &sa.protection else { return Err(DropReason::EspMalformed) };
        let mut parts = esp.parts(sealed)?;
        let sequence = self.window.check(parts.sequence)?;
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
        let sequence = self.window.check(header.sequence())?;
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

    /// After the ICV: the window moves.
    #[inline]
    fn accept(&mut self, sequence: u64, proof: IcvVerified) -> Result<Arrival, DropReason> {
        let arrival = self.window.accept(sequence, proof)?;
        self.sa.top.store(self.window.top(), Ordering::Relaxed);
        Ok(arrival)
    }
}
