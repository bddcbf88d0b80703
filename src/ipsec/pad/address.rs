//! Addresses and names that the Configuration payload gives (RFC 7296 §2.19, §3.15; RFC 8598).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What we ask a peer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRequest {
    /// The addresses, in the order in which they are asked for. Never empty.
    pub addresses: Vec<Wish>,
    /// Whether its DNS servers, and the domains that they are for, are asked for.
    pub dns: bool,
    /// The domains of which, and below which, an INTERNAL_DNS_DOMAIN is taken; `None`: of every one (RFC 8598 §5).
    pub domains: Option<Vec<String>>,
}

/// One address that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// INTERNAL_IP4_ADDRESS, perhaps this one.
    V4(Option<Ipv4Addr>),
    /// INTERNAL_IP6_ADDRESS, perhaps this one.
    V6(Option<Ipv6Addr>),
}

impl Wish {
    /// Whether it is for IPv6.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        matches!(self, Self::V6(_))
    }

    /// The very address that is wished for.
    #[must_use]
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::V4(address) => address.map(IpAddr::V4),
            Self::V6(address) => address.map(IpAddr::V6),
        }
    }
}

/// What a peer that asks gets, and without which it has no CHILD_SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// First and last address of each range. Never empty; both of one IP version.
    pub ranges: Vec<(IpAddr, IpAddr)>,
    /// Addresses of DNS servers.
    pub dns: Vec<IpAddr>,
    /// The domains that these servers are for (RFC 8598); none if `dns` is empty.
    pub domains: Vec<String>,
}

impl AddressPool {
    /// Whether an address is of the pool.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|(start, end)| {
            start.is_ipv6() == address.is_ipv6() && *start <= address && address <= *end
        })
    }
}
