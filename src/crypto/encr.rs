//! [`Encr`]: an encryption algorithm and its key length, which only together say what key is
//! needed.

use core::fmt;

use crate::wire::ike::numbers::EncrId;

/// An encryption transform with its key length.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Encr {
    /// The algorithm.
    pub id: EncrId,
    /// Key length in bits without salt, as the Key Length attribute has it (RFC 7296 §3.3.5);
    /// `None` for algorithms of fixed key length, which must not carry the attribute.
    pub key_bits: Option<u16>,
}

impl fmt::Display for Encr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key_bits {
            Some(bits) => write!(f, "{}-{bits}", self.id),
            None => fmt::Display::fmt(&self.id, f),
        }
    }
}

impl fmt::Debug for Encr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_name_and_key_length() {
        let encr = Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(192) };
        assert_eq!(encr.to_string(), "ENCR_AES_CBC-192");
        let encr = Encr { id: EncrId::ENCR_CHACHA20_POLY1305, key_bits: None };
        assert_eq!(encr.to_string(), "ENCR_CHACHA20_POLY1305");
    }
}
