//! A configuration file as written: every key that is there with its place, of the right type but not yet understood.
//!
//! Finds unknown keys and wrong types.

mod auth;
mod child;
mod manual;
mod policy;

use core::ops::Range;
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Report;
use super::keys::{self, KEYS, Meant, SECTIONS, heading};
pub(super) use auth::Auth;
pub(super) use child::{Child, Kind};
pub(super) use manual::{Manual, ManualAh, ManualKeys, Names};
pub(super) use policy::Policy;

/// The longest text of a key, in bytes; a psk may be longer.
const MAX_TEXT: usize = 1024;

/// The most items of a list, whatever is in it.
const MAX_ITEMS: usize = 64;

/// Lists whose texts are looked at although something that is no text stands among them.
const CHECKED_IN_PART: &[&str] = &["proposals", "subnets"];

/// Text with its place.
pub(super) type Text<'a> = Spanned<&'a str>;

/// A value that may be a word or a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Integer(i64),
    Float(f64),
}

/// A list of texts, or one that stands for a list of one.
#[derive(Clone, Debug)]
pub(super) struct List<'a> {
    pub(super) items: Vec<Text<'a>>,
    /// Whether these are all that is in it: what is no text has been reported.
    pub(super) whole: bool,
    pub(super) span: Range<usize>,
}

/// A key as written. Not to be printed.
#[derive(Clone)]
pub(super) enum WrittenKey<'a> {
    Inline(Text<'a>),
    File(Text<'a>),
    Credential(Text<'a>),
}

impl WrittenKey<'_> {
    /// Its place: that of the text, or of the name of a file or credential.
    pub(super) fn span(&self) -> Range<usize> {
        let (Self::Inline(text) | Self::File(text) | Self::Credential(text)) = self;
        text.span()
    }
}

/// `[local]` or `[peer]`.
#[derive(Debug)]
pub(super) struct Side<'a> {
    /// Place of its header, if it is there.
    pub(super) span: Option<Range<usize>>,
    pub(super) address: Option<Text<'a>>,
    pub(super) id: Option<Text<'a>>,
    pub(super) subnets: Option<List<'a>>,
    /// `[local]` alone.
    pub(super) virtual_addresses: Option<List<'a>>,
    pub(super) use_dns: Option<Spanned<bool>>,
    /// `[peer]` alone.
    pub(super) pool: Option<List<'a>>,
    pub(super) dns: Option<List<'a>>,
    pub(super) dns_domains: Option<List<'a>>,
}

/// `[ike]`.
#[derive(Debug)]
pub(super) struct Ike<'a> {
    /// Place of its header, if it is there.
    pub(super) span: Option<Range<usize>>,
    pub(super) proposals: Option<List<'a>>,
    pub(super) allow_legacy: Option<bool>,
    pub(super) rekey_time: Option<Text<'a>>,
    pub(super) over_time: Option<Text<'a>>,
    pub(super) reauth_time: Option<Text<'a>>,
    pub(super) unique: Option<Text<'a>>,
    pub(super) dpd: Option<Text<'a>>,
    pub(super) childless: Option<bool>,
    pub(super) dpd_action: Option<Text<'a>>,
    pub(super) close_action: Option<Text<'a>>,
    pub(super) retransmit_timeout: Option<Text<'a>>,
    pub(super) retransmit_base: Option<Spanned<Scalar<'a>>>,
    pub(super) retransmit_tries: Option<Spanned<Scalar<'a>>>,
    pub(super) fragmentation: Option<Text<'a>>,
    pub(super) fragment_size: Option<Spanned<Scalar<'a>>>,
    pub(super) mobike: Option<bool>,
}

/// `[esp]`.
#[derive(Debug)]
pub(super) struct Esp<'a> {
    /// Place of its header, if it is there.
    pub(super) span: Option<Range<usize>>,
    pub(super) kind: Kind<'a>,
    pub(super) allow_legacy: Option<bool>,
    pub(super) encap: Option<Text<'a>>,
    pub(super) per_resource: Option<Spanned<Scalar<'a>>>,
    pub(super) replay_window: Option<Spanned<Scalar<'a>>>,
    pub(super) rekey_time: Option<Text<'a>>,
    pub(super) life_time: Option<Text<'a>>,
    pub(super) rekey_bytes: Option<Spanned<Scalar<'a>>>,
    pub(super) life_bytes: Option<Spanned<Scalar<'a>>>,
    pub(super) rekey_packets: Option<Spanned<Scalar<'a>>>,
    pub(super) life_packets: Option<Spanned<Scalar<'a>>>,
    pub(super) dscp: Option<Spanned<Scalar<'a>>>,
    pub(super) df: Option<Text<'a>>,
}

/// `[interface]`.
#[derive(Debug)]
pub(super) struct Interface<'a> {
    /// Place of its header, if it is there.
    pub(super) span: Option<Range<usize>>,
    pub(super) name: Option<Text<'a>>,
    pub(super) mtu: Option<Spanned<Scalar<'a>>>,
    pub(super) routes: Option<bool>,
    pub(super) addresses: Option<List<'a>>,
    pub(super) clamp_mss: Option<bool>,
}

/// A whole file. Not to be printed: a psk may be in it.
pub(super) struct Raw<'a> {
    pub(super) name: Option<Text<'a>>,
    pub(super) local: Side<'a>,
    pub(super) peer: Side<'a>,
    pub(super) auth: Auth<'a>,
    pub(super) ike: Ike<'a>,
    pub(super) esp: Esp<'a>,
    /// Each `[[child]]`.
    pub(super) children: Vec<Child<'a>>,
    /// Each `[[manual]]`.
    pub(super) manual: Vec<Manual<'a>>,
    /// Each `[[policy]]`.
    pub(super) policies: Vec<Policy<'a>>,
    pub(super) interface: Interface<'a>,
    pub(super) log_level: Option<Text<'a>>,
    /// Keys (`section.key`) and sections that an unknown word was probably meant to be: that they are missing has
    /// been said then.
    pub(super) misspelt: BTreeSet<String>,
}

impl<'a> Raw<'a> {
    /// Reads the table of the whole file.
    pub(super) fn read(root: &'a DeTable<'a>, report: &mut Report) -> Self {
        let mut walk = Walk { report, misspelt: BTreeSet::new() };
        walk.unknown("", root, SECTIONS);
        let top = Section { name: "", prefix: "", table: Some(root), span: None };
        let name = walk.text(&top, "name");
        let local = walk.side(root, "local");
        let peer = walk.side(root, "peer");
        let auth = walk.auth(root);
        let ike = walk.ike(root);
        let esp = walk.esp(root);
        let children = walk.children(root);
        let manual = walk.manual(root);
        let policies = walk.policies(root);
        let interface = walk.interface(root);
        let log = walk.section(root, "log");
        let log_level = walk.text(&log, "level");
        let misspelt = walk.misspelt;
        Self {
            name,
            local,
            peer,
            auth,
            ike,
            esp,
            children,
            manual,
            policies,
            interface,
            log_level,
            misspelt,
        }
    }

    /// Whether its keys are, or were meant to be, set by hand.
    pub(super) fn is_manual(&self) -> bool {
        !self.manual.is_empty() || self.misspelt.contains("manual")
    }

    /// Whether it has, or was meant to have, policies without SAs.
    pub(super) fn is_fixed(&self) -> bool {
        !self.policies.is_empty() || self.misspelt.contains("policy")
    }

    /// Whether it is no use to report this key (or section, with an empty name) as missing.
    pub(super) fn excused(&self, section: &str, name: &str) -> bool {
        self.misspelt.contains(section)
            || if name.is_empty() {
                self.misspelt.iter().any(|key| key.split('.').next() == Some(section))
            } else {
                self.misspelt.contains(&format!("{section}.{name}"))
            }
    }
}

struct Section<'a> {
    name: &'static str,
    /// What its keys have before their names in the list of keys: `ah.` for those of a table within one.
    prefix: &'static str,
    table: Option<&'a DeTable<'a>>,
    span: Option<Range<usize>>,
}

struct Walk<'r> {
    report: &'r mut Report,
    misspelt: BTreeSet<String>,
}

impl Walk<'_> {
    fn section<'a>(&mut self, root: &'a DeTable<'a>, name: &'static str) -> Section<'a> {
        let Some(value) = root.get(name) else {
            return Section { name, prefix: "", table: None, span: None };
        };
        let Some(table) = value.get_ref().as_table() else {
            let is_tables = value.get_ref().is_array();
            let message = format!("`{name}` must be a table, not {}", kind(value.get_ref()));
            let found = self.report.error(value.span(), message);
            found.help(if is_tables {
                format!(
                    "write [{name}], once: a file has one peer; put others into files of their own"
                )
            } else {
                format!("begin the table with a line [{name}]")
            });
            self.misspelt.insert(name.to_owned());
            return Section { name, prefix: "", table: None, span: Some(value.span()) };
        };
        self.unknown(name, table, &[]);
        Section { name, prefix: "", table: Some(table), span: Some(value.span()) }
    }

    /// The tables of a list of them, `[[name]]`, each with its place.
    fn tables<'a>(
        &mut self,
        root: &'a DeTable<'a>,
        name: &'static str,
        help: &str,
    ) -> Vec<(&'a DeTable<'a>, Range<usize>)> {
        let Some(value) = root.get(name) else { return Vec::new() };
        let wrong = |walk: &mut Self, span, found: &str| {
            walk.report
                .error(span, format!("`{name}` must be a list of tables, not {found}"))
                .help(help);
            walk.misspelt.insert(name.to_owned());
        };
        let Some(array) = value.get_ref().as_array() else {
            wrong(self, value.span(), kind(value.get_ref()));
            return Vec::new();
        };
        if array.len() > MAX_ITEMS {
            self.misspelt.insert(name.to_owned());
            let message = format!("{} {} are too many for one file", array.len(), heading(name));
            self.report.error(value.span(), message).help(format!("at most {MAX_ITEMS}"));
            return Vec::new();
        }
        let mut found = Vec::new();
        for item in array {
            match item.get_ref().as_table() {
                Some(table) => found.push((table, item.span())),
                None => {
                    let here = kind(item.get_ref());
                    wrong(self, item.span(), &format!("a list with {here} in it"));
                }
            }
        }
        found
    }

    /// Reports the keys of a table that are neither its own nor among `also`.
    fn unknown(&mut self, section: &'static str, table: &DeTable<'_>, also: &[&str]) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            if also.contains(&name) || (!name.contains('.') && keys::find(section, name).is_some())
            {
                continue;
            }
            if self.report.is_full() {
                return;
            }
            let is_table = section.is_empty() && value.get_ref().is_table();
            let place = if section.is_empty() { "this file".to_owned() } else { heading(section) };
            let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
            let message = if is_table {
                format!("unknown table [{shown}]")
            } else {
                format!("unknown key `{shown}` in {place}")
            };
            let meant = if is_table {
                keys::nearest(name, SECTIONS.iter().copied()).map(Meant::Section)
            } else {
                keys::meant(section, name)
            };
            let found = self.report.error(key.span(), message);
            match meant {
                Some(Meant::Key(right)) => {
                    found.help(format!("did you mean `{right}`?"));
                    self.misspelt.insert(format!("{section}.{right}"));
                }
                Some(Meant::Section(right)) => {
                    found.help(format!("did you mean {}?", heading(right)));
                    self.misspelt.insert(right.to_owned());
                }
                Some(Meant::Elsewhere(right)) => {
                    let home = keys::homes(right.name);
                    let home = if keys::find(right.section, name).is_some() {
                        home
                    } else {
                        heading(right.section)
                    };
                    found.help(format!("`{}` belongs in {home}", right.name));
                    self.misspelt.insert(format!("{}.{}", right.section, right.name));
                }
                None => {
                    let known: Vec<String> = if is_table {
                        SECTIONS.iter().map(|name| heading(name)).collect()
                    } else {
                        let here = KEYS.iter().filter(|k| k.section == section);
                        let here = here.filter(|k| !k.name.contains('.'));
                        let also = also.iter().map(|name| heading(name));
                        here.map(|k| format!("`{}`", k.name)).chain(also).collect()
                    };
                    found.help(format!("known here: {}", known.join(", ")));
                }
            }
        }
    }

    fn get<'a>(&self, section: &Section<'a>, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        debug_assert!(
            keys::find(section.name, name).is_some(),
            "{name} is not in the list of keys"
        );
        section.table?.get(name.strip_prefix(section.prefix)?)
    }

    fn wrong_type(&mut self, section: &str, name: &str, span: Range<usize>, found: &str) {
        self.wrong_type_of(section, name, span, found, found);
    }

    /// `found` is what stands for the key, `here` what stands at the place.
    fn wrong_type_of(
        &mut self,
        section: &str,
        name: &str,
        span: Range<usize>,
        found: &str,
        here: &str,
    ) {
        let Some(key) = keys::find(section, name) else { return };
        let of =
            if section.is_empty() { String::new() } else { format!(" in {}", heading(section)) };
        let message = format!("`{name}`{of} must be {}, not {found}", key.expects);
        self.report
            .error(span, message)
            .label(format!("this is {here}"))
            .help(format!("for example: {}", key.example));
        // It is there, if wrongly.
        self.misspelt.insert(format!("{section}.{name}"));
    }

    fn text<'a>(&mut self, section: &Section<'a>, name: &str) -> Option<Text<'a>> {
        let value = self.get(section, name)?;
        match value.get_ref().as_str() {
            Some(text) => self.short(section.name, name, value.span(), text),
            None => {
                self.wrong_type(section.name, name, value.span(), kind(value.get_ref()));
                None
            }
        }
    }

    /// No text but a key is longer than this, so that what looks into it has little to do.
    fn short<'a>(
        &mut self,
        section: &str,
        name: &str,
        span: Range<usize>,
        text: &'a str,
    ) -> Option<Text<'a>> {
        if text.len() <= MAX_TEXT {
            return Some(Spanned::new(span, text));
        }
        self.misspelt.insert(format!("{section}.{name}"));
        let message = format!("`{name}` in {} has {} characters", heading(section), text.len());
        self.report.error(span, message).help(format!("at most {MAX_TEXT}"));
        None
    }

    fn boolean(&mut self, section: &Section<'_>, name: &str) -> Option<bool> {
        let value = self.get(section, name)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(section.name, name, value.span(), kind(value.get_ref()));
        }
        found
    }

    fn spanned_boolean(&mut self, section: &Section<'_>, name: &str) -> Option<Spanned<bool>> {
        let value = self.boolean(section, name)?;
        let span = self.get(section, name)?.span();
        Some(Spanned::new(span, value))
    }

    /// A number, or a word where `words` are allowed; a fraction only where `fractions` are.
    fn scalar<'a>(
        &mut self,
        section: &Section<'a>,
        name: &str,
        words: bool,
        fractions: bool,
    ) -> Option<Spanned<Scalar<'a>>> {
        let value = self.get(section, name)?;
        let scalar = match value.get_ref() {
            DeValue::Integer(n) => {
                i64::from_str_radix(n.as_str(), n.radix()).ok().map(Scalar::Integer)
            }
            DeValue::Float(n) if fractions => n.as_str().parse().ok().map(Scalar::Float),
            DeValue::String(text) if words => Some(Scalar::Text(text.as_ref())),
            DeValue::Array(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Float(_)
            | DeValue::String(_)
            | DeValue::Table(_) => None,
        };
        match scalar {
            Some(scalar) => Some(Spanned::new(value.span(), scalar)),
            None => {
                self.wrong_type(section.name, name, value.span(), kind(value.get_ref()));
                None
            }
        }
    }

    fn list<'a>(&mut self, section: &Section<'a>, name: &str) -> Option<List<'a>> {
        let value = self.get(section, name)?;
        let span = value.span();
        match value.get_ref() {
            DeValue::String(text) => {
                let item = self.short(section.name, name, span.clone(), text.as_ref())?;
                Some(List { items: vec![item], whole: true, span })
            }
            DeValue::Array(array) if array.len() > MAX_ITEMS => {
                self.misspelt.insert(format!("{}.{name}", section.name));
                let place = heading(section.name);
                let message = format!("`{name}` in {place} has {} items", array.len());
                self.report.error(span, message).help(format!("at most {MAX_ITEMS}"));
                None
            }
            DeValue::Array(array) => {
                let mut items = Vec::with_capacity(array.len());
                let mut whole = true;
                for item in array {
                    match item.get_ref().as_str() {
                        Some(text) => match self.short(section.name, name, item.span(), text) {
                            Some(text) => items.push(text),
                            None => whole = false,
                        },
                        None => {
                            whole = false;
                            let here = kind(item.get_ref());
                            let found = format!("a list with {here} in it");
                            self.wrong_type_of(section.name, name, item.span(), &found, here);
                        }
                    }
                }
                // What is wrong with the rest is told at once.
                let rest = !items.is_empty() && CHECKED_IN_PART.contains(&name);
                (whole || rest).then_some(List { items, whole, span })
            }
            DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Float(_)
            | DeValue::Integer(_)
            | DeValue::Table(_) => {
                self.wrong_type(section.name, name, span, kind(value.get_ref()));
                None
            }
        }
    }

    fn side<'a>(&mut self, root: &'a DeTable<'a>, name: &'static str) -> Side<'a> {
        let section = self.section(root, name);
        let here = |side: &str| (name == side).then_some(());
        Side {
            address: self.text(&section, "address"),
            id: self.text(&section, "id"),
            subnets: self.list(&section, "subnets"),
            virtual_addresses: here("local").and_then(|()| self.list(&section, "virtual")),
            use_dns: here("local").and_then(|()| self.spanned_boolean(&section, "dns")),
            pool: here("peer").and_then(|()| self.list(&section, "pool")),
            dns: here("peer").and_then(|()| self.list(&section, "dns")),
            dns_domains: self.list(&section, "dns-domains"),
            span: section.span,
        }
    }

    /// Secrets: one, or a list of them.
    fn keys<'a>(
        &mut self,
        section: &Section<'a>,
        name: &'static str,
    ) -> Option<Vec<WrittenKey<'a>>> {
        let value = self.get(section, name)?;
        let DeValue::Array(items) = value.get_ref() else {
            return self.key(section, name).map(|key| vec![key]);
        };
        if items.is_empty() || items.len() > MAX_ITEMS {
            self.misspelt.insert(format!("{}.{name}", section.name));
            let place = heading(section.name);
            let message = format!("`{name}` in {place} has {} items", items.len());
            self.report.error(value.span(), message).help(format!("1 to {MAX_ITEMS}"));
            return None;
        }
        let found: Vec<_> = items.iter().map(|item| self.key_value(section, name, item)).collect();
        found.into_iter().collect()
    }

    /// A secret: in the text, or where it is.
    fn key<'a>(&mut self, section: &Section<'a>, name: &'static str) -> Option<WrittenKey<'a>> {
        let value = self.get(section, name)?;
        self.key_value(section, name, value)
    }

    fn key_value<'a>(
        &mut self,
        section: &Section<'a>,
        name: &'static str,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<WrittenKey<'a>> {
        let found = match value.get_ref() {
            DeValue::String(text) => {
                Some(WrittenKey::Inline(Spanned::new(value.span(), text.as_ref())))
            }
            DeValue::Table(table) => self.key_table(section.name, name, table, value.span(), &[]),
            DeValue::Array(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Float(_)
            | DeValue::Integer(_) => {
                self.wrong_type(section.name, name, value.span(), kind(value.get_ref()));
                None
            }
        };
        if found.is_none() {
            self.misspelt.insert(format!("{}.{name}", section.name));
        }
        found
    }

    fn key_table<'a>(
        &mut self,
        section: &str,
        name: &str,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        also: &[&str],
    ) -> Option<WrittenKey<'a>> {
        let example = match name {
            "psk" => "b.psk",
            "ppk" => "b.ppk",
            "passphrase" | "eap-password" | "eap-user.password" => "a.pass",
            _ => "b.key",
        };
        let mut found = Vec::new();
        let mut whole = true;
        for (key, value) in table {
            let word: &str = key.get_ref();
            if also.contains(&word) {
                continue;
            }
            if word != "file" && word != "credential" {
                whole = false;
                self.unknown_in(name, key.span(), word, &[also, &["file", "credential"]].concat());
                continue;
            }
            match value.get_ref().as_str() {
                Some(text) => found.push((word, Spanned::new(value.span(), text))),
                None => {
                    whole = false;
                    let here = kind(value.get_ref());
                    let place = heading(section);
                    self.report
                        .error(
                            value.span(),
                            format!("`{name}.{word}` in {place} must be a string, not {here}"),
                        )
                        .label(format!("this is {here}"))
                        .help(format!("for example: {name} = {{ {word} = \"{example}\" }}"));
                }
            }
        }
        match found.as_slice() {
            [("file", path)] if whole => Some(WrittenKey::File(path.clone())),
            [("credential", name)] if whole => Some(WrittenKey::Credential(name.clone())),
            [] if whole => {
                self.report
                    .error(span, format!("`{name}` names neither a file nor a credential"))
                    .help(format!("for example: {name} = {{ file = \"{example}\" }}"));
                None
            }
            [_, _, ..] => {
                let message = format!("`{name}` names both a file and a credential");
                self.report.error(span, message).help("keep one of them");
                None
            }
            [_] | [] => None,
        }
    }

    /// Reports a key of a table that is the value of `name`.
    fn unknown_in(&mut self, name: &str, span: Range<usize>, word: &str, known: &[&str]) {
        let shown: String = word.chars().take(64).flat_map(char::escape_debug).collect();
        let unknown = self.report.error(span, format!("unknown key `{shown}` in `{name}`"));
        match keys::nearest(word, known.iter().copied()) {
            Some(right) => unknown.help(format!("did you mean `{right}`?")),
            None => {
                let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                unknown.help(format!("known here: {}", known.join(", ")))
            }
        };
    }

    fn ike<'a>(&mut self, root: &'a DeTable<'a>) -> Ike<'a> {
        let section = self.section(root, "ike");
        Ike {
            span: section.span.clone(),
            proposals: self.list(&section, "proposals"),
            allow_legacy: self.boolean(&section, "allow-legacy"),
            rekey_time: self.text(&section, "rekey-time"),
            over_time: self.text(&section, "over-time"),
            reauth_time: self.text(&section, "reauth-time"),
            unique: self.text(&section, "unique"),
            dpd: self.text(&section, "dpd"),
            childless: self.boolean(&section, "childless"),
            dpd_action: self.text(&section, "dpd-action"),
            close_action: self.text(&section, "close-action"),
            retransmit_timeout: self.text(&section, "retransmit-timeout"),
            retransmit_base: self.scalar(&section, "retransmit-base", false, true),
            retransmit_tries: self.scalar(&section, "retransmit-tries", false, false),
            fragmentation: self.text(&section, "fragmentation"),
            fragment_size: self.scalar(&section, "fragment-size", false, false),
            mobike: self.boolean(&section, "mobike"),
        }
    }

    fn esp<'a>(&mut self, root: &'a DeTable<'a>) -> Esp<'a> {
        let section = self.section(root, "esp");
        Esp {
            span: section.span.clone(),
            kind: self.kind(&section),
            allow_legacy: self.boolean(&section, "allow-legacy"),
            encap: self.text(&section, "encap"),
            per_resource: self.scalar(&section, "per-resource", false, false),
            replay_window: self.scalar(&section, "replay-window", false, false),
            rekey_time: self.text(&section, "rekey-time"),
            life_time: self.text(&section, "life-time"),
            rekey_bytes: self.scalar(&section, "rekey-bytes", true, false),
            life_bytes: self.scalar(&section, "life-bytes", true, false),
            rekey_packets: self.scalar(&section, "rekey-packets", true, false),
            life_packets: self.scalar(&section, "life-packets", true, false),
            dscp: self.scalar(&section, "dscp", true, false),
            df: self.text(&section, "df"),
        }
    }

    fn interface<'a>(&mut self, root: &'a DeTable<'a>) -> Interface<'a> {
        let section = self.section(root, "interface");
        Interface {
            span: section.span.clone(),
            name: self.text(&section, "name"),
            mtu: self.scalar(&section, "mtu", true, false),
            routes: self.boolean(&section, "routes"),
            addresses: self.list(&section, "addresses"),
            clamp_mss: self.boolean(&section, "clamp-mss"),
        }
    }
}

/// The type of a value, with its article.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "a list",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Float(_) => "a fraction",
        DeValue::Integer(_) => "a whole number",
        DeValue::String(_) => "a string",
        DeValue::Table(_) => "a table",
    }
}
