//! [`FsSecrets`]: configuration files and secrets from the file system.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{SecretError, SecretFile, SecretSource};
use crate::crypto::Secret;

/// No configuration and no key is larger.
const MAX_LEN: u64 = 1 << 20;

/// The file system, and the directory in which systemd puts credentials.
#[derive(Clone, Debug)]
pub struct FsSecrets {
    credentials: Option<PathBuf>,
}

impl FsSecrets {
    /// `credentials` is what `$CREDENTIALS_DIRECTORY` says, if it says anything.
    #[must_use]
    pub const fn new(credentials: Option<PathBuf>) -> Self {
        Self { credentials }
    }
}

impl SecretSource for FsSecrets {
    fn read(&self, path: &Path) -> Result<SecretFile, SecretError> {
        // Non-blocking, so that a FIFO without a writer does not hold us up before it is seen to be none of ours.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| wrap(&error))?;
        read(file)
    }

    fn credential(&self, name: &str) -> Result<SecretFile, SecretError> {
        let directory = self.credentials.as_ref().ok_or(SecretError::NoCredentials)?;
        self.read(&directory.join(name))
    }
}

fn read(file: File) -> Result<SecretFile, SecretError> {
    // Of the open file, not of its name: nobody can put another one in between.
    let metadata = file.metadata().map_err(|error| wrap(&error))?;
    if !metadata.is_file() {
        return Err(SecretError::NotAFile);
    }
    if metadata.len() > MAX_LEN {
        return Err(SecretError::TooLong);
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(metadata.len()).map_err(|_| SecretError::TooLong)? + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(|error| wrap(&error))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(SecretError::TooLong);
    }
    Ok(SecretFile {
        bytes: Secret::new(core::mem::take(&mut *bytes)),
        mode: Some(metadata.mode() & 0o7777),
    })
}

fn wrap(error: &io::Error) -> SecretError {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        SecretError::Missing
    } else if kind == io::ErrorKind::PermissionDenied {
        SecretError::NotPermitted
    } else {
        SecretError::Other(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_comes_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.psk");
        std::fs::write(&path, "key\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let found = FsSecrets::new(None).read(&path).unwrap();
        assert_eq!(found.bytes.expose(), b"key\n");
        assert_eq!(found.mode, Some(0o640));
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = FsSecrets::new(Some(dir.path().to_owned()));
        assert_eq!(secrets.read(&dir.path().join("none")).unwrap_err(), SecretError::Missing);
        assert_eq!(secrets.read(dir.path()).unwrap_err(), SecretError::NotAFile);
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(secrets.credential("fifo").unwrap_err(), SecretError::NotAFile);
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(MAX_LEN + 1).unwrap();
        assert_eq!(secrets.read(&large).unwrap_err(), SecretError::TooLong);
        assert_eq!(FsSecrets::new(None).credential("x").unwrap_err(), SecretError::NoCredentials);
    }
}
