//! What can go wrong with a call, in the three outcomes that a caller must tell apart.
//!
//! A call was *applied* (it returned `Ok`), *definitely not applied*, or its *outcome is unknown*;
//! [`Error::applied`] says which of the last two. This module is also the inverse of the node's map
//! from refusals to gRPC statuses: [`Answer`] is what one node said about one copy of a call.
//!
//! Invariants:
//! - Only a status that carries Holdfast's own `ErrorInfo` with `applied = no` is a definite answer
//!   (or `UNIMPLEMENTED`, with which a server says that it has no such method). Anything else,
//!   broken connections first of all, leaves the outcome of that copy unknown.
//! - Nothing is guessed from message texts.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_proto::v1 as proto;
use tonic::{Code, Status};
use tonic_types::{ErrorInfo, StatusExt as _};

/// The `domain` of every `ErrorInfo` that a Holdfast node attaches.
const DOMAIN: &str = "holdfast";
/// What is reported of an endpoint that has a copy of the call and says nothing.
pub(crate) const SILENCE: &str = "no answer";

/// Why a call returned no answer. Every variant that a node had a part in carries that node's
/// header, if it is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The cluster refused the call: definitely not applied, and repeating it unchanged will be
    /// refused again.
    #[error("{message}")]
    Refused {
        /// Stable name of the reason, such as `UNKNOWN_OBJECT`.
        reason: String,
        /// The class of the reason.
        code: Code,
        /// Text for people: what was refused, and what to do.
        message: String,
        /// What the message names, by field: the values, the limits, the holder.
        fields: BTreeMap<String, String>,
        /// Who refused it.
        header: Option<Box<Header>>,
    },
    /// A write that was definitely not applied, although nobody refused it: it reached no node, or
    /// every node that got it answered that it did not carry it out. Safe to repeat.
    #[error("not applied: {cause}")]
    NotApplied {
        /// What happened at each endpoint.
        cause: Cause,
        /// The last node that answered.
        header: Option<Box<Header>>,
    },
    /// A write that was sent and may have been applied, or may still be. Repeating it is a new
    /// write, unless it is one whose repetition does no harm.
    #[error("outcome unknown: {cause}")]
    OutcomeUnknown {
        /// What happened at each endpoint.
        cause: Cause,
        /// The last node that answered.
        header: Option<Box<Header>>,
    },
    /// A read that no node answered in time.
    #[error("unavailable: {cause}")]
    Unavailable {
        /// What happened at each endpoint.
        cause: Cause,
        /// The last node that answered.
        header: Option<Box<Header>>,
    },
    /// The write's session had expired and it was definitely not applied. It is never run in
    /// another session by the library; the next write opens a new one.
    #[error("session {session} has expired; the write was not applied, send it again")]
    SessionExpired {
        /// The session that is gone.
        session: u64,
        /// Who refused it.
        header: Option<Box<Header>>,
    },
    /// A [`LeaseHolder`](crate::LeaseHolder) no longer holds its lease, so it did not go on.
    #[error("lease {lease} is lost; open a new one")]
    LeaseLost {
        /// The lease that is gone.
        lease: u64,
        /// Whether the call may have been carried out before the loss was seen.
        applied: Applied,
    },
}

/// Whether a call that returned an error may have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It definitely did not, and never will.
    No,
    /// It may have, or may still.
    Unknown,
}

impl Error {
    /// Whether the call may have changed something. Failed reads change nothing.
    #[must_use]
    pub fn applied(&self) -> Applied {
        match self {
            Error::Refused { .. }
            | Error::NotApplied { .. }
            | Error::Unavailable { .. }
            | Error::SessionExpired { .. } => Applied::No,
            Error::OutcomeUnknown { .. } => Applied::Unknown,
            Error::LeaseLost { applied, .. } => *applied,
        }
    }

    /// The stable name of a refusal's reason, such as `STALE_FENCE`; none for other errors.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Error::Refused { reason, .. } => Some(reason),
            Error::SessionExpired { .. } => Some("SESSION_EXPIRED"),
            Error::LeaseLost { .. } => Some("LEASE_LOST"),
            Error::NotApplied { .. } | Error::OutcomeUnknown { .. } | Error::Unavailable { .. } => {
                None
            }
        }
    }

    /// What happened at each endpoint, for the errors that are about reaching the cluster.
    #[must_use]
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Error::NotApplied { cause, .. }
            | Error::OutcomeUnknown { cause, .. }
            | Error::Unavailable { cause, .. } => Some(cause),
            Error::Refused { .. } | Error::SessionExpired { .. } | Error::LeaseLost { .. } => None,
        }
    }

    /// The header of the last answer about this call.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        match self {
            Error::Refused { header, .. }
            | Error::NotApplied { header, .. }
            | Error::OutcomeUnknown { header, .. }
            | Error::Unavailable { header, .. }
            | Error::SessionExpired { header, .. } => header.as_deref(),
            Error::LeaseLost { .. } => None,
        }
    }

    /// The error of a write that failed with `self` in a call that had to come before it.
    pub(crate) fn before_sending(self) -> Error {
        if let Error::Unavailable { cause, header } = self {
            return Error::NotApplied { cause, header };
        }
        self
    }

    pub(crate) fn into_header(self) -> Option<Box<Header>> {
        match self {
            Error::Refused { header, .. }
            | Error::NotApplied { header, .. }
            | Error::OutcomeUnknown { header, .. }
            | Error::Unavailable { header, .. }
            | Error::SessionExpired { header, .. } => header,
            Error::LeaseLost { .. } => None,
        }
    }

    /// Whether the cluster said that it does not know the session (any more).
    pub(crate) fn is_session_gone(&self) -> bool {
        matches!(self.reason(), Some("SESSION_EXPIRED" | "UNKNOWN_SESSION"))
    }

    /// Whether a node said that it does not know the session any more, of a write that may have been applied
    /// before.
    pub(crate) fn tells_of_lost_session(&self) -> bool {
        let tells =
            |reason: &str| matches!(reason, "SESSION_EXPIRED" | "UNKNOWN_SESSION" | "STALE_SEQ");
        let attempts = self.cause().map_or(&[][..], |cause| &cause.attempts);
        attempts.iter().any(|attempt| attempt.reason.as_deref().is_some_and(tells))
    }

    /// A node answered a write without saying what came of it: a fault of the node.
    pub(crate) fn malformed(name: &str, header: Option<&proto::ResponseHeader>) -> Error {
        let summary = format!("the answer to {name} says nothing about its outcome");
        let header = header.map(|header| Box::new(Header::from(header)));
        Error::OutcomeUnknown { cause: Cause { summary, attempts: Vec::new() }, header }
    }

    /// Whether any node answered at all, if only to say that it could not carry the call out.
    /// False means that nobody could be reached: the difference between a cluster that cannot
    /// commit and one that is not there.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        match self {
            Error::NotApplied { cause, .. }
            | Error::OutcomeUnknown { cause, .. }
            | Error::Unavailable { cause, .. } => {
                cause.attempts.iter().any(|attempt| attempt.reason.is_some())
            }
            Error::Refused { .. } | Error::SessionExpired { .. } | Error::LeaseLost { .. } => true,
        }
    }
}

/// Why a call could not be brought to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The call, and how far it got.
    pub summary: String,
    /// The last thing that happened at each endpoint that was tried, in order of their addresses.
    pub attempts: Vec<Attempt>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        for (i, attempt) in self.attempts.iter().enumerate() {
            let separator = if i == 0 { " (" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.endpoint, attempt.message)?;
        }
        if self.attempts.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// What the last copy of a call met at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where it was sent, as `host:port`.
    pub endpoint: String,
    /// The reason that the node gave, such as `NO_LEADER`; none if it gave no answer.
    pub reason: Option<String>,
    /// Text for people.
    pub message: String,
}

/// Who answered, and what it knew: comes with every response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster, a UUID in text form; empty if the node did not say.
    pub cluster_id: String,
    /// The node that answered.
    pub node_id: u64,
    /// The revision at which the answer is true.
    pub revision: u64,
    /// The Raft term that the node is in.
    pub term: u64,
    /// The leader as the node knows it; 0 while there is none.
    pub leader_id: u64,
    /// Where clients reach that leader; empty while there is none.
    pub leader_endpoint: String,
}

impl From<&proto::ResponseHeader> for Header {
    fn from(header: &proto::ResponseHeader) -> Header {
        Header {
            cluster_id: header.cluster_id.clone(),
            node_id: header.node_id,
            revision: header.revision,
            term: header.term,
            leader_id: header.leader_id,
            leader_endpoint: header.leader_endpoint.clone(),
        }
    }
}

/// What one node said about one copy of a call that it did not carry out.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Refused: this copy changed nothing.
    Refused(Refusal),
    /// The node cannot carry calls out at present; this copy changed nothing.
    Elsewhere { reason: String, message: String, header: Option<Box<Header>> },
    /// Nobody knows what became of this copy. `reason` is none if the node did not answer.
    Unknown { reason: Option<String>, message: String, header: Option<Box<Header>> },
    /// This copy never left: there was no connection.
    NotSent { message: String },
}

/// A refusal as it came, and what it says about other copies of the same write.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) header: Option<Box<Header>>,
}

/// How far a refusal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Follows from the request alone: every copy of it is refused.
    Request,
    /// Decided when the write was applied and remembered under its seq, if it went through the log,
    /// as every resent copy does: every copy gets the same answer.
    Outcome,
    /// The session or the seq is gone from the cluster's memory: no copy will be answered again.
    Forgotten,
    /// About this copy alone: another one may fare differently.
    Copy,
}

impl Refusal {
    pub(crate) fn reach(&self) -> Reach {
        match (self.reason.as_str(), self.code) {
            ("SESSION_EXPIRED" | "UNKNOWN_SESSION" | "STALE_SEQ", _) => Reach::Forgotten,
            (
                "TOO_MANY_CLAIMS" | "TOO_MANY_WAITERS" | "TOO_MANY_PLACES" | "TOO_MANY_MEMBERS"
                | "TOO_MANY_CREATORS" | "TOO_MANY_UPLOADS" | "UNISSUED_ID",
                _,
            ) => Reach::Outcome,
            ("TRANSACTION_TOO_LARGE", _) | (_, Code::InvalidArgument) => Reach::Request,
            (_, Code::NotFound | Code::FailedPrecondition) => Reach::Outcome,
            _ => Reach::Copy,
        }
    }

    pub(crate) fn into_error(self) -> Error {
        let Refusal { reason, code, message, fields, header } = self;
        Error::Refused { reason, code, message, fields, header }
    }
}

impl Answer {
    /// Reads a status, from whoever made it: a node, or the transport on this side.
    pub(crate) fn from_status(status: &Status) -> Answer {
        if is_connect_error(status) {
            return Answer::NotSent { message: deepest_cause(status) };
        }
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let Some(info) = info else { return Answer::from_bare_status(status) };
        let header = Some(Box::new(header_from(&info)));
        let message = status.message().to_owned();
        let is_definite = info.metadata.get("applied").is_some_and(|applied| applied == "no");
        if !is_definite {
            return Answer::Unknown { reason: Some(info.reason), message, header };
        }
        let is_temporary = status.code() == Code::Unavailable || info.reason == "OVERLOADED";
        if is_temporary {
            return Answer::Elsewhere { reason: info.reason, message, header };
        }
        let fields = info.metadata.into_iter().filter(|(name, _)| !is_header_field(name)).collect();
        Answer::Refused(Refusal {
            reason: info.reason,
            code: status.code(),
            message,
            fields,
            header,
        })
    }

    /// What the answer is worth if it came from a node of another cluster: nothing was done in ours
    /// if that node did nothing.
    pub(crate) fn in_foreign_cluster(self, message: String) -> Answer {
        let reason = "FOREIGN_CLUSTER".to_owned();
        match self {
            Answer::Refused(_) | Answer::Elsewhere { .. } => {
                Answer::Elsewhere { reason, message, header: None }
            }
            Answer::Unknown { .. } => {
                Answer::Unknown { reason: Some(reason), message, header: None }
            }
            Answer::NotSent { message } => Answer::NotSent { message },
        }
    }

    /// The header that came with the answer.
    pub(crate) fn header(&self) -> Option<&Header> {
        match self {
            Answer::Refused(Refusal { header, .. })
            | Answer::Elsewhere { header, .. }
            | Answer::Unknown { header, .. } => header.as_deref(),
            Answer::NotSent { .. } => None,
        }
    }

    /// A status without Holdfast's details: from the transport, or from another kind of server.
    fn from_bare_status(status: &Status) -> Answer {
        if status.code() == Code::Unimplemented && std::error::Error::source(status).is_none() {
            return Answer::Refused(Refusal {
                reason: "UNIMPLEMENTED".to_owned(),
                code: status.code(),
                message: "the server does not know this call; is it a holdfast node of this \
                          version?"
                    .to_owned(),
                fields: BTreeMap::new(),
                header: None,
            });
        }
        // With these either side says that the time was up.
        let is_late = matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded);
        let message = if is_late { SILENCE.to_owned() } else { deepest_cause(status) };
        Answer::Unknown { reason: None, message, header: None }
    }
}

/// Whether a status was made on this side because the connection failed, rather than received.
pub(crate) fn is_transport_error(status: &Status) -> bool {
    has_source::<tonic::transport::Error>(status) && !has_source::<tonic::TimeoutExpired>(status)
}

/// tonic wraps in `ConnectError` only what happens before a connection exists, so the request that
/// waited for it was not written anywhere.
fn is_connect_error(status: &Status) -> bool {
    has_source::<tonic::ConnectError>(status)
}

fn has_source<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<E>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost message of a chain of errors, which is the one that says what happened.
pub(crate) fn deepest_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    match deepest.downcast_ref::<Status>() {
        Some(status) if status.message().is_empty() => status.code().description().to_owned(),
        Some(status) => status.message().to_owned(),
        None => deepest.to_string(),
    }
}

fn is_header_field(name: &str) -> bool {
    matches!(
        name,
        "applied"
            | "cluster_id"
            | "node_id"
            | "leader_id"
            | "leader_endpoint"
            | "revision"
            | "term"
    )
}

fn header_from(info: &ErrorInfo) -> Header {
    let text = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
    let number = |name: &str| text(name).parse().unwrap_or_default();
    Header {
        cluster_id: text("cluster_id"),
        node_id: number("node_id"),
        revision: number("revision"),
        term: number("term"),
        leader_id: number("leader_id"),
        leader_endpoint: text("leader_endpoint"),
    }
}

#[cfg(test)]
mod tests {
    //! Statuses as nodes make them, read back.

    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str, domain: &str, applied: Option<&str>) -> Status {
        let mut metadata = HashMap::from([
            ("cluster_id".to_owned(), "c".to_owned()),
            ("node_id".to_owned(), "2".to_owned()),
            ("leader_id".to_owned(), "3".to_owned()),
            ("leader_endpoint".to_owned(), "host:1".to_owned()),
            ("revision".to_owned(), "40".to_owned()),
            ("term".to_owned(), "5".to_owned()),
            ("actual".to_owned(), "7".to_owned()),
        ]);
        metadata.extend(applied.map(|applied| ("applied".to_owned(), applied.to_owned())));
        let details = ErrorDetails::with_error_info(reason, domain, metadata);
        Status::with_error_details(code, "what and why", details)
    }

    fn read(code: Code, reason: &str) -> Answer {
        Answer::from_status(&status(code, reason, DOMAIN, Some("no")))
    }

    fn reach(code: Code, reason: &str) -> Reach {
        let Answer::Refused(refusal) = read(code, reason) else {
            panic!("{reason} is a refusal");
        };
        refusal.reach()
    }

    // G5: the inverse of the node's map, reason by reason.
    #[test]
    fn every_reason_of_a_node_has_its_reach() {
        for reason in ["NO_LEADER", "STOPPING", "READ_FAILED", "CHANGE_IN_PROGRESS"] {
            assert!(matches!(read(Code::Unavailable, reason), Answer::Elsewhere { .. }));
        }
        assert!(matches!(read(Code::ResourceExhausted, "OVERLOADED"), Answer::Elsewhere { .. }));
        let expected = [
            (Code::InvalidArgument, "BAD_REQUEST", Reach::Request),
            (Code::InvalidArgument, "NAME_TOO_LONG", Reach::Request),
            (Code::NotFound, "UNKNOWN_OBJECT", Reach::Outcome),
            (Code::FailedPrecondition, "LEASE_LOST", Reach::Outcome),
            (Code::FailedPrecondition, "STALE_FENCE", Reach::Outcome),
            (Code::ResourceExhausted, "TOO_MANY_CLAIMS", Reach::Outcome),
            (Code::ResourceExhausted, "TOO_MANY_WAITERS", Reach::Outcome),
            (Code::ResourceExhausted, "TOO_MANY_PLACES", Reach::Outcome),
            (Code::ResourceExhausted, "TOO_MANY_MEMBERS", Reach::Outcome),
            (Code::FailedPrecondition, "CHANGE_SOURCE_IN_USE", Reach::Outcome),
            (Code::ResourceExhausted, "TOO_MANY_CREATORS", Reach::Outcome),
            (Code::FailedPrecondition, "CREATION_LOST", Reach::Outcome),
            (Code::FailedPrecondition, "IMPORT_CONFLICT", Reach::Outcome),
            (Code::FailedPrecondition, "VERSION_FROM_FUTURE", Reach::Outcome),
            (Code::InvalidArgument, "UNISSUED_ID", Reach::Outcome),
            (Code::InvalidArgument, "REPEATED_ID", Reach::Request),
            (Code::InvalidArgument, "OBJECT_TOO_LARGE", Reach::Request),
            (Code::NotFound, "UNKNOWN_UPLOAD", Reach::Outcome),
            (Code::FailedPrecondition, "MISSING_CHUNK", Reach::Outcome),
            (Code::FailedPrecondition, "INCOMPLETE_UPLOAD", Reach::Outcome),
            (Code::ResourceExhausted, "TOO_MANY_UPLOADS", Reach::Outcome),
            (Code::ResourceExhausted, "TRANSACTION_TOO_LARGE", Reach::Request),
            (Code::InvalidArgument, "DUPLICATE_KEY", Reach::Request),
            (Code::FailedPrecondition, "SESSION_EXPIRED", Reach::Forgotten),
            (Code::FailedPrecondition, "STALE_SEQ", Reach::Forgotten),
            (Code::ResourceExhausted, "TOO_MANY_UNDECIDED", Reach::Copy),
            (Code::ResourceExhausted, "TOO_MANY_SESSIONS", Reach::Copy),
            (Code::ResourceExhausted, "QUOTA_FULL", Reach::Copy),
            (Code::ResourceExhausted, "DISK_FULL", Reach::Copy),
        ];
        for (code, reason, expected) in expected {
            assert_eq!(reach(code, reason), expected, "{reason}");
        }
    }

    // G5
    #[test]
    fn only_applied_no_is_definite() {
        for applied in [None, Some("unknown"), Some("yes"), Some("")] {
            let answer =
                Answer::from_status(&status(Code::NotFound, "UNKNOWN_OBJECT", DOMAIN, applied));
            assert!(matches!(answer, Answer::Unknown { reason: Some(_), .. }), "{answer:?}");
        }
        let foreign = status(Code::NotFound, "UNKNOWN_OBJECT", "example.org", Some("no"));
        let answer = Answer::from_status(&foreign);
        assert!(matches!(answer, Answer::Unknown { reason: None, .. }), "{answer:?}");
        let bare = Answer::from_status(&Status::invalid_argument("from a proxy"));
        assert!(matches!(bare, Answer::Unknown { reason: None, .. }), "{bare:?}");
    }

    #[test]
    fn header_and_fields_come_apart() {
        let Answer::Refused(refusal) = read(Code::NotFound, "UNKNOWN_OBJECT") else {
            panic!("it is a refusal");
        };
        let expected = Header {
            cluster_id: "c".to_owned(),
            node_id: 2,
            revision: 40,
            term: 5,
            leader_id: 3,
            leader_endpoint: "host:1".to_owned(),
        };
        assert_eq!(refusal.header.as_deref(), Some(&expected));
        assert_eq!(refusal.fields, BTreeMap::from([("actual".to_owned(), "7".to_owned())]));
        assert_eq!(refusal.into_error().to_string(), "what and why");
    }

    #[test]
    fn cause_lists_endpoints() {
        let attempt = |endpoint: &str, message: &str| Attempt {
            endpoint: endpoint.to_owned(),
            reason: None,
            message: message.to_owned(),
        };
        let summary = "state.get_state got no answer within 1.0 s".to_owned();
        let mut cause = Cause { summary, attempts: Vec::new() };
        assert_eq!(cause.to_string(), "state.get_state got no answer within 1.0 s");
        cause.attempts = vec![attempt("a:1", "no route"), attempt("b:2", SILENCE)];
        let text = "state.get_state got no answer within 1.0 s (a:1: no route; b:2: no answer)";
        assert_eq!(cause.to_string(), text);
    }
}
