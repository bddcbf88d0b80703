//! End to end: daemons in network namespaces, with strongSwan as the peer that is not ours.
//!
//! Needs root, and what `tests/lab/install.sh` installs. A scenario that cannot run prints `SKIP` and why, and fails
//! where the environment says `CI`.

#![expect(clippy::print_stdout, reason = "what a test says is for its reader")]

#[expect(dead_code, reason = "the lab serves two test programs; neither uses all of it")]
#[path = "../lab/mod.rs"]
mod lab;

#[expect(dead_code, reason = "it serves two test programs; this one uses less of it")]
#[path = "../bundle/gpg.rs"]
mod gpg;

mod audit;
mod bundle;
mod captured;
mod cert;
mod children;
mod clear;
mod cookbook;
mod diagnosis;
mod doctor;
mod eap;
mod errors;
mod examples;
mod flood;
mod fragmentation;
mod import;
mod init;
mod keylog;
mod lifecycle;
mod loss;
mod manual;
mod metrics;
mod mobike;
mod modes;
mod offload;
mod playground;
mod pmtu;
mod policies;
mod proof;
mod rekey;
mod reload;
mod services;
mod strongswan;
mod terminal;
mod tunnel;
mod virtual_address;
mod wire;
mod workers;
