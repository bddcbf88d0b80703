//! IKE_AUTH without CHILD_SA (RFC 6023).

use core::time::Duration;

use ipsecd::ipsec::pad::StartPolicy;
use ipsecd::testing::Stage;
use ipsecd::wire::ike::numbers::{KeId, NotifyType};
use ipsecd::wire::ike::payload::{Notify, Payload};

use crate::support::*;

fn is_supported(payload: &Payload) -> bool {
    matches!(payload, Payload::Notify(notify)
        if notify.notify_type == NotifyType::CHILDLESS_IKEV2_SUPPORTED)
}

fn is_of_a_child(payload: &Payload) -> bool {
    matches!(payload, Payload::Sa(_) | Payload::TsI(_) | Payload::TsR(_))
}

#[test]
fn first_child_sa_has_an_exchange_and_a_key_exchange_of_its_own() {
    for group in [None, Some(KeId::CURVE25519)] {
        let (mut a, mut b) = (peers::site_a(), peers::site_b());
        a.ike.childless = true;
        for peer in [&mut a, &mut b] {
            peer.children[0].proposals[0].ke = group.into_iter().collect();
        }
        let mut pair = pair_of(a, b);
        pair.hold = true;
        pair.initiate(A);
        pair.exchange(A, IKE_SA_INIT);
        // HDR, SK { IDi, AUTH } -->
        pair.exchange(A, IKE_AUTH);
        assert_ok(&pair, pair.check_rules());
        for side in [A, B] {
            assert!(only_sa(&pair, side).children.is_empty() && pair.node(side).sad.is_empty());
        }
        // HDR, SK { SA, Ni, [KEi], TSi, TSr } -->
        pair.exchange(A, CREATE_CHILD_SA);
        pair.hold = false;
        pair.run_for(Duration::from_secs(2));
        assert_ok(&pair, pair.check_established(1));
        assert_ok(&pair, pair.check_no_packet_missed());
    }
}

#[test]
fn responder_says_that_it_takes_it_and_answers_without_child_sa() {
    let mut stage = Stage::responder(1);
    let mut payloads = stage.puppet.init_payloads();
    // An answer that is no longer than the request has to have room for it.
    let supported = Notify::new(NotifyType::CHILDLESS_IKEV2_SUPPORTED, []);
    payloads.push(Payload::Notify(supported));
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request).remove(0);
    assert!(response.len() <= request.len());
    stage.puppet.read_init_response(&response).unwrap();
    let message = ipsecd::wire::ike::message::Message::parse(&response).unwrap();
    assert!(message.payloads.iter().any(is_supported));
    // RFC 7296 §3.10: protocol 0 without SPI; RFC 6023 §4: 16418.
    assert!(response.windows(4).any(|bytes| bytes == [0, 0, 0x40, 0x22]));
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    payloads.retain(|payload| !is_of_a_child(payload));
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let answer = stage.give(&request).remove(0);
    let answer = stage.puppet.open(&answer).unwrap();
    assert!(answer.iter().any(|payload| matches!(payload, Payload::Auth(_))));
    assert!(!answer.iter().any(is_of_a_child));
    assert!(stage.sad.is_empty() && stage.ike_sas() == 1);
}

#[test]
fn request_without_room_for_it_is_answered_without_it_and_without_a_cookie() {
    let mut stage = Stage::responder(1);
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request).remove(0);
    stage.puppet.read_init_response(&response).unwrap();
    let message = ipsecd::wire::ike::message::Message::parse(&response).unwrap();
    assert!(!message.payloads.iter().any(is_supported));
    assert!(response.len() <= request.len());
}

#[test]
fn peer_that_does_not_say_so_gets_an_ordinary_ike_auth() {
    let mut a = peers::site_a();
    a.ike.childless = true;
    let mut pair = pair_of(a, peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.pass(A, IKE_SA_INIT, REQUEST);
    // <-- HDR, SAr1, KEr, Nr, without N(CHILDLESS_IKEV2_SUPPORTED)
    let response = pair.expect(B, IKE_SA_INIT, RESPONSE);
    let mut message = ipsecd::wire::ike::message::Message::parse(response.datagram()).unwrap();
    message.payloads.retain(|payload| !is_supported(payload));
    pair.deliver(response.with_datagram(message.emit()));
    // HDR, SK { IDi, AUTH, SAi2, TSi, TSr } -->
    pair.pass(A, IKE_AUTH, REQUEST);
    assert_eq!(pair.node(B).sad.all_inbound().count(), 1);
}

#[test]
fn child_sas_that_wait_for_traffic_wait_under_a_childless_ike_sa() {
    let [mut a, b] = [peers::site_a(), peers::site_b()];
    a.ike.childless = true;
    a.children[0].start = StartPolicy::OnTraffic;
    let mut pair = pair_of(a, b);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    // Whoever begins without traffic wants the first.
    assert_ok(&pair, pair.check_established(1));
}
