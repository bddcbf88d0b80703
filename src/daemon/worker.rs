//! The threads that move packets: from the TUNs to the sockets (outbound), and from the sockets to the TUNs (inbound).
//! [`duty`] says which thread does what.
//!
//! A worker waits for its descriptors, takes the newest snapshot of the datapath, reads a batch, has it sealed or opened,
//! and sends it. It shares nothing with the driver but the snapshot and bounded queues; where a queue is full, it drops
//! and counts. It ends when told, and if it panics, the driver hears of it and ends the daemon.

mod inbound;
mod outbound;

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::audit::Audit;
use super::duty::{self, Threads, Waker};
use super::names::Names;
use super::sockets::Sockets;
use crate::datapath::{Audits, Datapath};
use crate::io::tun::TunDevice;
use crate::ipsec::{Notice, Path, PolicyId, TrafficSelector, Worker};
use inbound::Inbound;
use outbound::Outbound;

/// Longest packet that is read: the longest that IP has. Memory that no packet needed is never touched.
const MAX_PACKET: usize = 65_535;
/// Packets of a queue from a worker to the driver.
const QUEUE: usize = 512;

/// A TUN, and whose traffic it carries.
pub struct TunPort {
    /// The device: its queues, of which there is one at least.
    pub queues: Arc<[Arc<dyn TunDevice>]>,
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
    /// With how many workers packets wait for an SA, see [`Workers::wake_waiting`].
    waiting: AtomicUsize,
    stop: AtomicBool,
}

impl TunPort {
    /// The device, by its first queue.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn TunDevice> {
        &self.queues[0]
    }

    /// The queue that a worker reads; none if it has fewer than there are workers.
    #[must_use]
    pub fn queue_of(&self, worker: Worker) -> Option<&Arc<dyn TunDevice>> {
        self.queues.get(usize::from(worker.index()))
    }

    /// The queue into which a worker writes: its own, so that it gets the answers.
    #[must_use]
    pub fn way_in(&self, worker: Worker) -> &Arc<dyn TunDevice> {
        self.queue_of(worker).unwrap_or_else(|| self.device())
    }
}

/// What workers dropped that the datapath does not count.
#[derive(Debug, Default)]
pub struct Lost {
    /// Notices that the driver's queue had no room for.
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
        worker: String,
        /// Why.
        reason: String,
    },
}

/// The running workers. [`Workers::stop`] ends them; dropping does, too.
pub struct Workers {
    shared: Arc<Shared>,
    wakers: Vec<Waker>,
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
            waiting: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }
}

impl Shared {
    /// Hands on what of a batch is auditable.
    pub(super) fn audit(&self, datapath: &Datapath, audits: &mut Audits) {
        if let Some(audit) = self.audit.as_ref().filter(|_| !audits.is_empty()) {
            audit.packets(datapath, audits.drain());
        }
    }
}

impl Workers {
    /// Starts so many, each of two threads.
    ///
    /// # Errors
    /// Those of pipe(2) and epoll_create(2), and of starting a thread.
    pub fn start(
        shared: &Arc<Shared>,
        count: u16,
    ) -> io::Result<(Self, mpsc::Receiver<FromWorker>)> {
        let (to_driver, from_workers) = mpsc::channel(QUEUE);
        let queue = || Queue { to_driver: to_driver.clone() };
        let mut workers =
            Self { shared: Arc::clone(shared), wakers: Vec::new(), threads: Vec::new() };
        for worker in Worker::all(count) {
            let Threads { first, second, wakers } = duty::threads(
                Inbound::new(Arc::clone(shared), queue(), worker),
                Outbound::new(Arc::clone(shared), queue(), worker),
            )?;
            workers.wakers.extend(wakers);
            // A thread's name has 15 bytes at most.
            let [inbound, outbound] = match worker.index() {
                0 => ["inbound".to_owned(), "outbound".to_owned()],
                index => [format!("in-{index}"), format!("out-{index}")],
            };
            workers.spawn(inbound, to_driver.clone(), |shared| first.run(&shared.stop))?;
            workers.spawn(outbound, to_driver.clone(), |shared| second.run(&shared.stop))?;
        }
        Ok((workers, from_workers))
    }

    fn spawn(
        &mut self,
        name: String,
        to_driver: mpsc::Sender<FromWorker>,
        body: impl FnOnce(&Shared) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread =
            std::thread::Builder::new().name(format!("ipsecd-{name}")).spawn(move || {
                let mut obituary =
                    Obituary { worker: name, to_driver, reason: "panicked".to_owned() };
                obituary.reason = match body(&shared) {
                    Ok(()) => String::new(),
                    Err(error) => error.to_string(),
                };
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Has the workers look at the TUNs again.
    pub fn wake(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }

    /// There is an SA that there was not: has packets looked at that wait for one, if there are any.
    pub fn wake_waiting(&self) {
        // Either the snapshot stored before is seen by who says from here on that packets wait, or that they do is seen here.
        fence(Ordering::SeqCst);
        if self.shared.waiting.load(Ordering::Relaxed) > 0 {
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
    worker: String,
    to_driver: mpsc::Sender<FromWorker>,
    reason: String,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        if !self.reason.is_empty() {
            let reason = core::mem::take(&mut self.reason);
            // The queue may be full, and this must arrive; the driver still empties it.
            let worker = core::mem::take(&mut self.worker);
            let died = FromWorker::Died { worker, reason };
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

fn is_idle(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
