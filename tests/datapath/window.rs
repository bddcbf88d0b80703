//! The replay window of whole SAs, ESP and AH, against a set of numbers: under loss, reordering, replay and forgery no
//! packet is taken twice, none that is fresh and within the window is refused, and nothing moves before the ICV holds.

use std::collections::BTreeSet;

use ipsecd::datapath::DropReason;
use ipsecd::ipsec::{InboundSa, OutboundSa, PacketBuf, Place, SaParams};
use ipsecd::testing::gateways::{Kind, Protection};
use ipsecd::wire::ip::NextHeader;
use proptest::prelude::*;

use crate::kinds::*;
use crate::support::*;

/// One arrival: how far from the newest, whether it is spoiled on the way, and how often it comes.
type Arrival = (i64, bool, u8);

/// Steps that stand for the oldest number in the window, and for the one before that.
const OLDEST: i64 = i64::MIN;
const TOO_OLD: i64 = i64::MIN + 1;

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let step = prop_oneof![
        8 => 1..=3_i64,
        4 => -40..=0_i64,
        2 => -9000..=0_i64,
        1 => 1..=10_000_i64,
        1 => prop::sample::select(vec![OLDEST, TOO_OLD]),
    ];
    proptest::collection::vec((step, prop::bool::weighted(0.2), 1_u8..=2), 1..150)
}

/// The packet with this number, sealed.
fn sealed(kind: Kind, number: u64) -> PacketBuf {
    let sa = OutboundSa::new(SaParams { sequence: number - 1, ..kind.params(true, true) }).unwrap();
    let mut packet = buf(&udp_packet(kind, false, 10));
    let place = Place::for_insertion(&packet).unwrap();
    let _ = sa.seal_at(&mut packet, place).unwrap();
    packet
}

fn open(sa: &InboundSa, mut packet: PacketBuf) -> Result<(), DropReason> {
    let of = |protocol| Place::of(&packet, protocol);
    let place = of(NextHeader::ESP).or_else(|| of(NextHeader::AH)).unwrap();
    sa.open_at(&mut packet, place).map(drop)
}

fn agrees_with_a_set(kind: Kind, size: u32, start: u64, arrivals: Vec<Arrival>) {
    let params = SaParams { replay_window: size, sequence: start, ..kind.params(true, false) };
    let sa = InboundSa::new(params).unwrap();
    let (mut top, mut seen) = (start, BTreeSet::new());
    for (step, spoiled, times) in arrivals {
        let step = match step {
            OLDEST => 1 - i64::from(size),
            TOO_OLD => -i64::from(size),
            step => step,
        };
        let Some(number) = top.checked_add_signed(step).filter(|&number| number > 0) else {
            continue;
        };
        // Without ESN there is nothing after the last.
        if !kind.esn && number > u64::from(u32::MAX) {
            continue;
        }
        let genuine = sealed(kind, number);
        if spoiled {
            let mut forged = genuine.clone();
            let last = forged.len() - 1;
            forged[last] ^= 0x10;
            assert!(open(&sa, forged).is_err());
            assert_eq!(sa.sequence(), top, "a forged packet moves nothing");
        }
        for _ in 0..times {
            // What came before the SA was taken over counts as received.
            let fresh = number > start && number + u64::from(size) > top && seen.insert(number);
            let verdict = open(&sa, genuine.clone());
            assert_eq!(verdict.is_ok(), fresh, "{number} with the top at {top}: {verdict:?}");
            if fresh {
                top = top.max(number);
            }
            assert_eq!(sa.sequence(), top);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_window_agrees_with_a_set_of_numbers(
        size in prop::sample::select(vec![32_u32, 64, 1024, 8192]), ah: bool, v6: bool, arrivals in arrivals(),
    ) {
        let kind = transport(if ah { Protection::Ah } else { Protection::Gcm }, v6);
        agrees_with_a_set(kind, size, 0, arrivals);
    }

    #[test]
    fn a_window_agrees_with_a_set_of_numbers_where_the_low_half_turns(
        size in prop::sample::select(vec![32_u32, 64, 1024, 8192]), before in 0_u64..5_000,
        protection in prop::sample::select(vec![Protection::Ah, Protection::Gcm, Protection::Cbc]),
        arrivals in arrivals(),
    ) {
        let kind = Kind { esn: true, ..transport(protection, false) };
        agrees_with_a_set(kind, size, (1 << 32) - before, arrivals);
    }
}
