//! Peers that are made up for an experiment: like the one that is configured, but for what is to be found out.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use crate::crypto::dh;
use crate::ipsec::pad::{ChildPolicy, FragmentPolicy, Fragments, Peer, StartPolicy, Unique};
use crate::ipsec::suite::{ChildProposal, Encr, IkeProposal, Protocol};
use crate::ipsec::{PolicyId, TrafficSelector};
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PrfId};

/// The peer as it is, with less patience, and so that its other IKE SAs with us stay.
pub(super) fn plain(peer: &Peer) -> Peer {
    let mut peer = peer.clone();
    peer.ike.unique = Unique::Never;
    peer.ike.retransmit_timeout = Duration::from_millis(700);
    peer.ike.retransmit_base_percent = 100;
    peer.ike.retransmit_tries = 4;
    peer.ike.dpd_delay = None;
    peer.children.truncate(1);
    for child in &mut peer.children {
        child.policy = PolicyId(1);
        child.start = StartPolicy::Now;
    }
    peer
}

/// With every algorithm that we have for the IKE SA; the peer's own are named first.
pub(super) fn any_ike(peer: &Peer) -> Peer {
    let mut peer = plain(peer);
    let ke = groups();
    let of = |encr: Vec<Encr>, integ: Vec<IntegId>| IkeProposal {
        encr,
        integ,
        prf: PRFS.to_vec(),
        ke: ke.clone(),
        addke: Default::default(),
    };
    peer.ike.proposals = vec![of(combined(), Vec::new()), of(separate(), INTEGS.to_vec())];
    peer
}

/// With every algorithm that we have for the CHILD_SA.
pub(super) fn any_child(peer: &Peer) -> Peer {
    let mut peer = plain(peer);
    let of = |encr: Vec<Encr>, integ: Vec<IntegId>, protocol| ChildProposal {
        protocol,
        encr,
        integ,
        ke: Vec::new(),
        addke: Default::default(),
        esn: vec![EsnId::NO_ESN, EsnId::ESN],
    };
    for child in &mut peer.children {
        let is_ah = child.proposals.iter().all(|it| it.protocol == Protocol::Ah);
        child.proposals = if is_ah {
            vec![of(Vec::new(), INTEGS.to_vec(), Protocol::Ah)]
        } else {
            vec![
                of(combined(), Vec::new(), Protocol::Esp),
                of(separate(), INTEGS.to_vec(), Protocol::Esp),
            ]
        };
    }
    peer
}

/// With this group, or none, for the rekeying of the CHILD_SA.
pub(super) fn with_group(peer: &Peer, group: KeId) -> Peer {
    let mut peer = plain(peer);
    for proposal in peer.children.iter_mut().flat_map(|it| &mut it.proposals) {
        proposal.ke = if group == KeId::NONE { Vec::new() } else { vec![group] };
    }
    peer
}

/// With selectors that have every address.
pub(super) fn any_selectors(peer: &Peer) -> Peer {
    let mut peer = plain(peer);
    let everything = [
        TrafficSelector::from_prefix(Ipv4Addr::UNSPECIFIED.into(), 0),
        TrafficSelector::from_prefix(Ipv6Addr::UNSPECIFIED.into(), 0),
    ];
    let of = |like: &[TrafficSelector]| -> Vec<TrafficSelector> {
        let wanted = |v6| like.iter().any(|ts| ts.start_addr.is_ipv6() == v6);
        let all = everything.iter().flatten().copied();
        all.filter(|ts| wanted(ts.start_addr.is_ipv6())).collect()
    };
    for ChildPolicy { ts_local, ts_peer, .. } in &mut peer.children {
        (*ts_local, *ts_peer) = (of(ts_local), of(ts_peer));
    }
    peer
}

/// Whoever it is.
pub(super) fn anybody(peer: &Peer) -> Peer {
    let mut peer = plain(peer);
    peer.peer_id = None;
    peer
}

/// With IKE messages in fragments that pass nearly everywhere.
pub(super) fn small_fragments(peer: &Peer) -> Peer {
    let mut peer = plain(peer);
    peer.ike.fragmentation = FragmentPolicy { fragments: Fragments::Yes, size: 576 };
    peer
}

/// The groups of which one KE payload is enough.
pub(super) fn groups() -> Vec<KeId> {
    let quantum = [KeId::ML_KEM_512, KeId::ML_KEM_768, KeId::ML_KEM_1024];
    dh::SUPPORTED.into_iter().filter(|group| !quantum.contains(group)).collect()
}

const PRFS: [PrfId; 3] =
    [PrfId::PRF_HMAC_SHA2_256, PrfId::PRF_HMAC_SHA2_384, PrfId::PRF_HMAC_SHA2_512];
const INTEGS: [IntegId; 5] = [
    IntegId::AUTH_HMAC_SHA2_256_128,
    IntegId::AUTH_HMAC_SHA2_384_192,
    IntegId::AUTH_HMAC_SHA2_512_256,
    IntegId::AUTH_AES_XCBC_96,
    IntegId::AUTH_AES_CMAC_96,
];

fn combined() -> Vec<Encr> {
    let mut all: Vec<Encr> = [
        EncrId::ENCR_AES_GCM_16,
        EncrId::ENCR_AES_GCM_12,
        EncrId::ENCR_AES_GCM_8,
        EncrId::ENCR_AES_CCM_16,
        EncrId::ENCR_AES_CCM_12,
        EncrId::ENCR_AES_CCM_8,
    ]
    .into_iter()
    .flat_map(sizes)
    .collect();
    all.push(Encr { id: EncrId::ENCR_CHACHA20_POLY1305, key_bits: None });
    all
}

fn separate() -> Vec<Encr> {
    [EncrId::ENCR_AES_CBC, EncrId::ENCR_AES_CTR].into_iter().flat_map(sizes).collect()
}

fn sizes(id: EncrId) -> impl Iterator<Item = Encr> {
    [256, 192, 128].into_iter().map(move |bits| Encr { id, key_bits: Some(bits) })
}
