//! The way of a packet: SPD, SAD, ESP, encapsulation; batch in, batch out, `&self`, never waiting for IKE.
//!
//! A [`Datapath`] is a snapshot of SAD, SPD and options. IKE's updates make a new one; a worker takes the newest once
//! for each batch. Counters, sequence numbers and replay windows are shared by all snapshots.

mod batch;
pub mod ecn;
mod stats;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::time::Instant;

pub use batch::{IkeDatagram, InboundBatch, OutboundBatch, Received, Sealed};
pub use ecn::Ecn;
pub use stats::{DatapathStats, PolicyStats, SaStats};

pub use crate::ipsec::{DropCounters, DropReason, PacketBuf};
use crate::ipsec::{SadUpdate, Spd, sad::SadError};

/// What holds for the whole datapath.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path MTU towards peers of which nothing else is known: usually that of the link to them.
    pub path_mtu: usize,
    /// Whether the MSS of TCP SYNs is lowered to what fits into the tunnel.
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

/// A snapshot of SAD, SPD and options. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Datapath {}

#[expect(unused_variables, clippy::todo, reason = "being written")]
impl Datapath {
    /// No SA yet. `now` is where its clocks start.
    #[must_use]
    pub fn new(options: Options, spd: Spd, now: Instant) -> Self {
        todo!()
    }

    /// The snapshot with another SPD; SAs stay.
    #[must_use]
    pub fn with_spd(&self, spd: Spd) -> Self {
        todo!()
    }

    /// The snapshot with other options; SAs stay.
    #[must_use]
    pub fn with_options(&self, options: Options) -> Self {
        todo!()
    }

    /// The snapshot in which packets to `remote` may be `mtu` bytes long; `None` goes back to the option's.
    #[must_use]
    pub fn with_path_mtu(&self, remote: IpAddr, mtu: Option<usize>) -> Self {
        todo!()
    }

    /// The snapshot after an update. Removing or moving what is not there changes nothing.
    ///
    /// # Errors
    /// [`SadError`] if an SA cannot be added.
    pub fn apply(&self, update: &SadUpdate) -> Result<Self, SadError> {
        todo!()
    }

    /// Packets from the TUN. Every buffer of `packets` comes back empty.
    pub fn outbound_batch(&self, now: Instant, packets: &mut [PacketBuf], out: &mut OutboundBatch) {
        todo!()
    }

    /// Packets from the sockets: ports 4500 and protocol 50. Every buffer of `received` comes back empty.
    pub fn inbound_batch(&self, now: Instant, received: &mut [Received], out: &mut InboundBatch) {
        todo!()
    }

    /// The MTU for the TUN device: the longest packet that fits into every SA.
    #[must_use]
    pub fn tunnel_mtu(&self) -> Option<usize> {
        todo!()
    }

    /// Counters at this moment.
    #[must_use]
    pub fn stats(&self) -> DatapathStats {
        todo!()
    }
}
