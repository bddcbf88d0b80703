//! MOBIKE (RFC 4555): either side's address changes, and the SAs go on.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use ipsecd::ike::{CloseReason, Command};
use ipsecd::ipsec::pad::EncapPolicy;
use ipsecd::ipsec::{Encap, Path};
use ipsecd::testing::{Nat, Stage};
use ipsecd::wire::ike::numbers::NotifyType;
use ipsecd::wire::ike::payload::{Notify, Payload};

use crate::support::*;

const NEW: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
const NEWER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 5));
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

fn with_mobike() -> [ipsecd::ipsec::pad::Peer; 2] {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    (a.ike.mobike, b.ike.mobike) = (true, true);
    [a, b]
}

fn mobile() -> Pair {
    let [a, b] = with_mobike();
    established_of(1, a, b)
}

/// A side's address is another, and its daemon has noticed.
fn move_to(pair: &mut Pair, side: Side, local: IpAddr) {
    let sa = only_sa(pair, side);
    pair.node_mut(side).addr = local;
    pair.command(side, Command::Move { spi_i: sa.spi_i, spi_r: sa.spi_r, local }).unwrap();
}

/// Where IKE and ESP of each side go.
#[track_caller]
fn check_paths(pair: &Pair, a: IpAddr, b: IpAddr) {
    for (side, local, remote) in [(A, a, b), (B, b, a)] {
        let sa = only_sa(pair, side);
        assert_eq!((sa.path.local.ip(), sa.path.remote.ip()), (local, remote), "{side}");
        for child in &sa.children {
            let path = child.path;
            assert_eq!((path.local.ip(), path.remote.ip()), (local, remote), "{side}, ESP");
        }
        for sa in pair.node(side).sad.all_outbound() {
            assert_eq!(sa.path.remote.ip(), remote, "{side}, SAD");
        }
    }
    assert_ok(pair, pair.check_established(1));
}

fn notifies(payloads: &[Payload]) -> Vec<NotifyType> {
    let types = payloads.iter().filter_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        Some(notify.notify_type)
    });
    types.collect()
}

#[test]
fn both_have_to_want_it() {
    for (ours, theirs) in [(true, true), (true, false), (false, true)] {
        let [mut a, mut b] = with_mobike();
        (a.ike.mobike, b.ike.mobike) = (ours, theirs);
        let pair = established_of(1, a, b);
        for side in [A, B] {
            assert_eq!(only_sa(&pair, side).mobike, ours && theirs);
            assert_eq!(only_child(&pair, side).path.encap, Encap::Plain);
            // RFC 4555 §3.3: on port 4500, so that a NAT on another path changes nothing.
            let port = if ours { 4500 } else { 500 };
            assert_eq!(only_sa(&pair, side).path.local.port(), port);
        }
    }
}

#[test]
fn initiator_moves_and_the_responder_follows_when_it_is_sure() {
    let mut pair = mobile();
    pair.hold = true;
    move_to(&mut pair, A, NEW);
    assert_eq!(only_child(&pair, A).path.local.ip(), NEW, "the initiator need not wait");
    // INFORMATIONAL { N(UPDATE_SA_ADDRESSES), N(NAT_DETECTION_*), N(COOKIE2) } -->
    pair.pass(A, INFORMATIONAL, REQUEST);
    assert_eq!(only_sa(&pair, B).path.remote.ip(), NEW);
    assert_eq!(only_child(&pair, B).path.remote.ip(), peers::ADDR_A, "not checked yet");
    // <-- INFORMATIONAL { N(NAT_DETECTION_*), N(COOKIE2) }
    pair.pass(B, INFORMATIONAL, RESPONSE);
    // <-- INFORMATIONAL { N(COOKIE2) }, and its answer
    pair.exchange(B, INFORMATIONAL);
    check_paths(&pair, NEW, peers::ADDR_B);
    pair.hold = false;
    pair.send_packets();
    settle(&mut pair);
    assert_ok(&pair, pair.check_no_packet_missed());
    check_paths(&pair, NEW, peers::ADDR_B);
}

#[test]
fn responder_moves_and_the_initiator_follows() {
    let mut pair = mobile();
    move_to(&mut pair, B, NEW);
    settle(&mut pair);
    check_paths(&pair, peers::ADDR_A, NEW);
    assert_ok(&pair, pair.check_no_packet_missed());
}

#[test]
fn second_move_before_the_first_is_answered_is_what_counts() {
    let mut pair = mobile();
    pair.hold = true;
    move_to(&mut pair, A, NEW);
    let first = pair.expect(A, INFORMATIONAL, REQUEST);
    move_to(&mut pair, A, NEWER);
    pair.deliver(first);
    pair.hold = false;
    settle(&mut pair);
    check_paths(&pair, NEWER, peers::ADDR_B);
}

#[test]
fn every_message_of_a_move_may_be_lost_once() {
    for lost in 0..4 {
        let mut pair = mobile();
        pair.hold = true;
        move_to(&mut pair, A, NEW);
        for number in 0..4 {
            let from = if number == 0 || number == 3 { A } else { B };
            let Some(held) = pair.take(from, 0) else { break };
            if number == lost {
                break;
            }
            pair.deliver(held);
        }
        pair.hold = false;
        settle(&mut pair);
        check_paths(&pair, NEW, peers::ADDR_B);
    }
}

#[test]
fn rekeys_keep_it_and_who_decides() {
    let mut pair = mobile();
    for side in [B, A] {
        pair.rekey_ike(side).unwrap();
        settle(&mut pair);
    }
    pair.rekey_ike(B).unwrap();
    settle(&mut pair);
    assert!(!only_sa(&pair, A).initiator, "B began the last one");
    move_to(&mut pair, A, NEW);
    settle(&mut pair);
    check_paths(&pair, NEW, peers::ADDR_B);
    // Also in the midst of one.
    pair.hold = true;
    pair.rekey_ike(A).unwrap();
    move_to(&mut pair, A, NEWER);
    pair.hold = false;
    settle(&mut pair);
    check_paths(&pair, NEWER, peers::ADDR_B);
}

#[test]
fn nat_on_the_new_path_brings_udp_and_its_absence_takes_it_away() {
    let mut pair = mobile();
    pair.node_mut(A).nat = Some(Nat::new(PUBLIC));
    move_to(&mut pair, A, NEW);
    pair.run_for(Duration::from_secs(10));
    assert!(only_sa(&pair, A).nat_local && only_sa(&pair, B).nat_peer);
    for side in [A, B] {
        assert_eq!(only_child(&pair, side).path.encap, Encap::Udp);
    }
    assert_eq!(only_sa(&pair, B).path.remote.ip(), PUBLIC);
    pair.node_mut(A).nat = None;
    move_to(&mut pair, A, NEWER);
    pair.run_for(Duration::from_secs(10));
    for side in [A, B] {
        assert_eq!(only_child(&pair, side).path.encap, Encap::Plain);
    }
    check_paths(&pair, NEWER, peers::ADDR_B);
}

#[test]
fn changed_mapping_of_a_nat_is_found_by_the_liveness_check() {
    let [mut a, b] = with_mobike();
    a.ike.dpd_delay = Some(Duration::from_secs(30));
    let mut pair = pair_of(a, b);
    pair.node_mut(A).nat = Some(Nat::new(PUBLIC));
    pair.initiate(A);
    pair.run_for(Duration::from_secs(100));
    let before = only_sa(&pair, B).path.remote;
    pair.node_mut(A).nat.as_mut().unwrap().rebind();
    pair.run_for(Duration::from_secs(100));
    let after = only_sa(&pair, B).path.remote;
    assert_ne!(before, after);
    assert_eq!(only_child(&pair, B).path.remote, after);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn without_mobike_nothing_moves() {
    let mut pair = established();
    let sa = only_sa(&pair, A);
    pair.command(A, Command::Move { spi_i: sa.spi_i, spi_r: sa.spi_r, local: NEW }).unwrap();
    settle(&mut pair);
    check_paths(&pair, peers::ADDR_A, peers::ADDR_B);
}

// Puppets.

#[track_caller]
fn one(sent: Vec<Vec<u8>>) -> Vec<u8> {
    let [only] = <[_; 1]>::try_from(sent).unwrap_or_else(|sent| panic!("{} sent", sent.len()));
    only
}

fn notify(notify_type: NotifyType, data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(notify_type, data))
}

/// Our responder with MOBIKE before a puppet that has begun, and has it too.
fn responder() -> Stage {
    let [_, b] = with_mobike();
    let mut stage = Stage::responder_with(1, b);
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = one(stage.give(&request));
    stage.puppet.read_init_response(&response).unwrap();
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    payloads.push(notify(NotifyType::MOBIKE_SUPPORTED, &[]));
    payloads.push(notify(NotifyType::ADDITIONAL_IP4_ADDRESS, &[10, 0, 0, 1]));
    payloads.push(notify(NotifyType::ADDITIONAL_IP4_ADDRESS, &[10, 0, 0]));
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let response = one(stage.give(&request));
    let answer = stage.puppet.open(&response).unwrap();
    assert!(notifies(&answer).contains(&NotifyType::MOBIKE_SUPPORTED));
    stage
}

fn elsewhere(stage: &Stage) -> Path {
    Path { remote: SocketAddr::new(NEW, stage.path.remote.port()), ..stage.path }
}

fn remote(stage: &Stage) -> IpAddr {
    stage.endpoint.status(stage.clock.now())[0].path.remote.ip()
}

fn child_remote(stage: &Stage) -> IpAddr {
    stage.endpoint.status(stage.clock.now())[0].children[0].path.remote.ip()
}

#[test]
fn message_from_elsewhere_changes_nothing_unless_it_says_so() {
    let mut stage = responder();
    let (old, new) = (stage.path.remote.ip(), elsewhere(&stage));
    let request = stage.puppet.request(INFORMATIONAL, &[]).unwrap();
    assert_eq!(stage.give_from(new, &request).len(), 1, "it is answered all the same");
    assert_eq!(remote(&stage), old);
    let update = notify(NotifyType::UPDATE_SA_ADDRESSES, &[]);
    let cookie2 = notify(NotifyType::COOKIE2, b"12345678");
    let request = stage.puppet.request(INFORMATIONAL, &[update, cookie2.clone()]).unwrap();
    let sent = stage.give_from(new, &request);
    let answer = stage.puppet.open(&sent[0]).unwrap();
    assert!(answer.contains(&cookie2), "as it came");
    assert_eq!((remote(&stage), child_remote(&stage)), (new.remote.ip(), old));
    // <-- INFORMATIONAL { N(COOKIE2) }: until it is answered, the CHILD_SA stays where it is.
    let check = stage.puppet.open(&sent[1]).unwrap();
    assert_eq!(notifies(&check), [NotifyType::COOKIE2]);
    stage.path = new;
    stage.answer(&sent[1], &check);
    assert_eq!(child_remote(&stage), new.remote.ip());
}

#[test]
fn who_does_not_return_our_cookie2_is_left() {
    for answer in [vec![], vec![notify(NotifyType::COOKIE2, b"another one, of 16")]] {
        let mut stage = responder();
        let new = elsewhere(&stage);
        let update = notify(NotifyType::UPDATE_SA_ADDRESSES, &[]);
        let request = stage.puppet.request(INFORMATIONAL, &[update]).unwrap();
        let sent = stage.give_from(new, &request);
        stage.path = new;
        let delete = one(stage.answer(&sent[1], &answer));
        let delete = stage.puppet.open(&delete).unwrap();
        assert!(matches!(delete.as_slice(), [Payload::Delete(_)]), "{delete:?}");
        assert!(stage.sad.is_empty());
    }
}

#[test]
fn addresses_that_were_changed_on_the_way_are_not_taken() {
    let mut stage = responder();
    let (old, new) = (stage.path.remote.ip(), elsewhere(&stage));
    let mut data = vec![10, 9, 9, 9, 192, 0, 2, 2];
    data.extend([500_u16, 500].map(u16::to_be_bytes).concat());
    let update = notify(NotifyType::UPDATE_SA_ADDRESSES, &[]);
    let no_nats = notify(NotifyType::NO_NATS_ALLOWED, &data);
    let request = stage.puppet.request(INFORMATIONAL, &[update, no_nats]).unwrap();
    let answer = one(stage.give_from(new, &request));
    let answer = stage.puppet.open(&answer).unwrap();
    assert_eq!(notifies(&answer), [NotifyType::UNEXPECTED_NAT_DETECTED]);
    assert_eq!((remote(&stage), child_remote(&stage)), (old, old));
}

#[test]
fn path_that_policy_forbids_is_refused_and_the_initiator_gives_up() {
    let [a, mut b] = with_mobike();
    b.ike.encap = EncapPolicy::None;
    let mut pair = established_of(1, a, b);
    pair.node_mut(A).nat = Some(Nat::new(PUBLIC));
    move_to(&mut pair, A, NEW);
    settle(&mut pair);
    assert_eq!(pair.closed(A), [CloseReason::PeerNotify(NotifyType::UNACCEPTABLE_ADDRESSES)]);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn support_has_no_data_and_what_is_in_it_is_ignored() {
    let [a, _] = with_mobike();
    let (mut stage, init) = Stage::initiator_of(1, a);
    stage.puppet.read_init_request(&init).unwrap();
    let response = stage.puppet.init_response().unwrap();
    let auth = one(stage.give(&response));
    let request = stage.puppet.open(&auth).unwrap();
    assert!(request.contains(&notify(NotifyType::MOBIKE_SUPPORTED, &[])));
    // The puppet knows no NAT detection: then nobody may change the addresses (RFC 4555 §3.9).
    let no_nats = request.iter().find_map(|payload| {
        let Payload::Notify(n) = payload else { return None };
        (n.notify_type == NotifyType::NO_NATS_ALLOWED).then(|| n.data.clone())
    });
    let mut want = vec![192, 0, 2, 1, 192, 0, 2, 2];
    want.extend([500_u16, 500].map(u16::to_be_bytes).concat());
    assert_eq!(no_nats, Some(want));
    let mut answer = stage.puppet.auth_response_payloads(&request).unwrap();
    answer.push(notify(NotifyType::MOBIKE_SUPPORTED, b"more"));
    stage.answer(&auth, &answer);
    assert!(stage.endpoint.status(stage.clock.now())[0].mobike);
}
