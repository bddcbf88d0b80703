//! [`Tap`]: what became of each packet, for whoever wants to see it.
//!
//! The workers ask once a batch, by one relaxed load, whether anybody listens. While nobody does, that is the price. A
//! [`Tracer`] is called by the worker and must not wait: what it cannot take it leaves out and counts.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::{Form, InboundBatch, OutboundBatch, Sealed};
use super::decide::Decision;
use super::outer::Outer;
use super::{Datapath, DropReason, PacketBuf};
use crate::ipsec::esp::peek_spi;
use crate::ipsec::inner::Inner;
use crate::ipsec::mtu::header_len;
use crate::ipsec::{Encap, Flow, Path, Place, PolicyId, Spi, ah};
use crate::wire::ip::NextHeader;
use crate::wire::udp::UdpRepr;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the peer.
    Inbound,
    /// To the peer.
    Outbound,
}

impl Direction {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It passes unprotected.
    Bypass,
    /// It was opened and goes to the host.
    Deliver,
    /// It goes no further.
    Drop(DropReason),
    /// It is an IKE message on port 4500.
    Ike,
    /// It is a NAT keepalive.
    Keepalive,
    /// It leaves under an SA.
    Protect,
    /// It is a fragment that waits for the others (transport mode).
    Reassemble,
    /// It waits for an SA, which is asked for.
    Wait,
}

impl Verdict {
    /// The names of all.
    pub const NAMES: [&'static str; 8] =
        ["bypass", "deliver", "drop", "ike", "keepalive", "protect", "reassemble", "wait"];

    /// As it is written; a drop without its reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Deliver => "deliver",
            Self::Drop(_) => "drop",
            Self::Ike => "ike",
            Self::Keepalive => "keepalive",
            Self::Protect => "protect",
            Self::Reassemble => "reassemble",
            Self::Wait => "wait",
        }
    }

    /// Why it was dropped, if it was.
    #[must_use]
    pub const fn reason(self) -> Option<DropReason> {
        match self {
            Self::Drop(reason) => Some(reason),
            Self::Bypass
            | Self::Deliver
            | Self::Ike
            | Self::Keepalive
            | Self::Protect
            | Self::Reassemble
            | Self::Wait => None,
        }
    }
}

/// One packet, or a piece that the host handed over to be cut, and what became of it.
#[derive(Debug)]
pub struct Record<'a> {
    /// Which way it goes.
    pub direction: Direction,
    /// What became of it.
    pub verdict: Verdict,
    /// Its selector fields; of an inbound packet only once it is opened.
    pub flow: Option<Flow>,
    /// Length of the inner packet in bytes; 0 where there is none to be seen.
    pub len: usize,
    /// The policy that has to do with it.
    pub policy: Option<PolicyId>,
    /// The SPI in it, or of the SA that protects it; of a bundle that of ESP when it leaves, of AH when it comes.
    pub spi: Option<Spi>,
    /// The peer of that SA.
    pub peer: Option<Arc<str>>,
    /// Where it travels.
    pub path: Option<Path>,
    /// How many packets it is on the wire.
    pub packets: usize,
    /// Their length in bytes, from the outer IP header on, before the kernel fragments any.
    pub wire_len: usize,
    /// The inner packet, if a tracer [wants](Tracer::wants_packets) it and it is to be seen.
    pub inner: &'a [u8],
    /// The outer packets, likewise.
    pub outer: Wire<'a>,
}

/// Outer packets.
#[derive(Clone, Copy, Debug)]
pub enum Wire<'a> {
    /// None, or none that anybody wants.
    None,
    /// What came: a whole packet of protocol 50 or 51, or the data of a datagram.
    Received {
        /// From where to where.
        path: Path,
        /// TOS or Traffic Class of a datagram's IP header.
        traffic_class: u8,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// What leaves.
    Sealed(&'a [Sealed]),
}

impl Wire<'_> {
    /// Every packet, whole. Headers that a socket adds, or took away, are made here: they say what was asked for, or told,
    /// and identification, TTL and the like are ours.
    pub fn for_each(&self, mut with: impl FnMut(&[u8])) {
        match *self {
            Self::None => {}
            Self::Received { path, bytes, .. } if path.encap == Encap::Plain => with(bytes),
            Self::Received { path, traffic_class, bytes } => {
                let from_peer = Path { local: path.remote, remote: path.local, ..path };
                with_headers(&from_peer, traffic_class, true, bytes, &mut with);
            }
            Self::Sealed(all) => {
                for sealed in all {
                    for bytes in sealed.packets() {
                        match sealed.form {
                            Form::Packet => with(bytes),
                            Form::Payload { traffic_class, dont_fragment } => {
                                let path = &sealed.path;
                                with_headers(path, traffic_class, dont_fragment, bytes, &mut with);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What listens. Called by the workers for each packet.
pub trait Tracer: Send + Sync {
    /// A packet. Must return at once.
    fn take(&self, record: &Record<'_>);

    /// Whether it wants the packets themselves, not only what they are.
    fn wants_packets(&self) -> bool {
        false
    }
}

/// See the module.
#[derive(Default)]
pub struct Tap {
    on: AtomicBool,
    tracers: Mutex<Arc<[Arc<dyn Tracer>]>>,
}

impl Tap {
    /// Adds one that listens.
    pub fn add(&self, tracer: Arc<dyn Tracer>) {
        self.change(|tracers| tracers.push(tracer));
    }

    /// Removes it.
    pub fn remove(&self, tracer: &Arc<dyn Tracer>) {
        self.change(|tracers| tracers.retain(|other| !Arc::ptr_eq(other, tracer)));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<dyn Tracer>>)) {
        let mut tracers = self.tracers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = tracers.to_vec();
        change(&mut next);
        self.on.store(!next.is_empty(), Ordering::Relaxed);
        *tracers = next.into();
    }

    /// Those that listen, for a batch.
    #[inline]
    pub(super) fn listeners(&self) -> Option<Listeners> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let tracers = Arc::clone(&self.tracers.lock().unwrap_or_else(PoisonError::into_inner));
        let wants_packets = tracers.iter().any(|tracer| tracer.wants_packets());
        (!tracers.is_empty()).then_some(Listeners { tracers, wants_packets })
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("on", &self.on).finish_non_exhaustive()
    }
}

/// Those that listen while a batch is done.
#[derive(Clone)]
pub(super) struct Listeners {
    tracers: Arc<[Arc<dyn Tracer>]>,
    wants_packets: bool,
}

/// What an outbound packet was before anything was done to it, and where the batch stood.
pub(super) struct Before {
    inner: Option<Inner>,
    len: usize,
    bytes: Vec<u8>,
    sealed: usize,
    bypass: usize,
    waiting: usize,
}

impl Listeners {
    fn tell(&self, record: &Record<'_>) {
        for tracer in self.tracers.iter() {
            tracer.take(record);
        }
    }

    fn copy(&self, bytes: &[u8]) -> Vec<u8> {
        if self.wants_packets { bytes.to_vec() } else { Vec::new() }
    }

    pub(super) fn before_outbound(&self, packet: &[u8], out: &mut OutboundBatch) -> Before {
        out.refused = None;
        let inner = Inner::parse(packet);
        Before {
            inner,
            len: inner.map_or(packet.len(), |inner| inner.len),
            bytes: self.copy(packet),
            sealed: out.gone + out.sealed.len(),
            bypass: out.bypass.len(),
            waiting: out.waiting.len(),
        }
    }

    pub(super) fn after_outbound(
        &self,
        before: Before,
        decision: Option<Decision<'_>>,
        out: &OutboundBatch,
    ) {
        // What was sealed before it may have been sent meanwhile, but not what it became.
        let from = before.sealed.saturating_sub(out.gone);
        let sealed = out.sealed.get(from..).unwrap_or_default();
        let verdict = if !sealed.is_empty() {
            Verdict::Protect
        } else if out.bypass.len() > before.bypass {
            Verdict::Bypass
        } else if out.waiting.len() > before.waiting {
            Verdict::Wait
        } else {
            out.refused.map_or(Verdict::Reassemble, Verdict::Drop)
        };
        let (policy, entry) = match decision {
            Some(Decision::Protect(entry)) => (Some(entry.sa.params().policy), Some(entry)),
            Some(Decision::Acquire(policy)) => (Some(policy), None),
            Some(Decision::Drop(_, policy)) => (policy, None),
            Some(Decision::Bypass) | None => (None, None),
        };
        self.tell(&Record {
            direction: Direction::Outbound,
            verdict,
            flow: before.inner.map(|inner| inner.flow),
            len: before.len,
            policy,
            spi: entry.map(|entry| entry.sa.params().spi),
            peer: entry.map(|entry| Arc::clone(&entry.sa.params().peer)),
            path: entry.map(|entry| entry.path),
            packets: sealed.iter().map(|sealed| sealed.packets().count()).sum(),
            wire_len: sealed.iter().map(wire_len).sum(),
            inner: &before.bytes,
            outer: if self.wants_packets { Wire::Sealed(sealed) } else { Wire::None },
        });
    }

    /// An inbound packet, before it is opened where it lies.
    pub(super) fn before_inbound(
        &self,
        path: &Path,
        bytes: &[u8],
        out: &mut InboundBatch,
    ) -> (Vec<u8>, Option<Spi>) {
        out.refused = None;
        (self.copy(bytes), spi_of(path, bytes))
    }

    /// A packet that came, `bytes` long, and what became of it. `inner`: what is delivered.
    pub(super) fn after_inbound(
        &self,
        datapath: &Datapath,
        came: &Came<'_>,
        (before, spi): &(Vec<u8>, Option<Spi>),
        outcome: Result<&[u8], DropReason>,
        out: &InboundBatch,
    ) {
        let entry = spi.and_then(|spi| datapath.sad.inbound(spi));
        let inner = outcome.unwrap_or_default();
        let flow = Inner::parse(inner)
            .map(|inner| inner.flow)
            .or_else(|| out.refused.as_ref().map(|refused| refused.flow));
        let headers = match came.path.encap {
            Encap::Plain => 0,
            Encap::Udp => header_len(came.path.remote.is_ipv6()) + UdpRepr::LEN,
        };
        self.tell(&Record {
            direction: Direction::Inbound,
            verdict: match outcome {
                Ok(_) => Verdict::Deliver,
                Err(reason) => Verdict::Drop(reason),
            },
            flow,
            len: inner.len(),
            policy: entry.map(|entry| entry.sa.params().policy),
            spi: *spi,
            peer: entry.map(|entry| Arc::clone(&entry.sa.params().peer)),
            path: Some(*came.path),
            packets: 1,
            wire_len: came.len + headers,
            inner: if self.wants_packets { inner } else { &[] },
            outer: came.wire(self.wants_packets, before),
        });
    }

    /// What came to port 4500 and is no ESP.
    pub(super) fn besides(&self, came: &Came<'_>, bytes: &[u8], verdict: Verdict) {
        self.tell(&Record {
            direction: Direction::Inbound,
            verdict,
            flow: None,
            len: 0,
            policy: None,
            spi: None,
            peer: None,
            path: Some(*came.path),
            packets: 1,
            wire_len: came.len + header_len(came.path.remote.is_ipv6()) + UdpRepr::LEN,
            inner: &[],
            outer: came.wire(self.wants_packets, bytes),
        });
    }

    /// A packet that waited for an SA in vain.
    pub(super) fn gave_up(&self, reason: DropReason, policy: PolicyId, packet: &[u8]) {
        self.tell(&Record {
            direction: Direction::Outbound,
            verdict: Verdict::Drop(reason),
            flow: Inner::parse(packet).map(|inner| inner.flow),
            len: packet.len(),
            policy: Some(policy),
            spi: None,
            peer: None,
            path: None,
            packets: 0,
            wire_len: 0,
            inner: if self.wants_packets { packet } else { &[] },
            outer: Wire::None,
        });
    }
}

/// How a packet came.
pub(super) struct Came<'a> {
    pub(super) path: &'a Path,
    pub(super) traffic_class: u8,
    /// Its length as it came.
    pub(super) len: usize,
}

impl Came<'_> {
    fn wire<'b>(&self, wanted: bool, bytes: &'b [u8]) -> Wire<'b> {
        let (path, traffic_class) = (*self.path, self.traffic_class);
        if wanted { Wire::Received { path, traffic_class, bytes } } else { Wire::None }
    }
}

/// The SPI in what came: the data of a datagram, or a whole packet.
fn spi_of(path: &Path, bytes: &[u8]) -> Option<Spi> {
    if path.encap == Encap::Udp {
        return peek_spi(bytes);
    }
    if let Some(place) = Place::of(bytes, NextHeader::ESP) {
        return peek_spi(bytes.get(place.at..)?);
    }
    ah::peek_spi(bytes.get(Place::of(bytes, NextHeader::AH)?.at..)?)
}

/// Bytes on the wire, from the outer IP header on.
fn wire_len(sealed: &Sealed) -> usize {
    let headers = match (sealed.form, sealed.path.encap) {
        (Form::Packet, _) => 0,
        (Form::Payload { .. }, Encap::Plain) => header_len(sealed.path.remote.is_ipv6()),
        (Form::Payload { .. }, Encap::Udp) => {
            header_len(sealed.path.remote.is_ipv6()) + UdpRepr::LEN
        }
    };
    sealed.packets().map(|packet| packet.len() + headers).sum()
}

/// The packet that a socket makes of a payload.
fn with_headers(
    path: &Path,
    traffic_class: u8,
    dont_fragment: bool,
    payload: &[u8],
    with: &mut impl FnMut(&[u8]),
) {
    let mut packet = PacketBuf::copy_of(payload);
    let protocol = match path.encap {
        Encap::Plain => NextHeader::ESP,
        Encap::Udp => {
            let Ok(payload_len) = u16::try_from(payload.len()) else { return };
            let (src_port, dst_port) = (path.local.port(), path.remote.port());
            let header = UdpRepr { src_port, dst_port, payload_len }.emit();
            if !packet.push_front(header.len()) {
                return;
            }
            packet[..header.len()].copy_from_slice(&header);
            NextHeader::UDP
        }
    };
    let (src, dst) = (path.local.ip(), path.remote.ip());
    let outer = Outer { src, dst, protocol, traffic_class, dont_fragment, ident: 0 };
    if outer.put_before(&mut packet).is_some() {
        with(&packet);
    }
}
