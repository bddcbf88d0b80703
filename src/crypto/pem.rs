//! PEM (RFC 7468): the blocks of a file, whatever stands around them.

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use super::Secret;

/// One block: `-----BEGIN label-----` to `-----END label-----`.
#[derive(Debug)]
pub struct Block {
    /// Its label, such as `CERTIFICATE`.
    pub label: String,
    /// What the base64 in it stands for; `None` if it is not base64. It may be a private key.
    pub der: Option<Secret>,
    /// Whether headers stand before the base64 (RFC 1421 §4.6), as in keys that old OpenSSL has encrypted.
    pub has_headers: bool,
}

/// The blocks of a file, in their order. Lines may have any length, and end as in Unix or in Windows. A block without an end is
/// none.
pub fn blocks(text: &[u8]) -> impl Iterator<Item = Block> + '_ {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    core::iter::from_fn(move || {
        let label = lines.by_ref().find_map(|line| marker(line, b"-----BEGIN "))?;
        let mut body = Zeroizing::new(Vec::with_capacity(text.len()));
        let mut has_headers = false;
        for line in lines.by_ref() {
            if marker(line, b"-----END ").is_some_and(|end| end == label) {
                // Into a buffer that does not grow, so that no copy of a key is left behind.
                let mut der = Zeroizing::new(vec![0; body.len() / 4 * 3]);
                let len = core::str::from_utf8(&body)
                    .ok()
                    .and_then(|body| Base64::decode(body, &mut der).ok())
                    .map(<[u8]>::len);
                let der = len.map(|len| {
                    let mut der = core::mem::take(&mut *der);
                    der.truncate(len);
                    Secret::new(der)
                });
                return Some(Block { label, der, has_headers });
            }
            if line.contains(&b':') {
                has_headers = true;
            } else {
                body.extend_from_slice(line);
            }
        }
        None
    })
}

/// A block with this label, in lines of 64 letters.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(Base64::encode_string(der));
    // Room for all of it at once: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(base64.len() * 2 + 2 * label.len() + 40));
    text.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.extend([line, "\n"]);
        rest = after;
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

fn marker(line: &[u8], begin: &[u8]) -> Option<String> {
    let label = line.strip_prefix(begin)?.strip_suffix(b"-----")?;
    core::str::from_utf8(label).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let text = b"Bag Attributes\r\n-----BEGIN A-----\r\nAQID\r\nBAUG\r\n-----END A-----\r\nx\n\
            -----BEGIN B-----\nProc-Type: 4,ENCRYPTED\n\nAQ==\n-----END B-----";
        let found: Vec<_> = blocks(text).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].label, "A");
        assert_eq!(found[0].der.as_ref().unwrap().expose(), [1, 2, 3, 4, 5, 6]);
        assert!(!found[0].has_headers);
        assert!(found[1].has_headers);
        assert_eq!(found[1].der.as_ref().unwrap().expose(), [1]);
    }

    #[test]
    fn what_is_encoded_is_read_again() {
        for len in [1, 47, 48, 49, 200] {
            let der = vec![7; len];
            let text = encode("A", &der);
            assert!(text.lines().all(|line| line.len() <= 64));
            let block = blocks(text.as_bytes()).next().unwrap();
            assert_eq!((block.label.as_str(), block.der.unwrap().expose()), ("A", &der[..]));
        }
    }

    #[test]
    fn what_has_no_end_or_no_base64_is_none() {
        assert_eq!(blocks(b"-----BEGIN A-----\nAQID\n").count(), 0);
        assert_eq!(blocks(b"-----BEGIN A-----\nAQID\n-----END B-----\n").count(), 0);
        let broken: Vec<_> = blocks(b"-----BEGIN A-----\n??\n-----END A-----\n").collect();
        assert!(broken[0].der.is_none());
    }
}
