//! Keying material: SKEYSEED and the keys of an IKE SA (RFC 7296 §2.14, §2.18), KEYMAT of CHILD_SAs
//! (§2.17), and what a pre-shared key signs (§2.15); with additional key exchanges (RFC 9370 §2.2) and the authentication of
//! IKE_INTERMEDIATE (RFC 9242 §3.3.2), and post-quantum preshared keys (RFC 8784 §3, RFC 9867).

use crate::crypto::integ::Integ;
use crate::crypto::prf::Prf;
use crate::crypto::{Encr, Secret};
use crate::ike::protect::Content;
use crate::ipsec::suite::{IkeSuite, Suite};
use crate::wire::ike::header::{Header, IkeSpi};
use crate::wire::ike::numbers::{IntegId, PayloadType, PrfId};

/// The keys of an IKE SA (RFC 7296 §2.14). `_i` and `_r` are its original initiator and responder.
#[derive(Clone, Debug)]
pub struct IkeKeys {
    /// Derives the keys of CHILD_SAs and of the next IKE SA.
    pub sk_d: Secret,
    /// Integrity of what the initiator sends; empty with an AEAD.
    pub sk_ai: Secret,
    /// Integrity of what the responder sends; empty with an AEAD.
    pub sk_ar: Secret,
    /// Encryption of what the initiator sends; with an AEAD the salt is at the end (RFC 5282 §7.1).
    pub sk_ei: Secret,
    /// Encryption of what the responder sends; with an AEAD the salt is at the end.
    pub sk_er: Secret,
    /// Authenticates the initiator.
    pub sk_pi: Secret,
    /// Authenticates the responder.
    pub sk_pr: Secret,
}

impl IkeKeys {
    /// The keys of an IKE SA made by IKE_SA_INIT (RFC 7296 §2.14). `None` if an algorithm of the
    /// suite is not ours.
    #[must_use]
    pub fn derive(
        suite: IkeSuite,
        nonce_i: &[u8],
        nonce_r: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        shared: &Secret,
    ) -> Option<Self> {
        // SKEYSEED = prf(Ni | Nr, g^ir). Nonces are public, so the key may lie about in a plain
        // vector.
        let prf = Prf::new(suite.prf)?;
        let skeyseed = prf.compute(&prf.nonce_key(nonce_i, nonce_r), &[shared.expose()]);
        Self::expand(suite, &skeyseed, nonce_i, nonce_r, spi_i, spi_r)
    }

    /// The keys that follow these after another key exchange in IKE_INTERMEDIATE (RFC 9370 §2.2.2); nonces and SPIs are those of
    /// IKE_SA_INIT. `None` if an algorithm of the suite is not ours.
    #[must_use]
    pub fn next(
        &self,
        suite: IkeSuite,
        nonce_i: &[u8],
        nonce_r: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        shared: &Secret,
    ) -> Option<Self> {
        // SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr): the same as of a rekeyed IKE SA.
        let (prf, old) = (suite.prf, &self.sk_d);
        Self::derive_rekeyed(suite, prf, old, shared, &[], nonce_i, nonce_r, spi_i, spi_r)
    }

    /// The keys of an IKE SA made by rekeying another in CREATE_CHILD_SA (RFC 7296 §2.18). Nonces
    /// and SPIs are those of that exchange, `additional` the shared secrets of the IKE_FOLLOWUP_KE exchanges after it (RFC 9370
    /// §2.2.4). `None` if an algorithm of the suite is not ours.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "the inputs that RFC 7296 §2.18 names")]
    pub fn derive_rekeyed(
        suite: IkeSuite,
        old_prf: PrfId,
        old_sk_d: &Secret,
        shared: &Secret,
        additional: &[Secret],
        nonce_i: &[u8],
        nonce_r: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Option<Self> {
        // RFC 7296 §2.18: SKEYSEED comes from the old IKE SA's PRF, what follows from the new
        // one's. RFC 9370 §2.2.4: SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1) | ... SK(n)).
        let mut seed = vec![shared.expose(), nonce_i, nonce_r];
        seed.extend(additional.iter().map(Secret::expose));
        let skeyseed = Prf::new(old_prf)?.compute(old_sk_d.expose(), &seed);
        Self::expand(suite, &skeyseed, nonce_i, nonce_r, spi_i, spi_r)
    }

    /// These keys with a PPK mixed into SK_d, SK_pi and SK_pr (RFC 8784 §3). `None` if the PRF is not ours.
    #[must_use]
    pub fn with_ppk(&self, prf: PrfId, ppk: &Secret) -> Option<Self> {
        let prf = Prf::new(prf)?;
        let mix = |key: &Secret| mix_ppk(prf, ppk.expose(), key.expose());
        let (sk_d, sk_pi, sk_pr) = (mix(&self.sk_d), mix(&self.sk_pi), mix(&self.sk_pr));
        Some(Self { sk_d, sk_pi, sk_pr, ..self.clone() })
    }

    /// The keys that follow these after a PPK was agreed on in IKE_INTERMEDIATE (RFC 9867 §3.1): SKEYSEED' = prf+ (PPK, SK_d), and
    /// all keys from that. Nonces and SPIs are those of IKE_SA_INIT. `None` if an algorithm of the suite is not ours.
    #[must_use]
    pub fn next_by_ppk(
        &self,
        suite: IkeSuite,
        nonce_i: &[u8],
        nonce_r: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
        ppk: &Secret,
    ) -> Option<Self> {
        let skeyseed = mix_ppk(Prf::new(suite.prf)?, ppk.expose(), self.sk_d.expose());
        Self::expand(suite, &skeyseed, nonce_i, nonce_r, spi_i, spi_r)
    }

    fn expand(
        suite: IkeSuite,
        skeyseed: &Secret,
        nonce_i: &[u8],
        nonce_r: &[u8],
        spi_i: IkeSpi,
        spi_r: IkeSpi,
    ) -> Option<Self> {
        let prf = Prf::new(suite.prf)?;
        let lens = KeyLens::of(suite.encr, suite.integ)?;
        let spis = [spi_i.0.to_be_bytes(), spi_r.0.to_be_bytes()];
        let total = 3 * prf.len() + 2 * (lens.integ + lens.encr);
        let stream = prf.plus(
            skeyseed.expose(),
            &[nonce_i, nonce_r, spis[0].as_slice(), spis[1].as_slice()],
            total,
        );
        let mut keys = Keys(stream.expose());
        Some(Self {
            sk_d: keys.take(prf.len()),
            sk_ai: keys.take(lens.integ),
            sk_ar: keys.take(lens.integ),
            sk_ei: keys.take(lens.encr),
            sk_er: keys.take(lens.encr),
            sk_pi: keys.take(prf.len()),
            sk_pr: keys.take(prf.len()),
        })
    }
}

/// A key with a PPK mixed in: `prf+ (PPK, key)`, as long as the PRF's keys are (RFC 8784 §3).
#[must_use]
pub fn mix_ppk(prf: Prf, ppk: &[u8], key: &[u8]) -> Secret {
    prf.plus(ppk, &[key], prf.len())
}

/// What says in IKE_INTERMEDIATE that the initiator has the PPK of this name (RFC 9867 §3.1): the first octets of
/// `prf(PPK, Ni | Nr | SPIi | SPIr)`. `None` if the PRF is not ours.
#[must_use]
pub fn ppk_confirmation(
    prf: PrfId,
    ppk: &Secret,
    nonce_i: &[u8],
    nonce_r: &[u8],
    spi_i: IkeSpi,
    spi_r: IkeSpi,
) -> Option<[u8; PPK_CONFIRMATION_LEN]> {
    let spis = [spi_i.0.to_be_bytes(), spi_r.0.to_be_bytes()];
    let parts = [nonce_i, nonce_r, spis[0].as_slice(), spis[1].as_slice()];
    let whole = Prf::new(prf)?.compute(ppk.expose(), &parts);
    whole.expose().first_chunk().copied()
}

/// Length in bytes of what [`ppk_confirmation`] makes.
pub const PPK_CONFIRMATION_LEN: usize = 8;

/// The keys of a CHILD_SA. `_i` protects what the initiator of the exchange that made the CHILD_SA
/// sends, which need not be the original initiator of the IKE SA.
#[derive(Clone, Debug)]
pub struct ChildKeys {
    /// Encryption, initiator to responder; with an AEAD the salt is at the end (RFC 4106 §8.1), with AH it is empty.
    pub encr_i: Secret,
    /// Integrity, initiator to responder; empty with an AEAD.
    pub integ_i: Secret,
    /// Encryption, responder to initiator.
    pub encr_r: Secret,
    /// Integrity, responder to initiator; empty with an AEAD.
    pub integ_r: Secret,
}

/// KEYMAT of a CHILD_SA (RFC 7296 §2.17). `shared` is the shared secret of the CREATE_CHILD_SA that
/// made it, if that had a key exchange, `additional` those of the IKE_FOLLOWUP_KE exchanges after it (RFC 9370 §2.2.4); the nonces
/// are that exchange's, or those of IKE_SA_INIT for the CHILD_SA of IKE_AUTH. `None` if an algorithm is not ours.
#[must_use]
pub fn child_keys(
    prf: PrfId,
    sk_d: &Secret,
    suite: Suite,
    shared: Option<&Secret>,
    additional: &[Secret],
    nonce_i: &[u8],
    nonce_r: &[u8],
) -> Option<ChildKeys> {
    let lens = match suite {
        Suite::Ah(suite) => KeyLens { encr: 0, integ: Integ::key_len(suite.integ)? },
        Suite::Esp(suite) => KeyLens::of(suite.encr, suite.integ)?,
    };
    let mut seed = vec![shared.map_or(&[][..], Secret::expose), nonce_i, nonce_r];
    seed.extend(additional.iter().map(Secret::expose));
    let keymat = Prf::new(prf)?.plus(sk_d.expose(), &seed, 2 * (lens.encr + lens.integ));
    // RFC 7296 §2.17: initiator to responder first, and of one SA the encryption key first.
    let mut keys = Keys(keymat.expose());
    Some(ChildKeys {
        encr_i: keys.take(lens.encr),
        integ_i: keys.take(lens.integ),
        encr_r: keys.take(lens.encr),
        integ_r: keys.take(lens.integ),
    })
}

/// The AUTH data of method SHARED_KEY_MIC (RFC 7296 §2.15): `prf(prf(psk, "Key Pad for IKEv2"),
/// signed octets)`.
///
/// `message` is the signer's IKE_SA_INIT message as sent last, without non-ESP marker; `peer_nonce`
/// the nonce of the other side; `sk_p` the signer's SK_pi or SK_pr; `id_payload_body` the signer's
/// ID payload after its generic header (ID Type, RESERVED, data); `int_auth` what [`IntAuth::octets`] has. Two of these compare
/// in constant time. `None` if the PRF is not ours.
#[must_use]
pub fn psk_auth(
    prf: PrfId,
    psk: &Secret,
    message: &[u8],
    peer_nonce: &[u8],
    sk_p: &Secret,
    id_payload_body: &[u8],
    int_auth: &[u8],
) -> Option<Secret> {
    let prf = Prf::new(prf)?;
    let key = prf.compute(psk.expose(), &[KEY_PAD]);
    let maced_id = prf.compute(sk_p.expose(), &[id_payload_body]);
    Some(prf.compute(key.expose(), &[message, peer_nonce, maced_id.expose(), int_auth]))
}

/// What a signature in an AUTH payload is made over (RFC 7296 §2.15): InitiatorSignedOctets or
/// ResponderSignedOctets, as one string. Arguments as for [`psk_auth`]. `None` if the PRF is not ours.
#[must_use]
pub fn signed_octets(
    prf: PrfId,
    message: &[u8],
    peer_nonce: &[u8],
    sk_p: &Secret,
    id_payload_body: &[u8],
    int_auth: &[u8],
) -> Option<Vec<u8>> {
    let maced_id = Prf::new(prf)?.compute(sk_p.expose(), &[id_payload_body]);
    Some([message, peer_nonce, maced_id.expose(), int_auth].concat())
}

/// What IKE_AUTH authenticates of IKE_INTERMEDIATE (RFC 9242 §3.3.2): IntAuth_i and IntAuth_r, as far as the exchanges have come.
#[derive(Clone, Debug, Default)]
pub struct IntAuth {
    i: Vec<u8>,
    r: Vec<u8>,
    exchanges: u32,
}

impl IntAuth {
    /// Takes the next message of these exchanges in, whole, however it travelled: its header and what is in its Encrypted payload.
    /// `sk_p` is SK_pi or SK_pr of who sent it, of the keys that protect it. `None`, and nothing done, if the PRF is not ours.
    ///
    /// Payloads before the Encrypted payload, which no exchange has, are taken to be none.
    pub fn add(
        &mut self,
        prf: PrfId,
        sk_p: &Secret,
        header: &Header,
        content: &Content,
    ) -> Option<()> {
        let prf = Prf::new(prf)?;
        // Length and Payload Length without IV, padding, Pad Length and ICV.
        let payload_len = GENERIC_HEADER_LEN + content.plain.len();
        let length = u32::try_from(Header::LEN + payload_len).ok()?;
        let mut a = Vec::with_capacity(Header::LEN + GENERIC_HEADER_LEN);
        Header { next_payload: PayloadType::SK, length, ..*header }.emit(&mut a);
        a.extend_from_slice(&[content.first.0, 0]);
        a.extend_from_slice(&u16::try_from(payload_len).ok()?.to_be_bytes());
        let before = if header.flags.initiator { &mut self.i } else { &mut self.r };
        *before = prf.compute(sk_p.expose(), &[before, &a, &content.plain]).expose().to_vec();
        if header.flags.response {
            self.exchanges += 1;
        }
        Some(())
    }

    /// What is appended to the octets that are signed; nothing if there was no such exchange.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        if self.exchanges == 0 {
            return Vec::new();
        }
        // RFC 9242 §3.2: the Message ID of IKE_AUTH is one more than that of the last such exchange, which began with 1.
        let auth_mid = self.exchanges.saturating_add(1).to_be_bytes();
        [self.i.as_slice(), &self.r, &auth_mid].concat()
    }
}

const GENERIC_HEADER_LEN: usize = 4;

/// RFC 7296 §2.15: 17 characters, no terminator.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// Lengths in bytes of the keys that one direction takes.
struct KeyLens {
    /// With its salt, or nonce, if it has one.
    encr: usize,
    integ: usize,
}

impl KeyLens {
    /// `None` if an algorithm is not ours, or the two do not go together (RFC 7296 §3.3: an AEAD
    /// has no integrity algorithm, any other cipher needs one).
    fn of(encr: Encr, integ: IntegId) -> Option<Self> {
        let integ = match (encr.id.is_aead(), integ) {
            (true, IntegId::NONE) => 0,
            (true, _) => return None,
            (false, integ) => Integ::key_len(integ)?,
        };
        Some(Self { encr: encr.keymat_len()?, integ })
    }
}

/// Takes keys off the front of a stream that is long enough.
struct Keys<'a>(&'a [u8]);

impl Keys<'_> {
    fn take(&mut self, len: usize) -> Secret {
        let (key, rest) = self.0.split_at_checked(len).expect("the stream has the sum of lengths");
        self.0 = rest;
        Secret::copy_of(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipsec::suite::{AddKe, AhSuite, EspSuite};
    use crate::wire::ike::numbers::{EncrId, EsnId, KeId};

    const GCM: Encr = Encr { id: EncrId::ENCR_AES_GCM_16, key_bits: Some(256) };
    const CBC: Encr = Encr { id: EncrId::ENCR_AES_CBC, key_bits: Some(128) };

    const fn suite(encr: Encr, integ: IntegId) -> IkeSuite {
        IkeSuite {
            encr,
            integ,
            prf: PrfId::PRF_HMAC_SHA2_384,
            ke: KeId::CURVE25519,
            addke: AddKe::NONE,
        }
    }

    fn derive(suite: IkeSuite) -> Option<IkeKeys> {
        let shared = Secret::copy_of(&[5; 32]);
        IkeKeys::derive(suite, &[1; 32], &[2; 32], IkeSpi(3), IkeSpi(4), &shared)
    }

    #[test]
    fn key_lengths_are_those_of_the_suite() {
        let keys = derive(suite(GCM, IntegId::NONE)).unwrap();
        let lens = |keys: &IkeKeys| {
            [
                &keys.sk_d,
                &keys.sk_ai,
                &keys.sk_ar,
                &keys.sk_ei,
                &keys.sk_er,
                &keys.sk_pi,
                &keys.sk_pr,
            ]
            .map(Secret::len)
        };
        assert_eq!(lens(&keys), [48, 0, 0, 36, 36, 48, 48]);
        let keys = derive(suite(CBC, IntegId::AUTH_HMAC_SHA2_512_256)).unwrap();
        assert_eq!(lens(&keys), [48, 64, 64, 16, 16, 48, 48]);
    }

    #[test]
    fn integrity_algorithm_goes_with_plain_ciphers_only() {
        assert!(derive(suite(GCM, IntegId::AUTH_HMAC_SHA2_256_128)).is_none());
        assert!(derive(suite(CBC, IntegId::NONE)).is_none());
        let mut unknown = suite(GCM, IntegId::NONE);
        unknown.prf = PrfId::PRF_HMAC_MD5;
        assert!(derive(unknown).is_none());
    }

    #[test]
    fn child_keys_have_the_lengths_that_their_algorithms_need() {
        let aes = |id, bits| Encr { id, key_bits: Some(bits) };
        let fixed = |id| Encr { id, key_bits: None };
        let none = IntegId::NONE;
        for (encr, integ, lens) in [
            (aes(EncrId::ENCR_AES_GCM_8, 128), none, (20, 0)),
            (aes(EncrId::ENCR_AES_GCM_16_IIV, 256), none, (36, 0)),
            (aes(EncrId::ENCR_AES_CCM_16, 128), none, (19, 0)),
            (aes(EncrId::ENCR_AES_CCM_8_IIV, 256), none, (35, 0)),
            (aes(EncrId::ENCR_NULL_AUTH_AES_GMAC, 192), none, (28, 0)),
            (fixed(EncrId::ENCR_CHACHA20_POLY1305), none, (36, 0)),
            (aes(EncrId::ENCR_AES_CTR, 256), IntegId::AUTH_AES_XCBC_96, (36, 16)),
            (aes(EncrId::ENCR_AES_CBC, 192), IntegId::AUTH_AES_CMAC_96, (24, 16)),
            (fixed(EncrId::ENCR_NULL), IntegId::AUTH_HMAC_SHA1_96, (0, 20)),
            (fixed(EncrId::ENCR_NULL), IntegId::AUTH_AES_256_GMAC, (0, 36)),
        ] {
            let suite = Suite::from(EspSuite { encr, integ, esn: EsnId::NO_ESN });
            let prf = PrfId::PRF_HMAC_SHA2_256;
            let sk_d = Secret::copy_of(&[7; 32]);
            let keys = child_keys(prf, &sk_d, suite, None, &[], &[1; 16], &[2; 16]).unwrap();
            assert_eq!((keys.encr_i.len(), keys.integ_i.len()), lens, "{suite}");
            assert_eq!((keys.encr_r.len(), keys.integ_r.len()), lens, "{suite}");
        }
        let chacha = aes(EncrId::ENCR_CHACHA20_POLY1305, 256);
        let suite = EspSuite { encr: chacha, integ: none, esn: EsnId::NO_ESN }.into();
        let sk_d = Secret::copy_of(&[7; 32]);
        let prf = PrfId::PRF_HMAC_SHA2_256;
        assert!(child_keys(prf, &sk_d, suite, None, &[], &[1; 16], &[2; 16]).is_none());
    }

    #[test]
    fn rekeying_uses_the_old_prf_for_the_seed_and_the_new_one_for_the_keys() {
        let new = suite(GCM, IntegId::NONE);
        let (old_sk_d, shared) = (Secret::copy_of(&[6; 32]), Secret::copy_of(&[5; 32]));
        let keys = IkeKeys::derive_rekeyed(
            new,
            PrfId::PRF_HMAC_SHA2_256,
            &old_sk_d,
            &shared,
            &[Secret::copy_of(&[8; 32])],
            &[1; 32],
            &[2; 32],
            IkeSpi(3),
            IkeSpi(4),
        )
        .unwrap();
        let old = Prf::new(PrfId::PRF_HMAC_SHA2_256).unwrap();
        let skeyseed = old.compute(&[6; 32], &[&[5; 32], &[1; 32], &[2; 32], &[8; 32]]);
        let seed = [&[1; 32][..], &[2; 32], &3u64.to_be_bytes(), &4u64.to_be_bytes()];
        let stream = Prf::new(new.prf).unwrap().plus(skeyseed.expose(), &seed, 48);
        assert_eq!(keys.sk_d, stream);
    }

    #[test]
    fn int_auth_covers_header_and_content_of_every_message() {
        use crate::wire::ike::header::Flags;
        use crate::wire::ike::numbers::ExchangeType;

        let prf = PrfId::PRF_HMAC_SHA2_256;
        let header = |response: bool, id| {
            let flags = Flags::new(!response, response);
            Header::new(IkeSpi(3), IkeSpi(4), ExchangeType::IKE_INTERMEDIATE, flags, id)
        };
        let content = |byte| Content {
            first: PayloadType::KE,
            plain: zeroize::Zeroizing::new(vec![0, 0, 0, 5, byte]),
        };
        let (sk_pi, sk_pr) = (Secret::copy_of(&[1; 32]), Secret::copy_of(&[2; 32]));
        let of = |messages: &[(bool, u32, u8)]| {
            let mut int_auth = IntAuth::default();
            for (response, id, byte) in messages {
                let sk_p = if *response { &sk_pr } else { &sk_pi };
                int_auth.add(prf, sk_p, &header(*response, *id), &content(*byte)).unwrap();
            }
            int_auth.octets()
        };
        assert!(of(&[]).is_empty(), "no exchange, nothing to add");
        let one = of(&[(false, 1, 7), (true, 1, 8)]);
        // RFC 9242 §3.3.2: prf(SK_pi1, A | P), with lengths that count neither IV nor padding nor ICV.
        let mut a = vec![0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4];
        a.extend_from_slice(&[46, 0x20, 43, 0x08, 0, 0, 0, 1, 0, 0, 0, 37, 34, 0, 0, 9]);
        let prf = Prf::new(prf).unwrap();
        let i1 = prf.compute(sk_pi.expose(), &[&a, &[0, 0, 0, 5, 7]]);
        assert_eq!(one[..32], *i1.expose());
        assert_eq!(one[64..], [0, 0, 0, 2], "Message ID of IKE_AUTH");
        let two = of(&[(false, 1, 7), (true, 1, 8), (false, 2, 9), (true, 2, 10)]);
        a[23] = 2;
        let i2 = prf.compute(sk_pi.expose(), &[i1.expose(), &a, &[0, 0, 0, 5, 9]]);
        assert_eq!(two[..32], *i2.expose());
        assert_eq!(two[64..], [0, 0, 0, 3]);
        for other in [
            of(&[(false, 1, 6), (true, 1, 8)]),
            of(&[(false, 1, 7), (true, 1, 9)]),
            of(&[(false, 2, 7), (true, 1, 8)]),
        ] {
            assert_ne!(other, one);
        }
    }

    #[test]
    fn ah_takes_integrity_keys_alone() {
        let sk_d = Secret::copy_of(&[7; 32]);
        for (integ, len) in [
            (IntegId::AUTH_HMAC_SHA2_256_128, 32),
            (IntegId::AUTH_HMAC_SHA2_512_256, 64),
            (IntegId::AUTH_AES_128_GMAC, 20),
        ] {
            let suite = AhSuite { integ, esn: EsnId::ESN }.into();
            let prf = PrfId::PRF_HMAC_SHA2_256;
            let keys = child_keys(prf, &sk_d, suite, None, &[], &[1; 16], &[2; 16]).unwrap();
            assert!(keys.encr_i.is_empty() && keys.encr_r.is_empty());
            let keymat = Prf::new(prf).unwrap().plus(&[7; 32], &[&[1; 16], &[2; 16]], 2 * len);
            let both = [keys.integ_i.expose(), keys.integ_r.expose()].concat();
            assert_eq!(both, keymat.expose(), "RFC 7296 §2.17: initiator to responder first");
        }
        let suite = AhSuite { integ: IntegId::NONE, esn: EsnId::NO_ESN }.into();
        let prf = PrfId::PRF_HMAC_SHA2_256;
        assert!(child_keys(prf, &sk_d, suite, None, &[], &[1; 16], &[2; 16]).is_none());
    }

    #[test]
    fn fresh_key_exchange_changes_every_child_key() {
        let suite =
            EspSuite { encr: CBC, integ: IntegId::AUTH_HMAC_SHA2_256_128, esn: EsnId::NO_ESN };
        let suite = suite.into();
        let sk_d = Secret::copy_of(&[7; 32]);
        let keys = |shared: Option<&Secret>| {
            let prf = PrfId::PRF_HMAC_SHA2_256;
            child_keys(prf, &sk_d, suite, shared, &[], &[1; 16], &[2; 16]).unwrap()
        };
        let (a, b) = (keys(None), keys(Some(&Secret::copy_of(&[9; 32]))));
        assert_eq!(a.encr_i.len(), 16);
        assert_eq!(a.integ_i.len(), 32);
        assert_ne!(a.encr_i, b.encr_i);
        assert_ne!(a.integ_i, b.integ_i);
        assert_ne!(a.encr_r, b.encr_r);
        assert_ne!(a.integ_r, b.integ_r);
        assert_ne!(a.encr_i, a.encr_r);
    }
}
