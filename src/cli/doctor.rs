//! `ipsecd doctor`: why a tunnel fails, and what to change.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{CliError, Global, absolute, complain, say, secrets};
use crate::daemon::doctor::gather;
use crate::doctor::examine;

/// Exit code: nothing wrong was found.
pub const HEALTHY: u8 = 0;
/// Exit code: something was.
pub const FOUND: u8 = 1;
/// Exit code: a configuration file has errors.
const INVALID: u8 = 2;

/// Arguments of `doctor`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  ipsecd doctor site-b.conf               what can be seen from here, and what the daemon knows
  ipsecd doctor --live site-b.conf        and what comes of an attempt, and of experiments
  ipsecd doctor --json /etc/ipsecd/*.conf

Exit codes:
  0  nothing wrong was found
  1  something was; the cause stands first
  2  wrong usage, or a configuration file has errors")]
pub struct DoctorArgs {
    /// Configuration files, one a peer; each is looked at beside the others
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Make an attempt at an IKE_SA and a CHILD_SA, rekey it, take it down again; see which ports answer, and how long a
    /// packet may be. A peer that the daemon has up gets no second IKE_SA
    #[arg(long)]
    pub live: bool,
    /// Print JSON, one object a file
    #[arg(long)]
    pub json: bool,
}

/// Runs it. Returns the exit code.
///
/// # Errors
/// A path that is none.
pub fn run(global: &Global, args: &DoctorArgs) -> Result<u8, CliError> {
    let files = args.files.iter().map(|file| absolute(file)).collect::<Result<Vec<_>, _>>()?;
    let mut code = HEALTHY;
    for (number, file) in files.iter().enumerate() {
        let facts = match gather(file, &files, &global.socket, &secrets(), args.live) {
            Ok(facts) => facts,
            Err(wrong) => {
                complain(format_args!("{}:\n{wrong}", file.display()));
                code = INVALID;
                continue;
            }
        };
        let report = examine(&facts);
        if args.json {
            let text = serde_json::to_string(&report).map_err(|error| {
                CliError::Io("cannot write JSON".to_owned(), io::Error::from(error))
            })?;
            say(text);
        } else {
            if number > 0 {
                say("");
            }
            say(report.to_string().trim_end());
        }
        if !report.findings.is_empty() {
            code = code.max(FOUND);
        }
    }
    Ok(code)
}
