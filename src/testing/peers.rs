//! Two peers that fit each other, for tests to start from and to spoil.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::sync::Arc;

use crate::crypto::Secret;
use crate::ike::WallClock;
use crate::ipsec::pad::{
    Auth, ChildPolicy, EncapPolicy, FragmentPolicy, Identity, IkePolicy, Peer, PeerAddress,
    StartPolicy, Unique,
};
use crate::ipsec::suite::{ChildProposal, Encr, EspSuite, IkeProposal, Protocol};
use crate::ipsec::{
    DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Path, PolicyId, SaParams, Spi, TrafficSelector,
};
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PrfId};

/// Where A is.
pub const ADDR_A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Where B is.
pub const ADDR_B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
/// What both sites prove to hold.
pub const PSK: &[u8] = b"correct horse battery staple";

/// The date at both sites: always the first of November 2026.
#[derive(Clone, Copy, Debug)]
pub struct Today;

impl WallClock for Today {
    fn since_1970(&self) -> Duration {
        Duration::from_secs(1_793_491_200)
    }
}

/// Site A as A's configuration has it: B is its peer, called `b`.
#[must_use]
pub fn site_a() -> Peer {
    site("b", "a.example.net", "b.example.net", ADDR_B, 1, 2)
}

/// Site B as B's configuration has it: A is its peer, called `a`.
#[must_use]
pub fn site_b() -> Peer {
    site("a", "b.example.net", "a.example.net", ADDR_A, 2, 1)
}

fn site(name: &str, local: &str, peer: &str, address: IpAddr, here: u8, there: u8) -> Peer {
    Peer {
        name: Arc::from(name),
        local_addr: None,
        address: PeerAddress::Ip(address),
        local_id: Identity::Fqdn(local.to_owned()),
        peer_id: Some(Identity::Fqdn(peer.to_owned())),
        auth: Auth::psk(Secret::copy_of(PSK)),
        ppk: None,
        ike: IkePolicy {
            proposals: vec![ike_proposal()],
            encap: EncapPolicy::Auto,
            rekey_time: None,
            over_time: Duration::from_secs(60),
            reauth_time: None,
            unique: Unique::No,
            dpd_delay: None,
            childless: false,
            dpd_action: None,
            close_action: None,
            retransmit_timeout: Duration::from_secs(1),
            retransmit_base_percent: 180,
            retransmit_tries: 5,
            // So large that each message is one datagram; tests of fragments say otherwise.
            fragmentation: FragmentPolicy { size: u16::MAX, ..FragmentPolicy::default() },
            // So that everything stays on port 500; tests of it say otherwise.
            mobike: false,
        },
        request: None,
        pool: None,
        children: vec![child("lan", 1, &[subnet(here)], &[subnet(there)])],
    }
}

/// A CHILD_SA policy with AES-GCM-16-256 that is never rekeyed by itself.
#[must_use]
pub fn child(
    name: &str,
    policy: u32,
    ts_local: &[TrafficSelector],
    ts_peer: &[TrafficSelector],
) -> ChildPolicy {
    ChildPolicy {
        name: Arc::from(name),
        policy: PolicyId(policy),
        proposals: vec![esp_proposal()],
        mode: Mode::Tunnel,
        or_tunnel: false,
        start: StartPolicy::Now,
        ts_local: ts_local.to_vec(),
        ts_peer: ts_peer.to_vec(),
        lifetime: Lifetime::default(),
        per_resource: 0,
        replay_window: 1024,
        df: DfPolicy::Copy,
        dscp: DscpPolicy::Copy,
    }
}

/// 10.`n`.0.0/16, every protocol and port.
#[must_use]
pub const fn subnet(n: u8) -> TrafficSelector {
    range(Ipv4Addr::new(10, n, 0, 0), Ipv4Addr::new(10, n, 255, 255))
}

/// These addresses, every protocol and port.
#[must_use]
pub const fn range(start: Ipv4Addr, end: Ipv4Addr) -> TrafficSelector {
    TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        start_addr: IpAddr::V4(start),
        end_addr: IpAddr::V4(end),
    }
}

/// AES-GCM-16-256, PRF-HMAC-SHA2-256, x25519.
#[must_use]
pub fn ike_proposal() -> IkeProposal {
    IkeProposal {
        encr: vec![AES_GCM_256],
        integ: Vec::new(),
        prf: vec![PrfId::PRF_HMAC_SHA2_256],
        ke: vec![KeId::CURVE25519],
        addke: Default::default(),
    }
}

/// AES-GCM-16-256 without PFS.
#[must_use]
pub fn esp_proposal() -> ChildProposal {
    ChildProposal {
        protocol: Protocol::Esp,
        encr: vec![AES_GCM_256],
        integ: Vec::new(),
        ke: Vec::new(),
        addke: Default::default(),
        esn: vec![EsnId::NO_ESN],
    }
}

/// AES-GCM with a 16-byte ICV and 256-bit key.
pub const AES_GCM_256: Encr = Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(256) };

/// IKE from here to there on port 500.
#[must_use]
pub const fn path(local: IpAddr, remote: IpAddr) -> Path {
    Path {
        local: SocketAddr::new(local, 500),
        remote: SocketAddr::new(remote, 500),
        encap: Encap::Plain,
    }
}

/// IKE from here to there on port 4500.
#[must_use]
pub const fn path_udp(local: IpAddr, remote: IpAddr) -> Path {
    Path {
        local: SocketAddr::new(local, 4500),
        remote: SocketAddr::new(remote, 4500),
        encap: Encap::Udp,
    }
}

/// One direction of an SA between the two sites, seen from A.
///
/// # Panics
///
/// Never: its SPIs are not reserved ones.
#[must_use]
pub fn sa_params() -> SaParams {
    let spi = |value| Spi::new(value).expect("not a reserved SPI");
    SaParams {
        spi: spi(0x1000),
        other_spi: spi(0x2000),
        policy: PolicyId(1),
        peer: Arc::from("b"),
        path: path(ADDR_A, ADDR_B),
        mode: Mode::Tunnel,
        suite: EspSuite { encr: AES_GCM_256, integ: IntegId::NONE, esn: EsnId::NO_ESN }.into(),
        encr_key: Secret::new(vec![7; 36]),
        integ_key: Secret::empty(),
        ts_local: Arc::from([subnet(1)]),
        ts_peer: Arc::from([subnet(2)]),
        replay_window: 1024,
        lifetime: Lifetime::default(),
        df: DfPolicy::Copy,
        dscp: DscpPolicy::Copy,
        sequence: 0,
        tfc: 0,
        ah_align: 4,
        resource: None,
        around: None,
    }
}
