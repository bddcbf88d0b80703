//! Traces: what the workers tell of packets, on its way to a client.
//!
//! A worker never waits for a client: what does not fit into the queue is left out and counted. A trace ends with its
//! client, and then nobody listens any more.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tokio::sync::mpsc;

use super::jobs::Reply;
use super::status::ends;
use super::worker::Shared;
use crate::control::protocol::Body;
use crate::control::trace::{Packet, Packets};
use crate::datapath::filter::Filter;
use crate::datapath::probe::Probe;
use crate::datapath::tap::{Record, Tracer};
use crate::io::clock;

/// Packets that wait for a client.
const QUEUE: usize = 4096;
/// Packets in a line of the answer.
const LINE: usize = 64;

/// Sends packets to a client until it is gone, or has as many as it wants. The first line is empty: from then on
/// nothing is missed.
pub async fn follow(shared: Arc<Shared>, filter: Filter, count: Option<u64>, reply: Reply) {
    let (queue, mut packets) = mpsc::channel(QUEUE);
    let stream = Arc::new(Stream {
        filter,
        shared: Arc::clone(&shared),
        queue,
        left_out: AtomicU64::new(0),
    });
    let _listening = Listening::to(shared, Arc::<Stream>::clone(&stream));
    if reply.send(Body::Trace(Packets::default())).await.is_err() {
        return;
    }
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let mut line = Vec::new();
        let most = usize::try_from(left).unwrap_or(LINE).min(LINE);
        tokio::select! {
            _some = packets.recv_many(&mut line, most) => {}
            () = reply.closed() => return,
        }
        left -= line.len() as u64;
        let left_out = stream.left_out.swap(0, Ordering::Relaxed);
        if reply.send(Body::Trace(Packets { packets: line, left_out })).await.is_err() {
            return;
        }
        // The driver shares this thread.
        tokio::task::yield_now().await;
    }
    let _gone = reply.send(Body::Done).await;
}

/// Listens until it is dropped.
pub(super) struct Listening {
    shared: Arc<Shared>,
    tracer: Arc<dyn Tracer>,
}

impl Listening {
    pub(super) fn to(shared: Arc<Shared>, tracer: Arc<dyn Tracer>) -> Self {
        shared.datapath.load().tap().add(Arc::clone(&tracer));
        Self { shared, tracer }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.shared.datapath.load().tap().remove(&self.tracer);
    }
}

struct Stream {
    filter: Filter,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Packet>,
    left_out: AtomicU64,
}

impl Tracer for Stream {
    fn take(&self, record: &Record<'_>) {
        let names = self.shared.names.load();
        if !self.filter.matches(record, |policy| names.get(policy)) {
            return;
        }
        match self.queue.try_reserve() {
            Ok(place) => place.send(packet_of(record, record.policy.and_then(|id| names.get(id)))),
            Err(_full) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn packet_of(record: &Record<'_>, names: Option<(&str, &str)>) -> Packet {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reason = record.verdict.reason();
    let (local, remote) = record.path.map(ends).unzip();
    let peer = record.peer.as_deref().or(names.map(|(peer, _)| peer));
    Packet {
        time_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
        direction: record.direction.name().to_owned(),
        verdict: record.verdict.name().to_owned(),
        reason: reason.map(|reason| reason.name().to_owned()),
        text: reason.map(|reason| reason.text().to_owned()),
        packet: record.flow.map(|flow| Probe { flow }.to_string()),
        size: record.len,
        peer: peer.map(str::to_owned),
        child: names.map(|(_, child)| child.to_owned()),
        spi: record.spi.map(|spi| spi.to_string()),
        local,
        remote,
        wire_packets: record.packets,
        wire_bytes: record.wire_len,
    }
}
