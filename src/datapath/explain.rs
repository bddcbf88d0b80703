//! What the datapath would do with a packet, without doing it: [`Fate`] of one from the TUN, [`InboundFate`] of one from a
//! peer, and the SPD entries that come [near].
//!
//! It asks the functions by which packets are judged (`decide`, [`InboundSa::admits`], [`OutboundSa::may_seal`]), and counts
//! and changes nothing. Of SAs beside each other (RFC 9611) it names the one that a single worker would take.
//!
//! [`InboundSa::admits`]: crate::ipsec::InboundSa::admits
//! [`OutboundSa::may_seal`]: crate::ipsec::OutboundSa::may_seal

use super::decide::{Decision, Fit, fit_transport, fit_tunnel, is_in_udp, padded_len};
use super::fragment::Fragments;
use super::tap::Verdict;
use super::{Datapath, DropReason, PacketBuf};
use crate::ipsec::inner::Inner;
use crate::ipsec::mtu::{header_len, sealed_len};
use crate::ipsec::sad::{Bundle, InboundEntry, OutboundEntry};
use crate::ipsec::selector::{Differs, nearest};
use crate::ipsec::{Flow, Mode, PolicyId, Protocol, Spd, Worker};

/// What would become of a packet from the TUN.
#[derive(Clone, Copy, Debug)]
pub struct Fate<'a> {
    /// It.
    pub verdict: Verdict,
    /// The SPD entry that matches, by its place.
    pub entry: Option<usize>,
    /// The policy, if that entry says PROTECT.
    pub policy: Option<PolicyId>,
    /// The SA.
    pub sa: Option<&'a OutboundEntry>,
    /// Longest packet that goes under the SA without fragmentation, in bytes.
    pub mtu: Option<usize>,
    /// In how many packets it leaves.
    pub packets: usize,
    /// Their length on the wire in bytes, from the outer IP header on, before any is fragmented outside.
    pub wire_len: usize,
    /// Whether the outer packet is longer than its path takes, and so is fragmented itself.
    pub outer_fragments: bool,
}

/// What would become of a packet that a peer has sent.
#[derive(Clone, Debug)]
pub struct InboundFate<'a> {
    /// It.
    pub verdict: Verdict,
    /// The SAs that may carry it; the peer chooses.
    pub admits: Vec<&'a InboundEntry>,
    /// Those that may not, and why: what differs at the peer's side, and at ours.
    pub refuses: Vec<(&'a InboundEntry, Option<Differs>, Option<Differs>)>,
}

/// An SPD entry that does not decide about a packet, though it comes near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// Its place.
    pub entry: usize,
    /// Why not.
    pub why: WhyNot,
}

/// Why an SPD entry does not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhyNot {
    /// It matches, and stands after the one that decides.
    Later,
    /// It matches packets of the other direction.
    OtherDirection,
    /// What differs at our side, and at the peer's.
    Differs(Option<Differs>, Option<Differs>),
}

/// So many of those that come near are told.
const MOST_NEAR: usize = 5;

impl Datapath {
    /// What would become of a packet from the TUN at this moment.
    #[must_use]
    pub fn explain_outbound(&self, packet: &[u8]) -> Fate<'_> {
        let mut fate = Fate {
            verdict: Verdict::Drop(DropReason::OutboundMalformed),
            entry: None,
            policy: None,
            sa: None,
            mtu: None,
            packets: 0,
            wire_len: 0,
            outer_fragments: false,
        };
        let Some(inner) = Inner::parse(packet) else { return fate };
        let Some(packet) = packet.get(..inner.len) else { return fate };
        fate.entry = self.spd.position_out(&inner.flow);
        if inner.fragment.is_some() && self.sad.transport_takes(&inner.flow) {
            return Fate { verdict: Verdict::Reassemble, ..fate };
        }
        match self.decide(&inner.flow, Worker::ALONE) {
            Decision::Acquire(policy) => {
                Fate { verdict: Verdict::Wait, policy: Some(policy), ..fate }
            }
            Decision::Bypass => Fate { verdict: Verdict::Bypass, ..fate },
            Decision::Drop(reason, policy) => {
                Fate { verdict: Verdict::Drop(reason), policy, ..fate }
            }
            Decision::Protect(sa) => {
                let params = sa.sa.params();
                fate.policy = Some(params.policy);
                fate.sa = Some(sa);
                let fit = match params.mode {
                    Mode::Tunnel => {
                        Ok((header_len(sa.path.remote.is_ipv6()), fit_tunnel(sa, &inner, packet)))
                    }
                    Mode::Transport => {
                        fit_transport(sa, &inner, packet).map(|(place, fit)| (place.at, fit))
                    }
                };
                match fit {
                    Err(reason) => Fate { verdict: Verdict::Drop(reason), ..fate },
                    Ok((header, fit)) => fate.under(sa, packet, header, fit),
                }
            }
        }
    }

    /// What would become of a packet that a peer has sent under an SA, by its inner selector fields.
    #[must_use]
    pub fn explain_inbound(&self, flow: &Flow) -> InboundFate<'_> {
        // AH of a bundle protects no packet by itself.
        let all = self.sad.all_inbound();
        let all = all.filter(|entry| !matches!(entry.bundle, Some(Bundle::Around(_))));
        let discarded = self.spd.discards_first(flow);
        let (admits, refuses): (Vec<_>, Vec<_>) = all.partition(|entry| entry.sa.admits(flow));
        let refuses = refuses.into_iter().map(|entry| {
            let params = entry.sa.params();
            let peer = nearest(&params.ts_peer, |ts| ts.src_differs(flow));
            let local = nearest(&params.ts_local, |ts| ts.dst_differs(flow));
            (entry, peer, local)
        });
        let mut refuses: Vec<_> = refuses.collect();
        refuses.sort_by_key(|(_, peer, local)| closeness(*peer, *local));
        refuses.truncate(MOST_NEAR);
        let verdict = if discarded {
            Verdict::Drop(DropReason::PolicyDiscard)
        } else if !admits.is_empty() {
            Verdict::Deliver
        } else if refuses.is_empty() {
            Verdict::Drop(DropReason::NoInboundSa)
        } else {
            Verdict::Drop(DropReason::InboundSelectorMismatch)
        };
        InboundFate { verdict, admits, refuses }
    }
}

impl Fate<'_> {
    /// With an SA for it. `header`: what stands before the IPsec header.
    fn under(mut self, sa: &OutboundEntry, packet: &[u8], header: usize, fit: Fit) -> Self {
        let params = sa.sa.params();
        let around = sa.sa.around();
        let lens = match fit {
            Fit::TooBig { mtu } => {
                self.mtu = Some(mtu);
                return Self { verdict: Verdict::Drop(DropReason::TooBig), ..self };
            }
            Fit::Whole { mtu, .. } => {
                self.mtu = Some(mtu);
                vec![packet.len()]
            }
            Fit::Fragments { mtu } => {
                self.mtu = Some(mtu);
                lens_of_fragments(packet, mtu)
            }
        };
        let tunnel = params.mode == Mode::Tunnel;
        let is_esp = params.suite.protocol() == Protocol::Esp;
        for len in lens {
            let len = if tunnel && is_esp { padded_len(sa, len) } else { len };
            let around_params = around.map(|around| around.params());
            let sealed = sealed_len(params, around_params, &sa.path, len, header);
            // What counts against the limits of the SA: AH is given a whole packet, and ESP in UDP what follows the header.
            let counted = match (tunnel, is_esp) {
                (true, false) => len + header,
                (false, true) if is_in_udp(sa) => len - header,
                (true, true) | (false, _) => len,
            };
            let permits = sa.sa.may_seal(counted).and_then(|_| match around {
                Some(around) => {
                    let inside = sealed_len(params, None, &sa.path, len, header);
                    around.may_seal(inside.unwrap_or(len))
                }
                None => Ok(0),
            });
            if let Err(reason) = permits {
                return Self { verdict: Verdict::Drop(reason), ..self };
            }
            let Some(sealed) = sealed else {
                return Self { verdict: Verdict::Drop(DropReason::OutboundMalformed), ..self };
            };
            self.packets += 1;
            self.wire_len += sealed;
            self.outer_fragments |= sealed > sa.path_mtu;
        }
        Self { verdict: Verdict::Protect, ..self }
    }
}

fn lens_of_fragments(packet: &[u8], mtu: usize) -> Vec<usize> {
    let mut lens = Vec::new();
    let mut buf = PacketBuf::new(mtu);
    if let Some(mut fragments) = Fragments::of_ipv4(packet, mtu) {
        while fragments.next_into(&mut buf) {
            lens.push(buf.len());
        }
    }
    lens
}

/// The entries that come nearest to a packet and do not decide about it, the nearest first, and at most five. `decides`:
/// the one that does.
#[must_use]
pub fn near(spd: &Spd, flow: &Flow, decides: Option<usize>) -> Vec<Near> {
    let back =
        Flow { src: flow.dst, dst: flow.src, ports: flow.ports.map(|(a, b)| (b, a)), ..*flow };
    let mut found = Vec::new();
    for (at, entry) in spd.entries().iter().enumerate() {
        if decides == Some(at) {
            continue;
        }
        let differs = |flow: &Flow| {
            let local = nearest(&entry.ts_local, |ts| ts.src_differs(flow));
            (local, nearest(&entry.ts_peer, |ts| ts.dst_differs(flow)))
        };
        let why = match differs(flow) {
            (None, None) => WhyNot::Later,
            _ if differs(&back) == (None, None) => WhyNot::OtherDirection,
            (Some(Differs::Address), Some(Differs::Address)) => continue,
            (local, peer) => WhyNot::Differs(local, peer),
        };
        found.push(Near { entry: at, why });
    }
    // Stable: of those that come equally near the first in the SPD.
    found.sort_by_key(|near| match near.why {
        WhyNot::Later => (0, (0, 0)),
        WhyNot::OtherDirection => (1, (0, 0)),
        WhyNot::Differs(local, peer) => (2, closeness(local, peer)),
    });
    found.truncate(MOST_NEAR);
    found
}

/// Less is nearer.
fn closeness(one: Option<Differs>, other: Option<Differs>) -> (u8, u8) {
    let far = |differs| match differs {
        None => 0,
        Some(Differs::Port) => 1,
        Some(Differs::Protocol) => 2,
        Some(Differs::Address) => 3,
    };
    let (one, other) = (far(one), far(other));
    (one.max(other), one.min(other))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::datapath::probe::Probe;
    use crate::ipsec::{Action, SpdEntry, TrafficSelector};

    fn ts(text: &str, protocol: u8, ports: (u16, u16)) -> Arc<[TrafficSelector]> {
        let (addr, len) = text.split_once('/').expect("a prefix");
        let whole = TrafficSelector::from_prefix(
            addr.parse().expect("an address"),
            len.parse().expect("a length"),
        );
        let (start_port, end_port) = ports;
        [TrafficSelector { protocol, start_port, end_port, ..whole.expect("a prefix") }].into()
    }

    #[test]
    fn entries_that_come_near_are_told_with_what_differs_the_nearest_first() {
        let any = (0, u16::MAX);
        let entry = |ts_local, ts_peer, action| SpdEntry { ts_local, ts_peer, action, name: None };
        let spd = Spd::new(vec![
            entry(ts("10.9.0.0/16", 0, any), ts("10.9.0.0/16", 0, any), Action::Discard),
            entry(ts("10.1.0.0/16", 0, any), ts("10.3.0.0/16", 0, any), Action::Discard),
            entry(ts("10.1.0.0/16", 17, any), ts("10.2.0.0/16", 17, any), Action::Bypass),
            entry(ts("10.1.0.0/16", 6, any), ts("10.2.0.0/16", 6, (80, 80)), Action::Discard),
            entry(ts("10.1.0.0/16", 0, any), ts("10.2.0.0/16", 0, any), Action::Bypass),
            entry(ts("10.2.0.0/16", 0, any), ts("10.1.0.0/16", 0, any), Action::Bypass),
            entry(ts("0.0.0.0/0", 0, any), ts("0.0.0.0/0", 0, any), Action::Discard),
        ]);
        let probe: Probe = "10.1.0.5:1 > 10.2.0.9:443/tcp".parse().expect("right");
        let decides = spd.position_out(&probe.flow);
        assert_eq!(decides, Some(4));
        let differs = |peer| WhyNot::Differs(None, Some(peer));
        let both = |one| WhyNot::Differs(Some(one), Some(one));
        let want = [
            Near { entry: 6, why: WhyNot::Later },
            Near { entry: 5, why: WhyNot::OtherDirection },
            Near { entry: 3, why: differs(Differs::Port) },
            Near { entry: 2, why: both(Differs::Protocol) },
            Near { entry: 1, why: differs(Differs::Address) },
        ];
        assert_eq!(near(&spd, &probe.flow, decides), want);
    }
}
