//! A policy that needs no SA, in `status`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A policy that needs no SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedPolicyStatus {
    /// Its name, unique within its file.
    pub name: String,
    /// The name of the file, as `down` takes it.
    pub of: String,
    /// The configuration file.
    pub file: PathBuf,
    /// `BYPASS` or `DISCARD`.
    pub action: String,
    /// `first` or `last`: before or after the policies that say PROTECT.
    pub order: String,
    /// `both`, `inbound` or `outbound`.
    pub direction: String,
    /// Selectors of our side.
    pub ts_local: Vec<String>,
    /// Selectors of the far side.
    pub ts_remote: Vec<String>,
}
