//! What `ipsec-lab-capture/1` says of IKE sessions, as far as it can be computed again.

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroize;

use crate::capture::keys::json::{Hex, HexIkeSpi, HexSpi, or_default};

#[derive(Deserialize)]
pub(super) struct Lab {
    /// What each end has configured, by its name.
    #[serde(default, deserialize_with = "or_default")]
    ppk: Option<BTreeMap<String, Option<ConfiguredPpk>>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) sas: Vec<EspSa>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) ike_sas: Vec<IkeSa>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) child_sas: Vec<ChildSa>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) messages: Vec<Message>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) packets: Vec<Packet>,
}

impl Lab {
    /// The PPKs that the ends have, whether one was used or not.
    pub(super) fn ppks(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.ppk.iter().flat_map(BTreeMap::values).flatten();
        ends.map(|ppk| ppk.secret.0.as_bytes())
    }
}

/// As it stands in a configuration.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text(String);

impl Drop for Text {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[derive(Deserialize)]
struct ConfiguredPpk {
    secret: Text,
}

/// One direction of a CHILD_SA, or a manual SA.
#[derive(Deserialize)]
pub(super) struct EspSa {
    pub(super) name: String,
    pub(super) spi: HexSpi,
    aead: Option<Cipher>,
    enc: Option<Cipher>,
    auth: Option<Mac>,
}

#[derive(Deserialize)]
struct Cipher {
    key: Hex,
    #[serde(default, deserialize_with = "or_default")]
    salt: Hex,
}

#[derive(Deserialize)]
struct Mac {
    key: Hex,
}

impl EspSa {
    /// In the order of KEYMAT: encryption, its salt, integrity.
    pub(super) fn keys(&self) -> Vec<u8> {
        let cipher = self.aead.as_ref().or(self.enc.as_ref());
        let cipher = cipher.map(|cipher| [cipher.key.bytes(), cipher.salt.bytes()].concat());
        let mac = self.auth.as_ref().map_or(&[][..], |mac| mac.key.bytes());
        [cipher.unwrap_or_default().as_slice(), mac].concat()
    }
}

#[derive(Deserialize)]
pub(super) struct IkeSa {
    pub(super) index: usize,
    pub(super) spi_i: HexIkeSpi,
    pub(super) spi_r: HexIkeSpi,
    pub(super) algorithms: Algorithms,
    pub(super) ni: Hex,
    pub(super) nr: Hex,
    pub(super) rekeyed_from: Option<usize>,
    pub(super) dh_shared_secret: Hex,
    #[serde(flatten)]
    pub(super) keys: Keys,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) key_exchanges: Vec<KeyExchange>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) key_stages: Vec<Keys>,
    pub(super) ppk: Option<Ppk>,
    pub(super) before_ppk: Option<BeforePpk>,
    pub(super) int_auth: Option<IntAuth>,
    pub(super) auth: Option<Auth>,
}

#[derive(Deserialize)]
pub(super) struct Algorithms {
    pub(super) encr: u16,
    pub(super) encr_key_bits: Option<u16>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) integ: u16,
    pub(super) prf: u16,
    pub(super) dh: Option<u16>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) addke: Vec<u16>,
}

#[derive(Deserialize)]
pub(super) struct Keys {
    pub(super) skeyseed: Hex,
    pub(super) sk_d: Hex,
    pub(super) sk_ai: Hex,
    pub(super) sk_ar: Hex,
    pub(super) sk_ei: Hex,
    pub(super) sk_er: Hex,
    pub(super) sk_pi: Hex,
    pub(super) sk_pr: Hex,
}

#[derive(Deserialize)]
pub(super) struct KeyExchange {
    pub(super) exchange: String,
    pub(super) message_id: Option<u32>,
    pub(super) method: u16,
    pub(super) shared_secret: Hex,
}

#[derive(Deserialize)]
pub(super) struct Ppk {
    pub(super) secret: Hex,
}

#[derive(Deserialize)]
pub(super) struct BeforePpk {
    pub(super) sk_d: Hex,
    pub(super) sk_pi: Hex,
    pub(super) sk_pr: Hex,
}

#[derive(Deserialize)]
pub(super) struct IntAuth {
    pub(super) initiator: Vec<Hex>,
    pub(super) responder: Vec<Hex>,
    pub(super) octets: Option<Hex>,
}

#[derive(Default, Deserialize)]
pub(super) struct Auth {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) initiator: Vec<Proof>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) responder: Vec<Proof>,
}

/// An AUTH payload, or a NO_PPK_AUTH notify.
#[derive(Deserialize)]
pub(super) struct Proof {
    pub(super) method: u8,
    pub(super) value: Hex,
    pub(super) signed_octets: Hex,
    pub(super) secret: Option<Hex>,
    pub(super) message_id: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct ChildSa {
    pub(super) ike_sa: usize,
    pub(super) exchange: String,
    pub(super) spi_of_initiator: HexSpi,
    pub(super) spi_of_responder: HexSpi,
    pub(super) ni: Hex,
    pub(super) nr: Hex,
    pub(super) transforms: Vec<Transform>,
    pub(super) dh_shared_secret: Option<Hex>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) key_exchanges: Vec<KeyExchange>,
    pub(super) keymat: Hex,
    /// Bodies of the TS payloads of the response.
    pub(super) tsi: Option<Hex>,
    pub(super) tsr: Option<Hex>,
    /// Of the direction from the initiator of the exchange, then of the other.
    pub(super) sas: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Transform {
    #[serde(rename = "type")]
    pub(super) transform_type: u8,
    pub(super) id: u16,
    pub(super) key_bits: Option<u16>,
}

#[derive(Deserialize)]
pub(super) struct Message {
    pub(super) wire: Vec<usize>,
    pub(super) exchange: u8,
    pub(super) initiator_flag: bool,
    pub(super) response_flag: bool,
    pub(super) message_id: u32,
    pub(super) spi_i: HexIkeSpi,
    pub(super) spi_r: HexIkeSpi,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) payloads: Vec<Payload>,
    pub(super) fragment: Option<(u16, u16)>,
    pub(super) decrypted_fragment: Option<Hex>,
    pub(super) decrypted: Option<Hex>,
    pub(super) decrypted_first_payload: Option<u8>,
    pub(super) intauth: Option<Hex>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) payloads_decrypted: Option<Vec<Payload>>,
}

#[derive(Deserialize)]
pub(super) struct Payload {
    #[serde(rename = "type")]
    pub(super) payload_type: u8,
    pub(super) body: Hex,
}

#[derive(Deserialize)]
pub(super) struct Packet {
    pub(super) wire: Vec<usize>,
    pub(super) verdict: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) layers: Vec<PacketLayer>,
}

#[derive(Deserialize)]
pub(super) struct PacketLayer {
    pub(super) sa: String,
    pub(super) seq: u64,
}
