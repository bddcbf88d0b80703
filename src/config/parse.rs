//! From text to TOML: syntax errors, all of them, and the copy of the text that may be shown.

use core::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Report, line_of};
use super::keys::KEYS;

/// Reads TOML, recovering from what is wrong as well as it can.
pub(super) fn toml(text: &str) -> (Spanned<DeTable<'_>>, Vec<toml::de::Error>) {
    DeTable::parse_recoverable(text)
}

const OPEN_LIST: &str = "missing comma between array elements";

/// Enters the syntax errors into the report and says how many they are.
pub(super) fn syntax(errors: &[toml::de::Error], report: &mut Report) -> usize {
    let source = report.source();
    let mut entered = 0;
    let mut errors: Vec<&toml::de::Error> = errors.iter().collect();
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    for error in errors {
        if report.is_full() {
            report.unreadable_from(0);
            break;
        }
        let at = error.span().unwrap_or(0..0);
        let message = error.message().trim_end_matches(", expected nothing");
        let line = line_of(&source, at.start);
        let text = source.get(line.clone()).unwrap_or_default();
        if message.starts_with(OPEN_LIST)
            && (text.contains('=') || text.trim_start().starts_with('['))
        {
            if let Some(diagnostic) = report.syntax_error(at, "a list is not closed") {
                entered += 1;
                diagnostic
                    .label("this is still inside the list")
                    .help("end the list before this line with ]");
            }
            // It swallows all that follows: nothing can be said of that.
            report.unreadable_from(line.start);
            break;
        }
        let bare = bare_value(&source, &line);
        let duplicate = message == "duplicate key";
        let place = match &bare {
            Some(value) if !duplicate && value.end >= at.start => value.clone(),
            Some(_) | None => at,
        };
        let Some(diagnostic) = report.syntax_error(place.clone(), message) else { continue };
        entered += 1;
        if duplicate {
            let name = source.get(place).unwrap_or_default();
            diagnostic
                .label(format!("`{name}` stands a second time"))
                .help("join the two: each table and each key stands once in a file");
        } else if bare.is_some() {
            let value = source.get(place).unwrap_or_default();
            diagnostic.label("not a TOML value");
            if !value.contains(['"', '\'', '*']) {
                diagnostic.help(format!("put it in quotes: \"{value}\""));
            }
        } else if message.ends_with("expected `\"`") || message.ends_with("expected `'`") {
            diagnostic.help("end the text with the quote that it began with");
        }
    }
    entered
}

/// The value of the line `key = value` where it is a word that should have been quoted.
fn bare_value(source: &str, line: &Range<usize>) -> Option<Range<usize>> {
    let text = source.get(line.clone())?;
    let equals = text.find('=')?;
    let value = text.get(equals + 1..)?;
    let value = value.split('#').next()?;
    let start = line.start + equals + 1 + (value.len() - value.trim_start().len());
    let word = value.trim();
    let quoted = word.starts_with(['"', '\'', '[', '{']);
    (!word.is_empty() && !quoted).then(|| start..start + word.len())
}

/// A copy of the text that may be shown: what is or might be a secret is overwritten, byte for byte, with `*`.
pub(super) fn masked(text: &str, root: &DeTable<'_>, broken: bool) -> String {
    let mut bytes = text.as_bytes().to_vec();
    mask_table(root, "", &mut bytes);
    if broken {
        // What TOML could not read is masked by its looks.
        for range in suspicious(text) {
            mask(&mut bytes, range);
        }
    }
    // A mask covers whole characters; should that ever fail, nothing is shown.
    String::from_utf8(bytes).unwrap_or_default()
}

fn mask(bytes: &mut [u8], range: Range<usize>) {
    let end = range.end.min(bytes.len());
    for byte in bytes.get_mut(range.start.min(end)..end).unwrap_or_default() {
        if *byte != b'\n' && *byte != b'\r' {
            *byte = b'*';
        }
    }
}

/// `path` says what the table is: `auth`; `secret`, where everything is one but the place of a key; `manual`, where
/// everything is one but what is known not to be; or neither.
fn mask_table(table: &DeTable<'_>, path: &str, bytes: &mut [u8]) {
    for (key, value) in table {
        let name = key.get_ref().to_lowercase();
        let names_place = name == "file" || name == "credential";
        // Names of files with certificates, and words.
        let public = [
            "allow-sha1",
            "ca",
            "cert",
            "crl",
            "eap-identity",
            "eap-methods",
            "extended-key-usage",
            "local",
            "peer",
            "public-key",
        ];
        let secret = match path {
            "auth" => !public.contains(&name.as_str()),
            "secret" => true,
            "manual" => !is_open(&name),
            _ => looks_secret(&name),
        };
        match value.get_ref() {
            DeValue::Table(inner) => {
                let path = match (name.as_str(), path) {
                    ("auth", _) => "auth",
                    ("ah", "manual") | ("manual", _) => "manual",
                    _ if secret => "secret",
                    _ => "",
                };
                mask_table(inner, path, bytes);
            }
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                for item in items {
                    match item.get_ref().as_table() {
                        Some(inner) if ["child", "policy"].contains(&&*name) && path.is_empty() => {
                            mask_table(inner, "", bytes);
                        }
                        // No other list of tables is known, so that this may be meant to be one.
                        Some(inner) => mask_table(inner, "manual", bytes),
                        None => mask(bytes, inside_quotes(item.span(), bytes)),
                    }
                }
            }
            DeValue::Array(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Float(_)
            | DeValue::Integer(_)
            | DeValue::String(_) => {
                if secret && !(path == "secret" && names_place) {
                    mask(bytes, inside_quotes(value.span(), bytes));
                }
            }
        }
    }
}

/// Whether a key of `[[manual]]`, or of its `ah`, has a value that may be shown.
fn is_open(name: &str) -> bool {
    let mut here = KEYS.iter().filter(|key| key.section == "manual");
    here.any(|key| key.name.trim_start_matches("ah.") == name && !names_key(name))
}

/// Whether `key` is one of the words of a name.
fn names_key(name: &str) -> bool {
    name.split(['-', '_', '.']).any(|word| word == "key")
}

/// The span of a string without its quotes, so that they stay visible.
fn inside_quotes(span: Range<usize>, bytes: &[u8]) -> Range<usize> {
    match bytes.get(span.clone()) {
        Some([b'"' | b'\'', .., b'"' | b'\'']) => span.start + 1..span.end - 1,
        Some(_) | None => span,
    }
}

fn looks_secret(name: &str) -> bool {
    if ["psk", "secret", "passw"].iter().any(|word| name.contains(word)) || names_key(name) {
        return true;
    }
    ["psk", "secret", "password", "key", "passphrase"]
        .iter()
        .any(|word| name.len() <= 16 && strsim::damerau_levenshtein(name, word) <= 1)
}

/// What follows the `=` in lines of `[auth]`, in lines that speak of a key, and in those of lists of tables that are
/// not known to speak of something else.
fn suspicious(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut in_auth = false;
    let mut in_list = false;
    let mut until: Option<&str> = None;
    for line in text.split_inclusive('\n') {
        let (here, trimmed) = (start, line.trim_start());
        start += line.len();
        if let Some(quotes) = until {
            found.push(here..start);
            if line.contains(quotes) {
                until = None;
            }
            continue;
        }
        if trimmed.starts_with('[') {
            in_auth = trimmed.to_lowercase().contains("auth");
            in_list = trimmed.starts_with("[[") || trimmed.to_lowercase().contains("manual");
        }
        let lower = line.to_lowercase();
        let speaks = ["psk", "secret", "passw", "key-", "-key", "key ", "key="]
            .iter()
            .any(|word| lower.contains(word))
            && !lower.trim_start().starts_with("rekey-");
        let name = lower.split('=').next().unwrap_or_default().trim();
        let hidden = in_list && (!is_open(name) || name == "ah");
        if !in_auth && !speaks && !hidden {
            continue;
        }
        let Some(equals) = line.find('=') else {
            // A line without `=` may be one that lost it, or inside [auth] the rest of a value.
            if !trimmed.starts_with(['[', '#']) {
                found.push(here..start);
            }
            continue;
        };
        let value = &line[equals + 1..];
        found.push(start - value.trim_start().len()..start);
        until = ["\"\"\"", "'''"].into_iter().find(|quotes| value.matches(quotes).count() % 2 == 1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask_of(text: &str) -> String {
        let (root, errors) = toml(text);
        masked(text, root.get_ref(), !errors.is_empty())
    }

    #[test]
    fn a_psk_is_masked_in_every_form_it_may_take() {
        for text in [
            "[auth]\npsk = \"hunter2\"\n",
            "auth.psk = \"hunter2\"\n",
            "auth = { psk = \"hunter2\" }\n",
            "[peer]\npsk = 'hunter2'\n",
            "[auth]\npks = \"hunter2\"\n",
            "[auth]\npsk = hunter2\n",
            "[auth]\npsk = \"\"\"\nhunter2\n",
            "[auth]\npsk = \"hunter2\n",
            "[auth]\npsk = { text = \"hunter2\" }\n",
            "[auth]\npsk = [\"hunter2\"]\n",
            "[peer]\npsk = \"\"\"\nhunter2\n\"\"\" x\n",
            "psk \"hunter2\"\n[auth\npsk= hunter2",
            "[[manual]]\nkey-in = \"hunter2\"\n",
            "[[manual]]\nauth-key-out = 'hunter2'\n",
            "[[manual]]\nkye-in = \"hunter2\"\n",
            "[[manul]]\nkeyin = \"hunter2\"\n",
            "[manual]\nkey-in = \"hunter2\"\n",
            "key-in = \"hunter2\"\n",
            "[[manual]]\nah = { auth-key-in = \"hunter2\" }\n",
            "[[manual]]\nah = { akey = \"hunter2\", proposal = \"sha256\" }\n",
            "manual = [{ key-in = \"hunter2\" }]\n",
            "manual = [\"hunter2\", {}]\n",
            "[[manual]]\nkey-in = hunter2\n",
            "[[manual]]\nkey-in = \"hunter2\n",
            "[[manual\nkyein = hunter2\n",
            "[[manual]]\nah = { auth-key-in = hunter2\n",
            "[[manual]]\nkey-in = { text = \"hunter2\" }\n",
        ] {
            let shown = mask_of(text);
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(shown.len(), text.len());
        }
    }

    #[test]
    fn what_is_no_secret_stays_readable() {
        for text in [
            "[local]\nid = \"a\"\n[auth]\npsk = { file = \"b.psk\" }\n",
            "[ike]\nrekey-time = \"4h\"\n",
            "[[manual]]\nname = \"a\"\nspi-in = \"0x1001\"\nkey-in = { file = \"b.key\" }\n",
            "[[manual]]\nah = { proposal = \"sha256\", auth-key-in = { credential = \"x\" } }\n",
        ] {
            assert_eq!(mask_of(text), text);
        }
        assert_eq!(mask_of("auth = { psk = { file = 'b' } }"), "auth = { psk = { file = 'b' } }");
    }
}
