//! The reference and the example of all keys have every key that the parser knows, and no other.

use std::path::Path;

use ipsecd::config::keys::{KEYS, SECTIONS};
use ipsecd::config::{self, DEFAULT_AH, DEFAULT_ESP, DEFAULT_IKE, Source};

use super::secrets::{KEY, Memory};

fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The keys of the tables in the reference, with their section.
fn documented() -> Vec<(String, String)> {
    let mut section = None;
    let mut found = Vec::new();
    for line in file("docs/configuration.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let inner = heading.strip_prefix("`[").and_then(|rest| rest.strip_suffix("]`"));
            let inner = inner.map(|inner| inner.trim_matches(['[', ']']));
            section = match inner {
                Some(name) => Some(name.to_owned()),
                None if heading == "Top of the file" => Some(String::new()),
                None => None,
            };
        } else if let (Some(section), Some(row)) = (&section, line.strip_prefix("| `")) {
            let (key, _) = row.split_once('`').unwrap();
            found.push((section.clone(), key.to_owned()));
        }
    }
    found
}

#[test]
fn every_key_is_documented_once_and_in_order() {
    let known: Vec<_> =
        KEYS.iter().map(|key| (key.section.to_owned(), key.name.to_owned())).collect();
    assert_eq!(documented(), known);
}

#[test]
fn the_example_of_all_options_of_manual_keys_sets_each_of_them() {
    let table: toml::Table = file("conf/manual-all-options.conf").parse().unwrap();
    let manual = table["manual"][0].as_table().unwrap();
    let mut known = Vec::new();
    for key in KEYS.iter().filter(|key| key.section == "manual") {
        let found = match key.name.strip_prefix("ah.") {
            Some(name) => manual["ah"].get(name),
            None => manual.get(key.name),
        };
        assert!(found.is_some(), "{key:?} is not in manual-all-options.conf");
        known.push(key.name);
    }
    assert!(manual.keys().all(|name| known.contains(&name.as_str())));
}

#[test]
fn the_example_of_several_child_sas_sets_every_key_of_theirs() {
    let table: toml::Table = file("conf/children.conf").parse().unwrap();
    let children = table["child"].as_array().unwrap();
    for key in KEYS.iter().filter(|key| key.section == "child") {
        assert!(children.iter().any(|child| child.get(key.name).is_some()), "{key:?}");
    }
}

#[test]
fn the_example_of_policies_without_sa_sets_every_key_of_theirs() {
    let table: toml::Table = file("conf/policies.conf").parse().unwrap();
    let policies = table["policy"].as_array().unwrap();
    for key in KEYS.iter().filter(|key| key.section == "policy") {
        assert!(policies.iter().any(|policy| policy.get(key.name).is_some()), "{key:?}");
    }
}

#[test]
fn the_example_of_all_options_sets_every_key() {
    let text = file("conf/all-options.conf");
    let table: toml::Table = text.parse().unwrap();
    // A psk and certificates do not go together: these have an example of their own.
    let certificate = file("conf/certificate.conf");
    let eap = [file("conf/eap-server.conf"), file("conf/eap-client.conf")].concat();
    let ppk = file("conf/ppk.conf");
    // Nor do subnets and virtual addresses.
    let road = [("local", "conf/road-warrior.conf"), ("peer", "conf/road-warriors.conf")];
    for key in KEYS.iter().filter(|key| !["child", "manual", "policy"].contains(&key.section)) {
        let of_certificates = [
            "cert",
            "key",
            "passphrase",
            "ca",
            "crl",
            "revocation",
            "ocsp",
            "public-key",
            "local",
            "peer",
            "extended-key-usage",
            "allow-sha1",
        ];
        let first = key.name.split('.').next().unwrap();
        if key.section == "auth" && of_certificates.contains(&first) {
            let word = key.name.rsplit('.').next().unwrap();
            let set = |line: &str| {
                line.trim_start_matches(['#', ' ']).split([' ', '=']).next() == Some(word)
                    || line.contains(&format!("{{ {word} = "))
            };
            assert!(certificate.lines().any(set), "{key:?} is not in certificate.conf");
            continue;
        }
        if key.section == "auth" && first.starts_with("eap-") {
            let word = key.name.rsplit('.').next().unwrap();
            let heading = format!("[[auth.{word}]]");
            let set = |line: &str| line.trim_start_matches(['#', ' ']).contains(word);
            assert!(eap.contains(&heading) || eap.lines().any(set), "{key:?} has no example");
            continue;
        }
        if key.section == "auth" && first.starts_with("ppk") {
            let word = key.name.rsplit('.').next().unwrap();
            assert!(ppk.contains(&format!("{word} = ")), "{key:?} is not in ppk.conf");
            continue;
        }
        let is_given = ["virtual", "pool"].contains(&key.name) || key.name.starts_with("dns");
        if let Some((section, name)) = road.iter().find(|(section, _)| *section == key.section)
            && is_given
        {
            let example: toml::Table = file(name).parse().unwrap();
            assert!(example[*section].get(key.name).is_some(), "{key:?} is not in {name}");
            continue;
        }
        let holder = match key.section {
            "" => Some(&table),
            section => table[section].as_table(),
        };
        if key.name.contains('.') {
            assert!(text.contains(key.name.trim_start_matches("psk.")), "{key:?}");
        } else {
            assert!(holder.unwrap().contains_key(key.name), "{key:?} is not in all-options.conf");
        }
    }
    assert!(table.keys().all(|name| name == "name" || SECTIONS.contains(&name.as_str())));
}

#[test]
fn the_examples_in_the_list_of_keys_are_right() {
    use super::secrets::{minimal, minimal_manual, parse};
    for key in KEYS {
        let line: toml::Table = key.example.parse().unwrap();
        let is_manual = key.section == "manual";
        let text = match key.section {
            "manual" => minimal_manual(""),
            "policy" => "[[policy]]\naction = \"bypass\"\nremote = [\"10.2.0.0/16\"]\n".to_owned(),
            _ => minimal(""),
        };
        let mut table: toml::Table = text.parse().unwrap();
        if is_manual && !key.name.starts_with("ah") {
            let more: toml::Table =
                "mode = \"tunnel\"\nlocal = [\"10.1.0.0/16\"]\npeer = [\"10.2.0.0/16\"]"
                    .parse()
                    .unwrap();
            table["manual"][0].as_table_mut().unwrap().extend(more);
        }
        let holder = match key.section {
            "" => &mut table,
            "child" => {
                table.insert("child".to_owned(), vec![toml::Table::new()].into());
                table["child"][0].as_table_mut().unwrap()
            }
            "manual" | "policy" => table[key.section][0].as_table_mut().unwrap(),
            section => table
                .entry(section)
                .or_insert_with(|| toml::Table::new().into())
                .as_table_mut()
                .unwrap(),
        };
        if ["virtual", "pool"].contains(&key.name) || key.name.starts_with("dns") {
            // With an address, and no subnets beside it.
            holder.remove("subnets");
            let given = match key.section {
                "local" => "virtual = [\"ipv4\"]",
                _ => "pool = [\"10.3.0.0/24\"]\ndns = [\"10.1.0.53\"]",
            };
            holder.extend(given.parse::<toml::Table>().unwrap());
        }
        holder.extend(line);
        if key.section == "peer" && !["address", "id", "subnets"].contains(&key.name) {
            table.insert(
                "esp".to_owned(),
                "start = \"respond\"".parse::<toml::Table>().unwrap().into(),
            );
        }
        if key.section == "auth"
            && !["psk", "ppk"].iter().any(|whole| key.name.split('.').next() == Some(*whole))
        {
            // On its own it is half of something.
            continue;
        }
        if let Err(found) = parse("a.conf", &table.to_string()) {
            // The key that [auth] names is not there to be read.
            for finding in found.as_slice() {
                let unread = finding.message.starts_with("cannot read the");
                // Nor is there AH in the one that `ah-align` is put into.
                let lonely = finding.message.ends_with("there is no AH here");
                let is_key = key.section == "auth"
                    || key.expects.contains("file")
                    || key.example.contains("file");
                assert!(is_key && unread || lonely, "{key:?}: {finding}");
            }
        }
    }
}

#[test]
fn the_reference_names_the_default_proposals() {
    let text = file("docs/configuration.md");
    for proposal in DEFAULT_IKE.iter().chain(DEFAULT_ESP).chain(DEFAULT_AH) {
        assert!(text.contains(proposal), "{proposal}");
    }
}

/// The whole configurations in a document: blocks of TOML that have both ends.
fn configurations(text: &str) -> Vec<&str> {
    let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.contains("[local]") && block.contains("[peer]")).collect()
}

#[test]
fn the_configurations_in_the_documents_are_right() {
    let mut documents = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")];
    for dir in ["docs", "docs/cookbook"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        documents.extend(std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()));
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut seen = 0;
    for path in documents {
        for text in configurations(&std::fs::read_to_string(&path).unwrap()) {
            let table: toml::Table = text.parse().unwrap();
            let psk = table["auth"]["psk"]["file"].as_str().unwrap();
            let secrets = Memory::usual().with(psk, KEY, 0o600);
            let source = Source { file: Path::new("a.conf"), text, mode: Some(0o600) };
            let loaded = config::parse(source, &secrets);
            let loaded = loaded.unwrap_or_else(|found| panic!("{}: {found}", path.display()));
            let warnings = loaded.warnings.as_slice();
            assert!(warnings.is_empty(), "{}: {warnings:?}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 12, "only {seen}");
}
