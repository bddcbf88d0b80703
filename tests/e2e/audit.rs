//! Audit events: forged, replayed and stray packets by Scapy, an authentication that fails, and a flood that stays bounded.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;

use serde_json::Value;

use crate::lab::{Ipsecd, Lab, Need, Peer, process, traffic, wait};

/// An interval of the audit log, and what a busy machine adds to it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

fn log_of(lab: &Lab) -> PathBuf {
    lab.a.dir.join("eve.json")
}

/// Every line so far, each of which has to be whole.
#[track_caller]
fn lines(lab: &Lab) -> Vec<Value> {
    let text = fs::read_to_string(log_of(lab)).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    whole.lines().map(parse).collect()
}

/// How many there were of an event, by all lines.
fn count(lines: &[Value], event: &str) -> u64 {
    let of_it = lines.iter().filter(|line| line["ipsec"]["event"] == event);
    of_it.map(|line| line["ipsec"]["count"].as_u64().expect("a number")).sum()
}

#[track_caller]
fn wait_for(lab: &Lab, event: &str, wanted: u64) -> Value {
    wait::until(&format!("{wanted} of {event}"), PATIENCE, || {
        let lines = lines(lab);
        let found = lines.iter().find(|line| line["ipsec"]["event"] == event)?.clone();
        (count(&lines, event) >= wanted).then_some(found)
    })
}

fn open(lab: &Lab) -> (Ipsecd<'_>, Ipsecd<'_>) {
    let mut far = Peer::new(&lab.b, &lab.a, false);
    far.esp = "start = \"respond\"".to_owned();
    let b = Ipsecd::start_with_peer(&lab.b, &far);
    let log = log_of(lab);
    let flags = ["--audit", log.to_str().expect("UTF-8")];
    let a = Ipsecd::start_with_flags(&lab.a, &Peer::new(&lab.a, &lab.b, false), &flags);
    a.up_within(wait::PATIENCE);
    (a, b)
}

/// Has Scapy send from B's gateway to A's: `body` makes a list `packets`.
#[track_caller]
fn scapy(lab: &Lab, body: &str) {
    let (from, to) = (lab.b.outside(false), lab.a.outside(false));
    let script = format!(
        "from scapy.all import *\nfrom scapy.layers.ipsec import ESP, AH\nconf.verb = 0\n\
         ip = IP(src={:?}, dst={:?})\n{body}\nsend(packets)\n",
        from.to_string(),
        to.to_string()
    );
    process::run(lab.b.gw.command("/usr/bin/python3").args(["-c", &script]));
}

#[test]
fn every_kind_of_bad_packet_is_audited_with_its_place_and_number() {
    let Some(lab) = Lab::open(&[Need::Scapy]) else { return };
    let (a, b) = open(&lab);
    traffic::ping(&lab.b.lan, lab.b.host(1, false), lab.a.host(1, false));
    let spi = a.child()["spi_inbound"].as_str().expect("an SPI").to_owned();
    let (from, to) = (lab.b.outside(false).to_string(), lab.a.outside(false).to_string());

    // A forged packet under the SPI that there is, far ahead; and a replayed number.
    scapy(
        &lab,
        &format!("packets = [ip/ESP(spi={spi}, seq=5000, data=b'x'*64) for n in range(3)]"),
    );
    let line = wait_for(&lab, "bad_icv", 3);
    assert_eq!((&line["src_ip"], &line["dest_ip"]), (&from.clone().into(), &to.clone().into()));
    assert_eq!((&line["proto"], &line["event_type"]), (&"ESP".into(), &"ipsec".into()));
    assert_eq!(line["spi"], spi);
    assert_eq!(line["ipsec"]["peer"], "far");
    assert_eq!(line["ipsec"]["sequence"], 5000);
    assert!(line["timestamp"].as_str().expect("a time").ends_with("+0000"), "{line}");

    scapy(&lab, &format!("packets = [ip/ESP(spi={spi}, seq=1, data=b'x'*64) for n in range(4)]"));
    let line = wait_for(&lab, "replay", 4);
    assert_eq!((&line["spi"], &line["ipsec"]["sequence"]), (&spi.clone().into(), &1.into()));

    scapy(&lab, "packets = [ip/ESP(spi=0xdeadbeef, seq=7, data=b'x'*64) for n in range(5)]");
    let line = wait_for(&lab, "unknown_spi", 5);
    assert_eq!((&line["spi"], &line["ipsec"]["sequence"]), (&"0xdeadbeef".into(), &7.into()));
    assert_eq!(line["ipsec"]["peer"], Value::Null);

    // AH for which there is no SA.
    scapy(
        &lab,
        "packets = [ip/AH(nh=4, payloadlen=4, spi=0x4301, seq=9, icv=b'i'*12)/IP()/UDP() for n in range(2)]",
    );
    let ah = wait::until("AH to be audited", PATIENCE, || {
        lines(&lab).into_iter().find(|line| line["proto"] == "AH")
    });
    assert_eq!((&ah["spi"], &ah["ipsec"]["event"]), (&"0x00004301".into(), &"unknown_spi".into()));

    assert!(a.stop().success() && b.stop().success());
    // To the packet, also with what waited for its interval when the daemon ended.
    let all = lines(&lab);
    let counts = ["bad_icv", "replay", "unknown_spi"].map(|event| count(&all, event));
    assert_eq!(counts, [3, 4, 7], "{all:#?}");
}

#[test]
fn authentication_that_fails_is_audited_with_where_it_came_from() {
    let Some(lab) = Lab::open(&[]) else { return };
    let log = log_of(&lab);
    let mut near = Peer::new(&lab.a, &lab.b, false);
    near.esp = "start = \"respond\"".to_owned();
    let flags = ["--audit", log.to_str().expect("UTF-8")];
    let a = Ipsecd::start_with_flags(&lab.a, &near, &flags);
    let mut far = Peer::new(&lab.b, &lab.a, false);
    far.psk = "another horse, and another battery".to_owned();
    let b = Ipsecd::start(&lab.b, &far);
    assert!(!b.up(15).status.success());
    let line = wait_for(&lab, "authentication_failed", 1);
    assert_eq!(line["src_ip"], lab.b.outside(false).to_string());
    assert_eq!((&line["proto"], &line["ipsec"]["peer"]), (&"UDP".into(), &"far".into()));
    let spis = line["spi"].as_str().expect("SPIs");
    assert_eq!(spis.len(), 16 + 1 + 16, "{spis}");
    assert!(!line.to_string().contains("horse"), "{line}");
    assert!(a.stop().success() && b.stop().success());
}

#[test]
fn flood_is_counted_to_the_packet_in_few_lines() {
    const PACKETS: u64 = 30_000;
    let Some(lab) = Lab::open(&[]) else { return };
    let (a, b) = open(&lab);
    let target = (lab.a.outside(false), 4500);
    let before = fs::metadata(log_of(&lab)).map_or(0, |file| file.len());
    // ESP in UDP with an SPI for each packet, from as many ports as one likes.
    let sent = lab.b.gw.enter(|| {
        let sockets: Vec<_> =
            (0..200).map(|_| UdpSocket::bind("0.0.0.0:0").expect("a socket")).collect();
        let mut sent = 0;
        for (number, socket) in (0..PACKETS).zip(sockets.iter().cycle()) {
            let spi = 0x1000 + u32::try_from(number).expect("it is small");
            let mut packet = spi.to_be_bytes().to_vec();
            packet.extend(u32::try_from(number).expect("it is small").to_be_bytes());
            packet.extend([0; 40]);
            sent += u64::from(socket.send_to(&packet, target).is_ok());
        }
        sent
    });
    // What the kernel's own queue let fall, nobody could count.
    let dropped = || a.status()["drops"]["no-inbound-sa"].as_u64().unwrap_or_default();
    let mut last = 0;
    let dropped = wait::until("the flood to be over", PATIENCE, || {
        let now = dropped();
        let is_over = now == last && now > 0;
        last = now;
        is_over.then_some(now)
    });
    assert!(a.stop().success() && b.stop().success());
    let all = lines(&lab);
    let counted = count(&all, "unknown_spi");
    let bytes = fs::metadata(log_of(&lab)).expect("it is there").len() - before;
    println!(
        "{sent} sent, {dropped} dropped, {counted} audited in {} lines, {bytes} bytes",
        all.len()
    );
    assert_eq!(counted, dropped);
    assert!(counted > 1000, "{counted}");
    // 64 lines an interval, and one for the rest, in a minute at most.
    assert!(all.len() <= 65 * 7, "{}", all.len());
    assert!(bytes < 200_000, "{bytes}");
}

/// A's file, with ESP that does not encrypt and whose key is known; in transport mode over IPv6, for the gateways themselves.
#[track_caller]
fn known_key(lab: &Lab, mode: &str) -> PathBuf {
    let v6 = mode == "transport";
    let selectors = if v6 {
        String::new()
    } else {
        format!("local = [\"{}\"]\npeer = [\"{}\"]", lab.a.subnet(1, false), lab.b.subnet(1, false))
    };
    let text = format!(
        "name = \"far\"\n[local]\naddress = \"{}\"\n[peer]\naddress = \"{}\"\n\
         [[manual]]\nname = \"known\"\nprotocol = \"esp\"\nmode = {mode:?}\nproposal = \"null-sha256\"\n{selectors}\n\
         spi-in = 0x1001\nspi-out = 0x1002\nauth-key-in = \"{}\"\nauth-key-out = \"{}\"\n",
        lab.a.outside(v6),
        lab.b.outside(v6),
        "ab".repeat(32),
        "cd".repeat(32)
    );
    let file = lab.a.dir.join("far.conf");
    let _none = fs::remove_file(&file);
    crate::cert::write(&file, text.as_bytes());
    file
}

/// Sends packets from B's gateway, under the key of [`known_key`], sealed by Python's own HMAC: in `body`, `send(inner, next)`.
#[track_caller]
fn sealed(lab: &Lab, v6: bool, body: &str) {
    let script = format!(
        "import hashlib, hmac, ipaddress, socket, struct\n\
         family = socket.{}\n\
         out = socket.socket(family, socket.SOCK_RAW, 50)\n\
         out.bind(({:?}, 0))\n\
         number = 0\n\
         def send(inner, next):\n\
         \x20 global number\n\
         \x20 number += 1\n\
         \x20 pad = -(len(inner) + 2) % 4\n\
         \x20 esp = struct.pack('!II', 0x1001, number) + inner + bytes(range(1, pad + 1)) + bytes([pad, next])\n\
         \x20 esp += hmac.new(b'\\xab' * 32, esp, hashlib.sha256).digest()[:16]\n\
         \x20 out.sendto(esp, ({:?}, 0))\n\
         def udp(source, target):\n\
         \x20 head = lambda check: struct.pack('!BBHHHBBH', 0x45, 0, 32, 0, 0, 64, 17, check) \\\n\
         \x20   + ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed\n\
         \x20 sum16 = sum(struct.unpack('!10H', head(0)))\n\
         \x20 sum16 = (sum16 & 0xffff) + (sum16 >> 16)\n\
         \x20 return head(~sum16 & 0xffff) + struct.pack('!HHHH', 1000, 2000, 12, 0) + b'data'\n\
         {body}\n",
        if v6 { "AF_INET6" } else { "AF_INET" },
        lab.b.outside(v6).to_string(),
        lab.a.outside(v6).to_string(),
    );
    process::run(lab.b.gw.command("/usr/bin/python3").args(["-c", &script]));
}

/// A's daemon with that file.
#[track_caller]
fn with_known_key<'a>(lab: &'a Lab, file: PathBuf) -> Ipsecd<'a> {
    let log = log_of(lab);
    let flags = ["--audit", log.to_str().expect("UTF-8")];
    let a = Ipsecd::start_for_file_with_flags(&lab.a, file, &flags);
    a.must_up();
    a
}

/// Lines of an event, which have these in common; how many it was is what the daemon's own counter says.
#[track_caller]
fn bounded(lab: &Lab, event: &str, wanted: u64) -> Value {
    let all = lines(lab);
    let of_it: Vec<_> = all.iter().filter(|line| line["ipsec"]["event"] == event).collect();
    assert_eq!(count(&all, event), wanted, "{all:#?}");
    // Those that came first at once, the rest after ten seconds or when the daemon ends.
    assert!((1..=8).contains(&of_it.len()), "{} lines", of_it.len());
    assert_eq!(all.len(), of_it.len(), "there is nothing else: {all:#?}");
    of_it[0].clone()
}

#[test]
fn what_is_outside_the_selectors_is_audited() {
    let Some(lab) = Lab::open(&[]) else { return };
    let a = with_known_key(&lab, known_key(&lab, "tunnel"));
    let (b_host, a_host) = (lab.b.host(1, false), lab.a.host(1, false));
    let socket = lab.a.lan.enter(|| UdpSocket::bind("0.0.0.0:2000")).expect("a socket");
    socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).expect("it is set");
    let received = || std::iter::from_fn(|| socket.recv(&mut [0; 64]).ok()).count();
    // What the SA may carry shows that key and form are right.
    sealed(&lab, false, &format!("send(udp('{b_host}', '{a_host}'), 4)"));
    let carried = || a.status()["peers"][0]["manual_sas"][0]["inbound"]["packets"].as_u64();
    wait::until("the packet", PATIENCE, || (carried() == Some(1)).then_some(()));
    assert_eq!(received(), 1);
    assert_eq!(lines(&lab), [Value::Null; 0]);

    // Another source, another target, and both right the wrong way round. Numbers go on where the one before ended.
    let others = [
        format!("('10.9.9.9', '{a_host}')"),
        format!("('{b_host}', '10.9.9.9')"),
        format!("('{a_host}', '{b_host}')"),
    ];
    sealed(
        &lab,
        false,
        &format!(
            "number = 1\nfor _ in range(200):\n  for ends in [{}]: send(udp(*ends), 4)",
            others.join(", ")
        ),
    );
    wait_for(&lab, "selector_violation", 1);
    let dropped = || a.status()["drops"]["inbound-selector-mismatch"].as_u64().unwrap_or_default();
    wait::until("all to be dropped", PATIENCE, || (dropped() == 600).then_some(()));
    assert_eq!(received(), 0, "none was delivered");
    assert!(a.stop().success());
    let line = bounded(&lab, "selector_violation", 600);
    assert_eq!(line["src_ip"], lab.b.outside(false).to_string());
    assert_eq!(line["dest_ip"], lab.a.outside(false).to_string());
    assert_eq!((&line["proto"], &line["spi"]), (&"ESP".into(), &"0x00001001".into()));
    assert_eq!(line["ipsec"]["peer"], "far");
    assert!(line["ipsec"]["sequence"].as_u64().is_some_and(|it| (2..=601).contains(&it)), "{line}");
}

/// RFC 4303 §3.4.1. Fragments of the outer packet are put together by the kernel before a socket sees them; what is left is a
/// peer that has protected a fragment, which in transport mode it must not (§3.3.4).
#[test]
fn a_fragment_in_transport_mode_is_audited() {
    let Some(lab) = Lab::open(&[]) else { return };
    let a = with_known_key(&lab, known_key(&lab, "transport"));
    // A UDP datagram's first eight bytes and more to come: next header 17, offset 0, M.
    let fragment =
        "struct.pack('!BBHI', 17, 0, 1, 0x4301) + struct.pack('!HHHH', 1000, 2000, 64, 0)";
    sealed(&lab, true, &format!("for _ in range(300): send({fragment}, 44)"));
    wait_for(&lab, "fragment", 1);
    let dropped = || a.status()["drops"]["transport-fragment"].as_u64().unwrap_or_default();
    wait::until("all to be dropped", PATIENCE, || (dropped() == 300).then_some(()));
    assert!(a.stop().success());
    let line = bounded(&lab, "fragment", 300);
    assert_eq!(line["src_ip"], lab.b.outside(true).to_string());
    assert_eq!((&line["proto"], &line["spi"]), (&"ESP".into(), &"0x00001001".into()));
    assert_eq!(line["ipsec"]["peer"], "far");
    assert!(line["ipsec"]["sequence"].as_u64().is_some_and(|it| (1..=300).contains(&it)), "{line}");
}

#[test]
fn an_sa_without_a_sequence_number_left_is_audited_and_sends_nothing() {
    let Some(lab) = Lab::open(&[]) else { return };
    let file = known_key(&lab, "tunnel");
    let a = Ipsecd::start_for_file(&lab.a, file.clone());
    a.must_up();
    assert!(a.stop().success());
    // As if all but five had been used.
    let state = fs::read_dir(lab.a.dir.join("run/ipsecd-state")).expect("it is there").flatten();
    let kept =
        state.map(|file| file.path()).find(|it| it.extension().is_some_and(|it| it == "seq"));
    let text = format!("ipsecd sequence numbers 1\n{}\n", u32::MAX - 5);
    fs::write(kept.expect("a counter is kept"), text).expect("file is written");
    let a = with_known_key(&lab, file);
    let socket = lab.a.lan.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    for _ in 0..200 {
        socket.send_to(b"hello", (lab.b.host(1, false), 9)).expect("sent");
    }
    wait_for(&lab, "sequence_overflow", 1);
    let sent = || {
        let status = a.status();
        let sa = &status["peers"][0]["manual_sas"][0];
        let number = sa["layers"][0]["sequence_outbound"].as_u64();
        (number, status["drops"]["sequence-exhausted"].as_u64().unwrap_or_default())
    };
    let last = (Some(u64::from(u32::MAX)), 195);
    wait::until("all to be dropped", PATIENCE, || (sent() == last).then_some(()));
    assert!(a.stop().success());
    let line = bounded(&lab, "sequence_overflow", 195);
    // Ours, and so from here to there.
    assert_eq!(line["src_ip"], lab.a.outside(false).to_string());
    assert_eq!(line["dest_ip"], lab.b.outside(false).to_string());
    assert_eq!((&line["proto"], &line["spi"]), (&"ESP".into(), &"0x00001002".into()));
    assert!(line["ipsec"]["reason"].as_str().is_some_and(|it| !it.is_empty()), "{line}");
    assert_eq!(line["ipsec"]["peer"], "far");
}

#[test]
fn lines_of_the_log_name_the_peer_and_both_spis_of_the_ike_sa_and_can_be_json() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut far = Peer::new(&lab.b, &lab.a, false);
    far.esp = "start = \"respond\"".to_owned();
    let b = Ipsecd::start_with_peer(&lab.b, &far);
    let near = Peer::new(&lab.a, &lab.b, false);
    let a = Ipsecd::start_with_flags(&lab.a, &near, &["--log-format", "json"]);
    a.up_within(wait::PATIENCE);
    a.rekey(false);
    let spi_i = a.ike()["spi_i"].as_str().expect("an SPI").to_owned();
    let log = a.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.len() > 10, "{log}");
    let of_sa: Vec<_> =
        lines.iter().filter(|line| line["span"]["spi_i"] == spi_i.as_str()).collect();
    assert!(of_sa.len() > 2, "{log}");
    for line in of_sa {
        assert_eq!(line["span"]["name"], "ike_sa");
        assert!(line["span"]["spi_r"].as_str().is_some_and(|spi| spi.len() == 16), "{line}");
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    assert!(lines.iter().any(|line| line["span"]["peer"] == "far"), "{log}");
    assert!(a.stop().success() && b.stop().success());
}
