//! Each check of `ipsecd doctor` with facts that are made up, and the order of what is found.

mod filter;

use core::time::Duration;
use std::collections::BTreeMap;
use std::path::Path;

use ipsecd::config::{Config, SecretError, SecretFile, SecretSource, Source, parse};
use ipsecd::control::protocol::{Code, Failure, PeerState, PeerStatus};
use ipsecd::doctor::{
    Address, Answer, Attempt, AuthSent, Experiments, Facts, Host, Kind, LastAttempt, Outcome,
    PathMtu, PortHolder, Recorded, Rekeyed, Route, examine,
};
use ipsecd::ike::CloseReason;
use ipsecd::ipsec::pad::Identity;
use ipsecd::ipsec::suite::{AddKe, Encr, IkeSuite};
use ipsecd::wire::ike::numbers::{EncrId, IntegId, KeId, PrfId};

struct Nothing;

impl SecretSource for Nothing {
    fn read(&self, _: &Path) -> Result<SecretFile, SecretError> {
        Err(SecretError::Missing)
    }
    fn credential(&self, _: &str) -> Result<SecretFile, SecretError> {
        Err(SecretError::NoCredentials)
    }
}

fn config(more: &str) -> Config {
    let mut text = "[local]\nid = \"a.example.net\"\nsubnets = [\"10.1.1.0/24\"]\n[peer]\naddress = \"198.51.100.1\"\n\
                    id = \"b.example.net\"\nsubnets = [\"10.2.1.0/24\"]\n[auth]\npsk = \"correct horse battery staple\"\n"
        .to_owned();
    match more.split_once("=>") {
        Some((before, after)) => text = text.replace(before, after),
        None => text.push_str(more),
    }
    let source = Source { file: Path::new("far.conf"), text: &text, mode: Some(0o600) };
    parse(source, &Nothing).unwrap_or_else(|found| panic!("{found}")).config
}

/// A host on which all is well.
fn facts(config: Config) -> Facts {
    let address = |interface: &str, net: &str| Address {
        interface: interface.to_owned(),
        net: net.parse().expect("a network"),
    };
    let on = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), true)).collect();
    let remote = "198.51.100.1".parse().expect("an address");
    Facts {
        config,
        warnings: Default::default(),
        others: Vec::new(),
        host: Host {
            now: Duration::from_secs(1_790_000_000),
            addresses: vec![
                address("lo", "127.0.0.1/8"),
                address("wan0", "192.0.2.1/24"),
                address("lan0", "10.1.1.1/24"),
                address("lan1", "10.5.0.1/24"),
            ],
            rp_filter: BTreeMap::from([("all".to_owned(), 0), ("wan0".to_owned(), 2)]),
            forwarding_v4: on(&["all", "lan0", "wan0"]),
            forwarding_v6: Some(true),
            ..Host::default()
        },
        resolved: Ok(vec![remote]),
        route: Some(Ok(Route {
            remote,
            local: "192.0.2.1".parse().expect("an address"),
            interface: Some("wan0".to_owned()),
            mtu: 1500,
        })),
        recorded: Recorded::NoDaemon("no daemon".to_owned()),
        attempt: None,
        experiments: Experiments::default(),
    }
}

fn failed(facts: &mut Facts, reason: CloseReason) {
    let failure = Failure { code: Code::Peer, message: "as up says".to_owned() };
    facts.attempt = Some(Attempt {
        own_ports: true,
        outcome: Outcome::Failed(LastAttempt { reason, failure }),
        init_answered: true,
        auth_sent: Some(AuthSent { natt: true, longest: 1700 }),
        nat_local: false,
        nat_peer: false,
        peer_cas: None,
    });
}

fn kinds(facts: &Facts) -> Vec<Kind> {
    examine(facts).findings.iter().map(|finding| finding.kind).collect()
}

#[track_caller]
fn first(facts: &Facts, kind: Kind, words: &[&str]) {
    let report = examine(facts);
    let text = report.to_string();
    assert_eq!(report.findings.first().map(|it| it.kind), Some(kind), "{text}");
    assert!(!report.findings[0].fix.is_empty(), "no fix: {text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let mut facts = facts(config(""));
    assert_eq!(kinds(&facts), []);
    facts.attempt = Some(Attempt {
        own_ports: true,
        outcome: Outcome::Up { ike: "i".into(), child: "c".into(), rekeyed: Rekeyed::Yes },
        init_answered: true,
        auth_sent: Some(AuthSent { natt: false, longest: 300 }),
        nat_local: true,
        nat_peer: false,
        peer_cas: None,
    });
    facts.experiments.mtu = Some(PathMtu { interface: 1500, measured: 1400, known: 1400 });
    assert_eq!(kinds(&facts), []);
    let text = examine(&facts).to_string();
    for check in [
        "configuration",
        "tun",
        "capabilities",
        "clock",
        "route",
        "ports",
        "rp_filter",
        "forwarding",
        "subnets",
        "firewall",
        "UDP",
        "path MTU",
        "IKE",
        "rekey",
    ] {
        assert!(text.contains(&format!("  {check} ")), "{check} is not in\n{text}");
    }
}

#[test]
fn no_text_has_the_key() {
    let mut facts = facts(config(""));
    failed(&mut facts, CloseReason::AuthenticationRefused);
    let report = examine(&facts);
    assert!(!report.to_string().contains("correct horse"));
    assert!(!serde_json::to_string(&report).unwrap().contains("correct horse"));
}

#[test]
fn what_causes_others_comes_first() {
    let mut facts = facts(config(""));
    failed(&mut facts, CloseReason::TrafficSelectors);
    facts.host.forwarding_v4.insert("all".to_owned(), false);
    facts.host.ports = vec![PortHolder { port: 500, process: Some(("charon".to_owned(), 7)) }];
    assert_eq!(kinds(&facts), [Kind::PortTaken, Kind::Selectors, Kind::Forwarding]);
}

#[test]
fn a_device_that_is_missing_is_found_unless_the_daemon_has_its_own() {
    let mut facts = facts(config(""));
    facts.host.tun = Some("there is none".to_owned());
    first(&facts, Kind::Tun, &["modprobe tun"]);
    facts.recorded = Recorded::Peer(Box::new(status(PeerState::Up)));
    assert_eq!(kinds(&facts), []);
}

#[test]
fn a_clock_before_its_own_files_is_wrong() {
    let mut facts = facts(config(""));
    facts.host.newest_file = Some(facts.host.now + Duration::from_secs(60));
    assert_eq!(kinds(&facts), [], "a minute is no reason");
    facts.host.newest_file = Some(facts.host.now + Duration::from_secs(86_400));
    first(&facts, Kind::Clock, &["2026-09-22"]);
}

#[test]
fn a_name_that_leads_nowhere_and_a_missing_route_are_found() {
    let mut unknown = facts(config("198.51.100.1\"=>b.example.net\""));
    unknown.resolved = Err("no such name".to_owned());
    unknown.route = None;
    first(&unknown, Kind::Resolve, &["b.example.net leads nowhere", "no such name"]);
    let mut lost = facts(config(""));
    lost.route = Some(Err("Network is unreachable".to_owned()));
    first(&lost, Kind::Route, &["no route to 198.51.100.1"]);
}

#[test]
fn a_local_address_that_is_not_ours_is_found() {
    let other = facts(config("[local]\n=>[local]\naddress = \"203.0.113.9\"\n"));
    first(&other, Kind::LocalAddress, &["203.0.113.9", "192.0.2.1"]);
    assert_eq!(kinds(&facts(config("[local]\n=>[local]\naddress = \"192.0.2.1\"\n"))), []);
}

#[test]
fn strict_rp_filter_matters_where_the_peer_is_within_its_own_subnets() {
    let mut facts = facts(config("10.2.1.0/24=>0.0.0.0/0"));
    facts.host.rp_filter.insert("wan0".to_owned(), 1);
    first(&facts, Kind::RpFilter, &["net.ipv4.conf.wan0.rp_filter=2"]);
    // The greater counts.
    facts.host.rp_filter.insert("all".to_owned(), 2);
    assert_eq!(kinds(&facts), []);
    facts.host.rp_filter.insert("all".to_owned(), 1);
    facts.config = config("");
    assert_eq!(kinds(&facts), []);
}

#[test]
fn forwarding_matters_for_hosts_behind_us_alone() {
    let mut facts = facts(config(""));
    facts.host.forwarding_v4.insert("all".to_owned(), false);
    first(&facts, Kind::Forwarding, &["10.1.1.0/24", "net.ipv4.ip_forward=1"]);
    facts.host.forwarding_v4.insert("all".to_owned(), true);
    facts.host.forwarding_v4.insert("lan0".to_owned(), false);
    first(&facts, Kind::Forwarding, &["net.ipv4.conf.lan0.forwarding=1"]);
    facts.config = config("10.1.1.0/24=>10.1.1.1/32");
    assert_eq!(kinds(&facts), []);
}

#[test]
fn subnets_that_are_here_too_are_found_and_a_default_route_is_none() {
    first(
        &facts(config("10.2.1.0/24=>10.5.0.128/25")),
        Kind::Subnets,
        &["10.5.0.128/25", "10.5.0.0/24", "lan1"],
    );
    assert_eq!(kinds(&facts(config("10.2.1.0/24=>0.0.0.0/0"))), []);
    assert_eq!(
        kinds(&facts(config("10.2.1.0/24=>10.4.0.0/15"))),
        [],
        "a hub has the spokes' subnets"
    );
    let mut two = facts(config(""));
    let mut other = config("10.2.1.0/24=>10.2.0.0/16");
    let ipsecd::config::Keying::Ike(peer) = &mut other.keying else { panic!("it has IKE") };
    std::sync::Arc::make_mut(peer).name = "other".into();
    two.others = vec![other];
    first(&two, Kind::Subnets, &["behind two peers: far and other"]);
}

#[test]
fn a_key_with_a_blank_at_its_end_is_odd() {
    first(&facts(config("staple\"=>staple \"")), Kind::Secret, &["ends in white space"]);
}

#[test]
fn which_port_is_blocked_follows_from_which_answers() {
    let mut facts = facts(config(""));
    failed(&mut facts, CloseReason::Unreachable { exchange: "IKE_AUTH", tries: 5 });
    let mut answers = |ike, natt, echo| {
        facts.experiments.port_500 = Some(ike);
        facts.experiments.port_4500 = Some(natt);
        facts.experiments.echo = echo;
        let report = examine(&facts);
        assert_eq!(report.findings.len(), 1, "{report}");
        (report.findings[0].kind, report.findings[0].cause.clone())
    };
    let (kind, cause) = answers(Answer::Ike, Answer::Silence, None);
    assert!(kind == Kind::PortBlocked && cause.contains("4500"), "{cause}");
    let (kind, cause) = answers(Answer::Silence, Answer::Ike, None);
    assert!(kind == Kind::PortBlocked && cause.contains("port 500 "), "{cause}");
    let (kind, cause) = answers(Answer::Closed, Answer::Closed, None);
    assert!(kind == Kind::PeerDown && cause.contains("no IKE daemon"), "{cause}");
    let (kind, cause) = answers(Answer::Silence, Answer::Silence, Some(true));
    assert!(kind == Kind::PortBlocked && cause.contains("answers ping"), "{cause}");
    let (kind, _) = answers(Answer::Silence, Answer::Silence, Some(false));
    assert_eq!(kind, Kind::PeerDown);
    let (kind, _) = answers(Answer::Unreachable, Answer::Silence, None);
    assert_eq!(kind, Kind::PeerDown);
    let (kind, cause) = answers(Answer::Filtered, Answer::Ike, None);
    assert!(kind == Kind::Firewall && cause.contains("this host itself"), "{cause}");
}

#[test]
fn long_messages_that_are_lost_are_found_by_sending_short_ones() {
    let mut facts = facts(config("[ike]\nfragmentation = \"no\"\n"));
    failed(&mut facts, CloseReason::Unreachable { exchange: "IKE_AUTH", tries: 5 });
    facts.experiments.small_fragments = Some(true);
    first(
        &facts,
        Kind::Fragments,
        &["1700 bytes", "fragmentation = \"yes\"", "charon.fragment_size"],
    );
    assert_eq!(kinds(&facts).len(), 1, "the silence is explained");
}

#[test]
fn a_black_hole_is_a_path_narrower_than_the_kernel_knows() {
    let mut facts = facts(config(""));
    facts.experiments.mtu = Some(PathMtu { interface: 1500, measured: 1280, known: 1500 });
    first(&facts, Kind::Mtu, &["1280 bytes", "[interface]", "mtu = 1", "clamp-mss"]);
    facts.experiments.mtu = Some(PathMtu { interface: 1500, measured: 1280, known: 1280 });
    assert_eq!(kinds(&facts), [], "the kernel has learnt it");
}

#[test]
fn proposals_are_compared_transform_by_transform() {
    let mut facts = facts(config("[ike]\nproposals = \"aes256-sha256-x25519\"\n"));
    failed(&mut facts, CloseReason::NoProposal("IKE_SA"));
    facts.experiments.widest_ike = Some(Some(IkeSuite {
        encr: Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(256) },
        integ: IntegId::AUTH_HMAC_SHA2_512_256,
        prf: PrfId::PRF_HMAC_SHA2_512,
        ke: KeId::CURVE25519,
        addke: AddKe::NONE,
    }));
    first(
        &facts,
        Kind::Proposal,
        &[
            "encryption here aes256; there aes256 (the same)",
            "integrity  here sha256; there sha512 (differs)",
            "group      here x25519; there x25519 (the same)",
            "proposals = [\"aes256-sha512-prfsha512-x25519\", \"aes256-sha256",
        ],
    );
    facts.experiments.widest_ike = Some(None);
    first(&facts, Kind::Proposal, &["takes nothing that this program has"]);
}

#[test]
fn who_the_peer_is_when_nobody_is_asked_for_tells_a_wrong_id_from_a_wrong_key() {
    let mut facts = facts(config(""));
    failed(&mut facts, CloseReason::AuthenticationRefused);
    first(&facts, Kind::Auth, &["another pre-shared key", "a.example.net", "secrets {"]);
    facts.experiments.anonymous = Some(Some(Identity::Fqdn("x.example.net".to_owned())));
    first(&facts, Kind::Identity, &["far is x.example.net", "id = \"x.example.net\""]);
    // The very one that is configured: then it is something else.
    facts.experiments.anonymous = Some(Some(Identity::Fqdn("b.example.net".to_owned())));
    first(&facts, Kind::Auth, &["another pre-shared key"]);
}

#[test]
fn subnets_are_shown_as_the_peer_has_them() {
    let mut facts = facts(config(""));
    failed(&mut facts, CloseReason::TrafficSelectors);
    let net = |text: &str, len| {
        ipsecd::ipsec::TrafficSelector::from_prefix(text.parse().unwrap(), len).unwrap()
    };
    facts.experiments.widest_ts =
        Some(Some((vec![net("10.9.0.0", 16)], vec![net("10.1.1.0", 24)])));
    first(
        &facts,
        Kind::Selectors,
        &[
            "10.2.1.0/24 here, 10.9.0.0/16 there (differ)",
            "subnets = [\"10.9.0.0/16\"]",
            "local_ts = 10.2.1.0/24",
        ],
    );
}

#[test]
fn a_rekey_that_is_refused_is_pfs_before_it_is_missed() {
    let mut facts = facts(config("[esp]\nproposals = \"aes256gcm16-x25519\"\n"));
    failed(&mut facts, CloseReason::TrafficSelectors);
    if let Some(attempt) = &mut facts.attempt {
        let reason = CloseReason::NoProposal("CHILD_SA");
        let rekeyed = Rekeyed::Refused(reason);
        attempt.outcome = Outcome::Up { ike: "i".into(), child: "c".into(), rekeyed };
    }
    facts.experiments.rekey_group = Some(Some(KeId::ECP_384));
    first(
        &facts,
        Kind::Pfs,
        &["here: x25519", "with ecp384 it is taken", "[\"aes256gcm16-ecp384\"]"],
    );
}

fn status(state: PeerState) -> PeerStatus {
    let text = format!(
        r#"{{"name":"far","file":"far.conf","state":"{}","last_error":null,"retry_in_seconds":null,"interface":"ipsec0",
            "mtu":1422,"routes":[],"ike_sas":[]}}"#,
        state.name()
    );
    serde_json::from_str(&text).expect("a status")
}

#[test]
fn what_the_daemon_met_last_is_told() {
    let mut facts = facts(config(""));
    let mut peer = status(PeerState::Retrying);
    peer.last_error = Some(Failure { code: Code::Proposal, message: "far has none".to_owned() });
    facts.recorded = Recorded::Peer(Box::new(peer));
    first(&facts, Kind::Proposal, &["far has none", "--live"]);
}

#[test]
fn the_report_is_json_for_programs() {
    let mut facts = facts(config(""));
    failed(&mut facts, CloseReason::TrafficSelectors);
    let value = serde_json::to_value(examine(&facts)).unwrap();
    assert_eq!(value["peer"], "far");
    assert_eq!(value["findings"][0]["kind"], "selectors");
    assert!(value["healthy"].as_array().unwrap().iter().any(|line| line["check"] == "route"));
}
