//! Each message lost once, doubled once, and what a retransmission is answered with.

use core::time::Duration;

use crate::support::*;

/// Runs `begin` after the two are established, and loses the `lose`th message from then on. Says whether there was one.
fn lose_one(lose: usize, mut pair: Pair, begin: impl Fn(&mut Pair)) -> (Pair, bool) {
    pair.hold = true;
    begin(&mut pair);
    let mut seen = 0;
    let mut lost = false;
    for _ in 0..500 {
        let Some(from) = [A, B].into_iter().find(|side| !pair.in_flight(*side).is_empty()) else {
            let timer = [A, B].into_iter().filter_map(|side| pair.timer(side)).min();
            match timer {
                Some(due) if due < pair.clock.elapsed() + QUIET => pair.fire_next_timer(),
                _ => return (pair, lost),
            };
            continue;
        };
        let held = pair.take(from, 0).unwrap();
        if seen == lose {
            lost = true;
        } else {
            pair.deliver(held);
        }
        pair.deliver_packets();
        seen += 1;
    }
    panic!("it does not come to rest\n{}", pair.trace);
}

pub(crate) fn lose_each(
    least: usize,
    fresh: impl Fn() -> Pair,
    begin: impl Fn(&mut Pair),
    children: usize,
) {
    // Before there is an SA, the responder may send on it before the initiator has it (RFC 7296 §2.8).
    let rekeys = !fresh().node(A).sad.is_empty();
    for lose in 0.. {
        let (pair, lost) = lose_one(lose, fresh(), &begin);
        if children == 0 {
            assert_ok(&pair, pair.check_gone());
        } else {
            assert_ok(&pair, pair.check_established(children));
            if rekeys {
                assert_ok(&pair, pair.check_no_packet_missed());
            }
        }
        if !lost {
            assert!(lose >= least, "only {lose} messages");
            return;
        }
    }
}

#[test]
fn each_message_of_the_initial_exchanges_may_be_lost() {
    let fresh = || pair_of(peers::site_a(), peers::site_b());
    lose_each(4, fresh, |pair| pair.initiate(A), 1);
}

#[test]
fn each_message_of_a_child_sa_rekey_may_be_lost() {
    for side in [A, B] {
        lose_each(4, established, |pair| pair.rekey_children(side).unwrap(), 1);
    }
}

#[test]
fn each_message_of_an_ike_sa_rekey_may_be_lost() {
    for side in [A, B] {
        lose_each(4, established, |pair| pair.rekey_ike(side).unwrap(), 1);
    }
}

#[test]
fn each_message_of_a_delete_may_be_lost() {
    for side in [A, B] {
        // The response is the last message of an IKE SA: if it is lost there is nobody left to ask again.
        lose_each(1, established, |pair| pair.terminate(side).unwrap(), 0);
    }
}

#[test]
fn repeated_requests_get_the_identical_response() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    for exchange in [IKE_SA_INIT, IKE_AUTH] {
        let request = pair.expect(A, exchange, REQUEST);
        pair.deliver(request.clone());
        pair.deliver(request.clone());
        same_twice(&mut pair, exchange);
    }
    pair.deliver_packets();
    assert_ok(&pair, pair.check_established(1));

    for begin in [Pair::rekey_children, Pair::rekey_ike] {
        begin(&mut pair, A).unwrap();
        // CREATE_CHILD_SA -->, then INFORMATIONAL { D } -->
        for exchange in [CREATE_CHILD_SA, INFORMATIONAL] {
            let request = pair.expect(A, exchange, REQUEST);
            pair.deliver(request.clone());
            let after = spis(&pair);
            pair.deliver(request.clone());
            assert_eq!(spis(&pair), after, "a repeated request changes nothing");
            same_twice(&mut pair, exchange);
        }
    }
    pair.deliver_packets();
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}

/// RFC 7296 §2.1: the retransmitted response is the one sent before, bit for bit.
fn same_twice(pair: &mut Pair, exchange: ExchangeType) {
    let first = pair.expect(B, exchange, RESPONSE);
    pair.deliver(first.clone());
    let second = pair.expect(B, exchange, RESPONSE);
    assert_eq!(first.datagram(), second.datagram(), "{exchange}");
    pair.deliver(second);
}

fn spis(pair: &Pair) -> Vec<u32> {
    pair.node(B).sad.all_inbound().map(|sa| sa.spi.get()).collect()
}

#[test]
fn every_message_twice_changes_nothing() {
    let mut pair = Pair::with(
        1,
        LinkConfig { duplicate: 100, ..LinkConfig::PERFECT },
        peers::site_a(),
        peers::site_b(),
    );
    pair.trace.keep_lines();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    pair.rekey_children(B).unwrap();
    settle(&mut pair);
    pair.rekey_ike(A).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_ok(&pair, pair.check_no_packet_missed());
}

#[test]
fn request_of_an_earlier_message_id_is_ignored() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    let auth = pair.expect(A, IKE_AUTH, REQUEST);
    pair.deliver(auth.clone());
    pair.pass(B, IKE_AUTH, RESPONSE);
    pair.rekey_children(A).unwrap();
    pair.exchange(A, CREATE_CHILD_SA);
    pair.exchange(A, INFORMATIONAL);
    let (before, sent) = (spis(&pair), pair.node(B).sent);
    // RFC 7296 §2.3: outside the window; only the last response is kept.
    pair.deliver(auth);
    assert_eq!(pair.node(B).sent, sent, "{}", pair.trace);
    assert_eq!(spis(&pair), before);
}

#[test]
fn repeated_response_is_ignored() {
    let mut pair = established();
    pair.hold = true;
    pair.rekey_children(A).unwrap();
    pair.pass(A, CREATE_CHILD_SA, REQUEST);
    let response = pair.expect(B, CREATE_CHILD_SA, RESPONSE);
    pair.deliver(response.clone());
    let sent = pair.node(A).sent;
    let children = pair.node(A).sad.all_inbound().count();
    pair.deliver(response);
    assert_eq!(pair.node(A).sent, sent);
    assert_eq!(pair.node(A).sad.all_inbound().count(), children);
}
