//! IKEv2 (RFC 7296) without I/O: datagrams, time and randomness come in, datagrams and events come out.
//!
//! [`Endpoint`] is the whole of it to the outside. Nothing here knows sockets, clocks, files or the datapath.

mod announce;
pub mod cert;
mod child_sa;
pub mod configuration;
mod cookie;
pub mod eap;
mod endpoint;
pub mod event;
mod exchange;
mod frag;
mod glance;
mod half_open;
mod identity;
mod ike_sa;
mod ike_sas;
pub mod keymat;
mod lease;
mod limits;
mod narrow;
mod natd;
mod peers;
mod policy;
pub mod proposal;
pub mod protect;
mod puzzle;
mod qcd;
mod rate;
mod rules;
mod stats;
mod timers;
mod window;

pub use cert::CertFault;
pub use configuration::Configuration;
pub use eap::{EapFault, UserName};
pub use endpoint::{Endpoint, EndpointConfig, Env, WallClock};
pub use event::{
    ChildStatus, CloseReason, Command, CommandError, Event, Phase, SaStatus, TimerKind, Transmit,
};
pub use peers::Cost;
pub use stats::Stats;
