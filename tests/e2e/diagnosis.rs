//! `explain` and `trace` of a live daemon: one says what the other then shows.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::lab::process::{self, Process};
use crate::lab::{Ipsecd, Lab, Peer, traffic, wait};

/// `ipsecd explain --json`.
#[track_caller]
fn explain(daemon: &Ipsecd<'_>, args: &[&str]) -> Value {
    let args: Vec<_> = ["explain", "--json"].into_iter().chain(args.iter().copied()).collect();
    let text = process::run(&mut daemon.command(&args));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in: {text}"))
}

/// `ipsecd trace --json`, from the moment on at which it listens.
#[track_caller]
fn trace(daemon: &Ipsecd<'_>, log: &Path, args: &[&str]) -> Process {
    let args: Vec<_> = ["trace", "--json"].into_iter().chain(args.iter().copied()).collect();
    let trace = Process::start(&mut daemon.command(&args), log);
    wait::until("the trace to listen", wait::PATIENCE, || {
        trace.log().contains("tracing; end it").then_some(())
    });
    trace
}

/// What it has printed so far.
fn packets(trace: &Process) -> Vec<Value> {
    let log = trace.log();
    // The last line may be half written.
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn udp(from: &crate::lab::netns::Netns, to: IpAddr, port: u16) {
    let socket = from.enter(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.send_to(b"hello", (to, port)).expect("sent");
}

#[test]
fn explain_says_what_trace_then_shows() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (here, there) = (lab.a.host(1, false), lab.b.host(1, false));
    let [mut at_a, mut at_b] = [Peer::new(&lab.a, &lab.b, false), Peer::new(&lab.b, &lab.a, false)];
    let (a_net, b_net) = (lab.a.subnet(1, false), lab.b.subnet(1, false));
    at_a.esp = format!(
        "[[child]]\nname = \"web\"\nlocal = [\"{a_net}[tcp]\"]\npeer = [\"{b_net}[tcp/443]\"]\n\
         start = \"on-traffic\"\n[[child]]\nname = \"all\"\n"
    );
    at_b.esp = format!(
        "start = \"respond\"\n[[child]]\nname = \"web\"\nlocal = [\"{b_net}[tcp/443]\"]\n\
         peer = [\"{a_net}[tcp]\"]\n[[child]]\nname = \"all\"\n"
    );
    let [a, b] = [(&lab.a, &at_a), (&lab.b, &at_b)].map(|(side, peer)| Ipsecd::start(side, peer));
    b.must_up();
    a.must_up();
    let child = a.child();

    // A packet that passes.
    let packet = format!("{here}:1000 > {there}:2000/udp");
    let told = explain(&a, &[&packet, "--size=33"]);
    assert_eq!(told["verdict"], "protect", "{told:#}");
    assert_eq!(told["policy"]["name"], "far/all");
    assert_eq!(told["sas"][0]["spi"], child["spi_outbound"]);
    assert_eq!(told["route"]["interface"], "ipsec0");
    assert_eq!(told["route"]["input"], "lan0");
    assert_eq!(told["near"][0]["name"], "far/web", "{told:#}");
    let out = trace(
        &a,
        &lab.dir().join("out.log"),
        &["out", "proto", "udp", "dport", "2000", "--count=1"],
    );
    let received = trace(&b, &lab.dir().join("in.log"), &["in", "dport", "2000", "--count=1"]);
    udp(&lab.a.lan, there, 2000);
    let shown = wait::until("the packet", wait::PATIENCE, || packets(&out).pop());
    assert_eq!(shown["verdict"], "protect", "{shown:#}");
    assert_eq!((&shown["peer"], &shown["child"]), (&"far".into(), &"all".into()));
    assert_eq!(shown["spi"], told["sas"][0]["spi"]);
    assert_eq!(shown["size"], 33);
    assert_eq!(shown["wire_bytes"], told["length"]["wire"]);
    let arrived = wait::until("the packet", wait::PATIENCE, || packets(&received).pop());
    assert_eq!((&arrived["verdict"], &arrived["spi"]), (&"deliver".into(), &shown["spi"]));
    let told = explain(&b, &["--in", arrived["packet"].as_str().expect("it was opened")]);
    assert_eq!(told["verdict"], "deliver", "{told:#}");
    assert_eq!(told["sas"][0]["spi"], shown["spi"]);
    assert_eq!(told["route"]["interface"], "lan0");
    for mut trace in [out, received] {
        let ended = wait::until("--count to be reached", wait::PATIENCE, || trace.ended());
        assert!(ended.success(), "{}", trace.log());
    }

    // One that is too long, and may not be fragmented.
    let ping = format!("{here} > {there}/icmp");
    let told = explain(&a, &[&ping, "--size=1500"]);
    assert_eq!((&told["verdict"], &told["reason"]), (&"drop".into(), &"too-big".into()));
    let mtu = told["length"]["mtu"].as_u64().expect("an MTU");
    let fits = explain(&a, &[&ping, &format!("--size={mtu}")]);
    assert_eq!(fits["verdict"], "protect", "{fits:#}");
    assert!(fits["length"]["wire"].as_u64() <= Some(1500), "{fits:#}");
    let told = explain(&a, &[&ping, "--size=1500", "--may-fragment"]);
    assert_eq!((&told["verdict"], &told["length"]["packets"]), (&"protect".into(), &2.into()));

    // Elsewhere, and the other way round.
    let told = explain(&a, &[&format!("{here} > 203.0.113.9/icmp")]);
    assert_eq!(told["verdict"], "elsewhere", "{told:#}");
    assert_eq!(told["route"]["interface"], "wan0");
    let told = explain(&a, &[&format!("{there} > {here}/icmp")]);
    assert_eq!(
        told["near"][0]["why"],
        "it is for the other direction: swap source and destination"
    );

    // What comes and is not opened: an SPI that nobody has.
    let forged = trace(&b, &lab.dir().join("forged.log"), &["in", "verdict", "drop"]);
    let outside = lab.b.outside(false);
    let socket = lab.a.gw.enter(|| std::net::UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    socket.send_to(&[0x0b; 64], (outside, 4500)).expect("sent");
    let shown = wait::until("the forged packet", wait::PATIENCE, || packets(&forged).pop());
    assert_eq!((&shown["reason"], &shown["spi"]), (&"no-inbound-sa".into(), &"0x0b0b0b0b".into()));
    assert!(forged.end(nix::sys::signal::Signal::SIGTERM, wait::PATIENCE).code().is_none());

    // Several at a time, of which each sees its own; the text is for people.
    let all = trace(&a, &lab.dir().join("all.log"), &["tunnel", "far", "proto", "icmp"]);
    let none = trace(&a, &lab.dir().join("none.log"), &["tunnel", "elsewhere"]);
    traffic::ping(&lab.a.lan, here, there);
    let seen = wait::until("twenty packets", wait::PATIENCE, || {
        let seen = packets(&all);
        (seen.len() >= 20).then_some(seen)
    });
    let count = |direction: &str| seen.iter().filter(|it| it["direction"] == direction).count();
    assert_eq!((count("outbound"), count("inbound")), (10, 10));
    assert_eq!(packets(&none), [Value::Null; 0]);
    drop((all, none));

    // A policy without an SA asks for one.
    let told = explain(&a, &[&format!("{here}:1000 > {there}:443/tcp")]);
    assert_eq!((&told["verdict"], &told["policy"]["name"]), (&"wait".into(), &"far/web".into()));

    // Wrong questions.
    for (args, part) in [
        (&["explain", "10.1.0.1"][..], "10.1.0.5:1234 > 10.2.0.9:443/tcp"),
        (&["explain", "10.1.0.1:1 > 10.2.0.1:2/tcp", "--size=30"], "40 to 65535 bytes, not 30"),
        (&["trace", "colour", "red"], "no word of a filter"),
    ] {
        let output = process::output(&mut a.command(args));
        assert_eq!(output.status.code(), Some(2), "{}", process::text(&output));
        assert!(process::text(&output).contains(part), "{}", process::text(&output));
    }
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn explain_reads_files_where_no_daemon_runs() {
    let Some(lab) = Lab::open(&[]) else { return };
    let file = Ipsecd::file_of(&lab.a, &Peer::new(&lab.a, &lab.b, false));
    let packet = format!("{} > {}/icmp", lab.a.host(1, false), lab.b.host(1, false));
    let mut command = Command::new(crate::lab::ipsecd::BINARY);
    command.args(["explain", "--json", &packet, "--conf"]).arg(&file);
    let told: Value = serde_json::from_str(&process::run(&mut command)).expect("JSON");
    assert_eq!((&told["verdict"], &told["policy"]["name"]), (&"wait".into(), &"far/far".into()));
    assert_eq!(told["route"], Value::Null);
}
