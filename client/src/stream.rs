//! Answers that come in parts, all true at one revision.
//!
//! A stream does not go on at another node when it breaks: another one is at another revision.

use std::time::Duration;

use holdfast_proto::v1 as proto;
use tonic::{Response, Status, Streaming};

use crate::error::{Answer, Attempt, Cause, Error, Header};
use crate::rpc::Headed;

/// Silence after which a stream counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// One part.
pub(crate) trait Part: Headed {
    fn is_last(&self) -> bool;
}

/// A stream of which the first part has come.
pub(crate) struct Opened<R> {
    first: R,
    rest: Streaming<R>,
}

impl<R: Part> Opened<R> {
    /// Waits for the first part.
    pub(crate) async fn of(
        response: Response<Streaming<R>>,
    ) -> Result<Response<Opened<R>>, Status> {
        let mut rest = response.into_inner();
        match rest.message().await? {
            Some(first) => Ok(Response::new(Opened { first, rest })),
            None => Err(Status::aborted("the stream was cut short")),
        }
    }
}

impl<R: Part> Headed for Opened<R> {
    fn header(&self) -> Option<&proto::ResponseHeader> {
        self.first.header()
    }
}

/// The parts of an answer. Dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct Parts<R> {
    /// For messages: the export.
    what: &'static str,
    header: Header,
    next: Option<R>,
    rest: Streaming<R>,
}

impl<R: Part> Parts<R> {
    pub(crate) fn new(what: &'static str, opened: Opened<R>) -> Parts<R> {
        let Opened { first, rest } = opened;
        let header = first.header().map(Header::from).unwrap_or_default();
        Parts { what, header, next: Some(first), rest }
    }

    /// Who answers, and the revision that all of it is true at.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The next part; none behind the last one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the stream broke; [`Error::Refused`] if the node ended it, with reason
    /// `SLOW_READER` if it was not read for 10 s.
    pub(crate) async fn next(&mut self) -> Result<Option<R>, Error> {
        let Some(part) = self.next.take() else { return Ok(None) };
        if !part.is_last() {
            self.next = Some(self.receive().await?);
        }
        Ok(Some(part))
    }

    async fn receive(&mut self) -> Result<R, Error> {
        let status = match tokio::time::timeout(SILENCE_MAX, self.rest.message()).await {
            Ok(Ok(Some(part))) => return Ok(part),
            Ok(Ok(None)) => Status::aborted("the stream was cut short"),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer"),
        };
        let (reason, message) = match Answer::from_status(&status) {
            Answer::Refused(refusal) => return Err(refusal.into_error()),
            Answer::Elsewhere { reason, message, .. } => (Some(reason), message),
            Answer::Unknown { reason, message, .. } => (reason, message),
            Answer::NotSent { message } => (None, message),
        };
        let endpoint = format!("node {}", self.header.node_id);
        let attempts = vec![Attempt { endpoint, reason, message }];
        let cause = Cause { summary: format!("{} broke off", self.what), attempts };
        Err(Error::Unavailable { cause, header: Some(Box::new(self.header.clone())) })
    }
}
