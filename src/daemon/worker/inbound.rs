//! From the sockets to the TUNs.

use core::sync::atomic::Ordering;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::super::deliver;
use super::super::duty::Direction;
use super::super::sockets::{NATT_PORT, Sockets, describe};
use super::{MAX_PACKET, Queue, Shared, is_idle};
use crate::datapath::coalesce::Coalescer;
use crate::datapath::{InboundBatch, Received};
use crate::io::raw::{self, Chain};
use crate::io::sys::{self, BATCH, FEW};
use crate::io::udp::Socket;
use crate::ipsec::{Encap, Worker};
use crate::wire::ip::NextHeader;

/// From the sockets to the TUNs.
pub(super) struct Inbound {
    shared: Arc<Shared>,
    queue: Queue,
    worker: Worker,
    sources: Vec<Source>,
    received: Vec<Received>,
    meta: Vec<sys::Received>,
    chains: Vec<Chain>,
    batch: InboundBatch,
    coalescer: Coalescer,
    /// How many datagrams are asked for: few until there are many, so that one packet after some silence touches little
    /// memory.
    ask_for: usize,
}

/// A socket that receives for a worker.
#[derive(Clone, Copy)]
struct Source {
    v6: bool,
    kind: Kind,
}

/// What comes from a socket.
#[derive(Clone, Copy)]
enum Kind {
    /// What is not IKE from port 4500.
    Udp,
    /// Whole packets of protocol 50.
    Esp,
    /// Whole packets of protocol 51.
    Ah,
}

impl Inbound {
    pub(super) fn new(shared: Arc<Shared>, queue: Queue, worker: Worker) -> Self {
        Self {
            sources: sources(&shared.sockets, worker),
            shared,
            queue,
            worker,
            received: (0..BATCH).map(|_| Received::new(MAX_PACKET)).collect(),
            meta: Vec::with_capacity(BATCH),
            chains: vec![Chain::default(); BATCH],
            batch: InboundBatch::new(MAX_PACKET),
            coalescer: Coalescer::new(),
            ask_for: FEW,
        }
    }

    /// One batch of one socket.
    fn read(&mut self, now: Instant, source: Source) -> io::Result<()> {
        let Self { shared, received, meta, chains, batch, ask_for, .. } = self;
        let Some(socket) = source.socket(&shared.sockets, self.worker) else { return Ok(()) };
        let asked_for = *ask_for;
        let spaces = received.iter_mut().take(asked_for).map(|one| one.buf.space_mut());
        let mut buffers: SmallVec<[_; FEW]> = spaces.map(IoSliceMut::new).collect();
        let result = match source.protocol() {
            Some(_) => raw::recv(socket, &mut buffers, meta, chains),
            None => socket.recv(&mut buffers, meta),
        };
        drop(buffers);
        match result {
            Ok(()) => {}
            Err(error) if is_idle(&error) => return Ok(()),
            // What a socket reports of others' packets (ICMP) is cleared by reporting it.
            Err(error) if is_passing(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let (port, encap) = match source.protocol() {
            Some(_) => (0, Encap::Plain),
            None => (NATT_PORT, Encap::Udp),
        };
        for ((one, meta), chain) in received.iter_mut().zip(&*meta).zip(&*chains) {
            describe(one, meta, port, encap);
            if let Some(protocol) = source.protocol()
                && source.v6
                && !chain.put_before(&mut one.buf, meta, protocol)
            {
                shared.lost.headers.fetch_add(1, Ordering::Relaxed);
                one.buf.clear();
            }
        }
        let count = meta.len();
        *ask_for = if count == asked_for {
            BATCH
        } else if count <= FEW {
            FEW
        } else {
            asked_for
        };
        let datapath = shared.datapath.load();
        datapath.inbound_batch(now, &mut received[..count], batch);
        shared.audit(&datapath, &mut batch.audits);
        let tuns = shared.tuns.load();
        deliver::deliver(&shared.lost, &tuns, self.worker, &batch.deliver, &mut self.coalescer);
        self.queue.send_notices(&shared.lost, &mut batch.notices);
        Ok(())
    }
}

impl Direction for Inbound {
    fn sources(&self) -> SmallVec<[BorrowedFd<'_>; 8]> {
        let sockets = &self.shared.sockets;
        let sockets = self.sources.iter().filter_map(|it| it.socket(sockets, self.worker));
        sockets.map(Socket::as_fd).collect()
    }

    fn pass(&mut self, now: Instant, source: usize) -> io::Result<()> {
        match self.sources.get(source) {
            Some(source) => self.read(now, *source),
            None => Ok(()),
        }
    }
}

/// The sockets that receive for a worker, always in this order.
fn sources(sockets: &Sockets, worker: Worker) -> Vec<Source> {
    let kinds = [Kind::Udp, Kind::Esp, Kind::Ah];
    let all = [false, true].into_iter().flat_map(|v6| kinds.map(|kind| Source { v6, kind }));
    all.filter(|source| source.socket(sockets, worker).is_some()).collect()
}

impl Source {
    /// `None`: the host has none, or it is not this worker's.
    fn socket(self, sockets: &Sockets, worker: Worker) -> Option<&Socket> {
        let family = if self.v6 { sockets.v6.as_ref()? } else { &sockets.v4 };
        match self.kind {
            Kind::Udp => Some(family.natt.main(worker)),
            Kind::Esp => Some(family.esp.main(worker)),
            Kind::Ah => family.ah.get(usize::from(worker.index())),
        }
    }

    /// That of a raw socket.
    const fn protocol(self) -> Option<NextHeader> {
        match self.kind {
            Kind::Udp => None,
            Kind::Esp => Some(NextHeader::ESP),
            Kind::Ah => Some(NextHeader::AH),
        }
    }
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
