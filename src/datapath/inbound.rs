//! From the socket to the TUN (RFC 4301 §5.2), in the order in which a packet meets the steps.

use core::mem;
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
use crate::ipsec::{DropReason, Encap, Mode, Notice, PacketBuf, Path, Place, Protocol};
use crate::wire::ip::{IpPacket, NextHeader};
use crate::wire::natt::{self, Datagram};
use crate::wire::tcp::TcpPacket;
use crate::wire::udp::UdpPacket;

use super::batch::{IkeDatagram, InboundBatch, Received};
use super::ecn::{self, Ecn};
use super::outer::Outer;
use super::{Datapath, MOVED_INTERVAL, mss, pmtu};

impl Datapath {
    /// Packets from the sockets: those of port 4500 and those of protocols 50 and 51. `out` is cleared first. Every buffer
    /// of `received` comes back empty; those that are empty when they come are passed over.
    pub fn inbound_batch(&self, now: Instant, received: &mut [Received], out: &mut InboundBatch) {
        out.clear();
        let now = self.millis(now);
        let mut run = Run::default();
        for received in received.iter_mut().filter(|received| !received.buf.is_empty()) {
            self.inbound(now, received, &mut run, out);
            received.buf.clear();
        }
    }

    /// What passes is taken out of `received`.
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
        let Received { path, buf, .. } = received;
        match self.in_ip(now, path, buf, run, out) {
            Ok(()) => {
                let spare = out.pool.take();
                out.deliver.push(mem::replace(buf, spare));
            }
            Err(reason) => {
                out.audits.dropped(reason, path);
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
        let Received { path, traffic_class, ref mut buf, segment_len } = *received;
        let mut piece = out.pool.exchange(buf);
        let segment_len = segment_len.map_or(piece.len(), |len| len.get().into());
        let place = out.deliver.place();
        let (mut at, mut kept) = (0, false);
        for datagram in piece.chunks_mut(segment_len) {
            let start = at;
            at += datagram.len();
            match natt::classify(datagram) {
                Ok(Datagram::Esp(_)) => {
                    match self.in_udp(now, &path, traffic_class, datagram, run, out) {
                        Ok(Some(range)) => {
                            let range = start + range.start..start + range.end;
                            out.deliver.push_part(place, range);
                            kept = true;
                        }
                        Ok(None) => {}
                        Err(reason) => {
                            out.audits.at(Protocol::Esp, datagram);
                            out.audits.dropped(reason, &path);
                            self.shared.drops.count(reason);
                        }
                    }
                }
                Ok(Datagram::Ike(message)) => {
                    let mut buf = out.pool.take();
                    let _fits_as_it_came_from_such_a_buffer = buf.fill_from(message);
                    out.ike.push(IkeDatagram { path, buf });
                }
                Ok(Datagram::Keepalive) => {
                    self.shared.keepalives.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => self.shared.drops.count(DropReason::NattMalformed),
            }
        }
        if kept {
            out.deliver.keep(place, piece);
        } else {
            out.pool.put(piece);
        }
    }

    /// ESP, the data of a datagram. Where in it the packet to deliver is; `None` if it was delivered by itself.
    fn in_udp<'a>(
        &'a self,
        now: u64,
        path: &Path,
        traffic_class: u8,
        datagram: &mut [u8],
        run: &mut Run<'a>,
        out: &mut InboundBatch,
    ) -> Result<Option<Range<usize>>, DropReason> {
        let entry = self.sa_of(now, Protocol::Esp, datagram, path, out)?;
        let current = run.of(entry);
        let (opened, range) = match current.opening.open_in_place(datagram) {
            Ok((opened, range)) => (self.open(entry, Ok(opened), out)?, range),
            Err(reason) => (self.open(entry, Err(reason), out)?, 0..0),
        };
        self.authenticated(now, entry, path, opened, out);
        match entry.sa.params().mode {
            Mode::Tunnel => {
                let packet = &mut datagram[range.clone()];
                let outer = Ecn::of(traffic_class);
                let len = self.decapsulate(entry, outer, opened.next_header, packet);
                let len = current.charge(len)?;
                Ok(Some(range.start..range.start + len))
            }
            Mode::Transport => {
                let mut packet = out.pool.take();
                let restored = if packet.fill_from(&datagram[range]) {
                    self.restore(entry, path, traffic_class, opened, &mut packet)
                } else {
                    Err(DropReason::NoRoom)
                };
                match current.charge(restored.map(|()| packet.len())) {
                    Ok(_len) => out.deliver.push(packet),
                    Err(reason) => {
                        out.pool.put(packet);
                        return Err(reason);
                    }
                }
                Ok(None)
            }
        }
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
        self.authenticated(now, entry, path, opened, out);
        let len = match entry.sa.params().mode {
            Mode::Tunnel => self.decapsulate(entry, outer, opened.next_header, packet),
            Mode::Transport => self.check_transport(entry, packet).map(|inner| inner.len),
        };
        packet.truncate(run.of(entry).charge(len)?);
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
        let current = run.of(entry);
        let opened = match mode {
            Mode::Tunnel => {
                packet.trim_front(place.at);
                current.opening.open(packet)
            }
            Mode::Transport => current.opening.open_at(packet, place),
        };
        let opened = self.open(entry, opened, out)?;
        self.authenticated(now, entry, path, opened, out);
        let len = match (mode, opened.next_header) {
            (Mode::Tunnel, next_header) => self.decapsulate(entry, outer, next_header, packet),
            (Mode::Transport, NextHeader::NONE) => Err(DropReason::Dummy),
            (Mode::Transport, _) => self.check_transport(entry, packet).map(|inner| inner.len),
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
    fn open(
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
    fn authenticated(
        &self,
        now: u64,
        entry: &InboundEntry,
        path: &Path,
        opened: Opened,
        out: &mut InboundBatch,
    ) {
        let sa = &entry.sa;
        let spi = sa.params().spi;
        if sa.alive.due(now, self.alive_interval()) {
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

    /// Tunnel mode: from what was protected to the packet that is delivered, which is as long as the result.
    fn decapsulate(
        &self,
        entry: &InboundEntry,
        outer: Ecn,
        next_header: NextHeader,
        packet: &mut [u8],
    ) -> Result<usize, DropReason> {
        let is_ipv6 = match next_header {
            NextHeader::IPV4 => false,
            NextHeader::IPV6 => true,
            NextHeader::NONE => return Err(DropReason::Dummy),
            _ => return Err(DropReason::BadNextHeader),
        };
        let inner = Inner::parse(packet)
            .filter(|inner| inner.is_ipv6() == is_ipv6)
            .ok_or(DropReason::InboundMalformed)?;
        // RFC 4303 §2.7: traffic flow confidentiality padding follows the packet.
        let packet = &mut packet[..inner.len];
        // RFC 4301 §5.2, step 4.
        let params = entry.sa.params();
        if !matches_pair(&params.ts_peer, &params.ts_local, &inner.flow) {
            return Err(DropReason::InboundSelectorMismatch);
        }
        let before = Ecn::of(inner.traffic_class);
        let after = ecn::decapsulate(before, outer)?;
        if after != before {
            set_ecn(packet, after);
        }
        if self.options.clamp_mss {
            let least = if is_ipv6 { pmtu::IPV6_MIN_MTU } else { 0 };
            mss::clamp(packet, &inner, entry.mtu.max(least));
        }
        Ok(inner.len)
    }

    /// Transport mode: whether the packet, which has its IP header again, is one that the SA may carry.
    fn check_transport(
        &self,
        entry: &InboundEntry,
        packet: &mut PacketBuf,
    ) -> Result<Inner, DropReason> {
        let inner = Inner::parse(packet).ok_or(DropReason::InboundMalformed)?;
        packet.truncate(inner.len);
        if inner.fragment.is_some() {
            return Err(DropReason::TransportFragment);
        }
        // RFC 4301 §5.2, step 4.
        let params = entry.sa.params();
        if !matches_pair(&params.ts_peer, &params.ts_local, &inner.flow) {
            return Err(DropReason::InboundSelectorMismatch);
        }
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
        let inner = self.check_transport(entry, packet)?;
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

/// Packets of a batch that follow each other under one SA.
#[derive(Default)]
struct Run<'a>(Option<Current<'a>>);

/// The SA of the packets at hand, and what they carried.
struct Current<'a> {
    entry: &'a InboundEntry,
    opening: Opening<'a>,
    packets: usize,
    bytes: usize,
}

impl<'a> Run<'a> {
    /// The run of this SA; that of another is over.
    #[inline]
    fn of(&mut self, entry: &'a InboundEntry) -> &mut Current<'a> {
        self.0.take_if(|current| !core::ptr::eq(current.entry, entry));
        self.0.get_or_insert_with(|| Current {
            entry,
            opening: entry.sa.opening(),
            packets: 0,
            bytes: 0,
        })
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
