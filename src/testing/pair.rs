//! [`Pair`]: two endpoints, what lies between them, and the time in which they live.

mod checks;
mod network;

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{
    FixedRandom, Link, LinkConfig, MessageInfo, ModelSad, Nat, Trace, Violation, VirtualClock,
    peers,
};
use crate::ike::{
    CloseReason, Command, CommandError, Endpoint, EndpointConfig, Env, Event, SaStatus, Transmit,
};
use crate::ipsec::pad::Peer;
use crate::ipsec::{Encap, Notice, Path, PolicyId, SaParams, SadUpdate, Spi};
use crate::wire::ike::numbers::ExchangeType;

/// One of the endpoints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side(usize);

/// The first endpoint, by convention the one that begins.
pub const A: Side = Side(0);
/// The second endpoint.
pub const B: Side = Side(1);

/// A timer that is due again and again at one moment, this often, is a hang.
const TIMERS_AT_ONE_MOMENT: u32 = 1000;
/// A datapath tells of life on an SA at most this often.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a change of the SAD a packet may still leave by the old one: a batch in the making.
const DATAPATH_LAG: Duration = Duration::from_millis(2);

/// Two endpoints joined by a network under a virtual clock.
///
/// It drives them by the contract of [`Endpoint`]: after any `handle_*` all datagrams and events are taken, then the
/// timeout is read. Every outbound SA carries a stream of virtual packets; one that meets no inbound SA with its keys
/// is [`Missed`].
pub struct Pair {
    /// The time.
    pub clock: VirtualClock,
    /// What happened.
    pub trace: Trace,
    /// Whether datagrams wait for [`deliver`](Self::deliver) instead of arriving in their time.
    pub hold: bool,
    /// Interval of the virtual packet stream; `None`: packets only around every change of a SAD, where they matter.
    pub stream: Option<Duration>,
    /// Virtual packets that met no SA.
    pub missed: Vec<Missed>,
    /// Rules that an endpoint broke.
    pub violations: Vec<Violation>,
    seed: u64,
    config: EndpointConfig,
    nodes: [Node; 2],
    in_flight: BTreeMap<(Duration, u64), Packet>,
    sequence: u64,
    next_stream: Duration,
    restarts: u64,
}

/// One endpoint and what belongs to it.
pub struct Node {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its SAD.
    pub sad: ModelSad,
    /// Its events other than those for the SAD, with their time.
    pub events: Vec<(Duration, Event)>,
    /// What the network does to what it sends.
    pub link: Link,
    /// The translator in front of it.
    pub nat: Option<Nat>,
    /// Its own address.
    pub addr: IpAddr,
    /// Virtual packets that met their SA.
    pub received: u64,
    /// IKE datagrams sent.
    pub sent: u64,
    alive: BTreeMap<Spi, Duration>,
    moved: BTreeMap<Spi, Path>,
    no_sa: Option<Duration>,
}

/// An IKE datagram taken out of the network.
#[must_use]
#[derive(Clone)]
pub struct Held {
    from: Side,
    packet: Packet,
}

/// A virtual packet that met no inbound SA with its keys.
#[derive(Clone, Debug)]
pub struct Missed {
    /// When it arrived.
    pub at: Duration,
    /// Who sent it.
    pub from: Side,
    /// The SPI it bore.
    pub spi: Spi,
}

#[derive(Clone)]
struct Packet {
    sequence: u64,
    from: Side,
    src: SocketAddr,
    dst: SocketAddr,
    encap: Encap,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Esp(Arc<SaParams>),
    Ike(Vec<u8>),
}

impl Pair {
    /// The two sites of [`peers`] on a perfect network.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, LinkConfig::PERFECT, peers::site_a(), peers::site_b())
    }

    /// These two, each as the other's configuration has it, on this network.
    #[must_use]
    pub fn with(seed: u64, link: LinkConfig, site_a: Peer, site_b: Peer) -> Self {
        Self::with_config(seed, link, site_a, site_b, EndpointConfig::default())
    }

    /// The same, with endpoints of this configuration.
    #[must_use]
    pub fn with_config(
        seed: u64,
        link: LinkConfig,
        site_a: Peer,
        site_b: Peer,
        config: EndpointConfig,
    ) -> Self {
        let mut pair = Self {
            clock: VirtualClock::new(),
            trace: Trace::default(),
            hold: false,
            stream: None,
            missed: Vec::new(),
            violations: Vec::new(),
            seed,
            config: config.clone(),
            nodes: [(peers::ADDR_A, 0), (peers::ADDR_B, 1)].map(|(addr, stream)| Node {
                endpoint: endpoint(&config, seed, stream),
                sad: ModelSad::default(),
                events: Vec::new(),
                link: Link::new(link, FixedRandom::new(seed, 100 + stream)),
                nat: None,
                addr,
                received: 0,
                sent: 0,
                alive: BTreeMap::new(),
                moved: BTreeMap::new(),
                no_sa: None,
            }),
            in_flight: BTreeMap::new(),
            sequence: 0,
            next_stream: Duration::ZERO,
            restarts: 0,
        };
        pair.command(A, Command::AddPeer(Arc::new(site_a))).expect("a new peer is taken");
        pair.command(B, Command::AddPeer(Arc::new(site_b))).expect("a new peer is taken");
        pair
    }

    /// An endpoint and its surroundings.
    #[must_use]
    pub fn node(&self, side: Side) -> &Node {
        let [a, b] = &self.nodes;
        if side == A { a } else { b }
    }

    /// An endpoint and its surroundings, to change.
    pub fn node_mut(&mut self, side: Side) -> &mut Node {
        let [a, b] = &mut self.nodes;
        if side == A { a } else { b }
    }

    /// Sets what the network does, both ways.
    pub fn set_links(&mut self, config: LinkConfig) {
        for node in &mut self.nodes {
            node.link.config = config;
        }
    }

    /// Replaces an endpoint by a fresh one without memory, as after a crash. Peers have to be added again.
    pub fn restart(&mut self, side: Side) {
        self.restarts += 1;
        let fresh = endpoint(&self.config, self.seed, 1000 + self.restarts);
        let node = self.node_mut(side);
        node.endpoint = fresh;
        node.sad = ModelSad::default();
        node.alive.clear();
        node.moved.clear();
        self.note(format_args!("{side} restarts"));
    }

    /// Gives a command.
    ///
    /// # Errors
    ///
    /// The endpoint's.
    pub fn command(&mut self, side: Side, command: Command) -> Result<(), CommandError> {
        self.note(format_args!("{side} command {command:?}"));
        let now = self.clock.now();
        let result = self.node_mut(side).endpoint.handle_command(now, command);
        self.drain(side);
        result
    }

    /// Begins an IKE SA, from port 500 to port 500.
    pub fn initiate(&mut self, side: Side) {
        let path = peers::path(self.node(side).addr, self.public_addr(side.other()));
        self.initiate_on(side, path);
    }

    /// Begins an IKE SA on this path.
    ///
    /// # Panics
    ///
    /// If the endpoint does not take the command.
    pub fn initiate_on(&mut self, side: Side, path: Path) {
        let peer = side.peer_name();
        self.command(side, Command::Initiate { peer, path }).expect("Initiate is taken");
    }

    /// Begins a rekey of every CHILD_SA.
    ///
    /// # Errors
    ///
    /// The endpoint's.
    pub fn rekey_children(&mut self, side: Side) -> Result<(), CommandError> {
        self.command(side, Command::RekeyChildren { peer: side.peer_name() })
    }

    /// Begins a rekey of the IKE SA.
    ///
    /// # Errors
    ///
    /// The endpoint's.
    pub fn rekey_ike(&mut self, side: Side) -> Result<(), CommandError> {
        self.command(side, Command::RekeyIke { peer: side.peer_name() })
    }

    /// Deletes the IKE SA.
    ///
    /// # Errors
    ///
    /// The endpoint's.
    pub fn terminate(&mut self, side: Side) -> Result<(), CommandError> {
        self.command(side, Command::Terminate { peer: side.peer_name() })
    }

    /// Tells an endpoint what its datapath saw.
    pub fn notice(&mut self, side: Side, notice: Notice) {
        self.note(format_args!("{side} notice {notice:?}"));
        let now = self.clock.now();
        self.node_mut(side).endpoint.handle_notice(now, notice);
        self.drain(side);
    }

    /// Gives a datagram to an endpoint as if it came from the network on this path.
    pub fn inject(&mut self, side: Side, path: Path, datagram: &[u8]) {
        self.trace_ike(side, "injected into", datagram);
        let now = self.clock.now();
        self.node_mut(side).endpoint.handle_datagram(now, path, datagram);
        self.drain(side);
    }

    /// Lets time pass, and what is due happen.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until `done` holds, at most `limit`; says whether it held.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.clock.elapsed() + limit;
        let mut at_one_moment = 0;
        loop {
            if done(self) {
                return true;
            }
            let due = self.next_due().filter(|due| *due <= end);
            let Some(due) = due else {
                self.clock.advance_to(end);
                return false;
            };
            at_one_moment = if due > self.clock.elapsed() { 0 } else { at_one_moment + 1 };
            if at_one_moment > TIMERS_AT_ONE_MOMENT {
                self.violations
                    .push(Violation(format!("something is due again and again at {due:?}")));
                return false;
            }
            self.clock.advance_to(due);
            self.step();
        }
    }

    /// Lets time pass until nothing is in flight and no timer is due within `quiet`, at most ten minutes; says whether
    /// it came to that.
    pub fn settle(&mut self, quiet: Duration) -> bool {
        self.run_until(Duration::from_secs(600), |pair| {
            let idle = pair.next_due().is_none_or(|due| due > pair.clock.elapsed() + quiet);
            pair.in_flight.is_empty() && idle
        })
    }

    /// When the next thing happens, since the start.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        let arrival = self.in_flight.keys().next().map(|(at, _)| *at).filter(|_| !self.hold);
        let stream = self.stream.map(|_| self.next_stream);
        let timers = [A, B].into_iter().filter_map(|side| self.timer(side));
        timers.chain(arrival).chain(stream).min().map(|due| due.max(self.clock.elapsed()))
    }

    /// When an endpoint's next timer is due, since the start.
    #[must_use]
    pub fn timer(&self, side: Side) -> Option<Duration> {
        let (at, _) = self.node(side).endpoint.poll_timeout()?;
        Some(self.clock.since_start(at))
    }

    /// Moves on to the next timer of either endpoint, and lets it fire, while datagrams stay where they are.
    pub fn fire_next_timer(&mut self) -> Option<Side> {
        let (due, side) = [A, B].into_iter().filter_map(|s| Some((self.timer(s)?, s))).min()?;
        self.clock.advance_to(due);
        self.fire(side);
        Some(side)
    }

    /// What is in flight from a side: the IKE messages, the oldest first.
    #[must_use]
    pub fn in_flight(&self, from: Side) -> Vec<MessageInfo> {
        self.flying(from).filter_map(|packet| packet.info()).collect()
    }

    /// Takes the IKE message number `index` in flight from a side, the oldest being 0. Virtual packets that left
    /// before it arrive first.
    pub fn take(&mut self, from: Side, index: usize) -> Option<Held> {
        let sequence = self.flying(from).filter(|p| p.is_ike()).nth(index)?.sequence;
        let before = self.keys(|p| p.from == from && !p.is_ike() && p.sequence < sequence);
        for key in before {
            if let Some(packet) = self.in_flight.remove(&key) {
                self.arrive(packet);
            }
        }
        let key = self.keys(|p| p.sequence == sequence).first().copied()?;
        let packet = self.in_flight.remove(&key)?;
        Some(Held { from, packet })
    }

    /// Takes the oldest IKE message in flight from a side, which has to be of this exchange.
    ///
    /// # Panics
    ///
    /// If there is none, or it is another, with what is in flight.
    pub fn expect(&mut self, from: Side, exchange: ExchangeType, response: bool) -> Held {
        let found = self.in_flight(from);
        match found.first() {
            Some(info) if info.exchange == exchange && info.response == response => {}
            _ => {
                panic!("{from} was to send {exchange} (response: {response}), in flight: {found:?}")
            }
        }
        self.take(from, 0).expect("just seen in flight")
    }

    /// Delivers what was taken.
    pub fn deliver(&mut self, held: Held) {
        self.arrive(held.packet);
    }

    /// Expects a message and delivers it.
    ///
    /// # Panics
    ///
    /// As [`expect`](Self::expect).
    pub fn pass(&mut self, from: Side, exchange: ExchangeType, response: bool) {
        let held = self.expect(from, exchange, response);
        self.deliver(held);
    }

    /// Expects a request from a side and its response, and delivers both.
    ///
    /// # Panics
    ///
    /// As [`expect`](Self::expect).
    pub fn exchange(&mut self, from: Side, exchange: ExchangeType) {
        self.pass(from, exchange, false);
        self.pass(from.other(), exchange, true);
    }

    /// Delivers the virtual packets in flight, in the order in which they left.
    pub fn deliver_packets(&mut self) {
        let mut keys = self.keys(|packet| !packet.is_ike());
        keys.sort_unstable_by_key(|(_, sequence)| *sequence);
        for key in keys {
            if let Some(packet) = self.in_flight.remove(&key) {
                self.arrive(packet);
            }
        }
    }

    /// Sends a virtual packet through every SA in use, both ways.
    pub fn send_packets(&mut self) {
        for side in [A, B] {
            let in_use = self.node(side).sad.in_use();
            self.send_through(side, &in_use, Duration::ZERO);
        }
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// An endpoint's own description of its IKE SAs.
    #[must_use]
    pub fn status(&self, side: Side) -> Vec<SaStatus> {
        self.node(side).endpoint.status(self.clock.now())
    }

    /// The SPIs of an endpoint's IKE SAs that can carry exchanges: established, or about to be rekeyed or deleted.
    #[must_use]
    pub fn ike_sas(&self, side: Side) -> BTreeSet<(u64, u64)> {
        let carries = |sa: &SaStatus| sa.state != "CONNECTING";
        self.status(side)
            .iter()
            .filter(|sa| carries(sa))
            .map(|sa| (sa.spi_i.0, sa.spi_r.0))
            .collect()
    }

    /// Why IKE SAs of a side ended, or attempts at them, in order.
    #[must_use]
    pub fn closed(&self, side: Side) -> Vec<CloseReason> {
        let reason = |event: &Event| {
            let Event::IkeSaClosed { reason, .. } = event else { return None };
            Some(reason.clone())
        };
        self.node(side).events.iter().filter_map(|(_, event)| reason(event)).collect()
    }

    /// Why CHILD_SAs of a side could not be made, in order.
    #[must_use]
    pub fn child_failures(&self, side: Side) -> Vec<CloseReason> {
        let reason = |event: &Event| {
            let Event::ChildSaFailed { reason, .. } = event else { return None };
            Some(reason.clone())
        };
        self.node(side).events.iter().filter_map(|(_, event)| reason(event)).collect()
    }
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        Self(1 - self.0)
    }

    /// What this side calls the other.
    #[must_use]
    pub fn peer_name(self) -> Arc<str> {
        Arc::from(if self == A { "b" } else { "a" })
    }
}

impl Held {
    /// Its header.
    #[must_use]
    pub fn info(&self) -> Option<MessageInfo> {
        self.packet.info()
    }

    /// Who sent it.
    #[must_use]
    pub const fn from(&self) -> Side {
        self.from
    }

    /// Its bytes.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        match &self.packet.body {
            Body::Esp(_) => &[],
            Body::Ike(datagram) => datagram,
        }
    }

    /// The same message with other bytes.
    pub fn with_datagram(mut self, datagram: Vec<u8>) -> Self {
        self.packet.body = Body::Ike(datagram);
        self
    }

    /// The path as its receiver sees it, where there is no NAT.
    #[must_use]
    pub const fn path(&self) -> Path {
        Path { local: self.packet.dst, remote: self.packet.src, encap: self.packet.encap }
    }
}

impl Packet {
    const fn is_ike(&self) -> bool {
        matches!(self.body, Body::Ike(_))
    }

    fn info(&self) -> Option<MessageInfo> {
        match &self.body {
            Body::Esp(_) => None,
            Body::Ike(datagram) => MessageInfo::of(datagram),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == A { "A" } else { "B" })
    }
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info() {
            Some(info) => write!(f, "{}: {info}", self.from),
            None => write!(f, "{}: {} bytes", self.from, self.datagram().len()),
        }
    }
}

fn endpoint(config: &EndpointConfig, seed: u64, stream: u64) -> Endpoint {
    let env =
        Env { rng: Box::new(FixedRandom::new(seed, stream)), wall_clock: Arc::new(peers::Today) };
    Endpoint::new(config.clone(), env)
}

fn summary(update: &SadUpdate) -> String {
    match update {
        SadUpdate::AddInbound(sa) => format!("AddInbound {} of {:?}", sa.spi, sa.policy),
        SadUpdate::AddOutbound(sa) => format!("AddOutbound {} of {:?}", sa.spi, sa.policy),
        SadUpdate::MovePath { spi, path } => format!("MovePath {spi} {path:?}"),
        SadUpdate::RemoveInbound(spi) => format!("RemoveInbound {spi}"),
        SadUpdate::RemoveOutbound { policy, spi, .. } => {
            format!("RemoveOutbound {spi} of {policy:?}")
        }
    }
}
