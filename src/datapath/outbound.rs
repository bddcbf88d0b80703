//! From the TUN to the socket (RFC 4301 §5.1), in the order in which a packet meets the steps.

use core::mem;
use core::sync::atomic::Ordering;
use std::time::Instant;

use crate::ipsec::inner::Inner;
use crate::ipsec::lifetime::Limit;
use crate::ipsec::sad::OutboundEntry;
use crate::ipsec::selector::matches_pair;
use crate::ipsec::{Action, DfPolicy, DropReason, Flow, Notice, PacketBuf, PolicyId};

use super::batch::{OutboundBatch, Sealed};
use super::fragment::Fragments;
use super::{Datapath, ecn, mss, pmtu};
use crate::wire::ip::NextHeader;

impl Datapath {
    /// Packets from the TUN. `out` is cleared first. Every buffer of `packets` comes back empty; those that are empty
    /// when they come are passed over.
    pub fn outbound_batch(&self, now: Instant, packets: &mut [PacketBuf], out: &mut OutboundBatch) {
        out.clear();
        let now = self.millis(now);
        for packet in packets.iter_mut().filter(|packet| !packet.is_empty()) {
            self.outbound(now, packet, out);
            packet.clear();
        }
    }

    /// What passes is taken out of `packet`.
    fn outbound(&self, now: u64, packet: &mut PacketBuf, out: &mut OutboundBatch) {
        let Some(inner) = Inner::parse(packet) else {
            return self.shared.drops.count(DropReason::OutboundMalformed);
        };
        packet.truncate(inner.len);
        match self.spd.lookup_out(&inner.flow) {
            // RFC 4301 §5.1: what no entry matches is discarded.
            None => self.shared.drops.count(DropReason::NoPolicy),
            Some(Action::Discard) => self.shared.drops.count(DropReason::PolicyDiscard),
            Some(Action::Bypass) => {
                self.shared.bypassed.fetch_add(1, Ordering::Relaxed);
                out.bypass.push(out.pool.exchange(packet));
            }
            Some(Action::Protect(policy)) => match self.sad.outbound_for(policy, &inner.flow) {
                Some(entry) => self.protect(now, entry, &inner, packet, out),
                None => self.without_sa(now, policy, inner.flow, out),
            },
        }
    }

    /// RFC 4301 §5.1, step 3b: an SA is asked for. If there is one, but the peer has narrowed it to exclude this packet,
    /// asking again would not help.
    fn without_sa(&self, now: u64, policy: PolicyId, flow: Flow, out: &mut OutboundBatch) {
        if !self.sad.outbound(policy).is_empty() {
            return self.shared.drops.count(DropReason::OutboundSelectorMismatch);
        }
        self.shared.drops.count(DropReason::NoOutboundSa);
        if self.shared.may_acquire(now, policy, &flow) {
            out.notices.push(Notice::Acquire { policy, flow });
        }
    }

    /// RFC 4301 §8.2: what does not fit is fragmented, or its sender is told.
    fn protect(
        &self,
        now: u64,
        entry: &OutboundEntry,
        inner: &Inner,
        packet: &mut PacketBuf,
        out: &mut OutboundBatch,
    ) {
        let mtu = if inner.is_ipv6() {
            // RFC 8200 §5: less than 1280 cannot be asked for; what does not fit is fragmented outside.
            entry.mtu.max(pmtu::IPV6_MIN_MTU)
        } else {
            entry.mtu
        };
        if inner.len <= mtu {
            if self.options.clamp_mss {
                mss::clamp(packet, inner, mtu);
            }
            return self.seal(entry, inner, packet, inner.len <= entry.mtu, out);
        }
        if inner.dont_fragment {
            entry.sa.drops.count(DropReason::TooBig);
            self.shared.drops.count(DropReason::TooBig);
            return self.answer_too_big(now, mtu, packet, out);
        }
        // A later fragment has no ports. If the selectors of the SA ask for some, the far end would drop it
        // (RFC 4301 §7), and the packet has to stay whole inside.
        let params = entry.sa.params();
        let later = Flow { ports: None, ..inner.flow };
        let fragments = Fragments::new(packet, mtu);
        match fragments {
            Some(mut fragments) if matches_pair(&params.ts_local, &params.ts_peer, &later) => {
                loop {
                    let mut buf = out.pool.take();
                    if !fragments.next_into(&mut buf) {
                        out.pool.put(buf);
                        break;
                    }
                    self.seal(entry, inner, &mut buf, true, out);
                    out.pool.put(buf);
                }
            }
            _ => self.seal(entry, inner, packet, false, out),
        }
    }

    fn answer_too_big(&self, now: u64, mtu: usize, packet: &PacketBuf, out: &mut OutboundBatch) {
        let mut reply = out.pool.take();
        // RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8: errors are limited.
        if self.shared.may_answer(now) && pmtu::too_big(packet, mtu, &self.options, &mut reply) {
            out.replies.push(reply);
        } else {
            out.pool.put(reply);
        }
    }

    /// `fits`: the outer packet is no longer than its path takes.
    fn seal(
        &self,
        entry: &OutboundEntry,
        inner: &Inner,
        packet: &mut PacketBuf,
        fits: bool,
        out: &mut OutboundBatch,
    ) {
        let sa = &entry.sa;
        let params = sa.params();
        let len = packet.len();
        let next_header = if inner.is_ipv6() { NextHeader::IPV6 } else { NextHeader::IPV4 };
        match sa.seal(packet, next_header) {
            Ok(limit) => {
                entry.traffic.count_outbound(len);
                if limit == Limit::Soft {
                    out.notices.push(Notice::Expire { spi: params.other_spi, hard: false });
                }
                let spare = out.pool.take();
                out.sealed.push(Sealed {
                    buf: mem::replace(packet, spare),
                    path: entry.path,
                    traffic_class: ecn::encapsulate(inner.traffic_class, params.dscp),
                    dont_fragment: fits && dont_fragment(inner, params.df),
                });
            }
            Err(reason) => {
                sa.drops.count(reason);
                self.shared.drops.count(reason);
                let ended =
                    matches!(reason, DropReason::LifetimeEnded | DropReason::SequenceExhausted);
                if ended && sa.usage().reached_hard() == Limit::Hard {
                    out.notices.push(Notice::Expire { spi: params.other_spi, hard: true });
                }
            }
        }
    }
}

/// Whether the outer packet must not be fragmented (RFC 4301 §8.1).
const fn dont_fragment(inner: &Inner, policy: DfPolicy) -> bool {
    match policy {
        DfPolicy::Clear => false,
        DfPolicy::Copy => inner.dont_fragment,
        DfPolicy::Set => true,
    }
}
