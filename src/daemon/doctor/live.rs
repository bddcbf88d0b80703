//! What is tried with the peer itself, each experiment only where it can tell something.

use super::offers;
use super::prober::{Prober, Ran};
use crate::control::protocol::PeerState;
use crate::daemon::advice;
use crate::doctor::{Answer, Attempt, Experiments, LastAttempt, Outcome, Recorded, Rekeyed, Route};
use crate::ike::CloseReason;
use crate::ike::proposal::{Made, accept_ike};
use crate::ipsec::Mode;
use crate::ipsec::pad::{Fragments, Peer};
use crate::wire::ike::numbers::KeId;

/// An attempt, unless the daemon has the peer up, and the experiments that follow from how it ends.
pub(super) fn examine(
    peer: &Peer,
    route: &Route,
    recorded: &Recorded,
) -> (Option<Attempt>, Experiments) {
    let mut tried = Experiments::default();
    let prober = match Prober::open(route) {
        Ok(prober) => prober,
        Err(error) => {
            tracing::warn!(%error, "no socket towards the peer");
            return (None, tried);
        }
    };
    if recorded.peer().is_some_and(|status| status.state == PeerState::Up) {
        // Another IKE SA could take packets away from the one that is in use.
        let natt = recorded.peer().into_iter().flat_map(|it| &it.ike_sas).any(|sa| sa.nat_peer);
        tried.mtu = prober.mtu(natt);
        return (None, tried);
    }
    let ran = prober.attempt(offers::plain(peer), true);
    let natt = ran.auth_sent.is_some_and(|sent| sent.natt);
    if !ran.init_answered {
        tried.port_500 = Some(ran.icmp.unwrap_or_else(|| prober.ask(false)));
        tried.port_4500 = Some(prober.ask(true));
        if tried.port_500 == Some(Answer::Silence) && tried.port_4500 == Some(Answer::Silence) {
            tried.echo = prober.echo();
        }
    }
    match &ran.reason {
        Some(reason) => follow(&prober, peer, &ran, reason, &mut tried),
        None => {
            if let Rekeyed::Refused(_) = ran.rekeyed {
                tried.rekey_group = Some(rekey_group(&prober, peer));
            }
        }
    }
    let answers = ran.init_answered || tried.port_4500 == Some(Answer::Ike);
    let blocked = tried.port_4500.is_some_and(|answer| answer != Answer::Ike);
    if answers {
        tried.mtu = prober.mtu(!ran.init_answered || (natt && !blocked));
    }
    let sa = ran.sa.as_ref();
    let attempt = Attempt {
        own_ports: prober.has_own_ports(),
        nat_local: sa.is_some_and(|sa| sa.nat_local),
        nat_peer: sa.is_some_and(|sa| sa.nat_peer),
        outcome: outcome(peer, &ran),
        init_answered: ran.init_answered,
        auth_sent: ran.auth_sent,
        peer_cas: ran.peer_cas,
    };
    (Some(attempt), tried)
}

fn outcome(peer: &Peer, ran: &Ran) -> Outcome {
    let suite = |sa: &crate::ike::SaStatus| sa.suite.map(|suite| suite.to_string());
    match (&ran.reason, &ran.sa, &ran.child) {
        (None, Some(sa), Some(child)) => Outcome::Up {
            ike: suite(sa).unwrap_or_default(),
            child: child.suite.to_string(),
            rekeyed: ran.rekeyed.clone(),
        },
        (reason, ..) => {
            let reason = reason.clone().unwrap_or(CloseReason::Limit("it did not come to an end"));
            let failure = advice::of_close(peer, &reason);
            Outcome::Failed(LastAttempt { reason, failure })
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most reasons need no experiment")]
fn follow(prober: &Prober, peer: &Peer, ran: &Ran, reason: &CloseReason, tried: &mut Experiments) {
    match reason {
        CloseReason::NoProposal("IKE_SA") => {
            let widest = offers::any_ike(peer);
            let offered = widest.ike.proposals.clone();
            let chosen = prober.attempt(widest, false).chosen;
            let made = Made::First { intermediate: false };
            let chosen = chosen.and_then(|sa| accept_ike(&offered, &sa, made));
            tried.widest_ike = Some(chosen.map(|chosen| chosen.suite));
        }
        CloseReason::NoProposal(_) => {
            let child = prober.attempt(offers::any_child(peer), false).child;
            tried.widest_child = Some(child.map(|child| child.suite));
        }
        CloseReason::TrafficSelectors
            if peer.children.first().is_some_and(|child| child.mode == Mode::Tunnel) =>
        {
            let child = prober.attempt(offers::any_selectors(peer), false).child;
            tried.widest_ts =
                Some(child.map(|child| (child.ts_peer.to_vec(), child.ts_local.to_vec())));
        }
        CloseReason::AuthenticationRefused if peer.peer_id.is_some() => {
            let sa = prober.attempt(offers::anybody(peer), false).sa;
            tried.anonymous = Some(sa.and_then(|sa| sa.peer_id));
        }
        CloseReason::Unreachable { .. } if ran.init_answered => {
            if ran.auth_sent.is_some_and(|sent| sent.natt) {
                tried.port_500 = Some(Answer::Ike);
                tried.port_4500 = Some(prober.ask(true));
            }
            let open = tried.port_4500.is_none_or(|answer| answer == Answer::Ike);
            if open && peer.ike.fragmentation.fragments != Fragments::Yes {
                let again = prober.attempt(offers::small_fragments(peer), false);
                let answered = again.sa.is_some()
                    || again
                        .reason
                        .is_some_and(|it| !matches!(it, CloseReason::Unreachable { .. }));
                tried.small_fragments = Some(answered);
            }
        }
        _ => {}
    }
}

/// With which group the CHILD_SA can be rekeyed.
fn rekey_group(prober: &Prober, peer: &Peer) -> Option<KeId> {
    let all = core::iter::once(KeId::NONE).chain(offers::groups());
    all.into_iter().find(|group| {
        let ran = prober.attempt(offers::with_group(peer, *group), true);
        matches!(ran.rekeyed, Rekeyed::Yes)
    })
}
