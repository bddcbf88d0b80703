//! From the TUNs to the sockets.

use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::super::deliver;
use super::super::duty::Direction;
use super::super::send::{send_bypassed, send_sealed};
use super::{MAX_PACKET, Queue, Shared, TunPort, is_idle};
use crate::datapath::{Datapath, Hold, OutboundBatch, Sealed};
use crate::io::clock;
use crate::io::sys::BATCH;
use crate::ipsec::{PacketBuf, Worker};
use crate::wire::vnet::VnetHeader;

/// How often it is looked whether packets that wait for an SA have grown too old.
const HOLD_CHECK: Duration = Duration::from_secs(1);

/// From the TUNs to the sockets.
pub(super) struct Outbound {
    shared: Arc<Shared>,
    queue: Queue,
    worker: Worker,
    /// The TUNs that it reads from.
    tuns: Arc<Vec<Arc<TunPort>>>,
    packets: Vec<PacketBuf>,
    headers: Vec<VnetHeader>,
    batch: OutboundBatch,
    hold: Hold,
    /// Whether `hold` has something, as the driver knows.
    waits: bool,
}

impl Outbound {
    pub(super) fn new(shared: Arc<Shared>, queue: Queue, worker: Worker) -> Self {
        Self {
            tuns: shared.tuns.load_full(),
            shared,
            queue,
            worker,
            packets: (0..BATCH).map(|_| PacketBuf::new(MAX_PACKET)).collect(),
            headers: Vec::with_capacity(BATCH),
            batch: OutboundBatch::new(MAX_PACKET),
            hold: Hold::of(worker),
            waits: false,
        }
    }

    /// One batch of one TUN.
    fn read(&mut self, now: Instant, tun: &TunPort) -> io::Result<()> {
        let Some(device) = tun.queue_of(self.worker) else { return Ok(()) };
        match device.recv(&mut self.packets, &mut self.headers) {
            Ok(()) => {}
            Err(error) if is_idle(&error) => return Ok(()),
            // EBADFD: the interface was deleted, by the driver (then it is not listed any more) or from outside.
            Err(_deleted) if !self.is_listed(tun) => return Ok(()),
            Err(error) => {
                return Err(io::Error::other(format!("{} cannot be read: {error}", device.name())));
            }
        }
        let datapath = self.shared.datapath.load();
        self.seal(now, &datapath, self.headers.len());
        self.send(now, &datapath, |_| Some(tun));
        Ok(())
    }

    /// Seals the first `count` packets, and sends what cannot wait for the others.
    fn seal(&mut self, now: Instant, datapath: &Datapath, count: usize) {
        let Self { shared, queue, worker, packets, headers, batch, .. } = self;
        let send = &mut |sealed: &[Sealed]| send_sealed(shared, queue, *worker, sealed);
        datapath.outbound_batch_of(*worker, now, &mut packets[..count], headers, batch, send);
    }

    /// Sends what was sealed, and keeps what has to wait. `tun_of` says where an ICMP message goes.
    fn send<'a>(
        &mut self,
        now: Instant,
        datapath: &Datapath,
        tun_of: impl Fn(&[u8]) -> Option<&'a TunPort>,
    ) {
        send_sealed(&self.shared, &self.queue, self.worker, &self.batch.sealed);
        self.batch.sent();
        send_bypassed(&self.shared, &self.batch.bypass);
        for reply in &self.batch.replies {
            if let Some(tun) = tun_of(reply) {
                let device = tun.way_in(self.worker);
                deliver::write(&self.shared.lost, &**device, &deliver::alone(reply));
            }
        }
        for waiting in &self.batch.waiting {
            self.hold.put(now, datapath, waiting.policy, &waiting.buf);
        }
        self.shared.audit(datapath, &mut self.batch.audits);
        self.queue.send_notices(&self.shared.lost, &mut self.batch.notices);
    }

    /// Sends what waited for an SA that is there, drops what waited in vain.
    fn release(&mut self) {
        let tuns = Arc::clone(&self.tuns);
        while !self.hold.is_empty() {
            let datapath = self.shared.datapath.load_full();
            for (policy, failed_at) in &**self.shared.failed.load() {
                self.hold.abandon(&datapath, *policy, *failed_at);
            }
            self.hold.expire(clock::now(), &datapath);
            let count = self.hold.take_ready(&datapath, &mut self.packets);
            if count == 0 {
                return;
            }
            let now = clock::now();
            self.headers.clear();
            self.headers.resize(count, VnetHeader::default());
            self.seal(now, &datapath, count);
            self.send(now, &datapath, |reply| deliver::tun_for(&tuns, reply).map(|tun| &**tun));
        }
    }

    /// The TUNs that have a queue for this worker.
    fn mine(&self) -> impl Iterator<Item = &Arc<TunPort>> {
        self.tuns.iter().filter(|tun| tun.queue_of(self.worker).is_some())
    }

    fn is_listed(&self, tun: &TunPort) -> bool {
        let tuns = self.shared.tuns.load();
        tuns.iter().any(|listed| Arc::ptr_eq(&listed.queues, &tun.queues))
    }
}

impl Direction for Outbound {
    fn sources(&self) -> SmallVec<[BorrowedFd<'_>; 8]> {
        self.mine().filter_map(|tun| Some(tun.queue_of(self.worker)?.as_fd())).collect()
    }

    fn is_stale(&self) -> bool {
        !Arc::ptr_eq(&self.tuns, &self.shared.tuns.load())
    }

    fn renew(&mut self) {
        self.tuns = self.shared.tuns.load_full();
    }

    /// How long there is nothing to do but what comes from a TUN: packets that wait grow old.
    fn patience(&mut self) -> Option<Duration> {
        let waits = !self.hold.is_empty();
        let known = core::mem::replace(&mut self.waits, waits);
        match (waits, known) {
            (true, false) => _ = self.shared.waiting.fetch_add(1, Ordering::Relaxed),
            (false, true) => _ = self.shared.waiting.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => {}
        }
        fence(Ordering::SeqCst);
        match (waits, known) {
            (false, _) => None,
            // Their SA may have come just before it was known that they wait.
            (true, false) => Some(Duration::ZERO),
            (true, true) => Some(HOLD_CHECK),
        }
    }

    /// What waited leaves first, so that packets leave in the order in which they came.
    fn begin(&mut self, _now: Instant) {
        self.release();
    }

    fn pass(&mut self, now: Instant, source: usize) -> io::Result<()> {
        let tun = self.mine().nth(source).map(Arc::clone);
        match tun {
            Some(tun) => self.read(now, &tun),
            None => Ok(()),
        }
    }
}
