use proptest::prelude::*;

use super::*;

fn prefix(text: &str) -> TrafficSelector {
    let (addr, len) = text.split_once('/').unwrap();
    TrafficSelector::from_prefix(addr.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn range(start: &str, end: &str) -> TrafficSelector {
    TrafficSelector {
        start_addr: start.parse().unwrap(),
        end_addr: end.parse().unwrap(),
        ..prefix("0.0.0.0/0")
    }
}

fn with(protocol: u8, start_port: u16, end_port: u16) -> TrafficSelector {
    TrafficSelector { protocol, start_port, end_port, ..prefix("10.0.0.0/8") }
}

fn flow(protocol: u8, ports: Option<(u16, u16)>) -> Flow {
    Flow { src: "10.0.0.1".parse().unwrap(), dst: "10.0.0.2".parse().unwrap(), protocol, ports }
}

const ANY: (u16, u16) = (0, 65535);
const OPAQUE: (u16, u16) = (65535, 0);

#[test]
fn prefixes_become_ranges() {
    assert_eq!(prefix("10.1.2.3/16"), range("10.1.0.0", "10.1.255.255"), "host bits are ignored");
    assert_eq!(prefix("0.0.0.0/0"), range("0.0.0.0", "255.255.255.255"));
    assert_eq!(prefix("10.0.0.1/32"), TrafficSelector::from_addr("10.0.0.1".parse().unwrap()));
    assert_eq!(
        prefix("fd00::/8").end_addr,
        "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse::<IpAddr>().unwrap()
    );
    assert_eq!(prefix("::/0").start_addr, "::".parse::<IpAddr>().unwrap());
    assert_eq!(prefix("fd00::1/128").start_addr, prefix("fd00::1/128").end_addr);
    assert_eq!(TrafficSelector::from_prefix("10.0.0.0".parse().unwrap(), 33), None);
    assert_eq!(TrafficSelector::from_prefix("::".parse().unwrap(), 129), None);
}

#[test]
fn ranges_become_the_fewest_prefixes() {
    let cover = |ts: TrafficSelector| -> Vec<String> {
        ts.prefixes().iter().map(|(addr, len)| format!("{addr}/{len}")).collect()
    };
    assert_eq!(cover(range("10.0.0.0", "10.0.0.255")), ["10.0.0.0/24"]);
    assert_eq!(
        cover(range("10.0.0.1", "10.0.0.9")),
        ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/30", "10.0.0.8/31"]
    );
    assert_eq!(cover(range("0.0.0.0", "255.255.255.255")), ["0.0.0.0/0"]);
    assert_eq!(cover(prefix("::/0")), ["::/0"]);
    assert_eq!(cover(range("255.255.255.254", "255.255.255.255")), ["255.255.255.254/31"]);
    assert_eq!(cover(range("0.0.0.1", "255.255.255.254")).len(), 62, "the longest for IPv4");
    assert_eq!(cover(range("10.0.0.9", "10.0.0.1")), Vec::<String>::new());
}

#[test]
fn ports_contain_what_they_say() {
    let contains =
        |(start, end), protocol, ports| with(17, start, end).contains_src(&flow(protocol, ports));
    assert!(contains((1000, 2000), 17, Some((1000, 9))));
    assert!(contains((1000, 2000), 17, Some((2000, 9))));
    assert!(!contains((1000, 2000), 17, Some((2001, 9))));
    assert!(!contains((1000, 2000), 6, Some((1500, 9))), "another protocol");
    assert!(with(17, 9, 9).contains_dst(&flow(17, Some((1000, 9)))));
    assert!(!with(17, 9, 9).contains_dst(&flow(17, Some((9, 1000)))));
}

#[test]
fn a_later_fragment_matches_any_and_opaque_alone() {
    let contains = |(start, end), ports| {
        let ts = with(17, start, end);
        let flow = flow(17, ports);
        assert_eq!(ts.contains_src(&flow), ts.contains_dst(&flow));
        ts.contains_src(&flow)
    };
    assert!(contains(ANY, None));
    assert!(contains(OPAQUE, None));
    assert!(!contains((1, 65535), None));
    assert!(!contains((9, 9), None));
    assert!(contains(ANY, Some((9, 9))), "ANY includes everything");
    assert!(!contains(OPAQUE, Some((9, 9))));
    assert!(!contains(OPAQUE, Some((0, 0))));
    assert!(!contains(OPAQUE, Some((65535, 65535))));
}

#[test]
fn icmp_type_and_code_are_judged_by_the_senders_selector() {
    // RFC 4301 §4.4.1.3 C: echo requests may be sent and not received.
    let echo = with(1, 0x0800, 0x0800);
    let opaque = with(1, OPAQUE.0, OPAQUE.1);
    let ping = flow(1, Some((8, 0)));
    assert!(echo.contains_src(&ping) && opaque.contains_dst(&ping), "we send it");
    assert!(!(opaque.contains_src(&ping) && echo.contains_dst(&ping)), "we do not receive it");
    assert!(!echo.contains_src(&flow(1, Some((0, 0)))), "an answer is no request");
    assert!(with(1, 0x0300, 0x03ff).contains_src(&flow(1, Some((3, 4)))));
    assert!(!with(1, 0x0300, 0x0303).contains_src(&flow(1, Some((3, 4)))));
}

#[test]
fn versions_do_not_mix() {
    let six =
        Flow { src: "fd00::1".parse().unwrap(), dst: "fd00::2".parse().unwrap(), ..flow(6, None) };
    assert!(!prefix("0.0.0.0/0").contains_src(&six));
    assert!(!prefix("::/0").contains_src(&flow(6, None)));
    assert_eq!(prefix("0.0.0.0/0").intersect(&prefix("::/0")), None);
}

#[test]
fn intersections() {
    let any = with(0, 0, 65535);
    let meet = |a: TrafficSelector, b: TrafficSelector| {
        assert_eq!(a.intersect(&b), b.intersect(&a), "either way");
        a.intersect(&b)
    };
    assert_eq!(meet(prefix("10.1.0.0/16"), prefix("10.0.0.0/8")), Some(prefix("10.1.0.0/16")));
    assert_eq!(
        meet(range("10.0.0.0", "10.0.0.9"), range("10.0.0.5", "10.0.1.0")),
        Some(range("10.0.0.5", "10.0.0.9"))
    );
    assert_eq!(meet(prefix("10.1.0.0/16"), prefix("10.2.0.0/16")), None);
    assert_eq!(meet(any, with(17, 53, 53)), Some(with(17, 53, 53)));
    assert_eq!(meet(with(6, 53, 53), with(17, 53, 53)), None);
    assert_eq!(meet(with(17, 50, 60), with(17, 55, 70)), Some(with(17, 55, 60)));
    assert_eq!(meet(with(17, 50, 60), with(17, 61, 70)), None);
    assert_eq!(meet(with(17, OPAQUE.0, OPAQUE.1), with(17, 1, 65535)), None);
    assert_eq!(meet(with(17, OPAQUE.0, OPAQUE.1), any), Some(with(17, OPAQUE.0, OPAQUE.1)));
    assert!(with(17, OPAQUE.0, OPAQUE.1).is_subset(&any), "ANY includes OPAQUE");
    assert!(!any.is_subset(&with(17, 0, 65535)));
}

#[test]
fn prints_as_an_operator_would_write_it() {
    assert_eq!(prefix("10.1.0.0/16").to_string(), "10.1.0.0/16");
    assert_eq!(prefix("fd01::/64").to_string(), "fd01::/64");
    assert_eq!(range("10.0.0.1", "10.0.0.9").to_string(), "10.0.0.1-10.0.0.9");
    assert_eq!(with(17, 53, 53).to_string(), "10.0.0.0/8[udp/53]");
    assert_eq!(with(6, 1, 9).to_string(), "10.0.0.0/8[tcp/1-9]");
    assert_eq!(with(58, 0, 65535).to_string(), "10.0.0.0/8[icmpv6]");
    assert_eq!(with(99, OPAQUE.0, OPAQUE.1).to_string(), "10.0.0.0/8[99/opaque]");
}

#[test]
fn bounds_in_the_wrong_order_contain_nothing() {
    assert!(!range("10.0.0.9", "10.0.0.1").is_valid());
    assert!(!with(17, 9, 8).is_valid());
    assert!(with(17, OPAQUE.0, OPAQUE.1).is_valid());
    let mixed = TrafficSelector { end_addr: "::1".parse().unwrap(), ..prefix("10.0.0.0/8") };
    assert!(!mixed.is_valid());
    assert_eq!(mixed.prefixes(), []);
}

prop_compose! {
    fn selector()(
        start in any::<u8>(), len in 0_u8..60, protocol in prop::sample::select(vec![0_u8, 6, 17]),
        ports in prop_oneof![Just(ANY), Just(OPAQUE), (0_u16..20, 0_u16..20).prop_map(|(a, b)| (a.min(b), a.max(b)))],
    ) -> TrafficSelector {
        let end = start.saturating_add(len);
        let (start_port, end_port) = if protocol == 0 { ANY } else { ports };
        let addr = |last| IpAddr::from([10, 0, 0, last]);
        TrafficSelector { protocol, start_port, end_port, start_addr: addr(start), end_addr: addr(end) }
    }
}

proptest! {
    #[test]
    fn an_intersection_contains_what_both_contain(
        a in selector(), b in selector(), last in any::<u8>(),
        protocol in prop::sample::select(vec![6_u8, 17, 50]), port in prop::option::of(0_u16..22),
    ) {
        let flow = Flow { src: IpAddr::from([10, 0, 0, last]), ..flow(protocol, port.map(|port| (port, 0))) };
        let both = a.contains_src(&flow) && b.contains_src(&flow);
        prop_assert_eq!(a.intersect(&b).is_some_and(|ts| ts.contains_src(&flow)), both);
        if let Some(common) = a.intersect(&b) {
            prop_assert!(common.is_subset(&a) && common.is_subset(&b) && common.is_valid());
        }
    }

    #[test]
    fn prefixes_hold_exactly_the_range(a in any::<u32>(), b in any::<u32>()) {
        let (start, end) = (a.min(b), a.max(b));
        let ts = TrafficSelector {
            start_addr: Ipv4Addr::from_bits(start).into(),
            end_addr: Ipv4Addr::from_bits(end).into(),
            ..prefix("0.0.0.0/0")
        };
        let mut next = u64::from(start);
        for (addr, len) in ts.prefixes() {
            let part = TrafficSelector::from_prefix(addr, len).unwrap();
            let (IpAddr::V4(first), IpAddr::V4(last)) = (part.start_addr, part.end_addr) else { unreachable!() };
            prop_assert_eq!(u64::from(first.to_bits()), next, "no gap, no overlap");
            prop_assert_eq!(part.start_addr, addr, "aligned");
            next = u64::from(last.to_bits()) + 1;
        }
        prop_assert_eq!(next, u64::from(end) + 1);
    }
}
