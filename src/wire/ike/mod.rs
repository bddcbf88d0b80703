//! IKEv2 messages (RFC 7296 §3): header, payloads, and the numbers in them.

pub mod header;
pub mod numbers;
pub mod ts;
