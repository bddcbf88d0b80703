//! TUN devices: where packets of the host and its LAN come in and go out again.
//!
//! [`TunDevice`] is the seam: the one device there is moves a packet a system call; one with offloads can follow.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use tun_tap::{Iface, Mode};

use super::sys;

/// A device that hands over and takes IP packets.
pub trait TunDevice: AsFd + Send + Sync {
    /// Name of the interface.
    fn name(&self) -> &str;

    /// Reads what is there, one packet a buffer, without waiting. `lengths` is cleared and gets the length of each.
    ///
    /// # Errors
    /// Of the first read; later ones only end the batch. `WouldBlock` if there is nothing.
    fn recv(&self, buffers: &mut [IoSliceMut<'_>], lengths: &mut Vec<usize>) -> io::Result<()>;

    /// Writes one packet.
    ///
    /// # Errors
    /// Those of write(2): `InvalidInput` for what is no IP packet, `Other` with EIO while the interface is down.
    fn send(&self, packet: &[u8]) -> io::Result<()>;
}

/// A TUN device of the `tun-tap` crate. It vanishes, and its routes with it, when dropped.
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
}

impl Tun {
    /// Creates it; it is down and has no address. The real name may differ if `name` has a `%d`.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_ADMIN; `ResourceBusy` if the name is taken; `NotFound` without
    /// /dev/net/tun.
    pub fn create(name: &str) -> io::Result<Self> {
        let iface = Iface::without_packet_info(name, Mode::Tun)?;
        let name = iface.name().to_owned();
        let fd = sys::into_owned(iface);
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(Self { file: File::from(fd), name })
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl TunDevice for Tun {
    fn name(&self) -> &str {
        &self.name
    }

    fn recv(&self, buffers: &mut [IoSliceMut<'_>], lengths: &mut Vec<usize>) -> io::Result<()> {
        lengths.clear();
        for buffer in buffers {
            match (&self.file).read(buffer) {
                Ok(len) => lengths.push(len),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
                Err(error) if lengths.is_empty() => return Err(error),
                Err(_end_of_batch) => break,
            }
        }
        Ok(())
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(|_whole| ())
    }
}
