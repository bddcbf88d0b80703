//! A daemon's state, of any number of tunnels, at any moment of its life.

use std::collections::BTreeMap;

use ipsecd::control::protocol::{
    ChildSaStatus, Code, Failure, IkeSaStatus, OffloadStatus, PeerState, PeerStatus, Status,
    Traffic,
};

/// After `seconds` of a daemon's life. Every tunnel is another: the third does not come up, the fifth loses packets, the
/// seventh is attacked.
pub(crate) fn status(tunnels: u64, seconds: u64) -> Status {
    let peers = (1..=tunnels).map(|number| peer(number, seconds)).collect();
    let drops = if tunnels >= 7 {
        BTreeMap::from([("icv-mismatch".to_owned(), 2 * seconds), ("no-policy".to_owned(), 4)])
    } else {
        BTreeMap::new()
    };
    Status {
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_seconds: 3600 + seconds,
        keylog: None,
        offload: OffloadStatus::default(),
        workers: 1,
        peers,
        policies: Vec::new(),
        drops,
    }
}

fn peer(number: u64, seconds: u64) -> PeerStatus {
    let down = number % 10 == 3;
    let message = "the peer does not answer".to_owned();
    PeerStatus {
        name: format!("site-{number:04}"),
        file: format!("/etc/ipsecd/site-{number:04}.conf").into(),
        state: if down { PeerState::Retrying } else { PeerState::Up },
        last_error: down.then_some(Failure { code: Code::Unreachable, message }),
        retry_in_seconds: down.then_some(4),
        interface: "ipsec0".to_owned(),
        mtu: Some(1438),
        routes: vec![format!("10.{}.{}.0/24", number / 250, number % 250)],
        ike_sas: if down { vec![] } else { vec![ike(number, seconds)] },
        manual_sas: vec![],
    }
}

fn ike(number: u64, seconds: u64) -> IkeSaStatus {
    let remote = format!("192.0.{}.{}", 2 + number / 250, 1 + number % 250);
    // A wave, so that there is something to see, whose height is the tunnel's own.
    let packets: u64 = (0..=seconds).map(|s| number % 9 * 100 * (1 + (s + number) % 6)).sum();
    let lost = if number % 10 == 5 { packets / 20 } else { 0 };
    let drops = if number % 10 == 7 {
        BTreeMap::from([("icv-mismatch".to_owned(), 2 * seconds)])
    } else {
        BTreeMap::new()
    };
    let child = ChildSaStatus {
        name: format!("site-{number:04}"),
        state: "INSTALLED".to_owned(),
        spi_inbound: format!("0x{number:08x}"),
        spi_outbound: format!("0x{:08x}", number + 0x1_0000),
        suite: "ENCR_AES_GCM_16-256".to_owned(),
        mode: "tunnel".to_owned(),
        encap: "udp".to_owned(),
        local: "192.0.2.1:4500".to_owned(),
        remote: format!("{remote}:4500"),
        ts_local: vec!["10.1.0.0/16".to_owned()],
        ts_peer: vec![format!("10.{}.{}.0/24", number / 250, number % 250)],
        inbound: Traffic { packets: packets - lost, bytes: (packets - lost) * 1200 },
        outbound: Traffic { packets: packets / 2, bytes: packets * 30 },
        sequence_inbound: packets,
        sequence_outbound: packets / 2,
        resource: None,
        drops,
        age_seconds: seconds + 60,
        rekey_in_seconds: Some(3000 + number * 7 - seconds),
    };
    IkeSaStatus {
        state: "ESTABLISHED".to_owned(),
        initiator: true,
        spi_i: format!("{number:016x}"),
        spi_r: format!("{number:016x}"),
        local_id: "a.example.net".to_owned(),
        peer_id: Some(format!("site-{number}.example.net")),
        eap_identity: None,
        virtual_addresses: vec![],
        leased_addresses: vec![],
        dns_servers: vec![],
        dns_domains: vec![],
        peer_subnets: vec![],
        local: "192.0.2.1:4500".to_owned(),
        remote: format!("{remote}:4500"),
        mobike: true,
        nat_local: false,
        nat_peer: false,
        suite: Some("ENCR_AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE25519".to_owned()),
        ppk: false,
        age_seconds: Some(seconds + 60),
        rekey_in_seconds: Some(12_000),
        rtt_us: Some(900 + number * 1700),
        child_sas: vec![child],
    }
}
