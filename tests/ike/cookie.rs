//! COOKIE (RFC 7296 §2.6), and the bounds on what strangers can make us keep.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use ipsecd::ipsec::Path;
use ipsecd::testing::{Puppet, Stage};
use ipsecd::wire::ike::header::IkeSpi;
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{KeId, NotifyType};
use ipsecd::wire::ike::payload::{Notify, Payload};

use crate::support::*;

/// A stranger's IKE_SA_INIT: its own SPI, from its own address.
fn stranger(request: &[u8], n: u32) -> (SocketAddr, Vec<u8>) {
    let mut request = request.to_vec();
    let spi = IkeSpi(0xffff_0000_0000_0000 | u64::from(n));
    request[..8].copy_from_slice(&spi.0.to_be_bytes());
    // Each from a prefix of its own.
    let [_, _, c, d] = n.to_be_bytes();
    (SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, c, d, 1)), 500), request)
}

fn cookie_of(datagram: &[u8]) -> Option<Notify> {
    let message = Message::parse(datagram).unwrap();
    message.payloads.into_iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == NotifyType::COOKIE).then_some(notify)
    })
}

/// Strangers come until the endpoint asks for cookies.
fn flood(stage: &mut Stage, request: &[u8]) -> u32 {
    for n in 0..20_000 {
        let (remote, request) = stranger(request, n);
        let path = Path { remote, ..stage.path };
        let sent = stage.give_from(path, &request);
        if sent.first().is_some_and(|answer| cookie_of(answer).is_some()) {
            return n;
        }
    }
    panic!("no cookie asked for after 20,000 half-open IKE SAs");
}

fn busy_responder() -> (Stage, Vec<u8>) {
    // Strangers look like a peer that may come from anywhere.
    let mut site = peers::site_b();
    site.address = ipsecd::ipsec::pad::PeerAddress::Any;
    let mut stage = Stage::responder_with(1, site);
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    flood(&mut stage, &request);
    (stage, request)
}

#[test]
fn busy_responder_asks_for_a_cookie_keeps_nothing_and_takes_the_right_one() {
    let (mut stage, request) = busy_responder();
    let before = stage.half_open();
    // IKE_SA_INIT { SA, KE, Ni } -->  <-- { N(COOKIE) }
    let sent = stage.give(&request);
    assert_eq!(sent.len(), 1);
    let cookie = cookie_of(&sent[0]).unwrap();
    assert!((1..=64).contains(&cookie.data.len()), "RFC 7296 §2.6: 1 to 64 octets");
    let message = Message::parse(&sent[0]).unwrap();
    assert_eq!(message.header.spi_r, IkeSpi(0), "RFC 7296 §2.6: the responder's SPI is zero");
    assert_eq!(stage.half_open(), before);

    // IKE_SA_INIT { N(COOKIE), SA, KE, Ni } -->  <-- { SA, KE, Nr }
    let mut payloads = vec![Payload::Notify(cookie)];
    payloads.extend(stage.puppet.init_payloads());
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request);
    stage.puppet.read_init_response(&response[0]).unwrap();
    let payloads = stage.puppet.auth_payloads().unwrap();
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    stage.give(&request);
    assert!(!stage.sad.is_empty(), "established through the flood");
}

#[test]
fn wrong_or_foreign_cookie_is_asked_for_again() {
    let (mut stage, request) = busy_responder();
    let sent = stage.give(&request);
    let good = cookie_of(&sent[0]).unwrap();
    let before = stage.half_open();
    let mut bad = good.clone();
    bad.data[0] ^= 1;
    let elsewhere = Path { remote: "203.0.113.5:500".parse().unwrap(), ..stage.path };
    for (cookie, path) in [(bad, stage.path), (good, elsewhere)] {
        let mut payloads = vec![Payload::Notify(cookie)];
        payloads.extend(stage.puppet.init_payloads());
        let request = stage.puppet.init_request(payloads);
        let sent = stage.give_from(path, &request);
        assert!(cookie_of(&sent[0]).is_some());
        assert_eq!(stage.half_open(), before);
    }
}

#[test]
fn initiator_returns_the_cookie_with_the_same_nonce_and_ke() {
    let (mut stage, request) = Stage::initiator(1);
    let first = Message::parse(&request).unwrap();
    let header = |stage: &Stage| {
        let mut header = stage.puppet.header(IKE_SA_INIT, true, 0);
        (header.spi_i, header.spi_r) = (first.header.spi_i, IkeSpi(0));
        header
    };
    let cookie = Payload::Notify(Notify::new(NotifyType::COOKIE, [7; 20]));
    let answer = Message { header: header(&stage), payloads: vec![cookie.clone()] }.emit();
    let sent = stage.give(&answer);
    let second = Message::parse(&sent[0]).unwrap();
    // RFC 7296 §2.6: the cookie is the first payload, and all others are unchanged.
    assert_eq!(second.payloads[0], cookie);
    assert_eq!(second.payloads[1..], first.payloads);
    assert_eq!(second.header.message_id, 0);
    assert_eq!(second.header.spi_r, IkeSpi(0));

    // And the exchange goes on.
    stage.puppet.read_init_request(&sent[0]).unwrap();
    let response = stage.puppet.init_response().unwrap();
    assert_eq!(stage.give(&response).len(), 1, "IKE_AUTH");
}

#[test]
fn endless_cookies_end_the_attempt_or_are_ignored_but_are_not_followed_for_ever() {
    let (mut stage, request) = Stage::initiator(1);
    let first = Message::parse(&request).unwrap();
    let mut sent = 0;
    for n in 0..1000_u32 {
        let mut header = stage.puppet.header(IKE_SA_INIT, true, 0);
        (header.spi_i, header.spi_r) = (first.header.spi_i, IkeSpi(0));
        let cookie = Payload::Notify(Notify::new(NotifyType::COOKIE, n.to_be_bytes()));
        sent += stage.give(&Message { header, payloads: vec![cookie] }.emit()).len();
    }
    assert!(sent < 50, "{sent} requests for a thousand cookies");
}

#[test]
fn endless_invalid_ke_is_not_followed_for_ever() {
    let (mut stage, request) = Stage::initiator(1);
    let first = Message::parse(&request).unwrap();
    let mut sent = 0;
    for _ in 0..1000 {
        let mut header = stage.puppet.header(IKE_SA_INIT, true, 0);
        (header.spi_i, header.spi_r) = (first.header.spi_i, IkeSpi(0));
        let group = KeId::CURVE25519.0.to_be_bytes();
        let notify = Payload::Notify(Notify::new(NotifyType::INVALID_KE_PAYLOAD, group));
        sent += stage.give(&Message { header, payloads: vec![notify] }.emit()).len();
    }
    assert!(sent < 20, "{sent} requests for a thousand INVALID_KE_PAYLOAD");
}

#[test]
fn half_open_ike_sas_are_bounded_and_end() {
    let (mut stage, request) = busy_responder();
    let sas = stage.half_open();
    for n in 20_000..30_000 {
        let (remote, request) = stranger(&request, n);
        let path = Path { remote, ..stage.path };
        stage.give_from(path, &request);
    }
    assert!(stage.half_open() <= sas + 1, "{} half-open after {sas}", stage.half_open());
    stage.pass_time(Duration::from_secs(300));
    assert_eq!(stage.half_open(), 0, "half-open IKE SAs end");
}

#[test]
fn half_open_ike_sas_stay_bounded_even_with_cookies_returned() {
    let (mut stage, _) = busy_responder();
    let mut most = 0;
    for seed in 0..3000 {
        let mut puppet = Puppet::initiator(1000 + seed);
        let payloads = puppet.init_payloads();
        let request = puppet.init_request(payloads);
        let sent = stage.give(&request);
        if let Some(cookie) = sent.first().and_then(|answer| cookie_of(answer)) {
            let mut payloads = vec![Payload::Notify(cookie)];
            payloads.extend(puppet.init_payloads());
            let request = puppet.init_request(payloads);
            stage.give(&request);
        }
        most = most.max(stage.half_open());
    }
    assert!(most < 2500, "{most} half-open IKE SAs");
}
