//! `ipsecd invite` and `ipsecd accept`: the far end's files by mail, in an OpenPGP message.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueHint};
use zeroize::Zeroizing;

use super::import::{Disk, write_all};
use super::{CliError, check, duration};
use crate::bundle::openpgp::{self, Certificate, PrivateKey};
use crate::bundle::{Bundle, Item};
use crate::config::{self, SecretSource};
use crate::crypto::random::SecureRandom;
use crate::foreign::export::{self, Options, Program};
use crate::foreign::{Files, MAX_FILE, Written};
use crate::ipsec::pad::{LocalAuth, PeerAuth};

/// Arguments of `ipsecd invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// A configuration file of this end
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The OpenPGP public key of who gets it
    #[arg(long, value_name = "KEY.asc", value_hint = ValueHint::FilePath)]
    pub to: PathBuf,
    /// Our OpenPGP private key, which signs it
    #[arg(long, value_name = "KEY.asc", value_hint = ValueHint::FilePath)]
    pub sign: PathBuf,
    /// A file with the passphrase of that key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase: Option<PathBuf>,
    /// How long it can be accepted
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub expires: Duration,
    /// Where the far end finds this one, if not at `[local] address`: an address or a name
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
}

/// Arguments of `ipsecd accept`.
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// The message, armoured; - for the standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Our OpenPGP private key
    #[arg(long, value_name = "KEY.asc", value_hint = ValueHint::FilePath)]
    pub key: PathBuf,
    /// A file with the passphrase of that key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase: Option<PathBuf>,
    /// The OpenPGP public key of who has to have signed it
    #[arg(long, value_name = "KEY.asc", value_hint = ValueHint::FilePath)]
    pub from: PathBuf,
    /// Where the files go; nothing is ever overwritten
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
}

/// Writes the message to `out`, and for whom it is to `err`.
///
/// # Errors
/// If a file, a key or the configuration is of no use.
pub fn invite(
    args: &InviteArgs,
    rng: &mut dyn SecureRandom,
    now: SystemTime,
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
    let to = read_key(&args.to, Certificate::read)?;
    let by = private(&args.sign, args.passphrase.as_deref())?;
    let options = Options { address: args.address.clone(), secrets: false };
    let text =
        export::export(&loaded.config, Program::Ipsecd, &options).map_err(CliError::Wrong)?;
    let peer = loaded.config.ike().ok_or(CliError::Config)?;
    let mut items = vec![Item { name: far_name(&peer.local_id), text, secret: false }];
    let psk = match (&peer.auth.local, &peer.auth.peer) {
        (LocalAuth::Psk(psk), _) | (_, PeerAuth::Psk(psk)) => {
            Some((format!("{}.psk", peer.name), psk))
        }
        _ => None,
    };
    let ppk = peer.ppk.as_ref().map(|ppk| (format!("{}.ppk", peer.name), &ppk.key));
    for (name, key) in psk.into_iter().chain(ppk) {
        let mut text = export::encoded(key);
        text.push('\n');
        items.push(Item { name, text, secret: true });
    }
    let expires = now
        .checked_add(args.expires)
        .ok_or_else(|| CliError::Wrong("--expires is too far away".to_owned()))?;
    let bundle = Bundle { to: to.fingerprint(), expires, items };
    let sealed = openpgp::seal(&bundle.render(), &to, &by, now, rng)
        .map_err(|error| CliError::Wrong(error.to_string()))?;
    out.write_all(sealed.as_bytes()).map_err(io)?;
    writeln!(
        err,
        "for {} {}\nsigned by {}; good for {}",
        to.fingerprint(),
        to.user(),
        by.fingerprint(),
        humantime::format_duration(args.expires)
    )
    .map_err(io)
}

/// Opens and verifies the message, writes the files, and checks them. Returns the exit code of `ipsecd check`.
///
/// # Errors
/// Why it is refused: nothing is written then.
pub fn accept(
    args: &AcceptArgs,
    now: SystemTime,
    secrets: &dyn SecretSource,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let io = |error: io::Error| CliError::Io("cannot write".to_owned(), error);
    let key = private(&args.key, args.passphrase.as_deref())?;
    let from = read_key(&args.from, Certificate::read)?;
    let shown = args.file.display().to_string();
    let refused =
        |why: &dyn core::fmt::Display| CliError::Wrong(format!("{shown} is refused: {why}"));
    let message = if args.file == Path::new("-") {
        let mut bytes = Vec::new();
        let most = 2 * MAX_FILE as u64;
        io::stdin()
            .lock()
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| CliError::Io(shown.clone(), error))?;
        Zeroizing::new(bytes)
    } else {
        read(&args.file)?
    };
    let text = openpgp::open(&message, &key, &from, now).map_err(|error| refused(&error))?;
    let bundle = Bundle::read(&text, &key.fingerprint(), now).map_err(|error| refused(&error))?;
    writeln!(out, "signed by {} {}", from.fingerprint(), from.user()).map_err(io)?;
    let files: Vec<Written> = bundle
        .items
        .into_iter()
        .map(|item| Written { name: item.name, text: item.text, secret: item.secret })
        .collect();
    write_all(&args.output, &files)?;
    for file in &files {
        let whose = if file.secret { " (owner-only)" } else { "" };
        writeln!(out, "wrote {}{whose}", args.output.join(&file.name).display()).map_err(io)?;
    }
    let confs = files.iter().filter(|file| file.name.ends_with(".conf"));
    let confs: Vec<PathBuf> = confs.map(|file| args.output.join(&file.name)).collect();
    check::run(&confs, secrets, out, err).map_err(io)
}

/// What the far end calls its file: by us.
fn far_name(id: &crate::ipsec::pad::Identity) -> String {
    format!("{}.conf", super::init::file_name(&config::render_identity(id)))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    Disk.read(path).map_err(|why| CliError::Wrong(format!("{}: {why}", path.display())))
}

fn read_key<T>(
    path: &Path,
    parse: impl Fn(&[u8]) -> Result<T, openpgp::OpenPgpError>,
) -> Result<T, CliError> {
    parse(&read(path)?).map_err(|error| CliError::Wrong(format!("{}: {error}", path.display())))
}

fn private(path: &Path, passphrase: Option<&Path>) -> Result<PrivateKey, CliError> {
    let passphrase = match passphrase {
        Some(path) => {
            let bytes = read(path)?;
            let text = core::str::from_utf8(&bytes)
                .map_err(|_| CliError::Wrong(format!("{}: it is not UTF-8", path.display())))?;
            Zeroizing::new(text.strip_suffix('\n').unwrap_or(text).to_owned())
        }
        None => Zeroizing::new(String::new()),
    };
    read_key(path, |bytes| PrivateKey::read(bytes, passphrase.clone()))
}
