//! Identities in ID payloads (RFC 7296 §3.5).

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::ipsec::pad::Identity;
use crate::wire::ike::numbers::IdType;
use crate::wire::ike::payload::Id;

/// The ID payload of an identity.
pub(super) fn to_wire(identity: &Identity) -> Id {
    let (id_type, data) = match identity {
        Identity::Ipv4(addr) => (IdType::ID_IPV4_ADDR, addr.octets().to_vec()),
        Identity::Ipv6(addr) => (IdType::ID_IPV6_ADDR, addr.octets().to_vec()),
        Identity::Fqdn(name) => (IdType::ID_FQDN, name.clone().into_bytes()),
        Identity::Email(name) => (IdType::ID_RFC822_ADDR, name.clone().into_bytes()),
        Identity::Dn(der) => (IdType::ID_DER_ASN1_DN, der.clone()),
        Identity::KeyId(bytes) => (IdType::ID_KEY_ID, bytes.clone()),
        Identity::Other { id_type, data } => (IdType(*id_type), data.clone()),
    };
    Id::new(id_type, data)
}

/// The identity in an ID payload. What does not have the form of its type stays as it came, and so matches nothing configured.
pub(super) fn from_wire(id: &Id) -> Identity {
    let text = || core::str::from_utf8(&id.data).ok().map(str::to_owned);
    let known = match id.id_type {
        IdType::ID_IPV4_ADDR => <[u8; 4]>::try_from(id.data.as_slice())
            .ok()
            .map(|octets| Identity::Ipv4(Ipv4Addr::from(octets))),
        IdType::ID_IPV6_ADDR => <[u8; 16]>::try_from(id.data.as_slice())
            .ok()
            .map(|octets| Identity::Ipv6(Ipv6Addr::from(octets))),
        IdType::ID_FQDN => text().map(Identity::Fqdn),
        IdType::ID_RFC822_ADDR => text().map(Identity::Email),
        IdType::ID_DER_ASN1_DN => Some(Identity::Dn(id.data.clone())),
        IdType::ID_KEY_ID => Some(Identity::KeyId(id.data.clone())),
        _ => None,
    };
    known.unwrap_or_else(|| Identity::Other { id_type: id.id_type.0, data: id.data.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_the_wire() {
        for identity in [
            Identity::Ipv4([192, 0, 2, 1].into()),
            Identity::Ipv6(Ipv6Addr::LOCALHOST),
            Identity::Fqdn("a.example.net".into()),
            Identity::Email("a@example.net".into()),
            Identity::Dn(vec![0x30, 0]),
            Identity::KeyId(vec![1, 2, 3]),
            Identity::Other { id_type: 201, data: vec![1] },
        ] {
            assert_eq!(from_wire(&to_wire(&identity)), identity);
        }
    }

    #[test]
    fn malformed_address_is_kept_and_matches_no_address() {
        let id = Id::new(IdType::ID_IPV4_ADDR, vec![1, 2, 3]);
        assert_eq!(from_wire(&id), Identity::Other { id_type: 1, data: vec![1, 2, 3] });
    }
}
