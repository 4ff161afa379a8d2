//! From the command line to a client, and from a client's error to what people see.
//!
//! Invariants: a call that reached nobody (exit 3), one that reached nodes that cannot commit
//! (exit 4), one that was refused (exit 5 or as the refusal says), and one whose outcome is unknown
//! (exit 7) are always told apart; a write that timed out is never called failed.

use std::time::Duration;

use holdfast_client::{Client, ClientConfig, Code as Status, Error};

use crate::args::CallArgs;
use crate::codes::Code;
use crate::endpoints;
use crate::errors::{Failure, Outcome};
use crate::output::Output;
use crate::probe::Probe;
use crate::progress::Progress;
use crate::status;

/// How long the end of a session may take; it lapses by itself anyway.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// A session of a single command need not live long; never less than twice the call time-out.
const SESSION_IDLE: Duration = Duration::from_secs(60);

/// A client for one command.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Makes the calls.
    pub(crate) client: Client,
    endpoints: Vec<String>,
    /// Where to show that we wait; none for what shows that itself.
    output: Option<Output>,
}

impl Connection {
    /// A client as the command line wants it; sends nothing yet.
    pub(crate) fn open(args: &CallArgs, output: Output) -> Outcome<Self> {
        let endpoints = endpoints::resolve(&args.cluster)?;
        let connection = Self::to(endpoints, &args.namespace, args.timeout);
        Ok(Self { output: Some(output), ..connection })
    }

    /// A client of these endpoints.
    pub(crate) fn to(endpoints: Vec<String>, namespace: &str, timeout: Duration) -> Self {
        let client = Client::connect(ClientConfig {
            namespace: namespace.to_owned(),
            call_timeout: timeout,
            session_idle: SESSION_IDLE.max(timeout * 2),
            ..ClientConfig::new(endpoints.iter().cloned())
        });
        Self { client, endpoints, output: None }
    }

    /// Makes a call; shows that it waits, and returns the answer or what people see instead.
    pub(crate) async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Outcome<T> {
        let waiting = self.output.map(|out| Progress::start(out, "waiting for the cluster"));
        let answer = call.await;
        drop(waiting);
        self.ok(answer).await
    }

    /// The answer of a call, or what people see instead.
    pub(crate) async fn ok<T>(&self, result: Result<T, Error>) -> Outcome<T> {
        match result {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.explain(&error).await),
        }
    }

    /// Ends the session, if there is one.
    pub(crate) async fn close(self) {
        close(&self.client).await;
    }

    /// An error, with what the nodes say about themselves where that is the better cause.
    async fn explain(&self, error: &Error) -> Failure {
        let failure = failure(error);
        if !matches!(failure.code, Code::NoQuorum | Code::Unreachable | Code::OutcomeUnknown) {
            return failure;
        }
        let assessment = status::look(&Probe::new(&self.endpoints)).await;
        let Some(told) = assessment.failure() else { return failure };
        if failure.code == Code::OutcomeUnknown {
            return failure.cause(format!("{}: {}", told.what, told.cause.unwrap_or_default()));
        }
        told
    }
}

/// Ends a client's session, within bounds.
pub(crate) async fn close(client: &Client) {
    // Whether this succeeds decides nothing: an idle session ends by itself.
    let _lapses = tokio::time::timeout(CLOSE_WITHIN, client.close()).await;
}

/// What people see of an error of the client library.
pub(crate) fn failure(error: &Error) -> Failure {
    match error {
        Error::Refused { reason, code, message, .. } => refused(reason, *code, message),
        Error::NotApplied { .. } | Error::Unavailable { .. } => out_of_reach(error),
        Error::OutcomeUnknown { cause, .. } => {
            Failure::new(Code::OutcomeUnknown, "the write was sent, and its outcome is unknown")
                .cause(cause.to_string())
                .help(
                    "read the value to see whether it was applied. For programs: retrying with the \
                     same id is safe, and the client library does so until its deadline",
                )
        }
        Error::SessionExpired { .. } => Failure::new(Code::SessionExpired, error.to_string())
            .help("run the command again; it opens a new session"),
        Error::LeaseLost { lease, .. } => lease_lost(&format!("lease {lease} is lost")),
    }
}

fn refused(reason: &str, status: Status, message: &str) -> Failure {
    let failure = match reason {
        "STALE_FENCE" => Failure::new(Code::StaleFence, message)
            .help("stop writing: somebody else owns it now. See holdfast changesource list"),
        "LEASE_LOST" => lease_lost(message),
        "CHANGE_SOURCE_IN_USE" => Failure::new(Code::InUse, message)
            .help("release it first, or wait for that: holdfast changesource release NAME"),
        "COMPACTED" => Failure::new(Code::Compacted, message)
            .help("list what there is now, and watch without --from-revision"),
        "QUOTA_FULL" => Failure::new(Code::QuotaFull, "the state has reached its quota")
            .cause(message)
            .help("nothing was applied; delete what is not needed: holdfast state del"),
        "DISK_FULL" => Failure::new(Code::DiskFull, "a disk is nearly full")
            .cause(message)
            .help("nothing was applied; free some space on that disk, and repeat"),
        "QUORUM_AT_RISK" => Failure::new(Code::QuorumAtRisk, message)
            .help("bring back the nodes that are away first; holdfast status names them"),
        "FOREIGN_CLUSTER" => Failure::new(Code::ForeignCluster, message)
            .help("check --endpoints: they lead to another cluster"),
        "COPIED_DIRECTORY" => Failure::new(Code::CopiedDirectory, message)
            .help("start the copy with an empty data directory and --join"),
        "WIPED_DIRECTORY" => Failure::new(Code::WipedDirectory, message)
            .help("remove the old member (holdfast members remove), then join as a new one"),
        "TRANSACTION_TOO_LARGE" => Failure::new(Code::LimitReached, message)
            .help("commit it in parts: at most 4,096 keys, and 8 MiB of keys and values"),
        "VERSION_FROM_FUTURE" => Failure::new(Code::BadRequest, message)
            .help("read the variable, and compare with the version that it has"),
        "SESSION_EXPIRED" | "UNKNOWN_SESSION" => Failure::new(Code::SessionExpired, message)
            .help("run the command again; it opens a new session"),
        "FAULT" => Failure::new(Code::NodeFault, message)
            .help("that node has stopped or will; read its log, and ask another node"),
        _ => by_status(status, message),
    };
    failure.field("reason", reason)
}

/// Reasons that need no words of their own.
fn by_status(status: Status, message: &str) -> Failure {
    if status == Status::NotFound {
        Failure::new(Code::Absent, message)
    } else if status == Status::InvalidArgument {
        Failure::new(Code::BadRequest, message).help("correct the value that is named, and repeat")
    } else if status == Status::ResourceExhausted {
        Failure::new(Code::LimitReached, message)
            .help("wait, or free some of what is limited; holdfast help limit-reached")
    } else {
        Failure::new(Code::Refused, message)
    }
}

fn lease_lost(what: &str) -> Failure {
    Failure::new(Code::LeaseLost, what)
        .help("stop what the lease allowed, open a new lease, and claim again")
}

/// Nobody carried the call out, and nothing was applied.
fn out_of_reach(error: &Error) -> Failure {
    let reasons: Vec<&str> = error
        .cause()
        .map(|cause| cause.attempts.iter().filter_map(|a| a.reason.as_deref()).collect())
        .unwrap_or_default();
    let cause = error.cause().map(ToString::to_string).unwrap_or_default();
    if !error.has_answer() {
        Failure::new(Code::Unreachable, "no node answered")
            .cause(cause)
            .help(status::UNREACHABLE_HELP)
    } else if !reasons.is_empty() && reasons.iter().all(|reason| *reason == "OVERLOADED") {
        Failure::new(Code::Overloaded, "the cluster has too much to do")
            .cause(cause)
            .help("nothing was applied; try again in a moment, with fewer calls at the same time")
    } else {
        Failure::new(Code::NoQuorum, "the cluster cannot commit writes")
            .cause(cause)
            .help("nothing was applied; see which nodes are away: holdfast status")
    }
}

#[cfg(test)]
mod tests {
    //! Each kind of error ends with its own code.
    use super::*;
    use holdfast_client::{Attempt, Cause};

    fn cause(reason: Option<&str>) -> Cause {
        Cause {
            summary: "SetState timed out".to_owned(),
            attempts: vec![Attempt {
                endpoint: "127.0.0.1:7480".to_owned(),
                reason: reason.map(str::to_owned),
                message: "what it met".to_owned(),
            }],
        }
    }

    fn refused_as(reason: &str, code: Status) -> Error {
        Error::Refused {
            reason: reason.to_owned(),
            code,
            message: "no".to_owned(),
            fields: Default::default(),
            header: None,
        }
    }

    #[test]
    fn errors_are_told_apart() {
        let not_applied = |reason| Error::NotApplied { cause: cause(reason), header: None };
        let unavailable = |reason| Error::Unavailable { cause: cause(reason), header: None };
        let cases = [
            (not_applied(None), Code::Unreachable),
            (unavailable(None), Code::Unreachable),
            (not_applied(Some("NO_LEADER")), Code::NoQuorum),
            (unavailable(Some("READ_FAILED")), Code::NoQuorum),
            (not_applied(Some("OVERLOADED")), Code::Overloaded),
            (Error::OutcomeUnknown { cause: cause(None), header: None }, Code::OutcomeUnknown),
            (Error::SessionExpired { session: 7, header: None }, Code::SessionExpired),
            (refused_as("STALE_FENCE", Status::FailedPrecondition), Code::StaleFence),
            (refused_as("LEASE_LOST", Status::FailedPrecondition), Code::LeaseLost),
            (refused_as("CHANGE_SOURCE_IN_USE", Status::FailedPrecondition), Code::InUse),
            (refused_as("QUORUM_AT_RISK", Status::FailedPrecondition), Code::QuorumAtRisk),
            (refused_as("UNKNOWN_OBJECT", Status::NotFound), Code::Absent),
            (refused_as("NAME_TOO_LONG", Status::InvalidArgument), Code::BadRequest),
            (refused_as("TOO_MANY_SESSIONS", Status::ResourceExhausted), Code::LimitReached),
            (refused_as("TRANSACTION_TOO_LARGE", Status::ResourceExhausted), Code::LimitReached),
            (refused_as("VERSION_FROM_FUTURE", Status::FailedPrecondition), Code::BadRequest),
            (refused_as("QUOTA_FULL", Status::ResourceExhausted), Code::QuotaFull),
            (refused_as("DISK_FULL", Status::ResourceExhausted), Code::DiskFull),
            (refused_as("SOMETHING_NEW", Status::FailedPrecondition), Code::Refused),
        ];
        for (error, code) in cases {
            assert_eq!(failure(&error).code, code, "{error:?}");
        }
    }

    #[test]
    fn a_write_that_timed_out_is_unknown_and_says_what_is_safe() {
        let error = Error::OutcomeUnknown { cause: cause(None), header: None };
        let failure = failure(&error);
        assert!(failure.what.contains("unknown") && !failure.what.contains("failed"));
        assert!(failure.help.unwrap().contains("retrying with the same id is safe"));
    }
}
