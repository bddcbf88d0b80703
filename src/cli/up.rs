//! `ipsecd up`: brings tunnels up, and shows how.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueHint};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    CliError, Global, absolute, check, complain, duration, say, secrets, spawn, speaks_utf8,
};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body, Code, Failure, Progress, UpResult, UpState};
use crate::daemon::{self, Options};
use crate::io::clock;

/// Arguments of `up`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd up site-b.conf
  ipsecd up --timeout 2m /etc/ipsecd/*.conf
  ipsecd up --foreground site-b.conf      as a systemd service, or in a container")]
pub struct UpArgs {
    /// Configuration files, one a peer
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Go on trying after a failure, instead of taking the peer down again
    #[arg(long)]
    pub keep: bool,
    /// Rekey every CHILD_SA at once when it is up: what would make the first rekey fail hours later (a PFS group that differs) is
    /// said now. The tunnel stays up all the same
    #[arg(long)]
    pub verify_rekey: bool,
    /// Have the daemon that this starts write the keys of every SA into a directory of ours alone, for Wireshark and `decrypt`
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub keylog: Option<PathBuf>,
    /// Run the daemon in this process until SIGTERM, SIGINT, or the last peer's `down`
    #[arg(long)]
    pub foreground: bool,
}

/// Runs it.
///
/// # Errors
/// The files have errors, the daemon cannot be reached or started, or a peer did not come up.
pub fn run(global: &Global, args: &UpArgs) -> Result<(), CliError> {
    // Here first: with the place of each error underlined, and nothing started.
    let checked = check::run(&args.files, &secrets(), &mut io::sink(), &mut io::stderr());
    match checked {
        Ok(check::OK) => {}
        Ok(_) => return Err(CliError::Config),
        Err(error) => return Err(CliError::Io("cannot write".to_owned(), error)),
    }
    let files = args.files.iter().map(|file| absolute(file)).collect::<Result<Vec<_>, _>>()?;
    if args.foreground {
        return in_foreground(global, args, files);
    }
    let keylog = args.keylog.as_deref().map(absolute).transpose()?;
    let client = spawn::connect_or_start(global, keylog.as_deref())?;
    let socket = &global.socket;
    match ask(socket, client, args, files.clone()) {
        // We met a daemon that was about to end, and it did not begin with what we asked.
        Err(CliError::Client(ClientError::Ended)) => {
            ask(socket, spawn::connect_or_start(global, keylog.as_deref())?, args, files)
        }
        other => other,
    }
}

/// Asks for the peers and shows what happens.
fn ask(socket: &Path, client: Client, args: &UpArgs, files: Vec<PathBuf>) -> Result<(), CliError> {
    let began = clock::now();
    let show = Show::new();
    let timeout_ms = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
    let ask = Ask::Up { files, timeout_ms, keep: args.keep };
    let answer = client.ask(ask, |step| show.step(&step));
    show.end();
    let Body::Up { peers } = answer? else {
        return Err(ClientError::Ended.into());
    };
    let seconds = clock::now().saturating_duration_since(began).as_secs_f64();
    for peer in &peers {
        report(peer, seconds);
    }
    match worst(&peers) {
        None if args.verify_rekey => verify_rekey(socket, &peers),
        None => Ok(()),
        Some(Code::Config) => Err(CliError::Config),
        Some(_) => Err(CliError::Reported),
    }
}

/// Rekeys the CHILD_SAs of the peers that are up, and says what keeps them from it.
fn verify_rekey(socket: &Path, peers: &[UpResult]) -> Result<(), CliError> {
    let mut result = Ok(());
    for UpResult { peer, .. } in peers.iter().filter(|peer| peer.state == UpState::Up) {
        let ask = Ask::Rekey { peer: peer.clone(), ike: false };
        match Client::connect(socket)?.ask(ask, |_| {}) {
            Ok(_) => say(format_args!("{peer}: the CHILD_SA can be rekeyed")),
            // Manual keys have nothing that could be replaced.
            Err(ClientError::Refused(Failure { code: Code::NotEstablished, .. })) => {}
            Err(ClientError::Refused(failure)) => {
                complain(format_args!(
                    "{peer} is up, and will break at its first rekey: {failure}; see: ipsecd doctor --live, while it is down"
                ));
                result = Err(CliError::Reported);
            }
            Err(error) => return Err(error.into()),
        }
    }
    result
}

/// The daemon in this thread, the client in another.
fn in_foreground(global: &Global, args: &UpArgs, files: Vec<PathBuf>) -> Result<(), CliError> {
    global.start_log()?;
    let options = Options {
        socket: global.socket.clone(),
        files: Vec::new(),
        config_dir: None,
        state_dir: global.state_dir.clone(),
        credentials: super::credentials(),
        exit_when_empty: true,
        log_from_config: global.log.is_none(),
        keylog: args.keylog.clone(),
        offload: global.offload.into(),
        workers: global.workers.count(),
        audit: None,
        metrics: None,
    };
    let mut asking = None;
    let ran = daemon::run(&options, || {
        let (socket, args) = (global.socket.clone(), args.clone());
        asking = Some(std::thread::spawn(move || {
            let result = Client::connect(&socket)
                .map_err(CliError::from)
                .and_then(|client| ask(&socket, client, &args, files));
            if result.is_ok() {
                spawn::notify_ready();
            } else if let Ok(client) = Client::connect(&socket) {
                // Peers that came up do not make up for those that did not; without an answer, it has ended already.
                let _ended = client.ask(Ask::Shutdown, |_| {});
            }
            result
        }));
    });
    let asked = asking.map_or(Ok(()), |thread| thread.join().unwrap_or(Err(CliError::Reported)));
    ran?;
    asked
}

fn report(peer: &UpResult, seconds: f64) {
    match (peer.state, &peer.error) {
        (UpState::Up, _) => say(format_args!("{}: up after {seconds:.1} s", peer.peer)),
        (UpState::Waiting, _) => {
            say(format_args!("{}: ready; traffic, or the peer, brings it up", peer.peer));
        }
        (UpState::Failed, Some(Failure { message, .. })) => complain(message),
        (UpState::Failed, None) => complain(format_args!("{} failed", peer.peer)),
    }
}

fn worst(peers: &[UpResult]) -> Option<Code> {
    let mut failed = peers.iter().filter(|peer| peer.state == UpState::Failed);
    failed.next().map(|peer| peer.error.as_ref().map_or(Code::System, |error| error.code))
}

/// A spinner with elapsed time on a terminal, plain lines otherwise.
struct Show {
    spinner: Option<ProgressBar>,
}

impl Show {
    fn new() -> Self {
        let spinner = (io::stdout().is_terminal() && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} [{elapsed}]") {
                bar.set_style(if speaks_utf8() { style } else { style.tick_chars("-\\|/ ") });
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { spinner }
    }

    fn step(&self, step: &Progress) {
        let line = format!("{}: {:<11} {}", step.peer, step.phase.name(), step.detail);
        match &self.spinner {
            Some(bar) => {
                bar.println(&line);
                bar.set_message(format!("{}: {}", step.peer, step.phase.name()));
            }
            None => say(line.trim_end()),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.spinner {
            bar.finish_and_clear();
        }
    }
}
