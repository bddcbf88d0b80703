//! What `reload` answers: which peers are others by now, in what, and what that costs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Failure;

/// What reading the configuration again has changed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Nothing was done: this is what would be.
    pub dry_run: bool,
    /// Every peer that is not as it was, by name.
    pub peers: Vec<PeerChange>,
    /// How many peers are as they were, and were left alone.
    pub unchanged: usize,
}

/// A peer that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerChange {
    /// Its name.
    pub peer: String,
    /// Its configuration file.
    pub file: PathBuf,
    /// What became of it.
    pub change: ChangeKind,
    /// The keys of the file that differ; of a peer that was added or removed, none.
    pub keys: Vec<KeyChange>,
    /// What that costs the SAs there are.
    pub cost: ChangeCost,
    /// CHILD_SAs that are deleted or rekeyed, by the names of their policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub child_sas: Vec<String>,
    /// Why this host refused it: then the peer is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// A key of a file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// Its name from the top: `ike.dpd`, `child[lan].start`.
    pub key: String,
    /// What it was, in TOML; `(not shown)` where it is a secret. `null`: it was not there.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

/// What became of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not known before.
    Added,
    /// Its configuration is another.
    Changed,
    /// It is taken down: no file has it any more.
    Removed,
}

impl ChangeKind {
    /// As it is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// What a change costs the SAs there are: the dearest of what applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeCost {
    /// CHILD_SAs are deleted and, where the configuration has them still, made anew.
    ChildSas,
    /// The IKE SA is deleted with all CHILD_SAs, and made anew if it is to be.
    IkeSa,
    /// The SAs with manual keys are installed anew.
    ManualSas,
    /// Every SA stays.
    Nothing,
    /// CHILD_SAs are rekeyed, without a gap.
    Rekey,
}
