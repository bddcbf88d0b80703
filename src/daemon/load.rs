//! Configuration files, as the daemon reads them.

use std::ffi::OsStr;
use std::io;
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

/// The configuration files of a directory (`*.conf`), absolute, links resolved, by name.
///
/// # Errors
/// It, or one of them, cannot be read.
pub fn files_of(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("conf")) {
            // What a broken link names is said when it cannot be read.
            let resolved = std::fs::canonicalize(&path).or_else(|_| std::path::absolute(&path))?;
            files.push(resolved);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conf_files_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", "c.psk", "conf"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> = files_of(dir.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.conf", "b.conf"]);
        assert!(files_of(&dir.path().join("none")).is_err());
    }
}
