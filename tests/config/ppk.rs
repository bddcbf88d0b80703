//! `[auth] ppk` and `ppk-required`.

use std::path::Path;

use ipsecd::config::{self, Diagnostics, Loaded, Source};
use ipsecd::ipsec::pad::Ppk;

use super::secrets::{Memory, minimal};

fn parse(lines: &str) -> Result<Loaded, Diagnostics> {
    let text = minimal(lines);
    let source = Source { file: Path::new("a.conf"), text: &text, mode: Some(0o600) };
    let secrets = Memory::usual()
        .with("b.ppk", &"0123456789abcdef".repeat(2), 0o600)
        .with("short.ppk", "0123456789abcdef", 0o600)
        .with("open.ppk", "0123456789abcdef0123456789abcdef", 0o644);
    config::parse(source, &secrets)
}

fn ppk(lines: &str) -> Option<Ppk> {
    parse(lines).unwrap().config.ike().unwrap().ppk.clone()
}

/// The first thing that is wrong.
fn told(lines: &str) -> String {
    match parse(lines) {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(found) => found.to_string(),
    }
}

#[test]
fn a_ppk_has_a_name_and_a_key_and_is_optional_by_default() {
    assert_eq!(ppk(""), None);
    let found = ppk("ppk = { id = \"a-b\", file = \"b.ppk\" }").unwrap();
    assert_eq!((found.id.as_slice(), found.key.len(), found.required), (&b"a-b"[..], 32, false));
    let found = ppk("ppk = { id = \"a-b\", file = \"b.ppk\" }\nppk-required = true").unwrap();
    assert!(found.required);
}

#[test]
fn a_ppk_that_lacks_something_is_told() {
    for (lines, words) in [
        ("ppk = \"secret\"", "`ppk` in [auth] must be a table"),
        ("ppk = { file = \"b.ppk\" }", "its id is missing"),
        ("ppk = { id = \"\", file = \"b.ppk\" }", "[auth] ppk.id: 0 bytes"),
        ("ppk = { id = \"a-b\" }", "names neither a file nor a credential"),
        ("ppk = { id = \"a-b\", file = \"none.ppk\" }", "cannot read the ppk file"),
        ("ppk = { id = \"a-b\", file = \"open.ppk\" }", "others can read the ppk file"),
        ("ppk = { id = \"a-b\", fil = \"b.ppk\" }", "did you mean `file`?"),
        ("ppk-required = true", "there is no ppk"),
        ("ppk = { id = \"a-b\", file = \"short.ppk\" }", "is weak: 16 bytes, and it is to stand"),
    ] {
        let told = told(lines);
        assert!(told.contains(words), "{lines}: {told}");
    }
}
