//! The harness that tests, benches and fuzz targets share (feature `testing`): a world without sockets, clocks or chance.
//!
//! [`Pair`] is two [`Endpoint`](crate::ike::Endpoint)s, each with a [`ModelSad`], joined by a seeded [`Link`] under a
//! [`VirtualClock`]. [`Stage`] is one endpoint before a [`Puppet`], a peer that does what it is told. Everything that
//! happens follows from the seed, and [`Trace`] has a hash that says so. [`fuzz`] has the bodies of the fuzz targets.
//! [`gateways`] has two datapaths for every kind of SA.
//! `docs/testing.md` tells how to write a test with all this.

mod clock;
pub mod eap;
mod exchanges;
pub mod fuzz;
mod fuzz_ah;
mod fuzz_datapath;
mod fuzz_endpoint;
mod fuzz_offload;
pub mod gateways;
mod host;
mod link;
mod pair;
pub mod peers;
mod puppet;
mod random;
mod sad;
mod state;
mod trace;

pub use clock::VirtualClock;
pub use fuzz_datapath::{inbound_packet, outbound_packet, spoil};
pub use host::HostPacket;
pub use link::{Link, LinkConfig, Nat};
pub use pair::{A, B, Held, Missed, Node, Pair, Side};
pub use puppet::{Puppet, Stage};
pub use random::FixedRandom;
pub use sad::{ModelSad, Violation};
pub use state::State;
pub use trace::{MessageInfo, Trace};
