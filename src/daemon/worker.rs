//! The threads that move packets: one from the TUNs to the sockets, one from the sockets to the TUNs.
//!
//! A worker waits for its descriptors, takes the newest snapshot of the datapath, reads a batch, has it sealed or opened,
//! and sends it. It shares nothing with the driver but the snapshot and bounded queues; where a queue is full, it drops
//! and counts. It ends when told, and if it panics, the driver hears of it and ends the daemon.

use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use super::audit::Audit;
use super::deliver;
use super::names::Names;
use super::send::{send_bypassed, send_sealed};
use super::sockets::{NATT_PORT, Sockets, path_of};
use crate::datapath::coalesce::Coalescer;
use crate::datapath::{Audits, Datapath, Hold, InboundBatch, OutboundBatch, Received};
use crate::io::clock;
use crate::io::raw::{self, Chain};
use crate::io::sys::{self, BATCH, FEW};
use crate::io::tun::TunDevice;
use crate::io::udp::Socket;
use crate::ipsec::{Encap, Notice, PacketBuf, Path, PolicyId, TrafficSelector};
use crate::wire::ip::NextHeader;
use crate::wire::vnet::VnetHeader;

/// Longest packet that is read: the longest that IP has. Memory that no packet needed is never touched.
const MAX_PACKET: usize = 65_535;
/// Packets of a queue from a worker to the driver.
const QUEUE: usize = 512;
/// How often it is looked whether packets that wait for an SA have grown too old, in milliseconds.
const HOLD_CHECK: u16 = 1000;

/// A TUN, and whose traffic it carries.
pub struct TunPort {
    /// The device.
    pub device: Arc<dyn TunDevice>,
    /// Selectors of the peers' sides: inbound packets from there come out here.
    pub peers: Vec<TrafficSelector>,
}

/// What driver and workers share.
pub struct Shared {
    /// The newest snapshot.
    pub datapath: ArcSwap<Datapath>,
    /// The names of its policies.
    pub names: ArcSwap<Names>,
    /// The TUNs.
    pub tuns: ArcSwap<Vec<Arc<TunPort>>>,
    /// The sockets.
    pub sockets: Arc<Sockets>,
    /// Policies for which an SA could not be made, and when: packets that wait since before then are dropped.
    pub failed: ArcSwap<BTreeMap<PolicyId, Instant>>,
    /// What workers dropped that the datapath does not count.
    pub lost: Lost,
    /// Takes what is auditable, if anybody wants it.
    pub audit: Option<Audit>,
    /// Packets wait for an SA, see [`Workers::wake_waiting`].
    waiting: AtomicBool,
    stop: AtomicBool,
}

/// What workers dropped that the datapath does not count.
#[derive(Debug, Default)]
pub struct Lost {
    /// IKE messages and notices that the driver's queue had no room for.
    pub queue_full: AtomicU64,
    /// ESP packets that a socket did not take.
    pub send: AtomicU64,
    /// Packets that a TUN did not take.
    pub tun: AtomicU64,
    /// IPv6 packets with more extension headers than we take.
    pub headers: AtomicU64,
}

/// What a worker tells the driver.
#[derive(Debug)]
pub enum FromWorker {
    /// An IKE message came to port 4500.
    Ike {
        /// On this path.
        path: Path,
        /// The message, without marker.
        message: Vec<u8>,
    },
    /// For IKE.
    Notice(Notice),
    /// A sealed packet was longer than the path MTU that the kernel knows.
    TooBig {
        /// The path.
        path: Path,
    },
    /// A worker ended, which it should not.
    Died {
        /// Which.
        worker: &'static str,
        /// Why.
        reason: String,
    },
}

/// The running workers. [`Workers::stop`] ends them; dropping does, too.
pub struct Workers {
    shared: Arc<Shared>,
    wakers: Vec<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

impl Shared {
    /// With these sockets and no TUN.
    #[must_use]
    pub fn new(datapath: Datapath, sockets: Arc<Sockets>, audit: Option<Audit>) -> Self {
        Self {
            datapath: ArcSwap::from_pointee(datapath),
            names: ArcSwap::from_pointee(Names::default()),
            tuns: ArcSwap::from_pointee(Vec::new()),
            sockets,
            failed: ArcSwap::from_pointee(BTreeMap::new()),
            lost: Lost::default(),
            audit,
            waiting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }
}

impl Shared {
    /// Hands on what of a batch is auditable.
    fn audit(&self, datapath: &Datapath, audits: &mut Audits) {
        if let Some(audit) = self.audit.as_ref().filter(|_| !audits.is_empty()) {
            audit.packets(datapath, audits.drain());
        }
    }
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// Those of pipe(2) and of starting a thread.
    pub fn start(shared: &Arc<Shared>) -> io::Result<(Self, mpsc::Receiver<FromWorker>)> {
        let (to_driver, from_workers) = mpsc::channel(QUEUE);
        let mut workers =
            Self { shared: Arc::clone(shared), wakers: Vec::new(), threads: Vec::new() };
        workers.spawn("outbound", to_driver.clone(), |shared, queue, wake| {
            OutboundWorker::new(shared, queue).run(&wake)
        })?;
        workers.spawn("inbound", to_driver, |shared, queue, wake| {
            InboundWorker::new(shared, queue).run(&wake)
        })?;
        Ok((workers, from_workers))
    }

    fn spawn(
        &mut self,
        name: &'static str,
        to_driver: mpsc::Sender<FromWorker>,
        body: fn(Arc<Shared>, Queue, PipeReader) -> io::Result<()>,
    ) -> io::Result<()> {
        let (wake, waker) = io::pipe()?;
        let shared = Arc::clone(&self.shared);
        let thread =
            std::thread::Builder::new().name(format!("ipsecd-{name}")).spawn(move || {
                let queue = Queue { to_driver: to_driver.clone() };
                let mut obituary =
                    Obituary { worker: name, to_driver, reason: "panicked".to_owned() };
                obituary.reason = match body(shared, queue, wake) {
                    Ok(()) => String::new(),
                    Err(error) => error.to_string(),
                };
            })?;
        self.wakers.push(waker);
        self.threads.push(thread);
        Ok(())
    }

    /// Has the workers look at the TUNs again.
    pub fn wake(&self) {
        for waker in &self.wakers {
            let mut waker = waker;
            if let Err(error) = waker.write_all(&[0]) {
                tracing::debug!(%error, "a worker has ended before it was woken");
            }
        }
    }

    /// There is an SA that there was not: has packets looked at that wait for one, if there are any.
    pub fn wake_waiting(&self) {
        // Either the snapshot stored before is seen by who says from here on that packets wait, or that they do is seen here.
        fence(Ordering::SeqCst);
        if self.shared.waiting.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Ends them and waits until they have.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

/// Tells the driver when a worker ends, however it ends.
struct Obituary {
    worker: &'static str,
    to_driver: mpsc::Sender<FromWorker>,
    reason: String,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if !self.reason.is_empty() {
            let reason = core::mem::take(&mut self.reason);
            // The queue may be full, and this must arrive; the driver still empties it.
            let died = FromWorker::Died { worker: self.worker, reason };
            let _closed = self.to_driver.blocking_send(died);
        }
    }
}

/// A worker's end of the queue to the driver.
pub(super) struct Queue {
    to_driver: mpsc::Sender<FromWorker>,
}

impl Queue {
    /// A queue by itself, and its other end.
    #[cfg(test)]
    pub(super) fn alone() -> (Self, mpsc::Receiver<FromWorker>) {
        let (to_driver, receiver) = mpsc::channel(QUEUE);
        (Self { to_driver }, receiver)
    }

    pub(super) fn send(&self, lost: &Lost, message: FromWorker) {
        if self.to_driver.try_send(message).is_err() {
            lost.queue_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send_notices(&self, lost: &Lost, notices: &mut Vec<Notice>) {
        for notice in notices.drain(..) {
            self.send(lost, FromWorker::Notice(notice));
        }
    }
}

/// From the TUNs to the sockets.
struct OutboundWorker {
    shared: Arc<Shared>,
    queue: Queue,
    packets: Vec<PacketBuf>,
    headers: Vec<VnetHeader>,
    batch: OutboundBatch,
    hold: Hold,
}

impl OutboundWorker {
    fn new(shared: Arc<Shared>, queue: Queue) -> Self {
        Self {
            shared,
            queue,
            packets: (0..BATCH).map(|_| PacketBuf::new(MAX_PACKET)).collect(),
            headers: Vec::with_capacity(BATCH),
            batch: OutboundBatch::new(MAX_PACKET),
            hold: Hold::default(),
        }
    }

    fn run(mut self, wake: &PipeReader) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            let tuns = self.shared.tuns.load_full();
            let fds: Vec<_> = tuns.iter().map(|tun| tun.device.as_fd()).collect();
            let patience = self.patience();
            wait(wake, &fds, patience, &mut ready)?;
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            // First, so that they leave in the order in which they came.
            self.release(&tuns);
            for (tun, ready) in tuns.iter().zip(&ready) {
                if *ready {
                    self.pass(tun)?;
                }
            }
        }
    }

    /// How long there is nothing to do but what comes from a TUN: packets that wait grow old.
    fn patience(&self) -> PollTimeout {
        let waits = !self.hold.is_empty();
        let known = self.shared.waiting.swap(waits, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        match (waits, known) {
            (false, _) => PollTimeout::NONE,
            // Their SA may have come just before it was known that they wait.
            (true, false) => PollTimeout::ZERO,
            (true, true) => HOLD_CHECK.into(),
        }
    }

    /// One batch of one TUN.
    fn pass(&mut self, tun: &TunPort) -> io::Result<()> {
        match tun.device.recv(&mut self.packets, &mut self.headers) {
            Ok(()) => {}
            Err(error) if is_idle(&error) => return Ok(()),
            // EBADFD: the interface was deleted, by the driver (then it is not listed any more) or from outside.
            Err(_deleted) if !self.is_listed(tun) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                return Err(io::Error::other(format!("somebody deleted {}", tun.device.name())));
            }
            Err(error) => {
                return Err(io::Error::other(format!(
                    "{} cannot be read: {error}",
                    tun.device.name()
                )));
            }
        }
        let packets = &mut self.packets[..self.headers.len()];
        let datapath = self.shared.datapath.load_full();
        let now = clock::now();
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
    fn release(&mut self, tuns: &[Arc<TunPort>]) {
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
            self.send(now, &datapath, |reply| deliver::tun_for(tuns, reply).map(|tun| &**tun));
        }
    }

    fn is_listed(&self, tun: &TunPort) -> bool {
        let tuns = self.shared.tuns.load();
        tuns.iter().any(|listed| Arc::ptr_eq(&listed.device, &tun.device))
    }
}

/// From the sockets to the TUNs.
struct InboundWorker {
    shared: Arc<Shared>,
    queue: Queue,
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

impl InboundWorker {
    fn new(shared: Arc<Shared>, queue: Queue) -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0);
        let path = Path { local: nowhere, remote: nowhere, encap: Encap::Plain };
        let buf = || PacketBuf::new(MAX_PACKET);
        let empty = || Received { path, traffic_class: 0, buf: buf(), segment_len: None };
        Self {
            shared,
            queue,
            received: (0..BATCH).map(|_| empty()).collect(),
            meta: Vec::with_capacity(BATCH),
            chains: vec![Chain::default(); BATCH],
            batch: InboundBatch::new(MAX_PACKET),
            coalescer: Coalescer::new(),
            ask_for: FEW,
        }
    }

    fn run(mut self, wake: &PipeReader) -> io::Result<()> {
        let sockets = Arc::clone(&self.shared.sockets);
        let mut sources = Vec::new();
        for family in [Some(&sockets.v4), sockets.v6.as_ref()].into_iter().flatten() {
            sources.push(Source { socket: &family.natt.main, raw: None });
            sources.push(Source { socket: &family.esp.main, raw: Some(NextHeader::ESP) });
            sources.push(Source { socket: &family.ah, raw: Some(NextHeader::AH) });
        }
        let fds: Vec<_> = sources.iter().map(|source| source.socket.as_fd()).collect();
        let mut ready = Vec::new();
        loop {
            wait(wake, &fds, PollTimeout::NONE, &mut ready)?;
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            for (source, ready) in sources.iter().zip(&ready) {
                if *ready {
                    self.pass(*source)?;
                }
            }
        }
    }

    /// One batch of one socket.
    fn pass(&mut self, source: Source<'_>) -> io::Result<()> {
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
        datapath.inbound_batch(clock::now(), &mut self.received[..count], &mut self.batch);
        self.shared.audit(&datapath, &mut self.batch.audits);
        let tuns = self.shared.tuns.load();
        deliver::deliver(&self.shared.lost, &tuns, &self.batch.deliver, &mut self.coalescer);
        for datagram in self.batch.ike.drain(..) {
            let message = datagram.buf.to_vec();
            self.queue.send(&self.shared.lost, FromWorker::Ike { path: datagram.path, message });
        }
        self.queue.send_notices(&self.shared.lost, &mut self.batch.notices);
        Ok(())
    }
}

/// Waits until one of `fds` can be read, `wake` was written to, or `patience` is over. `ready` gets an entry for each of `fds`.
fn wait(
    wake: &PipeReader,
    fds: &[BorrowedFd<'_>],
    patience: PollTimeout,
    ready: &mut Vec<bool>,
) -> io::Result<()> {
    let mut polled: SmallVec<[_; 8]> = core::iter::once(wake.as_fd())
        .chain(fds.iter().copied())
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    ready.clear();
    match poll(&mut polled, patience) {
        Ok(_) => {}
        Err(nix::Error::EINTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if polled[0].any().unwrap_or(false) {
        let mut wake = wake;
        let mut bytes = [0; 64];
        let _count = wake.read(&mut bytes)?;
    }
    ready.extend(polled[1..].iter().map(|fd| fd.any().unwrap_or(false)));
    Ok(())
}

fn is_idle(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_to_the_pipe_ends_the_waiting() {
        let (wake, waker) = io::pipe().unwrap();
        let (idle, _open) = io::pipe().unwrap();
        let mut ready = Vec::new();
        (&waker).write_all(&[0]).unwrap();
        wait(&wake, &[idle.as_fd()], PollTimeout::NONE, &mut ready).unwrap();
        assert_eq!(ready, [false]);
    }
}
