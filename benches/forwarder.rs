//! A forwarder between a TUN and a UDP socket without any cryptography: what a VPN in user space costs if encrypting costs
//! nothing, to measure ipsecd against. It does with each packet what ipsecd's workers do, with the same code, but for ESP.
//!
//! `forwarder (offload|single) TUN LOCAL REMOTE` makes the TUN, prints `ready` and forwards until it is killed:
//!
//! - `offload`: TSO and USO of the TUN, UDP_SEGMENT and UDP_GRO of the socket, as ipsecd;
//! - `single`: one packet a system call, of an ordinary TUN.

#![expect(clippy::print_stdout, reason = "whoever started it waits for a line")]

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::sync::Arc;

use ipsecd::datapath::coalesce::Coalescer;
use ipsecd::datapath::segment::{Segments, complete};
use ipsecd::datapath::{MAX_RUN, MAX_RUN_LEN, PacketBuf};
use ipsecd::io::sys::{self, BATCH, ToSend};
use ipsecd::io::tun::{self, Offload, TunDevice};
use ipsecd::wire::vnet::{Gso, VnetHeader};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest packet.
const MAX_PACKET: usize = 65_535;

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [mode, name, local, remote] = &args[..] else {
        // `cargo bench` runs every bench.
        println!("forwarder (offload|single) TUN LOCAL REMOTE");
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
        "offload" => Offload::Auto,
        "single" => Offload::Plain,
        _ => return Err(io::Error::other("offload or single?")),
    };
    if offload == Offload::Auto {
        sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)?;
    }
    let tun = tun::create(name, offload)?;
    println!("ready");
    io::stdout().flush()?;
    let inbound = {
        let (tun, socket) = (Arc::clone(&tun), socket.try_clone()?);
        std::thread::spawn(move || {
            if offload == Offload::Auto {
                receive_runs(&*tun, &socket)
            } else {
                receive(&*tun, &socket)
            }
        })
    };
    if offload == Offload::Auto {
        send_runs(&*tun, &socket, remote)?;
    } else {
        send(&*tun, &socket, remote)?;
    }
    inbound.join().map_err(|_| io::Error::other("a thread panicked"))?
}

fn wait(fd: impl AsFd) -> io::Result<()> {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
    Ok(())
}

fn send(tun: &dyn TunDevice, socket: &UdpSocket, remote: SocketAddr) -> io::Result<()> {
    let mut packets = [PacketBuf::new(MAX_PACKET)];
    let mut headers = Vec::new();
    loop {
        match tun.recv(&mut packets, &mut headers) {
            Ok(()) => {
                let _lost = socket.send_to(&packets[0], remote);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(tun)?,
            Err(error) => return Err(error),
        }
    }
}

fn receive(tun: &dyn TunDevice, socket: &UdpSocket) -> io::Result<()> {
    let mut packet = vec![0; MAX_PACKET];
    loop {
        let len = socket.recv(&mut packet)?;
        let _lost = tun.send(&[IoSlice::new(&[]), IoSlice::new(&packet[..len])]);
    }
}

/// Packets that leave in one piece.
struct Run {
    buf: PacketBuf,
    segment_len: usize,
    packets: usize,
    /// The last one was shorter.
    ended: bool,
}

fn send_runs(tun: &dyn TunDevice, socket: &UdpSocket, remote: SocketAddr) -> io::Result<()> {
    let mut packets: Vec<_> = (0..BATCH).map(|_| PacketBuf::new(MAX_PACKET)).collect();
    let mut headers = Vec::new();
    let mut run = Run { buf: PacketBuf::new(MAX_PACKET), segment_len: 0, packets: 0, ended: false };
    loop {
        match tun.recv(&mut packets, &mut headers) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(tun)?;
                continue;
            }
            Err(error) => return Err(error),
        }
        for (packet, header) in packets.iter_mut().zip(&headers) {
            if header.gso == Gso::None {
                if let Some(partial) = header.checksum {
                    let _malformed = complete(packet, partial);
                }
                let len = packet.len();
                run.add(socket, remote, len, |out| out.copy_from_slice(packet));
            } else if let Some(segments) = Segments::new(packet, header) {
                for index in 0..segments.len() {
                    let len = segments.len_of(index);
                    run.add(socket, remote, len, |out| segments.write(index, out));
                }
            }
        }
        run.flush(socket, remote);
    }
}

impl Run {
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
        let parts = [IoSlice::new(&self.buf)];
        let several = u16::try_from(self.segment_len).ok().filter(|_| self.packets > 1);
        let segment_len = several.and_then(NonZeroU16::new);
        let message = ToSend { parts: &parts, segment_len, to, local: None, tos: 0 };
        let _lost = sys::send_batch(socket.as_fd(), &[message]);
        self.buf.clear();
        (self.packets, self.ended) = (0, false);
    }
}

fn receive_runs(tun: &dyn TunDevice, socket: &UdpSocket) -> io::Result<()> {
    let mut buffers: Vec<_> = (0..BATCH).map(|_| vec![0; MAX_PACKET]).collect();
    let mut received = Vec::new();
    let mut coalescer = Coalescer::new();
    loop {
        let mut space: Vec<_> = buffers.iter_mut().map(|one| IoSliceMut::new(one)).collect();
        match sys::recv_batch(socket.as_fd(), &mut space, &mut received) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(socket)?;
                continue;
            }
            Err(error) => return Err(error),
        }
        let packets: Vec<&[u8]> = buffers
            .iter()
            .zip(&received)
            .flat_map(|(buffer, one)| {
                let each = one.segment_len.map_or(usize::MAX, |len| len.get().into());
                buffer[..one.len].chunks(each)
            })
            .collect();
        coalescer.arrange(packets.iter().copied(), tun.offloads());
        for joined in coalescer.joined() {
            let vnet: [u8; VnetHeader::LEN] = joined.vnet.emit();
            let mut parts = vec![IoSlice::new(&vnet), IoSlice::new(joined.header)];
            parts.extend(joined.parts().map(|(at, skip)| IoSlice::new(&packets[at][skip..])));
            let _lost = tun.send(&parts);
        }
    }
}
