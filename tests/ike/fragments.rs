//! Messages in fragments (RFC 7383).

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipsecd::ike::{Command, Endpoint, EndpointConfig, Env};
use ipsecd::ipsec::pad::{Fragments, Peer};
use ipsecd::testing::{FixedRandom, Puppet, Stage};
use ipsecd::wire::ike::header::Header;
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{NotifyType, PayloadType};
use ipsecd::wire::ike::payload::{Notify, Payload, Vendor};

use crate::support::*;

/// IP and UDP headers of IPv4.
const IP_UDP: usize = 28;

fn with_size(size: u16) -> (Peer, Peer) {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    a.ike.fragmentation.size = size;
    b.ike.fragmentation.size = size;
    (a, b)
}

fn with_fragments(of_a: Fragments, of_b: Fragments) -> Pair {
    let (mut a, mut b) = with_size(200);
    a.ike.fragmentation.fragments = of_a;
    b.ike.fragmentation.fragments = of_b;
    pair_of(a, b)
}

/// Fragment Number and Total Fragments.
fn numbers(datagram: &[u8]) -> Option<(u16, u16)> {
    match Message::parse(datagram).unwrap().payloads.last() {
        Some(Payload::Skf(skf)) => Some((skf.number, skf.total)),
        _ => None,
    }
}

/// How many datagrams IKE_AUTH takes each way.
fn auth_datagrams(mut pair: Pair) -> [usize; 2] {
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    let requests = pair.in_flight(A).len();
    for _ in 0..requests {
        pair.pass(A, IKE_AUTH, REQUEST);
    }
    let responses = pair.in_flight(B).len();
    for _ in 0..responses {
        pair.pass(B, IKE_AUTH, RESPONSE);
    }
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
    [requests, responses]
}

fn padding(len: usize) -> Payload {
    Payload::Vendor(Vendor { data: vec![0xaa; len] })
}

#[test]
fn message_that_is_too_long_goes_in_fragments_both_ways() {
    let both = with_fragments(Fragments::Yes, Fragments::Yes);
    let [requests, responses] = auth_datagrams(both);
    assert!(requests > 1 && responses > 1, "{requests} and {responses}");
    let (a, b) = with_size(1280);
    assert_eq!(auth_datagrams(pair_of(a, b)), [1, 1], "short ones go whole");
}

#[test]
fn nobody_sends_fragments_unless_both_take_them() {
    for (a, b) in [(Fragments::No, Fragments::Yes), (Fragments::Yes, Fragments::No)] {
        assert_eq!(auth_datagrams(with_fragments(a, b)), [1, 1], "{a:?} {b:?}");
    }
}

#[test]
fn who_accepts_fragments_sends_none() {
    let [requests, responses] = auth_datagrams(with_fragments(Fragments::Yes, Fragments::Accept));
    assert!(requests > 1 && responses == 1, "{requests} and {responses}");
    let [requests, responses] = auth_datagrams(with_fragments(Fragments::Accept, Fragments::Yes));
    assert!(requests == 1 && responses > 1, "{requests} and {responses}");
}

#[test]
fn support_is_announced_in_ike_sa_init_and_answered_only_if_announced() {
    let supported = |datagram: &[u8]| {
        Message::parse(datagram).unwrap().payloads.iter().any(|payload| {
            matches!(payload, Payload::Notify(notify)
                if notify.notify_type == NotifyType::IKEV2_FRAGMENTATION_SUPPORTED
                    && notify.data.is_empty() && notify.spi.is_empty())
        })
    };
    let (_, request) = Stage::initiator(1);
    assert!(supported(&request));
    for takes in [true, false] {
        let mut stage = Stage::responder(1);
        stage.puppet.takes_fragments = takes;
        let payloads = stage.puppet.init_payloads();
        let request = stage.puppet.init_request(payloads);
        assert_eq!(supported(&stage.give(&request)[0]), takes);
    }
}

#[test]
fn no_datagram_is_longer_than_the_size_that_is_configured() {
    for size in [256, 300, 577, 1280] {
        let (a, b) = with_size(size);
        let mut pair = Pair::with(1, LinkConfig::PERFECT, a, b);
        let longest = usize::from(size) - IP_UDP;
        // IKE_SA_INIT cannot be split.
        pair.initiate(A);
        pair.run_for(Duration::from_millis(15));
        pair.set_links(LinkConfig { longest, ..LinkConfig::PERFECT });
        pair.hold = true;
        pair.pass(B, IKE_SA_INIT, RESPONSE);
        pair.hold = false;
        settle(&mut pair);
        pair.rekey_children(B).unwrap();
        pair.rekey_ike(A).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
        assert_ok(&pair, pair.check_no_packet_missed());
    }
}

#[test]
fn message_as_long_as_the_limit_is_not_split() {
    let mut stage = Stage::established_responder(1).unwrap();
    let limit = 1280 - IP_UDP;
    let header = stage.puppet.header(INFORMATIONAL, false, 2);
    let overhead = stage.puppet.seal_in_fragments(header, &[padding(0)], limit).unwrap()[0].len();
    for (extra, count) in [(0, 1), (1, 2)] {
        let payloads = [padding(limit - overhead + extra)];
        let sealed = stage.puppet.seal_in_fragments(header, &payloads, limit).unwrap();
        assert_eq!(sealed.len(), count);
        assert!(sealed.iter().all(|datagram| datagram.len() <= limit));
    }
}

#[test]
fn fragments_that_overtake_each_other_and_come_twice_make_one_request() {
    let mut stage = Stage::established_responder(1).unwrap();
    let header = stage.puppet.header(INFORMATIONAL, false, 2);
    let mut sealed = stage.puppet.seal_in_fragments(header, &[padding(500)], 200).unwrap();
    assert!(sealed.len() > 3);
    sealed.reverse();
    let last = sealed.pop().unwrap();
    for _ in 0..2 {
        for fragment in &sealed {
            assert!(stage.give(fragment).is_empty(), "incomplete");
        }
    }
    let answer = stage.give(&last);
    assert_eq!(answer.len(), 1);
    assert_eq!(stage.puppet.open(&answer[0]), Some(vec![]));
}

#[test]
fn fragmented_request_that_comes_again_is_answered_once() {
    let mut stage = Stage::established_responder(1).unwrap();
    let header = stage.puppet.header(INFORMATIONAL, false, 2);
    let sealed = stage.puppet.seal_in_fragments(header, &[padding(500)], 200).unwrap();
    let first: Vec<_> = sealed.iter().flat_map(|fragment| stage.give(fragment)).collect();
    assert_eq!(first.len(), 1);
    // RFC 7383 §2.6.1: the first fragment alone asks for the answer.
    let again: Vec<_> = sealed.iter().map(|fragment| stage.give(fragment)).collect();
    assert_eq!(again[0], first);
    assert!(again[1..].iter().all(Vec::is_empty), "{again:?}");
}

#[test]
fn fragmented_response_is_sent_again_as_a_whole() {
    let (a, b) = with_size(200);
    let mut pair = pair_of(a, b);
    pair.hold = true;
    pair.initiate(A);
    pair.exchange(A, IKE_SA_INIT);
    let requests = pair.in_flight(A).len();
    for _ in 0..requests {
        pair.pass(A, IKE_AUTH, REQUEST);
    }
    let responses = pair.in_flight(B).len();
    assert!(requests > 1 && responses > 1);
    // The last one is lost.
    for _ in 1..responses {
        pair.pass(B, IKE_AUTH, RESPONSE);
    }
    let _lost = pair.expect(B, IKE_AUTH, RESPONSE);
    while pair.fire_next_timer() != Some(A) {}
    assert_eq!(pair.in_flight(A).len(), requests, "the whole request again");
    for _ in 0..requests {
        pair.pass(A, IKE_AUTH, REQUEST);
    }
    let again = pair.in_flight(B);
    let again = again.iter().filter(|info| info.exchange == IKE_AUTH && info.response);
    assert_eq!(again.count(), responses, "the whole response again, once");
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(1));
}

#[test]
fn forged_fragment_does_not_keep_the_real_one_out() {
    let mut stage = Stage::established_responder(1).unwrap();
    let header = stage.puppet.header(INFORMATIONAL, false, 2);
    let sealed = stage.puppet.seal_in_fragments(header, &[padding(500)], 200).unwrap();
    for fragment in &sealed {
        for at in [32, 34, fragment.len() - 1] {
            let mut forged = fragment.clone();
            forged[at] ^= 1;
            assert!(stage.give(&forged).is_empty());
        }
    }
    let answers: Vec<_> = sealed.iter().flat_map(|fragment| stage.give(fragment)).collect();
    assert_eq!(answers.len(), 1);
}

#[test]
fn fragments_without_agreement_are_ignored() {
    let mut stage = Stage::responder(1);
    stage.puppet.takes_fragments = false;
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request);
    stage.puppet.read_init_response(&response[0]).unwrap();
    let payloads = stage.puppet.auth_payloads().unwrap();
    let header = stage.puppet.header(IKE_AUTH, false, 1);
    for fragment in stage.puppet.seal_in_fragments(header, &payloads, 200).unwrap() {
        assert!(stage.give(&fragment).is_empty());
    }
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    assert_eq!(stage.give(&request).len(), 1, "whole it is taken");
}

#[test]
fn set_of_more_fragments_replaces_what_waits() {
    let mut stage = Stage::established_responder(1).unwrap();
    let header = stage.puppet.header(INFORMATIONAL, false, 2);
    let large = stage.puppet.seal_in_fragments(header, &[padding(500)], 300).unwrap();
    let small = stage.puppet.seal_in_fragments(header, &[padding(500)], 200).unwrap();
    assert!(small.len() > large.len());
    assert!(stage.give(&large[0]).is_empty());
    assert!(stage.give(&small[0]).is_empty());
    for fragment in &large {
        assert!(stage.give(fragment).is_empty(), "of a set that is over");
    }
    let answers: Vec<_> = small[1..].iter().flat_map(|fragment| stage.give(fragment)).collect();
    assert_eq!(answers.len(), 1);
}

#[test]
fn rubbish_in_fragments_is_the_peers_fault_as_in_a_whole_message() {
    let mut stage = Stage::established_responder(1).unwrap();
    let header = stage.puppet.header(INFORMATIONAL, false, 2);
    let (first, rest) = (PayloadType::NOTIFY, PayloadType::NONE);
    let seal = |stage: &Stage, first, fragment, inner: &[u8], iv| {
        stage.puppet.seal_fragment_bytes(header, first, fragment, inner, iv).unwrap()
    };
    let one = seal(&stage, first, (1, 2), &[0, 0, 0, 200], 1 << 40);
    let two = seal(&stage, rest, (2, 2), &[0; 4], 1 << 40 | 1);
    assert!(stage.give(&one).is_empty());
    let answer = stage.give(&two);
    let invalid = Payload::Notify(Notify::new(NotifyType::INVALID_SYNTAX, []));
    assert_eq!(stage.puppet.open(&answer[0]), Some(vec![invalid]));
    assert_eq!(stage.ike_sas(), 0);
}

#[test]
fn request_that_the_path_swallows_is_split_smaller_and_the_answer_too() {
    let (a, b) = with_size(1280);
    let mut pair = Pair::with(1, LinkConfig::PERFECT, long_policies(a), long_policies(b));
    pair.trace.keep_lines();
    pair.set_links(LinkConfig { longest: 600, ..LinkConfig::PERFECT });
    pair.initiate(A);
    assert!(pair.run_until(Duration::from_secs(20), |pair| pair.check_established(1).is_ok()));
    assert_ok(&pair, pair.check_rules());
    // What was learnt stays known, also to the IKE SA that replaces this one.
    for _ in 0..2 {
        pair.rekey_children(A).unwrap();
        let before = only_child(&pair, A).spi_inbound;
        pair.run_for(Duration::from_millis(100));
        assert_ne!(only_child(&pair, A).spi_inbound, before, "rekeyed without a retransmission");
        pair.rekey_ike(A).unwrap();
        settle(&mut pair);
        assert_ok(&pair, pair.check_established(1));
    }
}

/// Makes IKE_AUTH and CREATE_CHILD_SA more than 600 bytes long.
fn long_policies(mut peer: Peer) -> Peer {
    let child = &mut peer.children[0];
    for (n, list) in [&mut child.ts_local, &mut child.ts_peer].into_iter().enumerate() {
        let whole = list[0];
        let IpAddr::V4(start) = whole.start_addr else { unreachable!("IPv4") };
        let [a, b, ..] = start.octets();
        // Separate ranges that do not touch.
        *list = (0..24)
            .map(|i| {
                let third = u8::try_from(i * 4).unwrap();
                peers::range(Ipv4Addr::new(a, b, third, 0), Ipv4Addr::new(a, b, third, 99))
            })
            .collect();
        assert_eq!(list.len(), 24, "{n}");
    }
    peer
}

#[test]
fn what_waits_of_all_ike_sas_together_is_bounded() {
    // 16 KiB each: 4 MiB are 256 of them.
    const PUPPETS: u8 = 250;
    let mut stage = Stage::responder(1);
    let config = EndpointConfig { cookie_threshold: usize::MAX, ..EndpointConfig::default() };
    let env = Env { rng: Box::new(FixedRandom::new(1, 0)), wall_clock: Arc::new(peers::Today) };
    stage.endpoint = Endpoint::new(config, env);
    let mut anybody = peers::site_b();
    anybody.address = ipsecd::ipsec::pad::PeerAddress::Any;
    stage.command(Command::AddPeer(Arc::new(anybody)));
    let mut waiting = Vec::new();
    for n in 0..u64::from(PUPPETS) * 2 {
        let last = u8::try_from(n % 200).unwrap();
        let third = u8::try_from(n / 200).unwrap();
        let path = peers::path(peers::ADDR_B, Ipv4Addr::new(198, 51, third, last).into());
        stage.pass_time(Duration::from_millis(1));
        let mut puppet = Puppet::initiator(n);
        let payloads = puppet.init_payloads();
        let request = puppet.init_request(payloads);
        let response = stage.give_from(path, &request);
        puppet.read_init_response(&response[0]).unwrap();
        let mut payloads = puppet.auth_payloads().unwrap();
        payloads.push(padding(15_000));
        let header: Header = puppet.header(IKE_AUTH, false, 1);
        let mut sealed = puppet.seal_in_fragments(header, &payloads, 1252).unwrap();
        let last = sealed.pop().unwrap();
        assert_eq!(numbers(&last).map(|(number, total)| number == total), Some(true));
        for fragment in sealed {
            assert!(stage.give_from(path, &fragment).is_empty());
        }
        waiting.push((path, last));
    }
    let answered: Vec<_> =
        waiting.iter().map(|(path, last)| !stage.give_from(*path, last).is_empty()).collect();
    let count = answered.iter().filter(|answered| **answered).count();
    assert!((200..=280).contains(&count), "{count} of {} had room", answered.len());
    let newest = answered.len() - 200;
    assert!(answered[newest..].iter().all(|answered| *answered), "the newest have it");
    // Time frees what waits: whoever begins anew is served.
    stage.pass_time(Duration::from_secs(200));
    assert!(stage.violations.is_empty());
    let path = peers::path(peers::ADDR_B, Ipv4Addr::new(198, 51, 99, 9).into());
    let mut puppet = Puppet::initiator(9999);
    let payloads = puppet.init_payloads();
    let request = puppet.init_request(payloads);
    let response = stage.give_from(path, &request);
    puppet.read_init_response(&response[0]).unwrap();
    let payloads = puppet.auth_payloads().unwrap();
    let header = puppet.header(IKE_AUTH, false, 1);
    let sealed = puppet.seal_in_fragments(header, &payloads, 200).unwrap();
    let answers: usize = sealed.iter().map(|fragment| stage.give_from(path, fragment).len()).sum();
    assert!(answers > 0);
}
