//! `ipsecd doctor` before set-ups that are broken for real: the cause stands first, with the fix; and nothing is found where
//! nothing is wrong.
//!
//! What it says of each is in a file beside this one, as it is to be, but for what differs from run to run. With the
//! environment variable `BLESS` the files are written anew, to be read before they are committed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cert::{Case, Proof, set_up};
use crate::lab::ipsecd::BINARY;
use crate::lab::{Charon, Connection, Ipsecd, Lab, Need, Peer, process, traffic, wait};

/// What `doctor` says and its exit code; run on gateway A.
fn doctor(lab: &Lab, args: &[&str], file: &Path) -> (i32, String) {
    let mut command = lab.a.gw.command(BINARY);
    command.arg("doctor").args(args).arg(file);
    let output = process::output(&mut command);
    let text = process::text(&output);
    (output.status.code().unwrap_or_else(|| panic!("it was killed:\n{text}")), text)
}

/// Its findings, without what differs from run to run.
fn findings(lab: &Lab, text: &str) -> String {
    let found = text.split("\nhealthy:").next().unwrap_or_default();
    let found = found.replace(&lab.a.dir.display().to_string(), "DIR");
    let mut lines: Vec<String> = Vec::new();
    for line in found.trim_end().lines() {
        // This host's clock.
        let said = ["clock says ", "wrong: it says ", ", and it is "]
            .into_iter()
            .find_map(|words| Some((line.split_once(words)?.0, words)));
        let line = match said {
            Some((before, words)) => format!("{before}{words}NOW"),
            None => line.to_owned(),
        };
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

/// It finds this first, exits with 1, and says all that the file has.
#[track_caller]
fn finds(lab: &Lab, name: &str, file: &Path, cause: &str) {
    let (code, text) = doctor(lab, &["--live"], file);
    let found = findings(lab, &text);
    println!("{text}");
    assert_eq!(code, 1, "{name}:\n{text}");
    let first = found.lines().find(|line| line.starts_with("1. ")).unwrap_or_default();
    assert!(first.contains(cause), "{name}: {cause:?} is not the first finding:\n{text}");
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/doctor").join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &found).expect("the file is written");
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(wanted, found, "{}", path.display());
}

/// It finds nothing, with an attempt or without.
#[track_caller]
fn finds_nothing(lab: &Lab, file: &Path) {
    for args in [&["--live"][..], &[]] {
        let (code, text) = doctor(lab, args, file);
        println!("{text}");
        assert_eq!(code, 0, "{args:?}:\n{text}");
        assert!(text.contains("nothing wrong was found"), "{text}");
    }
}

/// Both sides' configurations, which fit each other.
fn both(lab: &Lab) -> (Peer, Connection) {
    (Peer::new(&lab.a, &lab.b, false), Connection::new(&lab.b, &lab.a, false))
}

fn file_of(lab: &Lab, peer: &Peer) -> PathBuf {
    Ipsecd::file_of(&lab.a, peer)
}

#[test]
fn finds_another_key() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (ours, mut theirs) = both(&lab);
    theirs.psk = "another horse".to_owned();
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "psk", &file_of(&lab, &ours), "another pre-shared key");
}

#[test]
fn finds_another_identity() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (mut ours, theirs) = both(&lab);
    ours.id = "c.example.net".to_owned();
    let _b = Charon::start(&lab.b, &theirs);
    finds(
        &lab,
        "identity",
        &file_of(&lab, &ours),
        "far is b.example.net, and [peer] id here is c.example.net",
    );
}

#[test]
fn finds_a_ca_that_the_peer_does_not_know() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let ours = Proof::Certificate("a-p256", "");
    let theirs = Proof::Certificate("b-ed25519", "");
    let case = Case::new(ours, theirs, &["ca-ed25519"]);
    let (file, _b) = set_up(&lab, &case);
    finds(&lab, "ca-of-ours", &file, "far does not trust the CA of our certificate");
}

#[test]
fn finds_a_ca_that_we_do_not_know() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let case = Case { our_cas: &["ca-ed25519"], ..Case::against("a-p256") };
    let (file, _b) = set_up(&lab, &case);
    finds(&lab, "ca-of-theirs", &file, "none of the CAs in [auth] ca");
}

#[test]
fn finds_an_expired_certificate() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (file, _b) = set_up(&lab, &Case::against("a-expired"));
    finds(&lab, "expired", &file, "expired 2026-02-01");
}

#[test]
fn finds_a_proposal_that_is_not_the_peers() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (mut ours, theirs) = both(&lab);
    ours.ike = "proposals = \"aes128-sha256-modp2048\"".to_owned();
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "proposal-ike", &file_of(&lab, &ours), "none of our proposals for the IKE_SA");
}

#[test]
fn finds_an_esp_proposal_that_is_not_the_peers() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (mut ours, theirs) = both(&lab);
    ours.esp = "proposals = \"aes128-sha256\"".to_owned();
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "proposal-esp", &file_of(&lab, &ours), "none of our proposals for the CHILD_SA");
}

#[test]
fn finds_groups_for_pfs_that_differ_before_the_first_rekey() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (mut ours, mut theirs) = both(&lab);
    ours.esp = "proposals = \"aes256gcm16-x25519\"".to_owned();
    theirs.esp = "aes256gcm16-ecp384".to_owned();
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "pfs", &file_of(&lab, &ours), "the groups for PFS differ");
}

#[test]
fn finds_subnets_that_are_not_the_peers() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (mut ours, theirs) = both(&lab);
    ours.subnets = vec!["10.77.0.0/16".to_owned()];
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "selectors", &file_of(&lab, &ours), "no subnets in common");
}

#[test]
fn finds_a_clock_that_is_behind() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    // As it looks to a clock that has fallen back: a certificate, and the file itself, are of a time to come.
    let (file, _b) = set_up(&lab, &Case::against("a-future"));
    process::run(lab.a.gw.command("touch").args(["-d", "2100-06-01 UTC"]).arg(&file));
    finds(&lab, "clock", &file, "this host's clock is wrong");
}

#[test]
fn finds_a_blocked_port() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    let (mut ours, theirs) = both(&lab);
    ours.esp = "encap = \"udp\"".to_owned();
    lab.nft(
        "table inet t { chain f { type filter hook forward priority 0; udp dport 4500 drop; }\n}",
    );
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "blocked-4500", &file_of(&lab, &ours), "UDP port 4500 to 198.51.100.1 is blocked");
}

#[test]
fn finds_a_rule_of_this_host_that_drops() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    let (ours, theirs) = both(&lab);
    process::run(lab.a.gw.command("nft").args([
        "add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }; \
         add rule inet filter input ct state established accept; \
         insert rule inet filter input udp dport { 500, 4500 } drop",
    ]));
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "firewall", &file_of(&lab, &ours), "this host's packet filter drops UDP port 500");
}

#[test]
fn finds_that_fragments_are_dropped() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    let case = Case {
        more: "[ike]\nfragmentation = \"no\"\n",
        ..Case::new(
            Proof::Certificate("a-rsa4096", ""),
            Proof::Certificate("b-p256", ""),
            &["ca-p256"],
        )
    };
    // Before they are put together for connection tracking.
    lab.nft("table ip t { chain p { type filter hook prerouting priority -450; ip frag-off & 0x3fff != 0 drop; }\n}");
    let (file, _b) = set_up(&lab, &case);
    finds(&lab, "fragments", &file, "long packets are lost on the way");
}

#[test]
fn finds_a_path_that_is_narrower_than_anybody_says() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    let (ours, theirs) = both(&lab);
    lab.nft("table ip t { chain o { type filter hook output priority 0; icmp type destination-unreachable drop; }\n}");
    lab.router.ip(&format!("link set {} mtu 1280", lab.b.wire()));
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "mtu", &file_of(&lab, &ours), "packets of more than 1280 bytes vanish");
}

#[test]
fn finds_rp_filter_before_a_tunnel_that_has_everything() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (mut ours, mut theirs) = both(&lab);
    ours.subnets = vec!["0.0.0.0/0".to_owned()];
    theirs.local_ts = "0.0.0.0/0".to_owned();
    lab.a.gw.sh("cd /proc/sys/net/ipv4/conf; echo 1 > all/rp_filter; echo 1 > wan0/rp_filter");
    let _b = Charon::start(&lab.b, &theirs);
    let a = Ipsecd::start(&lab.a, &ours);
    let mut up = a.command(&["up", "--keep", "--timeout=3s"]);
    let output = process::output(up.arg(file_of(&lab, &ours)));
    assert!(!output.status.success(), "with rp_filter it came up:\n{}", process::text(&output));
    finds(
        &lab,
        "rp-filter",
        &file_of(&lab, &ours),
        "rp_filter drops all that comes from 198.51.100.1",
    );
    // The fix is one.
    lab.a.gw.sh("cd /proc/sys/net/ipv4/conf; echo 2 > all/rp_filter; echo 2 > wan0/rp_filter");
    a.up_within(wait::PATIENCE);
}

#[test]
fn finds_that_this_host_does_not_forward() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (ours, theirs) = both(&lab);
    lab.a.gw.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    let _b = Charon::start(&lab.b, &theirs);
    finds(&lab, "forwarding", &file_of(&lab, &ours), "this host does not forward");
}

#[test]
fn finds_subnets_that_overlap() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (mut ours, mut theirs) = both(&lab);
    // The second subnet of this very site.
    ours.subnets = vec![lab.a.subnet(2, false)];
    theirs.local_ts = lab.a.subnet(2, false);
    lab.b.gw.ip("addr add 10.1.2.1/24 dev lan0");
    let _b = Charon::start(&lab.b, &theirs);
    finds(
        &lab,
        "overlap",
        &file_of(&lab, &ours),
        "the peer's subnet 10.1.2.0/24 overlaps 10.1.2.0/24",
    );
}

#[test]
fn finds_that_no_daemon_listens() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (ours, _) = both(&lab);
    finds(&lab, "peer-down", &file_of(&lab, &ours), "no IKE daemon listens at 198.51.100.1");
}

#[test]
fn finds_that_nothing_comes_back() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    let (ours, _) = both(&lab);
    lab.nft("table ip t { chain f { type filter hook forward priority 0; drop; }\n}");
    finds(&lab, "silence", &file_of(&lab, &ours), "nothing comes back from 198.51.100.1");
}

#[test]
fn finds_that_a_tunnel_carries_nothing_back() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    let (ours, _) = both(&lab);
    let mut theirs = Peer::new(&lab.b, &lab.a, false);
    theirs.esp = "start = \"respond\"".to_owned();
    let b = Ipsecd::start(&lab.b, &theirs);
    b.must_up();
    let a = Ipsecd::start(&lab.a, &ours);
    a.must_up();
    lab.nft(
        "table ip t { chain f { type filter hook forward priority 0; ip protocol esp drop; }\n}",
    );
    for _ in 0..6 {
        assert!(!traffic::answers(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false)));
    }
    finds(&lab, "no-traffic", &file_of(&lab, &ours), "established, and nothing comes back");
}

#[test]
fn finds_nothing_wrong_with_a_psk() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (ours, theirs) = both(&lab);
    let _b = Charon::start(&lab.b, &theirs);
    let file = file_of(&lab, &ours);
    // Before it is up, while it is, and with traffic: it stays up, and carries traffic, whatever was tried.
    finds_nothing(&lab, &file);
    let a = Ipsecd::start(&lab.a, &ours);
    a.must_up();
    finds_nothing(&lab, &file);
    traffic::both_ways(&lab, 1, false);
    finds_nothing(&lab, &file);
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
}

#[test]
fn finds_nothing_wrong_with_certificates() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (file, _b) = set_up(&lab, &Case::against("a-p256"));
    finds_nothing(&lab, &file);
}

#[test]
fn finds_nothing_wrong_behind_a_nat() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Nat]) else { return };
    lab.nat(&lab.a, false);
    let (ours, mut theirs) = both(&lab);
    theirs.remote_addr = "%any".to_owned();
    let _b = Charon::start(&lab.b, &theirs);
    finds_nothing(&lab, &file_of(&lab, &ours));
}

#[test]
fn finds_nothing_wrong_over_ipv6() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let ours = Peer::new(&lab.a, &lab.b, true);
    let _b = Charon::start(&lab.b, &Connection::new(&lab.b, &lab.a, true));
    finds_nothing(&lab, &file_of(&lab, &ours));
}

#[test]
fn finds_nothing_wrong_with_transport_mode() {
    let Some(lab) = Lab::open(&[]) else { return };
    let host = |side: &crate::lab::topology::Side, far: &crate::lab::topology::Side| {
        let mut peer = Peer::new(side, far, false);
        peer.local_address = Some(side.outside(false).to_string());
        peer.local_subnets = vec![side.outside(false).to_string()];
        peer.subnets = vec![far.outside(false).to_string()];
        peer.esp = "mode = \"transport\"".to_owned();
        peer
    };
    let mut theirs = host(&lab.b, &lab.a);
    theirs.esp += "\nstart = \"respond\"";
    let b = Ipsecd::start(&lab.b, &theirs);
    b.must_up();
    let ours = host(&lab.a, &lab.b);
    let file = file_of(&lab, &ours);
    finds_nothing(&lab, &file);
    let a = Ipsecd::start(&lab.a, &ours);
    a.must_up();
    traffic::ping(&lab.a.gw, lab.a.outside(false), lab.b.outside(false));
    finds_nothing(&lab, &file);
}

#[test]
fn a_file_with_errors_is_said_to_have_them() {
    let Some(lab) = Lab::open(&[]) else { return };
    let file = lab.a.dir.join("bad.conf");
    fs::write(&file, "[peer]\naddress = 7\n").expect("file is written");
    let (code, text) = doctor(&lab, &[], &file);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("address"), "{text}");
    let (_, text) = doctor(&lab, &["--json"], &file);
    assert!(text.contains("address"), "{text}");
}
