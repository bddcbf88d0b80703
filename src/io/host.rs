//! Looking at this host without changing it: addresses, switches of the kernel, who has a port, the packet filter.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use caps::CapSet;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use socket2::{Domain, Type};

use super::privs;
use super::udp::MARK;

/// Why /dev/net/tun cannot be opened; `None` if it can.
#[must_use]
pub fn tun_fault() -> Option<String> {
    let path = Path::new("/dev/net/tun");
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.err().map(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            "there is none".to_owned()
        } else {
            error.to_string()
        }
    })
}

/// Capabilities that the daemon needs and this process does not have.
#[must_use]
pub fn missing_capabilities() -> Vec<String> {
    let has = caps::read(None, CapSet::Effective).unwrap_or_default();
    privs::needed().filter(|cap| !has.contains(cap)).map(|cap| cap.to_string()).collect()
}

/// Interfaces and their addresses, each with the prefix of its link.
///
/// # Errors
/// Those of getifaddrs(3).
pub fn addresses() -> io::Result<Vec<(String, IpNet)>> {
    let ip = |address: SockaddrStorage| -> Option<IpAddr> {
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    let found = getifaddrs().map_err(io::Error::from)?.filter_map(|it| {
        let address = it.address.and_then(ip)?;
        let mask = it.netmask.and_then(ip);
        let net = mask.and_then(|mask| IpNet::with_netmask(address, mask).ok());
        Some((it.interface_name, net.unwrap_or_else(|| IpNet::from(address))))
    });
    Ok(found.collect())
}

/// A number of /proc/sys/net/ipv4/conf for each interface, `all` among them.
#[must_use]
pub fn per_interface_v4(name: &str) -> BTreeMap<String, u8> {
    let dir = Path::new("/proc/sys/net/ipv4/conf");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let text = fs::read_to_string(entry.path().join(name)).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), text.trim().parse().ok()?))
    });
    numbers.collect()
}

/// The last change of a file, since 1970.
#[must_use]
pub fn modified(path: &Path) -> Option<Duration> {
    fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()
}

/// The processes that have a socket at one of these UDP ports: port, and name and id unless they are hidden from us.
#[must_use]
pub fn udp_port_holders(ports: &[u16]) -> Vec<(u16, Option<(String, u32)>)> {
    let mut found: Vec<(u16, u64)> = Vec::new();
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(|line| {
            // sl local_address rem_address st queues tr retrnsmt uid timeout inode
            let mut fields = line.split_whitespace();
            let (_, port) = fields.nth(1)?.rsplit_once(':')?;
            let port = u16::from_str_radix(port, 16).ok()?;
            let inode = fields.nth(7)?.parse().ok()?;
            ports.contains(&port).then_some((port, inode))
        }));
    }
    let owners = if found.is_empty() { BTreeMap::new() } else { socket_owners() };
    let mut holders: Vec<_> =
        found.into_iter().map(|(port, inode)| (port, owners.get(&inode).cloned())).collect();
    holders.sort();
    holders.dedup();
    holders
}

/// Who listens at a Unix socket of this network namespace that has this name, `@` before one of the abstract ones: the process, and where
/// else in the file system it listens. `None` if nobody does, or whoever does is hidden from us.
#[must_use]
pub fn unix_listener(name: &str) -> Option<(u32, Vec<String>)> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let all: Vec<(u64, String)> = listening(&table).collect();
    let (inode, _) = all.iter().find(|(_, path)| path == name)?;
    let owners = socket_owners();
    let (_, pid) = owners.get(inode)?;
    let is_theirs = |inode: &u64| owners.get(inode).is_some_and(|(_, owner)| owner == pid);
    let files = all.iter().filter(|(inode, path)| path.starts_with('/') && is_theirs(inode));
    Some((*pid, files.map(|(_, path)| path.clone()).collect()))
}

/// unix(7): number, references, protocol, flags, type, state, inode and path of each socket.
fn listening(table: &str) -> impl Iterator<Item = (u64, String)> {
    /// `__SO_ACCEPTCON`.
    const LISTENS: u32 = 0x0001_0000;
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let inode = fields.nth(2)?.parse().ok()?;
        let path = fields.next()?.to_owned();
        (flags & LISTENS != 0).then_some((inode, path))
    })
}

/// Sockets, by inode, and whose they are, as far as this process may see.
fn socket_owners() -> BTreeMap<u64, (String, u32)> {
    let mut owners = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let files = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        for link in files.filter_map(|file| fs::read_link(file.path()).ok()) {
            let text = link.to_string_lossy().into_owned();
            let inode = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            let Some(inode) = inode.and_then(|inode| inode.parse().ok()) else { continue };
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            owners.insert(inode, (name.trim().to_owned(), pid));
        }
    }
    owners
}

/// What `nft -j list ruleset` writes.
///
/// # Errors
/// Why it did not: no such program, no permission.
pub fn nft_rules() -> Result<String, String> {
    // root's path may be a user's.
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let output = Command::new("nft")
        .args(["-j", "list", "ruleset"])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run nft: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.lines().next().unwrap_or_default().chars().take(200).collect();
    Err(format!("nft says: {}", said.escape_debug()))
}

/// Whether there are tables of the older iptables, which `nft` does not show.
#[must_use]
pub fn has_legacy_iptables() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .iter()
        .any(|file| fs::read_to_string(file).is_ok_and(|text| !text.trim().is_empty()))
}

/// Our address towards `remote`, and the MTU that the kernel knows of the way there. Marked as what the daemon sends, if
/// that is permitted.
///
/// # Errors
/// Those of connect(2): `NetworkUnreachable` without a route.
pub fn route_to(local: Option<IpAddr>, remote: IpAddr) -> io::Result<(IpAddr, u16)> {
    let remote = SocketAddr::new(remote, 500);
    let socket = socket2::Socket::new(Domain::for_address(remote), Type::DGRAM, None)?;
    // Without the capability the mark is missing, which matters only while a tunnel covers its own gateway.
    let _unmarked = socket.set_mark(MARK);
    if let Some(local) = local {
        socket.bind(&SocketAddr::new(local, 0).into())?;
    }
    socket.connect(&remote.into())?;
    let local = socket.local_addr()?.as_socket().map(|addr| addr.ip());
    let mtu = super::udp::mtu_of(&socket, remote.ip())?;
    Ok((local.ok_or(io::ErrorKind::AddrNotAvailable)?, mtu))
}
