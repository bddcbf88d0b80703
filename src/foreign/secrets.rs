//! Identities and secrets of other programs' configurations, and which secret is for whom.

use zeroize::Zeroizing;

use crate::config;
use crate::ipsec::pad::Identity;

/// An identity as strongSwan writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Id {
    Any,
    /// In our words.
    Exact(String),
}

/// Reads an identity; on failure, why it cannot be carried.
pub(super) fn identity(text: &str) -> Result<Id, String> {
    let text = text.trim();
    if text == "%any" || text == "%any6" || text.is_empty() {
        return Ok(Id::Any);
    }
    let ours = match text.split_once(':') {
        Some(("fqdn" | "dns", name)) => format!("@{name}"),
        Some(("email" | "rfc822" | "userfqdn", name)) => format!("@@{name}"),
        Some(("ipv4" | "ipv6", address)) => address.to_owned(),
        Some(("asn1dn", name)) => name.to_owned(),
        _ => text.to_owned(),
    };
    let is_pattern = match ours.split_once('=') {
        Some(_) => ours.split([',', '/']).any(|part| part.trim_end().ends_with("=*")),
        None => ours.contains('*') && !ours.starts_with("@#") && !ours.starts_with("keyid:"),
    };
    if is_pattern {
        return Err(format!(
            "`{text}` stands for many identities, and ipsecd has no patterns: write a file for each, or id = \"any\" if whoever \
             holds the key, or a certificate of the CA, may come in"
        ));
    }
    config::read_identity(&ours).map(|_| Id::Exact(ours))
}

/// A secret and the identities that it is for; none for all.
pub(super) struct Shared {
    pub(super) ids: Vec<String>,
    /// In the form in which a file of ours has it.
    pub(super) secret: Zeroizing<String>,
}

/// What opens a private key.
pub(super) struct Passphrase {
    /// The key's file as written; empty for any.
    pub(super) file: String,
    pub(super) secret: Zeroizing<String>,
}

/// All secrets of a configuration.
#[derive(Default)]
pub(super) struct Secrets {
    pub(super) psks: Vec<Shared>,
    /// Of EAP: users' names, and passwords.
    pub(super) passwords: Vec<Shared>,
    pub(super) ppks: Vec<Shared>,
    pub(super) passphrases: Vec<Passphrase>,
}

impl Secrets {
    /// The pre-shared key between two, as strongSwan chooses it: the peer's identity counts more than ours, and a key that is
    /// for nobody by name is for all.
    pub(super) fn psk(&self, ours: &[String], theirs: &[String]) -> Option<&Shared> {
        let mut best: Option<(u8, &Shared)> = None;
        for shared in &self.psks {
            let (us, them) = (shared.fits(ours), shared.fits(theirs));
            if us + them == 0 {
                continue;
            }
            let score = 3 * them + us;
            // Of equals the later, as it would stand in memory.
            if best.is_none_or(|(there, _)| score > there) {
                best = Some((score, shared));
            }
        }
        best.map(|(_, shared)| shared)
    }
}

impl Shared {
    /// How well it fits one side: 2 by name, 1 as one for all, 0 not.
    fn fits(&self, names: &[String]) -> u8 {
        if self.ids.is_empty() {
            return 1;
        }
        let parse = |text: &String| -> Option<Identity> {
            match identity(text) {
                Ok(Id::Exact(ours)) => config::read_identity(&ours).ok(),
                Ok(Id::Any) | Err(_) => None,
            }
        };
        let any = self.ids.iter().any(|id| matches!(identity(id), Ok(Id::Any)));
        let by_name = self
            .ids
            .iter()
            .filter_map(parse)
            .any(|id| names.iter().filter_map(parse).any(|name| name == id));
        match (by_name, any) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        }
    }
}

/// Text that is to be taken letter for letter, in the form in which a file of ours has it.
pub(super) fn literal(text: &str) -> Zeroizing<String> {
    let encoded = text.starts_with("0x") || text.starts_with("0s") || text.ends_with(['\n', '\r']);
    if !encoded {
        return Zeroizing::new(text.to_owned());
    }
    let mut hex = Zeroizing::new(String::with_capacity(2 + 2 * text.len()));
    hex.push_str("0x");
    for byte in text.bytes() {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(ids: &[&str], secret: &str) -> Shared {
        Shared {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            secret: Zeroizing::new(secret.to_owned()),
        }
    }

    #[test]
    fn the_key_that_names_both_goes_before_one_for_all() {
        let secrets = Secrets {
            psks: vec![
                shared(&[], "all"),
                shared(&["b.example"], "b"),
                shared(&["a.example", "fqdn:c.example"], "c"),
                shared(&["192.0.2.9", "%any"], "address"),
            ],
            ..Secrets::default()
        };
        let of = |ours: &str, theirs: &str| {
            secrets.psk(&[ours.to_owned()], &[theirs.to_owned()]).map(|it| it.secret.to_string())
        };
        assert_eq!(of("a.example", "b.example").as_deref(), Some("b"));
        assert_eq!(of("a.example", "c.example").as_deref(), Some("c"));
        assert_eq!(of("192.0.2.9", "d.example").as_deref(), Some("address"));
        assert_eq!(of("z.example", "@b.example").as_deref(), Some("b"));
    }

    #[test]
    fn identities_are_carried_or_said_to_be_patterns() {
        let exact = |text: &str| identity(text).unwrap();
        assert_eq!(exact("%any"), Id::Any);
        assert_eq!(exact("fqdn:a.example"), Id::Exact("@a.example".into()));
        assert_eq!(exact("asn1dn:C=DE, CN=a"), Id::Exact("C=DE, CN=a".into()));
        assert_eq!(exact("keyid:gw"), Id::Exact("keyid:gw".into()));
        assert_eq!(exact("@#0a0b"), Id::Exact("@#0a0b".into()));
        for text in ["*.example", "C=DE, O=Example, CN=*", "*@example.net"] {
            assert!(identity(text).unwrap_err().contains("patterns"), "{text}");
        }
    }

    #[test]
    fn a_literal_that_looks_encoded_is_encoded() {
        assert_eq!(literal("secret").as_str(), "secret");
        assert_eq!(literal("0sab").as_str(), "0x30736162");
    }
}
