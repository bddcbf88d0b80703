//! [`Opener`]: from captured frames to [`Record`]s, in the order in which a receiver does it: link layer, reassembly,
//! AH or ESP (again, where SAs are nested), then what a receiver checks of the inner packet.

use core::fmt;
use core::net::IpAddr;
use std::collections::BTreeSet;

use super::file::Frame;
use super::ike::{IkeMessage, IkeReader, Inside};
use super::keys::{KeyRing, Selectors};
use super::link::{self, NotIp};
use super::reassembly::{Fate, Reassembler};
use super::sa::{Payload, Refusal, Sa};
use crate::datapath::ecn::{self, Ecn};
use crate::ipsec::inner::Inner;
use crate::ipsec::place::Place;
use crate::ipsec::selector::matches_pair;
use crate::ipsec::suite::Protocol;
use crate::ipsec::{DropReason, Mode};
use crate::wire::ah::AhPacket;
use crate::wire::esp::EspPacket;
use crate::wire::ike::header::PORT as IKE_PORT;
use crate::wire::ip::{IpPacket, NextHeader};
use crate::wire::natt::{self, Datagram};
use crate::wire::udp::UdpPacket;

/// Opens the packets of one capture, in order.
#[derive(Debug)]
pub struct Opener {
    sas: Vec<Sa>,
    ike: IkeReader,
    /// UDP ports where ESP may be.
    ports: BTreeSet<u16>,
    replay_window: u32,
    reassembler: Reassembler,
    next_index: usize,
}

/// What is to be said of a frame.
#[derive(Clone, Debug)]
pub struct Record {
    /// Index of the frame, from 0.
    pub index: usize,
    /// Indexes of the frames that its packet came in; more than one: fragments.
    pub frames: Vec<usize>,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Addresses of the outer header.
    pub addrs: Option<(IpAddr, IpAddr)>,
    /// From the outside in: what protected it.
    pub layers: Vec<Layer>,
    /// What it is.
    pub verdict: Verdict,
    /// What was in it, if it is genuine (or nobody could check).
    pub inner: Option<Vec<u8>>,
}

/// One AH or ESP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Which.
    pub protocol: Protocol,
    /// Its SPI.
    pub spi: u32,
    /// Its sequence number; whole where the packet was opened, else as it stands in the header.
    pub sequence: u64,
    /// Whether it came in UDP.
    pub udp: bool,
    /// Where the key is from that opened it.
    pub key: Option<String>,
}

/// What a frame turned out to be.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Genuine, and a receiver would deliver what is in it.
    Ok,
    /// Decrypted to something that makes sense, but nothing could prove that it is genuine.
    Unverified,
    /// A receiver would drop it.
    Refused(DropReason),
    /// No key for its SPI.
    NoKey,
    /// The key file names algorithms, for its SPI, that are not ours.
    Unsupported(String),
    /// Damaged, or cut by the capture.
    Malformed(String),
    /// A fragment; the rest of its packet comes later, or never.
    Fragment,
    /// A NAT-keepalive.
    Keepalive,
    /// An IKE message.
    Ike(Box<IkeMessage>),
    /// Neither IPsec nor IKE.
    Other(String),
}

/// What a whole capture says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The SPI, or what stands for it.
    pub spi: String,
    /// Where the key is from.
    pub key: String,
    /// What is wrong with it.
    pub text: String,
}

impl Opener {
    /// Replay window where the key file does not say.
    pub const REPLAY_WINDOW: u32 = 1024;
    /// AH and ESP headers of one packet.
    const MAX_LAYERS: usize = 8;

    /// An opener with these keys.
    #[must_use]
    pub fn new(keys: KeyRing) -> Self {
        let mut ports = keys.ports;
        ports.insert(natt::PORT);
        Self {
            sas: keys.sas.into_iter().map(Sa::new).collect(),
            ike: IkeReader::new(keys.ike),
            ports,
            replay_window: Self::REPLAY_WINDOW,
            reassembler: Reassembler::default(),
            next_index: 0,
        }
    }

    /// Another replay window, for every SA; 0: no check.
    #[must_use]
    pub fn with_replay_window(mut self, size: u32) -> Self {
        self.replay_window = size;
        for sa in &mut self.sas {
            sa.key.replay_window = Some(size);
        }
        self
    }

    /// Looks at the next frame.
    pub fn frame(&mut self, frame: &Frame) -> Record {
        let index = self.next_index;
        self.next_index += 1;
        let mut record = Record {
            index,
            frames: vec![index],
            time: frame.time,
            addrs: None,
            layers: Vec::new(),
            verdict: Verdict::Ok,
            inner: None,
        };
        record.verdict = self.judge(frame, &mut record).unwrap_or_else(|verdict| verdict);
        record
    }

    /// What stands out after the last frame: keys that opened nothing, though there was something to open.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for sa in self.sas.iter().filter(|sa| sa.tally.opened == 0) {
            let text = match (sa.tally.bad_icv, sa.tally.nonsense) {
                (0, 0) => continue,
                (0, n) => {
                    format!("decrypts to nonsense in all {n} packets: the key does not match")
                }
                (n, _) => format!("the ICV is wrong in all {n} packets: the key does not match"),
            };
            let (spi, key) = (sa.key.spi.to_string(), sa.key.origin.clone());
            findings.push(Finding { spi, key, text });
        }
        let text = match (self.ike.opened, self.ike.bad_icv, self.ike.nonsense) {
            (0, 0, 0) | (1.., ..) => return findings,
            (0, 0, n) => {
                format!("decrypts to nonsense in all {n} messages: the key does not match")
            }
            (0, n, _) => format!("the ICV is wrong in all {n} messages: the key does not match"),
        };
        findings.push(Finding { spi: "IKE".to_owned(), key: "keys".to_owned(), text });
        findings
    }

    /// Both sides of the result are what is to be said; an error just ends the way earlier.
    fn judge(&mut self, frame: &Frame, record: &mut Record) -> Result<Verdict, Verdict> {
        let malformed = |text: &str| Err(Verdict::Malformed(text.to_owned()));
        let is_cut = (frame.data.len() as u64) < u64::from(frame.original_len);
        let data = match link::ip_packet(frame.link, &frame.data) {
            Ok(data) => data,
            Err(NotIp::Cut) => return malformed("shorter than its link-layer header"),
            Err(what) => return Err(Verdict::Other(format!("not IP: {what}"))),
        };
        let Ok(ip) = IpPacket::new_checked(data) else {
            return malformed(if is_cut {
                "cut by the capture"
            } else {
                "not a well-formed IP packet"
            });
        };
        record.addrs = Some((ip.src_addr(), ip.dst_addr()));
        let packet = &data[..ip.total_len()];
        let Ok(upper) = ip.upper_layer() else {
            return malformed("malformed IPv6 extension headers");
        };
        if upper.fragment.is_none() {
            return self.layers(packet.to_vec(), record);
        }
        match self.reassembler.take(frame.time, record.index, packet) {
            Fate::Whole(whole) => {
                record.frames = whole.frames;
                self.layers(whole.packet, record)
            }
            Fate::Waiting => Err(Verdict::Fragment),
            Fate::Dropped(why) => malformed(why),
        }
    }

    /// Takes one AH or ESP header after another off a whole IP packet.
    fn layers(&mut self, mut packet: Vec<u8>, record: &mut Record) -> Result<Verdict, Verdict> {
        let mut verified = true;
        for depth in 0..Self::MAX_LAYERS {
            let is_outermost = depth == 0;
            match self.layer(&packet, is_outermost, record)? {
                Step::Into(inner, was_verified) => {
                    verified &= was_verified;
                    packet = inner;
                }
                Step::End if is_outermost => return Err(Verdict::Other(describe(&packet))),
                Step::End => {
                    record.inner = Some(packet);
                    return Ok(if verified { Verdict::Ok } else { Verdict::Unverified });
                }
            }
        }
        Err(Verdict::Malformed("too many AH and ESP headers".to_owned()))
    }

    /// The outermost header of `packet`, if it is one of ours. Inside, only if there is a key for it: an inner packet may
    /// well be protected for somebody else.
    fn layer(
        &mut self,
        packet: &[u8],
        is_outermost: bool,
        record: &mut Record,
    ) -> Result<Step, Verdict> {
        if let Some(place) = Place::of(packet, NextHeader::AH) {
            return self.ah(packet, place, is_outermost, record);
        }
        if let Some(place) = Place::of(packet, NextHeader::ESP) {
            return self.esp(packet, place, place.at, is_outermost, record);
        }
        let Some(place) = Place::of(packet, NextHeader::UDP) else { return Ok(Step::End) };
        let Ok(udp) = UdpPacket::new_checked(&packet[place.at..]) else { return Ok(Step::End) };
        let ports = [udp.src_port(), udp.dst_port()];
        if ports.iter().any(|port| self.ports.contains(port)) {
            match natt::classify(udp.payload()) {
                Ok(Datagram::Esp(esp)) => {
                    let esp_at = place.at + UdpPacket::<&[u8]>::HEADER_LEN;
                    let end = esp_at + esp.len();
                    return self.esp(&packet[..end], place, esp_at, is_outermost, record);
                }
                Ok(Datagram::Ike(message)) if is_outermost => return Err(self.ike(message)),
                Ok(Datagram::Keepalive) if is_outermost => return Err(Verdict::Keepalive),
                Err(_) if is_outermost => {
                    return Err(Verdict::Refused(DropReason::NattMalformed));
                }
                Ok(Datagram::Ike(_) | Datagram::Keepalive) | Err(_) => {}
            }
        } else if is_outermost && ports.contains(&IKE_PORT) {
            return Err(self.ike(udp.payload()));
        }
        Ok(Step::End)
    }

    fn ike(&mut self, message: &[u8]) -> Verdict {
        match self.ike.read(message) {
            Ok(message) => Verdict::Ike(Box::new(message)),
            Err(why) => Verdict::Malformed(format!("IKE: {why}")),
        }
    }

    /// `place` is that of what comes off: ESP, or UDP with ESP at `esp_at`.
    fn esp(
        &mut self,
        packet: &[u8],
        place: Place,
        esp_at: usize,
        is_outermost: bool,
        record: &mut Record,
    ) -> Result<Step, Verdict> {
        let esp = packet.get(esp_at..).unwrap_or_default();
        let Ok(header) = EspPacket::new_checked(esp) else {
            return Err(Verdict::Refused(DropReason::EspMalformed));
        };
        let (spi, low) = (header.spi(), header.sequence());
        let candidates = self.candidates(Protocol::Esp, spi, packet);
        if candidates.is_empty() && !is_outermost {
            return Ok(Step::End);
        }
        record.layers.push(Layer {
            protocol: Protocol::Esp,
            spi,
            sequence: low.into(),
            udp: esp_at != place.at,
            key: None,
        });
        let window = self.replay_window;
        let by_chance = !is_outermost && !self.any_exact(&candidates);
        match self.try_each(candidates, |sa| sa.open_esp(window, esp)) {
            Ok((at, payload)) => self.opened(packet, place, at, &payload, record),
            Err(_) if by_chance => {
                record.layers.pop();
                Ok(Step::End)
            }
            Err(verdict) => Err(verdict),
        }
    }

    fn ah(
        &mut self,
        packet: &[u8],
        place: Place,
        is_outermost: bool,
        record: &mut Record,
    ) -> Result<Step, Verdict> {
        let Ok(header) = AhPacket::new_checked(&packet[place.at..]) else {
            return Err(Verdict::Refused(DropReason::AhMalformed));
        };
        let (spi, sequence) = (header.spi(), header.sequence().into());
        let candidates = self.candidates(Protocol::Ah, spi, packet);
        if candidates.is_empty() && !is_outermost {
            return Ok(Step::End);
        }
        let protocol = Protocol::Ah;
        record.layers.push(Layer { protocol, spi, sequence, udp: false, key: None });
        let window = self.replay_window;
        let by_chance = !is_outermost && !self.any_exact(&candidates);
        match self.try_each(candidates, |sa| sa.open_ah(window, packet, place)) {
            Ok((at, payload)) => self.opened(packet, place, at, &payload, record),
            Err(_) if by_chance => {
                record.layers.pop();
                Ok(Step::End)
            }
            Err(verdict) => Err(verdict),
        }
    }

    /// What is under a header that was opened with the key at `at`.
    fn opened(
        &self,
        packet: &[u8],
        place: Place,
        at: usize,
        payload: &Payload,
        record: &mut Record,
    ) -> Result<Step, Verdict> {
        let sa = &self.sas[at];
        if let Some(layer) = record.layers.last_mut() {
            layer.sequence = payload.sequence;
            layer.key = Some(sa.key.origin.clone());
        }
        let inner = decapsulate(packet, place, sa, payload)?;
        Ok(Step::Into(inner, payload.verified))
    }

    /// Keys for an SPI: those for these addresses first. Addresses change on the way (NAT, MOBIKE), so others with the SPI
    /// come next, and the ICV decides.
    fn candidates(&self, protocol: Protocol, spi: u32, packet: &[u8]) -> Vec<usize> {
        let Ok(ip) = IpPacket::new_checked(packet) else { return Vec::new() };
        let (src, dst) = (ip.src_addr(), ip.dst_addr());
        let of_spi = || {
            let all = self.sas.iter().enumerate();
            all.filter(move |(_, sa)| sa.key.protocol == protocol && sa.key.spi.matches(spi))
        };
        let fits = |sa: &Sa| sa.key.src.matches(src) && sa.key.dst.matches(dst);
        let exact = of_spi().filter(|(_, sa)| fits(sa));
        let others = of_spi().filter(|(_, sa)| !fits(sa) && sa.key.is_checked());
        exact.chain(others).map(|(at, _)| at).collect()
    }

    /// Whether one of these keys is for one SPI: then what it does not open inside another SA is an error, and else for somebody else.
    fn any_exact(&self, candidates: &[usize]) -> bool {
        candidates.iter().any(|&at| self.sas[at].key.spi.is_exact())
    }

    /// The first key that opens it; else the verdict of the one that came nearest.
    fn try_each(
        &mut self,
        candidates: Vec<usize>,
        mut open: impl FnMut(&mut Sa) -> Result<Payload, Refusal>,
    ) -> Result<(usize, Payload), Verdict> {
        let mut best = None;
        for at in candidates {
            match open(&mut self.sas[at]) {
                Ok(payload) => return Ok((at, payload)),
                Err(refusal) => {
                    if best.as_ref().is_none_or(|best| nearness(&refusal) > nearness(best)) {
                        best = Some(refusal);
                    }
                }
            }
        }
        Err(match best {
            None => Verdict::NoKey,
            Some(Refusal::Drop(reason)) => Verdict::Refused(reason),
            Some(Refusal::Unsupported(what)) => Verdict::Unsupported(what),
        })
    }
}

/// What a header turned out to be.
enum Step {
    /// Opened: this was in it. Whether its integrity was checked.
    Into(Vec<u8>, bool),
    /// Not ours.
    End,
}

/// How much a refusal says: a replay under the one key says more than a bad ICV under another.
const fn nearness(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::Unsupported(_) => 0,
        Refusal::Drop(DropReason::AhMalformed | DropReason::EspMalformed) => 1,
        Refusal::Drop(DropReason::IcvMismatch) => 2,
        Refusal::Drop(_) => 3,
    }
}

/// From the payload of AH or ESP to the packet that is delivered: the steps of `datapath`'s inbound way, for both modes.
fn decapsulate(
    packet: &[u8],
    place: Place,
    sa: &Sa,
    payload: &Payload,
) -> Result<Vec<u8>, Verdict> {
    let refused = |reason| Err(Verdict::Refused(reason));
    let is_ipv6 = match payload.next_header {
        NextHeader::NONE => return refused(DropReason::Dummy),
        NextHeader::IPV4 => Some(false),
        NextHeader::IPV6 => Some(true),
        _ => None,
    };
    let inner = match (is_ipv6, sa.key.mode) {
        (Some(is_ipv6), None | Some(Mode::Tunnel)) => {
            let mut bytes = payload.bytes.clone();
            let inner = Inner::parse(&bytes).filter(|inner| inner.is_ipv6() == is_ipv6);
            let Some(inner) = inner else { return refused(DropReason::InboundMalformed) };
            // RFC 4303 §2.7: traffic flow confidentiality padding follows the packet.
            bytes.truncate(inner.len);
            merge_ecn(packet, &inner, &mut bytes)?;
            bytes
        }
        (None, Some(Mode::Tunnel)) => return refused(DropReason::BadNextHeader),
        (_, None | Some(Mode::Transport)) => {
            let mut bytes = packet.get(..place.at).unwrap_or_default().to_vec();
            bytes.extend(&payload.bytes);
            let mended = place.mend(&mut bytes, payload.next_header);
            mended.ok_or(Verdict::Refused(DropReason::InboundMalformed))?;
            bytes
        }
    };
    if let Some(Selectors { src, dst }) = &sa.key.selectors {
        // RFC 4301 §5.2, step 4.
        let Some(flow) = Inner::parse(&inner).map(|inner| inner.flow) else {
            return refused(DropReason::InboundMalformed);
        };
        if !matches_pair(src, dst, &flow) {
            return refused(DropReason::InboundSelectorMismatch);
        }
    }
    Ok(inner)
}

/// RFC 6040 §4.2.
fn merge_ecn(outer: &[u8], inner: &Inner, bytes: &mut [u8]) -> Result<(), Verdict> {
    let outer = IpPacket::new_checked(outer).map_or(0, |ip| ip.traffic_class());
    let before = Ecn::of(inner.traffic_class);
    let after = ecn::decapsulate(before, Ecn::of(outer)).map_err(Verdict::Refused)?;
    if after != before {
        match IpPacket::new_checked(bytes) {
            Ok(IpPacket::V4(mut ip)) => ip.set_ecn(after.bits()),
            Ok(IpPacket::V6(mut ip)) => ip.set_ecn(after.bits()),
            Err(_) => {}
        }
    }
    Ok(())
}

/// `10.1.0.1 > 10.2.0.1 UDP 5000 > 53, 84 bytes`.
#[must_use]
pub fn describe(packet: &[u8]) -> String {
    let Some(Inner { flow, len, fragment, .. }) = Inner::parse(packet) else {
        return format!("{} bytes", packet.len());
    };
    let protocol = NextHeader(flow.protocol);
    let ports = match (flow.ports, protocol) {
        (Some((kind, code)), NextHeader::ICMP | NextHeader::ICMPV6) => format!(" {kind}/{code}"),
        (Some((src, dst)), _) => format!(" {src} > {dst}"),
        (None, _) => String::new(),
    };
    let part = if fragment.is_some() { ", a fragment" } else { "" };
    format!("{} > {} {protocol}{ports}, {len} bytes{part}", flow.src, flow.dst)
}

impl Record {
    /// Whether a key opened it, whatever a receiver would have done with it then. `None`: nothing protects it, or that cannot be told.
    #[must_use]
    pub fn is_opened(&self) -> Option<bool> {
        match &self.verdict {
            Verdict::Ok | Verdict::Unverified => Some(true),
            Verdict::NoKey
            | Verdict::Unsupported(_)
            | Verdict::Refused(DropReason::IcvMismatch) => Some(false),
            Verdict::Refused(_) => {
                self.layers.iter().any(|layer| layer.key.is_some()).then_some(true)
            }
            Verdict::Ike(message) => match &message.inside {
                Inside::Opened(_) | Inside::Unverified(_) | Inside::Fragment { .. } => Some(true),
                Inside::NoKey | Inside::BadIcv | Inside::Unsupported(_) | Inside::Nonsense => {
                    Some(false)
                }
                Inside::Clear | Inside::Malformed(_) => None,
            },
            Verdict::Malformed(_) | Verdict::Fragment | Verdict::Keepalive | Verdict::Other(_) => {
                None
            }
        }
    }
}

impl Verdict {
    /// The name for machines: lower case, words joined by `-`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unverified => "unverified",
            Self::Refused(DropReason::IcvMismatch) => "bad-icv",
            Self::Refused(DropReason::ReplayDuplicate) => "replayed",
            Self::Refused(DropReason::ReplayOld) => "too-old",
            Self::Refused(DropReason::BadPadding) => "bad-padding",
            Self::Refused(DropReason::InboundSelectorMismatch) => "selector-mismatch",
            Self::Refused(reason) => reason.name(),
            Self::NoKey => "no-key",
            Self::Unsupported(_) => "unsupported",
            Self::Malformed(_) => "malformed",
            Self::Fragment => "fragment",
            Self::Keepalive => "keepalive",
            Self::Ike(_) => "ike",
            Self::Other(_) => "other",
        }
    }
}

/// The reason, for people.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Unverified => f.write_str("decrypted, integrity not checked"),
            Self::Refused(DropReason::IcvMismatch) => f.write_str("bad ICV"),
            Self::Refused(DropReason::ReplayDuplicate) => f.write_str("replayed"),
            Self::Refused(DropReason::ReplayOld) => f.write_str("too old for the replay window"),
            Self::Refused(DropReason::BadPadding) => f.write_str("wrong padding"),
            Self::Refused(DropReason::InboundSelectorMismatch) => {
                f.write_str("outside the selectors of its SA")
            }
            Self::Refused(reason) => f.write_str(reason.text()),
            Self::NoKey => f.write_str("no key for this SPI"),
            Self::Unsupported(what) => write!(f, "algorithm not supported: {what}"),
            Self::Malformed(why) => write!(f, "malformed: {why}"),
            Self::Fragment => f.write_str("fragment, waiting for the rest"),
            Self::Keepalive => f.write_str("NAT-keepalive"),
            Self::Ike(message) => fmt::Display::fmt(message, f),
            Self::Other(what) => write!(f, "not IPsec: {what}"),
        }
    }
}

/// `ESP 0xc0000001 seq 7`.
impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, spi, sequence, udp, .. } = self;
        let udp = if *udp { "UDP/" } else { "" };
        write!(f, "{udp}{protocol} 0x{spi:08x} seq {sequence}")
    }
}

/// The line of a packet.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6}  ", self.index)?;
        if let Some((src, dst)) = self.addrs {
            write!(f, "{src} > {dst}  ")?;
        }
        if let Verdict::Ike(_) = self.verdict {
            f.write_str("IKE  ")?;
        }
        for layer in &self.layers {
            write!(f, "{layer}  ")?;
        }
        fmt::Display::fmt(&self.verdict, f)?;
        if let Some(inner) = &self.inner {
            write!(f, ": {}", describe(inner))?;
        }
        if let [first, .., last] = self.frames[..] {
            write!(f, " (fragments, packets {first} to {last})")?;
        }
        Ok(())
    }
}
