//! Keys: where they are read from, and the forms they may have.

use core::ops::Range;
use std::path::Path;

use base64ct::{Base64, Base64Unpadded, Encoding};

use super::diagnostic::Report;
use super::raw::WrittenKey;
use super::value;
use crate::crypto::Secret;

/// The longest pre-shared key, in bytes.
const MAX_PSK: usize = 4096;

/// From how many bytes on a key gets no warning, and what can be done with a shorter one.
struct Weak {
    below: usize,
    why: &'static str,
}

/// RFC 7296 §2.15.
const WEAK_PSK: Weak = Weak { below: 16, why: "whoever records IKE_AUTH can try guesses" };

/// RFC 8784 §6: 256 bits, of which a quantum computer leaves half.
const WEAK_PPK: Weak = Weak { below: 32, why: "it is to stand against a quantum computer" };

/// Where files come from. The file system is behind it, so that checking a configuration is pure.
pub trait SecretSource {
    /// The file at `path`, whole.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn read(&self, path: &Path) -> Result<SecretFile, SecretError>;

    /// The systemd credential of this name (a plain file name), whole.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn credential(&self, name: &str) -> Result<SecretFile, SecretError>;
}

/// What a [`SecretSource`] found.
#[derive(Clone, Debug)]
pub struct SecretFile {
    /// Its contents.
    pub bytes: Secret,
    /// Its permission bits, if it has any.
    pub mode: Option<u32>,
}

/// Why a [`SecretSource`] has nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// The service manager passed no credentials.
    #[error("no credentials were passed by the service manager")]
    NoCredentials,
    /// It is a directory, a device or the like.
    #[error("it is not a regular file")]
    NotAFile,
    /// We may not read it.
    #[error("no permission to read it")]
    NotPermitted,
    /// What the system said.
    #[error("{0}")]
    Other(String),
    /// It is larger than any configuration or key.
    #[error("it is larger than 1 MiB")]
    TooLong,
}

/// Reads a configured PSK. What is wrong goes to the report.
pub(super) fn load(
    psk: &WrittenKey<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Secret> {
    let make = |at: &str| format!("make a key with: ipsecd genpsk {at}");
    let Found { bytes, span, what } = fetch(psk, "psk", &make, mode, secrets, report)?;
    decode(bytes.expose(), span, &what, &WEAK_PSK, report)
}

/// Reads a configured PPK. What is wrong goes to the report.
pub(super) fn load_ppk(
    ppk: &WrittenKey<'_>,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Secret> {
    let make = |at: &str| format!("make a key with: ipsecd genpsk {at}");
    let Found { bytes, span, what } = fetch(ppk, "ppk", &make, mode, secrets, report)?;
    decode(bytes.expose(), span, &what, &WEAK_PPK, report)
}

/// Reads the manual key `name` of `len` bytes, in hexadecimal digits; `parts` says what the bytes are. What is wrong
/// goes to the report.
pub(super) fn load_hex(
    key: &WrittenKey<'_>,
    name: &str,
    len: usize,
    parts: &str,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Secret> {
    let make = |at: &str| format!("make a key with: openssl rand -hex {len} > {at}");
    let Found { bytes, span, what } = fetch(key, name, &make, mode, secrets, report)?;
    let digits = core::str::from_utf8(bytes.expose()).ok().map(str::trim);
    let digits = digits.map(|text| text.strip_prefix("0x").unwrap_or(text));
    let Some(decoded) = digits.and_then(value::hex).map(Secret::new) else {
        let odd = digits.is_some_and(|text| {
            !text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit())
        });
        let message = if odd {
            format!("{what} has an odd number of hex digits")
        } else {
            format!("{what} is not hex")
        };
        report.error(span, message).help(format!("{} hex digits: {parts}", len * 2));
        return None;
    };
    if decoded.len() != len {
        let got = decoded.len();
        let bytes = if got == 1 { "byte" } else { "bytes" };
        report
            .error(span, format!("{what} has {got} {bytes}, and the proposal needs {len}"))
            .help(format!("{} hex digits: {parts}", len * 2));
        return None;
    }
    Some(decoded)
}

/// A key as it was found, without a newline at its end if it was in a file.
pub(super) struct Found {
    pub(super) bytes: Secret,
    /// Where the configuration speaks of it.
    pub(super) span: Range<usize>,
    /// "the psk in `b.psk`".
    pub(super) what: String,
}

/// Has the key `noun`; `make` is how one is made at a path.
pub(super) fn fetch(
    key: &WrittenKey<'_>,
    noun: &str,
    make: &dyn Fn(&str) -> String,
    mode: Option<u32>,
    secrets: &dyn SecretSource,
    report: &mut Report,
) -> Option<Found> {
    let example = match noun {
        "psk" => "b.psk",
        "ppk" => "b.ppk",
        _ => "b.key",
    };
    match key {
        WrittenKey::Inline(text) => {
            if let Some(mode) = mode.filter(|mode| mode & 0o077 != 0) {
                let file = report.file().display().to_string();
                let ending = example.trim_start_matches('b');
                report
                    .error(
                        text.span(),
                        format!("the {noun} stands in a file that others can {}", can(mode)),
                    )
                    .label(format!("the mode of this file is {:04o}", mode & 0o7777))
                    .help(format!(
                        "chmod 600 {file}, or move the key: {noun} = {{ file = \"…{ending}\" }}"
                    ));
            }
            let bytes = Secret::copy_of(text.get_ref().as_bytes());
            Some(Found { bytes, span: text.span(), what: format!("the {noun}") })
        }
        WrittenKey::File(name) => {
            let given = Path::new(*name.get_ref());
            let shown = name.get_ref().escape_debug().to_string();
            if name.get_ref().is_empty() {
                report
                    .error(name.span(), format!("the name of the {noun} file is empty"))
                    .help(format!("{noun} = {{ file = \"{example}\" }}"));
                return None;
            }
            let base = report.file().parent().unwrap_or_else(|| Path::new("")).to_owned();
            let path = base.join(given);
            let found = match secrets.read(&path) {
                Ok(found) => found,
                Err(error) => {
                    let at = path.display().to_string();
                    let message = format!("cannot read the {noun} file `{shown}`: {error}");
                    let found = report.error(name.span(), message);
                    found.help(if error == SecretError::Missing {
                        make(&at)
                    } else {
                        format!("looked for it at {at}")
                    });
                    return None;
                }
            };
            if let Some(mode) = found.mode.filter(|mode| mode & 0o077 != 0) {
                let can = can(mode);
                report
                    .error(name.span(), format!("others can {can} the {noun} file `{shown}`"))
                    .label(format!("its mode is {:04o}", mode & 0o7777))
                    .help(format!("chmod 600 {}", path.display()));
            }
            let bytes = Secret::copy_of(without_newline(found.bytes.expose()));
            Some(Found { bytes, span: name.span(), what: format!("the {noun} in `{shown}`") })
        }
        WrittenKey::Credential(name) => {
            let given = *name.get_ref();
            let shown = given.escape_debug().to_string();
            let plain =
                !given.is_empty() && given != "." && given != ".." && !given.contains(['/', '\0']);
            if !plain {
                report
                    .error(name.span(), format!("`{shown}` is not the name of a credential"))
                    .help("a plain file name, as in LoadCredential=NAME:/path");
                return None;
            }
            // Its mode tells nothing: the service manager guards the directory, and an ACL shows up as group bits.
            match secrets.credential(given) {
                Ok(found) => {
                    let bytes = Secret::copy_of(without_newline(found.bytes.expose()));
                    let what = format!("the {noun} in credential `{shown}`");
                    Some(Found { bytes, span: name.span(), what })
                }
                Err(error) => {
                    report
                        .error(
                            name.span(),
                            format!("cannot read the credential `{shown}`: {error}"),
                        )
                        .help(format!("in the unit: LoadCredential={shown}:/etc/ipsecd/{shown}"));
                    None
                }
            }
        }
    }
}

const fn can(mode: u32) -> &'static str {
    if mode & 0o044 != 0 { "read" } else { "write" }
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Takes text as it is, `0x…` as hex and `0s…` as base64, as strongSwan does.
fn decode(
    bytes: &[u8],
    span: Range<usize>,
    what: &str,
    weak: &Weak,
    report: &mut Report,
) -> Option<Secret> {
    let secret = if let Some(digits) = strip(bytes, b'x') {
        let decoded = core::str::from_utf8(digits).ok().and_then(value::hex);
        let Some(decoded) = decoded else {
            report
                .error(span, format!("{what} begins with 0x but is not hex"))
                .help("two hex digits a byte; a key that is text must not begin with 0x");
            return None;
        };
        Secret::new(decoded)
    } else if let Some(digits) = strip(bytes, b's') {
        let text = core::str::from_utf8(digits).ok();
        let decoded = text
            .and_then(|t| Base64::decode_vec(t).or_else(|_| Base64Unpadded::decode_vec(t)).ok());
        let Some(decoded) = decoded.filter(|d| !d.is_empty()) else {
            report
                .error(span, format!("{what} begins with 0s but is not base64"))
                .help("letters, digits, + and /; a key that is text must not begin with 0s");
            return None;
        };
        Secret::new(decoded)
    } else {
        if [bytes.first(), bytes.last()].into_iter().flatten().any(u8::is_ascii_whitespace) {
            report
                .warning(span.clone(), format!("{what} begins or ends with white space"))
                .help("it is part of the key: take it away, unless the peer's key has it too");
        }
        Secret::copy_of(bytes)
    };
    if secret.is_empty() {
        report.error(span, format!("{what} is empty")).help("make one with: ipsecd genpsk");
        return None;
    }
    if secret.len() > MAX_PSK {
        let message = format!("{what} has {} bytes", secret.len());
        report.error(span, message).help(format!("at most {MAX_PSK}: is it the right file?"));
        return None;
    }
    if secret.len() < weak.below {
        let n = secret.len();
        let bytes = if n == 1 { "byte" } else { "bytes" };
        report
            .warning(span, format!("{what} is weak: {n} {bytes}, and {}", weak.why))
            .help(format!("at least {} bytes, best random: ipsecd genpsk", weak.below));
    }
    Some(secret)
}

fn strip(bytes: &[u8], form: u8) -> Option<&[u8]> {
    match bytes {
        [b'0', second, rest @ ..] if second.eq_ignore_ascii_case(&form) => Some(rest),
        [..] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> (Option<Vec<u8>>, String) {
        let mut report = Report::new(Path::new("x.conf"), "psk".into());
        let secret = decode(text, 0..3, "the psk", &WEAK_PSK, &mut report);
        let found = report.finish(0);
        let message = found.as_slice().first().map(|d| d.message.clone()).unwrap_or_default();
        (secret.map(|s| s.expose().to_vec()), message)
    }

    #[test]
    fn text_hex_and_base64_are_read_as_strongswan_reads_them() {
        assert_eq!(decoded(b"correct horse battery").0.unwrap(), b"correct horse battery");
        assert_eq!(
            decoded(b"0x000102030405060708090a0b0c0d0e0f").0.unwrap(),
            (0..16).collect::<Vec<u8>>()
        );
        assert_eq!(decoded(b"0sAAECAwQFBgcICQoLDA0ODw==").0.unwrap(), (0..16).collect::<Vec<u8>>());
        assert_eq!(decoded(b"0sAAECAwQFBgcICQoLDA0ODw").0.unwrap(), (0..16).collect::<Vec<u8>>());
    }

    #[test]
    fn a_broken_or_empty_key_is_refused_and_a_short_one_warned_of() {
        assert_eq!(decoded(b"0xabc"), (None, "the psk begins with 0x but is not hex".into()));
        assert_eq!(decoded(b"0s###"), (None, "the psk begins with 0s but is not base64".into()));
        assert_eq!(decoded(b"0s").0, None);
        assert_eq!(decoded(b""), (None, "the psk is empty".into()));
        assert_eq!(decoded(&[b'a'; 5000]).0, None);
        let (secret, warning) = decoded(b"hunter2");
        assert!(secret.is_some() && warning.contains("weak: 7 bytes"));
        assert_eq!(decoded(&[b'a'; 16]).1, "");
        for edge in
            [&b" correct horse battery"[..], b"correct horse battery\n", b"correct horse battery\t"]
        {
            let (secret, warning) = decoded(edge);
            assert_eq!(secret.as_deref(), Some(edge), "it stays part of the key");
            assert_eq!(warning, "the psk begins or ends with white space");
        }
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_is_not_part_of_the_key() {
        assert_eq!(without_newline(b"key\n"), b"key");
        assert_eq!(without_newline(b"key\r\n"), b"key");
        assert_eq!(without_newline(b"key \n\n"), b"key \n");
        assert_eq!(without_newline(b"key"), b"key");
    }
}
