//! `ipsecd pki`: a CA, and keys and certificates for a set of sites; or requests for them, or public keys alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum, ValueHint};

use crate::crypto::pem;
use crate::crypto::random::SecureRandom;
use crate::crypto::sign::{KeyKind, PrivateKey, Signer};
use crate::crypto::x509::issue::{self, Period};
use crate::crypto::x509::{Certificate, SubjectName};

/// No certificate and no key is longer.
const MAX_FILE: u64 = 1 << 16;

/// A certificate is valid from so long ago, for clocks that are late.
const LATE: Duration = Duration::from_secs(3600);

const DAY: Duration = Duration::from_secs(86_400);

/// Arguments of `ipsecd pki`.
#[derive(Debug, Args)]
pub struct PkiArgs {
    /// The sites, each by the id it will have: a host name, an email address or an IP address. More names of the same site follow
    /// after commas; the first one names its files
    #[arg(required = true, value_name = "SITE")]
    pub sites: Vec<String>,
    /// Where the files are
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// What keys are made
    #[arg(long, value_enum, default_value_t = Kind::P256)]
    pub key: Kind,
    /// How long the sites' certificates are valid; the CA's are for ten times as long
    #[arg(long, value_name = "DAYS", default_value_t = 730)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=7300))]
    pub days: u32,
    /// Name of the CA, if it is made
    #[arg(long, value_name = "NAME", default_value = "ipsecd CA")]
    pub ca_name: String,
    /// Make requests (SITE.csr) for another CA in place of certificates, and no CA
    #[arg(long)]
    pub request: bool,
    /// Make public keys (SITE.pub) in place of certificates, and no CA: for `[auth]` public-key of the peers
    #[arg(long, conflicts_with = "request")]
    pub raw: bool,
}

/// The kind of a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// ECDSA on P-256: every peer has it
    P256,
    /// ECDSA on P-384
    P384,
    /// ECDSA on P-521
    P521,
    /// Ed25519: for peers with RFC 8420
    Ed25519,
}

/// A site: its names, the first of which names its files.
struct Site<'a> {
    file: &'a str,
    names: Vec<SubjectName>,
}

/// Makes what is asked for and says to `out` what was made.
///
/// # Errors
/// When a file is there already, cannot be written, or a name is none. What was made until then stays.
pub fn run(
    args: &PkiArgs,
    rng: &mut dyn SecureRandom,
    now: SystemTime,
    out: &mut dyn Write,
) -> io::Result<()> {
    let now = now.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let sites: Vec<Site<'_>> =
        args.sites.iter().map(|text| site(text)).collect::<Result<_, _>>()?;
    // Before anything is made: half of it would be no use.
    for site in &sites {
        let last = if args.request {
            "csr"
        } else if args.raw {
            "pub"
        } else {
            "pem"
        };
        for end in ["key", last] {
            refuse_existing(&args.dir.join(format!("{}.{end}", site.file)))?;
        }
    }
    let period = |days: u32| Period { begin: now.saturating_sub(LATE), end: now + DAY * days };
    let kind = match args.key {
        Kind::P256 => KeyKind::EcdsaP256,
        Kind::P384 => KeyKind::EcdsaP384,
        Kind::P521 => KeyKind::EcdsaP521,
        Kind::Ed25519 => KeyKind::Ed25519,
    };
    let ca = if args.request || args.raw {
        None
    } else {
        Some(ca(args, kind, rng, period(args.days.saturating_mul(10)), out)?)
    };
    for site in sites {
        let path = |end: &str| args.dir.join(format!("{}.{end}", site.file));
        let (key, der) = PrivateKey::generate(kind, rng).map_err(io::Error::other)?;
        let made = match &ca {
            None if args.raw => {
                let spki = key.public_key().spki().to_vec();
                (path("pub"), "PUBLIC KEY", spki)
            }
            None => {
                let der = issue::request(rng, &key, site.file, &site.names);
                (path("csr"), "CERTIFICATE REQUEST", der.map_err(io::Error::other)?)
            }
            Some((certificate, ca_key)) => {
                let der = issue::host(
                    rng,
                    (certificate, ca_key),
                    key.public_key(),
                    site.file,
                    &site.names,
                    period(args.days),
                );
                (path("pem"), "CERTIFICATE", der.map_err(io::Error::other)?)
            }
        };
        write_new(&path("key"), 0o600, &pem::encode("PRIVATE KEY", der.expose()))?;
        write_new(&made.0, 0o644, &pem::encode(made.1, &made.2))?;
        writeln!(out, "{}: {} and {}", site.file, made.0.display(), path("key").display())?;
    }
    Ok(())
}

/// The CA of the directory, which is made if there is none.
fn ca(
    args: &PkiArgs,
    kind: KeyKind,
    rng: &mut dyn SecureRandom,
    period: Period,
    out: &mut dyn Write,
) -> io::Result<(Certificate, PrivateKey)> {
    let (certificate, key) = (args.dir.join("ca.pem"), args.dir.join("ca.key"));
    if !certificate.exists() && !key.exists() {
        let (private, der) = PrivateKey::generate(kind, rng).map_err(io::Error::other)?;
        let made = issue::ca(rng, &private, &args.ca_name, period).map_err(io::Error::other)?;
        write_new(&key, 0o600, &pem::encode("PRIVATE KEY", der.expose()))?;
        write_new(&certificate, 0o644, &pem::encode("CERTIFICATE", &made))?;
        writeln!(out, "CA: {} and {}", certificate.display(), key.display())?;
    }
    let about = |path: &Path, error: &dyn std::fmt::Display| {
        io::Error::other(format!("{} cannot be used: {error}", path.display()))
    };
    let private = PrivateKey::from_pem(&read(&key)?, None).map_err(|error| about(&key, &error))?;
    let text = read(&certificate)?;
    let der = pem::blocks(&text)
        .find(|block| block.label == "CERTIFICATE")
        .and_then(|block| block.der)
        .ok_or_else(|| about(&certificate, &"there is no CERTIFICATE in it"))?;
    let read = Certificate::parse(der.expose()).map_err(|error| about(&certificate, &error))?;
    if read.public_key() != private.public_key() {
        return Err(about(&certificate, &format!("{} is another CA's key", key.display())));
    }
    Ok((read, private))
}

/// `a.example.net,192.0.2.1,admin@example.net`.
fn site(text: &str) -> io::Result<Site<'_>> {
    let wrong = |name: &str| {
        let message = format!(
            "`{}` is not a name of a site: a host name, an email address or an IP address",
            name.escape_debug()
        );
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    let names = text.split(',').map(str::trim).map(|name| {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"._-@+:".contains(&b);
        if name.is_empty() || name.len() > 253 || !name.bytes().all(letter) {
            return Err(wrong(name));
        }
        if let Ok(addr) = name.parse::<IpAddr>() {
            return Ok(SubjectName::Ip(addr));
        }
        match name.split_once('@') {
            Some((user, host)) if !user.is_empty() && !host.is_empty() && !host.contains('@') => {
                Ok(SubjectName::Email(name.to_owned()))
            }
            None if !name.starts_with(['.', '-']) && !name.contains(['+', ':']) => {
                Ok(SubjectName::Dns(name.to_owned()))
            }
            Some(_) | None => Err(wrong(name)),
        }
    });
    let names = names.collect::<io::Result<Vec<_>>>()?;
    let file = text.split(',').next().unwrap_or(text).trim();
    if file == "ca" || file.starts_with('.') {
        return Err(wrong(file));
    }
    Ok(Site { file, names })
}

fn refuse_existing(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        let message = format!("{} is there already and is not overwritten", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    Ok(())
}

fn write_new(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let about = |error: &io::Error| {
        io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()))
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|error| about(&error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| about(&error))
}

fn read(path: &Path) -> io::Result<zeroize::Zeroizing<Vec<u8>>> {
    let about = |error: &io::Error| {
        io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| about(&error))?;
    let room = usize::try_from(MAX_FILE).unwrap_or_default();
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(room));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|error| about(&error))?;
    Ok(bytes)
}
