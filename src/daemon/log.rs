//! Logging: lines on standard error, for the journal or a file; what is logged can be changed while running.

use std::io::IsTerminal;
use std::sync::OnceLock;

use thiserror::Error;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// What is logged unless something else is asked for.
pub const DEFAULT: &str = "info";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// A filter that is none.
#[derive(Debug, Error)]
#[error("{filter:?} is no log level or filter: {cause}")]
pub struct BadFilter {
    filter: String,
    cause: String,
}

/// Starts logging. `filter`: `error`, `warn`, `info`, `debug`, `trace`, or a list such as `info,ipsecd::ike=debug`.
///
/// # Errors
/// If `filter` is none.
pub fn start(filter: &str) -> Result<(), BadFilter> {
    let (layer, handle) = reload::Layer::new(parse(filter)?);
    let lines =
        fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
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
}
