//! The examples in `conf/`, by the way `ipsecd check` goes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipsecd::cli::{check, genpsk, pki};
use ipsecd::config::{self, Config, render_child, render_ike};
use ipsecd::crypto::random::SecureRandom;
use ipsecd::daemon::secrets::FsSecrets;
use ipsecd::ipsec::pad::{EncapPolicy, Peer, PeerAddress, StartPolicy};

use super::secrets::{minimal, parse};

/// 2026-11-01.
const TODAY: Duration = Duration::from_secs(1_793_491_200);

struct Fixed;

impl SecureRandom for Fixed {
    fn fill(&mut self, buf: &mut [u8]) {
        buf.fill(0x5a);
    }
}

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

/// Every configuration of ipsecd under `dir`.
fn examples(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(examples(&path));
        } else if path.extension().is_some_and(|e| e == "conf") && !path.ends_with("swanctl.conf") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A directory with a copy of an example as a user would have it: owner-only, its key made by `ipsecd genpsk`.
fn installed(example: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(example).unwrap();
    let file = dir.path().join(example.file_name().unwrap());
    std::fs::write(&file, &text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let table: toml::Table = text.parse().unwrap();
    if table.get("auth").is_some_and(|auth| auth.get("ca").is_some()) {
        let args = pki::PkiArgs {
            sites: vec!["a.example.net".to_owned(), "b.example.net".to_owned()],
            dir: dir.path().to_owned(),
            key: pki::Kind::P256,
            days: 1,
            ca_name: "CA".to_owned(),
            request: false,
            raw: false,
        };
        // The elliptic curves take no number twice.
        let mut rng = ipsecd::testing::FixedRandom::new(1, 1);
        pki::run(&args, &mut rng, SystemTime::UNIX_EPOCH + TODAY, &mut Vec::new()).unwrap();
        let pass = dir.path().join("joe.pass");
        std::fs::write(&pass, "correct horse\n").unwrap();
        std::fs::set_permissions(&pass, std::fs::Permissions::from_mode(0o600)).unwrap();
        return (dir, file);
    }
    let place = |key: &toml::Value| -> PathBuf {
        let name = key.get("file").or_else(|| key.get("credential")).unwrap();
        dir.path().join(name.as_str().unwrap())
    };
    if table.contains_key("policy") {
        return (dir, file);
    }
    let Some(manual) = table.get("manual") else {
        let psk = place(&table["auth"]["psk"]);
        genpsk::run(Some(&psk), &mut Fixed, &mut Vec::new()).unwrap();
        if let Some(ppk) = table["auth"].get("ppk") {
            genpsk::run(Some(&place(ppk)), &mut Fixed, &mut Vec::new()).unwrap();
        }
        return (dir, file);
    };
    let pairs = manual.as_array().unwrap().iter();
    let tables = pairs.flat_map(|pair| [Some(pair), pair.get("ah")]).flatten();
    let keys = tables.flat_map(|table| table.as_table().unwrap());
    for (n, (_, key)) in keys.filter(|(name, _)| name.contains("key-")).enumerate() {
        std::fs::write(place(key), format!("{n:02x}\n").repeat(32).replace('\n', "") + "\n")
            .unwrap();
        std::fs::set_permissions(place(key), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    (dir, file)
}

fn load(name: &str) -> Config {
    let (dir, file) = installed(&conf().join(name));
    config::load(&file, &FsSecrets::new(Some(dir.path().to_owned()))).unwrap().config
}

fn ike(name: &str) -> Peer {
    load(name).ike().unwrap().clone()
}

#[test]
fn every_example_passes_ipsecd_check_without_a_word_of_warning() {
    let all = examples(&conf());
    assert!(all.len() >= 12, "{all:?}");
    for example in all {
        let (dir, file) = installed(&example);
        let secrets = FsSecrets::new(Some(dir.path().to_owned()));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check::run(&[file], &secrets, &mut out, &mut err).unwrap();
        let err = String::from_utf8(err).unwrap();
        assert_eq!((code, err.as_str()), (0, ""), "{}", example.display());
        assert!(String::from_utf8(out).unwrap().contains(": ok: "));
    }
}

#[test]
fn every_example_is_listed_in_their_readme() {
    let readme = std::fs::read_to_string(conf().join("README.md")).unwrap();
    for example in examples(&conf()) {
        let name = example.strip_prefix(conf()).unwrap().to_str().unwrap().to_owned();
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn all_options_are_the_defaults() {
    let all = load("all-options.conf");
    let plain = parse(
        "all-options.conf",
        &minimal("").replace("[peer]", "address = \"192.0.2.1\"\n[peer]"),
    )
    .unwrap()
    .config;
    // Debug output of both has everything but the key, which it redacts.
    assert_eq!(format!("{:#?}", all.keying), format!("{:#?}", plain.keying));
    assert_eq!(all.interface, plain.interface);
    assert_eq!(all.log_level.as_deref(), Some("info"));
    let lifetime = plain.ike().unwrap().children[0].lifetime;
    assert_eq!(lifetime.soft_time, Some(Duration::from_secs(3600)));
    assert_eq!(lifetime.hard_time, Some(Duration::from_secs(3960)));
}

#[test]
fn the_two_sites_mirror_each_other() {
    let (a, b) = (ike("site-a.conf"), ike("site-b.conf"));
    assert_eq!((Some(&a.local_id), &a.peer_id), (b.peer_id.as_ref(), &Some(b.local_id.clone())));
    assert_eq!(a.local_addr.map(PeerAddress::Ip), Some(b.address));
    assert_eq!(b.local_addr.map(PeerAddress::Ip), Some(a.address));
    assert_eq!(a.children[0].ts_local, b.children[0].ts_peer);
    assert_eq!(a.children[0].ts_peer, b.children[0].ts_local);
}

#[test]
fn the_examples_show_what_they_say() {
    let any = ike("responder-any.conf");
    assert_eq!(any.address, PeerAddress::Any);
    assert_eq!(any.children[0].start, StartPolicy::Respond);
    assert_eq!(ike("nat.conf").ike.encap, EncapPolicy::Udp);
    assert_eq!(ike("on-traffic.conf").children[0].start, StartPolicy::OnTraffic);
    let v6 = ike("ipv6.conf");
    assert!(v6.local_addr.is_some_and(|address| address.is_ipv6()));
    assert_eq!(v6.children[0].ts_local.len(), 2);
}

#[test]
fn strongswans_side_has_the_same_words() {
    let ours = ike("strongswan/to-strongswan.conf");
    let theirs = std::fs::read_to_string(conf().join("strongswan/swanctl.conf")).unwrap();
    let value = |key: &str| -> Vec<String> {
        let line = theirs.lines().map(str::trim).find_map(|l| l.strip_prefix(&format!("{key} = ")));
        line.unwrap().split(", ").map(str::to_owned).collect()
    };
    assert_eq!(value("proposals").len(), ours.ike.proposals.len());
    // An IKE proposal without a PRF has that of its integrity, which we write out.
    assert_eq!(render_ike(&ours.ike.proposals[0]), value("proposals")[0]);
    assert_eq!(render_ike(&ours.ike.proposals[1]), "aes256-sha256-prfsha256-modp2048");
    assert_eq!(value("proposals")[1], "aes256-sha256-modp2048");
    let esp: Vec<String> = ours.children[0].proposals.iter().map(render_child).collect();
    assert_eq!(esp, value("esp_proposals"));
    assert_eq!(value("local_addrs"), ["198.51.100.1"]);
    assert_eq!(ours.address, PeerAddress::Ip("198.51.100.1".parse().unwrap()));
    assert_eq!(value("local_ts"), ["10.2.0.0/16"]);
    assert_eq!(value("remote_ts"), ["10.1.0.0/16"]);
    assert!(theirs.contains("id = b.example.net") && theirs.contains("id = a.example.net"));
}
