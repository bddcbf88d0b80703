//! `ipsecd invite` and `accept` with GnuPG at the other end: what each makes the other opens, and what is wrong is refused with
//! the reason, and nothing written.
//!
//! Needs `gpg` (Debian: gnupg). Without it a test prints `SKIP`, and fails where the environment says `CI`.

#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod both_ways;
mod gpg;
mod passphrase;
mod refused;
mod site;
