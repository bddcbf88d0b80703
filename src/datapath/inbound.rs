//! From the socket to the TUN (RFC 4301 §5.2), in the order in which a packet meets the steps.

use core::mem;
use core::sync::atomic::Ordering;
use std::time::Instant;

use crate::ipsec::esp::{Opened, peek_spi};
use crate::ipsec::inner::Inner;
use crate::ipsec::lifetime::Limit;
use crate::ipsec::replay::Arrival;
use crate::ipsec::sad::InboundEntry;
use crate::ipsec::selector::matches_pair;
use crate::ipsec::{DropReason, Encap, Notice, PacketBuf, Path};
use crate::wire::ip::{IpPacket, NextHeader};
use crate::wire::natt::{self, Datagram};

use super::batch::{IkeDatagram, InboundBatch, Received};
use super::ecn::{self, Ecn};
use super::{Datapath, MOVED_INTERVAL, mss, pmtu};

impl Datapath {
    /// Packets from the sockets: those of port 4500 and those of protocol 50. `out` is cleared first. Every buffer of
    /// `received` comes back empty; those that are empty when they come are passed over.
    pub fn inbound_batch(&self, now: Instant, received: &mut [Received], out: &mut InboundBatch) {
        out.clear();
        let now = self.millis(now);
        for received in received.iter_mut().filter(|received| !received.buf.is_empty()) {
            self.inbound(now, received, out);
            received.buf.clear();
        }
    }

    /// What passes is taken out of `received`.
    fn inbound(&self, now: u64, received: &mut Received, out: &mut InboundBatch) {
        let Received { path, ecn, buf } = received;
        let datagram = match path.encap {
            Encap::Udp => natt::classify(buf),
            Encap::Plain => Ok(Datagram::Esp(buf)),
        };
        match datagram {
            Ok(Datagram::Esp(_)) => {
                if let Err(reason) = self.esp(now, *path, *ecn, buf, out) {
                    self.shared.drops.count(reason);
                }
            }
            Ok(Datagram::Ike(_)) => {
                buf.trim_front(natt::NON_ESP_MARKER.len());
                out.ike.push(IkeDatagram { path: *path, buf: out.pool.exchange(buf) });
            }
            Ok(Datagram::Keepalive) => {
                self.shared.keepalives.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => self.shared.drops.count(DropReason::NattMalformed),
        }
    }

    fn esp(
        &self,
        now: u64,
        path: Path,
        outer: Ecn,
        packet: &mut PacketBuf,
        out: &mut InboundBatch,
    ) -> Result<(), DropReason> {
        let spi = peek_spi(packet).ok_or(DropReason::EspMalformed)?;
        let Some(entry) = self.sad.inbound(spi) else {
            if self.shared.may_report_no_sa(now, &path) {
                out.notices.push(Notice::NoSa { spi, path });
            }
            return Err(DropReason::NoInboundSa);
        };
        let opened = match entry.sa.open(packet) {
            Ok(opened) => opened,
            Err(reason) => {
                let ended = reason == DropReason::LifetimeEnded;
                if ended && entry.sa.usage().reached_hard() == Limit::Hard {
                    out.notices.push(Notice::Expire { spi, hard: true });
                }
                entry.sa.drops.count(reason);
                return Err(reason);
            }
        };
        self.authenticated(now, entry, &path, opened, out);
        self.decapsulate(entry, outer, opened.next_header, packet)
            .inspect_err(|&reason| entry.sa.drops.count(reason))?;
        entry.traffic.count_inbound(packet.len());
        let spare = out.pool.take();
        out.deliver.push(mem::replace(packet, spare));
        Ok(())
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
        if opened.limit == Limit::Soft {
            out.notices.push(Notice::Expire { spi, hard: false });
        }
        if sa.alive.due(now, self.alive_interval()) {
            out.notices.push(Notice::Alive { spi });
        }
        // RFC 7296 §2.23: the address may be followed only by a packet that is no replay. One that was overtaken may
        // have left before the move.
        let checked = sa.params().replay_window > 0;
        if checked
            && opened.arrival == Arrival::Newest
            && has_moved(&entry.path, path)
            && sa.moved.due(now, MOVED_INTERVAL)
        {
            out.notices.push(Notice::PeerMoved { spi, path: *path });
        }
    }

    /// From the payload of ESP to the packet that is delivered.
    fn decapsulate(
        &self,
        entry: &InboundEntry,
        outer: Ecn,
        next_header: NextHeader,
        packet: &mut PacketBuf,
    ) -> Result<(), DropReason> {
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
        packet.truncate(inner.len);
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
        Ok(())
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
