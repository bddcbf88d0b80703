//! Fragmentation of IKE messages (RFC 7383): how long a message may be on its way, and fragments that wait for the rest.
//!
//! Only messages with an Encrypted payload can be split. Each fragment is verified before it is kept; how its
//! content is sealed is said in [`protect`](super::protect), and when it is sent again in [`window`](super::window).

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::time::Instant;

use tracing::debug;
use zeroize::Zeroizing;

use super::exchange::{Parts, notify};
use super::ike_sa::{Ctx, IkeSa};
use super::limits;
use super::protect::{Content, Part};
use crate::ipsec::pad::{FragmentPolicy, Fragments};
use crate::ipsec::{Encap, Path};
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{NotifyType, PayloadType};
use crate::wire::ike::payload::Payload;

/// What an IKE SA knows of fragmentation.
#[derive(Debug, Default)]
pub(super) struct Fragmentation {
    /// Both sides said IKEV2_FRAGMENTATION_SUPPORTED. It holds for the IKE SAs that replace this one, too.
    pub(super) agreed: bool,
    /// What holds until the peer is known.
    pub(super) policy: FragmentPolicy,
    /// IP datagrams of this size are known to be too large, or those of the peer are not larger.
    threshold: Option<u16>,
    /// IKE messages of the peer's last fragmented request were so long, at most.
    answer_len: Option<usize>,
    /// The request under way, should it have to be split into smaller fragments.
    request: Option<(Header, Content)>,
    requests: Reassembly,
    responses: Reassembly,
}

/// A message put together.
pub(super) struct Whole {
    pub(super) content: Content,
    pub(super) critical: Vec<Payload>,
}

impl Fragmentation {
    /// What the side that is asked, or asks, agrees to.
    pub(super) fn new(agreed: bool, policy: FragmentPolicy) -> Self {
        Self { agreed, policy, ..Self::default() }
    }

    /// Of the IKE SA that replaces this one.
    pub(super) fn successor(&self) -> Self {
        Self { threshold: self.threshold, ..Self::new(self.agreed, self.policy) }
    }

    /// Whether fragments may be sent.
    fn sends(&self, policy: FragmentPolicy) -> bool {
        self.agreed && policy.fragments == Fragments::Yes
    }

    /// The longest IKE message that may be sent along `path`.
    pub(super) fn max_len(&self, policy: FragmentPolicy, path: Path, response: bool) -> usize {
        if !self.sends(policy) {
            return usize::MAX;
        }
        let size = self.threshold.map_or(policy.size, |known| known.min(policy.size));
        let len = message_len(size, path);
        // RFC 7383 §2.5.1: the peer's fragments show what the path carries.
        let floor = message_len(limits::SMALLEST_FRAGMENTED_DATAGRAM, path);
        match self.answer_len {
            Some(theirs) if response => len.min(theirs.max(floor)),
            _ => len,
        }
    }

    /// Notes a request, should it be too large for the path.
    pub(super) fn sent(&mut self, policy: FragmentPolicy, header: Header, content: Content) {
        self.request = self.sends(policy).then_some((header, content));
    }

    /// RFC 7383 §2.5.2: what has not been answered after several retransmissions is split into smaller fragments. What to
    /// split, into what.
    pub(super) fn probe(
        &mut self,
        policy: FragmentPolicy,
        path: Path,
        tries: u32,
        longest: usize,
    ) -> Option<(Header, Content, usize)> {
        if !tries.is_multiple_of(limits::REFRAGMENT_AFTER) {
            return None;
        }
        let (header, content) = self.request.clone()?;
        let size = self.threshold.map_or(policy.size, |known| known.min(policy.size));
        let smaller = *sizes(path.remote).iter().find(|smaller| **smaller < size)?;
        self.threshold = Some(smaller);
        let len = message_len(smaller, path);
        (longest > len).then_some((header, content, len))
    }

    /// The answer has come, or is no longer waited for.
    pub(super) fn answered(&mut self) {
        self.request = None;
        self.responses = Reassembly::default();
    }

    /// A request has come as a whole.
    pub(super) fn asked(&mut self, fragmented: bool) {
        self.requests = Reassembly::default();
        if !fragmented {
            self.answer_len = None;
        }
    }

    /// A fragment whose ICV is right, and whose message is expected. With the last one that was missing, the message.
    pub(super) fn take(
        &mut self,
        now: Instant,
        header: &Header,
        part: Part,
        datagram_len: usize,
    ) -> Option<Whole> {
        let queue = if header.flags.response { &mut self.responses } else { &mut self.requests };
        let whole = queue.take(now, header.message_id, part, datagram_len)?;
        if !header.flags.response {
            self.answer_len = Some(queue.longest);
        }
        Some(whole)
    }

    /// Bytes that wait for the rest of their message.
    pub(super) fn held(&self) -> usize {
        self.requests.held() + self.responses.held()
    }

    /// Forgets them, for others need the room.
    pub(super) fn drop_held(&mut self) {
        self.requests = Reassembly::default();
        self.responses = Reassembly::default();
    }

    /// When [`Self::expire`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.requests.until, self.responses.until].into_iter().flatten().min()
    }

    /// RFC 7383 §2.6: what does not get complete is dropped.
    pub(super) fn expire(&mut self, now: Instant) {
        for queue in [&mut self.requests, &mut self.responses] {
            if queue.until.is_some_and(|until| until <= now) {
                *queue = Reassembly::default();
            }
        }
    }
}

impl IkeSa {
    /// Sends the request under way again. After a while it is taken to be too long for the path.
    pub(super) fn request_again(&mut self, ctx: &mut Ctx<'_>, datagrams: Vec<Vec<u8>>, tries: u32) {
        let longest = datagrams.iter().map(Vec::len).max().unwrap_or(0);
        let policy = self.fragment_policy();
        let probe = self.fragmentation.probe(policy, self.path, tries, longest);
        let Some(((header, content, max_len), session)) = probe.zip(self.session.as_ref()) else {
            self.transmit_all(ctx, datagrams);
            return;
        };
        let smaller = session.outbound.seal_to_fit(header, &content, max_len, ctx.rng);
        // RFC 7383 §2.5.2: a new set is known by being of more fragments.
        if smaller.len() > datagrams.len() {
            debug!(max_len, fragments = smaller.len(), "request split into smaller fragments");
            self.requests.refragmented(ctx.now, smaller.clone(), self.how);
            self.transmit_all(ctx, smaller);
        } else {
            self.transmit_all(ctx, datagrams);
        }
    }

    pub(super) fn fragment_policy(&self) -> FragmentPolicy {
        self.peer.as_ref().map_or(self.fragmentation.policy, |peer| peer.ike.fragmentation)
    }
}

/// The notify that says so (RFC 7383 §2.3).
pub(super) fn supported() -> Payload {
    notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[])
}

/// Whether the other side says so.
pub(super) fn is_supported(parts: &Parts<'_>) -> bool {
    parts.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some()
}

/// Fragments of one message.
#[derive(Debug, Default)]
struct Reassembly {
    message_id: u32,
    total: u16,
    first: Option<PayloadType>,
    critical: Vec<Payload>,
    parts: BTreeMap<u16, Zeroizing<Vec<u8>>>,
    bytes: usize,
    /// IKE message length of the longest.
    longest: usize,
    until: Option<Instant>,
}

impl Reassembly {
    fn held(&self) -> usize {
        self.bytes + self.parts.len() * limits::FRAGMENT_OVERHEAD
    }

    fn take(
        &mut self,
        now: Instant,
        message_id: u32,
        part: Part,
        datagram_len: usize,
    ) -> Option<Whole> {
        let (number, total) = part.fragment?;
        if total > limits::MAX_FRAGMENTS {
            return None;
        }
        // RFC 7383 §2.6: fewer than before are of an older set, more begin a new one.
        if self.until.is_none() || self.message_id != message_id || self.total < total {
            let until = Some(now + limits::REASSEMBLY_TIME);
            *self = Self { message_id, total, until, ..Self::default() };
        }
        let Content { first, plain } = part.content;
        if total < self.total
            || self.parts.contains_key(&number)
            || self.bytes + plain.len() > limits::MAX_MESSAGE
        {
            return None;
        }
        if number == 1 {
            self.first = Some(first);
            self.critical = part.critical;
        }
        self.bytes += plain.len();
        self.longest = self.longest.max(datagram_len);
        self.parts.insert(number, plain);
        if self.parts.len() < usize::from(total) {
            return None;
        }
        // All are there, so the first one is.
        let mut plain = Zeroizing::new(Vec::with_capacity(self.bytes));
        for part in core::mem::take(&mut self.parts).into_values() {
            plain.extend_from_slice(&part);
        }
        self.bytes = 0;
        self.until = None;
        let content = Content { first: self.first.take()?, plain };
        Some(Whole { content, critical: core::mem::take(&mut self.critical) })
    }
}

/// Sizes of IP datagrams to try, largest first: what RFC 7383 §2.5.1 recommends for each family last.
fn sizes(remote: SocketAddr) -> &'static [u16] {
    if remote.is_ipv6() {
        &[limits::FRAGMENTED_DATAGRAM_V6]
    } else {
        &[limits::FRAGMENTED_DATAGRAM_V6, limits::SMALLEST_FRAGMENTED_DATAGRAM]
    }
}

/// The IKE message in an IP datagram of this size.
fn message_len(datagram: u16, path: Path) -> usize {
    const UDP: usize = 8;
    let ip = if path.remote.is_ipv6() { 40 } else { 20 };
    let marker = if path.encap == Encap::Plain { 0 } else { 4 };
    usize::from(datagram).saturating_sub(ip + UDP + marker)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn part(number: u16, total: u16, bytes: &[u8]) -> Part {
        let first = if number == 1 { PayloadType::NOTIFY } else { PayloadType::NONE };
        let content = Content { first, plain: Zeroizing::new(bytes.to_vec()) };
        Part { fragment: Some((number, total)), content, critical: Vec::new() }
    }

    fn take(queue: &mut Reassembly, part: Part) -> Option<Vec<u8>> {
        let whole = queue.take(start(), 7, part, 100)?;
        assert_eq!(whole.content.first, PayloadType::NOTIFY);
        Some(whole.content.plain.to_vec())
    }

    fn path(remote: &str, encap: Encap) -> Path {
        let remote: SocketAddr = remote.parse().unwrap();
        Path { local: remote, remote, encap }
    }

    #[test]
    fn fragments_in_any_order_give_the_message_once() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let mut queue = Reassembly::default();
            let mut wholes = Vec::new();
            for number in order {
                for _ in 0..2 {
                    let bytes = [u8::try_from(number).unwrap(); 2];
                    wholes.extend(take(&mut queue, part(number, 3, &bytes)));
                    if !wholes.is_empty() {
                        break;
                    }
                }
            }
            assert_eq!(wholes, [[1, 1, 2, 2, 3, 3]], "{order:?}");
            assert_eq!(queue.held(), 0);
        }
    }

    #[test]
    fn more_fragments_begin_a_new_set_and_fewer_are_ignored() {
        let mut queue = Reassembly::default();
        assert_eq!(take(&mut queue, part(1, 2, &[1])), None);
        assert_eq!(take(&mut queue, part(1, 3, &[4])), None, "a new set");
        assert_eq!(take(&mut queue, part(2, 2, &[2])), None, "of the old set");
        assert_eq!(take(&mut queue, part(2, 3, &[5])), None);
        assert_eq!(take(&mut queue, part(3, 3, &[6])), Some(vec![4, 5, 6]));
    }

    #[test]
    fn fragment_of_another_message_begins_anew() {
        let mut queue = Reassembly::default();
        assert_eq!(take(&mut queue, part(1, 2, &[1])), None);
        assert!(queue.take(start(), 8, part(2, 2, &[9]), 100).is_none());
        assert_eq!(take(&mut queue, part(2, 2, &[2])), None, "the first one is gone");
        assert_eq!(take(&mut queue, part(1, 2, &[1])), Some(vec![1, 2]));
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut queue = Reassembly::default();
        assert_eq!(take(&mut queue, part(1, limits::MAX_FRAGMENTS + 1, &[1])), None);
        assert_eq!(queue.held(), 0, "too many fragments");
        let third = vec![0; limits::MAX_MESSAGE / 3 + 1];
        for number in 1..=3 {
            assert_eq!(take(&mut queue, part(number, 3, &third)), None);
        }
        assert!(queue.bytes <= limits::MAX_MESSAGE);
    }

    #[test]
    fn what_is_not_complete_in_time_is_dropped() {
        let (mut fragments, t) = (Fragmentation::default(), start());
        let header = Header::new(
            crate::wire::ike::header::IkeSpi(1),
            crate::wire::ike::header::IkeSpi(2),
            crate::wire::ike::numbers::ExchangeType::IKE_AUTH,
            crate::wire::ike::header::Flags::new(true, false),
            1,
        );
        assert!(fragments.take(t, &header, part(1, 2, &[1]), 100).is_none());
        assert_eq!(fragments.deadline(), Some(t + limits::REASSEMBLY_TIME));
        fragments.expire(t + limits::REASSEMBLY_TIME - Duration::from_millis(1));
        assert!(fragments.held() > 0);
        fragments.expire(t + limits::REASSEMBLY_TIME);
        assert_eq!((fragments.held(), fragments.deadline()), (0, None));
    }

    #[test]
    fn message_is_as_long_as_a_datagram_of_the_size_carries() {
        let mut fragments = Fragmentation::new(true, FragmentPolicy::default());
        let policy = fragments.policy;
        let len =
            |fragments: &Fragmentation, path, response| fragments.max_len(policy, path, response);
        let (v4, v6) = (path("192.0.2.1:500", Encap::Plain), path("[fd00::1]:4500", Encap::Udp));
        assert_eq!(len(&fragments, v4, false), 1280 - 28);
        assert_eq!(len(&fragments, v6, false), 1280 - 48 - 4);
        fragments.answer_len = Some(700);
        assert_eq!(len(&fragments, v4, true), 700, "as the peer's request");
        assert_eq!(len(&fragments, v4, false), 1280 - 28, "but for our own");
        fragments.answer_len = Some(70);
        assert_eq!(len(&fragments, v4, true), 576 - 28, "within reason");
        fragments.agreed = false;
        assert_eq!(len(&fragments, v4, true), usize::MAX);
        fragments.agreed = true;
        let accept = FragmentPolicy { fragments: Fragments::Accept, ..policy };
        assert_eq!(fragments.max_len(accept, v4, false), usize::MAX);
    }
}
