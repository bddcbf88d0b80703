//! Vector files: what `vectors/README.md` says of their form.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// A parsed file.
#[derive(Clone, Debug)]
pub(crate) struct VectorFile {
    /// Which runner it is for.
    pub(crate) kind: String,
    /// Its cases, in order.
    pub(crate) cases: Vec<Case>,
}

/// One case: named fields.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    fields: BTreeMap<String, String>,
    read: RefCell<BTreeSet<String>>,
}

impl VectorFile {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut kind = None;
        let mut cases: Vec<Case> = Vec::new();
        let mut last: Option<String> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let fail = |what: &str| Err(format!("line {number}: {what}"));
            if line.trim().is_empty() || line.starts_with('#') {
                last = None;
            } else if line.starts_with(' ') {
                let value = cases
                    .last_mut()
                    .zip(last.as_ref())
                    .and_then(|(case, field)| case.fields.get_mut(field));
                let Some(value) = value else { return fail("continues nothing") };
                value.push_str(line.trim());
            } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                if cases.iter().any(|case| case.name == name) {
                    return fail("two cases of this name");
                }
                cases.push(Case::new(name));
                last = None;
            } else {
                let Some((field, value)) = line.split_once('=') else {
                    return fail("neither `[case]` nor `name = value`");
                };
                let (field, value) = (field.trim(), value.trim());
                match cases.last_mut() {
                    Some(case) => {
                        if case.fields.insert(field.to_owned(), value.to_owned()).is_some() {
                            return fail("field stands twice");
                        }
                        last = Some(field.to_owned());
                    }
                    None if field == "kind" && kind.is_none() => kind = Some(value.to_owned()),
                    None => return fail("only one `kind = ..` may stand before the first case"),
                }
            }
        }
        let kind = kind.ok_or("no `kind = ..` line")?;
        if cases.is_empty() {
            return Err("no case".to_owned());
        }
        Ok(Self { kind, cases })
    }
}

impl Case {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), fields: BTreeMap::new(), read: RefCell::default() }
    }

    /// A field that need not be there.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        self.read.borrow_mut().insert(field.to_owned());
        self.fields.get(field).map(String::as_str)
    }

    pub(crate) fn text(&self, field: &str) -> Result<&str, String> {
        self.get(field).ok_or_else(|| format!("no field `{field}`"))
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, field: &str) -> Result<T, String> {
        let text = self.text(field)?;
        text.parse().map_err(|_| format!("`{field}`: {text} is not a number that fits"))
    }

    pub(crate) fn hex(&self, field: &str) -> Result<Vec<u8>, String> {
        unhex(self.text(field)?).map_err(|error| format!("`{field}`: {error}"))
    }

    /// The bytes of a field; none where the field is missing.
    pub(crate) fn hex_or_none(&self, field: &str) -> Result<Option<Vec<u8>>, String> {
        self.get(field).is_some().then(|| self.hex(field)).transpose()
    }

    pub(crate) fn array<const N: usize>(&self, field: &str) -> Result<[u8; N], String> {
        let bytes = self.hex(field)?;
        let len = bytes.len();
        bytes.try_into().map_err(|_| format!("`{field}`: {len} bytes where {N} are needed"))
    }

    /// A field that nobody asked for: a misspelt one, or one whose check was forgotten.
    pub(crate) fn unread(&self) -> Option<&str> {
        let read = self.read.borrow();
        self.fields.keys().map(String::as_str).find(|field| !read.contains(*field))
    }

    /// Names of the fields that hold at least a byte, in hex.
    pub(crate) fn hex_fields(&self) -> Vec<String> {
        let is_hex = |text: &String| unhex(text).is_ok_and(|bytes| !bytes.is_empty());
        let fields = self.fields.iter().filter(|(_, text)| is_hex(text));
        fields.map(|(field, _)| field.clone()).collect()
    }

    /// The case with one bit of `field` changed, in its middle byte.
    pub(crate) fn with_bit_changed(&self, field: &str) -> Self {
        let mut bytes = self.hex(field).expect("a field in hex");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let mut changed = self.clone();
        changed.fields.insert(field.to_owned(), hex(&bytes));
        changed
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, String> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("not hexadecimal".to_owned());
    }
    let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16);
    (0..text.len()).step_by(2).map(|i| byte(i).map_err(|error| error.to_string())).collect()
}
