//! The control protocol, documented in `docs/control-protocol.md`: one JSON object a line, in both directions.
//!
//! A client sends one [`Request`] a connection and reads [`Reply`]s until one that [`Body::is_last`]. Fields may be
//! added within a version; a client ignores what it does not know.

mod policy;
mod reload;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::capture::{Frames, Wanted};
use super::explain::{Explanation, Question};
use super::services::SaServices;
use super::trace::Packets;

pub use policy::FixedPolicyStatus;
pub use reload::{ChangeCost, ChangeKind, KeyChange, PeerChange, Reload};

/// The version of the protocol.
pub const VERSION: u32 = 1;
/// Longest line of a request, in bytes: it may name ten thousand files.
pub const MAX_LINE: usize = 1 << 20;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Always [`VERSION`].
    pub ipsecd: u32,
    /// What is wanted.
    pub request: Ask,
}

/// What is wanted of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Brings peers up. Answered by [`Body::Progress`] lines, then [`Body::Up`].
    Up {
        /// Configuration files, absolute; the daemon reads them, so no secret passes the socket.
        files: Vec<PathBuf>,
        /// Time that bringing up may take, in milliseconds; at most a day.
        timeout_ms: u64,
        /// Keep trying after a failure, instead of forgetting the peer.
        #[serde(default)]
        keep: bool,
    },
    /// Takes peers down: DELETE is sent, routes, rules and TUN are removed. Answered by [`Body::Down`].
    Down {
        /// Which.
        target: Target,
    },
    /// Asks for [`Body::Status`].
    Status {
        /// Of this peer alone.
        #[serde(default)]
        peer: Option<String>,
    },
    /// Reads configuration files again and applies what changed; if one of them has an error, nothing at all. Answered by
    /// [`Body::Reload`].
    Reload {
        /// Which, absolute; none: those of every peer, and of the directory that the daemon runs for.
        #[serde(default)]
        files: Vec<PathBuf>,
        /// Only tell what would change.
        #[serde(default)]
        dry_run: bool,
    },
    /// Asks what would become of a packet. Answered by [`Body::Explanation`].
    Explain(Question),
    /// Asks to be told of packets. Answered by [`Body::Trace`] lines until the client is gone or has `count` packets,
    /// and then by [`Body::Done`].
    Trace {
        /// Which packets; empty: all.
        #[serde(default)]
        filter: String,
        /// So many; without it, without end.
        #[serde(default)]
        count: Option<u64>,
    },
    /// Asks for packets themselves. Answered by [`Body::Captured`] lines as [`Ask::Trace`] is by its own.
    Capture(Wanted),
    /// Asks which services each SA gives. Answered by [`Body::Services`].
    Services {
        /// Of this peer alone.
        #[serde(default)]
        peer: Option<String>,
    },
    /// Replaces SAs of a peer. Answered by [`Body::Done`] when the replacement is established.
    Rekey {
        /// The peer's name.
        peer: String,
        /// The IKE SA; otherwise its CHILD_SAs.
        #[serde(default)]
        ike: bool,
    },
    /// Ends the daemon, as SIGTERM does. Answered by [`Body::Done`] once nothing is left.
    Shutdown,
}

impl Ask {
    /// Whether the answer waits for nothing that happens elsewhere.
    #[must_use]
    pub const fn is_known_at_once(&self) -> bool {
        matches!(self, Self::Explain(_) | Self::Services { .. } | Self::Status { .. })
    }
}

/// Which peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// All.
    All,
    /// The one that this file (absolute) was loaded for.
    File(PathBuf),
    /// The one of this name.
    Name(String),
}

/// What the daemon sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Always [`VERSION`].
    pub ipsecd: u32,
    /// What it says.
    pub reply: Body,
}

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Packets; more follows.
    Captured(Frames),
    /// Done, nothing to tell.
    Done,
    /// What `down` took down.
    Down {
        /// Names of the peers.
        peers: Vec<String>,
    },
    /// It could not be done.
    Error(Failure),
    /// What would become of a packet.
    Explanation(Box<Explanation>),
    /// A step of a peer on its way up; more follows.
    Progress(Progress),
    /// What reading the configuration again changed.
    Reload(Box<Reload>),
    /// Which services each SA gives.
    Services(Vec<SaServices>),
    /// The state of everything.
    Status(Box<Status>),
    /// What became of packets; more follows.
    Trace(Packets),
    /// How bringing up ended.
    Up {
        /// One entry a file, in order.
        peers: Vec<UpResult>,
    },
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}")]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people: one sentence, no full stop, and with IKE what to compare.
    pub message: String,
}

/// What kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The peers do not agree on the pre-shared key, or one does not know the other's identity.
    Auth,
    /// The peer is somebody else than configured.
    Identity,
    /// The configuration file has errors.
    Config,
    /// The request is malformed or of another version.
    BadRequest,
    /// Something in this host failed: a socket, a route, the TUN.
    System,
    /// A NAT is between, and UDP encapsulation is forbidden.
    Nat,
    /// No such peer.
    NotFound,
    /// There is no established SA to do this with.
    NotEstablished,
    /// The peer's name leads nowhere.
    Resolve,
    /// No common proposal.
    Proposal,
    /// The peer ended it, or said something else.
    Peer,
    /// It was stopped from this side.
    Stopped,
    /// Time ran out before anything failed for good.
    Timeout,
    /// No common traffic selectors.
    TrafficSelectors,
    /// No answer.
    Unreachable,
}

/// A step of a peer on its way up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The peer's name.
    pub peer: String,
    /// The step.
    pub phase: UpPhase,
    /// What to say of it: an address, a suite, SPIs.
    pub detail: String,
}

/// The steps of a peer on its way up, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UpPhase {
    /// Its name is being looked up.
    #[serde(rename = "resolve")]
    Resolve,
    /// IKE_SA_INIT.
    #[serde(rename = "IKE_SA_INIT")]
    IkeSaInit,
    /// IKE_AUTH.
    #[serde(rename = "IKE_AUTH")]
    IkeAuth,
    /// A CHILD_SA is installed.
    #[serde(rename = "CHILD_SA")]
    ChildSa,
    /// SAs with manual keys are installed.
    #[serde(rename = "manual")]
    ManualSas,
    /// Routes are set.
    #[serde(rename = "routes")]
    Routes,
}

impl UpPhase {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::IkeSaInit => "IKE_SA_INIT",
            Self::IkeAuth => "IKE_AUTH",
            Self::ChildSa => "CHILD_SA",
            Self::ManualSas => "manual SAs",
            Self::Routes => "routes",
        }
    }
}

/// How bringing up one peer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpResult {
    /// The peer's name; the file's, if it could not be read.
    pub peer: String,
    /// `"up"`; `"waiting"` for one that is brought up by traffic or by the peer; `"failed"`.
    pub state: UpState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Whether a peer is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpState {
    /// Not, and it was forgotten (unless `keep`).
    Failed,
    /// Every CHILD_SA is installed and every route set.
    Up,
    /// Routes are set; traffic, or the peer, begins.
    Waiting,
}

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    pub uptime_seconds: u64,
    /// Where it writes the keys of every SA, if it does.
    #[serde(default)]
    pub keylog: Option<PathBuf>,
    /// What is left to the kernel.
    #[serde(default)]
    pub offload: OffloadStatus,
    /// How many workers move packets, each with two threads; 0 if the daemon is of before there were several.
    #[serde(default)]
    pub workers: u16,
    /// The peers, by name.
    pub peers: Vec<PeerStatus>,
    /// Policies that need no SA, in the order in which they are asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<FixedPolicyStatus>,
    /// Packets dropped, by reason, that no SA is to blame for.
    pub drops: BTreeMap<String, u64>,
}

/// What TUNs and sockets take in one piece, and how much room the sockets have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OffloadStatus {
    /// Of each TUN the protocols whose packets come and go in one piece: `tcp`, `udp`.
    pub tuns: BTreeMap<String, Vec<String>>,
    /// Whether datagrams of port 4500 leave in one piece, as far as it is known to work.
    pub udp_segments: bool,
    /// Receive buffer of port 4500 over IPv4, in bytes, as the kernel counts it; 0 if it does not say.
    pub receive_buffer: usize,
    /// Send buffer of the same.
    pub send_buffer: usize,
}

/// The state of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// The configuration file.
    pub file: PathBuf,
    /// The whole of it.
    pub state: PeerState,
    /// Why it is not up, of the last attempt.
    pub last_error: Option<Failure>,
    /// Time to the next attempt.
    pub retry_in_seconds: Option<u64>,
    /// The TUN interface.
    pub interface: String,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// Prefixes that are routed into it for this peer.
    pub routes: Vec<String>,
    /// IKE SAs; more than one only while one is replaced.
    pub ike_sas: Vec<IkeSaStatus>,
    /// Pairs of SAs with manual keys.
    #[serde(default)]
    pub manual_sas: Vec<ManualSaStatus>,
}

/// The whole of a peer's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// An exchange is under way.
    Connecting,
    /// It is being taken down.
    Deleting,
    /// The last attempt failed; another follows.
    Retrying,
    /// Every CHILD_SA is installed.
    Up,
    /// Traffic, or the peer, begins.
    Waiting,
}

impl PeerState {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Deleting => "deleting",
            Self::Retrying => "retrying",
            Self::Up => "up",
            Self::Waiting => "waiting",
        }
    }
}

/// An IKE SA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IkeSaStatus {
    /// `CONNECTING`, `ESTABLISHED`, `REKEYING` or `DELETING`.
    pub state: String,
    /// Whether we are its original initiator.
    pub initiator: bool,
    /// SPI of the initiator, 16 hexadecimal digits.
    pub spi_i: String,
    /// SPI of the responder.
    pub spi_r: String,
    /// Our identity.
    pub local_id: String,
    /// The peer's, once authenticated.
    pub peer_id: Option<String>,
    /// Whom EAP has authenticated, where the peer proved itself so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eap_identity: Option<String>,
    /// Our addresses behind the peer, if it gave us any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_addresses: Vec<String>,
    /// Addresses of our pool that the peer has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leased_addresses: Vec<String>,
    /// DNS servers that the peer gave us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<String>,
    /// The domains that these are for; none: every name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_domains: Vec<String>,
    /// The subnets behind the peer, as it says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peer_subnets: Vec<String>,
    /// Our address and port.
    pub local: String,
    /// The peer's address and port.
    pub remote: String,
    /// Whether addresses may change (RFC 4555).
    #[serde(default)]
    pub mobike: bool,
    /// Whether a NAT is in front of us.
    pub nat_local: bool,
    /// Whether a NAT is in front of the peer.
    pub nat_peer: bool,
    /// Algorithms, once chosen.
    pub suite: Option<String>,
    /// Whether a post-quantum preshared key is in its keys (RFC 8784).
    #[serde(default)]
    pub ppk: bool,
    /// Age, once established.
    pub age_seconds: Option<u64>,
    /// Time to the next rekey.
    pub rekey_in_seconds: Option<u64>,
    /// How long the peer took to answer our last request (liveness, or whatever else), in microseconds.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    /// Its CHILD_SAs.
    pub child_sas: Vec<ChildSaStatus>,
}

/// A CHILD_SA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildSaStatus {
    /// The child policy's name.
    pub name: String,
    /// `INSTALLED`, `INSTALLING` (we receive on it, and do not know yet whether the peer does), `REKEYING` or
    /// `DELETING`.
    pub state: String,
    /// Our SPI: `0x` and 8 hexadecimal digits.
    pub spi_inbound: String,
    /// The peer's SPI.
    pub spi_outbound: String,
    /// Algorithms.
    pub suite: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// `esp` (IP protocol 50), `udp` (ESP in UDP, port 4500) or `ah` (IP protocol 51).
    pub encap: String,
    /// Our address, and port if in UDP.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// Selectors of our side.
    pub ts_local: Vec<String>,
    /// Selectors of the peer's side.
    pub ts_peer: Vec<String>,
    /// Inbound traffic.
    pub inbound: Traffic,
    /// Outbound traffic.
    pub outbound: Traffic,
    /// The highest sequence number received.
    #[serde(default)]
    pub sequence_inbound: u64,
    /// The last sequence number used.
    #[serde(default)]
    pub sequence_outbound: u64,
    /// Packets dropped on this SA, both directions, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Which of several for the same packets it is (RFC 9611): a number of this end's; `None`: the first, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<u16>,
    /// Age.
    pub age_seconds: u64,
    /// Time to the next rekey.
    pub rekey_in_seconds: Option<u64>,
}

/// A pair of SAs with manual keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManualSaStatus {
    /// Its name.
    pub name: String,
    /// Always `manual: no rekey`.
    pub keys: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// `esp` (IP protocol 50), `udp` (ESP in UDP) or `ah` (IP protocol 51).
    pub encap: String,
    /// Our address, and port if in UDP.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// Selectors of our side.
    pub ts_local: Vec<String>,
    /// Selectors of the peer's side.
    pub ts_peer: Vec<String>,
    /// The SAs: one pair, or with a bundle that of ESP and then that of AH.
    pub layers: Vec<ManualLayerStatus>,
    /// Inbound traffic.
    pub inbound: Traffic,
    /// Outbound traffic.
    pub outbound: Traffic,
    /// Packets dropped on it, both directions, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Age.
    pub age_seconds: u64,
}

/// One pair of SAs of a bundle, or the only one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManualLayerStatus {
    /// Our SPI: `0x` and 8 hexadecimal digits.
    pub spi_inbound: String,
    /// The peer's SPI.
    pub spi_outbound: String,
    /// Algorithms.
    pub suite: String,
    /// The highest sequence number received.
    pub sequence_inbound: u64,
    /// The last sequence number used.
    pub sequence_outbound: u64,
    /// The last one that there is.
    pub sequence_last: u64,
}

/// What passed in one direction, counted as inner packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Request {
    /// Of this version.
    #[must_use]
    pub const fn new(request: Ask) -> Self {
        Self { ipsecd: VERSION, request }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// A [`Code::BadRequest`] with what is wrong: the JSON, or the version.
    pub fn from_line(line: &[u8]) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Version {
            ipsecd: u32,
        }
        let bad = |message| Failure { code: Code::BadRequest, message };
        let read: Version = serde_json::from_slice(line)
            .map_err(|error| bad(format!("the request is not understood: {error}")))?;
        if read.ipsecd != VERSION {
            let got = read.ipsecd;
            return Err(bad(format!(
                "version {got} of the protocol, and {VERSION} is spoken here"
            )));
        }
        serde_json::from_slice(line)
            .map_err(|error| bad(format!("the request is not understood: {error}")))
    }
}

impl Body {
    /// Whether nothing follows it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        !matches!(self, Self::Captured(_) | Self::Progress(_) | Self::Trace(_))
    }
}

impl From<Body> for Reply {
    fn from(reply: Body) -> Self {
        Self { ipsecd: VERSION, reply }
    }
}

/// A message as a line.
///
/// # Errors
/// None that these types can cause, but those of `serde_json`.
pub fn to_line(message: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_survives(request: Ask) {
        let request = Request::new(request);
        let line = to_line(&request).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(Request::from_line(&line), Ok(request));
    }

    fn reply_survives(body: Body) {
        let reply = Reply::from(body);
        let line = to_line(&reply).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<Reply>(&line).unwrap(), reply);
    }

    #[test]
    fn every_request_survives_a_line() {
        request_survives(Ask::Up { files: vec!["/a\n b.conf".into()], timeout_ms: 1, keep: true });
        request_survives(Ask::Down { target: Target::All });
        request_survives(Ask::Down { target: Target::File("/a".into()) });
        request_survives(Ask::Down { target: Target::Name("a".into()) });
        request_survives(Ask::Status { peer: None });
        request_survives(Ask::Reload { files: vec!["/a".into()], dry_run: true });
        request_survives(Ask::Rekey { peer: "b".into(), ike: true });
        request_survives(Ask::Shutdown);
    }

    #[test]
    fn every_reply_survives_a_line() {
        let failure = Failure { code: Code::Auth, message: "no".into() };
        reply_survives(Body::Done);
        reply_survives(Body::Down { peers: vec!["a".into()] });
        reply_survives(Body::Error(failure.clone()));
        reply_survives(Body::Progress(Progress {
            peer: "a".into(),
            phase: UpPhase::IkeSaInit,
            detail: "x".into(),
        }));
        reply_survives(Body::Reload(Box::new(Reload {
            dry_run: true,
            peers: vec![PeerChange {
                peer: "a".into(),
                file: "/a".into(),
                change: ChangeKind::Changed,
                keys: vec![KeyChange { key: "ike.dpd".into(), old: None, new: Some("1".into()) }],
                cost: ChangeCost::Rekey,
                child_sas: vec!["lan".into()],
                error: Some(failure.clone()),
            }],
            unchanged: 2,
        })));
        reply_survives(Body::Up {
            peers: vec![
                UpResult { peer: "a".into(), state: UpState::Failed, error: Some(failure) },
                UpResult { peer: "b".into(), state: UpState::Up, error: None },
            ],
        });
        reply_survives(Body::Status(Box::new(Status {
            version: "0".into(),
            pid: 1,
            uptime_seconds: 2,
            keylog: Some("/tmp/keys".into()),
            offload: OffloadStatus::default(),
            workers: 2,
            peers: vec![],
            policies: vec![FixedPolicyStatus {
                name: "ssh".into(),
                of: "holes".into(),
                file: "/etc/holes.conf".into(),
                action: "BYPASS".into(),
                order: "first".into(),
                direction: "both".into(),
                ts_local: vec!["10.1.0.0/16".into()],
                ts_remote: vec!["10.2.0.0/16[tcp/22]".into()],
            }],
            drops: BTreeMap::from([("no-sa".into(), 3)]),
        })));
    }

    #[test]
    fn requests_look_as_documented() {
        let line = br#"{"ipsecd":1,"request":"shutdown"}"#;
        assert_eq!(Request::from_line(line), Ok(Request::new(Ask::Shutdown)));
        let line = br#"{"ipsecd":1,"request":{"down":{"target":{"name":"b"}}}}"#;
        let want = Ask::Down { target: Target::Name("b".into()) };
        assert_eq!(Request::from_line(line), Ok(Request::new(want)));
        let line = br#"{"ipsecd":1,"request":{"status":{}}}"#;
        assert_eq!(Request::from_line(line), Ok(Request::new(Ask::Status { peer: None })));
    }

    #[test]
    fn other_version_is_named_even_if_the_rest_is_unknown() {
        let failure = Request::from_line(br#"{"ipsecd":2,"request":{"dance":1}}"#).unwrap_err();
        assert_eq!(failure.code, Code::BadRequest);
        assert!(failure.message.contains("version 2"), "{failure}");
    }

    #[test]
    fn junk_is_a_bad_request() {
        for junk in [&b""[..], b"\n", b"{}", b"[]", b"\xff", br#"{"ipsecd":1}"#] {
            assert_eq!(Request::from_line(junk).unwrap_err().code, Code::BadRequest);
        }
    }

    #[test]
    fn only_progress_is_followed_by_more() {
        assert!(Body::Done.is_last());
        let phase = UpPhase::Resolve;
        assert!(
            !Body::Progress(Progress { peer: "a".into(), phase, detail: String::new() }).is_last()
        );
    }
}
