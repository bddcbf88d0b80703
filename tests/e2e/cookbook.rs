//! Recipes of `docs/cookbook`, with the very text that stands there.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use crate::lab::topology::Side;
use crate::lab::{Ipsecd, Lab, Need, Peer, traffic};

/// The blocks of a page that are neither TOML nor shell.
fn blocks(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cookbook").join(page);
    let text = fs::read_to_string(&path).expect("the page is read");
    let blocks = text.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(str::to_owned).collect()
}

/// A LAN with 192.168.1.0/24, which the page gives to both sites.
fn same_subnet(side: &Side, last: u8) -> IpAddr {
    let host = IpAddr::from([192, 168, 1, last]);
    side.gw.ip("addr add 192.168.1.1/24 dev lan0");
    side.lan.ip(&format!("addr add {host}/24 dev eth0"));
    host
}

#[test]
fn both_sites_have_the_same_subnet() {
    let Some(lab) = Lab::open(&[Need::Nat]) else { return };
    let blocks = blocks("overlapping-subnets.md");
    let rules = blocks.first().expect("the page has rules");
    let (a_host, b_host) = (same_subnet(&lab.a, 7), same_subnet(&lab.b, 9));
    for (side, seen_as) in [(&lab.a, "10.101.1.0/24"), (&lab.b, "10.102.1.0/24")] {
        let file = side.dir.join("site.nft");
        fs::write(&file, rules.replace("10.101.1.0/24", seen_as)).expect("file is written");
        side.gw.sh(&format!("nft -f {}", file.display()));
    }
    let peer = |local, remote, ours: &str, theirs: &str| {
        let mut peer = Peer::new(local, remote, false);
        peer.local_subnets = vec![ours.to_owned()];
        peer.subnets = vec![theirs.to_owned()];
        peer
    };
    let a = peer(&lab.a, &lab.b, "10.101.1.0/24", "10.102.1.0/24");
    let b = peer(&lab.b, &lab.a, "10.102.1.0/24", "10.101.1.0/24");
    let (a, b) = (Ipsecd::start(&lab.a, &a), Ipsecd::start(&lab.b, &b));
    std::thread::scope(|scope| {
        scope.spawn(|| b.must_up());
        a.must_up();
    });
    let (a_seen, b_seen) = (IpAddr::from([10, 101, 1, 7]), IpAddr::from([10, 102, 1, 9]));
    traffic::ping(&lab.a.lan, a_host, b_seen);
    traffic::ping(&lab.b.lan, b_host, a_seen);
    // TCP as well, and whom the far end sees.
    let listener = lab.b.lan.enter(|| TcpListener::bind((b_host, 0))).expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let target = SocketAddr::new(b_seen, port);
    let stream = lab.a.lan.enter(|| traffic::connect(a_host, target)).expect("a connection");
    let (_, seen) = listener.accept().expect("the connection arrives");
    assert_eq!(seen.ip(), a_seen);
    assert_eq!(stream.peer_addr().expect("an address"), target);
    // Without the rules nothing of the kind would pass: the policies know the other addresses alone.
    lab.a.gw.sh("nft delete table ip site");
    assert!(!traffic::answers(&lab.a.lan, a_host, b_seen));
}
