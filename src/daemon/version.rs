//! Which ipsecd this is.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from; `unknown` where nobody said.
pub const COMMIT: &str = env!("IPSECD_COMMIT");
/// What it was built with, separated by commas.
pub const FEATURES: &str = env!("IPSECD_FEATURES");
/// All of it, as `ipsecd --version` has it.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("IPSECD_COMMIT"),
    "; features ",
    env!("IPSECD_FEATURES"),
    "; ",
    env!("IPSECD_TARGET"),
    ")"
);
