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
