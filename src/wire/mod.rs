//! Formats, and nothing else: no policy, no keys, no allocation on the datapath.
//!
//! Headers of the datapath are views over a buffer: `new_checked` for input, after which no accessor
//! panics. Messages of IKE are owned values, read with [`Reader`].

pub mod ah;
pub mod checksum;
pub mod esp;
mod field;
pub mod icmp;
pub mod ike;
pub mod ip;
pub mod natt;
pub mod reader;
pub mod tcp;
pub mod udp;
pub mod vnet;

pub use reader::{Malformed, ParseError, Reader};
