//! Seal and open of every kind of transform at 64, 576 and 1400 bytes, and the bare primitive on as many bytes in the
//! same run: `cargo bench --bench esp`, with a name (`aes128gcm16`) to run only that. At the end stands a table of
//! ratios, of the fastest runs, and before it lines `figure NAME VALUE UNIT` of them: 1.00 would be an SA that costs nothing beside its cryptography.
//!
//! Packets of an SA come 32 at a time, as the datapath seals and opens them (`OutboundSa::sealer`, `InboundSa::opening`); `alone`
//! is one by itself, with all that is counted for it. The bare primitive and an SA take turns every 1,000 packets, so that whatever
//! else the machine does hits both alike.
//!
//! A size is that of what is encrypted: payload, padding and trailer, as they go through both. For AES-GCM-16 and
//! ChaCha20-Poly1305 the bare primitive is `ring` itself, with an AAD of eight bytes; for the others it is
//! `ipsecd::crypto`, which adds a nonce and a match to what its libraries do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ipsecd::crypto::aead::Aead;
use ipsecd::crypto::cipher::{Cbc, Ctr};
use ipsecd::crypto::gmac::Gmac;
use ipsecd::crypto::integ::Integ;
use ipsecd::crypto::{Encr, Secret};
use ipsecd::ipsec::esp::EspLayout;
use ipsecd::ipsec::suite::EspSuite;
use ipsecd::ipsec::{InboundSa, OutboundSa, PacketBuf, SaParams};
use ipsecd::testing::peers;
use ipsecd::wire::ike::numbers::{EncrId, EsnId, IntegId};
use ipsecd::wire::ip::NextHeader;
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey,
};

const SIZES: [usize; 3] = [64, 576, 1400];

/// Packets that come together, between two looks at the clock if they are opened. So few stay in the cache.
const BATCH: usize = 32;

/// Packets between a turn of the bare primitive and one of ours: so many that the clock's error is small beside them, and so few
/// that the machine leaves some runs of each alone.
const RUN: u64 = 1000;

/// Pad Length and Next Header.
const TRAILER: usize = 2;

const AES: fn(EncrId, u16) -> Encr = |id, bits| Encr { id, key_bits: Some(bits) };
const FIXED: fn(EncrId) -> Encr = |id| Encr { id, key_bits: None };

fn suites() -> Vec<(&'static str, EspSuite)> {
    let none = IntegId::NONE;
    let cbc = AES(EncrId::ENCR_AES_CBC, 128);
    [
        ("aes128gcm16", AES(EncrId::ENCR_AES_GCM_16, 128), none),
        ("aes192gcm16", AES(EncrId::ENCR_AES_GCM_16, 192), none),
        ("aes256gcm16", AES(EncrId::ENCR_AES_GCM_16, 256), none),
        ("aes128gcm12", AES(EncrId::ENCR_AES_GCM_12, 128), none),
        ("aes256gcm8", AES(EncrId::ENCR_AES_GCM_8, 256), none),
        ("aes256gcm16iiv", AES(EncrId::ENCR_AES_GCM_16_IIV, 256), none),
        ("chacha20poly1305", FIXED(EncrId::ENCR_CHACHA20_POLY1305), none),
        ("aes128ccm16", AES(EncrId::ENCR_AES_CCM_16, 128), none),
        ("aes256ccm8", AES(EncrId::ENCR_AES_CCM_8, 256), none),
        ("aes128gmac", AES(EncrId::ENCR_NULL_AUTH_AES_GMAC, 128), none),
        ("aes128ctr-sha256", AES(EncrId::ENCR_AES_CTR, 128), IntegId::AUTH_HMAC_SHA2_256_128),
        ("aes128-sha256", cbc, IntegId::AUTH_HMAC_SHA2_256_128),
        ("aes128-sha384", cbc, IntegId::AUTH_HMAC_SHA2_384_192),
        ("aes128-sha512", cbc, IntegId::AUTH_HMAC_SHA2_512_256),
        ("aes128-sha1", cbc, IntegId::AUTH_HMAC_SHA1_96),
        ("aes128-aesxcbc", cbc, IntegId::AUTH_AES_XCBC_96),
        ("aes128-aescmac", cbc, IntegId::AUTH_AES_CMAC_96),
        ("null-sha256", FIXED(EncrId::ENCR_NULL), IntegId::AUTH_HMAC_SHA2_256_128),
    ]
    .into_iter()
    .map(|(name, encr, integ)| (name, EspSuite { encr, integ, esn: EsnId::NO_ESN }))
    .collect()
}

fn sa_params(suite: EspSuite) -> SaParams {
    SaParams {
        suite: suite.into(),
        encr_key: Secret::new(encr_key(suite)),
        integ_key: Secret::new(integ_key(suite)),
        replay_window: 64,
        ..peers::sa_params()
    }
}

fn encr_key(suite: EspSuite) -> Vec<u8> {
    vec![7; suite.encr.keymat_len().expect("an algorithm of ours")]
}

fn integ_key(suite: EspSuite) -> Vec<u8> {
    vec![8; Integ::key_len(suite.integ).unwrap_or(0)]
}

/// What protects a packet, without the SA around it.
enum Bare {
    Ring(Box<LessSafeKey>),
    Aead(Aead),
    Gmac(Gmac),
    Cbc(Cbc, Integ),
    Ctr(Ctr, Integ),
    Null(Integ),
}

impl Bare {
    fn new(suite: EspSuite) -> Self {
        let (encr, key) = (explicit(suite.encr), encr_key(suite));
        let ring = |algorithm: &'static ring::aead::Algorithm| {
            let key = UnboundKey::new(algorithm, &key[..algorithm.key_len()]).expect("its length");
            Self::Ring(Box::new(LessSafeKey::new(key)))
        };
        let integ = || Integ::new(suite.integ, &integ_key(suite)).expect("its length");
        match (encr.id, encr.key_bits) {
            (EncrId::ENCR_AES_GCM_16, Some(128)) => ring(&AES_128_GCM),
            (EncrId::ENCR_AES_GCM_16, Some(256)) => ring(&AES_256_GCM),
            (EncrId::ENCR_CHACHA20_POLY1305, _) => ring(&CHACHA20_POLY1305),
            (EncrId::ENCR_NULL_AUTH_AES_GMAC, _) => Self::Gmac(Gmac::new(&key).expect("GMAC")),
            (EncrId::ENCR_AES_CBC, _) => Self::Cbc(Cbc::new(encr, &key).expect("CBC"), integ()),
            (EncrId::ENCR_AES_CTR, _) => Self::Ctr(Ctr::new(encr, &key).expect("CTR"), integ()),
            (EncrId::ENCR_NULL, _) => Self::Null(integ()),
            _ => Self::Aead(Aead::new(encr, &key).expect("an AEAD")),
        }
    }

    fn seal(&self, iv: &[u8; 16], data: &mut [u8], icv: &mut [u8]) {
        let short = iv.first_chunk().expect("8 of 16");
        match self {
            Self::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key([iv[0]; 12]);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&AAD), data);
                icv.copy_from_slice(tag.expect("short enough").as_ref());
            }
            Self::Aead(aead) => aead.seal(short, &AAD, data, icv),
            Self::Gmac(gmac) => icv.copy_from_slice(&gmac.tag(short, &[&AAD, short, data])),
            Self::Cbc(cbc, integ) => {
                cbc.encrypt(iv, data);
                integ.sign(&[&AAD, iv, data], icv);
            }
            Self::Ctr(ctr, integ) => {
                ctr.apply(short, data);
                integ.sign(&[&AAD, short, data], icv);
            }
            Self::Null(integ) => integ.sign(&[&AAD, data], icv),
        }
    }

    fn open(&self, iv: &[u8; 16], data: &mut [u8], icv: &[u8]) -> bool {
        let short = iv.first_chunk().expect("8 of 16");
        match self {
            Self::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key([iv[0]; 12]);
                let tag = Tag::try_from(icv).expect("16 bytes");
                key.open_in_place_separate_tag(nonce, Aad::from(&AAD), tag, data, 0..).is_ok()
            }
            Self::Aead(aead) => aead.open(short, &AAD, data, icv).is_ok(),
            Self::Gmac(gmac) => gmac.verify(short, &[&AAD, short, data], icv),
            Self::Cbc(cbc, integ) => {
                let genuine = integ.verify(&[&AAD, iv, data], icv);
                cbc.decrypt(iv, data);
                genuine
            }
            Self::Ctr(ctr, integ) => {
                let genuine = integ.verify(&[&AAD, short, data], icv);
                ctr.apply(short, data);
                genuine
            }
            Self::Null(integ) => integ.verify(&[&AAD, data], icv),
        }
    }
}

const AAD: [u8; 8] = [3; 8];

/// The algorithm itself does not know whether its IV is sent.
fn explicit(encr: Encr) -> Encr {
    match encr.id {
        EncrId::ENCR_AES_GCM_16_IIV => AES(EncrId::ENCR_AES_GCM_16, encr.key_bits.expect("AES")),
        _ => encr,
    }
}

/// What one benchmark does `n` times, and how long that took without its preparations.
type Timed<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

fn bare_seal<'a>(bare: &'a Bare, size: usize, icv_len: usize) -> Timed<'a> {
    let (mut data, mut icv) = (vec![5; size], vec![0; icv_len]);
    Box::new(move |n| {
        time(|| {
            for i in 0..n {
                let iv = [u8::try_from(i % 256).expect("a byte"); 16];
                bare.seal(black_box(&iv), black_box(&mut data), &mut icv);
                black_box(&icv);
            }
        })
    })
}

fn esp_seal<'a>(sa: &'a OutboundSa, size: usize, together: usize) -> Timed<'a> {
    let inner = size - TRAILER;
    let mut packet = PacketBuf::new(size);
    let _ = packet.fill_from(&vec![5; inner]);
    Box::new(move |n| {
        time(|| {
            let mut left = usize::try_from(n).expect("few");
            while left > 0 {
                let batch = left.min(together);
                let mut sealer = sa.sealer(batch);
                for _ in 0..batch {
                    packet.clear();
                    packet.set_len(inner);
                    let sealed = sealer.seal(black_box(&mut packet), NextHeader::IPV4);
                    let _ = black_box(sealed).expect("sealed");
                }
                left -= batch;
            }
        })
    })
}

fn bare_open<'a>(bare: &'a Bare, size: usize, icv_len: usize) -> Timed<'a> {
    let iv = [9; 16];
    let (mut sealed, mut icv) = (vec![5; size], vec![0; icv_len]);
    bare.seal(&iv, &mut sealed, &mut icv);
    let mut batch = vec![sealed.clone(); BATCH];
    Box::new(move |n| {
        in_batches(
            n,
            &mut batch,
            |data| data.copy_from_slice(&sealed),
            |batch| {
                for data in batch {
                    assert!(bare.open(black_box(&iv), black_box(data), &icv));
                }
            },
        )
    })
}

fn esp_open<'a>(
    out: &'a OutboundSa,
    inbound: &'a InboundSa,
    size: usize,
    together: usize,
) -> Timed<'a> {
    let inner = vec![5; size - TRAILER];
    let mut batch = vec![PacketBuf::new(size); BATCH];
    let seal = move |packet: &mut PacketBuf| {
        let _ = packet.fill_from(&inner);
        let _ = out.seal(packet, NextHeader::IPV4).expect("sealed");
    };
    Box::new(move |n| {
        in_batches(n, &mut batch, &seal, |batch| {
            for packets in batch.chunks_mut(together) {
                let mut opening = inbound.opening();
                for packet in packets {
                    let _ = black_box(opening.open(black_box(packet))).expect("opened");
                }
            }
        })
    })
}

fn in_batches<T>(
    n: u64,
    batch: &mut [T],
    prepare: impl Fn(&mut T),
    act: impl Fn(&mut [T]),
) -> Duration {
    let mut taken = Duration::ZERO;
    let mut left = usize::try_from(n).expect("few");
    while left > 0 {
        let len = left.min(batch.len());
        let batch = &mut batch[..len];
        batch.iter_mut().for_each(&prepare);
        taken += time(|| act(batch));
        left -= len;
    }
    taken
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn time(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

/// Nanoseconds of the fastest run of each benchmark, and of the bare primitive beside it: what others do on the machine only ever
/// makes one slower.
type Fastest = RefCell<BTreeMap<String, Pair>>;

#[derive(Clone, Copy)]
struct Pair {
    whole: f64,
    bare: f64,
}

fn measure(
    criterion: &mut Criterion,
    fastest: &Fastest,
    name: &str,
    [mut whole, mut bare]: [Timed<'_>; 2],
) {
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|n| {
            let mut taken = Duration::ZERO;
            let mut left = n;
            while left > 0 {
                let run = left.min(RUN);
                let [bare_run, whole_run] = [&mut bare, &mut whole].map(|timed| timed(run));
                if run == RUN {
                    let each = |taken: Duration| taken.as_secs_f64() * 1e9 / run as f64;
                    let pair = Pair { whole: each(whole_run), bare: each(bare_run) };
                    let mut fastest = fastest.borrow_mut();
                    let so_far = fastest.entry(name.to_owned()).or_insert(pair);
                    so_far.whole = so_far.whole.min(pair.whole);
                    so_far.bare = so_far.bare.min(pair.bare);
                }
                taken += whole_run;
                left -= run;
            }
            taken
        });
    });
}

fn esp(criterion: &mut Criterion) {
    let fastest = Fastest::default();
    for (name, suite) in suites() {
        let layout = EspLayout::of(suite).expect("a suite of ours");
        let bare = Bare::new(suite);
        let outbound = OutboundSa::new(sa_params(suite)).expect("a suite of ours");
        let inbound = InboundSa::new(sa_params(suite)).expect("a suite of ours");
        for size in SIZES {
            // CBC has no 1400.
            let size = size.next_multiple_of(layout.align.into());
            let seal = |together| {
                [esp_seal(&outbound, size, together), bare_seal(&bare, size, layout.icv_len)]
            };
            let open = |together| {
                let whole = esp_open(&outbound, &inbound, size, together);
                [whole, bare_open(&bare, size, layout.icv_len)]
            };
            let mut run = |what: &str, timed: [Timed<'_>; 2]| {
                measure(criterion, &fastest, &format!("{name}/{size}/{what}"), timed);
            };
            run("seal", seal(BATCH));
            run("seal alone", seal(1));
            run("open", open(BATCH));
            run("open alone", open(1));
        }
    }
    print_ratios(&fastest.borrow());
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it found")]
fn print_ratios(fastest: &BTreeMap<String, Pair>) {
    const WAYS: [&str; 4] = ["seal", "seal alone", "open", "open alone"];
    let heads = WAYS.map(|way| format!("  {:>21}", format!("bare / {way}, ns")));
    println!("{:20} {:>5}{}", "", "bytes", heads.concat());
    for (name, suite) in suites() {
        let align = EspLayout::of(suite).expect("a suite of ours").align;
        for size in SIZES.map(|size| size.next_multiple_of(align.into())) {
            let row = WAYS.map(|way| fastest.get(&format!("{name}/{size}/{way}")).copied());
            if row.iter().all(Option::is_none) {
                continue;
            }
            for (way, pair) in WAYS.iter().zip(row) {
                let Some(Pair { whole, bare }) = pair else { continue };
                println!("figure ESP of {name}, {size} bytes: {way} {whole:.1} ns");
                println!("figure ESP of {name}, {size} bytes: bare beside {way} {bare:.1} ns");
            }
            let cells = row.map(|pair| match pair {
                Some(Pair { whole, bare }) => {
                    format!("  {:>21}", format!("{bare:.0} / {whole:.0} = {:.2}", bare / whole))
                }
                None => format!("  {:>21}", "-"),
            });
            println!("{name:20} {size:>5}{}", cells.concat());
        }
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .without_plots()
}

criterion_group!(name = benches; config = short(); targets = esp);
criterion_main!(benches);
