//! Captures: the packets themselves, on their way to a client.
//!
//! As in a trace a worker never waits, and what does not fit into the queue is left out and counted.

use core::sync::atomic::{AtomicU64, Ordering};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use base64ct::{Base64, Encoding};
use tokio::sync::mpsc;

use super::jobs::Reply;
use super::trace::Listening;
use super::worker::Shared;
use crate::control::capture::{Frame, Frames, Wanted};
use crate::control::protocol::Body;
use crate::datapath::filter::Filter;
use crate::datapath::tap::{Record, Tracer};
use crate::io::clock;

/// Packets that wait for a client: at most 64 MiB, of the longest there are.
const QUEUE: usize = 1024;
/// Packets in a line of the answer.
const LINE: usize = 16;

/// A packet, and what became of it.
struct Caught {
    time_us: u64,
    outer: bool,
    comment: String,
    data: Box<[u8]>,
}

/// Sends packets to a client until it is gone, or has as many as it wants. The first line has none: from then on nothing
/// is missed.
pub async fn follow(
    shared: Arc<Shared>,
    filter: Filter,
    wanted: &Wanted,
    keylog: Option<PathBuf>,
    reply: Reply,
) {
    let (queue, mut caught) = mpsc::channel(QUEUE);
    let net = Arc::new(Net {
        filter,
        inner: wanted.inner,
        outer: wanted.outer,
        shared: Arc::clone(&shared),
        queue,
        left_out: AtomicU64::new(0),
    });
    let _listening = Listening::to(shared, Arc::<Net>::clone(&net));
    let first = Frames { keylog, ..Frames::default() };
    if reply.send(Body::Captured(first)).await.is_err() {
        return;
    }
    let mut left = wanted.count.unwrap_or(u64::MAX);
    while left > 0 {
        let mut line = Vec::new();
        let most = usize::try_from(left).unwrap_or(LINE).min(LINE);
        tokio::select! {
            _some = caught.recv_many(&mut line, most) => {}
            () = reply.closed() => return,
        }
        left -= line.len() as u64;
        let frames = line.into_iter().map(|it| Frame {
            time_us: it.time_us,
            outer: it.outer,
            comment: it.comment,
            data: Base64::encode_string(&it.data),
        });
        let left_out = net.left_out.swap(0, Ordering::Relaxed);
        let frames = Frames { frames: frames.collect(), left_out, keylog: None };
        if reply.send(Body::Captured(frames)).await.is_err() {
            return;
        }
        // The driver shares this thread.
        tokio::task::yield_now().await;
    }
    let _gone = reply.send(Body::Done).await;
}

struct Net {
    filter: Filter,
    inner: bool,
    outer: bool,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Caught>,
    left_out: AtomicU64,
}

impl Net {
    fn put(&self, outer: bool, comment: &str, data: &[u8]) {
        let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.queue.try_reserve() {
            Ok(place) => place.send(Caught {
                time_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
                outer,
                comment: comment.to_owned(),
                data: data.into(),
            }),
            Err(_full) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Tracer for Net {
    fn take(&self, record: &Record<'_>) {
        let names = self.shared.names.load();
        if !self.filter.matches(record, |policy| names.get(policy)) {
            return;
        }
        let comment = comment_of(record, record.policy.and_then(|policy| names.get(policy)));
        if self.inner && !record.inner.is_empty() {
            self.put(false, &comment, record.inner);
        }
        if self.outer {
            record.outer.for_each(|packet| self.put(true, &comment, packet));
        }
    }

    fn wants_packets(&self) -> bool {
        true
    }
}

/// `outbound protect site-b/lan 0xc0ffee02`, `inbound drop icv-mismatch 0xc0ffee01`.
fn comment_of(record: &Record<'_>, names: Option<(&str, &str)>) -> String {
    let mut parts = vec![record.direction.name().to_owned(), record.verdict.name().to_owned()];
    parts.extend(record.verdict.reason().map(|reason| reason.name().to_owned()));
    match (names, &record.peer) {
        (Some((peer, child)), _) => parts.push(format!("{peer}/{child}")),
        (None, Some(peer)) => parts.push(peer.to_string()),
        (None, None) => {}
    }
    parts.extend(record.spi.map(|spi| spi.to_string()));
    parts.join(" ")
}
