//! `ipsecd reload` and SIGHUP: what changed is applied, what did not loses no packet, and with an error nothing happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::stream::{Account, Stream};
use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Peer, process, traffic, wait};

/// Packets a second of the stream that nothing may disturb.
const RATE: u32 = 500;

/// Writes a further peer between the sites, with identities of its own, for their subnets number `net`. Returns its file.
fn write(side: &Side, far: &Side, name: &str, net: u8, v6: bool, esp: &str) -> PathBuf {
    let file = dir(side).join(format!("{name}.conf"));
    let text = format!(
        "[local]\nid = \"{name}-{}\"\nsubnets = [{:?}]\n\
         [peer]\naddress = \"{}\"\nid = \"{name}-{}\"\nsubnets = [{:?}]\n\
         [auth]\npsk = {{ file = \"far.psk\" }}\n[esp]\n{esp}\n",
        side.id(),
        side.subnet(net, v6),
        far.outside(false),
        far.id(),
        far.subnet(net, v6),
    );
    fs::write(&file, text).expect("file is written");
    file
}

fn dir(side: &Side) -> PathBuf {
    side.dir.join("ipsecd")
}

/// Puts `new` in place of `old` in a file.
#[track_caller]
fn edit(file: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(file).expect("file is read");
    assert!(text.contains(old), "{old:?} is not in:\n{text}");
    fs::write(file, text.replace(old, new)).expect("file is written");
}

fn reload(daemon: &Ipsecd<'_>, more: &[&str]) -> Output {
    process::output(&mut daemon.command(&[&["reload"], more].concat()))
}

#[track_caller]
fn must_reload(daemon: &Ipsecd<'_>, more: &[&str]) -> String {
    let output = reload(daemon, more);
    assert!(output.status.success(), "{}", process::text(&output));
    process::text(&output)
}

fn peer(daemon: &Ipsecd<'_>, name: &str) -> Option<Value> {
    let status = daemon.status();
    status["peers"].as_array()?.iter().find(|peer| peer["name"] == name).cloned()
}

#[track_caller]
fn wait_up(daemon: &Ipsecd<'_>, name: &str) -> Value {
    wait::until(&format!("{name} to be up"), wait::PATIENCE, || {
        peer(daemon, name).filter(|peer| peer["state"] == "up")
    })
}

#[track_caller]
fn wait_gone(daemon: &Ipsecd<'_>, name: &str) {
    wait::until(&format!("{name} to be gone"), wait::PATIENCE, || {
        peer(daemon, name).is_none().then_some(())
    });
}

/// SPIs of the IKE SA and of the CHILD_SA of a peer.
fn spis(peer: &Value) -> [Value; 3] {
    let ike = &peer["ike_sas"][0];
    let child = &ike["child_sas"][0];
    [&ike["spi_i"], &child["spi_inbound"], &child["spi_outbound"]].map(Clone::clone)
}

/// A daemon at B that takes everything, and at A one with the peers `far` and `second`, both up.
fn open(lab: &Lab) -> (Ipsecd<'_>, Ipsecd<'_>) {
    let mut far = Peer::new(&lab.b, &lab.a, false);
    far.esp = "start = \"respond\"".to_owned();
    fs::create_dir_all(dir(&lab.b)).expect("directory is made");
    let esp = "start = \"respond\"\nproposals = [\"aes256gcm16\", \"aes128gcm16\"]";
    write(&lab.b, &lab.a, "second", 2, false, esp);
    write(&lab.b, &lab.a, "third", 1, true, esp);
    let b = Ipsecd::start_with_peer(&lab.b, &far);
    fs::create_dir_all(dir(&lab.a)).expect("directory is made");
    write(&lab.a, &lab.b, "second", 2, false, "proposals = \"aes256gcm16\"");
    let a = Ipsecd::start_with_peer(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    wait_up(&a, "far");
    wait_up(&a, "second");
    (a, b)
}

fn ping(lab: &Lab, net: u8, v6: bool) {
    traffic::ping(&lab.a.lan, lab.a.host(net, v6), lab.b.host(net, v6));
}

#[track_caller]
fn assert_whole(account: &Account) {
    println!("{} packets sent", account.sent);
    assert!(account.sent > 100, "{account:?}");
    assert!(account.lost.is_empty() && account.duplicated.is_empty(), "{account:?}");
}

#[test]
fn tunnel_that_is_as_it_was_loses_nothing_while_others_change_come_and_go() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b) = open(&lab);
    let untouched = spis(&wait_up(&a, "far"));
    let second = spis(&wait_up(&a, "second"));
    let stream = Stream::start(&lab.a, &lab.b, RATE);
    wait::until("the stream", wait::PATIENCE, || (stream.received() > 100).then_some(()));

    // One is another, one is new. What would happen is said first, and does not happen.
    edit(&dir(&lab.a).join("second.conf"), "aes256gcm16", "aes128gcm16");
    write(&lab.a, &lab.b, "third", 1, true, "");
    let told = must_reload(&a, &["--dry-run"]);
    for line in [
        "second: changed (",
        "  - esp.proposals = \"aes256gcm16\"",
        "  + esp.proposals = \"aes128gcm16\"",
        "    CHILD_SAs are deleted, and made anew if they are to be: second",
        "third: added (",
        "2 changed, 1 unchanged; nothing was changed",
    ] {
        assert!(told.contains(line), "{line:?} is not in:\n{told}");
    }
    assert_eq!(spis(&wait_up(&a, "second")), second, "a dry run changes nothing");
    assert!(peer(&a, "third").is_none());
    must_reload(&a, &[]);
    wait_up(&a, "third");
    ping(&lab, 1, true);
    wait::until("the new algorithm", wait::PATIENCE, || {
        let second = peer(&a, "second")?;
        let suite = &second["ike_sas"][0]["child_sas"][0]["suite"];
        (second["state"] == "up" && suite == "ENCR_AES_GCM_16-128").then_some(())
    });
    ping(&lab, 2, false);
    let after = spis(&wait_up(&a, "second"));
    assert_eq!(after[0], second[0], "the IKE SA serves on");
    assert_ne!(after[1], second[1]);

    // One goes.
    fs::remove_file(dir(&lab.a).join("second.conf")).expect("file is there");
    assert!(must_reload(&a, &["--dry-run"]).contains("second: removed ("));
    must_reload(&a, &[]);
    wait_gone(&a, "second");
    wait::until("B to hear of it", wait::PATIENCE, || {
        let ike_sas = peer(&b, "second")?["ike_sas"].as_array()?.len();
        (ike_sas == 0).then_some(())
    });
    ping(&lab, 1, true);

    // Nothing is another: nothing happens.
    let told = must_reload(&a, &[]);
    assert_eq!(told.trim(), "0 changed, 2 unchanged");
    assert_eq!(spis(&wait_up(&a, "far")), untouched, "the same SAs all the time");
    assert_whole(&stream.stop());
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn change_that_needs_no_new_sa_is_applied_in_place_and_a_rekey_leaves_no_gap() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b) = open(&lab);
    let far = dir(&lab.a).join("far.conf");
    let before = spis(&wait_up(&a, "far"));
    let stream = Stream::start(&lab.a, &lab.b, RATE);
    wait::until("the stream", wait::PATIENCE, || (stream.received() > 100).then_some(()));

    edit(&far, "[ike]\n", "[ike]\ndpd = \"7s\"\nrekey-time = \"2h\"\n");
    edit(&far, "[esp]\n", "[esp]\nrekey-time = \"20m\"\nlife-time = \"30m\"\n");
    let told = must_reload(&a, &[far.to_str().expect("a path of ours")]);
    assert!(told.contains("  + ike.dpd = \"7s\"") && told.contains("in place"), "{told}");
    assert_eq!(spis(&wait_up(&a, "far")), before);

    edit(&far, "[esp]\n", "[esp]\nreplay-window = 4096\n");
    let told = must_reload(&a, &[]);
    assert!(told.contains("CHILD_SAs are rekeyed without a gap: far"), "{told}");
    let after = wait::until("the rekey", wait::PATIENCE, || {
        let far = peer(&a, "far")?;
        let children = far["ike_sas"][0]["child_sas"].as_array()?.clone();
        let is_new =
            |child: &Value| child["spi_inbound"] != before[1] && child["state"] == "INSTALLED";
        (children.len() == 1 && is_new(&children[0])).then_some(children)
    });
    // The lifetime of before is that of the SA that was made since.
    let rekey_in = after[0]["rekey_in_seconds"].as_u64().expect("a time");
    assert!(rekey_in <= 20 * 60, "{rekey_in}");
    assert_eq!(spis(&wait_up(&a, "far"))[0], before[0], "the IKE SA serves on");
    assert_whole(&stream.stop());
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn with_an_error_in_any_file_nothing_is_applied_at_all() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b) = open(&lab);
    let before = [spis(&wait_up(&a, "far")), spis(&wait_up(&a, "second"))];
    // One good change, and an error.
    edit(&dir(&lab.a).join("second.conf"), "aes256gcm16", "aes128gcm16");
    let bad = write(&lab.a, &lab.b, "third", 1, true, "mode = \"tunel\"");
    for more in [&[][..], &["--dry-run"]] {
        let output = reload(&a, more);
        let text = process::text(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for word in ["nothing is changed", "third.conf:", "tunel", "\"tunnel\""] {
            assert!(text.contains(word), "{word:?} is not in:\n{text}");
        }
    }
    a.signal(Signal::SIGHUP);
    wait::until("SIGHUP to be answered", wait::PATIENCE, || {
        a.log().contains("SIGHUP: nothing is changed").then_some(())
    });
    assert_eq!([spis(&wait_up(&a, "far")), spis(&wait_up(&a, "second"))], before);
    assert!(peer(&a, "third").is_none());
    ping(&lab, 1, false);
    ping(&lab, 2, false);

    // Two files that are right by themselves, and not together.
    fs::remove_file(&bad).expect("file is there");
    write(&lab.a, &lab.b, "third", 1, false, "");
    let output = reload(&a, &[]);
    let text = process::text(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("third.conf") && text.contains("far.conf"), "{text}");
    assert_eq!([spis(&wait_up(&a, "far")), spis(&wait_up(&a, "second"))], before);

    // Mended, SIGHUP does what `reload` does.
    write(&lab.a, &lab.b, "third", 1, true, "");
    a.signal(Signal::SIGHUP);
    wait_up(&a, "third");
    ping(&lab, 1, true);
    assert_eq!(spis(&wait_up(&a, "far")), before[0]);
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn key_in_a_file_that_is_another_makes_a_new_ike_sa() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b) = open(&lab);
    let before = spis(&wait_up(&a, "far"));
    for side in [&lab.b, &lab.a] {
        let psk = dir(side).join("far.psk");
        fs::write(psk, "quite another horse, with the same staple\n").expect("file is written");
    }
    must_reload(&b, &[]);
    let told = must_reload(&a, &[]);
    assert!(told.contains("auth = contents of a file that it names"), "{told}");
    assert!(!told.contains("horse"), "{told}");
    wait::until("a new IKE SA", wait::PATIENCE, || {
        let far = peer(&a, "far").filter(|far| far["state"] == "up")?;
        (spis(&far)[0] != before[0]).then_some(())
    });
    traffic::answers_within(wait::PATIENCE, &lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    assert!(a.stop().success() && b.stop().success());
}
