//! ipsecd at the near end, a Linux kernel at the far one, traffic both ways.

use std::path::PathBuf;
use std::time::Duration;

use crate::ground::{Ground, addresses, batch};
use crate::lab::capture::{self, Capture};
use crate::lab::uml::{Guest, Host, Local, Probe};
use crate::lab::{Ipsecd, Need, wait};
use crate::matrix::{Cell, End, FORMS, Mode, Protocol, Transform, Tuning};
use crate::{manual, xfrm};

/// Cells that stand at once.
const TOGETHER: usize = 200;

/// What is sent through a cell, from each end.
#[derive(Clone, Copy)]
pub(crate) struct Traffic {
    /// Bytes in each ping.
    pub(crate) pings: &'static [usize],
    /// Bytes over TCP, and back.
    pub(crate) tcp: usize,
    /// The packets that each SA must have carried in the end.
    pub(crate) least: u64,
}

pub(crate) const SOME: Traffic = Traffic { pings: &[56], tcp: 3_000, least: 10 };

/// The kernel at the far end, ipsecd's place at the near one, and a capture of what is between them.
pub(crate) struct Stage<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) far: Guest<'a>,
    pub(crate) near: Local<'a>,
    wire: Capture,
}

impl<'a> Stage<'a> {
    pub(crate) fn open(ground: &'a Ground) -> Self {
        ground.near();
        let far = ground.guest(2);
        let near = Local::start(&ground.net, 1, &ground.dir("agent"));
        let wire = Capture::start(&ground.net, "tap2", &ground.dir("wire").join("wire.pcap"));
        Self { ground, far, near, wire }
    }

    /// Starts ipsecd with the files that are written, once the ends have the addresses of `cells` and the kernel its
    /// SAs; it returns when all is installed.
    pub(crate) fn play(&self, cells: &[Cell], xfrm: &str) -> Ipsecd<'a> {
        let ground = self.ground;
        ground.batch(&ground.net, &addresses(cells, End::Near, "tap2"));
        batch(&self.far, &addresses(cells, End::Far, "vec0"));
        batch(&self.far, xfrm);
        let dir = ground.dir("ipsecd");
        let daemon = Ipsecd::start_in(&ground.net, &dir, &self.peers(), &ground.state());
        all_up(&daemon, cells);
        daemon
    }

    /// Where ipsecd's files are.
    pub(crate) fn peers(&self) -> PathBuf {
        self.ground.dir("peers")
    }

    /// Sends through each cell from both ends; what did not come back, and which SAs were not used.
    pub(crate) fn carry(&self, cells: &[Cell], traffic: Traffic) -> Vec<String> {
        let mut faults = probes(&self.near, cells, End::Near, traffic);
        faults.extend(probes(&self.far, cells, End::Far, traffic));
        faults.extend(unused(cells, &self.far.run("ip -s xfrm state"), traffic.least));
        faults
    }

    /// Takes everything away again.
    fn clear(&self, daemon: Ipsecd<'_>) {
        assert!(daemon.stop().success());
        let flush = "addr flush dev lo scope global";
        self.ground.net.ip(flush);
        self.far.run(&format!("ip xfrm state flush; ip xfrm policy flush; ip {flush}"));
    }

    /// A failed test unless there were no faults, and nothing went in clear.
    pub(crate) fn end(self, mut faults: Vec<String>) {
        faults.extend(in_clear(self.ground, self.wire));
        let stat = self.far.run("awk '$2' /proc/net/xfrm_stat");
        assert!(
            faults.is_empty(),
            "{} faults:\n{}\nthe kernel counted:\n{stat}",
            faults.len(),
            faults.join("\n")
        );
    }
}

/// Brings all of `cells` up at both ends, a part of them at a time, and lets each carry `traffic`.
fn carry(cells: &[Cell], traffic: Traffic) {
    let Some(ground) = Ground::open(&[Need::Kernel]) else { return };
    let stage = Stage::open(&ground);
    let mut faults = Vec::new();
    for part in cells.chunks(TOGETHER) {
        manual::write(&stage.peers(), part, End::Near);
        let xfrm: String = part.iter().map(|cell| cell.xfrm(End::Far)).collect();
        let daemon = stage.play(part, &xfrm);
        faults.extend(stage.carry(part, traffic));
        stage.clear(daemon);
    }
    stage.end(faults);
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
pub(crate) fn probes(host: &impl Host, cells: &[Cell], end: End, traffic: Traffic) -> Vec<String> {
    let Traffic { pings, tcp: size, .. } = traffic;
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
            // Without a window the kernel does not look at what it receives.
            let counts = cell.tuning.replay_window > 0;
            if sa.packets < least || counts && sa.sequence < cell.tuning.start + least {
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
    // The agents send no UDP but to each other: of a fragment it is ESP's.
    let protected = "ip proto 50 or ip proto 51 or ip6 proto 50 or ip6 proto 51 or udp port 4500 \
                     or (ip proto 17 and ip[6:2] & 0x1fff != 0) \
                     or (ip6 proto 44 and (ip6[40] = 17 or ip6[40] = 50 or ip6[40] = 51))";
    let seen = capture::lines(&ground.net, &wire, protected).len();
    assert!(seen > 0, "nothing was captured");
    capture::lines(&ground.net, &wire, &format!("{clear} and not ({protected})"))
}

fn live(chosen: impl Fn(&Cell) -> bool) -> Vec<Cell> {
    let cells: Vec<_> = Cell::live().into_iter().filter(chosen).collect();
    assert!(!cells.is_empty());
    cells
}

/// Cells with every transform, and each with another form than the one before.
fn in_turn(cell: &Cell) -> bool {
    let protocol = cell.form.protocol;
    let transforms = Transform::all(protocol);
    let transform = transforms.iter().position(|transform| *transform == cell.transform);
    let mut forms = FORMS.iter().filter(|form| form.protocol == protocol);
    let count = forms.clone().count();
    let form = forms.position(|form| *form == cell.form);
    transform.zip(form).is_some_and(|(transform, form)| transform % count == form)
}

fn tuned(cells: Vec<Cell>, tuning: Tuning) -> Vec<Cell> {
    cells.into_iter().map(|cell| Cell { tuning, ..cell }).collect()
}

#[test]
fn every_cell_of_esp_carries_traffic_both_ways() {
    carry(&live(|cell| cell.form.protocol == Protocol::Esp), SOME);
}

#[test]
fn every_cell_of_ah_carries_traffic_both_ways() {
    let traffic = Traffic { pings: &[0, 56, 1_000], tcp: 20_000, least: 20 };
    carry(&live(|cell| cell.form.protocol == Protocol::Ah), traffic);
}

#[test]
fn ah_padded_as_linux_does_by_default_carries_traffic() {
    let tuning = Tuning { ah_align: 8, ..Tuning::default() };
    carry(&tuned(live(|cell| cell.form.protocol == Protocol::Ah), tuning), SOME);
}

#[test]
fn extended_sequence_numbers_pass_2_to_the_32() {
    let tuning = Tuning { start: (1 << 32) - 20, replay_window: 64, ..Tuning::default() };
    let cells = live(|cell| cell.esn && (cell.form.protocol == Protocol::Ah || in_turn(cell)));
    // More packets than were left.
    let traffic = Traffic { pings: &[56; 20], tcp: 100_000, least: 60 };
    carry(&tuned(cells, tuning), traffic);
}

#[test]
fn packets_longer_than_the_link_carry_in_every_form() {
    let traffic = Traffic { pings: &[1_400, 1_473, 2_000, 9_000, 20_000], tcp: 100_000, least: 20 };
    let wanted = ["aes256gcm16", "aes128-sha256", "sha256"];
    carry(&live(|cell| wanted.contains(&&*cell.transform.proposal)), traffic);
}

#[test]
fn every_replay_window_carries_traffic() {
    let mut cells = live(|cell| in_turn(cell) && !cell.esn);
    for (at, cell) in cells.iter_mut().enumerate() {
        let windows = [0, 32, 64, 1_024, 4_096];
        cell.tuning.replay_window = windows[at % windows.len()];
    }
    carry(&cells, SOME);
}

#[test]
fn padding_against_traffic_analysis_is_taken_by_the_kernel_and_from_it() {
    let tuning = Tuning { tfc: 1_000, ..Tuning::default() };
    let tunnels = |cell: &Cell| {
        cell.form.protocol == Protocol::Esp && cell.form.mode == Mode::Tunnel && in_turn(cell)
    };
    carry(&tuned(live(tunnels), tuning), SOME);
}
