//! Certificates, with strongSwan at the far end: every kind of key in both roles, psk and certificate mixed, and what is
//! said when a certificate is not accepted. The certificates are those of `tests/pki`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ipsecd::crypto::pem;
use ipsecd::crypto::sign::{PrivateKey, Signer};

use crate::lab::ipsecd::PSK;
use crate::lab::topology::Side;
use crate::lab::{Charon, Ipsecd, Lab, Need, process, traffic, wait};

/// How a side proves itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    /// The certificate of this name and its key; for strongSwan also the scheme, in its words.
    Certificate(&'static str, &'static str),
    Psk,
    /// The key of the certificate of this name, without it.
    RawKey(&'static str),
}

use Proof::{Certificate, Psk, RawKey};

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Ipsecd,
    StrongSwan,
}

/// What both sides are told.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) ours: Proof,
    pub(crate) theirs: Proof,
    /// Our id and theirs.
    pub(crate) ids: [&'static str; 2],
    /// The CAs that strongSwan trusts, and those that are between them and us.
    pub(crate) their_cas: &'static [&'static str],
    pub(crate) our_cas: &'static [&'static str],
    /// Certificates after ours in its file.
    pub(crate) above: &'static [&'static str],
    /// Whose public key we take for theirs, if not theirs.
    pub(crate) theirs_known: Option<&'static str>,
    /// Further lines of `[auth]`.
    pub(crate) auth: &'static str,
    /// Further lines for the section `charon` of strongswan.conf.
    pub(crate) charon: &'static str,
    /// Further sections of ours.
    pub(crate) more: &'static str,
}

impl Case {
    pub(crate) fn new(ours: Proof, theirs: Proof, ca: &'static [&'static str]) -> Self {
        Self {
            ours,
            theirs,
            ids: ["a.example.net", "b.example.net"],
            their_cas: ca,
            our_cas: ca,
            above: &[],
            theirs_known: None,
            auth: "",
            charon: "",
            more: "",
        }
    }

    /// Ours with strongSwan's certificate of this name, which is a.example.net's.
    pub(crate) fn against(theirs: &'static str) -> Self {
        let theirs = Certificate(theirs, "pubkey");
        let case = Self::new(Certificate("b-p256", ""), theirs, &["ca-p256"]);
        Self { ids: ["b.example.net", "a.example.net"], ..case }
    }
}

pub(crate) fn pki(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pki").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn write(path: &Path, contents: &[u8]) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("directory is made");
    fs::write(path, contents).expect("file is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode is set");
}

/// The public key of the certificate of this name, in PEM.
fn public_key(name: &str) -> String {
    let key = PrivateKey::from_pem(&pki(&format!("{name}.key")), None).expect("a key");
    pem::encode("PUBLIC KEY", key.public_key().spki()).to_string()
}

/// ipsecd's configuration; its files lie beside it.
fn ours(local: &Side, remote: &Side, case: &Case, begins: Begins) -> std::path::PathBuf {
    let dir = local.dir.join("ipsecd");
    let mut auth = String::new();
    if let Certificate(name, _) = case.ours {
        let mut chain = pki(&format!("{name}.pem"));
        for above in case.above {
            chain.extend(pki(&format!("{above}.pem")));
        }
        write(&dir.join("ours.pem"), &chain);
        write(&dir.join("ours.key"), &pki(&format!("{name}.key")));
        auth += "cert = \"ours.pem\"\nkey = \"ours.key\"\n";
    }
    if let RawKey(name) = case.ours {
        write(&dir.join("ours.key"), &pki(&format!("{name}.key")));
        auth += "key = \"ours.key\"\nlocal = \"public-key\"\n";
    }
    if let RawKey(name) = case.theirs {
        write(&dir.join("theirs.pub"), public_key(case.theirs_known.unwrap_or(name)).as_bytes());
        auth += "public-key = \"theirs.pub\"\n";
    }
    if matches!(case.ours, Psk) || matches!(case.theirs, Psk) {
        write(&dir.join("far.psk"), PSK.as_bytes());
        auth += "psk = { file = \"far.psk\" }\n";
    }
    if matches!(case.theirs, Certificate(..)) {
        for ca in case.our_cas {
            write(&dir.join(format!("{ca}.pem")), &pki(&format!("{ca}.pem")));
        }
        let cas: Vec<_> = case.our_cas.iter().map(|ca| format!("{ca}.pem")).collect();
        auth += &format!("ca = {cas:?}\n");
        write(&dir.join("ca-p256.crl"), &pki("ca-p256.crl"));
    }
    let start = if begins == Begins::StrongSwan { "start = \"respond\"" } else { "" };
    let [id, peer] = case.ids;
    let text = format!(
        "[local]\nid = {id:?}\nsubnets = [{:?}]\n[peer]\naddress = \"{}\"\nid = {peer:?}\nsubnets = [{:?}]\n\
         [auth]\n{auth}{}\n[esp]\n{start}\n{}",
        local.subnet(1, false),
        remote.outside(false),
        remote.subnet(1, false),
        case.auth,
        case.more,
    );
    let file = dir.join("far.conf");
    write(&file, text.as_bytes());
    file
}

/// strongSwan with the other half.
fn theirs<'a>(local: &'a Side, remote: &Side, case: &Case) -> Charon<'a> {
    let dir = local.dir.join("charon");
    let proof = |proof: Proof| match proof {
        Psk => "auth = psk".to_owned(),
        Certificate(_, scheme) => {
            format!("auth = {}", if scheme.is_empty() { "pubkey" } else { scheme })
        }
        RawKey(_) => "auth = pubkey\n pubkeys = mine.pub".to_owned(),
    };
    let mut mine = proof(case.theirs);
    if let Certificate(name, _) = case.theirs {
        write(&dir.join("x509").join("mine.pem"), &pki(&format!("{name}.pem")));
        write(&dir.join("private").join("mine.key"), &pki(&format!("{name}.key")));
        mine += "\n certs = mine.pem";
    }
    if let RawKey(name) = case.theirs {
        write(&dir.join("pubkey").join("mine.pub"), public_key(name).as_bytes());
        write(&dir.join("private").join("mine.key"), &pki(&format!("{name}.key")));
    }
    if let RawKey(name) = case.ours {
        write(&dir.join("pubkey").join("ours.pub"), public_key(name).as_bytes());
    }
    if matches!(case.ours, Certificate(..)) || matches!(case.theirs, Certificate(..)) {
        for ca in case.their_cas {
            write(&dir.join("x509ca").join(format!("{ca}.pem")), &pki(&format!("{ca}.pem")));
        }
    }
    let [ours, id] = case.ids;
    let conf = format!(
        "connections {{ lab {{
           version = 2
           mobike = no
           local_addrs = {}
           remote_addrs = {}
           proposals = aes256gcm16-prfsha384-x25519
           local {{ {mine}
             id = {id} }}
           remote {{ {}
             id = {ours} }}
           children {{ net {{
             local_ts = {}
             remote_ts = {}
             esp_proposals = aes256gcm16
           }} }}
         }} }}
         secrets {{ ike-lab {{ secret = \"{PSK}\" }} }}\n",
        local.outside(false),
        remote.outside(false),
        match case.ours {
            Psk => "auth = psk".to_owned(),
            Certificate(..) => "auth = pubkey".to_owned(),
            RawKey(_) => "auth = pubkey\n pubkeys = ours.pub".to_owned(),
        },
        local.subnet(1, false),
        remote.subnet(1, false),
    );
    Charon::start_conf(local, &conf, case.charon)
}

/// Our configuration file, and the strongSwan that it is for.
pub(crate) fn set_up<'a>(lab: &'a Lab, case: &Case) -> (std::path::PathBuf, Charon<'a>) {
    let charon = theirs(&lab.b, &lab.a, case);
    (ours(&lab.a, &lab.b, case, Begins::Ipsecd), charon)
}

/// Brings the tunnel up, sees packets through it, and gives charon's log.
#[track_caller]
fn meet(lab: &Lab, begins: Begins, case: &Case) -> String {
    let before = lab.a.gw.network_state();
    let b = theirs(&lab.b, &lab.a, case);
    let a = Ipsecd::start_for_file(&lab.a, ours(&lab.a, &lab.b, case, begins));
    let output = a.up(15);
    assert!(output.status.success(), "{begins:?}:\n{}\n{}", process::text(&output), b.log());
    if begins == Begins::StrongSwan {
        let output = b.initiate(10);
        assert!(output.status.success(), "{}\n{}", process::text(&output), a.log());
    }
    a.up_within(wait::PATIENCE);
    assert_eq!(a.ike()["initiator"], begins == Begins::Ipsecd);
    traffic::both_ways(lab, 1, false);
    a.down();
    assert!(a.stop().success());
    assert_eq!(before, lab.a.gw.network_state(), "something was left");
    let log = b.log();
    b.stop();
    fs::remove_dir_all(lab.b.dir.join("charon")).expect("the next case starts anew");
    log
}

/// The same in both roles; each of these words is in charon's log.
#[track_caller]
pub(crate) fn both_roles(lab: &Lab, case: &Case, words: &[&str]) {
    for begins in [Begins::Ipsecd, Begins::StrongSwan] {
        println!("{:?} against {:?}, {begins:?} begins", case.ours, case.theirs);
        let log = meet(lab, begins, case);
        for word in words {
            assert!(log.contains(word), "{word:?} is not in\n{log}");
        }
    }
}

#[test]
fn rsa_in_both_roles() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let (a, ca) = (Certificate("a-rsa2048", ""), &["ca-rsa2048"]);
    // strongSwan signs with PKCS #1 v1.5 unless told otherwise; we always with PSS.
    let case = Case::new(a, Certificate("b-rsa2048", "pubkey"), ca);
    let ours = "authentication of 'a.example.net' with RSA_EMSA_PSS_SHA2_256";
    let theirs = "authentication of 'b.example.net' (myself) with RSA_EMSA_PKCS1_SHA2_256";
    both_roles(&lab, &case, &[ours, theirs]);
    let case = Case::new(a, Certificate("b-rsa2048", "rsa/pss-sha384"), ca);
    let theirs = "authentication of 'b.example.net' (myself) with RSA_EMSA_PSS_SHA2_384";
    both_roles(&lab, &case, &[ours, theirs]);
}

#[test]
fn ecdsa_in_both_roles() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let case = |ours, theirs, ca| Case::new(Certificate(ours, ""), Certificate(theirs, ""), ca);
    let both = "with ECDSA_WITH_SHA";
    both_roles(&lab, &case("a-p256", "b-p256", &["ca-p256"]), &[both, "ECDSA_WITH_SHA256_DER"]);
    both_roles(&lab, &case("a-p384", "b-p384", &["ca-p384"]), &[both, "ECDSA_WITH_SHA384_DER"]);
    both_roles(&lab, &case("a-p521", "b-p521", &["ca-p521"]), &[both, "ECDSA_WITH_SHA512_DER"]);
}

#[test]
fn ed25519_in_both_roles() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let case =
        Case::new(Certificate("a-ed25519", ""), Certificate("b-ed25519", ""), &["ca-ed25519"]);
    both_roles(&lab, &case, &["authentication of 'a.example.net' with ED25519 successful"]);
}

#[test]
fn raw_public_keys_in_both_roles() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    for [ours, theirs] in
        [["a-p256", "b-p384"], ["a-ed25519", "b-ed25519"], ["a-rsa2048", "b-rsa2048"]]
    {
        let case = Case::new(RawKey(ours), RawKey(theirs), &[]);
        both_roles(&lab, &case, &["authentication of 'a.example.net' with", "successful"]);
    }
    let mixed = Case::new(RawKey("a-p256"), Certificate("b-p256", ""), &["ca-p256"]);
    both_roles(&lab, &mixed, &[]);
}

#[test]
fn a_raw_public_key_that_is_not_the_peers_is_one_sentence() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let case = Case::new(RawKey("a-p256"), RawKey("b-p256"), &[]);
    let wrong = Case { theirs_known: Some("b-p384"), ..case };
    says(&lab, &wrong, &["[auth] public-key"]);
}

#[test]
fn a_psk_on_one_side_and_a_certificate_on_the_other() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let ca = &["ca-p256"];
    both_roles(&lab, &Case::new(Certificate("a-p256", ""), Psk, ca), &["with pre-shared key"]);
    both_roles(&lab, &Case::new(Psk, Certificate("b-p256", ""), ca), &["with pre-shared key"]);
}

#[test]
fn a_ca_between_and_several_cas() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let mut case = Case::new(Certificate("a-low", ""), Certificate("b-ed25519", ""), &["ca-p256"]);
    case.above = &["ca-low", "ca-middle"];
    case.our_cas = &["ca-rsa2048", "ca-ed25519", "ca-p384"];
    case.their_cas = &["ca-ed25519", "ca-p256"];
    both_roles(&lab, &case, &["authentication of 'a.example.net' with ECDSA"]);
}

#[test]
fn a_strongswan_without_rfc_7427() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let charon = "signature_authentication = no";
    let ecdsa = Case::new(Certificate("a-p384", ""), Certificate("b-p384", ""), &["ca-p384"]);
    let words = ["authentication of 'a.example.net' with ECDSA-384 signature successful"];
    both_roles(&lab, &Case { charon, ..ecdsa }, &words);
    // Its RSA is SHA-1 then, which is taken only if that is said; ours is none that it could verify.
    let theirs = Certificate("b-rsa2048", "");
    let rsa = Case::new(Certificate("a-p256", ""), theirs, &["ca-rsa2048", "ca-p256"]);
    let sentence = said(&lab, &Case { charon, ..rsa });
    assert!(sentence.contains("SHA-1") && sentence.contains("allow-sha1"), "{sentence}");
    both_roles(&lab, &Case { charon, auth: "allow-sha1 = true", ..rsa }, &["RSA signature"]);
}

/// What `ipsecd up` says when the tunnel does not come up: one sentence. Nothing is left behind.
#[track_caller]
fn said(lab: &Lab, case: &Case) -> String {
    let before = lab.a.gw.network_state();
    let b = theirs(&lab.b, &lab.a, case);
    let a = Ipsecd::start_for_file(&lab.a, ours(&lab.a, &lab.b, case, Begins::Ipsecd));
    let output = a.up(10);
    let text = process::text(&output);
    assert!(!output.status.success(), "up succeeded:\n{text}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let sentences: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(sentences.len(), 1, "one sentence:\n{text}\n{}", b.log());
    assert!(a.stop().success());
    assert_eq!(before, lab.a.gw.network_state(), "something was left");
    b.stop();
    fs::remove_dir_all(lab.b.dir.join("charon")).expect("the next case starts anew");
    println!("{}", sentences[0]);
    sentences[0].to_owned()
}

#[track_caller]
fn says(lab: &Lab, case: &Case, words: &[&str]) {
    let sentence = said(lab, case);
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
}

#[test]
fn a_certificate_that_is_not_accepted_is_one_sentence() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let good = Case::against("a-p256");
    meet(&lab, Begins::Ipsecd, &good);
    let wrong_ca = Case { our_cas: &["ca-ed25519"], ..good };
    says(&lab, &wrong_ca, &["no CA that is trusted", "CN=CA p256", "[auth] ca"]);
    says(&lab, &Case::against("a-expired"), &["expired 2026-02-01", "needs another"]);
    says(&lab, &Case::against("a-eku-code"), &["extended key usage", "[auth] extended-key-usage"]);
    let revoked = Case { auth: "crl = [\"ca-p256.crl\"]", ..Case::against("a-revoked") };
    says(&lab, &revoked, &["revoked"]);
    // strongSwan says that it is its certificate's subject if its id is not in it.
    let wrong_id = Case { ids: ["b.example.net", "c.example.net"], ..good };
    says(&lab, &wrong_id, &["c.example.net", "[peer] id"]);
}

#[test]
fn our_certificate_that_is_refused_is_one_sentence() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let case = Case::new(Certificate("a-p256", ""), Certificate("b-ed25519", ""), &["ca-ed25519"]);
    says(&lab, &case, &["refused our certificate", "a.example.net", "[auth] cert"]);
    let case = Case::new(Certificate("a-expired", ""), Certificate("b-p256", ""), &["ca-p256"]);
    says(&lab, &case, &["refused our certificate"]);
}
