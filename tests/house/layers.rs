//! A layer uses only what stands below it (docs/architecture.md).

use crate::{files, read, short};

/// Each layer and those that it may use. What is not listed is refused.
const MAY_USE: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("crypto", &["wire"]),
    ("ipsec", &["wire", "crypto"]),
    ("datapath", &["wire", "crypto", "ipsec"]),
    ("ike", &["wire", "crypto", "ipsec"]),
    ("config", &["wire", "crypto", "ipsec"]),
    ("capture", &["wire", "crypto", "ipsec", "datapath", "ike"]),
    ("io", &["wire", "crypto", "ipsec"]),
    ("doctor", &["wire", "crypto", "ipsec", "ike", "config", "control"]),
    ("control", &[]),
    ("bundle", &["crypto"]),
    ("foreign", &["wire", "crypto", "ipsec", "config"]),
    (
        "daemon",
        &[
            "wire", "crypto", "ipsec", "datapath", "ike", "config", "capture", "io", "control",
            "doctor",
        ],
    ),
    (
        "cli",
        &[
            "wire", "crypto", "ipsec", "datapath", "ike", "config", "capture", "io", "control",
            "daemon", "doctor", "foreign", "bundle",
        ],
    ),
    ("testing", &["wire", "crypto", "ipsec", "datapath", "ike", "config"]),
];

/// `(layer of the file, layers named by its `crate::` paths)`.
fn uses(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            let named = rest.trim_start_matches('{');
            let name: String =
                named.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            found.push((number + 1, name));
        }
    }
    found
}

/// The line on which the unit tests of a file begin.
fn tests_from(text: &str) -> usize {
    let lines: Vec<_> = text.lines().collect();
    let begins = |pair: &[&str]| pair == ["#[cfg(test)]", "mod tests {"];
    lines.windows(2).position(begins).map_or(usize::MAX, |at| at + 1)
}

#[test]
fn no_layer_uses_one_above_it() {
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let name = short(&path);
        let Some((layer, may_use)) =
            MAY_USE.iter().find(|(layer, _)| name.starts_with(&format!("src/{layer}/")))
        else {
            assert!(
                matches!(name.as_str(), "src/lib.rs" | "src/main.rs"),
                "{name} stands in no layer that this test knows"
            );
            continue;
        };
        let text = read(&path);
        let tests = tests_from(&text);
        for (line, used) in uses(&text) {
            // Unit tests may use the harness, which is no layer for anything else.
            if used == "testing" && line > tests {
                continue;
            }
            let is_layer = MAY_USE.iter().any(|(layer, _)| *layer == used);
            if is_layer && used != *layer && !may_use.contains(&used.as_str()) {
                wrong.push(format!("{name}:{line}: {layer} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_in_one_file() {
    let expected = "src/io/sys.rs";
    for path in files("src", "rs") {
        let name = short(&path);
        let text = read(&path);
        let lifts_the_ban = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
        });
        assert!(
            !lifts_the_ban || name == expected,
            "{name} has unsafe code, which only {expected} may"
        );
    }
}

#[test]
fn what_a_line_uses_is_found() {
    let found = uses("use crate::{ike, wire};\nlet x = crate::ipsec::Spi; // crate::daemon\n");
    assert_eq!(found, [(1, "ike".to_owned()), (2, "ipsec".to_owned())]);
}
