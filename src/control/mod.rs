//! The operator's socket: what is said on it ([`protocol`]), who listens ([`server`]) and who calls ([`client`]).

pub mod capture;
pub mod client;
pub mod explain;
pub mod protocol;
pub mod server;
pub mod services;
pub mod trace;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest path of a Unix socket, in bytes (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// # Errors
/// `InvalidInput`, in words, if the path is too long for that of a socket.
fn fits_a_socket(path: &Path) -> io::Result<()> {
    let len = path.as_os_str().as_bytes().len();
    if len <= MAX_SOCKET_PATH {
        return Ok(());
    }
    let why = format!(
        "{} has {len} bytes, and the path of a socket at most {MAX_SOCKET_PATH}: choose a shorter one by --socket",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_socket_can_have_is_refused_with_its_length() {
        let path = |len| Path::new("/").join("a".repeat(len - 1));
        assert!(fits_a_socket(&path(MAX_SOCKET_PATH)).is_ok());
        socket2::SockAddr::unix(path(MAX_SOCKET_PATH)).unwrap();
        assert!(socket2::SockAddr::unix(path(MAX_SOCKET_PATH + 1)).is_err());
        let error = fits_a_socket(&path(MAX_SOCKET_PATH + 1)).unwrap_err().to_string();
        assert!(error.contains("108 bytes") && error.contains("at most 107"), "{error}");
    }
}
