//! Message IDs and retransmission (RFC 7296 §2.1–§2.3): the only place that sends anything again.
//!
//! The window is one message each way: a SET_WINDOW_SIZE of the peer allows more, and is not used.

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
    next_id: u32,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    id: u32,
    datagram: Vec<u8>,
    sent: u32,
    at: Instant,
    wait: Duration,
}

/// What a retransmission timer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Send this once more; it has been sent so often before.
    Send(Vec<u8>, u32),
    /// The peer does not answer; it was sent so often.
    GiveUp(u32),
    /// Not yet.
    Wait,
}

impl Requests {
    pub(super) const fn starting_at(next_id: u32) -> Self {
        Self { next_id, pending: None }
    }

    /// The Message ID of the next request; `None` if they are used up (RFC 7296 §2.2) or one is under way.
    pub(super) const fn next_id(&self) -> Option<u32> {
        if self.pending.is_some() || self.next_id == u32::MAX { None } else { Some(self.next_id) }
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.pending.is_none()
    }

    /// Notes that the request with the next ID has been sent.
    pub(super) fn sent(&mut self, now: Instant, datagram: Vec<u8>, how: Retransmission) {
        self.pending = Some(Pending {
            id: self.next_id,
            datagram,
            sent: 1,
            at: now + how.timeout,
            wait: how.timeout,
        });
    }

    /// Whether this is the ID of the request under way.
    pub(super) fn awaits(&self, id: u32) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.id == id)
    }

    /// The answer has come: the next request may be sent.
    pub(super) fn answered(&mut self) {
        if self.pending.take().is_some() {
            self.next_id = self.next_id.saturating_add(1);
        }
    }

    /// The request is repeated in another form under the same ID (IKE_SA_INIT after COOKIE or INVALID_KE_PAYLOAD).
    pub(super) fn withdraw(&mut self) {
        self.pending = None;
    }

    /// How often the request under way has been sent.
    pub(super) fn times_sent(&self) -> u32 {
        self.pending.as_ref().map_or(0, |pending| pending.sent)
    }

    /// The bytes of the request under way.
    pub(super) fn datagram(&self) -> Option<&[u8]> {
        self.pending.as_ref().map(|pending| pending.datagram.as_slice())
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
        Again::Send(pending.datagram.clone(), pending.sent - 1)
    }
}

/// The peer's requests.
#[derive(Debug)]
pub(super) struct Responses {
    expected: u32,
    last: Option<Vec<u8>>,
}

/// What a request's Message ID says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// To be handled.
    New,
    /// Handled before: this was the answer (RFC 7296 §2.1).
    Again(Vec<u8>),
    /// Outside the window: not to be answered (RFC 7296 §2.3).
    OutOfWindow,
}

impl Responses {
    pub(super) const fn starting_at(expected: u32) -> Self {
        Self { expected, last: None }
    }

    pub(super) fn classify(&self, id: u32) -> Incoming {
        if id == self.expected {
            return Incoming::New;
        }
        match &self.last {
            Some(response) if id.checked_add(1) == Some(self.expected) => {
                Incoming::Again(response.clone())
            }
            _ => Incoming::OutOfWindow,
        }
    }

    /// Notes the answer to the request that was [`Incoming::New`].
    pub(super) fn answered(&mut self, response: Vec<u8>) {
        self.expected = self.expected.saturating_add(1);
        self.last = Some(response);
    }
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
        let mut requests = Requests::starting_at(7);
        assert_eq!(requests.next_id(), Some(7));
        requests.sent(t, vec![1], HOW);
        assert_eq!(requests.next_id(), None, "window of one");
        assert_eq!(requests.again(t, HOW), Again::Wait);
        assert_eq!(requests.again(t + Duration::from_secs(2), HOW), Again::Send(vec![1], 1));
        assert_eq!(requests.deadline(), Some(t + Duration::from_secs(6)));
        assert_eq!(requests.again(t + Duration::from_secs(6), HOW), Again::Send(vec![1], 2));
        assert_eq!(requests.again(t + Duration::from_secs(14), HOW), Again::GiveUp(3));
    }

    #[test]
    fn answer_frees_the_window_and_counts_the_id() {
        let mut requests = Requests::starting_at(0);
        requests.sent(start(), vec![1], HOW);
        assert!(requests.awaits(0) && !requests.awaits(1));
        requests.answered();
        assert_eq!(requests.next_id(), Some(1));
        requests.answered();
        assert_eq!(requests.next_id(), Some(1), "an answer to nothing changes nothing");
    }

    #[test]
    fn repeated_request_gets_the_cached_answer_and_others_nothing() {
        let mut responses = Responses::starting_at(0);
        assert_eq!(responses.classify(0), Incoming::New);
        responses.answered(vec![9]);
        assert_eq!(responses.classify(0), Incoming::Again(vec![9]));
        assert_eq!(responses.classify(1), Incoming::New);
        assert_eq!(responses.classify(2), Incoming::OutOfWindow);
        responses.answered(vec![8]);
        assert_eq!(responses.classify(0), Incoming::OutOfWindow, "forgotten");
        assert_eq!(Responses::starting_at(0).classify(u32::MAX), Incoming::OutOfWindow);
    }
}
