//! The terminal of whoever started us: asking for what must not be seen.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use zeroize::Zeroizing;

/// No passphrase is longer, in bytes.
const MAX_LEN: usize = 1024;

/// Asks on the terminal, without showing what is typed. `None` where there is no terminal.
///
/// # Errors
/// If it cannot be read, or whoever is asked gives up.
pub fn ask_hidden(prompt: &str) -> io::Result<Option<Zeroizing<String>>> {
    // The terminal itself: what comes on the standard input may be the message.
    let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    let before = termios::tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    // Signals are off, too: one would leave the terminal as it is now.
    let flags = LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG;
    hidden.local_flags.remove(flags);
    termios::tcsetattr(&terminal, SetArg::TCSAFLUSH, &hidden)?;
    let mut guard = Restore { terminal, before };
    guard.terminal.write_all(prompt.as_bytes())?;
    let read = read_line(&mut guard.terminal);
    guard.terminal.write_all(b"\n")?;
    read.map(Some)
}

/// Puts the terminal back.
struct Restore {
    terminal: File,
    before: Termios,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _gone = termios::tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

/// A line, a byte at a time, with the keys that a terminal has for correcting it.
fn read_line(input: &mut impl Read) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LEN));
    loop {
        let mut byte = [0];
        if input.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match byte {
            [b'\r' | b'\n'] => break,
            // ^C, and ^D where nothing was typed.
            [0x03] => return Err(io::ErrorKind::Interrupted.into()),
            [0x04] if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            [0x04] => break,
            // ^H and DEL: the last character, which may be several bytes.
            [0x08 | 0x7f] => while line.pop().is_some_and(|b| b & 0xc0 == 0x80) {},
            // ^U
            [0x15] => line.clear(),
            _ if line.len() == MAX_LEN => {
                return Err(io::Error::other(format!("it is longer than {MAX_LEN} bytes")));
            }
            [byte] => line.push(byte),
        }
    }
    let text = core::str::from_utf8(&line).map_err(|_| io::Error::other("it is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_corrected_and_given_up() {
        let read = |bytes: &[u8]| read_line(&mut &bytes[..]).map(|it| it.as_str().to_owned());
        assert_eq!(read(b"wrong\x15ab\xc3\xbc\x7fc\x08d\n").unwrap(), "abd");
        assert_eq!(read(b"\x7f\n").unwrap(), "");
        assert_eq!(read(b"ab\x03").unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(read(b"\x04").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(read(&[b'a'; MAX_LEN + 1]).is_err());
        assert!(read(b"\xff\n").is_err());
    }
}
