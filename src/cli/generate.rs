//! Manual pages and completions, out of the command line's own description; the schema of configuration files.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, CliError};
use crate::config;

/// What can be printed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum What {
    /// The JSON Schema of a configuration file
    Schema,
}

/// Prints it.
///
/// # Errors
/// If it cannot be written.
pub fn run(what: What) -> Result<(), CliError> {
    let What::Schema = what;
    // A value is always one of JSON.
    let text = serde_json::to_string_pretty(&config::schema()).unwrap_or_default();
    writeln!(io::stdout(), "{text}").map_err(|error| CliError::Io("cannot write".to_owned(), error))
}

/// Writes a manual page a command into `dir`.
///
/// # Errors
/// If it cannot be written.
pub fn man(dir: &Path) -> Result<(), CliError> {
    let failed = |error| CliError::Io(dir.display().to_string(), error);
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)
}

/// Prints completions.
///
/// # Errors
/// None so far.
pub fn completions(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ipsecd", &mut script);
    io::stdout().write_all(&script).map_err(|error| CliError::Io("cannot write".to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shown_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        man(dir.path()).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let page = dir.path().join(format!("ipsecd-{}.1", command.get_name()));
            assert!(page.exists(), "{}", page.display());
        }
    }
}
