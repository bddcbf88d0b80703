//! The JSON that comes with a capture, `ipsec-lab-capture/1`: the SAs, and of IKE SAs the keys of every stage.

use core::fmt;
use core::net::IpAddr;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::{
    AddrPattern, Algorithms, IkeKey, Integrity, KeyError, KeyRing, SaKey, Selectors, SpiPattern,
    Start, encr_of, ikev2, unhex,
};
use crate::crypto::{Encr, Secret};
use crate::ipsec::suite::{IkeSuite, Protocol};
use crate::ipsec::{Mode, TrafficSelector};
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::{EncrId, IntegId};

/// Reads one.
pub(super) fn read(name: &str, text: &str) -> Result<KeyRing, KeyError> {
    let lab: Lab = serde_json::from_str(text).map_err(|error| {
        let text = error.to_string();
        // The place is told by itself.
        let message = text.split(" at line ").next().unwrap_or_default().to_owned();
        KeyError { line: error.line().max(1), column: error.column().max(1), message }
    })?;
    let mut ring = KeyRing::default();
    for sa in lab.sas {
        if let Some(encap) = sa.encap {
            ring.ports.extend([encap.sport, encap.dport]);
        }
        ring.sas.push(sa.key(name));
    }
    for sa in lab.ike_sas {
        let origin = format!("{name}, IKE SA {}", sa.index);
        let suite = sa.algorithms.suite();
        for keys in sa.key_stages.into_iter().chain([sa.keys]) {
            for (initiator, sk_e, sk_a) in
                [(true, keys.sk_ei, keys.sk_ai), (false, keys.sk_er, keys.sk_ar)]
            {
                ring.ike.push(IkeKey {
                    origin: origin.clone(),
                    spi_i: sa.spi_i.0,
                    spi_r: sa.spi_r.0,
                    initiator,
                    suite: suite.clone(),
                    sk_e: sk_e.0,
                    sk_a: sk_a.0,
                    unchecked: false,
                });
            }
        }
    }
    Ok(ring)
}

#[derive(Deserialize)]
struct Lab {
    #[serde(rename = "format")]
    _format: Format,
    #[serde(default, deserialize_with = "or_default")]
    sas: Vec<LabSa>,
    #[serde(default, deserialize_with = "or_default")]
    ike_sas: Vec<LabIkeSa>,
}

/// There is but one.
#[derive(Deserialize)]
enum Format {
    #[serde(rename = "ipsec-lab-capture/1")]
    One,
}

#[derive(Deserialize)]
struct LabSa {
    name: String,
    proto: LabProto,
    mode: LabMode,
    spi: HexSpi,
    src: IpAddr,
    dst: IpAddr,
    aead: Option<Cipher>,
    enc: Option<Cipher>,
    auth: Option<Mac>,
    #[serde(default, deserialize_with = "or_default")]
    esn: bool,
    #[serde(default, deserialize_with = "or_default")]
    initial_oseq: u64,
    replay_window: Option<u32>,
    encap: Option<LabEncap>,
    selector: Option<LabSelector>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LabProto {
    Ah,
    Esp,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LabMode {
    Transport,
    Tunnel,
}

#[derive(Deserialize)]
struct Cipher {
    linux: String,
    key: Hex,
    #[serde(default, deserialize_with = "or_default")]
    salt: Hex,
    icv_bits: Option<u16>,
}

#[derive(Deserialize)]
struct Mac {
    linux: String,
    key: Hex,
    icv_bits: usize,
}

#[derive(Clone, Copy, Deserialize)]
struct LabEncap {
    sport: u16,
    dport: u16,
}

#[derive(Deserialize)]
struct LabSelector {
    src: Prefix,
    dst: Prefix,
}

#[derive(Deserialize)]
struct LabIkeSa {
    index: u32,
    spi_i: HexIkeSpi,
    spi_r: HexIkeSpi,
    algorithms: LabIkeAlgorithms,
    #[serde(flatten)]
    keys: Stage,
    /// With additional key exchanges: the keys before the last ones.
    #[serde(default, deserialize_with = "or_default")]
    key_stages: Vec<Stage>,
}

#[derive(Deserialize)]
struct Stage {
    sk_ai: Hex,
    sk_ar: Hex,
    sk_ei: Hex,
    sk_er: Hex,
}

#[derive(Deserialize)]
struct LabIkeAlgorithms {
    encr: u16,
    encr_key_bits: Option<u16>,
    #[serde(default, deserialize_with = "or_default")]
    integ: u16,
}

impl LabSa {
    fn key(self, file: &str) -> SaKey {
        let algorithms = self.algorithms();
        let cipher = self.aead.or(self.enc);
        let encr_key = cipher.map_or_else(Secret::empty, |cipher| {
            Secret::new([cipher.key.0.expose(), cipher.salt.0.expose()].concat())
        });
        let (proto, mode) = (self.proto, self.mode);
        SaKey {
            origin: format!("{file}, {}", self.name),
            protocol: match proto {
                LabProto::Ah => Protocol::Ah,
                LabProto::Esp => Protocol::Esp,
            },
            src: AddrPattern::exactly(self.src),
            dst: AddrPattern::exactly(self.dst),
            spi: SpiPattern::exactly(self.spi.0),
            algorithms,
            encr_key,
            integ_key: self.auth.map_or_else(Secret::empty, |auth| auth.key.0),
            esn: self.esn,
            start: Start::After(self.initial_oseq),
            replay_window: self.replay_window,
            mode: Some(match mode {
                LabMode::Transport => Mode::Transport,
                LabMode::Tunnel => Mode::Tunnel,
            }),
            selectors: self.selector.map(|LabSelector { src, dst }| Selectors {
                src: [src.0].into(),
                dst: [dst.0].into(),
            }),
        }
    }

    fn algorithms(&self) -> Result<Algorithms, String> {
        let integrity = match (&self.aead, &self.auth) {
            (Some(_), None) => Integrity::Aead,
            (None, Some(mac)) => mac.integrity()?,
            (None, None) => return Err("encryption without integrity".to_owned()),
            (Some(_), Some(_)) => return Err("an AEAD with another integrity algorithm".to_owned()),
        };
        let encr = match (self.aead.as_ref().or(self.enc.as_ref()), self.proto) {
            (Some(cipher), LabProto::Esp) => Some(cipher.encr()?),
            (None, LabProto::Esp) => return Err("ESP without a cipher".to_owned()),
            (_, LabProto::Ah) => None,
        };
        Ok(Algorithms { encr, integrity })
    }
}

impl Cipher {
    fn encr(&self) -> Result<Encr, String> {
        let bits = self.icv_bits.unwrap_or_default();
        let id = match (self.linux.as_str(), bits) {
            ("rfc4106(gcm(aes))", 64) => EncrId::ENCR_AES_GCM_8,
            ("rfc4106(gcm(aes))", 96) => EncrId::ENCR_AES_GCM_12,
            ("rfc4106(gcm(aes))", 128) => EncrId::ENCR_AES_GCM_16,
            ("rfc4309(ccm(aes))", 64) => EncrId::ENCR_AES_CCM_8,
            ("rfc4309(ccm(aes))", 96) => EncrId::ENCR_AES_CCM_12,
            ("rfc4309(ccm(aes))", 128) => EncrId::ENCR_AES_CCM_16,
            ("rfc7539esp(chacha20,poly1305)", 128) => EncrId::ENCR_CHACHA20_POLY1305,
            ("rfc4543(gcm(aes))", 128) => EncrId::ENCR_NULL_AUTH_AES_GMAC,
            ("cbc(aes)", 0) => EncrId::ENCR_AES_CBC,
            ("rfc3686(ctr(aes))", 0) => EncrId::ENCR_AES_CTR,
            ("cbc(des3_ede)", 0) => EncrId::ENCR_3DES,
            ("cbc(des)", 0) => EncrId::ENCR_DES,
            ("ecb(cipher_null)", 0) => EncrId::ENCR_NULL,
            (other, 0) => return Err(other.to_owned()),
            (other, bits) => return Err(format!("{other} with an ICV of {bits} bits")),
        };
        encr_of(id, self.key.0.len() + self.salt.0.len())
    }
}

impl Mac {
    fn integrity(&self) -> Result<Integrity, String> {
        Ok(match (self.linux.as_str(), self.icv_bits) {
            ("hmac(sha1)", 96) => Integrity::Full(IntegId::AUTH_HMAC_SHA1_96),
            ("hmac(sha256)", 128) => Integrity::Full(IntegId::AUTH_HMAC_SHA2_256_128),
            ("hmac(sha256)", 96) => Integrity::Full(IntegId::AUTH_HMAC_SHA2_256_96),
            ("hmac(sha384)", 192) => Integrity::Full(IntegId::AUTH_HMAC_SHA2_384_192),
            ("hmac(sha512)", 256) => Integrity::Full(IntegId::AUTH_HMAC_SHA2_512_256),
            ("xcbc(aes)", 96) => Integrity::Full(IntegId::AUTH_AES_XCBC_96),
            ("cmac(aes)", 96) => Integrity::Full(IntegId::AUTH_AES_CMAC_96),
            (other, bits) => return Err(format!("{other} with an ICV of {bits} bits")),
        })
    }
}

impl LabIkeAlgorithms {
    fn suite(&self) -> Result<IkeSuite, String> {
        let id = EncrId(self.encr);
        // The recorder says 256 of ChaCha20 too; the attribute is not sent.
        let fixed = [
            EncrId::ENCR_CHACHA20_POLY1305,
            EncrId::ENCR_NULL,
            EncrId::ENCR_DES,
            EncrId::ENCR_3DES,
        ]
        .contains(&id);
        let key_bits = if fixed { None } else { self.encr_key_bits };
        Ok(ikev2::of_ids(Encr { id, key_bits }, IntegId(self.integ)))
    }
}

/// What is `null` is as if it were not there.
pub(in crate::capture) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Hex digits.
pub(in crate::capture) struct Hex(Secret);

impl Hex {
    pub(in crate::capture) fn bytes(&self) -> &[u8] {
        self.0.expose()
    }
}

impl Default for Hex {
    fn default() -> Self {
        Self(Secret::empty())
    }
}

/// An SPI of ESP or AH: `0x` and hex digits.
pub(in crate::capture) struct HexSpi(pub(in crate::capture) u32);

/// An SPI of IKE: 16 hex digits.
pub(in crate::capture) struct HexIkeSpi(pub(in crate::capture) IkeSpi);

/// `10.1.0.0/16`.
struct Prefix(TrafficSelector);

/// Reads a string by a function, so that an error has the string's place in the file.
struct Text<T>(&'static str, fn(&str) -> Option<T>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        // Without the text: it may be a key.
        self.1(text).ok_or_else(|| E::custom(format!("not {}", self.0)))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| unhex(text).ok().map(|bytes| Self(Secret::new(bytes)));
        deserializer.deserialize_str(Text("hex digits, two a byte", read))
    }
}

impl<'de> Deserialize<'de> for HexSpi {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| {
            let digits = text.strip_prefix("0x").filter(|digits| digits.len() <= 8)?;
            u32::from_str_radix(digits, 16).ok().map(Self)
        };
        deserializer.deserialize_str(Text("an SPI, such as \"0x12345678\"", read))
    }
}

impl<'de> Deserialize<'de> for HexIkeSpi {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| {
            let bytes = <[u8; 8]>::try_from(unhex(text).ok()?).ok()?;
            Some(Self(IkeSpi(u64::from_be_bytes(bytes))))
        };
        deserializer.deserialize_str(Text("an SPI of IKE, 16 hex digits", read))
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| {
            let (addr, len) = text.split_once('/')?;
            TrafficSelector::from_prefix(addr.parse().ok()?, len.parse().ok()?).map(Self)
        };
        deserializer.deserialize_str(Text("a prefix, such as \"10.1.0.0/16\"", read))
    }
}
