//! A finding as an operator sees it: the line, the offending text underlined, and what would be right.

use annotate_snippets::{
    AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};

use super::diagnostic::{Diagnostic, Severity};

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
            let mut snippet = Snippet::source(&*diagnostic.source)
                .path(path.as_str())
                .annotation(AnnotationKind::Primary.span(span.clone()).label(label));
            if let Some((span, label)) = &diagnostic.related {
                snippet = snippet
                    .annotation(AnnotationKind::Context.span(span.clone()).label(label.as_str()));
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
