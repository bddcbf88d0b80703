//! Two gateways, A with 10.1.0.0/16 and fd01::/16 behind it, B with 10.2.0.0/16 and fd02::/16; and packets to send.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipsecd::crypto::Secret;
use ipsecd::crypto::integ::Integ;
use ipsecd::datapath::{
    Datapath, Ecn, Form, InboundBatch, Options, OutboundBatch, PacketBuf, Received, Sealed,
};
use ipsecd::ipsec::suite::{Encr, EspSuite};
use ipsecd::ipsec::{
    Action, DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Notice, Path, PolicyId, SaParams,
    SadUpdate, Spd, SpdEntry, Spi, TrafficSelector,
};
use ipsecd::testing::VirtualClock;
use ipsecd::testing::gateways::carry;
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId};

pub(crate) const POLICY: PolicyId = PolicyId(1);
pub(crate) const MAX_LEN: usize = 9000;

pub(crate) fn suite(id: EncrId, key_bits: u16, integ: IntegId) -> EspSuite {
    EspSuite { encr: Encr { id, key_bits: Some(key_bits) }, integ, esn: EsnId::NO_ESN }
}

pub(crate) fn gcm() -> EspSuite {
    suite(EncrId::ENCR_AES_GCM_16, 256, IntegId::NONE)
}

/// A suite of every kind that there is, each without and with ESN.
pub(crate) fn suites() -> Vec<EspSuite> {
    let aead = [128, 192, 256].map(|bits| suite(EncrId::ENCR_AES_GCM_16, bits, IntegId::NONE));
    let integs = [
        IntegId::AUTH_HMAC_SHA2_256_128,
        IntegId::AUTH_HMAC_SHA2_384_192,
        IntegId::AUTH_HMAC_SHA2_512_256,
    ];
    let cbc = [128, 192, 256]
        .into_iter()
        .flat_map(|bits| integs.map(|integ| suite(EncrId::ENCR_AES_CBC, bits, integ)));
    // Of the others one of each kind; all of them are in `esp_flips`.
    let fixed =
        |id, integ| EspSuite { encr: Encr { id, key_bits: None }, integ, esn: EsnId::NO_ESN };
    let others = [
        suite(EncrId::ENCR_AES_GCM_8, 128, IntegId::NONE),
        suite(EncrId::ENCR_AES_GCM_12, 192, IntegId::NONE),
        suite(EncrId::ENCR_AES_GCM_16_IIV, 256, IntegId::NONE),
        suite(EncrId::ENCR_AES_CCM_8, 256, IntegId::NONE),
        suite(EncrId::ENCR_AES_CCM_16, 128, IntegId::NONE),
        suite(EncrId::ENCR_NULL_AUTH_AES_GMAC, 128, IntegId::NONE),
        fixed(EncrId::ENCR_CHACHA20_POLY1305, IntegId::NONE),
        suite(EncrId::ENCR_AES_CTR, 128, IntegId::AUTH_AES_XCBC_96),
        suite(EncrId::ENCR_AES_CBC, 128, IntegId::AUTH_AES_CMAC_96),
        fixed(EncrId::ENCR_NULL, IntegId::AUTH_HMAC_SHA1_96),
    ];
    aead.into_iter()
        .chain(cbc)
        .chain(others)
        .flat_map(|suite| [suite, EspSuite { esn: EsnId::ESN, ..suite }])
        .collect()
}

pub(crate) fn prefix(text: &str) -> TrafficSelector {
    let (addr, len) = text.split_once('/').unwrap();
    TrafficSelector::from_prefix(addr.parse().unwrap(), len.parse().unwrap()).unwrap()
}

/// `a` is 192.0.2.1 or 2001:db8::1, `b` the same with 2.
pub(crate) fn path(from: u8, to: u8, encap: Encap, v6: bool) -> Path {
    let addr = |last: u8| {
        let ip: IpAddr = if v6 {
            format!("2001:db8::{last}").parse().unwrap()
        } else {
            format!("192.0.2.{last}").parse().unwrap()
        };
        SocketAddr::new(ip, 4500)
    };
    Path { local: addr(from), remote: addr(to), encap }
}

/// Keys of the right lengths for the suite, the same for the same `seed`.
fn keys(suite: EspSuite, seed: u8) -> (Secret, Secret) {
    let encr = suite.encr.keymat_len().unwrap();
    let integ = Integ::key_len(suite.integ).unwrap_or(0);
    let key = |len: usize| -> Vec<u8> {
        (0..len).map(|i| seed.wrapping_add(u8::try_from(i % 256).unwrap())).collect()
    };
    (Secret::new(key(encr)), Secret::new(key(integ)))
}

/// The parameters of both ends of one SA from A to B, or of its pair back: (sender's, receiver's).
pub(crate) fn params(suite: EspSuite, from_a: bool, number: u8) -> (SaParams, SaParams) {
    let spi = |from_a: bool| Spi::new(0x1000 + u32::from(number) * 2 + u32::from(from_a)).unwrap();
    let (encr_key, integ_key) = keys(suite, number * 2 + u8::from(from_a));
    let ts_a = [prefix("10.1.0.0/16"), prefix("fd01::/16")];
    let ts_b = [prefix("10.2.0.0/16"), prefix("fd02::/16")];
    let side = |at_a: bool| SaParams {
        spi: spi(from_a),
        other_spi: spi(!from_a),
        policy: POLICY,
        peer: if at_a { "b".into() } else { "a".into() },
        path: if at_a { path(1, 2, Encap::Udp, false) } else { path(2, 1, Encap::Udp, false) },
        mode: Mode::Tunnel,
        suite: suite.into(),
        encr_key: encr_key.clone(),
        integ_key: integ_key.clone(),
        ts_local: if at_a { ts_a.into() } else { ts_b.into() },
        ts_peer: if at_a { ts_b.into() } else { ts_a.into() },
        replay_window: 64,
        lifetime: Lifetime::default(),
        df: DfPolicy::Copy,
        dscp: DscpPolicy::Copy,
        sequence: 0,
        tfc: 0,
        ah_align: 4,
        resource: None,
        around: None,
    };
    (side(from_a), side(!from_a))
}

pub(crate) fn spd(at_a: bool) -> Spd {
    let ts_a = [prefix("10.1.0.0/16"), prefix("fd01::/16")];
    let ts_b = [prefix("10.2.0.0/16"), prefix("fd02::/16")];
    let (ts_local, ts_peer) = if at_a { (ts_a, ts_b) } else { (ts_b, ts_a) };
    Spd::new(vec![SpdEntry {
        ts_local: ts_local.into(),
        ts_peer: ts_peer.into(),
        action: Action::Protect(POLICY),
        name: None,
    }])
}

/// A datapath with a clock and batches.
pub(crate) struct Gateway {
    pub(crate) datapath: Datapath,
    pub(crate) now: Instant,
    pub(crate) outbound: OutboundBatch,
    pub(crate) inbound: InboundBatch,
}

impl Gateway {
    pub(crate) fn new(spd: Spd, options: Options) -> Self {
        let now = VirtualClock::new().now();
        Self::of(Datapath::new(options, spd, now), now)
    }

    pub(crate) fn of(datapath: Datapath, now: Instant) -> Self {
        Self {
            datapath,
            now,
            outbound: OutboundBatch::new(MAX_LEN),
            inbound: InboundBatch::new(MAX_LEN),
        }
    }

    pub(crate) fn apply(&mut self, update: SadUpdate) {
        self.datapath = self.datapath.apply(&update).unwrap();
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// Packets from the TUN.
    pub(crate) fn send(&mut self, packets: &[Vec<u8>]) -> &OutboundBatch {
        let mut packets: Vec<_> = packets.iter().map(|packet| buf(packet)).collect();
        self.datapath.outbound_batch(self.now, &mut packets, &mut self.outbound);
        assert!(packets.iter().all(|packet| packet.is_empty()), "every buffer comes back empty");
        &self.outbound
    }

    /// One packet from the TUN that must pass.
    pub(crate) fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let out = self.send(&[packet.to_vec()]);
        let [sealed] = out.sealed.as_slice() else { panic!("one packet expected: {out:?}") };
        sealed.buf.to_vec()
    }

    /// Packets from the peer on this path.
    pub(crate) fn receive(&mut self, path: Path, ecn: Ecn, packets: &[Vec<u8>]) -> &InboundBatch {
        let mut received: Vec<_> = packets
            .iter()
            .map(|packet| Received {
                path,
                traffic_class: ecn.bits(),
                buf: buf(packet),
                segment_len: None,
            })
            .collect();
        self.datapath.inbound_batch(self.now, &mut received, &mut self.inbound);
        assert!(
            received.iter().all(|received| received.buf.is_empty()),
            "every buffer comes back empty"
        );
        &self.inbound
    }

    /// What was sealed at the other end, through the sockets.
    pub(crate) fn receive_sealed(&mut self, sealed: &[Sealed]) -> &InboundBatch {
        let mut received: Vec<_> = sealed.iter().map(carry).collect();
        self.datapath.inbound_batch(self.now, &mut received, &mut self.inbound);
        &self.inbound
    }

    /// What one packet on the usual path becomes.
    pub(crate) fn open(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let out = self.receive(path(2, 1, Encap::Udp, false), Ecn::NotEct, &[packet.to_vec()]);
        out.deliver.first().map(<[u8]>::to_vec)
    }

    pub(crate) fn dropped(&self) -> Vec<(ipsecd::datapath::DropReason, u64)> {
        self.datapath.stats().drops
    }
}

/// TOS or Traffic Class that the socket is told of.
pub(crate) fn traffic_class(sealed: &Sealed) -> u8 {
    match sealed.form {
        Form::Payload { traffic_class, .. } => traffic_class,
        Form::Packet => panic!("a whole packet"),
    }
}

/// Whether the socket is told not to let it be fragmented.
pub(crate) fn dont_fragment(sealed: &Sealed) -> bool {
    match sealed.form {
        Form::Payload { dont_fragment, .. } => dont_fragment,
        Form::Packet => panic!("a whole packet"),
    }
}

pub(crate) fn payloads(sealed: &[Sealed]) -> Vec<Vec<u8>> {
    sealed.iter().map(|sealed| sealed.buf.to_vec()).collect()
}

/// A and B with an SA in each direction.
pub(crate) fn pair_with(suite: EspSuite, change: impl Fn(&mut SaParams)) -> (Gateway, Gateway) {
    let mut a = Gateway::new(spd(true), Options::default());
    let mut b = Gateway::new(spd(false), Options::default());
    install(&mut a, &mut b, suite, 0, change);
    (a, b)
}

pub(crate) fn pair(suite: EspSuite) -> (Gateway, Gateway) {
    pair_with(suite, |_| {})
}

pub(crate) fn install(
    a: &mut Gateway,
    b: &mut Gateway,
    suite: EspSuite,
    number: u8,
    change: impl Fn(&mut SaParams),
) {
    for from_a in [true, false] {
        let (mut sender, mut receiver) = params(suite, from_a, number);
        change(&mut sender);
        change(&mut receiver);
        let (at_sender, at_receiver) = if from_a { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        at_receiver.apply(SadUpdate::AddInbound(Box::new(receiver)));
        at_sender.apply(SadUpdate::AddOutbound(Box::new(sender)));
    }
}

/// A buffer with the packet, large enough for any.
pub(crate) fn buf(packet: &[u8]) -> PacketBuf {
    let mut buf = PacketBuf::new(MAX_LEN.max(packet.len()));
    assert!(buf.fill_from(packet));
    buf
}

pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// An IP packet from 10.1.0.1 to 10.2.0.1, or fd01::1 to fd02::1, with `payload` of `protocol`.
pub(crate) fn ip(v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = if v6 { ("fd01::1", "fd02::1") } else { ("10.1.0.1", "10.2.0.1") };
    ip_between(src, dst, protocol, payload)
}

pub(crate) fn ip_between(src: &str, dst: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (src.parse().unwrap(), dst.parse().unwrap()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x45, 0, len[0], len[1], 1, 2, 0x40, 0, 64, protocol, 0, 0];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            let sum = checksum(&[&packet]).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], protocol, 64];
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(payload);
            packet
        }
        _ => panic!("one version"),
    }
}

/// A UDP packet of `len` bytes in all, from port 1000 to 2000.
pub(crate) fn udp(v6: bool, len: usize) -> Vec<u8> {
    let header = if v6 { 40 } else { 20 };
    let udp_len = len.checked_sub(header).unwrap();
    let mut payload = vec![0x03, 0xe8, 0x07, 0xd0];
    payload.extend(u16::try_from(udp_len).unwrap().to_be_bytes());
    payload.extend([0, 0]);
    payload.extend((8..udp_len).map(|i| u8::try_from(i % 251).unwrap()));
    ip(v6, 17, &payload)
}

/// Sets the TOS or Traffic Class.
pub(crate) fn with_traffic_class(mut packet: Vec<u8>, class: u8) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[1] = class;
        packet[10..12].fill(0);
        let sum = checksum(&[&packet[..20]]).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
    } else {
        packet[0] = 0x60 | class >> 4;
        packet[1] = class << 4;
    }
    packet
}

/// Clears DF.
pub(crate) fn without_df(mut packet: Vec<u8>) -> Vec<u8> {
    packet[6] &= !0x40;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..20]]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet
}

/// How many of these notices there are.
pub(crate) fn count(notices: &[Notice], matching: impl Fn(&Notice) -> bool) -> usize {
    notices.iter().filter(|notice| matching(notice)).count()
}
