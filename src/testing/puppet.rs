//! [`Puppet`]: a peer that does what a test tells it, and holds every key; [`Stage`]: one endpoint with a puppet before it.
//!
//! It is written with formats, keys and protection alone, without any of the endpoint's exchange logic, so it can send
//! what an endpoint never would: wrong message IDs, forbidden payloads, sealed rubbish.

use core::time::Duration;
use std::sync::Arc;

use super::{FixedRandom, MessageInfo, ModelSad, Violation, VirtualClock, peers};
use crate::crypto::aead::Aead;
use crate::crypto::dh::{KeyPair, respond};
use crate::crypto::sign::{PrivateKey, Scheme, Signer};
use crate::crypto::{Secret, SecureRandom};
use crate::ike::keymat::{IkeKeys, psk_auth, signed_octets};
use crate::ike::proposal::{
    Chosen, Made, accept_ike, answer_child, answer_ike, child_offer, choose_child, choose_ike,
    ike_offer,
};
use crate::ike::protect::{Content, Protector};
use crate::ike::{Command, Endpoint, EndpointConfig, Env, Event};
use crate::ipsec::pad::Peer;
use crate::ipsec::suite::{ChildProposal, IkeProposal, IkeSuite};
use crate::ipsec::{Notice, Path, Spi, TrafficSelector};
use crate::wire::ike::header::{Flags, Header, IkeSpi};
use crate::wire::ike::message::Message;
use crate::wire::ike::numbers::{AuthMethod, ExchangeType, IdType, KeId, NotifyType, PayloadType};
use crate::wire::ike::payload::{Auth, Id, Ke, Nonce, Notify, Payload, Sa, Ts};

/// A peer that does what a test tells it, and holds every key.
pub struct Puppet {
    /// Where its numbers come from.
    pub random: FixedRandom,
    /// What it proves to hold.
    pub psk: Secret,
    /// Who it says it is.
    pub id: Id,
    /// Whether it began the IKE SA.
    pub initiator: bool,
    /// SPI of the original initiator.
    pub spi_i: IkeSpi,
    /// SPI of the original responder.
    pub spi_r: IkeSpi,
    /// Message ID of its next request.
    pub message_id: u32,
    /// The keys, once there are any.
    pub keys: Option<IkeKeys>,
    /// SPI of its inbound ESP SA.
    pub esp_spi: Spi,
    /// What it offers and takes for the IKE SA; with additional key exchanges it says that it has IKE_INTERMEDIATE.
    pub ike_proposal: IkeProposal,
    /// What it offers and takes for CHILD_SAs.
    pub child_proposal: ChildProposal,
    /// Whether its CHILD_SAs are to be in transport mode.
    pub transport: bool,
    /// Selectors of site A and of site B.
    pub selectors: [TrafficSelector; 2],
    /// Whether it says that it takes fragments (RFC 7383).
    pub takes_fragments: bool,
    pair: Option<KeyPair>,
    suite: Option<IkeSuite>,
    chosen: Option<Chosen<IkeSuite>>,
    nonce: Vec<u8>,
    peer_nonce: Vec<u8>,
    init_message: Vec<u8>,
    protect_ours: Option<Protector>,
    protect_theirs: Option<Protector>,
}

impl Puppet {
    /// One that plays site A, and begins.
    #[must_use]
    pub fn initiator(seed: u64) -> Self {
        Self::new(seed, true, b"a.example.net")
    }

    /// One that plays site B, and waits for requests.
    #[must_use]
    pub fn responder(seed: u64) -> Self {
        Self::new(seed, false, b"b.example.net")
    }

    fn new(seed: u64, initiator: bool, id: &[u8]) -> Self {
        let mut random = FixedRandom::new(seed, 77);
        let mut nonce = vec![0; 32];
        random.fill(&mut nonce);
        let (ours, none) = (IkeSpi(random.next_u64() | 1), IkeSpi(0));
        let (spi_i, spi_r) = if initiator { (ours, none) } else { (none, ours) };
        let pair = KeyPair::generate(KeId::CURVE25519, &mut random);
        Self {
            psk: Secret::copy_of(peers::PSK),
            id: Id::new(IdType::ID_FQDN, id.to_vec()),
            initiator,
            spi_i,
            spi_r,
            message_id: 0,
            keys: None,
            esp_spi: fresh_spi(&mut random),
            ike_proposal: peers::ike_proposal(),
            child_proposal: peers::esp_proposal(),
            transport: false,
            selectors: [peers::subnet(1), peers::subnet(2)],
            takes_fragments: true,
            random,
            pair,
            suite: None,
            chosen: None,
            nonce,
            peer_nonce: Vec::new(),
            init_message: Vec::new(),
            protect_ours: None,
            protect_theirs: None,
        }
    }

    /// The payloads of its IKE_SA_INIT request.
    #[must_use]
    pub fn init_payloads(&self) -> Vec<Payload> {
        let mut payloads =
            vec![Payload::Sa(ike_offer(std::slice::from_ref(&self.ike_proposal), None))];
        payloads.extend(self.ke_and_nonce());
        payloads.extend(self.supported());
        payloads
    }

    /// Its IKE_SA_INIT request with these payloads.
    pub fn init_request(&mut self, payloads: Vec<Payload>) -> Vec<u8> {
        let header = self.header(ExchangeType::IKE_SA_INIT, false, 0);
        self.init_message = Message { header, payloads }.emit();
        self.message_id = 1;
        self.init_message.clone()
    }

    /// Reads the response to it and derives the keys. `None` if it does not lead to an IKE SA.
    pub fn read_init_response(&mut self, datagram: &[u8]) -> Option<()> {
        let message = Message::parse(datagram).ok()?;
        self.spi_r = message.header.spi_r;
        let Payload::Sa(sa) = message.payloads.iter().find(|p| matches!(p, Payload::Sa(_)))? else {
            return None;
        };
        self.suite =
            Some(accept_ike(std::slice::from_ref(&self.ike_proposal), sa, self.made())?.suite);
        self.derive(&message.payloads)
    }

    /// Reads an IKE_SA_INIT request and derives the keys.
    pub fn read_init_request(&mut self, datagram: &[u8]) -> Option<()> {
        let message = Message::parse(datagram).ok()?;
        self.spi_i = message.header.spi_i;
        let Payload::Sa(sa) = message.payloads.iter().find(|p| matches!(p, Payload::Sa(_)))? else {
            return None;
        };
        let chosen = choose_ike(std::slice::from_ref(&self.ike_proposal), sa, self.made(), None)?;
        self.suite = Some(chosen.suite);
        self.chosen = Some(chosen);
        self.derive(&message.payloads)
    }

    /// Its IKE_SA_INIT response to what it has read.
    pub fn init_response(&mut self) -> Option<Vec<u8>> {
        self.init_response_with(&[])
    }

    /// The same with more payloads.
    pub fn init_response_with(&mut self, more: &[Payload]) -> Option<Vec<u8>> {
        let mut payloads = vec![Payload::Sa(answer_ike(self.chosen.as_ref()?, None))];
        payloads.extend(self.ke_and_nonce());
        payloads.extend(self.supported());
        payloads.extend_from_slice(more);
        let header = self.header(ExchangeType::IKE_SA_INIT, true, 0);
        self.init_message = Message { header, payloads }.emit();
        Some(self.init_message.clone())
    }

    /// The payloads of its IKE_AUTH request: IDi, AUTH, SA, TSi, TSr.
    pub fn auth_payloads(&mut self) -> Option<Vec<Payload>> {
        let mut payloads = vec![Payload::IdI(self.id.clone()), Payload::Auth(self.auth()?)];
        payloads.extend(self.child_offer());
        Some(payloads)
    }

    /// What offers a CHILD_SA as site A would: SA, TSi, TSr, without nonce.
    #[must_use]
    pub fn child_offer(&self) -> Vec<Payload> {
        self.child_payloads(child_offer(
            std::slice::from_ref(&self.child_proposal),
            self.esp_spi,
            false,
        ))
    }

    /// The same with a key exchange, as CREATE_CHILD_SA may have it, and a nonce.
    pub fn child_offer_with_ke(&mut self) -> Vec<Payload> {
        let sa = child_offer(std::slice::from_ref(&self.child_proposal), self.esp_spi, true);
        let mut payloads = self.child_payloads(sa);
        let [ke, _] = self.ke_and_nonce();
        payloads.extend([ke, self.fresh_nonce()]);
        payloads
    }

    /// SA, TSi, TSr, and USE_TRANSPORT_MODE if that is wanted.
    fn child_payloads(&self, sa: Sa) -> Vec<Payload> {
        let [site_a, site_b] = self.selectors;
        let mut payloads =
            vec![Payload::Sa(sa), Payload::TsI(ts(site_a)), Payload::TsR(ts(site_b))];
        if self.transport {
            payloads.push(Payload::Notify(Notify::new(NotifyType::USE_TRANSPORT_MODE, [])));
        }
        payloads
    }

    /// The payloads of its IKE_AUTH response to `request`: IDr, AUTH, SA, TSi, TSr.
    pub fn auth_response_payloads(&mut self, request: &[Payload]) -> Option<Vec<Payload>> {
        let mut payloads = vec![Payload::IdR(self.id.clone()), Payload::Auth(self.auth()?)];
        payloads.extend(self.child_answer(request)?);
        Some(payloads)
    }

    /// What takes an offered CHILD_SA, with its key exchanges, as CREATE_CHILD_SA has it: SA, Nr, KEr, TSi, TSr, and a link for
    /// IKE_FOLLOWUP_KE. Of each transform type the offer is to have one.
    #[must_use]
    pub fn additional_answer(&mut self, request: &[Payload]) -> Option<Vec<Payload>> {
        let mut answer = Vec::new();
        for payload in request {
            if let Payload::Sa(sa) = payload {
                let mut sa = sa.clone();
                sa.proposals.truncate(1);
                sa.proposals.first_mut()?.spi = fresh_spi(&mut self.random).to_be_bytes().to_vec();
                answer.push(Payload::Sa(sa));
            } else if let Payload::Ke(ke) = payload {
                let response = respond(ke.group, &ke.data, &mut self.random)?.ok()?;
                answer.push(Payload::Ke(Ke { group: ke.group, data: response.public }));
            } else if matches!(payload, Payload::Nonce(_)) {
                answer.push(self.fresh_nonce());
            } else if matches!(payload, Payload::TsI(_) | Payload::TsR(_)) {
                answer.push(payload.clone());
            }
        }
        let link = Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, [1, 2, 3, 4]);
        answer.push(Payload::Notify(link));
        Some(answer)
    }

    /// What takes an offered CHILD_SA as site B would: SA, TSi, TSr.
    #[must_use]
    pub fn child_answer(&self, request: &[Payload]) -> Option<Vec<Payload>> {
        let Payload::Sa(sa) = request.iter().find(|p| matches!(p, Payload::Sa(_)))? else {
            return None;
        };
        let chosen = choose_child(std::slice::from_ref(&self.child_proposal), sa, false, None)?;
        Some(self.child_payloads(answer_child(&chosen, self.esp_spi)))
    }

    /// The AUTH payload that proves its PSK (RFC 7296 §2.15).
    #[must_use]
    pub fn auth(&self) -> Option<Auth> {
        let keys = self.keys.as_ref()?;
        let sk_p = if self.initiator { &keys.sk_pi } else { &keys.sk_pr };
        let prf = self.suite?.prf;
        let id = self.id.body();
        let data = psk_auth(prf, &self.psk, &self.init_message, &self.peer_nonce, sk_p, &id, &[])?;
        Some(Auth { method: AuthMethod::SHARED_KEY_MIC, data: data.expose().to_vec() })
    }

    /// An AUTH payload that is a signature by this key, which is of Ed25519 (RFC 7427, RFC 8420).
    #[must_use]
    pub fn auth_by(&mut self, key: &PrivateKey) -> Option<Auth> {
        let keys = self.keys.as_ref()?;
        let sk_p = if self.initiator { &keys.sk_pi } else { &keys.sk_pr };
        let (prf, id) = (self.suite?.prf, self.id.body());
        let octets = signed_octets(prf, &self.init_message, &self.peer_nonce, sk_p, &id, &[])?;
        let signature = key.sign(&mut self.random, Scheme::Ed25519, &octets).ok()?;
        let identifier = Scheme::Ed25519.algorithm_identifier()?;
        let len = u8::try_from(identifier.len()).ok()?;
        let data = [&[len], identifier.as_slice(), &signature].concat();
        Some(Auth { method: AuthMethod::DIGITAL_SIGNATURE, data })
    }

    /// Its next request in the IKE SA.
    pub fn request(&mut self, exchange: ExchangeType, payloads: &[Payload]) -> Option<Vec<u8>> {
        let message_id = self.message_id;
        self.message_id += 1;
        self.seal(exchange, false, message_id, payloads)
    }

    /// A message in the IKE SA with any message ID.
    pub fn seal(
        &mut self,
        exchange: ExchangeType,
        response: bool,
        message_id: u32,
        payloads: &[Payload],
    ) -> Option<Vec<u8>> {
        let header = self.header(exchange, response, message_id);
        self.seal_with(header, payloads)
    }

    /// A message with any header, sealed with the keys of the IKE SA.
    pub fn seal_with(&mut self, header: Header, payloads: &[Payload]) -> Option<Vec<u8>> {
        Some(self.protect_ours.as_ref()?.seal(header, payloads, &mut self.random))
    }

    /// A message in the IKE SA, in fragments of which each has at most `max_len` bytes.
    pub fn seal_in_fragments(
        &mut self,
        header: Header,
        payloads: &[Payload],
        max_len: usize,
    ) -> Option<Vec<Vec<u8>>> {
        let (content, random) = (Content::of(payloads), &mut self.random);
        Some(self.protect_ours.as_ref()?.seal_to_fit(header, &content, max_len, random))
    }

    /// A message with any header whose SK payload has these very bytes inside, well-formed or not, correctly sealed. `iv`
    /// has to be another each time. AEAD suites alone, which is what it negotiates.
    #[must_use]
    pub fn seal_bytes(
        &self,
        header: Header,
        first: PayloadType,
        inner: &[u8],
        iv: u64,
    ) -> Option<Vec<u8>> {
        self.seal_any_bytes(header, first, None, inner, iv)
    }

    /// The same with an SKF payload of this Fragment Number and Total Fragments.
    #[must_use]
    pub fn seal_fragment_bytes(
        &self,
        header: Header,
        first: PayloadType,
        fragment: (u16, u16),
        inner: &[u8],
        iv: u64,
    ) -> Option<Vec<u8>> {
        self.seal_any_bytes(header, first, Some(fragment), inner, iv)
    }

    fn seal_any_bytes(
        &self,
        header: Header,
        first: PayloadType,
        fragment: Option<(u16, u16)>,
        inner: &[u8],
        iv: u64,
    ) -> Option<Vec<u8>> {
        let keys = self.keys.as_ref()?;
        let key = if self.initiator { &keys.sk_ei } else { &keys.sk_er };
        let aead = Aead::new(self.suite?.encr, key.expose())?;
        // RFC 7296 §3.14: the last byte is Pad Length, here of no padding.
        let mut data = [inner, &[0]].concat();
        let iv = iv.to_be_bytes();
        let numbers: Vec<u8> = fragment
            .map(|(number, total)| [number.to_be_bytes(), total.to_be_bytes()].concat())
            .unwrap_or_default();
        let next_payload = if fragment.is_some() { PayloadType::SKF } else { PayloadType::SK };
        let payload_len = 4 + numbers.len() + iv.len() + data.len() + aead.icv_len();
        let mut sealed = Vec::new();
        let length = u32::try_from(Header::LEN + payload_len).ok()?;
        Header { next_payload, length, ..header }.emit(&mut sealed);
        sealed.extend_from_slice(&[first.0, 0]);
        sealed.extend_from_slice(&u16::try_from(payload_len).ok()?.to_be_bytes());
        sealed.extend_from_slice(&numbers);
        let mut icv = vec![0; aead.icv_len()];
        aead.seal(&iv, &sealed, &mut data, &mut icv);
        sealed.extend_from_slice(&iv);
        sealed.extend_from_slice(&data);
        sealed.extend_from_slice(&icv);
        Some(sealed)
    }

    /// The payloads of a message of the other side.
    #[must_use]
    pub fn open(&self, datagram: &[u8]) -> Option<Vec<Payload>> {
        self.protect_theirs.as_ref()?.open(datagram).ok()
    }

    /// Whether it could have sent this itself, in an SK or SKF payload.
    #[must_use]
    pub fn has_sealed(&self, datagram: &[u8]) -> bool {
        self.protect_ours.as_ref().is_some_and(|ours| ours.open_part(datagram).is_ok())
    }

    /// A header of its IKE SA.
    #[must_use]
    pub const fn header(&self, exchange: ExchangeType, response: bool, message_id: u32) -> Header {
        let flags = Flags::new(self.initiator, response);
        Header::new(self.spi_i, self.spi_r, exchange, flags, message_id)
    }

    /// A nonce that it has not used before.
    pub fn fresh_nonce(&mut self) -> Payload {
        let mut data = vec![0; 32];
        self.random.fill(&mut data);
        Payload::Nonce(Nonce { data })
    }

    /// An ESP SPI that it has not used before, kept as its own.
    pub fn fresh_esp_spi(&mut self) -> Spi {
        self.esp_spi = fresh_spi(&mut self.random);
        self.esp_spi
    }

    fn ke_and_nonce(&self) -> [Payload; 2] {
        let data = self.pair.as_ref().map(|pair| pair.public().to_vec()).unwrap_or_default();
        [
            Payload::Ke(Ke { group: KeId::CURVE25519, data }),
            Payload::Nonce(Nonce { data: self.nonce.clone() }),
        ]
    }

    /// The notifies of what it has.
    fn supported(&self) -> Vec<Payload> {
        let mut types = Vec::new();
        if self.takes_fragments {
            types.push(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED);
        }
        if self.has_additional() {
            types.push(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED);
        }
        types.into_iter().map(|kind| Payload::Notify(Notify::new(kind, []))).collect()
    }

    fn has_additional(&self) -> bool {
        self.ike_proposal.addke.iter().any(|methods| !methods.is_empty())
    }

    fn made(&self) -> Made {
        Made::First { intermediate: self.has_additional() }
    }

    /// Moves on to the keys after another key exchange in IKE_INTERMEDIATE (RFC 9370 §2.2.2).
    pub fn next_keys(&mut self, shared: &Secret) -> Option<()> {
        let suite = self.suite?;
        let (nonce_i, nonce_r) = self.nonces();
        let keys =
            self.keys.as_ref()?.next(suite, nonce_i, nonce_r, self.spi_i, self.spi_r, shared)?;
        self.protect_with(suite, keys);
        Some(())
    }

    fn nonces(&self) -> (&[u8], &[u8]) {
        if self.initiator {
            (&self.nonce, &self.peer_nonce)
        } else {
            (&self.peer_nonce, &self.nonce)
        }
    }

    fn protect_with(&mut self, suite: IkeSuite, keys: IkeKeys) {
        let of_i = Protector::new(suite, &keys.sk_ei, &keys.sk_ai);
        let of_r = Protector::new(suite, &keys.sk_er, &keys.sk_ar);
        (self.protect_ours, self.protect_theirs) =
            if self.initiator { (of_i, of_r) } else { (of_r, of_i) };
        self.keys = Some(keys);
    }

    fn derive(&mut self, payloads: &[Payload]) -> Option<()> {
        let suite = self.suite?;
        let mut shared = None;
        for payload in payloads {
            if let Payload::Ke(ke) = payload {
                shared = self.pair.as_ref()?.agree(&ke.data).ok();
            } else if let Payload::Nonce(nonce) = payload {
                self.peer_nonce.clone_from(&nonce.data);
            }
        }
        let (nonce_i, nonce_r) = self.nonces();
        let keys = IkeKeys::derive(suite, nonce_i, nonce_r, self.spi_i, self.spi_r, &shared?)?;
        self.protect_with(suite, keys);
        Some(())
    }
}

/// One endpoint, a [`Puppet`] in the place of its peer, and nothing between them.
pub struct Stage {
    /// The time.
    pub clock: VirtualClock,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its SAD.
    pub sad: ModelSad,
    /// Its events other than those for the SAD.
    pub events: Vec<Event>,
    /// Rules that the endpoint broke.
    pub violations: Vec<Violation>,
    /// The path, as the endpoint sees it.
    pub path: Path,
    /// The peer.
    pub puppet: Puppet,
}

impl Stage {
    /// The endpoint as site B, before it a puppet that can begin.
    #[must_use]
    pub fn responder(seed: u64) -> Self {
        Self::responder_with(seed, peers::site_b())
    }

    /// The endpoint as responder with this peer.
    #[must_use]
    pub fn responder_with(seed: u64, peer: Peer) -> Self {
        let path = peers::path(peers::ADDR_B, peers::ADDR_A);
        Self::new(seed, peer, path, Puppet::initiator(seed), EndpointConfig::default())
    }

    /// The same with an endpoint of this configuration, and site A as its peer.
    #[must_use]
    pub fn responder_with_config(seed: u64, config: EndpointConfig) -> Self {
        let path = peers::path(peers::ADDR_B, peers::ADDR_A);
        Self::new(seed, peers::site_b(), path, Puppet::initiator(seed), config)
    }

    /// The endpoint as site A, before it a puppet that waits. The second value is the endpoint's IKE_SA_INIT.
    #[must_use]
    pub fn initiator(seed: u64) -> (Self, Vec<u8>) {
        Self::initiator_with(seed, EndpointConfig::default())
    }

    /// The same with this peer, which is called `b`.
    #[must_use]
    pub fn initiator_of(seed: u64, peer: Peer) -> (Self, Vec<u8>) {
        Self::initiating(seed, peer, EndpointConfig::default())
    }

    fn initiator_with(seed: u64, config: EndpointConfig) -> (Self, Vec<u8>) {
        Self::initiating(seed, peers::site_a(), config)
    }

    fn initiating(seed: u64, peer: Peer, config: EndpointConfig) -> (Self, Vec<u8>) {
        let path = peers::path(peers::ADDR_A, peers::ADDR_B);
        let mut stage = Self::new(seed, peer, path, Puppet::responder(seed), config);
        let command = Command::Initiate { peer: Arc::from("b"), path };
        let sent = stage.command(command);
        (stage, sent.into_iter().next().unwrap_or_default())
    }

    /// An established IKE SA with a CHILD_SA, the endpoint having been responder. `None` if it does not come to that.
    #[must_use]
    pub fn established_responder(seed: u64) -> Option<Self> {
        let stage = Self::responder(seed).established_by(|_| true)?;
        (!stage.sad.is_empty()).then_some(stage)
    }

    /// The puppet, which begins, goes through the initial exchanges, with those payloads of its IKE_AUTH that are wanted. `None`
    /// if it does not come to an IKE SA.
    #[must_use]
    pub fn established_by(mut self, wanted: fn(&Payload) -> bool) -> Option<Self> {
        let payloads = self.puppet.init_payloads();
        let request = self.puppet.init_request(payloads);
        let response = self.give(&request);
        self.puppet.read_init_response(response.first()?)?;
        let mut payloads = self.puppet.auth_payloads()?;
        payloads.retain(wanted);
        let request = self.puppet.request(ExchangeType::IKE_AUTH, &payloads)?;
        let response = self.give(&request);
        self.puppet.open(response.first()?)?;
        (self.ike_sas() == 1).then_some(self)
    }

    /// An established IKE SA with a CHILD_SA, the endpoint having been initiator. `None` if it does not come to that.
    #[must_use]
    pub fn established_initiator(seed: u64) -> Option<Self> {
        Self::established_initiator_with(seed, EndpointConfig::default())
    }

    /// The same with an endpoint of this configuration.
    #[must_use]
    pub fn established_initiator_with(seed: u64, config: EndpointConfig) -> Option<Self> {
        let (mut stage, request) = Self::initiator_with(seed, config);
        stage.puppet.read_init_request(&request)?;
        let response = stage.puppet.init_response()?;
        let request = stage.give(&response);
        let request = stage.puppet.open(request.first()?)?;
        let payloads = stage.puppet.auth_response_payloads(&request)?;
        let response = stage.puppet.seal(ExchangeType::IKE_AUTH, true, 1, &payloads)?;
        let _ = stage.give(&response);
        (!stage.sad.is_empty()).then_some(stage)
    }

    fn new(seed: u64, peer: Peer, path: Path, puppet: Puppet, config: EndpointConfig) -> Self {
        let env =
            Env { rng: Box::new(FixedRandom::new(seed, 0)), wall_clock: Arc::new(peers::Today) };
        let mut stage = Self {
            clock: VirtualClock::new(),
            endpoint: Endpoint::new(config, env),
            sad: ModelSad::default(),
            events: Vec::new(),
            violations: Vec::new(),
            path,
            puppet,
        };
        let sent = stage.command(Command::AddPeer(Arc::new(peer)));
        debug_assert!(sent.is_empty(), "a new peer sends nothing");
        stage
    }

    /// Gives the endpoint a datagram; what it sends comes back.
    pub fn give(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.give_from(self.path, datagram)
    }

    /// Gives the endpoint a datagram that came on this path; what it sends comes back.
    pub fn give_from(&mut self, path: Path, datagram: &[u8]) -> Vec<Vec<u8>> {
        self.endpoint.handle_datagram(self.clock.now(), path, datagram);
        self.drain()
    }

    /// Lets the puppet answer a request of the endpoint with these payloads; what the endpoint sends comes back.
    ///
    /// # Panics
    ///
    /// If there is no IKE SA, or `request` is none.
    pub fn answer(&mut self, request: &[u8], payloads: &[Payload]) -> Vec<Vec<u8>> {
        let info = MessageInfo::of(request).filter(|info| !info.response).expect("a request");
        let response = self.puppet.seal(info.exchange, true, info.message_id, payloads);
        self.give(&response.expect("there are keys"))
    }

    /// Gives the endpoint a notice of its datapath; what it sends comes back.
    pub fn notice(&mut self, notice: Notice) -> Vec<Vec<u8>> {
        self.endpoint.handle_notice(self.clock.now(), notice);
        self.drain()
    }

    /// Gives a command, which is to be taken; what the endpoint sends comes back.
    pub fn command(&mut self, command: Command) -> Vec<Vec<u8>> {
        if let Err(error) = self.endpoint.handle_command(self.clock.now(), command) {
            self.violations.push(Violation(format!("command refused: {error}")));
        }
        self.drain()
    }

    /// Lets time pass; what the endpoint sends comes back.
    pub fn pass_time(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let end = self.clock.elapsed() + time;
        let mut sent = Vec::new();
        // Bounded: a timer that is due again and again would hang the test.
        for _ in 0..100_000 {
            let due = self.endpoint.poll_timeout().map(|(at, _)| self.clock.since_start(at));
            let Some(due) = due.filter(|due| *due <= end) else {
                self.clock.advance_to(end);
                return sent;
            };
            self.clock.advance_to(due);
            self.endpoint.handle_timeout(self.clock.now());
            sent.extend(self.drain());
        }
        self.violations.push(Violation("a timer is due again and again".to_owned()));
        sent
    }

    /// Number of the endpoint's IKE SAs as responder whose initiator is not authenticated.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.endpoint.half_open()
    }

    /// Number of the endpoint's IKE SAs in any other state.
    #[must_use]
    pub fn ike_sas(&self) -> usize {
        self.endpoint.status(self.clock.now()).len()
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            if let Some(transmit) = self.endpoint.poll_transmit() {
                sent.push(transmit.payload);
                continue;
            }
            let Some(event) = self.endpoint.poll_event() else { return sent };
            if let Event::Sad(update) = event {
                if let Err(violation) = self.sad.apply(update) {
                    self.violations.push(violation);
                }
            } else {
                self.events.push(event);
            }
        }
    }
}

fn fresh_spi(random: &mut FixedRandom) -> Spi {
    let [a, b, c, d, ..] = random.next_u64().to_be_bytes();
    // The highest bit keeps it out of the reserved range.
    Spi::new(u32::from_be_bytes([a | 0x80, b, c, d])).expect("not a reserved SPI")
}

fn ts(selector: TrafficSelector) -> Ts {
    Ts { selectors: vec![selector] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Puppet, Puppet) {
        let (mut a, mut b) = (Puppet::initiator(1), Puppet::responder(2));
        let payloads = a.init_payloads();
        let request = a.init_request(payloads);
        b.read_init_request(&request).unwrap();
        let response = b.init_response().unwrap();
        a.read_init_response(&response).unwrap();
        (a, b)
    }

    #[test]
    fn two_puppets_understand_each_other() {
        let (mut a, mut b) = two();
        let payloads = a.auth_payloads().unwrap();
        let request = a.request(ExchangeType::IKE_AUTH, &payloads).unwrap();
        let read = b.open(&request).unwrap();
        assert_eq!(read, payloads);
        let payloads = b.auth_response_payloads(&read).unwrap();
        let response = b.seal(ExchangeType::IKE_AUTH, true, 1, &payloads).unwrap();
        assert_eq!(a.open(&response).unwrap(), payloads);
    }

    #[test]
    fn bytes_sealed_by_hand_are_opened_like_a_message() {
        let (a, b) = two();
        let notify = Payload::Notify(Notify::new(NotifyType::INITIAL_CONTACT, []));
        let header = a.header(ExchangeType::INFORMATIONAL, false, 2);
        let sealed = a.seal_bytes(header, PayloadType::NOTIFY, &[0, 0, 0, 8, 0, 0, 64, 0], 1);
        assert_eq!(b.open(&sealed.unwrap()), Some(vec![notify]));
    }
}
