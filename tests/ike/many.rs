//! Many IKE SAs in one endpoint: that what they do by themselves is spread over time, and that those who share a name do not
//! take each other's place.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ipsecd::ike::{Command, Endpoint, EndpointConfig, Env, Event, Transmit};
use ipsecd::ipsec::pad::{Identity, Peer, PeerAddress};
use ipsecd::ipsec::{Lifetime, Path, PolicyId};
use ipsecd::testing::{FixedRandom, VirtualClock, peers};
use ipsecd::wire::Reader;
use ipsecd::wire::ike::header::Header;

use super::support::{CREATE_CHILD_SA, INFORMATIONAL};

const MANY: u32 = 120;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn endpoint(seed: u64) -> Endpoint {
    let env = Env { rng: Box::new(FixedRandom::new(seed, 1)), wall_clock: Arc::new(peers::Today) };
    // Nobody is a stranger.
    let config = EndpointConfig { cookie_threshold: usize::MAX, ..EndpointConfig::default() };
    Endpoint::new(config, env)
}

/// Each from a network of its own.
fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x6400_0000 | number << 16 | 1).into()
}

fn identity(number: u32) -> Identity {
    Identity::Fqdn(format!("peer-{number}.example.net"))
}

/// The responder, as the `number`th initiator has it.
fn responder_of(number: u32) -> Peer {
    let mut peer = peers::site_a();
    peer.name = Arc::from(format!("b{number}"));
    peer.local_addr = Some(address(number));
    peer.local_id = identity(number);
    peer.children[0].policy = PolicyId(number + 1);
    peer.children[0].ts_local = vec![peers::range(
        Ipv4Addr::from_bits(0x0a01_0000 | number),
        Ipv4Addr::from_bits(0x0a01_0000 | number),
    )];
    peer
}

fn turned(path: Path) -> Path {
    Path { local: path.remote, remote: path.local, ..path }
}

/// Carries messages until there are none, without a moment going by.
fn exchange(now: Instant, ends: [&mut Endpoint; 2]) {
    let mut messages: Vec<Transmit>;
    loop {
        let mut any = false;
        for at in 0..2 {
            messages = core::iter::from_fn(|| ends[at].poll_transmit()).collect();
            any |= !messages.is_empty();
            for Transmit { path, payload, .. } in messages {
                ends[1 - at].handle_datagram(now, turned(path), &payload);
            }
        }
        if !any {
            return;
        }
    }
}

fn events(endpoint: &mut Endpoint) -> Vec<Event> {
    core::iter::from_fn(|| endpoint.poll_event()).collect()
}

/// All of them are up, in one moment.
fn crowd(now: Instant, responder: &mut Endpoint) -> Endpoint {
    let mut initiators = endpoint(1);
    for number in 0..MANY {
        let peer = responder_of(number);
        let name = Arc::clone(&peer.name);
        let path = peers::path(address(number), peers::ADDR_B);
        initiators.handle_command(now, Command::AddPeer(Arc::new(peer))).unwrap();
        initiators.handle_command(now, Command::Initiate { peer: name, path }).unwrap();
        exchange(now, [&mut initiators, responder]);
    }
    let established =
        |event: &Event| matches!(event, Event::ChildSaEstablished { rekeyed: false, .. });
    // The responder says so of a CHILD_SA once it has heard of the initiator again.
    assert_eq!(
        events(&mut initiators).iter().filter(|event| established(event)).count(),
        MANY as usize
    );
    let _news = events(responder);
    initiators
}

/// In which second how many requests of this kind leave, until `end`; nobody answers, so that each counts once.
fn seconds(
    endpoint: &mut Endpoint,
    now: Instant,
    end: Duration,
    is_it: impl Fn(&Header) -> bool,
) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    while let Some((due, _)) = endpoint.poll_timeout().filter(|(due, _)| *due <= now + end) {
        endpoint.handle_timeout(due);
        for Transmit { payload, .. } in core::iter::from_fn(|| endpoint.poll_transmit()) {
            let header = Header::parse(&mut Reader::new("IKE header", &payload)).unwrap();
            if is_it(&header) && !header.flags.response {
                *found.entry((due - now).as_secs()).or_default() += 1;
            }
        }
        let _news = events(endpoint);
    }
    found
}

#[test]
fn sas_that_began_in_one_moment_are_not_rekeyed_in_one() {
    for ike in [false, true] {
        let now = VirtualClock::new().now();
        let mut responder = endpoint(2);
        for number in 0..MANY {
            let mut peer = peers::site_b();
            peer.name = Arc::from(format!("a{number}"));
            peer.address = PeerAddress::Ip(address(number));
            peer.peer_id = Some(identity(number));
            peer.children[0].policy = PolicyId(number + 1);
            if ike {
                peer.ike.rekey_time = Some(HOUR);
            } else {
                peer.children[0].lifetime =
                    Lifetime { soft_time: Some(HOUR), ..Lifetime::default() };
            }
            // One try: each request counts once.
            peer.ike.retransmit_tries = 1;
            peer.ike.retransmit_timeout = HOUR;
            responder.handle_command(now, Command::AddPeer(Arc::new(peer))).unwrap();
        }
        let mut initiators = crowd(now, &mut responder);
        // It asks each whether it has the CHILD_SA.
        while let Some((due, _)) = responder.poll_timeout().filter(|(due, _)| *due <= now + MINUTE)
        {
            responder.handle_timeout(due);
            exchange(due, [&mut initiators, &mut responder]);
        }
        let found = seconds(&mut responder, now, HOUR, |header| header.exchange == CREATE_CHILD_SA);
        assert_eq!(found.values().sum::<usize>(), MANY as usize, "each once: {found:?}");
        // A tenth of the hour has 360 seconds.
        let (first, last) = (found.keys().min().unwrap(), found.keys().max().unwrap());
        assert!(*first >= 3240 && *last <= 3600, "{found:?}");
        assert!(last - first > 300, "from {first} to {last}: {found:?}");
        let most = found.values().max().unwrap();
        assert!(*most <= 5, "{most} of {MANY} in one second: {found:?}");
    }
}

/// Whoever comes, from anywhere.
fn anybody() -> Peer {
    let mut anybody = peers::site_b();
    anybody.name = Arc::from("road");
    anybody.address = PeerAddress::Any;
    anybody.peer_id = None;
    anybody
}

#[test]
fn those_who_have_been_silent_are_not_all_asked_in_one_moment_when_a_reload_brings_dpd() {
    let now = VirtualClock::new().now();
    let mut responder = endpoint(2);
    let mut anybody = anybody();
    // One try: each request counts once.
    anybody.ike.retransmit_tries = 1;
    anybody.ike.retransmit_timeout = HOUR;
    responder.handle_command(now, Command::AddPeer(Arc::new(anybody.clone()))).unwrap();
    let mut initiators = crowd(now, &mut responder);
    while let Some((due, _)) = responder.poll_timeout().filter(|(due, _)| *due <= now + MINUTE) {
        responder.handle_timeout(due);
        exchange(due, [&mut initiators, &mut responder]);
    }
    let later = now + 2 * MINUTE;
    anybody.ike.dpd_delay = Some(MINUTE);
    responder.handle_command(later, Command::AddPeer(Arc::new(anybody))).unwrap();
    let found = seconds(&mut responder, later, MINUTE, |header| header.exchange == INFORMATIONAL);
    assert_eq!(found.values().sum::<usize>(), MANY as usize, "each once: {found:?}");
    let (first, last) = (found.keys().min().unwrap(), found.keys().max().unwrap());
    assert!(last - first > 50, "from {first} to {last}: {found:?}");
    let most = found.values().max().unwrap();
    assert!(*most <= 10, "{most} of {MANY} in one second: {found:?}");
}

#[test]
fn those_who_come_by_one_name_from_anywhere_stay_beside_each_other() {
    let now = VirtualClock::new().now();
    let mut responder = endpoint(2);
    responder.handle_command(now, Command::AddPeer(Arc::new(anybody()))).unwrap();
    let _initiators = crowd(now, &mut responder);
    let road: Arc<str> = Arc::from("road");
    assert_eq!(responder.status_of(&road, now).len(), MANY as usize);
    assert_eq!(responder.sas_with(&road, now).count(), MANY as usize);

    // The seventh comes again, with INITIAL_CONTACT: its own goes, and no other.
    let later = now + Duration::from_secs(5);
    let name: Arc<str> = Arc::from("b7");
    let again = responder_of(7);
    let path = peers::path(address(7), peers::ADDR_B);
    let mut reborn = endpoint(3);
    reborn.handle_command(later, Command::AddPeer(Arc::new(again))).unwrap();
    reborn.handle_command(later, Command::Initiate { peer: name, path }).unwrap();
    exchange(later, [&mut reborn, &mut responder]);
    let sas = responder.status_of(&road, later);
    let of_seven =
        sas.iter().filter(|sa| sa.peer_id == Some(identity(7)) && sa.state == "ESTABLISHED");
    assert_eq!(of_seven.count(), 1);
    let others = sas.iter().filter(|sa| sa.peer_id != Some(identity(7)));
    assert_eq!(others.count(), MANY as usize - 1);
    let closed = |event: &Event| matches!(event, Event::IkeSaClosed { .. });
    assert_eq!(events(&mut responder).iter().filter(|event| closed(event)).count(), 1);

    // All are deleted at once. To whoever asks at each end whether others go on it is told without looking at them.
    assert!(responder.goes_on_with(&road));
    responder.handle_command(later, Command::Terminate { peer: Arc::clone(&road) }).unwrap();
    assert!(!responder.goes_on_with(&road), "each is being deleted");
    assert!(responder.status_of(&road, later).iter().all(|sa| sa.state == "DELETING"));
}

#[test]
fn attempt_of_ours_goes_on_until_it_is_not_wanted() {
    let now = VirtualClock::new().now();
    let mut initiator = endpoint(1);
    let peer = responder_of(0);
    let name = Arc::clone(&peer.name);
    initiator.handle_command(now, Command::AddPeer(Arc::new(peer))).unwrap();
    assert!(!initiator.goes_on_with(&name));
    let path = peers::path(address(0), peers::ADDR_B);
    let begin = Command::Initiate { peer: Arc::clone(&name), path };
    initiator.handle_command(now, begin).unwrap();
    assert!(initiator.goes_on_with(&name));
    initiator.handle_command(now, Command::Terminate { peer: Arc::clone(&name) }).unwrap();
    assert!(!initiator.goes_on_with(&name));
}
