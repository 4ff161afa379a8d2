//! What processes have used of the processor, as the kernel counts it.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

/// A tick of `/proc/PID/stat`, whatever the kernel's own timer does (USER_HZ, times(2)).
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process since its start, in all of its threads, to 10 ms; none if it
/// is gone.
pub(super) fn used(pid: u32) -> Option<Duration> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Counting begins behind the last bracket (proc_pid_stat(5)): field 3 is the first one there, 14
/// and 15 are user and system time.
fn parse(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * (ticks()?.checked_add(ticks()?)?))
}

/// Lets this process open as many files as it may: each client has a connection to each node.
pub(super) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If it may not, then clients beyond the limit fail, and say so.
    let _refused = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("12 (a) b (c) S {}", numbers.join(" "));
        assert_eq!(parse(&stat), Some(TICK * (14 + 15)));
        assert_eq!(parse("12 (cut"), None);
        assert!(used(std::process::id()).is_some());
        assert_eq!(used(u32::MAX), None);
    }
}
