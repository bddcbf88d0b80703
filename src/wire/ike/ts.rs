//! Traffic Selector payloads, TSi and TSr (RFC 7296 §3.13).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::numbers::TsType;
use super::{len8, patch_len};
use crate::wire::{Malformed, ParseError, Reader};

/// Traffic Selector payload (RFC 7296 §3.13).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Number of TSs |                 RESERVED                      |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                       <Traffic Selectors>                     ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ts {
    /// The selectors of the types that are understood, in order; at most [`Self::MAX`].
    pub selectors: Vec<TrafficSelector>,
}

impl Ts {
    /// Selectors that fit into one payload: their number is an octet.
    pub const MAX: usize = 255;

    /// Reads the body of the payload. Selectors of unknown type are skipped: nobody can narrow to them,
    /// and RFC 7296 §2.9 has the responder choose from those it can.
    ///
    /// # Errors
    /// When count and lengths contradict each other, or a range is upside down.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        let before = body.clone();
        let count = body.u8()?;
        let _reserved = body.take(3)?;
        // RFC 7296 §3.13: one or more individual Traffic Selectors.
        if count == 0 {
            return Err(before.error(Malformed::BadValue(0)));
        }
        let mut selectors = Vec::new();
        for _ in 0..count {
            selectors.extend(TrafficSelector::parse(body)?);
        }
        Ok(Self { selectors })
    }

    /// Appends the body of the payload. What has no encoding is left out: a selector that mixes IP
    /// versions, or one past [`Self::MAX`].
    pub fn emit(&self, out: &mut Vec<u8>) {
        let selectors = || {
            let same = |ts: &&TrafficSelector| ts.start_addr.is_ipv4() == ts.end_addr.is_ipv4();
            self.selectors.iter().filter(same).take(Self::MAX)
        };
        out.extend_from_slice(&[len8(selectors().count()), 0, 0, 0]);
        for selector in selectors() {
            selector.emit(out);
        }
    }
}

/// One Traffic Selector (RFC 7296 §3.13.1): a range of addresses of one IP version, a range of ports and
/// an IP protocol. All bounds are inclusive.
///
/// For ICMP the port fields hold type (high byte) and code (low byte); OPAQUE is `start_port = 0xffff`,
/// `end_port = 0`.
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   TS Type     |IP Protocol ID*|       Selector Length         |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |           Start Port*         |           End Port*           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                         Starting Address*                     ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// ~                         Ending Address*                       ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// Lowest port.
    pub start_port: u16,
    /// Highest port.
    pub end_port: u16,
    /// Lowest address.
    pub start_addr: IpAddr,
    /// Highest address; of the same version as `start_addr`.
    pub end_addr: IpAddr,
}

impl TrafficSelector {
    /// Every protocol and port between two addresses of one IP version.
    #[must_use]
    pub const fn addresses(start_addr: IpAddr, end_addr: IpAddr) -> Self {
        Self { protocol: 0, start_port: 0, end_port: u16::MAX, start_addr, end_addr }
    }

    /// Whether the ports are OPAQUE: the selector is for packets whose ports cannot be seen.
    #[must_use]
    pub const fn is_opaque(&self) -> bool {
        self.start_port == u16::MAX && self.end_port == 0
    }

    /// Reads one selector; `None` if its type is not understood.
    fn parse(body: &mut Reader<'_>) -> Result<Option<Self>, ParseError> {
        let mut head = body.clone().named("traffic selector");
        let ts_type = TsType(head.u8()?);
        let protocol = head.u8()?;
        let length = usize::from(head.u16()?);
        let mut reader = body.sub("traffic selector", length)?;
        reader.take(4)?;
        if !matches!(ts_type, TsType::TS_IPV4_ADDR_RANGE | TsType::TS_IPV6_ADDR_RANGE) {
            return Ok(None);
        }
        let before_ports = reader.clone();
        let start_port = reader.u16()?;
        let end_port = reader.u16()?;
        let before_addrs = reader.clone();
        let mut addr = || -> Result<IpAddr, ParseError> {
            if ts_type == TsType::TS_IPV4_ADDR_RANGE {
                reader.take_array().map(|a: [u8; 4]| Ipv4Addr::from(a).into())
            } else {
                reader.take_array().map(|a: [u8; 16]| Ipv6Addr::from(a).into())
            }
        };
        let selector =
            Self { protocol, start_port, end_port, start_addr: addr()?, end_addr: addr()? };
        reader.all()?;
        // RFC 7296 §3.13.1: the smallest port comes first, except in OPAQUE, which is 65535 and 0.
        if start_port > end_port && !selector.is_opaque() {
            return Err(before_ports.error(Malformed::BadValue(start_port.into())));
        }
        if selector.start_addr > selector.end_addr {
            return Err(before_addrs.error(Malformed::BadLength(length)));
        }
        Ok(Some(selector))
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let ts_type = match self.start_addr {
            IpAddr::V4(_) => TsType::TS_IPV4_ADDR_RANGE,
            IpAddr::V6(_) => TsType::TS_IPV6_ADDR_RANGE,
        };
        out.extend_from_slice(&[ts_type.0, self.protocol, 0, 0]);
        out.extend_from_slice(&self.start_port.to_be_bytes());
        out.extend_from_slice(&self.end_port.to_be_bytes());
        for addr in [self.start_addr, self.end_addr] {
            match addr {
                IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
            }
        }
        patch_len(out, start);
    }
}

#[cfg(test)]
mod tests {
    use super::super::numbers::PayloadType;
    use super::super::payload::Payload;
    use super::super::testkit::{self, six_tests};
    use super::*;

    fn ts() -> Ts {
        let v4 = TrafficSelector {
            protocol: 17,
            start_port: 100,
            end_port: 200,
            start_addr: [10, 1, 0, 0].into(),
            end_addr: [10, 1, 255, 255].into(),
        };
        let v6 = TrafficSelector::addresses(
            Ipv6Addr::LOCALHOST.into(),
            Ipv6Addr::from(u128::MAX).into(),
        );
        Ts { selectors: vec![v4, v6] }
    }

    const BODY: [u8; 60] = [
        2, 0, 0, 0, // two selectors
        7, 17, 0, 16, 0, 100, 0, 200, 10, 1, 0, 0, 10, 1, 255, 255, //
        8, 0, 0, 40, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    ];

    six_tests!(Payload::TsI(ts()), BODY, least = BODY.len(), reserved = [1, 2, 3]);

    fn parse(body: &[u8]) -> Result<Vec<TrafficSelector>, Malformed> {
        match testkit::parse(PayloadType::TS_R, body) {
            Ok(Payload::TsR(ts)) => Ok(ts.selectors),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.why),
        }
    }

    fn v4(start: u16, end: u16, from: u8, to: u8) -> Vec<u8> {
        let mut body = vec![1, 0, 0, 0, 7, 6, 0, 16];
        body.extend_from_slice(&start.to_be_bytes());
        body.extend_from_slice(&end.to_be_bytes());
        body.extend_from_slice(&[10, 0, 0, from, 10, 0, 0, to]);
        body
    }

    #[test]
    fn a_port_range_is_not_upside_down_unless_opaque() {
        assert_eq!(parse(&v4(2, 1, 0, 9)), Err(Malformed::BadValue(2)));
        assert_eq!(parse(&v4(0xffff, 1, 0, 9)), Err(Malformed::BadValue(0xffff)));
        let opaque = parse(&v4(0xffff, 0, 0, 9)).expect("OPAQUE");
        assert!(opaque[0].is_opaque());
        assert!(!parse(&v4(7, 7, 0, 9)).expect("one port")[0].is_opaque());
    }

    #[test]
    fn an_address_range_is_not_upside_down() {
        assert!(parse(&v4(0, 1, 5, 4)).is_err());
        assert!(parse(&v4(0, 1, 5, 5)).is_ok());
    }

    #[test]
    fn selectors_of_unknown_type_are_skipped() {
        let mut body = BODY;
        body[4] = 9;
        assert_eq!(parse(&body), Ok(vec![ts().selectors[1]]));
        // Only the header of an unknown selector has a known form.
        assert_eq!(parse(&[1, 0, 0, 0, 10, 0, 0, 4]), Ok(vec![]));
        assert!(parse(&[1, 0, 0, 0, 10, 0, 0, 3]).is_err());
    }

    #[test]
    fn the_count_must_be_the_number_of_selectors() {
        for count in [0, 1, 3] {
            let mut body = BODY;
            body[0] = count;
            assert!(parse(&body).is_err(), "{count}");
        }
    }

    #[test]
    fn the_selector_length_must_be_that_of_its_type() {
        for length in [0, 15, 17, 40] {
            let mut body = BODY;
            body[7] = length;
            assert!(parse(&body).is_err(), "{length}");
        }
    }

    #[test]
    fn what_has_no_encoding_is_left_out() {
        let mut mixed = ts();
        mixed.selectors[0].end_addr = Ipv6Addr::LOCALHOST.into();
        let bytes = testkit::emit(&Payload::TsR(mixed));
        assert_eq!(parse(&bytes[4..]), Ok(vec![ts().selectors[1]]));

        let many = Ts { selectors: vec![ts().selectors[0]; 300] };
        let bytes = testkit::emit(&Payload::TsR(many));
        assert_eq!(parse(&bytes[4..]).map(|ts| ts.len()), Ok(Ts::MAX));
    }
}
