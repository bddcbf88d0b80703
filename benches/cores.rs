//! What a second thread gives: the same packets sealed, and opened, by one worker and by two at a time, which share one SA or have
//! one each: `cargo bench --bench cores`. Without system calls; a batch of one SA is sealed while no other is, as it is until it is
//! sent.
//!
//! Both are done by turns, so that whatever else the machine does hits both alike. A figure is the median of the slower thread of each
//! round; × is the time of one thread beside that of two.

#[path = "common/mod.rs"]
mod common;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{Samples, figure, now, time, udp_packet};
use ipsecd::datapath::{
    Datapath, InboundBatch, Options, OutboundBatch, PacketBuf, Received, Sealed, SealedPackets,
};
use ipsecd::ipsec::{Action, Mode, SaParams, SadUpdate, Spd, SpdEntry, Spi, Worker};
use ipsecd::testing::gateways::{Kind, POLICY, Protection, carry_into};
use ipsecd::wire::vnet::VnetHeader;

const BATCH: usize = 32;
/// Batches of a round, of all threads together.
const BATCHES: usize = 16;
const ROUNDS: usize = 300;
const MAX_LEN: usize = 2048;
const KIND: Kind =
    Kind { protection: Protection::Gcm, mode: Mode::Tunnel, v6: false, esn: false, udp: true };

fn main() {
    for size in [64, 1400] {
        for (name, resources) in [("one SA", None), ("an SA each", Some(2))] {
            measure(size, name, resources);
        }
    }
}

/// Sender and receiver, with one SA or one for each resource.
fn gateways(resources: Option<u16>) -> [Datapath; 2] {
    [true, false].map(|at_a| {
        let SaParams { ts_local, ts_peer, .. } = KIND.params(true, at_a);
        let entry = SpdEntry { ts_local, ts_peer, action: Action::Protect(POLICY), name: None };
        let datapath = Datapath::new(Options::default(), Spd::new(vec![entry]), now());
        (0..resources.unwrap_or(1)).fold(datapath, |datapath, number| {
            let spi = |base: u32| Spi::new(base + u32::from(number)).expect("not reserved");
            let params = Box::new(SaParams {
                spi: spi(0x1000),
                other_spi: spi(0x2000),
                resource: resources.map(|_| number),
                replay_window: 4096,
                ..KIND.params(true, at_a)
            });
            let update =
                if at_a { SadUpdate::AddOutbound(params) } else { SadUpdate::AddInbound(params) };
            datapath.apply(&update).expect("an SA")
        })
    })
}

/// What a thread has: as many batches as it does in a round.
struct Lane {
    packets: Vec<Vec<PacketBuf>>,
    sealing: Vec<OutboundBatch>,
    sealed: Vec<SealedPackets>,
    received: Vec<Vec<Received>>,
    opened: InboundBatch,
}

impl Lane {
    fn new(batches: usize) -> Self {
        let path = KIND.params(true, true).path;
        let received =
            || Received { path, traffic_class: 0, buf: PacketBuf::new(MAX_LEN), segment_len: None };
        let batch = |_| (0..BATCH).map(|_| PacketBuf::new(MAX_LEN)).collect();
        Self {
            packets: (0..batches).map(batch).collect(),
            sealing: (0..batches).map(|_| OutboundBatch::new(MAX_LEN)).collect(),
            sealed: (0..batches).map(|_| SealedPackets::default()).collect(),
            received: (0..batches).map(|_| (0..BATCH).map(|_| received()).collect()).collect(),
            opened: InboundBatch::new(MAX_LEN),
        }
    }
}

/// Has every thread do it at the same time, after it has prepared what it needs, which then is in its own cache: how long the
/// slowest took.
fn together(
    lanes: &mut [Lane],
    prepare: impl Fn(&mut Lane) + Sync,
    act: impl Fn(Worker, &mut Lane) + Sync,
) -> Duration {
    let (ready, count) = (AtomicUsize::new(0), lanes.len());
    let (ready, prepare, act) = (&ready, &prepare, &act);
    let workers = Worker::all(u16::try_from(count).expect("few"));
    thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .iter_mut()
            .zip(workers)
            .map(|(lane, worker)| {
                scope.spawn(move || {
                    prepare(lane);
                    ready.fetch_add(1, Ordering::AcqRel);
                    while ready.load(Ordering::Acquire) < count {
                        core::hint::spin_loop();
                    }
                    time(|| act(worker, lane))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).max().unwrap_or_default()
    })
}

/// A round of so many threads: sealing and opening.
fn round(gateways: &[Datapath; 2], lanes: &mut [Lane], packet: &[u8]) -> (Duration, Duration) {
    let ([sender, receiver], now) = (gateways, now());
    let fill = |lane: &mut Lane| {
        for buf in lane.packets.iter_mut().flatten() {
            assert!(buf.fill_from(packet));
        }
    };
    let headers = [VnetHeader::default(); BATCH];
    let sealing = together(lanes, fill, |worker, lane| {
        let batches = lane.packets.iter_mut().zip(&mut lane.sealing).zip(&mut lane.sealed);
        for ((packets, batch), sealed) in batches {
            let none = &mut |_: &[Sealed]| unreachable!("a batch has one SA");
            sender.outbound_batch_of(worker, now, packets, &headers, batch, none);
            // A worker would send here, and then let others have the SA.
            core::mem::swap(&mut batch.sealed, sealed);
            batch.sent();
        }
    });
    let carry = |lane: &mut Lane| {
        for (received, sealed) in lane.received.iter_mut().zip(&lane.sealed) {
            assert_eq!(sealed.len(), BATCH);
            for (received, sealed) in received.iter_mut().zip(sealed) {
                carry_into(sealed, received);
            }
        }
    };
    let opening = together(lanes, carry, |_, lane| {
        for received in &mut lane.received {
            receiver.inbound_batch(now, received, &mut lane.opened);
            assert_eq!(lane.opened.deliver.len(), BATCH);
        }
    });
    (sealing, opening)
}

fn measure(size: usize, name: &str, resources: Option<u16>) {
    let hosts = [[10, 1, 0, 1], [10, 2, 0, 1]].map(Ipv4Addr::from);
    let packet = udp_packet(hosts, [12_345, 9999], size);
    let gateways = gateways(resources);
    let mut alone = [Lane::new(BATCHES)];
    let mut two = [Lane::new(BATCHES / 2), Lane::new(BATCHES / 2)];
    let [mut seal_one, mut open_one, mut seal_two, mut open_two] =
        [(); 4].map(|()| Samples::default());
    for number in 0..ROUNDS {
        let one = round(&gateways, &mut alone, &packet);
        let both = round(&gateways, &mut two, &packet);
        // The first fill the pools.
        if number > 10 {
            seal_one.push(one.0, BATCH * BATCHES);
            open_one.push(one.1, BATCH * BATCHES);
            seal_two.push(both.0, BATCH * BATCHES);
            open_two.push(both.1, BATCH * BATCHES);
        }
    }
    for (what, one, two) in
        [("seal", &mut seal_one, &mut seal_two), ("open", &mut open_one, &mut open_two)]
    {
        let (one, two) = (one.median(), two.median());
        figure(&format!("{size} bytes, {what}, {name}: 1 thread"), one, "ns");
        figure(&format!("{size} bytes, {what}, {name}: 2 threads"), two, "ns");
        figure(&format!("{size} bytes, {what}, {name}: 2 threads"), one / two, "×");
    }
}
