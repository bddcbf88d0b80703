//! [`Hold`]: packets that wait for an outbound SA (RFC 4301 §5.1 asks for one when the first comes), so that none is lost to
//! the making of it.
//!
//! Owned by whoever calls [`Datapath::outbound_batch`], which gives it what waits; bounded in packets, bytes and time.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::{Datapath, DropReason, PacketBuf};
use crate::ipsec::{Action, PolicyId, Worker};

/// Packets that wait under one policy. The first of many matter most: later ones are sent again by whoever wants an answer.
pub const MAX_HELD_PACKETS: usize = 64;
/// Bytes that wait under one policy: 64 full packets.
pub const MAX_HELD_BYTES: usize = 96 * 1024;
/// Bytes that wait in all.
pub const MAX_HELD_TOTAL: usize = 16 * 1024 * 1024;
/// A packet waits no longer: IKE has sent its request several times by then, and nobody expects the packet any more.
pub const HOLD_TIME: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct Hold {
    waiting: BTreeMap<PolicyId, Line>,
    total: usize,
    /// `total` may be no more.
    most: usize,
}

impl Default for Hold {
    fn default() -> Self {
        Self::of(Worker::ALONE)
    }
}

/// What waits under one policy, the oldest first.
#[derive(Debug, Default)]
struct Line {
    packets: VecDeque<(Instant, Box<[u8]>)>,
    bytes: usize,
}

impl Hold {
    /// For a worker: several share what may wait in all.
    #[must_use]
    pub fn of(worker: Worker) -> Self {
        let most = MAX_HELD_TOTAL / usize::from(worker.of());
        Self { waiting: BTreeMap::new(), total: 0, most }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a packet in; one that there is no room for is dropped and counted.
    pub fn put(&mut self, now: Instant, datapath: &Datapath, policy: PolicyId, packet: &[u8]) {
        self.expire(now, datapath);
        let line = self.waiting.entry(policy).or_default();
        let fits = line.packets.len() < MAX_HELD_PACKETS
            && line.bytes + packet.len() <= MAX_HELD_BYTES
            && self.total + packet.len() <= self.most;
        if fits {
            line.bytes += packet.len();
            self.total += packet.len();
            line.packets.push_back((now, packet.into()));
        } else {
            datapath.count_drop(DropReason::NoOutboundSa, policy, packet);
            if line.packets.is_empty() {
                self.waiting.remove(&policy);
            }
        }
    }

    /// Fills `packets` with packets whose policy has an outbound SA, each policy's in order, and says how many there are. More may
    /// wait if there are as many as `packets`.
    pub fn take_ready(&mut self, datapath: &Datapath, packets: &mut [PacketBuf]) -> usize {
        let mut count = 0;
        for (policy, line) in &mut self.waiting {
            if !datapath.sad().has_outbound(*policy) {
                continue;
            }
            while let Some(buf) = packets.get_mut(count)
                && let Some((_, packet)) = line.packets.pop_front()
            {
                line.bytes -= packet.len();
                self.total -= packet.len();
                if buf.fill_from(&packet) {
                    count += 1;
                }
            }
        }
        self.waiting.retain(|_, line| !line.packets.is_empty());
        count
    }

    /// Drops what waits under a policy since `failed_at` or longer: no SA came of it.
    pub fn abandon(&mut self, datapath: &Datapath, policy: PolicyId, failed_at: Instant) {
        self.drop_while(datapath, DropReason::AcquireFailed, |id, at| {
            id == policy && at <= failed_at
        });
    }

    /// Drops what has waited for too long, or under a policy that is gone.
    pub fn expire(&mut self, now: Instant, datapath: &Datapath) {
        self.drop_while(datapath, DropReason::AcquireLate, |_, at| at + HOLD_TIME <= now);
        let entries = datapath.spd().entries();
        self.drop_while(datapath, DropReason::NoPolicy, |policy, _| {
            !entries.iter().any(|entry| entry.action == Action::Protect(policy))
        });
    }

    /// Drops those at the front of each line that are to go.
    fn drop_while(
        &mut self,
        datapath: &Datapath,
        reason: DropReason,
        goes: impl Fn(PolicyId, Instant) -> bool,
    ) {
        for (policy, line) in &mut self.waiting {
            while line.packets.front().is_some_and(|(at, _)| goes(*policy, *at)) {
                let Some((_, packet)) = line.packets.pop_front() else { break };
                line.bytes -= packet.len();
                self.total -= packet.len();
                datapath.count_drop(reason, *policy, &packet);
            }
        }
        self.waiting.retain(|_, line| !line.packets.is_empty());
    }
}
