//! From the TUN to the socket (RFC 4301 §5.1), in the order in which a packet meets the steps.

mod cut;

use core::mem;
use core::sync::atomic::Ordering;
use std::time::Instant;

pub use cut::{MAX_RUN, MAX_RUN_LEN};

use crate::ipsec::inner::Inner;
use crate::ipsec::lifetime::{Limit, Tally};
use crate::ipsec::mtu;
use crate::ipsec::sad::OutboundEntry;
use crate::ipsec::selector::matches_pair;
use crate::ipsec::{
    Action, DfPolicy, DropReason, Encap, Flow, Mode, Notice, OutboundSa, PacketBuf, Place,
    PolicyId, Protocol, SaParams,
};

use super::audit::Audited;
use super::batch::{Form, OutboundBatch, Sealed, Waiting};
use super::fragment::Fragments;
use super::outer::Outer;
use super::{Datapath, ecn, mss, pmtu, segment};
use crate::wire::ip::{Ipv4Packet, NextHeader};
use crate::wire::vnet::{Gso, VnetHeader};

impl Datapath {
    /// Packets from the TUN. `out` is cleared first. Every buffer of `packets` comes back empty; those that are empty
    /// when they come are passed over.
    pub fn outbound_batch(&self, now: Instant, packets: &mut [PacketBuf], out: &mut OutboundBatch) {
        out.clear();
        let now = self.millis(now);
        let mut run = Run::default();
        for packet in packets.iter_mut().filter(|packet| !packet.is_empty()) {
            self.outbound(now, packet, &mut run, out);
            packet.clear();
        }
    }

    /// As [`outbound_batch`](Self::outbound_batch), of packets of a TUN with offloads: `vnet` has the header of each, and a
    /// packet may be one that is to be cut.
    pub fn outbound_batch_with(
        &self,
        now: Instant,
        packets: &mut [PacketBuf],
        vnet: &[VnetHeader],
        out: &mut OutboundBatch,
    ) {
        out.clear();
        let now = self.millis(now);
        let mut run = Run::default();
        let packets = packets.iter_mut().zip(vnet);
        for (packet, vnet) in packets.filter(|(packet, _)| !packet.is_empty()) {
            match (vnet.gso, vnet.checksum) {
                (Gso::None, None) => self.outbound(now, packet, &mut run, out),
                (Gso::None, Some(partial)) => {
                    if segment::complete(packet, partial) {
                        self.outbound(now, packet, &mut run, out);
                    } else {
                        self.shared.drops.count(DropReason::OutboundMalformed);
                    }
                }
                (Gso::TcpV4 | Gso::TcpV6 | Gso::Udp, _) => {
                    self.outbound_cut(now, packet, vnet, &mut run, out)
                }
            }
            packet.clear();
        }
    }

    /// What passes is taken out of `packet`.
    fn outbound<'a>(
        &'a self,
        now: u64,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let Some(inner) = Inner::parse(packet) else {
            return self.shared.drops.count(DropReason::OutboundMalformed);
        };
        packet.truncate(inner.len);
        if inner.fragment.is_some() && self.sad.transport_takes(&inner.flow) {
            return self.reassemble(now, &inner, packet, run, out);
        }
        self.apply_policy(now, &inner, packet, run, out);
    }

    /// RFC 4303 §3.3.4, RFC 4302 §3.3.4: transport mode takes whole packets, and the host may have fragmented what it
    /// hands to the TUN.
    fn reassemble<'a>(
        &'a self,
        now: u64,
        inner: &Inner,
        packet: &PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let mut whole = out.pool.take();
        match self.shared.reassembly.take(now, inner, packet, &mut whole, &self.shared.drops) {
            Ok(false) => {}
            Ok(true) => match Inner::parse(&whole) {
                Some(inner) => {
                    // Whoever fragmented it knows that it is long: it is not to be told again.
                    let inner = Inner { dont_fragment: false, ..inner };
                    self.apply_policy(now, &inner, &mut whole, run, out);
                }
                None => self.shared.drops.count(DropReason::OutboundMalformed),
            },
            Err(reason) => self.shared.drops.count(reason),
        }
        out.pool.put(whole);
    }

    fn apply_policy<'a>(
        &'a self,
        now: u64,
        inner: &Inner,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let (action, entry) = self.decide(&inner.flow, run);
        match action {
            // RFC 4301 §5.1: what no entry matches is discarded.
            None => self.shared.drops.count(DropReason::NoPolicy),
            Some(Action::Discard) => self.shared.drops.count(DropReason::PolicyDiscard),
            Some(Action::Bypass) => {
                self.shared.bypassed.fetch_add(1, Ordering::Relaxed);
                out.bypass.push(out.pool.exchange(packet));
            }
            Some(Action::Protect(policy)) => match entry {
                Some(entry) => match entry.sa.params().mode {
                    Mode::Tunnel => self.tunnel(now, entry, inner, packet, run, out),
                    Mode::Transport => self.transport(now, entry, inner, packet, run, out),
                },
                None => self.without_sa(now, policy, inner.flow, packet, out),
            },
        }
    }

    /// What becomes of a flow, and by which SA. A batch is often of one flow, which then is looked up once.
    #[inline]
    fn decide<'a>(
        &'a self,
        flow: &Flow,
        run: &mut Run<'a>,
    ) -> (Option<Action>, Option<&'a OutboundEntry>) {
        if let Some((decided, action, entry)) = run.decided
            && decided == *flow
        {
            return (action, entry);
        }
        let action = self.spd.lookup_out(flow);
        let entry = match action {
            Some(Action::Protect(policy)) => self.sad.outbound_for(policy, flow),
            Some(Action::Bypass | Action::Discard) | None => None,
        };
        run.decided = Some((*flow, action, entry));
        (action, entry)
    }

    /// RFC 4301 §5.1, step 3b: an SA is asked for. If there is one, but the peer has narrowed it to exclude this packet,
    /// asking again would not help.
    fn without_sa(
        &self,
        now: u64,
        policy: PolicyId,
        flow: Flow,
        packet: &mut PacketBuf,
        out: &mut OutboundBatch,
    ) {
        if !self.sad.outbound(policy).is_empty() {
            return self.shared.drops.count(DropReason::OutboundSelectorMismatch);
        }
        let buf = out.pool.exchange(packet);
        out.waiting.push(Waiting { policy, buf });
        if self.shared.may_acquire(now, policy, &flow) {
            out.notices.push(Notice::Acquire { policy, flow });
        }
    }

    /// RFC 4301 §8.2: what does not fit is fragmented, or its sender is told.
    fn tunnel<'a>(
        &'a self,
        now: u64,
        entry: &'a OutboundEntry,
        inner: &Inner,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let mtu = least_to_ask_for(inner, entry.mtu);
        if inner.len <= mtu {
            if self.options.clamp_mss {
                mss::clamp(packet, inner, mtu);
            }
            return self.seal(entry, inner, packet, inner.len <= entry.mtu, run, out);
        }
        if inner.dont_fragment {
            return self.too_big(now, entry, mtu, packet, out);
        }
        // A later fragment has no ports. If the selectors of the SA ask for some, the far end would drop it
        // (RFC 4301 §7), and the packet has to stay whole inside.
        let params = entry.sa.params();
        let later = Flow { ports: None, ..inner.flow };
        let fragments = Fragments::of_ipv4(packet, mtu);
        match fragments {
            Some(mut fragments) if matches_pair(&params.ts_local, &params.ts_peer, &later) => {
                loop {
                    let mut buf = out.pool.take();
                    if !fragments.next_into(&mut buf) {
                        out.pool.put(buf);
                        break;
                    }
                    self.seal(entry, inner, &mut buf, true, run, out);
                    out.pool.put(buf);
                }
            }
            _ => self.seal(entry, inner, packet, false, run, out),
        }
    }

    /// RFC 4301 §8.2 as well. What may be fragmented is, once it is protected (RFC 4303 §3.3.4, RFC 4302 §3.3.4).
    fn transport<'a>(
        &'a self,
        now: u64,
        entry: &'a OutboundEntry,
        inner: &Inner,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let refuse = |reason| {
            entry.sa.drops.count(reason);
            self.shared.drops.count(reason);
        };
        let Some(place) = Place::for_insertion(packet) else {
            return refuse(DropReason::OutboundMalformed);
        };
        let fits = if place.at == mtu::header_len(inner.is_ipv6()) {
            entry.mtu
        } else if is_in_udp(entry) {
            return refuse(DropReason::HeadersInUdp);
        } else {
            let around = entry.sa.around().map(|around| around.params());
            let params = entry.sa.params();
            mtu::max_len(params, around, &entry.path, entry.path_mtu, place.at).unwrap_or(0)
        };
        let mtu = least_to_ask_for(inner, fits);
        if inner.len > mtu && inner.dont_fragment {
            return self.too_big(now, entry, mtu, packet, out);
        }
        if self.options.clamp_mss {
            mss::clamp(packet, inner, mtu);
        }
        self.seal_transport(entry, inner, packet, place, inner.len <= fits, run, out);
    }

    /// Drops what is longer than `mtu`, and tells its sender.
    fn too_big(
        &self,
        now: u64,
        entry: &OutboundEntry,
        mtu: usize,
        packet: &PacketBuf,
        out: &mut OutboundBatch,
    ) {
        entry.sa.drops.count(DropReason::TooBig);
        self.shared.drops.count(DropReason::TooBig);
        let mut reply = out.pool.take();
        // RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8: errors are limited.
        if self.shared.may_answer(now) && pmtu::too_big(packet, mtu, &self.options, &mut reply) {
            out.replies.push(reply);
        } else {
            out.pool.put(reply);
        }
    }

    /// Tunnel mode. `fits`: the outer packet is no longer than its path takes.
    fn seal<'a>(
        &'a self,
        entry: &'a OutboundEntry,
        inner: &Inner,
        packet: &mut PacketBuf,
        fits: bool,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let sa = &entry.sa;
        let params = sa.params();
        let len = packet.len();
        let current = run.of(entry);
        let next_header = if inner.is_ipv6() { NextHeader::IPV6 } else { NextHeader::IPV4 };
        let traffic_class = ecn::encapsulate(inner.traffic_class, params.dscp);
        let dont_fragment = fits && dont_fragment(inner, params.df);
        let outer = |protocol| Outer {
            src: entry.path.local.ip(),
            dst: entry.path.remote.ip(),
            protocol,
            traffic_class,
            dont_fragment,
            ident: self.shared.ident(),
        };
        match (params.suite.protocol(), sa.around()) {
            (Protocol::Esp, None) => {
                let sealed = pad(packet, params, entry.mtu)
                    .and_then(|()| sa.seal_into(&mut current.tally, packet, next_header));
                if self.is_sealed(sa, sealed, params, out) {
                    current.carried(len);
                    send(entry, packet, Form::Payload { traffic_class, dont_fragment }, out);
                }
            }
            (Protocol::Esp, Some(around)) => {
                let sealed =
                    pad(packet, params, entry.mtu).and_then(|()| sa.seal(packet, next_header));
                if self.is_sealed(sa, sealed, params, out) {
                    let place = outer(NextHeader::ESP).put_before(packet);
                    let sealed = place
                        .ok_or(DropReason::NoRoom)
                        .and_then(|place| around.seal_at(packet, place));
                    if self.is_sealed(around, sealed, params, out) {
                        current.carried(len);
                        self.send_whole(entry, packet, out);
                    }
                }
            }
            (Protocol::Ah, _) => {
                let place = outer(next_header).put_before(packet);
                let sealed =
                    place.ok_or(DropReason::NoRoom).and_then(|place| sa.seal_at(packet, place));
                if self.is_sealed(sa, sealed, params, out) {
                    current.carried(len);
                    self.send_whole(entry, packet, out);
                }
            }
        }
    }

    /// Transport mode: the IP header that is there stays (RFC 4301 §5.1.2 is of tunnel mode).
    #[expect(clippy::too_many_arguments, reason = "what is known of the packet so far")]
    fn seal_transport<'a>(
        &'a self,
        entry: &'a OutboundEntry,
        inner: &Inner,
        packet: &mut PacketBuf,
        place: Place,
        fits: bool,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let sa = &entry.sa;
        let params = sa.params();
        let len = packet.len();
        if is_in_udp(entry) {
            // The IP header, and what it says of UDP's, is the socket's (RFC 3948 §3.1.1).
            let next_header = NextHeader(packet[place.next_header_at]);
            packet.trim_front(place.at);
            if self.is_sealed(sa, sa.seal(packet, next_header), params, out) {
                run.of(entry).carried(len);
                let traffic_class = inner.traffic_class;
                let dont_fragment = fits && inner.dont_fragment;
                send(entry, packet, Form::Payload { traffic_class, dont_fragment }, out);
            }
            return;
        }
        self.identify(packet);
        for sa in core::iter::once(sa).chain(sa.around()) {
            if !self.is_sealed(sa, sa.seal_at(packet, place), params, out) {
                return;
            }
        }
        run.of(entry).carried(len);
        self.send_whole(entry, packet, out);
    }

    /// The kernel gives an IPv4 packet without identification one, which would break AH: it is covered
    /// (RFC 4302 §3.3.3.1.1).
    fn identify(&self, packet: &mut PacketBuf) {
        if let Ok(mut ip) = Ipv4Packet::new_checked(&mut packet[..])
            && ip.ident() == 0
        {
            ip.set_ident(self.shared.ident());
        }
    }

    /// What a worker is told of having sealed a packet, or not, under an SA of the pair whose ESP, or only, SA `pair` is.
    fn is_sealed(
        &self,
        sa: &OutboundSa,
        sealed: Result<Limit, DropReason>,
        pair: &SaParams,
        out: &mut OutboundBatch,
    ) -> bool {
        match sealed {
            Ok(limit) => {
                if limit == Limit::Soft {
                    out.notices.push(Notice::Expire { spi: pair.other_spi, hard: false });
                }
                true
            }
            Err(reason) => {
                sa.drops.count(reason);
                self.shared.drops.count(reason);
                if reason.is_auditable() {
                    let SaParams { suite, spi, .. } = sa.params();
                    out.audits.push(Audited {
                        reason,
                        protocol: suite.protocol(),
                        path: pair.path,
                        spi: u32::from_be_bytes(spi.to_be_bytes()),
                        // RFC 4303 §2.2.1: the low half of an extended one.
                        sequence: (sa.sequence() & 0xffff_ffff) as u32,
                        count: 1,
                    });
                }
                let ended =
                    matches!(reason, DropReason::LifetimeEnded | DropReason::SequenceExhausted);
                if ended && sa.usage().reached_hard() == Limit::Hard {
                    out.notices.push(Notice::Expire { spi: pair.other_spi, hard: true });
                }
                false
            }
        }
    }

    /// A whole packet, or its fragments if it is longer than the path takes.
    fn send_whole(&self, entry: &OutboundEntry, packet: &mut PacketBuf, out: &mut OutboundBatch) {
        if packet.len() <= entry.path_mtu {
            return send(entry, packet, Form::Packet, out);
        }
        let Some(mut fragments) = Fragments::of_sealed(packet, entry.path_mtu) else {
            entry.sa.drops.count(DropReason::TooBig);
            return self.shared.drops.count(DropReason::TooBig);
        };
        loop {
            let mut buf = out.pool.take();
            if !fragments.next_into(&mut buf) {
                return out.pool.put(buf);
            }
            let (path, form) = (entry.path, Form::Packet);
            out.sealed.push(Sealed { buf, segment_len: None, path, form });
        }
    }
}

/// Packets of a batch that follow each other.
#[derive(Default)]
struct Run<'a> {
    /// What was decided for the flow of the last one.
    decided: Option<(Flow, Option<Action>, Option<&'a OutboundEntry>)>,
    current: Option<Current<'a>>,
}

/// The SA of the packets at hand, and what they carried.
struct Current<'a> {
    entry: &'a OutboundEntry,
    tally: Tally,
    packets: usize,
    bytes: usize,
}

impl<'a> Run<'a> {
    /// The run of this SA; that of another is over.
    #[inline]
    fn of(&mut self, entry: &'a OutboundEntry) -> &mut Current<'a> {
        self.current.take_if(|current| !core::ptr::eq(current.entry, entry));
        self.current.get_or_insert_with(|| Current {
            entry,
            tally: Tally::default(),
            packets: 0,
            bytes: 0,
        })
    }
}

impl Current<'_> {
    #[inline]
    fn carried(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len;
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        self.entry.sa.usage().add(&self.tally);
        if self.packets > 0 {
            self.entry.traffic.count_outbound(self.packets, self.bytes);
        }
    }
}

/// Takes the packet out of its buffer.
fn send(entry: &OutboundEntry, packet: &mut PacketBuf, form: Form, out: &mut OutboundBatch) {
    let spare = out.pool.take();
    let buf = mem::replace(packet, spare);
    out.sealed.push(Sealed { buf, segment_len: None, path: entry.path, form });
}

/// RFC 4303 §2.7: padding for traffic flow confidentiality follows the inner packet, whose length tells where it begins.
fn pad(packet: &mut PacketBuf, params: &SaParams, mtu: usize) -> Result<(), DropReason> {
    let len = packet.len();
    let Some(more) = usize::from(params.tfc).min(mtu).checked_sub(len) else { return Ok(()) };
    if !packet.push_back(more) {
        return Err(DropReason::NoRoom);
    }
    packet[len..].fill(0);
    Ok(())
}

fn is_in_udp(entry: &OutboundEntry) -> bool {
    entry.path.encap == Encap::Udp && entry.sa.params().suite.protocol() == Protocol::Esp
}

/// RFC 8200 §5: of IPv6 less than 1280 cannot be asked for; what does not fit is fragmented outside.
fn least_to_ask_for(inner: &Inner, mtu: usize) -> usize {
    if inner.is_ipv6() { mtu.max(pmtu::IPV6_MIN_MTU) } else { mtu }
}

/// Whether the outer packet must not be fragmented (RFC 4301 §8.1).
const fn dont_fragment(inner: &Inner, policy: DfPolicy) -> bool {
    match policy {
        DfPolicy::Clear => false,
        DfPolicy::Copy => inner.dont_fragment,
        DfPolicy::Set => true,
    }
}
