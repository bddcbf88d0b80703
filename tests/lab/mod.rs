//! The lab: network namespaces joined by veth, with real daemons in them.
//!
//! ```text
//! lan A --- gw A --- router --- gw B --- lan B
//! 10.1.1.2  192.0.2.1 | 198.51.100.1  10.2.1.2
//! ```
//!
//! The router knows no way to either LAN, so what passes between them has passed through a tunnel. It can drop,
//! translate addresses, and record. Everything is removed when the [`Lab`] is dropped, also by a panic; what a
//! killed run left behind, the next one sweeps.

pub(crate) mod capture;
pub(crate) mod charon;
pub(crate) mod http;
pub(crate) mod ipsecd;
pub(crate) mod netns;
pub(crate) mod process;
pub(crate) mod readers;
pub(crate) mod relay;
pub(crate) mod stream;
pub(crate) mod tmux;
pub(crate) mod topology;
pub(crate) mod traffic;
pub(crate) mod uml;
pub(crate) mod wait;

pub(crate) use charon::{Charon, Connection};
pub(crate) use ipsecd::{Ipsecd, Peer};
pub(crate) use topology::{Lab, Need};
