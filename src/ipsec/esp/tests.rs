use std::sync::Arc;

use super::*;
use crate::ipsec::suite::Encr;
use crate::ipsec::{DfPolicy, DscpPolicy, Encap, Lifetime, Mode, Path, PolicyId};
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId};

fn suite(esn: bool, cbc: bool) -> EspSuite {
    let (id, integ) = if cbc {
        (EncrId::ENCR_AES_CBC, IntegId::AUTH_HMAC_SHA2_256_128)
    } else {
        (EncrId::ENCR_AES_GCM_16, IntegId::NONE)
    };
    EspSuite {
        encr: Encr { id, key_bits: Some(128) },
        integ,
        esn: if esn { EsnId::ESN } else { EsnId::NO_ESN },
    }
}

fn sa_params(suite: EspSuite) -> SaParams {
    let cbc = suite.integ != IntegId::NONE;
    let addr = "192.0.2.1:4500".parse().unwrap();
    SaParams {
        spi: Spi::new(0x1234_5678).unwrap(),
        other_spi: Spi::new(0x1234_5679).unwrap(),
        policy: PolicyId(1),
        peer: Arc::from("peer"),
        path: Path { local: addr, remote: addr, encap: Encap::Udp },
        mode: Mode::Tunnel,
        suite: suite.into(),
        encr_key: Secret::new(vec![7; if cbc { 16 } else { 20 }]),
        integ_key: Secret::new(vec![8; if cbc { 32 } else { 0 }]),
        ts_local: [].into(),
        ts_peer: [].into(),
        replay_window: 64,
        lifetime: Lifetime::default(),
        df: DfPolicy::Copy,
        dscp: DscpPolicy::Copy,
        sequence: 0,
        tfc: 0,
        ah_align: 4,
        around: None,
    }
}

fn sa_params_at(suite: EspSuite, sequence: u64) -> SaParams {
    SaParams { sequence, ..sa_params(suite) }
}

fn suites() -> impl Iterator<Item = EspSuite> {
    [(false, false), (true, false), (false, true), (true, true)]
        .into_iter()
        .map(|(esn, cbc)| suite(esn, cbc))
}

fn seal(sa: &OutboundSa) -> Result<PacketBuf, DropReason> {
    let mut buf = PacketBuf::new(100);
    assert!(buf.fill_from(b"inner packet"));
    sa.seal(&mut buf, NextHeader::IPV4).map(|_| buf)
}

#[test]
fn keys_do_not_stay_in_the_parameters() {
    for suite in suites() {
        let outbound = OutboundSa::new(sa_params(suite)).unwrap();
        let inbound = InboundSa::new(sa_params(suite)).unwrap();
        for params in [outbound.params(), inbound.params()] {
            assert!(params.encr_key.is_empty() && params.integ_key.is_empty());
        }
        let text = format!("{outbound:?} {inbound:?}");
        assert!(!text.contains("7, 7") && !text.contains("0707"), "{text}");
    }
}

#[test]
fn sequence_numbers_end_and_never_repeat() {
    for suite in suites() {
        let last = OutboundSa::new(sa_params(suite)).unwrap().last_sequence();
        let sa = OutboundSa::new(sa_params_at(suite, last - 2)).unwrap();
        let inbound = InboundSa::new(sa_params_at(suite, last - 2)).unwrap();
        let mut sealed = [seal(&sa).unwrap(), seal(&sa).unwrap()];
        for _ in 0..1000 {
            assert_eq!(seal(&sa).map(drop), Err(DropReason::SequenceExhausted), "{suite}");
        }
        assert_eq!(sa.sequence(), last);
        for packet in &mut sealed {
            assert_eq!(inbound.open(packet).map(|opened| opened.arrival), Ok(Arrival::Newest));
            assert_eq!(&**packet, b"inner packet");
        }
        assert_eq!(inbound.sequence(), last);
    }
}

#[test]
fn a_replacement_is_asked_for_before_the_numbers_end() {
    for suite in suites() {
        let last = OutboundSa::new(sa_params(suite)).unwrap().last_sequence();
        let sa = OutboundSa::new(sa_params_at(suite, last - last / 16 - 1)).unwrap();
        let mut limits = Vec::new();
        for _ in 0..3 {
            let mut buf = PacketBuf::new(100);
            limits.push(sa.seal(&mut buf, NextHeader::IPV4).unwrap());
        }
        assert_eq!(limits, [Limit::None, Limit::Soft, Limit::None], "{suite}");
    }
}

#[test]
fn extended_numbers_pass_the_turn_of_the_low_half() {
    for suite in suites().filter(|suite| suite.esn == EsnId::ESN) {
        let sa = OutboundSa::new(sa_params_at(suite, 0xffff_fffe)).unwrap();
        let inbound = InboundSa::new(sa_params_at(suite, 0xffff_fffe)).unwrap();
        let mut sealed: Vec<_> = (0..4).map(|_| seal(&sa).unwrap()).collect();
        assert_eq!(sealed[1][4..8], [0; 4], "the low half alone is sent");
        sealed.swap(0, 2);
        let arrivals: Vec<_> =
            sealed.iter_mut().map(|packet| inbound.open(packet).unwrap().arrival).collect();
        assert_eq!(arrivals, [Arrival::Newest, Arrival::Late, Arrival::Late, Arrival::Newest]);
        assert_eq!(inbound.sequence(), 0x1_0000_0002, "{suite}");
    }
}

#[test]
fn a_packet_of_another_subspace_fails_its_icv() {
    for suite in suites().filter(|suite| suite.esn == EsnId::ESN) {
        let sa = OutboundSa::new(sa_params_at(suite, 0x5_0000_0000)).unwrap();
        let inbound = InboundSa::new(sa_params(suite)).unwrap();
        let mut packet = seal(&sa).unwrap();
        assert_eq!(inbound.open(&mut packet), Err(DropReason::IcvMismatch), "{suite}");
    }
}

#[test]
fn without_room_nothing_is_changed_and_no_number_used() {
    for suite in suites() {
        let sa = OutboundSa::new(sa_params(suite)).unwrap();
        let mut buf = PacketBuf::copy_of(b"inner packet");
        assert!(buf.push_front(PacketBuf::HEADROOM - 10));
        let before = buf.to_vec();
        assert_eq!(sa.seal(&mut buf, NextHeader::IPV4), Err(DropReason::NoRoom));
        assert_eq!(*buf, before);
        let mut buf = PacketBuf::copy_of(b"inner packet");
        assert!(buf.push_back(PacketBuf::TAILROOM - 10));
        assert_eq!(sa.seal(&mut buf, NextHeader::IPV4), Err(DropReason::NoRoom));
        assert_eq!(sa.sequence(), 0, "{suite}");
    }
}

#[test]
fn what_is_too_short_is_no_esp() {
    for suite in suites() {
        let inbound = InboundSa::new(sa_params(suite)).unwrap();
        let layout = EspLayout::of(suite).unwrap();
        let around = EspHeader::LEN + layout.iv_len + layout.icv_len;
        for len in 0..around + EspTrailer::FIXED_LEN {
            let mut packet = PacketBuf::copy_of(&vec![1; len]);
            assert_eq!(inbound.open(&mut packet), Err(DropReason::EspMalformed), "{suite}: {len}");
        }
        let shortest = around + usize::from(layout.align);
        let mut packet = PacketBuf::copy_of(&vec![1; shortest]);
        let verdict = inbound.open(&mut packet).map(drop);
        assert!(matches!(verdict, Err(DropReason::IcvMismatch | DropReason::ReplayOld)), "{suite}");
    }
}

#[test]
fn padding_other_than_one_two_three_is_refused() {
    // Under CBC the trailer can be written by whoever has the keys.
    let suite = suite(false, true);
    let Algorithms { sa, inbound } = Algorithms::new(suite);
    for (trailer, verdict) in [
        (&[1, 2, 2, 4][..], Ok(12)),
        (&[1, 3, 2, 4], Err(DropReason::BadPadding)),
        (&[0, 0, 15, 4], Err(DropReason::BadPadding)),
        (&[0, 0, 255, 4], Err(DropReason::BadPadding)),
        (&[0, 0, 0, 4], Ok(14)),
    ] {
        let mut data = vec![0x55; 12];
        data.extend(trailer);
        let mut packet = sa.seal_raw(&data);
        assert_eq!(inbound.open(&mut packet).map(|_| packet.len()), verdict, "{trailer:?}");
    }
}

/// An SA whose sender writes trailers itself.
struct Algorithms {
    sa: RawSender,
    inbound: InboundSa,
}

struct RawSender {
    transform: Transform,
    params: SaParams,
    sequence: AtomicU64,
}

impl Algorithms {
    fn new(suite: EspSuite) -> Self {
        let (params, transform) = split(sa_params(suite)).unwrap();
        let sa = RawSender { transform, params, sequence: AtomicU64::new(0) };
        Self { sa, inbound: InboundSa::new(sa_params(suite)).unwrap() }
    }
}

impl RawSender {
    /// `data` is payload and trailer.
    fn seal_raw(&self, data: &[u8]) -> PacketBuf {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let low = u32::try_from(sequence).unwrap();
        let header = EspHeader { spi: self.params.spi.get(), sequence: low }.emit();
        let layout = self.transform.own_layout();
        let mut iv = vec![0; layout.iv_len];
        let mut icv = vec![0; layout.icv_len];
        let mut data = data.to_vec();
        self.transform.seal(&header, false, sequence, &mut iv, &mut data, &mut icv);
        PacketBuf::copy_of(&[&header[..], &iv, &data, &icv].concat())
    }
}
