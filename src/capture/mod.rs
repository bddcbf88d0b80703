//! Reading captures: [`Opener`] takes captured frames and the keys of a [`KeyRing`], and says of each what it is, whether
//! it is genuine, and what was in it. `ipsecd decrypt` is thin over this.
//!
//! Packets are opened by `ipsec`, IKE messages by `ike::protect`: what reads a capture is what would have received it.
//! Pure: files come in as readers and texts.

pub mod expect;
pub mod file;
mod ike;
pub mod keys;
mod lenient;
pub mod link;
pub mod open;
pub mod reassembly;
mod sa;
pub mod session;

pub use expect::{Difference, Expectation};
pub use file::{CaptureError, CaptureReader, Frame, PcapngWriter};
pub use ike::{IkeMessage, Inside};
pub use keys::KeyRing;
pub use link::LinkType;
pub use open::{Finding, Layer, Opener, Record, Verdict};
pub use session::{Checked, Mismatch, Session};
