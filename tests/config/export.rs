//! `ipsecd export`: what each program is told, to the letter (`tests/export`); and what is exported for strongSwan and imported
//! again, twice, is what it was.
//!
//! A missing expectation is written by the test, which fails then: read it, and keep it if it is good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipsecd::config::{self, Config};
use ipsecd::daemon::secrets::FsSecrets;
use ipsecd::foreign::export::{Options, Program, export};
use proptest::prelude::*;

use super::import::import_here;
use super::secrets::{minimal, minimal_manual, parse};

const PROGRAMS: [(Program, &str); 5] = [
    (Program::Ipsecd, "ipsecd"),
    (Program::Libreswan, "libreswan"),
    (Program::OpenIked, "openiked"),
    (Program::StrongSwan, "strongswan"),
    (Program::StrongSwan6, "strongswan6"),
];

/// A tunnel with everything that can be said to anybody.
const FULL: &str = "[local]\naddress = \"192.0.2.1\"\nid = \"a.example.net\"\nsubnets = [\"10.1.0.0/16\", \"fd01::/64\"]\n\
     [peer]\naddress = \"198.51.100.1\"\nid = \"ops@example.net\"\nsubnets = [\"10.2.0.0/16\", \"fd02::/64\"]\n\
     [auth]\npsk = { file = \"good.psk\" }\n\
     [ike]\nproposals = [\"aes256gcm16-prfsha384-x25519-ke1_mlkem768\", \"aes256-sha256-modp2048\"]\nrekey-time = \"3h\"\n\
     dpd = \"20s\"\ndpd-action = \"hold\"\nmobike = false\nunique = \"replace\"\n\
     [esp]\nproposals = [\"aes256gcm16-ecp256\", \"aes256-sha256\"]\nstart = \"on-traffic\"\nrekey-bytes = \"1G\"\nencap = \"udp\"\n\
     dscp = 0\ndf = \"clear\"\n\
     [[child]]\nname = \"web\"\nlocal = [\"10.1.0.7[tcp/443]\"]\npeer = [\"10.2.0.0/16\"]\n\
     [[child]]\nname = \"all\"\n";

const POLICIES: &str = "[[policy]]\nname = \"ssh\"\naction = \"bypass\"\nlocal = [\"10.1.0.0/16\", \"fd01::/64\"]\nremote = [\"10.2.0.0/16[tcp/22]\"]\n\
     [[policy]]\nname = \"mail\"\naction = \"discard\"\nremote = [\"10.2.0.0/16[tcp/25]\"]\ndirection = \"outbound\"\n\
     [[policy]]\nname = \"rest\"\naction = \"discard\"\norder = \"last\"\nremote = [\"10.0.0.0/8\"]\n";

#[test]
fn policies_without_ipsec_are_mirrored_and_a_mirror_of_the_mirror_is_what_there_was() {
    let ours = parse("a.conf", POLICIES).unwrap().config;
    let told = |config: &Config, program| {
        export(config, program, &Options::default()).map(|text| text.to_string())
    };
    let theirs = told(&ours, Program::Ipsecd).unwrap();
    assert!(theirs.contains("local = [\"10.2.0.0/16[tcp/22]\"]"), "{theirs}");
    let theirs = parse("b.conf", &theirs).unwrap().config;
    let again = parse("a.conf", &told(&theirs, Program::Ipsecd).unwrap()).unwrap().config;
    assert_eq!(again.fixed(), ours.fixed());
    // What strongSwan can be told of comes back from there.
    let swanctl = told(&ours, Program::StrongSwan).unwrap();
    assert!(swanctl.contains("`mail` stands after every tunnel there"), "{swanctl}");
    assert!(swanctl.contains("`mail` is for both directions there"), "{swanctl}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("swanctl.conf");
    fs::write(&file, swanctl).unwrap();
    let made = import_here(&file).unwrap();
    assert_eq!(made.notes, []);
    let back = parse("b.conf", &made.files[0].text).unwrap().config;
    let [ssh, _, rest] = theirs.fixed() else { panic!("{theirs:?}") };
    assert_eq!((&back.fixed()[0], &back.fixed()[2]), (ssh, rest));
    for program in [Program::Libreswan, Program::OpenIked] {
        assert!(told(&ours, program).unwrap_err().contains("strongSwan alone"));
    }
}

#[test]
fn each_program_is_told_as_expected() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export");
    fs::create_dir_all(&dir).unwrap();
    let mut wrong = Vec::new();
    let any = minimal("").replace("address = \"b.example.net\"", "address = \"any\"");
    for (text, name) in [(FULL, "full"), (any.as_str(), "any")] {
        let config = parse("far.conf", text).unwrap().config;
        for (program, end) in PROGRAMS {
            let made = export(&config, program, &Options::default()).unwrap();
            assert!(!made.contains(super::secrets::KEY), "{end}: a secret that was not asked for");
            let path = dir.join(format!("{name}.{end}"));
            match fs::read_to_string(&path) {
                Ok(expected) if expected == *made => {}
                Ok(expected) => {
                    wrong.push(format!("== {name} {end}\n{}\n-- and not\n{expected}", *made))
                }
                Err(_) => {
                    fs::write(&path, made.as_bytes()).unwrap();
                    wrong.push(format!("== {name} {end} had none, it has now"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn manual_keys_have_no_far_end_to_be_exported() {
    let config = parse("far.conf", &minimal_manual("")).unwrap().config;
    let error = export(&config, Program::StrongSwan, &Options::default()).unwrap_err();
    assert!(error.contains("no IKE"), "{error}");
}

/// Exports for strongSwan, and imports that as the far end's.
fn through(config: &Config, dir: &Path) -> Config {
    let options = Options { secrets: true, ..Options::default() };
    let text = export(config, Program::StrongSwan6, &options).unwrap();
    let file = dir.join("swanctl.conf");
    fs::write(&file, text.as_bytes()).unwrap();
    let made = import_here(&file).unwrap();
    let notes: Vec<String> = made.notes.iter().map(ToString::to_string).collect();
    assert!(notes.is_empty(), "{notes:?}\n{}", *text);
    for file in &made.files {
        fs::write(dir.join(&file.name), file.text.as_bytes()).unwrap();
        fs::set_permissions(dir.join(&file.name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let name = made.files.iter().find(|file| file.name.ends_with(".conf")).unwrap();
    match config::load(&dir.join(&name.name), &FsSecrets::new(None)) {
        Ok(loaded) => loaded.config,
        Err(found) => panic!("{found}\n{}\n{}", *text, *name.text),
    }
}

/// Everything but names of files.
fn meaning(config: &Config) -> String {
    format!("{:#?}", config.keying)
}

fn there_and_back(text: &str) {
    let config = parse("far.conf", text).unwrap().config;
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let other = through(&config, first.path());
    let (ours, theirs) = (config.ike().unwrap(), other.ike().unwrap());
    assert_eq!(Some(&ours.local_id), theirs.peer_id.as_ref());
    for (a, b) in ours.children.iter().zip(&theirs.children) {
        assert_eq!((&a.ts_local, &a.ts_peer), (&b.ts_peer, &b.ts_local));
        assert_eq!(a.proposals, b.proposals);
    }
    let back = through(&other, second.path());
    pretty(&meaning(&config), &meaning(&back));
}

#[track_caller]
fn pretty(a: &str, b: &str) {
    let differ: Vec<_> = a.lines().zip(b.lines()).filter(|(a, b)| a != b).take(5).collect();
    assert!(a == b, "{differ:#?}");
}

#[test]
fn strongswans_side_of_everything_comes_back_as_it_was() {
    there_and_back(FULL);
    let ready = FULL.replace("start = \"on-traffic\"", "start = \"respond\"");
    there_and_back(&ready.replace("10.1.0.7[tcp/443]", "10.1.0.7[udp/1000-2000]"));
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn strongswans_side_of_anything_comes_back_as_it_was(
        id in one_of(&["a.example.net", "192.0.2.1", "keyid:gw-1", "ops@example.net", "@odd name", "C=DE, O=Example, CN=a"]),
        peer_id in one_of(&["b.example.net", "198.51.100.9", "@#00ff", "@@ops", "C=DE, CN=b"]),
        ike in one_of(&["aes256gcm16-prfsha384-x25519", "aes128-sha256-modp2048-ecp256", "aes256-sha512-prfsha384-ecp384-ke1_mlkem768"]),
        esp in one_of(&["aes256gcm16", "aes128-sha256-x25519", "chacha20poly1305-esn-noesn", "aes256gmac", "aes256ctr-sha384"]),
        mode in one_of(&["tunnel", "transport"]),
        start in one_of(&["now", "on-traffic", "respond"]),
        tens in 6_u64..10_000,
        bytes in prop::option::of(10_u64..1_000_000_000_000),
        dpd in one_of(&["off", "10s", "90s"]),
        action in one_of(&["", "dpd-action = \"restart\"", "close-action = \"hold\"", "dpd-action = \"clear\""]),
        encap in one_of(&["auto", "udp"]),
        window in one_of(&["0", "64", "8192"]),
        unique in one_of(&["no", "replace", "keep", "never"]),
        reauth in prop::option::of(600_u64..50_000),
    ) {
        // Half seconds are nowhere to be said.
        let rekey = tens * 10;
        let window = if esp.contains("-esn") && window == "0" { "64".to_owned() } else { window };
        let (local, peer) = if mode == "tunnel" {
            ("subnets = [\"10.1.0.0/16\", \"10.3.0.5[tcp/22]\"]", "subnets = [\"10.2.0.0-10.2.0.9\"]")
        } else {
            ("", "")
        };
        let bytes = bytes.map_or_else(String::new, |n| format!("life-bytes = {n}\n"));
        let reauth = reauth.map_or_else(String::new, |n| format!("reauth-time = \"{n}s\"\n"));
        let text = format!(
            "[local]\naddress = \"192.0.2.1\"\nid = {id:?}\n{local}\n[peer]\naddress = \"198.51.100.1\"\nid = {peer_id:?}\n{peer}\n\
             [auth]\npsk = {{ file = \"good.psk\" }}\n[ike]\nproposals = [{ike:?}]\ndpd = {dpd:?}\n{action}\nunique = {unique:?}\n{reauth}\
             [esp]\nproposals = [{esp:?}]\nmode = {mode:?}\nstart = {start:?}\nrekey-time = \"{rekey}s\"\n{bytes}encap = {encap:?}\n\
             replay-window = {window}\n"
        );
        there_and_back(&text);
    }
}
