//! Certificate and Certificate Request payloads (RFC 7296 §3.6, §3.7).

use super::numbers::CertEncoding;
use crate::wire::{ParseError, Reader};

/// Certificate payload (RFC 7296 §3.6).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Cert Encoding |                                               |
/// +-+-+-+-+-+-+-+-+                                               |
/// ~                       Certificate Data                        ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cert {
    /// Certificate Encoding.
    pub encoding: CertEncoding,
    /// Certificate Data.
    pub data: Vec<u8>,
}

impl Cert {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When it is empty.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { encoding: CertEncoding(body.u8()?), data: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend_from_slice(&self.data);
    }
}

/// Certificate Request payload (RFC 7296 §3.7).
///
/// ```text
///                      1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Next Payload  |C|  RESERVED   |         Payload Length        |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// | Cert Encoding |                                               |
/// +-+-+-+-+-+-+-+-+                                               |
/// ~                    Certification Authority                    ~
/// |                                                               |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertReq {
    /// Encoding of the certificates asked for.
    pub encoding: CertEncoding,
    /// Certification Authority: for X.509 a concatenation of SHA-1 hashes of the trust anchors' public
    /// keys, 20 bytes each.
    pub authority: Vec<u8>,
}

impl CertReq {
    /// Reads the body of the payload.
    ///
    /// # Errors
    /// When it is empty.
    pub fn parse(body: &mut Reader<'_>) -> Result<Self, ParseError> {
        Ok(Self { encoding: CertEncoding(body.u8()?), authority: body.rest().to_vec() })
    }

    /// Appends the body of the payload.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.encoding.0);
        out.extend_from_slice(&self.authority);
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Payload;
    use super::super::testkit::six_tests;
    use super::*;

    six_tests!(
        Payload::Cert(Cert { encoding: CertEncoding::X509_SIGNATURE, data: vec![0x30, 0] }),
        [4, 0x30, 0],
        least = 1,
        reserved = [],
    );

    mod request {
        use super::super::super::payload::Payload;
        use super::super::super::testkit::six_tests;
        use super::super::*;

        six_tests!(
            Payload::CertReq(CertReq {
                encoding: CertEncoding::X509_SIGNATURE,
                authority: vec![7; 20]
            }),
            [4, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7],
            least = 1,
            reserved = [],
        );
    }
}
