//! Formats, and nothing else: no policy, no keys, no allocation on the datapath.

pub mod ike;
pub mod reader;

pub use reader::{Malformed, ParseError, Reader};
