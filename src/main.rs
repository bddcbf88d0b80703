//! The `ipsecd` program: see [`ipsecd::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ipsecd::cli::run()
}
