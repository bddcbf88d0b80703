//! Configuration files: [`Config`] cannot be invalid.
//!
//! A file is TOML, one peer to a file; `docs/configuration.md` has every key. [`load`] and [`parse`] find everything
//! that is wrong with it at once, each finding with its place and what would be right. Files are read through a
//! [`SecretSource`], so that this layer touches none.

#[cfg(feature = "daemon")]
mod address;
#[cfg(feature = "daemon")]
mod auth;
#[cfg(feature = "daemon")]
mod check;
#[cfg(feature = "daemon")]
mod child;
#[cfg(feature = "daemon")]
mod conflict;
#[cfg(feature = "daemon")]
mod diagnostic;
#[cfg(feature = "daemon")]
mod fixed;
#[cfg(feature = "daemon")]
mod identity;
#[cfg(feature = "daemon")]
pub mod keys;
#[cfg(feature = "daemon")]
mod manual;
#[cfg(feature = "daemon")]
mod parse;
#[cfg(feature = "daemon")]
mod place;
#[cfg(feature = "daemon")]
mod policy;
#[cfg(feature = "daemon")]
mod proposal;
#[cfg(feature = "daemon")]
mod raw;
#[cfg(feature = "daemon")]
mod render;
#[cfg(feature = "daemon")]
mod revocation;
#[cfg(feature = "daemon")]
mod schema;
#[cfg(feature = "daemon")]
mod secret;
#[cfg(feature = "daemon")]
mod selector;
#[cfg(feature = "daemon")]
mod subnet;
#[cfg(feature = "daemon")]
mod value;
#[cfg(feature = "daemon")]
mod written;

use core::net::IpAddr;
#[cfg(feature = "daemon")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(feature = "daemon")]
pub use self::{
    conflict::{Beside, conflicts, conflicts_with},
    diagnostic::{Diagnostic, Diagnostics, Severity},
    identity::render as render_identity,
    proposal::{DEFAULT_AH, DEFAULT_ESP, DEFAULT_IKE, render_child, render_ike},
    schema::{schema, words},
    secret::{SecretError, SecretFile, SecretSource},
    written::{HIDDEN, KeyChange, Written},
};
use crate::ipsec::manual::ManualPeer;
use crate::ipsec::pad::{Peer, PeerAddress};
use crate::ipsec::{FixedPolicy, Mode, PolicyId, TrafficSelector};

/// One configuration file, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from.
    pub file: PathBuf,
    /// The peer; its policy ids are zero until the daemon gives them.
    pub keying: Keying,
    /// The TUN interface.
    pub interface: Interface,
    /// `[log] level`, a `tracing` filter, if given.
    pub log_level: Option<String>,
    /// Files that say what is revoked, which may change without the rest.
    pub revocation: RevocationFiles,
    /// What the file says, key by key.
    #[cfg(feature = "daemon")]
    pub written: Written,
    /// Its text, secrets masked: to show what in it does not go with another file.
    #[cfg(feature = "daemon")]
    pub shown: Arc<str>,
}

/// Where CRLs and OCSP responses are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationFiles {
    /// Of `[auth] crl`.
    pub crls: Vec<PathBuf>,
    /// Of `[auth] ocsp`: one for each certificate of ours.
    pub ocsp: Vec<PathBuf>,
}

/// What a file is about: its peer, by how it comes to its keys (RFC 4301 §4.5), or policies without any.
#[derive(Clone, Debug)]
pub enum Keying {
    /// By IKE; shared with whoever negotiates with it.
    Ike(Arc<Peer>),
    /// By hand.
    Manual(ManualPeer),
    /// There is no peer, and no keys: entries of the SPD that need no SA.
    None {
        /// Its name.
        name: Arc<str>,
        /// The entries, in their order.
        policies: Vec<FixedPolicy>,
    },
}

/// An SPD entry that a configuration asks for.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRef<'a> {
    /// Its name, unique within the peer.
    pub name: &'a Arc<str>,
    /// Its number.
    pub id: PolicyId,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Selectors of our side.
    pub ts_local: &'a [TrafficSelector],
    /// Selectors of the peer's side.
    pub ts_peer: &'a [TrafficSelector],
}

impl Config {
    /// The peer's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match &self.keying {
            Keying::Ike(peer) => &peer.name,
            Keying::Manual(peer) => &peer.name,
            Keying::None { name, .. } => name,
        }
    }

    /// Where the peer is.
    #[must_use]
    pub fn address(&self) -> &PeerAddress {
        match &self.keying {
            Keying::Ike(peer) => &peer.address,
            Keying::Manual(peer) => &peer.address,
            Keying::None { .. } => &PeerAddress::Any,
        }
    }

    /// The address we use, if it is configured.
    #[must_use]
    pub fn local_addr(&self) -> Option<IpAddr> {
        match &self.keying {
            Keying::Ike(peer) => peer.local_addr,
            Keying::Manual(peer) => peer.local_addr,
            Keying::None { .. } => None,
        }
    }

    /// The peer, if it has IKE.
    #[must_use]
    pub fn ike(&self) -> Option<&Peer> {
        self.shared_ike().map(|peer| &**peer)
    }

    /// The same, to be shared.
    #[must_use]
    pub const fn shared_ike(&self) -> Option<&Arc<Peer>> {
        match &self.keying {
            Keying::Ike(peer) => Some(peer),
            Keying::Manual(_) | Keying::None { .. } => None,
        }
    }

    /// The peer, if its keys are manual.
    #[must_use]
    pub const fn manual(&self) -> Option<&ManualPeer> {
        match &self.keying {
            Keying::Ike(_) | Keying::None { .. } => None,
            Keying::Manual(peer) => Some(peer),
        }
    }

    /// The SPD entries that need no SA, in their order: only a file without peer has any.
    #[must_use]
    pub fn fixed(&self) -> &[FixedPolicy] {
        match &self.keying {
            Keying::Ike(_) | Keying::Manual(_) => &[],
            Keying::None { policies, .. } => policies,
        }
    }

    /// The SPD entries that say PROTECT, in their order.
    #[must_use]
    pub fn policies(&self) -> Vec<PolicyRef<'_>> {
        match &self.keying {
            Keying::Ike(peer) => peer
                .children
                .iter()
                .map(|child| PolicyRef {
                    name: &child.name,
                    id: child.policy,
                    mode: child.mode,
                    ts_local: &child.ts_local,
                    ts_peer: &child.ts_peer,
                })
                .collect(),
            Keying::Manual(peer) => peer
                .sas
                .iter()
                .map(|sa| PolicyRef {
                    name: &sa.name,
                    id: sa.policy,
                    mode: sa.mode,
                    ts_local: &sa.ts_local,
                    ts_peer: &sa.ts_peer,
                })
                .collect(),
            Keying::None { .. } => Vec::new(),
        }
    }

    /// Numbers the SPD entries.
    pub fn number(&mut self, mut number: impl FnMut(&Arc<str>) -> PolicyId) {
        match &mut self.keying {
            Keying::Ike(peer) => {
                for child in &mut Arc::make_mut(peer).children {
                    child.policy = number(&child.name);
                }
            }
            Keying::Manual(peer) => {
                for sa in &mut peer.sas {
                    sa.policy = number(&sa.name);
                }
            }
            Keying::None { .. } => {}
        }
    }
}

/// The TUN interface that the peer's traffic takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name; files that name the same one share it. Default `ipsec0`.
    pub name: String,
    /// Its MTU in bytes; `None`: from path MTU and suite.
    pub mtu: Option<u16>,
    /// Whether routes to the peer's subnets, and the policy routing rule, are set.
    pub routes: bool,
    /// Addresses to give to it, with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether the TCP MSS of forwarded connections is clamped to what fits.
    pub clamp_mss: bool,
}

impl Default for Interface {
    fn default() -> Self {
        Self {
            name: "ipsec0".to_owned(),
            mtu: None,
            routes: true,
            addresses: Vec::new(),
            clamp_mss: true,
        }
    }
}

/// A configuration that can be used.
#[cfg(feature = "daemon")]
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What somebody should look at; no errors among them.
    pub warnings: Diagnostics,
}

/// The text of a configuration file. Not to be printed: a psk may be in it.
#[cfg(feature = "daemon")]
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its name: for messages, for the name of the peer, and the place that relative names in it begin from.
    pub file: &'a Path,
    /// What is in it.
    pub text: &'a str,
    /// Its permission bits, if it has any. A psk in the text is an error if others may read the file.
    pub mode: Option<u32>,
}

/// What a proposal is for.
#[cfg(feature = "daemon")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalOf {
    /// An IKE SA.
    Ike,
    /// A CHILD_SA with AH.
    Ah,
    /// A CHILD_SA with ESP.
    Esp,
}

/// Whether a text is a proposal.
///
/// # Errors
/// What is wrong with it.
#[cfg(feature = "daemon")]
pub fn read_proposal(of: ProposalOf, text: &str, legacy: bool) -> Result<(), String> {
    let read = match of {
        ProposalOf::Ike => proposal::ike(text, legacy).map(drop),
        ProposalOf::Ah => proposal::ah(text, legacy).map(drop),
        ProposalOf::Esp => proposal::esp(text, legacy).map(drop),
    };
    read.map_err(|faults| {
        let faults: Vec<String> = faults.into_iter().map(|fault| fault.wrong.message).collect();
        faults.join("; ")
    })
}

/// What is wrong with a keyword of proposals, if anything.
#[cfg(feature = "daemon")]
#[must_use]
pub fn keyword_fault(word: &str) -> Option<String> {
    proposal::keyword_fault(word).map(|wrong| format!("{}; {}", wrong.message, wrong.help))
}

/// The selectors that an item of a list of subnets stands for.
///
/// # Errors
/// What is wrong with it.
#[cfg(feature = "daemon")]
pub fn read_selectors(text: &str) -> Result<Vec<TrafficSelector>, String> {
    selector::parse(text).map_err(|wrong| wrong.message)
}

/// A selector as it would be written.
#[cfg(feature = "daemon")]
#[must_use]
pub fn render_selector(ts: &TrafficSelector) -> String {
    selector::show(ts)
}

/// An identity as written.
///
/// # Errors
/// What is wrong with it.
#[cfg(feature = "daemon")]
pub fn read_identity(text: &str) -> Result<crate::ipsec::pad::Identity, String> {
    identity::parse(text).map_err(|wrong| format!("{}: {}", wrong.message, wrong.help))
}

/// Reads and checks the configuration file at `path`.
///
/// # Errors
/// Everything that is wrong, warnings included.
#[cfg(feature = "daemon")]
pub fn load(path: &Path, secrets: &dyn SecretSource) -> Result<Loaded, Diagnostics> {
    let failed = |message: String, help: &str| {
        let mut diagnostic = Diagnostic::of_file(Severity::Error, path, message);
        diagnostic.help(help);
        Diagnostics::from(diagnostic)
    };
    let found = secrets.read(path).map_err(|error| {
        let help = match error {
            SecretError::NotAFile => "name files: those in a directory are DIRECTORY/*.conf",
            SecretError::NotPermitted => "run it as root, or as who may read the file",
            SecretError::Missing
            | SecretError::NoCredentials
            | SecretError::Other(_)
            | SecretError::TooLong => "is this the right path?",
        };
        failed(format!("cannot read the configuration: {error}"), help)
    })?;
    let text = core::str::from_utf8(found.bytes.expose()).map_err(|error| {
        let before = found.bytes.expose().get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        failed(format!("line {line}, column {column} is not UTF-8"), "save the file as UTF-8")
    })?;
    parse(Source { file: path, text, mode: found.mode }, secrets)
}

/// Checks the text of a configuration file.
///
/// # Errors
/// Everything that is wrong, warnings included.
#[cfg(feature = "daemon")]
pub fn parse(source: Source<'_>, secrets: &dyn SecretSource) -> Result<Loaded, Diagnostics> {
    let (root, errors) = parse::toml(source.text);
    let shown = parse::masked(source.text, root.get_ref(), !errors.is_empty());
    let mut report = diagnostic::Report::new(source.file, Arc::from(shown));
    let syntax_errors = parse::syntax(&errors, &mut report);
    let shown = report.source();
    let written = Written::of(root.get_ref(), source.text, &shown);
    let raw = raw::Raw::read(root.get_ref(), &mut report);
    let config = check::config(&raw, source.mode, secrets, &mut report);
    let found = report.finish(syntax_errors);
    match config {
        Some(config) if !found.has_errors() => {
            Ok(Loaded { config: Config { written, shown, ..config }, warnings: found })
        }
        Some(_) | None => Err(found),
    }
}

/// Checks any bytes as a configuration: the body of the fuzz target `config`. Panics where a finding breaks a promise.
#[cfg(all(feature = "daemon", feature = "testing"))]
pub fn fuzz(data: &[u8]) {
    struct Nothing;
    impl SecretSource for Nothing {
        fn read(&self, _: &Path) -> Result<SecretFile, SecretError> {
            Err(SecretError::Missing)
        }
        fn credential(&self, _: &str) -> Result<SecretFile, SecretError> {
            Err(SecretError::NoCredentials)
        }
    }
    let text = String::from_utf8_lossy(data);
    let source = Source { file: Path::new("fuzz.conf"), text: &text, mode: Some(0o600) };
    match parse(source, &Nothing) {
        Ok(loaded) => assert!(!loaded.warnings.has_errors()),
        Err(found) => {
            assert!(found.has_errors(), "refused without a reason");
            assert!(!found.to_string().is_empty());
        }
    }
}
