//! [`DropReason`]: why the datapath lets a packet fall, and [`DropCounters`]: how often.
//!
//! One list yields the enum, the counter, the name for machines and the text for the operator. The datapath has no
//! other errors: nothing that it drops is dropped without a reason.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// Why a packet was dropped. In the order in which a packet meets the checks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name for machines: lower case, words joined by `-`, never changed once released.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The text for the operator.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

drop_reasons! {
    // Outbound.
    /// From the TUN came something that is no well-formed IP packet.
    OutboundMalformed = "outbound-malformed", "not a well-formed IP packet";
    /// No entry of the SPD matches: RFC 4301 §5.1 has it discarded.
    NoPolicy = "no-policy", "no policy matches";
    /// The SPD says DISCARD.
    PolicyDiscard = "policy-discard", "the policy says DISCARD";
    /// The policy has no outbound SA yet, for which IKE is asked, and there is no room for more packets that wait.
    NoOutboundSa = "no-outbound-sa", "no outbound SA for the policy yet, and no room to wait for one";
    /// It waited for an outbound SA, and none could be made.
    AcquireFailed = "acquire-failed", "waited for an outbound SA that could not be made";
    /// It waited too long for an outbound SA.
    AcquireLate = "acquire-late", "waited too long for an outbound SA";
    /// The policy matches, but the peer narrowed the selectors of its SAs, and none of them takes the packet.
    OutboundSelectorMismatch = "outbound-selector-mismatch", "outside the selectors that the peer agreed to";
    /// Larger than what fits into the tunnel, and not to be fragmented; answered with ICMP where allowed.
    TooBig = "too-big", "larger than the tunnel MTU";
    /// Fragments that overlap, or reach beyond the longest packet: nothing that transport mode could put together
    /// (RFC 5722).
    FragmentsWrong = "fragments-wrong", "fragments for transport mode that do not make a packet";
    /// There was no room for more fragments.
    FragmentsFull = "fragments-full", "no room for more fragments for transport mode";
    /// The other fragments of the packet did not come in time.
    FragmentsLate = "fragments-late", "fragments for transport mode that waited too long for the others";
    /// IPv4 options or IPv6 extension headers stand before the ESP header, and there is no IP header of ours in UDP.
    HeadersInUdp = "headers-in-udp", "IP options or extension headers do not go with transport mode in UDP";
    /// The sequence number would repeat (RFC 4303 §3.3.3).
    SequenceExhausted = "sequence-exhausted", "the SA has used up its sequence numbers";
    /// A hard limit of bytes or packets was reached.
    LifetimeEnded = "lifetime-ended", "the SA has reached its hard limit of bytes or packets";
    /// The buffer has no room for header, padding and ICV.
    NoRoom = "no-room", "no room in the packet buffer";
    // Inbound.
    /// Neither ESP nor AH in a whole IP packet.
    OuterMalformed = "outer-malformed", "not a well-formed IP packet with ESP or AH";
    /// Too short to be ESP under this SA, or not aligned as its cipher needs.
    EspMalformed = "esp-malformed", "not a well-formed ESP packet";
    /// Not as AH has to be under this SA, or not yet at its final destination (RFC 4302 §2, Appendix A).
    AhMalformed = "ah-malformed", "not a well-formed AH packet";
    /// AH in a fragment, which has to be put together first (RFC 4302 §3.4.1).
    AhFragment = "ah-fragment", "AH in a fragment";
    /// No inbound SA has this SPI.
    NoInboundSa = "no-inbound-sa", "no inbound SA has this SPI";
    /// The sequence number lies before the replay window, or cannot be (RFC 4303 §3.4.3).
    ReplayOld = "replay-old", "sequence number before the replay window";
    /// The sequence number has been received.
    ReplayDuplicate = "replay-duplicate", "sequence number received before";
    /// The ICV does not verify: corrupted, forged, or under another key.
    IcvMismatch = "icv-mismatch", "integrity check failed";
    /// ESP of a bundle without the AH that belongs around it, or AH of a bundle around something else.
    BundleBroken = "bundle-broken", "not the AH and ESP that belong together";
    /// The padding after decryption is not what the sender must have put there (RFC 4303 §2.4).
    BadPadding = "bad-padding", "wrong padding after decryption";
    /// A dummy packet (RFC 4303 §2.6): nothing is lost.
    Dummy = "dummy", "dummy packet, as intended";
    /// The next header is not what the mode of the SA carries.
    BadNextHeader = "bad-next-header", "next header is not IPv4 or IPv6";
    /// The inner packet is no well-formed IP packet.
    InboundMalformed = "inbound-malformed", "decrypted to something that is no well-formed IP packet";
    /// A fragment in transport mode, which protects whole packets only (RFC 4303 §3.3.4, RFC 4302 §3.3.4).
    TransportFragment = "transport-fragment", "a fragment in transport mode";
    /// The inner packet is outside the selectors of the SA (RFC 4301 §5.2).
    InboundSelectorMismatch = "inbound-selector-mismatch", "inner packet outside the selectors of its SA";
    /// Congestion was marked on the way and the inner packet cannot say so (RFC 6040 §4.2).
    EcnCongestion = "ecn-congestion", "congestion experienced by a packet without ECN";
    /// A datagram to port 4500 that is neither IKE, nor ESP, nor a keepalive.
    NattMalformed = "natt-malformed", "neither ESP, IKE nor a keepalive on port 4500";
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether RFC 4301 §5.2, RFC 4302 §4 or RFC 4303 §4 has it audited.
    #[must_use]
    pub const fn is_auditable(self) -> bool {
        matches!(
            self,
            Self::AhFragment
                | Self::IcvMismatch
                | Self::InboundSelectorMismatch
                | Self::NoInboundSa
                | Self::ReplayDuplicate
                | Self::ReplayOld
                | Self::SequenceExhausted
                | Self::TransportFragment
        )
    }

    /// Whether it is no loss: counted, never shown as a fault.
    #[must_use]
    pub const fn is_quiet(self) -> bool {
        matches!(self, Self::Dummy)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A counter for each [`DropReason`], shared by workers.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DropReason::COUNT]);

impl DropCounters {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Counts one packet.
    pub fn count(&self, reason: DropReason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were dropped for this reason.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// The reasons that occurred, in order, with how often.
    #[must_use]
    pub fn nonzero(&self) -> Vec<(DropReason, u64)> {
        let counts = DropReason::ALL.iter().map(|&reason| (reason, self.get(reason)));
        counts.filter(|&(_, count)| count > 0).collect()
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_for_machines() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::COUNT);
        for name in names {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
        }
    }

    #[test]
    fn texts_are_lower_case_without_full_stop() {
        for reason in DropReason::ALL {
            assert!(!reason.text().ends_with('.'), "{reason:?}");
        }
    }

    #[test]
    fn each_reason_has_its_own_counter() {
        let counters = DropCounters::new();
        for (times, &reason) in DropReason::ALL.iter().enumerate() {
            (0..times).for_each(|_| counters.count(reason));
        }
        for (times, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(counters.get(reason), times as u64);
        }
        assert_eq!(counters.nonzero().len(), DropReason::COUNT - 1, "the first stayed at zero");
    }
}
