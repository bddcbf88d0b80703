//! RFC 7296 §2.12: keys, and what they come from, are forgotten with what they were for. An allocator looks through all memory that is
//! given back, of two endpoints that make, rekey and delete SAs, for every key that there is: what is freed has none in it.
//!
//! The session is the same each time, since randomness comes from a seed: once to learn the keys, and once more to look for them. What is on
//! the stack or in registers is not seen.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on is to fail")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use ipsecd::crypto::Secret;
use ipsecd::ike::{EndpointConfig, Event};
use ipsecd::ipsec::pad::{Auth, Peer, Ppk};
use ipsecd::testing::{A, B, LinkConfig, Pair, Side, peers};
use ipsecd::wire::ike::numbers::{EncrId, IntegId, KeId};

/// The system's allocator, looking at what is given back.
struct Looking;

/// So many bytes of a key are enough to know it by.
const HEAD: usize = 12;

const NOTHING: *const [[u8; HEAD]] = core::ptr::slice_from_raw_parts(core::ptr::null(), 0);

thread_local! {
    /// What is looked for; null: nothing.
    static WANTED: Cell<*const [[u8; HEAD]]> = const { Cell::new(NOTHING) };
    static FOUND: Cell<u64> = const { Cell::new(0) };
    /// The first that was found, by its number among what is looked for, and the size of the block.
    static FIRST: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
    static LOOKED_AT: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Looking = Looking;

/// # Safety
/// `pointer` is a block of `len` bytes that is about to be given back.
unsafe fn look(pointer: *const u8, len: usize) {
    let Ok(wanted) = WANTED.try_with(Cell::get) else { return };
    if wanted.is_null() || len < HEAD {
        return;
    }
    LOOKED_AT.set(LOOKED_AT.get() + len as u64);
    // SAFETY: it points at a value of the test that is running, which outlives the time for which it is set.
    let wanted = unsafe { &*wanted };
    for at in 0..=len - HEAD {
        let mut here = [0; HEAD];
        for (offset, byte) in here.iter_mut().enumerate() {
            // SAFETY: within the block. Whatever was not written to has some value all the same.
            *byte = unsafe { pointer.add(at + offset).read_volatile() };
        }
        if let Some(which) = wanted.iter().position(|key| *key == here) {
            FOUND.set(FOUND.get() + 1);
            if FIRST.get().is_none() {
                FIRST.set(Some((which, len)));
            }
        }
    }
}

// SAFETY: every call is handed to the system's allocator as it is.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised: it is a block of this size.
        unsafe { look(pointer, layout.size()) };
        // So that what is found in a block was written by whoever gives it back, and not by whoever had it before.
        // SAFETY: as the caller promised: nobody uses it any more.
        unsafe { pointer.write_bytes(0, layout.size()) };
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A session to look at.
struct Session {
    suite: (EncrId, Option<u16>, IntegId),
    additional: bool,
    ppk: bool,
}

impl Session {
    fn peer(&self, mut peer: Peer, psk: &[u8]) -> Peer {
        peer.auth = Auth::psk(Secret::copy_of(psk));
        let (id, key_bits, integ) = self.suite;
        let encr = ipsecd::ipsec::suite::Encr { id, key_bits };
        let integs = if integ == IntegId::NONE { vec![] } else { vec![integ] };
        let ike = &mut peer.ike.proposals[0];
        (ike.encr, ike.integ) = (vec![encr], integs.clone());
        let child = &mut peer.children[0].proposals[0];
        (child.encr, child.integ) = (vec![encr], integs);
        child.ke = vec![KeId::CURVE25519];
        if self.additional {
            ike.addke[0] = vec![KeId::ML_KEM_512];
        }
        if self.ppk {
            let key = Secret::copy_of(b"a post-quantum preshared key of its own");
            peer.ppk = Some(Ppk { id: b"a-b".to_vec(), key, required: true });
        }
        peer
    }

    /// From the first message to the end of everything; what `each` sees of a side now and then.
    fn run(&self, export_keys: bool, mut each: impl FnMut(&Pair, Side)) {
        let psk = b"the preshared key of this test alone";
        let (a, b) = (self.peer(peers::site_a(), psk), self.peer(peers::site_b(), psk));
        let config = EndpointConfig { export_keys, ..EndpointConfig::default() };
        let mut pair = Pair::with_config(3, LinkConfig::PERFECT, a, b, config);
        pair.initiate(A);
        let mut go_on = |pair: &mut Pair| {
            pair.run_for(Duration::from_secs(15));
            each(pair, A);
            each(pair, B);
        };
        go_on(&mut pair);
        pair.check_established(1).unwrap();
        pair.rekey_children(A).unwrap();
        go_on(&mut pair);
        pair.rekey_ike(B).unwrap();
        go_on(&mut pair);
        pair.rekey_children(B).unwrap();
        go_on(&mut pair);
        pair.check_established(1).unwrap();
        pair.terminate(A).unwrap();
        go_on(&mut pair);
        pair.check_gone().unwrap();
    }

    /// Every key of it.
    fn keys(&self) -> Vec<[u8; HEAD]> {
        let mut keys = BTreeSet::new();
        let mut note = |secret: &Secret| {
            if let Some(head) = secret.expose().first_chunk::<HEAD>() {
                keys.insert(*head);
            }
        };
        note(&Secret::copy_of(b"the preshared key of this test alone"));
        note(&Secret::copy_of(b"a post-quantum preshared key of its own"));
        self.run(true, |pair, side| {
            for sa in pair.node(side).sad.all_inbound().chain(pair.node(side).sad.all_outbound()) {
                note(&sa.encr_key);
                note(&sa.integ_key);
            }
            for (_, event) in &pair.node(side).events {
                if let Event::IkeKeys { keys, .. } = event {
                    let all = [
                        &keys.sk_d,
                        &keys.sk_ai,
                        &keys.sk_ar,
                        &keys.sk_ei,
                        &keys.sk_er,
                        &keys.sk_pi,
                        &keys.sk_pr,
                    ];
                    all.into_iter().for_each(&mut note);
                }
            }
        });
        keys.into_iter().collect()
    }
}

/// Looks at all that is given back while something is done: how often a key was there, the first, and at how many bytes it looked.
fn look_for(wanted: &[[u8; HEAD]], done: impl FnOnce()) -> (u64, Option<(usize, usize)>, u64) {
    FOUND.set(0);
    FIRST.set(None);
    LOOKED_AT.set(0);
    WANTED.set(wanted);
    done();
    WANTED.set(NOTHING);
    (FOUND.get(), FIRST.get(), LOOKED_AT.get())
}

#[test]
fn no_key_of_an_ike_sa_or_a_child_sa_is_in_memory_that_is_given_back() {
    let gcm = (EncrId::ENCR_AES_GCM_16, Some(256), IntegId::NONE);
    let cbc = (EncrId::ENCR_AES_CBC, Some(256), IntegId::AUTH_HMAC_SHA2_256_128);
    let chacha = (EncrId::ENCR_CHACHA20_POLY1305, None, IntegId::NONE);
    for session in [
        Session { suite: gcm, additional: false, ppk: false },
        Session { suite: chacha, additional: true, ppk: true },
        Session { suite: cbc, additional: false, ppk: false },
    ] {
        let keys = session.keys();
        assert!(keys.len() >= 2 + 2 * 5 + 3 * 2, "{} keys", keys.len());
        let (found, first, looked_at) = look_for(&keys, || session.run(false, |_, _| {}));
        assert!(looked_at > 100_000, "{looked_at} bytes");
        assert_eq!((found, first), (0, None), "of {} keys in {looked_at} bytes", keys.len());
    }
}

#[test]
fn a_key_that_is_not_wiped_is_found() {
    let key = *b"a key of some length, to be found";
    let wanted = vec![*key.first_chunk::<HEAD>().unwrap()];
    let (found, _, _) = look_for(&wanted, || drop(key.to_vec()));
    assert_eq!(found, 1);
    let (found, first, _) = look_for(&wanted, || drop([&[0; 7], &key[..]].concat()));
    assert_eq!((found, first), (1, Some((0, 7 + key.len()))));
    // Growing gives the old place back.
    let (found, _, _) = look_for(&wanted, || {
        let mut bytes = key.to_vec();
        bytes.reserve_exact(1000);
        bytes.fill(0);
        drop(bytes);
    });
    assert_eq!(found, 1);
    let (found, _, _) = look_for(&wanted, || drop(Secret::copy_of(&key)));
    assert_eq!(found, 0);
}
