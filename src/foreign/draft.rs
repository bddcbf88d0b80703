//! A configuration file of ours in the making: keys and values in their tables, written as TOML.

use core::fmt::Write as _;

use zeroize::Zeroizing;

use super::{At, Import, Note, Written, file_name};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// `{ file = "…" }`.
    File(String),
    List(Vec<String>),
    /// As it is: a number, true or false.
    Plain(String),
    Text(String),
}

/// The keys of a table, in the order in which they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(Vec<(&'static str, Item)>);

impl Table {
    /// Sets a key, in place of what it had.
    pub(super) fn set(&mut self, key: &'static str, item: Item) {
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = item,
            None => self.0.push((key, item)),
        }
    }

    pub(super) fn text(&mut self, key: &'static str, text: impl Into<String>) {
        self.set(key, Item::Text(text.into()));
    }

    pub(super) fn list(&mut self, key: &'static str, items: Vec<String>) {
        self.set(key, Item::List(items));
    }

    pub(super) fn plain(&mut self, key: &'static str, value: impl ToString) {
        self.set(key, Item::Plain(value.to_string()));
    }

    pub(super) fn get(&self, key: &str) -> Option<&Item> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, item)| item)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it has this key with this text.
    pub(super) fn is_text(&self, key: &str, text: &str) -> bool {
        matches!(self.get(key), Some(Item::Text(there)) if there == text)
    }

    pub(super) fn write(&self, heading: &str, out: &mut String) {
        if self.is_empty() {
            return;
        }
        out.push_str(&format!("\n{heading}\n"));
        for (key, item) in &self.0 {
            let value = match item {
                Item::File(name) => format!("{{ file = {} }}", quote(name)),
                Item::List(items) => {
                    let items: Vec<String> = items.iter().map(|item| quote(item)).collect();
                    let line = items.join(", ");
                    if items.len() > 1 && line.len() > 100 {
                        format!("[\n    {},\n]", items.join(",\n    "))
                    } else {
                        format!("[{line}]")
                    }
                }
                Item::Plain(text) => text.clone(),
                Item::Text(text) => quote(text),
            };
            out.push_str(&format!("{key} = {value}\n"));
        }
    }
}

/// A TOML string.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // A string takes all that is written to it.
                let _done = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// One CHILD_SA.
#[derive(Clone, Debug, Default)]
pub(super) struct Child {
    pub(super) name: String,
    pub(super) local: Vec<String>,
    pub(super) peer: Vec<String>,
    /// `protocol`, `proposals`, `mode`, `start`: what may differ from one to another.
    pub(super) kind: Table,
    /// What all CHILD_SAs of a file share.
    pub(super) esp: Table,
    /// `dpd-action` and `close-action`, which stand in `[ike]`.
    pub(super) ike: Table,
    pub(super) at: Option<At>,
}

/// A file in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) name: String,
    /// Comments at its head.
    pub(super) head: Vec<String>,
    pub(super) local: Table,
    pub(super) peer: Table,
    pub(super) auth: Table,
    /// `[[auth.eap-user]]`: names, and files with passwords.
    pub(super) users: Vec<(String, String)>,
    pub(super) ike: Table,
    pub(super) children: Vec<Child>,
    pub(super) interface: Table,
}

impl Draft {
    /// Writes it. CHILD_SAs are joined to `[esp]` where there is one, or to `[[child]]`s.
    pub(super) fn finish(mut self, notes: &mut Vec<Note>) -> String {
        let mut esp = Table::default();
        let mut tables = Vec::new();
        match self.children.as_mut_slice() {
            [only] => {
                if !self.local.has("virtual") && !only.local.is_empty() {
                    self.local.list("subnets", core::mem::take(&mut only.local));
                }
                if !self.peer.has("pool") && !only.peer.is_empty() {
                    self.peer.list("subnets", core::mem::take(&mut only.peer));
                }
                esp = core::mem::take(&mut only.kind);
            }
            all => {
                for child in all {
                    let mut table = Table::default();
                    table.text("name", file_name(&child.name));
                    if !child.local.is_empty() && !self.local.has("virtual") {
                        table.list("local", core::mem::take(&mut child.local));
                    }
                    if !child.peer.is_empty() && !self.peer.has("pool") {
                        table.list("peer", core::mem::take(&mut child.peer));
                    }
                    for (key, item) in core::mem::take(&mut child.kind).0 {
                        table.set(key, item);
                    }
                    tables.push(table);
                }
            }
        }
        for child in &self.children {
            for (from, to) in [(&child.esp, &mut esp), (&child.ike, &mut self.ike)] {
                for (key, item) in &from.0 {
                    match to.get(key) {
                        None if child.name == self.children[0].name => to.set(key, item.clone()),
                        Some(there) if there == item => {}
                        None | Some(_) => notes.extend(child.at.clone().map(|at| {
                            Note {
                                at,
                                what: format!("{key} of `{}`", child.name),
                                why:
                                    "all CHILD_SAs of a file have one: that of the first was taken"
                                        .to_owned(),
                                left_out: false,
                            }
                        })),
                    }
                }
            }
        }
        let mut out = String::new();
        for line in &self.head {
            out.push_str(&format!("# {}\n", line.replace(['\n', '\r'], " ")));
        }
        self.local.write("[local]", &mut out);
        self.peer.write("[peer]", &mut out);
        self.auth.write("[auth]", &mut out);
        for (name, file) in &self.users {
            let mut user = Table::default();
            user.text("name", name.as_str());
            user.set("password", Item::File(file.clone()));
            user.write("[[auth.eap-user]]", &mut out);
        }
        self.ike.write("[ike]", &mut out);
        esp.write("[esp]", &mut out);
        for table in tables {
            table.write("[[child]]", &mut out);
        }
        self.interface.write("[interface]", &mut out);
        out
    }
}

impl Import {
    pub(super) fn note(&mut self, at: &At, what: impl Into<String>, why: impl Into<String>) {
        let note = Note { at: at.clone(), what: what.into(), why: why.into(), left_out: false };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn leave_out(&mut self, at: &At, what: impl Into<String>, why: impl Into<String>) {
        self.notes.push(Note {
            at: at.clone(),
            what: format!("{}: not imported", what.into()),
            why: why.into(),
            left_out: true,
        });
    }

    /// Adds a file, under another name if there is one of this name with something else in it; says which.
    pub(super) fn add(&mut self, name: &str, text: Zeroizing<String>, secret: bool) -> String {
        let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
        let (stem, mut number) = (file_name(stem), 1);
        loop {
            let name = match (number, end) {
                (1, "") => stem.clone(),
                (1, end) => format!("{stem}.{end}"),
                (number, "") => format!("{stem}-{number}"),
                (number, end) => format!("{stem}-{number}.{end}"),
            };
            match self.files.iter().find(|file| file.name == name) {
                Some(there) if *there.text == *text && there.secret == secret => return name,
                Some(_) => number += 1,
                None => {
                    self.files.push(Written { name: name.clone(), text, secret });
                    return name;
                }
            }
        }
    }

    /// Adds the file of a peer.
    pub(super) fn add_peer(&mut self, draft: Draft) {
        let name = format!("{}.conf", draft.name);
        let text = draft.finish(&mut self.notes);
        self.add(&name, Zeroizing::new(text), false);
    }
}
