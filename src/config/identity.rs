//! Identities as written (RFC 7296 §3.5), read as strongSwan reads them.
//!
//! | written | type |
//! | --- | --- |
//! | `192.0.2.1`, `2001:db8::1` | ID_IPV4_ADDR, ID_IPV6_ADDR |
//! | `a.example.net`, `@anything` | ID_FQDN |
//! | `admin@example.net`, `@@anything` | ID_RFC822_ADDR |
//! | `C=DE, O=Example, CN=a` | ID_DER_ASN1_DN |
//! | `@#0a0b0c`, `keyid:text` | ID_KEY_ID |
//! | `fqdn:`, `dns:`, `email:`, `rfc822:`, `userfqdn:`, `ipv4:`, `ipv6:`, `asn1dn:` and a text | as they say |

use core::net::IpAddr;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::Any;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

use super::value::{self, Wrong};
use crate::ipsec::pad::Identity;

/// The longest identity. RFC 7296 sets no limit; names have 253, and IKE_AUTH should fit a packet.
const MAX_LEN: usize = 1024;

/// Reads an identity.
pub(super) fn parse(text: &str) -> Result<Identity, Wrong> {
    let text = text.trim();
    let shown = text.escape_debug();
    let wrong = |help: &str| Wrong::new(format!("`{shown}` is not an identity"), help);
    if text.is_empty() {
        return Err(wrong("a name, an address, an email address or a distinguished name"));
    }
    if text.len() > MAX_LEN {
        return Err(Wrong::new("an identity this long", "at most 1024 characters"));
    }
    if let Some(digits) = text.strip_prefix("@#").or_else(|| text.strip_prefix("keyid:#")) {
        let bytes =
            value::hex(digits).ok_or_else(|| wrong("after # come hex digits, two a byte"))?;
        return Ok(Identity::KeyId(bytes));
    }
    if let Some(key) = text.strip_prefix("keyid:") {
        if key.is_empty() {
            return Err(wrong("after keyid: comes the key's name, or # and hex digits"));
        }
        return Ok(Identity::KeyId(key.as_bytes().to_vec()));
    }
    if let Some((kind, rest)) = text.split_once(':')
        && let Some(identity) = of_kind(kind, rest)
    {
        return identity.ok_or_else(|| wrong(&format!("what comes after {kind}: is none")));
    }
    if let Some(email) = text.strip_prefix("@@") {
        return printable(email)
            .map(Identity::Email)
            .ok_or_else(|| wrong("printable ASCII after @@"));
    }
    if let Some(name) = text.strip_prefix('@') {
        return printable(name).map(Identity::Fqdn).ok_or_else(|| wrong("printable ASCII after @"));
    }
    if text.contains('=') {
        return distinguished_name(text);
    }
    match text.parse() {
        Ok(IpAddr::V4(address)) => return Ok(Identity::Ipv4(address)),
        Ok(IpAddr::V6(address)) => return Ok(Identity::Ipv6(address)),
        Err(_) => {}
    }
    if let Some((user, domain)) = text.split_once('@') {
        let whole = !user.is_empty() && !domain.is_empty() && !domain.contains('@');
        let email = printable(text).filter(|_| whole && !text.contains(' '));
        return email
            .map(Identity::Email)
            .ok_or_else(|| wrong("an email address: \"user@example.net\""));
    }
    if value::looks_like_address(text) {
        return Err(value::address_error(text));
    }
    if text == "any" || text == "%any" {
        return Err(wrong(
            "who we are cannot be left open: name this side, such as \"a.example.net\"",
        ));
    }
    match value::host_name(text) {
        // As written: a final dot would be part of the identity.
        Ok(_) if !text.ends_with('.') => Ok(Identity::Fqdn(text.to_owned())),
        Ok(name) => Err(wrong(&format!("without the final dot: \"{name}\""))),
        Err(Wrong { help, .. }) => {
            Err(wrong(&format!("{help}; for another name write @ before it")))
        }
    }
}

/// An identity as `parse` reads it; those that have no written form as in a log.
#[must_use]
pub fn render(identity: &Identity) -> String {
    let plain = match identity {
        Identity::Fqdn(name) | Identity::Email(name) => name.clone(),
        Identity::Dn(der) => render_dn(der).unwrap_or_else(|| identity.to_string()),
        Identity::KeyId(bytes) => {
            format!("@#{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
        }
        Identity::Ipv4(_) | Identity::Ipv6(_) | Identity::Other { .. } => identity.to_string(),
    };
    match identity {
        Identity::Fqdn(name) if parse(&plain).as_ref() != Ok(identity) => format!("@{name}"),
        Identity::Email(name) if parse(&plain).as_ref() != Ok(identity) => format!("@@{name}"),
        Identity::Dn(_)
        | Identity::Email(_)
        | Identity::Fqdn(_)
        | Identity::Ipv4(_)
        | Identity::Ipv6(_)
        | Identity::KeyId(_)
        | Identity::Other { .. } => plain,
    }
}

/// What stands after one of the words by which strongSwan is told the type; `None` for another word.
fn of_kind(kind: &str, rest: &str) -> Option<Option<Identity>> {
    Some(match kind {
        "asn1dn" => distinguished_name(rest).ok(),
        "dns" | "fqdn" => printable(rest).map(Identity::Fqdn),
        "email" | "rfc822" | "userfqdn" => printable(rest).map(Identity::Email),
        "ipv4" => rest.parse().ok().map(Identity::Ipv4),
        "ipv6" => rest.parse().ok().map(Identity::Ipv6),
        _ => return None,
    })
}

fn printable(text: &str) -> Option<String> {
    let fine = !text.is_empty() && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    fine.then(|| text.to_owned())
}

/// `C=DE, O=Example, CN=a`: in the order of the DER, which is strongSwan's and not RFC 4514's.
fn distinguished_name(text: &str) -> Result<Identity, Wrong> {
    let shown = text.escape_debug();
    let wrong = |part: &str| {
        Wrong::new(
            format!("`{shown}` is not a distinguished name"),
            format!(
                "`{}`: parts are C=, ST=, L=, O=, OU=, CN=, DC=, UID=, E= and a value, with commas between",
                part.escape_debug()
            ),
        )
    };
    let mut rdns = Vec::new();
    for part in split(text) {
        let mut values = Vec::new();
        for part in split_at(part, '+') {
            values.push(attribute(part).ok_or_else(|| wrong(part))?);
        }
        let rdn = RelativeDistinguishedName::try_from(values).map_err(|_| wrong(part))?;
        rdns.push(rdn);
    }
    let der = RdnSequence::from(rdns).to_der().map_err(|_| wrong(text))?;
    Ok(Identity::Dn(der))
}

/// The parts between commas (or, where it begins with one, slashes) that no backslash precedes.
fn split(text: &str) -> Vec<&str> {
    match text.strip_prefix('/') {
        Some(rest) => split_at(rest, '/'),
        None => split_at(text, ','),
    }
}

fn split_at(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        if c == separator && !escaped {
            parts.push(text[start..i].trim());
            start = i + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    // A final backslash-space is a value's own.
    parts.push(text[start..].trim_start());
    parts
}

fn attribute(part: &str) -> Option<AttributeTypeAndValue> {
    let (name, value) = part.split_once('=')?;
    let name = name.trim();
    let name = if name.eq_ignore_ascii_case("e") || name.eq_ignore_ascii_case("email") {
        "emailAddress"
    } else {
        name
    };
    let value = value.trim_start();
    if name.is_empty() || value.is_empty() {
        return None;
    }
    let parsed: AttributeTypeAndValue = format!("{name}={value}").parse().ok()?;
    Some(retag(parsed))
}

/// strongSwan writes a PrintableString wherever the characters allow it, and compares the type of a string too.
fn retag(attribute: AttributeTypeAndValue) -> AttributeTypeAndValue {
    let fits = |bytes: &[u8]| {
        bytes.iter().all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(b))
    };
    if attribute.value.tag() != Tag::Utf8String || !fits(attribute.value.value()) {
        return attribute;
    }
    match Any::new(Tag::PrintableString, attribute.value.value()) {
        Ok(value) => AttributeTypeAndValue { oid: attribute.oid, value },
        Err(_) => attribute,
    }
}

fn render_dn(der: &[u8]) -> Option<String> {
    let rdns: Vec<RelativeDistinguishedName> = RdnSequence::from_der(der).ok()?.into();
    let parts: Vec<String> = rdns.iter().map(ToString::to_string).collect();
    Some(parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_type_and_renders_as_written() {
        for (text, identity) in [
            ("192.0.2.1", Identity::Ipv4([192, 0, 2, 1].into())),
            ("2001:db8::1", Identity::Ipv6("2001:db8::1".parse().unwrap())),
            ("a.example.net", Identity::Fqdn("a.example.net".into())),
            ("@192.0.2.1", Identity::Fqdn("192.0.2.1".into())),
            ("admin@example.net", Identity::Email("admin@example.net".into())),
            ("@@admin", Identity::Email("admin".into())),
            ("@#0a0b", Identity::KeyId(vec![10, 11])),
        ] {
            assert_eq!(parse(text), Ok(identity.clone()), "{text}");
            assert_eq!(render(&identity), text);
        }
        assert_eq!(parse("keyid:gw"), Ok(Identity::KeyId(b"gw".to_vec())));
        assert_eq!(parse("keyid:#ff"), Ok(Identity::KeyId(vec![255])));
        assert_eq!(parse("@a b"), Ok(Identity::Fqdn("a b".into())));
    }

    #[test]
    fn type_that_is_said_is_the_type() {
        for (said, plain) in [
            ("fqdn:a.example.net", "a.example.net"),
            ("dns:192.0.2.1", "@192.0.2.1"),
            ("email:admin", "@@admin"),
            ("rfc822:admin@example.net", "admin@example.net"),
            ("userfqdn:admin@example.net", "admin@example.net"),
            ("ipv4:192.0.2.1", "192.0.2.1"),
            ("ipv6:2001:db8::1", "2001:db8::1"),
            ("asn1dn:C=DE, CN=a", "C=DE, CN=a"),
        ] {
            assert_eq!(parse(said), parse(plain), "{said}");
            assert!(parse(said).is_ok(), "{said}");
        }
        for wrong in ["ipv4:2001:db8::1", "ipv6:192.0.2.1", "fqdn:", "asn1dn:a", "no:a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_distinguished_name_is_encoded_in_the_order_written() {
        // SEQUENCE of SETs: C=DE, O=Example (both PrintableString), CN=a_b (UTF8String: _ is not printable in ASN.1).
        let der = value::hex(concat!(
            "302d",
            "310b3009060355040613024445",
            "3110300e060355040a1307",
            "4578616d706c65",
            "310c300a06035504030c03615f62",
        ));
        let parsed = parse("C=DE, O=Example, CN=a_b").unwrap();
        assert_eq!(parsed, Identity::Dn(der.unwrap()));
        assert_eq!(parse("/C=DE/O=Example/CN=a_b"), Ok(parsed.clone()));
        assert_eq!(render(&parsed), "C=DE, O=Example, CN=a_b");
        assert_eq!(parse(&render(&parsed)), Ok(parsed));
    }

    #[test]
    fn escapes_and_email_in_a_distinguished_name_survive() {
        for text in [r"O=Example\, Inc, CN=a", "C=DE, E=admin@example.net", "OU=a+CN=b", r"CN=x\ "]
        {
            let parsed = parse(text).unwrap();
            assert_eq!(parse(&render(&parsed)).as_ref(), Ok(&parsed), "{text}");
        }
    }

    #[test]
    fn what_is_none_of_these_is_refused() {
        for bad in [
            "",
            "10.1.0.256",
            "fe80::x",
            "a b",
            "@",
            "@@",
            "@#",
            "@#abc",
            "keyid:",
            "any",
            "a@",
            "CN=",
            "XYZ=a",
            "=a",
            "CN=a,,O=b",
            "a.example.net.",
            "bücher.example",
        ] {
            let result = parse(bad);
            assert!(result.is_err(), "{bad} {result:?}");
        }
    }
}
