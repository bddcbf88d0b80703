//! `[auth]` as written.

use core::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{List, Section, Text, Walk, WrittenKey, kind};

/// The most tables `[[auth.eap-user]]`.
const MAX_USERS: usize = 10_000;

/// `[auth]` as written. Not to be printed.
pub(in super::super) struct Auth<'a> {
    /// Place of its header, if it is there.
    pub(in super::super) span: Option<Range<usize>>,
    pub(in super::super) psk: Option<WrittenKey<'a>>,
    pub(in super::super) ppk: Option<Ppk<'a>>,
    pub(in super::super) ppk_required: Option<Spanned<bool>>,
    pub(in super::super) cert: Option<List<'a>>,
    /// A text is the name of a file here. Never empty.
    pub(in super::super) key: Option<Vec<WrittenKey<'a>>>,
    pub(in super::super) passphrase: Option<WrittenKey<'a>>,
    pub(in super::super) ca: Option<List<'a>>,
    pub(in super::super) crl: Option<List<'a>>,
    pub(in super::super) revocation: Option<Text<'a>>,
    /// Files with OCSP responses for `cert`.
    pub(in super::super) ocsp: Option<List<'a>>,
    /// Files with the peer's public keys.
    pub(in super::super) public_key: Option<List<'a>>,
    pub(in super::super) eap_methods: Option<List<'a>>,
    pub(in super::super) eap_identity: Option<Text<'a>>,
    pub(in super::super) eap_password: Option<WrittenKey<'a>>,
    /// Each `[[auth.eap-user]]`.
    pub(in super::super) eap_users: Vec<EapUser<'a>>,
    pub(in super::super) local: Option<Text<'a>>,
    pub(in super::super) peer: Option<Text<'a>>,
    pub(in super::super) extended_key_usage: Option<Text<'a>>,
    pub(in super::super) allow_sha_1: Option<Spanned<bool>>,
}

/// `[auth] ppk` as written. Not to be printed.
pub(in super::super) struct Ppk<'a> {
    /// Place of its table.
    pub(in super::super) span: Range<usize>,
    pub(in super::super) id: Option<Text<'a>>,
    pub(in super::super) key: Option<WrittenKey<'a>>,
}

/// `[[auth.eap-user]]` as written. Not to be printed.
pub(in super::super) struct EapUser<'a> {
    /// Place of its table.
    pub(in super::super) span: Range<usize>,
    pub(in super::super) name: Option<Text<'a>>,
    pub(in super::super) password: Option<WrittenKey<'a>>,
}

impl Walk<'_> {
    pub(super) fn auth<'a>(&mut self, root: &'a DeTable<'a>) -> Auth<'a> {
        let section = self.section(root, "auth");
        Auth {
            psk: self.key(&section, "psk"),
            ppk: self.ppk(&section),
            ppk_required: self.spanned_boolean(&section, "ppk-required"),
            cert: self.list(&section, "cert"),
            key: self.keys(&section, "key"),
            passphrase: self.key(&section, "passphrase"),
            ca: self.list(&section, "ca"),
            crl: self.list(&section, "crl"),
            revocation: self.text(&section, "revocation"),
            ocsp: self.list(&section, "ocsp"),
            public_key: self.list(&section, "public-key"),
            eap_methods: self.list(&section, "eap-methods"),
            eap_identity: self.text(&section, "eap-identity"),
            eap_password: self.key(&section, "eap-password"),
            eap_users: self.eap_users(&section),
            local: self.text(&section, "local"),
            peer: self.text(&section, "peer"),
            extended_key_usage: self.text(&section, "extended-key-usage"),
            allow_sha_1: self.spanned_boolean(&section, "allow-sha1"),
            span: section.span,
        }
    }

    fn ppk<'a>(&mut self, section: &Section<'a>) -> Option<Ppk<'a>> {
        let value = self.get(section, "ppk")?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type("auth", "ppk", value.span(), kind(value.get_ref()));
            return None;
        };
        let inner = Section { name: "auth", prefix: "ppk.", table: Some(table), span: None };
        let id = self.text(&inner, "ppk.id");
        let key = self.key_table("auth", "ppk", table, value.span(), &["id"]);
        Some(Ppk { span: value.span(), id, key })
    }

    /// Each `[[auth.eap-user]]`.
    fn eap_users<'a>(&mut self, section: &Section<'a>) -> Vec<EapUser<'a>> {
        let Some(value) = self.get(section, "eap-user") else { return Vec::new() };
        let tables = value.get_ref().as_array().map(|items| items.iter());
        let tables: Option<Vec<_>> = tables.and_then(|items| {
            items.map(|item| Some((item.get_ref().as_table()?, item.span()))).collect()
        });
        let Some(tables) = tables else {
            self.wrong_type("auth", "eap-user", value.span(), kind(value.get_ref()));
            return Vec::new();
        };
        if tables.len() > MAX_USERS {
            self.misspelt.insert("auth.eap-user".to_owned());
            let message = format!("[auth] has {} tables `eap-user`", tables.len());
            self.report.error(value.span(), message).help(format!("at most {MAX_USERS}"));
            return Vec::new();
        }
        let mut users = Vec::new();
        for (table, span) in tables {
            for (key, _) in table {
                let word: &str = key.get_ref();
                if word != "name" && word != "password" {
                    self.misspelt.insert("auth.eap-user.name".to_owned());
                    self.unknown_in("eap-user", key.span(), word, &["name", "password"]);
                }
            }
            let user =
                Section { name: "auth", prefix: "eap-user.", table: Some(table), span: None };
            users.push(EapUser {
                span,
                name: self.text(&user, "eap-user.name"),
                password: self.key(&user, "eap-user.password"),
            });
        }
        users
    }
}
