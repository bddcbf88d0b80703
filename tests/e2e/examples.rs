//! The files in `conf/`, as they stand, make running tunnels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::ipsecd::BINARY;
use crate::lab::topology::Side;
use crate::lab::{Charon, Ipsecd, Lab, Need, process, traffic};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

/// A copy on a gateway.
#[track_caller]
fn copy(side: &Side, name: &str) -> PathBuf {
    let from = example(name);
    let to = side.dir.join(from.file_name().expect("a file has a name"));
    fs::copy(&from, &to).unwrap_or_else(|error| panic!("{name}: {error}"));
    to
}

#[track_caller]
fn genpsk(file: &Path) {
    process::run(Command::new(BINARY).arg("genpsk").arg(file));
}

#[test]
fn site_a_and_site_b() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b) = (copy(&lab.a, "site-a.conf"), copy(&lab.b, "site-b.conf"));
    genpsk(&lab.a.dir.join("site.psk"));
    // fs::copy keeps the mode: others may not read it.
    fs::copy(lab.a.dir.join("site.psk"), lab.b.dir.join("site.psk")).expect("file is copied");
    let (a, b) = (Ipsecd::start_for_file(&lab.a, a), Ipsecd::start_for_file(&lab.b, b));
    std::thread::scope(|scope| {
        scope.spawn(|| b.must_up());
        a.must_up();
    });
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn to_strongswan() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let file = copy(&lab.a, "strongswan/to-strongswan.conf");
    let key = lab.a.dir.join("strongswan.psk");
    genpsk(&key);
    let key = fs::read_to_string(key).expect("file is read");
    let conf = fs::read_to_string(example("strongswan/swanctl.conf")).expect("file is read");
    let line = conf.lines().find(|line| line.trim().starts_with("secret = 0s")).expect("a secret");
    let conf = conf.replace(line, &format!("secret = {}", key.trim()));
    let _b = Charon::start_conf(&lab.b, &conf, "");
    let a = Ipsecd::start_for_file(&lab.a, file);
    a.must_up();
    traffic::both_ways(&lab, 1, false);
}
