//! What is wrong with a configuration file: [`Diagnostic`], one finding, and [`Diagnostics`], all of them.

use core::fmt;
use core::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most findings of one file that are told. More are the work of a machine, or the wrong file.
pub(super) const MAX_FINDINGS: usize = 100;

/// Whether a finding keeps the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but somebody should look.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding. Its `Display` is the message with the place underlined, without colour.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The file, as it was named to us.
    pub file: PathBuf,
    /// Line, from 1; 0 where the finding concerns the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 where the finding concerns the file as a whole.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What stands under the underlining; may be empty.
    pub label: String,
    /// What would be right.
    pub help: Option<String>,
    pub(super) span: Option<Range<usize>>,
    pub(super) related: Option<(Range<usize>, String)>,
    pub(super) source: Arc<str>,
}

impl Diagnostic {
    /// A finding about a file as a whole.
    #[must_use]
    pub fn of_file(severity: Severity, file: &Path, message: impl Into<String>) -> Self {
        Self {
            severity,
            file: file.to_owned(),
            line: 0,
            column: 0,
            message: message.into(),
            label: String::new(),
            help: None,
            span: None,
            related: None,
            source: Arc::from(""),
        }
    }

    /// Says where in the file it is; `source` is the text to quote, secrets masked.
    pub(super) fn at(&mut self, source: &Arc<str>, span: Range<usize>) -> &mut Self {
        let span = clamp(source, span);
        (self.line, self.column) = position(source, span.start);
        self.span = Some(span);
        self.source = Arc::clone(source);
        self
    }

    /// Says what would be right.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        self.label = label.into();
        self
    }

    pub(super) fn related(&mut self, span: Range<usize>, label: impl Into<String>) -> &mut Self {
        self.related = Some((clamp(&self.source, span), label.into()));
        self
    }
}

/// All findings of one or more files, in the order of their places. Its `Display` is what an operator is shown.
///
/// The text of a secret is in none of them: the source they quote has it masked.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// The findings.
    #[must_use]
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.list
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether one of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Adds those of another file.
    pub fn append(&mut self, mut other: Self) {
        self.list.append(&mut other.list);
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic] }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::render::plain(self))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            fmt::Display::fmt(diagnostic, f)?;
        }
        Ok(())
    }
}

impl core::error::Error for Diagnostics {}

/// Collects the findings of one file.
pub(super) struct Report {
    file: PathBuf,
    source: Arc<str>,
    list: Vec<Diagnostic>,
    /// The bytes of each line with a syntax error: what else is found there is only its echo.
    broken: Vec<Range<usize>>,
}

impl Report {
    /// `source` is the text to quote, secrets masked.
    pub(super) fn new(file: &Path, source: Arc<str>) -> Self {
        Self { file: file.to_owned(), source, list: Vec::new(), broken: Vec::new() }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The text to quote, secrets masked.
    pub(super) fn source(&self) -> Arc<str> {
        Arc::clone(&self.source)
    }

    pub(super) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Error, Some(span), message.into())
    }

    pub(super) fn warning(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.add(Severity::Warning, Some(span), message.into())
    }

    /// An error of the file as a whole.
    pub(super) fn file_error(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Error, None, message.into())
    }

    /// A syntax error. `None` if its line has one already: the second is an echo of the first.
    pub(super) fn syntax_error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Option<&mut Diagnostic> {
        let span = clamp(&self.source, span);
        if self.broken.iter().any(|line| line.contains(&span.start)) {
            return None;
        }
        let line = line_of(&self.source, span.start);
        self.broken.push(line.start..line.end + 1);
        Some(self.add(Severity::Error, Some(span), message.into()))
    }

    /// From this byte on, what is found is an echo of a syntax error.
    pub(super) fn unreadable_from(&mut self, start: usize) {
        self.broken.push(start..usize::MAX);
    }

    /// Whether the text was not TOML: what is missing may then be there.
    pub(super) fn has_syntax_errors(&self) -> bool {
        !self.broken.is_empty()
    }

    /// Whether nothing more need be looked for.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() > MAX_FINDINGS
    }

    fn add(
        &mut self,
        severity: Severity,
        span: Option<Range<usize>>,
        message: String,
    ) -> &mut Diagnostic {
        let span = span.map(|span| clamp(&self.source, span));
        let (line, column) = span.as_ref().map_or((0, 0), |s| position(&self.source, s.start));
        let diagnostic = Diagnostic {
            severity,
            file: self.file.clone(),
            line,
            column,
            message,
            label: String::new(),
            help: None,
            span,
            related: None,
            source: Arc::clone(&self.source),
        };
        let at = self.list.len();
        self.list.push(diagnostic);
        &mut self.list[at]
    }

    /// The findings, in the order of their places, without those that only echo a syntax error.
    pub(super) fn finish(mut self, syntax_errors: usize) -> Diagnostics {
        let echo = |d: &Diagnostic| {
            d.span.as_ref().is_some_and(|s| self.broken.iter().any(|b| b.contains(&s.start)))
        };
        let mut i = 0;
        self.list.retain(|d| {
            i += 1;
            i <= syntax_errors || !echo(d)
        });
        self.list.sort_by_key(|d| (d.line, d.column));
        if let Some(more) = self.list.len().checked_sub(MAX_FINDINGS).filter(|more| *more > 0) {
            self.list.truncate(MAX_FINDINGS);
            self.file_error(format!("and {more} more findings")).help("is this the right file?");
        }
        Diagnostics { list: self.list }
    }
}

/// The nearest range of whole characters within `source`.
fn clamp(source: &str, span: Range<usize>) -> Range<usize> {
    let start = floor(source, span.start);
    let mut end = span.end.clamp(start, source.len());
    while !source.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// The start of the character that `at` is in.
fn floor(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Line and column of a byte, from 1.
fn position(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at).unwrap_or(source);
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    (line, before[start..].chars().count() + 1)
}

/// The bytes of the line that `at` is in, without its end.
pub(super) fn line_of(source: &str, at: usize) -> Range<usize> {
    let at = floor(source, at);
    let start = source[..at].rfind('\n').map_or(0, |i| i + 1);
    let end = source[at..].find('\n').map_or(source.len(), |i| at + i);
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a\nüb", 4), (2, 2));
        assert_eq!(position("a\n", 2), (2, 1));
    }

    #[test]
    fn a_span_is_moved_to_whole_characters() {
        assert_eq!(clamp("aüb", 2..2), 1..3);
        assert_eq!(clamp("ab", 5..9), 2..2);
    }

    #[test]
    fn only_the_first_syntax_error_of_a_line_is_kept() {
        let mut report = Report::new(Path::new("x"), Arc::from("a b\nc"));
        assert!(report.syntax_error(0..1, "one").is_some());
        assert!(report.syntax_error(2..3, "two").is_none());
        assert!(report.syntax_error(4..5, "three").is_some());
    }
}
