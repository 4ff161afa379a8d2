//! What the leader can decide about a request before it proposes it.
//!
//! Admission saves log entries, never correctness: whatever it proposes, apply decides again. It holds only
//! on a leader that has applied the entry which opened its term, and it reads that leader's applied state.
//!
//! # Invariants
//!
//! - Only a first transmission is answered from the state. Anything resent goes through the log, because its
//!   first copy may be on its way there. A stored outcome is the exception: it is the answer for good.
//! - A session that is past half of its idle time goes through the log, so that using it keeps it alive.
//! - A refusal is given here only if no later state would give another answer.
//! - What a session has sent before counts: nothing is answered while a write of that session is pending which
//!   it relies on. Writes of other sessions that are pending have no place in the order yet.
//!
//! # Commits of variables
//!
//! A commit is answered without an entry if a comparison fails in the applied state, or if all hold and it
//! writes nothing. It then takes place at the state that the answer was read from, behind the barrier: later
//! than every write that was acknowledged before it came, and before all that are pending. That is an order
//! which other sessions cannot tell from any other, for their pending writes overlap with it. A loser in
//! a race for a variable is so answered while the winners that come after are on their way, and the log and
//! the disk carry winners only.
//!
//! Its own session could tell. A client may send a commit behind another one without waiting for its answer,
//! and it takes effect behind it: a delete that is pending makes "is not there" hold, and any write makes a
//! comparison of an earlier version fail. So while a write of the same session to *any* of the compared
//! variables is pending, a commit goes through the log, whichever of its comparisons failed: that is one rule,
//! and costs an entry only where a client races with itself.
//!
//! That a comparison names a version from the future is for apply to say: this state may only be behind.

use crate::machine::Stop;
use crate::sessions::Standing;
use crate::{
    Command, Refusal, Reply, Request, Response, State, changesources, creators, masters, sessions,
    state, stm,
};

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Propose it; its notes are filled in.
    Propose,
    /// It changes nothing: answer, once a read barrier that began after admission has passed, and if no
    /// write is pending that [touches](Request::touches) what it [relies on](Request::relies_on); else
    /// propose it.
    Answer(Response),
    /// Answer: nothing later can change this, and it is already durable on a quorum.
    AnswerNow(Response),
    /// Refuse it; it was not and will not be carried out.
    Refuse(Refusal),
}

impl State {
    /// Looks at a request before it is proposed, and notes in it the revision at which that was.
    ///
    /// A row that cannot be read is left for apply to find: the request is then to be proposed.
    pub fn admit(&self, request: &mut Request) -> Admission {
        if let Err(refusal) = request.validate() {
            return Admission::Refuse(refusal);
        }
        if let Command::State(command) = &mut request.command {
            command.note(self.header().revision);
        }
        match self.foresee(request) {
            Ok(admission) => admission,
            Err(Stop::Refused(refusal)) => Admission::Refuse(refusal),
            Err(Stop::Fault(_)) => Admission::Propose,
        }
    }

    fn foresee(&self, request: &Request) -> Result<Admission, Stop> {
        let Some(origin) = request.origin else {
            return Ok(Admission::Propose);
        };
        if let Command::Session(_) = request.command {
            return Ok(Admission::Propose);
        }
        let view = self.view();
        let session = match sessions::live(view, origin.session) {
            Ok(session) => session,
            // A session that this state has not come to yet may be one that another leader has opened.
            Err(Stop::Refused(_)) if origin.session > self.header().revision => {
                return Ok(Admission::Propose);
            }
            Err(stop) => return Err(stop),
        };
        match sessions::look_up(view, &origin, &session)? {
            Standing::New => {}
            Standing::Known(response) => return Ok(Admission::AnswerNow(response)),
            Standing::Refused(refusal @ Refusal::StaleSeq { .. }) => return Err(refusal.into()),
            // A request that is on its way can change that.
            Standing::Refused(_) => return Ok(Admission::Propose),
        }
        if origin.resent || session.is_aging(view.clock_ms) {
            return Ok(Admission::Propose);
        }
        let reply = match self.unchanged(origin.session, &request.command) {
            Ok(reply) => reply,
            // True now, but not for good: what the request names may be on its way.
            Err(Stop::Refused(_)) => return Ok(Admission::Propose),
            Err(stop) => return Err(stop),
        };
        let respond = |reply| Response { revision: self.header().revision, outcome: Ok(reply) };
        Ok(match reply {
            None => Admission::Propose,
            Some(reply) if is_final(&reply) => Admission::AnswerNow(respond(reply)),
            Some(reply) => Admission::Answer(respond(reply)),
        })
    }

    /// The reply to a command of a session, if it would change nothing.
    fn unchanged(&self, session: u64, command: &Command) -> Result<Option<Reply>, Stop> {
        Ok(match command {
            Command::Session(_) => None,
            Command::State(command) => match state::judge(self.view(), session, command)? {
                state::Verdict::Stands(reply) => Some(Reply::State(reply)),
                state::Verdict::Change { .. } => None,
            },
            Command::Masters(command) => masters::known(self.view(), command)?.map(Reply::Masters),
            Command::ChangeSources(command) => {
                changesources::known(self.view(), command)?.map(Reply::ChangeSources)
            }
            Command::Creators(command) => {
                creators::known(self.view(), command)?.map(Reply::Creators)
            }
            Command::Import(_) | Command::Objects(_) => None,
            Command::Stm(command) => {
                stm::known(self.view(), self.header().revision, command)?.map(Reply::Stm)
            }
        })
    }
}

/// Whether a reply stays true in all later states: ids are never given again, and never go.
fn is_final(reply: &Reply) -> bool {
    match reply {
        Reply::State(reply) => matches!(reply, state::Reply::ObjectId(_)),
        Reply::Masters(reply) => matches!(reply, masters::Reply::Id(_)),
        Reply::ChangeSources(reply) => matches!(reply, changesources::Reply::Id(_)),
        Reply::Session(_)
        | Reply::Creators(_)
        | Reply::Import(_)
        | Reply::Objects(_)
        | Reply::Stm(_) => false,
    }
}
