//! What the two sides do not agree on: proposals, identities, keys, certificates, selectors.
//!
//! An answer of IKE says little, on purpose: AUTHENTICATION_FAILED may be the key, an identity or a CA. What is known
//! beyond it comes from experiments, such as an offer of all that we have.

use core::time::Duration;

use super::dialect;
use super::facts::{Facts, LastAttempt, Outcome, Rekeyed};
use super::identity;
use super::path;
use super::report::{Finding, Kind, Note, list};
use crate::config::{render_child, render_identity, render_ike};
use crate::control::protocol::{Code, Failure, PeerState};
use crate::crypto::x509::CertError;
use crate::ike::{CertFault, CloseReason};
use crate::ipsec::pad::{Identity, LocalAuth, Peer};
use crate::ipsec::suite::{ChildProposal, IkeProposal};
use crate::wire::ike::numbers::KeId;

const NAME: &str = "IKE";

pub(super) fn check(facts: &Facts, notes: &mut Vec<Note>) {
    let Some(peer) = facts.config.ike() else { return };
    match facts.attempt.as_ref().map(|attempt| &attempt.outcome) {
        Some(Outcome::Up { ike, child, .. }) => {
            notes.push(Note::Healthy(NAME, format!("IKE_SA with {ike}, CHILD_SA with {child}")));
        }
        Some(Outcome::Failed(last)) => {
            if !path::explains_silence(facts, &last.reason) && identity::unknown_ca(facts).is_none()
            {
                notes.push(of_reason(facts, peer, last).into());
            }
        }
        None => recorded(facts, notes),
    }
}

/// What the daemon's last attempt came to.
fn recorded(facts: &Facts, notes: &mut Vec<Note>) {
    let Some(peer) = facts.recorded.peer() else {
        notes.push(Note::Unchecked(
            NAME,
            "the daemon does not carry this peer: --live makes an attempt of its own".to_owned(),
        ));
        return;
    };
    match (&peer.last_error, peer.state) {
        (_, PeerState::Up) => {
            let suites: Vec<_> = peer.ike_sas.iter().filter_map(|sa| sa.suite.clone()).collect();
            notes.push(Note::Healthy(NAME, format!("up, {}", list(suites))));
        }
        (Some(failure), _) => notes.push(
            Finding::new(of_code(failure.code), failure.message.clone())
                .seen("the daemon's last attempt ended so".to_owned())
                .fix("for more, with an attempt and experiments of its own: ipsecd doctor --live")
                .into(),
        ),
        (None, state) => notes
            .push(Note::Unchecked(NAME, format!("{}, and nothing has failed yet", state.name()))),
    }
}

/// What kind of finding a failure is.
const fn of_code(code: Code) -> Kind {
    match code {
        Code::Auth => Kind::Auth,
        Code::Identity => Kind::Identity,
        Code::Nat => Kind::Nat,
        Code::Proposal => Kind::Proposal,
        Code::Resolve => Kind::Resolve,
        Code::TrafficSelectors => Kind::Selectors,
        Code::Unreachable => Kind::PeerDown,
        Code::BadRequest
        | Code::Config
        | Code::NotEstablished
        | Code::NotFound
        | Code::Peer
        | Code::Stopped
        | Code::System
        | Code::Timeout => Kind::Ike,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most reasons have a sentence and no more")]
fn of_reason(facts: &Facts, peer: &Peer, last: &LastAttempt) -> Finding {
    let Failure { code, message } = &last.failure;
    match &last.reason {
        CloseReason::NoProposal("IKE_SA") => ike_proposal(facts, peer, message),
        CloseReason::NoProposal(_) => child_proposal(facts, peer, message),
        CloseReason::TrafficSelectors => selectors(facts, peer, message),
        CloseReason::IdentityMismatch { got, .. } => other_identity(peer, got, message),
        CloseReason::CertificateOfPeer(CertFault::Certificate(error)) => {
            certificate(facts, peer, error, message)
        }
        CloseReason::CertificateOfPeer(CertFault::Name(_)) => {
            Finding::new(Kind::Identity, format!("the certificate of {} does not stand for the identity that it says", peer.name))
                .seen(message.clone())
                .fix("write an identity that is in the certificate: there as its own, here as [peer] id")
                .ipsecd(&["[peer]", "id = \"b.example.net\"   # a name in the peer's certificate"])
                .swanctl(&["local { id = b.example.net }   # a subjectAltName of its certificate"])
        }
        CloseReason::AuthenticationRefused => refused(facts, peer, message),
        CloseReason::AuthenticationOfPeer => psk(peer, message)
            .seen("its AUTH payload does not fit our key: it took ours, so a MAC of its own is made with another".to_owned()),
        reason => {
            let kind = match reason {
                CloseReason::NatForbidden | CloseReason::AhInUdp => Kind::Nat,
                _ => of_code(*code),
            };
            let finding = Finding::new(kind, message.clone());
            match reason {
                CloseReason::NatForbidden => finding
                    .fix("let ESP go in UDP where there is a NAT")
                    .ipsecd(&["[esp]", "encap = \"auto\""]),
                CloseReason::AhInUdp => finding
                    .fix("use ESP: AH protects the addresses that a NAT changes")
                    .ipsecd(&["[esp]", "protocol = \"esp\""])
                    .swanctl(&["esp_proposals = aes256gcm16   # in place of ah_proposals"]),
                CloseReason::NoTransport => finding
                    .fix("have both sides use the same mode")
                    .ipsecd(&["[esp]", "mode = \"tunnel\""])
                    .swanctl(&["mode = transport   # in the child, if transport mode is meant"]),
                _ => finding.fix("see what the log of the peer says of the same moment"),
            }
        }
    }
}

/// AUTHENTICATION_FAILED, which does not say of what.
fn refused(facts: &Facts, peer: &Peer, message: &str) -> Finding {
    if let (Some(Some(got)), Some(wanted)) = (&facts.experiments.anonymous, &peer.peer_id)
        && !got.is_same(wanted)
    {
        return other_identity(peer, got, message)
            .seen("asked for nobody in particular (without IDr), it authenticates".to_owned());
    }
    match &peer.auth.local {
        LocalAuth::Psk(_) => psk(peer, message),
        LocalAuth::Signature(_) => {
            let name = &peer.name;
            let id = render_identity(&peer.local_id);
            Finding::new(Kind::Auth, format!("{name} does not accept our certificate, or does not know us as {id}"))
                .seen(message.to_owned())
                .fix(format!("at {name}: is our CA's certificate there, and is the identity that it expects {id}?"))
                .fix("is our certificate in force by its clock, and not revoked?")
                .ipsecd(&["[local]", &format!("id = {id:?}")])
                .swanctl(&[&format!("remote {{ auth = pubkey  id = {id} }}"), "# and our CA's certificate in /etc/swanctl/x509ca/"])
        }
        LocalAuth::Eap(_) => Finding::new(Kind::Auth, message.to_owned())
            .fix("compare name and password, and whether the peer wants EAP of us"),
    }
}

/// The key differs, or the identity by which the peer looks it up: an answer cannot tell (RFC 7296 §2.21.2).
fn psk(peer: &Peer, message: &str) -> Finding {
    let name = &peer.name;
    let id = render_identity(&peer.local_id);
    let theirs = peer.peer_id.as_ref().map_or_else(|| "%any".to_owned(), render_identity);
    Finding::new(
        Kind::Auth,
        format!("{name} has another pre-shared key than we, or does not know us as {id}"),
    )
    .seen(message.to_owned())
    .seen("which of the two, IKE does not say: a stranger could try identities otherwise".to_owned())
    .fix("compare the keys, byte for byte: sha256sum of the file, at both ends; `0x…` is hex and `0s…` base64, there too")
    .fix(format!("compare [local] id ({id}) with the identity that {name} expects of us"))
    .ipsecd(&["[local]", &format!("id = {id:?}"), "[auth]", "psk = { file = \"far.psk\" }   # the very bytes that the peer has"])
    .swanctl(&[
        &format!("remote {{ auth = psk  id = {id} }}"),
        &format!("secrets {{ ike-1 {{ id-1 = {id}  id-2 = {theirs}  secret = \"…\" }} }}"),
    ])
}

fn other_identity(peer: &Peer, got: &Identity, message: &str) -> Finding {
    let got = render_identity(got);
    let wanted = peer.peer_id.as_ref().map_or_else(String::new, render_identity);
    Finding::new(
        Kind::Identity,
        format!("{} is {got}, and [peer] id here is {wanted}", peer.name),
    )
    .seen(message.to_owned())
    .fix("if that is the right peer, write its identity here; else have it use the one that is expected")
    .ipsecd(&["[peer]", &format!("id = {got:?}")])
    .swanctl(&[&format!("local {{ id = {wanted} }}   # in place of {got}")])
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most faults have a sentence and no more")]
fn certificate(facts: &Facts, peer: &Peer, error: &CertError, message: &str) -> Finding {
    let name = &peer.name;
    let now = dialect::date(facts.host.now);
    let clock = format!("this host's clock says {now} UTC");
    let set_clock = "if this host's clock is wrong, set it: timedatectl set-ntp true";
    match error {
        CertError::Expired(at) => {
            Finding::new(Kind::Expired, format!("the certificate of {name}, or of a CA above it, expired {at}"))
                .seen(clock)
                .fix(format!("{name} needs another certificate from its CA"))
                .fix(set_clock)
                .swanctl(&["# the new ones in /etc/swanctl/x509/ and /etc/swanctl/private/, then: swanctl --load-creds"])
        }
        CertError::NotYetValid(at) => {
            Finding::new(Kind::Clock, format!("a clock is wrong: the certificate of {name} is not valid before {at}, and it is {now} here"))
                .seen(clock)
                .fix(set_clock)
                .fix(format!("if it is right, the clock of the CA was not when it made the certificate: {name} needs another"))
        }
        CertError::UnknownIssuer(issuer) => {
            Finding::new(Kind::Ca, format!("the certificate of {name} is issued by {issuer}, which is none of the CAs in [auth] ca"))
                .seen(message.to_owned())
                .fix(format!("get the certificate of that CA from whoever runs {name}, by a way that you trust, and add it"))
                .fix(format!("or have {name} use a certificate of a CA that is trusted here, and send those between"))
                .ipsecd(&["[auth]", "ca = [\"ca.pem\", \"their-ca.pem\"]"])
        }
        _ => Finding::new(Kind::Auth, message.to_owned())
            .fix(format!("{name} needs another certificate, or this one has to be allowed: see the key that is named above")),
    }
}

fn ike_proposal(facts: &Facts, peer: &Peer, message: &str) -> Finding {
    let name = &peer.name;
    let ours = dialect::ike_proposals(peer);
    let finding =
        Finding::new(Kind::Proposal, format!("{name} takes none of our proposals for the IKE_SA"));
    let Some(Some(theirs)) = facts.experiments.widest_ike else {
        let finding = if facts.experiments.widest_ike.is_some() {
            finding.seen(format!("{name} takes nothing that this program has, either: it may want 3DES, MODP-1024 or such"))
        } else {
            finding.seen(message.to_owned())
        };
        return finding
            .seen(format!("ours: {}", list(&ours)))
            .fix(format!("have {name} allow one of ours"))
            .swanctl(&[&format!("proposals = {}", ours.join(","))]);
    };
    let theirs = dialect::ike_suite(&theirs);
    let written = render_ike(&theirs);
    let finding = finding
        .seen(format!("ours: {}", list(&ours)))
        .seen(format!("offered all that we have, {name} chooses {written}"));
    let finding = side_by_side(
        finding,
        &peer.ike.proposals,
        &theirs,
        &[
            ("encryption", |it| render_ike(&IkeProposal { encr: it.encr.clone(), ..no_ike() })),
            ("integrity", |it| render_ike(&IkeProposal { integ: it.integ.clone(), ..no_ike() })),
            ("prf", |it| render_ike(&IkeProposal { prf: it.prf.clone(), ..no_ike() })),
            ("group", |it| render_ike(&IkeProposal { ke: it.ke.clone(), ..no_ike() })),
        ],
    );
    finding
        .fix(format!("offer what {name} takes, or have it take what is offered"))
        .ipsecd(&["[ike]", &format!("proposals = {}", dialect::array(&with(&written, &ours)))])
        .swanctl(&[&format!("proposals = {}", ours.join(","))])
}

fn child_proposal(facts: &Facts, peer: &Peer, message: &str) -> Finding {
    let name = &peer.name;
    let ours = dialect::child_proposals(peer);
    let finding = Finding::new(
        Kind::Proposal,
        format!("{name} takes none of our proposals for the CHILD_SA"),
    )
    .seen(format!("ours: {}", list(&ours)));
    let Some(Some(theirs)) = &facts.experiments.widest_child else {
        return finding
            .seen(message.to_owned())
            .fix(format!("have {name} allow one of ours"))
            .swanctl(&[&format!("esp_proposals = {}", ours.join(","))]);
    };
    let groups = peer.children.iter().flat_map(|it| &it.proposals).find(|it| !it.ke.is_empty());
    let theirs = dialect::child_suite(theirs, groups.map_or(&[], |it| &it.ke[..]));
    let written = render_child(&theirs);
    let finding = finding.seen(format!("offered all that we have, {name} chooses {written}"));
    let all: Vec<_> = peer.children.iter().flat_map(|it| it.proposals.clone()).collect();
    let finding = side_by_side(
        finding,
        &all,
        &theirs,
        &[
            ("encryption", |it: &ChildProposal| {
                render_child(&ChildProposal { encr: it.encr.clone(), ..no_child(it) })
            }),
            ("integrity", |it| {
                render_child(&ChildProposal { integ: it.integ.clone(), ..no_child(it) })
            }),
            ("sequence", |it| render_child(&ChildProposal { esn: it.esn.clone(), ..no_child(it) })),
        ],
    );
    finding
        .fix(format!("offer what {name} takes, or have it take what is offered"))
        .ipsecd(&["[esp]", &format!("proposals = {}", dialect::array(&with(&written, &ours)))])
        .swanctl(&[&format!("esp_proposals = {}", ours.join(","))])
}

/// A transform type, and how that of a proposal is written.
type Column<P> = (&'static str, fn(&P) -> String);

/// Transform by transform: what each of ours has, what the peer chooses, and whether they differ.
fn side_by_side<P>(mut finding: Finding, ours: &[P], theirs: &P, types: &[Column<P>]) -> Finding {
    for (name, of) in types {
        let mut here: Vec<String> = Vec::new();
        for text in ours.iter().map(of) {
            if !here.contains(&text) {
                here.push(text);
            }
        }
        let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        let there = of(theirs);
        if there.is_empty() && here.iter().all(String::is_empty) {
            continue;
        }
        let word = |text: &String| text.split('-').any(|word| word == there) || *text == there;
        let verdict = if here.iter().any(word) { "the same" } else { "differs" };
        let here = list(here.iter().map(|text| shown(text)));
        finding =
            finding.seen(format!("{name:<10} here {here}; there {} ({verdict})", shown(&there)));
    }
    finding
}

const fn no_ike() -> IkeProposal {
    IkeProposal {
        encr: vec![],
        integ: vec![],
        prf: vec![],
        ke: vec![],
        addke: [const { vec![] }; 7],
    }
}

fn no_child(like: &ChildProposal) -> ChildProposal {
    ChildProposal {
        protocol: like.protocol,
        encr: vec![],
        integ: vec![],
        ke: vec![],
        addke: Default::default(),
        esn: vec![crate::wire::ike::numbers::EsnId::NO_ESN],
    }
}

/// What the peer takes first, then ours.
fn with(theirs: &str, ours: &[String]) -> Vec<String> {
    let mut all = vec![theirs.to_owned()];
    all.extend(ours.iter().filter(|it| *it != theirs).cloned());
    all
}

fn selectors(facts: &Facts, peer: &Peer, message: &str) -> Finding {
    let name = &peer.name;
    let local = dialect::selectors(peer.children.iter().flat_map(|it| &it.ts_local));
    let remote = dialect::selectors(peer.children.iter().flat_map(|it| &it.ts_peer));
    let finding =
        Finding::new(Kind::Selectors, format!("{name} has no subnets in common with ours"))
            .seen(format!("here: {} === {}", list(&local), list(&remote)));
    match &facts.experiments.widest_ts {
        Some(Some((theirs, ours))) => {
            let (theirs, ours) = (dialect::selectors(theirs), dialect::selectors(ours));
            let side = |what: &str, here: &[String], there: &[String]| {
                let verdict = if here == there { "the same" } else { "differ" };
                format!("{what} {} here, {} there ({verdict})", list(here), list(there))
            };
            finding
                .seen(side("subnets on this side:", &local, &ours))
                .seen(side("subnets behind the peer:", &remote, &theirs))
                .fix("write the same at both ends, where they stand the other way round")
                .ipsecd(&[
                    "[local]",
                    &format!("subnets = {}", dialect::array(&ours)),
                    "[peer]",
                    &format!("subnets = {}", dialect::array(&theirs)),
                ])
        }
        Some(None) | None => finding
            .seen(message.to_owned())
            .fix("compare the subnets of both ends: what is local here is remote there")
            .ipsecd(&[
                "[local]",
                &format!("subnets = {}", dialect::array(&local)),
                "[peer]",
                &format!("subnets = {}", dialect::array(&remote)),
            ]),
    }
    .swanctl(&[
        &format!("local_ts = {}", remote.join(",")),
        &format!("remote_ts = {}", local.join(",")),
    ])
}

/// A rekey at once tells whether the first one will work, which is hours away.
pub(super) fn rekey(facts: &Facts, notes: &mut Vec<Note>) {
    const NAME: &str = "rekey";
    let Some(peer) = facts.config.ike() else { return };
    let Some(Outcome::Up { rekeyed, .. }) = facts.attempt.as_ref().map(|it| &it.outcome) else {
        return;
    };
    let name = &peer.name;
    match rekeyed {
        Rekeyed::Yes => {
            notes.push(Note::Healthy(NAME, "the CHILD_SA can be replaced (PFS agrees)".to_owned()));
        }
        Rekeyed::Untried => {}
        Rekeyed::Unanswered => notes.push(
            Finding::new(
                Kind::Pfs,
                format!("{name} does not answer when the CHILD_SA is to be rekeyed"),
            )
            .fix("see what the peer's log says of CREATE_CHILD_SA")
            .into(),
        ),
        Rekeyed::Refused(reason) => {
            let group = |ke: KeId| {
                let ke = if ke == KeId::NONE { vec![] } else { vec![ke] };
                let text = render_ike(&IkeProposal { ke, ..no_ike() });
                if text.is_empty() { "no group (no PFS)".to_owned() } else { text }
            };
            let mut ours: Vec<_> = peer
                .children
                .iter()
                .flat_map(|it| &it.proposals)
                .flat_map(|it| if it.ke.is_empty() { vec![KeId::NONE] } else { it.ke.clone() })
                .collect();
            ours.dedup();
            let when = peer.children.first().and_then(|it| it.lifetime.soft_time);
            let when = when.map_or_else(
                || "at its first rekey".to_owned(),
                |time: Duration| {
                    format!("when it is first rekeyed, in {}", humantime::format_duration(time))
                },
            );
            let finding = Finding::new(
                Kind::Pfs,
                format!("the groups for PFS differ: the tunnel comes up, and breaks {when}"),
            )
            .seen(format!("rekeyed at once, {name} refuses: {reason}"))
            .seen(format!("here: {}", list(ours.iter().map(|ke| group(*ke)))));
            let finding = match facts.experiments.rekey_group {
                Some(Some(theirs)) => {
                    let proposals: Vec<_> = peer
                        .children
                        .iter()
                        .flat_map(|it| &it.proposals)
                        .map(|it| {
                            let ke = if theirs == KeId::NONE { vec![] } else { vec![theirs] };
                            render_child(&ChildProposal { ke, ..it.clone() })
                        })
                        .collect();
                    finding
                        .seen(format!("with {} it is taken", group(theirs)))
                        .fix("use the same group at both ends")
                        .ipsecd(&["[esp]", &format!("proposals = {}", dialect::array(&proposals))])
                }
                Some(None) | None => {
                    finding.fix("compare the group in [esp] proposals with that in the peer's")
                }
            };
            notes.push(
                finding
                    .swanctl(&[&format!(
                        "esp_proposals = {}",
                        dialect::child_proposals(peer).join(",")
                    )])
                    .into(),
            );
        }
    }
}
