//! [`Reader`]: the only way in which bytes of unknown origin are taken apart.
//!
//! Owns the bounds check of every length that comes from the wire. A failed read says what was
//! being read and at which offset; nothing here allocates or panics.

use thiserror::Error;

/// Input that does not have the form its standard demands.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("malformed {what} at offset {offset}: {why}")]
pub struct ParseError {
    /// The structure being read, in the words of its RFC (`"SA payload"`).
    pub what: &'static str,
    /// Offset in bytes from the start of the outermost buffer.
    pub offset: usize,
    /// What is wrong.
    pub why: Malformed,
}

/// What is wrong with malformed input.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// A field holds a value that its standard forbids.
    #[error("forbidden value {0}")]
    BadValue(u64),
    /// A length field contradicts the bytes that are there.
    #[error("length field says {0}")]
    BadLength(usize),
    /// More bytes than the structure has room for.
    #[error("{0} trailing bytes")]
    Trailing(usize),
    /// Fewer bytes than the structure needs.
    #[error("{needed} bytes needed, {available} there")]
    Truncated {
        /// Bytes that the next field needs.
        needed: usize,
        /// Bytes left.
        available: usize,
    },
    /// More elements than we accept.
    #[error("more than {0} elements")]
    TooMany(usize),
}

/// A cursor over bytes of unknown origin. Every read is checked.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// Offset of `bytes[0]` in the outermost buffer, for messages.
    base: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, naming the structure `what` in errors.
    #[must_use]
    pub const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { bytes, base: 0, what }
    }

    /// The same place under another name, for the errors of a nested structure.
    #[must_use]
    pub const fn named(mut self, what: &'static str) -> Self {
        self.what = what;
        self
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Whether everything has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Offset of the next byte in the outermost buffer.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.base
    }

    /// An error at the present place.
    #[must_use]
    pub const fn error(&self, why: Malformed) -> ParseError {
        ParseError { what: self.what, offset: self.base, why }
    }

    /// Takes the next `n` bytes.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when fewer are left.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], ParseError> {
        match self.bytes.split_at_checked(n) {
            Some((head, tail)) => {
                self.bytes = tail;
                self.base = self.base.saturating_add(n);
                Ok(head)
            }
            None => {
                Err(self.error(Malformed::Truncated { needed: n, available: self.bytes.len() }))
            }
        }
    }

    /// Takes `N` bytes as an array.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when fewer are left.
    pub fn take_array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when none is left.
    pub fn u8(&mut self) -> Result<u8, ParseError> {
        Ok(u8::from_be_bytes(self.take_array()?))
    }

    /// Takes a 16-bit number in network byte order.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when fewer than 2 bytes are left.
    pub fn u16(&mut self) -> Result<u16, ParseError> {
        Ok(u16::from_be_bytes(self.take_array()?))
    }

    /// Takes a 32-bit number in network byte order.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when fewer than 4 bytes are left.
    pub fn u32(&mut self) -> Result<u32, ParseError> {
        Ok(u32::from_be_bytes(self.take_array()?))
    }

    /// Takes a 64-bit number in network byte order.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when fewer than 8 bytes are left.
    pub fn u64(&mut self) -> Result<u64, ParseError> {
        Ok(u64::from_be_bytes(self.take_array()?))
    }

    /// A reader over the next `n` bytes, which this one then skips.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when fewer are left.
    pub fn sub(&mut self, what: &'static str, n: usize) -> Result<Self, ParseError> {
        let base = self.base;
        let bytes = self.take(n)?;
        Ok(Self { bytes, base, what })
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        let all = self.bytes;
        self.base = self.base.saturating_add(all.len());
        self.bytes = &[];
        all
    }

    /// Ends the reading: everything must have been read.
    ///
    /// # Errors
    /// [`Malformed::Trailing`] when bytes are left.
    pub fn all(self) -> Result<(), ParseError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(self.error(Malformed::Trailing(self.bytes.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_input_names_structure_offset_and_lengths() {
        let mut reader = Reader::new("Nonce payload", &[1, 2, 3]);
        assert_eq!(reader.u16(), Ok(0x0102));
        let error = reader.u32().expect_err("one byte is not four");
        assert_eq!(
            error,
            ParseError {
                what: "Nonce payload",
                offset: 2,
                why: Malformed::Truncated { needed: 4, available: 1 },
            }
        );
        assert_eq!(reader.u8(), Ok(3), "a failed read takes nothing");
        assert_eq!(reader.all(), Ok(()));
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        let mut reader = Reader::new("x", &[1, 2, 3]);
        let sub = reader.sub("y", 2).expect("two bytes are there");
        assert_eq!(sub.offset(), 0);
        assert_eq!(sub.all().expect_err("unread").why, Malformed::Trailing(2));
        assert_eq!(reader.offset(), 2);
        assert_eq!(reader.rest(), &[3]);
        assert!(reader.is_empty());
    }
}
