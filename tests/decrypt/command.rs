//! The command itself: what it prints, writes and returns.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ipsecd::capture::LinkType;
use serde_json::Value;

use crate::{Case, frames, pcapng};

fn decrypt(args: &[&Path], options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipsecd"));
    command.arg("decrypt").args(args).args(options).stdin(Stdio::null());
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn run(case: &Case, more: &[&Path]) -> Output {
    let first = [&*case.wire, Path::new("--keys"), &case.json];
    decrypt(&[&first, more].concat(), &[])
}

const EXPECT: &str = "--expect";

#[test]
fn what_is_expected_is_found_and_told() {
    for (set, name, line) in [
        ("kernel", "esp-tun-4in6-aes256gcm16", "ESP 0x"),
        ("kernel", "espudp-trn4-aes128gcm16", "UDP/ESP 0x"),
        (
            "kernel",
            "ahesp-bundle-trn4",
            "AH 0xc0a6e253 seq 1  ESP 0xc0a6e251 seq 1  ok: 10.9.1.1 >",
        ),
        ("kernel", "ah-tun6-sha384", "AH 0x"),
        ("kernel", "esp-frag-trn4-aes128-sha256", "(fragments, packets 0 to 1)"),
        ("kernel", "esp-replay-tun4-aes256gcm16", "replayed"),
        ("kernel", "esp-replay-old-tun4-aes128gcm16", "too old for the replay window"),
        ("kernel", "espudp-tun4-aes256gcm16", "NAT-keepalive"),
        ("ike", "ike-frag-v6", "IKE  IKE_AUTH response 1: SKF{ID_R CERT AUTH SA TS_I TS_R}"),
    ] {
        let case = Case::named(set, name);
        let output = run(&case, &[Path::new(EXPECT), &case.plain]);
        let text = stdout(&output);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        assert!(text.contains(line), "{name}: no {line:?} in\n{text}");
        assert!(text.contains(&format!("as expected: {} inner packets", case.plain().len())));
        assert_eq!(stderr(&output), "");
    }
}

#[test]
fn the_first_difference_is_shown_and_is_a_failure() {
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let dir = tempfile::tempdir().unwrap();
    let plain = frames(&fs::read(&case.plain).unwrap());
    let expect = |packets: &[ipsecd::capture::Frame]| {
        let file = dir.path().join("plain.pcapng");
        fs::write(&file, pcapng(packets)).unwrap();
        let output = run(&case, &[Path::new(EXPECT), &file]);
        (output.status.code(), stderr(&output), stdout(&output))
    };
    assert_eq!(expect(&plain).0, Some(0), "in pcapng as well");
    let mut other = plain.clone();
    other[3].data[20] ^= 0xff;
    other[5].data[20] ^= 0xff;
    let (code, error, text) = expect(&other);
    assert_eq!(code, Some(1));
    assert!(error.contains("inner packet 3 differs from byte 20 on"), "{error}");
    assert!(error.contains("expected") && error.contains("it came in packet 3"), "{error}");
    assert!(!text.contains("as expected") && text.lines().count() == 5, "it stops: {text}");
    let (code, error, _) = expect(&plain[..plain.len() - 1]);
    assert!(code == Some(1) && error.contains("is one too many"), "{error}");
    let (code, error, _) = expect(&[&plain[..], &plain[..1]].concat());
    assert!(code == Some(1) && error.contains("is missing"), "{error}");
}

#[test]
fn inner_packets_are_written_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let case = Case::named("kernel", "esp-trn6-exthdrs");
    let file = dir.path().join("plain.pcapng");
    assert!(run(&case, &[Path::new("--write"), &file]).status.success());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let written = frames(&fs::read(&file).unwrap());
    assert!(written.iter().all(|frame| frame.link == LinkType::RAW));
    let packets: Vec<_> = written.iter().map(|frame| frame.data.clone()).collect();
    assert_eq!(packets, case.plain());
    let times: Vec<_> = case.wire().iter().map(|frame| frame.time).collect();
    assert!(written.iter().all(|frame| times.contains(&frame.time)));
}

#[test]
fn a_wrong_key_is_a_failure_with_a_hint_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&case.json).unwrap()).unwrap();
    for sa in json["sas"].as_array_mut().unwrap() {
        sa["aead"]["key"] = "00".repeat(32).into();
    }
    let (keys, out) = (dir.path().join("keys.json"), dir.path().join("out.pcapng"));
    fs::write(&keys, json.to_string()).unwrap();
    let args = [&*case.wire, Path::new("--keys"), &keys, Path::new("--write"), &out];
    let output = decrypt(&args, &[]);
    assert_eq!(output.status.code(), Some(1));
    let (text, error) = (stdout(&output), stderr(&output));
    assert_eq!(text.matches("  bad ICV\n").count(), 34, "{text}");
    assert_eq!(error.matches("the key does not match").count(), 2, "{error}");
    assert!(frames(&fs::read(&out).unwrap()).is_empty());
}

#[test]
fn keys_for_other_sas_alone_are_a_failure_that_names_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let keys = dir.path().join("keys");
    for (text, rest) in [
        ("", "ESP 0xc0d93f81, ESP 0xc0d93f82"),
        (
            "\"IPv4\",\"*\",\"*\",\"0x100\",\"NULL\",\"\",\"NULL\",\"\"\n",
            "ESP 0xc0d93f81, ESP 0xc0d93f82",
        ),
        ("0xc0d93f81@10.9.2.1 blowfish-cbc:0x00\n", "ESP 0xc0d93f81, ESP 0xc0d93f82"),
    ] {
        fs::write(&keys, text).unwrap();
        let output = decrypt(&[&case.wire, Path::new("--keys"), &keys], &[]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("no key opens any of the 34 protected packets: ESP 0x"), "{error}");
        assert!(error.ends_with(&format!("{rest}\n")), "{error}");
    }
    // One of two SAs is enough.
    let row = case.ring().sas[0].clone();
    fs::write(&keys, ipsecd::capture::keys::esp_sa::write(&row).unwrap()).unwrap();
    let output = decrypt(&[&case.wire, Path::new("--keys"), &keys], &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    // So is a capture in which nothing is protected.
    let output = decrypt(&[&case.plain, Path::new("--keys"), &keys], &[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn what_is_no_capture_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let keys = [Path::new("--keys"), &case.json];
    let output = decrypt(&[&[dir.path()], &keys[..]].concat(), &[]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("Is a directory"));
    let zipped = dir.path().join("wire.pcap.gz");
    fs::write(&zipped, [&[0x1f, 0x8b, 8, 0][..], &[0; 40]].concat()).unwrap();
    let output = decrypt(&[&[&*zipped], &keys[..]].concat(), &[]);
    let error = stderr(&output);
    assert!(
        output.status.code() == Some(1) && error.contains("is compressed: unpack it first"),
        "{error}"
    );
}

#[test]
fn json_has_an_object_a_packet_and_a_summary() {
    let case = Case::named("ike", "ike-frag-v6");
    let args = [&*case.wire, Path::new("--keys"), &case.json];
    let output = decrypt(&args, &["--json"]);
    assert!(output.status.success());
    let lines: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [packets @ .., summary, noted] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(packets.len(), case.wire().len());
    assert_eq!(noted["as_noted"]["packets"], 16);
    assert_eq!(summary["summary"]["ok"], 16);
    assert_eq!(summary["findings"], serde_json::json!([]));
    let inner: Vec<_> = packets.iter().filter_map(|packet| packet["inner"].as_str()).collect();
    let plain: Vec<String> = case
        .plain()
        .iter()
        .map(|packet| packet.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    assert_eq!(inner, plain);
    assert_eq!(packets[2]["ike"]["fragment"], serde_json::json!([1, 2]));
    assert_eq!(packets[5]["ike"]["inside"][0], "ID_R");
    assert_eq!(packets[6]["layers"][0]["sequence"], 1);
}

#[test]
fn a_key_file_with_errors_is_told_with_its_places() {
    let dir = tempfile::tempdir().unwrap();
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let keys = dir.path().join("esp_sa");
    fs::write(
        &keys,
        "# fine\n\"IPv4\",\"*\"\n\"IPv4\",\"*\",\"*\",\"0x100\",\"ROT13\",\"\",\"NULL\",\"\"\n",
    )
    .unwrap();
    let output = decrypt(&[&case.wire, Path::new("--keys"), &keys], &[]);
    assert_eq!(output.status.code(), Some(2));
    let error = stderr(&output);
    assert!(error.contains(&format!("{}:2:11: 2 fields", keys.display())), "{error}");
    assert!(error.contains(&format!("{}:3:24: \"rot13\"", keys.display())), "{error}");
    assert_eq!(stdout(&output), "");
    fs::write(&keys, [0xff, 0xfe]).unwrap();
    let output = decrypt(&[&case.wire, Path::new("--keys"), &keys], &[]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("not a text file"));
}

#[test]
fn a_cut_capture_is_read_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let file = dir.path().join("cut.pcap");
    let whole = fs::read(&case.wire).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let output = decrypt(&[&file, Path::new("--keys"), &case.json], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("33 packets: 33 ok"), "{}", stdout(&output));
    assert!(stderr(&output).contains("ends in the middle of a packet"));
    fs::write(&file, "no capture").unwrap();
    let output = decrypt(&[&file, Path::new("--keys"), &case.json], &[]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("neither pcap nor pcapng"));
}

#[test]
fn a_capture_may_come_by_standard_input() {
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let output = Command::new(env!("CARGO_BIN_EXE_ipsecd"))
        .args(["decrypt", "-", "--keys"])
        .arg(&case.json)
        .arg(EXPECT)
        .arg(&case.plain)
        .stdin(fs::File::open(&case.wire).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn keys_may_come_by_standard_input_and_nothing_else_with_them() {
    let case = Case::named("kernel", "esp-tun4-aes256gcm16");
    let run = |capture: &Path| {
        Command::new(env!("CARGO_BIN_EXE_ipsecd"))
            .arg("decrypt")
            .arg(capture)
            .args(["--keys", "-", EXPECT])
            .arg(&case.plain)
            .stdin(fs::File::open(&case.json).unwrap())
            .output()
            .unwrap()
    };
    let output = run(&case.wire);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = run(Path::new("-"));
    let error = stderr(&output);
    assert!(output.status.code() == Some(2) && error.contains("can be read only once"), "{error}");
}
