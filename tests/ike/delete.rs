//! INFORMATIONAL exchanges that delete (RFC 7296 §1.4.1), and INITIAL_CONTACT (§2.4).

use core::time::Duration;
use std::sync::Arc;

use ipsecd::ike::{CloseReason, Command, Event};
use ipsecd::ipsec::Notice;

use crate::support::*;

#[test]
fn deleting_the_ike_sa_deletes_everything_on_both_sides() {
    for side in [A, B] {
        let mut pair = established();
        pair.hold = true;
        pair.terminate(side).unwrap();
        // INFORMATIONAL { D(IKE) } -->
        pair.pass(side, INFORMATIONAL, REQUEST);
        assert!(pair.status(side.other()).is_empty() || pair.ike_sas(side.other()).len() == 1);
        // <-- INFORMATIONAL { }
        pair.pass(side.other(), INFORMATIONAL, RESPONSE);
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, pair.check_gone());
        assert_eq!(pair.closed(side), [CloseReason::Operator]);
        assert_eq!(pair.closed(side.other()), [CloseReason::DeletedByPeer]);
        let events = &pair.node(side).events;
        let answered =
            events.iter().filter(|(_, event)| matches!(event, Event::IkeSaDeleted { .. }));
        assert_eq!(answered.count(), 1, "{}", pair.trace);
    }
}

#[test]
fn terminate_all_deletes_on_both_sides() {
    let mut pair = established();
    pair.command(B, Command::TerminateAll).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
}

#[test]
fn delete_ends_here_even_if_the_peer_is_gone() {
    let mut pair = established();
    pair.set_links(LinkConfig { black_hole: true, ..LinkConfig::PERFECT });
    pair.terminate(A).unwrap();
    settle(&mut pair);
    assert!(pair.status(A).is_empty() && pair.node(A).sad.is_empty(), "{}", pair.trace);
}

#[test]
fn expired_child_sa_is_deleted_on_both_sides_and_the_ike_sa_stays() {
    let mut pair = established();
    let old = only_child(&pair, A).spi_inbound;
    pair.hold = true;
    pair.notice(A, Notice::Expire { spi: old, hard: true });
    // INFORMATIONAL { D(ESP, SPI) } -->  <-- INFORMATIONAL { D(ESP, SPI) }
    pair.exchange(A, INFORMATIONAL);
    pair.hold = false;
    settle(&mut pair);
    assert!(pair.node(A).sad.inbound(old).is_none(), "{}", pair.trace);
    assert_eq!(pair.ike_sas(A).len(), 1);
    // Whether the policy brings another up at once is its own affair; both sides agree on it.
    let children = only_sa(&pair, A).children.len();
    assert_ok(&pair, pair.check_established(children));
}

#[test]
fn initial_contact_replaces_what_the_responder_had() {
    let mut pair = established();
    let before = pair.ike_sas(B);
    pair.restart(A);
    pair.command(A, Command::AddPeer(Arc::new(peers::site_a()))).unwrap();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    assert!(pair.ike_sas(B).is_disjoint(&before));
    assert_eq!(pair.closed(B), [CloseReason::Replaced], "{}", pair.trace);
}

#[test]
fn initial_contact_works_in_the_other_role() {
    let mut pair = established();
    pair.restart(B);
    pair.command(B, Command::AddPeer(Arc::new(peers::site_b()))).unwrap();
    pair.initiate(B);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(pair.closed(A), [CloseReason::Replaced], "{}", pair.trace);
}

#[test]
fn removed_peer_is_forgotten_once_its_sas_are_gone() {
    let mut pair = established();
    pair.command(A, Command::RemovePeer { peer: A.peer_name() }).unwrap();
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    let path = peers::path(peers::ADDR_A, peers::ADDR_B);
    let again = pair.command(A, Command::Initiate { peer: A.peer_name(), path });
    assert!(again.is_err());
    // B no longer finds anybody either.
    pair.initiate(B);
    settle(&mut pair);
    assert_ok(&pair, pair.check_gone());
    assert_eq!(pair.closed(B).len(), 2, "{}", pair.trace);
}
