//! SAs whose keys an administrator has set (RFC 4301 §4.5.1): what the configuration says, and what the SAD gets.
//!
//! There is nobody to negotiate with: no rekey, no liveness, no NAT detection.

use core::net::IpAddr;
use std::sync::Arc;

use super::pad::PeerAddress;
use super::suite::{AhSuite, EspSuite, Suite};
use super::{
    DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Path, PolicyId, SaParams, Spi, TrafficSelector,
};
use crate::crypto::Secret;
use crate::wire::ike::numbers::{EncrId, IntegId};

/// A peer whose SAs have manual keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualPeer {
    /// Name that the operator gave it; unique in a running daemon.
    pub name: Arc<str>,
    /// The address we use; `None`: whatever routing chooses.
    pub local_addr: Option<IpAddr>,
    /// Where the peer is; never [`PeerAddress::Any`].
    pub address: PeerAddress,
    /// Pairs of SAs. Never empty.
    pub sas: Vec<ManualSa>,
}

/// A pair of SAs, and the SPD entry that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualSa {
    /// Name for logs and status, unique within the peer.
    pub name: Arc<str>,
    /// Number of its SPD entry.
    pub policy: PolicyId,
    /// Tunnel or transport.
    pub mode: Mode,
    /// How ESP travels; [`Encap::Plain`] with AH.
    pub encap: Encap,
    /// Protocol and algorithms.
    pub suite: Suite,
    /// What the peer sends to us with.
    pub inbound: ManualKeys,
    /// What we send with.
    pub outbound: ManualKeys,
    /// Selectors of our side. Never empty.
    pub ts_local: Vec<TrafficSelector>,
    /// Selectors of the peer's side. Never empty.
    pub ts_peer: Vec<TrafficSelector>,
    /// Replay window in packets; 0 for none.
    pub replay_window: u32,
    /// DF bit of the outer header.
    pub df: DfPolicy,
    /// DSCP of the outer header.
    pub dscp: DscpPolicy,
    /// See [`SaParams::tfc`].
    pub tfc: u16,
    /// See [`SaParams::ah_align`].
    pub ah_align: u8,
    /// The AH SAs around these of ESP in transport mode.
    pub around: Option<ManualAh>,
}

/// The AH half of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualAh {
    /// Algorithms.
    pub suite: AhSuite,
    /// What the peer sends to us with.
    pub inbound: ManualKeys,
    /// What we send with.
    pub outbound: ManualKeys,
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualKeys {
    /// Inbound: ours. Outbound: the peer's.
    pub spi: Spi,
    /// Encryption key, salt at its end; empty with AH.
    pub encr_key: Secret,
    /// Integrity key; empty with an AEAD.
    pub integ_key: Secret,
    /// The last sequence number used.
    pub sequence: u64,
}

impl ManualPeer {
    /// Whether SAs installed for the one are those of the other: they differ in where their sequence numbers stand at most.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let from_zero = |peer: &Self| {
            let mut peer = peer.clone();
            for sa in &mut peer.sas {
                let around =
                    sa.around.iter_mut().flat_map(|ah| [&mut ah.inbound, &mut ah.outbound]);
                for keys in [&mut sa.inbound, &mut sa.outbound].into_iter().chain(around) {
                    keys.sequence = 0;
                }
            }
            peer
        };
        from_zero(self) == from_zero(other)
    }
}

impl ManualSa {
    /// Every suite of the pair with its keys: one, or with a bundle two.
    pub fn layers(&self) -> impl Iterator<Item = (Suite, &ManualKeys, &ManualKeys)> {
        let around = self.around.iter();
        core::iter::once((self.suite, &self.inbound, &self.outbound))
            .chain(around.map(|ah| (ah.suite.into(), &ah.inbound, &ah.outbound)))
    }

    /// The inbound SA.
    #[must_use]
    pub fn inbound_params(&self, peer: &Arc<str>, path: Path) -> SaParams {
        self.params(peer, path, |inbound, outbound| (inbound, outbound))
    }

    /// The outbound SA.
    #[must_use]
    pub fn outbound_params(&self, peer: &Arc<str>, path: Path) -> SaParams {
        self.params(peer, path, |inbound, outbound| (outbound, inbound))
    }

    fn params<'a>(
        &'a self,
        peer: &Arc<str>,
        path: Path,
        this_and_other: fn(&'a ManualKeys, &'a ManualKeys) -> (&'a ManualKeys, &'a ManualKeys),
    ) -> SaParams {
        let ts_local: Arc<[TrafficSelector]> = self.ts_local.clone().into();
        let ts_peer: Arc<[TrafficSelector]> = self.ts_peer.clone().into();
        let one = |suite, inbound, outbound| {
            let (keys, other) = this_and_other(inbound, outbound);
            SaParams {
                spi: keys.spi,
                other_spi: other.spi,
                policy: self.policy,
                peer: Arc::clone(peer),
                path,
                mode: self.mode,
                suite,
                encr_key: keys.encr_key.clone(),
                integ_key: keys.integ_key.clone(),
                ts_local: Arc::clone(&ts_local),
                ts_peer: Arc::clone(&ts_peer),
                sequence: keys.sequence,
                replay_window: self.replay_window,
                lifetime: Lifetime::default(),
                df: self.df,
                dscp: self.dscp,
                tfc: self.tfc,
                ah_align: self.ah_align,
                resource: None,
                around: None,
            }
        };
        let around = self.around.as_ref();
        let around = around.map(|ah| Box::new(one(ah.suite.into(), &ah.inbound, &ah.outbound)));
        SaParams { around, ..one(self.suite, &self.inbound, &self.outbound) }
    }
}

impl ManualPeer {
    /// Every suite of every pair, with its keys.
    pub fn layers(&self) -> impl Iterator<Item = (Suite, &ManualKeys, &ManualKeys)> {
        self.sas.iter().flat_map(ManualSa::layers)
    }
}

impl ManualKeys {
    /// The key that a sequence number must not be used twice with.
    #[must_use]
    pub fn counted_key(&self) -> &Secret {
        if self.encr_key.is_empty() { &self.integ_key } else { &self.encr_key }
    }
}

/// Whether a sequence number that is used twice under one key gives plaintext, or the means to forge, away: the IV is a
/// counter, and not secret (RFC 8221 §3).
#[must_use]
pub const fn counts(suite: Suite) -> bool {
    match suite {
        Suite::Ah(AhSuite { integ, .. }) => is_gmac(integ),
        Suite::Esp(EspSuite { encr, .. }) => {
            !matches!(encr.id, EncrId::ENCR_AES_CBC | EncrId::ENCR_NULL)
        }
    }
}

const fn is_gmac(integ: IntegId) -> bool {
    matches!(
        integ,
        IntegId::AUTH_AES_128_GMAC | IntegId::AUTH_AES_192_GMAC | IntegId::AUTH_AES_256_GMAC
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Encr;
    use crate::wire::ike::numbers::EsnId;

    fn keys(spi: u32, fill: u8) -> ManualKeys {
        ManualKeys {
            spi: Spi::new(spi).unwrap(),
            encr_key: Secret::new(vec![fill; 16]),
            integ_key: Secret::new(vec![fill + 1; 32]),
            sequence: u64::from(fill),
        }
    }

    fn sa() -> ManualSa {
        let encr = Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(128) };
        let integ = IntegId::AUTH_HMAC_SHA2_256_128;
        let host = |addr: &str| vec![TrafficSelector::from_addr(addr.parse().unwrap())];
        ManualSa {
            name: "net".into(),
            policy: PolicyId(3),
            mode: Mode::Transport,
            encap: Encap::Plain,
            suite: EspSuite { encr, integ, esn: EsnId::NO_ESN }.into(),
            inbound: keys(0x1001, 1),
            outbound: keys(0x2001, 11),
            ts_local: host("192.0.2.1"),
            ts_peer: host("192.0.2.2"),
            replay_window: 64,
            df: DfPolicy::Copy,
            dscp: DscpPolicy::Copy,
            tfc: 0,
            ah_align: 4,
            around: Some(ManualAh {
                suite: AhSuite { integ, esn: EsnId::NO_ESN },
                inbound: keys(0x1002, 21),
                outbound: keys(0x2002, 31),
            }),
        }
    }

    #[test]
    fn each_direction_has_its_own_keys_and_numbers_in_every_layer() {
        let path = Path {
            local: "192.0.2.1:0".parse().unwrap(),
            remote: "192.0.2.2:0".parse().unwrap(),
            encap: Encap::Plain,
        };
        let (sa, peer) = (sa(), Arc::from("b"));
        for (params, keys, ah) in [
            (sa.inbound_params(&peer, path), &sa.inbound, &sa.around.as_ref().unwrap().inbound),
            (sa.outbound_params(&peer, path), &sa.outbound, &sa.around.as_ref().unwrap().outbound),
        ] {
            let around = params.around.as_ref().unwrap();
            assert_eq!((params.spi, around.spi), (keys.spi, ah.spi));
            assert_eq!((params.sequence, around.sequence), (keys.sequence, ah.sequence));
            assert_eq!((&params.encr_key, &around.integ_key), (&keys.encr_key, &ah.integ_key));
            assert_ne!(params.other_spi, params.spi);
            assert_eq!((params.policy, around.policy), (sa.policy, sa.policy));
        }
    }

    #[test]
    fn counters_matter_where_the_iv_is_one() {
        let suite = |id, key_bits| {
            let integ = IntegId::NONE;
            counts(EspSuite { encr: Encr { id, key_bits }, integ, esn: EsnId::ESN }.into())
        };
        for id in [
            EncrId::ENCR_AES_CTR,
            EncrId::ENCR_AES_CCM_8,
            EncrId::ENCR_AES_GCM_16,
            EncrId::ENCR_AES_GCM_16_IIV,
            EncrId::ENCR_NULL_AUTH_AES_GMAC,
            EncrId::ENCR_CHACHA20_POLY1305,
        ] {
            assert!(suite(id, None), "{id}");
        }
        assert!(!suite(EncrId::ENCR_AES_CBC, Some(256)));
        assert!(!suite(EncrId::ENCR_NULL, None));
        let ah = |integ| counts(AhSuite { integ, esn: EsnId::NO_ESN }.into());
        assert!(ah(IntegId::AUTH_AES_128_GMAC));
        assert!(!ah(IntegId::AUTH_HMAC_SHA2_256_128));
    }
}
