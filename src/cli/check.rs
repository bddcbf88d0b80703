//! `ipsecd check FILE…`: configuration files, checked without a daemon.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::{self, Config, Diagnostics, SecretSource, Severity};

/// Exit code: every file can be used.
pub const OK: u8 = 0;
/// Exit code: a file cannot be used as it is.
pub const INVALID: u8 = 2;

/// Checks the files, each by itself and all together. Writes one line a good file to `out`; everything that is wrong,
/// and warnings, to `err`. Returns the exit code: [`OK`], or [`INVALID`] where anything is an error.
///
/// # Errors
/// If `out` or `err` cannot be written to.
pub fn run(
    files: &[PathBuf],
    secrets: &dyn SecretSource,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let mut found = Diagnostics::default();
    let mut good: Vec<Config> = Vec::new();
    for file in files {
        match config::load(file, secrets) {
            Ok(loaded) => {
                found.append(loaded.warnings);
                good.push(loaded.config);
            }
            Err(diagnostics) => found.append(diagnostics),
        }
    }
    found.append(config::conflicts(&good.iter().collect::<Vec<_>>()));

    let bad = |config: &Config| {
        let errors = found.as_slice().iter().filter(|d| d.severity == Severity::Error);
        errors.clone().any(|d| d.file == config.file)
    };
    for config in good.iter().filter(|config| !bad(config)) {
        writeln!(out, "{}: ok: {}", config.name(), config.summary())?;
    }
    if !found.is_empty() {
        writeln!(err, "{found}")?;
    }
    let count = |severity| found.as_slice().iter().filter(|d| d.severity == severity).count();
    let errors = count(Severity::Error);
    if errors > 1 {
        writeln!(err, "\n{errors} errors")?;
    }
    Ok(if errors == 0 { OK } else { INVALID })
}
