//! What `top` shows: the tunnels of the last look, how much they carried between the looks, and what happened. Pure: time
//! comes in as an argument.

use core::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::control::protocol::{
    ChildSaStatus, IkeSaStatus, ManualSaStatus, PeerState, PeerStatus, Status, Traffic,
};

/// Looks that a history remembers.
pub const HISTORY: usize = 120;
/// Events that are kept.
const EVENTS: usize = 200;

/// A tunnel: a CHILD_SA or a pair of manual SAs with what came before it, or a peer without any.
#[derive(Clone, Debug, Default)]
pub struct Tunnel {
    /// PEER, or PEER/CHILD where the names differ.
    pub name: String,
    /// The state of the SA, or of the peer without one.
    pub state: String,
    /// It is as it should be.
    pub good: bool,
    /// The peer's address.
    pub remote: String,
    /// Bytes a second in the last interval.
    pub inbound: u64,
    /// Bytes a second in the last interval.
    pub outbound: u64,
    /// Of the packets that the peer has sent, the share that never came, in thousandths; `None` before any.
    pub loss: Option<u64>,
    /// Packets dropped as replayed.
    pub replays: u64,
    /// Packets dropped for their ICV.
    pub bad_icvs: u64,
    /// Packets dropped for anything else.
    pub other_drops: u64,
    /// Round-trip time of IKE in microseconds.
    pub rtt_us: Option<u64>,
    /// Time to the next rekey in seconds.
    pub rekey_in: Option<u64>,
    /// Bytes a second in both directions, the newest last.
    pub history: VecDeque<u64>,
}

/// By what tunnels are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Name.
    #[default]
    Name,
    /// State.
    State,
    /// Traffic in both directions.
    Traffic,
    /// Loss.
    Loss,
    /// Drops of all kinds.
    Drops,
    /// Round-trip time.
    Rtt,
    /// Next rekey.
    Rekey,
}

impl Sort {
    const ALL: [Self; 7] =
        [Self::Name, Self::State, Self::Traffic, Self::Loss, Self::Drops, Self::Rtt, Self::Rekey];

    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::State => "state",
            Self::Traffic => "traffic",
            Self::Loss => "loss",
            Self::Drops => "drops",
            Self::Rtt => "rtt",
            Self::Rekey => "rekey",
        }
    }
}

/// Where the mark goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// So many lines down.
    By(isize),
    /// To the first tunnel.
    First,
    /// To the last.
    Last,
}

/// What happened, and when: seconds of the daemon's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// When.
    pub at: u64,
    /// What.
    pub what: String,
    /// It is bad news.
    pub bad: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Version, process and age of the daemon.
    pub daemon: (String, u32, u64),
    /// Why the last look failed.
    pub failure: Option<String>,
    /// Bytes a second of all tunnels, inbound and outbound, the newest last.
    pub totals: (VecDeque<u64>, VecDeque<u64>),
    /// Packets dropped in all, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What happened, the newest last.
    pub events: VecDeque<Happened>,
    /// Help is shown.
    pub help: bool,
    /// How many peers there are, and how many are up.
    pub peers: (usize, usize),
    sort: Sort,
    reversed: bool,
    filter: String,
    typing: bool,
    marked: Option<String>,
    tunnels: BTreeMap<String, Tunnel>,
    last: Option<Last>,
}

/// What was seen at the last look.
#[derive(Clone, Debug)]
struct Last {
    at: Instant,
    pid: u32,
    counters: BTreeMap<String, Counters>,
    states: BTreeMap<String, (PeerState, Option<String>)>,
}

/// Of one SA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counters {
    spi: String,
    inbound: u64,
    outbound: u64,
    bad: u64,
}

impl Model {
    /// Takes a look at the daemon in.
    pub fn update(&mut self, now: Instant, status: Status) {
        if self.last.as_ref().is_some_and(|last| last.pid != status.pid) {
            self.happened(status.uptime_seconds, "another daemon is running".to_owned(), true);
            self.last = None;
        }
        self.failure = None;
        self.daemon = (status.version.clone(), status.pid, status.uptime_seconds);
        let up = status.peers.iter().filter(|peer| peer.state == PeerState::Up).count();
        self.peers = (status.peers.len(), up);
        let (mut counters, mut states) = (BTreeMap::new(), BTreeMap::new());
        let mut old = std::mem::take(&mut self.tunnels);
        let last = self.last.take();
        let millis = last.as_ref().map(|last| {
            u64::try_from(now.saturating_duration_since(last.at).as_millis()).unwrap_or(u64::MAX)
        });
        let rate = |bytes: u64| {
            let millis = millis.filter(|millis| *millis > 0);
            millis.map_or(0, |millis| bytes.saturating_mul(1000) / millis)
        };
        let (mut inbound, mut outbound) = (0, 0);
        for peer in &status.peers {
            let error = peer.last_error.as_ref().map(|error| error.message.clone());
            if let Some(last) = &last {
                self.compare(&status, peer, error.as_deref(), last.states.get(&peer.name));
            }
            states.insert(peer.name.clone(), (peer.state, error));
            for seen in seen_of(peer) {
                let name = seen.name.clone();
                let before = last.as_ref().and_then(|last| last.counters.get(&name));
                // A new SA begins at zero.
                let (spi_before, in_before, out_before, bad_before) = match before {
                    Some(before) if before.spi == seen.spi => {
                        (Some(&before.spi), before.inbound, before.outbound, before.bad)
                    }
                    Some(before) => (Some(&before.spi), 0, 0, 0),
                    None => (None, 0, 0, 0),
                };
                let known = last.is_some() && before.is_some();
                let bad = seen.replays.saturating_add(seen.bad_icvs);
                if let Some(spi) =
                    spi_before.filter(|spi| **spi != seen.spi && !seen.spi.is_empty())
                    && !spi.is_empty()
                {
                    let what = format!("{name}: rekeyed, SPI {spi} -> {}", seen.spi);
                    self.happened(status.uptime_seconds, what, false);
                }
                if known && bad > bad_before {
                    let what = format!("{name}: {} packets replayed or forged", bad - bad_before);
                    self.happened(status.uptime_seconds, what, true);
                }
                let mut tunnel = seen.tunnel;
                if known {
                    tunnel.inbound = rate(seen.inbound.saturating_sub(in_before));
                    tunnel.outbound = rate(seen.outbound.saturating_sub(out_before));
                }
                inbound = tunnel.inbound.saturating_add(inbound);
                outbound = tunnel.outbound.saturating_add(outbound);
                tunnel.history = old.remove(&name).map(|old| old.history).unwrap_or_default();
                if last.is_some() {
                    let both = tunnel.inbound.saturating_add(tunnel.outbound);
                    remember(&mut tunnel.history, both);
                }
                counters.insert(
                    name.clone(),
                    Counters { spi: seen.spi, inbound: seen.inbound, outbound: seen.outbound, bad },
                );
                self.tunnels.insert(name, tunnel);
            }
        }
        if let Some(last) = &last {
            remember(&mut self.totals.0, inbound);
            remember(&mut self.totals.1, outbound);
            for name in last.states.keys().filter(|name| !states.contains_key(*name)) {
                self.happened(status.uptime_seconds, format!("{name}: removed"), false);
            }
        }
        self.drops = status.drops;
        self.last = Some(Last { at: now, pid: status.pid, counters, states });
    }

    /// The daemon did not answer.
    pub fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.happened(self.daemon.2, why.clone(), true);
        }
        self.failure = Some(why);
    }

    fn compare(
        &mut self,
        status: &Status,
        peer: &PeerStatus,
        error: Option<&str>,
        before: Option<&(PeerState, Option<String>)>,
    ) {
        let (state, error_before) = match before {
            Some((state, error)) => (Some(*state), error.as_deref()),
            None => (None, None),
        };
        if state != Some(peer.state) {
            let bad = matches!(peer.state, PeerState::Retrying);
            let what = format!("{}: {}", peer.name, peer.state.name());
            self.happened(status.uptime_seconds, what, bad);
        }
        if let Some(error) = error.filter(|error| error_before != Some(*error)) {
            self.happened(status.uptime_seconds, format!("{}: {error}", peer.name), true);
        }
    }

    fn happened(&mut self, at: u64, what: String, bad: bool) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Happened { at, what, bad });
    }

    /// The tunnels that the filter lets through, in order.
    #[must_use]
    pub fn shown(&self) -> Vec<&Tunnel> {
        let wanted = self.filter.to_lowercase();
        let mut shown: Vec<_> = self
            .tunnels
            .values()
            .filter(|it| {
                wanted.is_empty()
                    || [&it.name, &it.state, &it.remote]
                        .iter()
                        .any(|text| text.to_lowercase().contains(&wanted))
            })
            .collect();
        // Stable: equals stay in the order of their names. Of numbers the largest comes first.
        match self.sort {
            Sort::Name => {}
            Sort::State => shown.sort_by(|a, b| (a.good, &a.state).cmp(&(b.good, &b.state))),
            Sort::Traffic => {
                shown.sort_by_key(|it| Reverse(it.inbound.saturating_add(it.outbound)))
            }
            Sort::Loss => shown.sort_by_key(|it| Reverse(it.loss)),
            Sort::Drops => {
                let all = |it: &Tunnel| it.replays.saturating_add(it.bad_icvs);
                shown.sort_by_key(|it| Reverse(all(it).saturating_add(it.other_drops)));
            }
            Sort::Rtt => shown.sort_by_key(|it| Reverse(it.rtt_us)),
            Sort::Rekey => shown.sort_by_key(|it| it.rekey_in.unwrap_or(u64::MAX)),
        }
        if self.reversed {
            shown.reverse();
        }
        shown
    }

    /// How many tunnels there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tunnels.len()
    }

    /// The place of the marked one among those shown.
    #[must_use]
    pub fn marked(&self, shown: &[&Tunnel]) -> usize {
        let marked = self.marked.as_ref();
        marked.and_then(|name| shown.iter().position(|it| it.name == *name)).unwrap_or(0)
    }

    /// By what it is sorted, and whether the other way round.
    #[must_use]
    pub const fn sort(&self) -> (Sort, bool) {
        (self.sort, self.reversed)
    }

    /// The filter, and whether it is being typed.
    #[must_use]
    pub fn filter(&self) -> (&str, bool) {
        (&self.filter, self.typing)
    }

    /// Whether keys go into the filter.
    #[must_use]
    pub const fn is_typing(&self) -> bool {
        self.typing
    }

    /// Moves the mark.
    pub fn go(&mut self, how: Move) {
        let shown = self.shown();
        let last = shown.len().saturating_sub(1);
        let at = match how {
            Move::By(lines) => self.marked(&shown).saturating_add_signed(lines).min(last),
            Move::First => 0,
            Move::Last => last,
        };
        self.marked = shown.get(at).map(|it| it.name.clone());
    }

    /// Sorts by the next column.
    pub fn next_sort(&mut self) {
        let at = Sort::ALL.iter().position(|it| *it == self.sort).unwrap_or(0);
        self.sort = Sort::ALL[(at + 1) % Sort::ALL.len()];
    }

    /// Turns the order round.
    pub fn reverse(&mut self) {
        self.reversed = !self.reversed;
    }

    /// Keys go into the filter from here on.
    pub fn begin_typing(&mut self) {
        self.typing = true;
    }

    /// A character of the filter.
    pub fn type_char(&mut self, c: char) {
        // As long as any name is.
        if self.filter.len() < 256 {
            self.filter.push(c);
        }
    }

    /// Takes the last one away.
    pub fn erase_char(&mut self) {
        self.filter.pop();
    }

    /// The filter is as it should be, or is not wanted.
    pub fn end_typing(&mut self, keep: bool) {
        self.typing = false;
        if !keep {
            self.filter.clear();
        }
    }

    /// Shows help, or hides it.
    pub fn toggle_help(&mut self) {
        self.help = !self.help;
    }

    /// Hides help; else clears the filter.
    pub fn escape(&mut self) {
        if !std::mem::take(&mut self.help) {
            self.filter.clear();
        }
    }
}

fn remember(history: &mut VecDeque<u64>, rate: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(rate);
}

/// A tunnel as a status has it.
struct Seen {
    name: String,
    spi: String,
    inbound: u64,
    outbound: u64,
    replays: u64,
    bad_icvs: u64,
    tunnel: Tunnel,
}

/// The newest SA of each child; one row for a peer without any.
fn seen_of(peer: &PeerStatus) -> Vec<Seen> {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for ike in &peer.ike_sas {
        // What is being replaced comes after what replaces it, and the first one stays.
        let mut children: Vec<_> = ike.child_sas.iter().collect();
        children.sort_by_key(|child| child.age_seconds);
        for child in children {
            let one = seen_child(peer, ike, child);
            seen.entry(one.name.clone()).or_insert(one);
        }
    }
    for sa in &peer.manual_sas {
        let one = seen_manual(peer, sa);
        seen.entry(one.name.clone()).or_insert(one);
    }
    if seen.is_empty() {
        let remote = peer.ike_sas.first().map(|ike| ike.remote.clone()).unwrap_or_default();
        let tunnel = Tunnel {
            name: peer.name.clone(),
            state: peer.state.name().to_owned(),
            good: peer.state == PeerState::Waiting,
            remote,
            ..Tunnel::default()
        };
        return vec![seen_with(
            tunnel,
            String::new(),
            [Traffic::default(); 2],
            &BTreeMap::new(),
            0,
        )];
    }
    seen.into_values().collect()
}

fn seen_child(peer: &PeerStatus, ike: &IkeSaStatus, child: &ChildSaStatus) -> Seen {
    let up = child.state == "INSTALLED" || child.state == "REKEYING";
    let mut name = name_of(&peer.name, &child.name);
    // RFC 9611: several for the same packets.
    if let Some(resource) = child.resource {
        name.push_str(&format!("#{resource}"));
    }
    let tunnel = Tunnel {
        name,
        state: if child.state == "INSTALLED" {
            "up".to_owned()
        } else {
            child.state.to_lowercase()
        },
        good: up,
        remote: child.remote.clone(),
        rtt_us: ike.rtt_us,
        rekey_in: child.rekey_in_seconds,
        ..Tunnel::default()
    };
    let traffic = [child.inbound, child.outbound];
    seen_with(tunnel, child.spi_inbound.clone(), traffic, &child.drops, child.sequence_inbound)
}

fn seen_manual(peer: &PeerStatus, sa: &ManualSaStatus) -> Seen {
    let layer = sa.layers.first();
    let tunnel = Tunnel {
        name: name_of(&peer.name, &sa.name),
        state: "manual".to_owned(),
        good: true,
        remote: sa.remote.clone(),
        ..Tunnel::default()
    };
    let spi = layer.map(|layer| layer.spi_inbound.clone()).unwrap_or_default();
    let sequence = layer.map_or(0, |layer| layer.sequence_inbound);
    seen_with(tunnel, spi, [sa.inbound, sa.outbound], &sa.drops, sequence)
}

fn seen_with(
    mut tunnel: Tunnel,
    spi: String,
    [inbound, outbound]: [Traffic; 2],
    drops: &BTreeMap<String, u64>,
    sequence: u64,
) -> Seen {
    let count = |reason: &str| drops.get(reason).copied().unwrap_or(0);
    let replays = count("replay-old").saturating_add(count("replay-duplicate"));
    let bad_icvs = count("icv-mismatch");
    let all = drops.values().fold(0, |all: u64, count| all.saturating_add(*count));
    (tunnel.replays, tunnel.bad_icvs) = (replays, bad_icvs);
    tunnel.other_drops = all.saturating_sub(replays).saturating_sub(bad_icvs);
    // Every number that the peer used is a packet that it sent. One that came and was dropped after its ICV was right
    // is no loss of the path: it is among the other drops.
    let missing = sequence.saturating_sub(inbound.packets);
    tunnel.loss = (sequence > 0).then(|| missing.saturating_mul(1000) / sequence);
    let name = tunnel.name.clone();
    Seen { name, spi, inbound: inbound.bytes, outbound: outbound.bytes, replays, bad_icvs, tunnel }
}

fn name_of(peer: &str, child: &str) -> String {
    if peer == child { peer.to_owned() } else { format!("{peer}/{child}") }
}
