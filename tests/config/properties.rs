//! Whatever is in a file: no panic, and an answer either way.

use std::path::Path;

use ipsecd::config::keys::KEYS;
use proptest::prelude::*;

use super::secrets::{minimal, minimal_manual};

fn check(text: &str) {
    ipsecd::config::fuzz(text.as_bytes());
}

#[test]
fn a_file_full_of_faults_is_told_of_in_a_hundred_findings() {
    use super::secrets::parse;
    let keys: String = (0..20_000).map(|i| format!("k{i} = 1\n")).collect();
    let bare: String = (0..20_000).map(|i| format!("k{i} = = x\n")).collect();
    let subnets = format!("[local]\nsubnets = [{}]\n", "\"10.0.0.1/8\",".repeat(20_000));
    let long = format!("{} = 1\n", "k".repeat(500_000));
    for text in [keys, bare, subnets, long] {
        let found = parse("a.conf", &text).unwrap_err();
        assert!(found.len() <= 101, "{}", found.len());
        assert!(found.has_errors() && !found.to_string().is_empty());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        ipsecd::config::fuzz(&data);
    }

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        check(&text);
    }

    #[test]
    fn any_value_of_any_key_is_answered(
        key in proptest::sample::select(KEYS),
        value in prop_oneof![
            "\\PC{0,30}",
            "\"[^\"\\\\\\p{C}]{0,30}\"",
            "\"[a-z0-9./:=@#, -]{0,40}\"",
            "-?[0-9]{1,25}",
            "[0-9]{1,3}\\.[0-9]{1,3}",
            "\\[\"[0-9a-f./:-]{0,20}\", \"[0-9a-f./:-]{0,20}\"\\]",
            "\\{ [a-z]{1,4} = \"[a-z]{0,3}\" \\}",
        ],
    ) {
        let line = format!("{} = {value}\n", key.name);
        if key.section == "manual" {
            let name = key.name.trim_start_matches("ah.");
            check(&minimal_manual(&format!("{name} = {value}\n")));
            check(&minimal_manual(&format!("[manual.ah]\n{name} = {value}\n")));
        } else if key.section.is_empty() {
            check(&format!("{line}{}", minimal("")));
        } else {
            check(&minimal(&format!("[{}]\n{line}", key.section)));
            let header = format!("[{}]\n", key.section);
            check(&minimal("").replace(&header, &format!("{header}{line}")));
        }
    }

    #[test]
    fn a_file_that_lost_or_gained_something_is_answered(
        at in 0usize..400,
        lost in 0usize..20,
        gained in "[\\[\\]{}\"'=#\\n a-z0-9.]{0,5}",
    ) {
        let mut bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/site-a.conf")).unwrap();
        let at = at.min(bytes.len());
        let end = (at + lost).min(bytes.len());
        bytes.splice(at..end, gained.bytes());
        ipsecd::config::fuzz(&bytes);
    }
}
