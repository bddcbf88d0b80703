//! A flood of UDP datagrams, for measuring what a daemon does that gets more than it can take.
//!
//! `flood FROM TO SIZE RATE SECONDS [KIND [runs]]` sends datagrams with SIZE bytes of data from one address and port to another, RATE a
//! second, or as many as go if that is 0, and prints `sent NUMBER SECONDS`. KIND is what is in them:
//!
//! - `plain`: bytes of no meaning;
//! - `esp=SPI`: as ESP with that SPI (hexadecimal), sequence numbers that go up, and an ICV that does not fit;
//! - `noise`: each begins with another SPI, which nobody has.
//!
//! With `runs` the kernel gets as many at a time in one piece (UDP_SEGMENT): there are more of them then than it could make one by one.

#![expect(clippy::print_stdout, reason = "whoever started it waits for a line")]

mod common;

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use common::now;
use ipsecd::io::sys::{self, BATCH, ToSend};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(1);

fn main() -> io::Result<()> {
    let args: Vec<_> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [from, to, size, rate, seconds, more @ ..] = &args[..] else {
        // `cargo bench` runs every bench.
        println!("flood FROM TO SIZE RATE SECONDS [plain|esp=SPI|noise [runs]]");
        return Ok(());
    };
    let wrong = |what: &str| io::Error::other(format!("{what}?"));
    let address = |text: &str| text.parse::<SocketAddr>().map_err(|_| wrong(text));
    let number = |text: &str| text.parse::<usize>().map_err(|_| wrong(text));
    let kind = more
        .first()
        .map_or(Some(Kind::Plain), |kind| Kind::of(kind))
        .ok_or_else(|| wrong("kind"))?;
    let socket = UdpSocket::bind(address(from)?)?;
    let flood = Flood {
        socket,
        to: address(to)?,
        rate: number(rate)?,
        datagrams: vec![vec![0x5a; number(size)?.max(8)]; BATCH],
        kind,
        runs: more.get(1).is_some_and(|word| word == "runs"),
        sent: 0,
    };
    let seconds = u64::try_from(number(seconds)?).map_err(io::Error::other)?;
    let (sent, lasted) = flood.run(Duration::from_secs(seconds));
    println!("sent {sent} {:.3}", lasted.as_secs_f64());
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Esp([u8; 4]),
    Noise,
}

impl Kind {
    fn of(text: &str) -> Option<Self> {
        match text.split_once('=') {
            None if text == "plain" => Some(Self::Plain),
            None if text == "noise" => Some(Self::Noise),
            Some(("esp", spi)) => Some(Self::Esp(u32::from_str_radix(spi, 16).ok()?.to_be_bytes())),
            _ => None,
        }
    }
}

struct Flood {
    socket: UdpSocket,
    to: SocketAddr,
    /// Datagrams a second; 0 for as many as go.
    rate: usize,
    datagrams: Vec<Vec<u8>>,
    kind: Kind,
    runs: bool,
    sent: u32,
}

impl Flood {
    fn run(mut self, length: Duration) -> (u32, Duration) {
        let begun = now();
        loop {
            let elapsed = now() - begun;
            if elapsed >= length {
                return (self.sent, elapsed);
            }
            let due = self.due(elapsed);
            if due == 0 {
                self.rest(begun, elapsed);
                continue;
            }
            self.burst(due);
        }
    }

    /// How many are to be sent at once.
    fn due(&self, elapsed: Duration) -> usize {
        if self.rate == 0 {
            return BATCH;
        }
        let due = elapsed.as_micros() * self.rate as u128 / 1_000_000;
        let behind = due.saturating_sub(self.sent.into());
        usize::try_from(behind).unwrap_or(BATCH).min(BATCH)
    }

    #[expect(clippy::disallowed_methods, reason = "a rate is kept by the clock")]
    fn rest(&self, begun: Instant, elapsed: Duration) {
        thread::sleep((begun + elapsed + TICK).saturating_duration_since(now()));
    }

    fn burst(&mut self, count: usize) {
        for datagram in &mut self.datagrams[..count] {
            self.sent = self.sent.wrapping_add(1);
            match self.kind {
                Kind::Plain => {}
                Kind::Esp(spi) => {
                    datagram[..4].copy_from_slice(&spi);
                    datagram[4..8].copy_from_slice(&self.sent.to_be_bytes());
                }
                // No SPI is 0, and those below 256 are nobody's (RFC 4303 §2.1).
                Kind::Noise => {
                    let spi = self.sent.wrapping_mul(0x9e37_79b9) | 0x100;
                    datagram[..4].copy_from_slice(&spi.to_be_bytes());
                }
            }
        }
        let parts: Vec<_> = self.datagrams[..count].iter().map(|it| [IoSlice::new(it)]).collect();
        let to = self.to;
        let run = parts.as_flattened();
        let all: Vec<_> = if self.runs {
            let len = NonZeroU16::new(u16::try_from(run[0].len()).unwrap_or(0));
            vec![ToSend { parts: run, segment_len: len, to, local: None, tos: 0 }]
        } else {
            let one = |parts| ToSend { parts, segment_len: None, to, local: None, tos: 0 };
            parts.iter().map(|parts| one(parts)).collect()
        };
        let mut rest = &all[..];
        while !rest.is_empty() {
            // A full queue, or an ICMP error: the datagram counts as sent, as it does with any sender.
            let taken = sys::send_batch(self.socket.as_fd(), rest).unwrap_or(1);
            rest = &rest[taken..];
        }
    }
}
