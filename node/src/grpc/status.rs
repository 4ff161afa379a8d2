//! The one map from what can go wrong to gRPC statuses.
//!
//! Every status carries an `ErrorInfo`: a stable reason, and metadata with `applied` (`no`, or
//! `unknown` for a write that may have been carried out), the response header's fields, and the
//! fields of the refusal. Clients decide by reason and `applied`, never by text.

use std::collections::HashMap;

use holdfast_machine::{Refusal, RefusalKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::members;
use crate::node::{Node, WriteFailed};
use crate::propose::NotProposed;
use crate::read::ReadFailed;
use crate::room::NoRoom;

const DOMAIN: &str = "holdfast";

/// Whether the call may have changed anything.
#[derive(Clone, Copy)]
enum Applied {
    No,
    Unknown,
}

/// Why the node ended a watch.
pub(super) enum WatchEnded {
    /// Changes are forgotten that the watch is to begin with; they are remembered from `oldest` on.
    Compacted {
        oldest: u64,
    },
    /// The reader did not keep up; everything up to `last` was sent.
    SlowReader {
        last: u64,
    },
    /// The connection has too many.
    TooMany {
        actual: usize,
        allowed: usize,
    },
    /// No leader was heard for so long that others may know more.
    OutOfTouch,
    Stopping,
}

struct Failure {
    code: Code,
    reason: &'static str,
    message: String,
    applied: Applied,
    fields: Vec<(&'static str, String)>,
}

impl Node {
    /// The status of a request that the state machine (or a check before it) refused.
    pub(crate) fn refused(&self, refusal: &Refusal, revision: u64) -> Status {
        let code = match refusal.kind() {
            RefusalKind::InvalidArgument => Code::InvalidArgument,
            RefusalKind::NotFound => Code::NotFound,
            RefusalKind::FailedPrecondition => Code::FailedPrecondition,
            RefusalKind::ResourceExhausted => Code::ResourceExhausted,
        };
        let failure = Failure {
            code,
            reason: refusal.reason(),
            message: refusal.to_string(),
            applied: Applied::No,
            fields: refusal.fields(),
        };
        self.status(failure, revision)
    }

    /// The status of a request that says something no request can mean.
    pub(crate) fn bad_request(&self, message: String) -> Status {
        let failure = Failure {
            code: Code::InvalidArgument,
            reason: "BAD_REQUEST",
            message,
            applied: Applied::No,
            fields: Vec::new(),
        };
        self.status_here(failure)
    }

    /// The status of a lookup by a name that nothing has.
    pub(crate) fn unknown_name(&self, class_name: &str, name: &str, revision: u64) -> Status {
        let failure = Failure {
            code: Code::NotFound,
            reason: "UNKNOWN_OBJECT",
            message: format!("there is no object {class_name}/{name}"),
            applied: Applied::No,
            fields: vec![("name", name.to_owned()), ("class_name", class_name.to_owned())],
        };
        self.status(failure, revision)
    }

    pub(crate) fn write_failed(&self, failed: WriteFailed) -> Status {
        let fields = match &failed {
            WriteFailed::NotApplied { reason: NotProposed::NoRoom(no_room), .. } => {
                numbers(no_room)
            }
            WriteFailed::NotApplied { .. } | WriteFailed::Unknown(_) => Vec::new(),
        };
        let (code, reason, message, applied) = match failed {
            WriteFailed::Unknown(cause) => {
                let message = format!(
                    "outcome unknown: {cause}; retrying with the same session and seq is safe"
                );
                (Code::Unknown, "OUTCOME_UNKNOWN", message, Applied::Unknown)
            }
            WriteFailed::NotApplied { reason, message } => match reason {
                NotProposed::NotLeader => (Code::Unavailable, "NO_LEADER", message, Applied::No),
                NotProposed::Stopping => (Code::Unavailable, "STOPPING", message, Applied::No),
                NotProposed::Overloaded => {
                    (Code::ResourceExhausted, "OVERLOADED", message, Applied::No)
                }
                NotProposed::NoRoom(NoRoom::Quota { .. }) => {
                    (Code::ResourceExhausted, "QUOTA_FULL", message, Applied::No)
                }
                NotProposed::NoRoom(NoRoom::Disk { .. }) => {
                    (Code::ResourceExhausted, "DISK_FULL", message, Applied::No)
                }
            },
        };
        self.status_here(Failure { code, reason, message, applied, fields })
    }

    pub(crate) fn read_failed(&self, failed: ReadFailed) -> Status {
        let (code, reason, message) = match failed {
            ReadFailed::NoLeader => {
                (Code::Unavailable, "NO_LEADER", "no quorum confirmed a leader in time")
            }
            ReadFailed::Overloaded => {
                (Code::ResourceExhausted, "OVERLOADED", "too many reads wait already")
            }
            ReadFailed::Stopping => (Code::Unavailable, "STOPPING", "this node is stopping"),
        };
        let message = message.to_owned();
        let applied = Applied::No;
        self.status_here(Failure { code, reason, message, applied, fields: Vec::new() })
    }

    pub(crate) fn change_refused(&self, refused: &members::Refused) -> Status {
        let (code, reason) = match refused {
            members::Refused::NotLeader(_) => (Code::Unavailable, "NO_LEADER"),
            members::Refused::OtherIncarnation { .. } => {
                (Code::FailedPrecondition, "WIPED_DIRECTORY")
            }
            members::Refused::Copy { .. } => (Code::FailedPrecondition, "COPIED_DIRECTORY"),
            members::Refused::IdUsedBefore(_) => (Code::FailedPrecondition, "ID_USED_BEFORE"),
            members::Refused::Unknown(_) => (Code::NotFound, "UNKNOWN_MEMBER"),
            members::Refused::QuorumAtRisk { .. } => (Code::FailedPrecondition, "QUORUM_AT_RISK"),
            members::Refused::InProgress => (Code::Unavailable, "CHANGE_IN_PROGRESS"),
            members::Refused::BadEndpoint(_) => (Code::InvalidArgument, "BAD_REQUEST"),
            members::Refused::Failed(_) => (Code::Unavailable, "CHANGE_FAILED"),
        };
        let applied = match refused {
            // Repeating a change of the membership is safe.
            members::Refused::Failed(_) => Applied::Unknown,
            members::Refused::NotLeader(_)
            | members::Refused::OtherIncarnation { .. }
            | members::Refused::Copy { .. }
            | members::Refused::IdUsedBefore(_)
            | members::Refused::Unknown(_)
            | members::Refused::QuorumAtRisk { .. }
            | members::Refused::InProgress
            | members::Refused::BadEndpoint(_) => Applied::No,
        };
        let message = refused.to_string();
        self.status_here(Failure { code, reason, message, applied, fields: Vec::new() })
    }

    pub(super) fn watch_ended(&self, ended: WatchEnded) -> Status {
        let (code, reason, message, fields) = match ended {
            WatchEnded::Compacted { oldest } => (
                Code::OutOfRange,
                "COMPACTED",
                format!(
                    "this node remembers changes from revision {oldest} on; read the state and \
                     watch from there"
                ),
                vec![("oldest", oldest.to_string())],
            ),
            WatchEnded::SlowReader { last } => (
                Code::ResourceExhausted,
                "SLOW_READER",
                format!("the watch was not read fast enough; go on behind revision {last}"),
                vec![("last", last.to_string())],
            ),
            WatchEnded::TooMany { actual, allowed } => (
                Code::ResourceExhausted,
                "TOO_MANY_WATCHES",
                format!("this connection has {actual} watches already, and at most {allowed}"),
                vec![("actual", actual.to_string()), ("allowed", allowed.to_string())],
            ),
            WatchEnded::OutOfTouch => {
                let message = "this node has not heard from a leader for a while".to_owned();
                (Code::Unavailable, "NO_LEADER", message, Vec::new())
            }
            WatchEnded::Stopping => {
                let message = "this node is stopping".to_owned();
                (Code::Unavailable, "STOPPING", message, Vec::new())
            }
        };
        self.status_here(Failure { code, reason, message, applied: Applied::No, fields })
    }

    /// The status of an export or a listing whose reader does not keep up.
    pub(super) fn cut_off(&self, what: &str) -> Status {
        let failure = Failure {
            code: Code::ResourceExhausted,
            reason: "SLOW_READER",
            message: format!("the {what} was not read fast enough; begin it anew"),
            applied: Applied::No,
            fields: Vec::new(),
        };
        self.status_here(failure)
    }

    fn status_here(&self, failure: Failure) -> Status {
        self.status(failure, self.applied.state().header().revision)
    }

    fn status(&self, failure: Failure, revision: u64) -> Status {
        let header = self.header(revision);
        let applied = match failure.applied {
            Applied::No => "no",
            Applied::Unknown => "unknown",
        };
        let mut metadata = HashMap::from([
            ("applied".to_owned(), applied.to_owned()),
            ("cluster_id".to_owned(), header.cluster_id),
            ("node_id".to_owned(), header.node_id.to_string()),
            ("revision".to_owned(), header.revision.to_string()),
            ("term".to_owned(), header.term.to_string()),
            ("leader_id".to_owned(), header.leader_id.to_string()),
            ("leader_endpoint".to_owned(), header.leader_endpoint),
        ]);
        for (name, value) in failure.fields {
            metadata.insert(name.to_owned(), value);
        }
        let details = ErrorDetails::with_error_info(failure.reason, DOMAIN, metadata);
        Status::with_error_details(failure.code, failure.message, details)
    }
}

/// What a refusal for want of room says, in bytes.
fn numbers(no_room: &NoRoom) -> Vec<(&'static str, String)> {
    let number = |name, value: &u64| (name, value.to_string());
    match no_room {
        NoRoom::Quota { actual, asked, allowed } => {
            vec![number("actual", actual), number("asked", asked), number("allowed", allowed)]
        }
        NoRoom::Disk { node, actual, allowed } => {
            vec![number("node", node), number("actual", actual), number("allowed", allowed)]
        }
    }
}
