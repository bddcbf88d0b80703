//! [`Lenient`] and [`LenientIke`]: read ESP and IKE that no gateway accepts. Nobody can check its integrity, since the key file has an
//! encryption key alone (tcpdump's secrets, Wireshark's "no checking"), or it is encrypted by what is no longer used (3DES, DES) or not by
//! us (IKE with AES-CTR).
//!
//! For a capture only. No gateway may take such packets (RFC 8221 §4, §5; RFC 8247 §2), and this one does not. There is no replay check,
//! which would have to rely on an ICV.

use super::keys::{Algorithms, Integrity, SaKey};
use super::sa::Payload;
use crate::crypto::Encr;
use crate::crypto::cipher::{Cbc, Ctr};
use crate::crypto::des::DesCbc;
use crate::crypto::integ::Integ;
use crate::ike::protect::{OpenError, Part, open_part_by};
use crate::ipsec::DropReason;
use crate::ipsec::inner::Inner;
use crate::ipsec::suite::IkeSuite;
use crate::wire::esp::{EspHeader, EspPacket, EspTrailer};
use crate::wire::icmp::IcmpPacket;
use crate::wire::ike::numbers::{EncrId, IntegId};
use crate::wire::ip::{IpPacket, NextHeader};
use crate::wire::udp::UdpPacket;

/// An SA of ESP that can be read, and no more.
#[derive(Debug)]
pub(super) struct Lenient {
    cipher: Cipher,
    integ: Option<Box<Integ>>,
    icv_len: usize,
    /// Of extended sequence numbers, the high half.
    high: Option<u32>,
}

/// The keys of one end of an IKE SA, likewise.
#[derive(Debug)]
pub(super) struct LenientIke {
    cipher: Cipher,
    integ: Option<Box<Integ>>,
    icv_len: usize,
}

#[derive(Debug)]
enum Cipher {
    Cbc(Box<Cbc>),
    Ctr(Box<Ctr>),
    Des(DesCbc),
    Null,
}

impl Lenient {
    /// `None` for algorithms that are not ours to read, and for a key of another length than theirs.
    pub(super) fn new(key: &SaKey, algorithms: Algorithms) -> Option<Self> {
        let (integ, icv_len) = match algorithms.integrity {
            Integrity::Aead => return None,
            Integrity::Full(id) => {
                let integ = Integ::new(id, key.integ_key.expose())?;
                (Some(Box::new(integ)), Integ::icv_len(id)?)
            }
            Integrity::Unchecked(icv_len) => (None, icv_len),
        };
        let cipher = Cipher::new(algorithms.encr?, key.encr_key.expose())?;
        Some(Self { cipher, integ, icv_len, high: key.esn.then(|| key.start.high()) })
    }

    /// Opens an ESP packet.
    pub(super) fn open(&self, packet: &[u8]) -> Result<Payload, DropReason> {
        let malformed = DropReason::EspMalformed;
        let header = EspPacket::new_checked(packet).map_err(|_| malformed)?;
        let end = packet.len().checked_sub(self.icv_len).ok_or(malformed)?;
        let (signed, icv) = packet.split_at_checked(end).ok_or(malformed)?;
        if let Some(integ) = &self.integ {
            // RFC 4303 §2.2.1: of an extended number the high half is covered, and not sent.
            let high = self.high.map(u32::to_be_bytes);
            let high = high.as_ref().map_or(&[][..], |high| high);
            if !integ.verify(&[signed, high], icv) {
                return Err(DropReason::IcvMismatch);
            }
        }
        let mut body = signed.get(EspHeader::LEN..).ok_or(malformed)?.to_vec();
        let mut body = self.cipher.decrypt(&mut body).ok_or(malformed)?.to_vec();
        let trailer = EspTrailer::parse(&body).map_err(|_| DropReason::BadPadding)?;
        body.truncate(body.len() - trailer.len());
        let verified = self.integ.is_some();
        if !verified && !is_plausible(trailer.next_header, &body) {
            return Err(DropReason::BadPadding);
        }
        let sequence = u64::from(self.high.unwrap_or(0)) << 32 | u64::from(header.sequence());
        Ok(Payload { bytes: body, next_header: trailer.next_header, sequence, verified })
    }
}

impl LenientIke {
    /// With `checked`, what has an integrity key is verified. `None` for algorithms that are not ours to read, and for keys of another
    /// length than theirs.
    pub(super) fn new(suite: IkeSuite, sk_e: &[u8], sk_a: &[u8], checked: bool) -> Option<Self> {
        let cipher = Cipher::new(suite.encr, sk_e)?;
        let (integ, icv_len) = match suite.integ {
            IntegId::NONE => return None,
            IntegId::AUTH_HMAC_MD5_96 => (None, 12),
            AUTH_HMAC_MD5_128 => (None, 16),
            AUTH_HMAC_SHA1_160 => (None, 20),
            id => (Some(Box::new(Integ::new(id, sk_a)?)), Integ::icv_len(id)?),
        };
        Some(Self { cipher, integ: integ.filter(|_| checked), icv_len })
    }

    /// Whether what it opens is known to be genuine.
    pub(super) const fn verifies(&self) -> bool {
        self.integ.is_some()
    }

    /// What is in the SK or SKF payload of a datagram.
    pub(super) fn open(&self, datagram: &[u8]) -> Result<Part, OpenError> {
        open_part_by(datagram, |_, body| {
            let signed_len = datagram.len().checked_sub(self.icv_len).ok_or(OpenError::BadIcv)?;
            let data_len = body.len().checked_sub(self.icv_len).ok_or(OpenError::BadIcv)?;
            let (data, icv) = body.split_at_mut_checked(data_len).ok_or(OpenError::BadIcv)?;
            let signed = datagram.get(..signed_len).ok_or(OpenError::BadIcv)?;
            if self.integ.as_ref().is_some_and(|integ| !integ.verify(&[signed], icv)) {
                return Err(OpenError::BadIcv);
            }
            self.cipher.decrypt(data).ok_or(OpenError::BadIcv)
        })
    }
}

/// RFC 4595: with it, nothing is verified here.
pub(super) const AUTH_HMAC_MD5_128: IntegId = IntegId(6);
/// The same.
pub(super) const AUTH_HMAC_SHA1_160: IntegId = IntegId(7);

impl Cipher {
    fn new(encr: Encr, key: &[u8]) -> Option<Self> {
        Some(match encr.id {
            EncrId::ENCR_AES_CBC => Self::Cbc(Box::new(Cbc::new(encr, key)?)),
            EncrId::ENCR_AES_CTR => Self::Ctr(Box::new(Ctr::new(encr, key)?)),
            EncrId::ENCR_DES if key.len() == DesCbc::DES_KEY_LEN => Self::Des(DesCbc::new(key)?),
            EncrId::ENCR_3DES if key.len() == DesCbc::TRIPLE_KEY_LEN => {
                Self::Des(DesCbc::new(key)?)
            }
            EncrId::ENCR_NULL => Self::Null,
            _ => return None,
        })
    }

    /// What follows the IV with which `body` begins. `None`: it is too short, or no multiple of a block.
    fn decrypt<'a>(&self, body: &'a mut [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Cbc(cbc) => {
                let (iv, data) = body.split_first_chunk_mut()?;
                data.len().is_multiple_of(Cbc::BLOCK_LEN).then(|| cbc.decrypt(iv, data))?;
                Some(data)
            }
            Self::Ctr(ctr) => {
                let (iv, data) = body.split_first_chunk_mut()?;
                ctr.apply(iv, data);
                Some(data)
            }
            Self::Des(des) => {
                let (iv, data) = body.split_first_chunk_mut()?;
                data.len().is_multiple_of(DesCbc::BLOCK_LEN).then(|| des.decrypt(iv, data))?;
                Some(data)
            }
            Self::Null => Some(body),
        }
    }
}

/// A wrong key gives nonsense, and the padding alone does not always show it.
fn is_plausible(next_header: NextHeader, body: &[u8]) -> bool {
    let is_inner = |ipv6: bool| {
        let has_checksum = match IpPacket::new_checked(body) {
            Ok(IpPacket::V4(ip)) => ip.verify_checksum(),
            Ok(IpPacket::V6(_)) => true,
            Err(_) => false,
        };
        has_checksum && Inner::parse(body).is_some_and(|inner| inner.is_ipv6() == ipv6)
    };
    match next_header {
        NextHeader::IPV4 => is_inner(false),
        NextHeader::IPV6 => is_inner(true),
        NextHeader::NONE => true,
        // The data offset, which is at least the header's own length.
        NextHeader::TCP => {
            let offset = body.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
            offset >= 20 && offset <= body.len()
        }
        NextHeader::UDP => {
            UdpPacket::new_checked(body).is_ok_and(|udp| usize::from(udp.length()) == body.len())
        }
        NextHeader::ICMP => {
            IcmpPacket::new_checked(body).is_ok_and(|icmp| icmp.verify_checksum_v4())
        }
        other => other.name().is_some(),
    }
}
