//! Every cryptographic primitive, each from a kept library. The only module that names one.
//!
//! | module | what | by |
//! | --- | --- | --- |
//! | [`aead`] | AES-GCM (RFC 4106, RFC 5282), AES-CCM (RFC 4309), ChaCha20-Poly1305 (RFC 7634) | `ring`; `aes-gcm`, `ccm` |
//! | [`cipher`] | AES-CBC (RFC 3602), AES-CTR (RFC 3686) | `aes`, `cbc`, `ctr` |
//! | [`des`] | DES-CBC (RFC 2405), 3DES-CBC (RFC 2451), for reading captures | `des`, `cbc` |
//! | [`dh`] | key exchange: x25519, P-256, P-384, P-521, MODP, ML-KEM | `x25519-dalek`, `p256`, `p384`, `p521`, `crypto-bigint`, `ml-kem` |
//! | [`encr`] | the name of an encryption algorithm with its key length | |
//! | [`gmac`] | AES-GMAC (RFC 4543) | `aes`, `ghash` |
//! | [`integ`] | HMAC-SHA2, HMAC-SHA1, AES-XCBC, AES-CMAC, truncated; AES-GMAC | `hmac`, `sha2`, `sha1`, `aes`, `cmac` |
//! | [`mschapv2`] | MS-CHAP-V2 (RFC 2759) and its keys (RFC 3079) | `md4`, `des`, `sha1` |
//! | [`pem`] | PEM blocks (RFC 7468) | `base64ct` |
//! | [`prf`] | HMAC-SHA2 and prf+ (RFC 7296 §2.13) | `hmac`, `sha2` |
//! | [`random`] | where random bytes come from | `getrandom` |
//! | [`secret`] | bytes that must not leak | `zeroize`, `subtle` |
//! | [`sha`] | plain hashes | `ring` |
//! | [`sign`] | RSA, ECDSA, Ed25519; private keys in PKCS #8, PKCS #1, SEC 1 | `ring`; `p256`, `p384`, `p521`, `pkcs8` |
//! | [`tls`] | TLS for EAP-TLS | `rustls` |
//! | [`x509`] | certificates and their chains (RFC 5280) | `rustls-webpki`, `x509-cert` |
//!
//! Nothing here panics on what a peer sends. All randomness is an argument, but for RSA signatures and TLS, for which `ring` asks
//! the operating system.

pub mod aead;
mod block;
pub mod cipher;
pub mod des;
pub mod dh;
pub mod encr;
pub mod gmac;
pub mod integ;
pub mod mschapv2;
pub mod pem;
pub mod prf;
pub mod random;
pub mod secret;
pub mod sha;
pub mod sign;
pub mod tls;
pub mod x509;
mod xcbc;

pub use encr::Encr;
pub use random::SecureRandom;
pub use secret::Secret;
