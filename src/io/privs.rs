//! What the daemon gives up once it runs, and what it keeps, with the reason of each.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use thiserror::Error;

/// A privilege could not be given up.
#[derive(Debug, Error)]
pub enum PrivsError {
    /// A capability set was refused.
    #[error("cannot drop capabilities: {0}")]
    Caps(#[from] caps::errors::CapsError),
    /// A limit or process flag was refused.
    #[error("cannot drop privileges: {0}")]
    System(#[from] nix::Error),
}

/// The capabilities that stay.
const KEPT: [(Capability, &str); 4] = [
    // A new tunnel needs a TUN device, routes and rules at any time, and SO_MARK is set on each socket.
    (Capability::CAP_NET_ADMIN, "TUN devices, routes, rules, SO_MARK"),
    // Raw sockets of IP protocol 50 are opened at the start, and again if IPv6 comes later.
    (Capability::CAP_NET_RAW, "raw ESP sockets"),
    // Files named to `ipsecd up` later may belong to the administrator who wrote them, and only be readable to them.
    (Capability::CAP_DAC_READ_SEARCH, "configuration and secret files of other owners"),
    // UDP 500 likewise.
    (Capability::CAP_NET_BIND_SERVICE, "UDP port 500"),
];

/// The capabilities that a daemon needs.
pub(super) fn needed() -> impl Iterator<Item = Capability> {
    KEPT.iter().map(|(cap, _why)| *cap)
}

/// Keeps keys out of core dumps and away from ptrace, forbids to gain privileges again, and drops every capability
/// that is not needed.
///
/// # Errors
/// If the kernel refuses one of them.
pub fn drop_privileges() -> Result<(), PrivsError> {
    // Keys are in memory: no core file, and no /proc/PID/mem or ptrace for others of the same user.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;
    // resolvectl alone is executed after the start, and gains nothing.
    prctl::set_no_new_privs()?;
    let had = caps::read(None, CapSet::Permitted)?;
    let keep: CapsHashSet =
        KEPT.iter().map(|(cap, _why)| *cap).filter(|cap| had.contains(cap)).collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &keep)?;
    caps::set(None, CapSet::Permitted, &keep)?;
    for (cap, why) in KEPT {
        tracing::debug!(capability = %cap, why, held = keep.contains(&cap), "capability kept");
    }
    Ok(())
}
