//! COOKIEs as responder (RFC 7296 §2.6): proof, without state, that the initiator is where it says.

use core::net::{IpAddr, SocketAddr};
use std::time::Instant;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::limits::COOKIE_SECRET_TIME;
use crate::crypto::SecureRandom;
use crate::crypto::integ::Integ;
use crate::wire::ike::header::IkeSpi;
use crate::wire::ike::numbers::IntegId;

const SECRET_LEN: usize = 16;
const MAC_LEN: usize = 12;
const COOKIE_LEN: usize = 2 + MAC_LEN;

/// The secrets behind our COOKIEs: `<version> | <difficulty> | MAC(secret, difficulty | SPIi | port | length of IPi | IPi | Ni)`. The difficulty is that of
/// the puzzle that went with it (RFC 8019 §7.1.1.3), 0 if there was none.
pub(super) struct CookieJar {
    current: Integ,
    previous: Option<Integ>,
    version: u8,
    changes_at: Instant,
}

impl CookieJar {
    pub(super) fn new(now: Instant, rng: &mut dyn SecureRandom) -> Self {
        Self {
            current: fresh(rng),
            previous: None,
            version: 0,
            changes_at: now + COOKIE_SECRET_TIME,
        }
    }

    pub(super) fn rotate(&mut self, now: Instant, rng: &mut dyn SecureRandom) {
        if self.changes_at <= now {
            self.previous = Some(core::mem::replace(&mut self.current, fresh(rng)));
            self.version = self.version.wrapping_add(1);
            self.changes_at = now + COOKIE_SECRET_TIME;
        }
    }

    /// The COOKIE for an initiator.
    pub(super) fn bake(
        &self,
        difficulty: u8,
        nonce: &[u8],
        from: SocketAddr,
        spi_i: IkeSpi,
    ) -> [u8; COOKIE_LEN] {
        let mut cookie = [0; COOKIE_LEN];
        cookie[..2].copy_from_slice(&[self.version, difficulty]);
        cookie[2..].copy_from_slice(&mac(&self.current, difficulty, nonce, from, spi_i));
        cookie
    }

    /// The difficulty of the puzzle that went with this COOKIE, if we gave it to this initiator, lately.
    pub(super) fn recognise(
        &self,
        cookie: &[u8],
        nonce: &[u8],
        from: SocketAddr,
        spi_i: IkeSpi,
    ) -> Option<u8> {
        let (&[version, difficulty], theirs) = cookie.split_first_chunk()?;
        let secret = if version == self.version {
            Some(&self.current)
        } else if version.wrapping_add(1) == self.version {
            self.previous.as_ref()
        } else {
            None
        };
        let ours = mac(secret?, difficulty, nonce, from, spi_i);
        bool::from(ours.ct_eq(theirs)).then_some(difficulty)
    }
}

/// AES-CMAC (RFC 4494), of what we have the one that takes the least time for so short an input where the processor knows AES. Keyed
/// once, since a flood asks for very many.
fn fresh(rng: &mut dyn SecureRandom) -> Integ {
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    rng.fill(&mut *secret);
    Integ::new(IntegId::AUTH_AES_CMAC_96, &*secret).expect("AES-CMAC takes a key of 16 bytes")
}

fn mac(
    secret: &Integ,
    difficulty: u8,
    nonce: &[u8],
    from: SocketAddr,
    spi_i: IkeSpi,
) -> [u8; MAC_LEN] {
    let mut mac = [0; MAC_LEN];
    let (v4, v6);
    let ip = match from.ip() {
        IpAddr::V4(ip) => {
            v4 = ip.octets();
            &v4[..]
        }
        IpAddr::V6(ip) => {
            v6 = ip.octets();
            &v6[..]
        }
    };
    let len = if from.is_ipv4() { 4 } else { 16 };
    // The parts of fixed length come first and the address has its own with it, so that no two inputs run together. Short, since
    // with a nonce of 32 bytes and IPv4 it is three blocks of AES.
    let (spi_i, port) = (spi_i.0.to_be_bytes(), from.port().to_be_bytes());
    secret.sign(&[&[difficulty], &spi_i, &port, &[len], ip, nonce], &mut mac);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl SecureRandom for Counting {
        fn fill(&mut self, buf: &mut [u8]) {
            self.0 += 1;
            buf.fill(self.0);
        }
    }

    #[test]
    fn cookie_is_good_for_its_initiator_until_the_secret_changed_twice() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let mut rng = Counting(0);
        let mut jar = CookieJar::new(start, &mut rng);
        let from = "192.0.2.1:500".parse().unwrap();
        let cookie = jar.bake(9, &[7; 32], from, IkeSpi(1));
        let good = |jar: &CookieJar| jar.recognise(&cookie, &[7; 32], from, IkeSpi(1));
        assert_eq!(good(&jar), Some(9));
        assert_eq!(jar.recognise(&cookie, &[8; 32], from, IkeSpi(1)), None, "another nonce");
        let elsewhere = "192.0.2.1:501".parse().unwrap();
        assert_eq!(jar.recognise(&cookie, &[7; 32], elsewhere, IkeSpi(1)), None);
        assert_eq!(jar.recognise(&cookie, &[7; 32], from, IkeSpi(2)), None);
        for len in 0..cookie.len() {
            assert_eq!(jar.recognise(&cookie[..len], &[7; 32], from, IkeSpi(1)), None);
        }
        let longer = [&cookie[..], &[0]].concat();
        assert_eq!(jar.recognise(&longer, &[7; 32], from, IkeSpi(1)), None, "trailing byte");
        let mut easier = cookie;
        easier[1] = 8;
        assert_eq!(jar.recognise(&easier, &[7; 32], from, IkeSpi(1)), None, "another difficulty");
        jar.rotate(start, &mut rng);
        assert_eq!(jar.version, 0, "not due yet");
        jar.rotate(jar.changes_at, &mut rng);
        assert_eq!(good(&jar), Some(9));
        jar.rotate(jar.changes_at, &mut rng);
        assert_eq!(good(&jar), None);
    }
}
