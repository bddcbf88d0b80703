//! What `ipsecd export` writes, before the program that it is for: libreswan's `addconn` and `algparse`, and `iked -n`. That a tunnel comes
//! of it is a case of theirs, `its_export_is_a_tunnel`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::lab::ipsecd::BINARY;
use crate::lab::topology::Turn;
use crate::lab::{Need, process};
use crate::libreswan;

/// Proposals of `[ike]`; one for each algorithm that there is.
const IKE: &[&str] = &[
    "aes256gcm16-prfsha384-x25519",
    "aes128gcm8-prfsha256-ecp256",
    "aes128ccm12-prfsha512-ecp521",
    "aes192-sha1-prfsha256-modp2048",
    "aes256-sha256-prfsha512-modp3072",
    "aes128-sha256-ecp384-modp4096",
    "aes256-sha512-modp8192",
    "aes128-aesxcbc-prfsha256-modp2048",
    "aes128-aescmac-prfsha256-modp2048",
    "chacha20poly1305-prfsha256-x25519",
    "aes256gcm16-prfsha384-x25519-ke1_mlkem768",
];

/// Lines of `[esp]`.
const ESP: &[&str] = &[
    "proposals = [\"aes256gcm16\"]",
    "proposals = [\"aes128gcm8-x25519\", \"aes256-sha512-modp2048\"]",
    "proposals = [\"aes256gcm12-ecp384\", \"aes128-sha256\"]",
    "proposals = [\"aes192ctr-sha384-esn\"]",
    "proposals = [\"aes128ccm16-noesn-esn\"]",
    "proposals = [\"aes256ccm8\"]",
    "proposals = [\"chacha20poly1305\"]",
    "proposals = [\"chacha20poly1305iiv\"]",
    "proposals = [\"aes256gmac\"]",
    "proposals = [\"null-sha256\"]",
    "proposals = [\"aes128-aesxcbc\"]",
    "proposals = [\"aes128-aescmac\"]",
    "proposals = [\"aes256-sha1\"]\nstart = \"respond\"",
    "protocol = \"ah\"\nproposals = [\"sha256\"]",
    "protocol = \"ah\"\nproposals = [\"aes128gmac\", \"sha512-modp3072\"]",
    "start = \"on-traffic\"\nlife-bytes = \"1G\"\nreplay-window = 0",
];

/// Subnets of both sides.
const SUBNETS: &[[&str; 2]] = &[
    ["\"10.1.0.0/16\"", "\"10.2.0.0/16\""],
    ["\"10.1.0.7\"", "\"10.2.0.1-10.2.0.9\""],
    ["\"10.1.0.0/16\", \"fd01::/64\"", "\"10.2.0.0/16\", \"fd02::5\""],
    ["\"10.1.0.7[tcp/443]\"", "\"10.2.0.0/16\""],
    ["\"0.0.0.0/0\"", "\"10.2.0.0/16[udp/1000-2000]\""],
    ["\"10.1.0.0/16[icmp]\"", "\"10.2.0.0/16[icmp]\""],
];

/// How the two prove themselves, and where they are.
const ENDS: &[&str] = &[
    "[local]\naddress = \"192.0.2.1\"\nid = \"a.example.net\"\n[peer]\naddress = \"198.51.100.1\"\nid = \"b.example.net\"\n",
    "[local]\nid = \"ops@example.net\"\n[peer]\naddress = \"b.example.net\"\nid = \"198.51.100.1\"\n",
    "[local]\naddress = \"2001:db8::1\"\nid = \"C=DE, O=Example, CN=a\"\n[peer]\naddress = \"any\"\nid = \"keyid:gw-1\"\n",
];

/// Every file of the far end, made by `ipsecd export` of a file with one of these each, as it is written for `program`.
fn exported(dir: &Path, program: &str) -> Vec<PathBuf> {
    let mut made = Vec::new();
    let mut one = |ends: &str, subnets: &[&str; 2], ike: &str, esp: &str| {
        let [local, peer] = subnets.map(|list| format!("subnets = [{list}]\n"));
        let (here, there) = ends.split_once("[peer]").expect("both ends");
        let text = format!(
            "{here}{local}[peer]{there}{peer}[auth]\npsk = {{ file = \"far.psk\" }}\n\
             [ike]\nproposals = [{ike:?}, \"aes256-sha256-modp2048\"]\nallow-legacy = true\n\
             [esp]\nallow-legacy = true\n{esp}\n"
        );
        let ours = dir.join("far.conf");
        fs::write(&ours, &text).expect("file is written");
        let mut command = Command::new(BINARY);
        command.args(["export", "--with-secrets", "--for", program]).arg(&ours);
        let output = process::output(&mut command);
        assert!(output.status.success(), "{text}{}", process::text(&output));
        let file = dir.join(format!("{program}-{}.conf", made.len()));
        fs::write(&file, &output.stdout).expect("file is written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode is set");
        made.push(file);
    };
    let psk = dir.join("far.psk");
    fs::write(&psk, "correct horse battery staple\n").expect("file is written");
    fs::set_permissions(&psk, fs::Permissions::from_mode(0o600)).expect("mode is set");
    for ends in ENDS {
        one(ends, &SUBNETS[0], IKE[0], ESP[0]);
    }
    for subnets in SUBNETS {
        one(ENDS[0], subnets, IKE[0], ESP[0]);
    }
    for ike in IKE {
        one(ENDS[0], &SUBNETS[0], ike, ESP[0]);
    }
    for esp in ESP {
        one(ENDS[0], &SUBNETS[0], IKE[0], esp);
    }
    for name in ["full", "any"] {
        let kept =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/export/{name}.{program}"));
        let file = dir.join(format!("{program}-{name}.conf"));
        fs::copy(&kept, &file).expect("file is copied");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode is set");
        made.push(file);
    }
    made
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn libreswan_takes_every_export() {
    let Some(_turn) = Turn::take(&[Need::Libreswan]) else { return };
    let dir = dir();
    let program = |name: &str| Command::new(format!("{}/ipsec/{name}", libreswan::UNPACKED));
    let mut wrong = Vec::new();
    for file in exported(dir.path(), "libreswan") {
        let text = fs::read_to_string(&file).expect("it is there");
        let mut check = |command: &mut Command| {
            let output = process::output(command);
            // What it ignores would be another tunnel.
            let said = process::text(&output);
            if !output.status.success() || said.contains("ERROR") || said.contains("ignoring") {
                wrong.push(format!("{command:?}: {}\n{said}{text}", output.status));
            }
        };
        check(program("addconn").args(["--checkconfig", "--config"]).arg(&file));
        let pfs = if text.contains("\tpfs=yes") { "-pfs=yes" } else { "-pfs=no" };
        let mut proposals = 0;
        for line in text.lines().map(str::trim) {
            if ["ike=", "esp=", "ah="].iter().any(|key| line.starts_with(key)) {
                check(program("algparse").args(["-v2", pfs, line]));
                proposals += 1;
            }
        }
        assert!(proposals > 0, "{text}");
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn openiked_takes_every_export() {
    let Some(_turn) = Turn::take(&[Need::OpenIked]) else { return };
    let dir = dir();
    let files = exported(dir.path(), "openiked");
    // It looks for its user first, which this host may not have; nobody else sees the one that it gets.
    let script = "for name in passwd group; do cp /etc/$name \"$0/$name\"; done\n\
         echo '_iked:x:499:499::/:/usr/sbin/nologin' >>\"$0/passwd\"; echo '_iked:x:499:' >>\"$0/group\"\n\
         for name in passwd group; do mount --bind \"$0/$name\" /etc/$name; done\n\
         for file in \"$@\"; do /usr/local/lib/ipsecd-lab/openiked/usr/sbin/iked -n -f \"$file\" 2>&1 || { echo \"== $file\"; cat \"$file\"; }; done";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", script]).arg(dir.path()).args(&files);
    let said = process::output(&mut command);
    let said = process::text(&said);
    assert_eq!(said.matches("configuration OK").count(), files.len(), "{said}");
    assert!(!said.contains("== "), "{said}");
}
