//! `ipsecd invite` and `ipsecd accept`: the far end's files by mail, in an OpenPGP message.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueHint};
use zeroize::Zeroizing;

use super::import::write_all;
use super::{CliError, check, duration, init};
use crate::bundle::openpgp::{self, Certificate, OpenPgpError, PrivateKey};
use crate::bundle::{Bundle, Item};
use crate::config::{self, Config, SecretError, SecretFile, SecretSource};
use crate::crypto::Secret;
use crate::crypto::random::SecureRandom;
use crate::foreign::Written;
use crate::foreign::export::{self, Options, Program};

/// Our own private key, unless said otherwise.
const OWN_KEY: &str = "/etc/ipsecd/openpgp/own.key";

/// The public keys of those whose bundles are taken, unless said otherwise.
const PEERS: &str = "/etc/ipsecd/openpgp/peers";

/// No message is longer, armoured.
const MAX_MESSAGE: u64 = 1 << 20;

/// How often somebody at a terminal is asked for a passphrase.
const TRIES: usize = 3;

const INVITE_EXAMPLES: &str = "\
Examples:
  gpg --armor --export-secret-keys me@example.net >me.key     our key, once
  gpg --armor --export joe@example.org >joe.asc               the recipient's
  ipsecd invite site-b.conf --to joe.asc --sign me.key >site-b.asc
  gpg --decrypt site-b.asc                                    what joe sees without ipsecd";

const ACCEPT_EXAMPLES: &str = "\
Examples:
  ipsecd accept site-b.asc --key joe.key --from me.asc -o /etc/ipsecd
  ipsecd accept - <mail                                       with the keys in /etc/ipsecd/openpgp";

/// Arguments of `ipsecd invite`.
#[derive(Debug, Args)]
#[command(after_help = INVITE_EXAMPLES)]
pub struct InviteArgs {
    /// A configuration file of this end
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The OpenPGP public key of who gets it; may be given several times
    #[arg(long, value_name = "KEY.asc", required = true, value_hint = ValueHint::FilePath)]
    pub to: Vec<PathBuf>,
    /// Our OpenPGP private key, which signs it
    #[arg(long, value_name = "KEY", env = "IPSECD_OPENPGP_KEY", default_value = OWN_KEY)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub sign: PathBuf,
    /// What opens that key
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// How long it can be accepted
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub expires: Duration,
    /// Where the far end finds this one, if not at `[local] address`: an address or a name
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
}

/// Arguments of `ipsecd accept`.
#[derive(Debug, Args)]
#[command(after_help = ACCEPT_EXAMPLES)]
pub struct AcceptArgs {
    /// The message, armoured or not; - for the standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Our OpenPGP private key, which opens it
    #[arg(long, value_name = "KEY", env = "IPSECD_OPENPGP_KEY", default_value = OWN_KEY)]
    #[arg(value_hint = ValueHint::FilePath)]
    pub key: PathBuf,
    /// What opens that key
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// The OpenPGP public key of who has to have signed it, or a directory of such; may be given several times
    #[arg(long, value_name = "KEY.asc", default_value = PEERS, value_hint = ValueHint::AnyPath)]
    pub from: Vec<PathBuf>,
    /// Where the files go; nothing is ever overwritten
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
}

/// Where the passphrase of a private key is. Without any, it is asked for on the terminal.
#[derive(Debug, Args)]
pub struct PassphraseArgs {
    /// A file with the passphrase of the private key; else it is asked for on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with = "passphrase_credential")]
    pub passphrase_file: Option<PathBuf>,
    /// The systemd credential with the passphrase of the private key
    #[arg(long, value_name = "NAME")]
    pub passphrase_credential: Option<String>,
}

/// Asks for a passphrase, with this prompt; `None` where nobody can be asked.
pub type Ask = dyn Fn(&str) -> io::Result<Option<Zeroizing<String>>>;

/// What the commands need of the host.
pub struct Host<'a> {
    /// The time.
    pub now: SystemTime,
    /// Where files come from.
    pub secrets: &'a dyn SecretSource,
    /// The terminal.
    pub ask: &'a Ask,
}

/// Writes the message to `out`, and for whom it is to `err`.
///
/// # Errors
/// If a file, a key or the configuration is of no use.
pub fn invite(
    args: &InviteArgs,
    host: &Host<'_>,
    rng: &mut dyn SecureRandom,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    if args.expires.is_zero() {
        return Err(CliError::Usage("--expires: it would have expired at once".to_owned()));
    }
    let loaded = match config::load(&args.file, host.secrets) {
        Ok(loaded) => loaded,
        Err(found) => {
            writeln!(err, "{found}").map_err(lost)?;
            return Err(CliError::Config);
        }
    };
    let to = args
        .to
        .iter()
        .map(|path| certificate(path, host.secrets))
        .collect::<Result<Vec<_>, _>>()?;
    let items = far_files(args, &loaded.config, host.secrets, err)?;
    let by = private(&args.sign, &args.passphrase, host, err)?;
    let too_far = || CliError::Usage("--expires: that is too far away".to_owned());
    let expires = host.now.checked_add(args.expires).ok_or_else(too_far)?;
    // The last year that is written in four digits ends there.
    if expires > SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799) {
        return Err(too_far());
    }
    let names: Vec<String> = items.iter().map(|item| item.name.clone()).collect();
    let bundle = Bundle { to: to.iter().map(Certificate::fingerprint).collect(), expires, items };
    let sealed = openpgp::seal(&bundle.render(), &to, &by, host.now, rng)
        .map_err(|error| CliError::Refused(error.to_string()))?;
    out.write_all(sealed.as_bytes()).map_err(lost)?;
    for to in &to {
        writeln!(err, "for {} {}", to.fingerprint(), to.user()).map_err(lost)?;
    }
    let until = humantime::format_rfc3339_seconds(expires);
    writeln!(err, "signed by {}\ngood until {until}\nin it: {}", by.fingerprint(), names.join(", "))
        .map_err(lost)
}

/// Opens and verifies the message, checks the files and writes them.
///
/// # Errors
/// Why it is refused: nothing is written then.
pub fn accept(
    args: &AcceptArgs,
    host: &Host<'_>,
    input: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let from = signers(&args.from, host.secrets)?;
    let shown = args.file.display().to_string();
    let message = if args.file == Path::new("-") {
        let mut bytes = Zeroizing::new(Vec::new());
        input
            .take(MAX_MESSAGE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| CliError::Io("the standard input".to_owned(), error))?;
        if bytes.len() as u64 > MAX_MESSAGE {
            return Err(CliError::Refused("the standard input is longer than 1 MiB".to_owned()));
        }
        Secret::new(core::mem::take(&mut *bytes))
    } else {
        read(&args.file, host.secrets)?.bytes
    };
    let refused = |why: &dyn core::fmt::Display| {
        CliError::Refused(format!("{shown} is refused: {why}; nothing was written"))
    };
    let key = private(&args.key, &args.passphrase, host, err)?;
    let opened =
        openpgp::open(message.expose(), &key, &from, host.now).map_err(|error| refused(&error))?;
    let bundle = Bundle::read(&opened.text, &key.fingerprint(), host.now)
        .map_err(|error| refused(&error))?;
    if let Some(signer) = from.get(opened.signer) {
        writeln!(out, "signed by {} {}", signer.fingerprint(), signer.user()).map_err(lost)?;
    }
    let files: Vec<Written> = bundle
        .items
        .into_iter()
        .map(|item| Written { name: item.name, text: item.text, secret: true })
        .collect();
    let confs = files.iter().filter(|file| file.name.ends_with(".conf"));
    let confs: Vec<PathBuf> = confs.map(|file| args.output.join(&file.name)).collect();
    let overlay = Overlay { dir: &args.output, files: &files, below: host.secrets };
    if check::run(&confs, &overlay, out, err).map_err(lost)? != check::OK {
        return Err(refused(&"its configuration cannot be used here"));
    }
    write_all(&args.output, &files)?;
    for file in &files {
        writeln!(out, "wrote {}", args.output.join(&file.name).display()).map_err(lost)?;
    }
    Ok(check::OK)
}

/// The far end's configuration, its secrets, and of the certificates and keys that it needs those that are beside ours, where
/// `ipsecd pki` and `init` put them.
fn far_files(
    args: &InviteArgs,
    config: &Config,
    secrets: &dyn SecretSource,
    err: &mut dyn Write,
) -> Result<Vec<Item>, CliError> {
    let options = Options { address: args.address.clone(), secrets: false };
    let text = export::export(config, Program::Ipsecd, &options).map_err(CliError::Usage)?;
    let peer = config.ike().ok_or(CliError::Config)?;
    let name = init::file_name(&config::render_identity(&peer.local_id));
    let mut items = vec![Item { name: format!("{name}.conf"), text }];
    items.extend(
        export::secrets(config).into_iter().map(|it| Item { name: it.name, text: it.text }),
    );
    let beside = args.file.parent().unwrap_or(Path::new(""));
    let of_init = beside.join(format!("for-{}", peer.name));
    let mut missing = Vec::new();
    for name in export::certificates(config) {
        let found = [&of_init, beside].into_iter().find_map(|dir| {
            let found = secrets.read(&dir.join(&name)).ok()?;
            core::str::from_utf8(found.bytes.expose()).ok().map(|it| Zeroizing::new(it.to_owned()))
        });
        match found {
            Some(text) => items.push(Item { name, text }),
            None => missing.push(name),
        }
    }
    if !missing.is_empty() {
        writeln!(
            err,
            "not in it, since not beside {}: {}; the far end is to have them where it accepts",
            args.file.display(),
            missing.join(", ")
        )
        .map_err(lost)?;
    }
    Ok(items)
}

/// A directory as it will be once the files are written.
struct Overlay<'a> {
    dir: &'a Path,
    files: &'a [Written],
    below: &'a dyn SecretSource,
}

impl SecretSource for Overlay<'_> {
    fn read(&self, path: &Path) -> Result<SecretFile, SecretError> {
        match self.files.iter().find(|file| self.dir.join(&file.name) == path) {
            Some(file) => Ok(SecretFile {
                bytes: Secret::new(file.text.as_bytes().to_vec()),
                mode: Some(0o600),
            }),
            None => self.below.read(path),
        }
    }

    fn credential(&self, name: &str) -> Result<SecretFile, SecretError> {
        self.below.credential(name)
    }
}

fn read(path: &Path, secrets: &dyn SecretSource) -> Result<SecretFile, CliError> {
    secrets.read(path).map_err(|why| CliError::Refused(format!("{}: {why}", path.display())))
}

fn certificate(path: &Path, secrets: &dyn SecretSource) -> Result<Certificate, CliError> {
    Certificate::read(read(path, secrets)?.bytes.expose()).map_err(|error| about(path, &error))
}

fn about(path: &Path, error: &OpenPgpError) -> CliError {
    CliError::Refused(format!("{}: {error}", path.display()))
}

/// The keys of those whose bundles are taken: files, and what is in directories.
fn signers(paths: &[PathBuf], secrets: &dyn SecretSource) -> Result<Vec<Certificate>, CliError> {
    let mut found = Vec::new();
    for path in paths {
        if !path.is_dir() {
            found.push(certificate(path, secrets)?);
            continue;
        }
        let failed = |error| CliError::Io(path.display().to_string(), error);
        let entries = std::fs::read_dir(path).map_err(failed)?;
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.map(|it| it.path()))
            .collect::<io::Result<_>>()
            .map_err(failed)?;
        files.retain(|it| it.extension().is_some_and(|end| end == "asc" || end == "gpg"));
        files.sort();
        for file in files {
            found.push(certificate(&file, secrets)?);
        }
    }
    if found.is_empty() {
        let shown: Vec<String> = paths.iter().map(|it| it.display().to_string()).collect();
        return Err(CliError::Refused(format!(
            "there is no public key (*.asc, *.gpg) in {}: whoever signs has to be known, by --from KEY.asc",
            shown.join(", ")
        )));
    }
    Ok(found)
}

/// A private key, opened.
fn private(
    path: &Path,
    passphrase: &PassphraseArgs,
    host: &Host<'_>,
    err: &mut dyn Write,
) -> Result<PrivateKey, CliError> {
    let found = read(path, host.secrets)?;
    let mut key = PrivateKey::read(found.bytes.expose()).map_err(|error| about(path, &error))?;
    if !key.is_locked() {
        if found.mode.is_some_and(|mode| mode & 0o077 != 0) {
            let path = path.display();
            writeln!(err, "warning: {path} can be read by others: chmod 600 {path}")
                .map_err(lost)?;
        }
        return Ok(key);
    }
    let given = match (&passphrase.passphrase_file, &passphrase.passphrase_credential) {
        (Some(file), _) => Some((read(file, host.secrets)?, file.display().to_string())),
        (None, Some(name)) => {
            if name.contains('/') || name.starts_with('.') || name.is_empty() {
                let shown = name.escape_debug();
                return Err(CliError::Usage(format!("`{shown}` is not the name of a credential")));
            }
            let found = host.secrets.credential(name);
            let failed = |why| CliError::Refused(format!("the credential {name}: {why}"));
            Some((found.map_err(failed)?, format!("the credential {name}")))
        }
        (None, None) => None,
    };
    if let Some((found, shown)) = given {
        let text = core::str::from_utf8(found.bytes.expose())
            .map_err(|_| CliError::Refused(format!("{shown} is not UTF-8")))?;
        let text = text.strip_suffix('\n').map_or(text, |it| it.strip_suffix('\r').unwrap_or(it));
        key.unlock(&Zeroizing::new(text.to_owned())).map_err(|error| about(path, &error))?;
        return Ok(key);
    }
    let prompt = format!("Passphrase of key {} ({}): ", key.fingerprint(), path.display());
    let mut last = None;
    for _ in 0..TRIES {
        let failed = |error| CliError::Io("no passphrase".to_owned(), error);
        let Some(answer) = (host.ask)(&prompt).map_err(failed)? else {
            return Err(CliError::Refused(format!(
                "{}: key {} is protected, and there is no terminal to ask on: give --passphrase-file or --passphrase-credential",
                path.display(),
                key.fingerprint()
            )));
        };
        match key.unlock(&answer) {
            Ok(()) => return Ok(key),
            Err(error) => last = Some(about(path, &error)),
        }
    }
    Err(last.unwrap_or(CliError::Reported))
}

fn lost(error: io::Error) -> CliError {
    CliError::Io("cannot write".to_owned(), error)
}
