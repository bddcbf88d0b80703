//! Quick crash detection (RFC 6290): who has lost an IKE SA says so with a token that nobody else can make.

use core::time::Duration;
use std::sync::Arc;

use ipsecd::crypto::Secret;
use ipsecd::ike::{CloseReason, Command, EndpointConfig, Event};
use ipsecd::testing::Stage;
use ipsecd::wire::ike::header::{Flags, Header, IkeSpi};
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{NotifyType, PayloadType};
use ipsecd::wire::ike::payload::{Notify, Payload};

use crate::support::*;

fn config(secret: u8) -> EndpointConfig {
    EndpointConfig { qcd_secret: Some(Secret::copy_of(&[secret; 32])), ..EndpointConfig::default() }
}

fn token(data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(NotifyType::QUICK_CRASH_DETECTION, data))
}

fn tokens(payloads: &[Payload]) -> Vec<Vec<u8>> {
    let found = payloads.iter().filter_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == NotifyType::QUICK_CRASH_DETECTION).then(|| notify.data.clone())
    });
    found.collect()
}

fn says_unknown(payloads: &[Payload]) -> bool {
    payloads.iter().any(|payload| {
        matches!(payload, Payload::Notify(notify) if notify.notify_type == NotifyType::INVALID_IKE_SPI)
    })
}

/// An established IKE SA of the endpoint as responder; the puppet has given this token, and got the one that comes back.
fn established_with(given: &[u8]) -> (Stage, Vec<Vec<u8>>) {
    let mut stage = Stage::responder_with_config(1, config(7));
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request);
    stage.puppet.read_init_response(&response[0]).unwrap();
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    payloads.insert(2, token(given));
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let response = stage.give(&request);
    let inside = stage.puppet.open(&response[0]).unwrap();
    assert!(!stage.sad.is_empty());
    let got = tokens(&inside);
    (stage, got)
}

/// What the puppet says without protection, as if it knew nothing of the IKE SA.
fn unprotected(stage: &Stage, payloads: Vec<Payload>) -> Vec<u8> {
    let header = stage.puppet.header(INFORMATIONAL, true, 0);
    Message { header, payloads }.emit()
}

fn unknown() -> Payload {
    Payload::Notify(Notify::new(NotifyType::INVALID_IKE_SPI, []))
}

fn has_restarted(stage: &Stage) -> bool {
    let restarted = |event: &Event| {
        matches!(event, Event::IkeSaClosed { reason: CloseReason::PeerRestarted, .. })
    };
    stage.events.iter().any(restarted)
}

/// A request that looks protected, of an IKE SA with these SPIs.
fn request(spi_i: u64, spi_r: u64, by_initiator: bool, len: usize) -> Vec<u8> {
    let flags = Flags::new(by_initiator, false);
    let header = Header::new(IkeSpi(spi_i), IkeSpi(spi_r), INFORMATIONAL, flags, 3);
    let length = u32::try_from(len).unwrap();
    let mut datagram = Vec::new();
    Header { next_payload: PayloadType::SK, length, ..header }.emit(&mut datagram);
    datagram.resize(len, 0x55);
    datagram
}

fn answer(sent: &[Vec<u8>]) -> Vec<Payload> {
    Message::parse(&sent[0]).unwrap().payloads
}

#[test]
fn both_sides_give_a_token_in_ike_auth() {
    let (_, got) = established_with(&[1; 16]);
    assert!(matches!(&got[..], [token] if token.len() == 16), "{got:?}");
    let (stage, sent) = Stage::initiator(1);
    drop((stage, sent));
    let mut stage = Stage::established_initiator_with(1, config(7)).unwrap();
    // The endpoint does not tell what it sent, but what it sends for the same SPIs once it has lost them.
    let (spi_i, spi_r) = (stage.puppet.spi_i.0, stage.puppet.spi_r.0);
    assert!(stage.give(&request(spi_i, spi_r, false, 100)).is_empty());
    let mut restarted = Stage::responder_with_config(2, config(7));
    let sent = restarted.give(&request(spi_i, spi_r, true, 100));
    assert_eq!(tokens(&answer(&sent)).len(), 1);
}

#[test]
fn a_token_without_protection_ends_the_ike_sa_silently_from_anywhere() {
    let (mut stage, _) = established_with(&[1; 40]);
    let others = |n: u8| (0..n).map(|n| token(&[100 + n; 16]));
    let wrong = unprotected(&stage, [unknown(), token(&[2; 40])].into());
    let asked = stage.give(&wrong);
    // No more than a hint: the peer is asked, under protection.
    assert_eq!(asked.len(), 1);
    assert!(!has_restarted(&stage) && !stage.sad.is_empty());
    let right: Vec<_> = [unknown()].into_iter().chain(others(3)).chain([token(&[1; 40])]).collect();
    let right = unprotected(&stage, right);
    let path = peers::path(peers::ADDR_B, [198, 51, 100, 9].into());
    assert!(stage.give_from(path, &right).is_empty());
    assert!(has_restarted(&stage) && stage.sad.is_empty());
}

#[test]
fn a_token_of_another_length_is_not_kept() {
    for len in [0, 15, 129] {
        let given = vec![1; len];
        let (mut stage, _) = established_with(&given);
        let message = unprotected(&stage, vec![token(&given)]);
        stage.give(&message);
        assert!(!has_restarted(&stage) && !stage.sad.is_empty(), "{len}");
    }
}

#[test]
fn a_later_token_takes_the_place_of_the_first() {
    let (mut stage, _) = established_with(&[1; 16]);
    let request = stage.puppet.request(INFORMATIONAL, &[token(&[2; 16])]).unwrap();
    assert_eq!(stage.give(&request).len(), 1);
    let message = unprotected(&stage, vec![token(&[1; 16])]);
    stage.give(&message);
    assert!(!has_restarted(&stage));
    let message = unprotected(&stage, vec![token(&[2; 16])]);
    stage.give(&message);
    assert!(has_restarted(&stage));
}

#[test]
fn the_token_of_an_ike_sa_that_is_there_is_told_to_nobody() {
    let (mut stage, _) = established_with(&[1; 16]);
    let (spi_i, spi_r) = (stage.puppet.spi_i.0, stage.puppet.spi_r.0);
    for (spi_i, spi_r) in [(spi_i, spi_r), (spi_r, spi_i), (spi_r, 5), (5, spi_r)] {
        for by_initiator in [false, true] {
            for sent in stage.give(&request(spi_i, spi_r, by_initiator, 100)) {
                let payloads = Message::parse(&sent).map(|message| message.payloads);
                assert!(tokens(&payloads.unwrap_or_default()).is_empty());
            }
        }
    }
}

#[test]
fn a_token_comes_from_the_secret_and_both_spis_alone() {
    let of = |secret, spi_i, spi_r| {
        let mut stage = Stage::responder_with_config(u64::from(secret), config(secret));
        tokens(&answer(&stage.give(&request(spi_i, spi_r, true, 100)))).remove(0)
    };
    let token = of(7, 1, 2);
    assert_eq!(of(7, 1, 2), token);
    for other in [of(8, 1, 2), of(7, 2, 1), of(7, 1, 3), of(7, 3, 2)] {
        assert_ne!(other, token);
    }
}

#[test]
fn what_answers_a_lost_ike_sa_is_never_longer_than_the_request() {
    for (len, both, one) in
        [(100, true, true), (60, true, true), (59, false, true), (51, false, false)]
    {
        let mut stage = Stage::responder_with_config(1, config(7));
        let sent = stage.give(&request(1, 2, true, len));
        assert!(sent[0].len() <= len);
        let payloads = answer(&sent);
        assert_eq!(!tokens(&payloads).is_empty(), one, "{len}");
        assert_eq!(says_unknown(&payloads), both || !one, "{len}");
    }
}

#[test]
fn tokens_are_for_protected_requests_and_few_at_a_time() {
    let mut stage = Stage::responder_with_config(1, config(7));
    let header = Header::new(IkeSpi(1), IkeSpi(2), INFORMATIONAL, Flags::new(true, false), 3);
    let bare = Message { header, payloads: vec![token(&[1; 100])] }.emit();
    for sent in stage.give(&bare) {
        assert!(tokens(&answer(&[sent])).is_empty());
    }
    let sent: usize = (0..1000).map(|n| stage.give(&request(n + 1, 2, true, 100)).len()).sum();
    assert!((1..=100).contains(&sent), "{sent}");
    let mut without = Stage::responder(1);
    let payloads = answer(&without.give(&request(1, 2, true, 100)));
    assert!(tokens(&payloads).is_empty() && says_unknown(&payloads));
}

fn pair() -> Pair {
    let with = |mut peer: ipsecd::ipsec::pad::Peer| {
        peer.ike.dpd_delay = Some(Duration::from_secs(30));
        peer
    };
    let (a, b) = (with(peers::site_a()), with(peers::site_b()));
    let mut pair = Pair::with_config(1, LinkConfig::PERFECT, a, b, config(7));
    pair.trace.keep_lines();
    pair.initiate(A);
    pair.run_for(Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    pair
}

/// One side restarts; the other is to know it with its next question, and not when no answer has come for long.
#[track_caller]
fn restart_is_known_at_once(pair: &mut Pair, side: Side, other: Side) {
    pair.restart(side);
    let peer = if side == A { peers::site_a() } else { peers::site_b() };
    pair.command(side, Command::AddPeer(Arc::new(peer))).unwrap();
    pair.run_for(Duration::from_secs(32));
    assert_that(pair, pair.closed(other) == [CloseReason::PeerRestarted], "it is known");
    assert_that(pair, pair.node(other).sad.is_empty(), "nothing is left of it");
}

#[test]
fn a_restart_is_known_with_the_next_question() {
    for (side, other) in [(A, B), (B, A)] {
        restart_is_known_at_once(&mut pair(), side, other);
    }
}

#[test]
fn after_a_rekey_there_is_a_token_for_the_new_spis() {
    for by in [A, B] {
        for (side, other) in [(A, B), (B, A)] {
            let mut pair = pair();
            pair.rekey_ike(by).unwrap();
            pair.run_for(Duration::from_secs(2));
            assert_ok(&pair, pair.check_established(1));
            restart_is_known_at_once(&mut pair, side, other);
        }
    }
}
