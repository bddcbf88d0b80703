//! `[local] virtual` and `[peer] pool`, with what goes with them: addresses and names by the Configuration payload.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::check::report_wrong;
use super::diagnostic::Report;
use super::raw::{List, Raw, Side, Text};
use super::selector::Placed;
use super::subnet::Subnet;
use super::value;
use crate::ipsec::TrafficSelector;
use crate::ipsec::pad::{AddressPool, AddressRequest, ChildPolicy, StartPolicy, Wish};

/// Addresses that one peer may give us.
const MAX_VIRTUAL: usize = 4;
/// Ranges of a pool: each is a selector.
const MAX_RANGES: usize = 32;
/// DNS servers, and domains, that a CFG_REPLY has at most.
const MAX_DNS: usize = 8;
const MAX_DOMAINS: usize = 32;

/// What we ask the peer for. `None` only if something is wrong; `any`: the peer may be anywhere.
pub(super) fn request(
    raw: &Raw<'_>,
    any: bool,
    report: &mut Report,
) -> Option<Option<AddressRequest>> {
    let side = &raw.local;
    let domains = domains("[local] dns-domains", side.dns_domains.as_ref(), report);
    let Some(list) = &side.virtual_addresses else {
        let dns = side.use_dns.as_ref().map(toml::Spanned::span);
        let names = side.dns_domains.as_ref().map(|list| list.span.clone());
        if let Some(at) = dns.or(names)
            && !raw.excused("local", "virtual")
        {
            report
                .error(at, "[local] dns, dns-domains: only with `virtual`")
                .help("they are about the DNS servers that come with an address");
        }
        return domains.map(|_| None);
    };
    let mut addresses = Vec::new();
    let mut fine = true;
    for item in &list.items {
        match wish(item) {
            Some(wish) => addresses.push(wish),
            None => {
                fine = false;
                let shown = item.get_ref().escape_debug();
                report
                    .error(item.span(), format!("[local] virtual: `{shown}` is no address"))
                    .help("\"ipv4\", \"ipv6\", or the address that is to be asked for");
            }
        }
    }
    let count = addresses.len();
    if fine && !(1..=MAX_VIRTUAL).contains(&count) {
        fine = false;
        report
            .error(list.span.clone(), format!("[local] virtual: {count} addresses"))
            .help(format!("one for each IP version is usual, at most {MAX_VIRTUAL}"));
    }
    if any {
        report
            .error(list.span.clone(), "[local] virtual: only who begins can ask for an address")
            .help("write where the peer is into [peer] address");
    }
    if let Some(subnets) = &side.subnets {
        report
            .error(
                subnets.span.clone(),
                "[local] subnets: with `virtual` our side is the address that the peer gives",
            )
            .related(list.span.clone(), "asked for here")
            .help("leave one of the two out");
    }
    let dns = side.use_dns.as_ref().is_none_or(|dns| *dns.get_ref());
    let domains = domains?;
    fine.then_some(Some(AddressRequest { addresses, dns, domains }))
}

/// What a peer that asks gets. `None` only if something is wrong.
pub(super) fn pool(raw: &Raw<'_>, report: &mut Report) -> Option<Option<AddressPool>> {
    let side = &raw.peer;
    let dns = servers(side.dns.as_ref(), report);
    let domains = domains("[peer] dns-domains", side.dns_domains.as_ref(), report);
    if let (Some(names), None) = (&side.dns_domains, &side.dns) {
        // RFC 8598 §3.2.
        report
            .error(names.span.clone(), "[peer] dns-domains: no server to ask for them")
            .help("add the addresses of DNS servers that know them: dns = [\"10.1.0.53\"]");
    }
    let Some(list) = &side.pool else {
        if let Some(dns) = &side.dns
            && !raw.excused("peer", "pool")
        {
            report
                .error(dns.span.clone(), "[peer] dns: only with `pool`")
                .help("DNS servers are told to a peer that gets an address");
        }
        return dns.and(domains).map(|_| None);
    };
    if let Some(asks) = &raw.local.virtual_addresses {
        report
            .error(list.span.clone(), "[peer] pool: each side would give the other its address")
            .related(asks.span.clone(), "and ask for one")
            .help("leave one of the two out");
    }
    if let Some(subnets) = &side.subnets {
        report
            .error(
                subnets.span.clone(),
                "[peer] subnets: with `pool` its side is the address that it gets",
            )
            .related(list.span.clone(), "the pool")
            .help("leave one of the two out");
    }
    let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::new();
    let mut seen: Vec<(Subnet, core::ops::Range<usize>)> = Vec::new();
    let mut fine = true;
    for item in &list.items {
        match Subnet::parse(item.get_ref()) {
            Ok(found) if found.len() == 1 => {
                let Some(subnet) = found.first().copied() else { continue };
                let meets = |(other, _): &&(Subnet, _)| {
                    let (other, subnet): (&Subnet, _) = (other, &subnet);
                    other.start <= subnet.end && subnet.start <= other.end
                };
                if let Some((other, at)) = seen.iter().find(meets) {
                    fine = false;
                    report
                        .error(item.span(), format!("[peer] pool: {subnet} overlaps {other}"))
                        .related(at.clone(), "overlaps this")
                        .help("an address can be given once: leave the smaller out");
                }
                ranges.push(hosts(subnet, item.get_ref().contains('/')));
                seen.push((subnet, item.span()));
            }
            Ok(_) => {
                fine = false;
                report
                    .error(item.span(), "[peer] pool: everything cannot be given")
                    .help("a prefix or a range of addresses of your own, such as \"10.3.0.0/24\"");
            }
            Err(wrong) => {
                fine = false;
                report_wrong(item.span(), "[peer] pool", wrong, report);
            }
        }
    }
    if fine && !(1..=MAX_RANGES).contains(&ranges.len()) {
        fine = false;
        report
            .error(list.span.clone(), format!("[peer] pool: {} ranges", ranges.len()))
            .help(format!("from 1 to {MAX_RANGES}"));
    }
    let (dns, domains) = (dns?, domains?.unwrap_or_default());
    fine.then_some(Some(AddressPool { ranges, dns, domains }))
}

/// A CHILD_SA of a peer without an address cannot be; it gets one when it begins.
pub(super) fn only_responds(raw: &Raw<'_>, children: &[ChildPolicy], report: &mut Report) {
    let Some(list) = &raw.peer.pool else { return };
    if children.iter().any(|child| child.start != StartPolicy::Respond) {
        report
            .error(list.span.clone(), "[peer] pool: a peer gets its address when it begins")
            .help("set [esp] start = \"respond\"; with [peer] address = \"any\" it is so anyway");
    }
}

/// The selectors of a side whose addresses are given: `Some(None)` if they are not, `None` if what is written is wrong.
pub(super) fn given(side: &Side<'_>) -> Option<Option<Vec<Placed>>> {
    let placed =
        |subnet: Subnet, item: &Text<'_>| Placed { ts: subnet.selector(), span: item.span() };
    if let Some(list) = &side.virtual_addresses {
        let mut all: Vec<Placed> = Vec::new();
        for item in &list.items {
            let ts = TrafficSelector::from_prefix(any(wish(item)?.is_ipv6()), 0)?;
            if all.iter().all(|other| other.ts != ts) {
                all.push(Placed { ts, span: item.span() });
            }
        }
        return Some(Some(all).filter(|all| !all.is_empty()));
    }
    let Some(list) = &side.pool else { return Some(None) };
    let mut all = Vec::new();
    for item in &list.items {
        let found = Subnet::parse(item.get_ref()).ok()?;
        all.extend(found.into_iter().map(|subnet| placed(subnet, item)));
    }
    (1..=MAX_RANGES).contains(&all.len()).then_some(Some(all))
}

const fn any(v6: bool) -> IpAddr {
    if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
}

fn wish(item: &Text<'_>) -> Option<Wish> {
    match *item.get_ref() {
        "ipv4" | "0.0.0.0" => Some(Wish::V4(None)),
        "ipv6" | "::" => Some(Wish::V6(None)),
        other => Some(match value::host_address(other).ok()? {
            IpAddr::V4(address) => Wish::V4(Some(address)),
            IpAddr::V6(address) => Wish::V6(Some(address)),
        }),
    }
}

/// The addresses of a subnet that hosts may have: of a prefix, without those that stand for all of it (RFC 4291 §2.6.1 for IPv6).
fn hosts(subnet: Subnet, is_prefix: bool) -> (IpAddr, IpAddr) {
    match (subnet.start, subnet.end) {
        (IpAddr::V4(start), IpAddr::V4(end)) if is_prefix => {
            let (start, end) = (start.to_bits(), end.to_bits());
            let inner = if end - start >= 3 { (start + 1, end - 1) } else { (start, end) };
            (Ipv4Addr::from_bits(inner.0).into(), Ipv4Addr::from_bits(inner.1).into())
        }
        (IpAddr::V6(start), IpAddr::V6(end)) if is_prefix && start != end => {
            (Ipv6Addr::from_bits(start.to_bits() + 1).into(), end.into())
        }
        all => all,
    }
}

fn servers(list: Option<&List<'_>>, report: &mut Report) -> Option<Vec<IpAddr>> {
    let items = list.map(|list| list.items.as_slice()).unwrap_or_default();
    let mut found = Vec::new();
    for item in items {
        match value::host_address(item.get_ref()) {
            Ok(server) => found.push(server),
            Err(wrong) => report_wrong(item.span(), "[peer] dns", wrong, report),
        }
    }
    let fits = within(list, "[peer] dns", MAX_DNS, report);
    (fits && found.len() == items.len()).then_some(found)
}

/// `Some(None)` if there is no list.
fn domains(key: &str, list: Option<&List<'_>>, report: &mut Report) -> Option<Option<Vec<String>>> {
    let Some(list) = list else { return Some(None) };
    let mut found = Vec::new();
    for item in &list.items {
        match value::host_name(item.get_ref()) {
            Ok(name) => found.push(name.to_ascii_lowercase()),
            Err(wrong) => report_wrong(item.span(), key, wrong, report),
        }
    }
    let fits = within(Some(list), key, MAX_DOMAINS, report);
    (fits && found.len() == list.items.len()).then_some(Some(found))
}

fn within(list: Option<&List<'_>>, key: &str, most: usize, report: &mut Report) -> bool {
    let Some(list) = list.filter(|list| list.items.len() > most) else { return true };
    report
        .error(list.span.clone(), format!("{key}: {} are too many", list.items.len()))
        .help(format!("at most {most}"));
    false
}
