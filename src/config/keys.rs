//! Every key that a configuration file may have, once: [`KEYS`]; and the nearest of them to a word that is none.

/// A key of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Name of its table; empty for the keys before the first table.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it takes, in words that follow "must be".
    pub expects: &'static str,
    /// A line that sets it.
    pub example: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    expects: &'static str,
    example: &'static str,
) -> Key {
    Key { section, name, expects, example }
}

const KEY: &str = "a string, { file = \"…\" } or { credential = \"…\" }";
const PPK: &str = r#"ppk = { id = "a-b", file = "b.ppk" }"#;
const AH: &str = r#"ah = { proposal = "sha256", spi-in = "0x1002", spi-out = "0x2002", auth-key-in = { file = "b-ah-in.key" }, auth-key-out = { file = "b-ah-out.key" } }"#;

/// The tables of a configuration file, in the order in which they are documented.
pub const SECTIONS: &[&str] =
    &["local", "peer", "auth", "ike", "esp", "child", "manual", "policy", "interface", "log"];

/// Every key, in the order in which it is documented. `psk.file`, `ppk.id`, `ah.…` and the like are those of a table.
pub const KEYS: &[Key] = &[
    key("", "name", "a string", r#"name = "branch-office""#),
    key("local", "address", "a string", r#"address = "192.0.2.1""#),
    key("local", "id", "a string", r#"id = "a.example.net""#),
    key("local", "subnets", "a list of strings", r#"subnets = ["10.1.0.0/16"]"#),
    key("local", "virtual", "a string or a list of strings", r#"virtual = ["ipv4"]"#),
    key("local", "dns", "true or false", "dns = true"),
    key(
        "local",
        "dns-domains",
        "a string or a list of strings",
        r#"dns-domains = ["corp.example"]"#,
    ),
    key("peer", "address", "a string", r#"address = "b.example.net""#),
    key("peer", "id", "a string", r#"id = "b.example.net""#),
    key("peer", "subnets", "a list of strings", r#"subnets = ["10.2.0.0/16"]"#),
    key("peer", "pool", "a string or a list of strings", r#"pool = ["10.3.0.0/24"]"#),
    key("peer", "dns", "a string or a list of strings", r#"dns = ["10.1.0.53"]"#),
    key(
        "peer",
        "dns-domains",
        "a string or a list of strings",
        r#"dns-domains = ["corp.example"]"#,
    ),
    key(
        "auth",
        "psk",
        "a string, { file = \"…\" } or { credential = \"…\" }",
        r#"psk = { file = "b.psk" }"#,
    ),
    key("auth", "psk.file", "a string", r#"psk = { file = "b.psk" }"#),
    key("auth", "psk.credential", "a string", r#"psk = { credential = "b.psk" }"#),
    key("auth", "ppk", "a table", PPK),
    key("auth", "ppk.id", "a string", PPK),
    key("auth", "ppk.file", "a string", PPK),
    key("auth", "ppk.credential", "a string", r#"ppk = { id = "a-b", credential = "b.ppk" }"#),
    key("auth", "ppk-required", "true or false", "ppk-required = false"),
    key("auth", "cert", "a string or a list of strings", r#"cert = "a.pem""#),
    key(
        "auth",
        "key",
        "a string, { file = \"…\" }, { credential = \"…\" } or a list of these",
        r#"key = "a.key""#,
    ),
    key("auth", "key.file", "a string", r#"key = { file = "a.key" }"#),
    key("auth", "key.credential", "a string", r#"key = { credential = "a.key" }"#),
    key(
        "auth",
        "passphrase",
        "a string, { file = \"…\" } or { credential = \"…\" }",
        r#"passphrase = { file = "a.pass" }"#,
    ),
    key("auth", "passphrase.file", "a string", r#"passphrase = { file = "a.pass" }"#),
    key("auth", "passphrase.credential", "a string", r#"passphrase = { credential = "a.pass" }"#),
    key("auth", "ca", "a string or a list of strings", r#"ca = ["ca.pem"]"#),
    key("auth", "crl", "a string or a list of strings", r#"crl = ["ca.crl"]"#),
    key("auth", "revocation", "a string", r#"revocation = "relaxed""#),
    key("auth", "ocsp", "a string or a list of strings", r#"ocsp = "a.ocsp""#),
    key("auth", "public-key", "a string or a list of strings", r#"public-key = "b.pub""#),
    key("auth", "eap-methods", "a string or a list of strings", r#"eap-methods = ["mschapv2"]"#),
    key("auth", "eap-identity", "a string", r#"eap-identity = "joe""#),
    key("auth", "eap-password", KEY, r#"eap-password = { file = "joe.pass" }"#),
    key("auth", "eap-password.file", "a string", r#"eap-password = { file = "joe.pass" }"#),
    key("auth", "eap-password.credential", "a string", r#"eap-password = { credential = "joe" }"#),
    key("auth", "eap-user", "a list of tables", "[[auth.eap-user]]"),
    key("auth", "eap-user.name", "a string", r#"name = "joe""#),
    key("auth", "eap-user.password", KEY, r#"password = { file = "joe.pass" }"#),
    key("auth", "local", "a string", r#"local = "cert""#),
    key("auth", "peer", "a string", r#"peer = "cert""#),
    key("auth", "extended-key-usage", "a string", r#"extended-key-usage = "authentication""#),
    key("auth", "allow-sha1", "true or false", "allow-sha1 = false"),
    key(
        "ike",
        "proposals",
        "a string or a list of strings",
        r#"proposals = ["aes256gcm16-prfsha384-x25519"]"#,
    ),
    key("ike", "allow-legacy", "true or false", "allow-legacy = false"),
    key("ike", "rekey-time", "a string", r#"rekey-time = "4h""#),
    key("ike", "over-time", "a string", r#"over-time = "24m""#),
    key("ike", "reauth-time", "a string", r#"reauth-time = "1d""#),
    key("ike", "unique", "a string", r#"unique = "replace""#),
    key("ike", "dpd", "a string", r#"dpd = "30s""#),
    key("ike", "childless", "true or false", "childless = false"),
    key("ike", "dpd-action", "a string", r#"dpd-action = "restart""#),
    key("ike", "close-action", "a string", r#"close-action = "restart""#),
    key("ike", "retransmit-timeout", "a string", r#"retransmit-timeout = "1s""#),
    key("ike", "retransmit-base", "a number", "retransmit-base = 1.8"),
    key("ike", "retransmit-tries", "a whole number", "retransmit-tries = 7"),
    key("ike", "fragmentation", "a string", r#"fragmentation = "yes""#),
    key("ike", "fragment-size", "a whole number", "fragment-size = 1280"),
    key("ike", "mobike", "true or false", "mobike = true"),
    key("esp", "protocol", "a string", r#"protocol = "esp""#),
    key("esp", "proposals", "a string or a list of strings", r#"proposals = ["aes256gcm16"]"#),
    key("esp", "allow-legacy", "true or false", "allow-legacy = false"),
    key("esp", "mode", "a string", r#"mode = "tunnel""#),
    key("esp", "encap", "a string", r#"encap = "auto""#),
    key("esp", "start", "a string", r#"start = "now""#),
    key("esp", "per-resource", "a whole number", "per-resource = 4"),
    key("esp", "replay-window", "a whole number", "replay-window = 1024"),
    key("esp", "rekey-time", "a string", r#"rekey-time = "1h""#),
    key("esp", "life-time", "a string", r#"life-time = "66m""#),
    key("esp", "rekey-bytes", "a string or a whole number", r#"rekey-bytes = "10G""#),
    key("esp", "life-bytes", "a string or a whole number", r#"life-bytes = "11G""#),
    key("esp", "rekey-packets", "a string or a whole number", r#"rekey-packets = "10M""#),
    key("esp", "life-packets", "a string or a whole number", r#"life-packets = "11M""#),
    key("esp", "dscp", "\"copy\" or a whole number", r#"dscp = "copy""#),
    key("esp", "df", "a string", r#"df = "copy""#),
    key("child", "name", "a string", r#"name = "web""#),
    key("child", "local", "a list of strings", r#"local = ["10.1.0.7[tcp/443]"]"#),
    key("child", "peer", "a list of strings", r#"peer = ["10.2.0.0/16"]"#),
    key("child", "protocol", "a string", r#"protocol = "esp""#),
    key("child", "proposals", "a string or a list of strings", r#"proposals = ["aes256gcm16"]"#),
    key("child", "mode", "a string", r#"mode = "tunnel""#),
    key("child", "start", "a string", r#"start = "now""#),
    key("manual", "name", "a string", r#"name = "net""#),
    key("manual", "protocol", "a string", r#"protocol = "esp""#),
    key("manual", "mode", "a string", r#"mode = "tunnel""#),
    key("manual", "encap", "a string", r#"encap = "none""#),
    key("manual", "proposal", "a string", r#"proposal = "aes256-sha256""#),
    key("manual", "allow-legacy", "true or false", "allow-legacy = false"),
    key("manual", "local", "a list of strings", r#"local = ["10.1.0.0/16"]"#),
    key("manual", "peer", "a list of strings", r#"peer = ["10.2.0.0/16"]"#),
    key("manual", "spi-in", "a string or a whole number", r#"spi-in = "0x1001""#),
    key("manual", "spi-out", "a string or a whole number", r#"spi-out = "0x2001""#),
    key("manual", "key-in", KEY, r#"key-in = { file = "b-in.key" }"#),
    key("manual", "key-out", KEY, r#"key-out = { file = "b-out.key" }"#),
    key("manual", "auth-key-in", KEY, r#"auth-key-in = { file = "b-auth-in.key" }"#),
    key("manual", "auth-key-out", KEY, r#"auth-key-out = { file = "b-auth-out.key" }"#),
    key("manual", "replay-window", "a whole number", "replay-window = 1024"),
    key("manual", "seq-in", "a string or a whole number", "seq-in = 0"),
    key("manual", "seq-out", "a string or a whole number", "seq-out = 0"),
    key("manual", "tfc", "a whole number", "tfc = 0"),
    key("manual", "ah-align", "a whole number", "ah-align = 4"),
    key("manual", "dscp", "\"copy\" or a whole number", r#"dscp = "copy""#),
    key("manual", "df", "a string", r#"df = "copy""#),
    key("manual", "ah", "a table", AH),
    key("manual", "ah.proposal", "a string", AH),
    key("manual", "ah.spi-in", "a string or a whole number", AH),
    key("manual", "ah.spi-out", "a string or a whole number", AH),
    key("manual", "ah.auth-key-in", KEY, AH),
    key("manual", "ah.auth-key-out", KEY, AH),
    key("manual", "ah.seq-in", "a string or a whole number", AH),
    key("manual", "ah.seq-out", "a string or a whole number", AH),
    key("policy", "name", "a string", r#"name = "ssh""#),
    key("policy", "action", "a string", r#"action = "bypass""#),
    key("policy", "local", "a list of strings", r#"local = ["10.1.0.0/16"]"#),
    key("policy", "remote", "a list of strings", r#"remote = ["10.2.0.0/16[tcp/22]"]"#),
    key("policy", "direction", "a string", r#"direction = "both""#),
    key("policy", "order", "a string", r#"order = "first""#),
    key("interface", "name", "a string", r#"name = "ipsec0""#),
    key("interface", "mtu", "\"auto\" or a whole number", r#"mtu = "auto""#),
    key("interface", "routes", "true or false", "routes = true"),
    key("interface", "addresses", "a list of strings", r#"addresses = ["10.1.255.1/32"]"#),
    key("interface", "clamp-mss", "true or false", "clamp-mss = true"),
    key("log", "level", "a string", r#"level = "info""#),
];

/// The key with this name in this section.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// How a table begins in a file.
pub(super) fn heading(section: &str) -> String {
    match section {
        "child" | "manual" | "policy" => format!("[[{section}]]"),
        _ => format!("[{section}]"),
    }
}

/// The word among `candidates` that `word` was probably meant to be.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // No key comes near, and the distance to a long word takes long.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase().replace('_', "-");
    // A third of the letters may be wrong: `adress`, `subnet`, `rekey_time`, but not any short word for any other.
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What an unknown key was probably meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// This key of the same section.
    Key(&'static str),
    /// A key of another section.
    Elsewhere(&'static Key),
    /// A section.
    Section(&'static str),
}

/// Words of other programs' configurations, and where their matter stands in ours.
const FOREIGN: &[(&str, &str, &str)] = &[
    ("allowed-ips", "peer", "subnets"),
    ("allowedips", "peer", "subnets"),
    ("credential", "auth", "psk"),
    ("dpd-delay", "ike", "dpd"),
    ("endpoint", "peer", "address"),
    ("eap-id", "auth", "eap-identity"),
    ("esp-proposals", "esp", "proposals"),
    ("file", "auth", "psk"),
    ("ike-proposals", "ike", "proposals"),
    ("cacert", "auth", "ca"),
    ("cacerts", "auth", "ca"),
    ("certs", "auth", "cert"),
    ("certificate", "auth", "cert"),
    ("leftcert", "auth", "cert"),
    ("private-key", "auth", "key"),
    ("pubkeys", "auth", "public-key"),
    ("leftsigkey", "auth", "public-key"),
    ("rightsigkey", "auth", "public-key"),
    ("left", "local", "address"),
    ("leftid", "local", "id"),
    ("leftsubnet", "local", "subnets"),
    ("local-addrs", "local", "address"),
    ("local-ts", "local", "subnets"),
    ("password", "auth", "psk"),
    ("remote-addrs", "peer", "address"),
    ("remote-ts", "peer", "subnets"),
    ("right", "peer", "address"),
    ("rightid", "peer", "id"),
    ("rightsubnet", "peer", "subnets"),
    ("secret", "auth", "psk"),
    ("start-action", "esp", "start"),
];

/// What the unknown key `name`, found in `section`, was probably meant to be.
pub(super) fn meant(section: &str, name: &str) -> Option<Meant> {
    if section == "manual" || section == "policy" {
        let here = KEYS.iter().filter(|key| key.section == section && !key.name.contains('.'));
        return nearest(name, here.map(|key| key.name)).map(Meant::Key);
    }
    // The same name in another section is nearer than a similar one in this. [[manual]] and [[policy]] share words with the
    // others, and are rarely meant.
    let usual = |key: &&Key| ![section, "manual", "policy"].contains(&key.section);
    if let Some(key) = KEYS.iter().filter(usual).find(|key| key.name == name) {
        return Some(Meant::Elsewhere(key));
    }
    let here = KEYS.iter().filter(|key| key.section == section && !key.name.contains('.'));
    if let Some(name) = nearest(name, here.map(|key| key.name)) {
        return Some(Meant::Key(name));
    }
    let plain = name.to_lowercase().replace('_', "-");
    // A file or a credential is something else elsewhere, such as where a log is to go.
    let has_sense = section == "auth" || !["credential", "file"].contains(&plain.as_str());
    let mut foreign = FOREIGN.iter().filter(|_| has_sense);
    if let Some((_, home, key)) = foreign.find(|(word, _, _)| *word == plain) {
        let key = find(home, key)?;
        return Some(if *home == section { Meant::Key(key.name) } else { Meant::Elsewhere(key) });
    }
    if section.is_empty()
        && let Some(name) = nearest(name, SECTIONS.iter().copied())
    {
        return Some(Meant::Section(name));
    }
    let all = || KEYS.iter().filter(usual).filter(|key| !key.name.contains('.'));
    if let Some(name) = nearest(name, all().map(|key| key.name)) {
        return all().find(|key| key.name == name).map(Meant::Elsewhere);
    }
    let manual = KEYS.iter().filter(|key| key.section == "manual");
    let name = nearest(name, manual.map(|key| key.name))?;
    find("manual", name).map(Meant::Elsewhere)
}

/// All sections that have a key of this name, as `[a]`, `[a] or [b]`.
pub(super) fn homes(name: &str) -> String {
    let homes: Vec<String> = KEYS
        .iter()
        .filter(|key| key.name == name)
        .map(|key| {
            if key.section.is_empty() {
                "the top of the file, before the first table".to_owned()
            } else {
                heading(key.section)
            }
        })
        .collect();
    homes.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_belongs_to_a_section_and_stands_once() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(key.section.is_empty() || SECTIONS.contains(&key.section), "{key:?}");
            assert!(!KEYS[..i].iter().any(|k| k.section == key.section && k.name == key.name));
        }
    }

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(meant("peer", "adress"), Some(Meant::Key("address")));
        assert_eq!(meant("ike", "rekey_time"), Some(Meant::Key("rekey-time")));
        assert_eq!(meant("", "peers"), Some(Meant::Section("peer")));
        assert!(
            matches!(meant("peer", "psk"), Some(Meant::Elsewhere(key)) if key.section == "auth")
        );
        assert!(
            matches!(meant("ike", "replay-windw"), Some(Meant::Elsewhere(key)) if key.section == "esp")
        );
        assert_eq!(meant("log", "colour"), None);
        assert_eq!(meant("log", "file"), None);
        assert_eq!(meant("auth", "file"), Some(Meant::Key("psk")));
        assert_eq!(meant("auth", "secret"), Some(Meant::Key("psk")));
        assert!(
            matches!(meant("peer", "spi_in"), Some(Meant::Elsewhere(key)) if key.section == "manual")
        );
        assert_eq!(meant("esp", "proposal"), Some(Meant::Key("proposals")));
        for (_, section, name) in FOREIGN {
            assert!(find(section, name).is_some());
        }
    }

    #[test]
    fn a_key_of_several_sections_names_them_all() {
        assert_eq!(homes("subnets"), "[local] or [peer]");
        assert_eq!(homes("proposals"), "[ike] or [esp] or [[child]]");
        assert_eq!(homes("mode"), "[esp] or [[child]] or [[manual]]");
    }
}
