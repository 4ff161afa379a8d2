//! Processes that outlive the command that started them.
//!
//! A node is known by pid, start time and boot, as the kernel tells them, so that the pid of a node
//! that is long gone is never mistaken for it. Invariants:
//! - no signal is sent by pid number: the process is held by a pidfd first, then its start time is
//!   compared, then the signal goes through the pidfd (pidfd_open(2));
//! - a zombie counts as stopped: it waits only for a parent that may never look (containers).

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How often a process that is to end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One particular process, now and for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessId {
    /// Its number, which the kernel gives to others once it is gone.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since the boot (proc_pid_stat(5), field 22).
    pub(crate) start_ticks: String,
    /// The boot in which that was.
    pub(crate) boot_id: String,
}

/// What a process is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// It runs, or could.
    Running,
    /// It is frozen by SIGSTOP.
    Paused,
    /// It is gone.
    Stopped,
}

impl ProcessState {
    /// As `ps` prints it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl ProcessId {
    /// The process that has this pid now; none if there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let stat = Stat::read(pid)?;
        Some(Self { pid, start_ticks: stat.start_ticks.to_owned(), boot_id: boot_id() })
    }

    /// What it is up to.
    pub(crate) fn state(&self) -> ProcessState {
        match Stat::read(self.pid) {
            Some(stat) if stat.start_ticks == self.start_ticks && boot_id() == self.boot_id => {
                stat.state
            }
            _ => ProcessState::Stopped,
        }
    }

    /// Sends a signal; false if the process is gone.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let held = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(held) => held,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // Only now does the number mean what we hold; before, it may have been given on.
        if self.state() == ProcessState::Stopped {
            return Ok(false);
        }
        match pidfd_send_signal(&held, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it is gone; false if it is still there after `within`.
    pub(crate) async fn wait_gone(&self, within: Duration) -> bool {
        let begin = Instant::now();
        while self.state() != ProcessState::Stopped {
            if begin.elapsed() >= within {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }
}

/// What `/proc/PID/stat` says, as far as we need it.
struct Stat {
    state: ProcessState,
    start_ticks: String,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command name stands in brackets and may itself hold brackets and blanks, so that
    /// counting begins behind the last one (proc_pid_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = match fields.next()? {
            "T" | "t" => ProcessState::Paused,
            "Z" | "X" | "x" => ProcessState::Stopped,
            _ => ProcessState::Running,
        };
        // Field 3 was the state; 22 is the start time, so 18 lie between them.
        let start_ticks = fields.nth(18)?.to_owned();
        Some(Self { state, start_ticks })
    }
}

/// Changes with every boot; empty where the kernel does not tell.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    //! A process is recognised, and a stranger under its number is not.
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn stat_lines_with_odd_names_parse() {
        let numbers: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = Stat::parse(&format!("12 (a) b (c) T {}", numbers.join(" "))).unwrap();
        assert_eq!(stat.start_ticks, "22");
        assert_eq!(stat.state, ProcessState::Paused);
        assert!(Stat::parse("12 (cut").is_none());
    }

    #[tokio::test]
    async fn a_child_is_signalled_until_it_is_gone() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        assert_eq!(process.state(), ProcessState::Running);
        assert!(process.signal(Signal::STOP).unwrap());
        for _ in 0..100 {
            if process.state() == ProcessState::Paused {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        assert_eq!(process.state(), ProcessState::Paused);
        assert!(!process.wait_gone(Duration::from_millis(20)).await);
        assert!(process.signal(Signal::KILL).unwrap());
        assert!(process.wait_gone(Duration::from_secs(5)).await);
        // Still a zombie, and yet not signalled any more.
        assert!(!process.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert_eq!(process.state(), ProcessState::Stopped);
    }

    #[test]
    fn another_process_under_the_same_number_is_left_alone() {
        let mut stranger = ProcessId::of(std::process::id()).unwrap();
        stranger.start_ticks = "1".to_owned();
        assert_eq!(stranger.state(), ProcessState::Stopped);
        assert!(!stranger.signal(Signal::TERM).unwrap());
        let mut other_boot = ProcessId::of(std::process::id()).unwrap();
        other_boot.boot_id = "another".to_owned();
        assert!(!other_boot.signal(Signal::TERM).unwrap());
    }
}
