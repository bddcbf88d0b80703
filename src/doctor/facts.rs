//! What the checks look at: [`Facts`]. Gathered in one place, made up by tests.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use ipnet::IpNet;

use super::rules::Ruleset;
use crate::config::{Config, Diagnostics};
use crate::control::protocol::{Failure, PeerStatus};
use crate::ike::CloseReason;
use crate::ipsec::TrafficSelector;
use crate::ipsec::pad::Identity;
use crate::ipsec::suite::{IkeSuite, Suite};
use crate::wire::ike::numbers::KeId;

/// Everything that was found out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The configuration of the peer.
    pub config: Config,
    /// What `check` says of it, and of it beside the others: warnings.
    pub warnings: Diagnostics,
    /// Other configurations of this host.
    pub others: Vec<Config>,
    /// This host.
    pub host: Host,
    /// Addresses of the peer, or why there are none.
    pub resolved: Result<Vec<IpAddr>, String>,
    /// The way to the first of them, if there is an address, or why there is none.
    pub route: Option<Result<Route, String>>,
    /// What the running daemon knows of the peer.
    pub recorded: Recorded,
    /// An attempt of the doctor's own (`--live`).
    pub attempt: Option<Attempt>,
    /// What was tried beside it.
    pub experiments: Experiments,
}

/// This host.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Wall clock, since 1970.
    pub now: Duration,
    /// Last change of the youngest of the files that the configuration was read from, since 1970.
    pub newest_file: Option<Duration>,
    /// Why /dev/net/tun cannot be opened, if so.
    pub tun: Option<String>,
    /// Capabilities that the daemon needs and this process does not have.
    pub missing_capabilities: Vec<String>,
    /// Addresses with their interfaces.
    pub addresses: Vec<Address>,
    /// `rp_filter` of each interface, and of `all`.
    pub rp_filter: BTreeMap<String, u8>,
    /// `forwarding` of IPv4 by interface, and `all`.
    pub forwarding_v4: BTreeMap<String, bool>,
    /// `forwarding` of all interfaces for IPv6.
    pub forwarding_v6: Option<bool>,
    /// Who has UDP ports 500 and 4500.
    pub ports: Vec<PortHolder>,
    /// The packet filter.
    pub firewall: Firewall,
}

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub interface: String,
    /// The address with the prefix of its link.
    pub net: IpNet,
}

/// Who has a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortHolder {
    /// 500 or 4500.
    pub port: u16,
    /// Its name and process id; `None` if it is hidden from us.
    pub process: Option<(String, u32)>,
}

/// The packet filter, as far as it is known.
#[derive(Clone, Debug, Default)]
pub enum Firewall {
    /// Why it is not.
    Unknown(String),
    /// Its rules.
    Rules(Ruleset),
    /// It has none, or there is none.
    #[default]
    None,
}

/// The way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub remote: IpAddr,
    /// Our address on it.
    pub local: IpAddr,
    /// The interface that has this address.
    pub interface: Option<String>,
    /// Its MTU in bytes.
    pub mtu: u16,
}

/// What the daemon knows.
#[derive(Clone, Debug, Default)]
pub enum Recorded {
    /// None runs, or it cannot be asked: why.
    NoDaemon(String),
    /// It does not know the peer.
    #[default]
    Unknown,
    /// It does.
    Peer(Box<PeerStatus>),
}

impl Recorded {
    /// The peer's status.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerStatus> {
        match self {
            Self::Peer(status) => Some(status),
            Self::NoDaemon(_) | Self::Unknown => None,
        }
    }
}

/// The doctor's own attempt at an IKE SA with a CHILD_SA. It is taken down again.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Whether it was made from ports 500 and 4500, and not from others because those are taken.
    pub own_ports: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether IKE_SA_INIT was answered.
    pub init_answered: bool,
    /// Whether IKE_AUTH was sent, and from where it was: on port 4500.
    pub auth_sent: Option<AuthSent>,
    /// Whether a NAT is in front of us.
    pub nat_local: bool,
    /// Whether a NAT is in front of the peer.
    pub nat_peer: bool,
    /// The CAs that the peer says it trusts: SHA-1 hashes of their public keys (RFC 7296 §3.7); `None` if it says nothing.
    pub peer_cas: Option<Vec<[u8; 20]>>,
}

/// How IKE_AUTH was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthSent {
    /// To port 4500, and not 500.
    pub natt: bool,
    /// The longest IP datagram of it, in bytes.
    pub longest: usize,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// An IKE SA and a CHILD_SA were established.
    Up {
        /// Algorithms of the IKE SA.
        ike: String,
        /// Algorithms of the CHILD_SA.
        child: String,
        /// Whether it could be rekeyed at once.
        rekeyed: Rekeyed,
    },
    /// It failed.
    Failed(LastAttempt),
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub struct LastAttempt {
    /// For the checks.
    pub reason: CloseReason,
    /// For people: the sentence of `daemon::advice`.
    pub failure: Failure,
}

/// What came of rekeying the CHILD_SA at once.
#[derive(Clone, Debug)]
pub enum Rekeyed {
    /// It was replaced.
    Yes,
    /// The peer refused.
    Refused(CloseReason),
    /// No answer in time.
    Unanswered,
    /// It was not tried.
    Untried,
}

/// What was tried beside the attempt. `None`: there was no need.
#[derive(Clone, Debug, Default)]
pub struct Experiments {
    /// IKE_SA_INIT to port 500.
    pub port_500: Option<Answer>,
    /// IKE_SA_INIT to port 4500.
    pub port_4500: Option<Answer>,
    /// An ICMP echo.
    pub echo: Option<bool>,
    /// What the peer chose when all was offered that we have, for the IKE SA.
    pub widest_ike: Option<Option<IkeSuite>>,
    /// The same for the CHILD_SA.
    pub widest_child: Option<Option<Suite>>,
    /// What the peer made of selectors that have everything: its side and ours.
    pub widest_ts: Option<Option<(Vec<TrafficSelector>, Vec<TrafficSelector>)>>,
    /// Who the peer says that it is when it is not asked for anybody; `None` inside: it does not say either.
    pub anonymous: Option<Option<Identity>>,
    /// The group with which a rekey worked, [`KeId::NONE`] for none; `None` inside: with none that we have.
    pub rekey_group: Option<Option<KeId>>,
    /// Whether IKE_AUTH was answered when its fragments were small.
    pub small_fragments: Option<bool>,
    /// Of the path.
    pub mtu: Option<PathMtu>,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An IKE message.
    Ike,
    /// ICMP port unreachable: the host is there, and nobody listens.
    Closed,
    /// Our own host refused to send it: a packet filter.
    Filtered,
    /// ICMP: the host, or its network, is not reached.
    Unreachable,
    /// Nothing.
    Silence,
}

/// The MTU of the path to the peer, in bytes of a whole IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// Of the interface.
    pub interface: u16,
    /// The longest that was answered, DF set.
    pub measured: u16,
    /// What the kernel had learnt by ICMP once that was measured.
    pub known: u16,
}
