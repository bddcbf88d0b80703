//! A forwarder between a TUN and a UDP socket without any cryptography: what a VPN in user space costs if encrypting costs
//! nothing, to measure ipsecd against. It does with each packet what ipsecd's workers do, with the same code, in the same
//! threads, but for ESP.
//!
//! `forwarder (offload|single|stages) TUN LOCAL REMOTE` makes the TUN, prints `ready` and forwards until it is killed:
//!
//! - `offload`: TSO and USO of the TUN, UDP_SEGMENT and UDP_GRO of the socket, as ipsecd;
//! - `single`: one packet a system call, of an ordinary TUN;
//! - `stages`: as `offload`, and tells every 100 ms how long each step took so far, for the model of more cores.

#![expect(clippy::print_stdout, reason = "whoever started it waits for a line")]

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use ipsecd::daemon::duty::{self, Direction, Threads};
use ipsecd::datapath::coalesce::Coalescer;
use ipsecd::datapath::segment::{Segments, complete};
use ipsecd::datapath::{MAX_RUN, MAX_RUN_LEN, PacketBuf};
use ipsecd::io::clock;
use ipsecd::io::sys::{self, BATCH, FEW, Received, ToSend};
use ipsecd::io::tun::{self, Offload, TunDevice};
use ipsecd::wire::vnet::{Gso, VnetHeader};
use smallvec::SmallVec;

/// Longest packet.
const MAX_PACKET: usize = 65_535;

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [mode, name, local, remote] = &args[..] else {
        // `cargo bench` runs every bench.
        println!("forwarder (offload|single|stages) TUN LOCAL REMOTE");
        return Ok(());
    };
    let address = |text: &str| text.parse().map_err(|_| io::Error::other(format!("{text}?")));
    let (local, remote): (SocketAddr, SocketAddr) = (address(local)?, address(remote)?);
    let socket = UdpSocket::bind(local)?;
    // As ipsecd's.
    let buffers = socket2::SockRef::from(&socket);
    for size in [1 << 20, 4 << 20] {
        let _limited = buffers.set_recv_buffer_size(size);
        let _limited = buffers.set_send_buffer_size(size);
    }
    let offload = match mode.as_str() {
        "offload" | "stages" => Offload::Auto,
        "single" => Offload::Plain,
        _ => return Err(io::Error::other("offload, single or stages?")),
    };
    socket.set_nonblocking(true)?;
    if offload == Offload::Auto {
        sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)?;
    }
    let tun = tun::create(name, offload, 1)?.remove(0);
    println!("ready");
    io::stdout().flush()?;
    let offload = offload == Offload::Auto;
    let stages = |names| (mode == "stages").then(|| Stages::new(names));
    let inbound = Inbound {
        tun: Arc::clone(&tun),
        socket: socket.try_clone()?,
        buffers: (0..BATCH).map(|_| vec![0; MAX_PACKET]).collect(),
        received: Vec::new(),
        coalescer: Coalescer::new(),
        ask_for: FEW,
        offload,
        stages: stages(["inbound", "receive", "join", "write"]),
    };
    let outbound = Outbound {
        tun,
        packets: (0..BATCH).map(|_| PacketBuf::new(MAX_PACKET)).collect(),
        headers: Vec::new(),
        run: Run {
            buf: PacketBuf::new(MAX_PACKET),
            segment_len: 0,
            packets: 0,
            ended: false,
            stages: stages(["outbound", "read", "cut", "send"]),
        },
        socket,
        remote,
        offload,
    };
    let Threads { first, second, wakers: _wakers } = duty::threads(inbound, outbound)?;
    let second = std::thread::spawn(move || second.run(&AtomicBool::new(false)));
    first.run(&AtomicBool::new(false))?;
    second.join().map_err(|_| io::Error::other("a thread panicked"))?
}

/// From the TUN to the socket.
struct Outbound {
    tun: Arc<dyn TunDevice>,
    packets: Vec<PacketBuf>,
    headers: Vec<VnetHeader>,
    run: Run,
    socket: UdpSocket,
    remote: SocketAddr,
    offload: bool,
}

impl Direction for Outbound {
    fn sources(&self) -> SmallVec<[BorrowedFd<'_>; 8]> {
        [self.tun.as_fd()].into_iter().collect()
    }

    fn pass(&mut self, _now: Instant, _source: usize) -> io::Result<()> {
        if self.offload { self.send_runs() } else { self.send() }
    }
}

/// From the socket to the TUN.
struct Inbound {
    tun: Arc<dyn TunDevice>,
    socket: UdpSocket,
    buffers: Vec<Vec<u8>>,
    received: Vec<Received>,
    coalescer: Coalescer,
    /// As ipsecd's inbound.
    ask_for: usize,
    offload: bool,
    stages: Option<Stages>,
}

impl Direction for Inbound {
    fn sources(&self) -> SmallVec<[BorrowedFd<'_>; 8]> {
        [self.socket.as_fd()].into_iter().collect()
    }

    fn pass(&mut self, _now: Instant, _source: usize) -> io::Result<()> {
        if self.offload { self.receive_runs() } else { self.receive() }
    }
}

/// What there is nothing of is no error.
fn unless_idle(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Packets that leave in one piece.
struct Run {
    buf: PacketBuf,
    segment_len: usize,
    packets: usize,
    /// The last one was shorter.
    ended: bool,
    stages: Option<Stages>,
}

/// How long the steps of a direction took, one after the other.
struct Stages {
    /// Of the direction, and of its steps.
    names: [&'static str; 4],
    since: Instant,
    took: [Duration; 3],
    packets: usize,
    batches: usize,
    told: Instant,
}

impl Stages {
    fn new(names: [&'static str; 4]) -> Self {
        let now = clock::now();
        Self { names, since: now, took: Default::default(), packets: 0, batches: 0, told: now }
    }

    fn begin(&mut self) {
        self.since = clock::now();
    }

    /// All since the end of the step before belongs to this one.
    fn end(&mut self, step: usize) {
        let now = clock::now();
        self.took[step] += now - self.since;
        self.since = now;
    }

    /// A batch is through: `stages DIRECTION BATCHES PACKETS STEP NANOSECONDS ..`.
    fn tell(&mut self, packets: usize) {
        self.batches += 1;
        self.packets += packets;
        if self.since - self.told < Duration::from_millis(100) {
            return;
        }
        self.told = self.since;
        let [direction, steps @ ..] = self.names;
        let steps = steps.iter().zip(&self.took);
        let steps: Vec<_> =
            steps.map(|(step, took)| format!("{step} {}", took.as_nanos())).collect();
        println!("stages {direction} {} {} {}", self.batches, self.packets, steps.join(" "));
    }
}

impl Outbound {
    fn send(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            if !unless_idle(self.tun.recv(&mut self.packets[..1], &mut self.headers))? {
                break;
            }
            let _lost = self.socket.send_to(&self.packets[0], self.remote);
        }
        Ok(())
    }

    fn send_runs(&mut self) -> io::Result<()> {
        let Self { tun, packets, headers, run, socket, remote, .. } = self;
        let (socket, remote) = (&*socket, *remote);
        if let Some(stages) = &mut run.stages {
            stages.begin();
        }
        if !unless_idle(tun.recv(packets, headers))? {
            return Ok(());
        }
        run.end(0);
        let mut count = 0;
        for (packet, header) in packets.iter_mut().zip(&*headers) {
            if header.gso == Gso::None {
                if let Some(partial) = header.checksum {
                    let _malformed = complete(packet, partial);
                }
                let len = packet.len();
                count += 1;
                run.add(socket, remote, len, |out| out.copy_from_slice(packet));
            } else if let Some(segments) = Segments::new(packet, header) {
                count += segments.len();
                for index in 0..segments.len() {
                    let len = segments.len_of(index);
                    run.add(socket, remote, len, |out| segments.write(index, out));
                }
            }
        }
        run.flush(socket, remote);
        if let Some(stages) = &mut run.stages {
            stages.tell(count);
        }
        Ok(())
    }
}

impl Run {
    fn end(&mut self, step: usize) {
        if let Some(stages) = &mut self.stages {
            stages.end(step);
        }
    }

    fn add(
        &mut self,
        socket: &UdpSocket,
        remote: SocketAddr,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) {
        let joins = self.packets > 0
            && !self.ended
            && len <= self.segment_len
            && self.packets < MAX_RUN
            && self.buf.len() + len <= MAX_RUN_LEN;
        if !joins {
            self.flush(socket, remote);
            self.segment_len = len;
        }
        let at = self.buf.len();
        self.buf.set_len(at + len);
        write(&mut self.buf[at..]);
        self.packets += 1;
        self.ended = len < self.segment_len;
    }

    fn flush(&mut self, socket: &UdpSocket, to: SocketAddr) {
        if self.packets == 0 {
            return;
        }
        self.end(1);
        let parts = [IoSlice::new(&self.buf)];
        let several = u16::try_from(self.segment_len).ok().filter(|_| self.packets > 1);
        let segment_len = several.and_then(NonZeroU16::new);
        let message = ToSend { parts: &parts, segment_len, to, local: None, tos: 0 };
        let _lost = sys::send_batch(socket.as_fd(), &[message]);
        self.end(2);
        self.buf.clear();
        (self.packets, self.ended) = (0, false);
    }
}

impl Inbound {
    fn receive(&mut self) -> io::Result<()> {
        let packet = &mut self.buffers[0];
        for _ in 0..BATCH {
            let len = match self.socket.recv(packet) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let _lost = self.tun.send(&[IoSlice::new(&[]), IoSlice::new(&packet[..len])]);
        }
        Ok(())
    }

    fn receive_runs(&mut self) -> io::Result<()> {
        let asked_for = self.ask_for;
        let space = self.buffers.iter_mut().take(asked_for).map(|one| IoSliceMut::new(one));
        let mut space: SmallVec<[_; FEW]> = space.collect();
        if let Some(stages) = &mut self.stages {
            stages.begin();
        }
        if !unless_idle(sys::recv_batch(self.socket.as_fd(), &mut space, &mut self.received))? {
            return Ok(());
        }
        drop(space);
        let mut end = |step| {
            if let Some(stages) = &mut self.stages {
                stages.end(step);
            }
        };
        end(0);
        self.ask_for = if self.received.len() == asked_for {
            BATCH
        } else if self.received.len() <= FEW {
            FEW
        } else {
            asked_for
        };
        let packets: Vec<&[u8]> = self
            .buffers
            .iter()
            .zip(&self.received)
            .flat_map(|(buffer, one)| {
                let each = one.segment_len.map_or(usize::MAX, |len| len.get().into());
                buffer[..one.len].chunks(each)
            })
            .collect();
        self.coalescer.arrange(packets.iter().copied(), self.tun.offloads());
        end(1);
        for joined in self.coalescer.joined() {
            let vnet: [u8; VnetHeader::LEN] = joined.vnet.emit();
            let mut parts = vec![IoSlice::new(&vnet), IoSlice::new(joined.header)];
            parts.extend(joined.parts().map(|(at, skip)| IoSlice::new(&packets[at][skip..])));
            let _lost = self.tun.send(&parts);
        }
        end(2);
        if let Some(stages) = &mut self.stages {
            stages.tell(packets.len());
        }
        Ok(())
    }
}
