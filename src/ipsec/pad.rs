//! The Peer Authorization Database (RFC 4301 §4.4.3): who may be our peer, how each side proves its identity, and
//! which CHILD_SAs it may have. The configuration writes it, IKE reads it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::sync::Arc;

use super::suite::{ChildProposal, IkeProposal};
use super::{DfPolicy, DscpPolicy, Lifetime, Mode, TrafficSelector};

mod address;
mod auth;
mod eap;
mod ppk;

pub use address::{AddressPool, AddressRequest, Wish};
pub use auth::{Auth, Authority, Credential, LocalAuth, PeerAuth, Presented};
pub use eap::{EapClient, EapMethod, EapServer, EapUser};
pub use ppk::Ppk;

/// Number of an SPD entry, unique in a running daemon. Given by whoever adds a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

/// An identity (RFC 7296 §3.5).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Email(String),
    /// ID_DER_ASN1_DN: the DER bytes of the name.
    Dn(Vec<u8>),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
    /// An identity of a type that has no form of its own here.
    Other {
        /// ID Type.
        id_type: u8,
        /// Identification Data.
        data: Vec<u8>,
    },
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// Anywhere; it has to begin.
    Any,
    /// Here.
    Ip(IpAddr),
    /// Wherever this name leads when we begin.
    Name(String),
}

/// Whether ESP is put into UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncapPolicy {
    /// Where NAT detection finds a NAT.
    #[default]
    Auto,
    /// Always: our NAT detection hash is made not to match (RFC 7296 §2.23).
    Udp,
    /// Never: a NAT between the peers is an error.
    None,
}

/// What brings a CHILD_SA up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartPolicy {
    /// The operator, by `up`, or the peer: loaded in any other way, it waits.
    ByHand,
    /// Loading the configuration.
    #[default]
    Now,
    /// The first packet that its policy protects.
    OnTraffic,
    /// The peer.
    Respond,
}

/// What becomes of a peer whose SAs are gone without our doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossAction {
    /// Nothing: somebody has to bring it up again.
    Clear,
    /// The next packet that its policies protect brings it up again.
    Hold,
    /// It is brought up again at once.
    Restart,
}

/// What becomes of the IKE SAs that a peer has with us when it, or we, establish another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unique {
    /// They go if the peer says that it has none (INITIAL_CONTACT, RFC 7296 §2.4), and stay otherwise.
    #[default]
    No,
    /// They go once the new one is in use.
    Replace,
    /// They stay: while one lives, the peer gets no other from another address.
    Keep,
    /// They stay, whatever the peer says; INITIAL_CONTACT is not sent.
    Never,
}

/// A peer: one entry of the PAD.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Name that the operator gave it; unique in a running daemon.
    pub name: Arc<str>,
    /// The address we use; `None`: whatever routing chooses, or the peer's packets came to.
    pub local_addr: Option<IpAddr>,
    /// Where the peer is.
    pub address: PeerAddress,
    /// Who we are.
    pub local_id: Identity,
    /// Who it is. `None`: whoever proves to hold the key.
    pub peer_id: Option<Identity>,
    /// How the two prove it.
    pub auth: Auth,
    /// What is mixed into the keys besides (RFC 8784).
    pub ppk: Option<Ppk>,
    /// The IKE SA.
    pub ike: IkePolicy,
    /// What we ask it for in a Configuration payload; our selectors are those addresses then.
    pub request: Option<AddressRequest>,
    /// What it gets for its Configuration payload; its selectors are those addresses then.
    pub pool: Option<AddressPool>,
    /// The CHILD_SAs it may have with us; the first goes with IKE_AUTH. Never empty.
    pub children: Vec<ChildPolicy>,
}

/// What an IKE SA with a peer is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkePolicy {
    /// Acceptable proposals, the preferred first.
    pub proposals: Vec<IkeProposal>,
    /// Whether IKE_AUTH makes no CHILD_SA where the peer takes that (RFC 6023); each then has an exchange, and keys, of its own.
    pub childless: bool,
    /// Whether IKE_SA_INIT starts on port 4500 or forces UDP encapsulation.
    pub encap: EncapPolicy,
    /// Rekeyed after this time, less up to a tenth of it at random; `None`: never by time.
    pub rekey_time: Option<Duration>,
    /// After this much more the IKE SA ends if the rekey, or the reauthentication, failed.
    pub over_time: Duration,
    /// Both sides authenticate each other anew, in a new IKE SA, after this time, less up to a tenth of it at random (RFC 7296
    /// §2.8.3); `None`: never, unless the peer asks for it (RFC 4478).
    pub reauth_time: Option<Duration>,
    /// Whether the peer may have several IKE SAs with us.
    pub unique: Unique,
    /// Idle time after which liveness is checked (RFC 7296 §2.4); `None`: only by retransmission.
    pub dpd_delay: Option<Duration>,
    /// What happens when it has not answered that, or any other request; `None`: what [`StartPolicy`] says.
    pub dpd_action: Option<LossAction>,
    /// What happens when it has deleted the IKE SA or a CHILD_SA; `None`: what [`StartPolicy`] says.
    pub close_action: Option<LossAction>,
    /// Time to the first retransmission; each further waits `retransmit_base` times longer.
    pub retransmit_timeout: Duration,
    /// Growth of the wait from one retransmission to the next, in hundredths (180 is 1.8).
    pub retransmit_base_percent: u32,
    /// Retransmissions before the peer counts as gone.
    pub retransmit_tries: u32,
    /// What is done with messages that are too long for the path.
    pub fragmentation: FragmentPolicy,
    /// Whether addresses may change (RFC 4555), should the peer want it too.
    pub mobike: bool,
}

/// Fragmentation of IKE messages (RFC 7383).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPolicy {
    /// Whether it is done.
    pub fragments: Fragments,
    /// Size in bytes of the largest IP datagram with a message, from its IP header on.
    pub size: u16,
}

impl Default for FragmentPolicy {
    /// As strongSwan.
    fn default() -> Self {
        Self { fragments: Fragments::Yes, size: 1280 }
    }
}

/// Whether IKE messages are sent and taken in fragments, should the peer be able to do so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragments {
    /// Both.
    Yes,
    /// They are taken, and never sent.
    Accept,
    /// Neither.
    No,
}

/// What a CHILD_SA with a peer is to be like, and so an entry of the SPD with action PROTECT.
#[derive(Clone, Debug)]
pub struct ChildPolicy {
    /// Name for logs and status.
    pub name: Arc<str>,
    /// Number of its SPD entry.
    pub policy: PolicyId,
    /// Acceptable proposals, the preferred first.
    pub proposals: Vec<ChildProposal>,
    /// Tunnel or transport.
    pub mode: Mode,
    /// With transport mode: whether tunnel mode is taken from a peer that has no transport mode for it (RFC 7296 §1.3.1).
    pub or_tunnel: bool,
    /// What brings it up.
    pub start: StartPolicy,
    /// Selectors of our side. Never empty.
    pub ts_local: Vec<TrafficSelector>,
    /// Selectors of the peer's side. Never empty.
    pub ts_peer: Vec<TrafficSelector>,
    /// Soft and hard limits; the soft time is lessened by up to a tenth at random.
    pub lifetime: Lifetime,
    /// How many CHILD_SAs for the same packets are made beside the first (RFC 9611); 0: none, and the peer's are not taken as such.
    pub per_resource: u16,
    /// Replay window in packets, a multiple of 64; 0 for none.
    pub replay_window: u32,
    /// DF bit of the outer header.
    pub df: DfPolicy,
    /// DSCP of the outer header.
    pub dscp: DscpPolicy,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(addr) => fmt::Display::fmt(addr, f),
            Self::Ipv6(addr) => fmt::Display::fmt(addr, f),
            // An identity comes from the network: control characters must not reach a terminal.
            Self::Fqdn(name) | Self::Email(name) => write!(f, "{}", name.escape_debug()),
            Self::Dn(der) => write!(f, "DN:{}", Hex(der)),
            Self::KeyId(bytes) => write!(f, "KEY_ID:{}", Hex(bytes)),
            Self::Other { id_type, data } => write!(f, "ID({id_type}):{}", Hex(data)),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
