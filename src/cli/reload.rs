//! `ipsecd reload`: has the daemon read configuration files again.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{CliError, Global, absolute, complain, say};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body, ChangeCost, ChangeKind, PeerChange};

/// Arguments of `reload`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd reload --dry-run                 what would change, and what that would cost
  ipsecd reload                           apply it
  ipsecd reload /etc/ipsecd/site-b.conf   this file alone")]
pub struct ReloadArgs {
    /// Configuration files; none: those of every peer, and all of the daemon's directory
    #[arg(value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Change nothing, and show what would change
    #[arg(long, short = 'n')]
    pub dry_run: bool,
}

/// Runs it.
///
/// # Errors
/// No daemon runs; a file has an error, and then nothing is changed; or this host refused what was to change.
pub fn run(global: &Global, args: &ReloadArgs) -> Result<(), CliError> {
    let files = args.files.iter().map(|file| absolute(file)).collect::<Result<Vec<_>, _>>()?;
    let ask = Ask::Reload { files, dry_run: args.dry_run };
    let Body::Reload(told) = Client::connect(&global.socket)?.ask(ask, |_| {})? else {
        return Err(ClientError::Ended.into());
    };
    for peer in &told.peers {
        for line in lines(peer) {
            say(line);
        }
    }
    let would = if told.dry_run { "; nothing was changed" } else { "" };
    say(format_args!("{} changed, {} unchanged{would}", told.peers.len(), told.unchanged));
    let failed: Vec<_> = told.peers.iter().filter_map(|peer| peer.error.as_ref()).collect();
    for failure in &failed {
        complain(failure);
    }
    if failed.is_empty() { Ok(()) } else { Err(CliError::Reported) }
}

fn lines(peer: &PeerChange) -> Vec<String> {
    let mut lines =
        vec![format!("{}: {} ({})", peer.peer, peer.change.name(), peer.file.display())];
    for change in &peer.keys {
        let signs = [("-", &change.old), ("+", &change.new)];
        for (sign, value) in signs {
            if let Some(value) = value {
                lines.push(format!("  {sign} {} = {value}", change.key));
            }
        }
    }
    lines.push(format!("    {}", cost(peer)));
    lines
}

fn cost(peer: &PeerChange) -> String {
    let children = peer.child_sas.join(" ");
    match (peer.change, peer.cost) {
        (ChangeKind::Added, _) => "its SAs are made".to_owned(),
        (ChangeKind::Removed, _) => "its SAs are deleted".to_owned(),
        (ChangeKind::Changed, ChangeCost::Nothing) => "in place: every SA stays".to_owned(),
        (ChangeKind::Changed, ChangeCost::Rekey) => {
            format!("CHILD_SAs are rekeyed without a gap: {children}")
        }
        (ChangeKind::Changed, ChangeCost::ChildSas) => {
            format!("CHILD_SAs are deleted, and made anew if they are to be: {children}")
        }
        (ChangeKind::Changed, ChangeCost::IkeSa) => {
            "the IKE_SA is deleted with its CHILD_SAs, and made anew".to_owned()
        }
        (ChangeKind::Changed, ChangeCost::ManualSas) => {
            "its SAs with manual keys are installed anew".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::KeyChange;

    #[test]
    fn change_is_shown_as_a_diff_with_its_cost() {
        let key = |key: &str, old: Option<&str>, new: Option<&str>| KeyChange {
            key: key.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        let peer = PeerChange {
            peer: "site-b".to_owned(),
            file: "/etc/ipsecd/site-b.conf".into(),
            change: ChangeKind::Changed,
            keys: vec![key("esp.df", None, Some("\"set\"")), key("ike.dpd", Some("1"), Some("2"))],
            cost: ChangeCost::Rekey,
            child_sas: vec!["site-b".to_owned()],
            error: None,
        };
        assert_eq!(
            lines(&peer),
            [
                "site-b: changed (/etc/ipsecd/site-b.conf)",
                "  + esp.df = \"set\"",
                "  - ike.dpd = 1",
                "  + ike.dpd = 2",
                "    CHILD_SAs are rekeyed without a gap: site-b",
            ]
        );
    }
}
