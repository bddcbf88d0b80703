//! [`Glance`]: the little of an IKE_SA_INIT request that its COOKIE is checked by (RFC 7296 §2.6). Nothing is kept, and what is not
//! asked for is not parsed.

use super::limits;
use crate::wire::Reader;
use crate::wire::ike::header::Header;
use crate::wire::ike::numbers::{NotifyType, PayloadType};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Glance<'a> {
    pub(super) nonce: &'a [u8],
    /// Of the first payload, where a COOKIE is to be.
    pub(super) cookie: Option<&'a [u8]>,
}

impl<'a> Glance<'a> {
    /// `None` if it has no Nonce, or no form.
    pub(super) fn at(datagram: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new("IKE message", datagram);
        let mut next = Header::parse(&mut reader).ok()?.next_payload;
        let (mut nonce, mut cookie) = (None, None);
        for place in 0..limits::MAX_INIT_PAYLOADS {
            if next == PayloadType::NONE {
                break;
            }
            let [following, _flags, high, low] = reader.take_array().ok()?;
            let len = usize::from(u16::from_be_bytes([high, low])).checked_sub(4)?;
            let body = reader.take(len).ok()?;
            if next == PayloadType::NONCE {
                nonce = Some(body);
            } else if next == PayloadType::NOTIFY && place == 0 {
                cookie = cookie_in(body);
            }
            next = PayloadType(following);
        }
        Some(Self { nonce: nonce?, cookie })
    }
}

/// RFC 7296 §3.10: Protocol ID, SPI Size, type, SPI, data.
fn cookie_in(notify: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new("Notify payload", notify);
    let [_protocol, spi_size, high, low] = reader.take_array().ok()?;
    reader.take(spi_size.into()).ok()?;
    let notify_type = NotifyType(u16::from_be_bytes([high, low]));
    (notify_type == NotifyType::COOKIE).then_some(reader.rest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ike::header::{Flags, IkeSpi};
    use crate::wire::ike::message::Message;
    use crate::wire::ike::numbers::{ExchangeType, KeId};
    use crate::wire::ike::payload::{Ke, Nonce, Notify, Payload};

    fn message(payloads: Vec<Payload>) -> Vec<u8> {
        let flags = Flags::new(true, false);
        let header = Header::new(IkeSpi(1), IkeSpi(0), ExchangeType::IKE_SA_INIT, flags, 0);
        Message { header, payloads }.emit()
    }

    fn cookie() -> Payload {
        Payload::Notify(Notify::new(NotifyType::COOKIE, [9; 17]))
    }

    fn rest() -> [Payload; 2] {
        [
            Payload::Ke(Ke { group: KeId::CURVE25519, data: vec![1; 32] }),
            Payload::Nonce(Nonce { data: vec![7; 32] }),
        ]
    }

    #[test]
    fn sees_the_nonce_and_a_cookie_that_comes_first() {
        let without = message(rest().into());
        assert_eq!(Glance::at(&without), Some(Glance { nonce: &[7; 32], cookie: None }));
        let with = message([cookie()].into_iter().chain(rest()).collect());
        assert_eq!(Glance::at(&with), Some(Glance { nonce: &[7; 32], cookie: Some(&[9; 17]) }));
        let late = message(rest().into_iter().chain([cookie()]).collect());
        assert_eq!(Glance::at(&late), Some(Glance { nonce: &[7; 32], cookie: None }));
    }

    #[test]
    fn sees_nothing_in_what_is_cut_or_endless() {
        let whole = message([cookie()].into_iter().chain(rest()).collect());
        for len in 0..whole.len() {
            assert_eq!(Glance::at(&whole[..len]), None, "{len}");
        }
        // A payload that is shorter than its header.
        let mut short = whole;
        short[Header::LEN + 3] = 3;
        assert_eq!(Glance::at(&short), None);
        let many = message([vec![cookie(); 10_000], rest().into()].concat());
        assert_eq!(Glance::at(&many), None);
    }
}
