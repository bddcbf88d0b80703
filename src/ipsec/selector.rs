//! What traffic selectors mean (RFC 4301 §4.4.1.1, RFC 7296 §2.9, §3.13.1): which packets one contains, what two have in
//! common. Their form on the wire is in `wire::ike::ts`.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Flow, TrafficSelector};
use crate::wire::ip::NextHeader;

impl TrafficSelector {
    /// Every packet to or from the addresses of a prefix: protocol and ports ANY. Host bits are ignored.
    /// `None` if `len` is longer than an address.
    #[must_use]
    pub fn from_prefix(addr: IpAddr, len: u8) -> Option<Self> {
        let (start_addr, end_addr) = match addr {
            IpAddr::V4(addr) => {
                let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
                let start = addr.to_bits() & !host;
                (len <= 32).then_some((
                    Ipv4Addr::from_bits(start).into(),
                    Ipv4Addr::from_bits(start | host).into(),
                ))?
            }
            IpAddr::V6(addr) => {
                let host = u128::MAX.checked_shr(len.into()).unwrap_or(0);
                let start = addr.to_bits() & !host;
                (len <= 128).then_some((
                    Ipv6Addr::from_bits(start).into(),
                    Ipv6Addr::from_bits(start | host).into(),
                ))?
            }
        };
        Some(Self { protocol: 0, start_port: 0, end_port: u16::MAX, start_addr, end_addr })
    }

    /// Every packet to or from one address.
    #[must_use]
    pub const fn from_addr(addr: IpAddr) -> Self {
        Self { protocol: 0, start_port: 0, end_port: u16::MAX, start_addr: addr, end_addr: addr }
    }

    /// The selectors of one packet: its source, its destination (RFC 7296 §2.9). A packet without ports has OPAQUE ones if its
    /// protocol has any.
    #[must_use]
    pub fn of(flow: &Flow) -> (Self, Self) {
        let has_ports = matches!(
            NextHeader(flow.protocol),
            NextHeader::TCP | NextHeader::UDP | NextHeader::SCTP
        );
        let ports = |port: Option<u16>| match port {
            Some(port) => (port, port),
            None if has_ports => (u16::MAX, 0),
            None => (0, u16::MAX),
        };
        let side = |addr, (start_port, end_port)| Self {
            protocol: flow.protocol,
            start_port,
            end_port,
            start_addr: addr,
            end_addr: addr,
        };
        let (src, dst) = match NextHeader(flow.protocol) {
            // RFC 7296 §3.13.1: type and code; both ends have them, since an answer has others.
            NextHeader::ICMP | NextHeader::ICMPV6 | NextHeader::MOBILITY => {
                let kind = flow.ports.map(|(kind, code)| (kind & 0xff) << 8 | (code & 0xff));
                (ports(kind), (0, u16::MAX))
            }
            _ => (ports(flow.ports.map(|(src, _)| src)), ports(flow.ports.map(|(_, dst)| dst))),
        };
        (side(flow.src, src), side(flow.dst, dst))
    }

    /// Whether the port is ANY, which includes OPAQUE (RFC 4301 §4.4.1).
    #[must_use]
    pub const fn is_any_port(&self) -> bool {
        self.start_port == 0 && self.end_port == u16::MAX
    }

    /// Whether the port is OPAQUE: only packets that have none (RFC 7296 §3.13.1).
    #[must_use]
    pub const fn is_opaque_port(&self) -> bool {
        self.start_port == u16::MAX && self.end_port == 0
    }

    /// Whether it can contain anything: bounds in order and of one IP version.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.start_addr.is_ipv4() == self.end_addr.is_ipv4()
            && self.start_addr <= self.end_addr
            && (self.start_port <= self.end_port || self.is_opaque_port())
    }

    /// Whether the address lies within.
    #[must_use]
    pub fn contains_addr(&self, addr: IpAddr) -> bool {
        // As integers: their bytes one by one take longer.
        match (self.start_addr, addr, self.end_addr) {
            (IpAddr::V4(start), IpAddr::V4(addr), IpAddr::V4(end)) => {
                (start.to_bits()..=end.to_bits()).contains(&addr.to_bits())
            }
            (IpAddr::V6(start), IpAddr::V6(addr), IpAddr::V6(end)) => {
                (start.to_bits()..=end.to_bits()).contains(&addr.to_bits())
            }
            _ => false,
        }
    }

    /// Whether the source side of `flow` matches.
    #[must_use]
    pub fn contains_src(&self, flow: &Flow) -> bool {
        self.src_differs(flow).is_none()
    }

    /// Whether the destination side of `flow` matches.
    #[must_use]
    pub fn contains_dst(&self, flow: &Flow) -> bool {
        self.dst_differs(flow).is_none()
    }

    /// Why the source side of `flow` does not match; `None` if it does.
    #[must_use]
    #[inline]
    pub fn src_differs(&self, flow: &Flow) -> Option<Differs> {
        self.addr_or_protocol_differs(flow.src, flow.protocol).or_else(|| {
            let port = match NextHeader(flow.protocol) {
                // RFC 7296 §3.13.1: Type in the high byte, Code (or zero) in the low one.
                NextHeader::ICMP | NextHeader::ICMPV6 | NextHeader::MOBILITY => {
                    flow.ports.map(|(kind, code)| (kind & 0xff) << 8 | (code & 0xff))
                }
                _ => flow.ports.map(|(src, _)| src),
            };
            (!self.contains_port(port)).then_some(Differs::Port)
        })
    }

    /// Why the destination side of `flow` does not match; `None` if it does.
    #[must_use]
    #[inline]
    pub fn dst_differs(&self, flow: &Flow) -> Option<Differs> {
        self.addr_or_protocol_differs(flow.dst, flow.protocol).or_else(|| {
            let contains = match NextHeader(flow.protocol) {
                // RFC 4301 §4.4.1.3 B to D: of protocols with a single such field, each side's selector says what
                // that side may send; so it is the sender's that counts.
                NextHeader::ICMP | NextHeader::ICMPV6 | NextHeader::MOBILITY => {
                    flow.ports.is_some() || self.contains_port(None)
                }
                _ => self.contains_port(flow.ports.map(|(_, dst)| dst)),
            };
            (!contains).then_some(Differs::Port)
        })
    }

    #[inline]
    fn addr_or_protocol_differs(&self, addr: IpAddr, protocol: u8) -> Option<Differs> {
        if !self.contains_addr(addr) {
            Some(Differs::Address)
        } else if !self.contains_protocol(protocol) {
            Some(Differs::Protocol)
        } else {
            None
        }
    }

    /// The types of ICMP, if that is what it has: every code of a range of types, or one code of one.
    const fn icmp_kinds(&self) -> Option<(u16, u16)> {
        if !matches!(NextHeader(self.protocol), NextHeader::ICMP | NextHeader::ICMPV6)
            || self.is_any_port()
        {
            return None;
        }
        let whole = self.start_port & 0xff == 0 && self.end_port & 0xff == 0xff;
        if whole || self.start_port == self.end_port {
            return Some((self.start_port >> 8, self.end_port >> 8));
        }
        None
    }

    const fn contains_protocol(&self, protocol: u8) -> bool {
        self.protocol == 0 || self.protocol == protocol
    }

    /// `None` is a packet without ports, among them later fragments: RFC 4301 §7.1 and §7.2 let these match ANY and
    /// OPAQUE alone.
    fn contains_port(&self, port: Option<u16>) -> bool {
        // RFC 4301 §4.4.1.1: ports are undefined where the protocol is ANY.
        if self.is_any_port() || self.protocol == 0 {
            return true;
        }
        match port {
            Some(port) => self.start_port <= port && port <= self.end_port,
            None => self.is_opaque_port(),
        }
    }

    /// The selector of what both contain; `None` if that is nothing.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.start_addr.is_ipv4() != other.start_addr.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        let (start_port, end_port) = if self.is_any_port() {
            (other.start_port, other.end_port)
        } else if other.is_any_port() {
            (self.start_port, self.end_port)
        } else if self.is_opaque_port() || other.is_opaque_port() {
            (self.is_opaque_port() && other.is_opaque_port()).then_some((u16::MAX, 0))?
        } else {
            let start = self.start_port.max(other.start_port);
            let end = self.end_port.min(other.end_port);
            (start <= end).then_some((start, end))?
        };
        let start_addr = self.start_addr.max(other.start_addr);
        let end_addr = self.end_addr.min(other.end_addr);
        (start_addr <= end_addr).then_some(Self {
            protocol,
            start_port,
            end_port,
            start_addr,
            end_addr,
        })
    }

    /// Whether `other` contains everything that this one does.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.intersect(other) == Some(*self)
    }

    /// The fewest prefixes that together hold exactly its addresses, in ascending order: for routes. At most twice as
    /// many as an address has bits.
    #[must_use]
    pub fn prefixes(&self) -> Vec<(IpAddr, u8)> {
        match (self.start_addr, self.end_addr) {
            (IpAddr::V4(start), IpAddr::V4(end)) => {
                // An IPv4 range in the low bits, where every prefix is 96 bits longer.
                let range = cover(start.to_bits().into(), end.to_bits().into(), 32);
                let addr = |bits: u128| {
                    Ipv4Addr::from_bits(u32::try_from(bits).expect("not above an IPv4 address"))
                };
                range.into_iter().map(|(bits, len)| (addr(bits).into(), len)).collect()
            }
            (IpAddr::V6(start), IpAddr::V6(end)) => {
                let range = cover(start.to_bits(), end.to_bits(), 128);
                range
                    .into_iter()
                    .map(|(bits, len)| (Ipv6Addr::from_bits(bits).into(), len))
                    .collect()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
        }
    }
}

/// What keeps a packet from matching a selector: the first that differs, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Differs {
    /// The address lies outside.
    Address,
    /// The address lies within, and the protocol is another.
    Protocol,
    /// Address and protocol match, and the port, or the type of ICMP, is another.
    Port,
}

/// What keeps one side of a packet from matching any of a list: that of the selector which comes nearest. `None` if one
/// matches.
pub fn nearest(
    list: &[TrafficSelector],
    differs: impl Fn(&TrafficSelector) -> Option<Differs>,
) -> Option<Differs> {
    let mut nearest = Some(Differs::Address);
    for ts in list {
        let this = differs(ts);
        // `None` is nearer than anything.
        nearest = match (this, nearest) {
            (None, _) | (_, None) => None,
            (Some(this), Some(best)) => Some(this.max(best)),
        };
    }
    nearest
}

/// The longest prefix in which all of them are; `None` if they are of both versions of IP.
#[must_use]
pub fn common_prefix(selectors: &[TrafficSelector]) -> Option<(u8, IpAddr)> {
    let lowest = selectors.iter().map(|ts| ts.start_addr).min()?;
    let highest = selectors.iter().map(|ts| ts.end_addr).max()?;
    let same = match (lowest, highest) {
        (IpAddr::V4(lowest), IpAddr::V4(highest)) => {
            (lowest.to_bits() ^ highest.to_bits()).leading_zeros()
        }
        (IpAddr::V6(lowest), IpAddr::V6(highest)) => {
            (lowest.to_bits() ^ highest.to_bits()).leading_zeros()
        }
        _ => return None,
    };
    let len = u8::try_from(same).ok()?;
    Some((len, TrafficSelector::from_prefix(lowest, len)?.start_addr))
}

/// Whether packets of a protocol have ports that the host's routing looks at.
#[must_use]
pub const fn has_port_numbers(protocol: u8) -> bool {
    matches!(
        NextHeader(protocol),
        NextHeader::TCP | NextHeader::UDP | NextHeader::SCTP | NextHeader(33)
    )
}

/// Whether `flow` goes from any of one list to any of the other.
#[must_use]
pub fn matches_pair(from: &[TrafficSelector], to: &[TrafficSelector], flow: &Flow) -> bool {
    from.iter().any(|ts| ts.contains_src(flow)) && to.iter().any(|ts| ts.contains_dst(flow))
}

/// As [`matches_pair`], but for the ports.
#[must_use]
pub fn matches_addresses(from: &[TrafficSelector], to: &[TrafficSelector], flow: &Flow) -> bool {
    let contains =
        |ts: &TrafficSelector, addr| ts.contains_addr(addr) && ts.contains_protocol(flow.protocol);
    from.iter().any(|ts| contains(ts, flow.src)) && to.iter().any(|ts| contains(ts, flow.dst))
}

/// The fewest prefixes over `start..=end` in a space of `width` bits.
fn cover(start: u128, end: u128, width: u8) -> Vec<(u128, u8)> {
    let mut prefixes = Vec::new();
    let mut next = Some(start);
    while let Some(start) = next.filter(|&start| start <= end) {
        // The largest block that begins here by alignment, and does not reach beyond the end.
        let mut host_bits = start.trailing_zeros().min(width.into());
        let last =
            |host_bits: u32| start | 1_u128.checked_shl(host_bits).map_or(u128::MAX, |n| n - 1);
        while last(host_bits) > end {
            host_bits -= 1;
        }
        prefixes.push((start, width - u8::try_from(host_bits).expect("at most the width")));
        next = last(host_bits).checked_add(1);
    }
    prefixes
}

/// `10.1.0.0/16`, `10.1.0.0/16[udp/53]`, `10.0.0.1-10.0.0.9[tcp/1000-2000]`, `fd01::/64[icmpv6]`, `10.1.0.0/16[icmp/8]`,
/// `10.1.0.0/16[icmp/3.4]`.
impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefixes().as_slice() {
            [(addr, len)] => write!(f, "{addr}/{len}")?,
            _ => write!(f, "{}-{}", self.start_addr, self.end_addr)?,
        }
        if self.protocol == 0 {
            return Ok(());
        }
        match NextHeader(self.protocol) {
            NextHeader::ICMP => f.write_str("[icmp")?,
            NextHeader::TCP => f.write_str("[tcp")?,
            NextHeader::UDP => f.write_str("[udp")?,
            NextHeader::ICMPV6 => f.write_str("[icmpv6")?,
            NextHeader::SCTP => f.write_str("[sctp")?,
            other => write!(f, "[{}", other.0)?,
        }
        if self.is_opaque_port() {
            f.write_str("/opaque")?;
        } else if let Some((first, last)) = self.icmp_kinds() {
            match (first == last, self.start_port == self.end_port) {
                (_, true) => write!(f, "/{first}.{}", self.start_port & 0xff)?,
                (true, false) => write!(f, "/{first}")?,
                (false, false) => write!(f, "/{first}-{last}")?,
            }
        } else if self.start_port == self.end_port {
            write!(f, "/{}", self.start_port)?;
        } else if !self.is_any_port() {
            write!(f, "/{}-{}", self.start_port, self.end_port)?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests;
