//! The calling end, blocking: one request a connection.

use core::ops::ControlFlow;
use core::time::Duration;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::protocol::{Ask, Body, Failure, Progress, Reply, Request, VERSION, to_line};

/// How long the answer to what a daemon knows at once may take: a busy one has ten thousand peers to tell of.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon is listening on {0}")]
    NotRunning(PathBuf),
    /// The socket is not for us.
    #[error("no permission to use {0}: run it as root")]
    NoPermission(PathBuf),
    /// The connection failed.
    #[error("cannot talk to the daemon: {0}")]
    Io(#[from] io::Error),
    /// What came is none of our protocol.
    #[error("the daemon's answer is not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version answers.
    #[error("the daemon speaks version {0} of the protocol, and {VERSION} is spoken here")]
    Version(u32),
    /// Nothing came of what is known at once.
    #[error("the daemon does not answer (waited {} s): it is stopped or hangs; see its log", PATIENCE.as_secs())]
    Silent,
    /// The connection ended before the last answer.
    #[error("the daemon ended without an answer")]
    Ended,
    /// The daemon says no.
    #[error("{0}")]
    Refused(#[from] Failure),
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] if nobody listens there, and those of the socket.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        super::fits_a_socket(path)?;
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self { stream }),
            Err(error) => Err(if is_unheard(&error) {
                ClientError::NotRunning(path.to_owned())
            } else if error.kind() == io::ErrorKind::PermissionDenied {
                ClientError::NoPermission(path.to_owned())
            } else {
                error.into()
            }),
        }
    }

    /// Asks, hands every step to `progress`, and returns the last answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what the daemon says against it; the others if there is no answer.
    pub fn ask(self, ask: Ask, mut progress: impl FnMut(Progress)) -> Result<Body, ClientError> {
        let body = self.follow(ask, |body| {
            if let Body::Progress(step) = body {
                progress(step);
            }
            ControlFlow::Continue(())
        })?;
        body.ok_or(ClientError::Ended)
    }

    /// Asks, hands everything but the last answer to `more`, and returns that; `None` if `more` has enough before.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn follow(
        mut self,
        ask: Ask,
        mut more: impl FnMut(Body) -> ControlFlow<()>,
    ) -> Result<Option<Body>, ClientError> {
        if ask.is_known_at_once() {
            self.stream.set_read_timeout(Some(PATIENCE))?;
        }
        self.stream.write_all(&to_line(&Request::new(ask))?)?;
        let mut lines = BufReader::new(self.stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => return Err(ClientError::Ended),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ClientError::Ended);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ClientError::Silent);
                }
                Err(error) => return Err(error.into()),
            }
            let reply: Reply = serde_json::from_slice(&line)?;
            if reply.ipsecd != VERSION {
                return Err(ClientError::Version(reply.ipsecd));
            }
            let body = reply.reply;
            if let Body::Error(failure) = body {
                return Err(failure.into());
            }
            if body.is_last() {
                return Ok(Some(body));
            }
            if more(body).is_break() {
                return Ok(None);
            }
        }
    }
}

/// No socket, or nobody behind it.
fn is_unheard(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
