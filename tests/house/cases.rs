//! docs/exchange-cases.md: every test that it names exists.

use crate::{functions, read, root};

#[test]
fn every_case_names_tests_that_exist() {
    let functions = functions();
    let document = read(&root().join("docs/exchange-cases.md"));
    let rows =
        document.lines().filter(|line| line.starts_with("| ") && !line.contains("| our test"));
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows {
        count += 1;
        let proof = row.trim_end_matches('|').rsplit(" | ").next().unwrap_or_default();
        let named: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        // Names of tests have several words; the rest is a key or an exchange.
        let missing = named.iter().filter(|name| name.matches('_').count() > 2);
        wrong.extend(
            missing.filter(|name| !functions.contains(**name)).map(|name| (*name).to_owned()),
        );
        let is_reasoned = proof.trim().starts_with('-') || proof.contains("docs/");
        if named.is_empty() && !is_reasoned {
            wrong.push(format!("neither a test nor a reason: {row}"));
        }
    }
    assert!(count > 60, "only {count} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
