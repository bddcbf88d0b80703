//! Every collision of RFC 7296 §2.8.1, §2.8.2, §2.25.1 and §2.25.2, in every order in which messages can arrive, and
//! with each message lost once.
//!
//! The two begin something each, or one of them two things; from then on a tree is walked whose branches are: this side
//! begins, this message in flight arrives, this message is lost. Every path of it is run from the start to the end of all
//! retransmissions.

use core::net::Ipv4Addr;
use std::collections::BTreeSet;

use ipsecd::ipsec::pad::StartPolicy;
use ipsecd::ipsec::suite::Protocol;
use ipsecd::ipsec::{Flow, Mode, Notice, PolicyId, TrafficSelector};
use ipsecd::wire::ike::numbers::{IntegId, KeId};

use crate::support::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// From a start without a CHILD_SA.
    CreateChild,
    DeleteChild,
    DeleteIke,
    RekeyChild,
    RekeyIke,
}

/// Which orders of arrival the tree has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Messages of one direction arrive in the order in which they left.
    Kept,
    /// Any message in flight may be the next.
    Any,
}

#[derive(Clone)]
struct Explore {
    acts: Vec<(Side, Act)>,
    order: Order,
    losses: usize,
    keys: Keys,
    kind: Kind,
}

/// What kind of CHILD_SA it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// ESP in tunnel mode.
    Tunnel,
    /// ESP between the two hosts themselves.
    Transport,
    /// AH in tunnel mode.
    Ah,
}

/// The key exchanges of what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// None for CHILD_SAs.
    Plain,
    /// One for each.
    Pfs,
    /// Two for each (RFC 9370).
    Additional,
}

/// What can happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(usize),
    Arrive(Side, usize),
    Lose(Side, usize),
}

/// A tree of more paths than this is a mistake in the test.
const MAX_PATHS: usize = 200_000;

impl Explore {
    /// Runs every path with this seed, `check`ing each end; returns how many there were.
    fn run(&self, seed: u64, mut check: impl FnMut(&Pair) -> Result<(), Violation>) -> usize {
        let mut path: Vec<usize> = Vec::new();
        for paths in 1..=MAX_PATHS {
            let (pair, taken) = self.walk(seed, &path, false);
            if let Err(violation) = check(&pair) {
                let (pair, taken) = self.walk(seed, &path, true);
                let steps: Vec<_> = taken.iter().map(|(_, _, step)| *step).collect();
                panic!(
                    "{:?} {:?} seed {seed} path {path:?}: {violation}\nsteps {steps:?}\n{}",
                    self.acts, self.order, pair.trace
                );
            }
            // The next path: the last choice that has an alternative left takes it.
            let next = taken.iter().rposition(|(choice, options, _)| choice + 1 < *options);
            let Some(at) = next else { return paths };
            path = taken.iter().take(at + 1).map(|(choice, _, _)| *choice).collect();
            path[at] += 1;
        }
        panic!("{:?}: more than {MAX_PATHS} paths", self.acts);
    }

    /// Runs one path: the choices of `path`, then the first of each. Returns each choice with how many there were.
    fn walk(&self, seed: u64, path: &[usize], traced: bool) -> (Pair, Vec<(usize, usize, Step)>) {
        let mut pair = if self.acts.iter().any(|(_, act)| *act == Act::CreateChild) {
            start_without_child(seed, self.keys, self.kind, traced)
        } else {
            start_with(seed, self.keys, self.kind, traced, StartPolicy::Now)
        };
        let mut pending: Vec<usize> = (1..self.acts.len()).collect();
        let mut losses = self.losses;
        let mut taken = Vec::new();
        begin(&mut pair, self.acts[0], self.kind);
        for _ in 0..2000 {
            let steps = self.steps(&pair, &pending, losses);
            if steps.is_empty() {
                let timer = [A, B].into_iter().filter_map(|side| pair.timer(side)).min();
                match timer {
                    Some(due) if due < pair.clock.elapsed() + QUIET => {
                        pair.fire_next_timer();
                    }
                    _ => return (pair, taken),
                }
                continue;
            }
            let choice = path.get(taken.len()).copied().unwrap_or(0);
            let step = steps[choice];
            taken.push((choice, steps.len(), step));
            match step {
                Step::Begin(which) => {
                    pending.retain(|pending| *pending != which);
                    begin(&mut pair, self.acts[which], self.kind);
                }
                Step::Arrive(from, index) => {
                    let held = pair.take(from, index).unwrap();
                    pair.deliver(held);
                }
                Step::Lose(from, index) => {
                    losses -= 1;
                    drop(pair.take(from, index).unwrap());
                }
            }
            if pair.in_flight(A).is_empty() && pair.in_flight(B).is_empty() {
                pair.deliver_packets();
            }
        }
        panic!("{:?} seed {seed} path {path:?}: does not come to rest\n{}", self.acts, pair.trace);
    }

    fn steps(&self, pair: &Pair, pending: &[usize], losses: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        for from in [A, B] {
            let flying = pair.in_flight(from).len();
            let choices = if self.order == Order::Any { flying } else { flying.min(1) };
            steps.extend((0..choices).map(|index| Step::Arrive(from, index)));
        }
        if losses > 0 {
            let lost = steps.clone().into_iter().filter_map(|step| match step {
                Step::Arrive(from, index) => Some(Step::Lose(from, index)),
                Step::Begin(_) | Step::Lose(..) => None,
            });
            steps.extend(lost.collect::<Vec<_>>());
        }
        steps.extend(pending.iter().map(|which| Step::Begin(*which)));
        steps
    }
}

fn start(seed: u64, keys: Keys, traced: bool) -> Pair {
    start_with(seed, keys, Kind::Tunnel, traced, StartPolicy::Now)
}

fn start_with(seed: u64, keys: Keys, kind: Kind, traced: bool, policy: StartPolicy) -> Pair {
    let (mut a, mut b) = (peers::site_a(), peers::site_b());
    for (peer, [local, remote]) in
        [(&mut a, [peers::ADDR_A, peers::ADDR_B]), (&mut b, [peers::ADDR_B, peers::ADDR_A])]
    {
        let child = &mut peer.children[0];
        match kind {
            Kind::Tunnel => {}
            Kind::Transport => {
                child.mode = Mode::Transport;
                child.ts_local = vec![TrafficSelector::from_addr(local)];
                child.ts_peer = vec![TrafficSelector::from_addr(remote)];
            }
            Kind::Ah => {
                let proposal = &mut child.proposals[0];
                proposal.protocol = Protocol::Ah;
                (proposal.encr, proposal.integ) = (vec![], vec![IntegId::AUTH_HMAC_SHA2_256_128]);
            }
        }
    }
    for peer in [&mut a, &mut b] {
        peer.children[0].start = policy;
        if keys != Keys::Plain {
            peer.children[0].proposals[0].ke = vec![KeId::CURVE25519];
        }
        if keys == Keys::Additional {
            peer.children[0].proposals[0].addke[0] = vec![KeId::ML_KEM_512];
            peer.ike.proposals[0].addke[0] = vec![KeId::ML_KEM_512];
        }
    }
    let mut pair = Pair::with(seed, LinkConfig::PERFECT, a, b);
    if traced {
        pair.trace.keep_lines();
    }
    pair.initiate(A);
    pair.run_for(core::time::Duration::from_secs(2));
    assert_ok(&pair, pair.check_established(1));
    pair.hold = true;
    pair
}

/// The CHILD_SA is deleted, and does not come back by itself.
fn start_without_child(seed: u64, keys: Keys, kind: Kind, traced: bool) -> Pair {
    let mut pair = start_with(seed, keys, kind, traced, StartPolicy::OnTraffic);
    let spi = only_child(&pair, A).spi_inbound;
    pair.hold = false;
    pair.notice(A, Notice::Expire { spi, hard: true });
    settle(&mut pair);
    assert_ok(&pair, pair.check_established(0));
    pair.missed.clear();
    pair.hold = true;
    pair
}

fn begin(pair: &mut Pair, (side, act): (Side, Act), kind: Kind) {
    // Refused where the other side was faster: the SA to rekey or delete is gone. That is an outcome too.
    let _ = match act {
        Act::CreateChild => {
            let [src, dst] = if kind == Kind::Transport {
                [pair.node(side).addr, pair.node(side.other()).addr]
            } else {
                [1, 2].map(|net| Ipv4Addr::new(10, net, 0, 1).into())
            };
            let flow = Flow { src, dst, protocol: 1, ports: None };
            pair.notice(side, Notice::Acquire { policy: PolicyId(1), flow });
            Ok(())
        }
        Act::RekeyChild => pair.rekey_children(side),
        Act::RekeyIke => pair.rekey_ike(side),
        Act::DeleteIke => pair.terminate(side),
        Act::DeleteChild => {
            let spi = pair.node(side).sad.all_inbound().next().map(|sa| sa.spi);
            if let Some(spi) = spi {
                pair.notice(side, Notice::Expire { spi, hard: true });
            }
            Ok(())
        }
    };
}

/// One IKE SA and one CHILD_SA, the same on both sides, and no packet that met no SA.
fn both_rekeyed(pair: &Pair) -> Result<(), Violation> {
    pair.check_established(1)?;
    pair.check_no_packet_missed()
}

/// One IKE SA and one CHILD_SA, the same on both sides. Before there was one, a packet may have met none.
fn one_child(pair: &Pair) -> Result<(), Violation> {
    pair.check_established(1)
}

/// One IKE SA, the same on both sides, with the same CHILD_SAs: none or one.
fn agreed(pair: &Pair) -> Result<(), Violation> {
    let children = pair.status(A).first().map_or(0, |sa| sa.children.len());
    if children > 1 {
        return Err(Violation(format!("{children} CHILD_SAs")));
    }
    pair.check_established(children)
}

fn in_every_order(acts: [Act; 2], keys: Keys, check: fn(&Pair) -> Result<(), Violation>) {
    let [first, second] = acts;
    // Either side may be the first to begin; the nonces, and so who wins, follow from the seed.
    for acts in [[(A, first), (B, second)], [(B, first), (A, second)]] {
        let kind = Kind::Tunnel;
        let base = Explore { acts: acts.to_vec(), order: Order::Kept, losses: 0, keys, kind };
        let mut paths = 0;
        for seed in 0..4 {
            paths += base.run(seed, check);
            paths += Explore { order: Order::Any, ..base.clone() }.run(seed, check);
        }
        // One message lost, in every order that keeps its direction.
        paths += Explore { losses: 1, ..base }.run(4, check);
        assert!(paths > 20, "{acts:?}: only {paths} paths");
    }
}

/// With additional key exchanges there are too many orders to lose a message in each, or to let any be the next.
fn with_additional(acts: [Act; 2], check: fn(&Pair) -> Result<(), Violation>) {
    let [first, second] = acts;
    for (seed, acts) in
        [[(A, first), (B, second)], [(B, first), (A, second)]].into_iter().enumerate()
    {
        let seed = 2 * seed as u64;
        let keys = Keys::Additional;
        let kind = Kind::Tunnel;
        let base = Explore { acts: acts.to_vec(), order: Order::Kept, losses: 0, keys, kind };
        let paths = base.run(seed, check) + base.run(seed + 1, check);
        assert!(paths > 20, "{acts:?}: only {paths} paths");
    }
}

/// The same acts on CHILD_SAs of another kind, with each message lost once.
fn of_kind(kind: Kind, acts: [Act; 2], check: fn(&Pair) -> Result<(), Violation>) {
    let [first, second] = acts;
    for (seed, acts) in
        [[(A, first), (B, second)], [(B, first), (A, second)]].into_iter().enumerate()
    {
        let keys = Keys::Plain;
        let base = Explore { acts: acts.to_vec(), order: Order::Kept, losses: 0, keys, kind };
        let seed = seed as u64;
        let mut paths = base.run(seed, check) + base.run(seed + 2, check);
        paths += Explore { losses: 1, ..base }.run(seed + 4, check);
        assert!(paths > 20, "{acts:?}: only {paths} paths");
    }
}

/// Two acts of one side, the second waiting for the window or not, against one of the other.
fn two_against_one(two: [Act; 2], one: Act, check: fn(&Pair) -> Result<(), Violation>) {
    for (side, seed) in [(A, 0), (B, 1)] {
        let acts = vec![(side, two[0]), (side, two[1]), (side.other(), one)];
        let (keys, kind) = (Keys::Plain, Kind::Tunnel);
        let paths = Explore { acts, order: Order::Kept, losses: 0, keys, kind }.run(seed, check);
        assert!(paths > 20, "{two:?} against {one:?}: only {paths} paths");
    }
}

#[test]
fn child_create_meets_child_create() {
    in_every_order([Act::CreateChild, Act::CreateChild], Keys::Plain, one_child);
}

#[test]
fn child_create_meets_child_create_with_pfs() {
    in_every_order([Act::CreateChild, Act::CreateChild], Keys::Pfs, one_child);
}

#[test]
fn child_create_meets_ike_rekey() {
    in_every_order([Act::CreateChild, Act::RekeyIke], Keys::Plain, one_child);
    in_every_order([Act::RekeyIke, Act::CreateChild], Keys::Plain, one_child);
}

#[test]
fn child_create_meets_child_rekey_or_delete() {
    // What there is to rekey or delete is what the other side has just made.
    in_every_order([Act::CreateChild, Act::RekeyChild], Keys::Plain, one_child);
    in_every_order([Act::CreateChild, Act::DeleteChild], Keys::Plain, agreed);
}

#[test]
fn ike_delete_meets_child_create() {
    in_every_order([Act::DeleteIke, Act::CreateChild], Keys::Plain, Pair::check_gone);
}

#[test]
fn two_rekeys_meet_one() {
    for one in [Act::RekeyChild, Act::RekeyIke] {
        two_against_one([Act::RekeyChild, Act::RekeyIke], one, both_rekeyed);
        two_against_one([Act::RekeyIke, Act::RekeyChild], one, both_rekeyed);
    }
}

#[test]
fn two_acts_with_a_delete_meet_one() {
    use Act::{DeleteChild, DeleteIke, RekeyChild, RekeyIke};
    for one in [RekeyChild, RekeyIke, DeleteChild] {
        two_against_one([RekeyChild, DeleteChild], one, agreed);
        two_against_one([RekeyIke, DeleteChild], one, agreed);
        two_against_one([RekeyIke, DeleteIke], one, Pair::check_gone);
        two_against_one([RekeyChild, DeleteIke], one, Pair::check_gone);
    }
    two_against_one([RekeyIke, RekeyChild], DeleteIke, Pair::check_gone);
    two_against_one([RekeyIke, RekeyChild], DeleteChild, agreed);
}

#[test]
fn child_rekey_meets_child_rekey() {
    in_every_order([Act::RekeyChild, Act::RekeyChild], Keys::Plain, both_rekeyed);
}

#[test]
fn child_rekey_meets_child_rekey_with_pfs() {
    in_every_order([Act::RekeyChild, Act::RekeyChild], Keys::Pfs, both_rekeyed);
}

#[test]
fn ike_rekey_meets_ike_rekey() {
    in_every_order([Act::RekeyIke, Act::RekeyIke], Keys::Plain, both_rekeyed);
}

#[test]
fn ike_rekey_meets_child_rekey() {
    in_every_order([Act::RekeyIke, Act::RekeyChild], Keys::Plain, both_rekeyed);
}

#[test]
fn child_rekey_meets_ike_rekey() {
    in_every_order([Act::RekeyChild, Act::RekeyIke], Keys::Plain, both_rekeyed);
}

#[test]
fn child_rekey_meets_child_delete() {
    in_every_order([Act::RekeyChild, Act::DeleteChild], Keys::Plain, agreed);
}

#[test]
fn child_delete_meets_child_rekey() {
    in_every_order([Act::DeleteChild, Act::RekeyChild], Keys::Plain, agreed);
}

#[test]
fn child_delete_meets_child_delete() {
    in_every_order([Act::DeleteChild, Act::DeleteChild], Keys::Plain, agreed);
}

#[test]
fn child_delete_meets_ike_rekey() {
    in_every_order([Act::DeleteChild, Act::RekeyIke], Keys::Plain, agreed);
    in_every_order([Act::RekeyIke, Act::DeleteChild], Keys::Plain, agreed);
}

#[test]
fn ike_delete_meets_ike_rekey() {
    in_every_order([Act::DeleteIke, Act::RekeyIke], Keys::Plain, Pair::check_gone);
    in_every_order([Act::RekeyIke, Act::DeleteIke], Keys::Plain, Pair::check_gone);
}

#[test]
fn ike_delete_meets_child_rekey() {
    in_every_order([Act::DeleteIke, Act::RekeyChild], Keys::Plain, Pair::check_gone);
    in_every_order([Act::RekeyChild, Act::DeleteIke], Keys::Plain, Pair::check_gone);
}

#[test]
fn ike_delete_meets_ike_delete() {
    in_every_order([Act::DeleteIke, Act::DeleteIke], Keys::Plain, Pair::check_gone);
}

#[test]
fn ike_delete_meets_child_delete() {
    in_every_order([Act::DeleteIke, Act::DeleteChild], Keys::Plain, Pair::check_gone);
}

#[test]
fn lowest_nonce_decides_and_either_side_may_win() {
    let mut winners = BTreeSet::new();
    for seed in 0..16 {
        let mut pair = start(seed, Keys::Plain, true);
        pair.rekey_ike(A).unwrap();
        pair.rekey_ike(B).unwrap();
        // Both requests, then both responses.
        pair.pass(A, CREATE_CHILD_SA, REQUEST);
        pair.pass(B, CREATE_CHILD_SA, REQUEST);
        pair.pass(A, CREATE_CHILD_SA, RESPONSE);
        pair.pass(B, CREATE_CHILD_SA, RESPONSE);
        pair.hold = false;
        settle(&mut pair);
        assert_ok(&pair, both_rekeyed(&pair));
        winners.insert(only_sa(&pair, A).initiator);
    }
    assert_eq!(winners.len(), 2, "the nonces of 16 seeds let only one side win");
}

#[test]
fn request_to_rekey_a_child_sa_that_is_gone_gets_child_sa_not_found_and_costs_nothing() {
    // RFC 7296 §2.8.1, the second picture: A's request is lost, B finishes its own rekey, A's comes again.
    let mut pair = start(1, Keys::Plain, true);
    pair.rekey_children(A).unwrap();
    pair.rekey_children(B).unwrap();
    let _lost = pair.expect(A, CREATE_CHILD_SA, REQUEST);
    pair.exchange(B, CREATE_CHILD_SA);
    pair.exchange(B, INFORMATIONAL);
    assert!(pair.in_flight(A).is_empty() && pair.in_flight(B).is_empty(), "{}", pair.trace);
    pair.deliver_packets();
    while pair.in_flight(A).is_empty() {
        pair.fire_next_timer().unwrap();
    }
    // CREATE_CHILD_SA { N(REKEY_SA) of the old SPI, .. } -->  <-- { N(CHILD_SA_NOT_FOUND) }
    let child = only_child(&pair, B).spi_inbound;
    pair.exchange(A, CREATE_CHILD_SA);
    pair.hold = false;
    settle(&mut pair);
    assert_ok(&pair, both_rekeyed(&pair));
    assert_eq!(only_child(&pair, B).spi_inbound, child);
}

#[test]
fn child_rekey_meets_child_rekey_with_additional_key_exchanges() {
    with_additional([Act::RekeyChild, Act::RekeyChild], both_rekeyed);
}

#[test]
fn ike_rekey_meets_ike_rekey_with_additional_key_exchanges() {
    with_additional([Act::RekeyIke, Act::RekeyIke], both_rekeyed);
}

#[test]
fn child_create_meets_child_create_with_additional_key_exchanges() {
    with_additional([Act::CreateChild, Act::CreateChild], one_child);
}

#[test]
fn rekeys_of_both_kinds_meet_with_additional_key_exchanges() {
    with_additional([Act::RekeyIke, Act::RekeyChild], both_rekeyed);
}

#[test]
fn what_is_of_the_ike_sa_meets_what_is_of_a_child_sa_with_additional_key_exchanges() {
    use Act::{CreateChild, RekeyChild, RekeyIke};
    with_additional([RekeyChild, RekeyIke], both_rekeyed);
    with_additional([CreateChild, RekeyIke], one_child);
    with_additional([RekeyIke, CreateChild], one_child);
}

#[test]
fn collisions_on_child_sas_of_ah() {
    collisions_of(Kind::Ah);
}

#[test]
fn collisions_on_child_sas_in_transport_mode() {
    collisions_of(Kind::Transport);
}

fn collisions_of(kind: Kind) {
    use Act::{CreateChild, DeleteChild, RekeyChild, RekeyIke};
    of_kind(kind, [CreateChild, CreateChild], one_child);
    of_kind(kind, [CreateChild, RekeyIke], one_child);
    of_kind(kind, [RekeyChild, RekeyChild], both_rekeyed);
    of_kind(kind, [RekeyChild, RekeyIke], both_rekeyed);
    of_kind(kind, [RekeyIke, RekeyChild], both_rekeyed);
    of_kind(kind, [RekeyChild, DeleteChild], agreed);
    of_kind(kind, [DeleteChild, RekeyIke], agreed);
}

#[test]
fn deletes_meet_additional_key_exchanges() {
    with_additional([Act::RekeyChild, Act::DeleteChild], agreed);
    with_additional([Act::RekeyIke, Act::DeleteChild], agreed);
    with_additional([Act::RekeyIke, Act::DeleteIke], Pair::check_gone);
    with_additional([Act::RekeyChild, Act::DeleteIke], Pair::check_gone);
}

#[test]
fn each_message_of_additional_key_exchanges_may_be_lost_once() {
    for act in [Act::RekeyChild, Act::RekeyIke, Act::CreateChild] {
        let acts = vec![(A, act)];
        let (keys, kind) = (Keys::Additional, Kind::Tunnel);
        let paths = Explore { acts, order: Order::Kept, losses: 1, keys, kind }.run(7, one_child);
        assert!(paths > 4, "{act:?}: only {paths} paths");
    }
}
