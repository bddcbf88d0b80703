//! Whether this host's own packet filter lets through what a tunnel needs.

use core::net::IpAddr;

use super::facts::{Facts, Firewall, Route};
use super::report::{Finding, Kind, Note};
use super::rules::{Fate, Packet, Ruleset};
use crate::ipsec::Mode;
use crate::ipsec::pad::{EncapPolicy, StartPolicy};
use crate::ipsec::suite::Protocol;

const NAME: &str = "firewall";
const UDP: u8 = 17;
const ESP: u8 = 50;
const AH: u8 = 51;

pub(super) fn check(facts: &Facts, notes: &mut Vec<Note>) {
    let rules = match &facts.host.firewall {
        Firewall::Unknown(why) => {
            notes.push(Note::Unchecked(NAME, why.clone()));
            return;
        }
        Firewall::None => {
            notes.push(Note::Healthy(NAME, "this host has no packet filter rules".to_owned()));
            return;
        }
        Firewall::Rules(rules) => rules,
    };
    let before = notes.len();
    if let Some(Ok(route)) = &facts.route {
        outside(facts, rules, route, notes);
    }
    inside(facts, rules, notes);
    if notes.len() == before {
        let text = "no rule that drops UDP 500, UDP 4500, ESP or AH, or packets of the tunnel";
        notes.push(Note::Healthy(NAME, text.to_owned()));
    }
}

/// What the two gateways send each other.
fn outside(facts: &Facts, rules: &Ruleset, route: &Route, notes: &mut Vec<Note>) {
    let we_begin = facts
        .config
        .ike()
        .is_none_or(|peer| peer.children.iter().any(|child| child.start != StartPolicy::Respond));
    let mut kinds: Vec<(String, u8, Option<u16>)> = Vec::new();
    if let Some(peer) = facts.config.ike() {
        kinds.push(("UDP port 500".to_owned(), UDP, Some(500)));
        kinds.push(("UDP port 4500".to_owned(), UDP, Some(4500)));
        // With a NAT, or where it is configured, ESP goes in UDP.
        let sa = facts.recorded.peer().into_iter().flat_map(|peer| &peer.ike_sas);
        let nat = sa.clone().any(|sa| sa.nat_local || sa.nat_peer)
            || facts.attempt.as_ref().is_some_and(|it| it.nat_local || it.nat_peer);
        let in_udp = nat || peer.ike.encap == EncapPolicy::Udp;
        let proposals = || peer.children.iter().flat_map(|child| &child.proposals);
        if proposals().any(|proposal| proposal.protocol == Protocol::Ah) {
            kinds.push(("AH (IP protocol 51)".to_owned(), AH, None));
        } else if !in_udp {
            kinds.push(("ESP (IP protocol 50)".to_owned(), ESP, None));
        }
    }
    for (what, protocol, port) in kinds {
        let interface = route.interface.as_deref();
        let packet = |inward: bool| Packet {
            src: if inward { route.remote } else { route.local },
            dst: if inward { route.local } else { route.remote },
            protocol,
            ports: port.map(|port| (port, port)),
            inbound: interface.filter(|_| inward),
            outbound: interface.filter(|_| !inward),
            // An answer of the peer to what we sent is known to connection tracking; so is what follows.
            answers: inward && we_begin,
        };
        let opened = match port {
            Some(port) => format!("udp dport {port} accept"),
            None => format!("meta l4proto {protocol} accept"),
        };
        for (inward, hooks, chain) in [
            (true, &["prerouting", "input"][..], "input"),
            (false, &["output", "postrouting"], "output"),
        ] {
            if let Fate::Dropped(place) = rules.fate(hooks, &packet(inward)) {
                let (from_to, place_of) = if inward { ("from", "in") } else { ("to", "out") };
                let remote = route.remote;
                notes.push(
                    Finding::new(
                        Kind::Firewall,
                        format!("this host's packet filter drops {what} {from_to} {remote}"),
                    )
                    .seen(format!("nft, going {place_of}: {place}"))
                    .fix(format!(
                        "let it pass, before the rule that drops it: nft insert rule {} {opened}",
                        table(&place, chain)
                    ))
                    .into(),
                );
            }
        }
    }
}

/// What passes between the LAN and the TUN.
fn inside(facts: &Facts, rules: &Ruleset, notes: &mut Vec<Note>) {
    let tun = &*facts.config.interface.name;
    for policy in facts.config.policies().into_iter().filter(|it| it.mode == Mode::Tunnel) {
        let pair = policy.ts_local.iter().find_map(|ours| {
            let v6 = ours.start_addr.is_ipv6();
            let theirs = policy.ts_peer.iter().find(|it| it.start_addr.is_ipv6() == v6)?;
            let is_ours =
                |addr: IpAddr| facts.host.addresses.iter().any(|it| it.net.addr() == addr);
            let lan = facts.host.addresses.iter().find(|it| ours.contains_addr(it.net.addr()))?;
            // Hosts behind us, at whichever address, not we ourselves.
            let host = [next(ours.start_addr), ours.end_addr]
                .into_iter()
                .find(|addr| ours.contains_addr(*addr) && !is_ours(*addr))?;
            Some((host, next(theirs.start_addr), &*lan.interface))
        });
        let Some((host, far, lan)) = pair else { continue };
        // TCP, of which nothing is known, is what people send: its ports are left open.
        let packet = |src, dst, inbound, outbound| Packet {
            src,
            dst,
            protocol: 6,
            ports: None,
            inbound: Some(inbound),
            outbound: Some(outbound),
            answers: false,
        };
        let out = rules.fate(&["forward"], &packet(host, far, lan, tun));
        let back = rules.fate(&["forward"], &packet(far, host, tun, lan));
        // One direction may be meant.
        let (Fate::Dropped(place), Fate::Dropped(_)) = (out, back) else { continue };
        let chain = table(&place, "forward");
        notes.push(
            Finding::new(
                Kind::Firewall,
                format!("this host's packet filter forwards nothing between {lan} and {tun}"),
            )
            .seen(format!("nft, a packet {host} -> {far}: {place}"))
            .fix(format!("let it pass: nft insert rule {chain} iifname {lan} oifname {tun} accept"))
            .fix(format!("and back: nft insert rule {chain} iifname {tun} oifname {lan} accept"))
            .into(),
        );
        return;
    }
}

/// Family, table and base chain of a place that [`Ruleset::fate`] names.
fn table(place: &str, chain: &str) -> String {
    let mut words = place.split([' ', ':', ',']);
    let (family, table) = (words.next().unwrap_or("inet"), words.next().unwrap_or("filter"));
    let named = words.next().unwrap_or(chain);
    format!("{family} {table} {named}")
}

fn next(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => IpAddr::V4(u32::from(addr).saturating_add(1).into()),
        IpAddr::V6(addr) => IpAddr::V6(u128::from(addr).saturating_add(1).into()),
    }
}
