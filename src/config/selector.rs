//! Selectors as written: a subnet, and after it what it is narrowed to: `10.1.0.0/16[tcp/443]`.

use core::ops::Range;

use super::subnet::{self, Subnet};
use super::value::{self, Wrong};
use crate::ipsec::TrafficSelector;
use crate::wire::ip::NextHeader;

/// Protocols by the names that strongSwan and /etc/protocols have for them.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("ipip", 4),
    ("ipencap", 4),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("ospf", 89),
    ("sctp", 132),
    ("udplite", 136),
];

const HELP: &str = "a subnet, and in brackets a protocol and ports: \"10.1.0.0/16\", \"10.1.0.7[tcp/443]\", \"10.1.0.7[udp/1000-2000]\", \"10.1.0.7[icmp/8]\", \"192.0.2.1[gre]\"";

/// A selector with its place.
#[derive(Clone)]
pub(super) struct Placed {
    pub(super) ts: TrafficSelector,
    pub(super) span: Range<usize>,
}

impl Placed {
    pub(super) const fn is_ipv6(&self) -> bool {
        self.ts.start_addr.is_ipv6()
    }

    /// Whether it is every address of its version.
    pub(super) fn is_all(&self) -> bool {
        (self.ts.start_addr, self.ts.end_addr) == value::everything(self.is_ipv6())
    }

    pub(super) fn shares_addresses_with(&self, other: &Self) -> bool {
        self.is_ipv6() == other.is_ipv6()
            && self.ts.start_addr <= other.ts.end_addr
            && other.ts.start_addr <= self.ts.end_addr
    }

    /// As it would be written.
    pub(super) fn show(&self) -> String {
        show(&self.ts)
    }
}

/// Reads one item of a list; `any` is both versions of IP.
pub(super) fn parse(text: &str) -> Result<Vec<TrafficSelector>, Wrong> {
    let shown = text.escape_debug();
    let trimmed = text.trim();
    // An IPv6 address in brackets is not meant.
    let Some((subnet, rest)) = trimmed.split_once('[').filter(|(subnet, _)| !subnet.is_empty())
    else {
        return Ok(Subnet::parse(text)?.into_iter().map(Subnet::selector).collect());
    };
    let subnets = Subnet::parse(subnet)?;
    let wrong = |message: String| Wrong::new(format!("`{shown}`: {message}"), HELP);
    let Some(inner) = rest.strip_suffix(']') else {
        return Err(wrong("the bracket is not closed".to_owned()));
    };
    let (protocol, ports) = match inner.split_once('/') {
        Some((protocol, ports)) => (protocol.trim(), Some(ports.trim())),
        None => (inner.trim(), None),
    };
    let number = PROTOCOLS
        .iter()
        .find(|(name, _)| protocol.eq_ignore_ascii_case(name))
        .map(|(_, number)| *number)
        .or_else(|| whole(protocol).and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0));
    let Some(number) = number else {
        let protocol = protocol.escape_debug();
        return Err(wrong(format!("`{protocol}` is not a protocol")));
    };
    let (start_port, end_port) = match ports {
        None | Some("any") => (0, u16::MAX),
        Some(_) if !has_ports(number) => {
            return Err(wrong(format!("protocol {number} has no ports")));
        }
        Some("opaque") => (u16::MAX, 0),
        // As one number that is too large for a type, it is both (RFC 7296 §3.13.1).
        Some(kinds) if is_icmp(number) && !kinds.split('-').any(is_above_255) => {
            match icmp(kinds) {
                Some(range) => range,
                None => {
                    let kinds = kinds.escape_debug();
                    return Err(wrong(format!(
                        "`{kinds}` is neither a type of ICMP nor a type and code"
                    )));
                }
            }
        }
        Some(ports) => {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let port = |text: &str| whole(text.trim()).and_then(|n| u16::try_from(n).ok());
            match (port(first), port(last)) {
                (Some(first), Some(last)) if first <= last => (first, last),
                _ => {
                    let ports = ports.escape_debug();
                    return Err(wrong(format!("`{ports}` is neither a port nor a range of them")));
                }
            }
        }
    };
    let narrowed = subnets.into_iter().map(|subnet| TrafficSelector {
        protocol: number,
        start_port,
        end_port,
        ..subnet.selector()
    });
    Ok(narrowed.collect())
}

/// A selector as it would be written.
pub(super) fn show(ts: &TrafficSelector) -> String {
    let addresses = subnet::show(ts.start_addr, ts.end_addr);
    if ts.protocol == 0 {
        return addresses;
    }
    let shown = ts.to_string();
    let narrowed = shown.split_once('[').map_or("", |(_, narrowed)| narrowed);
    format!("{addresses}[{narrowed}")
}

/// A number without sign.
fn whole(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

const fn is_icmp(protocol: u8) -> bool {
    matches!(NextHeader(protocol), NextHeader::ICMP | NextHeader::ICMPV6)
}

fn is_above_255(text: &str) -> bool {
    whole(text.trim()).is_some_and(|n| n > 255)
}

/// RFC 7296 §3.13.1: the type in the high byte, the code in the low one: `8` is every code of a type, `3.4` one of them,
/// `3-4` a range of types.
fn icmp(text: &str) -> Option<(u16, u16)> {
    let byte = |text: &str| whole(text.trim()).and_then(|n| u8::try_from(n).ok()).map(u16::from);
    if let Some((kind, code)) = text.split_once('.') {
        let at = byte(kind)? << 8 | byte(code)?;
        return Some((at, at));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (byte(first)?, byte(last)?);
    (first <= last).then_some((first << 8, last << 8 | 0xff))
}

const fn has_ports(protocol: u8) -> bool {
    matches!(
        NextHeader(protocol),
        NextHeader::ICMP
            | NextHeader::TCP
            | NextHeader::UDP
            | NextHeader(33 | 136)
            | NextHeader::ICMPV6
            | NextHeader::SCTP
            | NextHeader::MOBILITY
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(text).unwrap_err().message
    }

    #[test]
    fn what_is_shown_of_a_selector_is_read_as_the_same() {
        for text in [
            "10.1.0.0/16",
            "10.1.0.7/32[tcp/443]",
            "10.1.0.0/16[udp/1000-2000]",
            "fd01::/64[icmpv6]",
            "192.0.2.1/32[47]",
            "10.0.0.1-10.0.0.9[sctp/5]",
            "10.0.0.1/32[udp/opaque]",
            "10.0.0.1/32[icmp/8]",
            "10.0.0.1/32[icmp/3.4]",
            "fd01::/64[icmpv6/1-4]",
            "10.0.0.1/32[icmp/opaque]",
            "10.0.0.1/32[icmp/2049-2060]",
        ] {
            let read = parse(text).unwrap();
            assert_eq!(read.len(), 1);
            assert_eq!(read[0].to_string(), text);
            assert!(read[0].is_valid());
        }
        let icmp =
            |text: &str| (parse(text).unwrap()[0].start_port, parse(text).unwrap()[0].end_port);
        assert_eq!(icmp("10.0.0.1[icmp/8]"), (0x0800, 0x08ff), "RFC 7296 §3.13.1");
        assert_eq!(icmp("10.0.0.1[icmp/3.4]"), (0x0304, 0x0304));
        assert_eq!(icmp("10.0.0.1[icmp/772]"), (0x0304, 0x0304));
        assert_eq!(parse("10.1.0.7[gre]"), parse("10.1.0.7/32[47]"));
        assert_eq!(parse("10.1.0.7[tcp/any]"), parse("10.1.0.7[TCP]"));
        assert_eq!(parse("any[udp/53]").unwrap().len(), 2);
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(message("10.1.0.7[tpc]"), "`10.1.0.7[tpc]`: `tpc` is not a protocol");
        assert_eq!(message("10.1.0.7[0]"), "`10.1.0.7[0]`: `0` is not a protocol");
        assert_eq!(message("10.1.0.7[256]"), "`10.1.0.7[256]`: `256` is not a protocol");
        assert_eq!(message("10.1.0.7[gre/5]"), "`10.1.0.7[gre/5]`: protocol 47 has no ports");
        assert_eq!(
            message("10.1.0.7[tcp/9-5]"),
            "`10.1.0.7[tcp/9-5]`: `9-5` is neither a port nor a range of them"
        );
        assert_eq!(
            message("10.1.0.7[tcp/+5]"),
            "`10.1.0.7[tcp/+5]`: `+5` is neither a port nor a range of them"
        );
        assert_eq!(message("10.1.0.7[tcp"), "`10.1.0.7[tcp`: the bracket is not closed");
        assert_eq!(message("10.1.0/16[tcp]"), "`10.1.0/16` is not a prefix");
        assert!(message("[fd01::1]").contains("fd01"));
    }
}
