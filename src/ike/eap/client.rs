//! [`Client`]: our side of EAP, as initiator.

use core::time::Duration;
use std::sync::Arc;

use tracing::info;

use super::tls::{TlsMethod, TlsStep};
use super::{EapFault, EapType, mschapv2};
use crate::crypto::{Secret, SecureRandom};
use crate::ike::limits;
use crate::ipsec::pad::{Authority, EapClient, EapMethod, Identity};
use crate::wire::ike::eap::{Eap, EapCode};

/// Our side of EAP, as initiator.
pub(in crate::ike) struct Client {
    setup: Arc<EapClient>,
    /// Whose certificates the server of EAP-TLS may have.
    authority: Option<Arc<Authority>>,
    /// Who the peer has proved to be in IKE, which the server has to be, too.
    server: Identity,
    now: Duration,
    method: Option<Method>,
    rounds: usize,
}

enum Method {
    MsChapV2(mschapv2::Peer),
    Tls(Box<TlsMethod>),
}

/// What comes of a message.
pub(in crate::ike) enum ClientStep {
    /// This goes back.
    Respond(Eap),
    /// We are authenticated, and this is the MSK.
    Succeeded(Secret),
}

impl Client {
    /// Begins; `now` is the time since 1970.
    pub(in crate::ike) fn new(
        setup: Arc<EapClient>,
        authority: Option<Arc<Authority>>,
        server: Identity,
        now: Duration,
    ) -> Self {
        Self { setup, authority, server, now, method: None, rounds: 0 }
    }

    /// A message of the server.
    pub(in crate::ike) fn handle(
        &mut self,
        message: &Eap,
        rng: &mut dyn SecureRandom,
    ) -> Result<ClientStep, EapFault> {
        self.rounds += 1;
        if self.rounds > limits::MAX_EAP_ROUNDS {
            return Err(EapFault::TooMany);
        }
        match message.code {
            EapCode::REQUEST => {
                let data = self.respond(&message.data, rng)?;
                let identifier = message.identifier;
                Ok(ClientStep::Respond(Eap { code: EapCode::RESPONSE, identifier, data }))
            }
            EapCode::SUCCESS => {
                let msk = match &mut self.method {
                    Some(Method::MsChapV2(peer)) => peer.msk(),
                    Some(Method::Tls(tls)) => tls.msk(),
                    None => None,
                };
                // Nothing protects this message: the method itself has to have come to its end (RFC 3748 §4.2).
                msk.map(ClientStep::Succeeded)
                    .ok_or(EapFault::Malformed("success before the method was over"))
            }
            EapCode::FAILURE => Err(match &mut self.method {
                Some(Method::Tls(tls)) => tls.fault().unwrap_or(EapFault::Refused),
                Some(Method::MsChapV2(_)) | None => EapFault::Refused,
            }),
            _ => Err(EapFault::Malformed("it sent a response, though it is the server")),
        }
    }

    fn respond(&mut self, data: &[u8], rng: &mut dyn SecureRandom) -> Result<Vec<u8>, EapFault> {
        let (eap_type, data) = data.split_first().ok_or(EapFault::Malformed("no type"))?;
        let eap_type = EapType(*eap_type);
        match eap_type {
            EapType::IDENTITY if self.method.is_none() => {
                return Ok([&[EapType::IDENTITY.0], self.setup.identity.as_bytes()].concat());
            }
            EapType::NOTIFICATION => {
                let text = String::from_utf8_lossy(data);
                info!(text = %text.chars().take(200).collect::<String>().escape_debug(), "EAP notification");
                return Ok(vec![EapType::NOTIFICATION.0]);
            }
            _ => {}
        }
        let method = self.setup.methods.iter().copied().find(|m| EapType::of(*m) == eap_type);
        let Some(method) = method else {
            if self.method.is_some() {
                return Err(EapFault::Malformed("another method in the middle of one"));
            }
            // RFC 3748 §5.3.1: all that we would rather have.
            let wanted = self.setup.methods.iter().map(|m| EapType::of(*m).0);
            return Ok(core::iter::once(EapType::NAK.0).chain(wanted).collect());
        };
        if self.method.is_none() {
            self.method = Some(self.begin(method)?);
        }
        let answer = match (&mut self.method, method) {
            (Some(Method::MsChapV2(peer)), EapMethod::MsChapV2) => peer.handle(data, rng)?,
            (Some(Method::Tls(tls)), EapMethod::Tls) => match tls.handle(data)? {
                TlsStep::Send(data) => data,
                // The end is said by EAP-Success, after an acknowledgement.
                TlsStep::Over => TlsMethod::ACK.to_vec(),
            },
            _ => return Err(EapFault::Malformed("another method in the middle of one")),
        };
        Ok([&[eap_type.0], answer.as_slice()].concat())
    }

    fn begin(&self, method: EapMethod) -> Result<Method, EapFault> {
        match method {
            EapMethod::MsChapV2 => {
                let password = self.setup.password.clone();
                let password = password.ok_or(EapFault::Setup("password"))?;
                Ok(Method::MsChapV2(mschapv2::Peer::new(&self.setup.identity, password)))
            }
            EapMethod::Tls => {
                let credential = self.setup.credential.as_ref();
                let credential = credential.ok_or(EapFault::Setup("certificate"))?;
                let authority = self.authority.clone().ok_or(EapFault::Setup("CA"))?;
                let names = vec![self.server.clone()];
                let tls = TlsMethod::client(credential, authority, names, self.now)?;
                Ok(Method::Tls(Box::new(tls)))
            }
        }
    }
}
