//! Several workers: each with a queue of the TUN, sockets, and SAs of its own (`--workers`).

use std::collections::BTreeSet;
use std::thread;

use serde_json::Value;

use crate::lab::stream::{Account, Stream};
use crate::lab::{Ipsecd, Lab, Need, Peer, process, traffic, wait};

/// TCP connections at a time each way.
const FLOWS: usize = 6;
const BYTES: usize = 3_000_000;

/// Two daemons with so many workers each, their peers with these lines under `[esp]`.
fn daemons<'a>(lab: &'a Lab, workers: u16, esp: &str) -> [Ipsecd<'a>; 2] {
    let (mut a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    a.esp = esp.to_owned();
    b.esp = format!("{esp}\nstart = \"respond\"");
    let workers = workers.to_string();
    let flags = ["--workers", &workers];
    let start = |side, peer: &Peer| {
        Ipsecd::start_for_file_with_flags(side, Ipsecd::file_of(side, peer), &flags)
    };
    let daemons = [start(&lab.a, &a), start(&lab.b, &b)];
    daemons[1].must_up();
    daemons[0].must_up();
    daemons
}

/// Several connections each way at once, and pings.
fn flows_both_ways(lab: &Lab) {
    thread::scope(|scope| {
        for (from, to) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
            for _ in 0..FLOWS {
                scope.spawn(move || {
                    let (source, target) = (from.host(1, false), to.host(1, false));
                    traffic::transfer(&from.lan, source, &to.lan, target, BYTES);
                });
            }
        }
    });
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
}

fn children(daemon: &Ipsecd<'_>) -> Vec<Value> {
    let status = daemon.status();
    let sas = status["peers"][0]["ike_sas"].as_array().expect("IKE SAs").clone();
    sas.iter().flat_map(|sa| sa["child_sas"].as_array().expect("CHILD_SAs").clone()).collect()
}

fn spi(child: &Value, which: &str) -> u32 {
    let text = child[which].as_str().expect("an SPI");
    u32::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
}

/// None but those that are no loss of ours: a packet may come when its connection is gone.
fn nothing_was_lost(daemon: &Ipsecd<'_>) {
    let drops = daemon.status()["drops"].as_object().expect("an object").clone();
    // Packet by packet, TCP sends faster than a daemon reads, and the kernel's queue before it is full for moments.
    let full = if tun_is("off") || tun_is("plain") { "tun-full" } else { "" };
    let harmless = ["no-policy", "no-inbound-sa", full];
    let lost: Vec<_> =
        drops.iter().filter(|(name, _)| !harmless.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?}");
    for child in children(daemon) {
        let drops = &child["drops"];
        assert!(drops.as_object().is_none_or(serde_json::Map::is_empty), "{child}");
    }
}

fn queues(lab: &Lab) -> usize {
    let said = lab.a.gw.sh("ls /sys/class/net/ipsec0/queues");
    said.split_whitespace().filter(|name| name.starts_with("tx-")).count()
}

#[expect(clippy::disallowed_methods, reason = "how packets come is said outside the test")]
fn tun_is(offload: &str) -> bool {
    std::env::var("IPSECD_OFFLOAD").is_ok_and(|set| set == offload)
}

fn several_carry_flows_both_ways(workers: u16, encap: &str) {
    let Some(lab) = Lab::open(&[]) else { return };
    let esp = format!("per-resource = {workers}\nencap = {encap:?}");
    let [a, b] = daemons(&lab, workers, &esp);
    let count = usize::from(workers) + 1;
    for daemon in [&a, &b] {
        assert_eq!(daemon.status()["workers"], workers);
        wait::until("a CHILD_SA for each worker", wait::PATIENCE, || {
            (children(daemon).len() == count).then_some(())
        });
        // Each is received by the worker that sends by it; the first by any.
        let residues: BTreeSet<_> = children(daemon)
            .iter()
            .map(|child| spi(child, "spi_inbound") % u32::from(workers))
            .collect();
        assert_eq!(residues.len(), usize::from(workers), "{residues:?}");
    }
    // The plain TUN has no more than one, and then one worker reads it.
    assert_eq!(queues(&lab), if tun_is("plain") { 1 } else { usize::from(workers) });
    flows_both_ways(&lab);
    for daemon in [&a, &b] {
        nothing_was_lost(daemon);
    }
    a.down();
    assert!(a.status()["peers"].as_array().is_none_or(Vec::is_empty));
    assert!(a.stop().success() && b.stop().success(), "SIGTERM ends all of them");
}

#[test]
fn two_workers_carry_flows_both_ways_each_by_an_sa_of_its_own() {
    several_carry_flows_both_ways(2, "udp");
}

#[test]
fn four_workers_carry_flows_both_ways_each_by_an_sa_of_its_own() {
    several_carry_flows_both_ways(4, "udp");
}

#[test]
fn two_workers_carry_flows_both_ways_over_raw_esp() {
    several_carry_flows_both_ways(2, "auto");
}

/// The window is the smallest that there is: packets of both workers must leave in the order of their numbers.
#[test]
fn two_workers_share_one_sa_and_no_packet_leaves_its_window() {
    let Some(lab) = Lab::open(&[]) else { return };
    let [a, b] = daemons(&lab, 2, "replay-window = 32");
    flows_both_ways(&lab);
    for daemon in [&a, &b] {
        assert_eq!(children(daemon).len(), 1);
        nothing_was_lost(daemon);
    }
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn no_packet_is_lost_when_sas_of_several_workers_are_rekeyed() {
    let Some(lab) = Lab::open(&[Need::Alone]) else { return };
    let [a, b] = daemons(&lab, 3, "per-resource = 3");
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    let (there, back) = (Stream::start(&lab.a, &lab.b, 1000), Stream::start(&lab.b, &lab.a, 1000));
    for number in 0..10 {
        let by = if number % 2 == 0 { &a } else { &b };
        by.rekey(number % 5 == 4);
        let sent = there.sent();
        wait::until("packets after the rekey", wait::PATIENCE, || {
            (there.received() >= sent).then_some(())
        });
    }
    for (Account { sent, lost, duplicated }, what) in
        [(there.stop(), "to B"), (back.stop(), "to A")]
    {
        assert!(
            sent > 0 && lost.is_empty() && duplicated.is_empty(),
            "{what}: {lost:?} {duplicated:?}"
        );
    }
}

/// The SA is made by the first packets, which come to any worker, and wait there.
#[test]
fn packets_that_wait_for_an_sa_leave_by_whichever_worker_has_them() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (mut a, mut b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    a.esp = "start = \"on-traffic\"".to_owned();
    b.esp = "start = \"respond\"".to_owned();
    let start = |side, peer: &Peer| {
        Ipsecd::start_for_file_with_flags(side, Ipsecd::file_of(side, peer), &["--workers", "4"])
    };
    let [a, b] = [start(&lab.a, &a), start(&lab.b, &b)];
    b.must_up();
    process::run(&mut a.up_command(15));
    let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| traffic::transfer(&lab.a.lan, source, &lab.b.lan, target, 10_000));
        }
    });
    nothing_was_lost(&a);
    assert!(a.stop().success() && b.stop().success());
}
