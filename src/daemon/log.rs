//! Logging: lines on standard error for people or programs, or the journal's own form; what is logged can be changed while
//! running.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;

use nix::sys::stat::fstat;
use thiserror::Error;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::journal::{self, Journal};

/// What is logged unless something else is asked for.
pub const DEFAULT: &str = "info";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line for people; with colours on a terminal.
    Human,
    /// The journal's, with a field for each value.
    Journald,
    /// A JSON object a line.
    Json,
}

/// A filter that is none.
#[derive(Debug, Error)]
#[error("{filter:?} is no log level or filter: {cause}")]
pub struct BadFilter {
    filter: String,
    cause: String,
}

impl Format {
    /// That of this process: the journal's where standard error leads there, which systemd says in `JOURNAL_STREAM`.
    #[must_use]
    pub fn of_surroundings(journal_stream: Option<&str>) -> Self {
        let is_journal = journal_stream.is_some_and(|stream| {
            fstat(io::stderr().as_fd())
                .is_ok_and(|stat| *stream == format!("{}:{}", stat.st_dev, stat.st_ino))
        });
        if is_journal { Self::Journald } else { Self::Human }
    }
}

/// Starts logging. `filter`: `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,ipsecd::ike=debug`.
///
/// # Errors
/// If `filter` is none.
pub fn start(filter: &str, format: Format) -> Result<(), BadFilter> {
    let (layer, handle) = reload::Layer::new(parse(filter)?);
    let stderr = || fmt::layer().with_writer(io::stderr);
    let human = || stderr().with_ansi(io::stderr().is_terminal()).boxed();
    let lines = match format {
        Format::Human => human(),
        Format::Json => stderr().json().flatten_event(true).with_span_list(false).boxed(),
        // Without its socket, standard error leads to the journal as well.
        Format::Journald => Journal::open(Path::new(journal::SOCKET))
            .map_or_else(|_unreachable| human(), Layer::boxed),
    };
    // A second start, as in tests, changes nothing.
    if tracing_subscriber::registry().with(layer).with(lines).try_init().is_ok() {
        let _first = FILTER.set(handle);
    }
    Ok(())
}
/// Changes what is logged.
///
/// # Errors
/// If `filter` is none.
pub fn change(filter: &str) -> Result<(), BadFilter> {
    let parsed = parse(filter)?;
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(parsed)
    {
        tracing::warn!(%error, "cannot change the log level");
    }
    Ok(())
}

fn parse(filter: &str) -> Result<EnvFilter, BadFilter> {
    EnvFilter::try_new(filter)
        .map_err(|cause| BadFilter { filter: filter.to_owned(), cause: cause.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_lists_are_filters() {
        for filter in ["info", "debug", "info,ipsecd::ike=trace", "off"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        assert!(parse("ipsecd=loud").is_err());
    }

    #[test]
    fn journal_is_used_where_standard_error_leads_to_it_and_nowhere_else() {
        assert_eq!(Format::of_surroundings(None), Format::Human);
        assert_eq!(Format::of_surroundings(Some("0:0")), Format::Human);
        let here = fstat(io::stderr().as_fd()).unwrap();
        let stream = format!("{}:{}", here.st_dev, here.st_ino);
        assert_eq!(Format::of_surroundings(Some(&stream)), Format::Journald);
    }
}
