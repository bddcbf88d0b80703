//! Cases between the exchanges: commands that come in the middle of one, peers that look alike, messages out of time.

use core::time::Duration;
use std::sync::Arc;

use ipsecd::crypto::Secret;
use ipsecd::ike::{CloseReason, Command};
use ipsecd::ipsec::Notice;
use ipsecd::ipsec::pad::{Auth, EncapPolicy, Identity, PeerAddress};

use crate::support::*;

#[test]
fn the_peer_that_is_named_goes_before_one_that_takes_anybody() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    for (name, address) in [("0", PeerAddress::Any), ("1", PeerAddress::Ip(peers::ADDR_A))] {
        let mut anybody = peers::site_b();
        anybody.name = Arc::from(name);
        anybody.address = address;
        anybody.peer_id = None;
        anybody.auth = Auth::psk(Secret::copy_of(b"for others"));
        pair.command(B, Command::AddPeer(Arc::new(anybody))).unwrap();
    }
    pair.initiate(A);
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(&*only_sa(&pair, B).peer, "a");
}

#[test]
fn of_peers_that_take_anybody_the_key_decides() {
    let mut b = peers::site_b();
    b.peer_id = None;
    let mut pair = pair_of(peers::site_a(), b);
    let mut anybody = peers::site_b();
    anybody.name = Arc::from("0");
    anybody.peer_id = None;
    anybody.auth = Auth::psk(Secret::copy_of(b"for others"));
    pair.command(B, Command::AddPeer(Arc::new(anybody))).unwrap();
    pair.initiate(A);
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(&*only_sa(&pair, B).peer, "a");
}

#[test]
fn peer_with_another_key_loses_its_sas() {
    let mut pair = established();
    let mut b = peers::site_a();
    b.auth = Auth::psk(Secret::copy_of(b"a new one"));
    pair.command(A, Command::AddPeer(Arc::new(b))).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    assert_eq!(pair.closed(A), [CloseReason::Operator]);
}

#[test]
fn peer_with_other_selectors_loses_the_child_sa_alone() {
    let mut pair = established();
    let mut b = peers::site_a();
    b.children[0].ts_peer = vec![peers::subnet(7)];
    pair.command(A, Command::AddPeer(Arc::new(b))).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(0));
}

#[test]
fn the_same_peer_again_changes_nothing() {
    let mut pair = established();
    let before = only_child(&pair, A).spi_inbound;
    let mut b = peers::site_a();
    b.ike.dpd_delay = Some(Duration::from_secs(1000));
    pair.command(A, Command::AddPeer(Arc::new(b))).unwrap();
    pair.run_for(Duration::from_secs(5));
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(only_child(&pair, A).spi_inbound, before);
}

#[test]
fn terminate_after_ike_auth_was_sent_leaves_nothing_at_the_responder() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    // IKE_AUTH { .. } -->
    pair.pass(A, IKE_AUTH, REQUEST);
    pair.terminate(A).unwrap();
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    assert_eq!(pair.closed(A), [CloseReason::Operator]);
}

#[test]
fn terminate_while_the_ike_sa_is_rekeyed_deletes_the_new_one_too() {
    let mut pair = established();
    pair.hold = true;
    pair.rekey_ike(A).unwrap();
    // CREATE_CHILD_SA { SA, Ni, KEi } -->
    pair.pass(A, CREATE_CHILD_SA, REQUEST);
    pair.terminate(A).unwrap();
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    assert_eq!(pair.closed(A), [CloseReason::Operator]);
}

#[test]
fn terminate_while_both_rekey_the_ike_sa_deletes_the_peers_new_one_too() {
    let mut pair = established();
    pair.hold = true;
    pair.rekey_ike(A).unwrap();
    pair.rekey_ike(B).unwrap();
    let _late = pair.expect(A, CREATE_CHILD_SA, REQUEST);
    // <-- CREATE_CHILD_SA { SA, Ni, KEi }, which A answers while its own request is on the way.
    pair.pass(B, CREATE_CHILD_SA, REQUEST);
    pair.terminate(A).unwrap();
    // B has its answer and never knew of A's rekey: it moves on to its new IKE SA and deletes the old one.
    pair.pass(A, CREATE_CHILD_SA, RESPONSE);
    pair.pass(B, INFORMATIONAL, REQUEST);
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    assert_eq!(pair.closed(A), [CloseReason::Operator]);
}

#[test]
fn initial_contact_does_not_stop_a_delete_that_is_under_way() {
    let mut pair = established();
    pair.hold = true;
    pair.rekey_ike(B).unwrap();
    pair.exchange(B, CREATE_CHILD_SA);
    // <-- INFORMATIONAL { D } of the old IKE SA is lost.
    let _lost = pair.expect(B, INFORMATIONAL, REQUEST);
    pair.terminate(A).unwrap();
    let _lost = pair.expect(A, INFORMATIONAL, REQUEST);
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    // IKE_AUTH { N(INITIAL_CONTACT), .. } -->
    pair.exchange(A, IKE_AUTH);
    pair.hold = false;
    // Longer than the first retransmission, and much less than A would wait for the DELETE.
    pair.run_for(Duration::from_secs(5));
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn initial_contact_ends_the_wait_for_a_delete_that_will_not_come() {
    let mut pair = established();
    pair.hold = true;
    pair.rekey_ike(B).unwrap();
    pair.pass(B, CREATE_CHILD_SA, REQUEST);
    // A has a new IKE SA of which B does not know, and waits for B to delete the old one.
    let _lost = pair.expect(A, CREATE_CHILD_SA, RESPONSE);
    pair.terminate(A).unwrap();
    let _lost = pair.expect(A, INFORMATIONAL, REQUEST);
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    // IKE_AUTH { N(INITIAL_CONTACT), .. } -->
    pair.exchange(A, IKE_AUTH);
    pair.hold = false;
    // All retransmissions of a DELETE, and less than the wait for one.
    pair.run_for(Duration::from_secs(50));
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn second_ike_sa_goes_even_if_the_first_has_been_rekeyed_by_its_initiator() {
    for seed in 0..4 {
        let mut pair = Pair::with(seed, LinkConfig::PERFECT, peers::site_a(), peers::site_b());
        pair.trace.keep_lines();
        pair.hold = true;
        pair.initiate(A);
        pair.initiate(B);
        let late = pair.expect(B, IKE_SA_INIT, REQUEST);
        pair.exchange(A, IKE_SA_INIT);
        pair.exchange(A, IKE_AUTH);
        pair.rekey_ike(B).unwrap();
        pair.exchange(B, CREATE_CHILD_SA);
        pair.exchange(B, INFORMATIONAL);
        pair.deliver(late);
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
    }
}

#[test]
fn who_forces_encapsulation_follows_a_peer_behind_a_nat() {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.ike.encap = EncapPolicy::Udp;
    b.ike.encap = EncapPolicy::Udp;
    let mut pair = established_of(1, a, b);
    let child = only_child(&pair, B);
    let mut moved = child.path;
    moved.remote.set_port(40_000);
    pair.notice(B, Notice::PeerMoved { spi: child.spi_inbound, path: moved });
    assert_eq!(only_child(&pair, B).path.remote, moved.remote);
    assert!(!only_sa(&pair, B).nat_local, "there is no NAT in front of B");
}

#[test]
fn delayed_duplicate_of_ike_sa_init_begins_nothing() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    let init = pair.expect(A, IKE_SA_INIT, REQUEST);
    let (path, datagram) = (init.path(), init.datagram().to_vec());
    pair.deliver(init);
    pair.pass(B, IKE_SA_INIT, RESPONSE);
    pair.exchange(A, IKE_AUTH);
    pair.hold = false;
    pair.run_for(Duration::from_secs(5));
    let sent = pair.node(B).sent;
    // RFC 7296 §2.1: it belongs to an IKE SA whose IKE_AUTH has been received.
    pair.inject(B, path, &datagram);
    assert_eq!(pair.node(B).sent, sent);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn nobody_is_connecting_before_it_is_known_who() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.pass(A, IKE_SA_INIT, REQUEST);
    assert!(pair.status(B).is_empty(), "{:?}", pair.status(B));
}

#[test]
fn child_rekey_under_the_new_ike_sa_overtakes_the_end_of_the_collision() {
    for seed in 0..8 {
        let mut pair = established_of(seed, peers::site_a(), peers::site_b());
        pair.hold = true;
        // CREATE_CHILD_SA { SA, Ni, KEi } --> <--
        pair.rekey_ike(A).unwrap();
        pair.rekey_ike(B).unwrap();
        pair.pass(A, CREATE_CHILD_SA, REQUEST);
        pair.pass(B, CREATE_CHILD_SA, REQUEST);
        // A's answer arrives, B's is late.
        pair.pass(A, CREATE_CHILD_SA, RESPONSE);
        let _not_if_it_lost = pair.rekey_children(B);
        let answer = pair.expect(B, CREATE_CHILD_SA, RESPONSE);
        // CREATE_CHILD_SA { N(REKEY_SA), .. } on the new IKE SA comes before DELETE of the old one.
        let rekey = pair
            .in_flight(B)
            .iter()
            .position(|info| info.exchange == CREATE_CHILD_SA && !info.response);
        if let Some(held) = rekey.and_then(|index| pair.take(B, index)) {
            pair.deliver(held);
        }
        pair.deliver(answer);
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        let failed = pair.node(A).events.iter().chain(&pair.node(B).events);
        let lost =
            failed.filter(|(_, event)| matches!(event, ipsecd::ike::Event::ChildSaClosed { .. }));
        assert_eq!(lost.count(), 0, "seed {seed}: {}", pair.trace);
    }
}

#[test]
fn child_sa_that_is_wanted_from_the_start_comes_back_after_its_end() {
    for side in [A, B] {
        let mut pair = established();
        let old = only_child(&pair, side).spi_inbound;
        pair.notice(side, Notice::Expire { spi: old, hard: true });
        pair.run_for(Duration::from_secs(30));
        assert_ok(&pair, pair.check_established(1));
        assert_ne!(only_child(&pair, side).spi_inbound, old);
    }
}

#[test]
fn identities_of_strangers_do_not_hide_a_peer_behind_its_address() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    let mut other = peers::site_b();
    other.name = Arc::from("0");
    other.peer_id = Some(Identity::Fqdn("c.example.net".to_owned()));
    pair.command(B, Command::AddPeer(Arc::new(other))).unwrap();
    pair.initiate(A);
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(&*only_sa(&pair, B).peer, "a");
}

#[test]
fn ike_sa_of_a_collision_does_not_outlive_the_one_that_it_was_to_replace() {
    let mut pair = established();
    pair.hold = true;
    pair.rekey_ike(A).unwrap();
    pair.rekey_ike(B).unwrap();
    // <-- CREATE_CHILD_SA { SA, Ni, KEi }, and nothing ever after
    pair.pass(B, CREATE_CHILD_SA, REQUEST);
    for side in [A, B] {
        while pair.take(side, 0).is_some() {}
    }
    pair.set_links(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
}
