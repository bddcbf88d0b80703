//! `secrets { … }`.

use zeroize::Zeroizing;

use super::super::Import;
use super::super::secrets::{Passphrase, Secrets, Shared};
use super::parse::Section;

pub(super) fn read(mut from: Section, import: &mut Import) -> Secrets {
    let mut secrets = Secrets::default();
    for mut section in from.take_sections("") {
        let at = section.at.clone();
        let secret = section.take("secret").map(|it| Zeroizing::new(it.value));
        let ids: Vec<String> = section.take_settings("id").into_iter().map(|it| it.value).collect();
        let kind = section.name.trim_end_matches(|c: char| c.is_ascii_digit());
        let kind = kind.split(['-', '_', '.']).next().unwrap_or(kind).to_owned();
        let known = [
            "eap", "ecdsa", "ike", "pkcs8", "ppk", "private", "rsa", "xauth", "ntlm", "pkcs12",
            "token",
        ];
        let kind = known.iter().find(|name| kind.starts_with(*name)).copied().unwrap_or_default();
        match (kind, secret) {
            ("ike" | "eap" | "xauth" | "ppk", None) => {
                import.note(
                    &at,
                    format!("secret `{}`", section.name),
                    "there is no `secret` in it",
                );
            }
            ("ike", Some(secret)) => secrets.psks.push(Shared { ids, secret }),
            // One list serves both in strongSwan, too.
            ("eap" | "xauth", Some(secret)) => secrets.passwords.push(Shared { ids, secret }),
            ("ppk", Some(secret)) => secrets.ppks.push(Shared { ids, secret }),
            ("private" | "rsa" | "ecdsa" | "pkcs8", secret) => {
                let file = section.take("file").map(|it| it.value).unwrap_or_default();
                if let Some(secret) = secret {
                    secrets.passphrases.push(Passphrase { file, secret });
                }
            }
            ("pkcs12", _) => import.note(
                &at,
                format!("secret `{}`", section.name),
                "PKCS #12 is not read: openssl pkcs12 -in FILE -nodes takes it apart",
            ),
            ("token", _) => import.note(
                &at,
                format!("secret `{}`", section.name),
                "keys on smart cards and TPMs are not used",
            ),
            _ => {
                import.note(&at, format!("secret `{}`", section.name), "ipsecd has nothing like it")
            }
        }
    }
    secrets
}
