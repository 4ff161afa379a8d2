//! Which ports the nodes of a local cluster listen on.
//!
//! Node i of a cluster on base port B serves clients on B + 10 i and peers one above. Base port 0
//! picks free ports: below the range from which the kernel takes the near ends of outgoing
//! connections, so that a node that comes back finds its port free, and in a block that follows
//! from our pid, so that several clusters started at the same moment do not meet.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::codes::Code;
use crate::errors::{Failure, Outcome};

/// Distance between the ports of two nodes.
const STEP: u16 = 10;
/// The base port of a cluster that is told nothing.
pub(crate) const BASE_DEFAULT: u16 = 7480;
/// Free ports are looked for from here on.
const FREE_MIN: u16 = 10_000;
/// A block holds the ports of nine nodes, the most that `up` starts.
const BLOCK: u16 = 32;

/// The client and the peer port of a node.
pub(crate) type Pair = (u16, u16);

/// The ports of `count` nodes from a base port on.
pub(crate) fn from_base(base: u16, count: u8) -> Outcome<Vec<Pair>> {
    (0..u16::from(count))
        .map(|i| {
            let client = base.checked_add(i * STEP)?;
            Some((client, client.checked_add(1)?))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("--base-port {base} leaves no room for {count} nodes"),
            )
            .help("choose a lower one, or 0 for free ports")
        })
}

/// The ports of one more node behind the last one.
pub(crate) fn behind(last_client_port: u16) -> Outcome<Pair> {
    from_base(last_client_port, 2).map(|pairs| pairs[1])
}

/// Free ports for `count` nodes.
pub(crate) fn pick_free(count: u8) -> Outcome<Vec<Pair>> {
    let ceiling = ephemeral_min().max(FREE_MIN + BLOCK);
    let blocks = (ceiling - FREE_MIN) / BLOCK;
    let first = u16::try_from(std::process::id() % u32::from(blocks)).unwrap_or(0);
    let mut free = Vec::new();
    for block in (first..blocks).chain(0..first) {
        free.clear();
        let from = FREE_MIN + block * BLOCK;
        free.extend((from..from + BLOCK).filter(|port| try_bind(*port).is_ok()));
        if free.len() >= usize::from(count) * 2 {
            return Ok(free.chunks_exact(2).take(count.into()).map(|p| (p[0], p[1])).collect());
        }
    }
    Err(Failure::new(Code::PortInUse, "there are no free ports")
        .cause(format!("no {count} pairs of ports are free from {FREE_MIN} to {ceiling}"))
        .help("name a first port with --base-port"))
}

/// An error that names the first of these ports that somebody else listens on.
pub(crate) fn require_free(ports: &[u16]) -> Outcome<()> {
    for port in ports.iter().copied() {
        if let Err(error) = try_bind(port) {
            let failure = Failure::new(Code::PortInUse, format!("port {port} is in use"))
                .cause(format!("cannot listen on 127.0.0.1:{port}: {error}"))
                .help(format!(
                    "see who listens: ss -ltnp 'sport = :{port}'; or choose other ports: holdfast \
                     up --base-port 0"
                ))
                .field("port", port);
            return Err(failure);
        }
    }
    Ok(())
}

fn try_bind(port: u16) -> io::Result<()> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map(drop)
}

/// Where the kernel's own choice of ports begins (ip(7), ip_local_port_range).
fn ephemeral_min() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    //! Where nodes listen, and what is said if they cannot.
    use super::*;

    #[test]
    fn ports_follow_from_the_base() {
        assert_eq!(from_base(7480, 3).unwrap(), [(7480, 7481), (7490, 7491), (7500, 7501)]);
        assert_eq!(behind(7500).unwrap(), (7510, 7511));
        assert_eq!(from_base(65_530, 2).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let failure = require_free(&[port]).unwrap_err();
        assert_eq!(failure.code, Code::PortInUse);
        assert_eq!(failure.what, format!("port {port} is in use"));
    }

    #[test]
    fn free_ports_are_free_and_differ() {
        let pairs = pick_free(9).unwrap();
        let mut all: Vec<u16> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
        require_free(&all).unwrap();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 18);
    }
}
