//! Private keys that a passphrase protects.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::gpg::{CURVES, RSA, feed, text, write_secret};
use crate::site::{IPSECD, Site};

const PASSPHRASE: &str = "öffne dich, sesame";

#[test]
fn it_comes_from_a_file_or_a_credential() {
    let Some(site) = Site::open() else { return };
    site.gpg.make("a", RSA, PASSPHRASE);
    site.gpg.make("b", CURVES, PASSPHRASE);
    for name in ["a", "b"] {
        site.export(name, PASSPHRASE);
    }
    write_secret(&site.path("right.pass"), format!("{PASSPHRASE}\n").as_bytes());
    write_secret(&site.path("wrong.pass"), b"sesame");
    let invite = ["--to", "b.asc", "--sign", "a.key"];
    let message = site.invite(&[&invite[..], &["--passphrase-file", "right.pass"]].concat());
    let accept = ["--key", "b.key", "--from", "a.asc"];
    site.accepted(&message, &[&accept[..], &["--passphrase-file", "right.pass"]].concat());
    for (how, reason) in [
        (&["--passphrase-file", "wrong.pass"][..], "the passphrase does not open it"),
        (&["--passphrase-file", "none.pass"], "there is no such file"),
        (&["--passphrase-credential", "x"], "no credentials were passed"),
        (&[], "there is no terminal to ask on"),
    ] {
        site.refused(reason, &message, &[&accept[..], how].concat(), reason);
        let mut command = site.ipsecd(&["invite", "b.conf"]);
        let output = feed(command.args(invite).args(how), b"");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(reason) && output.stdout.is_empty(), "{}", text(&output));
    }
    let mut command = site.ipsecd(&["accept", "-", "-o", "new"]);
    command.args(accept).args(["--passphrase-credential", "right.pass"]);
    let output = feed(command.env("CREDENTIALS_DIRECTORY", site.dir.path()), &message);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn it_is_asked_for_on_a_terminal_and_not_shown() {
    let Some(site) = Site::open() else { return };
    site.gpg.make("a", CURVES, PASSPHRASE);
    site.export("a", PASSPHRASE);
    let line = format!("{IPSECD} invite b.conf --to a.asc --sign a.key >message");
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).current_dir(site.dir.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = String::new();
    // The first answer is wrong, and it is asked again.
    for answer in ["wrong", PASSPHRASE] {
        wait_for(&mut screen, &mut shown, "Passphrase of key ");
        wait_for(&mut screen, &mut shown, "(a.key): ");
        keys.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
    screen.read_to_string(&mut shown).unwrap();
    assert!(child.wait().unwrap().success(), "{shown}");
    assert!(shown.contains("signed by") && !shown.contains("sesame"), "{shown}");
    let message = std::fs::read(site.path("message")).unwrap();
    write_secret(&site.path("right.pass"), PASSPHRASE.as_bytes());
    let accept = ["--key", "a.key", "--from", "a.asc", "--passphrase-file", "right.pass"];
    site.accepted(&message, &accept);
}

/// Reads until this is on the screen; what came before is forgotten, but for what is kept in `shown`.
#[track_caller]
fn wait_for(screen: &mut impl Read, shown: &mut String, text: &str) {
    let mut since = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&since).contains(text) {
        assert_eq!(screen.read(&mut byte).unwrap(), 1, "no {text:?} in\n{shown}");
        since.extend(byte);
    }
    shown.push_str(&String::from_utf8_lossy(&since));
}
