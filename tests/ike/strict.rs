//! Where other implementations were seen to be lax: what is malformed, or out of bounds, is not taken.

use ipsecd::testing::Stage;
use ipsecd::wire::ike::numbers::{ExchangeType, KeId, NotifyType};
use ipsecd::wire::ike::payload::{Ke, Payload};

use crate::support::*;

fn established() -> Stage {
    Stage::established_responder(1).unwrap()
}

/// Asks, and reads the answer.
fn ask(stage: &mut Stage, exchange: ExchangeType, payloads: &[Payload]) -> Vec<Payload> {
    let request = stage.puppet.request(exchange, payloads).unwrap();
    let answers = stage.give(&request);
    assert_eq!(answers.len(), 1);
    stage.puppet.open(&answers[0]).unwrap()
}

fn notifies(payloads: &[Payload]) -> Vec<NotifyType> {
    payloads
        .iter()
        .filter_map(|payload| {
            let Payload::Notify(notify) = payload else { return None };
            Some(notify.notify_type)
        })
        .collect()
}

/// A request for one more CHILD_SA, of this SPI.
fn child_of(stage: &mut Stage, spi: &[u8]) -> Vec<Payload> {
    let mut payloads = vec![stage.puppet.fresh_nonce()];
    payloads.extend(stage.puppet.child_offer());
    with_spi(payloads, spi)
}

fn with_spi(mut payloads: Vec<Payload>, spi: &[u8]) -> Vec<Payload> {
    for payload in &mut payloads {
        if let Payload::Sa(sa) = payload {
            sa.proposals.iter_mut().for_each(|proposal| proposal.spi = spi.to_vec());
        }
    }
    payloads
}

#[test]
fn message_whose_header_gives_another_length_is_none() {
    let mut stage = Stage::responder(1);
    let payloads = stage.puppet.init_payloads();
    let request = stage.puppet.init_request(payloads);
    let len = u32::try_from(request.len()).unwrap();
    for wrong in [0, 28, len - 1, len + 1, u32::MAX] {
        let mut datagram = request.clone();
        datagram[24..28].copy_from_slice(&wrong.to_be_bytes());
        assert!(stage.give(&datagram).is_empty(), "{wrong} for {len}");
    }
    let longer = [&request[..], &[0]].concat();
    assert!(stage.give(&longer).is_empty(), "trailing byte");
    assert_eq!(stage.half_open(), 0);
    assert_eq!(stage.give(&request).len(), 1);

    // The same of one that is protected, whose ICV does not cover a byte after it.
    let mut stage = established();
    let request = stage.puppet.request(INFORMATIONAL, &[]).unwrap();
    assert!(stage.give(&[&request[..], &[0]].concat()).is_empty());
    assert_eq!(stage.give(&request).len(), 1);
}

#[test]
fn esp_spi_below_256_is_not_taken() {
    let mut stage = established();
    for spi in [0, 1, 255_u32] {
        let payloads = child_of(&mut stage, &spi.to_be_bytes());
        let answer = ask(&mut stage, CREATE_CHILD_SA, &payloads);
        assert_eq!(notifies(&answer), [NotifyType::NO_PROPOSAL_CHOSEN], "{spi}");
    }
    assert_eq!((stage.sad.all_inbound().count(), stage.ike_sas()), (1, 1));
    let payloads = child_of(&mut stage, &256_u32.to_be_bytes());
    ask(&mut stage, CREATE_CHILD_SA, &payloads);
    assert_eq!(stage.sad.all_inbound().count(), 2);
}

#[test]
fn ike_rekey_with_a_bad_spi_or_a_key_exchange_of_zeros_is_refused() {
    let zeros = |payloads: &mut [Payload]| {
        for payload in payloads {
            if let Payload::Ke(ke) = payload {
                *ke = Ke { group: KeId::CURVE25519, data: vec![0; 32] };
            }
        }
    };
    let mut stage = established();
    for (spi, zero) in
        [(&[0; 8][..], false), (&[9; 4], false), (&[9; 9], false), (&[], false), (&[9; 8], true)]
    {
        let mut payloads = with_spi(stage.puppet.init_payloads(), spi);
        if zero {
            zeros(&mut payloads);
        }
        let answer = ask(&mut stage, CREATE_CHILD_SA, &payloads);
        assert!(
            matches!(
                notifies(&answer)[..],
                [NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_SYNTAX]
            ),
            "{spi:?} {zero}: {answer:?}"
        );
        if notifies(&answer) == [NotifyType::INVALID_SYNTAX] {
            // RFC 7296 §2.21.3: that ends the IKE SA.
            stage = established();
        } else {
            assert_eq!((stage.ike_sas(), stage.sad.all_inbound().count()), (1, 1));
        }
    }
}

#[test]
fn one_peer_gets_no_more_than_so_many_child_sas() {
    let mut stage = established();
    let mut refused = 0;
    for n in 0..200_u32 {
        let payloads = child_of(&mut stage, &(0x1000 + n).to_be_bytes());
        let answer = ask(&mut stage, CREATE_CHILD_SA, &payloads);
        refused += usize::from(notifies(&answer) == [NotifyType::NO_ADDITIONAL_SAS]);
    }
    assert_eq!((stage.sad.all_inbound().count(), refused), (64, 137));
}
