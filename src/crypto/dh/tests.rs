//! Published values of these groups are under `vectors/`; here are the checks and the encodings.

use super::*;
use crate::crypto::random::testing::Fixed;

fn pair(group: KeId, seed: u8) -> KeyPair {
    KeyPair::generate(group, &mut Fixed::new(&[seed, 3, 1, 4, 1, 5, 9])).unwrap()
}

const fn public_len(group: KeId) -> usize {
    match group {
        KeId::CURVE25519 => 32,
        KeId::ECP_256 => 64,
        KeId::ECP_384 => 96,
        KeId::ECP_521 => 132,
        KeId::ML_KEM_512 => 800,
        KeId::ML_KEM_768 => 1184,
        KeId::ML_KEM_1024 => 1568,
        KeId::MODP_2048 => 256,
        KeId::MODP_3072 => 384,
        KeId::MODP_4096 => 512,
        KeId::MODP_6144 => 768,
        KeId::MODP_8192 => 1024,
        _ => 0,
    }
}

const DIFFIE_HELLMAN: [KeId; 9] = [
    KeId::CURVE25519,
    KeId::ECP_256,
    KeId::ECP_384,
    KeId::ECP_521,
    KeId::MODP_2048,
    KeId::MODP_3072,
    KeId::MODP_4096,
    KeId::MODP_6144,
    KeId::MODP_8192,
];
const ML_KEM: [KeId; 3] = [KeId::ML_KEM_512, KeId::ML_KEM_768, KeId::ML_KEM_1024];

/// draft-ietf-ipsecme-ikev2-mlkem §2.2: bytes of what the responder sends.
const fn response_len(group: KeId) -> usize {
    match group {
        KeId::ML_KEM_512 => 768,
        KeId::ML_KEM_768 => 1088,
        KeId::ML_KEM_1024 => 1568,
        _ => public_len(group),
    }
}

fn answer(group: KeId, public: &[u8]) -> Result<Response, BadPublicValue> {
    respond(group, public, &mut Fixed::new(&[2, 7, 1, 8, 2, 8])).unwrap()
}

#[test]
fn responder_and_initiator_have_the_same_secret_by_every_method() {
    for group in SUPPORTED {
        let ours = pair(group, 1);
        assert_eq!(ours.public().len(), public_len(group), "{group}");
        let theirs = answer(group, ours.public()).unwrap();
        assert_eq!(theirs.public.len(), response_len(group), "{group}");
        assert_eq!(ours.agree(&theirs.public).unwrap(), theirs.shared, "{group}");
    }
}

#[test]
fn encapsulation_keys_out_of_range_or_length_are_refused() {
    for group in ML_KEM {
        let mut public = pair(group, 1).public().to_vec();
        // The first coefficient is q = 3329: its lower eight bits, then in the lower half of the next byte the upper four.
        public[0] = 0x01;
        public[1] = (public[1] & 0xf0) | 0x0d;
        let refused = answer(group, &public).map(|response| response.public);
        assert_eq!(refused, Err(BadPublicValue::NotReduced), "{group}");
        public[0] = 0x00;
        assert!(answer(group, &public).is_ok(), "{group}: q - 1");
        let expected = public.len();
        for got in [0, expected - 1, expected + 1] {
            public.resize(got, 0);
            let refused = answer(group, &public).map(|response| response.public);
            assert_eq!(refused, Err(BadPublicValue::Length { expected, got }), "{group}");
        }
    }
}

#[test]
fn damaged_ciphertexts_give_another_secret_and_no_error() {
    for group in ML_KEM {
        let ours = pair(group, 1);
        let theirs = answer(group, ours.public()).unwrap();
        let mut ciphertext = theirs.public;
        ciphertext[7] ^= 1;
        let rejected = ours.agree(&ciphertext).unwrap();
        assert_eq!(rejected.len(), theirs.shared.len());
        assert_ne!(rejected, theirs.shared, "{group}");
        // FIPS 203 §7.3: of the same ciphertext always the same.
        assert_eq!(ours.agree(&ciphertext).unwrap(), rejected, "{group}");
        let (expected, got) = (ciphertext.len(), ciphertext.len() - 1);
        ciphertext.pop();
        assert_eq!(ours.agree(&ciphertext), Err(BadPublicValue::Length { expected, got }));
    }
}

#[test]
fn both_sides_agree_in_every_group() {
    for group in DIFFIE_HELLMAN {
        let (a, b) = (pair(group, 1), pair(group, 2));
        assert_eq!(a.group(), group);
        assert_eq!(a.public().len(), public_len(group), "{group}");
        assert_ne!(a.public(), b.public(), "{group}");
        let shared = a.agree(b.public()).unwrap();
        assert_eq!(shared, b.agree(a.public()).unwrap(), "{group}");
        // RFC 5903 §7: of the two coordinates only x.
        let ecp = matches!(group, KeId::ECP_256 | KeId::ECP_384 | KeId::ECP_521);
        assert_eq!(shared.len(), public_len(group) / if ecp { 2 } else { 1 }, "{group}");
    }
}

#[test]
fn same_randomness_gives_the_same_pair() {
    for group in SUPPORTED {
        assert_eq!(pair(group, 1).public(), pair(group, 1).public(), "{group}");
    }
}

#[test]
fn groups_we_do_not_have_are_refused() {
    for group in KeId::KNOWN {
        let made = KeyPair::generate(*group, &mut Fixed::new(&[1, 2, 3])).is_some();
        assert_eq!(made, supported(*group), "{group}");
    }
}

#[test]
fn public_value_of_another_length_is_refused() {
    for group in DIFFIE_HELLMAN {
        let (a, b) = (pair(group, 1), pair(group, 2));
        let expected = public_len(group);
        for got in [0, 1, expected - 1, expected + 1] {
            let mut public = b.public().to_vec();
            public.resize(got, 0);
            assert_eq!(a.agree(&public), Err(BadPublicValue::Length { expected, got }), "{group}");
        }
    }
}

#[test]
fn modp_values_outside_the_group_are_refused() {
    for group in
        [KeId::MODP_2048, KeId::MODP_3072, KeId::MODP_4096, KeId::MODP_6144, KeId::MODP_8192]
    {
        let a = pair(group, 1);
        let len = public_len(group);
        let mut small = vec![0; len];
        for y in [0, 1] {
            small[len - 1] = y;
            assert_eq!(a.agree(&small), Err(BadPublicValue::OutOfRange), "{group}: {y}");
        }
        small[len - 1] = 2;
        assert_eq!(a.agree(&small).unwrap().expose(), a.public(), "{group}: 2 is the generator");

        // The primes end in 64 one bits: p - 2 to p + 1 differ in the last byte, and 2^n - 1 is
        // above them all.
        let prime = prime(group);
        assert_eq!(prime[len - 8..], [0xff; 8]);
        let mut large = prime.clone();
        for (last, expected) in [(0xfd, true), (0xfe, false), (0xff, false)] {
            large[len - 1] = last;
            assert_eq!(a.agree(&large).is_ok(), expected, "{group}: {last:#x}");
        }
        assert_eq!(a.agree(&vec![0xff; len]), Err(BadPublicValue::OutOfRange), "{group}");
    }
}

fn prime(group: KeId) -> Vec<u8> {
    match group {
        KeId::MODP_2048 => modp::MODP_2048.prime(),
        KeId::MODP_3072 => modp::MODP_3072.prime(),
        KeId::MODP_4096 => modp::MODP_4096.prime(),
        KeId::MODP_6144 => modp::MODP_6144.prime(),
        _ => modp::MODP_8192.prime(),
    }
}

#[test]
fn points_off_the_curve_are_refused() {
    for group in [KeId::ECP_256, KeId::ECP_384, KeId::ECP_521] {
        let (a, b) = (pair(group, 1), pair(group, 2));
        let mut public = b.public().to_vec();
        let last = public.len() - 1;
        public[last] ^= 1;
        assert_eq!(a.agree(&public), Err(BadPublicValue::NotOnCurve), "{group}");
        assert_eq!(a.agree(&vec![0; last + 1]), Err(BadPublicValue::NotOnCurve), "{group}");
        assert_eq!(a.agree(&vec![0xff; last + 1]), Err(BadPublicValue::NotOnCurve), "{group}");
    }
}

#[test]
fn x25519_points_of_small_order_are_refused() {
    let a = pair(KeId::CURVE25519, 1);
    let mut one = [0; 32];
    one[0] = 1;
    // p - 1, p and p + 1, little endian (RFC 7748 §4.1: p = 2^255 - 19).
    let near_p = |low: u8| {
        let mut bytes = [0xff; 32];
        bytes[0] = low;
        bytes[31] = 0x7f;
        bytes
    };
    for public in [[0; 32], one, near_p(0xec), near_p(0xed), near_p(0xee)] {
        assert_eq!(a.agree(&public), Err(BadPublicValue::SmallOrder), "{public:02x?}");
    }
}

#[test]
fn debug_output_has_no_private_value() {
    assert_eq!(format!("{:?}", pair(KeId::CURVE25519, 1)), "KeyPair(CURVE25519, [redacted])");
}
