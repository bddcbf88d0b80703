//! What `ipsecd up` says when the two sides do not fit: one sentence, with what to compare.

use std::time::Duration;

use crate::lab::wait::Stopwatch;
use crate::lab::{Charon, Connection, Ipsecd, Lab, Need, Peer, process, traffic};

/// The far end.
#[derive(Clone, Copy, Debug)]
enum Far {
    Ipsecd,
    StrongSwan,
}

/// Brings A's `ours` up against B's `theirs`, which must fail, and gives what was said. Nothing is left behind.
#[track_caller]
fn said(lab: &Lab, far: Far, ours: &Peer, theirs: &Peer) -> String {
    let before = lab.a.gw.network_state();
    let (_ipsecd, _charon);
    match far {
        Far::Ipsecd => {
            let theirs = Peer { esp: "start = \"respond\"".to_owned(), ..theirs.clone() };
            _ipsecd = Ipsecd::start(&lab.b, &theirs);
            _ipsecd.must_up();
        }
        Far::StrongSwan => {
            let mut connection = Connection::new(&lab.b, &lab.a, false);
            connection.local_id.clone_from(&theirs.local_id);
            connection.remote_id.clone_from(&theirs.id);
            connection.psk.clone_from(&theirs.psk);
            connection.local_ts = theirs.local_subnets.join(",");
            connection.remote_ts = theirs.subnets.join(",");
            _charon = Charon::start(&lab.b, &connection);
        }
    }
    let a = Ipsecd::start(&lab.a, ours);
    let output = a.up(10);
    let text = process::text(&output);
    assert!(!output.status.success(), "{far:?}: up succeeded:\n{text}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let sentence: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(sentence.len(), 1, "{far:?}: one sentence:\n{text}");
    assert!(!traffic::answers(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false)));
    assert!(a.stop().success());
    assert_eq!(before, lab.a.gw.network_state(), "{far:?}: something was left");
    let sentence = sentence[0].to_owned();
    println!("{far:?}: {sentence}");
    sentence
}

/// The same mistake against both far ends; every word must be in the sentence.
#[track_caller]
fn fails(change: impl Fn(&mut Peer, &mut Peer), words: &[&str]) {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    for far in [Far::Ipsecd, Far::StrongSwan] {
        let (mut ours, mut theirs) =
            (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
        change(&mut ours, &mut theirs);
        let sentence = said(&lab, far, &ours, &theirs);
        for word in words {
            assert!(sentence.contains(word), "{far:?}: {word:?} is not in: {sentence}");
        }
    }
}

#[test]
fn another_key() {
    fails(
        |_, theirs| theirs.psk = "wrong horse battery staple".to_owned(),
        &["pre-shared key", "compare [auth] psk"],
    );
}

#[test]
fn no_common_ike_proposal() {
    fails(
        |ours, theirs| {
            ours.ike = "proposals = \"aes128-sha256-modp2048\"".to_owned();
            theirs.ike = "proposals = \"aes256gcm16-prfsha384-x25519\"".to_owned();
        },
        &["none of our proposals for the IKE_SA", "aes128-sha256", "compare [ike] proposals"],
    );
}

#[test]
fn no_common_esp_proposal() {
    fails(
        |ours, theirs| {
            ours.esp = "proposals = \"aes128-sha256\"".to_owned();
            theirs.esp = "proposals = \"aes256gcm16\"".to_owned();
        },
        &["none of our proposals for the CHILD_SA", "aes128-sha256", "compare [esp] proposals"],
    );
}

#[test]
fn other_subnets() {
    fails(
        |ours, _| ours.subnets = vec!["10.77.0.0/16".to_owned()],
        &["subnets", "10.1.1.0/24", "10.77.0.0/16", "compare [local] subnets and [peer] subnets"],
    );
}

#[test]
fn another_peer_than_expected() {
    fails(
        |ours, _| ours.id = "c.example.net".to_owned(),
        &["it is b.example.net", "[peer] id here is c.example.net", "compare [peer] id"],
    );
}

#[test]
fn a_peer_that_does_not_know_us() {
    fails(
        |ours, _| ours.local_id = "stranger.example.net".to_owned(),
        &["stranger.example.net", "[local] id"],
    );
}

#[test]
fn a_peer_that_goes_by_another_name() {
    fails(
        |_, theirs| theirs.local_id = "c.example.net".to_owned(),
        &["it is c.example.net", "[peer] id here is b.example.net", "compare [peer] id"],
    );
}

#[test]
fn a_nat_where_udp_encapsulation_is_forbidden() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let mut ours = Peer::new(&lab.a, &lab.b, false);
    ours.esp = "encap = \"none\"".to_owned();
    // strongSwan's ESP in user space pretends that there is a NAT.
    let sentence = said(&lab, Far::StrongSwan, &ours, &Peer::new(&lab.b, &lab.a, false));
    assert!(sentence.contains("NAT") && sentence.contains("[esp] encap"), "{sentence}");
}

#[test]
fn nobody_there() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut ours = Peer::new(&lab.a, &lab.b, false);
    // Nothing comes back, not even a refusal.
    ours.address = "198.51.100.77".to_owned();
    lab.nft(
        "table inet f { chain f { type filter hook forward priority 0; ip daddr 198.51.100.77 drop; }
         }",
    );
    let a = Ipsecd::start(&lab.a, &ours);
    let clock = Stopwatch::start();
    let output = a.up(3);
    assert!(clock.elapsed() < Duration::from_secs(6), "--timeout is kept");
    let text = process::text(&output);
    assert!(!output.status.success(), "{text}");
    for word in ["no answer", "198.51.100.77", "IKE_SA_INIT", "UDP 500", "[peer] address"] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// What `ipsecd up` says with these lines in the hosts file, of a daemon that it starts itself.
fn up_with_hosts(lab: &Lab, ours: &Peer, hosts: &str, timeout: &str) -> std::process::Output {
    let file = lab.dir().join("hosts");
    std::fs::write(&file, format!("127.0.0.1 localhost\n{hosts}")).expect("file is written");
    let conf = Ipsecd::file_of(&lab.a, ours);
    let mut command = lab.a.gw.command("sh");
    command
        .args(["-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
        .arg(&file)
        .arg(crate::lab::ipsecd::BINARY)
        .env(crate::lab::ipsecd::STATE_DIR.0, crate::lab::ipsecd::STATE_DIR.1)
        .args(["up", "--timeout", timeout])
        .arg(conf);
    process::output(&mut command)
}

#[test]
fn of_the_addresses_of_a_name_those_that_are_silent_are_left_for_the_others() {
    let Some(lab) = Lab::open(&[]) else { return };
    let _b = Ipsecd::start_with_peer(
        &lab.b,
        &Peer { esp: "start = \"respond\"".to_owned(), ..Peer::new(&lab.b, &lab.a, false) },
    );
    let mut ours = Peer::new(&lab.a, &lab.b, false);
    ours.address = "b.example.net".to_owned();
    // The first is what routes lead to, and nobody has.
    let hosts = format!("2001:db8:2::77 b.example.net\n{} b.example.net\n", lab.b.outside(false));
    let output = up_with_hosts(&lab, &ours, &hosts, "30s");
    let text = process::text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("-> 2001:db8:2::77"), "the silent one was not tried first: {text}");
    traffic::both_ways(&lab, 1, false);
}

#[test]
fn a_name_that_leads_to_nobody_names_the_addresses_that_were_asked() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut ours = Peer::new(&lab.a, &lab.b, false);
    ours.address = "b.example.net".to_owned();
    let output = up_with_hosts(&lab, &ours, "198.51.100.77 b.example.net\n", "2s");
    let text = process::text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("(b.example.net, 198.51.100.77)"), "{text}");
}

#[test]
fn nobody_listening() {
    let Some(lab) = Lab::open(&[]) else { return };
    let ours = Peer::new(&lab.a, &lab.b, false);
    let text = up_fails(&lab, &ours, 8);
    for word in ["no answer", "198.51.100.1", "nothing listens on its UDP port 500"] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// What `ipsecd up` says, which fails.
#[track_caller]
fn up_fails(lab: &Lab, ours: &Peer, seconds: u32) -> String {
    let a = Ipsecd::start(&lab.a, ours);
    let output = a.up(seconds);
    let text = process::text(&output);
    assert!(!output.status.success(), "{text}");
    text
}

#[test]
fn an_address_that_no_host_has() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut ours = Peer::new(&lab.a, &lab.b, false);
    for address in ["198.51.100.77", "2001:db8:2::77"] {
        ours.address = address.to_owned();
        // The router asks for three seconds who has it.
        let text = up_fails(&lab, &ours, 12);
        for word in ["no answer", address, "nobody answers for that address", "[peer] address"] {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
}

#[test]
fn addresses_of_ours_that_cannot_be() {
    let Some(lab) = Lab::open(&[]) else { return };
    let ours = Peer::new(&lab.a, &lab.b, false);
    let local = Peer { local_address: Some("192.0.2.99".to_owned()), ..ours.clone() };
    let text = up_fails(&lab, &local, 3);
    let said = "[local] address 192.0.2.99 of far is none of this host's addresses";
    assert!(text.contains(said), "{text}");
    let own = Peer { address: lab.a.outside(false).to_string(), ..ours };
    let text = up_fails(&lab, &own, 3);
    let said = "far would be this host itself, which has 192.0.2.1: check [peer] address";
    assert!(text.contains(said), "{text}");
}

#[test]
fn without_a_tun_up_says_so_and_leaves_no_daemon() {
    let Some(lab) = Lab::open(&[]) else { return };
    let gw = &lab.a.gw;
    // For its files and commands; the daemon itself goes at once, so that `up` starts one of its own.
    let a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    let (mut up, mut status) = (a.up_command(60), a.command(&["status"]));
    assert!(a.stop().success());
    gw.ip("link add ipsec0 type veth peer name other");
    let before = gw.network_state();
    let clock = Stopwatch::start();
    let output = process::output(&mut up);
    let text = process::text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("cannot make the TUN interface ipsec0"), "{text}");
    assert!(text.contains("[interface] name"), "{text}");
    assert!(clock.elapsed() < Duration::from_secs(30), "it is known at once");
    assert_eq!(process::output(&mut status).status.code(), Some(3), "no daemon stays");
    assert_eq!(before, gw.network_state(), "something was left");
}
