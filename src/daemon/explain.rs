//! What would become of a packet: the kernel's route, the datapath's verdict, and both in words.

use core::net::IpAddr;

use super::names::Names;
use super::status::{encap_name, ends, mode_name, selectors};
use crate::control::explain::{
    Explanation, Length, NearPolicy, Policy, Question, RefusingSa, Route, Sa,
};
use crate::control::protocol::{Code, Failure};
use crate::datapath::Datapath;
use crate::datapath::explain::{Fate, InboundFate, Near, WhyNot, near};
use crate::datapath::probe::{Probe, ProbeError};
use crate::datapath::tap::{Direction, Verdict};
use crate::io::lookup::{Found, Query};
use crate::io::route::{self, Netlink, RouteError};
use crate::ipsec::selector::Differs;
use crate::ipsec::{Action, DropReason, Flow, Path, SaParams};

/// Answers, with the datapath as it is. `netlink`: where the kernel is asked; `tuns`: the names of ours.
///
/// # Errors
/// [`Code::BadRequest`] if the question makes no sense, [`Code::System`] if netlink does not work.
pub async fn explain(
    question: &Question,
    datapath: &Datapath,
    names: &Names,
    netlink: Option<&Netlink>,
    tuns: &[String],
) -> Result<Explanation, Failure> {
    let bad = |error: ProbeError| Failure { code: Code::BadRequest, message: error.to_string() };
    let probe: Probe = question.packet.parse().map_err(bad)?;
    let packet = probe.packet(question.size, question.may_fragment).map_err(bad)?;
    let flow = probe.flow;
    let direction = if question.inbound { Direction::Inbound } else { Direction::Outbound };
    let mut told = Explanation {
        packet: probe.to_string(),
        direction: direction.name().to_owned(),
        size: question.size,
        ..Explanation::default()
    };
    if let Some(netlink) = netlink {
        let found = match direction {
            Direction::Outbound => outbound_route(netlink, &flow, tuns).await,
            Direction::Inbound => inbound_route(netlink, &flow, tuns).await,
        };
        told.route = Some(
            found.map_err(|error| Failure { code: Code::System, message: error.to_string() })?,
        );
    }
    match direction {
        Direction::Outbound => {
            let fate = datapath.explain_outbound(&packet);
            outbound(&mut told, &flow, &fate, datapath, names);
        }
        Direction::Inbound => inbound(&mut told, &datapath.explain_inbound(&flow), names),
    }
    Ok(told)
}

fn outbound(
    told: &mut Explanation,
    flow: &Flow,
    fate: &Fate<'_>,
    datapath: &Datapath,
    names: &Names,
) {
    let spd = datapath.spd();
    told.policy = fate.entry.map(|at| policy(datapath, at, names));
    told.near = near(spd, flow, fate.entry)
        .into_iter()
        .map(|near: Near| NearPolicy {
            policy: policy(datapath, near.entry, names),
            why: why_not(near.why),
        })
        .collect();
    if let Some(entry) = fate.sa {
        let around = entry.sa.around().map(|around| around.params());
        told.sas.push(sa(entry.sa.params(), around, entry.path, entry.sa.sequence(), names));
        told.length = Some(Length {
            mtu: fate.mtu,
            path_mtu: entry.path_mtu,
            packets: fate.packets,
            wire: fate.wire_len,
            outer_fragments: fate.outer_fragments,
        });
    }
    fate.verdict.name().clone_into(&mut told.verdict);
    told.reason = fate.verdict.reason().map(|reason| reason.name().to_owned());
    told.text = match fate.verdict {
        Verdict::Drop(reason) => format!("it is dropped: {}", reason.text()),
        Verdict::Bypass => "it passes unprotected".to_owned(),
        Verdict::Wait => {
            let policy = told.policy.as_ref().and_then(|policy| policy.name.clone());
            let whose = policy.map_or_else(String::new, |name| format!(" for {name}"));
            format!("it waits: there is no SA yet, and one is asked for{whose}")
        }
        Verdict::Reassemble => "it waits for the other fragments".to_owned(),
        Verdict::Protect | Verdict::Deliver | Verdict::Ike | Verdict::Keepalive => {
            let to = told.sas.first().map(|sa| format!("{}, SPI {}", sa.peer, sa.spi));
            format!("it leaves protected, to {}", to.unwrap_or_default())
        }
    };
    if fixed(told, fate.verdict) {
        return;
    }
    if let Some(refused) = told.route.as_ref().and_then(|route| route.refused.clone()) {
        told.verdict = "elsewhere".to_owned();
        told.text = format!("the kernel does not let it come this far: {refused}");
    } else if let Some(route) = told.route.as_ref().filter(|route| !route.into_tun) {
        let interface = route.interface.clone().unwrap_or_default();
        let kind = route.kind.clone().unwrap_or_default();
        told.text = format!(
            "it does not come into a tunnel: the kernel's route for it is {kind}, {interface}; there \
             it would be so: {}",
            told.text
        );
        told.verdict = "elsewhere".to_owned();
    }
}

/// What a policy that needs no SA says holds as well where the kernel does it by itself, before a packet comes into a TUN.
fn fixed(told: &mut Explanation, verdict: Verdict) -> bool {
    let Some(name) = told.policy.as_ref().and_then(|policy| policy.name.as_deref()) else {
        return false;
    };
    let route = told.route.as_ref().filter(|route| !route.into_tun);
    told.text = match (verdict, route) {
        (Verdict::Bypass, Some(Route { refused: None, interface, .. })) => {
            let by = interface.as_ref().map_or_else(String::new, |name| format!(", by {name}"));
            format!("it passes unprotected{by}: {name} says so")
        }
        (Verdict::Bypass, None) => format!("it passes unprotected: {name} says so"),
        (Verdict::Drop(DropReason::PolicyDiscard), _) => {
            format!("it is dropped: {name} says DISCARD")
        }
        _ => return false,
    };
    true
}

fn inbound(told: &mut Explanation, fate: &InboundFate<'_>, names: &Names) {
    let of = |entry: &crate::ipsec::sad::InboundEntry| {
        sa(entry.sa.params(), None, entry.path, entry.sa.sequence(), names)
    };
    told.sas = fate.admits.iter().map(|entry| of(entry)).collect();
    let refusing = fate.refuses.iter().map(|(entry, peer, local)| RefusingSa {
        sa: of(entry),
        why: why_not(WhyNot::Differs(*local, *peer)),
    });
    told.refusing_sas = refusing.collect();
    fate.verdict.name().clone_into(&mut told.verdict);
    told.reason = fate.verdict.reason().map(|reason| reason.name().to_owned());
    told.text = if let Some(reason) = fate.verdict.reason() {
        format!("no SA may carry it: {}", reason.text())
    } else {
        let route = told.route.as_ref();
        let refused = route.and_then(|route| route.refused.as_ref());
        match (refused, route.and_then(|route| route.interface.as_ref())) {
            (Some(refused), _) => {
                format!("it is opened and handed to the kernel, which refuses it: {refused}")
            }
            (None, Some(interface)) => format!("it is opened, and leaves by {interface}"),
            (None, None) => "it is opened and handed to the kernel".to_owned(),
        }
    };
}

fn policy(datapath: &Datapath, at: usize, names: &Names) -> Policy {
    let Some(entry) = datapath.spd().entries().get(at) else { return Policy::default() };
    let (action, name) = match entry.action {
        Action::Bypass => ("BYPASS", None),
        Action::Discard => ("DISCARD", None),
        Action::Protect(id) => ("PROTECT", names.get(id)),
    };
    Policy {
        number: at + 1,
        name: name
            .map(|(peer, child)| format!("{peer}/{child}"))
            .or_else(|| entry.name.as_deref().map(str::to_owned)),
        action: action.to_owned(),
        ts_local: selectors(&entry.ts_local),
        ts_peer: selectors(&entry.ts_peer),
    }
}

fn sa(
    params: &SaParams,
    around: Option<&SaParams>,
    path: Path,
    sequence: u64,
    names: &Names,
) -> Sa {
    let (local, remote) = ends(path);
    let suite = match around {
        Some(around) => format!("{} in {}", params.suite, around.suite),
        None => params.suite.to_string(),
    };
    Sa {
        peer: params.peer.to_string(),
        child: names.get(params.policy).map(|(_, child)| child.to_owned()),
        spi: params.spi.to_string(),
        spi_around: around.map(|around| around.spi.to_string()),
        suite,
        mode: mode_name(params.mode).to_owned(),
        encap: encap_name(params.suite.protocol(), path.encap).to_owned(),
        local,
        remote,
        sequence,
    }
}

fn why_not(why: WhyNot) -> String {
    let differs = |differs| match differs {
        Differs::Address => "address",
        Differs::Protocol => "protocol",
        Differs::Port => "port",
    };
    match why {
        WhyNot::Later => "it matches too, and stands after the one that decides".to_owned(),
        WhyNot::OtherDirection => {
            "it is for the other direction: swap source and destination".to_owned()
        }
        WhyNot::Differs(Some(Differs::Protocol), Some(Differs::Protocol)) => {
            "the protocol differs".to_owned()
        }
        WhyNot::Differs(local, peer) => {
            let sides = [("our", local), ("the peer's", peer)];
            let sides = sides.iter().filter_map(|(whose, why)| {
                why.map(|why| format!("the {} at {whose} side differs", differs(why)))
            });
            sides.collect::<Vec<_>>().join(", and ")
        }
    }
}

/// What this host sends itself is looked up as that; what it forwards, as coming from where the way back to its source
/// leads.
async fn outbound_route(
    netlink: &Netlink,
    flow: &Flow,
    tuns: &[String],
) -> Result<Route, RouteError> {
    let own = netlink.local_addresses().await?.contains(&flow.src) || flow.src.is_loopback();
    let mut query = query(flow);
    if own {
        return Ok(described(netlink.lookup(&query).await?, None, tuns));
    }
    let (src, dst) = (flow.dst, flow.src);
    let back = Query { src: unspecified(src), dst, protocol: 0, ports: None, iif: None };
    let Found::Route { interface: Some((index, name)), .. } = netlink.lookup(&back).await? else {
        let refused =
            format!("{} is none of our addresses, and nothing leads back to it", flow.src);
        return Ok(Route { refused: Some(refused), ..Route::default() });
    };
    query.iif = Some(index);
    if route::forwards(flow.dst.is_ipv6()) == Some(false) {
        let switch = switch_of(flow.dst);
        let refused = format!("{} is none of our addresses, and {switch} is 0", flow.src);
        return Ok(Route { refused: Some(refused), input: Some(name), ..Route::default() });
    }
    Ok(described(netlink.lookup(&query).await?, Some(name), tuns))
}

/// What the kernel does with a packet that comes out of a TUN.
async fn inbound_route(
    netlink: &Netlink,
    flow: &Flow,
    tuns: &[String],
) -> Result<Route, RouteError> {
    let Some(tun) = tuns.first() else { return Ok(Route::default()) };
    let query = Query { iif: Some(netlink.index_of(tun).await?), ..query(flow) };
    Ok(described(netlink.lookup(&query).await?, Some(tun.clone()), tuns))
}

fn query(flow: &Flow) -> Query {
    let Flow { src, dst, protocol, ports } = *flow;
    Query { src, dst, protocol, ports, iif: None }
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
    }
}

const fn switch_of(addr: IpAddr) -> &'static str {
    if addr.is_ipv6() { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" }
}

fn described(found: Found, input: Option<String>, tuns: &[String]) -> Route {
    match found {
        Found::Refused(refused) => Route { refused: Some(refused), input, ..Route::default() },
        Found::Route { kind, table, interface, gateway, mtu } => {
            let interface = interface.map(|(_, name)| name);
            Route {
                kind: Some(kind.to_owned()),
                input,
                into_tun: interface.as_ref().is_some_and(|name| tuns.contains(name)),
                interface,
                gateway: gateway.map(|addr| addr.to_string()),
                table: Some(table),
                mtu,
                refused: None,
            }
        }
    }
}
