//! `ipsecd init`: asked in a terminal, and by flags alone; the two ends that it writes bring the tunnel up.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::cert::write;
use crate::lab::ipsecd::BINARY;
use crate::lab::{Charon, Ipsecd, Lab, Need, process, traffic, wait};

/// Answers the questions in a terminal of its own (`script` makes one); what was on it.
#[track_caller]
fn in_a_terminal(lab: &Lab, dir: &Path, answers: &str) -> String {
    let mut command = lab.a.gw.command("script");
    let line = format!("{BINARY} init -o {}", dir.display());
    command.args(["-q", "-e", "-c", &line, "/dev/null"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(answers.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    drop(input);
    let shown = process::text(&output);
    assert!(output.status.success(), "{shown}");
    shown
}

#[test]
fn five_answers_in_a_terminal_are_a_tunnel() {
    let Some(lab) = Lab::open(&[]) else { return };
    let dir = lab.a.dir.join("made");
    let shown = in_a_terminal(
        &lab,
        &dir,
        "a.example.net 192.0.2.1\nb.example.net 198.51.100.1\n10.1.1.0/99\n10.1.1.0/24\n10.2.1.0/24\n\n",
    );
    for part in [
        // The address of the default route, and the networks behind the other interface, are offered.
        "192.0.2.1]: ",
        "10.1.1.0/24, 10.1.2.0/24",
        "is not a prefix",
        "psk or certificates [psk]: ",
        "b.example.net: ok: 10.1.1.0/24 <-> 10.2.1.0/24",
    ] {
        assert!(shown.contains(part), "no {part:?} in\n{shown}");
    }
    let far = dir.join("for-b.example.net");
    let there = lab.b.dir.join("brought");
    fs::create_dir_all(&there).expect("directory is made");
    for name in ["a.example.net.conf", "b.example.net.psk"] {
        write(&there.join(name), &fs::read(far.join(name)).expect("it was made"));
    }
    let b = Ipsecd::start_for_file(&lab.b, there.join("a.example.net.conf"));
    let a = Ipsecd::start_for_file(&lab.a, dir.join("b.example.net.conf"));
    b.must_up();
    a.must_up();
    a.up_within(wait::PATIENCE);
    traffic::both_ways(&lab, 1, false);
    a.down();
    // A second time nothing is overwritten, and nothing asked that was said.
    let output = process::output(&mut flags(&lab, &dir, "psk", "ipsecd"));
    assert_eq!(output.status.code(), Some(1));
    assert!(process::text(&output).contains("not overwritten"), "{}", process::text(&output));
}

fn flags(lab: &Lab, dir: &Path, auth: &str, program: &str) -> std::process::Command {
    let mut command = lab.a.gw.command(BINARY);
    command.args([
        "init",
        "--local",
        "a.example.net 192.0.2.1",
        "--peer",
        "b.example.net 198.51.100.1",
    ]);
    command.args(["--local-subnets", "10.1.1.0/24", "--peer-subnets", "10.2.1.0/24"]);
    command.args(["--auth", auth, "--for", program, "-o"]).arg(dir);
    command.stdin(Stdio::null());
    command
}

#[test]
fn flags_alone_make_certificates_for_both_ends() {
    let Some(lab) = Lab::open(&[]) else { return };
    let dir = lab.a.dir.join("made");
    process::run(&mut flags(&lab, &dir, "certificates", "ipsecd"));
    let far = dir.join("for-b.example.net");
    assert!(!dir.join("b.example.net.key").exists(), "the far end's key stayed here");
    let b = Ipsecd::start_for_file(&lab.b, far.join("a.example.net.conf"));
    let a = Ipsecd::start_for_file(&lab.a, dir.join("b.example.net.conf"));
    b.must_up();
    a.must_up();
    a.up_within(wait::PATIENCE);
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn flags_alone_make_strongswans_end() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let dir = lab.a.dir.join("made");
    process::run(&mut flags(&lab, &dir, "psk", "strongswan"));
    let text = fs::read_to_string(dir.join("for-b.example.net/swanctl.conf")).expect("it was made");
    let _b = Charon::start_conf(&lab.b, &text, "");
    let a = Ipsecd::start_for_file(&lab.a, dir.join("b.example.net.conf"));
    a.must_up();
    a.up_within(wait::PATIENCE);
    traffic::both_ways(&lab, 1, false);
}
