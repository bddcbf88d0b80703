//! Every cryptographic primitive, each from a kept library. The only module that names one.

pub mod random;
pub mod secret;

pub use random::SecureRandom;
pub use secret::Secret;
