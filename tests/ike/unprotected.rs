//! What comes without protection, or with the wrong one: hints at most (RFC 7296 §1.5, §2.4, §2.21).

use core::time::Duration;

use ipsecd::ike::CloseReason;
use ipsecd::ike::Event;
use ipsecd::testing::Stage;
use ipsecd::wire::ike::header::{Flags, Header, IkeSpi};
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{NotifyType, PayloadType};
use ipsecd::wire::ike::payload::{Delete, Notify, Payload, Sk};

use crate::support::*;

const ERRORS: [NotifyType; 9] = [
    NotifyType::INVALID_IKE_SPI,
    NotifyType::INVALID_MAJOR_VERSION,
    NotifyType::INVALID_SYNTAX,
    NotifyType::INVALID_MESSAGE_ID,
    NotifyType::INVALID_SPI,
    NotifyType::NO_PROPOSAL_CHOSEN,
    NotifyType::AUTHENTICATION_FAILED,
    NotifyType::TS_UNACCEPTABLE,
    NotifyType::INITIAL_CONTACT,
];

fn notify(notify_type: NotifyType) -> Payload {
    Payload::Notify(Notify::new(notify_type, []))
}

fn plain(header: Header, payloads: Vec<Payload>) -> Vec<u8> {
    Message { header, payloads }.emit()
}

/// An encrypted payload that nobody can open.
fn encrypted() -> Payload {
    Payload::Sk(Sk { first: PayloadType::NONE, body: vec![7; 40] })
}

fn unharmed(stage: &Stage) {
    assert_eq!(stage.ike_sas(), 1);
    assert!(!stage.sad.is_empty());
    assert_eq!(stage.violations, []);
}

fn both_roles() -> [Stage; 2] {
    [Stage::established_responder(1).unwrap(), Stage::established_initiator(1).unwrap()]
}

#[test]
fn notifies_without_protection_change_nothing_of_an_established_ike_sa() {
    for mut stage in both_roles() {
        let (events, sad) = (stage.events.len(), stage.sad.all_inbound().count());
        for exchange in [IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL] {
            for response in [false, true] {
                for message_id in [0, 1, 2, 3, u32::MAX] {
                    for error in ERRORS {
                        let header = stage.puppet.header(exchange, response, message_id);
                        let sent = stage.give(&plain(header, vec![notify(error)]));
                        assert!(sent.len() <= 1, "{exchange} {error}: {} answers", sent.len());
                    }
                }
            }
        }
        assert_eq!((stage.events.len(), stage.sad.all_inbound().count()), (events, sad));
        unharmed(&stage);
    }
}

#[test]
fn delete_without_protection_is_ignored() {
    for mut stage in both_roles() {
        for message_id in 0..4 {
            let header = stage.puppet.header(INFORMATIONAL, false, message_id);
            let sent = stage.give(&plain(header, vec![Payload::Delete(Delete::ike())]));
            assert!(sent.is_empty(), "an unprotected request in an IKE SA gets no answer");
        }
        unharmed(&stage);
    }
}

#[test]
fn hints_start_a_liveness_check_at_most_now_and_then() {
    let mut stage = Stage::established_responder(1).unwrap();
    let mut sent = 0;
    for n in 0..1000 {
        let header = stage.puppet.header(INFORMATIONAL, true, n);
        sent += stage.give(&plain(header, vec![notify(NotifyType::INVALID_IKE_SPI)])).len();
    }
    assert!(sent <= 2, "{sent} messages for a thousand forged hints at one moment");
    unharmed(&stage);
}

#[test]
fn forged_seal_is_ignored_in_both_roles() {
    for mut stage in both_roles() {
        for response in [false, true] {
            for message_id in 0..4 {
                let payloads = [Payload::Delete(Delete::ike())];
                let mut sealed =
                    stage.puppet.seal(INFORMATIONAL, response, message_id, &payloads).unwrap();
                *sealed.last_mut().unwrap() ^= 1;
                assert!(stage.give(&sealed).is_empty());
            }
        }
        unharmed(&stage);
    }
}

#[test]
fn request_for_an_unknown_ike_sa_gets_invalid_ike_spi_and_a_response_gets_nothing() {
    let mut stage = Stage::responder(1);
    let header = |response| {
        Header::new(IkeSpi(0x1111), IkeSpi(0x2222), INFORMATIONAL, Flags::new(true, response), 7)
    };
    let sent = stage.give(&plain(header(false), vec![encrypted()]));
    if let [answer] = sent.as_slice() {
        // RFC 7296 §1.5: SPIs, message ID and exchange are copied, the Response flag is set.
        let message = Message::parse(answer).unwrap();
        assert_eq!((message.header.spi_i.0, message.header.spi_r.0), (0x1111, 0x2222));
        assert_eq!((message.header.message_id, message.header.exchange), (7, INFORMATIONAL));
        assert!(message.header.flags.response);
        assert_eq!(message.payloads, [notify(NotifyType::INVALID_IKE_SPI)]);
    } else {
        panic!("{} answers", sent.len());
    }
    assert!(stage.give(&plain(header(true), vec![encrypted()])).is_empty());
    assert_eq!(stage.ike_sas(), 0);
}

#[test]
fn answers_to_strangers_are_rate_limited() {
    let mut stage = Stage::responder(1);
    let mut answers = 0;
    for n in 1..10_000 {
        let flags = Flags::new(true, false);
        let header = Header::new(IkeSpi(n), IkeSpi(n), INFORMATIONAL, flags, 0);
        answers += stage.give(&plain(header, vec![encrypted()])).len();
    }
    assert!((1..1000).contains(&answers), "{answers} answers to 10,000 strangers at one moment");
}

#[test]
fn higher_major_version_gets_invalid_major_version() {
    let mut stage = Stage::responder(1);
    let payloads = stage.puppet.init_payloads();
    let mut request = stage.puppet.init_request(payloads);
    request[17] = 0x30;
    let sent = stage.give(&request);
    let message = Message::parse(&sent[0]).unwrap();
    assert_eq!(message.payloads, [notify(NotifyType::INVALID_MAJOR_VERSION)]);
    assert_eq!(message.header.major, 2);
    assert_eq!(stage.ike_sas(), 0);
}

#[test]
fn unknown_critical_payload_is_refused_by_name_and_an_uncritical_one_skipped() {
    let unknown = |critical| Payload::Unknown {
        payload_type: PayloadType(200),
        critical,
        body: vec![1, 2, 3, 4],
    };
    let mut stage = Stage::responder(1);
    let mut payloads = stage.puppet.init_payloads();
    payloads.push(unknown(true));
    let request = stage.puppet.init_request(payloads);
    let sent = stage.give(&request);
    let message = Message::parse(&sent[0]).unwrap();
    // RFC 7296 §2.5: the Notification Data is the one-octet payload type.
    let expected = Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, [200]);
    assert_eq!(message.payloads, [Payload::Notify(expected)]);
    assert_eq!(stage.ike_sas(), 0);

    let mut payloads = stage.puppet.init_payloads();
    payloads.push(unknown(false));
    let request = stage.puppet.init_request(payloads);
    let sent = stage.give(&request);
    assert!(stage.puppet.read_init_response(&sent[0]).is_some());
}

#[test]
fn unprotected_auth_failure_does_not_end_an_attempt_that_the_true_peer_goes_on_with() {
    let (mut stage, request) = Stage::initiator(1);
    stage.puppet.read_init_request(&request).unwrap();
    let response = stage.puppet.init_response().unwrap();
    let auth = stage.give(&response);
    // RFC 7296 §2.21.2, §2.4: anybody can forge this.
    for error in ERRORS {
        let header = stage.puppet.header(IKE_AUTH, true, 1);
        let sent = stage.give(&plain(header, vec![notify(error)]));
        assert!(sent.is_empty());
    }
    let auth = stage.puppet.open(&auth[0]).unwrap();
    let payloads = stage.puppet.auth_response_payloads(&auth).unwrap();
    let response = stage.puppet.seal(IKE_AUTH, true, 1, &payloads).unwrap();
    let sent = stage.give(&response);
    assert!(sent.is_empty());
    unharmed(&stage);
}

#[test]
fn forged_init_response_does_not_keep_the_true_one_out() {
    let (mut stage, request) = Stage::initiator(1);
    stage.puppet.read_init_request(&request).unwrap();
    let response = stage.puppet.init_response().unwrap();
    // Too short a public value, a zero SPI, an empty message: each forged by someone who saw the request.
    let header = stage.puppet.header(IKE_SA_INIT, true, 0);
    let mut no_spi = header;
    no_spi.spi_r = IkeSpi(0);
    let mut rest = Message::parse(&response).unwrap().payloads;
    for payload in &mut rest {
        if let Payload::Ke(ke) = payload {
            ke.data.truncate(7);
        }
    }
    for forged in [plain(header, vec![]), plain(header, rest), plain(no_spi, vec![])] {
        assert!(stage.give(&forged).is_empty());
    }
    assert_eq!(stage.give(&response).len(), 1, "IKE_AUTH follows the true response");
}

#[test]
fn responder_that_cannot_prove_its_psk_is_refused_and_told_so() {
    let (mut stage, request) = Stage::initiator(1);
    stage.puppet.psk = ipsecd::crypto::Secret::copy_of(b"another");
    stage.puppet.read_init_request(&request).unwrap();
    let response = stage.puppet.init_response().unwrap();
    let auth = stage.give(&response);
    let auth = stage.puppet.open(&auth[0]).unwrap();
    let payloads = stage.puppet.auth_response_payloads(&auth).unwrap();
    let response = stage.puppet.seal(IKE_AUTH, true, 1, &payloads).unwrap();
    let sent = stage.give(&response);
    assert!(stage.sad.is_empty());
    let closed = |event: &Event| {
        matches!(event, Event::IkeSaClosed { reason: CloseReason::AuthenticationOfPeer, .. })
    };
    assert!(stage.events.iter().any(closed), "{:?}", stage.events);
    // RFC 7296 §2.21.2: in a separate INFORMATIONAL exchange the responder learns of it.
    for message in &sent {
        let payloads = stage.puppet.open(message).unwrap();
        assert!(
            payloads.contains(&notify(NotifyType::AUTHENTICATION_FAILED))
                || payloads.contains(&Payload::Delete(Delete::ike())),
            "{payloads:?}"
        );
    }
    stage.pass_time(Duration::from_secs(300));
    assert_eq!(stage.ike_sas(), 0);
}

#[test]
fn initiator_that_cannot_prove_its_psk_gets_authentication_failed_under_protection() {
    let mut stage = Stage::responder(1);
    stage.puppet.psk = ipsecd::crypto::Secret::copy_of(b"another");
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let response = stage.give(&request);
    stage.puppet.read_init_response(&response[0]).unwrap();
    let payloads = stage.puppet.auth_payloads().unwrap();
    let request = stage.puppet.request(IKE_AUTH, &payloads).unwrap();
    let response = stage.give(&request);
    let payloads = stage.puppet.open(&response[0]).unwrap();
    assert_eq!(payloads, [notify(NotifyType::AUTHENTICATION_FAILED)]);
    assert!(stage.sad.is_empty());
    stage.pass_time(Duration::from_secs(300));
    assert_eq!(stage.ike_sas(), 0);
}
