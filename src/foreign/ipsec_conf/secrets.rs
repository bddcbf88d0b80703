//! ipsec.secrets: `ID ID : PSK "…"`, `: RSA FILE "passphrase"`, `user : EAP "…"`.

use std::path::Path;

use zeroize::Zeroizing;

use super::super::secrets::{Passphrase, Secrets, Shared, literal};
use super::super::{At, Files, Import, included, read_text};

/// How many files may be read, and how deep they may include each other.
const MAX_FILES: usize = 64;
const MAX_DEPTH: usize = 8;

/// Reads the file `path`; that it is not there is no fault.
pub(super) fn read(path: &Path, files: &dyn Files, import: &mut Import) -> Secrets {
    let mut secrets = Secrets::default();
    let mut left = MAX_FILES;
    if let Ok(text) = read_text(path, files) {
        entries(path, &text, files, &mut secrets, &mut left, 0, import);
    }
    secrets
}

fn entries(
    path: &Path,
    text: &str,
    files: &dyn Files,
    secrets: &mut Secrets,
    left: &mut usize,
    depth: usize,
    import: &mut Import,
) {
    for (words, line) in joined(text) {
        let at = At { file: path.to_owned(), line };
        let mut words: Vec<Word> = words;
        if words.first().is_some_and(|word| word.text.as_str() == "include") {
            let pattern = words.get(1).map(|word| word.text.to_string()).unwrap_or_default();
            for file in included(&pattern, path, files) {
                let more = left.checked_sub(1).filter(|_| depth < MAX_DEPTH);
                match (more, read_text(&file, files)) {
                    (Some(more), Ok(text)) => {
                        *left = more;
                        entries(&file, &text, files, secrets, left, depth + 1, import);
                    }
                    (None, _) => import.note(
                        &at,
                        "include",
                        "files include each other in a circle, or too many",
                    ),
                    (_, Err(error)) => {
                        import.note(&at, format!("include {}", file.display()), error)
                    }
                }
            }
            continue;
        }
        let Some(colon) = words.iter().position(|word| !word.quoted && word.text.as_str() == ":")
        else {
            import.note(&at, "this line", "expected `ID … : PSK \"…\"` or the like");
            continue;
        };
        let mut rest = words.split_off(colon + 1).into_iter();
        words.pop();
        let ids: Vec<String> = words.iter().map(|word| word.text.to_string()).collect();
        let kind = rest.next().map(|word| word.text.to_ascii_uppercase()).unwrap_or_default();
        let first = rest.next();
        match (kind.as_str(), first) {
            ("PSK", Some(word)) => secrets.psks.push(Shared { ids, secret: word.secret() }),
            ("EAP" | "XAUTH", Some(word)) => {
                secrets.passwords.push(Shared { ids, secret: word.secret() });
            }
            ("PPK" | "PPKS", Some(word)) => {
                secrets.ppks.push(Shared { ids, secret: word.secret() });
            }
            ("RSA" | "ECDSA" | "PKCS8" | "P8", Some(file)) => {
                if let Some(word) = rest.next().filter(|word| word.quoted) {
                    let secret = Zeroizing::new(word.text.to_string());
                    secrets.passphrases.push(Passphrase { file: file.text.to_string(), secret });
                }
            }
            ("P12" | "PKCS12", _) => import.note(
                &at,
                "P12",
                "PKCS #12 is not read: openssl pkcs12 -in FILE -nodes takes it apart",
            ),
            (other, _) => import.note(&at, other.to_owned(), "no secret that ipsecd knows"),
        }
    }
}

struct Word {
    text: Zeroizing<String>,
    quoted: bool,
}

impl Word {
    /// In the form in which a file of ours has it: in quotes stands what is meant letter for letter.
    fn secret(&self) -> Zeroizing<String> {
        if self.quoted { literal(&self.text) } else { self.text.clone() }
    }
}

/// The words of each entry, which indented lines go on with, and the line on which it begins.
fn joined(text: &str) -> Vec<(Vec<Word>, usize)> {
    let mut found: Vec<(Vec<Word>, usize)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = words(line);
        if words.is_empty() {
            continue;
        }
        match found.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
            Some((before, _)) => before.extend(words),
            None => found.push((words, number + 1)),
        }
    }
    found
}

fn words(line: &str) -> Vec<Word> {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while let Some(c) = rest.chars().next() {
        if c == '#' {
            break;
        }
        if c == '"' || c == '\'' {
            let inner = &rest[1..];
            let end = inner.find(c).unwrap_or(inner.len());
            found.push(Word { text: Zeroizing::new(inner[..end].to_owned()), quoted: true });
            rest = inner.get(end + 1..).unwrap_or_default().trim_start();
            continue;
        }
        let end = rest.find([' ', '\t']).unwrap_or(rest.len());
        // A colon may stand at the end of a word: that of an address of IPv6 has something after it, or another before it.
        let word = &rest[..end];
        match word.strip_suffix(':').filter(|word| !word.is_empty() && !word.ends_with(':')) {
            Some(word) => {
                found.push(Word { text: Zeroizing::new(word.to_owned()), quoted: false });
                found.push(Word { text: Zeroizing::new(":".to_owned()), quoted: false });
            }
            None => found.push(Word { text: Zeroizing::new(word.to_owned()), quoted: false }),
        }
        rest = rest[end..].trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_entry_is_read() {
        struct One;
        impl Files for One {
            fn read(&self, _: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
                Ok(Zeroizing::new(
                    b"# head\n192.0.2.1 @b.example : PSK \"correct horse\" # x\n: PSK 0sYWI=\n\
                      a.example 2001:db8::1: PSK\n   \"0x12\"\n: RSA a.key \"open\"\njoe : EAP 'pw'\n: PIN x\n"
                        .to_vec(),
                ))
            }
            fn list(&self, _: &Path) -> Vec<String> {
                Vec::new()
            }
        }
        let mut import = Import::default();
        let secrets = read(Path::new("ipsec.secrets"), &One, &mut import);
        let psks: Vec<_> =
            secrets.psks.iter().map(|it| (it.ids.join(" "), it.secret.to_string())).collect();
        assert_eq!(
            psks,
            [
                ("192.0.2.1 @b.example".to_owned(), "correct horse".to_owned()),
                (String::new(), "0sYWI=".to_owned()),
                ("a.example 2001:db8::1".to_owned(), "0x30783132".to_owned()),
            ]
        );
        assert_eq!(secrets.passphrases[0].file, "a.key");
        assert_eq!(secrets.passwords[0].ids, ["joe"]);
        assert_eq!(import.notes.len(), 1);
        assert_eq!(import.notes[0].at.line, 8);
    }
}
