//! What makes an SA: [`SaParams`], handed from IKE (or manual keys) to the SAD (RFC 4301 §4.4.2.1).

use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use super::{PolicyId, Spi, TrafficSelector, suite::Suite};
use crate::crypto::Secret;

/// Where packets of an SA, or IKE messages, travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our address and port. The port is that of IKE (500 or 4500); raw ESP has none and ignores it.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// How ESP travels on this path.
    pub encap: Encap,
}

impl Path {
    /// The path with UDP encapsulation, which is never on port 500 (RFC 7296 §2.23).
    #[must_use]
    pub const fn on_port_4500(mut self) -> Self {
        if self.local.port() == 500 {
            self.local.set_port(4500);
            self.remote.set_port(4500);
        }
        self.encap = Encap::Udp;
        self
    }
}

/// How ESP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// As IP protocol 50; for IKE: without the non-ESP marker (port 500).
    Plain,
    /// In UDP (RFC 3948), port 4500 at our end; IKE with the non-ESP marker.
    Udp,
}

/// Tunnel or transport (RFC 4301 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The inner packet is a whole IP packet.
    Tunnel,
    /// The inner packet is the payload of the outer one.
    Transport,
}

/// What becomes of the DF bit of an IPv4 inner packet in the outer header (RFC 4301 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DfPolicy {
    /// Never set it.
    Clear,
    /// As the inner header has it; an IPv6 inner packet counts as set.
    #[default]
    Copy,
    /// Always set it.
    Set,
}

/// The DSCP of the outer header (RFC 4301 §5.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DscpPolicy {
    /// As the inner header has it.
    #[default]
    Copy,
    /// This value, 0–63.
    Set(u8),
}

/// When an SA is to be replaced and when it ends (RFC 4301 §4.4.2.1). `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// After this time a replacement is negotiated.
    pub soft_time: Option<Duration>,
    /// After this time the SA ends.
    pub hard_time: Option<Duration>,
    /// After this many bytes (of IP packets before encapsulation) a replacement is negotiated.
    pub soft_bytes: Option<u64>,
    /// After this many bytes the SA ends.
    pub hard_bytes: Option<u64>,
    /// After this many packets a replacement is negotiated.
    pub soft_packets: Option<u64>,
    /// After this many packets the SA ends.
    pub hard_packets: Option<u64>,
}

/// One direction of a CHILD_SA: everything the SAD keeps of it (RFC 4301 §4.4.2.1).
#[derive(Clone, Debug)]
pub struct SaParams {
    /// Inbound: ours, chosen by us. Outbound: the peer's.
    pub spi: Spi,
    /// The SPI of the other direction.
    pub other_spi: Spi,
    /// The SPD entry it belongs to.
    pub policy: PolicyId,
    /// Name of the peer, for logs and status.
    pub peer: Arc<str>,
    /// Where its packets travel; for inbound what is expected, for outbound where they go.
    pub path: Path,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Protocol and algorithms.
    pub suite: Suite,
    /// Encryption key, an AEAD's or CTR's salt at its end (RFC 4106 §8.1); empty with AH.
    pub encr_key: Secret,
    /// Integrity key; empty with an AEAD.
    pub integ_key: Secret,
    /// Which of several SAs beside each other for the same packets it is (RFC 9611), by a number of ours; `None`: the only one, or
    /// the one that takes what no other does.
    pub resource: Option<u16>,
    /// Selectors of our side, as negotiated.
    pub ts_local: Arc<[TrafficSelector]>,
    /// Selectors of the peer's side, as negotiated.
    pub ts_peer: Arc<[TrafficSelector]>,
    /// The last sequence number that was used, or received, on it; 0 for a new SA.
    pub sequence: u64,
    /// Replay window in packets, at most 8192; 0 is no check (RFC 4303 §3.4.3).
    pub replay_window: u32,
    /// Bytes and packets count in the datapath; time counts in IKE.
    pub lifetime: Lifetime,
    /// DF bit of the outer header.
    pub df: DfPolicy,
    /// DSCP of the outer header.
    pub dscp: DscpPolicy,
    /// Tunnel mode ESP: shorter packets are padded to this many bytes, as far as the path MTU allows (traffic flow
    /// confidentiality, RFC 4303 §2.7); 0 for none.
    pub tfc: u16,
    /// What the length of AH over IPv4 is a multiple of, in bytes: 4 (RFC 4302 §3.3.3.2.1), or 8 for peers that
    /// want that (Linux without `align4`). Over IPv6 it is always 8.
    pub ah_align: u8,
    /// The AH SA whose protection goes around this ESP SA's: two SAs that are applied together, in transport mode
    /// (RFC 4301 §4.3 leaves such nesting to policy).
    pub around: Option<Box<Self>>,
}
