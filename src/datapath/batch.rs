//! What goes into and comes out of the datapath in one call: batches whose memory is reused.
//!
//! Buffers change places: a packet that passes is moved into the result and an empty buffer takes its place, so that
//! the caller's slice is always ready to be read into, and nothing is allocated once a batch has seen its largest load.

use core::mem;
use core::net::{Ipv4Addr, SocketAddr};
use core::num::NonZeroU16;
use core::ops::{Deref, Index, Range};

use super::audit::Audits;
use super::refused::Refused;
use crate::ipsec::{DropReason, Encap, Notice, PacketBuf, Path, PolicyId, Turn};

/// A sealed packet, or a run of them.
#[derive(Debug)]
pub struct Sealed {
    /// What `form` says.
    pub buf: PacketBuf,
    /// In `buf` is one after the other, each so long but the last, which may be shorter. `None`: there is one.
    pub segment_len: Option<NonZeroU16>,
    /// From where to where, and whether in UDP.
    pub path: Path,
    /// What is there, and so what the socket has to add.
    pub form: Form,
}

impl Sealed {
    /// The packets.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.buf.chunks(self.segment_len.map_or(usize::MAX, |len| len.get().into()))
    }
}

/// What of a sealed packet is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The whole IP packet, no longer than the path takes as far as it is known: transport mode, and AH.
    Packet,
    /// ESP, from its header to its ICV. What goes before it on the wire, IP and UDP header, is the socket's.
    Payload {
        /// TOS or Traffic Class of the outer header.
        traffic_class: u8,
        /// Whether the outer packet must not be fragmented: DF for IPv4, no fragment header for IPv6.
        dont_fragment: bool,
    },
}

/// Sealed packets, in their order. Those of the batch before stay where they are until a packet takes the place of one, and
/// its buffer that of the packet.
#[derive(Debug, Default)]
pub struct SealedPackets {
    places: Vec<Sealed>,
    count: usize,
}

impl SealedPackets {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Sealed] {
        &self.places[..self.count]
    }

    /// Takes the packet, or the run of them, out of its buffer. What is in there then means nothing.
    #[inline]
    pub(super) fn exchange(
        &mut self,
        packet: &mut PacketBuf,
        segment_len: Option<NonZeroU16>,
        path: &Path,
        form: Form,
        pool: &mut Pool,
    ) {
        match self.places.get_mut(self.count) {
            Some(place) => {
                place.buf.swap(packet);
                (place.segment_len, place.path, place.form) = (segment_len, *path, form);
                pool.replace_small(packet);
            }
            None => self.push(packet, segment_len, path, form, pool),
        }
        self.count += 1;
    }

    #[cold]
    fn push(
        &mut self,
        packet: &mut PacketBuf,
        segment_len: Option<NonZeroU16>,
        path: &Path,
        form: Form,
        pool: &mut Pool,
    ) {
        let buf = pool.exchange(packet);
        self.places.push(Sealed { buf, segment_len, path: *path, form });
    }

    fn clear(&mut self) {
        self.places.truncate(Pool::MAX_FREE);
        self.count = 0;
    }
}

impl Deref for SealedPackets {
    type Target = [Sealed];

    fn deref(&self) -> &[Sealed] {
        self.as_slice()
    }
}

impl<'a> IntoIterator for &'a SealedPackets {
    type Item = &'a Sealed;
    type IntoIter = core::slice::Iter<'a, Sealed>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A packet whose policy has no outbound SA yet.
#[derive(Debug)]
pub struct Waiting {
    /// The policy.
    pub policy: PolicyId,
    /// The packet.
    pub buf: PacketBuf,
}

/// What became of a batch of packets from the TUN.
#[derive(Debug)]
pub struct OutboundBatch {
    /// To be sent, in this order.
    pub sealed: SealedPackets,
    /// ICMP messages to be written back into the TUN.
    pub replies: Vec<PacketBuf>,
    /// Packets that the SPD lets pass unprotected.
    pub bypass: Vec<PacketBuf>,
    /// What has to wait for an SA: for [`Hold`](super::Hold).
    pub waiting: Vec<Waiting>,
    /// For IKE.
    pub notices: Vec<Notice>,
    /// For the audit log.
    pub audits: Audits,
    /// Why the last packet that did not pass did not, for whoever listens, and for the peer.
    pub(super) refused: Option<DropReason>,
    /// Under the SAs of `sealed`, where there are several workers.
    pub(super) turns: Vec<Turn>,
    /// How many of this batch have been sent before it was done.
    pub(super) gone: usize,
    pub(super) pool: Pool,
}

/// A datagram from a UDP socket (`path.encap` is UDP) or a run of them, or a packet of protocol 50 or 51.
#[derive(Debug)]
pub struct Received {
    /// From where to where it came.
    pub path: Path,
    /// TOS or Traffic Class of a datagram's IP header. A packet's is looked for in the packet.
    pub traffic_class: u8,
    /// The data of the datagram, or the whole packet, from its IP header on. It is no fragment: those are put together
    /// before.
    pub buf: PacketBuf,
    /// In `buf` are several datagrams, each so long but the last, which may be shorter. `None`: there is one.
    pub segment_len: Option<NonZeroU16>,
}

impl Received {
    /// Nothing yet, from nowhere, and room for so many bytes.
    #[must_use]
    pub fn new(max_len: usize) -> Self {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let path = Path { local: nowhere, remote: nowhere, encap: Encap::Plain };
        Self { path, traffic_class: 0, buf: PacketBuf::new(max_len), segment_len: None }
    }
}

/// An IKE message that came to port 4500, its non-ESP marker taken away.
#[derive(Debug)]
pub struct IkeDatagram {
    /// From where to where it came.
    pub path: Path,
    /// The message.
    pub buf: PacketBuf,
}

/// What became of a batch of packets from the sockets.
#[derive(Debug)]
pub struct InboundBatch {
    /// To be written into the TUN, in this order.
    pub deliver: Delivered,
    /// For IKE, in this order.
    pub ike: Vec<IkeDatagram>,
    /// For IKE.
    pub notices: Vec<Notice>,
    /// For the audit log.
    pub audits: Audits,
    /// What was in the last packet that was genuine and still did not pass, for whoever listens, and for the peer.
    pub(super) refused: Option<Refused>,
    pub(super) pool: Pool,
}

/// Packets, each where it was opened.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Those of the batch before stay until others take their places.
    buffers: Vec<PacketBuf>,
    /// How many of them are of this batch.
    count: usize,
    packets: Vec<Lies>,
}

/// Where a packet lies.
#[derive(Clone, Debug)]
struct Lies {
    buffer: usize,
    range: Range<usize>,
}

impl Delivered {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The packets, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.packets.iter().map(|lies| &self.buffers[lies.buffer][lies.range.clone()])
    }

    /// The first of them.
    #[must_use]
    pub fn first(&self) -> Option<&[u8]> {
        self.iter().next()
    }

    /// The last of them.
    pub(super) fn last(&self) -> Option<&[u8]> {
        self.packets.last().map(|lies| &self.buffers[lies.buffer][lies.range.clone()])
    }

    /// One packet, which is all that is in its buffer. What is in there then means nothing.
    pub(crate) fn exchange(&mut self, buf: &mut PacketBuf) {
        let place = self.place();
        self.push_part(place, 0..buf.len());
        self.keep(place, buf);
    }

    /// The place of a buffer with several packets, which comes when they all have been opened, if one of them is kept.
    #[inline]
    pub(super) fn place(&mut self) -> usize {
        if self.count == self.buffers.len() {
            self.grow();
        }
        self.count += 1;
        self.count - 1
    }

    #[cold]
    fn grow(&mut self) {
        self.buffers.push(PacketBuf::default());
    }

    /// A packet in the buffer that will come to `place`.
    #[inline]
    pub(super) fn push_part(&mut self, place: usize, range: Range<usize>) {
        self.packets.push(Lies { buffer: place, range });
    }

    /// The buffer changes places with the one there. What is in that means nothing, and it may be a small one.
    #[inline]
    pub(super) fn keep(&mut self, place: usize, buf: &mut PacketBuf) {
        self.buffers[place].swap(buf);
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.buffers.truncate(Pool::MAX_FREE);
        self.count = 0;
    }
}

impl Index<usize> for Delivered {
    type Output = [u8];

    fn index(&self, index: usize) -> &[u8] {
        let lies = &self.packets[index];
        &self.buffers[lies.buffer][lies.range.clone()]
    }
}

impl OutboundBatch {
    /// An empty batch. `max_len`: of the longest packet, which should be that of the caller's buffers.
    #[must_use]
    pub fn new(max_len: usize) -> Self {
        Self {
            sealed: SealedPackets::default(),
            replies: Vec::new(),
            bypass: Vec::new(),
            waiting: Vec::new(),
            notices: Vec::new(),
            audits: Audits::default(),
            refused: None,
            turns: Vec::new(),
            gone: 0,
            pool: Pool::new(max_len),
        }
    }

    /// All that was sealed has been sent: it is forgotten, and other workers may send under the same SAs.
    pub fn sent(&mut self) {
        self.gone += self.sealed.len();
        self.sealed.clear();
        self.turns.clear();
    }

    /// Forgets the results and takes their buffers back. `outbound_batch` begins with it.
    pub fn clear(&mut self) {
        self.sent();
        self.gone = 0;
        let Self { replies, bypass, waiting, notices, audits, pool, .. } = self;
        while let Some(buf) = replies.pop().or_else(|| bypass.pop()) {
            pool.put(buf);
        }
        while let Some(waiting) = waiting.pop() {
            pool.put(waiting.buf);
        }
        notices.clear();
        audits.clear();
    }
}

impl InboundBatch {
    /// An empty batch. `max_len`: of the longest packet, which should be that of the caller's buffers.
    #[must_use]
    pub fn new(max_len: usize) -> Self {
        Self {
            deliver: Delivered::default(),
            ike: Vec::new(),
            notices: Vec::new(),
            audits: Audits::default(),
            refused: None,
            pool: Pool::new(max_len),
        }
    }

    /// Forgets the results and takes their buffers back. `inbound_batch` begins with it.
    pub fn clear(&mut self) {
        let Self { deliver, ike, notices, audits, refused: _, pool } = self;
        deliver.clear();
        while let Some(datagram) = ike.pop() {
            pool.put(datagram.buf);
        }
        notices.clear();
        audits.clear();
    }
}

/// Empty buffers.
#[derive(Debug)]
pub(super) struct Pool {
    max_len: usize,
    free: Vec<PacketBuf>,
}

impl Pool {
    /// More than a batch of the usual size needs; a larger load gives its memory back.
    const MAX_FREE: usize = 1024;

    const fn new(max_len: usize) -> Self {
        Self { max_len, free: Vec::new() }
    }

    /// An empty buffer.
    #[inline]
    pub(super) fn take(&mut self) -> PacketBuf {
        self.free.pop().unwrap_or_else(|| PacketBuf::new(self.max_len))
    }

    /// Takes a buffer back. One that is too small (the caller's own, of another size) is let go.
    #[inline]
    pub(super) fn put(&mut self, mut buf: PacketBuf) {
        if buf.max_len() >= self.max_len && self.free.len() < Self::MAX_FREE {
            buf.clear();
            self.free.push(buf);
        }
    }

    /// Another one for a buffer that is too small.
    #[inline]
    pub(super) fn replace_small(&mut self, buf: &mut PacketBuf) {
        if buf.max_len() < self.max_len {
            self.replace(buf);
        }
    }

    #[cold]
    fn replace(&mut self, buf: &mut PacketBuf) {
        *buf = self.take();
    }

    /// Takes the packet out of `buf` and leaves an empty buffer there.
    #[inline]
    pub(super) fn exchange(&mut self, buf: &mut PacketBuf) -> PacketBuf {
        mem::replace(buf, self.take())
    }
}
