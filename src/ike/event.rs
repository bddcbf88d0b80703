//! What goes into and comes out of an [`Endpoint`](super::Endpoint): commands, events, datagrams to send, status.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use thiserror::Error;

use super::cert::CertFault;
use super::configuration::Configuration;
use super::eap::{EapFault, UserName};
use super::keymat::IkeKeys;
use crate::ipsec::pad::{Identity, Peer};
use crate::ipsec::suite::{IkeSuite, Suite};
use crate::ipsec::{Flow, Mode, Path, PolicyId, SadUpdate, Spi, TrafficSelector};
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{AuthMethod, KeId, NotifyType};

/// A datagram to send: the IKE message alone; the non-ESP marker is added where the path says UDP encapsulation.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// The IKE message, or the one byte 0xff of a keepalive.
    pub payload: Vec<u8>,
    /// A NAT keepalive (RFC 3948 §2.3): goes out as it is, without non-ESP marker.
    pub keepalive: bool,
}

/// What the operator, through the daemon, wants.
#[derive(Clone, Debug)]
pub enum Command {
    /// Makes a peer known. One of the same name is replaced; its SAs stay if nothing that they depend on changed.
    AddPeer(Arc<Peer>),
    /// Deletes the SAs of a peer (sending DELETE) and forgets it once they are gone.
    RemovePeer {
        /// The peer's name.
        peer: Arc<str>,
    },
    /// Begins an IKE SA with a peer, or brings up what is missing under the one there is.
    Initiate {
        /// The peer's name.
        peer: Arc<str>,
        /// From where to where IKE_SA_INIT goes.
        path: Path,
    },
    /// As `Initiate`, but IKE_AUTH does not say whom we want (RFC 7296 §1.2 leaves IDr to us): a peer that refused that shows who it
    /// is. It still has to be who it is to be, and is not told to forget other SAs.
    InitiateUnnamed {
        /// The peer's name.
        peer: Arc<str>,
        /// From where to where IKE_SA_INIT goes.
        path: Path,
    },
    /// Gives up an attempt whose IKE_SA_INIT has not been answered, as if it had been sent for the last time.
    Forsake {
        /// The peer's name.
        peer: Arc<str>,
    },
    /// Makes the CHILD_SA that a packet asked for, under an IKE SA with its peer that is there or begun for it.
    Acquire {
        /// The SPD entry.
        policy: PolicyId,
        /// The packet.
        flow: Flow,
        /// From where to where IKE_SA_INIT goes.
        path: Path,
    },
    /// Replaces the IKE SA (RFC 7296 §1.3.2).
    RekeyIke {
        /// The peer's name.
        peer: Arc<str>,
    },
    /// Replaces every CHILD_SA of a peer (RFC 7296 §1.3.3).
    RekeyChildren {
        /// The peer's name.
        peer: Arc<str>,
    },
    /// Our address towards the peer of an IKE SA is another from here on. Without MOBIKE nothing comes of it (RFC 4555).
    Move {
        /// Initiator's SPI.
        spi_i: IkeSpi,
        /// Responder's SPI.
        spi_r: IkeSpi,
        /// The address.
        local: IpAddr,
    },
    /// Deletes the SAs of a peer (sending DELETE); the peer stays known.
    Terminate {
        /// The peer's name.
        peer: Arc<str>,
    },
    /// Deletes every SA; for the end of the daemon.
    TerminateAll,
}

/// Why a command was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// No peer has this SPD entry.
    #[error("no peer has SPD entry {}", .0.0)]
    NoSuchPolicy(PolicyId),
    /// No peer of that name.
    #[error("no peer named {0}")]
    NoSuchPeer(Arc<str>),
    /// The peer has no established SA to do this with.
    #[error("{0} has no established SA")]
    NotEstablished(Arc<str>),
    /// A limit was reached.
    #[error("{0}")]
    Limit(&'static str),
}

/// What happened. To be applied in the order in which they come.
#[derive(Clone, Debug)]
pub enum Event {
    /// An exchange towards an IKE SA with this peer began or ended well.
    Progress {
        /// The peer's name.
        peer: Arc<str>,
        /// What began or ended.
        phase: Phase,
    },
    /// An IKE SA is established (also by rekey: `rekeyed_from`).
    IkeSaEstablished {
        /// The peer's name.
        peer: Arc<str>,
        /// Our description of it.
        status: Box<SaStatus>,
        /// SPIs of the IKE SA that this one replaces.
        rekeyed_from: Option<(IkeSpi, IkeSpi)>,
    },
    /// An IKE SA, or an attempt at one, is gone, and its CHILD_SAs with it. Not emitted for one that was rekeyed.
    IkeSaClosed {
        /// The peer's name.
        peer: Arc<str>,
        /// Why.
        reason: CloseReason,
    },
    /// Somebody could not prove who it is, or a peer did not take our proof.
    AuthenticationFailed {
        /// The peer's name; `None`: no configured peer has these identities.
        peer: Option<Arc<str>>,
        /// From where to where the IKE SA was to be.
        path: Path,
        /// SPI of the initiator.
        spi_i: IkeSpi,
        /// SPI of the responder.
        spi_r: IkeSpi,
        /// Why.
        reason: CloseReason,
    },
    /// What a peer configured us with, in place of what it did before; `None`: nothing any more.
    Configured {
        /// The peer's name.
        peer: Arc<str>,
        /// Addresses, DNS servers.
        configuration: Option<Arc<Configuration>>,
    },
    /// The DELETE of an IKE SA was answered, or nobody did: [`Endpoint::status`](super::Endpoint::status) has it no more.
    IkeSaDeleted {
        /// The peer's name.
        peer: Arc<str>,
    },
    /// A CHILD_SA is installed in both directions (also by rekey: `rekeyed`).
    ChildSaEstablished {
        /// The peer's name.
        peer: Arc<str>,
        /// Our description of it.
        child: Box<ChildStatus>,
        /// Whether it replaces another.
        rekeyed: bool,
    },
    /// A CHILD_SA is gone. Not emitted for one that was rekeyed.
    ChildSaClosed {
        /// The peer's name.
        peer: Arc<str>,
        /// The child policy's name.
        child: Arc<str>,
        /// Inbound SPI.
        spi: Spi,
        /// Whether it was beside another for the same packets, which go on (RFC 9611).
        beside: bool,
        /// Whether the peer deleted it.
        by_peer: bool,
    },
    /// A CHILD_SA could not be made, while the IKE SA stays.
    ChildSaFailed {
        /// The peer's name.
        peer: Arc<str>,
        /// The child policy's name.
        child: Arc<str>,
        /// Why.
        reason: CloseReason,
    },
    /// The peer did not let an SA be replaced. It stays, and its rekey is tried again.
    RekeyRefused {
        /// The peer's name.
        peer: Arc<str>,
        /// The child policy's name; `None`: the IKE SA.
        child: Option<Arc<str>>,
        /// Why.
        reason: CloseReason,
    },
    /// The keys of an IKE SA were derived; nobody is authenticated yet. Only if
    /// [`EndpointConfig::export_keys`](super::EndpointConfig::export_keys) asks for it.
    IkeKeys {
        /// Initiator's SPI.
        spi_i: IkeSpi,
        /// Responder's SPI.
        spi_r: IkeSpi,
        /// Algorithms.
        suite: IkeSuite,
        /// The keys.
        keys: Box<IkeKeys>,
    },
    /// A change for the SAD.
    Sad(SadUpdate),
}

/// A step towards an established IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// IKE_SA_INIT sent (or answered, as responder).
    IkeSaInit,
    /// The peer asked for a COOKIE and gets it.
    Cookie,
    /// The peer wants another key exchange group; IKE_SA_INIT is repeated.
    InvalidKe,
    /// IKE_INTERMEDIATE sent, with an additional key exchange by this method.
    IkeIntermediate(KeId),
    /// IKE_INTERMEDIATE sent, for a post-quantum preshared key alone (RFC 9867).
    IkeIntermediatePpk,
    /// IKE_AUTH sent.
    IkeAuth,
    /// IKE_AUTH done: the peer is who it says.
    Authenticated,
    /// CREATE_CHILD_SA sent.
    CreateChildSa,
    /// A request was sent again: no answer yet.
    Retransmit {
        /// How many times by now.
        tries: u32,
    },
}

/// Why an IKE SA, or the attempt at one, ended; or why a CHILD_SA could not be made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CloseReason {
    /// We could not verify the peer's AUTH payload: another PSK.
    #[error("the peer did not prove to hold the pre-shared key")]
    AuthenticationOfPeer,
    /// The peer's certificate, or its signature, is not accepted.
    #[error("the peer's certificate is not accepted: {0}")]
    CertificateOfPeer(CertFault),
    /// The peer proved itself in another way than was wanted.
    #[error("the peer proved itself by {got}, and {expected} was expected")]
    MethodOfPeer {
        /// What it used.
        got: AuthMethod,
        /// What was wanted: `"a certificate"`, `"a public key"` or `"the pre-shared key"`.
        expected: &'static str,
    },
    /// EAP came to nothing.
    #[error("EAP failed: {0}")]
    Eap(EapFault),
    /// We cannot prove who we are to this peer.
    #[error("we cannot sign for this peer: {0}")]
    CannotSign(&'static str),
    /// The peer could not verify ours, or does not know our identity: AUTHENTICATION_FAILED.
    #[error("the peer refused our authentication (AUTHENTICATION_FAILED)")]
    AuthenticationRefused,
    /// The peer proved to be somebody else.
    #[error("the peer's identity is {got}, and {expected} was expected")]
    IdentityMismatch {
        /// As configured.
        expected: Identity,
        /// As received.
        got: Identity,
    },
    /// The two sides do not use the same post-quantum preshared key (RFC 8784).
    #[error("no post-quantum preshared key in common: {0}")]
    Ppk(&'static str),
    /// The peer has none of our proposals: NO_PROPOSAL_CHOSEN, for the IKE SA or the CHILD_SA.
    #[error("no common proposal for the {0}")]
    NoProposal(&'static str),
    /// The peer has no policy for our selectors: TS_UNACCEPTABLE.
    #[error("the peer has no common traffic selectors (TS_UNACCEPTABLE)")]
    TrafficSelectors,
    /// No answer to any retransmission.
    #[error("no answer to {exchange} after {tries} tries")]
    Unreachable {
        /// The exchange.
        exchange: &'static str,
        /// How often it was sent.
        tries: u32,
    },
    /// AH is wanted, and packets have to go in UDP, where there is none (RFC 3948 §1).
    #[error("AH cannot go in UDP, which a NAT, or `encap`, makes necessary")]
    AhInUdp,
    /// Transport mode is wanted, and not between the addresses that IKE runs between.
    #[error(
        "transport mode is for other addresses than {local} and {remote}, between which IKE runs"
    )]
    TransportElsewhere {
        /// Our address.
        local: IpAddr,
        /// The peer's address.
        remote: IpAddr,
    },
    /// Transport mode is wanted, and the peer made a CHILD_SA in tunnel mode (RFC 7296 §1.3.1).
    #[error("the peer does not take transport mode")]
    NoTransport,
    /// The peer gave us none of the addresses that we asked for.
    #[error("the peer gave us no address{}", if *.refused { " (INTERNAL_ADDRESS_FAILURE)" } else { "" })]
    NoAddress {
        /// Whether it said that it has none, and did not just pass over it.
        refused: bool,
    },
    /// A NAT is between the peers and the configuration forbids encapsulation.
    #[error("a NAT was detected, and UDP encapsulation is not allowed")]
    NatForbidden,
    /// The peer deleted it.
    #[error("deleted by the peer")]
    DeletedByPeer,
    /// The peer showed that it has lost it (RFC 6290).
    #[error("the peer has restarted")]
    PeerRestarted,
    /// The operator ended it.
    #[error("ended by the operator")]
    Operator,
    /// Its lifetime is over.
    #[error("lifetime ended")]
    Lifetime,
    /// It has an IKE SA with us from another address, which is kept (`unique`).
    #[error("the peer has an IKE_SA from another address, which is kept")]
    NotUnique,
    /// Replaced: the same peer established another (INITIAL_CONTACT, or uniqueness).
    #[error("replaced by a newer IKE_SA of the same peer")]
    Replaced,
    /// The peer sent an error notify that has no words of its own here.
    #[error("the peer answered {0}")]
    PeerNotify(NotifyType),
    /// The peer broke a rule.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(&'static str),
    /// A limit of ours.
    #[error("limit reached: {0}")]
    Limit(&'static str),
}

impl CloseReason {
    /// Whether one of the two could not prove who it is to the other.
    #[must_use]
    pub const fn is_authentication(&self) -> bool {
        matches!(
            self,
            Self::AuthenticationOfPeer
                | Self::AuthenticationRefused
                | Self::CannotSign(_)
                | Self::CertificateOfPeer(_)
                | Self::Eap(_)
                | Self::IdentityMismatch { .. }
                | Self::MethodOfPeer { .. }
                | Self::Ppk(_)
        )
    }

    /// Whether a peer with which there was an IKE SA fell silent.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { exchange, .. }
            if !["IKE_SA_INIT", "IKE_INTERMEDIATE", "IKE_AUTH"].contains(exchange))
    }
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// A half-open IKE SA as responder gives up.
    HalfOpen,
    /// A request is sent again, or given up.
    Retransmit,
    /// The peer is asked whether it lives.
    Liveness,
    /// A NAT keepalive (RFC 3948 §4).
    Keepalive,
    /// An IKE SA or CHILD_SA is rekeyed.
    Rekey,
    /// An IKE SA or CHILD_SA ends.
    Expire,
    /// Both sides authenticate each other anew.
    Reauthenticate,
    /// A task that met TEMPORARY_FAILURE tries again (RFC 7296 §2.25).
    Retry,
    /// What a rekeyed or deleted SA leaves behind is dropped.
    Linger,
    /// Fragments whose message does not get complete are dropped (RFC 7383 §2.6).
    Reassembly,
    /// The cookie secret changes.
    CookieSecret,
    /// A puzzle is solved a little further (RFC 8019 §7.1.2).
    Puzzle,
}

/// An IKE SA, for status.
#[derive(Clone, Debug)]
pub struct SaStatus {
    /// The peer's name.
    pub peer: Arc<str>,
    /// `"CONNECTING"`, `"ESTABLISHED"`, `"REKEYING"` or `"DELETING"`.
    pub state: &'static str,
    /// Whether we are the original initiator.
    pub initiator: bool,
    /// Initiator's SPI.
    pub spi_i: IkeSpi,
    /// Responder's SPI.
    pub spi_r: IkeSpi,
    /// Our identity.
    pub local_id: Identity,
    /// The peer's identity, once authenticated. With EAP it is what the peer says of itself.
    pub peer_id: Option<Identity>,
    /// Whom EAP has authenticated, if that is how the peer has proved who it is.
    pub eap_identity: Option<UserName>,
    /// Addresses of our pool that the peer has.
    pub leased: Vec<IpAddr>,
    /// What the peer configured us with.
    pub configuration: Option<Arc<Configuration>>,
    /// Where it is.
    pub path: Path,
    /// Whether addresses may change (RFC 4555).
    pub mobike: bool,
    /// Whether a NAT is in front of us.
    pub nat_local: bool,
    /// Whether a NAT is in front of the peer.
    pub nat_peer: bool,
    /// Algorithms, once chosen.
    pub suite: Option<IkeSuite>,
    /// Whether a post-quantum preshared key is in its keys (RFC 8784, RFC 9867), or in those of an IKE SA that it replaced.
    pub ppk: bool,
    /// Age.
    pub established: Option<Duration>,
    /// Time to the next rekey.
    pub rekey_in: Option<Duration>,
    /// How long the peer took to answer our last request, if it was sent once only.
    pub round_trip: Option<Duration>,
    /// Its CHILD_SAs.
    pub children: Vec<ChildStatus>,
}

/// A CHILD_SA, for status. Counters are the datapath's.
#[derive(Clone, Debug)]
pub struct ChildStatus {
    /// The child policy's name.
    pub name: Arc<str>,
    /// `"INSTALLED"`, `"REKEYING"` or `"DELETING"`.
    pub state: &'static str,
    /// Our SPI.
    pub spi_inbound: Spi,
    /// The peer's SPI.
    pub spi_outbound: Spi,
    /// Protocol and algorithms.
    pub suite: Suite,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Selectors of our side.
    pub ts_local: Arc<[TrafficSelector]>,
    /// Selectors of the peer's side.
    pub ts_peer: Arc<[TrafficSelector]>,
    /// Where its packets travel.
    pub path: Path,
    /// Which of several for the same packets it is (RFC 9611), by a number of ours; `None`: the first, or the only one.
    pub resource: Option<u16>,
    /// Age.
    pub established: Duration,
    /// Time to the next rekey.
    pub rekey_in: Option<Duration>,
}
