//! The datapath from outside: packets in, packets out.

#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]
#![expect(clippy::wildcard_enum_match_arm, reason = "tests look at the one they expect")]

mod agree;
mod ah_captures;
mod ah_flips;
mod ah_scapy;
mod alloc;
mod attack;
mod batches;
mod captures;
#[path = "../lab/counting.rs"]
mod counting;
mod esp_flips;
mod esp_scapy;
mod fragments;
mod hold;
mod inbound;
mod kinds;
mod mtu;
mod mutate;
mod offload;
mod outbound;
mod robustness;
mod several;
mod support;
mod transport;
mod window;
