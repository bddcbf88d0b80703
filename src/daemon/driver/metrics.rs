//! What the driver has to tell those who read metrics.

use super::*;
use crate::config::Keying;
use crate::control::protocol::PeerState;
use crate::daemon::metrics::http::Question;
use crate::daemon::metrics::{self as family, Snapshot};
use crate::daemon::version;
use crate::io::process;
use crate::ipsec::DropReason;

/// What happened since the daemon was started, that nobody else counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Of IKE SAs, and of CHILD_SAs.
    pub(super) established: [u64; 2],
    pub(super) rekeys: [u64; 2],
    pub(super) rekeys_refused: [u64; 2],
    pub(super) dpd_timeouts: u64,
    pub(super) authentication_failures: u64,
    /// That were applied, and that were refused.
    pub(super) reloads: [u64; 2],
}

/// Labels of the pairs of [`Counts`].
const KINDS: [&str; 2] = ["ike", "child"];

const STATES: [PeerState; 5] = [
    PeerState::Connecting,
    PeerState::Deleting,
    PeerState::Retrying,
    PeerState::Up,
    PeerState::Waiting,
];

impl Driver {
    /// Answers, unless nobody waits any more.
    pub(super) fn hear_reader(&self, question: Question) {
        match question {
            Question::Metrics(answer) => drop(answer.send(self.snapshot())),
            Question::Ready(answer) => drop(answer.send(!self.ending)),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        let mut out = Snapshot::default();
        let labels = [
            ("version", version::VERSION),
            ("commit", version::COMMIT),
            ("features", version::FEATURES),
        ];
        out.add(family::BUILD_INFO, &labels, 1);
        let started = clock::wall() - now.saturating_duration_since(self.started);
        let since_1970 = started.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        out.add_float(family::START_TIME, &[], since_1970.as_secs_f64());
        if let Some(bytes) = process::resident_memory() {
            out.add(family::RESIDENT_MEMORY, &[], bytes);
        }
        if let Some(time) = process::cpu_time() {
            out.add_float(family::CPU, &[], time.as_secs_f64());
        }
        self.add_peers(&mut out, now);
        self.add_datapath(&mut out);
        self.add_ike(&mut out);
        out
    }

    fn add_peers(&self, out: &mut Snapshot, now: Instant) {
        let mut sas: BTreeMap<Arc<str>, Vec<SaStatus>> = BTreeMap::new();
        for sa in self.sas(now) {
            sas.entry(Arc::clone(&sa.peer)).or_default().push(sa);
        }
        let mut states = [0; STATES.len()];
        let peers = self.peers.iter().filter(|(_, entry)| entry.config.fixed().is_empty());
        for (name, entry) in peers {
            let sas = sas.get(name).map_or(&[][..], |sas| sas);
            let state = entry.state(sas);
            for (count, of) in states.iter_mut().zip(STATES) {
                *count += u64::from(of == state);
            }
            let peer = ("peer", &**name);
            out.add(family::TUNNEL_UP, &[peer], u64::from(state == PeerState::Up));
            out.add(family::TUNNEL_WANTED, &[peer], u64::from(entry.wants_up()));
            out.add(family::TUNNEL_RETRIES, &[peer], entry.failures);
            let mut by_state: BTreeMap<&str, u64> = BTreeMap::new();
            for sa in sas {
                *by_state.entry(sa.state).or_default() += 1;
            }
            for (state, count) in by_state {
                out.add(family::IKE_SAS, &[peer, ("state", &state.to_lowercase())], count);
            }
            let children = match &entry.config.keying {
                Keying::Ike(_) => sas.iter().map(|sa| sa.children.len()).sum(),
                Keying::Manual(_) => entry.installed.as_ref().map_or(0, |it| it.pairs.len()),
                Keying::None { .. } => 0,
            };
            out.add(family::CHILD_SAS, &[peer], u64::try_from(children).unwrap_or(u64::MAX));
        }
        for (state, count) in STATES.iter().zip(states) {
            out.add(family::TUNNELS, &[("state", state.name())], count);
        }
    }

    fn add_datapath(&self, out: &mut Snapshot) {
        let stats = self.shared.datapath.load().stats();
        let by_policy: BTreeMap<_, _> =
            stats.policies.iter().map(|stats| (stats.policy, stats)).collect();
        for (name, entry) in &self.peers {
            for policy in entry.config.policies() {
                let stats = by_policy.get(&policy.id);
                let [inbound, outbound] = ["inbound", "outbound"].map(|direction| {
                    [("peer", &**name), ("child", &**policy.name), ("direction", direction)]
                });
                let value = |of: fn(&crate::datapath::PolicyStats) -> u64| {
                    stats.map_or(0, |stats| of(stats))
                };
                out.add(family::PACKETS, &inbound, value(|stats| stats.inbound_packets));
                out.add(family::PACKETS, &outbound, value(|stats| stats.outbound_packets));
                out.add(family::BYTES, &inbound, value(|stats| stats.inbound_bytes));
                out.add(family::BYTES, &outbound, value(|stats| stats.outbound_bytes));
            }
        }
        let drops: BTreeMap<_, _> = stats.drops.iter().copied().collect();
        // All, so that the first of a kind is an increase and not an appearance.
        for reason in DropReason::ALL.iter().filter(|reason| !reason.is_quiet()) {
            let count = drops.get(reason).copied().unwrap_or_default();
            out.add(family::DROPPED, &[("reason", reason.name())], count);
        }
        for (name, count) in status::of_lost(&self.shared) {
            out.add(family::DROPPED, &[("reason", name)], count);
        }
        out.add(family::KEEPALIVES, &[], stats.keepalives);
        out.add(family::BYPASSED, &[], stats.bypassed);
    }

    fn add_ike(&self, out: &mut Snapshot) {
        let counts = &self.counts;
        for (at, kind) in KINDS.into_iter().enumerate() {
            let kind = [("kind", kind)];
            out.add(family::ESTABLISHED, &kind, counts.established[at]);
            out.add(family::REKEYS, &kind, counts.rekeys[at]);
            out.add(family::REKEYS_REFUSED, &kind, counts.rekeys_refused[at]);
        }
        let ike = self.endpoint.stats();
        out.add(family::DPD_CHECKS, &[], ike.liveness_checks);
        out.add(family::DPD_TIMEOUTS, &[], counts.dpd_timeouts);
        out.add(family::AUTH_FAILURES, &[], counts.authentication_failures);
        for (result, count) in [
            ("accepted", ike.init_accepted),
            ("malformed", ike.init_malformed),
            ("refused", ike.init_refused),
            ("limited", ike.init_limited),
        ] {
            out.add(family::INIT_REQUESTS, &[("result", result)], count);
        }
        out.add(family::COOKIES, &[], ike.cookies_sent);
        out.add(family::PUZZLES, &[], ike.puzzles_sent);
        let half_open = u64::try_from(self.endpoint.half_open()).unwrap_or(u64::MAX);
        out.add(family::HALF_OPEN, &[], half_open);
        out.add(family::EVICTED, &[], ike.half_open_evicted);
        out.add(family::KEY_WORK, &[], ike.key_work);
        let [applied, refused] = counts.reloads;
        out.add(family::RELOADS, &[("result", "applied")], applied);
        out.add(family::RELOADS, &[("result", "refused")], refused);
    }
}
