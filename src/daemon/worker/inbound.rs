//! From the sockets to the TUNs.

use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::super::deliver;
use super::super::duty::Direction;
use super::super::sockets::{NATT_PORT, Sockets, path_of};
use super::{FromWorker, MAX_PACKET, Queue, Shared, is_idle};
use crate::datapath::coalesce::Coalescer;
use crate::datapath::{InboundBatch, Received};
use crate::io::raw::{self, Chain};
use crate::io::sys::{self, BATCH, FEW};
use crate::io::udp::Socket;
use crate::ipsec::{Encap, PacketBuf, Path, Worker};
use crate::wire::ip::NextHeader;

/// From the sockets to the TUNs.
pub(super) struct Inbound {
    shared: Arc<Shared>,
    queue: Queue,
    worker: Worker,
    received: Vec<Received>,
    meta: Vec<sys::Received>,
    chains: Vec<Chain>,
    batch: InboundBatch,
    coalescer: Coalescer,
    /// How many datagrams are asked for: few until there are many, so that one packet after some silence touches little
    /// memory.
    ask_for: usize,
}

/// A socket that receives, and what comes from it.
#[derive(Clone, Copy)]
struct Source<'a> {
    socket: &'a Socket,
    /// The protocol of a raw socket.
    raw: Option<NextHeader>,
}

impl Inbound {
    pub(super) fn new(shared: Arc<Shared>, queue: Queue, worker: Worker) -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0);
        let path = Path { local: nowhere, remote: nowhere, encap: Encap::Plain };
        let buf = || PacketBuf::new(MAX_PACKET);
        let empty = || Received { path, traffic_class: 0, buf: buf(), segment_len: None };
        Self {
            shared,
            queue,
            worker,
            received: (0..BATCH).map(|_| empty()).collect(),
            meta: Vec::with_capacity(BATCH),
            chains: vec![Chain::default(); BATCH],
            batch: InboundBatch::new(MAX_PACKET),
            coalescer: Coalescer::new(),
            ask_for: FEW,
        }
    }

    /// One batch of one socket.
    fn read(&mut self, now: Instant, source: Source<'_>) -> io::Result<()> {
        let asked_for = self.ask_for;
        let spaces = self.received.iter_mut().take(asked_for).map(|one| one.buf.space_mut());
        let mut buffers: SmallVec<[_; FEW]> = spaces.map(IoSliceMut::new).collect();
        let result = match source.raw {
            Some(_) => raw::recv(source.socket, &mut buffers, &mut self.meta, &mut self.chains),
            None => source.socket.recv(&mut buffers, &mut self.meta),
        };
        drop(buffers);
        match result {
            Ok(()) => {}
            Err(error) if is_idle(&error) => return Ok(()),
            // What a socket reports of others' packets (ICMP) is cleared by reporting it.
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let (port, encap) = match source.raw {
            Some(_) => (0, Encap::Plain),
            None => (NATT_PORT, Encap::Udp),
        };
        for ((one, meta), chain) in self.received.iter_mut().zip(&self.meta).zip(&self.chains) {
            one.buf.set_len(meta.len);
            one.path = path_of(meta, port, encap);
            one.traffic_class = meta.tos;
            one.segment_len = meta.segment_len;
            if let Some(protocol) = source.raw
                && source.socket.is_v6()
                && !chain.put_before(&mut one.buf, meta, protocol)
            {
                self.shared.lost.headers.fetch_add(1, Ordering::Relaxed);
                one.buf.clear();
            }
        }
        let count = self.meta.len();
        self.ask_for = if count == asked_for {
            BATCH
        } else if count <= FEW {
            FEW
        } else {
            asked_for
        };
        let datapath = self.shared.datapath.load();
        datapath.inbound_batch(now, &mut self.received[..count], &mut self.batch);
        self.shared.audit(&datapath, &mut self.batch.audits);
        let tuns = self.shared.tuns.load();
        let packets = &self.batch.deliver;
        deliver::deliver(&self.shared.lost, &tuns, self.worker, packets, &mut self.coalescer);
        for datagram in self.batch.ike.drain(..) {
            let message = datagram.buf.to_vec();
            self.queue.send(&self.shared.lost, FromWorker::Ike { path: datagram.path, message });
        }
        self.queue.send_notices(&self.shared.lost, &mut self.batch.notices);
        Ok(())
    }
}

impl Direction for Inbound {
    fn sources(&self) -> SmallVec<[BorrowedFd<'_>; 8]> {
        let sources = sources(&self.shared.sockets, self.worker);
        sources.map(|source| source.socket.as_fd()).collect()
    }

    fn pass(&mut self, now: Instant, source: usize) -> io::Result<()> {
        let sockets = Arc::clone(&self.shared.sockets);
        match sources(&sockets, self.worker).nth(source) {
            Some(source) => self.read(now, source),
            None => Ok(()),
        }
    }
}

/// The sockets that receive for a worker, always in this order: IKE, which may be waited for, comes first, and to the first worker.
fn sources(sockets: &Sockets, worker: Worker) -> impl Iterator<Item = Source<'_>> {
    [Some(&sockets.v4), sockets.v6.as_ref()].into_iter().flatten().flat_map(move |family| {
        let ike = (worker.index() == 0).then(|| Source { socket: family.natt.ike(), raw: None });
        let ah = family.ah.get(usize::from(worker.index()));
        let ah = ah.map(|socket| Source { socket, raw: Some(NextHeader::AH) });
        let esp = [
            Source { socket: family.natt.main(worker), raw: None },
            Source { socket: family.esp.main(worker), raw: Some(NextHeader::ESP) },
        ];
        ike.into_iter().chain(esp).chain(ah)
    })
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EMSGSIZE
                | libc::ENETDOWN
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EPROTO
        )
    )
}
