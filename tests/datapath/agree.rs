//! What is explained is what happens: 1,000 random packets over an SPD of 50 entries, explained before they are handed to
//! the datapath, and traced while it does with them what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ipsecd::datapath::filter::Filter;
use ipsecd::datapath::probe::Probe;
use ipsecd::datapath::tap::{Record, Tracer, Verdict};
use ipsecd::datapath::{Form, Options};
use ipsecd::ipsec::{Action, Flow, Mode, PolicyId, SadUpdate, Spd, SpdEntry, Spi, TrafficSelector};
use ipsecd::testing::FixedRandom;
use ipsecd::testing::gateways::Kind;

use crate::support::*;

const ENTRIES: u32 = 50;
const FLOWS: usize = 1000;

/// What a tracer was told of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Traced {
    verdict: Verdict,
    flow: Option<Flow>,
    policy: Option<PolicyId>,
    spi: Option<Spi>,
    packets: usize,
    wire_len: usize,
}

/// Keeps what it is told.
#[derive(Default)]
struct Notebook(Mutex<Vec<Traced>>);

impl Notebook {
    fn take_all(&self) -> Vec<Traced> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Tracer for Notebook {
    fn take(&self, record: &Record<'_>) {
        let &Record { verdict, flow, policy, spi, packets, wire_len, .. } = record;
        self.0.lock().unwrap().push(Traced { verdict, flow, policy, spi, packets, wire_len });
    }
}

fn choose<T: Clone>(random: &mut FixedRandom, from: &[T]) -> T {
    from[random.below(from.len())].clone()
}

/// Both versions of one side of an entry, with protocol and ports.
fn side(number: u8, part: usize, protocol: u8, ports: (u16, u16)) -> Arc<[TrafficSelector]> {
    let (start_port, end_port) = ports;
    let narrow = |text: String| TrafficSelector { protocol, start_port, end_port, ..prefix(&text) };
    [narrow(format!("10.{number}.{part}.0/24")), narrow(format!("fd0{number}:{part}::/32"))].into()
}

/// Everything at A's side.
fn side_a(protocol: u8) -> Arc<[TrafficSelector]> {
    [prefix("10.1.0.0/16"), prefix("fd01::/16")]
        .map(|whole| TrafficSelector { protocol, ..whole })
        .into()
}

fn host(number: u8) -> Arc<[TrafficSelector]> {
    [prefix(&format!("192.0.2.{number}/32")), prefix(&format!("2001:db8::{number}/128"))].into()
}

/// Two gateways under one SPD of every sort of entry, with every sort of SA, or none.
fn gateways(random: &mut FixedRandom) -> (Gateway, Gateway) {
    let tunnels: Vec<_> =
        Kind::all().into_iter().filter(|kind| kind.mode == Mode::Tunnel).collect();
    let transports: Vec<_> =
        Kind::all().into_iter().filter(|kind| kind.mode == Mode::Transport).collect();
    let (mut at_a, mut at_b, mut sas) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..ENTRIES {
        let policy = PolicyId(number);
        let part = random.below(10);
        let (protocol, ports) = choose(
            random,
            &[(0, (0, 65535)), (6, (0, 443)), (17, (1, 1000)), (6, (0, 65535)), (17, (0, 65535))],
        );
        let transport = number % 10 == 9;
        let (ts_a, ts_b) = if transport {
            (host(1), host(2))
        } else {
            (side_a(protocol), side(2, part, protocol, ports))
        };
        let action = match random.below(10) {
            0 | 1 => Action::Bypass,
            2 => Action::Discard,
            _ => Action::Protect(policy),
        };
        let entry = |ts_local: &Arc<[_]>, ts_peer: &Arc<[_]>| SpdEntry {
            ts_local: Arc::clone(ts_local),
            ts_peer: Arc::clone(ts_peer),
            action,
            name: None,
        };
        at_a.push(entry(&ts_a, &ts_b));
        at_b.push(entry(&ts_b, &ts_a));
        if let Action::Protect(_) = action
            && !random.chance(20)
        {
            let kind = choose(random, if transport { &transports } else { &tunnels });
            sas.push((policy, kind, part, (protocol, ports), transport, ts_a, ts_b));
        }
    }
    let mut a = Gateway::new(Spd::new(at_a), Options::default());
    let mut b = Gateway::new(Spd::new(at_b), Options::default());
    for (policy, kind, part, (protocol, ports), transport, ts_a, ts_b) in sas {
        let (narrowed, exhausted, tfc) = (random.chance(30), random.chance(20), random.chance(20));
        let far_narrowed = random.chance(40);
        let narrow = |ts: &Arc<[TrafficSelector]>| -> Arc<[TrafficSelector]> {
            if transport {
                return Arc::clone(ts);
            }
            let narrow = |text: String| TrafficSelector {
                protocol,
                start_port: ports.0,
                end_port: ports.1,
                ..prefix(&text)
            };
            [narrow(format!("10.2.{part}.0/25")), narrow(format!("fd02:{part}:8000::/33"))].into()
        };
        for at_a in [true, false] {
            let mut params = kind.params(true, at_a);
            params.policy = policy;
            params.spi = Spi::new(0x1_0000 + policy.0).unwrap();
            params.other_spi = Spi::new(0x2_0000 + policy.0).unwrap();
            params.tfc = if tfc { 600 } else { 0 };
            params.sequence = if exhausted && !kind.esn { u32::MAX.into() } else { 0 };
            let ts_b =
                if narrowed || (far_narrowed && !at_a) { narrow(&ts_b) } else { Arc::clone(&ts_b) };
            let (ts_local, ts_peer) =
                if at_a { (Arc::clone(&ts_a), ts_b) } else { (ts_b, Arc::clone(&ts_a)) };
            if let Some(around) = &mut params.around {
                around.policy = policy;
                around.spi = Spi::new(0x3_0000 + policy.0).unwrap();
                around.other_spi = Spi::new(0x4_0000 + policy.0).unwrap();
                (around.ts_local, around.ts_peer) = (Arc::clone(&ts_local), Arc::clone(&ts_peer));
            }
            (params.ts_local, params.ts_peer) = (ts_local, ts_peer);
            if at_a {
                a.apply(SadUpdate::AddOutbound(Box::new(params)));
            } else {
                b.apply(SadUpdate::AddInbound(Box::new(params)));
            }
        }
    }
    (a, b)
}

fn packet(random: &mut FixedRandom) -> (Probe, Vec<u8>) {
    let v6 = random.chance(40);
    let mut addr = |number: u8, parts: usize| -> IpAddr {
        let (part, last) = (random.below(parts), 1 + random.below(250));
        let text = if !v6 {
            format!("10.{number}.{part}.{last}")
        } else if random.chance(50) {
            format!("fd0{number}:{part}::{last:x}")
        } else {
            format!("fd0{number}:{part}:8000::{last:x}")
        };
        text.parse().unwrap()
    };
    let (mut src, mut dst) = (addr(1, 4), addr(2, 11));
    if random.chance(15) {
        let host = |last| if v6 { format!("2001:db8::{last}") } else { format!("192.0.2.{last}") };
        (src, dst) = (host(1).parse().unwrap(), host(2).parse().unwrap());
    }
    let protocol = choose(random, &[6, 6, 6, 17, 17, if v6 { 58 } else { 1 }, 89]);
    let ports = match protocol {
        6 | 17 => Some((choose(random, &[1024, 50_000]), choose(random, &[443, 53, 80, 5000]))),
        1 => Some((8, 0)),
        58 => Some((128, 0)),
        _ => None,
    };
    let probe = Probe { flow: Flow { src, dst, protocol, ports } };
    let len = choose(random, &[80, 300, 1300, 1400, 1440, 1500, 2000, 3500]) + random.below(40);
    let may_fragment = !v6 && random.chance(50);
    (probe, probe.packet(len, may_fragment).unwrap())
}

#[test]
fn what_is_explained_is_what_a_trace_then_shows() {
    let mut random = FixedRandom::new(4301, 0);
    let (mut a, mut b) = gateways(&mut random);
    let (book_a, book_b) = (Arc::<Notebook>::default(), Arc::<Notebook>::default());
    let tracer: Arc<dyn Tracer> = Arc::<Notebook>::clone(&book_a);
    a.datapath.tap().add(Arc::clone(&tracer));
    b.datapath.tap().add(Arc::<Notebook>::clone(&book_b));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let (mut policies, mut arrived, mut cut) = (BTreeSet::new(), BTreeMap::new(), 0);
    for _ in 0..FLOWS {
        let (probe, packet) = packet(&mut random);
        let fate = a.datapath.explain_outbound(&packet);
        let (verdict, policy) = (fate.verdict, fate.policy);
        let spi = fate.sa.map(|sa| sa.sa.params().spi);
        let (packets, wire_len, outer_fragments) =
            (fate.packets, fate.wire_len, fate.outer_fragments);
        a.send(&[packet]);
        let traced = book_a.take_all();
        let [traced] = &traced[..] else { panic!("{probe}: one packet, {traced:?}") };
        let what = format!("{probe}: {traced:?}");
        assert_eq!(traced.flow, Some(probe.flow), "{what}");
        assert_eq!((traced.verdict, traced.policy, traced.spi), (verdict, policy, spi), "{what}");
        if verdict == Verdict::Protect && !outer_fragments {
            assert_eq!((traced.packets, traced.wire_len), (packets, wire_len), "{what}");
            cut += usize::from(packets > 1);
        }
        let name = verdict.reason().map_or(verdict.name(), |reason| reason.name());
        *seen.entry(name.to_owned()).or_default() += 1;
        policies.extend(policy);

        // What came of it at the other end.
        let whole = |form| form == Form::Packet && traced.packets > 1;
        if let [first, ..] = &a.outbound.sealed[..]
            && !whole(first.form)
        {
            let sealed = std::mem::take(&mut a.outbound.sealed);
            b.receive_sealed(&sealed);
            for traced in book_b.take_all() {
                let flow = traced.flow.expect("it was opened");
                let explained = b.datapath.explain_inbound(&flow);
                let admits = explained
                    .admits
                    .iter()
                    .any(|sa| sa.sa.params().policy == traced.policy.expect("it has an SA"));
                assert_eq!(traced.verdict == Verdict::Deliver, admits, "{probe}: {traced:?}");
                *arrived.entry(traced.verdict.name()).or_default() += 1;
            }
        }
    }
    // The test is worth something only if everything has come up.
    let wanted = ["bypass", "no-policy", "outbound-selector-mismatch", "policy-discard", "protect"];
    for name in wanted.into_iter().chain(["sequence-exhausted", "too-big", "wait"]) {
        assert!(seen.get(name).is_some_and(|count| *count >= 10), "{name}: {seen:?}");
    }
    assert!(policies.len() >= 10, "{policies:?}");
    assert!(cut >= 10, "{cut} were cut into fragments");
    assert!(arrived.values().all(|count: &usize| *count >= 5) && arrived.len() == 2, "{arrived:?}");

    a.datapath.tap().remove(&tracer);
    a.send(&[udp(false, 100)]);
    assert_eq!(book_a.take_all(), [], "nobody listens any more");
}

#[test]
fn a_filter_takes_what_it_says_from_what_passes() {
    struct Filtered(Filter, Notebook);
    impl Tracer for Filtered {
        fn take(&self, record: &Record<'_>) {
            if self.0.matches(record, |_| Some(("site-b", "lan"))) {
                self.1.take(record);
            }
        }
    }
    let (mut a, _) = pair(gcm());
    let dropped = Arc::new(Filtered("verdict drop".parse().unwrap(), Notebook::default()));
    let lan = Arc::new(Filtered("tunnel site-b/lan".parse().unwrap(), Notebook::default()));
    a.datapath.tap().add(Arc::<Filtered>::clone(&dropped));
    a.datapath.tap().add(Arc::<Filtered>::clone(&lan));
    a.send(&[udp(false, 100), ip_between("10.1.0.1", "10.9.0.1", 99, &[])]);
    let reasons = |of: &Filtered| -> Vec<_> {
        of.1.take_all().iter().map(|traced| traced.verdict.reason()).collect()
    };
    assert_eq!(reasons(&dropped), [Some(ipsecd::datapath::DropReason::NoPolicy)]);
    assert_eq!(reasons(&lan), [None]);
}
