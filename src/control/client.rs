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
    path: PathBuf,
    /// [`PATIENCE`].
    patience: Duration,
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
            Ok(stream) => Ok(Self { stream, path: path.to_owned(), patience: PATIENCE }),
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
        let silence = self.silence(&ask);
        self.stream.set_read_timeout(silence)?;
        let at_once = ask.is_known_at_once();
        match self.stream.write_all(&to_line(&Request::new(ask))?) {
            // It has hung up; what it said before is still to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            sent => sent?,
        }
        let mut lines = BufReader::new(self.stream);
        let mut line = Vec::new();
        loop {
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => return Err(ClientError::Ended),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ClientError::Ended);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if at_once {
                        return Err(ClientError::Silent);
                    }
                    // The answer may take long; that the daemon lives, it says at once.
                    probe(&self.path, self.patience)?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let reply: Reply = serde_json::from_slice(&line)?;
            line.clear();
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

impl Client {
    /// How long the daemon may say nothing before it is to be doubted; `None`: for ever.
    fn silence(&self, ask: &Ask) -> Option<Duration> {
        match ask {
            Ask::Capture(_) | Ask::Trace { .. } => None,
            Ask::Up { timeout_ms, .. } => {
                Some(self.patience.saturating_add(Duration::from_millis(*timeout_ms)))
            }
            Ask::Down { .. }
            | Ask::Explain(_)
            | Ask::Rekey { .. }
            | Ask::Reload { .. }
            | Ask::Services { .. }
            | Ask::Shutdown
            | Ask::Status { .. } => Some(self.patience),
        }
    }
}

/// Whether the daemon answers at all. One that is about to end has no socket any more.
fn probe(path: &Path, patience: Duration) -> Result<(), ClientError> {
    // No peer has this name, so that there is little to say.
    let nobody = Ask::Status { peer: Some(String::new()) };
    let answer =
        Client::connect(path).and_then(|client| Client { patience, ..client }.ask(nobody, |_| {}));
    match answer {
        Ok(_) | Err(ClientError::Refused(_) | ClientError::Ended | ClientError::NotRunning(_)) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// No socket, or nobody behind it.
fn is_unheard(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::control::protocol::{Code, Target};

    /// A client of a daemon that does with each connection, in turn, what `serve` does.
    fn client(serve: impl FnMut(UnixStream) + Send + 'static) -> (tempfile::TempDir, Client) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || listener.incoming().map(Result::unwrap).for_each(serve));
        let client = Client::connect(&path).unwrap();
        (dir, Client { patience: Duration::from_millis(50), ..client })
    }

    fn down() -> Ask {
        Ask::Down { target: Target::All }
    }

    /// Reads the question, as a daemon does before anything else.
    fn read(stream: &UnixStream) {
        BufReader::new(stream).read_line(&mut String::new()).unwrap();
    }

    fn write(mut stream: &UnixStream, body: Body) {
        stream.write_all(&to_line(&Reply { ipsecd: VERSION, reply: body }).unwrap()).unwrap();
    }

    #[test]
    fn a_daemon_that_hangs_is_not_waited_for() {
        let mut held = Vec::new();
        let (_dir, client) = client(move |stream| held.push(stream));
        assert!(matches!(client.ask(down(), |_| {}), Err(ClientError::Silent)));
    }

    #[test]
    fn an_answer_that_takes_long_is_waited_for_while_the_daemon_lives() {
        let mut first = None;
        let (_dir, client) = client(move |stream| match first.take() {
            None => {
                read(&stream);
                // Half an answer, which is not lost by the wait.
                let line = to_line(&Reply { ipsecd: VERSION, reply: Body::Down { peers: vec![] } });
                let line = line.unwrap();
                (&stream).write_all(&line[..9]).unwrap();
                first = Some((stream, line));
            }
            // The client has become impatient.
            Some((waiting, line)) => {
                read(&stream);
                let failure = Failure { code: Code::NotFound, message: "none".to_owned() };
                write(&stream, Body::Error(failure));
                (&waiting).write_all(&line[9..]).unwrap();
            }
        });
        assert_eq!(client.ask(down(), |_| {}).unwrap(), Body::Down { peers: vec![] });
    }

    #[test]
    fn a_daemon_that_hangs_up_has_ended_whenever_it_does_so() {
        let (hung_up, is_hung_up) = std::sync::mpsc::channel();
        let (_dir, client) = client(move |stream| {
            drop(stream);
            hung_up.send(()).unwrap();
        });
        is_hung_up.recv().unwrap();
        assert!(matches!(client.ask(down(), |_| {}), Err(ClientError::Ended)));
    }

    #[test]
    fn what_a_daemon_says_before_it_hangs_up_is_heard() {
        let (hung_up, is_hung_up) = std::sync::mpsc::channel();
        let (_dir, client) = client(move |stream| {
            write(&stream, Body::Down { peers: vec![] });
            drop(stream);
            hung_up.send(()).unwrap();
        });
        is_hung_up.recv().unwrap();
        assert_eq!(client.ask(down(), |_| {}).unwrap(), Body::Down { peers: vec![] });
    }

    #[test]
    fn up_may_take_its_time_and_a_trace_any() {
        let (_dir, client) = client(drop);
        let up = |timeout_ms| Ask::Up { files: Vec::new(), timeout_ms, keep: false };
        assert_eq!(client.silence(&up(2_000)), Some(Duration::from_millis(2_050)));
        assert_eq!(client.silence(&up(u64::MAX)).map(|_| ()), Some(()));
        assert_eq!(client.silence(&down()), Some(Duration::from_millis(50)));
    }
}
