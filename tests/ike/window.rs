//! Message IDs and the window of one (RFC 7296 §2.2, §2.3), and what a sealed message must not contain.

use ipsecd::testing::Stage;
use ipsecd::wire::ike::header::{Flags, IkeSpi};
use ipsecd::wire::ike::numbers::{ExchangeType, NotifyType, ProtocolId};
use ipsecd::wire::ike::payload::{Delete, Notify, Payload};

use crate::support::*;

fn both_roles() -> [Stage; 2] {
    [Stage::established_responder(1).unwrap(), Stage::established_initiator(1).unwrap()]
}

fn unharmed(stage: &Stage) {
    assert_eq!(stage.ike_sas(), 1);
    assert!(!stage.sad.is_empty());
    assert_eq!(stage.violations, []);
}

#[test]
fn requests_outside_the_window_are_ignored() {
    for mut stage in both_roles() {
        let next = stage.puppet.message_id;
        let delete = [Payload::Delete(Delete::ike())];
        let outside = [next.wrapping_add(1), next + 2, next + 100, u32::MAX, next.wrapping_sub(2)];
        for message_id in outside {
            let sealed = stage.puppet.seal(INFORMATIONAL, false, message_id, &delete).unwrap();
            assert!(stage.give(&sealed).is_empty(), "message {message_id}, {next} is the next");
        }
        unharmed(&stage);
        let request = stage.puppet.request(INFORMATIONAL, &[]).unwrap();
        assert_eq!(stage.give(&request).len(), 1, "the right one is answered");
    }
}

#[test]
fn responses_that_nobody_asked_for_are_ignored() {
    for mut stage in both_roles() {
        for message_id in 0..5 {
            for exchange in [IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL] {
                let delete = [Payload::Delete(Delete::ike())];
                let sealed = stage.puppet.seal(exchange, true, message_id, &delete).unwrap();
                assert!(stage.give(&sealed).is_empty());
            }
        }
        unharmed(&stage);
    }
}

#[test]
fn message_reflected_to_its_sender_is_ignored() {
    for mut stage in both_roles() {
        let request = stage.puppet.request(INFORMATIONAL, &[]).unwrap();
        let response = stage.give(&request).remove(0);
        assert!(stage.give(&response).is_empty());
        unharmed(&stage);
    }
}

#[test]
fn wrong_initiator_flag_is_ignored() {
    for mut stage in both_roles() {
        let message_id = stage.puppet.message_id;
        let mut header = stage.puppet.header(INFORMATIONAL, false, message_id);
        header.flags = Flags::new(!stage.puppet.initiator, false);
        let delete = [Payload::Delete(Delete::ike())];
        let sealed = stage.puppet.seal_with(header, &delete).unwrap();
        let _ = stage.give(&sealed);
        unharmed(&stage);
    }
}

#[test]
fn known_spi_with_an_unknown_other_spi_is_not_that_ike_sa() {
    for mut stage in both_roles() {
        let message_id = stage.puppet.message_id;
        let mut header = stage.puppet.header(INFORMATIONAL, false, message_id);
        if stage.puppet.initiator {
            header.spi_i = IkeSpi(header.spi_i.0 ^ 1);
        } else {
            header.spi_r = IkeSpi(header.spi_r.0 ^ 1);
        }
        let delete = [Payload::Delete(Delete::ike())];
        let sealed = stage.puppet.seal_with(header, &delete).unwrap();
        let _ = stage.give(&sealed);
        unharmed(&stage);
    }
}

#[test]
fn empty_request_is_answered_empty() {
    for mut stage in both_roles() {
        let request = stage.puppet.request(INFORMATIONAL, &[]).unwrap();
        let response = stage.give(&request);
        assert_eq!(stage.puppet.open(&response[0]), Some(vec![]));
    }
}

#[test]
fn unknown_status_notify_is_ignored_and_answered() {
    for mut stage in both_roles() {
        let status = Payload::Notify(Notify::new(NotifyType(40_000), *b"what?"));
        let request = stage.puppet.request(INFORMATIONAL, &[status]).unwrap();
        assert_eq!(stage.give(&request).len(), 1);
        unharmed(&stage);
    }
}

#[test]
fn delete_of_an_unknown_child_sa_is_answered_without_a_delete() {
    for mut stage in both_roles() {
        let delete = [Payload::Delete(Delete::esp([[9, 9, 9, 9]]))];
        let request = stage.puppet.request(INFORMATIONAL, &delete).unwrap();
        let response = stage.give(&request);
        // RFC 7296 §2.25.1: reply without a Delete payload.
        assert_eq!(stage.puppet.open(&response[0]), Some(vec![]));
        unharmed(&stage);
    }
}

#[test]
fn delete_of_the_child_sa_is_answered_with_ours() {
    for mut stage in both_roles() {
        let ours = stage.sad.all_inbound().next().unwrap().spi;
        let delete = [Payload::Delete(Delete::esp([stage.puppet.esp_spi.to_be_bytes()]))];
        let request = stage.puppet.request(INFORMATIONAL, &delete).unwrap();
        let response = stage.give(&request);
        let expected = Payload::Delete(Delete::esp([ours.to_be_bytes()]));
        assert_eq!(stage.puppet.open(&response[0]), Some(vec![expected]));
        assert_eq!(stage.ike_sas(), 1);
    }
}

#[test]
fn rekey_of_an_unknown_child_sa_gets_child_sa_not_found() {
    for mut stage in both_roles() {
        let spi = [9, 9, 9, 9];
        let rekey = Notify::for_sa(ProtocolId::ESP, spi, NotifyType::REKEY_SA);
        stage.puppet.fresh_esp_spi();
        let mut payloads = vec![Payload::Notify(rekey)];
        payloads.push(stage.puppet.fresh_nonce());
        payloads.extend(stage.puppet.child_offer());
        if !stage.puppet.initiator {
            // Site B's selectors the other way round.
            payloads.swap(3, 4);
        }
        let request = stage.puppet.request(CREATE_CHILD_SA, &payloads).unwrap();
        let response = stage.give(&request);
        // RFC 7296 §2.25: the SPI field is copied from the REKEY_SA notification.
        let expected = Notify::for_sa(ProtocolId::ESP, spi, NotifyType::CHILD_SA_NOT_FOUND);
        assert_eq!(stage.puppet.open(&response[0]), Some(vec![Payload::Notify(expected)]));
        unharmed(&stage);
    }
}

#[test]
fn exchanges_that_have_no_place_in_an_established_ike_sa_do_no_harm() {
    for exchange in [IKE_SA_INIT, IKE_AUTH, ExchangeType::IKE_SESSION_RESUME, ExchangeType(99)] {
        for mut stage in both_roles() {
            let request = stage.puppet.request(exchange, &[]).unwrap();
            assert!(stage.give(&request).len() <= 1);
            unharmed(&stage);
        }
    }
}

#[test]
fn create_child_sa_without_its_payloads_gets_invalid_syntax_and_costs_nothing() {
    for mut stage in both_roles() {
        let payloads = stage.puppet.child_offer();
        for missing in 0..payloads.len() {
            let mut payloads = payloads.clone();
            payloads.remove(missing);
            payloads.push(stage.puppet.fresh_nonce());
            let request = stage.puppet.request(CREATE_CHILD_SA, &payloads).unwrap();
            let response = stage.give(&request);
            let Some(answer) = response.first() else { continue };
            let answer = stage.puppet.open(answer).unwrap();
            let error = |payload: &Payload| matches!(payload, Payload::Notify(n) if n.notify_type.is_error());
            assert!(answer.iter().any(error), "{answer:?}");
            if stage.ike_sas() == 0 {
                // RFC 7296 §2.21.3: INVALID_SYNTAX in a protected message is fatal; a fresh one goes on.
                break;
            }
        }
        assert_eq!(stage.violations, []);
    }
}
