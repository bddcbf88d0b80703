//! The peers in User-Mode-Linux, each with all cases.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::cases::CASES;
use crate::far::Far;
use crate::ground::Ground;
use crate::lab::Need;
use crate::lab::wait::Stopwatch;
use crate::libreswan::Libreswan;
use crate::openiked::OpenIked;
use crate::session::Stage;
use crate::strongswan::StrongSwan;

/// Which cases are wanted; all without it.
const CASE: &str = "IPSECD_CASE";

/// Boots the guest and lets `far` meet each case; all that fail are told in the end.
fn meet_every_case(far: &dyn Far, needs: &[Need]) {
    let Some(ground) = Ground::open(needs) else { return };
    let wanted = std::env::var_os(CASE).unwrap_or_default().into_string().expect("a name is text");
    let boot = Stopwatch::start();
    let stage = Stage::open(&ground, far);
    println!("{}: booted after {:.1} s", far.name(), boot.elapsed().as_secs_f32());
    let mut failed = Vec::new();
    let mut met = 0;
    let cases = CASES.iter().chain(far.more());
    for (name, case) in cases.filter(|(name, _)| name.contains(&wanted)) {
        if let Some((_, why)) = far.lacks().iter().find(|(lacking, _)| lacking == name) {
            println!("{}: {name} left out: {why}", far.name());
            continue;
        }
        let watch = Stopwatch::start();
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&stage)));
        let took = watch.elapsed().as_secs_f32();
        met += 1;
        if outcome.is_err() {
            failed.push(*name);
            eprintln!("{}: {name} FAILED after {took:.1} s\n{}", far.name(), stage.last_words());
        } else {
            println!("{}: {name} {took:.1} s", far.name());
        }
        stage.clear();
    }
    assert!(met > 0, "{CASE}={wanted} is in no case's name");
    assert!(failed.is_empty(), "{}: of {met} cases failed: {failed:?}", far.name());
}

#[test]
fn strongswan_on_a_real_kernel_meets_every_case() {
    meet_every_case(&StrongSwan, &[Need::Kernel, Need::Nat, Need::StrongSwan]);
}

#[test]
fn libreswan_on_a_real_kernel_meets_every_case() {
    meet_every_case(&Libreswan, &[Need::Kernel, Need::Nat, Need::Libreswan]);
}

#[test]
fn openiked_on_a_real_kernel_meets_every_case() {
    meet_every_case(&OpenIked, &[Need::Kernel, Need::Nat, Need::OpenIked]);
}
