//! The threads that move packets: one from the TUNs to the sockets, one from the sockets to the TUNs.
//!
//! A worker waits for its descriptors, takes the newest snapshot of the datapath, reads a batch, has it sealed or opened,
//! and sends it. It shares nothing with the driver but the snapshot and bounded queues; where a queue is full, it drops
//! and counts. It ends when told, and if it panics, the driver hears of it and ends the daemon.

use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::sockets::{NATT_PORT, Sockets, path_of};
use crate::datapath::{Datapath, Form, Hold, InboundBatch, OutboundBatch, Received, Sealed};
use crate::io::clock;
use crate::io::raw::{self, Chain};
use crate::io::sys::{self, BATCH, ToSend};
use crate::io::tun::TunDevice;
use crate::io::udp::{Fragment, Socket};
use crate::ipsec::{Encap, Notice, PacketBuf, Path, PolicyId, TrafficSelector};
use crate::wire::ip::{IpPacket, NextHeader};

/// Longest packet that is read: the longest that IP has. Memory that no packet needed is never touched.
const MAX_PACKET: usize = 65_535;
/// Packets of a queue from a worker to the driver.
const QUEUE: usize = 512;
/// How often it is looked whether packets that wait for an SA have grown too old, in milliseconds.
const HOLD_CHECK: u16 = 1000;
/// How long a worker waits for room in a socket's send buffer before it drops a batch, in milliseconds.
const SEND_PATIENCE: u16 = 20;

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
    /// The TUNs.
    pub tuns: ArcSwap<Vec<Arc<TunPort>>>,
    /// The sockets.
    pub sockets: Arc<Sockets>,
    /// Policies for which an SA could not be made, and when: packets that wait since before then are dropped.
    pub failed: ArcSwap<BTreeMap<PolicyId, Instant>>,
    /// What workers dropped that the datapath does not count.
    pub lost: Lost,
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
    pub fn new(datapath: Datapath, sockets: Arc<Sockets>) -> Self {
        Self {
            datapath: ArcSwap::from_pointee(datapath),
            tuns: ArcSwap::from_pointee(Vec::new()),
            sockets,
            failed: ArcSwap::from_pointee(BTreeMap::new()),
            lost: Lost::default(),
            stop: AtomicBool::new(false),
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
struct Queue {
    to_driver: mpsc::Sender<FromWorker>,
}

impl Queue {
    fn send(&self, lost: &Lost, message: FromWorker) {
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
    lengths: Vec<usize>,
    batch: OutboundBatch,
    hold: Hold,
}

impl OutboundWorker {
    fn new(shared: Arc<Shared>, queue: Queue) -> Self {
        Self {
            shared,
            queue,
            packets: (0..BATCH).map(|_| PacketBuf::new(MAX_PACKET)).collect(),
            lengths: Vec::with_capacity(BATCH),
            batch: OutboundBatch::new(MAX_PACKET),
            hold: Hold::default(),
        }
    }

    fn run(mut self, wake: &PipeReader) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            let tuns = self.shared.tuns.load_full();
            let fds: Vec<_> = tuns.iter().map(|tun| tun.device.as_fd()).collect();
            // Packets that wait grow old.
            let patience = if self.hold.is_empty() { PollTimeout::NONE } else { HOLD_CHECK.into() };
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

    /// One batch of one TUN.
    fn pass(&mut self, tun: &TunPort) -> io::Result<()> {
        let mut buffers: Vec<_> =
            self.packets.iter_mut().map(|packet| IoSliceMut::new(packet.space_mut())).collect();
        match tun.device.recv(&mut buffers, &mut self.lengths) {
            Ok(()) => {}
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
        let count = self.lengths.len();
        for (packet, len) in self.packets.iter_mut().zip(&self.lengths) {
            packet.set_len(*len);
        }
        self.send(count, |_| Some(tun));
        Ok(())
    }

    /// Seals and sends the first of `packets`. `tun_of` says where an ICMP message in answer to one goes.
    fn send<'a>(&mut self, count: usize, tun_of: impl Fn(&[u8]) -> Option<&'a TunPort>) {
        let now = clock::now();
        let datapath = self.shared.datapath.load();
        datapath.outbound_batch(now, &mut self.packets[..count], &mut self.batch);
        send_sealed(&self.shared, &self.queue, &self.batch.sealed);
        for reply in &self.batch.replies {
            if let Some(tun) = tun_of(reply) {
                write_tun(&self.shared.lost, tun, reply);
            }
        }
        for waiting in &self.batch.waiting {
            self.hold.put(now, &datapath, waiting.policy, &waiting.buf);
        }
        self.queue.send_notices(&self.shared.lost, &mut self.batch.notices);
    }

    /// Sends what waited for an SA that is there, drops what waited in vain.
    fn release(&mut self, tuns: &[Arc<TunPort>]) {
        while !self.hold.is_empty() {
            let datapath = self.shared.datapath.load();
            for (policy, failed_at) in &**self.shared.failed.load() {
                self.hold.abandon(&datapath, *policy, *failed_at);
            }
            self.hold.expire(clock::now(), &datapath);
            let count = self.hold.take_ready(&datapath, &mut self.packets);
            drop(datapath);
            if count == 0 {
                return;
            }
            self.send(count, |reply| tun_for(tuns, reply).map(|tun| &**tun));
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
        let empty = || Received { path, traffic_class: 0, buf: PacketBuf::new(MAX_PACKET) };
        Self {
            shared,
            queue,
            received: (0..BATCH).map(|_| empty()).collect(),
            meta: Vec::with_capacity(BATCH),
            chains: vec![Chain::default(); BATCH],
            batch: InboundBatch::new(MAX_PACKET),
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
        let mut buffers: Vec<_> =
            self.received.iter_mut().map(|one| IoSliceMut::new(one.buf.space_mut())).collect();
        let result = match source.raw {
            Some(_) => raw::recv(source.socket, &mut buffers, &mut self.meta, &mut self.chains),
            None => source.socket.recv(&mut buffers, &mut self.meta),
        };
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
            if let Some(protocol) = source.raw
                && source.socket.is_v6()
                && !chain.put_before(&mut one.buf, meta, protocol)
            {
                self.shared.lost.headers.fetch_add(1, Ordering::Relaxed);
                one.buf.clear();
            }
        }
        let count = self.meta.len();
        let datapath = self.shared.datapath.load();
        datapath.inbound_batch(clock::now(), &mut self.received[..count], &mut self.batch);
        let tuns = self.shared.tuns.load();
        for packet in &self.batch.deliver {
            match tun_for(&tuns, packet) {
                Some(tun) => write_tun(&self.shared.lost, tun, packet),
                None => {
                    self.shared.lost.tun.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        for datagram in self.batch.ike.drain(..) {
            let message = datagram.buf.to_vec();
            self.queue.send(&self.shared.lost, FromWorker::Ike { path: datagram.path, message });
        }
        self.queue.send_notices(&self.shared.lost, &mut self.batch.notices);
        Ok(())
    }
}

/// The TUN that a packet comes out of: the only one, or the one for its source address.
fn tun_for<'a>(tuns: &'a [Arc<TunPort>], packet: &[u8]) -> Option<&'a Arc<TunPort>> {
    if let [only] = tuns {
        return Some(only);
    }
    let source = source_of(packet)?;
    let covers = |ts: &TrafficSelector| ts.start_addr <= source && source <= ts.end_addr;
    tuns.iter().find(|tun| {
        tun.peers.iter().any(|ts| ts.start_addr.is_ipv4() == source.is_ipv4() && covers(ts))
    })
}

/// The source address of an IP packet.
fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(<[u8; 4]>::try_from(packet.get(12..16)?).ok()?.into()),
        6 => Some(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?.into()),
        _ => None,
    }
}

fn write_tun(lost: &Lost, tun: &TunPort, packet: &[u8]) {
    if let Err(error) = tun.device.send(packet) {
        lost.tun.fetch_add(1, Ordering::Relaxed);
        tracing::trace!(%error, tun = tun.device.name(), "packet not taken");
    }
}

/// Sends sealed packets in their order, neighbours that leave through the same socket in one system call.
fn send_sealed(shared: &Shared, queue: &Queue, sealed: &[Sealed]) {
    let same_socket = |a: &Sealed, b: &Sealed| {
        a.path.encap == b.path.encap
            && a.path.remote.is_ipv4() == b.path.remote.is_ipv4()
            && leaves_by(a) == leaves_by(b)
    };
    for run in sealed.chunk_by(same_socket) {
        let Some(socket) = run.first().and_then(|first| socket_of(&shared.sockets, first)) else {
            shared.lost.send.fetch_add(run.len() as u64, Ordering::Relaxed);
            continue;
        };
        let messages: Vec<_> = run.iter().map(to_send).collect();
        let mut rest = &messages[..];
        let mut paths = run;
        while !rest.is_empty() {
            let taken = match socket.send(rest) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if wait_for_room(socket) {
                        continue;
                    }
                    shared.lost.send.fetch_add(rest.len() as u64, Ordering::Relaxed);
                    break;
                }
                Err(error) => {
                    // It concerns the first packet only.
                    if error.raw_os_error() == Some(libc::EMSGSIZE) {
                        queue.send(&shared.lost, FromWorker::TooBig { path: paths[0].path });
                    }
                    shared.lost.send.fetch_add(1, Ordering::Relaxed);
                    tracing::trace!(%error, remote = %paths[0].path.remote, "packet not sent");
                    1
                }
            };
            rest = &rest[taken..];
            paths = &paths[taken..];
        }
    }
}

/// The sockets of a family, as far as a packet's form says which.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LeavesBy {
    /// The kernel adds the headers.
    Pair(Fragment),
    /// They are there.
    Whole,
}

const fn leaves_by(sealed: &Sealed) -> LeavesBy {
    match sealed.form {
        Form::Packet => LeavesBy::Whole,
        Form::Payload { dont_fragment: true, .. } => LeavesBy::Pair(Fragment::Never),
        Form::Payload { dont_fragment: false, .. } => LeavesBy::Pair(Fragment::Allowed),
    }
}

fn socket_of<'a>(sockets: &'a Sockets, sealed: &Sealed) -> Option<&'a Socket> {
    let family = sockets.family(sealed.path.remote.ip())?;
    Some(match (leaves_by(sealed), sealed.path.encap) {
        (LeavesBy::Whole, _) => &family.whole,
        (LeavesBy::Pair(fragment), Encap::Udp) => family.natt.choose(fragment),
        (LeavesBy::Pair(fragment), Encap::Plain) => family.esp.choose(fragment),
    })
}

fn to_send(sealed: &Sealed) -> ToSend<'_> {
    let mut to = sealed.path.remote;
    let tos = match sealed.form {
        Form::Payload { traffic_class, .. } => traffic_class,
        Form::Packet => {
            // Where its own header says, which a source route may have changed.
            if let Ok(ip) = IpPacket::new_checked(&sealed.buf[..]) {
                to.set_ip(ip.dst_addr());
            }
            0
        }
    };
    if sealed.form == Form::Packet || sealed.path.encap == Encap::Plain {
        // A raw socket takes the port of an IPv6 address for the protocol, and refuses another than its own.
        to.set_port(0);
    }
    ToSend { payload: &sealed.buf, to, local: Some(sealed.path.local.ip()), tos }
}

/// Waits for room in the send buffer, not for long. `false` if there is none.
fn wait_for_room(socket: &Socket) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::from(SEND_PATIENCE)), Ok(1..))
}

/// Waits until one of `fds` can be read, `wake` was written to, or `patience` is over. `ready` gets an entry for each of `fds`.
fn wait(
    wake: &PipeReader,
    fds: &[BorrowedFd<'_>],
    patience: PollTimeout,
    ready: &mut Vec<bool>,
) -> io::Result<()> {
    let mut polled: Vec<_> = core::iter::once(wake.as_fd())
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

    struct Nothing(&'static str, PipeReader);

    impl AsFd for Nothing {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.1.as_fd()
        }
    }

    impl TunDevice for Nothing {
        fn name(&self) -> &str {
            self.0
        }
        fn recv(&self, _: &mut [IoSliceMut<'_>], _: &mut Vec<usize>) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn send(&self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    fn tun(name: &'static str, start: &str, end: &str) -> Arc<TunPort> {
        let ts = TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: 0xffff,
            start_addr: start.parse().unwrap(),
            end_addr: end.parse().unwrap(),
        };
        Arc::new(TunPort {
            device: Arc::new(Nothing(name, io::pipe().unwrap().0)),
            peers: vec![ts],
        })
    }

    fn v4_packet(source: [u8; 4]) -> [u8; 20] {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&source);
        packet
    }

    #[test]
    fn packet_comes_out_of_the_tun_of_its_source() {
        let tuns = [
            tun("a", "10.2.0.0", "10.2.255.255"),
            tun("six", "fd02::", "fd02::ffff"),
            tun("b", "10.3.0.0", "10.3.255.255"),
        ];
        let name = |packet: &[u8]| tun_for(&tuns, packet).map(|tun| tun.device.name().to_owned());
        assert_eq!(name(&v4_packet([10, 3, 0, 1])).as_deref(), Some("b"));
        assert_eq!(name(&v4_packet([10, 2, 255, 255])).as_deref(), Some("a"));
        assert_eq!(name(&v4_packet([10, 4, 0, 1])), None);
        assert_eq!(name(&[0x45]), None);
        assert_eq!(name(&[]), None);
        let mut six = [0u8; 40];
        six[0] = 0x60;
        six[8..24].copy_from_slice(&"fd02::5".parse::<core::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(name(&six).as_deref(), Some("six"));
    }

    #[test]
    fn only_tun_takes_every_packet() {
        let tuns = [tun("a", "10.2.0.0", "10.2.255.255")];
        assert!(tun_for(&tuns, &v4_packet([192, 0, 2, 1])).is_some());
    }

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
