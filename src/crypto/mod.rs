//! Every cryptographic primitive, each from a kept library. The only module that names one.
//!
//! | module | what | by |
//! | --- | --- | --- |
//! | [`aead`] | AES-GCM with a 16-byte ICV (RFC 4106, RFC 5282) | `ring`; `aes-gcm` for 192-bit keys |
//! | [`cipher`] | AES-CBC (RFC 3602) | `aes`, `cbc` |
//! | [`dh`] | key exchange: x25519, P-256, P-384, MODP | `x25519-dalek`, `p256`, `p384`, `crypto-bigint` |
//! | [`encr`] | the name of an encryption algorithm with its key length | |
//! | [`integ`] | HMAC-SHA2, truncated (RFC 4868) | `hmac`, `sha2` |
//! | [`prf`] | HMAC-SHA2 and prf+ (RFC 7296 §2.13) | `hmac`, `sha2` |
//! | [`random`] | where random bytes come from | `getrandom` |
//! | [`secret`] | bytes that must not leak | `zeroize`, `subtle` |
//! | [`sha`] | plain hashes | `ring` |
//!
//! Nothing here panics on what a peer sends. All randomness is an argument.

pub mod aead;
pub mod cipher;
pub mod dh;
pub mod encr;
pub mod integ;
pub mod prf;
pub mod random;
pub mod secret;
pub mod sha;

pub use encr::Encr;
pub use random::SecureRandom;
pub use secret::Secret;
