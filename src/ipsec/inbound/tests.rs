use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::crypto::Secret;
use crate::ipsec::suite::{Encr, EspSuite};
use crate::ipsec::{
    DfPolicy, DscpPolicy, Encap, Lifetime, OutboundSa, Path, PolicyId, SaParams, Spi,
};
use crate::wire::ike::numbers::{EncrId, EsnId, IntegId};

/// The second subspace of extended sequence numbers begins among the packets.
const NEAR_SUBSPACE: u64 = 0xffff_ff80;

/// What comes, and what is done with it.
#[derive(Clone, Debug)]
struct Arrivals {
    threads: usize,
    /// Packets are opened in runs of so many.
    run: usize,
    window: u32,
    esn: bool,
    /// Sequence numbers above the start, in the order of their arrival, and whether that packet is a forgery.
    packets: Vec<(u64, bool)>,
}

fn arrivals() -> impl Strategy<Value = Arrivals> {
    // How much later each comes than its turn, whether it comes again, and whether a forgery of it comes as well.
    let packet = (0..40_usize, prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    let packets = prop::collection::vec(packet, 1..400).prop_map(|packets| {
        let mut order = Vec::new();
        for (at, (late, again, forged)) in packets.into_iter().enumerate() {
            let number = at as u64 + 1;
            order.push((at + late, number, false));
            if again {
                order.push((at + 7, number, false));
            }
            if forged {
                order.push((at, number + 10_000, true));
            }
        }
        order.sort_unstable();
        order.into_iter().map(|(_, number, forged)| (number, forged)).collect()
    });
    let window = prop::sample::select(vec![32_u32, 64, 1024]);
    (2..=4_usize, 1..20_usize, window, any::<bool>(), packets).prop_map(
        |(threads, run, window, esn, packets)| Arrivals { threads, run, window, esn, packets },
    )
}

fn params(esn: bool, window: u32) -> SaParams {
    let encr = Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(128) };
    let esn_id = if esn { EsnId::ESN } else { EsnId::NO_ESN };
    let addr = "192.0.2.1:4500".parse().unwrap();
    SaParams {
        spi: Spi::new(0x1234_5678).unwrap(),
        other_spi: Spi::new(0x1234_5679).unwrap(),
        policy: PolicyId(1),
        peer: "peer".into(),
        path: Path { local: addr, remote: addr, encap: Encap::Udp },
        mode: Mode::Tunnel,
        suite: EspSuite { encr, integ: IntegId::NONE, esn: esn_id }.into(),
        encr_key: Secret::new(vec![7; 20]),
        integ_key: Secret::new(vec![]),
        ts_local: [].into(),
        ts_peer: [].into(),
        replay_window: window,
        lifetime: Lifetime::default(),
        df: DfPolicy::Copy,
        dscp: DscpPolicy::Copy,
        sequence: if esn { NEAR_SUBSPACE } else { 0 },
        tfc: 0,
        ah_align: 4,
        resource: None,
        around: None,
    }
}

/// The packets of an SA that is as the one which opens them, by number above the start.
fn sealed(arrivals: &Arrivals) -> BTreeMap<u64, Vec<u8>> {
    let sa = OutboundSa::new(params(arrivals.esn, arrivals.window)).unwrap();
    let most = arrivals.packets.iter().filter(|(_, forged)| !forged).map(|&(number, _)| number);
    (1..=most.max().unwrap_or(0))
        .map(|number| {
            let mut packet = PacketBuf::copy_of(&[0x45; 24]);
            let _limit = sa.seal(&mut packet, NextHeader::IPV4).unwrap();
            (number, packet.to_vec())
        })
        .collect()
}

/// Of the genuine packet with another number, which its ICV does not have.
fn forgery(packet: &[u8], ahead: u32) -> Vec<u8> {
    let mut forged = packet.to_vec();
    let low = u32::from_be_bytes(forged[4..8].try_into().unwrap()).wrapping_add(ahead);
    forged[4..8].copy_from_slice(&low.to_be_bytes());
    forged
}

fn opened_by_several(arrivals: &Arrivals) {
    let start = params(arrivals.esn, 0).sequence;
    let sealed = sealed(arrivals);
    let sa = InboundSa::new(params(arrivals.esn, arrivals.window)).unwrap();
    let barrier = Barrier::new(arrivals.threads);
    let open = |thread: usize| {
        let mine: Vec<_> =
            arrivals.packets.iter().skip(thread).step_by(arrivals.threads).copied().collect();
        barrier.wait();
        let mut verdicts = Vec::new();
        for run in mine.chunks(arrivals.run) {
            let mut opening = sa.opening();
            for &(number, forged) in run {
                let mut packet = if forged {
                    forgery(&sealed[&(number - 10_000)], 10_000)
                } else {
                    sealed[&number].clone()
                };
                let verdict = opening.open_in_place(&mut packet).map(|(opened, _)| opened.arrival);
                verdicts.push((number, forged, verdict));
            }
        }
        verdicts
    };
    let verdicts: Vec<_> = std::thread::scope(|scope| {
        let open = &open;
        let threads: Vec<_> =
            (0..arrivals.threads).map(|thread| scope.spawn(move || open(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });

    let mut accepted = BTreeSet::new();
    for (number, forged, verdict) in &verdicts {
        if verdict.is_ok() {
            assert!(!forged, "a forgery of {number} passed");
            assert!(accepted.insert(*number), "{number} passed twice");
        }
    }
    let highest = *sealed.keys().last().unwrap();
    for (number, forged, verdict) in &verdicts {
        match verdict {
            Ok(_) => {}
            Err(DropReason::IcvMismatch) if *forged => {}
            Err(DropReason::ReplayDuplicate) => {
                assert!(accepted.contains(number), "{number} never passed");
            }
            // RFC 4303 Appendix A: what is before the window may be taken for one of the next subspace, and the ICV tells.
            Err(DropReason::ReplayOld | DropReason::IcvMismatch) => {
                let reach = number + u64::from(arrivals.window);
                assert!(reach <= highest, "{number} is in the window whatever came: {verdict:?}");
            }
            Err(other) => panic!("{number}: {other:?}"),
        }
    }
    if u64::from(arrivals.window) >= highest {
        assert_eq!(accepted, sealed.keys().copied().collect(), "each passes once");
    }
    assert_eq!(sa.sequence(), start + highest, "only what is genuine moves the window");
    assert_eq!(sa.usage().packets(), accepted.len() as u64);
    // Nobody opens any more: the next has the window to itself.
    assert_eq!(sa.beside.load(Ordering::Relaxed), 0);
    assert!(matches!(sa.opening().window, Window::Held(_)));
    for packet in sealed.values().filter(|_| accepted.len() == sealed.len()) {
        assert!(sa.open(&mut PacketBuf::copy_of(packet)).is_err(), "no replay passes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whoever_opens_them_each_packet_passes_once_and_no_forgery_moves_the_window(
        arrivals in arrivals()
    ) {
        opened_by_several(&arrivals);
    }
}

#[test]
fn who_opens_alone_holds_the_window_until_another_comes() {
    let sa = InboundSa::new(params(false, 64)).unwrap();
    let sender = OutboundSa::new(params(false, 64)).unwrap();
    let next = || {
        let mut packet = PacketBuf::copy_of(&[0x45; 24]);
        let _limit = sender.seal(&mut packet, NextHeader::IPV4).unwrap();
        packet
    };
    let (mut first, mut second) = (sa.opening(), sa.opening());
    assert!(matches!((&first.window, &second.window), (Window::Held(_), Window::Beside)));
    assert!(first.open(&mut next()).is_ok(), "it lets the window go before it opens a packet");
    assert!(matches!(first.window, Window::Beside));
    let mut packet = next();
    let mut again = PacketBuf::copy_of(&packet);
    assert!(second.open(&mut packet).is_ok());
    assert_eq!(first.open(&mut again), Err(DropReason::ReplayDuplicate));
    drop(second);
    assert!(matches!(sa.opening().window, Window::Beside), "the first has not ended");
    drop(first);
    assert!(matches!(sa.opening().window, Window::Held(_)));
}
