//! `ipsecd top`: what it draws, and how it behaves on a real terminal.

#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod sample;
mod screens;
