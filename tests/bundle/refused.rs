//! What is wrong is refused with the reason, and writes nothing.

use ipsecd::bundle::Bundle;
use ipsecd::bundle::openpgp::{self, Certificate, PrivateKey};

use crate::gpg::{CURVES, RSA, feed, text, user};
use crate::site::Site;

const ACCEPT: [&str; 4] = ["--key", "b.key", "--from", "a.asc"];
const INVITE: [&str; 4] = ["--to", "b.asc", "--sign", "a.key"];

/// What gpg makes of a plaintext.
#[track_caller]
fn gpg(site: &Site, args: &[&str], plain: &[u8]) -> Vec<u8> {
    let always = ["--trust-model", "always", "--armor"];
    site.gpg.run(&[&always[..], args].concat(), plain)
}

#[test]
fn who_it_is_for_and_from_is_what_it_says() {
    let Some(site) = Site::with_keys(CURVES) else { return };
    let (a, b, c) = (user("a"), user("b"), user("c"));
    let message = site.invite(&INVITE);
    let plain = site.gpg.run(&["--decrypt"], &message);
    let to_c = ["--key", "c.key", "--from", "a.asc"];
    site.refused("another's key", &message, &to_c, "is not for key");
    let from_c = ["--key", "b.key", "--from", "c.asc"];
    let signer = format!("its signature is that of key {}", site.gpg.fingerprint("a"));
    site.refused("another signer", &message, &from_c, &signer);
    // Encrypted alone, signed alone, in the clear, and nothing of the kind.
    let unsigned = gpg(&site, &["-r", &b, "-e"], &plain);
    site.refused("unsigned", &unsigned, &ACCEPT, "nobody has signed it");
    for how in [&["-u", &a, "-s"][..], &["-u", &a, "--clear-sign"]] {
        let signed = gpg(&site, how, &plain);
        site.refused("signed alone", &signed, &ACCEPT, "it is not encrypted");
    }
    site.refused(
        "a passphrase",
        &gpg(&site, &["--passphrase", "x", "-c"], &plain),
        &ACCEPT,
        "is not for key",
    );
    site.refused("a key", &std::fs::read(site.path("a.asc")).unwrap(), &ACCEPT, "another kind");
    site.refused("nothing", b"", &ACCEPT, "it is empty");
    site.refused("plaintext", &plain, &ACCEPT, "does not begin with");
    // Somebody who may open it signs it again, or passes it on as it is.
    let again = gpg(&site, &["-r", &b, "-u", &c, "-s", "-e"], &plain);
    site.refused("signed by another", &again, &ACCEPT, "it is not signed by");
    let passed = gpg(&site, &["-r", &c, "-u", &a, "-s", "-e"], &plain);
    site.refused("passed on", &passed, &to_c, "somebody passed it on");
    // The same name is not the same key.
    let other = Site::open().unwrap();
    other.gpg.make("a", CURVES, "");
    other.gpg.run(&["--import"], &std::fs::read(site.path("b.asc")).unwrap());
    let forged = gpg(&other, &["-r", &b, "-u", &a, "-s", "-e"], &plain);
    let signer = format!("its signature is that of key {}", other.gpg.fingerprint("a"));
    site.refused("same name", &forged, &ACCEPT, &signer);
    // Keys that are none of those that are wanted.
    for (key, from, reason) in [
        ("b.asc", "a.asc", "b.asc: it is a public key"),
        ("b.key", "a.key", "a.key: it is a private key"),
        ("b.conf", "a.asc", "b.conf: it is no OpenPGP key"),
        ("none", "a.asc", "none: there is no such file"),
    ] {
        site.refused(reason, &message, &["--key", key, "--from", from], reason);
    }
    let ring = gpg(&site, &["--export"], b"");
    let files = ["a.asc", "b.asc"].map(|name| std::fs::read(site.path(name)).unwrap());
    for several in [ring, files.concat()] {
        std::fs::write(site.path("all.asc"), several).unwrap();
        let all = ["--key", "b.key", "--from", "all.asc"];
        site.refused("several keys", &message, &all, "there are several keys in it");
    }
    // And it was good all the time.
    site.accepted(&message, &ACCEPT);
}

#[test]
fn what_is_late_or_no_bundle_is_refused() {
    let Some(site) = Site::with_keys(CURVES) else { return };
    let plain = site.gpg.run(&["--decrypt"], &site.invite(&INVITE));
    let plain = String::from_utf8(plain).unwrap();
    let sealed = |plain: &str| {
        gpg(&site, &["-r", &user("b"), "-u", &user("a"), "-s", "-e"], plain.as_bytes())
    };
    let expires = plain.lines().find(|line| line.starts_with("expires = ")).unwrap();
    for (from, to, reason) in [
        (expires, "expires = 2025-01-01T00:00:00Z", "it expired on 2025-01-01T00:00:00Z"),
        (expires, "", "it says not until when"),
        ("ipsecd-bundle-1", "ipsecd-bundle-2", "its format is another"),
        ("b.psk", "../b.psk", "no plain name"),
        ("\"b.psk\"", "\"/tmp/b.psk\"", "no plain name"),
        ("\"b.psk\"", "\"authorized_keys\"", "none of a configuration"),
        ("\"b.psk\"", "\"b.ppk\"", "another one is, too"),
        ("[[file]]", "[[other]]", "there is no file in it"),
        ("[peer]", "[pear]", "its configuration cannot be used here"),
    ] {
        let changed = plain.replace(from, to);
        assert_ne!(changed, plain, "{from}");
        site.refused(to, &sealed(&changed), &ACCEPT, reason);
    }
    site.refused("no TOML", &sealed("hello"), &ACCEPT, "it is no TOML");
    let bytes = vec![b'x'; 2 << 20];
    let bomb = gpg(&site, &["-r", &user("b"), "-u", &user("a"), "-s", "-e"], &bytes);
    site.refused("long", &bomb, &ACCEPT, "larger than");
    // 300 MB in a message of 300 KB, in a process that may have 100 MB.
    let zeros = vec![0; 300_000_000];
    let bomb = gpg(
        &site,
        &["-r", &user("b"), "-u", &user("a"), "-s", "-e", "--compress-algo", "zlib"],
        &zeros,
    );
    drop(zeros);
    assert!(bomb.len() < 1 << 20);
    std::fs::write(site.path("bomb"), bomb).unwrap();
    let line = format!(
        "ulimit -v 100000; exec {} accept bomb -o new --key b.key --from a.asc",
        crate::site::IPSECD
    );
    let output = feed(
        std::process::Command::new("sh").args(["-c", &line]).current_dir(site.dir.path()),
        b"",
    );
    assert!(
        output.status.code() == Some(1) && text(&output).contains("larger than"),
        "{}",
        text(&output)
    );
    let long = vec![b'\n'; (1 << 20) + 1];
    site.refused("a long file", &long, &ACCEPT, "longer than 1 MiB");
    let never = feed(site.ipsecd(&["invite", "b.conf", "--expires", "0"]).args(INVITE), b"");
    assert_eq!(never.status.code(), Some(2), "{}", text(&never));
}

#[test]
fn keys_that_are_revoked_or_expired_are_of_no_use() {
    let Some(site) = Site::with_keys(CURVES) else { return };
    let message = site.invite(&INVITE);
    site.accepted(&message, &ACCEPT);
    // A key of a year ago, for a day.
    let old = ["--faked-system-time", "20250101T000000", "--passphrase", ""];
    let key = ["--quick-generate-key", "old <old@example.net>", "ed25519", "sign,cert", "1d"];
    site.gpg.run(&[&old[..], &key].concat(), b"");
    let fingerprint = site.gpg.fingerprint("old");
    site.gpg.run(
        &[&old[..], &["--quick-add-key", &fingerprint, "cv25519", "encr", "1d"]].concat(),
        b"",
    );
    site.export("old", "");
    // What it signed in its time is not accepted after it, however many others may sign.
    let then = ["--faked-system-time", "20250101T010000", "-r", &user("old"), "-u", &user("old")];
    let plain = site.gpg.run(&["--decrypt"], &message);
    let signed = gpg(&site, &[&then[..], &["-s", "-e"]].concat(), &plain);
    for more in [&[][..], &["--from", "a.asc"]] {
        let args = [&["--key", "old.key", "--from", "old.asc"][..], more].concat();
        let reason = "cannot sign: it expired on 2025-01-02T00:00:00Z";
        site.refused("an expired signer", &signed, &args, reason);
    }
    for name in ["a", "b"] {
        let fingerprint = site.gpg.fingerprint(name);
        let made = site.gpg.revocation(&fingerprint);
        site.gpg.run(&["--import"], &made);
        site.gpg.public(name, site.dir.path());
    }
    site.refused("a revoked signer", &message, &ACCEPT, "cannot sign: it was revoked");
    for (to, sign, reason) in [
        ("b.asc", "c.key", "cannot be encrypted to: it was revoked"),
        ("old.asc", "c.key", "cannot be encrypted to: it expired on"),
        ("c.asc", "old.key", "cannot sign: it expired on"),
    ] {
        let output = feed(&mut site.ipsecd(&["invite", "b.conf", "--to", to, "--sign", sign]), b"");
        let said = text(&output);
        assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{said}");
        assert!(said.contains(reason), "no {reason:?} in\n{said}");
    }
    // A part that was revoked, of a key that was not.
    site.gpg.run(
        &["--command-fd", "0", "--edit-key", &user("c"), "key 1", "revkey", "save"],
        b"y\n0\n\ny\n",
    );
    site.gpg.public("c", site.dir.path());
    let output =
        feed(&mut site.ipsecd(&["invite", "b.conf", "--to", "c.asc", "--sign", "c.key"]), b"");
    assert!(text(&output).contains("cannot be encrypted to: it was revoked"), "{}", text(&output));
}

#[test]
fn nothing_that_is_there_is_overwritten() {
    let Some(site) = Site::with_keys(CURVES) else { return };
    let message = site.invite(&INVITE);
    std::fs::create_dir(site.path("new")).unwrap();
    for name in ["a.example.net.conf", "b.psk", "b.ppk"] {
        std::fs::write(site.path("new").join(name), "mine").unwrap();
        site.refused(name, &message, &ACCEPT, "is there already and is not overwritten");
        std::fs::remove_file(site.path("new").join(name)).unwrap();
        // A link to nowhere is there, too.
        std::os::unix::fs::symlink("/nowhere", site.path("new").join(name)).unwrap();
        let output = site.accept(&message, &ACCEPT);
        assert!(text(&output).contains("not overwritten"), "{}", text(&output));
        std::fs::remove_file(site.path("new").join(name)).unwrap();
    }
    assert_eq!(std::fs::read_dir(site.path("new")).unwrap().count(), 0);
    std::fs::remove_dir(site.path("new")).unwrap();
    std::fs::write(site.path("new"), "a file").unwrap();
    site.refused("no directory", &message, &ACCEPT, "nothing was written");
}

/// Every byte of a message, changed: in the packets and in the armour.
#[track_caller]
fn tampered(of: (&str, &str), changes: &[u8]) {
    let Some(site) = Site::with_keys(of) else { return };
    let read = |name: &str| std::fs::read(site.path(name)).unwrap();
    let key = PrivateKey::read(&read("b.key")).unwrap();
    let from = [Certificate::read(&read("a.asc")).unwrap()];
    // Of the file that was made last: no test reads the clock.
    let now = std::fs::metadata(site.path("c.key")).unwrap().modified().unwrap();
    let opens = |message: &[u8]| match openpgp::open(message, &key, &from, now) {
        Ok(opened) => Bundle::read(&opened.text, &key.fingerprint(), now).is_ok(),
        Err(_) => false,
    };
    let armoured = site.invite(&INVITE);
    let binary = site.gpg.run(&["--dearmor"], &armoured);
    assert!(opens(&armoured) && opens(&binary));
    for (form, message) in [("packets", &binary), ("armour", &armoured)] {
        let mut survived = Vec::new();
        for at in 0..message.len() {
            for &change in changes {
                let mut changed = message.clone();
                changed[at] ^= change;
                if opens(&changed) {
                    survived.push((at, change));
                }
            }
        }
        assert!(survived.is_empty(), "{form}: opened in spite of {survived:x?}");
        let whole = message.trim_ascii_end().len();
        let cut: Vec<usize> = (0..whole).filter(|length| opens(&message[..*length])).collect();
        assert!(cut.is_empty(), "{form}: opened when cut to {cut:?}");
        for more in [&b"x"[..], b"\nx\n", &[0xd2, 0], &binary, &armoured] {
            assert!(!opens(&[message, more].concat()), "{form}: opened with {more:x?} after it");
            assert!(!opens(&[more, message].concat()), "{form}: opened with {more:x?} before it");
        }
    }
    // The same through the command, for some.
    let mut changed = armoured.clone();
    let middle = changed.len() / 2;
    changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
    site.refused("changed", &changed, &ACCEPT, "was changed on its way");
    site.refused("cut", &armoured[..middle], &ACCEPT, "its end is missing");
    site.refused(
        "more",
        &[&armoured[..], b"-- \nregards\n"].concat(),
        &ACCEPT,
        "save the message alone",
    );
}

#[test]
fn a_changed_byte_anywhere_is_noticed_with_x25519() {
    tampered(CURVES, &[0x01, 0x20, 0x80, 0xff]);
}

#[test]
fn a_changed_byte_anywhere_is_noticed_with_rsa() {
    // A key exchange for each takes its time.
    tampered((RSA.0, RSA.0), &[0x01]);
}
