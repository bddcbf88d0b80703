//! Traffic between the LANs, and whether it arrived.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use socket2::{Domain, Socket, Type};

use super::netns::Netns;
use super::topology::{Lab, Side};
use super::{process, wait};

/// What a TCP transfer carries, in bytes.
pub(crate) const TRANSFER: usize = 10_000_000;

/// How long one side of a transfer may stand still.
const STALL: Duration = Duration::from_secs(20);

/// Whether one ping, with a wait of a second, is answered.
pub(crate) fn answers(from: &Netns, source: IpAddr, target: IpAddr) -> bool {
    let mut ping = from.command("ping");
    ping.args(["-n", "-q", "-c1", "-W1", "-I", &source.to_string(), &target.to_string()]);
    process::output(&mut ping).status.success()
}

/// Pings until it is answered.
#[track_caller]
pub(crate) fn answers_within(limit: Duration, from: &Netns, source: IpAddr, target: IpAddr) {
    wait::until(&format!("an answer to {source} from {target}"), limit, || {
        answers(from, source, target).then_some(())
    });
}

/// Ten pings of which none may be lost.
#[track_caller]
pub(crate) fn ping(from: &Netns, source: IpAddr, target: IpAddr) {
    for number in 1..=10 {
        // One at a time: for the last of several ping(8) waits no longer than the interval, however long it is told to.
        let mut ping = from.command("ping");
        ping.args(["-n", "-q", "-c1", "-W10", "-I", &source.to_string(), &target.to_string()]);
        let output = process::output(&mut ping);
        let said = || process::text(&output);
        assert!(output.status.success(), "{source} -> {target}, ping {number}:\n{}", said());
    }
}

/// Sends `size` bytes over TCP; the far end must have received the very same.
#[track_caller]
pub(crate) fn transfer(from: &Netns, source: IpAddr, to: &Netns, target: IpAddr, size: usize) {
    transfer_through_nat(from, source, source, to, target, size);
}

/// The same where the far end sees `outside` in place of `source`.
#[track_caller]
pub(crate) fn transfer_through_nat(
    from: &Netns,
    source: IpAddr,
    outside: IpAddr,
    to: &Netns,
    target: IpAddr,
    size: usize,
) {
    let listener = to.enter(|| TcpListener::bind((target, 0))).expect("listener");
    let target = listener.local_addr().expect("an address");
    let receiver = thread::spawn(move || {
        let (mut stream, peer) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(STALL)).expect("a timeout");
        let (mut hash, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 65_536]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return (peer.ip(), total, hash.finalize()),
                Ok(n) => {
                    total += n;
                    hash.update(&buffer[..n]);
                }
                // With a timeout, a read is not taken up again by itself once the process was stopped: signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{target}: {error}, {total} of {size} bytes received"),
            }
        }
    });
    let stream = from.enter(|| connect(source, target));
    let mut stream: TcpStream =
        stream.unwrap_or_else(|error| panic!("{source} -> {target}: {error}"));
    stream.set_write_timeout(Some(STALL)).expect("a timeout");
    let (mut hash, mut noise) = (Sha256::new(), Noise(0x9e37_79b9_7f4a_7c15));
    let mut left = size;
    while left > 0 {
        let mut chunk = [0; 8_192];
        noise.fill(&mut chunk);
        let chunk = &chunk[..left.min(8_192)];
        hash.update(chunk);
        stream.write_all(chunk).unwrap_or_else(|error| {
            panic!("{source} -> {target}: {error}, {left} of {size} bytes not sent")
        });
        left -= chunk.len();
    }
    drop(stream);
    let (seen, received, digest) = receiver.join().expect("the receiver ends");
    assert_eq!((seen, received), (outside, size), "{source} -> {target}: from whom, how much");
    assert_eq!(digest, hash.finalize(), "{source} -> {target}: other bytes arrived");
}

/// A TCP connection from an address.
pub(crate) fn connect(source: IpAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&target.into(), STALL)?;
    Ok(socket.into())
}

/// Ping and TCP, both ways, between the sites' subnets number `net`.
#[track_caller]
pub(crate) fn both_ways(lab: &Lab, net: u8, v6: bool) {
    let one = |from: &Side, to: &Side| {
        let (source, target) = (from.host(net, v6), to.host(net, v6));
        ping(&from.lan, source, target);
        transfer(&from.lan, source, &to.lan, target, TRANSFER);
    };
    one(&lab.a, &lab.b);
    one(&lab.b, &lab.a);
}

/// Bytes without a pattern that a damaged packet could repeat (xorshift64).
struct Noise(u64);

impl Noise {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}
