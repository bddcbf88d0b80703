//! From the TUNs to the sockets.

use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::super::deliver;
use super::super::duty::Direction;
use super::super::send::{send_bypassed, send_sealed};
use super::{MAX_PACKET, Queue, Shared, TunPort, is_idle};
use crate::datapath::{Datapath, Hold, OutboundBatch};
use crate::io::clock;
use crate::io::sys::BATCH;
use crate::ipsec::PacketBuf;
use crate::wire::vnet::VnetHeader;

/// How often it is looked whether packets that wait for an SA have grown too old.
const HOLD_CHECK: Duration = Duration::from_secs(1);

/// From the TUNs to the sockets.
pub(super) struct Outbound {
    shared: Arc<Shared>,
    queue: Queue,
    /// The TUNs that it reads from.
    tuns: Arc<Vec<Arc<TunPort>>>,
    packets: Vec<PacketBuf>,
    headers: Vec<VnetHeader>,
    batch: OutboundBatch,
    hold: Hold,
    /// How many packets are asked for: one until there are more, so that a packet by itself costs no second read, which would
    /// only say that there is nothing.
    ask_for: usize,
}

impl Outbound {
    pub(super) fn new(shared: Arc<Shared>, queue: Queue) -> Self {
        Self {
            tuns: shared.tuns.load_full(),
            shared,
            queue,
            packets: (0..BATCH).map(|_| PacketBuf::new(MAX_PACKET)).collect(),
            headers: Vec::with_capacity(BATCH),
            batch: OutboundBatch::new(MAX_PACKET),
            hold: Hold::default(),
            ask_for: 1,
        }
    }

    /// One batch of one TUN.
    fn read(&mut self, now: Instant, tun: &TunPort) -> io::Result<()> {
        let asked_for = self.ask_for;
        match tun.device.recv(&mut self.packets[..asked_for], &mut self.headers) {
            Ok(()) => self.ask_for = next(asked_for, self.headers.len()),
            Err(error) if is_idle(&error) => return Ok(()),
            // EBADFD: the interface was deleted, by the driver (then it is not listed any more) or from outside.
            Err(_deleted) if !self.is_listed(tun) => return Ok(()),
            Err(error) => {
                return Err(io::Error::other(format!(
                    "{} cannot be read: {error}",
                    tun.device.name()
                )));
            }
        }
        let packets = &mut self.packets[..self.headers.len()];
        let datapath = self.shared.datapath.load_full();
        datapath.outbound_batch_with(now, packets, &self.headers, &mut self.batch);
        self.send(now, &datapath, |_| Some(tun));
        Ok(())
    }

    /// Sends what was sealed, and keeps what has to wait. `tun_of` says where an ICMP message goes.
    fn send<'a>(
        &mut self,
        now: Instant,
        datapath: &Datapath,
        tun_of: impl Fn(&[u8]) -> Option<&'a TunPort>,
    ) {
        send_sealed(&self.shared, &self.queue, &self.batch.sealed);
        send_bypassed(&self.shared, &self.batch.bypass);
        for reply in &self.batch.replies {
            if let Some(tun) = tun_of(reply) {
                let parts = [IoSlice::new(&[0; VnetHeader::LEN]), IoSlice::new(reply)];
                deliver::write(&self.shared.lost, tun, &parts);
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
            datapath.outbound_batch(now, &mut self.packets[..count], &mut self.batch);
            self.send(now, &datapath, |reply| deliver::tun_for(&tuns, reply).map(|tun| &**tun));
        }
    }

    fn is_listed(&self, tun: &TunPort) -> bool {
        let tuns = self.shared.tuns.load();
        tuns.iter().any(|listed| Arc::ptr_eq(&listed.device, &tun.device))
    }
}

/// How many packets to ask for after so many came of those asked for.
const fn next(asked_for: usize, count: usize) -> usize {
    if count == asked_for {
        BATCH
    } else if count <= 1 {
        1
    } else {
        asked_for
    }
}

impl Direction for Outbound {
    fn sources(&self) -> SmallVec<[BorrowedFd<'_>; 8]> {
        self.tuns.iter().map(|tun| tun.device.as_fd()).collect()
    }

    fn is_stale(&self) -> bool {
        !Arc::ptr_eq(&self.tuns, &self.shared.tuns.load())
    }

    fn renew(&mut self) {
        self.tuns = self.shared.tuns.load_full();
    }

    /// How long there is nothing to do but what comes from a TUN: packets that wait grow old.
    fn patience(&self) -> Option<Duration> {
        let waits = !self.hold.is_empty();
        let known = self.shared.waiting.swap(waits, Ordering::Relaxed);
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
        match self.tuns.get(source).map(Arc::clone) {
            Some(tun) => self.read(now, &tun),
            None => Ok(()),
        }
    }
}
