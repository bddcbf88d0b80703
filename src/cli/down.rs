//! `ipsecd down`: takes tunnels down.

use std::path::Path;

use clap::{Args, ValueHint};

use super::{CliError, Global, absolute, say};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Ask, Body, Code, Failure, Target};
use crate::daemon::network;
use crate::io::lock::NamespaceLock;

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
    /// Every peer; where no daemon runs, what a killed one left in routing
    #[arg(long, conflicts_with = "peers")]
    pub all: bool,
}

/// Runs it.
///
/// # Errors
/// No daemon runs, or there is no such peer.
pub fn run(global: &Global, args: &DownArgs) -> Result<(), CliError> {
    if args.all {
        return match ask(global, Target::All) {
            Err(error @ CliError::Client(ClientError::NotRunning(_))) => clean_up(error),
            other => show(other?),
        };
    }
    for peer in &args.peers {
        show(down(global, peer)?)?;
    }
    Ok(())
}

/// Without a daemon: a killed one leaves routes that refuse what it protected. `error` where there is nothing to do.
fn clean_up(error: CliError) -> Result<(), CliError> {
    // Another socket's daemon may have this network namespace.
    let Ok(_lock) = NamespaceLock::take() else { return Err(error) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| CliError::Io("cannot start the runtime".to_owned(), error))?;
    match runtime.block_on(network::remove_leftovers()) {
        Ok(0) => Err(error),
        Ok(removed) => {
            say(format_args!("no daemon runs; {removed} routes and rules of a killed one removed"));
            Ok(())
        }
        Err(cause) => Err(CliError::Daemon(cause.into())),
    }
}

/// What is a file, or can only be one, is tried as a file first; what is none, as a name, and then as a file that was there.
fn down(global: &Global, peer: &str) -> Result<Body, CliError> {
    let path = Path::new(peer);
    let file = Target::File(absolute(path)?);
    if peer.contains('/') {
        return ask(global, file);
    }
    let name = Target::Name(peer.to_owned());
    let (first, second) = if path.is_file() { (file, name) } else { (name, file) };
    match ask(global, first) {
        Err(not_first) if is_unknown(&not_first) => match ask(global, second) {
            Err(error) if is_unknown(&error) && !path.is_file() => Err(not_first),
            other => other,
        },
        other => other,
    }
}

const fn is_unknown(error: &CliError) -> bool {
    matches!(error, CliError::Client(ClientError::Refused(Failure { code: Code::NotFound, .. })))
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
