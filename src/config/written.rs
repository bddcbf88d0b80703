//! What a file says, key by key: so that two versions of it can be told apart ([`Written::changes_to`]).

use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::crypto::Secret;

/// Every key of a file with its value, by its name from the top: `ike.proposals`, `child[lan].start`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written(BTreeMap<String, Value>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    /// As it may be shown; `None`: it is, or might be, a secret.
    shown: Option<String>,
    /// What it is, to be compared alone.
    bytes: Secret,
}

/// One key that differs between two versions of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// Its name from the top.
    pub key: String,
    /// What it was: in TOML, or [`HIDDEN`]. `None`: it was not there.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

/// In place of a value that is, or might be, a secret.
pub const HIDDEN: &str = "(not shown)";

impl Written {
    /// Of a file's `text`, of which `shown` is the copy that may be shown.
    pub(super) fn of(root: &DeTable<'_>, text: &str, shown: &str) -> Self {
        let mut written = Self::default();
        written.table("", root, text, shown);
        written
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>, text: &str, shown: &str) {
        for (key, value) in table {
            let name = match path {
                "" => key.get_ref().to_string(),
                path => format!("{path}.{}", key.get_ref()),
            };
            match value.get_ref() {
                DeValue::Table(inner) => self.table(&name, inner, text, shown),
                DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                    for (at, item) in items.iter().enumerate() {
                        let Some(inner) = item.get_ref().as_table() else { continue };
                        let named = inner.get("name").and_then(|name| name.get_ref().as_str());
                        let label = named.map_or_else(|| (at + 1).to_string(), str::to_owned);
                        self.table(&format!("{name}[{label}]"), inner, text, shown);
                    }
                }
                DeValue::Array(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Float(_)
                | DeValue::Integer(_)
                | DeValue::String(_) => {
                    let rendered = render(value);
                    let open = is_open(value.span(), text, shown);
                    let value = Value {
                        bytes: Secret::copy_of(rendered.as_bytes()),
                        shown: open.then_some(rendered),
                    };
                    let _first = self.0.insert(name, value);
                }
            }
        }
    }

    /// What differs where `new` takes its place, by key.
    #[must_use]
    pub fn changes_to(&self, new: &Self) -> Vec<KeyChange> {
        let keys: BTreeSet<_> = self.0.keys().chain(new.0.keys()).collect();
        let show = |value: &Value| value.shown.clone().unwrap_or_else(|| HIDDEN.to_owned());
        keys.into_iter()
            .filter(|key| self.0.get(*key) != new.0.get(*key))
            .map(|key| KeyChange {
                key: key.clone(),
                old: self.0.get(key).map(show),
                new: new.0.get(key).map(show),
            })
            .collect()
    }
}

/// Whether a place of the text is in the copy that may be shown as it is.
fn is_open(span: Range<usize>, text: &str, shown: &str) -> bool {
    let at = |text: &'_ str| text.get(span.clone()).map(str::to_owned);
    at(text).is_some() && at(text) == at(shown)
}

/// In TOML, the same for all ways to write it.
fn render(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::Array(items) => {
            let items: Vec<_> = items.iter().map(render).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Float(value) => value.to_string(),
        DeValue::Integer(value) => value.to_string(),
        DeValue::String(value) => toml::Value::String(value.to_string()).to_string(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn written(text: &str) -> Written {
        let (root, errors) = parse::toml(text);
        let shown = parse::masked(text, root.get_ref(), !errors.is_empty());
        Written::of(root.get_ref(), text, &shown)
    }

    fn changes(old: &str, new: &str) -> Vec<String> {
        let changes = written(old).changes_to(&written(new));
        let word = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let line = |c: KeyChange| format!("{}: {} -> {}", c.key, word(c.old), word(c.new));
        changes.into_iter().map(line).collect()
    }

    #[test]
    fn keys_that_differ_are_named_with_both_values() {
        let old = "[ike]\ndpd = \"30s\"\nmobike = true\n[esp]\nproposals = ['a', \"b\"]\n";
        let new = "[ike]\nmobike = false # off\n[esp]\nproposals = [\n  \"a\",\n  \"b\" ]\nstart = \"now\"\n";
        assert_eq!(
            changes(old, new),
            ["esp.start: - -> \"now\"", "ike.dpd: \"30s\" -> -", "ike.mobike: true -> false"]
        );
        assert!(changes(old, &format!("# a comment\n{old}")).is_empty());
    }

    #[test]
    fn tables_of_a_list_go_by_their_names() {
        let old = "[[child]]\nname = \"lan\"\nstart = \"now\"\n[[child]]\nname = \"dmz\"\n";
        let new = "[[child]]\nname = \"dmz\"\n[[child]]\nname = \"lan\"\nstart = \"respond\"\n";
        assert_eq!(changes(old, new), ["child[lan].start: \"now\" -> \"respond\""]);
    }

    #[test]
    fn secret_that_changes_is_noticed_and_never_shown() {
        let [old, new] = ["hunter2", "hunter3"].map(|psk| {
            format!(
                "[auth]\npsk = \"{psk}\"\n[[auth.eap-user]]\nname = \"joe\"\npassword = \"{psk}\"\n"
            )
        });
        let found = changes(&old, &new);
        assert_eq!(
            found,
            [
                "auth.eap-user[joe].password: (not shown) -> (not shown)",
                "auth.psk: (not shown) -> (not shown)"
            ]
        );
        assert!(!format!("{:?}", written(&old)).contains("hunter"));
        // The place of a key is none.
        let place = |name: &str| format!("[auth]\npsk = {{ file = \"{name}\" }}\n");
        assert_eq!(changes(&place("a"), &place("b")), ["auth.psk.file: \"a\" -> \"b\""]);
    }
}
