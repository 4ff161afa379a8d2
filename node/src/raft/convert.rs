//! Between openraft's types and the peer protocol.
//!
//! Whatever arrives is checked: a missing field is an error that names it, never a default.

use holdfast_proto::peer;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};

use super::codec;
use super::types::{Batch, Entry, LogId, TypeConfig, Vote};

/// A message that does not have what the protocol demands.
#[derive(Debug, thiserror::Error)]
#[error("malformed peer message: {0}")]
pub(crate) struct Malformed(String);

impl Malformed {
    pub(crate) fn missing(field: &str) -> Malformed {
        Malformed(format!("{field} is missing"))
    }
}

pub(crate) fn log_id_to_wire(log_id: LogId) -> peer::LogId {
    peer::LogId { term: log_id.leader_id.term, index: log_id.index }
}

pub(crate) fn log_id_from_wire(log_id: peer::LogId) -> LogId {
    LogId::new_term_index(log_id.term, log_id.index)
}

pub(crate) fn vote_to_wire(vote: Vote) -> peer::Vote {
    peer::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_wire(vote: Option<peer::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or_else(|| Malformed::missing("vote"))?;
    Ok(if vote.committed {
        Vote::new_committed(vote.term, vote.node_id)
    } else {
        Vote::new(vote.term, vote.node_id)
    })
}

fn entry_to_wire(entry: Entry) -> peer::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => peer::entry::Payload::Blank(peer::Blank {}),
        EntryPayload::Normal(batch) => peer::entry::Payload::Batch(batch.0),
        EntryPayload::Membership(membership) => {
            peer::entry::Payload::Membership(codec::encode(&membership))
        }
    };
    peer::Entry { log_id: Some(log_id_to_wire(entry.log_id)), payload: Some(payload) }
}

fn entry_from_wire(entry: peer::Entry) -> Result<Entry, Malformed> {
    let log_id = entry.log_id.ok_or_else(|| Malformed::missing("entry.log_id"))?;
    let payload = match entry.payload.ok_or_else(|| Malformed::missing("entry.payload"))? {
        peer::entry::Payload::Blank(peer::Blank {}) => EntryPayload::Blank,
        peer::entry::Payload::Batch(bytes) => EntryPayload::Normal(Batch(bytes)),
        peer::entry::Payload::Membership(bytes) => EntryPayload::Membership(
            codec::decode("membership entry", &bytes).map_err(|e| Malformed(e.to_string()))?,
        ),
    };
    Ok(Entry { log_id: log_id_from_wire(log_id), payload })
}

pub(crate) fn append_to_wire(request: AppendEntriesRequest<TypeConfig>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(vote_to_wire(request.vote)),
        prev_log_id: request.prev_log_id.map(log_id_to_wire),
        leader_commit: request.leader_commit.map(log_id_to_wire),
        entries: request.entries.into_iter().map(entry_to_wire).collect(),
    }
}

pub(crate) fn append_from_wire(
    request: peer::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.vote)?,
        prev_log_id: request.prev_log_id.map(log_id_from_wire),
        leader_commit: request.leader_commit.map(log_id_from_wire),
        entries: request.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn appended_to_wire(result: StreamAppendResult<TypeConfig>) -> peer::AppendResponse {
    let outcome = match result {
        Ok(log_id) => peer::append_response::Outcome::Stored(peer::Stored {
            log_id: log_id.map(log_id_to_wire),
        }),
        Err(StreamAppendError::Conflict(log_id)) => {
            peer::append_response::Outcome::Conflict(log_id_to_wire(log_id))
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            peer::append_response::Outcome::HigherVote(vote_to_wire(vote))
        }
    };
    peer::AppendResponse { outcome: Some(outcome) }
}

pub(crate) fn appended_from_wire(
    response: peer::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, Malformed> {
    let outcome = response.outcome.ok_or_else(|| Malformed::missing("append response outcome"))?;
    Ok(match outcome {
        peer::append_response::Outcome::Stored(stored) => Ok(stored.log_id.map(log_id_from_wire)),
        peer::append_response::Outcome::Conflict(log_id) => {
            Err(StreamAppendError::Conflict(log_id_from_wire(log_id)))
        }
        peer::append_response::Outcome::HigherVote(vote) => {
            Err(StreamAppendError::HigherVote(vote_from_wire(Some(vote))?))
        }
    })
}

pub(crate) fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_to_wire(request.vote)),
        last_log_id: request.last_log_id.map(log_id_to_wire),
        leader_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_wire(
    request: peer::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let vote = vote_from_wire(request.vote)?;
    let mut converted = VoteRequest::new(vote, request.last_log_id.map(log_id_from_wire));
    converted.leadership_transfer = request.leader_transfer;
    Ok(converted)
}

pub(crate) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_to_wire(response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.map(log_id_to_wire),
    }
}

pub(crate) fn vote_response_from_wire(
    response: peer::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, Malformed> {
    let vote = vote_from_wire(response.vote)?;
    Ok(VoteResponse::new(vote, response.last_log_id.map(log_id_from_wire), response.granted))
}
