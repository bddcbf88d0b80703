//! The secret of our tokens for quick crash detection (RFC 6290 §5.1), kept in the state directory from one start to the next.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::O_NOFOLLOW;
use tracing::warn;

use crate::crypto::{Secret, SecureRandom};

/// Bytes of the secret (RFC 6290 §5.1).
const LEN: usize = 32;

/// Name of the file.
const NAME: &str = "qcd.secret";

/// The secret in this directory, made if there is none. `None`, and a warning, if it cannot be kept: a secret that does not outlive
/// the process would be of no use.
#[must_use]
pub fn secret(dir: &Path, rng: &mut dyn SecureRandom) -> Option<Secret> {
    let path = dir.join(NAME);
    match read_or_make(dir, &path, rng) {
        Ok(secret) => Some(secret),
        Err(cause) => {
            warn!(path = %path.display(), %cause, "peers will not learn of a crash of ours at once (RFC 6290): no secret for that");
            None
        }
    }
}

fn read_or_make(dir: &Path, path: &Path, rng: &mut dyn SecureRandom) -> io::Result<Secret> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mode = fs::metadata(dir)?.mode();
    if mode & 0o022 != 0 {
        // Whoever can put a file there knows the secret, and can end our IKE SAs at the peers.
        return Err(io::Error::other(format!(
            "others can write to the directory (mode {:04o})",
            mode & 0o7777
        )));
    }
    match OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(path) {
        Ok(file) => read(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(dir, path, rng),
        Err(error) => Err(error),
    }
}

fn read(mut file: &File) -> io::Result<Secret> {
    let mode = file.metadata()?.mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!("others can read it (mode {:04o})", mode & 0o7777)));
    }
    let mut bytes = [0; LEN + 1];
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..])? {
            0 => break,
            more => len += more,
        }
    }
    if len != LEN {
        return Err(io::Error::other("it is damaged: delete it, and another is made"));
    }
    Ok(Secret::copy_of(&bytes[..LEN]))
}

fn make(dir: &Path, path: &Path, rng: &mut dyn SecureRandom) -> io::Result<Secret> {
    let mut bytes = vec![0; LEN];
    rng.fill(&mut bytes);
    let secret = Secret::new(bytes);
    // Whole or not at all, should we end here.
    let new = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(secret.expose())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::FixedRandom;

    #[test]
    fn the_secret_is_the_same_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = secret(&state, &mut FixedRandom::new(1, 1)).unwrap();
        assert_eq!(first.len(), LEN);
        assert_eq!(secret(&state, &mut FixedRandom::new(2, 2)), Some(first));
        let mode = fs::metadata(state.join(NAME)).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn a_secret_that_is_none_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let rng = &mut FixedRandom::new(1, 1);
        let path = dir.path().join(NAME);
        for (contents, mode) in
            [(&[7; LEN - 1][..], 0o600), (&[7; LEN + 1], 0o600), (&[7; LEN], 0o644)]
        {
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret(dir.path(), rng), None);
        }
        fs::remove_file(&path).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(secret(dir.path(), rng), None);
    }
}
