//! Several CHILD_SAs for the same packets (RFC 9611): agreed on, kept in bounds, rekeyed and deleted each alone.

use core::time::Duration;
use std::collections::BTreeSet;

use ipsecd::ike::{ChildStatus, EndpointConfig, Event};
use ipsecd::ipsec::suite::Encr;
use ipsecd::ipsec::{Notice, Spi, Worker};
use ipsecd::testing::{Puppet, Stage};
use ipsecd::wire::ike::numbers::{EncrId, NotifyType, ProtocolId};
use ipsecd::wire::ike::payload::{Delete, Notify, Payload, Sa};

use crate::support::*;

/// A with so many beside the first, and B.
fn sites(a: u16, b: u16) -> (ipsecd::ipsec::pad::Peer, ipsecd::ipsec::pad::Peer) {
    let (mut site_a, mut site_b) = (peers::site_a(), peers::site_b());
    for (site, per_resource) in [(&mut site_a, a), (&mut site_b, b)] {
        site.children[0].per_resource = per_resource;
        // More than a bad network takes.
        site.ike.retransmit_tries = 12;
    }
    (site_a, site_b)
}

#[track_caller]
fn established_with(a: u16, b: u16, children: usize) -> Pair {
    let (site_a, site_b) = sites(a, b);
    let mut pair = Pair::with(1, LinkConfig::PERFECT, site_a, site_b);
    pair.trace.keep_lines();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(children));
    pair
}

fn children(pair: &Pair, side: Side) -> Vec<ChildStatus> {
    only_sa(pair, side).children
}

fn resources(pair: &Pair, side: Side) -> BTreeSet<Option<u16>> {
    children(pair, side).iter().map(|child| child.resource).collect()
}

/// The first, and those of these numbers.
fn numbers(all: core::ops::Range<u16>) -> BTreeSet<Option<u16>> {
    core::iter::once(None).chain(all.map(Some)).collect()
}

fn of(pair: &Pair, side: Side, resource: Option<u16>) -> ChildStatus {
    let found = children(pair, side).into_iter().find(|child| child.resource == resource);
    found.unwrap_or_else(|| panic!("{side} has none of {resource:?}\n{}", pair.trace))
}

fn info(data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(NotifyType::SA_RESOURCE_INFO, data))
}

fn notifies(payloads: &[Payload], wanted: NotifyType) -> usize {
    let is = |payload: &&Payload| matches!(payload, Payload::Notify(notify) if notify.notify_type == wanted);
    payloads.iter().filter(is).count()
}

#[test]
fn whoever_made_the_first_makes_the_others() {
    // IKE_AUTH { .. N(SA_RESOURCE_INFO), SA, TSi, TSr } --> and four times CREATE_CHILD_SA { N(SA_RESOURCE_INFO), SA, Ni, TSi, TSr } -->
    let pair = established_with(4, 4, 5);
    for side in [A, B] {
        assert_eq!(resources(&pair, side), numbers(0..4));
        let all = children(&pair, side);
        for child in &all {
            let first = &all[0];
            assert_eq!((child.suite, child.mode), (first.suite, first.mode));
            assert_eq!((&child.ts_local, &child.ts_peer), (&first.ts_local, &first.ts_peer));
        }
        assert_eq!(pair.node(side).sad.in_use().len(), 5, "packets leave by each");
    }
    assert_ok(&pair, pair.check_no_packet_missed());
}

#[test]
fn the_responder_of_the_first_makes_none_of_its_own() {
    let pair = established_with(1, 16, 2);
    assert_eq!(resources(&pair, B), numbers(0..1));
}

#[test]
fn without_the_key_on_either_side_there_is_one() {
    for (a, b) in [(0, 4), (4, 0)] {
        let pair = established_with(a, b, 1);
        assert_eq!(resources(&pair, A), BTreeSet::from([None]));
        assert!(pair.child_failures(A).is_empty() && pair.child_failures(B).is_empty());
    }
}

#[test]
fn a_responder_with_less_refuses_the_rest_and_all_that_there_are_stay() {
    // B takes two for each that it would make: of the five that A wants it refuses the third with TS_MAX_QUEUE.
    let mut pair = established_with(5, 1, 3);
    assert_eq!(resources(&pair, A), numbers(0..2));
    // To fail to make one more is no failure of the CHILD_SA that there is, and A does not go on asking.
    assert!(pair.child_failures(A).is_empty() && pair.child_failures(B).is_empty());
    let sent = pair.node(A).sent;
    pair.run_for(Duration::from_secs(60));
    assert_eq!(pair.node(A).sent, sent, "{}", pair.trace);
    assert_ok(&pair, pair.check_established(3));
}

#[test]
fn each_is_rekeyed_alone_and_stays_what_it_was() {
    for (side, resource) in [(A, Some(1)), (B, Some(2)), (A, None), (B, None)] {
        let mut pair = established_with(3, 3, 4);
        let before = [A, B].map(|side| children(&pair, side));
        let old = of(&pair, side, resource);
        let other = of_spi(&pair, side.other(), old.spi_outbound);
        // CREATE_CHILD_SA { N(REKEY_SA), SA, Ni, TSi, TSr } -->
        pair.notice(side, Notice::Expire { spi: old.spi_inbound, hard: false });
        pair.run_for(Duration::from_secs(10));
        assert_ok(&pair, pair.check_established(4));
        assert_ok(&pair, pair.check_no_packet_missed());
        for (end, before, number) in [
            (side, &before[usize::from(side == B)], resource),
            (side.other(), &before[usize::from(side == A)], other.resource),
        ] {
            let spis: BTreeSet<_> = before
                .iter()
                .filter(|child| child.resource != number)
                .map(|child| child.spi_inbound)
                .collect();
            let kept: BTreeSet<_> = children(&pair, end)
                .iter()
                .filter(|child| child.resource != number)
                .map(|child| child.spi_inbound)
                .collect();
            assert_eq!(spis, kept, "the others are as they were");
            assert_eq!(resources(&pair, end), numbers(0..3));
        }
    }
}

fn of_spi(pair: &Pair, side: Side, spi: Spi) -> ChildStatus {
    children(pair, side).into_iter().find(|child| child.spi_inbound == spi).unwrap()
}

#[test]
fn both_may_rekey_all_of_them_at_once() {
    for seed in 0..20 {
        let (site_a, site_b) = sites(3, 3);
        let mut pair = Pair::with(seed, LinkConfig::BAD, site_a, site_b);
        pair.trace.keep_lines();
        pair.initiate(A);
        assert!(pair.run_until(Duration::from_secs(120), |pair| pair.check_established(4).is_ok()));
        pair.missed.clear();
        for _ in 0..3 {
            pair.rekey_children(A).unwrap();
            pair.rekey_children(B).unwrap();
            pair.run_for(Duration::from_millis(700));
        }
        settle(&mut pair);
        pair.run_for(Duration::from_secs(30));
        assert_ok(&pair, pair.check_established(4));
        assert_ok(&pair, pair.check_no_packet_missed());
        for side in [A, B] {
            assert_eq!(resources(&pair, side), numbers(0..3), "seed {seed}\n{}", pair.trace);
        }
    }
}

#[test]
fn rekeyed_by_both_at_once_in_every_order_there_is_one_successor() {
    for order in 0..4 {
        let mut pair = established_with(2, 2, 3);
        pair.hold = true;
        let at_a = of(&pair, A, Some(0));
        let at_b = of_spi(&pair, B, at_a.spi_outbound);
        // CREATE_CHILD_SA { N(REKEY_SA) .. } --> <-- CREATE_CHILD_SA { N(REKEY_SA) .. }
        pair.notice(A, Notice::Expire { spi: at_a.spi_inbound, hard: false });
        pair.notice(B, Notice::Expire { spi: at_b.spi_inbound, hard: false });
        let (first, second) = if order & 1 == 0 { (A, B) } else { (B, A) };
        pair.pass(first, CREATE_CHILD_SA, REQUEST);
        pair.pass(second, CREATE_CHILD_SA, REQUEST);
        let (first, second) = if order & 2 == 0 { (A, B) } else { (B, A) };
        pair.pass(first, CREATE_CHILD_SA, RESPONSE);
        pair.pass(second, CREATE_CHILD_SA, RESPONSE);
        pair.hold = false;
        pair.run_for(Duration::from_secs(10));
        assert_ok(&pair, pair.check_established(3));
        assert_ok(&pair, pair.check_no_packet_missed());
        assert_eq!(resources(&pair, A), numbers(0..2));
        assert_eq!(resources(&pair, B), numbers(0..2));
    }
}

#[test]
fn made_by_both_at_once_there_is_one_first_in_the_end() {
    let mut pair = {
        let (mut site_a, mut site_b) = sites(2, 2);
        site_a.ike.childless = true;
        site_b.ike.childless = true;
        Pair::with(1, LinkConfig::PERFECT, site_a, site_b)
    };
    pair.trace.keep_lines();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(1));
    for child in children(&pair, A) {
        pair.notice(A, Notice::Expire { spi: child.spi_inbound, hard: true });
    }
    pair.run_for(Duration::from_secs(60));
    settle(&mut pair);
    let first =
        |side| children(&pair, side).iter().filter(|child| child.resource.is_none()).count();
    assert_eq!([first(A), first(B)], [1, 1], "{}", pair.trace);
}

#[test]
fn an_ike_sa_that_is_rekeyed_takes_all_of_them_along() {
    for side in [A, B] {
        let mut pair = established_with(3, 3, 4);
        pair.rekey_ike(side).unwrap();
        pair.run_for(Duration::from_secs(10));
        assert_ok(&pair, pair.check_established(4));
        assert_eq!(resources(&pair, A), numbers(0..3));
        // The first still knows that others are beside it: rekeyed, it has them again.
        let spi = of(&pair, A, None).spi_inbound;
        pair.notice(A, Notice::Expire { spi, hard: false });
        pair.run_for(Duration::from_secs(10));
        assert_ok(&pair, pair.check_established(4));
    }
}

#[test]
fn one_that_the_peer_deletes_is_not_made_again_before_the_first_is_rekeyed() {
    let mut pair = established_with(2, 2, 3);
    let at_b = of(&pair, B, Some(1));
    // INFORMATIONAL { D } <--
    pair.notice(B, Notice::Expire { spi: at_b.spi_inbound, hard: true });
    pair.run_for(Duration::from_secs(30));
    assert_ok(&pair, pair.check_established(2));
    assert_eq!(resources(&pair, B), numbers(0..1));
    let closed = |pair: &Pair, side: Side| {
        let beside = |event: &Event| {
            let Event::ChildSaClosed { beside, .. } = event else { return None };
            Some(*beside)
        };
        pair.node(side).events.iter().filter_map(|(_, event)| beside(event)).collect::<Vec<_>>()
    };
    assert_eq!([closed(&pair, A), closed(&pair, B)], [[true], [true]]);
    // CREATE_CHILD_SA { N(REKEY_SA) .. } --> of the first, CREATE_CHILD_SA { N(SA_RESOURCE_INFO) .. } -->
    let spi = of(&pair, A, None).spi_inbound;
    pair.notice(A, Notice::Expire { spi, hard: false });
    pair.run_for(Duration::from_secs(10));
    assert_ok(&pair, pair.check_established(3));
    assert_eq!(resources(&pair, A), numbers(0..2));
}

#[test]
fn without_the_first_the_others_go_on_and_the_next_first_has_its_own() {
    let mut pair = established_with(2, 2, 3);
    let first = of(&pair, B, None);
    pair.notice(B, Notice::Expire { spi: first.spi_inbound, hard: true });
    pair.run_for(Duration::from_secs(30));
    // B, which has start = "now" as A does, makes another first; the two that there were count.
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(3));
    assert_ok(&pair, pair.check_no_packet_missed());
    for side in [A, B] {
        assert_eq!(resources(&pair, side), numbers(0..2), "{}", pair.trace);
    }
}

#[test]
fn lost_and_repeated_messages_make_no_more_of_them() {
    for seed in 0..50 {
        let (site_a, site_b) = sites(3, 3);
        let mut pair = Pair::with(seed, LinkConfig::BAD, site_a, site_b);
        pair.trace.keep_lines();
        pair.initiate(A);
        let done =
            pair.run_until(Duration::from_secs(200), |pair| pair.check_established(4).is_ok());
        assert!(done, "seed {seed}\n{}", pair.trace);
        pair.run_for(Duration::from_secs(30));
        assert_ok(&pair, pair.check_established(4));
    }
}

// With a puppet.

/// An endpoint that takes others beside the first, with a puppet that asked for that in IKE_AUTH.
fn stage(per_resource: u16) -> (Stage, Vec<Payload>) {
    let mut peer = peers::site_b();
    peer.children[0].per_resource = per_resource;
    let mut stage = Stage::responder_with(1, peer);
    let init = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(init);
    let answer = stage.give(&request).remove(0);
    stage.puppet.read_init_response(&answer).unwrap();
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    payloads.push(info(&[]));
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let answer = stage.give(&request).remove(0);
    let answer = stage.puppet.open(&answer).unwrap();
    (stage, answer)
}

/// Asks for one more; the answer.
fn ask(stage: &mut Stage, more: &[Payload]) -> Vec<Payload> {
    let puppet: &mut Puppet = &mut stage.puppet;
    puppet.esp_spi = puppet.fresh_esp_spi();
    let mut payloads = puppet.child_offer();
    payloads.push(puppet.fresh_nonce());
    payloads.extend_from_slice(more);
    let request = puppet.request(CREATE_CHILD_SA, &payloads).unwrap();
    let answers = stage.give(&request);
    stage.puppet.open(answers.first().unwrap()).unwrap()
}

#[test]
fn the_notify_is_answered_where_others_are_taken_and_there_alone() {
    let (_, answer) = stage(2);
    assert_eq!(notifies(&answer, NotifyType::SA_RESOURCE_INFO), 1);
    let (_, answer) = stage(0);
    assert_eq!(notifies(&answer, NotifyType::SA_RESOURCE_INFO), 0);
}

#[test]
fn what_is_in_the_notify_means_nothing() {
    let (mut stage, _) = stage(4);
    for data in [&[][..], &[0, 0, 0, 1], &[0, 0, 0, 1], &[0xff; 200]] {
        let answer = ask(&mut stage, &[info(data)]);
        assert_eq!(notifies(&answer, NotifyType::SA_RESOURCE_INFO), 1);
    }
    assert_eq!(stage.sad.all_inbound().count(), 5);
    let numbers: Vec<_> = stage.sad.all_inbound().map(|sa| sa.resource).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 5, "{numbers:?}");
}

#[test]
fn beyond_the_bound_it_is_ts_max_queue_and_nothing_is_left() {
    let (mut stage, _) = stage(2);
    for made in 1..20 {
        let answer = ask(&mut stage, &[info(&[])]);
        let refused = notifies(&answer, NotifyType::TS_MAX_QUEUE);
        assert_eq!(refused, usize::from(made > 4), "{made}");
        // Not NO_ADDITIONAL_SAS, which would be of all selectors.
        assert_eq!(notifies(&answer, NotifyType::NO_ADDITIONAL_SAS), 0);
        assert_eq!(stage.sad.all_inbound().count(), 1 + made.min(4));
        assert_eq!(stage.endpoint.spis_taken(), 1 + made.min(4));
    }
}

#[test]
fn one_that_is_not_like_the_first_is_refused() {
    let (mut stage, _) = stage(2);
    let selectors = stage.puppet.selectors;
    // Other selectors, which narrowing cannot make the same.
    stage.puppet.selectors[0].end_addr = core::net::Ipv4Addr::new(10, 1, 0, 9).into();
    let answer = ask(&mut stage, &[info(&[])]);
    assert_eq!(notifies(&answer, NotifyType::NO_PROPOSAL_CHOSEN), 1, "{answer:?}");
    stage.puppet.selectors = selectors;
    assert_eq!(stage.sad.all_inbound().count(), 1);
    let answer = ask(&mut stage, &[info(&[])]);
    assert_eq!(notifies(&answer, NotifyType::SA_RESOURCE_INFO), 1);
}

#[test]
fn a_policy_takes_other_algorithms_for_the_first_than_for_one_beside_it_never() {
    let mut peer = peers::site_b();
    peer.children[0].per_resource = 2;
    let other = Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(128) };
    peer.children[0].proposals[0].encr.push(other);
    let mut stage = Stage::responder_with(1, peer);
    let init = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(init);
    let answer = stage.give(&request).remove(0);
    stage.puppet.read_init_response(&answer).unwrap();
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    payloads.push(info(&[]));
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    stage.give(&request);
    stage.puppet.child_proposal.encr = vec![other];
    let answer = ask(&mut stage, &[info(&[])]);
    assert_eq!(notifies(&answer, NotifyType::NO_PROPOSAL_CHOSEN), 1, "{answer:?}");
    // Without the notify it is a CHILD_SA like any other.
    let answer = ask(&mut stage, &[]);
    assert!(answer.iter().any(|payload| matches!(payload, Payload::Sa(Sa { .. }))));
    let suites: BTreeSet<_> = stage.sad.all_inbound().map(|sa| sa.suite.to_string()).collect();
    assert_eq!(suites.len(), 2);
}

#[test]
fn a_deleted_one_makes_room() {
    let (mut stage, _) = stage(1);
    ask(&mut stage, &[info(&[])]);
    let spi = stage.puppet.esp_spi;
    ask(&mut stage, &[info(&[])]);
    let refused = ask(&mut stage, &[info(&[])]);
    assert_eq!(notifies(&refused, NotifyType::TS_MAX_QUEUE), 1);
    let delete = Payload::Delete(Delete::of(ProtocolId::ESP, [spi.to_be_bytes()]));
    let request = stage.puppet.request(INFORMATIONAL, &[delete]).unwrap();
    stage.give(&request);
    let answer = ask(&mut stage, &[info(&[])]);
    assert_eq!(notifies(&answer, NotifyType::SA_RESOURCE_INFO), 1);
}

// What several workers make of it.

#[test]
fn inbound_spis_are_dealt_out_to_workers_and_each_resource_keeps_its_own() {
    const WORKERS: u16 = 3;
    let config = EndpointConfig { workers: WORKERS, ..EndpointConfig::default() };
    let (site_a, site_b) = sites(4, 4);
    let mut pair = Pair::with_config(1, LinkConfig::PERFECT, site_a, site_b, config);
    pair.trace.keep_lines();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(5));
    let worker_of = |spi: Spi| Worker::all(WORKERS).find(|worker| worker.has(spi)).unwrap();
    for round in 0..2 {
        for side in [A, B] {
            for child in children(&pair, side) {
                if let Some(number) = child.resource {
                    let worker = worker_of(child.spi_inbound);
                    assert!(worker.has_resource(number), "{side}, {round}: {child:?}");
                }
            }
        }
        let old = of(&pair, A, Some(2)).spi_inbound;
        pair.rekey_children(A).unwrap();
        pair.run_for(Duration::from_secs(2));
        assert_ne!(of(&pair, A, Some(2)).spi_inbound, old);
    }
}

#[test]
fn inbound_spis_of_peers_go_round_the_workers() {
    const WORKERS: u16 = 2;
    let config = EndpointConfig { workers: WORKERS, ..EndpointConfig::default() };
    let (site_a, site_b) = sites(0, 0);
    let mut pair = Pair::with_config(1, LinkConfig::PERFECT, site_a, site_b, config);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    let mut residues = Vec::new();
    for _ in 0..4 {
        residues.push(children(&pair, A)[0].spi_inbound.get() % u32::from(WORKERS));
        pair.rekey_children(A).unwrap();
        pair.run_for(Duration::from_secs(2));
    }
    assert_eq!(residues, [0, 1, 0, 1]);
}
