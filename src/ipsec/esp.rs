//! ESP for one packet (RFC 4303): [`OutboundSa::seal`] and [`InboundSa::open`], in place.
//!
//! Owns the ESP header and trailer, the sequence number, the IV and the order of the checks. Knows nothing of what the
//! inner packet is, nor of where the sealed one goes.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |               Security Parameters Index (SPI)                 |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                      Sequence Number                          |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                            IV                                 |
//! ~                        Payload Data                           ~
//! +               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |               |                 Padding (0-255 bytes)         |
//! +-+-+-+-+-+-+-+-+               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                               |  Pad Length   | Next Header   |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |         Integrity Check Value-ICV   (variable)                |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

mod transform;

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lifetime::{Limit, Usage};
use super::pace::Pace;
use super::replay::{Arrival, ReplayWindow};
use super::{DropCounters, DropReason, PacketBuf, SaParams, Spi, suite::EspSuite};
use crate::crypto::Secret;
use crate::wire::ike::numbers::EsnId;
use transform::Transform;

/// Next Header of an IPv4 packet in tunnel mode (RFC 4303 §2.6).
pub const NEXT_HEADER_IPV4: u8 = 4;
/// Next Header of an IPv6 packet in tunnel mode (RFC 4303 §2.6).
pub const NEXT_HEADER_IPV6: u8 = 41;
/// Next Header of a dummy packet (RFC 4303 §2.6).
pub const NEXT_HEADER_NONE: u8 = 59;

/// SPI and sequence number.
const HEADER_LEN: usize = 8;
/// Pad Length and Next Header.
const TRAILER_LEN: usize = 2;

/// Where in a packet of a suite what stands, and so how much longer sealing makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspLayout {
    /// Length of the IV.
    pub iv_len: usize,
    /// What payload and trailer together are a multiple of: the block of the cipher, at least 4 (RFC 4303 §2.4).
    pub align: usize,
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
        HEADER_LEN + self.iv_len + (inner + TRAILER_LEN).next_multiple_of(self.align) + self.icv_len
    }

    /// Length of the longest inner packet in an ESP packet of at most `sealed` bytes; `None` if not even an empty one
    /// fits.
    #[must_use]
    pub const fn max_inner_len(&self, sealed: usize) -> Option<usize> {
        let Some(encrypted) = sealed.checked_sub(HEADER_LEN + self.iv_len + self.icv_len) else {
            return None;
        };
        (encrypted - encrypted % self.align).checked_sub(TRAILER_LEN)
    }
}

/// An outbound ESP SA: shared by workers and by the snapshots of the SAD.
#[derive(Debug)]
pub struct OutboundSa {
    params: SaParams,
    transform: Transform,
    /// The last sequence number given.
    sequence: AtomicU64,
    usage: Usage,
    /// Packets that were dropped under this SA.
    pub drops: DropCounters,
}

impl OutboundSa {
    /// `None` if the suite, or a key of that length, is not one that we have. The keys of `params` are wiped once
    /// they are in the transform.
    #[must_use]
    pub fn new(params: SaParams) -> Option<Self> {
        Self::starting_at(params, 0)
    }

    /// An SA whose last sequence number was `sequence`: one that is taken over while it runs.
    #[must_use]
    pub fn starting_at(params: SaParams, sequence: u64) -> Option<Self> {
        let (params, transform) = split(params)?;
        let usage = Usage::new(params.lifetime);
        let sequence = AtomicU64::new(sequence);
        Some(Self { params, transform, sequence, usage, drops: DropCounters::new() })
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

    /// Makes an ESP packet of the inner one. Tells if that reached the soft limit of the SA.
    ///
    /// # Errors
    /// [`DropReason::LifetimeEnded`], [`DropReason::SequenceExhausted`] and [`DropReason::NoRoom`]; then the packet is
    /// as it was.
    pub fn seal(&self, packet: &mut PacketBuf, next_header: u8) -> Result<Limit, DropReason> {
        let inner_len = packet.len();
        let layout = self.transform.own_layout();
        let front = HEADER_LEN + layout.iv_len;
        let back = layout.sealed_len(inner_len) - front - inner_len;
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

        let (header, rest) = packet.split_at_mut(HEADER_LEN);
        let [.., s4, s5, s6, s7] = sequence.to_be_bytes();
        header[..4].copy_from_slice(&self.params.spi.to_be_bytes());
        header[4..].copy_from_slice(&[s4, s5, s6, s7]);
        let (iv, rest) = rest.split_at_mut(layout.iv_len);
        let (data, icv) = rest.split_at_mut(rest.len() - layout.icv_len);
        write_trailer(&mut data[inner_len..], next_header);
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
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if sequence > self.last_sequence() {
            Err(DropReason::SequenceExhausted)
        } else {
            Ok(sequence)
        }
    }

    fn last_sequence(&self) -> u64 {
        if self.esn() {
            // So far below the end that no number of refused packets brings the counter round.
            u64::MAX - (1 << 48)
        } else {
            u32::MAX.into()
        }
    }

    fn esn(&self) -> bool {
        self.params.suite.esn == EsnId::ESN
    }
}

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
    pub next_header: u8,
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
        Self::starting_at(params, 0)
    }

    /// An SA on which `sequence` was received last: one that is taken over while it runs.
    #[must_use]
    pub fn starting_at(params: SaParams, sequence: u64) -> Option<Self> {
        let (params, transform) = split(params)?;
        let esn = params.suite.esn == EsnId::ESN;
        let window = Mutex::new(ReplayWindow::starting_at(params.replay_window, esn, sequence));
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
        let front = HEADER_LEN + layout.iv_len;
        let encrypted = packet
            .len()
            .checked_sub(front + layout.icv_len)
            .filter(|&len| len >= TRAILER_LEN && self.transform.takes(len))
            .ok_or(DropReason::EspMalformed)?;

        let (header, rest) = packet.split_at_mut(HEADER_LEN);
        let &mut [.., s0, s1, s2, s3] = header else { return Err(DropReason::EspMalformed) };
        let sequence = self.window().check(u32::from_be_bytes([s0, s1, s2, s3]))?;
        let (iv, rest) = rest.split_at_mut(layout.iv_len);
        let (data, icv) = rest.split_at_mut(encrypted);
        let esn = self.params.suite.esn == EsnId::ESN;
        let proof = self.transform.open(header, esn, sequence, iv, data, icv)?;
        let arrival = self.window().accept(sequence, proof)?;
        self.transform.decrypt(iv, data);

        let (inner_len, next_header) = read_trailer(data)?;
        packet.trim_front(front);
        packet.truncate(inner_len);
        if !self.usage.permits(inner_len) {
            return Err(DropReason::LifetimeEnded);
        }
        let limit = self.usage.count(inner_len);
        Ok(Opened { next_header, arrival, limit })
    }

    fn window(&self) -> MutexGuard<'_, ReplayWindow> {
        // Whoever panicked while holding it left it whole: it changes in the last step of `accept`.
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The SPI of an ESP packet; `None` if it is too short, or the SPI is reserved.
#[must_use]
pub fn peek_spi(packet: &[u8]) -> Option<Spi> {
    let &[s0, s1, s2, s3, ..] = packet else { return None };
    Spi::new(u32::from_be_bytes([s0, s1, s2, s3]))
}

/// The keys go into the transform, and no copy of them stays.
fn split(mut params: SaParams) -> Option<(SaParams, Transform)> {
    let transform = Transform::new(params.suite, &params.encr_key, &params.integ_key)?;
    params.encr_key = Secret::empty();
    params.integ_key = Secret::empty();
    Some((params, transform))
}

/// RFC 4303 §2.4: padding of 1, 2, 3 and so on, its length, the next header.
fn write_trailer(trailer: &mut [u8], next_header: u8) {
    if let Some((padding, [pad_length, next])) = trailer.split_last_chunk_mut::<TRAILER_LEN>() {
        let mut length = 0;
        for (byte, value) in padding.iter_mut().zip(1_u8..) {
            *byte = value;
            length = value;
        }
        *pad_length = length;
        *next = next_header;
    }
}

/// Length of the payload before the trailer, and the next header.
fn read_trailer(data: &[u8]) -> Result<(usize, u8), DropReason> {
    let Some((rest, &[pad_length, next_header])) = data.split_last_chunk::<TRAILER_LEN>() else {
        return Err(DropReason::BadPadding);
    };
    let inner_len = rest.len().checked_sub(pad_length.into()).ok_or(DropReason::BadPadding)?;
    // RFC 4303 §2.4: the receiver should inspect it. The ICV holds, so this tells of a wrong sender, not of an attack.
    if rest[inner_len..].iter().zip(1_u8..).any(|(&byte, value)| byte != value) {
        return Err(DropReason::BadPadding);
    }
    Ok((inner_len, next_header))
}

#[cfg(test)]
mod tests;
