//! The operator's socket: what is said on it ([`protocol`]), who listens ([`server`]) and who calls ([`client`]).

pub mod capture;
pub mod client;
pub mod explain;
pub mod protocol;
pub mod server;
pub mod services;
pub mod trace;
