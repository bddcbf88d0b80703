//! Ten thousand initiators in one process, for benches of a daemon that answers them: each with an address, an identity, an IKE
//! SA and a CHILD_SA of its own, all over UDP port 4500. Every address of its network namespace that it sends from must be local.
//!
//! `initiators RESPONDER COUNT (pool|sites) [mlkem]` takes commands, one a line, and answers each with one:
//!
//! - `up FROM COUNT RATE`: sets up those tunnels, so many a second at most; `up DONE SECONDS`;
//! - `rekey FROM COUNT`: rekeys their CHILD_SAs, all at once; `rekeyed DONE SECONDS`;
//! - `send FROM COUNT PACKETS RATE`: so many inner UDP packets of 64 bytes through those tunnels in turn; `sent PACKETS SECONDS`;
//! - `down`: deletes every IKE SA; `down LEFT SECONDS`.
//!
//! In between it answers what the responder asks. It ends with its standard input.

#![expect(clippy::print_stdout, reason = "whoever started it waits for a line")]

mod common;

use std::collections::BTreeMap;
use std::io::{self, BufRead, IoSlice, IoSliceMut, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::{now, udp_packet};
use ipsecd::crypto::Secret;
use ipsecd::crypto::random::OsRandom;
use ipsecd::daemon::sockets::{IKE_PORT, NATT_PORT, NON_ESP_MARKER, Sockets, path_of};
use ipsecd::ike::{Command, Endpoint, EndpointConfig, Env, Event};
use ipsecd::io::sys::{self, BATCH, ToSend};
use ipsecd::io::tun::Offload;
use ipsecd::ipsec::pad::{AddressRequest, Auth, EncapPolicy, Identity, Peer, PeerAddress, Wish};
use ipsecd::ipsec::{
    Encap, OutboundSa, PacketBuf, Path, PolicyId, SadUpdate, TrafficSelector, Worker,
};
use ipsecd::testing::peers;
use ipsecd::wire::ike::numbers::KeId;
use ipsecd::wire::ip::NextHeader;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Set-ups that are under way at once: fewer than those from which on strangers are asked for cookies.
const AT_ONCE: usize = 8;
/// What is not done by then has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const MAX_PACKET: usize = 65_535;
/// Where packets go inside, and their port.
const INNER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
const INNER_PORT: u16 = 9;

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [responder, count, shape, more @ ..] = &args[..] else {
        // `cargo bench` runs every bench.
        println!("initiators RESPONDER COUNT (pool|sites) [mlkem]");
        return Ok(());
    };
    let wrong = |what: &str| io::Error::other(format!("{what}?"));
    let responder: IpAddr = responder.parse().map_err(|_| wrong(responder))?;
    let count: u32 = count.parse().map_err(|_| wrong(count))?;
    let mut crowd = Crowd::new(responder, count, shape == "pool", more == ["mlkem"])?;
    let (lines_in, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if lines_in.send(line).is_err() {
                return;
            }
        }
    });
    println!("ready");
    loop {
        io::stdout().flush()?;
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
            Err(mpsc::TryRecvError::Empty) => {
                crowd.serve(Duration::from_millis(10))?;
                continue;
            }
        };
        let words: Vec<_> = line.split(' ').collect();
        let numbers: Vec<u32> = words[1..].iter().filter_map(|word| word.parse().ok()).collect();
        let begun = now();
        let told = match (words[0], &numbers[..]) {
            ("up", &[from, count, rate]) => format!("up {}", crowd.up(from, count, rate)?),
            ("rekey", &[from, count]) => format!("rekeyed {}", crowd.rekey(from, count)?),
            ("send", &[from, count, packets, rate]) => {
                format!("sent {}", crowd.send(from, count, packets, rate)?)
            }
            ("down", &[]) => format!("down {}", crowd.down()?),
            _ => return Err(wrong(&line)),
        };
        println!("{told} {:.3}", (now() - begun).as_secs_f64());
    }
}

struct Crowd {
    responder: IpAddr,
    endpoint: Endpoint,
    sockets: Sockets,
    /// Those that are up, by number.
    tunnels: BTreeMap<u32, OutboundSa>,
    rekeyed: usize,
    buffers: Vec<Vec<u8>>,
}

impl Crowd {
    fn new(responder: IpAddr, count: u32, pool: bool, mlkem: bool) -> io::Result<Self> {
        let env = Env { rng: Box::new(OsRandom), wall_clock: Arc::new(peers::Today) };
        let mut endpoint = Endpoint::new(EndpointConfig::default(), env);
        for number in 0..count {
            let peer = Arc::new(peer(number, responder, pool, mlkem));
            endpoint.handle_command(now(), Command::AddPeer(peer)).map_err(io::Error::other)?;
        }
        let sockets = Sockets::open(Offload::Plain, 1).map_err(io::Error::other)?;
        let buffers = vec![vec![0; MAX_PACKET]; BATCH];
        Ok(Self { responder, endpoint, sockets, tunnels: BTreeMap::new(), rekeyed: 0, buffers })
    }

    fn up(&mut self, from: u32, count: u32, rate: u32) -> io::Result<usize> {
        let begun = now();
        let mut next = from;
        let before = self.tunnels.len();
        loop {
            let elapsed = now() - begun;
            let done = self.tunnels.len() - before;
            if done == count as usize || elapsed > PATIENCE {
                return Ok(done);
            }
            let permitted = due(elapsed, rate).saturating_add(1);
            while next < from + count
                && next - from < permitted
                && ((next - from) as usize) < done + AT_ONCE
            {
                let path = Path {
                    local: SocketAddr::new(address(next).into(), IKE_PORT),
                    remote: SocketAddr::new(self.responder, IKE_PORT),
                    encap: Encap::Plain,
                };
                let command = Command::Initiate { peer: name(next), path };
                self.endpoint.handle_command(now(), command).map_err(io::Error::other)?;
                next += 1;
            }
            self.serve(Duration::from_millis(2))?;
        }
    }

    fn rekey(&mut self, from: u32, count: u32) -> io::Result<usize> {
        let begun = now();
        self.rekeyed = 0;
        for number in from..from + count {
            let command = Command::RekeyChildren { peer: name(number) };
            self.endpoint.handle_command(now(), command).map_err(io::Error::other)?;
            if number % 32 == 31 {
                self.serve(Duration::ZERO)?;
            }
        }
        while self.rekeyed < count as usize && now() - begun < PATIENCE {
            self.serve(Duration::from_millis(2))?;
        }
        Ok(self.rekeyed)
    }

    fn down(&mut self) -> io::Result<usize> {
        let begun = now();
        self.endpoint.handle_command(begun, Command::TerminateAll).map_err(io::Error::other)?;
        loop {
            self.serve(Duration::from_millis(2))?;
            let left = self.endpoint.status(now()).len();
            if left == 0 || now() - begun > PATIENCE {
                self.tunnels.clear();
                return Ok(left);
            }
        }
    }

    fn send(&mut self, from: u32, count: u32, packets: u32, rate: u32) -> io::Result<u32> {
        let begun = now();
        let mut sent = 0;
        while sent < packets {
            let batch = due(now() - begun, rate).min(packets).saturating_sub(sent).min(64);
            if batch == 0 {
                self.serve(Duration::from_millis(1))?;
                continue;
            }
            let mut sealed = Vec::new();
            for nth in sent..sent + batch {
                let Some(sa) = self.tunnels.get(&(from + nth % count)) else {
                    return Err(io::Error::other("a tunnel that is not up"));
                };
                let mut packet = PacketBuf::copy_of(&packet(sa.params()));
                let _limit = sa
                    .seal(&mut packet, NextHeader::IPV4)
                    .map_err(|why| io::Error::other(why.name()))?;
                sealed.push((packet, sa.params().path));
            }
            let parts: Vec<_> = sealed.iter().map(|(packet, _)| [IoSlice::new(packet)]).collect();
            let all: Vec<_> = sealed
                .iter()
                .zip(&parts)
                .map(|((_, path), parts)| ToSend {
                    parts,
                    segment_len: None,
                    to: path.remote,
                    local: Some(path.local.ip()),
                    tos: 0,
                })
                .collect();
            let mut rest = &all[..];
            while !rest.is_empty() {
                match self.sockets.v4.natt.main(Worker::ALONE).send(rest) {
                    Ok(taken) => rest = &rest[taken..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            sent += batch;
        }
        Ok(sent)
    }

    /// Does what is due, and waits so long for something to come.
    fn serve(&mut self, patience: Duration) -> io::Result<()> {
        let due = self.endpoint.poll_timeout().map(|(at, _)| at);
        let wait = due.map_or(patience, |at| at.saturating_duration_since(now()).min(patience));
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        let sockets = [&self.sockets.v4.ike, self.sockets.v4.natt.ike()];
        let mut fds = sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        poll(&mut fds, wait)?;
        let ready = fds.map(|fd| fd.any().unwrap_or(false));
        for (port, ready) in [IKE_PORT, NATT_PORT].into_iter().zip(ready) {
            if ready {
                self.receive(port)?;
            }
        }
        let now = now();
        if self.endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        self.drain();
        Ok(())
    }

    fn receive(&mut self, port: u16) -> io::Result<()> {
        let is_ike = port == IKE_PORT;
        let socket = if is_ike { &self.sockets.v4.ike } else { self.sockets.v4.natt.ike() };
        let mut slices: Vec<_> = self.buffers.iter_mut().map(|it| IoSliceMut::new(it)).collect();
        let mut received = Vec::new();
        match sys::recv_batch(socket.as_fd(), &mut slices, &mut received) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => result?,
        }
        for (datagram, buffer) in received.iter().zip(&self.buffers) {
            let data = &buffer[..datagram.len];
            let (encap, message) = match data.strip_prefix(&NON_ESP_MARKER) {
                Some(message) if !is_ike => (Encap::Udp, message),
                None if is_ike => (Encap::Plain, data),
                // ESP.
                _ => continue,
            };
            self.endpoint.handle_datagram(now(), path_of(datagram, port, encap), message);
        }
        Ok(())
    }

    fn drain(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            if let Event::Sad(SadUpdate::AddOutbound(params)) = event {
                let number = params.policy.0;
                if let Some(sa) = OutboundSa::new(*params) {
                    self.tunnels.insert(number, sa);
                }
            } else if matches!(event, Event::ChildSaEstablished { rekeyed: true, .. }) {
                self.rekeyed += 1;
            }
        }
        let messages: Vec<_> = std::iter::from_fn(|| self.endpoint.poll_transmit()).collect();
        self.sockets.send_ike(&messages);
    }
}

fn name(number: u32) -> Arc<str> {
    Arc::from(format!("gw-{number:05}"))
}

/// 100.64.0.1 and so on: four /16, and of each 250 of a /24.
fn address(number: u32) -> Ipv4Addr {
    let (network, host) = (number % 4, number / 4);
    Ipv4Addr::from_bits(0x6440_0000 | network << 16 | (host / 250) << 8 | (host % 250 + 1))
}

/// 10.0.0.1 and so on.
fn inner(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0000 | (number + 1))
}

fn peer(number: u32, responder: IpAddr, pool: bool, mlkem: bool) -> Peer {
    let mut peer = peers::site_a();
    peer.name = name(number);
    peer.local_addr = Some(address(number).into());
    peer.address = PeerAddress::Ip(responder);
    peer.local_id = Identity::Fqdn(format!("peer-{number}.example.net"));
    peer.peer_id = Some(Identity::Fqdn("gw.example.net".to_owned()));
    // Those of a pool share a key, and sites have one each.
    let psk = if pool { "of the road".to_owned() } else { format!("of site {number}") };
    peer.auth = Auth::psk(Secret::copy_of(format!("correct horse battery {psk}").as_bytes()));
    peer.ike.encap = EncapPolicy::Udp;
    if mlkem {
        peer.ike.proposals[0].addke[0].push(KeId::ML_KEM_768);
    }
    let child = &mut peer.children[0];
    child.policy = PolicyId(number);
    let prefix =
        |addr: Ipv4Addr, len| TrafficSelector::from_prefix(addr.into(), len).expect("a prefix");
    child.ts_peer = vec![prefix(Ipv4Addr::new(172, 16, 0, 0), 16)];
    if pool {
        let addresses = vec![Wish::V4(None)];
        peer.request = Some(AddressRequest { addresses, dns: false, domains: None });
        child.ts_local = vec![prefix(Ipv4Addr::UNSPECIFIED, 0)];
    } else {
        child.ts_local = vec![prefix(inner(number), 32)];
    }
    peer
}

/// An inner packet that the SA takes.
fn packet(sa: &ipsecd::ipsec::SaParams) -> Vec<u8> {
    let src_addr = match sa.ts_local.first().map(|ts| ts.start_addr) {
        Some(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    udp_packet([src_addr, INNER], [INNER_PORT; 2], 64)
}

/// How many of so many a second are due by now.
fn due(elapsed: Duration, rate: u32) -> u32 {
    u32::try_from(elapsed.as_millis() * u128::from(rate) / 1000).unwrap_or(u32::MAX)
}
