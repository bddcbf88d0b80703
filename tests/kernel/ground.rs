//! Where the ends of the matrix stand: a namespace, guests on tap devices, and all addresses of all cells.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::lab::netns::Netns;
use crate::lab::topology::Turn;
use crate::lab::uml::{self, Guest, Host};
use crate::lab::{Need, process};
use crate::matrix::{Cell, End};

/// Packets that a tap device holds for its guest, which is slow: a thousand are not enough for all cells at once.
const QUEUE: u32 = 10_000;

/// The number of the host that a test works from, where it is neither of the ends.
const BETWEEN: u8 = 9;

/// What is in here is not on a disk.
const MEMORY: &str = "/dev/shm";

/// A namespace for the ends, or with the near end in it.
pub(crate) struct Ground {
    pub(crate) net: Netns,
    dir: TempDir,
    state: TempDir,
    turn: Turn,
}

impl Ground {
    /// Builds it; `None` where that cannot be done (see [`Turn::take`]).
    #[track_caller]
    pub(crate) fn open(needs: &[Need]) -> Option<Self> {
        let turn = Turn::take(needs)?;
        let mut prefixed = tempfile::Builder::new();
        prefixed.prefix("ipsecd-kernel-");
        let dir = prefixed.tempdir().expect("a directory");
        let net = Netns::new(turn.number, "kernel", dir.path());
        let state = if Path::new(MEMORY).is_dir() {
            prefixed.tempdir_in(MEMORY)
        } else {
            prefixed.tempdir()
        };
        Some(Self { net, dir, state: state.expect("a directory"), turn })
    }

    /// A new directory, which goes with the ground.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).expect("directory is made");
        dir
    }

    /// Where daemons keep their sequence numbers. They flush each to the disk: hundreds of SAs would wait for it.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.path().to_owned()
    }

    /// Gives `device` in `net` the addresses of host `number`, which knows its neighbours.
    #[track_caller]
    fn settle(&self, net: &Netns, device: &str, number: u8) {
        let mut batch = format!(
            "link set {device} address {}\nlink set {device} up\n\
             addr add {}/24 dev {device}\naddr add fd77::{number}/64 dev {device} nodad\n",
            uml::mac(number),
            uml::address(number),
        );
        for other in [1, 2, BETWEEN].into_iter().filter(|&other| other != number) {
            for address in [uml::address(other).to_string(), format!("fd77::{other}")] {
                let mac = uml::mac(other);
                let _ = writeln!(
                    batch,
                    "neigh replace {address} lladdr {mac} dev {device} nud permanent"
                );
            }
        }
        self.batch(net, &batch);
    }

    /// The near end, in the namespace itself, on the tap device of guest 2.
    #[track_caller]
    pub(crate) fn near(&self) {
        self.net.ip("tuntap add dev tap2 mode tap");
        self.net.ip(&format!("link set tap2 txqueuelen {QUEUE}"));
        self.settle(&self.net, "tap2", 1);
    }

    /// A bridge with a tap device for each number; the test works from a third host on it.
    #[track_caller]
    pub(crate) fn bridge(&self, numbers: [u8; 2]) {
        self.net.ip("link add br0 type bridge");
        for number in numbers {
            self.net.ip(&format!("tuntap add dev tap{number} mode tap"));
            self.net.ip(&format!("link set tap{number} txqueuelen {QUEUE}"));
            self.net.ip(&format!("link set tap{number} master br0 up"));
        }
        self.settle(&self.net, "br0", BETWEEN);
    }

    /// Boots guest `number` on its tap device.
    #[track_caller]
    pub(crate) fn guest(&self, number: u8) -> Guest<'_> {
        let tap = format!("tap{number}");
        Guest::boot(&self.net, &tap, number, &self.dir(&tap))
    }

    /// Another namespace, the far end's, with a link between the two: `wire1` here, `wire2` there.
    #[track_caller]
    pub(crate) fn two_hosts(&self) -> Netns {
        let far = Netns::new(self.turn.number, "far", &self.dir("far"));
        self.net.ip(&format!("link add wire1 type veth peer name wire2 netns {}", far.name()));
        self.settle(&self.net, "wire1", 1);
        self.settle(&far, "wire2", 2);
        // A capture would show a run of UDP datagrams as one.
        self.net.ip("link set wire1 gso_max_segs 1");
        far.ip("link set wire2 gso_max_segs 1");
        far
    }

    /// Runs `ip` commands in a namespace.
    #[track_caller]
    pub(crate) fn batch(&self, net: &Netns, lines: &str) {
        let file = self.dir.path().join("batch");
        fs::write(&file, lines).expect("file is written");
        process::run(net.command("ip").arg("-batch").arg(&file));
    }
}

/// Runs `ip` commands in a guest.
#[track_caller]
pub(crate) fn batch(guest: &Guest<'_>, lines: &str) {
    guest.run(&format!("ip -batch - <<'END'\n{lines}END\n"));
}

/// The `ip` commands that give an end its addresses of all `cells`, and the ways to the other end's.
pub(crate) fn addresses(cells: &[Cell], end: End, device: &str) -> String {
    let (other, via) = match end {
        End::Near => (1, 2),
        End::Far => (0, 1),
    };
    let mut lines = String::new();
    for net in [64 + other, 128 + other] {
        let _ = writeln!(lines, "route replace 10.{net}.0.0/16 via 10.77.0.{via} dev {device}");
        let _ = writeln!(lines, "route replace fd{net:02x}::/16 via fd77::{via} dev {device}");
    }
    for cell in cells {
        let (outer, inner) = (cell.outer(end), cell.inner(end));
        for address in if outer == inner { vec![outer] } else { vec![outer, inner] } {
            let (bits, nodad) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
            let _ = writeln!(lines, "addr add {address}/{bits} dev lo{nodad}");
        }
    }
    lines
}
