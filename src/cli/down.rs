//! `ipsecd down`: takes tunnels down.

use std::path::Path;

use clap::{Args, ValueHint};

use super::{CliError, Global, absolute, say};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body, Code, Failure, Target};

/// Arguments of `down`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd down site-b
  ipsecd down ./site-b.conf
  ipsecd down --all")]
pub struct DownArgs {
    /// Names of peers, or their files
    #[arg(value_name = "NAME|FILE", required_unless_present = "all", value_hint = ValueHint::FilePath)]
    pub peers: Vec<String>,
    /// Every peer
    #[arg(long, conflicts_with = "peers")]
    pub all: bool,
}

/// Runs it.
///
/// # Errors
/// No daemon runs, or there is no such peer.
pub fn run(global: &Global, args: &DownArgs) -> Result<(), CliError> {
    if args.all {
        return show(ask(global, Target::All)?);
    }
    for peer in &args.peers {
        show(down(global, peer)?)?;
    }
    Ok(())
}

/// What is a file, or can only be one, is tried as a file first.
fn down(global: &Global, peer: &str) -> Result<Body, CliError> {
    let path = Path::new(peer);
    if !peer.contains('/') && !path.is_file() {
        return ask(global, Target::Name(peer.to_owned()));
    }
    match ask(global, Target::File(absolute(path)?)) {
        Err(CliError::Client(ClientError::Refused(Failure { code: Code::NotFound, .. })))
            if !peer.contains('/') =>
        {
            ask(global, Target::Name(peer.to_owned()))
        }
        other => other,
    }
}

fn ask(global: &Global, target: Target) -> Result<Body, CliError> {
    Ok(Client::connect(&global.socket)?.ask(Ask::Down { target }, |_| {})?)
}

fn show(body: Body) -> Result<(), CliError> {
    let Body::Down { peers } = body else { return Err(ClientError::Ended.into()) };
    for peer in peers {
        say(format_args!("{peer}: down"));
    }
    Ok(())
}
