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
        KeId::MODP_2048 => 256,
        KeId::MODP_3072 => 384,
        KeId::MODP_4096 => 512,
        _ => 0,
    }
}

#[test]
fn both_sides_agree_in_every_group() {
    for group in SUPPORTED {
        let (a, b) = (pair(group, 1), pair(group, 2));
        assert_eq!(a.group(), group);
        assert_eq!(a.public().len(), public_len(group), "{group}");
        assert_ne!(a.public(), b.public(), "{group}");
        let shared = a.agree(b.public()).unwrap();
        assert_eq!(shared, b.agree(a.public()).unwrap(), "{group}");
        // RFC 5903 §7: of the two coordinates only x.
        let ecp = matches!(group, KeId::ECP_256 | KeId::ECP_384);
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
    for group in SUPPORTED {
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
    for group in [KeId::MODP_2048, KeId::MODP_3072, KeId::MODP_4096] {
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
        _ => modp::MODP_4096.prime(),
    }
}

#[test]
fn points_off_the_curve_are_refused() {
    for group in [KeId::ECP_256, KeId::ECP_384] {
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
