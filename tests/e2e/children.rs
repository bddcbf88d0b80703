//! Several CHILD_SAs with one peer, and packets that wait for one.

use serde_json::Value;

use crate::lab::charon::Connection;
use crate::lab::{Charon, Ipsecd, Lab, Need, Peer, process, traffic, wait};

/// Names and traffic of the CHILD_SAs that there are.
fn children(daemon: &Ipsecd<'_>) -> Vec<(String, u64)> {
    let ike = daemon.status()["peers"][0]["ike_sas"][0].clone();
    let children = ike["child_sas"].as_array().cloned().unwrap_or_default();
    let of = |child: &Value| {
        let name = child["name"].as_str().unwrap_or_default().to_owned();
        (name, child["outbound"]["packets"].as_u64().unwrap_or_default())
    };
    children.iter().map(of).collect()
}

#[test]
fn each_child_sa_carries_its_own_protocol_and_ports() {
    let Some(lab) = Lab::open(&[]) else { return };
    let [a, b] = [(&lab.a, &lab.b), (&lab.b, &lab.a)].map(|(side, far)| {
        let mut peer = Peer::new(side, far, false);
        let (here, there) = (side.subnet(1, false), far.subnet(1, false));
        peer.esp = format!(
            "[[child]]\nname = \"ping\"\nlocal = [\"{here}[icmp]\"]\npeer = [\"{there}[icmp]\"]\n\
             [[child]]\nname = \"tcp\"\nlocal = [\"{here}[tcp]\"]\npeer = [\"{there}[tcp/1024-65535]\"]\n\
             start = \"on-traffic\"\n"
        );
        if side.name == "b" {
            peer.esp = peer.esp.replace("[tcp]", "[tcp/1024-65535]").replace(
                &format!("{there}[tcp/1024-65535]"),
                &format!("{there}[tcp]"),
            );
            peer.esp = format!("start = \"respond\"\n{}", peer.esp.replace("on-traffic", "respond"));
        }
        Ipsecd::start(side, &peer)
    });
    b.must_up();
    a.must_up();
    assert_eq!(children(&a).len(), 1, "the other waits for traffic");
    let (here, there) = (lab.a.host(1, false), lab.b.host(1, false));
    traffic::ping(&lab.a.lan, here, there);
    let before = children(&a);
    assert!(before.iter().any(|(name, packets)| name == "ping" && *packets >= 10), "{before:?}");
    // The first segment waits for the CHILD_SA, which is made under the IKE SA there is.
    traffic::transfer(&lab.a.lan, here, &lab.b.lan, there, 100_000);
    let after = children(&a);
    assert!(after.iter().any(|(name, packets)| name == "tcp" && *packets > 10), "{after:?}");
    let drops = a.status()["drops"].clone();
    for reason in ["no-outbound-sa", "acquire-failed", "acquire-late"] {
        assert_eq!(drops[reason], Value::Null, "{drops}");
    }
    assert_eq!(a.status()["peers"][0]["ike_sas"].as_array().map(Vec::len), Some(1));
    for daemon in [&a, &b] {
        daemon.rekey(false);
    }
    traffic::ping(&lab.b.lan, there, here);
    traffic::transfer(&lab.a.lan, here, &lab.b.lan, there, 100_000);
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn packets_that_wait_in_vain_are_dropped_and_counted() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.ike = "retransmit-timeout = \"100ms\"\nretransmit-tries = 1\n".to_owned();
    peer.esp = "start = \"on-traffic\"\n".to_owned();
    let a = Ipsecd::start(&lab.a, &peer);
    a.must_up();
    let (here, there) = (lab.a.host(1, false).to_string(), lab.b.host(1, false).to_string());
    // Nobody answers at B.
    let mut ping = lab.a.lan.command("ping");
    let _no_answer =
        process::output(ping.args(["-n", "-q", "-c3", "-i0.05", "-W1", "-I", &here, &there]));
    let dropped = wait::until("what waited to be dropped", wait::PATIENCE, || {
        a.status()["drops"]["acquire-failed"].as_u64()
    });
    assert!(dropped >= 1, "{dropped}");
    assert_eq!(a.state(), "waiting", "the next packet tries again");
    assert!(a.stop().success());
}

/// What strongSwan has: the first networks, and in a CHILD_SA of its own the second.
fn two_children(lab: &Lab) -> Connection {
    let mut connection = Connection::new(&lab.b, &lab.a, false);
    let (here, there) = (lab.b.subnet(2, false), lab.a.subnet(2, false));
    connection.child_extra = format!(
        "}} second {{\n local_ts = {here}\n remote_ts = {there}\n esp_proposals = aes256gcm16\n"
    );
    connection
}

/// The same at A.
fn two_networks(lab: &Lab) -> Peer {
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.esp = format!(
        "[[child]]\nname = \"first\"\n[[child]]\nname = \"second\"\nlocal = [{:?}]\npeer = [{:?}]\n",
        lab.a.subnet(2, false),
        lab.b.subnet(2, false)
    );
    peer
}

fn pings_both_networks(lab: &Lab) {
    for net in [1, 2] {
        traffic::ping(&lab.a.lan, lab.a.host(net, false), lab.b.host(net, false));
        traffic::ping(&lab.b.lan, lab.b.host(net, false), lab.a.host(net, false));
    }
}

#[test]
fn strongswan_makes_several_child_sas_with_us_in_both_roles() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    for (we_begin, childless) in [(true, false), (true, true), (false, false)] {
        let charon = Charon::start(&lab.b, &two_children(&lab));
        let mut peer = two_networks(&lab);
        peer.ike = format!("childless = {childless}");
        if !we_begin {
            peer.esp = format!("start = \"respond\"\n{}", peer.esp);
        }
        let a = Ipsecd::start(&lab.a, &peer);
        a.must_up();
        if !we_begin {
            for child in ["net", "second"] {
                let args = ["--initiate", "--child", child, "--timeout", "10"];
                process::run(&mut charon.swanctl(&args));
            }
        }
        wait::until("two CHILD_SAs", wait::PATIENCE, || (children(&a).len() == 2).then_some(()));
        pings_both_networks(&lab);
        a.rekey(false);
        pings_both_networks(&lab);
        assert_eq!(a.status()["peers"][0]["ike_sas"].as_array().map(Vec::len), Some(1));
        assert!(a.stop().success());
        charon.stop();
    }
}
