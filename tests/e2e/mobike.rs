//! Addresses that change while the tunnel is up: MOBIKE (RFC 4555), with strongSwan as responder and as initiator, and a NAT that
//! chooses another port (RFC 7296 §2.23).

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::ipsecd::PSK;
use crate::lab::topology::Side;
use crate::lab::{Charon, Ipsecd, Lab, Need, Peer, traffic, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// strongSwan with MOBIKE, from whatever address it has.
fn charon<'a>(local: &'a Side, remote: &Side) -> Charon<'a> {
    let conf = format!(
        "connections {{ lab {{
           version = 2
           mobike = yes
           local_addrs = %any
           remote_addrs = {}
           proposals = aes256gcm16-prfsha384-x25519
           local {{ auth = psk
             id = {} }}
           remote {{ auth = psk
             id = {} }}
           children {{ net {{
             local_ts = {}
             remote_ts = {}
             esp_proposals = aes256gcm16
           }} }}
         }} }}
         secrets {{ ike-lab {{ secret = \"{PSK}\" }} }}\n",
        remote.outside(false),
        local.id(),
        remote.id(),
        local.subnet(1, false),
        remote.subnet(1, false),
    );
    Charon::start_conf(local, &conf, "")
}

/// Gives a gateway the address of its net that ends in `last`, in place of the one that it has.
fn move_to(side: &Side, last: u8) -> IpAddr {
    let IpAddr::V4(old) = side.outside(false) else { unreachable!("asked for IPv4") };
    let [a, b, c, _] = old.octets();
    let new = IpAddr::from([a, b, c, last]);
    side.gw.sh("echo 1 > /proc/sys/net/ipv4/conf/wan0/promote_secondaries");
    side.gw.ip(&format!("addr add {new}/24 dev wan0"));
    side.gw.ip(&format!("addr del {old}/24 dev wan0"));
    side.gw.ip(&format!("route replace default via {}", side.router(false)));
    new
}

/// Whether an address of the status is this one, with whatever port.
fn is_at(status: &serde_json::Value, address: IpAddr) -> bool {
    status.as_str().is_some_and(|text| text.split(':').next() == Some(&address.to_string()))
}

#[test]
fn strongswan_follows_when_our_address_changes() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let b = charon(&lab.b, &lab.a);
    let a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    a.must_up();
    assert_eq!(a.ike()["mobike"], true);
    traffic::both_ways(&lab, 1, false);
    let new = move_to(&lab.a, 9);
    let (ours, theirs) = (lab.a.host(1, false), lab.b.host(1, false));
    traffic::answers_within(PATIENCE, &lab.a.lan, ours, theirs);
    wait::until("our IKE SA to have moved", PATIENCE, || {
        is_at(&a.ike()["local"], new).then_some(())
    });
    traffic::both_ways(&lab, 1, false);
    assert_eq!(a.status()["peers"][0]["ike_sas"].as_array().map(Vec::len), Some(1));
    let sas = b.sas();
    assert!(sas.contains(&new.to_string()), "{sas}");
    assert!(b.log().contains("N(UPD_SA_ADDR)"), "{}", b.log());
    assert!(a.stop().success());
    b.stop();
}

#[test]
fn we_follow_when_strongswans_address_changes() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let mut peer = Peer::new(&lab.a, &lab.b, false);
    peer.esp = "start = \"respond\"".to_owned();
    let a = Ipsecd::start(&lab.a, &peer);
    a.must_up();
    let b = charon(&lab.b, &lab.a);
    b.must_initiate();
    a.up_within(Duration::from_secs(2));
    assert_eq!(a.ike()["mobike"], true);
    traffic::both_ways(&lab, 1, false);
    let new = move_to(&lab.b, 9);
    wait::until("our IKE SA to have moved", PATIENCE, || {
        is_at(&a.ike()["remote"], new).then_some(())
    });
    let (ours, theirs) = (lab.a.host(1, false), lab.b.host(1, false));
    traffic::answers_within(PATIENCE, &lab.a.lan, ours, theirs);
    traffic::both_ways(&lab, 1, false);
    assert!(is_at(&a.child()["remote"], new), "{:#}", a.child());
    assert!(a.stop().success());
    b.stop();
}

#[test]
fn either_of_two_daemons_may_move() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut far = Peer::new(&lab.b, &lab.a, false);
    far.esp = "start = \"respond\"".to_owned();
    let b = Ipsecd::start(&lab.b, &far);
    b.must_up();
    let a = Ipsecd::start(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    a.must_up();
    let (ours, theirs) = (lab.a.host(1, false), lab.b.host(1, false));
    traffic::ping(&lab.a.lan, ours, theirs);
    let spis = a.child()["spi_inbound"].clone();
    let new = move_to(&lab.a, 9);
    traffic::answers_within(PATIENCE, &lab.a.lan, ours, theirs);
    traffic::ping(&lab.b.lan, theirs, ours);
    assert!(is_at(&b.child()["remote"], new), "{:#}", b.child());
    let new = move_to(&lab.b, 9);
    traffic::answers_within(PATIENCE, &lab.b.lan, theirs, ours);
    traffic::ping(&lab.a.lan, ours, theirs);
    assert!(is_at(&a.child()["remote"], new), "{:#}", a.child());
    assert_eq!(a.child()["spi_inbound"], spis, "the same SAs go on");
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn nat_that_chooses_another_port_is_followed() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    for (mobike, first, then) in
        [(false, "20000-24999", "25000-29999"), (true, "30000-34999", "35000-39999")]
    {
        let masquerade = |ports: &str| {
            let gw = lab.a.outside(false);
            lab.nft(&format!(
                "table ip nat {{ chain post {{ type nat hook postrouting priority 100;
                   ip saddr {gw} oifname {} udp sport {{ 500, 4500 }} masquerade to :{ports}
                 }}
                 }}",
                lab.b.wire()
            ));
        };
        masquerade(first);
        let mut far = Peer::new(&lab.b, &lab.a, false);
        far.address = "any".to_owned();
        far.ike = format!("mobike = {mobike}");
        let b = Ipsecd::start(&lab.b, &far);
        b.must_up();
        let mut near = Peer::new(&lab.a, &lab.b, false);
        near.ike = format!("mobike = {mobike}");
        let a = Ipsecd::start(&lab.a, &near);
        a.must_up();
        let (ours, theirs) = (lab.a.host(1, false), lab.b.host(1, false));
        traffic::ping(&lab.a.lan, ours, theirs);
        let port = || {
            let remote = b.child()["remote"].as_str().map(str::to_owned);
            remote.and_then(|text| text.rsplit(':').next()?.parse::<u16>().ok())
        };
        let before = port();
        assert!(before.is_some_and(|port| port != 4500), "{:#}", b.child());
        masquerade(then);
        // With its address the mappings go that a masquerade has made.
        let (address, wire) = (lab.b.router(false), lab.b.wire());
        lab.router.ip(&format!("addr del {address}/24 dev {wire}"));
        lab.router.ip(&format!("addr add {address}/24 dev {wire}"));
        traffic::answers_within(PATIENCE, &lab.a.lan, ours, theirs);
        wait::until("the new port to be used", PATIENCE, || {
            let _echo = traffic::answers(&lab.a.lan, ours, theirs);
            (port() != before).then_some(())
        });
        traffic::ping(&lab.a.lan, ours, theirs);
        traffic::ping(&lab.b.lan, theirs, ours);
        assert!(a.stop().success() && b.stop().success());
    }
}
