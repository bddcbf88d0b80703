//! Bundles: a peer's files in one text, for whom they are and until when, to be sent by mail.
//!
//! The text is TOML, so that whoever opens it by hand can read it; docs/bundles.md describes it. [`openpgp`] signs and encrypts it.

pub mod openpgp;

use std::time::{Duration, SystemTime};

use zeroize::Zeroizing;

/// What stands in the first line: the form of what follows.
const FORMAT: &str = "ipsecd-bundle-1";

/// The most files in one, and the most keys that it may be for.
const MAX: usize = 16;

/// The files that a configuration and its keys are: no others are written.
const ENDS: &[&str] = &["conf", "key", "pass", "pem", "ppk", "psk", "pub"];

/// A file in a bundle.
pub struct Item {
    /// Its name, without folders.
    pub name: String,
    /// What is in it.
    pub text: Zeroizing<String>,
}

/// Files, for whom they are and until when.
pub struct Bundle {
    /// Fingerprints of the keys that it is for.
    pub to: Vec<String>,
    /// From when on nobody takes it.
    pub expires: SystemTime,
    /// The files.
    pub items: Vec<Item>,
}

/// Why a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It is for another key, whoever passed it on.
    #[error("it is not for key {0}: it was made for {1}, and somebody passed it on")]
    ForAnother(String, String),
    /// Its time is over.
    #[error("it expired on {0}, {1} ago: ask for a new one")]
    Expired(String, String),
    /// It is none.
    #[error("what was signed is no bundle: {0}")]
    Malformed(String),
    /// A name in it leads elsewhere.
    #[error("a file in it is called `{0}`: {1}")]
    Name(String, &'static str),
}

impl Bundle {
    /// The text.
    #[must_use]
    pub fn render(&self) -> Zeroizing<String> {
        let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let to: Vec<String> = self.to.iter().map(|it| quote(it)).collect();
        let mut text = Zeroizing::new(format!(
            "# A tunnel of ipsecd: ipsecd accept writes these files.\nformat = {}\nto = [{}]\nexpires = {}\n",
            quote(FORMAT),
            to.join(", "),
            humantime::format_rfc3339_seconds(self.expires)
        ));
        for item in &self.items {
            text.push_str("\n[[file]]\n");
            text.push_str(&format!("name = {}\n", quote(&item.name)));
            text.push_str("text = ");
            text.push_str(&Zeroizing::new(quote(&item.text)));
            text.push('\n');
        }
        text
    }

    /// Reads the text, for the key with the fingerprint `key`.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn read(text: &str, key: &str, now: SystemTime) -> Result<Self, BundleError> {
        let bad = |why: &str| BundleError::Malformed(why.to_owned());
        let table: toml::Table = text.parse().map_err(|_| bad("it is no TOML"))?;
        let string = |table: &toml::Table, key: &str| {
            table.get(key).and_then(toml::Value::as_str).map(str::to_owned)
        };
        if string(&table, "format").as_deref() != Some(FORMAT) {
            return Err(bad("its format is another"));
        }
        let to = table.get("to").and_then(toml::Value::as_array);
        let to = to.and_then(|it| {
            it.iter().map(|it| it.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        let to = to
            .filter(|it| (1..=MAX).contains(&it.len()))
            .ok_or_else(|| bad("it says not for whom it is"))?;
        if !to.iter().any(|it| it == key) {
            let others = to.join(", ").escape_debug().take(200).collect();
            return Err(BundleError::ForAnother(key.to_owned(), others));
        }
        let expires = table.get("expires").and_then(toml::Value::as_datetime);
        let expires = expires.and_then(|it| humantime::parse_rfc3339(&it.to_string()).ok());
        let expires = expires.ok_or_else(|| bad("it says not until when it is good"))?;
        if let Ok(late) = now.duration_since(expires) {
            let late = Duration::from_secs(late.as_secs());
            return Err(BundleError::Expired(
                humantime::format_rfc3339_seconds(expires).to_string(),
                humantime::format_duration(late).to_string(),
            ));
        }
        let files = table
            .get("file")
            .and_then(toml::Value::as_array)
            .ok_or_else(|| bad("there is no file in it"))?;
        if files.is_empty() || files.len() > MAX {
            return Err(bad("the number of its files"));
        }
        let mut items: Vec<Item> = Vec::new();
        for file in files {
            let file = file.as_table().ok_or_else(|| bad("a file is no table"))?;
            let name = string(file, "name").ok_or_else(|| bad("a file has no name"))?;
            let twice = items.iter().any(|item| item.name == name);
            if let Some(why) = not_a_name(&name).or(twice.then_some("another one is, too")) {
                return Err(BundleError::Name(name.escape_debug().take(200).collect(), why));
            }
            let text = string(file, "text").ok_or_else(|| bad("a file has no text"))?;
            items.push(Item { name, text: Zeroizing::new(text) });
        }
        if items.iter().filter(|item| item.name.ends_with(".conf")).count() != 1 {
            return Err(bad("there is to be one configuration in it"));
        }
        Ok(Self { to, expires, items })
    }
}

/// Why no file may be called so.
fn not_a_name(name: &str) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    if !(1..=100).contains(&name.len()) || !name.bytes().all(plain) || name.starts_with(['.', '-'])
    {
        Some("that is no plain name")
    } else if !ENDS.contains(&end) {
        Some("that is none of a configuration and its keys")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn bundle(name: &str) -> Bundle {
        let item = |name: &str, text: &str| Item {
            name: name.to_owned(),
            text: Zeroizing::new(text.to_owned()),
        };
        Bundle {
            to: vec!["EF".to_owned(), "AB".to_owned()],
            expires: at(1000),
            items: vec![item(name, "a \"b\"\n\\ ü"), item("x.psk", "0s")],
        }
    }

    fn refused(text: &str, now: u64) -> String {
        Bundle::read(text, "AB", at(now)).err().unwrap().to_string()
    }

    #[test]
    fn a_bundle_comes_back_as_it_was() {
        let read = Bundle::read(&bundle("a.conf").render(), "AB", at(999)).unwrap();
        assert_eq!(read.items[0].text.as_str(), "a \"b\"\n\\ ü");
        assert_eq!((read.items[1].name.as_str(), read.items.len()), ("x.psk", 2));
    }

    #[test]
    fn what_is_late_for_another_or_no_bundle_is_refused() {
        let text = bundle("a.conf").render();
        assert!(refused(&text, 1060).contains("expired on 1970-01-01T00:16:40Z, 1m ago"));
        let other = refused(&text.replace("\"AB\"", "\"CD\""), 1);
        assert!(other.contains("not for key AB: it was made for EF, CD"), "{other}");
        for (from, to) in [
            ("bundle-1", "bundle-2"),
            ("to = [", "to = 1 # ["),
            ("expires =", "expire ="),
            ("1970-01-01T00:16:40Z", "1970-01-01"),
            ("[[file]]", "[[files]]"),
            ("name =", "nam ="),
            ("text =", "texts ="),
            ("a.conf", "a.pem"),
            ("x.psk", "x.conf"),
        ] {
            let changed = text.replace(from, to);
            assert!(changed != *text && refused(&changed, 1).contains("no bundle"), "{from}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_directory_or_to_a_file_of_another_kind() {
        for name in ["../a.conf", "/etc/a.conf", ".a.conf", "-rf.conf", "a/b.conf", "a\nb.conf", ""]
        {
            assert!(refused(&bundle(name).render(), 1).contains("no plain name"), "{name}");
        }
        for name in ["authorized_keys", "Makefile", "conf", "a.service"] {
            assert!(
                refused(&bundle(name).render(), 1).contains("none of a configuration"),
                "{name}"
            );
        }
        assert!(refused(&bundle("x.psk").render(), 1).contains("another one is, too"));
    }
}
