//! GnuPG in a home of its own.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A home directory of gpg, and the agent that runs for it.
pub(crate) struct Gpg {
    home: tempfile::TempDir,
}

/// What keys are made of, in gpg's words: the primary key, and the part for encryption.
pub(crate) const CURVES: (&str, &str) = ("ed25519", "cv25519");
pub(crate) const NIST: (&str, &str) = ("nistp256", "nistp384");
pub(crate) const RSA: (&str, &str) = ("rsa2048", "rsa3072");

impl Gpg {
    /// `None`, with the reason on the standard error output, where there is no gpg. A failed test instead where the environment
    /// says `CI`.
    pub(crate) fn open() -> Option<Self> {
        let there = Command::new("gpg").arg("--version").output();
        if there.is_ok_and(|it| it.status.success()) {
            let owner = std::fs::Permissions::from_mode(0o700);
            let mut home = tempfile::Builder::new();
            // A short path: the socket of the agent is in it.
            let home = home.prefix("gpg").permissions(owner).tempdir_in("/tmp");
            let home = home.expect("a directory");
            return Some(Self { home });
        }
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        assert!(std::env::var_os("CI").is_none(), "{test}: needs gpg");
        // Past the capture of the test runner, which shows nothing of a test that passes.
        let _unseen = writeln!(std::io::stderr(), "SKIP {test}: needs gpg");
        None
    }

    fn command(&self) -> Command {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.home.path()).env("LC_ALL", "C");
        command.args(["--batch", "--yes", "--no-tty", "--pinentry-mode", "loopback"]);
        command
    }

    pub(crate) fn try_run(&self, args: &[&str], input: &[u8]) -> Output {
        feed(self.command().args(args), input)
    }

    /// Runs it to its end; a failed test unless it exits with 0. What it printed.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.try_run(args, input);
        assert!(output.status.success(), "gpg {args:?}:\n{}", text(&output));
        output.stdout
    }

    /// Makes the key of `NAME <NAME@example.net>`; its fingerprint.
    #[track_caller]
    pub(crate) fn make(&self, name: &str, of: (&str, &str), passphrase: &str) -> String {
        self.make_primary(name, of.0, "sign,cert", passphrase);
        let fingerprint = self.fingerprint(name);
        self.run(&["--passphrase", passphrase, "--quick-add-key", &fingerprint, of.1, "encr"], b"");
        fingerprint
    }

    #[track_caller]
    pub(crate) fn make_primary(&self, name: &str, of: &str, usage: &str, passphrase: &str) {
        let user = format!("{name} <{name}@example.net>");
        self.run(
            &["--passphrase", passphrase, "--quick-generate-key", &user, of, usage, "never"],
            b"",
        );
    }

    #[track_caller]
    pub(crate) fn fingerprint(&self, name: &str) -> String {
        let listed = self.run(&["--with-colons", "--list-keys", &user(name)], b"");
        let listed = String::from_utf8(listed).expect("it is text");
        let line = listed.lines().find(|line| line.starts_with("fpr:")).expect("a key");
        line.split(':').nth(9).expect("a fingerprint").to_owned()
    }

    /// The revocation that gpg keeps for the day when it is needed.
    pub(crate) fn revocation(&self, fingerprint: &str) -> Vec<u8> {
        let path = self.home.path().join("openpgp-revocs.d").join(format!("{fingerprint}.rev"));
        // A colon keeps it from being used by mistake.
        std::fs::read_to_string(path)
            .expect("gpg made one")
            .replace("\n:-----", "\n-----")
            .into_bytes()
    }

    /// Writes the public key into `dir`.
    #[track_caller]
    pub(crate) fn public(&self, name: &str, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{name}.asc"));
        std::fs::write(&path, self.run(&["--armor", "--export", &user(name)], b""))
            .expect("it is written");
        path
    }

    /// Writes the private key into `dir`.
    #[track_caller]
    pub(crate) fn private(&self, name: &str, passphrase: &str, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{name}.key"));
        let args = ["--passphrase", passphrase, "--armor", "--export-secret-keys", &user(name)];
        write_secret(&path, &self.run(&args, b""));
        path
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let mut command = Command::new("gpgconf");
        let _gone = command.env("GNUPGHOME", self.home.path()).args(["--kill", "all"]).output();
    }
}

/// How a user is found exactly.
pub(crate) fn user(name: &str) -> String {
    format!("<{name}@example.net>")
}

/// Runs a command to its end with this on its standard input.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // Whoever refuses need not read all of it.
        let _closed = pipe.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it has written");
    output
}

/// Both outputs of a process as one text.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(crate) fn write_secret(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(0o600).open(path).expect("it opens");
    file.write_all(bytes).expect("it is written");
}
