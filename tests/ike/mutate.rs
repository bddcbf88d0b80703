//! Mutated datagrams: real ones, spoiled, given to endpoints in every state; and real requests spoiled inside their
//! protection by a peer that holds the keys.
//!
//! No input may panic, make an endpoint grow, get more than one answer, or, unless it is authenticated, change an
//! established SA. `IPSECD_MUTATIONS` sets how many datagrams there are, `IPSECD_SEED` where they begin.

use core::time::Duration;

use ipsecd::testing::{FixedRandom, Stage, State};
use ipsecd::wire::ike::header::{Flags, Header, IkeSpi};
use ipsecd::wire::ike::message::emit_chain;
use ipsecd::wire::ike::numbers::PayloadType;

use crate::support::*;

/// Datagrams given to one endpoint before the next is made.
const PER_STAGE: u64 = 2_000;
/// An endpoint of one peer never has more IKE SAs, half-open ones included.
const MOST_IKE_SAS: usize = 5_000;

/// Everything of established SAs that a status shows, but ages.
fn fingerprint(stage: &Stage) -> String {
    let status = stage.endpoint.status(stage.clock.now());
    let sas = status.iter().filter(|sa| sa.state != "CONNECTING").map(|sa| {
        let children: Vec<_> =
            sa.children.iter().map(|c| (c.spi_inbound, c.spi_outbound, c.state, c.path)).collect();
        format!("{:?} {:?} {} {:?} {children:?}\n", sa.spi_i, sa.spi_r, sa.state, sa.path)
    });
    let spis: Vec<_> = stage.sad.all_inbound().map(|sa| sa.spi).collect();
    sas.collect::<String>() + &format!("{spis:?}")
}

/// Spoils some bytes. The Length field is mostly mended, so that the parser gets further than the first check.
fn mutate(random: &mut FixedRandom, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut datagram = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        spoil(random, &mut datagram, corpus);
    }
    let length = u32::try_from(datagram.len()).unwrap();
    if random.chance(85)
        && let Some(field) = datagram.get_mut(24..28)
    {
        field.copy_from_slice(&length.to_be_bytes());
    }
    datagram
}

fn spoil(random: &mut FixedRandom, datagram: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    const INTERESTING: [u8; 12] = [0, 1, 2, 3, 4, 0x20, 0x28, 0x7f, 0x80, 0xff, 41, 46];
    if datagram.is_empty() {
        datagram.push(0);
    }
    let at = random.below(datagram.len());
    match random.below(9) {
        0 => datagram[at] ^= 1 << random.below(8),
        1 => datagram[at] = INTERESTING[random.below(INTERESTING.len())],
        2 => datagram[at] = random.next_u64().to_be_bytes()[0],
        3 => datagram.truncate(at),
        4 => datagram.extend(random.next_u64().to_be_bytes().iter().take(1 + at % 8)),
        5 => {
            // A piece of itself again: more payloads, proposals, selectors.
            let end = at + random.below(datagram.len() - at) + 1;
            let piece = datagram[at..end].to_vec();
            let to = random.below(datagram.len());
            datagram.splice(to..to, piece);
            datagram.truncate(4096);
        }
        6 => {
            // A piece of another message in its place.
            let other = &corpus[random.below(corpus.len())];
            for (byte, other) in datagram.iter_mut().zip(other).skip(at).take(16) {
                *byte = *other;
            }
        }
        7 => {
            // A header byte: SPIs, next payload, version, exchange, flags, message ID.
            let at = random.below(datagram.len().min(28));
            datagram[at] = INTERESTING[random.below(INTERESTING.len())];
        }
        _ => {
            let end = at + random.below(datagram.len() - at) + 1;
            datagram.drain(at..end);
        }
    }
}

/// Real datagrams of another implementation: the seeds of the fuzz target that parses messages.
fn captured() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/ike_message");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 5, "{} seeds in {folder}", files.len());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Resident memory of this process in bytes, where the system tells.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

fn count() -> u64 {
    number("IPSECD_MUTATIONS").unwrap_or(if cfg!(debug_assertions) { 40_000 } else { 1_000_000 })
}

/// Runs `batch` for each seed until there were enough datagrams, and watches over memory meanwhile.
fn without_growth(mut batch: impl FnMut(u64)) {
    let start = number("IPSECD_SEED").unwrap_or(0);
    let batches = count().div_ceil(PER_STAGE).max(1);
    // What tests beside this one take, and what the allocator keeps, is allowed for.
    let slack = 256 << 20;
    let mut before = None;
    for seed in start..start + batches {
        batch(seed);
        if seed == start + batches / 10 {
            before = memory();
        }
    }
    if let (Some(before), Some(after)) = (before, memory()) {
        assert!(after < before + slack, "memory went from {before} to {after} bytes");
    }
}

#[test]
fn mutated_datagrams_neither_panic_nor_grow_nor_change_an_established_sa() {
    let captured = captured();
    without_growth(|seed| {
        let state = State::ALL[usize::try_from(seed).unwrap() % State::ALL.len()];
        let (mut stage, corpus) = state.stage(seed).unwrap();
        let mut random = FixedRandom::new(seed, 9);
        let before = fingerprint(&stage);
        for n in 0..PER_STAGE {
            let from = if random.chance(20) { &captured } else { &corpus };
            let datagram = mutate(&mut random, from);
            if corpus.contains(&datagram) {
                continue;
            }
            let sent = stage.give(&datagram);
            let what = || format!("{state:?} seed {seed} datagram {n}: {datagram:02x?}");
            // An initiator that takes INVALID_KE_PAYLOAD or COOKIE sends one request; nothing makes anyone send two.
            assert!(sent.len() <= 1, "{} datagrams in answer to {}", sent.len(), what());
            if state.is_established() && n % 16 == 0 {
                assert_eq!(fingerprint(&stage), before, "{}", what());
            }
        }
        if state.is_established() {
            assert_eq!(fingerprint(&stage), before, "{state:?} seed {seed}");
        }
        assert!(stage.ike_sas() <= MOST_IKE_SAS, "{} IKE SAs", stage.ike_sas());
        assert_eq!(stage.violations, [], "{state:?} seed {seed}");
        // And time goes on without a hang, to the end of everything half-open.
        stage.pass_time(Duration::from_secs(600));
        assert!(stage.ike_sas() <= 1, "{state:?} seed {seed}: {} IKE SAs left", stage.ike_sas());
        assert_eq!(stage.violations, [], "{state:?} seed {seed}");
    });
}

#[test]
fn rubbish_under_protection_neither_panics_nor_grows() {
    without_growth(|seed| {
        let mut random = FixedRandom::new(seed, 10);
        let mut made = 0_u64;
        let mut given = 0;
        while given < PER_STAGE {
            let state = State::ESTABLISHED[random.below(State::ESTABLISHED.len())];
            let (mut stage, _) = state.stage(seed.wrapping_mul(1000).wrapping_add(made)).unwrap();
            made += 1;
            let bodies: Vec<_> = stage
                .bodies()
                .into_iter()
                .map(|(exchange, payloads)| {
                    let mut inner = Vec::new();
                    let first = emit_chain(&payloads, &mut inner);
                    (exchange, first, inner)
                })
                .collect();
            let inners: Vec<_> = bodies.iter().map(|(_, _, inner)| inner.clone()).collect();
            for iv in 0..200 {
                given += 1;
                let (exchange, first, inner) = &bodies[random.below(bodies.len())];
                let mut inner = inner.clone();
                for _ in 0..=random.below(3) {
                    spoil(&mut random, &mut inner, &inners);
                }
                let response = random.chance(30);
                let message_id = if response { 0 } else { stage.puppet.message_id };
                let header = stage.puppet.header(*exchange, response, message_id);
                let first = if random.chance(90) {
                    *first
                } else {
                    PayloadType(33 + inner.first().unwrap_or(&0) % 16)
                };
                let iv = 1 << 40 | iv << 8;
                let sent = if random.chance(70) {
                    let sealed = stage.puppet.seal_bytes(header, first, &inner, iv).unwrap();
                    stage.give(&sealed)
                } else {
                    give_in_fragments(&mut stage, &mut random, header, first, &inner, iv)
                };
                let what = || format!("{state:?} seed {seed} {exchange}: {inner:02x?}");
                // A response, and a request that the message gave rise to, one for each CHILD_SA at most.
                assert!(sent.len() <= 3, "{} datagrams in answer to {}", sent.len(), what());
                assert_eq!(stage.violations, [], "{}", what());
                assert!(stage.ike_sas() <= 4, "{} IKE SAs after {}", stage.ike_sas(), what());
                let spis = stage.sad.all_inbound().count();
                assert!(spis <= 64, "{spis} CHILD_SAs after {}", what());
                if !response && answered(&sent, message_id) {
                    stage.puppet.message_id += 1;
                }
                if stage.ike_sas() == 0 {
                    break;
                }
            }
            stage.pass_time(Duration::from_secs(600));
            assert_eq!(stage.violations, [], "{state:?} seed {seed}");
        }
    });
}

/// Seals it in fragments that come in order, mostly all of them, some of them twice or with other numbers.
fn give_in_fragments(
    stage: &mut Stage,
    random: &mut FixedRandom,
    header: Header,
    first: PayloadType,
    inner: &[u8],
    iv: u64,
) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    let chunks: Vec<_> = inner.chunks(1 + random.below(100)).collect();
    let total = u16::try_from(chunks.len()).unwrap();
    for (n, chunk) in chunks.into_iter().enumerate() {
        let mut fragment = (u16::try_from(n + 1).unwrap(), total);
        match random.below(40) {
            0 => continue,
            1 => fragment.0 = 1 + u16::try_from(random.below(3)).unwrap(),
            2 => fragment.1 = fragment.0 + u16::try_from(random.below(300)).unwrap(),
            _ => {}
        }
        let first = if n == 0 { first } else { PayloadType::NONE };
        let iv = iv + u64::try_from(n % 256).unwrap();
        let sealed = stage.puppet.seal_fragment_bytes(header, first, fragment, chunk, iv).unwrap();
        for _ in 0..=usize::from(random.chance(10)) {
            sent.extend(stage.give(&sealed));
        }
    }
    sent
}

fn answered(sent: &[Vec<u8>], message_id: u32) -> bool {
    let info = sent.iter().filter_map(|datagram| ipsecd::testing::MessageInfo::of(datagram));
    info.into_iter().any(|info| info.response && info.message_id == message_id)
}

#[test]
fn pure_noise_gets_no_answer_and_leaves_nothing() {
    let mut random = FixedRandom::new(1, 11);
    let mut stage = Stage::established_responder(1).unwrap();
    let before = fingerprint(&stage);
    let mut answers = 0;
    for _ in 0..count() / 10 {
        let len = random.below(200);
        let datagram: Vec<u8> = (0..len).map(|_| random.next_u64().to_be_bytes()[3]).collect();
        answers += stage.give(&datagram).len();
    }
    assert_eq!(fingerprint(&stage), before);
    assert!(answers < 100, "{answers} answers to noise");
}

#[test]
fn ike_sa_init_of_a_response_or_with_a_responder_spi_makes_nothing() {
    let mut stage = Stage::responder(1);
    let payloads = stage.puppet.init_payloads();
    let mut headers = vec![];
    for (response, initiator, spi_r, message_id) in
        [(true, true, 0, 0), (false, true, 5, 0), (false, true, 0, 1), (false, false, 0, 0)]
    {
        let flags = Flags::new(initiator, response);
        headers.push(Header::new(IkeSpi(77), IkeSpi(spi_r), IKE_SA_INIT, flags, message_id));
    }
    headers.push(Header::new(IkeSpi(0), IkeSpi(0), IKE_SA_INIT, Flags::new(true, false), 0));
    for header in headers {
        let message =
            ipsecd::wire::ike::message::Message { header, payloads: payloads.clone() }.emit();
        assert!(stage.give(&message).len() <= 1);
        assert_eq!(stage.ike_sas(), 0, "{header:?}");
    }
}
