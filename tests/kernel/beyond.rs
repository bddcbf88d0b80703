//! What is no cell of the matrix: a bundle, tunnels of others in transport mode, and keys that do not match.

use serde_json::json;

use crate::ground::{Ground, batch};
use crate::lab::Need;
use crate::lab::uml::Host;
use crate::live::{SOME, Stage, Traffic, probes, unused};
use crate::manual;
use crate::matrix::{Cell, End, Mode, Protocol, Version};

/// The cell of a transform in transport mode.
fn transport(version: Version, proposal: &str, esn: bool) -> Cell {
    let found = Cell::live().into_iter().find(|cell| {
        let form = cell.form;
        (form.mode, form.outer, form.udp) == (Mode::Transport, version, false)
            && cell.transform.proposal == proposal
            && cell.esn == esn
    });
    found.expect("the matrix has it")
}

#[test]
fn ah_around_esp_carries_traffic_both_ways() {
    let Some(ground) = Ground::open(&[Need::Kernel]) else { return };
    let stage = Stage::open(&ground);
    let bundles = [
        (Version::V4, "aes256gcm16", "sha256"),
        (Version::V4, "aes128-sha256", "sha512"),
        (Version::V6, "aes256gcm16", "sha384"),
        (Version::V6, "null-sha256", "aescmac"),
    ];
    let bundles = bundles.map(|(version, esp, ah)| {
        let inside = transport(version, esp, false);
        let around = transport(version, ah, false);
        // Between the same addresses.
        let around = Cell { number: inside.number, ..around };
        (inside, around)
    });
    let confs = bundles.iter().map(|(inside, around)| {
        (inside.name(), inside.conf(End::Near) + &around.conf_around(End::Near))
    });
    manual::write_confs(&stage.peers(), confs);
    let xfrm: String =
        bundles.iter().map(|(inside, around)| inside.xfrm_around(End::Far, Some(around))).collect();
    let cells = bundles.map(|(inside, _)| inside);
    let daemon = stage.play(&cells, &xfrm);
    let faults = stage.carry(&cells, SOME);
    assert!(daemon.stop().success());
    stage.end(faults);
}

#[test]
fn tunnels_of_others_pass_in_transport_mode() {
    let Some(ground) = Ground::open(&[Need::Kernel]) else { return };
    let stage = Stage::open(&ground);
    let cells =
        [transport(Version::V4, "aes256gcm16", true), transport(Version::V4, "sha256", true)];
    manual::write(&stage.peers(), &cells, End::Near);
    let xfrm: String = cells.iter().map(|cell| cell.xfrm(End::Far)).collect();
    let daemon = stage.play(&cells, &xfrm);
    let mut faults = Vec::new();
    // The kernel has the tunnel's other end; ours is written by hand, and needs no module.
    for (kind, protocol, header) in [("ipip", 4, ""), ("gre", 47, "00000800")] {
        for cell in &cells {
            let (near, far) = (cell.outer(End::Near), cell.outer(End::Far));
            batch(
                &stage.far,
                &format!(
                    "link add name others type {kind} local {far} remote {near}\nlink set others up\n\
                     addr add 10.200.0.2/30 dev others\n"
                ),
            );
            let wrap = json!([near, far, protocol, header, "10.200.0.1", "10.200.0.2"]);
            let answer = stage.near.ask(&json!({ "wrap": wrap }));
            if answer["fault"] != "" {
                faults.push(format!("{kind} in {cell}: {}", answer["fault"]));
            }
            batch(&stage.far, "link del others\n");
        }
    }
    faults.extend(unused(&cells, &stage.far.run("ip -s xfrm state"), 2));
    assert!(daemon.stop().success());
    stage.end(faults);
}

/// What makes the other tests mean something.
#[test]
fn another_key_carries_nothing() {
    let Some(ground) = Ground::open(&[Need::Kernel]) else { return };
    let stage = Stage::open(&ground);
    let cells = [
        transport(Version::V4, "aes256gcm16", false),
        transport(Version::V6, "aes256-sha256", false),
        transport(Version::V4, "sha256", false),
    ];
    manual::write(&stage.peers(), &cells, End::Near);
    let mut xfrm = String::new();
    for cell in &cells {
        // What leads to the kernel has another key there.
        let key = match cell.form.protocol {
            Protocol::Ah => cell.integ_key(End::Far),
            Protocol::Esp => cell.encr_key(End::Far),
        };
        let other: String = key.chars().rev().collect();
        assert_ne!(key, other);
        xfrm += &cell.xfrm(End::Far).replace(&key, &other);
    }
    let daemon = stage.play(&cells, &xfrm);
    let ping = Traffic { pings: &[56], tcp: 0, least: 0 };
    let faults = probes(&stage.near, &cells, End::Near, ping);
    assert_eq!(faults.len(), cells.len(), "{faults:?}");
    drop(daemon);
}
