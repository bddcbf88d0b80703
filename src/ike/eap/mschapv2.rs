//! EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2): [`Peer`] and [`Authenticator`].
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |     Type      |   OpCode      |  MS-CHAPv2-ID |  MS-Length...
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   MS-Length   |     Data...
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```
//!
//! Retries and changes of the password are declined.

use tracing::warn;

use super::{EapFault, UserName};
use crate::crypto::mschapv2::MsChapV2;
use crate::crypto::{Secret, SecureRandom};
use crate::ipsec::pad::EapUser;
use crate::wire::Reader;

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

/// As authenticator we are called so.
const NAME: &[u8] = b"ipsecd";

/// ERROR_AUTHENTICATION_FAILURE (RFC 2759 §6), and no retry.
const FAILED: &str = "E=691 R=0";

/// The side with the password to prove.
pub(super) struct Peer {
    name: Vec<u8>,
    password: Secret,
    answered: Option<MsChapV2>,
    msk: Option<Secret>,
}

impl Peer {
    pub(super) fn new(name: &str, password: Secret) -> Self {
        Self { name: name.as_bytes().to_vec(), password, answered: None, msk: None }
    }

    /// The MSK, once the authenticator has proved to know the password.
    pub(super) fn msk(&mut self) -> Option<Secret> {
        self.msk.take()
    }

    /// A request, without its type; the response, likewise.
    pub(super) fn handle(
        &mut self,
        data: &[u8],
        rng: &mut dyn SecureRandom,
    ) -> Result<Vec<u8>, EapFault> {
        let message = Message::read(data)?;
        match (message.op_code, &self.answered) {
            (CHALLENGE, None) => {
                let (challenge, _name) = value::<16>(message.data)?;
                let mut ours = [0; 16];
                rng.fill(&mut ours);
                let found = MsChapV2::new(&challenge, &ours, &self.name, &self.password);
                // RFC 2759 §4: our challenge, eight octets of zero, the NT-Response, flags of zero.
                let mut body = vec![49];
                body.extend_from_slice(&ours);
                body.extend_from_slice(&[0; 8]);
                body.extend_from_slice(found.nt_response());
                body.push(0);
                body.extend_from_slice(&self.name);
                self.answered = Some(found);
                Ok(emit(RESPONSE, message.id, &body))
            }
            (SUCCESS, Some(found)) => {
                let given = message.data.strip_prefix(b"S=").and_then(|text| text.get(..40));
                let given = given.and_then(hex).ok_or(EapFault::ServerProof)?;
                if !found.is_authenticator_response(&given) {
                    return Err(EapFault::ServerProof);
                }
                self.msk = Some(found.msk());
                Ok(vec![SUCCESS])
            }
            (FAILURE, Some(_)) => {
                self.msk = None;
                Ok(vec![FAILURE])
            }
            _ => Err(EapFault::Malformed("an MS-CHAP-V2 packet that is not in place")),
        }
    }
}

/// The side that asks for a password.
pub(super) struct Authenticator {
    challenge: [u8; 16],
    state: State,
}

enum State {
    Asked,
    /// Success was said, and waits for being confirmed.
    Good(Secret, UserName),
    /// Failure was said, and waits for being confirmed.
    Bad(UserName),
}

/// What comes of a response.
pub(super) enum Verdict {
    /// The next request, without its type.
    Ask(Vec<u8>),
    /// The peer knows the password.
    Good {
        /// The MSK.
        msk: Secret,
        /// Whose password it is.
        user: UserName,
    },
}

impl Authenticator {
    /// Begins with a challenge, which is the second value.
    pub(super) fn begin(id: u8, rng: &mut dyn SecureRandom) -> (Self, Vec<u8>) {
        let mut challenge = [0; 16];
        rng.fill(&mut challenge);
        let request = emit(CHALLENGE, id, &[&[16], &challenge[..], NAME].concat());
        (Self { challenge, state: State::Asked }, request)
    }

    /// A response, without its type. `id` is that of the next request.
    pub(super) fn handle(
        &mut self,
        data: &[u8],
        users: &[EapUser],
        id: u8,
    ) -> Result<Verdict, EapFault> {
        let message = Message::read(data)?;
        match (&self.state, message.op_code) {
            (State::Asked, RESPONSE) => {
                let (value, name) = value::<49>(message.data)?;
                let mut value = Reader::new("MS-CHAP-V2 response", &value);
                let fields = |_| EapFault::Malformed("a short MS-CHAP-V2 response");
                let theirs = value.take_array::<16>().map_err(fields)?;
                let _reserved = value.take_array::<8>().map_err(fields)?;
                let given = value.take_array::<24>().map_err(fields)?;
                let user = UserName::new(name).ok_or(EapFault::Malformed("a long name"))?;
                let known = users.iter().find(|known| known.name.as_bytes() == name);
                // Who is not known is answered in the same way and after the same work.
                let nobody = Secret::empty();
                let password = known.map_or(&nobody, |known| &known.password);
                let found = MsChapV2::new(&self.challenge, &theirs, name, password);
                if !found.is_response(&given) || known.is_none() {
                    let challenge = upper_hex(&self.challenge);
                    let text = format!("{FAILED} C={challenge} V=3 M=Authentication failed");
                    // The peer may not stay to hear it.
                    warn!("EAP: {}", EapFault::Password(user.clone()));
                    self.state = State::Bad(user);
                    return Ok(Verdict::Ask(emit(FAILURE, id, text.as_bytes())));
                }
                let proof = upper_hex(&found.authenticator_response());
                self.state = State::Good(found.msk(), user);
                Ok(Verdict::Ask(emit(SUCCESS, id, format!("S={proof} M=Welcome").as_bytes())))
            }
            (State::Good(msk, user), SUCCESS) => {
                Ok(Verdict::Good { msk: msk.clone(), user: user.clone() })
            }
            (State::Bad(user), FAILURE) => Err(EapFault::Password(user.clone())),
            // It does not take our proof.
            (State::Good(_, user), FAILURE) => Err(EapFault::Password(user.clone())),
            _ => Err(EapFault::Malformed("an MS-CHAP-V2 packet that is not in place")),
        }
    }
}

/// An MS-CHAP-V2 packet behind its type. Confirmations are an OpCode alone.
struct Message<'a> {
    op_code: u8,
    id: u8,
    data: &'a [u8],
}

impl<'a> Message<'a> {
    fn read(packet: &'a [u8]) -> Result<Self, EapFault> {
        match packet {
            [op_code @ (SUCCESS | FAILURE)] => Ok(Self { op_code: *op_code, id: 0, data: &[] }),
            // MS-Length counts from the OpCode on.
            [op_code, id, high, low, data @ ..]
                if usize::from(u16::from_be_bytes([*high, *low])) == packet.len() =>
            {
                Ok(Self { op_code: *op_code, id: *id, data })
            }
            [..] => Err(EapFault::Malformed("an MS-CHAP-V2 packet of another length")),
        }
    }
}

/// A value behind its length, and what follows.
fn value<const N: usize>(data: &[u8]) -> Result<([u8; N], &[u8]), EapFault> {
    data.split_first()
        .filter(|(len, _)| usize::from(**len) == N)
        .and_then(|(_, rest)| rest.split_first_chunk::<N>())
        .map(|(value, rest)| (*value, rest))
        .ok_or(EapFault::Malformed("an MS-CHAP-V2 value of another length"))
}

fn emit(op_code: u8, id: u8, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
    let [high, low] = len.to_be_bytes();
    [&[op_code, id, high, low], data].concat()
}

fn upper_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.chunks_exact(2)
        .map(|two| Some((digit(*two.first()?)? << 4) | digit(*two.last()?)?))
        .collect()
}
