//! A row of a Wireshark table file: fields with commas between them; text in quotes, where `\xNN` is a byte.

/// A field, and at which character of the row it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) text: String,
    pub(super) at: usize,
}

/// The fields of a row.
pub(super) fn fields(row: &str) -> Result<Vec<Field>, (usize, String)> {
    let mut fields = Vec::new();
    let mut rest = row;
    loop {
        let trimmed = rest.trim_start();
        let at = row.len() - trimmed.len();
        let (text, after) = match trimmed.strip_prefix('"') {
            Some(quoted) => unquote(quoted).map_err(|(column, why)| (at + 1 + column, why))?,
            None => {
                let end = trimmed.find(',').unwrap_or(trimmed.len());
                (trimmed[..end].trim_end().to_owned(), &trimmed[end..])
            }
        };
        fields.push(Field { text, at });
        let after = after.trim_start();
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err((row.len() - after.len(), "a comma belongs here".to_owned())),
        }
    }
}

/// The text up to the closing quote, and what follows that.
fn unquote(quoted: &str) -> Result<(String, &str), (usize, String)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((text, &quoted[at + 1..])),
            '\\' => {
                let digits = quoted.get(at + 2..at + 4).filter(|_| quoted[at..].starts_with("\\x"));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let Some(byte) = byte else {
                    return Err((at, "a backslash begins \\xNN".to_owned()));
                };
                text.push(char::from(byte));
                chars.nth(2);
            }
            c => text.push(c),
        }
    }
    Err((quoted.len(), "the closing quote is missing".to_owned()))
}

/// A quoted field.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            ' '..='~' if c != '"' && c != '\\' => out.push(c),
            c => {
                let byte = u8::try_from(c).unwrap_or(b'?');
                out.push_str("\\x");
                out.push_str(&super::hex(&[byte]));
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(row: &str) -> Vec<(String, usize)> {
        fields(row).unwrap().into_iter().map(|field| (field.text, field.at)).collect()
    }

    #[test]
    fn fields_are_quoted_or_not_and_may_be_empty() {
        let read = texts(r#""a, b" ,c, "" ,,"\x22\x5c""#);
        let want = [("a, b", 0), ("c", 8), ("", 11), ("", 15), ("\"\\", 16)];
        assert_eq!(read, want.map(|(text, at)| (text.to_owned(), at)));
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        let text: String = (0..=255).map(char::from).collect();
        assert_eq!(texts(&quote(&text)), [(text, 0)]);
    }

    #[test]
    fn errors_have_their_place() {
        assert_eq!(fields(r#""ab"#).unwrap_err().0, 3);
        assert_eq!(fields(r#""a"b"#).unwrap_err().0, 3);
        assert_eq!(fields(r#""\x4""#).unwrap_err().0, 1);
        assert_eq!(fields(r#""\é""#).unwrap_err().0, 1);
    }
}
