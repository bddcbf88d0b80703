//! A finding as an operator sees it: the line, the offending text underlined, and what would be right.

use core::ops::Range;

use annotate_snippets::{
    AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

use super::diagnostic::{Diagnostic, Severity, line_of};

/// Without colour.
pub(super) fn plain(diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let path = diagnostic.file.display().to_string();
    let mut elements: Vec<Element<'_>> = Vec::new();
    match &diagnostic.span {
        Some(span) => {
            let label = (!diagnostic.label.is_empty()).then_some(diagnostic.label.as_str());
            // Only the lines that are shown: the rest of a long file need not be gone through for each finding.
            let related = diagnostic.related.as_ref().map(|(span, _)| span);
            let first = related.map_or(span.start, |related| related.start.min(span.start));
            let last = related.map_or(span.end, |related| related.end.max(span.end));
            let source = &*diagnostic.source;
            let start = line_of(source, first).start;
            let end = line_of(source, last).end;
            // The end of a line, as Windows has it, is none of its characters; it is shown where it is what is wrong.
            let text = source.get(start..end).unwrap_or_default();
            let end = end - usize::from(text.ends_with('\r') && last < end);
            let line = source[..start].bytes().filter(|b| *b == b'\n').count() + 1;
            let within = |span: &Range<usize>| span.start - start..span.end - start;
            let mut snippet = Snippet::source(&source[start..end])
                .line_start(line)
                .path(path.as_str())
                .annotation(AnnotationKind::Primary.span(within(span)).label(label));
            if let Some((span, label)) = &diagnostic.related {
                snippet = snippet
                    .annotation(AnnotationKind::Context.span(within(span)).label(label.as_str()));
            }
            elements.push(snippet.into());
        }
        None => elements.push(Origin::path(path.as_str()).into()),
    }
    if let Some(help) = &diagnostic.help {
        elements.push(Level::HELP.message(normalize_untrusted_str(help)).into());
    }
    let report: &[Group<'_>] =
        &[level.primary_title(diagnostic.message.as_str()).elements(elements)];
    Renderer::plain().render(report)
}
