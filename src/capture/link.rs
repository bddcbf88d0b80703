//! From a captured frame to the IP packet in it, by link type (<https://www.tcpdump.org/linktypes.html>).

use core::fmt;

/// A link type, as capture files number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkType(pub u32);

impl LinkType {
    /// BSD loopback: four bytes of address family in the byte order of the host.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// A bare IP packet.
    pub const RAW: Self = Self(101);
    /// PPP, with or without address and control field.
    pub const PPP: Self = Self(9);
    /// PPP in HDLC-like framing, which has them.
    pub const PPP_HDLC: Self = Self(50);
    /// OpenBSD loopback: four bytes of address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked.
    pub const LINUX_SLL: Self = Self(113);
    /// A bare IPv4 packet.
    pub const IPV4: Self = Self(228);
    /// A bare IPv6 packet.
    pub const IPV6: Self = Self(229);
    /// Linux cooked, version 2.
    pub const LINUX_SLL2: Self = Self(276);
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link type {}", self.0)
    }
}

/// Why there is no IP packet in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIp {
    /// The link type is not known here.
    LinkType(LinkType),
    /// Another protocol, by its EtherType or address family.
    Protocol(u32),
    /// Shorter than its link-layer header.
    Cut,
}

impl fmt::Display for NotIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkType(link) => write!(f, "{link} is not known"),
            Self::Protocol(number) => write!(f, "protocol 0x{number:04x}"),
            Self::Cut => f.write_str("shorter than its link-layer header"),
        }
    }
}

/// The IP packet of a frame, with whatever padding follows it.
///
/// # Errors
/// There is none.
pub fn ip_packet(link: LinkType, frame: &[u8]) -> Result<&[u8], NotIp> {
    match link {
        LinkType::ETHERNET => ethernet(frame),
        // 12 and 14 are what some BSDs write for raw IP.
        LinkType::RAW | LinkType::IPV4 | LinkType::IPV6 | LinkType(12 | 14) => Ok(frame),
        LinkType::NULL | LinkType::LOOP => {
            let (&family, packet) = frame.split_first_chunk::<4>().ok_or(NotIp::Cut)?;
            let number = match u32::from_be_bytes(family) {
                little if link == LinkType::NULL && little > 0xffff => u32::from_le_bytes(family),
                big => big,
            };
            // AF_INET; AF_INET6 of NetBSD and OpenBSD, Linux, FreeBSD, Darwin.
            if matches!(number, 2 | 10 | 24 | 28 | 30) {
                Ok(packet)
            } else {
                Err(NotIp::Protocol(number))
            }
        }
        LinkType::PPP | LinkType::PPP_HDLC => ppp(frame),
        LinkType::LINUX_SLL => {
            let header = frame.first_chunk::<16>().ok_or(NotIp::Cut)?;
            by_ethertype([header[14], header[15]], &frame[16..])
        }
        LinkType::LINUX_SLL2 => {
            let header = frame.first_chunk::<20>().ok_or(NotIp::Cut)?;
            by_ethertype([header[0], header[1]], &frame[20..])
        }
        other => Err(NotIp::LinkType(other)),
    }
}

/// Most VLAN tags, or MPLS labels, of one frame.
const MAX_TAGS: usize = 4;

fn ethernet(frame: &[u8]) -> Result<&[u8], NotIp> {
    let (_addresses, rest) = frame.split_at_checked(12).ok_or(NotIp::Cut)?;
    let (&ethertype, payload) = rest.split_first_chunk::<2>().ok_or(NotIp::Cut)?;
    by_ethertype(ethertype, payload)
}

fn by_ethertype(ethertype: [u8; 2], mut payload: &[u8]) -> Result<&[u8], NotIp> {
    let mut ethertype = u16::from_be_bytes(ethertype);
    for _ in 0..=MAX_TAGS {
        match ethertype {
            0x0800 | 0x86dd => return Ok(payload),
            // IEEE 802.1Q, 802.1ad, and what came before that: priority and VLAN, then what is in it.
            0x8100 | 0x88a8 | 0x9100 => {
                let (&[_, _, high, low], rest) =
                    payload.split_first_chunk::<4>().ok_or(NotIp::Cut)?;
                (ethertype, payload) = (u16::from_be_bytes([high, low]), rest);
            }
            // RFC 2516 §4: version, type, code, session and length, then PPP.
            0x8864 => {
                let (_, rest) = payload.split_at_checked(6).ok_or(NotIp::Cut)?;
                return ppp(rest);
            }
            0x8847 | 0x8848 => return mpls(ethertype, payload),
            other => return Err(NotIp::Protocol(other.into())),
        }
    }
    Err(NotIp::Protocol(ethertype.into()))
}

/// RFC 1661 §2, RFC 1662 §3.1: address and control may be there, and the protocol may be one byte long.
fn ppp(frame: &[u8]) -> Result<&[u8], NotIp> {
    let frame = frame.strip_prefix(&[0xff, 0x03]).unwrap_or(frame);
    let (&first, rest) = frame.split_first().ok_or(NotIp::Cut)?;
    let (protocol, packet) = if first & 1 == 1 {
        (u32::from(first), rest)
    } else {
        let (&second, packet) = rest.split_first().ok_or(NotIp::Cut)?;
        (u32::from(first) << 8 | u32::from(second), packet)
    };
    match protocol {
        0x0021 | 0x0057 => Ok(packet),
        other => Err(NotIp::Protocol(other)),
    }
}

/// RFC 3032 §2.1: labels, of which the last is marked. What is under them only the first bits tell.
fn mpls(ethertype: u16, mut payload: &[u8]) -> Result<&[u8], NotIp> {
    for _ in 0..MAX_TAGS {
        let (&[_, _, bottom, _], rest) = payload.split_first_chunk::<4>().ok_or(NotIp::Cut)?;
        payload = rest;
        if bottom & 1 == 1 {
            return match payload.first().map(|byte| byte >> 4) {
                Some(4 | 6) => Ok(payload),
                Some(_) => Err(NotIp::Protocol(ethertype.into())),
                None => Err(NotIp::Cut),
            };
        }
    }
    Err(NotIp::Protocol(ethertype.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_found_behind_every_header() {
        let packet = [0x45, 1, 2, 3];
        let with = |header: &[u8]| [header, &packet].concat();
        let mut sll = [0; 16];
        sll[14..].copy_from_slice(&[0x86, 0xdd]);
        let mut sll2 = [0; 20];
        sll2[..2].copy_from_slice(&[8, 0]);
        let addresses = [0; 12];
        let cases = [
            (LinkType::ETHERNET, with(&[&addresses[..], &[8, 0]].concat())),
            (LinkType::ETHERNET, with(&[&addresses[..], &[0x81, 0, 0, 7, 0x86, 0xdd]].concat())),
            (
                LinkType::ETHERNET,
                with(&[&addresses[..], &[0x88, 0xa8, 0, 1, 0x81, 0, 0, 7, 8, 0]].concat()),
            ),
            (LinkType::LINUX_SLL, with(&[&[0; 14][..], &[0x81, 0, 0, 7, 8, 0]].concat())),
            (LinkType::LINUX_SLL2, with(&[&[0x81, 0][..], &[0; 18], &[0, 7, 0x86, 0xdd]].concat())),
            (
                LinkType::ETHERNET,
                with(&[&addresses[..], &[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0, 0x21]].concat()),
            ),
            (
                LinkType::ETHERNET,
                with(&[&addresses[..], &[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64]].concat()),
            ),
            (LinkType::PPP, with(&[0xff, 3, 0, 0x57])),
            (LinkType::PPP, with(&[0x21])),
            (LinkType::PPP_HDLC, with(&[0xff, 3, 0, 0x21])),
            (LinkType::RAW, packet.to_vec()),
            (LinkType::IPV4, packet.to_vec()),
            (LinkType::IPV6, packet.to_vec()),
            (LinkType::LINUX_SLL, with(&sll)),
            (LinkType::LINUX_SLL2, with(&sll2)),
            (LinkType::NULL, with(&[2, 0, 0, 0])),
            (LinkType::NULL, with(&[0, 0, 0, 2])),
            (LinkType::NULL, with(&[30, 0, 0, 0])),
            (LinkType::LOOP, with(&[0, 0, 0, 24])),
        ];
        for (link, frame) in cases {
            assert_eq!(ip_packet(link, &frame), Ok(&packet[..]), "{link}");
            for len in 0..frame.len() - packet.len() {
                if link != LinkType::RAW && link != LinkType::IPV4 && link != LinkType::IPV6 {
                    assert!(ip_packet(link, &frame[..len]).is_err(), "{link}: {len}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_ip_says_what_it_is() {
        let mut arp = [0; 20];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(ip_packet(LinkType::ETHERNET, &arp), Err(NotIp::Protocol(0x806)));
        assert_eq!(ip_packet(LinkType(147), &arp), Err(NotIp::LinkType(LinkType(147))));
        assert_eq!(ip_packet(LinkType::NULL, &[7, 0, 0, 0, 1]), Err(NotIp::Protocol(7)));
        let tags = [&[0; 12][..], &[0x81, 0, 0, 1].repeat(9)].concat();
        assert_eq!(ip_packet(LinkType::ETHERNET, &tags), Err(NotIp::Protocol(0x8100)));
        let labels = [&[0; 12][..], &[0x88, 0x47], &[0, 1, 0, 64].repeat(9)].concat();
        assert_eq!(ip_packet(LinkType::ETHERNET, &labels), Err(NotIp::Protocol(0x8847)));
        assert_eq!(ip_packet(LinkType::PPP, &[0xc0, 0x21, 1]), Err(NotIp::Protocol(0xc021)));
    }
}
