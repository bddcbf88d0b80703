//! `[auth]` with certificates, and the files that `ipsecd pki` makes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ipsecd::cli::pki;
use ipsecd::config::{self, Diagnostics, Loaded, Source};
use ipsecd::crypto::pem;
use ipsecd::crypto::x509::{CertError, Certificate, SubjectName, Trust};
use ipsecd::daemon::secrets::FsSecrets;
use ipsecd::ipsec::pad::{LocalAuth, PeerAuth};
use ipsecd::testing::FixedRandom;

/// 2026-11-01.
const TODAY: Duration = Duration::from_secs(1_793_491_200);

/// A directory with the files of `tests/pki`, private keys owner-only.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki");
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = dir.path().join(entry.file_name());
        std::fs::copy(entry.path(), &to).unwrap();
        let mode = if to.extension().is_some_and(|e| e == "key") { 0o600 } else { 0o644 };
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // Mode 0644.
    let open = dir.path().join("open.key");
    std::fs::copy(dir.path().join("a-p256.key"), &open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(dir.path().join("psk"), "correct horse battery staple").unwrap();
    std::fs::write(dir.path().join("pass"), "open sesame\n").unwrap();
    for secret in ["psk", "pass"] {
        let owner = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(dir.path().join(secret), owner).unwrap();
    }
    dir
}

fn load_in(dir: &Path, auth: &str) -> Result<Loaded, Diagnostics> {
    let text = format!(
        "[local]\nid = \"a.example.net\"\nsubnets = [\"10.1.0.0/16\"]\n\
         [peer]\naddress = \"b.example.net\"\nid = \"b.example.net\"\nsubnets = [\"10.2.0.0/16\"]\n\
         [auth]\n{auth}\n"
    );
    let file = dir.join("x.conf");
    let source = Source { file: &file, text: &text, mode: Some(0o600) };
    config::parse(source, &FsSecrets::new(Some(dir.to_owned())))
}

fn load(auth: &str) -> Result<Loaded, Diagnostics> {
    load_in(directory().path(), auth)
}

const OURS: &str = "cert = \"a-p256.pem\"\nkey = \"a-p256.key\"\n";
const CA: &str = "ca = [\"ca-p256.pem\"]\n";
const PSK: &str = "psk = { file = \"psk\" }\n";

const PUB: &str = "public-key = \"form-p384.pub\"\n";

#[test]
fn a_public_key_stands_in_place_of_a_certificate_on_either_side() {
    let raw = "key = \"a-p256.key\"\n";
    for (auth, local_raw, keys, cas) in [
        (format!("{raw}{PUB}"), true, 1, 0),
        (format!("{raw}{PUB}local = \"public-key\"\npeer = \"public-key\""), true, 1, 0),
        (format!("{OURS}{PUB}"), false, 1, 0),
        (format!("{OURS}{PUB}{CA}"), false, 1, 1),
        (format!("{raw}{CA}local = \"public-key\""), true, 0, 1),
        // The key that is in a certificate counts, and nothing else of it.
        (format!("{raw}public-key = [\"a-expired.pem\", \"form-p521.pub\"]"), true, 2, 0),
    ] {
        let loaded = load(&auth).unwrap_or_else(|found| panic!("{auth}\n{found}"));
        let found = loaded.config.ike().unwrap().auth.clone();
        let LocalAuth::Signature(credentials) = &found.local else { panic!("{auth}") };
        assert_eq!(credentials[0].chain().is_empty(), local_raw, "{auth}");
        let PeerAuth::Signature(authority) = &found.peer else { panic!("{auth}") };
        assert_eq!(authority.keys.len(), keys, "{auth}");
        assert_eq!(authority.trust.certreq_hashes().count(), cas, "{auth}");
    }
}

#[test]
fn several_certificates_are_read_each_with_its_key() {
    let auth = format!(
        "cert = [\"a-p256.pem\", \"a-ed25519.pem\"]\n\
         key = [\"a-p256.key\", {{ credential = \"a-ed25519.key\" }}]\n{CA}"
    );
    let loaded = load(&auth).unwrap_or_else(|found| panic!("{found}"));
    let LocalAuth::Signature(found) = loaded.config.ike().unwrap().auth.local.clone() else {
        panic!("signatures")
    };
    assert_eq!(found.len(), 2);
    // Only of the first the CA is known.
    assert_eq!((found[0].roots().len(), found[1].roots().len()), (1, 0));
}

const CLIENT: &str = "local = \"eap\"\neap-password = \"correct horse\"\n";
const USER: &str = "[[auth.eap-user]]\nname = \"joe\"\npassword = { file = \"pass\" }\n";

#[test]
fn eap_is_read_as_client_and_as_server() {
    use ipsecd::ipsec::pad::EapMethod::{MsChapV2, Tls};
    let client = |auth: &str| {
        let loaded = load(auth).unwrap_or_else(|found| panic!("{auth}\n{found}"));
        let LocalAuth::Eap(client) = loaded.config.ike().unwrap().auth.local.clone() else {
            panic!("{auth}")
        };
        client
    };
    let found = client(&format!("{CLIENT}{CA}"));
    assert_eq!((found.identity.as_str(), &found.methods[..]), ("a.example.net", &[MsChapV2][..]));
    assert!(found.password.is_some() && found.credential.is_none());
    let found = client(&format!("local = \"eap\"\n{OURS}{CA}eap-identity = \"joe\""));
    assert_eq!((found.identity.as_str(), &found.methods[..]), ("joe", &[Tls][..]));
    assert!(found.credential.is_some());
    let found = client(&format!("{CLIENT}{OURS}{CA}eap-methods = [\"tls\", \"mschapv2\"]"));
    assert_eq!(found.methods, [Tls, MsChapV2]);
    // A server that has a key and no certificate.
    client(&format!("{CLIENT}{PUB}"));

    let server = |auth: &str| {
        let loaded = load(auth).unwrap_or_else(|found| panic!("{auth}\n{found}"));
        let PeerAuth::Eap(server) = loaded.config.ike().unwrap().auth.peer.clone() else {
            panic!("{auth}")
        };
        server
    };
    let found = server(&format!("peer = \"eap\"\n{OURS}{USER}"));
    assert_eq!((found.users.len(), &found.methods[..]), (1, &[MsChapV2][..]));
    assert!(found.authority.is_none());
    let found = server(&format!("peer = \"eap\"\n{OURS}{CA}{USER}"));
    assert_eq!((found.users.len(), &found.methods[..]), (1, &[MsChapV2, Tls][..]));
    let found = server(&format!("peer = \"eap\"\n{OURS}{CA}"));
    assert_eq!((found.users.len(), &found.methods[..]), (0, &[Tls][..]));
}

#[test]
fn what_does_not_fit_in_eap_is_said_with_its_place() {
    let server = format!("peer = \"eap\"\n{OURS}");
    for (auth, words) in [
        (format!("local = \"eap\"\n{CA}"), &["nothing for any EAP method", "eap-password"][..]),
        (server.clone(), &["nothing for any EAP method", "eap-user"]),
        (format!("{CLIENT}{CA}eap-methods = \"md5\""), &["unknown method `md5`", "MSK"]),
        (format!("{CLIENT}{CA}eap-methods = \"tls\""), &["there is nothing for \"tls\""]),
        (format!("{CLIENT}{CA}eap-methods = []"), &["eap-methods: the list is empty"]),
        (format!("{CLIENT}{CA}eap-identity = \"\""), &["a name of 0 bytes"]),
        (format!("local = \"eap\"\neap-password = \"\"\n{CA}"), &["is empty", "1 to 256"]),
        (format!("{CLIENT}{PSK}"), &["towards EAP it needs a certificate"]),
        (CLIENT.to_owned(), &["`ca` is missing"]),
        (format!("{CLIENT}{OURS}{PUB}"), &["for EAP-TLS the CAs are missing"]),
        (format!("peer = \"eap\"\n{PSK}{USER}"), &["by EAP, if we have a certificate"]),
        (format!("{server}{USER}{USER}"), &["`joe` is there twice"]),
        (format!("{server}[[auth.eap-user]]\nname = \"joe\""), &["`password` is missing"]),
        (format!("{server}[[auth.eap-user]]\npassword = \"hunter2\""), &["`name` is missing"]),
        (
            format!("{server}{USER}secret = \"hunter2\""),
            &["unknown key `secret` in `eap-user`", "known here"],
        ),
        (format!("{server}eap-user = \"hunter2\""), &["must be a list of tables"]),
        (format!("{OURS}{CA}{USER}"), &["eap-user: nobody proves itself by EAP", "peer = \"eap\""]),
        (format!("{OURS}{CA}eap-identity = \"x\""), &["eap-identity: nobody proves itself by EAP"]),
        (format!("{server}{PUB}{USER}"), &["public-key: the peer proves itself by EAP"]),
        (
            format!("{server}[[auth.eap-user]]\nname = \"joe\"\npassword = {{ file = \"none\" }}"),
            &["cannot read the password file `none`"],
        ),
    ] {
        let found = load(&auth).map(|_| ()).expect_err(&auth);
        let shown = found.to_string();
        for word in words {
            assert!(shown.contains(word), "{word:?} is not in\n{shown}");
        }
        assert!(!shown.contains("hunter2") && !shown.contains("correct horse"), "{shown}");
    }
}

/// Each side by psk or certificate.
#[test]
fn each_side_proves_itself_as_it_is_written() {
    for (auth, local, peer) in [
        (PSK.to_owned(), "psk", "psk"),
        (format!("{OURS}{CA}"), "cert", "cert"),
        (format!("{OURS}{CA}peer = \"cert\""), "cert", "cert"),
        (format!("{PSK}{CA}"), "psk", "cert"),
        (format!("{OURS}{PSK}peer = \"psk\""), "cert", "psk"),
        (format!("{OURS}{PSK}"), "cert", "psk"),
        (format!("{PSK}peer = \"psk\""), "psk", "psk"),
    ] {
        let loaded = load(&auth).unwrap_or_else(|found| panic!("{auth}\n{found}"));
        let found = loaded.config.ike().unwrap().auth.clone();
        assert_eq!(matches!(found.local, LocalAuth::Signature(_)), local == "cert", "{auth}");
        assert_eq!(matches!(found.peer, PeerAuth::Signature(_)), peer == "cert", "{auth}");
    }
}

#[test]
fn keys_are_read_from_files_and_credentials_with_and_without_passphrase() {
    for (cert, key) in [
        ("a-p256.pem", "key = { file = \"a-p256.key\" }"),
        ("a-p256.pem", "key = { credential = \"a-p256.key\" }"),
        ("a-rsa2048.pem", "key = \"a-rsa2048.key\""),
        ("a-ed25519.pem", "key = \"a-ed25519.key\""),
    ] {
        let auth = format!("cert = \"{cert}\"\n{key}\n{CA}");
        load(&auth).unwrap_or_else(|found| panic!("{auth}\n{found}"));
    }
    let dir = directory();
    // The key of a-p256, encrypted.
    let key = dir.path().join("a-p256.key");
    let encrypted = std::process::Command::new("openssl")
        .args(["pkcs8", "-topk8", "-passout", "pass:open sesame", "-in"])
        .arg(&key)
        .output();
    // Without openssl there is none to be had.
    let Ok(encrypted) = encrypted else { return };
    std::fs::write(&key, encrypted.stdout).unwrap();
    for passphrase in [
        "passphrase = \"open sesame\"",
        "passphrase = { file = \"pass\" }",
        "passphrase = { credential = \"pass\" }",
    ] {
        let auth = format!("{OURS}{CA}{passphrase}");
        load_in(dir.path(), &auth).unwrap_or_else(|found| panic!("{auth}\n{found}"));
    }
    let refused = |auth: &str| load_in(dir.path(), auth).unwrap_err().to_string();
    assert!(refused(&format!("{OURS}{CA}")).contains("no passphrase is given"));
    let wrong = refused(&format!("{OURS}{CA}passphrase = \"hunter2\""));
    assert!(wrong.contains("does not open it") && !wrong.contains("hunter2"), "{wrong}");
}

#[test]
fn what_does_not_fit_is_said_in_one_sentence_with_its_place() {
    for (auth, words) in [
        ("", &["`psk` is missing", "cert, key and ca"][..]),
        ("cert = \"a-p256.pem\"\nca = [\"ca-p256.pem\"]", &["the private key is missing"]),
        ("key = \"hunter2\"", &["the certificate is missing", "psk ="]),
        (OURS, &["`ca` is missing"]),
        (CA, &["`psk` is missing", "prove who we are"]),
        (&format!("{OURS}{CA}{PSK}"), &["nobody uses it", "peer = \"psk\""]),
        (&format!("{OURS}peer = \"psk\""), &["the psk is missing"]),
        (&format!("{PSK}peer = \"cert\""), &["the CAs are missing"]),
        (&format!("{PSK}peer = \"rsa\""), &["unknown word `rsa`"]),
        (&format!("{PSK}{CA}peer = \"psk\""), &["ca: the peer proves itself by the psk"]),
        (&format!("{PSK}allow-sha1 = true"), &["allow-sha1: the peer proves itself by the psk"]),
        (&format!("{PSK}passphrase = \"x\""), &["there is no key that it is for"]),
        (
            &format!("cert = \"none.pem\"\nkey = \"a-p256.key\"\n{CA}"),
            &["cannot read the cert file"],
        ),
        (&format!("cert = \"a-p256.key\"\nkey = \"a-p256.key\"\n{CA}"), &["no CERTIFICATE in"]),
        (&format!("cert = \"a-p256.pem\"\nkey = \"open.key\"\n{CA}"), &["others can read"]),
        (
            &format!("cert = \"a-p256.pem\"\nkey = \"a-p384.key\"\n{CA}"),
            &["not the key of the certificate"],
        ),
        (
            &format!("cert = \"b-p256.pem\"\nkey = \"b-p256.key\"\n{CA}"),
            &["our id a.example.net is not in it", "b.example.net"],
        ),
        (&format!("{OURS}ca = []"), &["the list is empty"]),
        (&format!("{OURS}ca = [\"ca-p256.crl\"]"), &["no CERTIFICATE in"]),
        (&format!("{OURS}{CA}crl = \"ca-p256.pem\""), &["no X509 CRL in"]),
        (&format!("{OURS}{CA}extended-key-usage = \"all\""), &["unknown word `all`", "\"any\""]),
        (&format!("{OURS}public-key = \"a-p256.key\""), &["no public key in", "ipsecd pki --raw"]),
        (&format!("{OURS}public-key = \"none.pub\""), &["cannot read the public-key file"]),
        (&format!("{OURS}public-key = []"), &["public-key: the list is empty"]),
        (&format!("{OURS}{PUB}crl = \"ca-p256.crl\""), &["crl: the peer proves itself without"]),
        (&format!("{OURS}{CA}peer = \"public-key\""), &["the public key is missing"]),
        (&format!("{OURS}{PUB}peer = \"cert\""), &["the CAs are missing"]),
        (&format!("{OURS}{PUB}local = \"public-key\""), &["goes without a certificate"]),
        (&format!("{PUB}local = \"public-key\""), &["the private key is missing"]),
        (&format!("{PSK}{PUB}peer = \"psk\""), &["public-key: the peer proves itself by the psk"]),
        (&format!("{PSK}{CA}local = \"rsa\""), &["local: unknown word `rsa`", "\"public-key\""]),
        ("key = \"a-p256.key\"\nlocal = \"public-key\"", &["`public-key` is missing"]),
        (
            &format!("cert = [\"a-p256.pem\", \"a-p384.pem\"]\nkey = \"a-p256.key\"\n{CA}"),
            &["cert: 2 files, and key: 1"],
        ),
        (&format!("cert = \"a-p256.pem\"\nkey = []\n{CA}"), &["has 0 items"]),
        (&format!("cert = \"a-p256.pem\"\nkey = [7]\n{CA}"), &["must be a string"]),
    ] {
        let found = load(auth).map(|_| ()).unwrap_err();
        let shown = found.to_string();
        for word in words {
            assert!(shown.contains(word), "{word:?} is not in\n{shown}");
        }
        let errors = found.as_slice().iter().filter(|d| d.severity == config::Severity::Error);
        assert_eq!(errors.count(), 1, "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_root_after_our_certificate_is_not_sent() {
    let dir = directory();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let chain = [read("a-middle.pem"), read("ca-middle.pem"), read("ca-p256.pem")].concat();
    std::fs::write(dir.path().join("chain.pem"), chain).unwrap();
    let auth = format!("cert = \"chain.pem\"\nkey = \"a-middle.key\"\n{CA}");
    let auth = load_in(dir.path(), &auth).unwrap().config.ike().unwrap().auth.clone();
    let LocalAuth::Signature(credentials) = auth.local else { panic!("a certificate") };
    assert_eq!(credentials[0].chain().len(), 2);
    // What it leads to is known, though it is not sent.
    assert!(!credentials[0].roots().is_empty());
}

fn args(dir: &Path, sites: &[&str]) -> pki::PkiArgs {
    pki::PkiArgs {
        sites: sites.iter().map(|site| (*site).to_owned()).collect(),
        dir: dir.to_owned(),
        key: pki::Kind::P256,
        days: 30,
        ca_name: "Our CA".to_owned(),
        request: false,
        raw: false,
    }
}

fn make(args: &pki::PkiArgs) -> std::io::Result<String> {
    let mut out = Vec::new();
    let seed = args.sites.iter().map(String::len).sum::<usize>() as u64;
    let now = SystemTime::UNIX_EPOCH + TODAY;
    pki::run(args, &mut FixedRandom::new(seed, 1), now, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn certificate(path: &Path) -> Certificate {
    let text = std::fs::read(path).unwrap();
    let der = pem::blocks(&text).next().unwrap().der.unwrap();
    Certificate::parse(der.expose()).unwrap()
}

#[test]
fn pki_makes_what_a_configuration_reads_for_every_kind_of_key() {
    for kind in [pki::Kind::P256, pki::Kind::P384, pki::Kind::P521, pki::Kind::Ed25519] {
        let dir = tempfile::tempdir().unwrap();
        let mut args =
            args(dir.path(), &["a.example.net,192.0.2.1,a@example.net", "b.example.net"]);
        args.key = kind;
        let told = make(&args).unwrap();
        assert_eq!(told.lines().count(), 3, "{told}");
        let auth = "cert = \"a.example.net.pem\"\nkey = \"a.example.net.key\"\nca = [\"ca.pem\"]\n";
        load_in(dir.path(), auth).unwrap_or_else(|found| panic!("{found}"));
        let ca = certificate(&dir.path().join("ca.pem"));
        let leaf = certificate(&dir.path().join("a.example.net.pem"));
        assert_eq!(
            leaf.names(),
            [
                SubjectName::Dns("a.example.net".to_owned()),
                SubjectName::Ip("192.0.2.1".parse().unwrap()),
                SubjectName::Email("a@example.net".to_owned()),
            ]
        );
        let trust = Trust::new(&[ca.der().to_vec()]).unwrap();
        let days = |n: u32| TODAY + Duration::from_secs(86_400) * n;
        assert_eq!(trust.verify(&leaf, &[], TODAY), Ok(()));
        assert_eq!(trust.verify(&leaf, &[], days(29)), Ok(()));
        assert!(matches!(trust.verify(&leaf, &[], days(31)), Err(CertError::Expired(_))));
        for (name, mode) in [("ca.key", 0o600), ("a.example.net.key", 0o600)] {
            let found = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode, "{name}");
        }
    }
}

#[test]
fn pki_makes_public_keys_alone() {
    let dir = tempfile::tempdir().unwrap();
    let raw = pki::PkiArgs { raw: true, ..args(dir.path(), &["a.example.net", "b.example.net"]) };
    let told = make(&raw).unwrap();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(!dir.path().join("ca.pem").exists());
    let auth = "key = \"a.example.net.key\"\npublic-key = \"b.example.net.pub\"\n";
    let auth = load_in(dir.path(), auth).unwrap().config.ike().unwrap().auth.clone();
    let PeerAuth::Signature(authority) = auth.peer else { panic!("a key") };
    let read = std::fs::read(dir.path().join("b.example.net.key")).unwrap();
    let key = ipsecd::crypto::sign::PrivateKey::from_pem(&read, None).unwrap();
    use ipsecd::crypto::sign::Signer;
    assert_eq!(authority.keys, [key.public_key().clone()]);
    let error = make(&raw).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
}

#[test]
fn pki_adds_sites_to_a_ca_that_is_there_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    make(&args(dir.path(), &["a.example.net"])).unwrap();
    let files = || {
        let mut all: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = files();
    let error = make(&args(dir.path(), &["b.example.net", "a.example.net"])).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
    assert_eq!(files(), before, "nothing is half done");
    make(&args(dir.path(), &["longer.example.net"])).unwrap();
    assert_eq!(files().len(), before.len() + 2);
    let ca = certificate(&dir.path().join("ca.pem")).der().to_vec();
    let leaf = certificate(&dir.path().join("longer.example.net.pem"));
    assert_eq!(Trust::new(&[ca]).unwrap().verify(&leaf, &[], TODAY), Ok(()));
}

#[test]
fn pki_refuses_names_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "a b", "../a", "a/b", ".a", "-a", "ca", "a@", "a@b@c", "a.example.net,", "ä"] {
        let error = make(&args(dir.path(), &[bad])).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{bad}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn pki_requests_are_read_by_openssl() {
    let dir = tempfile::tempdir().unwrap();
    let mut args = args(dir.path(), &["a.example.net,192.0.2.1"]);
    args.request = true;
    make(&args).unwrap();
    assert!(!dir.path().join("ca.pem").exists());
    let output = std::process::Command::new("openssl")
        .args(["req", "-verify", "-noout", "-text", "-in"])
        .arg(dir.path().join("a.example.net.csr"))
        .output();
    // Without openssl there is nobody to ask.
    let Ok(output) = output else { return };
    let text = format!("{output:?}");
    assert!(output.status.success() && text.contains("verify OK"), "{text}");
    assert!(text.contains("DNS:a.example.net, IP Address:192.0.2.1"), "{text}");
}

#[test]
fn revocation_has_three_words_and_an_ocsp_response_is_read() {
    let ours = "cert = \"a-ocsp.pem\"\nkey = \"a-ocsp.key\"\nca = [\"ca-ocsp.pem\"]\n";
    for (word, wants) in [("strict", true), ("ifuri", true), ("relaxed", false)] {
        let lines = format!("{ours}revocation = \"{word}\"\nocsp = \"a-good.ocsp\"");
        let auth = load(&lines).unwrap().config.ike().unwrap().auth.clone();
        let PeerAuth::Signature(authority) = &auth.peer else { panic!("{auth:?}") };
        assert_eq!(authority.trust.wants_ocsp(), wants, "{word}");
        let LocalAuth::Signature(credentials) = &auth.local else { panic!("{auth:?}") };
        assert!(credentials[0].ocsp().is_some_and(|der| der.len() > 200));
    }
    for (lines, words) in [
        ("revocation = \"hard\"", "unknown word `hard`"),
        ("ocsp = \"error.ocsp\"", "[auth] ocsp: `error.ocsp` cannot be used"),
        ("ocsp = \"a-ocsp.pem\"", "[auth] ocsp: `a-ocsp.pem` cannot be used"),
        ("ocsp = [\"a-good.ocsp\", \"a-good.ocsp\"]", "2 files, and cert: 1"),
        ("ocsp = \"none.ocsp\"", "cannot read the ocsp file"),
    ] {
        let told = load(&format!("{ours}{lines}")).unwrap_err().to_string();
        assert!(told.contains(words), "{lines}: {told}");
    }
}

#[test]
fn crls_and_ocsp_responses_are_read_again_without_the_rest() {
    let dir = directory();
    let lines = "cert = \"a-ocsp.pem\"\nkey = \"a-ocsp.key\"\nocsp = \"mine.ocsp\"\n\
                 ca = [\"ca-p256.pem\"]\ncrl = [\"now.crl\"]";
    let put = |from: &str, to: &str| {
        std::fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
    };
    put("ca-p256.crl", "now.crl");
    put("a-good.ocsp", "mine.ocsp");
    let config = load_in(dir.path(), lines).unwrap().config;
    let secrets = FsSecrets::new(None);
    let before = config.ike().unwrap();
    let revoked = |peer: &ipsecd::ipsec::pad::Peer| {
        let PeerAuth::Signature(authority) = &peer.auth.peer else { panic!("a certificate") };
        let read = |name: &str| {
            let text = std::fs::read(dir.path().join(name)).unwrap();
            pem::blocks(&text).next().unwrap().der.unwrap().expose().to_vec()
        };
        let leaf = Certificate::parse(&read("a-middle.pem")).unwrap();
        authority.trust.verify(&leaf, &[read("ca-middle.pem")], TODAY)
    };
    assert_eq!(revoked(before), Ok(()));
    // Nothing has changed.
    let same = config.with_revocation_read_again(&secrets).unwrap().unwrap();
    assert_eq!(same.auth, before.auth);

    put("ca-p256-middle-revoked.crl", "now.crl");
    put("a-delegated.ocsp", "mine.ocsp");
    let after = config.with_revocation_read_again(&secrets).unwrap().unwrap();
    assert_eq!(revoked(&after), Err(CertError::Revoked));
    assert!(after.auth != before.auth && after.auth.is_like(&before.auth));
    let LocalAuth::Signature(credentials) = &after.auth.local else { panic!("a certificate") };
    let response = std::fs::read(dir.path().join("a-delegated.ocsp")).unwrap();
    assert_eq!(credentials[0].ocsp(), Some(response.as_slice()));

    std::fs::write(dir.path().join("now.crl"), "nothing").unwrap();
    let error = config.with_revocation_read_again(&secrets).unwrap_err();
    assert!(error.contains("now.crl") && error.contains("no X509 CRL"), "{error}");
}
