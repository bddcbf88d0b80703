//! The state of everything, in the words of the control protocol.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ipnet::IpNet;

use super::manual::Pair;
use super::peers::Entry;
use super::worker::Shared;
use crate::control::protocol::{
    ChildSaStatus, FixedPolicyStatus, IkeSaStatus, ManualLayerStatus, ManualSaStatus,
    OffloadStatus, PeerStatus, Status, Traffic,
};
use crate::datapath::{DatapathStats, SaStats};
use crate::ike::{ChildStatus, Configuration, SaStatus};
use crate::io::route::prefixes;
use crate::io::tun;
use crate::ipsec::manual::ManualSa;
use crate::ipsec::{DropReason, Encap, Mode, Path, Protocol, Spi, TrafficSelector, Worker};

/// The daemon as a whole.
#[must_use]
pub fn of_daemon(
    peers: Vec<PeerStatus>,
    uptime: Duration,
    stats: &DatapathStats,
    shared: &Shared,
) -> Status {
    let mut drops = by_reason(&stats.drops);
    let lost = of_lost(shared).into_iter().filter(|(_, count)| *count > 0);
    drops.extend(lost.map(|(name, count)| (name.to_owned(), count)));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: uptime.as_secs(),
        keylog: None,
        offload: OffloadStatus::default(),
        workers: 1,
        peers,
        policies: Vec::new(),
        drops,
    }
}

/// What was dropped that the datapath does not count, by workers and by the kernel on its way to them, by reason.
#[must_use]
pub fn of_lost(shared: &Shared) -> [(&'static str, u64); 6] {
    let lost = &shared.lost;
    let [queue, send, tun, headers] = [
        ("queue-full", &lost.queue_full),
        ("send-failed", &lost.send),
        ("tun-failed", &lost.tun),
        ("headers-refused", &lost.headers),
    ]
    .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)));
    let tuns = shared.tuns.load();
    let unread = tun::dropped(tuns.iter().map(|tun| tun.device().name()));
    [queue, send, tun, headers, ("receive-full", shared.sockets.dropped()), ("tun-full", unread)]
}

/// What is left to the kernel.
#[must_use]
pub fn of_offload(shared: &Shared) -> OffloadStatus {
    let tuns = shared.tuns.load();
    let tuns = tuns.iter().map(|tun| {
        let offloads = tun.device().offloads();
        let names = [("tcp", offloads.tcp), ("udp", offloads.udp)];
        let names = names.iter().filter(|(_, has)| *has).map(|(name, _)| (*name).to_owned());
        (tun.device().name().to_owned(), names.collect())
    });
    let natt = shared.sockets.v4.natt.main(Worker::ALONE);
    let (receive_buffer, send_buffer) = natt.buffers().unwrap_or_default();
    OffloadStatus {
        tuns: tuns.collect(),
        udp_segments: natt.takes_segments(),
        receive_buffer,
        send_buffer,
    }
}

/// Counters of the datapath, and its outbound SAs by the SPI of ours that is the other of the pair: of ten thousand SAs of one policy
/// each is found without looking at all.
pub struct Counters<'a> {
    stats: &'a DatapathStats,
    outbound: BTreeMap<Spi, &'a SaStats>,
}

impl<'a> Counters<'a> {
    /// Of these.
    #[must_use]
    pub fn of(stats: &'a DatapathStats) -> Self {
        Self { stats, outbound: stats.outbound.iter().map(|sa| (sa.other_spi, sa)).collect() }
    }

    fn inbound(&self, spi: Spi) -> Option<&'a SaStats> {
        // They come in the order of their SPIs.
        let at = self.stats.inbound.binary_search_by_key(&spi, |sa| sa.spi).ok()?;
        self.stats.inbound.get(at)
    }

    fn outbound(&self, spi: Spi, other_spi: Spi) -> Option<&'a SaStats> {
        self.outbound.get(&other_spi).copied().filter(|sa| sa.spi == spi)
    }
}

/// Those of an entry that need no SA.
#[must_use]
pub fn policies(entry: &Entry) -> Vec<FixedPolicyStatus> {
    let all = entry.config.fixed().iter();
    all.map(|policy| FixedPolicyStatus {
        name: policy.name.to_string(),
        of: entry.name().to_string(),
        file: entry.config.file.clone(),
        action: if policy.bypass { "BYPASS" } else { "DISCARD" }.to_owned(),
        order: policy.order.name().to_owned(),
        direction: policy.direction.name().to_owned(),
        ts_local: selectors(&policy.ts_local),
        ts_remote: selectors(&policy.ts_remote),
    })
    .collect()
}

/// One peer.
#[must_use]
pub fn of_peer(
    entry: &Entry,
    sas: &[SaStatus],
    counters: &Counters<'_>,
    mtu: Option<u16>,
    now: Instant,
) -> PeerStatus {
    let retry_in = entry.retry_at.map(|at| at.saturating_duration_since(now));
    PeerStatus {
        name: entry.name().to_string(),
        file: entry.config.file.clone(),
        state: entry.state(sas),
        last_error: entry.last_error.clone(),
        retry_in_seconds: retry_in.map(|wait| wait.as_secs()),
        interface: entry.config.interface.name.clone(),
        mtu: mtu.map(u32::from),
        routes: entry.routes.iter().map(IpNet::to_string).collect(),
        ike_sas: sas.iter().map(|sa| of_ike_sa(sa, counters)).collect(),
        manual_sas: manual_sas(entry, counters.stats, now),
    }
}

fn manual_sas(entry: &Entry, stats: &DatapathStats, now: Instant) -> Vec<ManualSaStatus> {
    let (Some(manual), Some(installed)) = (entry.config.manual(), &entry.installed) else {
        return Vec::new();
    };
    let age = now.saturating_duration_since(installed.since);
    let pairs = manual.sas.iter().zip(&installed.pairs);
    pairs.map(|(sa, pair)| of_manual_sa(sa, pair, stats, age)).collect()
}

fn of_manual_sa(
    sa: &ManualSa,
    pair: &Pair,
    stats: &DatapathStats,
    age: Duration,
) -> ManualSaStatus {
    let of_policy = |stats: &&SaStats| stats.policy == sa.policy;
    let inbound: Vec<_> = stats.inbound.iter().filter(of_policy).collect();
    let outbound: Vec<_> = stats.outbound.iter().filter(of_policy).collect();
    let mut drops = BTreeMap::new();
    for sa in inbound.iter().chain(&outbound) {
        for (name, count) in by_reason(&sa.drops) {
            *drops.entry(name).or_default() += count;
        }
    }
    let layers = sa.layers().zip(&pair.counted).map(|((suite, keys, _), counted)| {
        let inbound = inbound.iter().find(|sa| sa.spi == keys.spi);
        ManualLayerStatus {
            spi_inbound: keys.spi.to_string(),
            spi_outbound: counted.sa().params().spi.to_string(),
            suite: suite.to_string(),
            sequence_inbound: inbound.map_or(0, |sa| sa.sequence),
            sequence_outbound: counted.sa().sequence(),
            sequence_last: counted.sa().last_sequence(),
        }
    });
    let (local, remote) = ends(pair.path);
    let first = |all: &[&SaStats], spi: Spi| traffic(all.iter().find(|sa| sa.spi == spi).copied());
    ManualSaStatus {
        name: sa.name.to_string(),
        keys: "manual: no rekey".to_owned(),
        mode: mode_name(sa.mode).to_owned(),
        encap: encap_name(sa.suite.protocol(), sa.encap).to_owned(),
        local,
        remote,
        ts_local: selectors(&sa.ts_local),
        ts_peer: selectors(&sa.ts_peer),
        layers: layers.collect(),
        inbound: first(&inbound, sa.inbound.spi),
        outbound: first(&outbound, sa.outbound.spi),
        drops,
        age_seconds: age.as_secs(),
    }
}

fn of_ike_sa(sa: &SaStatus, counters: &Counters<'_>) -> IkeSaStatus {
    IkeSaStatus {
        state: sa.state.to_owned(),
        initiator: sa.initiator,
        spi_i: sa.spi_i.to_string(),
        spi_r: sa.spi_r.to_string(),
        local_id: sa.local_id.to_string(),
        peer_id: sa.peer_id.as_ref().map(ToString::to_string),
        eap_identity: sa.eap_identity.as_ref().map(ToString::to_string),
        virtual_addresses: given(sa, |given| {
            given.addresses.iter().map(ToString::to_string).collect()
        }),
        leased_addresses: sa.leased.iter().map(ToString::to_string).collect(),
        dns_servers: given(sa, |given| given.dns.iter().map(ToString::to_string).collect()),
        dns_domains: given(sa, |given| given.domains.clone()),
        peer_subnets: given(sa, |given| selectors(&given.subnets)),
        local: sa.path.local.to_string(),
        remote: sa.path.remote.to_string(),
        mobike: sa.mobike,
        nat_local: sa.nat_local,
        nat_peer: sa.nat_peer,
        suite: sa.suite.map(|suite| suite.to_string()),
        ppk: sa.ppk,
        age_seconds: sa.established.map(|age| age.as_secs()),
        rekey_in_seconds: sa.rekey_in.map(|wait| wait.as_secs()),
        rtt_us: sa.round_trip.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        child_sas: sa.children.iter().map(|child| of_child_sa(child, counters)).collect(),
    }
}

/// Something that the peer configured us with.
fn given(sa: &SaStatus, what: impl Fn(&Configuration) -> Vec<String>) -> Vec<String> {
    sa.configuration.as_deref().map(what).unwrap_or_default()
}

fn of_child_sa(child: &ChildStatus, counters: &Counters<'_>) -> ChildSaStatus {
    let inbound = counters.inbound(child.spi_inbound);
    let outbound = counters.outbound(child.spi_outbound, child.spi_inbound);
    let mut drops = BTreeMap::new();
    for sa in [inbound, outbound].into_iter().flatten() {
        for (name, count) in by_reason(&sa.drops) {
            *drops.entry(name).or_default() += count;
        }
    }
    let (local, remote) = ends(child.path);
    ChildSaStatus {
        name: child.name.to_string(),
        state: child.state.to_owned(),
        spi_inbound: child.spi_inbound.to_string(),
        spi_outbound: child.spi_outbound.to_string(),
        suite: child.suite.to_string(),
        mode: mode_name(child.mode).to_owned(),
        encap: encap_name(child.suite.protocol(), child.path.encap).to_owned(),
        local,
        remote,
        ts_local: selectors(&child.ts_local),
        ts_peer: selectors(&child.ts_peer),
        inbound: traffic(inbound),
        outbound: traffic(outbound),
        sequence_inbound: inbound.map_or(0, |sa| sa.sequence),
        sequence_outbound: outbound.map_or(0, |sa| sa.sequence),
        drops,
        resource: child.resource,
        age_seconds: child.established.as_secs(),
        rekey_in_seconds: child.rekey_in.map(|wait| wait.as_secs()),
    }
}

pub(super) const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Tunnel => "tunnel",
        Mode::Transport => "transport",
    }
}

pub(super) const fn encap_name(protocol: Protocol, encap: Encap) -> &'static str {
    match (protocol, encap) {
        (Protocol::Ah, _) => "ah",
        (Protocol::Esp, Encap::Plain) => "esp",
        (Protocol::Esp, Encap::Udp) => "udp",
    }
}

fn traffic(sa: Option<&SaStats>) -> Traffic {
    sa.map_or_else(Traffic::default, |sa| Traffic { packets: sa.packets, bytes: sa.bytes })
}

pub(super) fn ends(path: Path) -> (String, String) {
    match path.encap {
        Encap::Plain => (path.local.ip().to_string(), path.remote.ip().to_string()),
        Encap::Udp => (path.local.to_string(), path.remote.to_string()),
    }
}

fn by_reason(drops: &[(DropReason, u64)]) -> BTreeMap<String, u64> {
    let loud = drops.iter().filter(|(reason, count)| !reason.is_quiet() && *count > 0);
    loud.map(|(reason, count)| (reason.name().to_owned(), *count)).collect()
}

/// Selectors as prefixes, with protocol and ports where they are not any: `10.1.0.0/16`, `10.1.0.0/16[6/443]`.
#[must_use]
pub fn selectors(all: &[TrafficSelector]) -> Vec<String> {
    let mut texts = Vec::new();
    for ts in all {
        let any_port = (ts.start_port, ts.end_port) == (0, u16::MAX);
        let filter = match (ts.protocol, any_port) {
            (0, true) => String::new(),
            (protocol, true) => format!("[{protocol}]"),
            (protocol, false) if ts.start_port == ts.end_port => {
                format!("[{protocol}/{}]", ts.start_port)
            }
            (protocol, false) => format!("[{protocol}/{}-{}]", ts.start_port, ts.end_port),
        };
        let nets = prefixes(std::slice::from_ref(ts));
        match &nets[..] {
            [net] => texts.push(format!("{net}{filter}")),
            _ => texts.push(format!("{}-{}{filter}", ts.start_addr, ts.end_addr)),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::{Datapath, Options};
    use crate::io::clock;
    use crate::ipsec::{SaParams, SadUpdate, Spd};
    use crate::testing::peers;

    fn ts(start: &str, end: &str, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
        TrafficSelector {
            protocol,
            start_port: ports.0,
            end_port: ports.1,
            start_addr: start.parse().unwrap(),
            end_addr: end.parse().unwrap(),
        }
    }

    #[test]
    fn selectors_are_prefixes_where_they_can_be() {
        let any = (0, 0xffff);
        let texts = selectors(&[
            ts("10.1.0.0", "10.1.255.255", 0, any),
            ts("fd01::1", "fd01::1", 58, any),
            ts("10.1.0.1", "10.1.0.2", 0, any),
            ts("10.1.0.0", "10.1.0.255", 6, (443, 443)),
            ts("10.1.0.0", "10.1.0.255", 17, (1, 9)),
        ]);
        let want = ["10.1.0.0/16", "fd01::1/128[58]", "10.1.0.1-10.1.0.2"];
        assert_eq!(texts[..3], want);
        assert_eq!(texts[3..], ["10.1.0.0/24[6/443]", "10.1.0.0/24[17/1-9]"]);
    }

    #[test]
    fn counters_of_a_pair_are_found_among_many_of_one_policy() {
        let spi = |value: u32| Spi::new(value).unwrap();
        let mut datapath = Datapath::new(Options::default(), Spd::default(), clock::now());
        for number in 0..60 {
            let (ours, theirs) = (spi(0x9000 - number), spi(0x1000 + number % 7 * 100 + number));
            let outbound = SaParams { spi: theirs, other_spi: ours, ..peers::sa_params() };
            let inbound = SaParams { spi: ours, other_spi: theirs, ..peers::sa_params() };
            for update in [
                SadUpdate::AddInbound(Box::new(inbound)),
                SadUpdate::AddOutbound(Box::new(outbound)),
            ] {
                datapath = datapath.apply(&update).unwrap();
            }
        }
        let stats = datapath.stats();
        let counters = Counters::of(&stats);
        for sa in &stats.outbound {
            let found = counters.outbound(sa.spi, sa.other_spi).unwrap();
            assert_eq!((found.spi, found.other_spi), (sa.spi, sa.other_spi));
            assert_eq!(counters.inbound(sa.other_spi).unwrap().spi, sa.other_spi);
        }
        assert!(counters.outbound(spi(0x7777), spi(0x9000)).is_none(), "of another pair");
        assert!(counters.outbound(spi(0x1000), spi(0x7777)).is_none());
    }

    #[test]
    fn quiet_drops_are_not_shown() {
        let drops = by_reason(&[(DropReason::Dummy, 3), (DropReason::IcvMismatch, 2)]);
        assert_eq!(drops, BTreeMap::from([("icv-mismatch".to_owned(), 2)]));
    }

    #[test]
    fn raw_esp_has_no_ports() {
        let path = Path {
            local: "192.0.2.1:500".parse().unwrap(),
            remote: "192.0.2.2:500".parse().unwrap(),
            encap: Encap::Plain,
        };
        assert_eq!(ends(path), ("192.0.2.1".into(), "192.0.2.2".into()));
        let path = Path { encap: Encap::Udp, ..path };
        assert_eq!(ends(path).0, "192.0.2.1:500");
    }
}
