//! `ipsecd import` and `export`, with a live strongSwan: what is imported brings up the tunnel of which `mirror.conf` is the other
//! end, and what is exported is what strongSwan loads. The configurations are those of `tests/import`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cert::{pki, write};
use crate::lab::topology::Side;
use crate::lab::{Charon, Connection, Ipsecd, Lab, Need, process, traffic, wait};

/// Who begins, which the imported file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Ipsecd,
    StrongSwan,
}

/// What goes through the tunnel once it is up.
#[derive(Clone, Copy, Debug)]
enum Proof {
    /// Between hosts of both sites, in each of these subnets.
    Sites(&'static [u8]),
    /// From the gateway at one end, which has an address of a pool, to a host at the other.
    FromPool,
    /// From this address of our gateway to a host at the other end.
    FromAddress(&'static str),
}

struct Case {
    name: &'static str,
    /// The new file, without `.conf`.
    peer: &'static str,
    begins: Begins,
    proof: Proof,
}

const SITES: Proof = Proof::Sites(&[1]);

const fn case(name: &'static str, peer: &'static str, begins: Begins, proof: Proof) -> Case {
    Case { name, peer, begins, proof }
}

const CASES: &[Case] = &[
    case("swanctl-site", "head-branch", Begins::Ipsecd, SITES),
    case("swanctl-inherit", "branch", Begins::Ipsecd, Proof::Sites(&[1, 2])),
    case("swanctl-cert", "gw-gw", Begins::StrongSwan, SITES),
    case("swanctl-road", "roadwarriors", Begins::StrongSwan, Proof::FromPool),
    case("swanctl-client", "home", Begins::Ipsecd, Proof::FromPool),
    case("swanctl-odd", "branch", Begins::Ipsecd, SITES),
    case("swanctl-rawkey", "raw", Begins::Ipsecd, SITES),
    case("stroke-site", "net-net", Begins::Ipsecd, SITES),
    case("stroke-right", "branch", Begins::Ipsecd, Proof::Sites(&[1, 2])),
    case("libreswan-site", "branch", Begins::Ipsecd, SITES),
    case("wireguard", "wg0-1", Begins::Ipsecd, Proof::FromAddress("10.8.0.1")),
];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directory is made");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            let bytes = fs::read(entry.path()).expect("a file");
            write(&to.join(entry.file_name()), &bytes);
        }
    }
}

/// The configuration as it would be in a directory of its program; its file.
fn lay(name: &str, dir: &Path) -> PathBuf {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(name);
    copy(&case, dir);
    for line in fs::read_to_string(case.join("pki")).unwrap_or_default().lines() {
        let (to, from) = line.split_once(' ').expect("two names");
        write(&dir.join(to), &pki(from));
    }
    let names = ["swanctl.conf", "ipsec.conf", "wg0.conf"];
    names.iter().map(|it| dir.join(it)).find(|it| it.exists()).expect("a configuration")
}

/// Imports it on `side`; the new file.
#[track_caller]
fn import(side: &Side, case: &Case) -> PathBuf {
    let file = lay(case.name, &side.dir.join(case.name));
    let out = side.dir.join("imported");
    let mut command = side.gw.command(crate::lab::ipsecd::BINARY);
    command.arg("import").arg(&file).arg("-o").arg(&out);
    let output = process::output(&mut command);
    // 1: a connection was left out, which some of these have.
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{}:\n{}",
        case.name,
        process::text(&output)
    );
    let found = out.join(format!("{}.conf", case.peer));
    assert!(found.exists(), "{}:\n{}", case.name, process::text(&output));
    found
}

/// strongSwan at the other end, with certificates of its own.
fn mirror<'a>(side: &'a Side, text: &str) -> Charon<'a> {
    let dir = side.dir.join("charon");
    write(&dir.join("x509").join("mine.pem"), &pki("b-p256.pem"));
    write(&dir.join("private").join("mine.key"), &pki("b-p256.key"));
    write(&dir.join("x509ca").join("ca.pem"), &pki("ca-p256.pem"));
    Charon::start_conf(side, text, "")
}

#[track_caller]
fn meets(case: &Case) {
    println!("{}", case.name);
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let file = import(&lab.a, case);
    let text = fs::read_to_string(lab.a.dir.join(case.name).join("mirror.conf")).expect("a mirror");
    let psk = fs::read_to_string(file.with_extension("psk")).unwrap_or_default();
    let b = mirror(&lab.b, &text.replace("@PSK@", psk.trim()));
    let a = Ipsecd::start_for_file(&lab.a, file);
    a.must_up();
    match (case.begins, case.proof) {
        (Begins::StrongSwan, _) => b.must_initiate(),
        // Some come up with the first packet.
        (Begins::Ipsecd, Proof::Sites(_)) => {
            let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
            traffic::answers_within(wait::PATIENCE, &lab.a.lan, source, target);
        }
        (Begins::Ipsecd, Proof::FromAddress(_) | Proof::FromPool) => {}
    }
    a.up_within(wait::PATIENCE);
    assert_eq!(a.ike()["initiator"], case.begins == Begins::Ipsecd, "{}", case.name);
    match (case.proof, case.begins) {
        (Proof::Sites(nets), _) => nets.iter().for_each(|net| {
            let (ours, theirs) = (lab.a.host(*net, false), lab.b.host(*net, false));
            traffic::answers_within(wait::PATIENCE, &lab.a.lan, ours, theirs);
            traffic::answers_within(wait::PATIENCE, &lab.b.lan, theirs, ours);
        }),
        (Proof::FromAddress(own), _) => {
            let own = own.parse().expect("an address");
            traffic::answers_within(wait::PATIENCE, &lab.a.gw, own, lab.b.host(1, false));
        }
        (Proof::FromPool, Begins::Ipsecd) => from_pool(&lab.a, &lab.b),
        (Proof::FromPool, Begins::StrongSwan) => from_pool(&lab.b, &lab.a),
    }
    a.down();
    a.stop();
    b.stop();
}

/// From the gateway itself to a host behind the other.
#[track_caller]
fn from_pool(client: &Side, server: &Side) {
    let mut ping = client.gw.command("ping");
    ping.args(["-n", "-q", "-c1", "-W5", &server.host(1, false).to_string()]);
    wait::until("an answer from behind the gateway", wait::PATIENCE, || {
        process::output(&mut ping).status.success().then_some(())
    });
}

#[test]
fn every_imported_configuration_brings_up_the_tunnel_of_the_original() {
    for case in CASES {
        meets(case);
    }
}

/// `ipsecd export`, as a command.
#[track_caller]
fn export(side: &Side, file: &Path, args: &[&str]) -> String {
    let mut command = side.gw.command(crate::lab::ipsecd::BINARY);
    command.arg("export").arg(file).args(args);
    process::run(&mut command)
}

#[test]
fn strongswan_loads_what_is_exported_for_it_and_the_tunnel_is_up() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let dir = lab.a.dir.join("own");
    write(&dir.join("far.psk"), b"0sGpGuy2Yn5ZQ2FzBbWxr6bQ==\n");
    let text = format!(
        "[local]\naddress = \"{}\"\nid = \"a.example.net\"\nsubnets = [\"{}\"]\n\
         [peer]\naddress = \"{}\"\nid = \"keyid:branch\"\nsubnets = [\"{}\"]\n\
         [auth]\npsk = {{ file = \"far.psk\" }}\n[ike]\nmobike = false\n",
        lab.a.outside(false),
        lab.a.subnet(1, false),
        lab.b.outside(false),
        lab.b.subnet(1, false),
    );
    let file = dir.join("far.conf");
    write(&file, text.as_bytes());
    let theirs = export(&lab.a, &file, &["--for", "strongswan", "--with-secrets"]);
    let b = mirror(&lab.b, &theirs);
    let a = Ipsecd::start_for_file(&lab.a, file);
    a.must_up();
    a.up_within(wait::PATIENCE);
    traffic::both_ways(&lab, 1, false);
    a.down();
    a.stop();
    b.stop();
}

#[test]
fn what_is_exported_for_ipsecd_is_the_other_end() {
    let Some(lab) = Lab::open(&[]) else { return };
    let dir = lab.a.dir.join("own");
    for (side, name) in [
        (&lab.a, "ca.pem"),
        (&lab.a, "a.example.net.pem"),
        (&lab.a, "a.example.net.key"),
        (&lab.b, "ca.pem"),
        (&lab.b, "b.example.net.pem"),
        (&lab.b, "b.example.net.key"),
    ] {
        let source = match name {
            "ca.pem" => "ca-p256.pem".to_owned(),
            other => other.replace(".example.net", "-p256"),
        };
        write(&side.dir.join("own").join(name), &pki(&source));
    }
    let text = format!(
        "[local]\naddress = \"{}\"\nid = \"a.example.net\"\nsubnets = [\"{}\"]\n\
         [peer]\naddress = \"{}\"\nid = \"b.example.net\"\nsubnets = [\"{}\"]\n\
         [auth]\ncert = \"a.example.net.pem\"\nkey = \"a.example.net.key\"\nca = [\"ca.pem\"]\n[esp]\nmode = \"tunnel\"\n",
        lab.a.outside(false),
        lab.a.subnet(1, false),
        lab.b.outside(false),
        lab.b.subnet(1, false),
    );
    let file = dir.join("b.conf");
    write(&file, text.as_bytes());
    let theirs = export(&lab.a, &file, &["--for", "ipsecd"]);
    let far = lab.b.dir.join("own").join("a.conf");
    write(&far, theirs.as_bytes());
    let b = Ipsecd::start_for_file(&lab.b, far);
    let a = Ipsecd::start_for_file(&lab.a, file);
    b.must_up();
    a.must_up();
    a.up_within(wait::PATIENCE);
    traffic::both_ways(&lab, 1, false);
}

/// `auto=add` of strongSwan and libreswan: loaded, answered, and begun by hand.
#[test]
fn what_is_begun_by_hand_there_is_begun_by_hand_here() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let dir = lab.a.dir.join("theirs");
    let conn = "conn branch\n\tkeyexchange=ikev2\n\tike=aes256-sha256-modp2048!\n\tesp=aes256-sha256!\n\
                \tleft=192.0.2.1\n\tleftid=@a.example.net\n\tleftsubnet=10.1.1.0/24\n\tright=198.51.100.1\n\
                \trightid=@b.example.net\n\trightsubnet=10.2.1.0/24\n\tauthby=secret\n\tauto=add\n";
    write(&dir.join("ipsec.conf"), conn.as_bytes());
    let secret = format!("@a.example.net @b.example.net : PSK \"{}\"\n", crate::lab::ipsecd::PSK);
    write(&dir.join("ipsec.secrets"), secret.as_bytes());
    let out = lab.a.dir.join("imported");
    let mut command = lab.a.gw.command(crate::lab::ipsecd::BINARY);
    process::run(command.arg("import").arg(dir.join("ipsec.conf")).arg("-o").arg(&out));
    let file = out.join("branch.conf");
    let text = fs::read_to_string(&file).expect("it was made");
    assert!(text.contains("start = \"by-hand\""), "{text}");

    let mut far = Connection::new(&lab.b, &lab.a, false);
    (far.ike, far.esp) = ("aes256-sha256-modp2048".to_owned(), "aes256-sha256".to_owned());
    let b = Charon::start(&lab.b, &far);
    let a = Ipsecd::start_in(&lab.a.gw, &lab.a.dir, &out, &lab.a.dir.join("state"));
    // As it is loaded, it waits,
    assert_eq!(a.state(), "waiting", "{}", a.log());
    assert!(!a.log().contains("IKE_SA_INIT"), "{}", a.log());
    // answers,
    b.must_initiate();
    a.up_within(wait::PATIENCE);
    assert_eq!(a.ike()["initiator"], false);
    traffic::both_ways(&lab, 1, false);
    b.terminate();
    wait::until("the IKE SA to be gone", wait::PATIENCE, || (a.state() == "waiting").then_some(()));
    // and is begun by hand,
    let up = || process::run(a.command(&["up", "--timeout=15s"]).arg(&file));
    let said = up();
    assert!(said.contains("branch: up after"), "{said}");
    assert_eq!((a.state().as_str(), &a.ike()["initiator"]), ("up", &true.into()));
    traffic::both_ways(&lab, 1, false);
    // which no reading of the same file takes back.
    let spi = a.child()["spi_inbound"].clone();
    let said = process::run(&mut a.command(&["reload"]));
    assert!(said.contains("unchanged"), "{said}");
    assert_eq!((a.state().as_str(), &a.child()["spi_inbound"]), ("up", &spi));
    // Nor does one of a file that says something else besides.
    write(&file, text.replace("start = \"by-hand\"", "start = \"by-hand\"\ndscp = 0").as_bytes());
    let said = process::run(&mut a.command(&["reload"]));
    assert!(said.contains("1 changed"), "{said}");
    assert_eq!(a.state(), "up");
    let said = process::run(&mut a.command(&["reload"]));
    assert!(said.contains("0 changed"), "{said}");
    assert_eq!(a.state(), "up");
    // With the same word it may be said again.
    assert!(up().contains("branch: up after"));
    assert!(a.stop().success());
}
