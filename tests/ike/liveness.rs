//! Liveness (RFC 7296 §2.4), and hints that the peer has lost its state (§1.5).

use core::time::Duration;
use std::sync::Arc;

use ipsecd::ike::{CloseReason, Command};
use ipsecd::ipsec::pad::Peer;
use ipsecd::testing::Stage;
use ipsecd::wire::ike::payload::{Delete, Payload};

use crate::support::*;

fn with_dpd(mut peer: Peer) -> Peer {
    peer.ike.dpd_delay = Some(Duration::from_secs(30));
    peer
}

/// Until the first request, and all of its retransmissions: 1 + 1.8 + 3.24 + ... with what is added at random.
const DEATH: Duration = Duration::from_secs(30 + 60);

#[test]
fn idle_peers_ask_each_other_and_stay_up() {
    let mut pair = established_of(1, with_dpd(peers::site_a()), with_dpd(peers::site_b()));
    let sent = pair.node(A).sent + pair.node(B).sent;
    pair.run_for(Duration::from_secs(600));
    assert_ok(&pair, pair.check_established(1));
    let sent = pair.node(A).sent + pair.node(B).sent - sent;
    assert!((20..=100).contains(&sent), "{sent} messages in ten idle minutes at 30 s");
}

#[test]
fn traffic_is_proof_of_life_enough() {
    let mut pair = established_of(1, with_dpd(peers::site_a()), with_dpd(peers::site_b()));
    pair.stream = Some(Duration::from_millis(500));
    let sent = pair.node(A).sent + pair.node(B).sent;
    pair.run_for(Duration::from_secs(600));
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(pair.node(A).sent + pair.node(B).sent, sent, "{}", pair.trace);
}

#[test]
fn dead_peer_is_found_on_both_sides() {
    let mut pair = established_of(1, with_dpd(peers::site_a()), with_dpd(peers::site_b()));
    pair.set_links(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
    pair.run_for(DEATH);
    for side in [A, B] {
        assert!(
            matches!(pair.closed(side)[..], [CloseReason::Unreachable { .. }]),
            "{side}: {:?}\n{}",
            pair.closed(side),
            pair.trace
        );
        assert!(pair.node(side).sad.is_empty());
    }
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn peer_that_comes_back_in_time_is_not_dead() {
    let mut pair = established_of(1, with_dpd(peers::site_a()), with_dpd(peers::site_b()));
    pair.set_links(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
    pair.run_for(Duration::from_secs(35));
    pair.set_links(LinkConfig::PERFECT);
    pair.run_for(DEATH);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn restarted_peer_is_found_by_liveness_not_by_its_word() {
    let mut pair = established_of(1, with_dpd(peers::site_a()), with_dpd(peers::site_b()));
    pair.restart(B);
    pair.command(B, Command::AddPeer(Arc::new(peers::site_b()))).unwrap();
    pair.hold = true;
    while pair.in_flight(A).is_empty() {
        pair.fire_next_timer().unwrap();
    }
    // INFORMATIONAL { } -->
    pair.pass(A, INFORMATIONAL, REQUEST);
    // <-- INFORMATIONAL { N(INVALID_IKE_SPI) }, not protected
    let hint = pair.expect(B, INFORMATIONAL, RESPONSE);
    pair.deliver(hint);
    // RFC 7296 §2.4: an unprotected message must not make A conclude that B has failed.
    assert_eq!(pair.ike_sas(A).len(), 1, "{}", pair.trace);
    assert!(!pair.node(A).sad.is_empty());
    pair.hold = false;
    pair.run_for(DEATH);
    assert!(pair.node(A).sad.is_empty() || pair.check_established(1).is_ok(), "{}", pair.trace);
}

#[test]
fn esp_of_an_unknown_spi_does_not_harm_the_sas_there_are() {
    let mut pair = established();
    let spi = ipsecd::ipsec::Spi::new(0xdead_beef).unwrap();
    let path = peers::path(peers::ADDR_B, peers::ADDR_A);
    pair.hold = true;
    for _ in 0..1000 {
        pair.notice(B, ipsecd::ipsec::Notice::NoSa { spi, path });
    }
    // RFC 7296 §2.21.4: such answers are rate-limited.
    let answers = pair.in_flight(B).len();
    assert!(answers <= 50, "{answers} messages for a thousand packets at one moment");
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn esp_from_a_stranger_gets_few_hints_and_none_is_answered() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    let spi = ipsecd::ipsec::Spi::new(0xdead_beef).unwrap();
    let path = peers::path(peers::ADDR_B, peers::ADDR_A);
    for _ in 0..1000 {
        pair.notice(B, ipsecd::ipsec::Notice::NoSa { spi, path });
    }
    let answers = pair.in_flight(B);
    assert!(answers.len() <= 50, "{} messages for a thousand packets", answers.len());
    for _ in answers {
        pair.pass(B, INFORMATIONAL, REQUEST);
    }
    // RFC 7296 §1.5: it MUST NOT be answered.
    assert!(pair.in_flight(A).is_empty());
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn a_hint_about_a_packet_without_ports_goes_to_the_port_of_ike() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    let spi = ipsecd::ipsec::Spi::new(0xdead_beef).unwrap();
    let mut path = peers::path(peers::ADDR_B, peers::ADDR_A);
    path.local.set_port(0);
    path.remote.set_port(0);
    pair.notice(B, ipsecd::ipsec::Notice::NoSa { spi, path });
    let hint = pair.expect(B, INFORMATIONAL, REQUEST);
    assert_eq!((hint.path().local.port(), hint.path().remote.port()), (500, 500));
}

#[test]
fn ike_sa_that_was_given_up_answers_no_repetition_and_so_does_not_seem_alive() {
    let mut stage = Stage::established_responder(1).unwrap();
    let question = stage.puppet.request(INFORMATIONAL, &[]).unwrap();
    assert_eq!(stage.give(&question).len(), 1);
    assert_eq!(stage.give(&question).len(), 1, "the answer was lost");
    stage.command(Command::RekeyChildren { peer: Arc::from("a") });
    while stage.ike_sas() == 1 {
        stage.pass_time(Duration::from_millis(100));
    }
    assert_eq!(stage.give(&question), Vec::<Vec<u8>>::new());
    // But a DELETE is answered, as long as there are keys for it (RFC 7296 §2.25.2).
    let delete = stage.puppet.request(INFORMATIONAL, &[Payload::Delete(Delete::ike())]).unwrap();
    assert_eq!(stage.give(&delete).len(), 1);
}
