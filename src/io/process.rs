//! What the kernel knows of this process.

use core::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// Bytes of it that are in RAM; `None` if the kernel does not say.
#[must_use]
pub fn resident_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

/// Processor time that all its threads have taken, user and system; `None` if the kernel does not say.
#[must_use]
pub fn cpu_time() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let times = [usage.user_time(), usage.system_time()];
    let times = times.map(|time| {
        let seconds = u64::try_from(time.tv_sec()).ok()?;
        Some(
            Duration::from_secs(seconds)
                + Duration::from_micros(u64::try_from(time.tv_usec()).ok()?),
        )
    });
    Some(times[0]? + times[1]?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_taken_time() {
        assert!(resident_memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!(cpu_time().is_some());
    }
}
