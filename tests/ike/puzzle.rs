//! Client puzzles (RFC 8019): given by a responder under attack, solved by an initiator.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use ipsecd::crypto::prf::Prf;
use ipsecd::ipsec::Path;
use ipsecd::ipsec::pad::PeerAddress;
use ipsecd::testing::{Puppet, Stage};
use ipsecd::wire::ike::header::IkeSpi;
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{NotifyType, PayloadType, PrfId};
use ipsecd::wire::ike::payload::{Notify, Payload};

use crate::support::*;

const PRF: PrfId = PrfId::PRF_HMAC_SHA2_256;

fn is_good(key: &[u8], cookie: &[u8], bits: u32) -> bool {
    let result = Prf::new(PRF).unwrap().compute(key, &[cookie]);
    let last: [u8; 8] = *result.expose().last_chunk().unwrap();
    u64::from_be_bytes(last).trailing_zeros() >= bits
}

fn solution(cookie: &[u8], bits: u32) -> Payload {
    let body = (0..u64::MAX)
        .map(u64::to_be_bytes)
        .filter(|key| is_good(key, cookie, bits))
        .take(4)
        .flatten()
        .collect();
    Payload::Unknown { payload_type: PayloadType::PS, critical: false, body }
}

fn notify_in(datagram: &[u8], wanted: NotifyType) -> Option<Notify> {
    Message::parse(datagram).unwrap().payloads.into_iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == wanted).then_some(notify)
    })
}

/// An initiator whose request is answered with these notifies.
fn asked(notifies: Vec<Notify>) -> (Stage, Vec<u8>, Vec<Vec<u8>>) {
    let (mut stage, request) = Stage::initiator(1);
    let first = Message::parse(&request).unwrap();
    let mut header = stage.puppet.header(IKE_SA_INIT, true, 0);
    (header.spi_i, header.spi_r) = (first.header.spi_i, IkeSpi(0));
    let payloads = notifies.into_iter().map(Payload::Notify).collect();
    let sent = stage.give(&Message { header, payloads }.emit());
    (stage, request, sent)
}

fn puzzle(difficulty: u8) -> Notify {
    let [high, low] = PRF.0.to_be_bytes();
    Notify::new(NotifyType::PUZZLE, [high, low, difficulty])
}

fn cookie() -> Notify {
    Notify::new(NotifyType::COOKIE, [7; 20])
}

#[test]
fn initiator_solves_the_puzzle_and_returns_the_solution_beside_the_cookie() {
    // <-- IKE_SA_INIT { N(COOKIE), N(PUZZLE) }
    let (mut stage, request, sent) = asked(vec![cookie(), puzzle(12)]);
    assert!(sent.is_empty(), "not before it is solved");
    // IKE_SA_INIT { N(COOKIE), PS, SA, KE, Ni } -->
    let sent = stage.pass_time(Duration::from_millis(900));
    assert_eq!(sent.len(), 1);
    let [first, second] = [&request, &sent[0]].map(|it| Message::parse(it).unwrap().payloads);
    assert_eq!(second[0], Payload::Notify(cookie()));
    let Payload::Unknown { payload_type: PayloadType::PS, critical: false, body } = &second[1]
    else {
        panic!("no solution: {second:?}");
    };
    assert_eq!(second[2..], first, "RFC 7296 §2.6: all else is unchanged");
    let keys: Vec<_> = body.chunks(body.len() / 4).collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| is_good(key, &[7; 20], 12)));
    // And the exchange goes on.
    stage.puppet.read_init_request(&sent[0]).unwrap();
    let response = stage.puppet.init_response().unwrap();
    assert_eq!(stage.give(&response).len(), 1, "IKE_AUTH");
}

#[test]
fn puzzle_that_leaves_the_difficulty_to_us_is_solved() {
    let (mut stage, _, _) = asked(vec![cookie(), puzzle(0)]);
    let sent = stage.pass_time(Duration::from_millis(900));
    let message = Message::parse(sent.first().expect("solved")).unwrap();
    assert_eq!(message.payloads[1].payload_type(), PayloadType::PS);
}

#[test]
fn puzzle_without_cookie_is_ignored() {
    let (mut stage, request, sent) = asked(vec![puzzle(12)]);
    assert!(sent.is_empty());
    // The request is sent again as it was.
    assert_eq!(stage.pass_time(Duration::from_secs(3)).first(), Some(&request));
}

#[test]
fn puzzle_that_is_too_hard_is_answered_with_the_cookie_alone() {
    let (_, request, sent) = asked(vec![cookie(), puzzle(40)]);
    let [first, second] = [&request, &sent[0]].map(|it| Message::parse(it).unwrap().payloads);
    assert_eq!((&second[0], &second[1..]), (&Payload::Notify(cookie()), &first[..]));
}

/// A responder with more half-open IKE SAs than puzzles are given from, and nothing left for strangers.
fn under_attack() -> Stage {
    let mut site = peers::site_b();
    site.address = PeerAddress::Any;
    let mut stage = Stage::responder_with(1, site);
    for n in 0..2000_u32 {
        let [_, _, c, d] = n.to_be_bytes();
        let ip = Ipv4Addr::new(50 + c, d, 1, 1);
        let path = Path { remote: SocketAddr::new(IpAddr::V4(ip), 500), ..stage.path };
        let mut puppet = Puppet::initiator(10_000 + u64::from(n));
        let payloads = puppet.init_payloads();
        let request = puppet.init_request(payloads);
        let answers = stage.give_from(path, &request);
        if let Some(cookie) = answers.first().and_then(|it| notify_in(it, NotifyType::COOKIE)) {
            let mut payloads = vec![Payload::Notify(cookie)];
            payloads.extend(puppet.init_payloads());
            let request = puppet.init_request(payloads);
            stage.give_from(path, &request);
        }
        if n == 450 {
            stage.pass_time(Duration::from_secs(1));
        }
    }
    assert!((512..1000).contains(&stage.half_open()), "{}", stage.half_open());
    stage
}

#[test]
fn responder_under_attack_gives_a_puzzle_and_favours_who_solves_it() {
    let mut stage = under_attack();
    // IKE_SA_INIT { SA, KE, Ni } -->  <-- { N(COOKIE), N(PUZZLE) }
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads.clone());
    let before = stage.half_open();
    let answers = stage.give(&request);
    assert!(answers[0].len() <= request.len());
    let cookie = notify_in(&answers[0], NotifyType::COOKIE).unwrap();
    let given = notify_in(&answers[0], NotifyType::PUZZLE).expect("a puzzle");
    let [high, low, bits] = given.data[..] else { panic!("{given:?}") };
    assert_eq!(PrfId(u16::from_be_bytes([high, low])), PRF);
    assert!((8..=14).contains(&bits), "{bits} bits");

    let mut give = |solution: Option<Payload>| {
        let mut all = vec![Payload::Notify(cookie.clone())];
        all.extend(solution);
        all.extend(payloads.clone());
        let request = stage.puppet.init_request(all);
        let answers = stage.give(&request);
        let began = answers.first().is_some_and(|it| stage.puppet.read_init_response(it).is_some());
        (began, stage.half_open() - before)
    };
    // Without a solution, with a wrong one, and with one key four times.
    let wrong = solution(b"another cookie", bits.into());
    let Payload::Unknown { body, .. } = solution(&cookie.data, bits.into()) else { panic!() };
    let again = body[..8].repeat(4);
    let again = Payload::Unknown { payload_type: PayloadType::PS, critical: false, body: again };
    for refused in [None, Some(wrong), Some(again)] {
        assert_eq!(give(refused), (false, 0));
    }
    // IKE_SA_INIT { N(COOKIE), PS, SA, KE, Ni } -->  <-- { SA, KE, Nr }
    assert_eq!(give(Some(solution(&cookie.data, bits.into()))), (true, 1));
    let payloads = stage.puppet.auth_payloads().unwrap();
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    stage.give(&request);
    assert!(!stage.sad.is_empty(), "AUTH covers the request with its solution");
}
