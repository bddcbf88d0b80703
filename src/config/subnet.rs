//! Subnets as written: `10.1.0.0/16`, `10.1.0.7`, `10.1.0.10-10.1.0.20`, `any`.

use core::net::IpAddr;

use ipnet::IpNet;

use super::value::{self, Wrong};
use crate::ipsec::TrafficSelector;

/// A range of addresses of one IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    pub(super) start: IpAddr,
    pub(super) end: IpAddr,
}

impl Subnet {
    pub(super) const fn host(address: IpAddr) -> Self {
        Self { start: address, end: address }
    }

    /// Reads one item of a list; `any` is both versions.
    pub(super) fn parse(text: &str) -> Result<Vec<Self>, Wrong> {
        let trimmed = text.trim();
        if trimmed == "any" {
            return Ok(vec![Self::all(false), Self::all(true)]);
        }
        if let Some((first, last)) = trimmed.split_once('-')
            && value::looks_like_address(first.trim())
        {
            return range(text, first.trim(), last.trim()).map(|subnet| vec![subnet]);
        }
        if let Some((address, length)) = trimmed.split_once('/') {
            return prefix(text, address, length).map(|subnet| vec![subnet]);
        }
        match trimmed.parse() {
            Ok(address) => {
                not_mapped(text, address, "")?;
                Ok(vec![Self::host(address)])
            }
            Err(_) if value::looks_like_address(trimmed) => Err(value::address_error(text)),
            Err(_) => Err(Wrong::new(
                format!("`{}` is not a subnet", text.escape_debug()),
                "a prefix (\"10.1.0.0/16\"), an address, a range (\"10.1.0.10-10.1.0.20\"), or \"any\"",
            )),
        }
    }

    const fn all(v6: bool) -> Self {
        let (start, end) = value::everything(v6);
        Self { start, end }
    }

    /// All protocols and ports of these addresses.
    pub(super) const fn selector(self) -> TrafficSelector {
        TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: 0xffff,
            start_addr: self.start,
            end_addr: self.end,
        }
    }
}

/// A selector as it would be written.
pub(super) fn show(start: IpAddr, end: IpAddr) -> String {
    if start == end {
        return start.to_string();
    }
    (0..=128u8)
        .filter_map(|length| IpNet::new(start, length).ok())
        .find(|net| net.network() == start && net.broadcast() == end)
        .map_or_else(|| format!("{start}-{end}"), |net| net.to_string())
}

impl core::fmt::Display for Subnet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&show(self.start, self.end))
    }
}

fn prefix(text: &str, address: &str, length: &str) -> Result<Subnet, Wrong> {
    let shown = text.escape_debug();
    let wrong = |help: String| Wrong::new(format!("`{shown}` is not a prefix"), help);
    let Ok(parsed) = address.trim().parse::<IpAddr>() else {
        let mut parts: Vec<&str> = address.trim().split('.').collect();
        let numeric = parts.iter().all(|part| part.parse::<u8>().is_ok());
        if numeric && parts.len() < 4 && length.parse::<u8>().is_ok_and(|n| n <= 32) {
            parts.resize(4, "0");
            let full = parts.join(".");
            return Err(match full.parse().ok().and_then(|a| net(a, length)) {
                Some(net) => {
                    wrong(format!("an IPv4 address has four numbers: \"{}\"", net.trunc()))
                }
                None => wrong("an IPv4 address has four numbers".to_owned()),
            });
        }
        let Wrong { help, .. } = value::address_error(address);
        return Err(wrong(help));
    };
    let most = if parsed.is_ipv6() { 128 } else { 32 };
    let Some(net) = net(parsed, length) else {
        if let Ok(mask) = length.trim().parse::<IpAddr>() {
            return Err(match IpNet::with_netmask(parsed, mask) {
                Ok(net) => wrong(format!("write the mask as a length: \"{}\"", net.trunc())),
                Err(_) => wrong(format!("{mask} is no mask: write a length, 0 to {most}")),
            });
        }
        return Err(wrong(format!("the length after / is a number from 0 to {most}")));
    };
    let length_of_v4 = net.prefix_len().checked_sub(96).map(|length| format!("/{length}"));
    if let Some(length) = length_of_v4 {
        not_mapped(text, parsed, &length)?;
    }
    if net.network() != parsed {
        return Err(Wrong::new(
            format!("`{shown}` has bits set beyond its prefix length"),
            format!("\"{}\" is the subnet, \"{parsed}\" the one host", net.trunc()),
        ));
    }
    Ok(Subnet { start: net.network(), end: net.broadcast() })
}

fn net(address: IpAddr, length: &str) -> Option<IpNet> {
    // `parse` would take a sign.
    let length = length.trim();
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    IpNet::new(address, length.parse().ok().filter(|_| digits)?).ok()
}

fn range(text: &str, first: &str, last: &str) -> Result<Subnet, Wrong> {
    let shown = text.escape_debug();
    let parse = |part: &str| part.parse::<IpAddr>().map_err(|_| value::address_error(part));
    let (start, end) = (parse(first)?, parse(last)?);
    let end_of_v4 = value::as_mapped(end).map(|end| format!("-{end}")).unwrap_or_default();
    not_mapped(text, start, &end_of_v4)?;
    if start.is_ipv6() != end.is_ipv6() {
        return Err(Wrong::new(
            format!("`{shown}` begins as IPv{} and ends as IPv{}", version(start), version(end)),
            "both ends of a range have one IP version",
        ));
    }
    if start > end {
        return Err(Wrong::new(
            format!("`{shown}` ends before it begins"),
            format!("\"{end}-{start}\""),
        ));
    }
    Ok(Subnet { start, end })
}

/// No packet has such an address: IPv4 is meant; `rest` is what follows the address then.
fn not_mapped(text: &str, address: IpAddr, rest: &str) -> Result<(), Wrong> {
    let Some(v4) = value::as_mapped(address) else { return Ok(()) };
    let shown = text.escape_debug();
    let message = format!("`{shown}` is an IPv4 address in the form of IPv6");
    Err(Wrong::new(message, format!("\"{v4}{rest}\"")))
}

const fn version(address: IpAddr) -> u8 {
    if address.is_ipv6() { 6 } else { 4 }
}

/// `10.1.255.1/24`: an address of an interface with the length of its subnet; all of it if none is said.
pub(super) fn interface_address(text: &str) -> Result<(IpAddr, u8), Wrong> {
    let (address, length) = match text.trim().split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text.trim(), None),
    };
    let parsed = value::host_address(address)?;
    let most = if parsed.is_ipv6() { 128 } else { 32 };
    let Some(length) = length else { return Ok((parsed, most)) };
    let net = net(parsed, length).ok_or_else(|| {
        Wrong::new(
            format!("`{}` is not an address with a prefix length", text.escape_debug()),
            format!("the length after / is a number from 0 to {most}"),
        )
    })?;
    Ok((parsed, net.prefix_len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(text: &str) -> String {
        Subnet::parse(text).unwrap_err().help
    }

    #[test]
    fn reads_every_form_and_shows_it_as_written() {
        for text in ["10.1.0.0/16", "10.1.0.7", "10.1.0.10-10.1.0.20", "2001:db8::/32", "0.0.0.0/0"]
        {
            let subnets = Subnet::parse(text).unwrap();
            assert_eq!(subnets.len(), 1);
            assert_eq!(subnets[0].to_string(), text);
        }
        assert_eq!(Subnet::parse("10.1.0.7/32").unwrap()[0].to_string(), "10.1.0.7");
        let any = Subnet::parse("any").unwrap();
        assert_eq!(any, [Subnet::all(false), Subnet::all(true)]);
    }

    #[test]
    fn says_what_would_be_right() {
        assert_eq!(help("10.1.2.3/16"), "\"10.1.0.0/16\" is the subnet, \"10.1.2.3\" the one host");
        assert_eq!(help("10.1/16"), "an IPv4 address has four numbers: \"10.1.0.0/16\"");
        assert_eq!(help("10.1.0.0/33"), "the length after / is a number from 0 to 32");
        assert_eq!(help("10.1.0.0/+8"), "the length after / is a number from 0 to 32");
        assert_eq!(help("10.1.0.0/255.255.0.0"), "write the mask as a length: \"10.1.0.0/16\"");
        assert_eq!(help("10.1.0.9-10.1.0.1"), "\"10.1.0.1-10.1.0.9\"");
        assert_eq!(help("10.1.0.300/24"), "300 is above 255");
        assert_eq!(help("::ffff:10.1.0.0/112"), "\"10.1.0.0/16\"");
        assert_eq!(help("::ffff:10.1.0.7"), "\"10.1.0.7\"");
        assert_eq!(help("::ffff:10.1.0.7-::ffff:10.1.0.9"), "\"10.1.0.7-10.1.0.9\"");
        assert!(help("b.example.net").contains("a prefix"));
        assert!(help("my-net").contains("a prefix"));
        assert!(Subnet::parse("10.0.0.1-2001:db8::1").is_err());
    }

    #[test]
    fn an_interface_address_keeps_its_host_bits() {
        assert_eq!(interface_address("10.1.0.1/24"), Ok(("10.1.0.1".parse().unwrap(), 24)));
        assert_eq!(interface_address("2001:db8::1"), Ok(("2001:db8::1".parse().unwrap(), 128)));
        assert!(interface_address("10.1.0.1/64").is_err());
    }
}
