//! Mutated packets, through the fuzz targets of the datapath: from the network, from a peer that holds the keys, and from
//! the TUN, under every kind of SA.
//!
//! `IPSECD_MUTATIONS` sets how many packets there are for each target, `IPSECD_SEED` where they begin.

use std::fs;
use std::path::Path;

use ipsecd::testing::{FixedRandom, inbound_packet, outbound_packet, spoil};

/// Every seed of a target, with its name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.into_iter().map(|path| (name(&path), fs::read(path).unwrap())).collect()
}

#[expect(clippy::disallowed_methods, reason = "how much is to be tested comes from outside")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// `body` tells how many packets pass.
fn mutate(target: &str, body: fn(&[u8]) -> usize) {
    let seeds = seeds(target);
    assert!(seeds.len() >= 30, "{target} has seeds");
    for (name, seed) in &seeds {
        let passes = !["raw", "ike", "keepalive"].iter().any(|refused| name.contains(refused));
        assert_eq!(body(seed) > 0, passes, "{target}/{name}");
    }
    let (mut passed, count) = (0, number("IPSECD_MUTATIONS", 2_000));
    let first = number("IPSECD_SEED", 0);
    for seed in first..first + count {
        let mut random = FixedRandom::new(seed, 0);
        let mut input = seeds[random.below(seeds.len())].1.clone();
        spoil(&mut random, &mut input);
        let result = std::panic::catch_unwind(|| body(&input));
        let Ok(some) = result else {
            panic!("{target}: IPSECD_SEED={seed} IPSECD_MUTATIONS=1 fails")
        };
        passed += u64::from(some > 0);
    }
    // Most are spoiled, and enough still go the whole way.
    assert!(count < 1000 || passed > count / 10 && passed < count, "{target}: {passed} of {count}");
}

#[test]
fn mutated_packets_from_the_network_are_delivered_or_counted() {
    mutate("inbound_packet", inbound_packet);
}

#[test]
fn mutated_packets_from_the_tun_leave_so_that_the_peer_takes_them() {
    mutate("outbound_packet", outbound_packet);
}
