//! Two gateways with as many tunnels between them as one likes.

#![allow(dead_code, reason = "not every bench needs all of it")]

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipsecd::crypto::Secret;
use ipsecd::datapath::{Datapath, Options};
use ipsecd::ipsec::{
    Action, Encap, Path, PolicyId, SaParams, SadUpdate, Spd, SpdEntry, Spi, TrafficSelector,
};
use ipsecd::testing::peers;

use super::common::{Samples, now, time};

/// Two gateways with so many tunnels between them.
#[derive(Clone)]
pub(crate) struct Gateways {
    pub(crate) count: u32,
    pub(crate) sender: Datapath,
    pub(crate) receiver: Datapath,
}

impl Gateways {
    pub(crate) fn new(count: u32) -> Self {
        Self::grown_to(count).0
    }

    /// Also says how long it took to install a tunnel at first and at last, in µs, each as the update of a snapshot.
    pub(crate) fn grown_to(count: u32) -> (Self, f64, f64) {
        let [spd_a, spd_b] = [true, false].map(|at_a| spd(count, at_a));
        let mut sender = Datapath::new(Options::default(), spd_a, now());
        let mut receiver = Datapath::new(Options::default(), spd_b, now());
        let [mut first, mut last] = [(); 2].map(|()| Samples::default());
        for number in 0..count {
            let taken = time(|| {
                for from_a in [true, false] {
                    receiver = receiver.apply(&update(number, from_a, false)).expect("an SA");
                }
            });
            sender = sender.apply(&update(number, true, true)).expect("an SA");
            if (10..110).contains(&number) {
                first.push(taken, 1);
            }
            if number + 100 >= count {
                last.push(taken, 1);
            }
        }
        let first = if count < 10 { 0.0 } else { first.median() / 1e3 };
        (Self { count, sender, receiver }, first, last.median() / 1e3)
    }
}

pub(crate) fn spd(count: u32, at_a: bool) -> Spd {
    let entry = |number| {
        let [a, b] = selectors(number);
        let (ts_local, ts_peer) = if at_a { (a, b) } else { (b, a) };
        SpdEntry { ts_local, ts_peer, action: Action::Protect(PolicyId(number)), name: None }
    };
    Spd::new((0..count).map(entry).collect())
}

/// Who talks through a tunnel: on our side, and on the other.
pub(crate) fn hosts(number: u32) -> [Ipv4Addr; 2] {
    let [a, b, c, _] = site(number);
    [[172, 16, 0, 1].into(), [a, b, c, 1].into()]
}

fn site(number: u32) -> [u8; 4] {
    (0x0a00_0000 | number << 8).to_be_bytes()
}

/// 172.16.0.0/12 on our side, and a /24 for each tunnel on the other.
fn selectors(number: u32) -> [Arc<[TrafficSelector]>; 2] {
    let prefix =
        |addr: [u8; 4], len| TrafficSelector::from_prefix(addr.into(), len).expect("a prefix");
    [Arc::from([prefix([172, 16, 0, 0], 12)]), Arc::from([prefix(site(number), 24)])]
}

pub(crate) fn path(number: u32, at_a: bool) -> Path {
    let host = |bits: u32| std::net::SocketAddr::new(Ipv4Addr::from_bits(bits).into(), 4500);
    let (a, b) = (host(0xc000_0201), host(0x6440_0000 | number));
    let (local, remote) = if at_a { (a, b) } else { (b, a) };
    Path { local, remote, encap: Encap::Udp }
}

fn update(number: u32, from_a: bool, at_a: bool) -> SadUpdate {
    let [ts_a, ts_b] = selectors(number);
    let (ts_local, ts_peer) = if at_a { (ts_a, ts_b) } else { (ts_b, ts_a) };
    // As IKE chooses them: anything.
    let spi = |from_a| {
        let value = (number * 2 + u32::from(from_a)).wrapping_mul(0x9e37_79b1) | 0x100;
        Spi::new(value).expect("not reserved")
    };
    let params = SaParams {
        spi: spi(from_a),
        other_spi: spi(!from_a),
        policy: PolicyId(number),
        peer: Arc::from(format!("peer-{number}")),
        path: path(number, at_a),
        ts_local,
        ts_peer,
        encr_key: Secret::new(vec![if from_a { 7 } else { 8 }; 36]),
        ..peers::sa_params()
    };
    if from_a == at_a {
        SadUpdate::AddOutbound(Box::new(params))
    } else {
        SadUpdate::AddInbound(Box::new(params))
    }
}
