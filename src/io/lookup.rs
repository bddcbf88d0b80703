//! Which way the kernel would send a packet: its own look-up, asked through netlink.

use core::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType,
};

use super::route::{Netlink, RouteError, errno, failed, first};

/// A packet, as far as routes and rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Source address; the unspecified one leaves the choice to the kernel.
    pub src: IpAddr,
    /// Destination address, of the same version.
    pub dst: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Ports, if the protocol is TCP, UDP or SCTP.
    pub ports: Option<(u16, u16)>,
    /// The interface on which it comes, by its index; `None`: this host itself sends it.
    pub iif: Option<u32>,
}

/// What the kernel would do with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has a route.
    Route {
        /// `unicast`, `local`, `broadcast` and so on, as in ip-route(8).
        kind: &'static str,
        /// The routing table.
        table: u32,
        /// Index and name of the interface.
        interface: Option<(u32, String)>,
        /// The next hop.
        gateway: Option<IpAddr>,
        /// MTU of the route, in bytes, where it has one of its own.
        mtu: Option<u32>,
    },
    /// It has none, or is refused: why, in the system's words.
    Refused(String),
}

impl Netlink {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If netlink does not work.
    pub async fn lookup(&self, query: &Query) -> Result<Found, RouteError> {
        let request = self.handle.route().get(message_of(query)).execute();
        let found = match first(request).await {
            Ok(found) => found,
            // What it says of the packet, and what of the question, are told apart by the number.
            Err(cause) if is_answer(errno(&cause)) => {
                return Ok(Found::Refused(failed(&cause, String::new).cause));
            }
            Err(cause) => {
                return Err(failed(&cause, || format!("look up a route to {}", query.dst)));
            }
        };
        let Some(message) = found else { return Ok(Found::Refused("no route".to_owned())) };
        let mut table = u32::from(message.header.table);
        let (mut index, mut gateway, mut mtu) = (None, None, None);
        for attribute in &message.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "three of many attributes")]
            match attribute {
                RouteAttribute::Oif(oif) => index = Some(*oif),
                RouteAttribute::Table(id) => table = *id,
                RouteAttribute::Gateway(RouteAddress::Inet(addr)) => gateway = Some((*addr).into()),
                RouteAttribute::Gateway(RouteAddress::Inet6(addr)) => {
                    gateway = Some((*addr).into());
                }
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        let interface = match index {
            Some(index) => Some((index, self.name_of(index).await?)),
            None => None,
        };
        Ok(Found::Route { kind: kind_of(message.header.kind), table, interface, gateway, mtu })
    }

    /// The name of an interface.
    ///
    /// # Errors
    /// If there is none of that index.
    pub async fn name_of(&self, index: u32) -> Result<String, RouteError> {
        let action = || format!("find interface {index}");
        let links = self.handle.link().get().match_index(index).execute();
        let found = first(links).await.map_err(|cause| failed(&cause, action))?;
        let names = found.into_iter().flat_map(|link| link.attributes);
        #[expect(clippy::wildcard_enum_match_arm, reason = "one of many attributes")]
        let mut names = names.filter_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        names
            .next()
            .ok_or_else(|| RouteError { action: action(), cause: "no such interface".to_owned() })
    }
}

fn message_of(query: &Query) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, len) = match query.dst {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = len;
    message.header.flags = RouteFlags::LookupTable;
    let address = |addr| match addr {
        IpAddr::V4(addr) => RouteAddress::Inet(addr),
        IpAddr::V6(addr) => RouteAddress::Inet6(addr),
    };
    message.attributes.push(RouteAttribute::Destination(address(query.dst)));
    if !query.src.is_unspecified() {
        message.header.source_prefix_length = len;
        message.attributes.push(RouteAttribute::Source(address(query.src)));
    }
    if let Some(iif) = query.iif {
        message.attributes.push(RouteAttribute::Iif(iif));
    }
    // The kernel takes no other protocol here (rtm_getroute_parse_ip_proto), and rules know ports of these alone.
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    if matches!(query.protocol, TCP | UDP) {
        message.attributes.push(RouteAttribute::IpProto(query.protocol));
        if let Some((sport, dport)) = query.ports {
            message.attributes.push(RouteAttribute::Sport(sport));
            message.attributes.push(RouteAttribute::Dport(dport));
        }
    }
    message
}

/// Whether an error says something of the packet.
fn is_answer(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::EACCES
            | libc::EINVAL
            | libc::EXDEV
            | libc::ENETDOWN
            | libc::EAGAIN
            | libc::ESRCH
    )
}

fn kind_of(kind: RouteType) -> &'static str {
    match kind {
        RouteType::Unicast => "unicast",
        RouteType::Local => "local",
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        RouteType::Nat => "nat",
        RouteType::Unspec | RouteType::ExternalResolve | RouteType::Other(_) | _ => "other",
    }
}
