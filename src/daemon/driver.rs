//! The driver: one task that owns the IKE endpoint and does everything that is not moving packets.
//!
//! It waits for messages, notices, requests, timers and signals; hands each to the endpoint; then takes out what the
//! endpoint has: first events (so that an SA is installed before the message that lets the peer use it leaves), then
//! messages. After each such turn it looks at what waits: clients, peers that are to be tried again, peers that leave.

mod attempts;
mod diagnosis;
mod events;
mod manual;
mod metrics;
mod reload;
mod requests;
mod revocation;

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::agenda::Agenda;
use super::audit::{Audit, Target};
use super::jobs;
use super::keylog::{KeyLog, KeyLogError};
use super::load::{LoadError, load};
use super::log::{self, BadFilter};
use super::metrics::http::{Address, Listener, Question};
use super::names::Names;
use super::network::{Network, NetworkError};
use super::peers::{Entry, judge, judge_child};
use super::receive::Receiver;
use super::sockets::{IKE_PORT, SocketError, Sockets};
use super::worker::{FromWorker, Shared, Workers};
use super::{advice, spd, status};
use crate::config::Config;
use crate::control::protocol::{Ask, Body, Code, Failure, UpPhase, UpState};
use crate::control::server::{Incoming, Server};
use crate::crypto::random::OsRandom;
use crate::daemon::qcd;
use crate::daemon::secrets::FsSecrets;
use crate::datapath::{Datapath, Options as DatapathOptions};
use crate::ike::{
    Command, CommandError, Endpoint, EndpointConfig, Env, Event, SaStatus, Transmit, WallClock,
};
use crate::io::clock;
use crate::io::host;
use crate::io::lock::NamespaceLock;
use crate::io::privs::{self, PrivsError};
use crate::io::probe;
use crate::io::resolve;
use crate::io::route::Netlink;
use crate::io::sys;
use crate::io::tun::Offload;
use crate::io::udp::{self, PathMtus};
use crate::io::watch::Changes;
use crate::ipsec::pad::PeerAddress;
use crate::ipsec::{Encap, Notice, Path, SadUpdate, Spd};

/// How long the end of a peer waits for the answer to its DELETE.
const GOODBYE: Duration = Duration::from_secs(3);
/// `up` waits no longer, whatever it is told.
const LONGEST_UP: Duration = Duration::from_secs(24 * 60 * 60);
/// How long `rekey` waits.
const REKEY_PATIENCE: Duration = Duration::from_secs(30);
/// How often the path MTUs are read again: the kernel forgets what ICMP said after ten minutes.
const MTU_INTERVAL: Duration = Duration::from_secs(30);
/// So many of them at once, and so long after some the next: messages wait meanwhile.
const PATHS_AT_ONCE: usize = 200;
const MTU_PAUSE: Duration = Duration::from_millis(50);
/// From this many half-open IKE SAs on, what they took is given back to the system when they are gone.
const CROWD: usize = 64;
/// How often that is tried, and how often after the last is gone: a closed IKE SA stays for a little.
const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(10);
const GIVE_BACK_TIMES: u32 = 2;
/// After a change of addresses or routes so much time passes before it is looked at: mostly several come at once.
const NETWORK_PAUSE: Duration = Duration::from_millis(100);
/// Looking at all peers and jobs takes at most one part in so many of the driver's time, however many there are.
const LOOK_SHARE: u32 = 10;
/// But after so long there is another look: one that took much time had much to do (ten thousand tunnels to take down), and there may be
/// more of it.
const LOOK_PAUSE_MOST: Duration = Duration::from_secs(1);
/// Where nobody waits for it, news of this much time is looked at together: many set up tunnels one after the other.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Messages that are handled before anything else gets its turn: what is due, and what is to be sent.
const HANDLED_AT_ONCE: usize = 64;

/// Peers into whose silence is looked at a time; each has a thread for some seconds.
const MAX_PROBES: usize = 16;
/// Traces at a time: so many of the clients that are served.
const MAX_TRACES: usize = 16;

/// What a daemon is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control socket.
    pub socket: PathBuf,
    /// Configuration files to load at the start.
    pub files: Vec<PathBuf>,
    /// Their directory, absolute, which `reload` looks through again; none, for a daemon that `up` started.
    pub config_dir: Option<PathBuf>,
    /// What must outlive the daemon: the sequence numbers of manual keys, and the secret of RFC 6290.
    pub state_dir: PathBuf,
    /// The directory of systemd credentials.
    pub credentials: Option<PathBuf>,
    /// End with the last peer: for a daemon that `up` started.
    pub exit_when_empty: bool,
    /// Whether `[log] level` of a peer may change what is logged: not if the command line said.
    pub log_from_config: bool,
    /// Where the keys of every SA are written; nowhere, unless the command line said.
    pub keylog: Option<PathBuf>,
    /// How much of the cutting and joining of packets is left to the kernel.
    pub offload: Offload,
    /// How many workers move packets, at least one.
    pub workers: u16,
    /// Where audit events go; nowhere, unless the command line said.
    pub audit: Option<Target>,
    /// Where metrics are read; nowhere, unless the command line said.
    pub metrics: Option<Address>,
}

/// Why the daemon did not start, or did not go on.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// Another one is there.
    #[error("another ipsecd runs in this network namespace{}", whose(.holder))]
    AlreadyRunning {
        /// Its process, and where it listens.
        holder: Option<(u32, Vec<String>)>,
    },
    /// Where audit events are to go.
    #[error("cannot write audit events to {target}: {cause}")]
    Audit {
        /// The target.
        target: Target,
        /// The system's words.
        cause: io::Error,
    },
    /// A configuration file has errors.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The control socket.
    #[error("cannot listen on {path}: {cause}")]
    Control {
        /// Its path.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// Where metrics are to be read.
    #[error("cannot listen on {address} for readers of metrics: {cause}")]
    Metrics {
        /// The address.
        address: Address,
        /// The system's words.
        cause: io::Error,
    },
    /// The key log.
    #[error(transparent)]
    KeyLog(#[from] KeyLogError),
    /// Something of the system.
    #[error("cannot {action}: {cause}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's words.
        cause: io::Error,
    },
    /// A log filter.
    #[error(transparent)]
    Log(#[from] BadFilter),
    /// TUN, routes, rules.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Privileges.
    #[error(transparent)]
    Privs(#[from] PrivsError),
    /// A socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A worker thread ended.
    #[error("the {worker} worker ended: {reason}")]
    Worker {
        /// Which.
        worker: String,
        /// Why.
        reason: String,
    },
}

fn whose(holder: &Option<(u32, Vec<String>)>) -> String {
    match holder {
        None => String::new(),
        Some((pid, sockets)) if sockets.is_empty() => format!(": process {pid}"),
        Some((pid, sockets)) => format!(": process {pid}, at {}", sockets.join(", ")),
    }
}

/// Runs a daemon until it is told to end. `ready` is called once the control socket accepts.
///
/// # Errors
/// What kept it from starting, or from going on.
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), DaemonError> {
    let system = |action| move |cause| DaemonError::System { action, cause };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime"))?;
    let result = runtime.block_on(async {
        let lock = NamespaceLock::take().map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                DaemonError::AlreadyRunning { holder: NamespaceLock::holder() }
            } else {
                DaemonError::System {
                    action: "take the lock of this network namespace",
                    cause: error,
                }
            }
        })?;
        // With all privileges: the directory need not be reachable later.
        let keylog = options.keylog.as_deref().map(KeyLog::open).transpose()?;
        let sockets = Arc::new(Sockets::open(options.offload, options.workers)?);
        let now = clock::now();
        let datapath = Datapath::new(DatapathOptions::default(), Spd::default(), now);
        let audit = options.audit.as_ref().map(|target| {
            Audit::start(target)
                .map_err(|cause| DaemonError::Audit { target: target.clone(), cause })
        });
        let shared = Arc::new(Shared::new(datapath, Arc::clone(&sockets), audit.transpose()?));
        let netlink = Netlink::new().map_err(system("open netlink"))?;
        let network = Network::new(netlink, Arc::clone(&shared), options.offload, options.workers);
        let (requests_in, requests) = mpsc::channel(16);
        let server = Server::listen(&options.socket, requests_in)
            .map_err(|cause| DaemonError::Control { path: options.socket.clone(), cause })?;
        let (readers_in, readers) = mpsc::channel(4);
        let mut receivers = JoinSet::new();
        if let Some(address) = &options.metrics {
            let listener = Listener::listen(address)
                .await
                .map_err(|cause| DaemonError::Metrics { address: address.clone(), cause })?;
            tracing::info!(%address, "metrics are read here");
            receivers.spawn(listener.serve(readers_in));
        }
        privs::drop_privileges()?;
        sys::take_memory_by_the_piece(true);
        let workers = Workers::start(&shared, options.workers).map_err(system("start workers"));
        sys::take_memory_by_the_piece(false);
        let (workers, from_workers) = workers?;
        let ike = |v6| Receiver::ike(&shared, v6).map_err(system("watch port 500"));
        let natt = |v6| Receiver::natt(&shared, v6).map_err(system("watch port 4500"));
        let ports = [ike(false)?, ike(true)?, natt(false)?, natt(true)?];
        let (internal_in, internal) = mpsc::channel(64);
        let env = Env { rng: Box::new(OsRandom), wall_clock: Arc::new(SystemClock) };
        let endpoint_config = EndpointConfig {
            export_keys: keylog.is_some(),
            workers: options.workers,
            qcd_secret: qcd::secret(&options.state_dir, &mut OsRandom),
            ..EndpointConfig::default()
        };
        let mut driver = Driver {
            options: options.clone(),
            endpoint: Endpoint::new(endpoint_config, env),
            keylog,
            shared,
            network,
            workers,
            internal: internal_in,
            peers: BTreeMap::new(),
            ups: Vec::new(),
            downs: Vec::new(),
            rekeys: Vec::new(),
            farewell: Vec::new(),
            next_policy: 0,
            next_job: 0,
            traces: Arc::new(Semaphore::new(MAX_TRACES)),
            probes: Arc::new(Semaphore::new(MAX_PROBES)),
            started: now,
            counts: metrics::Counts::default(),
            mtu_check: now + MTU_INTERVAL,
            path_mtus: RefCell::default(),
            mtu_paths: Vec::new(),
            revocation: revocation::Stamps::new(),
            counter_check: now + MTU_INTERVAL,
            outgoing: Vec::new(),
            give_back: None,
            network_check: None,
            network_checked: now,
            changes: Changes::watch().map_err(system("watch addresses and routes"))?,
            watchdog: sd_notify::watchdog_enabled().map(|within| (now, within / 2)),
            ending: false,
            had_peer: false,
            // Whoever is there at the start is looked at.
            news: true,
            last_look: now,
            next_look: now,
            agenda: Agenda::default(),
            mtus_changed: false,
        };
        let inputs = Inputs {
            changes: Arc::clone(&driver.changes),
            ports,
            internal,
            requests,
            readers,
            from_workers,
            terminate: signal(SignalKind::terminate()).map_err(system("watch SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt()).map_err(system("watch SIGINT"))?,
            hangup: signal(SignalKind::hangup()).map_err(system("watch SIGHUP"))?,
        };
        let loaded = driver.load_files().await;
        if loaded.is_ok() {
            ready();
        }
        let (result, served) = match loaded {
            Ok(()) => (driver.serve(inputs).await, true),
            Err(error) => {
                drop(inputs);
                (Err(error), false)
            }
        };
        // Nobody may meet a daemon that is about to end: first the socket goes, then everything else, then those who
        // waited for the end hear of it.
        drop(server);
        let failed = served && result.is_err();
        let farewell = driver.tear_down(failed).await;
        receivers.shutdown().await;
        drop(sockets);
        drop(lock);
        for (reply, body) in farewell {
            if reply.send(body).await.is_ok() {
                let _patience = tokio::time::timeout(GOODBYE, reply.closed()).await;
            }
        }
        result
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Everything that the driver waits for.
struct Inputs {
    /// Of addresses and routes.
    changes: Arc<Changes>,
    /// Ports 500 and 4500, of IPv4 and of IPv6.
    ports: [Receiver; 4],
    internal: mpsc::Receiver<Internal>,
    requests: mpsc::Receiver<Incoming>,
    /// Those who read metrics.
    readers: mpsc::Receiver<Question>,
    from_workers: mpsc::Receiver<FromWorker>,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What the driver's own helpers tell it.
#[derive(Debug)]
enum Internal {
    /// A client of `up` is gone.
    ClientGone(u64),
    /// What came back of a datagram to the port that a peer does not answer on.
    Heard { peer: Arc<str>, remote: IpAddr, kind: io::ErrorKind },
    /// An address was looked up.
    Resolved { peer: Arc<str>, found: io::Result<Vec<IpAddr>> },
}

/// See the module.
pub(super) struct Driver {
    options: Options,
    endpoint: Endpoint,
    keylog: Option<KeyLog>,
    shared: Arc<Shared>,
    network: Network,
    workers: Workers,
    internal: mpsc::Sender<Internal>,
    peers: BTreeMap<Arc<str>, Entry>,
    ups: Vec<jobs::Up>,
    downs: Vec<jobs::Down>,
    rekeys: Vec<jobs::Rekey>,
    /// Answers that are given once everything is torn down.
    farewell: Vec<(jobs::Reply, Body)>,
    next_policy: u32,
    next_job: u64,
    /// Places for looks into silence.
    probes: Arc<Semaphore>,
    /// Places for traces.
    traces: Arc<Semaphore>,
    started: Instant,
    counts: metrics::Counts,
    mtu_check: Instant,
    path_mtus: RefCell<PathMtus>,
    /// The paths whose MTU is to be read in this turn of them all.
    mtu_paths: Vec<Path>,
    /// The files with CRLs and OCSP responses, as they were read last.
    revocation: revocation::Stamps,
    counter_check: Instant,
    /// Room for what is to be sent.
    outgoing: Vec<Transmit>,
    /// When memory is to be given back, and how often still.
    give_back: Option<(Instant, u32)>,
    /// When it is looked what is another in the host's network, and when that was done last.
    network_check: Option<Instant>,
    network_checked: Instant,
    changes: Arc<Changes>,
    /// When the service manager is to be told that the loop turns, and how often.
    watchdog: Option<(Instant, Duration)>,
    ending: bool,
    had_peer: bool,
    /// Something happened that peers or clients may wait for.
    news: bool,
    /// When peers and jobs were looked at last, and when they may be again.
    last_look: Instant,
    next_look: Instant,
    /// The peers to look at then.
    agenda: Agenda,
    /// SAs changed since the MTUs of TUNs and routes were set.
    mtus_changed: bool,
}

impl Driver {
    /// Loads the files that it was started with.
    async fn load_files(&mut self) -> Result<(), DaemonError> {
        for config in self.load_all(&self.options.files)? {
            self.take_peer(config, false).await?;
        }
        // Once for all of them.
        self.publish_policies();
        // One that `up` started hears at once what it is for.
        if !(self.options.exit_when_empty && self.options.files.is_empty()) {
            self.network.settle().await?;
        }
        self.turn(clock::now()).await;
        Ok(())
    }

    /// Reads files, each checked beside all others and the peers there are.
    fn load_all(&self, files: &[PathBuf]) -> Result<Vec<Config>, LoadError> {
        let secrets = FsSecrets::new(self.options.credentials.clone());
        load(files, &secrets, self.peers.values().map(|entry| &entry.config))
    }

    /// Serves until the end: SIGTERM, `shutdown`, or the last peer's leaving.
    async fn serve(&mut self, mut inputs: Inputs) -> Result<(), DaemonError> {
        let [ike4, ike6, natt4, natt6] = &mut inputs.ports;
        loop {
            let wake = tokio::time::Instant::from_std(self.next_wake());
            tokio::select! {
                () = ike4.receive() => self.hear_ike(ike4).await,
                () = ike6.receive() => self.hear_ike(ike6).await,
                () = natt4.receive() => self.hear_ike(natt4).await,
                () = natt6.receive() => self.hear_ike(natt6).await,
                Some(first) = inputs.from_workers.recv() => {
                    let mut next = Some(first);
                    for _ in 0..HANDLED_AT_ONCE {
                        let Some(message) = next else { break };
                        self.hear_worker(message).await?;
                        self.drain_events(clock::now()).await;
                        next = inputs.from_workers.try_recv().ok();
                    }
                    if let Some(message) = next {
                        self.hear_worker(message).await?;
                    }
                }
                Some(message) = inputs.internal.recv() => {
                    self.news = true;
                    self.hear_internal(message).await;
                }
                Some(incoming) = inputs.requests.recv() => {
                    self.news = true;
                    self.hear_client(incoming).await;
                }
                () = inputs.changes.told() => self.expect_network_check(clock::now()),
                Some(question) = inputs.readers.recv() => self.hear_reader(question),
                _ = inputs.terminate.recv() => {
                    if self.interrupted("SIGTERM") {
                        return Ok(());
                    }
                }
                _ = inputs.interrupt.recv() => {
                    if self.interrupted("SIGINT") {
                        return Ok(());
                    }
                }
                _ = inputs.hangup.recv() => {
                    self.news = true;
                    self.reload_by_signal().await;
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            self.turn(clock::now()).await;
            let idle = self.peers.is_empty() && self.ups.is_empty();
            if idle && (self.ending || (self.options.exit_when_empty && self.had_peer)) {
                return Ok(());
            }
        }
    }

    /// `true` at the second signal: then nothing is waited for any more.
    fn interrupted(&mut self, signal: &'static str) -> bool {
        tracing::info!(signal, "ending");
        let second = self.ending;
        self.end();
        second
    }

    /// Begins to take every peer down.
    fn end(&mut self) {
        if !self.ending {
            self.ending = true;
            self.news = true;
            let _unset = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        }
        let names: Vec<_> = self.peers.keys().cloned().collect();
        for name in names {
            self.begin_removal(&name);
        }
    }

    /// Lets the endpoint do what is due, takes out what it has, and looks at everything that waits.
    async fn turn(&mut self, now: Instant) {
        if self.endpoint.poll_timeout().is_some_and(|(due, _)| due <= now) {
            self.endpoint.handle_timeout(now);
        }
        self.drain(now).await;
        if self.look_at() <= now {
            self.news = false;
            if self.mtus_changed {
                self.set_mtus().await;
            }
            self.look_at_peers(now).await;
            self.look_at_jobs(now);
            // Those may have given the endpoint commands.
            self.drain(now).await;
            let end = clock::now();
            self.last_look = end;
            let pause = end.saturating_duration_since(now) * (LOOK_SHARE - 1);
            self.next_look = end + pause.min(LOOK_PAUSE_MOST);
        }
        if self.network_check.is_some_and(|at| at <= now) {
            self.look_at_network(now).await;
        }
        if self.counter_check <= now {
            self.extend_counters(now);
        }
        self.give_memory_back(now);
        if let Some((at, every)) = self.watchdog.filter(|(at, _)| *at <= now) {
            self.watchdog = Some((at.max(now) + every, every));
            if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
                tracing::debug!(%error, "the watchdog was not told");
            }
        }
        if self.mtu_check <= now {
            if self.mtu_paths.is_empty() {
                self.mtu_paths = self.paths();
                // Nothing of a peer is to depend on an event that never came.
                self.agenda.note_all();
                self.news = true;
                self.reread_revocation();
            }
            let rest = self.mtu_paths.len().saturating_sub(PATHS_AT_ONCE);
            let paths = self.mtu_paths.split_off(rest);
            self.read_path_mtus(&paths).await;
            self.mtu_check = if rest > 0 { now + MTU_PAUSE } else { now + MTU_INTERVAL };
        }
    }

    /// A flood of strangers leaves holes all over the heap, which the allocator would keep.
    fn give_memory_back(&mut self, now: Instant) {
        if self.endpoint.half_open() >= CROWD {
            let (at, _) = self.give_back.unwrap_or((now + GIVE_BACK_INTERVAL, 0));
            self.give_back = Some((at, GIVE_BACK_TIMES));
        }
        if let Some((at, times)) = self.give_back
            && at <= now
        {
            sys::give_memory_back();
            let next = (now + GIVE_BACK_INTERVAL, times.saturating_sub(1));
            self.give_back = (self.endpoint.half_open() > 0 || next.1 > 0).then_some(next);
        }
    }

    /// The next moment at which something is due.
    fn next_wake(&self) -> Instant {
        let endpoint = self.endpoint.poll_timeout().map(|(due, _)| due);
        let ours = self.look_at();
        endpoint.map_or(ours, |due| due.min(ours))
    }

    /// When peers and jobs are to be looked at.
    fn look_at(&self) -> Instant {
        let is_waited_for = self.ending
            || self.mtus_changed
            || !(self.ups.is_empty() && self.downs.is_empty() && self.rekeys.is_empty());
        let together = if is_waited_for { self.last_look } else { self.last_look + LOOK_PAUSE };
        let due = if self.news { together } else { self.next_of_ours() };
        due.max(self.next_look)
    }

    /// The next moment at which something of the driver itself is due.
    fn next_of_ours(&self) -> Instant {
        let ups = self.ups.iter().map(|job| job.deadline);
        let rekeys = self.rekeys.iter().map(|job| job.deadline);
        let checks = [self.mtu_check, self.counter_check];
        let give_back = self.give_back.map(|(at, _)| at);
        let all = self.agenda.next().into_iter().chain(ups).chain(rekeys).chain(checks);
        let watchdog = self.watchdog.map(|(at, _)| at);
        all.chain(give_back)
            .chain(watchdog)
            .chain(self.network_check)
            .min()
            .unwrap_or(self.mtu_check)
    }

    /// What keeps packets from leaving in clear is put back at once, though not more often than once a pause.
    fn expect_network_check(&mut self, now: Instant) {
        let due = if self.changes.is_urgent() { self.network_checked } else { now } + NETWORK_PAUSE;
        self.network_check = Some(self.network_check.map_or(due, |at| at.min(due)));
    }

    async fn look_at_network(&mut self, now: Instant) {
        (self.network_check, self.network_checked) = (None, now);
        let seen = self.changes.take();
        self.network.mend(&seen).await;
        if seen.of_host {
            self.look_at_addresses(now);
            self.drain(now).await;
        }
    }

    async fn hear_ike(&mut self, receiver: &mut Receiver) {
        let before = self.endpoint.stats().cookies_sent;
        for (path, message) in receiver.messages() {
            let now = clock::now();
            self.endpoint.handle_datagram(now, path, message);
            self.drain_events(now).await;
        }
        receiver.pace(clock::now(), self.endpoint.stats().cookies_sent - before);
    }

    async fn hear_worker(&mut self, message: FromWorker) -> Result<(), DaemonError> {
        match message {
            FromWorker::Notice(Notice::Acquire { policy, flow }) => {
                self.acquire(policy, flow);
            }
            FromWorker::Notice(Notice::Expire { spi, hard }) if self.has_manual(spi) => {
                self.manual_expires(spi, hard);
            }
            FromWorker::Notice(
                notice @ (Notice::Alive { .. }
                | Notice::Expire { .. }
                | Notice::Mismatch { .. }
                | Notice::NoSa { .. }
                | Notice::PeerMoved { .. }),
            ) => self.endpoint.handle_notice(clock::now(), notice),
            FromWorker::TooBig { path } => self.read_path_mtus(&[path]).await,
            FromWorker::Died { worker, reason } => {
                return Err(DaemonError::Worker { worker, reason });
            }
        }
        Ok(())
    }

    async fn hear_internal(&mut self, message: Internal) {
        match message {
            Internal::ClientGone(id) => self.client_gone(id),
            Internal::Heard { peer, remote, kind } => {
                if let Some(entry) = self.peers.get_mut(&peer) {
                    entry.hear(remote, kind);
                }
            }
            Internal::Resolved { peer, found } => self.addresses_found(&peer, found).await,
        }
    }

    /// Every IKE SA. A CHILD_SA that we may not send on yet counts as being installed.
    fn sas(&self, now: Instant) -> Vec<SaStatus> {
        self.installed(self.endpoint.status(now))
    }

    fn installed(&self, mut sas: Vec<SaStatus>) -> Vec<SaStatus> {
        let datapath = self.shared.datapath.load();
        let sad = datapath.sad();
        let is_installed = |inbound, outbound| {
            sad.inbound(inbound).is_some_and(|entry| {
                sad.outbound(entry.sa.params().policy, outbound, inbound).is_some()
            })
        };
        for child in sas.iter_mut().flat_map(|sa| &mut sa.children) {
            if child.state == "INSTALLED" && !is_installed(child.spi_inbound, child.spi_outbound) {
                child.state = "INSTALLING";
            }
        }
        sas
    }

    /// The IKE SAs of a peer.
    fn sas_of(&self, peer: &Arc<str>) -> Vec<SaStatus> {
        self.installed(self.endpoint.status_of(peer, clock::now()))
    }

    /// The IKE SAs that tell where a peer stands. Where anybody may come by a name there may be ten thousand, and one with a
    /// CHILD_SA tells as much as all.
    fn telling_sas_of(&self, peer: &Arc<str>) -> Vec<SaStatus> {
        let config = self.peers.get(peer).map(|entry| &entry.config);
        if config.is_some_and(|config| *config.address() != PeerAddress::Any) {
            return self.sas_of(peer);
        }
        let all = || self.endpoint.sas_with(peer, clock::now());
        let one = all().find(|sa| !sa.children.is_empty()).or_else(|| all().next());
        self.installed(one.into_iter().collect())
    }

    /// Takes everything out of the host again, after a failure without what refuses packets that nobody protects any more;
    /// returns the answers for after that.
    async fn tear_down(mut self, failed: bool) -> Vec<(jobs::Reply, Body)> {
        if failed {
            for mut entry in core::mem::take(&mut self.peers).into_values() {
                self.remove_manual(&mut entry);
            }
        } else {
            let names: Vec<_> = self.peers.keys().cloned().collect();
            self.finish_removals(&names).await;
        }
        self.look_at_jobs(clock::now());
        self.workers.stop();
        self.farewell
    }
}

/// The host's wall clock.
struct SystemClock;

impl WallClock for SystemClock {
    fn since_1970(&self) -> Duration {
        clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }
}
