//! [`Kind`]: every sort of SA between two gateways, and the [`Datapath`]s of both with such SAs; [`carry`]: what becomes of
//! a packet between them.
//!
//! A is 192.0.2.1 and 2001:db8::1 with 10.1.0.0/16 and fd01::/16 behind it, B the same with 2 for 1. Transport mode is
//! between the hosts themselves.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use crate::crypto::Secret;
use crate::datapath::{Datapath, Form, Options, PacketBuf, Received, Sealed};
use crate::ipsec::suite::Encr;
use crate::ipsec::{
    Action, AhSuite, DfPolicy, DscpPolicy, Encap, EspSuite, Lifetime, Mode, Path, PolicyId,
    SaParams, SadUpdate, Spd, SpdEntry, Spi, Suite, TrafficSelector,
};
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId};
use crate::wire::ip::{Ipv4Packet, Ipv4Repr, Ipv6Repr, NextHeader};

/// What an SA is, but for its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Protocols and algorithms.
    pub protection: Protection,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Whether the outer addresses are of IPv6.
    pub v6: bool,
    /// Whether sequence numbers have 64 bits.
    pub esn: bool,
    /// Whether it travels in UDP.
    pub udp: bool,
}

/// Protocols and algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// AH with HMAC-SHA2-256-128.
    Ah,
    /// ESP with AES-CBC and HMAC-SHA2-256-128.
    Cbc,
    /// ESP with AES-GCM, and AH around it.
    Bundle,
    /// ESP with AES-GCM.
    Gcm,
}

/// The SPD entry of the SAs.
pub const POLICY: PolicyId = PolicyId(1);

impl Kind {
    /// Every one that there is.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut kinds = Vec::new();
        for protection in [Protection::Ah, Protection::Cbc, Protection::Bundle, Protection::Gcm] {
            for mode in [Mode::Tunnel, Mode::Transport] {
                for bits in 0..8 {
                    let [v6, esn, udp] = [1, 2, 4].map(|bit| bits & bit != 0);
                    // RFC 3948 §1: AH does not go in UDP.
                    if !udp || matches!(protection, Protection::Cbc | Protection::Gcm) {
                        kinds.push(Self { protection, mode, v6, esn, udp });
                    }
                }
            }
        }
        kinds
    }

    /// How it travels.
    #[must_use]
    pub const fn encap(self) -> Encap {
        if self.udp { Encap::Udp } else { Encap::Plain }
    }

    /// The addresses of A and B.
    #[must_use]
    pub fn hosts(self) -> [IpAddr; 2] {
        [1, 2].map(|last| {
            if self.v6 {
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
            } else {
                Ipv4Addr::from_bits(0xc000_0200 | u32::from(last)).into()
            }
        })
    }

    /// One end of the SA from A to B, or of that back: `at_a` says whose.
    #[must_use]
    pub fn params(self, from_a: bool, at_a: bool) -> SaParams {
        let esn = if self.esn { EsnId::ESN } else { EsnId::NO_ESN };
        let aes = |id, key_bits| Encr { id, key_bits: Some(key_bits) };
        let hmac = IntegId::AUTH_HMAC_SHA2_256_128;
        let ah = (Suite::from(AhSuite { integ: hmac, esn }), 0, 32);
        let gcm = EspSuite { encr: aes(EncrId::ENCR_AES_GCM_16, 256), integ: IntegId::NONE, esn };
        let cbc = EspSuite { encr: aes(EncrId::ENCR_AES_CBC, 128), integ: hmac, esn };
        let inner = match self.protection {
            Protection::Ah => ah,
            Protection::Cbc => (cbc.into(), 16, 32),
            Protection::Bundle | Protection::Gcm => (gcm.into(), 36, 0),
        };
        let params = self.with_suite(from_a, at_a, 0x1000, self.mode, inner);
        let bundled = self.protection == Protection::Bundle;
        let around =
            bundled.then(|| Box::new(self.with_suite(from_a, at_a, 0x2000, Mode::Transport, ah)));
        SaParams { around, ..params }
    }

    fn with_suite(
        self,
        from_a: bool,
        at_a: bool,
        spis: u32,
        mode: Mode,
        (suite, encr_len, integ_len): (Suite, usize, usize),
    ) -> SaParams {
        let [a, b] = self.hosts().map(|host| SocketAddr::new(host, 4500));
        let (local, remote) = if at_a { (a, b) } else { (b, a) };
        let [ts_a, ts_b] = self.selectors();
        let (ts_local, ts_peer) = if at_a { (ts_a, ts_b) } else { (ts_b, ts_a) };
        let spi = |from_a: bool| Spi::new(spis + u32::from(from_a)).expect("not reserved");
        let key = |len: usize| Secret::new(vec![if from_a { 7 } else { 8 }; len]);
        SaParams {
            spi: spi(from_a),
            other_spi: spi(!from_a),
            policy: POLICY,
            peer: if at_a { "b".into() } else { "a".into() },
            path: Path { local, remote, encap: self.encap() },
            mode,
            suite,
            encr_key: key(encr_len),
            integ_key: key(integ_len),
            ts_local: ts_local.into(),
            ts_peer: ts_peer.into(),
            sequence: 0,
            replay_window: 64,
            lifetime: Lifetime::default(),
            df: DfPolicy::Copy,
            dscp: DscpPolicy::Copy,
            tfc: 0,
            ah_align: 4,
            resource: None,
            around: None,
        }
    }

    /// The selectors of A's side and of B's.
    fn selectors(self) -> [Vec<TrafficSelector>; 2] {
        let prefix = |addr: IpAddr, len| TrafficSelector::from_prefix(addr, len).expect("a prefix");
        match self.mode {
            Mode::Transport => self.hosts().map(|host| vec![TrafficSelector::from_addr(host)]),
            Mode::Tunnel => [1, 2].map(|number| {
                vec![
                    prefix([10, number, 0, 0].into(), 16),
                    prefix(
                        Ipv6Addr::new(0xfd00 | u16::from(number), 0, 0, 0, 0, 0, 0, 0).into(),
                        16,
                    ),
                ]
            }),
        }
    }

    /// A and B with an SA in each direction, both ends as `change` left them.
    #[must_use]
    pub fn datapaths(
        self,
        options: &Options,
        now: Instant,
        change: impl Fn(&mut SaParams),
    ) -> [Datapath; 2] {
        [true, false].map(|at_a| {
            let [ts_a, ts_b] = self.selectors();
            let (ts_local, ts_peer) = if at_a { (ts_a, ts_b) } else { (ts_b, ts_a) };
            let spd = Spd::new(vec![SpdEntry {
                ts_local: ts_local.into(),
                ts_peer: ts_peer.into(),
                action: Action::Protect(POLICY),
                name: None,
            }]);
            let mut datapath = Datapath::new(options.clone(), spd, now);
            for from_a in [true, false] {
                let mut params = self.params(from_a, at_a);
                change(&mut params);
                let update = if from_a == at_a {
                    SadUpdate::AddOutbound(Box::new(params))
                } else {
                    SadUpdate::AddInbound(Box::new(params))
                };
                datapath = datapath.apply(&update).expect("an SA that there is");
            }
            datapath
        })
    }
}

/// What the sockets make of a sealed packet, and those of the other end of what arrives: into `received`, whose buffer is
/// used again. A packet that does not fit is left out, and then the buffer is empty.
pub fn carry_into(sealed: &Sealed, received: &mut Received) {
    let Path { local, remote, encap } = sealed.path;
    let whole = sealed.form == Form::Packet;
    let encap = if whole { Encap::Plain } else { encap };
    received.path = Path { local: remote, remote: local, encap };
    received.traffic_class = 0;
    received.segment_len = sealed.segment_len;
    let buf = &mut received.buf;
    if !buf.fill_from(&sealed.buf) {
        return buf.clear();
    }
    let Form::Payload { traffic_class, dont_fragment } = sealed.form else { return };
    received.traffic_class = traffic_class;
    let Ok(payload_len) = u16::try_from(buf.len()) else { return buf.clear() };
    match (encap, local.ip(), remote.ip()) {
        (Encap::Plain, IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let header = Ipv4Repr {
                src_addr,
                dst_addr,
                protocol: NextHeader::ESP,
                tos: traffic_class,
                ident: 0,
                dont_fragment,
                ttl: 64,
                payload_len,
            };
            put(buf, &header.emit());
            if let Ok(mut ip) = Ipv4Packet::new_checked(&mut buf[..]) {
                ip.fill_checksum();
            }
        }
        (Encap::Plain, IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let header = Ipv6Repr {
                src_addr,
                dst_addr,
                next_header: NextHeader::ESP,
                traffic_class,
                flow_label: 0,
                hop_limit: 64,
                payload_len,
            };
            put(buf, &header.emit());
        }
        _ => {}
    }
}

/// As [`carry_into`], with a buffer of its own.
#[must_use]
pub fn carry(sealed: &Sealed) -> Received {
    let buf = PacketBuf::new(sealed.buf.len());
    let mut received = Received { path: sealed.path, traffic_class: 0, buf, segment_len: None };
    carry_into(sealed, &mut received);
    received
}

fn put(buf: &mut PacketBuf, header: &[u8]) {
    if buf.push_front(header.len()) {
        buf[..header.len()].copy_from_slice(header);
    }
}
