//! EAP in IKE, with strongSwan at the far end: each method with us as client and as server, and what is said when it comes to
//! nothing. The certificates are those of `tests/pki`.

use std::fs;

use crate::cert::{pki, write};
use crate::lab::topology::Side;
use crate::lab::{Charon, Ipsecd, Lab, Need, process, traffic, wait};

/// Which of the two is the client, and begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Ipsecd,
    StrongSwan,
}

#[derive(Clone, Copy)]
struct Case {
    client: Client,
    /// Further lines of our `[auth]`.
    ours: &'static str,
    /// In strongSwan's words, and what it holds besides: `[name, password]` of the user.
    method: &'static str,
    user: [&'static str; 2],
    /// Further lines for the section `charon` of strongswan.conf.
    charon: &'static str,
}

const MSCHAPV2_CLIENT: &str = "local = \"eap\"\neap-identity = \"joe\"\neap-password = \"correct horse\"\nca = [\"ca.pem\"]\n";
const MSCHAPV2_SERVER: &str = "peer = \"eap\"\ncert = \"ours.pem\"\nkey = \"ours.key\"\n\
     [[auth.eap-user]]\nname = \"ann\"\npassword = \"staple battery\"\n\
     [[auth.eap-user]]\nname = \"joe\"\npassword = \"correct horse\"\n";
const TLS_CLIENT: &str = "local = \"eap\"\ncert = \"ours.pem\"\nkey = \"ours.key\"\nca = [\"ca.pem\"]\n\
     eap-identity = \"a.example.net\"\n";
const TLS_SERVER: &str =
    "peer = \"eap\"\ncert = \"ours.pem\"\nkey = \"ours.key\"\nca = [\"ca.pem\"]\n";

impl Case {
    const fn mschapv2(client: Client) -> Self {
        let ours = match client {
            Client::Ipsecd => MSCHAPV2_CLIENT,
            Client::StrongSwan => MSCHAPV2_SERVER,
        };
        Self { client, ours, method: "eap-mschapv2", user: ["joe", "correct horse"], charon: "" }
    }

    const fn tls(client: Client, charon: &'static str) -> Self {
        let ours = match client {
            Client::Ipsecd => TLS_CLIENT,
            Client::StrongSwan => TLS_SERVER,
        };
        Self { client, ours, method: "eap-tls", user: ["nobody", "nothing"], charon }
    }
}

/// We are a.example.net, strongSwan is b.example.net.
fn ours(local: &Side, remote: &Side, case: &Case) -> std::path::PathBuf {
    let dir = local.dir.join("ipsecd");
    write(&dir.join("ours.pem"), &pki("a-p256.pem"));
    write(&dir.join("ours.key"), &pki("a-p256.key"));
    write(&dir.join("ca.pem"), &pki("ca-p256.pem"));
    let start = if case.client == Client::StrongSwan { "start = \"respond\"" } else { "" };
    let text = format!(
        "[local]\nid = \"a.example.net\"\nsubnets = [{:?}]\n\
         [peer]\naddress = \"{}\"\nid = \"b.example.net\"\nsubnets = [{:?}]\n\
         [esp]\n{start}\n[auth]\n{}\n",
        local.subnet(1, false),
        remote.outside(false),
        remote.subnet(1, false),
        case.ours,
    );
    let file = dir.join("far.conf");
    write(&file, text.as_bytes());
    file
}

fn theirs<'a>(local: &'a Side, remote: &Side, case: &Case) -> Charon<'a> {
    let dir = local.dir.join("charon");
    write(&dir.join("x509").join("mine.pem"), &pki("b-p256.pem"));
    write(&dir.join("private").join("mine.key"), &pki("b-p256.key"));
    write(&dir.join("x509ca").join("ca.pem"), &pki("ca-p256.pem"));
    let by_eap = format!("auth = {}", case.method);
    let (mine, other) = match case.client {
        Client::Ipsecd => {
            ("auth = pubkey\n certs = mine.pem".to_owned(), format!("{by_eap}\n eap_id = %any"))
        }
        Client::StrongSwan => {
            let identity = if case.method == "eap-tls" { "b.example.net" } else { case.user[0] };
            (
                format!("{by_eap}\n certs = mine.pem\n eap_id = {identity}"),
                "auth = pubkey".to_owned(),
            )
        }
    };
    let conf = format!(
        "connections {{ lab {{
           version = 2
           mobike = no
           local_addrs = {}
           remote_addrs = {}
           proposals = aes256gcm16-prfsha384-x25519
           local {{ {mine}
             id = b.example.net }}
           remote {{ {other}
             id = a.example.net }}
           children {{ net {{
             local_ts = {}
             remote_ts = {}
             esp_proposals = aes256gcm16
           }} }}
         }} }}
         secrets {{ eap-joe {{ id = {}
           secret = \"{}\" }} }}\n",
        local.outside(false),
        remote.outside(false),
        local.subnet(1, false),
        remote.subnet(1, false),
        case.user[0],
        case.user[1],
    );
    Charon::start_conf(local, &conf, case.charon)
}

/// Brings the tunnel up, sees packets through it, and gives charon's log.
#[track_caller]
fn meet(lab: &Lab, case: &Case) -> String {
    let b = theirs(&lab.b, &lab.a, case);
    let a = Ipsecd::start_for_file(&lab.a, ours(&lab.a, &lab.b, case));
    let output = a.up(15);
    assert!(output.status.success(), "{}\n{}", process::text(&output), b.log());
    if case.client == Client::StrongSwan {
        let output = b.initiate(10);
        assert!(output.status.success(), "{}\n{}", process::text(&output), a.log());
    }
    a.up_within(wait::PATIENCE);
    let ike = a.ike();
    assert_eq!(ike["initiator"], case.client == Client::Ipsecd);
    match case.client {
        Client::Ipsecd => assert!(ike.get("eap_identity").is_none(), "{ike}"),
        Client::StrongSwan => {
            let user = if case.method == "eap-tls" { "b.example.net" } else { case.user[0] };
            assert_eq!(ike["eap_identity"], user, "{ike}");
        }
    }
    traffic::both_ways(lab, 1, false);
    a.rekey(true);
    traffic::both_ways(lab, 1, false);
    a.down();
    assert!(a.stop().success());
    let log = b.log();
    b.stop();
    fs::remove_dir_all(lab.b.dir.join("charon")).expect("the next case starts anew");
    log
}

#[track_caller]
fn contains(log: &str, words: &[&str]) {
    for word in words {
        assert!(log.contains(word), "{word:?} is not in\n{log}");
    }
}

#[test]
fn mschapv2_as_client_and_as_server() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    let log = meet(&lab, &Case::mschapv2(Client::Ipsecd));
    contains(&log, &["EAP method EAP_MSCHAPV2 succeeded, MSK established"]);
    let log = meet(&lab, &Case::mschapv2(Client::StrongSwan));
    contains(&log, &["EAP method EAP_MSCHAPV2 succeeded, MSK established"]);
}

// strongSwan 5.9.8 has TLS 1.3 by a draft of RFC 9190, with another MSK and without the protected success; off by default.
#[test]
fn tls_1_2_as_client_and_as_server() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    for client in [Client::Ipsecd, Client::StrongSwan] {
        let log = meet(&lab, &Case::tls(client, ""));
        let words = ["EAP method EAP_TLS succeeded, MSK established", "negotiated TLS 1.2"];
        contains(&log, &words);
    }
}

#[test]
fn an_eap_that_comes_to_nothing_is_one_sentence() {
    let Some(lab) = Lab::open(&[Need::StrongSwan]) else { return };
    for (case, words) in [
        (
            Case { user: ["joe", "wrong"], ..Case::mschapv2(Client::Ipsecd) },
            &["refused our EAP identity", "eap-password"][..],
        ),
        (
            Case { method: "eap-tls", ..Case::mschapv2(Client::Ipsecd) },
            &["refused our EAP identity"],
        ),
    ] {
        let b = theirs(&lab.b, &lab.a, &case);
        let a = Ipsecd::start_for_file(&lab.a, ours(&lab.a, &lab.b, &case));
        let output = a.up(10);
        assert!(!output.status.success(), "{}", b.log());
        let stderr = String::from_utf8_lossy(&output.stderr);
        println!("{stderr}");
        assert_eq!(stderr.lines().filter(|line| !line.trim().is_empty()).count(), 1, "{stderr}");
        contains(&stderr, words);
        assert!(a.stop().success());
        b.stop();
        fs::remove_dir_all(lab.b.dir.join("charon")).expect("the next case starts anew");
    }
    // As server we refuse, and say why in the log.
    let case = Case { user: ["joe", "wrong"], ..Case::mschapv2(Client::StrongSwan) };
    let b = theirs(&lab.b, &lab.a, &case);
    let a = Ipsecd::start_for_file(&lab.a, ours(&lab.a, &lab.b, &case));
    assert!(a.up(10).status.success(), "it waits");
    assert!(!b.initiate(10).status.success(), "{}", b.log());
    let log = a.log();
    contains(&log, &["joe is not known, or has another password"]);
    for secret in ["correct horse", "staple battery"] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(a.stop().success());
    b.stop();
}
