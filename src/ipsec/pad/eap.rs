//! EAP (RFC 3748) in a PAD entry: what the initiator proves itself by, and whom the responder takes (RFC 7296 §2.16).

use std::sync::Arc;

use super::{Authority, Credential};
use crate::crypto::Secret;

/// A method of EAP. Each makes an MSK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EapMethod {
    /// EAP-MSCHAPv2: a name and a password.
    MsChapV2,
    /// EAP-TLS (RFC 5216, RFC 9190): a certificate.
    Tls,
}

/// What we prove ourselves by, as initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EapClient {
    /// EAP identity, and the name of EAP-MSCHAPv2.
    pub identity: String,
    /// The methods that we take part in.
    pub methods: Vec<EapMethod>,
    /// The password of EAP-MSCHAPv2.
    pub password: Option<Secret>,
    /// The certificate of EAP-TLS.
    pub credential: Option<Credential>,
}

/// Whom we take, as responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EapServer {
    /// The methods that are offered, in this order.
    pub methods: Vec<EapMethod>,
    /// Names and passwords of EAP-MSCHAPv2.
    pub users: Vec<EapUser>,
    /// Whose certificates EAP-TLS takes.
    pub authority: Option<Arc<Authority>>,
}

/// A user of EAP-MSCHAPv2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EapUser {
    /// The name, letter for letter.
    pub name: String,
    /// The password.
    pub password: Secret,
}
