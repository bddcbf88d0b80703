use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use super::*;
use crate::crypto::integ::Integ;
use crate::ipsec::lifetime::Limit;
use crate::ipsec::replay::Arrival;
use crate::ipsec::suite::Encr;
use crate::ipsec::{
    DfPolicy, DscpPolicy, Encap, InboundSa, Lifetime, Mode, OutboundSa, Path, PolicyId, SaParams,
};
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
    let addr = "192.0.2.1:4500".parse().unwrap();
    SaParams {
        spi: Spi::new(0x1234_5678).unwrap(),
        other_spi: Spi::new(0x1234_5679).unwrap(),
        policy: PolicyId(1),
        peer: Arc::from("peer"),
        path: Path { local: addr, remote: addr, encap: Encap::Udp },
        mode: Mode::Tunnel,
        suite: suite.into(),
        encr_key: Secret::new(vec![7; suite.encr.keymat_len().unwrap()]),
        integ_key: Secret::new(vec![8; Integ::key_len(suite.integ).unwrap_or(0)]),
        ts_local: [].into(),
        ts_peer: [].into(),
        replay_window: 64,
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

fn sa_params_at(suite: EspSuite, sequence: u64) -> SaParams {
    SaParams { sequence, ..sa_params(suite) }
}

/// Everything that the datapath has: AEADs, GMAC, and every cipher with every integrity algorithm.
fn suites() -> impl Iterator<Item = EspSuite> {
    let aes = |id: EncrId| [128, 192, 256].map(|bits| Encr { id, key_bits: Some(bits) });
    let fixed = |id: EncrId| Encr { id, key_bits: None };
    let mut pairs = Vec::new();
    for id in [
        EncrId::ENCR_AES_GCM_8,
        EncrId::ENCR_AES_GCM_12,
        EncrId::ENCR_AES_GCM_16,
        EncrId::ENCR_AES_GCM_16_IIV,
        EncrId::ENCR_AES_CCM_8,
        EncrId::ENCR_AES_CCM_12,
        EncrId::ENCR_AES_CCM_16,
        EncrId::ENCR_AES_CCM_8_IIV,
        EncrId::ENCR_NULL_AUTH_AES_GMAC,
    ] {
        pairs.extend(aes(id).map(|encr| (encr, IntegId::NONE)));
    }
    pairs.push((fixed(EncrId::ENCR_CHACHA20_POLY1305), IntegId::NONE));
    pairs.push((fixed(EncrId::ENCR_CHACHA20_POLY1305_IIV), IntegId::NONE));
    for integ in SEPARATE_INTEG {
        pairs.extend(aes(EncrId::ENCR_AES_CBC).map(|encr| (encr, integ)));
        pairs.extend(aes(EncrId::ENCR_AES_CTR).map(|encr| (encr, integ)));
        pairs.push((fixed(EncrId::ENCR_NULL), integ));
    }
    pairs.into_iter().flat_map(|(encr, integ)| {
        [EsnId::NO_ESN, EsnId::ESN].map(|esn| EspSuite { encr, integ, esn })
    })
}

const SEPARATE_INTEG: [IntegId; 7] = [
    IntegId::AUTH_AES_CMAC_96,
    IntegId::AUTH_AES_XCBC_96,
    IntegId::AUTH_HMAC_SHA1_96,
    IntegId::AUTH_HMAC_SHA2_256_128,
    IntegId::AUTH_HMAC_SHA2_256_96,
    IntegId::AUTH_HMAC_SHA2_384_192,
    IntegId::AUTH_HMAC_SHA2_512_256,
];

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
        assert!(buf.push_front(PacketBuf::HEADROOM - 7));
        let before = buf.to_vec();
        assert_eq!(sa.seal(&mut buf, NextHeader::IPV4), Err(DropReason::NoRoom));
        assert_eq!(*buf, before);
        let mut buf = PacketBuf::copy_of(b"inner packet");
        assert!(buf.push_back(PacketBuf::TAILROOM - 9));
        assert_eq!(sa.seal(&mut buf, NextHeader::IPV4), Err(DropReason::NoRoom));
        assert_eq!(sa.sequence(), 0, "{suite}");
    }
}

#[test]
fn what_is_sealed_and_opened_in_a_run_is_what_is_alone() {
    for suite in suites() {
        let start = if suite.esn == EsnId::ESN { 0xffff_ffe0 } else { 0 };
        let [together, alone] =
            [(); 2].map(|()| OutboundSa::new(sa_params_at(suite, start)).unwrap());
        let [in_place, whole] =
            [(); 2].map(|()| InboundSa::new(sa_params_at(suite, start)).unwrap());
        let (mut sealer, mut opening) = (together.sealer(80), in_place.opening());
        for len in 0..80_u8 {
            let payload: Vec<u8> = (0..len).collect();
            let [mut buf, mut other] = [(); 2].map(|()| PacketBuf::copy_of(&payload));
            let limit = sealer.seal(&mut buf, NextHeader::IPV6);
            assert_eq!(limit, alone.seal(&mut other, NextHeader::IPV6));
            assert_eq!(*buf, *other, "{suite}: {len}");
            let mut check = |sealed: &[u8]| {
                let (mut one, mut other) = (sealed.to_vec(), PacketBuf::copy_of(sealed));
                let opened = opening.open_in_place(&mut one);
                let expected = whole.open(&mut other);
                assert_eq!(opened.clone().map(|opened| opened.0), expected, "{suite}: {len}");
                if let Ok((_, range)) = opened {
                    assert_eq!((&one[range], &*other), (&payload[..], &payload[..]), "{suite}");
                }
            };
            let mut forged = buf.to_vec();
            let at = usize::from(len) * 7 % forged.len();
            forged[at] ^= 0x10;
            check(&forged);
            check(&buf[..buf.len() - 1]);
            check(&buf);
            check(&buf);
        }
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

#[test]
fn there_is_no_encryption_without_integrity() {
    for encr in suites().map(|suite| suite.encr) {
        let params = |integ| sa_params(EspSuite { encr, integ, esn: EsnId::NO_ESN });
        let whole = encr.id.is_aead();
        assert_eq!(OutboundSa::new(params(IntegId::NONE)).is_some(), whole, "{encr}");
        assert_eq!(InboundSa::new(params(IntegId::NONE)).is_some(), whole, "{encr}");
        for integ in SEPARATE_INTEG {
            assert_eq!(OutboundSa::new(params(integ)).is_some(), !whole, "{encr} {integ}");
        }
        // RFC 4543 §5.3: GMAC as an integrity algorithm is AH's.
        assert!(OutboundSa::new(params(IntegId::AUTH_AES_128_GMAC)).is_none(), "{encr}");
        // A key for which there is no algorithm is a mistake somewhere else.
        let mut superfluous = params(IntegId::NONE);
        superfluous.integ_key = Secret::new(vec![1; 20]);
        assert!(OutboundSa::new(superfluous).is_none(), "{encr}");
    }
}

#[test]
fn keys_of_another_length_make_no_sa() {
    for suite in suites() {
        for change in [-1_isize, 1] {
            let longer = |key: &Secret| {
                let len = key.len().checked_add_signed(change)?;
                Some(Secret::new(vec![7; len]))
            };
            let mut params = sa_params(suite);
            if let Some(key) = longer(&params.encr_key) {
                params.encr_key = key;
                assert!(OutboundSa::new(params).is_none(), "{suite}");
            }
            let mut params = sa_params(suite);
            if let Some(key) = longer(&params.integ_key) {
                params.integ_key = key;
                assert!(InboundSa::new(params).is_none(), "{suite}");
            }
        }
    }
}

#[test]
fn any_bit_changed_is_refused() {
    for suite in suites() {
        let sa = OutboundSa::new(sa_params(suite)).unwrap();
        let inbound = InboundSa::new(sa_params(suite)).unwrap();
        let sealed = seal(&sa).unwrap();
        // The SPI too: it is authenticated, although the packet would not be given to this SA.
        for bit in 0..sealed.len() * 8 {
            let mut packet = sealed.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            let verdict = inbound.open(&mut packet).map(drop);
            let refused = matches!(verdict, Err(DropReason::IcvMismatch | DropReason::ReplayOld));
            assert!(refused, "{suite}: bit {bit}: {verdict:?}");
        }
        let mut packet = sealed.clone();
        assert!(inbound.open(&mut packet).is_ok(), "{suite}");
        assert_eq!(&*packet, b"inner packet", "{suite}");
    }
}

#[test]
fn sealed_packet_shows_no_more_than_its_transform_means_to() {
    for suite in suites() {
        let sa = OutboundSa::new(sa_params(suite)).unwrap();
        let sealed = seal(&sa).unwrap();
        let layout = EspLayout::of(suite).unwrap();
        assert_eq!(sealed.len(), layout.sealed_len(12), "{suite}");
        let shown = sealed.windows(12).any(|window| window == b"inner packet");
        let encrypts =
            !matches!(suite.encr.id, EncrId::ENCR_NULL | EncrId::ENCR_NULL_AUTH_AES_GMAC);
        assert_eq!(shown, !encrypts, "{suite}");
    }
}

#[test]
fn implied_iv_gives_the_packet_of_the_explicit_one_without_it() {
    for (implied, explicit, key_bits) in [
        (EncrId::ENCR_AES_CCM_8_IIV, EncrId::ENCR_AES_CCM_8, Some(128)),
        (EncrId::ENCR_AES_GCM_16_IIV, EncrId::ENCR_AES_GCM_16, Some(256)),
        (EncrId::ENCR_CHACHA20_POLY1305_IIV, EncrId::ENCR_CHACHA20_POLY1305, None),
    ] {
        for (esn, last) in [(EsnId::NO_ESN, 0x1234_5678), (EsnId::ESN, 0x9_8765_4321)] {
            let sealed = |id| {
                let suite = EspSuite { encr: Encr { id, key_bits }, integ: IntegId::NONE, esn };
                seal(&OutboundSa::new(sa_params_at(suite, last)).unwrap()).unwrap()
            };
            let (short, long) = (sealed(implied), sealed(explicit));
            // RFC 8750 §4: the sequence number, of 64 bits or with zeros before it.
            assert_eq!(long[8..16], (last + 1).to_be_bytes());
            assert_eq!(*short, [&long[..8], &long[16..]].concat());
        }
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
        let params = sa_params(suite);
        let transform = Transform::new(suite, &params.encr_key, &params.integ_key).unwrap();
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
