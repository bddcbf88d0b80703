//! SUPPORTED_AUTH_METHODS (RFC 9593): who has several keys signs with one that the other side can verify, in both roles; and what a list
//! that says nothing of use does not change.

use ipsecd::ipsec::pad::{Auth, Peer};
use ipsecd::testing::Stage;
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{KeId, NotifyType, PrfId};
use ipsecd::wire::ike::payload::{Notify, Payload};

use crate::cert::{known, raw_keys};
use crate::support::*;

/// A has one key; B has two, of which A knows the second alone. A asks for raw keys, which both of them are.
fn sites() -> (Peer, Peer) {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.auth = Auth { local: raw_keys(&["a-p256"]), peer: known(&["b-ed25519"]) };
    b.auth = Auth { local: raw_keys(&["b-p384", "b-ed25519"]), peer: known(&["a-p256"]) };
    (with_room(a), with_room(b))
}

/// As long an offer as there is in practice, so that an answer has room.
fn with_room(mut peer: Peer) -> Peer {
    let proposal = &mut peer.ike.proposals[0];
    proposal.ke.extend([KeId::ECP_256, KeId::ECP_384, KeId::MODP_2048]);
    proposal.prf.extend([PrfId::PRF_HMAC_SHA2_384, PrfId::PRF_HMAC_SHA2_512]);
    peer.ike.proposals = vec![proposal.clone(); 3];
    peer
}

fn with_intermediate(mut peer: Peer) -> Peer {
    for proposal in &mut peer.ike.proposals {
        proposal.addke[0] = vec![KeId::ML_KEM_512];
    }
    peer
}

#[track_caller]
fn succeeds(a: Peer, b: Peer, from: Side) {
    let mut pair = pair_of(a, b);
    pair.initiate(from);
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}

/// The list of an IKE_SA_INIT message.
fn list(datagram: &[u8]) -> Option<Vec<u8>> {
    let message = Message::parse(datagram).unwrap();
    of(&message.payloads)
}

fn of(payloads: &[Payload]) -> Option<Vec<u8>> {
    payloads.iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == NotifyType::SUPPORTED_AUTH_METHODS).then(|| notify.data.clone())
    })
}

#[test]
fn who_has_several_keys_signs_with_one_that_the_other_side_announces() {
    let (a, b) = sites();
    // The initiator's list comes in IKE_AUTH, the responder's in IKE_SA_INIT, or in IKE_INTERMEDIATE where there is one.
    for from in [A, B] {
        succeeds(a.clone(), b.clone(), from);
        succeeds(with_intermediate(a.clone()), with_intermediate(b.clone()), from);
    }
}

#[test]
fn the_list_is_in_ike_sa_init_or_said_to_come_in_ike_intermediate() {
    let (a, b) = sites();
    for later in [false, true] {
        let of = |peer: &Peer| if later { with_intermediate(peer.clone()) } else { peer.clone() };
        let mut pair = pair_of(of(&a), of(&b));
        pair.hold = true;
        pair.initiate(A);
        let request = pair.expect(A, IKE_SA_INIT, REQUEST);
        assert_eq!(list(request.datagram()), None, "the initiator does not begin with it");
        let asked = request.datagram().len();
        pair.deliver(request);
        let answer = pair.expect(B, IKE_SA_INIT, RESPONSE);
        assert!(answer.datagram().len() <= asked);
        let list = list(answer.datagram()).unwrap();
        // B knows a key on P-256, which signs with three hashes.
        assert_eq!(list.len(), if later { 0 } else { 3 * 15 });
    }
}

#[test]
fn a_pre_shared_key_is_announced_in_two_octets() {
    let mut pair = pair_of(with_room(peers::site_a()), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.pass(A, IKE_SA_INIT, REQUEST);
    let answer = pair.expect(B, IKE_SA_INIT, RESPONSE);
    assert_eq!(list(answer.datagram()), Some(vec![2, 2]));
}

/// A puppet that answers IKE_SA_INIT with this list; what comes in IKE_AUTH, if it comes.
fn answered_with(data: Option<&[u8]>) -> Option<Vec<u8>> {
    let (mut stage, request) = Stage::initiator(1);
    stage.puppet.read_init_request(&request).unwrap();
    let more =
        data.map(|data| Payload::Notify(Notify::new(NotifyType::SUPPORTED_AUTH_METHODS, data)));
    let answer = stage.puppet.init_response_with(more.as_slice()).unwrap();
    let auth = stage.give(&answer);
    let payloads = stage.puppet.open(auth.first().unwrap()).unwrap();
    assert!(payloads.iter().any(|payload| matches!(payload, Payload::Auth(_))));
    of(&payloads)
}

#[test]
fn the_initiator_announces_to_whom_it_means_something_and_is_not_led_astray() {
    assert_eq!(answered_with(None), None);
    // Nothing of use, what is not understood, what is malformed: AUTH is made all the same.
    for data in [&[][..], &[2, 2], &[3, 9, 0], &[2, 13], &[9, 14, 0], &[0; 1000], &[2; 2000]] {
        assert_eq!(answered_with(Some(data)), Some(vec![2, 2]), "{data:?}");
    }
}

#[test]
fn where_there_is_no_room_for_it_the_list_is_left_out_and_no_cookie_asked_for() {
    // An offer of one suite is hardly longer than the answer.
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    let request = pair.expect(A, IKE_SA_INIT, REQUEST);
    let asked = request.datagram().len();
    pair.deliver(request);
    let answer = pair.expect(B, IKE_SA_INIT, RESPONSE);
    assert!(answer.datagram().len() <= asked);
    assert_eq!(list(answer.datagram()), None);
    pair.deliver(answer);
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}
