//! Counters, read at one moment: [`DatapathStats`], for status and metrics.

use std::sync::Arc;

use crate::ipsec::lifetime::Usage;
use crate::ipsec::sad::{InboundEntry, OutboundEntry, Traffic};
use crate::ipsec::{DropCounters, DropReason, Mode, Path, PolicyId, SaParams, Spi, Suite};

/// What the datapath has done since it was made. Counters are read one after the other while workers go on.
#[derive(Clone, Debug, Default)]
pub struct DatapathStats {
    /// What each policy has carried in all its SAs, by policy.
    pub policies: Vec<PolicyStats>,
    /// Inbound SAs, by SPI.
    pub inbound: Vec<SaStats>,
    /// Outbound SAs, by policy, the newest first.
    pub outbound: Vec<SaStats>,
    /// Every packet dropped, by reason: those that no SA could be charged with, too.
    pub drops: Vec<(DropReason, u64)>,
    /// NAT keepalives received.
    pub keepalives: u64,
    /// Packets that passed unprotected.
    pub bypassed: u64,
}

/// What a policy has carried, over all its SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyStats {
    /// The SPD entry.
    pub policy: PolicyId,
    /// Packets received.
    pub inbound_packets: u64,
    /// Bytes of inner packets received.
    pub inbound_bytes: u64,
    /// Packets sent.
    pub outbound_packets: u64,
    /// Bytes of inner packets sent.
    pub outbound_bytes: u64,
}

/// One SA.
#[derive(Clone, Debug)]
pub struct SaStats {
    /// Its SPI.
    pub spi: Spi,
    /// The SPI of the other direction.
    pub other_spi: Spi,
    /// Its SPD entry.
    pub policy: PolicyId,
    /// Name of the peer.
    pub peer: Arc<str>,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Protocol and algorithms.
    pub suite: Suite,
    /// Where it travels.
    pub path: Path,
    /// Inner packets that passed.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Outbound: the last sequence number used. Inbound: the highest received.
    pub sequence: u64,
    /// Longest packet that fits without fragmentation once it is protected: the inner one, or in transport mode a whole
    /// one.
    pub mtu: usize,
    /// Packets dropped under this SA, by reason.
    pub drops: Vec<(DropReason, u64)>,
}

impl PolicyStats {
    pub(super) fn of(policy: PolicyId, traffic: &Traffic) -> Self {
        let (inbound_packets, inbound_bytes) = traffic.inbound();
        let (outbound_packets, outbound_bytes) = traffic.outbound();
        Self { policy, inbound_packets, inbound_bytes, outbound_packets, outbound_bytes }
    }
}

impl SaStats {
    pub(super) fn of_inbound(entry: &InboundEntry) -> Self {
        let sa = &entry.sa;
        Self::of(sa.params(), entry.path, entry.mtu, sa.usage(), sa.sequence(), &sa.drops)
    }

    /// The SA, and the one around it.
    pub(super) fn of_outbound(entry: &OutboundEntry) -> impl Iterator<Item = Self> {
        core::iter::once(&entry.sa).chain(entry.sa.around()).map(|sa| {
            Self::of(sa.params(), entry.path, entry.mtu, sa.usage(), sa.sequence(), &sa.drops)
        })
    }

    fn of(
        params: &SaParams,
        path: Path,
        mtu: usize,
        usage: &Usage,
        sequence: u64,
        drops: &DropCounters,
    ) -> Self {
        Self {
            spi: params.spi,
            other_spi: params.other_spi,
            policy: params.policy,
            peer: Arc::clone(&params.peer),
            mode: params.mode,
            suite: params.suite,
            path,
            packets: usage.packets(),
            bytes: usage.bytes(),
            sequence,
            mtu,
            drops: drops.nonzero(),
        }
    }
}
