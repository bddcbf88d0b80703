//! conf/ipsecd.schema.json is what `ipsecd generate schema` prints; it takes every example, and refuses what the parser refuses.

use std::path::Path;

use ipsecd::config::keys::KEYS;
use ipsecd::config::{schema, words};
use serde_json::Value;

use super::secrets::{minimal, minimal_manual, parse};

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The part of JSON Schema that ours is written in.
fn fits(schema: &Value, value: &Value) -> bool {
    if let Some(choices) = schema["anyOf"].as_array() {
        return choices.iter().any(|choice| fits(choice, value));
    }
    if let Some(wanted) = schema.get("const") {
        return wanted == value;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return false;
    }
    match schema["type"].as_str().unwrap() {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "array" => {
            value.as_array().is_some_and(|all| all.iter().all(|it| fits(&schema["items"], it)))
        }
        "object" => value.as_object().is_some_and(|table| {
            let count = |key: &str, or: u64| schema[key].as_u64().unwrap_or(or);
            let number = table.len() as u64;
            let known = |(name, it): (&String, &Value)| {
                schema["properties"].get(name).is_some_and(|inner| fits(inner, it))
            };
            (count("minProperties", 0)..=count("maxProperties", u64::MAX)).contains(&number)
                && table.iter().all(known)
        }),
        other => panic!("{other}"),
    }
}

fn json(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

#[test]
fn the_schema_that_is_shipped_is_the_one_that_is_made() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/ipsecd.schema.json");
    let made = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    if there != made {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(
        there == made,
        "conf/ipsecd.schema.json was another, and is made anew: ipsecd generate schema"
    );
}

#[test]
fn every_example_fits_it() {
    let schema = schema();
    let mut seen = 0;
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    for entry in std::fs::read_dir(conf).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "conf") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(fits(&schema, &json(&text)), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 12, "{seen}");
}

#[test]
fn wrong_types_words_and_keys_do_not_fit_it() {
    let schema = schema();
    assert!(fits(&schema, &json(&minimal(""))));
    assert!(fits(&schema, &json(&minimal_manual(""))));
    for more in [
        "[esp]\nmode = \"beet\"\n",
        "[esp]\nmod = \"tunnel\"\n",
        "[ike]\nmobike = \"yes\"\n",
        "[log]\nlevel = 1\n",
        "[interface]\nmtu = \"none\"\n",
        "[child]\nname = \"a\"\n",
        "[[auth.eap-user]]\nuser = \"joe\"\n",
    ] {
        let text = minimal(more);
        assert!(!fits(&schema, &json(&text)), "{more}");
        assert!(parse("a.conf", &text).is_err(), "{more}");
    }
}

#[test]
fn the_words_of_a_key_are_those_that_the_parser_names_and_the_reference() {
    let reference = file("docs/configuration.md");
    for key in KEYS {
        let Some(words) = words(key) else { continue };
        let section = if matches!(key.section, "child" | "manual" | "policy") {
            format!("[[{}]]", key.section)
        } else {
            format!("[{}]", key.section)
        };
        let row = reference
            .split(&format!("\n## `{section}`"))
            .nth(1)
            .and_then(|rest| {
                rest.lines().find(|line| line.starts_with(&format!("| `{}`", key.name)))
            })
            .unwrap_or_else(|| panic!("{key:?} is not in the reference"));
        for word in words {
            let said = row.contains(&format!("\"{word}\""))
                || row.contains("as `[esp]`")
                || row.contains("[`[esp]`]");
            let elsewhere = row.contains("As in");
            assert!(said || elsewhere, "{word} of {key:?} is not in the reference");
        }
        if key.section == "manual" || key.section == "auth" {
            continue;
        }
        let (base, rest) = match (key.section, key.name) {
            ("policy", "action") => (String::new(), "remote = \"10.0.0.0/8\"\n"),
            ("policy", _) => (String::new(), "remote = \"10.0.0.0/8\"\naction = \"bypass\"\n"),
            _ => (minimal(""), ""),
        };
        let text = format!("{base}{section}\n{} = \"zzzz\"\n{rest}", key.name);
        let found = parse("a.conf", &text).unwrap_err();
        let help = found.as_slice()[0].help.clone().unwrap_or_default();
        let named: Vec<&str> = help.split('"').skip(1).step_by(2).collect();
        assert_eq!(named, words, "{key:?}: {help}");
    }
}
