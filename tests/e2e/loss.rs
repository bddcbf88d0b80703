//! What becomes of a tunnel whose far end is silent, or deletes it (RFC 7296 §2.4).

use std::time::Duration;

use crate::lab::charon::Connection;
use crate::lab::{Charon, Ipsecd, Lab, Need, Peer, traffic, wait};

/// Longer than A takes to notice that nobody answers.
const NOTICED: Duration = Duration::from_secs(10);

/// A, which notices soon.
fn impatient(lab: &Lab, more: &str) -> Peer {
    let mut a = Peer::new(&lab.a, &lab.b, false);
    a.ike = format!(
        "dpd = \"1s\"\nretransmit-timeout = \"200ms\"\nretransmit-base = 1.0\nretransmit-tries = 2\n{more}\n"
    );
    a
}

fn waiting(lab: &Lab) -> Peer {
    let mut b = Peer::new(&lab.b, &lab.a, false);
    b.esp = "start = \"respond\"".to_owned();
    b
}

#[track_caller]
fn until_state(daemon: &Ipsecd<'_>, state: &str) {
    wait::until(&format!("A to be {state}"), NOTICED, || (daemon.state() == state).then_some(()));
}

/// Both, up.
fn both<'a>(lab: &'a Lab, more: &str) -> [Ipsecd<'a>; 2] {
    let a = Ipsecd::start(&lab.a, &impatient(lab, more));
    let b = Ipsecd::start(&lab.b, &waiting(lab));
    b.must_up();
    a.must_up();
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    [a, b]
}

#[test]
fn silent_peer_is_brought_up_again_when_it_is_back() {
    let Some(lab) = Lab::open(&[]) else { return };
    for more in ["", "dpd-action = \"restart\""] {
        let [a, b] = both(&lab, more);
        b.kill();
        until_state(&a, "retrying");
        let b = Ipsecd::start(&lab.b, &waiting(&lab));
        b.must_up();
        a.up_within(Duration::from_secs(30));
        traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
        assert!(a.stop().success() && b.stop().success());
    }
}

#[test]
fn silent_peer_is_brought_up_again_by_the_next_packet() {
    let Some(lab) = Lab::open(&[]) else { return };
    let [a, b] = both(&lab, "dpd-action = \"hold\"");
    b.kill();
    until_state(&a, "waiting");
    let b = Ipsecd::start(&lab.b, &waiting(&lab));
    b.must_up();
    assert_eq!(a.state(), "waiting");
    // Not one is lost.
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    assert_eq!(a.state(), "up");
    // And what the peer deletes comes up at once, since only silence is told to be waited out.
    b.down();
    wait::until("A to try", NOTICED, || {
        ["connecting", "retrying"].contains(&a.state().as_str()).then_some(())
    });
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn silent_peer_is_left_alone_where_that_is_wanted() {
    let Some(lab) = Lab::open(&[]) else { return };
    let [a, b] = both(&lab, "dpd-action = \"clear\"\nclose-action = \"none\"");
    b.kill();
    until_state(&a, "waiting");
    let b = Ipsecd::start(&lab.b, &waiting(&lab));
    b.must_up();
    let (here, there) = (lab.a.host(1, false), lab.b.host(1, false));
    assert!(!traffic::answers(&lab.a.lan, here, there), "traffic brings nothing up");
    assert_eq!(a.state(), "waiting");
    // The operator does, and then it is deleted by the peer.
    a.must_up();
    traffic::ping(&lab.a.lan, here, there);
    b.down();
    until_state(&a, "waiting");
    assert!(!traffic::answers(&lab.a.lan, here, there));
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn strongswan_that_is_killed_and_started_again_gets_its_tunnel_back() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let connection = Connection::new(&lab.b, &lab.a, false);
    let charon = Charon::start(&lab.b, &connection);
    let a = Ipsecd::start(&lab.a, &impatient(&lab, "dpd-action = \"restart\""));
    a.must_up();
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    charon.kill();
    until_state(&a, "retrying");
    let _charon = Charon::start(&lab.b, &connection);
    a.up_within(Duration::from_secs(30));
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    assert!(a.stop().success());
}
