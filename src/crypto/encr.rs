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

impl Encr {
    /// Length in bytes of what is taken from the keying material: the key, and after it the salt,
    /// which RFC 3686 calls nonce. `None` for an algorithm, or a key length, that is not ours.
    #[must_use]
    pub const fn keymat_len(self) -> Option<usize> {
        match (self.key_len(), self.salt_len()) {
            (Some(key), Some(salt)) => Some(key + salt),
            _ => None,
        }
    }

    /// Length of the key in bytes, without salt.
    const fn key_len(self) -> Option<usize> {
        match (self.id, self.key_bits) {
            // RFC 7634 §4: 256 bits and no attribute.
            (EncrId::ENCR_CHACHA20_POLY1305 | EncrId::ENCR_CHACHA20_POLY1305_IIV, None) => Some(32),
            (EncrId::ENCR_CHACHA20_POLY1305 | EncrId::ENCR_CHACHA20_POLY1305_IIV, Some(_)) => None,
            (EncrId::ENCR_NULL, None) => Some(0),
            (EncrId::ENCR_NULL, Some(_)) => None,
            // RFC 3602 §5.3, 3686 §5.3, 4106 §8.4, 4309 §7.4, 4543 §5.3: AES has the attribute.
            (_, Some(128)) => Some(16),
            (_, Some(192)) => Some(24),
            (_, Some(256)) => Some(32),
            _ => None,
        }
    }

    /// RFC 4106 §8.1, 4309 §7.1, 4543 §5.4, 7634 §4; RFC 3686 §5.1.
    const fn salt_len(self) -> Option<usize> {
        match self.id {
            EncrId::ENCR_AES_CTR
            | EncrId::ENCR_AES_GCM_8
            | EncrId::ENCR_AES_GCM_12
            | EncrId::ENCR_AES_GCM_16
            | EncrId::ENCR_AES_GCM_16_IIV
            | EncrId::ENCR_NULL_AUTH_AES_GMAC
            | EncrId::ENCR_CHACHA20_POLY1305
            | EncrId::ENCR_CHACHA20_POLY1305_IIV => Some(4),
            EncrId::ENCR_AES_CCM_8
            | EncrId::ENCR_AES_CCM_12
            | EncrId::ENCR_AES_CCM_16
            | EncrId::ENCR_AES_CCM_8_IIV => Some(3),
            EncrId::ENCR_AES_CBC | EncrId::ENCR_NULL => Some(0),
            _ => None,
        }
    }
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

    #[test]
    fn keying_material_is_key_and_salt() {
        for (id, key_bits, len) in [
            (EncrId::ENCR_AES_CBC, Some(192), Some(24)),
            (EncrId::ENCR_AES_CTR, Some(128), Some(20)),
            (EncrId::ENCR_AES_GCM_8, Some(128), Some(20)),
            (EncrId::ENCR_AES_GCM_12, Some(192), Some(28)),
            (EncrId::ENCR_AES_GCM_16_IIV, Some(256), Some(36)),
            (EncrId::ENCR_AES_CCM_8, Some(128), Some(19)),
            (EncrId::ENCR_AES_CCM_12, Some(192), Some(27)),
            (EncrId::ENCR_AES_CCM_16, Some(256), Some(35)),
            (EncrId::ENCR_AES_CCM_8_IIV, Some(256), Some(35)),
            (EncrId::ENCR_NULL_AUTH_AES_GMAC, Some(192), Some(28)),
            (EncrId::ENCR_CHACHA20_POLY1305, None, Some(36)),
            (EncrId::ENCR_CHACHA20_POLY1305_IIV, None, Some(36)),
            (EncrId::ENCR_NULL, None, Some(0)),
            // An attribute that must not be there, one that must be, a length there is none of.
            (EncrId::ENCR_CHACHA20_POLY1305, Some(256), None),
            (EncrId::ENCR_NULL, Some(128), None),
            (EncrId::ENCR_AES_CBC, None, None),
            (EncrId::ENCR_AES_GCM_16, Some(136), None),
            (EncrId::ENCR_3DES, None, None),
            (EncrId::ENCR_3DES, Some(192), None),
        ] {
            assert_eq!(Encr { id, key_bits }.keymat_len(), len, "{id} {key_bits:?}");
        }
    }
}
