//! Single values: durations, amounts, host names, addresses. Each says what is wrong and what would be right.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

/// No duration is longer, so that adding one to a point in time cannot overflow.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Completes "…: ".
    pub(super) message: String,
    /// What would be right.
    pub(super) help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// `30s`, `4h`, `1h 30m`; from `least` to a year.
pub(super) fn duration(text: &str, least: Duration) -> Result<Duration, Wrong> {
    let shown = text.escape_debug();
    let text = text.trim();
    let parsed = humantime::parse_duration(text).map_err(|_| {
        let help = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            format!("a unit is missing: \"{text}s\" for seconds")
        } else {
            "a number with a unit: \"90s\", \"5m\", \"4h\", \"1h 30m\", \"2days\"".to_owned()
        };
        Wrong::new(format!("`{shown}` is not a duration"), help)
    })?;
    if parsed < least || parsed > MAX_DURATION {
        let least = humantime::format_duration(least);
        let help = format!("from \"{least}\" to \"366days\"");
        return Err(Wrong::new(format!("`{shown}` is out of range"), help));
    }
    Ok(parsed)
}

/// Whether a word stands for no limit, no timer.
pub(super) fn is_off(text: &str) -> bool {
    matches!(text.trim(), "off" | "0" | "0s" | "never" | "none")
}

/// `10G`, `500M`, `4GiB`, `1000000`: a number above zero.
pub(super) fn amount(text: &str) -> Result<u64, Wrong> {
    const HELP: &str = "a number above zero, with K, M, G or T for thousands and so on, KiB, MiB, GiB or TiB for 1024: \"10G\"";
    let shown = text.escape_debug();
    let digits = text.trim();
    let split = digits.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(digits.len());
    let (number, unit) = digits.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().trim_end_matches("bytes") {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(Wrong::new(format!("`{shown}` is not an amount"), HELP)),
    };
    let number: Option<u64> = number.replace('_', "").parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .filter(|amount| *amount > 0)
        .ok_or_else(|| Wrong::new(format!("`{shown}` is not an amount"), HELP))
}

/// An address that a host can have.
pub(super) fn host_address(text: &str) -> Result<IpAddr, Wrong> {
    let shown = text.escape_debug();
    let parsed: IpAddr = text.trim().parse().map_err(|_| address_error(text))?;
    let unusable = match parsed {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    };
    if let Some(v4) = as_mapped(parsed) {
        return Err(Wrong::new(
            format!("`{shown}` is an IPv4 address in the form of IPv6"),
            format!("\"{v4}\""),
        ));
    }
    if unusable {
        let help = "an address of one host, such as \"192.0.2.1\" or \"2001:db8::1\"";
        return Err(Wrong::new(format!("`{shown}` is not the address of a host"), help));
    }
    Ok(parsed)
}

/// The IPv4 address that an IPv6 address of this form stands for (RFC 4291 §2.5.5.2): in no packet.
pub(super) const fn as_mapped(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

/// Why a text that should have been an address is none.
pub(super) fn address_error(text: &str) -> Wrong {
    let shown = text.escape_debug();
    let message = format!("`{shown}` is not an address");
    let trimmed = text.trim();
    if let Some((_scheme, rest)) = trimmed.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        return Wrong::new(message, format!("the host alone, not a URL: \"{host}\""));
    }
    if trimmed.contains('/') {
        let host = trimmed.split('/').next().unwrap_or_default();
        return Wrong::new(message, format!("an address has no prefix length: \"{host}\""));
    }
    if trimmed.starts_with('[') && trimmed.contains(']') {
        let inner = trimmed.trim_start_matches('[').split(']').next().unwrap_or_default();
        return Wrong::new(message, format!("without brackets and port: \"{inner}\""));
    }
    if trimmed.matches(':').count() == 1 && trimmed.contains('.') {
        let host = trimmed.split(':').next().unwrap_or_default();
        return Wrong::new(message, format!("without a port, IKE's are fixed: \"{host}\""));
    }
    if trimmed.contains('%') {
        return Wrong::new(message, "addresses with a scope (%) cannot be used: take a global one");
    }
    if trimmed.contains(':') {
        return Wrong::new(
            message,
            "an IPv6 address is up to eight groups of hex digits, :: once for zeros: \"2001:db8::1\"",
        );
    }
    let parts: Vec<&str> = trimmed.split('.').collect();
    let numeric = parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()));
    if numeric && let Some(big) = parts.iter().find(|p| p.parse::<u16>().is_ok_and(|n| n > 255)) {
        return Wrong::new(message, format!("{big} is above 255"));
    }
    if numeric && let Some(octal) = parts.iter().find(|p| p.len() > 1 && p.starts_with('0')) {
        let octal = (*octal).to_owned();
        return Wrong::new(message, format!("write {octal} without leading zeros"));
    }
    if numeric && parts.len() != 4 {
        let n = if trimmed.is_empty() { 0 } else { parts.len() };
        return Wrong::new(message, format!("an IPv4 address has four numbers, not {n}"));
    }
    Wrong::new(message, "for example \"192.0.2.1\" or \"2001:db8::1\"")
}

/// Whether a text was meant to be an address, and so is no name (RFC 1123 §2.1: a name does not end in digits alone).
pub(super) fn looks_like_address(text: &str) -> bool {
    text.contains([':', '/'])
        || text
            .rsplit('.')
            .next()
            .is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
}

/// A name that a resolver can be asked for (RFC 1123 §2.1), without the final dot.
pub(super) fn host_name(text: &str) -> Result<String, Wrong> {
    let shown = text.escape_debug();
    let name = text.strip_suffix('.').unwrap_or(text);
    let wrong = |help: String| Wrong::new(format!("`{shown}` is not a host name"), help);
    if name.is_empty() {
        return Err(wrong("a name such as \"b.example.net\", an address, or \"any\"".to_owned()));
    }
    if name.len() > 253 {
        return Err(wrong("a name has at most 253 characters".to_owned()));
    }
    if !name.is_ascii() {
        return Err(wrong("write it as the name system does, with xn--…".to_owned()));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(wrong("two dots have nothing between them".to_owned()));
        }
        if label.len() > 63 {
            return Err(wrong("a part between dots has at most 63 characters".to_owned()));
        }
        if let Some(bad) =
            label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_')
        {
            let bad = bad.escape_debug();
            return Err(wrong(format!("`{bad}` cannot stand in a name: letters, digits, - and .")));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(wrong("a part between dots neither begins nor ends with -".to_owned()));
        }
    }
    Ok(name.to_owned())
}

/// The lowest and highest address.
pub(super) const fn everything(v6: bool) -> (IpAddr, IpAddr) {
    if v6 {
        (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)))
    } else {
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST))
    }
}

/// Lower-case hex or either case, two digits a byte.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    // Room for all of it at once: it may be a key, and a buffer that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(text.len() / 2);
    for i in (0..text.len()).step_by(2) {
        let pair = text.get(i..i + 2)?;
        // `from_str_radix` would take a sign.
        if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(pair, 16).ok()?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help<T: core::fmt::Debug>(result: Result<T, Wrong>) -> String {
        result.unwrap_err().help
    }

    #[test]
    fn durations_need_a_unit_and_a_sane_size() {
        let s = Duration::from_secs;
        assert_eq!(duration("4h", s(1)), Ok(s(14400)));
        assert_eq!(duration("1h 30m", s(1)), Ok(s(5400)));
        assert_eq!(help(duration("3600", s(1))), "a unit is missing: \"3600s\" for seconds");
        assert_eq!(help(duration("10ms", s(1))), "from \"1s\" to \"366days\"");
        assert!(duration("99999999999999h", s(1)).is_err());
        assert!(duration("400days", s(1)).is_err());
        assert!(duration("", s(1)).is_err());
    }

    #[test]
    fn amounts_have_decimal_and_binary_units() {
        assert_eq!(amount("10G"), Ok(10_000_000_000));
        assert_eq!(amount("4 GiB"), Ok(4 << 30));
        assert_eq!(amount("1_000"), Ok(1000));
        assert!(amount("0").is_err());
        assert!(amount("-1").is_err());
        assert!(amount("99999999T").is_err());
        assert!(amount("10 apples").is_err());
    }

    #[test]
    fn a_bad_address_is_told_why() {
        assert_eq!(help(host_address("10.1.0.256")), "256 is above 255");
        assert_eq!(help(host_address("10.1.0")), "an IPv4 address has four numbers, not 3");
        assert_eq!(
            help(host_address("10.1.0.1/24")),
            "an address has no prefix length: \"10.1.0.1\""
        );
        assert_eq!(
            help(host_address("10.1.0.1:500")),
            "without a port, IKE's are fixed: \"10.1.0.1\""
        );
        assert_eq!(
            help(host_address("[2001:db8::1]:500")),
            "without brackets and port: \"2001:db8::1\""
        );
        assert_eq!(help(host_address("10.01.0.1")), "write 01 without leading zeros");
        assert!(host_address("0.0.0.0").is_err());
        assert!(host_address("ff02::1").is_err());
        assert_eq!(help(host_address("::ffff:10.0.0.1")), "\"10.0.0.1\"");
        assert!(host_address("2001:db8::1").is_ok());
    }

    #[test]
    fn host_names_are_those_of_the_name_system() {
        assert_eq!(host_name("b.example.net."), Ok("b.example.net".to_owned()));
        for bad in ["", ".", "a..b", "-a.b", "a b", "bücher.example", "a/b"] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
        assert!(host_name(&"a".repeat(64)).is_err());
        assert!(looks_like_address("10.1.0.256") && looks_like_address("fe80::x"));
        assert!(!looks_like_address("b4.example.net"));
    }

    #[test]
    fn hex_has_two_digits_a_byte_and_no_sign() {
        assert_eq!(hex("00fF"), Some(vec![0, 255]));
        assert_eq!(hex("+1"), None);
        assert_eq!(hex("abc"), None);
        assert_eq!(hex(""), None);
    }
}
