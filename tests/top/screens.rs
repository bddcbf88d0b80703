//! What is drawn. The screens of docs/top.md are these; where one differs, the test fails and says where the new one is.

use std::path::Path;
use std::time::Duration;

use ipsecd::cli::top;
use ipsecd::cli::top::model::{Model, Move};
use ipsecd::cli::top::view::Charset;
use ipsecd::control::protocol::PeerState;
use ipsecd::testing::VirtualClock;

use crate::sample::status;

/// A model that has looked at so many tunnels for a minute. Only differences of the clock matter.
fn model(tunnels: u64) -> Model {
    let mut model = Model::default();
    let start = VirtualClock::new().now();
    for second in 0..60 {
        model.update(start + Duration::from_secs(second), status(tunnels, second));
    }
    model
}

fn frame(model: &Model, width: u16, height: u16) -> String {
    top::frame(model, width, height, Charset::Utf8)
}

#[track_caller]
fn is_the_screen(name: &str, shown: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screens").join(name);
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    if kept.trim_end() != shown {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&new, format!("{shown}\n")).unwrap();
        panic!(
            "{} differs; if it is right, copy {} there:\n{shown}",
            file.display(),
            new.display()
        );
    }
}

#[test]
fn the_screens_of_the_documents_are_what_is_drawn() {
    is_the_screen("top-1.txt", &frame(&model(1), 80, 24));
    is_the_screen("top-20.txt", &frame(&model(20), 80, 24));
    let mut many = model(1000);
    many.next_sort();
    many.next_sort();
    is_the_screen("top-1000-by-traffic.txt", &frame(&many, 100, 30));
    let mut help = model(20);
    help.toggle_help();
    is_the_screen("top-help.txt", &frame(&help, 80, 24));
}

#[test]
fn no_size_is_too_small_and_none_breaks_it() {
    let model = model(20);
    for width in [1, 10, 40, 60, 76, 80, 200] {
        for height in [1, 3, 11, 12, 16, 24, 80] {
            let shown = frame(&model, width, height);
            assert_eq!(
                shown.split('\n').count(),
                usize::from(height),
                "{width}x{height}:\n{shown}"
            );
        }
    }
    let small = frame(&model, 60, 12);
    assert!(small.contains("site-0001") && small.contains("REKEY"), "{small}");
}

#[test]
fn every_state_is_shown_in_full_from_60_columns_on() {
    let mut model = Model::default();
    let mut status = status(12, 0);
    let states =
        [PeerState::Connecting, PeerState::Deleting, PeerState::Retrying, PeerState::Waiting];
    for (peer, state) in status.peers.iter_mut().zip(states) {
        peer.state = state;
        peer.ike_sas.clear();
    }
    status.peers[5].ike_sas[0].child_sas[0].state = "REKEYING".to_owned();
    // All is lost.
    status.peers[6].ike_sas[0].child_sas[0].inbound.packets = 0;
    status.peers[6].ike_sas[0].child_sas[0].sequence_inbound = 7;
    status.peers[7].ike_sas[0].rtt_us = Some(9_990);
    model.update(VirtualClock::new().now(), status);
    for (width, height) in [(60, 30), (76, 30), (80, 30)] {
        let shown = frame(&model, width, height);
        for whole in [
            "connecting ",
            "deleting ",
            "retrying ",
            "waiting ",
            "rekeying ",
            "100.0% ",
            "9.9ms ",
            "site-0012 ",
        ] {
            assert!(shown.contains(whole), "no {whole:?} at {width}:\n{shown}");
        }
    }
}

#[test]
fn a_terminal_without_utf_8_gets_ascii() {
    let mut model = model(20);
    let mut named = status(20, 60);
    named.peers[0].name = "wörter".to_owned();
    model.update(VirtualClock::new().now(), named);
    for help in [false, true] {
        let shown = top::frame(&model, 80, 24, Charset::Ascii);
        assert!(shown.is_ascii(), "{shown}");
        assert!(shown.contains("TUNNELv") && (help || shown.contains("w?rter")), "{shown}");
        assert_eq!(shown.lines().count(), frame(&model, 80, 24).lines().count());
        model.toggle_help();
    }
}

#[test]
fn the_filter_and_the_order_decide_what_is_shown() {
    let mut model = model(20);
    let names =
        |model: &Model| -> Vec<String> { model.shown().iter().map(|it| it.name.clone()).collect() };
    model.begin_typing();
    "RETRY".chars().for_each(|c| model.type_char(c));
    model.end_typing(true);
    assert_eq!(names(&model), ["site-0003", "site-0013"]);
    model.escape();
    assert_eq!(names(&model).len(), 20);
    // State, traffic, loss.
    model.next_sort();
    assert_eq!(names(&model)[..2], ["site-0003", "site-0013"]);
    model.next_sort();
    model.next_sort();
    let first: Vec<_> = model.shown().iter().take(2).map(|it| it.loss).collect();
    assert_eq!(first, [Some(50), Some(50)], "one packet in twenty");
    model.reverse();
    assert_ne!(model.shown()[0].loss, Some(50));
    model.go(Move::Last);
    assert_eq!(model.marked(&model.shown()), 19);
    model.go(Move::By(-100));
    assert_eq!(model.marked(&model.shown()), 0);
}

#[test]
fn what_happens_is_told_once() {
    let mut model = Model::default();
    let start = VirtualClock::new().now();
    let at = |second| start + Duration::from_secs(second);
    model.update(at(0), status(1, 0));
    assert_eq!(model.events.len(), 0, "nothing is news at first");
    let mut rekeyed = status(1, 1);
    rekeyed.peers[0].ike_sas[0].child_sas[0].spi_inbound = "0x0000beef".to_owned();
    model.update(at(1), rekeyed.clone());
    let mut down = status(1, 2);
    down.peers[0].state = PeerState::Retrying;
    down.peers[0].ike_sas.clear();
    model.update(at(2), down.clone());
    model.update(at(3), down);
    model.fail("no daemon is listening on /run/ipsecd.sock".to_owned());
    model.fail("no daemon is listening on /run/ipsecd.sock".to_owned());
    assert!(frame(&model, 80, 24).contains("no daemon is listening"));
    let mut other = status(0, 5);
    other.pid += 1;
    model.update(at(5), other);
    let told: Vec<_> = model.events.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(
        told,
        [
            "site-0001: rekeyed, SPI 0x00000001 -> 0x0000beef",
            "site-0001: retrying",
            "no daemon is listening on /run/ipsecd.sock",
            "another daemon is running",
        ]
    );
    assert_eq!(model.failure, None);
}

#[test]
fn a_rate_is_what_was_carried_between_two_looks_also_over_a_rekey() {
    let mut model = Model::default();
    let start = VirtualClock::new().now();
    let with = |spi: &str, bytes| {
        let mut status = status(1, 0);
        let child = &mut status.peers[0].ike_sas[0].child_sas[0];
        child.spi_inbound = spi.to_owned();
        child.inbound.bytes = bytes;
        status
    };
    model.update(start, with("0x00000001", 5_000));
    assert_eq!(model.shown()[0].inbound, 0, "of one look nothing can be said");
    model.update(start + Duration::from_millis(500), with("0x00000001", 6_000));
    assert_eq!(model.shown()[0].inbound, 2_000);
    model.update(start + Duration::from_millis(1500), with("0x00000002", 300));
    assert_eq!(model.shown()[0].inbound, 300, "a new SA begins at zero");
}
