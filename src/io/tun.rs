//! TUN devices: where packets of the host and its LAN come in and go out again.
//!
//! [`TunDevice`] is the seam. A TUN with offloads ([`OffloadTun`]) hands over and takes what the host sends in one piece, to
//! be cut into packets, and leaves checksums to us; a packet costs a system call only where there is no more of its flow.
//! [`PlainTun`], of the `tun-tap` crate, moves a packet a call, and works where the kernel or a container refuses the other.

use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::{self, File};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use tun_tap::{Iface, Mode};

use super::sys;
use crate::ipsec::PacketBuf;
use crate::wire::vnet::{Offloads, VnetHeader};

/// Bytes after which a batch is passed on: what comes in one piece is to be in the cache still when it is sealed.
const ENOUGH: usize = 65_536;

/// How much is left to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// All that it takes, of TUNs and of UDP sockets.
    #[default]
    Auto,
    /// Nothing: a packet a call, by our own code.
    Off,
    /// Nothing, by the `tun-tap` crate.
    Plain,
}

/// A device that hands over and takes IP packets.
pub trait TunDevice: AsFd + Send + Sync {
    /// Name of the interface.
    fn name(&self) -> &str;

    /// What may be written in one piece.
    fn offloads(&self) -> Offloads;

    /// It has refused what it was thought to take; it is not asked again.
    fn refuses_offloads(&self);

    /// Reads what is there, without waiting, but not much more than is worth a batch. `headers` is cleared and gets the
    /// virtio header of each packet read, which are the first ones of `packets`. What is not understood is read as empty.
    ///
    /// # Errors
    /// Of the first read; later ones only end the batch. `WouldBlock` if there is nothing.
    fn recv(&self, packets: &mut [PacketBuf], headers: &mut Vec<VnetHeader>) -> io::Result<()>;

    /// Writes one packet, or several in one piece. The first part is the virtio header, which is left out where there is
    /// none.
    ///
    /// # Errors
    /// Those of write(2): `InvalidInput` for what is no IP packet, `Other` with EIO while the interface is down.
    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()>;
}

/// Creates a TUN with so many queues, or as many of them as there are to be had, at least one; it is down and has no address. It
/// vanishes, and its routes with it, when all are dropped. The real name may differ if `name` has a `%d`.
///
/// The kernel gives each flow one of the queues: that into which packets of it were written last, or one by chance.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN; `ResourceBusy` if the name is taken; `NotFound` without /dev/net/tun.
pub fn create(name: &str, offload: Offload, queues: u16) -> io::Result<Vec<Arc<dyn TunDevice>>> {
    if offload != Offload::Plain {
        match OffloadTun::queues(name, offload, queues) {
            Ok(tuns) => {
                return Ok(tuns
                    .into_iter()
                    .map(|tun| Arc::new(tun) as Arc<dyn TunDevice>)
                    .collect());
            }
            // The kernel, or who stands before it in a container, does not know the flag.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tracing::info!(%error, interface = name, "no TUN with offloads");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(vec![Arc::new(PlainTun::create(name)?)])
}

/// Packets for these TUNs that the kernel dropped, most often because their queues were full: what was routed into them faster
/// than it was read. 0 where the kernel does not tell.
pub fn dropped<'a>(names: impl Iterator<Item = &'a str>) -> u64 {
    let Ok(table) = fs::read_to_string("/proc/thread-self/net/dev") else { return 0 };
    names.filter_map(|name| dropped_of(&table, name)).sum()
}

/// proc_pid_net(5): a line an interface, after its name eight numbers of what came in, and of what goes out bytes, packets, errors and
/// drops.
fn dropped_of(table: &str, name: &str) -> Option<u64> {
    let numbers =
        table.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    numbers.split_whitespace().nth(8 + 3)?.parse().ok()
}

/// A TUN each of whose packets has a virtio header.
#[derive(Debug)]
pub struct OffloadTun {
    file: File,
    name: String,
    offloads: Offloads,
    refused: AtomicBool,
}

impl OffloadTun {
    /// As [`create`], with one queue. With [`Offload::Off`] the header never says anything.
    ///
    /// # Errors
    /// As there; `InvalidInput` if the kernel does not have the header.
    pub fn create(name: &str, offload: Offload) -> io::Result<Self> {
        Ok(Self::with_offloads(sys::open_tun(name, false)?, offload))
    }

    /// As [`create`].
    ///
    /// # Errors
    /// As [`OffloadTun::create`].
    pub fn queues(name: &str, offload: Offload, count: u16) -> io::Result<Vec<Self>> {
        if count <= 1 {
            return Ok(vec![Self::create(name, offload)?]);
        }
        let first = match sys::open_tun(name, true) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tracing::info!(%error, interface = name, "no TUN with several queues");
                return Ok(vec![Self::create(name, offload)?]);
            }
            first => Self::with_offloads(first?, offload),
        };
        let (name, offloads) = (first.name.clone(), first.offloads);
        let mut queues = vec![first];
        for have in 1..count {
            match sys::open_tun(&name, true) {
                Ok((file, name)) => {
                    queues.push(Self { file, name, offloads, refused: AtomicBool::new(false) });
                }
                Err(error) => {
                    tracing::info!(%error, interface = name, have, "no more queues of the TUN");
                    break;
                }
            }
        }
        Ok(queues)
    }

    /// Offloads are those of all queues.
    fn with_offloads((file, name): (File, String), offload: Offload) -> Self {
        let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        // UDP is to be had since Linux 6.2.
        let wanted = match offload {
            Offload::Auto => &[tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6, tcp][..],
            Offload::Off | Offload::Plain => &[],
        };
        let got = wanted.iter().find(|&&flags| sys::set_tun_offloads(file.as_fd(), flags).is_ok());
        let has = |flag| got.is_some_and(|flags| flags & flag != 0);
        let offloads = Offloads { tcp: has(libc::TUN_F_TSO4), udp: has(libc::TUN_F_USO4) };
        Self { file, name, offloads, refused: AtomicBool::new(false) }
    }
}

impl AsFd for OffloadTun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl TunDevice for OffloadTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn offloads(&self) -> Offloads {
        if self.refused.load(Ordering::Relaxed) { Offloads::default() } else { self.offloads }
    }

    fn refuses_offloads(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    fn recv(&self, packets: &mut [PacketBuf], headers: &mut Vec<VnetHeader>) -> io::Result<()> {
        read_batch(packets, headers, |space| {
            let mut header = [0; VnetHeader::LEN];
            let parts = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(space)];
            let len = (&self.file).read_vectored(parts)?;
            Ok(match (len.checked_sub(VnetHeader::LEN), VnetHeader::parse(&header)) {
                (Some(len), Ok(header)) => (len, header),
                _ => (0, VnetHeader::default()),
            })
        })
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        (&self.file).write_vectored(parts).map(|_whole| ())
    }
}

/// A TUN of the `tun-tap` crate.
#[derive(Debug)]
pub struct PlainTun {
    file: File,
    name: String,
}

impl PlainTun {
    /// As [`create`].
    ///
    /// # Errors
    /// As there.
    pub fn create(name: &str) -> io::Result<Self> {
        let iface = Iface::without_packet_info(name, Mode::Tun)?;
        let name = iface.name().to_owned();
        let fd = sys::into_owned(iface);
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(Self { file: File::from(fd), name })
    }
}

impl AsFd for PlainTun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl TunDevice for PlainTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn refuses_offloads(&self) {}

    fn recv(&self, packets: &mut [PacketBuf], headers: &mut Vec<VnetHeader>) -> io::Result<()> {
        read_batch(packets, headers, |space| Ok(((&self.file).read(space)?, VnetHeader::default())))
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let packet = parts.get(1..).unwrap_or_default();
        (&self.file).write_vectored(packet).map(|_whole| ())
    }
}

fn read_batch(
    packets: &mut [PacketBuf],
    headers: &mut Vec<VnetHeader>,
    mut read: impl FnMut(&mut [u8]) -> io::Result<(usize, VnetHeader)>,
) -> io::Result<()> {
    headers.clear();
    let mut sum = 0;
    for packet in packets {
        match read(packet.space_mut()) {
            Ok((len, header)) => {
                packet.set_len(len);
                headers.push(header);
                sum += len;
            }
            Err(error) if headers.is_empty() => return Err(error),
            Err(_end_of_batch) => break,
        }
        if sum >= ENOUGH {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tun_had_no_room_for_is_told_by_its_name() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     1       2    3    4    5     6          7         8        9      10   11   12   13    14      15         16\n\
            ipsec01:     1       2    3    4    5     6          7         8        9      10   11   99   13    14      15         16\n\
            ipsec0:9876543210123       2    3    4    5     6          7         8        9      10   11   4294967297   13    14      15         16\n";
        assert_eq!(dropped_of(table, "ipsec0"), Some((1 << 32) + 1));
        assert_eq!(dropped_of(table, "lo"), Some(12));
        assert_eq!(dropped_of(table, "ipsec"), None);
        assert_eq!(dropped_of("ipsec0: 1 2 3", "ipsec0"), None);
        assert_eq!(dropped(["none-such"].into_iter()), 0);
    }
}
