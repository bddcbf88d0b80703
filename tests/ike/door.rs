//! What strangers can make us do: how much we say to them, how much we keep, and that others get through all the same.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use ipsecd::ipsec::Path;
use ipsecd::ipsec::pad::PeerAddress;
use ipsecd::testing::{Puppet, Stage};
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::NotifyType;
use ipsecd::wire::ike::payload::{Notify, Payload};

use crate::support::*;

/// Takes anybody: no address is known.
fn responder() -> Stage {
    let mut site = peers::site_b();
    site.address = PeerAddress::Any;
    Stage::responder_with(1, site)
}

fn from(stage: &Stage, ip: [u8; 4]) -> Path {
    Path { remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), 500), ..stage.path }
}

fn notify_of(datagram: &[u8], wanted: NotifyType) -> Option<Notify> {
    let message = Message::parse(datagram).unwrap();
    message.payloads.into_iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == wanted).then_some(notify)
    })
}

fn cookie_in(answers: &[Vec<u8>]) -> Option<Notify> {
    answers.first().and_then(|answer| notify_of(answer, NotifyType::COOKIE))
}

/// A new initiator's request, with a cookie or without.
fn request_of(puppet: &mut Puppet, cookie: Option<Notify>) -> Vec<u8> {
    let mut payloads: Vec<_> = cookie.map(Payload::Notify).into_iter().collect();
    payloads.extend(puppet.init_payloads());
    puppet.init_request(payloads)
}

/// Begins an IKE SA, and returns the cookie if there is one. Whether it was answered.
fn begin(stage: &mut Stage, path: Path, seed: u64) -> bool {
    let mut puppet = Puppet::initiator(seed);
    let request = request_of(&mut puppet, None);
    let mut answers = stage.give_from(path, &request);
    if let Some(cookie) = cookie_in(&answers) {
        assert!(answers[0].len() <= request.len());
        answers = stage.give_from(path, &request_of(&mut puppet, Some(cookie)));
    }
    answers.first().is_some_and(|answer| puppet.read_init_response(answer).is_some())
}

#[test]
fn prefix_that_begins_much_is_asked_for_cookies_and_others_are_not() {
    let mut stage = responder();
    let mut asked = 0;
    for n in 0..40_u8 {
        let mut puppet = Puppet::initiator(100 + u64::from(n));
        let path = from(&stage, [203, 0, 113, n]);
        let answers = stage.give_from(path, &request_of(&mut puppet, None));
        asked += usize::from(cookie_in(&answers).is_some());
    }
    assert_eq!((stage.half_open(), asked), (16, 24));
    let mut puppet = Puppet::initiator(7);
    let elsewhere = from(&stage, [203, 0, 114, 1]);
    assert!(cookie_in(&stage.give_from(elsewhere, &request_of(&mut puppet, None))).is_none());
    assert_eq!(stage.half_open(), 17);
}

#[test]
fn flood_of_a_16_that_returns_cookies_is_bounded_and_others_get_through() {
    let mut stage = responder();
    let (mut most, mut begun, mut seed) = (0, 0, 1000);
    for second in 0..8 {
        for n in 0..1000_u32 {
            seed += 1;
            let [_, _, c, d] = (n * 7919 + second).to_be_bytes();
            let path = from(&stage, [100, 64, c, d]);
            begun += u32::from(begin(&mut stage, path, seed));
            most = most.max(stage.half_open());
        }
        // Another, from where nobody is known; one of some, since a prefix may share its bucket with one of the flood's.
        let gets_through = (1..=8).any(|net| {
            seed += 1;
            let path = from(&stage, [203, net, 113, 1]);
            begin(&mut stage, path, seed)
        });
        assert!(gets_through, "after {second} s");
        stage.pass_time(Duration::from_secs(1));
    }
    assert!(begun > 500, "only {begun}");
    assert!(begun < 8 * 600 + 500, "{begun}: more work with keys than is meant");
    assert!(most <= 2048, "{most} half-open");
    stage.pass_time(Duration::from_secs(60));
    assert_eq!(stage.half_open(), 0);
}

#[test]
fn oldest_half_open_ike_sa_makes_room_for_another() {
    let mut stage = responder();
    let first = from(&stage, [203, 0, 113, 1]);
    let mut puppet = Puppet::initiator(1);
    let request = request_of(&mut puppet, None);
    assert_eq!(stage.give_from(first, &request).len(), 1);
    // So slowly that there is no want of anything but room.
    let mut n = 0_u32;
    while n < 4000 {
        for _ in 0..400 {
            n += 1;
            let [_, _, c, d] = n.to_be_bytes();
            let path = from(&stage, [100, c, d, 1]);
            begin(&mut stage, path, 10_000 + u64::from(n));
        }
        stage.pass_time(Duration::from_secs(1));
    }
    assert_eq!(stage.half_open(), 2048);
    // Of the first nothing is left: its request is one from nobody.
    let answers = stage.give_from(first, &request);
    assert!(cookie_in(&answers).is_some());
}

#[test]
fn cookie_is_bound_to_the_nonce_the_spi_and_its_length() {
    let mut stage = responder();
    for n in 0..40_u8 {
        let path = from(&stage, [100, 64, n, 1]);
        begin(&mut stage, path, 100 + u64::from(n));
    }
    let path = from(&stage, [203, 0, 113, 1]);
    let mut puppet = Puppet::initiator(7);
    let cookie = cookie_in(&stage.give_from(path, &request_of(&mut puppet, None))).unwrap();
    let before = stage.half_open();
    let mut give = |puppet: &mut Puppet, cookie: Notify, change: fn(&mut Vec<Payload>)| {
        let mut payloads = vec![Payload::Notify(cookie)];
        payloads.extend(puppet.init_payloads());
        change(&mut payloads);
        let request = puppet.init_request(payloads);
        let answers = stage.give_from(path, &request);
        (cookie_in(&answers).is_some(), stage.half_open() - before)
    };
    // A changed nonce.
    let other_nonce = |payloads: &mut Vec<Payload>| {
        for payload in payloads {
            if let Payload::Nonce(nonce) = payload {
                nonce.data[0] ^= 1;
            }
        }
    };
    assert_eq!(give(&mut puppet, cookie.clone(), other_nonce), (true, 0));
    // Trailing bytes.
    let mut longer = cookie.clone();
    longer.data.push(0);
    assert_eq!(give(&mut puppet, longer, |_| ()), (true, 0));
    let mut shorter = cookie.clone();
    shorter.data.pop();
    assert_eq!(give(&mut puppet, shorter, |_| ()), (true, 0));
    // RFC 7296 §2.6: it comes first.
    let last = |payloads: &mut Vec<Payload>| payloads.rotate_left(1);
    assert_eq!(give(&mut puppet, cookie.clone(), last), (true, 0));
    // Another initiator's SPI.
    let mut other = Puppet::initiator(8);
    assert_eq!(give(&mut other, cookie.clone(), |_| ()), (true, 0));
    assert_eq!(give(&mut puppet, cookie, |_| ()), (false, 1));
}

#[test]
fn unprotected_error_is_never_longer_than_what_it_answers() {
    let mut stage = responder();
    let mut puppet = Puppet::initiator(7);
    let request = request_of(&mut puppet, None);
    // A header alone, of a version that is to come, and of an exchange of an unknown IKE SA.
    let version = |len: usize| {
        let mut datagram = request[..28].to_vec();
        datagram.resize(len, 0);
        datagram[17] = 0x30;
        datagram[24..28].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        datagram
    };
    let unknown = |len: usize| {
        let mut datagram = version(len);
        (datagram[17], datagram[18], datagram[15]) = (0x20, 37, 9);
        datagram
    };
    for (n, make) in [&version as &dyn Fn(usize) -> Vec<u8>, &unknown].into_iter().enumerate() {
        for len in 28..80 {
            let path = from(&stage, [203, 0, u8::try_from(len).unwrap(), u8::try_from(n).unwrap()]);
            let answers = stage.give_from(path, &make(len));
            assert_eq!(answers.len(), usize::from(len >= 36), "{n}: {len} bytes");
            assert!(answers.iter().all(|answer| answer.len() <= len));
        }
        stage.pass_time(Duration::from_secs(5));
    }
}

#[test]
fn errors_to_strangers_are_few_and_configured_addresses_have_their_own() {
    let mut stage = Stage::responder(1);
    let IpAddr::V4(known) = stage.path.remote.ip() else { panic!("the peer has an address") };
    let mut puppet = Puppet::initiator(7);
    let mut datagram = request_of(&mut puppet, None);
    datagram[17] = 0x30;
    let mut answered = |ip: [u8; 4]| {
        let path = Path { remote: (Ipv4Addr::from(ip), 500).into(), ..stage.path };
        !stage.give_from(path, &datagram).is_empty()
    };
    let one_prefix = (0..100).filter(|n| answered([203, 0, 113, *n])).count();
    assert_eq!(one_prefix, 10);
    let all = (0..=255).filter(|n| answered([100, 64, *n, 1])).count();
    assert!(all <= 40, "{all}");
    assert!(!answered([100, 65, 1, 1]), "no more for strangers");
    assert!((0..10).all(|_| answered(known.octets())), "the peer's share is its own");
}
