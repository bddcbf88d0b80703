//! [`Server`]: our side of EAP, as responder.

use core::time::Duration;
use std::sync::Arc;

use super::tls::{TlsMethod, TlsStep};
use super::{EapFault, EapType, UserName, mschapv2};
use crate::crypto::{Secret, SecureRandom};
use crate::ike::limits;
use crate::ipsec::pad::{Credential, EapMethod, EapServer, Identity};
use crate::wire::ike::eap::{Eap, EapCode};

/// Our side of EAP, as responder.
pub(in crate::ike) struct Server {
    setup: Arc<EapServer>,
    /// Our certificate, for EAP-TLS.
    credential: Option<Credential>,
    /// Who the initiator says to be, and whether the configuration says the same.
    claimed: Identity,
    is_fixed: bool,
    now: Duration,
    identifier: u8,
    state: State,
    /// Methods that the peer has declined.
    declined: Vec<EapMethod>,
    user: UserName,
    rounds: usize,
}

enum State {
    Identity,
    MsChapV2(mschapv2::Authenticator),
    Tls(Box<TlsMethod>),
    Over,
}

/// What comes of a message.
pub(in crate::ike) enum ServerStep {
    /// This goes back, and more is to come.
    Request(Eap),
    /// The peer is authenticated: EAP-Success goes back.
    Succeeded {
        /// What goes back.
        success: Eap,
        /// The MSK.
        msk: Secret,
        /// Whom the method has authenticated.
        user: UserName,
    },
    /// The peer is not: EAP-Failure goes back.
    Failed(Eap, EapFault),
}

impl Server {
    /// Begins with a request for the identity, which is the second value. `now` is the time since 1970.
    pub(in crate::ike) fn begin(
        setup: Arc<EapServer>,
        credential: Option<Credential>,
        claimed: Identity,
        is_fixed: bool,
        now: Duration,
        rng: &mut dyn SecureRandom,
    ) -> (Self, Eap) {
        let mut identifier = [0];
        rng.fill(&mut identifier);
        let mut server = Self {
            setup,
            credential,
            claimed,
            is_fixed,
            now,
            identifier: identifier[0],
            state: State::Identity,
            declined: Vec::new(),
            user: UserName(Vec::new()),
            rounds: 0,
        };
        let request = server.request(EapType::IDENTITY, &[]);
        (server, request)
    }

    /// A message of the peer.
    pub(in crate::ike) fn handle(
        &mut self,
        message: &Eap,
        rng: &mut dyn SecureRandom,
    ) -> ServerStep {
        match self.step(message, rng) {
            Ok(step) => step,
            Err(fault) => {
                self.state = State::Over;
                let identifier = self.identifier;
                let failure = Eap { code: EapCode::FAILURE, identifier, data: Vec::new() };
                ServerStep::Failed(failure, fault)
            }
        }
    }

    fn step(&mut self, message: &Eap, rng: &mut dyn SecureRandom) -> Result<ServerStep, EapFault> {
        self.rounds += 1;
        if self.rounds > limits::MAX_EAP_ROUNDS {
            return Err(EapFault::TooMany);
        }
        if message.code != EapCode::RESPONSE || message.identifier != self.identifier {
            return Err(EapFault::Malformed("it answered what was not asked"));
        }
        let (eap_type, data) = message.data.split_first().ok_or(EapFault::Malformed("no type"))?;
        let eap_type = EapType(*eap_type);
        match core::mem::replace(&mut self.state, State::Over) {
            State::Identity if eap_type == EapType::IDENTITY => {
                self.user = UserName::new(data).ok_or(EapFault::Malformed("a long identity"))?;
                self.next_method(&[], rng)
            }
            State::MsChapV2(_) | State::Tls(_) if eap_type == EapType::NAK => {
                self.next_method(data, rng)
            }
            State::MsChapV2(mut method) if eap_type == EapType::MSCHAPV2 => {
                match method.handle(data, &self.setup.users, self.identifier.wrapping_add(1))? {
                    mschapv2::Verdict::Ask(data) => {
                        self.state = State::MsChapV2(method);
                        Ok(ServerStep::Request(self.request(EapType::MSCHAPV2, &data)))
                    }
                    mschapv2::Verdict::Good { msk, user } => Ok(self.success(msk, user)),
                }
            }
            State::Tls(mut method) if eap_type == EapType::TLS => match method.handle(data)? {
                TlsStep::Send(data) => {
                    self.state = State::Tls(method);
                    Ok(ServerStep::Request(self.request(EapType::TLS, &data)))
                }
                TlsStep::Over => {
                    let msk = method.msk().ok_or(EapFault::Malformed("the end before the end"))?;
                    // Whom the certificate names: the EAP identity if it does, else what was said in IDi.
                    let said = identities(&self.user);
                    let user = if method.is_named(&said) {
                        self.user.clone()
                    } else {
                        UserName(self.claimed.to_string().into_bytes())
                    };
                    Ok(self.success(msk, user))
                }
            },
            State::Identity | State::MsChapV2(_) | State::Tls(_) | State::Over => {
                Err(EapFault::Malformed("it answered what was not asked"))
            }
        }
    }

    /// Begins the first of our methods that the peer has not declined, and that is among those that it would rather have.
    fn next_method(
        &mut self,
        wanted: &[u8],
        rng: &mut dyn SecureRandom,
    ) -> Result<ServerStep, EapFault> {
        let is_open = |method: &EapMethod| {
            !self.declined.contains(method)
                && (wanted.is_empty() || wanted.contains(&EapType::of(*method).0))
        };
        let method = self.setup.methods.iter().copied().find(is_open).ok_or(EapFault::Method)?;
        // Each is offered once.
        self.declined.push(method);
        let data = match method {
            EapMethod::MsChapV2 => {
                let id = self.identifier.wrapping_add(1);
                let (method, data) = mschapv2::Authenticator::begin(id, rng);
                self.state = State::MsChapV2(method);
                data
            }
            EapMethod::Tls => {
                let credential = self.credential.as_ref();
                let credential = credential.ok_or(EapFault::Setup("certificate"))?;
                let authority = self.setup.authority.clone().ok_or(EapFault::Setup("CA"))?;
                let mut names = vec![self.claimed.clone()];
                if !self.is_fixed {
                    names.extend(identities(&self.user));
                }
                let method = TlsMethod::server(credential, authority, names, self.now)?;
                self.state = State::Tls(Box::new(method));
                TlsMethod::START.to_vec()
            }
        };
        Ok(ServerStep::Request(self.request(EapType::of(method), &data)))
    }

    fn request(&mut self, eap_type: EapType, data: &[u8]) -> Eap {
        self.identifier = self.identifier.wrapping_add(1);
        let data = [&[eap_type.0], data].concat();
        Eap { code: EapCode::REQUEST, identifier: self.identifier, data }
    }

    fn success(&self, msk: Secret, user: UserName) -> ServerStep {
        // RFC 3748 §4.2: the identifier is that of the response which it answers.
        let identifier = self.identifier;
        let success = Eap { code: EapCode::SUCCESS, identifier, data: Vec::new() };
        ServerStep::Succeeded { success, msk, user }
    }
}

/// An EAP identity as what a certificate may name.
fn identities(user: &UserName) -> Vec<Identity> {
    let Ok(text) = core::str::from_utf8(user.as_bytes()) else { return Vec::new() };
    if text.is_empty() {
        return Vec::new();
    }
    vec![if text.contains('@') {
        Identity::Email(text.to_owned())
    } else {
        Identity::Fqdn(text.to_owned())
    }]
}
