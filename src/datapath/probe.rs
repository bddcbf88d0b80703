//! [`Probe`]: a packet that does not exist, as an operator writes it: `10.1.0.5:1234 > 10.2.0.9:443/tcp`.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::str::FromStr;

use crate::ipsec::Flow;
use crate::wire::ip::{Ipv4Repr, Ipv6Repr, NextHeader};

/// Selector fields of a packet that might be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Them.
    pub flow: Flow,
}

/// What is wrong with a text, or with a length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(String);

const FORM: &str = "a packet is written as 10.1.0.5:1234 > 10.2.0.9:443/tcp, \
    [fd01::5]:1234 > [fd02::9]:443/udp, 10.1.0.5 > 10.2.0.9/icmp or 10.1.0.5 > 10.2.0.9/89";

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        let wrong = |what: String| ProbeError(format!("{what}; {FORM}"));
        let halves = text.split_once('>').or_else(|| text.split_once(" to "));
        let (src, rest) =
            halves.ok_or_else(|| wrong(format!("{:?} has no > in it", text.trim())))?;
        let (dst, protocol) = rest
            .split_once('/')
            .ok_or_else(|| wrong(format!("{:?} names no protocol", rest.trim())))?;
        let (protocol, kind) = match protocol.trim().split_once('/') {
            Some((protocol, kind)) => (protocol, Some(kind)),
            None => (protocol.trim(), None),
        };
        let protocol = protocol_of(protocol)
            .ok_or_else(|| wrong(format!("{protocol:?} is no protocol that is known by name")))?;
        let (src, src_port) = end(src.trim()).map_err(wrong)?;
        let (dst, dst_port) = end(dst.trim()).map_err(wrong)?;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(wrong(format!("{src} and {dst} are not of one version of IP")));
        }
        let ports = match NextHeader(protocol) {
            NextHeader::ICMP | NextHeader::ICMPV6 => {
                let echo = if src.is_ipv4() { 8 } else { 128 };
                let kind = kind.map_or(Ok((echo, 0)), |kind| {
                    let (kind, code) = kind.split_once('.').unwrap_or((kind, "0"));
                    match (kind.parse::<u8>(), code.parse::<u8>()) {
                        (Ok(kind), Ok(code)) => Ok((kind.into(), code.into())),
                        _ => Err(wrong(format!("{kind:?} is no type of ICMP, such as 3 or 3.4"))),
                    }
                })?;
                Some(kind)
            }
            other if has_ports(other) => match (src_port, dst_port) {
                (Some(src), Some(dst)) => Some((src, dst)),
                // What the port of a client is matters to nobody.
                (None, Some(dst)) => Some((CLIENT_PORT, dst)),
                (_, None) => {
                    return Err(wrong(format!("{} needs a port at {dst}", name_of(protocol))));
                }
            },
            _ => None,
        };
        if !has_ports(NextHeader(protocol)) && (src_port.is_some() || dst_port.is_some()) {
            return Err(wrong(format!("{} has no ports", name_of(protocol))));
        }
        if kind.is_some() && !matches!(NextHeader(protocol), NextHeader::ICMP | NextHeader::ICMPV6)
        {
            return Err(wrong(format!("only ICMP has a type, and not {}", name_of(protocol))));
        }
        Ok(Self { flow: Flow { src, dst, protocol, ports } })
    }
}

/// The first of the ephemeral ones (RFC 6335 §6).
const CLIENT_PORT: u16 = 49152;

/// An address, with a port or not.
fn end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let wrong = || format!("{text:?} is no address");
    if let Some(rest) = text.strip_prefix('[') {
        let (addr, port) = rest.split_once(']').ok_or_else(wrong)?;
        let addr: Ipv6Addr = addr.parse().map_err(|_| wrong())?;
        return Ok((addr.into(), port_of(port)?));
    }
    if let Ok(addr) = text.parse() {
        return Ok((addr, None));
    }
    let at = text.find(':').ok_or_else(wrong)?;
    let (addr, port) = text.split_at(at);
    Ok((addr.parse().map_err(|_| wrong())?, port_of(port)?))
}

fn port_of(text: &str) -> Result<Option<u16>, String> {
    match text.strip_prefix(':') {
        Some(port) => port.parse().map(Some).map_err(|_| format!("{port:?} is no port")),
        None if text.is_empty() => Ok(None),
        None => Err(format!("{text:?} is no port")),
    }
}

const NAMES: [(&str, NextHeader); 7] = [
    ("tcp", NextHeader::TCP),
    ("udp", NextHeader::UDP),
    ("icmp", NextHeader::ICMP),
    ("icmp6", NextHeader::ICMPV6),
    ("icmpv6", NextHeader::ICMPV6),
    ("sctp", NextHeader::SCTP),
    ("udplite", NextHeader::UDP_LITE),
];

/// The number of a protocol: a name, or the number itself.
#[must_use]
pub fn protocol_of(text: &str) -> Option<u8> {
    let named = NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    named.map(|(_, protocol)| protocol.0).or_else(|| text.parse().ok())
}

/// The name of a protocol, or its number.
#[must_use]
pub fn name_of(protocol: u8) -> String {
    let named = NAMES.iter().find(|(_, number)| number.0 == protocol);
    named.map_or_else(|| protocol.to_string(), |(name, _)| (*name).to_owned())
}

fn has_ports(protocol: NextHeader) -> bool {
    matches!(protocol, NextHeader::TCP | NextHeader::UDP | NextHeader::UDP_LITE | NextHeader::SCTP)
}

impl Probe {
    /// The packet, `len` bytes long. `may_fragment`: without DF, which only IPv4 can.
    ///
    /// # Errors
    /// If a packet of this protocol cannot be so short, or so long, or IPv6 is to be fragmented on the way.
    pub fn packet(&self, len: usize, may_fragment: bool) -> Result<Vec<u8>, ProbeError> {
        let Flow { src, dst, protocol, ports } = self.flow;
        let protocol = NextHeader(protocol);
        let header = if src.is_ipv4() { Ipv4Repr::LEN } else { Ipv6Repr::LEN };
        let least = header
            + match protocol {
                NextHeader::TCP => 20,
                NextHeader::SCTP => 12,
                NextHeader::MOBILITY => 6,
                _ if ports.is_some() => 8,
                _ => 0,
            };
        let name = name_of(protocol.0);
        let version = if src.is_ipv4() { "IPv4" } else { "IPv6" };
        if len < least || len > usize::from(u16::MAX) {
            let text =
                format!("a packet of {name} over {version} has {least} to 65535 bytes, not {len}");
            return Err(ProbeError(text));
        }
        let mut packet = vec![0; len];
        let (head, body) = packet.split_at_mut(header);
        // At most 65,535.
        let payload_len = u16::try_from(body.len()).unwrap_or(u16::MAX);
        match (src, dst) {
            (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => head.copy_from_slice(
                &Ipv4Repr {
                    src_addr,
                    dst_addr,
                    protocol,
                    tos: 0,
                    ident: 1,
                    dont_fragment: !may_fragment,
                    ttl: 64,
                    payload_len,
                }
                .emit(),
            ),
            (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
                if may_fragment {
                    let text = "no router fragments IPv6: only IPv4 can be without DF";
                    return Err(ProbeError(text.to_owned()));
                }
                head.copy_from_slice(
                    &Ipv6Repr {
                        src_addr,
                        dst_addr,
                        next_header: protocol,
                        traffic_class: 0,
                        flow_label: 0,
                        hop_limit: 64,
                        payload_len,
                    }
                    .emit(),
                );
            }
            _ => return Err(ProbeError("two versions of IP in one packet".to_owned())),
        }
        if let Some((one, two)) = ports {
            match protocol {
                // Type and code are a byte each.
                NextHeader::ICMP | NextHeader::ICMPV6 => {
                    put(body, 0, &[one.to_be_bytes()[1], two.to_be_bytes()[1]]);
                }
                NextHeader::MOBILITY => put(body, 2, &[one.to_be_bytes()[1]]),
                _ => {
                    put(body, 0, &one.to_be_bytes());
                    put(body, 2, &two.to_be_bytes());
                }
            }
        }
        match protocol {
            // Data offset: five words.
            NextHeader::TCP => put(body, 12, &[0x50]),
            NextHeader::UDP => put(body, 4, &payload_len.to_be_bytes()),
            _ => {}
        }
        Ok(packet)
    }
}

fn put(body: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = body.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// As it is read.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_flow(f, &self.flow)
    }
}

/// `10.1.0.5:1234 > 10.2.0.9:443/tcp`; ports that are not to be seen are left out.
fn write_flow(f: &mut fmt::Formatter<'_>, flow: &Flow) -> fmt::Result {
    let Flow { src, dst, protocol, ports } = *flow;
    let name = name_of(protocol);
    match (NextHeader(protocol), ports) {
        (NextHeader::ICMP | NextHeader::ICMPV6, Some((kind, code))) => {
            write!(f, "{src} > {dst}/{name}/{kind}.{code}")
        }
        (_, Some((from, to))) if src.is_ipv4() => write!(f, "{src}:{from} > {dst}:{to}/{name}"),
        (_, Some((from, to))) => write!(f, "[{src}]:{from} > [{dst}]:{to}/{name}"),
        (_, None) => write!(f, "{src} > {dst}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipsec::inner::Inner;

    #[test]
    fn what_is_written_comes_back_as_the_packet_has_it() {
        for (text, canonical, least) in [
            ("10.1.0.5:1234 > 10.2.0.9:443/tcp", "10.1.0.5:1234 > 10.2.0.9:443/tcp", 40),
            ("10.1.0.5 > 10.2.0.9:53/UDP", "10.1.0.5:49152 > 10.2.0.9:53/udp", 28),
            ("10.1.0.5>10.2.0.9/icmp", "10.1.0.5 > 10.2.0.9/icmp/8.0", 28),
            ("10.1.0.5 to 10.2.0.9/icmp/3.4", "10.1.0.5 > 10.2.0.9/icmp/3.4", 28),
            ("10.1.0.5 > 10.2.0.9/89", "10.1.0.5 > 10.2.0.9/89", 20),
            ("[fd01::5]:1 > [fd02::9]:2/udp", "[fd01::5]:1 > [fd02::9]:2/udp", 48),
            ("fd01::5 > fd02::9/icmp6", "fd01::5 > fd02::9/icmp6/128.0", 48),
            ("[fd01::5] > [fd02::9]:443/sctp", "[fd01::5]:49152 > [fd02::9]:443/sctp", 52),
        ] {
            let probe: Probe = text.parse().expect(text);
            assert_eq!(probe.to_string(), canonical);
            assert!(probe.packet(least - 1, false).is_err(), "{text}");
            let inner = Inner::parse(&probe.packet(least, false).expect(text)).expect(text);
            assert_eq!(inner.flow, probe.flow, "{text}");
            assert!(inner.dont_fragment);
            let long = Inner::parse(&probe.packet(1500, false).expect(text)).expect(text);
            assert_eq!((long.flow, long.len), (probe.flow, 1500));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "no >"),
            ("10.1.0.5 10.2.0.9/tcp", "no >"),
            ("10.1.0.5:1 > 10.2.0.9:2", "no protocol"),
            ("10.1.0.5:1 > 10.2.0.9:2/ssh", "\"ssh\""),
            ("10.1.0.5:1 > 10.2.0.9/tcp", "a port at 10.2.0.9"),
            ("10.1.0.5:1 > 10.2.0.9:70000/tcp", "\"70000\""),
            ("10.1.0.5:1 > 10.2.0.9:2/89", "no ports"),
            ("10.1.0.5 > fd02::9/icmp", "one version"),
            ("10.1.0.500 > 10.2.0.9/icmp", "10.1.0.500"),
            ("10.1.0.5 > 10.2.0.9/icmp/300", "300"),
            ("10.1.0.5 > 10.2.0.9:5/tcp/3", "only ICMP"),
        ] {
            let error = text.parse::<Probe>().expect_err(text).to_string();
            assert!(error.contains(part) && error.contains("10.1.0.5:1234 >"), "{text}: {error}");
        }
    }

    #[test]
    fn ipv6_is_not_fragmented_on_the_way() {
        let probe: Probe = "fd01::5 > fd02::9/icmp6".parse().expect("right");
        assert!(probe.packet(100, true).is_err());
    }
}
