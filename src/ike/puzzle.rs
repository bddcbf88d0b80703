//! Client puzzles (RFC 8019 §7.1, §8): work that a responder under attack asks for before it does any itself.
//!
//! The puzzle is a COOKIE, a PRF and a number of bits; the solution has four keys, of which each turns the COOKIE into something that ends
//! with so many zero bits. Puzzles of IKE_AUTH (§7.2) are neither given nor solved.

use super::limits;
use crate::crypto::prf::Prf;
use crate::wire::Reader;
use crate::wire::ike::numbers::{NotifyType, PayloadType, PrfId, TransformType};
use crate::wire::ike::payload::{Notify, Payload, Sa};

/// RFC 8019 §7.1.3: keys in a solution.
const KEYS: usize = 4;
/// Bytes of our keys: enough to be different, and no more.
const KEY_LEN: usize = 8;

/// What a PUZZLE notify says (RFC 8019 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Puzzle {
    pub(super) prf: PrfId,
    /// Zero bits that each result ends with; 0 leaves the number to who solves it.
    pub(super) difficulty: u8,
}

impl Puzzle {
    pub(super) fn parse(notify: &Notify) -> Option<Self> {
        let mut reader = Reader::new("PUZZLE", &notify.data);
        let puzzle = Self { prf: PrfId(reader.u16().ok()?), difficulty: reader.u8().ok()? };
        reader.all().ok()?;
        Some(puzzle)
    }

    pub(super) fn notify(self) -> Payload {
        let [high, low] = self.prf.0.to_be_bytes();
        Payload::Notify(Notify::new(NotifyType::PUZZLE, [high, low, self.difficulty]))
    }

    /// Whether the body of a Puzzle Solution payload solves it.
    pub(super) fn is_solved_by(self, cookie: &[u8], solution: &[u8]) -> bool {
        let Some(prf) = Prf::new(self.prf) else { return false };
        let len = solution.len() / KEYS;
        // RFC 8019 §8.2: four keys of one length, each another.
        if len == 0 || len > limits::MAX_PUZZLE_KEY || !solution.len().is_multiple_of(KEYS) {
            return false;
        }
        let keys: Vec<_> = solution.chunks_exact(len).collect();
        let different =
            keys.iter().enumerate().all(|(at, key)| !keys.iter().take(at).any(|it| it == key));
        different && keys.iter().all(|key| zero_bits(prf, key, cookie) >= self.difficulty.into())
    }
}

/// The function for a puzzle: the first that the initiator offers and that we have (RFC 8019 §7.1.1.2).
pub(super) fn prf_for(sa: &Sa) -> Option<PrfId> {
    sa.proposals
        .iter()
        .flat_map(|proposal| &proposal.transforms)
        .filter(|transform| transform.transform_type == TransformType::PRF)
        .map(|transform| PrfId(transform.id))
        .find(|prf| Prf::new(*prf).is_some())
}

/// A puzzle that is being solved, a slice at a time.
pub(super) struct Solver {
    prf: Prf,
    bits: u32,
    cookie: Vec<u8>,
    tried: u64,
    found: Vec<[u8; KEY_LEN]>,
}

impl Solver {
    /// `None` if it takes a function that we do not have, or more work than we give.
    pub(super) fn new(puzzle: Puzzle, cookie: &[u8]) -> Option<Self> {
        if puzzle.difficulty > limits::MAX_PUZZLE_DIFFICULTY {
            return None;
        }
        let bits =
            if puzzle.difficulty == 0 { limits::FREE_PUZZLE_BITS } else { puzzle.difficulty };
        let prf = Prf::new(puzzle.prf)?;
        Some(Self { prf, bits: bits.into(), cookie: cookie.to_vec(), tried: 0, found: Vec::new() })
    }

    /// Tries so many keys. The Puzzle Solution payload, once it is solved.
    pub(super) fn work(&mut self, tries: u32) -> Option<Payload> {
        for _ in 0..tries {
            let key = self.tried.to_be_bytes();
            self.tried += 1;
            if zero_bits(self.prf, &key, &self.cookie) >= self.bits {
                self.found.push(key);
                if self.found.len() == KEYS {
                    return Some(Payload::Unknown {
                        payload_type: PayloadType::PS,
                        critical: false,
                        body: self.found.concat(),
                    });
                }
            }
        }
        None
    }

    /// Whether it has taken eight times the tries that it should.
    pub(super) fn is_hopeless(&self) -> bool {
        self.tried >> (self.bits + 5) > 0
    }
}

/// The zero bits at the end of PRF(key, cookie).
fn zero_bits(prf: Prf, key: &[u8], cookie: &[u8]) -> u32 {
    let result = prf.compute(key, &[cookie]);
    let mut bits = 0;
    for byte in result.expose().iter().rev() {
        bits += byte.trailing_zeros();
        if *byte != 0 {
            break;
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: &[u8] = b"a cookie of some length";
    const PUZZLE: Puzzle = Puzzle { prf: PrfId::PRF_HMAC_SHA2_256, difficulty: 10 };

    fn solution(puzzle: Puzzle) -> Vec<u8> {
        let mut solver = Solver::new(puzzle, COOKIE).unwrap();
        loop {
            if let Some(Payload::Unknown { body, .. }) = solver.work(100) {
                return body;
            }
            assert!(!solver.is_hopeless());
        }
    }

    #[test]
    fn what_is_solved_holds_for_its_cookie_and_its_difficulty() {
        let solved = solution(PUZZLE);
        assert_eq!(solved.len(), KEYS * KEY_LEN);
        assert!(PUZZLE.is_solved_by(COOKIE, &solved));
        assert!(!PUZZLE.is_solved_by(b"another", &solved));
        assert!(!Puzzle { difficulty: 24, ..PUZZLE }.is_solved_by(COOKIE, &solved));
        assert!(!Puzzle { prf: PrfId::PRF_HMAC_SHA2_512, ..PUZZLE }.is_solved_by(COOKIE, &solved));
    }

    #[test]
    fn solution_has_four_different_keys_of_one_length() {
        let solved = solution(PUZZLE);
        let one = &solved[..KEY_LEN];
        for wrong in [
            one.repeat(KEYS),
            solved[..3 * KEY_LEN].to_vec(),
            solved[1..].to_vec(),
            Vec::new(),
            vec![0; KEYS * (limits::MAX_PUZZLE_KEY + 1)],
        ] {
            assert!(!PUZZLE.is_solved_by(COOKIE, &wrong), "{} bytes", wrong.len());
        }
    }

    /// The cookie of RFC 8019 §4.4. The keys and their zero bits are by Python's `hmac`: those that the RFC prints have no
    /// more zero bits than chance gives, by HMAC-SHA-256 as by the other functions there are.
    #[test]
    fn solutions_found_by_another_hmac_hold() {
        let cookie = [
            0x73, 0x9a, 0xe7, 0x49, 0x2d, 0x8a, 0x81, 0x0c, 0xf5, 0xe8, 0xdc, 0x0f, 0x96, 0x26,
            0xc9, 0xdd, 0xa7, 0x73, 0xc5, 0xa3,
        ];
        let keys = [[0x00, 0xcd, 0x8a], [0x02, 0x08, 0xa8], [0x03, 0x90, 0xf7], [0x05, 0x33, 0xf7]];
        let prf = Prf::new(PUZZLE.prf).unwrap();
        assert_eq!(keys.map(|key| zero_bits(prf, &key, &cookie)), [18, 17, 19, 17]);
        assert!(Puzzle { difficulty: 17, ..PUZZLE }.is_solved_by(&cookie, &keys.concat()));
        assert!(!Puzzle { difficulty: 18, ..PUZZLE }.is_solved_by(&cookie, &keys.concat()));
    }

    #[test]
    fn more_work_than_we_give_is_not_begun() {
        let hard = Puzzle { difficulty: limits::MAX_PUZZLE_DIFFICULTY + 1, ..PUZZLE };
        assert!(Solver::new(hard, COOKIE).is_none());
        assert!(Solver::new(Puzzle { prf: PrfId(1), ..PUZZLE }, COOKIE).is_none());
        assert!(Solver::new(Puzzle { difficulty: 0, ..PUZZLE }, COOKIE).is_some());
    }
}
