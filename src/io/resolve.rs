//! Names to addresses.

use core::net::IpAddr;
use std::io;
use std::net::ToSocketAddrs;

use crate::ipsec::pad::PeerAddress;

/// The addresses of a peer, in the resolver's order, each once. Empty for [`PeerAddress::Any`].
///
/// # Errors
/// Those of getaddrinfo(3), through tokio.
pub async fn addresses(peer: &PeerAddress) -> io::Result<Vec<IpAddr>> {
    match peer {
        PeerAddress::Any => Ok(Vec::new()),
        PeerAddress::Ip(addr) => Ok(vec![*addr]),
        PeerAddress::Name(name) => {
            let mut found = Vec::new();
            for addr in tokio::net::lookup_host((name.as_str(), 0)).await? {
                if !found.contains(&addr.ip()) {
                    found.push(addr.ip());
                }
            }
            Ok(found)
        }
    }
}

/// The same, waiting for it in this thread.
///
/// # Errors
/// Those of getaddrinfo(3).
pub fn addresses_now(peer: &PeerAddress) -> io::Result<Vec<IpAddr>> {
    match peer {
        PeerAddress::Any => Ok(Vec::new()),
        PeerAddress::Ip(addr) => Ok(vec![*addr]),
        PeerAddress::Name(name) => {
            let mut found = Vec::new();
            for addr in (name.as_str(), 0).to_socket_addrs()? {
                if !found.contains(&addr.ip()) {
                    found.push(addr.ip());
                }
            }
            Ok(found)
        }
    }
}
