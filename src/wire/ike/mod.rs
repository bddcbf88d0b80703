//! IKEv2 messages (RFC 7296 §3): header, payloads, and the numbers in them.
//!
//! Payloads are owned values, `parse(&mut Reader)` and `emit(&self, &mut Vec<u8>)`, of the bytes after
//! the generic payload header, which [`message`] owns. RESERVED fields are ignored on receipt and sent
//! as zero. What a value means is decided elsewhere; only the form is judged here.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod auth;
pub mod cert;
pub mod cp;
pub mod delete;
pub mod eap;
pub mod header;
pub mod id;
pub mod ke;
pub mod message;
pub mod nonce;
pub mod notify;
pub mod numbers;
pub mod payload;
pub mod sa;
pub mod sk;
pub mod skf;
pub mod ts;
pub mod vendor;

#[cfg(test)]
mod testkit;

/// A length or count for its 16-bit field. More than fits saturates: such a payload has no encoding, and
/// every reader rejects what comes out. No message that fits into a UDP datagram gets there.
fn len16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

/// A length or count for its 8-bit field, as [`len16`].
fn len8(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

/// Writes the 16-bit length of `out[start..]` into its field two bytes after `start`: where the
/// generic payload header, proposals and transforms have it.
fn patch_len(out: &mut [u8], start: usize) {
    let len = len16(out.len().saturating_sub(start));
    if let Some(field) = out.get_mut(start.saturating_add(2)..start.saturating_add(4)) {
        field.copy_from_slice(&len);
    }
}
