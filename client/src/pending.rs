//! A write that has a number and, until it is decided, can be sent again under it.
//!
//! Invariants:
//! - The number is kept until the write is decided or the value is dropped, whichever future was dropped
//!   meanwhile; so the cluster keeps the outcome for as long.
//! - Sent again, all its copies are marked: whatever became of the first ones, it is carried out once.

use std::sync::Arc;

use crate::call::{self, Kind, Run};
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::{Applied, Error};
use crate::rpc::Write;
use crate::session::{Seq, Session};

/// See the module.
#[derive(Debug)]
pub(crate) struct Pending<W> {
    client: Client,
    request: W,
    session: Arc<Session>,
    /// None once it is decided.
    seq: Option<Seq>,
    /// Whether copies of an earlier run may have left.
    may_have_left: bool,
}

/// What came of sending a write.
#[derive(Debug)]
pub(crate) enum Sent<R> {
    /// It was answered, or was definitely not applied and never will be.
    Decided(Result<R, Error>),
    /// It may have been applied, or may still be; it can be sent again.
    Open(Error),
    /// It may have been applied. Its session is gone, so that it will not be any more, and sending it again
    /// tells nothing.
    Forgotten(Error),
}

impl<W: Write> Pending<W> {
    /// Gives the write a number; sends nothing but what opens a session.
    ///
    /// # Errors
    /// [`Error::NotApplied`] if there is no session by the deadline, or too many writes are undecided.
    pub(crate) async fn begin(
        client: &Client,
        request: W,
        deadline: Deadline,
    ) -> Result<Pending<W>, Error> {
        let session = client.session(deadline).await?;
        let seq = session.allot(deadline.at_most(session.call_timeout_max())).await?;
        let client = client.clone();
        Ok(Pending { client, request, session, seq: Some(seq), may_have_left: false })
    }

    /// Sends it until it is answered or the deadline passes; may be called again until it is decided.
    pub(crate) async fn send(&mut self, nth: Run, deadline: Deadline) -> Sent<W::Response> {
        let seq = self.seq.as_ref().expect("a decided write is not sent again");
        let nth = if self.may_have_left { Run::Further } else { nth };
        // Should this future be dropped.
        self.may_have_left = true;
        let load = |resent| {
            let mut request = self.request.clone();
            request.set_context(seq.context(resent));
            request
        };
        let deadline = deadline.at_most(self.session.call_timeout_max());
        let pool = self.client.pool();
        match call::run_again(&pool, Kind::Write, nth, deadline, load).await {
            Ok(response) => {
                self.decide(true);
                Sent::Decided(Ok(response))
            }
            Err(error) if error.applied() == Applied::No => {
                self.decide(false);
                Sent::Decided(Err(self.in_session(error)))
            }
            Err(error) if error.tells_of_lost_session() => Sent::Forgotten(error),
            Err(error) => Sent::Open(error),
        }
    }

    /// Sends it until `budget`, and if it may have left by then goes on until `deadline`; may be called again
    /// until it is decided. A write that stays open holds up no others: they go on in a new session.
    pub(crate) async fn send_within(
        &mut self,
        budget: Deadline,
        deadline: Deadline,
    ) -> Sent<W::Response> {
        let Aside { pending } = &mut Aside { pending: self };
        if !pending.may_have_left {
            match pending.send(Run::First, budget).await {
                Sent::Open(_) => {}
                sent @ (Sent::Decided(_) | Sent::Forgotten(_)) => return sent,
            }
        }
        pending.send(Run::Further, deadline).await
    }

    fn decide(&mut self, was_carried_out: bool) {
        if let Some(seq) = self.seq.take() {
            seq.decide(was_carried_out);
        }
    }

    fn in_session(&self, error: Error) -> Error {
        if !error.is_session_gone() {
            return error;
        }
        self.session.mark_gone();
        Error::SessionExpired { session: self.session.id, header: error.into_header() }
    }
}

/// Also when its future is dropped: the number of an open write would hold up the 256th one after it.
struct Aside<'a, W> {
    pending: &'a mut Pending<W>,
}

impl<W> Drop for Aside<'_, W> {
    fn drop(&mut self) {
        if self.pending.seq.is_some() {
            self.pending.client.leave_session(&self.pending.session);
        }
    }
}
