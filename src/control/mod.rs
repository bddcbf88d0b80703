//! The operator's socket: what is said on it ([`protocol`]), who listens ([`server`]) and who calls ([`client`]).

pub mod client;
pub mod protocol;
pub mod server;
