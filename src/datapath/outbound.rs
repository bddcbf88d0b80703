//! From the TUN to the socket (RFC 4301 §5.1), in the order in which a packet meets the steps.

mod cut;

use core::sync::atomic::Ordering;
use std::time::Instant;

pub use cut::{MAX_RUN, MAX_RUN_LEN};

use crate::ipsec::inner::Inner;
use crate::ipsec::lifetime::Limit;
use crate::ipsec::outbound::Sealer;
use crate::ipsec::sad::OutboundEntry;
use crate::ipsec::{
    DfPolicy, DropReason, DscpPolicy, Flow, Mode, Notice, OutboundSa, PacketBuf, Place, PolicyId,
    Protocol, SaParams, Turn, Worker,
};

use super::audit::Audited;
use super::batch::{Form, OutboundBatch, Sealed, Waiting};
use super::decide::{Decision, Fit, fit_transport, fit_tunnel, is_in_udp, padded_len};
use super::fragment::Fragments;
use super::outer::Outer;
use super::tap::Listeners;
use super::{Datapath, ecn, mss, pmtu, segment};
use crate::wire::ip::{Ipv4Packet, NextHeader, Plain, PlainFlow};
use crate::wire::vnet::{Gso, VnetHeader};

impl Datapath {
    /// Packets from the TUN. `out` is cleared first. Every buffer of `packets` comes back empty; those that are empty
    /// when they come are passed over.
    pub fn outbound_batch(&self, now: Instant, packets: &mut [PacketBuf], out: &mut OutboundBatch) {
        out.clear();
        let now = self.millis(now);
        let mut run = Run::new(packets.len(), self.shared.tap.listeners());
        for packet in packets.iter_mut().filter(|packet| !packet.is_empty()) {
            if !self.along(packet, &mut run, out) {
                self.one(now, packet, &VnetHeader::default(), &mut run, out);
            }
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
        let mut run = Run::new(packets.len(), self.shared.tap.listeners());
        self.batch(now, packets, vnet, &mut run, out);
    }

    /// As [`outbound_batch_with`](Self::outbound_batch_with), for one of several workers that share the SAs: until
    /// [`OutboundBatch::sent`] is called, nobody else sends under those that it took numbers of. What is sealed has to be sent, in
    /// its order, before that; `send` is called for what has to go before the batch is done, since another worker has an SA that
    /// comes next.
    pub fn outbound_batch_of(
        &self,
        worker: Worker,
        now: Instant,
        packets: &mut [PacketBuf],
        vnet: &[VnetHeader],
        out: &mut OutboundBatch,
        send: &mut dyn FnMut(&[Sealed]),
    ) {
        out.clear();
        let mut run = Run::new(packets.len(), self.shared.tap.listeners());
        run.several = (!worker.is_alone()).then_some(Several { worker, send });
        self.batch(now, packets, vnet, &mut run, out);
    }

    #[inline]
    fn batch<'a>(
        &'a self,
        now: Instant,
        packets: &mut [PacketBuf],
        vnet: &[VnetHeader],
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let now = self.millis(now);
        for (packet, vnet) in packets.iter_mut().zip(vnet) {
            if packet.is_empty() {
                continue;
            }
            let is_whole = vnet.gso == Gso::None && vnet.checksum.is_none();
            if !(is_whole && self.along(packet, run, out)) {
                self.one(now, packet, vnet, run, out);
            }
            packet.clear();
        }
    }

    /// One packet, with whoever listens told what became of it.
    fn one<'a>(
        &'a self,
        now: u64,
        packet: &mut PacketBuf,
        vnet: &VnetHeader,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        match run.listeners.take() {
            None => self.by_kind(now, packet, vnet, run, out),
            Some(listeners) => {
                run.decided = None;
                let before = listeners.before_outbound(packet, out);
                self.by_kind(now, packet, vnet, run, out);
                let decision = run.decided.map(|(_, decision)| decision);
                listeners.after_outbound(before, decision, out);
                run.listeners = Some(listeners);
                run.lane = None;
            }
        }
    }

    #[inline]
    fn by_kind<'a>(
        &'a self,
        now: u64,
        packet: &mut PacketBuf,
        vnet: &VnetHeader,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        match (vnet.gso, vnet.checksum) {
            (Gso::None, None) => self.outbound(now, packet, run, out),
            (Gso::None, Some(partial)) => {
                if segment::complete(packet, partial) {
                    self.outbound(now, packet, run, out);
                } else {
                    self.refuse(DropReason::OutboundMalformed, out);
                }
            }
            (Gso::TcpV4 | Gso::TcpV6 | Gso::Udp, _) => {
                self.outbound_cut(now, packet, vnet, run, out);
            }
        }
    }

    /// Counts a packet that does not pass.
    pub(super) fn refuse(&self, reason: DropReason, out: &mut OutboundBatch) {
        self.shared.drops.count(reason);
        out.refused = Some(reason);
    }

    /// What passes is taken out of `packet`.
    #[inline]
    fn outbound<'a>(
        &'a self,
        now: u64,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let Some(inner) = Inner::parse(packet) else {
            return self.refuse(DropReason::OutboundMalformed, out);
        };
        let plain = Plain::of(packet);
        packet.truncate(inner.len);
        if inner.fragment.is_some() && self.sad.transport_takes(&inner.flow) {
            return self.reassemble(now, &inner, packet, run, out);
        }
        self.apply_policy(now, &inner, packet, run, out);
        run.lane = plain.and_then(|plain| Lane::of(plain.flow, run));
    }

    /// A packet of the flow that the one before it was of, with which there is nothing to do but to seal it. `false`, and
    /// nothing was done, for any other.
    #[inline]
    fn along<'a>(
        &'a self,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) -> bool {
        let Some(lane) = &run.lane else { return false };
        let Some(rest) = lane.flow.rest_of(packet) else { return false };
        let len = rest.total_len;
        if len > lane.mtu || self.options.clamp_mss && lane.flow.is_syn(packet) {
            return false;
        }
        packet.truncate(len);
        let form = Form::Payload {
            traffic_class: ecn::encapsulate(rest.traffic_class, lane.dscp),
            dont_fragment: dont_fragment(rest.dont_fragment, lane.df),
        };
        let (entry, next_header) = (lane.entry, lane.next_header);
        self.seal_esp(entry, next_header, form, len, packet, run, out);
        true
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
                None => self.refuse(DropReason::OutboundMalformed, out),
            },
            Err(reason) => self.refuse(reason, out),
        }
        out.pool.put(whole);
    }

    #[inline]
    fn apply_policy<'a>(
        &'a self,
        now: u64,
        inner: &Inner,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        match self.decided(&inner.flow, run, out) {
            Decision::Drop(reason, _) => self.refuse(reason, out),
            Decision::Bypass => {
                self.shared.bypassed.fetch_add(1, Ordering::Relaxed);
                out.bypass.push(out.pool.exchange(packet));
            }
            Decision::Protect(entry) => match entry.sa.params().mode {
                Mode::Tunnel => self.tunnel(now, entry, inner, packet, run, out),
                Mode::Transport => self.transport(now, entry, inner, packet, run, out),
            },
            Decision::Acquire(policy) => self.acquire(now, policy, inner.flow, packet, out),
        }
    }

    /// What becomes of a flow, and by which SA. A batch is often of one flow, which then is looked up once.
    #[inline]
    fn decided<'a>(
        &'a self,
        flow: &Flow,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) -> Decision<'a> {
        if let Some((of, decision)) = run.decided
            && of == *flow
        {
            return decision;
        }
        let worker = run.several.as_ref().map_or(Worker::ALONE, |several| several.worker);
        let decision = self.decide(flow, worker);
        if let Decision::Protect(entry) = decision {
            entry.fetch();
            if run.several.is_some() {
                run.take_turn(entry, out);
            }
        }
        run.decided = Some((*flow, decision));
        decision
    }

    /// RFC 4301 §5.1, step 3b: an SA is asked for.
    fn acquire(
        &self,
        now: u64,
        policy: PolicyId,
        flow: Flow,
        packet: &mut PacketBuf,
        out: &mut OutboundBatch,
    ) {
        let buf = out.pool.exchange(packet);
        out.waiting.push(Waiting { policy, buf });
        if self.shared.may_acquire(now, policy, &flow) {
            out.notices.push(Notice::Acquire { policy, flow });
        }
    }

    /// Tunnel mode (RFC 4301 §5.1.2).
    #[inline]
    fn tunnel<'a>(
        &'a self,
        now: u64,
        entry: &'a OutboundEntry,
        inner: &Inner,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        match fit_tunnel(entry, inner, packet) {
            Fit::Whole { mtu, fits } => {
                if self.options.clamp_mss {
                    mss::clamp(packet, inner, mtu);
                }
                self.seal(entry, inner, packet, fits, run, out);
            }
            Fit::TooBig { mtu } => self.too_big(now, entry, mtu, packet, out),
            Fit::Fragments { mtu } => {
                let Some(mut fragments) = Fragments::of_ipv4(packet, mtu) else { return };
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
        }
    }

    /// Transport mode.
    fn transport<'a>(
        &'a self,
        now: u64,
        entry: &'a OutboundEntry,
        inner: &Inner,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        match fit_transport(entry, inner, packet) {
            Ok((place, Fit::Whole { mtu, fits })) => {
                if self.options.clamp_mss {
                    mss::clamp(packet, inner, mtu);
                }
                self.seal_transport(entry, inner, packet, place, fits, run, out);
            }
            Ok((_, Fit::TooBig { mtu } | Fit::Fragments { mtu })) => {
                self.too_big(now, entry, mtu, packet, out);
            }
            Err(reason) => {
                entry.sa.drops.count(reason);
                self.refuse(reason, out);
            }
        }
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
        self.refuse(DropReason::TooBig, out);
        let mut reply = out.pool.take();
        // RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8: errors are limited.
        if self.shared.may_answer(now) && pmtu::too_big(packet, mtu, &self.options, &mut reply) {
            out.replies.push(reply);
        } else {
            out.pool.put(reply);
        }
    }

    /// Tunnel mode. `fits`: the outer packet is no longer than its path takes.
    #[inline]
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
        let next_header = if inner.is_ipv6() { NextHeader::IPV6 } else { NextHeader::IPV4 };
        let traffic_class = ecn::encapsulate(inner.traffic_class, params.dscp);
        let dont_fragment = fits && dont_fragment(inner.dont_fragment, params.df);
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
                if let Err(reason) = pad(packet, entry) {
                    let _not = self.is_sealed(sa, Err(reason), params, out);
                    return;
                }
                let form = Form::Payload { traffic_class, dont_fragment };
                self.seal_esp(entry, next_header, form, len, packet, run, out);
            }
            (Protocol::Esp, Some(around)) => {
                let sealed = pad(packet, entry).and_then(|()| sa.seal(packet, next_header));
                if self.is_sealed(sa, sealed, params, out) {
                    let place = outer(NextHeader::ESP).put_before(packet);
                    let sealed = place
                        .ok_or(DropReason::NoRoom)
                        .and_then(|place| around.seal_at(packet, place));
                    if self.is_sealed(around, sealed, params, out) {
                        run.of(entry).carried(len);
                        self.send_whole(entry, packet, out);
                    }
                }
            }
            (Protocol::Ah, _) => {
                let place = outer(next_header).put_before(packet);
                let sealed =
                    place.ok_or(DropReason::NoRoom).and_then(|place| sa.seal_at(packet, place));
                if self.is_sealed(sa, sealed, params, out) {
                    run.of(entry).carried(len);
                    self.send_whole(entry, packet, out);
                }
            }
        }
    }

    /// ESP in tunnel mode, and nothing around it. `len` is that of the inner packet, which padding may follow.
    #[expect(clippy::too_many_arguments, reason = "what is known of the packet so far")]
    #[inline]
    fn seal_esp<'a>(
        &'a self,
        entry: &'a OutboundEntry,
        next_header: NextHeader,
        form: Form,
        len: usize,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut OutboundBatch,
    ) {
        let current = run.of(entry);
        let sealed = current.sealer.seal(packet, next_header);
        if self.is_sealed(&entry.sa, sealed, entry.sa.params(), out) {
            current.carried(len);
            send(entry, packet, form, out);
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
    #[inline]
    fn is_sealed(
        &self,
        sa: &OutboundSa,
        sealed: Result<Limit, DropReason>,
        pair: &SaParams,
        out: &mut OutboundBatch,
    ) -> bool {
        if sealed == Ok(Limit::None) {
            return true;
        }
        self.tell_sealed(sa, sealed, pair, out)
    }

    #[inline(never)]
    fn tell_sealed(
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
                self.refuse(reason, out);
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
            return self.refuse(DropReason::TooBig, out);
        };
        loop {
            let mut buf = out.pool.take();
            if !fragments.next_into(&mut buf) {
                return out.pool.put(buf);
            }
            send(entry, &mut buf, Form::Packet, out);
            out.pool.put(buf);
        }
    }
}

/// Packets of a batch that follow each other.
struct Run<'a> {
    /// What was decided for the flow of the last one.
    decided: Option<(Flow, Decision<'a>)>,
    current: Option<Current<'a>>,
    /// While nobody listens.
    lane: Option<Lane<'a>>,
    /// How many packets under one SA are expected to follow each other.
    expected: usize,
    /// Who is told of each packet; nearly always nobody.
    listeners: Option<Listeners>,
    several: Option<Several<'a>>,
}

/// What one of several workers has to look to.
struct Several<'a> {
    worker: Worker,
    /// Sends what is sealed before the batch is done.
    send: &'a mut dyn FnMut(&[Sealed]),
}

/// A flow whose packets are sealed by ESP in tunnel mode and leave, unless they are too long.
struct Lane<'a> {
    flow: PlainFlow,
    entry: &'a OutboundEntry,
    /// Of `flow`.
    next_header: NextHeader,
    /// Of `entry`, as what follows.
    mtu: usize,
    dscp: DscpPolicy,
    df: DfPolicy,
}

impl<'a> Lane<'a> {
    /// For the flow of a packet of which has been decided.
    fn of(flow: PlainFlow, run: &Run<'a>) -> Option<Self> {
        let (_, Decision::Protect(entry)) = run.decided? else { return None };
        let params = entry.sa.params();
        let is_plain = params.mode == Mode::Tunnel
            && params.suite.protocol() == Protocol::Esp
            && entry.sa.around().is_none()
            && params.tfc == 0;
        let next_header = if flow.is_ipv6 { NextHeader::IPV6 } else { NextHeader::IPV4 };
        let SaParams { dscp, df, .. } = *params;
        is_plain.then_some(Self { flow, entry, next_header, mtu: entry.mtu, dscp, df })
    }
}

/// The SA of the packets at hand, and what they carried.
struct Current<'a> {
    entry: &'a OutboundEntry,
    sealer: Sealer<'a>,
    packets: usize,
    bytes: usize,
}

impl<'a> Run<'a> {
    /// Before a batch of so many packets, of which `listeners` are told.
    const fn new(packets: usize, listeners: Option<Listeners>) -> Self {
        let (decided, current, lane, several) = (None, None, None, None);
        Self { decided, current, lane, expected: packets, listeners, several }
    }

    /// Ends the run at hand, with numbers that no packet got.
    fn give_back(&mut self) {
        if let Some(over) = self.current.take() {
            self.expected = over.packets;
        }
    }

    /// Keeps other workers from sending under this SA until the batch is sent. Who waits for one of them has no turn itself.
    #[inline(never)]
    fn take_turn(&mut self, entry: &OutboundEntry, out: &mut OutboundBatch) {
        if out.turns.iter().any(|turn| turn.is_under(&entry.sa)) {
            return;
        }
        let turn = Turn::try_take(&entry.sa).unwrap_or_else(|| {
            // Numbers that no packet got are given back before others take some.
            (self.current, self.lane, self.decided) = (None, None, None);
            if let Some(several) = &mut self.several
                && !out.sealed.is_empty()
            {
                (several.send)(&out.sealed);
            }
            out.sent();
            Turn::take(&entry.sa)
        });
        out.turns.push(turn);
    }

    /// The run of this SA; that of another is over, and the next is likely as long.
    #[inline]
    fn of(&mut self, entry: &'a OutboundEntry) -> &mut Current<'a> {
        if !self.current.as_ref().is_some_and(|current| core::ptr::eq(current.entry, entry)) {
            self.begin(entry);
        }
        self.current.as_mut().expect("it has begun")
    }

    #[inline(never)]
    fn begin(&mut self, entry: &'a OutboundEntry) {
        self.give_back();
        let sealer = entry.sa.sealer(self.expected);
        self.current = Some(Current { entry, sealer, packets: 0, bytes: 0 });
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
        if self.packets > 0 {
            self.entry.traffic.count_outbound(self.packets, self.bytes);
        }
    }
}

/// Takes the packet out of its buffer.
#[inline]
fn send(entry: &OutboundEntry, packet: &mut PacketBuf, form: Form, out: &mut OutboundBatch) {
    out.sealed.exchange(packet, None, &entry.path, form, &mut out.pool);
}

/// RFC 4303 §2.7: padding for traffic flow confidentiality follows the inner packet, whose length tells where it begins.
#[inline]
fn pad(packet: &mut PacketBuf, entry: &OutboundEntry) -> Result<(), DropReason> {
    if entry.sa.params().tfc == 0 {
        return Ok(());
    }
    let len = packet.len();
    let more = padded_len(entry, len) - len;
    if !packet.push_back(more) {
        return Err(DropReason::NoRoom);
    }
    packet[len..].fill(0);
    Ok(())
}

/// Whether the outer packet must not be fragmented (RFC 4301 §8.1), by whether the inner one must not.
#[inline]
const fn dont_fragment(inner: bool, policy: DfPolicy) -> bool {
    match policy {
        DfPolicy::Clear => false,
        DfPolicy::Copy => inner,
        DfPolicy::Set => true,
    }
}
