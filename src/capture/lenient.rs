//! [`Lenient`]: reads ESP whose integrity nobody can check, since the key file has an encryption key alone (tcpdump's
//! secrets, Wireshark's "no checking").
//!
//! For a capture only. No gateway may take such packets (RFC 8221 §4), and this one does not. There is no replay check,
//! which would have to rely on the ICV.

use super::keys::{Algorithms, Integrity, SaKey};
use super::sa::Payload;
use crate::crypto::cipher::{Cbc, Ctr};
use crate::ipsec::DropReason;
use crate::ipsec::inner::Inner;
use crate::wire::esp::{EspHeader, EspPacket, EspTrailer};
use crate::wire::ike::numbers::EncrId;
use crate::wire::ip::NextHeader;

/// An SA that can be read, and no more.
#[derive(Debug)]
pub(super) struct Lenient {
    cipher: Cipher,
    icv_len: usize,
}

#[derive(Debug)]
enum Cipher {
    Cbc(Box<Cbc>),
    Ctr(Box<Ctr>),
    Null,
}

impl Lenient {
    /// `None` for algorithms that are not ours, and for what has an integrity key.
    pub(super) fn new(key: &SaKey, algorithms: Algorithms) -> Option<Self> {
        let Integrity::Unchecked(icv_len) = algorithms.integrity else { return None };
        let encr = algorithms.encr?;
        let secret = key.encr_key.expose();
        let cipher = match encr.id {
            EncrId::ENCR_AES_CBC => Cipher::Cbc(Box::new(Cbc::new(encr, secret)?)),
            EncrId::ENCR_AES_CTR => Cipher::Ctr(Box::new(Ctr::new(encr, secret)?)),
            EncrId::ENCR_NULL => Cipher::Null,
            _ => return None,
        };
        Some(Self { cipher, icv_len })
    }

    /// Opens an ESP packet.
    pub(super) fn open(&self, packet: &[u8]) -> Result<Payload, DropReason> {
        let malformed = DropReason::EspMalformed;
        let header = EspPacket::new_checked(packet).map_err(|_| malformed)?;
        let end = packet.len().checked_sub(self.icv_len).ok_or(malformed)?;
        let mut body = packet.get(EspHeader::LEN..end).ok_or(malformed)?.to_vec();
        let iv_len = match &self.cipher {
            Cipher::Cbc(cbc) => {
                let (iv, data) = body.split_first_chunk_mut().ok_or(malformed)?;
                if !data.len().is_multiple_of(Cbc::BLOCK_LEN) {
                    return Err(malformed);
                }
                cbc.decrypt(iv, data);
                Cbc::BLOCK_LEN
            }
            Cipher::Ctr(ctr) => {
                let (iv, data) = body.split_first_chunk_mut().ok_or(malformed)?;
                ctr.apply(iv, data);
                Ctr::IV_LEN
            }
            Cipher::Null => 0,
        };
        body.drain(..iv_len);
        let trailer = EspTrailer::parse(&body).map_err(|_| DropReason::BadPadding)?;
        body.truncate(body.len() - trailer.len());
        if !is_plausible(trailer.next_header, &body) {
            return Err(DropReason::BadPadding);
        }
        let (next_header, sequence) = (trailer.next_header, header.sequence().into());
        Ok(Payload { bytes: body, next_header, sequence, verified: false })
    }
}

/// A wrong key gives nonsense, and the padding alone does not always show it.
fn is_plausible(next_header: NextHeader, body: &[u8]) -> bool {
    match next_header {
        NextHeader::IPV4 => Inner::parse(body).is_some_and(|inner| !inner.is_ipv6()),
        NextHeader::IPV6 => Inner::parse(body).is_some_and(|inner| inner.is_ipv6()),
        other => other.name().is_some(),
    }
}
