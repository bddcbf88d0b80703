//! IKEv2 (RFC 7296) without I/O: datagrams, time and randomness come in, datagrams and events come out.
//!
//! [`Endpoint`] is the whole of it to the outside. Nothing here knows sockets, clocks, files or the datapath.

pub mod endpoint;
pub mod event;
pub mod keymat;
pub mod proposal;
pub mod protect;

pub use endpoint::{Endpoint, EndpointConfig, Env};
pub use event::{
    ChildStatus, CloseReason, Command, CommandError, Event, Phase, SaStatus, TimerKind, Transmit,
};
