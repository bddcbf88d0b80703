//! [`Sad`]: the Security Association Database (RFC 4301 §4.4.2), as a snapshot.

use thiserror::Error;

use super::Spi;

/// Why an update was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SadError {
    /// An inbound SA with this SPI exists.
    #[error("an inbound SA with SPI {0} exists")]
    DuplicateSpi(Spi),
    /// The suite, or the length of its keys, is not one that the datapath has.
    #[error("no ESP with this suite and these keys")]
    Unsupported,
}
