//! Selectors as other programs write them, made into ours.

use core::net::IpAddr;

use ipnet::IpNet;

use crate::config;

/// A subnet, address or range, with bits beyond the prefix cleared as others do without a word.
pub(super) fn subnet(text: &str) -> Option<String> {
    let text = text.trim();
    let made = match text.split_once('/') {
        Some((address, length)) => {
            let address: IpAddr = match address.parse() {
                Ok(address) => address,
                // 10.1/16, as ipsec.conf may have it.
                Err(_) => short_ipv4(address)?,
            };
            let net = match length.parse::<u8>() {
                Ok(length) => IpNet::new(address, length).ok()?,
                Err(_) => IpNet::with_netmask(address, length.parse().ok()?).ok()?,
            };
            net.trunc().to_string()
        }
        None => text.to_owned(),
    };
    config::read_selectors(&made).ok().map(|_| made)
}

fn short_ipv4(text: &str) -> Option<IpAddr> {
    let parts: Vec<&str> = text.split('.').collect();
    let fits = parts.len() < 4 && parts.iter().all(|part| part.parse::<u8>().is_ok());
    let zeros = ".0".repeat(4_usize.checked_sub(parts.len())?);
    fits.then(|| format!("{text}{zeros}").parse().ok())?
}

/// A protocol and ports, as `tcp/443`, `17/1701`, `gre`, `udp/%any`, `tcp/1000-2000`: in brackets; nothing for every protocol.
/// `None` if it is none that we have.
pub(super) fn narrowed(text: &str) -> Option<String> {
    let text = text.trim();
    let (protocol, port) = text.split_once('/').unwrap_or((text, ""));
    let protocol = match protocol.trim() {
        "" | "%any" | "any" | "0" => "",
        other => other,
    };
    let port = match port.trim() {
        "" | "%any" | "any" | "0" => None,
        "%opaque" | "opaque" => Some("opaque".to_owned()),
        other => Some(service(other).map_or_else(|| other.to_owned(), |number| number.to_string())),
    };
    match (protocol, port) {
        ("", None) => Some(String::new()),
        // Ports of no protocol are in no packet.
        ("", Some(_)) => None,
        (protocol, None) => Some(format!("[{protocol}]")),
        (protocol, Some(port)) => Some(format!("[{protocol}/{port}]")),
    }
}

/// Services that stand in configurations by name.
fn service(name: &str) -> Option<u16> {
    Some(match name {
        "domain" => 53,
        "ftp" => 21,
        "http" => 80,
        "https" => 443,
        "imap" => 143,
        "imaps" => 993,
        "l2f" | "l2tp" => 1701,
        "ldap" => 389,
        "ldaps" => 636,
        "ntp" => 123,
        "smtp" => 25,
        "snmp" => 161,
        "ssh" => 22,
        "syslog" => 514,
        "telnet" => 23,
        "tftp" => 69,
        _ => return None,
    })
}

/// What is left of `of` without the address `without`, as selectors.
pub(super) fn except(of: &str, without: IpAddr) -> Vec<String> {
    let Ok(found) = config::read_selectors(of) else { return vec![of.to_owned()] };
    let mut left = Vec::new();
    for ts in found {
        let is_inside = ts.start_addr.is_ipv6() == without.is_ipv6()
            && (ts.start_addr..=ts.end_addr).contains(&without);
        if !is_inside {
            left.push(of.to_owned());
            continue;
        }
        let (before, after) = match without {
            IpAddr::V4(it) => (
                it.to_bits().checked_sub(1).map(|n| IpAddr::V4(n.into())),
                it.to_bits().checked_add(1).map(|n| IpAddr::V4(n.into())),
            ),
            IpAddr::V6(it) => (
                it.to_bits().checked_sub(1).map(|n| IpAddr::V6(n.into())),
                it.to_bits().checked_add(1).map(|n| IpAddr::V6(n.into())),
            ),
        };
        let show = |first: IpAddr, last: IpAddr| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        };
        left.extend(before.filter(|end| *end >= ts.start_addr).map(|end| show(ts.start_addr, end)));
        left.extend(after.filter(|it| *it <= ts.end_addr).map(|start| show(start, ts.end_addr)));
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_read_as_others_write_them() {
        for (text, ours) in [
            ("10.1.0.5/24", Some("10.1.0.0/24")),
            ("10.1/16", Some("10.1.0.0/16")),
            ("10.1.0.0/255.255.255.0", Some("10.1.0.0/24")),
            ("192.0.2.7", Some("192.0.2.7")),
            ("10.0.0.1-10.0.0.9", Some("10.0.0.1-10.0.0.9")),
            ("fd01::5/64", Some("fd01::/64")),
            ("10.1.0.0/33", None),
            ("net", None),
        ] {
            assert_eq!(subnet(text).as_deref(), ours, "{text}");
        }
    }

    #[test]
    fn protocols_and_ports_are_put_in_brackets() {
        for (text, ours) in [
            ("tcp/443", Some("[tcp/443]")),
            ("17/1701", Some("[17/1701]")),
            ("tcp/https", Some("[tcp/443]")),
            ("udp/%any", Some("[udp]")),
            ("gre", Some("[gre]")),
            ("%any", Some("")),
            ("/80", None),
        ] {
            assert_eq!(narrowed(text).as_deref(), ours, "{text}");
        }
    }

    #[test]
    fn an_address_is_taken_out_of_a_subnet() {
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(except("10.0.0.0/30", at("10.0.0.2")), ["10.0.0.0-10.0.0.1", "10.0.0.3"]);
        assert_eq!(except("10.0.0.0/30", at("10.0.0.0")), ["10.0.0.1-10.0.0.3"]);
        assert_eq!(except("10.0.0.7", at("10.0.0.7")), [""; 0]);
        assert_eq!(except("10.0.0.0/30", at("10.0.1.1")), ["10.0.0.0/30"]);
    }
}
