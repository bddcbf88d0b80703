//! A post-quantum preshared key where the initiator proves itself by EAP (RFC 8784 §3): it is named where AUTH is, in the last request,
//! and the responder's first AUTH goes without it. Each end before a puppet that has no RFC 9867.

use ipsecd::crypto::Secret;
use ipsecd::crypto::mschapv2::MsChapV2;
use ipsecd::crypto::sign::PrivateKey;
use ipsecd::ike::keymat::{IkeKeys, psk_auth};
use ipsecd::ipsec::pad::{Peer, Ppk};
use ipsecd::testing::Stage;
use ipsecd::wire::ike::eap::{Eap, EapCode};
use ipsecd::wire::ike::message::Message;
use ipsecd::wire::ike::numbers::{AuthMethod, NotifyType, PrfId};
use ipsecd::wire::ike::payload::{Auth, Notify, Payload, Vendor};

use crate::cert::known;
use crate::eap::{MSCHAPV2, file, sites};
use crate::support::*;

const PRF: PrfId = PrfId::PRF_HMAC_SHA2_256;
const KEY: &[u8] = b"a key for after the quantum computer";
/// EAP-MSCHAPv2.
const TYPE: u8 = 26;
/// Its operations.
const CHALLENGE: u8 = 1;
const RESPONSE_TO_IT: u8 = 2;
const SUCCESS: u8 = 3;

fn ppk(required: bool) -> Ppk {
    Ppk { id: b"a-b".to_vec(), key: Secret::copy_of(KEY), required }
}

fn notify(notify_type: NotifyType, data: &[u8]) -> Payload {
    Payload::Notify(Notify::new(notify_type, data))
}

fn data_of(payloads: &[Payload], wanted: NotifyType) -> Option<Vec<u8>> {
    payloads.iter().find_map(|payload| {
        let Payload::Notify(notify) = payload else { return None };
        (notify.notify_type == wanted).then(|| notify.data.clone())
    })
}

fn auth_of(payloads: &[Payload]) -> Option<Vec<u8>> {
    payloads.iter().find_map(|payload| {
        if let Payload::Auth(auth) = payload { Some(auth.data.clone()) } else { None }
    })
}

fn eap_of(payloads: &[Payload]) -> Eap {
    let found = payloads
        .iter()
        .find_map(|payload| if let Payload::Eap(eap) = payload { Some(eap.clone()) } else { None });
    found.unwrap_or_else(|| panic!("{payloads:?}"))
}

fn nonce_of(payloads: &[Payload]) -> Vec<u8> {
    let found = payloads.iter().find_map(|payload| {
        if let Payload::Nonce(nonce) = payload { Some(nonce.data.clone()) } else { None }
    });
    found.unwrap()
}

fn id_of(payloads: &[Payload]) -> Vec<u8> {
    let found = payloads.iter().find_map(|payload| {
        if let Payload::IdI(id) | Payload::IdR(id) = payload { Some(id.body()) } else { None }
    });
    found.unwrap()
}

/// An EAP-MSCHAPv2 packet with its head, whose length counts from the operation on.
fn packet(operation: u8, id: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(4 + value.len()).unwrap().to_be_bytes();
    [&[TYPE, operation, id, high, low], value].concat()
}

fn uses_ppk(stage: &Stage) -> bool {
    stage.endpoint.status(stage.clock.now()).first().is_some_and(|sa| sa.ppk)
}

// The endpoint as responder.

struct Served {
    stage: Stage,
    init: Vec<u8>,
    nonce_i: Vec<u8>,
    first: Vec<Payload>,
    msk: Secret,
    keys: IkeKeys,
}

/// EAP is over, and the last request is to come.
fn served(configured: Option<Ppk>) -> Served {
    let (_, mut b) = sites(&MSCHAPV2, &MSCHAPV2);
    b.ppk = configured;
    let mut stage = Stage::responder_with(7, b);
    let mut payloads = stage.puppet.init_payloads();
    payloads.push(notify(NotifyType::USE_PPK, &[]));
    // Longer than the answer: no more than came goes to an address that is not validated.
    payloads.push(Payload::Vendor(Vendor { data: vec![7; 128] }));
    let nonce_i = nonce_of(&payloads);
    let request = stage.puppet.init_request(payloads);
    let init = stage.give(&request).remove(0);
    stage.puppet.read_init_response(&init).unwrap();
    let keys = stage.puppet.keys.clone().unwrap();
    let mut payloads = stage.puppet.auth_payloads().unwrap();
    payloads.retain(|payload| !matches!(payload, Payload::Auth(_)));
    let first = ask(&mut stage, &payloads);
    let asked = respond(&mut stage, &eap_of(&first), [&[1], &b"joe"[..]].concat());
    let challenge: [u8; 16] = asked.data[6..22].try_into().unwrap();
    let ours = [7; 16];
    let found = MsChapV2::new(&challenge, &ours, b"joe", &Secret::copy_of(b"pass"));
    let value = [&[49], &ours[..], &[0; 8], found.nt_response(), &[0], b"joe"].concat();
    let id = asked.data[2];
    let good = respond(&mut stage, &asked, packet(RESPONSE_TO_IT, id, &value));
    assert_eq!(good.data[..2], [TYPE, SUCCESS]);
    let over = respond(&mut stage, &good, vec![TYPE, SUCCESS]);
    assert_eq!(over.code, EapCode::SUCCESS);
    Served { stage, init, nonce_i, first, msk: found.msk(), keys }
}

fn ask(stage: &mut Stage, payloads: &[Payload]) -> Vec<Payload> {
    let request = stage.puppet.request(IKE_AUTH, payloads).unwrap();
    let sent = stage.give(&request);
    stage.puppet.open(sent.first().unwrap()).unwrap()
}

fn respond(stage: &mut Stage, to: &Eap, data: Vec<u8>) -> Eap {
    let eap = Eap { code: EapCode::RESPONSE, identifier: to.identifier, data };
    eap_of(&ask(stage, &[Payload::Eap(eap)]))
}

impl Served {
    /// AUTH of the puppet by the MSK and these keys.
    fn auth(&mut self, keys: &IkeKeys) -> Auth {
        self.stage.puppet.psk = self.msk.clone();
        self.stage.puppet.keys = Some(keys.clone());
        let auth = self.stage.puppet.auth().unwrap();
        self.stage.puppet.keys = Some(self.keys.clone());
        auth
    }

    fn mixed(&self, key: &[u8]) -> IkeKeys {
        self.keys.with_ppk(PRF, &Secret::copy_of(key)).unwrap()
    }

    /// The responder's AUTH in the last answer, as it is with these keys.
    fn expected(&self, keys: &IkeKeys) -> Vec<u8> {
        let id = id_of(&self.first);
        let auth = psk_auth(PRF, &self.msk, &self.init, &self.nonce_i, &keys.sk_pr, &id, &[]);
        auth.unwrap().expose().to_vec()
    }
}

const NAMED: &[u8] = b"\x02a-b";

#[test]
fn the_responder_takes_the_ppk_from_the_last_request() {
    for required in [false, true] {
        let mut served = served(Some(ppk(required)));
        // <-- IKE_AUTH { IDr, CERT, AUTH by SK_pr without the PPK, EAP }: it is not named yet.
        assert!(auth_of(&served.first).is_some());
        assert_eq!(data_of(&served.first, NotifyType::PPK_IDENTITY), None);
        // IKE_AUTH { AUTH, N(PPK_IDENTITY) } -->
        let mixed = served.mixed(KEY);
        let auth = Payload::Auth(served.auth(&mixed));
        let answer = ask(&mut served.stage, &[auth, notify(NotifyType::PPK_IDENTITY, NAMED)]);
        assert_eq!(data_of(&answer, NotifyType::PPK_IDENTITY), Some(Vec::new()));
        assert_eq!(auth_of(&answer).unwrap(), served.expected(&mixed));
        assert!(uses_ppk(&served.stage) && !served.stage.sad.is_empty());
    }
}

#[test]
fn the_responder_goes_on_without_it_only_if_both_sides_can() {
    for (configured, plain, up) in
        [(ppk(false), true, true), (ppk(false), false, false), (ppk(true), true, false)]
    {
        let mut served = served(Some(Ppk { id: b"other".to_vec(), ..configured }));
        let (mixed, keys) = (served.mixed(KEY), served.keys.clone());
        let auth = Payload::Auth(served.auth(&mixed));
        let mut payloads = vec![auth, notify(NotifyType::PPK_IDENTITY, NAMED)];
        if plain {
            let data = served.auth(&keys).data;
            payloads.push(notify(NotifyType::NO_PPK_AUTH, &data));
        }
        let answer = ask(&mut served.stage, &payloads);
        assert_eq!(data_of(&answer, NotifyType::PPK_IDENTITY), None);
        assert_eq!(!served.stage.sad.is_empty(), up, "{answer:?}");
        assert!(!uses_ppk(&served.stage));
        let refused = data_of(&answer, NotifyType::AUTHENTICATION_FAILED).is_some();
        assert_eq!(refused, !up);
        if up {
            assert_eq!(auth_of(&answer).unwrap(), served.expected(&keys));
        }
    }
}

#[test]
fn the_responder_refuses_another_key_and_one_without_a_name() {
    for (key, named) in [(&b"another key altogether"[..], true), (KEY, false)] {
        let mut served = served(Some(ppk(false)));
        let mixed = served.mixed(key);
        let mut payloads = vec![Payload::Auth(served.auth(&mixed))];
        if named {
            payloads.push(notify(NotifyType::PPK_IDENTITY, NAMED));
        }
        let answer = ask(&mut served.stage, &payloads);
        assert!(data_of(&answer, NotifyType::AUTHENTICATION_FAILED).is_some(), "{answer:?}");
        assert!(served.stage.sad.is_empty());
    }
}

// The endpoint as initiator.

fn client(required: bool) -> Peer {
    let (mut a, _) = sites(&MSCHAPV2, &MSCHAPV2);
    a.auth.peer = known(&["b-ed25519"]);
    a.ppk = Some(ppk(required));
    a
}

fn request(identifier: u8, data: Vec<u8>) -> Payload {
    Payload::Eap(Eap { code: EapCode::REQUEST, identifier, data })
}

/// The last request, and what is in it; the MSK.
fn last_of(stage: &mut Stage, init: &[u8], required: bool) -> (Vec<u8>, Vec<Payload>, Secret) {
    let response = stage.puppet.init_response_with(&[notify(NotifyType::USE_PPK, &[])]).unwrap();
    let first = stage.give(&response).remove(0);
    let inside = stage.puppet.open(&first).unwrap();
    // IKE_AUTH { IDi, SA, TSi, TSr } -->: no AUTH, and so no PPK.
    assert!(auth_of(&inside).is_none());
    assert_eq!(data_of(&inside, NotifyType::PPK_IDENTITY), None);
    let id_i = id_of(&inside);
    let key = PrivateKey::from_pem(&file("b-ed25519.key"), None).unwrap();
    let auth = stage.puppet.auth_by(&key).unwrap();
    let proof = [Payload::IdR(stage.puppet.id.clone()), Payload::Auth(auth), request(1, vec![1])];
    let said = stage.answer(&first, &proof).remove(0);
    let challenge = [5; 16];
    let value = [&[16], &challenge[..], b"gw"].concat();
    let asked = stage.answer(&said, &[request(2, packet(CHALLENGE, 2, &value))]).remove(0);
    let response_to_it = eap_of(&stage.puppet.open(&asked).unwrap()).data;
    let theirs: [u8; 16] = response_to_it[6..22].try_into().unwrap();
    let found = MsChapV2::new(&challenge, &theirs, b"joe", &Secret::copy_of(b"pass"));
    let proof: String =
        found.authenticator_response().iter().map(|byte| format!("{byte:02X}")).collect();
    let good = packet(SUCCESS, 2, format!("S={proof} M=ok").as_bytes());
    let confirmed = stage.answer(&asked, &[request(3, good)]).remove(0);
    let over = Eap { code: EapCode::SUCCESS, identifier: 3, data: Vec::new() };
    let last = stage.answer(&confirmed, &[Payload::Eap(over)]).remove(0);
    let inside_last = stage.puppet.open(&last).unwrap();
    // IKE_AUTH { AUTH by SK_pi with the PPK, N(PPK_IDENTITY), [N(NO_PPK_AUTH)] } -->
    let keys = stage.puppet.keys.clone().unwrap();
    let nonce_r = nonce_of(&Message::parse(&response).unwrap().payloads);
    let by = |sk_p: &Secret| {
        let auth = psk_auth(PRF, &found.msk(), init, &nonce_r, sk_p, &id_i, &[]);
        auth.unwrap().expose().to_vec()
    };
    let mixed = keys.with_ppk(PRF, &Secret::copy_of(KEY)).unwrap();
    assert_eq!(auth_of(&inside_last).unwrap(), by(&mixed.sk_pi));
    assert_eq!(data_of(&inside_last, NotifyType::PPK_IDENTITY).as_deref(), Some(NAMED));
    let plain = data_of(&inside_last, NotifyType::NO_PPK_AUTH);
    assert_eq!(plain, (!required).then(|| by(&keys.sk_pi)));
    (last, inside, found.msk())
}

#[test]
fn the_initiator_names_the_ppk_in_its_last_request() {
    for (required, used, up) in
        [(true, true, true), (false, true, true), (false, false, true), (true, false, false)]
    {
        let (mut stage, init) = Stage::initiator_of(1, client(required));
        stage.puppet.read_init_request(&init).unwrap();
        let (last, first, msk) = last_of(&mut stage, &init, required);
        let keys = stage.puppet.keys.clone().unwrap();
        let mixed = keys.with_ppk(PRF, &Secret::copy_of(KEY)).unwrap();
        stage.puppet.psk = msk;
        stage.puppet.keys = Some(if used { mixed } else { keys.clone() });
        let auth = stage.puppet.auth().unwrap();
        assert_eq!(auth.method, AuthMethod::SHARED_KEY_MIC);
        let mut answer = vec![Payload::Auth(auth)];
        answer.extend(stage.puppet.child_answer(&first).unwrap());
        if used {
            answer.push(notify(NotifyType::PPK_IDENTITY, &[]));
        }
        stage.puppet.keys = Some(keys);
        stage.answer(&last, &answer);
        assert_eq!(!stage.sad.is_empty(), up, "{required} {used}");
        assert_eq!(uses_ppk(&stage), used);
    }
}
