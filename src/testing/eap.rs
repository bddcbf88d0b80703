//! Endpoints in the middle of EAP, for [`State`](super::State): site B as server, site A as client, each before a puppet that
//! knows the password. The server proves itself by a key without a certificate.

use std::sync::Arc;

use super::{FixedRandom, Stage, peers};
use crate::crypto::Secret;
use crate::crypto::mschapv2::MsChapV2;
use crate::crypto::sign::{KeyKind, PrivateKey, Signer};
use crate::crypto::x509::Trust;
use crate::ipsec::pad::{
    Auth, Authority, Credential, EapClient, EapMethod, EapServer, EapUser, LocalAuth, Peer,
    PeerAuth,
};
use crate::wire::ike::eap::{Eap, EapCode};
use crate::wire::ike::numbers::ExchangeType;
use crate::wire::ike::payload::Payload;

const NAME: &str = "joe";
const PASSWORD: &[u8] = b"correct horse";

/// EAP-MSCHAPv2.
const TYPE: u8 = 26;

fn key() -> Option<PrivateKey> {
    Some(PrivateKey::generate(KeyKind::Ed25519, &mut FixedRandom::new(7, 7)).ok()?.0)
}

/// Site B, which takes site A by EAP.
#[must_use]
pub fn server() -> Option<Peer> {
    let users = vec![EapUser { name: NAME.to_owned(), password: Secret::copy_of(PASSWORD) }];
    let methods = vec![EapMethod::MsChapV2];
    let auth = Auth {
        local: LocalAuth::Signature(Arc::new([Credential::raw(Arc::new(key()?))])),
        peer: PeerAuth::Eap(Arc::new(EapServer { methods, users, authority: None })),
    };
    Some(Peer { auth, ..peers::site_b() })
}

/// Site A, which proves itself by EAP.
#[must_use]
pub fn client() -> Option<Peer> {
    let local = EapClient {
        identity: NAME.to_owned(),
        methods: vec![EapMethod::MsChapV2],
        password: Some(Secret::copy_of(PASSWORD)),
        credential: None,
    };
    let trust = Trust::new(&[]).ok()?;
    let keys = vec![key()?.public_key().clone()];
    let auth = Auth {
        local: LocalAuth::Eap(Arc::new(local)),
        peer: PeerAuth::Signature(Arc::new(Authority { trust, keys, allow_sha_1: false })),
    };
    Some(Peer { auth, ..peers::site_a() })
}

/// The server has asked for the password; the last datagram is the right answer.
pub(super) fn serving(seed: u64) -> Option<(Stage, Vec<Vec<u8>>)> {
    let mut stage = Stage::responder_with(seed, server()?);
    let payloads = stage.puppet.init_payloads();
    let mut corpus = vec![stage.puppet.init_request(payloads)];
    let response = stage.give(corpus.first()?);
    stage.puppet.read_init_response(response.first()?)?;
    let mut payloads = stage.puppet.auth_payloads()?;
    payloads.retain(|payload| !matches!(payload, Payload::Auth(_)));
    let mut asked = exchange(&mut stage, &mut corpus, &payloads)?;
    let identity = [&[1], NAME.as_bytes()].concat();
    asked = exchange(&mut stage, &mut corpus, &[respond(&asked, identity)])?;
    let challenge = asked.data.get(6..22)?.try_into().ok()?;
    let theirs = [7; 16];
    let password = Secret::copy_of(PASSWORD);
    let found = MsChapV2::new(&challenge, &theirs, NAME.as_bytes(), &password);
    let value = [&theirs[..], &[0; 8], found.nt_response(), &[0], NAME.as_bytes()].concat();
    let len = u16::try_from(value.len() + 5).ok()?.to_be_bytes();
    let head = [TYPE, 2, asked.identifier, len[0], len[1], 49];
    let payload = respond(&asked, [&head, value.as_slice()].concat());
    corpus.push(stage.puppet.request(ExchangeType::IKE_AUTH, &[payload])?);
    Some((stage, corpus))
}

fn respond(request: &Eap, data: Vec<u8>) -> Payload {
    Payload::Eap(Eap { code: EapCode::RESPONSE, identifier: request.identifier, data })
}

fn exchange(stage: &mut Stage, corpus: &mut Vec<Vec<u8>>, payloads: &[Payload]) -> Option<Eap> {
    let request = stage.puppet.request(ExchangeType::IKE_AUTH, payloads)?;
    let sent = stage.give(&request);
    let inside = stage.puppet.open(sent.first()?)?;
    corpus.push(request);
    corpus.extend(sent);
    eap_of(inside)
}

fn eap_of(payloads: Vec<Payload>) -> Option<Eap> {
    payloads.into_iter().find_map(
        |payload| {
            if let Payload::Eap(eap) = payload { Some(eap) } else { None }
        },
    )
}

/// The client has said its identity; the last datagram asks for the password.
pub(super) fn asking(seed: u64) -> Option<(Stage, Vec<Vec<u8>>)> {
    let (mut stage, request) = Stage::initiator_of(seed, client()?);
    stage.puppet.read_init_request(&request)?;
    let mut corpus = vec![request, stage.puppet.init_response()?];
    let sent = stage.give(corpus.last()?);
    stage.puppet.open(sent.first()?)?;
    corpus.extend(sent);
    let ask = |identifier, data: &[u8]| {
        Payload::Eap(Eap { code: EapCode::REQUEST, identifier, data: data.to_vec() })
    };
    let auth = stage.puppet.auth_by(&key()?)?;
    let payloads = [Payload::IdR(stage.puppet.id.clone()), Payload::Auth(auth), ask(1, &[1])];
    corpus.push(stage.puppet.seal(ExchangeType::IKE_AUTH, true, 1, &payloads)?);
    let sent = stage.give(corpus.last()?);
    eap_of(stage.puppet.open(sent.first()?)?)?;
    corpus.extend(sent);
    // MS-Length counts from the OpCode on: 5, 16 and the name.
    let challenge = [&[TYPE, 1, 2, 0, 23, 16][..], &[5; 16], b"gw"].concat();
    corpus.push(stage.puppet.seal(ExchangeType::IKE_AUTH, true, 2, &[ask(2, &challenge)])?);
    Some((stage, corpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_of(found: Option<(Stage, Vec<Vec<u8>>)>) -> Eap {
        let (mut stage, corpus) = found.expect("a stage");
        let sent = stage.give(corpus.last().expect("a datagram"));
        let inside = stage.puppet.open(sent.first().expect("an answer")).expect("protected");
        eap_of(inside).expect("EAP")
    }

    #[test]
    fn the_last_datagram_of_each_stage_is_taken() {
        // Success of MS-CHAP-V2 for the right password.
        assert_eq!(answer_of(serving(1)).data.get(..2), Some(&[TYPE, 3][..]));
        // A response to the challenge.
        assert_eq!(answer_of(asking(1)).data.get(..2), Some(&[TYPE, 2][..]));
    }
}
