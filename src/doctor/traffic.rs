//! Established, and no packets: the counters of the daemon.

use super::facts::Facts;
use super::report::{Finding, Kind, Note};
use crate::control::protocol::{ChildSaStatus, PeerState};

const NAME: &str = "traffic";
/// So many packets one way, without one the other way, are no accident.
const ENOUGH: u64 = 5;

pub(super) fn check(facts: &Facts, notes: &mut Vec<Note>) {
    let Some(peer) = facts.recorded.peer().filter(|peer| peer.state == PeerState::Up) else {
        return;
    };
    let children: Vec<_> = peer.ike_sas.iter().flat_map(|sa| &sa.child_sas).collect();
    if children.is_empty() {
        return;
    }
    let all = |of: fn(&ChildSaStatus) -> u64| children.iter().map(|child| of(child)).sum::<u64>();
    let (inbound, outbound) = (all(|it| it.inbound.packets), all(|it| it.outbound.packets));
    let drops: Vec<_> = children
        .iter()
        .flat_map(|child| &child.drops)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let seen = format!("{outbound} packets have left, {inbound} have come");
    let name = &peer.name;
    let finding = if outbound >= ENOUGH && inbound == 0 {
        let outside = children.first().map_or("esp", |child| &*child.encap);
        let through = match outside {
            "udp" => "UDP port 4500",
            "ah" => "AH (IP protocol 51)",
            _ => "ESP (IP protocol 50)",
        };
        Finding::new(
            Kind::Traffic,
            format!("established, and nothing comes back: the fault is at {name} or on the way to it"),
        )
        .seen(seen)
        .fix(format!("see that firewalls between, and at {name}, let {through} pass: IKE passes, which is another thing"))
        .fix(format!("at {name}: does it forward (net.ipv4.ip_forward), do hosts behind it send their answers to it (default gateway), do they answer at all?"))
        .fix(match outside {
            "esp" => "where ESP does not pass, put it in UDP",
            _ => "count at the far gateway what arrives: swanctl --list-sas (bytes in), tcpdump -n udp port 4500",
        })
        .ipsecd(if outside == "esp" { &["[esp]", "encap = \"udp\""] } else { &[] })
        .swanctl(if outside == "esp" { &["encap = yes   # in the connection"] } else { &[] })
    } else if inbound >= ENOUGH && outbound == 0 {
        Finding::new(
            Kind::Traffic,
            "established, packets come and none leaves: the fault is on this side".to_owned(),
        )
        .seen(seen)
        .fix("do the hosts here send what is for the peer to this gateway (ip route get, on them)?")
        .fix("does this host forward, and do its packet filter and routes let it: see the other checks")
    } else {
        let text = if inbound == 0 && outbound == 0 {
            "up; no packet has been sent yet".to_owned()
        } else {
            seen
        };
        let text =
            if drops.is_empty() { text } else { format!("{text}; dropped: {}", drops.join(", ")) };
        notes.push(Note::Healthy(NAME, text));
        return;
    };
    let finding = if drops.is_empty() {
        finding
    } else {
        finding.seen(format!("dropped here: {}", drops.join(", ")))
    };
    notes.push(finding.into());
}
