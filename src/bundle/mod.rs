//! Bundles: a peer's files in one text, for whom they are and until when, to be sent by mail.
//!
//! The text is TOML, so that whoever opens it by hand can read it. [`openpgp`] signs and encrypts it.

pub mod openpgp;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

/// What stands in the first line: the form of what follows.
const FORMAT: &str = "ipsecd-bundle-1";

/// The most files in one.
const MAX_FILES: usize = 16;

/// A file in a bundle.
pub struct Item {
    /// Its name, without folders.
    pub name: String,
    /// What is in it.
    pub text: Zeroizing<String>,
    /// Whether it is for its owner's eyes only.
    pub secret: bool,
}

/// Files, for whom they are and until when.
pub struct Bundle {
    /// Fingerprint of the key that it is for.
    pub to: String,
    /// From when on nobody takes it.
    pub expires: SystemTime,
    /// The files.
    pub items: Vec<Item>,
}

/// Why a bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It is for another key, whoever passed it on.
    #[error("it was made for key {0}, and passed on by somebody")]
    ForAnother(String),
    /// Its time is over.
    #[error("it expired {0} ago: ask for a new one")]
    Expired(String),
    /// It is none.
    #[error("what was signed is no bundle: {0}")]
    Malformed(String),
    /// A name in it leads elsewhere.
    #[error("a file in it is called `{0}`, which is no plain name")]
    Name(String),
}

impl Bundle {
    /// The text.
    #[must_use]
    pub fn render(&self) -> Zeroizing<String> {
        let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let since = self.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut text = Zeroizing::new(format!(
            "# A tunnel of ipsecd: ipsecd accept writes these files.\nformat = {}\nto = {}\nexpires = {}\n",
            quote(FORMAT),
            quote(&self.to),
            since.as_secs()
        ));
        for item in &self.items {
            text.push_str("\n[[file]]\n");
            text.push_str(&format!("name = {}\nsecret = {}\n", quote(&item.name), item.secret));
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
        let to = string(&table, "to").ok_or_else(|| bad("it says not for whom it is"))?;
        if to != key {
            return Err(BundleError::ForAnother(to));
        }
        let expires = table.get("expires").and_then(toml::Value::as_integer);
        let expires = expires
            .and_then(|it| u64::try_from(it).ok())
            .and_then(|it| UNIX_EPOCH.checked_add(Duration::from_secs(it)));
        let expires = expires.ok_or_else(|| bad("it says not until when it is good"))?;
        if let Ok(late) = now.duration_since(expires) {
            let late = Duration::from_secs(late.as_secs());
            return Err(BundleError::Expired(humantime::format_duration(late).to_string()));
        }
        let files = table
            .get("file")
            .and_then(toml::Value::as_array)
            .ok_or_else(|| bad("there is no file in it"))?;
        if files.is_empty() || files.len() > MAX_FILES {
            return Err(bad("the number of its files"));
        }
        let mut items: Vec<Item> = Vec::new();
        for file in files {
            let file = file.as_table().ok_or_else(|| bad("a file is no table"))?;
            let name = string(file, "name").ok_or_else(|| bad("a file has no name"))?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            let fine = (1..=100).contains(&name.len())
                && name.bytes().all(plain)
                && !name.starts_with(['.', '-']);
            if !fine || items.iter().any(|item| item.name == name) {
                return Err(BundleError::Name(name.escape_debug().to_string()));
            }
            let text = string(file, "text").ok_or_else(|| bad("a file has no text"))?;
            // What is not said to be open to others is not.
            let secret = file.get("secret").and_then(toml::Value::as_bool).unwrap_or(true);
            items.push(Item { name, text: Zeroizing::new(text), secret });
        }
        Ok(Self { to, expires, items })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn bundle(name: &str) -> Bundle {
        let item = |name: &str, text: &str| Item {
            name: name.to_owned(),
            text: Zeroizing::new(text.to_owned()),
            secret: true,
        };
        Bundle {
            to: "AB".to_owned(),
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
        assert!(refused(&text, 1060).contains("expired 1m ago"));
        assert!(refused(&text.replace("\"AB\"", "\"CD\""), 1).contains("made for key CD"));
        for (from, to) in [
            ("bundle-1", "bundle-2"),
            ("expires =", "expire ="),
            ("[[file]]", "[[files]]"),
            ("name =", "nam ="),
        ] {
            assert!(refused(&text.replace(from, to), 1).contains("no bundle"), "{from}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in ["../a.conf", "/etc/passwd", ".bashrc", "-rf", "a/b", "a\nb", "", "x.psk"] {
            assert!(refused(&bundle(name).render(), 1).contains("no plain name"), "{name}");
        }
    }
}
