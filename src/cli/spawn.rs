//! Finding the daemon, or starting one in the background.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use super::{CliError, Global};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body};

/// What a daemon in the background says on its standard output once its socket accepts.
pub const READY: &str = "ready";

/// A connection to the daemon; if none runs, one is started, and it accepts when this returns. Its log goes to a file
/// beside the socket, and the keys of its SAs to `keylog`, if there is one.
///
/// # Errors
/// It cannot be reached, does not start, or runs without that key log.
pub fn connect_or_start(global: &Global, keylog: Option<&Path>) -> Result<Client, CliError> {
    if let Some(client) = connect(global, keylog)? {
        return Ok(client);
    }
    if let Some(dir) = global.socket.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
            let dir = dir.display();
            let what = format!(
                "cannot make {dir} for the control socket (--socket says where else it may be)"
            );
            CliError::Io(what, error)
        })?;
    }
    // Of several that start at a time, one starts the daemon and the others find it.
    let lock_path = global.socket.with_extension("lock");
    let lock = private(&lock_path)?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| CliError::Io(lock_path.display().to_string(), error.into()))?;
    if let Some(client) = connect(global, keylog)? {
        return Ok(client);
    }
    start(global, keylog)?;
    Ok(Client::connect(&global.socket)?)
}

/// A connection to the daemon that runs. It writes keys where it was told to when it started, and nowhere else.
fn connect(global: &Global, keylog: Option<&Path>) -> Result<Option<Client>, CliError> {
    let connect = || match Client::connect(&global.socket) {
        Err(ClientError::NotRunning(_)) => Ok(None),
        other => other.map(Some),
    };
    if let (Some(wanted), Some(client)) = (keylog, connect()?) {
        let status = client.ask(Ask::Status { peer: None }, |_| {})?;
        let is_same = |dir: &Path| super::absolute(dir).is_ok_and(|dir| dir == wanted);
        if !matches!(status, Body::Status(status) if status.keylog.as_deref().is_some_and(is_same))
        {
            let why = "one runs already, and not with this --keylog; take it down first";
            return Err(CliError::Start(why.to_owned()));
        }
    }
    Ok(connect()?)
}

fn start(global: &Global, keylog: Option<&Path>) -> Result<(), CliError> {
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
    command.arg("--offload").arg(global.offload.name());
    command.arg("--workers").arg(global.workers.to_string());
    command.arg("--log-format").arg(global.log_format.name());
    if let Some(filter) = &global.log {
        command.arg("--log").arg(filter);
    }
    let mut child = command
        .args(["daemon", "--background-of-up"])
        .args(keylog.into_iter().flat_map(|dir| [OsStr::new("--keylog"), dir.as_os_str()]))
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
