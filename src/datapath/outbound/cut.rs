//! Packets that the host hands over in one piece to be cut into segments: cut, copied and sealed in one pass into one
//! buffer, from which they leave in one send.

use core::num::NonZeroU16;

use super::super::batch::{Form, OutboundBatch};
use super::super::decide::Decision;
use super::super::segment::Segments;
use super::super::{Datapath, ecn};
use super::{Run, dont_fragment};
use crate::ipsec::inner::Inner;
use crate::ipsec::lifetime::Limit;
use crate::ipsec::sad::OutboundEntry;
use crate::ipsec::{DropReason, Mode, Notice, PacketBuf, Protocol};
use crate::wire::ip::NextHeader;
use crate::wire::vnet::VnetHeader;

/// Most packets in one send: what Linux takes (`UDP_MAX_SEGMENTS` of older versions).
pub const MAX_RUN: usize = 64;
/// Most bytes in one send: what fits into an IP packet, with room for its headers.
pub const MAX_RUN_LEN: usize = 65_000;

impl Datapath {
    /// A packet that is to be cut as `vnet` says.
    pub(super) fn outbound_cut<'a>(
        &'a self,
        now: u64,
        packet: &PacketBuf,
        vnet: &VnetHeader,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let Some(inner) = Inner::parse(packet) else {
            return self.refuse(DropReason::OutboundMalformed, out);
        };
        let Some(segments) = Segments::new(packet, vnet) else {
            return self.refuse(DropReason::OutboundMalformed, out);
        };
        let entry = self.run_under(&inner, &segments, run, out);
        // Numbers that packets of the batch are still to get would be below those of these segments, which leave before them.
        run.give_back();
        if !entry.is_some_and(|entry| self.seal_run(entry, &inner, &segments, out)) {
            self.one_by_one(now, &segments, run, out);
        }
    }

    /// The SA under which all segments can be sealed as they are: those of tunnel mode that fit.
    fn run_under<'a>(
        &'a self,
        inner: &Inner,
        segments: &Segments<'_>,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) -> Option<&'a OutboundEntry> {
        let Decision::Protect(entry) = self.decided(&inner.flow, run, out) else { return None };
        let params = entry.sa.params();
        let can = params.mode == Mode::Tunnel
            && params.suite.protocol() == Protocol::Esp
            && entry.sa.around().is_none()
            && params.tfc == 0
            && segments.len_of(0) <= entry.mtu
            && !segments.is_syn();
        can.then_some(entry)
    }

    /// `false`, and nothing was sent, if the SA does not give so many sequence numbers.
    fn seal_run(
        &self,
        entry: &OutboundEntry,
        inner: &Inner,
        segments: &Segments<'_>,
        out: &mut OutboundBatch,
    ) -> bool {
        let (sa, params) = (&entry.sa, entry.sa.params());
        let next_header = if inner.is_ipv6() { NextHeader::IPV6 } else { NextHeader::IPV4 };
        let Some(whole) = sa.sealing(segments.len_of(0), next_header) else { return false };
        let Ok(segment_len) = u16::try_from(whole.len()) else { return false };
        let Some(mut reserved) = sa.reserve(segments.len(), segments.total_len()) else {
            return false;
        };
        if reserved.limit() == Limit::Soft {
            out.notices.push(Notice::Expire { spi: params.other_spi, hard: false });
        }
        entry.traffic.count_outbound(segments.len(), segments.total_len());
        let form = Form::Payload {
            traffic_class: ecn::encapsulate(inner.traffic_class, params.dscp),
            dont_fragment: dont_fragment(inner.dont_fragment, params.df),
        };
        let per_run = (MAX_RUN_LEN / whole.len()).clamp(1, MAX_RUN);
        let mut index = 0;
        while index < segments.len() {
            let mut buf = out.pool.take();
            let space = buf.space_mut();
            let mut at = 0;
            for _ in 0..per_run.min(segments.len() - index) {
                let sealing = sa.sealing(segments.len_of(index), next_header).unwrap_or(whole);
                let Some(packet) = space.get_mut(at..at + sealing.len()) else { break };
                segments.write(index, &mut packet[sealing.payload()]);
                sa.seal_reserved(&mut reserved, packet, sealing);
                (at, index) = (at + sealing.len(), index + 1);
            }
            if at == 0 {
                // Buffers are smaller than a packet. Numbers that were reserved are not used then, which harms nothing.
                out.pool.put(buf);
                self.refuse(DropReason::NoRoom, out);
                break;
            }
            buf.set_len(at);
            let several = at > usize::from(segment_len);
            let segment_len = NonZeroU16::new(segment_len).filter(|_| several);
            out.sealed.exchange(&mut buf, segment_len, &entry.path, form, &mut out.pool);
            out.pool.put(buf);
        }
        true
    }

    /// Each as if it had come alone.
    fn one_by_one<'a>(
        &'a self,
        now: u64,
        segments: &Segments<'_>,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let answered = out.replies.len();
        for index in 0..segments.len() {
            // One answer is enough to what the host sent as one.
            if out.replies.len() > answered {
                self.refuse(DropReason::TooBig, out);
                continue;
            }
            let mut buf = out.pool.take();
            match buf.space_mut().get_mut(..segments.len_of(index)) {
                Some(space) => {
                    segments.write(index, space);
                    buf.set_len(segments.len_of(index));
                    self.outbound(now, &mut buf, run, out);
                }
                None => self.refuse(DropReason::NoRoom, out),
            }
            out.pool.put(buf);
        }
    }
}
