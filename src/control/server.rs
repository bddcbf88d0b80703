//! The listening end: a Unix socket for its owner alone. It reads one request a connection, within bounds, hands it to
//! the driver and writes what the driver answers.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::protocol::{Ask, Body, Code, Failure, MAX_LINE, Reply, Request, to_line};

/// Clients served at a time; `status --watch` needs a connection a refresh, `up` one while it waits.
const MAX_CLIENTS: usize = 64;
/// Clients that wait to be served, before connecting waits.
const BACKLOG: i32 = 64;
/// Time for a client to send its request, and to take a line of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers that may wait for a client.
const QUEUE: usize = 64;

/// A request, and where its answers go. Dropping `reply` without a last answer ends the connection.
#[derive(Debug)]
pub struct Incoming {
    /// What is wanted.
    pub ask: Ask,
    /// Takes the answers. Closed once the client is gone, or has the last one.
    pub reply: mpsc::Sender<Body>,
}

/// The listening socket. Removed when dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens on `path`, for this user alone, within a tokio runtime. The directory is made (mode 0700) if it is
    /// missing, a socket that nobody listens on is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if somebody listens there, `InvalidInput` if the path is too long; those of the file system.
    pub fn listen(path: &Path, requests: mpsc::Sender<Incoming>) -> io::Result<Self> {
        super::fits_a_socket(path)?;
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        match StdUnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        }
        let listener = bind_private(path)?;
        let accepting = tokio::spawn(accept(listener, requests));
        Ok(Self { path: path.to_owned(), accepting })
    }
}

/// A listening socket that never was anybody else's, not even for a moment.
///
/// # Errors
/// Those of bind(2).
pub fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the mode that the socket has when it is bound.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(OwnedFd::from(socket).into())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "control socket was gone already");
        }
    }
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Incoming>) {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                tokio::spawn(async move {
                    serve(stream, requests).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: nothing to do but to let some go.
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, requests: mpsc::Sender<Incoming>) {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == geteuid().as_raw() => {}
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "control connection of another user refused");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "control connection without credentials refused");
            return;
        }
    }
    let ask = match timeout(PATIENCE, read_request(&mut stream)).await {
        Ok(Ok(Some(request))) => request.ask(),
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(failure)) => {
            let _gone = write(&mut stream, Body::Error(failure)).await;
            return;
        }
    };
    let (reply, mut answers) = mpsc::channel(QUEUE);
    if requests.send(Incoming { ask, reply }).await.is_err() {
        return;
    }
    let mut end = [0; 1];
    loop {
        tokio::select! {
            answer = answers.recv() => {
                let Some(body) = answer else { return };
                let last = body.is_last();
                if write(&mut stream, body).await.is_err() || last {
                    return;
                }
            }
            // A client has nothing more to say: whatever comes, even the end, ends the connection.
            _ = stream.read(&mut end) => return,
        }
    }
}

impl Request {
    fn ask(self) -> Ask {
        self.request
    }
}

/// `None` if the client has left.
async fn read_request(stream: &mut UnixStream) -> Result<Option<Request>, Failure> {
    let mut line = Vec::new();
    let mut limited = BufReader::new(stream.take(MAX_LINE as u64 + 1));
    match limited.read_until(b'\n', &mut line).await {
        Ok(0) | Err(_) => Ok(None),
        Ok(_) if line.len() > MAX_LINE => Err(Failure {
            code: Code::BadRequest,
            message: format!("the request is longer than {MAX_LINE} bytes"),
        }),
        Ok(_) => Request::from_line(&line).map(Some),
    }
}

async fn write(stream: &mut UnixStream, body: Body) -> io::Result<()> {
    let line = to_line(&Reply::from(body))?;
    timeout(PATIENCE, stream.write_all(&line)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader as StdBufReader, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::control::client::{Client, ClientError};
    use crate::control::protocol::{Progress, UpPhase};

    /// Runs `client` in a thread of its own against a server whose driver is `answer`.
    fn with_server<T: Send + 'static>(
        answer: impl Fn(Ask) -> Vec<Body> + 'static,
        client: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("control.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (requests, mut incoming) = mpsc::channel(4);
            let server = Server::listen(&path, requests).unwrap();
            let client_path = path.clone();
            let client = tokio::task::spawn_blocking(move || client(&client_path));
            tokio::pin!(client);
            let result = loop {
                tokio::select! {
                    result = &mut client => break result.unwrap(),
                    Some(Incoming { ask, reply }) = incoming.recv() => {
                        for body in answer(ask) {
                            reply.send(body).await.unwrap();
                        }
                    }
                }
            };
            drop(server);
            assert!(!path.exists(), "the socket is removed with the server");
            result
        })
    }

    fn raw(path: &Path, request: &[u8]) -> Vec<String> {
        let mut stream = StdUnixStream::connect(path).unwrap();
        // The server may answer, and hang up, before it has read everything.
        let _refused = stream.write_all(request);
        StdBufReader::new(stream).lines().map_while(Result::ok).collect()
    }

    #[test]
    fn request_reaches_the_driver_and_answers_come_back_in_order() {
        let (seen, body) = with_server(
            |ask| {
                assert_eq!(ask, Ask::Shutdown);
                let progress = |detail: &str| {
                    Body::Progress(Progress {
                        peer: "b".into(),
                        phase: UpPhase::Resolve,
                        detail: detail.into(),
                    })
                };
                vec![progress("1"), progress("2"), Body::Done]
            },
            |path| {
                let mut seen = Vec::new();
                let client = Client::connect(path).unwrap();
                let body =
                    client.ask(Ask::Shutdown, |progress| seen.push(progress.detail)).unwrap();
                (seen, body)
            },
        );
        assert_eq!(seen, ["1", "2"]);
        assert_eq!(body, Body::Done);
    }

    #[test]
    fn socket_and_directory_are_the_owners_alone() {
        with_server(
            |_| vec![],
            |path| {
                let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
                assert_eq!(mode(path), 0o600);
                assert_eq!(mode(path.parent().unwrap()), 0o700);
            },
        );
    }

    #[test]
    fn endless_line_is_refused() {
        let lines = with_server(|_| vec![], |path| raw(path, &vec![b' '; MAX_LINE + 10]));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("longer than 1048576"), "{lines:?}");
    }

    #[test]
    fn junk_is_answered_and_the_connection_closed() {
        let lines = with_server(|_| vec![], |path| raw(path, b"{\"ipsecd\":1}\n"));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("bad_request"), "{lines:?}");
    }

    #[test]
    fn failure_comes_out_as_an_error() {
        let error = with_server(
            |_| vec![Body::Error(Failure { code: Code::NotFound, message: "no b".into() })],
            |path| Client::connect(path).unwrap().ask(Ask::Shutdown, |_| {}).unwrap_err(),
        );
        assert!(matches!(error, ClientError::Refused(Failure { code: Code::NotFound, .. })));
    }

    #[test]
    fn daemon_that_hangs_up_is_an_error() {
        let error = with_server(
            |_| vec![],
            |path| Client::connect(path).unwrap().ask(Ask::Shutdown, |_| {}).unwrap_err(),
        );
        assert!(matches!(error, ClientError::Ended), "{error}");
    }

    #[test]
    fn nobody_listening_is_not_running() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.sock");
        assert!(matches!(Client::connect(&missing), Err(ClientError::NotRunning(_))));
        let stale = dir.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(matches!(Client::connect(&stale), Err(ClientError::NotRunning(_))));
    }

    #[test]
    fn stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (requests, _incoming) = mpsc::channel(1);
            let _first = Server::listen(&path, requests.clone()).unwrap();
            let error = Server::listen(&path, requests).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        });
    }
}
