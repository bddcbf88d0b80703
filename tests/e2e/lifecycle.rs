//! The daemon's own life: started by `up`, ended by signals, and what of it stays in the system.

use std::time::Duration;

use crate::lab::wait::Stopwatch;
use crate::lab::{Charon, Connection, Ipsecd, Lab, Need, Peer, process, traffic, wait};

#[test]
fn killed_and_started_again_it_carries_traffic_within_five_seconds() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let b = Charon::start(&lab.b, &Connection::new(&lab.b, &lab.a, false));
    let peer = Peer::new(&lab.a, &lab.b, false);
    let mut a = Ipsecd::start_with_peer(&lab.a, &peer);
    a.up_within(wait::PATIENCE);
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    traffic::ping(&lab.a.lan, source, target);
    for _ in 0..3 {
        a.kill();
        assert!(b.sas().contains("INSTALLED"), "strongSwan still holds the old SA");
        let clock = Stopwatch::start();
        a = Ipsecd::start_with_peer(&lab.a, &peer);
        traffic::answers_within(wait::PATIENCE, &lab.a.lan, source, target);
        let took = clock.elapsed();
        println!("traffic {took:?} after the start");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn sigterm_deletes_the_sas_and_puts_everything_back() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let before = lab.a.gw.network_state();
    let b = Charon::start(&lab.b, &Connection::new(&lab.b, &lab.a, false));
    let a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    a.must_up();
    assert_ne!(before, lab.a.gw.network_state());
    assert!(a.stop().success());
    assert_eq!(before, lab.a.gw.network_state(), "something was left");
    wait::until("strongSwan to hear of the DELETE", wait::PATIENCE, || {
        b.sas().is_empty().then_some(())
    });
}

#[test]
fn what_sigkill_left_the_next_start_removes() {
    let Some(lab) = Lab::open(&[]) else { return };
    let before = lab.a.gw.network_state();
    let (a, b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    let _b = Ipsecd::start_with_peer(&lab.b, &b);
    let daemon = Ipsecd::start(&lab.a, &a);
    daemon.must_up();
    daemon.kill();
    assert_ne!(before, lab.a.gw.network_state(), "SIGKILL leaves something");
    let daemon = Ipsecd::start(&lab.a, &a);
    wait::until("the leftovers to go", wait::PATIENCE, || {
        (before == lab.a.gw.network_state()).then_some(())
    });
    assert!(daemon.stop().success());
    assert_eq!(before, lab.a.gw.network_state());
}

#[test]
fn up_starts_the_daemon_that_is_not_running() {
    let Some(lab) = Lab::open(&[]) else { return };
    let before = lab.a.gw.network_state();
    let (a, b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    let _b = Ipsecd::start_with_peer(&lab.b, &b);
    // For its files and commands; the daemon itself goes at once.
    let a = Ipsecd::start(&lab.a, &a);
    process::run(&mut a.command(&["status"]));
    let (up, status, down) =
        (a.up_command(15), a.command(&["status", "--json"]), a.command(&["down", "--all"]));
    assert!(a.stop().success());
    let [mut up, mut status, mut down] = [up, status, down];
    assert!(!process::output(&mut status).status.success(), "no daemon, no status");
    process::run(&mut up);
    traffic::both_ways(&lab, 1, false);
    process::run(&mut status);
    process::run(&mut down);
    assert_eq!(before, lab.a.gw.network_state(), "something was left");
}

#[test]
fn a_peer_goes_down_by_its_name_and_by_its_file_also_when_that_is_gone() {
    let Some(lab) = Lab::open(&[]) else { return };
    let waits = Peer { esp: "start = \"respond\"".to_owned(), ..Peer::new(&lab.a, &lab.b, false) };
    let daemon = Ipsecd::start(&lab.a, &waits);
    let file = Ipsecd::file_of(&lab.a, &waits);
    let dir = file.parent().expect("a directory").to_owned();
    let is_gone = || daemon.state().is_empty();
    let ways: [(&str, bool); 4] = [
        ("far", false),
        ("far.conf", false),
        ("far.conf", true),
        (file.to_str().expect("UTF-8"), true),
    ];
    for (peer, removed) in ways {
        daemon.must_up();
        let aside = dir.join("aside");
        if removed {
            std::fs::rename(&file, &aside).expect("renamed");
        }
        let said = process::run(daemon.command(&["down", peer]).current_dir(&dir));
        assert_eq!(said, "far: down\n", "down {peer}");
        assert!(is_gone(), "down {peer}");
        if removed {
            std::fs::rename(&aside, &file).expect("renamed");
        }
    }
    let output = process::output(daemon.command(&["down", "far.conf"]).current_dir("/"));
    assert_eq!(output.status.code(), Some(1));
    assert!(process::text(&output).contains("no peer is named far.conf"));
}

#[test]
fn what_somebody_else_takes_away_comes_back() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (mut a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    for (peer, local, remote) in [(&mut a, &lab.a, &lab.b), (&mut b, &lab.b, &lab.a)] {
        peer.local_subnets.push(local.subnet(1, true));
        peer.subnets.push(remote.subnet(1, true));
    }
    let _b = Ipsecd::start_with_peer(&lab.b, &b);
    let daemon = Ipsecd::start(&lab.a, &a);
    daemon.must_up();
    let gw = &lab.a.gw;
    let before = gw.network();
    let takes: [&[&str]; 3] = [
        // As systemd-networkd does when it starts.
        &["-4 rule del pref 4301", "-6 rule del pref 4301"],
        &["-4 route flush table 4301", "-6 route flush table 4301"],
        &["link set ipsec0 down", "link set ipsec0 up"],
    ];
    for take in takes {
        for command in take {
            gw.ip(command);
        }
        wait::until(&format!("the end of {take:?}"), wait::PATIENCE, || {
            (before == gw.network()).then_some(())
        });
        traffic::both_ways(&lab, 1, false);
        traffic::both_ways(&lab, 1, true);
    }
    let log = daemon.log();
    assert!(log.contains("somebody removed"), "{log}");
    let count = log.matches("somebody removed").count();
    // What it removes itself, it does not put back.
    daemon.down();
    assert_eq!(daemon.log().matches("somebody removed").count(), count);
    assert!(!gw.network().contains("4301"), "{}", gw.network());
}
