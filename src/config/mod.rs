//! Configuration files: [`Config`] cannot be invalid.

use core::net::IpAddr;
use std::path::PathBuf;

use crate::ipsec::pad::Peer;

/// One configuration file, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from.
    pub file: PathBuf,
    /// The peer; its policy ids are zero until the daemon gives them.
    pub peer: Peer,
    /// The TUN interface.
    pub interface: Interface,
    /// `[log] level`, a `tracing` filter, if given.
    pub log_level: Option<String>,
}

/// The TUN interface that the peer's traffic takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name; files that name the same one share it. Default `ipsec0`.
    pub name: String,
    /// Its MTU in bytes; `None`: from path MTU and suite.
    pub mtu: Option<u16>,
    /// Whether routes to the peer's subnets, and the policy routing rule, are set.
    pub routes: bool,
    /// Addresses to give to it, with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether the TCP MSS of forwarded connections is clamped to what fits.
    pub clamp_mss: bool,
}
