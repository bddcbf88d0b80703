//! One daemon a network namespace: routing table 4301, its rules and UDP 500 are shared by all in it.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{host, sys};

/// A name in the abstract Unix namespace, which belongs to the network namespace.
const NAME: &str = "\0ipsecd";
/// How long a holder that has been killed may take to let go of everything.
const PATIENCE: Duration = Duration::from_secs(1);
/// A process that ends closes its descriptors in ascending order; with this one, sockets and TUNs are gone.
const LAST: i32 = 900;

/// Held for as long as the daemon runs; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct NamespaceLock {
    _listener: OwnedFd,
}

impl NamespaceLock {
    /// Takes the lock. If somebody has it, waits a second for that process to end.
    ///
    /// # Errors
    /// `AddrInUse` if another daemon has it.
    pub fn take() -> io::Result<Self> {
        match Self::try_take() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && holder_ends() => {
                Self::try_take()
            }
            other => other,
        }
    }

    /// Who has it: the process, and the Unix sockets that it listens at. `None` if that is hidden from us.
    #[must_use]
    pub fn holder() -> Option<(u32, Vec<String>)> {
        host::unix_listener(&NAME.replace('\0', "@"))
    }

    fn try_take() -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(NAME)?)?;
        socket.listen(1)?;
        let last = sys::into_owned(fcntl(&socket, FcntlArg::F_DUPFD_CLOEXEC(LAST))?);
        Ok(Self { _listener: last })
    }
}

/// Whether the holder let go within our patience: it never accepts, so a connection ends with its listener.
fn holder_ends() -> bool {
    let connect = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(&SockAddr::unix(NAME)?)?;
        (&socket).read(&mut [0]).map(|_end| ())
    };
    match connect() {
        Ok(()) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_daemon_waits_for_the_first_to_end() {
        let Ok(first) = NamespaceLock::take() else {
            return; // A daemon runs on this machine.
        };
        assert_eq!(NamespaceLock::try_take().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (pid, sockets) = NamespaceLock::holder().unwrap();
        assert_eq!(pid, std::process::id());
        assert!(sockets.iter().any(|socket| *socket == path.display().to_string()), "{sockets:?}");
        let second = std::thread::spawn(NamespaceLock::take);
        drop(first);
        second.join().unwrap().unwrap();
    }
}
