//! How long a packet may be so that it fits into a path once it is protected (RFC 4301 §8).

use super::esp::EspLayout;
use super::protection::ah_len;
use super::{Encap, Mode, Path, SaParams, suite::Suite};
use crate::wire::ip::{Ipv4Repr, Ipv6Repr};

/// Length of a UDP header (RFC 3948 §2.1).
const UDP_HEADER: usize = 8;

/// Length of the longest inner packet that stays, sealed in tunnel mode, within `path_mtu` bytes; `None` if none does, or
/// the suite is unknown. AH over IPv4 with the padding that RFC 4302 has.
#[must_use]
pub fn tunnel_mtu(
    path_mtu: usize,
    suite: impl Into<Suite>,
    encap: Encap,
    outer_is_ipv6: bool,
) -> Option<usize> {
    let sa = Sa { suite: suite.into(), mode: Mode::Tunnel, ah_align: 4, encap, v6: outer_is_ipv6 };
    sa.max_len(path_mtu, header_len(outer_is_ipv6))
}

/// Length of the longest packet that stays within `path_mtu` bytes once it is protected by an SA, and by the one around it,
/// on a path. In transport mode that of a whole IP packet, of which the first `header` bytes stand before the IPsec
/// header.
#[must_use]
pub fn max_len(
    params: &SaParams,
    around: Option<&SaParams>,
    path: &Path,
    path_mtu: usize,
    header: usize,
) -> Option<usize> {
    let inside = match around {
        // What is in it is a whole packet already.
        Some(around) => Sa::of(around, path).max_len(path_mtu, header)?,
        None => path_mtu,
    };
    Sa::of(params, path).max_len(inside, header)
}

/// Length on the wire, from the outer IP header on, of a packet of `len` bytes that is protected by an SA, and by the one
/// around it, on a path: the reverse of [`max_len`]. Padding for traffic flow confidentiality is not in it. `None` if the
/// suite is unknown, or `len` less than `header`.
#[must_use]
pub fn sealed_len(
    params: &SaParams,
    around: Option<&SaParams>,
    path: &Path,
    len: usize,
    header: usize,
) -> Option<usize> {
    let sealed = Sa::of(params, path).sealed_len(len, header)?;
    match around {
        Some(around) => Sa::of(around, path).sealed_len(sealed, header),
        None => Some(sealed),
    }
}

/// Length of an IP header alone.
#[must_use]
pub const fn header_len(v6: bool) -> usize {
    if v6 { Ipv6Repr::LEN } else { Ipv4Repr::LEN }
}

/// What of an SA the lengths depend on.
struct Sa {
    suite: Suite,
    mode: Mode,
    ah_align: u8,
    encap: Encap,
    v6: bool,
}

impl Sa {
    const fn of(params: &SaParams, path: &Path) -> Self {
        Self {
            suite: params.suite,
            mode: params.mode,
            ah_align: params.ah_align,
            encap: path.encap,
            v6: path.remote.is_ipv6(),
        }
    }

    /// What stands before the IPsec header on the wire, and what of the packet stands there.
    const fn before(&self, header: usize) -> (usize, usize) {
        match (self.mode, self.encap) {
            (Mode::Tunnel, Encap::Plain) => (header_len(self.v6), 0),
            (Mode::Tunnel, Encap::Udp) => (header_len(self.v6) + UDP_HEADER, 0),
            (Mode::Transport, Encap::Plain) => (header, header),
            // The socket makes a header of its own.
            (Mode::Transport, Encap::Udp) => (header_len(self.v6) + UDP_HEADER, header),
        }
    }

    fn max_len(&self, path_mtu: usize, header: usize) -> Option<usize> {
        let (before, kept) = self.before(header);
        let room = path_mtu.checked_sub(before)?;
        let protected = match self.suite {
            Suite::Esp(suite) => EspLayout::of(suite)?.max_inner_len(room)?,
            Suite::Ah(suite) => room.checked_sub(ah_len(suite, self.ah_align, self.v6)?)?,
        };
        Some(protected + kept)
    }

    fn sealed_len(&self, len: usize, header: usize) -> Option<usize> {
        let (before, kept) = self.before(header);
        let payload = len.checked_sub(kept)?;
        let protected = match self.suite {
            Suite::Esp(suite) => EspLayout::of(suite)?.sealed_len(payload),
            Suite::Ah(suite) => payload + ah_len(suite, self.ah_align, self.v6)?,
        };
        Some(before + protected)
    }
}
