//! End to end: daemons in network namespaces, with strongSwan as the peer that is not ours.
//!
//! Needs root, and what `tests/lab/install.sh` installs. A scenario that cannot run prints `SKIP` and why, and fails
//! where the environment says `CI`.

#[path = "../lab/mod.rs"]
mod lab;

mod proof;
