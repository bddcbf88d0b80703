//! What an operator is told: every `cases/NAME.conf` against `cases/NAME.stderr`, to the letter.
//!
//! A missing `.stderr` is written by the test, which fails then: read it, and keep it if it is good.

use std::path::Path;

use ipsecd::config::Severity;

use super::secrets::{KEY, Memory, minimal, parse};

#[test]
fn every_case_is_told_as_expected() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/cases");
    let mut names: Vec<String> = std::fs::read_dir(&cases)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".conf").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() > 15, "cases are missing");
    let mut wrong = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(cases.join(format!("{name}.conf"))).unwrap();
        let told = match parse(&format!("{name}.conf"), &text) {
            Ok(loaded) => loaded.warnings.to_string(),
            Err(found) => {
                assert!(found.has_errors(), "{name}: refused without an error");
                found.to_string()
            }
        };
        let expected = cases.join(format!("{name}.stderr"));
        match std::fs::read_to_string(&expected) {
            Ok(expected) if expected == format!("{told}\n") => {}
            Ok(expected) => wrong.push(format!("== {name}\n{told}\n-- and not\n{expected}")),
            Err(_) => {
                std::fs::write(&expected, format!("{told}\n")).unwrap();
                wrong.push(format!("== {name} had no .stderr, it has now\n{told}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_message_has_a_secret_in_it() {
    for psk in [
        "\"hunter2\"",
        "hunter2",
        "\"hunter2",
        "['hunter2']",
        "{ text = \"hunter2\" }",
        "\"0xhunter2\"",
    ] {
        let text = minimal("").replace("{ file = \"good.psk\" }", psk);
        let shown = match parse("a.conf", &text) {
            Ok(loaded) => format!("{:?} {}", loaded, loaded.warnings),
            Err(found) => format!("{found:?} {found}"),
        };
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let loaded = parse("a.conf", &minimal("")).unwrap();
    assert!(!format!("{loaded:?}").contains(KEY));
}

#[test]
fn a_finding_has_its_place_as_numbers_too() {
    let text = minimal("").replace("10.2.0.0/16", "10.2.0.1/16");
    let found = parse("a.conf", &text).unwrap_err();
    let [only] = found.as_slice() else { panic!("{found}") };
    assert_eq!((only.line, only.column, only.severity), (7, 12, Severity::Error));
    assert_eq!(only.file.to_str(), Some("a.conf"));
    assert_eq!(only.message, "[peer] subnets: `10.2.0.1/16` has bits set beyond its prefix length");
    assert_eq!(
        only.help.as_deref(),
        Some("\"10.2.0.0/16\" is the subnet, \"10.2.0.1\" the one host")
    );
}

#[test]
fn an_inline_psk_in_a_file_that_others_can_read_is_an_error() {
    use ipsecd::config::load;
    let text = minimal("").replace("{ file = \"good.psk\" }", &format!("\"{KEY}\""));
    let memory = Memory::usual().with("a.conf", &text, 0o644).with("b.conf", &text, 0o600);
    let found = load(Path::new("a.conf"), &memory).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!(found.as_slice()[0].message, "the psk stands in a file that others can read");
    assert!(!found.to_string().contains(KEY));
    assert!(load(Path::new("b.conf"), &memory).is_ok());
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_of() {
    use ipsecd::config::load;
    let memory = Memory::default();
    let found = load(Path::new("none.conf"), &memory).unwrap_err();
    assert_eq!(
        found.to_string(),
        "error: cannot read the configuration: there is no such file\n--> none.conf\n = help: is this the right path?"
    );
}

#[test]
fn lines_that_end_as_on_windows_are_shown_as_others() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/cases");
    for name in ["bad-prefix", "overlap", "unknown-key", "wrong-type"] {
        let text = std::fs::read_to_string(cases.join(format!("{name}.conf"))).unwrap();
        let told = |text: &str| parse("a.conf", text).expect_err("it has errors").to_string();
        assert_eq!(told(&text.replace('\n', "\r\n")), told(&text), "{name}");
    }
}
