//! What tests of the daemon have in common.

use core::time::Duration;
use std::sync::Arc;

use crate::config::{Config, Interface, Keying};
use crate::crypto::Secret;
use crate::ike::{ChildStatus, SaStatus};
use crate::ipsec::pad::{
    Auth, ChildPolicy, EncapPolicy, FragmentPolicy, Identity, IkePolicy, Peer, PeerAddress,
    StartPolicy, Unique,
};
use crate::ipsec::suite::{ChildProposal, Encr, EspSuite, IkeProposal, Protocol};
use crate::ipsec::{
    DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Path, PolicyId, Spi, TrafficSelector,
};
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PrfId};

/// Every packet between two addresses.
pub(super) fn range(start: &str, end: &str) -> TrafficSelector {
    TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: 0xffff,
        start_addr: start.parse().unwrap(),
        end_addr: end.parse().unwrap(),
    }
}

/// A peer that is kept up.
pub(super) fn site_b() -> Peer {
    let gcm = Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(256) };
    Peer {
        name: "site-b".into(),
        local_addr: None,
        address: PeerAddress::Name("b.example.net".into()),
        local_id: Identity::Fqdn("a.example.net".into()),
        peer_id: Some(Identity::Fqdn("b.example.net".into())),
        auth: Auth::psk(Secret::copy_of(b"correct horse")),
        ppk: None,
        ike: IkePolicy {
            proposals: vec![IkeProposal {
                encr: vec![gcm],
                integ: vec![],
                prf: vec![PrfId::PRF_HMAC_SHA2_384],
                ke: vec![KeId::CURVE25519],
                addke: Default::default(),
            }],
            encap: EncapPolicy::Auto,
            rekey_time: None,
            over_time: Duration::ZERO,
            reauth_time: None,
            unique: Unique::No,
            dpd_delay: None,
            childless: false,
            dpd_action: None,
            close_action: None,
            retransmit_timeout: Duration::from_secs(2),
            retransmit_base_percent: 180,
            retransmit_tries: 5,
            fragmentation: FragmentPolicy::default(),
            mobike: false,
        },
        request: None,
        pool: None,
        children: vec![ChildPolicy {
            name: "lan".into(),
            policy: PolicyId(1),
            proposals: vec![ChildProposal {
                protocol: Protocol::Esp,
                encr: vec![gcm],
                integ: vec![],
                ke: vec![],
                addke: Default::default(),
                esn: vec![EsnId::NO_ESN],
            }],
            mode: Mode::Tunnel,
            or_tunnel: false,
            start: StartPolicy::Now,
            ts_local: vec![range("10.1.0.0", "10.1.255.255")],
            ts_peer: vec![range("10.2.0.0", "10.2.255.255"), range("fd02::", "fd02::ffff")],
            lifetime: Lifetime::default(),
            per_resource: 0,
            replay_window: 1024,
            df: DfPolicy::Copy,
            dscp: DscpPolicy::Copy,
        }],
    }
}

/// The file of [`site_b`].
pub(super) fn config() -> Config {
    Config {
        file: "/etc/ipsecd/site-b.conf".into(),
        keying: Keying::Ike(Arc::new(site_b())),
        interface: Interface {
            name: "ipsec0".into(),
            mtu: None,
            routes: true,
            addresses: vec![],
            clamp_mss: true,
        },
        log_level: None,
        revocation: Default::default(),
        written: Default::default(),
        shown: Arc::from(""),
    }
}

/// The peer in it.
pub(super) fn ike(config: &mut Config) -> &mut Peer {
    match &mut config.keying {
        Keying::Ike(peer) => Arc::make_mut(peer),
        Keying::Manual(_) | Keying::None { .. } => panic!("it has no IKE"),
    }
}

/// An IKE SA with this peer, and a CHILD_SA if that has a name.
pub(super) fn sa(state: &'static str, initiator: bool, child: Option<&str>) -> SaStatus {
    let path = Path {
        local: "192.0.2.1:500".parse().unwrap(),
        remote: "192.0.2.2:500".parse().unwrap(),
        encap: Encap::Plain,
    };
    let encr = Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(256) };
    let child = child.map(|name| ChildStatus {
        name: name.into(),
        state: "INSTALLED",
        spi_inbound: Spi::new(256).unwrap(),
        spi_outbound: Spi::new(257).unwrap(),
        suite: EspSuite { encr, integ: IntegId::NONE, esn: EsnId::NO_ESN }.into(),
        mode: Mode::Tunnel,
        ts_local: [].into(),
        ts_peer: [].into(),
        path,
        resource: None,
        established: Duration::ZERO,
        rekey_in: None,
    });
    SaStatus {
        peer: "site-b".into(),
        state,
        initiator,
        spi_i: IkeSpi(1),
        spi_r: IkeSpi(2),
        local_id: Identity::Fqdn("a".into()),
        peer_id: None,
        eap_identity: None,
        leased: Vec::new(),
        configuration: None,
        path,
        mobike: false,
        nat_local: false,
        nat_peer: false,
        suite: None,
        ppk: false,
        established: None,
        rekey_in: None,
        round_trip: None,
        children: child.into_iter().collect(),
    }
}
