//! Several IKE SAs with one peer: reauthentication (RFC 7296 §2.8.3, RFC 4478), uniqueness, stale attempts, and what one peer may
//! take of us.

use core::time::Duration;
use std::sync::Arc;

use ipsecd::ike::{CloseReason, Command, Event};
use ipsecd::ipsec::pad::{Peer, PeerAddress, StartPolicy, Unique};
use ipsecd::testing::{MessageInfo, Stage};
use ipsecd::wire::ike::numbers::{KeId, NotifyType};
use ipsecd::wire::ike::payload::{Ke, Notify, Payload};

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

/// Two sites with two CHILD_SAs.
fn sites() -> [Peer; 2] {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    let (here, there) = (peers::subnet(11), peers::subnet(12));
    a.children.push(peers::child("second", 2, &[here], &[there]));
    b.children.push(peers::child("second", 2, &[there], &[here]));
    for peer in [&mut a, &mut b] {
        peer.ike.over_time = HOUR / 10;
        peer.ike.dpd_delay = Some(Duration::from_secs(30));
    }
    [a, b]
}

/// The reauthentications that a side began or answered: IKE SAs established that are no rekeys, but for the first.
fn reauthentications(pair: &Pair, side: Side) -> usize {
    let events = pair.node(side).events.iter();
    let fresh = events
        .filter(|(_, event)| matches!(event, Event::IkeSaEstablished { rekeyed_from: None, .. }));
    fresh.count() - 1
}

fn expirations(pair: &Pair) -> Vec<CloseReason> {
    let reasons = [A, B].into_iter().flat_map(|side| pair.closed(side));
    reasons.filter(|reason| *reason == CloseReason::Lifetime).collect()
}

#[test]
fn reauthentication_makes_all_new_before_it_breaks_the_old_and_loses_nothing() {
    for link in [LinkConfig::PERFECT, LinkConfig::BAD] {
        for by in [A, B] {
            let [mut a, mut b] = sites();
            let reauth = if by == A { &mut a } else { &mut b };
            reauth.ike.reauth_time = Some(HOUR);
            // Without AUTH_LIFETIME from B, A alone knows of it.
            let mut pair = Pair::with(3, link, a, b);
            pair.trace.keep_lines();
            pair.initiate(A);
            pair.run_for(Duration::from_secs(60));
            pair.missed.clear();
            let before = only_sa(&pair, A);
            pair.stream = Some(Duration::from_millis(500));
            pair.run_for(HOUR);
            pair.stream = None;
            pair.run_for(Duration::from_secs(30));
            assert_eq!(reauthentications(&pair, A), 1, "{by} {}", pair.trace);
            assert_eq!(reauthentications(&pair, B), 1, "{by} {}", pair.trace);
            let after = only_sa(&pair, A);
            assert_ne!(after.spi_i, before.spi_i);
            assert!(after.initiator, "with AUTH_LIFETIME, too, it is the initiator who begins");
            for child in &after.children {
                assert!(before.children.iter().all(|old| old.spi_inbound != child.spi_inbound));
            }
            assert_ok(&pair, pair.check_established(2));
            assert_ok(&pair, pair.check_no_packet_missed());
            assert_eq!(expirations(&pair), []);
        }
    }
}

#[test]
fn new_ike_sa_and_its_child_sas_come_first_and_the_old_one_goes_after() {
    let [mut a, b] = sites();
    a.ike.reauth_time = Some(HOUR);
    let mut pair = established_of(1, a, b);
    let old = only_sa(&pair, A);
    let begun = pair.run_until(HOUR, |pair| pair.status(A).len() == 2);
    assert_that(&pair, begun, "reauthentication has to begin");
    pair.hold = true;
    // HDR, SAi1, KEi, Ni -->  <-- HDR, SAr1, KEr, Nr
    pair.run_until(Duration::from_secs(1), |pair| !pair.in_flight(A).is_empty());
    pair.exchange(A, IKE_SA_INIT);
    // HDR, SK { IDi, AUTH, SAi2, TSi, TSr } without N(INITIAL_CONTACT) -->
    pair.pass(A, IKE_AUTH, REQUEST);
    // B sends with the old CHILD_SA until it knows that A has the new one.
    let in_use = pair.node(B).sad.in_use();
    let is_old = |sa: &Arc<ipsecd::ipsec::SaParams>| {
        old.children.iter().any(|child| child.spi_inbound == sa.spi)
    };
    assert!(in_use.values().all(is_old), "{}", pair.trace);
    pair.pass(B, IKE_AUTH, RESPONSE);
    // HDR, SK { SA, Ni, TSi, TSr } for the second -->
    pair.exchange(A, CREATE_CHILD_SA);
    assert_eq!(pair.status(A).len(), 2);
    // HDR, SK {} -->: it tells B that A has them.
    pair.exchange(A, INFORMATIONAL);
    let in_use = pair.node(B).sad.in_use();
    assert!(!in_use.values().any(is_old), "{}", pair.trace);
    pair.hold = false;
    pair.run_for(Duration::from_secs(4));
    assert_eq!(pair.status(A).len(), 2, "the old one serves for packets under way");
    pair.run_for(Duration::from_secs(3));
    assert_ok(&pair, pair.check_established(2));
    assert_eq!(pair.closed(A), [CloseReason::Replaced]);
}

#[test]
fn responder_begins_where_the_initiator_is_deaf_to_auth_lifetime() {
    let mut b = peers::site_b();
    b.ike.reauth_time = Some(HOUR);
    b.ike.over_time = HOUR / 10;
    let mut stage = Stage::responder_with(1, b).established_by(|_| true).unwrap();
    let sent = stage.pass_time(HOUR + HOUR / 20 - Duration::from_secs(1));
    assert!(sent.is_empty(), "{:?}", MessageInfo::of(&sent[0]));
    let sent = stage.pass_time(Duration::from_secs(3));
    let info = MessageInfo::of(&sent[0]).unwrap();
    assert_eq!((info.exchange, info.response), (IKE_SA_INIT, REQUEST));

    // Not where it cannot: the peer may be anywhere, or comes by EAP. Then the end is all there is.
    let mut b = peers::site_b();
    b.ike.reauth_time = Some(HOUR);
    b.ike.over_time = HOUR / 10;
    b.address = PeerAddress::Any;
    let mut stage = Stage::responder_with(1, b).established_by(|_| true).unwrap();
    let sent = stage.pass_time(HOUR + HOUR / 10 - Duration::from_secs(1));
    assert!(sent.is_empty() && !stage.sad.is_empty());
    let sent = stage.pass_time(Duration::from_secs(3));
    assert_eq!(MessageInfo::of(&sent[0]).map(|info| info.exchange), Some(INFORMATIONAL));
    assert!(stage.sad.is_empty());
}

#[test]
fn auth_lifetime_is_told_by_the_responder_and_followed_by_the_initiator() {
    let mut b = peers::site_b();
    b.ike.reauth_time = Some(HOUR);
    let mut stage = Stage::responder_with(1, b);
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request).remove(0);
    stage.puppet.read_init_response(&response).unwrap();
    let payloads = stage.puppet.auth_payloads().unwrap();
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let answer = stage.give(&request).remove(0);
    let answer = stage.puppet.open(&answer).unwrap();
    let told = answer.iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == NotifyType::AUTH_LIFETIME).then(|| notify.data.clone())
    });
    assert_eq!(told, Some(vec![0, 0, 0x0e, 0x10]), "3600 seconds");

    // As initiator, in IKE_AUTH it is tested above; in INFORMATIONAL it may come at any time.
    for (seconds, soonest, latest) in [(3600_u32, 2700, 3240), (1, 24, 27)] {
        let mut stage = Stage::established_initiator(1).unwrap();
        let lifetime = Notify::new(NotifyType::AUTH_LIFETIME, seconds.to_be_bytes());
        let request = stage.puppet.request(INFORMATIONAL, &[Payload::Notify(lifetime)]).unwrap();
        assert_eq!(stage.give(&request).len(), 1);
        let early = stage.pass_time(Duration::from_secs(soonest));
        assert!(
            early.is_empty(),
            "{seconds}: {:?}",
            early.iter().map(|d| MessageInfo::of(d)).collect::<Vec<_>>()
        );
        let sent = stage.pass_time(Duration::from_secs(latest - soonest));
        let info = MessageInfo::of(sent.first().expect("reauthentication begins")).unwrap();
        assert_eq!((info.exchange, info.response), (IKE_SA_INIT, false));
        assert_eq!(stage.violations, []);
    }
    // Of another length it is nothing.
    let mut stage = Stage::established_initiator(1).unwrap();
    let lifetime = Notify::new(NotifyType::AUTH_LIFETIME, [0, 0, 1]);
    let request = stage.puppet.request(INFORMATIONAL, &[Payload::Notify(lifetime)]).unwrap();
    assert_eq!(stage.give(&request).len(), 1);
    assert!(stage.pass_time(HOUR).is_empty());
}

#[test]
fn authentication_that_cannot_be_repeated_ends_with_its_lifetime_and_not_before() {
    // With a peer that is deaf to it, it is tried again, and at last the IKE SA ends.
    let mut stage = {
        let mut a = peers::site_a();
        a.ike.reauth_time = Some(HOUR);
        a.ike.over_time = HOUR / 10;
        let (mut stage, request) = Stage::initiator_of(1, a);
        stage.puppet.read_init_request(&request).unwrap();
        let response = stage.puppet.init_response().unwrap();
        let request = stage.give(&response).remove(0);
        let inside = stage.puppet.open(&request).unwrap();
        let payloads = stage.puppet.auth_response_payloads(&inside).unwrap();
        let sent = stage.answer(&request, &payloads);
        assert!(sent.is_empty());
        stage
    };
    let sent = stage.pass_time(HOUR + Duration::from_secs(300));
    let inits = |sent: &[Vec<u8>]| {
        let infos = sent.iter().filter_map(|datagram| MessageInfo::of(datagram));
        let spis = infos.filter(|info| info.exchange == IKE_SA_INIT).map(|info| info.spi_i);
        spis.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert!(inits(&sent) >= 3, "only {} attempts", inits(&sent));
    assert!(!stage.sad.is_empty(), "the old one lives meanwhile");
    let sent = stage.pass_time(Duration::from_secs(120));
    let last = sent.iter().filter_map(|datagram| MessageInfo::of(datagram));
    assert!(last.into_iter().any(|info| info.exchange == INFORMATIONAL), "DELETE");
    assert!(stage.sad.is_empty());
    let ended = stage
        .events
        .iter()
        .any(|event| matches!(event, Event::IkeSaClosed { reason: CloseReason::Lifetime, .. }));
    assert!(ended);
}

#[test]
fn rekeys_during_the_overlap_neither_end_both_nor_keep_both() {
    for who in [A, B] {
        let [mut a, mut b] = sites();
        a.ike.reauth_time = Some(HOUR);
        b.ike.reauth_time = Some(HOUR);
        let mut pair = established_of(2, a, b);
        assert!(pair.run_until(HOUR, |pair| pair.status(A).len() == 2));
        pair.run_for(Duration::from_millis(700));
        // Of the new one, which is what a side takes for its IKE SA by now.
        pair.rekey_ike(who).unwrap();
        pair.rekey_children(who).unwrap();
        pair.run_for(Duration::from_secs(100));
        assert_ok(&pair, pair.check_established(2));
        assert_ok(&pair, pair.check_no_packet_missed());
    }
}

/// A third site that has A's identity and key, and comes from another address.
fn second_device(pair: &mut Pair) {
    pair.restart(A);
    let node = pair.node_mut(A);
    node.addr = "192.0.2.77".parse().unwrap();
    let mut a = peers::site_a();
    a.ike.unique = Unique::Never;
    pair.command(A, Command::AddPeer(Arc::new(a))).unwrap();
}

fn with_device(unique: Unique) -> Pair {
    let mut b = peers::site_b();
    b.ike.unique = unique;
    b.address = PeerAddress::Any;
    b.children[0].start = StartPolicy::Respond;
    let mut pair = Pair::with(1, LinkConfig::PERFECT, peers::site_a(), b);
    pair.trace.keep_lines();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    pair
}

#[test]
fn unique_replace_lets_the_new_one_take_the_place_of_the_old() {
    let mut pair = with_device(Unique::Replace);
    second_device(&mut pair);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.status(B).len(), 2, "for packets under way");
    // A's first self is not there to answer the DELETE.
    pair.run_for(Duration::from_secs(60));
    assert_ok(&pair, pair.check_established(1));
    assert_eq!(pair.closed(B), [CloseReason::Replaced]);
}

#[test]
fn unique_keep_refuses_another_address_while_the_old_one_lives() {
    let mut pair = with_device(Unique::Keep);
    let old = only_sa(&pair, B).spi_i;
    second_device(&mut pair);
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.closed(A).last(), Some(&CloseReason::AuthenticationRefused));
    assert_eq!(only_sa(&pair, B).spi_i, old);
    assert!(pair.closed(B).contains(&CloseReason::NotUnique));
    // The old one was asked whether it lives; it does not, so the next attempt is taken.
    pair.run_for(Duration::from_secs(60));
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn unique_no_and_never_let_several_be_and_never_is_deaf_to_initial_contact() {
    for unique in [Unique::No, Unique::Never] {
        let mut pair = with_device(unique);
        second_device(&mut pair);
        pair.initiate(A);
        pair.run_for(Duration::from_secs(100));
        assert_eq!(pair.status(B).len(), 2, "{unique:?}");
        // A restart that says so.
        pair.restart(A);
        pair.command(A, Command::AddPeer(Arc::new(peers::site_a()))).unwrap();
        pair.initiate(A);
        pair.run_for(Duration::from_secs(2));
        let left = if unique == Unique::No { 1 } else { 3 };
        assert_eq!(pair.status(B).len(), left, "{unique:?}");
    }
}

#[test]
fn new_attempt_repeats_nothing_of_the_one_before_it() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    // IKE_AUTH { .. } --> lost
    let stale = pair.expect(A, IKE_AUTH, REQUEST).info().unwrap().spi_i;
    pair.command(A, Command::RemovePeer { peer: Arc::from("b") }).unwrap();
    pair.command(A, Command::AddPeer(Arc::new(peers::site_a()))).unwrap();
    pair.initiate(A);
    pair.pass(A, IKE_SA_INIT, REQUEST);
    pair.pass(B, IKE_SA_INIT, RESPONSE);
    pair.exchange(A, IKE_AUTH);
    pair.hold = false;
    let repeated = pair.run_until(Duration::from_secs(60), |pair| {
        pair.in_flight(A).iter().any(|info| info.spi_i == stale)
    });
    assert_that(&pair, !repeated, "nothing more of the old attempt");
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn answer_to_a_stale_attempt_is_followed_by_its_delete() {
    let mut pair = pair_of(peers::site_a(), peers::site_b());
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    // IKE_AUTH { .. } -->, and the answer takes its time.
    pair.pass(A, IKE_AUTH, REQUEST);
    let answer = pair.expect(B, IKE_AUTH, RESPONSE);
    pair.command(A, Command::RemovePeer { peer: Arc::from("b") }).unwrap();
    pair.command(A, Command::AddPeer(Arc::new(peers::site_a()))).unwrap();
    pair.initiate(A);
    // Between them, hints about packets of B's that meet no SA.
    for exchange in [IKE_SA_INIT, IKE_AUTH] {
        for side in [A, B] {
            let flying = pair.in_flight(side);
            let at = flying.iter().position(|info| info.exchange == exchange).unwrap();
            let held = pair.take(side, at).unwrap();
            pair.deliver(held);
        }
    }
    pair.deliver(answer);
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn one_identity_has_no_more_than_so_many_ike_sas() {
    let mut b = peers::site_b();
    b.address = PeerAddress::Any;
    let mut stage = Stage::responder_with(1, b);
    for seed in 0..40 {
        stage.puppet = ipsecd::testing::Puppet::initiator(seed);
        let payloads = stage.puppet.init_payloads();
        let request = stage.puppet.init_request(payloads);
        let response = stage.give(&request).remove(0);
        stage.puppet.read_init_response(&response).unwrap();
        let payloads = stage.puppet.auth_payloads().unwrap();
        let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
        assert!(!stage.give(&request).is_empty());
        // Strangers may begin so many at a time.
        let _ = stage.pass_time(Duration::from_millis(20));
        let status = stage.endpoint.status(stage.clock.now());
        let established = status.iter().filter(|sa| sa.state == "ESTABLISHED").count();
        assert!(established <= 16, "{established} after {seed}");
        assert_eq!(stage.violations, []);
    }
    let limit = CloseReason::Limit("IKE_SAs of one peer");
    let ended = stage
        .events
        .iter()
        .filter(|event| matches!(event, Event::IkeSaClosed { reason, .. } if *reason == limit));
    assert_eq!(ended.count(), 40 - 16);
}

#[test]
fn peer_that_asks_for_too_much_work_with_keys_is_put_off() {
    let mut stage = Stage::established_responder(1).unwrap();
    // A key exchange by MODP-8192 with each, a quarter of a second on a slow core: four at once, then one in five seconds.
    let ask = |stage: &mut Stage| {
        let _ = stage.puppet.fresh_esp_spi();
        let mut payloads = stage.puppet.child_offer();
        payloads.push(stage.puppet.fresh_nonce());
        payloads.push(Payload::Ke(Ke { group: KeId::MODP_8192, data: vec![2; 1024] }));
        let request = stage.puppet.request(CREATE_CHILD_SA, &payloads).unwrap();
        let answer = stage.give(&request).remove(0);
        let answer = stage.puppet.open(&answer).unwrap();
        !answer.iter().any(|payload| {
            matches!(payload, Payload::Notify(notify) if notify.notify_type == NotifyType::TEMPORARY_FAILURE)
        })
    };
    let taken: Vec<bool> = (0..6).map(|_| ask(&mut stage)).collect();
    assert_eq!(taken, [true, true, true, true, false, false]);
    // It asks whether its answers have arrived.
    for asked in stage.pass_time(Duration::from_millis(100)) {
        let _ = stage.answer(&asked, &[]);
    }
    let _ = stage.pass_time(Duration::from_millis(4800));
    assert!(!ask(&mut stage));
    let _ = stage.pass_time(Duration::from_millis(200));
    assert!(ask(&mut stage));
    assert!(!ask(&mut stage));
    assert_eq!(stage.violations, []);
}

#[test]
fn refused_rekey_is_told_at_once_and_the_sa_stays() {
    let mut stage = Stage::established_initiator(1).unwrap();
    for ike in [false, true] {
        let peer = Arc::from("b");
        let sent = stage.command(if ike {
            Command::RekeyIke { peer }
        } else {
            Command::RekeyChildren { peer }
        });
        let request = sent.into_iter().find(|datagram| {
            MessageInfo::of(datagram).is_some_and(|info| info.exchange == CREATE_CHILD_SA)
        });
        let refusal = Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, []);
        let _ = stage.answer(&request.unwrap(), &[Payload::Notify(refusal)]);
        let told = stage.events.iter().any(|event| {
            matches!(event, Event::RekeyRefused { child, reason: CloseReason::NoProposal(_), .. }
                if child.is_none() == ike)
        });
        assert!(told, "{:?}", stage.events);
    }
    assert_eq!(stage.ike_sas(), 1);
    assert!(!stage.sad.is_empty());
}
