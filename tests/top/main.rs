//! `ipsecd top`: what it draws, what it costs, and how it behaves on a real terminal.

#![expect(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]
#![expect(clippy::print_stdout, reason = "what a test says is for its reader")]

mod cost;
#[path = "../lab/counting.rs"]
mod counting;
mod sample;
mod screens;
mod terminal;
#[path = "../lab/tmux.rs"]
mod tmux;
#[expect(dead_code, reason = "of the lab, a part")]
#[path = "../lab/wait.rs"]
mod wait;
