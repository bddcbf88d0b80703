//! RFC 4301's own nouns: SPI, selectors, replay window, lifetime, the databases SAD, SPD and PAD (§4.4), and ESP and AH
//! themselves for one packet (RFC 4303, RFC 4302).
//!
//! Pure: time and randomness come in as arguments. Who moves the packets is `datapath`, who negotiates is `ike`.

pub mod ah;
pub mod buffer;
pub mod drop;
pub mod esp;
pub mod fixed;
pub mod identity;
pub mod inbound;
pub mod inner;
pub mod lifetime;
pub mod manual;
pub mod mtu;
pub mod outbound;
pub mod pace;
pub mod pad;
pub mod place;
mod protection;
pub mod replay;
pub mod sa;
pub mod sad;
pub mod selector;
pub mod services;
pub mod spd;
pub mod spi;
pub mod suite;
pub mod turn;
pub mod update;
pub mod worker;

pub use buffer::PacketBuf;
pub use drop::{DropCounters, DropReason};
pub use fixed::FixedPolicy;
pub use inbound::InboundSa;
pub use outbound::OutboundSa;
pub use pad::PolicyId;
pub use place::Place;
pub use sa::{DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Path, SaParams};
pub use spd::{Action, Spd, SpdEntry};
pub use spi::Spi;
pub use suite::{AhSuite, EspSuite, Protocol, Suite};
pub use turn::Turn;
pub use update::{Flow, Notice, SadUpdate};
pub use worker::Worker;

pub use crate::wire::ike::ts::TrafficSelector;
