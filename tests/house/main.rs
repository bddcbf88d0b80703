//! The house rules that a compiler does not know: layers, documents that tell the truth, where `unsafe` may stand.

mod cases;
mod compliance;
mod documents;
mod interop;
mod layers;
mod packaging;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The package's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `dir` whose name ends in `.extension`, sorted.
fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        {
            let path = entry.expect("a directory entry can be read").path();
            if path.is_dir() {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(dir), extension, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file in {dir}");
    found
}

/// The text of a file.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of all functions, tests among them.
fn functions() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        for line in read(&path).lines() {
            if let Some((_, rest)) = line.split_once("fn ") {
                let name =
                    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                found.insert(name);
            }
        }
    }
    found
}

/// A path as written in documents: from the package's folder.
fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
