//! What the Configuration payload says (RFC 7296 §3.15; RFC 8598): [`Configuration`] is that of a CFG_REPLY, understood.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::limits;
use crate::ipsec::TrafficSelector;
use crate::ipsec::pad::{AddressPool, AddressRequest, Wish};
use crate::wire::ike::cp::{CfgAttribute, Cp};
use crate::wire::ike::numbers::{CfgAttributeType, CfgType};

/// What a peer configured us with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Our addresses behind the peer. Never empty.
    pub addresses: Vec<IpAddr>,
    /// Its DNS servers.
    pub dns: Vec<IpAddr>,
    /// The domains that only these servers are to be asked for (RFC 8598); if there is none, they are for every name.
    pub domains: Vec<String>,
    /// The subnets behind the peer, as it says (RFC 7296 §3.15.2).
    pub subnets: Vec<TrafficSelector>,
}

/// The attributes that a CFG_REPLY of ours may have.
const SUPPORTED: [CfgAttributeType; 8] = [
    CfgAttributeType::INTERNAL_IP4_ADDRESS,
    CfgAttributeType::INTERNAL_IP4_DNS,
    CfgAttributeType::INTERNAL_IP6_ADDRESS,
    CfgAttributeType::INTERNAL_IP6_DNS,
    CfgAttributeType::INTERNAL_IP4_SUBNET,
    CfgAttributeType::SUPPORTED_ATTRIBUTES,
    CfgAttributeType::INTERNAL_IP6_SUBNET,
    CfgAttributeType::INTERNAL_DNS_DOMAIN,
];

fn attribute(attribute_type: CfgAttributeType, value: Vec<u8>) -> CfgAttribute {
    CfgAttribute { attribute_type, value }
}

/// The CFG_REQUEST for what is wanted. `before`: the addresses of last time.
pub(super) fn request(wanted: &AddressRequest, before: &[IpAddr]) -> Cp {
    let mut attributes = Vec::new();
    let mut v4 = before.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
    let mut v6 = before.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
    for wish in &wanted.addresses {
        attributes.push(match wish {
            Wish::V4(wish) => {
                let value = wish.or_else(|| v4.next()).map(|a| a.octets().to_vec());
                attribute(CfgAttributeType::INTERNAL_IP4_ADDRESS, value.unwrap_or_default())
            }
            Wish::V6(wish) => {
                let value = wish.or_else(|| v6.next()).map(v6_address);
                attribute(CfgAttributeType::INTERNAL_IP6_ADDRESS, value.unwrap_or_default())
            }
        });
    }
    if wanted.dns {
        for v6 in [false, true] {
            if wanted.addresses.iter().any(|wish| wish.is_ipv6() == v6) {
                attributes.push(attribute(dns_type(v6), Vec::new()));
            }
        }
        // RFC 8598 §3.1: only beside a request for DNS servers.
        attributes.push(attribute(CfgAttributeType::INTERNAL_DNS_DOMAIN, Vec::new()));
    }
    Cp { cfg_type: CfgType::CFG_REQUEST, attributes }
}

/// The addresses that a CFG_REQUEST asks for: whether of IPv6, and perhaps which.
pub(super) fn wishes(request: &Cp) -> Vec<(bool, Option<IpAddr>)> {
    let wish = |attribute: &CfgAttribute| {
        let v6 = match attribute.attribute_type {
            CfgAttributeType::INTERNAL_IP4_ADDRESS => false,
            CfgAttributeType::INTERNAL_IP6_ADDRESS => true,
            _ => return None,
        };
        let address = address_of(v6, &attribute.value);
        (attribute.value.is_empty() || address.is_some())
            .then_some((v6, address.filter(|address| !address.is_unspecified())))
    };
    request.attributes.iter().filter_map(wish).take(limits::MAX_LEASES).collect()
}

/// The CFG_REPLY to a request that got these addresses; `local` is what is behind us.
pub(super) fn reply(
    request: &Cp,
    pool: &AddressPool,
    addresses: &[IpAddr],
    local: &[TrafficSelector],
) -> Cp {
    let asks = |wanted| request.attributes.iter().any(|a| a.attribute_type == wanted);
    let mut attributes: Vec<_> = addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(a) => attribute(CfgAttributeType::INTERNAL_IP4_ADDRESS, a.octets().to_vec()),
            IpAddr::V6(a) => attribute(CfgAttributeType::INTERNAL_IP6_ADDRESS, v6_address(*a)),
        })
        .collect();
    attributes.extend(pool.dns.iter().map(|server| {
        let value = match server {
            IpAddr::V4(server) => server.octets().to_vec(),
            IpAddr::V6(server) => server.octets().to_vec(),
        };
        attribute(dns_type(server.is_ipv6()), value)
    }));
    // RFC 8598 §3.1: who does not ask does not know them.
    if !pool.dns.is_empty() && asks(CfgAttributeType::INTERNAL_DNS_DOMAIN) {
        attributes.extend(pool.domains.iter().map(|domain| {
            attribute(CfgAttributeType::INTERNAL_DNS_DOMAIN, domain.as_bytes().to_vec())
        }));
    }
    let is_new = |subnet: &CfgAttribute, all: &[CfgAttribute]| !all.contains(subnet);
    for subnet in local.iter().filter_map(subnet) {
        if is_new(&subnet, &attributes) {
            attributes.push(subnet);
        }
    }
    if asks(CfgAttributeType::SUPPORTED_ATTRIBUTES) {
        let value = SUPPORTED.iter().flat_map(|supported| supported.0.to_be_bytes()).collect();
        attributes.push(attribute(CfgAttributeType::SUPPORTED_ATTRIBUTES, value));
    }
    Cp { cfg_type: CfgType::CFG_REPLY, attributes }
}

impl Configuration {
    /// What a CFG_REPLY says of what was asked for; `None` if no address is in it. `is_split`: not everything goes to the peer.
    pub(super) fn of(reply: &Cp, wanted: &AddressRequest, is_split: bool) -> Option<Self> {
        let mut found = Self::default();
        let asked = |v6: bool| wanted.addresses.iter().filter(|wish| wish.is_ipv6() == v6).count();
        for CfgAttribute { attribute_type, value } in &reply.attributes {
            match *attribute_type {
                CfgAttributeType::INTERNAL_IP4_ADDRESS | CfgAttributeType::INTERNAL_IP6_ADDRESS => {
                    let v6 = *attribute_type == CfgAttributeType::INTERNAL_IP6_ADDRESS;
                    let has = found.addresses.iter().filter(|a| a.is_ipv6() == v6).count();
                    // RFC 7296 §3.15.1: no more than were asked for.
                    if let Some(address) = address_of(v6, value).filter(is_host)
                        && has < asked(v6)
                        && !found.addresses.contains(&address)
                    {
                        found.addresses.push(address);
                    }
                }
                CfgAttributeType::INTERNAL_IP4_DNS | CfgAttributeType::INTERNAL_IP6_DNS => {
                    let v6 = *attribute_type == CfgAttributeType::INTERNAL_IP6_DNS;
                    if wanted.dns
                        && found.dns.len() < limits::MAX_DNS_SERVERS
                        && let Some(server) = address_of(v6, value).filter(is_host)
                        && !found.dns.contains(&server)
                    {
                        found.dns.push(server);
                    }
                }
                CfgAttributeType::INTERNAL_DNS_DOMAIN => {
                    if let Some(domain) = domain(value)
                        && found.domains.len() < limits::MAX_DNS_DOMAINS
                        && wanted.domains.as_ref().is_none_or(|all| is_below(&domain, all))
                        && !found.domains.contains(&domain)
                    {
                        found.domains.push(domain);
                    }
                }
                CfgAttributeType::INTERNAL_IP4_SUBNET | CfgAttributeType::INTERNAL_IP6_SUBNET => {
                    let v6 = *attribute_type == CfgAttributeType::INTERNAL_IP6_SUBNET;
                    if let Some(subnet) = selector_of(v6, value)
                        && found.subnets.len() < limits::MAX_SELECTORS
                    {
                        found.subnets.push(subnet);
                    }
                }
                // RFC 7296 §3.15.1: what is not known is ignored. RFC 8598 §6: so are trust anchors, where no domain is allowed any.
                _ => {}
            }
        }
        // RFC 8598 §2, §3.2: not where everything goes to the peer, nor without servers.
        if !is_split || found.dns.is_empty() {
            found.domains.clear();
        } else if wanted.domains.is_some() && found.domains.is_empty() {
            // Who takes names of some domains alone does not take every name.
            found.dns.clear();
        }
        (!found.addresses.is_empty()).then_some(found)
    }

    /// Selectors of our addresses.
    pub(super) fn selectors(&self) -> Vec<TrafficSelector> {
        self.addresses.iter().map(|address| TrafficSelector::from_addr(*address)).collect()
    }
}

const fn dns_type(v6: bool) -> CfgAttributeType {
    if v6 { CfgAttributeType::INTERNAL_IP6_DNS } else { CfgAttributeType::INTERNAL_IP4_DNS }
}

/// INTERNAL_IP6_ADDRESS has a prefix length after it: no more than the address itself is meant.
fn v6_address(address: Ipv6Addr) -> Vec<u8> {
    let mut value = address.octets().to_vec();
    value.push(128);
    value
}

/// 4 octets, or 16 and perhaps the prefix length.
fn address_of(v6: bool, value: &[u8]) -> Option<IpAddr> {
    if !v6 {
        return <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into());
    }
    let octets = value.get(..16).filter(|_| value.len() <= 17)?;
    <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// Whether an address can be that of a host which is not this one.
fn is_host(address: &IpAddr) -> bool {
    let is_broadcast = *address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || is_broadcast)
}

/// INTERNAL_IP4_SUBNET or INTERNAL_IP6_SUBNET of a selector that is one prefix, and not everything.
fn subnet(ts: &TrafficSelector) -> Option<CfgAttribute> {
    match (ts.start_addr, ts.end_addr) {
        (IpAddr::V4(start), IpAddr::V4(end)) => {
            let host = start.to_bits() ^ end.to_bits();
            let is_prefix = host & host.wrapping_add(1) == 0 && start.to_bits() & host == 0;
            let value = [start.octets(), (!host).to_be_bytes()].concat();
            (is_prefix && host != u32::MAX)
                .then(|| attribute(CfgAttributeType::INTERNAL_IP4_SUBNET, value))
        }
        (IpAddr::V6(start), IpAddr::V6(end)) => {
            let host = start.to_bits() ^ end.to_bits();
            let is_prefix = host & host.wrapping_add(1) == 0 && start.to_bits() & host == 0;
            let mut value = start.octets().to_vec();
            value.push(u8::try_from(host.leading_zeros()).unwrap_or(128));
            (is_prefix && host != u128::MAX)
                .then(|| attribute(CfgAttributeType::INTERNAL_IP6_SUBNET, value))
        }
        _ => None,
    }
}

fn selector_of(v6: bool, value: &[u8]) -> Option<TrafficSelector> {
    let (address, length) = if v6 {
        let (length, address) = value.split_last()?;
        (address_of(true, address)?, *length)
    } else {
        let (address, mask) = value.split_at_checked(4)?;
        let mask = u32::from_be_bytes(<[u8; 4]>::try_from(mask).ok()?);
        let length = mask.leading_ones();
        // A mask with holes is none.
        if mask.count_ones() != length {
            return None;
        }
        (address_of(false, address)?, u8::try_from(length).ok()?)
    };
    TrafficSelector::from_prefix(address, length)
}

/// RFC 8598 §4.1: a name in presentation format, in A-labels. As it goes to other programs, letters, digits, `-` and `_` alone are
/// taken, in lower case and without the dot at its end.
fn domain(value: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(value).ok()?;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(fine) && !label.starts_with('-')
    };
    (name.len() <= 253 && name.split('.').all(label)).then_some(name)
}

/// Whether a domain is one of these, or below one.
fn is_below(domain: &str, all: &[String]) -> bool {
    all.iter().any(|allowed| {
        domain
            .strip_suffix(allowed.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(addresses: &[Wish]) -> AddressRequest {
        AddressRequest { addresses: addresses.to_vec(), dns: true, domains: None }
    }

    fn cfg_reply(attributes: &[(CfgAttributeType, &[u8])]) -> Cp {
        let attributes =
            attributes.iter().map(|(number, value)| attribute(*number, value.to_vec())).collect();
        Cp { cfg_type: CfgType::CFG_REPLY, attributes }
    }

    const IP4: CfgAttributeType = CfgAttributeType::INTERNAL_IP4_ADDRESS;
    const DNS4: CfgAttributeType = CfgAttributeType::INTERNAL_IP4_DNS;
    const DOMAIN: CfgAttributeType = CfgAttributeType::INTERNAL_DNS_DOMAIN;

    #[test]
    fn request_and_reply_are_understood_by_each_other() {
        let wanted = wanted(&[Wish::V4(None), Wish::V6(None)]);
        let before: [IpAddr; 1] = ["fd00::9".parse().unwrap()];
        let request = request(&wanted, &before);
        let asked = [(false, None), (true, Some(before[0]))];
        assert_eq!(wishes(&request), asked);
        let pool = AddressPool {
            ranges: Vec::new(),
            dns: vec!["10.1.0.53".parse().unwrap(), "fd01::53".parse().unwrap()],
            domains: vec!["corp.example".to_owned()],
        };
        let addresses = ["10.3.0.1".parse().unwrap(), "fd00::9".parse().unwrap()];
        let prefix = |text: &str, length| {
            TrafficSelector::from_prefix(text.parse().unwrap(), length).unwrap()
        };
        let local = [prefix("10.1.0.0", 16), prefix("fd01::", 32), prefix("0.0.0.0", 0)];
        let reply = reply(&request, &pool, &addresses, &local);
        let found = Configuration::of(&reply, &wanted, true).unwrap();
        assert_eq!(found.addresses, addresses);
        assert_eq!((found.dns, found.domains), (pool.dns, pool.domains));
        assert_eq!(found.subnets, local[..2], "everything is no subnet");
        assert_eq!(
            Configuration::of(&reply, &wanted, false).unwrap().domains,
            [""; 0],
            "RFC 8598 §2: everything goes to the peer"
        );
    }

    #[test]
    fn more_addresses_than_were_asked_for_are_not_taken() {
        let reply = cfg_reply(&[
            (CfgAttributeType::INTERNAL_IP6_ADDRESS, &[0xfd; 17]),
            (IP4, &[10, 0, 0, 1]),
            (IP4, &[10, 0, 0, 2]),
        ]);
        let found = Configuration::of(&reply, &wanted(&[Wish::V4(None)]), true).unwrap();
        assert_eq!(found.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn addresses_that_no_host_has_are_none() {
        for octets in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            let reply = cfg_reply(&[(IP4, &octets)]);
            assert_eq!(Configuration::of(&reply, &wanted(&[Wish::V4(None)]), true), None);
        }
        let short = cfg_reply(&[(IP4, &[10, 0, 0])]);
        assert_eq!(Configuration::of(&short, &wanted(&[Wish::V4(None)]), true), None);
    }

    #[test]
    fn domains_are_names_that_policy_allows_and_have_servers() {
        let names: [&[u8]; 8] = [
            b"Corp.Example.",
            b"a.corp.example",
            b"xcorp.example",
            b".",
            b"-v.corp.example",
            b"a b.corp.example",
            b"corp.example",
            b"",
        ];
        let mut attributes: Vec<(CfgAttributeType, &[u8])> = vec![(IP4, &[10, 0, 0, 1])];
        attributes.extend(names.map(|name| (DOMAIN, name)));
        let mut wanted = wanted(&[Wish::V4(None)]);
        let without = Configuration::of(&cfg_reply(&attributes), &wanted, true).unwrap();
        assert_eq!(without.domains, [""; 0], "no server for them");
        attributes.push((DNS4, &[10, 0, 0, 53]));
        let reply = cfg_reply(&attributes);
        let all = Configuration::of(&reply, &wanted, true).unwrap().domains;
        assert_eq!(all, ["corp.example", "a.corp.example", "xcorp.example"]);
        wanted.domains = Some(vec!["corp.example".to_owned()]);
        let some = Configuration::of(&reply, &wanted, true).unwrap().domains;
        assert_eq!(some, ["corp.example", "a.corp.example"]);
    }

    #[test]
    fn domains_go_to_who_asks_for_them_alone() {
        let pool = AddressPool {
            ranges: Vec::new(),
            dns: vec!["10.1.0.53".parse().unwrap()],
            domains: vec!["corp.example".to_owned()],
        };
        let mut request = request(&wanted(&[Wish::V4(None)]), &[]);
        request.attributes.retain(|attribute| attribute.attribute_type != DOMAIN);
        let reply = reply(&request, &pool, &["10.3.0.1".parse().unwrap()], &[]);
        assert!(reply.attributes.iter().all(|attribute| attribute.attribute_type != DOMAIN));
    }

    #[test]
    fn supported_attributes_are_told_when_asked_for() {
        let mut request = request(&wanted(&[Wish::V4(None)]), &[]);
        request.attributes.push(attribute(CfgAttributeType::SUPPORTED_ATTRIBUTES, Vec::new()));
        let pool = AddressPool { ranges: Vec::new(), dns: Vec::new(), domains: Vec::new() };
        let reply = reply(&request, &pool, &[], &[]);
        let [told] = reply.attributes.as_slice() else { panic!("{reply:?}") };
        assert_eq!(told.value.len(), 2 * SUPPORTED.len());
        assert_eq!(told.value[..2], [0, 1]);
    }

    #[test]
    fn masks_with_holes_and_ranges_are_no_subnets() {
        assert_eq!(selector_of(false, &[10, 0, 0, 0, 255, 0, 255, 0]), None);
        let mut ts = TrafficSelector::from_addr("10.0.0.1".parse().unwrap());
        ts.end_addr = "10.0.0.2".parse().unwrap();
        assert_eq!(subnet(&ts), None);
    }
}
