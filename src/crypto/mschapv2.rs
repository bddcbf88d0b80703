//! MS-CHAP-V2 (RFC 2759 §8) and the keys that come of it (RFC 3079 §3.4). MD4, DES and SHA-1 are what they are there; the
//! exchange is to be trusted no further than the tunnel around it.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use md4::Md4;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Secret;

/// What both sides compute from the two challenges and a password (RFC 2759 §8).
pub struct MsChapV2 {
    /// NtPasswordHash of the password.
    password_hash: Zeroizing<[u8; 16]>,
    challenge: [u8; 8],
    nt_response: Zeroizing<[u8; 24]>,
}

impl MsChapV2 {
    /// The name is what the peer says, less a domain and a backslash before it (RFC 2759 §8.2).
    #[must_use]
    pub fn new(
        authenticator_challenge: &[u8; 16],
        peer_challenge: &[u8; 16],
        name: &[u8],
        password: &Secret,
    ) -> Self {
        let password_hash = nt_password_hash(password);
        let user = name.rsplit(|byte| *byte == b'\\').next().unwrap_or(name);
        let mut hash = Sha1::new();
        hash.update(peer_challenge);
        hash.update(authenticator_challenge);
        hash.update(user);
        let mut challenge = [0; 8];
        challenge.copy_from_slice(&hash.finalize()[..8]);
        let nt_response = challenge_response(challenge, &password_hash);
        Self { password_hash, challenge, nt_response }
    }

    /// The 24-octet NT-Response (RFC 2759 §8.1).
    #[must_use]
    pub fn nt_response(&self) -> &[u8; 24] {
        &self.nt_response
    }

    /// Whether the peer's NT-Response is this one, in constant time.
    #[must_use]
    pub fn is_response(&self, given: &[u8]) -> bool {
        self.nt_response.as_slice().ct_eq(given).into()
    }

    /// The 20 octets with which the authenticator proves to know the password, too (RFC 2759 §8.7).
    #[must_use]
    pub fn authenticator_response(&self) -> [u8; 20] {
        let hash_hash = self.password_hash_hash();
        let mut first = Sha1::new();
        first.update(hash_hash.as_slice());
        first.update(self.nt_response.as_slice());
        first.update(b"Magic server to client signing constant");
        let mut second = Sha1::new();
        second.update(first.finalize());
        second.update(self.challenge);
        second.update(b"Pad to make it do more than one iteration");
        second.finalize().into()
    }

    /// Whether the authenticator's 20 octets are these, in constant time.
    #[must_use]
    pub fn is_authenticator_response(&self, given: &[u8]) -> bool {
        self.authenticator_response().as_slice().ct_eq(given).into()
    }

    /// The MSK of EAP-MSCHAPv2: the authenticator's MasterReceiveKey and MasterSendKey of 128 bits each (RFC 3079 §3.4), and 32
    /// octets of zero.
    #[must_use]
    pub fn msk(&self) -> Secret {
        let mut master = Sha1::new();
        master.update(self.password_hash_hash().as_slice());
        master.update(self.nt_response.as_slice());
        master.update(b"This is the MPPE Master Key");
        let master = Zeroizing::new(<[u8; 20]>::from(master.finalize()));
        let mut msk = Zeroizing::new([0; 64]);
        let of_client = b"On the client side, this is the send key; \
                          on the server side, it is the receive key.";
        let of_server = b"On the client side, this is the receive key; \
                          on the server side, it is the send key.";
        msk[..16].copy_from_slice(&start_key(&master[..16], of_client)[..]);
        msk[16..32].copy_from_slice(&start_key(&master[..16], of_server)[..]);
        Secret::copy_of(msk.as_slice())
    }

    fn password_hash_hash(&self) -> Zeroizing<[u8; 16]> {
        Zeroizing::new(Md4::digest(self.password_hash.as_slice()).into())
    }
}

/// NtPasswordHash (RFC 2759 §8.3): MD4 of the password in UTF-16. One that is not UTF-8 is taken for Latin-1.
fn nt_password_hash(password: &Secret) -> Zeroizing<[u8; 16]> {
    let bytes = password.expose();
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut wide = Zeroizing::new(Vec::with_capacity(bytes.len() * 2));
    match core::str::from_utf8(bytes) {
        Ok(text) => wide.extend(text.encode_utf16().flat_map(u16::to_le_bytes)),
        Err(_) => wide.extend(bytes.iter().flat_map(|byte| [*byte, 0])),
    }
    Zeroizing::new(Md4::digest(wide.as_slice()).into())
}

/// ChallengeResponse (RFC 2759 §8.5): the challenge under DES, with the hash and zeros as three keys of 56 bits.
fn challenge_response(challenge: [u8; 8], password_hash: &[u8; 16]) -> Zeroizing<[u8; 24]> {
    let mut keys = Zeroizing::new([0; 21]);
    keys[..16].copy_from_slice(password_hash);
    let mut response = Zeroizing::new([0; 24]);
    for (key, out) in keys.chunks_exact(7).zip(response.chunks_exact_mut(8)) {
        let mut block = challenge.into();
        Des::new(&(*spread(key)).into()).encrypt_block(&mut block);
        out.copy_from_slice(&block);
    }
    response
}

/// 56 bits as the upper seven of each of eight octets; the lowest would be parity, which nobody looks at (RFC 2759 §9.3).
fn spread(key: &[u8]) -> Zeroizing<[u8; 8]> {
    let mut all = Zeroizing::new([0; 8]);
    all[1..].copy_from_slice(key);
    let bits = Zeroizing::new(u64::from_be_bytes(*all));
    let mut out = Zeroizing::new([0; 8]);
    for (i, octet) in out.iter_mut().rev().enumerate() {
        let seven = (*bits >> (7 * i)) & 0x7f;
        *octet = u8::try_from(seven << 1).unwrap_or_default();
    }
    out
}

/// GetAsymmetricStartKey (RFC 3079 §3.4) for 128 bits.
fn start_key(master: &[u8], magic: &[u8]) -> Zeroizing<[u8; 16]> {
    let mut hash = Sha1::new();
    hash.update(master);
    hash.update([0; 40]);
    hash.update(magic);
    hash.update([0xf2; 40]);
    let whole = Zeroizing::new(<[u8; 20]>::from(hash.finalize()));
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&whole[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// The example of RFC 2759 §9.2.
    fn example() -> MsChapV2 {
        let authenticator = *b"[]|}{?/><,`!2&&(";
        let peer = *b"!@#$%^&*()_+:3|~";
        MsChapV2::new(&authenticator, &peer, b"User", &Secret::copy_of(b"clientPass"))
    }

    #[test]
    fn the_example_of_rfc_2759_holds() {
        let found = example();
        assert_eq!(hex(&found.challenge), "D02E4386BCE91226");
        assert_eq!(hex(found.password_hash.as_slice()), "44EBBA8D5312B8D611474411F56989AE");
        assert_eq!(hex(found.nt_response()), "82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF");
        assert_eq!(hex(found.password_hash_hash().as_slice()), "41C00C584BD2D91C4017A2A12FA59F3F");
        let response = found.authenticator_response();
        assert_eq!(hex(&response), "407A5589115FD0D6209F510FE9C04566932CDA56");
        assert!(found.is_response(&found.nt_response.clone()[..]));
        assert!(!found.is_response(&[0; 24]) && !found.is_response(&[]));
        assert!(found.is_authenticator_response(&response));
        assert!(!found.is_authenticator_response(&response[1..]));
    }

    // RFC 3079 §3.5.3: MasterKey FDECE371..., and the send key of the server.
    #[test]
    fn the_example_of_rfc_3079_holds() {
        let msk = example().msk();
        assert_eq!(msk.len(), 64);
        assert_eq!(hex(&msk.expose()[16..32]), "8B7CDC149B993A1BA118CB153F56DCCB");
        assert_eq!(&msk.expose()[32..], [0; 32]);
    }

    #[test]
    fn a_domain_before_the_name_does_not_count() {
        let with = |name: &[u8]| {
            *MsChapV2::new(&[1; 16], &[2; 16], name, &Secret::copy_of(b"x")).nt_response()
        };
        assert_eq!(with(b"User"), with(b"EXAMPLE\\User"));
        assert_ne!(with(b"User"), with(b"user"));
    }

    #[test]
    fn keys_of_56_bits_are_spread_as_rfc_2759_shows() {
        // RFC 2759 §9.3: the first seven octets of a hash, and the key with parity, which is left out here.
        let given = [0xfc, 0x15, 0x6a, 0xf7, 0xed, 0xcd, 0x6c];
        let expected =
            [0xfd, 0x0b, 0x5b, 0x5e, 0x7f, 0x6e, 0x34, 0xd9].map(|octet: u8| octet & 0xfe);
        assert_eq!(*spread(&given), expected);
    }
}
