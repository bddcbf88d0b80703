//! One daemon a network namespace: routing table 4301, its rules and UDP 500 are shared by all in it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Held for as long as the daemon runs; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct NamespaceLock {
    _listener: UnixListener,
}

impl NamespaceLock {
    /// Takes the lock: a name in the abstract Unix namespace, which belongs to the network namespace.
    ///
    /// # Errors
    /// `AddrInUse` if another daemon has it.
    pub fn take() -> io::Result<Self> {
        let address = SocketAddr::from_abstract_name(b"ipsecd")?;
        Ok(Self { _listener: UnixListener::bind_addr(&address)? })
    }
}
