//! Policy routing rules. For transport mode: what this host itself sends to a peer goes into the TUN, and nothing else.
//!
//! And for policies that need no SA (RFC 4301 §4.4.1), each with a priority of its own, since their order is their meaning: what
//! is bypassed does not come into the TUN, what is discarded comes nowhere.
//!
//! ```text
//! 3800  fwmark 0x4301                                    goto 4800    our own sockets
//! 3801  to PEER ipproto esp                              goto 4800    and what they receive, for rp_filter
//! 3802  from A to B [ipproto P] [sport S] [dport D]      goto 4800    BYPASS before every tunnel, up to 4299
//!                                                        blackhole    DISCARD
//! 4300  iif lo to PEER [ipproto P] [sport S] [dport D]   lookup 4302  the selectors of an SA
//! 4301  not fwmark 0x4301                                lookup 4301  the networks behind peers: see io::route
//! 4302  as 3802                                                       after every tunnel, up to 4799
//! 4800  nop                                                           the end of all this
//! ```
//!
//! `iif lo` is what this host sends itself: what it forwards to the peer's address is not the SA's. The reverse path of
//! what is received is looked up with the same rules, and protocol and ports turned round; so a packet of ESP from the
//! peer must be exempt, or a strict `rp_filter` would expect it from the TUN.
//!
//! IPv6 neighbour discovery asks no routing table: it is sent on the link. ARP has no IP protocol, so that no rule can
//! exempt it: where `rp_filter` is strict, a whole address in the TUN costs the ARP requests of a peer on the same link
//! ([`strict_rp_filter`] tells).

use core::net::IpAddr;
use core::ops::Range;

use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};

use super::route::{Netlink, PRIORITY, PROTOCOL, RouteError, errno, failed, is_gone};
use super::udp::MARK;
use crate::ipsec::TrafficSelector;
use crate::ipsec::fixed::{FixedPolicy, Order, Way};
use crate::ipsec::selector::has_port_numbers;
use crate::wire::ip::NextHeader;

/// The routing table with routes to the peers themselves.
pub const HOST_TABLE: u32 = 4302;

const SKIP: u32 = 3800;
const EXEMPT: u32 = 3801;
const FIRST: Range<u32> = 3802..HOST;
const HOST: u32 = 4300;
const LAST: Range<u32> = 4302..END;
const END: u32 = 4800;

/// A rule of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    v6: bool,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// Where those that jump end.
    End,
    /// What bears our mark passes the others by.
    Marked,
    /// What is protected already passes the others by.
    Exempt { to: IpAddr, protocol: NextHeader, our_port: Option<u16> },
    /// Past the TUN, or nowhere.
    Fixed { priority: u32, bypass: bool, way: Way },
    /// Into the TUN.
    Host { to: IpAddr, protocol: u8, our_ports: Ports, their_ports: Ports },
}

/// `None` for all.
type Ports = Option<(u16, u16)>;

/// The rules for SAs in transport mode with `peer`, in the order in which they have to be added: those that let pass
/// come first. `pairs` are the selectors of our side and the peer's.
#[must_use]
pub fn for_transport(peer: IpAddr, pairs: &[(TrafficSelector, TrafficSelector)]) -> Vec<Rule> {
    let rule = |what| Rule { v6: peer.is_ipv6(), what };
    let exempt = |protocol, our_port| rule(What::Exempt { to: peer, protocol, our_port });
    let mut rules = vec![
        rule(What::End),
        rule(What::Marked),
        exempt(NextHeader::ESP, None),
        exempt(NextHeader::AH, None),
        exempt(NextHeader::UDP, Some(500)),
        exempt(NextHeader::UDP, Some(4500)),
    ];
    for (ours, theirs) in pairs {
        let protocol = if ours.protocol == 0 { theirs.protocol } else { ours.protocol };
        let what = What::Host {
            to: peer,
            protocol,
            our_ports: ports(protocol, ours),
            their_ports: ports(protocol, theirs),
        };
        let rule = rule(what);
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// The rules of policies that need no SA, in their order, for the versions of IP that there are. Those that let pass our own
/// packets come first.
///
/// # Errors
/// If there are more than there are priorities.
pub fn for_fixed<'a>(
    policies: impl Iterator<Item = &'a FixedPolicy>,
    v6: bool,
) -> Result<Vec<Rule>, RouteError> {
    let mut free = [FIRST, LAST];
    let mut rules = Vec::new();
    for policy in policies {
        let [first, last] = &mut free;
        let free = if policy.order == Order::First { first } else { last };
        let priority = free.next().ok_or_else(|| RouteError {
            action: format!("add the rules of [[policy]] `{}`", policy.name),
            cause: format!("at most {} can stand there", FIRST.len().min(LAST.len())),
        })?;
        for way in policy.ways() {
            let is_v6 = way.from.0.is_ipv6();
            if !is_v6 || v6 {
                let what = What::Fixed { priority, bypass: policy.bypass, way };
                rules.push(Rule { v6: is_v6, what });
            }
        }
    }
    let mut all = Vec::new();
    for v6 in [false, true] {
        if rules.iter().any(|rule| rule.v6 == v6) {
            all.extend([What::End, What::Marked].map(|what| Rule { v6, what }));
        }
    }
    all.extend(rules);
    Ok(all)
}

/// Ports as a rule can have them. Where it cannot, it has all, and the SPD drops what is not meant.
fn ports(protocol: u8, ts: &TrafficSelector) -> Ports {
    let has_ports = has_port_numbers(protocol);
    // The kernel takes 1 to 65534.
    let fits = ts.start_port > 0 && ts.end_port < u16::MAX && ts.start_port <= ts.end_port;
    (has_ports && ts.protocol != 0 && fits).then_some((ts.start_port, ts.end_port))
}

/// Whether `rp_filter` is strict (1) on an interface of this host.
#[must_use]
pub fn strict_rp_filter() -> bool {
    let read = |name: &std::path::Path| -> Option<u8> {
        std::fs::read_to_string(name.join("rp_filter")).ok()?.trim().parse().ok()
    };
    let Ok(all) = std::fs::read_dir("/proc/sys/net/ipv4/conf") else { return false };
    let interfaces: Vec<_> = all.flatten().map(|entry| entry.path()).collect();
    let of = |name: &str| {
        let found = interfaces.iter().find(|path| path.ends_with(name));
        found.and_then(|path| read(path)).unwrap_or(0)
    };
    // The kernel takes the higher of that of all and the interface's own.
    let own = interfaces
        .iter()
        .filter(|path| !["all", "default", "lo"].iter().any(|n| path.ends_with(n)));
    own.filter_map(|path| read(path)).any(|own| own.max(of("all")) == 1)
}

impl Rule {
    /// In which order they go: what lets pass before what drops, and what lets our own packets pass last.
    #[must_use]
    pub const fn removal_rank(&self) -> u8 {
        match self.what {
            What::Fixed { bypass: true, .. } => 0,
            What::Fixed { bypass: false, .. } | What::Host { .. } => 1,
            What::Exempt { .. } => 2,
            What::Marked => 3,
            What::End => 4,
        }
    }

    /// Whether it is one that drops.
    #[must_use]
    pub const fn discards(&self) -> bool {
        matches!(self.what, What::Fixed { bypass: false, .. })
    }

    /// Whether `found` is this one: what the kernel tells of a rule is more than what it was told.
    pub(super) fn is(&self, found: &RuleMessage) -> bool {
        let ours = self.message();
        let told = |attribute: &&RuleAttribute| {
            matches!(
                attribute,
                RuleAttribute::Destination(_)
                    | RuleAttribute::DestinationPortRange(_)
                    | RuleAttribute::IpProtocol(_)
                    | RuleAttribute::Priority(_)
                    | RuleAttribute::Source(_)
                    | RuleAttribute::SourcePortRange(_)
            )
        };
        let of = |message: &RuleMessage| {
            message.attributes.iter().filter(told).cloned().collect::<Vec<_>>()
        };
        let (ours_told, found_told) = (of(&ours), of(found));
        ours.header.family == found.header.family
            && is_ours(found)
            && ours.header.action == found.header.action
            && ours.header.src_len == found.header.src_len
            && ours.header.dst_len == found.header.dst_len
            && ours_told.len() == found_told.len()
            && ours_told.iter().all(|attribute| found_told.contains(attribute))
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = if self.v6 {
            rtnetlink::packet_route::AddressFamily::Inet6
        } else {
            rtnetlink::packet_route::AddressFamily::Inet
        };
        let mut attributes = vec![RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL))];
        let (mut src_len, mut dst_len) = (0, 0);
        let mut to = |to: IpAddr, attributes: &mut Vec<RuleAttribute>| {
            dst_len = if to.is_ipv6() { 128 } else { 32 };
            attributes.push(RuleAttribute::Destination(to));
        };
        let range = |(start, end)| RulePortRange { start, end };
        let (priority, action) = match &self.what {
            What::End => (END, RuleAction::Nop),
            What::Marked => {
                attributes.push(RuleAttribute::FwMark(MARK));
                (SKIP, RuleAction::Goto)
            }
            What::Exempt { to: peer, protocol, our_port } => {
                to(*peer, &mut attributes);
                attributes.push(RuleAttribute::IpProtocol(IpProtocol::from(protocol.0)));
                if let Some(port) = our_port {
                    attributes.push(RuleAttribute::SourcePortRange(range((*port, *port))));
                }
                (EXEMPT, RuleAction::Goto)
            }
            What::Fixed { priority, bypass, way } => {
                (src_len, dst_len) = (way.from.1, way.to.1);
                // Everything has no address.
                let given = |(addr, len): (IpAddr, u8)| (len > 0).then_some(addr);
                attributes.extend(given(way.from).map(RuleAttribute::Source));
                attributes.extend(given(way.to).map(RuleAttribute::Destination));
                if way.protocol != 0 {
                    attributes.push(RuleAttribute::IpProtocol(IpProtocol::from(way.protocol)));
                }
                let ports = way.from_ports.map(range).map(RuleAttribute::SourcePortRange);
                attributes.extend(ports);
                let ports = way.to_ports.map(range).map(RuleAttribute::DestinationPortRange);
                attributes.extend(ports);
                (*priority, if *bypass { RuleAction::Goto } else { RuleAction::Blackhole })
            }
            What::Host { to: peer, protocol, our_ports, their_ports } => {
                to(*peer, &mut attributes);
                attributes.push(RuleAttribute::Iifname("lo".to_owned()));
                if *protocol != 0 {
                    attributes.push(RuleAttribute::IpProtocol(IpProtocol::from(*protocol)));
                }
                if let Some(ports) = our_ports {
                    attributes.push(RuleAttribute::SourcePortRange(range(*ports)));
                }
                if let Some(ports) = their_ports {
                    attributes.push(RuleAttribute::DestinationPortRange(range(*ports)));
                }
                attributes.push(RuleAttribute::Table(HOST_TABLE));
                (HOST, RuleAction::ToTable)
            }
        };
        if action == RuleAction::Goto {
            attributes.push(RuleAttribute::Goto(END));
        }
        attributes.push(RuleAttribute::Priority(priority));
        (message.header.src_len, message.header.dst_len) = (src_len, dst_len);
        message.header.action = action;
        message.attributes = attributes;
        message
    }
}

impl Netlink {
    /// Adds a rule; one that is there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_host_rule(&self, rule: &Rule) -> Result<(), RouteError> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule.message();
        match request.execute().await {
            Ok(()) => Ok(()),
            Err(cause) if errno(&cause) == libc::EEXIST => Ok(()),
            Err(cause) => Err(failed(&cause, || "add a policy routing rule".to_owned())),
        }
    }

    /// Removes a rule; one that is gone is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_host_rule(&self, rule: &Rule) -> Result<(), RouteError> {
        match self.handle.rule().del(rule.message()).execute().await {
            Ok(()) => Ok(()),
            Err(cause) if is_gone(&cause) => Ok(()),
            Err(cause) => Err(failed(&cause, || "remove a policy routing rule".to_owned())),
        }
    }
}

/// Whether it is one of those that are made here.
pub(super) fn is_ours(rule: &RuleMessage) -> bool {
    let ours = RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL));
    let priority = |attribute: &RuleAttribute| {
        matches!(attribute, RuleAttribute::Priority(priority)
            if (SKIP..=END).contains(priority) && *priority != PRIORITY)
    };
    rule.attributes.contains(&ours) && rule.attributes.iter().any(priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(addr: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
        TrafficSelector {
            protocol,
            start_port: ports.0,
            end_port: ports.1,
            ..TrafficSelector::from_addr(addr.parse().unwrap())
        }
    }

    const ANY: (u16, u16) = (0, u16::MAX);

    fn hosts(ours: TrafficSelector, theirs: TrafficSelector) -> Vec<(u8, Ports, Ports)> {
        let rules = for_transport(theirs.start_addr, &[(ours, theirs)]);
        let host = |rule: &Rule| match &rule.what {
            What::Host { protocol, our_ports, their_ports, .. } => {
                Some((*protocol, *our_ports, *their_ports))
            }
            What::End | What::Exempt { .. } | What::Fixed { .. } | What::Marked => None,
        };
        rules.iter().filter_map(host).collect()
    }

    #[test]
    fn narrow_selectors_take_their_own_traffic_alone() {
        let ours = |protocol, ports| ts("192.0.2.1", protocol, ports);
        let theirs = |protocol, ports| ts("192.0.2.2", protocol, ports);
        assert_eq!(hosts(ours(0, ANY), theirs(0, ANY)), [(0, None, None)]);
        assert_eq!(hosts(ours(0, ANY), theirs(47, ANY)), [(47, None, None)]);
        let found = hosts(ours(6, ANY), theirs(6, (5432, 5432)));
        assert_eq!(found, [(6, None, Some((5432, 5432)))]);
        assert_eq!(hosts(ours(17, (1, 9)), theirs(0, ANY)), [(17, Some((1, 9)), None)]);
    }

    #[test]
    fn ports_that_no_rule_can_have_are_all_ports() {
        let any = ts("192.0.2.2", 0, ANY);
        assert_eq!(hosts(ts("192.0.2.1", 6, (1000, u16::MAX)), any), [(6, None, None)]);
        assert_eq!(hosts(ts("192.0.2.1", 6, (0, 5)), any), [(6, None, None)]);
        assert_eq!(hosts(ts("192.0.2.1", 6, (u16::MAX, 0)), any), [(6, None, None)]);
        // ICMP's type and code are no ports of a rule.
        assert_eq!(hosts(ts("192.0.2.1", 1, (2048, 2048)), any), [(1, None, None)]);
    }

    fn fixed(bypass: bool, order: Order, remote: TrafficSelector) -> FixedPolicy {
        let all = TrafficSelector {
            start_addr: "0.0.0.0".parse().unwrap(),
            end_addr: "255.255.255.255".parse().unwrap(),
            ..remote
        };
        let all = TrafficSelector { protocol: 0, start_port: 0, end_port: u16::MAX, ..all };
        FixedPolicy {
            name: "p".into(),
            bypass,
            order,
            direction: crate::ipsec::fixed::Direction::Both,
            ts_local: [all].into(),
            ts_remote: [remote].into(),
        }
    }

    #[test]
    fn each_policy_has_a_priority_of_its_own_before_or_after_the_tunnels() {
        let one = fixed(false, Order::First, ts("192.0.2.2", 6, (22, 22)));
        let two = fixed(true, Order::First, ts("192.0.2.2", 0, ANY));
        let three = fixed(false, Order::Last, ts("192.0.2.2", 0, ANY));
        let rules = for_fixed([&one, &two, &three].into_iter(), true).unwrap();
        let shown: Vec<_> = rules
            .iter()
            .filter_map(|rule| match &rule.what {
                What::Fixed { priority, bypass, way } => {
                    Some((*priority, *bypass, way.from_ports, way.to_ports))
                }
                What::End | What::Exempt { .. } | What::Host { .. } | What::Marked => None,
            })
            .collect();
        let ssh = Some((22, 22));
        let want = [
            (3802, false, None, ssh),
            (3802, false, ssh, None),
            (3803, true, None, None),
            (3803, true, None, None),
            (4302, false, None, None),
            (4302, false, None, None),
        ];
        assert_eq!(shown, want);
        assert_eq!(rules.len(), want.len() + 2, "and what lets our own packets pass");
        for (at, rule) in rules.iter().enumerate() {
            let told = rule.message();
            let same: Vec<_> = (0..rules.len()).filter(|&it| rules[it].is(&told)).collect();
            assert_eq!(same, [at]);
        }
        // Those that let pass go before those that drop, and what lets our own packets pass goes last.
        let mut ranks: Vec<_> = rules.iter().map(Rule::removal_rank).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 0, 1, 1, 1, 1, 3, 4]);
    }

    #[test]
    fn more_policies_than_there_are_priorities_are_refused() {
        let one = fixed(false, Order::First, ts("192.0.2.2", 0, ANY));
        assert!(for_fixed(core::iter::repeat_n(&one, FIRST.len()), true).is_ok());
        let error = for_fixed(core::iter::repeat_n(&one, FIRST.len() + 1), true).unwrap_err();
        assert!(error.to_string().contains("[[policy]] `p`"), "{error}");
    }

    #[test]
    fn rule_is_recognised_whatever_else_is_told_of_it() {
        let tcp = |port| ts("192.0.2.2", 6, (port, port));
        let rules =
            |port| for_transport(tcp(port).start_addr, &[(ts("192.0.2.1", 6, ANY), tcp(port))]);
        let (mine, other) = (rules(22), rules(23));
        for (at, rule) in mine.iter().enumerate() {
            let mut told = rule.message();
            told.attributes.reverse();
            told.attributes.push(RuleAttribute::SuppressPrefixLen(u32::MAX));
            let same: Vec<_> = (0..mine.len()).filter(|&other| mine[other].is(&told)).collect();
            assert_eq!(same, [at]);
        }
        let [mine, other] = [&mine, &other].map(|rules| rules.last().unwrap());
        assert!(!mine.is(&other.message()));
    }

    #[test]
    fn what_is_protected_passes_by_before_anything_is_taken() {
        let any = ts("fd00::2", 0, ANY);
        let rules = for_transport(any.start_addr, &[(ts("fd00::1", 0, ANY), any)]);
        let priority = |rule: &Rule| {
            let message = rule.message();
            assert!(is_ours(&message));
            let of = |attribute: &RuleAttribute| {
                if let RuleAttribute::Priority(priority) = attribute {
                    Some(*priority)
                } else {
                    None
                }
            };
            message.attributes.iter().find_map(of)
        };
        let order: Vec<_> = rules.iter().filter_map(priority).collect();
        assert_eq!(order, [END, SKIP, EXEMPT, EXEMPT, EXEMPT, EXEMPT, HOST]);
        let by_priority = [SKIP, EXEMPT, FIRST.start, FIRST.end, PRIORITY, LAST.start, LAST.end];
        assert!(by_priority.is_sorted_by(|a, b| a < b));
        assert_eq!((FIRST.end, LAST.end), (HOST, END));
    }
}
