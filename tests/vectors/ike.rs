//! Runners for `ipsecd::ike`: keys, authentication, encrypted payloads.

use ipsecd::crypto::prf::Prf;
use ipsecd::crypto::{Encr, Secret};
use ipsecd::ike::keymat::{self, IkeKeys};
use ipsecd::ike::protect::Protector;
use ipsecd::ipsec::suite::{EspSuite, IkeSuite};
use ipsecd::wire::ike::header::IkeSpi;
use ipsecd::wire::ike::message::{emit_chain, parse_chain};
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId, KeId, PayloadType, PrfId};

use crate::crypto::{named, same};
use crate::file::Case;

const UNSUPPORTED: &str = "an algorithm or a key length was refused";

/// `encr`, and `key_bits` unless the algorithm has a fixed key length.
pub(crate) fn encr(case: &Case) -> Result<Encr, String> {
    let id = named(case, "encr", EncrId::KNOWN, EncrId::name)?;
    let key_bits = case.get("key_bits").map(|_| case.number("key_bits")).transpose()?;
    Ok(Encr { id, key_bits })
}

fn integ(case: &Case) -> Result<IntegId, String> {
    named(case, "integ", IntegId::KNOWN, IntegId::name)
}

fn prf(case: &Case, field: &str) -> Result<PrfId, String> {
    named(case, field, PrfId::KNOWN, PrfId::name)
}

fn secret(case: &Case, field: &str) -> Result<Secret, String> {
    Ok(case.hex_or_none(field)?.map_or_else(Secret::empty, Secret::new))
}

fn spi(case: &Case, field: &str) -> Result<IkeSpi, String> {
    case.array(field).map(u64::from_be_bytes).map(IkeSpi)
}

/// `encr`, `key_bits`, `integ`, `prf`, `shared`, `nonce_i`, `nonce_r`, `spi_i`, `spi_r`,
/// `skeyseed`, `sk_d` ..  `sk_pr`; `old_prf` and `old_sk_d` for a rekeyed IKE SA.
pub(crate) fn ike_keys(case: &Case) -> Result<(), String> {
    let suite = IkeSuite {
        encr: encr(case)?,
        integ: integ(case)?,
        prf: prf(case, "prf")?,
        ke: KeId::NONE, // Not an input.
    };
    let shared = secret(case, "shared")?;
    let (nonce_i, nonce_r) = (case.hex("nonce_i")?, case.hex("nonce_r")?);
    let (spi_i, spi_r) = (spi(case, "spi_i")?, spi(case, "spi_r")?);
    let (keys, skeyseed) = if case.get("old_prf").is_some() {
        let (old_prf, old) = (prf(case, "old_prf")?, secret(case, "old_sk_d")?);
        let keys = IkeKeys::derive_rekeyed(
            suite, old_prf, &old, &shared, &nonce_i, &nonce_r, spi_i, spi_r,
        );
        let prf = Prf::new(old_prf).ok_or(UNSUPPORTED)?;
        (keys, prf.compute(old.expose(), &[shared.expose(), &nonce_i, &nonce_r]))
    } else {
        let keys = IkeKeys::derive(suite, &nonce_i, &nonce_r, spi_i, spi_r, &shared);
        let prf = Prf::new(suite.prf).ok_or(UNSUPPORTED)?;
        (keys, prf.compute(&[nonce_i, nonce_r].concat(), &[shared.expose()]))
    };
    let keys = keys.ok_or(UNSUPPORTED)?;
    for (field, key) in [
        ("skeyseed", &skeyseed),
        ("sk_d", &keys.sk_d),
        ("sk_ai", &keys.sk_ai),
        ("sk_ar", &keys.sk_ar),
        ("sk_ei", &keys.sk_ei),
        ("sk_er", &keys.sk_er),
        ("sk_pi", &keys.sk_pi),
        ("sk_pr", &keys.sk_pr),
    ] {
        same(field, key.expose(), secret(case, field)?.expose())?;
    }
    Ok(())
}

/// `prf`, `encr`, `key_bits`, `integ`, `sk_d`, `nonce_i`, `nonce_r`, `keymat`; `shared` with a key
/// exchange.
pub(crate) fn child_keys(case: &Case) -> Result<(), String> {
    let suite = EspSuite { encr: encr(case)?, integ: integ(case)?, esn: EsnId::NO_ESN };
    let shared = case.hex_or_none("shared")?.map(Secret::new);
    let keys = keymat::child_keys(
        prf(case, "prf")?,
        &secret(case, "sk_d")?,
        suite,
        shared.as_ref(),
        &case.hex("nonce_i")?,
        &case.hex("nonce_r")?,
    )
    .ok_or(UNSUPPORTED)?;
    let all = [&keys.encr_i, &keys.integ_i, &keys.encr_r, &keys.integ_r].map(Secret::expose);
    same("keymat", &all.concat(), &case.hex("keymat")?)
}

/// `prf`, `psk`, `message`, `peer_nonce`, `sk_p`, `id`, `auth`.
pub(crate) fn psk_auth(case: &Case) -> Result<(), String> {
    let auth = keymat::psk_auth(
        prf(case, "prf")?,
        &secret(case, "psk")?,
        &case.hex("message")?,
        &case.hex("peer_nonce")?,
        &secret(case, "sk_p")?,
        &case.hex("id")?,
    )
    .ok_or(UNSUPPORTED)?;
    same("auth", auth.expose(), &case.hex("auth")?)
}

/// `encr`, `key_bits`, `integ`, `sk_e`, `message`, `first` (number of the first payload inside);
/// `sk_a` without an AEAD, `inner` (the payloads inside) if there are any.
pub(crate) fn sk_payload(case: &Case) -> Result<(), String> {
    let suite = IkeSuite {
        encr: encr(case)?,
        integ: integ(case)?,
        prf: PrfId::PRF_HMAC_SHA2_256, // Not an input, as the group.
        ke: KeId::NONE,
    };
    let protector =
        Protector::new(suite, &secret(case, "sk_e")?, &secret(case, "sk_a")?).ok_or(UNSUPPORTED)?;
    let opened = protector.open(&case.hex("message")?).map_err(|error| error.to_string())?;
    let first = PayloadType(case.number("first")?);
    let inner = case.hex_or_none("inner")?.unwrap_or_default();
    if opened != parse_chain(first, &inner).map_err(|error| error.to_string())? {
        return Err(format!("opened as {opened:?}"));
    }
    let mut emitted = Vec::new();
    if emit_chain(&opened, &mut emitted) != first {
        return Err("the first payload is of another type".to_owned());
    }
    same("inner", &emitted, &inner)
}
