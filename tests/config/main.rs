//! Configuration files: the examples, what is said of wrong ones, the commands that need no daemon.

#![cfg(feature = "daemon")]
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

mod certificates;
mod commands;
mod conflicts;
mod documentation;
mod errors;
mod examples;
mod export;
mod import;
mod manual;
mod ppk;
mod properties;
mod schema;
mod secrets;
