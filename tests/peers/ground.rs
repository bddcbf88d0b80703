//! Where the peers meet: ipsecd in a namespace, a router that counts and may translate, a guest behind it.
//!
//! ```text
//! gw -------------------------- router ------------------------- guest
//! 10.77.1.1     10.77.1.9, 10.77.0.9                         10.77.0.2   (.8 where it translates)
//! fd77:1::1     fd77:1::9, fd77::9                             fd77::2
//! 10.1.N.1, fd01:N::1                              10.2.N.1, fd02:N::1      inside
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use ipsecd::testing::Puppet;
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::NotifyType;
use ipsecd::wire::ike::payload::Payload;
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::netns::Netns;
use crate::lab::topology::Turn;
use crate::lab::uml::{self, Guest, Host, Local};
use crate::lab::{Need, process};

/// The guest's number in the lab, and the router's.
const GUEST: u8 = 2;
const ROUTER: u8 = 9;

/// The router's number where it stands for somebody else: the agents are asked from another address.
const NAT: u8 = 8;

/// The first payload of an IKE fragment, in the IKE header.
const SKF: u8 = 53;

/// Exchange types, in the IKE header.
const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

/// A notify as the first payload, in the IKE header: in a request for an IKE SA, a COOKIE that comes back.
const NOTIFY: u8 = 41;

/// Half-open IKE SAs that are more than ipsecd has without demanding COOKIEs.
const MANY: u8 = 40;

/// The inner networks that each side has.
pub(crate) const NETS: [u8; 3] = [1, 2, 3];

/// Which of the two: ours, or the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ipsecd,
    Peer,
}

pub(crate) const ENDS: [End; 2] = [End::Ipsecd, End::Peer];

impl End {
    /// Its address towards the router.
    pub(crate) fn outside(self, v6: bool) -> IpAddr {
        match (self, v6) {
            (Self::Ipsecd, false) => Ipv4Addr::new(10, 77, 1, 1).into(),
            (Self::Ipsecd, true) => Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 1).into(),
            (Self::Peer, false) => uml::address(GUEST),
            (Self::Peer, true) => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, GUEST.into()).into(),
        }
    }

    /// The router's address towards it: what stands for the other one behind a NAT.
    pub(crate) fn router(self) -> IpAddr {
        match self {
            Self::Ipsecd => Ipv4Addr::new(10, 77, 1, NAT).into(),
            Self::Peer => Ipv4Addr::new(10, 77, 0, NAT).into(),
        }
    }

    /// Its address in its network `net`.
    pub(crate) fn host(self, net: u8, v6: bool) -> IpAddr {
        self.inside(net, v6, 1)
    }

    /// Its network `net`.
    pub(crate) fn subnet(self, net: u8, v6: bool) -> String {
        format!("{}/{}", self.inside(net, v6, 0), if v6 { 64 } else { 24 })
    }

    /// The router's device towards it.
    fn wire(self) -> &'static str {
        match self {
            Self::Ipsecd => "to-gw",
            Self::Peer => "tap2",
        }
    }

    /// It, and not the other.
    pub(crate) fn alone(self) -> &'static [Self] {
        match self {
            Self::Ipsecd => &ENDS[..1],
            Self::Peer => &ENDS[1..],
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Ipsecd => Self::Peer,
            Self::Peer => Self::Ipsecd,
        }
    }

    fn inside(self, net: u8, v6: bool, host: u8) -> IpAddr {
        let side = if self == Self::Ipsecd { 1 } else { 2 };
        if v6 {
            Ipv6Addr::new(0xfd00 + u16::from(side), net.into(), 0, 0, 0, 0, 0, host.into()).into()
        } else {
            Ipv4Addr::new(10, side, net, host).into()
        }
    }
}

/// What the router has seen pass.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// From an inner address, or TCP and ICMP between the outer ones: nobody but the two ends may read these.
    pub(crate) clear: u64,
    pub(crate) esp: u64,
    pub(crate) ah: u64,
    /// ESP in UDP.
    pub(crate) encapsulated: u64,
    /// IKE fragments (SKF, RFC 7383), from ipsecd and from the peer.
    pub(crate) fragments: [u64; 2],
    /// IKE_SA_INIT requests with a COOKIE, from ipsecd and from the peer.
    pub(crate) cookies: [u64; 2],
}

/// The namespaces.
pub(crate) struct Ground {
    pub(crate) gw: Netns,
    pub(crate) router: Netns,
    dir: TempDir,
    _turn: Turn,
}

impl Ground {
    /// Builds it; `None` where that cannot be done (see [`Turn::take`]).
    #[track_caller]
    pub(crate) fn open(needs: &[Need]) -> Option<Self> {
        let turn = Turn::take(needs)?;
        let dir = tempfile::Builder::new().prefix("ipsecd-peers-").tempdir().expect("a directory");
        let [gw, router] = ["gw", "router"].map(|name| {
            let own = dir.path().join(name);
            fs::create_dir_all(&own).expect("directory is made");
            Netns::new(turn.number, name, &own)
        });
        let ground = Self { gw, router, dir, _turn: turn };
        ground.join();
        Some(ground)
    }

    /// A new directory, which goes with the ground.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).expect("directory is made");
        dir
    }

    /// Boots the guest, in which IKE will speak for itself.
    #[track_caller]
    pub(crate) fn guest(&self) -> Guest<'_> {
        let guest = Guest::boot_for_ike(&self.router, "tap2", GUEST, &self.dir("guest"));
        let mut lines = format!(
            "ip route add default via 10.77.0.{ROUTER}\nip -6 route add default via fd77::{ROUTER}\n"
        );
        for net in NETS {
            for v6 in [false, true] {
                let (bits, nodad) = if v6 { (128, "nodad") } else { (32, "") };
                let host = End::Peer.host(net, v6);
                lines += &format!("ip addr add {host}/{bits} dev lo {nodad}\n");
            }
        }
        guest.run(&lines);
        guest
    }

    /// The agent of ipsecd's end.
    #[track_caller]
    pub(crate) fn near(&self) -> Local<'_> {
        Local::start(&self.gw, 1, &self.dir("agent"))
    }

    /// Sets all counters to nothing; puts a NAT in front of each of some ends that changes ports too, and passes UDP 500
    /// and 4500 on to it.
    #[track_caller]
    pub(crate) fn watch(&self, nat: &[End]) {
        let [gw, guest] = ENDS.map(|end| end.outside(false));
        let [for_guest, for_gw] = ENDS.map(End::router);
        let [gw6, guest6] = ENDS.map(|end| end.outside(true));
        let mut rules = format!(
            "flush ruleset
             table inet watch {{
               counter clear {{ }}
               counter raw-esp {{ }}
               counter raw-ah {{ }}
               counter encapsulated {{ }}
               counter fragments-of-ipsecd {{ }}
               counter fragments-of-the-peer {{ }}
               counter cookies-of-ipsecd {{ }}
               counter cookies-of-the-peer {{ }}
               chain pre {{ type filter hook prerouting priority -300;
                 ip saddr {{ 10.1.0.0/16, 10.2.0.0/16 }} counter name clear
                 ip6 saddr {{ fd01::/16, fd02::/16 }} counter name clear
                 ip saddr {{ {gw}, {guest} }} ip daddr {{ {gw}, {guest}, {for_gw}, {for_guest} }} meta l4proto {{ tcp, icmp }} counter name clear
                 ip6 saddr {{ {gw6}, {guest6} }} ip6 daddr {{ {gw6}, {guest6} }} meta l4proto {{ tcp, icmpv6 }} counter name clear
                 meta l4proto 50 counter name raw-esp
                 meta l4proto 51 counter name raw-ah
                 ip saddr {gw} udp dport 500 @th,192,8 {SKF} counter name fragments-of-ipsecd
                 ip saddr {guest} udp dport 500 @th,192,8 {SKF} counter name fragments-of-the-peer
                 ip saddr {gw} udp dport 500 @th,192,8 {NOTIFY} @th,208,8 {IKE_SA_INIT} counter name cookies-of-ipsecd
                 ip saddr {guest} udp dport 500 @th,192,8 {NOTIFY} @th,208,8 {IKE_SA_INIT} counter name cookies-of-the-peer
                 udp dport 4500 @th,64,32 != 0 counter name encapsulated
                 udp sport 4500 @th,64,32 != 0 counter name encapsulated
               }}
             }}\n"
        );
        for (number, &end) in nat.iter().enumerate() {
            let (inner, far, shown) =
                (end.outside(false), end.other().wire(), end.other().router());
            rules += &format!(
                "table ip nat{number} {{
                   chain pre {{ type nat hook prerouting priority -100;
                     iifname {far} ip daddr {shown} udp dport {{ 500, 4500 }} dnat to {inner}
                   }}
                   chain post {{ type nat hook postrouting priority 100;
                     ip saddr {inner} oifname {far} udp sport {{ 500, 4500 }} snat to {shown}:20000-29999
                     ip saddr {inner} oifname {far} snat to {shown}
                   }}
                 }}\n"
            );
        }
        let file = self.dir.path().join("router.nft");
        fs::write(&file, rules).expect("file is written");
        process::run(self.router.command("nft").arg("-f").arg(&file));
    }

    /// Lets no IKE_AUTH pass until the next [`Ground::watch`].
    #[track_caller]
    pub(crate) fn refuse_ike_auth(&self) {
        self.router.sh(&format!(
            "nft add table inet refuse; \
             nft add chain inet refuse pre '{{ type filter hook prerouting priority -200; }}'; \
             nft add rule inet refuse pre udp dport 500 @th,208,8 {IKE_AUTH} drop"
        ));
    }

    /// Strangers begin IKE SAs with ipsecd and go no further, so many that it demands COOKIEs of all.
    #[track_caller]
    pub(crate) fn beset_ipsecd(&self) {
        self.router.ip("route replace local 100.64.0.0/16 dev lo");
        for number in 0..MANY {
            // No two from one owner.
            let from = Ipv4Addr::new(100, 64, number, 1);
            let socket = self.router.enter(|| UdpSocket::bind((from, 500))).expect("a socket");
            socket.connect((End::Ipsecd.outside(false), 500)).expect("a route");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            let mut puppet = Puppet::initiator(number.into());
            let payloads = puppet.init_payloads();
            let request = puppet.init_request(payloads);
            let ask = |request: &[u8]| {
                let mut answer = vec![0; 4096];
                socket.send(request).expect("it leaves");
                let len = socket.recv(&mut answer).expect("an answer");
                Message::parse(&answer[..len]).expect("an answer has form")
            };
            let is_cookie = |payload: &&Payload| matches!(payload, Payload::Notify(notify) if notify.notify_type == NotifyType::COOKIE);
            let mut answer = ask(&request);
            if let Some(cookie) = answer.payloads.iter().find(is_cookie).cloned() {
                let mut again = Message::parse(&request).expect("as it was made");
                again.payloads.insert(0, cookie);
                answer = ask(&again.emit());
            }
            let is_sa = |payload: &Payload| matches!(payload, Payload::Sa(_));
            assert!(
                answer.payloads.iter().any(is_sa),
                "stranger {number} begins no IKE SA: {answer:?}"
            );
        }
    }

    /// What passed since [`Ground::watch`].
    #[track_caller]
    pub(crate) fn seen(&self) -> Seen {
        let text = process::run(self.router.command("nft").args(["-j", "list", "counters"]));
        let listed: Value = serde_json::from_str(&text).expect("nft speaks JSON");
        let count = |name: &str| {
            let counters = listed["nftables"].as_array().into_iter().flatten();
            let mut named = counters.filter(|entry| entry["counter"]["name"] == name);
            let counter = named.next().unwrap_or_else(|| panic!("no counter {name} in {text}"));
            counter["counter"]["packets"].as_u64().expect("a number")
        };
        Seen {
            clear: count("clear"),
            esp: count("raw-esp"),
            ah: count("raw-ah"),
            encapsulated: count("encapsulated"),
            fragments: ["fragments-of-ipsecd", "fragments-of-the-peer"].map(count),
            cookies: ["cookies-of-ipsecd", "cookies-of-the-peer"].map(count),
        }
    }

    /// Gives ipsecd's end another address towards the router, and takes it back when what this returns is dropped.
    #[track_caller]
    pub(crate) fn move_ipsecd(&self, address: Ipv4Addr) -> Moved<'_> {
        self.have_only(address);
        Moved(self)
    }

    #[track_caller]
    fn have_only(&self, address: Ipv4Addr) {
        self.gw.ip("-4 addr flush dev wan0");
        self.gw.ip(&format!("addr add {address}/24 dev wan0"));
        self.gw.ip(&format!("-4 route replace default via 10.77.1.{ROUTER}"));
    }

    fn join(&self) {
        let Self { gw, router, .. } = self;
        gw.ip(&format!("link add wan0 type veth peer name to-gw netns {}", router.name()));
        router.ip("tuntap add dev tap2 mode tap");
        router.ip(&format!("link set tap2 address {}", uml::mac(ROUTER)));
        gw.ip("link set wan0 up");
        for device in ["to-gw", "tap2"] {
            router.ip(&format!("link set {device} up"));
        }
        gw.ip("addr add 10.77.1.1/24 dev wan0");
        gw.ip("addr add fd77:1::1/64 dev wan0 nodad");
        for number in [ROUTER, NAT] {
            router.ip(&format!("addr add 10.77.1.{number}/24 dev to-gw"));
            router.ip(&format!("addr add 10.77.0.{number}/24 dev tap2"));
        }
        router.ip(&format!("addr add fd77:1::{ROUTER}/64 dev to-gw nodad"));
        router.ip(&format!("addr add fd77::{ROUTER}/64 dev tap2 nodad"));
        // The guest knows its neighbours without asking, and they it.
        for address in ENDS[1..].iter().flat_map(|end| [end.outside(false), end.outside(true)]) {
            let mac = uml::mac(GUEST);
            router.ip(&format!("neigh replace {address} lladdr {mac} dev tap2 nud permanent"));
        }
        gw.ip(&format!("-4 route add default via 10.77.1.{ROUTER}"));
        gw.ip(&format!("-6 route add default via fd77:1::{ROUTER}"));
        // Where the agent is asked.
        gw.ip("addr add 10.77.0.1/32 dev lo");
        for net in NETS {
            for v6 in [false, true] {
                let (bits, nodad) = if v6 { (128, "nodad") } else { (32, "") };
                gw.ip(&format!("addr add {}/{bits} dev lo {nodad}", End::Ipsecd.host(net, v6)));
            }
        }
        router.sh("for all in /proc/sys/net/ipv[46]/conf/all/forwarding; do echo 1 > $all; done");
    }
}

/// ipsecd's end is elsewhere for as long as this is there.
pub(crate) struct Moved<'a>(&'a Ground);

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        if let IpAddr::V4(home) = End::Ipsecd.outside(false) {
            self.0.have_only(home);
        }
    }
}
