//! `[[policy]]` as written.

use core::ops::Range;

use toml::de::DeTable;

use super::{List, Section, Text, Walk};

/// One `[[policy]]`.
#[derive(Debug)]
pub(in super::super) struct Policy<'a> {
    /// Place of its header.
    pub(in super::super) span: Range<usize>,
    pub(in super::super) name: Option<Text<'a>>,
    pub(in super::super) action: Option<Text<'a>>,
    pub(in super::super) local: Option<List<'a>>,
    pub(in super::super) remote: Option<List<'a>>,
    pub(in super::super) direction: Option<Text<'a>>,
    pub(in super::super) order: Option<Text<'a>>,
}

impl Walk<'_> {
    pub(super) fn policies<'a>(&mut self, root: &'a DeTable<'a>) -> Vec<Policy<'a>> {
        let mut policies = Vec::new();
        for (table, span) in self.tables(root, "policy", "begin each with a line [[policy]]") {
            self.unknown("policy", table, &[]);
            let section = Section { name: "policy", prefix: "", table: Some(table), span: None };
            policies.push(Policy {
                span,
                name: self.text(&section, "name"),
                action: self.text(&section, "action"),
                local: self.list(&section, "local"),
                remote: self.list(&section, "remote"),
                direction: self.text(&section, "direction"),
                order: self.text(&section, "order"),
            });
        }
        policies
    }
}
