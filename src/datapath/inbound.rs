//! From the socket to the TUN (RFC 4301 §5.2), in the order in which a packet meets the steps.

use core::ops::Range;
use core::sync::atomic::Ordering;
use std::time::Instant;

use crate::ipsec::ah;
use crate::ipsec::esp::peek_spi;
use crate::ipsec::inbound::{Opened, Opening};
use crate::ipsec::inner::Inner;
use crate::ipsec::lifetime::Limit;
use crate::ipsec::replay::Arrival;
use crate::ipsec::sad::{Bundle, InboundEntry};
use crate::ipsec::selector::matches_pair;
use crate::ipsec::{
    DropReason, Encap, Flow, Mode, Notice, PacketBuf, Path, Place, Protocol, SaParams,
};
use crate::wire::esp::EspHeader;
use crate::wire::ip::{IpPacket, NextHeader, Plain, PlainFlow};
use crate::wire::natt::{self, Datagram};
use crate::wire::tcp::TcpPacket;
use crate::wire::udp::UdpPacket;

use super::batch::{IkeDatagram, InboundBatch, Received};
use super::ecn::{self, Ecn};
use super::outer::Outer;
use super::refused::Refused;
use super::tap::{Came, Listeners, Verdict};
use super::{Datapath, MOVED_INTERVAL, mss, pmtu};

impl Datapath {
    /// Packets from the sockets: those of port 4500 and those of protocols 50 and 51. `out` is cleared first. Every buffer
    /// of `received` comes back empty; those that are empty when they come are passed over.
    pub fn inbound_batch(&self, now: Instant, received: &mut [Received], out: &mut InboundBatch) {
        out.clear();
        let now = self.millis(now);
        let mut run = Run {
            current: None,
            lane: None,
            listeners: self.shared.tap.listeners(),
            alive_interval: self.alive_interval(),
        };
        for received in received {
            if received.buf.is_empty() {
                continue;
            }
            if !self.alike(now, received, &mut run, out) {
                self.inbound(now, received, &mut run, out);
            }
            received.buf.clear();
        }
    }

    /// A datagram that there is nothing to do with but to open it. `false`, and nothing was done, for any other.
    #[inline]
    fn alike<'a>(
        &'a self,
        now: u64,
        received: &mut Received,
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) -> bool {
        let Received { path, traffic_class, buf, segment_len: None } = received else {
            return false;
        };
        let class = *traffic_class;
        let Some(result) = self.open_alike(now, path, class, buf, run, out) else { return false };
        let place = out.deliver.place();
        if self.is_kept(now, result, place, 0, path, buf, out) {
            out.deliver.keep(place, buf);
            out.pool.replace_small(buf);
        }
        true
    }

    /// Opens a datagram that came on the path of the one before it and under the same SA; if the packet in it is of the same
    /// flow, too, there is nothing else to do. As [`in_udp`](Self::in_udp); `None`, and nothing was done, for a datagram of
    /// another SA or path.
    #[inline(always)]
    fn open_alike<'a>(
        &'a self,
        now: u64,
        path: &Path,
        traffic_class: u8,
        datagram: &mut [u8],
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) -> Option<Result<Option<Range<usize>>, DropReason>> {
        let (Some(lane), Some(current)) = (&run.lane, &mut run.current) else { return None };
        // RFC 3948 §2: what is shorter is not ESP.
        let [spi @ .., _, _, _, _] = datagram.first_chunk::<{ EspHeader::LEN }>()?;
        // RFC 6040 §4.2: of an outer header without ECN the inner one is not changed.
        if *spi != lane.spi || Ecn::of(traffic_class) != Ecn::NotEct || *path != lane.path {
            return None;
        }
        let opened = current.opening.open_in_place(datagram);
        if let Ok((Opened { next_header, limit: Limit::None, .. }, range)) = &opened
            && *next_header == lane.next_header
            && let Some(packet) = datagram.get(range.clone())
            && let Some(rest) = lane.flow.rest_of(packet)
            && !(self.options.clamp_mss && lane.flow.is_syn(packet))
        {
            current.packets += 1;
            current.bytes += rest.total_len;
            return Some(Ok(Some(range.start..range.start + rest.total_len)));
        }
        let entry = current.entry;
        Some(self.opened_in_udp(now, entry, path, traffic_class, datagram, opened, run, out))
    }

    /// Whether a datagram that begins at `start` of the buffer that will come to `place` is to be delivered. What is not is counted.
    #[inline]
    fn is_kept(
        &self,
        now: u64,
        result: Result<Option<Range<usize>>, DropReason>,
        place: usize,
        start: usize,
        path: &Path,
        datagram: &[u8],
        out: &mut InboundBatch,
    ) -> bool {
        match result {
            Ok(Some(range)) => {
                out.deliver.push_part(place, start + range.start..start + range.end);
                true
            }
            Ok(None) => false,
            Err(reason) => {
                self.dropped_in_udp(now, reason, path, datagram, out);
                false
            }
        }
    }

    /// What passes is taken out of `received`.
    #[inline]
    fn inbound<'a>(
        &'a self,
        now: u64,
        received: &mut Received,
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) {
        if received.path.encap == Encap::Udp {
            return self.datagrams(now, received, run, out);
        }
        let Received { path, traffic_class, buf, .. } = received;
        let seen = run.listeners.clone().map(|listeners| {
            let before = listeners.before_inbound(path, buf, out);
            (listeners, before, buf.len())
        });
        let result = self.in_ip(now, path, buf, run, out);
        if let Some((listeners, before, len)) = seen {
            let came = Came { path, traffic_class: *traffic_class, len };
            listeners.after_inbound(self, &came, &before, result.map(|()| &buf[..]), out);
        }
        match result {
            Ok(()) => {
                out.deliver.exchange(buf);
                out.pool.replace_small(buf);
            }
            Err(reason) => {
                out.audits.dropped(reason, path);
                self.tell_refused(now, reason, out);
                self.shared.drops.count(reason);
            }
        }
    }

    /// Every datagram of a run, each opened where it lies.
    fn datagrams<'a>(
        &'a self,
        now: u64,
        received: &mut Received,
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) {
        let Received { path, traffic_class, buf, segment_len } = received;
        let (path, traffic_class) = (&*path, *traffic_class);
        let segment_len = segment_len.map_or(buf.len(), |len| len.get().into());
        let place = out.deliver.place();
        let (mut at, mut kept) = (0, false);
        for datagram in buf.chunks_mut(segment_len) {
            let start = at;
            at += datagram.len();
            let came = Came { path, traffic_class, len: datagram.len() };
            if let Some(result) = self.open_alike(now, path, traffic_class, datagram, run, out) {
                kept |= self.is_kept(now, result, place, start, path, datagram, out);
                continue;
            }
            let listeners = run.listeners.clone();
            let tell = |datagram: &[u8], verdict| {
                if let Some(listeners) = &listeners {
                    listeners.besides(&came, datagram, verdict);
                }
            };
            match natt::classify(datagram) {
                Ok(Datagram::Esp(_)) => {
                    let before = listeners
                        .as_ref()
                        .map(|listeners| listeners.before_inbound(path, datagram, out));
                    let result = self.in_udp(now, path, traffic_class, datagram, run, out);
                    if let (Some(listeners), Some(before)) = (&listeners, before) {
                        let opened = result.as_ref().map_err(|&reason| reason).map(|range| {
                            let alone = || out.deliver.last().unwrap_or_default();
                            range.clone().map_or_else(alone, |range| &datagram[range])
                        });
                        listeners.after_inbound(self, &came, &before, opened, out);
                    }
                    kept |= self.is_kept(now, result, place, start, path, datagram, out);
                }
                Ok(Datagram::Ike(message)) => {
                    tell(message, Verdict::Ike);
                    let mut buf = out.pool.take();
                    let _fits_as_it_came_from_such_a_buffer = buf.fill_from(message);
                    out.ike.push(IkeDatagram { path: *path, buf });
                }
                Ok(Datagram::Keepalive) => {
                    tell(datagram, Verdict::Keepalive);
                    self.shared.keepalives.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    tell(datagram, Verdict::Drop(DropReason::NattMalformed));
                    self.shared.drops.count(DropReason::NattMalformed);
                }
            }
        }
        if kept {
            out.deliver.keep(place, buf);
            out.pool.replace_small(buf);
        }
    }

    /// ESP, the data of a datagram. Where in it the packet to deliver is; `None` if it was delivered by itself.
    #[inline]
    fn in_udp<'a>(
        &'a self,
        now: u64,
        path: &Path,
        traffic_class: u8,
        datagram: &mut [u8],
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) -> Result<Option<Range<usize>>, DropReason> {
        // Most often it is that of the packet before.
        let entry = match run.esp_in_udp(datagram) {
            Some(entry) => entry,
            None => self.sa_of(now, Protocol::Esp, datagram, path, out)?,
        };
        let opened = run.of(entry).opening.open_in_place(datagram);
        self.opened_in_udp(now, entry, path, traffic_class, datagram, opened, run, out)
    }

    /// ESP, the data of a datagram that was opened, or not, under the SA of the run.
    #[expect(clippy::too_many_arguments, reason = "what is known of the packet so far")]
    #[inline(never)]
    fn opened_in_udp<'a>(
        &'a self,
        now: u64,
        entry: &'a InboundEntry,
        path: &Path,
        traffic_class: u8,
        datagram: &mut [u8],
        opened: Result<(Opened, Range<usize>), DropReason>,
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) -> Result<Option<Range<usize>>, DropReason> {
        run.lane = None;
        let (opened, range) = match opened {
            Ok((opened, range)) => (self.open(entry, Ok(opened), out)?, range),
            Err(reason) => (self.open(entry, Err(reason), out)?, 0..0),
        };
        let alive_interval = run.alive_interval;
        let current = run.of(entry);
        self.authenticated(now, alive_interval, entry, path, opened, out);
        match entry.sa.params().mode {
            Mode::Tunnel => {
                let packet = &mut datagram[range.clone()];
                let outer = Ecn::of(traffic_class);
                let next_header = opened.next_header;
                let len = self.decapsulate(
                    entry,
                    &mut current.flow,
                    outer,
                    next_header,
                    packet,
                    &mut out.refused,
                );
                let len = current.charge(len)?;
                let flow = current.flow;
                run.lane = flow.and_then(|flow| Lane::of(entry, path, flow, run));
                Ok(Some(range.start..range.start + len))
            }
            Mode::Transport => {
                let mut packet = out.pool.take();
                let restored = if packet.fill_from(&datagram[range]) {
                    let refused = &mut out.refused;
                    self.restore(entry, path, traffic_class, opened, &mut packet, refused)
                } else {
                    Err(DropReason::NoRoom)
                };
                match current.charge(restored.map(|()| packet.len())) {
                    Ok(_len) => {
                        out.deliver.exchange(&mut packet);
                        out.pool.put(packet);
                        Ok(None)
                    }
                    Err(reason) => {
                        out.pool.put(packet);
                        Err(reason)
                    }
                }
            }
        }
    }

    /// Counts ESP, the data of a datagram, that is not used.
    #[inline(never)]
    fn dropped_in_udp(
        &self,
        now: u64,
        reason: DropReason,
        path: &Path,
        datagram: &[u8],
        out: &mut InboundBatch,
    ) {
        out.audits.at(Protocol::Esp, datagram);
        out.audits.dropped(reason, path);
        self.tell_refused(now, reason, out);
        self.shared.drops.count(reason);
    }

    /// ESP or AH in an IP packet.
    fn in_ip<'a>(
        &'a self,
        now: u64,
        path: &Path,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) -> Result<(), DropReason> {
        let ip = IpPacket::new_checked(&packet[..]).map_err(|_| DropReason::OuterMalformed)?;
        let (len, outer) = (ip.total_len(), Ecn::of(ip.traffic_class()));
        packet.truncate(len);
        if let Some(place) = Place::of(packet, NextHeader::ESP) {
            out.audits.at(Protocol::Esp, &packet[place.at..]);
            let entry = self.sa_of(now, Protocol::Esp, &packet[place.at..], path, out)?;
            return self.esp(now, entry, path, outer, place, packet, run, out);
        }
        let place = Place::of(packet, NextHeader::AH).ok_or(DropReason::OuterMalformed)?;
        out.audits.at(Protocol::Ah, &packet[place.at..]);
        let entry = self.sa_of(now, Protocol::Ah, &packet[place.at..], path, out)?;
        let opened = self.open(entry, run.of(entry).opening.open_at(packet, place), out)?;
        if let Some(Bundle::Around(spi)) = entry.bundle {
            // AH is taken out, and what it was around stands where it stood.
            let inside = self.sad.inbound(spi).filter(|_| {
                opened.next_header == NextHeader::ESP && peek_spi(&packet[place.at..]) == Some(spi)
            });
            let inside = inside.ok_or(DropReason::BundleBroken);
            let inside = inside.inspect_err(|&reason| entry.sa.drops.count(reason))?;
            return self.esp(now, inside, path, outer, place, packet, run, out);
        }
        self.authenticated(now, run.alive_interval, entry, path, opened, out);
        let current = run.of(entry);
        let len = match entry.sa.params().mode {
            Mode::Tunnel => {
                let next_header = opened.next_header;
                let refused = &mut out.refused;
                self.decapsulate(entry, &mut current.flow, outer, next_header, packet, refused)
            }
            Mode::Transport => {
                self.check_transport(entry, packet, &mut out.refused).map(|inner| inner.len)
            }
        };
        packet.truncate(current.charge(len)?);
        Ok(())
    }

    /// ESP at its place in an IP packet.
    #[expect(clippy::too_many_arguments, reason = "what is known of the packet so far")]
    fn esp<'a>(
        &'a self,
        now: u64,
        entry: &'a InboundEntry,
        path: &Path,
        outer: Ecn,
        place: Place,
        packet: &mut PacketBuf,
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) -> Result<(), DropReason> {
        let mode = entry.sa.params().mode;
        let alive_interval = run.alive_interval;
        let current = run.of(entry);
        let opened = match mode {
            Mode::Tunnel => {
                packet.trim_front(place.at);
                current.opening.open(packet)
            }
            Mode::Transport => current.opening.open_at(packet, place),
        };
        let opened = self.open(entry, opened, out)?;
        self.authenticated(now, alive_interval, entry, path, opened, out);
        let len = match (mode, opened.next_header) {
            (Mode::Tunnel, next_header) => {
                let refused = &mut out.refused;
                self.decapsulate(entry, &mut current.flow, outer, next_header, packet, refused)
            }
            (Mode::Transport, NextHeader::NONE) => Err(DropReason::Dummy),
            (Mode::Transport, _) => {
                self.check_transport(entry, packet, &mut out.refused).map(|inner| inner.len)
            }
        };
        packet.truncate(current.charge(len)?);
        Ok(())
    }

    /// RFC 4301 §5.2, step 3: the SA with the SPI and the protocol of the packet.
    fn sa_of(
        &self,
        now: u64,
        protocol: Protocol,
        packet: &[u8],
        path: &Path,
        out: &mut InboundBatch,
    ) -> Result<&InboundEntry, DropReason> {
        let spi = match protocol {
            Protocol::Esp => peek_spi(packet).ok_or(DropReason::EspMalformed)?,
            Protocol::Ah => ah::peek_spi(packet).ok_or(DropReason::AhMalformed)?,
        };
        let entry = self.sad.inbound(spi);
        match entry.filter(|entry| entry.sa.params().suite.protocol() == protocol) {
            // Within its AH it is found by that.
            Some(InboundEntry { sa, bundle: Some(Bundle::Inside(_)), .. }) => {
                sa.drops.count(DropReason::BundleBroken);
                Err(DropReason::BundleBroken)
            }
            Some(entry) => Ok(entry),
            None => {
                // INVALID_SPI is not to be longer than what gave rise to it, for nobody knows who that was.
                if packet.len() >= super::INVALID_SPI_LEN && self.shared.may_report_no_sa(now, path)
                {
                    out.notices.push(Notice::NoSa { spi, path: *path });
                }
                Err(DropReason::NoInboundSa)
            }
        }
    }

    /// What IKE is told of a packet's being opened, or not. A pair is named by the SPI of its ESP, if it is a bundle.
    #[inline]
    fn open(
        &self,
        entry: &InboundEntry,
        opened: Result<Opened, DropReason>,
        out: &mut InboundBatch,
    ) -> Result<Opened, DropReason> {
        match opened {
            Ok(opened) if opened.limit == Limit::None => Ok(opened),
            opened => self.tell_opened(entry, opened, out),
        }
    }

    #[inline(never)]
    fn tell_opened(
        &self,
        entry: &InboundEntry,
        opened: Result<Opened, DropReason>,
        out: &mut InboundBatch,
    ) -> Result<Opened, DropReason> {
        let sa = &entry.sa;
        let spi = match entry.bundle {
            Some(Bundle::Around(esp)) => esp,
            Some(Bundle::Inside(_)) | None => sa.params().spi,
        };
        match opened {
            Ok(opened) => {
                if opened.limit == Limit::Soft {
                    out.notices.push(Notice::Expire { spi, hard: false });
                }
                Ok(opened)
            }
            Err(reason) => {
                let ended = reason == DropReason::LifetimeEnded;
                if ended && sa.usage().reached_hard() == Limit::Hard {
                    out.notices.push(Notice::Expire { spi, hard: true });
                }
                sa.drops.count(reason);
                Err(reason)
            }
        }
    }

    /// What a genuine packet, whatever is in it, tells IKE.
    #[inline]
    fn authenticated(
        &self,
        now: u64,
        alive_interval: u64,
        entry: &InboundEntry,
        path: &Path,
        opened: Opened,
        out: &mut InboundBatch,
    ) {
        let sa = &entry.sa;
        let spi = sa.params().spi;
        if sa.alive.due(now, alive_interval) {
            out.notices.push(Notice::Alive { spi });
        }
        // RFC 7296 §2.23: the address may be followed only by a packet that is no replay. One that was overtaken may
        // have left before the move.
        let checked = sa.params().replay_window > 0;
        // In transport mode the addresses are what is protected: another one is not of this SA.
        let may_move =
            sa.params().mode == Mode::Tunnel || entry.path.remote.ip() == path.remote.ip();
        if checked
            && may_move
            && opened.arrival == Arrival::Newest
            && has_moved(&entry.path, path)
            && sa.moved.due(now, MOVED_INTERVAL)
        {
            out.notices.push(Notice::PeerMoved { spi, path: *path });
        }
    }

    /// Tunnel mode: from what was protected to the packet that is delivered, which is as long as the result. `taken` is the
    /// flow of a packet before that the selectors of the SA take; `refused` gets that of one that does not pass.
    #[inline]
    fn decapsulate(
        &self,
        entry: &InboundEntry,
        taken: &mut Option<PlainFlow>,
        outer: Ecn,
        next_header: NextHeader,
        packet: &mut [u8],
        refused: &mut Option<Refused>,
    ) -> Result<usize, DropReason> {
        let is_ipv6 = match next_header {
            NextHeader::IPV4 => false,
            NextHeader::IPV6 => true,
            NextHeader::NONE => return Err(DropReason::Dummy),
            _ => return Err(DropReason::BadNextHeader),
        };
        let plain = Plain::of(packet).filter(|plain| plain.flow.is_ipv6 == is_ipv6);
        // RFC 4303 §2.7: traffic flow confidentiality padding follows the packet.
        let (len, traffic_class) = match plain {
            Some(plain)
                if *taken == Some(plain.flow)
                    && !(self.options.clamp_mss && plain.is_syn(packet)) =>
            {
                (plain.total_len, plain.traffic_class)
            }
            _ => {
                let inner = self.check_tunnel(entry, is_ipv6, packet, refused)?;
                *taken = plain.map(|plain| plain.flow);
                (inner.len, inner.traffic_class)
            }
        };
        let before = Ecn::of(traffic_class);
        let after = ecn::decapsulate(before, outer).inspect_err(|_| {
            *refused = Inner::parse(packet).map(|inner| Refused::new(entry, &inner, packet))
        })?;
        if after != before {
            set_ecn(&mut packet[..len], after);
        }
        Ok(len)
    }

    /// Tunnel mode: whether the packet is one that the SA may carry.
    #[inline(never)]
    fn check_tunnel(
        &self,
        entry: &InboundEntry,
        is_ipv6: bool,
        packet: &mut [u8],
        refused: &mut Option<Refused>,
    ) -> Result<Inner, DropReason> {
        let inner = Inner::parse(packet)
            .filter(|inner| inner.is_ipv6() == is_ipv6)
            .ok_or(DropReason::InboundMalformed)?;
        self.admit(entry, &inner, packet, refused)?;
        if self.options.clamp_mss {
            let least = if is_ipv6 { pmtu::IPV6_MIN_MTU } else { 0 };
            mss::clamp(&mut packet[..inner.len], &inner, entry.mtu.max(least));
        }
        Ok(inner)
    }

    /// RFC 4301 §5.2, step 4: whether a packet may come on this SA.
    fn admit(
        &self,
        entry: &InboundEntry,
        inner: &Inner,
        packet: &[u8],
        refused: &mut Option<Refused>,
    ) -> Result<(), DropReason> {
        let reason = if !admits(entry.sa.params(), &inner.flow) {
            DropReason::InboundSelectorMismatch
        } else if self.spd.discards_first(&inner.flow) {
            DropReason::PolicyDiscard
        } else {
            return Ok(());
        };
        *refused = Some(Refused::new(entry, inner, packet));
        Err(reason)
    }

    /// Transport mode: whether the packet, which has its IP header again, is one that the SA may carry.
    fn check_transport(
        &self,
        entry: &InboundEntry,
        packet: &mut PacketBuf,
        refused: &mut Option<Refused>,
    ) -> Result<Inner, DropReason> {
        let inner = Inner::parse(packet).ok_or(DropReason::InboundMalformed)?;
        packet.truncate(inner.len);
        if inner.fragment.is_some() {
            *refused = Some(Refused::new(entry, &inner, packet));
            return Err(DropReason::TransportFragment);
        }
        self.admit(entry, &inner, packet, refused)?;
        if self.options.clamp_mss {
            let least = if inner.is_ipv6() { pmtu::IPV6_MIN_MTU } else { 0 };
            mss::clamp(packet, &inner, entry.mtu.max(least));
        }
        Ok(inner)
    }

    /// Transport mode in UDP: gives the packet an IP header by where it came from, and mends what the addresses that a NAT
    /// has changed made wrong (RFC 3948 §3.1.2).
    fn restore(
        &self,
        entry: &InboundEntry,
        path: &Path,
        traffic_class: u8,
        opened: Opened,
        packet: &mut PacketBuf,
        refused: &mut Option<Refused>,
    ) -> Result<(), DropReason> {
        if opened.next_header == NextHeader::NONE {
            return Err(DropReason::Dummy);
        }
        let header = Outer {
            src: path.remote.ip(),
            dst: path.local.ip(),
            protocol: opened.next_header,
            traffic_class,
            dont_fragment: true,
            ident: 0,
        };
        header.put_before(packet).ok_or(DropReason::NoRoom)?;
        let inner = self.check_transport(entry, packet, refused)?;
        let (src, dst) = (inner.flow.src, inner.flow.dst);
        let Some(segment) = packet.get_mut(inner.transport..) else { return Ok(()) };
        match NextHeader(inner.flow.protocol) {
            NextHeader::TCP => {
                if let Ok(mut tcp) = TcpPacket::new_checked(segment) {
                    tcp.fill_checksum(src, dst);
                }
            }
            NextHeader::UDP => {
                if let Ok(mut udp) = UdpPacket::new_checked(segment)
                    && udp.checksum() != 0
                {
                    udp.fill_checksum(src, dst);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// RFC 4301 §5.2, step 4: whether an inbound SA may carry a packet.
pub(super) fn admits(params: &SaParams, flow: &Flow) -> bool {
    matches_pair(&params.ts_peer, &params.ts_local, flow)
}

/// Packets of a batch that follow each other under one SA.
struct Run<'a> {
    current: Option<Current<'a>>,
    /// Of `current`, while nobody listens.
    lane: Option<Lane>,
    /// Who is told of each packet; nearly always nobody.
    listeners: Option<Listeners>,
    /// Of the datapath's options, in milliseconds.
    alive_interval: u64,
}

/// A flow in ESP in UDP, in tunnel mode, of which a packet has just come: its peer is where it is known to be, and it has been
/// told that it lives, as often as it is to be.
struct Lane {
    spi: [u8; 4],
    path: Path,
    flow: PlainFlow,
    /// Of `flow`.
    next_header: NextHeader,
}

impl Lane {
    /// For the `flow` of the last packet of an SA, that of the run, which came on this path.
    fn of(entry: &InboundEntry, path: &Path, flow: PlainFlow, run: &Run<'_>) -> Option<Self> {
        let next_header = if flow.is_ipv6 { NextHeader::IPV6 } else { NextHeader::IPV4 };
        // Without an interval each packet is told of.
        let is_plain = run.listeners.is_none()
            && run.alive_interval > 0
            && entry.bundle.is_none()
            && path.encap == Encap::Udp
            && !has_moved(&entry.path, path);
        let spi = entry.sa.params().spi.to_be_bytes();
        is_plain.then_some(Self { spi, path: *path, flow, next_header })
    }
}

/// The SA of the packets at hand, and what they carried.
struct Current<'a> {
    entry: &'a InboundEntry,
    opening: Opening<'a>,
    /// The last flow that the selectors of the SA took.
    flow: Option<PlainFlow>,
    packets: usize,
    bytes: usize,
}

impl<'a> Run<'a> {
    /// The SA of the run, if it is what [`Datapath::sa_of`] would find for an ESP packet.
    #[inline]
    fn esp_in_udp(&self, datagram: &[u8]) -> Option<&'a InboundEntry> {
        let entry = self.current.as_ref()?.entry;
        let params = entry.sa.params();
        let is_it = entry.bundle.is_none()
            && params.suite.protocol() == Protocol::Esp
            && peek_spi(datagram) == Some(params.spi);
        is_it.then_some(entry)
    }

    /// The run of this SA; that of another is over.
    #[inline]
    fn of(&mut self, entry: &'a InboundEntry) -> &mut Current<'a> {
        if !self.current.as_ref().is_some_and(|current| core::ptr::eq(current.entry, entry)) {
            self.begin(entry);
        }
        self.current.as_mut().expect("it has begun")
    }

    #[inline(never)]
    fn begin(&mut self, entry: &'a InboundEntry) {
        // The window of that SA is let go before another is taken.
        self.current = None;
        self.lane = None;
        let opening = entry.sa.opening();
        self.current = Some(Current { entry, opening, flow: None, packets: 0, bytes: 0 });
    }
}

impl Current<'_> {
    /// Counts what is delivered, how long it is, or why it is not, under its SA.
    #[inline]
    fn charge(&mut self, delivered: Result<usize, DropReason>) -> Result<usize, DropReason> {
        match delivered {
            Ok(len) => {
                self.packets += 1;
                self.bytes += len;
            }
            Err(reason) => self.entry.sa.drops.count(reason),
        }
        delivered
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if self.packets > 0 {
            self.entry.traffic.count_inbound(self.packets, self.bytes);
        }
    }
}

/// Whether packets now come from elsewhere. A peer may use UDP or not as it likes (RFC 7296 §2.23); the port tells
/// something only between two UDP paths.
fn has_moved(known: &Path, now: &Path) -> bool {
    let both_udp = known.encap == Encap::Udp && now.encap == Encap::Udp;
    known.remote.ip() != now.remote.ip() || both_udp && known.remote.port() != now.remote.port()
}

/// Sets the ECN field, and mends the checksum of IPv4.
fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    match IpPacket::new_checked(packet) {
        Ok(IpPacket::V4(mut ip)) => ip.set_ecn(ecn.bits()),
        Ok(IpPacket::V6(mut ip)) => ip.set_ecn(ecn.bits()),
        Err(_) => {}
    }
}
