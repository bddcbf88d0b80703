//! `ipsecd capture`: packets inside and outside, and what tshark makes of them with the keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::lab::process::{self, Process};
use crate::lab::{Ipsecd, Lab, Need, Peer, traffic, wait};

#[test]
fn a_capture_opens_decrypted_in_tshark_with_the_one_command_that_it_names() {
    let Some(lab) = Lab::open(&[Need::Tshark]) else { return };
    let keys = lab.dir().join("keys");
    let mut far = Peer::new(&lab.b, &lab.a, false);
    far.esp = "start = \"respond\"\n".to_owned();
    let b = Ipsecd::start(&lab.b, &far);
    let a = Ipsecd::start_with_keylog(&lab.a, &Peer::new(&lab.a, &lab.b, false), &keys);
    b.must_up();
    a.must_up();
    let file = lab.dir().join("far.pcapng");
    let path = file.to_str().expect("text");
    // Ten pings and their answers, each inside and outside.
    let mut capture = Process::start(
        &mut a.command(&["capture", "-w", path, "--count=40", "tunnel", "far", "proto", "icmp"]),
        &lab.dir().join("capture.log"),
    );
    wait::until("the capture to listen", wait::PATIENCE, || {
        capture.log().contains("decrypted:").then_some(())
    });
    traffic::ping(&lab.a.lan, lab.a.host(1, false), lab.b.host(1, false));
    let ended = wait::until("forty packets", wait::PATIENCE, || capture.ended());
    assert!(ended.success(), "{}", capture.log());
    assert!(capture.log().contains("WARNING: it holds packets in clear"), "{}", capture.log());
    assert_eq!(fs::metadata(&file).expect("written").permissions().mode() & 0o777, 0o600);

    let log = capture.log();
    let command = log.lines().find_map(|line| line.split_once("decrypted: ")).expect("named").1;
    let fields = "-T fields -E separator=/t -E occurrence=l -e frame.interface_name -e esp.spi \
                  -e icmp.type -e frame.comment";
    let shown = process::run(Command::new("sh").args(["-c", &format!("{command} {fields}")]));
    let child = a.child();
    let spi = |name: &str| child[name].as_str().expect("an SPI").to_owned();
    let (inbound, outbound) = (spi("spi_inbound"), spi("spi_outbound"));
    let (mut inner, mut outer) = (0, 0);
    for line in shown.lines() {
        let columns: Vec<_> = line.split('\t').collect();
        let [interface, esp, icmp, comment] = columns[..] else { panic!("{line}") };
        // Echo requests go out, answers come in; outside they are seen through ESP.
        let want = match icmp {
            "8" => format!("outbound protect far/far {outbound}"),
            "0" => format!("inbound deliver far/far {inbound}"),
            _ => panic!("not decrypted: {line}"),
        };
        assert_eq!(comment, want, "{line}");
        match (interface, esp.is_empty()) {
            ("inner", true) => inner += 1,
            ("outer", false) => outer += 1,
            _ => panic!("{line}"),
        }
    }
    assert_eq!((inner, outer), (20, 20), "{shown}");

    let again = process::output(&mut a.command(&["capture", "-w", path]));
    assert_eq!(again.status.code(), Some(1), "{}", process::text(&again));
    assert!(process::text(&again).contains("exists"), "{}", process::text(&again));
    assert!(a.stop().success() && b.stop().success());
}
