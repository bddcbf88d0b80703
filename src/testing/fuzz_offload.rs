//! The bodies of the fuzz targets `segment` and `coalesce`: whatever comes from a TUN to be cut, and whatever was opened to be
//! joined.

use crate::datapath::coalesce::Coalescer;
use crate::datapath::segment::{Segments, complete};
use crate::wire::Reader;
use crate::wire::ip::IpPacket;
use crate::wire::vnet::{Gso, Offloads, VnetHeader};

const ALL: Offloads = Offloads { tcp: true, udp: true };

/// More than this many packets say nothing new.
const MAX_PACKETS: usize = 64;

/// A virtio header and a packet. Tells how many segments it makes.
pub(super) fn segment(data: &[u8]) -> usize {
    let Some((header, packet)) = data.split_first_chunk() else { return 0 };
    let Ok(vnet) = VnetHeader::parse(header) else { return 0 };
    assert_eq!(VnetHeader::parse(&vnet.emit()), Ok(vnet), "the header comes back");
    if let Some(partial) = vnet.checksum {
        let before = packet.len();
        let mut packet = packet.to_vec();
        let _made = complete(&mut packet, partial);
        assert_eq!(packet.len(), before);
    }
    let Some(segments) = cut(packet, &vnet) else { return 0 };
    for segment in &segments {
        let ip = IpPacket::new_checked(&segment[..]).expect("a segment is a packet");
        assert_eq!(ip.total_len(), segment.len(), "from end to end");
    }
    check_joined(&segments);
    segments.len()
}

/// Packets, each after its length of two bytes. Tells how many pieces they make.
pub(super) fn coalesce(data: &[u8]) -> usize {
    let mut reader = Reader::new("fuzz input", data);
    let mut packets = Vec::new();
    while let Ok(len) = reader.u16()
        && packets.len() < MAX_PACKETS
    {
        let rest = reader.rest();
        let (packet, rest) = rest.split_at_checked(len.into()).unwrap_or((rest, &[]));
        reader = Reader::new("fuzz input", rest);
        packets.push(packet.to_vec());
    }
    check_joined(&packets)
}

/// Each piece, cut again, is the packets that are in it; each packet is in one, after those before it in its flow.
fn check_joined(packets: &[Vec<u8>]) -> usize {
    let mut coalescer = Coalescer::new();
    coalescer.arrange(packets.iter().map(Vec::as_slice), ALL);
    let mut order = Vec::new();
    let mut pieces = 0;
    for joined in coalescer.joined() {
        pieces += 1;
        let parts: Vec<_> = joined.parts().collect();
        assert_eq!(joined.is_joined(), parts.len() > 1);
        if joined.is_joined() {
            let payloads = parts.iter().flat_map(|&(at, skip)| &packets[at][skip..]);
            let whole: Vec<_> = joined.header.iter().chain(payloads).copied().collect();
            assert_ne!(joined.vnet.gso, Gso::None);
            let segments = cut(&whole, &joined.vnet).expect("what was joined can be cut");
            assert!(segments.iter().eq(parts.iter().map(|&(at, _)| &packets[at])), "the same bits");
        }
        order.extend(parts.iter().map(|&(at, _)| at));
    }
    for (place, &at) in order.iter().enumerate() {
        let flow = flow_of(&packets[at]);
        let overtaken = order[place + 1..].iter().find(|&&later| {
            later <= at && (later == at || flow.is_some() && flow_of(&packets[later]) == flow)
        });
        assert_eq!(overtaken, None, "{at} comes once, and in its order");
    }
    assert_eq!(order.len(), packets.len(), "nothing is lost");
    pieces
}

fn cut(packet: &[u8], vnet: &VnetHeader) -> Option<Vec<Vec<u8>>> {
    let segments = Segments::new(packet, vnet)?;
    let made = (0..segments.len()).map(|index| {
        let mut segment = vec![0xa5; segments.len_of(index)];
        segments.write(index, &mut segment);
        segment
    });
    Some(made.collect())
}

/// Addresses, protocol and ports of a TCP or UDP packet without anything between its headers.
fn flow_of(packet: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (addresses, protocol, transport) = match packet.first()? {
        0x45 => (12..20, packet.get(9)?, 20),
        0x60..=0x6f => (8..40, packet.get(6)?, 40),
        _ => return None,
    };
    let ports = packet.get(transport..transport + 4)?;
    let ip = IpPacket::new_checked(packet).ok()?;
    let whole = ip.total_len() == packet.len() && ip.upper_layer().ok()?.fragment.is_none();
    let least = if *protocol == 6 { 20 } else { 8 };
    (matches!(protocol, 6 | 17) && whole && packet.len() >= transport + least).then_some((
        &packet[addresses],
        *protocol,
        ports,
    ))
}
