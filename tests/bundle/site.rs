//! A directory with a configuration of one end, and the commands under test.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::gpg::{Gpg, feed, text, write_secret};

pub(crate) const IPSECD: &str = env!("CARGO_BIN_EXE_ipsecd");

const CONFIGURATION: &str = r#"[local]
address = "192.0.2.1"
id = "a.example.net"
subnets = ["10.1.1.0/24"]

[peer]
address = "198.51.100.1"
id = "b.example.net"
subnets = ["10.2.1.0/24"]

[auth]
psk = { file = "b.psk" }
ppk = { id = "a-b", file = "b.ppk" }
"#;

pub(crate) const PSK: &str = "0sMTIzNDU2Nzg5MGFiY2RlZjEyMzQ1Njc4OTBhYmNkZWY=";

/// Ours: its configuration, and keys of gpg that it makes.
pub(crate) struct Site {
    pub(crate) gpg: Gpg,
    pub(crate) dir: tempfile::TempDir,
}

impl Site {
    pub(crate) fn open() -> Option<Self> {
        let site = Self { gpg: Gpg::open()?, dir: tempfile::tempdir().unwrap() };
        std::fs::write(site.conf(), CONFIGURATION).unwrap();
        write_secret(&site.path("b.psk"), format!("{PSK}\n").as_bytes());
        write_secret(&site.path("b.ppk"), format!("{PSK}\n").as_bytes());
        Some(site)
    }

    /// With keys of `a`, `b` and `c` of the same kind, without passphrases.
    pub(crate) fn with_keys(of: (&str, &str)) -> Option<Self> {
        let site = Self::open()?;
        for name in ["a", "b", "c"] {
            site.gpg.make(name, of, "");
            site.export(name, "");
        }
        Some(site)
    }

    pub(crate) fn export(&self, name: &str, passphrase: &str) {
        self.gpg.public(name, self.dir.path());
        self.gpg.private(name, passphrase, self.dir.path());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.path("b.conf")
    }

    /// `ipsecd` in the directory, so that files are named without it; without the terminal of whoever runs the tests.
    pub(crate) fn ipsecd(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setsid");
        command
            .args(["--wait", IPSECD])
            .current_dir(self.dir.path())
            .args(args)
            .env_remove("CREDENTIALS_DIRECTORY");
        command
    }

    /// The message of `ipsecd invite b.conf`.
    #[track_caller]
    pub(crate) fn invite(&self, args: &[&str]) -> Vec<u8> {
        let output = feed(self.ipsecd(&["invite", "b.conf"]).args(args), b"");
        assert!(output.status.success(), "invite {args:?}:\n{}", text(&output));
        output.stdout
    }

    /// `ipsecd accept` of a message, into the directory `new`.
    pub(crate) fn accept(&self, message: &[u8], args: &[&str]) -> Output {
        feed(self.ipsecd(&["accept", "-", "-o", "new"]).args(args), message)
    }

    /// It is accepted; what was said.
    #[track_caller]
    pub(crate) fn accepted(&self, message: &[u8], args: &[&str]) -> String {
        let output = self.accept(message, args);
        assert!(output.status.success(), "accept {args:?}:\n{}", text(&output));
        let new = self.path("new");
        assert_eq!(mode(&new), 0o700);
        let names = ["a.example.net.conf", "b.ppk", "b.psk"];
        let there = listed(&new);
        assert_eq!(there.keys().map(String::as_str).collect::<Vec<_>>(), names);
        for name in names {
            assert_eq!(mode(&new.join(name)), 0o600, "{name}");
        }
        let psk = String::from_utf8(there["b.psk"].clone()).unwrap();
        assert_eq!(psk.trim(), PSK);
        let check = feed(
            self.ipsecd(&["check", "new/a.example.net.conf"]).env("CREDENTIALS_DIRECTORY", "/none"),
            b"",
        );
        assert!(check.status.success(), "{}", text(&check));
        assert!(text(&check).contains("ok: 10.2.1.0/24 <-> 10.1.1.0/24"), "{}", text(&check));
        std::fs::remove_dir_all(new).unwrap();
        text(&output)
    }

    /// It is refused with code 1 and a reason, and everything is as it was; what was said.
    #[track_caller]
    pub(crate) fn refused(&self, what: &str, message: &[u8], args: &[&str], reason: &str) {
        let before = listed(self.dir.path());
        let output = self.accept(message, args);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{what}:\n{said}");
        assert!(said.contains(reason), "{what}: no {reason:?} in\n{said}");
        assert!(!said.contains("panicked"), "{what}:\n{said}");
        let after = listed(self.dir.path());
        assert!(before == after, "{what}: {:?} became {:?}", before.keys(), after.keys());
    }
}

/// Every file below, by its path, with its contents; directories are empty.
fn listed(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            let below = listed(&entry.path());
            found.extend(below.into_iter().map(|(below, text)| (format!("{name}/{below}"), text)));
            found.insert(name, Vec::new());
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}
