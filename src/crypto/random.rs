//! Randomness as an argument: [`SecureRandom`], and the operating system's as `OsRandom` (feature
//! `daemon`).

use core::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// A source of random bytes fit for keys. The daemon's is the operating system; tests have a seeded
/// one.
pub trait SecureRandom: Send {
    /// Fills `buf`.
    fn fill(&mut self, buf: &mut [u8]);
}

/// The operating system's generator.
#[cfg(feature = "daemon")]
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

#[cfg(feature = "daemon")]
impl SecureRandom for OsRandom {
    /// # Panics
    /// When the operating system has no randomness to give: no key may be made then.
    fn fill(&mut self, buf: &mut [u8]) {
        getrandom::fill(buf).expect("the operating system gives random bytes");
    }
}

/// A [`SecureRandom`] under the traits that the elliptic curve libraries ask for.
pub(super) struct RandCore<'a>(pub(super) &'a mut dyn SecureRandom);

impl TryRng for RandCore<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, buf: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(buf);
        Ok(())
    }
}

impl TryCryptoRng for RandCore<'_> {}

#[cfg(test)]
pub(crate) mod testing {
    //! Predictable sources for unit tests.

    use super::SecureRandom;

    /// Gives the bytes that it was made with, in order, again and again.
    pub(crate) struct Fixed {
        bytes: Vec<u8>,
        next: usize,
    }

    impl Fixed {
        pub(crate) fn new(bytes: &[u8]) -> Self {
            assert!(!bytes.is_empty());
            Self { bytes: bytes.to_vec(), next: 0 }
        }
    }

    impl SecureRandom for Fixed {
        fn fill(&mut self, buf: &mut [u8]) {
            for byte in buf {
                *byte = self.bytes[self.next];
                self.next = (self.next + 1) % self.bytes.len();
            }
        }
    }
}

#[cfg(all(test, feature = "daemon"))]
mod tests {
    use super::*;

    #[test]
    fn operating_system_does_not_repeat_itself() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        OsRandom.fill(&mut a);
        OsRandom.fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }
}
