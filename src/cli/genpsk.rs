//! `ipsecd genpsk [FILE]`: a random pre-shared key.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use crate::crypto::random::SecureRandom;

/// Bytes of a key: as many as the longest PRF that is negotiated by default makes use of in its strength.
const LEN: usize = 32;

/// Makes a key of 32 random bytes and writes it to a new file that only its owner can read, or else (without one, or with `-`) to `out`, as a
/// line of `0s` and base64: `psk = { file = … }` and `psk = "…"` take it as it is, and so does strongSwan's `secret =`.
///
/// # Errors
/// If the file is there already (it is left as it is) or cannot be written.
pub fn run(file: Option<&Path>, rng: &mut dyn SecureRandom, out: &mut dyn Write) -> io::Result<()> {
    let mut key = Zeroizing::new([0; LEN]);
    rng.fill(&mut *key);
    let line = Zeroizing::new(format!("0s{}\n", &*Zeroizing::new(Base64::encode_string(&*key))));
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        return out.write_all(line.as_bytes());
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(
        |error| {
            let what = if error.kind() == io::ErrorKind::AlreadyExists {
                "is there already and is not overwritten: remove it first, or choose another name"
                    .to_owned()
            } else {
                format!("cannot be created: {error}")
            };
            io::Error::new(error.kind(), format!("it {what}"))
        },
    )?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random::OsRandom;

    #[test]
    fn a_key_goes_to_a_new_file_or_else_is_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.psk");
        let printed = |file: Option<&Path>| {
            let mut out = Vec::new();
            run(file, &mut OsRandom, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(printed(Some(&path)).unwrap(), "");
        let key = std::fs::read_to_string(&path).unwrap();
        assert!(key.starts_with("0s") && key.ends_with('\n'));
        let error = printed(Some(&path)).unwrap_err().to_string();
        assert!(error.starts_with("it is there already"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), key);
        for nowhere in [None, Some(Path::new("-"))] {
            assert!(printed(nowhere).unwrap().starts_with("0s"));
        }
        assert!(!Path::new("-").exists());
    }
}
