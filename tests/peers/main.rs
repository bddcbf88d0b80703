//! Live, against IKE daemons that are not ours and whose ESP and AH are a real kernel's: strongSwan, libreswan and
//! OpenIKED in User-Mode-Linux.
//!
//! Each peer is booted once and then meets one case after the other, all cases of a kind being the same for all peers.
//! `IPSECD_CASE=name` runs those alone in whose name it is. Needs root, and what `tests/lab/install.sh` installs. A
//! scenario that cannot run prints `SKIP` and why, and fails where the environment says `CI`.

#![expect(clippy::print_stdout, reason = "what a test says is for its reader")]

#[expect(
    dead_code,
    unused_imports,
    reason = "the lab serves several test programs; none uses all of it"
)]
#[path = "../lab/mod.rs"]
mod lab;

mod cases;
mod exports;
mod far;
mod ground;
mod kernel;
mod libreswan;
mod openiked;
mod session;
mod strongswan;
mod tunnel;
