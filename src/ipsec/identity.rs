//! When two identities are the same one, and which identity a certificate may stand for (RFC 4945 §3.1, RFC 4301 §4.4.3.2).
//!
//! | identity | in the certificate |
//! | --- | --- |
//! | ID_FQDN | a dNSName, letter for letter but for case; a `*` in it is a letter like others |
//! | ID_RFC822_ADDR | an rfc822Name, likewise |
//! | ID_IPV4_ADDR, ID_IPV6_ADDR | an iPAddress |
//! | ID_DER_ASN1_DN | the subject, attribute for attribute |
//! | all others | none: a certificate does not stand for them |
//!
//! The subject's common name is no host name (RFC 4945 §3.1.2), and the address from which a peer sends proves nothing.

use super::pad::Identity;
use crate::crypto::x509::{self, Certificate, SubjectName};

impl Identity {
    /// Whether two identities are the same one. Names of hosts and mail domains do not heed case, names in certificates not the
    /// type of string in which they are written.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) | (Self::Email(a), Self::Email(b)) => {
                a.eq_ignore_ascii_case(b)
            }
            (Self::Dn(a), Self::Dn(b)) => x509::same_name(a, b),
            _ => self == other,
        }
    }

    /// Whether this is one of the identities for which the certificate may stand.
    #[must_use]
    pub fn is_in(&self, certificate: &Certificate) -> bool {
        Self::of_certificate(certificate).any(|identity| self.is_same(&identity))
    }

    /// Every identity for which a certificate may stand, the subject last. One without a subject has an empty one, which is
    /// nobody's.
    pub fn of_certificate(certificate: &Certificate) -> impl Iterator<Item = Self> + '_ {
        const EMPTY: [u8; 2] = [0x30, 0x00];
        let names = certificate.names().iter().map(|name| match name {
            SubjectName::Dns(name) => Self::Fqdn(name.clone()),
            SubjectName::Email(name) => Self::Email(name.clone()),
            SubjectName::Ip(core::net::IpAddr::V4(addr)) => Self::Ipv4(*addr),
            SubjectName::Ip(core::net::IpAddr::V6(addr)) => Self::Ipv6(*addr),
        });
        let subject = Some(certificate.subject()).filter(|subject| *subject != EMPTY);
        names.chain(subject.map(|subject| Self::Dn(subject.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_match_in_any_case() {
        let a = Identity::Fqdn("A.Example.Net".into());
        assert!(a.is_same(&Identity::Fqdn("a.example.net".into())));
        assert!(!a.is_same(&Identity::Email("a.example.net".into())));
    }
}
