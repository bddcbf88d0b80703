//! The bodies of the fuzz targets `inbound_packet` and `outbound_packet`: packets of whatever make into datapaths with every
//! kind of SA.
//!
//! Both take a first byte that chooses the [`Kind`]. Nothing is kept from one input to the next but what no check depends
//! on: replay windows are off.

use core::cell::RefCell;
use core::time::Duration;
use std::time::Instant;

use super::gateways::{Kind, carry};
use super::{FixedRandom, VirtualClock};
use crate::datapath::{
    Datapath, DatapathStats, DropReason, Form, InboundBatch, Options, OutboundBatch, PacketBuf,
    Received, Sealed,
};
use crate::ipsec::{Encap, Mode, OutboundSa, Path, Place};
use crate::wire::Reader;
use crate::wire::ip::{IpPacket, NextHeader};

/// More than any seed is long, and than the path takes, so that there is something to fragment.
const MAX_LEN: usize = 4096;
/// Small, so that short inputs are too long for it.
const PATH_MTU: usize = 400;

/// Both ends of one kind of SA.
struct Pair {
    kind: Kind,
    a: Datapath,
    b: Datapath,
    /// What A protects with, outside its datapath.
    sa: OutboundSa,
    now: Instant,
    outbound: OutboundBatch,
    inbound: InboundBatch,
}

thread_local! {
    static PAIRS: RefCell<Vec<Pair>> = RefCell::new(pairs());
}

fn pairs() -> Vec<Pair> {
    let now = VirtualClock::new().now();
    let options = Options { path_mtu: PATH_MTU, ..Options::default() };
    Kind::all()
        .into_iter()
        .map(|kind| {
            let [a, b] = kind.datapaths(&options, now, |params| {
                params.replay_window = 0;
                params.around.iter_mut().for_each(|around| around.replay_window = 0);
            });
            let sa = OutboundSa::new(kind.params(true, true)).expect("an SA that there is");
            let (outbound, inbound) = (OutboundBatch::new(MAX_LEN), InboundBatch::new(MAX_LEN));
            Pair { kind, a, b, sa, now, outbound, inbound }
        })
        .collect()
}

fn with_pair(data: &[u8], body: impl FnOnce(&mut Pair, &[u8]) -> Option<usize>) -> usize {
    let Some((&choice, rest)) = data.split_first() else { return 0 };
    PAIRS.with_borrow_mut(|pairs| {
        let count = pairs.len();
        let pair = &mut pairs[usize::from(choice) % count];
        // Fragments of the input before have waited too long.
        pair.now += Duration::from_secs(60);
        body(pair, rest).unwrap_or(0)
    })
}

/// A packet from the network, or what a peer that holds the keys protects. The second byte says which, the third is the
/// Next Header of the latter. Tells how many are delivered.
pub fn inbound_packet(data: &[u8]) -> usize {
    with_pair(data, |pair, data| {
        let &[how, next_header, ref bytes @ ..] = data else { return None };
        let packet = buffer(bytes)?;
        let path = pair.kind.params(true, false).path;
        let raw = Path { encap: Encap::Plain, ..path };
        let received = match how % 3 {
            0 => Received { path: raw, traffic_class: 0, buf: packet, segment_len: None },
            1 => {
                let udp = Path { encap: Encap::Udp, ..path };
                Received { path: udp, traffic_class: next_header, buf: packet, segment_len: None }
            }
            _ => {
                let buf = pair.protect(packet, NextHeader(next_header))?;
                Received { path, traffic_class: next_header, buf, segment_len: None }
            }
        };
        let before = counted(&pair.b.stats());
        pair.b.inbound_batch(pair.now, &mut [received], &mut pair.inbound);
        let out = &pair.inbound;
        let passed = out.deliver.len() + out.ike.len();
        let after = counted(&pair.b.stats());
        assert_eq!(passed as u64 + after - before, 1, "{:?}: lost, or counted twice", pair.kind);
        for packet in out.deliver.iter() {
            let ip = IpPacket::new_checked(packet).expect("an IP packet is delivered");
            assert_eq!(ip.total_len(), packet.len(), "{:?}: from end to end", pair.kind);
        }
        Some(out.deliver.len())
    })
}

/// Packets from the TUN, each after its length of two bytes. Tells how many leave.
pub fn outbound_packet(data: &[u8]) -> usize {
    with_pair(data, |pair, data| {
        let mut reader = Reader::new("fuzz input", data);
        let mut packets = Vec::new();
        while let Ok(len) = reader.u16()
            && packets.len() < 64
        {
            let rest = reader.rest();
            let (packet, rest) = rest.split_at_checked(len.into()).unwrap_or((rest, &[]));
            reader = Reader::new("fuzz input", rest);
            packets.extend(buffer(packet));
        }
        pair.a.outbound_batch(pair.now, &mut packets, &mut pair.outbound);
        for sealed in &pair.outbound.sealed {
            if sealed.form == Form::Packet {
                assert!(sealed.buf.len() <= PATH_MTU, "{:?}: longer than the path", pair.kind);
            }
            let mut received = [carry(sealed)];
            // Whole packets alone: the kernel puts the others together. A source route is not at its end yet.
            let on_its_way = sealed.form == Form::Packet
                && (is_fragment(&received[0].buf) || has_route(&received[0].buf));
            let dummies = dropped(&pair.b, DropReason::Dummy);
            pair.b.inbound_batch(pair.now, &mut received, &mut pair.inbound);
            // RFC 4303 §2.6: in transport mode a packet without anything in it is none.
            let is_dummy = dropped(&pair.b, DropReason::Dummy) > dummies;
            assert!(
                on_its_way || is_dummy || pair.inbound.deliver.len() == 1,
                "{:?}: {:?} is not taken: {:?}",
                pair.kind,
                &sealed.buf[..],
                pair.b.stats().drops
            );
        }
        Some(pair.outbound.sealed.len())
    })
}

impl Pair {
    /// What the SA of A makes of a payload, or of a whole packet if it is one.
    fn protect(&self, mut packet: PacketBuf, next_header: NextHeader) -> Option<PacketBuf> {
        let sa = &self.sa;
        let esp = sa.params().suite.esp().is_some();
        let tunnel = sa.params().mode == Mode::Tunnel;
        if esp && self.kind.udp || esp && tunnel && sa.around().is_none() {
            let _ = sa.seal(&mut packet, next_header).ok()?;
            return if self.kind.udp {
                Some(packet)
            } else {
                self.with_header(packet, NextHeader::ESP)
            };
        }
        if esp && tunnel {
            let _ = sa.seal(&mut packet, next_header).ok()?;
            packet = self.with_header(packet, NextHeader::ESP)?;
            let place = Place::of(&packet, NextHeader::ESP)?;
            let _ = sa.around()?.seal_at(&mut packet, place).ok()?;
            return Some(packet);
        }
        // In transport mode as a whole packet, if it is one that may be protected.
        if tunnel || Place::for_insertion(&packet).is_none() {
            packet = self.with_header(packet, next_header)?;
        }
        let len = IpPacket::new_checked(&packet[..]).ok()?.total_len();
        packet.truncate(len);
        let place = Place::for_insertion(&packet)?;
        let _ = sa.seal_at(&mut packet, place).ok()?;
        if let Some(around) = sa.around() {
            let _ = around.seal_at(&mut packet, place).ok()?;
        }
        Some(packet)
    }

    fn with_header(&self, payload: PacketBuf, protocol: NextHeader) -> Option<PacketBuf> {
        let path = self.sa.params().path;
        let sealed = Sealed {
            buf: payload,
            segment_len: None,
            path: Path { encap: Encap::Plain, ..path },
            form: Form::Payload { traffic_class: 0, dont_fragment: true },
        };
        let mut packet = carry(&sealed).buf;
        let place = Place::of(&packet, NextHeader::ESP)?;
        place.mend(&mut packet, protocol)?;
        Some(packet)
    }
}

fn buffer(bytes: &[u8]) -> Option<PacketBuf> {
    let mut buf = PacketBuf::new(MAX_LEN);
    (!bytes.is_empty() && buf.fill_from(bytes)).then_some(buf)
}

fn counted(stats: &DatapathStats) -> u64 {
    stats.drops.iter().map(|(_, count)| count).sum::<u64>() + stats.keepalives
}

fn dropped(datapath: &Datapath, why: DropReason) -> u64 {
    let drops = datapath.stats().drops;
    drops.iter().filter(|(reason, _)| *reason == why).map(|(_, count)| count).sum()
}

fn is_fragment(packet: &[u8]) -> bool {
    IpPacket::new_checked(packet)
        .and_then(|ip| ip.upper_layer())
        .is_ok_and(|upper| upper.fragment.is_some())
}

/// Options or a routing header: what AH covers of them is as at the final destination.
fn has_route(packet: &[u8]) -> bool {
    match IpPacket::new_checked(packet) {
        Ok(IpPacket::V4(ip)) => ip.header_len() > 20,
        Ok(IpPacket::V6(ip)) => {
            let mut headers = ip.extension_headers().map_while(Result::ok);
            headers.any(|header| header.kind == NextHeader::ROUTING)
        }
        Err(_) => false,
    }
}

/// Spoils bytes of an input, for runs without a fuzzer.
pub fn spoil(random: &mut FixedRandom, input: &mut Vec<u8>) {
    const INTERESTING: [u8; 16] =
        [0, 1, 4, 6, 17, 0x20, 0x40, 41, 43, 44, 0x45, 50, 51, 59, 60, 0xff];
    for _ in 0..=random.below(4) {
        if input.is_empty() {
            input.push(0);
        }
        let at = random.below(input.len());
        match random.below(7) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = INTERESTING[random.below(INTERESTING.len())],
            2 => input[at] = random.next_u64().to_be_bytes()[0],
            3 => input.truncate(at),
            4 => input.extend(random.next_u64().to_be_bytes().iter().take(1 + at % 8)),
            // What a kind of SA refuses another may take.
            5 => input[0] = random.next_u64().to_be_bytes()[0],
            _ => {
                let end = at + random.below(input.len() - at) + 1;
                let piece = input[at..end].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, piece);
                input.truncate(MAX_LEN);
            }
        }
    }
}
