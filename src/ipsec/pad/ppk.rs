//! A post-quantum preshared key in a PAD entry (RFC 8784 §2): what it is called, and whether there is an IKE SA without it.

use crate::crypto::Secret;

/// A PPK that a peer has, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ppk {
    /// What it is called: PPK_ID of type PPK_ID_FIXED (RFC 8784 §5.1), without its type. Never empty.
    pub id: Vec<u8>,
    /// The key.
    pub key: Secret,
    /// Whether there is no IKE SA without it.
    pub required: bool,
}
