//! What is to become of an outbound packet, before anything is done to it: [`Decision`] by SPD and SAD (RFC 4301 §5.1),
//! [`Fit`] by its length (§8.2).
//!
//! `outbound` acts on both, and `explain` shows both: there is no second copy of the rules.

use super::fragment::Fragments;
use super::{Datapath, pmtu};
use crate::ipsec::inner::Inner;
use crate::ipsec::sad::OutboundEntry;
use crate::ipsec::selector::matches_pair;
use crate::ipsec::{Action, DropReason, Encap, Flow, Place, PolicyId, Protocol, Worker, mtu};

/// What SPD and SAD say of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision<'a> {
    /// It is to be protected, and its policy has no SA yet.
    Acquire(PolicyId),
    /// It passes unprotected.
    Bypass,
    /// It does not pass. The policy, if one says PROTECT.
    Drop(DropReason, Option<PolicyId>),
    /// It passes under this SA.
    Protect(&'a OutboundEntry),
}

/// How a packet goes with the length that its path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// In fragments of at most `mtu` bytes, each protected by itself.
    Fragments {
        /// Longest inner packet, in bytes.
        mtu: usize,
    },
    /// Not: its sender is to be told of `mtu`.
    TooBig {
        /// Longest inner packet, in bytes.
        mtu: usize,
    },
    /// As it is. `fits`: the outer packet is no longer than its path takes; else it may be fragmented outside.
    Whole {
        /// Longest inner packet that may be asked for, in bytes.
        mtu: usize,
        /// See above.
        fits: bool,
    },
}

impl Datapath {
    pub(super) fn decide(&self, flow: &Flow, worker: Worker) -> Decision<'_> {
        match self.spd.lookup_out(flow) {
            // RFC 4301 §5.1: what no entry matches is discarded.
            None => Decision::Drop(DropReason::NoPolicy, None),
            Some(Action::Discard) => Decision::Drop(DropReason::PolicyDiscard, None),
            Some(Action::Bypass) => Decision::Bypass,
            Some(Action::Protect(policy)) => match self.sad.outbound_for(policy, flow, worker) {
                Some(entry) => Decision::Protect(entry),
                // RFC 4301 §5.1, step 3b: an SA is asked for.
                None if !self.sad.has_outbound(policy) => Decision::Acquire(policy),
                // If there is one, but the peer has narrowed it to exclude this packet, asking again would not help.
                None => Decision::Drop(DropReason::OutboundSelectorMismatch, Some(policy)),
            },
        }
    }
}

/// RFC 4301 §8.2: what does not fit is fragmented, or its sender is told.
pub(super) fn fit_tunnel(entry: &OutboundEntry, inner: &Inner, packet: &[u8]) -> Fit {
    let mtu = least_to_ask_for(inner, entry.mtu);
    if inner.len <= mtu {
        return Fit::Whole { mtu, fits: inner.len <= entry.mtu };
    }
    if inner.dont_fragment {
        return Fit::TooBig { mtu };
    }
    // A later fragment has no ports. If the selectors of the SA ask for some, the far end would drop it
    // (RFC 4301 §7), and the packet has to stay whole inside.
    let params = entry.sa.params();
    let later = Flow { ports: None, ..inner.flow };
    let can = Fragments::of_ipv4(packet, mtu).is_some()
        && matches_pair(&params.ts_local, &params.ts_peer, &later);
    if can { Fit::Fragments { mtu } } else { Fit::Whole { mtu, fits: false } }
}

/// RFC 4301 §8.2 as well, and where the IPsec header is to stand. What may be fragmented is, once it is protected (RFC
/// 4303 §3.3.4, RFC 4302 §3.3.4).
///
/// # Errors
/// [`DropReason::OutboundMalformed`], [`DropReason::HeadersInUdp`].
pub(super) fn fit_transport(
    entry: &OutboundEntry,
    inner: &Inner,
    packet: &[u8],
) -> Result<(Place, Fit), DropReason> {
    let place = Place::for_insertion(packet).ok_or(DropReason::OutboundMalformed)?;
    let longest = if place.at == mtu::header_len(inner.is_ipv6()) {
        entry.mtu
    } else if is_in_udp(entry) {
        return Err(DropReason::HeadersInUdp);
    } else {
        let around = entry.sa.around().map(|around| around.params());
        let params = entry.sa.params();
        mtu::max_len(params, around, &entry.path, entry.path_mtu, place.at).unwrap_or(0)
    };
    let mtu = least_to_ask_for(inner, longest);
    if inner.len > mtu && inner.dont_fragment {
        return Ok((place, Fit::TooBig { mtu }));
    }
    Ok((place, Fit::Whole { mtu, fits: inner.len <= longest }))
}

/// Whether ESP goes in UDP under it.
pub(super) fn is_in_udp(entry: &OutboundEntry) -> bool {
    entry.path.encap == Encap::Udp && entry.sa.params().suite.protocol() == Protocol::Esp
}

/// RFC 4303 §2.7: how long a packet of `len` bytes is with the padding for traffic flow confidentiality under an SA.
pub(super) fn padded_len(entry: &OutboundEntry, len: usize) -> usize {
    usize::from(entry.sa.params().tfc).min(entry.mtu).max(len)
}

/// RFC 8200 §5: of IPv6 less than 1280 cannot be asked for; what does not fit is fragmented outside.
fn least_to_ask_for(inner: &Inner, mtu: usize) -> usize {
    if inner.is_ipv6() { mtu.max(pmtu::IPV6_MIN_MTU) } else { mtu }
}
