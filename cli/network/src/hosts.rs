//! A loopback address for each node: on Linux all of 127.0.0.0/8 is this machine.

use std::net::{IpAddr, Ipv4Addr};

/// The first two parts of the addresses; away from 127.0.0.1, which everybody dials from.
const PREFIX: [u8; 2] = [127, 77];

/// The address of that node; none for an id beyond 65,535, which no practice cluster reaches.
#[must_use]
pub fn host_of(node: u64) -> Option<IpAddr> {
    let [high, low] = u16::try_from(node).ok()?.to_be_bytes();
    Some(IpAddr::V4(Ipv4Addr::new(PREFIX[0], PREFIX[1], high, low)))
}

/// The node with that address; none if it is no node's.
#[must_use]
pub fn node_at(host: IpAddr) -> Option<u64> {
    let IpAddr::V4(host) = host else { return None };
    match host.octets() {
        [a, b, high, low] if [a, b] == PREFIX => Some(u16::from_be_bytes([high, low]).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_loopback_and_lead_back_to_the_node() {
        for node in [1, 9, 255, 256, 65_535] {
            let host = host_of(node).unwrap();
            assert!(host.is_loopback());
            assert_eq!(node_at(host), Some(node));
        }
        assert_eq!(host_of(65_536), None);
        assert_eq!(node_at(Ipv4Addr::LOCALHOST.into()), None);
    }
}
