//! Finding the daemon, or starting one in the background.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use super::{CliError, Global};
use crate::control::client::{Client, ClientError};

/// What a daemon in the background says on its standard output once its socket accepts.
pub const READY: &str = "ready";

/// A connection to the daemon; if none runs, one is started, and it accepts when this returns. Its log goes to a file
/// beside the socket.
///
/// # Errors
/// It cannot be reached, or does not start.
pub fn connect_or_start(global: &Global) -> Result<Client, CliError> {
    match Client::connect(&global.socket) {
        Err(ClientError::NotRunning(_)) => {}
        other => return Ok(other?),
    }
    if let Some(dir) = global.socket.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| CliError::Io(dir.display().to_string(), error))?;
    }
    // Of several that start at a time, one starts the daemon and the others find it.
    let lock_path = global.socket.with_extension("lock");
    let lock = private(&lock_path)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| CliError::Io(lock_path.display().to_string(), error.into()))?;
    match Client::connect(&global.socket) {
        Err(ClientError::NotRunning(_)) => {}
        other => return Ok(other?),
    }
    start(global)?;
    Ok(Client::connect(&global.socket)?)
}

fn start(global: &Global) -> Result<(), CliError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error| CliError::Io(what, error)
    };
    let log_path = global.socket.with_extension("log");
    let log = private(&log_path)?;
    let program = std::env::current_exe().map_err(failed("cannot find this program"))?;
    let socket = super::absolute(&global.socket)?;
    let mut command = Command::new(program);
    command.arg("--socket").arg(socket);
    command.arg("--state-dir").arg(super::absolute(&global.state_dir)?);
    if let Some(filter) = &global.log {
        command.arg("--log").arg(filter);
    }
    let mut child = command
        .args(["daemon", "--background-of-up"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed("cannot start the daemon"))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let read = BufReader::new(stdout).read_line(&mut line);
        read.map_err(failed("cannot hear the daemon"))?;
    }
    match line.trim_end() {
        READY => Ok(()),
        "" => {
            let log = log_path.display();
            Err(CliError::Start(format!("it ended without a word; see {log}")))
        }
        reason => Err(CliError::Start(reason.to_owned())),
    }
}

/// Tells the service manager, if there is one, that the tunnels are up.
pub fn notify_ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "no service manager was told");
    }
}

/// A file to append to, readable to its owner alone.
fn private(path: &Path) -> Result<File, CliError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| CliError::Io(path.display().to_string(), error))
}
