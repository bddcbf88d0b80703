//! SUPPORTED_AUTH_METHODS (RFC 9593): by which methods each side can be shown who the other is, so that whoever has several keys uses
//! one that the other side can verify.
//!
//! What a peer announces is a hint, not a rule: nothing is taken for authentic because of it, and where nothing fits, AUTH is made as
//! without it. The responder's list comes in IKE_SA_INIT where there is room, else in IKE_INTERMEDIATE if there is one; the initiator's
//! in IKE_AUTH.

use tracing::debug;

use super::exchange::{Parts, notify};
use super::limits;
use crate::crypto::sign::{KeyKind, Scheme};
use crate::ipsec::pad::PeerAuth;
use crate::wire::ike::numbers::{AuthMethod, NotifyType};
use crate::wire::ike::payload::Payload;

/// What a peer has announced, the preferred first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Announced(Vec<Announcement>);

/// One method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Announcement {
    method: AuthMethod,
    /// For certificates below the CA of this number in the CERTREQ payloads, counted from 1; 0: for any.
    cert_link: u8,
    /// The algorithm, of the method that says it in AUTH.
    scheme: Option<Scheme>,
}

impl Announced {
    /// The list of a message. None, if it has none, or an empty one: that is to come.
    pub(super) fn of(parts: &Parts<'_>) -> Option<Self> {
        let data = &parts.notify(NotifyType::SUPPORTED_AUTH_METHODS)?.data;
        if data.is_empty() {
            return None;
        }
        let found = parse(data);
        if found.is_none() {
            debug!("SUPPORTED_AUTH_METHODS is malformed, and ignored");
        }
        found.map(Self)
    }

    /// Whether a pre-shared key can be verified.
    pub(super) fn takes_psk(&self) -> bool {
        self.0.iter().any(|one| one.method == AuthMethod::SHARED_KEY_MIC)
    }

    /// Whether a signature by this method and algorithm can be verified. `is_below`: whether what is shown of its key is below the
    /// CA of this number.
    pub(super) fn takes(
        &self,
        method: AuthMethod,
        scheme: Scheme,
        is_below: impl Fn(usize) -> bool,
    ) -> bool {
        self.0.iter().any(|one| {
            one.method == method
                && one.scheme.is_none_or(|announced| announced == scheme)
                && (one.cert_link == 0 || is_below(usize::from(one.cert_link)))
        })
    }
}

/// ```text
///  +---------------+---------------+---------------+-------------------------
///  | Length        | Auth Method   | Cert Link     | AlgorithmIdentifier
///  +---------------+---------------+---------------+-------------------------
/// ```
///
/// RFC 9593 §3.2: of 2 octets, of 3, and of more, by what there is to say of the method. What is not understood is left out. `None`
/// where the lengths do not fit the data.
fn parse(mut data: &[u8]) -> Option<Vec<Announcement>> {
    let mut found = Vec::new();
    while let Some(&len) = data.first() {
        let (one, rest) = data.split_at_checked(usize::from(len)).filter(|_| len >= 2)?;
        data = rest;
        let announcement = match *one {
            [_, method] => {
                let method = AuthMethod(method);
                let is_known = method == AuthMethod::SHARED_KEY_MIC;
                is_known.then_some(Announcement { method, cert_link: 0, scheme: None })
            }
            [_, method, cert_link] => {
                let method = AuthMethod(method);
                let is_known = matches!(
                    method,
                    AuthMethod::RSA_DIGITAL_SIGNATURE
                        | AuthMethod::ECDSA_SHA256_P256
                        | AuthMethod::ECDSA_SHA384_P384
                        | AuthMethod::ECDSA_SHA512_P521
                );
                is_known.then_some(Announcement { method, cert_link, scheme: None })
            }
            [_, method, cert_link, ref identifier @ ..] => {
                let method = AuthMethod(method);
                Scheme::of_algorithm_identifier(identifier)
                    .filter(|_| method == AuthMethod::DIGITAL_SIGNATURE)
                    .map(|scheme| Announcement { method, cert_link, scheme: Some(scheme) })
            }
            _ => None,
        };
        if found.len() < limits::MAX_ANNOUNCED {
            found.extend(announcement);
        }
    }
    Some(found)
}

/// What is announced to a peer that may be any of these. `None` where one of them is to use EAP, which has no place in the list.
pub(super) fn list<'a>(peers: impl Iterator<Item = &'a PeerAuth>) -> Option<Vec<u8>> {
    let (mut psk, mut schemes) = (false, Vec::new());
    for peer in peers {
        match peer {
            PeerAuth::Eap(_) => return None,
            PeerAuth::Psk(_) => psk = true,
            PeerAuth::Signature(authority) => {
                let has_cas = authority.trust.certreq_hashes().next().is_some();
                for scheme in Scheme::verified() {
                    let is_of = |kind: KeyKind| Scheme::ways(kind).any(|way| way == scheme);
                    let known = authority.keys.iter().any(|key| is_of(key.kind()));
                    if (has_cas || known) && !schemes.contains(&scheme) {
                        schemes.push(scheme);
                    }
                }
            }
        }
    }
    let mut data = Vec::new();
    // In one order, whatever peer comes first.
    for scheme in Scheme::verified().filter(|scheme| schemes.contains(scheme)) {
        let identifier = scheme.algorithm_identifier().unwrap_or_default();
        let len = u8::try_from(3 + identifier.len()).ok()?;
        data.extend([len, AuthMethod::DIGITAL_SIGNATURE.0, 0]);
        data.extend(identifier);
    }
    if psk {
        data.extend([2, AuthMethod::SHARED_KEY_MIC.0]);
    }
    (!data.is_empty()).then_some(data)
}

/// A list as a payload; an empty one says that the list is to come in IKE_INTERMEDIATE.
pub(super) fn payload(list: &[u8]) -> Payload {
    notify(NotifyType::SUPPORTED_AUTH_METHODS, list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sign::Hash;
    use crate::wire::ike::payload::Notify;

    fn of(data: &[u8]) -> Option<Announced> {
        let notify = Notify::new(NotifyType::SUPPORTED_AUTH_METHODS, data);
        Announced::of(&Parts { notifies: vec![&notify], ..Parts::default() })
    }

    fn signature(scheme: Scheme, cert_link: u8) -> Vec<u8> {
        let identifier = scheme.algorithm_identifier().unwrap();
        let len = u8::try_from(3 + identifier.len()).unwrap();
        [&[len, 14, cert_link], identifier.as_slice()].concat()
    }

    const ED25519: Scheme = Scheme::Ed25519;
    const ECDSA: Scheme = Scheme::Ecdsa(Hash::Sha256);
    const METHOD_14: AuthMethod = AuthMethod::DIGITAL_SIGNATURE;

    #[test]
    fn each_form_of_an_announcement_is_read() {
        let data = [&[2, 2][..], &[3, 9, 0], &signature(ED25519, 0), &signature(ECDSA, 2)].concat();
        let announced = of(&data).unwrap();
        assert!(announced.takes_psk());
        let concat = Scheme::EcdsaConcat(Hash::Sha256);
        assert!(announced.takes(AuthMethod::ECDSA_SHA256_P256, concat, |_| false));
        assert!(!announced.takes(AuthMethod::ECDSA_SHA384_P384, concat, |_| true));
        assert!(announced.takes(METHOD_14, ED25519, |_| false));
        assert!(!announced.takes(METHOD_14, ECDSA, |_| false), "not below that CA");
        assert!(announced.takes(METHOD_14, ECDSA, |number| number == 2));
        assert!(!announced.takes(METHOD_14, Scheme::RsaPss(Hash::Sha256), |_| true));
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let unknown: [&[u8]; 7] = [
            &[2, 13],
            &[2, 14],
            &[3, 2, 0],
            &[3, 14, 0],
            &[4, 14, 0, 0x30],
            &[9, 200, 0, 1, 2, 3, 4, 5, 6],
            &[5, 9, 0, 1, 2],
        ];
        for one in unknown {
            assert_eq!(of(one), Some(Announced::default()), "{one:?}");
            let with = [one, &[2, 2], one].concat();
            assert!(of(&with).unwrap().takes_psk(), "{one:?}");
        }
    }

    #[test]
    fn a_list_whose_lengths_do_not_fit_is_ignored_whole() {
        let cut: [&[u8]; 6] =
            [&[0], &[1], &[2], &[2, 2, 0, 0], &[2, 2, 1, 14], &[2, 2, 9, 14, 0, 0x30, 5]];
        for data in cut {
            assert_eq!(of(data), None, "{data:?}");
        }
        assert_eq!(of(&[]), None, "it is to come");
        let whole = signature(ED25519, 0);
        for len in 1..whole.len() {
            assert_eq!(of(&whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn a_list_of_thousands_is_read_to_a_bound() {
        let announced = of(&[3, 9, 7].repeat(10_000)).unwrap();
        assert_eq!(announced.0.len(), limits::MAX_ANNOUNCED);
    }

    #[test]
    fn what_we_announce_we_read() {
        let key = PeerAuth::Psk(crate::crypto::Secret::copy_of(b"key"));
        let data = list([&key, &key].into_iter()).unwrap();
        assert_eq!(data, [2, 2]);
        assert_eq!(list(core::iter::empty()), None);
        let all: Vec<u8> = Scheme::verified().flat_map(|scheme| signature(scheme, 0)).collect();
        let announced = of(&all).unwrap();
        assert!(Scheme::verified().all(|scheme| announced.takes(METHOD_14, scheme, |_| false)));
        assert_eq!(announced.0.len(), Scheme::verified().count());
    }
}
