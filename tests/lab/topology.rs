//! The five hosts and the links between them.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use super::netns::{self, Netns};
use super::process;

/// What a scenario cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing else runs beside it: for what is measured.
    Alone,
    /// User-Mode-Linux with its modules.
    Kernel,
    /// pluto and whack, beside strongSwan, and what fills its database of keys.
    Libreswan,
    /// nftables with address translation.
    Nat,
    /// iked and ikectl, beside strongSwan.
    OpenIked,
    /// Prometheus and promtool.
    Prometheus,
    /// Scapy with its IPsec layer.
    Scapy,
    /// charon with its ESP in user space, and swanctl.
    StrongSwan,
    /// tshark and tcpdump.
    Tshark,
}

/// One of the two sites.
pub(crate) struct Side {
    /// `a` or `b`.
    pub(crate) name: &'static str,
    /// The gateway: devices `wan0` and `lan0`.
    pub(crate) gw: Netns,
    /// A host behind it: device `eth0`.
    pub(crate) lan: Netns,
    /// The gateway's own directory.
    pub(crate) dir: PathBuf,
    number: u8,
}

impl Side {
    /// The gateway's address towards the router.
    pub(crate) fn outside(&self, v6: bool) -> IpAddr {
        match (self.number, v6) {
            (1, false) => Ipv4Addr::new(192, 0, 2, 1).into(),
            (_, false) => Ipv4Addr::new(198, 51, 100, 1).into(),
            (n, true) => Ipv6Addr::new(0x2001, 0xdb8, n.into(), 0, 0, 0, 0, 1).into(),
        }
    }

    /// The router's address towards the gateway: what stands for the other side behind a NAT.
    pub(crate) fn router(&self, v6: bool) -> IpAddr {
        match (self.number, v6) {
            (1, false) => Ipv4Addr::new(192, 0, 2, 254).into(),
            (_, false) => Ipv4Addr::new(198, 51, 100, 254).into(),
            (n, true) => Ipv6Addr::new(0x2001, 0xdb8, n.into(), 0, 0, 0, 0, 0xfe).into(),
        }
    }

    /// The LAN host's address in the site's first or second subnet (`net` 1 or 2).
    pub(crate) fn host(&self, net: u8, v6: bool) -> IpAddr {
        self.inside(net, v6, 2)
    }

    /// One of the site's subnets (`net` 1 or 2), as a prefix.
    pub(crate) fn subnet(&self, net: u8, v6: bool) -> String {
        format!("{}/{}", self.inside(net, v6, 0), if v6 { 64 } else { 24 })
    }

    /// The router's device towards the gateway.
    pub(crate) fn wire(&self) -> String {
        format!("to-{}", self.name)
    }

    /// The identity that the gateway goes by.
    pub(crate) fn id(&self) -> String {
        format!("{}.example.net", self.name)
    }

    fn inside(&self, net: u8, v6: bool, host: u8) -> IpAddr {
        if v6 {
            let site = 0xfd00 + u16::from(self.number);
            Ipv6Addr::new(site, net.into(), 0, 0, 0, 0, 0, host.into()).into()
        } else {
            Ipv4Addr::new(10, self.number, net, host).into()
        }
    }

    fn new(lab: u32, name: &'static str, number: u8, dir: &Path) -> Self {
        let dir = dir.join(name);
        let lan_dir = dir.join("lan");
        fs::create_dir_all(&lan_dir).expect("directory is made");
        let gw = Netns::new(lab, &format!("gw-{name}"), &dir);
        let lan = Netns::new(lab, &format!("lan-{name}"), &lan_dir);
        let side = Self { name, gw, lan, dir, number };
        side.gw.ip(&format!("link add lan0 type veth peer name eth0 netns {}", side.lan.name()));
        for net in [1, 2] {
            for v6 in [false, true] {
                let (bits, nodad) = if v6 { (64, "nodad") } else { (24, "") };
                let [gw, host] = [1, 2].map(|host| side.inside(net, v6, host));
                side.gw.ip(&format!("addr add {gw}/{bits} dev lan0 {nodad}"));
                side.lan.ip(&format!("addr add {host}/{bits} dev eth0 {nodad}"));
            }
        }
        side.gw.ip("link set lan0 up");
        side.lan.ip("link set eth0 up");
        for v6 in [false, true] {
            let family = if v6 { "-6" } else { "-4" };
            side.lan.ip(&format!("{family} route add default via {}", side.inside(1, v6, 1)));
        }
        side
    }

    /// Joins the gateway to the router.
    fn join(&self, router: &Netns) {
        let device = self.wire();
        self.gw.ip(&format!("link add wan0 type veth peer name {device} netns {}", router.name()));
        // As the driver of a card without offloads would have it: on this link each packet is one by itself, also where a
        // capture looks.
        self.gw.ip("link set wan0 gso_max_segs 1");
        for v6 in [false, true] {
            let (family, bits, nodad) = if v6 { ("-6", 64, "nodad") } else { ("-4", 24, "") };
            let (gw, via) = (self.outside(v6), self.router(v6));
            self.gw.ip(&format!("addr add {gw}/{bits} dev wan0 {nodad}"));
            router.ip(&format!("addr add {via}/{bits} dev {device} {nodad}"));
            self.gw.ip("link set wan0 up");
            router.ip(&format!("link set {device} up"));
            self.gw.ip(&format!("{family} route add default via {via}"));
        }
    }
}

/// Two sites with a router between them.
pub(crate) struct Lab {
    pub(crate) a: Side,
    pub(crate) b: Side,
    /// Between them.
    pub(crate) router: Netns,
    dir: TempDir,
    _turn: Turn,
}

impl Lab {
    /// Builds it; `None`, with the reason on the standard error output, where that cannot be done. A failed test
    /// instead where the environment says `CI`.
    #[track_caller]
    pub(crate) fn open(needs: &[Need]) -> Option<Self> {
        Some(Self::build(Turn::take(needs)?))
    }

    /// A directory that goes when the lab goes.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn both(&self) -> [&Side; 2] {
        [&self.a, &self.b]
    }

    /// Sets the router's packet filter, replacing what was set before.
    #[track_caller]
    pub(crate) fn nft(&self, rules: &str) {
        let file = self.dir().join("router.nft");
        fs::write(&file, format!("flush ruleset\n{rules}\n")).expect("file is written");
        process::run(self.router.command("nft").arg("-f").arg(&file));
    }

    /// Puts a NAT in front of `side`: the other one sees the router's address, and ports that are not those sent
    /// from. With `forwarded` the router passes UDP 500 and 4500 on to `side`.
    #[track_caller]
    pub(crate) fn nat(&self, side: &Side, forwarded: bool) {
        let far = if side.number == 1 { &self.b } else { &self.a };
        let (gw, far_if) = (side.outside(false), far.wire());
        let forward = if forwarded {
            format!("iifname {far_if} udp dport {{ 500, 4500 }} dnat to {gw}")
        } else {
            String::new()
        };
        self.nft(&format!(
            "table ip nat {{
               chain pre {{ type nat hook prerouting priority -100; {forward}; }}
               chain post {{ type nat hook postrouting priority 100;
                 ip saddr {gw} oifname {far_if} udp sport {{ 500, 4500 }} masquerade to :20000-29999
                 ip saddr {gw} oifname {far_if} masquerade
               }}
             }}"
        ));
    }

    fn build(turn: Turn) -> Self {
        let number = turn.number;
        let dir = tempfile::Builder::new().prefix("ipsecd-lab-").tempdir().expect("a directory");
        let a = Side::new(number, "a", 1, dir.path());
        let b = Side::new(number, "b", 2, dir.path());
        let router_dir = dir.path().join("router");
        let router = Netns::new(number, "router", &router_dir);
        a.join(&router);
        b.join(&router);
        for host in [&a.gw, &router, &b.gw] {
            host.sh("for all in /proc/sys/net/ipv[46]/conf/all/forwarding; do echo 1 > $all; done");
        }
        Self { a, b, router, dir, _turn: turn }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for side in self.both() {
            eprintln!("--- {}: network\n{}", side.name, side.gw.network());
            let Ok(files) = fs::read_dir(&side.dir) else { continue };
            for file in files.flatten().map(|entry| entry.path()) {
                if file.extension().is_some_and(|extension| extension == "log") {
                    let log = fs::read(&file).unwrap_or_default();
                    let tail = log.len().saturating_sub(16_384);
                    let tail = String::from_utf8_lossy(&log[tail..]);
                    eprintln!("--- {}: {}\n{tail}", side.name, file.display());
                }
            }
        }
    }
}

/// The right to build a lab, of whatever form.
pub(crate) struct Turn {
    /// Which of this process's labs it is.
    pub(crate) number: u32,
    _lock: Flock<File>,
}

impl Turn {
    /// Waits for it; `None`, with the reason on the standard error output, where there can be no lab. A failed test
    /// instead where the environment says `CI`.
    #[track_caller]
    pub(crate) fn take(needs: &[Need]) -> Option<Self> {
        static SWEPT: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if let Some(missing) = missing(needs) {
            let test = std::thread::current().name().unwrap_or("?").to_owned();
            assert!(std::env::var_os("CI").is_none(), "{test}: {missing}");
            // Past the capture of the test runner, which shows nothing of a test that passes.
            let _unseen = writeln!(std::io::stderr(), "SKIP {test}: {missing}");
            return None;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(std::env::temp_dir().join("ipsecd-lab.lock"))
            .expect("lock file opens");
        let alone = needs.contains(&Need::Alone);
        let how = if alone { FlockArg::LockExclusive } else { FlockArg::LockShared };
        let lock = Flock::lock(file, how).unwrap_or_else(|(_, error)| panic!("lock: {error}"));
        SWEPT.call_once(netns::sweep);
        Some(Self { number: NUMBER.fetch_add(1, Ordering::Relaxed), _lock: lock })
    }
}

/// Why there can be no lab here, if so.
fn missing(needs: &[Need]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let tools = |need: &Need| match need {
        Need::Alone => &["ip", "ping", "setpriv"][..],
        Need::Kernel => &["/usr/bin/linux.uml", "modprobe", "/usr/bin/python3", "tcpdump"],
        Need::Libreswan => {
            &["/usr/local/lib/ipsecd-lab/libreswan/usr/libexec/ipsec/pluto", "certutil", "openssl"]
        }
        Need::Nat => &["nft"],
        Need::OpenIked => &["/usr/local/lib/ipsecd-lab/openiked/usr/sbin/iked", "pgrep", "ss"],
        Need::Prometheus => &["prometheus", "promtool"],
        Need::Scapy => &["/usr/bin/python3", "tcpdump"],
        Need::StrongSwan => &["/usr/lib/ipsec/charon", "swanctl"],
        Need::Tshark => &["tshark", "tcpdump"],
    };
    for tool in [Need::Alone].iter().chain(needs).flat_map(tools) {
        let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", tool]).status();
        if !found.is_ok_and(|status| status.success()) {
            return Some(format!("needs {tool} (tests/lab/install.sh installs it)"));
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun".to_owned());
    }
    None
}
