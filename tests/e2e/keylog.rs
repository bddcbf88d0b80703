//! The keys that the daemon writes when it is told to: others read a live session with them, and so do we.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::lab::capture::Capture;
use crate::lab::{Charon, Connection, Ipsecd, Lab, Need, Peer, process, readers, traffic, wait};

const TABLES: [&str; 2] = ["esp_sa", "ikev2_decryption_table"];

#[test]
fn tshark_and_decrypt_open_a_live_session_with_the_keys_that_the_daemon_wrote() {
    let Some(lab) = Lab::open(&[Need::StrongSwan, Need::Tshark]) else { return };
    for (ike, esp, v6) in [
        ("aes256gcm16-prfsha384-x25519", "aes256gcm16", false),
        ("aes128-sha256-ecp256", "aes256-sha512", true),
    ] {
        let keys = lab.dir().join(format!("keys-{esp}"));
        let wire = Capture::start(&lab.router, &lab.a.wire(), &lab.dir().join("wire.pcap"));
        let mut connection = Connection::new(&lab.b, &lab.a, v6);
        (connection.ike, connection.esp) = (ike.to_owned(), esp.to_owned());
        let b = Charon::start(&lab.b, &connection);
        let mut peer = Peer::new(&lab.a, &lab.b, v6);
        (peer.ike, peer.esp) = (format!("proposals = {ike:?}"), format!("proposals = {esp:?}"));
        let a = Ipsecd::start_with_keylog(&lab.a, &peer, &keys);
        a.must_up();
        let (source, target) = (lab.a.host(1, false), lab.b.host(1, false));
        traffic::ping(&lab.a.lan, source, target);
        traffic::transfer(&lab.a.lan, source, &lab.b.lan, target, 200_000);
        a.rekey(false);
        a.rekey(true);
        traffic::ping(&lab.b.lan, target, source);
        assert_eq!(a.status()["keylog"], keys.to_str().expect("text"));
        let shown = process::run(&mut a.command(&["status"]));
        assert!(shown.contains("WARNING: the keys of every SA are written to"), "{shown}");
        assert!(a.log().contains("the keys of every SA are written to disk"), "{}", a.log());
        a.down();
        wait::until("strongSwan to hear of the DELETE", wait::PATIENCE, || {
            b.sas().is_empty().then_some(())
        });
        let wire = wire.stop();
        for path in [&*keys, &keys.join(TABLES[0]), &keys.join(TABLES[1])] {
            let mode = fs::metadata(path).expect("written").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }

        let tshark = readers::tshark_with_profile(&wire, &keys);
        assert_eq!(tshark.faults, [""; 0], "{ike} {esp}");
        assert_eq!(tshark.ike_opened + 2, tshark.ike, "all but IKE_SA_INIT");
        assert!(tshark.ike_opened >= 8 && tshark.esp_opened > 150, "{tshark:?}");
        assert_eq!(
            decrypt(&a, &wire, &keys),
            (tshark.esp_opened, tshark.ike_opened),
            "{ike} {esp}"
        );

        // Its log says that there is a key log, and nothing of what is in it.
        for table in TABLES {
            for row in fs::read_to_string(keys.join(table)).expect("readable").lines() {
                let digits = row.split(['"', ',']).filter(|field| field.len() >= 32);
                for key in
                    digits.filter(|key| key.bytes().all(|b| b.is_ascii_hexdigit() || b == b'x'))
                {
                    assert!(!a.log().contains(key.trim_start_matches("0x")), "{table}: {row}");
                }
            }
        }
        assert!(a.stop().success());
        b.stop();
    }
}

/// ESP packets and IKE messages that `ipsecd decrypt` opens; nothing else may be in the capture than those, and
/// IKE_SA_INIT.
fn decrypt(any: &Ipsecd<'_>, wire: &Path, keys: &Path) -> (usize, usize) {
    let mut command = any.command(&["decrypt", "--json"]);
    command.arg(wire);
    for table in TABLES {
        command.arg("--keys").arg(keys.join(table));
    }
    let printed = process::run(&mut command);
    let (mut esp, mut ike) = (0, 0);
    for line in printed.lines() {
        let packet: Value = serde_json::from_str(line).expect("JSON");
        let is_init = packet["ike"]["exchange"] == "IKE_SA_INIT";
        match packet["verdict"].as_str() {
            Some("ok") => esp += 1,
            Some("ike") if is_init || packet["ike"]["inside"].is_array() => {
                ike += usize::from(!is_init);
            }
            // IPv6 neighbours and the like, NAT-keepalives; the summary.
            Some("other" | "keepalive") | None => {}
            Some(_) => panic!("{line}"),
        }
    }
    (esp, ike)
}

#[test]
fn a_directory_that_others_can_read_is_refused() {
    let Some(lab) = Lab::open(&[]) else { return };
    let open = lab.dir().join("open");
    fs::create_dir(&open).expect("made");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("set");
    let config = lab.dir().join("no-peers");
    fs::create_dir(&config).expect("made");
    let mut command = lab.a.gw.command(env!("CARGO_BIN_EXE_ipsecd"));
    command.args(["daemon", "--config-dir"]).arg(&config).arg("--keylog").arg(&open);
    let output = process::output(&mut command);
    let text = process::text(&output);
    assert!(!output.status.success() && text.contains("others have access to it"), "{text}");
    assert_eq!(fs::read_dir(&open).expect("there").count(), 0);
}

#[test]
fn up_starts_a_daemon_with_a_key_log_and_finds_it_again() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (mut a, b) = (Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false));
    a.esp = "start = \"respond\"".to_owned();
    let a = Ipsecd::start(&lab.a, &a);
    a.must_up();
    let keys = lab.dir().join("keys");
    let file = Ipsecd::file_of(&lab.b, &b);
    let up = |dir: &Path| {
        let mut command = lab.b.gw.command(env!("CARGO_BIN_EXE_ipsecd"));
        command.arg("up").arg("--keylog").arg(dir).arg(&file);
        process::output(&mut command)
    };
    let text = process::text(&up(&keys));
    assert!(text.contains("far: up after"), "{text}");
    for table in TABLES {
        assert!(fs::metadata(keys.join(table)).expect("written").len() > 0, "{table}");
    }
    assert!(up(&keys).status.success(), "the same again");
    let other = up(&lab.dir().join("other"));
    let text = process::text(&other);
    assert!(!other.status.success() && text.contains("not with this --keylog"), "{text}");
    process::run(lab.b.gw.command(env!("CARGO_BIN_EXE_ipsecd")).args(["down", "--all"]));
}
