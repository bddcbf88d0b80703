//! The datapath from outside: packets in, packets out.

mod alloc;
mod captures;
mod inbound;
mod mtu;
mod outbound;
mod robustness;
mod support;
