//! EAP-TLS with TLS 1.2 (RFC 5216) and 1.3 (RFC 9190), both sides.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Type      |     Flags     |      TLS Message Length
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     TLS Message Length        |       TLS Data...
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use core::time::Duration;
use std::sync::Arc;

use super::EapFault;
use crate::crypto::Secret;
use crate::crypto::tls::{Party, Tls};
use crate::ike::limits;
use crate::ipsec::pad::{Authority, Credential, Identity};

/// TLS Message Length is there.
const LENGTH: u8 = 0x80;
/// More fragments follow.
const MORE: u8 = 0x40;
/// The server begins.
const BEGIN: u8 = 0x20;

/// One run of EAP-TLS.
pub(super) struct TlsMethod {
    tls: Tls,
    frames: Frames,
    is_server: bool,
    /// One of these has to be in the other side's certificate.
    names: Vec<Identity>,
    stage: Stage,
}

enum Stage {
    /// Client: the server's start is to come.
    Waiting,
    Handshake,
    /// All is said, and the MSK is there. The server waits for an acknowledgement, the client for EAP-Success.
    Done(Secret),
    /// Something was wrong. The alert is said, and the other side's turn is next.
    Failed(EapFault),
}

/// What comes of a message.
pub(super) enum TlsStep {
    /// Flags and data to send.
    Send(Vec<u8>),
    /// It is over: there is an MSK.
    Over,
}

impl TlsMethod {
    /// What the server begins with.
    pub(super) const START: [u8; 1] = [BEGIN];
    /// An acknowledgement: no data.
    pub(super) const ACK: [u8; 1] = [0];

    pub(super) fn client(
        credential: &Credential,
        authority: Arc<Authority>,
        names: Vec<Identity>,
        now: Duration,
    ) -> Result<Self, EapFault> {
        let tls = Tls::client(party(credential, authority, now))?;
        let frames = Frames::default();
        Ok(Self { tls, frames, is_server: false, names, stage: Stage::Waiting })
    }

    pub(super) fn server(
        credential: &Credential,
        authority: Arc<Authority>,
        names: Vec<Identity>,
        now: Duration,
    ) -> Result<Self, EapFault> {
        let tls = Tls::server(party(credential, authority, now))?;
        let frames = Frames::default();
        Ok(Self { tls, frames, is_server: true, names, stage: Stage::Handshake })
    }

    /// The MSK, once it is over.
    pub(super) fn msk(&self) -> Option<Secret> {
        match &self.stage {
            Stage::Done(msk) => Some(msk.clone()),
            Stage::Waiting | Stage::Handshake | Stage::Failed(_) => None,
        }
    }

    /// What was wrong.
    pub(super) fn fault(&self) -> Option<EapFault> {
        match &self.stage {
            Stage::Failed(fault) => Some(fault.clone()),
            Stage::Waiting | Stage::Handshake | Stage::Done(_) => None,
        }
    }

    /// Whether the other side's certificate has one of these names.
    pub(super) fn is_named(&self, names: &[Identity]) -> bool {
        self.tls.peer().is_some_and(|certificate| names.iter().any(|name| name.is_in(&certificate)))
    }

    /// A message, without its type.
    pub(super) fn handle(&mut self, data: &[u8]) -> Result<TlsStep, EapFault> {
        if let Stage::Waiting = self.stage {
            // RFC 5216 §3.1: the start has no data.
            if data != Self::START {
                return Err(EapFault::Malformed("EAP-TLS without a start"));
            }
            self.stage = Stage::Handshake;
            self.frames.put(self.tls.give());
            return Ok(TlsStep::Send(self.frames.next()));
        }
        match self.frames.take(data)? {
            Incoming::Acknowledged if self.frames.has_more() => {
                Ok(TlsStep::Send(self.frames.next()))
            }
            Incoming::Acknowledged => match &self.stage {
                Stage::Done(_) if self.is_server => Ok(TlsStep::Over),
                Stage::Failed(fault) => Err(fault.clone()),
                Stage::Done(_) | Stage::Waiting | Stage::Handshake => {
                    Err(EapFault::Malformed("EAP-TLS without data"))
                }
            },
            _ if self.frames.has_more() => {
                Err(EapFault::Malformed("a fragment was not acknowledged"))
            }
            Incoming::Fragment => Ok(TlsStep::Send(Self::ACK.to_vec())),
            Incoming::Whole(records) => {
                if let Stage::Failed(fault) = &self.stage {
                    return Err(fault.clone());
                }
                if let Err(fault) = self.advance(&records) {
                    self.stage = Stage::Failed(fault);
                }
                // Also where it failed: an alert may tell the other side why (RFC 5216 §2.1.3).
                let out = self.tls.give();
                match &self.stage {
                    Stage::Failed(fault) if out.is_empty() && self.is_server => {
                        return Err(fault.clone());
                    }
                    // RFC 5216 §2.1.3: the server says EAP-Failure once its alert is acknowledged.
                    Stage::Failed(_) if out.is_empty() => {
                        return Ok(TlsStep::Send(Self::ACK.to_vec()));
                    }
                    Stage::Done(_) if out.is_empty() && !self.is_server => {
                        return Ok(TlsStep::Over);
                    }
                    Stage::Handshake if out.is_empty() => {
                        return Err(EapFault::Malformed("half a TLS message"));
                    }
                    Stage::Waiting | Stage::Handshake | Stage::Done(_) | Stage::Failed(_) => {}
                }
                self.frames.put(out);
                Ok(TlsStep::Send(self.frames.next()))
            }
        }
    }

    fn advance(&mut self, records: &[u8]) -> Result<(), EapFault> {
        let was_handshaking = self.tls.is_handshaking();
        self.tls.take(records)?;
        if self.tls.is_handshaking() {
            return Ok(());
        }
        if let Stage::Done(_) = self.stage {
            return Err(EapFault::Malformed("TLS went on after its end"));
        }
        if was_handshaking && !self.is_named(&self.names) {
            let name = self.names.first().cloned();
            return Err(EapFault::Name(name.unwrap_or(Identity::Fqdn(String::new()))));
        }
        if self.tls.is_1_3() {
            // RFC 9190 §2.1.1, §2.5: one byte of zero is the server's word that all is well.
            if self.is_server {
                self.tls.write(&[0])?;
            } else {
                match self.tls.read(2).as_slice() {
                    [0] => {}
                    [] if was_handshaking => return Ok(()),
                    _ => return Err(EapFault::Malformed("TLS data that is not a single zero")),
                }
            }
        }
        self.stage = Stage::Done(self.key_material()?);
        Ok(())
    }

    /// The first half of Key_Material (RFC 5216 §2.3, RFC 9190 §2.3).
    fn key_material(&self) -> Result<Secret, EapFault> {
        let whole = if self.tls.is_1_3() {
            self.tls.export(b"EXPORTER_EAP_TLS_Key_Material", Some(&[0x0d]), 128)?
        } else {
            self.tls.export(b"client EAP encryption", None, 128)?
        };
        Ok(Secret::copy_of(whole.expose().get(..64).unwrap_or_default()))
    }
}

fn party(credential: &Credential, authority: Arc<Authority>, now: Duration) -> Party {
    Party {
        chain: credential.chain().to_vec(),
        signer: credential.shared_signer(),
        judge: Arc::new(move |leaf, others| authority.trust.verify(leaf, others, now)),
        now,
    }
}

/// TLS messages in fragments (RFC 5216 §2.1.5).
#[derive(Default)]
struct Frames {
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Vec<u8>,
    /// TLS Message Length of what is coming in.
    announced: Option<usize>,
    /// All that has come in, with what is done with.
    taken: usize,
}

enum Incoming {
    /// No data.
    Acknowledged,
    /// More is to come.
    Fragment,
    /// A whole message.
    Whole(Vec<u8>),
}

impl Frames {
    fn put(&mut self, message: Vec<u8>) {
        self.outgoing = message;
        self.sent = 0;
    }

    fn has_more(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Flags and the next fragment.
    fn next(&mut self) -> Vec<u8> {
        let rest = self.outgoing.get(self.sent..).unwrap_or_default();
        let fragment = rest.get(..limits::EAP_TLS_FRAGMENT).unwrap_or(rest);
        let more = fragment.len() < rest.len();
        let mut out = vec![if more { MORE } else { 0 }];
        // The length is said with the first of several.
        if more && self.sent == 0 {
            out[0] |= LENGTH;
            let len = u32::try_from(self.outgoing.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&len.to_be_bytes());
        }
        out.extend_from_slice(fragment);
        self.sent += fragment.len();
        out
    }

    fn take(&mut self, data: &[u8]) -> Result<Incoming, EapFault> {
        let (flags, mut rest) = data.split_first().ok_or(EapFault::Malformed("no flags"))?;
        if flags & BEGIN != 0 {
            return Err(EapFault::Malformed("a second start of EAP-TLS"));
        }
        if flags & LENGTH != 0 {
            let (len, after) =
                rest.split_first_chunk::<4>().ok_or(EapFault::Malformed("no length"))?;
            let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
            if len > limits::MAX_EAP_TLS {
                return Err(EapFault::TooMany);
            }
            if self.announced.is_some_and(|announced| announced != len) {
                return Err(EapFault::Malformed("two lengths of one TLS message"));
            }
            self.announced = Some(len);
            rest = after;
        }
        self.taken += rest.len();
        if self.taken > limits::MAX_EAP_TLS {
            return Err(EapFault::TooMany);
        }
        self.incoming.extend_from_slice(rest);
        if flags & MORE != 0 {
            if rest.is_empty() {
                return Err(EapFault::Malformed("an empty fragment"));
            }
            return Ok(Incoming::Fragment);
        }
        let whole = core::mem::take(&mut self.incoming);
        if self.announced.take().is_some_and(|len| len != whole.len()) {
            return Err(EapFault::Malformed("a TLS message of another length than it says"));
        }
        Ok(if whole.is_empty() { Incoming::Acknowledged } else { Incoming::Whole(whole) })
    }
}
