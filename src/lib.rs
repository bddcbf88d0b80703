//! ipsecd: an IPsec gateway in user space.
//!
//! The layers, each using only those before it:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`wire`] | formats: IP, UDP, ICMP, ESP, IKEv2 messages |
//! | [`crypto`] | primitives, each from a kept library |
//! | [`ipsec`] | RFC 4301's nouns: SPI, selectors, SAD, SPD, PAD, replay window, ESP for one packet |
//! | [`datapath`] | the way of a packet, in batches |
//! | [`ike`] | IKEv2 without I/O |
//! | [`config`] | configuration files, checked |
//! | [`bundle`] | a peer's files in a signed and encrypted message |
//! | [`doctor`] | why a tunnel fails: checks over facts, and what to change |
//! | [`foreign`] | configurations of other programs, read and written |
//! | [`capture`] | captures and key files, read with the same code that receives packets |

#![deny(unsafe_code)]

#[cfg(feature = "daemon")]
pub mod bundle;
#[cfg(feature = "daemon")]
pub mod capture;
#[cfg(feature = "daemon")]
pub mod cli;
pub mod config;
#[cfg(feature = "daemon")]
pub mod control;
pub mod crypto;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod datapath;
#[cfg(feature = "daemon")]
pub mod doctor;
#[cfg(feature = "daemon")]
pub mod foreign;
pub mod ike;
#[cfg(feature = "daemon")]
pub mod io;
pub mod ipsec;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wire;
