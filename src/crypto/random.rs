//! Randomness as an argument: [`SecureRandom`].

/// A source of random bytes fit for keys. The daemon's is the operating system; tests have a seeded one.
pub trait SecureRandom: Send {
    /// Fills `buf`.
    fn fill(&mut self, buf: &mut [u8]);
}
