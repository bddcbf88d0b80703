//! One network namespace, with a name that `ip netns` knows.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{process, wait};

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// How every name begins; the id of the process that made it follows.
const PREFIX: &str = "ipd";

/// A network namespace. Dropping it ends the processes in it and removes it.
pub(crate) struct Netns {
    name: String,
    /// Bound over `/run` for what runs in here: each host has a `/run` of its own.
    run_dir: PathBuf,
}

impl Netns {
    /// Makes one, with its loopback up; `dir` must exist and is this host's own.
    #[track_caller]
    pub(crate) fn new(lab: u32, host: &str, dir: &Path) -> Self {
        let name = format!("{PREFIX}{}-{lab}-{host}", std::process::id());
        process::run(Command::new("ip").args(["netns", "add", &name]));
        let run_dir = dir.join("run");
        fs::create_dir_all(&run_dir).expect("directory is made");
        let netns = Self { name, run_dir };
        netns.ip("link set lo up");
        // Nobody else is on these links: an address is good at once.
        netns
            .sh("cd /proc/sys/net/ipv6/conf; echo 0 > all/accept_dad; echo 0 > default/accept_dad");
        netns
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n NAME ARGS`.
    #[track_caller]
    pub(crate) fn ip(&self, args: &str) -> String {
        process::run(Command::new("ip").args(["-n", &self.name]).args(args.split_whitespace()))
    }

    /// A command that will run in here, with this host's own `/run`, and not outlive the test.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // `ip netns exec` has made the mounts private to the command by then.
        let mut command = process::tied("ip");
        command
            .args(["netns", "exec", &self.name, "sh", "-c"])
            .arg("mount --bind \"$0\" /run && exec \"$@\"")
            .arg(&self.run_dir)
            .arg(program);
        command
    }

    /// Runs a shell line in here.
    #[track_caller]
    pub(crate) fn sh(&self, line: &str) -> String {
        process::run(self.command("sh").args(["-ec", line]))
    }

    /// Does `work` in a thread that is in here: a socket made there stays in here wherever it is used.
    #[track_caller]
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = entrance(&self.name);
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                enter();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Devices, addresses, routes and rules, in brief.
    pub(crate) fn network(&self) -> String {
        ["-br addr", "-4 route show table all type unicast", "-6 route show table all type unicast"]
            .into_iter()
            .chain(["-4 rule", "-6 rule"])
            .map(|what| self.ip(what))
            .collect()
    }

    /// Devices, addresses, routes and rules in full: what a daemon may have changed and must have put back.
    pub(crate) fn network_state(&self) -> String {
        [
            "-d link",
            "addr",
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule",
            "-6 rule",
        ]
        .map(|what| self.ip(what))
        .concat()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// What brings the thread that calls it into a namespace, for good.
#[track_caller]
pub(crate) fn entrance(name: &str) -> impl FnOnce() + Send + use<> {
    let file = File::open(Path::new(NAMES).join(name)).expect("the namespace has a name");
    move || setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace")
}

/// Ends what runs in a namespace, and removes it.
fn remove(name: &str) {
    let inside = || -> Vec<Pid> {
        let listed = process::output(Command::new("ip").args(["netns", "pids", name]));
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        listed.split_whitespace().filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?))).collect()
    };
    let empty = wait::within(Duration::from_secs(5), || {
        let pids = inside();
        for pid in &pids {
            // It may have ended in between: nothing to be done then.
            let _gone = kill(*pid, Signal::SIGKILL);
        }
        pids.is_empty().then_some(())
    });
    if empty.is_none() {
        eprintln!("{name}: processes would not end");
    }
    process::output(Command::new("ip").args(["netns", "del", name]));
}

/// Removes the namespaces of test runs that were killed.
pub(crate) fn sweep() {
    let Ok(names) = fs::read_dir(NAMES) else { return };
    for name in names.flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        let Some(owner) = owner.and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
        if !Path::new("/proc").join(owner.to_string()).exists() {
            remove(&name);
        }
    }
}
