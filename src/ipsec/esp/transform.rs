//! The ways of protecting a payload: an AEAD whose IV is sent (RFC 4106, RFC 4309, RFC 7634) or implied (RFC 8750),
//! GMAC, which encrypts nothing (RFC 4543), and a cipher or none (RFC 2410) with an integrity algorithm.

use super::super::replay::IcvVerified;
use super::super::{DropReason, suite::EspSuite};
use super::EspLayout;
use crate::crypto::aead::{Aead, WholeAead};
use crate::crypto::cipher::{Cbc, Ctr};
use crate::crypto::gmac::Gmac;
use crate::crypto::integ::Integ;
use crate::crypto::{Encr, Secret};
use crate::wire::esp::EspHeader;
use crate::wire::ike::numbers::{EncrId, IntegId};

/// Algorithms with their keys.
#[derive(Debug)]
pub(super) struct Transform {
    layout: EspLayout,
    algorithms: Algorithms,
}

#[derive(Debug)]
enum Algorithms {
    /// The IV is the sequence number, whether it is sent or not.
    Aead(Aead),
    Gmac(Box<Gmac>),
    Separate(Box<Separate>),
}

/// Encrypted, then authenticated.
#[derive(Debug)]
struct Separate {
    cipher: Cipher,
    integ: Integ,
}

#[derive(Debug)]
enum Cipher {
    Cbc(Cbc),
    Ctr(Ctr),
    Null,
}

impl Transform {
    /// `None` for algorithms that we do not have or that do not go together, or keys of other lengths. There is no
    /// encryption without integrity, and no ESP without either (RFC 8221 §6).
    pub(super) fn new(suite: EspSuite, encr_key: &Secret, integ_key: &Secret) -> Option<Self> {
        let layout = Self::layout(suite)?;
        let (encr_key, integ_key) = (encr_key.expose(), integ_key.expose());
        let algorithms = if suite.integ != IntegId::NONE {
            let cipher = match suite.encr.id {
                EncrId::ENCR_AES_CBC => Cipher::Cbc(Cbc::new(suite.encr, encr_key)?),
                EncrId::ENCR_AES_CTR => Cipher::Ctr(Ctr::new(suite.encr, encr_key)?),
                EncrId::ENCR_NULL if encr_key.is_empty() => Cipher::Null,
                _ => return None,
            };
            let integ = Integ::new(suite.integ, integ_key)?;
            Algorithms::Separate(Box::new(Separate { cipher, integ }))
        } else if !integ_key.is_empty() {
            return None;
        } else if suite.encr.id == EncrId::ENCR_NULL_AUTH_AES_GMAC {
            if suite.encr.keymat_len() != Some(encr_key.len()) {
                return None;
            }
            Algorithms::Gmac(Box::new(Gmac::new(encr_key)?))
        } else {
            Algorithms::Aead(Aead::new(with_explicit_iv(suite.encr), encr_key)?)
        };
        Some(Self { layout, algorithms })
    }

    /// `None` as with [`new`](Self::new).
    pub(super) fn layout(suite: EspSuite) -> Option<EspLayout> {
        suite.encr.keymat_len()?;
        if suite.integ == IntegId::NONE {
            let explicit = with_explicit_iv(suite.encr);
            let iv_len = if explicit == suite.encr { Aead::IV_LEN } else { 0 };
            let icv_len = match suite.encr.id {
                EncrId::ENCR_NULL_AUTH_AES_GMAC => Gmac::TAG_LEN,
                _ => Aead::icv_len_of(explicit.id)?,
            };
            return Some(EspLayout { iv_len, align: 4, icv_len });
        }
        // RFC 4543 §5.3: AUTH_AES_*_GMAC is AH's, and ESP has no place for its IV.
        if Integ::iv_len(suite.integ) > 0 {
            return None;
        }
        let icv_len = Integ::icv_len(suite.integ)?;
        let (iv_len, align) = match suite.encr.id {
            EncrId::ENCR_AES_CBC => (Cbc::BLOCK_LEN, 16),
            EncrId::ENCR_AES_CTR => (Ctr::IV_LEN, 4),
            EncrId::ENCR_NULL => (0, 4),
            _ => return None,
        };
        Some(EspLayout { iv_len, align, icv_len })
    }

    #[inline]
    pub(super) const fn own_layout(&self) -> EspLayout {
        self.layout
    }

    /// The AEAD, if the packets are of the common form: see [`Common`](super::Common).
    pub(super) fn common(&self) -> Option<WholeAead<'_>> {
        match &self.algorithms {
            Algorithms::Aead(aead) if self.layout.iv_len == Aead::IV_LEN => aead.whole(),
            Algorithms::Aead(_) | Algorithms::Gmac(_) | Algorithms::Separate(_) => None,
        }
    }

    /// Whether so many bytes can be a ciphertext. Only CBC does not take any length: the alignment of RFC 4303 §2.4
    /// binds the sender, and nothing here depends on it.
    #[inline]
    pub(super) fn takes(&self, encrypted: usize) -> bool {
        match &self.algorithms {
            Algorithms::Aead(_) | Algorithms::Gmac(_) => true,
            Algorithms::Separate(separate) => match separate.cipher {
                Cipher::Cbc(_) => encrypted.is_multiple_of(Cbc::BLOCK_LEN),
                Cipher::Ctr(_) | Cipher::Null => true,
            },
        }
    }

    /// Encrypts `data`, and fills `iv` and `icv`.
    #[inline]
    pub(super) fn seal(
        &self,
        header: &[u8; EspHeader::LEN],
        esn: bool,
        sequence: u64,
        iv: &mut [u8],
        data: &mut [u8],
        icv: &mut [u8],
    ) {
        // RFC 4106 §3.1, RFC 4309 §3.1, RFC 4543 §3.1, RFC 7634 §2, RFC 3686 §3.1: unique for each packet under a key,
        // which the sequence number is. RFC 8750 §4: it is the IV that is not sent.
        let counter = sequence.to_be_bytes();
        let covered = Covered::new(header, esn, sequence);
        match &self.algorithms {
            Algorithms::Aead(aead) => {
                if let Some(iv) = iv.first_chunk_mut() {
                    *iv = counter;
                }
                aead.seal(&counter, covered.as_aad(), data, icv);
            }
            Algorithms::Gmac(gmac) => {
                iv.copy_from_slice(&counter);
                icv.copy_from_slice(&gmac.tag(&counter, &[covered.as_aad(), iv, data]));
            }
            Algorithms::Separate(separate) => {
                match &separate.cipher {
                    Cipher::Cbc(cbc) => {
                        // RFC 3602 §3: unpredictable. A counter encrypted under the same key is (SP 800-38A, appendix
                        // C).
                        let mut block = [0; Cbc::BLOCK_LEN];
                        block[8..].copy_from_slice(&counter);
                        cbc.encrypt(&[0; Cbc::BLOCK_LEN], &mut block);
                        iv.copy_from_slice(&block);
                        cbc.encrypt(&block, data);
                    }
                    Cipher::Ctr(ctr) => {
                        iv.copy_from_slice(&counter);
                        ctr.apply(&counter, data);
                    }
                    Cipher::Null => {}
                }
                separate.integ.sign(&[header, iv, data, covered.high_bits()], icv);
            }
        }
    }

    /// Verifies the ICV. An AEAD decrypts with it; otherwise [`decrypt`](Self::decrypt) does.
    #[inline]
    pub(super) fn open(
        &self,
        header: &[u8; EspHeader::LEN],
        esn: bool,
        sequence: u64,
        iv: &[u8],
        data: &mut [u8],
        icv: &[u8],
    ) -> Result<IcvVerified, DropReason> {
        let covered = Covered::new(header, esn, sequence);
        let genuine = match &self.algorithms {
            Algorithms::Aead(aead) => {
                // RFC 8750 §4: what is not sent is the sequence number.
                let implied = sequence.to_be_bytes();
                let iv = iv.first_chunk().unwrap_or(&implied);
                aead.open(iv, covered.as_aad(), data, icv).is_ok()
            }
            Algorithms::Gmac(gmac) => iv
                .first_chunk()
                .is_some_and(|nonce| gmac.verify(nonce, &[covered.as_aad(), iv, data], icv)),
            Algorithms::Separate(separate) => {
                separate.integ.verify(&[header, iv, data, covered.high_bits()], icv)
            }
        };
        if genuine { Ok(IcvVerified::new()) } else { Err(DropReason::IcvMismatch) }
    }

    /// After the ICV is verified: decrypts, unless that was one step.
    #[inline]
    pub(super) fn decrypt(&self, iv: &[u8], data: &mut [u8]) {
        let Algorithms::Separate(separate) = &self.algorithms else { return };
        match &separate.cipher {
            Cipher::Cbc(cbc) => {
                if let Some(iv) = iv.first_chunk() {
                    cbc.decrypt(iv, data);
                }
            }
            Cipher::Ctr(ctr) => {
                if let Some(iv) = iv.first_chunk() {
                    ctr.apply(iv, data);
                }
            }
            Cipher::Null => {}
        }
    }
}

/// RFC 8750 §1: the algorithm with the same cipher whose IV is sent; of any other, itself.
const fn with_explicit_iv(encr: Encr) -> Encr {
    let id = match encr.id {
        EncrId::ENCR_AES_CCM_8_IIV => EncrId::ENCR_AES_CCM_8,
        EncrId::ENCR_AES_GCM_16_IIV => EncrId::ENCR_AES_GCM_16,
        EncrId::ENCR_CHACHA20_POLY1305_IIV => EncrId::ENCR_CHACHA20_POLY1305,
        other => other,
    };
    Encr { id, key_bits: encr.key_bits }
}

/// SPI and sequence number, which are authenticated and not encrypted.
struct Covered {
    bytes: [u8; 12],
    esn: bool,
}

impl Covered {
    /// Of the `header` of a packet.
    #[inline]
    fn new(header: &[u8; EspHeader::LEN], esn: bool, sequence: u64) -> Self {
        let &[i0, i1, i2, i3, l0, l1, l2, l3] = header;
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sequence.to_be_bytes();
        let bytes = if esn {
            [i0, i1, i2, i3, s0, s1, s2, s3, s4, s5, s6, s7]
        } else {
            [i0, i1, i2, i3, l0, l1, l2, l3, 0, 0, 0, 0]
        };
        Self { bytes, esn }
    }

    /// RFC 4106 §5, RFC 4309 §5, RFC 4543 §3.3, RFC 7634 §2.1: the sequence number has 64 bits if it is extended.
    #[inline]
    fn as_aad(&self) -> &[u8] {
        if self.esn { &self.bytes } else { &self.bytes[..8] }
    }

    /// RFC 4303 §2.2.1: with a separate integrity algorithm the high 32 bits follow the payload, for the ICV only.
    #[inline]
    fn high_bits(&self) -> &[u8] {
        if self.esn { &self.bytes[4..8] } else { &[] }
    }
}
