//! [`Sad`]: the Security Association Database (RFC 4301 §4.4.2), as a snapshot.
//!
//! [`Sad::apply`] makes the next snapshot of a [`SadUpdate`]. The SAs themselves, with their counters, sequence numbers
//! and replay windows, are shared by all snapshots. Inbound SAs are found by SPI, outbound ones by policy and packet.

mod outbound;
mod table;

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;

use super::mtu::{header_len, max_len};
use super::selector::matches_addresses;
use super::{
    Encap, Flow, InboundSa, Mode, OutboundSa, Path, PolicyId, Protocol, SaParams, SadUpdate, Spi,
    Worker,
};
use outbound::Outbounds;
use table::Table;

/// Why an update was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SadError {
    /// An SA of the same direction has this SPI; if outbound, one of the same policy and with the same SPI of ours.
    #[error("an SA with SPI {0} exists")]
    DuplicateSpi(Spi),
    /// The suite, or the length of its keys, is not one that the datapath has.
    #[error("SA {0}: the datapath has no such suite with keys of these lengths")]
    UnsupportedSuite(Spi),
    /// Two SAs that cannot be applied together: only AH in transport mode goes around ESP, and not in UDP.
    #[error("SA {0}: only AH in transport mode goes around ESP, and not in UDP")]
    UnsupportedBundle(Spi),
}

/// How an inbound SA belongs together with another, so that neither is of use alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bundle {
    /// AH, in which must be ESP with this SPI.
    Around(Spi),
    /// ESP, which must be in AH with this SPI.
    Inside(Spi),
}

/// An inbound SA and where its packets are expected from.
#[derive(Clone, Debug)]
pub struct InboundEntry {
    /// The SA.
    pub sa: Arc<InboundSa>,
    /// Where its packets travel.
    pub path: Path,
    /// Longest packet that the peer can protect and send without fragments, as far as our path MTU tells.
    pub mtu: usize,
    /// The SA that it is nothing without.
    pub bundle: Option<Bundle>,
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
    /// Longest packet that leaves without fragments: the inner one in tunnel mode, in transport mode a whole one without
    /// options or extension headers.
    pub mtu: usize,
    /// Longest outer packet that leaves without fragments.
    pub path_mtu: usize,
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
    inbound: Table<u32, InboundEntry>,
    outbound: Outbounds,
    /// How many of the outbound SAs are in transport mode.
    transport: usize,
    paths: PathMtus,
}

/// What is known of the paths.
#[derive(Clone, Debug)]
struct PathMtus {
    /// Where a path MTU is known.
    known: Table<IpAddr, usize>,
    /// Elsewhere.
    default: usize,
}

impl Sad {
    /// No SA.
    #[must_use]
    pub fn new(default_path_mtu: usize) -> Self {
        Self {
            inbound: Table::default(),
            outbound: Outbounds::default(),
            transport: 0,
            paths: PathMtus { known: Table::default(), default: default_path_mtu },
        }
    }

    /// The inbound SA with our SPI.
    #[must_use]
    pub fn inbound(&self, spi: Spi) -> Option<&InboundEntry> {
        self.inbound.get(spi.get())
    }

    /// Whether a policy has an outbound SA.
    #[must_use]
    pub fn has_outbound(&self, policy: PolicyId) -> bool {
        self.outbound.has(policy)
    }

    /// The outbound SA of a policy with these SPIs: the peer's, and ours of the pair.
    #[must_use]
    pub fn outbound(&self, policy: PolicyId, spi: Spi, other_spi: Spi) -> Option<&OutboundEntry> {
        self.outbound.get(policy, spi, other_spi)
    }

    /// The newest outbound SA of a policy whose selectors, as the peer narrowed them, contain `flow`
    /// (RFC 7296 §2.8: a rekeyed SA is used as soon as it is there). Where several are there beside each other for the same packets,
    /// each worker has its own, and of those each flow (RFC 9611).
    #[must_use]
    pub fn outbound_for(
        &self,
        policy: PolicyId,
        flow: &Flow,
        worker: Worker,
    ) -> Option<&OutboundEntry> {
        self.outbound.find(policy, flow, worker)
    }

    /// Whether a fragment of this flow may belong to a packet that an SA in transport mode protects. Ports do not count:
    /// a later fragment has none.
    #[must_use]
    pub fn transport_takes(&self, flow: &Flow) -> bool {
        self.transport > 0
            && self.outbound.unordered().map(|entry| entry.sa.params()).any(|params| {
                params.mode == Mode::Transport
                    && matches_addresses(&params.ts_local, &params.ts_peer, flow)
            })
    }

    /// All inbound SAs, by SPI.
    pub fn all_inbound(&self) -> impl Iterator<Item = &InboundEntry> {
        self.inbound.iter().map(|(_, entry)| entry)
    }

    /// All outbound SAs, by policy; of those for the same packets the newest first.
    pub fn all_outbound(&self) -> impl Iterator<Item = &OutboundEntry> {
        self.outbound.iter()
    }

    /// What each policy that ever had an SA has carried.
    pub fn traffic(&self) -> impl Iterator<Item = (PolicyId, &Traffic)> {
        self.outbound.traffic()
    }

    /// The snapshot after an update. Removing or moving what is not there changes nothing.
    ///
    /// # Errors
    /// [`SadError`] if an SA cannot be added.
    pub fn apply(&self, update: &SadUpdate) -> Result<Self, SadError> {
        let mut next = self.clone();
        match update {
            SadUpdate::AddInbound(params) => next.add_inbound(params)?,
            SadUpdate::AddOutbound(params) => next.add_outbound(params)?,
            SadUpdate::MovePath { spi, path } => next.move_path(*spi, *path),
            SadUpdate::RemoveInbound(spi) => {
                let bundle = next.inbound(*spi).and_then(|entry| entry.bundle);
                next.inbound.remove(spi.get());
                if let Some(Bundle::Around(other) | Bundle::Inside(other)) = bundle {
                    next.inbound.remove(other.get());
                }
            }
            SadUpdate::RemoveOutbound { policy, spi, other_spi } => {
                if let Some(entry) = next.outbound.remove(*policy, *spi, *other_spi) {
                    next.transport -= usize::from(is_transport(&entry));
                }
            }
        }
        Ok(next)
    }

    fn add_inbound(&mut self, params: &SaParams) -> Result<(), SadError> {
        may_bundle(params)?;
        let around = params.around.as_deref();
        for spi in core::iter::once(params.spi).chain(around.map(|around| around.spi)) {
            if self.inbound(spi).is_some() || around.is_some_and(|ah| ah.spi == params.spi) {
                return Err(SadError::DuplicateSpi(spi));
            }
        }
        let entry = |params: &SaParams, bundle, traffic| {
            let sa = InboundSa::new(params.clone());
            let sa = Arc::new(sa.ok_or(SadError::UnsupportedSuite(params.spi))?);
            Ok(InboundEntry { sa, path: params.path, mtu: 0, bundle, traffic })
        };
        let traffic = self.outbound.traffic_of(params.policy);
        let inside = around.map(|around| Bundle::Inside(around.spi));
        let mut inner = entry(params, inside, Arc::clone(&traffic))?;
        inner.mtu = self.paths.mtus(params, around, &params.path).1;
        if let Some(around) = around {
            let mut outer = entry(around, Some(Bundle::Around(params.spi)), traffic)?;
            outer.mtu = self.paths.mtus(around, None, &around.path).1;
            self.inbound.insert(around.spi.get(), outer);
        }
        self.inbound.insert(params.spi.get(), inner);
        Ok(())
    }

    fn add_outbound(&mut self, params: &SaParams) -> Result<(), SadError> {
        may_bundle(params)?;
        let (policy, spi) = (params.policy, params.spi);
        if self.outbound(policy, spi, params.other_spi).is_some() {
            return Err(SadError::DuplicateSpi(spi));
        }
        let sa = OutboundSa::new(params.clone()).ok_or(SadError::UnsupportedSuite(spi))?;
        let (path_mtu, mtu) = self.paths.mtus(params, params.around.as_deref(), &params.path);
        let traffic = self.outbound.traffic_of(policy);
        let entry = OutboundEntry { sa: Arc::new(sa), path: params.path, mtu, path_mtu, traffic };
        self.transport += usize::from(is_transport(&entry));
        self.outbound.insert(entry);
        Ok(())
    }

    /// The snapshot in which the path to `remote` carries packets of `mtu` bytes; `None` forgets what was known of it.
    #[must_use]
    pub fn with_path_mtu(&self, remote: IpAddr, mtu: Option<usize>) -> Self {
        let mut next = self.clone();
        if self.paths.known.get(remote).copied() == mtu {
            return next;
        }
        match mtu {
            Some(mtu) => next.paths.known.insert(remote, mtu),
            None => next.paths.known.remove(remote),
        }
        // Nearly every path is like the others, and then there is nothing to look for.
        if next.paths.to(remote) != self.paths.to(remote) {
            next.compute_mtus(|path| path.remote.ip() == remote);
        }
        next
    }

    /// The longest outer packet that the path to `remote` carries, as far as is known.
    #[must_use]
    pub fn path_mtu(&self, remote: IpAddr) -> usize {
        self.paths.to(remote)
    }

    /// The snapshot that knows of no path but those to which an SA leads: what is left of peers that went away is forgotten.
    #[must_use]
    pub fn without_idle_paths(&self) -> Self {
        let used: BTreeSet<_> = self.outbound.unordered().map(|it| it.path.remote.ip()).collect();
        let known = self.paths.known.iter().map(|(remote, _)| remote);
        let idle: Vec<_> = known.filter(|remote| !used.contains(remote)).collect();
        let mut next = self.clone();
        idle.into_iter().for_each(|remote| next.paths.known.remove(remote));
        next
    }

    /// The snapshot in which paths of which nothing is known carry packets of `mtu` bytes.
    #[must_use]
    pub fn with_default_path_mtu(&self, mtu: usize) -> Self {
        let mut next = self.clone();
        next.paths.default = mtu;
        next.compute_mtus(|_| true);
        next
    }

    /// The longest inner packet that fits into every outbound SA; `None` without an SA.
    #[must_use]
    pub fn smallest_mtu(&self) -> Option<usize> {
        self.outbound.unordered().map(|entry| entry.mtu).min()
    }

    /// Both SAs of a pair, which is named by the inbound SPI.
    fn move_path(&mut self, spi: Spi, path: Path) {
        let Some(entry) = self.inbound(spi) else { return };
        let params = entry.sa.params();
        let is_esp = params.suite.protocol() == Protocol::Esp;
        // RFC 3948 §1: AH cannot go in UDP.
        if path.encap == Encap::Udp && (!is_esp || entry.bundle.is_some()) {
            return;
        }
        let (policy, other_spi) = (params.policy, params.other_spi);
        let around = match entry.bundle {
            Some(Bundle::Inside(around)) => Some(around),
            Some(Bundle::Around(_)) | None => None,
        };
        for spi in core::iter::once(spi).chain(around) {
            let mtu = self.inbound(spi).map_or(0, |entry| self.inbound_mtu(entry, &path));
            if let Some(entry) = self.inbound.get_mut(spi.get()) {
                (entry.path, entry.mtu) = (path, mtu);
            }
        }
        let paths = &self.paths;
        self.outbound.change(policy, other_spi, spi, |entry| {
            entry.path = path;
            entry.compute_mtus(paths);
        });
    }

    /// Of the SAs whose path is meant.
    fn compute_mtus(&mut self, is_meant: impl Fn(&Path) -> bool) {
        let bundles = self.inbound.unordered().filter(|entry| is_meant(&entry.path));
        let bundles: BTreeMap<_, _> = bundles
            .filter(|entry| matches!(entry.bundle, Some(Bundle::Inside(_))))
            .map(|entry| (entry.sa.params().spi, self.inbound_mtu(entry, &entry.path)))
            .collect();
        let paths = &self.paths;
        self.inbound.update(
            |entry| is_meant(&entry.path),
            |entry| {
                let params = entry.sa.params();
                entry.mtu = match bundles.get(&params.spi) {
                    Some(mtu) => *mtu,
                    None => paths.mtus(params, None, &entry.path).1,
                };
            },
        );
        self.outbound.change_all(|entry| is_meant(&entry.path), |entry| entry.compute_mtus(paths));
    }

    /// The longest packet of an inbound SA, if it came by `path`.
    fn inbound_mtu(&self, entry: &InboundEntry, path: &Path) -> usize {
        let around = match entry.bundle {
            Some(Bundle::Inside(spi)) => self.inbound(spi).map(|around| around.sa.params()),
            Some(Bundle::Around(_)) | None => None,
        };
        self.paths.mtus(entry.sa.params(), around, path).1
    }
}

impl InboundEntry {
    /// As [`InboundSa::fetch`], and where is counted what the policy carries.
    #[inline]
    pub fn fetch(&self) {
        core::hint::black_box(self.traffic.inbound());
        self.sa.fetch();
    }
}

impl OutboundEntry {
    /// As [`OutboundSa::fetch`], and where is counted what the policy carries.
    #[inline]
    pub fn fetch(&self) {
        core::hint::black_box(self.traffic.outbound());
        self.sa.fetch();
    }

    fn compute_mtus(&mut self, paths: &PathMtus) {
        let around = self.sa.around().map(|around| around.params());
        (self.path_mtu, self.mtu) = paths.mtus(self.sa.params(), around, &self.path);
    }
}

impl Traffic {
    /// Counts inner packets received, `len` bytes in all.
    pub fn count_inbound(&self, packets: usize, len: usize) {
        self.inbound.count(packets, len);
    }

    /// Counts inner packets sent, `len` bytes in all.
    pub fn count_outbound(&self, packets: usize, len: usize) {
        self.outbound.count(packets, len);
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
    fn count(&self, packets: usize, len: usize) {
        self.packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.bytes.fetch_add(len as u64, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl PathMtus {
    /// Longest outer packet on the way to `remote`.
    fn to(&self, remote: IpAddr) -> usize {
        self.known.get(remote).copied().unwrap_or(self.default)
    }

    /// Longest outer packet on a path, and longest packet to be protected for it.
    fn mtus(&self, params: &SaParams, around: Option<&SaParams>, path: &Path) -> (usize, usize) {
        let path_mtu = self.to(path.remote.ip());
        let header = header_len(path.remote.is_ipv6());
        (path_mtu, max_len(params, around, path, path_mtu, header).unwrap_or(0))
    }
}

fn is_transport(entry: &OutboundEntry) -> bool {
    entry.sa.params().mode == Mode::Transport
}

/// RFC 4301 §4.3 leaves nesting to the policy; this is the one that there is.
fn may_bundle(params: &SaParams) -> Result<(), SadError> {
    let Some(around) = &params.around else { return Ok(()) };
    let possible = params.suite.protocol() == Protocol::Esp
        && around.suite.protocol() == Protocol::Ah
        && around.mode == Mode::Transport
        && around.around.is_none()
        && params.path == around.path
        && params.path.encap == Encap::Plain;
    possible.then_some(()).ok_or(SadError::UnsupportedBundle(params.spi))
}
