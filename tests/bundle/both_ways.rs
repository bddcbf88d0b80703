//! What one makes the other opens.

use crate::gpg::{CURVES, NIST, RSA, user};
use crate::site::{PSK, Site};

const ACCEPT: [&str; 4] = ["--key", "b.key", "--from", "a.asc"];

#[track_caller]
fn both_ways(of: (&str, &str)) {
    let Some(site) = Site::with_keys(of) else { return };
    let message = site.invite(&["--to", "b.asc", "--sign", "a.key"]);
    let armour = String::from_utf8(message.clone()).unwrap();
    assert!(armour.starts_with("-----BEGIN PGP MESSAGE-----\n"), "{armour}");
    // --> gpg decrypts it, and verifies who has signed it.
    let opened = site.gpg.try_run(&["--status-fd", "2", "--decrypt"], &message);
    let (plain, status) =
        (String::from_utf8(opened.stdout).unwrap(), String::from_utf8(opened.stderr).unwrap());
    assert!(opened.status.success(), "{status}");
    let a = site.gpg.fingerprint("a");
    for part in ["DECRYPTION_OKAY", "GOODMDC", "GOODSIG", &format!("VALIDSIG {a}")] {
        assert!(status.contains(part), "no {part} in\n{status}");
    }
    let b = site.gpg.fingerprint("b");
    for part in [PSK, "a.example.net.conf", "10.2.1.0/24", "expires = 2", &b] {
        assert!(plain.contains(part), "no {part} in\n{plain}");
    }
    let packets = site.gpg.run(&["--list-packets"], &message);
    let packets = String::from_utf8(packets).unwrap();
    assert!(packets.contains("compressed packet: algo=2"), "{packets}");
    // Ours opens its own.
    let said = site.accepted(&message, &ACCEPT);
    assert!(said.contains(&format!("signed by {a} a <a@example.net>")), "{said}");
    // <-- what gpg signs and encrypts, in all the forms that it has, is accepted.
    let (a, b, c) = (user("a"), user("b"), user("c"));
    for how in [
        &["--armor", "--recipient", &b][..],
        &["--recipient", &b],
        &["--armor", "--recipient", &c, "--recipient", &b],
        &["--hidden-recipient", &b],
        &["--hidden-recipient", &c, "--hidden-recipient", &b],
        &["--armor", "--recipient", &b, "--compress-algo", "none"],
        &["--armor", "--recipient", &b, "--compress-algo", "zip"],
        &["--recipient", &b, "--cipher-algo", "AES128", "--digest-algo", "SHA256"],
        &["--armor", "--recipient", &b, "--textmode"],
        &["--armor", "--recipient", &b, "--comment", "from our gateway"],
        &["--armor", "--recipient", &b, "--local-user", &c],
    ] {
        let mut args = vec!["--trust-model", "always", "--local-user", &a];
        args.extend(how);
        args.extend(["--sign", "--encrypt"]);
        let message = site.gpg.run(&args, plain.as_bytes());
        let said = site.accepted(&message, &ACCEPT);
        assert!(said.contains("signed by"), "{how:?}:\n{said}");
    }
}

#[test]
fn with_ed25519_and_x25519() {
    both_ways(CURVES);
}

#[test]
fn with_nist_curves() {
    both_ways(NIST);
}

#[test]
fn with_rsa() {
    both_ways(RSA);
}

#[test]
fn a_subkey_signs_and_several_keys_are_for_encryption() {
    let Some(site) = Site::open() else { return };
    for name in ["a", "b"] {
        site.gpg.make_primary(name, "ed25519", "cert", "");
        let fingerprint = site.gpg.fingerprint(name);
        for (of, usage) in [("ed25519", "sign"), ("cv25519", "encr"), ("rsa2048", "encr")] {
            site.gpg.run(&["--passphrase", "", "--quick-add-key", &fingerprint, of, usage], b"");
        }
        site.export(name, "");
    }
    let message = site.invite(&["--to", "b.asc", "--sign", "a.key"]);
    let status = site.gpg.try_run(&["--status-fd", "2", "--decrypt"], &message);
    let shown = String::from_utf8(status.stderr).unwrap();
    // The whole key is what is said to have signed.
    assert!(shown.contains(&site.gpg.fingerprint("a")) && shown.contains("GOODSIG"), "{shown}");
    let said = site.accepted(&message, &ACCEPT);
    assert!(said.contains(&site.gpg.fingerprint("a")), "{said}");
    let args = ["--trust-model", "always", "-r", &user("b"), "-u", &user("a"), "-s", "-e"];
    site.accepted(&site.gpg.run(&args, &status.stdout), &ACCEPT);
    // The primary key stays at home: only its parts are here (a stub of gpg's).
    for name in ["a", "b"] {
        let stub = site.gpg.run(&["--armor", "--export-secret-subkeys", &user(name)], b"");
        crate::gpg::write_secret(&site.path(&format!("{name}.key")), &stub);
    }
    site.accepted(&site.invite(&["--to", "b.asc", "--sign", "a.key"]), &ACCEPT);
}

#[test]
fn several_may_accept_one_bundle() {
    let Some(site) = Site::with_keys(CURVES) else { return };
    let message = site.invite(&["--to", "b.asc", "--to", "c.asc", "--sign", "a.key"]);
    for key in ["b.key", "c.key"] {
        site.accepted(&message, &["--key", key, "--from", "a.asc"]);
    }
    site.refused("a", &message, &["--key", "a.key", "--from", "a.asc"], "is not for key");
    // A directory of those who may sign.
    std::fs::create_dir(site.path("known")).unwrap();
    for name in ["a.asc", "c.asc"] {
        std::fs::copy(site.path(name), site.path("known").join(name)).unwrap();
    }
    site.accepted(&message, &["--key", "b.key", "--from", "known"]);
}

#[test]
fn certificates_that_are_beside_the_configuration_go_with_it() {
    let Some(site) = Site::with_keys(CURVES) else { return };
    let made = crate::gpg::feed(&mut site.ipsecd(&["pki", "a.example.net", "b.example.net"]), b"");
    assert!(made.status.success(), "{}", crate::gpg::text(&made));
    let text = std::fs::read_to_string(site.conf()).unwrap();
    let (head, _) = text.split_once("psk = ").unwrap();
    let auth = "cert = \"a.example.net.pem\"\nkey = \"a.example.net.key\"\nca = [\"ca.pem\"]\n";
    std::fs::write(site.conf(), format!("{head}{auth}")).unwrap();
    let message = site.invite(&["--to", "b.asc", "--sign", "a.key"]);
    let output = site.accept(&message, &ACCEPT);
    let said = crate::gpg::text(&output);
    assert!(output.status.success(), "{said}");
    for name in ["a.example.net.conf", "b.example.net.pem", "b.example.net.key", "ca.pem"] {
        assert!(said.contains(&format!("wrote new/{name}")), "{name}:\n{said}");
    }
    assert!(!site.path("new/a.example.net.key").exists() && !site.path("new/ca.key").exists());
    std::fs::remove_dir_all(site.path("new")).unwrap();
    // Without them nothing is written, since it could not be used.
    std::fs::remove_file(site.path("b.example.net.key")).unwrap();
    let message = site.invite(&["--to", "b.asc", "--sign", "a.key"]);
    site.refused("no key", &message, &ACCEPT, "b.example.net.key");
}
