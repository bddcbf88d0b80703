//! MODP groups 14 to 16 (RFC 3526 §3 to §5): exponentiation modulo a safe prime, generator 2.
//!
//! Constant time in the exponent, by Montgomery multiplication with a fixed window; only the bit
//! length of exponents, which is the group's, shows in the time.

use std::sync::LazyLock;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, Uint};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::dh::BadPublicValue;
use crate::crypto::{Secret, SecureRandom};

/// A private exponent of `LIMBS` 64-bit words, wiped when dropped.
pub(super) struct Exponent<const LIMBS: usize>(Zeroizing<Uint<LIMBS>>);

impl<const LIMBS: usize> Exponent<LIMBS> {
    /// Random, of full length: the highest bit is set, which costs one bit of the choice and rules
    /// 0 and 1 out.
    pub(super) fn generate(rng: &mut dyn SecureRandom) -> Self {
        let mut bytes = Zeroizing::new(vec![0; LIMBS * LIMB_BYTES]);
        rng.fill(&mut bytes);
        bytes[0] |= 0x80;
        Self(Zeroizing::new(Uint::from_be_slice(&bytes)))
    }
}

/// A group: `LIMBS` 64-bit words in the prime, `EXPONENT` in private exponents.
pub(super) struct Group<const LIMBS: usize, const EXPONENT: usize> {
    params: FixedMontyParams<LIMBS>,
}

impl<const LIMBS: usize, const EXPONENT: usize> Group<LIMBS, EXPONENT> {
    fn new(prime: &str) -> Self {
        let prime = Odd::new(Uint::from_be_hex(prime)).expect("the primes are odd");
        Self { params: FixedMontyParams::new_vartime(prime) }
    }

    /// 2^x mod p, as long as p.
    pub(super) fn public(&self, exponent: &Exponent<EXPONENT>) -> Vec<u8> {
        self.power(&Uint::from_u64(GENERATOR), exponent).expose().to_vec()
    }

    /// y^x mod p, as long as p: leading zeros are kept (RFC 7296 §2.14).
    pub(super) fn agree(
        &self,
        exponent: &Exponent<EXPONENT>,
        peer_public: &[u8],
    ) -> Result<Secret, BadPublicValue> {
        if peer_public.len() != LIMBS * LIMB_BYTES {
            return Err(BadPublicValue::Length {
                expected: LIMBS * LIMB_BYTES,
                got: peer_public.len(),
            });
        }
        // RFC 6989 §2.1: for safe primes, 1 < y < p - 1 suffices. The value is public, and so is
        // this comparison.
        let y = Uint::<LIMBS>::from_be_slice(peer_public);
        let p_minus_1 = self.params.modulus().as_ref().wrapping_sub(&Uint::ONE);
        if y <= Uint::ONE || y >= p_minus_1 {
            return Err(BadPublicValue::OutOfRange);
        }
        Ok(self.power(&y, exponent))
    }

    /// The prime.
    #[cfg(test)]
    pub(super) fn prime(&self) -> Vec<u8> {
        self.params.modulus().as_ref().to_be_bytes().as_ref().to_vec()
    }

    fn power(&self, base: &Uint<LIMBS>, exponent: &Exponent<EXPONENT>) -> Secret {
        let mut power = FixedMontyForm::new(base, &self.params).pow(&*exponent.0);
        let mut number = power.retrieve();
        let mut bytes = number.to_be_bytes();
        let secret = Secret::copy_of(bytes.as_ref());
        power.zeroize();
        number.zeroize();
        bytes.as_mut().zeroize();
        secret
    }
}

// Exponents are at least twice the higher estimate of the group's strength (RFC 3526 §8), in whole
// words: 320, 420 and 480 bits.

/// Words in a private exponent of MODP-2048: 320 bits.
pub(super) const MODP_2048_EXPONENT_LIMBS: usize = 5;
/// Words in a private exponent of MODP-3072: 448 bits.
pub(super) const MODP_3072_EXPONENT_LIMBS: usize = 7;
/// Words in a private exponent of MODP-4096: 512 bits.
pub(super) const MODP_4096_EXPONENT_LIMBS: usize = 8;

const LIMB_BYTES: usize = 8;
const GENERATOR: u64 = 2;

/// Group 14 (RFC 3526 §3).
pub(super) static MODP_2048: LazyLock<Group<32, MODP_2048_EXPONENT_LIMBS>> =
    LazyLock::new(|| Group::new(PRIME_2048));

/// Group 15 (RFC 3526 §4).
pub(super) static MODP_3072: LazyLock<Group<48, MODP_3072_EXPONENT_LIMBS>> =
    LazyLock::new(|| Group::new(PRIME_3072));

/// Group 16 (RFC 3526 §5).
pub(super) static MODP_4096: LazyLock<Group<64, MODP_4096_EXPONENT_LIMBS>> =
    LazyLock::new(|| Group::new(PRIME_4096));

const PRIME_2048: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
    020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
    4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05\
    98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718\
    3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF";

const PRIME_3072: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
    020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
    4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05\
    98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718\
    3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33\
    A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
    ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
    D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2\
    08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF";

const PRIME_4096: &str = "\
    FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
    020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
    4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
    EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05\
    98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
    9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B\
    E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718\
    3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33\
    A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7\
    ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
    D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2\
    08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7\
    88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8\
    DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D99B2964FA090C3A2\
    233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
    93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF";
