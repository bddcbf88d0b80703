//! The configuration file as JSON Schema, for editors: made of [`KEYS`], as what the parser knows is.

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key, SECTIONS};

/// Keys that take one of a few words.
const WORDS: &[(&str, &str, &[&str])] = &[
    ("auth", "revocation", &["strict", "ifuri", "relaxed"]),
    ("auth", "local", &["cert", "public-key", "psk", "eap"]),
    ("auth", "peer", &["cert", "public-key", "psk", "eap"]),
    ("auth", "extended-key-usage", &["authentication", "ipsec", "any"]),
    ("ike", "unique", &["no", "replace", "keep", "never"]),
    ("esp", "protocol", &["esp", "ah"]),
    ("esp", "mode", &["tunnel", "transport", "transport-or-tunnel"]),
    ("esp", "encap", &["auto", "udp", "none"]),
    ("esp", "start", &["now", "by-hand", "on-traffic", "respond"]),
    ("esp", "df", &["copy", "set", "clear"]),
    ("child", "protocol", &["esp", "ah"]),
    ("child", "mode", &["tunnel", "transport", "transport-or-tunnel"]),
    ("child", "start", &["now", "by-hand", "on-traffic", "respond"]),
    ("manual", "protocol", &["esp", "ah"]),
    ("manual", "mode", &["tunnel", "transport"]),
    ("manual", "encap", &["none", "udp"]),
    ("manual", "df", &["copy", "set", "clear"]),
    ("policy", "action", &["bypass", "discard"]),
    ("policy", "direction", &["both", "inbound", "outbound"]),
    ("policy", "order", &["first", "last"]),
];

/// The words that a key takes, where it takes no others.
#[must_use]
pub fn words(key: &Key) -> Option<&'static [&'static str]> {
    let is_it =
        |(section, name, _): &&(&str, &str, &[&str])| *section == key.section && *name == key.name;
    WORDS.iter().find(is_it).map(|(.., words)| *words)
}

/// The schema (draft 2020-12) of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let mut properties = Map::new();
    for key in KEYS.iter().filter(|key| key.section.is_empty()) {
        properties.insert(key.name.to_owned(), of_key(key));
    }
    for section in SECTIONS {
        let table =
            table_of(|key| key.section == *section && !key.name.contains('.'), |key| key.name);
        let many = matches!(*section, "child" | "manual" | "policy");
        let table = if many { json!({ "type": "array", "items": table }) } else { table };
        properties.insert((*section).to_owned(), table);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ipsecd: one peer",
        "description": "docs/configuration.md has what each key does, and its default",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// A table with the keys that `is_in` says, each by the name that `name` gives it.
fn table_of(is_in: impl Fn(&Key) -> bool, name: impl Fn(&'static Key) -> &'static str) -> Value {
    let mut properties = Map::new();
    for key in KEYS.iter().filter(|key| is_in(key)) {
        properties.insert(name(key).to_owned(), of_key(key));
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// What a key takes, by the words in which the parser says it.
fn of_key(key: &'static Key) -> Value {
    let string = || json!({ "type": "string" });
    let strings = || json!({ "type": "array", "items": { "type": "string" } });
    let number = || json!({ "type": "integer" });
    let secret = || {
        let places = json!({ "file": { "type": "string" }, "credential": { "type": "string" } });
        json!({ "type": "object", "properties": places, "additionalProperties": false, "minProperties": 1, "maxProperties": 1 })
    };
    let choice = |choices: Vec<Value>| json!({ "anyOf": choices });
    let prefix = format!("{}.", key.name);
    let inner = || {
        table_of(
            |other| other.section == key.section && other.name.starts_with(&prefix),
            |other| other.name.split_once('.').map_or(other.name, |(_, name)| name),
        )
    };
    let mut made = match key.expects {
        "true or false" => json!({ "type": "boolean" }),
        "a number" => json!({ "type": "number" }),
        "a whole number" => number(),
        "a string or a whole number" => choice(vec![string(), number()]),
        "a list of strings" | "a string or a list of strings" => choice(vec![string(), strings()]),
        "a table" => inner(),
        "a list of tables" => json!({ "type": "array", "items": inner() }),
        text if text.ends_with("or a whole number") => {
            let word = text.split('"').nth(1).unwrap_or_default();
            choice(vec![json!({ "const": word }), number()])
        }
        text if text.ends_with("or a list of these") => {
            let one = choice(vec![string(), secret()]);
            choice(vec![string(), secret(), json!({ "type": "array", "items": one })])
        }
        text if text.starts_with("a string, {") => choice(vec![string(), secret()]),
        _ => string(),
    };
    if let (Some(words), Some(object)) = (words(key), made.as_object_mut()) {
        object.insert("enum".to_owned(), json!(words));
    }
    if let Some(object) = made.as_object_mut() {
        object.insert("description".to_owned(), json!(format!("for example: {}", key.example)));
    }
    made
}
