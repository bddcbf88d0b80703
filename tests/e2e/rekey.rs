//! Rekeying while packets flow: none is lost, none arrives twice.

use std::collections::BTreeSet;

use crate::lab::stream::{Account, Stream};
use crate::lab::{Charon, Connection, Ipsecd, Lab, Need, Peer, process, traffic, wait};

/// Packets a second towards B; a tenth of it comes back.
const RATE: u32 = 2_000;
const CHILD_REKEYS: usize = 200;
const IKE_REKEYS: usize = 20;

#[track_caller]
fn complete(account: &Account, what: &str) {
    let Account { sent, lost, duplicated } = account;
    assert!(
        lost.is_empty() && duplicated.is_empty(),
        "{what}: of {sent}, lost {}: {:?}...; twice {}: {:?}...",
        lost.len(),
        &lost[..lost.len().min(20)],
        duplicated.len(),
        &duplicated[..duplicated.len().min(20)],
    );
}

#[test]
fn no_packet_is_lost_over_200_child_and_20_ike_rekeys() {
    let Some(lab) = Lab::open(&[Need::Alone]) else { return };
    let (a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    b.esp = "start = \"respond\"".to_owned();
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start(&lab.b, &b));
    b.must_up();
    a.must_up();
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    let (there, back) =
        (Stream::start(&lab.a, &lab.b, RATE), Stream::start(&lab.b, &lab.a, RATE / 10));
    let (mut children, mut ikes) = (BTreeSet::new(), BTreeSet::new());
    for number in 1..=CHILD_REKEYS {
        // Either side in turn.
        let by = if number % 2 == 0 { &a } else { &b };
        by.rekey(false);
        children.insert(by.child()["spi_inbound"].to_string());
        if number % (CHILD_REKEYS / IKE_REKEYS) == 0 {
            let by = if number % (2 * CHILD_REKEYS / IKE_REKEYS) == 0 { &a } else { &b };
            by.rekey(true);
            ikes.insert(by.ike()["spi_i"].to_string());
        }
        let sent = there.sent();
        wait::until("packets through the new SA", wait::PATIENCE, || {
            (there.received() >= sent).then_some(())
        });
    }
    let (there, back) = (there.stop(), back.stop());
    assert_eq!((children.len(), ikes.len()), (CHILD_REKEYS, IKE_REKEYS), "all were new");
    println!("{} packets to B, {} to A", there.sent, back.sent);
    complete(&there, "to B");
    complete(&back, "to A");
}

#[test]
fn no_packet_is_lost_when_ipsecd_or_strongswan_rekeys() {
    rekey_with_strongswan(5);
}

#[test]
#[ignore = "takes minutes: run it alone"]
fn no_packet_is_lost_over_1000_rekeys_with_strongswan() {
    rekey_with_strongswan(250);
}

/// Both kinds of SA by either side, in each round: four rekeys, under packets both ways.
fn rekey_with_strongswan(rounds: usize) {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Alone]) else { return };
    let b = Charon::start(&lab.b, &Connection::new(&lab.b, &lab.a, false));
    let a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    a.must_up();
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    let (there, back) = (Stream::start(&lab.a, &lab.b, 500), Stream::start(&lab.b, &lab.a, 500));
    let spi = |ike: bool| match ike {
        true => a.ike()["spi_i"].to_string(),
        false => a.child()["spi_inbound"].to_string(),
    };
    let (mut children, mut ikes) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..rounds {
        for ike in [false, true] {
            for ours in [true, false] {
                let old = spi(ike);
                if ours {
                    a.rekey(ike);
                } else {
                    b.rekey(ike);
                }
                let new = wait::until("the rekey", wait::PATIENCE, || {
                    Some(spi(ike)).filter(|new| *new != old)
                });
                if ike {
                    ikes.insert(new)
                } else {
                    children.insert(new)
                };
            }
        }
        let sent = there.sent();
        wait::until("packets through the new SA", wait::PATIENCE, || {
            (there.received() >= sent).then_some(())
        });
    }
    let (there, back) = (there.stop(), back.stop());
    assert_eq!((children.len(), ikes.len()), (2 * rounds, 2 * rounds), "all were new");
    println!("{} rekeys: {} packets there, {} back", 4 * rounds, there.sent, back.sent);
    complete(&there, "to strongSwan");
    complete(&back, "to ipsecd");
}

#[test]
fn soft_lifetimes_rekey_by_themselves() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (mut a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    a.esp = "rekey-packets = 2000\nlife-packets = 20000".to_owned();
    b.esp = "start = \"respond\"".to_owned();
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start(&lab.b, &b));
    b.must_up();
    a.must_up();
    let first = a.child()["spi_inbound"].clone();
    let stream = Stream::start(&lab.a, &lab.b, 1_000);
    wait::until("a rekey by packets", wait::PATIENCE, || {
        (a.child()["spi_inbound"] != first).then_some(())
    });
    complete(&stream.stop(), "to B");
}

/// `ipsecd up --verify-rekey`.
fn verified(a: &Ipsecd<'_>) -> std::process::Output {
    process::output(a.up_command(30).arg("--verify-rekey"))
}

#[test]
fn verify_rekey_finds_at_once_what_would_break_the_first_rekey() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let mut near = Peer::new(&lab.a, &lab.b, false);
    near.esp = "proposals = [\"aes256gcm16-x25519\"]".to_owned();
    let mut far = Connection::new(&lab.b, &lab.a, false);
    far.esp = "aes256gcm16-ecp384".to_owned();
    let b = Charon::start(&lab.b, &far);
    let a = Ipsecd::start(&lab.a, &near);
    // Without it all is well, for an hour.
    a.must_up();
    a.down();
    let output = verified(&a);
    let text = process::text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("far: up after"), "{text}");
    assert!(text.contains("far is up, and will break at its first rekey: "), "{text}");
    assert!(
        text.contains("none of our proposals for the CHILD_SA: ours are aes256gcm16-x25519"),
        "{text}"
    );
    assert!(text.contains("ipsecd doctor --live"), "{text}");
    // As it is said: it is up all the same, with the SA that it came up with.
    assert_eq!(a.state(), "up");
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    assert!(b.sas().contains("INSTALLED"), "{}", b.sas());
    a.down();
    b.stop();
    // The same group at both ends.
    far.esp = "aes256gcm16-x25519".to_owned();
    let b = Charon::start(&lab.b, &far);
    let output = verified(&a);
    let text = process::text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("far: the CHILD_SA can be rekeyed\n"), "{text}");
    let log = b.log();
    assert!(log.contains("CREATE_CHILD_SA request 2 [ N(REKEY_SA) SA No KE TSi TSr ]"), "{log}");
    traffic::both_ways(&lab, 1, false);
    assert!(a.stop().success());
}

#[test]
fn verify_rekey_of_a_healthy_tunnel_replaces_its_child_sa_and_loses_nothing() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut far = Peer::new(&lab.b, &lab.a, false);
    far.esp = "start = \"respond\"".to_owned();
    let b = Ipsecd::start_with_peer(&lab.b, &far);
    let a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    a.must_up();
    let first = a.child()["spi_inbound"].clone();
    // One that is up is verified as well.
    let output = verified(&a);
    let text = process::text(&output);
    assert!(output.status.success() && text.contains("far: the CHILD_SA can be rekeyed"), "{text}");
    assert_ne!(a.child()["spi_inbound"], first);
    traffic::both_ways(&lab, 1, false);
    // Who only answers has nothing to rekey, and says nothing of it.
    let output = process::output(
        b.command(&["up", "--verify-rekey"]).arg(lab.b.dir.join("ipsecd/far.conf")),
    );
    let text = process::text(&output);
    assert!(output.status.success(), "{text}");
    assert!(a.stop().success() && b.stop().success());
}
