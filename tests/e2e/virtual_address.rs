//! Virtual addresses by the Configuration payload, with strongSwan at the far end in both roles, and several hosts on the road
//! that share one file of ours.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cert::write;
use crate::lab::ipsecd::PSK;
use crate::lab::topology::Side;
use crate::lab::{Charon, Ipsecd, Lab, Need, process, traffic, wait};

/// Our file for a host on the road, called `id`, whose gateway is at `gateway`.
fn client_file(dir: &Path, id: &str, gateway: IpAddr, gateway_id: &str, subnet: &str) -> PathBuf {
    let file = dir.join("far.conf");
    write(&dir.join("far.psk"), PSK.as_bytes());
    let text = format!(
        "[local]\nid = {id:?}\nvirtual = [\"ipv4\"]\n\
         [peer]\naddress = \"{gateway}\"\nid = {gateway_id:?}\nsubnets = [{subnet:?}]\n\
         [auth]\npsk = {{ file = \"far.psk\" }}\n"
    );
    write(&file, text.as_bytes());
    file
}

/// Our file for a gateway with a pool.
fn server_file(side: &Side, id: &str, pool: &str) -> PathBuf {
    let dir = side.dir.join("ipsecd");
    let file = dir.join("far.conf");
    write(&dir.join("far.psk"), PSK.as_bytes());
    let text = format!(
        "[local]\nid = {:?}\nsubnets = [{:?}]\n\
         [peer]\naddress = \"any\"\nid = {id:?}\npool = [{pool:?}]\n\
         dns = [\"10.1.1.53\"]\ndns-domains = [\"corp.example\"]\n\
         [auth]\npsk = {{ file = \"far.psk\" }}\n",
        side.id(),
        side.subnet(1, false),
    );
    write(&file, text.as_bytes());
    file
}

/// strongSwan's side: `more` lines of the connection, `ts` of the child, and a pool if there is one.
fn charon<'a>(local: &'a Side, remote: &Side, more: &str, ts: &str, pools: &str) -> Charon<'a> {
    let conf = format!(
        "connections {{ lab {{
           version = 2
           mobike = no
           local_addrs = {}
           remote_addrs = {}
           proposals = aes256gcm16-prfsha384-x25519
           {more}
           local {{ auth = psk
             id = {} }}
           remote {{ auth = psk
             id = {} }}
           children {{ net {{
             {ts}
             esp_proposals = aes256gcm16
           }} }}
         }} }}
         {pools}
         secrets {{ ike-lab {{ secret = \"{PSK}\" }} }}\n",
        local.outside(false),
        remote.outside(false),
        local.id(),
        remote.id(),
    );
    Charon::start_conf(local, &conf, "")
}

/// Puts a `resolvectl` in the way of the daemon of a side that writes down how it was called; where it does.
fn resolvectl(side: &Side) -> PathBuf {
    let (bin, calls) = (side.dir.join("bin"), side.dir.join("resolvectl-calls"));
    let script = bin.join("resolvectl");
    write(&script, format!("#!/bin/sh\necho \"$@\" >> {}\n", calls.display()).as_bytes());
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode is set");
    calls
}

/// Waits until resolvectl was called with all of these, one after another.
#[track_caller]
fn was_called(calls: &Path, wanted: &[&str]) {
    wait::until(&format!("resolvectl {wanted:?}"), Duration::from_secs(5), || {
        let text = fs::read_to_string(calls).unwrap_or_default();
        let mut lines = text.lines();
        wanted.iter().all(|wanted| lines.any(|line| line == *wanted)).then_some(())
    });
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn strongswan_gives_us_an_address_and_names() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let before = lab.a.gw.network_state();
    let calls = resolvectl(&lab.a);
    let subnet = lab.b.subnet(1, false);
    let ts = format!("local_ts = {subnet}");
    let pools = "pools { road { addrs = 10.3.0.0/24\n dns = 10.2.1.53\n 25 = corp.example } }";
    let b = charon(&lab.b, &lab.a, "pools = road", &ts, pools);
    let dir = lab.a.dir.join("ipsecd");
    let file = client_file(&dir, &lab.a.id(), lab.b.outside(false), &lab.b.id(), &subnet);
    let a = Ipsecd::start_for_file(&lab.a, file);
    a.must_up();
    let ike = a.ike();
    assert_eq!(ike["virtual_addresses"][0], "10.3.0.1", "{ike:#}");
    assert_eq!(ike["dns_servers"][0], "10.2.1.53", "{ike:#}");
    assert_eq!(ike["dns_domains"][0], "corp.example", "{ike:#}");
    assert_eq!(a.child()["ts_local"][0], "10.3.0.1/32");
    let set = ["domain ipsec0 ~corp.example", "dns ipsec0 10.2.1.53", "flush-caches"];
    was_called(&calls, &set);
    let (ours, theirs) = (address("10.3.0.1"), lab.b.host(1, false));
    traffic::ping(&lab.a.gw, ours, theirs);
    traffic::ping(&lab.b.lan, theirs, ours);
    // What nobody told where to come from does come from there.
    let route = lab.a.gw.ip(&format!("route get {theirs}"));
    assert!(route.contains("dev ipsec0") && route.contains("src 10.3.0.1"), "{route}");
    a.rekey(true);
    a.rekey(false);
    traffic::ping(&lab.a.gw, ours, theirs);
    a.down();
    was_called(&calls, &["dns ipsec0 10.2.1.53", "revert ipsec0"]);
    assert_eq!(before, lab.a.gw.network_state(), "something was left");
    // Whoever comes back has the same one.
    a.must_up();
    assert_eq!(a.ike()["virtual_addresses"][0], "10.3.0.1");
    assert!(a.stop().success());
    b.stop();
}

#[test]
fn strongswan_gets_an_address_of_our_pool() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let ts = format!("remote_ts = {}", lab.a.subnet(1, false));
    let b = charon(&lab.b, &lab.a, "vips = 0.0.0.0", &ts, "");
    let a = Ipsecd::start_for_file(&lab.a, server_file(&lab.a, &lab.b.id(), "10.3.0.0/24"));
    a.must_up();
    b.must_initiate();
    a.up_within(Duration::from_secs(2));
    let ike = a.ike();
    assert_eq!(ike["leased_addresses"][0], "10.3.0.1", "{ike:#}");
    assert_eq!(a.child()["ts_peer"][0], "10.3.0.1/32");
    let (ours, theirs) = (lab.a.host(1, false), address("10.3.0.1"));
    traffic::ping(&lab.b.gw, theirs, ours);
    traffic::ping(&lab.a.lan, ours, theirs);
    b.rekey(true);
    b.rekey(false);
    wait::until("the rekeys", Duration::from_secs(5), || {
        b.log().contains("outbound CHILD_SA net{2} established").then_some(())
    });
    traffic::ping(&lab.b.gw, theirs, ours);
    assert_eq!(a.ike()["leased_addresses"][0], "10.3.0.1");
    b.terminate();
    b.must_initiate();
    a.up_within(Duration::from_secs(2));
    assert_eq!(a.ike()["leased_addresses"][0], "10.3.0.1", "it is kept for who had it");
    let log = b.log();
    assert!(log.contains("installing new virtual IP 10.3.0.1"), "{log}");
    assert!(a.stop().success());
    b.stop();
}

#[test]
fn hosts_on_the_road_share_one_file() {
    let Some(lab) = Lab::open(&[]) else { return };
    let a = Ipsecd::start_for_file(&lab.a, server_file(&lab.a, "any", "10.3.0.0/24"));
    a.must_up();
    let gateway = lab.a.outside(false);
    let subnet = lab.a.subnet(1, false);
    // One is gateway B, the other the router between.
    let joe = client_file(
        &lab.b.dir.join("ipsecd"),
        "joe.example.net",
        gateway,
        "a.example.net",
        &subnet,
    );
    let joe = Ipsecd::start_for_file(&lab.b, joe);
    let ann_dir = lab.dir().join("ann");
    let ann = client_file(&ann_dir, "ann.example.net", gateway, "a.example.net", &subnet);
    let ann = Ipsecd::start_for_file_in(&lab.router, &ann_dir, ann);
    joe.must_up();
    ann.must_up();
    let ours = lab.a.host(1, false);
    let (joes, anns) = (address("10.3.0.1"), address("10.3.0.2"));
    assert_eq!(joe.ike()["virtual_addresses"][0], "10.3.0.1");
    assert_eq!(ann.ike()["virtual_addresses"][0], "10.3.0.2");
    for (host, theirs) in [(&lab.b.gw, joes), (&lab.router, anns)] {
        traffic::ping(host, theirs, ours);
        traffic::ping(&lab.a.lan, ours, theirs);
    }
    let count = || a.status()["peers"][0]["ike_sas"].as_array().map_or(0, Vec::len);
    assert_eq!(count(), 2);
    joe.down();
    wait::until("one to be gone", Duration::from_secs(5), || (count() == 1).then_some(()));
    traffic::ping(&lab.a.lan, ours, anns);
    assert!(!traffic::answers(&lab.a.lan, ours, joes));
    joe.must_up();
    assert_eq!(joe.ike()["virtual_addresses"][0], "10.3.0.1", "it is kept for who had it");
    traffic::ping(&lab.b.gw, joes, ours);
    traffic::ping(&lab.router, anns, ours);
    for daemon in [joe, ann, a] {
        assert!(daemon.stop().success());
    }
}

#[test]
fn gateway_without_an_address_for_us_is_one_sentence() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let subnet = lab.b.subnet(1, false);
    let ts = format!("local_ts = {subnet}\n remote_ts = 0.0.0.0/0");
    let b = charon(&lab.b, &lab.a, "", &ts, "");
    let dir = lab.a.dir.join("ipsecd");
    let file = client_file(&dir, &lab.a.id(), lab.b.outside(false), &lab.b.id(), &subnet);
    let a = Ipsecd::start_for_file(&lab.a, file);
    let output = a.up(10);
    assert!(!output.status.success(), "{}", process::text(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("[local] virtual"), "{stderr}");
    assert!(a.stop().success());
    b.stop();
}
