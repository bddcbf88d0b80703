//! Who reads metrics: `GET /metrics`, `/livez` and `/readyz` over HTTP, on an address or a Unix socket. It asks the driver,
//! and has nothing of its own to tell.

use core::convert::Infallible;
use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Snapshot;
use crate::control::server::bind_private;

/// Connections at a time. One more ends the oldest, so that nobody keeps others out by being slow.
const MAX_CLIENTS: usize = 16;
/// Time for a client to send the head of a request, and for the driver to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last, whatever is done on it.
const LONGEST: Duration = Duration::from_secs(120);
/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where metrics are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Here.
    Tcp(SocketAddr),
    /// At this path.
    Unix(PathBuf),
}

/// An address that is none.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is neither ADDRESS:PORT, such as 127.0.0.1:9814, nor unix:/PATH")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(BadAddress(text.to_owned())),
            None => text.parse().map(Self::Tcp).map_err(|_| BadAddress(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Whether only who is on this host can read there.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// What the driver is asked.
#[derive(Debug)]
pub enum Question {
    /// Every value.
    Metrics(oneshot::Sender<Snapshot>),
    /// Whether it takes peers and packets.
    Ready(oneshot::Sender<bool>),
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// On an address.
    Tcp(TcpListener),
    /// At a path, which is removed in the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens, within a tokio runtime. A Unix socket that nobody listens on is replaced.
    ///
    /// # Errors
    /// Those of bind(2) and of the file system.
    pub async fn listen(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Address::Unix(path) => {
                match std::os::unix::net::UnixStream::connect(path) {
                    Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        std::fs::remove_file(path)?;
                    }
                    // Anything else, bind(2) says better.
                    Err(_) => {}
                }
                Ok(Self::Unix(bind_private(path)?, path.clone()))
            }
        }
    }

    /// Serves until it is dropped.
    pub async fn serve(self, driver: mpsc::Sender<Question>) {
        let mut clients = VecDeque::with_capacity(MAX_CLIENTS);
        loop {
            let driver = driver.clone();
            let accepted = match &self {
                Self::Tcp(listener) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, _)| tokio::spawn(connection(stream, driver)))
                }
                Self::Unix(listener, _) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, _)| tokio::spawn(connection(stream, driver)))
                }
            };
            match accepted {
                Ok(client) => {
                    clients.retain(|client: &AbortHandle| !client.is_finished());
                    if clients.len() >= MAX_CLIENTS
                        && let Some(oldest) = clients.pop_front()
                    {
                        oldest.abort();
                    }
                    clients.push_back(client.abort_handle());
                }
                Err(error) => {
                    // Out of descriptors, mostly: nothing to do but to let some go.
                    tracing::warn!(%error, "cannot accept a reader of metrics");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self
            && let Err(error) = std::fs::remove_file(&*path)
        {
            tracing::debug!(%error, path = %path.display(), "metrics socket was gone already");
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, driver: mpsc::Sender<Question>) {
    let service = service_fn(|request| answer(request, &driver));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(LONGEST, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a reader of metrics"),
        Err(_) => tracing::debug!("a reader of metrics took too long"),
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(
    request: Request<Incoming>,
    driver: &mpsc::Sender<Question>,
) -> Result<Answer, Infallible> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        let _none = answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(answer);
    }
    Ok(match request.uri().path() {
        "/metrics" => metrics(&request, driver).await,
        // It answers at all.
        "/livez" => match ask(driver, Question::Ready).await {
            Some(_) => text(StatusCode::OK, "ok"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer"),
        },
        "/readyz" => match ask(driver, Question::Ready).await {
            Some(true) => text(StatusCode::OK, "ok"),
            Some(false) => text(StatusCode::SERVICE_UNAVAILABLE, "starting or ending"),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer"),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz"),
    })
}

async fn metrics(request: &Request<Incoming>, driver: &mpsc::Sender<Question>) -> Answer {
    let Some(snapshot) = ask(driver, Question::Metrics).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer");
    };
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let open = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
    let written = if open { snapshot.open_metrics() } else { snapshot.plain() };
    match written {
        Ok(body) => with(StatusCode::OK, body, if open { OPEN_METRICS } else { PLAIN }),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What the driver says; `None` if it does not within [`PATIENCE`].
async fn ask<T>(
    driver: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    timeout(PATIENCE, async {
        driver.send(question(sender)).await.ok()?;
        answer.await.ok()
    })
    .await
    .ok()
    .flatten()
}

fn text(status: StatusCode, body: &str) -> Answer {
    with(status, format!("{body}\n"), "text/plain; charset=utf-8")
}

fn with(status: StatusCode, body: String, content_type: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let _none = answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::metrics::HALF_OPEN;

    #[test]
    fn addresses_are_ports_or_paths_and_know_whether_they_are_local() {
        for (text, local) in [
            ("127.0.0.1:9814", true),
            ("[::1]:9814", true),
            ("[::ffff:127.0.0.1]:9814", true),
            ("unix:/run/ipsecd/metrics.sock", true),
            ("0.0.0.0:9814", false),
            ("[::]:9814", false),
            ("192.0.2.1:9814", false),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_local(), local, "{text}");
        }
        for text in ["", "9814", "localhost:9814", "unix:", "unix:metrics.sock", "127.0.0.1"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("127.0.0.1:9814"), "{error}");
        }
    }

    /// What comes back for `request`, with a driver that is `ready` or, with `None`, silent.
    fn exchange(request: &'static str, ready: Option<bool>) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = Listener::listen(&Address::Unix(path.clone())).await.unwrap();
            let (driver, mut questions) = mpsc::channel(1);
            let serving = tokio::spawn(listener.serve(driver));
            tokio::spawn(async move {
                while let Some(question) = questions.recv().await {
                    match question {
                        Question::Metrics(answer) => {
                            let mut snapshot = Snapshot::default();
                            snapshot.add(HALF_OPEN, &[], 3);
                            answer.send(snapshot).unwrap();
                        }
                        Question::Ready(answer) => {
                            if let Some(ready) = ready {
                                answer.send(ready).unwrap();
                            }
                        }
                    }
                }
            });
            // Many who have begun to ask, and go on some day.
            let mut slow = Vec::new();
            for _ in 0..3 * MAX_CLIENTS {
                let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
                stream.write_all(b"GET /livez").await.unwrap();
                slow.push(stream);
            }
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut got = String::new();
            stream.read_to_string(&mut got).await.unwrap();
            // The oldest had to make room.
            assert_eq!(slow[0].read(&mut [0]).await.unwrap(), 0);
            serving.abort();
            let _cancelled = serving.await;
            assert!(!path.exists(), "the socket goes with who listens");
            got
        })
    }

    #[test]
    fn format_is_the_one_that_the_reader_asks_for() {
        let plain = exchange("GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", None);
        assert!(plain.starts_with("HTTP/1.1 200"), "{plain}");
        assert!(plain.contains("version=0.0.4") && plain.contains("ipsecd_ike_half_open 3"));
        let open = exchange(
            "GET /metrics HTTP/1.1\r\nhost: a\r\naccept: application/openmetrics-text;version=1.0.0;q=0.9,*/*;q=0.1\r\nconnection: close\r\n\r\n",
            None,
        );
        assert!(
            open.contains("application/openmetrics-text") && open.ends_with("# EOF\n"),
            "{open}"
        );
    }

    #[test]
    fn probes_tell_life_from_readiness() {
        let get = |path, ready| {
            let request: &'static str = match path {
                "/livez" => "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
                "/readyz" => "GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
                _ => "POST /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            };
            exchange(request, ready)[9..12].to_owned()
        };
        assert_eq!(get("/livez", Some(false)), "200");
        assert_eq!(get("/readyz", Some(true)), "200");
        assert_eq!(get("/readyz", Some(false)), "503");
        assert_eq!(get("/livez", None), "503", "a driver that drops the question is none");
        assert_eq!(get("/metrics", None), "405");
    }
}
