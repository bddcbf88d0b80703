use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// The window as RFC 4303 §3.4.3 words it: every number that came, and the highest.
#[derive(Default)]
struct Model {
    size: u64,
    top: u64,
    seen: BTreeSet<u64>,
}

impl Model {
    fn receive(&mut self, seq: u64) -> Result<Arrival, DropReason> {
        if seq == 0 || seq + self.size <= self.top {
            return Err(DropReason::ReplayOld);
        }
        if !self.seen.insert(seq) {
            return Err(DropReason::ReplayDuplicate);
        }
        let newest = seq > self.top;
        self.top = self.top.max(seq);
        Ok(if newest { Arrival::Newest } else { Arrival::Late })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "as on the wire")]
fn receive(window: &mut ReplayWindow, seq: u64) -> Result<Arrival, DropReason> {
    let inferred = window.check(seq as u32)?;
    assert_eq!(inferred, seq, "high bits inferred wrongly at top {}", window.top());
    window.accept(inferred, IcvVerified::new())
}

/// Steps that stand for the oldest number in the window, and for the one before that.
const OLDEST: i64 = i64::MIN;
const TOO_OLD: i64 = i64::MIN + 1;

/// What arrives of a stream: packets lost, delayed and repeated, as (steps back or ahead of the newest, repeat).
fn arrivals() -> impl Strategy<Value = Vec<(i64, bool)>> {
    let step = prop_oneof![
        8 => 1..=3_i64,
        4 => -100..=0_i64,
        2 => -9000..=0_i64,
        1 => 1..=20_000_i64,
        1 => prop::sample::select(vec![OLDEST, TOO_OLD]),
    ];
    proptest::collection::vec((step, prop::bool::weighted(0.2)), 1..600)
}

fn agrees_with_model(size: u32, start: u64, esn: bool, arrivals: Vec<(i64, bool)>) {
    let mut window = ReplayWindow::starting_at(size, esn, start);
    let size = u64::from(size);
    let mut model = Model { size, top: start, seen: BTreeSet::new() };
    // What came before `start` counts as received.
    model.seen.extend(start.saturating_sub(size)..=start);
    for (step, repeat) in arrivals {
        let step = match step {
            OLDEST => 1 - size.cast_signed(),
            TOO_OLD => -size.cast_signed(),
            step => step,
        };
        let Some(seq) = model.top.checked_add_signed(step) else { continue };
        // Older than that the high bits are inferred as those of a packet to come: then the ICV decides.
        if esn && seq + size <= model.top {
            continue;
        }
        for _ in 0..=u8::from(repeat) {
            let before = window.clone();
            let verdict = receive(&mut window, seq);
            assert_eq!(verdict, model.receive(seq), "seq {seq}, top {}", before.top());
            if verdict.is_err() {
                assert_eq!(
                    window.blocks, before.blocks,
                    "a refused packet leaves the window unchanged"
                );
                assert_eq!(window.top, before.top);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn window_agrees_with_a_set_of_numbers(
        size in prop::sample::select(vec![1_u32, 32, 64, 100, 1024, 8192]),
        arrivals in arrivals(),
    ) {
        agrees_with_model(size, 0, false, arrivals);
    }

    #[test]
    fn extended_window_agrees_with_a_set_of_numbers_across_the_turn_of_the_low_half(
        size in prop::sample::select(vec![1_u32, 32, 64, 100, 1024, 8192]),
        before in 0_u64..20_000,
        high in 1_u64..4,
        arrivals in arrivals(),
    ) {
        agrees_with_model(size, (high << 32) - before, true, arrivals);
    }
}

/// The oldest number of a window is fresh, the one before it is not in it: wherever the window lies, also across the turn of the low half.
#[test]
fn a_window_is_as_long_as_its_size() {
    let turn = 1_u64 << 32;
    for size in [1_u32, 2, 32, 64, 100, 1024, 8192] {
        let len = u64::from(size);
        for high in [1, 2, 7] {
            let turn = high * turn;
            let around = [0, 1, 2, len / 2, len - 1, len, len + 1, 3 * len];
            for top in around.iter().flat_map(|n| [turn - n - 1, turn + n]) {
                let window = {
                    let mut window = ReplayWindow::starting_at(size, true, top - 2 * len);
                    receive(&mut window, top).unwrap();
                    window
                };
                for seq in [top - (len - 1), top - len / 2].into_iter().filter(|seq| *seq < top) {
                    assert_eq!(
                        receive(&mut window.clone(), seq),
                        Ok(Arrival::Late),
                        "{size}, {top}, {seq}"
                    );
                }
                // RFC 4303 Appendix A2.2: what is before the window has the low half of one in the next subspace.
                let before = top - len;
                let low = u32::try_from(before % (1 << 32)).unwrap();
                assert_eq!(window.check(low), Ok(before + (1 << 32)), "{size}, {top}");
            }
        }
        for top in [len, len + 1, 2 * len, u64::from(u32::MAX)] {
            let mut window = ReplayWindow::new(size, false);
            receive(&mut window, top).unwrap();
            let oldest = top - (len - 1);
            let late =
                if oldest == top { Err(DropReason::ReplayDuplicate) } else { Ok(Arrival::Late) };
            assert_eq!(receive(&mut window.clone(), oldest), late, "{size}, {top}");
            assert_eq!(
                receive(&mut window, oldest - 1),
                Err(DropReason::ReplayOld),
                "{size}, {top}"
            );
        }
    }
}

#[test]
fn number_zero_is_never_accepted() {
    assert_eq!(ReplayWindow::new(64, false).check(0), Err(DropReason::ReplayOld));
    assert_eq!(ReplayWindow::new(64, true).check(0), Err(DropReason::ReplayOld));
}

#[test]
fn short_numbers_do_not_wrap() {
    let mut window = ReplayWindow::new(64, false);
    assert_eq!(receive(&mut window, 0xffff_ffff), Ok(Arrival::Newest));
    assert_eq!(window.check(0), Err(DropReason::ReplayOld));
    assert_eq!(window.check(1), Err(DropReason::ReplayOld));
    assert_eq!(window.check(0xffff_ffff), Err(DropReason::ReplayDuplicate));
}

#[test]
fn extended_numbers_go_on_where_the_low_half_wraps() {
    let mut window = ReplayWindow::starting_at(64, true, 0xffff_fff0);
    assert_eq!(receive(&mut window, 0xffff_ffff), Ok(Arrival::Newest));
    assert_eq!(receive(&mut window, 0x1_0000_0001), Ok(Arrival::Newest));
    assert_eq!(receive(&mut window, 0x1_0000_0000), Ok(Arrival::Late));
    assert_eq!(receive(&mut window, 0xffff_fffe), Ok(Arrival::Late), "case B, one subspace back");
    assert_eq!(window.check(0xffff_ffff), Err(DropReason::ReplayDuplicate));
}

#[test]
fn nothing_precedes_the_first_subspace() {
    let window = ReplayWindow::new(1024, true);
    assert_eq!(window.check(0xffff_ffff), Err(DropReason::ReplayOld));
}

#[test]
fn the_last_extended_number_does_not_wrap() {
    let mut window = ReplayWindow::starting_at(64, true, u64::MAX - 1);
    assert_eq!(receive(&mut window, u64::MAX), Ok(Arrival::Newest));
    assert_eq!(window.check(5), Err(DropReason::ReplayOld));
}

#[test]
fn without_a_window_nothing_is_a_replay() {
    for esn in [false, true] {
        let mut window = ReplayWindow::new(0, esn);
        assert_eq!(receive(&mut window, 7), Ok(Arrival::Newest));
        assert_eq!(receive(&mut window, 7), Ok(Arrival::Late));
        assert_eq!(receive(&mut window, 1), Ok(Arrival::Late));
    }
}

#[test]
fn sizes_are_bounded() {
    let size = |size| ReplayWindow::new(size, false).size();
    assert_eq!([size(0), size(1), size(32), size(8192)], [0, 1, 32, 8192]);
    assert_eq!([size(8193), size(u32::MAX)], [8192, 8192]);
}

#[test]
fn two_workers_with_the_same_packet_accept_it_once() {
    let mut window = ReplayWindow::new(64, false);
    let [first, second] = [window.check(9), window.check(9)];
    assert_eq!((first, second), (Ok(9), Ok(9)), "neither has been accepted yet");
    assert_eq!(window.accept(9, IcvVerified::new()), Ok(Arrival::Newest));
    assert_eq!(window.accept(9, IcvVerified::new()), Err(DropReason::ReplayDuplicate));
}

#[test]
fn what_is_ahead_of_the_top_is_what_the_window_would_say() {
    let tops = [0, 1, 31, 32, 63, 64, 65, 1000, 0x7fff_ffff, 0xffff_ffc0, 0xffff_fffe, 0xffff_ffff];
    let tops: Vec<u64> = tops.into_iter().chain(tops.map(|top| 0x3_0000_0000 + top)).collect();
    let mut told = 0;
    for (size, esn) in [0, 32, 64, 1024].into_iter().flat_map(|size| [(size, false), (size, true)])
    {
        for &top in tops.iter().filter(|&&top| esn || top <= u32::MAX.into()) {
            let window = ReplayWindow::starting_at(size, esn, top);
            for base in tops.iter().map(|&top| u32::try_from(top & 0xffff_ffff).unwrap()) {
                for low in [base.wrapping_sub(1), base, base.wrapping_add(1)] {
                    if let Some(seq) = ReplayWindow::ahead(top, size, esn, low) {
                        assert_eq!(window.check(low), Ok(seq), "{size} {esn} {top:#x} {low:#x}");
                        told += 1;
                    }
                }
            }
        }
    }
    assert!(told > 500, "{told}");
}

#[test]
fn next_packet_is_ahead_without_asking_the_window() {
    for (esn, top, low) in [(false, 0x100, 0x100), (true, 0x3_0000_0100, 0x100)] {
        assert_eq!(ReplayWindow::ahead(top, 64, esn, low + 1), Some(top + 1));
        assert_eq!(ReplayWindow::ahead(top, 64, esn, low), None);
    }
}
