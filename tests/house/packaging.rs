//! The unit files: hardened, and in step with what they start.

use std::process::Command;

use crate::{read, root};

const UNITS: [&str; 2] = ["packaging/ipsecd.service", "packaging/ipsecd@.service"];

/// The most that `systemd-analyze security` may say, of 10: everything below 3 it calls OK, in tenths.
const THRESHOLD: &str = "30";

#[test]
fn exposure_of_the_units_is_below_three() {
    for unit in UNITS {
        let path = root().join(unit);
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--threshold", THRESHOLD]).arg(&path);
        let Ok(output) = analyze.output() else {
            assert!(std::env::var_os("CI").is_none(), "needs systemd-analyze");
            eprintln!("SKIP: needs systemd-analyze");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Overall exposure level"), "{unit}: {text}");
        assert!(output.status.success(), "{unit}: {text}");
    }
}

#[test]
fn units_notify_are_watched_reload_and_keep_keys_to_root() {
    for unit in UNITS {
        let text = read(&root().join(unit));
        for line in [
            "Type=notify",
            "WatchdogSec=",
            "ExecReload=/usr/sbin/ipsecd reload",
            "ConfigurationDirectoryMode=0700",
            "StateDirectoryMode=0700",
            "RuntimeDirectoryMode=0700",
            "DeviceAllow=/dev/net/tun rw",
        ] {
            assert!(text.lines().any(|other| other.starts_with(line)), "{unit}: no {line}");
        }
    }
}

#[test]
fn capabilities_of_the_units_are_those_that_the_daemon_keeps() {
    let code = read(&root().join("src/io/privs.rs"));
    let (_, kept) = code.split_once("const KEPT").expect("the list is there");
    let (kept, _) = kept.split_once("];").expect("the list ends");
    let mut kept: Vec<_> = kept
        .split("Capability::")
        .skip(1)
        .filter_map(|rest| rest.split(',').next())
        .filter(|name| name.starts_with("CAP_"))
        .collect();
    kept.sort_unstable();
    for unit in UNITS {
        let text = read(&root().join(unit));
        let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let mut has: Vec<_> = line.unwrap_or_default().split(' ').collect();
        has.sort_unstable();
        assert_eq!(has, kept, "{unit}");
    }
}
