//! `ipsecd rekey`: replaces the SAs of a peer now.

use clap::Args;

use super::{CliError, Global, say};
use crate::control::client::Client;
use crate::control::protocol::Ask;

/// Arguments of `rekey`.
#[derive(Clone, Debug, Args)]
pub struct RekeyArgs {
    /// Name of the peer
    pub peer: String,
    /// The IKE_SA, instead of its CHILD_SAs
    #[arg(long)]
    pub ike: bool,
}

/// Runs it; returns once the replacement is established.
///
/// # Errors
/// No daemon runs, or there is nothing to rekey.
pub fn run(global: &Global, args: &RekeyArgs) -> Result<(), CliError> {
    let ask = Ask::Rekey { peer: args.peer.clone(), ike: args.ike };
    Client::connect(&global.socket)?.ask(ask, |_| {})?;
    let what = if args.ike { "IKE_SA" } else { "CHILD_SAs" };
    say(format_args!("{}: {what} rekeyed", args.peer));
    Ok(())
}
