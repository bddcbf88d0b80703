//! How long an inner packet may be so that the outer one fits into a path (RFC 4301 §8).

use super::{Encap, Path, esp::EspLayout, suite::Suite};

/// Length of an IPv4 header without options.
const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// Length of a UDP header (RFC 3948 §2.1).
const UDP_HEADER: usize = 8;

/// Length of the longest inner packet that stays, sealed, within `path_mtu` bytes; `None` if none does, or the suite
/// is unknown.
#[must_use]
pub fn tunnel_mtu(
    path_mtu: usize,
    suite: impl Into<Suite>,
    encap: Encap,
    outer_is_ipv6: bool,
) -> Option<usize> {
    let outer = if outer_is_ipv6 { IPV6_HEADER } else { IPV4_HEADER };
    let udp = match encap {
        Encap::Plain => 0,
        Encap::Udp => UDP_HEADER,
    };
    EspLayout::of(suite.into().esp()?)?.max_inner_len(path_mtu.checked_sub(outer + udp)?)
}

/// [`tunnel_mtu`] on a path.
#[must_use]
pub fn tunnel_mtu_on(path: &Path, path_mtu: usize, suite: Suite) -> Option<usize> {
    tunnel_mtu(path_mtu, suite, path.encap, path.remote.is_ipv6())
}
