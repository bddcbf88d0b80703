//! An inbound packet that is genuine and that its SA may not carry (RFC 4301 §5.2, step 4): [`Refused`], and the
//! [`Notice::Mismatch`] that tells the peer of it.

use smallvec::SmallVec;

use super::batch::InboundBatch;
use super::{Datapath, MISMATCH_INTERVAL};
use crate::ipsec::inner::Inner;
use crate::ipsec::sad::InboundEntry;
use crate::ipsec::{DropReason, Flow, Notice, Spi};

/// Bytes of a packet that its sender is told: an IPv6 header with some extension headers, and the ports.
const START: usize = 128;

/// What was in a packet that did not pass.
#[derive(Debug)]
pub(super) struct Refused {
    /// Its selector fields.
    pub(super) flow: Flow,
    /// SPI of the SA that it came on.
    spi: Spi,
    start: SmallVec<[u8; START]>,
}

impl Refused {
    /// `packet` begins with the IP header of `inner`.
    pub(super) fn new(entry: &InboundEntry, inner: &Inner, packet: &[u8]) -> Self {
        let len = packet.len().min(inner.len).min(START);
        let spi = entry.sa.params().spi;
        Self { flow: inner.flow, spi, start: SmallVec::from_slice(&packet[..len]) }
    }
}

impl Datapath {
    /// A packet is dropped for `reason`: its sender is told if it was not one for its SA, and not told lately.
    pub(super) fn tell_refused(&self, now: u64, reason: DropReason, out: &mut InboundBatch) {
        let Some(Refused { spi, start, .. }) = out.refused.take() else { return };
        if reason == DropReason::InboundSelectorMismatch
            && let Some(entry) = self.sad.inbound(spi)
            && entry.sa.mismatch.due(now, MISMATCH_INTERVAL)
        {
            out.notices.push(Notice::Mismatch { spi, start: start.to_vec() });
        }
    }
}
