//! Keys computed from shared secrets and nonces (RFC 7296 §2.13, §2.14, §2.17, §2.18; RFC 9370 §2.2; RFC 8784 §3; RFC 9242 §3.3.2).

use super::Mismatch;
use super::json::{Algorithms, Keys, Transform};
use crate::crypto::des::DesCbc;
use crate::crypto::integ::Integ;
use crate::crypto::prf::Prf;
use crate::crypto::{Encr, Secret};
use crate::ike::keymat::mix_ppk;
use crate::ike::protect::Content;
use crate::wire::ike::header::{Header, IkeSpi};
use crate::wire::ike::numbers::{EncrId, IntegId, PayloadType, PrfId, TransformType};

/// The PRF of an IKE SA, and how long its keys are.
#[derive(Clone, Copy)]
pub(super) struct Suite {
    pub(super) prf: Prf,
    encr_len: usize,
    integ_len: usize,
}

impl Suite {
    pub(super) fn of(algorithms: &Algorithms) -> Result<Self, Mismatch> {
        let prf = PrfId(algorithms.prf);
        let prf = Prf::new(prf).ok_or_else(|| Mismatch::new(format!("{prf} is not ours")))?;
        let (encr_len, integ_len) =
            key_lens(algorithms.encr, algorithms.encr_key_bits, algorithms.integ)?;
        Ok(Self { prf, encr_len, integ_len })
    }
}

/// Lengths of the keys of encryption (with its salt) and integrity.
fn key_lens(encr: u16, key_bits: Option<u16>, integ: u16) -> Result<(usize, usize), Mismatch> {
    let (id, integ) = (EncrId(encr), IntegId(integ));
    // 3DES is in captures alone.
    if id == EncrId::ENCR_3DES {
        return Ok((DesCbc::TRIPLE_KEY_LEN, integ_len(integ)?));
    }
    // The recorder gives lengths of keys that have only one, too.
    let fixed = [EncrId::ENCR_CHACHA20_POLY1305, EncrId::ENCR_NULL].contains(&id);
    let encr = Encr { id, key_bits: if fixed { None } else { key_bits } };
    let encr_len = encr.keymat_len().ok_or_else(|| Mismatch::new(format!("{encr} is not ours")))?;
    Ok((encr_len, integ_len(integ)?))
}

fn integ_len(id: IntegId) -> Result<usize, Mismatch> {
    if id == IntegId::NONE {
        return Ok(0);
    }
    Integ::key_len(id).ok_or_else(|| Mismatch::new(format!("{id} is not ours")))
}

/// Length of KEYMAT of a CHILD_SA, one direction.
pub(super) fn child_len(transforms: &[Transform]) -> Result<usize, Mismatch> {
    let of_type = |wanted: TransformType| {
        transforms.iter().find(|transform| transform.transform_type == wanted.0)
    };
    let encr = of_type(TransformType::ENCR);
    let integ = of_type(TransformType::INTEG).map_or(0, |transform| transform.id);
    match encr {
        Some(encr) => key_lens(encr.id, encr.key_bits, integ).map(|(encr, integ)| encr + integ),
        None => {
            let id = IntegId(integ);
            Integ::key_len(id).ok_or_else(|| Mismatch::new(format!("{id} is not ours")))
        }
    }
}

/// `SKEYSEED = prf(Ni | Nr, SK(0))`.
pub(super) fn first_seed(prf: Prf, ni: &[u8], nr: &[u8], shared: &[u8]) -> Secret {
    prf.compute(&prf.nonce_key(ni, nr), &[shared])
}

/// `SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr)`.
pub(super) fn next_seed(prf: Prf, sk_d: &[u8], ni: &[u8], nr: &[u8], shared: &[u8]) -> Secret {
    prf.compute(sk_d, &[shared, ni, nr])
}

/// `SKEYSEED = prf(SK_d (old), SK(0) | Ni | Nr | SK(1) | ...)`.
pub(super) fn rekeyed_seed(
    old_prf: Prf,
    old_sk_d: &[u8],
    ni: &[u8],
    nr: &[u8],
    shared: &[&[u8]],
) -> Secret {
    old_prf.compute(old_sk_d, &seed(ni, nr, shared))
}

/// KEYMAT: `prf+(SK_d, SK(0) | Ni | Nr | SK(1) | ...)`.
pub(super) fn keymat(
    prf: Prf,
    sk_d: &[u8],
    ni: &[u8],
    nr: &[u8],
    shared: &[&[u8]],
    len: usize,
) -> Secret {
    prf.plus(sk_d, &seed(ni, nr, shared), len)
}

fn seed<'a>(ni: &'a [u8], nr: &'a [u8], shared: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let (first, more) = shared.split_at(shared.len().min(1));
    [first, &[ni, nr], more].concat()
}

/// The keys that come of a SKEYSEED are these.
pub(super) fn check_keys(
    suite: Suite,
    skeyseed: &Secret,
    (ni, nr): (&[u8], &[u8]),
    (spi_i, spi_r): (IkeSpi, IkeSpi),
    keys: &Keys,
    mixed: Option<&super::json::BeforePpk>,
) -> Result<(), Mismatch> {
    super::same("SKEYSEED", skeyseed.expose(), keys.skeyseed.bytes())?;
    let Suite { prf, encr_len, integ_len } = suite;
    let (spi_i, spi_r) = (spi_i.0.to_be_bytes(), spi_r.0.to_be_bytes());
    let len = 3 * prf.len() + 2 * (encr_len + integ_len);
    let stream = prf.plus(skeyseed.expose(), &[ni, nr, &spi_i, &spi_r], len);
    // With a PPK these three are noted as they were before it was mixed in.
    let (sk_d, sk_pi, sk_pr) = match mixed {
        Some(before) => (&before.sk_d, &before.sk_pi, &before.sk_pr),
        None => (&keys.sk_d, &keys.sk_pi, &keys.sk_pr),
    };
    let mut rest = stream.expose();
    for (name, len, noted) in [
        ("SK_d", prf.len(), sk_d),
        ("SK_ai", integ_len, &keys.sk_ai),
        ("SK_ar", integ_len, &keys.sk_ar),
        ("SK_ei", encr_len, &keys.sk_ei),
        ("SK_er", encr_len, &keys.sk_er),
        ("SK_pi", prf.len(), sk_pi),
        ("SK_pr", prf.len(), sk_pr),
    ] {
        let (key, after) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        super::same(name, key, noted.bytes())?;
        rest = after;
    }
    Ok(())
}

/// RFC 8784 §3: `SK_d = prf+ (PPK, SK_d')`, and SK_pi and SK_pr likewise.
pub(super) fn check_ppk(
    prf: Prf,
    ppk: &[u8],
    before: &super::json::BeforePpk,
    keys: &Keys,
) -> Result<(), Mismatch> {
    for (name, before, after) in [
        ("SK_d with the PPK", &before.sk_d, &keys.sk_d),
        ("SK_pi with the PPK", &before.sk_pi, &keys.sk_pi),
        ("SK_pr with the PPK", &before.sk_pr, &keys.sk_pr),
    ] {
        let mixed = mix_ppk(prf, ppk, before.bytes());
        super::same(name, mixed.expose(), after.bytes())?;
    }
    Ok(())
}

/// The next IntAuth value (RFC 9242 §3.3.2): `prf(SK_p, IntAuth before | message as if unprotected)`.
pub(super) fn int_auth(
    prf: Prf,
    sk_p: &[u8],
    before: &[u8],
    header: &Header,
    content: &Content,
) -> Secret {
    let payload_len = 4 + content.plain.len();
    let length = u32::try_from(Header::LEN + payload_len).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    Header { next_payload: PayloadType::SK, length, ..*header }.emit(&mut message);
    message.extend_from_slice(&[content.first.0, 0]);
    message.extend_from_slice(&u16::try_from(payload_len).unwrap_or(u16::MAX).to_be_bytes());
    prf.compute(sk_p, &[before, &message, &content.plain])
}
