//! The text of a swanctl.conf: sections in braces, `key = value`, quotes, comments, `include`, and `: ` with sections whose
//! settings a section inherits.

use std::path::Path;

use super::super::{At, Files, ForeignError, included, read_text};

/// Files that one configuration may consist of.
const MAX_FILES: usize = 256;
/// Sections and settings that there may be, inherited ones counted each time.
const MAX_NODES: usize = 100_000;
/// How deep includes, sections and inheritance may go.
const MAX_DEPTH: usize = 16;

/// A setting.
#[derive(Clone)]
pub(super) struct Setting {
    pub(super) key: String,
    /// May be a secret.
    pub(super) value: String,
    pub(super) at: At,
}

/// A section.
#[derive(Clone)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) at: At,
    settings: Vec<Setting>,
    sections: Vec<Self>,
    /// The sections that it inherits from, by their way from the root.
    parents: Vec<(String, At)>,
}

impl Section {
    fn new(name: &str, at: &At) -> Self {
        Self {
            name: name.to_owned(),
            at: at.clone(),
            settings: Vec::new(),
            sections: Vec::new(),
            parents: Vec::new(),
        }
    }

    /// The setting of this name, which counts as dealt with from now on.
    pub(super) fn take(&mut self, key: &str) -> Option<Setting> {
        let at = self.settings.iter().position(|setting| setting.key == key)?;
        Some(self.settings.remove(at)).filter(|setting| !setting.value.is_empty())
    }

    /// As [`Section::take`], for sections.
    pub(super) fn take_section(&mut self, name: &str) -> Option<Self> {
        let at = self.sections.iter().position(|section| section.name == name)?;
        Some(self.sections.remove(at))
    }

    /// The sections whose names begin so.
    pub(super) fn take_sections(&mut self, prefix: &str) -> Vec<Self> {
        let (taken, left) = core::mem::take(&mut self.sections)
            .into_iter()
            .partition(|section| section.name.starts_with(prefix));
        self.sections = left;
        taken
    }

    /// The settings whose names begin so.
    pub(super) fn take_settings(&mut self, prefix: &str) -> Vec<Setting> {
        let (taken, left) = core::mem::take(&mut self.settings)
            .into_iter()
            .partition(|setting| setting.key.starts_with(prefix));
        self.settings = left;
        taken
    }

    /// What nobody took.
    pub(super) fn rest(&self) -> (&[Setting], &[Self]) {
        (&self.settings, &self.sections)
    }

    fn set(&mut self, setting: Setting) {
        match self.settings.iter_mut().find(|there| there.key == setting.key) {
            Some(there) => *there = setting,
            None => self.settings.push(setting),
        }
    }

    fn find(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |section, name| {
            section.sections.iter().find(|inner| inner.name == name)
        })
    }

    /// Takes over what it does not say itself.
    fn inherit(&mut self, parent: Self) {
        for setting in parent.settings {
            if !self.settings.iter().any(|there| there.key == setting.key) {
                self.settings.push(setting);
            }
        }
        for section in parent.sections {
            match self.sections.iter_mut().find(|there| there.name == section.name) {
                Some(there) => there.inherit(section),
                None => self.sections.push(section),
            }
        }
    }
}

/// Reads a file and what it includes; everything that is inherited stands in its place.
pub(super) fn parse(path: &Path, text: &str, files: &dyn Files) -> Result<Section, ForeignError> {
    let top = At { file: path.to_owned(), line: 1 };
    let mut root = Section::new("", &top);
    let mut reader = Reader { files, left: MAX_FILES };
    reader.file(path, text, &mut root, 0)?;
    let mut nodes = MAX_NODES;
    expand(&root, &root, &mut nodes, 0)
}

/// A copy in which nothing is inherited any more.
fn expand(
    root: &Section,
    section: &Section,
    nodes: &mut usize,
    depth: usize,
) -> Result<Section, ForeignError> {
    let failed =
        |message: &str| ForeignError { at: section.at.clone(), message: message.to_owned() };
    if depth > MAX_DEPTH {
        return Err(failed("sections inherit from each other in a circle, or too deep"));
    }
    let size = section.settings.len() + 1;
    *nodes = nodes.checked_sub(size).ok_or_else(|| failed("there are too many settings"))?;
    let mut made = Section { parents: Vec::new(), sections: Vec::new(), ..section.clone_flat() };
    for inner in &section.sections {
        made.sections.push(expand(root, inner, nodes, depth + 1)?);
    }
    for (path, at) in &section.parents {
        let parent = root.find(path).ok_or_else(|| ForeignError {
            at: at.clone(),
            message: format!("`{path}`: there is no such section to inherit from"),
        })?;
        made.inherit(expand(root, parent, nodes, depth + 1)?);
    }
    Ok(made)
}

impl Section {
    fn clone_flat(&self) -> Self {
        let mut made = Self::new(&self.name, &self.at);
        made.settings = self.settings.clone();
        made
    }
}

struct Reader<'a> {
    files: &'a dyn Files,
    /// How many more files may be included.
    left: usize,
}

impl Reader<'_> {
    fn file(
        &mut self,
        path: &Path,
        text: &str,
        section: &mut Section,
        depth: usize,
    ) -> Result<(), ForeignError> {
        let mut text = Text { path, rest: text, line: 1 };
        self.section(&mut text, section, false, depth)
    }

    /// Reads up to the end of a section, or of the file.
    fn section(
        &mut self,
        text: &mut Text<'_>,
        section: &mut Section,
        is_inner: bool,
        depth: usize,
    ) -> Result<(), ForeignError> {
        if depth > MAX_DEPTH {
            return Err(text.failed("sections or includes are too deep in each other"));
        }
        loop {
            text.skip();
            let at = text.at();
            if text.rest.is_empty() {
                return if is_inner {
                    Err(text.failed(&format!(
                        "section `{}` of line {} is not closed: a }} is missing",
                        section.name, section.at.line
                    )))
                } else {
                    Ok(())
                };
            }
            if text.eat('}') {
                if is_inner {
                    return Ok(());
                }
                return Err(text.failed("a } with no section that it would close"));
            }
            let name = text.name();
            if name.is_empty() {
                return Err(text.failed("expected `name {`, `key = value` or `}`"));
            }
            if name == "include" {
                let pattern = text.value()?;
                self.include(&pattern, text.path, &at, section, depth)?;
                continue;
            }
            text.skip_blanks();
            if text.eat('=') {
                let value = text.value()?;
                section.set(Setting { key: name, value, at });
                continue;
            }
            let mut parents = Vec::new();
            if text.eat(':') {
                loop {
                    text.skip_blanks();
                    let place = text.at();
                    let parent = text.name();
                    if parent.is_empty() {
                        return Err(text.failed("after `:` come names of sections, with commas"));
                    }
                    parents.push((parent, place));
                    text.skip_blanks();
                    if !text.eat(',') {
                        break;
                    }
                }
            }
            text.skip();
            if !text.eat('{') {
                return Err(text.failed(&format!("after `{name}` comes `=` and a value, or a {{")));
            }
            let place = section.sections.iter().position(|there| there.name == name);
            let mut inner = match place {
                Some(place) => section.sections.remove(place),
                None => Section::new(&name, &at),
            };
            inner.parents.extend(parents);
            self.section(text, &mut inner, true, depth + 1)?;
            let place = place.unwrap_or(section.sections.len());
            section.sections.insert(place, inner);
        }
    }

    fn include(
        &mut self,
        pattern: &str,
        path: &Path,
        at: &At,
        section: &mut Section,
        depth: usize,
    ) -> Result<(), ForeignError> {
        let failed = |message: String| ForeignError { at: at.clone(), message };
        for file in included(pattern, path, self.files) {
            self.left = self
                .left
                .checked_sub(1)
                .ok_or_else(|| failed(format!("more than {MAX_FILES} files are included")))?;
            let text = read_text(&file, self.files)
                .map_err(|error| failed(format!("include {}: {error}", file.display())))?;
            self.file(&file, &text, section, depth + 1)?;
        }
        Ok(())
    }
}

/// What is left of a file.
struct Text<'a> {
    path: &'a Path,
    rest: &'a str,
    line: usize,
}

impl Text<'_> {
    fn at(&self) -> At {
        At { file: self.path.to_owned(), line: self.line }
    }

    fn failed(&self, message: &str) -> ForeignError {
        ForeignError { at: self.at(), message: message.to_owned() }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let is_there = self.rest.starts_with(wanted);
        if is_there {
            self.next();
        }
        is_there
    }

    fn skip_blanks(&mut self) {
        while self.rest.starts_with([' ', '\t', '\r']) {
            self.next();
        }
    }

    /// Over white space and comments.
    fn skip(&mut self) {
        loop {
            if self.rest.starts_with(char::is_whitespace) {
                self.next();
            } else if self.rest.starts_with('#') {
                while !self.rest.is_empty() && !self.rest.starts_with('\n') {
                    self.next();
                }
            } else {
                return;
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.rest.chars().next() {
            if c.is_whitespace() || "{}=#:,\"".contains(c) {
                break;
            }
            name.push(c);
            self.next();
        }
        name
    }

    /// Up to the end of the line, a comment, or the end of the section; what is in quotes as it is.
    fn value(&mut self) -> Result<String, ForeignError> {
        let mut value = String::new();
        // Blanks between words are one; those at the ends are none.
        let mut gap = false;
        loop {
            match self.rest.chars().next() {
                None | Some('\n' | '#' | '}') => return Ok(value),
                Some('"') => {
                    if gap && !value.is_empty() {
                        value.push(' ');
                    }
                    self.quoted(&mut value)?;
                    gap = false;
                }
                Some(' ' | '\t' | '\r') => {
                    gap = true;
                    self.next();
                }
                Some(c) => {
                    if gap && !value.is_empty() {
                        value.push(' ');
                    }
                    gap = false;
                    value.push(c);
                    self.next();
                }
            }
        }
    }

    fn quoted(&mut self, value: &mut String) -> Result<(), ForeignError> {
        let begin = self.at();
        self.next();
        loop {
            match self.next() {
                None => {
                    let message = "the quotes that begin here are not closed".to_owned();
                    return Err(ForeignError { at: begin, message });
                }
                Some('"') => return Ok(()),
                Some('\\') => match self.next() {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    // The line goes on.
                    Some('\n') | None => {}
                    Some(c) => value.push(c),
                },
                Some(c) => value.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Memory(&'static [(&'static str, &'static str)]);

    impl Files for Memory {
        fn read(&self, path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
            let name = path.to_str().unwrap_or_default();
            let found = self.0.iter().find(|(there, _)| *there == name);
            found.map(|(_, text)| text.as_bytes().to_vec().into()).ok_or("no such file".into())
        }
        fn list(&self, dir: &Path) -> Vec<String> {
            let names = self.0.iter().map(|(name, _)| Path::new(name));
            let here = names.filter(|path| path.parent() == Some(dir));
            here.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
        }
    }

    fn read(text: &str) -> Result<Section, ForeignError> {
        parse(Path::new("swanctl.conf"), text, &Memory(&[]))
    }

    fn value(section: &Section, path: &str) -> Option<String> {
        let (way, key) = path.rsplit_once('.')?;
        let section = section.find(way)?;
        section.settings.iter().find(|s| s.key == key).map(|s| s.value.clone())
    }

    #[test]
    fn values_end_where_strongswan_ends_them() {
        let root = read(
            "# head\na { # tail\n x = one two  # three\n y = \" q # \\\"z\\\" \" \n b { z=1 } }\na.c = 2\n",
        )
        .unwrap();
        assert_eq!(value(&root, "a.x").as_deref(), Some("one two"));
        assert_eq!(value(&root, "a.y").as_deref(), Some(" q # \"z\" "));
        assert_eq!(value(&root, "a.b.z").as_deref(), Some("1"));
    }

    #[test]
    fn sections_of_one_name_are_one_and_the_later_setting_counts() {
        let root = read("a { x = 1 \n y = 1 }\na { x = 2 }\n").unwrap();
        assert_eq!(value(&root, "a.x").as_deref(), Some("2"));
        assert_eq!(value(&root, "a.y").as_deref(), Some("1"));
    }

    #[test]
    fn settings_and_sections_are_inherited_unless_they_are_there() {
        let root = read(
            "t { u { x = 1\n y = 2\n s { z = 3 } } }\nv { w = 9\n x = 8 }\n\
             a : t.u, v {\n y = 5\n s { q = 6 }\n}\n",
        )
        .unwrap();
        for (path, wanted) in
            [("a.x", "1"), ("a.y", "5"), ("a.s.z", "3"), ("a.s.q", "6"), ("a.w", "9")]
        {
            assert_eq!(value(&root, path).as_deref(), Some(wanted), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_read_has_its_place() {
        for (text, line, part) in [
            ("a {\n x = 1\n", 3, "a } is missing"),
            ("}\n", 1, "no section"),
            ("a {\n x\n}\n", 3, "comes `=`"),
            ("a {\n x = \"1\n}\n", 2, "quotes"),
            ("a : b { }\n", 1, "no such section"),
            ("a : a { }\n", 1, "circle"),
            ("include none.conf\n", 1, "no such file"),
        ] {
            let error = read(text).err().unwrap();
            assert!(error.message.contains(part), "{text}: {error}");
            assert_eq!(error.at.line, line, "{text}: {error}");
        }
    }

    #[test]
    fn files_are_included_where_they_stand_and_endless_ones_end() {
        let files = Memory(&[("d/a.conf", "x = 1"), ("d/b.conf", "y = 2"), ("d/c.txt", "z = 3")]);
        let root = parse(Path::new("m.conf"), "s {\n include d/*.conf\n}\n", &files).unwrap();
        assert_eq!(value(&root, "s.x").as_deref(), Some("1"));
        assert_eq!(value(&root, "s.y").as_deref(), Some("2"));
        assert_eq!(value(&root, "s.z"), None);
        let files = Memory(&[("m.conf", "include m.conf")]);
        let error = parse(Path::new("m.conf"), "include m.conf\n", &files).err().unwrap();
        assert!(error.message.contains("too deep"), "{error}");
    }

    #[test]
    fn inheritance_that_would_grow_without_bound_is_refused() {
        let mut text = "l0 { a = 1\n b = 2 }\n".to_owned();
        for level in 1..14 {
            text += &format!("l{level} {{\n");
            for n in 0..8 {
                text += &format!("s{n} : l{} {{ }}\n", level - 1);
            }
            text += "}\n";
        }
        let error = read(&text).err().unwrap();
        assert!(error.message.contains("too many"), "{error}");
    }
}
