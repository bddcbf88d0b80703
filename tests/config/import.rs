//! `ipsecd import`: every case of `tests/import` against its `expected`, to the letter; and each new file passes `ipsecd check`.
//!
//! A missing `expected` is written by the test, which fails then: read it, and keep it if it is good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ipsecd::cli::import::Disk;
use ipsecd::cli::{CliError, check, import};
use ipsecd::config;
use ipsecd::daemon::secrets::FsSecrets;
use ipsecd::foreign::{self, ForeignError, Host, Import};
use ipsecd::testing::FixedRandom;

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The case as it would be in a directory of its program, with its certificates; and the file to be imported.
fn lay(case: &Path, dir: &Path) -> PathBuf {
    copy(case, dir);
    if let Ok(list) = fs::read_to_string(case.join("pki")) {
        for line in list.lines() {
            let (to, from) = line.split_once(' ').unwrap();
            let to = dir.join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(from);
            fs::copy(from, to).unwrap();
        }
    }
    let names = ["swanctl.conf", "ipsec.conf", "wg0.conf"];
    names.iter().map(|name| dir.join(name)).find(|path| path.exists()).unwrap()
}

/// Imports it on the host at 192.0.2.1, with new keys that are known.
pub(crate) fn import_here(path: &Path) -> Result<Import, ForeignError> {
    let mut number = 0;
    let mut new_psk = || {
        number += 1;
        format!("0x{number:064x}\n").into()
    };
    let addresses = vec!["192.0.2.1".parse().unwrap()];
    foreign::import(path, &Disk, &mut Host { addresses, new_psk: &mut new_psk })
}

#[test]
fn every_case_is_imported_as_expected_and_passes_check() {
    let mut names: Vec<PathBuf> =
        fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.is_dir());
    names.sort();
    assert!(names.len() >= 11, "cases are missing");
    let mut wrong = Vec::new();
    for case in names {
        let dir = tempfile::tempdir().unwrap();
        let file = lay(&case, dir.path());
        let made = import_here(&file).unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let mut shown = String::new();
        for note in &made.notes {
            shown += &note.to_string().replace(&format!("{}/", dir.path().display()), "");
            shown += "\n";
        }
        let mut found = vec![("notes".to_owned(), shown)];
        for file in &made.files {
            let path = out.join(&file.name);
            fs::write(&path, file.text.as_bytes()).unwrap();
            let mode = if file.secret { 0o600 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(!format!("{file:?}").contains("PRIVATE KEY"));
            // Certificates and their keys are those of tests/pki.
            if !file.text.contains("-----BEGIN") {
                found.push((file.name.clone(), file.text.to_string()));
            }
        }
        let peers: Vec<PathBuf> = made
            .files
            .iter()
            .filter(|file| file.name.ends_with(".conf"))
            .map(|file| out.join(&file.name))
            .collect();
        let (mut told, mut err) = (Vec::new(), Vec::new());
        let code = check::run(&peers, &FsSecrets::new(None), &mut told, &mut err).unwrap();
        let err = String::from_utf8(err).unwrap();
        if code != 0 || peers.is_empty() {
            wrong.push(format!("== {}: check says\n{err}", case.display()));
        }
        let expected = case.join("expected");
        if !expected.exists() {
            fs::create_dir(&expected).unwrap();
            for (name, text) in &found {
                fs::write(expected.join(name), text).unwrap();
            }
            wrong.push(format!("== {} had nothing expected, it has now", case.display()));
        }
        let mut there: Vec<String> = fs::read_dir(&expected)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for (name, text) in &found {
            there.retain(|it| it != name);
            let wanted = fs::read_to_string(expected.join(name)).unwrap_or_default();
            if wanted != *text {
                wrong.push(format!("== {}/{name}\n{text}\n-- and not\n{wanted}", case.display()));
            }
        }
        if !there.is_empty() {
            wrong.push(format!("== {}: not made: {there:?}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn secrets_are_for_their_owner_alone_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let file = lay(&cases().join("swanctl-site"), dir.path());
    let output = dir.path().join("out");
    let args = import::ImportArgs { file, output: output.clone(), address: Vec::new() };
    let mut rng = FixedRandom::new(1, 1);
    let run = |rng: &mut FixedRandom| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = import::run(&args, Vec::new(), rng, &FsSecrets::new(None), &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let (code, out, err) = run(&mut rng);
    assert_eq!(code.unwrap(), 0, "{err}");
    assert!(out.contains("head-branch: ok: "), "{out}");
    assert!(err.contains("swanctl.conf:29: updown"), "{err}");
    let psk = output.join("head-branch.psk");
    assert_eq!(fs::metadata(&psk).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&psk).unwrap();
    fs::remove_file(output.join("head-branch.conf")).unwrap();
    let (code, ..) = run(&mut rng);
    let error = code.unwrap_err();
    assert!(
        matches!(error, CliError::Io(..)) && error.to_string().contains("not overwritten"),
        "{error}"
    );
    assert_eq!(fs::read(&psk).unwrap(), before);
    assert!(!output.join("head-branch.conf").exists(), "half of it was written");
}

#[test]
fn what_is_none_of_them_is_refused_with_what_would_be() {
    let dir = tempfile::tempdir().unwrap();
    for (text, part) in [
        ("[local]\n", "none that can be imported"),
        ("connections {\n}\n", "no connection"),
        ("connections {\n a {\n", "not closed"),
        ("conn a\n\tleft\n", "key=value"),
        ("[Interface]\nAddress = 10.0.0.1/24\n", "no PrivateKey"),
    ] {
        let file = dir.path().join("x.conf");
        fs::write(&file, text).unwrap();
        let error = import_here(&file).unwrap_err();
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    let error = import_here(&dir.path().join("none")).unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
}

#[test]
fn a_wireguard_without_a_table_has_no_routes() {
    let dir = tempfile::tempdir().unwrap();
    for (table, has) in
        [("", true), ("Table = auto\n", true), ("Table = 1234\n", true), ("Table = off\n", false)]
    {
        let file = dir.path().join("wg0.conf");
        let text = format!(
            "[Interface]\nPrivateKey = dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\nAddress = 10.8.0.1/24\n{table}[Peer]\n\
             PublicKey = 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=\nAllowedIPs = 10.8.0.2/32\n"
        );
        fs::write(&file, text).unwrap();
        let made = import_here(&file).unwrap();
        let conf = made.files.iter().find(|it| it.name.ends_with(".conf")).unwrap();
        assert_eq!(conf.text.contains("routes = false"), !has, "{table}{}", *conf.text);
        let told = made.notes.iter().any(|note| format!("{note:?}").contains("Table"));
        assert_eq!(told, table.contains("1234"), "{table}");
    }
}

#[test]
fn the_ends_of_one_wireguard_tunnel_fit_each_other() {
    let dir = tempfile::tempdir().unwrap();
    // RFC 7748 §6.1 has both key pairs.
    let ends = [
        (
            "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
            "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
            "10.8.0.1",
            "10.8.0.2",
        ),
        (
            "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
            "10.8.0.2",
            "10.8.0.1",
        ),
    ];
    let mut found = Vec::new();
    for (number, (private, public, own, far)) in ends.into_iter().enumerate() {
        let file = dir.path().join(format!("wg{number}.conf"));
        let text = format!(
            "[Interface]\nPrivateKey = {private}\nAddress = {own}/24\n[Peer]\nPublicKey = {public}\nAllowedIPs = {far}/32\n\
             Endpoint = 192.0.2.{number}:51820\n"
        );
        fs::write(&file, text).unwrap();
        let made = import_here(&file).unwrap();
        let out = dir.path().join(format!("out{number}"));
        fs::create_dir(&out).unwrap();
        for file in &made.files {
            fs::write(out.join(&file.name), file.text.as_bytes()).unwrap();
            fs::set_permissions(out.join(&file.name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let loaded =
            config::load(&out.join(format!("wg{number}.conf")), &FsSecrets::new(None)).unwrap();
        found.push(loaded.config.ike().unwrap().clone());
    }
    let [a, b] = &found[..] else { panic!("two") };
    assert_eq!((Some(&a.local_id), a.peer_id.as_ref()), (b.peer_id.as_ref(), Some(&b.local_id)));
    assert_eq!(a.children[0].ts_local, b.children[0].ts_peer);
    assert_eq!(a.children[0].ts_peer, b.children[0].ts_local);
}
