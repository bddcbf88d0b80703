//! Tells the program which commit it is built from, with which features and for which target: `ipsecd --version`.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment")]

use std::env;
use std::fs;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=packaging/commit");
    println!("cargo::rerun-if-env-changed=IPSECD_COMMIT");
    let features = env::var("CARGO_CFG_FEATURE").unwrap_or_default();
    let mut features: Vec<_> = features.split(',').filter(|name| *name != "default").collect();
    features.sort_unstable();
    println!("cargo::rustc-env=IPSECD_COMMIT={}", commit());
    println!("cargo::rustc-env=IPSECD_FEATURES={}", features.join(","));
    println!("cargo::rustc-env=IPSECD_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// What the environment says; or the tarball that this is: `cargo package` and `git archive` leave the commit in it; or git.
/// Whoever is developing does not build everything anew for each commit.
fn commit() -> String {
    if let Ok(said) = env::var("IPSECD_COMMIT") {
        return said;
    }
    let packaged = fs::read_to_string(".cargo_vcs_info.json").ok();
    let archived = fs::read_to_string("packaging/commit").ok();
    if let Some(commit) = packaged.iter().chain(&archived).find_map(|text| hash_in(text)) {
        return commit;
    }
    if env::var("PROFILE").as_deref() != Ok("release") {
        return "unknown".to_owned();
    }
    // A tarball may lie in another project's work tree.
    if git(&["rev-parse", "--show-prefix"]).as_deref() != Some("") {
        return "unknown".to_owned();
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

/// The beginning of the commit's hash that is in a file.
fn hash_in(text: &str) -> Option<String> {
    let mut words = text.split(|c: char| !c.is_ascii_hexdigit());
    words.find(|word| word.len() >= 40).map(|word| word.chars().take(12).collect())
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
