//! Message IDs and retransmission (RFC 7296 §2.1–§2.3): the only place that sends anything again.
//!
//! The window is one message each way: a SET_WINDOW_SIZE of the peer allows more, and is not used. A message is several datagrams
//! if it is sent in fragments (RFC 7383); they are always sent again together.

use core::time::Duration;
use std::time::Instant;

use crate::ipsec::pad::IkePolicy;

/// How a request is sent again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retransmission {
    timeout: Duration,
    base_percent: u32,
    tries: u32,
}

impl Retransmission {
    pub(super) fn of(policy: &IkePolicy) -> Self {
        Self {
            timeout: policy.retransmit_timeout.max(Duration::from_millis(100)),
            base_percent: policy.retransmit_base_percent.clamp(100, 1000),
            tries: policy.retransmit_tries,
        }
    }
}

/// Our requests.
#[derive(Debug)]
pub(super) struct Requests {
    /// Wider than a Message ID, so that the one after the last is none.
    next_id: u64,
    last_id: u32,
    pending: Option<Pending>,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
struct Pending {
    id: u32,
    datagrams: Vec<Vec<u8>>,
    sent: u32,
    first: Instant,
    at: Instant,
    wait: Duration,
}

/// What a retransmission timer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Send these once more; they have been sent so often before.
    Send(Vec<Vec<u8>>, u32),
    /// The peer does not answer; it was sent so often.
    GiveUp(u32),
    /// Not yet.
    Wait,
}

impl Requests {
    /// From Message ID 0 to `last_id`.
    pub(super) const fn up_to(last_id: u32) -> Self {
        Self { next_id: 0, last_id, pending: None, round_trip: None }
    }

    /// The Message ID of the next request; `None` if they are used up (RFC 7296 §2.2) or one is under way.
    pub(super) fn next_id(&self) -> Option<u32> {
        let id = u32::try_from(self.next_id).ok()?;
        (self.pending.is_none() && id <= self.last_id).then_some(id)
    }

    /// Whether the next request is the last one, or there is none any more.
    pub(super) fn at_the_end(&self) -> bool {
        self.next_id >= u64::from(self.last_id)
    }

    /// Whether few Message IDs are left: a sixteenth of them (RFC 7296 §2.2).
    pub(super) fn runs_out(&self) -> bool {
        runs_out(self.next_id, self.last_id)
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.pending.is_none()
    }

    /// Notes that the request with the next ID has been sent.
    pub(super) fn sent(&mut self, now: Instant, datagrams: Vec<Vec<u8>>, how: Retransmission) {
        let Ok(id) = u32::try_from(self.next_id) else { return };
        let wait = how.timeout;
        self.pending = Some(Pending { id, datagrams, sent: 1, first: now, at: now + wait, wait });
    }

    /// Whether this is the ID of the request under way.
    pub(super) fn awaits(&self, id: u32) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.id == id)
    }

    /// The answer has come: the next request may be sent.
    pub(super) fn answered(&mut self, now: Instant) {
        if let Some(pending) = self.pending.take() {
            self.next_id += 1;
            // Which of several copies an answer is to cannot be told (Karn's algorithm, RFC 6298 §3).
            if pending.sent == 1 {
                self.round_trip = Some(now.saturating_duration_since(pending.first));
            }
        }
    }

    /// How long the peer took to answer the last request that was sent once only.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The request is repeated in another form under the same ID (IKE_SA_INIT after COOKIE or INVALID_KE_PAYLOAD).
    pub(super) fn withdraw(&mut self) {
        self.pending = None;
    }

    /// The request under way is not sent again. Its answer is waited for until then.
    pub(super) fn hush(&mut self, until: Instant) {
        if let Some(pending) = &mut self.pending {
            pending.sent = u32::MAX;
            pending.at = until;
        }
    }

    /// How often the request under way has been sent.
    pub(super) fn times_sent(&self) -> u32 {
        self.pending.as_ref().map_or(0, |pending| pending.sent)
    }

    /// The bytes of the request under way, if it is one datagram.
    pub(super) fn datagram(&self) -> Option<&[u8]> {
        match self.pending.as_ref()?.datagrams.as_slice() {
            [datagram] => Some(datagram),
            _ => None,
        }
    }

    /// The request under way goes in other datagrams from here on, and the waits begin anew (RFC 7383 §2.5.2).
    pub(super) fn refragmented(
        &mut self,
        now: Instant,
        datagrams: Vec<Vec<u8>>,
        how: Retransmission,
    ) {
        if let Some(pending) = &mut self.pending {
            pending.datagrams = datagrams;
            pending.wait = how.timeout;
            pending.at = now + how.timeout;
        }
    }

    /// What is under way is to be sent again at once: it may have gone nowhere.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Some(pending) = &mut self.pending {
            pending.at = now;
        }
    }

    /// When [`Self::again`] wants to be asked.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.at)
    }

    /// RFC 7296 §2.4: the waits grow exponentially.
    pub(super) fn again(&mut self, now: Instant, how: Retransmission) -> Again {
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.at <= now) else {
            return Again::Wait;
        };
        if pending.sent > how.tries {
            return Again::GiveUp(pending.sent);
        }
        pending.sent += 1;
        pending.wait = (pending.wait * how.base_percent / 100).min(Duration::from_secs(60));
        pending.at = now + pending.wait;
        Again::Send(pending.datagrams.clone(), pending.sent - 1)
    }
}

/// The peer's requests.
#[derive(Debug)]
pub(super) struct Responses {
    /// Wider than a Message ID: after the last one, none is expected any more.
    expected: u64,
    last: Option<Vec<Vec<u8>>>,
}

/// What a request's Message ID says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// To be handled.
    New,
    /// Handled before: this was the answer (RFC 7296 §2.1).
    Again(Vec<Vec<u8>>),
    /// Outside the window: not to be answered (RFC 7296 §2.3).
    OutOfWindow,
}

impl Responses {
    /// From Message ID 0 on.
    pub(super) const fn new() -> Self {
        Self { expected: 0, last: None }
    }

    /// Whether the peer has few Message IDs left of those up to `last_id`.
    pub(super) fn runs_out(&self, last_id: u32) -> bool {
        runs_out(self.expected, last_id)
    }

    pub(super) fn classify(&self, id: u32) -> Incoming {
        let id = u64::from(id);
        if id == self.expected {
            return Incoming::New;
        }
        match &self.last {
            Some(response) if id + 1 == self.expected => Incoming::Again(response.clone()),
            _ => Incoming::OutOfWindow,
        }
    }

    /// Notes the answer to the request that was [`Incoming::New`].
    pub(super) fn answered(&mut self, response: Vec<Vec<u8>>) {
        self.expected += 1;
        self.last = Some(response);
    }

    /// Answers no request again: it would say that we live.
    pub(super) fn fall_silent(&mut self) {
        self.last = None;
    }
}

fn runs_out(next_id: u64, last_id: u32) -> bool {
    next_id + u64::from(last_id / 16) >= u64::from(last_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Retransmission =
        Retransmission { timeout: Duration::from_secs(2), base_percent: 200, tries: 2 };

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn request_is_sent_again_with_growing_waits_and_then_given_up() {
        let t = start();
        let mut requests = Requests::up_to(u32::MAX);
        assert_eq!(requests.next_id(), Some(0));
        requests.sent(t, vec![vec![1]], HOW);
        assert_eq!(requests.next_id(), None, "window of one");
        assert_eq!(requests.again(t, HOW), Again::Wait);
        assert_eq!(requests.again(t + Duration::from_secs(2), HOW), Again::Send(vec![vec![1]], 1));
        assert_eq!(requests.deadline(), Some(t + Duration::from_secs(6)));
        assert_eq!(requests.again(t + Duration::from_secs(6), HOW), Again::Send(vec![vec![1]], 2));
        assert_eq!(requests.again(t + Duration::from_secs(14), HOW), Again::GiveUp(3));
    }

    #[test]
    fn answer_frees_the_window_and_counts_the_id() {
        let mut requests = Requests::up_to(u32::MAX);
        requests.sent(start(), vec![vec![1]], HOW);
        assert!(requests.awaits(0) && !requests.awaits(1));
        requests.answered(start());
        assert_eq!(requests.next_id(), Some(1));
        requests.answered(start());
        assert_eq!(requests.next_id(), Some(1), "an answer to nothing changes nothing");
    }

    #[test]
    fn the_round_trip_is_that_of_requests_which_were_sent_once() {
        let t = start();
        let mut requests = Requests::up_to(u32::MAX);
        assert_eq!(requests.round_trip(), None);
        requests.sent(t, vec![vec![1]], HOW);
        requests.answered(t + Duration::from_millis(30));
        assert_eq!(requests.round_trip(), Some(Duration::from_millis(30)));
        requests.sent(t, vec![vec![1]], HOW);
        assert_ne!(requests.again(t + Duration::from_secs(2), HOW), Again::Wait);
        requests.answered(t + Duration::from_millis(2010));
        assert_eq!(requests.round_trip(), Some(Duration::from_millis(30)), "of which copy?");
    }

    #[test]
    fn repeated_request_gets_the_cached_answer_and_others_nothing() {
        let mut responses = Responses::new();
        assert_eq!(responses.classify(0), Incoming::New);
        responses.answered(vec![vec![9]]);
        assert_eq!(responses.classify(0), Incoming::Again(vec![vec![9]]));
        assert_eq!(responses.classify(1), Incoming::New);
        assert_eq!(responses.classify(2), Incoming::OutOfWindow);
        responses.answered(vec![vec![8]]);
        assert_eq!(responses.classify(0), Incoming::OutOfWindow, "forgotten");
        assert_eq!(Responses::new().classify(u32::MAX), Incoming::OutOfWindow);
    }

    #[test]
    fn last_message_id_is_used_once_and_none_after_it() {
        let mut requests = Requests::up_to(3);
        for id in 0..=3 {
            assert_eq!(requests.next_id(), Some(id));
            assert_eq!(requests.at_the_end(), id == 3);
            requests.sent(start(), vec![vec![1]], HOW);
            requests.answered(start());
        }
        assert_eq!(requests.next_id(), None);
        assert!(requests.at_the_end());
    }

    #[test]
    fn request_with_the_last_message_id_of_all_is_handled_once() {
        let mut responses = Responses { expected: u64::from(u32::MAX), last: None };
        assert_eq!(responses.classify(u32::MAX), Incoming::New);
        responses.answered(vec![vec![9]]);
        assert_eq!(responses.classify(u32::MAX), Incoming::Again(vec![vec![9]]));
        assert_eq!(responses.classify(0), Incoming::OutOfWindow);
    }

    #[test]
    fn a_sixteenth_of_the_message_ids_is_kept_back() {
        assert!(!runs_out(u64::from(u32::MAX - u32::MAX / 16) - 1, u32::MAX));
        assert!(runs_out(u64::from(u32::MAX - u32::MAX / 16), u32::MAX));
        assert!(runs_out(u64::MAX / 2, u32::MAX));
    }
}
