//! `[[child]]` as written.

use core::ops::Range;

use toml::de::DeTable;

use super::{List, Section, Text, Walk};

/// One `[[child]]`.
#[derive(Debug)]
pub(in super::super) struct Child<'a> {
    /// Place of its header.
    pub(in super::super) span: Range<usize>,
    pub(in super::super) name: Option<Text<'a>>,
    pub(in super::super) local: Option<List<'a>>,
    pub(in super::super) peer: Option<List<'a>>,
    pub(in super::super) kind: Kind<'a>,
}

/// What may differ from one CHILD_SA to another; `[esp]` says what it is where a `[[child]]` does not.
#[derive(Debug)]
pub(in super::super) struct Kind<'a> {
    pub(in super::super) protocol: Option<Text<'a>>,
    pub(in super::super) proposals: Option<List<'a>>,
    pub(in super::super) mode: Option<Text<'a>>,
    pub(in super::super) start: Option<Text<'a>>,
}

impl Walk<'_> {
    pub(super) fn children<'a>(&mut self, root: &'a DeTable<'a>) -> Vec<Child<'a>> {
        let mut children = Vec::new();
        for (table, span) in self.tables(root, "child", "begin each with a line [[child]]") {
            self.unknown("child", table, &[]);
            let section = Section { name: "child", prefix: "", table: Some(table), span: None };
            children.push(Child {
                span,
                name: self.text(&section, "name"),
                local: self.list(&section, "local"),
                peer: self.list(&section, "peer"),
                kind: self.kind(&section),
            });
        }
        children
    }

    pub(super) fn kind<'a>(&mut self, section: &Section<'a>) -> Kind<'a> {
        Kind {
            protocol: self.text(section, "protocol"),
            proposals: self.list(section, "proposals"),
            mode: self.text(section, "mode"),
            start: self.text(section, "start"),
        }
    }
}
