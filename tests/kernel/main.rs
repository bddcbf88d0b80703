//! Live, against a real Linux kernel with manual keys: every form of ESP and AH that it has.
//!
//! The kernel is Debian's User-Mode-Linux, booted on a tap device in a namespace. Needs root, and what
//! `tests/lab/install.sh` installs. A scenario that cannot run prints `SKIP` and why, and fails where the environment
//! says `CI`.

#![expect(clippy::print_stdout, reason = "what a test says is for its reader")]

#[expect(
    dead_code,
    unused_imports,
    reason = "the lab serves two test programs; neither uses all of it"
)]
#[path = "../lab/mod.rs"]
mod lab;

mod beyond;
mod control;
mod document;
mod ground;
mod lacking;
mod live;
mod manual;
mod matrix;
mod xfrm;
