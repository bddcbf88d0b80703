//! AH, transport mode and bundles: what one end protects, the other gives back.

use ipsecd::datapath::{DropReason, Form, Options};
use ipsecd::ipsec::{Action, AhSuite, Encap, Mode, SaParams, Spd, SpdEntry, Spi, Suite};
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId};
use ipsecd::wire::ip::Ipv4Packet;
use proptest::prelude::*;

use crate::support::*;

/// What an SA is, but for its keys.
#[derive(Clone, Copy, Debug)]
struct Kind {
    protocol: Protection,
    mode: Mode,
    /// Of the outer addresses.
    v6: bool,
    esn: bool,
    udp: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    Ah,
    Cbc,
    /// ESP with AH around it.
    Bundle,
    Gcm,
}

fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for protocol in [Protection::Ah, Protection::Cbc, Protection::Bundle, Protection::Gcm] {
        for mode in [Mode::Tunnel, Mode::Transport] {
            for bits in 0..8 {
                let [v6, esn, udp] = [1, 2, 4].map(|bit| bits & bit != 0);
                if udp && matches!(protocol, Protection::Ah | Protection::Bundle) {
                    continue;
                }
                kinds.push(Kind { protocol, mode, v6, esn, udp });
            }
        }
    }
    kinds
}

/// The hosts' own addresses, between which transport mode is.
fn hosts(v6: bool) -> (&'static str, &'static str) {
    if v6 { ("2001:db8::1", "2001:db8::2") } else { ("192.0.2.1", "192.0.2.2") }
}

impl Kind {
    fn encap(self) -> Encap {
        if self.udp { Encap::Udp } else { Encap::Plain }
    }

    fn change(self, params: &mut SaParams) {
        let at_a = &*params.peer == "b";
        let (from, to) = if at_a { (1, 2) } else { (2, 1) };
        params.path = path(from, to, self.encap(), self.v6);
        params.mode = self.mode;
        if self.mode == Mode::Transport {
            let side = |addr: &str| prefix(&format!("{addr}/{}", if self.v6 { 128 } else { 32 }));
            let (a, b) = hosts(self.v6);
            let (ours, theirs) = if at_a { (a, b) } else { (b, a) };
            (params.ts_local, params.ts_peer) = ([side(ours)].into(), [side(theirs)].into());
        }
        let esn = if self.esn { EsnId::ESN } else { EsnId::NO_ESN };
        let ah = |params: &SaParams| SaParams {
            suite: AhSuite { integ: IntegId::AUTH_HMAC_SHA2_256_128, esn }.into(),
            encr_key: ipsecd::crypto::Secret::empty(),
            integ_key: ipsecd::crypto::Secret::new(vec![9; 32]),
            ..params.clone()
        };
        match self.protocol {
            Protection::Ah => *params = ah(params),
            Protection::Bundle => {
                let spi = |spi: Spi| Spi::new(spi.get() + 0x1000).unwrap();
                let around = SaParams {
                    spi: spi(params.spi),
                    other_spi: spi(params.other_spi),
                    mode: Mode::Transport,
                    ..ah(params)
                };
                params.around = Some(Box::new(around));
            }
            Protection::Cbc | Protection::Gcm => {}
        }
        if let Suite::Esp(suite) = &mut params.suite {
            suite.esn = esn;
        }
    }

    /// A and B with a pair of such SAs.
    fn pair(self) -> (Gateway, Gateway) {
        self.pair_with(|_| {})
    }

    fn pair_with(self, change: impl Fn(&mut SaParams)) -> (Gateway, Gateway) {
        let suite = match self.protocol {
            Protection::Cbc => suite(EncrId::ENCR_AES_CBC, 128, IntegId::AUTH_HMAC_SHA2_256_128),
            _ => gcm(),
        };
        let spd = |at_a| {
            if self.mode == Mode::Tunnel {
                return spd(at_a);
            }
            let any = [prefix("192.0.2.0/24"), prefix("2001:db8::/64")];
            Spd::new(vec![SpdEntry {
                ts_local: any.into(),
                ts_peer: any.into(),
                action: Action::Protect(POLICY),
            }])
        };
        let mut a = Gateway::new(spd(true), Options::default());
        let mut b = Gateway::new(spd(false), Options::default());
        install(&mut a, &mut b, suite, 0, |params| {
            self.change(params);
            change(params);
        });
        (a, b)
    }

    /// A packet from A to B that the SAs take, with this payload of a protocol.
    fn packet(self, inner_v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        if self.mode == Mode::Tunnel {
            return ip(inner_v6, protocol, payload);
        }
        let (a, b) = hosts(self.v6);
        ip_between(a, b, protocol, payload)
    }

    /// A UDP packet with a right checksum.
    fn udp_packet(self, inner_v6: bool, len: usize) -> Vec<u8> {
        let udp_len = u16::try_from(8 + len).unwrap().to_be_bytes();
        let mut udp = [&[3, 0xe8, 7, 0xd0], &udp_len[..], &[0, 0]].concat();
        udp.extend((0..len).map(|i| u8::try_from(i % 251).unwrap()));
        let packet = self.packet(inner_v6, 17, &udp);
        let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
        let sum = checksum(&[addresses, &[0, 17], &udp_len, &udp]);
        udp[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
        self.packet(inner_v6, 17, &udp)
    }

    /// What arrives of a packet: in UDP its IP header is another.
    fn arrives_as(self, packet: &[u8]) -> Vec<u8> {
        let mut packet = packet.to_vec();
        if self.udp && self.mode == Mode::Transport && !self.v6 {
            packet[4..6].fill(0);
            packet[6..8].copy_from_slice(&[0x40, 0]);
            packet[10..12].fill(0);
            let sum = checksum(&[&packet[..20]]).to_be_bytes();
            packet[10..12].copy_from_slice(&sum);
        }
        packet
    }
}

/// Seals at A, opens at B.
fn carried(a: &mut Gateway, b: &mut Gateway, packet: &[u8]) -> Vec<Vec<u8>> {
    let out = a.send(&[packet.to_vec()]);
    b.receive_sealed(&out.sealed).deliver.iter().map(|buf| buf.to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_goes_in_comes_out(
        len in 0_usize..1200, inner_v6: bool, class: u8, start in prop::sample::select(vec![0_u64, 5, 0xffff_fffe]),
    ) {
        for kind in kinds() {
            let start = if kind.esn { start } else { start.min(5) };
            let (mut a, mut b) = kind.pair_with(|params| {
                params.sequence = start;
                if let Some(around) = &mut params.around {
                    around.sequence = start;
                }
            });
            for more in 0..3 {
                let packet = with_traffic_class(kind.udp_packet(inner_v6, len + more), class);
                prop_assert_eq!(carried(&mut a, &mut b, &packet), [kind.arrives_as(&packet)], "{:?}", kind);
            }
            prop_assert_eq!((a.dropped(), b.dropped()), (vec![], vec![]), "{:?}", kind);
            let stats = a.datapath.stats();
            for sa in stats.outbound.iter().chain(&b.datapath.stats().inbound) {
                prop_assert_eq!(sa.sequence, start + 3, "{:?} {}", kind, sa.suite);
            }
        }
    }
}

#[test]
fn a_replayed_or_changed_packet_is_refused() {
    for kind in kinds() {
        let (mut a, mut b) = kind.pair();
        let out = a.send(&[kind.udp_packet(false, 20), kind.udp_packet(false, 20)]);
        let mut forged = carry(&out.sealed[0]);
        let last = forged.buf.len() - 1;
        forged.buf[last] ^= 1;
        let [first, second] = out.sealed.as_slice() else { panic!("two packets") };
        let mut received = [forged, carry(second), carry(first), carry(first)];
        b.datapath.inbound_batch(b.now, &mut received, &mut b.inbound);
        assert_eq!(b.inbound.deliver.len(), 2, "{kind:?}");
        let expected = [(DropReason::ReplayDuplicate, 1), (DropReason::IcvMismatch, 1)];
        assert_eq!(b.dropped(), expected, "{kind:?}");
    }
}

/// The longest that a path takes, as the SA says, is exact.
#[test]
fn the_mtu_is_exact() {
    for kind in kinds() {
        for path_mtu in (1400..1417).chain([1500]) {
            let (mut a, mut b) = kind.pair();
            let remote = path(1, 2, kind.encap(), kind.v6).remote.ip();
            a.datapath = a.datapath.with_path_mtu(remote, Some(path_mtu));
            let mtu = a.datapath.tunnel_mtu().unwrap();
            let header = if kind.mode == Mode::Transport && kind.v6 { 40 } else { 20 };
            let packet = kind.packet(false, 99, &vec![7; mtu - header]);
            assert_eq!(packet.len(), mtu);
            let out = a.send(std::slice::from_ref(&packet));
            let [sealed] = out.sealed.as_slice() else { panic!("{kind:?}: {out:?}") };
            let on_wire = match sealed.form {
                Form::Packet => sealed.buf.len(),
                Form::Payload { .. } => {
                    let udp = if kind.udp { 8 } else { 0 };
                    sealed.buf.len() + if kind.v6 { 40 } else { 20 } + udp
                }
            };
            // ESP rounds up to its alignment.
            assert!(on_wire <= path_mtu && on_wire + 16 > path_mtu, "{kind:?}: {on_wire}");
            let expected = kind.arrives_as(&packet);
            let out = a.send(&[packet]);
            let delivered = &b.receive_sealed(&out.sealed).deliver;
            assert_eq!(*delivered[0], expected, "{kind:?}");
            let out = a.send(&[kind.packet(false, 99, &vec![7; mtu - header + 1])]);
            assert_eq!((out.sealed.len(), out.replies.len()), (0, 1), "{kind:?}: one byte more");
        }
    }
}

#[test]
fn transport_mode_leaves_the_ip_header_and_its_options() {
    for protocol in [Protection::Ah, Protection::Gcm, Protection::Bundle] {
        let kind = Kind { protocol, mode: Mode::Transport, v6: false, esn: false, udp: false };
        let (mut a, mut b) = kind.pair();
        let plain = kind.udp_packet(false, 100);
        // Router alert.
        let mut packet = [&plain[..20], &[0x94, 4, 0, 0], &plain[20..]].concat();
        packet[0] = 0x46;
        let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
        packet[2..4].copy_from_slice(&len);
        packet[8] = 17;
        let packet = with_checksum(packet);
        let out = a.send(std::slice::from_ref(&packet));
        let sealed = &out.sealed[0].buf;
        assert_eq!(out.sealed[0].form, Form::Packet);
        assert_eq!(sealed[..2], packet[..2]);
        assert_eq!(sealed[4..9], packet[4..9], "identification, flags, TTL");
        assert_eq!(sealed[12..24], packet[12..24], "addresses, options");
        let expected = if protocol == Protection::Gcm { 50 } else { 51 };
        assert_eq!(sealed[9], expected);
        assert!(Ipv4Packet::new_checked(&sealed[..]).unwrap().verify_checksum());
        assert_eq!(carried(&mut a, &mut b, &packet), [packet], "{kind:?}");
    }
}

fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..header]]).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet
}
