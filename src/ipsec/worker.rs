//! [`Worker`]: one of those who move packets, and which SAs are its own.

use super::Spi;

/// One of several workers that share the SAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    index: u16,
    of: u16,
}

impl Worker {
    /// There is no other.
    pub const ALONE: Self = Self { index: 0, of: 1 };

    /// Every one of so many; of none there is one.
    pub fn all(of: u16) -> impl Iterator<Item = Self> {
        let of = of.max(1);
        (0..of).map(move |index| Self { index, of })
    }

    /// Whether there is no other.
    #[must_use]
    #[inline]
    pub const fn is_alone(self) -> bool {
        self.of == 1
    }

    /// Which, from 0.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.index
    }

    /// How many there are.
    #[must_use]
    pub const fn of(self) -> u16 {
        self.of
    }

    /// Whether what comes with this SPI is for it: what the sockets are told as well (`io::steer`).
    #[must_use]
    pub fn has(self, spi: Spi) -> bool {
        spi.get() % u32::from(self.of) == u32::from(self.index)
    }

    /// Whether the SA of this resource (RFC 9611) is its own to send by.
    #[must_use]
    #[inline]
    pub const fn has_resource(self, number: u16) -> bool {
        number % self.of == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spi_and_every_resource_is_one_workers() {
        for of in 1..=32 {
            for number in (256..10_000_u16).step_by(13) {
                let spi = Spi::new(number.into()).unwrap();
                assert_eq!(Worker::all(of).filter(|worker| worker.has(spi)).count(), 1);
                let has = |worker: &Worker| worker.has_resource(number);
                assert_eq!(Worker::all(of).filter(has).count(), 1);
            }
        }
    }
}
