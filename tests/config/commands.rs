//! `ipsecd check` and `ipsecd genpsk`, as functions.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ipsecd::cli::{check, genpsk};
use ipsecd::crypto::random::SecureRandom;
use ipsecd::daemon::secrets::FsSecrets;

use super::secrets::minimal;

/// Counts, so that a key is known.
struct Counting(u8);

impl SecureRandom for Counting {
    fn fill(&mut self, buf: &mut [u8]) {
        for byte in buf {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn with_key() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        genpsk::run(Some(&dir.path("good.psk")), &mut Counting(0), &mut Vec::new()).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Exit code, standard output, standard error.
fn run(files: &[PathBuf]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check::run(files, &FsSecrets::new(None), &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn a_good_file_is_one_line_and_code_0() {
    let dir = Dir::with_key();
    let file = dir.write("site-a.conf", &minimal(""));
    let expected = "site-a: ok: 10.1.0.0/16 <-> 10.2.0.0/16 with b.example.net\n";
    assert_eq!(run(&[file]), (0, expected.to_owned(), String::new()));
}

#[test]
fn all_errors_of_all_files_are_told_and_code_is_2() {
    let dir = Dir::with_key();
    let a =
        dir.write("a.conf", &minimal("[esp]\nmod = \"tunnel\"\n").replace("10.1.0.0", "10.1.0.1"));
    let b = dir.write("b.conf", &minimal("[log]\nlevel = 1\n"));
    let good = dir.write("c.conf", &minimal(""));
    let (code, out, err) = run(&[a, b, good]);
    assert_eq!(code, 2);
    assert_eq!(out, "c: ok: 10.1.0.0/16 <-> 10.2.0.0/16 with b.example.net\n");
    for part in [
        "has bits set beyond",
        "unknown key `mod` in [esp]",
        "`level` in [log] must be a string",
        "\n3 errors\n",
    ] {
        assert!(err.contains(part), "{err}");
    }
}

#[test]
fn files_that_conflict_are_not_ok() {
    let dir = Dir::with_key();
    let a = dir.write("a.conf", &minimal(""));
    let b = dir.write("b.conf", &minimal(""));
    let (code, out, err) = run(&[a, b]);
    assert_eq!(code, 2);
    assert!(out.starts_with("a: ok") && !out.contains("b: ok"), "{out}");
    assert!(err.contains("is in") && err.contains("a.conf too"), "{err}");
}

#[test]
fn a_key_that_others_can_read_is_an_error() {
    let dir = Dir::with_key();
    let file = dir.write("a.conf", &minimal(""));
    let key = dir.path("good.psk");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let (code, _, err) = run(&[file]);
    assert_eq!(code, 2);
    assert!(err.contains("others can read the psk file `good.psk`"), "{err}");
    assert!(err.contains("its mode is 0640") && err.contains("chmod 600"), "{err}");
}

#[test]
fn a_missing_file_is_an_error() {
    let dir = Dir::with_key();
    let (code, out, err) = run(&[dir.path("none.conf")]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("there is no such file"), "{err}");
}

#[test]
fn a_generated_key_is_base64_of_32_bytes_and_owner_only() {
    let mut out = Vec::new();
    genpsk::run(None, &mut Counting(0), &mut out).unwrap();
    assert_eq!(out, b"0sAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
    let dir = Dir::with_key();
    let path = dir.path("good.psk");
    assert_eq!(std::fs::read(&path).unwrap(), out);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_generated_key_is_what_a_configuration_reads() {
    use ipsecd::ipsec::pad::LocalAuth;
    let dir = Dir::with_key();
    let file = dir.write("a.conf", &minimal(""));
    let loaded = ipsecd::config::load(&file, &FsSecrets::new(None)).unwrap();
    let LocalAuth::Psk(psk) = &loaded.config.ike().unwrap().auth.local else { panic!("a psk") };
    assert_eq!(psk.expose(), (0..32).collect::<Vec<u8>>());
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_key_that_is_there_is_not_overwritten() {
    let dir = Dir::with_key();
    let path = dir.path("good.psk");
    let before = std::fs::read(&path).unwrap();
    let error = genpsk::run(Some(&path), &mut Counting(7), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}
