//! What an operator is told when a tunnel does not come up: the cause, named on our side of the wire, and what to
//! compare. Every such sentence is made here.

use core::fmt::{Display, Write};
use core::net::IpAddr;
use core::time::Duration;
use std::io;

use ipnet::IpNet;

use crate::config::{Config, render_child, render_identity, render_ike};
use crate::control::protocol::{Code, Failure, UpPhase};
use crate::crypto::x509::CertError;
use crate::ike::EapFault;
use crate::ike::{CertFault, CloseReason};
use crate::io::route::prefixes;
use crate::ipsec::TrafficSelector;
use crate::ipsec::pad::{LocalAuth, Peer, PeerAddress};

/// Why an IKE SA or CHILD_SA of `peer` ended or did not come to be.
#[must_use]
pub fn of_close(peer: &Peer, reason: &CloseReason) -> Failure {
    let name = &peer.name;
    let (code, message) = match reason {
        CloseReason::AuthenticationOfPeer => (
            Code::Auth,
            format!(
                "{name} does not hold our pre-shared key: compare [auth] psk with the peer's, byte for byte"
            ),
        ),
        CloseReason::AuthenticationRefused => {
            let (what, key) = match &peer.auth.local {
                LocalAuth::Signature(_) => ("certificate", "cert, and the peer's CAs,"),
                LocalAuth::Psk(_) => ("pre-shared key", "psk"),
                LocalAuth::Eap(_) => ("wish for EAP", "local"),
            };
            (
                Code::Auth,
                format!(
                    "{name} refused our {what} or our identity {}: compare [auth] {key} and [local] id with \
                     what the peer has for us",
                    render_identity(&peer.local_id)
                ),
            )
        }
        CloseReason::CertificateOfPeer(fault) => (
            Code::Auth,
            format!("the certificate of {name} is not accepted: {fault}; {}", of_fault(fault)),
        ),
        CloseReason::MethodOfPeer { got, expected } => (
            Code::Auth,
            format!(
                "{name} proved itself by {got}, and {expected} is expected here: compare [auth] peer with how the \
                 peer is set up"
            ),
        ),
        CloseReason::Eap(fault) => {
            (Code::Auth, format!("EAP with {name} failed: {fault}; {}", of_eap(fault)))
        }
        CloseReason::CannotSign(why) => (
            Code::Auth,
            format!("we cannot prove to {name} who we are: {why}; use another [auth] key"),
        ),
        CloseReason::IdentityMismatch { expected, got } => (
            Code::Identity,
            format!(
                "{name} says that it is {got}, and [peer] id here is {expected}: compare [peer] id with the \
                 peer's own identity"
            ),
        ),
        CloseReason::Ppk(why) => (
            Code::Auth,
            format!(
                "{name} and we do not use the same post-quantum preshared key: {why}; compare [auth] ppk, its id \
                 and ppk-required with what the peer has"
            ),
        ),
        CloseReason::NoProposal(what) => (Code::Proposal, no_proposal(peer, what)),
        CloseReason::TrafficSelectors => (
            Code::TrafficSelectors,
            format!(
                "{name} does not accept our subnets: ours are {} and theirs {}; compare [local] subnets and \
                 [peer] subnets with the peer's, where they stand the other way round",
                subnets(peer, |child| &child.ts_local),
                subnets(peer, |child| &child.ts_peer),
            ),
        ),
        CloseReason::Unreachable { exchange, tries } => {
            let asked = Asked { tries: *tries, ..Asked::default() };
            (Code::Unreachable, unreachable(peer, exchange, asked, None))
        }
        CloseReason::NoAddress { refused: true } => (
            Code::Peer,
            format!(
                "{name} has no address left for us (INTERNAL_ADDRESS_FAILURE): compare [local] virtual with its pool, which \
                 may be used up"
            ),
        ),
        CloseReason::NoAddress { refused: false } => (
            Code::Peer,
            format!(
                "{name} gave us no address: it needs a pool for us (in strongSwan `pools`, here [peer] pool), or else \
                 leave [local] virtual out"
            ),
        ),
        CloseReason::NatForbidden => (
            Code::Nat,
            format!(
                "a NAT is between us and {name}, and [esp] encap = \"none\" forbids UDP encapsulation: set it to \
                 \"auto\""
            ),
        ),
        CloseReason::AhInUdp => (
            Code::Nat,
            format!(
                "a NAT is between us and {name}, and AH cannot pass it: set [esp] protocol = \"esp\" on both sides"
            ),
        ),
        CloseReason::TransportElsewhere { local, remote } => (
            Code::TrafficSelectors,
            format!(
                "transport mode is for packets between the two hosts: IKE with {name} runs between {local} and \
                 {remote}, and the subnets here are {} and {}",
                subnets(peer, |child| &child.ts_local),
                subnets(peer, |child| &child.ts_peer),
            ),
        ),
        CloseReason::NoTransport => (
            Code::Proposal,
            format!(
                "{name} does not take transport mode: set [esp] mode = \"transport-or-tunnel\" here, or allow \
                 transport mode there"
            ),
        ),
        CloseReason::PeerRestarted => (
            Code::Peer,
            format!(
                "{name} has restarted and lost the IKE_SA; it is made anew: nothing to do here"
            ),
        ),
        CloseReason::DeletedByPeer => (
            Code::Peer,
            format!("{name} deleted the IKE_SA: look at the peer's log for its reason"),
        ),
        CloseReason::Operator => (Code::Stopped, format!("{name} was taken down from this side")),
        CloseReason::Lifetime => (
            Code::Peer,
            format!("the IKE_SA with {name} reached its lifetime before it was rekeyed"),
        ),
        CloseReason::NotUnique => (
            Code::Peer,
            format!(
                "{name} has an IKE_SA with us from another address already, and [ike] unique = \"keep\" keeps that: end it, or \
                 set unique = \"replace\""
            ),
        ),
        CloseReason::Replaced => {
            (Code::Peer, format!("{name} began a new IKE_SA in place of this one"))
        }
        CloseReason::PeerNotify(notify) => {
            (Code::Peer, format!("{name} answered {notify}: look at the peer's log for its reason"))
        }
        CloseReason::PeerMisbehaved(rule) => (
            Code::Peer,
            format!("{name} broke the protocol ({rule}): look whether it really speaks IKEv2"),
        ),
        CloseReason::Limit(what) => (Code::System, format!("{name}: {what}")),
    };
    Failure { code, message }
}

/// The same of one of its CHILD_SAs: of several it is named, and what is to be compared is its own.
#[must_use]
pub fn of_child(peer: &Peer, child: &str, reason: &CloseReason) -> Failure {
    if peer.children.len() < 2 {
        return of_close(peer, reason);
    }
    let mut alone = peer.clone();
    alone.children.retain(|of_peer| *of_peer.name == *child);
    let Failure { code, message } = of_close(&alone, reason);
    Failure { code, message: format!("[[child]] {child}: {message}") }
}

/// What to look at when EAP came to nothing.
const fn of_eap(fault: &EapFault) -> &'static str {
    match fault {
        EapFault::Malformed(_) | EapFault::TooMany => "see what the peer's log says",
        EapFault::Method => "compare [auth] eap-methods with what the peer has",
        EapFault::Name(_) => "compare the names in it with the peer's id, and its EAP identity",
        EapFault::Password(_) => "compare [[auth.eap-user]] with what the peer has",
        EapFault::Refused => {
            "compare [auth] eap-identity and eap-password (or cert) with what the peer has for us"
        }
        EapFault::ServerProof => {
            "whoever answers has another password: compare [auth] eap-password"
        }
        EapFault::Setup(_) => "see [auth]",
        EapFault::Tls(_) => "compare [auth] ca with the other side's certificate, in both places",
        EapFault::Unwanted => "add peer = \"eap\" to [auth] if that is right",
    }
}

/// What to look at when a peer's certificate is not accepted.
fn of_fault(fault: &CertFault) -> &'static str {
    match fault {
        CertFault::Certificate(error) => match error {
            CertError::UnknownIssuer(_) => "add its CA's certificate to [auth] ca",
            CertError::Expired(_) | CertError::NotYetValid(_) => {
                "the peer needs another one, unless a clock is wrong"
            }
            CertError::Revoked => "the peer needs another one",
            CertError::StatusUnknown(_) => {
                "put a CRL of its CA into [auth] crl, have the peer send an OCSP response, or set [auth] revocation = \"relaxed\""
            }
            CertError::CrlExpired(_) | CertError::CrlSignature => {
                "put the CA's newest CRL into [auth] crl, and load the configuration again"
            }
            CertError::ExtendedKeyUsage => {
                "the peer needs another one, or set [auth] extended-key-usage = \"any\""
            }
            CertError::CaCertificate
            | CertError::Key(_)
            | CertError::KeyUsage
            | CertError::Malformed(_)
            | CertError::NameConstraints
            | CertError::Path(_)
            | CertError::SignatureAlgorithm
            | CertError::TooLong => "the peer needs another one",
        },
        CertFault::Downgrade(_) => "see that the peer keeps to RFC 7427",
        CertFault::Key(_) | CertFault::UnknownKey => {
            "compare [auth] public-key with the peer's key"
        }
        CertFault::Missing => "see that the peer sends its certificate",
        CertFault::Name(_) => "compare [peer] id with the names in it",
        CertFault::Scheme => "see that the peer signs with RSA, ECDSA or Ed25519, and SHA-2",
        CertFault::Sha1 => {
            "the peer has to sign with SHA-2 (RFC 7427), or else set [auth] allow-sha1 = true"
        }
        CertFault::Signature => "see that the peer's private key is the certificate's",
        CertFault::TooMany => "see that the peer sends only what leads to its CA",
    }
}

/// Whether trying again without a change of configuration is in vain, so that `up` need not wait.
#[must_use]
pub const fn is_fatal(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::AuthenticationOfPeer
        | CloseReason::AhInUdp
        | CloseReason::AuthenticationRefused
        | CloseReason::CannotSign(_)
        | CloseReason::CertificateOfPeer(_)
        | CloseReason::Eap(_)
        | CloseReason::IdentityMismatch { .. }
        | CloseReason::MethodOfPeer { .. }
        | CloseReason::NatForbidden
        | CloseReason::NoAddress { .. }
        | CloseReason::NoProposal(_)
        | CloseReason::NoTransport
        | CloseReason::PeerMisbehaved(_)
        | CloseReason::PeerNotify(_)
        | CloseReason::Ppk(_)
        | CloseReason::TrafficSelectors
        | CloseReason::TransportElsewhere { .. } => true,
        CloseReason::DeletedByPeer
        | CloseReason::Lifetime
        | CloseReason::Limit(_)
        | CloseReason::NotUnique
        | CloseReason::Operator
        | CloseReason::PeerRestarted
        | CloseReason::Replaced
        | CloseReason::Unreachable { .. } => false,
    }
}

/// Whom a request was sent to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// How often it was sent to the last address.
    pub tries: u32,
    /// The addresses.
    pub addresses: &'a [IpAddr],
    /// What the system said of the last one.
    pub heard: Option<io::ErrorKind>,
}

/// The time of `up` ran out in `phase`.
#[must_use]
pub fn of_timeout(
    config: &Config,
    phase: UpPhase,
    asked: Asked<'_>,
    waited: Duration,
    last: Option<&Failure>,
) -> Failure {
    let name = config.name();
    let seconds = waited.as_secs();
    match (phase, config.ike()) {
        (UpPhase::IkeSaInit | UpPhase::IkeAuth, Some(peer)) if asked.tries > 0 => Failure {
            code: Code::Unreachable,
            message: unreachable(peer, phase.name(), asked, Some(waited)),
        },
        (UpPhase::Resolve, _) if last.is_none() && is_name(config.address()) => {
            of_resolve(config.address(), &format_args!("no answer after {seconds} s"))
        }
        (
            UpPhase::Resolve
            | UpPhase::IkeSaInit
            | UpPhase::IkeAuth
            | UpPhase::ChildSa
            | UpPhase::ManualSas
            | UpPhase::Routes,
            _,
        ) => last.cloned().unwrap_or_else(|| Failure {
            code: Code::Timeout,
            message: format!(
                "{name} is not up after {seconds} s, and was last seen in {}: allow more with --timeout, or look \
                 at the log",
                phase.name()
            ),
        }),
    }
}

/// The peer's name leads nowhere.
#[must_use]
pub fn of_resolve(address: &PeerAddress, cause: &dyn Display) -> Failure {
    let address = self::address(address);
    Failure {
        code: Code::Resolve,
        message: format!(
            "cannot find the address of {address}: {cause}; check [peer] address and this host's resolver"
        ),
    }
}

/// What `[local] address` says is not here.
#[must_use]
pub fn of_foreign_address(name: &str, local: IpAddr) -> Failure {
    Failure {
        code: Code::Unreachable,
        message: format!(
            "[local] address {local} of {name} is none of this host's addresses: write one that it has, or leave it out"
        ),
    }
}

/// The peer's address leads to ourselves.
#[must_use]
pub fn of_own_address(name: &str, remote: IpAddr) -> Failure {
    Failure {
        code: Code::Unreachable,
        message: format!(
            "{name} would be this host itself, which has {remote}: check [peer] address, where the other host belongs"
        ),
    }
}

/// There is no way to the peer.
#[must_use]
pub fn of_no_route(name: &str, remote: IpAddr, cause: &dyn Display) -> Failure {
    Failure {
        code: Code::Unreachable,
        message: format!(
            "no way from here to {name} at {remote}: {cause}; check [peer] address, [local] address and this \
             host's routes"
        ),
    }
}

const fn is_name(address: &PeerAddress) -> bool {
    matches!(address, PeerAddress::Name(_))
}

fn unreachable(
    peer: &Peer,
    exchange: &str,
    Asked { tries, addresses, heard }: Asked<'_>,
    waited: Option<Duration>,
) -> String {
    let name = &peer.name;
    let mut place = address(&peer.address);
    let asked = Some(addresses).filter(|_| is_name(&peer.address)).unwrap_or_default();
    let asked: Vec<_> = asked.iter().map(IpAddr::to_string).collect();
    // Writing into a String does not fail.
    if !asked.is_empty() {
        let _infallible = write!(place, ", {}", asked.join(", "));
    }
    let mut text = format!("no answer from {name} ({place}) to {exchange}");
    if asked.len() < 2 {
        let word = if tries == 1 { "try" } else { "tries" };
        let _infallible = write!(text, " after {tries} {word}");
    }
    if let Some(waited) = waited {
        let _infallible = write!(text, " in {} s", waited.as_secs());
    }
    text.push_str(if exchange != "IKE_SA_INIT" {
        ": the peer answered before, so check that firewalls between let UDP 4500, and fragments, pass"
    } else if heard == Some(io::ErrorKind::ConnectionRefused) {
        ": nothing listens on its UDP port 500, as it says by ICMP; see that IKE runs there, and check [peer] address"
    } else if matches!(
        heard,
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
    ) {
        ": nobody answers for that address, or no way leads there, as the network says; check [peer] address, and the routes and firewalls between"
    } else if heard == Some(io::ErrorKind::PermissionDenied) {
        ": this host does not let it out; let UDP 500 and 4500 pass its own firewall"
    } else {
        ": check [peer] address, that IKE runs there, and that firewalls between let UDP 500 and 4500 pass"
    });
    text
}

fn no_proposal(peer: &Peer, what: &str) -> String {
    let name = &peer.name;
    let (section, ours) = if what.contains("CHILD") {
        let proposals = peer.children.iter().flat_map(|child| &child.proposals);
        ("[esp] proposals", proposals.map(render_child).collect::<Vec<_>>().join(", "))
    } else {
        (
            "[ike] proposals",
            peer.ike.proposals.iter().map(render_ike).collect::<Vec<_>>().join(", "),
        )
    };
    // A responder that has nothing for the initiator's address, or no IKEv2 for it, says the same.
    let besides =
        if what.contains("CHILD") { "" } else { ", and see that it takes IKEv2 from our address" };
    format!(
        "{name} has none of our proposals for the {what}: ours are {ours}; compare {section} with the peer's{besides}"
    )
}

/// The selectors of all children, as prefixes where they are.
fn subnets(
    peer: &Peer,
    side: impl Fn(&crate::ipsec::pad::ChildPolicy) -> &Vec<TrafficSelector>,
) -> String {
    let all: Vec<_> = peer.children.iter().flat_map(|child| side(child).clone()).collect();
    let nets: Vec<_> = prefixes(&all).iter().map(IpNet::to_string).collect();
    nets.join(", ")
}

fn address(address: &PeerAddress) -> String {
    match address {
        PeerAddress::Any => "anywhere".to_owned(),
        PeerAddress::Ip(addr) => addr.to_string(),
        PeerAddress::Name(name) => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::sample::{config, site_b};
    use crate::ipsec::pad::Identity;
    use crate::wire::ike::numbers::{AuthMethod, NotifyType};

    fn every_reason() -> Vec<CloseReason> {
        vec![
            CloseReason::AuthenticationOfPeer,
            CloseReason::AuthenticationRefused,
            CloseReason::IdentityMismatch {
                expected: Identity::Fqdn("b.example.net".into()),
                got: Identity::Fqdn("c.example.net".into()),
            },
            CloseReason::CertificateOfPeer(CertFault::Missing),
            CloseReason::CertificateOfPeer(CertError::UnknownIssuer("CN=x".into()).into()),
            CloseReason::MethodOfPeer {
                got: AuthMethod::SHARED_KEY_MIC,
                expected: "a certificate",
            },
            CloseReason::Eap(EapFault::Method),
            CloseReason::CannotSign("the key failed"),
            CloseReason::Ppk("the peer does without"),
            CloseReason::NoProposal("IKE_SA"),
            CloseReason::NoProposal("CHILD_SA"),
            CloseReason::TrafficSelectors,
            CloseReason::Unreachable { exchange: "IKE_SA_INIT", tries: 5 },
            CloseReason::Unreachable { exchange: "IKE_AUTH", tries: 5 },
            CloseReason::NatForbidden,
            CloseReason::DeletedByPeer,
            CloseReason::Operator,
            CloseReason::PeerRestarted,
            CloseReason::Lifetime,
            CloseReason::Replaced,
            CloseReason::NotUnique,
            CloseReason::PeerNotify(NotifyType::INVALID_SYNTAX),
            CloseReason::PeerMisbehaved("a rule"),
            CloseReason::Limit("too many"),
        ]
    }

    fn says(reason: &CloseReason, code: Code, words: &[&str]) {
        let failure = of_close(&site_b(), reason);
        assert_eq!(failure.code, code);
        for word in words {
            assert!(failure.message.contains(word), "{word:?} is not in {:?}", failure.message);
        }
    }

    #[test]
    fn every_reason_is_one_sentence_that_names_the_peer() {
        for reason in every_reason() {
            let message = of_close(&site_b(), &reason).message;
            assert!(message.contains("site-b"), "{message}");
            assert!(!message.ends_with('.') && !message.contains('\n'), "{message}");
            assert!(!message.contains("  "), "{message}");
        }
    }

    #[test]
    fn wrong_psk_names_what_to_compare() {
        says(&CloseReason::AuthenticationOfPeer, Code::Auth, &["pre-shared key", "[auth] psk"]);
        says(
            &CloseReason::AuthenticationRefused,
            Code::Auth,
            &["refused our pre-shared key", "a.example.net", "[auth] psk", "[local] id"],
        );
    }

    #[test]
    fn wrong_id_names_both_identities() {
        let reason = CloseReason::IdentityMismatch {
            expected: Identity::Fqdn("b.example.net".into()),
            got: Identity::Fqdn("c.example.net".into()),
        };
        says(&reason, Code::Identity, &["b.example.net", "c.example.net", "[peer] id"]);
    }

    #[test]
    fn no_common_proposal_lists_ours() {
        let ike = CloseReason::NoProposal("IKE_SA");
        says(&ike, Code::Proposal, &["aes256gcm16-prfsha384-x25519", "[ike] proposals"]);
        let child = CloseReason::NoProposal("CHILD_SA");
        says(&child, Code::Proposal, &["aes256gcm16", "[esp] proposals"]);
    }

    #[test]
    fn mismatched_subnets_lists_both_sides() {
        says(
            &CloseReason::TrafficSelectors,
            Code::TrafficSelectors,
            &["10.1.0.0/16", "10.2.0.0/16", "fd02::/112", "[local] subnets", "[peer] subnets"],
        );
    }

    #[test]
    fn of_several_children_the_one_that_failed_is_named_with_its_own_subnets() {
        let mut peer = site_b();
        let reason = CloseReason::TrafficSelectors;
        assert_eq!(of_child(&peer, "lan", &reason), of_close(&peer, &reason));
        let mut dmz = peer.children[0].clone();
        dmz.name = "dmz".into();
        let prefix = TrafficSelector::from_prefix([10, 9, 0, 0].into(), 16).unwrap();
        dmz.ts_peer = vec![prefix];
        peer.children.push(dmz);
        let message = of_child(&peer, "dmz", &reason).message;
        assert!(message.starts_with("[[child]] dmz: site-b does not accept"), "{message}");
        assert!(message.contains("10.9.0.0/16") && !message.contains("10.2.0.0/16"), "{message}");
    }

    #[test]
    fn unreachable_peer_names_address_tries_and_ports() {
        let reason = CloseReason::Unreachable { exchange: "IKE_SA_INIT", tries: 5 };
        let words = ["b.example.net", "IKE_SA_INIT", "5 tries", "[peer] address", "UDP 500"];
        says(&reason, Code::Unreachable, &words);
    }

    #[test]
    fn forbidden_nat_names_the_key() {
        says(&CloseReason::NatForbidden, Code::Nat, &["NAT", "[esp] encap"]);
    }

    #[test]
    fn timeout_without_an_answer_is_unreachable() {
        let waited = Duration::from_secs(30);
        let asked: [IpAddr; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        let of = |tries, addresses| {
            let asked = Asked { tries, addresses, heard: None };
            of_timeout(&config(), UpPhase::IkeSaInit, asked, waited, None)
        };
        let failure = of(4, &[]);
        assert_eq!(failure.code, Code::Unreachable);
        assert!(failure.message.contains("4 tries in 30 s"), "{failure}");
        let failure = of(1, &asked[..1]);
        assert!(failure.message.contains("(b.example.net, 192.0.2.1)"), "{failure}");
        assert!(failure.message.contains("after 1 try in 30 s"), "{failure}");
        let failure = of(4, &asked);
        let all = "(b.example.net, 192.0.2.1, 192.0.2.2) to IKE_SA_INIT in 30 s";
        assert!(failure.message.contains(all), "{failure}");
    }

    #[test]
    fn what_icmp_says_of_silence_is_the_cause() {
        let of = |kind| {
            let asked = Asked { tries: 3, addresses: &[], heard: Some(kind) };
            let waited = Duration::from_secs(5);
            of_timeout(&config(), UpPhase::IkeSaInit, asked, waited, None).message
        };
        for (kind, cause) in [
            (io::ErrorKind::ConnectionRefused, "nothing listens on its UDP port 500"),
            (io::ErrorKind::HostUnreachable, "nobody answers for that address"),
            (io::ErrorKind::NetworkUnreachable, "nobody answers for that address"),
            (io::ErrorKind::PermissionDenied, "this host does not let it out"),
            (io::ErrorKind::Other, "check [peer] address, that IKE runs there"),
        ] {
            assert!(of(kind).contains(cause), "{kind:?}: {}", of(kind));
        }
    }

    #[test]
    fn a_resolver_that_is_silent_is_named_as_the_cause() {
        let waited = Duration::from_secs(30);
        let failure = of_timeout(&config(), UpPhase::Resolve, Asked::default(), waited, None);
        assert_eq!(failure.code, Code::Resolve);
        for part in ["b.example.net", "no answer after 30 s", "[peer] address", "resolver"] {
            assert!(failure.message.contains(part), "{part:?} is not in: {failure}");
        }
    }

    #[test]
    fn timeout_while_failing_says_the_last_failure() {
        let last = of_resolve(config().address(), &"no such name");
        let failure = of_timeout(
            &config(),
            UpPhase::Resolve,
            Asked::default(),
            Duration::from_secs(1),
            Some(&last),
        );
        assert_eq!(failure, last);
        assert!(failure.message.contains("b.example.net"));
    }

    #[test]
    fn no_message_has_the_key() {
        for reason in every_reason() {
            assert!(!of_close(&site_b(), &reason).message.contains("correct horse"));
        }
    }

    #[test]
    fn only_what_time_may_heal_is_not_fatal() {
        let heals: Vec<_> = every_reason().into_iter().filter(|reason| !is_fatal(reason)).collect();
        assert_eq!(heals.len(), 9, "{heals:?}");
    }
}
