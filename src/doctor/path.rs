//! The way between the two: ports, fragments, and how long a packet may be.

use super::facts::{Answer, Attempt, AuthSent, Facts, Outcome, PathMtu};
use super::report::{Finding, Kind, Note};
use crate::ike::CloseReason;
use crate::ipsec::Encap;
use crate::ipsec::mtu::tunnel_mtu;
use crate::ipsec::pad::Fragments;
use crate::ipsec::suite::{AhSuite, ChildProposal, EspSuite, Protocol, Suite};
use crate::wire::ike::numbers::IntegId;

pub(super) fn ports(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "UDP";
    let name = facts.config.name();
    let Some(Ok(route)) = &facts.route else { return };
    let remote = route.remote;
    let (Some(ike), natt) = (facts.experiments.port_500, facts.experiments.port_4500) else {
        if facts.attempt.as_ref().is_some_and(|it| it.init_answered) {
            notes.push(Note::Healthy(NAME, format!("{remote} answers on port 500")));
        }
        return;
    };
    let natt = natt.unwrap_or(ike);
    let on_the_way = "ask whoever runs the firewalls between (your provider, the cloud's security group, the far gateway) to let it pass, both ways";
    let blocked = |port: u16, open: u16| {
        Finding::new(
            Kind::PortBlocked,
            format!("UDP port {port} to {remote} is blocked on the way"),
        )
        .seen(format!("IKE_SA_INIT is answered on port {open}, and never on port {port}"))
        .fix(on_the_way)
        .fix(format!(
            "at the far gateway: nft insert rule inet filter input udp dport {port} accept"
        ))
    };
    let finding = match (ike, natt) {
        (Answer::Ike, Answer::Ike) => {
            let text = format!("{remote} answers on ports 500 and 4500");
            notes.push(Note::Healthy(NAME, text));
            return;
        }
        (Answer::Filtered, _) | (_, Answer::Filtered) => {
            let port = if ike == Answer::Filtered { 500 } else { 4500 };
            Finding::new(Kind::Firewall, format!("this host itself refuses to send to UDP port {port}"))
                .seen("the system says: operation not permitted".to_owned())
                .fix(format!("let it pass: nft insert rule inet filter output udp dport {port} accept"))
        }
        (Answer::Ike, _) => blocked(4500, 500),
        (_, Answer::Ike) => blocked(500, 4500),
        (Answer::Closed, _) | (_, Answer::Closed) => {
            Finding::new(Kind::PeerDown, format!("no IKE daemon listens at {remote}, though the host is there"))
                .seen("it answers with ICMP: port unreachable".to_owned())
                .fix(format!("start IKE on {name}: ipsecd up (or systemctl start strongswan), and look at its log"))
                .fix("see that [peer] address is that gateway, and not another host")
        }
        (Answer::Unreachable, _) | (_, Answer::Unreachable) => {
            Finding::new(Kind::PeerDown, format!("{remote} is not reached: the network says so"))
                .seen("ICMP: host, or network, unreachable".to_owned())
                .fix("see whether the far gateway runs, and its uplink")
                .fix("check [peer] address, and the routes on the way: traceroute shows where it ends")
        }
        // What is found in this host says why.
        (Answer::Silence, Answer::Silence) if notes.iter().any(is_local_cause) => return,
        (Answer::Silence, Answer::Silence) if facts.experiments.echo == Some(true) => {
            Finding::new(Kind::PortBlocked, format!("{remote} answers ping, and not IKE: UDP ports 500 and 4500 are blocked, or IKE there knows no peer at our address"))
                .seen("no answer to IKE_SA_INIT on ports 500 and 4500, and no ICMP error".to_owned())
                .fix(on_the_way)
                .fix(format!("see what the log of {name} says of {}: some daemons do not answer strangers", route.local))
        }
        (Answer::Silence, Answer::Silence) => {
            let echo = if facts.experiments.echo.is_some() { ", nor to ping" } else { "" };
            Finding::new(Kind::PeerDown, format!("nothing comes back from {remote}: it is down, it is not the peer's address, or all is blocked on the way"))
                .seen(format!("no answer to IKE_SA_INIT on ports 500 and 4500{echo}, and no ICMP error"))
                .fix("check [peer] address")
                .fix("see whether the far gateway runs, from another place")
                .fix(on_the_way)
        }
    };
    notes.push(finding.into());
}

/// Whether this host itself drops what comes.
const fn is_local_cause(note: &Note) -> bool {
    matches!(note, Note::Found(Finding { kind: Kind::Firewall | Kind::RpFilter, .. }))
}

/// Whether IKE_AUTH is lost because it is long.
pub(super) fn fragments(facts: &Facts, notes: &mut Vec<Note>) {
    let (Some(peer), Some(Attempt { outcome, auth_sent, .. })) =
        (facts.config.ike(), &facts.attempt)
    else {
        return;
    };
    let (Some(AuthSent { longest, .. }), Some(small)) =
        (auth_sent, facts.experiments.small_fragments)
    else {
        if let (Outcome::Up { .. }, Some(sent)) = (outcome, auth_sent) {
            let text = format!("IKE_AUTH passes, in datagrams of up to {} bytes", sent.longest);
            notes.push(Note::Healthy("fragments", text));
        }
        return;
    };
    if !small {
        return;
    }
    let off = peer.ike.fragmentation.fragments != Fragments::Yes;
    let how = if off {
        "in IP fragments, since IKE fragmentation is off here"
    } else {
        "in IKE fragments"
    };
    notes.push(
        Finding::new(Kind::Fragments, "long packets are lost on the way: IKE_AUTH gets no answer")
            .seen(format!("IKE_AUTH went out {how}, up to {longest} bytes at a time, and was not answered"))
            .seen("in IKE fragments of at most 576 bytes (RFC 7383) it was answered at once".to_owned())
            .fix("have IKE cut its messages itself, so that no IP fragment is needed")
            .fix("a firewall or NAT between drops IP fragments: let them pass, or have it put them together")
            .ipsecd(&["[ike]", "fragmentation = \"yes\"", "fragment-size = 576"])
            .swanctl(&["fragmentation = yes   # in the connection; in strongswan.conf: charon.fragment_size = 576"])
            .into(),
    );
}

pub(super) fn mtu(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "path MTU";
    let Some(PathMtu { interface, measured, known }) = facts.experiments.mtu else { return };
    if measured >= known {
        let learnt = if known < interface { ", which the kernel has learnt" } else { "" };
        notes.push(Note::Healthy(NAME, format!("{measured} bytes{learnt}")));
        return;
    }
    let v6 = matches!(&facts.route, Some(Ok(route)) if route.remote.is_ipv6());
    let fits = facts
        .config
        .ike()
        .and_then(|peer| peer.children.iter().flat_map(|child| &child.proposals).find_map(suite_of))
        .and_then(|suite| tunnel_mtu(measured.into(), suite, Encap::Udp, v6));
    let fits = fits.map_or_else(|| "1200".to_owned(), |fits| fits.to_string());
    notes.push(
        Finding::new(
            Kind::Mtu,
            format!("packets of more than {measured} bytes vanish on the way, and nobody is told (a black hole)"),
        )
        .seen(format!("IKE_SA_INIT with DF is answered at {measured} bytes and not above; the kernel believes in {known}"))
        .seen("no ICMP \"fragmentation needed\" came: small packets pass, and transfers hang".to_owned())
        .fix("best: have ICMP pass (\"fragmentation needed\", for IPv6 \"packet too big\") on every router between")
        .fix("or say here what fits")
        .ipsecd(&["[interface]", &format!("mtu = {fits}"), "clamp-mss = true"])
        .swanctl(&[&format!("# in strongswan.conf: charon.plugins.kernel-netlink {{ mtu = {fits}  mss = {} }}", mss(&fits, v6))])
        .into(),
    );
}

/// What TCP may carry in a packet.
fn mss(mtu: &str, v6: bool) -> usize {
    let headers = if v6 { 60 } else { 40 };
    mtu.parse::<usize>().unwrap_or_default().saturating_sub(headers)
}

/// The first suite of a proposal.
fn suite_of(proposal: &ChildProposal) -> Option<Suite> {
    let esn = *proposal.esn.first()?;
    let integ = proposal.integ.first().copied().unwrap_or(IntegId::NONE);
    Some(match proposal.protocol {
        Protocol::Ah => AhSuite { integ, esn }.into(),
        Protocol::Esp => EspSuite { encr: *proposal.encr.first()?, integ, esn }.into(),
    })
}

/// Whether one of the other findings of this file says why nobody answered.
pub(super) fn explains_silence(facts: &Facts, reason: &CloseReason) -> bool {
    let CloseReason::Unreachable { exchange, .. } = reason else { return false };
    let experiments = &facts.experiments;
    let open = |answer: Option<Answer>| answer.is_none_or(|answer| answer == Answer::Ike);
    !(open(experiments.port_500) && open(experiments.port_4500))
        || (*exchange != "IKE_SA_INIT" && experiments.small_fragments == Some(true))
}
