//! IKE_SA_INIT and IKE_AUTH that end in an error, on both sides.

use core::time::Duration;
use std::sync::Arc;

use ipsecd::crypto::Secret;
use ipsecd::ike::{CloseReason, Command};
use ipsecd::ipsec::pad::{Auth, Identity, Peer};
use ipsecd::ipsec::suite::Encr;
use ipsecd::wire::ike::numbers::{EncrId, KeId};

use crate::support::*;

fn attempt(a: Peer, b: Peer) -> Pair {
    let mut pair = pair_of(a, b);
    pair.initiate(A);
    settle(&mut pair);
    pair
}

#[test]
fn wrong_psk_is_an_error_on_both_sides() {
    let mut a = peers::site_a();
    a.auth = Auth::psk(Secret::copy_of(b"not the one"));
    let pair = attempt(a, peers::site_b());
    assert_eq!(pair.closed(A), [CloseReason::AuthenticationRefused]);
    assert_eq!(pair.closed(B), [CloseReason::AuthenticationOfPeer]);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn initiator_with_an_identity_that_nobody_expects_is_refused() {
    let mut a = peers::site_a();
    a.local_id = Identity::Fqdn("mallory.example.net".to_owned());
    let pair = attempt(a, peers::site_b());
    assert_eq!(pair.closed(A), [CloseReason::AuthenticationRefused]);
    assert_eq!(pair.closed(B).len(), 1);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn responder_with_another_identity_than_expected_is_refused() {
    let mut a = peers::site_a();
    a.peer_id = Some(Identity::Fqdn("c.example.net".to_owned()));
    let pair = attempt(a, peers::site_b());
    assert_eq!(pair.closed(A).len(), 1, "{}", pair.trace);
    assert!(
        matches!(
            pair.closed(A)[0],
            CloseReason::IdentityMismatch { .. } | CloseReason::AuthenticationRefused
        ),
        "{}",
        pair.trace
    );
    assert_eq!(pair.closed(B).len(), 1, "{}", pair.trace);
    assert_ok(&pair, pair.check_gone());
}

/// As [`attempt`], without saying in IKE_AUTH whom A wants.
fn attempt_unnamed(a: Peer, b: Peer) -> Pair {
    let mut pair = pair_of(a, b);
    let path = peers::path(pair.node(A).addr, pair.node(B).addr);
    let command = Command::InitiateUnnamed { peer: A.peer_name(), path };
    pair.command(A, command).expect("it is taken");
    settle(&mut pair);
    pair
}

#[test]
fn responder_that_is_not_named_shows_who_it_is_and_is_refused_if_it_is_another() {
    let mut a = peers::site_a();
    let expected = Identity::Fqdn("c.example.net".to_owned());
    a.peer_id = Some(expected.clone());
    // Named, it only says no.
    let pair = attempt(a.clone(), peers::site_b());
    assert_eq!(pair.closed(A), [CloseReason::AuthenticationRefused], "{}", pair.trace);
    let pair = attempt_unnamed(a, peers::site_b());
    let got = peers::site_b().local_id;
    assert_eq!(pair.closed(A), [CloseReason::IdentityMismatch { expected, got }], "{}", pair.trace);
    assert_eq!(pair.closed(B).len(), 1, "{}", pair.trace);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn responder_that_is_not_named_and_is_who_it_is_to_be_is_a_peer() {
    let pair = attempt_unnamed(peers::site_a(), peers::site_b());
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn wrong_psk_is_refused_also_without_a_name() {
    let mut a = peers::site_a();
    a.auth = Auth::psk(Secret::copy_of(b"not the one"));
    let pair = attempt_unnamed(a, peers::site_b());
    assert_eq!(pair.closed(A), [CloseReason::AuthenticationRefused]);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn what_is_not_named_is_not_told_to_forget_what_it_has() {
    let mut pair = established();
    pair.restart(A);
    pair.command(A, Command::AddPeer(Arc::new(peers::site_a()))).unwrap();
    let before = pair.ike_sas(B);
    let path = peers::path(pair.node(A).addr, pair.node(B).addr);
    let command = Command::InitiateUnnamed { peer: A.peer_name(), path };
    pair.command(A, command).expect("it is taken");
    // Less than liveness takes.
    pair.run_for(Duration::from_secs(2));
    assert_that(&pair, before.is_subset(&pair.ike_sas(B)), "the old IKE SA stays");
}

#[test]
fn an_attempt_that_nobody_answered_can_be_given_up() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.set_links(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    let tries = u32::try_from(pair.node(A).sent).expect("few");
    pair.command(A, Command::Forsake { peer: A.peer_name() }).expect("it is taken");
    let silence = CloseReason::Unreachable { exchange: "IKE_SA_INIT", tries };
    assert_eq!(pair.closed(A), [silence], "{}", pair.trace);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn what_is_established_is_not_given_up() {
    let mut pair = established();
    pair.command(A, Command::Forsake { peer: A.peer_name() }).expect("it is taken");
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn no_common_ike_proposal_is_an_error_at_the_initiator_and_leaves_nothing() {
    let mut b = peers::site_b();
    b.ike.proposals[0].encr = vec![Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(128) }];
    let pair = attempt(peers::site_a(), b);
    assert_eq!(pair.closed(A).len(), 1, "{}", pair.trace);
    assert!(matches!(pair.closed(A)[0], CloseReason::NoProposal(_)), "{:?}", pair.closed(A));
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn no_common_group_is_an_error_at_the_initiator_and_leaves_nothing() {
    let mut b = peers::site_b();
    b.ike.proposals[0].ke = vec![KeId::ECP_384];
    let pair = attempt(peers::site_a(), b);
    assert_eq!(pair.closed(A).len(), 1, "{}", pair.trace);
    assert!(matches!(pair.closed(A)[0], CloseReason::NoProposal(_)), "{:?}", pair.closed(A));
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn no_common_esp_proposal_leaves_the_ike_sa_up() {
    let mut b = peers::site_b();
    b.children[0].proposals[0].encr =
        vec![Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(128) }];
    let mut pair = pair_of(peers::site_a(), b);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    // RFC 7296 §1.2: failing to create the CHILD_SA does not tear the IKE SA down.
    assert_ok(&pair, pair.check_established(0));
    assert!(matches!(pair.child_failures(A)[0], CloseReason::NoProposal(_)), "{}", pair.trace);
}

#[test]
fn unreachable_peer_is_an_error_after_the_last_retransmission() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.set_links(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
    pair.initiate(A);
    settle(&mut pair);
    assert_eq!(
        pair.closed(A),
        [CloseReason::Unreachable { exchange: "IKE_SA_INIT", tries: 6 }],
        "{}",
        pair.trace
    );
    // Once and five retransmissions.
    assert_eq!(pair.node(A).sent, 6);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn waits_between_retransmissions_grow() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    let mut waits = vec![];
    let mut last = pair.clock.elapsed();
    for _ in 0..5 {
        let sent = pair.node(A).sent;
        while pair.node(A).sent == sent {
            pair.fire_next_timer().unwrap();
        }
        waits.push(pair.clock.elapsed() - last);
        last = pair.clock.elapsed();
    }
    // RFC 7296 §2.1: retransmission times MUST increase exponentially.
    for pair in waits.windows(2) {
        let growth = pair[1].as_secs_f64() / pair[0].as_secs_f64();
        assert!((1.4..2.3).contains(&growth), "{waits:?}");
    }
    let first = pair.expect(A, IKE_SA_INIT, REQUEST);
    let second = pair.expect(A, IKE_SA_INIT, REQUEST);
    // RFC 7296 §2.1: the retransmission is bitwise identical.
    assert_eq!(first.datagram(), second.datagram());
}

#[test]
fn responder_forgets_an_initiator_that_never_comes_back() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.pass(A, IKE_SA_INIT, REQUEST);
    assert!(pair.timer(B).is_some(), "it waits for IKE_AUTH");
    pair.set_links(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
}
