//! Configuration files, as the daemon reads them.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{self, Config};
use crate::daemon::secrets::FsSecrets;

/// A file has errors, or does not go with those that are loaded.
#[derive(Debug, Error)]
#[error("{} has errors: {text}", path.display())]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Every error of it, with its place.
    pub text: String,
}

/// Reads and checks a file, by itself and beside those in `others`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load<'a>(
    path: &Path,
    secrets: &FsSecrets,
    others: impl Iterator<Item = &'a Config>,
) -> Result<Config, LoadError> {
    let failed =
        |found: &config::Diagnostics| LoadError { path: path.to_owned(), text: found.to_string() };
    let loaded = config::load(path, secrets).map_err(|found| failed(&found))?;
    for warning in loaded.warnings {
        tracing::warn!(file = %path.display(), "{}", warning.message);
    }
    let config = loaded.config;
    // One of the same name is what it takes the place of.
    let others = others.filter(|other| other.name() != config.name());
    let found = config::conflicts_with(&config, others);
    if found.has_errors() {
        return Err(failed(&found));
    }
    Ok(config)
}
