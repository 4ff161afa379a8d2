//! What comes with every call: the deadline on the way in, the response header on the way out.

use std::time::Duration;

use holdfast_machine::State;
use holdfast_proto::v1;
use tonic::metadata::MetadataMap;

use crate::leadership::Leader;
use crate::node::Node;
use crate::runtime::{self, Instant};

/// How long a call may take that names no deadline.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// How long a call may take, whatever it names.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Part of the caller's time that is kept for the answer's way back, so that the caller learns
/// what the node knows instead of running into its own deadline.
const RETURN_SHARE: u32 = 20;

/// Until when the node works on a call.
pub(crate) fn deadline(metadata: &MetadataMap) -> Instant {
    let named = metadata
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(parse_timeout)
        .unwrap_or(TIMEOUT_DEFAULT)
        .min(TIMEOUT_MAX);
    runtime::now() + (named - named / RETURN_SHARE)
}

/// The gRPC wire format of time-outs: at most eight digits and a unit (gRPC over HTTP/2, "Requests").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

impl Node {
    /// The header of a response that is true at `revision`.
    pub(crate) fn header(&self, revision: u64) -> v1::ResponseHeader {
        let lead = self.lead.borrow().clone();
        let own = self.peers.own();
        let leader_id = match lead.leader {
            Leader::None => 0,
            Leader::Me(_) => own.node_id,
            Leader::Other(id) => id,
        };
        let leader = self.peers.member(leader_id);
        v1::ResponseHeader {
            cluster_id: own.cluster_id.clone(),
            node_id: own.node_id,
            revision,
            term: lead.term,
            leader_id,
            leader_endpoint: leader.map(|member| member.client_endpoint).unwrap_or_default(),
        }
    }

    /// The header of an answer that was read from `state`.
    pub(crate) fn header_of(&self, state: &State) -> v1::ResponseHeader {
        self.header(state.header().revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for odd in ["", "m", "100", "1000000000m", "-1m", "1x", "é"] {
            assert_eq!(parse_timeout(odd), None, "{odd:?}");
        }
    }
}
