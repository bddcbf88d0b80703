//! `ipsecd invite` here, `ipsecd accept` there, with keys of gpg: the two ends bring the tunnel up.

use std::fs;

use crate::cert::write;
use crate::gpg::{CURVES, Gpg, RSA, feed, text};
use crate::lab::ipsecd::BINARY;
use crate::lab::{Ipsecd, Lab, process, traffic, wait};

const OURS: &str = r#"[local]
address = "192.0.2.1"
id = "a.example.net"
subnets = ["10.1.1.0/24"]

[peer]
address = "198.51.100.1"
id = "b.example.net"
subnets = ["10.2.1.0/24"]

[auth]
psk = { file = "b.psk" }
"#;

#[test]
fn an_invitation_that_is_accepted_is_a_tunnel() {
    let Some(gpg) = Gpg::open() else { return };
    let Some(lab) = Lab::open(&[]) else { return };
    let conf = lab.a.dir.join("b.conf");
    fs::write(&conf, OURS).expect("it is written");
    let psk = process::run(lab.a.gw.command(BINARY).arg("genpsk"));
    write(&lab.a.dir.join("b.psk"), psk.as_bytes());
    // Each end has its own private key, and the other's public one.
    gpg.make("a", RSA, "");
    gpg.make("b", CURVES, "");
    let (a_key, b_public) = (gpg.private("a", "", &lab.a.dir), gpg.public("b", &lab.a.dir));
    let (b_key, a_public) = (gpg.private("b", "", &lab.b.dir), gpg.public("a", &lab.b.dir));
    let mut invite = lab.a.gw.command(BINARY);
    invite.arg("invite").arg(&conf).arg("--to").arg(b_public).arg("--sign").arg(a_key);
    let mail = process::run(&mut invite);
    let there = lab.b.dir.join("etc");
    let mut accept = lab.b.gw.command(BINARY);
    accept.args(["accept", "-", "--key"]).arg(b_key).arg("--from").arg(a_public);
    let output = feed(accept.arg("-o").arg(&there), mail.as_bytes());
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains(&gpg.fingerprint("a")), "{}", text(&output));
    let b = Ipsecd::start_for_file(&lab.b, there.join("a.example.net.conf"));
    let a = Ipsecd::start_for_file(&lab.a, conf);
    b.must_up();
    a.must_up();
    a.up_within(wait::PATIENCE);
    traffic::both_ways(&lab, 1, false);
    a.down();
}
