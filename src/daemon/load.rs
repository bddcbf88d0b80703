//! Configuration files, as the daemon reads them.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::{self, Beside, Config, Diagnostics};
use crate::daemon::secrets::FsSecrets;

/// A file has errors, or does not go with those that are loaded.
#[derive(Debug, Error)]
#[error("{} has errors:\n{text}", path.display())]
pub struct LoadError {
    /// The file.
    pub path: PathBuf,
    /// Every error of it, with its place.
    pub text: String,
}

/// Reads and checks files, each by itself and beside those before it and those in `others`. One of the same name is what it takes
/// the place of.
///
/// # Errors
/// Everything that is wrong with the first that has errors.
pub fn load<'a>(
    files: &[PathBuf],
    secrets: &FsSecrets,
    others: impl Iterator<Item = &'a Config>,
) -> Result<Vec<Config>, LoadError> {
    let configs: Vec<_> = files.iter().map(|file| read(file, secrets)).collect::<Result<_, _>>()?;
    let mut beside: Beside<'_> = others.collect();
    for (file, config) in files.iter().zip(&configs) {
        let found = beside.conflicts_with_others(config);
        if found.has_errors() {
            return Err(failed(file, &found));
        }
        beside.add(config);
    }
    Ok(configs)
}

fn read(path: &Path, secrets: &FsSecrets) -> Result<Config, LoadError> {
    let loaded = config::load(path, secrets).map_err(|found| failed(path, &found))?;
    for warning in loaded.warnings {
        tracing::warn!(file = %path.display(), "{}", warning.message);
    }
    Ok(loaded.config)
}

fn failed(path: &Path, found: &Diagnostics) -> LoadError {
    LoadError { path: path.to_owned(), text: found.to_string() }
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
