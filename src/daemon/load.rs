//! Configuration files, as the daemon reads them.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::Config;

/// A file has errors.
#[derive(Debug, Error)]
#[error("{path}: {text}")]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Every error of it, with its place.
    pub text: String,
}

/// Reads and checks a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    Err(LoadError { path: path.to_owned(), text: "not read".to_owned() })
}
