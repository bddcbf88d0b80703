//! A cell as `ip -batch` lines: what makes a Linux kernel one end of it.

use std::collections::BTreeMap;

use crate::matrix::{Algorithm, Cell, End, Mode, Protocol, Version};

impl Cell {
    /// The SAs and policies of an end.
    pub(crate) fn xfrm(&self, end: End) -> String {
        self.xfrm_around(end, None)
    }

    /// As [`Cell::xfrm`], with another cell's SAs around its own: a bundle.
    pub(crate) fn xfrm_around(&self, end: End, around: Option<&Self>) -> String {
        let layers = || [self].into_iter().chain(around);
        let mut lines = String::new();
        for to in [End::Near, End::Far] {
            for layer in layers() {
                lines += &format!("xfrm state add {}\n", layer.state(end, to));
            }
            let (src, dst) = (self.inner(to.other()), self.inner(to));
            let bits = if src.is_ipv4() { 32 } else { 128 };
            let dir = if to == end { "in" } else { "out" };
            lines += &format!("xfrm policy add src {src}/{bits} dst {dst}/{bits} dir {dir}");
            for layer in layers() {
                lines +=
                    &format!(" tmpl {} mode {} reqid {}", layer.id(to), layer.mode(), layer.number);
            }
            lines += "\n";
        }
        lines
    }

    fn id(&self, to: End) -> String {
        let (src, dst) = (self.outer(to.other()), self.outer(to));
        let proto = match self.form.protocol {
            Protocol::Ah => "ah",
            Protocol::Esp => "esp",
        };
        format!("src {src} dst {dst} proto {proto}")
    }

    const fn mode(&self) -> &'static str {
        match self.form.mode {
            Mode::Transport => "transport",
            Mode::Tunnel => "tunnel",
        }
    }

    /// The SA that leads `to` an end, as it stands at `end`.
    fn state(&self, end: End, to: End) -> String {
        let mut state = format!(
            "{} spi {:#x} mode {} reqid {} replay-window {}",
            self.id(to),
            self.spi(to),
            self.mode(),
            self.number,
            self.tuning.replay_window
        );
        let form = self.form;
        let mut flags = Vec::new();
        if form.inner != form.outer {
            flags.push("af-unspec");
        }
        if form.protocol == Protocol::Ah && form.outer == Version::V4 && self.tuning.ah_align == 4 {
            flags.push("align4");
        }
        if self.esn {
            flags.push("esn");
        }
        if !flags.is_empty() {
            state += &format!(" flag {}", flags.join(" "));
        }
        if self.tuning.start > 0 {
            let which = if to == end { "replay-seq" } else { "replay-oseq" };
            let (high, low) = (self.tuning.start >> 32, self.tuning.start & 0xffff_ffff);
            state += &format!(" {which} {low:#x}");
            if self.esn {
                state += &format!(" {which}-hi {high:#x}");
            }
        }
        let name = |algorithm: Algorithm| algorithm.linux.expect("the kernel has the transform");
        if let Some(encr) = self.transform.encr {
            let key = self.encr_key(to);
            state += &match (encr.icv, key.is_empty()) {
                (0, true) => format!(" enc {} \"\"", name(encr)),
                (0, false) => format!(" enc {} 0x{key}", name(encr)),
                (icv, _) => format!(" aead {} 0x{key} {icv}", name(encr)),
            };
        }
        if let Some(integ) = self.transform.integ {
            state += &format!(" auth-trunc {} 0x{} {}", name(integ), self.integ_key(to), integ.icv);
        }
        if self.tuning.tfc > 0 {
            state += &format!(" tfcpad {}", self.tuning.tfc);
        }
        if form.udp {
            state += " encap espinudp 4500 4500 0.0.0.0";
        }
        state
    }
}

/// How far an SA of a kernel has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Packets that it has sent, or accepted.
    pub(crate) packets: u64,
    /// The last sequence number sent, or the highest accepted.
    pub(crate) sequence: u64,
}

/// How far each SA has come, by SPI, out of `ip -s xfrm state`.
pub(crate) fn carried(state: &str) -> BTreeMap<u32, Carried> {
    let hex = |word: &str| {
        let digits = word.trim_start_matches("0x");
        u64::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{word}: {error}"))
    };
    let (mut carried, mut spi, mut current) = (BTreeMap::new(), 0, false);
    for line in state.lines().map(str::trim) {
        if let Some((_, rest)) = line.split_once(" spi 0x") {
            let digits = rest.split(['(', ' ']).next().unwrap_or_default();
            spi = u32::from_str_radix(digits, 16).expect("an SPI");
            carried.insert(spi, Carried::default());
            continue;
        }
        let Some(sa) = carried.get_mut(&spi) else { continue };
        if line == "lifetime current:" {
            current = true;
        } else if current && let Some((_, packets)) = line.split_once("(bytes), ") {
            current = false;
            let packets = packets.split('(').next().unwrap_or_default();
            sa.packets = packets.parse().expect("a number of packets");
        }
        // One of the two directions stays at zero.
        let words: Vec<_> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        for pair in words.chunks(2) {
            match pair {
                ["seq" | "oseq", low] if low.starts_with("0x") => {
                    sa.sequence = sa.sequence.max(hex(low) | sa.sequence & HIGH);
                }
                ["seq-hi" | "oseq-hi", high] => sa.sequence |= hex(high) << 32,
                _ => (),
            }
        }
    }
    carried
}

/// The high half of an extended sequence number.
const HIGH: u64 = 0xffff_ffff << 32;

#[test]
fn sequence_numbers_are_read_from_both_forms_of_the_context() {
    let state = "src 10.65.0.1 dst 10.64.0.1\n\
        \tproto esp spi 0x10000001(268435457) reqid 1(0x00000001) mode tunnel\n\
        \treplay-window 0 seq 0x00000000 flag  (0x00000000)\n\
        \tanti-replay esn context:\n\
        \t seq-hi 0x0, seq 0x0, oseq-hi 0x1, oseq 0x5\n\
        \t replay_window 128, bitmap-length 4\n\
        \tlifetime current:\n\
        \t  1292(bytes), 15(packets)\n\
        src 10.64.0.1 dst 10.65.0.1\n\
        \tproto esp spi 0x20000001(536870913) reqid 1(0x00000001) mode tunnel\n\
        \treplay-window 32 seq 0x00000000 flag  (0x00000000)\n\
        \tanti-replay context: seq 0xf, oseq 0x0, bitmap 0x00007fff\n\
        \tlifetime current:\n\
        \t  1292(bytes), 14(packets)\n";
    let carried = carried(state);
    assert_eq!(carried[&0x1000_0001], Carried { packets: 15, sequence: (1 << 32) + 5 });
    assert_eq!(carried[&0x2000_0001], Carried { packets: 14, sequence: 15 });
}
