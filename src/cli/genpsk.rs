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

/// Makes a key of 32 random bytes and writes it to a new file that only its owner can read, or else to `out`, as a
/// line of `0s` and base64: `psk = { file = … }` and `psk = "…"` take it as it is, and so does strongSwan's `secret =`.
///
/// # Errors
/// If the file is there already (it is left as it is) or cannot be written.
pub fn run(file: Option<&Path>, rng: &mut dyn SecureRandom, out: &mut dyn Write) -> io::Result<()> {
    let mut key = Zeroizing::new([0; LEN]);
    rng.fill(&mut *key);
    let line = Zeroizing::new(format!("0s{}\n", &*Zeroizing::new(Base64::encode_string(&*key))));
    let Some(path) = file else { return out.write_all(line.as_bytes()) };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(
        |error| {
            let what = if error.kind() == io::ErrorKind::AlreadyExists {
                "is there already and is not overwritten: remove it first, or choose another name"
                    .to_owned()
            } else {
                format!("cannot be created: {error}")
            };
            io::Error::new(error.kind(), format!("{} {what}", path.display()))
        },
    )?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
