//! Interfaces, addresses, routes and policy routing rules, through netlink.
//!
//! Routes to peers stand in a table of their own, [`TABLE`]; a rule sends everything there that does not bear our mark:
//! `not fwmark 0x4301 lookup 4301`. What we send ourselves is marked and so can never come back through the TUN, even
//! when a peer's subnets contain its gateway's address. What the table does not know is looked up as before.
//!
//! Behind each route into a TUN stands one to the same prefix that refuses, [`Via::Refuse`]: a TUN goes with its process, its
//! routes go with the TUN, and what they led there must not find another way, which would be in clear.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;
use std::io;

use futures_util::{Stream, StreamExt, pin_mut};
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use rtnetlink::packet_core::ErrorMessage;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::{IpVersion, LinkUnspec, RouteMessageBuilder};
use thiserror::Error;

use super::rule::{self, HOST_TABLE, Rule};
use super::udp::MARK;
use crate::ipsec::TrafficSelector;

/// The routing table of our routes.
pub const TABLE: u32 = 4301;
/// The priority of our rules.
pub const PRIORITY: u32 = 4301;
/// `rtm_protocol` of our routes, so that they are recognised as ours: none of the numbers of rt_protos.
pub(super) const PROTOCOL: u8 = 0x43;

/// Which of two routes to one prefix is taken is the one with the lower metric: the one into the TUN.
const REFUSE_METRIC: u32 = 0x4301_0000;

/// What netlink refused.
#[derive(Debug, Error)]
#[error("cannot {action}: {cause}")]
pub struct RouteError {
    /// What was tried.
    pub action: String,
    /// The system's words.
    pub cause: String,
}

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its table: [`TABLE`] or [`HOST_TABLE`].
    pub table: u32,
    /// Where to.
    pub dst: IpNet,
    /// How.
    pub via: Via,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Nowhere: whoever sends hears of an unreachable destination.
    Refuse,
    /// Ends the lookup in this table: what is local stays out of the tunnel although a peer's subnet contains it.
    Throw,
    /// Into a TUN.
    Tun {
        /// Index of the interface.
        index: u32,
        /// The MTU of the route, if it is less than the interface's.
        mtu: Option<u16>,
        /// The source address of what this host itself sends.
        source: Option<IpAddr>,
    },
}

impl Route {
    /// What no two routes that lead somewhere share: table and destination.
    #[must_use]
    pub const fn key(&self) -> (u32, IpNet) {
        (self.table, self.dst)
    }

    /// Where what it leads into the TUN ends when the TUN is gone; nothing for one that leads nowhere else.
    #[must_use]
    pub fn refusal(&self) -> Option<Self> {
        matches!(self.via, Via::Tun { .. }).then(|| Self { via: Via::Refuse, ..self.clone() })
    }
}

/// What a clean-up leaves alone.
#[derive(Debug, Default)]
pub struct Kept<'a> {
    /// Routes, whatever their MTU and source.
    pub routes: Vec<&'a Route>,
    /// Rules of transport mode.
    pub rules: Vec<&'a Rule>,
    /// The rule that leads to [`TABLE`].
    pub main_rule: bool,
}

impl Kept<'_> {
    fn has_rule(&self, found: &RuleMessage) -> bool {
        self.main_rule && is_ours(found) || self.rules.iter().any(|rule| rule.is(found))
    }

    /// Those of the routes, and of the refusals behind them.
    fn route_keys(&self) -> BTreeSet<Key> {
        let refusals = self.routes.iter().filter_map(|route| route.refusal());
        let all = self.routes.iter().copied().cloned().chain(refusals);
        all.map(|route| key_of(&message_of(&route))).collect()
    }
}

/// A connection to the kernel's routing.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(super) handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Those of the netlink socket.
    pub fn new() -> io::Result<Self> {
        let (connection, handle, _messages) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// If there is none of that name.
    pub async fn index_of(&self, name: &str) -> Result<u32, RouteError> {
        let links = self.handle.link().get().match_name(name.to_owned()).execute();
        let found =
            first(links).await.map_err(|cause| failed(&cause, || format!("find {name}")))?;
        found.map(|link| link.header.index).ok_or_else(|| RouteError {
            action: format!("find {name}"),
            cause: "no such interface".to_owned(),
        })
    }

    /// Sets an interface up, with an MTU.
    ///
    /// # Errors
    /// What the kernel says: an MTU out of range.
    pub async fn set_up(&self, index: u32, mtu: u16) -> Result<(), RouteError> {
        let message = LinkUnspec::new_with_index(index).mtu(u32::from(mtu)).up().build();
        let result = self.handle.link().change(message).execute().await;
        result.map_err(|cause| failed(&cause, || format!("set interface {index} up (mtu {mtu})")))
    }

    /// Deletes an interface, and with it its routes and addresses; one that is gone is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_link(&self, index: u32) -> Result<(), RouteError> {
        match self.handle.link().del(index).execute().await {
            Ok(()) => Ok(()),
            Err(cause) if is_gone(&cause) => Ok(()),
            Err(cause) => Err(failed(&cause, || format!("remove interface {index}"))),
        }
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), RouteError> {
        let result =
            self.handle.address().add(index, address, prefix_len).replace().execute().await;
        result.map_err(|cause| failed(&cause, || format!("add address {address}/{prefix_len}")))
    }

    /// Takes an address from an interface; one that is gone is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_address(
        &self,
        index: u32,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), RouteError> {
        let handle = self.handle.address();
        let message = handle.add(index, address, prefix_len).message_mut().clone();
        match handle.del(message).execute().await {
            Ok(()) => Ok(()),
            Err(cause) if is_gone(&cause) || errno(&cause) == libc::EADDRNOTAVAIL => Ok(()),
            Err(cause) => Err(failed(&cause, || format!("remove address {address}"))),
        }
    }

    /// The addresses of this host, loopback and link-local ones left out, in the kernel's order.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn local_addresses(&self) -> Result<Vec<IpAddr>, RouteError> {
        let addresses = self.handle.address().get().execute();
        pin_mut!(addresses);
        let mut found = Vec::new();
        while let Some(message) = addresses.next().await {
            let message =
                message.map_err(|cause| failed(&cause, || "list addresses".to_owned()))?;
            let mut addr = None;
            for attribute in message.attributes {
                #[expect(clippy::wildcard_enum_match_arm, reason = "one of many attributes")]
                match attribute {
                    // On a point-to-point link, Address is the other end and Local is ours.
                    AddressAttribute::Local(local) => addr = Some(local),
                    AddressAttribute::Address(address) if addr.is_none() => addr = Some(address),
                    _ => {}
                }
            }
            found.extend(addr.filter(|addr| !addr.is_loopback() && !is_link_local(*addr)));
        }
        Ok(found)
    }

    /// Adds a route, or replaces the one to the same prefix.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_route(&self, route: &Route) -> Result<(), RouteError> {
        let result = self.handle.route().add(message_of(route)).replace().execute().await;
        result.map_err(|cause| failed(&cause, || format!("add route to {}", route.dst)))
    }

    /// Adds a route if there is none to the same prefix; whether there was none.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn restore_route(&self, route: &Route) -> Result<bool, RouteError> {
        match self.handle.route().add(message_of(route)).execute().await {
            Ok(()) => Ok(true),
            Err(cause) if errno(&cause) == libc::EEXIST => Ok(false),
            Err(cause) => Err(failed(&cause, || format!("add route to {}", route.dst))),
        }
    }

    /// Removes a route; one that is gone is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_route(&self, route: &Route) -> Result<(), RouteError> {
        match self.handle.route().del(message_of(route)).execute().await {
            Ok(()) => Ok(()),
            Err(cause) if is_gone(&cause) => Ok(()),
            Err(cause) => Err(failed(&cause, || format!("remove route to {}", route.dst))),
        }
    }

    /// Adds our rule for one version of IP; whether there was none.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_rule(&self, v6: bool) -> Result<bool, RouteError> {
        let mut request = self
            .handle
            .rule()
            .add()
            .priority(PRIORITY)
            .table_id(TABLE)
            .fw_mark(MARK)
            .action(RuleAction::ToTable);
        request.message_mut().header.flags = RuleFlags::Invert;
        let result = if v6 { request.v6().execute().await } else { request.v4().execute().await };
        match result {
            Ok(()) => Ok(true),
            Err(cause) if errno(&cause) == libc::EEXIST => Ok(false),
            Err(cause) => Err(failed(&cause, || "add the policy routing rule".to_owned())),
        }
    }

    /// Removes every rule of our priority and table, and every route of the table, but for what is `kept`: at the end, and
    /// what a killed daemon left. Returns how many things were removed.
    ///
    /// # Errors
    /// What the kernel says, except that something was gone already, or that there is no such version of IP.
    pub async fn clean_up(&self, kept: &Kept<'_>) -> Result<usize, RouteError> {
        let mut removed = 0;
        let kept_routes = kept.route_keys();
        for version in [IpVersion::V4, IpVersion::V6] {
            for rule in collect(self.handle.rule().get(version.clone()).execute()).await {
                if (is_ours(&rule) || rule::is_ours(&rule)) && !kept.has_rule(&rule) {
                    match self.handle.rule().del(rule).execute().await {
                        Ok(()) => removed += 1,
                        Err(cause) if is_gone(&cause) => {}
                        Err(cause) => {
                            return Err(failed(&cause, || "remove the routing rule".to_owned()));
                        }
                    }
                }
            }
            let query = match version {
                IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
                IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
            };
            for route in collect(self.handle.route().get(query).execute()).await {
                let tables = [TABLE, HOST_TABLE].map(RouteAttribute::Table);
                let ours = tables.iter().any(|table| route.attributes.contains(table));
                if ours && !is_cached(&route) && !kept_routes.contains(&key_of(&route)) {
                    match self.handle.route().del(route).execute().await {
                        Ok(()) => removed += 1,
                        Err(cause) if is_gone(&cause) => {}
                        Err(cause) => {
                            return Err(failed(&cause, || "remove a route".to_owned()));
                        }
                    }
                }
            }
        }
        Ok(removed)
    }
}

/// The addresses of this host's interfaces, with their networks, but those of the link and of the loopback; none if they cannot
/// be read.
#[must_use]
pub fn host_networks() -> Vec<IpNet> {
    interface_networks().into_iter().map(|(_, net)| net).collect()
}

/// Those of them on other interfaces than the one that `address` is on.
#[must_use]
pub fn networks_behind(address: Option<IpAddr>) -> Vec<IpNet> {
    let all = interface_networks();
    let outside: Vec<&String> =
        all.iter().filter(|(_, net)| Some(net.addr()) == address).map(|(name, _)| name).collect();
    let behind = all.iter().filter(|(name, _)| !outside.contains(&name));
    behind.map(|(_, net)| net.trunc()).collect()
}

fn interface_networks() -> Vec<(String, IpNet)> {
    let ip = |it: &nix::sys::socket::SockaddrStorage| {
        let v4 = it.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| it.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    let found = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let networks = found.filter_map(|it| {
        let address = it.address.as_ref().and_then(ip)?;
        let mask = it.netmask.as_ref().and_then(ip)?;
        Some((it.interface_name, IpNet::with_netmask(address, mask).ok()?))
    });
    networks.filter(|(_, net)| !net.addr().is_loopback() && !is_link_local(net.addr())).collect()
}

/// The address that packets to the rest of the world leave from, if there is a way to it. Nothing is sent.
#[must_use]
pub fn way_out() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // RFC 5737: an address that is nobody's, so that the default route is asked.
    socket.connect("203.0.113.1:9").ok()?;
    socket.local_addr().ok().map(|it| it.ip())
}

/// Whether this host forwards packets of a version of IP; `None` if it cannot be known.
#[must_use]
pub fn forwards(v6: bool) -> Option<bool> {
    let file =
        if v6 { "/proc/sys/net/ipv6/conf/all/forwarding" } else { "/proc/sys/net/ipv4/ip_forward" };
    std::fs::read_to_string(file).ok().map(|text| text.trim() != "0")
}

/// The prefixes that together hold exactly the addresses of some selectors, each once.
#[must_use]
pub fn prefixes(selectors: &[TrafficSelector]) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = Vec::new();
    for selector in selectors {
        match (selector.start_addr, selector.end_addr) {
            (IpAddr::V4(start), IpAddr::V4(end)) if start <= end => {
                nets.extend(Ipv4Subnets::new(start, end, 0).map(IpNet::V4));
            }
            (IpAddr::V6(start), IpAddr::V6(end)) if start <= end => {
                nets.extend(Ipv6Subnets::new(start, end, 0).map(IpNet::V6));
            }
            _ => {}
        }
    }
    IpNet::aggregate(&nets)
}

/// What must stay out of the tunnel although `remote` covers it: our own subnets, and with a default route whatever is
/// of the link.
#[must_use]
pub fn exceptions(local: &[IpNet], remote: &[IpNet]) -> Vec<IpNet> {
    let covered = |net: &IpNet| remote.iter().any(|remote| remote.contains(net));
    let link: [IpNet; 4] = [
        IpNet::new_assert(Ipv4Addr::new(169, 254, 0, 0).into(), 16),
        IpNet::new_assert(Ipv4Addr::new(224, 0, 0, 0).into(), 4),
        IpNet::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), 10),
        IpNet::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(), 8),
    ];
    let all = local.iter().chain(&link);
    all.filter(|net| covered(net) && !remote.contains(net)).copied().collect()
}

fn message_of(route: &Route) -> RouteMessage {
    let mut message = match route.dst {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .build(),
    };
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    message.header.table = 0;
    message.attributes.push(RouteAttribute::Table(route.table));
    match &route.via {
        Via::Tun { index, mtu, source } => {
            message.attributes.push(RouteAttribute::Oif(*index));
            if route.dst.addr().is_ipv4() {
                message.header.scope = RouteScope::Link;
            }
            if let Some(mtu) = mtu {
                let metrics = vec![RouteMetric::Mtu(u32::from(*mtu))];
                message.attributes.push(RouteAttribute::Metrics(metrics));
            }
            if let Some(source) = source {
                message.attributes.push(RouteAttribute::PrefSource((*source).into()));
            }
        }
        Via::Refuse => {
            message.header.kind = RouteType::Unreachable;
            message.attributes.push(RouteAttribute::Priority(REFUSE_METRIC));
        }
        Via::Throw => message.header.kind = RouteType::Throw,
    }
    message
}

/// What tells routes of ours apart, in a message of either direction: version of IP, table, length of the prefix, its address, kind.
type Key = (u8, Option<u32>, u8, Option<IpAddr>, u8);

fn key_of(route: &RouteMessage) -> Key {
    let (mut table, mut destination) = (None, None);
    for attribute in &route.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "three of many attributes")]
        match attribute {
            RouteAttribute::Table(number) => table = Some(*number),
            RouteAttribute::Destination(RouteAddress::Inet(to)) => destination = Some((*to).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(to)) => {
                destination = Some((*to).into());
            }
            _ => {}
        }
    }
    let RouteHeader { address_family, destination_prefix_length: len, kind, .. } = &route.header;
    // Of a default route there may be none.
    let destination = destination.filter(|_| *len > 0);
    ((*address_family).into(), table, *len, destination, (*kind).into())
}

/// Table and destination of a route that the kernel tells of.
pub(super) fn place_of(route: &RouteMessage) -> Option<(u32, IpNet)> {
    let (family, table, len, destination, _) = key_of(route);
    let is_ipv6 = AddressFamily::from(family) == AddressFamily::Inet6;
    let unspecified: IpAddr =
        if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    Some((table?, IpNet::new(destination.unwrap_or(unspecified), len).ok()?))
}

pub(super) fn is_ours(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Priority(PRIORITY))
        && rule.attributes.contains(&RuleAttribute::Table(TABLE))
}

/// Route exceptions of the kernel cannot be removed, and go with their route.
fn is_cached(route: &RouteMessage) -> bool {
    route.header.flags.contains(rtnetlink::packet_route::route::RouteFlags::Cloned)
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

pub(super) fn errno(cause: &rtnetlink::Error) -> i32 {
    if let rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(code), .. }) = cause {
        code.get().saturating_neg()
    } else {
        0
    }
}

/// It was not there any more, or its interface is gone.
pub(super) fn is_gone(cause: &rtnetlink::Error) -> bool {
    [libc::ESRCH, libc::ENOENT, libc::ENODEV].contains(&errno(cause))
}

pub(super) fn failed(cause: &rtnetlink::Error, action: impl FnOnce() -> String) -> RouteError {
    let cause = match errno(cause) {
        0 => cause.to_string(),
        code => io::Error::from_raw_os_error(code).to_string(),
    };
    RouteError { action: action(), cause }
}

pub(super) async fn first<T>(
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Option<T>, rtnetlink::Error> {
    pin_mut!(stream);
    stream.next().await.transpose()
}

/// What can be listed; a version of IP that is not there has nothing.
async fn collect<T>(stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Vec<T> {
    pin_mut!(stream);
    let mut all = Vec::new();
    while let Some(Ok(item)) = stream.next().await {
        all.push(item);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> TrafficSelector {
        TrafficSelector {
            protocol: 0,
            start_port: 0,
            end_port: 0xffff,
            start_addr: start.parse().unwrap(),
            end_addr: end.parse().unwrap(),
        }
    }

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn subnet_as_range_becomes_one_prefix() {
        let found = prefixes(&[range("10.2.0.0", "10.2.255.255"), range("fd02::", "fd02::ffff")]);
        assert_eq!(found, nets(&["10.2.0.0/16", "fd02::/112"]));
    }

    #[test]
    fn odd_range_becomes_several_prefixes() {
        let found = prefixes(&[range("10.0.0.1", "10.0.0.6")]);
        assert_eq!(found, nets(&["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"]));
    }

    #[test]
    fn same_subnet_for_two_protocols_is_one_route() {
        let mut tcp = range("10.0.0.0", "10.0.0.255");
        tcp.protocol = 6;
        let found = prefixes(&[tcp, range("10.0.0.0", "10.0.0.255")]);
        assert_eq!(found, nets(&["10.0.0.0/24"]));
    }

    #[test]
    fn range_that_ends_before_it_starts_has_no_prefix() {
        assert_eq!(prefixes(&[range("10.0.0.9", "10.0.0.1")]), []);
    }

    #[test]
    fn default_route_leaves_own_subnets_and_the_link_alone() {
        let found = exceptions(&nets(&["10.1.0.0/16"]), &nets(&["0.0.0.0/0"]));
        assert_eq!(found, nets(&["10.1.0.0/16", "169.254.0.0/16", "224.0.0.0/4"]));
    }

    #[test]
    fn clean_up_keeps_a_route_and_its_refusal_and_no_other() {
        let dst = "10.2.0.0/24".parse().unwrap();
        let route =
            |table, mtu| Route { table, dst, via: Via::Tun { index: 7, mtu, source: None } };
        let mine = route(TABLE, None);
        let kept = Kept { routes: vec![&mine], ..Kept::default() }.route_keys();
        let keeps = |route: &Route| kept.contains(&key_of(&message_of(route)));
        let refusal = mine.refusal().unwrap();
        assert_eq!(refusal.refusal(), None);
        assert!(keeps(&route(TABLE, Some(1300))));
        assert!(keeps(&refusal));
        assert!(!keeps(&route(HOST_TABLE, None)));
        let throw = Route { via: Via::Throw, ..mine.clone() };
        assert!(!keeps(&throw));
        let other = Route { dst: "10.2.0.0/25".parse().unwrap(), ..refusal };
        assert!(!keeps(&other));
    }

    #[test]
    fn peer_beside_us_needs_no_exception() {
        assert_eq!(exceptions(&nets(&["10.1.0.0/16"]), &nets(&["10.2.0.0/16"])), []);
    }
}
