//! [`Sad`]: the Security Association Database (RFC 4301 §4.4.2), as a snapshot.
//!
//! [`Sad::apply`] makes the next snapshot of a [`SadUpdate`]. The SAs themselves, with their counters, sequence numbers
//! and replay windows, are shared by all snapshots. Inbound SAs are found by SPI, outbound ones by their policy.

mod table;

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::esp::{InboundSa, OutboundSa};
use super::mtu::tunnel_mtu_on;
use super::selector::matches_pair;
use super::{Flow, Mode, Path, PolicyId, SadUpdate, Spi};
use table::Table;

/// Why an update was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SadError {
    /// An SA of the same direction (and policy, if outbound) has this SPI.
    #[error("an SA with SPI {0} exists")]
    DuplicateSpi(Spi),
    /// The suite, or the length of its keys, is not one that the datapath has.
    #[error("SA {0}: the datapath has no ESP with this suite and keys of these lengths")]
    UnsupportedSuite(Spi),
    /// The datapath carries tunnel mode only.
    #[error("SA {0}: the datapath has no transport mode")]
    UnsupportedMode(Spi),
}

/// An inbound SA and where its packets are expected from.
#[derive(Clone, Debug)]
pub struct InboundEntry {
    /// The SA.
    pub sa: Arc<InboundSa>,
    /// Where its packets travel.
    pub path: Path,
    /// Longest inner packet that the peer can send without fragments, as far as our path MTU tells.
    pub mtu: usize,
    /// What its policy has carried.
    pub traffic: Arc<Traffic>,
}

/// An outbound SA and where its packets go.
#[derive(Clone, Debug)]
pub struct OutboundEntry {
    /// The SA.
    pub sa: Arc<OutboundSa>,
    /// Where its packets go.
    pub path: Path,
    /// Longest inner packet that leaves without fragments.
    pub mtu: usize,
    /// What its policy has carried.
    pub traffic: Arc<Traffic>,
}

/// What a policy has carried in all its SAs.
#[derive(Debug, Default)]
pub struct Traffic {
    inbound: Counter,
    outbound: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Sad {
    inbound: Table<InboundEntry>,
    /// The newest first.
    outbound: Table<Vec<OutboundEntry>>,
    traffic: BTreeMap<PolicyId, Arc<Traffic>>,
    /// Where a path MTU is known.
    path_mtus: BTreeMap<IpAddr, usize>,
    /// Elsewhere.
    default_path_mtu: usize,
}

impl Sad {
    /// No SA.
    #[must_use]
    pub fn new(default_path_mtu: usize) -> Self {
        Self {
            inbound: Table::default(),
            outbound: Table::default(),
            traffic: BTreeMap::new(),
            path_mtus: BTreeMap::new(),
            default_path_mtu,
        }
    }

    /// The inbound SA with our SPI.
    #[must_use]
    pub fn inbound(&self, spi: Spi) -> Option<&InboundEntry> {
        self.inbound.get(spi.get())
    }

    /// The outbound SAs of a policy, the newest first.
    #[must_use]
    pub fn outbound(&self, policy: PolicyId) -> &[OutboundEntry] {
        self.outbound.get(policy.0).map_or(&[], Vec::as_slice)
    }

    /// The newest outbound SA of a policy whose selectors, as the peer narrowed them, contain `flow`
    /// (RFC 7296 §2.8: a rekeyed SA is used as soon as it is there).
    #[must_use]
    pub fn outbound_for(&self, policy: PolicyId, flow: &Flow) -> Option<&OutboundEntry> {
        self.outbound(policy).iter().find(|entry| {
            let params = entry.sa.params();
            matches_pair(&params.ts_local, &params.ts_peer, flow)
        })
    }

    /// All inbound SAs, by SPI.
    pub fn all_inbound(&self) -> impl Iterator<Item = &InboundEntry> {
        self.inbound.iter()
    }

    /// All outbound SAs, by policy, the newest first.
    pub fn all_outbound(&self) -> impl Iterator<Item = &OutboundEntry> {
        self.outbound.iter().flatten()
    }

    /// What each policy that ever had an SA has carried.
    pub fn traffic(&self) -> impl Iterator<Item = (PolicyId, &Traffic)> {
        self.traffic.iter().map(|(&policy, traffic)| (policy, &**traffic))
    }

    /// The snapshot after an update. Removing or moving what is not there changes nothing.
    ///
    /// # Errors
    /// [`SadError`] if an SA cannot be added.
    pub fn apply(&self, update: &SadUpdate) -> Result<Self, SadError> {
        let mut next = self.clone();
        match update {
            SadUpdate::AddInbound(params) => {
                let spi = params.spi;
                if next.inbound(spi).is_some() {
                    return Err(SadError::DuplicateSpi(spi));
                }
                tunnel_only(params.mode, spi)?;
                let sa =
                    InboundSa::new((**params).clone()).ok_or(SadError::UnsupportedSuite(spi))?;
                let mtu = next.mtu_on(&params.path, sa.params().suite);
                let traffic = next.traffic_of(params.policy);
                let entry = InboundEntry { sa: Arc::new(sa), path: params.path, mtu, traffic };
                next.inbound.insert(spi.get(), entry);
            }
            SadUpdate::AddOutbound(params) => {
                let (policy, spi) = (params.policy, params.spi);
                if next.outbound(policy).iter().any(|entry| entry.sa.params().spi == spi) {
                    return Err(SadError::DuplicateSpi(spi));
                }
                tunnel_only(params.mode, spi)?;
                let sa =
                    OutboundSa::new((**params).clone()).ok_or(SadError::UnsupportedSuite(spi))?;
                let mtu = next.mtu_on(&params.path, sa.params().suite);
                let traffic = next.traffic_of(policy);
                let entry = OutboundEntry { sa: Arc::new(sa), path: params.path, mtu, traffic };
                match next.outbound.get_mut(policy.0) {
                    Some(entries) => entries.insert(0, entry),
                    None => next.outbound.insert(policy.0, vec![entry]),
                }
            }
            SadUpdate::MovePath { spi, path } => next.move_path(*spi, *path),
            SadUpdate::RemoveInbound(spi) => next.inbound.remove(spi.get()),
            SadUpdate::RemoveOutbound { policy, spi } => {
                if let Some(entries) = next.outbound.get_mut(policy.0) {
                    entries.retain(|entry| entry.sa.params().spi != *spi);
                    if entries.is_empty() {
                        next.outbound.remove(policy.0);
                    }
                }
            }
        }
        Ok(next)
    }

    /// The snapshot in which the path to `remote` carries packets of `mtu` bytes; `None` forgets what was known of it.
    #[must_use]
    pub fn with_path_mtu(&self, remote: IpAddr, mtu: Option<usize>) -> Self {
        let mut next = self.clone();
        match mtu {
            Some(mtu) => next.path_mtus.insert(remote, mtu),
            None => next.path_mtus.remove(&remote),
        };
        next.compute_mtus();
        next
    }

    /// The snapshot in which paths of which nothing is known carry packets of `mtu` bytes.
    #[must_use]
    pub fn with_default_path_mtu(&self, mtu: usize) -> Self {
        let mut next = Self { default_path_mtu: mtu, ..self.clone() };
        next.compute_mtus();
        next
    }

    /// The longest inner packet that fits into every outbound SA; `None` without an SA.
    #[must_use]
    pub fn smallest_mtu(&self) -> Option<usize> {
        self.all_outbound().map(|entry| entry.mtu).min()
    }

    /// Both SAs of a pair, which is named by the inbound SPI.
    fn move_path(&mut self, spi: Spi, path: Path) {
        let Some(entry) = self.inbound.get_mut(spi.get()) else { return };
        entry.path = path;
        let params = entry.sa.params();
        let (policy, other_spi) = (params.policy, params.other_spi);
        if let Some(entries) = self.outbound.get_mut(policy.0) {
            for entry in entries.iter_mut().filter(|entry| entry.sa.params().spi == other_spi) {
                entry.path = path;
            }
        }
        self.compute_mtus();
    }

    fn compute_mtus(&mut self) {
        let known = &self.path_mtus;
        let default = self.default_path_mtu;
        let mtu_on = |path: &Path, suite| {
            let path_mtu = known.get(&path.remote.ip()).copied().unwrap_or(default);
            tunnel_mtu_on(path, path_mtu, suite).unwrap_or(0)
        };
        for entry in self.inbound.iter_mut() {
            entry.mtu = mtu_on(&entry.path, entry.sa.params().suite);
        }
        for entry in self.outbound.iter_mut().flatten() {
            entry.mtu = mtu_on(&entry.path, entry.sa.params().suite);
        }
    }

    fn mtu_on(&self, path: &Path, suite: super::Suite) -> usize {
        let path_mtu = self.path_mtus.get(&path.remote.ip()).copied();
        tunnel_mtu_on(path, path_mtu.unwrap_or(self.default_path_mtu), suite).unwrap_or(0)
    }

    fn traffic_of(&mut self, policy: PolicyId) -> Arc<Traffic> {
        Arc::clone(self.traffic.entry(policy).or_default())
    }
}

impl Traffic {
    /// Counts an inner packet received.
    pub fn count_inbound(&self, len: usize) {
        self.inbound.count(len);
    }

    /// Counts an inner packet sent.
    pub fn count_outbound(&self, len: usize) {
        self.outbound.count(len);
    }

    /// Packets and bytes received.
    #[must_use]
    pub fn inbound(&self) -> (u64, u64) {
        self.inbound.get()
    }

    /// Packets and bytes sent.
    #[must_use]
    pub fn outbound(&self) -> (u64, u64) {
        self.outbound.get()
    }
}

impl Counter {
    fn count(&self, len: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(len as u64, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

fn tunnel_only(mode: Mode, spi: Spi) -> Result<(), SadError> {
    match mode {
        Mode::Tunnel => Ok(()),
        Mode::Transport => Err(SadError::UnsupportedMode(spi)),
    }
}
