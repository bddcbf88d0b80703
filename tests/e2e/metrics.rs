//! Metrics: what they count is what was sent, to the packet, and a real Prometheus reads them with our alerts and dashboard.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::lab::process::Process;
use crate::lab::stream::Stream;
use crate::lab::{Ipsecd, Lab, Need, Peer, http, process, wait};

const METRICS: &str = "127.0.0.1:9814";
const PROMETHEUS: &str = "127.0.0.1:9090";
/// Of a UDP packet of the stream: IP and UDP header, and what is in it.
const PACKET: u64 = 20 + 8 + 200;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address of ours")
}

/// A daemon at B, and one at A that tells metrics; their peer is up.
fn open<'a>(lab: &'a Lab, metrics: &str) -> (Ipsecd<'a>, Ipsecd<'a>) {
    let mut far = Peer::new(&lab.b, &lab.a, false);
    far.esp = "start = \"respond\"".to_owned();
    let b = Ipsecd::start_with_peer(&lab.b, &far);
    let near = Peer::new(&lab.a, &lab.b, false);
    let a = Ipsecd::start_with_flags(&lab.a, &near, &["--metrics", metrics]);
    a.up_within(wait::PATIENCE);
    (a, b)
}

#[track_caller]
fn scrape(lab: &Lab, accept: &str) -> String {
    let answer = http::get(&lab.a.gw, address(METRICS), "/metrics", accept).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// The value of the only sample that begins so.
#[track_caller]
fn value(text: &str, sample: &str) -> u64 {
    let mut found = text.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let value = found.next().unwrap_or_else(|| panic!("{sample} is not in:\n{text}"));
    assert!(found.next().is_none(), "{sample} is there twice");
    value.parse().unwrap_or_else(|error| panic!("{sample} {value}: {error}"))
}

#[test]
fn counters_match_what_was_sent_to_the_packet_also_across_rekeys() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b) = open(&lab, METRICS);
    let traffic = |text: &str| {
        ["packets", "bytes"].map(|what| {
            ["outbound", "inbound"].map(|direction| {
                let labels = format!("{{peer=\"far\",child=\"far\",direction=\"{direction}\"}}");
                value(text, &format!("ipsecd_tunnel_{what}_total{labels}"))
            })
        })
    };
    assert_eq!(traffic(&scrape(&lab, "*/*")), [[0, 0], [0, 0]]);
    let mut sent = [0, 0];
    for round in 0..2 {
        for (at, (from, to)) in [(&lab.a, &lab.b), (&lab.b, &lab.a)].into_iter().enumerate() {
            let stream = Stream::start(from, to, 1000);
            wait::until("the stream", wait::PATIENCE, || (stream.received() > 200).then_some(()));
            let account = stream.stop();
            assert!(account.lost.is_empty() && account.duplicated.is_empty(), "{account:?}");
            sent[at] += account.sent;
        }
        let bytes = sent.map(|packets| packets * PACKET);
        assert_eq!(traffic(&scrape(&lab, "*/*")), [sent, bytes], "round {round}");
        a.rekey(false);
        a.rekey(true);
    }
    let text = scrape(&lab, "*/*");
    assert_eq!(value(&text, "ipsecd_rekeys_total{kind=\"child\"}"), 2);
    assert_eq!(value(&text, "ipsecd_rekeys_total{kind=\"ike\"}"), 2);
    assert_eq!(value(&text, "ipsecd_sas_established_total{kind=\"ike\"}"), 1);
    assert_eq!(value(&text, "ipsecd_tunnels{state=\"up\"}"), 1);
    assert_eq!(value(&text, "ipsecd_tunnel_up{peer=\"far\"}"), 1);
    assert!(value(&text, "process_resident_memory_bytes") > 1_000_000);
    // Each packet that no SA is for counts once.
    let before = value(&text, "ipsecd_dropped_packets_total{reason=\"natt-malformed\"}");
    let target = lab.a.outside(false);
    lab.b.gw.enter(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        for _ in 0..17 {
            let _sent = socket.send_to(&[1, 2, 3], (target, 4500)).expect("a route");
        }
    });
    wait::until("17 packets to be dropped", wait::PATIENCE, || {
        let text = scrape(&lab, "*/*");
        let after = value(&text, "ipsecd_dropped_packets_total{reason=\"natt-malformed\"}");
        (after == before + 17).then_some(())
    });
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn real_prometheus_scrapes_evaluates_the_alerts_and_every_query_of_the_dashboard() {
    let Some(lab) = Lab::open(&[Need::Prometheus]) else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Somebody who never answers: configured, wanted, and down.
    let dir = lab.a.dir.join("ipsecd");
    fs::create_dir_all(&dir).expect("directory is made");
    let (ours, theirs) = (lab.a.subnet(2, false), lab.b.subnet(2, false));
    let (router, id) = (lab.b.router(false), lab.a.id());
    fs::write(
        dir.join("gone.conf"),
        format!(
            "[local]\nid = \"{id}\"\nsubnets = [\"{ours}\"]\n[peer]\naddress = \"{router}\"\n\
             id = \"gone\"\nsubnets = [\"{theirs}\"]\n[auth]\npsk = {{ file = \"far.psk\" }}\n"
        ),
    )
    .expect("file is written");
    let (a, b) = open(&lab, METRICS);

    let check = |args: &[&str], input: &str| {
        let mut promtool = lab.a.gw.command("promtool");
        let mut child = promtool
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool starts");
        let mut stdin = child.stdin.take().expect("it was asked for");
        stdin.write_all(input.as_bytes()).expect("promtool reads");
        drop(stdin);
        let output = child.wait_with_output().expect("promtool ends");
        assert!(output.status.success(), "promtool {args:?}: {}", process::text(&output));
    };
    check(&["check", "metrics"], &scrape(&lab, "*/*"));
    let rules = root.join("conf/alerts.yml");
    check(&["check", "rules", rules.to_str().expect("UTF-8")], "");

    let config = lab.a.dir.join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [{rules:?}]\n\
             scrape_configs:\n  - job_name: ipsecd\n    static_configs:\n      - targets: [{METRICS:?}]\n"
        ),
    )
    .expect("file is written");
    let mut prometheus = lab.a.gw.command("prometheus");
    prometheus
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", lab.a.dir.join("tsdb").display()))
        .arg(format!("--web.listen-address={PROMETHEUS}"));
    let prometheus = Process::start(&mut prometheus, &lab.a.dir.join("prometheus.log"));
    let query = |text: &str| {
        let path = format!("/api/v1/query?query={}", http::quoted(text));
        http::json(&lab.a.gw, address(PROMETHEUS), &path)
    };
    let first = |text: &str| -> Option<String> {
        let value = query(text)?["data"]["result"][0]["value"][1].as_str()?.to_owned();
        Some(value)
    };
    wait::until("Prometheus to have scraped", wait::PATIENCE, || {
        (first("ipsecd_tunnel_up{peer=\"far\"}")? == "1").then_some(())
    });
    assert_eq!(first("up{job=\"ipsecd\"}").as_deref(), Some("1"));
    assert_eq!(first("sum(ipsecd_tunnels)").as_deref(), Some("2"));
    let type_of =
        http::json(&lab.a.gw, address(PROMETHEUS), "/api/v1/metadata?metric=ipsecd_rekeys")
            .or_else(|| http::json(&lab.a.gw, address(PROMETHEUS), "/api/v1/metadata"))
            .expect("metadata");
    assert!(type_of.to_string().contains("counter"), "{type_of}");
    // The alert that matters most sees the one that is down, and not the other.
    let alert = wait::until("the alert", wait::PATIENCE, || {
        let alerts = http::json(&lab.a.gw, address(PROMETHEUS), "/api/v1/alerts")?;
        let alerts = alerts["data"]["alerts"].as_array()?.clone();
        let down = |alert: &&Value| alert["labels"]["alertname"] == "IpsecdTunnelDown";
        let down: Vec<_> = alerts.iter().filter(down).cloned().collect();
        (!down.is_empty()).then_some(down)
    });
    assert_eq!(alert.len(), 1, "{alert:?}");
    assert_eq!(alert[0]["labels"]["peer"], "gone");
    let rules = http::json(&lab.a.gw, address(PROMETHEUS), "/api/v1/rules").expect("rules");
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("a list").clone();
    assert!(rules.len() >= 8, "{rules:?}");
    for rule in &rules {
        assert_eq!(rule["lastError"].as_str().unwrap_or_default(), "", "{rule:#}");
    }

    let dashboard =
        fs::read_to_string(root.join("conf/grafana-dashboard.json")).expect("it is there");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let text = scrape(&lab, "*/*");
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let expr = target["expr"].as_str().expect("an expression");
            let expr = expr
                .replace("$instance", ".*")
                .replace("$peer", ".*")
                .replace("$__rate_interval", "1m");
            let answer = query(&expr).expect("an answer");
            assert_eq!(answer["status"], "success", "{}: {expr}: {answer}", panel["title"]);
            // A name that is none would be an empty answer, too.
            for name in expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                let is_ours = name.starts_with("ipsecd_") || name.starts_with("process_");
                assert!(!is_ours || text.contains(&format!("# TYPE {name} ")), "{name}");
            }
            queries += 1;
        }
    }
    assert!(queries >= 15, "{queries}");
    drop(prometheus);
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn metrics_are_local_unless_said_otherwise_and_probes_follow_the_daemon() {
    let Some(lab) = Lab::open(&[]) else { return };
    let near = Peer::new(&lab.a, &lab.b, false);
    let file = Ipsecd::file_of(&lab.a, &near);
    let dir = file.parent().expect("a directory").to_str().expect("UTF-8").to_owned();
    let mut refused = lab.a.gw.command(crate::lab::ipsecd::BINARY);
    refused.args(["daemon", "--config-dir", &dir, "--metrics", "0.0.0.0:9814"]);
    let output = process::output(&mut refused);
    assert_eq!(output.status.code(), Some(2), "{}", process::text(&output));
    assert!(process::text(&output).contains("--metrics-expose"), "{}", process::text(&output));

    let socket = "/run/ipsecd/metrics.sock";
    let (a, b) = open(&lab, &format!("unix:{socket}"));
    // Each host has a /run of its own, which is seen from outside under its directory.
    let path = lab.a.dir.join("run/ipsecd/metrics.sock");
    for (what, word) in [("/livez", "ok"), ("/readyz", "ok"), ("/metrics", "ipsecd_tunnel_up")] {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        write!(stream, "GET {what} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).expect("an answer");
        assert!(text.starts_with("HTTP/1.1 200") && text.contains(word), "{what}: {text}");
    }
    assert!(a.stop().success() && b.stop().success());
    assert!(!path.exists(), "the socket goes with the daemon");
}
