//! RFC 4301's own nouns: SPI, selectors, replay window, lifetime, the databases SAD, SPD and PAD (§4.4), and ESP itself
//! for one packet (RFC 4303).
//!
//! Pure: time and randomness come in as arguments. Who moves the packets is `datapath`, who negotiates is `ike`.

pub mod buffer;
pub mod drop;
pub mod esp;
pub mod identity;
pub mod inner;
pub mod lifetime;
pub mod mtu;
pub mod pace;
pub mod pad;
pub mod place;
pub mod replay;
pub mod sa;
pub mod sad;
pub mod selector;
pub mod spd;
pub mod spi;
pub mod suite;
pub mod update;

pub use buffer::PacketBuf;
pub use drop::{DropCounters, DropReason};
pub use pad::PolicyId;
pub use place::Place;
pub use sa::{DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Path, SaParams};
pub use spd::{Action, Spd, SpdEntry};
pub use spi::Spi;
pub use suite::{AhSuite, EspSuite, Protocol, Suite};
pub use update::{Flow, Notice, SadUpdate};

pub use crate::wire::ike::ts::TrafficSelector;
