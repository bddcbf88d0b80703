//! What a tunnel needs of this host.

use core::net::IpAddr;
use core::time::Duration;

use ipnet::IpNet;

use super::dialect;
use super::facts::{Facts, PortHolder, Recorded};
use super::report::{Finding, Kind, Note, list};
use crate::config::Severity;
use crate::ipsec::pad::{LocalAuth, PeerAddress};
use crate::ipsec::{Mode, TrafficSelector};

/// A file may come from a host whose clock is a little ahead.
const CLOCK_SLACK: Duration = Duration::from_secs(300);

pub(super) fn configuration(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "configuration";
    let warnings = facts.warnings.as_slice().iter().filter(|it| it.severity == Severity::Warning);
    let mut any = false;
    for warning in warnings {
        any = true;
        let mut finding = Finding::new(Kind::Configuration, warning.message.clone());
        finding.fix.extend(warning.help.clone());
        notes.push(finding.into());
    }
    if !any {
        notes.push(Note::Healthy(NAME, facts.config.summary()));
    }
}

pub(super) fn tun(facts: &Facts, notes: &mut Vec<Note>) {
    // A daemon that carries the peer has one already.
    notes.push(match (&facts.host.tun, facts.recorded.peer()) {
        (None, _) => Note::Healthy("tun", "/dev/net/tun can be opened".to_owned()),
        (Some(why), Some(_)) => {
            Note::Unchecked("tun", format!("/dev/net/tun: {why}; the daemon has its own"))
        }
        (Some(why), None) => Finding::new(Kind::Tun, format!("/dev/net/tun cannot be used: {why}"))
            .fix("load the driver: modprobe tun")
            .fix("in a container, hand the device in: --device /dev/net/tun --cap-add NET_ADMIN")
            .into(),
    });
}

pub(super) fn capabilities(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "capabilities";
    let missing = &facts.host.missing_capabilities;
    notes.push(if missing.is_empty() {
        Note::Healthy(NAME, "this process has all that the daemon needs".to_owned())
    } else if facts.recorded.peer().is_some() {
        Note::Healthy(NAME, "the daemon runs, and so has them".to_owned())
    } else {
        Note::Unchecked(
            NAME,
            format!(
                "this process does not have {}: run doctor as the user that runs the daemon",
                list(missing)
            ),
        )
    });
}

pub(super) fn clock(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "clock";
    let host = &facts.host;
    match host.newest_file.filter(|file| *file > host.now + CLOCK_SLACK) {
        Some(file) => notes.push(
            Finding::new(
                Kind::Clock,
                format!("this host's clock is wrong: it says {}", dialect::date(host.now)),
            )
            .seen(format!(
                "a file of this configuration was written {}, which is still to come",
                dialect::date(file)
            ))
            .fix("set the clock, and keep it right: timedatectl set-ntp true (or chronyd)")
            .into(),
        ),
        None => notes.push(Note::Healthy(NAME, format!("{} UTC", dialect::date(host.now)))),
    }
}

pub(super) fn name(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "name";
    match (&facts.resolved, facts.config.address()) {
        (Err(why), address) => notes.push(
            Finding::new(
                Kind::Resolve,
                format!("the peer's name {} leads nowhere", dialect::address(address)),
            )
            .seen(why.clone())
            .fix("check its spelling, and this host's resolver (resolvectl query, getent hosts)")
            .fix("or write the address itself")
            .ipsecd(&["[peer]", "address = \"198.51.100.1\"   # the peer's own address"])
            .into(),
        ),
        (Ok(found), PeerAddress::Name(name)) => {
            notes.push(Note::Healthy(NAME, format!("{name} is {}", list(found))));
        }
        (Ok(_), PeerAddress::Any | PeerAddress::Ip(_)) => {}
    }
}

pub(super) fn route(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "route";
    match &facts.route {
        None => {}
        Some(Ok(route)) => {
            let via = route.interface.as_deref().unwrap_or("?");
            notes.push(Note::Healthy(
                NAME,
                format!("{} -> {} over {via}, mtu {}", route.local, route.remote, route.mtu),
            ));
        }
        Some(Err(why)) => {
            let remote = facts.resolved.as_ref().ok().and_then(|all| all.first());
            let remote = remote.map_or_else(|| "the peer".to_owned(), ToString::to_string);
            notes.push(
                Finding::new(Kind::Route, format!("this host has no route to {remote}"))
                    .seen(why.clone())
                    .fix("set a default route, or one to the peer (ip route add … via …); see whether the uplink is up (ip -br addr)")
                    .into(),
            );
        }
    }
}

pub(super) fn local_address(facts: &Facts, notes: &mut Vec<Note>) {
    let Some(local) = facts.config.local_addr() else { return };
    let addresses = &facts.host.addresses;
    if addresses.is_empty() {
        return;
    }
    if addresses.iter().any(|it| it.net.addr() == local) {
        notes.push(Note::Healthy("address", format!("{local} is this host's")));
        return;
    }
    let ours = addresses.iter().filter(|it| it.net.addr().is_ipv4() == local.is_ipv4());
    notes.push(
        Finding::new(Kind::LocalAddress, format!("[local] address {local} is none of this host's"))
            .seen(format!("this host has {}", list(ours.map(|it| it.net.addr()))))
            .fix("leave it out, so that routing chooses, or write one that this host has")
            .fix("behind a NAT, write the address that the interface has, not the public one")
            .into(),
    );
}

pub(super) fn ports(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "ports";
    let runs = !matches!(facts.recorded, Recorded::NoDaemon(_));
    let is_ours = |holder: &&PortHolder| match &holder.process {
        Some((name, _)) => name.starts_with("ipsecd"),
        None => runs,
    };
    let mut strangers = facts.host.ports.iter().filter(|holder| !is_ours(holder));
    let Some(holder) = strangers.next() else {
        let text = if facts.host.ports.is_empty() {
            "UDP 500 and 4500 are free"
        } else {
            "UDP 500 and 4500 are ipsecd's"
        };
        notes.push(Note::Healthy(NAME, text.to_owned()));
        return;
    };
    let who = match &holder.process {
        Some((name, pid)) => format!("{} (process {pid})", name.escape_debug()),
        None => "another process".to_owned(),
    };
    notes.push(
        Finding::new(Kind::PortTaken, format!("{who} has UDP port {} of this host", holder.port))
            .fix("stop the other IKE daemon, and keep it from starting again: systemctl disable --now strongswan (or strongswan-starter, ipsec, iked)")
            .fix("or run ipsecd in a network namespace of its own")
            .into(),
    );
}

pub(super) fn rp_filter(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "rp_filter";
    let Some(Ok(route)) = &facts.route else { return };
    let Some(interface) = route.interface.as_deref().filter(|_| route.remote.is_ipv4()) else {
        return;
    };
    let of = |name: &str| facts.host.rp_filter.get(name).copied().unwrap_or_default();
    // The greater of the two counts (ip-sysctl).
    let effective = of("all").max(of(interface));
    let mut tunnel = facts.config.policies().into_iter().filter(|it| it.mode == Mode::Tunnel);
    let swallows = facts.config.interface.routes
        && tunnel.any(|policy| policy.ts_peer.iter().any(|ts| ts.contains_addr(route.remote)));
    if effective != 1 || !swallows {
        notes.push(Note::Healthy(NAME, format!("{effective} on {interface}, which is right here")));
        return;
    }
    let tun = &facts.config.interface.name;
    let remote = route.remote;
    notes.push(
        Finding::new(
            Kind::RpFilter,
            format!("rp_filter drops all that comes from {remote} as soon as the routes are set"),
        )
        .seen(format!(
            "[peer] subnets contain {remote}: by its routes it is behind {tun}, its packets come in on {interface}, and rp_filter \
             there is 1 (strict)"
        ))
        .fix(format!("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{interface}.rp_filter=2"))
        .fix("to keep it: the same two lines in /etc/sysctl.d/90-ipsecd.conf")
        .into(),
    );
}

pub(super) fn forwarding(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "forwarding";
    let own = |addr: IpAddr| facts.host.addresses.iter().any(|it| it.net.addr() == addr);
    let mut checked = Vec::new();
    for v6 in [false, true] {
        let behind = |ts: &&TrafficSelector| {
            ts.start_addr.is_ipv6() == v6 && !(ts.start_addr == ts.end_addr && own(ts.start_addr))
        };
        let policies = facts.config.policies();
        let mut tunnel = policies.iter().filter(|it| it.mode == Mode::Tunnel);
        // A virtual address is our own.
        let is_given = facts.config.ike().is_some_and(|peer| peer.request.is_some());
        let Some(net) = tunnel.find_map(|it| it.ts_local.iter().find(behind)).filter(|_| !is_given)
        else {
            continue;
        };
        let inside = facts.host.addresses.iter().find(|it| net.contains_addr(it.net.addr()));
        let (switch, is_on) = if v6 {
            ("net.ipv6.conf.all.forwarding".to_owned(), facts.host.forwarding_v6)
        } else {
            let all = facts.host.forwarding_v4.get("all").copied();
            let lan = inside.and_then(|it| {
                let on = facts.host.forwarding_v4.get(&it.interface).copied()?;
                Some((format!("net.ipv4.conf.{}.forwarding", it.interface), on))
            });
            match (all, lan) {
                (Some(true), Some((switch, false))) => (switch, Some(false)),
                _ => ("net.ipv4.ip_forward".to_owned(), all),
            }
        };
        match is_on {
            Some(true) => checked.push(if v6 { "IPv6" } else { "IPv4" }),
            None => notes.push(Note::Unchecked(NAME, format!("{switch} cannot be read"))),
            Some(false) => notes.push(
                Finding::new(
                    Kind::Forwarding,
                    format!(
                        "this host does not forward: hosts in {} do not reach the peer",
                        dialect::selector(net)
                    ),
                )
                .seen(format!("{switch} is 0"))
                .fix(format!("sysctl -w {switch}=1"))
                .fix(format!("to keep it: {switch} = 1 in /etc/sysctl.d/90-ipsecd.conf"))
                .into(),
            ),
        }
    }
    if !checked.is_empty() {
        notes.push(Note::Healthy(NAME, format!("on, for {}", checked.join(" and "))));
    }
}

pub(super) fn subnets(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "subnets";
    let before = notes.len();
    let tun = &facts.config.interface.name;
    for policy in facts.config.policies().into_iter().filter(|it| it.mode == Mode::Tunnel) {
        for theirs in policy.ts_peer {
            let met =
                facts.host.addresses.iter().find(|it| {
                    it.interface != *tun && it.interface != "lo" && splits(theirs, it.net)
                });
            let Some(met) = met else { continue };
            let (net, theirs) = (met.net.trunc(), dialect::selector(theirs));
            notes.push(
                Finding::new(
                    Kind::Subnets,
                    format!("the peer's subnet {theirs} overlaps {net}, which is on {} here", met.interface),
                )
                .seen(format!("{} has {}: its own neighbours would be looked for behind the peer, or the peer's hosts here", met.interface, met.net))
                .fix("give one of the two sites another subnet: nothing else lets every host reach every host")
                .fix("where that cannot be, translate: the peer shows its subnet as another one (NETMAP), and that is written here")
                .ipsecd(&["[peer]", "subnets = [\"10.99.2.0/24\"]   # as the peer shows itself, for example"])
                .swanctl(&["local_ts = 10.99.2.0/24   # with NETMAP on the far gateway"])
                .into(),
            );
        }
    }
    for other in &facts.others {
        let clash = other.policies().into_iter().find_map(|theirs| {
            facts.config.policies().into_iter().find_map(|ours| {
                let met = |a: &[TrafficSelector], b: &[TrafficSelector]| {
                    a.iter().find_map(|a| b.iter().find_map(|b| a.intersect(b)))
                };
                met(ours.ts_local, theirs.ts_local)?;
                met(ours.ts_peer, theirs.ts_peer)
            })
        });
        if let Some(clash) = clash {
            notes.push(
                Finding::new(
                    Kind::Subnets,
                    format!("{} is behind two peers: {} and {}", dialect::selector(&clash), facts.config.name(), other.name()),
                )
                .seen(format!("{} and {}", facts.config.file.display(), other.file.display()))
                .fix("give each peer subnets of its own: the one that was loaded first gets the traffic of both")
                .into(),
            );
        }
    }
    if notes.len() == before {
        notes.push(Note::Healthy(
            NAME,
            "none of the peer's is here, or behind another peer".to_owned(),
        ));
    }
}

/// Whether a subnet of the peer and a link of ours have addresses in common, in a way that splits the one or the other. A
/// peer's subnet that contains the link is no fault: the link has its more specific route (`0.0.0.0/0`).
fn splits(theirs: &TrafficSelector, link: IpNet) -> bool {
    if link.prefix_len() == link.max_prefix_len() || is_link_local(link.addr()) {
        return theirs.start_addr == theirs.end_addr && theirs.start_addr == link.addr();
    }
    let (first, last) = (link.network(), link.broadcast());
    let overlaps = theirs.start_addr.is_ipv4() == first.is_ipv4()
        && theirs.start_addr <= last
        && first <= theirs.end_addr;
    let contains = theirs.start_addr <= first && last <= theirs.end_addr;
    let same = theirs.start_addr == first && theirs.end_addr == last;
    overlaps && (same || !contains)
}

const fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

pub(super) fn secret(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "pre-shared key";
    let Some(LocalAuth::Psk(key)) = facts.config.ike().map(|peer| &peer.auth.local) else { return };
    let bytes = key.expose();
    let odd = match bytes {
        [first, ..] if first.is_ascii_whitespace() => Some("begins with white space"),
        [.., last] if last.is_ascii_whitespace() => Some("ends in white space"),
        [b'"', .., b'"'] | [b'\'', .., b'\''] => Some("has quotation marks around it"),
        [0xef, 0xbb, 0xbf, ..] => Some("begins with a byte order mark"),
        _ => None,
    };
    match odd {
        Some(what) => notes.push(
            Finding::new(Kind::Secret, format!("the pre-shared key {what}, which is part of it"))
                .seen(format!(
                    "it has {} bytes; one line break at its end is left out already",
                    bytes.len()
                ))
                .fix("if that is not meant, write it without: printf %s 'the key' > far.psk")
                .into(),
        ),
        None => {
            notes.push(Note::Healthy(NAME, format!("{} bytes, nothing odd about it", bytes.len())))
        }
    }
}
