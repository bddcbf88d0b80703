//! Where in a file something stands that is right by itself, and not beside another file.

use core::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{parse, selector};

/// What stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The first of these keys of a section (`""`: of none) that is there.
    Keys(&'static str, &'static [&'static str]),
    /// The selector of the peer's side that is shown so.
    Selector(String),
    /// Nothing in particular.
    Whole,
}

impl Place {
    /// Its bytes in the text of a file. `None`: it stands for something that is not written.
    pub(super) fn find(&self, text: &str) -> Option<Range<usize>> {
        let (root, _) = parse::toml(text);
        let root = root.get_ref();
        match self {
            Self::Keys(section, names) => {
                let table = match *section {
                    "" => root,
                    section => table(root, section)?,
                };
                names.iter().find_map(|name| table.get(*name)).map(toml::Spanned::span)
            }
            Self::Selector(shown) => find_selector(root, shown),
            Self::Whole => None,
        }
    }
}

fn table<'a>(root: &'a DeTable<'a>, name: &str) -> Option<&'a DeTable<'a>> {
    root.get(name)?.get_ref().as_table()
}

/// The item of a list that says it; else the list, or the address, that it comes from.
fn find_selector(root: &DeTable<'_>, shown: &str) -> Option<Range<usize>> {
    let peer = table(root, "peer");
    let subnets = peer.and_then(|peer| peer.get("subnets").or_else(|| peer.get("pool")));
    let lists =
        ["child", "manual"].into_iter().filter_map(|name| root.get(name)?.get_ref().as_array());
    let own = lists.flatten().filter_map(|item| item.get_ref().as_table()?.get("peer"));
    let mut values = subnets.into_iter().chain(own).flat_map(|value| match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Float(_)
        | DeValue::Integer(_)
        | DeValue::String(_)
        | DeValue::Table(_) => vec![value],
    });
    let says = |text: &str| {
        super::read_selectors(text)
            .is_ok_and(|all| all.iter().any(|ts| selector::show(ts) == shown))
    };
    values
        .find(|value| value.get_ref().as_str().is_some_and(says))
        .or(subnets)
        .or_else(|| peer?.get("address"))
        .map(toml::Spanned::span)
}
