//! What was on the wire.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::netns::Netns;
use super::process::{self, Process};
use super::wait;

/// A running capture of one device.
pub(crate) struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

impl Capture {
    /// Begins; returns when packets are being seen.
    #[track_caller]
    pub(crate) fn start(host: &Netns, device: &str, file: &Path) -> Self {
        let mut command = host.command("tcpdump");
        command.args(["-Z", "root", "-U", "--immediate-mode", "-s0", "-B", "16384", "-i", device]);
        command.arg("-w").arg(file);
        let tcpdump = Process::start(&mut command, &file.with_extension("log"));
        wait::until("tcpdump to listen", Duration::from_secs(10), || {
            tcpdump.log().contains("listening on").then_some(())
        });
        Self { tcpdump, file: file.to_owned() }
    }

    /// Ends it. The file is complete then.
    #[track_caller]
    pub(crate) fn stop(self) -> PathBuf {
        // What it has not read yet it would leave out: it is asked for its counts until it has read all that the kernel has for it.
        wait::within(Duration::from_secs(3), || {
            let asked = self.counts().len();
            self.tcpdump.signal(Signal::SIGUSR1);
            wait::within(wait::PATIENCE, || (self.counts().len() > asked).then_some(()))?;
            self.counts().last().filter(|(captured, received)| captured == received).map(drop)
        });
        let status = self.tcpdump.end(Signal::SIGINT, Duration::from_secs(10));
        assert!(status.success(), "tcpdump: {status}");
        self.file
    }

    /// What it said of packets captured, and received by its filter.
    fn counts(&self) -> Vec<(u64, u64)> {
        let log = self.tcpdump.log();
        let line = |line: &str| {
            let mut numbers = line
                .split(|c: char| !c.is_ascii_digit())
                .filter(|digits| !digits.is_empty())
                .filter_map(|digits| digits.parse().ok());
            Some((numbers.next()?, numbers.next()?))
        };
        let lines = log.lines().filter(|line| line.contains(" captured, "));
        lines.filter_map(line).collect()
    }
}

/// The packets of a capture in tcpdump's words, a line each, without time stamps.
#[track_caller]
pub(crate) fn lines(host: &Netns, file: &Path, filter: &str) -> Vec<String> {
    let printed = process::run(host.command("tcpdump").args(["-ntr"]).arg(file).arg(filter));
    printed.lines().map(str::to_owned).collect()
}
