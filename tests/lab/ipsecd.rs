//! ipsecd on a gateway: its configuration files, its daemon, its commands.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::netns::Netns;
use super::process::{self, Process};
use super::topology::Side;
use super::wait;

/// How long the daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The key that all share who are not told otherwise.
pub(crate) const PSK: &str = "correct horse battery staple";

/// One configuration file; the peer in it is called `far`.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) local_address: Option<String>,
    pub(crate) local_id: String,
    pub(crate) local_subnets: Vec<String>,
    pub(crate) address: String,
    pub(crate) id: String,
    pub(crate) subnets: Vec<String>,
    pub(crate) psk: String,
    /// Further lines of `[ike]`.
    pub(crate) ike: String,
    /// Further lines of `[esp]`.
    pub(crate) esp: String,
}

impl Peer {
    /// From `local` to `remote`: first subnets, IPv4 in IPv4 (or in IPv6), everything else as it is by default.
    pub(crate) fn new(local: &Side, remote: &Side, v6_outside: bool) -> Self {
        Self {
            local_address: None,
            local_id: local.id(),
            local_subnets: vec![local.subnet(1, false)],
            address: remote.outside(v6_outside).to_string(),
            id: remote.id(),
            subnets: vec![remote.subnet(1, false)],
            psk: PSK.to_owned(),
            ike: String::new(),
            esp: String::new(),
        }
    }

    /// Writes the file, and the key beside it, into `dir`.
    #[track_caller]
    fn write(&self, dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).expect("directory is made");
        let secret = dir.join("far.psk");
        let _none = fs::remove_file(&secret);
        File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&secret)
            .and_then(|mut file| writeln!(file, "{}", self.psk))
            .expect("file is written");
        let mut text = "[local]\n".to_owned();
        if let Some(address) = &self.local_address {
            writeln!(text, "address = {address:?}").expect("a string takes it");
        }
        let Self { local_id, local_subnets, address, id, subnets, ike, esp, .. } = self;
        write!(
            text,
            "id = {local_id:?}\nsubnets = {local_subnets:?}\n\
             [peer]\naddress = {address:?}\nid = {id:?}\nsubnets = {subnets:?}\n\
             [auth]\npsk = {{ file = \"far.psk\" }}\n\
             [ike]\n{ike}\n[esp]\n{esp}\n"
        )
        .expect("a string takes it");
        let file = dir.join("far.conf");
        fs::write(&file, text).expect("file is written");
        file
    }
}

/// A running `ipsecd daemon`. Dropping it kills it.
pub(crate) struct Ipsecd<'a> {
    gw: &'a Netns,
    file: PathBuf,
    process: Process,
}

impl<'a> Ipsecd<'a> {
    /// Starts a daemon that knows no peer; `peer` is for [`Ipsecd::up`].
    #[track_caller]
    pub(crate) fn start(side: &'a Side, peer: &Peer) -> Self {
        Self::start_for_file(side, peer.write(&side.dir.join("ipsecd")))
    }

    /// Starts a daemon that brings `peer` up by itself.
    #[track_caller]
    pub(crate) fn start_with_peer(side: &'a Side, peer: &Peer) -> Self {
        let dir = side.dir.join("ipsecd");
        let file = peer.write(&dir);
        Self::launch(side, file, &dir, LOG, &[])
    }

    /// As [`Ipsecd::start_with_peer`], with further arguments of `ipsecd daemon`.
    #[track_caller]
    pub(crate) fn start_with_flags(side: &'a Side, peer: &Peer, flags: &[&str]) -> Self {
        let dir = side.dir.join("ipsecd");
        let file = peer.write(&dir);
        let flags: Vec<_> = flags.iter().map(Path::new).collect();
        Self::launch(side, file, &dir, LOG, &flags)
    }

    /// As [`Ipsecd::start_for_file`], with further arguments of `ipsecd daemon`.
    #[track_caller]
    pub(crate) fn start_for_file_with_flags(side: &'a Side, file: PathBuf, flags: &[&str]) -> Self {
        let flags: Vec<_> = flags.iter().map(Path::new).collect();
        Self::launch(side, file, &no_peers(side), LOG, &flags)
    }

    /// Starts a daemon that knows no peer; `file` is for [`Ipsecd::up`].
    #[track_caller]
    pub(crate) fn start_for_file(side: &'a Side, file: PathBuf) -> Self {
        Self::launch(side, file, &no_peers(side), LOG, &[])
    }

    /// As [`Ipsecd::start`], and logs all that there is to log, also by the crates below it.
    #[track_caller]
    pub(crate) fn start_talkative(side: &'a Side, peer: &Peer) -> Self {
        Self::launch(side, peer.write(&side.dir.join("ipsecd")), &no_peers(side), "trace", &[])
    }

    /// Writes the configuration file that is for `peer`, and starts nothing.
    #[track_caller]
    pub(crate) fn file_of(side: &Side, peer: &Peer) -> PathBuf {
        peer.write(&side.dir.join("ipsecd"))
    }

    /// As [`Ipsecd::start`], and writes the keys of every SA into `keylog`.
    #[track_caller]
    pub(crate) fn start_with_keylog(side: &'a Side, peer: &Peer, keylog: &Path) -> Self {
        let file = peer.write(&side.dir.join("ipsecd"));
        Self::launch(side, file, &no_peers(side), LOG, &[Path::new("--keylog"), keylog])
    }

    /// As [`Ipsecd::start`], and leaves this much to the kernel.
    #[track_caller]
    pub(crate) fn start_with_offload(side: &'a Side, peer: &Peer, offload: &str) -> Self {
        let file = peer.write(&side.dir.join("ipsecd"));
        let more = [Path::new("--offload"), Path::new(offload)];
        Self::launch(side, file, &no_peers(side), LOG, &more)
    }

    #[track_caller]
    fn launch(side: &'a Side, file: PathBuf, dir: &Path, log: &str, more: &[&Path]) -> Self {
        let state = Path::new(STATE_DIR.1);
        Self::launch_in(&side.gw, &side.dir, file, dir, log, state, more)
    }

    /// Starts a daemon in any namespace, with every file of `peers`; its log is in `dir`, its state in `state`.
    #[track_caller]
    pub(crate) fn start_in(net: &'a Netns, dir: &Path, peers: &Path, state: &Path) -> Self {
        Self::launch_in(net, dir, peers.to_owned(), peers, "info", state, &[])
    }

    /// Starts a daemon in any namespace that knows no peer; `file` is for [`Ipsecd::up`]. What is its own is in `dir`.
    #[track_caller]
    pub(crate) fn start_for_file_in(net: &'a Netns, dir: &Path, file: PathBuf) -> Self {
        let none = dir.join("no-peers");
        fs::create_dir_all(&none).expect("directory is made");
        Self::launch_in(net, dir, file, &none, LOG, Path::new(STATE_DIR.1), &[])
    }

    #[track_caller]
    fn launch_in(
        gw: &'a Netns,
        log_dir: &Path,
        file: PathBuf,
        dir: &Path,
        log: &str,
        state: &Path,
        more: &[&Path],
    ) -> Self {
        let mut command = gw.command(BINARY);
        command.env(STATE_DIR.0, state);
        // Before all others, what the test puts there.
        command.env("PATH", format!("{}/bin:/usr/sbin:/usr/bin:/sbin:/bin", log_dir.display()));
        command.args(["--log", log, "daemon", "--config-dir"]).arg(dir).args(more);
        let process = Process::start(&mut command, &log_dir.join("ipsecd.log"));
        let mut daemon = Self { gw, file, process };
        let started = wait::within(PATIENCE, || {
            if daemon.process.ended().is_some() {
                panic!("ipsecd ended\n{}", daemon.process.log());
            }
            process::output(&mut daemon.command(&["status"])).status.success().then_some(())
        });
        assert!(started.is_some(), "ipsecd does not answer\n{}", daemon.process.log());
        daemon
    }

    /// Any command of ours, in the gateway.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.gw.command(BINARY);
        command.env(STATE_DIR.0, STATE_DIR.1);
        command.args(args);
        command
    }

    /// `ipsecd up`, waiting at most `seconds`.
    pub(crate) fn up(&self, seconds: u32) -> Output {
        process::output(&mut self.up_command(seconds))
    }

    /// The command that [`Ipsecd::up`] runs.
    pub(crate) fn up_command(&self, seconds: u32) -> Command {
        let mut command = self.command(&["up", &format!("--timeout={seconds}s")]);
        command.arg(&self.file);
        command
    }

    /// `ipsecd up`; a failed test unless that works.
    #[track_caller]
    pub(crate) fn must_up(&self) -> String {
        let output = self.up(15);
        assert!(output.status.success(), "ipsecd up:\n{}", process::text(&output));
        process::text(&output)
    }

    /// `ipsecd down --all`.
    #[track_caller]
    pub(crate) fn down(&self) {
        process::run(&mut self.command(&["down", "--all"]));
    }

    /// `ipsecd rekey`: returns when the replacement is established.
    #[track_caller]
    pub(crate) fn rekey(&self, ike: bool) {
        let args: &[&str] = if ike { &["rekey", "far", "--ike"] } else { &["rekey", "far"] };
        process::run(&mut self.command(args));
    }

    /// `ipsecd status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let text = process::run(&mut self.command(&["status", "--json"]));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in: {text}"))
    }

    /// The peer's state: `up`, `connecting`, ...; empty without a peer.
    #[track_caller]
    pub(crate) fn state(&self) -> String {
        self.status()["peers"][0]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The newest CHILD_SA's part of the status.
    #[track_caller]
    pub(crate) fn child(&self) -> Value {
        let status = self.status();
        let ike_sas = status["peers"][0]["ike_sas"].as_array().cloned().unwrap_or_default();
        let children = ike_sas.iter().filter_map(|sa| sa["child_sas"].as_array()).flatten();
        children
            .min_by_key(|child| child["age_seconds"].as_u64())
            .unwrap_or_else(|| panic!("no CHILD_SA in {status:#}"))
            .clone()
    }

    /// The newest IKE SA's part of the status.
    #[track_caller]
    pub(crate) fn ike(&self) -> Value {
        let status = self.status();
        let ike_sas = status["peers"][0]["ike_sas"].as_array().cloned().unwrap_or_default();
        ike_sas
            .into_iter()
            .min_by_key(|sa| sa["age_seconds"].as_u64())
            .unwrap_or_else(|| panic!("no IKE SA in {status:#}"))
    }

    /// Waits until every CHILD_SA is installed.
    #[track_caller]
    pub(crate) fn up_within(&self, limit: Duration) {
        wait::until("the peer to be up", limit, || (self.state() == "up").then_some(()));
    }

    /// Its process.
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid().as_raw()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// All that it logged since the lab began.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it in its own time: it deletes its SAs and puts everything back.
    #[track_caller]
    pub(crate) fn stop(self) -> ExitStatus {
        self.process.end(Signal::SIGTERM, PATIENCE)
    }

    /// Ends it at once: its peer is told nothing, nothing is put back.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.process.end(Signal::SIGKILL, PATIENCE);
    }
}

/// Where a daemon keeps its state: each host has a `/run` of its own.
pub(crate) const STATE_DIR: (&str, &str) = ("IPSECD_STATE_DIR", "/run/ipsecd-state");

/// What is logged.
const LOG: &str = "info,ipsecd=trace";

fn no_peers(side: &Side) -> PathBuf {
    let dir = side.dir.join("no-peers");
    fs::create_dir_all(&dir).expect("directory is made");
    dir
}

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ipsecd");
