//! The outside, one thin room a device: sockets, TUN, netlink, clock, privileges, name resolution.
//!
//! Nothing here decides anything; who uses it is `daemon`.

#![expect(clippy::disallowed_methods, reason = "this is the module that reads the clock")]

pub mod clock;
pub mod host;
pub mod lock;
pub mod lookup;
pub mod privs;
pub mod probe;
pub mod process;
pub mod raw;
pub mod resolve;
pub mod resolved;
pub mod route;
pub mod rule;
mod steer;
pub mod sys;
pub mod terminal;
pub mod too_big;
pub mod tun;
pub mod udp;
pub mod watch;
