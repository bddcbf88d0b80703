//! The far end's configuration, out of ours: the same tunnel seen from its other side, in the words of the program there.
//!
//! What one side begins the other answers: `start = "now"` becomes waiting, and the reverse. Certificates are called as
//! `ipsecd pki` calls them. What the other program cannot be told stands in its file as a comment.

mod fixed;
mod ipsecd;
mod libreswan;
mod openiked;
mod strongswan;

use core::net::IpAddr;
use core::time::Duration;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use crate::config::{self, Config};
use crate::crypto::Secret;
use crate::foreign::Written;
use crate::ipsec::pad::{
    ChildPolicy, EapMethod, Identity, LocalAuth, LossAction, Peer, PeerAddress, PeerAuth,
    Presented, StartPolicy,
};
use crate::ipsec::{Mode, TrafficSelector};

/// The program at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// ipsecd, too.
    Ipsecd,
    /// libreswan: an ipsec.conf.
    Libreswan,
    /// OpenIKED: an iked.conf.
    OpenIked,
    /// strongSwan: a swanctl.conf that 5.9 takes, too, which has no additional key exchanges (RFC 9370).
    StrongSwan,
    /// strongSwan 6.0 or later.
    StrongSwan6,
}

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the far end finds us, if not at `[local] address`: an address or a name.
    pub address: Option<String>,
    /// Whether pre-shared keys and passwords are in it; else a comment says where they belong.
    pub secrets: bool,
}

/// The far end's configuration.
///
/// # Errors
/// If there is none: with manual keys, or of policies without IPsec for a program that has none.
pub fn export(
    config: &Config,
    program: Program,
    options: &Options,
) -> Result<Zeroizing<String>, String> {
    if !config.fixed().is_empty() {
        return fixed::write(config.fixed(), program).map(Zeroizing::new);
    }
    let Some(peer) = config.ike() else {
        return Err(
            "with manual keys there is no IKE at the far end: docs/configuration.md has its `ip xfrm` commands"
                .to_owned(),
        );
    };
    let far = Far { peer, options };
    Ok(Zeroizing::new(match program {
        Program::Ipsecd => ipsecd::write(&far),
        Program::Libreswan => libreswan::write(&far),
        Program::OpenIked => openiked::write(&far),
        Program::StrongSwan => strongswan::write(&far, false),
        Program::StrongSwan6 => strongswan::write(&far, true),
    }))
}

/// The secrets that go with a configuration of [`Program::Ipsecd`] without them: files that it refers to.
#[must_use]
pub fn secrets(config: &Config) -> Vec<Written> {
    let options = Options::default();
    config.ike().map_or_else(Vec::new, |peer| ipsecd::secrets(&Far { peer, options: &options }))
}

/// The other files that such a configuration refers to: certificates and keys, which are not in ours.
#[must_use]
pub fn certificates(config: &Config) -> Vec<String> {
    let options = Options::default();
    config
        .ike()
        .map_or_else(Vec::new, |peer| ipsecd::certificates(&Far { peer, options: &options }))
}

/// The tunnel from its other side: `local` is the far end.
struct Far<'a> {
    peer: &'a Peer,
    options: &'a Options,
}

/// How a side proves who it is, and what the other knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Certificate,
    EapMsChapV2,
    EapTls,
    Psk,
    RawKey,
}

impl Far<'_> {
    /// The far end's own address, if it has one.
    fn local_address(&self) -> Option<String> {
        match &self.peer.address {
            PeerAddress::Ip(address) => Some(address.to_string()),
            PeerAddress::Any | PeerAddress::Name(_) => None,
        }
    }

    /// Where it finds us.
    fn remote_address(&self) -> Option<String> {
        self.options.address.clone().or_else(|| self.peer.local_addr.map(|it| it.to_string()))
    }

    /// What to say where it is not known where we are.
    fn unknown(&self) -> &'static str {
        let waits = |child: &ChildPolicy| child.start == StartPolicy::Respond;
        if self.peer.children.iter().all(waits) {
            "Where the other end is, is not in its file, and it waits: fill its address in here, or export with --address."
        } else {
            "Where the other end is, is not in its file: it has to begin."
        }
    }

    fn local_id(&self) -> Option<&Identity> {
        self.peer.peer_id.as_ref()
    }

    const fn remote_id(&self) -> &Identity {
        &self.peer.local_id
    }

    /// How the far end proves itself.
    fn local_proof(&self) -> Proof {
        match &self.peer.auth.peer {
            PeerAuth::Eap(server) => eap(&server.methods),
            PeerAuth::Psk(_) => Proof::Psk,
            PeerAuth::Signature(authority) if authority.trust.ca_names().is_empty() => {
                Proof::RawKey
            }
            PeerAuth::Signature(_) => Proof::Certificate,
        }
    }

    /// How we prove ourselves to it.
    fn remote_proof(&self) -> Proof {
        match &self.peer.auth.local {
            LocalAuth::Eap(client) => eap(&client.methods),
            LocalAuth::Psk(_) => Proof::Psk,
            LocalAuth::Signature(credentials) => {
                let first = credentials.first().map(|it| it.presented());
                if matches!(first, Some(Presented::RawKey)) {
                    Proof::RawKey
                } else {
                    Proof::Certificate
                }
            }
        }
    }

    fn psk(&self) -> Option<&Secret> {
        match (&self.peer.auth.local, &self.peer.auth.peer) {
            (LocalAuth::Psk(psk), _) | (_, PeerAuth::Psk(psk)) => Some(psk),
            _ => None,
        }
    }

    /// Names and passwords of EAP-MSCHAPv2, whoever is the client.
    fn users(&self) -> Vec<(String, Option<&Secret>)> {
        match (&self.peer.auth.local, &self.peer.auth.peer) {
            (LocalAuth::Eap(client), _) => {
                vec![(client.identity.clone(), client.password.as_ref())]
            }
            (_, PeerAuth::Eap(server)) => {
                server.users.iter().map(|user| (user.name.clone(), Some(&user.password))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What a certificate of the far end, or of ours, is called by `ipsecd pki`.
    fn file(&self, id: Option<&Identity>, end: &str) -> String {
        let name = id.map_or_else(|| "this-end".to_owned(), config::render_identity);
        let name = if name.contains(['=', '@', '#', ' ', ':']) {
            format!("{}-peer", self.peer.name)
        } else {
            name
        };
        format!("{name}.{end}")
    }

    /// Seconds of the IKE SA's time to be replaced.
    fn ike_rekey(&self) -> Option<Duration> {
        self.peer.ike.rekey_time
    }

    fn dpd_action(&self) -> Option<LossAction> {
        self.peer.ike.dpd_action
    }
}

fn eap(methods: &[EapMethod]) -> Proof {
    match methods.first() {
        Some(EapMethod::Tls) => Proof::EapTls,
        Some(EapMethod::MsChapV2) | None => Proof::EapMsChapV2,
    }
}

/// Who begins at the far end.
const fn other_start(start: StartPolicy) -> StartPolicy {
    match start {
        // Neither begins of itself, and either may.
        StartPolicy::ByHand => StartPolicy::ByHand,
        StartPolicy::Now => StartPolicy::Respond,
        StartPolicy::OnTraffic => StartPolicy::OnTraffic,
        StartPolicy::Respond => StartPolicy::Now,
    }
}

/// `0s` and base64: bytes that are taken as they are.
fn encoded(secret: &Secret) -> Zeroizing<String> {
    let text = Zeroizing::new(Base64::encode_string(secret.expose()));
    Zeroizing::new(format!("0s{}", text.as_str()))
}

/// Text between quotes, with a backslash before those in it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `tcp/443` of `10.1.0.0/16[tcp/443]`.
fn narrowed(ts: &TrafficSelector) -> Option<String> {
    let shown = config::render_selector(ts);
    shown.split_once('[').map(|(_, rest)| rest.trim_end_matches(']').to_owned())
}

fn is_ah(child: &ChildPolicy) -> bool {
    child.proposals.first().is_some_and(|it| it.protocol == crate::ipsec::suite::Protocol::Ah)
}

fn is_transport(child: &ChildPolicy) -> bool {
    child.mode == Mode::Transport
}

/// Whether selectors are nothing but this address.
fn is_only(list: &[TrafficSelector], address: Option<&str>) -> bool {
    let address = address.and_then(|text| text.parse::<IpAddr>().ok());
    match (list, address) {
        ([only], Some(address)) => *only == TrafficSelector::from_addr(address),
        _ => false,
    }
}
