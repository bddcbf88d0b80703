//! `[[manual]]` as written.

use core::mem;
use core::ops::Range;
use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::keys;
use super::{List, Scalar, Section, Text, Walk, WrittenKey, kind};

/// One `[[manual]]`. Not to be printed: keys may be in it.
pub(in super::super) struct Manual<'a> {
    /// Place of its header.
    pub(in super::super) span: Range<usize>,
    pub(in super::super) name: Option<Text<'a>>,
    pub(in super::super) protocol: Option<Text<'a>>,
    pub(in super::super) mode: Option<Text<'a>>,
    pub(in super::super) encap: Option<Text<'a>>,
    pub(in super::super) proposal: Option<Text<'a>>,
    pub(in super::super) allow_legacy: Option<bool>,
    pub(in super::super) local: Option<List<'a>>,
    pub(in super::super) peer: Option<List<'a>>,
    pub(in super::super) inbound: ManualKeys<'a>,
    pub(in super::super) outbound: ManualKeys<'a>,
    pub(in super::super) replay_window: Option<Spanned<Scalar<'a>>>,
    pub(in super::super) tfc: Option<Spanned<Scalar<'a>>>,
    pub(in super::super) ah_align: Option<Spanned<Scalar<'a>>>,
    pub(in super::super) dscp: Option<Spanned<Scalar<'a>>>,
    pub(in super::super) df: Option<Text<'a>>,
    pub(in super::super) ah: Option<ManualAh<'a>>,
    /// As [`Raw::misspelt`](super::Raw), of this one.
    pub(in super::super) misspelt: BTreeSet<String>,
}

/// `ah = { … }` of one.
pub(in super::super) struct ManualAh<'a> {
    /// Its place.
    pub(in super::super) span: Range<usize>,
    pub(in super::super) proposal: Option<Text<'a>>,
    pub(in super::super) inbound: ManualKeys<'a>,
    pub(in super::super) outbound: ManualKeys<'a>,
}

/// What ends in `-in`, or in `-out`.
pub(in super::super) struct ManualKeys<'a> {
    pub(in super::super) spi: Option<Spanned<Scalar<'a>>>,
    pub(in super::super) key: Option<WrittenKey<'a>>,
    pub(in super::super) auth_key: Option<WrittenKey<'a>>,
    pub(in super::super) seq: Option<Spanned<Scalar<'a>>>,
}

impl Manual<'_> {
    /// Whether it is no use to report this key as missing.
    pub(in super::super) fn excused(&self, name: &str) -> bool {
        self.misspelt.contains(&format!("manual.{name}"))
    }
}

/// Names of the keys of one direction.
pub(in super::super) struct Names {
    pub(in super::super) spi: &'static str,
    pub(in super::super) key: Option<&'static str>,
    pub(in super::super) auth_key: &'static str,
    pub(in super::super) seq: &'static str,
}

impl Names {
    pub(in super::super) const INBOUND: Self =
        Self { spi: "spi-in", key: Some("key-in"), auth_key: "auth-key-in", seq: "seq-in" };
    pub(in super::super) const OUTBOUND: Self =
        Self { spi: "spi-out", key: Some("key-out"), auth_key: "auth-key-out", seq: "seq-out" };
    pub(in super::super) const AH_INBOUND: Self =
        Self { spi: "ah.spi-in", key: None, auth_key: "ah.auth-key-in", seq: "ah.seq-in" };
    pub(in super::super) const AH_OUTBOUND: Self =
        Self { spi: "ah.spi-out", key: None, auth_key: "ah.auth-key-out", seq: "ah.seq-out" };
}

impl Walk<'_> {
    pub(super) fn manual<'a>(&mut self, root: &'a DeTable<'a>) -> Vec<Manual<'a>> {
        let tables = self.tables(root, "manual", "begin each pair of SAs with a line [[manual]]");
        tables.into_iter().map(|(table, span)| self.one_manual(table, span)).collect()
    }

    fn one_manual<'a>(&mut self, table: &'a DeTable<'a>, span: Range<usize>) -> Manual<'a> {
        let outside = mem::take(&mut self.misspelt);
        self.unknown("manual", table, &[]);
        let section = Section { name: "manual", prefix: "", table: Some(table), span: None };
        let mut manual = Manual {
            span,
            name: self.text(&section, "name"),
            protocol: self.text(&section, "protocol"),
            mode: self.text(&section, "mode"),
            encap: self.text(&section, "encap"),
            proposal: self.text(&section, "proposal"),
            allow_legacy: self.boolean(&section, "allow-legacy"),
            local: self.list(&section, "local"),
            peer: self.list(&section, "peer"),
            inbound: self.direction(&section, &Names::INBOUND),
            outbound: self.direction(&section, &Names::OUTBOUND),
            replay_window: self.scalar(&section, "replay-window", false, false),
            tfc: self.scalar(&section, "tfc", false, false),
            ah_align: self.scalar(&section, "ah-align", false, false),
            dscp: self.scalar(&section, "dscp", true, false),
            df: self.text(&section, "df"),
            ah: self.ah(&section),
            misspelt: BTreeSet::new(),
        };
        manual.misspelt = mem::replace(&mut self.misspelt, outside);
        // A word that belongs into another table is missing there.
        let elsewhere = manual.misspelt.iter().filter(|key| !key.starts_with("manual."));
        self.misspelt.extend(elsewhere.cloned());
        manual
    }

    fn ah<'a>(&mut self, section: &Section<'a>) -> Option<ManualAh<'a>> {
        let value = self.get(section, "ah")?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type("manual", "ah", value.span(), kind(value.get_ref()));
            return None;
        };
        let here = keys::KEYS.iter().filter(|key| key.section == "manual");
        let known: Vec<&str> = here.filter_map(|key| key.name.strip_prefix("ah.")).collect();
        for (key, _) in table {
            let word: &str = key.get_ref();
            if !known.contains(&word) {
                if self.report.is_full() {
                    return None;
                }
                self.unknown_in("ah", key.span(), word, &known);
                if let Some(right) = keys::nearest(word, known.iter().copied()) {
                    self.misspelt.insert(format!("manual.ah.{right}"));
                }
            }
        }
        let section = Section { name: "manual", prefix: "ah.", table: Some(table), span: None };
        Some(ManualAh {
            span: value.span(),
            proposal: self.text(&section, "ah.proposal"),
            inbound: self.direction(&section, &Names::AH_INBOUND),
            outbound: self.direction(&section, &Names::AH_OUTBOUND),
        })
    }

    fn direction<'a>(&mut self, section: &Section<'a>, names: &Names) -> ManualKeys<'a> {
        ManualKeys {
            spi: self.scalar(section, names.spi, true, false),
            key: names.key.and_then(|name| self.key(section, name)),
            auth_key: self.key(section, names.auth_key),
            seq: self.scalar(section, names.seq, true, false),
        }
    }
}
