//! The two ways of protecting a payload: an AEAD (RFC 4106), or AES-CBC with HMAC-SHA-2 (RFC 3602, RFC 4868).

use super::super::replay::IcvVerified;
use super::super::{DropReason, suite::EspSuite};
use super::EspLayout;
use crate::crypto::Secret;
use crate::crypto::aead::Aead;
use crate::crypto::cipher::Cbc;
use crate::crypto::integ::Integ;
use crate::wire::ike::numbers::IntegId;

/// Algorithms with their keys.
#[derive(Debug)]
pub(super) struct Transform {
    layout: EspLayout,
    algorithms: Algorithms,
}

#[derive(Debug)]
enum Algorithms {
    Aead(Aead),
    CbcHmac(Box<CbcHmac>),
}

/// Encrypted, then authenticated.
#[derive(Debug)]
struct CbcHmac {
    cipher: Cbc,
    integ: Integ,
}

impl Transform {
    pub(super) fn new(suite: EspSuite, encr_key: &Secret, integ_key: &Secret) -> Option<Self> {
        let layout = Self::layout(suite)?;
        let algorithms = if suite.integ == IntegId::NONE {
            if !integ_key.is_empty() {
                return None;
            }
            Algorithms::Aead(Aead::new(suite.encr, encr_key.expose())?)
        } else {
            Algorithms::CbcHmac(Box::new(CbcHmac {
                cipher: Cbc::new(suite.encr, encr_key.expose())?,
                integ: Integ::new(suite.integ, integ_key.expose())?,
            }))
        };
        Some(Self { layout, algorithms })
    }

    pub(super) fn layout(suite: EspSuite) -> Option<EspLayout> {
        if Aead::key_len(suite.encr).is_some() && suite.integ == IntegId::NONE {
            Some(EspLayout { iv_len: Aead::IV_LEN, align: 4, icv_len: Aead::ICV_LEN })
        } else {
            Cbc::key_len(suite.encr)?;
            let icv_len = Integ::icv_len(suite.integ)?;
            Some(EspLayout { iv_len: Cbc::BLOCK_LEN, align: 16, icv_len })
        }
    }

    pub(super) const fn own_layout(&self) -> EspLayout {
        self.layout
    }

    /// Whether so many bytes can be a ciphertext. An AEAD takes any length: the alignment of RFC 4303 §2.4 binds the
    /// sender, and nothing here depends on it.
    pub(super) const fn takes(&self, encrypted: usize) -> bool {
        match self.algorithms {
            Algorithms::Aead(_) => true,
            Algorithms::CbcHmac(_) => encrypted.is_multiple_of(Cbc::BLOCK_LEN),
        }
    }

    /// Encrypts `data`, and fills `iv` and `icv`.
    pub(super) fn seal(
        &self,
        header: &[u8],
        esn: bool,
        sequence: u64,
        iv: &mut [u8],
        data: &mut [u8],
        icv: &mut [u8],
    ) {
        match &self.algorithms {
            Algorithms::Aead(aead) => {
                // RFC 4106 §3.1: unique for each packet under a key, which the sequence number is.
                let nonce = sequence.to_be_bytes();
                iv.copy_from_slice(&nonce);
                let aad = Aad::new(header, esn, sequence);
                icv.copy_from_slice(&aead.seal(&nonce, aad.as_slice(), data));
            }
            Algorithms::CbcHmac(both) => {
                let CbcHmac { cipher, integ } = &**both;
                // RFC 3602 §3: unpredictable. A counter encrypted under the same key is (SP 800-38A, appendix C).
                let mut block = [0; Cbc::BLOCK_LEN];
                block[8..].copy_from_slice(&sequence.to_be_bytes());
                cipher.encrypt(&[0; Cbc::BLOCK_LEN], &mut block);
                iv.copy_from_slice(&block);
                cipher.encrypt(&block, data);
                let high = high_bits(sequence);
                integ.sign(&[header, iv, data, if esn { &high } else { &[] }], icv);
            }
        }
    }

    /// Verifies the ICV. An AEAD decrypts with it; otherwise [`decrypt`](Self::decrypt) does.
    pub(super) fn open(
        &self,
        header: &[u8],
        esn: bool,
        sequence: u64,
        iv: &[u8],
        data: &mut [u8],
        icv: &[u8],
    ) -> Result<IcvVerified, DropReason> {
        match &self.algorithms {
            Algorithms::Aead(aead) => {
                let (Ok(iv), Ok(icv)) = (iv.try_into(), icv.try_into()) else {
                    return Err(DropReason::EspMalformed);
                };
                let aad = Aad::new(header, esn, sequence);
                match aead.open(iv, aad.as_slice(), data, icv) {
                    Ok(()) => Ok(IcvVerified::new()),
                    Err(_) => Err(DropReason::IcvMismatch),
                }
            }
            Algorithms::CbcHmac(both) => {
                let high = high_bits(sequence);
                if both.integ.verify(&[header, iv, data, if esn { &high } else { &[] }], icv) {
                    Ok(IcvVerified::new())
                } else {
                    Err(DropReason::IcvMismatch)
                }
            }
        }
    }

    /// After the ICV is verified: decrypts, unless that was one step.
    pub(super) fn decrypt(&self, iv: &[u8], data: &mut [u8]) {
        match &self.algorithms {
            Algorithms::Aead(_) => {}
            Algorithms::CbcHmac(both) => {
                let mut block = [0; Cbc::BLOCK_LEN];
                block.copy_from_slice(iv);
                both.cipher.decrypt(&block, data);
            }
        }
    }
}

/// RFC 4303 §2.2.1: with a separate integrity algorithm the high 32 bits follow the payload, for the ICV only.
fn high_bits(sequence: u64) -> [u8; 4] {
    let [h0, h1, h2, h3, ..] = sequence.to_be_bytes();
    [h0, h1, h2, h3]
}

/// RFC 4106 §5: SPI and sequence number, which has 64 bits if it is extended.
struct Aad {
    bytes: [u8; 12],
    len: usize,
}

impl Aad {
    fn new(header: &[u8], esn: bool, sequence: u64) -> Self {
        let mut bytes = [0; 12];
        let len = if esn {
            bytes[..4].copy_from_slice(&header[..4]);
            bytes[4..].copy_from_slice(&sequence.to_be_bytes());
            12
        } else {
            bytes[..8].copy_from_slice(&header[..8]);
            8
        };
        Self { bytes, len }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
