//! What a responder does for a complete set-up with PSKs: IKE_SA_INIT, IKE_AUTH, the IKE SA and its CHILD_SA, both SAs in
//! the SAD. CPU of it, and memory of a tunnel, from the first to the ten thousandth: `cargo bench --bench ike`.
//!
//! Beside it stands one x25519 derivation, by OpenSSL if that is there: figures of other machines can be compared by it.

mod common;
#[path = "common/live.rs"]
mod live;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command as Program;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Samples, figure, now, time};
use ipsecd::datapath::{Datapath, Options};
use ipsecd::ike::{Command, Endpoint, EndpointConfig, Env, Event};
use ipsecd::ipsec::pad::{AddressPool, AddressRequest, Identity, Peer, PeerAddress, Wish};
use ipsecd::ipsec::{Lifetime, PolicyId, SadUpdate, Spd};
use ipsecd::testing::{FixedRandom, peers};
use ipsecd::wire::ike::numbers::KeId;

const FEW: u32 = 200;
const MANY: u32 = 10_000;
const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    if let Some(derivation) = openssl_x25519() {
        figure("IKE: one x25519 derivation by OpenSSL", derivation * 1e6, "µs");
    }
    let (x25519, _) = set_up(FEW, None, Shape::Sites);
    figure("IKE: responder's CPU of a set-up, x25519", x25519.first / 1e6, "ms");
    figure("IKE: set-ups a second and core, x25519", 1e9 / x25519.first, "1/s");
    let (hybrid, _) = set_up(FEW, Some(KeId::ML_KEM_768), Shape::Sites);
    figure("IKE: responder's CPU of a set-up, x25519 and ML-KEM-768", hybrid.first / 1e6, "ms");
    figure("IKE: set-ups a second and core, x25519 and ML-KEM-768", 1e9 / hybrid.first, "1/s");
    for (shape, name) in [(Shape::Sites, ""), (Shape::Road, ", by one name from anywhere")] {
        let (many, memory) = set_up(MANY, None, shape);
        for (which, value) in [("first", many.first), ("last", many.last)] {
            figure(
                &format!("IKE: responder's CPU of a set-up among the {which} 100 of 10,000{name}"),
                value / 1e6,
                "ms",
            );
        }
        figure(
            &format!(
                "IKE: memory of a tunnel among 10,000, with its SAs and its configuration{name}"
            ),
            memory / 1024.0,
            "KiB",
        );
        figure(
            &format!(
                "IKE: most rekeys that begin in one second, of 10,000 within 100 s and an hour{name}"
            ),
            many.rekeys as f64,
            "",
        );
    }
}

/// What the responder knows of its peers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Each by itself, with its address and identity.
    Sites,
    /// One name for all, who come from anywhere and get an address of a pool.
    Road,
}

/// Seconds of one derivation.
fn openssl_x25519() -> Option<f64> {
    let arguments = ["speed", "-mr", "-seconds", "1", "ecdhx25519"];
    let said = Program::new("openssl").args(arguments).output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    // +F5:NUMBER:BITS:OPERATIONS A SECOND:SECONDS AN OPERATION
    let line = said.lines().find(|line| line.starts_with("+F5"))?;
    line.rsplit(':')
        .find_map(|field| field.parse().ok().filter(|&time: &f64| time > 0.0 && time < 0.01))
}

struct Outcome {
    /// Nanoseconds of a set-up among the first and among the last hundred.
    first: f64,
    last: f64,
    /// The most rekeys that begin in one second.
    rekeys: usize,
}

/// So many peers, known from the start, set up tunnels one after the other. Memory is that of one of them, in bytes.
fn set_up(count: u32, additional: Option<KeId>, shape: Shape) -> (Outcome, f64) {
    let before = live::bytes();
    let mut responder = Site::new(0, count);
    for number in 0..if shape == Shape::Sites { count } else { 1 } {
        let mut peer = peer(number, true, shape);
        peer.ike.proposals[0].addke[0].extend(additional);
        responder
            .endpoint
            .handle_command(responder.now, Command::AddPeer(Arc::new(peer)))
            .expect("a peer");
    }
    let [mut first, mut last] = [(); 2].map(|()| Samples::default());
    for number in 0..count {
        // Time passes, or those who begin would be too many at once.
        responder.now += Duration::from_millis(10);
        let mut initiator = Site::new(u64::from(number) + 1, 1);
        let mut peer = peer(number, false, shape);
        peer.ike.proposals[0].addke[0].extend(additional);
        let taken = one(&mut initiator, &mut responder, number, peer);
        if (10..110).contains(&number) {
            first.push(taken, 1);
        }
        if number + 100 >= count {
            last.push(taken, 1);
        }
    }
    assert_eq!(responder.datapath.sad().all_inbound().count(), count as usize);
    assert_eq!(responder.datapath.sad().all_outbound().count(), count as usize);
    let memory = (live::bytes() - before) as f64 / f64::from(count);
    let rekeys = most_rekeys(&mut responder);
    (Outcome { first: first.median(), last: last.median(), rekeys }, memory)
}

/// Lets the time go on until every CHILD_SA was to be rekeyed. Nobody answers.
fn most_rekeys(responder: &mut Site) -> usize {
    let end = responder.now + HOUR;
    let mut seconds = BTreeMap::new();
    while let Some((due, _)) = responder.endpoint.poll_timeout().filter(|(due, _)| *due <= end) {
        responder.endpoint.handle_timeout(due);
        responder.take_events();
        let requests = std::iter::from_fn(|| responder.endpoint.poll_transmit()).count();
        *seconds.entry((end - due).as_secs()).or_default() += requests;
    }
    assert_eq!(seconds.values().sum::<usize>(), responder.datapath.sad().all_outbound().count());
    seconds.into_values().max().unwrap_or_default()
}

/// One set-up; how long the responder worked on it.
fn one(initiator: &mut Site, responder: &mut Site, number: u32, peer: Peer) -> Duration {
    let name = Arc::clone(&peer.name);
    let path = peers::path(address(number).into(), peers::ADDR_B);
    let now = initiator.now;
    initiator.endpoint.handle_command(now, Command::AddPeer(Arc::new(peer))).expect("a peer");
    initiator.endpoint.handle_command(now, Command::Initiate { peer: name, path }).expect("begun");
    let mut taken = Duration::ZERO;
    loop {
        let requests: Vec<_> = std::iter::from_fn(|| initiator.endpoint.poll_transmit()).collect();
        if requests.is_empty() {
            break;
        }
        let mut answers = Vec::new();
        for request in requests {
            taken += time(|| {
                let turned = request.path;
                let turned =
                    ipsecd::ipsec::Path { local: turned.remote, remote: turned.local, ..turned };
                responder.endpoint.handle_datagram(responder.now, turned, &request.payload);
                responder.take_events();
                answers.extend(std::iter::from_fn(|| responder.endpoint.poll_transmit()));
            });
        }
        for answer in answers {
            let turned = answer.path;
            let turned =
                ipsecd::ipsec::Path { local: turned.remote, remote: turned.local, ..turned };
            initiator.endpoint.handle_datagram(now, turned, &answer.payload);
            initiator.take_events();
        }
    }
    assert_eq!(initiator.datapath.sad().all_inbound().count(), 1, "tunnel {number} is up");
    taken
}

struct Site {
    now: Instant,
    endpoint: Endpoint,
    datapath: Datapath,
}

impl Site {
    fn new(seed: u64, peers: u32) -> Self {
        let env =
            Env { rng: Box::new(FixedRandom::new(seed, 1)), wall_clock: Arc::new(peers::Today) };
        // Everyone is in a hurry, and nobody is a stranger.
        let config =
            EndpointConfig { cookie_threshold: peers as usize + 1, ..EndpointConfig::default() };
        let now = now();
        let datapath = Datapath::new(Options::default(), Spd::default(), now);
        Self { now, endpoint: Endpoint::new(config, env), datapath }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            if let Event::Sad(update) = event {
                if let SadUpdate::AddOutbound(sa) = &update {
                    self.datapath = self.datapath.with_path_mtu(sa.path.remote.ip(), Some(1500));
                }
                self.datapath = self.datapath.apply(&update).expect("an update that makes sense");
            }
        }
    }
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x6440_0000 | number)
}

/// The `number`th peer as the responder has it, or the responder as the peer has it.
fn peer(number: u32, at_responder: bool, shape: Shape) -> Peer {
    let mut peer = if at_responder { peers::site_b() } else { peers::site_a() };
    let theirs = Identity::Fqdn(format!("peer-{number}.example.net"));
    if at_responder {
        peer.name = Arc::from(format!("peer-{number}"));
        peer.address = PeerAddress::Ip(address(number).into());
        peer.peer_id = Some(theirs);
        peer.children[0].policy = PolicyId(number);
        peer.children[0].lifetime = Lifetime { soft_time: Some(HOUR), ..Lifetime::default() };
        // Of the rekeys that nobody answers each is to count once.
        peer.ike.retransmit_timeout = 2 * HOUR;
    } else {
        peer.local_id = theirs;
    }
    match (shape, at_responder) {
        (Shape::Sites, _) => {}
        (Shape::Road, true) => {
            (peer.name, peer.address, peer.peer_id) = ("road".into(), PeerAddress::Any, None);
            let range = ([10, 9, 0, 0].into(), [10, 9, 255, 255].into());
            peer.pool =
                Some(AddressPool { ranges: vec![range], dns: Vec::new(), domains: Vec::new() });
            peer.children[0].ts_peer =
                vec![peers::range(Ipv4Addr::new(10, 9, 0, 0), Ipv4Addr::new(10, 9, 255, 255))];
        }
        (Shape::Road, false) => {
            let addresses = vec![Wish::V4(None)];
            peer.request = Some(AddressRequest { addresses, dns: false, domains: None });
            peer.children[0].ts_local =
                vec![peers::range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)];
        }
    }
    peer
}
