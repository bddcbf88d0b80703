//! [`ReplayWindow`]: the anti-replay window of an inbound SA (RFC 4303 §3.4.3, RFC 4302 §3.4.3), kept as RFC 6479 does: a
//! ring of blocks, so that moving it costs no shifting.
//!
//! Two steps: [`check`](ReplayWindow::check) before the ICV is verified, [`accept`](ReplayWindow::accept) after it and
//! only with the proof that it was. Owns the inference of the high bits of extended sequence numbers (RFC 4303
//! Appendix A). Does not resynchronise after a loss of 2^32 packets (Appendix A3, a MAY).

use super::drop::DropReason;

/// The proof that the ICV of a packet was verified: only that verification makes one.
#[derive(Debug)]
pub struct IcvVerified(());

impl IcvVerified {
    /// For the modules that verify ICVs, and no other.
    pub(super) const fn new() -> Self {
        Self(())
    }
}

/// Where an accepted packet stands among those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// None with a higher sequence number was accepted before.
    Newest,
    /// A packet with a higher sequence number was.
    Late,
}

/// The sequence numbers that were received, as far back as the window reaches.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// Size in packets; 0: no check for replays.
    size: u32,
    /// Whether sequence numbers have 64 bits, of which the low 32 are on the wire.
    esn: bool,
    /// The highest sequence number accepted: `T` of RFC 4303 Appendix A.
    top: u64,
    /// One bit for each sequence number, as a ring. One block more than `size` needs, so that the block in which
    /// `top` lies may be partly ahead of it (RFC 6479 §2). Its length is a power of two.
    blocks: Box<[u64]>,
}

impl ReplayWindow {
    /// The largest window, in packets.
    pub const MAX: u32 = 8192;

    /// The window by which the high bits of extended sequence numbers are inferred if replays are not checked.
    const INFERENCE: u32 = 64;

    /// A window of `size` packets, at most [`MAX`](Self::MAX); 0 checks nothing.
    #[must_use]
    pub fn new(size: u32, esn: bool) -> Self {
        Self::starting_at(size, esn, 0)
    }

    /// A window into which `top` was received last, and nothing before it that is still to come: for an SA that is
    /// taken over while it runs. Sequence numbers up to `top` are duplicates.
    #[must_use]
    pub fn starting_at(size: u32, esn: bool, top: u64) -> Self {
        let size = size.min(Self::MAX);
        let count = if size == 0 { 0 } else { (size.div_ceil(u64::BITS) + 1).next_power_of_two() };
        // What a running SA received is unknown: everything up to `top` counts as received.
        let received = if top == 0 { 0 } else { u64::MAX };
        let mut window =
            Self { size, esn, top, blocks: vec![received; count as usize].into_boxed_slice() };
        if let Some(index) = window.block(top) {
            // In the block of `top`, the bits above it stand for packets to come.
            window.blocks[index] = if top == 0 { 0 } else { u64::MAX >> (63 - top % 64) };
        }
        window
    }

    /// Size in packets; 0: no check.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The highest sequence number accepted; 0 before the first.
    #[must_use]
    pub const fn top(&self) -> u64 {
        self.top
    }

    /// What [`check`](Self::check) says of a packet that carries `low`, if the top of the window and of the sequence
    /// number tell by themselves: it is ahead of them, as nearly every packet is. `None` if the window must be asked.
    #[inline]
    #[must_use]
    pub fn ahead(top: u64, size: u32, esn: bool, low: u32) -> Option<u64> {
        let seq = if esn {
            // RFC 4303 Appendix A2.2, case A: the window lies in one subspace.
            let bottom_of_subspace = top & !u64::from(u32::MAX);
            let reach = if size == 0 { Self::INFERENCE } else { size };
            if top - bottom_of_subspace < u64::from(reach) {
                return None;
            }
            bottom_of_subspace | u64::from(low)
        } else {
            u64::from(low)
        };
        (seq > top).then_some(seq)
    }

    /// Has the cache fetch where the next packets are marked, for whoever will open them. Nothing but time depends on it.
    #[inline]
    pub fn fetch(&self) {
        let block = self.block(self.top.wrapping_add(1)).and_then(|at| self.blocks.get(at));
        core::hint::black_box(block.copied());
    }

    /// Before the ICV: the whole sequence number of a packet that carries `low`. Changes nothing.
    ///
    /// # Errors
    /// [`DropReason::ReplayOld`] or [`DropReason::ReplayDuplicate`].
    #[inline]
    pub fn check(&self, low: u32) -> Result<u64, DropReason> {
        let seq = if self.esn { self.infer(low)? } else { u64::from(low) };
        self.judge(seq)?;
        Ok(seq)
    }

    /// After the ICV: remembers `seq`, as [`check`](Self::check) gave it. Another packet may have been accepted since
    /// then, so it is judged again.
    ///
    /// # Errors
    /// [`DropReason::ReplayOld`] or [`DropReason::ReplayDuplicate`]; then nothing has changed.
    #[inline]
    pub fn accept(&mut self, seq: u64, _proof: IcvVerified) -> Result<Arrival, DropReason> {
        self.judge(seq)?;
        let arrival = if seq > self.top { Arrival::Newest } else { Arrival::Late };
        if arrival == Arrival::Newest {
            self.advance(seq);
        }
        if let Some(index) = self.block(seq) {
            self.blocks[index] |= Self::bit(seq);
        }
        Ok(arrival)
    }

    /// RFC 4303 Appendix A2.2: the sequence number with these low bits that is nearest to the window.
    fn infer(&self, low: u32) -> Result<u64, DropReason> {
        let window = if self.size == 0 { Self::INFERENCE } else { self.size };
        let [h0, h1, h2, h3, l0, l1, l2, l3] = self.top.to_be_bytes();
        let high = u32::from_be_bytes([h0, h1, h2, h3]);
        let top_low = u32::from_be_bytes([l0, l1, l2, l3]);
        let bottom = top_low.wrapping_sub(window - 1);
        let high = if top_low >= window - 1 {
            // Case A: the window lies in one subspace.
            if low >= bottom { Some(high) } else { high.checked_add(1) }
        } else {
            // Case B: the window began in the subspace before this one; before the first there is none.
            if low >= bottom { high.checked_sub(1) } else { Some(high) }
        };
        let high = high.ok_or(DropReason::ReplayOld)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    #[inline]
    fn judge(&self, seq: u64) -> Result<(), DropReason> {
        // Ahead of all is nearly every packet.
        if seq > self.top || self.size == 0 {
            return Ok(());
        }
        // RFC 4303 §3.3.3: the first packet has 1; 0 is never sent.
        if seq == 0 || self.top.saturating_sub(seq) >= u64::from(self.size) {
            return Err(DropReason::ReplayOld);
        }
        match self.block(seq) {
            Some(index) if self.blocks[index] & Self::bit(seq) != 0 => {
                Err(DropReason::ReplayDuplicate)
            }
            _ => Ok(()),
        }
    }

    /// Moves the top: the blocks between are those of numbers that nobody has seen.
    #[inline]
    fn advance(&mut self, seq: u64) {
        let count = self.blocks.len() as u64;
        let steps = (seq / 64 - self.top / 64).min(count);
        for step in 0..steps {
            if let Some(index) = self.block(seq.wrapping_sub(step * 64)) {
                self.blocks[index] = 0;
            }
        }
        self.top = seq;
    }

    /// Where the bit of `seq` lies in the ring.
    #[inline]
    const fn block(&self, seq: u64) -> Option<usize> {
        match self.blocks.len().checked_sub(1) {
            Some(mask) => Some((seq / 64) as usize & mask),
            None => None,
        }
    }

    const fn bit(seq: u64) -> u64 {
        1 << (seq % 64)
    }
}

#[cfg(test)]
mod tests;
