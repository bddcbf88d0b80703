//! The text of an ipsec.conf: sections that begin at the margin, indented `key=value` lines, `include`, `also=` and
//! `conn %default`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::{At, Files, ForeignError, included, read_text};

/// Files that one configuration may consist of.
const MAX_FILES: usize = 256;
/// How deep includes and `also` may go.
const MAX_DEPTH: usize = 16;
/// Sections that `also` may bring together in one connection.
const MAX_ALSO: usize = 256;

/// A setting.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) value: String,
    pub(super) at: At,
}

/// The settings of a section, by their keys in lower case; of several the last counts.
#[derive(Clone)]
pub(super) struct Section {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) at: At,
    pub(super) settings: BTreeMap<String, Setting>,
    also: Vec<Setting>,
    /// Whether another names it in its `also`.
    pub(super) is_base: bool,
}

impl Section {
    /// The setting of this name, which counts as dealt with from now on.
    pub(super) fn take(&mut self, key: &str) -> Option<Setting> {
        self.settings.remove(key).filter(|setting| !setting.value.is_empty())
    }

    /// The value of the first of these names that is there; all count as dealt with.
    pub(super) fn take_any(&mut self, keys: &[&str]) -> Option<Setting> {
        let found: Vec<_> = keys.iter().filter_map(|key| self.take(key)).collect();
        found.into_iter().next()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.settings.contains_key(key)
    }

    fn inherit(&mut self, from: &Self) {
        for (key, setting) in &from.settings {
            self.settings.entry(key.clone()).or_insert_with(|| setting.clone());
        }
    }
}

/// Reads a file and what it includes. In the connections that are returned, `also` and `%default` have been followed.
pub(super) fn parse(
    path: &Path,
    text: &str,
    files: &dyn Files,
) -> Result<Vec<Section>, ForeignError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut left = MAX_FILES;
    read(path, text, files, &mut sections, &mut left, 0)?;
    let defaults: Vec<Section> = sections
        .iter()
        .filter(|section| section.kind == "conn" && section.name == "%default")
        .cloned()
        .collect();
    let named = |section: &Section| {
        let kind = section.kind.clone();
        section.also.iter().map(move |also| (kind.clone(), also.value.clone())).collect::<Vec<_>>()
    };
    let bases: BTreeSet<_> = sections.iter().flat_map(named).collect();
    let mut made = Vec::new();
    for section in &sections {
        if section.name == "%default" {
            continue;
        }
        let mut whole = section.clone();
        whole.is_base = bases.contains(&(section.kind.clone(), section.name.clone()));
        let mut budget = MAX_ALSO;
        follow(&mut whole, section, &sections, &mut budget, 0)?;
        if section.kind == "conn" {
            defaults.iter().rev().for_each(|default| whole.inherit(default));
        }
        made.push(whole);
    }
    Ok(made)
}

fn follow(
    whole: &mut Section,
    section: &Section,
    all: &[Section],
    budget: &mut usize,
    depth: usize,
) -> Result<(), ForeignError> {
    for also in &section.also {
        let failed = |message: String| ForeignError { at: also.at.clone(), message };
        *budget = budget
            .checked_sub(1)
            .filter(|_| depth < MAX_DEPTH)
            .ok_or_else(|| failed("`also` goes in a circle, or too far".to_owned()))?;
        let named = |there: &&Section| there.kind == section.kind && there.name == also.value;
        let from = all.iter().find(named).ok_or_else(|| {
            failed(format!("also={}: there is no such {}", also.value, section.kind))
        })?;
        whole.inherit(from);
        follow(whole, from, all, budget, depth + 1)?;
    }
    Ok(())
}

fn read(
    path: &Path,
    text: &str,
    files: &dyn Files,
    sections: &mut Vec<Section>,
    left: &mut usize,
    depth: usize,
) -> Result<(), ForeignError> {
    // A section ends with its file.
    let mut open = false;
    for (number, raw) in text.lines().enumerate() {
        let at = At { file: path.to_owned(), line: number + 1 };
        let failed = |message: &str| ForeignError { at: at.clone(), message: message.to_owned() };
        let line = without_comment(raw);
        let trimmed = line.trim();
        if trimmed.is_empty() {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            let section = sections.last_mut().filter(|_| open);
            let Some(section) = section else {
                return Err(failed("an indented line, and no section that it belongs to"));
            };
            let Some((key, value)) = trimmed.split_once('=') else {
                return Err(failed("expected `key=value`"));
            };
            let key = key.trim().to_ascii_lowercase();
            let value =
                unquoted(value.trim()).ok_or_else(|| failed("the quotes are not closed"))?;
            let setting = Setting { value, at };
            if key == "also" || key == "alsoflip" {
                section.also.push(setting);
            } else {
                section.settings.insert(key, setting);
            }
            continue;
        }
        let mut words = trimmed.split_whitespace();
        let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match kind {
            "conn" | "ca" if !name.is_empty() => {}
            "config" if name == "setup" => {}
            // Of FreeS/WAN.
            "version" => continue,
            "include" if !name.is_empty() => {
                if depth >= MAX_DEPTH {
                    return Err(failed("files include each other in a circle, or too deep"));
                }
                for file in included(&unquoted(name).unwrap_or_default(), path, files) {
                    *left =
                        left.checked_sub(1).ok_or_else(|| failed("too many files are included"))?;
                    let text = read_text(&file, files)
                        .map_err(|error| failed(&format!("include {}: {error}", file.display())))?;
                    read(&file, &text, files, sections, left, depth + 1)?;
                }
                open = false;
                continue;
            }
            _ => {
                return Err(failed(
                    "expected `conn NAME`, `ca NAME`, `config setup` or `include FILE`; settings are indented",
                ));
            }
        }
        open = true;
        let is_it = |there: &Section| there.kind == kind && there.name == name;
        // The same section again goes on with it.
        match sections.iter().position(is_it) {
            Some(place) => {
                let section = sections.remove(place);
                sections.push(section);
            }
            None => sections.push(Section {
                kind: kind.to_owned(),
                name: name.to_owned(),
                at,
                settings: BTreeMap::new(),
                also: Vec::new(),
                is_base: false,
            }),
        }
    }
    Ok(())
}

/// A `#` at the begin of a word, outside quotes, begins a comment.
fn without_comment(line: &str) -> &str {
    let (mut quoted, mut before) = (false, ' ');
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted && before.is_whitespace() => return &line[..at],
            _ => {}
        }
        before = c;
    }
    line
}

/// A value without its quotes.
fn unquoted(value: &str) -> Option<String> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').map(str::to_owned),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Files for Nothing {
        fn read(&self, _: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
            Err("no such file".to_owned())
        }
        fn list(&self, _: &Path) -> Vec<String> {
            Vec::new()
        }
    }

    fn sections(text: &str) -> Result<Vec<Section>, ForeignError> {
        parse(Path::new("ipsec.conf"), text, &Nothing)
    }

    #[test]
    fn what_a_connection_says_itself_goes_before_also_and_default() {
        let text = "config setup\n  uniqueids=no\n\nconn %default\n\tike=d\n\tesp=d\n\tauto=add\n\
                    conn base\n\tesp=b # why\n\tleft=192.0.2.1\nconn a\n\talso=base\n\tleft=\"192.0.2.2\"\n";
        let all = sections(text).unwrap();
        let a = all.iter().find(|section| section.name == "a").unwrap();
        let value = |key: &str| a.settings[key].value.as_str();
        assert_eq!((value("ike"), value("esp"), value("left")), ("d", "b", "192.0.2.2"));
        assert_eq!(a.settings["esp"].at.line, 9);
    }

    #[test]
    fn what_cannot_be_read_has_its_line() {
        for (text, line, part) in [
            ("  left=1\n", 1, "no section"),
            ("conn a\n  left\n", 2, "key=value"),
            ("conn a\n  x=\"1\n", 2, "quotes"),
            ("left=1\n", 1, "indented"),
            ("conn a\n  also=b\n", 2, "no such conn"),
            ("conn a\n  also=a\n", 2, "circle"),
            ("include x.conf\n", 1, "no such file"),
        ] {
            let error = sections(text).err().unwrap();
            assert!(error.message.contains(part), "{text}: {error}");
            assert_eq!(error.at.line, line, "{text}: {error}");
        }
    }
}
