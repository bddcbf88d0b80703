//! Configurations of other programs: read ([`swanctl`], [`ipsec_conf`], [`wireguard`]) and made into files of ours, and the
//! far end's made out of ours ([`export`]).
//!
//! Text comes in, files and notes go out; what a text refers to is had from [`Files`]. Whatever cannot be carried is in a
//! [`Note`] with its file and line: nothing is lost in silence, and nothing is widened: who has not the identity and the key
//! that the original asks for is not let in. What is imported is looked at again by [`config`](crate::config), as any file is.

mod connection;
mod draft;
pub mod export;
pub mod ipsec_conf;
mod pki;
mod policy;
mod proposal;
mod secrets;
mod selector;
pub mod swanctl;
pub mod wireguard;

use core::fmt;
use core::net::IpAddr;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The largest file that is read, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// Where what a configuration refers to is read from.
pub trait Files {
    /// The file at `path`, whole, if it is one of at most [`MAX_FILE`] bytes.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, String>;

    /// The names in the directory `dir`, sorted; none if it cannot be read.
    fn list(&self, dir: &Path) -> Vec<String>;
}

/// What is known of the host that the configuration is for.
pub struct Host<'a> {
    /// Its addresses: they tell which end of an ipsec.conf is ours.
    pub addresses: Vec<IpAddr>,
    /// Makes a new pre-shared key, as `ipsecd genpsk` writes it, for configurations that have none to carry.
    pub new_psk: &'a mut dyn FnMut() -> Zeroizing<String>,
}

/// A place in what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// Something that was not carried, or not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where it stands.
    pub at: At,
    /// What it is.
    pub what: String,
    /// Why, and what can be done.
    pub why: String,
    /// Whether a whole connection was left out for it.
    pub left_out: bool,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let At { file, line } = &self.at;
        write!(f, "{}:{line}: {}: {}", file.display(), self.what, self.why)
    }
}

/// A file to be written.
pub struct Written {
    /// Its name, without folders.
    pub name: String,
    /// What is in it.
    pub text: Zeroizing<String>,
    /// Whether it is for its owner's eyes only.
    pub secret: bool,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.secret { "[redacted]" } else { self.text.as_str() };
        f.debug_struct("Written").field("name", &self.name).field("text", &text).finish()
    }
}

/// What an import made.
#[derive(Debug, Default)]
pub struct Import {
    /// The files; each `.conf` is a peer, the others are what these refer to.
    pub files: Vec<Written>,
    /// What was not carried.
    pub notes: Vec<Note>,
    /// Each `[[policy]]`, until they are written.
    policies: Vec<draft::Table>,
}

/// Why a configuration cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {message}", at.file.display(), at.line)]
pub struct ForeignError {
    /// Where.
    pub at: At,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// The configurations that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ipsec.conf of strongSwan's stroke and of libreswan.
    IpsecConf,
    /// swanctl.conf of strongSwan.
    Swanctl,
    /// A configuration of wg-quick.
    WireGuard,
}

impl Kind {
    /// Which it is, by what is in it.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let lines = || text.lines().map(str::trim);
        if lines().any(|line| line.eq_ignore_ascii_case("[interface]")) {
            return Some(Self::WireGuard);
        }
        let section =
            |line: &str| line.ends_with('{') || line == "connections" || line == "secrets";
        if lines().map(|line| line.split('#').next().unwrap_or_default().trim_end()).any(section) {
            return Some(Self::Swanctl);
        }
        let heading = |line: &str| {
            let mut words = line.split_whitespace();
            matches!((words.next(), words.next()), (Some("conn" | "config" | "ca"), Some(_)))
        };
        lines().any(heading).then_some(Self::IpsecConf)
    }
}

/// Reads the configuration in the file `path`.
///
/// # Errors
/// If it is not one of the [`Kind`]s, or what it says cannot be made out.
pub fn import(path: &Path, files: &dyn Files, host: &mut Host<'_>) -> Result<Import, ForeignError> {
    let text = read_text(path, files)
        .map_err(|message| ForeignError { at: At { file: path.to_owned(), line: 1 }, message })?;
    let mut made = match Kind::of(&text) {
        Some(Kind::Swanctl) => swanctl::import(path, &text, files),
        Some(Kind::IpsecConf) => ipsec_conf::import(path, &text, files, &host.addresses),
        Some(Kind::WireGuard) => wireguard::import(path, &text, host),
        None => Err(ForeignError {
            at: At { file: path.to_owned(), line: 1 },
            message: "this is none that can be imported: a swanctl.conf has `connections {`, an ipsec.conf `conn NAME`, a \
                      configuration of wg-quick `[Interface]`"
                .to_owned(),
        }),
    }?;
    made.finish_shunts();
    made.notes.sort_by(|a, b| (&a.at.file, a.at.line).cmp(&(&b.at.file, b.at.line)));
    Ok(made)
}

/// A file as text.
fn read_text(path: &Path, files: &dyn Files) -> Result<Zeroizing<String>, String> {
    let bytes = files.read(path)?;
    match core::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("it is not UTF-8".to_owned()),
    }
}

/// The files that an `include` in `file` names: `*` and `?` stand for anything in the last part of a path.
fn included(pattern: &str, file: &Path, files: &dyn Files) -> Vec<PathBuf> {
    let base = file.parent().unwrap_or_else(|| Path::new(""));
    let path = base.join(pattern);
    let Some(last) = path.file_name().and_then(|name| name.to_str()) else { return vec![path] };
    if !last.contains(['*', '?']) {
        return vec![path.clone()];
    }
    let dir = path.parent().unwrap_or_else(|| Path::new(""));
    let fits = |name: &String| !name.starts_with('.') && matches(last.as_bytes(), name.as_bytes());
    files.list(dir).into_iter().filter(fits).map(|name| dir.join(name)).collect()
}

/// Whether `name` fits a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // The place after the last `*`, and how much of the name it has taken: nothing before it need be tried again.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(b'?') => (p, n) = (p + 1, n + 1),
            Some(wanted) if wanted == byte => (p, n) = (p + 1, n + 1),
            Some(_) | None => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    (p, n) = (after, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// A name that a file, and a peer, may have.
fn file_name(name: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut made: String = name.chars().take(60).map(|c| if fine(c) { c } else { '-' }).collect();
    if !made.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        made.insert(0, '_');
    }
    made
}

/// A duration as strongSwan and libreswan write it, in seconds: `90`, `90s`, `5m`, `4h`, `1d`.
fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(milliseconds) = text.strip_suffix("ms") {
        return Some(milliseconds.parse::<u64>().ok()?.div_ceil(1000));
    }
    let (digits, factor) = match text.char_indices().next_back()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        (at, 'd') => (&text[..at], 86_400),
        (at, 'w') => (&text[..at], 604_800),
        _ => (text, 1),
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(factor).filter(|n| *n <= 366 * 86_400)
}

/// A duration as we write it.
fn show_seconds(seconds: u64) -> String {
    match seconds {
        n if n > 0 && n.is_multiple_of(3600) => format!("{}h", n / 3600),
        n if n > 0 && n.is_multiple_of(60) => format!("{}m", n / 60),
        n => format!("{n}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_by_its_looks() {
        for (text, kind) in [
            ("# x\nconnections {\n}\n", Some(Kind::Swanctl)),
            ("connections\n{\n", Some(Kind::Swanctl)),
            ("base {  # all have this\n", Some(Kind::Swanctl)),
            ("config setup\n\nconn %default\n", Some(Kind::IpsecConf)),
            ("conn a\n", Some(Kind::IpsecConf)),
            ("[Interface]\nAddress = 10.0.0.1/24\n", Some(Kind::WireGuard)),
            ("[local]\naddress = \"192.0.2.1\"\n", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
    }

    #[test]
    fn patterns_fit_as_a_shell_has_them() {
        for (pattern, name, fits) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("?.conf", "a.conf", true),
            ("?.conf", "ab.conf", false),
            ("a*b*c", "aXXbYYbc", true),
            ("a*b*c", "aXXbYYb", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn durations_are_read_and_shown() {
        for (text, wanted) in [
            ("90", Some("90s")),
            ("4h", Some("4h")),
            ("90m", Some("90m")),
            ("120m", Some("2h")),
            ("1d", Some("24h")),
            ("500ms", Some("1s")),
            ("soon", None),
            ("9999999h", None),
        ] {
            assert_eq!(seconds(text).map(show_seconds).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn names_become_names_of_files() {
        assert_eq!(file_name("gw-a"), "gw-a");
        assert_eq!(file_name("../etc/passwd"), "_../etc/passwd".replace('/', "-"));
        assert_eq!(file_name("büro 1"), "b-ro-1");
        assert_eq!(file_name(""), "_");
    }
}
