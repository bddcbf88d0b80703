//! Requests of clients that take longer than a moment: what they wait for, and what they will be told.

use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::control::protocol::{Body, Failure, Progress, UpPhase, UpResult, UpState};

/// The client's end.
pub type Reply = mpsc::Sender<Body>;

/// `up`.
#[derive(Debug)]
pub struct Up {
    /// Number of the job.
    pub id: u64,
    /// Who waits.
    pub reply: Reply,
    /// When it began.
    pub began: Instant,
    /// When it ends at the latest.
    pub deadline: Instant,
    /// Whether peers that fail are kept.
    pub keep: bool,
    /// One a file, in order.
    pub peers: Vec<UpPeer>,
}

/// One peer of `up`.
#[derive(Debug)]
pub struct UpPeer {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it was unknown before.
    pub new: bool,
    /// How it ended, once it has.
    pub result: Option<UpResult>,
    /// It failed and is being taken down again; the client hears of it once that is done.
    pub leaving: bool,
}

/// `down`.
#[derive(Debug)]
pub struct Down {
    /// Who waits.
    pub reply: Reply,
    /// Every peer that it takes down.
    pub peers: Vec<Arc<str>>,
}

/// `rekey`.
#[derive(Debug)]
pub struct Rekey {
    /// Who waits.
    pub reply: Reply,
    /// The peer.
    pub peer: Arc<str>,
    /// The IKE SA, and not its CHILD_SAs.
    pub ike: bool,
    /// How many replacements are still to come.
    pub left: usize,
    /// When it ends at the latest.
    pub deadline: Instant,
}

impl Up {
    /// Shows a step of `peer`, if the client waits for it. A client that does not read misses steps, and no more.
    pub fn show(&self, peer: &Arc<str>, phase: UpPhase, detail: &str) {
        if self.peers.iter().any(|waiting| waiting.name == *peer && waiting.result.is_none()) {
            let peer = peer.to_string();
            let step = Progress { peer, phase, detail: detail.to_owned() };
            let _missed = self.reply.try_send(Body::Progress(step));
        }
    }

    /// Whether everything is known and nothing still leaves.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.peers.iter().all(|peer| peer.result.is_some() && !peer.leaving)
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self) -> Body {
        Body::Up { peers: self.peers.iter().filter_map(|peer| peer.result.clone()).collect() }
    }

    /// How long it has taken.
    #[must_use]
    pub fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

impl UpPeer {
    /// It ended so.
    pub fn end(&mut self, state: UpState, error: Option<Failure>) {
        self.result = Some(UpResult { peer: self.name.to_string(), state, error });
    }
}
