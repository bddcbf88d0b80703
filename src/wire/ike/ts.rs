//! Traffic Selector payloads, TSi and TSr (RFC 7296 §3.13).

use core::net::IpAddr;

/// One Traffic Selector (RFC 7296 §3.13.1): a range of addresses of one IP version, a range of ports and
/// an IP protocol. All bounds are inclusive.
///
/// For ICMP the port fields hold type (high byte) and code (low byte); OPAQUE is `start_port = 0xffff`,
/// `end_port = 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Lowest port.
    pub start_port: u16,
    /// Highest port.
    pub end_port: u16,
    /// Lowest address.
    pub start_addr: IpAddr,
    /// Highest address; of the same version as `start_addr`.
    pub end_addr: IpAddr,
}
