//! Packets that wait for an outbound SA.

use core::time::Duration;

use ipsecd::datapath::hold::{HOLD_TIME, MAX_HELD_BYTES, MAX_HELD_PACKETS};
use ipsecd::datapath::{DropReason, Hold, Options, PacketBuf};
use ipsecd::ipsec::{PolicyId, SadUpdate};

use crate::support::*;

fn buffers(n: usize) -> Vec<PacketBuf> {
    (0..n).map(|_| PacketBuf::new(2000)).collect()
}

fn give_sa(gateway: &mut Gateway) {
    let (outbound, _) = params(gcm(), true, 1);
    gateway.apply(SadUpdate::AddOutbound(Box::new(outbound)));
}

/// A gateway without SA, and a hold with these packets in it.
fn held(lens: &[usize]) -> (Gateway, Hold) {
    let gateway = Gateway::new(spd(true), Options::default());
    let mut hold = Hold::default();
    for (n, len) in (0u8..).zip(lens) {
        hold.put(gateway.now, &gateway.datapath, POLICY, &vec![n; *len]);
    }
    (gateway, hold)
}

#[test]
fn what_waits_leaves_in_order_once_there_is_an_sa() {
    let (mut gateway, mut hold) = held(&[100, 200, 300]);
    let mut packets = buffers(2);
    assert_eq!(hold.take_ready(&gateway.datapath, &mut packets), 0);
    give_sa(&mut gateway);
    assert_eq!(hold.take_ready(&gateway.datapath, &mut packets), 2);
    assert_eq!(packets.iter().map(|packet| packet[0]).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(hold.take_ready(&gateway.datapath, &mut packets), 1);
    assert_eq!((packets[0][0], packets[0].len()), (2, 300));
    assert!(hold.is_empty());
    assert_eq!(gateway.dropped(), []);
}

#[test]
fn no_more_waits_than_there_is_room_for() {
    let (gateway, hold) = held(&[40; MAX_HELD_PACKETS + 3]);
    assert_eq!(gateway.dropped(), [(DropReason::NoOutboundSa, 3)]);
    assert!(!hold.is_empty());
    let long = MAX_HELD_BYTES / 3;
    let (gateway, _hold) = held(&[long; 5]);
    assert_eq!(gateway.dropped(), [(DropReason::NoOutboundSa, 2)]);
    let (gateway, hold) = held(&[MAX_HELD_BYTES + 1]);
    assert_eq!(gateway.dropped(), [(DropReason::NoOutboundSa, 1)]);
    assert!(hold.is_empty());
}

#[test]
fn what_waits_in_vain_is_dropped_and_counted() {
    let (mut gateway, mut hold) = held(&[40, 40]);
    let failed_at = gateway.now;
    hold.abandon(&gateway.datapath, PolicyId(99), failed_at);
    assert_eq!(gateway.dropped(), []);
    gateway.pass(1);
    hold.put(gateway.now, &gateway.datapath, POLICY, &[9; 40]);
    hold.abandon(&gateway.datapath, POLICY, failed_at);
    assert_eq!(gateway.dropped(), [(DropReason::AcquireFailed, 2)]);
    give_sa(&mut gateway);
    let mut packets = buffers(4);
    assert_eq!(hold.take_ready(&gateway.datapath, &mut packets), 1, "it came after the failure");
}

#[test]
fn what_waits_too_long_is_dropped_and_counted() {
    let (gateway, mut hold) = held(&[40, 40]);
    hold.expire(gateway.now + HOLD_TIME - Duration::from_millis(1), &gateway.datapath);
    assert_eq!(gateway.dropped(), []);
    hold.expire(gateway.now + HOLD_TIME, &gateway.datapath);
    assert_eq!(gateway.dropped(), [(DropReason::AcquireLate, 2)]);
    assert!(hold.is_empty());
}

#[test]
fn what_waits_under_a_policy_that_is_gone_is_dropped() {
    let (gateway, mut hold) = held(&[40]);
    let without = gateway.datapath.with_spd(ipsecd::ipsec::Spd::default());
    hold.expire(gateway.now, &without);
    assert_eq!(gateway.dropped(), [(DropReason::NoPolicy, 1)]);
    assert!(hold.is_empty());
}
