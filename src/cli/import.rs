//! `ipsecd import FILE`: files of ours out of another program's configuration.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use zeroize::Zeroizing;

use super::{CliError, check, genpsk};
use crate::config::SecretSource;
use crate::crypto::random::SecureRandom;
use crate::foreign::{self, Files, Host, Import, MAX_FILE, Written};

/// Arguments of `ipsecd import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A swanctl.conf, an ipsec.conf (its ipsec.secrets is read from beside it), or a configuration of wg-quick
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Where the new files go; nothing is ever overwritten
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
    /// An address of the host that the configuration is for, if it is not this one: which end of an ipsec.conf is ours
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<core::net::IpAddr>,
}

/// Exit code: something of weight was left out.
const LEFT_OUT: u8 = 1;

/// Imports, writes, and checks what was written; says what became of everything. Returns the exit code: that of `ipsecd check`,
/// or 1 where a connection was left out.
///
/// # Errors
/// If the file cannot be read, or the new ones not written: then none is left behind.
pub fn run(
    args: &ImportArgs,
    host_addresses: Vec<core::net::IpAddr>,
    rng: &mut dyn SecureRandom,
    secrets: &dyn SecretSource,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let io = |error| CliError::Io("cannot write".to_owned(), error);
    let mut new_psk = || {
        let mut key = Zeroizing::new(Vec::new());
        // A vector takes all that is written to it.
        let _done = genpsk::run(None, rng, &mut *key);
        Zeroizing::new(String::from_utf8_lossy(&key).into_owned())
    };
    let addresses = if args.address.is_empty() { host_addresses } else { args.address.clone() };
    let mut host = Host { addresses, new_psk: &mut new_psk };
    let Import { files, notes, .. } = foreign::import(&args.file, &Disk, &mut host)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    for note in &notes {
        writeln!(err, "{note}").map_err(io)?;
    }
    write_all(&args.output, &files)?;
    let peers: Vec<PathBuf> = files
        .iter()
        .filter(|file| file.name.ends_with(".conf"))
        .map(|file| args.output.join(&file.name))
        .collect();
    for file in &files {
        let whose = if file.secret { " (owner-only)" } else { "" };
        writeln!(out, "wrote {}{whose}", args.output.join(&file.name).display()).map_err(io)?;
    }
    let code = check::run(&peers, secrets, out, err).map_err(io)?;
    let left_out = peers.is_empty() || notes.iter().any(|note| note.left_out);
    Ok(if code == check::OK && left_out { LEFT_OUT } else { code })
}

/// Writes new files into `dir`, all or none: they are made under other names, and get theirs when all are on disk, secrets before
/// what refers to them. A directory that is made for secrets alone is its owner's, too.
pub(super) fn write_all(dir: &Path, files: &[Written]) -> Result<(), CliError> {
    let failed = |path: &Path, error: io::Error| {
        let there = if error.kind() == io::ErrorKind::AlreadyExists {
            " is there already and is not overwritten"
        } else {
            ""
        };
        let what = format!("{}{there}: nothing was written", path.display());
        CliError::Io(what, error)
    };
    for file in files {
        let path = dir.join(&file.name);
        if path.symlink_metadata().is_ok() {
            return Err(failed(&path, io::ErrorKind::AlreadyExists.into()));
        }
    }
    let made_dir = !dir.exists();
    let mode = if files.iter().all(|file| file.secret) { 0o700 } else { 0o777 };
    DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(|error| failed(dir, error))?;
    let mut made: Vec<PathBuf> = Vec::new();
    let done = place_all(dir, files, &mut made);
    if done.is_err() {
        for path in made {
            // What is left then is said by the error at hand.
            let _left = std::fs::remove_file(path);
        }
        if made_dir {
            let _left = std::fs::remove_dir(dir);
        }
    }
    done.map_err(|(path, error)| failed(&path, error))
}

/// What it has made stands in `made`.
fn place_all(
    dir: &Path,
    files: &[Written],
    made: &mut Vec<PathBuf>,
) -> Result<(), (PathBuf, io::Error)> {
    let mut placed = Vec::new();
    for file in files {
        let path = dir.join(&file.name);
        let staged = dir.join(format!(".{}.{}.new", file.name, std::process::id()));
        write_new(&staged, file, made).map_err(|error| (path.clone(), error))?;
        placed.push((staged, path, file));
    }
    // A daemon that looks in between finds no configuration without its secrets.
    placed.sort_by_key(|(.., file)| file.name.ends_with(".conf"));
    for (staged, path, file) in placed {
        // A link, which another file of that name makes fail. Not every file system has them.
        let linked = match std::fs::hard_link(&staged, &path) {
            Ok(()) => {
                made.push(path.clone());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) => write_new(&path, file, made),
        };
        linked
            .and_then(|()| std::fs::remove_file(&staged))
            .map_err(|error| (path.clone(), error))?;
        made.retain(|it| *it != staged);
    }
    std::fs::File::open(dir)
        .and_then(|open| open.sync_all())
        .map_err(|error| (dir.to_owned(), error))
}

fn write_new(path: &Path, file: &Written, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let mode = if file.secret { 0o600 } else { 0o644 };
    let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    made.push(path.to_owned());
    open.write_all(file.text.as_bytes()).and_then(|()| open.sync_all())
}

/// The file system.
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| error.to_string())?;
        if !file.metadata().is_ok_and(|it| it.is_file()) {
            return Err("it is not a regular file".to_owned());
        }
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_FILE as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        if bytes.len() > MAX_FILE {
            return Err("it is larger than 1 MiB".to_owned());
        }
        Ok(bytes)
    }

    fn list(&self, dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}
