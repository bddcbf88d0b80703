//! Demands of RFC 7296 that are small, and that no test of an exchange shows by the way.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use ipsecd::ike::Command;
use ipsecd::ipsec::{Encap, Notice, Path, TrafficSelector};
use ipsecd::testing::{MessageInfo, Stage, State};
use ipsecd::wire::ike::header::IkeSpi;
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{KeId, NotifyType, ProtocolId};
use ipsecd::wire::ike::payload::{Delete, Notify, Payload, Ts, Vendor};

use crate::support::*;

#[track_caller]
fn one(sent: Vec<Vec<u8>>) -> Vec<u8> {
    let [only] = <[_; 1]>::try_from(sent).unwrap_or_else(|sent| panic!("{} sent", sent.len()));
    only
}

fn sa_payload(datagram: &[u8]) -> Payload {
    let payloads = Message::parse(datagram).unwrap().payloads;
    payloads.into_iter().find(|payload| matches!(payload, Payload::Sa(_))).unwrap()
}

/// Both exchanges, each request of the puppet changed by `change`.
fn establish(stage: &mut Stage, change: impl Fn(&mut Vec<Payload>)) {
    let mut payloads = stage.puppet.init_payloads();
    change(&mut payloads);
    let request = stage.puppet.init_request(payloads);
    let response = one(stage.give(&request));
    stage.puppet.read_init_response(&response).unwrap();
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    change(&mut payloads);
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let response = one(stage.give(&request));
    stage.puppet.open(&response).unwrap();
    assert_eq!((stage.ike_sas(), stage.sad.all_inbound().count()), (1, 1));
}

#[test]
fn after_invalid_ke_payload_all_suites_are_offered_again() {
    // RFC 7296 §1.2: else an attacker could have a weaker one chosen.
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.ike.proposals[0].ke = vec![KeId::CURVE25519, KeId::ECP_256];
    let mut second = peers::ike_proposal();
    second.ke = vec![KeId::ECP_256, KeId::MODP_2048];
    a.ike.proposals.push(second);
    b.ike.proposals[0].ke = vec![KeId::ECP_256];
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);
    let first = pair.expect(A, IKE_SA_INIT, REQUEST);
    let offered = sa_payload(first.datagram());
    pair.deliver(first);
    // <-- IKE_SA_INIT { N(INVALID_KE_PAYLOAD) }
    pair.pass(B, IKE_SA_INIT, RESPONSE);
    let again = pair.expect(A, IKE_SA_INIT, REQUEST);
    assert_eq!(sa_payload(again.datagram()), offered);
}

#[test]
fn half_closed_child_sa_keeps_its_spi_until_its_delete_is_answered() {
    // RFC 7296 §1.4.1.
    let mut pair = established();
    let old = only_child(&pair, A).spi_inbound;
    pair.hold = true;
    pair.notice(A, Notice::Expire { spi: old, hard: true });
    for _ in 0..3 {
        let _lost = pair.expect(A, INFORMATIONAL, REQUEST);
        assert_eq!(pair.fire_next_timer(), Some(A));
        assert!(pair.node(A).sad.inbound(old).is_some());
        assert_eq!(pair.node(A).endpoint.spis_taken(), 1);
    }
    pair.exchange(A, INFORMATIONAL);
    pair.hold = false;
    pair.run_for(Duration::from_secs(10));
    assert!(pair.node(A).sad.inbound(old).is_none());
}

#[test]
fn messages_of_three_thousand_octets_are_taken() {
    // RFC 7296 §2.
    let mut stage = Stage::responder(1);
    let vendor = Payload::Vendor(Vendor { data: vec![7; 2800] });
    establish(&mut stage, |payloads| payloads.push(vendor.clone()));
    let request = stage.puppet.request(INFORMATIONAL, &[vendor]).unwrap();
    assert!(request.len() > 2800);
    let response = one(stage.give(&request));
    assert_eq!(stage.puppet.open(&response), Some(vec![]));
}

#[test]
fn payloads_may_come_in_any_order() {
    // RFC 7296 §2.5.
    establish(&mut Stage::responder(1), |payloads| payloads.reverse());
    establish(&mut Stage::responder(2), |payloads| payloads.rotate_left(1));
}

#[test]
fn vendor_ids_that_nobody_knows_change_nothing() {
    // RFC 7296 §3.12.
    let mut stage = Stage::responder(1);
    establish(&mut stage, |payloads| {
        for (at, data) in [(0, vec![]), (2, b"who?".to_vec()), (1, vec![0xff; 300])] {
            payloads.insert(at, Payload::Vendor(Vendor { data }));
        }
    });
    let vendor = Payload::Vendor(Vendor { data: b"who?".to_vec() });
    let request = stage.puppet.request(INFORMATIONAL, &[vendor]).unwrap();
    let response = one(stage.give(&request));
    assert_eq!(stage.puppet.open(&response), Some(vec![]));
}

#[test]
fn cookie_has_one_to_64_octets() {
    // RFC 7296 §2.6.
    for (len, good) in [(0, false), (1, true), (64, true), (65, false), (2000, false)] {
        let (mut stage, request) = Stage::initiator(1);
        let mut header = stage.puppet.header(IKE_SA_INIT, true, 0);
        header.spi_i = Message::parse(&request).unwrap().header.spi_i;
        header.spi_r = IkeSpi(0);
        let cookie = Payload::Notify(Notify::new(NotifyType::COOKIE, vec![7; len]));
        let sent = stage.give(&Message { header, payloads: vec![cookie.clone()] }.emit());
        assert_eq!(sent.len(), usize::from(good), "a COOKIE of {len} octets");
        if let Some(again) = sent.first() {
            assert_eq!(Message::parse(again).unwrap().payloads[0], cookie);
        }
    }
}

#[test]
fn delete_is_the_last_request_on_the_ike_sa_that_was_replaced() {
    // RFC 7296 §2.8.
    for side in [A, B] {
        let mut pair = established();
        let old = pair.ike_sas(A);
        pair.hold = true;
        pair.rekey_ike(side).unwrap();
        // What is wanted meanwhile waits, and goes over the new one.
        pair.rekey_children(side).unwrap();
        pair.exchange(side, CREATE_CHILD_SA);
        let other = side.other();
        let _crossing = pair.rekey_children(other);
        let mut last = None;
        for from in [side, other] {
            for info in pair.in_flight(from) {
                if old.contains(&(info.spi_i, info.spi_r)) && !info.response {
                    assert_eq!((from, info.exchange, last), (side, INFORMATIONAL, None));
                    last = Some(info.message_id);
                }
            }
        }
        assert!(last.is_some(), "{}", pair.trace);
        pair.hold = false;
        let highest = last.unwrap();
        pair.run_until(Duration::from_secs(60), |pair| {
            let flying = [A, B].into_iter().flat_map(|side| pair.in_flight(side));
            let mut of_old = flying.filter(|info| old.contains(&(info.spi_i, info.spi_r)));
            assert!(of_old.all(|info| info.response || info.message_id <= highest));
            false
        });
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
    }
}

fn host(net: u8, last: u8) -> TrafficSelector {
    let addr = Ipv4Addr::new(10, net, 0, last);
    peers::range(addr, addr)
}

fn holds(all: &[TrafficSelector], one: &TrafficSelector) -> bool {
    all.iter().any(|ts| ts.start_addr <= one.start_addr && one.end_addr <= ts.end_addr)
}

#[test]
fn narrowing_keeps_the_selectors_that_the_initiator_names_first() {
    // RFC 7296 §2.9: those of the packet that wanted the CHILD_SA.
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.children[0].ts_local = vec![host(1, 5), peers::subnet(1)];
    a.children[0].ts_peer = vec![host(2, 9), peers::subnet(2)];
    let half = |net| peers::range(Ipv4Addr::new(10, net, 0, 0), Ipv4Addr::new(10, net, 0, 127));
    b.children[0].ts_local = vec![half(2)];
    b.children[0].ts_peer = vec![half(1)];
    let pair = established_of(1, a, b);
    let child = only_child(&pair, A);
    assert!(holds(&child.ts_local, &host(1, 5)), "{:?}", child.ts_local);
    assert!(holds(&child.ts_peer, &host(2, 9)), "{:?}", child.ts_peer);
    assert!(!holds(&child.ts_peer, &peers::subnet(2)), "it was narrowed");
}

#[test]
fn rekey_offers_no_less_than_the_selectors_in_use() {
    // RFC 7296 §2.9.2.
    let mut stage = Stage::established_initiator(1).unwrap();
    let (here, there) = {
        let sa = stage.sad.all_inbound().next().unwrap();
        (sa.ts_local.to_vec(), sa.ts_peer.to_vec())
    };
    let request = one(stage.command(Command::RekeyChildren { peer: Arc::from("b") }));
    let payloads = stage.puppet.open(&request).unwrap();
    let offers = |wanted: &[TrafficSelector], ts: &Ts| {
        wanted.iter().all(|wanted| holds(&ts.selectors, wanted))
    };
    assert!(payloads.iter().any(|p| matches!(p, Payload::TsI(ts) if offers(&here, ts))));
    assert!(payloads.iter().any(|p| matches!(p, Payload::TsR(ts) if offers(&there, ts))));
}

#[test]
fn rekey_names_the_child_sa_by_the_spi_that_its_sender_receives_on() {
    // RFC 7296 §1.3.3.
    let mut stage = Stage::established_initiator(1).unwrap();
    let spi = stage.sad.all_inbound().next().unwrap().spi;
    let request = one(stage.command(Command::RekeyChildren { peer: Arc::from("b") }));
    let rekey = Notify::for_sa(ProtocolId::ESP, spi.to_be_bytes(), NotifyType::REKEY_SA);
    assert!(stage.puppet.open(&request).unwrap().contains(&Payload::Notify(rekey)));
}

/// What the endpoint answers to a request of the puppet while one of its own is under way.
fn answered(stage: &mut Stage, exchange: ExchangeType, payloads: &[Payload]) -> Vec<Payload> {
    let request = stage.puppet.request(exchange, payloads).unwrap();
    let sent = stage.give(&request);
    assert!(MessageInfo::of(&sent[0]).unwrap().response);
    stage.puppet.open(&sent[0]).unwrap()
}

fn rekey_ike(stage: &Stage) -> Vec<Payload> {
    let mut payloads = stage.puppet.init_payloads();
    for payload in &mut payloads {
        if let Payload::Sa(sa) = payload {
            sa.proposals[0].spi = vec![9; 8];
        }
    }
    payloads
}

fn create_child(stage: &mut Stage) -> Vec<Payload> {
    stage.puppet.fresh_esp_spi();
    let mut payloads = vec![stage.puppet.fresh_nonce()];
    payloads.extend(stage.puppet.child_offer());
    payloads
}

fn rekey_child(stage: &mut Stage) -> Vec<Payload> {
    let old = stage.puppet.esp_spi.to_be_bytes();
    let mut payloads = create_child(stage);
    let rekey = Notify::for_sa(ProtocolId::ESP, old, NotifyType::REKEY_SA);
    payloads.insert(0, Payload::Notify(rekey));
    payloads
}

fn put_off() -> Vec<Payload> {
    vec![Payload::Notify(Notify::new(NotifyType::TEMPORARY_FAILURE, []))]
}

#[test]
fn what_collides_with_a_change_of_a_child_sa_is_put_off_or_answered_as_usual() {
    let ours = |stage: &Stage| stage.sad.all_inbound().next().unwrap().spi;
    // RFC 7296 §2.25.1: a rekey of the IKE SA while we rekey or close a CHILD_SA.
    let (mut stage, _) = State::ChildRekeySent.stage(1).unwrap();
    let request = rekey_ike(&stage);
    assert_eq!(answered(&mut stage, CREATE_CHILD_SA, &request), put_off());
    // A DELETE of the CHILD_SA that we are rekeying is answered with ours.
    let expected = Payload::Delete(Delete::esp([ours(&stage).to_be_bytes()]));
    let delete = [Payload::Delete(Delete::esp([stage.puppet.esp_spi.to_be_bytes()]))];
    assert_eq!(answered(&mut stage, INFORMATIONAL, &delete), [expected]);

    let mut stage = Stage::established_responder(1).unwrap();
    let spi = ours(&stage);
    stage.endpoint.handle_notice(stage.clock.now(), Notice::Expire { spi, hard: true });
    let delete = [Payload::Delete(Delete::esp([stage.puppet.esp_spi.to_be_bytes()]))];
    let request = rekey_ike(&stage);
    // Its DELETE is still to be taken, so the answer is not the first that comes.
    let own = stage.endpoint.poll_transmit().unwrap();
    assert!(!MessageInfo::of(&own.payload).unwrap().response);
    assert_eq!(answered(&mut stage, CREATE_CHILD_SA, &request), put_off());
    let request = {
        let old = stage.puppet.esp_spi;
        let request = rekey_child(&mut stage);
        stage.puppet.esp_spi = old;
        request
    };
    assert_eq!(answered(&mut stage, CREATE_CHILD_SA, &request), put_off());
    // RFC 7296 §1.4.1: deletes that cross are answered without a Delete payload.
    assert_eq!(answered(&mut stage, INFORMATIONAL, &delete), []);
}

#[test]
fn what_collides_with_a_change_of_the_ike_sa_is_put_off_or_answered_as_usual() {
    // RFC 7296 §2.25.2: a CHILD_SA to be made or rekeyed while we rekey or close the IKE SA.
    for state in [State::IkeRekeySent, State::DeleteSent] {
        let (mut stage, _) = state.stage(1).unwrap();
        let request = create_child(&mut stage);
        assert_eq!(answered(&mut stage, CREATE_CHILD_SA, &request), put_off(), "{state:?}");
    }
    let (mut stage, _) = State::IkeRekeySent.stage(1).unwrap();
    let request = rekey_child(&mut stage);
    assert_eq!(answered(&mut stage, CREATE_CHILD_SA, &request), put_off());

    // A rekey of the IKE SA that we are closing.
    let (mut stage, _) = State::DeleteSent.stage(1).unwrap();
    let request = rekey_ike(&stage);
    assert_eq!(answered(&mut stage, CREATE_CHILD_SA, &request), put_off());
    // And of one that we are rekeying: as usual, with a responder's SA, KE and nonce.
    let (mut stage, _) = State::IkeRekeySent.stage(1).unwrap();
    let request = rekey_ike(&stage);
    let answer = answered(&mut stage, CREATE_CHILD_SA, &request);
    assert_eq!(answer.len(), 3, "{answer:?}");

    // A CHILD_SA closed while we rekey the IKE SA: as usual, with a Delete payload.
    let (mut stage, _) = State::IkeRekeySent.stage(1).unwrap();
    let ours = stage.sad.all_inbound().next().unwrap().spi;
    let delete = [Payload::Delete(Delete::esp([stage.puppet.esp_spi.to_be_bytes()]))];
    let expected = Payload::Delete(Delete::esp([ours.to_be_bytes()]));
    assert_eq!(answered(&mut stage, INFORMATIONAL, &delete), [expected]);
    // The IKE SA closed while we rekey or close it: as usual, and that is its end.
    for state in [State::IkeRekeySent, State::DeleteSent] {
        let (mut stage, _) = state.stage(1).unwrap();
        assert_eq!(answered(&mut stage, INFORMATIONAL, &[Payload::Delete(Delete::ike())]), []);
        stage.pass_time(Duration::from_secs(120));
        assert_eq!((stage.ike_sas(), stage.violations.as_slice()), (0, &[][..]), "{state:?}");
    }
}

#[test]
fn higher_minor_version_is_ignored() {
    // RFC 7296 §2.5.
    let mut stage = Stage::established_responder(1).unwrap();
    let mut header = stage.puppet.header(INFORMATIONAL, false, stage.puppet.message_id);
    header.minor = 15;
    let request = stage.puppet.seal_with(header, &[]).unwrap();
    let response = one(stage.give(&request));
    assert_eq!(stage.puppet.open(&response), Some(vec![]));
}

#[test]
fn nonces_are_long_enough_and_neither_they_nor_public_values_come_twice() {
    // RFC 7296 §2.10, §3.9 and RFC 6989 §4.1: as both roles, in every exchange that has them.
    let mut seen = BTreeSet::new();
    let mut count = 0;
    let mut look = |payloads: &[Payload]| {
        for payload in payloads {
            let value = if let Payload::Nonce(nonce) = payload {
                // Half of the 64 octets that are the preferred key size of PRF_HMAC_SHA2_512.
                assert!(nonce.data.len() >= 32, "{} octets", nonce.data.len());
                &nonce.data
            } else if let Payload::Ke(ke) = payload {
                &ke.data
            } else {
                continue;
            };
            assert!(seen.insert(value.clone()), "{payload:?} has been there before");
            count += 1;
        }
    };
    let mut stage = Stage::responder(1);
    for spi in 1..=20 {
        // New IKE SAs from the same peer, with the same values of its own.
        stage.puppet.spi_i = IkeSpi(spi);
        let payloads = stage.puppet.init_payloads();
        let request = stage.puppet.init_request(payloads);
        look(&Message::parse(&one(stage.give(&request))).unwrap().payloads);
    }
    let commands: [fn(Arc<str>) -> Command; 2] =
        [|peer| Command::RekeyIke { peer }, |peer| Command::RekeyChildren { peer }];
    for (seed, command) in (2..).zip(commands) {
        let mut stage = Stage::established_initiator(seed).unwrap();
        let mut request = one(stage.command(command(Arc::from("b"))));
        for _ in 0..20 {
            look(&stage.puppet.open(&request).unwrap());
            let put_off = Payload::Notify(Notify::new(NotifyType::TEMPORARY_FAILURE, []));
            let mut sent = stage.answer(&request, &[put_off]);
            while sent.is_empty() {
                sent = stage.pass_time(Duration::from_millis(100));
            }
            request = one(sent);
        }
    }
    assert!(count > 90, "{count} values");
}

#[test]
fn answers_go_back_along_the_path_of_the_request() {
    // RFC 7296 §2.11: from the address and port where it arrived, to those where it came from.
    let mut stage = Stage::responder(1);
    let path = Path {
        local: "192.0.2.77:4500".parse().unwrap(),
        remote: "192.0.2.1:61000".parse().unwrap(),
        encap: Encap::Udp,
    };
    let answered = |stage: &mut Stage, path: Path, request: &[u8]| {
        stage.endpoint.handle_datagram(stage.clock.now(), path, request);
        let answer = stage.endpoint.poll_transmit().unwrap();
        assert_eq!(answer.path, path);
        answer.payload
    };
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = answered(&mut stage, path, &request);
    stage.puppet.read_init_response(&response).unwrap();
    let payloads = stage.puppet.auth_payloads().unwrap();
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    // It has moved in the meantime, as behind a NAT.
    let moved = Path { remote: "192.0.2.1:61001".parse().unwrap(), ..path };
    let response = answered(&mut stage, moved, &request);
    assert!(MessageInfo::of(&response).unwrap().response);
    // A repetition is answered to wherever it comes from.
    let again = Path { local: "192.0.2.78:4500".parse().unwrap(), ..path };
    assert_eq!(answered(&mut stage, again, &request), response);
}
