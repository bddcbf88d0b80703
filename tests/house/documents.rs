//! Documents tell the truth: their links lead somewhere, and every crate has its line.

use crate::{files, read, root, short};

#[test]
fn relative_links_lead_somewhere() {
    let mut wrong = Vec::new();
    let top = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    for path in top.iter().map(|name| root().join(name)).chain(files("docs", "md")) {
        let folder = path.parent().expect("a file stands in a folder");
        for link in read(&path).split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !folder.join(target).exists() {
                wrong.push(format!("{}: {target}", short(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The anchor that mdBook and GitHub give a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ if letter.is_alphanumeric() => Some(letter.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

#[test]
fn links_into_a_page_lead_to_a_heading() {
    let mut wrong = Vec::new();
    for path in files("docs", "md").into_iter().chain([root().join("README.md")]) {
        let folder = path.parent().expect("a file stands in a folder");
        for link in read(&path).split("](").skip(1) {
            let target = link.split([')', ' ']).next().unwrap_or_default();
            let Some((file, fragment)) = target.split_once('#') else { continue };
            if target.contains("://") {
                continue;
            }
            let page = if file.is_empty() { path.clone() } else { folder.join(file) };
            let text = read(&page);
            let mut headings = text.lines().filter(|line| line.starts_with('#'));
            if !headings.any(|line| anchor(line.trim_start_matches('#')) == fragment) {
                wrong.push(format!("{}: {target}", short(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_in_the_book() {
    let summary = read(&root().join("docs/SUMMARY.md"));
    for path in files("docs", "md") {
        let name = short(&path).trim_start_matches("docs/").to_owned();
        let is_there = name == "SUMMARY.md" || summary.contains(&format!("]({name})"));
        assert!(is_there, "docs/SUMMARY.md has no line for {name}");
    }
}

#[test]
fn every_dependency_has_its_line() {
    let manifest = read(&root().join("Cargo.toml"));
    let document = read(&root().join("docs/dependencies.md"));
    let mut section = "";
    let mut seen = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if let Some((name, _)) = line.split_once(" = ")
            && section.ends_with("dependencies]")
            && name != "ipsecd"
        {
            seen += 1;
            assert!(
                document.contains(&format!("`{name}`")),
                "docs/dependencies.md has no line for {name}"
            );
        }
    }
    assert!(seen > 20, "only {seen} dependencies seen");
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let code = read(&root().join("src/daemon/metrics.rs"));
    let document = read(&root().join("docs/metrics.md"));
    let mut names = Vec::new();
    for kind in ["Counter", "Gauge"] {
        for rest in code.split(&format!(" = {kind} \"")).skip(1) {
            let name = rest.split('"').next().unwrap_or_default();
            names.push(if kind == "Counter" { format!("{name}_total") } else { name.to_owned() });
        }
    }
    assert!(names.len() > 20, "{names:?}");
    let rows: Vec<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .filter(|name| name.starts_with("ipsecd_") || name.starts_with("process_"))
        .collect();
    for name in &names {
        assert!(rows.contains(&name.as_str()), "docs/metrics.md has no row for {name}");
    }
    for row in rows {
        assert!(names.iter().any(|name| name == row), "docs/metrics.md: there is no {row}");
    }
}
