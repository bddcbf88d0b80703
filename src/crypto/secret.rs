//! [`Secret`]: bytes that are wiped when dropped, never printed and compared in constant time.

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret bytes: wiped on drop, printed as `[redacted]`, compared in constant time.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over. The caller must not have left copies.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }

    /// No bytes: where an algorithm has no such key.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Vec::new())
    }

    /// The bytes, for the primitive that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Overwrites what functions that have returned left on the stack below the caller. An expanded key that was handed from one to the next
/// has left a copy wherever it was, and one would come into what is made there next: into the unused bytes of a payload, say, and
/// with them on the heap. To be called where keys have come to their place.
#[inline(never)]
pub fn wipe_stack() {
    const FRAMES: usize = 32 << 10;
    core::hint::black_box(&mut [0_u8; FRAMES]);
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_byte_of_it() {
        assert_eq!(format!("{:?}", Secret::copy_of(b"hunter2")), "[redacted]");
    }

    #[test]
    fn equality_is_of_bytes() {
        assert_eq!(Secret::copy_of(b"a"), Secret::copy_of(b"a"));
        assert_ne!(Secret::copy_of(b"a"), Secret::copy_of(b"b"));
        assert_ne!(Secret::copy_of(b"a"), Secret::copy_of(b"ab"));
    }
}
