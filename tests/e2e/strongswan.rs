//! strongSwan at the far end: both roles, both families, suites, NAT, liveness, restarts.

use crate::lab::{Charon, Connection, Ipsecd, Lab, Need, Peer, traffic, wait};

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Ipsecd,
    StrongSwan,
}

/// A is ipsecd, B strongSwan. Traffic both ways, then down from our side; nothing is left.
#[track_caller]
fn meet(lab: &Lab, begins: Begins, peer: &Peer, connection: &Connection) {
    let before = lab.a.gw.network_state();
    let mut peer = peer.clone();
    if begins == Begins::StrongSwan {
        peer.esp += "\nstart = \"respond\"";
    }
    let b = Charon::start(&lab.b, connection);
    let a = Ipsecd::start(&lab.a, &peer);
    a.must_up();
    if begins == Begins::StrongSwan {
        b.must_initiate();
    }
    a.up_within(wait::PATIENCE);
    assert_eq!(a.ike()["initiator"], begins == Begins::Ipsecd);
    traffic::both_ways(lab, 1, peer.subnets[0].contains(':'));
    a.down();
    wait::until("strongSwan to hear of the DELETE", wait::PATIENCE, || {
        b.sas().is_empty().then_some(())
    });
    assert_eq!(before, lab.a.gw.network_state(), "something was left");
    assert!(a.stop().success());
    b.stop();
}

#[track_caller]
fn over(begins: Begins, v6_outside: bool, v6_inside: bool) {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let mut peer = Peer::new(&lab.a, &lab.b, v6_outside);
    let mut connection = Connection::new(&lab.b, &lab.a, v6_outside);
    if v6_inside {
        (peer.local_subnets, peer.subnets) =
            (vec![lab.a.subnet(1, true)], vec![lab.b.subnet(1, true)]);
        (connection.local_ts, connection.remote_ts) =
            (lab.b.subnet(1, true), lab.a.subnet(1, true));
    }
    meet(&lab, begins, &peer, &connection);
}

#[test]
fn ipv4_as_initiator() {
    over(Begins::Ipsecd, false, false);
}

#[test]
fn ipv4_as_responder() {
    over(Begins::StrongSwan, false, false);
}

#[test]
fn ipv6_as_initiator() {
    over(Begins::Ipsecd, true, true);
}

#[test]
fn ipv6_as_responder() {
    over(Begins::StrongSwan, true, true);
}

#[test]
fn ipv6_lans_over_ipv4() {
    over(Begins::Ipsecd, false, true);
}

#[test]
fn nat_in_front_of_ipsecd() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    lab.nat(&lab.a, false);
    let mut connection = Connection::new(&lab.b, &lab.a, false);
    connection.remote_addr = "%any".to_owned();
    meet(&lab, Begins::Ipsecd, &Peer::new(&lab.a, &lab.b, false), &connection);
}

#[test]
fn nat_in_front_of_ipsecd_which_answers() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    lab.nat(&lab.a, true);
    let mut connection = Connection::new(&lab.b, &lab.a, false);
    connection.remote_addr = lab.b.router(false).to_string();
    meet(&lab, Begins::StrongSwan, &Peer::new(&lab.a, &lab.b, false), &connection);
}

#[test]
fn nat_in_front_of_strongswan() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    lab.nat(&lab.b, false);
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.address = "any".to_owned();
    meet(&lab, Begins::StrongSwan, &peer, &Connection::new(&lab.b, &lab.a, false));
}

#[test]
fn nat_in_front_of_strongswan_which_answers() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    lab.nat(&lab.b, true);
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.address = lab.a.router(false).to_string();
    let mut connection = Connection::new(&lab.b, &lab.a, false);
    connection.remote_addr = "%any".to_owned();
    meet(&lab, Begins::Ipsecd, &peer, &connection);
}

#[test]
fn every_suite_in_both_roles() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    for (number, (ike, esp)) in [
        ("aes128gcm16-prfsha256-x25519", "aes128gcm16"),
        ("aes256gcm16-prfsha512-ecp384", "aes256gcm16-ecp256"),
        ("aes128-sha256-ecp256", "aes128-sha256"),
        ("aes256-sha384-modp2048", "aes256-sha384"),
        ("aes256-sha512-modp3072", "aes256-sha512"),
        ("aes256gcm16-prfsha384-modp4096", "aes256-sha256"),
    ]
    .into_iter()
    .enumerate()
    {
        let begins = if number % 2 == 0 { Begins::Ipsecd } else { Begins::StrongSwan };
        println!("{ike} {esp}, {begins:?} begins");
        let mut peer = Peer::new(&lab.a, &lab.b, false);
        peer.ike = format!("proposals = {ike:?}");
        peer.esp = format!("proposals = {esp:?}");
        let mut connection = Connection::new(&lab.b, &lab.a, false);
        (connection.ike, connection.esp) = (ike.to_owned(), esp.to_owned());
        meet(&lab, begins, &peer, &connection);
    }
}

#[test]
fn our_defaults_meet_strongswans_defaults() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let mut connection = Connection::new(&lab.b, &lab.a, false);
    (connection.ike, connection.esp) = ("default".to_owned(), "default".to_owned());
    for begins in [Begins::Ipsecd, Begins::StrongSwan] {
        meet(&lab, begins, &Peer::new(&lab.a, &lab.b, false), &connection);
    }
}

#[test]
fn several_subnets_in_one_child_sa() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let nets = [(1, false), (2, false), (1, true)];
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.local_subnets = nets.map(|(net, v6)| lab.a.subnet(net, v6)).to_vec();
    peer.subnets = nets.map(|(net, v6)| lab.b.subnet(net, v6)).to_vec();
    let mut connection = Connection::new(&lab.b, &lab.a, false);
    connection.local_ts = peer.subnets.join(",");
    connection.remote_ts = peer.local_subnets.join(",");
    let _b = Charon::start(&lab.b, &connection);
    let a = Ipsecd::start(&lab.a, &peer);
    a.must_up();
    for (net, v6) in nets {
        traffic::both_ways(&lab, net, v6);
    }
}

#[test]
fn a_narrower_strongswan_is_met_in_what_both_want() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.local_subnets = vec!["10.1.0.0/16".to_owned()];
    peer.subnets = vec!["10.2.0.0/16".to_owned()];
    let _b = Charon::start(&lab.b, &Connection::new(&lab.b, &lab.a, false));
    let a = Ipsecd::start(&lab.a, &peer);
    a.must_up();
    let child = a.child();
    assert_eq!(child["ts_peer"][0], "10.2.1.0/24", "{child:#}");
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn a_dead_strongswan_is_noticed_and_met_again_when_it_is_back() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let connection = Connection::new(&lab.b, &lab.a, false);
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.ike = "dpd = \"1s\"\nretransmit-timeout = \"200ms\"\nretransmit-tries = 3".to_owned();
    let b = Charon::start(&lab.b, &connection);
    let a = Ipsecd::start_with_peer(&lab.a, &peer);
    a.up_within(wait::PATIENCE);
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    traffic::ping(&lab.a.lan, source, target);
    b.kill();
    wait::until("the liveness check to fail", wait::PATIENCE, || (a.state() != "up").then_some(()));
    let _b = Charon::start(&lab.b, &connection);
    traffic::answers_within(wait::PATIENCE, &lab.a.lan, source, target);
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn a_liveness_check_by_strongswan_is_answered() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let mut connection = Connection::new(&lab.b, &lab.a, false);
    connection.extra = "dpd_delay = 1s\ndpd_timeout = 3s".to_owned();
    let b = Charon::start(&lab.b, &connection);
    let a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    a.must_up();
    wait::until("three liveness checks to be answered", wait::PATIENCE, || {
        (b.log().matches("parsed INFORMATIONAL response").count() >= 3).then_some(())
    });
    assert_eq!(a.state(), "up");
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
}

#[test]
fn strongswan_that_restarts_and_begins_anew_replaces_the_old_sas() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let connection = Connection::new(&lab.b, &lab.a, false);
    let b = Charon::start(&lab.b, &connection);
    let a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    a.must_up();
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    b.kill();
    let b = Charon::start(&lab.b, &connection);
    b.must_initiate();
    traffic::both_ways(&lab, 1, false);
    wait::until("INITIAL_CONTACT to remove the old IKE SA", wait::PATIENCE, || {
        (a.status()["peers"][0]["ike_sas"].as_array()?.len() == 1).then_some(())
    });
}

#[test]
fn down_by_strongswan_is_followed() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let b = Charon::start(&lab.b, &Connection::new(&lab.b, &lab.a, false));
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.esp = "start = \"respond\"".to_owned();
    let a = Ipsecd::start(&lab.a, &peer);
    a.must_up();
    b.must_initiate();
    a.up_within(wait::PATIENCE);
    b.terminate();
    wait::until("our SAs to be gone", wait::PATIENCE, || {
        a.status()["peers"][0]["ike_sas"].as_array()?.is_empty().then_some(())
    });
    b.must_initiate();
    traffic::ping(&lab.b.lan, lab.b.host(1, false), lab.a.host(1, false));
}
