//! Several workers that share outbound SAs: packets of an SA leave in the order of their numbers, whoever sends them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ipsecd::datapath::tap::{Record, Tracer, Verdict};
use ipsecd::datapath::{Datapath, Options, OutboundBatch, PacketBuf, Sealed};
use ipsecd::ipsec::{Action, Mode, PolicyId, SaParams, SadUpdate, Spd, SpdEntry, Spi, Worker};
use ipsecd::testing::VirtualClock;
use ipsecd::testing::gateways::{Kind, Protection};
use ipsecd::wire::vnet::VnetHeader;

use crate::support::{MAX_LEN, ip_between, prefix};

const POLICIES: u8 = 3;
const WORKERS: u16 = 4;
const BATCHES: usize = 200;
const BATCH: usize = 24;

/// A policy and an SA for each of 10.1.0.0/16, 10.2.0.0/16, and so on.
fn sender(now: std::time::Instant) -> Datapath {
    let kind =
        Kind { protection: Protection::Gcm, mode: Mode::Tunnel, v6: false, esn: false, udp: true };
    let params = |number: u8| {
        let spi = |base: u32| Spi::new(base + u32::from(number)).unwrap();
        SaParams {
            policy: PolicyId(number.into()),
            spi: spi(0x1000),
            other_spi: spi(0x2000),
            ts_local: [prefix("10.100.0.0/16")].into(),
            ts_peer: [prefix(&format!("10.{number}.0.0/16"))].into(),
            ..kind.params(true, true)
        }
    };
    let entries = (1..=POLICIES).map(|number| {
        let SaParams { ts_local, ts_peer, policy, .. } = params(number);
        SpdEntry { ts_local, ts_peer, action: Action::Protect(policy), name: None }
    });
    let datapath = Datapath::new(Options::default(), Spd::new(entries.collect()), now);
    (1..=POLICIES).fold(datapath, |datapath, number| {
        datapath.apply(&SadUpdate::AddOutbound(Box::new(params(number)))).unwrap()
    })
}

/// One for the SA of a policy.
fn packet(to: u8) -> PacketBuf {
    PacketBuf::copy_of(&ip_between("10.100.0.1", &format!("10.{to}.0.1"), 17, &[0; 64]))
}

/// What left, by SPI, in its order.
#[derive(Default)]
struct Left(Mutex<BTreeMap<u32, Vec<u32>>>);

impl Left {
    fn take(&self, sealed: &[Sealed]) {
        // Each by itself: others may send between any two.
        for packet in sealed.iter().flat_map(Sealed::packets) {
            let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
            self.0.lock().unwrap().entry(word(0)).or_default().push(word(4));
            std::thread::yield_now();
        }
    }
}

#[derive(Default)]
struct Counting(AtomicUsize);

impl Tracer for Counting {
    fn take(&self, record: &Record<'_>) {
        assert_eq!((record.verdict, record.packets), (Verdict::Protect, 1));
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Which policies the packets of a worker are for: runs of a few, in another order with each worker and batch.
fn policies(worker: usize, batch: usize) -> impl Iterator<Item = u8> {
    let mut state = (worker * BATCHES + batch) as u64;
    core::iter::repeat_with(move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let [high, ..] = state.to_be_bytes();
        core::iter::repeat_n(high % POLICIES + 1, usize::from(high / 64) + 1)
    })
    .flatten()
}

fn several_send(datapath: &Datapath, now: std::time::Instant) -> Left {
    let left = Left::default();
    std::thread::scope(|scope| {
        for worker in Worker::all(WORKERS) {
            let left = &left;
            scope.spawn(move || {
                let index = usize::from(worker.index());
                let mut out = OutboundBatch::new(MAX_LEN);
                let headers = [VnetHeader::default(); BATCH];
                for batch in 0..BATCHES {
                    let to = policies(index, batch).take(BATCH);
                    let mut packets: Vec<_> = to.map(packet).collect();
                    let send = &mut |sealed: &[Sealed]| left.take(sealed);
                    datapath.outbound_batch_of(worker, now, &mut packets, &headers, &mut out, send);
                    left.take(&out.sealed);
                    out.sent();
                    assert!(out.sealed.is_empty());
                }
            });
        }
    });
    left
}

#[test]
fn packets_of_an_sa_leave_in_the_order_of_their_numbers_whichever_worker_sends_them() {
    for traced in [false, true] {
        let now = VirtualClock::new().now();
        let datapath = sender(now);
        let tracer = Arc::new(Counting::default());
        if traced {
            datapath.tap().add(Arc::<Counting>::clone(&tracer));
        }
        let left = several_send(&datapath, now);
        let left = left.0.into_inner().unwrap();
        assert_eq!(left.len(), usize::from(POLICIES));
        let total = usize::from(WORKERS) * BATCHES * BATCH;
        assert_eq!(left.values().map(Vec::len).sum::<usize>(), total);
        for (spi, numbers) in left {
            let count = u32::try_from(numbers.len()).unwrap();
            assert!(numbers.into_iter().eq(1..=count), "SA {spi:#x}");
        }
        assert_eq!(tracer.0.load(Ordering::Relaxed), if traced { total } else { 0 });
    }
}

#[test]
fn batch_that_was_not_sent_keeps_its_sas() {
    let now = VirtualClock::new().now();
    let datapath = sender(now);
    let headers = [VnetHeader::default(); 2];
    let [one, other] = [0, 1].map(|at| Worker::all(2).nth(at).unwrap());
    let (mut first, mut second) = (OutboundBatch::new(MAX_LEN), OutboundBatch::new(MAX_LEN));
    datapath.outbound_batch_of(one, now, &mut [packet(1)], &headers, &mut first, &mut |_| {
        panic!("nobody has what comes next")
    });
    let mut before = Vec::new();
    std::thread::scope(|scope| {
        let (waits, is_sent) = std::sync::mpsc::channel();
        let datapath = &datapath;
        let (before, second) = (&mut before, &mut second);
        let thread = scope.spawn(move || {
            let send = &mut |sealed: &[Sealed]| {
                before.extend(sealed.iter().map(|sealed| sealed.buf[3]));
                waits.send(()).unwrap();
            };
            let packets = &mut [packet(2), packet(1)];
            datapath.outbound_batch_of(other, now, packets, &headers, second, send);
        });
        // It has given away what it had sealed, and waits for the SA that comes next.
        is_sent.recv().unwrap();
        assert!(!thread.is_finished());
        assert_eq!(first.sealed.len(), 1);
        first.sent();
    });
    assert_eq!(before, [2], "the packet for the free SA");
    assert_eq!(second.sealed.iter().map(|sealed| sealed.buf[3]).collect::<Vec<_>>(), [1]);
    assert_eq!(second.sealed[0].buf[4..8], 2_u32.to_be_bytes());
}
