//! Ports that stay ours: free ones, from below the range that the kernel gives to outgoing
//! connections, so that a node that is down for a moment finds its port free again.
//!
//! A port is reserved among test processes by a lock on a file named after it, which the kernel
//! drops when the process ends, however that happens.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

/// Ports are looked for from here on; local clusters of the command line start at 10000.
const FIRST: u16 = 20_000;

/// A port that no other test uses while this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// It on loopback, as `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// Reserves so many free ports.
///
/// # Errors
/// If there are none, or the locks cannot be made.
pub fn reserve(count: usize) -> anyhow::Result<Vec<Port>> {
    let dir = std::env::temp_dir().join("holdfast-test-ports");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let end = ephemeral_min().max(FIRST + 1000);
    let span = u32::from(end - FIRST);
    // Somewhere else for each process, so that ports just used elsewhere are left alone.
    let start = std::process::id().wrapping_mul(37) % span;
    let mut ports = Vec::with_capacity(count);
    for step in 0..span {
        if ports.len() == count {
            return Ok(ports);
        }
        let offset = u16::try_from((start + step) % span).expect("the span is one of ports");
        if let Some(port) = try_reserve(&dir, FIRST + offset)? {
            ports.push(port);
        }
    }
    bail!("no {count} free ports from {FIRST} to {end}")
}

fn try_reserve(dir: &std::path::Path, number: u16) -> anyhow::Result<Option<Port>> {
    let path: PathBuf = dir.join(number.to_string());
    let lock = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    Ok(is_free(number).then_some(Port { number, _lock: lock }))
}

fn is_free(port: u16) -> bool {
    let bound: io::Result<TcpListener> =
        TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    bound.is_ok()
}

/// Where the kernel's own choice of ports begins (ip(7), `ip_local_port_range`).
fn ephemeral_min() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}
