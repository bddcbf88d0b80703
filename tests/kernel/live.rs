//! ipsecd at the near end, a Linux kernel at the far one, traffic both ways.

use std::time::Duration;

use crate::ground::{Ground, addresses, batch};
use crate::lab::capture::{self, Capture};
use crate::lab::uml::{Host, Local, Probe};
use crate::lab::{Ipsecd, Need, wait};
use crate::matrix::{Cell, End, FORMS, Protocol, Transform, Tuning};
use crate::{manual, xfrm};

/// Cells that stand at once.
const TOGETHER: usize = 200;

/// Brings all of `cells` up at both ends, a part of them at a time, and lets each carry pings and TCP, begun at each end:
/// at least so many packets in each SA.
fn carry(cells: &[Cell], pings: u32, size: usize, least: u64) {
    let Some(ground) = Ground::open(&[Need::Kernel]) else { return };
    ground.near();
    let far = ground.guest(2);
    let near = Local::start(&ground.net, 1, &ground.dir("agent"));
    let wire = Capture::start(&ground.net, "tap2", &ground.dir("wire").join("wire.pcap"));
    let mut faults = Vec::new();
    for part in cells.chunks(TOGETHER) {
        let peers = ground.dir("peers");
        manual::write(&peers, part, End::Near);
        ground.batch(&ground.net, &addresses(part, End::Near, "tap2"));
        batch(&far, &addresses(part, End::Far, "vec0"));
        batch(&far, &part.iter().map(|cell| cell.xfrm(End::Far)).collect::<String>());
        let daemon = Ipsecd::start_in(&ground.net, &ground.dir("ipsecd"), &peers, &ground.state());
        all_up(&daemon, part);
        let from_near = probes(&near, part, End::Near, pings, size);
        let from_far = probes(&far, part, End::Far, pings, size);
        faults.extend(from_near.into_iter().chain(from_far));
        faults.extend(unused(part, &far.run("ip -s xfrm state"), least));
        assert!(daemon.stop().success());
        let flush = "addr flush dev lo scope global";
        ground.net.ip(flush);
        far.run(&format!("ip xfrm state flush; ip xfrm policy flush; ip {flush}"));
    }
    faults.extend(in_clear(&ground, wire));
    let stat = far.run("awk '$2' /proc/net/xfrm_stat");
    assert!(
        faults.is_empty(),
        "{} faults with {} cells:\n{}\nthe kernel counted:\n{stat}",
        faults.len(),
        cells.len(),
        faults.join("\n")
    );
    println!("{} cells", cells.len());
}

/// Waits until the SAs of each cell are installed.
#[track_caller]
pub(crate) fn all_up(daemon: &Ipsecd<'_>, cells: &[Cell]) {
    let up = wait::within(Duration::from_secs(30), || {
        let status = daemon.status();
        let up = status["peers"].as_array()?.iter().filter(|peer| peer["state"] == "up");
        (up.count() == cells.len()).then_some(())
    });
    assert!(up.is_some(), "not all up\n{}", daemon.log());
}

/// Sends through each cell from `end`; what did not come back.
pub(crate) fn probes(
    host: &impl Host,
    cells: &[Cell],
    end: End,
    pings: u32,
    size: usize,
) -> Vec<String> {
    let probes: Vec<_> = cells
        .iter()
        .map(|cell| Probe { source: cell.inner(end), target: cell.inner(end.other()), pings, size })
        .collect();
    let faults = cells.iter().zip(host.probe(&probes));
    faults.filter_map(|(cell, fault)| Some(format!("{cell}: from {end:?}: {}", fault?))).collect()
}

/// The SAs that have carried fewer than `least` packets, by `ip -s xfrm state`: each packet of the cell's start and more.
pub(crate) fn unused(cells: &[Cell], state: &str, least: u64) -> Vec<String> {
    let carried = xfrm::carried(state);
    let mut unused = Vec::new();
    for cell in cells {
        for to in [End::Near, End::Far] {
            let Some(sa) = carried.get(&cell.spi(to)) else {
                unused.push(format!("{cell}: no SA to {to:?}"));
                continue;
            };
            if sa.packets < least || sa.sequence < cell.tuning.start + least {
                unused.push(format!("{cell}: the SA to {to:?} has carried {sa:x?}"));
            }
        }
    }
    unused
}

/// What was on the wire and neither ESP nor AH, but for the agents' own.
fn in_clear(ground: &Ground, wire: Capture) -> Vec<String> {
    let wire = wire.stop();
    let clear = "(ip or ip6) and not net 10.77.0.0/16 and not net fd77::/16 and not net fe80::/10 \
                 and not ip multicast and not ip6 multicast";
    let protected = "ip proto 50 or ip proto 51 or ip6 proto 50 or ip6 proto 51 or udp port 4500";
    let seen = capture::lines(&ground.net, &wire, protected).len();
    assert!(seen > 0, "nothing was captured");
    capture::lines(&ground.net, &wire, &format!("{clear} and not ({protected})"))
}

fn live(chosen: impl Fn(&Cell) -> bool) -> Vec<Cell> {
    let cells: Vec<_> = Cell::live().into_iter().filter(chosen).collect();
    assert!(!cells.is_empty());
    cells
}

#[test]
fn every_cell_of_esp_carries_traffic_both_ways() {
    carry(&live(|cell| cell.form.protocol == Protocol::Esp), 1, 3_000, 10);
}

#[test]
fn every_cell_of_ah_carries_traffic_both_ways() {
    carry(&live(|cell| cell.form.protocol == Protocol::Ah), 2, 20_000, 20);
}

#[test]
fn ah_padded_as_linux_does_by_default_carries_traffic() {
    let tuning = Tuning { ah_align: 8, ..Tuning::default() };
    let cells = live(|cell| cell.form.protocol == Protocol::Ah);
    carry(&cells.into_iter().map(|cell| Cell { tuning, ..cell }).collect::<Vec<_>>(), 1, 3_000, 10);
}

#[test]
fn extended_sequence_numbers_pass_2_to_the_32() {
    let tuning = Tuning { start: (1 << 32) - 20, replay_window: 64, ..Tuning::default() };
    let forms = |protocol| FORMS.iter().filter(move |form| form.protocol == protocol);
    // All of AH; of ESP every transform, and with it every form in turn.
    let in_turn = |cell: &Cell| {
        let transforms = Transform::all(Protocol::Esp);
        let transform = transforms.iter().position(|transform| *transform == cell.transform);
        let form = forms(Protocol::Esp).position(|form| *form == cell.form);
        transform.zip(form).is_some_and(|(transform, form)| transform % 12 == form)
    };
    let cells = live(|cell| cell.esn && (cell.form.protocol == Protocol::Ah || in_turn(cell)));
    let cells: Vec<_> = cells.into_iter().map(|cell| Cell { tuning, ..cell }).collect();
    // More packets than were left.
    carry(&cells, 20, 100_000, 60);
}
