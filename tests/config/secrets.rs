//! Secrets in memory, for configurations that are not in files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ipsecd::config::{self, Diagnostics, Loaded, SecretError, SecretFile, SecretSource, Source};
use ipsecd::crypto::Secret;

pub(crate) const KEY: &str = "a key that nobody would guess";

/// Files by name, each with its mode.
#[derive(Default)]
pub(crate) struct Memory {
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
}

impl Memory {
    /// `good.psk`, and others that are not.
    pub(crate) fn usual() -> Self {
        let mut memory = Self::default();
        for (name, contents, mode) in [
            ("good.psk", KEY.as_bytes(), 0o600),
            ("open.psk", KEY.as_bytes(), 0o644),
            ("empty.psk", b"\n", 0o600),
            ("weak.psk", b"hunter2\n", 0o400),
            ("binary.psk", b"0s\xff\xfe", 0o600),
        ] {
            memory.files.insert(PathBuf::from(name), (contents.to_vec(), mode));
        }
        memory
    }

    pub(crate) fn with(mut self, name: &str, contents: &str, mode: u32) -> Self {
        self.files.insert(PathBuf::from(name), (contents.as_bytes().to_vec(), mode));
        self
    }
}

impl SecretSource for Memory {
    fn read(&self, path: &Path) -> Result<SecretFile, SecretError> {
        let (contents, mode) = self.files.get(path).ok_or(SecretError::Missing)?;
        Ok(SecretFile { bytes: Secret::copy_of(contents), mode: Some(*mode) })
    }

    fn credential(&self, _: &str) -> Result<SecretFile, SecretError> {
        Err(SecretError::NoCredentials)
    }
}

/// Checks `text` as the file `name`, which nobody else may read.
pub(crate) fn parse(name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    let source = Source { file: Path::new(name), text, mode: Some(0o600) };
    config::parse(source, &Memory::usual())
}

/// A configuration with nothing but what it must have, and more lines after it.
pub(crate) fn minimal(more: &str) -> String {
    format!(
        "[local]\nid = \"a.example.net\"\nsubnets = [\"10.1.0.0/16\"]\n\
         [peer]\naddress = \"b.example.net\"\nid = \"b.example.net\"\nsubnets = [\"10.2.0.0/16\"]\n\
         [auth]\npsk = {{ file = \"good.psk\" }}\n{more}"
    )
}

/// One pair of SAs with manual keys and nothing but what it must have, and more lines after it.
pub(crate) fn minimal_manual(more: &str) -> String {
    let key = |digit: &str| digit.repeat(64);
    let (key_in, key_out, auth_in, auth_out) = (key("1"), key("2"), key("3"), key("4"));
    format!(
        "[local]\naddress = \"192.0.2.1\"\n[peer]\naddress = \"198.51.100.1\"\n\
         [[manual]]\nprotocol = \"esp\"\nmode = \"transport\"\nproposal = \"aes256-sha256\"\n\
         spi-in = \"0x1001\"\nspi-out = \"0x2001\"\nkey-in = \"{key_in}\"\nkey-out = \"{key_out}\"\n\
         auth-key-in = \"{auth_in}\"\nauth-key-out = \"{auth_out}\"\n{more}"
    )
}
