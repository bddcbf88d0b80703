//! INVALID_SELECTORS: the peer is told of a packet that came on a CHILD_SA which may not carry it (RFC 4301 §5.2, RFC 7296 §3.10.1).

use ipsecd::ipsec::Notice;
use ipsecd::testing::Stage;
use ipsecd::wire::ike::numbers::{NotifyType, ProtocolId};
use ipsecd::wire::ike::payload::{Notify, Payload};

use crate::support::*;

#[test]
fn the_peer_is_told_of_a_packet_that_its_child_sa_may_not_carry() {
    for mut stage in
        [Stage::established_responder(1).unwrap(), Stage::established_initiator(1).unwrap()]
    {
        let spi = stage.sad.all_inbound().next().unwrap().spi;
        let notice = |stage: &mut Stage, start: u8| {
            stage.notice(Notice::Mismatch { spi, start: vec![start; 40] })
        };
        let complaint = |start: u8| {
            [Payload::Notify(Notify {
                protocol: ProtocolId::ESP,
                spi: spi.to_be_bytes().to_vec(),
                notify_type: NotifyType::INVALID_SELECTORS,
                data: vec![start; 40],
            })]
        };
        let sent = notice(&mut stage, 1);
        assert_eq!(sent.len(), 1);
        assert_eq!(stage.puppet.open(&sent[0]).unwrap(), complaint(1));
        // While that is under way one more waits, and the others are forgotten.
        for start in 2..10 {
            assert!(notice(&mut stage, start).is_empty());
        }
        let next = stage.answer(&sent[0], &[]);
        assert_eq!(next.len(), 1);
        assert_eq!(stage.puppet.open(&next[0]).unwrap(), complaint(2));
        assert!(stage.answer(&next[0], &[]).is_empty());
        assert_eq!(stage.violations, []);
    }
}

#[test]
fn a_complaint_of_the_peer_is_answered_and_changes_nothing() {
    let mut stage = Stage::established_responder(1).unwrap();
    let sas = stage.sad.all_inbound().count();
    let spis =
        [stage.sad.all_inbound().next().unwrap().spi.to_be_bytes().to_vec(), vec![1; 4], vec![]];
    for spi in spis {
        let mut complaint = Notify::for_sa(ProtocolId::ESP, spi, NotifyType::INVALID_SELECTORS);
        complaint.data = vec![0x45; 300];
        let request = stage.puppet.request(INFORMATIONAL, &[Payload::Notify(complaint)]).unwrap();
        let sent = stage.give(&request);
        assert_eq!(stage.puppet.open(&sent[0]).unwrap(), []);
    }
    assert_eq!((stage.ike_sas(), stage.sad.all_inbound().count()), (1, sas));
    assert_eq!(stage.violations, []);
}
