//! What the benches share: a clock, medians, and the lines `figure NAME VALUE UNIT` that the report reads.

#![allow(dead_code, reason = "not every bench needs all of it")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipsecd::wire::ip::{Ipv4Packet, Ipv4Repr, NextHeader};

/// How long something takes.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn time(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// Now.
#[expect(clippy::disallowed_methods, reason = "what is measured lives in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Durations of the same thing, as often as it was done.
#[derive(Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// One that took so long for so many.
    pub(crate) fn push(&mut self, taken: Duration, count: usize) {
        self.0.push(taken.as_secs_f64() * 1e9 / count as f64);
    }

    /// Nanoseconds of each: of the middle one.
    pub(crate) fn median(&mut self) -> f64 {
        assert!(!self.0.is_empty(), "something was measured");
        self.0.sort_by(f64::total_cmp);
        self.0[self.0.len() / 2]
    }
}

/// Tells a figure.
#[expect(clippy::print_stdout, reason = "a benchmark prints what it found")]
pub(crate) fn figure(name: &str, value: f64, unit: &str) {
    println!("figure {name} {value:.3} {unit}");
}

/// A packet of UDP from one host and port to another, so many bytes long, without the checksum of UDP.
pub(crate) fn udp_packet(
    [src_addr, dst_addr]: [Ipv4Addr; 2],
    ports: [u16; 2],
    size: usize,
) -> Vec<u8> {
    let udp_len = u16::try_from(size - 20).expect("a short packet");
    let header = Ipv4Repr {
        src_addr,
        dst_addr,
        protocol: NextHeader::UDP,
        tos: 0,
        ident: 0,
        dont_fragment: true,
        ttl: 64,
        payload_len: udp_len,
    };
    let mut packet = vec![0; size];
    packet[..20].copy_from_slice(&header.emit());
    Ipv4Packet::new_checked(&mut packet[..]).expect("a packet").fill_checksum();
    let [src_port, dst_port] = ports.map(u16::to_be_bytes);
    packet[20..22].copy_from_slice(&src_port);
    packet[22..24].copy_from_slice(&dst_port);
    packet[24..26].copy_from_slice(&udp_len.to_be_bytes());
    packet
}
