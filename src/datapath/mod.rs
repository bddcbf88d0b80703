//! The way of a packet: SPD, SAD, ESP or AH, encapsulation; batch in, batch out, `&self`, never waiting for IKE.
//!
//! A [`Datapath`] is a snapshot of SAD, SPD and options. IKE's updates make a new one; a worker takes the newest once
//! for each batch. Counters, sequence numbers and replay windows are shared by all snapshots.
//!
//! In tunnel mode with ESP, outer IP and UDP headers are the sockets', and this module says what has to be in them. AH
//! covers the outer header, and in transport mode there is but one: there packets leave and come whole.

pub mod audit;
mod batch;
pub mod coalesce;
mod decide;
pub mod ecn;
pub mod explain;
pub mod filter;
mod fragment;
pub mod hold;
mod inbound;
mod mss;
mod outbound;
mod outer;
mod pmtu;
pub mod probe;
mod reassembly;
mod refused;
pub mod segment;
mod stats;
pub mod tap;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

pub use audit::{Audited, Audits};
pub use batch::{
    Delivered, Form, IkeDatagram, InboundBatch, OutboundBatch, Received, Sealed, SealedPackets,
    Waiting,
};
pub use ecn::Ecn;
pub use hold::Hold;
pub use outbound::{MAX_RUN, MAX_RUN_LEN};
pub use stats::{DatapathStats, PolicyStats, SaStats};

pub use crate::ipsec::mtu::tunnel_mtu;
pub use crate::ipsec::{DropCounters, DropReason, PacketBuf};

use crate::ipsec::pace::{Budget, PaceTable};
use crate::ipsec::sad::{Sad, SadError};
use crate::ipsec::{Flow, Path, PolicyId, SadUpdate, Spd};
use reassembly::Reassembly;
use tap::Tap;

/// [`Notice::Acquire`](crate::ipsec::Notice::Acquire) is repeated for one policy and flow after this many milliseconds.
const ACQUIRE_INTERVAL: u32 = 1000;
/// For all flows together, so many in a second.
const ACQUIRE_BUDGET: u32 = 50;
/// [`Notice::NoSa`](crate::ipsec::Notice::NoSa) is repeated for one sender after this many milliseconds.
const NO_SA_INTERVAL: u32 = 1000;
/// For all senders together, which may be forged, so many in a second.
const NO_SA_BUDGET: u32 = 10;
/// Bytes of the INVALID_SPI message that may follow it, with its UDP header (RFC 7296 §3.1, §3.10): 8, 28, and 12.
const INVALID_SPI_LEN: usize = 48;
/// [`Notice::PeerMoved`](crate::ipsec::Notice::PeerMoved) is repeated after this many milliseconds.
const MOVED_INTERVAL: u64 = 250;
/// [`Notice::Mismatch`](crate::ipsec::Notice::Mismatch) is repeated for one SA after this many milliseconds.
const MISMATCH_INTERVAL: u64 = 10_000;
/// ICMP messages in a second: enough for each of many connections to learn its MTU.
const ICMP_BUDGET: u32 = 1000;

/// What holds for the whole datapath.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path MTU towards peers of which nothing else is known: usually that of the link to them.
    pub path_mtu: usize,
    /// Whether the MSS of TCP SYNs is lowered to what fits into the tunnel, in both directions.
    pub clamp_mss: bool,
    /// Source of ICMP messages; `None`: the destination of the packet that they answer.
    pub icmp_source_v4: Option<Ipv4Addr>,
    /// Source of ICMPv6 messages; `None`: the destination of the packet that they answer.
    pub icmp_source_v6: Option<Ipv6Addr>,
    /// An inbound SA says [`Notice::Alive`](crate::ipsec::Notice::Alive) at most once in this time.
    pub alive_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path_mtu: 1500,
            clamp_mss: true,
            icmp_source_v4: None,
            icmp_source_v6: None,
            alive_interval: Duration::from_secs(1),
        }
    }
}

/// A snapshot of SAD, SPD and options.
#[derive(Clone, Debug)]
pub struct Datapath {
    sad: Sad,
    spd: Spd,
    options: Options,
    shared: Arc<Shared>,
}

/// What all snapshots share.
#[derive(Debug)]
struct Shared {
    /// Where the milliseconds begin.
    epoch: Instant,
    drops: DropCounters,
    keepalives: AtomicU64,
    bypassed: AtomicU64,
    tap: Tap,
    acquire: PaceTable,
    acquire_budget: Budget,
    no_sa: PaceTable,
    no_sa_budget: Budget,
    icmp_budget: Budget,
    reassembly: Reassembly,
    ident: AtomicU16,
}

impl Datapath {
    /// No SA yet. `now` is where its clocks start.
    #[must_use]
    pub fn new(options: Options, spd: Spd, now: Instant) -> Self {
        Self {
            sad: Sad::new(options.path_mtu),
            spd,
            options,
            shared: Arc::new(Shared {
                epoch: now,
                drops: DropCounters::new(),
                keepalives: AtomicU64::new(0),
                bypassed: AtomicU64::new(0),
                tap: Tap::default(),
                acquire: PaceTable::new(),
                acquire_budget: Budget::new(),
                no_sa: PaceTable::new(),
                no_sa_budget: Budget::new(),
                icmp_budget: Budget::new(),
                reassembly: Reassembly::default(),
                ident: AtomicU16::new(0),
            }),
        }
    }

    /// The snapshot with another SPD; SAs stay.
    #[must_use]
    pub fn with_spd(&self, spd: Spd) -> Self {
        Self { spd, ..self.clone() }
    }

    /// The snapshot with other options; SAs stay.
    #[must_use]
    pub fn with_options(&self, options: Options) -> Self {
        let sad = self.sad.with_default_path_mtu(options.path_mtu);
        Self { sad, options, ..self.clone() }
    }

    /// The snapshot in which outer packets to `remote` may be `mtu` bytes long; `None` goes back to the option's.
    #[must_use]
    pub fn with_path_mtu(&self, remote: IpAddr, mtu: Option<usize>) -> Self {
        Self { sad: self.sad.with_path_mtu(remote, mtu), ..self.clone() }
    }

    /// The snapshot that has forgotten the path MTUs towards whom no SA leads to.
    #[must_use]
    pub fn without_idle_paths(&self) -> Self {
        Self { sad: self.sad.without_idle_paths(), ..self.clone() }
    }

    /// The snapshot after an update. Removing or moving what is not there changes nothing.
    ///
    /// # Errors
    /// [`SadError`] if an SA cannot be added.
    pub fn apply(&self, update: &SadUpdate) -> Result<Self, SadError> {
        Ok(Self { sad: self.sad.apply(update)?, ..self.clone() })
    }

    /// The SPD.
    #[must_use]
    pub const fn spd(&self) -> &Spd {
        &self.spd
    }

    /// The SAD.
    #[must_use]
    pub const fn sad(&self) -> &Sad {
        &self.sad
    }

    /// The options.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// The longest inner packet that fits into every outbound SA; `None` without an SA. May be less than the 1280 that
    /// IPv6 needs of a device: a TUN that carries IPv6 must not be set lower, and longer packets are taken care of.
    #[must_use]
    pub fn tunnel_mtu(&self) -> Option<usize> {
        self.sad.smallest_mtu()
    }

    /// Where it is told what becomes of each packet.
    #[must_use]
    pub fn tap(&self) -> &Tap {
        &self.shared.tap
    }

    /// Counters at this moment.
    #[must_use]
    pub fn stats(&self) -> DatapathStats {
        DatapathStats {
            policies: self
                .sad
                .traffic()
                .map(|(id, traffic)| PolicyStats::of(id, traffic))
                .collect(),
            inbound: self.sad.all_inbound().map(SaStats::of_inbound).collect(),
            outbound: self.sad.all_outbound().flat_map(SaStats::of_outbound).collect(),
            drops: self.shared.drops.nonzero(),
            keepalives: self.shared.keepalives.load(Ordering::Relaxed),
            bypassed: self.shared.bypassed.load(Ordering::Relaxed),
        }
    }

    /// Counts a packet that its holder drops.
    fn count_drop(&self, reason: DropReason, policy: PolicyId, packet: &[u8]) {
        self.shared.drops.count(reason);
        if let Some(listeners) = self.shared.tap.listeners() {
            listeners.gave_up(reason, policy, packet);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.shared.epoch);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn alive_interval(&self) -> u64 {
        u64::try_from(self.options.alive_interval.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Shared {
    /// Identification of an IPv4 packet that we make, never 0: for that the kernel would put another in its place, and AH
    /// covers it.
    fn ident(&self) -> u16 {
        match self.ident.fetch_add(1, Ordering::Relaxed) {
            0 => self.ident.fetch_add(1, Ordering::Relaxed).max(1),
            ident => ident,
        }
    }

    /// RFC 4301 §5.1 asks for one SA, not for one with each packet.
    fn may_acquire(&self, now: u64, policy: PolicyId, flow: &Flow) -> bool {
        self.acquire.due((policy, flow), now, ACQUIRE_INTERVAL)
            && self.acquire_budget.take(now, ACQUIRE_BUDGET)
    }

    /// RFC 7296 §1.5: whoever answers to unknown SPIs must limit it.
    fn may_report_no_sa(&self, now: u64, path: &Path) -> bool {
        self.no_sa.due(path.remote.ip(), now, NO_SA_INTERVAL)
            && self.no_sa_budget.take(now, NO_SA_BUDGET)
    }

    fn may_answer(&self, now: u64) -> bool {
        self.icmp_budget.take(now, ICMP_BUDGET)
    }
}
