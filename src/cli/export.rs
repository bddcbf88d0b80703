//! `ipsecd export FILE`: the far end's configuration.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::CliError;
use crate::config::{self, SecretSource};
use crate::foreign::export::{self, Options, Program};

/// Arguments of `ipsecd export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A configuration file of this end
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// What runs at the far end
    #[arg(long = "for", value_name = "PROGRAM", value_enum)]
    pub program: ProgramArg,
    /// Where the far end finds this one, if not at `[local] address`: an address or a name
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// Put pre-shared keys and passwords into it; else comments say where they belong
    #[arg(long)]
    pub with_secrets: bool,
}

/// The program at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgramArg {
    /// ipsecd: a file such as this one
    Ipsecd,
    /// libreswan: an ipsec.conf
    Libreswan,
    /// OpenIKED: an iked.conf
    Openiked,
    /// strongSwan: a swanctl.conf that 5.9 takes, too
    Strongswan,
    /// strongSwan 6.0 or later, with additional key exchanges
    Strongswan6,
}

impl From<ProgramArg> for Program {
    fn from(arg: ProgramArg) -> Self {
        match arg {
            ProgramArg::Ipsecd => Self::Ipsecd,
            ProgramArg::Libreswan => Self::Libreswan,
            ProgramArg::Openiked => Self::OpenIked,
            ProgramArg::Strongswan => Self::StrongSwan,
            ProgramArg::Strongswan6 => Self::StrongSwan6,
        }
    }
}

/// Writes the far end's configuration to `out`, and what is wrong with ours to `err`.
///
/// # Errors
/// If ours has errors, or there is no such configuration.
pub fn run(
    args: &ExportArgs,
    secrets: &dyn SecretSource,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let io = |error: io::Error| CliError::Io("cannot write".to_owned(), error);
    let loaded = match config::load(&args.file, secrets) {
        Ok(loaded) => loaded,
        Err(found) => {
            writeln!(err, "{found}").map_err(io)?;
            return Err(CliError::Config);
        }
    };
    let options = Options { address: args.address.clone(), secrets: args.with_secrets };
    let text =
        export::export(&loaded.config, args.program.into(), &options).map_err(CliError::Usage)?;
    out.write_all(text.as_bytes()).map_err(io)
}
