//! Runners for `ipsecd::ike`: keys, authentication, encrypted payloads.

use core::time::Duration;

use ipsecd::crypto::prf::Prf;
use ipsecd::crypto::sign::{Hash, PrivateKey, Scheme, Signer};
use ipsecd::crypto::x509::{Certificate, Trust};
use ipsecd::crypto::{Encr, Secret};
use ipsecd::ike::keymat::{self, IkeKeys};
use ipsecd::ike::protect::Protector;
use ipsecd::ipsec::suite::{AddKe, EspSuite, IkeSuite};
use ipsecd::wire::ike::header::IkeSpi;
use ipsecd::wire::ike::message::{emit_chain, parse_chain};
use ipsecd::wire::ike::numbers::{AuthMethod, EncrId, EsnId, IntegId, KeId, PayloadType, PrfId};

use crate::crypto::{named, same};
use crate::file::Case;

/// 2026-11-26, when the exchanges were recorded.
const RECORDED: Duration = Duration::from_secs(1_795_651_200);

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
        addke: AddKe::NONE,
    };
    let shared = secret(case, "shared")?;
    let (nonce_i, nonce_r) = (case.hex("nonce_i")?, case.hex("nonce_r")?);
    let (spi_i, spi_r) = (spi(case, "spi_i")?, spi(case, "spi_r")?);
    let (keys, skeyseed) = if case.get("old_prf").is_some() {
        let (old_prf, old) = (prf(case, "old_prf")?, secret(case, "old_sk_d")?);
        let keys = IkeKeys::derive_rekeyed(
            suite,
            old_prf,
            &old,
            &shared,
            &[],
            &nonce_i,
            &nonce_r,
            spi_i,
            spi_r,
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
        suite.into(),
        shared.as_ref(),
        &[],
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
        &[],
    )
    .ok_or(UNSUPPORTED)?;
    same("auth", auth.expose(), &case.hex("auth")?)
}

/// `prf`, `method`, `message`, `peer_nonce`, `sk_p`, `id`, `signed_octets`, `certificate`, `between` (a CA's certificate, where
/// there is one), `ca`, `private_key` (PKCS #8), `auth`: the signed octets are computed, the chain and the signature verified; the
/// signature made again where the scheme gives always the same and we sign so.
pub(crate) fn signature_auth(case: &Case) -> Result<(), String> {
    let prf = prf(case, "prf")?;
    let (message, nonce) = (case.hex("message")?, case.hex("peer_nonce")?);
    let octets =
        keymat::signed_octets(prf, &message, &nonce, &secret(case, "sk_p")?, &case.hex("id")?, &[])
            .ok_or(UNSUPPORTED)?;
    same("signed_octets", &octets, &case.hex("signed_octets")?)?;

    let leaf = Certificate::parse(&case.hex("certificate")?).map_err(|e| e.to_string())?;
    let between: Vec<_> = case.hex_or_none("between")?.into_iter().collect();
    let trust = Trust::new(&[case.hex("ca")?]).map_err(|(_, error)| error.to_string())?;
    trust.verify(&leaf, &between, RECORDED).map_err(|error| error.to_string())?;

    let auth = case.hex("auth")?;
    let method = named(case, "method", AuthMethod::KNOWN, AuthMethod::name)?;
    let (scheme, prefix, signature) = if method == AuthMethod::DIGITAL_SIGNATURE {
        // RFC 7427 §3: a length, the AlgorithmIdentifier, the signature.
        let (len, rest) = auth.split_first().ok_or("empty")?;
        let (der, signature) = rest.split_at_checked(usize::from(*len)).ok_or("too short")?;
        let scheme = Scheme::of_algorithm_identifier(der).ok_or("AlgorithmIdentifier unknown")?;
        same("AlgorithmIdentifier", der, &scheme.algorithm_identifier().ok_or("none")?)?;
        (scheme, auth[..der.len() + 1].to_vec(), signature)
    } else {
        (Scheme::RsaPkcs1(Hash::Sha1), Vec::new(), auth.as_slice())
    };
    if !leaf.public_key().verify(scheme, &octets, signature) {
        return Err(format!("not a signature by {scheme}"));
    }

    let key = PrivateKey::from_pkcs8(&case.hex("private_key")?).map_err(|e| e.to_string())?;
    if key.public_key() != leaf.public_key() {
        return Err("the private key is not the certificate's".to_owned());
    }
    let mut rng = ipsecd::testing::FixedRandom::new(1, 1);
    match scheme {
        Scheme::Ed25519 | Scheme::RsaPkcs1(Hash::Sha256 | Hash::Sha384 | Hash::Sha512) => {
            let ours = key.sign(&mut rng, scheme, &octets).map_err(|error| error.to_string())?;
            same("auth", &[prefix, ours].concat(), &auth)
        }
        Scheme::RsaPkcs1(Hash::Sha1) => Ok(()),
        Scheme::Ecdsa(_) | Scheme::EcdsaConcat(_) | Scheme::RsaPss(_) => {
            let ours = key.sign(&mut rng, scheme, &octets).map_err(|error| error.to_string())?;
            let good = leaf.public_key().verify(scheme, &octets, &ours);
            if good { Ok(()) } else { Err("our own signature does not verify".to_owned()) }
        }
    }
}

/// `encr`, `key_bits`, `integ`, `sk_e`, `message`, `first` (number of the first payload inside);
/// `sk_a` without an AEAD, `inner` (the payloads inside) if there are any.
pub(crate) fn sk_payload(case: &Case) -> Result<(), String> {
    let suite = IkeSuite {
        encr: encr(case)?,
        integ: integ(case)?,
        prf: PrfId::PRF_HMAC_SHA2_256, // Not an input, as the group.
        ke: KeId::NONE,
        addke: AddKe::NONE,
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
